"""What time brings about: expiry, retirement, and the removal of what nobody can ask for any more.

1. One task and one question to the store for all mailboxes: nothing per message sets a timer. What the store says is
   due is judged by the mailbox it is in.
2. Expiry is noticed within 1 s, of absent devices too (C5): a round every `ROUND_S`. A round looks back `LOOK_BACK_MS`
   beyond the last one, because what is decided becomes due before it is durable where the disk is slow; the first
   looks back to the beginning.
3. Removal goes in small steps, with a pause after each, so that nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from pushactors.actors.device import DeviceActor
from pushactors.actors.registrar import Registrar
from pushactors.actors.supervisor import Supervisor
from pushactors.actors.tally import Tally
from pushactors.actors.tenant import Tenant
from pushactors.errors import Busy
from pushactors.stores.contract import Store
from pushactors.stores.patience import patient
from pushactors.wire.ids import AppNo, DeviceNo, Millis

ROUND_S = 0.5
LOOK_BACK_MS = 60_000
DUE_AT_ONCE = 1_000
SWEPT_AT_ONCE = 1_000
SWEEP_PAUSE_S = 0.05
SWEEP_REST_S = 60.0
LOOKED_AT_ONCE = 1_000


class Upkeep:
    """`tenants`: the apps that are served now."""

    def __init__(
        self,
        store: Store,
        devices: Supervisor,
        tenants: Callable[[], Mapping[AppNo, tuple[Tenant, Registrar]]],
        clock: Callable[[], Millis],
        tally: Tally,
    ) -> None:
        self._store = store
        self._devices = devices
        self._tenants = tenants
        self._clock = clock
        self._tally = tally
        self._looked_until = Millis(0)

    async def run(self) -> None:
        """Rounds, for ever. Raises `StoreFailure` when the store gives up."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._rounds)
            nursery.start_soon(self._sweeps)

    def look_back(self) -> None:
        """Has the next round look back to the beginning: an app that is served again may have things long due."""
        self._looked_until = Millis(0)

    async def _rounds(self) -> None:
        while True:
            await self.expire()
            self._devices.retire_idle()
            await trio.sleep(ROUND_S)

    async def expire(self) -> None:
        """Has everything judged that became due since the last round."""
        until = self._clock()
        after = (Millis(max(0, self._looked_until - LOOK_BACK_MS)), DeviceNo(0))
        self._looked_until = until
        while True:
            rows = await patient(lambda behind=after: self._store.due(behind, until, DUE_AT_ONCE))  # type: ignore[misc]
            tenants = self._tenants()
            for row in rows:
                after = (row.expires_at, row.device_no)
                if row.app_no in tenants:
                    self._expire(self._devices.get(row.device_no, tenants[row.app_no][0]))
            if len(rows) < DUE_AT_ONCE:
                return

    def _expire(self, actor: DeviceActor) -> None:
        try:
            actor.inbox.post(actor.expire, lost=_nothing)
        except Busy:
            _nothing()

    async def _sweeps(self) -> None:
        while True:
            removed = await patient(lambda: self._store.sweep(self._clock(), SWEPT_AT_ONCE))
            self._tally.add("swept_rows", count=removed)
            for _, registrar in list(self._tenants().values()):
                self._tally.add("devices_expired", count=await registrar.delete_unseen(LOOKED_AT_ONCE))
            await trio.sleep(SWEEP_PAUSE_S if removed else SWEEP_REST_S)


def _nothing() -> None:
    """What is due and was not judged now is found again by the next round."""

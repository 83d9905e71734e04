"""What time brings about: expiry, deadlines, retirement, and the removal of what nobody can ask for any more.

1. One wheel for all: one task, and one question each to the store about what is due and what is overdue, in order of
   time. Nothing per message sets a timer. What the store says is due is judged by the mailbox it is in; why it is
   overdue is asked there as well, or known here, if its device is away (C21).
2. Expiry is noticed within 1 s, of absent devices too (C5): a round every `ROUND_S`. A round looks back `LOOK_BACK_MS`
   beyond the last one, because what is decided becomes due before it is durable where the disk is slow; the first
   looks back to the beginning.
   A deadline, too.
3. Removal goes in small steps, with a pause after each, so that nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

import trio

from pushactors.actors.device import DeviceActor
from pushactors.actors.held import AliasMailboxes
from pushactors.actors.registrar import Registrar
from pushactors.actors.supervisor import Supervisor
from pushactors.actors.tally import Tally
from pushactors.actors.tenant import Tenant
from pushactors.domain.receipts import Reason, Why
from pushactors.errors import ActorCrashed, Busy
from pushactors.stores.contract import Overdue, OverdueRow, Store
from pushactors.stores.patience import patient
from pushactors.wire.ids import AppNo, DeviceNo, Millis, MsgId, UnitNo

ROUND_S = 0.5
LOOK_BACK_MS = 60_000
DUE_AT_ONCE = 1_000
OVERDUE_AT_ONCE = 5_000
SWEPT_AT_ONCE = 1_000
SWEEP_PAUSE_S = 0.05
SWEEP_REST_S = 60.0
LOOKED_AT_ONCE = 1_000


class Served(NamedTuple):
    """What is seen here of one app."""

    tenant: Tenant
    registrar: Registrar
    held: AliasMailboxes


class Upkeep:
    """`tenants`: the apps that are served now."""

    def __init__(
        self,
        store: Store,
        devices: Supervisor,
        tenants: Callable[[], Mapping[AppNo, Served]],
        clock: Callable[[], Millis],
        tally: Tally,
    ) -> None:
        self._store = store
        self._devices = devices
        self._tenants = tenants
        self._clock = clock
        self._tally = tally
        self._looked_until = Millis(0)
        self._overdue_until = Millis(0)
        self._told_in: dict[AppNo, tuple[Tenant, UnitNo]] = {}
        """In which unit an app was last told of deadlines."""

    async def run(self) -> None:
        """Rounds, for ever. Raises `StoreFailure` when the store gives up."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._rounds)
            nursery.start_soon(self._sweeps)
            nursery.start_soon(self._removals)

    def look_back(self) -> None:
        """Has the next round look back to the beginning: an app that is served again may have things long due."""
        self._looked_until = Millis(0)
        self._overdue_until = Millis(0)

    async def _rounds(self) -> None:
        while True:
            await self.expire()
            await self.find_overdue()
            self._devices.write_sent()
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
                    self._expire(self._devices.get(row.device_no, tenants[row.app_no].tenant))
            if len(rows) < DUE_AT_ONCE:
                return

    def _expire(self, actor: DeviceActor) -> None:
        try:
            actor.inbox.post(actor.expire, lost=_nothing)
        except Busy:
            _nothing()

    async def find_overdue(self) -> None:
        """Has everything told that is past its deadline, once each."""
        until = self._clock()
        after = (Millis(max(0, self._overdue_until - LOOK_BACK_MS)), DeviceNo(0), MsgId(0))
        self._overdue_until = until
        open_since = until
        # An app whose last round is not on disk yet waits: nobody else does.
        late = {app_no for app_no, told in self._told_in.items() if told[1] > told[0].book.durable}
        while True:
            rows = await patient(lambda behind=after: self._store.overdue(behind, until, OVERDUE_AT_ONCE))  # type: ignore[misc]
            tenants = self._tenants()
            overdue: dict[AppNo, list[Overdue]] = {}
            for row in rows:
                after = row[:3]
                if row.app_no not in tenants:
                    continue
                reason = None if row.app_no in late else self._reason(row, tenants[row.app_no].tenant)
                if reason is None:
                    open_since = min(open_since, row.deliver_by)
                else:
                    overdue.setdefault(row.app_no, []).append(Overdue(row.msg_id, row.device_no, until, reason))
            for app_no, changes in overdue.items():
                tenant = tenants[app_no].tenant
                with tenant.book.decision() as unit:
                    unit.changes += changes
                self._told_in[app_no] = (tenant, unit.number)
                self._tally.add("overdue", count=len(changes))
            if len(rows) < OVERDUE_AT_ONCE:
                # The next round looks back as far as to what could not be judged in this one.
                self._overdue_until = min(until, Millis(open_since + LOOK_BACK_MS))
                return

    def _reason(self, row: OverdueRow, tenant: Tenant) -> Reason | None:
        """Why it is not received; None: it is settled and that is not durable, or its actor is not there yet."""
        actor = self._devices.find(row.device_no)
        is_alias = row.last_seen_at is None
        is_away = Reason(Why.UNHELD if is_alias else Why.ABSENT, since=row.here_since if is_alias else row.last_seen_at)
        if actor is None:
            return is_away
        if not actor.inbox.is_open:
            self._devices.get(row.device_no, tenant)
            return None
        try:
            reason = actor.reason(row.msg_id)
        except ActorCrashed:
            return None
        if reason == Reason(Why.ABSENT):
            return is_away
        if reason is not None and reason.why is Why.UNHELD and reason.since is not None:
            # What was moved lately the actor knows, what was moved before it was loaded the store.
            return reason._replace(since=max(reason.since, row.here_since))
        return reason

    async def _sweeps(self) -> None:
        while True:
            kept = {app_no: served.tenant.limits.receipts_kept for app_no, served in self._tenants().items()}
            removed = await patient(lambda: self._store.sweep(self._clock(), SWEPT_AT_ONCE, kept))  # noqa: B023
            self._tally.add("swept_rows", count=removed)
            for served in list(self._tenants().values()):
                self._tally.add("devices_expired", count=await served.registrar.delete_unseen(LOOKED_AT_ONCE))
            await trio.sleep(SWEEP_PAUSE_S if removed else SWEEP_REST_S)

    async def _removals(self) -> None:
        while True:
            await trio.sleep(SWEEP_REST_S)
            for served in list(self._tenants().values()):
                with suppress(ActorCrashed):  # logged where it crashed; it is looked at again in a later round
                    removed = await served.held.remove_empty(LOOKED_AT_ONCE)
                    while removed:
                        await trio.sleep(SWEEP_PAUSE_S)
                        removed = await served.held.remove_empty(LOOKED_AT_ONCE)


def _nothing() -> None:
    """What is due and was not judged now is found again by the next round."""

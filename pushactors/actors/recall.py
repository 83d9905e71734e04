"""Taking a push back: what waits is settled, what is on the wire is struck, and whoever may have it is told (C22).

1. A device that is here, or may have the message, judges for itself; of the others nobody can know more than the store,
   so it is settled there, and the next actor of each begins behind that.
2. Nothing is left out: it goes round until no unsettled delivery of the push is without a strike.
3. The answer is what was true at one instant, when all of it was durable: settled by this recall, still on the way,
   received, and the rest. So the four add up to the targets (C1).
4. Who received it, or was sent it and did not say so, is told until it answers, at most `TOLD_DAYS`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import count
from typing import NamedTuple, Protocol

import trio

from pushactors.actors.device import DeviceActor
from pushactors.actors.reading import Reader
from pushactors.actors.tenant import Tenant
from pushactors.actors.unit import Unit
from pushactors.domain.message import Verdict
from pushactors.errors import Busy, InternalError, NoSuchMessage
from pushactors.stores.contract import Noticed, ReportRow, Settled, Store, UnsettledRow
from pushactors.stores.patience import patient
from pushactors.wire.ids import DeviceNo, Millis, MsgId

log = logging.getLogger(__name__)

TOLD_DAYS = 10
DAY_MS = 86_400_000
ROUNDS = 10
"""How often it goes round before it no longer believes what actors say."""
AT_ONCE = 1_000
"""Devices in one unit: others have their turn, and their place on the way to the disk, in between."""


class Split(NamedTuple):
    recalled: int
    on_the_way: int
    received: int
    settled: int


class Devices(Protocol):
    """Where the device actors are."""

    def find(self, device_no: DeviceNo) -> DeviceActor | None: ...
    def get(self, device_no: DeviceNo, tenant: Tenant) -> DeviceActor: ...
    def rebuild(self, device_no: DeviceNo, why: str) -> None: ...
    def decided(self, device_no: DeviceNo, tenant: Tenant, unit: Unit) -> None: ...


class Recalls:
    """The recalls of one app, one at a time. See the law on top."""

    def __init__(
        self,
        tenant: Tenant,
        devices: Devices,
        store: Store,
        read: Reader,
        between_pushes: trio.StrictFIFOLock,
        clock: Callable[[], Millis],
    ) -> None:
        """`between_pushes`: held while something is decided of devices that are not here. A push in the middle of which
        that came could not judge them any more."""
        self._between_pushes = between_pushes
        self._tenant = tenant
        self._devices = devices
        self._store = store
        self._read = read
        self._clock = clock
        self._turn = trio.StrictFIFOLock()

    async def recall(self, msg_id: MsgId) -> Split:
        """Takes the push back; durable when this returns. Raises `NoSuchMessage`."""
        async with self._turn:
            recalled = 0
            # Whatever was decided before is judged, and what is pushed is wholly there.
            await self._tenant.book.told()
            for rounds in count():
                now = await self._recall_unsettled(msg_id, is_stuck=rounds > ROUNDS)
                if now is None:
                    break
                recalled += now
                if rounds > 2 * ROUNDS:
                    raise InternalError("This push could not be recalled wholly, and it is logged why. Try again.")
            await self._tell_recipients(msg_id)
            return await self._split(msg_id, recalled)

    async def _recall_unsettled(self, msg_id: MsgId, is_stuck: bool) -> int | None:
        """Once through what is unsettled: how much of it was settled; None if there was nothing without a strike.
        `is_stuck`: actors that say that they do not have it are no more believed, but rebuilt from the store."""
        recalled, after, is_done = 0, DeviceNo(0), True
        while True:
            _, rows = await self._unsettled(msg_id, after)
            if not rows:
                break
            after = rows[-1].device_no
            waiting = [row for row in rows if row.strike is None]
            if waiting:
                is_done = False
                for row in waiting if is_stuck else ():
                    log.error("Device %d does not have delivery %d, which the store has.", row.device_no, msg_id)
                    self._devices.rebuild(row.device_no, "It does not have what the store has.")
                recalled += await self._recall_page(msg_id, waiting)
        return None if is_done else recalled

    async def _unsettled(self, msg_id: MsgId, after: DeviceNo) -> tuple[ReportRow, list[UnsettledRow]]:
        app_no = self._tenant.app_no
        found = await patient(lambda: self._store.unsettled(app_no, msg_id, after, AT_ONCE))
        if found is None:
            raise NoSuchMessage("This app has no push with this msg_id, or it was too long ago.")
        return found[0], list(found[1])

    async def _recall_page(self, msg_id: MsgId, rows: list[UnsettledRow]) -> int:
        await self._tenant.book.room()
        now = self._clock()
        until = Millis(now + TOLD_DAYS * DAY_MS)
        settled: list[DeviceNo] = []
        async with self._between_pushes:
            unit = self._decide_page(msg_id, rows, now, until, settled)
        await self._tenant.book.reached(unit.number)
        return len(settled)

    def _decide_page(
        self, msg_id: MsgId, rows: list[UnsettledRow], now: Millis, until: Millis, settled: list[DeviceNo]
    ) -> Unit:
        with self._tenant.book.decision() as unit:
            for row in rows:
                if row.may_have_it or self._devices.find(row.device_no) is not None:
                    self._ask(row.device_no, msg_id, until, unit, settled)
                    continue
                unit.changes.append(Settled(msg_id, row.device_no, Verdict.RECALLED, now))
                self._devices.decided(row.device_no, self._tenant, unit)
                settled.append(row.device_no)
        return unit

    def _ask(
        self, device_no: DeviceNo, msg_id: MsgId, until: Millis, unit: Unit, settled: list[DeviceNo]
    ) -> None:
        actor = self._devices.get(device_no, self._tenant)
        if actor.waits_for >= unit.number:
            return  # it waits for what is behind this unit: the next round asks it

        def recall() -> None:
            if actor.recall(msg_id, until, unit):
                settled.append(device_no)
            unit.close()

        unit.expect()
        try:
            actor.inbox.post(recall, lost=unit.close)  # lost: the next round asks its next actor
        except Busy:
            unit.close()

    async def _tell_recipients(self, msg_id: MsgId) -> None:
        after = DeviceNo(0)
        while True:
            page = await patient(lambda last=after: self._store.recipients(msg_id, last, AT_ONCE))  # type: ignore[misc]
            if not page:
                break
            after = page[-1]
            await self._tell_page(msg_id, page)
        after = DeviceNo(0)
        while True:
            _, rows = await self._unsettled(msg_id, after)
            if not rows:
                break
            after = rows[-1].device_no
            # What is on the wire under an earlier strike is as much on its way as what this recall has struck.
            await self._tell_page(msg_id, [row.device_no for row in rows if row.strike is not None])

    async def _tell_page(self, msg_id: MsgId, page: Sequence[DeviceNo]) -> None:
        await self._tenant.book.room()
        until = Millis(self._clock() + TOLD_DAYS * DAY_MS)
        async with self._between_pushes:
            with self._tenant.book.decision() as unit:
                for device_no in page:
                    self._tell(device_no, msg_id, until, unit)

    def _tell(self, device_no: DeviceNo, msg_id: MsgId, until: Millis, unit: Unit) -> None:
        actor = self._devices.find(device_no)
        if actor is None:
            unit.changes.append(Noticed(msg_id, device_no, until))
            self._devices.decided(device_no, self._tenant, unit)
            return
        actor = self._devices.get(device_no, self._tenant)

        def store_has_it() -> None:
            unit.changes.append(Noticed(msg_id, device_no, until))
            actor.last_unit = max(actor.last_unit, unit.number)

        def lost() -> None:
            store_has_it()
            unit.close()

        def notice() -> None:
            actor.notice(msg_id, until, unit)
            unit.close()

        if actor.waits_for >= unit.number:
            store_has_it()
            return
        unit.expect()
        try:
            actor.inbox.post(notice, lost)
        except Busy:
            actor.inbox.crash(RuntimeError("It is not ready, and has too much to do by then."))
            lost()

    async def _split(self, msg_id: MsgId, recalled: int) -> Split:
        rows, _ = await self._read.read(
            self._tenant.book, [], lambda: self._store.reports(self._tenant.app_no, [msg_id])
        )
        report = rows.get(msg_id)
        if report is None:
            raise NoSuchMessage("This app has no push with this msg_id, or it was too long ago.")
        received = report.verdicts.get(Verdict.RECEIVED, 0)
        rest = report.targets - recalled - report.unsettled - received
        return Split(recalled, report.unsettled, received, rest)

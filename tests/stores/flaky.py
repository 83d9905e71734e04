"""A store that takes its time and does not always answer: what law 7 allows, on purpose and from a seed.

1. Every operation sleeps for a while before and after it acts.
2. It may raise `StoreBusy` before it has acted, or after: then its answer is lost, and counted in `answers_lost`.
3. What it does tell is true: it is a memory store inside.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from pushactors.domain.message import Verdict
from pushactors.errors import StoreBusy
from pushactors.stores.contract import (
    NO_LIMITS,
    Change,
    CidRow,
    DeviceRow,
    DueRow,
    MailboxRow,
    Opened,
    OverdueRow,
    ReceiptPage,
    ReportRow,
    StatusRow,
    TimelineRow,
    UnsettledRow,
)
from pushactors.stores.memory import MemoryDisk, MemoryStore
from pushactors.wire.ids import AppNo, Cid, Consumer, Cursor, DeviceNo, Millis, MsgId, RegistrationId

T = TypeVar("T")
TROUBLE = 0.2
LONGEST_S = 0.05


class FlakyStore:
    def __init__(self, disk: MemoryDisk, chance: random.Random) -> None:
        self._inner = MemoryStore(disk)
        self._chance = chance
        self.answers_lost = 0

    async def open(self) -> Opened:
        return await self._slowly(self._inner.open)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def commit(self, number: int, changes: Sequence[Change]) -> int:
        return await self._slowly(partial(self._inner.commit, number, changes))

    async def devices(self, app_no: AppNo, after: DeviceNo, limit: int) -> Sequence[DeviceRow]:
        return await self._slowly(partial(self._inner.devices, app_no, after, limit))

    async def alias_mailboxes(self, app_no: AppNo, after: DeviceNo, limit: int) -> Sequence[DeviceRow]:
        return await self._slowly(partial(self._inner.alias_mailboxes, app_no, after, limit))

    async def mailboxes(self, device_nos: Sequence[DeviceNo]) -> Mapping[DeviceNo, MailboxRow]:
        return await self._slowly(partial(self._inner.mailboxes, device_nos))

    async def bodies(self, msg_ids: Sequence[MsgId]) -> Mapping[MsgId, bytes]:
        return await self._slowly(partial(self._inner.bodies, msg_ids))

    async def due(self, after: tuple[Millis, DeviceNo], until: Millis, limit: int) -> Sequence[DueRow]:
        return await self._slowly(partial(self._inner.due, after, until, limit))

    async def unfinished(self, limit: int) -> Sequence[tuple[MsgId, DeviceNo, Verdict]]:
        return await self._slowly(partial(self._inner.unfinished, limit))

    async def stranded(self, app_no: AppNo) -> Sequence[DeviceNo]:
        return await self._slowly(partial(self._inner.stranded, app_no))

    async def overdue(
        self, after: tuple[Millis, DeviceNo, MsgId], until: Millis, limit: int
    ) -> Sequence[OverdueRow]:
        return await self._slowly(partial(self._inner.overdue, after, until, limit))

    async def unsettled(
        self, app_no: AppNo, msg_id: MsgId, after: DeviceNo, limit: int
    ) -> tuple[ReportRow, Sequence[UnsettledRow]] | None:
        return await self._slowly(partial(self._inner.unsettled, app_no, msg_id, after, limit))

    async def recipients(self, msg_id: MsgId, after: DeviceNo, limit: int) -> Sequence[DeviceNo]:
        return await self._slowly(partial(self._inner.recipients, msg_id, after, limit))

    async def had(self, device_no: DeviceNo, msg_ids: Sequence[MsgId]) -> Sequence[MsgId]:
        return await self._slowly(partial(self._inner.had, device_no, msg_ids))

    async def installed(self, app_no: AppNo, install: bytes) -> RegistrationId | None:
        return await self._slowly(partial(self._inner.installed, app_no, install))

    async def cids(self, app_no: AppNo, cids: Sequence[Cid], since: Millis) -> Mapping[Cid, CidRow]:
        return await self._slowly(partial(self._inner.cids, app_no, cids, since))

    async def reports(self, app_no: AppNo, msg_ids: Sequence[MsgId]) -> Mapping[MsgId, ReportRow]:
        return await self._slowly(partial(self._inner.reports, app_no, msg_ids))

    async def pushes(self, app_no: AppNo, before: MsgId | None, limit: int) -> Sequence[ReportRow]:
        return await self._slowly(partial(self._inner.pushes, app_no, before, limit))

    async def statuses(
        self, app_no: AppNo, msg_id: MsgId, registration_ids: Sequence[RegistrationId]
    ) -> Mapping[RegistrationId, StatusRow | None] | None:
        return await self._slowly(partial(self._inner.statuses, app_no, msg_id, registration_ids))

    async def timeline(self, app_no: AppNo, msg_id: MsgId, device_no: DeviceNo) -> TimelineRow | None:
        return await self._slowly(partial(self._inner.timeline, app_no, msg_id, device_no))

    async def device_no(self, app_no: AppNo, registration_id: RegistrationId) -> DeviceNo | None:
        return await self._slowly(partial(self._inner.device_no, app_no, registration_id))

    async def receipts(self, app_no: AppNo, after: Cursor, limit: int) -> ReceiptPage:
        return await self._slowly(partial(self._inner.receipts, app_no, after, limit))

    async def consumers(self, app_no: AppNo) -> Mapping[Consumer, Cursor]:
        return await self._slowly(partial(self._inner.consumers, app_no))

    async def sweep(self, now: Millis, limit: int, receipts_kept: Mapping[AppNo, int] = NO_LIMITS) -> int:
        return await self._slowly(partial(self._inner.sweep, now, limit, receipts_kept))

    async def backup(self, target: Path) -> None:
        await self._slowly(partial(self._inner.backup, target))

    async def _slowly(self, operation: Callable[[], Awaitable[T]]) -> T:
        await trio.sleep(self._chance.uniform(0, LONGEST_S))
        if self._chance.random() < TROUBLE:
            raise StoreBusy("the flaky store was not asked")
        answer = await operation()
        await trio.sleep(self._chance.uniform(0, LONGEST_S))
        if self._chance.random() < TROUBLE:
            self.answers_lost += 1
            raise StoreBusy("the answer of the flaky store was lost")
        return answer

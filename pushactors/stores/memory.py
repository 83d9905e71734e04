"""The store without a disk: the whole contract in plain values, for tests on a mock clock and for trying things out.

1. What survives is a `MemoryDisk`; a `MemoryStore` is one owner of it. Opening one over a disk fences the others off.
2. Nothing waits and nothing fails: an operation is one checkpoint, and then happens at once.
3. It ends with the process, and there is nothing to back up.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import trio

from pushactors.domain.message import Verdict
from pushactors.errors import StoreFenced, StoreUnusable
from pushactors.stores.contract import (
    NO_LIMITS,
    Change,
    CidRow,
    DeviceRow,
    DueRow,
    MailboxRow,
    NoticeRow,
    Opened,
    OverdueRow,
    ReceiptPage,
    ReceiptRow,
    ReportRow,
    StatusRow,
    TimelineRow,
    UnsettledRow,
)
from pushactors.stores.memory_disk import MemoryDisk
from pushactors.stores.memory_records import Delivery, Push, Receipt
from pushactors.stores.memory_sweep import sweep
from pushactors.stores.timelines import Kind, timeline
from pushactors.wire.ids import AppNo, Cid, Consumer, Cursor, DeviceNo, Millis, MsgId, RegistrationId

__all__ = ["MemoryDisk", "MemoryStore"]


class MemoryStore:
    """See `contract.Store`. Over `shared`, which other owners may have had; over a disk of its own without."""

    def __init__(self, shared: MemoryDisk | None = None) -> None:
        self._shared = shared if shared is not None else MemoryDisk()
        self._epoch: int | None = None

    async def open(self) -> Opened:
        await trio.lowlevel.checkpoint()
        disk = self._shared
        disk.epoch += 1
        self._epoch = disk.epoch
        return Opened(
            disk.epoch, disk.last_commit, dict(disk.apps), disk.ids_below, disk.last_device_no, disk.secret
        )

    async def aclose(self) -> None:
        self._epoch = None
        await trio.lowlevel.checkpoint()

    async def commit(self, number: int, changes: Sequence[Change]) -> int:
        disk = await self._disk()
        if number <= disk.last_commit:
            return 0
        if number != disk.last_commit + 1:
            raise StoreUnusable(f"The store has commit {disk.last_commit} where {number - 1} should be; start again.")
        return disk.apply(number, changes)

    async def devices(self, app_no: AppNo, after: DeviceNo, limit: int) -> Sequence[DeviceRow]:
        return _following(await self._disk(), app_no, after, limit, is_alias=False)

    async def alias_mailboxes(self, app_no: AppNo, after: DeviceNo, limit: int) -> Sequence[DeviceRow]:
        return _following(await self._disk(), app_no, after, limit, is_alias=True)

    async def mailboxes(self, device_nos: Sequence[DeviceNo]) -> Mapping[DeviceNo, MailboxRow]:
        disk = await self._disk()
        found: dict[DeviceNo, MailboxRow] = {}
        for device_no in device_nos:
            if row := disk.living(device_no):
                waiting = [push.row(device_no) for push in disk.mailboxes.get(device_no, {}).values()]
                waiting.sort(key=lambda each: (each.place, each.msg_id))
                notices = [NoticeRow(*notice) for notice in disk.devices[device_no].notices.items()]
                notices.sort(key=lambda each: (each.until, each.msg_id))
                found[device_no] = MailboxRow(row, tuple(waiting), tuple(notices))
        return found

    async def bodies(self, msg_ids: Sequence[MsgId]) -> Mapping[MsgId, bytes]:
        disk = await self._disk()
        return {
            msg_id: push.body
            for msg_id in msg_ids
            if (push := disk.pushes.get(msg_id)) is not None and push.body is not None
        }

    async def due(self, after: tuple[Millis, DeviceNo], until: Millis, limit: int) -> Sequence[DueRow]:
        disk = await self._disk()
        found = {
            DueRow(push.message.expires_at, device_no, row.app_no)
            for push in disk.unsettled.values()
            if push.message.expires_at is not None and after[0] <= push.message.expires_at <= until
            for device_no in push.unsettled
            if (row := disk.living(device_no)) is not None
        }
        return sorted(row for row in found if row[:2] > after)[:limit]

    async def unfinished(self, limit: int) -> Sequence[tuple[MsgId, DeviceNo, Verdict]]:
        disk = await self._disk()
        found = (
            (msg_id, device_no, push.deliveries[device_no].strike or Verdict.MISSED)
            for msg_id, push in disk.unsettled.items()
            for device_no in push.unsettled
            if push.deliveries[device_no].strike is not None or push.message.expires_at is None
            if not _is_stranded(push.deliveries[device_no])
        )
        return list(islice(found, limit))

    async def stranded(self, app_no: AppNo) -> Sequence[DeviceNo]:
        disk = await self._disk()
        found = {
            device_no
            for push in disk.unsettled.values()
            for device_no in push.unsettled
            if _is_stranded(push.deliveries[device_no])
        }
        rows = [disk.living(device_no) for device_no in sorted(found)]
        return [row.device_no for row in rows if row is not None and row.app_no == app_no and not row.is_alias]

    async def overdue(
        self, after: tuple[Millis, DeviceNo, MsgId], until: Millis, limit: int
    ) -> Sequence[OverdueRow]:
        disk = await self._disk()
        found = [
            _overdue(disk, deadline, device_no, push)
            for push in disk.unsettled.values()
            for device_no in push.unsettled
            if (deadline := push.deliveries[device_no].deliver_by) is not None
            and deadline <= until
            and (deadline, device_no, push.message.msg_id) > after
        ]
        return sorted(found, key=lambda row: row[:3])[:limit]

    async def unsettled(
        self, app_no: AppNo, msg_id: MsgId, after: DeviceNo, limit: int
    ) -> tuple[ReportRow, Sequence[UnsettledRow]] | None:
        disk = await self._disk()
        push = disk.pushes.get(msg_id)
        if push is None or push.app_no != app_no:
            return None
        device_nos = sorted(device_no for device_no in push.unsettled if device_no > after)[:limit]
        return _report(push), [_unsettled(disk, push.deliveries[device_no], device_no) for device_no in device_nos]

    async def recipients(self, msg_id: MsgId, after: DeviceNo, limit: int) -> Sequence[DeviceNo]:
        disk = await self._disk()
        push = disk.pushes.get(msg_id)
        received = (
            device_no
            for device_no, delivery in sorted(push.deliveries.items() if push else (), key=lambda item: item[0])
            if device_no > after
            and (
                delivery.verdict is Verdict.RECEIVED
                or (delivery.verdict is not None and (delivery.visit is not None or _was_sent(delivery)))
            )
        )
        rows = (disk.living(device_no) for device_no in received)
        return list(islice((row.device_no for row in rows if row is not None and not row.is_alias), limit))

    async def had(self, device_no: DeviceNo, msg_ids: Sequence[MsgId]) -> Sequence[MsgId]:
        disk = await self._disk()
        return [msg_id for msg_id in msg_ids if disk.had(msg_id, device_no)]

    async def installed(self, app_no: AppNo, install: bytes) -> RegistrationId | None:
        disk = await self._disk()
        device_no = disk.by_install.get((app_no, install))
        return None if device_no is None else disk.devices[device_no].row.registration_id

    async def cids(self, app_no: AppNo, cids: Sequence[Cid], since: Millis) -> Mapping[Cid, CidRow]:
        disk = await self._disk()
        return {cid: row for cid in cids if (row := disk.cids.get((app_no, cid))) is not None and row.at >= since}

    async def reports(self, app_no: AppNo, msg_ids: Sequence[MsgId]) -> Mapping[MsgId, ReportRow]:
        disk = await self._disk()
        return {
            msg_id: _report(push)
            for msg_id in msg_ids
            if (push := disk.pushes.get(msg_id)) is not None and push.app_no == app_no
        }

    async def pushes(self, app_no: AppNo, before: MsgId | None, limit: int) -> Sequence[ReportRow]:
        disk = await self._disk()
        wanted = (
            disk.pushes[msg_id] for msg_id in sorted(disk.pushes, reverse=True) if before is None or msg_id < before
        )
        return list(islice((_report(push) for push in wanted if push.app_no == app_no), limit))

    async def statuses(
        self, app_no: AppNo, msg_id: MsgId, registration_ids: Sequence[RegistrationId]
    ) -> Mapping[RegistrationId, StatusRow | None] | None:
        disk = await self._disk()
        push = disk.pushes.get(msg_id)
        if push is None or push.app_no != app_no:
            return None
        found: dict[RegistrationId, StatusRow | None] = {}
        for registration_id in registration_ids:
            device_no = disk.by_registration.get(registration_id)
            row = None if device_no is None else disk.devices[device_no].row
            if device_no is None or row is None or row.app_no != app_no or row.is_alias:
                continue
            status = push.status(device_no)
            if status is not None or disk.living(device_no) is not None:
                found[registration_id] = status
        return found

    async def timeline(self, app_no: AppNo, msg_id: MsgId, device_no: DeviceNo) -> TimelineRow | None:
        disk = await self._disk()
        push = disk.pushes.get(msg_id)
        if push is None or push.app_no != app_no or device_no not in push.deliveries:
            return None
        delivery = push.deliveries[device_no]
        return timeline(push.message.sent_at, push.stored_at, list(delivery.happened), delivery.settlement())

    async def device_no(self, app_no: AppNo, registration_id: RegistrationId) -> DeviceNo | None:
        disk = await self._disk()
        device_no = disk.by_registration.get(registration_id)
        row = None if device_no is None else disk.devices[device_no].row
        return device_no if row is not None and row.app_no == app_no and not row.is_alias else None

    async def receipts(self, app_no: AppNo, after: Cursor, limit: int) -> ReceiptPage:
        disk = await self._disk()
        stream = disk.streams.get(app_no)
        if stream is None:
            return ReceiptPage((), Cursor(0), Cursor(0))
        skipped = min(max(0, after - stream.before), len(stream.receipts))
        rows = [
            _receipt(disk, Cursor(stream.before + skipped + behind), receipt)
            for behind, receipt in enumerate(islice(stream.receipts, skipped, skipped + limit), 1)
        ]
        return ReceiptPage(rows, Cursor(stream.before + 1) if stream.receipts else stream.last, stream.last)

    async def consumers(self, app_no: AppNo) -> Mapping[Consumer, Cursor]:
        return dict((await self._disk()).consumers.get(app_no, {}))

    async def sweep(self, now: Millis, limit: int, receipts_kept: Mapping[AppNo, int] = NO_LIMITS) -> int:
        return sweep(await self._disk(), now, limit, receipts_kept)

    async def backup(self, target: Path) -> None:
        await self._disk()
        raise StoreUnusable(f"A store in memory cannot be copied to {target}; keep it in a file to have copies.")

    async def _disk(self) -> MemoryDisk:
        await trio.lowlevel.checkpoint()
        if self._epoch is None:
            raise StoreUnusable("The store is not open; open it first.")
        if self._epoch != self._shared.epoch:
            raise StoreFenced("Another owner has taken the store over; this one must end.")
        return self._shared


def _report(push: Push) -> ReportRow:
    return ReportRow(
        push.message.msg_id,
        push.message.sent_at,
        push.targets,
        len(push.unsettled),
        dict(push.verdicts),
        dict(push.marks),
    )


def _following(disk: MemoryDisk, app_no: AppNo, after: DeviceNo, limit: int, is_alias: bool) -> Sequence[DeviceRow]:
    following = islice(disk.device_nos, bisect_right(disk.device_nos, after), None)
    rows = (disk.living(device_no) for device_no in following)
    wanted = (row for row in rows if row is not None and row.app_no == app_no and row.is_alias == is_alias)
    return list(islice(wanted, limit))


def _is_stranded(delivery: Delivery) -> bool:
    return delivery.strike is Verdict.FENCED and delivery.held_for is not None


def _overdue(disk: MemoryDisk, deadline: Millis, device_no: DeviceNo, push: Push) -> OverdueRow:
    device = disk.devices.get(device_no)
    seen = device.row.last_seen_at if device and not device.row.is_alias else None
    moved = (each.at for each in push.deliveries[device_no].happened if each.kind in (Kind.HELD, Kind.BOUND))
    here_since = max(moved, default=push.message.sent_at)
    return OverdueRow(deadline, device_no, push.message.msg_id, push.app_no, here_since, seen)


def _was_sent(delivery: Delivery) -> bool:
    moved = max((each.at for each in delivery.happened if each.kind in (Kind.HELD, Kind.BOUND)), default=0)
    return any(each.kind is Kind.SENT and each.at >= moved for each in delivery.happened)


def _unsettled(disk: MemoryDisk, delivery: Delivery, device_no: DeviceNo) -> UnsettledRow:
    device = disk.devices.get(device_no)
    present = device is not None and device.row.was_present and not device.row.is_alias
    only_waits_on = delivery.strike is Verdict.FENCED and delivery.held_for is not None
    return UnsettledRow(device_no, delivery.was_sent or present, None if only_waits_on else delivery.strike)


def _receipt(disk: MemoryDisk, cursor: Cursor, receipt: Receipt) -> ReceiptRow:
    msg_id, device_no, event, at, reason = receipt
    device = disk.devices.get(device_no)
    registration_id = device.row.registration_id if device and not device.row.is_alias else None
    alias = device.row.alias if device and device.row.is_alias else None
    return ReceiptRow(cursor, msg_id, registration_id, alias, event, at, reason)

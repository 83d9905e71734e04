"""The store without a disk: the whole contract in plain values, for tests on a mock clock and for trying things out.

1. What survives is a `MemoryDisk`; a `MemoryStore` is one owner of it. Opening one over a disk fences the others off.
2. Nothing waits and nothing fails: an operation is one checkpoint, and then happens at once.
3. It ends with the process, and there is nothing to back up.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import trio

from pushactors.domain.message import Verdict
from pushactors.errors import StoreFenced, StoreUnusable
from pushactors.stores.contract import (
    CID_KEPT_DAYS,
    REPORT_KEPT_DAYS,
    Change,
    CidRow,
    DeviceRow,
    DueRow,
    MailboxRow,
    Opened,
    ReportRow,
    StatusRow,
)
from pushactors.stores.memory_disk import MemoryDisk, Push
from pushactors.wire.ids import AppNo, Cid, DeviceNo, Millis, MsgId, RegistrationId

__all__ = ["MemoryDisk", "MemoryStore"]

_DAY_MS: Final = 86_400_000


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
        disk = await self._disk()
        following = islice(disk.device_nos, bisect_right(disk.device_nos, after), None)
        rows = (disk.living(device_no) for device_no in following)
        return list(islice((row for row in rows if row is not None and row.app_no == app_no), limit))

    async def mailboxes(self, device_nos: Sequence[DeviceNo]) -> Mapping[DeviceNo, MailboxRow]:
        disk = await self._disk()
        found: dict[DeviceNo, MailboxRow] = {}
        for device_no in device_nos:
            if row := disk.living(device_no):
                waiting = sorted(disk.mailboxes.get(device_no, {}).items())
                found[device_no] = MailboxRow(row, tuple(push.row(device_no) for _, push in waiting))
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
            DueRow(push.message.expires_at, device_no, push.app_no)
            for push in disk.unsettled.values()
            if push.message.expires_at is not None and after[0] <= push.message.expires_at <= until
            for device_no in push.unsettled
            if disk.living(device_no) is not None
        }
        return sorted(row for row in found if row[:2] > after)[:limit]

    async def unfinished(self, limit: int) -> Sequence[tuple[MsgId, DeviceNo, Verdict]]:
        disk = await self._disk()
        found = (
            (msg_id, device_no, push.deliveries[device_no].strike or Verdict.MISSED)
            for msg_id, push in disk.unsettled.items()
            for device_no in push.unsettled
            if push.deliveries[device_no].strike is not None or push.message.expires_at is None
        )
        return list(islice(found, limit))

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
            if device_no is None or disk.devices[device_no].row.app_no != app_no:
                continue
            status = push.status(device_no)
            if status is not None or disk.living(device_no) is not None:
                found[registration_id] = status
        return found

    async def sweep(self, now: Millis, limit: int) -> int:
        disk = await self._disk()
        left = limit - _remove_deliveries(disk, limit)
        left -= _remove_pushes(disk, now, left)
        left -= _remove_devices(disk, left)
        left -= _remove_cids(disk, now, left)
        return limit - left

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


def _remove_deliveries(disk: MemoryDisk, limit: int) -> int:
    removed = 0
    while disk.leaving and removed < limit:
        deliveries = disk.leaving[-1].deliveries
        while deliveries and removed < limit:
            device_no, _ = deliveries.popitem()
            removed += 1
            if device := disk.devices.get(device_no):
                device.kept -= 1
        if not deliveries:
            disk.leaving.pop()
    return removed


def _remove_pushes(disk: MemoryDisk, now: Millis, limit: int) -> int:
    oldest = now - REPORT_KEPT_DAYS * _DAY_MS
    gone = [msg_id for msg_id, push in disk.pushes.items() if not push.unsettled and push.last_event_at < oldest]
    for msg_id in gone[:limit]:
        disk.leaving.append(disk.pushes.pop(msg_id))
    return len(gone[:limit])


def _remove_devices(disk: MemoryDisk, limit: int) -> int:
    gone = [device_no for device_no, device in disk.deleted.items() if not device.kept][:limit]
    for device_no in gone:
        del disk.deleted[device_no]
        del disk.device_nos[bisect_left(disk.device_nos, device_no)]
        del disk.by_registration[disk.devices.pop(device_no).row.registration_id]
    return len(gone)


def _remove_cids(disk: MemoryDisk, now: Millis, limit: int) -> int:
    gone = [key for key, row in disk.cids.items() if row.at < now - CID_KEPT_DAYS * _DAY_MS][:limit]
    for key in gone:
        del disk.cids[key]
    return len(gone)

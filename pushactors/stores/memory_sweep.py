"""What nobody can ask for any more leaves a store in memory.

1. The same leaves as from any other store; here it is looked for everywhere, since there is not much.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Final

from pushactors.stores.contract import CID_KEPT_DAYS, RECEIPT_KEPT_DAYS, REPORT_KEPT_DAYS
from pushactors.stores.memory_disk import MemoryDisk
from pushactors.stores.memory_records import Stream
from pushactors.wire.ids import AppNo, Millis

_DAY_MS: Final = 86_400_000


def sweep(disk: MemoryDisk, now: Millis, limit: int, receipts_kept: Mapping[AppNo, int]) -> int:
    """Removes at most `limit` things; how many."""
    left = limit - _remove_deliveries(disk, limit)
    left -= _remove_pushes(disk, now, left)
    for app_no, stream in disk.streams.items():
        left -= _remove_receipts(disk, stream, now, left, receipts_kept.get(app_no))
    left -= _remove_notices(disk, now, left)
    left -= _remove_devices(disk, left)
    left -= _remove_cids(disk, now, left)
    return limit - left


def _remove_deliveries(disk: MemoryDisk, limit: int) -> int:
    removed = 0
    while disk.leaving and removed < limit:
        deliveries = disk.leaving[-1].deliveries
        while deliveries and removed < limit:
            device_no, _ = deliveries.popitem()
            removed += 1
            disk.release(device_no)
        if not deliveries:
            disk.leaving.pop()
    return removed


def _remove_pushes(disk: MemoryDisk, now: Millis, limit: int) -> int:
    oldest = now - REPORT_KEPT_DAYS * _DAY_MS
    gone = [msg_id for msg_id, push in disk.pushes.items() if not push.unsettled and push.last_event_at < oldest]
    for msg_id in gone[:limit]:
        disk.leaving.append(disk.pushes.pop(msg_id))
    return len(gone[:limit])


def _remove_receipts(disk: MemoryDisk, stream: Stream, now: Millis, limit: int, kept: int | None) -> int:
    removed = 0
    oldest = now - RECEIPT_KEPT_DAYS * _DAY_MS
    receipts = stream.receipts
    # From the head only: what is left has no gap, even where the wall clock stepped back.
    while receipts and removed < limit and (receipts[0].at < oldest or (kept is not None and len(receipts) > kept)):
        disk.release(receipts.popleft().device_no)
        removed += 1
    return removed


def _remove_notices(disk: MemoryDisk, now: Millis, limit: int) -> int:
    over = [
        (device, msg_id) for device in disk.devices.values() for msg_id, until in device.notices.items() if until < now
    ][:limit]
    for device, msg_id in over:
        del device.notices[msg_id]
    return len(over)


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

"""What nobody can ask for any more leaves the tables in short steps, inside a transaction that somebody else opened.

1. A push leaves 28 days after its last event, if it is settled (C18): first its report, then its deliveries, as many
   as a step allows. So no report is ever wrong; it is whole or gone.
2. A deleted device leaves when every push and delivery is younger than its deletion. That is not before its last one
   is gone, nor before the receipts that name it; and can be later: deliveries are kept by push, and an index by device
   would cost every push to please a few.
3. `cid`s leave after a day (C6).
4. Receipts leave at the head of their app's stream only, so that what is left has no gap (C20).
5. Nothing is looked at in vain: each kind has an index in the order in which it leaves, or an order of its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from itertools import takewhile
from typing import Final

from pushactors.stores.contract import CID_KEPT_DAYS, RECEIPT_KEPT_DAYS, REPORT_KEPT_DAYS
from pushactors.wire.ids import AppNo, Millis

DAY_MS: Final = 86_400_000


def sweep(connection: sqlite3.Connection, now: Millis, limit: int, receipts_kept: Mapping[AppNo, int]) -> int:
    """Removes at most `limit` rows; how many."""
    removed = _remove_deliveries(connection, limit)
    removed += _remove_pushes(connection, now, limit - removed)
    removed += _remove_receipts(connection, now, limit - removed, receipts_kept)
    removed += _remove_notices(connection, now, limit - removed)
    removed += _remove_devices(connection, limit - removed)
    return removed + _remove_cids(connection, now, limit - removed)


def _remove_deliveries(connection: sqlite3.Connection, limit: int) -> int:
    removed = connection.execute(
        """
        DELETE FROM deliveries WHERE (msg_id, device_no) IN (
            SELECT msg_id, device_no FROM leaving CROSS JOIN deliveries USING (msg_id) LIMIT ?
        )
        """,
        (limit,),
    ).rowcount
    removed += connection.execute(
        """
        DELETE FROM events WHERE (msg_id, device_no, at, kind, detail) IN (
            SELECT msg_id, device_no, at, kind, detail FROM leaving CROSS JOIN events USING (msg_id) LIMIT ?
        )
        """,
        (limit - removed,),
    ).rowcount
    connection.execute(
        """
        DELETE FROM leaving WHERE NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.msg_id = leaving.msg_id)
        AND NOT EXISTS (SELECT 1 FROM events WHERE events.msg_id = leaving.msg_id)
        """
    )
    return removed


def _remove_pushes(connection: sqlite3.Connection, now: Millis, limit: int) -> int:
    connection.execute(
        """
        INSERT OR IGNORE INTO leaving (msg_id)
        SELECT msg_id FROM pushes INDEXED BY pushes_settled WHERE unsettled = 0 AND last_event_at < ? LIMIT ?
        """,
        (now - REPORT_KEPT_DAYS * DAY_MS, limit),
    )
    return connection.execute("DELETE FROM pushes WHERE msg_id IN (SELECT msg_id FROM leaving)").rowcount


def _remove_receipts(connection: sqlite3.Connection, now: Millis, limit: int, kept: Mapping[AppNo, int]) -> int:
    oldest = now - RECEIPT_KEPT_DAYS * DAY_MS
    heads = connection.execute(
        """
        SELECT app_no, last_cursor, cursor, at FROM apps CROSS JOIN receipts USING (app_no)
        WHERE cursor = (SELECT min(cursor) FROM receipts AS other WHERE other.app_no = apps.app_no)
        """
    ).fetchall()
    removed = 0
    for app_no, last, head, head_at in heads:
        # Cursors up to here leave whatever their age.
        beyond = last - kept.get(app_no, last)
        if removed >= limit or (head > beyond and head_at >= oldest):
            continue
        first = connection.execute(
            "SELECT cursor, at FROM receipts WHERE app_no = ? ORDER BY cursor LIMIT ?", (app_no, limit - removed)
        ).fetchall()
        leaving = list(takewhile(lambda row: row[0] <= beyond or row[1] < oldest, first))  # noqa: B023
        removed += connection.execute(
            "DELETE FROM receipts WHERE app_no = ? AND cursor <= ?", (app_no, leaving[-1][0])
        ).rowcount
    return removed


def _remove_notices(connection: sqlite3.Connection, now: Millis, limit: int) -> int:
    return connection.execute(
        """
        DELETE FROM notices WHERE (device_no, msg_id) IN (
            SELECT device_no, msg_id FROM notices INDEXED BY notices_over WHERE until < ? LIMIT ?
        )
        """,
        (now, limit),
    ).rowcount


def _remove_devices(connection: sqlite3.Connection, limit: int) -> int:
    return connection.execute(
        """
        DELETE FROM devices WHERE device_no IN (
            SELECT device_no FROM devices INDEXED BY devices_deleted
            WHERE deleted_at IS NOT NULL AND last_msg_id < (SELECT ifnull(min(msg_id), ?1) FROM deliveries)
            AND last_msg_id < (SELECT ifnull(min(msg_id), ?1) FROM pushes)
            AND NOT EXISTS (SELECT 1 FROM mailbox WHERE mailbox.device_no = devices.device_no)
            LIMIT ?2
        )
        """,
        (2**63 - 1, limit),
    ).rowcount


def _remove_cids(connection: sqlite3.Connection, now: Millis, limit: int) -> int:
    return connection.execute(
        """
        DELETE FROM cids WHERE rowid IN (SELECT rowid FROM cids INDEXED BY cids_by_age WHERE at < ? LIMIT ?)
        """,
        (now - CID_KEPT_DAYS * DAY_MS, limit),
    ).rowcount

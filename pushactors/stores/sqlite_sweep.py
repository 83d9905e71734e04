"""What nobody can ask for any more leaves the tables in short steps, inside a transaction that somebody else opened.

1. A push leaves 28 days after its last event, if it is settled (C18): first its report, then its deliveries, as many
   as a step allows. So no report is ever wrong; it is whole or gone.
2. A deleted device leaves when every delivery is younger than its deletion. That is not before its last one is gone,
   and can be later; deliveries are kept by push, and an index by device would cost every push to please a few.
3. `cid`s leave after a day (C6).
4. Nothing is looked at in vain: each kind has an index in the order in which it leaves.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from pushactors.stores.contract import CID_KEPT_DAYS, REPORT_KEPT_DAYS
from pushactors.wire.ids import Millis

DAY_MS: Final = 86_400_000


def sweep(connection: sqlite3.Connection, now: Millis, limit: int) -> int:
    """Removes at most `limit` rows; how many."""
    removed = _remove_deliveries(connection, limit)
    removed += _remove_pushes(connection, now, limit - removed)
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
    connection.execute(
        "DELETE FROM leaving WHERE NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.msg_id = leaving.msg_id)"
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


def _remove_devices(connection: sqlite3.Connection, limit: int) -> int:
    return connection.execute(
        """
        DELETE FROM devices WHERE device_no IN (
            SELECT device_no FROM devices INDEXED BY devices_deleted
            WHERE deleted_at IS NOT NULL AND last_msg_id < (SELECT ifnull(min(msg_id), ?) FROM deliveries)
            AND NOT EXISTS (SELECT 1 FROM mailbox WHERE mailbox.device_no = devices.device_no)
            LIMIT ?
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

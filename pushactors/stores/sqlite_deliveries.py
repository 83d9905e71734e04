"""The questions about single deliveries, asked of SQLite inside a read transaction that somebody else opened.

1. A question is answered from one snapshot, and changes nothing.
2. No index is kept for a question alone: the unsettled deliveries of a push are found by its instant of expiry, which
   they share, or among those that have none.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from pushactors.domain.message import Mark, Verdict
from pushactors.stores.contract import (
    OverdueRow,
    ReportRow,
    StatusRow,
    TimelineRow,
    UnsettledRow,
)
from pushactors.stores.sqlite_reads import numbers, reports
from pushactors.stores.timelines import Happened, Kind, Settlement, timeline
from pushactors.wire.ids import AppNo, DeviceNo, Millis, MsgId, RegistrationId

Unfinished: TypeAlias = tuple[MsgId, DeviceNo, Verdict]

_MARKS: Final = list(Mark)
_OF_A_PUSH: Final = """
    SELECT mailbox.device_no, was_sent OR (ifnull(present, 0) AND NOT is_alias),
    iif(strike = {fenced} AND held_for IS NOT NULL, NULL, strike)
    FROM mailbox INDEXED BY {index} LEFT JOIN devices ON devices.device_no = mailbox.device_no
    WHERE {found} ORDER BY mailbox.device_no LIMIT :limit
"""
_THAT_RUN_OUT: Final = _OF_A_PUSH.format(
    fenced=int(Verdict.FENCED),
    index="mailbox_due",
    found="expires_at = :expires_at AND mailbox.device_no > :after AND msg_id = :msg_id",
)
_THAT_MAY_NOT_WAIT: Final = _OF_A_PUSH.format(
    fenced=int(Verdict.FENCED),
    index="mailbox_unfinished",
    found="msg_id = :msg_id AND mailbox.device_no > :after AND (strike IS NOT NULL OR expires_at IS NULL)",
)


def unfinished(connection: sqlite3.Connection, limit: int) -> Sequence[Unfinished]:
    rows = connection.execute(
        f"""
        SELECT msg_id, device_no, strike FROM mailbox INDEXED BY mailbox_unfinished
        WHERE (strike IS NOT NULL OR expires_at IS NULL) AND (strike IS NOT {Verdict.FENCED:d} OR held_for IS NULL)
        ORDER BY msg_id, device_no LIMIT ?
        """,
        (limit,),
    )
    return [(msg_id, device_no, Verdict(strike or Verdict.MISSED)) for msg_id, device_no, strike in rows.fetchall()]


def stranded(connection: sqlite3.Connection, app_no: AppNo) -> Sequence[DeviceNo]:
    rows = connection.execute(
        f"""
        SELECT DISTINCT device_no FROM mailbox INDEXED BY mailbox_stranded CROSS JOIN devices USING (device_no)
        WHERE strike = {Verdict.FENCED:d} AND held_for IS NOT NULL
        AND app_no = ? AND deleted_at IS NULL AND NOT is_alias ORDER BY device_no
        """,
        (app_no,),
    )
    return [device_no for (device_no,) in rows.fetchall()]


def overdue(
    connection: sqlite3.Connection, after: tuple[Millis, DeviceNo, MsgId], until: Millis, limit: int
) -> Sequence[OverdueRow]:
    rows = connection.execute(
        f"""
        SELECT deliver_by, mailbox.device_no, mailbox.msg_id, pushes.app_no,
        coalesce(
            (
                SELECT max(at) FROM events
                WHERE events.msg_id = mailbox.msg_id AND events.device_no = mailbox.device_no
                AND kind IN ({Kind.HELD:d}, {Kind.BOUND:d})
            ),
            sent_at
        ),
        iif(is_alias, NULL, last_seen_at)
        FROM mailbox INDEXED BY mailbox_overdue CROSS JOIN pushes ON pushes.msg_id = mailbox.msg_id
        LEFT JOIN devices ON devices.device_no = mailbox.device_no
        WHERE (deliver_by, mailbox.device_no, mailbox.msg_id) > (?, ?, ?) AND deliver_by <= ?
        ORDER BY deliver_by, mailbox.device_no, mailbox.msg_id LIMIT ?
        """,
        (*after, until, limit),
    )
    return [OverdueRow(*row) for row in rows.fetchall()]


def unsettled(
    connection: sqlite3.Connection, app_no: AppNo, msg_id: MsgId, after: DeviceNo, limit: int
) -> tuple[ReportRow, Sequence[UnsettledRow]] | None:
    report = reports(connection, app_no, [msg_id]).get(msg_id)
    if report is None:
        return None
    expires_at = connection.execute("SELECT expires_at FROM pushes WHERE msg_id = ?", (msg_id,)).fetchone()[0]
    rows = connection.execute(
        _THAT_MAY_NOT_WAIT if expires_at is None else _THAT_RUN_OUT,
        {"expires_at": expires_at, "msg_id": msg_id, "after": after, "limit": limit},
    )
    found = [
        UnsettledRow(device_no, bool(may_have_it), None if strike is None else Verdict(strike))
        for device_no, may_have_it, strike in rows.fetchall()
    ]
    return report, found


def recipients(connection: sqlite3.Connection, msg_id: MsgId, after: DeviceNo, limit: int) -> Sequence[DeviceNo]:
    rows = connection.execute(
        f"""
        SELECT device_no FROM deliveries CROSS JOIN devices USING (device_no)
        WHERE msg_id = ?1 AND device_no > ?2 AND (
            verdict = {Verdict.RECEIVED:d} OR visit IS NOT NULL OR EXISTS (
                SELECT 1 FROM events
                WHERE events.msg_id = ?1 AND events.device_no = deliveries.device_no AND kind = {Kind.SENT:d}
                AND at >= (
                    SELECT ifnull(max(at), 0) FROM events AS moved
                    WHERE moved.msg_id = ?1 AND moved.device_no = deliveries.device_no
                    AND moved.kind IN ({Kind.HELD:d}, {Kind.BOUND:d})
                )
            )
        )
        AND deleted_at IS NULL AND NOT is_alias AND EXISTS (SELECT 1 FROM pushes WHERE pushes.msg_id = ?1)
        ORDER BY device_no LIMIT ?3
        """,
        (msg_id, after, limit),
    )
    return [device_no for (device_no,) in rows.fetchall()]


def had(connection: sqlite3.Connection, device_no: DeviceNo, msg_ids: Sequence[MsgId]) -> Sequence[MsgId]:
    rows = connection.execute(
        """
        SELECT value FROM json_each(?1)
        WHERE EXISTS (SELECT 1 FROM mailbox WHERE mailbox.device_no = ?2 AND mailbox.msg_id = value)
        OR EXISTS (
            SELECT 1 FROM deliveries CROSS JOIN pushes USING (msg_id)
            WHERE deliveries.msg_id = value AND deliveries.device_no = ?2
        )
        """,
        (numbers(msg_ids), device_no),
    )
    return [msg_id for (msg_id,) in rows.fetchall()]


def statuses(
    connection: sqlite3.Connection, app_no: AppNo, msg_id: MsgId, registration_ids: Sequence[RegistrationId]
) -> Mapping[RegistrationId, StatusRow | None] | None:
    push = connection.execute("SELECT sent_at FROM pushes WHERE msg_id = ? AND app_no = ?", (msg_id, app_no)).fetchone()
    if push is None:
        return None
    found: dict[RegistrationId, StatusRow | None] = {}
    # One by one: SQLite's JSON ends a string at its first NUL, and would find ids that nobody asked for.
    for registration_id in registration_ids:
        row = connection.execute(
            """
            SELECT deleted_at IS NULL, verdict, at, mailbox.msg_id IS NOT NULL FROM devices
            LEFT JOIN deliveries ON deliveries.msg_id = ?1 AND deliveries.device_no = devices.device_no
            LEFT JOIN mailbox ON mailbox.device_no = devices.device_no AND mailbox.msg_id = ?1
            WHERE registration_id = ?2 AND app_no = ?3 AND NOT is_alias
            """,
            (msg_id, registration_id, app_no),
        ).fetchone()
        if row is None:
            continue
        living, verdict, at, waits = row
        if verdict is not None:
            found[registration_id] = StatusRow(Verdict(verdict), at)
        elif waits:
            found[registration_id] = StatusRow(None, push[0])
        elif living:
            found[registration_id] = None
    return found


def timeline_of(
    connection: sqlite3.Connection, app_no: AppNo, msg_id: MsgId, device_no: DeviceNo
) -> TimelineRow | None:
    push = connection.execute(
        "SELECT sent_at, stored_at FROM pushes WHERE msg_id = ? AND app_no = ?", (msg_id, app_no)
    ).fetchone()
    if push is None:
        return None
    place = {"msg_id": msg_id, "device_no": device_no}
    settled = connection.execute(
        f"""
        SELECT verdict, at, visit, sent_at, marks, {", ".join(f"{mark.word}_at" for mark in _MARKS)}
        FROM deliveries WHERE msg_id = :msg_id AND device_no = :device_no
        """,
        place,
    ).fetchone()
    if settled is None and not connection.execute(
        "SELECT 1 FROM mailbox WHERE device_no = :device_no AND msg_id = :msg_id", place
    ).fetchone():
        return None
    happened = connection.execute(
        "SELECT at, kind, detail FROM events WHERE msg_id = :msg_id AND device_no = :device_no", place
    ).fetchall()
    accepted_at, stored_at = push
    course = [Happened(at, Kind(kind), detail) for at, kind, detail in happened]
    return timeline(accepted_at, stored_at, course, None if settled is None else _settlement(settled))


def _settlement(row: Any) -> Settlement:
    verdict, at, visit, sent_at, marks, *marked_at = row
    # Before version 2 nobody wrote down when a mark was made; it was not before the verdict.
    set_at = [
        (mark, at if instant is None else instant)
        for mark, instant in zip(_MARKS, marked_at, strict=True)
        if marks & mark
    ]
    return Settlement(Verdict(verdict), at, visit, sent_at, set_at)

"""The questions of the contract, asked of SQLite inside a read transaction that somebody else opened.

1. A question is answered from one snapshot, and changes nothing.
2. Lists of numbers go in as one JSON text, so that a statement is compiled once, whatever their length.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import orjson

from pushactors.domain.message import Mark, Verdict
from pushactors.stores.contract import CidRow, DeliveryRow, DeviceRow, DueRow, MailboxRow, ReportRow, StatusRow
from pushactors.stores.schema import MARK_COLUMNS, VERDICT_COLUMNS
from pushactors.wire.ids import AppNo, Cid, DeviceNo, Millis, MsgId, Platform, RegistrationId

Unfinished: TypeAlias = tuple[MsgId, DeviceNo, Verdict]

_DEVICE: Final = "device_no, app_no, registration_id, platform, alias, binding, tags, last_seen_at"
_REPORT: Final = ", ".join(["msg_id, sent_at, targets, unsettled", *VERDICT_COLUMNS.values(), *MARK_COLUMNS.values()])
_VERDICTS: Final = list(Verdict)
_MARKS: Final = list(Mark)
_PLATFORMS: Final = {platform.value: platform for platform in Platform}
_LARGEST: Final = 2**63 - 1


def devices(connection: sqlite3.Connection, app_no: AppNo, after: DeviceNo, limit: int) -> Sequence[DeviceRow]:
    rows = connection.execute(
        f"""
        SELECT {_DEVICE} FROM devices INDEXED BY devices_living
        WHERE app_no = ? AND device_no > ? AND deleted_at IS NULL ORDER BY device_no LIMIT ?
        """,
        (app_no, after, limit),
    )
    return [_device(row) for row in rows.fetchall()]


def mailboxes(connection: sqlite3.Connection, device_nos: Sequence[DeviceNo]) -> Mapping[DeviceNo, MailboxRow]:
    wanted = _numbers(device_nos)
    found = connection.execute(
        f"SELECT {_DEVICE} FROM devices WHERE device_no IN (SELECT value FROM json_each(?)) AND deleted_at IS NULL",
        (wanted,),
    ).fetchall()
    unsettled = connection.execute(
        """
        SELECT device_no, msg_id, sent_at, mailbox.expires_at, overrides, binding, strike
        FROM mailbox CROSS JOIN pushes USING (msg_id)
        WHERE device_no IN (SELECT value FROM json_each(?)) ORDER BY device_no, msg_id
        """,
        (wanted,),
    )
    deliveries: defaultdict[int, list[DeliveryRow]] = defaultdict(list)
    for device_no, msg_id, sent_at, expires_at, overrides, binding, strike in unsettled.fetchall():
        verdict = None if strike is None else Verdict(strike)
        deliveries[device_no].append(DeliveryRow(msg_id, sent_at, expires_at, overrides, binding, verdict))
    return {row[0]: MailboxRow(_device(row), tuple(deliveries[row[0]])) for row in found}


def bodies(connection: sqlite3.Connection, msg_ids: Sequence[MsgId]) -> Mapping[MsgId, bytes]:
    return dict(
        connection.execute(
            "SELECT msg_id, body FROM contents WHERE msg_id IN (SELECT value FROM json_each(?))", (_numbers(msg_ids),)
        ).fetchall()
    )


def due(
    connection: sqlite3.Connection, after: tuple[Millis, DeviceNo], until: Millis, limit: int
) -> Sequence[DueRow]:
    # As one row value, so that a page begins where the last one ended, however many devices share an instant.
    rows = connection.execute(
        """
        SELECT DISTINCT expires_at, device_no, app_no
        FROM mailbox INDEXED BY mailbox_due CROSS JOIN devices USING (device_no)
        WHERE (expires_at, device_no) > (?, ?) AND expires_at <= ? AND deleted_at IS NULL
        ORDER BY expires_at, device_no LIMIT ?
        """,
        (*after, until, limit),
    )
    return [DueRow(*row) for row in rows.fetchall()]


def unfinished(connection: sqlite3.Connection, limit: int) -> Sequence[Unfinished]:
    rows = connection.execute(
        """
        SELECT msg_id, device_no, strike FROM mailbox INDEXED BY mailbox_unfinished
        WHERE strike IS NOT NULL OR expires_at IS NULL ORDER BY msg_id, device_no LIMIT ?
        """,
        (limit,),
    )
    return [(msg_id, device_no, Verdict(strike or Verdict.MISSED)) for msg_id, device_no, strike in rows.fetchall()]


def installed(connection: sqlite3.Connection, app_no: AppNo, install: bytes) -> RegistrationId | None:
    row = connection.execute(
        "SELECT registration_id FROM devices WHERE app_no = ? AND install = ? AND deleted_at IS NULL", (app_no, install)
    ).fetchone()
    return row[0] if row else None


def cids(connection: sqlite3.Connection, app_no: AppNo, wanted: Sequence[Cid], since: Millis) -> Mapping[Cid, CidRow]:
    found: dict[Cid, CidRow] = {}
    for cid in wanted:
        row = connection.execute(
            """
            SELECT app_no, cid, digest, msg_id, sendno, targets, online, at FROM cids
            WHERE app_no = ? AND cid = ? AND at >= ?
            """,
            (app_no, cid, since),
        ).fetchone()
        if row:
            found[cid] = CidRow(*row)
    return found


def reports(connection: sqlite3.Connection, app_no: AppNo, msg_ids: Sequence[MsgId]) -> Mapping[MsgId, ReportRow]:
    rows = connection.execute(
        f"SELECT {_REPORT} FROM pushes WHERE msg_id IN (SELECT value FROM json_each(?)) AND +app_no = ?",
        (_numbers(msg_ids), app_no),
    )
    return {row[0]: _report(row) for row in rows.fetchall()}


def pushes(connection: sqlite3.Connection, app_no: AppNo, before: MsgId | None, limit: int) -> Sequence[ReportRow]:
    rows = connection.execute(
        f"""
        SELECT {_REPORT} FROM pushes INDEXED BY pushes_of_app
        WHERE app_no = ? AND msg_id <= ? ORDER BY msg_id DESC LIMIT ?
        """,
        (app_no, _LARGEST if before is None else before - 1, limit),
    )
    return [_report(row) for row in rows.fetchall()]


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
            WHERE registration_id = ?2 AND app_no = ?3
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


def _device(row: Any) -> DeviceRow:
    device_no, app_no, registration_id, platform, alias, binding, tags, last_seen_at = row
    # Most devices have no tags, and there can be a million of them at a start.
    tag_names = () if tags == "[]" else tuple(orjson.loads(tags))
    return DeviceRow(
        device_no, app_no, registration_id, _PLATFORMS[platform], alias, binding, tag_names, last_seen_at
    )


def _report(row: Any) -> ReportRow:
    msg_id, sent_at, targets, unsettled, *counters = row
    verdicts = dict(zip(_VERDICTS, counters[: len(_VERDICTS)], strict=True))
    marks = dict(zip(_MARKS, counters[len(_VERDICTS) :], strict=True))
    return ReportRow(
        msg_id,
        sent_at,
        targets,
        unsettled,
        {verdict: count for verdict, count in verdicts.items() if count},
        {mark: count for mark, count in marks.items() if count},
    )


def _numbers(numbers: Sequence[int]) -> str:
    return orjson.dumps(list(numbers)).decode()

"""The questions about devices, mailboxes and pushes, asked of SQLite in a read transaction that somebody else opened.

1. A question is answered from one snapshot, and changes nothing.
2. Lists of numbers go in as one JSON text, so that a statement is compiled once, whatever their length.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from pushactors.domain.message import Mark, Verdict
from pushactors.stores.contract import CidRow, DeliveryRow, DeviceRow, DueRow, MailboxRow, NoticeRow, ReportRow
from pushactors.stores.schema import MARK_COLUMNS, VERDICT_COLUMNS
from pushactors.wire.ids import AppNo, Cid, DeviceNo, Millis, MsgId, Platform, RegistrationId

_DEVICE: Final = """
    device_no, app_no, registration_id, platform, alias, binding, tags, last_seen_at, visits, present, is_alias
"""
_REPORT: Final = ", ".join(["msg_id, sent_at, targets, unsettled", *VERDICT_COLUMNS.values(), *MARK_COLUMNS.values()])
_VERDICTS: Final = list(Verdict)
_MARKS: Final = list(Mark)
_PLATFORMS: Final = {platform.value: platform for platform in Platform}
_LARGEST: Final = 2**63 - 1


def devices(connection: sqlite3.Connection, app_no: AppNo, after: DeviceNo, limit: int) -> Sequence[DeviceRow]:
    rows = connection.execute(
        f"""
        SELECT {_DEVICE} FROM devices INDEXED BY devices_living
        WHERE app_no = ? AND device_no > ? AND deleted_at IS NULL AND is_alias = 0 ORDER BY device_no LIMIT ?
        """,
        (app_no, after, limit),
    )
    return [_device(row) for row in rows.fetchall()]


def alias_mailboxes(connection: sqlite3.Connection, app_no: AppNo, after: DeviceNo, limit: int) -> Sequence[DeviceRow]:
    rows = connection.execute(
        f"""
        SELECT {_DEVICE} FROM devices INDEXED BY devices_of_aliases
        WHERE app_no = ? AND device_no > ? AND deleted_at IS NULL AND is_alias = 1 ORDER BY device_no LIMIT ?
        """,
        (app_no, after, limit),
    )
    return [_device(row) for row in rows.fetchall()]


def mailboxes(connection: sqlite3.Connection, device_nos: Sequence[DeviceNo]) -> Mapping[DeviceNo, MailboxRow]:
    wanted = numbers(device_nos)
    found = connection.execute(
        f"SELECT {_DEVICE} FROM devices WHERE device_no IN (SELECT value FROM json_each(?)) AND deleted_at IS NULL",
        (wanted,),
    ).fetchall()
    unsettled = connection.execute(
        """
        SELECT device_no, msg_id, sent_at, mailbox.expires_at, overrides, binding, strike,
        coalesce(place, msg_id), held_for, was_sent
        FROM mailbox CROSS JOIN pushes USING (msg_id)
        WHERE device_no IN (SELECT value FROM json_each(?)) ORDER BY device_no, coalesce(place, msg_id), msg_id
        """,
        (wanted,),
    ).fetchall()
    deliveries: defaultdict[int, list[DeliveryRow]] = defaultdict(list)
    for device_no, msg_id, sent_at, expires_at, overrides, binding, strike, place, held_for, was_sent in unsettled:
        verdict = None if strike is None else Verdict(strike)
        deliveries[device_no].append(
            DeliveryRow(msg_id, sent_at, expires_at, overrides, binding, verdict, place, held_for, bool(was_sent))
        )
    recalls = connection.execute(
        """
        SELECT device_no, msg_id, until FROM notices
        WHERE device_no IN (SELECT value FROM json_each(?)) ORDER BY device_no, until, msg_id
        """,
        (wanted,),
    )
    notices: defaultdict[int, list[NoticeRow]] = defaultdict(list)
    for device_no, msg_id, until in recalls.fetchall():
        notices[device_no].append(NoticeRow(msg_id, until))
    return {
        row[0]: MailboxRow(_device(row), tuple(deliveries.get(row[0], ())), tuple(notices.get(row[0], ())))
        for row in found
    }


def bodies(connection: sqlite3.Connection, msg_ids: Sequence[MsgId]) -> Mapping[MsgId, bytes]:
    return dict(
        connection.execute(
            "SELECT msg_id, body FROM contents WHERE msg_id IN (SELECT value FROM json_each(?))", (numbers(msg_ids),)
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


def installed(connection: sqlite3.Connection, app_no: AppNo, install: bytes) -> RegistrationId | None:
    row = connection.execute(
        "SELECT registration_id FROM devices WHERE app_no = ? AND install = ? AND deleted_at IS NULL AND NOT is_alias",
        (app_no, install),
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
        (numbers(msg_ids), app_no),
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


def device_no(connection: sqlite3.Connection, app_no: AppNo, registration_id: RegistrationId) -> DeviceNo | None:
    row = connection.execute(
        "SELECT device_no FROM devices WHERE registration_id = ? AND app_no = ? AND NOT is_alias",
        (registration_id, app_no),
    ).fetchone()
    return row[0] if row else None


def _device(row: Any) -> DeviceRow:
    device_no, app_no, registration_id, platform, alias, binding, tags, last_seen_at, visits, present, is_alias = row
    # Most devices have no tags, and there can be a million of them at a start.
    tag_names = () if tags == "[]" else tuple(orjson.loads(tags))
    return DeviceRow(
        device_no,
        app_no,
        registration_id,
        _PLATFORMS[platform],
        alias,
        binding,
        tag_names,
        last_seen_at,
        visits,
        bool(present),
        bool(is_alias),
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


def numbers(given: Sequence[int]) -> str:
    """What `json_each` makes a table of."""
    return orjson.dumps(list(given)).decode()

"""The receipts of an app in SQLite: how a commit appends them, and how they are read (C20).

1. They come in the order of the changes, and their cursors go on from `apps.last_cursor`, without a gap.
2. A page is of one snapshot: its rows, the oldest kept, and the newest ever given.
3. A reason is stored as two numbers, which why and since or behind what.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from pushactors.domain.receipts import Event, Reason, Why
from pushactors.stores.contract import Accepted, Change, Marked, Overdue, ReceiptPage, ReceiptRow, Settled
from pushactors.stores.sqlite_statements import ADD_RECEIPTS, COUNT_RECEIPTS, Row, statements
from pushactors.wire.ids import AppNo, Consumer, Cursor, MsgId

_WHY_NUMBERS: Final = {Why.ABSENT: 1, Why.UNACKNOWLEDGED: 2, Why.QUEUED: 3, Why.UNHELD: 4}
"""Stored: never change one."""
_WHYS: Final = {number: why for why, number in _WHY_NUMBERS.items()}


def append_receipts(
    connection: sqlite3.Connection, changes: Sequence[Change], left_alone: Collection[int], apps: Mapping[MsgId, AppNo]
) -> None:
    """Appends what `changes` did, but for those whose identities are `left_alone`. `apps`: of every push in them that
    was accepted before."""
    by_app: defaultdict[AppNo, list[Row]] = defaultdict(list)
    for change in changes:
        match change:
            case Settled(msg_id, device_no, verdict, at) if id(change) not in left_alone:
                # Verdicts have their own numbers as events; see `Event`.
                by_app[apps[msg_id]].append((msg_id, device_no, int(verdict), at, None, None))
            case Accepted(app_no) if id(change) not in left_alone:
                if rows := list(_at_once(change)):
                    by_app[app_no] += rows
            case Marked(msg_id, device_no, mark, at) if id(change) not in left_alone:
                by_app[apps[msg_id]].append((msg_id, device_no, int(Event.of_mark(mark)), at, None, None))
            case Overdue(msg_id, device_no, at, reason) if id(change) not in left_alone:
                by_app[apps[msg_id]].append((msg_id, device_no, int(Event.OVERDUE), at, *_numbers(reason)))
    last: dict[AppNo, int] = {}
    for text, values in statements(COUNT_RECEIPTS, [(app_no, len(rows)) for app_no, rows in by_app.items()]):
        last.update(connection.execute(text, values).fetchall())
    numbered = [
        (app_no, cursor, *row)
        for app_no in sorted(last)
        for cursor, row in enumerate(by_app[app_no], last[app_no] - len(by_app[app_no]) + 1)
    ]
    for text, values in statements(ADD_RECEIPTS, numbered):
        connection.execute(text, values)


def _at_once(change: Accepted) -> Iterator[Row]:
    message = change.message
    told = set()
    for device_no, _, verdict, _ in change.targets:
        if verdict is not None and device_no not in told:
            yield message.msg_id, device_no, int(verdict), message.sent_at, None, None
        told.add(device_no)


def receipts(connection: sqlite3.Connection, app_no: AppNo, after: Cursor, limit: int) -> ReceiptPage:
    last = connection.execute("SELECT last_cursor FROM apps WHERE app_no = ?", (app_no,)).fetchone()
    if last is None:
        return ReceiptPage((), Cursor(0), Cursor(0))
    oldest = connection.execute(
        "SELECT cursor FROM receipts WHERE app_no = ? ORDER BY cursor LIMIT 1", (app_no,)
    ).fetchone()
    rows = connection.execute(
        """
        SELECT cursor, msg_id, is_alias, registration_id, alias, event, at, why, number
        FROM receipts LEFT JOIN devices USING (device_no)
        WHERE receipts.app_no = ? AND cursor > ? ORDER BY cursor LIMIT ?
        """,
        (app_no, after, limit),
    ).fetchall()
    return ReceiptPage([_receipt(row) for row in rows], (oldest or last)[0], last[0])


def consumers(connection: sqlite3.Connection, app_no: AppNo) -> Mapping[Consumer, Cursor]:
    return dict(connection.execute("SELECT consumer, cursor FROM consumers WHERE app_no = ?", (app_no,)).fetchall())


def _receipt(row: Any) -> ReceiptRow:
    cursor, msg_id, is_alias, registration_id, alias, event, at, why, number = row
    if is_alias:
        registration_id = None
    else:
        alias = None
    return ReceiptRow(cursor, msg_id, registration_id, alias, Event(event), at, _reason(why, number))


def _numbers(reason: Reason) -> tuple[int, int | None]:
    return _WHY_NUMBERS[reason.why], reason.behind if reason.why is Why.QUEUED else reason.since


def _reason(why: int | None, number: Any) -> Reason | None:
    if why is None:
        return None
    if _WHYS[why] is Why.QUEUED:
        return Reason(Why.QUEUED, behind=number)
    return Reason(_WHYS[why], since=number)

"""The statements that a commit is written with, and how one of them takes many rows.

1. `{rows}` in a text stands for the rows it is given. They go in by powers of two, so that few texts are compiled and
   all of them stay compiled.
2. None fails on a row that does not fit, or touches it (law 2).
3. Each looks its rows up one by one, however large the table is; a test reads the plans.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final, TypeAlias

from pushactors.domain.message import Verdict
from pushactors.stores.contract import AliasChanged, Change, DeviceDeleted, PlatformChanged, Seen, TagsChanged
from pushactors.stores.schema import MARK_COLUMNS, VERDICT_COLUMNS

Row: TypeAlias = tuple[Any, ...]

_MOST_ROWS: Final = 512
"""In one statement: 18 columns of it stay under SQLite's 32,766 parameters."""

_COUNTERS: Final = [*VERDICT_COLUMNS.values(), *MARK_COLUMNS.values()]

ADD_APPS: Final = "INSERT OR IGNORE INTO apps (app_no, app_key) VALUES {rows}"
REGISTER: Final = """
    INSERT OR IGNORE INTO devices
    (device_no, app_no, registration_id, platform, alias, binding, tags, install, last_seen_at) VALUES {rows}
"""
UPDATE_DEVICES: Final[dict[type[Change], str]] = {
    kind: f"""
    WITH given (device_no, {columns}) AS (VALUES {{rows}})
    UPDATE devices SET {", ".join(f"{column} = given.{column}" for column in columns.split(", "))} FROM given
    WHERE devices.device_no = given.device_no AND devices.deleted_at IS NULL
    """
    for kind, columns in [
        (Seen, "last_seen_at"),
        (PlatformChanged, "platform"),
        (AliasChanged, "alias, binding"),
        (TagsChanged, "tags"),
        (DeviceDeleted, "deleted_at, last_msg_id"),
    ]
}
FRESH_PUSHES: Final = """
    WITH given (msg_id) AS (VALUES {rows})
    SELECT count(*) FROM given WHERE NOT EXISTS (SELECT 1 FROM pushes WHERE pushes.msg_id = given.msg_id)
"""
ADD_PUSHES: Final = f"""
    INSERT INTO pushes
    (msg_id, app_no, sent_at, expires_at, overrides, targets, unsettled, last_event_at, {", ".join(_COUNTERS)})
    VALUES {{rows}}
"""
ADD_CONTENTS: Final = "INSERT OR REPLACE INTO contents (msg_id, body) VALUES {rows}"
ADD_TO_MAILBOX: Final = "INSERT OR IGNORE INTO mailbox (device_no, msg_id, expires_at, binding) VALUES {rows}"
ADD_DELIVERIES: Final = "INSERT OR IGNORE INTO deliveries (msg_id, device_no, verdict, at) VALUES {rows}"
ADD_CIDS: Final = "INSERT OR REPLACE INTO cids (app_no, cid, digest, msg_id, sendno, targets, online, at) VALUES {rows}"
# CROSS JOIN keeps the given rows outside: each looks up its own, however large the table is.
UNSETTLED: Final = """
    WITH given (msg_id, device_no) AS (VALUES {rows})
    SELECT count(*) FROM given CROSS JOIN mailbox USING (device_no, msg_id)
"""
# With IN (VALUES …) in place of the SELECT, SQLite reads the whole mailbox.
REMOVE_FROM_MAILBOX: Final = """
    WITH given (msg_id, device_no) AS (VALUES {rows})
    DELETE FROM mailbox WHERE (device_no, msg_id) IN (SELECT device_no, msg_id FROM given)
"""
STRIKE: Final = """
    WITH given (msg_id, device_no, strike) AS (VALUES {rows})
    UPDATE mailbox SET strike = given.strike FROM given
    WHERE mailbox.device_no = given.device_no AND mailbox.msg_id = given.msg_id AND mailbox.strike IS NULL
"""
MARKABLE: Final = f"""
    WITH given (msg_id, device_no, mark) AS (VALUES {{rows}})
    SELECT count(*) FROM given CROSS JOIN deliveries USING (msg_id, device_no)
    WHERE verdict = {Verdict.RECEIVED:d} AND marks & given.mark = 0
"""
MARK: Final = """
    WITH given (msg_id, device_no, mark) AS (VALUES {rows})
    UPDATE deliveries SET marks = marks | given.mark FROM given
    WHERE deliveries.msg_id = given.msg_id AND deliveries.device_no = given.device_no
"""
COUNT: Final = f"""
    WITH given (msg_id, settled, at, {", ".join(_COUNTERS)}) AS (VALUES {{rows}})
    UPDATE pushes SET unsettled = unsettled - given.settled, last_event_at = max(last_event_at, given.at),
    {", ".join(f"{column} = pushes.{column} + given.{column}" for column in _COUNTERS)}
    FROM given WHERE pushes.msg_id = given.msg_id
"""
REMOVE_CONTENTS: Final = """
    DELETE FROM contents WHERE msg_id IN (VALUES {rows})
    AND EXISTS (SELECT 1 FROM pushes WHERE pushes.msg_id = contents.msg_id AND unsettled = 0)
"""
GO_ON_NUMBERING: Final = """
    UPDATE owner SET last_commit = ?, last_msg_id = max(last_msg_id, ?), last_device_no = max(last_device_no, ?),
    ids_below = max(ids_below, ?)
"""


def statements(statement: str, rows: Sequence[Row]) -> Iterator[tuple[str, list[Any]]]:
    """The texts, each with its values, that together do `statement` for all `rows`."""
    start = 0
    size = _MOST_ROWS
    while start < len(rows):
        while size > len(rows) - start:
            size //= 2
        part = rows[start : start + size]
        yield _text(statement, len(part[0]), size), [value for row in part for value in row]
        start += size


@cache
def _text(statement: str, width: int, size: int) -> str:
    row = f"({', '.join('?' * width)})"
    return statement.replace("{rows}", ", ".join([row] * size))

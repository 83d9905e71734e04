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

from pushactors.domain.message import Mark, Verdict
from pushactors.stores.contract import (
    AliasChanged,
    Arrived,
    Change,
    DeviceDeleted,
    Left,
    PlatformChanged,
    Seen,
    TagsChanged,
)
from pushactors.stores.schema import MARK_COLUMNS, VERDICT_COLUMNS
from pushactors.stores.timelines import Kind

Row: TypeAlias = tuple[Any, ...]

_MOST_ROWS: Final = 512
"""In one statement: 19 columns of it stay under SQLite's 32,766 parameters."""

_COUNTERS: Final = [*VERDICT_COLUMNS.values(), *MARK_COLUMNS.values()]

ADD_APPS: Final = "INSERT OR IGNORE INTO apps (app_no, app_key) VALUES {rows}"
REGISTER: Final = """
    INSERT OR IGNORE INTO devices
    (
        device_no, app_no, registration_id, platform, alias, binding, tags, install, last_seen_at,
        visits, present, is_alias
    )
    VALUES {rows}
"""
UPDATE_DEVICES: Final[dict[type[Change], str]] = {
    kind: f"""
    WITH given (device_no, {columns}) AS (VALUES {{rows}})
    UPDATE devices SET {", ".join(f"{column} = given.{column}" for column in columns.split(", "))}{fixed} FROM given
    WHERE devices.device_no = given.device_no AND devices.deleted_at IS NULL
    """
    for kind, columns, fixed in [
        (Seen, "last_seen_at", ""),
        (Arrived, "last_seen_at, visits", ", present = 1"),
        (Left, "last_seen_at", ", present = 0"),
        (PlatformChanged, "platform", ""),
        (AliasChanged, "alias, binding", ""),
        (TagsChanged, "tags", ""),
        (DeviceDeleted, "deleted_at, last_msg_id", ""),
    ]
}
FRESH_PUSHES: Final = """
    WITH given (msg_id) AS (VALUES {rows})
    SELECT count(*) FROM given WHERE NOT EXISTS (SELECT 1 FROM pushes WHERE pushes.msg_id = given.msg_id)
"""
ADD_PUSHES: Final = f"""
    INSERT INTO pushes
    (
        msg_id, app_no, sent_at, expires_at, overrides, targets, unsettled, last_event_at, stored_at,
        {", ".join(_COUNTERS)}
    )
    VALUES {{rows}}
"""
ADD_CONTENTS: Final = "INSERT OR REPLACE INTO contents (msg_id, body) VALUES {rows}"
ADD_TO_MAILBOX: Final = """
    INSERT OR IGNORE INTO mailbox (device_no, msg_id, expires_at, binding, held_for, deliver_by, was_sent)
    VALUES {rows}
"""
ADD_DELIVERIES: Final = """
    INSERT OR IGNORE INTO deliveries (msg_id, device_no, verdict, at, visit, sent_at) VALUES {rows}
"""
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
# A fence that only has it wait for its alias again gives way to another strike.
_STRIKABLE: Final = f"""(
    mailbox.strike IS NULL
    OR (mailbox.strike = {Verdict.FENCED:d} AND held_for IS NOT NULL AND given.strike != {Verdict.FENCED:d})
)"""
STRIKE: Final = f"""
    WITH given (msg_id, device_no, strike) AS (VALUES {{rows}})
    UPDATE mailbox SET strike = given.strike FROM given
    WHERE mailbox.device_no = given.device_no AND mailbox.msg_id = given.msg_id AND {_STRIKABLE}
"""
# Before the strike itself, while it can be told who has one.
STRIKE_EVENTS: Final = f"""
    WITH given (msg_id, device_no, strike, at) AS (VALUES {{rows}})
    INSERT OR IGNORE INTO events (msg_id, device_no, at, kind, detail)
    SELECT given.msg_id, given.device_no, given.at, {Kind.STRUCK:d}, given.strike
    FROM given CROSS JOIN mailbox USING (device_no, msg_id) WHERE {_STRIKABLE}
"""
SEND: Final = """
    WITH given (msg_id, device_no) AS (VALUES {rows})
    UPDATE mailbox SET was_sent = 1 FROM given
    WHERE mailbox.device_no = given.device_no AND mailbox.msg_id = given.msg_id
"""
SENT_EVENTS: Final = f"""
    WITH given (msg_id, device_no, visit, at) AS (VALUES {{rows}})
    INSERT OR IGNORE INTO events (msg_id, device_no, at, kind, detail)
    SELECT given.msg_id, given.device_no, given.at, {Kind.SENT:d}, given.visit
    FROM given CROSS JOIN mailbox USING (device_no, msg_id)
"""
WITH_A_DEADLINE: Final = """
    WITH given (msg_id, device_no) AS (VALUES {rows})
    SELECT count(*) FROM given CROSS JOIN mailbox USING (device_no, msg_id) WHERE deliver_by IS NOT NULL
"""
FORGET_DEADLINES: Final = """
    WITH given (msg_id, device_no) AS (VALUES {rows})
    UPDATE mailbox SET deliver_by = NULL FROM given
    WHERE mailbox.device_no = given.device_no AND mailbox.msg_id = given.msg_id
"""
ADD_EVENTS: Final = "INSERT OR IGNORE INTO events (msg_id, device_no, at, kind, detail) VALUES {rows}"
MOVABLE: Final = """
    WITH given (msg_id, device_no, receiver) AS (VALUES {rows})
    SELECT count(*) FROM given CROSS JOIN mailbox USING (device_no, msg_id)
    WHERE EXISTS (SELECT 1 FROM devices WHERE devices.device_no = given.receiver AND deleted_at IS NULL)
    AND NOT EXISTS (
        SELECT 1 FROM mailbox AS other WHERE other.device_no = given.receiver AND other.msg_id = given.msg_id
    )
    AND (
        EXISTS (SELECT 1 FROM devices WHERE devices.device_no = given.receiver AND is_alias)
        OR NOT EXISTS (
            SELECT 1 FROM deliveries WHERE deliveries.msg_id = given.msg_id AND deliveries.device_no = given.receiver
        )
    )
"""
# What was settled in the mailbox of an alias gives its place to what comes back there.
GIVE_PLACE: Final = """
    WITH given (msg_id, device_no, receiver) AS (VALUES {rows})
    DELETE FROM deliveries WHERE (msg_id, device_no) IN (SELECT msg_id, receiver FROM given)
"""
GIVE_EVENTS: Final = """
    WITH given (msg_id, device_no, receiver) AS (VALUES {rows})
    DELETE FROM events WHERE (msg_id, device_no) IN (SELECT msg_id, receiver FROM given)
"""
MOVE: Final = """
    WITH given (msg_id, device_no, receiver, binding, place) AS (VALUES {rows})
    UPDATE mailbox SET device_no = given.receiver, binding = given.binding, place = given.place, strike = NULL,
    was_sent = 0
    FROM given WHERE mailbox.device_no = given.device_no AND mailbox.msg_id = given.msg_id
"""
MOVE_EVENTS: Final = """
    WITH given (msg_id, device_no, receiver) AS (VALUES {rows})
    UPDATE OR IGNORE events SET device_no = given.receiver FROM given
    WHERE events.msg_id = given.msg_id AND events.device_no = given.device_no
"""
MOVED_EVENTS: Final = f"""
    WITH given (msg_id, receiver, at) AS (VALUES {{rows}})
    INSERT OR IGNORE INTO events (msg_id, device_no, at, kind, detail)
    SELECT given.msg_id, given.receiver, given.at, iif(is_alias, {Kind.HELD:d}, {Kind.BOUND:d}), 0
    FROM given CROSS JOIN devices ON devices.device_no = given.receiver
"""
MARKABLE: Final = f"""
    WITH given (msg_id, device_no, mark, at) AS (VALUES {{rows}})
    SELECT count(*) FROM given CROSS JOIN deliveries USING (msg_id, device_no)
    WHERE verdict = {Verdict.RECEIVED:d} AND marks & given.mark = 0
    AND EXISTS (SELECT 1 FROM pushes WHERE pushes.msg_id = given.msg_id)
"""
MARK: Final = f"""
    WITH given (msg_id, device_no, mark, at) AS (VALUES {{rows}})
    UPDATE deliveries SET marks = marks | given.mark,
    {", ".join(f"{mark.word}_at = iif(given.mark = {mark:d}, given.at, {mark.word}_at)" for mark in Mark)}
    FROM given
    WHERE deliveries.msg_id = given.msg_id AND deliveries.device_no = given.device_no
"""
COUNT: Final = f"""
    WITH given (msg_id, settled, at, {", ".join(_COUNTERS)}) AS (VALUES {{rows}})
    UPDATE pushes SET unsettled = unsettled - given.settled, last_event_at = max(last_event_at, given.at),
    {", ".join(f"{column} = pushes.{column} + given.{column}" for column in _COUNTERS)}
    FROM given WHERE pushes.msg_id = given.msg_id
    RETURNING msg_id, app_no
"""
REMOVE_CONTENTS: Final = """
    DELETE FROM contents WHERE msg_id IN (VALUES {rows})
    AND EXISTS (SELECT 1 FROM pushes WHERE pushes.msg_id = contents.msg_id AND unsettled = 0)
"""
COUNT_RECEIPTS: Final = """
    WITH given (app_no, added) AS (VALUES {rows})
    UPDATE apps SET last_cursor = last_cursor + given.added FROM given WHERE apps.app_no = given.app_no
    RETURNING app_no, last_cursor
"""
ADD_RECEIPTS: Final = """
    INSERT INTO receipts (app_no, cursor, msg_id, device_no, event, at, why, number) VALUES {rows}
"""
MOVE_CONSUMERS: Final = "INSERT OR REPLACE INTO consumers (app_no, consumer, cursor) VALUES {rows}"
NOTICE: Final = """
    WITH given (msg_id, device_no, until) AS (VALUES {rows})
    INSERT INTO notices (msg_id, device_no, until)
    SELECT given.msg_id, given.device_no, given.until FROM given
    WHERE EXISTS (SELECT 1 FROM devices WHERE devices.device_no = given.device_no AND deleted_at IS NULL)
    AND EXISTS (SELECT 1 FROM pushes WHERE pushes.msg_id = given.msg_id)
    ON CONFLICT DO UPDATE SET until = excluded.until
"""
REMOVE_NOTICES: Final = """
    WITH given (msg_id, device_no) AS (VALUES {rows})
    DELETE FROM notices WHERE (device_no, msg_id) IN (SELECT device_no, msg_id FROM given)
"""
REMOVE_NOTICES_OF: Final = "DELETE FROM notices WHERE device_no IN (VALUES {rows})"
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

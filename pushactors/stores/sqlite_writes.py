"""How the changes of a commit are written to SQLite, inside a transaction that somebody else opened.

1. A batch is a few statements, whatever its size (see `batches`); rows go in by powers of two, so that few texts are
   compiled and all of them stay compiled.
2. No statement fails on a row that does not fit: it leaves it alone, and the row is counted as ignored (law 2).
3. The counters of a push move once in a commit, by the sum of what happened; at the end they add up (C1).
4. The content of a push goes in the commit that settles its last delivery (law 4).
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from operator import itemgetter
from typing import Any, Final, TypeAlias, cast

import orjson

from pushactors.domain.message import Mark, Verdict
from pushactors.stores.batches import Batch, batches
from pushactors.stores.contract import (
    Accepted,
    AliasChanged,
    AppAdded,
    Change,
    DeviceDeleted,
    IdsReserved,
    Marked,
    PlatformChanged,
    Registered,
    Seen,
    Settled,
    Struck,
    TagsChanged,
)
from pushactors.stores.schema import MARK_COLUMNS, VERDICT_COLUMNS
from pushactors.wire.ids import Millis, MsgId, Tag

Row: TypeAlias = tuple[Any, ...]

_MOST_ROWS: Final = 512
"""In one statement: 18 columns of it stay under SQLite's 32,766 parameters."""

_COUNTERS: Final[Sequence[Verdict | Mark]] = (*Verdict, *Mark)
_COUNTER_COLUMNS: Final = [*VERDICT_COLUMNS.values(), *MARK_COLUMNS.values()]

_ADD_APPS = "INSERT OR IGNORE INTO apps (app_no, app_key) VALUES {rows}"
_REGISTER = """
    INSERT OR IGNORE INTO devices
    (device_no, app_no, registration_id, platform, alias, binding, tags, install, last_seen_at) VALUES {rows}
"""
_UPDATE_DEVICES: Final[dict[type[Change], str]] = {
    kind: f"""
    WITH given (device_no, {columns}) AS (VALUES {{rows}})
    UPDATE devices SET {", ".join(f"{column} = given.{column}" for column in columns.split(", "))} FROM given
    WHERE devices.device_no = given.device_no AND deleted_at IS NULL
    """
    for kind, columns in [
        (Seen, "last_seen_at"),
        (PlatformChanged, "platform"),
        (AliasChanged, "alias, binding"),
        (TagsChanged, "tags"),
        (DeviceDeleted, "deleted_at, last_msg_id"),
    ]
}
_FRESH_PUSHES = """
    WITH given (msg_id) AS (VALUES {rows})
    SELECT count(*) FROM given WHERE NOT EXISTS (SELECT 1 FROM pushes WHERE pushes.msg_id = given.msg_id)
"""
_ADD_PUSHES = f"""
    INSERT INTO pushes
    (msg_id, app_no, sent_at, expires_at, overrides, targets, unsettled, last_event_at, {", ".join(_COUNTER_COLUMNS)})
    VALUES {{rows}}
"""
_ADD_CONTENTS = "INSERT OR REPLACE INTO contents (msg_id, body) VALUES {rows}"
_ADD_TO_MAILBOX = "INSERT OR IGNORE INTO mailbox (device_no, msg_id, expires_at, binding) VALUES {rows}"
_ADD_DELIVERIES = "INSERT OR IGNORE INTO deliveries (msg_id, device_no, verdict, at) VALUES {rows}"
_ADD_CIDS = "INSERT OR REPLACE INTO cids (app_no, cid, digest, msg_id, sendno, targets, online, at) VALUES {rows}"
# CROSS JOIN keeps the given rows outside: each looks up its own, however large the table is.
_UNSETTLED = """
    WITH given (msg_id, device_no) AS (VALUES {rows})
    SELECT count(*) FROM given CROSS JOIN mailbox USING (device_no, msg_id)
"""
# With IN (VALUES …) in place of the SELECT, SQLite reads the whole mailbox.
_REMOVE_FROM_MAILBOX = """
    WITH given (msg_id, device_no) AS (VALUES {rows})
    DELETE FROM mailbox WHERE (device_no, msg_id) IN (SELECT device_no, msg_id FROM given)
"""
_STRIKE = """
    WITH given (msg_id, device_no, strike) AS (VALUES {rows})
    UPDATE mailbox SET strike = given.strike FROM given
    WHERE mailbox.device_no = given.device_no AND mailbox.msg_id = given.msg_id AND mailbox.strike IS NULL
"""
_MARKABLE = f"""
    WITH given (msg_id, device_no, mark) AS (VALUES {{rows}})
    SELECT count(*) FROM given CROSS JOIN deliveries USING (msg_id, device_no)
    WHERE verdict = {Verdict.RECEIVED:d} AND marks & given.mark = 0
"""
_MARK = """
    WITH given (msg_id, device_no, mark) AS (VALUES {rows})
    UPDATE deliveries SET marks = marks | given.mark FROM given
    WHERE deliveries.msg_id = given.msg_id AND deliveries.device_no = given.device_no
"""
_COUNT = f"""
    WITH given (msg_id, settled, at, {", ".join(_COUNTER_COLUMNS)}) AS (VALUES {{rows}})
    UPDATE pushes SET unsettled = unsettled - given.settled, last_event_at = max(last_event_at, given.at),
    {", ".join(f"{column} = pushes.{column} + given.{column}" for column in _COUNTER_COLUMNS)}
    FROM given WHERE pushes.msg_id = given.msg_id
"""
_REMOVE_CONTENTS = """
    DELETE FROM contents WHERE msg_id IN (VALUES {rows})
    AND EXISTS (SELECT 1 FROM pushes WHERE pushes.msg_id = contents.msg_id AND unsettled = 0)
"""
_GO_ON_NUMBERING = """
    UPDATE owner SET last_commit = ?, last_msg_id = max(last_msg_id, ?), last_device_no = max(last_device_no, ?),
    ids_below = max(ids_below, ?)
"""


def write(connection: sqlite3.Connection, number: int, changes: Sequence[Change]) -> int:
    """Writes the commit; how many of its changes were ignored."""
    return _Writing(connection, number, changes).ignored


class _Tally:
    """What happened to one push in this commit."""

    __slots__ = ("at", "counts")

    def __init__(self) -> None:
        self.counts: Counter[Verdict | Mark] = Counter()
        self.at = Millis(0)

    def add(self, what: Verdict | Mark, at: Millis) -> None:
        self.counts[what] += 1
        self.at = max(self.at, at)

    def settled(self) -> int:
        return sum(count for what, count in self.counts.items() if isinstance(what, Verdict))


class _Writing:
    """One commit on its way to the tables."""

    def __init__(self, connection: sqlite3.Connection, number: int, changes: Sequence[Change]) -> None:
        self._connection = connection
        self.ignored = 0
        self._tallies: defaultdict[MsgId, _Tally] = defaultdict(_Tally)
        accepted = [change.message.msg_id for change in changes if isinstance(change, Accepted)]
        registered = [change.device.device_no for change in changes if isinstance(change, Registered)]
        reserved = [change.below for change in changes if isinstance(change, IdsReserved)]
        self._last_msg_id = max(accepted, default=0)
        for batch in batches(changes):
            self._write_batch(batch)
        self._count()
        self._connection.execute(
            _GO_ON_NUMBERING,
            (number, self._last_msg_id, max(registered, default=0), max([self._last_msg_id + 1, *reserved])),
        )

    def _write_batch(self, batch: Batch) -> None:
        match batch[0]:
            case Accepted():
                self._accept(cast("list[Accepted]", batch))
            case Settled():
                self._settle(cast("list[Settled]", batch))
            case Struck():
                self._ignoring(_STRIKE, batch)
            case Marked():
                self._mark(cast("list[Marked]", batch))
            case AppAdded():
                self._ignoring(_ADD_APPS, batch)
            case Registered():
                self._ignoring(_REGISTER, [_device(change) for change in cast("list[Registered]", batch)])
            case TagsChanged():
                tags = [(device_no, _text_of(tags)) for device_no, tags in cast("list[TagsChanged]", batch)]
                self._ignoring(_UPDATE_DEVICES[TagsChanged], tags)
            case DeviceDeleted():
                newest = self._connection.execute("SELECT last_msg_id FROM owner").fetchone()[0]
                newest = max(newest, self._last_msg_id)
                deleted = [(*change, newest) for change in cast("list[DeviceDeleted]", batch)]
                self._ignoring(_UPDATE_DEVICES[DeviceDeleted], deleted)
            case Seen() | PlatformChanged() | AliasChanged():
                self._ignoring(_UPDATE_DEVICES[type(batch[0])], batch)
            case IdsReserved():
                pass

    def _accept(self, batch: list[Accepted]) -> None:
        msg_ids = [(change.message.msg_id,) for change in batch]
        fresh = {row[0] for row in self._fitting(_FRESH_PUSHES, msg_ids)}
        pushes: list[Row] = []
        contents: list[Row] = []
        waiting: list[Row] = []
        settled: list[Row] = []
        for app_no, message, keep_body, given, _ in batch:
            if message.msg_id not in fresh:
                self.ignored += 1
                continue
            targets = {target.device_no: target for target in reversed(given)}
            self.ignored += len(given) - len(targets)
            verdicts: Counter[Verdict | Mark] = Counter()
            for device_no, binding, verdict in targets.values():
                if verdict is None:
                    waiting.append((device_no, message.msg_id, message.expires_at, binding))
                else:
                    settled.append((message.msg_id, device_no, int(verdict), message.sent_at))
                    verdicts[verdict] += 1
            unsettled = len(targets) - verdicts.total()
            if keep_body and unsettled:
                contents.append((message.msg_id, message.body))
            pushes.append(
                (
                    *(message.msg_id, app_no, message.sent_at, message.expires_at, message.overrides),
                    *(len(targets), unsettled, message.sent_at),
                    *(verdicts[counter] for counter in _COUNTERS),
                )
            )
        self._run(_ADD_PUSHES, pushes)
        self._run(_ADD_CONTENTS, contents)
        # In the order of their tables: neighbours are written to the same page while it is at hand.
        self._run(_ADD_TO_MAILBOX, sorted(waiting, key=itemgetter(0, 1)))
        self._run(_ADD_DELIVERIES, sorted(settled, key=itemgetter(0, 1)))
        self._run(_ADD_CIDS, [change.cid for change in batch if change.cid and change.message.msg_id in fresh])

    def _settle(self, batch: list[Settled]) -> None:
        by_place = {(change.msg_id, change.device_no): change for change in batch}
        fitting = self._fitting(_UNSETTLED, list(by_place))
        self.ignored += len(batch) - len(fitting)
        self._run(_REMOVE_FROM_MAILBOX, fitting)
        settled = [by_place[place] for place in fitting]
        # sqlite3 is slow with an enum and fast with a plain number.
        rows = [(msg_id, device_no, int(verdict), at) for msg_id, device_no, verdict, at in settled]
        self._run(_ADD_DELIVERIES, rows)
        for change in settled:
            self._tallies[change.msg_id].add(change.verdict, change.at)

    def _mark(self, batch: list[Marked]) -> None:
        at = {change[:3]: change.at for change in batch}
        fitting = self._fitting(_MARKABLE, list(at))
        self.ignored += len(batch) - len(fitting)
        self._run(_MARK, fitting)
        for row in fitting:
            self._tallies[row[0]].add(row[2], at[row])

    def _count(self) -> None:
        settled = {msg_id: tally.settled() for msg_id, tally in self._tallies.items()}
        counts = [
            (msg_id, settled[msg_id], tally.at, *(tally.counts[counter] for counter in _COUNTERS))
            for msg_id, tally in self._tallies.items()
        ]
        self._run(_COUNT, counts)
        self._run(_REMOVE_CONTENTS, [(msg_id,) for msg_id, count in settled.items() if count])

    def _ignoring(self, statement: str, rows: Sequence[Row]) -> None:
        """Writes what fits of `rows`, and counts the others."""
        self.ignored += len(rows) - self._run(statement, rows)

    def _run(self, statement: str, rows: Sequence[Row]) -> int:
        """How many rows of the tables `statement` changed, given `rows`."""
        before = self._connection.total_changes
        for text, values in _statements(statement, rows):
            self._connection.execute(text, values)
        return self._connection.total_changes - before

    def _fitting(self, counting: str, rows: Sequence[Row]) -> Sequence[Row]:
        """Those of `rows` that `counting` counts. All of them, unless an actor was wrong."""
        if self._counted(counting, rows) == len(rows):
            return rows
        return [row for row in rows if self._counted(counting, [row])]

    def _counted(self, counting: str, rows: Sequence[Row]) -> int:
        found = 0
        for text, values in _statements(counting, rows):
            found += self._connection.execute(text, values).fetchone()[0]
        return found


def _device(change: Registered) -> Row:
    device = change.device
    return (
        *(device.device_no, device.app_no, device.registration_id, device.platform.value, device.alias),
        *(device.binding, _text_of(device.tags), change.install, device.last_seen_at),
    )


def _text_of(tags: Sequence[Tag]) -> str:
    return orjson.dumps(tags).decode()


def _statements(statement: str, rows: Sequence[Row]) -> Iterator[tuple[str, list[Any]]]:
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

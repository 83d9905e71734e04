"""How the changes of a commit are written to SQLite, inside a transaction that somebody else opened.

1. A batch is a few statements, whatever its size (see `batches`).
2. A row that does not fit is left alone and counted as ignored (law 2).
3. The counters of a push move once in a commit, by the sum of what happened; at the end they add up (C1).
4. The content of a push goes in the commit that settles its last delivery (law 4).
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Sequence
from operator import itemgetter
from typing import cast

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
from pushactors.stores.sqlite_statements import (
    ADD_APPS,
    ADD_CIDS,
    ADD_CONTENTS,
    ADD_DELIVERIES,
    ADD_PUSHES,
    ADD_TO_MAILBOX,
    COUNT,
    FRESH_PUSHES,
    GO_ON_NUMBERING,
    MARK,
    MARKABLE,
    REGISTER,
    REMOVE_CONTENTS,
    REMOVE_FROM_MAILBOX,
    STRIKE,
    UNSETTLED,
    UPDATE_DEVICES,
    Row,
    statements,
)
from pushactors.wire.ids import Millis, MsgId, Tag


def write(connection: sqlite3.Connection, number: int, changes: Sequence[Change]) -> int:
    """Writes the commit; how many of its changes were ignored."""
    writing = _Writing(connection, changes)
    for batch in batches(changes):
        writing.write_batch(batch)
    writing.count()
    writing.go_on_numbering(number)
    return writing.ignored


class _Tally:
    """What happened to one push in this commit."""

    __slots__ = ("at", "marks", "verdicts")

    def __init__(self) -> None:
        # Two counters, not one for both: a verdict and a mark of the same number are equal.
        self.verdicts: Counter[Verdict] = Counter()
        self.marks: Counter[Mark] = Counter()
        self.at = Millis(0)

    def columns(self) -> Row:
        """In the order of the counters in the tables."""
        return *(self.verdicts[verdict] for verdict in Verdict), *(self.marks[mark] for mark in Mark)


class _Writing:
    """One commit on its way to the tables."""

    def __init__(self, connection: sqlite3.Connection, changes: Sequence[Change]) -> None:
        self.ignored = 0
        self._connection = connection
        self._tallies: defaultdict[MsgId, _Tally] = defaultdict(_Tally)
        # Whatever becomes of a change, the numbers in it have been given.
        accepted = [change.message.msg_id for change in changes if isinstance(change, Accepted)]
        registered = [change.device.device_no for change in changes if isinstance(change, Registered)]
        reserved = [change.below for change in changes if isinstance(change, IdsReserved)]
        self._last_msg_id = max(accepted, default=0)
        self._last_device_no = max(registered, default=0)
        self._ids_below = max([self._last_msg_id + 1, *reserved])

    def write_batch(self, batch: Batch) -> None:
        match batch[0]:
            case Accepted():
                self._accept(cast("list[Accepted]", batch))
            case Settled():
                self._settle(cast("list[Settled]", batch))
            case Struck():
                self._ignoring(STRIKE, batch)
            case Marked():
                self._mark(cast("list[Marked]", batch))
            case AppAdded():
                self._ignoring(ADD_APPS, batch)
            case Registered():
                self._ignoring(REGISTER, [_device(change) for change in cast("list[Registered]", batch)])
            case TagsChanged():
                tags = [(device_no, _text_of(tags)) for device_no, tags in cast("list[TagsChanged]", batch)]
                self._ignoring(UPDATE_DEVICES[TagsChanged], tags)
            case DeviceDeleted():
                newest = self._connection.execute("SELECT last_msg_id FROM owner").fetchone()[0]
                newest = max(newest, self._last_msg_id)
                deleted = [(*change, newest) for change in cast("list[DeviceDeleted]", batch)]
                self._ignoring(UPDATE_DEVICES[DeviceDeleted], deleted)
            case Seen() | PlatformChanged() | AliasChanged():
                self._ignoring(UPDATE_DEVICES[type(batch[0])], batch)
            case IdsReserved():
                pass

    def count(self) -> None:
        """Moves the counters, and removes the content that nobody waits for any more. After the last batch."""
        counts = [
            (msg_id, tally.verdicts.total(), tally.at, *tally.columns()) for msg_id, tally in self._tallies.items()
        ]
        self._run(COUNT, counts)
        self._run(REMOVE_CONTENTS, [(row[0],) for row in counts if row[1]])

    def go_on_numbering(self, number: int) -> None:
        self._connection.execute(
            GO_ON_NUMBERING, (number, self._last_msg_id, self._last_device_no, self._ids_below)
        )

    def _accept(self, batch: list[Accepted]) -> None:
        msg_ids = [(change.message.msg_id,) for change in batch]
        fresh = {row[0] for row in self._fitting(FRESH_PUSHES, msg_ids)}
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
            tally = _Tally()
            for device_no, binding, verdict in targets.values():
                if verdict is None:
                    waiting.append((device_no, message.msg_id, message.expires_at, binding))
                else:
                    settled.append((message.msg_id, device_no, int(verdict), message.sent_at))
                    tally.verdicts[verdict] += 1
            unsettled = len(targets) - tally.verdicts.total()
            if keep_body and unsettled:
                contents.append((message.msg_id, message.body))
            pushes.append(
                (
                    *(message.msg_id, app_no, message.sent_at, message.expires_at, message.overrides),
                    *(len(targets), unsettled, message.sent_at),
                    *tally.columns(),
                )
            )
        self._run(ADD_PUSHES, pushes)
        self._run(ADD_CONTENTS, contents)
        # In the order of their tables: neighbours are written to the same page while it is at hand.
        self._run(ADD_TO_MAILBOX, sorted(waiting, key=itemgetter(0, 1)))
        self._run(ADD_DELIVERIES, sorted(settled, key=itemgetter(0, 1)))
        self._run(ADD_CIDS, [change.cid for change in batch if change.cid and change.message.msg_id in fresh])

    def _settle(self, batch: list[Settled]) -> None:
        by_place = {(change.msg_id, change.device_no): change for change in batch}
        fitting = self._fitting(UNSETTLED, list(by_place))
        self.ignored += len(batch) - len(fitting)
        self._run(REMOVE_FROM_MAILBOX, fitting)
        settled = [by_place[place] for place in fitting]
        # sqlite3 is slow with an enum and fast with a plain number.
        rows = [(msg_id, device_no, int(verdict), at) for msg_id, device_no, verdict, at in settled]
        self._run(ADD_DELIVERIES, rows)
        for msg_id, _, verdict, at in settled:
            tally = self._tallies[msg_id]
            tally.verdicts[verdict] += 1
            tally.at = max(tally.at, at)

    def _mark(self, batch: list[Marked]) -> None:
        at = {change[:3]: change.at for change in batch}
        fitting = self._fitting(MARKABLE, list(at))
        self.ignored += len(batch) - len(fitting)
        self._run(MARK, fitting)
        for row in fitting:
            tally = self._tallies[row[0]]
            tally.marks[row[2]] += 1
            tally.at = max(tally.at, at[row])

    def _ignoring(self, statement: str, rows: Sequence[Row]) -> None:
        """Writes what fits of `rows`, and counts the others."""
        self.ignored += len(rows) - self._run(statement, rows)

    def _run(self, statement: str, rows: Sequence[Row]) -> int:
        """How many rows of the tables `statement` changed, given `rows`."""
        before = self._connection.total_changes
        for text, values in statements(statement, rows):
            self._connection.execute(text, values)
        return self._connection.total_changes - before

    def _fitting(self, counting: str, rows: Sequence[Row]) -> Sequence[Row]:
        """Those of `rows` that `counting` counts. All of them, unless an actor was wrong."""
        if self._counted(counting, rows) == len(rows):
            return rows
        return [row for row in rows if self._counted(counting, [row])]

    def _counted(self, counting: str, rows: Sequence[Row]) -> int:
        found = 0
        for text, values in statements(counting, rows):
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

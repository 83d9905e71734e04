"""How the changes of a commit are written to SQLite, inside a transaction that somebody else opened.

1. A batch is a few statements, whatever its size (see `batches`).
2. A row that does not fit is left alone and counted as ignored (law 2).
3. The counters of a push move once in a commit, by the sum of what happened; at the end they add up (C1).
4. The content of a push goes in the commit that settles its last delivery (law 4).
5. Receipts come last, in the order of the changes, not in that of the batches (law 9).
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Final, cast

import orjson

from pushactors.domain.message import Mark, Verdict
from pushactors.stores.batches import Batch, batches
from pushactors.stores.contract import (
    Accepted,
    AliasChanged,
    AppAdded,
    Arrived,
    Change,
    ConsumerMoved,
    DeviceDeleted,
    IdsReserved,
    Left,
    Marked,
    Moved,
    NoticeAnswered,
    Noticed,
    Overdue,
    PlatformChanged,
    Registered,
    Seen,
    Sent,
    Settled,
    Stamped,
    Struck,
    TagsChanged,
)
from pushactors.stores.sqlite_receipts import append_receipts
from pushactors.stores.sqlite_statements import (
    ADD_APPS,
    ADD_CIDS,
    ADD_CONTENTS,
    ADD_DELIVERIES,
    ADD_EVENTS,
    ADD_PUSHES,
    ADD_TO_MAILBOX,
    COUNT,
    FORGET_DEADLINES,
    FRESH_PUSHES,
    GIVE_EVENTS,
    GIVE_PLACE,
    GO_ON_NUMBERING,
    MARK,
    MARKABLE,
    MOVABLE,
    MOVE,
    MOVE_CONSUMERS,
    MOVE_EVENTS,
    MOVED_EVENTS,
    NOTICE,
    REGISTER,
    REMOVE_CONTENTS,
    REMOVE_FROM_MAILBOX,
    REMOVE_NOTICES,
    REMOVE_NOTICES_OF,
    SEND,
    SENT_EVENTS,
    STRIKE,
    STRIKE_EVENTS,
    UNSETTLED,
    UPDATE_DEVICES,
    WITH_A_DEADLINE,
    Row,
    statements,
)
from pushactors.stores.timelines import Kind
from pushactors.wire.ids import AppNo, Millis, MsgId, Tag

_VERDICTS: Final = len(Verdict)
_MARKS: Final = len(Mark)


def write(connection: sqlite3.Connection, number: int, changes: Sequence[Change]) -> int:
    """Writes the commit; how many of its changes were ignored."""
    if len(set(map(id, changes))) < len(changes):
        # An ignored change is known by its identity, so one that was given twice becomes two.
        changes = [change._replace() for change in changes]
    writing = _Writing(connection, changes)
    for batch in batches(changes):
        writing.write_batch(batch)
    apps = writing.count()
    append_receipts(connection, changes, writing.left_alone, apps)
    writing.go_on_numbering(number)
    return writing.ignored


class _Tally:
    """What happened to one push in this commit."""

    __slots__ = ("at", "marks", "settled", "verdicts")

    def __init__(self) -> None:
        # Lists, not counters: with those, a commit of 1,000 unicasts spent a quarter of its time here.
        self.verdicts = [0] * _VERDICTS
        self.marks = [0] * _MARKS
        self.settled = 0
        self.at = Millis(0)

    def settle(self, verdict: Verdict, at: Millis) -> None:
        # The numbers of verdicts begin at 1 and have no gap.
        self.verdicts[int(verdict) - 1] += 1
        self.settled += 1
        self.at = max(self.at, at)

    def mark(self, mark: int, at: Millis) -> None:
        # Marks are bits.
        self.marks[mark.bit_length() - 1] += 1
        self.at = max(self.at, at)

    def columns(self) -> Row:
        """In the order of the counters in the tables."""
        return *self.verdicts, *self.marks


class _Writing:
    """One commit on its way to the tables."""

    def __init__(self, connection: sqlite3.Connection, changes: Sequence[Change]) -> None:
        self.ignored = 0
        self.left_alone: set[int] = set()
        """The identity of every ignored change that would have been a receipt."""
        self._connection = connection
        self._tallies: defaultdict[MsgId, _Tally] = defaultdict(_Tally)
        # Whatever becomes of a change, the numbers in it have been given.
        accepted = [change.message.msg_id for change in changes if isinstance(change, Accepted)]
        registered = [change.device.device_no for change in changes if isinstance(change, Registered)]
        reserved = [change.below for change in changes if isinstance(change, IdsReserved)]
        self._last_msg_id = max(accepted, default=0)
        self._last_device_no = max(registered, default=0)
        self._ids_below = max([self._last_msg_id + 1, *reserved])
        self._stamp = next((change.at for change in reversed(changes) if isinstance(change, Stamped)), None)

    def write_batch(self, batch: Batch) -> None:
        match batch[0]:
            case Accepted():
                self._accept(cast("list[Accepted]", batch))
            case Settled():
                self._settle(cast("list[Settled]", batch))
            case Struck():
                struck = [(*change[:2], int(change.verdict), change.at) for change in cast("list[Struck]", batch)]
                self._run(STRIKE_EVENTS, struck)
                self._ignoring(STRIKE, [row[:3] for row in struck])
            case Sent():
                self._run(SENT_EVENTS, batch)
                self._run(SEND, [change[:2] for change in cast("list[Sent]", batch)])
            case Moved():
                self._move(cast("list[Moved]", batch))
            case Overdue():
                self._forget_deadlines(cast("list[Overdue]", batch))
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
                self._run(REMOVE_NOTICES_OF, [row[:1] for row in deleted])
            case Seen() | Arrived() | Left() | PlatformChanged() | AliasChanged():
                self._ignoring(UPDATE_DEVICES[type(batch[0])], batch)
            case Noticed():
                self._ignoring(NOTICE, batch)
            case NoticeAnswered():
                self._ignoring(REMOVE_NOTICES, batch)
            case ConsumerMoved():
                self._run(MOVE_CONSUMERS, batch)
            case IdsReserved() | Stamped():
                pass

    def count(self) -> dict[MsgId, AppNo]:
        """Moves the counters, and removes the content that nobody waits for any more. After the last batch.

        The app of every push that something happened to."""
        counts = [
            (msg_id, tally.settled, tally.at, *tally.columns()) for msg_id, tally in self._tallies.items()
        ]
        apps: dict[MsgId, AppNo] = {}
        for text, values in statements(COUNT, counts):
            apps.update(self._connection.execute(text, values).fetchall())
        self._run(REMOVE_CONTENTS, [(row[0],) for row in counts if row[1]])
        return apps

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
        for change in batch:
            app_no, message, keep_body, given, _, deliver_by = change
            if message.msg_id not in fresh:
                self.ignored += 1
                self.left_alone.add(id(change))
                continue
            targets = {target.device_no: target for target in reversed(given)}
            self.ignored += len(given) - len(targets)
            tally = _Tally()
            for device_no, binding, verdict, held_for in targets.values():
                if verdict is None:
                    waiting.append((device_no, message.msg_id, message.expires_at, binding, held_for, deliver_by, 0))
                else:
                    settled.append((message.msg_id, device_no, int(verdict), message.sent_at, None, None))
                    tally.settle(verdict, message.sent_at)
            unsettled = len(targets) - tally.settled
            if keep_body and unsettled:
                contents.append((message.msg_id, message.body))
            pushes.append(
                (
                    *(message.msg_id, app_no, message.sent_at, message.expires_at, message.overrides),
                    *(len(targets), unsettled, message.sent_at, self._stamp),
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
        by_place: dict[Row, Settled] = {change[:2]: change for change in batch}
        fitting = self._fitting_of(by_place, UNSETTLED)
        self._run(REMOVE_FROM_MAILBOX, fitting)
        settled = [by_place[place] for place in fitting]
        # sqlite3 is slow with an enum and fast with a plain number.
        rows = [
            (msg_id, device_no, int(verdict), at, visit, sent_at)
            for msg_id, device_no, verdict, at, visit, sent_at in settled
        ]
        self._run(ADD_DELIVERIES, rows)
        for msg_id, _, verdict, at, _, _ in settled:
            self._tallies[msg_id].settle(verdict, at)

    def _mark(self, batch: list[Marked]) -> None:
        marked = {(msg_id, no, int(mark), at): change for change in batch for msg_id, no, mark, at in [change]}
        fitting = self._fitting_of(marked, MARKABLE)
        self._run(MARK, fitting)
        for msg_id, _, mark, at in fitting:
            self._tallies[msg_id].mark(mark, at)

    def _move(self, batch: list[Moved]) -> None:
        by_places: dict[Row, Moved] = {change[:3]: change for change in batch}
        fitting = self._fitting_of(by_places, MOVABLE)
        self._run(GIVE_PLACE, fitting)
        self._run(GIVE_EVENTS, fitting)
        self._run(MOVE, [by_places[places][:5] for places in fitting])
        self._run(MOVE_EVENTS, fitting)
        self._run(MOVED_EVENTS, [(msg_id, to, by_places[msg_id, no, to].at) for msg_id, no, to in fitting])

    def _forget_deadlines(self, batch: list[Overdue]) -> None:
        by_place: dict[Row, Overdue] = {change[:2]: change for change in batch}
        fitting = self._fitting_of(by_place, WITH_A_DEADLINE)
        self._run(FORGET_DEADLINES, fitting)
        self._run(ADD_EVENTS, [(*place, by_place[place].at, int(Kind.OVERDUE), 0) for place in fitting])
        for msg_id, _ in fitting:
            # Nothing to count, but its app must be known.
            self._tallies[msg_id]

    def _ignoring(self, statement: str, rows: Sequence[Row]) -> None:
        """Writes what fits of `rows`, and counts the others."""
        self.ignored += len(rows) - self._run(statement, rows)

    def _run(self, statement: str, rows: Sequence[Row]) -> int:
        """How many rows of the tables `statement` changed, given `rows`."""
        before = self._connection.total_changes
        for text, values in statements(statement, rows):
            self._connection.execute(text, values)
        return self._connection.total_changes - before

    def _fitting_of(self, given: Mapping[Row, Change], counting: str) -> Sequence[Row]:
        """Those rows of the changes that `counting` counts; the others are ignored."""
        rows = list(given)
        fitting = self._fitting(counting, rows)
        if len(fitting) < len(rows):
            self.ignored += len(rows) - len(fitting)
            self.left_alone.update(id(given[row]) for row in given.keys() - set(fitting))
        return fitting

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
        *(device.visits, device.was_present, device.is_alias),
    )


def _text_of(tags: Sequence[Tag]) -> str:
    return orjson.dumps(tags).decode()

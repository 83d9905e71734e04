"""The contract told again, naively: nothing is counted, everything is worked out from the facts whenever it is asked.

It shares no code with any store. A random walk compares a store with it after every commit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from pushactors.domain.message import Mark, Message, Verdict
from pushactors.domain.receipts import Event, Reason
from pushactors.stores.contract import (
    Accepted,
    AliasChanged,
    AppAdded,
    Arrived,
    CidRow,
    ConsumerMoved,
    DeliveryRow,
    DeviceDeleted,
    DeviceRow,
    DueRow,
    IdsReserved,
    Left,
    MailboxRow,
    Marked,
    Moved,
    NoticeAnswered,
    Noticed,
    NoticeRow,
    Overdue,
    OverdueRow,
    PlatformChanged,
    ReceiptPage,
    ReceiptRow,
    Registered,
    ReportRow,
    Seen,
    Sent,
    Settled,
    Stamped,
    StatusRow,
    Struck,
    TagsChanged,
    TimelineEntry,
    TimelineRow,
    UnsettledRow,
)
from pushactors.wire.ids import Cursor, DeviceNo, Millis, MsgId, VisitNo
from tests.stores.rows import APP, DAY, OTHER_APP

SAME_INSTANT = ["bound", "sent", "overdue", "struck", "held"]
"""The order of what happened to a delivery in one millisecond."""


@dataclass
class Pair:
    msg_id: int
    device_no: int
    binding: int | None
    verdict: Verdict | None
    at: int
    held_for: str | None = None
    deliver_by: int | None = None
    place: int = 0
    strike: Verdict | None = None
    was_sent: bool = False
    gave_place: bool = False
    """To another one of the same push, which came back to its alias: it is counted, and cannot be asked for."""
    visit: int | None = None
    sent_at: int | None = None
    marks: dict[Mark, int] = field(default_factory=dict)
    course: list[TimelineEntry] = field(default_factory=list)


def moved_at(pair: Pair) -> int:
    return max((entry.at for entry in pair.course if entry.word in ("held", "bound")), default=0)


class Twin:
    def __init__(self) -> None:
        self.devices: dict[int, DeviceRow] = {}
        self.installs: dict[int, bytes | None] = {}
        self.dead: set[int] = set()
        self.pushes: dict[int, tuple[int, Message, bool]] = {}
        self.events: dict[int, int] = {}
        self.pairs: list[Pair] = []
        self.cids: dict[tuple[int, str], CidRow] = {}
        self.stored: dict[int, int] = {}
        self.receipts: dict[int, list[tuple[int, int, Event, int, Reason | None]]] = {APP: [], OTHER_APP: []}
        self.forgotten = {APP: 0, OTHER_APP: 0}
        """How many of the receipts are not kept any more."""
        self.notices: dict[tuple[int, int], int] = {}
        self.consumers: dict[int, dict[str, int]] = {APP: {}, OTHER_APP: {}}

    # --- Changes -----------------------------------------------------------------------------------------------

    def apply(self, change: Any) -> bool:
        """Whether the change fitted."""
        match change:
            case Registered(row, install):
                taken = {(self.devices[no].app_no, self.installs[no]) for no in self.devices if no not in self.dead}
                if row.device_no in self.devices or (install is not None and (row.app_no, install) in taken):
                    return False
                self.devices[row.device_no], self.installs[row.device_no] = row, install
            case Accepted(app_no, message, keep, targets, cid, deliver_by):
                if message.msg_id in self.pushes:
                    return False
                self.pushes[message.msg_id] = app_no, message, keep
                self.events[message.msg_id] = message.sent_at
                for no, binding, verdict, held_for in targets:
                    made = Pair(message.msg_id, no, binding, verdict, message.sent_at, held_for, deliver_by)
                    made.place = message.msg_id
                    self.pairs.append(made)
                    if verdict is not None:
                        self.tell(made, Event.of_verdict(verdict), message.sent_at)
                if cid is not None:
                    self.cids[cid.app_no, cid.cid] = cid
            case Settled(msg_id, no, verdict, at, visit, sent_at):
                pair = self.pair(msg_id, no)
                if pair is None or pair.verdict is not None:
                    return False
                pair.verdict, pair.at, pair.visit, pair.sent_at = verdict, at, visit, sent_at
                self.tell(pair, Event.of_verdict(verdict), at)
                self.events[msg_id] = max(self.events[msg_id], at)
            case Struck(msg_id, no, verdict, at):
                pair = self.pair(msg_id, no)
                if pair is None or pair.verdict is not None:
                    return False
                gives_way = pair.strike is Verdict.FENCED and pair.held_for and verdict is not Verdict.FENCED
                if pair.strike is not None and not gives_way:
                    return False
                pair.strike = verdict
                pair.course.append(TimelineEntry("struck", at, verdict=verdict))
            case Sent(msg_id, no, visit, at):
                pair = self.pair(msg_id, no)
                if pair is None or pair.verdict is not None:
                    return True
                pair.was_sent = True
                pair.course.append(TimelineEntry("sent", at, visit=visit))
            case Overdue(msg_id, no, at, reason):
                pair = self.pair(msg_id, no)
                if pair is None or pair.verdict is not None or pair.deliver_by is None:
                    return False
                pair.deliver_by = None
                pair.course.append(TimelineEntry("overdue", at))
                self.tell(pair, Event.OVERDUE, at, reason)
            case Moved(msg_id, no, to, binding, place, at):
                pair = self.pair(msg_id, no)
                if pair is None or pair.verdict is not None or not self.lives(to):
                    return False
                if there := self.pair(msg_id, to):
                    if there.verdict is None or not self.devices[to].is_alias:
                        return False
                    there.gave_place = True
                pair.device_no, pair.binding, pair.place = to, binding, msg_id if place is None else place
                pair.strike, pair.was_sent = None, False
                pair.course.append(TimelineEntry("held" if self.devices[to].is_alias else "bound", at))
            case Marked(msg_id, no, mark, at):
                pair = self.pair(msg_id, no)
                if pair is None or pair.verdict != Verdict.RECEIVED or mark in pair.marks:
                    return False
                pair.marks[mark] = at
                self.events[msg_id] = max(self.events[msg_id], at)
                self.tell(pair, Event.of_mark(mark), at)
            case Noticed(msg_id, no, until):
                if not self.lives(no) or msg_id not in self.pushes:
                    return False
                self.notices[no, msg_id] = until
            case NoticeAnswered(msg_id, no):
                return self.notices.pop((no, msg_id), None) is not None
            case ConsumerMoved(app_no, consumer, cursor):
                self.consumers[app_no][consumer] = cursor
            case IdsReserved() | AppAdded() | Stamped():
                pass
            case _:
                return self._change_device(change)
        return True

    def _change_device(self, change: Any) -> bool:
        no = change.device_no
        if not self.lives(no):
            return False
        match change:
            case Arrived():
                self.devices[no] = replace(
                    self.devices[no], last_seen_at=change.at, visits=change.visit, was_present=True
                )
            case Left():
                self.devices[no] = replace(self.devices[no], last_seen_at=change.at, was_present=False)
            case Seen():
                self.devices[no] = replace(self.devices[no], last_seen_at=change.at)
            case PlatformChanged():
                self.devices[no] = replace(self.devices[no], platform=change.platform)
            case AliasChanged():
                self.devices[no] = replace(self.devices[no], alias=change.alias, binding=change.binding)
            case TagsChanged():
                self.devices[no] = replace(self.devices[no], tags=change.tags)
            case DeviceDeleted():
                self.dead.add(no)
                self.notices = {key: until for key, until in self.notices.items() if key[0] != no}
        return True

    def tell(self, pair: Pair, event: Event, at: int, reason: Reason | None = None) -> None:
        self.receipts[self.pushes[pair.msg_id][0]].append((pair.msg_id, pair.device_no, event, at, reason))

    def sweep(self, now: int, receipts_kept: dict[int, int] | None = None) -> None:
        for app_no, rows in self.receipts.items():
            most = (receipts_kept or {}).get(app_no, len(rows))
            while (
                len(rows) - self.forgotten[app_no] > most
                or (self.kept(app_no) and self.kept(app_no)[0][3] < now - 10 * DAY)
            ):
                self.forgotten[app_no] += 1
        self.notices = {key: until for key, until in self.notices.items() if until >= now}
        for msg_id in list(self.pushes):
            waits = any(pair.verdict is None for pair in self.pairs if pair.msg_id == msg_id)
            if not waits and self.events[msg_id] < now - 28 * DAY:
                del self.pushes[msg_id]
        self.pairs = [pair for pair in self.pairs if pair.msg_id in self.pushes]
        self.stored = {msg_id: at for msg_id, at in self.stored.items() if msg_id in self.pushes}
        self.cids = {key: row for key, row in self.cids.items() if row.at >= now - DAY}

    # --- Answers -----------------------------------------------------------------------------------------------

    def pair(self, msg_id: int, no: int) -> Pair | None:
        named = (pair for pair in self.pairs if (pair.msg_id, pair.device_no) == (msg_id, no))
        return next((pair for pair in named if not pair.gave_place), None)

    def lives(self, no: int) -> bool:
        return no in self.devices and no not in self.dead

    def living(self, app_no: int, aliases: bool = False) -> list[DeviceRow]:
        rows = [row for no, row in sorted(self.devices.items()) if no not in self.dead]
        return [row for row in rows if row.app_no == app_no and row.is_alias == aliases]

    def mailboxes(self) -> dict[int, MailboxRow]:
        return {
            no: MailboxRow(row, tuple(self._delivery(pair) for pair in self._waiting(no)), self._notices(no))
            for no, row in self.devices.items()
            if no not in self.dead
        }

    def _notices(self, no: int) -> tuple[NoticeRow, ...]:
        found = sorted((until, msg_id) for (device_no, msg_id), until in self.notices.items() if device_no == no)
        return tuple(NoticeRow(MsgId(msg_id), Millis(until)) for until, msg_id in found)

    def _waiting(self, no: int) -> list[Pair]:
        pairs = [pair for pair in self.pairs if pair.device_no == no and pair.verdict is None]
        return sorted(pairs, key=lambda pair: (pair.place, pair.msg_id))

    def _delivery(self, pair: Pair) -> DeliveryRow:
        message = self.pushes[pair.msg_id][1]
        return DeliveryRow(
            *(message.msg_id, message.sent_at, message.expires_at, message.overrides, pair.binding, pair.strike),
            *(pair.place, pair.held_for, pair.was_sent),
        )

    def bodies(self) -> dict[int, bytes]:
        waiting = {pair.msg_id for pair in self.pairs if pair.verdict is None}
        return {
            msg_id: message.body for msg_id, (_, message, keep) in self.pushes.items() if keep and msg_id in waiting
        }

    def reports(self, app_no: int) -> dict[int, ReportRow]:
        found = {}
        for msg_id, (owner, message, _) in self.pushes.items():
            if owner == app_no:
                pairs = [pair for pair in self.pairs if pair.msg_id == msg_id]
                verdicts = Counter(pair.verdict for pair in pairs if pair.verdict)
                marks = Counter(mark for pair in pairs for mark in pair.marks)
                unsettled = sum(pair.verdict is None for pair in pairs)
                found[msg_id] = ReportRow(
                    message.msg_id, message.sent_at, len(pairs), unsettled, dict(verdicts), dict(marks)
                )
        return found

    def statuses(self, app_no: int, msg_id: int) -> dict[str, StatusRow | None]:
        found = {}
        for no, row in self.devices.items():
            pair = self.pair(msg_id, no)
            if row.app_no == app_no and not row.is_alias and (pair or no not in self.dead):
                found[row.registration_id] = StatusRow(pair.verdict, Millis(pair.at)) if pair else None
        return found

    def due(self, until: int) -> list[DueRow]:
        waiting = [pair for pair in self.pairs if pair.verdict is None and pair.device_no not in self.dead]
        found = {(self._expires(pair), pair.device_no) for pair in waiting if self._expires(pair) is not None}
        return [
            DueRow(at, no, self.devices[no].app_no) for at, no in sorted(found) if at <= until
        ]

    def unfinished(self) -> set[tuple[int, int, Verdict]]:
        waiting = [pair for pair in self.pairs if pair.verdict is None]
        return {
            (pair.msg_id, pair.device_no, pair.strike or Verdict.MISSED)
            for pair in waiting
            if (pair.strike or self._expires(pair) is None) and not self._is_stranded(pair)
        }

    def _is_stranded(self, pair: Pair) -> bool:
        return pair.verdict is None and pair.strike is Verdict.FENCED and pair.held_for is not None

    def stranded(self, app_no: int) -> list[int]:
        numbers = {pair.device_no for pair in self.pairs if self._is_stranded(pair)}
        return [row.device_no for row in self.living(app_no) if row.device_no in numbers]

    def overdue(self, until: int) -> list[OverdueRow]:
        found = []
        for pair in self.pairs:
            if pair.verdict is None and pair.deliver_by is not None and pair.deliver_by <= until:
                row, (app_no, message, _) = self.devices[pair.device_no], self.pushes[pair.msg_id]
                seen = None if row.is_alias else row.last_seen_at
                key = (Millis(pair.deliver_by), DeviceNo(pair.device_no), MsgId(pair.msg_id))
                moved = [entry.at for entry in pair.course if entry.word in ("held", "bound")]
                found.append(OverdueRow(*key, app_no, max(moved, default=message.sent_at), seen))
        return sorted(found, key=lambda row: row[:3])

    def unsettled(self, msg_id: int) -> list[UnsettledRow]:
        found = []
        for no, row in sorted(self.devices.items()):
            pair = self.pair(msg_id, no)
            if pair and pair.verdict is None:
                may_have_it = pair.was_sent or (row.was_present and not row.is_alias)
                strike = None if pair.strike is Verdict.FENCED and pair.held_for else pair.strike
                found.append(UnsettledRow(DeviceNo(no), may_have_it, strike))
        return found

    def recipients(self, msg_id: int) -> list[int]:
        living = [no for no, row in sorted(self.devices.items()) if no not in self.dead and not row.is_alias]
        pairs = [pair for no in living if (pair := self.pair(msg_id, no)) and pair.verdict is not None]
        return [
            pair.device_no
            for pair in pairs
            if pair.verdict is Verdict.RECEIVED
            or pair.visit is not None
            or any(entry.word == "sent" and entry.at >= moved_at(pair) for entry in pair.course)
        ]

    def timeline(self, app_no: int, msg_id: int, no: int) -> TimelineRow | None:
        pair = self.pair(msg_id, no)
        if pair is None or self.pushes[msg_id][0] != app_no:
            return None
        told = [TimelineEntry("accepted", self.pushes[msg_id][1].sent_at)]
        if msg_id in self.stored:
            told.append(TimelineEntry("stored", Millis(self.stored[msg_id])))
        course = sorted(set(pair.course), key=_order)
        if pair.verdict is not None and pair.sent_at is not None:
            since = 1 + max([at for at, each in enumerate(course) if each.word in ("bound", "held")], default=-1)
            if ("sent", pair.visit or 0) not in [(each.word, each.visit) for each in course[since:]]:
                course.append(TimelineEntry("sent", Millis(pair.sent_at), visit=VisitNo(pair.visit or 0)))
        told += sorted(course, key=_order)
        if pair.verdict is Verdict.RECEIVED and pair.visit is not None:
            told.append(TimelineEntry("acknowledged", Millis(pair.at), visit=VisitNo(pair.visit)))
        if pair.verdict is not None:
            told.append(TimelineEntry(pair.verdict.word, Millis(pair.at)))
        marked = sorted((at, mark) for mark, at in pair.marks.items())
        told += [TimelineEntry(mark.word, Millis(at)) for at, mark in marked]
        return TimelineRow(sorted(told, key=lambda entry: entry.at), pair.verdict)

    def kept(self, app_no: int) -> list[tuple[int, int, Event, int, Reason | None]]:
        return self.receipts[app_no][self.forgotten[app_no] :]

    def page(self, app_no: int, after: int, limit: int) -> ReceiptPage:
        rows, last = [], len(self.receipts[app_no])
        for cursor, (msg_id, no, event, at, reason) in enumerate(self.receipts[app_no], 1):
            if cursor > max(after, self.forgotten[app_no]):
                row = self.devices[no]
                who = (None, row.alias) if row.is_alias else (row.registration_id, None)
                rows.append(ReceiptRow(Cursor(cursor), MsgId(msg_id), *who, event, Millis(at), reason))
        return ReceiptPage(rows[:limit], Cursor(min(self.forgotten[app_no] + 1, last)), Cursor(last))

    def _expires(self, pair: Pair) -> int | None:
        return self.pushes[pair.msg_id][1].expires_at


def _order(entry: TimelineEntry) -> tuple[int, int, int]:
    return entry.at, SAME_INSTANT.index(entry.word), entry.visit or entry.verdict or 0

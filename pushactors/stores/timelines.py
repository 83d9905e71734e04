"""The course of one delivery, put together from what a store keeps of it.

1. `accepted` and `stored` come first, the verdict and what follows from it last; in between it goes by time.
2. A sending is told once: the last one is known by its verdict, and may have been kept by itself before.
3. A delivery takes its course along when it is moved, so a visit of the same number may be one of another device.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from pushactors.domain.message import Mark, Verdict
from pushactors.stores.rows import TimelineEntry, TimelineRow
from pushactors.wire.ids import Millis, VisitNo


class Kind(IntEnum):
    """What happened to an unsettled delivery. The numbers are stored: never change one. They are in the order in which
    two of them happen that have the same instant."""

    BOUND = 1
    SENT = 2
    OVERDUE = 3
    STRUCK = 4
    HELD = 5

    @property
    def word(self) -> str:
        return self.name.lower()


class Happened(NamedTuple):
    """`detail`: the visit of what was sent, the verdict of what was struck, 0 else."""

    at: Millis
    kind: Kind
    detail: int = 0


_NEVER: Final = Happened(Millis(-1), Kind.BOUND)


class Settlement(NamedTuple):
    """How it ended, and the marks with their instants."""

    verdict: Verdict
    at: Millis
    visit: VisitNo | None
    sent_at: Millis | None
    marks: Sequence[tuple[Mark, Millis]]


def timeline(
    accepted_at: Millis, stored_at: Millis | None, happened: Sequence[Happened], settlement: Settlement | None
) -> TimelineRow:
    entries = [TimelineEntry("accepted", accepted_at)]
    if stored_at is not None:
        entries.append(TimelineEntry("stored", stored_at))
    course = [*happened, *_last_sending(happened, settlement)]
    entries += [_entry(each) for each in sorted(course)]
    if settlement is not None:
        verdict, at, visit, _, marks = settlement
        if verdict is Verdict.RECEIVED and visit is not None:
            entries.append(TimelineEntry("acknowledged", at, visit))
        entries.append(TimelineEntry(verdict.word, at))
        by_time = sorted(marks, key=lambda each: (each[1], each[0]))
        entries += [TimelineEntry(mark.word, marked_at) for mark, marked_at in by_time]
    # What is decided while the push is on its way to the disk comes before it is stored.
    entries.sort(key=lambda entry: entry.at)
    return TimelineRow(entries, None if settlement is None else settlement.verdict)


def _last_sending(happened: Sequence[Happened], settlement: Settlement | None) -> Sequence[Happened]:
    if settlement is None or settlement.sent_at is None:
        return ()
    visit = settlement.visit or VisitNo(0)
    moved = max((each for each in happened if each.kind in (Kind.BOUND, Kind.HELD)), default=_NEVER)
    if any(each.kind is Kind.SENT and each.detail == visit and each > moved for each in happened):
        return ()
    return (Happened(settlement.sent_at, Kind.SENT, visit),)


def _entry(each: Happened) -> TimelineEntry:
    match each.kind:
        case Kind.SENT:
            return TimelineEntry(each.kind.word, each.at, visit=VisitNo(each.detail))
        case Kind.STRUCK:
            return TimelineEntry(each.kind.word, each.at, verdict=Verdict(each.detail))
        case _:
            return TimelineEntry(each.kind.word, each.at)

"""What an app server is told of its deliveries, and how far it has come with that.

1. A receipt says one thing about one delivery: its verdict, a mark, or that it is overdue. Its cursor is its place in
   the app's stream; cursors are consecutive, so that a gap could be seen (C20).
2. At most `OUTSTANDING` frames are on the way and not acknowledged; then it waits. Acknowledging a cursor acknowledges
   everything before it.
3. A delivery is overdue for a reason: nobody is there, nobody acknowledges it, or others come first (C21).
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum, StrEnum
from typing import NamedTuple

from pushactors.domain.message import Mark, Verdict
from pushactors.errors import Invalid
from pushactors.wire.ids import Cursor, Millis

OUTSTANDING = 8


class Event(IntEnum):
    """What a receipt says. The numbers are stored: never change one. Verdicts have their own; marks theirs plus 8."""

    RECEIVED = 1
    MISSED = 2
    EXPIRED = 3
    REPLACED = 4
    OVERFLOWED = 5
    RECALLED = 6
    FENCED = 7
    OPENED = 9
    DISMISSED = 10
    WITHDRAWN = 12
    OVERDUE = 16

    @classmethod
    def of_verdict(cls, verdict: Verdict) -> Event:
        return cls(int(verdict))

    @classmethod
    def of_mark(cls, mark: Mark) -> Event:
        return cls(8 + int(mark))

    @property
    def word(self) -> str:
        return self.name.lower()


class Why(StrEnum):
    """Why a delivery is overdue."""

    ABSENT = "absent"
    UNACKNOWLEDGED = "unacknowledged"
    QUEUED = "queued"
    UNHELD = "unheld"
    """Nobody has logged in as the user that it waits for."""


class Reason(NamedTuple):
    """`since` what instant; with `QUEUED`, behind how many others instead."""

    why: Why
    since: Millis | None = None
    behind: int | None = None


class Progress:
    """How far one subscription has come. `position`: behind which cursor the next frame begins."""

    def __init__(self, position: Cursor) -> None:
        self.position = position
        self.acknowledged = position
        self._outstanding: deque[Cursor] = deque()

    @property
    def may_send(self) -> bool:
        return len(self._outstanding) < OUTSTANDING

    def sent(self, last: Cursor) -> None:
        """A frame with the receipts up to `last` is on its way."""
        self.position = last
        self._outstanding.append(last)

    def acknowledge(self, cursor: Cursor) -> bool:
        """Everything up to `cursor` is done with. False: it was so already. Raises `Invalid` beyond what was sent."""
        if cursor > self.position:
            raise Invalid("No receipt with this cursor was sent on this subscription yet.", "cursor")
        while self._outstanding and self._outstanding[0] <= cursor:
            self._outstanding.popleft()
        if cursor <= self.acknowledged:
            return False
        self.acknowledged = cursor
        return True

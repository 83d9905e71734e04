"""A decision on its way to the disk, and the order of an app's decisions.

1. A decision is a `Unit`: changes that become durable together. It takes its place in its app's book in the turn in
   which it is decided; within an app, units become durable in that order. Apps do not wait for each other.
2. A unit is complete when everybody who has a part in it has closed it. An incomplete one holds up those behind it, in
   its app only.
3. What anybody is told hangs on a unit (`then`, `after`), and happens once it is durable, in order (C2).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from pushactors.stores.contract import Change
from pushactors.wire.ids import DeviceNo, MsgId, UnitNo

# What one app may have decided and not yet on disk before its edges stop reading: about a second of the disk's work.
ROWS_DECIDED_AHEAD = 50_000


class Unit:
    """One decision on its way to the disk. Opened by `Book.open`; complete when closed and nothing is expected."""

    __slots__ = ("_book", "_expected", "changes", "is_abandoned", "number", "off_the_wire", "rows", "then", "undo")

    def __init__(self, book: Book, number: UnitNo) -> None:
        self._book = book
        self._expected = 1  # itself, until closed
        self.number = number
        self.changes: list[Change] = []
        self.then: list[Callable[[], None]] = []
        """What is to happen once this is durable, in order."""
        self.off_the_wire: list[tuple[MsgId, DeviceNo]] = []
        """The deliveries that leave the wire by this."""
        self.undo: list[Callable[[], None]] = []
        """What takes back, if this is abandoned, what was made for it elsewhere."""
        self.is_abandoned = False
        self.rows = 0
        """Rows beyond one for each change."""

    @property
    def is_complete(self) -> bool:
        return self._expected == 0

    @property
    def weight(self) -> int:
        """About how many rows this is for the disk. It stands when the unit is complete."""
        return len(self.changes) + self.rows

    def expect(self) -> None:
        """Somebody who is not ready yet will add to this unit, and then call `close` once more."""
        self._expected += 1

    def close(self) -> None:
        """Nothing more comes, from this side."""
        self._expected -= 1
        if self._expected == 0:
            self._book.completed(self)

    def abandon(self) -> None:
        """It is not to happen after all. Only in the turn in which it was opened."""
        self.is_abandoned = True
        self.changes.clear()
        self.then.clear()
        self.off_the_wire.clear()
        undo, self.undo = self.undo, []
        for take_back in reversed(undo):
            take_back()
        self.close()


class Book:
    """One app's units in order. `durable`: the last that is on disk, with all before it."""

    def __init__(self, wake: Callable[[int], None]) -> None:
        self._wake = wake
        self._units: deque[Unit] = deque()
        self._last: Unit | None = None
        self._numbered = 0
        self._advanced = trio.Event()
        self._rows_ahead = 0
        self.followers: dict[Callable[[], None], None] = {}
        """Who is to be called when receipts of this app have become durable."""
        self.durable = UnitNo(0)

    def open(self) -> Unit:
        """A new unit, behind all others of this app."""
        self._numbered += 1
        self._last = Unit(self, UnitNo(self._numbered))
        self._units.append(self._last)
        return self._last

    @contextmanager
    def decision(self) -> Iterator[Unit]:
        """A unit that is decided in this turn: closed behind it, or abandoned, if something raises. Left open it would
        hold up its app for ever."""
        unit = self.open()
        try:
            yield unit
        except BaseException:
            unit.abandon()
            raise
        unit.close()

    def completed(self, unit: Unit) -> None:
        """For the unit: it is complete."""
        self._rows_ahead += unit.weight
        self._wake(unit.weight)

    async def room(self) -> None:
        """Returns when what this app has decided ahead of the disk is little enough to decide more."""
        while self._rows_ahead > ROWS_DECIDED_AHEAD:
            await self._advanced.wait()

    def after(self, told: Callable[[], None]) -> None:
        """Calls `told` once everything decided so far is durable: at once if it is already."""
        if self._last is None or self._last.number <= self.durable:
            told()
        else:
            self._last.then.append(told)

    async def told(self) -> None:
        """Returns once everything decided so far is durable."""
        if self._last is not None and self._last.number > self.durable:
            durable = trio.Event()
            self._last.then.append(durable.set)
            await durable.wait()

    async def reached(self, number: UnitNo) -> None:
        """Returns once that unit is durable, whatever was decided since."""
        while self.durable < number:
            await self._advanced.wait()

    def advance(self, unit: Unit) -> None:
        """That unit is durable, with all before it. For the ledger."""
        self.durable = unit.number
        self._rows_ahead -= unit.weight
        self._advanced.set()
        self._advanced = trio.Event()

    def has_complete(self) -> bool:
        """Whether the next unit could be committed now."""
        return bool(self._units) and self._units[0].is_complete

    def take(self, rows: int) -> list[Unit]:
        """The complete units at the head, of about `rows` rows at most, at least one if there is one."""
        taken: list[Unit] = []
        while self.has_complete() and (rows > 0 or not taken):
            unit = self._units.popleft()
            rows -= unit.weight
            taken.append(unit)
        return taken

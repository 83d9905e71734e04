"""Why nothing is handed to a visit yet.

1. While the device waits for an answer (to `connect`, or to its own change of alias), nothing else is told (C14, C15).
2. A change of its alias that somebody else made is told before the first message under the new binding (C14): until
   that change is durable nothing is handed out, and then the change is told first.
3. Everything is told in the order in which it was decided: a change that came before what the device asks is told
   before the answer, one that came after it, after.
"""

from __future__ import annotations

from pushactors.actors.visits import Visit
from pushactors.wire.ids import Alias, UnitNo


class Hold:
    """See the law on top. Of one device; `renew` with each visit."""

    __slots__ = ("_asked", "_changes", "_is_answered", "_last_change")

    def __init__(self) -> None:
        self.renew(UnitNo(0))

    def renew(self, unit: UnitNo) -> None:
        """A visit begins: its `connect` is decided in that unit, and not answered."""
        self._asked = unit
        self._is_answered = False
        self._last_change: UnitNo | None = None
        self._changes: list[Alias | None] = []

    @property
    def is_on(self) -> bool:
        return not self._is_answered or self._last_change is not None

    def ask(self, unit: UnitNo) -> None:
        """The device waits for the answer to what is decided in that unit."""
        self._asked = unit
        self._is_answered = False

    def answer(self, visit: Visit) -> None:
        """The device has its answer."""
        self._is_answered = True
        self._tell(visit)

    def change(self, unit: UnitNo) -> None:
        """Somebody else changes the alias in that unit."""
        self._last_change = unit

    def changed(self, unit: UnitNo, alias: Alias | None, visit: Visit) -> None:
        """That unit is durable."""
        if self._last_change == unit:
            self._last_change = None
        if unit < self._asked:
            visit.tell_alias(alias)
        else:
            self._changes.append(alias)
            self._tell(visit)

    def _tell(self, visit: Visit) -> None:
        if self._is_answered:
            changes, self._changes = self._changes, []
            for alias in changes:
                visit.tell_alias(alias)

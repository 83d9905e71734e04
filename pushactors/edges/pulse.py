"""One wheel for all connections: who is silent, who is stuck, who is to be pinged.

1. No connection has a timer of its own. Each is looked at once in every `period_s`, a part of them at a time.
2. A look is a plain function that never waits and never raises; what it finds it brings to an end itself.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

SLOTS = 8


class Pulse:
    """Calls every look once in `period_s`, spread over `SLOTS` moments."""

    def __init__(self, period_s: float) -> None:
        self._pause_s = period_s / SLOTS
        self._slots: list[dict[Callable[[], None], None]] = [{} for _ in range(SLOTS)]
        self._next = 0

    def add(self, look: Callable[[], None]) -> Callable[[], None]:
        """Has `look` called from now on; what it returns ends that."""
        slot = self._slots[self._next]
        self._next = (self._next + 1) % SLOTS
        slot[look] = None

        def remove() -> None:
            slot.pop(look, None)

        return remove

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            for slot in self._slots:
                for look in tuple(slot):
                    look()
                await trio.sleep(self._pause_s)

"""How many deliveries of each push are on the wire now: sent, and not yet told to be anything else.

1. A delivery goes on when it is handed to a visit. It goes off when it waits again, or when its verdict is durable: so
   beside what the store knows at an instant, the sums are exact (C1).
"""

from __future__ import annotations

from pushactors.wire.ids import MsgId


class WireCount:
    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[MsgId, int] = {}

    def on(self, msg_id: MsgId) -> None:
        self._counts[msg_id] = self._counts.get(msg_id, 0) + 1

    def off(self, msg_id: MsgId) -> None:
        left = self._counts.get(msg_id, 0) - 1
        if left > 0:
            self._counts[msg_id] = left
        else:
            self._counts.pop(msg_id, None)

    def of(self, msg_id: MsgId) -> int:
        return self._counts.get(msg_id, 0)

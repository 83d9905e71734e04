"""Which recalls one device must be told of, until it answers (C22).

1. It is told on every visit, once, oldest first, until it has said what became of the message, or the time is over.
2. It is told when the recall is durable (C2), and before the messages that wait.
"""

from __future__ import annotations

from collections.abc import Iterable

from pushactors.stores.contract import NoticeRow
from pushactors.wire.ids import Millis, MsgId, UnitNo


class Notices:
    """See the law on top. `begin` with each visit."""

    __slots__ = ("_due", "_untold")

    def __init__(self, rows: Iterable[NoticeRow] = ()) -> None:
        self._due: dict[MsgId, tuple[Millis, UnitNo]] = {row.msg_id: (row.until, UnitNo(0)) for row in rows}
        self._untold: list[MsgId] = []

    def begin(self) -> None:
        """A visit begins, on which nothing was told yet."""
        self._untold = list(self._due)

    def add(self, msg_id: MsgId, until: Millis, gate: UnitNo) -> None:
        """Recalled in that unit. What is due already stays as it is: once a visit is enough."""
        if msg_id not in self._due:
            self._due[msg_id] = (until, gate)
            self._untold.append(msg_id)

    def answered(self, msg_id: MsgId) -> bool:
        """Whether the device was still to be told of it; now it is not."""
        return self._due.pop(msg_id, None) is not None

    def next_to_tell(self, now: Millis, durable: UnitNo) -> MsgId | None:
        while self._untold:
            until, gate = self._due.get(self._untold[0], (Millis(0), UnitNo(0)))
            if gate > durable:
                return None
            msg_id = self._untold.pop(0)
            if until > now:
                return msg_id
        return None

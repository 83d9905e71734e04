"""When what is on one device's wire was sent, and on which visit: the middle of every delivery's timeline.

1. What is settled while it is on the wire takes that along: it costs no row of its own.
2. What stays on the wire, or leaves it unsettled, is written down on its own, behind: after `WRITTEN_AFTER_MS`, or with
   the end of the visit. So a kill costs the times of the last half second, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator

from pushactors.stores.contract import Sent
from pushactors.wire.ids import DeviceNo, Millis, MsgId, VisitNo

WRITTEN_AFTER_MS = 500


class Sendings:
    """See the law on top. Of one device; `visit` is its present one, or its last."""

    __slots__ = ("_sent_at", "_written", "visit")

    def __init__(self) -> None:
        self.visit = VisitNo(0)
        self._sent_at: dict[MsgId, Millis] = {}
        self._written: set[MsgId] = set()
        """Those of them that are written down. Mostly none: what is acknowledged soon never is."""

    def sent(self, msg_id: MsgId, now: Millis) -> None:
        self._sent_at[msg_id] = now

    def of(self, msg_id: MsgId) -> tuple[VisitNo, Millis] | None:
        """On which visit it was sent, and when, if it is on the wire."""
        at = self._sent_at.get(msg_id)
        return None if at is None else (self.visit, at)

    def take(self, msg_id: MsgId) -> tuple[VisitNo | None, Millis | None]:
        """It leaves the wire: on which visit it was sent, and when."""
        at = self._sent_at.pop(msg_id, None)
        if self._written:
            self._written.discard(msg_id)
        return (None, None) if at is None else (self.visit, at)

    @property
    def has_unwritten(self) -> bool:
        return len(self._sent_at) > len(self._written)

    def write(self, device_no: DeviceNo, before: Millis) -> Iterator[Sent]:
        """What was sent before that and is not written down yet."""
        for msg_id, at in self._sent_at.items():
            if at > before:
                return
            if msg_id not in self._written:
                self._written.add(msg_id)
                yield Sent(msg_id, device_no, self.visit, at)

"""One device's mailbox: which deliveries wait, which are on the wire, and which give way.

1. A newcomer is judged in this order: time to live, fence, override, limit. What may not wait (time to live 0) and
   finds the device absent is missed, and replaces nothing (C7).
2. At most `limit` deliveries wait; a newcomer over the limit makes exactly one give way, the oldest waiting (C8).
   For a present device the first ones that the visit would take at once wait only for the disk: they do not count,
   and do not give way.
3. Deliveries enter in the order of acceptance, and are sent in it, on every visit (C9). What was sent and not
   acknowledged goes back to the head, in order; nothing gives way for that (C8).
4. What is sent is settled by an acknowledgement on the visit that sent it, which covers all sent before it (C10), or
   by the end of that visit: struck, it gets its first strike; with time to live 0 it is missed; due, it has expired;
   else it waits again (C3).
5. Replacing and fencing settle what waits, and strike what is sent (C3). A mark settles what is unsettled as
   received, on whichever visit it comes.
6. Nothing is sent before the unit of work that brought it is durable (`gate`, C2), nor before its content is here.
7. Time comes in as `now`. No clock lives here. What was decided leaves as effects, in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from pushactors.domain.effects import Effect, Settled, Struck
from pushactors.domain.message import Message, Verdict
from pushactors.wire.ids import Binding, Millis, MsgId, UnitNo, VisitId

# Of those that a mark settled on this visit, so many can still be acknowledged for what was sent before them: as many
# as the largest window.
SINGLY_REMEMBERED = 1_024


class Entry:
    """One unsettled delivery in a mailbox. `message` None: its content is still in the store."""

    __slots__ = ("at", "binding", "expires_at", "gate", "message", "msg_id", "overrides", "strike")

    def __init__(
        self,
        msg_id: MsgId,
        expires_at: Millis | None,
        overrides: MsgId | None,
        binding: Binding | None,
        at: Millis,
        gate: UnitNo = UnitNo(0),
        message: Message | None = None,
        strike: Verdict | None = None,
    ) -> None:
        self.msg_id = msg_id
        self.expires_at = expires_at
        self.overrides = overrides
        self.binding = binding
        self.at = at
        """Since when it is in the state that it is in."""
        self.gate = gate
        self.message = message
        self.strike = strike

    def is_about(self, msg_id: MsgId) -> bool:
        return self.msg_id == msg_id or self.overrides == msg_id


class Mailbox:
    """See the law on top. `binding` is the device's present one."""

    __slots__ = ("_sent", "_singly", "_waiting", "binding", "visit")

    def __init__(self, binding: Binding, waiting: Iterable[Entry] = ()) -> None:
        self.binding = binding
        self.visit: VisitId | None = None
        self._sent: list[Entry] = []
        self._singly: list[MsgId] = []
        self._waiting = deque(waiting)

    def end_lost_visit(self, now: Millis, effects: list[Effect]) -> None:
        """Judges what came from the store: whatever visit it was sent on has ended unheard (C3). What entered while
        nobody could judge it may be under an earlier binding (C14)."""
        stays: deque[Entry] = deque()
        for entry in self._waiting:
            verdict = self._verdict_at_leaving(entry, now)
            if verdict is None and entry.binding not in (None, self.binding):
                verdict = Verdict.FENCED
            if verdict is None:
                stays.append(entry)
            else:
                effects.append(Settled(entry.msg_id, verdict, was_sent=False))
        self._waiting = stays

    # --- Entering ----------------------------------------------------------------------------------------------------

    def enter(self, newcomer: Entry, limit: int, room: int, effects: list[Effect]) -> Verdict | None:
        """Judges a newcomer; its verdict, if it has one at once, else None: it waits.

        `room` is how many of those waiting the visit would take at once; 0 for an absent device.
        """
        if newcomer.expires_at is None and self.visit is None:
            return Verdict.MISSED
        if newcomer.binding is not None and newcomer.binding != self.binding:
            # Accepted in a race with the change that ended its binding.
            return Verdict.FENCED
        if newcomer.overrides is not None:
            self._replace(newcomer.overrides, effects)
        if len(self._waiting) - room >= limit:
            self._overflow(room, effects)
        self._waiting.append(newcomer)
        return None

    def _replace(self, msg_id: MsgId, effects: list[Effect]) -> None:
        for entry in self._sent:
            if entry.is_about(msg_id):
                self._strike(entry, Verdict.REPLACED, effects)
        replaced = [entry for entry in self._waiting if entry.is_about(msg_id)]
        self._settle_waiting(replaced, Verdict.REPLACED, effects)

    def _overflow(self, room: int, effects: list[Effect]) -> None:
        oldest = self._waiting[room]
        del self._waiting[room]
        effects.append(Settled(oldest.msg_id, Verdict.OVERFLOWED, was_sent=False))

    # --- Visits ------------------------------------------------------------------------------------------------------

    def arrive(self, visit: VisitId) -> None:
        """The visit of a device that is absent. A visit that it displaces (C11) has left before, by `leave`."""
        self.visit = visit

    def leave(self, visit: VisitId, now: Millis, effects: list[Effect]) -> bool:
        """The end of a visit. False if it was not the present one: the goodbye of an earlier visit can come after
        the hello of the next."""
        if visit != self.visit:
            return False
        self.visit = None
        again: list[Entry] = []
        for entry in self._sent:
            verdict = self._verdict_at_leaving(entry, now)
            if verdict is None:
                entry.at = now
                again.append(entry)
            else:
                effects.append(Settled(entry.msg_id, verdict, was_sent=True))
        self._sent.clear()
        self._singly.clear()
        # What queued for this visit alone ends with it (C5).
        missed = [entry for entry in self._waiting if entry.expires_at is None]
        self._settle_waiting(missed, Verdict.MISSED, effects)
        self._waiting.extendleft(reversed(again))
        return True

    @staticmethod
    def _verdict_at_leaving(entry: Entry, now: Millis) -> Verdict | None:
        if entry.strike is not None:
            return entry.strike
        if entry.expires_at is None:
            return Verdict.MISSED
        return Verdict.EXPIRED if entry.expires_at <= now else None

    def next_to_send(self, now: Millis, durable: UnitNo, window: int, effects: list[Effect]) -> Entry | None:
        """Moves the head of the queue onto the wire, if there is one that may go; what is due expires instead."""
        while self._waiting and len(self._sent) < window:
            head = self._waiting[0]
            if head.gate > durable or head.message is None:
                return None
            self._waiting.popleft()
            if head.expires_at is not None and head.expires_at <= now:
                effects.append(Settled(head.msg_id, Verdict.EXPIRED, was_sent=False))
                continue
            head.at = now
            self._sent.append(head)
            return head
        return None

    # --- What the device says ----------------------------------------------------------------------------------------

    def acknowledge(self, visit: VisitId, msg_id: MsgId, effects: list[Effect]) -> bool:
        """Settles this one and all sent before it as received. False: nothing like that is on this visit's wire."""
        if visit != self.visit:
            return False
        if msg_id not in self._singly and not any(entry.msg_id == msg_id for entry in self._sent):
            return False
        covered = sum(1 for entry in self._sent if entry.msg_id <= msg_id)
        effects.extend(Settled(entry.msg_id, Verdict.RECEIVED, was_sent=True) for entry in self._sent[:covered])
        del self._sent[:covered]
        if not self._sent:
            self._singly.clear()
        return True

    def decline(self, visit: VisitId, msg_id: MsgId, effects: list[Effect]) -> bool:
        """Settles this one alone: addressed to an alias that is not logged in there. False: not on this visit's wire,
        or not addressed by alias."""
        if visit != self.visit:
            return False
        for entry in self._sent:
            if entry.msg_id == msg_id and entry.binding is not None:
                self._settle_sent(entry, entry.strike or Verdict.FENCED, effects)
                return True
        return False

    def mark(self, msg_id: MsgId, effects: list[Effect]) -> None:
        """The user has seen this one: whatever is unsettled of it is received, this one alone."""
        for entry in self._sent:
            if entry.msg_id == msg_id:
                self._settle_sent(entry, Verdict.RECEIVED, effects)
                return
        seen = [entry for entry in self._waiting if entry.msg_id == msg_id]
        self._settle_waiting(seen, Verdict.RECEIVED, effects)

    # --- What happens to the device ----------------------------------------------------------------------------------

    def rebind(self, binding: Binding, effects: list[Effect]) -> None:
        """The fence: whatever was addressed under an earlier binding is settled or struck (C14)."""
        self.binding = binding
        for entry in self._sent:
            if entry.binding is not None and entry.binding != binding:
                self._strike(entry, Verdict.FENCED, effects)
        fenced = [entry for entry in self._waiting if entry.binding is not None and entry.binding != binding]
        self._settle_waiting(fenced, Verdict.FENCED, effects)

    def expire(self, now: Millis, effects: list[Effect]) -> None:
        """Settles what ran out while it waited. What is sent does not expire while its visit lives (C5)."""
        due = [entry for entry in self._waiting if entry.expires_at is not None and entry.expires_at <= now]
        self._settle_waiting(due, Verdict.EXPIRED, effects)

    def clear(self, effects: list[Effect]) -> None:
        """The device is deleted: the struck get their strike, all others are missed. The visit is over, too."""
        self.visit = None
        effects.extend(Settled(e.msg_id, e.strike or Verdict.MISSED, was_sent=True) for e in self._sent)
        self._sent.clear()
        self._singly.clear()
        self._settle_waiting(list(self._waiting), Verdict.MISSED, effects)

    # --- Looking -----------------------------------------------------------------------------------------------------

    @property
    def sent(self) -> Iterator[Entry]:
        return iter(self._sent)

    @property
    def waiting(self) -> Iterator[Entry]:
        return iter(self._waiting)

    def sent_count(self) -> int:
        return len(self._sent)

    def waiting_count(self) -> int:
        return len(self._waiting)

    # --- Shared steps ------------------------------------------------------------------------------------------------

    @staticmethod
    def _strike(entry: Entry, verdict: Verdict, effects: list[Effect]) -> None:
        if entry.strike is None:
            entry.strike = verdict
            effects.append(Struck(entry.msg_id, verdict))

    def _settle_sent(self, entry: Entry, verdict: Verdict, effects: list[Effect]) -> None:
        """Settles one out of turn; a later acknowledgement of it still covers those before it (C10)."""
        self._sent.remove(entry)
        if self._sent and verdict is Verdict.RECEIVED:
            self._singly.append(entry.msg_id)
            if len(self._singly) > 2 * SINGLY_REMEMBERED:
                del self._singly[:SINGLY_REMEMBERED]
        effects.append(Settled(entry.msg_id, verdict, was_sent=True))

    def _settle_waiting(self, entries: list[Entry], verdict: Verdict, effects: list[Effect]) -> None:
        if len(entries) == 1:
            self._waiting.remove(entries[0])
        elif entries:
            # Once through the queue, not once for each: there may be thousands.
            leaving = {entry.msg_id for entry in entries}
            self._waiting = deque(entry for entry in self._waiting if entry.msg_id not in leaving)
        effects.extend(Settled(entry.msg_id, verdict, was_sent=False) for entry in entries)

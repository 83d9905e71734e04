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
5. Replacing, fencing and recalling settle what waits, and strike what is sent (C3). A mark settles what is unsettled
   as received, on whichever visit it comes.
6. Nothing is sent before the unit of work that brought it is durable (`gate`, C2), nor before its content is here.
7. Time comes in as `now`. No clock lives here. What was decided leaves as effects, in order.
8. What is held for an alias is not fenced: it returns, to wait for that alias in a mailbox of its own, whose entries
   are in order of acceptance (C25). What comes from there, or goes back there, makes nothing give way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from itertools import chain, islice

from pushactors.domain.effects import Effect, Returned, Settled, Struck
from pushactors.domain.entry import Entry
from pushactors.domain.message import Verdict
from pushactors.wire.ids import Binding, Millis, MsgId, UnitNo, VisitId

# Of those that a mark settled on this visit, so many can still be acknowledged for what was sent before them: as many
# as the largest window.
SINGLY_REMEMBERED = 1_024


class Mailbox:
    """See the law on top. `binding` is the device's present one."""

    __slots__ = ("_sent", "_singly", "_turns", "_waiting", "binding", "visit")

    def __init__(self, binding: Binding, waiting: Iterable[Entry] = ()) -> None:
        self.binding = binding
        self.visit: VisitId | None = None
        self._sent: list[Entry] = []
        self._singly: dict[MsgId, int] = {}
        self._turns = 0
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
                effects.append(_left(entry, verdict, was_sent=False))
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
                entry.was_sent = True
                again.append(entry)
            else:
                effects.append(_left(entry, verdict, was_sent=True))
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
            self._turns += 1
            head.turn = self._turns
            self._sent.append(head)
            return head
        return None

    # --- What the device says ----------------------------------------------------------------------------------------

    def acknowledge(self, visit: VisitId, msg_id: MsgId, effects: list[Effect]) -> bool:
        """Settles this one and all sent before it as received. False: nothing like that is on this visit's wire."""
        if visit != self.visit:
            return False
        turn = self._singly.get(msg_id)
        if turn is None:
            turn = next((entry.turn for entry in self._sent if entry.msg_id == msg_id), None)
        if turn is None:
            return False
        covered = sum(1 for entry in self._sent if entry.turn <= turn)
        effects.extend(Settled(entry.msg_id, Verdict.RECEIVED, was_sent=True) for entry in self._sent[:covered])
        del self._sent[:covered]
        if not self._sent:
            self._singly.clear()
        return True

    def decline(self, visit: VisitId, msg_id: MsgId, effects: list[Effect]) -> bool:
        """Settles this one alone, or returns it: addressed to an alias that is not logged in there. False: not on this
        visit's wire, or not addressed by alias."""
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
        """The fence: whatever was addressed under an earlier binding is settled or struck (C14), or returns (C25)."""
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
        """The device is deleted: the struck get their strike, what is held returns, all others are missed. The visit is
        over, too."""
        self.visit = None
        for entry in self._sent:
            otherwise = Verdict.MISSED if entry.held_for is None else Verdict.FENCED
            effects.append(_left(entry, entry.strike or otherwise, was_sent=True))
        self._sent.clear()
        self._singly.clear()
        held = [entry for entry in self._waiting if entry.held_for is not None]
        self._settle_waiting(held, Verdict.FENCED, effects)
        self._settle_waiting(list(self._waiting), Verdict.MISSED, effects)

    def recall(self, msg_id: MsgId, effects: list[Effect]) -> bool | None:
        """True: it waited, and is settled now. False: it is on the way, and struck (C22). None: it is not here."""
        for entry in self._sent:
            if entry.msg_id == msg_id:
                self._strike(entry, Verdict.RECALLED, effects)
                return False
        found = [entry for entry in self._waiting if entry.msg_id == msg_id]
        self._settle_waiting(found, Verdict.RECALLED, effects)
        return True if found else None

    # --- Waiting for an alias ----------------------------------------------------------------------------------------

    def release(self, free: Collection[MsgId] | None) -> list[Entry]:
        """Somebody logs in as the alias whose mailbox this is: what goes to the new device. `free`: what it has not had
        yet, because a device gets each push once; None: all of it."""
        going = [entry for entry in self._waiting if free is None or entry.msg_id in free]
        self._waiting = deque(entry for entry in self._waiting if free is not None and entry.msg_id not in free)
        return going

    def admit(self, entry: Entry) -> None:
        """What waited for the alias that has just been set here enters now, behind all others."""
        self._waiting.append(entry)

    def readmit(self, entry: Entry, now: Millis, effects: list[Effect]) -> None:
        """What comes back to its alias takes its place in order of acceptance, unless its time ran out on the wire, or
        it was replaced meanwhile."""
        if entry.expires_at is not None and entry.expires_at <= now:
            effects.append(Settled(entry.msg_id, Verdict.EXPIRED, was_sent=False))
            return
        replaced = any(
            newer.msg_id > entry.msg_id and newer.overrides is not None and entry.is_about(newer.overrides)
            for newer in self._waiting
        )
        if replaced:
            effects.append(Settled(entry.msg_id, Verdict.REPLACED, was_sent=False))
            return
        if entry.overrides is not None:
            older = [each for each in self._waiting if each.msg_id < entry.msg_id and each.is_about(entry.overrides)]
            self._settle_waiting(older, Verdict.REPLACED, effects)
        behind = [each for each in self._waiting if each.place > entry.place]
        for _ in behind:
            self._waiting.pop()
        self._waiting.append(entry)
        self._waiting.extend(behind)

    def replace_older(self, msg_id: MsgId, effects: list[Effect]) -> None:
        """A newer message that went elsewhere takes the place of those that are about `msg_id` (C7)."""
        self._replace(msg_id, effects)

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

    def holds(self, msg_id: MsgId) -> bool:
        return any(entry.msg_id == msg_id for entry in chain(self._sent, self._waiting))

    # --- Shared steps ------------------------------------------------------------------------------------------------

    @staticmethod
    def _strike(entry: Entry, verdict: Verdict, effects: list[Effect]) -> None:
        # A fence that only has it wait for its alias again gives way to what ends it.
        only_waits_on = entry.strike is Verdict.FENCED and entry.held_for is not None
        if entry.strike is None or (only_waits_on and verdict is not Verdict.FENCED):
            entry.strike = verdict
            effects.append(Struck(entry.msg_id, verdict))

    def _settle_sent(self, entry: Entry, verdict: Verdict, effects: list[Effect]) -> None:
        """Settles one out of turn; a later acknowledgement of it still covers those before it (C10)."""
        self._sent.remove(entry)
        if self._sent and verdict is Verdict.RECEIVED:
            self._singly[entry.msg_id] = entry.turn
            if len(self._singly) > 2 * SINGLY_REMEMBERED:
                for oldest in tuple(islice(self._singly, SINGLY_REMEMBERED)):
                    del self._singly[oldest]
        effects.append(_left(entry, verdict, was_sent=True))

    def _settle_waiting(self, entries: list[Entry], verdict: Verdict, effects: list[Effect]) -> None:
        if len(entries) == 1:
            self._waiting.remove(entries[0])
        elif entries:
            # Once through the queue, not once for each: there may be thousands.
            leaving = {entry.msg_id for entry in entries}
            self._waiting = deque(entry for entry in self._waiting if entry.msg_id not in leaving)
        effects.extend(_left(entry, verdict, was_sent=False) for entry in entries)


def _left(entry: Entry, verdict: Verdict, was_sent: bool) -> Effect:
    """What becomes of an entry that leaves its mailbox with this verdict: held for an alias, it is never fenced."""
    if verdict is Verdict.FENCED and entry.held_for is not None:
        return Returned(entry, was_sent)
    return Settled(entry.msg_id, verdict, was_sent)

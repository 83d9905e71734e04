"""One device: its mailbox and its visit, carried out.

1. The mailbox decides; this actor books what was decided (`mailbox`), and hands to the visit what may go.
2. The times of sending are kept beside what is on the wire (`sendings`), recalls that the device must hear of beside
   what it is sent (`notices`).
3. Nothing is handed to a visit before the device has been answered (`resume`): not on arrival (C15), not while it waits
   for its own change of alias. Nor before a change that somebody else made is durable (C14).
4. An event of a visit that is not the present one is ignored, and counted by whoever brought it (C11).
5. It does not outlive its use: absent, and with everything durable, it may be retired; the store has all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import trio

from pushactors.actors.hold import Hold
from pushactors.actors.inbox import as_owner
from pushactors.actors.mailbox import MailboxActor
from pushactors.actors.tenant import Tenant
from pushactors.actors.unit import Unit
from pushactors.actors.visits import Ending, Visit
from pushactors.actors.wire_count import WireCount
from pushactors.domain.effects import Effect, Returned
from pushactors.domain.entry import Entry
from pushactors.domain.message import Mark, Message, Verdict
from pushactors.stores import contract
from pushactors.wire.ids import Alias, Binding, DeviceNo, Millis, MsgId, UnitNo, VisitId, VisitNo


class DeviceActor(MailboxActor):
    """See the law on top. Every public method is one piece of work: done whole, or the actor has crashed."""

    __slots__ = ("_hold", "full_since")

    def __init__(
        self,
        device_no: DeviceNo,
        tenant: Tenant,
        on_the_wire: WireCount,
        clock: Callable[[], Millis],
        fetch: Callable[[MailboxActor, Sequence[MsgId]], None],
    ) -> None:
        super().__init__(device_no, tenant, on_the_wire, clock, fetch)
        self.full_since: float | None = None
        """Since when (Trio time) the window is full and nothing has been acknowledged (C12)."""
        self._hold = Hold()

    # --- Life --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """The actor's task: opens the door, and returns when it is retired. Raises what it crashed on."""
        self.inbox.open()
        await self.inbox.wait_closed()

    def may_retire(self) -> bool:
        return self.visit is None and not self.used and self.last_unit <= self.tenant.book.durable

    # --- Deliveries --------------------------------------------------------------------------------------------------

    @as_owner
    def deliver(
        self,
        message: Message,
        binding: Binding | None,
        unit: Unit,
        gate: UnitNo,
        held_for: Alias | None = None,
    ) -> Verdict | None:
        """A newcomer; its verdict if it has one at once. It is sent when `gate` is durable, at once if it is.
        `held_for`: the alias that it waits for when it may not wait here."""
        if self.is_deleted:
            return Verdict.MISSED if held_for is None else Verdict.FENCED
        visit = self.visit
        limits = self.tenant.limits
        if visit is None:
            limit, room = limits.offline_limit, 0
        else:
            limit = limits.backlog_limit
            room = max(0, limits.window - self.mailbox.sent_count()) if visit.is_taking() else 0
        entry = Entry(
            message.msg_id,
            message.expires_at,
            message.overrides,
            binding,
            message.sent_at,
            gate,
            message,
            held_for=held_for,
        )
        effects: list[Effect] = []
        verdict = self.mailbox.enter(entry, limit, room, effects)
        self._book(effects, unit)
        if verdict is None and visit is not None:
            if gate <= self.tenant.book.durable:
                self._pump()
            else:
                unit.then.append(self.pump)
        return verdict

    @as_owner
    def bodies(self, messages: Mapping[MsgId, Message]) -> None:
        """Content that was fetched for entries that came from the store."""
        for entry in self.mailbox.waiting:
            if entry.message is None:
                entry.message = messages.get(entry.msg_id)
        self._pump()

    @as_owner
    def pump(self) -> None:
        """Hands to the visit what may go now."""
        self._pump()

    def _pump(self) -> None:
        visit = self.visit
        durable = self.tenant.book.durable
        if visit is None or self._hold.is_on:
            return
        effects: list[Effect] = []
        now, window = self._clock(), self.tenant.limits.window
        while visit.is_taking() and (recalled := self._notices.next_to_tell(now, durable)) is not None:
            visit.tell_recall(recalled)
        while visit.is_taking():
            entry = self.mailbox.next_to_send(now, durable, window, effects)
            if entry is None or entry.message is None:
                break
            visit.hand(entry.message, self.alias if entry.binding is not None else None)
            self._on_the_wire.on(entry.msg_id, self.device_no)
            self.sendings.sent(entry.msg_id, now)
        if self.full_since is None and self.mailbox.sent_count() >= window:
            self.full_since = trio.current_time()
        self._book_alone(effects)

    # --- What the device says ----------------------------------------------------------------------------------------

    @as_owner
    def acknowledge(self, visit_id: VisitId, msg_id: MsgId) -> bool:
        """Received, this one and all sent before it. False if that is ignored."""
        effects: list[Effect] = []
        counted = self.mailbox.acknowledge(visit_id, msg_id, effects)
        self._book_alone(effects)
        self._moved_on(effects)
        return counted

    @as_owner
    def decline(self, visit_id: VisitId, msg_id: MsgId) -> bool:
        """Not for whoever is logged in there. False if that is ignored."""
        effects: list[Effect] = []
        counted = self.mailbox.decline(visit_id, msg_id, effects)
        self._book_alone(effects)
        self._moved_on(effects)
        return counted

    @as_owner
    def mark(self, msg_id: MsgId, mark: Mark) -> None:
        """What the user did. Whether it counts, the store knows: it has the verdict of what is settled."""
        effects: list[Effect] = []
        self.mailbox.mark(msg_id, effects)
        with self.tenant.book.decision() as unit:
            self._book(effects, unit)
            unit.changes.append(contract.Marked(msg_id, self.device_no, mark, self._clock()))
            if self._notices.answered(msg_id):
                unit.changes.append(contract.NoticeAnswered(msg_id, self.device_no))
        self._moved_on(effects)

    def _moved_on(self, effects: list[Effect]) -> None:
        if effects:
            self.full_since = None
            self._pump()

    # --- Visits ------------------------------------------------------------------------------------------------------

    @as_owner
    def arrive(self, visit: Visit, unit: Unit) -> int:
        """A new visit, which displaces the old one (C11); how many deliveries wait for it. Nothing is handed to it
        before `resume`."""
        displaced = self.visit
        if displaced is not None:
            self._leave(displaced.visit_id, unit)
            # Until the new one is in its place, this is the one that a crash ends.
            self.visit = displaced
        self.used = True
        self.last_unit = unit.number
        self.sendings.visit = VisitNo(self.sendings.visit + 1)
        unit.changes.append(contract.Arrived(self.device_no, self._clock(), self.sendings.visit))
        self._notices.begin()
        self.mailbox.arrive(visit.visit_id)
        self.visit = visit
        self._hold.renew(unit.number)
        missing = [entry.msg_id for entry in self.mailbox.waiting if entry.message is None]
        if missing:
            self._fetch(self, missing)
        if displaced is not None:
            # Last: a step that fails has displaced nobody.
            displaced.end(Ending.DISPLACED)
        return self.mailbox.waiting_count()

    @as_owner
    def resume(self, visit_id: VisitId) -> None:
        """The device has its answer: what may go goes."""
        if self.mailbox.visit == visit_id and self.visit is not None:
            self._hold.answer(self.visit)
            self._pump()

    @as_owner
    def leave(self, visit_id: VisitId, unit: Unit) -> bool:
        """The end of a visit. False if it was displaced before."""
        return self._leave(visit_id, unit)

    def _leave(self, visit_id: VisitId, unit: Unit) -> bool:
        was_sent = [entry.msg_id for entry in self.mailbox.sent]
        effects: list[Effect] = []
        now = self._clock()
        if not self.mailbox.leave(visit_id, now, effects):
            return False
        self.visit = None
        self.full_since = None
        self.absent_since = now
        self._book(effects, unit)
        unit.changes += self.sendings.write(self.device_no, now)
        self._remember_sent(unit)
        unit.changes.append(contract.Left(self.device_no, now))
        # Those that wait again are off the wire as of now; the settled ones when that is durable.
        settled = {effect.entry.msg_id if isinstance(effect, Returned) else effect.msg_id for effect in effects}
        for msg_id in was_sent:
            if msg_id not in settled:
                self.sendings.take(msg_id)
                self._on_the_wire.off(msg_id, self.device_no)
        return True

    # --- What happens to the device ----------------------------------------------------------------------------------

    @as_owner
    def rebind(self, alias: Alias | None, binding: Binding, unit: Unit, by_device: bool) -> None:
        """Another alias, or none: the fence falls (C14). `by_device`: the visit waits for the answer to its request."""
        effects: list[Effect] = []
        self.mailbox.rebind(binding, effects)
        self.alias = alias
        self._book(effects, unit)
        visit = self.visit
        if visit is None:
            return
        if by_device:
            self._hold.ask(unit.number)
            return
        self._hold.change(unit.number)

        def told() -> None:
            if self.visit is visit:
                self._hold.changed(unit.number, alias, visit)
            self.pump()

        unit.then.append(told)

    @as_owner
    def delete(self, unit: Unit) -> None:
        """The device is no longer one of its app: everything is settled, the visit ends."""
        effects: list[Effect] = []
        self.is_deleted = True
        self.mailbox.clear(effects)
        self._book(effects, unit)
        visit = self.visit
        if visit is not None:

            def told() -> None:
                visit.end(Ending.REMOVED)
                self.visit = None

            unit.then.append(told)

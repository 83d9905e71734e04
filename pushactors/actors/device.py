"""One device: its mailbox and its visit, carried out.

1. The mailbox decides; this actor books what was decided in a unit of work, and hands to the visit what may go.
2. A verdict is booked with the unit that caused it: what a newcomer replaces is durable together with it (C2).
3. Nothing is handed to a visit before the device has been answered (`resume`): not on arrival (C15), not while it waits
   for its own change of alias. Nor before a change that somebody else made is durable (C14).
4. An event of a visit that is not the present one is ignored, and counted by whoever brought it (C11).
5. It does not outlive its use: absent, and with everything durable, it may be retired; the store has all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import trio

from pushactors.actors.hold import Hold
from pushactors.actors.inbox import Inbox, as_owner
from pushactors.actors.tenant import Tenant
from pushactors.actors.unit import Unit
from pushactors.actors.visits import Ending, Visit
from pushactors.actors.wire_count import WireCount
from pushactors.domain.effects import Effect, Settled
from pushactors.domain.mailbox import Entry, Mailbox
from pushactors.domain.message import Mark, Message, Verdict
from pushactors.stores import contract
from pushactors.wire.ids import Alias, Binding, DeviceNo, Millis, MsgId, UnitNo, VisitId


class DeviceActor:
    """See the law on top. Every public method is one piece of work: done whole, or the actor has crashed."""

    __slots__ = (
        "_clock",
        "_fetch",
        "_hold",
        "_on_the_wire",
        "alias",
        "device_no",
        "full_since",
        "inbox",
        "is_deleted",
        "last_unit",
        "mailbox",
        "tenant",
        "used",
        "visit",
    )

    def __init__(
        self,
        device_no: DeviceNo,
        tenant: Tenant,
        on_the_wire: WireCount,
        clock: Callable[[], Millis],
        fetch: Callable[[DeviceActor, Sequence[MsgId]], None],
    ) -> None:
        """`fetch` brings the content of those messages to `bodies`, soon."""
        self.device_no = device_no
        self.tenant = tenant
        self.inbox = Inbox(f"Device {device_no}")
        self.mailbox = Mailbox(Binding(0))
        self.alias: Alias | None = None
        self.visit: Visit | None = None
        self.last_unit = UnitNo(0)
        """The last unit that this device has a part in."""
        self.full_since: float | None = None
        """Since when (Trio time) the window is full and nothing has been acknowledged (C12)."""
        self.used = True
        """Whether anything happened here since this was last set to False."""
        self.is_deleted = False
        self._on_the_wire = on_the_wire
        self._clock = clock
        self._fetch = fetch
        self._hold = Hold()

    # --- Life --------------------------------------------------------------------------------------------------------

    def restore(self, row: contract.MailboxRow) -> None:
        """Takes the state that the store has, before the inbox opens. What had a visit has lost it (C3)."""
        self.alias = row.device.alias
        self.mailbox = Mailbox(
            row.device.binding,
            (
                Entry(d.msg_id, d.expires_at, d.overrides, d.binding, at=d.sent_at, strike=d.strike)
                for d in row.deliveries
            ),
        )
        effects: list[Effect] = []
        self.mailbox.end_lost_visit(self._clock(), effects)
        self._book_alone(effects)

    async def run(self) -> None:
        """The actor's task: opens the door, and returns when it is retired. Raises what it crashed on."""
        self.inbox.open()
        await self.inbox.wait_closed()

    def may_retire(self) -> bool:
        return self.visit is None and not self.used and self.last_unit <= self.tenant.book.durable

    # --- Deliveries --------------------------------------------------------------------------------------------------

    @as_owner
    def deliver(self, message: Message, binding: Binding | None, unit: Unit, gate: UnitNo) -> Verdict | None:
        """A newcomer; its verdict if it has one at once. It is sent when `gate` is durable, at once if it is."""
        if self.is_deleted:
            return Verdict.MISSED
        visit = self.visit
        limits = self.tenant.limits
        if visit is None:
            limit, room = limits.offline_limit, 0
        else:
            limit = limits.backlog_limit
            room = max(0, limits.window - self.mailbox.sent_count()) if visit.is_taking() else 0
        entry = Entry(message.msg_id, message.expires_at, message.overrides, binding, message.sent_at, gate, message)
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
        while visit.is_taking():
            entry = self.mailbox.next_to_send(now, durable, window, effects)
            if entry is None or entry.message is None:
                break
            visit.hand(entry.message, self.alias if entry.binding is not None else None)
            self._on_the_wire.on(entry.msg_id, self.device_no)
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
        unit = self.tenant.book.open()
        self._book(effects, unit)
        unit.changes.append(contract.Marked(msg_id, self.device_no, mark, self._clock()))
        unit.close()
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
        if not self.mailbox.leave(visit_id, self._clock(), effects):
            return False
        self.visit = None
        self.full_since = None
        self._book(effects, unit)
        # Those that wait again are off the wire as of now; the settled ones when that is durable.
        settled = {effect.msg_id for effect in effects}
        for msg_id in was_sent:
            if msg_id not in settled:
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
    def expire(self) -> None:
        """Settles what ran out while it waited."""
        effects: list[Effect] = []
        self.mailbox.expire(self._clock(), effects)
        self._book_alone(effects)

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

    @as_owner
    def contents(self) -> list[tuple[MsgId, bool, Millis]]:
        """What is unsettled, in order: (msg_id, whether it is sent, since when)."""
        self.used = True
        sent = [(entry.msg_id, True, entry.at) for entry in self.mailbox.sent]
        return sent + [(entry.msg_id, False, entry.at) for entry in self.mailbox.waiting]

    # --- Booking -----------------------------------------------------------------------------------------------------

    def _book_alone(self, effects: list[Effect]) -> None:
        if effects:
            unit = self.tenant.book.open()
            self._book(effects, unit)
            unit.close()

    def _book(self, effects: list[Effect], unit: Unit) -> None:
        """Writes what was decided into a unit, and remembers to be here until that is durable."""
        self.used = True
        self.last_unit = unit.number
        now = self._clock()
        for effect in effects:
            if isinstance(effect, Settled):
                unit.changes.append(contract.Settled(effect.msg_id, self.device_no, effect.verdict, now))
                if effect.was_sent:
                    unit.off_the_wire.append((effect.msg_id, self.device_no))
            else:
                unit.changes.append(contract.Struck(effect.msg_id, self.device_no, effect.verdict))

"""One mailbox, carried out: what it decides is booked, whatever becomes of its device.

1. What was decided is booked in a unit of work, with the unit that caused it: what a newcomer replaces is durable
   together with it (C2).
2. An alias that messages wait for has a mailbox, too: an actor like any other, to which no visit comes (C25).
3. What leaves a mailbox without a verdict is taken back by its tenant, in the same unit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from pushactors.actors.inbox import Inbox, as_owner
from pushactors.actors.notices import Notices
from pushactors.actors.sendings import Sendings
from pushactors.actors.tenant import Tenant
from pushactors.actors.unit import Unit
from pushactors.actors.visits import Visit
from pushactors.actors.wire_count import WireCount
from pushactors.domain.effects import Effect, Returned, Settled
from pushactors.domain.entry import Entry
from pushactors.domain.mailbox import Mailbox
from pushactors.domain.message import Verdict
from pushactors.domain.receipts import Reason, Why
from pushactors.stores import contract
from pushactors.wire.ids import Alias, Binding, DeviceNo, Millis, MsgId, UnitNo, VisitNo


class MailboxActor:
    """See the law on top. Every public method is one piece of work: done whole, or the actor has crashed."""

    __slots__ = (
        "_clock",
        "_fetch",
        "_notices",
        "_on_the_wire",
        "_settled_in",
        "_written_in",
        "absent_since",
        "alias",
        "device_no",
        "inbox",
        "is_alias",
        "is_deleted",
        "last_unit",
        "mailbox",
        "moved_in",
        "sendings",
        "tenant",
        "used",
        "visit",
        "waits_for",
    )

    def __init__(
        self,
        device_no: DeviceNo,
        tenant: Tenant,
        on_the_wire: WireCount,
        clock: Callable[[], Millis],
        fetch: Callable[[MailboxActor, Sequence[MsgId]], None],
    ) -> None:
        """`fetch` brings the content of those messages to `bodies`, soon."""
        self.device_no = device_no
        self.tenant = tenant
        self.inbox = Inbox(f"Device {device_no}")
        self.mailbox = Mailbox(Binding(0))
        self.alias: Alias | None = None
        self.is_alias = False
        """Whether this is no device, but the mailbox of `alias`."""
        self.visit: Visit | None = None
        self.absent_since: Millis | None = None
        """When its last visit ended; None if that was before this actor."""
        self.last_unit = UnitNo(0)
        """The last unit that this device has a part in."""
        self.waits_for = UnitNo(0)
        """The unit that must be durable before this actor can have its state: what was decided about it before."""
        self.moved_in = UnitNo(0)
        """The last unit in which something was moved into this mailbox."""
        self.used = True
        """Whether anything happened here since this was last set to False."""
        self.is_deleted = False
        self.sendings = Sendings()
        self._written_in: dict[MsgId, tuple[VisitNo, Millis, UnitNo]] = {}
        """What left the wire unsettled: on which visit it was sent, when, and in which unit that is written down."""
        self._settled_in: dict[MsgId, UnitNo] = {}
        """What was settled in the mailbox of an alias, and in which unit, until that is durable."""
        self._notices = Notices()
        self._on_the_wire = on_the_wire
        self._clock = clock
        self._fetch = fetch

    def pump(self) -> None:
        """Hands to the visit what may go now; nothing where there is none."""

    def restore(self, row: contract.MailboxRow) -> None:
        """Takes the state that the store has, before the inbox opens. What had a visit has lost it (C3)."""
        device = row.device
        self.waits_for = UnitNo(0)
        self.alias = device.alias
        self.is_alias = device.is_alias
        self.sendings.visit = device.visits
        self._notices = Notices(row.notices)
        self.mailbox = Mailbox(device.binding, [_entry(each, device.was_present) for each in row.deliveries])
        effects: list[Effect] = []
        self.mailbox.end_lost_visit(self._clock(), effects)
        if not effects and not device.was_present:
            return
        with self.tenant.book.decision() as unit:
            if device.was_present:
                # What it may have been sent is written down before it counts as absent, with this instant: nobody knows
                # another.
                now = self._clock()
                unit.changes += [
                    contract.Sent(each.msg_id, self.device_no, VisitNo(0), now)
                    for each in row.deliveries
                    if not each.was_sent
                ]
                self._remember_sent(unit)
                unit.changes.append(contract.Left(self.device_no, device.last_seen_at))
            self._book(effects, unit)

    def _remember_sent(self, unit: Unit) -> None:
        """What is written down as sent in that unit goes along with a verdict in an earlier one, which comes before it
        on disk: that of a push that is being accepted in slices."""
        for change in unit.changes:
            if isinstance(change, contract.Sent) and change.device_no == self.device_no:
                self._written_in[change.msg_id] = (change.visit, change.at, unit.number)

    @as_owner
    def expire(self) -> None:
        """Settles what ran out while it waited."""
        effects: list[Effect] = []
        self.mailbox.expire(self._clock(), effects)
        self._book_alone(effects)

    # --- Recalls and deadlines ---------------------------------------------------------------------------------------

    @as_owner
    def recall(self, msg_id: MsgId, until: Millis, unit: Unit) -> bool | None:
        """Takes a delivery back. True: it is settled now; False: it is on the way, and struck; None: it is not here.

        A device that may have it is told until it answers, or `until` (C22).
        """
        was_sent = any(entry.msg_id == msg_id and entry.was_sent for entry in self.mailbox.waiting)
        effects: list[Effect] = []
        is_settled = self.mailbox.recall(msg_id, effects)
        self._book(effects, unit)
        if is_settled is False or was_sent:
            self._notice(msg_id, until, unit)
        return is_settled

    @as_owner
    def notice(self, msg_id: MsgId, until: Millis, unit: Unit) -> None:
        """The device has received what is recalled: it is told until it answers, or `until`."""
        if not self.is_deleted:
            self._book([], unit)
            self._notice(msg_id, until, unit)

    def _notice(self, msg_id: MsgId, until: Millis, unit: Unit) -> None:
        unit.changes.append(contract.Noticed(msg_id, self.device_no, until))
        self._notices.add(msg_id, until, unit.number)
        unit.then.append(self.pump)

    @as_owner
    def reason(self, msg_id: MsgId) -> Reason | None:
        """Why this delivery is not received yet (C21); None: it is settled here. `absent` without `since`: since the
        device was last seen."""
        for entry in self.mailbox.sent:
            if entry.msg_id == msg_id:
                return Reason(Why.UNACKNOWLEDGED, since=entry.at)
        for place, entry in enumerate(self.mailbox.waiting, start=self.mailbox.sent_count()):
            if entry.msg_id == msg_id:
                if self.is_alias:
                    return Reason(Why.UNHELD, since=entry.at)
                if self.visit is None:
                    return Reason(Why.ABSENT, since=self.absent_since)
                return Reason(Why.QUEUED, behind=place)
        return None

    @as_owner
    def write_sent(self, before: Millis, unit: Unit) -> None:
        """Writes down what was sent before that and is still on the wire."""
        unit.changes += self.sendings.write(self.device_no, before)
        self.last_unit = unit.number

    # --- What waits for an alias (C25) -------------------------------------------------------------------------------

    @as_owner
    def release(self, free: Collection[MsgId] | None, unit: Unit) -> list[Entry]:
        """What goes to the device on which this alias has just been set; it takes them with `admit`. `free`: what it
        has not had yet; None: all of it."""
        self._book([], unit)
        return self.mailbox.release(free)

    @as_owner
    def admit(self, entries: Sequence[Entry], places: Sequence[int], origin: DeviceNo, unit: Unit) -> None:
        """What waited for the alias that was set here enters, behind all others, in this order."""
        self._book([], unit)
        self.moved_in = unit.number
        now, binding = self._clock(), self.mailbox.binding
        for entry, place in zip(entries, places, strict=True):
            entry.binding, entry.place, entry.at, entry.gate = binding, place, now, unit.number
            entry.was_sent, entry.strike = False, None
            self.mailbox.admit(entry)
            unit.changes.append(contract.Moved(entry.msg_id, origin, self.device_no, binding, place, now))
        missing = [entry.msg_id for entry in entries if entry.message is None]
        if missing:
            self._fetch(self, missing)
        unit.then.append(self.pump)

    @as_owner
    def readmit(self, returned: Returned, origin: DeviceNo, unit: Unit) -> None:
        """What a device could not be given waits for this alias again, unless the same push does already."""
        if self._settled_in.get(returned.entry.msg_id, UnitNo(0)) <= unit.number:
            self._readmit(returned, origin, unit)
            return
        # The same push was settled here in a later unit, and on disk it is still here before that. Until then this one
        # lies with the device, which would give it back again.
        with self.tenant.book.decision() as later:
            self._readmit(returned, origin, later)

    def _readmit(self, returned: Returned, origin: DeviceNo, unit: Unit) -> None:
        now = self._clock()
        entry = returned.entry
        if self.mailbox.holds(entry.msg_id):
            unit.changes.append(contract.Settled(entry.msg_id, origin, Verdict.FENCED, now))
            return
        self.moved_in = max(self.moved_in, unit.number)
        unit.changes.append(contract.Moved(entry.msg_id, origin, self.device_no, None, None, now))
        entry.binding, entry.place, entry.at, entry.gate = None, entry.msg_id, now, unit.number
        entry.was_sent, entry.strike = False, None
        effects: list[Effect] = []
        self.mailbox.readmit(entry, now, effects)
        self._book(effects, unit)

    @as_owner
    def replace_older(self, msg_id: MsgId, unit: Unit) -> None:
        """A newer message to this alias took the place of those that are about `msg_id` (C7)."""
        effects: list[Effect] = []
        self.mailbox.replace_older(msg_id, effects)
        self._book(effects, unit)

    @property
    def is_empty(self) -> bool:
        return not self.mailbox.sent_count() and not self.mailbox.waiting_count()

    @as_owner
    def contents(self) -> list[tuple[MsgId, bool, Millis]]:
        """What is unsettled, in order: (msg_id, whether it is sent, since when)."""
        self.used = True
        sent = [(entry.msg_id, True, entry.at) for entry in self.mailbox.sent]
        return sent + [(entry.msg_id, False, entry.at) for entry in self.mailbox.waiting]

    # --- Booking -----------------------------------------------------------------------------------------------------

    def _book_alone(self, effects: list[Effect]) -> None:
        if effects:
            with self.tenant.book.decision() as unit:
                self._book(effects, unit)

    def _book(self, effects: list[Effect], unit: Unit) -> None:
        """Writes what was decided into a unit, and remembers to be here until that is durable."""
        self.used = True
        if effects and unit.number < self.moved_in:
            # A push that is being accepted in slices is about something that was moved here meanwhile: on disk it is
            # not here before that.
            self._book_alone(effects)
            return
        self.last_unit = max(self.last_unit, unit.number)
        now = self._clock()
        for effect in effects:
            if isinstance(effect, Settled):
                visit, sent_at = self._sending_of(effect, unit)
                unit.changes.append(
                    contract.Settled(effect.msg_id, self.device_no, effect.verdict, now, visit, sent_at)
                )
                if effect.was_sent:
                    unit.off_the_wire.append((effect.msg_id, self.device_no))
            elif isinstance(effect, Returned):
                msg_id = effect.entry.msg_id
                if effect.was_sent:
                    visit, sent_at = self.sendings.take(msg_id)
                    if visit is not None and sent_at is not None:
                        unit.changes.append(contract.Sent(msg_id, self.device_no, visit, sent_at))
                    unit.off_the_wire.append((msg_id, self.device_no))
                self.tenant.take_back(self.device_no, effect, unit)
            else:
                unit.changes.append(contract.Struck(effect.msg_id, self.device_no, effect.verdict, now))

    def _sending_of(self, effect: Settled, unit: Unit) -> tuple[VisitNo | None, Millis | None]:
        if self.is_alias:
            durable = self.tenant.book.durable
            self._settled_in = {msg_id: number for msg_id, number in self._settled_in.items() if number > durable}
            self._settled_in[effect.msg_id] = unit.number
        written = self._written_in.pop(effect.msg_id, None)
        if effect.was_sent:
            return self.sendings.take(effect.msg_id)
        return (None, None) if written is None or written[2] <= unit.number else written[:2]


def _entry(row: contract.DeliveryRow, was_present: bool) -> Entry:
    return Entry(
        row.msg_id,
        row.expires_at,
        row.overrides,
        row.binding,
        at=row.sent_at,
        strike=row.strike,
        held_for=row.held_for,
        place=row.place,
        was_sent=row.was_sent or was_present,
    )

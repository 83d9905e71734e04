"""The mailbox, rule by rule; then at random, against a twin that was written from the contract alone."""

from __future__ import annotations

from collections import Counter

import pytest

from pushactors.domain.effects import Effect, Returned, Settled, Struck
from pushactors.domain.mailbox import Entry, Mailbox
from pushactors.domain.message import Message, Verdict
from pushactors.wire.ids import Alias, Binding, Millis, MsgId, UnitNo, VisitId
from tests.domain.twin_mailbox import MailboxWalk

RECEIVED, MISSED, EXPIRED, REPLACED, OVERFLOWED, RECALLED, FENCED = (
    Verdict.RECEIVED,
    Verdict.MISSED,
    Verdict.EXPIRED,
    Verdict.REPLACED,
    Verdict.OVERFLOWED,
    Verdict.RECALLED,
    Verdict.FENCED,
)

A, B, A_AGAIN = 1, 2, 3
"""Three bindings of one device. A `Phone` begins with the first."""

HOUR = 3_600_000


class Phone:
    """One device and the hours of its day. Every method answers what was told by it, in order."""

    def __init__(self, *, limit: int = 5, backlog: int = 256, window: int = 64) -> None:
        self.box = Mailbox(Binding(A))
        self.limit, self.backlog, self.window = limit, backlog, window
        self.now = 10 * HOUR
        self.durable = 0
        self.visits = 0
        self.is_taking = True
        """Whether its outgoing buffer takes more."""

    def push(
        self,
        msg_id: int,
        *,
        lives: int | None = 24 * HOUR,
        overrides: int | None = None,
        binding: int | None = None,
        gate: int = 0,
        is_loaded: bool = True,
    ) -> list[Effect] | Verdict:
        """What its coming changed, or its own verdict. `lives` None: time to live 0."""
        entry = self.entry(msg_id, lives, overrides, binding, gate, is_loaded)
        limit, room = self.limit, 0
        if self.box.visit is not None:
            limit = self.backlog
            room = max(0, self.window - self.box.sent_count()) if self.is_taking else 0
        told: list[Effect] = []
        verdict = self.box.enter(entry, limit, room, told)
        assert verdict is None or not told, "What is settled at once changes nothing."
        return told if verdict is None else verdict

    def entry(
        self,
        msg_id: int,
        lives: int | None = 24 * HOUR,
        overrides: int | None = None,
        binding: int | None = None,
        gate: int = 0,
        is_loaded: bool = True,
    ) -> Entry:
        expires_at = None if lives is None else Millis(self.now + lives)
        named = None if overrides is None else MsgId(overrides)
        message = Message(MsgId(msg_id), Millis(self.now), expires_at, named, b"{}") if is_loaded else None
        bound = None if binding is None else Binding(binding)
        return Entry(MsgId(msg_id), expires_at, named, bound, Millis(self.now), UnitNo(gate), message)

    def arrive(self) -> VisitId:
        self.visits += 1
        self.box.arrive(VisitId(self.visits))
        return VisitId(self.visits)

    def leave(self, visit: int | None = None) -> list[Effect]:
        told: list[Effect] = []
        given = self.visits if visit is None else visit
        assert self.box.leave(VisitId(given), Millis(self.now), told) == (given == self.visits)
        return told

    def send(self) -> list[int]:
        """The ids of all that may go now."""
        sent, told = self.send_and_tell()
        assert not told
        return sent

    def send_and_tell(self) -> tuple[list[int], list[Effect]]:
        told: list[Effect] = []
        sent: list[int] = []
        while head := self.box.next_to_send(Millis(self.now), UnitNo(self.durable), self.window, told):
            sent.append(head.msg_id)
        return sent, told

    def acknowledge(self, msg_id: int, visit: int | None = None) -> list[Effect] | bool:
        """What was told by it; False if it did not count."""
        told: list[Effect] = []
        given = VisitId(self.visits if visit is None else visit)
        counted = self.box.acknowledge(given, MsgId(msg_id), told)
        assert counted or not told
        return counted and told

    def decline(self, msg_id: int, visit: int | None = None) -> list[Effect] | bool:
        told: list[Effect] = []
        given = VisitId(self.visits if visit is None else visit)
        counted = self.box.decline(given, MsgId(msg_id), told)
        assert counted or not told
        return counted and told

    def mark(self, msg_id: int) -> list[Effect]:
        told: list[Effect] = []
        self.box.mark(MsgId(msg_id), told)
        return told

    def rebind(self, binding: int) -> list[Effect]:
        told: list[Effect] = []
        self.box.rebind(Binding(binding), told)
        return told

    def expire(self) -> list[Effect]:
        told: list[Effect] = []
        self.box.expire(Millis(self.now), told)
        return told

    def clear(self) -> list[Effect]:
        told: list[Effect] = []
        self.box.clear(told)
        return told

    @property
    def sent(self) -> list[int]:
        return [each.msg_id for each in self.box.sent]

    @property
    def waiting(self) -> list[int]:
        return [each.msg_id for each in self.box.waiting]


def waited(msg_id: int, verdict: Verdict) -> Settled:
    return Settled(MsgId(msg_id), verdict, was_sent=False)


def was_sent(msg_id: int, verdict: Verdict) -> Settled:
    return Settled(MsgId(msg_id), verdict, was_sent=True)


def struck(msg_id: int, verdict: Verdict) -> Struck:
    return Struck(MsgId(msg_id), verdict)


@pytest.fixture
def phone() -> Phone:
    """Absent, and nothing waits."""
    return Phone()


@pytest.fixture
def present() -> Phone:
    """On its first visit; nothing waits."""
    phone = Phone()
    phone.arrive()
    return phone


@pytest.fixture
def on_the_wire() -> Phone:
    """On its first visit, with 1, 2 and 3 sent; all addressed to A."""
    phone = Phone()
    phone.arrive()
    for msg_id in (1, 2, 3):
        phone.push(msg_id, binding=A)
    assert phone.send() == [1, 2, 3]
    return phone


# --- Order and window (C9, C10) --------------------------------------------------------------------------------


def test_messages_are_sent_in_the_order_of_acceptance(phone: Phone) -> None:
    """C9."""
    for msg_id in (1, 2, 3):
        phone.push(msg_id)
    phone.arrive()
    assert phone.send() == [1, 2, 3]


def test_what_was_not_acknowledged_is_sent_again_before_what_came_later(on_the_wire: Phone) -> None:
    """C9, C10: in order on every visit."""
    on_the_wire.leave()
    on_the_wire.push(4)
    for _ in range(3):
        on_the_wire.arrive()
        assert on_the_wire.send() == [1, 2, 3, 4]
        on_the_wire.leave()


def test_what_was_sent_goes_back_before_what_was_still_waiting(present: Phone) -> None:
    """C8, C9."""
    present.window = 2
    for msg_id in (1, 2, 3, 4):
        present.push(msg_id)
    assert present.send() == [1, 2]
    assert present.leave() == []
    assert present.waiting == [1, 2, 3, 4]


def test_no_more_than_the_window_is_on_the_wire(present: Phone) -> None:
    """C10: an acknowledgement makes room for as many as it covers."""
    present.window = 3
    for msg_id in range(1, 8):
        present.push(msg_id)
    assert present.send() == [1, 2, 3]
    present.acknowledge(2)
    assert present.send() == [4, 5]
    assert present.sent == [3, 4, 5]


def test_a_struck_message_still_takes_its_place_in_the_window(present: Phone) -> None:
    """C3, C10: it stays sent, and is not acknowledged."""
    present.window = 1
    present.push(1)
    assert present.send() == [1]
    present.push(2, overrides=1)
    assert present.send() == []
    present.acknowledge(1)
    assert present.send() == [2]


def test_a_declined_or_marked_message_makes_room_in_the_window(present: Phone) -> None:
    """C10."""
    present.window = 2
    for msg_id in (1, 2, 3, 4):
        present.push(msg_id, binding=A)
    assert present.send() == [1, 2]
    present.decline(1)
    assert present.send() == [3]
    present.mark(3)
    assert present.send() == [4]


def test_an_empty_mailbox_sends_nothing(present: Phone) -> None:
    assert present.send() == []


# --- Acknowledgements (C3, C10, C11) -----------------------------------------------------------------------------


def test_an_acknowledgement_covers_all_sent_before_it(on_the_wire: Phone) -> None:
    """C10: in the order in which they were sent."""
    assert on_the_wire.acknowledge(2) == [was_sent(1, RECEIVED), was_sent(2, RECEIVED)]
    assert on_the_wire.sent == [3]


def test_an_acknowledgement_does_not_cover_what_still_waits(present: Phone) -> None:
    """C10."""
    present.window = 1
    present.push(1)
    present.push(2)
    present.send()
    assert present.acknowledge(2) is False
    assert present.acknowledge(1) == [was_sent(1, RECEIVED)]
    assert present.waiting == [2]


def test_an_acknowledgement_counts_only_on_the_visit_that_sent_it(on_the_wire: Phone) -> None:
    """C3: a later visit has not been sent it yet."""
    on_the_wire.leave()
    on_the_wire.arrive()
    assert on_the_wire.acknowledge(1) is False
    assert on_the_wire.waiting == [1, 2, 3]


def test_an_acknowledgement_of_an_earlier_visit_is_ignored_when_the_next_has_sent_it_again(on_the_wire: Phone) -> None:
    """C3, C11."""
    on_the_wire.leave()
    on_the_wire.arrive()
    assert on_the_wire.send() == [1, 2, 3]
    assert on_the_wire.acknowledge(2, visit=1) is False
    assert on_the_wire.sent == [1, 2, 3]
    assert on_the_wire.acknowledge(2, visit=2) == [was_sent(1, RECEIVED), was_sent(2, RECEIVED)]


def test_an_acknowledgement_after_the_visit_is_ignored(on_the_wire: Phone) -> None:
    """C3."""
    on_the_wire.leave()
    assert on_the_wire.acknowledge(3) is False
    assert on_the_wire.waiting == [1, 2, 3]


@pytest.mark.parametrize("msg_id", [1, 99], ids=["acknowledged before", "never heard of"])
def test_an_acknowledgement_of_what_is_not_on_the_wire_is_ignored(on_the_wire: Phone, msg_id: int) -> None:
    """C3."""
    on_the_wire.acknowledge(1)
    assert on_the_wire.acknowledge(msg_id) is False
    assert on_the_wire.sent == [2, 3]


def test_an_acknowledgement_of_what_was_declined_is_ignored(on_the_wire: Phone) -> None:
    """C3: it has another verdict."""
    on_the_wire.decline(3)
    assert on_the_wire.acknowledge(3) is False
    assert on_the_wire.sent == [1, 2]


def test_an_acknowledgement_of_what_was_marked_covers_all_sent_before_it(on_the_wire: Phone) -> None:
    """C10, C3: its verdict is `received`, not another; and the acknowledgement speaks of 1 and 2 as well. A library
    that bundles its acknowledgements tells `opened` 3 first, then `received` 3, and never again of 1 and 2."""
    assert on_the_wire.mark(3) == [was_sent(3, RECEIVED)]
    assert on_the_wire.acknowledge(3) == [was_sent(1, RECEIVED), was_sent(2, RECEIVED)]
    assert on_the_wire.leave() == []


def test_an_acknowledgement_of_what_was_marked_covers_nothing_sent_after_it(on_the_wire: Phone) -> None:
    """C10."""
    on_the_wire.mark(2)
    assert on_the_wire.acknowledge(2) == [was_sent(1, RECEIVED)]
    assert on_the_wire.sent == [3]
    on_the_wire.push(4)
    on_the_wire.send()
    on_the_wire.acknowledge(2)
    assert on_the_wire.sent == [3, 4]


def test_an_acknowledgement_of_what_another_visit_marked_covers_nothing(on_the_wire: Phone) -> None:
    """C3: this visit has not been sent it."""
    on_the_wire.mark(3)
    on_the_wire.leave()
    on_the_wire.arrive()
    assert on_the_wire.send() == [1, 2]
    assert on_the_wire.acknowledge(3) is False
    assert on_the_wire.acknowledge(3, visit=1) is False
    assert on_the_wire.sent == [1, 2]


def test_an_acknowledgement_of_what_was_marked_while_it_waited_covers_nothing(present: Phone) -> None:
    """C3: nobody was sent it."""
    present.window = 1
    present.push(1)
    present.push(2)
    present.send()
    assert present.mark(2) == [waited(2, RECEIVED)]
    assert present.acknowledge(2) is False
    assert present.sent == [1]


def test_an_acknowledgement_of_what_was_marked_covers_what_is_struck(on_the_wire: Phone) -> None:
    """C3, C10."""
    on_the_wire.push(4, overrides=1)
    on_the_wire.mark(3)
    assert on_the_wire.acknowledge(3) == [was_sent(1, RECEIVED), was_sent(2, RECEIVED)]


def test_what_was_acknowledged_is_never_sent_again(on_the_wire: Phone) -> None:
    """C10."""
    on_the_wire.acknowledge(3)
    on_the_wire.leave()
    on_the_wire.arrive()
    assert on_the_wire.send() == []


def test_the_goodbye_of_an_earlier_visit_ends_nothing(on_the_wire: Phone) -> None:
    """C11: it can come after the hello of the next."""
    on_the_wire.leave()
    on_the_wire.arrive()
    assert on_the_wire.send() == [1, 2, 3]
    assert on_the_wire.leave(visit=1) == []
    assert on_the_wire.box.visit == 2
    assert on_the_wire.sent == [1, 2, 3]


def test_a_visit_ends_once(present: Phone) -> None:
    """C11."""
    present.push(1)
    present.leave()
    told: list[Effect] = []
    assert present.box.leave(VisitId(1), Millis(present.now), told) is False
    assert told == []
    assert present.waiting == [1]


# --- Marks (C3) ----------------------------------------------------------------------------------------------------


def test_a_mark_receives_that_one_alone(on_the_wire: Phone) -> None:
    """C3."""
    assert on_the_wire.mark(2) == [was_sent(2, RECEIVED)]
    assert on_the_wire.sent == [1, 3]


def test_a_mark_counts_while_its_message_waits_again(on_the_wire: Phone) -> None:
    """C3: on any visit, or on none."""
    on_the_wire.leave()
    assert on_the_wire.mark(1) == [waited(1, RECEIVED)]
    on_the_wire.arrive()
    assert on_the_wire.mark(2) == [waited(2, RECEIVED)]
    assert on_the_wire.send() == [3]


def test_a_mark_receives_what_is_struck(on_the_wire: Phone) -> None:
    """C3."""
    on_the_wire.push(4, overrides=2)
    assert on_the_wire.mark(2) == [was_sent(2, RECEIVED)]
    assert on_the_wire.leave() == []


def test_a_mark_of_what_is_settled_or_unknown_tells_nothing(on_the_wire: Phone) -> None:
    """C1, C3."""
    on_the_wire.acknowledge(1)
    assert on_the_wire.mark(1) == []
    assert on_the_wire.mark(99) == []
    assert on_the_wire.sent == [2, 3]


# --- Declining (C3, C14) -----------------------------------------------------------------------------------------


def test_a_declined_message_is_fenced_alone(on_the_wire: Phone) -> None:
    """C14: addressed to an alias that is not logged in there."""
    assert on_the_wire.decline(2) == [was_sent(2, FENCED)]
    assert on_the_wire.sent == [1, 3]


def test_a_struck_message_that_is_declined_gets_its_strike(on_the_wire: Phone) -> None:
    """C3."""
    on_the_wire.push(4, overrides=2)
    assert on_the_wire.decline(2) == [was_sent(2, REPLACED)]


def test_a_declined_message_is_never_sent_again(on_the_wire: Phone) -> None:
    """C3."""
    on_the_wire.decline(2)
    on_the_wire.leave()
    on_the_wire.arrive()
    assert on_the_wire.send() == [1, 3]


def test_what_was_not_addressed_by_alias_cannot_be_declined(present: Phone) -> None:
    """C16."""
    present.push(1)
    present.send()
    assert present.decline(1) is False
    assert present.sent == [1]


def test_declining_counts_only_on_the_visit_that_sent_it(on_the_wire: Phone) -> None:
    """C3, C11."""
    on_the_wire.leave()
    assert on_the_wire.decline(1) is False
    on_the_wire.arrive()
    assert on_the_wire.decline(1) is False
    on_the_wire.send()
    assert on_the_wire.decline(1, visit=1) is False
    assert on_the_wire.decline(99) is False
    assert on_the_wire.sent == [1, 2, 3]


# --- Strikes (C3) --------------------------------------------------------------------------------------------------


def test_replacing_settles_what_waits_and_strikes_what_is_sent(present: Phone) -> None:
    """C3, C7: 1 names what is yet to come, so that there are two to replace at once."""
    present.window = 1
    present.push(1, overrides=2)
    present.push(2)
    present.send()
    assert present.push(3, overrides=2) == [struck(1, REPLACED), waited(2, REPLACED)]
    assert (present.sent, present.waiting) == ([1], [3])


def test_fencing_settles_what_waits_and_strikes_what_is_sent(present: Phone) -> None:
    """C3, C14."""
    present.window = 1
    present.push(1, binding=A)
    present.push(2, binding=A)
    present.send()
    assert present.rebind(B) == [struck(1, FENCED), waited(2, FENCED)]
    assert (present.sent, present.waiting) == ([1], [])


def test_a_struck_message_that_is_acknowledged_on_its_visit_is_received(on_the_wire: Phone) -> None:
    """C3: as one that is covered, too."""
    on_the_wire.push(4, overrides=1)
    on_the_wire.rebind(B)
    told = on_the_wire.acknowledge(3)
    assert told == [was_sent(1, RECEIVED), was_sent(2, RECEIVED), was_sent(3, RECEIVED)]


def test_a_struck_message_gets_its_strike_when_the_visit_ends(on_the_wire: Phone) -> None:
    """C3."""
    on_the_wire.push(4, overrides=2)
    assert on_the_wire.leave() == [was_sent(2, REPLACED)]
    assert on_the_wire.waiting == [1, 3, 4]


def test_a_struck_message_is_never_sent_again(on_the_wire: Phone) -> None:
    """C3."""
    on_the_wire.push(4, overrides=2)
    on_the_wire.leave()
    on_the_wire.arrive()
    assert on_the_wire.send() == [1, 3, 4]


def test_the_first_strike_counts(on_the_wire: Phone) -> None:
    """C3: replaced, then fenced, it is replaced; the second strike is not even told."""
    assert on_the_wire.push(4, overrides=2) == [struck(2, REPLACED)]
    assert on_the_wire.rebind(B) == [struck(1, FENCED), struck(3, FENCED)]
    assert on_the_wire.push(5, overrides=1) == []
    assert on_the_wire.leave() == [was_sent(1, FENCED), was_sent(2, REPLACED), was_sent(3, FENCED)]


def test_a_strike_counts_before_time_to_live_0_and_before_expiry(present: Phone) -> None:
    """C3: only what is not struck is missed or expired when its visit ends."""
    present.push(1, lives=None)
    present.push(2, lives=HOUR)
    present.send()
    present.push(3, overrides=1)
    present.push(4, overrides=2)
    present.now += HOUR
    assert present.leave() == [was_sent(1, REPLACED), was_sent(2, REPLACED)]


# --- Time to live (C5) -------------------------------------------------------------------------------------------


def test_what_may_not_wait_is_missed_by_an_absent_device(phone: Phone) -> None:
    """C5."""
    assert phone.push(1, lives=None) is MISSED
    assert phone.waiting == []


def test_what_may_not_wait_is_sent_on_a_visit_like_any_other(present: Phone) -> None:
    """C5: in order, within the window."""
    present.window = 2
    present.push(1)
    present.push(2, lives=None)
    present.push(3, lives=None)
    assert present.send() == [1, 2]
    present.acknowledge(1)
    assert present.send() == [3]
    assert present.acknowledge(3) == [was_sent(2, RECEIVED), was_sent(3, RECEIVED)]


def test_what_may_not_wait_is_missed_when_its_visit_ends(present: Phone) -> None:
    """C5: nor does it wait beyond a visit on which it was not even sent."""
    present.window = 1
    present.push(1, lives=None)
    present.push(2, lives=None)
    present.push(3)
    present.send()
    assert present.leave() == [was_sent(1, MISSED), waited(2, MISSED)]
    assert present.waiting == [3]


def test_what_may_not_wait_does_not_expire_on_its_visit(present: Phone) -> None:
    """C5."""
    present.push(1, lives=None)
    present.now += 1000 * HOUR
    assert present.expire() == []
    assert present.send() == [1]


def test_what_is_due_expires_at_that_very_instant(phone: Phone) -> None:
    """C5: and not a millisecond before."""
    phone.push(1, lives=HOUR)
    phone.push(2, lives=2 * HOUR)
    phone.now += HOUR - 1
    assert phone.expire() == []
    phone.now += 1
    assert phone.expire() == [waited(1, EXPIRED)]
    assert phone.waiting == [2]


def test_what_is_due_behind_what_is_not_expires_too(phone: Phone) -> None:
    """C5: the order of expiry is not that of the queue."""
    for msg_id, hours in ((1, 9), (2, 1), (3, 9), (4, 1)):
        phone.push(msg_id, lives=hours * HOUR)
    phone.now += HOUR
    assert phone.expire() == [waited(2, EXPIRED), waited(4, EXPIRED)]
    assert phone.waiting == [1, 3]


def test_what_is_due_at_the_moment_of_sending_expires_instead(phone: Phone) -> None:
    """C5: though nobody has looked since it was due."""
    phone.push(1, lives=HOUR)
    phone.push(2, lives=HOUR)
    phone.push(3)
    phone.now += HOUR
    phone.arrive()
    assert phone.send_and_tell() == ([3], [waited(1, EXPIRED), waited(2, EXPIRED)])


def test_what_is_sent_does_not_expire_while_its_visit_lives(present: Phone) -> None:
    """C5."""
    present.push(1, lives=HOUR)
    present.send()
    present.now += 2 * HOUR
    assert present.expire() == []
    assert present.acknowledge(1) == [was_sent(1, RECEIVED)]


def test_what_is_sent_and_due_expires_when_its_visit_ends(present: Phone) -> None:
    """C3, C5."""
    present.push(1, lives=HOUR)
    present.push(2, lives=2 * HOUR)
    present.send()
    present.now += HOUR
    assert present.leave() == [was_sent(1, EXPIRED)]
    assert present.waiting == [2]


# --- Override (C7) -----------------------------------------------------------------------------------------------


def test_an_override_replaces_the_message_of_that_id(phone: Phone) -> None:
    """C7: the newcomer takes the tail of the queue."""
    for msg_id in (1, 2, 3):
        phone.push(msg_id)
    assert phone.push(4, overrides=2) == [waited(2, REPLACED)]
    assert phone.waiting == [1, 3, 4]


def test_an_override_replaces_what_overrode_the_same_id(phone: Phone) -> None:
    """C7: whether the id itself was ever here or not."""
    phone.push(1, overrides=77)
    assert phone.push(2, overrides=77) == [waited(1, REPLACED)]
    assert phone.waiting == [2]


def test_an_override_replaces_every_match(phone: Phone) -> None:
    """C7: 1 overrides 3, which was yet to come. So 3 and 1 are both about 3, and 4 replaces both."""
    phone.push(1, overrides=3)
    phone.push(2)
    phone.push(3)
    assert phone.push(4, overrides=3) == [waited(1, REPLACED), waited(3, REPLACED)]
    assert phone.waiting == [2, 4]


def test_an_override_does_not_reach_through_what_it_replaced(phone: Phone) -> None:
    """C7: 2 named 1, and is named by 3. Whoever names 1 after that does not find 3."""
    phone.push(1)
    phone.push(2, overrides=1)
    phone.push(3, overrides=2)
    assert phone.push(4, overrides=1) == []
    assert phone.waiting == [3, 4]


def test_a_message_that_names_itself_is_taken(phone: Phone) -> None:
    """C7: it replaces what was there before it, and that is not itself."""
    assert phone.push(1, overrides=1) == []
    assert phone.waiting == [1]


def test_an_override_that_matches_nothing_replaces_nothing(phone: Phone) -> None:
    """C7: the push goes out as an ordinary one."""
    phone.push(1)
    assert phone.push(2, overrides=99) == []
    assert phone.waiting == [1, 2]


def test_what_was_received_is_not_replaced(on_the_wire: Phone) -> None:
    """C7: only what is unsettled."""
    on_the_wire.acknowledge(2)
    assert on_the_wire.push(4, overrides=2) == []
    assert on_the_wire.push(5, overrides=3) == [struck(3, REPLACED)]


def test_a_message_that_may_not_wait_replaces_nothing(phone: Phone) -> None:
    """C7: time to live is judged before override."""
    phone.push(1)
    assert phone.push(2, lives=None, overrides=1) is MISSED
    assert phone.waiting == [1]


def test_on_a_visit_a_message_that_may_not_wait_replaces(present: Phone) -> None:
    """C7."""
    present.push(1)
    assert present.push(2, lives=None, overrides=1) == [waited(1, REPLACED)]
    assert present.send() == [2]


# --- Limit (C8) ----------------------------------------------------------------------------------------------------


def test_a_newcomer_over_the_limit_makes_the_oldest_give_way(phone: Phone) -> None:
    """C8."""
    for msg_id in (1, 2, 3, 4, 5):
        assert phone.push(msg_id) == []
    assert phone.push(6) == [waited(1, OVERFLOWED)]
    assert phone.push(7) == [waited(2, OVERFLOWED)]
    assert phone.waiting == [3, 4, 5, 6, 7]


def test_what_may_not_wait_takes_nobodys_place(phone: Phone) -> None:
    """C8: time to live is judged before the limit."""
    phone.limit = 1
    phone.push(1)
    assert phone.push(2, lives=None) is MISSED
    assert phone.waiting == [1]


def test_what_replaces_needs_no_new_place(phone: Phone) -> None:
    """C8: override is judged before the limit."""
    phone.limit = 2
    phone.push(1)
    phone.push(2)
    assert phone.push(3, overrides=2) == [waited(2, REPLACED)]
    assert phone.waiting == [1, 3]


def test_nothing_gives_way_when_a_visit_ends() -> None:
    """C8: whatever the limit."""
    phone = Phone(limit=2)
    phone.arrive()
    for msg_id in range(1, 9):
        phone.push(msg_id)
    phone.window = 4
    phone.send()
    assert phone.leave() == []
    assert phone.waiting == [1, 2, 3, 4, 5, 6, 7, 8]


def test_exactly_one_gives_way_though_more_than_the_limit_wait() -> None:
    """C8: the excess of a broken visit stays, and does not grow."""
    phone = Phone(limit=2)
    phone.arrive()
    for msg_id in range(1, 6):
        phone.push(msg_id)
    phone.send()
    phone.leave()
    assert phone.push(6) == [waited(1, OVERFLOWED)]
    assert phone.push(7) == [waited(2, OVERFLOWED)]
    assert phone.waiting == [3, 4, 5, 6, 7]


def test_over_the_limit_one_gives_way_to_a_newcomer_that_replaces_another() -> None:
    """C8, to the letter: override is judged first, and what is left is still over the limit."""
    phone = Phone(limit=2)
    phone.arrive()
    for msg_id in range(1, 6):
        phone.push(msg_id)
    phone.leave()
    assert phone.push(6, overrides=3) == [waited(3, REPLACED), waited(1, OVERFLOWED)]


def test_a_present_device_has_the_backlog_limit() -> None:
    """C8."""
    phone = Phone(limit=1, backlog=3)
    phone.arrive()
    phone.is_taking = False
    for msg_id in (1, 2, 3):
        assert phone.push(msg_id) == []
    assert phone.push(4) == [waited(1, OVERFLOWED)]


def test_what_is_on_the_wire_neither_counts_nor_gives_way() -> None:
    """C8: the oldest waiting does."""
    phone = Phone(backlog=2, window=2)
    phone.arrive()
    phone.push(1)
    phone.push(2)
    phone.send()
    assert phone.push(3) == []
    assert phone.push(4) == []
    assert phone.push(5) == [waited(3, OVERFLOWED)]
    assert (phone.sent, phone.waiting) == ([1, 2], [4, 5])


def test_what_fits_into_the_window_neither_counts_nor_gives_way() -> None:
    """C8: it waits only for the disk. Behind it, one may wait; the next makes that one give way."""
    phone = Phone(backlog=1, window=3)
    phone.arrive()
    for msg_id in (1, 2, 3, 4):
        assert phone.push(msg_id, gate=1) == []
    assert phone.push(5, gate=1) == [waited(4, OVERFLOWED)]
    assert phone.waiting == [1, 2, 3, 5]


def test_what_is_on_the_wire_takes_from_the_free_part_of_the_window() -> None:
    """C8."""
    phone = Phone(backlog=1, window=3)
    phone.arrive()
    phone.push(1)
    phone.push(2)
    phone.send()
    assert phone.push(3, gate=1) == []
    assert phone.push(4, gate=1) == []
    assert phone.push(5, gate=1) == [waited(4, OVERFLOWED)]
    assert (phone.sent, phone.waiting) == ([1, 2], [3, 5])


def test_a_full_buffer_leaves_no_place_that_does_not_count() -> None:
    """C8: while the outgoing buffer takes no more, whatever waits counts, and the oldest gives way."""
    phone = Phone(backlog=2, window=64)
    phone.arrive()
    phone.push(1, gate=1)
    phone.push(2, gate=1)
    phone.is_taking = False
    assert phone.push(3, gate=1) == [waited(1, OVERFLOWED)]


def test_a_burst_larger_than_the_backlog_reaches_a_device_that_takes_it() -> None:
    """C8, C2: within one group commit."""
    phone = Phone(backlog=2, window=64)
    phone.arrive()
    for msg_id in range(1, 65):
        assert phone.push(msg_id, gate=1) == []
    phone.durable = 1
    assert phone.send() == list(range(1, 65))


def test_what_may_not_wait_counts_and_gives_way_on_a_visit() -> None:
    """C5, C8: it queues like any other, within the backlog."""
    phone = Phone(backlog=2)
    phone.arrive()
    phone.is_taking = False
    phone.push(1, lives=None)
    phone.push(2)
    assert phone.push(3, lives=None) == [waited(1, OVERFLOWED)]
    assert phone.push(4) == [waited(2, OVERFLOWED)]


# --- Durable, then sent (C2) -----------------------------------------------------------------------------------


def test_nothing_is_sent_before_it_is_durable(present: Phone) -> None:
    """C2."""
    present.push(1, gate=7)
    present.durable = 6
    assert present.send() == []
    present.durable = 7
    assert present.send() == [1]


def test_what_is_not_durable_holds_back_what_came_after_it(present: Phone) -> None:
    """C2, C9: in order, though the one behind may already go."""
    present.push(1, gate=1)
    present.push(2, gate=2)
    present.push(3, lives=None)
    present.durable = 1
    assert present.send() == [1]
    present.durable = 2
    assert present.send() == [2, 3]


def test_what_is_not_loaded_holds_back_what_came_after_it(present: Phone) -> None:
    """C9: its content is still in the store."""
    present.push(1, is_loaded=False)
    present.push(2)
    assert present.send() == []
    for entry in present.box.waiting:
        entry.message = entry.message or Message(entry.msg_id, entry.at, entry.expires_at, entry.overrides, b"{}")
    assert present.send() == [1, 2]


def test_what_is_neither_durable_nor_loaded_is_replaced_fenced_and_overflows_all_the_same(phone: Phone) -> None:
    """C7, C8, C14: the queue is what was accepted, not what could go."""
    phone.limit = 3
    for msg_id in (1, 2, 3):
        phone.push(msg_id, binding=A, gate=9, is_loaded=False)
    assert phone.push(4, overrides=2, gate=9) == [waited(2, REPLACED)]
    assert phone.push(5, gate=9) == [waited(1, OVERFLOWED)]
    assert phone.rebind(B) == [waited(3, FENCED)]


# --- The fence (C13, C14, C15, C16) ------------------------------------------------------------------------------


def test_what_waited_for_the_earlier_alias_is_not_sent_to_the_next(phone: Phone) -> None:
    """C14, C15: B, logging in on A's device, never sees what waited there for A."""
    phone.push(1, binding=A)
    phone.push(2)
    assert phone.rebind(B) == [waited(1, FENCED)]
    phone.arrive()
    assert phone.send() == [2]


def test_what_was_not_addressed_by_alias_is_not_fenced(present: Phone) -> None:
    """C16: neither on the wire nor waiting."""
    present.window = 1
    present.push(1)
    present.push(2)
    present.send()
    assert present.rebind(B) == []
    assert (present.sent, present.waiting) == ([1], [2])


def test_what_returned_from_a_broken_visit_is_fenced(on_the_wire: Phone) -> None:
    """C14."""
    on_the_wire.leave()
    assert on_the_wire.rebind(B) == [waited(1, FENCED), waited(2, FENCED), waited(3, FENCED)]


def test_what_was_on_the_wire_does_not_return_under_the_next_alias(on_the_wire: Phone) -> None:
    """C3, C14."""
    on_the_wire.rebind(B)
    assert on_the_wire.leave() == [was_sent(1, FENCED), was_sent(2, FENCED), was_sent(3, FENCED)]
    on_the_wire.arrive()
    assert on_the_wire.send() == []


@pytest.mark.parametrize("is_present", [True, False])
def test_what_was_accepted_in_a_race_is_fenced_at_once(phone: Phone, is_present: bool) -> None:
    """C14: and replaces nothing, and nothing gives way for it."""
    if is_present:
        phone.arrive()
    phone.limit = phone.backlog = 1
    phone.window = 0
    phone.rebind(B)
    phone.push(1)
    assert phone.push(2, binding=A, overrides=1) is FENCED
    assert phone.waiting == [1]


def test_time_to_live_is_judged_before_the_fence(phone: Phone) -> None:
    """Law 1: it may not wait, whoever it was for."""
    phone.rebind(B)
    assert phone.push(1, lives=None, binding=A) is MISSED


def test_what_is_addressed_under_the_present_binding_is_taken(phone: Phone) -> None:
    """C14."""
    phone.rebind(B)
    assert phone.push(1, binding=B) == []
    phone.arrive()
    assert phone.send() == [1]


def test_an_alias_that_comes_back_is_another_binding(phone: Phone) -> None:
    """C13, C14: A, then B, then A again. What was for the first A stays fenced, also if it is late."""
    phone.push(1, binding=A)
    assert phone.rebind(B) == [waited(1, FENCED)]
    phone.push(2, binding=B)
    assert phone.rebind(A_AGAIN) == [waited(2, FENCED)]
    assert phone.push(3, binding=A) is FENCED
    assert phone.push(4, binding=A_AGAIN) == []
    phone.arrive()
    assert phone.send() == [4]


def test_setting_the_same_binding_fences_nothing(on_the_wire: Phone) -> None:
    """C13: no change."""
    assert on_the_wire.rebind(A) == []
    assert on_the_wire.leave() == []


def test_the_order_of_the_others_survives_the_fence(phone: Phone) -> None:
    """C9, C14."""
    for msg_id, binding in ((1, None), (2, A), (3, None), (4, A), (5, None)):
        phone.push(msg_id, binding=binding)
    assert phone.rebind(B) == [waited(2, FENCED), waited(4, FENCED)]
    phone.arrive()
    assert phone.send() == [1, 3, 5]


# --- Deletion (C24) ------------------------------------------------------------------------------------------------


def test_a_deleted_devices_deliveries_are_missed_but_for_the_struck(on_the_wire: Phone) -> None:
    """C24, C3."""
    on_the_wire.window = 0
    on_the_wire.push(4, overrides=2)
    on_the_wire.push(5, lives=None)
    assert on_the_wire.clear() == [
        was_sent(1, MISSED),
        was_sent(2, REPLACED),
        was_sent(3, MISSED),
        waited(4, MISSED),
        waited(5, MISSED),
    ]
    assert (on_the_wire.sent, on_the_wire.waiting) == ([], [])


def test_a_deletion_ends_the_visit(on_the_wire: Phone) -> None:
    """C24: and whatever that one still says is ignored."""
    on_the_wire.clear()
    assert on_the_wire.box.visit is None
    assert on_the_wire.acknowledge(1) is False
    assert on_the_wire.mark(1) == []
    told: list[Effect] = []
    assert on_the_wire.box.leave(VisitId(1), Millis(on_the_wire.now), told) is False
    assert told == []


# --- Restart (C2, C3, C9) ------------------------------------------------------------------------------------------


def test_after_a_restart_everything_waits_in_order_until_its_content_is_here(phone: Phone) -> None:
    """C2, C9: `sent` is not durable. The rows are handed over in order, without content."""
    rows = [phone.entry(msg_id, binding=A, is_loaded=False) for msg_id in (1, 2, 3)]
    phone.box = Mailbox(Binding(A), rows)
    assert (phone.sent, phone.waiting) == ([], [1, 2, 3])
    assert (phone.box.sent_count(), phone.box.waiting_count()) == (0, 3)
    phone.arrive()
    assert phone.send() == []
    for row in rows:
        row.message = Message(row.msg_id, row.at, row.expires_at, row.overrides, b"{}")
    assert phone.send() == [1, 2, 3]


def test_after_a_restart_the_rules_go_on(phone: Phone) -> None:
    """C5, C7, C8, C14: for what was accepted before it."""
    rows = [
        phone.entry(1, binding=A),
        phone.entry(2, overrides=77),
        phone.entry(3, lives=HOUR),
        phone.entry(4),
        phone.entry(5),
    ]
    phone.box = Mailbox(Binding(A), rows)
    assert phone.push(6, overrides=77) == [waited(2, REPLACED)]
    assert phone.push(7) == [waited(1, OVERFLOWED)]
    phone.now += HOUR
    assert phone.expire() == [waited(3, EXPIRED)]
    assert phone.waiting == [4, 5, 6, 7]


def test_after_a_restart_the_fence_stands(phone: Phone) -> None:
    """C14: the binding is that of the store, and what is addressed under an earlier one is refused."""
    phone.box = Mailbox(Binding(A_AGAIN), [phone.entry(1, binding=A_AGAIN)])
    assert phone.push(2, binding=A) is FENCED
    assert phone.rebind(4) == [waited(1, FENCED)]


def test_a_mailbox_begins_without_a_visit() -> None:
    assert Mailbox(Binding(A)).visit is None


# --- Recalling -----------------------------------------------------------------------------------------------------


def recall(phone: Phone, msg_id: int) -> tuple[bool | None, list[Effect]]:
    told: list[Effect] = []
    return phone.box.recall(MsgId(msg_id), told), told


def test_recalling_settles_what_waits_and_strikes_what_is_sent(on_the_wire: Phone) -> None:
    """C3, C22"""
    on_the_wire.is_taking = False
    on_the_wire.push(4)
    assert recall(on_the_wire, 4) == (True, [waited(4, RECALLED)])
    assert recall(on_the_wire, 2) == (False, [struck(2, RECALLED)])
    assert recall(on_the_wire, 2) == (False, [])
    assert recall(on_the_wire, 4) == recall(on_the_wire, 99) == (None, [])
    assert was_sent(2, RECALLED) in on_the_wire.leave()


def test_what_is_recalled_on_the_wire_and_acknowledged_is_received(on_the_wire: Phone) -> None:
    """C3, C22"""
    recall(on_the_wire, 1)
    assert on_the_wire.acknowledge(1) == [was_sent(1, RECEIVED)]


# --- What is held --------------------------------------------------------------------------------------------------


def held(phone: Phone, msg_id: int, *, overrides: int | None = None, lives: int = 24 * HOUR) -> Entry:
    """A message to the present alias that is held for her."""
    entry = phone.entry(msg_id, lives, overrides, phone.box.binding)
    entry.held_for = Alias("alice")
    return entry


@pytest.fixture
def holding(present: Phone) -> tuple[Phone, list[Entry]]:
    """1 and 2 are on the wire, 3 and 4 wait; all of them are held for the alias."""
    entries = [held(present, msg_id) for msg_id in (1, 2, 3, 4)]
    for entry in entries[:2]:
        assert present.box.enter(entry, 256, 64, []) is None
    assert present.send() == [1, 2]
    for entry in entries[2:]:
        assert present.box.enter(entry, 256, 64, []) is None
    return present, entries


def returned(told: list[Effect]) -> list[tuple[int, bool]]:
    assert all(isinstance(each, Returned) for each in told)
    return [(each.entry.msg_id, each.was_sent) for each in told if isinstance(each, Returned)]


def test_the_fence_returns_what_waits_and_strikes_what_is_sent(holding: tuple[Phone, list[Entry]]) -> None:
    """C25, C14"""
    phone, entries = holding
    told = phone.rebind(B)
    assert told[:2] == [struck(1, FENCED), struck(2, FENCED)]
    assert returned(told[2:]) == [(3, False), (4, False)]
    assert [each.entry for each in told[2:] if isinstance(each, Returned)] == entries[2:]
    assert (phone.sent, phone.waiting) == ([1, 2], [])


@pytest.mark.parametrize("how", ["leave", "decline", "clear"])
def test_what_the_fence_struck_returns_when_it_leaves_the_wire(
    how: str, holding: tuple[Phone, list[Entry]]
) -> None:
    """C25: when its visit ends, or the device declines it, or is deleted."""
    phone, _ = holding
    phone.rebind(B)
    if how == "decline":
        declined = phone.decline(1)
        assert isinstance(declined, list)
        assert returned(declined) == [(1, True)]
    else:
        assert returned(phone.leave() if how == "leave" else phone.clear()) == [(1, True), (2, True)]


def test_what_is_held_and_declined_returns_alone(holding: tuple[Phone, list[Entry]]) -> None:
    """C25: without a strike, too."""
    phone, _ = holding
    declined = phone.decline(2)
    assert isinstance(declined, list)
    assert returned(declined) == [(2, True)]
    assert (phone.sent, phone.waiting) == ([1], [3, 4])


def test_all_that_a_deleted_device_holds_returns(holding: tuple[Phone, list[Entry]]) -> None:
    """C25"""
    phone, _ = holding
    phone.push(5)
    told = phone.clear()
    assert returned(told[:4]) == [(1, True), (2, True), (3, False), (4, False)]
    assert told[4:] == [waited(5, MISSED)]


@pytest.mark.parametrize("verdict", [REPLACED, RECALLED])
@pytest.mark.parametrize("is_fenced_first", [False, True])
@pytest.mark.parametrize("how", ["leave", "decline", "clear"])
def test_what_is_struck_otherwise_gets_that_verdict(
    how: str, is_fenced_first: bool, verdict: Verdict, holding: tuple[Phone, list[Entry]]
) -> None:
    """C25: whether or not the fence fell as well: it would only have let it wait."""
    phone, _ = holding
    if is_fenced_first:
        phone.rebind(B)
    told = recall(phone, 1)[1] if verdict is RECALLED else phone.push(9, overrides=1)
    assert told == [struck(1, verdict)]
    if not is_fenced_first:
        phone.rebind(B)
    left = {"leave": phone.leave, "decline": lambda: phone.decline(1), "clear": phone.clear}[how]()
    assert isinstance(left, list)
    assert left[0] == was_sent(1, verdict)


def test_what_is_held_and_comes_back_unheard_returns_only_if_the_fence_met_it(phone: Phone) -> None:
    """C25, C3: read from the store after a crash."""
    stays, struck_out, replaced, due = (held(phone, msg_id) for msg_id in (1, 2, 3, 4))
    struck_out.strike, replaced.strike, due.expires_at = FENCED, REPLACED, Millis(phone.now)
    late = held(phone, 5)
    late.binding = Binding(A_AGAIN)
    box = Mailbox(Binding(A), [stays, struck_out, replaced, due, late])
    told: list[Effect] = []
    box.end_lost_visit(Millis(phone.now), told)
    assert told == [
        Returned(struck_out, False), waited(3, REPLACED), waited(4, EXPIRED), Returned(late, False),
    ]  # fmt: skip
    assert list(box.waiting) == [stays]


def test_what_waits_for_an_alias_goes_but_for_what_the_device_had(phone: Phone) -> None:
    """C25: a device gets each push once."""
    entries = [held(phone, msg_id) for msg_id in (1, 2, 3)]
    box = Mailbox(Binding(0), entries)
    assert box.release({MsgId(1), MsgId(3), MsgId(9)}) == [entries[0], entries[2]]
    assert list(box.waiting) == [entries[1]]
    assert box.release(set()) == []
    assert box.release(None) == [entries[1]]
    assert box.waiting_count() == 0


def test_what_comes_back_takes_its_old_place_and_nothing_gives_way(phone: Phone) -> None:
    """C25, C8"""
    box = Mailbox(Binding(0), [held(phone, msg_id) for msg_id in (1, 4, 6, 7, 8)])
    told: list[Effect] = []
    for msg_id in (5, 9, 3):
        box.readmit(held(phone, msg_id), Millis(phone.now), told)
    assert ([each.msg_id for each in box.waiting], told) == ([1, 3, 4, 5, 6, 7, 8, 9], [])


@pytest.mark.parametrize(
    ("old", "newer", "is_replaced"),
    [((3, None), (5, 3), True), ((3, 1), (5, 1), True), ((3, None), (5, 1), False), ((3, 4), (2, 1), False),
     ((3, None), (5, None), False)],
)  # fmt: skip
def test_what_comes_back_is_replaced_by_a_newer_message_that_took_its_place(
    old: tuple[int, int | None], newer: tuple[int, int | None], is_replaced: bool, phone: Phone
) -> None:
    """C25, C7"""
    box = Mailbox(Binding(0), [held(phone, newer[0], overrides=newer[1])])
    told: list[Effect] = []
    box.readmit(held(phone, old[0], overrides=old[1]), Millis(phone.now), told)
    assert told == ([waited(old[0], REPLACED)] if is_replaced else [])
    assert box.holds(MsgId(old[0])) is not is_replaced


def test_what_comes_back_takes_the_place_of_what_it_replaces_there(phone: Phone) -> None:
    """C7, C25: what is older, and came back before it."""
    box = Mailbox(Binding(0), [held(phone, 1), held(phone, 2, overrides=1), held(phone, 3), held(phone, 6)])
    told: list[Effect] = []
    box.readmit(held(phone, 5, overrides=1), Millis(phone.now), told)
    assert told == [waited(1, REPLACED), waited(2, REPLACED)]
    assert [each.msg_id for each in box.waiting] == [3, 5, 6]


@pytest.mark.parametrize(("lives", "is_over"), [(0, True), (1, False)])
def test_what_comes_back_after_its_time_has_expired(lives: int, is_over: bool, phone: Phone) -> None:
    """C25, C5: it ran out on the wire. At that very instant, and before it is judged whether it was replaced."""
    box = Mailbox(Binding(0), [held(phone, 9, overrides=1)] if is_over else [])
    told: list[Effect] = []
    box.readmit(held(phone, 1, lives=lives), Millis(phone.now), told)
    assert told == ([waited(1, EXPIRED)] if is_over else [])
    assert box.holds(MsgId(1)) is not is_over


def test_a_newer_message_that_went_elsewhere_replaces_what_waits_for_the_alias(phone: Phone) -> None:
    """C7, C25"""
    box = Mailbox(Binding(0), [held(phone, 1), held(phone, 2, overrides=1), held(phone, 3)])
    told: list[Effect] = []
    box.replace_older(MsgId(1), told)
    assert told == [waited(1, REPLACED), waited(2, REPLACED)]
    assert [each.msg_id for each in box.waiting] == [3]


@pytest.fixture
def with_a_late_one(present: Phone) -> Phone:
    """11 and 12, and 1 behind them, which waited for the alias and was accepted long ago; then 21. All on the wire."""
    present.push(11)
    present.push(12)
    late = held(present, 1)
    late.place = 15
    present.box.admit(late)
    present.push(21)
    assert present.send() == [11, 12, 1, 21]
    return present


def test_an_acknowledgement_goes_by_place_and_not_by_id(with_a_late_one: Phone) -> None:
    """C10: all that were sent before it on this visit."""
    assert with_a_late_one.acknowledge(12) == [was_sent(11, RECEIVED), was_sent(12, RECEIVED)]
    assert with_a_late_one.acknowledge(1) == [was_sent(1, RECEIVED)]
    assert with_a_late_one.acknowledge(21) == [was_sent(21, RECEIVED)]


def test_an_acknowledgement_of_the_late_one_covers_all_sent_before_it(with_a_late_one: Phone) -> None:
    """C10"""
    assert with_a_late_one.acknowledge(1) == [was_sent(each, RECEIVED) for each in (11, 12, 1)]


def test_an_acknowledgement_of_a_late_one_that_was_marked_covers_what_was_sent_before_it(
    with_a_late_one: Phone,
) -> None:
    """C10, C3: it keeps its place though it is settled."""
    assert with_a_late_one.mark(1) == [was_sent(1, RECEIVED)]
    assert with_a_late_one.acknowledge(1) == [was_sent(11, RECEIVED), was_sent(12, RECEIVED)]
    assert with_a_late_one.sent == [21]


def test_a_late_one_keeps_its_place_from_visit_to_visit(with_a_late_one: Phone) -> None:
    """C9"""
    with_a_late_one.leave()
    with_a_late_one.arrive()
    assert with_a_late_one.send() == [11, 12, 1, 21]
    assert all(each.was_sent for each in with_a_late_one.box.sent)


def test_what_is_admitted_makes_nothing_give_way(phone: Phone) -> None:
    """C25: though the mailbox be full."""
    for msg_id in range(11, 16):
        phone.push(msg_id)
    late = held(phone, 1)
    late.place = 16
    phone.box.admit(late)
    assert phone.waiting == [11, 12, 13, 14, 15, 1]
    assert phone.push(17) == [waited(11, OVERFLOWED)]


# --- An entry ------------------------------------------------------------------------------------------------------


def test_an_entry_is_about_its_own_id_and_the_one_that_it_overrides() -> None:
    """C7."""
    entry = Phone().entry(5, overrides=3)
    assert [msg_id for msg_id in range(9) if entry.is_about(MsgId(msg_id))] == [3, 5]
    assert not Phone().entry(5).is_about(MsgId(0))


def test_an_entry_knows_since_when_it_is_what_it_is(phone: Phone) -> None:
    """C19: waiting since it was accepted, sent since it was sent, and waiting again since its visit ended."""
    since: list[int] = []

    def look() -> None:
        since.append(next(each.at for each in (*phone.box.sent, *phone.box.waiting)))
        phone.now += HOUR

    accepted_at = phone.now
    phone.push(1)
    look()
    phone.arrive()
    look()
    phone.send()
    look()
    phone.leave()
    look()
    assert [(at - accepted_at) // HOUR for at in since] == [0, 0, 2, 3]


# --- At random -----------------------------------------------------------------------------------------------------

SEEDS = 300
STEPS = 200


@pytest.mark.parametrize("seeds", [range(first, first + 30) for first in range(0, SEEDS, 30)], ids=str)
def test_a_mailbox_does_what_its_twin_does(seeds: range) -> None:
    """C1, C3, C5, C7 to C11, C14, C16, C22, C25: after every step of a random walk."""
    for seed in seeds:
        walk = MailboxWalk(seed)
        done: list[str] = []
        try:
            for _ in range(STEPS):
                done.append(walk.step())
        except AssertionError as difference:
            pytest.fail(f"seed {seed}, step {len(done)}: {difference}; before it: {'; '.join(done[-5:])}")


def test_the_walk_meets_every_verdict_often() -> None:
    """A walk that met a rule hardly ever would prove nothing of it."""
    met: Counter[str] = Counter()
    for seed in range(100):
        walk = MailboxWalk(seed)
        for _ in range(STEPS):
            walk.step()
        met.update(verdict.word for verdict in walk.settled.values())
        met.update(f"struck {fact['strike'].word}" for fact in walk.twin.facts if fact["strike"])
        met.update("struck, yet received" for f in walk.twin.facts if f["strike"] and f["verdict"] is RECEIVED)
        met.update("sent twice" for fact in walk.twin.facts if len(fact["sent_on"]) > 1)
        met.update(walk.met)
    expected = {
        "received", "missed", "expired", "replaced", "overflowed", "fenced", "struck replaced", "struck fenced",
        "struck, yet received", "sent twice", "recalled", "struck recalled", "returned from the wire",
        "returned while it waited", "came back too late", "came back before others", "bound", "had already",
    }  # fmt: skip
    assert {name for name, times in met.items() if times >= 15} == expected, met

from __future__ import annotations

import random

import pytest
import trio

from pushactors.clients.inbox import Acknowledgement, Inbox
from pushactors.clients.shown import Shown
from pushactors.clients.tray import Tray
from pushactors.clients.wishes import Wish, Wishes
from pushactors.wire.device import MessageNote
from pushactors.wire.ids import Alias


class Room:
    """An inbox with what is around it. What is taken is recorded at once unless a test says otherwise."""

    def __init__(self, alias: str | None = None) -> None:
        self.shown = Shown()
        self.wishes = Wishes()
        self.inbox = Inbox(self.shown, self.wishes)
        self.inbox.begin(alias)

    def arrive(self, *msg_ids: int, alias: str | None = None) -> None:
        for msg_id in msg_ids:
            self.inbox.arrive(MessageNote(msg_id=str(msg_id), sent_at=1, alias=None if alias is None else Alias(alias)))

    def show(self) -> int | None:
        note = self.inbox.show()
        return None if note is None else int(note.msg_id)

    def take(self) -> None:
        self.inbox.take()

    def record(self) -> None:
        taken = self.inbox.taken
        trio.run(self.shown.add, taken)
        self.inbox.recorded(taken)

    def tell(self) -> tuple[list[int], int | None]:
        owed: Acknowledgement = self.inbox.acknowledge()
        return [int(msg_id) for msg_id in owed.declined], None if owed.received is None else int(owed.received)

    def want(self, alias: str) -> Wish:
        return self.wishes.make(alias, is_awaited=True)

    def grant(self, wish: Wish) -> None:
        self.wishes.grant(wish)
        self.inbox.logged_in(wish.alias or None)


NOTHING: tuple[list[int], None] = ([], None)


def test_messages_are_shown_in_the_order_in_which_they_came() -> None:
    room = Room()
    room.arrive(3, 1, 2)
    shown = []
    while (msg_id := room.show()) is not None:
        shown.append(msg_id)
        room.take()
    assert shown == [3, 1, 2]


def test_what_is_shown_is_not_acknowledged_until_it_is_taken_and_recorded() -> None:
    room = Room()
    room.arrive(1)
    room.show()
    assert room.tell() == NOTHING
    room.take()
    assert room.tell() == NOTHING
    assert room.inbox.is_owing
    room.record()
    assert room.tell() == ([], 1)
    assert room.tell() == NOTHING
    assert not room.inbox.is_owing


def test_one_acknowledgement_covers_many() -> None:
    room = Room()
    room.arrive(1, 2, 3, 4)
    for _ in range(3):
        room.show()
        room.take()
    room.record()
    assert room.tell() == ([], 3)


def test_what_was_shown_on_an_earlier_visit_is_only_acknowledged() -> None:
    room = Room()
    room.arrive(1)
    room.show()
    room.take()
    room.record()
    room.inbox.end()
    room.inbox.begin(None)
    room.arrive(1, 2)
    assert room.show() == 2
    assert room.tell() == ([], 1)


def test_what_was_taken_but_not_recorded_is_not_shown_again() -> None:
    room = Room()
    room.arrive(1)
    room.show()
    room.take()
    room.inbox.begin(None)
    room.arrive(1)
    assert room.show() is None
    assert room.tell() == NOTHING
    room.record()
    assert room.tell() == ([], 1)


def test_what_is_in_hand_when_the_visit_ends_is_acknowledged_on_the_next_when_it_is_taken() -> None:
    room = Room()
    room.arrive(1, 2)
    room.show()
    room.inbox.end()
    room.inbox.begin(None)
    room.arrive(1, 2)
    assert room.tell() == NOTHING
    room.take()
    room.record()
    assert room.tell() == ([], 1)
    assert room.show() == 2


def test_what_was_not_shown_is_forgotten_with_the_visit() -> None:
    room = Room()
    room.arrive(1)
    room.inbox.end()
    assert room.show() is None
    assert not room.inbox.is_owing


def test_an_acknowledgement_stops_short_of_what_is_not_recorded() -> None:
    room = Room()
    room.arrive(1)
    room.show()
    room.take()
    room.record()
    room.inbox.begin(None)
    room.arrive(2, 1)
    assert room.tell() == NOTHING
    room.show()
    room.take()
    room.record()
    assert room.tell() == ([], 1)


def test_while_another_alias_is_wanted_nothing_for_anybody_else_is_shown() -> None:
    room = Room("alice")
    room.arrive(1, alias="alice")
    wish = room.want("bob")
    room.arrive(2, alias="alice")
    assert room.show() is None
    assert not room.inbox.has_next
    assert room.tell() == NOTHING
    room.grant(wish)
    assert room.tell() == ([1, 2], None)
    assert room.show() is None


def test_what_is_for_the_wanted_one_or_for_nobody_is_shown_meanwhile() -> None:
    room = Room("alice")
    room.want("bob")
    room.arrive(1, alias="bob")
    room.arrive(2)
    assert room.show() == 1
    room.take()
    assert room.show() == 2
    room.record()
    assert room.tell() == ([], 1)


def test_a_refusal_sets_free_what_was_held() -> None:
    room = Room("alice")
    wish = room.want("bob")
    room.arrive(1, alias="alice")
    room.arrive(2)
    assert room.show() is None
    room.wishes.refuse_all(KeyError())  # type: ignore[arg-type]
    room.inbox.refused()
    assert room.tell() == NOTHING
    assert room.show() == 1
    room.take()
    assert room.show() == 2
    assert wish.over.is_set()


def test_after_a_refusal_what_was_for_the_refused_one_is_declined() -> None:
    room = Room("alice")
    room.want("bob")
    room.arrive(1, alias="bob")
    room.wishes.refuse_all(KeyError())  # type: ignore[arg-type]
    room.inbox.refused()
    assert room.tell() == ([1], None)


def test_what_was_shown_before_the_wish_is_acknowledged_only_after_the_answer() -> None:
    room = Room("alice")
    room.arrive(1, alias="alice")
    room.show()
    wish = room.want("bob")
    room.take()
    room.record()
    assert room.tell() == NOTHING
    assert not room.inbox.is_owing
    room.grant(wish)
    assert room.tell() == ([], 1)


def test_what_was_declined_is_passed_over_by_later_acknowledgements() -> None:
    room = Room("alice")
    wish = room.want("bob")
    room.arrive(1, alias="alice")
    room.arrive(2)
    room.grant(wish)
    assert room.show() == 2
    room.take()
    room.record()
    assert room.tell() == ([1], 2)


def test_there_and_back_again_declines_what_was_for_the_first_time() -> None:
    room = Room("alice")
    room.arrive(1, alias="alice")
    there, back = room.want("bob"), room.want("alice")
    room.grant(there)
    room.grant(back)
    room.arrive(2, alias="alice")
    assert room.show() == 2
    assert room.tell() == ([1], None)


def test_logging_out_declines_what_is_for_whoever_it_was() -> None:
    room = Room("alice")
    room.arrive(1, alias="alice")
    room.grant(room.want(""))
    assert room.tell() == ([1], None)


def test_what_is_for_somebody_who_is_not_logged_in_here_is_declined() -> None:
    room = Room("alice")
    room.arrive(1, alias="bob")
    room.arrive(2, alias="alice")
    assert room.show() == 2
    assert room.tell() == ([1], None)


def test_what_was_declined_and_comes_again_is_shown_c25() -> None:
    room = Room("alice")
    room.arrive(1, alias="alice")
    room.grant(room.want(""))
    assert room.tell() == ([1], None)
    room.grant(room.want("alice"))
    room.arrive(1, alias="alice")
    assert room.show() == 1
    room.take()
    room.record()
    assert room.tell() == ([], 1)


def test_what_was_meant_for_a_tray_is_declined_once_however_often_the_alias_changes() -> None:
    inbox = Inbox(Shown(), Wishes(), Tray())
    inbox.begin("alice")
    inbox.arrive(MessageNote(msg_id="1", sent_at=1, alias=Alias("alice"), notification={"alert": "x"}))
    inbox.logged_in("bob")
    inbox.logged_in("carol")
    assert inbox.acknowledge().declined == ["1"]


def test_what_is_taken_while_something_else_is_recorded_waits_for_its_turn() -> None:
    room = Room()
    room.arrive(1, 2)
    room.show()
    room.take()
    first = room.inbox.taken
    room.show()
    room.take()
    trio.run(room.shown.add, first)
    room.inbox.recorded(first)
    assert room.tell() == ([], 1)
    assert room.inbox.taken == ["2"]
    room.record()
    assert room.tell() == ([], 2)


def test_when_the_app_server_changes_the_alias_what_is_unshown_is_declined() -> None:
    room = Room("alice")
    room.arrive(1, alias="alice")
    room.inbox.logged_in("bob")
    room.arrive(2, alias="bob")
    assert room.show() == 2
    assert room.tell() == ([1], None)


def test_a_recalled_message_is_not_shown_and_counts_as_taken_c22() -> None:
    room = Room()
    room.arrive(1, 2)
    assert not room.inbox.recall("1")
    assert room.inbox.is_owing
    assert room.show() == 2
    room.record()
    assert room.inbox.recalls == ["1"]
    assert room.tell() == ([], 1)
    room.inbox.answered("1")
    assert not room.inbox.is_owing


def test_what_is_answered_is_not_named_again_c22() -> None:
    room = Room()
    room.arrive(1, 2)
    room.inbox.recall("2")
    room.record()
    room.inbox.answered("2")
    room.show()
    room.take()
    room.record()
    assert room.tell() == ([], 1)


def test_what_was_recalled_on_an_earlier_visit_is_answered_when_it_is_asked_again_c22() -> None:
    room = Room()
    room.inbox.recall("1")
    room.inbox.end()
    assert room.inbox.recalls == []


@pytest.mark.parametrize("seed", range(200))
def test_a_walk_shows_each_message_once_to_the_right_user_and_loses_none(seed: int) -> None:
    """Against a server that keeps what was neither received nor declined, and sends it again on each visit."""
    chance = random.Random(seed)
    room, pending, sent = Room("a"), dict[int, str | None](), list[int]()
    server_alias: str | None = "a"
    told: Wish | None = None
    shown: dict[int, str | None] = {}
    settled: set[int] = set()
    in_hand: int | None = None
    fence: set[int] = set()
    """What was addressed to somebody else when a wish was made, and must not be shown unless it is refused."""

    def hear() -> None:
        declined, received = room.tell()
        for msg_id in declined:
            assert msg_id not in shown
            settled.add(msg_id)
        if received is not None:
            covered = sent[: sent.index(received) + 1]
            for msg_id in covered:
                assert msg_id in settled or (msg_id in shown and msg_id != in_hand)
                settled.add(msg_id)
            del sent[: len(covered)]

    def visit() -> None:
        nonlocal told
        room.inbox.end()
        sent.clear()
        told = None
        room.inbox.begin(server_alias)
        for msg_id, alias in pending.items():
            if msg_id not in settled and alias in (None, server_alias):
                room.arrive(msg_id, alias=alias)
                sent.append(msg_id)

    for number in range(1, 120):
        match chance.choice(["push", "push", "show", "show", "record", "wish", "answer", "visit", "set"]):
            case "push":
                pending[number] = chance.choice([None, server_alias])
                room.arrive(number, alias=pending[number])
                sent.append(number)
            case "show":
                room.take()
                in_hand = room.show()
                if in_hand is not None:
                    assert in_hand not in shown
                    assert in_hand not in fence
                    shown[in_hand] = pending[in_hand]
            case "record":
                room.record()
            case "wish" if len(sent) < 40 and told is None:
                told = room.want(chance.choice("abc"))
                fence |= {m for m, alias in pending.items() if alias not in (None, told.alias) and m not in shown}
            case "answer" if told is not None:
                if chance.random() < 0.7:
                    server_alias = told.alias
                    room.grant(told)
                else:
                    room.wishes.refuse_all(KeyError())  # type: ignore[arg-type]
                    room.inbox.refused()
                    fence.clear()
                told = None
            case "visit" if told is None:
                visit()
            case "set" if told is None:
                server_alias = chance.choice("abc")
                room.inbox.logged_in(server_alias)
        hear()
    if told is not None:
        server_alias = told.alias
        room.grant(told)
    room.take()
    visit()
    while (in_hand := room.show()) is not None:
        assert in_hand not in shown
        shown[in_hand] = pending[in_hand]
        room.take()
    room.record()
    hear()
    for msg_id, alias in pending.items():
        assert msg_id in settled or alias not in (None, server_alias)
    assert not room.inbox.is_owing

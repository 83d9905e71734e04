"""Which recalls one device must be told of: once a visit, oldest first, until it answers."""

from __future__ import annotations

from pushactors.actors.notices import Notices
from pushactors.stores.contract import NoticeRow
from pushactors.wire.ids import Millis, MsgId, UnitNo

LATER = Millis(1_000_000)


def notices(*msg_ids: int) -> Notices:
    made = Notices(NoticeRow(MsgId(msg_id), LATER) for msg_id in msg_ids)
    made.begin()
    return made


def told(of: Notices, now: int = 0, durable: int = 9) -> list[int]:
    found: list[int] = []
    while (msg_id := of.next_to_tell(Millis(now), UnitNo(durable))) is not None:
        found.append(msg_id)
    return found


def test_each_is_told_once_a_visit_in_order() -> None:
    """C22, law 1"""
    made = notices(3, 1, 2)
    assert (told(made), told(made)) == ([3, 1, 2], [])
    made.begin()
    assert told(made) == [3, 1, 2]


def test_before_a_visit_begins_nothing_is_told() -> None:
    assert told(Notices([NoticeRow(MsgId(1), LATER)])) == []


def test_what_is_answered_is_not_told_any_more() -> None:
    """C22"""
    made = notices(1, 2, 3)
    assert made.answered(MsgId(2))
    assert not made.answered(MsgId(2))
    assert not made.answered(MsgId(99))
    assert told(made) == [1, 3]
    made.begin()
    assert told(made) == [1, 3]


def test_it_is_told_until_its_time_is_over_and_not_at_that_instant() -> None:
    """C22: at most ten days."""
    for now, expected in ((LATER - 1, [1]), (LATER, []), (LATER + 1, [])):
        assert told(notices(1), now) == expected


def test_what_is_over_does_not_hold_up_the_others() -> None:
    """C22"""
    made = Notices([NoticeRow(MsgId(1), Millis(5)), NoticeRow(MsgId(2), LATER)])
    made.begin()
    assert told(made, 10) == [2]


def test_nothing_is_told_before_it_is_durable() -> None:
    """C2, law 2: nor what comes behind it."""
    made = notices()
    made.add(MsgId(1), LATER, UnitNo(3))
    made.add(MsgId(2), LATER, UnitNo(2))
    assert told(made, durable=2) == []
    assert told(made, durable=3) == [1, 2]


def test_a_second_recall_of_the_same_is_not_told_again_on_this_visit() -> None:
    """C22: once a visit is enough."""
    made = notices(1)
    assert told(made) == [1]
    made.add(MsgId(1), LATER, UnitNo(99))
    assert told(made) == []
    made.begin()
    assert told(made) == [1]


def test_what_is_answered_before_it_was_told_is_not_told() -> None:
    """C22"""
    made = notices(1)
    made.answered(MsgId(1))
    made.add(MsgId(2), LATER, UnitNo(1))
    assert told(made) == [2]


def test_what_comes_on_a_visit_is_told_on_the_next_ones_too() -> None:
    """C22"""
    made = notices(1)
    made.add(MsgId(2), LATER, UnitNo(1))
    assert told(made) == [1, 2]
    made.begin()
    assert told(made) == [1, 2]

"""What an app server is told of its deliveries: in which words, and how far it has come."""

from __future__ import annotations

import pytest

from pushactors.domain.message import Mark, Verdict
from pushactors.domain.receipts import OUTSTANDING, Event, Progress, Why
from pushactors.errors import Invalid
from pushactors.wire.ids import Cursor


def progress(*sent: int, begin: int = 0) -> Progress:
    made = Progress(Cursor(begin))
    for last in sent:
        made.sent(Cursor(last))
    return made


# --- Words and numbers ------------------------------------------------------------------------------------------------


def test_every_verdict_and_every_mark_has_an_event_of_its_own_word() -> None:
    """C20: one for every verdict and every mark, and for what is overdue."""
    of_verdicts = {Event.of_verdict(verdict) for verdict in Verdict}
    of_marks = {Event.of_mark(mark) for mark in Mark}
    assert of_verdicts | of_marks | {Event.OVERDUE} == set(Event)
    assert len(of_verdicts) + len(of_marks) + 1 == len(Event)
    assert all(Event.of_verdict(verdict).word == verdict.word for verdict in Verdict)
    assert all(Event.of_mark(mark).word == mark.word for mark in Mark)


def test_the_numbers_that_are_stored_never_change() -> None:
    assert {event.word: int(event) for event in Event} == {
        "received": 1, "missed": 2, "expired": 3, "replaced": 4, "overflowed": 5, "recalled": 6, "fenced": 7,
        "opened": 9, "dismissed": 10, "withdrawn": 12, "overdue": 16,
    }  # fmt: skip


def test_there_are_four_reasons_to_be_overdue() -> None:
    """C21"""
    assert [str(why) for why in Why] == ["absent", "unacknowledged", "queued", "unheld"]


# --- Progress ---------------------------------------------------------------------------------------------------------


def test_at_most_eight_frames_are_on_the_way() -> None:
    """C20"""
    assert OUTSTANDING == 8
    made = progress()
    for last in range(10, 90, 10):
        assert made.may_send
        made.sent(Cursor(last))
    assert not made.may_send
    assert made.position == 80


def test_an_acknowledgement_makes_room_for_every_frame_that_it_covers() -> None:
    """C20: acknowledging a cursor acknowledges everything before it."""
    made = progress(*range(10, 90, 10))
    assert made.acknowledge(Cursor(35))
    for last in (90, 100, 110):
        assert made.may_send
        made.sent(Cursor(last))
    assert not made.may_send
    assert made.acknowledged == 35


def test_an_acknowledgement_within_a_frame_makes_no_room() -> None:
    """C20: the frame is not done with."""
    made = progress(*range(10, 90, 10))
    assert made.acknowledge(Cursor(9))
    assert not made.may_send
    assert made.acknowledge(Cursor(10))
    assert made.may_send


def test_an_acknowledgement_counts_once() -> None:
    """C20"""
    made = progress(10, 20)
    assert made.acknowledge(Cursor(15))
    assert not made.acknowledge(Cursor(15))
    assert not made.acknowledge(Cursor(3))
    assert made.acknowledged == 15
    assert made.acknowledge(Cursor(20))


@pytest.mark.parametrize("cursor", [21, 10**15])
def test_what_was_not_sent_cannot_be_acknowledged(cursor: int) -> None:
    """C20, C24: and nothing has changed."""
    made = progress(10, 20)
    with pytest.raises(Invalid):
        made.acknowledge(Cursor(cursor))
    assert (made.acknowledged, made.position) == (0, 20)
    assert made.acknowledge(Cursor(20))


@pytest.mark.parametrize("cursor", [0, 4, 5])
def test_what_is_behind_the_beginning_is_acknowledged_already(cursor: int) -> None:
    """C20: of an earlier subscription."""
    made = progress(begin=5)
    assert not made.acknowledge(Cursor(cursor))
    assert made.acknowledged == 5


def test_before_anything_is_sent_nothing_can_be_acknowledged() -> None:
    """C20"""
    with pytest.raises(Invalid):
        progress(begin=5).acknowledge(Cursor(6))

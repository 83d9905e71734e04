"""Why nothing is handed to a visit yet."""

from __future__ import annotations

import pytest

from pushactors.actors.hold import Hold
from pushactors.stores.memory import MemoryDisk
from pushactors.wire.ids import UnitNo, VisitId
from tests.actors.world import ALICE, BOB, CAROL, RecordingVisit

ONE, TWO = UnitNo(1), UnitNo(2)


@pytest.fixture
def visit() -> RecordingVisit:
    return RecordingVisit(VisitId(1), MemoryDisk(), [])


def answered(visit: RecordingVisit) -> Hold:
    hold = Hold()
    hold.answer(visit)
    return hold


def test_a_visit_begins_with_a_connect_that_is_not_answered(visit: RecordingVisit) -> None:
    """C15"""
    hold = Hold()
    assert hold.is_on
    hold.answer(visit)
    assert not hold.is_on
    hold.renew(ONE)
    assert hold.is_on


def test_whoever_asks_waits_for_the_answer(visit: RecordingVisit) -> None:
    """C14"""
    hold = answered(visit)
    hold.ask(ONE)
    assert hold.is_on
    hold.answer(visit)
    assert not hold.is_on


def test_a_change_is_told_when_it_is_durable_and_holds_until_then(visit: RecordingVisit) -> None:
    """C14"""
    hold = answered(visit)
    hold.change(ONE)
    assert hold.is_on
    assert visit.told == []
    hold.changed(ONE, BOB, visit)
    assert not hold.is_on
    assert visit.told == [BOB]


def test_of_several_changes_each_is_told_and_the_last_one_lets_go(visit: RecordingVisit) -> None:
    hold = answered(visit)
    hold.change(ONE)
    hold.change(TWO)
    hold.changed(ONE, BOB, visit)
    assert (hold.is_on, visit.told) == (True, [BOB])
    hold.changed(TWO, CAROL, visit)
    assert (hold.is_on, visit.told) == (False, [BOB, CAROL])


def test_a_change_is_not_told_before_the_answer_that_the_device_waits_for(visit: RecordingVisit) -> None:
    hold = Hold()
    hold.change(ONE)
    hold.changed(ONE, BOB, visit)
    assert (hold.is_on, visit.told) == (True, [])
    hold.answer(visit)
    assert (hold.is_on, visit.told) == (False, [BOB])


def test_what_an_earlier_visit_was_not_told_the_next_one_is_not_told_either(visit: RecordingVisit) -> None:
    """The answer to its `connect` says it."""
    hold = Hold()
    hold.change(ONE)
    hold.changed(ONE, ALICE, visit)
    hold.renew(ONE)
    hold.answer(visit)
    assert (hold.is_on, visit.told) == (False, [])


def test_a_change_that_came_before_the_question_is_told_before_the_answer(visit: RecordingVisit) -> None:
    """C14: else the device would believe the alias that it had before its own change."""
    hold = answered(visit)
    hold.change(ONE)
    hold.ask(TWO)
    hold.changed(ONE, BOB, visit)
    assert visit.told == [BOB]
    hold.answer(visit)
    assert visit.told == [BOB]

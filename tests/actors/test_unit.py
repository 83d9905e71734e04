"""A decision on its way to the disk, and the order of an app's decisions."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pushactors.actors import unit as unit_module
from pushactors.actors.unit import Book, Unit
from pushactors.stores.contract import IdsReserved
from pushactors.wire.ids import MsgId, UnitNo


class Shelf:
    """A book, and who was woken for how many rows."""

    def __init__(self) -> None:
        self.woken: list[int] = []
        self.book = Book(self.woken.append)

    def unit(self, changes: int = 0, rows: int = 0, *, is_closed: bool = True) -> Unit:
        unit = self.book.open()
        unit.changes += [IdsReserved(MsgId(1))] * changes
        unit.rows = rows
        if is_closed:
            unit.close()
        return unit

    def commit(self) -> None:
        """What the ledger does, without a disk."""
        taken = self.book.take(1000)
        for unit in taken:
            self.book.advance(unit)
        for unit in taken:
            for told in unit.then:
                told()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


# --- Units -----------------------------------------------------------------------------------------------------------


def test_units_are_numbered_in_the_order_in_which_they_are_decided_from_one(shelf: Shelf) -> None:
    assert [shelf.unit().number for _ in range(3)] == [1, 2, 3]
    assert shelf.book.durable == UnitNo(0)


def test_a_unit_is_complete_when_it_is_closed(shelf: Shelf) -> None:
    unit = shelf.unit(is_closed=False)
    assert not unit.is_complete
    unit.close()
    assert unit.is_complete


def test_a_unit_waits_for_everybody_who_has_a_part_in_it(shelf: Shelf) -> None:
    unit = shelf.unit(is_closed=False)
    unit.expect()
    unit.expect()
    unit.close()
    unit.close()
    assert not unit.is_complete
    assert not shelf.book.has_complete()
    unit.close()
    assert unit.is_complete
    assert shelf.book.has_complete()


def test_whoever_carries_units_to_the_disk_is_woken_once_for_each_with_its_rows(shelf: Shelf) -> None:
    unit = shelf.unit(changes=2, rows=3, is_closed=False)
    unit.expect()
    unit.close()
    assert shelf.woken == []
    unit.close()
    assert shelf.woken == [5]
    shelf.unit()
    assert shelf.woken == [5, 0]


def test_an_abandoned_unit_changes_nothing_tells_nobody_and_holds_up_nobody(shelf: Shelf) -> None:
    told: list[str] = []
    unit = shelf.unit(changes=2, is_closed=False)
    unit.then.append(lambda: told.append("what did not happen"))
    unit.abandon()
    behind = shelf.unit(changes=1)
    behind.then.append(lambda: told.append("what happened"))
    assert unit.changes == []
    shelf.commit()
    assert told == ["what happened"]
    assert shelf.book.durable == behind.number
    assert shelf.woken == [0, 1]


# --- Their order -----------------------------------------------------------------------------------------------------


def test_an_incomplete_unit_holds_up_those_behind_it(shelf: Shelf) -> None:
    first = shelf.unit(is_closed=False)
    second = shelf.unit()
    assert second.is_complete
    assert not shelf.book.has_complete()
    assert shelf.book.take(1000) == []
    first.close()
    assert shelf.book.take(1000) == [first, second]


def test_units_before_an_incomplete_one_are_taken_without_it(shelf: Shelf) -> None:
    first = shelf.unit()
    shelf.unit(is_closed=False)
    shelf.unit()
    assert shelf.book.take(1000) == [first]


def test_an_incomplete_unit_of_one_app_does_not_hold_up_another(shelf: Shelf) -> None:
    shelf.unit(is_closed=False)
    other = Shelf()
    assert other.book.take(1000) == []
    unit = other.unit()
    assert other.book.take(1000) == [unit]


def test_units_are_taken_once(shelf: Shelf) -> None:
    shelf.unit()
    assert len(shelf.book.take(1000)) == 1
    assert shelf.book.take(1000) == []
    assert not shelf.book.has_complete()


@pytest.mark.parametrize(("rows", "taken"), [(1, 1), (3, 1), (4, 2), (6, 2), (7, 3), (1000, 3)])
def test_about_so_many_rows_are_taken_and_at_least_one_unit(shelf: Shelf, rows: int, taken: int) -> None:
    for _ in range(3):
        shelf.unit(changes=1, rows=2)
    assert len(shelf.book.take(rows)) == taken


def test_a_unit_that_is_larger_than_a_commit_is_taken_whole(shelf: Shelf) -> None:
    large = shelf.unit(changes=1, rows=10_000)
    assert shelf.book.take(10) == [large]


# --- What is told ----------------------------------------------------------------------------------------------------


def test_what_is_told_after_everything_decided_is_told_at_once_when_nothing_was(shelf: Shelf) -> None:
    told: list[int] = []
    shelf.book.after(lambda: told.append(1))
    assert told == [1]


def test_what_is_told_after_everything_decided_waits_for_the_last_of_it(shelf: Shelf) -> None:
    told: list[str] = []
    first = shelf.unit(is_closed=False)
    first.then.append(lambda: told.append("first"))
    second = shelf.unit()
    second.then.append(lambda: told.append("second"))
    shelf.book.after(lambda: told.append("after both"))
    shelf.commit()
    assert told == []
    first.close()
    shelf.commit()
    assert told == ["first", "second", "after both"]


def test_what_is_durable_already_is_waited_for_no_more(shelf: Shelf) -> None:
    shelf.unit()
    shelf.commit()
    told: list[int] = []
    shelf.book.after(lambda: told.append(1))
    assert told == [1]


async def test_told_returns_when_everything_decided_so_far_is_durable(shelf: Shelf) -> None:
    with trio.fail_after(1):
        await shelf.book.told()
        shelf.unit()
        returned: list[str] = []

        async def wait(name: str) -> None:
            await shelf.book.told()
            returned.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "early")
            await wait_all_tasks_blocked()
            shelf.unit(is_closed=False)
            nursery.start_soon(wait, "late")
            await wait_all_tasks_blocked()
            assert returned == []
            shelf.commit()
            await wait_all_tasks_blocked()
            assert returned == ["early"]
            nursery.cancel_scope.cancel()


async def test_whoever_waits_for_one_unit_waits_for_none_behind_it(shelf: Shelf) -> None:
    first = shelf.unit()
    shelf.unit(is_closed=False)
    reached: list[int] = []

    async def wait() -> None:
        await shelf.book.reached(first.number)
        reached.append(first.number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert reached == []
        shelf.commit()
    assert reached == [1]
    with trio.fail_after(1):
        await shelf.book.reached(first.number)
        await shelf.book.reached(UnitNo(0))


async def test_everybody_who_waits_for_a_unit_is_woken(shelf: Shelf) -> None:
    reached: list[str] = []

    async def wait(name: str, unit: Unit) -> None:
        await shelf.book.reached(unit.number)
        reached.append(name)

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            first = shelf.unit()
            for name in ("one", "two"):
                nursery.start_soon(wait, name, first)
                await wait_all_tasks_blocked()
            second = shelf.unit(is_closed=False)
            nursery.start_soon(wait, "three", second)
            await wait_all_tasks_blocked()
            shelf.commit()
            await wait_all_tasks_blocked()
            assert sorted(reached) == ["one", "two"]
            second.close()
            shelf.commit()
    assert reached[2:] == ["three"]


async def test_there_is_room_while_little_is_decided_ahead_of_the_disk(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C24: an app's own peers wait for its own decisions, everybody of them until there is room again."""
    monkeypatch.setattr(unit_module, "ROWS_DECIDED_AHEAD", 10)
    entered: list[str] = []

    async def enter(name: str) -> None:
        await shelf.book.room()
        entered.append(name)

    with trio.fail_after(1):
        shelf.unit(changes=4, rows=6)
        await enter("early")
        shelf.unit(changes=1, is_closed=False)
        await enter("before it is complete")
        async with trio.open_nursery() as nursery:
            shelf.book._units[-1].close()
            for name in ("late", "later"):
                nursery.start_soon(enter, name)
                await wait_all_tasks_blocked()
            assert len(entered) == 2
            shelf.commit()
    assert sorted(entered[2:]) == ["late", "later"]


async def test_room_is_waited_for_until_there_is_enough_of_it(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_module, "ROWS_DECIDED_AHEAD", 10)
    entered: list[int] = []

    async def enter() -> None:
        await shelf.book.room()
        entered.append(1)

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                shelf.unit(changes=8)
            nursery.start_soon(enter)
            for left in (16, 8):
                await wait_all_tasks_blocked()
                assert entered == [], f"more than {left} rows are ahead"
                shelf.book.advance(shelf.book.take(1)[0])
    assert entered == [1]

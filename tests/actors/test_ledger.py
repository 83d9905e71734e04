"""The way to the disk: decisions in their order, committed in groups, and told afterwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pushactors.actors import ledger as ledger_module
from pushactors.actors import unit as unit_module
from pushactors.actors.ledger import Ledger
from pushactors.actors.tally import Tally
from pushactors.actors.unit import Book, Unit
from pushactors.actors.wire_count import WireCount
from pushactors.errors import ActorCrashed, StoreBusy, StoreFenced
from pushactors.stores.contract import Change, IdsReserved
from pushactors.stores.memory import MemoryDisk, MemoryStore
from pushactors.stores.patience import PATIENCE_S
from pushactors.wire.ids import AppNo, DeviceNo, Millis, MsgId
from tests.actors.world import ALICE, BOB, Handed, HeldStore, living

ONE, TWO, THREE = AppNo(1), AppNo(2), AppNo(3)


class Office:
    """A ledger over a store that can be held up, and what was told in which order."""

    def __init__(self, store: HeldStore, last_commit: int) -> None:
        self.store = store
        self.wire = WireCount()
        self.tally = Tally()
        self.ledger = Ledger(store, last_commit, self.wire, lambda: Millis(1), self.tally)
        self.told: list[str] = []
        self._numbered = 0

    def open(self, app_no: AppNo = ONE, name: str = "", changes: int = 1) -> Unit:
        """A unit that is told by `name`, with changes that can be told apart."""
        unit = self.ledger.book(app_no).open()
        for _ in range(changes):
            self._numbered += 1
            unit.changes.append(IdsReserved(MsgId(self._numbered)))
        if name:
            unit.then.append(lambda: self.told.append(name))
        return unit

    def decide(self, app_no: AppNo = ONE, name: str = "", changes: int = 1) -> Unit:
        unit = self.open(app_no, name, changes)
        unit.close()
        return unit

    @property
    def commits(self) -> list[list[int]]:
        """The numbers of the changes of each commit that was asked for."""
        return [[_below(change) for change in changes] for _, changes in self.store.commits]

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.store.commits]


def _ignore(_: object) -> None: ...


def _below(change: Change) -> int:
    assert isinstance(change, IdsReserved)
    return change.below


async def opened(store: HeldStore | None = None) -> Office:
    store = store or HeldStore()
    return Office(store, (await store.open()).last_commit)


@pytest.fixture
async def office(nursery: trio.Nursery) -> Office:
    office = await opened()
    nursery.start_soon(office.ledger.run)
    return office


# --- Groups ----------------------------------------------------------------------------------------------------------


async def test_what_is_decided_becomes_durable_and_is_told_afterwards(office: Office) -> None:
    """C2"""
    book = office.ledger.book(ONE)
    with office.store.held("commit"):
        unit = office.decide(name="one")
        await wait_all_tasks_blocked()
        assert (office.told, book.durable) == ([], 0)
    await wait_all_tasks_blocked()
    assert (office.told, book.durable) == (["one"], unit.number)
    assert office.commits == [[1]]


async def test_nothing_is_told_while_the_answer_of_the_disk_is_under_way(office: Office) -> None:
    """C2: it is durable when `commit` has returned."""
    with office.store.held("commit", answer=True):
        office.decide(name="one")
        await wait_all_tasks_blocked()
        assert office.told == []
    await wait_all_tasks_blocked()
    assert office.told == ["one"]


async def test_what_is_decided_in_one_turn_goes_in_one_commit(office: Office) -> None:
    for name in ("one", "two", "three"):
        office.decide(name=name)
    await wait_all_tasks_blocked()
    assert office.commits == [[1, 2, 3]]
    assert office.told == ["one", "two", "three"]


async def test_what_is_decided_while_a_commit_is_under_way_goes_with_the_next(office: Office) -> None:
    with office.store.held("commit"):
        office.decide(name="one")
        await wait_all_tasks_blocked()
        for name in ("two", "three"):
            office.decide(name=name)
            await wait_all_tasks_blocked()
        assert office.commits == [[1]]
    await wait_all_tasks_blocked()
    assert office.commits == [[1], [2, 3]]
    assert office.numbers == [1, 2]
    assert office.told == ["one", "two", "three"]


async def test_commits_go_on_from_the_number_that_the_store_has() -> None:
    disk = MemoryDisk()
    for first in (1, 3):
        office = await opened(HeldStore(disk))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(office.ledger.run)
            office.decide()
            await wait_all_tasks_blocked()
            office.decide()
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert office.numbers == [first, first + 1]


async def test_a_unit_without_changes_costs_no_commit_and_waits_for_those_before_it(office: Office) -> None:
    office.decide(name="nothing", changes=0)
    await wait_all_tasks_blocked()
    assert (office.told, office.commits) == (["nothing"], [])
    with office.store.held("commit"):
        office.decide(name="something")
        await wait_all_tasks_blocked()
        office.decide(name="nothing again", changes=0)
        await wait_all_tasks_blocked()
        assert office.told == ["nothing"]
    await wait_all_tasks_blocked()
    assert office.told == ["nothing", "something", "nothing again"]
    assert office.numbers == [1]


async def test_commits_are_counted_with_what_the_store_ignored() -> None:
    async with living() as world:
        before = world.tally.read("commits"), world.tally.read("committed_changes")
        phone = await world.phone()
        phone.mark(MsgId(999))
        await world.told()
        assert world.tally.read("ignored", "store") == 1
        assert world.tally.read("commits") == before[0] + 2
        assert world.tally.read("committed_changes") == before[1] + 3  # registered, seen, marked


# --- Order -----------------------------------------------------------------------------------------------------------


async def test_units_of_one_app_become_durable_in_the_order_in_which_they_were_decided(office: Office) -> None:
    first = office.open(name="first")
    office.decide(name="second")
    await wait_all_tasks_blocked()
    assert (office.told, office.commits) == ([], [])
    first.close()
    await wait_all_tasks_blocked()
    assert office.told == ["first", "second"]
    assert office.commits == [[1, 2]]


async def test_an_incomplete_unit_of_one_app_does_not_hold_up_another(office: Office) -> None:
    incomplete = office.open(ONE, name="incomplete")
    office.decide(ONE, name="behind it")
    office.decide(TWO, name="of another app")
    await wait_all_tasks_blocked()
    assert office.told == ["of another app"]
    incomplete.close()
    await wait_all_tasks_blocked()
    assert office.told == ["of another app", "incomplete", "behind it"]


async def test_a_unit_that_is_completed_during_a_commit_goes_with_the_next(office: Office) -> None:
    incomplete = office.open(name="incomplete")
    with office.store.held("commit"):
        office.decide(TWO, name="two")
        await wait_all_tasks_blocked()
        incomplete.close()
        await wait_all_tasks_blocked()
    await wait_all_tasks_blocked()
    assert office.told == ["two", "incomplete"]
    assert len(office.commits) == 2


async def test_a_large_push_of_one_app_does_not_hold_up_the_others(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C24: each app that has something to write has an equal part of a commit."""
    monkeypatch.setattr(ledger_module, "ROWS_PER_COMMIT", 10)
    for app_no, name in ((ONE, "large"), (TWO, "small")):
        for _ in range(20 if app_no is ONE else 3):
            office.decide(app_no, name=name)
    with office.store.held("commit"):
        await wait_all_tasks_blocked()
        assert office.commits == [[1, 2, 3, 4, 5, 21, 22, 23]]
    await wait_all_tasks_blocked()
    assert office.told[:8] == ["large"] * 5 + ["small"] * 3
    assert office.told[8:] == ["large"] * 15
    assert [len(changes) for changes in office.commits] == [8, 10, 5]


async def test_what_is_told_finds_everything_of_its_commit_durable(office: Office) -> None:
    seen: list[tuple[int, int]] = []
    one, two = office.ledger.book(ONE), office.ledger.book(TWO)
    first, second = office.open(ONE), office.open(TWO)
    first.then.append(lambda: seen.append((one.durable, two.durable)))
    first.close()
    second.close()
    await wait_all_tasks_blocked()
    assert seen == [(1, 1)]


async def test_whoever_is_told_may_decide_more(office: Office) -> None:
    unit = office.open(name="one")
    unit.then.append(lambda: _ignore(office.decide(name="two")))
    unit.close()
    await wait_all_tasks_blocked()
    assert office.told == ["one", "two"]
    assert office.commits == [[1], [2]]


async def test_one_listeners_fault_is_not_the_others(office: Office) -> None:
    unit = office.open(name="before")

    def fail() -> None:
        raise ZeroDivisionError

    unit.then += [fail, lambda: office.told.append("after")]
    unit.close()
    office.decide(name="next")
    await wait_all_tasks_blocked()
    assert office.told == ["before", "after", "next"]
    assert office.tally.read("faults", "telling") == 1


async def test_telling_an_actor_that_has_crashed_is_no_fault_of_the_ledger(office: Office) -> None:
    unit = office.open()

    def crash() -> None:
        raise ActorCrashed("gone")

    unit.then += [crash, lambda: office.told.append("after")]
    unit.close()
    await wait_all_tasks_blocked()
    assert office.told == ["after"]
    assert list(office.tally) == [("commits", "", 1), ("committed_changes", "", 1), ("ignored", "store", 0)]


# --- A disk that does not answer -------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_lost", [False, True], ids=["it did not act", "its answer was lost"])
async def test_a_commit_that_was_not_answered_is_asked_for_again_under_its_number(
    office: Office, is_lost: bool
) -> None:
    office.store.trouble("commit", StoreBusy("one"), StoreBusy("two"), answer=is_lost)
    office.decide(name="one", changes=2)
    await wait_all_tasks_blocked()
    office.decide(name="two")
    assert office.told == []
    await trio.sleep(1)
    assert office.told == ["one", "two"]
    assert office.numbers == [1, 1, 1, 2]
    assert office.commits == [[1, 2], [1, 2], [1, 2], [3]]
    assert office.store._shared.last_commit == 2


async def test_when_the_store_gives_up_so_does_the_ledger() -> None:
    office = await opened()
    office.store.trouble("commit", *[StoreBusy("no")] * 1000)
    office.decide(name="one")
    begun = trio.current_time()
    with pytest.raises(StoreBusy):
        await office.ledger.run()
    assert PATIENCE_S - 1 <= trio.current_time() - begun <= PATIENCE_S
    assert office.told == []
    assert set(office.numbers) == {1}


async def test_a_store_that_was_taken_over_ends_the_ledger_at_once_and_nobody_is_told() -> None:
    """C2: this process must tell nobody anything any more."""
    office = await opened()
    await MemoryStore(office.store._shared).open()
    office.decide(name="one")
    with trio.fail_after(1), pytest.raises(StoreFenced):
        await office.ledger.run()
    assert office.told == []


async def test_a_ledger_that_is_started_again_goes_on_with_the_commit_that_it_was_in() -> None:
    office = await opened()
    office.store.trouble("commit", ZeroDivisionError())
    office.decide(name="one")
    with pytest.raises(ZeroDivisionError):
        await office.ledger.run()
    office.decide(name="two")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(office.ledger.run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert office.told == ["one", "two"]
    assert office.numbers == [1, 1, 2]
    assert office.commits == [[1], [1], [2]]


# --- Room ------------------------------------------------------------------------------------------------------------


async def test_there_is_room_until_too_much_is_decided_ahead_of_the_disk(
    office: Office, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    """C24: memory is bounded; the edges stop reading."""
    monkeypatch.setattr(unit_module, "ROWS_DECIDED_AHEAD", 10)
    entered: list[str] = []

    async def enter(name: str) -> None:
        await office.ledger.book(ONE).room()
        entered.append(name)

    with office.store.held("commit"):
        office.decide(changes=10)
        await wait_all_tasks_blocked()
        await enter("early")
        unit = office.open(changes=0)
        unit.rows = 1
        await enter("before it is complete")
        unit.close()
        nursery.start_soon(enter, "late")
        await wait_all_tasks_blocked()
        assert entered == ["early", "before it is complete"]
    await wait_all_tasks_blocked()
    assert entered[2:] == ["late"]
    await enter("afterwards")


async def test_room_is_made_by_what_leaves_and_not_by_what_is_taken(
    office: Office, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    monkeypatch.setattr(unit_module, "ROWS_DECIDED_AHEAD", 10)
    entered: list[str] = []

    async def enter() -> None:
        await office.ledger.book(ONE).room()
        entered.append("in")

    with office.store.held("commit"):
        office.decide(changes=8)
        await wait_all_tasks_blocked()
        office.decide(changes=8)
        nursery.start_soon(enter)
        await wait_all_tasks_blocked()
        assert entered == []
    await wait_all_tasks_blocked()
    assert entered == ["in"]


# --- Reading ---------------------------------------------------------------------------------------------------------


async def test_a_question_sees_everything_decided_before_it(office: Office, nursery: trio.Nursery) -> None:
    """C1, C18: exact, at once."""
    answers: list[int] = []

    async def ask() -> int:
        return office.store._shared.ids_below

    async def read() -> None:
        answer, _ = await office.ledger.read(office.ledger.book(ONE), [], ask)
        answers.append(answer)

    with office.store.held("commit"):
        office.decide(changes=5)
        await wait_all_tasks_blocked()
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        assert answers == []
    await wait_all_tasks_blocked()
    assert answers == [5]
    await read()
    assert answers == [5, 5]


async def test_a_question_waits_for_its_own_app_only(office: Office) -> None:
    office.open(TWO)

    async def ask() -> str:
        return "answer"

    with trio.fail_after(1):
        assert await office.ledger.read(office.ledger.book(ONE), [], ask) == ("answer", [])


async def test_beside_the_answer_stands_what_was_on_the_wire_at_that_instant(office: Office) -> None:
    """C1: what goes on the wire while the store is asked is not counted."""
    office.wire.on(MsgId(1), DeviceNo(1))
    office.wire.on(MsgId(1), DeviceNo(2))

    async def ask() -> str:
        office.wire.on(MsgId(1), DeviceNo(3))
        office.wire.on(MsgId(2), DeviceNo(3))
        return "answer"

    read = await office.ledger.read(office.ledger.book(ONE), [MsgId(1), MsgId(2)], ask)
    assert read == ("answer", [2, 0])


async def test_no_commit_is_under_way_while_a_question_is_asked(office: Office, nursery: trio.Nursery) -> None:
    answered = trio.Event()
    results: list[object] = []

    async def ask() -> str:
        await answered.wait()
        return "answer"

    async def read() -> None:
        results.append(await office.ledger.read(office.ledger.book(ONE), [], ask))

    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    office.decide(name="one")
    await wait_all_tasks_blocked()
    assert (office.commits, office.told) == ([], [])
    answered.set()
    await wait_all_tasks_blocked()
    assert results == [("answer", [])]
    assert office.told == ["one"]


async def test_what_is_settled_is_on_the_wire_until_that_is_durable(office: Office) -> None:
    """C1"""
    office.wire.on(MsgId(7), DeviceNo(1))
    unit = office.open()
    unit.off_the_wire.append((MsgId(7), DeviceNo(1)))
    with office.store.held("commit"):
        unit.close()
        await wait_all_tasks_blocked()
        assert office.wire.of(MsgId(7)) == 1
    await wait_all_tasks_blocked()
    assert office.wire.of(MsgId(7)) == 0


async def test_the_questions_of_one_app_hold_up_neither_anothers_nor_the_commits(
    office: Office, nursery: trio.Nursery
) -> None:
    """C24: one of each app in turn, and after a while what was decided meanwhile comes first."""
    story: list[str] = []

    async def read(app_no: AppNo, name: str) -> None:
        async def ask() -> None:
            await trio.sleep(ledger_module.READING_S)
            story.append(name)

        await office.ledger.read(office.ledger.book(app_no), [], ask)

    with office.store.held("commit"):
        office.decide(THREE)
        await wait_all_tasks_blocked()
        for number in range(4):
            nursery.start_soon(read, ONE, f"one {number}")
            await wait_all_tasks_blocked()
        nursery.start_soon(read, TWO, "two")
        unit = office.open(THREE)
        unit.then.append(lambda: story.append("decided meanwhile"))
        unit.close()
        await wait_all_tasks_blocked()
    await trio.sleep(1)
    assert story.index("decided meanwhile") <= 1
    assert story.index("two") < story.index("one 1")
    assert [each for each in story if each.startswith("one")] == [f"one {number}" for number in range(4)]


async def test_a_question_that_the_store_does_not_answer_is_asked_again(office: Office) -> None:
    troubles: list[Exception] = [StoreBusy("one"), StoreBusy("two")]

    async def ask() -> str:
        if troubles:
            raise troubles.pop()
        return "answer"

    assert await office.ledger.read(office.ledger.book(ONE), [], ask) == ("answer", [])


async def test_a_question_that_is_never_answered_fails_and_the_ledger_goes_on(office: Office) -> None:
    async def ask() -> str:
        raise StoreBusy("no")

    with pytest.raises(StoreBusy):
        await office.ledger.read(office.ledger.book(ONE), [], ask)
    office.decide(name="one")
    await wait_all_tasks_blocked()
    assert office.told == ["one"]


async def test_a_question_that_fails_fails_whoever_asked_it_and_nobody_else(
    office: Office, nursery: trio.Nursery
) -> None:
    """C24: `status` looks into device actors, and one may crash over it; a question put to it still gets an answer."""
    answers: list[str] = []

    async def ask_a_device_that_crashes() -> str:
        raise ActorCrashed("over a question")

    async def ask() -> str:
        return "answered"

    async def read(name: str, asking: Callable[[], Awaitable[str]]) -> None:
        try:
            answer, _ = await office.ledger.read(office.ledger.book(ONE), [], asking)
        except ActorCrashed:
            answer = "crashed"
        answers.append(f"{name} {answer}")

    with office.store.held("commit"):
        office.decide(name="one")
        await wait_all_tasks_blocked()
        nursery.start_soon(read, "first", ask_a_device_that_crashes)
        nursery.start_soon(read, "second", ask)
        await wait_all_tasks_blocked()
    office.decide(name="two")
    await wait_all_tasks_blocked()
    assert sorted(answers) == ["first crashed", "second answered"]
    assert office.told == ["one", "two"]


async def test_a_question_to_a_store_that_was_taken_over_ends_the_ledger() -> None:
    """C2: only the store's own failure is everybody's; whoever asked is told, too."""
    office = await opened()
    await MemoryStore(office.store._shared).open()
    told: list[str] = []

    async def read() -> None:
        try:
            await office.ledger.read(office.ledger.book(ONE), [], lambda: office.store.reports(ONE, []))
        except StoreFenced:
            told.append("fenced")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        with trio.fail_after(1), pytest.raises(StoreFenced):
            await office.ledger.run()
    assert told == ["fenced"]


# --- Sums in a server ------------------------------------------------------------------------------------------------


async def test_the_sums_are_exact_at_every_step_of_a_delivery() -> None:
    """C1"""
    store = HeldStore()
    async with living(store=store) as world:
        one, two = await world.phone(ALICE), await world.absent_phone(BOB)
        msg_id = await world.push(one, two)
        assert await world.report(msg_id) == (2, 1, 1, {}, {})
        one.acknowledge(msg_id)
        assert await world.report(msg_id) == (2, 1, 0, {"received": 1}, {})
        await two.connect()
        await wait_all_tasks_blocked()
        assert two.visit.log == [Handed(msg_id, None)]
        assert await world.report(msg_id) == (2, 0, 1, {"received": 1}, {})
        two.leave()
        assert await world.report(msg_id) == (2, 1, 0, {"received": 1}, {})
        two.mark(msg_id)
        assert await world.report(msg_id) == (2, 0, 0, {"received": 2}, {"opened": 1})


async def test_a_report_of_the_moment_of_an_acknowledgement_waits_for_its_verdict() -> None:
    """C1, C2: what is decided is reported when it is durable, and until then it is what it was."""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone()
        msg_id = await world.push(phone)
        with store.held("commit"):
            phone.acknowledge(msg_id)
            await wait_all_tasks_blocked()
            assert world.wire.of(msg_id) == 1
            assert store._shared.pushes[msg_id].unsettled
        assert await world.report(msg_id) == (1, 0, 0, {"received": 1}, {})


def test_books_are_kept_by_app() -> None:
    ledger = Ledger(MemoryStore(), 0, WireCount(), lambda: Millis(1), Tally())
    assert isinstance(ledger.book(ONE), Book)
    assert ledger.book(ONE) is ledger.book(ONE)
    assert ledger.book(ONE) is not ledger.book(THREE)

"""Message ids: increasing, unique in the whole server, and never given twice, whatever happens to the process."""

from __future__ import annotations

import pytest
from trio.testing import wait_all_tasks_blocked

from pushactors.actors import numbers as numbers_module
from pushactors.actors.numbers import Numbers
from pushactors.actors.unit import Book
from pushactors.errors import Busy
from pushactors.stores.contract import Change, IdsReserved
from pushactors.wire.ids import AppKey, MsgId
from tests.actors.world import HeldStore, MemoryDisk, Phone, World, living, push


class Clockwork:
    """Numbers, and a disk that writes when it is told to."""

    def __init__(self, ids_below: int = 1) -> None:
        self.book = Book(lambda rows: None)
        self.numbers = Numbers(MsgId(ids_below), self.book)
        self.written: list[Change] = []

    def write(self) -> None:
        for unit in self.book.take(1000):
            self.book.advance(unit)
            self.written += unit.changes
            for told in unit.then:
                told()

    def take(self, count: int) -> list[int]:
        return [self.numbers.take() for _ in range(count)]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers_module, "BLOCK", 10)


async def started(ids_below: int = 1) -> Clockwork:
    """Numbers whose first block is on disk."""
    clockwork = Clockwork(ids_below)
    clockwork.numbers._ask()
    clockwork.write()
    return clockwork


def test_nothing_is_numbered_before_the_first_block_is_on_disk(small_blocks: None) -> None:
    clockwork = Clockwork()
    with pytest.raises(Busy):
        clockwork.numbers.take()
    clockwork.numbers._ask()
    with pytest.raises(Busy):
        clockwork.numbers.take()
    clockwork.write()
    assert clockwork.take(2) == [1, 2]


async def test_reserving_the_first_block_returns_when_it_is_on_disk() -> None:
    store = HeldStore()
    async with living(store=store) as world:
        numbers = Numbers(MsgId(5_000_000), world.ledger.book(world.app.tenant.app_no))
        returned: list[int] = []

        async def reserve() -> None:
            await numbers.reserve()
            returned.append(numbers.take())

        with store.held("commit"):
            world.nursery.start_soon(reserve)
            await wait_all_tasks_blocked()
            assert returned == []
        await wait_all_tasks_blocked()
        assert returned == [5_000_000]
        assert store.commits[-1][1] == (IdsReserved(MsgId(6_000_000)),)


async def test_ids_increase_without_a_gap_from_the_first_fresh_one_on(small_blocks: None) -> None:
    clockwork = await started(ids_below=41)
    taken = []
    for _ in range(35):
        taken += clockwork.take(1)
        clockwork.write()
    assert taken == list(range(41, 76))


async def test_the_next_block_is_asked_for_when_half_of_this_one_is_left(small_blocks: None) -> None:
    clockwork = await started()
    clockwork.take(4)
    assert not clockwork.book.has_complete()
    clockwork.take(1)
    assert clockwork.book.has_complete()
    clockwork.write()
    assert clockwork.written == [IdsReserved(MsgId(11)), IdsReserved(MsgId(21))]


async def test_while_the_disk_is_slow_a_push_is_refused_rather_than_numbered(small_blocks: None) -> None:
    clockwork = await started()
    assert clockwork.take(10) == list(range(1, 11))
    for _ in range(3):
        with pytest.raises(Busy):
            clockwork.numbers.take()
    clockwork.write()
    assert clockwork.take(10) == list(range(11, 21))


async def test_being_refused_asks_the_disk_for_no_more(small_blocks: None) -> None:
    clockwork = await started()
    clockwork.take(10)
    for _ in range(100):
        with pytest.raises(Busy):
            clockwork.numbers.take()
    clockwork.write()
    assert clockwork.written == [IdsReserved(MsgId(11)), IdsReserved(MsgId(21))]


@pytest.mark.parametrize("told", [0, 1, 4, 5, 6, 9, 10, 17])
async def test_after_a_restart_no_id_is_given_again_however_many_were_told(small_blocks: None, told: int) -> None:
    disk: list[Change] = []
    given: list[int] = []
    for _ in range(4):
        below = max([1, *(change.below for change in disk if isinstance(change, IdsReserved))])
        clockwork = await started(below)
        for _ in range(told):
            given += clockwork.take(1)
            if clockwork.numbers._reserved - clockwork.numbers._next < 2:
                clockwork.write()
        disk += clockwork.written  # what was not written is gone
    assert given == sorted(set(given))


# --- In a server -----------------------------------------------------------------------------------------------------


async def test_an_id_that_was_told_without_the_disk_is_not_given_again() -> None:
    """C5: an answer to a push that may not wait does not wait for the disk either."""
    disk = MemoryDisk()
    store = HeldStore(disk)
    async with living(store=store) as world:
        phone = await world.phone()
        with store.held("commit"):
            flown = [await world.push(phone, ttl=0) for _ in range(3)]
            assert flown == sorted(set(flown))
            await world.kill()
    assert not set(flown) & set(disk.pushes)
    async with living(disk) as world:
        phone.move(world)
        await phone.connect()
        after = await world.push(phone)
    assert after > max(flown)


async def test_ids_are_unique_in_the_whole_server() -> None:
    keys = (AppKey("one"), AppKey("two"))
    async with living(app_keys=keys) as world:
        phones = [Phone(world, world.apps[key]) for key in keys]
        for phone in phones:
            await phone.connect()
        taken = [await world.push(phone, rooms=phone.rooms) for phone in phones * 3]
    assert taken == sorted(set(taken))


async def test_a_push_that_cannot_be_numbered_is_refused_and_leaves_nothing_behind(small_blocks: None) -> None:
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone()
        with store.held("commit"):
            flown = [await world.push(phone, ttl=0) for _ in range(10)]
            with pytest.raises(Busy):
                await world.app.fanout.accept(push(phone, ttl=0))
            with pytest.raises(Busy):
                await world.app.fanout.accept(push(phone, cid="order-42"))
        assert phone.handed == flown
        await wait_all_tasks_blocked()
        assert await world.push(phone, cid="order-42") == flown[-1] + 1


async def test_the_world_starts_where_the_last_run_ended(world: World) -> None:
    phone = await world.phone()
    first = await world.push(phone)
    disk = world.disk
    await world.kill()
    assert disk.ids_below == first + numbers_module.BLOCK

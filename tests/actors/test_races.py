"""What comes between two steps of something else: pushes in slices, recalls, deletions, faults, the way to the disk."""

from __future__ import annotations

import types
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pushactors.actors import fanout as fanout_module
from pushactors.actors.mailbox import MailboxActor
from pushactors.actors.sendings import Sendings
from pushactors.errors import ActorCrashed
from pushactors.stores.contract import Change, DeviceDeleted
from pushactors.wire.ids import Alias, AppKey
from tests.actors.world import ALICE, APP, BOB, HeldStore, MemoryDisk, Phone, faulty, held, living, push


class Slices:
    """A push pauses after each slice, which is one target, until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paused, self.go_on = trio.Event(), trio.Event()

        async def checkpoint() -> None:
            self.paused.set()
            await self.go_on.wait()

        shim = types.SimpleNamespace(**{name: getattr(trio, name) for name in dir(trio) if not name.startswith("_")})
        shim.lowlevel = types.SimpleNamespace(checkpoint=checkpoint)
        monkeypatch.setattr(fanout_module, "trio", shim)
        monkeypatch.setattr(fanout_module, "SLICE", 1)


async def test_a_deadline_in_a_busy_app_holds_up_nobody_elses_expiry(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C5, C21, C24"""
    two = AppKey("two")
    async with living(app_keys=[APP, two], with_upkeep=True) as world:
        x, y = await world.phone(), await world.phone()
        late = await world.absent_phone(ALICE)
        theirs = Phone(world, world.apps[two])
        await theirs.connect()
        theirs.leave()
        await world.told(theirs.rooms)
        await world.accept(replace(push(late), deliver_within_s=2))
        msg_id = await world.push(theirs, rooms=theirs.rooms, ttl=3)
        slices = Slices(monkeypatch)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.push, x, y)
            await trio.sleep(5)
            state = await theirs.state(msg_id)
            slices.go_on.set()
        assert state == "expired"


@pytest.mark.parametrize("what", ["acknowledge", "mark"])
async def test_a_fault_in_the_middle_of_booking_does_not_hold_up_the_app(autojump_clock: MockClock, what: str) -> None:
    """A unit that nobody closes would."""
    async with living(may_crash=True) as world:
        phone, other = await world.phone(ALICE), await world.phone(BOB)
        msg_id = await world.push(phone)
        with faulty(Sendings, "take"), pytest.raises(ActorCrashed):
            getattr(phone, what)(msg_id)
        with trio.fail_after(60):
            await world.push(other)
        assert (await world.report(msg_id)).adds_up()


async def test_a_fault_while_an_actor_is_restored_does_not_hold_up_the_app(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    async with living(disk) as world:
        phone, other = await world.phone(ALICE), await world.phone()
        await world.push(phone, ttl=5)
    async with living(disk, may_crash=True) as world:
        phone.move(world)
        other.move(world)
        await world.pass_time(10)

        async def connect() -> None:
            with pytest.raises(ActorCrashed):
                await phone.connect()

        with faulty(MailboxActor, "_sending_of"):
            world.nursery.start_soon(connect)
            await wait_all_tasks_blocked()
        with trio.fail_after(60):
            await other.connect()
        assert other.visit.ending is None


async def test_what_a_deleted_device_gives_back_is_not_lost_between_two_commits(autojump_clock: MockClock) -> None:
    """C1, C2, C25: the mailbox of the alias was loaded for it, and something there ran out."""
    disk = MemoryDisk()
    store = HeldStore(disk)
    async with living(store=store) as world:
        phone = await world.phone(ALICE)
        msg_id = await held(world, ALICE, ttl=100)
        short = await held(world, ALICE, ttl=5)
        phone.decline(short)
        await world.told()
        phone.leave()
        await world.told()
        world.retire()
        await world.pass_time(10)
        await world.app.router.bring_to_rest(lambda: [world.app.router.find(phone.registration_id)])
        commit = store.commit

        async def until_the_deletion(number: int, changes: list[Change]) -> int:
            ignored = await commit(number, changes)
            if any(isinstance(change, DeviceDeleted) for change in changes):
                await trio.sleep_forever()  # the process is killed here
            return ignored

        store.commit = until_the_deletion  # type: ignore[method-assign,assignment]
        large = world.app.tenant.book.open()
        large.rows = 4_999  # a large push, decided just before, fills the commit
        world.nursery.start_soon(world.delete, phone)
        await wait_all_tasks_blocked()
        large.close()
        await wait_all_tasks_blocked()
    async with living(disk, with_upkeep=True) as world:
        await world.pass_time(300)
        await trio.sleep(5)
        assert await world.report(msg_id) == (1, 0, 0, {"expired": 1}, {})


async def test_a_recall_during_a_large_push_does_not_take_the_judgement_from_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C3, C7: what the recall decides of devices that are not here is decided between two pushes."""
    async with living() as world:
        first, absent = await world.phone(), await world.absent_phone()
        old, other = await world.push(first, absent), await world.push(absent)
        world.retire()
        slices = Slices(monkeypatch)
        is_asking, may_go_on, unsettled = trio.Event(), trio.Event(), world.store.unsettled

        async def slow(*about: object) -> object:
            found = await unsettled(*about)  # type: ignore[arg-type]
            is_asking.set()
            await may_go_on.wait()
            return found

        monkeypatch.setattr(world.store, "unsettled", slow)

        async def replace_it() -> None:
            await world.push(first, absent, overrides=old)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.app.recalls.recall, other)
            await is_asking.wait()
            nursery.start_soon(replace_it)
            await slices.paused.wait()
            may_go_on.set()
            await wait_all_tasks_blocked()
            slices.go_on.set()
        await world.told()
        assert await absent.state(old) == "replaced"
        assert await absent.state(other) == "recalled"


async def test_who_leaves_in_the_middle_of_the_push_that_replaces_it_is_told_of_its_recall(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C22: it was sent it, and may have shown it."""
    async with living() as world:
        first, phone = await world.phone(), await world.phone()
        msg_id = await world.push(phone)
        slices = Slices(monkeypatch)

        async def replace_it() -> None:
            await world.push(first, phone, overrides=msg_id)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(replace_it)
            await slices.paused.wait()
            phone.leave()
            slices.go_on.set()
        assert await phone.state(msg_id) == "replaced"
        await world.app.recalls.recall(msg_id)
        await phone.connect()
        assert phone.visit.recalls == [msg_id]


async def test_a_recall_ends_where_memory_and_disk_say_different_things(autojump_clock: MockClock) -> None:
    """C22: an actor that does not have what the store has is rebuilt from it."""
    async with living(may_crash=True) as world:
        one, two = await world.phone(ALICE), await world.phone(ALICE)
        one.visit.room = two.visit.room = 0
        msg_id = await held(world, ALICE)
        third = await world.phone(ALICE)
        short = await held(world, ALICE, ttl=1)
        third.decline(short)
        await world.told()
        await world.delete(third)
        with faulty(MailboxActor, "_readmit"):
            await world.delete_alias(ALICE)
        await world.told()
        await wait_all_tasks_blocked()
        with trio.fail_after(60):
            split = await world.app.recalls.recall(msg_id)
        assert sum(split) == 2
        report = await world.report(msg_id)
        assert (report.adds_up(), report.waiting) == (True, 0)


async def test_removed_mailboxes_of_aliases_leave_nothing_behind(autojump_clock: MockClock) -> None:
    """C24"""
    async with living() as world:
        for number in range(20):
            phone = await world.phone()
            await held(world, Alias(f"u{number}"))
            await phone.set_alias(Alias(f"u{number}"))
            phone.acknowledge(phone.handed[0])
            await world.told()
            await world.app.held.remove_empty(1000)
            await world.told()
        kept = world.app.held
        assert (len(kept), kept._wanted_in) == (0, {})

"""Taking a push back: the exact split, and who is told of it for how long."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pushactors.actors import fanout as fanout_module
from pushactors.actors import recall as recall_module
from pushactors.actors.recall import TOLD_DAYS, Split
from pushactors.domain.message import Mark
from pushactors.errors import ActorCrashed, NoSuchMessage
from pushactors.wire.ids import AppKey, MsgId
from tests.actors.world import (
    ALICE,
    APP,
    BOB,
    DAY_S,
    HeldStore,
    MemoryDisk,
    Phone,
    World,
    held,
    living,
    plant,
    stream,
    words,
)


async def recall(world: World, msg_id: MsgId) -> Split:
    return await world.app.recalls.recall(msg_id)


async def settle(world: World) -> None:
    await world.told()
    await wait_all_tasks_blocked()


# --- The split -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 2, 1000])
async def test_the_four_add_up_to_the_targets(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """C22, C1: what waits with an actor and without, is on the wire, received, and settled otherwise."""
    monkeypatch.setattr(recall_module, "AT_ONCE", at_once)
    async with living() as world:
        away, gone = await world.absent_phone(), await world.absent_phone()
        on_the_wire, received = await world.phone(), await world.phone()
        waits, deleted = await world.phone(), await world.absent_phone()
        waits.visit.room = 0
        msg_id = await world.push()
        received.acknowledge(msg_id)
        await world.delete(deleted)
        await settle(world)
        world.retire()
        assert world.devices.find(away.device_no) is None
        split = await recall(world, msg_id)
        assert split == Split(recalled=3, on_the_way=1, received=1, settled=1)
        assert await world.report(msg_id) == (6, 0, 1, {"received": 1, "missed": 1, "recalled": 3}, {})
        waits.take()
        for phone in (away, gone):
            await phone.connect()
        await settle(world)
        assert [phone.handed for phone in (away, gone, waits)] == [[], [], []]
        on_the_wire.leave()
        await on_the_wire.connect()
        await settle(world)
        assert on_the_wire.handed == []
        assert (await words(world, msg_id)).count("recalled") == 4


async def test_a_second_recall_recalls_nothing_more(world: World) -> None:
    """C22: what an earlier recall settled is settled."""
    phone, other = await world.phone(), await world.absent_phone()
    msg_id = await world.push(phone, other)
    assert await recall(world, msg_id) == Split(1, 1, 0, 0)
    assert await recall(world, msg_id) == Split(0, 1, 0, 1)
    phone.leave()
    assert await recall(world, msg_id) == Split(0, 0, 0, 2)
    assert await words(world, msg_id) == ["recalled"] * 2


async def test_two_recalls_at_once_are_answered_one_after_the_other(world: World) -> None:
    """C22"""
    await world.absent_phone()
    msg_id = await world.push()
    splits: list[Split] = []

    async def ask() -> None:
        splits.append(await recall(world, msg_id))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
    assert splits == [Split(1, 0, 0, 0), Split(0, 0, 0, 1)]


async def test_what_is_acknowledged_after_it_was_struck_is_received(world: World) -> None:
    """C3, C22: the verdict follows as a receipt."""
    phone = await world.phone()
    msg_id = await world.push(phone)
    assert await recall(world, msg_id) == Split(0, 1, 0, 0)
    phone.acknowledge(msg_id)
    assert await words(world, msg_id) == ["received"]


async def test_nobody_recalls_what_is_not_there_or_another_apps() -> None:
    """C22"""
    async with living(app_keys=(APP, AppKey("other"))) as world:
        phone = await world.absent_phone()
        msg_id = await world.push(phone)
        with pytest.raises(NoSuchMessage):
            await recall(world, MsgId(999))
        with pytest.raises(NoSuchMessage):
            await world.apps[AppKey("other")].recalls.recall(msg_id)
        assert await phone.state(msg_id) == "waiting"


async def test_the_answer_is_durable() -> None:
    """C2, C22"""
    store = HeldStore()
    async with living(store=store) as world:
        phone, other = await world.phone(), await world.absent_phone()
        msg_id = await world.push(phone, other)
        answers: list[Split] = []

        async def ask() -> None:
            answers.append(await recall(world, msg_id))

        with store.held("commit"):
            world.nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            assert not answers
            assert phone.visit.recalls == []
        await settle(world)
        assert answers == [Split(1, 1, 0, 0)]
        assert phone.visit.recalls == [msg_id]


async def test_a_device_that_is_being_loaded_is_recalled_all_the_same(world: World) -> None:
    """C22"""
    phone = await world.absent_phone()
    msg_id = await world.push(phone)
    world.retire()
    world.devices.get(phone.device_no, world.app.tenant)
    assert await recall(world, msg_id) == Split(1, 0, 0, 0)
    await phone.connect()
    await settle(world)
    assert phone.handed == []


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("is_present", [False, True])
async def test_a_device_that_crashes_over_a_recall_is_recalled_all_the_same(is_present: bool, is_late: bool) -> None:
    """C22: nothing recalled is sent after the answer."""
    async with living(may_crash=True) as world:
        phone = await world.phone() if is_present else await world.absent_phone(is_retired=False)
        msg_id = await world.push(phone)
        plant(phone.actor, "recall", is_late=is_late)
        split = await recall(world, msg_id)
        assert sum(split) == 1
        assert world.tally.read("actor_crashes") == 1
        await settle(world)
        await phone.connect()
        await settle(world)
        assert phone.handed == []
        assert await world.report(msg_id) == (1, 0, 0, {"recalled": 1}, {})
        # It may have it, if it was there.
        assert phone.visit.recalls == ([msg_id] if is_present else [])


async def test_a_device_that_crashes_over_a_notice_is_told_of_it_by_its_next_actor() -> None:
    """C22"""
    async with living(may_crash=True) as world:
        phone = await world.phone()
        msg_id = await world.push(phone)
        phone.acknowledge(msg_id)
        plant(phone.actor, "arrive")
        with pytest.raises(ActorCrashed):
            await phone.arrive()
        assert await recall(world, msg_id) == Split(0, 0, 1, 0)
        await settle(world)
        await phone.connect()
        await settle(world)
        assert phone.visit.recalls == [msg_id]


async def test_a_device_that_comes_while_its_recall_is_on_its_way_to_the_disk_is_not_sent_it() -> None:
    """C22: its actor begins behind what was decided without it."""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.absent_phone()
        msg_id = await world.push(phone)
        world.retire()
        with store.held("commit"):
            world.nursery.start_soon(recall, world, msg_id)
            await wait_all_tasks_blocked()
            world.nursery.start_soon(phone.connect)
            await wait_all_tasks_blocked()
        await settle(world)
        assert phone.handed == []
        assert await world.report(msg_id) == (1, 0, 0, {"recalled": 1}, {})


# --- What is held ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_retired", [False, True])
async def test_what_waits_for_an_alias_is_recalled(is_retired: bool, world: World) -> None:
    """C22, C25"""
    msg_id = await held(world, ALICE, BOB)
    if is_retired:
        world.retire()
    assert await recall(world, msg_id) == Split(2, 0, 0, 0)
    phone = await world.phone(ALICE)
    await settle(world)
    assert phone.handed == []
    assert [(row.registration_id, row.alias) for row in await stream(world)] == [(None, ALICE), (None, BOB)]


async def test_what_is_recalled_on_the_wire_does_not_come_back_to_its_alias(world: World) -> None:
    """C22, C25: struck otherwise, it gets that verdict; the fence that falls afterwards changes nothing."""
    phone = await world.phone(ALICE)
    msg_id = await held(world, ALICE)
    assert await recall(world, msg_id) == Split(0, 1, 0, 0)
    await phone.set_alias(BOB)
    phone.leave()
    await settle(world)
    assert await world.report(msg_id) == (1, 0, 0, {"recalled": 1}, {})


@pytest.mark.parametrize("how", ["left", "declined", "deleted", "crashed", "killed"])
async def test_what_the_fence_has_struck_and_is_then_recalled_is_never_sent_again(how: str) -> None:
    """C22, C25: the fence only lets it wait on. Nothing recalled is sent after the answer."""
    disk = MemoryDisk()
    async with living(disk, may_crash=True) as world:
        phone = await world.phone(ALICE)
        msg_id = await held(world, ALICE)
        await phone.set_alias(BOB)
        assert await recall(world, msg_id) == Split(0, 1, 0, 0)
        if how == "left":
            phone.leave()
        elif how == "declined":
            phone.decline(msg_id)
        elif how == "deleted":
            await world.delete(phone)
        elif how == "crashed":
            plant(phone.actor, "mark")
            with pytest.raises(ActorCrashed):
                phone.mark(msg_id)
        await settle(world)
    async with living(disk) as world:
        await settle(world)
        other = await world.phone(ALICE)
        await settle(world)
        assert other.handed == []
        assert await world.report(msg_id) == (1, 0, 0, {"recalled": 1}, {})
        assert await words(world, msg_id) == ["recalled"]


async def test_what_moves_while_it_is_recalled_is_recalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """C22, C25: bound, declined and bound again at every checkpoint in between."""
    monkeypatch.setattr(recall_module, "AT_ONCE", 1)
    for turns in range(60):
        store = HeldStore()
        async with living(store=store) as world:
            phones = [await world.phone() for _ in range(3)]
            msg_id = await held(world, ALICE, BOB)

            async def move(world: World = world, phones: list[Phone] = phones, turns: int = turns) -> None:
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                await phones[0].set_alias(ALICE)
                await phones[2].set_alias(BOB)

            world.nursery.start_soon(move)
            split = await recall(world, msg_id)
            assert sum(split) == 2
            handed = [list(phone.handed) for phone in phones]
            await settle(world)
            await phones[1].set_alias(ALICE)
            await settle(world)
            assert [phone.handed for phone in phones] == handed
            for phone in phones:
                phone.leave()
            assert await world.report(msg_id) == (2, 0, 0, {"recalled": 2}, {})


async def test_a_push_that_is_accepted_in_slices_is_recalled_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """C22: its id is known when it is answered, so this is one who guesses."""
    monkeypatch.setattr(fanout_module, "SLICE", 1)
    async with living() as world:
        phones = [await world.absent_phone(is_retired=False) for _ in range(6)]
        before = await world.push(*phones)
        world.nursery.start_soon(world.push, *phones)
        for _ in range(2):
            await trio.lowlevel.checkpoint()
        assert await recall(world, MsgId(before + 1)) == Split(6, 0, 0, 0)


# --- Who is told -----------------------------------------------------------------------------------------------------


async def test_a_device_is_told_on_each_visit_until_it_answers(world: World) -> None:
    """C22"""
    phone = await world.phone()
    msg_id = await world.push(phone)
    phone.acknowledge(msg_id)
    assert await recall(world, msg_id) == Split(0, 0, 1, 0)
    assert phone.visit.recalls == [msg_id]
    for _ in range(2):
        phone.leave()
        await phone.connect()
        assert phone.visit.recalls == [msg_id]
    phone.mark(msg_id, Mark.WITHDRAWN)
    await settle(world)
    await phone.connect()
    assert phone.visit.recalls == []
    assert await words(world, msg_id) == ["received", "withdrawn"]


@pytest.mark.parametrize("mark", list(Mark))
async def test_any_mark_is_an_answer(mark: Mark, world: World) -> None:
    """C22: withdrawn, opened or dismissed."""
    phone = await world.phone()
    msg_id = await world.push(phone)
    await recall(world, msg_id)
    assert phone.visit.recalls == [msg_id]
    phone.mark(msg_id, mark)
    await phone.connect()
    await settle(world)
    assert phone.visit.recalls == []
    assert await world.report(msg_id) == (1, 0, 0, {"received": 1}, {mark.word: 1})


async def test_a_device_that_was_sent_it_and_did_not_say_so_is_told(world: World) -> None:
    """C22: it waits again, and may have been shown."""
    phone = await world.phone()
    msg_id = await world.push(phone)
    phone.leave()
    await settle(world)
    assert await recall(world, msg_id) == Split(1, 0, 0, 0)
    await phone.connect()
    assert (phone.handed, phone.visit.recalls) == ([], [msg_id])
    # What it says of it is ignored, but for that it has heard.
    phone.mark(msg_id, Mark.WITHDRAWN)
    await settle(world)
    await phone.connect()
    assert phone.visit.recalls == []
    assert await world.report(msg_id) == (1, 0, 0, {"recalled": 1}, {})


@pytest.mark.parametrize("how", ["expired", "replaced", "overflowed"])
async def test_a_device_that_was_sent_what_is_settled_since_is_told(how: str) -> None:
    """C22: those that were sent it and did not say so, whatever became of it afterwards."""
    async with living(with_upkeep=True) as world:
        phone, other = await world.phone(), await world.absent_phone()
        msg_id = await world.push(phone, other, ttl=10 if how == "expired" else DAY_S)
        phone.leave()
        if how == "expired":
            await trio.sleep(11)
        elif how == "replaced":
            await world.push(phone, overrides=msg_id)
        else:
            for _ in range(6):
                await world.push(phone)
        assert await phone.state(msg_id) == how
        await recall(world, msg_id)
        await phone.connect()
        await settle(world)
        assert phone.visit.recalls == [msg_id]


async def test_a_device_that_was_never_sent_it_is_not_told(world: World) -> None:
    """C22"""
    phone, absent = await world.phone(), await world.absent_phone()
    phone.visit.room = 0
    msg_id = await world.push(phone, absent)
    assert await recall(world, msg_id) == Split(2, 0, 0, 0)
    phone.take()
    await absent.connect()
    assert (phone.visit.recalls, absent.visit.recalls) == ([], [])


@pytest.mark.parametrize("is_retired", [False, True])
async def test_an_absent_device_that_received_it_is_told_on_its_next_visit(is_retired: bool, world: World) -> None:
    """C22: whether or not it has an actor."""
    phone = await world.phone()
    msg_id = await world.push(phone)
    phone.acknowledge(msg_id)
    phone.leave()
    await settle(world)
    if is_retired:
        world.retire()
        assert world.devices.find(phone.device_no) is None
    assert await recall(world, msg_id) == Split(0, 0, 1, 0)
    await phone.connect()
    assert phone.visit.recalls == [msg_id]


async def test_a_device_is_told_for_at_most_ten_days() -> None:
    """C22"""
    async with living(with_upkeep=True) as world:
        phone = await world.phone()
        msg_id = await world.push(phone)
        phone.acknowledge(msg_id)
        phone.leave()
        await recall(world, msg_id)
        await world.pass_time(TOLD_DAYS * DAY_S - 60)
        await phone.connect()
        assert phone.visit.recalls == [msg_id]
        phone.leave()
        await world.pass_time(60)
        await phone.connect()
        assert phone.visit.recalls == []


async def test_notices_outlive_the_process() -> None:
    """C22: oldest first, once a visit, and before what waits."""
    disk = MemoryDisk()
    async with living(disk) as world:
        phone = await world.phone()
        sent = [await world.push(phone) for _ in range(3)]
        phone.acknowledge(sent[-1])
        for msg_id in sent:
            await recall(world, msg_id)
            await trio.sleep(1)
        phone.mark(sent[1], Mark.WITHDRAWN)
        await world.told()
    async with living(disk) as world:
        phone.move(world)
        waiting = await world.push(phone)
        await phone.connect()
        await settle(world)
        assert (phone.visit.recalls, phone.handed) == ([sent[0], sent[2]], [waiting])
        await recall(world, sent[0])
        assert phone.visit.recalls == [sent[0], sent[2]]


async def test_a_device_whose_visit_a_kill_ended_is_told() -> None:
    """C22: nobody knows whether it was sent it."""
    disk = MemoryDisk()
    async with living(disk) as world:
        phone, absent = await world.phone(), await world.absent_phone()
        phone.visit.room = 0
        msg_id = await world.push(phone, absent)
    async with living(disk) as world:
        assert await recall(world, msg_id) == Split(2, 0, 0, 0)
        for each in (phone, absent):
            each.move(world)
            await each.connect()
            await settle(world)
        assert (phone.visit.recalls, absent.visit.recalls) == ([msg_id], [])


@pytest.mark.parametrize("is_loaded", [False, True])
async def test_what_was_on_the_wire_at_a_kill_is_recalled_and_its_device_told(is_loaded: bool) -> None:
    """C22, C2"""
    disk = MemoryDisk()
    async with living(disk) as world:
        phone = await world.phone()
        msg_id = await world.push(phone)
        assert phone.handed == [msg_id]
    async with living(disk) as world:
        phone.move(world)
        if is_loaded:
            await phone.arrive()
        assert await recall(world, msg_id) == Split(1, 0, 0, 0)
        if is_loaded:
            phone.resume()
        else:
            await phone.connect()
        await settle(world)
        assert (phone.handed, phone.visit.recalls) == ([], [msg_id])


async def test_a_kill_after_a_strike_by_recall_settles_it() -> None:
    """C3"""
    disk = MemoryDisk()
    async with living(disk) as world:
        phone = await world.phone()
        msg_id = await world.push(phone)
        await recall(world, msg_id)
    async with living(disk) as world:
        phone.move(world)
        assert await world.report(msg_id) == (1, 0, 0, {"recalled": 1}, {})
        await phone.connect()
        assert (phone.handed, phone.visit.recalls) == ([], [msg_id])


async def test_a_deleted_device_is_not_told(world: World) -> None:
    """C24"""
    phone = await world.phone()
    msg_id = await world.push(phone)
    phone.acknowledge(msg_id)
    await world.delete(phone)
    assert await recall(world, msg_id) == Split(0, 0, 1, 0)
    assert not world.disk.devices[phone.device_no].notices


async def test_a_device_whose_buffer_is_full_is_told_when_it_drains(world: World) -> None:
    """C12, C22"""
    phone = await world.phone()
    msg_id = await world.push(phone)
    phone.visit.room = 0
    await recall(world, msg_id)
    assert phone.visit.recalls == []
    phone.take()
    assert phone.visit.recalls == [msg_id]

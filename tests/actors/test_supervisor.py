"""Which devices are here as actors: started when there is work, retired when there is none, rebuilt when they crash."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pushactors.actors import supervisor as supervisor_module
from pushactors.actors.device import DeviceActor
from pushactors.actors.visits import Ending
from pushactors.errors import ActorCrashed, InternalError, StoreBusy
from pushactors.wire.ids import DeviceNo, MsgId
from tests.actors.world import ALICE, BOB, Handed, HeldStore, MemoryDisk, Phone, World, faulty, living, plant, push

# --- Who is here -----------------------------------------------------------------------------------------------------


async def test_a_device_that_is_absent_and_idle_has_no_actor(world: World) -> None:
    phone = await world.absent_phone(is_retired=False)
    assert len(world.devices) == 1
    assert world.devices.retire_idle() == 0  # something happened since the last round
    assert world.devices.retire_idle() == 1
    assert len(world.devices) == 0
    assert world.devices.at_rest(phone.device_no) is None
    assert world.devices.all() == ()


async def test_a_device_that_is_present_is_not_retired(world: World) -> None:
    phone = await world.phone()
    for _ in range(5):
        assert world.devices.retire_idle() == 0
    assert world.devices.all() == (phone.actor,)


async def test_a_device_is_not_retired_before_all_of_it_is_durable() -> None:
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.absent_phone(is_retired=False)
        with store.held("commit"):
            world.nursery.start_soon(world.push, phone)
            await wait_all_tasks_blocked()
            for _ in range(5):
                assert world.devices.retire_idle() == 0
        await wait_all_tasks_blocked()
        world.retire()
        assert len(world.devices) == 0


async def test_a_device_in_use_is_not_retired(world: World) -> None:
    phone = await world.absent_phone(is_retired=False)
    for _ in range(3):
        phone.actor.contents()
        assert world.devices.retire_idle() == 0


@pytest.mark.parametrize("is_present", [False, True])
async def test_a_deleted_device_is_retired_like_any_other(world: World, is_present: bool) -> None:
    """C24: memory does not grow with those who have gone."""
    phone = await world.phone() if is_present else await world.absent_phone(is_retired=False)
    await world.push(phone)
    await world.delete(phone)
    if is_present:
        phone.leave()
    world.retire()
    assert len(world.devices) == 0


async def test_an_actor_is_started_when_there_is_work_for_it(world: World) -> None:
    phone = await world.absent_phone(ALICE)
    msg_id = await world.push(phone)
    assert len(world.devices) == 1
    assert phone.actor.contents() == [(msg_id, False, world.disk.pushes[msg_id].message.sent_at)]
    assert phone.actor.alias == ALICE
    assert not world.devices.is_present(phone.device_no)


async def test_a_device_that_registers_is_here_at_once_without_a_question_to_the_store() -> None:
    store = HeldStore()
    async with living(store=store) as world:
        with store.held("mailboxes"):
            phone = await world.phone()
            assert phone.actor.visit is phone.visit


async def test_everybody_who_is_here_is_listed_in_the_order_in_which_they_came(world: World) -> None:
    phones = [await world.phone() for _ in range(3)]
    assert [actor.device_no for actor in world.devices.all()] == [phone.device_no for phone in phones]


# --- Loading ---------------------------------------------------------------------------------------------------------


async def test_many_devices_are_loaded_in_one_question() -> None:
    store = HeldStore()
    async with living(store=store) as world:
        phones = [await world.absent_phone(is_retired=False) for _ in range(20)]
        world.retire()
        asked = store.asked["mailboxes"]
        msg_id = await world.push()
        assert store.asked["mailboxes"] == asked + 1
        assert await world.report(msg_id) == (20, 20, 0, {}, {})
        assert len(world.devices) == len(phones)


async def test_a_question_names_so_many_devices_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "LOADED_AT_ONCE", 8)
    store = HeldStore()
    async with living(store=store) as world:
        for _ in range(20):
            await world.absent_phone(is_retired=False)
        world.retire()
        asked = store.asked["mailboxes"]
        msg_id = await world.push()
        assert store.asked["mailboxes"] == asked + 3
        assert (await world.report(msg_id)).waiting == 20


async def test_work_that_is_posted_while_a_device_is_loaded_is_kept_in_order() -> None:
    """C9"""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.absent_phone()
        accepted: list[MsgId] = []
        with store.held("mailboxes"):
            for _ in range(4):
                accepted.append((await world.app.fanout.accept(push(phone))).msg_id)
            world.nursery.start_soon(phone.connect)
            await wait_all_tasks_blocked()
            assert world.devices.at_rest(phone.device_no) is None
            assert not store._shared.pushes
        await wait_all_tasks_blocked()
        assert phone.welcome.waiting == 4
        assert phone.handed == accepted


async def test_loading_holds_up_nobody_but_the_device_and_its_app() -> None:
    store = HeldStore()
    async with living(store=store) as world:
        absent, present = await world.absent_phone(), await world.phone()
        with store.held("mailboxes"):
            world.nursery.start_soon(world.push, absent)
            await wait_all_tasks_blocked()
            flown = await world.push(present, ttl=0)
            assert present.handed == [flown]


async def test_a_device_is_brought_to_rest_together_with_others(world: World) -> None:
    phones = [await world.absent_phone(is_retired=False) for _ in range(3)]
    world.retire()
    nos = [phone.device_no for phone in phones]
    actors = await world.devices.ready(nos, world.app.tenant)
    assert [actor.device_no for actor in actors] == nos
    assert all(actor.inbox.is_open for actor in actors)
    assert await world.devices.ready(nos, world.app.tenant) == actors


async def test_a_device_that_is_not_in_the_store_cannot_be_brought_to_rest(world: World) -> None:
    with trio.fail_after(5), pytest.raises(ActorCrashed):
        await world.devices.ready([DeviceNo(99)], world.app.tenant)
    assert len(world.devices) == 0


async def test_what_waits_for_a_device_that_was_deleted_meanwhile_is_told_that_it_is_lost() -> None:
    """C24: a deleted device's deliveries are missed."""
    store = HeldStore()
    async with living(store=store) as world:
        phone, other = await world.absent_phone(is_retired=False), await world.phone()
        world.retire()
        [gone] = [each for each in world.app.router.directory if each.device_no == phone.device_no]
        await world.delete(phone)
        world.retire()
        world.app.router.directory.add(gone)  # as a push had it that was accepted just before
        msg_id = await world.push(phone, other)
        world.app.router.directory.remove(gone)
        assert await world.report(msg_id) == (2, 0, 1, {"missed": 1}, {})
        assert world.devices.at_rest(phone.device_no) is None
        assert world.faults() == {}


async def test_the_same_content_is_fetched_once_for_all_who_wait_for_it() -> None:
    store = HeldStore()
    async with living(store=store) as world:
        phones = [await world.absent_phone(is_retired=False) for _ in range(5)]
        msg_id = await world.push(*phones, body=b"content")
        world.retire()
        assert len(world.devices) == 0
        with store.held("mailboxes"):
            for phone in phones:
                world.nursery.start_soon(phone.connect)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert store.asked["bodies"] == 1
        assert [phone.handed for phone in phones] == [[msg_id]] * 5
        assert len({id(phone.visit.messages[0]) for phone in phones}) == 1


@pytest.mark.parametrize("operation", ["mailboxes", "bodies"])
async def test_a_store_that_does_not_answer_is_asked_again(operation: str) -> None:
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.absent_phone()
        msg_id = await world.push(phone)
        world.retire()
        store.trouble(operation, StoreBusy("one"), StoreBusy("two"), answer=True)
        await phone.connect()
        await trio.sleep(1)
        assert phone.handed == [msg_id]


async def test_a_store_that_never_answers_ends_the_supervisor() -> None:
    """The store is the ground: it falls."""
    store = HeldStore()

    async def run_until_it_falls() -> None:
        async with living(store=store) as world:
            phone = await world.absent_phone()
            store.trouble("mailboxes", *[StoreBusy("no")] * 1000)
            await phone.connect()

    with pytest.raises(ExceptionGroup) as fallen:
        await run_until_it_falls()
    assert fallen.group_contains(StoreBusy)


# --- Crashes: an actor ends alone ------------------------------------------------------------------------------------

Act = Callable[[World, Phone], Awaitable[object]]


async def _deliver(world: World, phone: Phone) -> None:
    await world.push(phone)


async def _resume(world: World, phone: Phone) -> None:
    phone.leave()
    await phone.arrive()
    plant(phone.actor, "next_to_send")
    phone.resume()


async def _drain(world: World, phone: Phone) -> None:
    phone.visit.room = None
    phone.actor.pump()


async def _acknowledge(world: World, phone: Phone) -> None:
    phone.acknowledge(phone.handed[-1])


async def _decline(world: World, phone: Phone) -> None:
    phone.decline(phone.handed[0])


async def _mark(world: World, phone: Phone) -> None:
    phone.mark(phone.handed[0])


async def _arrive(world: World, phone: Phone) -> None:
    await phone.arrive()


async def _leave(world: World, phone: Phone) -> None:
    phone.leave()


async def _log_in(world: World, phone: Phone) -> None:
    await phone.ask_for_alias(BOB)


async def _rename(world: World, phone: Phone) -> None:
    await world.set_device(phone, BOB)


async def _expire(world: World, phone: Phone) -> None:
    phone.actor.inbox.post(phone.actor.expire, lambda: None)


async def _delete(world: World, phone: Phone) -> None:
    await world.delete(phone)


async def _look(world: World, phone: Phone) -> None:
    await phone.rooms.router.mailbox(phone.registration_id)


WAYS_IN: dict[str, tuple[str, Act]] = {
    "deliver": ("enter", _deliver),
    "resume": ("next_to_send", _resume),
    "pump": ("next_to_send", _drain),
    "acknowledge": ("acknowledge", _acknowledge),
    "decline": ("decline", _decline),
    "mark": ("mark", _mark),
    "arrive": ("arrive", _arrive),
    "leave": ("leave", _leave),
    "rebind by the device": ("rebind", _log_in),
    "rebind by an app server": ("rebind", _rename),
    "expire": ("expire", _expire),
    "delete": ("clear", _delete),
    "contents": ("waiting", _look),
}
EVERY_WAY_IN = pytest.mark.parametrize("way", WAYS_IN)
EARLY_AND_LATE = pytest.mark.parametrize("is_late", [False, True], ids=["before it acts", "after it acted"])


async def crash(world: World, phone: Phone, way: str, is_late: bool = False) -> None:
    """This phone's actor crashes on this way in, and everybody hears of it."""
    method, act = WAYS_IN[way]
    plant(phone.actor, method, is_late=is_late)
    with trio.fail_after(60), suppress(InternalError):
        await act(world, phone)
    await wait_all_tasks_blocked()
    assert world.tally.read("actor_crashes") == 1, "the fault was not met"


@EARLY_AND_LATE
@EVERY_WAY_IN
async def test_an_actor_that_raises_ends_alone_and_nothing_is_lost(way: str, is_late: bool) -> None:
    """Three answers to a crash; C1, C9, C10"""
    async with living(may_crash=True) as world:
        phone, other = await world.phone(ALICE), await world.phone(ALICE)
        shared = await world.push(alias=ALICE)
        phone.visit.room = 1
        sent, waiting = await world.push(phone), await world.push(phone)
        visit, actor = phone.visit, phone.actor
        await crash(world, phone, way, is_late)

        # Its visit is told to come back; nobody else notices anything.
        assert visit.ending is not None
        if way not in ("resume", "arrive", "leave"):
            assert visit.ending is Ending.RESTARTED
        assert other.visit.ending is None
        assert actor.inbox.is_closed
        assert not world.devices.is_present(phone.device_no)
        fresh = await world.push(other)
        assert other.handed == [shared, fresh]
        other.acknowledge(fresh)

        # It is rebuilt from the store, with everything that was not settled.
        pushed = [msg_id for msg_id in world.disk.pushes if msg_id not in (shared, sent, waiting, fresh)]
        await phone.connect()
        await wait_all_tasks_blocked()
        assert phone.welcome.alias == ALICE
        assert phone.handed == [shared, sent, waiting, *pushed]
        phone.acknowledge(phone.handed[-1])
        assert [await phone.state(each) for each in phone.handed] == ["received"] * len(phone.handed)


@EARLY_AND_LATE
@EVERY_WAY_IN
async def test_the_sums_are_exact_after_a_crash(way: str, is_late: bool) -> None:
    """C1: what the lost actor had on the wire is on it no more, what others have is."""
    async with living(may_crash=True) as world:
        phone, other = await world.phone(ALICE), await world.phone(ALICE)
        shared = await world.push(alias=ALICE)
        phone.visit.room = 0
        queued = await world.push(alias=ALICE)
        await crash(world, phone, way, is_late)
        assert await world.report(shared) == (2, 1, 1, {}, {})
        assert await world.report(queued) == (2, 1, 1, {}, {})

        await phone.connect()
        await wait_all_tasks_blocked()
        assert await world.report(shared) == (2, 0, 2, {}, {})
        for each in (phone, other):
            each.acknowledge(queued)
        assert await world.report(shared) == (2, 0, 0, {"received": 2}, {})
        assert await world.report(queued) == (2, 0, 0, {"received": 2}, {})


async def test_the_sums_are_exact_after_a_decision_that_was_abandoned() -> None:
    """C1, C5: what a displaced visit had on the wire is off it, though the displacing has not happened."""
    async with living(may_crash=True) as world:
        phone, other = await world.phone(), await world.phone()
        flown, kept = await world.push(phone, other, ttl=0), await world.push(phone, other)
        await crash(world, phone, "arrive", is_late=True)
        await phone.connect()
        await wait_all_tasks_blocked()
        assert await world.report(flown) == (2, 0, 1, {"missed": 1}, {})
        assert await world.report(kept) == (2, 0, 2, {}, {})


async def test_an_actor_that_crashes_over_content_from_the_store_ends_alone() -> None:
    store = HeldStore()
    async with living(store=store, may_crash=True) as world:
        phone, other = await world.absent_phone(), await world.phone()
        msg_id = await world.push(phone)
        world.retire()
        with store.held("bodies"):
            await phone.connect()
            await wait_all_tasks_blocked()
            plant(phone.actor, "next_to_send")
        await wait_all_tasks_blocked()
        assert phone.visit.ending is Ending.RESTARTED
        assert other.visit.ending is None
        await phone.connect()
        await wait_all_tasks_blocked()
        assert phone.handed == [msg_id]


async def test_content_that_comes_for_an_actor_that_has_crashed_is_fetched_again_by_the_next() -> None:
    store = HeldStore()
    async with living(store=store, may_crash=True) as world:
        phone = await world.absent_phone()
        msg_id = await world.push(phone)
        world.retire()
        with store.held("bodies"):
            await phone.connect()
            await wait_all_tasks_blocked()
            world.devices.rebuild(phone.device_no, "a fault")
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        await phone.connect()
        await wait_all_tasks_blocked()
        assert phone.handed == [msg_id]


async def test_a_crash_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    async with living(may_crash=True) as world:
        phone = await world.phone()
        await world.push(phone)
        await crash(world, phone, "acknowledge")
        assert f"Device {phone.device_no} crashed" in caplog.text
        assert world.faults() == {"actor_crashes": 1}


async def test_a_push_to_a_device_that_has_crashed_waits_for_it() -> None:
    async with living(may_crash=True) as world:
        phone = await world.phone()
        await world.push(phone)
        await crash(world, phone, "acknowledge")
        with trio.fail_after(60):
            msg_id = await world.push(phone)
        assert await phone.state(msg_id) == "waiting"
        assert phone.actor.mailbox.waiting_count() == 2


async def test_a_new_actor_reads_the_store_only_when_what_the_old_one_decided_is_there() -> None:
    """C1, C2: else it would send what is settled."""
    store = HeldStore()
    async with living(store=store, may_crash=True) as world:
        phone = await world.phone()
        first, second = await world.push(phone), await world.push(phone)
        with store.held("commit"):
            phone.acknowledge(first)
            await wait_all_tasks_blocked()
            await crash(world, phone, "acknowledge")
            world.nursery.start_soon(phone.connect)
            await wait_all_tasks_blocked()
            assert world.devices.at_rest(phone.device_no) is None
        await wait_all_tasks_blocked()
        assert phone.handed == [second]
        assert await phone.state(first) == "received"


async def test_a_push_that_comes_before_that_does_not_hold_up_itself_and_its_app() -> None:
    """C24: the push waits for the new actor, which waits for what the old one decided, and not for the push."""
    store = HeldStore()
    async with living(store=store, may_crash=True) as world:
        phone, other = await world.phone(), await world.phone()
        first = await world.push(phone)
        with store.held("commit"):
            phone.acknowledge(first)
            await wait_all_tasks_blocked()
            await crash(world, phone, "mark")
            accepted = await world.app.fanout.accept(push(phone))
            await wait_all_tasks_blocked()
        with trio.fail_after(60):
            await world.told()
            assert await phone.state(accepted.msg_id) == "waiting"
            assert await world.push(other) == accepted.msg_id + 1


async def test_two_devices_that_crash_at_once_are_both_rebuilt() -> None:
    """C24: each waits for what it had decided; neither makes the other wait for ever, nor what is pushed to it."""
    store = HeldStore()
    async with living(store=store, may_crash=True) as world:
        phones = [await world.phone() for _ in range(3)]
        first = await world.push(*phones)
        with store.held("commit"):
            for phone in phones:
                phone.acknowledge(first)
                plant(phone.actor, "mark")
                with pytest.raises(ActorCrashed):
                    phone.mark(first)
                await wait_all_tasks_blocked()
            accepted = await world.app.fanout.accept(push(*phones))
            await wait_all_tasks_blocked()
        with trio.fail_after(60):
            await world.told()
            assert await world.report(accepted.msg_id) == (3, 3, 0, {}, {})
            assert await world.report(first) == (3, 0, 0, {"received": 3}, {})


async def test_a_device_that_has_crashed_is_retired_when_it_is_wholly_on_disk() -> None:
    store = HeldStore()
    async with living(store=store, may_crash=True) as world:
        phone = await world.phone()
        first = await world.push(phone)
        with store.held("commit"):
            phone.acknowledge(first)
            await crash(world, phone, "mark")
            assert world.devices.retire_idle() == 0
            assert world.devices.retire_idle() == 0
        await wait_all_tasks_blocked()
        world.retire()
        assert len(world.devices) == 0


async def test_a_device_that_cannot_even_begin_ends_alone() -> None:
    """Three answers to a crash: what the store has of it makes its actor raise, again and again."""
    async with living(may_crash=True) as world:
        phone, other = await world.absent_phone(is_retired=False), await world.phone()
        waiting = await world.push(phone)
        world.retire()
        with faulty(DeviceActor, "restore"):
            for _ in range(3):
                with trio.fail_after(60), suppress(InternalError):
                    await phone.connect()
            with trio.fail_after(60):
                pushed = await world.push(phone, other)
        assert other.handed == [pushed]
        await phone.connect()
        await wait_all_tasks_blocked()
        assert phone.handed == [waiting, pushed]


async def test_a_device_that_crashes_again_and_again_is_rebuilt_again_and_again() -> None:
    async with living(may_crash=True) as world:
        phone = await world.phone()
        msg_id = await world.push(phone)
        for _ in range(10):
            plant(phone.actor, "acknowledge")
            with pytest.raises(ActorCrashed):
                phone.acknowledge(msg_id)
            await wait_all_tasks_blocked()
            await phone.connect()
            await wait_all_tasks_blocked()
            assert phone.handed == [msg_id]
        assert world.tally.read("actor_crashes") == 10


async def test_an_actor_that_is_rebuilt_on_request_is_logged_with_the_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with living(may_crash=True) as world:
        phone = await world.phone()
        world.devices.rebuild(phone.device_no, "Half a decision.")
        world.devices.rebuild(DeviceNo(99), "Nobody is here.")
        await wait_all_tasks_blocked()
        assert "Half a decision." in caplog.text
        assert phone.visit.ending is Ending.RESTARTED


# --- What a crash leaves behind --------------------------------------------------------------------------------------


async def test_what_was_struck_before_a_crash_is_not_sent_again() -> None:
    """C3: when the visit ends it gets the verdict of its first strike, and it is never sent again."""
    async with living(may_crash=True) as world:
        phone = await world.phone()
        struck = await world.push(phone)
        newcomer = await world.push(phone, overrides=struck)
        await crash(world, phone, "acknowledge")
        await phone.connect()
        await wait_all_tasks_blocked()
        assert phone.handed == [newcomer]
        assert await phone.state(struck) == "replaced"


async def test_what_was_fenced_before_a_crash_is_not_shown_to_the_next_user() -> None:
    """C14: the rebuilt actor must not hand A's message to B."""
    async with living(may_crash=True) as world:
        phone = await world.phone(ALICE)
        for_alice = await world.push(alias=ALICE)
        await phone.set_alias(BOB)
        await crash(world, phone, "mark")
        await phone.connect()
        await wait_all_tasks_blocked()
        assert phone.visit.log == []
        assert await phone.state(for_alice) == "fenced"


async def test_what_may_not_wait_ends_with_the_visit_that_a_crash_ends() -> None:
    """C5: it never waits beyond a visit; it must not hold up what comes behind it either."""
    async with living(may_crash=True) as world:
        phone = await world.phone()
        sent = await world.push(phone, ttl=0)
        phone.visit.room = 0
        queued = await world.push(phone, ttl=0)
        behind = await world.push(phone)
        await crash(world, phone, "mark")
        await phone.connect()
        await wait_all_tasks_blocked()
        assert phone.handed == [behind]
        assert [await phone.state(each) for each in (sent, queued)] == ["missed", "missed"]


@pytest.mark.parametrize("kind", ["struck", "may not wait", "due"])
async def test_what_a_crash_ends_has_its_verdict_soon_even_if_the_device_never_comes_back(kind: str) -> None:
    """C3, C5: a crash ends the visit, and expiry is noticed within 1 s, absent devices included."""
    async with living(may_crash=True, with_upkeep=True) as world:
        phone = await world.phone()
        msg_id = await world.push(phone, ttl={"struck": 1000, "may not wait": 0, "due": 10}[kind])
        if kind == "struck":
            await world.push(phone, overrides=msg_id)
        await world.pass_time(100)
        assert await phone.state(msg_id) == "sent"
        await crash(world, phone, "mark")
        await trio.sleep(2)
        expected = {"struck": "replaced", "may not wait": "missed", "due": "expired"}
        assert await phone.state(msg_id) == expected[kind]


async def test_nothing_that_was_told_is_lost_by_a_crash_and_a_kill_together() -> None:
    """C2"""
    disk = MemoryDisk()
    async with living(disk, may_crash=True) as world:
        phone = await world.phone(ALICE)
        received, unsettled = await world.push(alias=ALICE), await world.push(phone)
        phone.acknowledge(received)
        await world.told()
        await crash(world, phone, "mark")
        await world.kill()
    async with living(disk) as world:
        phone.move(world)
        await phone.connect()
        await wait_all_tasks_blocked()
        assert phone.visit.log == [Handed(unsettled, None)]
        assert await phone.state(received) == "received"

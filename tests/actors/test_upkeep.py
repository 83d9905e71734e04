"""What time brings about: expiry, retirement, and the removal of what nobody can ask for any more."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pushactors.actors import inbox as inbox_module
from pushactors.actors import registrar as registrar_module
from pushactors.actors import upkeep as upkeep_module
from pushactors.actors.tenant import Limits
from pushactors.actors.visits import Ending
from pushactors.domain.message import Verdict
from pushactors.errors import NoSuchDevice, StoreBusy
from pushactors.stores.contract import REPORT_KEPT_DAYS
from pushactors.wire.ids import AppKey, MsgId
from tests.actors.world import (
    ALICE,
    DAY_MS,
    DAY_S,
    HeldStore,
    MemoryDisk,
    Phone,
    World,
    living,
    plant,
    push,
    wall_clock,
)

EXPIRED = {"expired": 1}


def settled_at(world: World, msg_id: MsgId, phone: Phone) -> int:
    delivery = world.disk.pushes[msg_id].deliveries[phone.device_no]
    assert delivery.verdict is Verdict.EXPIRED
    return delivery.at


# --- Expiry ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", [1, 7, 60, 300])
@pytest.mark.parametrize("where", ["retired", "at rest", "present"])
async def test_expiry_is_noticed_within_a_second(where: str, ttl: int) -> None:
    """C5: of absent devices too."""
    async with living(with_upkeep=True) as world:
        phone = await world.phone()
        if where == "present":
            phone.visit.room = 0
        else:
            phone.leave()
        if where == "retired":
            await trio.sleep(3.3)
            assert len(world.devices) == 0
        msg_id = await world.push(phone, ttl=ttl)
        due_at = wall_clock() + ttl * 1000
        await trio.sleep(ttl + 1)
        assert 0 <= settled_at(world, msg_id, phone) - due_at <= 1000
        assert await world.report(msg_id) == (1, 0, 0, EXPIRED, {})
        if where == "present":
            phone.take()
        else:
            await phone.connect()
        assert phone.handed == []


async def test_nothing_expires_before_its_time() -> None:
    """C5"""
    async with living(with_upkeep=True) as world:
        phone = await world.absent_phone()
        msg_id = await world.push(phone, ttl=60)
        await trio.sleep(59.99)
        assert await phone.state(msg_id) == "waiting"


async def test_what_is_sent_does_not_expire_while_its_visit_lives() -> None:
    """C5, C3"""
    async with living(with_upkeep=True) as world:
        phone, other = await world.phone(), await world.phone()
        msg_id = await world.push(phone, other, ttl=10)
        await trio.sleep(20)
        assert await world.report(msg_id) == (2, 0, 2, {}, {})
        phone.leave()
        other.acknowledge(msg_id)
        assert await world.report(msg_id) == (2, 0, 0, {"expired": 1, "received": 1}, {})


async def test_what_was_sent_and_returned_expires_in_its_time() -> None:
    """C5"""
    async with living(with_upkeep=True) as world:
        phone = await world.phone()
        msg_id = await world.push(phone, ttl=10)
        phone.leave()
        await trio.sleep(11)
        assert await phone.state(msg_id) == "expired"


async def test_ten_days_pass_in_a_moment() -> None:
    """C5: the longest time to live."""
    async with living(with_upkeep=True) as world:
        phone = await world.absent_phone()
        msg_id = await world.push(phone, ttl=10 * DAY_S)
        await world.pass_time(10 * DAY_S - 2)
        assert await phone.state(msg_id) == "waiting"
        await trio.sleep(3)
        assert await phone.state(msg_id) == "expired"


async def test_what_ran_out_while_the_server_was_down_has_expired_after_a_restart() -> None:
    """C5: by the wall clock, through restarts."""
    disk = MemoryDisk()
    async with living(disk, with_upkeep=True) as world:
        phone = await world.phone()
        sent, longer = await world.push(phone, ttl=DAY_S), await world.push(phone, ttl=3 * DAY_S)
        phone.visit.room = 0
        waiting = await world.push(phone, ttl=DAY_S)
    await trio.sleep(2 * DAY_S)
    async with living(disk, with_upkeep=True) as world:
        phone.move(world)
        await trio.sleep(1)
        states = [await phone.state(each) for each in (sent, longer, waiting)]
        assert states == ["expired", "waiting", "expired"]
        await world.pass_time(DAY_S)
        assert await phone.state(longer) == "expired"


async def test_many_who_are_due_at_once_are_all_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep_module, "DUE_AT_ONCE", 3)
    store = HeldStore()
    async with living(store=store) as world:
        phones = [await world.absent_phone() for _ in range(8)]
        at_once = await world.push(ttl=10)
        later = await world.push(phones[0], ttl=11)
        await trio.sleep(20)
        asked = store.asked["due"]
        await world.upkeep.expire()
        assert store.asked["due"] > asked + 1
        await wait_all_tasks_blocked()
        assert await world.report(at_once) == (8, 0, 0, {"expired": 8}, {})
        assert await world.report(later) == (1, 0, 0, EXPIRED, {})


async def test_what_is_due_before_it_is_durable_is_found_by_a_later_round() -> None:
    """C5, law 2: the disk is slow."""
    store = HeldStore()
    async with living(store=store, with_upkeep=True) as world:
        phone = await world.absent_phone()
        with store.held("commit"):
            world.nursery.start_soon(lambda: world.push(phone, ttl=5))
            await trio.sleep(upkeep_module.LOOK_BACK_MS / 1000 - 1)
        await trio.sleep(1)
        [msg_id] = world.disk.pushes
        assert await phone.state(msg_id) == "expired"


async def test_an_app_that_is_not_served_is_left_alone_until_it_is() -> None:
    one, two = AppKey("one"), AppKey("two")
    async with living(app_keys=(one, two), with_upkeep=True) as world:
        phones = [Phone(world, world.apps[key]) for key in (one, two)]
        pushed = []
        for phone in phones:
            await phone.connect()
            phone.leave()
            pushed.append(await world.push(phone, rooms=phone.rooms, ttl=10))
        unserved = world.apps.pop(two)
        await world.pass_time(DAY_S)
        assert [await phone.state(each) for phone, each in zip(phones, pushed, strict=True)] == ["expired", "waiting"]
        world.apps[two] = unserved
        world.upkeep.look_back()
        await trio.sleep(1)
        assert await phones[1].state(pushed[1]) == "expired"


async def test_a_store_that_does_not_answer_is_asked_again() -> None:
    store = HeldStore()
    async with living(store=store, with_upkeep=True) as world:
        phone = await world.absent_phone()
        msg_id = await world.push(phone, ttl=10)
        store.trouble("due", StoreBusy("one"), StoreBusy("two"), answer=True)
        store.trouble("sweep", StoreBusy("one"), answer=True)
        await trio.sleep(11)
        assert await phone.state(msg_id) == "expired"


async def test_a_device_that_crashes_over_expiry_ends_alone_and_is_found_again() -> None:
    """Three answers to a crash; C5"""
    async with living(with_upkeep=True, may_crash=True) as world:
        phone, other = await world.phone(), await world.phone()
        phone.visit.room = other.visit.room = 0
        msg_id = await world.push(phone, other, ttl=10)
        plant(phone.actor, "expire")
        await trio.sleep(12)
        assert (phone.visit.ending, other.visit.ending) == (Ending.RESTARTED, None)
        assert world.faults() == {"actor_crashes": 1}
        assert await world.report(msg_id) == (2, 0, 0, {"expired": 2}, {})


async def test_a_device_that_can_keep_no_more_work_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "KEPT", 1)
    store = HeldStore()
    async with living(store=store, with_upkeep=True) as world:
        phone = await world.absent_phone()
        msg_id = await world.push(phone, ttl=10)
        await trio.sleep(5)
        assert len(world.devices) == 0
        with store.held("mailboxes"):
            await trio.sleep(10)
        await trio.sleep(1)
        assert await phone.state(msg_id) == "expired"


# --- Retirement ------------------------------------------------------------------------------------------------------


async def test_whoever_is_absent_and_idle_is_retired_soon() -> None:
    async with living(with_upkeep=True) as world:
        phone, present = await world.phone(), await world.phone()
        msg_id = await world.push(phone, present)
        phone.leave()
        await trio.sleep(2)
        assert world.devices.all() == (present.actor,)
        await phone.connect()
        await wait_all_tasks_blocked()
        assert phone.handed == [msg_id]


# --- Removal ---------------------------------------------------------------------------------------------------------


async def test_a_report_is_kept_for_28_days_after_the_last_event() -> None:
    """C18"""
    async with living(with_upkeep=True) as world:
        phone = await world.phone()
        msg_id = await world.push(phone)
        phone.acknowledge(msg_id)
        await world.pass_time(20 * DAY_S)
        phone.mark(msg_id)
        await world.pass_time(REPORT_KEPT_DAYS * DAY_S)
        await trio.sleep(61)
        await trio.sleep(61)
        assert await world.reports([msg_id]) == {}
        assert world.tally.read("swept_rows") >= 1


async def test_a_report_is_not_removed_before() -> None:
    """C18"""
    async with living(with_upkeep=True) as world:
        phone = await world.phone()
        msg_id, unsettled = await world.push(phone), await world.push(phone, ttl=10 * DAY_S)
        phone.acknowledge(msg_id)
        await world.pass_time(REPORT_KEPT_DAYS * DAY_S - 100)
        await trio.sleep(70)
        assert await world.report(msg_id) == (1, 0, 0, {"received": 1}, {})
        assert (await world.report(unsettled)).targets == 1


async def test_removal_goes_in_small_steps_with_a_pause_after_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """C24, law 3"""
    monkeypatch.setattr(upkeep_module, "SWEPT_AT_ONCE", 4)
    store = HeldStore()
    async with living(store=store, with_upkeep=True) as world:
        phone = await world.phone()
        for _ in range(20):
            phone.acknowledge(await world.push(phone))
        await world.told()
        await world.pass_time((REPORT_KEPT_DAYS + 1) * DAY_S)
        left = [len(world.disk.pushes) + len(world.disk.leaving)]
        while left[-1]:
            await trio.sleep(upkeep_module.SWEEP_PAUSE_S)
            left.append(sum(len(each.deliveries) + 1 for each in world.disk.leaving) + len(world.disk.pushes))
        assert len(left) > 5
        asked = store.asked["sweep"]
        await trio.sleep(10)
        assert store.asked["sweep"] <= asked + 1  # there is nothing more to do: it rests
        await trio.sleep(upkeep_module.SWEEP_REST_S)
        assert store.asked["sweep"] >= asked + 1


async def test_others_have_their_turn_while_much_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """C24"""
    monkeypatch.setattr(upkeep_module, "SWEPT_AT_ONCE", 1)
    async with living(with_upkeep=True) as world:
        phone = await world.phone()
        for _ in range(20):
            phone.acknowledge(await world.push(phone))
        await world.pass_time((REPORT_KEPT_DAYS + 1) * DAY_S)
        begun = trio.current_time()
        msg_id = await world.push(phone)
        assert phone.handed[-1] == msg_id
        assert trio.current_time() == begun
        assert len(world.disk.pushes) > 1


async def test_a_device_that_nobody_has_seen_for_long_is_deleted() -> None:
    """C24"""
    async with living(with_upkeep=True, limits=Limits(device_expiry_days=30)) as world:
        phone, present = await world.absent_phone(ALICE), await world.phone()
        await world.pass_time(29 * DAY_S)
        msg_id = await world.push(alias=ALICE, ttl=10 * DAY_S)
        await world.pass_time(DAY_S + 1)
        await trio.sleep(61)
        assert world.tally.read("devices_expired") == 1
        assert await phone.state(msg_id) == "missed"
        with pytest.raises(NoSuchDevice):
            await phone.connect()
        assert present.visit.ending is None


async def test_a_device_that_crashes_over_its_deletion_ends_alone() -> None:
    """Three answers to a crash, C24: upkeep goes on, and so does the server."""
    async with living(with_upkeep=True, may_crash=True, limits=Limits(device_expiry_days=1)) as world:
        phone, other = await world.absent_phone(is_retired=False), await world.absent_phone(is_retired=False)
        present = await world.phone()
        await world.push(phone, other)
        plant(phone.actor, "clear")
        phone.actor.used = True
        await world.pass_time(DAY_S + 1)
        await trio.sleep(200)
        assert len(world.app.router.directory) == 1
        assert present.visit.ending is None
        msg_id = await world.push(present, ttl=10)
        present.leave()
        await trio.sleep(11)
        assert await present.state(msg_id) == "expired"


async def test_the_devices_of_many_are_looked_at_in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """C24"""
    monkeypatch.setattr(upkeep_module, "LOOKED_AT_ONCE", 2)
    async with living(with_upkeep=True, limits=Limits(device_expiry_days=1)) as world:
        for _ in range(5):
            await world.absent_phone()
        await world.pass_time(DAY_S + 1)
        await trio.sleep(500)
        assert len(world.app.router.directory) == 0
        assert world.tally.read("devices_expired") == 5


async def test_a_cid_can_be_forgotten_after_a_day() -> None:
    """C6"""
    async with living(with_upkeep=True) as world:
        phone = await world.phone()
        first = await world.push(phone, cid="order-42")
        await world.pass_time(DAY_S + 1)
        await trio.sleep(121)
        assert not world.disk.cids
        assert await world.push(phone, cid="order-42") == first + 1


async def test_a_store_that_never_answers_ends_upkeep() -> None:
    """The store is the ground: it falls."""
    store = HeldStore()

    async def run_until_it_falls() -> None:
        async with living(store=store, with_upkeep=True):
            store.trouble("due", *[StoreBusy("no")] * 1000)
            await trio.sleep(300)

    with pytest.raises(ExceptionGroup) as fallen:
        await run_until_it_falls()
    assert fallen.group_contains(StoreBusy)


def test_a_day_is_a_day() -> None:
    assert registrar_module.DAY_MS == DAY_MS
    assert push().time_to_live_s == DAY_S

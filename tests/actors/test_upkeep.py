"""What time brings about: expiry, retirement, and the removal of what nobody can ask for any more."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pushactors.actors import inbox as inbox_module
from pushactors.actors import registrar as registrar_module
from pushactors.actors import upkeep as upkeep_module
from pushactors.actors.fanout import Push
from pushactors.actors.tenant import Limits
from pushactors.actors.visits import Ending
from pushactors.domain.message import Verdict
from pushactors.domain.receipts import Event, Reason, Why
from pushactors.errors import NoSuchDevice, StoreBusy
from pushactors.stores.contract import REPORT_KEPT_DAYS
from pushactors.wire.ids import AppKey, Millis, MsgId, RegistrationId
from tests.actors.world import (
    ALICE,
    DAY_MS,
    DAY_S,
    HeldStore,
    MemoryDisk,
    Phone,
    World,
    held,
    hold,
    living,
    plant,
    push,
    stream,
    wall_clock,
    words,
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

        def count() -> int:
            receipts = len(world.disk.streams[world.app.tenant.app_no].receipts)
            return sum(len(each.deliveries) + 1 for each in world.disk.leaving) + len(world.disk.pushes) + receipts

        left = [count()]
        while left[-1]:
            await trio.sleep(upkeep_module.SWEEP_PAUSE_S)
            left.append(count())
        assert max(before - after for before, after in pairwise(left)) <= 2 * upkeep_module.SWEPT_AT_ONCE
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


# --- Deadlines -------------------------------------------------------------------------------------------------------


async def overdue(world: World) -> list[tuple[MsgId, RegistrationId | None, Reason | None]]:
    return [(row.msg_id, row.registration_id, row.reason) for row in await stream(world) if row.event is Event.OVERDUE]


def within(seconds: int, *phones: Phone, **said: object) -> Push:
    return replace(push(*phones, **said), deliver_within_s=seconds)  # type: ignore[arg-type]


def instant(seconds: float = 0) -> Millis:
    return Millis(wall_clock() + round(seconds * 1000))


@pytest.mark.parametrize("is_retired", [False, True])
async def test_what_an_absent_device_has_not_received_is_overdue_as_absent(is_retired: bool) -> None:
    """C21: since when; within 1 s; once, and the delivery goes on."""
    async with living(with_upkeep=True) as world:
        phone = await world.absent_phone(is_retired=False)
        since = instant()
        if is_retired:
            await trio.sleep(3)
            assert len(world.devices) == 0
        msg_id = (await world.accept(within(10, phone))).msg_id
        await trio.sleep(9.9)
        assert await overdue(world) == []
        await trio.sleep(1.1)
        assert await overdue(world) == [(msg_id, phone.registration_id, Reason(Why.ABSENT, since=since))]
        await trio.sleep(300)
        assert len(await overdue(world)) == 1
        assert await phone.state(msg_id) == "waiting"
        await phone.connect()
        phone.acknowledge(msg_id)
        assert await words(world, msg_id) == ["overdue absent", "received"]


async def test_what_was_sent_and_not_acknowledged_is_overdue_as_unacknowledged() -> None:
    """C21: since it was sent on the present visit."""
    async with living(with_upkeep=True) as world:
        phone = await world.phone()
        msg_id = (await world.accept(within(10, phone))).msg_id
        await trio.sleep(3)
        phone.leave()
        await trio.sleep(2)
        await phone.connect()
        since = instant()
        await trio.sleep(7)
        assert await overdue(world) == [(msg_id, phone.registration_id, Reason(Why.UNACKNOWLEDGED, since=since))]


async def test_what_waits_behind_others_is_overdue_as_queued() -> None:
    """C21: behind how many."""
    async with living(with_upkeep=True, limits=Limits(window=2)) as world:
        phone = await world.phone()
        for _ in range(4):
            await world.push(phone)
        msg_id = (await world.accept(within(10, phone))).msg_id
        await trio.sleep(11)
        assert await overdue(world) == [(msg_id, phone.registration_id, Reason(Why.QUEUED, behind=4))]


@pytest.mark.parametrize("is_retired", [False, True])
async def test_what_nobody_has_logged_in_for_is_overdue_as_unheld(is_retired: bool) -> None:
    """C21, C25: with the alias in the place of a device."""
    async with living(with_upkeep=True) as world:
        since = instant()
        msg_id = (await world.accept(hold(ALICE, within=10 if is_retired else 1))).msg_id
        await trio.sleep(11 if is_retired else 2)
        assert await overdue(world) == [(msg_id, None, Reason(Why.UNHELD, since=since))]
        assert [row.alias for row in await stream(world)] == [ALICE]
        await held(world, ALICE)
        await world.phone(ALICE)
        await trio.sleep(20)
        assert len(await overdue(world)) == 1


@pytest.mark.parametrize("is_retired", [False, True])
async def test_unheld_is_since_it_waits_for_its_user(is_retired: bool) -> None:
    """C21, C25: not since it was accepted, if a device has had it in between; with an actor, and without."""
    async with living(with_upkeep=True) as world:
        phone = await world.phone(ALICE)
        msg_id = (await world.accept(hold(ALICE, within=100))).msg_id
        await trio.sleep(50 if is_retired else 99.7)
        phone.decline(msg_id)
        since = instant()
        phone.leave()
        await trio.sleep(51 if is_retired else 2)
        assert await overdue(world) == [(msg_id, None, Reason(Why.UNHELD, since=since))]


async def test_a_deadline_goes_with_what_is_bound(world: World) -> None:
    """C21, C25"""
    msg_id = (await world.accept(hold(ALICE, within=10))).msg_id
    phone = await world.phone(ALICE)
    since = instant()
    await trio.sleep(11)
    await world.upkeep.find_overdue()
    assert await overdue(world) == [(msg_id, phone.registration_id, Reason(Why.UNACKNOWLEDGED, since=since))]


async def test_what_is_settled_is_never_overdue() -> None:
    """C21: nor are those of the same push that are."""
    async with living(with_upkeep=True) as world:
        phones = [await world.phone() for _ in range(4)]
        msg_id = (await world.accept(within(10, *phones, ttl=5))).msg_id
        phones[0].acknowledge(msg_id)
        phones[1].leave()
        await world.delete(phones[2])
        await trio.sleep(20)
        assert [row[1] for row in await overdue(world)] == [phones[3].registration_id]


async def test_what_is_settled_and_not_durable_by_its_deadline_is_not_overdue() -> None:
    """C21, C2"""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone()
        msg_id = (await world.accept(within(10, phone))).msg_id
        await trio.sleep(9.9)
        with store.held("commit"):
            phone.acknowledge(msg_id)
            await trio.sleep(1)
            with trio.move_on_after(1):
                await world.upkeep.find_overdue()
        await world.told()
        assert await words(world, msg_id) == ["received"]


async def test_overdue_is_told_before_the_verdict_that_comes_later() -> None:
    """C20, C21: at the very instant of both, too."""
    async with living(with_upkeep=True) as world:
        phone = await world.absent_phone()
        for seconds in (5, 9, 10):
            await world.accept(within(seconds, phone, ttl=10))
        await trio.sleep(12)
        for msg_id in world.disk.pushes:
            told = await words(world, msg_id)
            assert told in (["overdue absent", "expired"], ["expired"])
            assert told[-1] == "expired"
        assert [len(await words(world, msg_id)) for msg_id in world.disk.pushes][:2] == [2, 2]


async def test_a_deadline_that_passed_while_the_server_was_down_fires_at_start() -> None:
    """C21: once, though there is another start."""
    disk = MemoryDisk()
    async with living(disk, with_upkeep=True) as world:
        phone, gone = await world.phone(), await world.absent_phone()
        left = gone.world.disk.devices[gone.device_no].row.last_seen_at
        msg_id = (await world.accept(within(10, phone, gone))).msg_id
        unheld = (await world.accept(hold(ALICE, within=10))).msg_id
    await trio.sleep(DAY_S / 2)
    for _ in range(2):
        async with living(disk, with_upkeep=True) as world:
            await trio.sleep(1)
            found = {(row[0], row[1]): row[2].why for row in await overdue(world) if row[2] is not None}
            assert found == {
                (msg_id, phone.registration_id): Why.ABSENT,
                (msg_id, gone.registration_id): Why.ABSENT,
                (unheld, None): Why.UNHELD,
            }
            assert len(await overdue(world)) == 3
            reasons = {row[1]: row[2] for row in await overdue(world)}
            assert reasons[gone.registration_id] == Reason(Why.ABSENT, since=left)


async def test_with_time_to_live_0_it_has_a_deadline_on_its_visit() -> None:
    """C21, C5"""
    async with living(with_upkeep=True) as world:
        phone, absent = await world.phone(), await world.absent_phone()
        msg_id = (await world.accept(within(10, phone, absent, ttl=0))).msg_id
        await trio.sleep(11)
        assert [row[:2] for row in await overdue(world)] == [(msg_id, phone.registration_id)]
        phone.leave()
        assert await words(world, msg_id) == ["missed", "overdue unacknowledged", "missed"]


async def test_many_deadlines_at_once_are_all_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """C21"""
    monkeypatch.setattr(upkeep_module, "OVERDUE_AT_ONCE", 2)
    async with living(with_upkeep=True) as world:
        phones = [await world.absent_phone() for _ in range(5)]
        for _ in range(3):
            await world.accept(within(10, *phones))
        await trio.sleep(11)
        found = await overdue(world)
        assert len(found) == len(set(found)) == 15
        assert world.tally.read("overdue") == 15


async def test_a_device_that_is_being_loaded_or_crashes_at_its_deadline_is_told_of_in_the_next_round() -> None:
    """C21"""
    async with living(with_upkeep=True, may_crash=True) as world:
        phone = await world.phone()
        msg_id = (await world.accept(within(10, phone))).msg_id
        await trio.sleep(9.6)
        plant(phone.actor, "sent")
        await trio.sleep(1.5)
        assert world.tally.read("actor_crashes") == 1
        assert [row[0] for row in await overdue(world)] == [msg_id]


async def test_a_crash_of_the_process_between_finding_and_telling_tells_it_once() -> None:
    """C20, C21"""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.absent_phone()
        await world.accept(within(10, phone))
        await trio.sleep(11)
        with store.held("commit"):
            world.nursery.start_soon(world.upkeep.find_overdue)
            await wait_all_tasks_blocked()
            await world.kill()
    async with living(store._shared, with_upkeep=True) as world:
        await trio.sleep(2)
        assert len(await overdue(world)) == 1

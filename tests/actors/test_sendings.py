"""When what is on the wire was sent, and on which visit: with the verdict, or behind on its own."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pushactors.actors.sendings import WRITTEN_AFTER_MS, Sendings
from pushactors.stores.contract import Arrived, Left, Sent, Settled
from pushactors.wire.ids import DeviceNo, Millis, MsgId, VisitNo
from tests.actors.world import ALICE, BOB, HeldStore, MemoryDisk, World, held, living, wall_clock

DEVICE = DeviceNo(7)


def sendings(**sent: int) -> Sendings:
    made = Sendings()
    made.visit = VisitNo(3)
    for name, at in sent.items():
        made.sent(MsgId(int(name[1:])), Millis(at))
    return made


def changes(store: HeldStore, kind: type) -> list[object]:
    return [change for _, commit in store.commits for change in commit if isinstance(change, kind)]


async def course(world: World, msg_id: MsgId, device_no: DeviceNo) -> list[tuple[str, int | None]]:
    await world.told()
    row = await world.store.timeline(world.app.tenant.app_no, msg_id, device_no)
    assert row is not None
    return [(entry.word, entry.visit) for entry in row.entries if entry.word not in ("accepted", "stored")]


# --- Kept ------------------------------------------------------------------------------------------------------------


def test_it_knows_when_and_on_which_visit_until_it_leaves_the_wire() -> None:
    made = sendings(m1=10)
    assert made.of(MsgId(1)) == (3, 10)
    assert made.take(MsgId(1)) == (3, 10)
    assert made.of(MsgId(1)) is None
    assert made.take(MsgId(1)) == (None, None)


def test_what_was_sent_by_then_is_written_once() -> None:
    """Law 2"""
    made = sendings(m1=10, m2=20, m3=30)
    assert list(made.write(DEVICE, Millis(20))) == [
        Sent(MsgId(1), DEVICE, VisitNo(3), Millis(10)),
        Sent(MsgId(2), DEVICE, VisitNo(3), Millis(20)),
    ]
    assert list(made.write(DEVICE, Millis(20))) == []
    assert made.has_unwritten
    assert [sent.msg_id for sent in made.write(DEVICE, Millis(99))] == [3]
    assert not made.has_unwritten
    assert made.of(MsgId(1)) == (3, 10)


def test_what_left_the_wire_is_not_written() -> None:
    """Law 1"""
    made = sendings(m1=10)
    made.take(MsgId(1))
    assert not made.has_unwritten
    assert list(made.write(DEVICE, Millis(99))) == []


# --- Carried out -----------------------------------------------------------------------------------------------------


async def test_a_verdict_takes_the_sending_along_and_costs_no_row_of_its_own() -> None:
    """Law 1"""
    store = HeldStore()
    async with living(store=store, with_upkeep=True) as world:
        phone = await world.phone()
        msg_id = await world.push(phone)
        sent_at = wall_clock()
        await trio.sleep(0.3)
        phone.acknowledge(msg_id)
        await trio.sleep(2)
        [settled] = changes(store, Settled)
        assert isinstance(settled, Settled)
        assert (settled.visit, settled.sent_at) == (1, sent_at)
        assert changes(store, Sent) == []
        assert await course(world, msg_id, phone.device_no) == [("sent", 1), ("acknowledged", 1), ("received", None)]


async def test_what_stays_on_the_wire_is_written_down_half_a_second_later() -> None:
    """Law 2: once."""
    store = HeldStore()
    async with living(store=store, with_upkeep=True) as world:
        phone = await world.phone()
        msg_id = await world.push(phone)
        sent_at = wall_clock()
        await trio.sleep(WRITTEN_AFTER_MS / 1000 - 0.1)
        assert changes(store, Sent) == []
        await trio.sleep(0.7)
        assert changes(store, Sent) == [Sent(msg_id, phone.device_no, VisitNo(1), sent_at)]
        await trio.sleep(30)
        assert len(changes(store, Sent)) == 1


async def test_what_waits_again_is_written_down_with_the_end_of_the_visit() -> None:
    """Law 2: in the very commit."""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone()
        msg_id = await world.push(phone)
        sent_at = wall_clock()
        phone.leave()
        await world.told()
        [last] = [commit for _, commit in store.commits[-1:]]
        assert [type(change) for change in last] == [Sent, Left]
        assert last[0] == Sent(msg_id, phone.device_no, VisitNo(1), sent_at)


async def test_visits_are_numbered_through_restarts() -> None:
    """C11"""
    disk = MemoryDisk()
    async with living(disk) as world:
        phone = await world.phone()
        msg_id = await world.push(phone)
        phone.leave()
        await phone.connect()
        await phone.connect()
        await world.told()
    store = HeldStore(disk)
    async with living(store=store) as world:
        phone.move(world)
        await phone.connect()
        await wait_all_tasks_blocked()
        assert [change.visit for change in changes(store, Arrived) if isinstance(change, Arrived)] == [4]
        phone.acknowledge(msg_id)
        words = await course(world, msg_id, phone.device_no)
        assert words[-2:] == [("acknowledged", 4), ("received", None)]


@pytest.mark.parametrize("is_written", [False, True])
async def test_after_a_kill_what_was_not_written_down_may_have_been_sent(is_written: bool) -> None:
    """C2, law 2: on a visit that is not known; and the device has left."""
    disk = MemoryDisk()
    async with living(disk, with_upkeep=True) as world:
        phone = await world.phone()
        msg_id = await world.push(phone)
        await trio.sleep(2 if is_written else 0.1)
        await world.told()
    store = HeldStore(disk)
    async with living(store=store) as world:
        phone.move(world)
        await phone.connect()
        await wait_all_tasks_blocked()
        sent = [change.visit for change in changes(store, Sent) if isinstance(change, Sent)]
        assert sent == ([] if is_written else [0])
        assert len(changes(store, Left)) == 1
        phone.acknowledge(msg_id)
        words = await course(world, msg_id, phone.device_no)
        assert words[0] == ("sent", 1 if is_written else 0)
        assert words[-2:] == [("acknowledged", 2), ("received", None)]


async def test_who_left_in_peace_was_sent_nothing_more() -> None:
    """C2: a restart says nothing about those that were absent."""
    disk = MemoryDisk()
    async with living(disk) as world:
        phone = await world.absent_phone()
        msg_id = await world.push(phone)
    store = HeldStore(disk)
    async with living(store=store) as world:
        phone.move(world)
        world.devices.get(phone.device_no, world.app.tenant)
        await wait_all_tasks_blocked()
        assert changes(store, Sent) == changes(store, Left) == []
        assert await course(world, msg_id, phone.device_no) == []


async def test_what_goes_back_to_its_alias_keeps_its_course() -> None:
    """C25: sent here, held there, bound and sent to another."""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone(ALICE)
        msg_id = await held(world, ALICE)
        await trio.sleep(1)
        phone.decline(msg_id)
        await phone.set_alias(BOB)
        await trio.sleep(1)
        other = await world.phone(ALICE)
        await wait_all_tasks_blocked()
        await trio.sleep(1)
        other.acknowledge(msg_id)
        assert [word for word, _ in await course(world, msg_id, other.device_no)] == [
            "sent", "held", "bound", "sent", "acknowledged", "received",
        ]  # fmt: skip

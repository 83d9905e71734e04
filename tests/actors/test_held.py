"""What waits for users rather than for devices: where it waits, who gets it, and how it comes back."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pushactors.actors import fanout as fanout_module
from pushactors.actors import inbox as inbox_module
from pushactors.actors import ledger as ledger_module
from pushactors.actors.router import NO_TAG_CHANGE
from pushactors.actors.tenant import Limits
from pushactors.domain.aliases import AliasFullPolicy, Directory
from pushactors.domain.message import Mark, Verdict
from pushactors.errors import ActorCrashed, InternalError, NoTarget
from pushactors.wire.ids import MsgId
from tests.actors.world import (
    ALICE,
    BOB,
    CAROL,
    DAY_S,
    NOBODY,
    Handed,
    HeldStore,
    MemoryDisk,
    Phone,
    Told,
    World,
    faulty,
    held,
    hold,
    living,
    plant,
    push,
    stream,
    unsettled_on_disk,
    words,
)

WAITS, ON_THE_WIRE = (1, 1, 0, {}, {}), (1, 0, 1, {}, {})


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout_module, "SLICE", 1)


def waiting_for(world: World, alias: str) -> list[MsgId]:
    """What waits for that alias with no device, in order."""
    mailbox = world.app.held.find(alias)  # type: ignore[arg-type]
    actor = None if mailbox is None else world.devices.at_rest(mailbox.device_no)
    return [] if actor is None else [entry.msg_id for entry in actor.mailbox.waiting]


def actor_of(world: World, alias: str):  # type: ignore[no-untyped-def]
    mailbox = world.app.held.find(alias)  # type: ignore[arg-type]
    assert mailbox is not None
    actor = world.devices.at_rest(mailbox.device_no)
    assert actor is not None
    return actor


async def settle(world: World) -> None:
    await world.told()
    await wait_all_tasks_blocked()


async def halfway(world: World, phones: list[Phone], what: object) -> MsgId:
    """Returns between two slices of a push, when it has come to the first of these phones and not to the last."""

    async def ask() -> None:
        await world.accept(what)  # type: ignore[arg-type]

    def newest(phone: Phone) -> MsgId:
        return max((entry.msg_id for entry in phone.actor.mailbox.waiting), default=MsgId(0))

    before = newest(phones[0])
    world.nursery.start_soon(ask)
    for _ in range(100):
        if newest(phones[0]) != before:
            break
        await trio.lowlevel.checkpoint()
    assert newest(phones[0]) != newest(phones[-1]), "This is not between two slices."
    return newest(phones[0])


# --- Targets ---------------------------------------------------------------------------------------------------------


async def test_an_alias_that_nobody_has_is_one_target(world: World) -> None:
    """C25: and a device that has one is a target, as ever."""
    phone = await world.phone(ALICE)
    accepted = await world.accept(hold(ALICE, BOB, CAROL))
    assert (accepted.targets, accepted.online) == (3, 1)
    assert await world.report(accepted.msg_id) == (3, 2, 1, {}, {})
    assert phone.visit.log == [Handed(accepted.msg_id, ALICE)]
    assert waiting_for(world, BOB) == waiting_for(world, CAROL) == [accepted.msg_id]


async def test_an_alias_that_is_named_twice_is_one_target(world: World) -> None:
    """C1, C25"""
    accepted = await world.accept(hold(ALICE, BOB, ALICE))
    assert await world.report(accepted.msg_id) == (2, 2, 0, {}, {})
    assert (accepted.targets, waiting_for(world, ALICE)) == (2, [accepted.msg_id])


async def test_without_hold_an_alias_that_nobody_has_is_no_target(world: World) -> None:
    """C4"""
    with pytest.raises(NoTarget):
        await world.push(alias=ALICE)
    assert await world.app.fanout.count_targets(hold(ALICE)) == 1
    assert len(world.app.held) == 0


async def test_a_count_of_targets_makes_no_mailbox(world: World) -> None:
    """C2"""
    assert await world.app.fanout.count_targets(hold(ALICE, BOB)) == 2
    assert len(world.app.held) == 0


async def test_the_mailbox_of_an_alias_is_made_when_something_waits_and_removed_when_nothing_does(world: World) -> None:
    """C25, law 1"""
    msg_id = await held(world, ALICE)
    assert len(world.app.held) == 1
    assert await world.app.held.remove_empty(100) == 0
    phone = await world.phone(ALICE)
    assert await world.app.held.remove_empty(100) == 1
    assert len(world.app.held) == 0
    await settle(world)
    assert not [row for row in world.disk.devices.values() if row.row.is_alias and not row.deleted]
    phone.acknowledge(msg_id)
    assert await world.report(msg_id) == (1, 0, 0, {"received": 1}, {})
    phone.leave()
    await world.set_device(phone, NOBODY)
    again = await held(world, ALICE)
    assert waiting_for(world, ALICE) == [again]


async def test_upkeep_removes_empty_mailboxes_and_no_others() -> None:
    """Law 1"""
    async with living(with_upkeep=True) as world:
        await held(world, ALICE, ttl=10)
        kept = await held(world, BOB)
        await trio.sleep(200)
        assert len(world.app.held) == 1
        assert await world.report(kept) == WAITS


async def test_mailboxes_are_looked_at_a_few_at_a_time_and_all_of_them_in_turn(world: World) -> None:
    """Law 1"""
    aliases = [f"user {number}" for number in range(7)]
    await held(world, *aliases)  # type: ignore[arg-type]
    await held(world, "user 7", ttl=1)  # type: ignore[arg-type]
    await trio.sleep(2)
    actor_of(world, "user 7").expire()
    removed = [await world.app.held.remove_empty(3) for _ in range(3)]
    assert (sum(removed), len(world.app.held)) == (1, 7)


# --- The rules of every mailbox --------------------------------------------------------------------------------------


async def test_what_waits_for_an_alias_gives_way_over_the_limit(world: World) -> None:
    """C8, C25: each alias on its own."""
    first = await held(world, ALICE)
    others = [await held(world, ALICE) for _ in range(5)]
    for_bob = await held(world, BOB)
    assert waiting_for(world, ALICE) == others
    assert await world.report(first) == (1, 0, 0, {"overflowed": 1}, {})
    assert await world.report(for_bob) == WAITS


async def test_what_waits_for_an_alias_is_replaced_there(world: World) -> None:
    """C7, C25"""
    old = await held(world, ALICE)
    other = await held(world, ALICE)
    new = await held(world, ALICE, overrides=old)
    assert waiting_for(world, ALICE) == [other, new]
    assert await words(world, old) == ["replaced"]
    newest = await held(world, ALICE, overrides=old)
    assert waiting_for(world, ALICE) == [other, newest]


async def test_a_newer_message_that_goes_to_a_device_replaces_what_came_back_to_the_alias(world: World) -> None:
    """C7, C25: what the device declined does not come after its replacement."""
    phone = await world.phone(ALICE)
    old = await held(world, ALICE)
    phone.decline(old)
    await settle(world)
    assert waiting_for(world, ALICE) == [old]
    new = await held(world, ALICE, overrides=old)
    assert await world.report(old) == (1, 0, 0, {"replaced": 1}, {})
    assert phone.handed == [old, new]


@pytest.mark.parametrize("is_retired", [True, False])
async def test_what_waits_for_an_alias_expires_within_a_second(is_retired: bool) -> None:
    """C5, C25"""
    async with living(with_upkeep=True) as world:
        msg_id = await held(world, ALICE, ttl=10)
        if is_retired:
            await trio.sleep(5)
            assert len(world.devices) == 0
            await trio.sleep(6)
        else:
            await trio.sleep(11)
        assert await world.report(msg_id) == (1, 0, 0, {"expired": 1}, {})
        [row] = await stream(world)
        assert (row.registration_id, row.alias, row.event.word) == (None, ALICE, "expired")


async def test_what_came_back_after_its_time_has_expired_within_a_second() -> None:
    """C5, C25: it ran out on a long visit, which the fence had struck it on. Time to live reaches it as any other."""
    async with living(with_upkeep=True) as world:
        declined, left = await world.phone(ALICE), await world.phone(BOB)
        first, second = await held(world, ALICE, ttl=10), await held(world, BOB, ttl=10)
        await world.set_device(left, CAROL)
        await trio.sleep(300)
        declined.decline(first)
        left.leave()
        await trio.sleep(1)
        reports = [await world.report(each) for each in (first, second)]
        assert reports == [(1, 0, 0, {"expired": 1}, {})] * 2


async def test_what_waits_for_an_alias_is_there_after_a_restart() -> None:
    """C2, C9, C25"""
    disk = MemoryDisk()
    async with living(disk) as world:
        sent = [await held(world, ALICE) for _ in range(3)]
    async with living(disk) as world:
        assert len(world.app.held) == 1
        sent.append(await held(world, ALICE))
        phone = await world.phone(ALICE)
        await settle(world)
        assert phone.handed == sent
        assert [message.body for message in phone.visit.messages] == [b"{}"] * 4


async def test_a_limit_is_kept_through_a_restart() -> None:
    """C8, C25"""
    disk = MemoryDisk()
    async with living(disk) as world:
        sent = [await held(world, ALICE) for _ in range(5)]
    async with living(disk) as world:
        sent.append(await held(world, ALICE))
        assert await world.report(sent[0]) == (1, 0, 0, {"overflowed": 1}, {})


# --- Binding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["registering", "connect", "alias.set", "devices.set", "devices.set, absent"])
async def test_it_goes_to_the_device_on_which_the_alias_is_set_next(how: str, world: World) -> None:
    """C25: in the step that sets it, after the notification where somebody else did it (C14)."""
    phone = None if how == "registering" else await world.phone(BOB)
    sent = [await held(world, ALICE) for _ in range(3)]
    before: list[object] = []
    if phone is None:
        phone = await world.phone(ALICE)
    elif how == "connect":
        phone.leave()
        await phone.connect(alias=ALICE)
    elif how == "alias.set":
        await phone.set_alias(ALICE)
    elif how == "devices.set":
        before = [Told(ALICE)]
        await world.set_device(phone, ALICE)
    else:
        phone.leave()
        await world.set_device(phone, ALICE)
        await settle(world)
        world.retire()
        await phone.connect()
    await settle(world)
    assert phone.visit.log == [*before, *(Handed(each, ALICE) for each in sent)]
    for msg_id in sent:
        assert await phone.state(msg_id) == "sent"
        phone.acknowledge(msg_id)
    assert [await world.report(each) for each in sent] == [(1, 0, 0, {"received": 1}, {})] * 3
    assert {(row.registration_id, row.alias) for row in await stream(world)} == {(phone.registration_id, None)}


async def test_nothing_of_it_is_handed_before_the_binding_is_answered(world: World) -> None:
    """C2, C15"""
    phone = await world.phone()
    await held(world, ALICE)
    await phone.ask_for_alias(ALICE)
    await settle(world)
    assert phone.handed == []
    phone.resume()
    assert len(phone.handed) == 1


async def test_it_enters_behind_what_is_there_and_makes_nothing_give_way(world: World) -> None:
    """C8, C9, C25: though the mailbox be full; by the time it is sent, what was accepted before it comes first."""
    held_ids = [await held(world, ALICE) for _ in range(3)]
    phone = await world.absent_phone(is_retired=False)
    there = [await world.push(phone) for _ in range(5)]
    await world.set_device(phone, ALICE)
    await phone.connect()
    await settle(world)
    assert phone.handed == [*there, *held_ids]
    # Acknowledging goes by what was sent before, not by ids (C10).
    phone.acknowledge(held_ids[0])
    states = [await phone.state(each) for each in (*there, *held_ids)]
    assert states == ["received"] * 6 + ["sent"] * 2


async def test_its_place_is_kept_through_a_restart() -> None:
    """C9: on every visit."""
    disk = MemoryDisk()
    async with living(disk) as world:
        held_ids = [await held(world, ALICE) for _ in range(2)]
        phone = await world.absent_phone(is_retired=False)
        there = [await world.push(phone) for _ in range(2)]
        await world.set_device(phone, ALICE)
        later = await world.push(phone)
        order = [*there, *held_ids, later]
        await phone.connect()
        assert phone.handed == order
    async with living(disk) as world:
        phone.move(world)
        await phone.connect()
        await settle(world)
        assert phone.handed == order
        phone.acknowledge(held_ids[0])
        assert [await phone.state(each) for each in order] == ["received"] * 3 + ["sent"] * 2


async def test_what_is_bound_between_two_slices_of_a_push_is_not_acknowledged_by_it(one_by_one: None) -> None:
    """C9, C10: the push was accepted before, and enters behind: on the wire it has its place there."""
    store = HeldStore()
    async with living(store=store) as world:
        phones = [await world.absent_phone(is_retired=False) for _ in range(20)]
        phone = phones[-1]
        for_alice = await held(world, ALICE)
        with store.held("had"):
            world.nursery.start_soon(world.set_device, phone, ALICE)
            await wait_all_tasks_blocked()
            broadcast = await halfway(world, phones, push(*phones))
        await settle(world)
        await phone.arrive()
        # On disk its place is the other one: nobody can know which it had until the mailbox is read again.
        phone.visit.place_of = None
        phone.resume()
        await settle(world)
        first, second = phone.handed
        assert {first, second} == {for_alice, broadcast}
        phone.acknowledge(first)
        assert [await phone.state(each) for each in (first, second)] == ["received", "sent"]
        phone.leave()
        await phone.connect()
        assert phone.handed == [second]
        assert await phone.state(first) == "received"


async def test_a_refused_connect_brings_nothing() -> None:
    """C11, C25"""
    async with living(may_crash=True) as world:
        phone = await world.absent_phone(BOB)
        msg_id = await held(world, ALICE)
        with faulty(Directory, "set_tags"), pytest.raises(InternalError):
            await phone.arrive(alias=ALICE, tags=("x",))
        await settle(world)
        assert await world.report(msg_id) == WAITS
        await phone.connect(alias=ALICE)
        await settle(world)
        assert phone.handed == [msg_id]


async def test_two_devices_that_log_in_at_once_do_not_both_get_it(world: World) -> None:
    """C1, C25"""
    phones = [await world.phone(), await world.phone()]
    msg_id = await held(world, ALICE)
    world.retire()
    async with trio.open_nursery() as nursery:
        for phone in phones:
            nursery.start_soon(phone.set_alias, ALICE)
    await settle(world)
    assert sorted(phone.handed for phone in phones) == [[], [msg_id]]


# --- Coming back -----------------------------------------------------------------------------------------------------


async def test_what_is_declined_comes_at_the_next_binding_only(world: World) -> None:
    """C25: nothing goes round in circles."""
    phone = await world.phone(ALICE)
    msg_id = await held(world, ALICE)
    assert phone.decline(msg_id)
    await settle(world)
    assert (await world.report(msg_id), waiting_for(world, ALICE)) == (WAITS, [msg_id])
    await phone.connect(alias=ALICE)  # no change (C13)
    await phone.set_alias(ALICE)
    await settle(world)
    assert phone.handed == []
    await phone.set_alias(BOB)
    await phone.set_alias(ALICE)
    await settle(world)
    assert phone.handed == [msg_id]
    phone.acknowledge(msg_id)
    assert await world.report(msg_id) == (1, 0, 0, {"received": 1}, {})
    assert await words(world, msg_id) == ["received"]


async def test_what_the_fence_meets_waiting_comes_back_at_once_and_what_it_meets_on_the_wire_with_the_visit(
    world: World,
) -> None:
    """C25, C14"""
    phone = await world.phone(ALICE)
    sent = await held(world, ALICE)
    phone.visit.room = 0
    waited = await held(world, ALICE)
    await phone.set_alias(BOB)
    assert waiting_for(world, ALICE) == [waited]
    assert await world.report(sent) == ON_THE_WIRE
    phone.leave()
    await settle(world)
    assert waiting_for(world, ALICE) == [sent, waited]
    assert [await world.report(each) for each in (sent, waited)] == [WAITS] * 2
    await phone.connect()
    await phone.set_alias(ALICE)
    await settle(world)
    assert phone.handed == [sent, waited]


async def test_a_struck_one_that_is_acknowledged_is_received(world: World) -> None:
    """C3, C25"""
    phone = await world.phone(ALICE)
    msg_id = await held(world, ALICE)
    await phone.set_alias(BOB)
    phone.acknowledge(msg_id)
    phone.leave()
    await settle(world)
    assert await world.report(msg_id) == (1, 0, 0, {"received": 1}, {})
    assert waiting_for(world, ALICE) == []


async def test_one_that_was_replaced_on_the_wire_is_replaced_and_does_not_come_back(world: World) -> None:
    """C25: struck otherwise, it gets that verdict."""
    phone = await world.phone(ALICE)
    old = await held(world, ALICE)
    new = await held(world, ALICE, overrides=old)
    await phone.set_alias(BOB)
    phone.leave()
    await settle(world)
    assert await world.report(old) == (1, 0, 0, {"replaced": 1}, {})
    assert waiting_for(world, ALICE) == [new]


async def test_it_takes_its_old_place_and_nothing_gives_way_for_it(world: World) -> None:
    """C25, C8"""
    phone = await world.phone(ALICE)
    first = await held(world, ALICE)
    await phone.set_alias(BOB)
    others = [await held(world, ALICE) for _ in range(5)]
    phone.leave()
    await settle(world)
    assert waiting_for(world, ALICE) == [first, *others]
    newest = await held(world, ALICE)
    assert waiting_for(world, ALICE) == [*others, newest]
    assert await words(world, first) == ["overflowed"]


async def test_it_is_replaced_if_a_newer_message_has_taken_its_place_meanwhile(world: World) -> None:
    """C25, C7"""
    phone = await world.phone(ALICE)
    old = await held(world, ALICE)
    await phone.set_alias(BOB)
    new = await held(world, ALICE, overrides=old)
    assert await world.report(old) == ON_THE_WIRE
    phone.leave()
    await settle(world)
    assert await world.report(old) == (1, 0, 0, {"replaced": 1}, {})
    assert waiting_for(world, ALICE) == [new]
    assert unsettled_on_disk(world, new) == [actor_of(world, ALICE).device_no]


async def test_a_deleted_devices_held_deliveries_wait_for_their_alias(world: World) -> None:
    """C25, C24"""
    phone = await world.phone(ALICE)
    sent = await held(world, ALICE)
    plain = await world.push(alias=ALICE)
    phone.visit.room = 0
    waited = await held(world, ALICE)
    await world.delete(phone)
    await settle(world)
    assert waiting_for(world, ALICE) == [sent, waited]
    assert await world.report(plain) == (1, 0, 0, {"missed": 1}, {})
    other = await world.phone(ALICE)
    await settle(world)
    assert other.handed == [sent, waited]


async def test_a_device_that_loses_its_alias_to_another_gives_it_what_waited() -> None:
    """C13, C25: in the same step."""
    async with living(limits=Limits(alias_limit=1, alias_full=AliasFullPolicy.LONGEST_ABSENT)) as world:
        old = await world.absent_phone(ALICE)
        sent = [await held(world, ALICE) for _ in range(3)]
        new = await world.phone(ALICE)
        await settle(world)
        assert new.handed == sent
        assert [await world.report(each) for each in sent] == [ON_THE_WIRE] * 3
        await old.connect()
        assert old.handed == []


async def test_an_alias_that_is_deleted_leaves_what_is_held_waiting_for_it(world: World) -> None:
    """C14, C25: once for the user, whoever had it."""
    phones = [await world.absent_phone(ALICE), await world.absent_phone(ALICE)]
    msg_id = await held(world, ALICE)
    assert await world.report(msg_id) == (2, 2, 0, {}, {})
    await world.delete_alias(ALICE)
    await settle(world)
    assert await world.report(msg_id) == (2, 1, 0, {"fenced": 1}, {})
    assert waiting_for(world, ALICE) == [msg_id]
    await phones[0].connect(alias=ALICE)
    await settle(world)
    assert phones[0].handed == [msg_id]


# --- Several devices -------------------------------------------------------------------------------------------------


@pytest.fixture
async def two(world: World) -> list[Phone]:
    return [await world.phone(ALICE), await world.phone(ALICE)]


async def test_each_devices_delivery_is_settled_or_comes_back_on_its_own(world: World, two: list[Phone]) -> None:
    """C25"""
    msg_id = await held(world, ALICE)
    two[0].acknowledge(msg_id)
    two[1].decline(msg_id)
    await settle(world)
    assert await world.report(msg_id) == (2, 1, 0, {"received": 1}, {})
    assert waiting_for(world, ALICE) == [msg_id]


async def test_if_two_come_back_one_waits_and_the_other_is_fenced(world: World, two: list[Phone]) -> None:
    """C25: the user needs one."""
    msg_id = await held(world, ALICE)
    two[0].decline(msg_id)
    two[1].decline(msg_id)
    await settle(world)
    assert await world.report(msg_id) == (2, 1, 0, {"fenced": 1}, {})
    assert unsettled_on_disk(world, msg_id) == [actor_of(world, ALICE).device_no]
    third = await world.phone(ALICE)
    await settle(world)
    assert third.handed == [msg_id]
    third.acknowledge(msg_id)
    assert await world.report(msg_id) == (2, 0, 0, {"fenced": 1, "received": 1}, {})


async def test_a_device_gets_each_push_once(world: World, two: list[Phone]) -> None:
    """C25: what it had already waits on for another one."""
    msg_id = await held(world, ALICE)
    two[0].acknowledge(msg_id)
    two[1].decline(msg_id)
    await two[0].set_alias(BOB)
    await two[0].set_alias(ALICE)
    await settle(world)
    assert two[0].handed == [msg_id]
    assert (await world.report(msg_id), waiting_for(world, ALICE)) == ((2, 1, 0, {"received": 1}, {}), [msg_id])
    third = await world.phone(ALICE)
    await settle(world)
    assert third.handed == [msg_id]


async def test_what_a_device_has_on_its_wire_does_not_come_to_it_again(world: World, two: list[Phone]) -> None:
    """C25: struck there, and not acknowledged yet."""
    msg_id = await held(world, ALICE)
    two[1].decline(msg_id)
    await two[0].set_alias(BOB)
    await two[0].set_alias(ALICE)
    await settle(world)
    assert two[0].handed == [msg_id]
    assert await world.report(msg_id) == (2, 1, 1, {}, {})
    two[0].leave()
    await settle(world)
    assert await world.report(msg_id) == (2, 1, 0, {"fenced": 1}, {})


@pytest.mark.parametrize("is_durable", [True, False])
async def test_what_a_device_received_a_moment_ago_does_not_come_to_it_again(is_durable: bool) -> None:
    """C25: whether or not that is durable."""
    store = HeldStore()
    async with living(store=store) as world:
        two = [await world.phone(ALICE), await world.phone(ALICE)]
        msg_id = await held(world, ALICE)
        two[1].decline(msg_id)
        await two[0].set_alias(BOB)
        await settle(world)
        with store.held("commit", answer=is_durable):
            two[0].acknowledge(msg_id)
            await wait_all_tasks_blocked()
            world.nursery.start_soon(two[0].set_alias, ALICE)
            await wait_all_tasks_blocked()
        await settle(world)
        assert two[0].handed == [msg_id]
        assert (await world.report(msg_id), waiting_for(world, ALICE)) == ((2, 1, 0, {"received": 1}, {}), [msg_id])


async def test_what_a_device_has_received_does_not_come_to_it_from_the_one_that_makes_room_for_it() -> None:
    """C25, C13: what the loser of the alias gives back in that very step, too."""
    async with living(limits=Limits(alias_limit=2, alias_full=AliasFullPolicy.LONGEST_ABSENT)) as world:
        loser, phone = await world.absent_phone(ALICE), await world.phone(ALICE)
        msg_id = await held(world, ALICE)
        phone.acknowledge(msg_id)
        await phone.set_alias(BOB)
        await world.phone(ALICE)
        await phone.set_alias(ALICE)
        await settle(world)
        assert world.app.router.find(loser.registration_id).alias is None
        assert phone.handed == [msg_id]
        assert (await world.report(msg_id), waiting_for(world, ALICE)) == ((2, 1, 0, {"received": 1}, {}), [msg_id])


@pytest.mark.parametrize("how", ["overflowed", "replaced", "expired", "bound and replaced"])
async def test_what_comes_back_after_its_twin_was_settled_there_still_has_one_place(how: str) -> None:
    """C1, C25: each of a user's deliveries is settled, or comes back, on its own. Neither is lost between two
    mailboxes: what memory and disk say of it is the same, and in the end it has its verdict."""
    async with living(with_upkeep=True) as world:
        two = [await world.phone(ALICE), await world.phone(ALICE)]
        ttl = 10 if how == "expired" else DAY_S
        msg_id = await held(world, ALICE, ttl=ttl)
        two[0].decline(msg_id)
        for phone in two:
            await phone.set_alias(BOB)
        if how == "overflowed":
            for _ in range(5):
                await held(world, ALICE)
        elif how == "expired":
            await trio.sleep(11)
        else:
            await held(world, ALICE, overrides=msg_id)
            if how == "bound and replaced":
                await world.phone(ALICE)
        await settle(world)
        verdict = how.split()[-1]
        assert await world.report(msg_id) == (2, 0, 1, {verdict: 1}, {})
        two[1].decline(msg_id)
        await settle(world)
        memory = [
            actor.device_no for actor in world.devices.all() if not actor.is_deleted and actor.mailbox.holds(msg_id)
        ]
        assert memory == unsettled_on_disk(world, msg_id)
        phone = await world.phone(ALICE)
        await settle(world)
        if phone.handed:
            phone.acknowledge(phone.handed[-1])
        await world.pass_time(DAY_S)
        await trio.sleep(2)
        report = await world.report(msg_id)
        assert (report.waiting, report.sent, report.adds_up()) == (0, 0, True)


# --- Races with a push in slices -------------------------------------------------------------------------------------


async def test_what_is_fenced_between_two_slices_waits_once_for_its_alias(one_by_one: None, world: World) -> None:
    """C25, C14: one of them was there already and came back, the others came later: one waits, the rest are fenced."""
    phones = [await world.absent_phone(ALICE, is_retired=False) for _ in range(5)]
    msg_id = await halfway(world, phones, hold(ALICE))
    for phone in (phones[0], phones[-2], phones[-1]):
        await world.app.router.change(phone.registration_id, BOB, NO_TAG_CHANGE)
    await settle(world)
    assert waiting_for(world, ALICE) == [msg_id]
    assert await world.report(msg_id) == (5, 3, 0, {"fenced": 2}, {})
    assert len(unsettled_on_disk(world, msg_id)) == 3
    other = await world.phone(ALICE)
    await settle(world)
    assert other.handed == [msg_id]


async def test_what_is_fenced_before_its_slice_waits_once_for_its_alias(one_by_one: None, world: World) -> None:
    """C25, C14"""
    phones = [await world.absent_phone(ALICE, is_retired=False) for _ in range(5)]
    msg_id = await halfway(world, phones, hold(ALICE))
    for phone in phones[-2:]:
        await world.app.router.change(phone.registration_id, BOB, NO_TAG_CHANGE)
    await settle(world)
    assert waiting_for(world, ALICE) == [msg_id]
    assert await world.report(msg_id) == (5, 4, 0, {"fenced": 1}, {})
    assert len(unsettled_on_disk(world, msg_id)) == 4


async def test_a_device_that_is_deleted_before_its_slice_leaves_it_to_its_alias(one_by_one: None, world: World) -> None:
    """C25"""
    phones = [await world.absent_phone(ALICE, is_retired=False) for _ in range(5)]
    msg_id = await halfway(world, phones, hold(ALICE))
    await world.app.registrar.delete(phones[-1].registration_id)
    await settle(world)
    assert await world.report(msg_id) == (5, 5, 0, {}, {})
    assert waiting_for(world, ALICE) == [msg_id]


async def test_a_mailbox_that_is_made_between_two_slices_is_on_disk_no_later_than_what_is_in_it(
    one_by_one: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C1, C2, C25: the push is a commit of its own, and the process is killed behind it."""
    monkeypatch.setattr(ledger_module, "ROWS_PER_COMMIT", 1)
    store = HeldStore()
    async with living(store=store) as world:
        phones = [await world.absent_phone(ALICE, is_retired=False) for _ in range(5)]
        msg_id = await halfway(world, phones, hold(ALICE, ttl=60))
        # The first one makes the mailbox, in a later unit; the last one is still to come.
        for phone in (phones[0], phones[-1]):
            await world.app.router.change(phone.registration_id, BOB, NO_TAG_CHANGE)
        with store.held("commit"):
            await wait_all_tasks_blocked()
        with store.held("commit"):  # the push is on disk, the changes of the alias are not
            await wait_all_tasks_blocked()
            assert list(world.disk.pushes) == [msg_id]
            await world.kill()
    async with living(store._shared, with_upkeep=True) as world:
        await trio.sleep(62)
        assert await world.report(msg_id) == (5, 0, 0, {"expired": 5}, {})


async def test_a_mailbox_that_a_push_is_on_its_way_to_is_not_removed(one_by_one: None, world: World) -> None:
    """C25: nothing waits there yet, and something will."""
    phones = [await world.absent_phone(ALICE, is_retired=False) for _ in range(3)]
    msg_id = await halfway(world, phones, hold(ALICE, BOB))
    await world.app.held.remove_empty(100)
    await settle(world)
    assert await world.report(msg_id) == (4, 4, 0, {}, {})
    unsettled_on_disk(world, msg_id)
    phone = await world.phone(BOB)
    await settle(world)
    assert phone.handed == [msg_id]


async def test_an_override_in_slices_replaces_what_came_back_meanwhile(one_by_one: None, world: World) -> None:
    """C7, C25: what a device gives back while its replacement is on its way."""
    phones = [await world.absent_phone(ALICE, is_retired=False) for _ in range(4)]
    old = await held(world, ALICE)
    new = await halfway(world, phones, hold(ALICE, overrides=old))
    for phone in phones[-2:]:
        await world.app.router.change(phone.registration_id, BOB, NO_TAG_CHANGE)
    await settle(world)
    assert waiting_for(world, ALICE) == [new]
    reports = [await world.report(each) for each in (old, new)]
    assert all(report.adds_up() for report in reports)
    assert reports[0].waiting == 0
    assert len(unsettled_on_disk(world, new)) == reports[1].waiting == 3


# --- Crashes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("method", ["leave", "decline", "rebind", "clear"])
async def test_a_device_that_crashes_while_it_gives_back_loses_nothing(method: str, is_late: bool) -> None:
    """C1, C25"""
    async with living(may_crash=True) as world:
        phone = await world.phone(ALICE)
        sent = await held(world, ALICE)
        phone.visit.room = 0
        waited = await held(world, ALICE)
        if method == "leave":
            await phone.ask_for_alias(BOB)
        plant(phone.actor, method, is_late=is_late)
        if method == "leave":
            phone.leave()
        elif method == "decline":
            with pytest.raises(ActorCrashed):
                phone.decline(sent)
        elif method == "rebind":
            with pytest.raises(ActorCrashed):
                await phone.ask_for_alias(BOB)
        else:
            with pytest.raises(ActorCrashed):
                await world.delete(phone)
        await settle(world)
        for msg_id in (sent, waited):
            assert await world.report(msg_id) == WAITS
            unsettled_on_disk(world, msg_id)
        if method == "leave":
            assert waiting_for(world, ALICE) == [sent, waited]
        else:
            assert waiting_for(world, ALICE) == []
        other = await world.phone()
        await world.delete_alias(ALICE)
        await other.set_alias(ALICE)
        await settle(world)
        assert other.handed == [sent, waited]


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("method", ["readmit", "holds"])
async def test_a_mailbox_that_crashes_over_what_comes_back_finds_it_in_the_store(method: str, is_late: bool) -> None:
    """Law 2"""
    async with living(may_crash=True) as world:
        phone = await world.phone(ALICE)
        first, second = await held(world, ALICE), await held(world, ALICE)
        phone.decline(first)
        await settle(world)
        plant(actor_of(world, ALICE), method, is_late=is_late)
        phone.decline(second)
        await settle(world)
        assert world.tally.read("actor_crashes") == 1
        assert waiting_for(world, ALICE) == [first, second]
        assert [await world.report(each) for each in (first, second)] == [WAITS] * 2
        other = await world.phone(ALICE)
        await settle(world)
        assert other.handed == [first, second]


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("method", ["release", "admit"])
async def test_a_binding_that_fails_has_not_happened(method: str, is_late: bool) -> None:
    """C25, C11: whoever fails over it, the mailbox or the device."""
    async with living(may_crash=True) as world:
        phone = await world.phone(BOB)
        sent = [await held(world, ALICE) for _ in range(3)]
        for_bob = await held(world, BOB)
        plant(phone.actor if method == "admit" else actor_of(world, ALICE), method, is_late=is_late)
        with pytest.raises(ActorCrashed):
            await phone.ask_for_alias(ALICE)
        await settle(world)
        assert [await world.report(each) for each in sent] == [WAITS] * 3
        assert (waiting_for(world, ALICE), waiting_for(world, BOB)) == (sent, [])
        assert world.app.router.find(phone.registration_id).alias == BOB
        assert unsettled_on_disk(world, for_bob) == [phone.device_no]
        await phone.connect(alias=ALICE)
        await settle(world)
        assert phone.handed == sent


async def test_a_mailbox_that_was_made_for_a_step_that_failed_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    """Law 3"""
    async with living(may_crash=True) as world:
        phone = await world.phone(ALICE)
        phone.visit.room = 0
        msg_id = await held(world, ALICE)
        with faulty(Directory, "set_alias"), pytest.raises(InternalError):
            await phone.ask_for_alias(BOB)
        assert len(world.app.held) == 0
        await settle(world)
        assert await world.report(msg_id) == WAITS
        assert unsettled_on_disk(world, msg_id) == [phone.device_no]
        later = await held(world, ALICE)
        await phone.connect()
        await settle(world)
        assert phone.handed == [msg_id, later]
        await phone.set_alias(BOB)
        phone.leave()
        await settle(world)
        assert waiting_for(world, ALICE) == [msg_id, later]


async def test_the_next_actor_of_a_mailbox_finds_what_is_not_durable_yet() -> None:
    """Law 2: it begins when what its predecessor was given is in the store."""
    store = HeldStore()
    async with living(store=store, may_crash=True) as world:
        phone = await world.phone(ALICE)
        first, second = await held(world, ALICE), await held(world, ALICE)
        phone.decline(first)
        await settle(world)
        plant(actor_of(world, ALICE), "readmit")
        with store.held("commit"):
            phone.decline(second)
            await wait_all_tasks_blocked()
        await settle(world)
        assert waiting_for(world, ALICE) == [first, second]


@pytest.mark.parametrize("how", ["accepted", "returned"])
async def test_a_mailbox_is_made_before_anything_is_put_in(how: str) -> None:
    """Law 1: within its commit, too."""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone(BOB)
        msg_id = await held(world, ALICE if how == "accepted" else BOB)
        if how == "returned":
            phone.decline(msg_id)
            await world.told()
        made = [type(change).__name__ for change in store.commits[-1][1]]
        assert made.index("Registered") < made.index("Accepted" if how == "accepted" else "Moved")


async def test_a_mailbox_that_crashes_over_a_newcomer_keeps_it() -> None:
    """C25"""
    async with living(may_crash=True) as world:
        first = await held(world, ALICE)
        plant(actor_of(world, ALICE), "enter")
        second = await held(world, ALICE)
        await settle(world)
        assert [await world.report(each) for each in (first, second)] == [WAITS] * 2
        phone = await world.phone(ALICE)
        await settle(world)
        assert phone.handed == [first, second]


async def test_a_mailbox_that_has_too_much_to_do_before_it_is_ready_finds_it_in_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Law 2"""
    monkeypatch.setattr(inbox_module, "KEPT", 2)
    store = HeldStore()
    async with living(store=store, may_crash=True) as world:
        phone = await world.phone(ALICE)
        sent = [await held(world, ALICE) for _ in range(5)]
        phone.decline(sent[0])
        await settle(world)
        world.retire()
        with store.held("mailboxes"):
            for msg_id in sent[1:]:
                phone.decline(msg_id)
            await wait_all_tasks_blocked()
        await settle(world)
        assert [await world.report(each) for each in sent] == [WAITS] * 5
        other = await world.phone(ALICE)
        await settle(world)
        assert other.handed == sent


async def test_a_mailbox_that_is_being_loaded_takes_what_comes_back(world: World) -> None:
    """C25"""
    phone = await world.phone(ALICE)
    first, second = await held(world, ALICE), await held(world, ALICE)
    phone.decline(second)
    await settle(world)
    world.retire()
    assert waiting_for(world, ALICE) == []
    phone.decline(first)
    await settle(world)
    assert waiting_for(world, ALICE) == [first, second]


async def test_a_mailbox_that_is_made_while_the_directory_is_loaded_again_is_not_forgotten() -> None:
    """C25, router's law 5: what is being loaded may not have it."""
    store = HeldStore()
    async with living(store=store, may_crash=True) as world:
        phone, other = await world.phone(ALICE), await world.phone(BOB)
        msg_id = await held(world, ALICE)
        with store.held("alias_mailboxes", answer=True):
            with faulty(Directory, "set_alias"), pytest.raises(InternalError):
                await other.ask_for_alias(CAROL)
            await wait_all_tasks_blocked()
            phone.decline(msg_id)
            await wait_all_tasks_blocked()
        await settle(world)
        assert await world.report(msg_id) == WAITS
        assert waiting_for(world, ALICE) == [msg_id]
        third = await world.phone(ALICE)
        await settle(world)
        assert third.handed == [msg_id]


@pytest.mark.parametrize("is_durable", [False, True])
@pytest.mark.parametrize("what", ["declined", "rebound", "left", "deleted", "bound"])
async def test_a_kill_while_it_changes_mailboxes_loses_nothing(what: str, is_durable: bool) -> None:
    """C1, C2, C25: before and after the commit that moves it."""
    store = HeldStore()
    async with living(store=store) as world:
        phone, other = await world.phone(ALICE), await world.phone()
        sent = await held(world, ALICE)
        phone.visit.room = 0
        waited = await held(world, ALICE)
        for_bob = await held(world, BOB)
        if what == "left":
            await phone.ask_for_alias(CAROL)
        with store.held("commit", answer=is_durable):
            if what == "declined":
                phone.decline(sent)
            elif what == "rebound":
                world.nursery.start_soon(phone.ask_for_alias, CAROL)
            elif what == "left":
                phone.leave()
            elif what == "deleted":
                world.nursery.start_soon(world.delete, phone)
            else:
                world.nursery.start_soon(other.ask_for_alias, BOB)
            await wait_all_tasks_blocked()
            await world.kill()
    async with living(store._shared) as world:
        await settle(world)
        for msg_id in (sent, waited, for_bob):
            assert await world.report(msg_id) == WAITS
            unsettled_on_disk(world, msg_id)
        await world.delete_alias(ALICE)
        await world.delete_alias(BOB)
        await settle(world)
        third = await world.phone(ALICE)
        await settle(world)
        assert third.handed == [sent, waited]
        await third.set_alias(BOB)
        await settle(world)
        assert third.handed == [sent, waited, for_bob]


async def test_a_struck_one_comes_back_after_a_kill() -> None:
    """C3, C25: nobody needs to ask for its device first."""
    disk = MemoryDisk()
    async with living(disk) as world:
        phone = await world.phone(ALICE)
        msg_id = await held(world, ALICE)
        await phone.set_alias(BOB)
    async with living(disk) as world:
        await settle(world)
        assert waiting_for(world, ALICE) == [msg_id]
        assert await world.report(msg_id) == WAITS
        assert await world.store.stranded(world.app.tenant.app_no) == []
        other = await world.phone(ALICE)
        await settle(world)
        assert other.handed == [msg_id]
        phone.move(world)
        await phone.connect()
        assert phone.handed == []


async def test_a_mark_that_comes_after_it_went_back_is_ignored(world: World) -> None:
    """C3, C25: it is with no device."""
    phone = await world.phone(ALICE)
    msg_id = await held(world, ALICE)
    phone.decline(msg_id)
    await settle(world)
    phone.mark(msg_id, Mark.OPENED)
    await settle(world)
    assert await world.report(msg_id) == WAITS


async def test_conservation_holds_for_every_push_along_a_long_story(world: World) -> None:
    """C1: and exactly one verdict each."""
    phones = [await world.phone(ALICE), await world.phone(ALICE), await world.phone()]
    sent = []
    for number in range(12):
        sent.append(await held(world, ALICE, BOB, overrides=sent[-1] if number % 4 == 3 else None))
        phone = phones[number % 3]
        if number % 2:
            await phone.set_alias(BOB if number % 4 == 1 else ALICE)
        if number % 3 == 0 and phone.handed:
            phone.decline(phone.handed[-1])
        if number % 5 == 4:
            phone.leave()
            await phone.connect()
        await settle(world)
        for msg_id in sent:
            assert (await world.report(msg_id)).adds_up()
    verdicts = [row for row in await stream(world) if row.event <= max(Verdict)]
    reports = await world.reports(sent)
    assert len(verdicts) == sum(sum(report.verdicts.values()) for report in reports.values())

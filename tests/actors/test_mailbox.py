"""One mailbox, carried out: what it decides is booked with what caused it, wherever a delivery is by then."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pushactors.actors import fanout as fanout_module
from pushactors.actors import ledger as ledger_module
from pushactors.actors.unit import Unit
from pushactors.domain.receipts import Reason, Why
from pushactors.errors import ActorCrashed
from pushactors.stores.contract import Accepted, Moved, Settled
from pushactors.wire.ids import MsgId
from tests.actors.world import (
    ALICE,
    BOB,
    HeldStore,
    Phone,
    World,
    held,
    hold,
    living,
    plant,
    push,
    unsettled_on_disk,
    wall_clock,
    words,
)


async def halfway(world: World, phones: list[Phone], **said: object) -> None:
    """Between two slices of a push, when it has come to the first of these phones."""

    async def ask() -> None:
        await world.push(*phones, **said)  # type: ignore[arg-type]

    before = {entry.msg_id for entry in phones[0].actor.mailbox.waiting}
    world.nursery.start_soon(ask)
    for _ in range(100):
        if {entry.msg_id for entry in phones[0].actor.mailbox.waiting} - before:
            return
        await trio.lowlevel.checkpoint()
    raise AssertionError("The push does not come.")


async def settle(world: World) -> None:
    await world.told()
    await wait_all_tasks_blocked()


async def test_what_a_newcomer_replaces_is_durable_together_with_it() -> None:
    """C2, law 1: for an alias as for a device."""
    store = HeldStore()
    async with living(store=store) as world:
        old = await held(world, ALICE)
        await held(world, ALICE, overrides=old)
        kinds = [type(change).__name__ for change in store.commits[-1][1]]
        assert {"Settled", "Accepted"} <= set(kinds)


async def test_what_is_moved_is_one_delivery_and_one_change() -> None:
    """C1, law 3: in the unit of the change of alias that moves it."""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone()
        msg_id = await held(world, ALICE)
        await phone.set_alias(ALICE)
        [moved] = [change for change in store.commits[-1][1] if isinstance(change, Moved)]
        assert (moved.msg_id, moved.to, moved.binding) == (msg_id, phone.device_no, 1)
        assert moved.place is not None
        assert moved.place > msg_id
        phone.decline(msg_id)
        await settle(world)
        changes = [change for _, commit in store.commits for change in commit]
        assert [change for change in changes if isinstance(change, Settled)] == []
        assert len([change for change in changes if isinstance(change, Accepted)]) == 1
        assert world.tally.read("ignored", "store") == 0


async def test_a_push_in_slices_that_replaces_what_was_moved_meanwhile_settles_it_where_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """C1, C7: it was moved in a later unit than the push's, so it is settled in one that is later still."""
    monkeypatch.setattr(fanout_module, "SLICE", 1)
    monkeypatch.setattr(ledger_module, "ROWS_PER_COMMIT", 1)
    store = HeldStore()
    async with living(store=store) as world:
        phones = [await world.absent_phone(is_retired=False) for _ in range(20)]
        old = await held(world, ALICE)
        with store.held("had"):
            world.nursery.start_soon(world.set_device, phones[-1], ALICE)
            await wait_all_tasks_blocked()
            await halfway(world, phones, overrides=old)
        await settle(world)
        assert await words(world, old) == ["replaced"]
        assert world.tally.read("ignored", "store") == 0
        assert unsettled_on_disk(world, old) == []
        assert not phones[-1].actor.mailbox.holds(old)


async def test_a_reason_is_that_of_the_mailbox_it_is_in(world: World) -> None:
    """C21"""
    phone = await world.phone(ALICE)
    msg_id = await held(world, ALICE, BOB)
    assert phone.actor.reason(msg_id) == Reason(Why.UNACKNOWLEDGED, since=wall_clock())
    mailbox = world.app.held.find(BOB)
    assert mailbox is not None
    actor = world.devices.at_rest(mailbox.device_no)
    assert actor is not None
    assert actor.reason(msg_id) == Reason(Why.UNHELD, since=wall_clock())
    assert actor.reason(MsgId(99)) is None
    phone.acknowledge(msg_id)
    assert phone.actor.reason(msg_id) is None


async def test_an_abandoned_unit_takes_nothing_to_an_alias() -> None:
    """Law 3, held's law 3: not even when the mailbox gets its state only afterwards."""
    async with living(may_crash=True) as world:
        phone = await world.phone(ALICE)
        first, second = await held(world, ALICE), await held(world, ALICE)
        phone.decline(first)
        await settle(world)
        world.retire()
        assert world.app.held.find(ALICE) is not None
        phone.visit.room = 0
        waits = await held(world, ALICE)
        plant(phone.actor, "rebind", is_late=True)
        with pytest.raises(ActorCrashed):
            await phone.ask_for_alias(BOB)
        await settle(world)
        mailbox = world.app.held.find(ALICE)
        assert mailbox is not None
        assert unsettled_on_disk(world, first) == [mailbox.device_no]
        assert unsettled_on_disk(world, waits) == unsettled_on_disk(world, second) == [phone.device_no]


async def test_a_unit_without_a_part_of_the_mailbox_is_not_waited_for(world: World) -> None:
    """Law 1: what is refused at once books nothing."""
    phone = await world.absent_phone(ALICE, is_retired=False)
    unit: Unit = world.app.tenant.book.open()
    phone.actor.expire()
    assert unit.changes == []
    unit.close()
    await world.told()
    accepted = await world.accept(push(phone))
    assert accepted.targets == 1
    assert (await world.app.fanout.count_targets(hold(ALICE))) == 1

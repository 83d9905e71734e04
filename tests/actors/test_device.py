"""One device: its mailbox and its visit, carried out."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from pushactors.actors.tenant import Limits
from pushactors.actors.visits import Ending
from pushactors.domain.message import Mark, Message, Verdict
from pushactors.wire.ids import MsgId
from tests.actors.world import ALICE, BOB, CAROL, DAY_MS, NOBODY, Handed, HeldStore, Told, World, living, wall_clock

# --- Handing over ----------------------------------------------------------------------------------------------------


async def test_a_message_is_handed_to_the_visit_when_it_is_on_disk(world: World) -> None:
    """C2"""
    phone = await world.phone()
    msg_id = await world.push(phone, body=b"content", ttl=60, overrides=MsgId(7))
    assert phone.handed == [msg_id]
    [message] = phone.visit.messages
    assert (message.body, message.overrides) == (b"content", 7)
    assert message.sent_at == wall_clock()
    assert message.expires_at == message.sent_at + 60_000


async def test_nothing_is_handed_while_the_disk_has_not_answered() -> None:
    """C2"""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone()
        with store.held("commit", answer=True):
            world.nursery.start_soon(world.push, phone)
            await wait_all_tasks_blocked()
            assert phone.handed == []
        await wait_all_tasks_blocked()
        assert len(phone.handed) == 1


async def test_nothing_is_handed_before_the_device_has_the_answer_to_its_connect(world: World) -> None:
    """C15"""
    phone = await world.absent_phone()
    waiting = await world.push(phone)
    await phone.arrive()
    fresh = await world.push(phone)
    flown = await world.push(phone, ttl=0)
    await wait_all_tasks_blocked()
    assert phone.handed == []
    phone.resume()
    assert phone.handed == [waiting, fresh, flown]


async def test_the_farewell_of_an_answer_to_an_earlier_visit_does_not_open_the_present_one(world: World) -> None:
    """C11"""
    phone = await world.phone()
    earlier = phone.visit
    await phone.arrive()
    msg_id = await world.push(phone)
    phone.actor.resume(earlier.visit_id)
    assert phone.handed == []
    phone.resume()
    assert phone.handed == [msg_id]


async def test_the_frame_names_the_alias_that_the_message_was_addressed_by(world: World) -> None:
    """C14, C16"""
    phone = await world.phone(ALICE)
    by_alias = await world.push(alias=(ALICE, BOB))
    by_id = await world.push(phone)
    assert phone.visit.log == [Handed(by_alias, ALICE), Handed(by_id, None)]


async def test_what_waits_in_the_store_is_handed_with_its_content(world: World) -> None:
    phone = await world.absent_phone(ALICE)
    first = await world.push(alias=ALICE, body=b"first")
    second = await world.push(phone, body=b"second", ttl=60)
    accepted_at = wall_clock()
    world.retire()
    assert len(world.devices) == 0
    await trio.sleep(30)
    await phone.connect()
    await wait_all_tasks_blocked()
    assert phone.visit.log == [Handed(first, ALICE), Handed(second, None)]
    assert [message.body for message in phone.visit.messages] == [b"first", b"second"]
    assert [message.sent_at for message in phone.visit.messages] == [accepted_at, accepted_at]
    assert [message.expires_at for message in phone.visit.messages] == [accepted_at + DAY_MS, accepted_at + 60_000]


async def test_a_newcomer_does_not_overtake_what_still_comes_from_the_store() -> None:
    """C9"""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.absent_phone()
        waiting = await world.push(phone)
        world.retire()
        with store.held("bodies"):
            await phone.connect()
            newcomer = await world.push(phone)
            flown = await world.push(phone, ttl=0)
            assert phone.handed == []
        await wait_all_tasks_blocked()
        assert phone.handed == [waiting, newcomer, flown]


async def test_content_that_comes_after_the_visit_has_gone_is_kept_for_the_next() -> None:
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.absent_phone()
        waiting = await world.push(phone)
        world.retire()
        with store.held("bodies"):
            await phone.connect()
            phone.leave()
            await world.told()
        await wait_all_tasks_blocked()
        asked = store.asked["bodies"]
        await phone.connect()
        assert phone.handed == [waiting]
        assert store.asked["bodies"] == asked


async def test_at_most_a_window_is_unacknowledged_at_a_time() -> None:
    """C10"""
    async with living(limits=Limits(window=2)) as world:
        phone = await world.phone()
        sent = [await world.push(phone) for _ in range(5)]
        assert phone.handed == sent[:2]
        phone.acknowledge(sent[0])
        assert phone.handed == sent[:3]
        phone.acknowledge(sent[2])
        assert phone.handed == sent


async def test_a_full_buffer_stops_sending_until_it_has_drained(world: World) -> None:
    """C12: deliveries stay `waiting`."""
    phone = await world.phone()
    phone.visit.room = 1
    sent = [await world.push(phone) for _ in range(3)]
    assert phone.handed == sent[:1]
    assert [await phone.state(each) for each in sent] == ["sent", "waiting", "waiting"]
    phone.take(1)
    assert phone.handed == sent[:2]
    phone.take()
    assert phone.handed == sent


async def test_what_is_due_expires_instead_of_being_handed(world: World) -> None:
    """C5: without upkeep, which notices it within a second."""
    phone = await world.phone()
    phone.visit.room = 0
    short, long = await world.push(phone, ttl=5), await world.push(phone, ttl=50)
    await trio.sleep(5)
    phone.take()
    assert phone.handed == [long]
    assert await phone.state(short) == "expired"


async def test_the_instant_since_when_the_window_is_full_and_nothing_is_acknowledged_is_known() -> None:
    """C12"""
    async with living(limits=Limits(window=2)) as world:
        phone = await world.phone(ALICE)
        actor = phone.actor
        first, second = await world.push(phone), await world.push(phone)
        begun = trio.current_time()
        assert actor.full_since == begun
        await trio.sleep(5)
        third = await world.push(phone)
        assert actor.full_since == begun  # what waits behind it does not count
        phone.acknowledge(first)
        assert actor.full_since == begun + 5  # one left, and the next took its place
        phone.acknowledge(third)
        assert actor.full_since is None
        assert second < third
        for _ in range(2):
            await world.push(alias=ALICE)
        assert actor.full_since == begun + 5
        phone.decline(phone.handed[-1])
        assert actor.full_since is None
        last = await world.push(phone)
        assert actor.full_since == begun + 5
        phone.mark(last)
        assert actor.full_since is None
        await world.push(phone)
        assert actor.full_since is not None
        phone.leave()
        assert actor.full_since is None


# --- What the device says --------------------------------------------------------------------------------------------


async def test_an_acknowledgement_covers_all_that_were_sent_before_it_on_this_visit(world: World) -> None:
    """C10"""
    phone = await world.phone()
    sent = [await world.push(phone) for _ in range(3)]
    assert phone.acknowledge(sent[1])
    assert [await phone.state(each) for each in sent] == ["received", "received", "sent"]


async def test_an_acknowledgement_of_what_is_not_on_the_wire_is_ignored(world: World) -> None:
    """C3"""
    phone = await world.phone()
    phone.visit.room = 1
    sent, waiting = await world.push(phone), await world.push(phone)
    assert not phone.acknowledge(waiting)
    assert not phone.acknowledge(MsgId(999))
    assert phone.acknowledge(sent)
    assert not phone.acknowledge(sent)
    assert [await phone.state(each) for each in (sent, waiting)] == ["received", "waiting"]


async def test_whatever_an_earlier_visit_still_says_is_ignored(world: World) -> None:
    """C11, C3: an acknowledgement counts only on the visit that sent the message."""
    phone = await world.phone(ALICE)
    msg_id = await world.push(alias=ALICE)
    earlier = phone.visit
    await phone.connect()
    assert phone.handed == [msg_id]
    assert not phone.acknowledge(msg_id, earlier)
    assert not phone.decline(msg_id, earlier)
    assert await phone.state(msg_id) == "sent"


async def test_what_is_declined_is_fenced_it_alone(world: World) -> None:
    """C14: addressed to an alias that is not logged in there."""
    phone = await world.phone(ALICE)
    first, second, third = [await world.push(alias=ALICE) for _ in range(3)]
    assert phone.decline(second)
    assert not phone.decline(second)
    assert [await phone.state(each) for each in (first, second, third)] == ["sent", "fenced", "sent"]


async def test_what_was_not_addressed_by_alias_cannot_be_declined(world: World) -> None:
    """C16"""
    phone = await world.phone(ALICE)
    msg_id = await world.push(phone)
    assert not phone.decline(msg_id)
    assert await phone.state(msg_id) == "sent"


async def test_declining_makes_room_in_the_window() -> None:
    async with living(limits=Limits(window=1)) as world:
        phone = await world.phone(ALICE)
        first, second = await world.push(alias=ALICE), await world.push(alias=ALICE)
        phone.decline(first)
        assert phone.handed == [first, second]


async def test_a_mark_acknowledges_that_one_message_on_any_visit(world: World) -> None:
    """C3, decision 8"""
    phone = await world.phone()
    first, second = await world.push(phone), await world.push(phone)
    phone.leave()
    phone.mark(second)
    assert [await phone.state(each) for each in (first, second)] == ["waiting", "received"]
    assert (await world.report(second)).marks == {"opened": 1}
    await phone.connect()
    assert phone.handed == [first]


async def test_each_mark_counts_once(world: World) -> None:
    phone = await world.phone()
    msg_id = await world.push(phone)
    for mark in (Mark.DISMISSED, Mark.OPENED, Mark.OPENED, Mark.WITHDRAWN):
        phone.mark(msg_id, mark)
    assert await world.report(msg_id) == (1, 0, 0, {"received": 1}, {"opened": 1, "dismissed": 1, "withdrawn": 1})
    assert world.tally.read("ignored", "store") == 1


async def test_a_mark_on_what_has_another_verdict_is_ignored_and_counted(world: World) -> None:
    """C1, C3"""
    phone = await world.phone(ALICE)
    msg_id = await world.push(alias=ALICE)
    phone.decline(msg_id)
    phone.mark(msg_id)
    phone.mark(MsgId(999))
    assert await world.report(msg_id) == (1, 0, 0, {"fenced": 1}, {})
    assert world.tally.read("ignored", "store") == 2


async def test_a_verdict_and_the_mark_that_brought_it_are_durable_together() -> None:
    """C2"""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone()
        msg_id = await world.push(phone)
        phone.mark(msg_id)
        await world.told()
        assert [type(change).__name__ for change in store.commits[-1][1]] == ["Settled", "Marked"]


# --- Visits ----------------------------------------------------------------------------------------------------------


async def test_what_was_not_acknowledged_goes_back_to_the_head_in_order(world: World) -> None:
    """C8, C9"""
    phone = await world.phone()
    phone.visit.room = 3
    sent = [await world.push(phone) for _ in range(5)]
    phone.acknowledge(sent[0])
    phone.leave()
    later = await world.push(phone)
    await phone.connect()
    assert phone.handed == [*sent[1:], later]


async def test_a_device_is_told_how_much_waits_for_it(world: World) -> None:
    phone = await world.absent_phone()
    assert (await phone.connect()).waiting == 0
    await world.push(phone)
    await world.push(phone)
    assert (await phone.connect()).waiting == 2
    phone.leave()
    world.retire()
    assert (await phone.connect()).waiting == 2


async def test_a_new_visit_displaces_the_old_one(world: World) -> None:
    """C11: what was sent on it is sent again, on the new one."""
    phone = await world.phone()
    msg_id = await world.push(phone)
    earlier = phone.visit
    await phone.connect()
    assert earlier.ending is Ending.DISPLACED
    assert earlier.handed == phone.handed == [msg_id]
    fresh = await world.push(phone)
    assert phone.handed == [msg_id, fresh]
    assert earlier.handed == [msg_id]


async def test_the_late_farewell_of_a_displaced_visit_changes_nothing(world: World) -> None:
    """C11: a visit number guards every goodbye."""
    phone = await world.phone()
    msg_id = await world.push(phone)
    earlier = phone.visit
    await phone.connect()
    phone.leave(earlier)
    assert phone.visit.ending is None
    assert phone.actor.visit is phone.visit
    assert phone.acknowledge(msg_id)


async def test_what_ends_with_a_visit_has_its_verdict_when_it_is_over(world: World) -> None:
    """C3: missed (time to live 0), expired if it is due, its strike, else waiting again."""
    phone = await world.phone(ALICE)
    kept = await world.push(phone)
    flown = await world.push(phone, ttl=0)
    short = await world.push(phone, ttl=5)
    replaced = await world.push(phone)
    phone.visit.room = 0
    queued = await world.push(phone, ttl=0)
    newcomer = await world.push(phone, overrides=replaced)
    await trio.sleep(10)
    assert [await phone.state(each) for each in (kept, flown, short, replaced)] == ["sent"] * 4
    phone.leave()
    states = [await phone.state(each) for each in (kept, flown, short, replaced, queued, newcomer)]
    assert states == ["waiting", "missed", "expired", "replaced", "missed", "waiting"]


async def test_a_struck_delivery_that_is_acknowledged_is_received(world: World) -> None:
    """C3"""
    phone = await world.phone()
    struck = await world.push(phone)
    newcomer = await world.push(phone, overrides=struck)
    assert await phone.state(struck) == "sent"
    phone.acknowledge(newcomer)
    assert await phone.state(struck) == "received"


async def test_a_delivery_is_off_the_wire_as_soon_as_it_waits_again(world: World) -> None:
    """C1"""
    phone = await world.phone()
    again, missed = await world.push(phone), await world.push(phone, ttl=0)
    phone.leave()
    assert (world.wire.of(again), world.wire.of(missed)) == (0, 1)
    await world.told()
    assert world.wire.of(missed) == 0


async def test_the_end_of_a_visit_is_seen(world: World) -> None:
    phone = await world.phone()
    assert world.devices.is_present(phone.device_no)
    phone.leave()
    assert not world.devices.is_present(phone.device_no)


# --- Changes of the alias --------------------------------------------------------------------------------------------


async def test_nothing_is_handed_while_the_device_waits_for_the_answer_to_its_own_change(world: World) -> None:
    """C14"""
    phone = await world.phone(ALICE)
    await phone.ask_for_alias(BOB)
    to_phone, to_bob = await world.push(phone), await world.push(alias=BOB)
    flown = await world.push(phone, ttl=0)
    assert phone.handed == []
    phone.resume()
    assert phone.visit.log == [Handed(to_phone, None), Handed(to_bob, BOB), Handed(flown, None)]


async def test_nothing_under_the_earlier_binding_is_handed_after_a_change(world: World) -> None:
    """C14, C16"""
    phone = await world.phone(ALICE)
    phone.visit.room = 1
    sent = await world.push(alias=ALICE)
    waiting, other = await world.push(alias=ALICE), await world.push(phone)
    await phone.set_alias(BOB)
    phone.take()
    assert phone.handed == [sent, other]
    assert [await phone.state(each) for each in (sent, waiting, other)] == ["sent", "fenced", "sent"]
    phone.leave()
    assert [await phone.state(each) for each in (sent, waiting, other)] == ["fenced", "fenced", "waiting"]


async def test_the_same_alias_again_is_another_binding(world: World) -> None:
    """C14: A, then B, then A again are three bindings."""
    phone = await world.phone(ALICE)
    phone.visit.room = 0
    under_the_first = await world.push(alias=ALICE)
    await phone.set_alias(BOB)
    await phone.set_alias(ALICE)
    under_the_third = await world.push(alias=ALICE)
    phone.take()
    assert phone.visit.log == [Handed(under_the_third, ALICE)]
    assert await phone.state(under_the_first) == "fenced"


async def test_a_device_that_changes_its_own_alias_is_not_told_of_it(world: World) -> None:
    phone = await world.phone(ALICE)
    await phone.set_alias(BOB)
    await phone.set_alias(NOBODY)
    assert phone.visit.log == []


async def test_an_app_servers_change_is_told_when_it_is_durable_and_before_the_first_message_under_it() -> None:
    """C14, C2"""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone(ALICE)
        with store.held("commit"):
            world.nursery.start_soon(world.set_device, phone, BOB)
            await wait_all_tasks_blocked()
            flown = await world.push(alias=BOB, ttl=0)
            assert phone.visit.log == []
        await wait_all_tasks_blocked()
        msg_id = await world.push(alias=BOB)
        assert phone.visit.log == [Told(BOB), Handed(flown, BOB), Handed(msg_id, BOB)]


async def test_an_app_servers_change_is_told_before_the_first_message_under_it_in_one_commit_with_others() -> None:
    """C14: everything that is decided during one commit becomes durable with the next, in one turn."""
    store = HeldStore()
    async with living(store=store) as world:
        phone, other = await world.phone(ALICE), await world.phone()
        with store.held("commit"):
            other.mark(MsgId(999))
            await wait_all_tasks_blocked()
            for decide in (
                lambda: world.push(phone),
                lambda: world.set_device(phone, BOB),
                lambda: world.push(alias=BOB),
            ):
                world.nursery.start_soon(decide)
                await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        [under_the_new_one] = [entry for entry in phone.visit.log if isinstance(entry, Handed) and entry.alias == BOB]
        assert phone.visit.log.index(Told(BOB)) < phone.visit.log.index(under_the_new_one)
        assert len(phone.handed) == 2


async def test_clearing_by_an_app_server_is_told_too(world: World) -> None:
    phone = await world.phone(ALICE)
    await world.set_device(phone, NOBODY)
    assert phone.visit.log == [Told(None)]


async def test_changes_by_an_app_server_are_told_in_their_order(world: World) -> None:
    phone = await world.phone(ALICE)
    async with trio.open_nursery() as nursery:
        for alias in (BOB, CAROL, ALICE):
            nursery.start_soon(world.set_device, phone, alias)
            await wait_all_tasks_blocked()
    assert phone.visit.told == [BOB, CAROL, ALICE]
    assert phone.visit.told[-1] == world.app.router.find(phone.registration_id).alias


async def test_an_app_servers_change_is_not_told_before_the_answer_to_the_connect_that_came_first() -> None:
    """C14, law 3: the answer would name the earlier alias, and the device would believe it."""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.absent_phone(ALICE, is_retired=False)
        with store.held("commit"):
            world.nursery.start_soon(phone.arrive)
            await wait_all_tasks_blocked()
            world.nursery.start_soon(world.set_device, phone, BOB)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert phone.welcome.alias == ALICE
        assert phone.visit.log == []
        phone.resume()
        assert phone.visit.log == [Told(BOB)]


async def test_an_app_servers_change_is_not_told_before_the_answer_to_the_devices_own_that_came_first() -> None:
    """C14, law 3"""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone(ALICE)
        with store.held("commit"):
            world.nursery.start_soon(phone.ask_for_alias, BOB)
            await wait_all_tasks_blocked()
            world.nursery.start_soon(world.set_device, phone, CAROL)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert phone.visit.log == []
        phone.resume()
        assert phone.visit.log == [Told(CAROL)]


async def test_an_app_servers_change_is_not_told_after_the_answer_to_the_devices_own_that_came_later() -> None:
    """C14: the device would believe the alias that it had before its own change."""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone(ALICE)
        with store.held("commit"):
            world.nursery.start_soon(world.set_device, phone, BOB)
            await wait_all_tasks_blocked()
            world.nursery.start_soon(phone.ask_for_alias, CAROL)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        before_the_answer = list(phone.visit.log)
        phone.resume()
        assert phone.visit.log == before_the_answer
        msg_id = await world.push(alias=CAROL)
        assert phone.visit.log == [*before_the_answer, Handed(msg_id, CAROL)]


async def test_a_visit_that_came_after_an_app_servers_change_is_not_told_of_it() -> None:
    """It was told by the answer to its `connect`."""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone(ALICE)
        earlier = phone.visit
        with store.held("commit"):
            world.nursery.start_soon(world.set_device, phone, BOB)
            await wait_all_tasks_blocked()
            world.nursery.start_soon(phone.connect)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert phone.welcome.alias == BOB
        assert (earlier.log, phone.visit.log) == ([], [])


# --- Deletion, and a look into the mailbox ---------------------------------------------------------------------------


async def test_a_deleted_devices_deliveries_are_settled_and_its_visit_ends_when_that_is_durable() -> None:
    """C24: the struck ones with their strike, all others missed."""
    store = HeldStore()
    async with living(store=store) as world:
        phone, other = await world.phone(), await world.phone()
        phone.visit.room = 2
        struck, sent = await world.push(phone), await world.push(phone, other)
        waiting = await world.push(phone, overrides=struck)
        with store.held("commit"):
            world.nursery.start_soon(world.delete, phone)
            await wait_all_tasks_blocked()
            assert phone.visit.ending is None
            assert not phone.acknowledge(sent)
        await wait_all_tasks_blocked()
        assert phone.visit.ending is Ending.REMOVED
        assert [await phone.state(each) for each in (struck, sent, waiting)] == ["replaced", "missed", "missed"]
        assert await world.report(sent) == (2, 0, 1, {"missed": 1}, {})
        phone.leave()
        assert other.visit.ending is None


async def test_what_ran_out_is_settled_when_the_device_is_asked_to_look(world: World) -> None:
    """C5: what waited, not what is sent."""
    phone = await world.phone()
    phone.visit.room = 1
    sent, waiting, longer = [await world.push(phone, ttl=ttl) for ttl in (5, 5, 50)]
    await trio.sleep(5)
    phone.actor.expire()
    assert [await phone.state(each) for each in (sent, waiting, longer)] == ["sent", "expired", "waiting"]


async def test_a_device_may_retire_when_it_is_absent_idle_and_wholly_on_disk() -> None:
    """Law 5"""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone()
        actor = phone.actor
        actor.used = False
        assert not actor.may_retire()  # it is present
        with store.held("commit"):
            phone.leave()
            actor.used = False
            assert not actor.may_retire()  # that is not on disk
        await world.told()
        assert actor.may_retire()
        actor.contents()
        assert not actor.may_retire()  # somebody has just asked


async def test_what_comes_for_a_deleted_device_is_missed(world: World) -> None:
    """C24: accepted before the deletion, and not yet come to it."""
    phone = await world.phone()
    actor, unit = phone.actor, world.app.tenant.book.open()
    await world.app.registrar.delete(phone.registration_id)
    message = Message(MsgId(7), wall_clock(), None, None, b"")
    assert actor.deliver(message, None, unit, unit.number) is Verdict.MISSED
    unit.close()
    await world.told()


async def test_the_contents_of_a_mailbox_are_told_in_order_with_their_state_and_since_when(world: World) -> None:
    phone = await world.phone()
    phone.visit.room = 1
    sent = await world.push(phone)
    accepted = wall_clock()
    await trio.sleep(5)
    waiting = await world.push(phone)
    assert phone.actor.contents() == [(sent, True, accepted), (waiting, False, wall_clock())]
    phone.leave()
    assert phone.actor.contents() == [(sent, False, wall_clock()), (waiting, False, wall_clock())]

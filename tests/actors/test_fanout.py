"""Accepting a push: who gets it is decided once, and it enters every target's mailbox in the order of acceptance."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pushactors.actors import fanout as fanout_module
from pushactors.actors import inbox as inbox_module
from pushactors.actors import ledger as ledger_module
from pushactors.actors.router import NO_TAG_CHANGE
from pushactors.actors.tenant import Limits
from pushactors.actors.visits import Ending
from pushactors.domain.audience import Audience
from pushactors.domain.mailbox import Mailbox
from pushactors.domain.message import Verdict
from pushactors.errors import CidReused, InternalError, NoTarget, StoreBusy
from pushactors.stores.contract import Accepted, Settled, TargetRow
from pushactors.wire.ids import AppKey, MsgId, Platform, RegistrationId
from tests.actors.world import (
    ALICE,
    BOB,
    DAY_S,
    NEWS,
    SPORT,
    Handed,
    HeldStore,
    MemoryDisk,
    Phone,
    World,
    faulty,
    living,
    plant,
    push,
    wall_clock,
)

# --- Durable, then told ----------------------------------------------------------------------------------------------


async def test_a_push_is_answered_when_it_is_on_disk() -> None:
    """C2"""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone()
        answered: list[MsgId] = []

        async def ask() -> None:
            answered.append(await world.push(phone))

        with store.held("commit"):
            world.nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            assert answered == []
        await wait_all_tasks_blocked()
        assert answered == list(store._shared.pushes)


async def test_a_push_and_whatever_it_made_give_way_become_durable_together() -> None:
    """C2, C7, C8"""
    store = HeldStore()
    async with living(store=store, limits=Limits(offline_limit=2)) as world:
        one, two = await world.absent_phone(), await world.absent_phone()
        replaced = await world.push(one)
        overflowed = [await world.push(two) for _ in range(2)]
        newcomer = await world.push(one, two, overrides=replaced)
        _, changes = store.commits[-1]
        assert [change for change in changes if isinstance(change, Settled)] == [
            Settled(replaced, one.device_no, Verdict.REPLACED, wall_clock()),
            Settled(overflowed[0], two.device_no, Verdict.OVERFLOWED, wall_clock()),
        ]
        [accepted] = [change for change in changes if isinstance(change, Accepted)]
        assert accepted.message.msg_id == newcomer
        assert sorted(accepted.targets) == [
            TargetRow(one.device_no, None, None),
            TargetRow(two.device_no, None, None),
        ]


async def test_the_answer_says_how_many_are_meant_and_how_many_of_them_are_there(world: World) -> None:
    present, absent, retired = await world.phone(), await world.absent_phone(is_retired=False), Phone(world)
    await retired.connect()
    retired.leave()
    await world.told()
    world.retire()
    accepted = await world.accept(push(present, absent, retired, sendno=7))
    assert (accepted.targets, accepted.online, accepted.sendno) == (3, 1, 7)
    assert accepted.is_durable_first


# --- Audience --------------------------------------------------------------------------------------------------------


async def test_the_audience_is_resolved_once_when_the_push_is_accepted(world: World) -> None:
    """C4"""
    phone = await world.absent_phone(ALICE)
    msg_id = await world.push(alias=ALICE)
    late = await world.phone(ALICE)
    assert late.handed == []
    assert await late.state(msg_id) == "unknown"
    assert await phone.state(msg_id) == "waiting"


async def test_unknown_names_are_ignored(world: World) -> None:
    """C4"""
    phone = await world.phone(ALICE)
    audience = Audience(alias=(BOB, ALICE), registration_id=(phone.registration_id, RegistrationId("nobody")))
    accepted = await world.accept(fanout_module.Push(audience, frozenset(), DAY_S, None, b"{}"))
    assert accepted.targets == 1


@pytest.mark.parametrize("ttl", [0, DAY_S])
@pytest.mark.parametrize("cid", [None, "order-42"])
async def test_an_audience_that_names_no_device_is_refused_and_nothing_is_stored(
    world: World, ttl: int, cid: str | None
) -> None:
    """C4"""
    await world.told()
    commits = world.disk.last_commit
    with pytest.raises(NoTarget):
        await world.accept(push(alias=ALICE, ttl=ttl, cid=cid))
    await world.told()
    await wait_all_tasks_blocked()
    assert world.disk.last_commit == commits
    await world.phone(ALICE)
    assert await world.push(alias=ALICE, ttl=ttl, cid=cid) == 1


async def test_only_what_is_addressed_by_alias_remembers_the_binding(world: World) -> None:
    """C4, C14, C16"""
    phone = await world.phone(ALICE, tags=(NEWS,))
    await phone.set_alias(BOB)
    by_alias, by_id, by_tag = await world.push(alias=BOB), await world.push(phone), await world.push(tag=NEWS)
    both = fanout_module.Push(Audience(alias=(BOB,), tag=(NEWS,)), frozenset(), DAY_S, None, b"{}")
    by_both = (await world.accept(both)).msg_id
    bindings = [world.disk.pushes[each].deliveries[phone.device_no].binding for each in (by_alias, by_id, by_tag)]
    assert bindings == [2, None, None]
    assert world.disk.pushes[by_both].deliveries[phone.device_no].binding == 2


async def test_whoever_is_not_on_one_of_the_platforms_is_no_target(world: World) -> None:
    android, ios = Phone(world), Phone(world)
    await android.connect(platform=Platform.ANDROID)
    await ios.connect(platform=Platform.IOS)
    msg_id = await world.push(platforms=frozenset({Platform.IOS}))
    assert (android.handed, ios.handed) == ([], [msg_id])


async def test_targets_can_be_counted_without_pushing(world: World) -> None:
    for alias in (ALICE, ALICE, BOB):
        await world.phone(alias)
    assert await world.app.fanout.count_targets(push(alias=ALICE)) == 2
    assert await world.app.fanout.count_targets(push()) == 3
    with pytest.raises(NoTarget):
        await world.app.fanout.count_targets(push(tag=SPORT))
    assert not world.disk.pushes


# --- Time to live ----------------------------------------------------------------------------------------------------


async def test_a_push_that_may_not_wait_is_told_and_sent_without_the_disk() -> None:
    """C5"""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone()
        with store.held("commit"):
            accepted = await world.app.fanout.accept(push(phone, ttl=0))
            assert not accepted.is_durable_first
            assert phone.handed == [accepted.msg_id]
            assert phone.visit.messages[0].expires_at is None
        await wait_all_tasks_blocked()
        assert await phone.state(accepted.msg_id) == "sent"


async def test_a_push_that_may_not_wait_and_replaces_waits_for_the_disk_all_the_same() -> None:
    """C5, C2: what it replaces is durable together with it, and before it is told."""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone()
        replaced = await world.push(phone)
        with store.held("commit"):
            accepted = await world.app.fanout.accept(push(phone, ttl=0, overrides=replaced))
            assert accepted.is_durable_first
            assert phone.handed == [replaced]
        await wait_all_tasks_blocked()
        assert phone.handed == [replaced, accepted.msg_id]


@pytest.mark.parametrize("is_retired", [False, True])
async def test_a_push_that_may_not_wait_is_missed_for_the_absent(world: World, is_retired: bool) -> None:
    """C5"""
    phone, other = await world.absent_phone(is_retired=is_retired), await world.phone()
    msg_id = await world.push(phone, other, ttl=0)
    assert await world.report(msg_id) == (2, 0, 1, {"missed": 1}, {})
    await phone.connect()
    assert phone.handed == []


async def test_an_absent_device_is_not_woken_for_a_push_that_may_not_wait(world: World) -> None:
    """Law 4"""
    phone = await world.absent_phone()
    await world.push(phone, ttl=0)
    assert len(world.devices) == 0


async def test_a_device_that_is_being_loaded_is_absent_for_a_push_that_may_not_wait() -> None:
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.absent_phone()
        with store.held("mailboxes"):
            waits = (await world.app.fanout.accept(push(phone))).msg_id
            flown = (await world.app.fanout.accept(push(phone, ttl=0))).msg_id
        await world.told()
        assert [await phone.state(each) for each in (waits, flown)] == ["waiting", "missed"]


async def test_a_push_that_may_not_wait_stays_behind_a_durable_one_that_is_not_yet_on_disk() -> None:
    """C5, C9"""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone()
        with store.held("commit"):
            durable = (await world.app.fanout.accept(push(phone))).msg_id
            flown = (await world.app.fanout.accept(push(phone, ttl=0))).msg_id
            assert phone.handed == []
        await wait_all_tasks_blocked()
        assert phone.handed == [durable, flown]


async def test_a_push_that_may_not_wait_queues_within_window_and_backlog() -> None:
    """C5, C8, C10"""
    async with living(limits=Limits(window=1, backlog_limit=2)) as world:
        phone = await world.phone()
        pushed = [await world.push(phone, ttl=0) for _ in range(4)]
        assert phone.handed == pushed[:1]
        assert [await phone.state(each) for each in pushed] == ["sent", "overflowed", "waiting", "waiting"]
        phone.acknowledge(pushed[0])
        assert phone.handed == [pushed[0], pushed[2]]
        phone.leave()
        assert [await phone.state(each) for each in pushed] == ["received", "overflowed", "missed", "missed"]


async def test_content_that_may_not_wait_is_never_stored(world: World) -> None:
    """C5: but what may wait is stored until its last verdict."""
    phone = await world.phone()
    flown = await world.push(phone, ttl=0, body=b"now or never")
    with_cid = await world.push(phone, ttl=0, cid="order-42", body=b"now or never")
    kept = await world.push(phone, body=b"later is fine")
    await world.told()
    assert await world.store.bodies([flown, with_cid, kept]) == {kept: b"later is fine"}


async def test_after_a_kill_what_may_not_wait_is_missed_or_unknown() -> None:
    """C5"""
    disk = MemoryDisk()
    store = HeldStore(disk)
    async with living(store=store) as world:
        phone = await world.phone()
        written = await world.push(phone, ttl=0)
        await world.told()
        with store.held("commit"):
            unwritten = await world.push(phone, ttl=0)
            await world.kill()
    async with living(disk) as world:
        phone.move(world)
        assert [await phone.state(each) for each in (written, unwritten)] == ["missed", "unknown"]
        await phone.connect()
        assert phone.handed == []


async def test_time_to_live_runs_from_acceptance(world: World) -> None:
    """C5"""
    phone = await world.absent_phone()
    msg_id = await world.push(phone, ttl=60)
    await trio.sleep(59.999)
    await phone.connect()
    await wait_all_tasks_blocked()
    assert phone.handed == [msg_id]
    [message] = phone.visit.messages
    assert message.expires_at == message.sent_at + 60_000 == wall_clock() + 1


# --- The same request again ------------------------------------------------------------------------------------------


async def test_the_same_cid_gets_the_first_answer_and_does_nothing(world: World) -> None:
    """C6"""
    phone = await world.phone()
    first = await world.accept(push(phone, cid="order-42", sendno=7))
    phone.leave()
    other = await world.phone()
    again = await world.accept(push(phone, cid="order-42", sendno=7))
    assert again == first
    assert (first.online, first.sendno) == (1, 7)
    assert list(world.disk.pushes) == [first.msg_id]
    assert other.handed == []
    assert world.tally.read("pushes", "repeated") == 1
    assert world.tally.read("pushes", "accepted") == 1


async def test_the_same_cid_gets_the_first_answer_when_nobody_is_meant_any_more(world: World) -> None:
    """C6: it does nothing, so it needs no target."""
    phone = await world.phone(ALICE)
    first = await world.push(alias=ALICE, cid="order-42")
    await world.delete(phone)
    assert await world.push(alias=ALICE, cid="order-42") == first


async def test_the_same_cid_gets_the_first_answer_after_a_kill() -> None:
    """C6, C2"""
    disk = MemoryDisk()
    async with living(disk) as world:
        phone = await world.phone()
        first = await world.accept(push(phone, cid="order-42", sendno=7))
    async with living(disk) as world:
        phone.move(world)
        assert await world.accept(push(phone, cid="order-42", sendno=7)) == first


async def test_a_cid_whose_push_was_not_on_disk_is_free_after_a_kill() -> None:
    """C6: nobody was told."""
    disk = MemoryDisk()
    store = HeldStore(disk)
    async with living(store=store) as world:
        phone = await world.phone()
        with store.held("commit"):
            world.nursery.start_soon(lambda: world.push(phone, cid="order-42"))
            await wait_all_tasks_blocked()
            await world.kill()
    async with living(disk) as world:
        phone.move(world)
        msg_id = await world.push(phone, cid="order-42")
        assert list(disk.pushes) == [msg_id]


@pytest.mark.parametrize("held", ["cids", "commit"])
async def test_a_concurrent_duplicate_waits_for_the_first(held: str) -> None:
    """C6"""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone()
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await world.accept(push(phone, cid="order-42")))

        with store.held(held):
            for _ in range(3):
                world.nursery.start_soon(ask)
                await wait_all_tasks_blocked()
            assert answers == []
        await wait_all_tasks_blocked()
        assert len(answers) == 3
        assert len(set(answers)) == 1
        assert len(store._shared.pushes) == 1
        assert phone.handed == [answers[0].msg_id]


async def test_a_duplicate_whose_first_is_refused_is_judged_by_itself() -> None:
    """C6: an attempt that was refused is not remembered."""
    store = HeldStore()
    async with living(store=store) as world:
        story: list[object] = []

        async def ask() -> None:
            try:
                story.append(await world.push(alias=ALICE, cid="order-42"))
            except NoTarget:
                story.append("refused")
                await world.phone(ALICE)

        with store.held("cids"):
            for _ in range(2):
                world.nursery.start_soon(ask)
                await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert story == ["refused", 1] or story == ["refused", "refused"]
        assert await world.push(alias=ALICE, cid="order-42") == 1


async def test_a_duplicate_whose_first_was_given_up_goes_on_by_itself() -> None:
    """C6"""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone()
        answers: list[MsgId] = []

        async def ask(scope: trio.CancelScope) -> None:
            with scope:
                answers.append(await world.push(phone, cid="order-42"))

        first, second = trio.CancelScope(), trio.CancelScope()
        with store.held("cids"):
            world.nursery.start_soon(ask, first)
            await wait_all_tasks_blocked()
            world.nursery.start_soon(ask, second)
            await wait_all_tasks_blocked()
            first.cancel()
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert answers == [1]


@pytest.mark.parametrize("kind", ["durable", "on its way", "after a kill"])
async def test_the_same_cid_with_a_different_push_is_refused(kind: str) -> None:
    """C6"""
    disk = MemoryDisk()
    store = HeldStore(disk)
    async with living(store=store) as world:
        phone = await world.phone()
        if kind == "on its way":
            with store.held("commit"):
                await world.app.fanout.accept(push(phone, cid="order-42"))
                with pytest.raises(CidReused):
                    await world.app.fanout.accept(push(phone, cid="order-42", body=b"another"))
            return
        first = await world.push(phone, cid="order-42")
        if kind == "durable":
            with pytest.raises(CidReused):
                await world.push(phone, cid="order-42", ttl=7)
            assert await world.push(phone, cid="order-42") == first
            return
    async with living(disk) as world:
        phone.move(world)
        with pytest.raises(CidReused):
            await world.push(phone, cid="order-42", ttl=7)
        assert list(disk.pushes) == [first]


async def test_a_cid_is_remembered_for_a_day(world: World) -> None:
    """C6"""
    phone = await world.phone()
    first = await world.push(phone, cid="order-42")
    await world.pass_time(DAY_S)
    assert await world.push(phone, cid="order-42") == first
    await world.pass_time(0.001)
    second = await world.push(phone, cid="order-42")
    assert second == first + 1
    await world.pass_time(DAY_S)
    assert await world.push(phone, cid="order-42") == second


async def test_a_cid_belongs_to_one_app() -> None:
    """C6"""
    keys = (AppKey("one"), AppKey("two"))
    async with living(app_keys=keys) as world:
        answers = []
        for key in keys:
            phone = Phone(world, world.apps[key])
            await phone.connect()
            answers.append(await world.push(alias=(), cid="order-42", rooms=phone.rooms))
        assert answers == [1, 2]


async def test_a_push_with_a_cid_waits_for_the_disk_even_if_it_may_not_wait() -> None:
    """C5, C6: it is never exempt from C2."""
    store = HeldStore()
    async with living(store=store) as world:
        phone, absent = await world.phone(), await world.absent_phone()
        with store.held("commit"):
            accepted = await world.app.fanout.accept(push(phone, absent, cid="order-42", ttl=0))
            assert accepted.is_durable_first
            assert phone.handed == []
        await wait_all_tasks_blocked()
        assert phone.handed == [accepted.msg_id]
        assert await world.report(accepted.msg_id) == (2, 0, 1, {"missed": 1}, {})


async def test_a_store_that_does_not_answer_about_a_cid_is_asked_again() -> None:
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone()
        store.trouble("cids", StoreBusy("one"), answer=True)
        assert await world.push(phone, cid="order-42") == 1


# --- Override --------------------------------------------------------------------------------------------------------


async def test_a_push_replaces_what_it_names_and_takes_the_tail(world: World) -> None:
    """C7: its own msg_id or its override id."""
    phone = await world.absent_phone(is_retired=False)
    original, other = await world.push(phone), await world.push(phone)
    second = await world.push(phone, overrides=original)
    third = await world.push(phone, overrides=original)
    states = [await phone.state(each) for each in (original, other, second, third)]
    assert states == ["replaced", "waiting", "replaced", "waiting"]
    await phone.connect()
    await wait_all_tasks_blocked()
    assert phone.handed == [other, third]


async def test_a_push_that_names_what_is_not_there_is_an_ordinary_one(world: World) -> None:
    """C7"""
    phone = await world.phone()
    first = await world.push(phone)
    assert phone.acknowledge(first)
    second, third = await world.push(phone, overrides=first), await world.push(phone, overrides=MsgId(999))
    assert phone.handed == [first, second, third]
    assert await phone.state(first) == "received"


async def test_a_push_replaces_only_in_the_mailboxes_of_its_targets(world: World) -> None:
    """C7"""
    one, two = await world.absent_phone(), await world.absent_phone()
    shared = await world.push(one, two)
    await world.push(one, overrides=shared)
    assert [await one.state(shared), await two.state(shared)] == ["replaced", "waiting"]


async def test_what_may_not_wait_replaces_nothing_for_the_absent_and_does_for_the_present(world: World) -> None:
    """C7, C5: time to live is judged first."""
    absent, present = await world.absent_phone(is_retired=False), await world.phone()
    present.visit.room = 0
    shared = await world.push(absent, present)
    await world.push(absent, present, ttl=0, overrides=shared)
    assert [await absent.state(shared), await present.state(shared)] == ["waiting", "replaced"]


# --- Limits and order ------------------------------------------------------------------------------------------------


async def test_one_newcomer_over_the_limit_makes_the_oldest_give_way() -> None:
    """C8"""
    async with living(limits=Limits(offline_limit=2)) as world:
        phone = await world.absent_phone()
        pushed = [await world.push(phone) for _ in range(4)]
        assert [await phone.state(each) for each in pushed] == ["overflowed", "overflowed", "waiting", "waiting"]


async def test_what_replaces_needs_no_new_place() -> None:
    """C8: judged in this order: time to live, override, limit."""
    async with living(limits=Limits(offline_limit=2)) as world:
        phone = await world.absent_phone()
        first, second = await world.push(phone), await world.push(phone)
        third = await world.push(phone, overrides=second)
        assert [await phone.state(each) for each in (first, second, third)] == ["waiting", "replaced", "waiting"]


async def test_nothing_gives_way_when_a_visit_ends() -> None:
    """C8"""
    async with living(limits=Limits(offline_limit=1)) as world:
        phone = await world.phone()
        pushed = [await world.push(phone) for _ in range(3)]
        phone.leave()
        assert [await phone.state(each) for each in pushed] == ["waiting"] * 3
        last = await world.push(phone)
        assert [await phone.state(each) for each in (*pushed, last)] == ["overflowed", *["waiting"] * 3]


async def test_what_waits_for_nothing_but_the_disk_does_not_count_for_a_present_device() -> None:
    """C8: a burst within one group commit does not overflow the mailbox of a device that is fast."""
    store = HeldStore()
    async with living(store=store, limits=Limits(backlog_limit=1, window=8)) as world:
        phone = await world.phone()
        with store.held("commit"):
            pushed = [(await world.app.fanout.accept(push(phone))).msg_id for _ in range(9)]
        await wait_all_tasks_blocked()
        assert phone.handed == pushed[:8]
        tenth, eleventh = await world.push(phone), await world.push(phone)
        states = [await phone.state(each) for each in (pushed[8], tenth, eleventh)]
        assert states == ["overflowed", "overflowed", "waiting"]


async def test_a_full_buffer_counts_to_the_backlog() -> None:
    """C8, C12"""
    async with living(limits=Limits(backlog_limit=2)) as world:
        phone = await world.phone()
        phone.visit.room = 0
        pushed = [await world.push(phone) for _ in range(3)]
        assert [await phone.state(each) for each in pushed] == ["overflowed", "waiting", "waiting"]


@pytest.mark.parametrize("is_retired", [False, True])
async def test_deliveries_are_sent_in_the_order_of_acceptance(is_retired: bool) -> None:
    """C9"""
    async with living(limits=Limits(offline_limit=100)) as world:
        phones = [await world.absent_phone(is_retired=False) for _ in range(3)]
        if is_retired:
            world.retire()
        answers: list[MsgId] = []

        async def ask(to: tuple[Phone, ...]) -> None:
            answers.append(await world.push(*to))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, tuple(phone for at, phone in enumerate(phones) if number % (at + 1) == 0))
        assert sorted(answers) == list(range(1, 21))
        for phone in phones:
            await phone.connect()
        await wait_all_tasks_blocked()
        assert [len(phone.handed) for phone in phones] == [20, 10, 7]
        assert all(phone.handed == sorted(phone.handed) for phone in phones)


# --- Large fan-outs --------------------------------------------------------------------------------------------------


async def wait_and_cancel(scope: trio.CancelScope) -> None:
    await trio.lowlevel.checkpoint()
    scope.cancel()


async def halfway(world: World, phones: list[Phone], *, scope: trio.CancelScope | None = None, **said: Any) -> MsgId:
    """Returns between two slices of a push to these phones, who are absent and at rest, when it has come to some
    of them and not to the last one; its id."""
    before = {phone.device_no: phone.actor.mailbox.waiting_count() for phone in phones}

    async def ask() -> None:
        with scope or trio.CancelScope():
            await world.push(*phones, **said)

    world.nursery.start_soon(ask)
    with trio.fail_after(1):
        while phones[0].actor.mailbox.waiting_count() == before[phones[0].device_no]:
            await trio.lowlevel.checkpoint()
    assert phones[-1].actor.mailbox.waiting_count() == before[phones[-1].device_no]
    return [entry.msg_id for entry in phones[0].actor.mailbox.waiting][-1]


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout_module, "SLICE", 1)


@pytest.fixture
async def phones(world: World) -> list[Phone]:
    return [await world.absent_phone(ALICE, is_retired=False) for _ in range(6)]


async def test_a_large_push_lets_others_have_their_turn(one_by_one: None, world: World, phones: list[Phone]) -> None:
    """C24, law 7"""
    msg_id = await halfway(world, phones)
    phone = await world.phone()
    assert phone.visit.ending is None
    await wait_all_tasks_blocked()
    assert await world.report(msg_id) == (6, 6, 0, {}, {})


async def test_the_next_push_of_the_app_waits_for_the_whole_of_this_one(
    one_by_one: None, world: World, phones: list[Phone]
) -> None:
    """C9, law 1"""
    msg_id = await halfway(world, phones)
    later = await world.push(phones[-1])
    assert [entry.msg_id for entry in phones[-1].actor.mailbox.waiting] == [msg_id, later]


async def test_a_push_that_is_given_up_between_two_slices_is_accepted_wholly(
    one_by_one: None, world: World, phones: list[Phone]
) -> None:
    """Law 2: its app server has gone."""
    scope = trio.CancelScope()
    msg_id = await halfway(world, phones, scope=scope)
    scope.cancel()
    await wait_all_tasks_blocked()
    assert await world.report(msg_id) == (6, 6, 0, {}, {})


async def test_a_push_that_is_given_up_before_its_turn_is_not_accepted_at_all(
    one_by_one: None, world: World, phones: list[Phone]
) -> None:
    msg_id = await halfway(world, phones)
    with trio.CancelScope() as scope:
        world.nursery.start_soon(wait_and_cancel, scope)
        await world.push(phones[0], cid="order-42")
    assert scope.cancelled_caught
    await world.told()
    assert list(world.disk.pushes) == [msg_id]
    assert await world.push(phones[0], cid="order-42") == msg_id + 1


async def test_who_changes_the_alias_between_two_slices_finds_the_fence(
    one_by_one: None, world: World, phones: list[Phone]
) -> None:
    """C13, C14: the push is wholly before the change, whether it has come to that device or not."""
    msg_id = await halfway(world, phones, alias=ALICE)
    await world.app.router.change(phones[0].registration_id, BOB, NO_TAG_CHANGE)
    await world.app.router.change(phones[-1].registration_id, BOB, NO_TAG_CHANGE)
    await world.told()
    assert await world.report(msg_id) == (6, 4, 0, {"fenced": 2}, {})
    for phone in (phones[0], phones[-1]):
        await phone.connect()
        assert phone.handed == []


async def test_who_clears_and_sets_the_same_alias_between_two_slices_finds_the_fence_too(
    one_by_one: None, world: World, phones: list[Phone]
) -> None:
    """C14: that is another binding."""
    msg_id = await halfway(world, phones, alias=ALICE)
    for alias in (BOB, ALICE):
        await world.app.router.change(phones[-1].registration_id, alias, NO_TAG_CHANGE)
    await world.told()
    assert await phones[-1].state(msg_id) == "fenced"


async def test_who_gets_the_alias_between_two_slices_is_no_target(
    one_by_one: None, world: World, phones: list[Phone]
) -> None:
    """C4, C13"""
    late = await world.absent_phone(is_retired=False)
    msg_id = await halfway(world, phones, alias=ALICE)
    await world.app.router.change(late.registration_id, ALICE, NO_TAG_CHANGE)
    await world.told()
    assert await late.state(msg_id) == "unknown"


async def test_who_is_deleted_between_two_slices_has_missed_it(
    one_by_one: None, world: World, phones: list[Phone]
) -> None:
    """C24, C1"""
    msg_id = await halfway(world, phones)
    for phone in (phones[0], phones[-1]):
        await world.app.registrar.delete(phone.registration_id)
    await world.told()
    assert await world.report(msg_id) == (6, 4, 0, {"missed": 2}, {})


async def test_who_comes_between_two_slices_is_sent_it_once_and_in_order(
    one_by_one: None, world: World, phones: list[Phone]
) -> None:
    """C9, C10"""
    msg_id = await halfway(world, phones)
    for phone in (phones[0], phones[-1]):
        await phone.connect()
    await wait_all_tasks_blocked()
    later = await world.push(phones[0], phones[-1])
    assert [phone.handed for phone in (phones[0], phones[-1])] == [[msg_id, later]] * 2


async def test_a_push_to_more_than_a_slice_of_devices_that_have_no_actor_reaches_them_all() -> None:
    async with living() as world:
        phones = [await world.absent_phone(is_retired=False) for _ in range(fanout_module.SLICE + 7)]
        world.retire()
        msg_id = await world.push()
        assert await world.report(msg_id) == (len(phones), len(phones), 0, {}, {})
        await phones[-1].connect()
        await wait_all_tasks_blocked()
        assert phones[-1].handed == [msg_id]


# --- Targets that crash ----------------------------------------------------------------------------------------------


async def test_a_target_whose_actor_crashes_over_the_newcomer_keeps_it_and_nothing_gives_way_for_it() -> None:
    """Law 5; C1"""
    async with living(may_crash=True, limits=Limits(offline_limit=1)) as world:
        phone, other = await world.absent_phone(is_retired=False), await world.phone()
        first = await world.push(phone)
        plant(phone.actor, "enter", is_late=True)
        with trio.fail_after(60):
            second = await world.push(phone, other, overrides=first)
        assert await world.report(first) == (1, 1, 0, {}, {})
        assert await world.report(second) == (2, 1, 1, {}, {})
        assert other.handed == [second]
        await phone.connect()
        await wait_all_tasks_blocked()
        assert phone.handed == [first, second]


async def test_a_target_whose_actor_crashes_when_it_opens_keeps_the_newcomer() -> None:
    """Law 5"""
    store = HeldStore()
    async with living(store=store, may_crash=True) as world:
        phone = await world.absent_phone()
        with faulty(Mailbox, "enter"), trio.fail_after(60):
            with store.held("mailboxes"):
                accepted = [(await world.app.fanout.accept(push(phone))).msg_id for _ in range(3)]
            await world.told()
        assert world.tally.read("actor_crashes") == 1
        assert [await phone.state(each) for each in accepted] == ["waiting"] * 3
        await phone.connect()
        await wait_all_tasks_blocked()
        assert phone.handed == accepted


async def test_a_target_whose_actor_crashes_over_what_may_not_wait_has_missed_it() -> None:
    """C5: its visit ends with the actor."""
    async with living(may_crash=True) as world:
        phone, other = await world.phone(), await world.phone()
        plant(phone.actor, "enter")
        msg_id = await world.push(phone, other, ttl=0)
        await wait_all_tasks_blocked()
        assert phone.visit.ending is Ending.RESTARTED
        assert await world.report(msg_id) == (2, 0, 1, {"missed": 1}, {})
        assert other.handed == [msg_id]


async def test_a_target_that_changes_its_alias_and_then_crashes_over_the_newcomer_finds_the_fence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """C14: what was accepted in a race is not handed under the next binding, crash or no crash."""
    monkeypatch.setattr(fanout_module, "SLICE", 1)
    async with living(may_crash=True) as world:
        phones = [await world.absent_phone(ALICE, is_retired=False) for _ in range(6)]
        msg_id = await halfway(world, phones, alias=ALICE)
        await world.app.router.change(phones[-1].registration_id, BOB, NO_TAG_CHANGE)
        plant(phones[-1].actor, "enter")
        await wait_all_tasks_blocked()
        assert world.tally.read("actor_crashes") == 1
        await phones[-1].connect()
        await wait_all_tasks_blocked()
        assert phones[-1].visit.log == []
        assert await phones[-1].state(msg_id) == "fenced"


async def test_a_target_that_crashes_over_the_newcomer_is_rebuilt_with_all_that_it_had_decided_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """C14: a push of many rows is a commit of its own, and what was decided between its slices goes with the next."""
    monkeypatch.setattr(fanout_module, "SLICE", 1)
    monkeypatch.setattr(ledger_module, "ROWS_PER_COMMIT", 1)
    store = HeldStore()
    async with living(store=store, may_crash=True) as world:
        phones = [await world.absent_phone(ALICE, is_retired=False) for _ in range(6)]
        msg_id = await halfway(world, phones, alias=ALICE)
        await world.app.router.change(phones[-1].registration_id, BOB, NO_TAG_CHANGE)
        plant(phones[-1].actor, "enter")
        with store.held("commit"):
            await wait_all_tasks_blocked()
        with store.held("commit"):  # the push is on disk, the change of the alias is not
            await wait_all_tasks_blocked()
            assert list(store._shared.pushes) == [msg_id]
        await world.told()
        await wait_all_tasks_blocked()
        assert await phones[-1].state(msg_id) == "fenced"
        for_bob = await world.push(alias=BOB)
        await phones[-1].connect()
        await wait_all_tasks_blocked()
        assert phones[-1].visit.log == [Handed(for_bob, BOB)]


async def test_a_target_that_decides_something_between_two_slices_and_crashes_does_not_hold_up_the_app_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """C24: its next actor waits for what it had decided, which waits behind the push: the push must not wait for it."""
    monkeypatch.setattr(fanout_module, "SLICE", 1)
    async with living(may_crash=True) as world:
        phones = [await world.absent_phone(ALICE, is_retired=False) for _ in range(6)]
        msg_id = await halfway(world, phones)
        phones[-1].mark(MsgId(999))
        plant(phones[-1].actor, "mark")
        with pytest.raises(InternalError):
            phones[-1].mark(MsgId(999))
        with trio.fail_after(60):
            await world.told()
        assert await world.report(msg_id) == (6, 6, 0, {}, {})
        await phones[-1].connect()
        await wait_all_tasks_blocked()
        assert phones[-1].handed == [msg_id]


async def test_more_pushes_than_a_loading_device_can_keep_all_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """C9, C10: the store is far behind; everything unsettled is sent on its next visit."""
    monkeypatch.setattr(inbox_module, "KEPT", 2)
    store = HeldStore()
    async with living(store=store, may_crash=True) as world:
        phone = await world.absent_phone()
        accepted: list[MsgId] = []

        async def accept() -> None:
            accepted.append((await world.app.fanout.accept(push(phone))).msg_id)

        async with trio.open_nursery() as nursery:
            with store.held("mailboxes"):
                for _ in range(4):
                    nursery.start_soon(accept)
                await wait_all_tasks_blocked()
        accepted.sort()
        with trio.fail_after(60):
            await world.told()
        assert [await phone.state(each) for each in accepted] == ["waiting"] * 4
        await phone.connect()
        await wait_all_tasks_blocked()
        assert phone.visit.log == [Handed(each, None) for each in accepted]


@pytest.mark.parametrize("is_first", [False, True])
async def test_a_push_that_waits_for_a_device_that_then_crashes_is_accepted_wholly(
    monkeypatch: pytest.MonkeyPatch, is_first: bool
) -> None:
    """C2, law 2: wholly or not at all; if its app server is told that it failed, nobody is sent it."""
    monkeypatch.setattr(inbox_module, "KEPT", 2)
    store = HeldStore()
    async with living(store=store, may_crash=True) as world:
        phone, other = await world.absent_phone(), await world.phone()
        targets = (phone, other) if is_first else (other, phone)
        answers: list[object] = []

        async def ask() -> None:
            try:
                answers.append(await world.push(*targets))
            except InternalError:
                answers.append("failed")

        with faulty(Mailbox, "enter", spared=other.actor.mailbox), trio.fail_after(60):
            with store.held("mailboxes"):
                for _ in range(2):
                    await world.app.fanout.accept(push(phone))
                world.nursery.start_soon(ask)
                await wait_all_tasks_blocked()
            await wait_all_tasks_blocked()
            await world.told()
            await wait_all_tasks_blocked()
        if answers == ["failed"]:
            assert (other.handed, len(world.disk.pushes)) == ([], 2)
        else:
            assert other.handed == answers
            assert await world.report(other.handed[0]) == (2, 1, 1, {}, {})

"""The receipt stream of one app: every consumer has all of it, in order, and none of it is told too early."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pushactors.actors import receipts as receipts_module
from pushactors.actors.receipts import CONSUMERS, Ended, Receipts, Subscription
from pushactors.domain.message import Mark
from pushactors.domain.receipts import OUTSTANDING
from pushactors.errors import CursorGone, Invalid, StoreBusy
from pushactors.stores.contract import ReceiptRow
from pushactors.wire.ids import AppKey, Consumer, Cursor, MsgId
from tests.actors.world import APP, DAY_S, HeldStore, MemoryDisk, World, living, push, stream

AUDIT, BILLS = Consumer("audit"), Consumer("bills")


async def subscribe(world: World, consumer: Consumer | None = None, after: int | None = None) -> Subscription:
    """A subscription that is durable, and may be told."""
    subscription = await world.app.receipts.subscribe(consumer, None if after is None else Cursor(after))
    await world.told()
    return subscription


async def some(world: World, count: int) -> list[MsgId]:
    """So many receipts: pushes that an absent device missed."""
    phone = await world.absent_phone()
    missed = [await world.push(phone, ttl=0) for _ in range(count)]
    await world.told()
    return missed


async def page(subscription: Subscription) -> list[int] | None:
    """The cursors of what comes next; None if nothing comes, or it is over."""
    found: list[ReceiptRow] | None = None
    with trio.move_on_after(1):
        found = await subscription.next_page()
    return None if found is None else [row.cursor for row in found]


# --- Where it begins -------------------------------------------------------------------------------------------------


async def test_a_new_consumer_begins_now(world: World) -> None:
    """C20"""
    await some(world, 3)
    subscription = await subscribe(world, AUDIT)
    assert await page(subscription) is None
    await some(world, 2)
    assert await page(subscription) == [4, 5]


async def test_a_subscription_without_a_name_begins_now_and_leaves_nothing(world: World) -> None:
    """C20"""
    await some(world, 3)
    subscription = await subscribe(world)
    await some(world, 1)
    assert await page(subscription) == [4]
    world.app.receipts.acknowledge(subscription, Cursor(4))
    await world.told()
    assert await world.store.consumers(world.app.tenant.app_no) == {}


@pytest.mark.parametrize("after", [0, 1, 2, 3])
async def test_a_subscription_begins_behind_the_cursor_that_it_names(after: int, world: World) -> None:
    """C20: "0" is everything that is kept."""
    await some(world, 3)
    assert await page(await subscribe(world, AUDIT, after)) == (list(range(after + 1, 4)) or None)
    assert await world.store.consumers(world.app.tenant.app_no) == {AUDIT: after}


async def test_a_known_consumer_resumes_behind_what_it_acknowledged(world: World) -> None:
    """C20"""
    first = await subscribe(world, AUDIT)
    await some(world, 3)
    assert await page(first) == [1, 2, 3]
    world.app.receipts.acknowledge(first, Cursor(2))
    first.end(None)
    assert await page(await subscribe(world, AUDIT)) == [3]


async def test_a_consumer_may_go_back_as_far_as_receipts_are_kept(world: World) -> None:
    """C20"""
    first = await subscribe(world, AUDIT)
    await some(world, 3)
    await page(first)
    world.app.receipts.acknowledge(first, Cursor(3))
    second = await subscribe(world, AUDIT, 1)
    assert await page(second) == [2, 3]
    assert await page(await subscribe(world, AUDIT)) == [2, 3]


async def test_a_cursor_of_another_store_is_refused(world: World) -> None:
    """C20"""
    await some(world, 3)
    with pytest.raises(Invalid, match="newest receipt is 3"):
        await subscribe(world, AUDIT, 4)
    assert await world.store.consumers(world.app.tenant.app_no) == {}


async def test_what_is_cut_off_cannot_be_resumed() -> None:
    """C20: it says which is the oldest kept; from "0" it begins with that."""
    async with living() as world:
        await some(world, 6)
        app_no = world.app.tenant.app_no
        await world.store.sweep(0, 1000, {app_no: 2})  # type: ignore[arg-type]
        with pytest.raises(CursorGone) as refused:
            await subscribe(world, AUDIT, 2)
        assert "5" in str(refused.value)
        assert await world.store.consumers(app_no) == {}
        assert await page(await subscribe(world, AUDIT, 4)) == [5, 6]
        assert await page(await subscribe(world, BILLS, 0)) == [5, 6]


async def test_a_refused_subscription_displaces_nobody(world: World) -> None:
    """C24"""
    first = await subscribe(world, AUDIT)
    with pytest.raises(Invalid):
        await subscribe(world, AUDIT, 99)
    await some(world, 1)
    assert await page(first) == [1]


async def test_nothing_is_kept_at_all(world: World) -> None:
    """C20: an app in which nothing has happened yet."""
    subscription = await subscribe(world, AUDIT, 0)
    await some(world, 1)
    assert await page(subscription) == [1]


async def test_apps_do_not_hear_of_each_other() -> None:
    """C20: cursors are an app's own."""
    other = AppKey("other")
    async with living(app_keys=(APP, other)) as world:
        theirs = await world.apps[other].receipts.subscribe(AUDIT, None)
        ours = await subscribe(world, AUDIT)
        await some(world, 2)
        assert await page(theirs) is None
        assert await page(ours) == [1, 2]


# --- What comes ------------------------------------------------------------------------------------------------------


async def test_there_is_a_receipt_for_every_verdict_and_every_mark_in_their_order(world: World) -> None:
    """C20"""
    phone, absent = await world.phone(), await world.absent_phone()
    subscription = await subscribe(world, AUDIT)
    first = await world.push(phone)
    second = await world.push(phone, absent, ttl=0)
    phone.mark(second, Mark.OPENED)
    phone.mark(second, Mark.OPENED)
    phone.acknowledge(first)
    phone.mark(first, Mark.DISMISSED)
    await world.told()
    found = []
    while (rows := await _rows(subscription)) is not None:
        found += [(row.msg_id, row.registration_id, row.event.word) for row in rows]
    ours = phone.registration_id
    assert found == [
        (second, absent.registration_id, "missed"),
        (second, ours, "received"),
        (second, ours, "opened"),
        (first, ours, "received"),
        (first, ours, "dismissed"),
    ]


async def _rows(subscription: Subscription) -> list[ReceiptRow] | None:
    with trio.move_on_after(1):
        return await subscription.next_page()
    return None


async def test_a_receipt_is_on_disk_before_it_is_told() -> None:
    """C2, C20"""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone()
        msg_id = await world.push(phone)
        subscription = await subscribe(world, AUDIT)
        with store.held("commit"):
            phone.acknowledge(msg_id)
            assert await page(subscription) is None
        assert await page(subscription) == [1]


async def test_a_frame_has_a_bounded_number_of_receipts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """C20"""
    monkeypatch.setattr(receipts_module, "RECEIPTS_IN_A_FRAME", 3)
    await some(world, 7)
    subscription = await subscribe(world, AUDIT, 0)
    assert [await page(subscription) for _ in range(4)] == [[1, 2, 3], [4, 5, 6], [7], None]


async def test_a_store_that_is_busy_delays_and_loses_nothing() -> None:
    """C20"""
    store = HeldStore()
    async with living(store=store) as world:
        subscription = await subscribe(world, AUDIT)
        await some(world, 2)
        store.trouble("receipts", StoreBusy("one"))
        with trio.fail_after(60):
            rows = await subscription.next_page()
        assert [row.cursor for row in rows or []] == [1, 2]


async def test_what_becomes_durable_while_the_store_is_asked_is_not_missed() -> None:
    """C20: no wake-up is lost."""
    store = HeldStore()
    async with living(store=store) as world:
        subscription = await subscribe(world, AUDIT)
        seen: list[int] = []

        async def follow() -> None:
            while (rows := await subscription.next_page()) is not None:
                seen.extend(row.cursor for row in rows)
                world.app.receipts.acknowledge(subscription, rows[-1].cursor)

        with store.held("receipts", answer=True):
            world.nursery.start_soon(follow)
            await wait_all_tasks_blocked()
            await some(world, 2)
        await wait_all_tasks_blocked()
        assert seen == [1, 2]


# --- Held back -------------------------------------------------------------------------------------------------------


async def test_at_most_eight_frames_are_on_the_way(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """C20: then it is held back until it acknowledges."""
    monkeypatch.setattr(receipts_module, "RECEIPTS_IN_A_FRAME", 1)
    await some(world, 12)
    subscription = await subscribe(world, AUDIT, 0)
    assert [await page(subscription) for _ in range(OUTSTANDING)] == [[cursor] for cursor in range(1, 9)]
    assert await page(subscription) is None
    world.app.receipts.acknowledge(subscription, Cursor(3))
    assert [await page(subscription) for _ in range(4)] == [[9], [10], [11], None]


async def test_who_is_held_back_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """C20: no question to the store while it owes acknowledgements."""
    monkeypatch.setattr(receipts_module, "RECEIPTS_IN_A_FRAME", 1)
    store = HeldStore()
    async with living(store=store) as world:
        await some(world, 9)
        subscription = await subscribe(world, AUDIT, 0)
        for _ in range(OUTSTANDING):
            await page(subscription)
        world.nursery.start_soon(subscription.next_page)
        await wait_all_tasks_blocked()
        asked = store.asked["receipts"]
        await some(world, 20)
        await wait_all_tasks_blocked()
        assert store.asked["receipts"] == asked


async def test_who_is_held_back_goes_on_as_soon_as_it_acknowledges(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C20: nothing else need happen."""
    monkeypatch.setattr(receipts_module, "RECEIPTS_IN_A_FRAME", 1)
    await some(world, 9)
    subscription = await subscribe(world, AUDIT, 0)
    for _ in range(OUTSTANDING):
        await page(subscription)
    seen: list[list[int] | None] = []

    async def follow() -> None:
        seen.append(await page(subscription))

    world.nursery.start_soon(follow)
    for _ in range(9):
        await trio.lowlevel.checkpoint()
    world.app.receipts.acknowledge(subscription, Cursor(8))
    await trio.sleep(2)
    assert seen == [[9]]


async def test_a_subscription_that_was_held_back_until_it_was_cut_off_ends_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """C20: never a gap in silence."""
    monkeypatch.setattr(receipts_module, "RECEIPTS_IN_A_FRAME", 1)
    async with living() as world:
        await some(world, 12)
        app_no = world.app.tenant.app_no
        subscription = await subscribe(world, AUDIT, 0)
        for _ in range(OUTSTANDING):
            await page(subscription)
        await world.store.sweep(0, 1000, {app_no: 2})  # type: ignore[arg-type]
        world.app.receipts.acknowledge(subscription, Cursor(8))
        assert await page(subscription) is None
        assert subscription.ended is Ended.CURSOR_GONE
        with pytest.raises(CursorGone):
            await subscribe(world, AUDIT)
        assert await page(await subscribe(world, AUDIT, 0)) == [11]


async def test_receipts_older_than_ten_days_are_cut_off_under_a_consumer_that_owes_nothing() -> None:
    """C20: it has had them; nothing ends."""
    async with living(with_upkeep=True) as world:
        subscription = await subscribe(world, AUDIT)
        await some(world, 3)
        assert await page(subscription) == [1, 2, 3]
        world.app.receipts.acknowledge(subscription, Cursor(3))
        await world.pass_time(11 * DAY_S)
        await trio.sleep(60)
        assert await stream(world) == []
        await some(world, 1)
        assert await page(subscription) == [4]
        assert await page(await subscribe(world, AUDIT)) == [4]


# --- Acknowledging ---------------------------------------------------------------------------------------------------


async def test_an_acknowledgement_beyond_what_was_sent_is_refused(world: World) -> None:
    """C20"""
    await some(world, 3)
    subscription = await subscribe(world, AUDIT)
    with pytest.raises(Invalid):
        world.app.receipts.acknowledge(subscription, Cursor(4))
    await world.told()
    assert await world.store.consumers(world.app.tenant.app_no) == {AUDIT: 3}


async def test_an_acknowledgement_never_moves_a_consumer_back() -> None:
    """C20"""
    store = HeldStore()
    async with living(store=store) as world:
        subscription = await subscribe(world, AUDIT)
        await some(world, 3)
        await page(subscription)
        world.app.receipts.acknowledge(subscription, Cursor(3))
        await world.told()
        commits = len(store.commits)
        world.app.receipts.acknowledge(subscription, Cursor(1))
        world.app.receipts.acknowledge(subscription, Cursor(3))
        await world.told()
        assert len(store.commits) == commits
        assert await world.store.consumers(world.app.tenant.app_no) == {AUDIT: 3}


@pytest.mark.parametrize("is_durable", [False, True])
async def test_an_acknowledgement_is_told_when_it_is_durable(is_durable: bool) -> None:
    """C2, C20: else the consumer is sent them again, after a kill."""
    store = HeldStore()
    async with living(store=store) as world:
        subscription = await subscribe(world, AUDIT)
        await some(world, 3)
        await page(subscription)
        with store.held("commit", answer=is_durable):
            world.app.receipts.acknowledge(subscription, Cursor(2))
            await wait_all_tasks_blocked()
            await world.kill()
    async with living(store._shared) as world:
        assert await page(await subscribe(world, AUDIT)) == ([3] if is_durable else [1, 2, 3])


# --- One live subscription -------------------------------------------------------------------------------------------


async def test_a_newer_subscription_displaces_the_older_one_which_is_told(world: World) -> None:
    """C20"""
    first, other = await subscribe(world, AUDIT), await subscribe(world, BILLS)
    ended: list[object] = []

    async def wait() -> None:
        assert await first.next_page() is None
        ended.append(first.ended)

    world.nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    second = await subscribe(world, AUDIT)
    await wait_all_tasks_blocked()
    assert ended == [Ended.DISPLACED]
    await some(world, 1)
    assert [await page(each) for each in (second, other)] == [[1], [1]]
    assert second.ended is None


async def test_the_end_of_the_older_one_does_not_end_the_newer_one(world: World) -> None:
    """C20"""
    first = await subscribe(world, AUDIT)
    second = await subscribe(world, AUDIT)
    first.end(None)
    assert first.ended is Ended.DISPLACED
    third = await subscribe(world, AUDIT)
    assert second.ended is Ended.DISPLACED
    assert third.ended is None


async def test_a_subscription_that_ends_is_not_woken_any_more(world: World) -> None:
    """C20"""
    subscription = await subscribe(world, AUDIT)
    assert len(world.app.tenant.book.followers) == 1
    subscription.end(None)
    subscription.end(Ended.DISPLACED)
    assert (subscription.ended, len(world.app.tenant.book.followers)) == (None, 0)
    assert await subscription.next_page() is None


async def test_what_the_older_one_acknowledges_while_the_newer_one_begins_is_not_forgotten() -> None:
    """C20: a named consumer resumes behind the last cursor that it acknowledged, and it was told so."""
    store = HeldStore()
    async with living(store=store) as world:
        first = await subscribe(world, AUDIT)
        await some(world, 3)
        assert await page(first) == [1, 2, 3]
        with store.held("receipts", answer=True):
            world.nursery.start_soon(subscribe, world, AUDIT)
            await wait_all_tasks_blocked()
            world.app.receipts.acknowledge(first, Cursor(3))
            await world.told()
        await world.told()
        await wait_all_tasks_blocked()
        assert await world.store.consumers(world.app.tenant.app_no) == {AUDIT: 3}


async def test_an_app_can_have_a_thousand_consumers(world: World) -> None:
    """C20: a name is kept for ever."""
    receipts = world.app.receipts
    for number in range(CONSUMERS):
        (await receipts.subscribe(Consumer(f"consumer {number}"), None)).end(None)
    await world.told()
    with pytest.raises(Invalid, match="1000 consumers"):
        await subscribe(world, AUDIT)
    (await subscribe(world, Consumer("consumer 7"))).end(None)
    await subscribe(world)
    again = Receipts(world.app.tenant, world.store)
    await again.load()
    with pytest.raises(Invalid, match="1000 consumers"):
        await again.subscribe(AUDIT, None)


# --- Kills -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
async def test_every_consumer_has_all_of_it_in_order_across_kills(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """C20: at least once, in the order of cursors, never a gap; for one delivery, what happened first comes first."""
    monkeypatch.setattr(receipts_module, "RECEIPTS_IN_A_FRAME", 3)
    chance = random.Random(seed)
    disk, names = MemoryDisk(), [AUDIT, BILLS, Consumer("slow")]
    had: dict[Consumer, list[tuple[int, MsgId, str]]] = {name: [] for name in names}
    told: dict[Consumer, int] = dict.fromkeys(names, 0)
    phone = None
    for _ in range(8):
        store = HeldStore(disk, random.Random(chance.random()))
        async with living(store=store) as world:
            subscriptions = {name: await subscribe(world, name) for name in names}
            for name in names:
                assert subscriptions[name].progress.position >= told[name]
            if phone is None:
                phone = await world.phone()
            else:
                phone.move(world)
                await phone.connect()
            for _ in range(6):
                msg_id = (await world.app.fanout.accept(push(phone))).msg_id
                await wait_all_tasks_blocked()
                phone.mark(msg_id, chance.choice(list(Mark)))
                name = chance.choice(names)
                with trio.move_on_after(0.5):
                    rows = await subscriptions[name].next_page() or []
                    had[name] += [(row.cursor, row.msg_id, row.event.word) for row in rows]
                    if rows and chance.random() < 0.7:
                        world.app.receipts.acknowledge(subscriptions[name], chance.choice(rows).cursor)
                        if chance.random() < 0.5:
                            await world.told()
                            told[name] = subscriptions[name].progress.acknowledged
            if chance.random() < 0.5:
                await world.told()
    async with living(disk) as world:
        whole = [(row.cursor, row.msg_id, row.event.word) for row in await stream(world)]
        for name in names:
            subscription = await subscribe(world, name)
            while (rows := await _rows(subscription)) is not None:
                had[name] += [(row.cursor, row.msg_id, row.event.word) for row in rows]
                world.app.receipts.acknowledge(subscription, rows[-1].cursor)
            seen: list[tuple[int, MsgId, str]] = []
            for receipt in had[name]:
                assert receipt[0] <= len(seen) + 1, "a gap"
                if receipt[0] == len(seen) + 1:
                    seen.append(receipt)
                assert seen[receipt[0] - 1] == receipt, "another receipt under the same cursor"
            assert seen == whole
    for msg_id in {msg_id for _, msg_id, _ in whole}:
        assert next(word for _, each, word in whole if each == msg_id) == "received"

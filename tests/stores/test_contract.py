"""The contract of a store, law by law, on every store there is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from pushactors.domain.message import Mark, Verdict
from pushactors.errors import StoreFenced, StoreUnusable
from pushactors.stores.contract import (
    AliasChanged,
    AppAdded,
    Arrived,
    DeliveryRow,
    DeviceDeleted,
    DueRow,
    IdsReserved,
    Left,
    MailboxRow,
    NoticeAnswered,
    PlatformChanged,
    Registered,
    ReportRow,
    Seen,
    StatusRow,
    Struck,
    TagsChanged,
)
from pushactors.wire.ids import AppKey, AppNo, Binding, Cursor, DeviceNo, Millis, MsgId, Platform, VisitNo
from tests.stores.grounds import Ground, Owner, mailbox, report, status, swept, told, waiting
from tests.stores.rows import (
    ALICE,
    APP,
    APPS,
    BOB,
    DAY,
    EXPIRED,
    FENCED,
    MISSED,
    NEWS,
    NOW,
    OTHER_APP,
    RECALLED,
    RECEIVED,
    REPLACED,
    SPORT,
    accepted,
    cid_row,
    device,
    marked,
    message,
    moved,
    noticed,
    overdue,
    registered,
    rid,
    settled,
    target,
)
from tests.stores.walk import Walk, holds, statuses_hold

# --- Opening (law 6) -------------------------------------------------------------------------------------------


async def test_an_empty_store_knows_nothing_and_starts_at_the_beginning(owner: Owner) -> None:
    opened = owner.opened
    assert (opened.last_commit, dict(opened.apps), opened.ids_below, opened.last_device_no) == (0, {}, 1, 0)
    assert opened.epoch >= 1
    assert len(opened.secret) == 32


async def test_a_restart_finds_everything_as_it_was(ground: Ground, owner: Owner) -> None:
    """C2."""
    walk = Walk(7)
    await owner.commit(*APPS)
    for _ in range(30):
        changes, _ = walk.commit()
        await owner.commit(*changes)
    again = await ground.restart(owner)
    assert dict(again.opened.apps) == {"app": APP, "other": OTHER_APP}
    assert again.opened.last_commit == owner.number
    assert again.opened.last_device_no == walk.next_device - 1
    assert again.opened.ids_below == max(walk.twin.pushes) + 1
    assert again.opened.secret == owner.opened.secret
    await holds(again, walk)


async def test_every_owner_has_a_higher_fencing_number(ground: Ground, owner: Owner) -> None:
    """Law 6."""
    epochs = [owner.opened.epoch]
    for _ in range(3):
        owner = await ground.restart(owner)
        epochs.append(owner.opened.epoch)
    assert epochs == sorted(set(epochs))


ASKED: dict[str, tuple[Any, ...]] = {
    "commit": (2, [Seen(DeviceNo(1), NOW)]),
    "devices": (APP, DeviceNo(0), 10),
    "mailboxes": ([DeviceNo(1)],),
    "bodies": ([MsgId(1)],),
    "due": ((Millis(0), DeviceNo(0)), NOW, 10),
    "unfinished": (10,),
    "installed": (APP, b"key"),
    "cids": (APP, ["a"], Millis(0)),
    "reports": (APP, [MsgId(1)]),
    "pushes": (APP, None, 10),
    "statuses": (APP, MsgId(1), [rid(1)]),
    "alias_mailboxes": (APP, DeviceNo(0), 10),
    "stranded": (APP,),
    "overdue": ((Millis(0), DeviceNo(0), MsgId(0)), NOW, 10),
    "unsettled": (APP, MsgId(1), DeviceNo(0), 10),
    "recipients": (MsgId(1), DeviceNo(0), 10),
    "had": (DeviceNo(1), [MsgId(1)]),
    "timeline": (APP, MsgId(1), DeviceNo(1)),
    "device_no": (APP, rid(1)),
    "receipts": (APP, Cursor(0), 10),
    "consumers": (APP,),
    "sweep": (NOW, 10),
}


@pytest.mark.parametrize("operation", ASKED)
async def test_who_had_the_store_before_is_refused_whatever_it_asks(
    ground: Ground, owner: Owner, operation: str
) -> None:
    """Law 6."""
    await owner.commit(*APPS, *registered(1))
    heir = await ground.intruder()
    with pytest.raises(StoreFenced):
        await getattr(owner.ask, operation)(*ASKED[operation])
    assert (await heir.ask.devices(APP, DeviceNo(0), 10)) == [device(1)]
    await heir.commit(Seen(DeviceNo(1), Millis(NOW + 5)))
    assert (await heir.ask.devices(APP, DeviceNo(0), 10)) == [device(1, last_seen_at=NOW + 5)]


async def test_a_fenced_owner_cannot_even_repeat_a_commit(ground: Ground, owner: Owner) -> None:
    """Law 6 stands before law 1."""
    await owner.commit(*APPS)
    await ground.intruder()
    with pytest.raises(StoreFenced):
        await owner.ask.commit(owner.number, APPS)


# --- Commits (law 1) -------------------------------------------------------------------------------------------


async def test_a_number_that_was_applied_is_acknowledged_and_not_applied_again(owner: Owner) -> None:
    """Law 1."""
    await owner.commit(*APPS, *registered(1))
    assert await owner.ask.commit(1, [Seen(DeviceNo(1), Millis(1)), *registered(2), Seen(DeviceNo(9), NOW)]) == 0
    assert await owner.ask.devices(APP, DeviceNo(0), 10) == [device(1)]


async def test_a_commit_whose_answer_was_lost_is_asked_for_again_after_a_restart(ground: Ground, owner: Owner) -> None:
    """Law 1: numbers outlive the owner."""
    await owner.commit(*APPS, *registered(1), accepted(1, 1))
    again = await ground.restart(owner)
    assert await again.ask.commit(1, [settled(1, 1)]) == 0
    assert await waiting(again, 1) == [1]
    await again.commit(settled(1, 1))
    assert await waiting(again, 1) == []


async def test_a_number_that_skips_one_is_refused_and_changes_nothing(owner: Owner) -> None:
    """Law 1: numbers rise by one; a store that has lost a commit must not go on."""
    await owner.commit(*APPS)
    with pytest.raises(StoreUnusable):
        await owner.ask.commit(3, registered(1))
    assert await owner.ask.devices(APP, DeviceNo(0), 10) == []
    await owner.commit(*registered(2))
    assert await owner.ask.devices(APP, DeviceNo(0), 10) == [device(2)]


async def test_a_commit_may_be_empty(ground: Ground, owner: Owner) -> None:
    await owner.ignores(0)
    assert (await ground.restart(owner)).opened.last_commit == 1


async def test_changes_happen_in_their_order(owner: Owner) -> None:
    """Law 1."""
    first, second = device(1), device(2)
    await owner.ignores(
        0,
        *APPS,
        Registered(first, b"key"),
        AliasChanged(DeviceNo(1), ALICE, Binding(1)),
        accepted(1, 1),
        AliasChanged(DeviceNo(1), BOB, Binding(2)),
        Struck(MsgId(1), DeviceNo(1), FENCED),
        settled(1, 1),
        marked(1, 1, Mark.OPENED),
        DeviceDeleted(DeviceNo(1), NOW),
        Registered(second, b"key"),
        AliasChanged(DeviceNo(2), ALICE, Binding(1)),
        AliasChanged(DeviceNo(2), None, Binding(2)),
    )
    assert await owner.ask.devices(APP, DeviceNo(0), 10) == [replace(second, binding=Binding(2))]
    assert await report(owner, 1) == ReportRow(MsgId(1), NOW, 1, 0, {RECEIVED: 1}, {Mark.OPENED: 1})


async def test_changes_happen_in_their_order_when_the_order_is_wrong(owner: Owner) -> None:
    """Laws 1 and 2: what comes too early or too late is ignored, though the right order would have fitted."""
    await owner.ignores(
        9,
        *APPS,
        settled(1, 1),
        Seen(DeviceNo(1), Millis(5)),
        Registered(device(1), b"key"),
        Registered(device(2), b"key"),
        marked(1, 1, Mark.OPENED),
        accepted(1, 1),
        marked(1, 1, Mark.OPENED),
        settled(1, 1, MISSED),
        Struck(MsgId(1), DeviceNo(1), FENCED),
        settled(1, 1, RECEIVED),
        marked(1, 1, Mark.OPENED),
        DeviceDeleted(DeviceNo(1), NOW),
        Seen(DeviceNo(1), Millis(7)),
    )
    assert await owner.ask.devices(APP, DeviceNo(0), 10) == []
    assert await report(owner, 1) == ReportRow(MsgId(1), NOW, 1, 0, {MISSED: 1}, {})


async def test_many_changes_fit_in_one_commit(owner: Owner) -> None:
    many = range(1, 3001)
    await owner.ignores(0, *APPS, *registered(*many), accepted(1, *many), *(settled(1, no) for no in many if no % 3))
    assert await report(owner, 1) == ReportRow(MsgId(1), NOW, 3000, 1000, {RECEIVED: 2000}, {})


# --- What no longer fits (law 2) -------------------------------------------------------------------------------


async def test_one_verdict_is_for_ever(owner: Owner) -> None:
    """C1, law 2."""
    await owner.commit(*APPS, *registered(1), accepted(1, 1))
    await owner.ignores(0, settled(1, 1, EXPIRED, NOW + 5))
    for verdict in Verdict:
        await owner.ignores(1, settled(1, 1, verdict, NOW + 9))
    assert await status(owner, 1, 1) == StatusRow(EXPIRED, Millis(NOW + 5))
    assert await report(owner, 1) == ReportRow(MsgId(1), NOW, 1, 0, {EXPIRED: 1}, {})


async def test_of_two_verdicts_in_one_commit_the_first_counts(owner: Owner) -> None:
    """C1, laws 1 and 2."""
    await owner.commit(*APPS, *registered(1, 2), accepted(1, 1, 2))
    await owner.ignores(1, settled(1, 1, REPLACED), settled(1, 2), settled(1, 1, RECEIVED))
    assert dict((await report(owner, 1)).verdicts) == {REPLACED: 1, RECEIVED: 1}


async def test_a_verdict_at_acceptance_is_one_too(owner: Owner) -> None:
    """C1."""
    await owner.commit(*APPS, *registered(1, 2), accepted(1, target(1, MISSED), 2))
    await owner.ignores(1, settled(1, 1, RECEIVED), settled(1, 2))
    assert await status(owner, 1, 1) == StatusRow(MISSED, NOW)
    assert await report(owner, 1) == ReportRow(MsgId(1), NOW, 2, 0, {MISSED: 1, RECEIVED: 1}, {})


async def test_the_first_strike_counts(owner: Owner) -> None:
    """C3."""
    await owner.commit(*APPS, *registered(1), accepted(1, 1))
    await owner.ignores(0, Struck(MsgId(1), DeviceNo(1), RECALLED))
    await owner.ignores(1, Struck(MsgId(1), DeviceNo(1), FENCED))
    assert [row.strike for row in await mailbox(owner, 1)] == [RECALLED]
    assert await status(owner, 1, 1) == StatusRow(None, NOW)


async def test_a_struck_delivery_is_settled_like_any_other(owner: Owner) -> None:
    """C3: acknowledged on its visit it is received."""
    await owner.commit(*APPS, *registered(1), accepted(1, 1))
    await owner.ignores(0, Struck(MsgId(1), DeviceNo(1), RECALLED), settled(1, 1, RECEIVED))
    await owner.ignores(1, Struck(MsgId(1), DeviceNo(1), FENCED))
    assert dict((await report(owner, 1)).verdicts) == {RECEIVED: 1}
    assert await owner.ask.unfinished(10) == []


async def test_each_mark_counts_once_and_only_on_what_was_received(owner: Owner) -> None:
    """C1, law 2."""
    await owner.commit(*APPS, *registered(1, 2, 3), accepted(1, 1, 2, 3), settled(1, 1), settled(1, 2, EXPIRED))
    await owner.ignores(0, marked(1, 1, Mark.OPENED), marked(1, 1, Mark.DISMISSED))
    await owner.ignores(
        4,
        marked(1, 1, Mark.OPENED),
        marked(1, 2, Mark.OPENED),
        marked(1, 3, Mark.OPENED),
        marked(1, 1, Mark.WITHDRAWN),
        marked(1, 1, Mark.WITHDRAWN),
    )
    marks = (await report(owner, 1)).marks
    assert dict(marks) == {Mark.OPENED: 1, Mark.DISMISSED: 1, Mark.WITHDRAWN: 1}


UNKNOWN = [
    settled(9, 1),
    settled(1, 9),
    Struck(MsgId(9), DeviceNo(1), FENCED),
    Struck(MsgId(1), DeviceNo(9), FENCED),
    overdue(1, 1),
    overdue(1, 9),
    moved(9, 1, 2),
    moved(1, 2, 1),
    moved(1, 1, 1),
    moved(1, 1, 9),
    noticed(1, 9),
    noticed(9, 1),
    NoticeAnswered(MsgId(1), DeviceNo(1)),
    NoticeAnswered(MsgId(1), DeviceNo(9)),
    Arrived(DeviceNo(9), NOW, VisitNo(1)),
    Left(DeviceNo(9), NOW),
    marked(9, 1, Mark.OPENED),
    Seen(DeviceNo(9), NOW),
    PlatformChanged(DeviceNo(9), Platform.WEB),
    AliasChanged(DeviceNo(9), ALICE, Binding(1)),
    TagsChanged(DeviceNo(9), (NEWS,)),
    DeviceDeleted(DeviceNo(9), NOW),
    AppAdded(APP, AppKey("again")),
    AppAdded(AppNo(3), AppKey("app")),
    Registered(device(1, registration_id="another"), None),
    Registered(device(9, registration_id=rid(1)), None),
    Registered(device(9), b"key"),
    accepted(1, 1, 2),
]


@pytest.mark.parametrize("change", UNKNOWN, ids=lambda change: type(change).__name__)
async def test_what_does_not_fit_is_ignored_and_harms_nothing_beside_it(owner: Owner, change: Any) -> None:
    """Law 2."""
    await owner.commit(*APPS, Registered(device(1), b"key"), *registered(2), accepted(1, 1))
    before = await told(owner, 1, 9)
    await owner.ignores(1, Seen(DeviceNo(1), Millis(5)), change, Seen(DeviceNo(2), Millis(6)))
    assert await told(owner, 1, 9) == before
    assert await owner.ask.devices(APP, DeviceNo(0), 9) == [device(1, last_seen_at=5), device(2, last_seen_at=6)]


async def test_nothing_changes_on_a_deleted_device(owner: Owner) -> None:
    """Law 2."""
    await owner.commit(*APPS, *registered(1), DeviceDeleted(DeviceNo(1), NOW))
    await owner.ignores(
        3,
        Seen(DeviceNo(1), Millis(5)),
        AliasChanged(DeviceNo(1), ALICE, Binding(1)),
        DeviceDeleted(DeviceNo(1), NOW),
    )


async def test_a_device_named_twice_is_one_target(owner: Owner) -> None:
    """C1, law 2."""
    await owner.commit(*APPS, *registered(1, 2))
    await owner.ignores(1, accepted(1, target(1, binding=4), 2, target(1, MISSED)))
    assert await report(owner, 1) == ReportRow(MsgId(1), NOW, 2, 2, {}, {})
    assert [row.binding for row in await mailbox(owner, 1)] == [4]


# --- Numbers that add up (law 3) -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
async def test_a_random_walk_leaves_what_a_naive_twin_has(ground: Ground, seed: int) -> None:
    """C1, laws 2 and 3: after every commit, across sweeps and restarts."""
    owner, walk = await ground.owner(), Walk(seed)
    await owner.commit(*APPS)
    for step in range(120):
        changes, ignored = walk.commit()
        await owner.ignores(ignored, *changes)
        await holds(owner, walk)
        if step % 40 == 20:
            await statuses_hold(owner, walk)
            owner = await ground.restart(owner)
        if step % 40 == 30:
            kept = {APP: 20, OTHER_APP: 5}
            walk.twin.sweep(walk.now, kept)
            await swept(owner, walk.now, 7, kept)
            await holds(owner, walk)
        if step % 40 == 39:
            walk.now += walk.chance.randint(20, 40) * DAY
            walk.twin.sweep(walk.now)
            await swept(owner, walk.now, 7)
            await holds(owner, walk)
    await statuses_hold(owner, walk)


# --- Content (law 4) -------------------------------------------------------------------------------------------


async def test_content_goes_with_the_last_verdict(owner: Owner) -> None:
    """Law 4."""
    await owner.commit(*APPS, *registered(1, 2), accepted(1, 1, 2))
    assert await owner.ask.bodies([MsgId(1), MsgId(9)]) == {1: b"body 1"}
    await owner.commit(settled(1, 1))
    assert await owner.ask.bodies([MsgId(1)]) == {1: b"body 1"}
    await owner.commit(settled(1, 2, EXPIRED))
    assert await owner.ask.bodies([MsgId(1)]) == {}


async def test_content_that_need_not_be_kept_never_is(owner: Owner) -> None:
    """C5: the content of a push that may not wait is never stored."""
    await owner.commit(*APPS, *registered(1, 2), accepted(message(1, ttl_ms=None), 1, keep_body=False))
    await owner.commit(accepted(2, target(1, MISSED), target(2, FENCED)))
    assert await owner.ask.bodies([MsgId(1), MsgId(2)]) == {}


async def test_content_may_be_any_bytes_and_large(owner: Owner) -> None:
    body = bytes(range(256)) * 400
    await owner.commit(*APPS, *registered(1), accepted(replace(message(1), body=body), 1))
    assert await owner.ask.bodies([MsgId(1)]) == {1: body}


# --- Reads (law 5) ---------------------------------------------------------------------------------------------


async def test_a_read_beside_commits_sees_whole_ones(owner: Owner) -> None:
    """Law 5: each commit takes one message from the mailbox and puts the next one in."""
    await owner.commit(*APPS, *registered(1), accepted(1, 1))
    committed = 1

    async def commits() -> None:
        nonlocal committed
        for msg_id in range(2, 60):
            await owner.commit(settled(msg_id - 1, 1), accepted(msg_id, 1))
            committed = msg_id

    async with trio.open_nursery() as nursery:
        nursery.start_soon(commits)
        while committed < 59:
            at_least = committed
            seen = await waiting(owner, 1)
            assert len(seen) == 1
            assert seen[0] >= at_least


async def test_many_ask_at_once(owner: Owner) -> None:
    await owner.commit(*APPS, *registered(*range(1, 51)), accepted(1, *range(1, 51)))
    found: list[int] = []

    async def look(no: int) -> None:
        found.extend(await waiting(owner, no))

    async with trio.open_nursery() as nursery:
        for no in range(1, 51):
            nursery.start_soon(look, no)
    assert found == [1] * 50


# --- Devices ---------------------------------------------------------------------------------------------------


async def test_a_device_is_read_as_it_was_written(owner: Owner) -> None:
    row = device(5, platform=Platform.IOS, alias=ALICE, binding=Binding(3), tags=(NEWS, SPORT), last_seen_at=Millis(9))
    await owner.commit(*APPS, Registered(row, b"\x00\xff"))
    assert await owner.ask.devices(APP, DeviceNo(0), 10) == [row]
    assert await owner.ask.mailboxes([DeviceNo(5), DeviceNo(6)]) == {5: MailboxRow(row, ())}


async def test_every_member_of_a_device_can_change(owner: Owner) -> None:
    await owner.commit(*APPS, *registered(1, 2))
    await owner.commit(
        Seen(DeviceNo(1), Millis(NOW + 1)),
        PlatformChanged(DeviceNo(1), Platform.WEB),
        AliasChanged(DeviceNo(1), ALICE, Binding(4)),
        TagsChanged(DeviceNo(1), (SPORT, NEWS)),
    )
    changed = device(
        1, platform=Platform.WEB, alias=ALICE, binding=Binding(4), tags=(SPORT, NEWS), last_seen_at=NOW + 1
    )
    assert await owner.ask.devices(APP, DeviceNo(0), 10) == [changed, device(2)]


async def test_devices_are_paged_in_their_order_and_by_app(owner: Owner) -> None:
    await owner.commit(*APPS, *registered(*range(1, 40, 2)), *registered(*range(2, 41, 2), app_no=OTHER_APP))
    await owner.commit(*(DeviceDeleted(DeviceNo(no), NOW) for no in (1, 7, 9, 39)))
    pages, after = [], DeviceNo(0)
    while page := await owner.ask.devices(APP, after, 3):
        pages.append([row.device_no for row in page])
        after = page[-1].device_no
    assert pages == [[3, 5, 11], [13, 15, 17], [19, 21, 23], [25, 27, 29], [31, 33, 35], [37]]
    assert [row.device_no for row in await owner.ask.devices(OTHER_APP, DeviceNo(38), 10)] == [40]


async def test_an_install_key_is_one_living_device_of_its_app(owner: Owner) -> None:
    mine, theirs = Registered(device(1), b"key"), Registered(device(2, app_no=OTHER_APP), b"key")
    await owner.ignores(0, *APPS, mine, theirs, *registered(3, 4))
    assert await owner.ask.installed(APP, b"key") == rid(1)
    assert await owner.ask.installed(OTHER_APP, b"key") == rid(2)
    assert await owner.ask.installed(APP, b"other key") is None
    await owner.commit(DeviceDeleted(DeviceNo(1), NOW))
    assert await owner.ask.installed(APP, b"key") is None
    await owner.ignores(0, Registered(device(5), b"key"))
    assert await owner.ask.installed(APP, b"key") == rid(5)


async def test_numbers_are_not_given_again_even_when_their_rows_are_gone(ground: Ground, owner: Owner) -> None:
    """MsgId: never used again."""
    await owner.commit(*APPS, *registered(8), accepted(12, target(8, MISSED)), DeviceDeleted(DeviceNo(8), NOW))
    await swept(owner, NOW + 100 * DAY)
    again = await ground.restart(owner)
    assert (again.opened.last_device_no, again.opened.ids_below) == (8, 13)


async def test_reserved_ids_are_not_given_again(ground: Ground, owner: Owner) -> None:
    await owner.commit(*APPS, IdsReserved(MsgId(500)), accepted(12), IdsReserved(MsgId(400)))
    await owner.commit(accepted(13))
    owner = await ground.restart(owner)
    assert owner.opened.ids_below == 500
    await owner.commit(accepted(700))
    assert (await ground.restart(owner)).opened.ids_below == 701


# --- Mailboxes -------------------------------------------------------------------------------------------------


async def test_a_mailbox_holds_what_is_unsettled_oldest_first(owner: Owner) -> None:
    """C9."""
    newcomer = message(4, overrides=3)
    await owner.commit(*APPS, *registered(1, 2), accepted(3, 1), accepted(newcomer, target(1, binding=2)))
    await owner.commit(accepted(message(2, ttl_ms=None, at=NOW + 9), 1, 2), settled(3, 1, REPLACED))
    await owner.commit(accepted(message(5), 1))
    boxes = await owner.ask.mailboxes([DeviceNo(1), DeviceNo(2), DeviceNo(3)])
    assert boxes == {
        1: MailboxRow(
            device(1),
            (
                DeliveryRow(MsgId(2), Millis(NOW + 9), None, None, None, None, 2),
                DeliveryRow(MsgId(4), NOW, Millis(NOW + DAY), MsgId(3), Binding(2), None, 4),
                DeliveryRow(MsgId(5), NOW, Millis(NOW + DAY), None, None, None, 5),
            ),
        ),
        2: MailboxRow(device(2), (DeliveryRow(MsgId(2), Millis(NOW + 9), None, None, None, None, 2),)),
    }


async def test_a_deleted_device_has_no_mailbox(owner: Owner) -> None:
    await owner.commit(*APPS, *registered(1), accepted(1, 1))
    await owner.commit(settled(1, 1, MISSED), DeviceDeleted(DeviceNo(1), NOW))
    assert await owner.ask.mailboxes([DeviceNo(1)]) == {}


async def test_due_names_devices_in_the_order_in_which_their_deliveries_run_out(owner: Owner) -> None:
    """C5: not later than `until`; each instant of a device once."""
    await owner.commit(*APPS, *registered(1, 2, 3), *registered(4, app_no=OTHER_APP))
    await owner.commit(
        accepted(message(1, ttl_ms=2000), 3, 1),
        accepted(message(2, ttl_ms=2000), 1),
        accepted(message(3, ttl_ms=1000), 4, app_no=OTHER_APP),
        accepted(message(4, ttl_ms=3000), 1, 2),
        accepted(message(5, ttl_ms=None), 1),
    )
    at = [Millis(NOW + ms) for ms in (0, 1000, 2000, 3000)]
    rows = [
        DueRow(at[1], DeviceNo(4), OTHER_APP),
        DueRow(at[2], DeviceNo(1), APP),
        DueRow(at[2], DeviceNo(3), APP),
        DueRow(at[3], DeviceNo(1), APP),
        DueRow(at[3], DeviceNo(2), APP),
    ]
    first = (Millis(0), DeviceNo(0))
    assert await owner.ask.due(first, Millis(NOW + 999), 10) == []
    assert await owner.ask.due(first, at[1], 10) == rows[:1]
    assert await owner.ask.due(first, at[3], 10) == rows
    for behind, row in enumerate(rows):
        assert await owner.ask.due(row[:2], at[3], 2) == rows[behind + 1 : behind + 3]
    await owner.commit(settled(1, 1), settled(4, 2), settled(3, 4), DeviceDeleted(DeviceNo(4), NOW))
    assert await owner.ask.due(first, at[3], 10) == rows[1:4]
    await owner.commit(settled(2, 1))
    assert await owner.ask.due(first, at[3], 10) == rows[2:4]


async def test_a_deleted_device_is_not_due(owner: Owner) -> None:
    """Even if an actor forgot to settle what waits for it."""
    await owner.commit(*APPS, *registered(1, 2), accepted(1, 1, 2), DeviceDeleted(DeviceNo(1), NOW))
    assert await owner.ask.due((Millis(0), DeviceNo(0)), Millis(NOW + DAY), 10) == [
        DueRow(Millis(NOW + DAY), DeviceNo(2), APP)
    ]


async def test_unfinished_names_what_a_crash_ended_with_its_verdict(ground: Ground, owner: Owner) -> None:
    """C3: the struck have their strike. C5: what may not wait is missed."""
    await owner.commit(*APPS, *registered(1, 2, 3), accepted(1, 1, 2), accepted(message(2, ttl_ms=None), 1, 2, 3))
    await owner.commit(
        Struck(MsgId(1), DeviceNo(2), RECALLED), Struck(MsgId(2), DeviceNo(2), FENCED), settled(2, 3)
    )
    owner = await ground.restart(owner)
    left = {(1, 2, RECALLED), (2, 1, MISSED), (2, 2, FENCED)}
    assert set(await owner.ask.unfinished(10)) == left
    some = await owner.ask.unfinished(2)
    assert len(some) == 2
    assert set(some) < left
    await owner.ignores(0, *(settled(*row) for row in left))
    assert await owner.ask.unfinished(10) == []
    assert await waiting(owner, 2) == []


# --- cids (C6) -------------------------------------------------------------------------------------------------


async def test_a_cid_is_remembered_with_its_push(owner: Owner) -> None:
    """C6."""
    row, other = cid_row("a", 1), cid_row("ä b", 2, at=NOW + 50)
    await owner.commit(*APPS, accepted(1, cid=row), accepted(2, cid=other))
    assert await owner.ask.cids(APP, ["a", "ä b", "c"], NOW) == {"a": row, "ä b": other}
    assert await owner.ask.cids(APP, ["a", "ä b"], Millis(NOW + 1)) == {"ä b": other}
    assert await owner.ask.cids(OTHER_APP, ["a"], NOW) == {}


async def test_a_cid_may_be_used_anew_after_its_day(owner: Owner) -> None:
    """C6: whether the old answer was swept by then or not."""
    await owner.commit(*APPS, accepted(1, cid=cid_row("a", 1)))
    later = cid_row("a", 2, at=NOW + 2 * DAY)
    await owner.commit(accepted(message(2, at=NOW + 2 * DAY), cid=later))
    assert await owner.ask.cids(APP, ["a"], Millis(NOW + DAY)) == {"a": later}


async def test_the_answer_without_a_sendno_is_remembered_too(owner: Owner) -> None:
    row = cid_row("a")._replace(sendno=None)
    await owner.commit(*APPS, accepted(1, cid=row))
    assert await owner.ask.cids(APP, ["a"], NOW) == {"a": row}


# --- Reports and statuses (C18, C19) ---------------------------------------------------------------------------


async def test_reports_are_those_of_the_app(owner: Owner) -> None:
    """Nothing ever crosses from one app to another."""
    await owner.commit(*APPS, *registered(1), *registered(2, app_no=OTHER_APP))
    await owner.commit(accepted(1, 1), accepted(2, 2, app_no=OTHER_APP))
    assert list(await told(owner, 1, 2, 3)) == [1]
    assert list(await told(owner, 1, 2, 3, app_no=OTHER_APP)) == [2]
    assert await owner.ask.statuses(APP, MsgId(2), [rid(2)]) is None


async def test_pushes_are_listed_newest_first_in_pages(owner: Owner) -> None:
    """C18."""
    await owner.commit(*APPS, *(accepted(no, app_no=APP if no % 3 else OTHER_APP) for no in range(1, 13)))
    pages, before = [], None
    while page := await owner.ask.pushes(APP, before, 3):
        pages.append([row.msg_id for row in page])
        before = page[-1].msg_id
    assert pages == [[11, 10, 8], [7, 5, 4], [2, 1]]


async def test_statuses_tell_targets_from_others(owner: Owner) -> None:
    """C19."""
    await owner.commit(*APPS, *registered(1, 2, 3, 4), *registered(5, app_no=OTHER_APP))
    await owner.commit(accepted(1, 1, 2, target(3, MISSED)), settled(1, 1, RECEIVED, NOW + 7))
    asked = [rid(no) for no in (1, 2, 3, 4, 5, 6)]
    assert await owner.ask.statuses(APP, MsgId(1), asked) == {
        rid(1): StatusRow(RECEIVED, Millis(NOW + 7)),
        rid(2): StatusRow(None, NOW),
        rid(3): StatusRow(MISSED, NOW),
        rid(4): None,
    }
    assert await owner.ask.statuses(APP, MsgId(9), asked) is None


async def test_a_target_that_was_deleted_keeps_its_status(owner: Owner) -> None:
    """C19."""
    await owner.commit(*APPS, *registered(1, 2, 3), accepted(1, 1, 2), settled(1, 1))
    await owner.commit(settled(1, 2, MISSED, NOW + 3), *(DeviceDeleted(DeviceNo(no), NOW) for no in (1, 2, 3)))
    await swept(owner, NOW + DAY)
    assert await owner.ask.statuses(APP, MsgId(1), [rid(1), rid(2), rid(3)]) == {
        rid(1): StatusRow(RECEIVED, Millis(NOW + 1)),
        rid(2): StatusRow(MISSED, Millis(NOW + 3)),
    }


async def test_a_thousand_statuses_can_be_asked_at_once(owner: Owner) -> None:
    numbers = range(1, 1001)
    await owner.commit(*APPS, *registered(*numbers), accepted(1, *numbers))
    found = await owner.ask.statuses(APP, MsgId(1), [rid(no) for no in numbers])
    assert found == {rid(no): StatusRow(None, NOW) for no in numbers}


async def test_an_id_with_a_nul_finds_nobody(owner: Owner) -> None:
    await owner.commit(*APPS, *registered(1), accepted(1, 1))
    assert await owner.ask.statuses(APP, MsgId(1), [rid(1) + "\0", "\0" + rid(1), ""]) == {}


# --- Sweeping --------------------------------------------------------------------------------------------------


async def test_a_push_is_kept_28_days_after_its_last_event(owner: Owner) -> None:
    """C18: acceptance, verdict and mark are events."""
    await owner.commit(*APPS, *registered(1), *(accepted(no, 1) for no in (1, 2, 3)), accepted(4, target(1, MISSED)))
    await owner.commit(settled(1, 1, RECEIVED, NOW + DAY), settled(2, 1, RECEIVED, NOW + 2 * DAY))
    await owner.commit(marked(1, 1, Mark.OPENED, NOW + 9 * DAY))
    kept = []
    for day in (28, 29, 31, 37, 38, 1000):
        await swept(owner, NOW + day * DAY)
        kept.append(list(await told(owner, 1, 2, 3, 4)))
    assert kept == [[1, 2, 3, 4], [1, 2, 3], [1, 3], [1, 3], [3], [3]]
    assert await waiting(owner, 1) == [3]


async def test_a_late_event_never_shortens_the_time_a_push_is_kept(owner: Owner) -> None:
    """The wall clock may step back."""
    await owner.commit(*APPS, *registered(1), accepted(1, 1), settled(1, 1, RECEIVED, NOW - 9 * DAY))
    await swept(owner, NOW + 27 * DAY)
    assert list(await told(owner, 1)) == [1]


async def test_cids_are_kept_for_a_day(owner: Owner) -> None:
    """C6."""
    await owner.commit(*APPS, accepted(1, cid=cid_row("a")), accepted(2, cid=cid_row("b", at=NOW + 5)))
    await swept(owner, NOW + DAY)
    assert set(await owner.ask.cids(APP, ["a", "b"], Millis(0))) == {"a", "b"}
    await swept(owner, NOW + DAY + 1)
    assert set(await owner.ask.cids(APP, ["a", "b"], Millis(0))) == {"b"}


async def test_a_large_push_leaves_in_small_steps_and_its_report_is_never_wrong(ground: Ground, owner: Owner) -> None:
    """C1, C18: the report is whole or gone; also when a restart comes in between."""
    numbers = range(1, 501)
    await owner.commit(*APPS, *registered(*numbers), accepted(1, *numbers), *(settled(1, no) for no in numbers))
    whole = await report(owner, 1)
    steps = 0
    while (removed := await owner.ask.sweep(Millis(NOW + 100 * DAY), 40)) or steps < 3:
        assert removed <= 45
        steps += 1
        assert await told(owner, 1) in ({1: whole}, {})
        found = await owner.ask.statuses(APP, MsgId(1), [rid(no) for no in numbers])
        assert found is None or all(row is not None for row in found.values())
        if steps == 5:
            owner = await ground.restart(owner)
    assert steps >= 8
    assert await told(owner, 1) == {}
    assert len(await owner.ask.devices(APP, DeviceNo(0), 1000)) == 500


async def test_deleted_devices_leave_with_their_last_delivery(owner: Owner) -> None:
    """Their registration can then be used again, which is how it shows."""
    await owner.commit(*APPS, *registered(1, 2), accepted(1, 1), settled(1, 1), DeviceDeleted(DeviceNo(1), NOW))
    await swept(owner, NOW + DAY)
    await owner.ignores(1, *registered(1))
    await swept(owner, NOW + 30 * DAY)
    await owner.ignores(0, *registered(1))
    assert await owner.ask.devices(APP, DeviceNo(0), 9) == [device(1), device(2)]


async def test_a_sweep_of_what_is_in_use_removes_nothing(owner: Owner) -> None:
    await owner.commit(*APPS, *registered(1, 2), accepted(1, 1, cid=cid_row("a")), accepted(2, target(1, MISSED)))
    assert await owner.ask.sweep(Millis(NOW + DAY), 100) == 0
    assert list(await told(owner, 1, 2)) == [1, 2]


async def test_a_step_stays_near_its_limit_whatever_there_is_to_remove(owner: Owner) -> None:
    await owner.commit(*APPS, *registered(*range(1, 101)))
    await owner.commit(*(accepted(no, target(no, MISSED), cid=cid_row(f"c{no}", no)) for no in range(1, 101)))
    await owner.commit(*(DeviceDeleted(DeviceNo(no), NOW) for no in range(1, 101)))
    steps = 0
    while removed := await owner.ask.sweep(Millis(NOW + 100 * DAY), 10):
        assert removed <= 15
        steps += 1
    assert steps >= 20
    await owner.ignores(0, *registered(*range(1, 101)))


# --- Backup ----------------------------------------------------------------------------------------------------


async def test_a_backup_never_takes_the_place_of_another_file(owner: Owner, tmp_path: Path) -> None:
    target_path = tmp_path / "precious"
    target_path.write_bytes(b"precious")
    with pytest.raises(StoreUnusable):
        await owner.ask.backup(target_path)
    assert target_path.read_bytes() == b"precious"


# --- Closing ---------------------------------------------------------------------------------------------------


async def test_a_store_may_be_closed_twice_and_answers_nothing_then(owner: Owner) -> None:
    await owner.store.aclose()
    await owner.store.aclose()
    with pytest.raises(StoreUnusable):
        await owner.ask.reports(APP, [MsgId(1)])

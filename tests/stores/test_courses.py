"""The course of a delivery through mailboxes, recalls and its timeline, on every store there is (law 10)."""

from __future__ import annotations

from typing import Any
from unittest.mock import ANY

import pytest

from pushactors.domain.message import Mark
from pushactors.stores.contract import (
    Arrived,
    DeliveryRow,
    DeviceDeleted,
    Left,
    MailboxRow,
    NoticeAnswered,
    NoticeRow,
    OverdueRow,
    ReportRow,
    Stamped,
    StatusRow,
)
from pushactors.wire.ids import DeviceNo, Millis, MsgId, VisitNo
from tests.stores.grounds import Ground, Owner, mailbox, report, status, swept, waiting
from tests.stores.rows import (
    ALICE,
    APP,
    APPS,
    BOB,
    DAY,
    EXPIRED,
    FENCED,
    MISSED,
    NOW,
    OTHER_APP,
    RECALLED,
    RECEIVED,
    accepted,
    alias_mailbox,
    device,
    marked,
    message,
    moved,
    noticed,
    overdue,
    registered,
    rid,
    sent,
    settled,
    struck,
    target,
)

# --- Mailboxes of aliases, and moving (law 10) -----------------------------------------------------------------


async def test_the_mailbox_of_an_alias_is_on_no_list_of_devices(owner: Owner) -> None:
    """Law 10."""
    await owner.commit(*APPS, *registered(1), alias_mailbox(2, ALICE), alias_mailbox(3, BOB, OTHER_APP), accepted(1, 2))
    made = alias_mailbox(2, ALICE).device
    assert await owner.ask.devices(APP, DeviceNo(0), 9) == [device(1)]
    assert await owner.ask.alias_mailboxes(APP, DeviceNo(0), 9) == [made]
    assert await owner.ask.alias_mailboxes(APP, DeviceNo(2), 9) == []
    assert await owner.ask.statuses(APP, MsgId(1), [made.registration_id, rid(1)]) == {rid(1): None}
    assert await owner.ask.device_no(APP, made.registration_id) is None
    await owner.commit(settled(1, 2))
    assert await owner.ask.recipients(MsgId(1), DeviceNo(0), 9) == []
    await owner.commit(DeviceDeleted(DeviceNo(2), NOW))
    assert await owner.ask.alias_mailboxes(APP, DeviceNo(0), 9) == []


async def test_the_mailbox_of_an_alias_is_due_and_overdue_like_any_other(owner: Owner) -> None:
    await owner.commit(*APPS, *registered(1), alias_mailbox(2, ALICE), accepted(1, 1, 2, deliver_by=NOW + 5))
    first = (Millis(0), DeviceNo(0), MsgId(0))
    due = await owner.ask.due(first[:2], Millis(NOW + DAY), 9)
    assert [row.device_no for row in due] == [1, 2]
    assert await owner.ask.overdue(first, Millis(NOW + 4), 9) == []
    rows = await owner.ask.overdue(first, Millis(NOW + 5), 9)
    assert rows == [
        OverdueRow(Millis(NOW + 5), DeviceNo(1), MsgId(1), APP, NOW, NOW),
        OverdueRow(Millis(NOW + 5), DeviceNo(2), MsgId(1), APP, NOW, None),
    ]
    await owner.ignores(1, overdue(1, 1), overdue(1, 1), settled(1, 2))
    assert await owner.ask.overdue(first, Millis(NOW + 5), 9) == []
    assert await waiting(owner, 1) == [1]


async def test_a_moved_delivery_stays_the_same_delivery(owner: Owner) -> None:
    """C1, law 10: it keeps its times and what it waits for; its strike and whether it was sent are forgotten."""
    await owner.commit(*APPS, *registered(1, 2), alias_mailbox(9, ALICE))
    of_alice = target(1, binding=3, held_for=ALICE)
    await owner.commit(accepted(1, of_alice, deliver_by=NOW + 5), sent(1, 1), struck(1, 1), accepted(2, of_alice, 9))
    await owner.ignores(1, moved(1, 1, 9), moved(2, 1, 9))
    assert await waiting(owner, 1) == [2]
    row = DeliveryRow(MsgId(1), NOW, Millis(NOW + DAY), None, None, None, 1, ALICE, False)
    assert await mailbox(owner, 9) == (row, row._replace(msg_id=MsgId(2), place=2, held_for=None))
    assert [row.device_no for row in await owner.ask.overdue((0, 0, 0), Millis(NOW + 5), 9)] == [9]
    await owner.ignores(0, moved(1, 9, 2, binding=4, place=77), settled(1, 2))
    assert await status(owner, 1, 2) == StatusRow(RECEIVED, Millis(NOW + 1))
    assert await status(owner, 1, 1) is None
    assert await report(owner, 1) == ReportRow(MsgId(1), NOW, 1, 0, {RECEIVED: 1}, {})
    assert await owner.ask.had(DeviceNo(2), [MsgId(2), MsgId(1)]) == [1]
    assert await owner.ask.had(DeviceNo(1), [MsgId(2), MsgId(1)]) == [2]
    await owner.ignores(2, moved(1, 2, 1), settled(1, 9))


async def test_a_delivery_can_come_back(owner: Owner) -> None:
    await owner.commit(*APPS, *registered(1), alias_mailbox(9, ALICE))
    await owner.ignores(0, accepted(1, 1), moved(1, 1, 9), moved(1, 9, 1))
    assert await waiting(owner, 1) == [1]
    assert await waiting(owner, 9) == []


async def test_nothing_is_moved_to_a_device_that_is_gone_or_has_had_it(owner: Owner) -> None:
    await owner.commit(*APPS, *registered(1, 2, 3, 4), accepted(1, 1, 2, 3), settled(1, 2))
    await owner.commit(DeviceDeleted(DeviceNo(4), NOW))
    await owner.ignores(3, moved(1, 1, 2), moved(1, 1, 3), moved(1, 1, 4))
    assert await waiting(owner, 1) == [1]


async def test_a_mailbox_is_in_the_order_of_the_places(owner: Owner) -> None:
    await owner.commit(*APPS, *registered(1, 2), accepted(1, 2), accepted(2, 2), accepted(3, 1), accepted(4, 1))
    await owner.commit(moved(1, 2, 1, place=5), moved(2, 2, 1, place=4), accepted(6, 1))
    assert [(row.msg_id, row.place) for row in await mailbox(owner, 1)] == [(3, 3), (2, 4), (4, 4), (1, 5), (6, 6)]


async def test_what_is_struck_and_held_is_stranded_and_not_unfinished(ground: Ground, owner: Owner) -> None:
    held = target(1, held_for=ALICE)
    await owner.commit(*APPS, *registered(1, 2), alias_mailbox(9, ALICE))
    await owner.commit(accepted(1, held, target(2, held_for=ALICE)), accepted(2, held), accepted(3, held, 2))
    await owner.commit(struck(1, 1), struck(2, 1, RECALLED), struck(3, 2))
    owner = await ground.restart(owner)
    assert await owner.ask.stranded(APP) == [1]
    assert await owner.ask.stranded(OTHER_APP) == []
    assert set(await owner.ask.unfinished(9)) == {(2, 1, RECALLED), (3, 2, FENCED)}
    await owner.commit(moved(1, 1, 9))
    assert await owner.ask.stranded(APP) == []


# --- What a device may have (C22) ------------------------------------------------------------------------------


async def test_who_was_sent_it_or_was_there_at_the_end_may_have_it(ground: Ground, owner: Owner) -> None:
    await owner.commit(*APPS, *registered(1, 2, 3, 4, 5), alias_mailbox(9, ALICE), accepted(1, *range(1, 6), 9))
    arrivals = [Arrived(DeviceNo(no), Millis(NOW + 1), VisitNo(4)) for no in (2, 3, 9)]
    await owner.commit(*arrivals, Left(DeviceNo(3), Millis(NOW + 2)), sent(1, 4), sent(1, 4), struck(1, 4, RECALLED))
    await owner.commit(settled(1, 5))
    owner = await ground.restart(owner)
    found, rows = await owner.ask.unsettled(APP, MsgId(1), DeviceNo(0), 9)
    assert found == await report(owner, 1)
    assert [tuple(row) for row in rows] == [
        (1, False, None),
        (2, True, None),
        (3, False, None),
        (4, True, RECALLED),
        (9, False, None),
    ]
    assert (await owner.ask.unsettled(APP, MsgId(1), DeviceNo(2), 2))[1] == rows[2:4]
    assert await owner.ask.unsettled(OTHER_APP, MsgId(1), DeviceNo(0), 9) is None
    rows = await owner.ask.devices(APP, DeviceNo(1), 2)
    assert [(row.visits, row.was_present, row.last_seen_at - NOW) for row in rows] == [(4, True, 1), (4, False, 2)]


async def test_the_unsettled_of_a_push_that_may_not_wait_are_found_too(owner: Owner) -> None:
    await owner.commit(*APPS, *registered(1, 2), accepted(message(1, ttl_ms=None), 1, 2), accepted(2, 1), sent(1, 2))
    rows = (await owner.ask.unsettled(APP, MsgId(1), DeviceNo(0), 9))[1]
    assert [tuple(row) for row in rows] == [(1, False, None), (2, True, None)]


async def test_a_recall_is_noticed_until_it_is_answered_or_over(ground: Ground, owner: Owner) -> None:
    """C22."""
    await owner.commit(*APPS, *registered(1, 2, 3), accepted(1, 1, 2, 3), accepted(2, 1))
    await owner.commit(noticed(1, 1, NOW + 9), noticed(1, 2), noticed(1, 3), noticed(2, 1, NOW + 5))
    await owner.commit(noticed(1, 1, NOW + 3))
    owner = await ground.restart(owner)
    notices = {no: box.notices for no, box in (await owner.ask.mailboxes([1, 2, 3])).items()}
    assert notices == {1: ((1, NOW + 3), (2, NOW + 5)), 2: ((1, NOW + DAY),), 3: ((1, NOW + DAY),)}
    answer = NoticeAnswered(MsgId(1), DeviceNo(2))
    await owner.ignores(1, answer, answer, DeviceDeleted(DeviceNo(3), NOW))
    await swept(owner, NOW + 3)
    assert len((await owner.ask.mailboxes([1]))[1].notices) == 2
    await swept(owner, NOW + 4)
    assert (await owner.ask.mailboxes([1, 2, 3])) == {
        1: MailboxRow(device(1), ANY, (NoticeRow(MsgId(2), Millis(NOW + 5)),)),
        2: MailboxRow(device(2), ANY, ()),
    }


async def test_the_notices_of_a_device_go_with_it(owner: Owner) -> None:
    await owner.commit(*APPS, *registered(1), alias_mailbox(9, ALICE), accepted(1, 1, 9), noticed(1, 1), noticed(1, 9))
    await owner.commit(DeviceDeleted(DeviceNo(1), NOW), DeviceDeleted(DeviceNo(9), NOW))
    await owner.ignores(1, NoticeAnswered(MsgId(1), DeviceNo(1)))
    assert await owner.ask.sweep(Millis(NOW + 2 * DAY), 9) == 0


# --- Timelines -------------------------------------------------------------------------------------------------


async def course(owner: Owner, msg_id: int, device_no: int) -> list[tuple[Any, ...]]:
    row = await owner.ask.timeline(APP, MsgId(msg_id), DeviceNo(device_no))
    return [(entry.word, entry.at - NOW, entry.visit or entry.verdict) for entry in row.entries]


async def test_the_course_of_a_delivery_is_told_from_its_acceptance_to_its_marks(owner: Owner) -> None:
    await owner.commit(*APPS, *registered(1), accepted(1, 1, deliver_by=NOW + 20), Stamped(Millis(NOW + 5)))
    await owner.commit(sent(1, 1, 2, NOW + 10), overdue(1, 1, NOW + 20), sent(1, 1, 3, NOW + 30))
    await owner.commit(struck(1, 1, RECALLED, NOW + 40), settled(1, 1, RECEIVED, NOW + 50, 3, NOW + 30))
    await owner.commit(marked(1, 1, Mark.WITHDRAWN, NOW + 60), marked(1, 1, Mark.OPENED, NOW + 70))
    assert await course(owner, 1, 1) == [
        ("accepted", 0, None),
        ("stored", 5, None),
        ("sent", 10, 2),
        ("overdue", 20, None),
        ("sent", 30, 3),
        ("struck", 40, RECALLED),
        ("acknowledged", 50, 3),
        ("received", 50, None),
        ("withdrawn", 60, None),
        ("opened", 70, None),
    ]
    assert (await owner.ask.timeline(APP, MsgId(1), DeviceNo(1))).verdict is RECEIVED


async def test_a_moved_delivery_takes_its_course_along(owner: Owner) -> None:
    """The first visit of another device is another visit."""
    await owner.commit(*APPS, *registered(1, 2), alias_mailbox(9, ALICE), accepted(1, target(1, held_for=ALICE)))
    await owner.commit(sent(1, 1, 1, NOW + 1), struck(1, 1, FENCED, NOW + 2), moved(1, 1, 9, at=NOW + 3))
    assert (await course(owner, 1, 9))[-1] == ("held", 3, None)
    await owner.commit(moved(1, 9, 2, at=NOW + 4), settled(1, 2, RECEIVED, NOW + 6, 1, NOW + 5))
    assert await course(owner, 1, 2) == [
        ("accepted", 0, None),
        ("sent", 1, 1),
        ("struck", 2, FENCED),
        ("held", 3, None),
        ("bound", 4, None),
        ("sent", 5, 1),
        ("acknowledged", 6, 1),
        ("received", 6, None),
    ]
    for device_no in (1, 9):
        assert await owner.ask.timeline(APP, MsgId(1), DeviceNo(device_no)) is None


async def test_a_verdict_without_a_visit_is_not_acknowledged(owner: Owner) -> None:
    await owner.commit(*APPS, *registered(1, 2), Stamped(NOW), accepted(1, target(1, MISSED), 2, 3))
    await owner.commit(settled(1, 2, EXPIRED, NOW + 3, 4, NOW + 1), settled(1, 3, RECEIVED, NOW + 5))
    first = [("accepted", 0, None), ("stored", 0, None)]
    assert await course(owner, 1, 1) == [*first, ("missed", 0, None)]
    assert await course(owner, 1, 2) == [*first, ("sent", 1, 4), ("expired", 3, None)]
    assert await course(owner, 1, 3) == [*first, ("received", 5, None)]
    assert await owner.ask.timeline(OTHER_APP, MsgId(1), DeviceNo(1)) is None
    assert await owner.ask.timeline(APP, MsgId(1), DeviceNo(4)) is None


@pytest.mark.parametrize("place", range(3))
async def test_what_is_accepted_in_a_commit_is_stored_when_it_is_made(owner: Owner, place: int) -> None:
    """Wherever in it the instant stands; what was accepted before stays as it was."""
    await owner.commit(*APPS, *registered(1), accepted(1, 1))
    changes: list[Any] = [accepted(2, 1), accepted(1, 1)]
    changes.insert(place, Stamped(Millis(NOW + 5)))
    await owner.commit(*changes)
    assert await course(owner, 1, 1) == [("accepted", 0, None)]
    assert await course(owner, 2, 1) == [("accepted", 0, None), ("stored", 5, None)]

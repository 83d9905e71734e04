"""The receipts of an app and its consumers, on every store there is (C20, law 9)."""

from __future__ import annotations

from typing import Any
from unittest.mock import ANY

import pytest

from pushactors.domain.message import Mark
from pushactors.domain.receipts import Event, Reason, Why
from pushactors.stores.contract import (
    AliasChanged,
    DeviceDeleted,
    ReceiptPage,
)
from pushactors.wire.ids import AppNo, Binding, Cursor, DeviceNo, Millis
from tests.stores.grounds import Ground, Owner, swept
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
    RECEIVED,
    accepted,
    alias_mailbox,
    consumed,
    marked,
    moved,
    overdue,
    registered,
    rid,
    settled,
    target,
)

# --- Receipts (C20, law 9) -------------------------------------------------------------------------------------


async def told_so_far(owner: Owner, after: int = 0, app_no: AppNo = APP) -> list[tuple[Any, ...]]:
    page = await owner.ask.receipts(app_no, Cursor(after), 1000)
    return [(row.cursor, row.msg_id, row.registration_id, row.event, row.at) for row in page.rows]


async def test_receipts_come_in_the_order_of_the_changes(owner: Owner) -> None:
    """Law 9: however the changes are written, and whatever is between them."""
    await owner.commit(*APPS, *registered(1, 2, 3), accepted(1, 1, 2, 3, deliver_by=NOW))
    await owner.commit(
        settled(1, 2, RECEIVED, NOW + 1),
        overdue(1, 3, NOW + 2),
        marked(1, 2, Mark.OPENED, NOW + 3),
        accepted(2, target(3, FENCED), 2, target(1, MISSED)),
        settled(1, 1, EXPIRED, NOW + 4),
        marked(1, 2, Mark.WITHDRAWN, NOW + 5),
        settled(1, 3, RECEIVED, NOW + 6),
    )
    assert await told_so_far(owner) == [
        (1, 1, rid(2), Event.RECEIVED, NOW + 1),
        (2, 1, rid(3), Event.OVERDUE, NOW + 2),
        (3, 1, rid(2), Event.OPENED, NOW + 3),
        (4, 2, rid(3), Event.FENCED, NOW),
        (5, 2, rid(1), Event.MISSED, NOW),
        (6, 1, rid(1), Event.EXPIRED, NOW + 4),
        (7, 1, rid(2), Event.WITHDRAWN, NOW + 5),
        (8, 1, rid(3), Event.RECEIVED, NOW + 6),
    ]


async def test_what_was_ignored_is_no_receipt(owner: Owner) -> None:
    """Law 9: only what took effect; and a change that is given twice takes effect once, where it fitted first."""
    twice = settled(1, 1, EXPIRED)
    await owner.commit(*APPS, *registered(1, 2))
    await owner.ignores(
        7,
        twice,
        accepted(1, 1, target(2, MISSED), target(2, FENCED)),
        overdue(1, 1),
        accepted(1, target(1, MISSED)),
        twice,
        marked(1, 1, Mark.OPENED),
        settled(1, 1, RECEIVED),
        settled(1, 2, RECEIVED),
    )
    assert await told_so_far(owner) == [(1, 1, rid(2), Event.MISSED, NOW), (2, 1, rid(1), Event.EXPIRED, NOW + 1)]


async def test_each_app_has_cursors_of_its_own_without_a_gap(ground: Ground, owner: Owner) -> None:
    await owner.commit(*APPS, *registered(1), *registered(2, app_no=OTHER_APP))
    for msg_id in range(1, 9, 2):
        one, other = accepted(msg_id, target(1, MISSED)), accepted(msg_id + 1, 2, app_no=OTHER_APP)
        await owner.commit(one, other, settled(msg_id + 1, 2))
        owner = await ground.restart(owner)
    for app_no, first in ((APP, 1), (OTHER_APP, 2)):
        rows = (await owner.ask.receipts(app_no, Cursor(0), 10)).rows
        assert [(row.cursor, row.msg_id) for row in rows] == list(enumerate(range(first, 9, 2), 1))


async def test_receipts_are_paged_behind_a_cursor(owner: Owner) -> None:
    assert await owner.ask.receipts(APP, Cursor(0), 10) == ReceiptPage(ANY, 0, 0)
    await owner.commit(*APPS, *registered(*range(1, 8)))
    assert await owner.ask.receipts(APP, Cursor(0), 10) == ReceiptPage(ANY, 0, 0)
    await owner.commit(accepted(1, *(target(no, MISSED) for no in range(1, 8))))
    pages, after = [], 0
    while (page := await owner.ask.receipts(APP, Cursor(after), 3)).rows:
        assert (page.oldest, page.last) == (1, 7)
        pages.append([row.cursor for row in page.rows])
        after = page.rows[-1].cursor
    assert pages == [[1, 2, 3], [4, 5, 6], [7]]
    assert list((await owner.ask.receipts(APP, Cursor(99), 3)).rows) == []


async def test_the_receipt_of_an_alias_names_the_alias_and_no_device(owner: Owner) -> None:
    """Law 10: its registration id is told to nobody."""
    await owner.commit(*APPS, *registered(1), alias_mailbox(9, ALICE))
    await owner.commit(AliasChanged(DeviceNo(1), BOB, Binding(1)), accepted(1, 1, 9), settled(1, 9, EXPIRED))
    await owner.commit(settled(1, 1))
    rows = (await owner.ask.receipts(APP, Cursor(0), 9)).rows
    assert [(row.registration_id, row.alias) for row in rows] == [(None, ALICE), (rid(1), None)]


@pytest.mark.parametrize(
    "reason",
    [
        Reason(Why.ABSENT, since=NOW),
        Reason(Why.UNACKNOWLEDGED, since=Millis(0)),
        Reason(Why.QUEUED, behind=0),
        Reason(Why.QUEUED, behind=31),
        Reason(Why.UNHELD),
    ],
    ids=str,
)
async def test_a_reason_is_read_as_it_was_written(owner: Owner, reason: Reason) -> None:
    """C21."""
    await owner.commit(*APPS, *registered(1), accepted(1, 1, deliver_by=NOW), overdue(1, 1, NOW, reason))
    rows = (await owner.ask.receipts(APP, Cursor(0), 9)).rows
    assert [(row.event, row.reason) for row in rows] == [(Event.OVERDUE, reason)]


async def test_receipts_leave_at_the_head_of_their_stream_only(owner: Owner) -> None:
    """C20: by age and by number; what is left has no gap, even where the clock stepped back."""
    at = [NOW, NOW + DAY, NOW + 5 * DAY, NOW + DAY, NOW + 6 * DAY]
    await owner.commit(*APPS, *registered(*range(1, 6)), accepted(1, *range(1, 6)))
    await owner.commit(*(settled(1, no, RECEIVED, at[no - 1]) for no in range(1, 6)))
    await swept(owner, NOW + 10 * DAY, 1)
    assert [row[0] for row in await told_so_far(owner)] == [1, 2, 3, 4, 5]
    await swept(owner, NOW + 12 * DAY, 1)
    assert [row[0] for row in await told_so_far(owner)] == [3, 4, 5]
    assert (await owner.ask.receipts(APP, Cursor(0), 9))[1:] == (3, 5)
    await swept(owner, NOW, 1, {APP: 2, OTHER_APP: 0})
    assert [row[0] for row in await told_so_far(owner)] == [4, 5]
    await swept(owner, NOW, 9, {APP: 0})
    assert await owner.ask.receipts(APP, Cursor(0), 9) == ReceiptPage(ANY, 5, 5)
    await owner.commit(accepted(2, target(1, MISSED)))
    assert [row[0] for row in await told_so_far(owner)] == [6]
    assert (await owner.ask.receipts(APP, Cursor(0), 9))[1:] == (6, 6)


async def test_a_step_through_the_receipts_stays_at_its_limit(owner: Owner) -> None:
    await owner.commit(*APPS, *registered(*range(1, 51)), *registered(*range(51, 101), app_no=OTHER_APP))
    await owner.commit(accepted(1, *(target(no, MISSED) for no in range(1, 51))))
    await owner.commit(accepted(2, *(target(no, MISSED) for no in range(51, 101)), app_no=OTHER_APP))
    left = 100
    while left > 10:
        removed = await owner.ask.sweep(NOW, 7, {APP: 3, OTHER_APP: 7})
        assert 0 <= removed <= 7
        left = len(await told_so_far(owner)) + len(await told_so_far(owner, app_no=OTHER_APP))
    assert await owner.ask.sweep(NOW, 7, {APP: 3, OTHER_APP: 7}) == 0
    assert len(await told_so_far(owner)) == 3


async def test_a_device_outlives_the_receipts_that_name_it(owner: Owner) -> None:
    """Also when the delivery has left its mailbox."""
    await owner.commit(*APPS, *registered(1), alias_mailbox(9, ALICE), accepted(1, 9, deliver_by=NOW))
    await owner.commit(overdue(1, 9, NOW + DAY), moved(1, 9, 1), DeviceDeleted(DeviceNo(9), NOW))
    await swept(owner, NOW + 2 * DAY)
    assert [row.alias for row in (await owner.ask.receipts(APP, Cursor(0), 9)).rows] == [ALICE]


async def test_a_device_does_not_wait_for_what_has_left_its_mailbox(owner: Owner) -> None:
    await owner.commit(*APPS, *registered(1), alias_mailbox(9, ALICE), accepted(1, 1), moved(1, 1, 9))
    await owner.commit(DeviceDeleted(DeviceNo(1), NOW), settled(1, 9))
    await swept(owner, NOW + 40 * DAY)
    await owner.ignores(0, *registered(1))


async def test_a_consumer_resumes_where_it_was_last_moved(ground: Ground, owner: Owner) -> None:
    """C20."""
    await owner.ignores(0, *APPS, consumed("a", 5), consumed("b", 0), consumed("a", 9), consumed("a", 7))
    owner = await ground.restart(owner)
    assert await owner.ask.consumers(APP) == {"a": 7, "b": 0}
    assert await owner.ask.consumers(OTHER_APP) == {}

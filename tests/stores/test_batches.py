from __future__ import annotations

from itertools import chain

import pytest

from pushactors.domain.message import Mark
from pushactors.stores.batches import batches
from pushactors.stores.contract import (
    Accepted,
    ConsumerMoved,
    DeviceDeleted,
    Marked,
    Moved,
    NoticeAnswered,
    Noticed,
    Overdue,
    Registered,
    Seen,
    Sent,
    Settled,
    Stamped,
    Struck,
)
from pushactors.wire.ids import DeviceNo, Millis, MsgId
from tests.stores.rows import (
    ALICE,
    NOW,
    accepted,
    alias_mailbox,
    marked,
    moved,
    noticed,
    overdue,
    registered,
    sent,
    settled,
    struck,
)
from tests.stores.walk import Walk


def seen(device_no: int, at: int = NOW) -> Seen:
    return Seen(DeviceNo(device_no), Millis(at))


def kinds(*changes: object) -> list[str]:
    return [f"{type(batch[0]).__name__} {len(batch)}" for batch in batches(changes)]  # type: ignore[arg-type]


def test_what_comes_mixed_is_sorted_by_kind() -> None:
    mixed = [change for no in range(100) for change in (accepted(no, no), settled(no, no), seen(no))]
    assert kinds(*mixed) == ["Accepted 100", "Settled 100", "Seen 100"]


def test_a_push_is_accepted_before_its_deliveries_are_settled_and_marked() -> None:
    assert kinds(settled(1, 1), accepted(2, 1), settled(2, 1), marked(2, 1, Mark.OPENED), settled(2, 2)) == [
        "Settled 1",
        "Accepted 1",
        "Settled 2",
        "Marked 1",
    ]


def test_a_delivery_or_device_is_named_once_in_a_batch() -> None:
    assert kinds(settled(1, 1), settled(1, 2), settled(1, 1)) == ["Settled 2", "Settled 1"]
    assert kinds(seen(1), seen(2), seen(1, 5), seen(2, 5), seen(3)) == ["Seen 2", "Seen 3"]
    assert kinds(accepted(1), accepted(2), accepted(1)) == ["Accepted 2", "Accepted 1"]
    assert kinds(marked(1, 1, Mark.OPENED), marked(1, 1, Mark.DISMISSED)) == ["Marked 1", "Marked 1"]


def test_strikes_and_verdicts_of_one_delivery_keep_their_order() -> None:
    assert kinds(settled(1, 1), struck(1, 2), struck(1, 1), settled(1, 2)) == ["Settled 1", "Struck 2", "Settled 1"]


def test_a_broadcast_that_is_received_and_opened_in_any_order_is_two_batches() -> None:
    mixed = [change for no in range(50) for change in (settled(1, no), marked(1, no, Mark.OPENED))]
    assert kinds(*mixed) == ["Settled 50", "Marked 50"]


def test_a_push_that_comes_again_stays_behind_its_deliveries() -> None:
    assert kinds(accepted(1, 1), settled(1, 1), struck(2, 1), accepted(2, 1)) == [
        "Accepted 1",
        "Settled 1",
        "Struck 1",
        "Accepted 1",
    ]


def test_a_change_that_joins_an_early_batch_does_not_hide_a_later_one_of_its_push() -> None:
    settling = [settled(3, 1), settled(4, 1)]
    assert kinds(struck(3, 1), accepted(8), *settling, struck(4, 2), accepted(4, 1)) == [
        "Struck 2",
        "Accepted 1",
        "Settled 2",
        "Accepted 1",
    ]


def test_a_deletion_and_a_registration_keep_their_order() -> None:
    gone = DeviceDeleted(DeviceNo(1), NOW)
    assert kinds(*registered(1, 2), gone, *registered(3), *registered(4)) == [
        "Registered 2",
        "DeviceDeleted 1",
        "Registered 2",
    ]


def test_a_delivery_is_moved_behind_what_was_told_of_it_in_both_mailboxes() -> None:
    assert kinds(sent(1, 1), sent(1, 2), moved(1, 1, 2), sent(1, 2), moved(2, 1, 2), moved(1, 2, 3)) == [
        "Sent 2",
        "Moved 2",
        "Sent 1",
        "Moved 1",
    ]


def test_what_is_told_behind_a_move_stays_behind_it() -> None:
    assert kinds(settled(1, 1), moved(2, 1, 9), settled(2, 9), settled(3, 1), overdue(2, 9), accepted(2, 9)) == [
        "Settled 1",
        "Moved 1",
        "Settled 2",
        "Overdue 1",
        "Accepted 1",
    ]


def test_a_mailbox_is_made_before_something_is_moved_there_and_deleted_when_all_has_left() -> None:
    gone = DeviceDeleted(DeviceNo(9), NOW)
    changes = [alias_mailbox(9, ALICE), moved(1, 1, 9), moved(2, 2, 9), moved(1, 9, 3), moved(2, 9, 4), gone]
    assert kinds(*changes, moved(5, 1, 9)) == ["Registered 1", "Moved 2", "Moved 2", "DeviceDeleted 1", "Moved 1"]


def test_many_may_move_to_one_mailbox_at_once() -> None:
    mixed = [change for no in range(1, 50) for change in (moved(no, no, 99), seen(99, no), sent(no, 99))]
    assert [kind for kind in kinds(*mixed) if not kind.startswith("Seen")] == ["Moved 49", "Sent 49"]


def test_notices_keep_their_order_with_answers_deletions_and_their_push() -> None:
    answered = NoticeAnswered(MsgId(1), DeviceNo(1))
    gone = DeviceDeleted(DeviceNo(1), NOW)
    assert kinds(noticed(1, 1), accepted(1, 1), noticed(1, 1), noticed(1, 2), answered, gone, noticed(1, 1)) == [
        "Noticed 1",
        "Accepted 1",
        "Noticed 2",
        "NoticeAnswered 1",
        "DeviceDeleted 1",
        "Noticed 1",
    ]


def test_a_deadline_and_a_verdict_of_one_delivery_keep_their_order() -> None:
    assert kinds(overdue(1, 1), settled(1, 1), overdue(1, 2), overdue(1, 1)) == ["Overdue 2", "Settled 1", "Overdue 1"]


def test_nothing_is_nothing() -> None:
    assert batches([]) == []


@pytest.mark.parametrize("seed", range(20))
def test_no_change_is_lost_and_none_overtakes_what_it_touches(seed: int) -> None:
    walk = Walk(seed)
    changes = list(chain.from_iterable(walk.commit()[0] for _ in range(30)))
    found = batches(changes)
    assert sorted(map(id, chain.from_iterable(found))) == sorted(map(id, changes))
    place = {id(change): (at, behind) for at, batch in enumerate(found) for behind, change in enumerate(batch)}
    for at, change in enumerate(changes):
        for later in changes[at + 1 :]:
            if touches(change) & (touches(later) | needs(later)) or needs(change) & touches(later):
                assert place[id(change)] < place[id(later)]
    for batch in found:
        assert len({type(change) for change in batch}) == 1
        if not isinstance(batch[0], Accepted):
            named = list(chain.from_iterable(touches(change) - {"installs"} for change in batch))
            assert len(named) == len(set(named))


def touches(change: object) -> set[object]:
    match change:
        case Settled() | Struck() | Marked() | Sent() | Overdue():
            return {(change.msg_id, change.device_no)}
        case Moved():
            return {(change.msg_id, change.device_no), (change.msg_id, change.to)}
        case Noticed() | NoticeAnswered():
            return {f"notice {change.device_no} {change.msg_id}"}
        case ConsumerMoved():
            return {f"consumer {change.app_no} {change.consumer}"}
        case Stamped():
            return set()
        case Accepted():
            return {(change.message.msg_id, no) for no in range(1, 100)} | {change.message.msg_id}
        case Registered():
            return {f"device {change.device.device_no}", f"life of {change.device.device_no}", "installs"}
        case DeviceDeleted():
            return {f"device {change.device_no}", f"life of {change.device_no}", "installs"}
        case _:
            return {f"device {change.device_no}"}  # type: ignore[attr-defined]


def needs(change: object) -> set[object]:
    """What must be as it was when the change was made, though the change leaves it alone."""
    match change:
        case Moved():
            return {f"life of {change.to}"}
        case Noticed() | NoticeAnswered():
            return {f"life of {change.device_no}", change.msg_id}
        case _:
            return set()

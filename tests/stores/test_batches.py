from __future__ import annotations

from itertools import chain

import pytest

from pushactors.domain.message import Mark, Verdict
from pushactors.stores.batches import batches
from pushactors.stores.contract import Accepted, DeviceDeleted, Marked, Registered, Seen, Settled, Struck
from pushactors.wire.ids import DeviceNo, Millis, MsgId
from tests.stores.rows import NOW, accepted, marked, registered, settled
from tests.stores.twin import Walk


def seen(device_no: int, at: int = NOW) -> Seen:
    return Seen(DeviceNo(device_no), Millis(at))


def struck(msg_id: int, device_no: int) -> Struck:
    return Struck(MsgId(msg_id), DeviceNo(device_no), Verdict.FENCED)


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
            if touches(change) & touches(later):
                assert place[id(change)] < place[id(later)]
    for batch in found:
        assert len({type(change) for change in batch}) == 1
        if not isinstance(batch[0], Accepted):
            named = list(chain.from_iterable(touches(change) - {"installs"} for change in batch))
            assert len(named) == len(set(named))


def touches(change: object) -> set[object]:
    match change:
        case Settled() | Struck() | Marked():
            return {(change.msg_id, change.device_no)}
        case Accepted():
            return {(change.message.msg_id, no) for no in range(1, 100)} | {change.message.msg_id}
        case Registered():
            return {f"device {change.device.device_no}", "installs"}
        case DeviceDeleted():
            return {f"device {change.device_no}", "installs"}
        case _:
            return {f"device {change.device_no}"}  # type: ignore[attr-defined]

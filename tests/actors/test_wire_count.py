"""How many deliveries of each push are on the wire now."""

from __future__ import annotations

from pushactors.actors.wire_count import WireCount
from pushactors.wire.ids import DeviceNo, MsgId

ONE, TWO = MsgId(1), MsgId(2)
HERE, THERE = DeviceNo(1), DeviceNo(2)


def test_nothing_is_on_the_wire_at_first() -> None:
    assert WireCount().of(ONE) == 0


def test_deliveries_are_counted_push_by_push() -> None:
    wire = WireCount()
    wire.on(ONE, HERE)
    wire.on(ONE, THERE)
    wire.on(TWO, HERE)
    assert (wire.of(ONE), wire.of(TWO)) == (2, 1)
    wire.off(ONE, HERE)
    assert (wire.of(ONE), wire.of(TWO)) == (1, 1)


def test_a_delivery_can_go_on_the_wire_again() -> None:
    wire = WireCount()
    for _ in range(3):
        wire.on(ONE, HERE)
        assert wire.of(ONE) == 1
        wire.off(ONE, HERE)
        assert wire.of(ONE) == 0


def test_going_off_twice_is_once() -> None:
    """C1: what others have on the wire stays there."""
    wire = WireCount()
    wire.on(ONE, HERE)
    wire.on(ONE, THERE)
    wire.off(ONE, HERE)
    wire.off(ONE, HERE)
    assert wire.of(ONE) == 1


def test_what_never_went_on_does_not_go_off() -> None:
    wire = WireCount()
    wire.off(ONE, HERE)
    wire.on(ONE, HERE)
    wire.off(ONE, THERE)
    wire.off(TWO, HERE)
    assert (wire.of(ONE), wire.of(TWO)) == (1, 0)


def test_of_a_device_that_is_lost_all_go_off() -> None:
    wire = WireCount()
    for device_no in (HERE, THERE):
        wire.on(ONE, device_no)
        wire.on(TWO, device_no)
    wire.all_off(HERE)
    assert (wire.of(ONE), wire.of(TWO)) == (1, 1)
    wire.all_off(HERE)
    wire.off(ONE, HERE)
    assert (wire.of(ONE), wire.of(TWO)) == (1, 1)
    wire.on(ONE, HERE)
    assert wire.of(ONE) == 2

"""One wheel for all connections: each is looked at once a period, a part of them at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest
import trio
from trio.testing import MockClock

from pushactors.edges.pulse import SLOTS, Pulse

PERIOD_S = 8.0


@pytest.fixture
async def pulse() -> AsyncIterator[Pulse]:
    pulse = Pulse(PERIOD_S)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pulse.run)
        yield pulse
        nursery.cancel_scope.cancel()


async def test_everybody_is_looked_at_once_a_period(pulse: Pulse, autojump_clock: MockClock) -> None:
    looks: Counter[int] = Counter()

    def look_at(place: int) -> Callable[[], None]:
        return lambda: looks.update([place])

    for place in range(3 * SLOTS + 1):
        pulse.add(look_at(place))
    await trio.sleep(10 * PERIOD_S + PERIOD_S / SLOTS / 2)
    assert looks.keys() == set(range(3 * SLOTS + 1))
    assert set(looks.values()) <= {10, 11}


async def test_looks_are_spread_over_the_period(pulse: Pulse, autojump_clock: MockClock) -> None:
    times: Counter[float] = Counter()
    for _ in range(4 * SLOTS):
        pulse.add(lambda: times.update([round(trio.current_time(), 3)]))
    await trio.sleep(PERIOD_S / SLOTS / 2)
    times.clear()
    await trio.sleep(PERIOD_S)
    assert len(times) == SLOTS
    assert set(times.values()) == {4}


async def test_who_was_removed_is_not_looked_at(pulse: Pulse, autojump_clock: MockClock) -> None:
    looks: list[str] = []
    stays, goes = (lambda: looks.append("stays")), (lambda: looks.append("goes"))
    pulse.add(stays)
    remove = pulse.add(goes)
    await trio.sleep(1.5 * PERIOD_S)
    assert {"stays", "goes"} == set(looks)
    remove()
    remove()
    looks.clear()
    await trio.sleep(2 * PERIOD_S)
    assert set(looks) == {"stays"}


async def test_a_look_may_remove_itself_and_others(pulse: Pulse, autojump_clock: MockClock) -> None:
    looks: list[str] = []
    removals: list[Callable[[], None]] = []

    def look() -> None:
        looks.append("once")
        for remove in removals:
            remove()

    removals += [pulse.add(look), *(pulse.add(lambda: None) for _ in range(3 * SLOTS))]
    await trio.sleep(3 * PERIOD_S)
    assert looks == ["once"]

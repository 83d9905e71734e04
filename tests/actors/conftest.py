"""Every test here runs on a mock clock that jumps when nobody has anything to do: ten days pass in a moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from inspect import iscoroutinefunction
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from trio.testing import MockClock

from tests.actors.world import World, living

T = TypeVar("T")


def on_a_mock_clock(
    test: Callable[[], Awaitable[T]], clock: trio.abc.Clock | None, instruments: Sequence[trio.abc.Instrument]
) -> T:
    return trio.run(test, clock=clock or MockClock(autojump_threshold=0), instruments=instruments)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # As the fixture `autojump_clock` would do it, which counts only where a test itself asks for it.
    for item in items:
        is_ours = Path(__file__).parent in item.path.parents
        if is_ours and isinstance(item, pytest.Function) and iscoroutinefunction(item.obj):
            item.add_marker(pytest.mark.trio(run=on_a_mock_clock))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A server in which nothing goes wrong, without upkeep."""
    async with living() as world:
        yield world

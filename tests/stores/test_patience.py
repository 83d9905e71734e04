from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from pushactors.errors import StoreBusy, StoreFenced, StoreUnusable
from pushactors.stores.patience import patient


def busy(times: int, asked_at: list[float], last: Exception | None = None) -> Callable[[], Awaitable[str]]:
    """An operation that is busy so many times, and then answers, or raises `last`."""
    began = trio.current_time()

    async def operation() -> str:
        await trio.lowlevel.checkpoint()
        asked_at.append(round(trio.current_time() - began, 3))
        if len(asked_at) <= times:
            raise StoreBusy(f"busy {len(asked_at)}")
        if last is not None:
            raise last
        return "answer"

    return operation


async def test_an_answer_is_handed_on_at_once(autojump_clock: MockClock) -> None:
    asked_at: list[float] = []
    assert await patient(busy(0, asked_at)) == "answer"
    assert asked_at == [0]


async def test_a_busy_store_is_asked_again_after_waits_that_double_to_a_second(autojump_clock: MockClock) -> None:
    asked_at: list[float] = []
    assert await patient(busy(10, asked_at)) == "answer"
    assert asked_at == [0, 0.01, 0.03, 0.07, 0.15, 0.31, 0.63, 1.27, 2.27, 3.27, 4.27]


async def test_patience_ends_with_the_last_error_and_never_late(autojump_clock: MockClock) -> None:
    asked_at: list[float] = []
    with pytest.raises(StoreBusy) as caught:
        await patient(busy(1000, asked_at), patience_s=5)
    assert str(caught.value) == f"busy {len(asked_at)}"
    assert trio.current_time() - 5 <= asked_at[-1] + 1
    assert asked_at[-1] == 4.27


@pytest.mark.parametrize("error", [StoreFenced("gone"), StoreUnusable("broken"), ValueError("a fault of ours")])
async def test_every_other_error_is_final(autojump_clock: MockClock, error: Exception) -> None:
    asked_at: list[float] = []
    with pytest.raises(type(error)) as caught:
        await patient(busy(1, asked_at, error))
    assert caught.value is error
    assert asked_at == [0, 0.01]


async def test_who_waits_can_be_cancelled(autojump_clock: MockClock) -> None:
    asked_at: list[float] = []
    with trio.move_on_after(2) as scope:
        await patient(busy(1000, asked_at))
    assert scope.cancelled_caught

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from pushactors.clients.background import Background


class Block:
    def __init__(self, background: Background) -> None:
        self._background = background

    async def __aenter__(self) -> None:
        await self._background.open(trio.sleep_forever)

    async def __aexit__(self, *_: object) -> None:
        await self._background.close()


async def test_the_blocks_own_error_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with Block(Background()):
            raise KeyError


async def test_a_block_ends_whatever_its_tasks_wait_for() -> None:
    async with Block(Background()):
        pass


async def test_a_block_can_be_cancelled_from_outside(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as scope:
        async with Block(Background()):
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_fault_in_a_task_cancels_the_block_and_is_raised() -> None:
    background = Background()

    async def fail() -> None:
        raise KeyError

    await background.open(fail)
    with pytest.raises(trio.Cancelled):
        await trio.sleep_forever()
    with pytest.raises(ExceptionGroup):
        await background.close()

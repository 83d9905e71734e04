"""Tasks that live as long as an `async with` block.

1. The block's own error comes out of it as it is: given to the nursery it would come out wrapped in a group.
2. A fault in a task cancels the block, and comes out as a group: it is never an answer to anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


class Background:
    def __init__(self) -> None:
        self._manager = trio.open_nursery()
        self._scope: trio.CancelScope | None = None

    async def open(self, *tasks: Callable[[], Awaitable[None]]) -> None:
        nursery = await self._manager.__aenter__()
        self._scope = nursery.cancel_scope
        for task in tasks:
            nursery.start_soon(task)

    async def close(self) -> None:
        """Cancels what is left. Called from the task that opened it."""
        assert self._scope is not None
        self._scope.cancel()
        await self._manager.__aexit__(None, None, None)

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from tests.clients.scripted import ScriptedServer


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with trio.open_nursery() as nursery:
        yield ScriptedServer(nursery)
        nursery.cancel_scope.cancel()

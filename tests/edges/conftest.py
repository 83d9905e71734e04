from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.edges.serving import AppServer, House, serving


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """A node with every default, and two apps."""
    async with serving() as house:
        yield house


@pytest.fixture
async def app(house: House) -> AppServer:
    """An app server of the first app."""
    return await house.app()

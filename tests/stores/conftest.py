"""One suite for every store there is: a test that asks for an `owner` or a `ground` is run on each."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pushactors.stores.memory import MemoryDisk, MemoryStore
from pushactors.stores.sqlite import SqliteStore
from tests.stores.flaky import FlakyStore
from tests.stores.grounds import Ground, Owner, on_a_clock_that_jumps


# The clock does not jump for SQLite: threads and such a clock do not mix.
@pytest.fixture(
    params=["memory", "sqlite", pytest.param("flaky", marks=pytest.mark.trio(run=on_a_clock_that_jumps))]
)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def ground(kind: str, tmp_path: Path) -> AsyncIterator[Ground]:
    disk, chance = MemoryDisk(), random.Random(tmp_path.name)
    path = tmp_path / "store.db"
    match kind:
        case "memory":
            made = Ground(lambda: MemoryStore(disk))
        case "sqlite":
            made = Ground(lambda: SqliteStore(path, "os"), tmp_path / "store.db.lock")
        case _:
            made = Ground(lambda: FlakyStore(disk, chance))
    yield made
    await made.aclose()


@pytest.fixture
async def owner(ground: Ground) -> Owner:
    return await ground.owner()

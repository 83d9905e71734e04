"""What is special about a store in memory; everything else about it is in `test_contract`."""

from __future__ import annotations

import pytest

from pushactors.errors import StoreFenced, StoreUnusable
from pushactors.stores.memory import MemoryDisk, MemoryStore
from pushactors.wire.ids import DeviceNo
from tests.stores.rows import APP, APPS, device, registered


async def test_the_same_store_can_be_opened_again() -> None:
    store = MemoryStore()
    first = await store.open()
    await store.commit(1, [*APPS, *registered(1)])
    await store.aclose()
    again = await store.open()
    assert (again.epoch, again.last_commit, again.secret) == (first.epoch + 1, 1, first.secret)
    assert await store.devices(APP, DeviceNo(0), 10) == [device(1)]


async def test_two_stores_over_one_disk_are_two_owners() -> None:
    disk = MemoryDisk()
    earlier, later = MemoryStore(disk), MemoryStore(disk)
    await earlier.open()
    await later.open()
    with pytest.raises(StoreFenced):
        await earlier.commit(1, APPS)
    await later.commit(1, [*APPS, *registered(1)])
    await earlier.open()
    assert await earlier.devices(APP, DeviceNo(0), 10) == [device(1)]


async def test_two_stores_without_a_disk_share_nothing() -> None:
    one, other = MemoryStore(), MemoryStore()
    assert (await one.open()).secret != (await other.open()).secret
    await one.commit(1, [*APPS, *registered(1)])
    assert await other.devices(APP, DeviceNo(0), 10) == []


async def test_a_store_in_memory_says_that_it_cannot_be_copied(tmp_path) -> None:
    store = MemoryStore()
    await store.open()
    with pytest.raises(StoreUnusable, match="in memory"):
        await store.backup(tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []

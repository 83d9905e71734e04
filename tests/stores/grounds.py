"""What a test of any store stands on: what lasts, who owns it, and the questions that most tests ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from pushactors.stores.contract import (
    DeliveryRow,
    Opened,
    ReportRow,
    StatusRow,
    Store,
)
from pushactors.stores.patience import patient
from pushactors.wire.ids import AppNo, DeviceNo, Millis, MsgId
from tests.stores.rows import (
    APP,
    rid,
)


class Owner:
    """One process that holds the store: it numbers its commits, and asks until it is answered."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.opened: Opened
        self.number = 0

    async def open(self) -> Opened:
        self.opened = await patient(self.store.open)
        self.number = self.opened.last_commit
        return self.opened

    async def commit(self, *changes: Any) -> int:
        self.number += 1
        return await self.ask.commit(self.number, changes)

    async def ignores(self, count: int, *changes: Any) -> None:
        """Commits, and holds that so many changes were ignored; the answer to a repeated question cannot tell."""
        lost = getattr(self.store, "answers_lost", 0)
        ignored = await self.commit(*changes)
        assert ignored == count or (ignored == 0 and getattr(self.store, "answers_lost", 0) > lost)

    @property
    def ask(self) -> Any:
        return Asking(self.store)


class Asking:
    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        return lambda *given: patient(partial(getattr(self._store, name), *given))


class Ground:
    """What lasts, and how an owner of it is made."""

    def __init__(self, make: Callable[[], Store], lock: Path | None = None) -> None:
        self._make = make
        self._lock = lock
        self._owners: list[Owner] = []

    async def owner(self) -> Owner:
        owner = Owner(self._make())
        self._owners.append(owner)
        await owner.open()
        return owner

    async def intruder(self) -> Owner:
        """An owner that came although another one is there, as after a lock was lost."""
        if self._lock is not None:
            self._lock.unlink()
        return await self.owner()

    async def restart(self, owner: Owner) -> Owner:
        await owner.store.aclose()
        return await self.owner()

    async def aclose(self) -> None:
        for owner in self._owners:
            await owner.store.aclose()


def on_a_clock_that_jumps(main: Callable[[], Awaitable[None]], **options: Any) -> None:
    trio.run(main, **{**options, "clock": MockClock(autojump_threshold=0)})


async def told(owner: Owner, *msg_ids: int, app_no: AppNo = APP) -> dict[int, ReportRow]:
    return dict(await owner.ask.reports(app_no, [MsgId(msg_id) for msg_id in msg_ids]))


async def report(owner: Owner, msg_id: int, app_no: AppNo = APP) -> ReportRow:
    return (await told(owner, msg_id, app_no=app_no))[msg_id]


async def mailbox(owner: Owner, device_no: int) -> tuple[DeliveryRow, ...]:
    boxes = await owner.ask.mailboxes([DeviceNo(device_no)])
    return boxes[device_no].deliveries if device_no in boxes else ()


async def waiting(owner: Owner, device_no: int) -> list[int]:
    return [row.msg_id for row in await mailbox(owner, device_no)]


async def status(owner: Owner, msg_id: int, device_no: int) -> StatusRow | None:
    found = await owner.ask.statuses(APP, MsgId(msg_id), [rid(device_no)])
    return found[rid(device_no)]


async def swept(owner: Owner, now: int, limit: int = 100, kept: dict[Any, int] | None = None) -> None:
    for _ in range(10_000):
        if await owner.ask.sweep(Millis(now), limit, kept or {}) == 0:
            return
    pytest.fail("The sweep never comes to rest.")

"""Clients of the scripted server, with nothing left to chance."""

from __future__ import annotations

from typing import Any

import trio

from pushactors import AppClient, DeviceClient
from pushactors.clients.backoff import Backoff
from pushactors.clients.dial import hold
from pushactors.clients.door import Door
from pushactors.clients.link import Ending, Link
from pushactors.wire.jsonrpc import Note
from tests.clients.scripted import ScriptedServer, Visit

DEVICE_URL = "ws://server.test:8600/device"
APP_URL = "ws://server.test:8601/app"


def fixed(chance: float = 0.001) -> Backoff:
    # Not nothing: to come back at once, for ever, would leave no time for anything else.
    return Backoff(chance=lambda: chance)


def device_client(server: ScriptedServer, **options: Any) -> DeviceClient:
    options.setdefault("backoff", fixed())
    return DeviceClient(DEVICE_URL, "app", open_stream=server.open_stream, **options)


def app_client(server: ScriptedServer, **options: Any) -> AppClient:
    options.setdefault("backoff", fixed())
    return AppClient(APP_URL, "app", "master", open_stream=server.open_stream, **options)


class Held:
    """A connection that is held in the background, and what became of it."""

    def __init__(self, server: ScriptedServer, nursery: trio.Nursery) -> None:
        self.heard: list[Note] = []
        self.ending: Ending | None = None
        self._ended = trio.Event()
        self._links, self._link = trio.open_memory_channel[Link](1)
        nursery.start_soon(self._hold, Door(DEVICE_URL, [(b"X-Extra", b"yes")], None, server.open_stream))

    async def link(self) -> Link:
        return await self._link.receive()

    async def ended(self) -> Ending:
        await self._ended.wait()
        assert self.ending is not None
        return self.ending

    async def _hold(self, door: Door) -> None:
        self.ending = await hold(door, self.heard.append, self._links.send)
        self._ended.set()


async def opened(server: ScriptedServer, nursery: trio.Nursery) -> tuple[Held, Link, Visit]:
    held = Held(server, nursery)
    visit = await server.visit()
    return held, await held.link(), visit

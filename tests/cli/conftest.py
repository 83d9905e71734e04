from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest
import trio

from pushactors import config
from pushactors.cli.access import Access
from tests.cli.processes import Server
from tests.clients.scripted import ScriptedServer

APPS = 100
_next_app = count()


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for all tests here: each has an app of its own."""
    server = Server(tmp_path_factory.mktemp("server"))
    server.write(*(server.app(f"app-{number}") for number in range(APPS)))
    trio.run(server.start)
    yield server
    server.kill()


@pytest.fixture
def app_key() -> str:
    """Of an app that no other test knows."""
    return f"app-{next(_next_app)}"


@pytest.fixture
def access(shared_server: Server, app_key: str) -> Access:
    return Access.of(config.load(shared_server.file), app_key)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command is run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    """A server of which the test says every word."""
    async with trio.open_nursery() as nursery:
        yield ScriptedServer(nursery)
        nursery.cancel_scope.cancel()


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is nine hours ahead, all year."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()

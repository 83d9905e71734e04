from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from pushactors.clients.dial import OPEN_LIMIT_S, hold
from pushactors.clients.door import Door
from pushactors.clients.link import Ending, Link
from tests.clients.scripted import ScriptedServer
from tests.clients.scripted_client import DEVICE_URL, Held, opened


async def test_a_rejected_handshake_is_an_ending(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    for status, code in ((401, 4501), (503, 1006)):
        held = Held(server, nursery)
        request = await server.knock()
        await request.reject(status, body=b"no")
        ending = await held.ended()
        assert ending.code == code
        assert str(status) in ending.reason


async def test_the_handshake_carries_what_the_door_says(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    _, _, visit = await opened(server, nursery)
    assert visit.headers[b"x-extra"] == b"yes"
    assert visit.path == "/device"


async def test_a_server_that_hangs_up_in_the_handshake_is_noticed_at_once(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    held = Held(server, nursery)
    stream = await server.stream()
    began_at = trio.current_time()
    await stream.aclose()
    assert "hung up" in (await held.ended()).reason
    assert trio.current_time() == began_at


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"\xff\x00\r\n\r\n", b"SSH-2.0-x\r\n"]
)
async def test_a_server_of_another_kind_is_an_ending(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock, said: bytes
) -> None:
    held = Held(server, nursery)
    stream = await server.stream()
    await stream.send_all(said)
    assert (await held.ended()).code == 1006
    await trio.aclose_forcefully(stream)


async def test_a_server_that_says_nothing_is_given_up(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    held = Held(server, nursery)
    stream = await server.stream()
    began_at = trio.current_time()
    assert "no connection" in (await held.ended()).reason
    assert trio.current_time() - began_at == pytest.approx(OPEN_LIMIT_S)
    await trio.aclose_forcefully(stream)


async def test_a_server_that_is_not_there_is_an_ending(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server.is_down = True
    ending = await Held(server, nursery).ended()
    assert ending == Ending(1006, "nobody listens")


async def test_a_fault_of_this_package_is_raised(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def fail(link: Link) -> None:
        raise KeyError

    async def take() -> None:
        await server.visit()

    nursery.start_soon(take)
    with pytest.raises(ExceptionGroup) as caught:
        await hold(Door(DEVICE_URL, None, None, server.open_stream), lambda note: None, fail)
    assert caught.group_contains(KeyError)

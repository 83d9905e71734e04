from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from pushactors.clients.door import Door, HeardStream


@pytest.mark.parametrize(
    ("url", "host", "resource"),
    [
        ("ws://127.0.0.1:8600/device", "127.0.0.1:8600", "/device"),
        ("ws://example.com", "example.com", "/"),
        ("wss://user@example.com/a?b=c", "example.com", "/a?b=c"),
        ("ws://[::1]:8600/device", "[::1]:8600", "/device"),
    ],
)
def test_a_url_says_where_and_what(url: str, host: str, resource: str) -> None:
    door = Door(url)
    assert (door.host, door.resource) == (host, resource)


@pytest.mark.parametrize("url", ["http://example.com/", "example.com:8600", "ws:///device", ""])
def test_a_url_that_is_none_of_a_websocket_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="ws://"):
        Door(url)


async def test_a_stream_tells_when_it_was_last_heard(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    stream = HeardStream(ours)
    opened_at = stream.heard_at
    await trio.sleep(5)
    assert stream.heard_at == opened_at
    await theirs.send_all(b"x")
    await stream.receive_some()
    assert stream.heard_at == opened_at + 5


async def test_a_stream_tells_when_its_other_end_was_closed() -> None:
    ours, theirs = memory_stream_pair()
    stream = HeardStream(ours)
    await theirs.aclose()
    assert not stream.ended.is_set()
    assert await stream.receive_some() == b""
    assert stream.ended.is_set()


async def test_a_stream_that_is_closed_here_has_ended_too() -> None:
    stream = HeardStream(memory_stream_pair()[0])
    await stream.aclose()
    assert stream.ended.is_set()


async def test_a_door_leads_to_a_tcp_server() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        stream = await Door(f"ws://127.0.0.1:{port}/").open()
        served = await listener.accept()
        await stream.send_all(b"hello")
        assert await served.receive_some() == b"hello"
        await served.aclose()
        await stream.aclose()


async def test_a_door_behind_which_nobody_speaks_tls_says_so() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def hang_up() -> None:
        await (await listener.accept()).aclose()

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(hang_up)
        port = listener.socket.getsockname()[1]
        with pytest.raises((OSError, trio.BrokenResourceError)):
            await Door(f"wss://127.0.0.1:{port}/").open()

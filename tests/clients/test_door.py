from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from pushactors.clients.door import Door, HeardStream

PEM = str(Path(__file__).parent.parent / "localhost.pem")


@pytest.mark.parametrize(
    ("url", "host", "resource", "shown"),
    [
        ("ws://127.0.0.1:8600/device", "127.0.0.1:8600", "/device", "ws://127.0.0.1:8600/device"),
        ("ws://example.com", "example.com", "/", "ws://example.com"),
        ("wss://user:secret@example.com/a?b=c", "example.com", "/a?b=c", "wss://example.com/a"),
        ("ws://[::1]:8600/device", "[::1]:8600", "/device", "ws://[::1]:8600/device"),
    ],
)
def test_a_url_says_where_and_what_and_is_shown_without_secrets(url: str, host: str, resource: str, shown: str) -> None:
    door = Door(url)
    assert (door.host, door.resource, door.url) == (host, resource, shown)


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
        with pytest.raises(OSError, match=r"(?i)eof|reset|closed") as caught:
            await Door(f"wss://127.0.0.1:{port}/").open()
        assert caught.value.__cause__ is not None


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_door_that_is_shut_says_what_the_system_said(scheme: str) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(OSError, match=r"^Connection refused$"):
        await Door(f"{scheme}://127.0.0.1:{port}/").open()


async def test_a_server_that_nobody_trusts_is_said_to_be_that() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(PEM)
    (listener,) = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")

    async def serve() -> None:
        stream = await listener.accept()
        with suppress(trio.BrokenResourceError):
            await stream.do_handshake()
        await trio.aclose_forcefully(stream)

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        port = listener.transport_listener.socket.getsockname()[1]
        with pytest.raises(OSError, match="certificate verify failed"):
            await Door(f"wss://127.0.0.1:{port}/").open()

"""The door to the street: every connection alone, so many at a time, and none of them ends the door."""

from __future__ import annotations

import resource
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
import trio

from pushactors.actors.tally import Tally
from pushactors.edges.listener import Listener, bind
from pushactors.edges.stream import Flusher, Stream
from pushactors.errors import ConfigurationError
from tests.edges.serving import LIMIT_S, PEM, tls_context, until


@dataclass
class Door:
    listener: Listener
    port: int
    tally: Tally
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    is_over: bool = False

    async def knock(self, source: str = "127.0.0.1") -> trio.SocketStream:
        sock = trio.socket.socket()
        try:
            await sock.bind((source, 0))
            await sock.connect(("127.0.0.1", self.port))
        except OSError:
            sock.close()
            raise
        return trio.SocketStream(sock)

    async def echoes(self, stream: trio.abc.Stream, word: bytes = b"hello") -> bool:
        """Whether somebody is at home."""
        with trio.fail_after(LIMIT_S):
            try:
                await stream.send_all(word)
                return bytes(await stream.receive_some()) == word
            except trio.BrokenResourceError:
                return False


async def echo(stream: Stream) -> None:
    """Says what it hears; told to fail, it does."""
    while data := await stream.receive():
        match data:
            case b"fail":
                raise ValueError("told to fail")
            case b"group":
                raise ExceptionGroup("told to fail", [ValueError(), ExceptionGroup("deeper", [KeyError()])])
            case b"leave":
                return
        stream.put(data)
        await stream.flushed()


@asynccontextmanager
async def door(
    serve: Callable[[Stream], Awaitable[None]] = echo,
    max_connections: int = 100,
    max_per_address: int = 100,
    handshake_s: float = 10,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Door]:
    listening = bind("127.0.0.1", 0, "devices")
    flusher, tally = Flusher(), Tally()
    listener = Listener(listening, serve, flusher, max_connections, max_per_address, handshake_s, tls, tally)
    door = Door(listener, listening.getsockname()[1], tally)

    async def run() -> None:
        with door.scope:
            await listener.run()
        door.is_over = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        nursery.start_soon(run)
        yield door
        nursery.cancel_scope.cancel()


# --- Where it is -------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_refused_in_a_sentence() -> None:
    with bind("127.0.0.1", 0, "devices") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError) as refused:
            bind("127.0.0.1", port, "apps")
    assert str(refused.value) == f"listen.apps: cannot listen at 127.0.0.1:{port}: Address already in use."


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_ours_is_refused_in_a_sentence(host: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^listen\.devices: cannot listen at {host}:0: [^\n]+\.$") as refused:
        bind(host, 0, "devices")
    assert "None" not in str(refused.value)


# --- One connection alone ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", [b"fail", b"group"])
async def test_what_fails_over_one_connection_ends_that_connection_and_nothing_else(word: bytes) -> None:
    async with door() as home, await home.knock() as good, await home.knock() as bad:
        assert await home.echoes(good)
        assert not await home.echoes(bad, word)
        assert await home.echoes(good)
        async with await home.knock() as later:
            assert await home.echoes(later)
        await until(lambda: home.tally.read("connections_failed") == 1)


async def test_a_failure_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with door() as home, await home.knock() as bad:
        assert not await home.echoes(bad, b"fail")
        await until(lambda: bool(caplog.records))
    [record] = [each for each in caplog.records if each.levelname == "WARNING"]
    assert record.getMessage().startswith("A connection from 127.0.0.1 failed: ValueError('told to fail')")
    assert "\n" not in record.getMessage()
    assert record.exc_info is None


async def test_strangers_cannot_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with door() as home:
        for _ in range(50):
            async with await home.knock() as bad:
                assert not await home.echoes(bad, b"fail")
        await until(lambda: home.tally.read("connections_failed") == 50)
    assert len([each for each in caplog.records if each.levelname == "WARNING"]) < 10


async def test_a_peer_that_just_goes_away_is_nothing_to_tell(caplog: pytest.LogCaptureFixture) -> None:
    async with door() as home:
        for _ in range(3):
            gone = await home.knock()
            assert await home.echoes(gone)
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await gone.aclose()
        async with await home.knock() as good:
            assert await home.echoes(good)
        await until(lambda: not home.listener._connections)
        assert home.tally.read("connections_failed") == 0
    assert not [each for each in caplog.records if each.levelname == "WARNING"]


async def test_the_peers_address_is_known() -> None:
    found: list[str] = []

    async def note(stream: Stream) -> None:
        found.append(stream.address)
        await stream.flushed()

    async with door(note) as home:
        for source in ("127.0.0.1", "127.0.0.2"):
            async with await home.knock(source) as peer:
                with trio.fail_after(LIMIT_S):
                    assert await peer.receive_some() == b""
    assert found == ["127.0.0.1", "127.0.0.2"]


async def test_a_connection_that_was_served_is_let_go() -> None:
    async with door() as home, await home.knock() as peer:
        assert await home.echoes(peer)
        await peer.send_all(b"leave")
        with trio.fail_after(LIMIT_S):
            assert await peer.receive_some() == b""


# --- So many at a time -------------------------------------------------------------------------------------------


async def refused(stream: trio.SocketStream) -> bool:
    """Whether the connection was let go at once, unheard."""
    with trio.fail_after(LIMIT_S):
        try:
            return await stream.receive_some() == b""
        except trio.BrokenResourceError:
            return True


async def test_who_comes_above_the_limit_is_let_go_at_once() -> None:
    async with door(max_connections=2) as home, await home.knock() as one, await home.knock("127.0.0.2") as two:
        assert await home.echoes(one)
        assert await home.echoes(two)
        async with await home.knock("127.0.0.3") as three:
            assert await refused(three)
        assert home.tally.read("connections_refused") == 1
        assert await home.echoes(one)


async def test_who_comes_above_the_limit_of_one_address_is_let_go_at_once() -> None:
    async with door(max_per_address=1) as home, await home.knock() as one:
        assert await home.echoes(one)
        async with await home.knock() as two:
            assert await refused(two)
        async with await home.knock("127.0.0.2") as elsewhere:
            assert await home.echoes(elsewhere)


async def test_when_somebody_leaves_there_is_room_again() -> None:
    async with door(max_connections=1, max_per_address=1) as home:
        for word in (b"leave", b"fail", b"group"):
            async with await home.knock() as one:
                assert await home.echoes(one)
                await one.send_all(word)
                assert await refused(one)
            await until(lambda: not home.listener._connections)
        async with await home.knock() as last:
            assert await home.echoes(last)
        assert not home.tally.read("connections_refused")


async def test_addresses_are_forgotten_with_their_last_connection() -> None:
    async with door() as home:
        for place in range(1, 20):
            async with await home.knock(f"127.0.0.{place}") as peer:
                assert await home.echoes(peer)
        await until(lambda: not home.listener._connections)
        assert not home.listener._by_address


async def test_without_file_descriptors_it_rests_and_goes_on() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with door() as home, await home.knock() as good:
        assert await home.echoes(good)
        late = trio.socket.socket()
        spare = socket.socket()
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare.fileno() + 1, hard))
        try:
            await late.connect(("127.0.0.1", home.port))
            await until(lambda: home.tally.read("accepts_failed") > 0)
            assert await home.echoes(good)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            spare.close()
        async with trio.SocketStream(late) as stream:
            assert await home.echoes(stream)


# --- TLS ---------------------------------------------------------------------------------------------------------


async def secured(stream: trio.SocketStream) -> trio.SSLStream[trio.SocketStream]:
    context = ssl.create_default_context(cafile=str(PEM))
    tls = trio.SSLStream(stream, context, server_hostname="localhost", https_compatible=True)
    with trio.fail_after(LIMIT_S):
        await tls.do_handshake()
    return tls


async def test_a_door_with_tls_serves_over_tls() -> None:
    async with door(tls=tls_context()) as home, await home.knock() as peer:
        tls = await secured(peer)
        assert await home.echoes(tls)
        assert tls.version() in ("TLSv1.2", "TLSv1.3")


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 1_000, b"\x16\x03\x01\xff\xff" + b"x" * 70_000])
async def test_garbage_at_a_door_with_tls_ends_alone(garbage: bytes) -> None:
    async with door(tls=tls_context(), handshake_s=1) as home, await home.knock() as good, await home.knock() as bad:
        tls = await secured(good)
        with suppress(trio.BrokenResourceError), trio.fail_after(LIMIT_S):
            await bad.send_all(garbage)
            while await bad.receive_some():
                pass
        assert await home.echoes(tls)


async def test_a_tls_handshake_has_a_limited_time() -> None:
    async with door(tls=tls_context(), handshake_s=0.2) as home, await home.knock() as silent:
        assert await refused(silent)
        await until(lambda: home.tally.read("handshakes", "too_slow") == 1)
        tls = await secured(await home.knock())
        assert await home.echoes(tls)
        await trio.aclose_forcefully(tls)


# --- Closing -----------------------------------------------------------------------------------------------------


async def test_a_closed_door_takes_nobody_more_and_those_who_are_here_go_on() -> None:
    async with door() as home, await home.knock() as here:
        assert await home.echoes(here)
        home.listener.close()
        await until(lambda: home.listener._listening.fileno() == -1)
        with pytest.raises(OSError, match="refused"):
            await home.knock()
        assert await home.echoes(here)
        assert not home.is_over
        await here.send_all(b"leave")
        await until(lambda: home.is_over)


async def test_a_cancelled_door_lets_go_of_everything() -> None:
    async with door() as home, await home.knock() as here:
        assert await home.echoes(here)
        home.scope.cancel()
        await until(lambda: home.is_over)
        assert home.listener._listening.fileno() == -1
        assert await refused(here)

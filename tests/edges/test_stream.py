"""One end of a connection: what is put goes out, in order, once a turn, whatever the peer does."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from pushactors.edges.stream import CHUNK_BYTES, HEAD_BYTES, Flusher, SocketTransport, Stream, tls
from tests.edges.serving import PEM, tls_context

HEAD = b"GET /device HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Carrier:
    """A transport that keeps every write apart, and takes `room` bytes without waiting (None: it cannot tell)."""

    def __init__(self, room: int | None) -> None:
        self.writes: list[bytes] = []
        self.is_broken = False
        self.is_closed = False
        self.blocked = trio.Event()
        self._more = trio.Event()
        if room is not None:
            self.room = room
            self.send_nowait = self._send_nowait

    @property
    def written(self) -> bytes:
        return b"".join(self.writes)

    def take_again(self) -> None:
        """The peer reads on."""
        self.room = 1 << 40
        self._more.set()

    def _send_nowait(self, data: bytes | memoryview) -> int:
        if self.is_broken:
            raise ConnectionResetError
        sent = min(self.room, len(data))
        self.room -= sent
        if sent:
            self.writes.append(bytes(data[:sent]))
        return sent

    async def wait_send_all_might_not_block(self) -> None:
        self.blocked.set()
        await self._more.wait()

    async def send_all(self, data: bytes | memoryview) -> None:
        await self.wait_send_all_might_not_block()
        if self.is_broken:
            raise trio.BrokenResourceError
        self.writes.append(bytes(data))

    async def receive_some(self, max_bytes: int) -> bytes:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.is_closed = True
        await trio.lowlevel.checkpoint()


@pytest.fixture
async def flusher() -> AsyncIterator[Flusher]:
    flusher = Flusher()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        yield flusher
        nursery.cancel_scope.cancel()


# --- Sending -----------------------------------------------------------------------------------------------------


async def test_what_one_turn_puts_goes_out_in_one_write(flusher: Flusher) -> None:
    carrier = Carrier(room=1_000)
    stream = Stream(carrier, flusher)
    for piece in (b"a", b"b", b"c"):
        stream.put(piece)
    assert carrier.writes == []
    assert stream.outgoing_bytes == 3
    await stream.flushed()
    assert carrier.writes == [b"abc"]
    assert stream.outgoing_bytes == 0
    stream.put(b"d")
    await stream.flushed()
    assert carrier.writes == [b"abc", b"d"]


async def test_each_stream_gets_what_was_put_into_it(flusher: Flusher) -> None:
    carriers = [Carrier(room=1_000) for _ in range(3)]
    streams = [Stream(carrier, flusher) for carrier in carriers]
    for turn in (b"1", b"2"):
        for place, stream in enumerate(streams):
            stream.put(turn + str(place).encode())
    await wait_all_tasks_blocked()
    assert [carrier.writes for carrier in carriers] == [[b"1020"], [b"1121"], [b"1222"]]


async def test_what_the_socket_does_not_take_waits_and_goes_in_order(flusher: Flusher) -> None:
    carrier = Carrier(room=2)
    stream = Stream(carrier, flusher)
    stream.put(b"abc")
    await carrier.blocked.wait()
    stream.put(b"de")
    await wait_all_tasks_blocked()
    assert carrier.writes == [b"ab"]
    assert stream.outgoing_bytes == 3
    carrier.take_again()
    await stream.flushed()
    assert carrier.written == b"abcde"
    assert stream.outgoing_bytes == 0


async def test_a_peer_that_takes_nothing_is_known_since_when(
    flusher: Flusher, autojump_clock: MockClock
) -> None:
    carrier = Carrier(room=0)
    stream = Stream(carrier, flusher)
    assert stream.blocked_since is None
    await trio.sleep(5)
    began = trio.current_time()
    stream.put(b"abc")
    await carrier.blocked.wait()
    await trio.sleep(5)
    stream.put(b"d")
    await wait_all_tasks_blocked()
    assert stream.blocked_since == began
    carrier.take_again()
    await stream.flushed()
    assert stream.blocked_since is None


async def test_progress_is_known_piece_by_piece(flusher: Flusher, autojump_clock: MockClock) -> None:
    class Slow(Carrier):
        async def send_all(self, data: bytes | memoryview) -> None:
            await trio.sleep(5)
            self.writes.append(bytes(data))

    carrier = Slow(room=None)
    stream = Stream(carrier, flusher)
    began = trio.current_time()
    stream.put(b"x" * (2 * CHUNK_BYTES + 1))
    await trio.sleep(5.5)
    assert stream.blocked_since == began + 5
    assert stream.outgoing_bytes == CHUNK_BYTES + 1
    await stream.flushed()
    assert trio.current_time() == began + 15
    assert [len(write) for write in carrier.writes] == [CHUNK_BYTES, CHUNK_BYTES, 1]


async def test_any_byte_that_a_socket_takes_is_progress(flusher: Flusher, autojump_clock: MockClock) -> None:
    # C12: a peer on a slow line is not stuck.
    class Dripping(Carrier):
        async def wait_send_all_might_not_block(self) -> None:
            await trio.sleep(5)
            self.room = 1

    carrier = Dripping(room=0)
    stream = Stream(carrier, flusher)
    began = trio.current_time()
    stream.put(b"abc")
    await trio.sleep(5.5)
    assert carrier.written == b"a"
    assert stream.blocked_since == began + 5
    assert stream.outgoing_bytes == 2
    await stream.flushed()
    assert carrier.written == b"abc"
    assert trio.current_time() == began + 15


async def test_who_waits_for_room_is_called_when_the_buffer_has_emptied(flusher: Flusher) -> None:
    carrier = Carrier(room=1)
    stream = Stream(carrier, flusher)
    calls: list[int] = []
    stream.on_drained = lambda: calls.append(stream.outgoing_bytes)
    stream.put(b"a")
    await stream.flushed()
    assert calls == []  # the socket had not blocked
    stream.put(b"bc")
    await carrier.blocked.wait()
    assert calls == []
    carrier.take_again()
    await stream.flushed()
    assert calls == [0]


@pytest.mark.parametrize("room", [0, None])
async def test_what_is_put_by_who_was_called_goes_out_too(flusher: Flusher, room: int | None) -> None:
    carrier = Carrier(room)
    stream = Stream(carrier, flusher)
    more = [b"b"]

    def put_more() -> None:
        if more:
            stream.put(more.pop(0))

    stream.on_drained = put_more
    stream.put(b"a")
    await carrier.blocked.wait()
    carrier.take_again()
    await wait_all_tasks_blocked()
    assert carrier.written == b"ab"


async def test_a_carrier_that_cannot_tell_what_it_takes_gets_everything_all_the_same(flusher: Flusher) -> None:
    carrier = Carrier(room=None)
    stream = Stream(carrier, flusher)
    stream.put(b"a")
    stream.put(b"b")
    await carrier.blocked.wait()
    assert stream.blocked_since is not None
    stream.put(b"c")
    carrier.take_again()
    await stream.flushed()
    assert carrier.written == b"abc"
    assert stream.blocked_since is None


@pytest.mark.parametrize("room", [0, None])
async def test_a_pipe_that_breaks_drops_what_was_put_without_an_error(flusher: Flusher, room: int | None) -> None:
    carrier = Carrier(room)
    stream = Stream(carrier, flusher)
    calls: list[None] = []
    stream.on_drained = lambda: calls.append(None)
    stream.put(b"abc")
    await carrier.blocked.wait()
    carrier.is_broken = True
    carrier.take_again()
    await stream.flushed()
    stream.put(b"d")
    assert stream.outgoing_bytes == 0
    assert stream.blocked_since is None
    await wait_all_tasks_blocked()
    assert carrier.writes == []
    assert calls == []
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"e")


async def test_a_pipe_that_breaks_at_once_ends_nobody_else(flusher: Flusher) -> None:
    broken, sound = Carrier(room=10), Carrier(room=10)
    broken.is_broken = True
    for carrier in (broken, sound):
        Stream(carrier, flusher).put(b"a")
    await wait_all_tasks_blocked()
    assert (broken.writes, sound.writes) == ([], [b"a"])


async def test_closing_lets_go_of_the_carrier_and_of_what_was_put(flusher: Flusher) -> None:
    carrier = Carrier(room=0)
    stream = Stream(carrier, flusher)
    stream.put(b"abc")
    await carrier.blocked.wait()
    await stream.aclose()
    assert carrier.is_closed
    assert stream.outgoing_bytes == 0
    carrier.is_broken = True
    carrier.take_again()
    await wait_all_tasks_blocked()
    assert stream.outgoing_bytes == 0


async def test_a_large_answer_costs_time_in_proportion_to_its_size(flusher: Flusher) -> None:
    # While it goes out, all others wait for each of its copies: eight times as much must not take 64 times as long.
    class Sink(Carrier):
        async def send_all(self, data: bytes | memoryview) -> None:
            await trio.lowlevel.checkpoint()

    async def cost_s(size: int) -> float:
        costs = []
        for _ in range(3):
            stream = Stream(Sink(room=None), flusher)
            stream.put(bytes(size))
            before = time.process_time()
            await stream.flushed()
            costs.append(time.process_time() - before)
        return min(costs)

    small_s, large_s = await cost_s(4 << 20), await cost_s(32 << 20)
    assert large_s < 32 * max(small_s, 0.002)


# --- The handshake -----------------------------------------------------------------------------------------------


def memory(flusher: Flusher) -> tuple[Stream, trio.abc.Stream]:
    ours, theirs = memory_stream_pair()
    return Stream(ours, flusher), theirs


@pytest.mark.parametrize("behind", [b"", b"\x81\x85maskfirst", b"\r\n\r\nmore"])
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_the_handshake_is_given_the_head_and_not_a_byte_more(
    flusher: Flusher, behind: bytes, size: int
) -> None:
    stream, peer = memory(flusher)
    data = HEAD + behind
    for at in range(0, len(data), size):
        await peer.send_all(data[at : at + size])
    assert await stream.receive_some() == HEAD
    with trio.move_on_after(0) as waiting:
        await stream.receive_some()
    assert waiting.cancelled_caught
    await peer.send_all(b"later")
    received = b""
    while len(received) < len(behind + b"later"):
        received += await stream.receive()
    assert received == behind + b"later"


async def test_a_head_that_does_not_end_is_handed_out_to_be_refused(flusher: Flusher) -> None:
    stream, peer = memory(flusher)
    await peer.send_all(b"x" * (HEAD_BYTES + 4_096))
    assert HEAD_BYTES < len(await stream.receive_some()) <= HEAD_BYTES + 4_096


async def test_of_a_head_that_does_not_end_little_is_read(flusher: Flusher) -> None:
    ours, theirs = memory_stream_pair()
    taken = 0
    receive_some: Callable[..., object] = ours.receive_some

    async def counted(max_bytes: int | None = None) -> bytes:
        nonlocal taken
        data: bytes = await receive_some(max_bytes)  # type: ignore[misc]
        taken += len(data)
        return data

    ours.receive_some = counted  # type: ignore[method-assign]
    stream = Stream(ours, flusher)
    await theirs.send_all(b"x" * 1_000_000)
    await stream.receive_some()
    assert HEAD_BYTES < taken <= HEAD_BYTES + 4_096


async def test_a_peer_that_goes_away_within_its_head_has_finished(flusher: Flusher) -> None:
    stream, peer = memory(flusher)
    await peer.send_all(HEAD[:10])
    await peer.aclose()
    assert await stream.receive_some() == b""


async def test_the_handshakes_answer_is_with_the_socket_when_it_was_sent(flusher: Flusher) -> None:
    carrier = Carrier(room=1_000)
    stream = Stream(carrier, flusher)
    await stream.send_all(bytearray(b"HTTP/1.1 101"))
    assert carrier.writes == [b"HTTP/1.1 101"]


async def test_the_end_of_the_peer_is_received_as_nothing(flusher: Flusher) -> None:
    stream, peer = memory(flusher)
    await peer.send_all(b"abc")
    await peer.aclose()
    assert await stream.receive() == b"abc"
    assert await stream.receive() == b""


# --- Sockets -----------------------------------------------------------------------------------------------------


def sockets() -> tuple[SocketTransport, trio.SocketStream]:
    ours, theirs = socket.socketpair()
    return SocketTransport(ours), trio.SocketStream(trio.socket.from_stdlib_socket(theirs))


async def test_a_socket_takes_what_it_can_and_says_how_much() -> None:
    transport, peer = sockets()
    async with peer:
        assert transport.send_nowait(b"abc") == 3
        assert await peer.receive_some() == b"abc"
        while transport.send_nowait(b"x" * 65_536):
            pass
        assert transport.send_nowait(b"x") == 0
        await transport.aclose()


async def test_a_socket_sends_all_of_something_large_to_a_peer_that_reads() -> None:
    transport, peer = sockets()
    data = bytes(range(256)) * 40_000

    async def send() -> None:
        await transport.send_all(data)
        await transport.aclose()

    async with peer, trio.open_nursery() as nursery:
        nursery.start_soon(send)
        received = bytearray()
        async for chunk in peer:
            received += chunk
    assert bytes(received) == data


async def test_a_socket_whose_peer_is_gone_is_broken() -> None:
    transport, peer = sockets()
    await peer.aclose()
    assert await transport.receive_some() == b""
    with pytest.raises(OSError, match="Broken pipe"):
        transport.send_nowait(b"x")
    with pytest.raises(trio.BrokenResourceError):
        await transport.send_all(b"x")
    await transport.aclose()
    await transport.aclose()


async def test_closing_a_socket_wakes_who_waits_for_it() -> None:
    transport, peer = sockets()
    async with peer, trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await transport.receive_some()

        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        await transport.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await transport.receive_some()


async def test_tls_carries_both_ways(flusher: Flusher) -> None:
    transport, peer = sockets()
    client = trio.SSLStream(
        peer, ssl.create_default_context(cafile=str(PEM)), server_hostname="localhost", https_compatible=True
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        stream = Stream(await tls(transport, tls_context()), flusher)
    stream.put(b"hello")
    assert await client.receive_some() == b"hello"
    await client.send_all(b"good day")
    assert await stream.receive() == b"good day"
    await stream.aclose()
    assert await client.receive_some() == b""
    await client.aclose()


async def test_tls_garbage_is_a_broken_connection() -> None:
    transport, peer = sockets()
    async with peer:
        await peer.send_all(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(trio.BrokenResourceError):
            await tls(transport, tls_context())
    await transport.aclose()

"""One WebSocket connection after its handshake, over memory: what is heard, what is said, and how it ends."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, MockClock, wait_all_tasks_blocked
from wsproto.frame_protocol import FrameProtocol, Opcode

from pushactors.edges.connection import FAREWELL_S, Connection, PeerFault
from pushactors.edges.frames import text_frame
from pushactors.edges.stream import Flusher, Stream
from tests.edges.serving import close, frame

MOST = 8_192
Frames = list[tuple[Opcode, object]]


class Line:
    """A connection and, at the other end, its peer."""

    def __init__(self, flusher: Flusher, most_outgoing: int = 100_000) -> None:
        self.carrier = trio.StapledStream(MemorySendStream(), MemoryReceiveStream())
        self.is_let_go = False
        self.carrier.send_stream.close_hook = self._let_go
        self.stream = Stream(self.carrier, flusher)
        self.connection = Connection(self.stream, MOST, most_outgoing)
        self._client = FrameProtocol(True, [])

    def say(self, *texts: str) -> None:
        self.send(b"".join(frame(Opcode.TEXT, text.encode()) for text in texts))

    def send(self, data: bytes) -> None:
        self.carrier.receive_stream.put_data(data)

    def finish(self) -> None:
        """The peer has finished: a FIN."""
        self.carrier.receive_stream.put_eof()

    def heard(self) -> Frames:
        """What the peer has been sent since the last look."""
        with suppress(trio.WouldBlock):
            self._client.receive_bytes(bytes(self.carrier.send_stream.get_data_nowait()))
        return [(each.opcode, each.payload) for each in self._client.received_frames()]

    def block(self) -> None:
        """The peer does not read any more."""
        self.carrier.send_stream.send_all_hook = trio.sleep_forever

    def _let_go(self) -> None:
        self.is_let_go = True


@pytest.fixture
async def flusher() -> AsyncIterator[Flusher]:
    flusher = Flusher()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        yield flusher
        nursery.cancel_scope.cancel()


@pytest.fixture
def line(flusher: Flusher) -> Line:
    return Line(flusher)


# --- Hearing -----------------------------------------------------------------------------------------------------


async def test_messages_are_heard_in_their_order(line: Line) -> None:
    line.say("a", "b")
    line.say("c")
    assert [await line.connection.receive() for _ in range(3)] == ["a", "b", "c"]


async def test_a_message_is_heard_that_comes_byte_by_byte(line: Line) -> None:
    async with trio.open_nursery() as nursery:

        async def say() -> None:
            for byte in frame(Opcode.TEXT, b"hello"):
                line.send(bytes([byte]))
                await wait_all_tasks_blocked()

        nursery.start_soon(say)
        assert await line.connection.receive() == "hello"


async def test_when_the_peer_was_last_heard_is_known(line: Line, autojump_clock: MockClock) -> None:
    began = trio.current_time()
    assert line.connection.last_heard == began
    await trio.sleep(5)
    line.send(frame(Opcode.PONG))
    with trio.move_on_after(1):
        await line.connection.receive()
    assert line.connection.last_heard == began + 5


async def test_a_ping_is_answered_with_its_payload(line: Line) -> None:
    line.send(frame(Opcode.PING, b"1") + frame(Opcode.PING, b"2") + frame(Opcode.TEXT, b"a"))
    assert await line.connection.receive() == "a"
    await line.stream.flushed()
    assert line.heard() == [(Opcode.PONG, b"1"), (Opcode.PONG, b"2")]


async def test_a_peer_that_always_has_more_to_say_leaves_others_their_turn(line: Line) -> None:
    line.say(*["x"] * 1_000)
    line.send(frame(Opcode.PING) * 1_000)
    line.say("last")
    turns = 0
    async with trio.open_nursery() as nursery:

        async def other() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        nursery.start_soon(other)
        while await line.connection.receive() != "last":
            pass
        nursery.cancel_scope.cancel()
    assert turns >= 20


async def test_what_was_said_before_a_close_is_heard(line: Line) -> None:
    line.send(frame(Opcode.TEXT, b"a") + frame(Opcode.TEXT, b"b") + close())
    assert [await line.connection.receive() for _ in range(4)] == ["a", "b", None, None]


async def test_what_was_said_before_a_fault_is_heard(line: Line) -> None:
    line.send(frame(Opcode.TEXT, b"a") + frame(Opcode.BINARY, b"b") + frame(Opcode.TEXT, b"c"))
    assert await line.connection.receive() == "a"
    with pytest.raises(PeerFault) as fault:
        await line.connection.receive()
    assert fault.value.code == 1003


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(Opcode.TEXT, b"x" * (MOST + 1)), 1009),
        (frame(Opcode.TEXT, b"\xff"), 1007),
        (frame(Opcode.TEXT, b"x", mask=None), 1002),
        (frame(Opcode.BINARY), 1003),
        (frame(Opcode.TEXT, fin=False) + frame(Opcode.CONTINUATION, fin=False) * 2_000, 1008),
    ],
)
async def test_a_peer_that_breaks_the_protocol_is_at_fault(line: Line, data: bytes, code: int) -> None:
    line.send(data)
    with pytest.raises(PeerFault) as fault:
        await line.connection.receive()
    assert fault.value.code == code


async def test_a_peer_that_goes_away_has_nothing_more_to_say(line: Line) -> None:
    line.say("a")
    line.finish()
    assert [await line.connection.receive() for _ in range(3)] == ["a", None, None]


async def test_a_peer_whose_connection_breaks_has_nothing_more_to_say(line: Line) -> None:
    line.say("a")
    assert await line.connection.receive() == "a"

    async def broken() -> None:
        raise trio.BrokenResourceError

    line.carrier.receive_stream.receive_some_hook = broken
    assert await line.connection.receive() is None


# --- Saying ------------------------------------------------------------------------------------------------------


async def test_what_is_put_is_heard_as_text(line: Line) -> None:
    line.connection.put_text("é".encode())
    line.connection.put(text_frame(b"b"))
    line.connection.ping()
    await line.stream.flushed()
    assert line.heard() == [(Opcode.TEXT, "é"), (Opcode.TEXT, "b"), (Opcode.PING, b"")]


async def test_over_its_bound_a_connection_takes_nothing_more_not_even_pongs(flusher: Flusher) -> None:
    line = Line(flusher, most_outgoing=100)
    line.connection.put_text(b"x" * 101)
    assert line.connection.is_too_full
    before = line.stream.outgoing_bytes
    line.connection.put_text(b"y")
    line.connection.ping()
    line.send(frame(Opcode.PING, b"1") + frame(Opcode.TEXT, b"a"))
    assert line.stream.outgoing_bytes == before
    await line.stream.flushed()
    assert not line.connection.is_too_full


async def test_pongs_that_nobody_reads_are_bounded(flusher: Flusher) -> None:
    line = Line(flusher, most_outgoing=1_000)
    line.block()
    for _ in range(10):
        line.send(frame(Opcode.PING, b"x" * 125) * 100)
    line.say("a")
    assert await line.connection.receive() == "a"
    assert line.connection.is_too_full
    assert line.stream.outgoing_bytes <= 1_000 + 127


# --- Ending ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "answer"), [(1000, 1000), (1001, 1001), (4321, 4321), (None, 1000)])
async def test_a_close_is_answered_with_its_code(line: Line, code: int | None, answer: int) -> None:
    line.send(close(code))
    assert await line.connection.receive() is None
    await line.connection.close(1011, "too late")
    assert line.heard() == [(Opcode.CLOSE, (answer, ""))]
    assert line.is_let_go


async def test_behind_the_answer_to_a_close_nothing_is_sent(line: Line) -> None:
    line.send(close())
    assert await line.connection.receive() is None
    line.connection.put_text(b"a")
    line.connection.ping()
    await line.stream.flushed()
    assert line.heard() == [(Opcode.CLOSE, (1000, ""))]


async def test_the_close_frame_goes_behind_what_was_put_before(line: Line) -> None:
    line.connection.put_text(b"a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.connection.close, 4001, "silent")
        await wait_all_tasks_blocked()
        line.connection.put_text(b"too late")
        line.send(close(4001))
    assert line.heard() == [(Opcode.TEXT, "a"), (Opcode.CLOSE, (4001, "silent"))]


async def test_the_connection_is_let_go_as_soon_as_the_peer_has_closed_too(
    line: Line, autojump_clock: MockClock
) -> None:
    began = trio.current_time()
    line.send(frame(Opcode.TEXT, b"still saying") + frame(Opcode.PING) + close())
    await line.connection.close(1000, "")
    assert trio.current_time() == began
    assert line.is_let_go


async def test_a_close_that_came_with_the_last_message_is_not_waited_for(line: Line, autojump_clock: MockClock) -> None:
    line.send(frame(Opcode.TEXT, b"last") + frame(Opcode.PING) + close())
    assert await line.connection.receive() == "last"
    began = trio.current_time()
    await line.connection.close(4503, "removed")
    assert trio.current_time() == began
    assert line.is_let_go


async def test_a_peer_that_does_not_close_has_a_limited_time(line: Line, autojump_clock: MockClock) -> None:
    began = trio.current_time()
    await line.connection.close(1000, "")
    assert trio.current_time() == began + FAREWELL_S
    assert line.is_let_go


async def test_a_peer_that_goes_on_talking_has_a_limited_time(line: Line, autojump_clock: MockClock) -> None:
    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def talk() -> None:
            while True:
                line.say("more")
                await trio.sleep(0.1)

        nursery.start_soon(talk)
        await line.connection.close(1000, "")
        nursery.cancel_scope.cancel()
    assert trio.current_time() == began + FAREWELL_S


async def test_a_peer_that_does_not_read_has_a_limited_time(line: Line, autojump_clock: MockClock) -> None:
    line.block()
    line.connection.put_text(b"a")
    began = trio.current_time()
    await line.connection.close(1000, "")
    assert trio.current_time() == began + FAREWELL_S
    assert line.is_let_go


async def test_a_peer_at_fault_is_told_and_let_go(line: Line, autojump_clock: MockClock) -> None:
    line.send(frame(Opcode.BINARY))
    with pytest.raises(PeerFault) as fault:
        await line.connection.receive()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.connection.close, fault.value.code, str(fault.value))
        await wait_all_tasks_blocked()
        assert line.heard() == [(Opcode.CLOSE, (1003, "Text frames only."))]
        line.finish()
    assert line.is_let_go


async def test_a_peer_that_breaks_the_protocol_during_the_farewell_is_let_go(
    line: Line, autojump_clock: MockClock
) -> None:
    line.send(frame(3) + struct.pack("!Q", 0) * 100)
    began = trio.current_time()
    await line.connection.close(1000, "")
    assert trio.current_time() <= began + FAREWELL_S
    assert line.is_let_go


async def test_a_cancelled_close_still_lets_go(line: Line, autojump_clock: MockClock) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await line.connection.close(1001, "going_away")
    assert line.heard() == [(Opcode.CLOSE, (1001, "going_away"))]
    assert line.is_let_go


async def test_closing_twice_says_one_thing(line: Line, autojump_clock: MockClock) -> None:
    line.send(close())
    await line.connection.close(4001, "silent")
    await line.connection.close(4002, "too_slow")
    assert line.heard() == [(Opcode.CLOSE, (4001, "silent"))]

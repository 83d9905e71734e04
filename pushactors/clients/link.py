"""One connection to a server, from its handshake to its end.

1. Whatever happens, `run` returns how the connection ended.
2. A reader is always running, and nothing it does waits: a connection that nobody reads answers no ping.
3. Frames are written by one task. A caller that gives up leaves its frame whole; a write that gets stuck ends the
   connection, because half a frame cannot be taken back.
4. An answer is handled (`then`) in the step in which it is read, before anything that the server sent after it.
5. When the connection ends, everybody who waits for an answer gets `Disconnected`.
6. A server from which nothing came for `heartbeat_s` is pinged; after twice that it is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, TypeVar, cast

import trio
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection

from pushactors.clients.door import HeardStream
from pushactors.clients.partings import Disconnected, ProtocolBroken
from pushactors.errors import Invalid, PushactorsError
from pushactors.wire.closing import Closing
from pushactors.wire.jsonrpc import Note, Reply, error_of, note_frame, read_frame, request_frame

HEARTBEAT_S: Final = 30.0
"""Until the server says otherwise, where it does."""
WRITE_LIMIT_S: Final = 60.0
CLOSE_LIMIT_S: Final = 5.0

BROKEN: Final = 1006
"""The close code of a connection that broke, or never came to be."""

_QUEUED_FRAMES: Final = 64
_log: Final = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ending:
    """A close code with its reason. 1006: the connection broke, or never came to be."""

    code: int
    reason: str


@dataclass(slots=True)
class _Question:
    then: Callable[[object], Any]
    over: trio.Event = field(default_factory=trio.Event)
    answer: Any = None
    error: PushactorsError | None = None


class Link:
    """See the law on top."""

    def __init__(self, websocket: WebSocketConnection, stream: HeardStream, hear: Callable[[Note], None]) -> None:
        self._heartbeat_s = HEARTBEAT_S
        self._websocket = websocket
        self._stream = stream
        self._hear = hear
        self._to_writer, self._from_callers = trio.open_memory_channel[bytes](_QUEUED_FRAMES)
        self._questions: dict[int, _Question] = {}
        self._ids = count(1)
        self._ending: Ending | None = None
        self._over = trio.Event()
        self._scope = trio.CancelScope()
        self._rest = trio.CancelScope()
        self._pinging = False
        self._is_closing = False

    # --- For those who talk ------------------------------------------------------------------------------------

    async def request(self, method: str, params: Mapping[str, object], then: Callable[[object], T]) -> T:
        """What `then` makes of the result. `then` may raise `Invalid`: it does not understand the answer.

        Raises the server's error by its name, `ProtocolBroken` or `Disconnected`."""
        number = next(self._ids)
        question = self._questions[number] = _Question(then)
        try:
            await self._put(request_frame(number, method, params))
            await question.over.wait()
        finally:
            self._questions.pop(number, None)
        if question.error is not None:
            raise question.error
        return cast(T, question.answer)

    async def tell(self, method: str, params: Mapping[str, object]) -> None:
        """Sends a notification: nobody answers it. Raises `Disconnected` if the connection has ended."""
        await self._put(note_frame(method, params))

    @property
    def is_over(self) -> bool:
        return self._over.is_set() or self._scope.cancel_called

    def beat_every(self, heartbeat_s: float) -> None:
        """From now on law 6 goes by this."""
        self._heartbeat_s = heartbeat_s
        self._rest.cancel()

    def lose(self, reason: str, code: int = BROKEN) -> None:
        """Ends the connection now. The first reason counts."""
        if self._ending is None:
            self._ending = Ending(code, reason)
        self._scope.cancel()

    async def aclose(self) -> None:
        """Sends what was told before, says goodbye, and waits for the end."""
        self._is_closing = True
        self._to_writer.close()
        await self._over.wait()

    async def _put(self, frame: bytes) -> None:
        try:
            await self._to_writer.send(frame)
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            raise _disconnected() from None

    # --- The life of the connection ----------------------------------------------------------------------------

    async def run(self, greet: Callable[[Link], Awaitable[None]]) -> Ending:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._watch, nursery)
                    nursery.start_soon(greet, self)
                    await self._read()
        finally:
            self._to_writer.close()
            self._from_callers.close()
            for question in self._questions.values():
                question.error = _disconnected()
                question.over.set()
            self._over.set()
        return self._ending or Ending(BROKEN, "the connection broke")

    async def _read(self) -> None:
        while True:
            try:
                text = await self._websocket.get_message()
            except ConnectionClosed as closed:
                # If it is closed from here, the writer waits for the server's consent: to hang up on what it has not
                # read yet could cost it the last acknowledgements.
                if not self._is_closing:
                    self._lost(closed.reason)
                return
            entries, _ = read_frame(text, batches=True)
            for entry in entries:
                match entry:
                    case Reply():
                        self._answered(entry)
                    case Note():
                        self._told(entry)
                    case _:
                        _log.warning("The server sent a frame that is neither an answer nor a notification: %s", entry)

    def _lost(self, reason: CloseReason | None) -> None:
        if reason is None:
            self.lose("the connection broke")
        else:
            self.lose(reason.reason or reason.name.lower(), int(reason.code))

    def _answered(self, reply: Reply) -> None:
        question = self._questions.get(reply.id) if isinstance(reply.id, int) else None
        # Whoever asked may have given up meanwhile.
        if question is None:
            return
        if reply.error is not None:
            question.error = error_of(reply.error)
        else:
            try:
                question.answer = question.then(reply.result)
            except Invalid as error:
                question.error = ProtocolBroken(f"The server's answer is not understood here: {error}")
        question.over.set()

    def _told(self, note: Note) -> None:
        try:
            self._hear(note)
        except Invalid as error:
            self.lose(f"a {note.method} that is not understood here: {error}", Closing.PROTOCOL.code)

    async def _write(self) -> None:
        with trio.CancelScope() as scope:
            async for frame in self._from_callers:
                scope.deadline = trio.current_time() + WRITE_LIMIT_S
                try:
                    await self._websocket.send_message(frame.decode())
                except ConnectionClosed as closed:
                    # Otherwise the reader comes to the reason, after what the server said before it.
                    if self._is_closing:
                        self._lost(closed.reason)
                    return
                scope.deadline = float("inf")
        if scope.cancelled_caught:
            self.lose(f"the server took nothing for {WRITE_LIMIT_S:.0f} s")
            return
        with trio.move_on_after(CLOSE_LIMIT_S):
            await self._websocket.aclose()
        self.lose("closed here", Closing.NORMAL.code)

    async def _watch(self, nursery: trio.Nursery) -> None:
        while True:
            heard_at = self._stream.heard_at
            silent_s = trio.current_time() - heard_at
            if silent_s >= 2 * self._heartbeat_s:
                self.lose(f"the server was silent for {silent_s:.0f} s")
                return
            if silent_s >= self._heartbeat_s and not self._pinging:
                self._pinging = True
                nursery.start_soon(self._ping)
            beats = 2 if self._pinging else 1
            with trio.CancelScope(deadline=heard_at + beats * self._heartbeat_s) as self._rest:
                await trio.sleep_forever()

    async def _ping(self) -> None:
        # Not cancelled when it takes long: a ping cut in half would break the stream (law 3).
        try:
            await self._websocket.ping()
        except ConnectionClosed:
            return
        self._pinging = False


def _disconnected() -> Disconnected:
    return Disconnected("The connection broke before the answer came. Whether the request took effect is unknown.")

"""A server without a mind of its own: the test hears every frame and says every word, over memory streams.

With a `MockClock` nothing here depends on time; `PATIENCE_S` only turns a test that waits for ever into a failing one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio
from trio.testing import memory_stream_pair
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, wrap_server_stream
from wsproto.frame_protocol import FrameProtocol

from pushactors.errors import PushactorsError
from pushactors.wire.jsonrpc import Note, Request, error_frame, note_frame, read_frame, result_frame

PATIENCE_S = 300


class Visit:
    """One accepted connection, from the server's side."""

    def __init__(
        self,
        websocket: WebSocketConnection,
        stream: trio.abc.Stream,
        reader: trio.Nursery,
        request: WebSocketRequest,
    ) -> None:
        self.websocket = websocket
        self.stream = stream
        self._reader = reader
        self.headers = dict(request.headers)
        self.path = request.path

    async def hear(self) -> Request | Note:
        """The next frame of the client, which must be a request or a notification."""
        with trio.fail_after(PATIENCE_S):
            (entry,), _ = read_frame(await self.websocket.get_message(), batches=False)
        assert isinstance(entry, Request | Note), entry
        return entry

    async def hear_request(self, method: str) -> Request:
        entry = await self.hear()
        assert isinstance(entry, Request), entry
        assert entry.method == method
        return entry

    async def hear_note(self) -> tuple[str, str]:
        """The method and the `msg_id` of a notification."""
        entry = await self.hear()
        assert isinstance(entry, Note), entry
        assert entry.params.keys() == {"msg_id"}
        return entry.method, str(entry.params["msg_id"])

    async def answer(self, request: Request, result: object) -> None:
        await self.websocket.send_message(result_frame(request.id, result).decode())

    async def refuse(self, request: Request, error: PushactorsError) -> None:
        await self.websocket.send_message(error_frame(request.id, error).decode())

    async def tell(self, method: str, params: dict[str, object]) -> None:
        await self.websocket.send_message(note_frame(method, params).decode())

    async def say_at_once(self, *frames: bytes) -> None:
        """Sends them in one piece, so that they are read in one."""
        await self.stream.send_all(b"".join(FrameProtocol(False, []).send_data(frame.decode()) for frame in frames))

    async def say_and_close(self, frame: bytes, code: int) -> None:
        """The frame and the close frame in one piece, so that they are read in one."""
        frames = FrameProtocol(False, [])
        await self.stream.send_all(frames.send_data(frame.decode()) + frames.close(code))

    async def message(self, msg_id: int, alias: str | None = None) -> None:
        addressed = {} if alias is None else {"alias": alias}
        await self.tell(
            "message",
            {"msg_id": str(msg_id), "sent_at": 1, "expires_at": None, "notification": {"alert": "x"}, **addressed},
        )

    async def welcome(self, alias: str | None = None, heartbeat: int = 30, **more: object) -> dict[str, Any]:
        """Answers the `connect` that is expected now, and returns its params."""
        request = await self.hear_request("connect")
        registration = {"registration_id": "device-1"}
        if "registration_id" not in request.params:
            registration["device_secret"] = "secret-1"
        result: dict[str, object] = {
            **registration,
            "alias": alias,
            "tags": [],
            "waiting": 0,
            "heartbeat": heartbeat,
            "server_at": 1,
        }
        await self.answer(request, {**result, **more})
        return request.params

    async def close(self, code: int, reason: str = "") -> None:
        await self.websocket.aclose(code, reason)

    async def vanish(self) -> None:
        """The network breaks: no close frame."""
        await trio.aclose_forcefully(self.stream)

    def fall_silent(self) -> None:
        """The connection stays, but nobody is there: not even a ping is answered."""
        self._reader.cancel_scope.cancel()

    async def closed_with(self) -> int | None:
        """Waits for the client to close; its code."""
        try:
            with trio.fail_after(PATIENCE_S):
                await self.websocket.get_message()
        except ConnectionClosed as closed:
            return None if closed.reason is None else closed.reason.code
        raise AssertionError("the client said something more")


class ScriptedServer:
    def __init__(self, nursery: trio.Nursery) -> None:
        self.is_down = False
        self.tries: list[float] = []
        """When clients tried to connect, in seconds of Trio's clock."""
        self._nursery = nursery
        self._to_test, self._arriving = trio.open_memory_channel[trio.abc.Stream](100)

    async def open_stream(self) -> trio.abc.Stream:
        """What clients are given to open their streams."""
        self.tries.append(trio.current_time())
        if self.is_down:
            raise ConnectionRefusedError("nobody listens")
        client_end, server_end = memory_stream_pair()
        self._to_test.send_nowait(server_end)
        return client_end

    async def stream(self) -> trio.abc.Stream:
        """The next connection, before anything was said on it."""
        with trio.fail_after(PATIENCE_S):
            return await self._arriving.receive()

    async def knock(self) -> WebSocketRequest:
        """The next connection, with its handshake unanswered."""
        return await wrap_server_stream(self._nursery, await self.stream())

    async def visit(self) -> Visit:
        """The next connection, accepted."""
        stream = await self.stream()
        reader: trio.Nursery = await self._nursery.start(_open_nursery)
        request = await wrap_server_stream(reader, stream)
        return Visit(await request.accept(subprotocol="pushactors.v1"), stream, reader, request)

    async def welcome(self, alias: str | None = None, heartbeat: int = 30, **more: object) -> Visit:
        """The next connection, greeted."""
        visit = await self.visit()
        await visit.welcome(alias, heartbeat, **more)
        return visit


async def _open_nursery(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    async with trio.open_nursery() as nursery:
        task_status.started(nursery)
        await trio.sleep_forever()


@contextmanager
def no_threads() -> Iterator[None]:
    """Whoever wants a thread waits for the end of the block."""
    limiter = trio.to_thread.current_default_thread_limiter()
    borrowers = [object() for _ in range(int(limiter.total_tokens))]
    for borrower in borrowers:
        limiter.acquire_on_behalf_of_nowait(borrower)
    yield
    for borrower in borrowers:
        limiter.release_on_behalf_of(borrower)

"""The opening handshake of a WebSocket connection, over our own stream.

1. trio-websocket does it, in a nursery of its own that ends with it: its reader is gone before the first frame is read.
2. Whoever owns the endpoint judges the request: a path, an origin, a user. What is refused is an HTTP answer.
3. It takes a limited time. What a stranger sends here ends the stranger's connection only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import trio
from trio_websocket import wrap_server_stream

from pushactors.edges.stream import BROKEN, Stream

SUBPROTOCOL = "pushactors.v1"

# It logs every frame at debug, with its content, and every bad handshake; neither is for our log.
logging.getLogger("trio-websocket").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class Knock:
    """Somebody asks for a WebSocket connection. Header names are in lower case; of two equal ones the last counts."""

    path: str
    host: str
    headers: Mapping[str, str]

    def is_of_a_strange_page(self, origins: Collection[str] = ()) -> bool:
        """Whether a browser asks for a page that is neither of `origins` nor served by this very host."""
        origin = self.headers.get("origin")
        return origin is not None and origin not in origins and origin.partition("://")[2] != self.host


@dataclass(frozen=True, slots=True)
class No:
    """An HTTP answer instead of a connection."""

    status: int
    sentence: str
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())


async def open_websocket(stream: Stream, judge: Callable[[Knock], No | None], within_s: float) -> bool:
    """Whether `stream` is a WebSocket connection now, and ours to read from. Raises what a bad peer makes of it, as
    an exception group; never hangs longer than `within_s`."""
    is_open = False
    with trio.move_on_after(within_s):
        async with trio.open_nursery() as nursery:
            # A bad request is answered and closed by trio-websocket, which then never tells of it.
            stream_closed = _Closing(stream, nursery.cancel_scope)
            request = await wrap_server_stream(nursery, stream_closed)
            knock = Knock(
                request.path,
                stream_closed.host(),
                {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers},
            )
            no = judge(knock)
            if no is None:
                chosen = SUBPROTOCOL if SUBPROTOCOL in request.proposed_subprotocols else None
                await request.accept(subprotocol=chosen)
                is_open = True
            else:
                content_type = (b"Content-Type", b"text/plain; charset=utf-8")
                body = no.sentence.encode() + b"\n"
                await request.reject(no.status, extra_headers=[*no.headers, content_type], body=body)
            nursery.cancel_scope.cancel()
    return is_open


class _Closing(trio.abc.Stream):
    """The stream as trio-websocket has it: when it closes it, the handshake is over."""

    def __init__(self, stream: Stream, scope: trio.CancelScope) -> None:
        self._stream = stream
        self._scope = scope
        self._head = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            received = self._head = await self._stream.receive_some(max_bytes)
        except BROKEN:
            received = b""
        if not received:
            self._scope.cancel()
            await trio.lowlevel.checkpoint()
        return received

    def host(self) -> str:
        """The Host header, which trio-websocket has checked, and keeps to itself."""
        for line in self._head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"host":
                return value.strip().decode("latin-1")
        return ""

    async def aclose(self) -> None:
        self._scope.cancel()
        await trio.lowlevel.checkpoint()

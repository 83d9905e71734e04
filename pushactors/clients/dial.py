"""From a door to a link and its end: one connection, opened, used and let go.

1. Whatever happens on the way, `hold` returns how it ended: what a network or a peer can do is never raised. Only a
   fault of this package is.
2. Opening has a limit, and a server that hangs up in the handshake is noticed at once.
3. HTTP 401 is the one rejection that is for good; everything else may be a proxy that is in the way for a moment.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, cast

import trio
from trio_websocket import ConnectionRejected, WebSocketConnection, wrap_client_stream

from pushactors.clients.door import Door, HeardStream
from pushactors.clients.link import BROKEN, Ending, Link
from pushactors.wire.closing import Closing
from pushactors.wire.jsonrpc import Note

SUBPROTOCOL: Final = "pushactors.v1"
OPEN_LIMIT_S: Final = 20.0
MAX_FRAME_BYTES: Final = 16 * 2**20
"""The largest answers are lists of a thousand devices; a message is a thousandth of that."""
_HTTP_UNAUTHORIZED: Final = 401


async def hold(door: Door, hear: Callable[[Note], None], greet: Callable[[Link], Awaitable[None]]) -> Ending:
    """Opens one connection, runs `greet` beside it, gives every notification to `hear`, and returns how it ended.

    `greet` and `hear` belong to the connection: `greet` is cancelled with it.
    """
    ending = Ending(BROKEN, f"no connection within {OPEN_LIMIT_S:.0f} s")
    stream: HeardStream | None = None
    fault: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            websocket = None
            with trio.move_on_after(OPEN_LIMIT_S):
                stream = await door.open()
                websocket = await _shake_hands(nursery, door, stream)
            if websocket is not None and stream is not None:
                try:
                    ending = await Link(websocket, stream, hear).run(greet)
                except Exception as error:
                    fault = error
            elif stream is not None and stream.ended.is_set():
                ending = Ending(BROKEN, "the server hung up during the handshake")
            nursery.cancel_scope.cancel()
    except* ConnectionRejected as rejections:
        ending = _rejected(rejections)
    except* Exception as broken:
        # What a network or a peer can do to a WebSocket library has no list: h11's own errors come out of it too.
        ending = Ending(BROKEN, _innermost(broken))
    finally:
        if stream is not None:
            await trio.aclose_forcefully(stream)
    if fault is not None:
        raise fault
    return ending


async def _shake_hands(nursery: trio.Nursery, door: Door, stream: HeardStream) -> WebSocketConnection | None:
    """None if the stream ended first."""
    websocket = None
    async with trio.open_nursery() as trying:
        trying.start_soon(_cancel_when_ended, trying.cancel_scope, stream)
        websocket = await wrap_client_stream(
            nursery,
            stream,  # type: ignore[arg-type]  # it asks for a socket, and uses a stream
            door.host,
            door.resource,
            subprotocols=[SUBPROTOCOL],
            extra_headers=door.headers,
            max_message_size=MAX_FRAME_BYTES,
        )
        trying.cancel_scope.cancel()
    return websocket


async def _cancel_when_ended(scope: trio.CancelScope, stream: HeardStream) -> None:
    await stream.ended.wait()
    scope.cancel()


def _rejected(rejections: BaseExceptionGroup[ConnectionRejected]) -> Ending:
    status = cast(ConnectionRejected, _leaf(rejections)).status_code
    if status == _HTTP_UNAUTHORIZED:
        return Ending(Closing.UNAUTHORIZED.code, "HTTP 401: app_key and master_secret do not fit")
    return Ending(BROKEN, f"the server answered HTTP {status}")


def _innermost(group: BaseExceptionGroup[Exception]) -> str:
    leaf = _leaf(group)
    return str(leaf) or type(leaf).__name__


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

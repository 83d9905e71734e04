"""Where a server is, and how to get a byte stream to it.

1. The url names the server; TLS is its scheme (`wss`), verified unless an `ssl_context` says otherwise.
2. Whoever must go another way (a proxy, a Unix socket) brings the stream; everything above stays the same.
3. The stream tells when something was last heard on it and when its other end was closed: trio-websocket tells
   neither, and waits for ever for a handshake on a stream that has ended.
4. What went wrong on the way is said as the system says it, not as the layers above it wrap it.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import trio

OpenStream = Callable[[], Awaitable[trio.abc.Stream]]


class Door:
    """Raises `ValueError` if `url` is not one of a WebSocket."""

    def __init__(
        self,
        url: str,
        headers: list[tuple[bytes, bytes]] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        open_stream: OpenStream | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ValueError(f"A server is named by a url with ws:// or wss://, not by {url!r}.")
        self.host = parts.netloc.rpartition("@")[2]
        self.url = f"{parts.scheme}://{self.host}{parts.path}"
        """For people: without the user and the query, where secrets are."""
        self.resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.headers = headers or []
        self._hostname = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "wss" else 80)
        self._tls = parts.scheme == "wss"
        self._ssl_context = ssl_context
        self._open_stream = open_stream or self._open_tcp

    async def open(self) -> HeardStream:
        """Raises `OSError` or `trio.BrokenResourceError` if there is no way."""
        return HeardStream(await self._open_stream())

    async def _open_tcp(self) -> trio.abc.Stream:
        try:
            if not self._tls:
                return await trio.open_tcp_stream(self._hostname, self._port)
            stream = await trio.open_ssl_over_tcp_stream(
                self._hostname, self._port, https_compatible=True, ssl_context=self._ssl_context
            )
            try:
                # Otherwise the first send would do it, inside trio-websocket, where a failure looks like silence.
                await stream.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        except (OSError, trio.BrokenResourceError) as error:
            raise OSError(_reason(error)) from error
        return stream


def _reason(error: BaseException) -> str:
    """What the system said: "Connection refused", not "all attempts to connect to … failed"."""
    while True:
        inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
        if inner is None:
            break
        error = inner
    said = (error.strerror if isinstance(error, OSError) else None) or str(error) or "the connection broke"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        # What Trio puts in front of it is the address, which the url says already.
        system = os.strerror(error.errno)
        return system if said.endswith(system) else said
    return said


class HeardStream(trio.abc.Stream):
    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.heard_at = trio.current_time()
        self.ended = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.ended.set()
            raise

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.ended.set()
            raise
        self.heard_at = trio.current_time()
        if not data:
            self.ended.set()
        return data

    async def aclose(self) -> None:
        self.ended.set()
        await self._stream.aclose()

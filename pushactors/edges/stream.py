"""Our end of one TCP (or TLS) connection: it owns the outgoing buffer.

1. `put` is done at once and never waits. What one turn of the loop puts into a buffer goes out in one write, in the
   next turn (`Flusher`). What the socket does not take waits in the buffer, and goes when it does.
2. The buffer is bounded by its users: they look at `outgoing_bytes` before they put, and let go of a peer that lets it
   grow. `blocked_since` says since when the peer has taken nothing of what is there.
3. During the opening handshake `receive_some` hands out the request's head and not a byte more, so that whoever does
   the handshake cannot take what comes behind it. Bytes behind the head are the first that `receive` returns.
4. A connection that breaks is noticed by its reader; what was put into it is dropped without an error.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

import trio

HEAD_BYTES = 16_384
# Through TLS nobody sees less than this go; a peer that takes so much in a heartbeat is not stuck.
CHUNK_BYTES = 16_384
# What one peer says in one turn, and so how long it keeps the others waiting.
READ_BYTES = 16_384
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class Transport(Protocol):
    """What carries the bytes: a socket, TLS over one, or memory."""

    async def send_all(self, data: bytes | memoryview) -> None: ...
    async def wait_send_all_might_not_block(self) -> None: ...
    async def receive_some(self, max_bytes: int) -> bytes | bytearray: ...
    async def aclose(self) -> None: ...


class SocketTransport(trio.abc.Stream):
    """A connected, non-blocking socket, which can also be written to without waiting. Closes it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock

    def send_nowait(self, data: bytes | memoryview) -> int:
        """How many bytes the socket took. Raises `OSError` if it is broken."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[self.send_nowait(left) :]
            except OSError as broken:
                raise trio.BrokenResourceError from broken
            if left:
                await trio.lowlevel.wait_writable(self._socket)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.wait_writable(self._socket)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        # A checkpoint each time: a peer that always has more to say must not keep the others from their turn.
        await trio.lowlevel.checkpoint()
        while True:
            try:
                return self._socket.recv(max_bytes or CHUNK_BYTES)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
            except OSError as broken:
                if broken.errno == errno.EBADF:
                    raise trio.ClosedResourceError from broken
                raise trio.BrokenResourceError from broken

    async def aclose(self) -> None:
        if self._socket.fileno() != -1:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
        await trio.lowlevel.checkpoint()


class Flusher:
    """Writes once per turn what was put into any stream. Its nursery owns those that wait for their socket."""

    def __init__(self) -> None:
        self._dirty: list[Stream] = []
        self._work = trio.Event()

    def mark(self, stream: Stream) -> None:
        self._dirty.append(stream)
        self._work.set()

    async def run(self) -> None:
        """Until cancelled. Never raises for a stream's sake."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._work.wait()
                self._work = trio.Event()
                dirty, self._dirty = self._dirty, []
                for stream in dirty:
                    if not stream.flush_nowait():
                        nursery.start_soon(stream.drain)


class Stream(trio.abc.Stream):
    """See the law on top."""

    def __init__(self, transport: SocketTransport | Transport, flusher: Flusher, address: str = "") -> None:
        self.address = address
        self.blocked_since: float | None = None
        """Since when (Trio time) there is something to send, and the peer takes nothing. None: nothing waits."""
        self.outgoing_bytes = 0
        self.on_drained: Callable[[], None] | None = None
        """Called when the buffer has emptied after the socket had blocked."""
        self._transport = transport
        self._send_nowait = getattr(transport, "send_nowait", None)
        self._flusher = flusher
        self._outgoing: list[bytes] = []
        self._is_marked = False
        self._is_draining = False
        self._is_broken = False
        self._flushed: trio.Event | None = None
        self._in_handshake = True
        self._head_is_out = False
        self._head = b""
        self._behind_head = b""

    # --- Sending -----------------------------------------------------------------------------------------------------

    @property
    def outgoing_pieces(self) -> int:
        """How many separate pieces the buffer holds."""
        return len(self._outgoing)

    def put(self, data: bytes) -> None:
        """Has `data` sent, behind everything put before."""
        if self._is_broken:
            return
        self._outgoing.append(data)
        self.outgoing_bytes += len(data)
        if not self._is_marked and not self._is_draining:
            self._is_marked = True
            self._flusher.mark(self)

    def flush_nowait(self) -> bool:
        """Sends what the socket takes now. False: something is left, and `drain` must be run."""
        self._is_marked = False
        if not self._outgoing or self._is_draining:
            return True
        if self._send_nowait is not None:
            data = b"".join(self._outgoing)
            try:
                sent = self._send_nowait(data)
            except OSError:
                self._break()
                return True
            self._outgoing = [data[sent:]] if sent < len(data) else []
            self.outgoing_bytes = len(data) - sent
            if not self._outgoing:
                self._was_emptied()
                return True
        self._is_draining = True
        self.blocked_since = trio.current_time()
        return False

    async def drain(self) -> None:
        """Sends what is there, waiting for the peer, until nothing is."""
        try:
            while self._outgoing:
                data = memoryview(b"".join(self._outgoing))
                self._outgoing = []
                while data:
                    sent = await self._send_some(data)
                    data = data[sent:]
                    self.outgoing_bytes -= sent
                    if sent:
                        self.blocked_since = trio.current_time()
        except BROKEN:
            self._break()
        finally:
            self._is_draining = False
        self._was_emptied()
        if self.on_drained is not None and not self._is_broken:
            self.on_drained()

    async def _send_some(self, data: memoryview) -> int:
        """Sends some of it, or waits for the moment when that may be possible; how many bytes."""
        if self._send_nowait is None:
            await self._transport.send_all(data[:CHUNK_BYTES])
            return min(len(data), CHUNK_BYTES)
        sent: int = self._send_nowait(data[:CHUNK_BYTES])
        if not sent:
            await self._transport.wait_send_all_might_not_block()
        return sent

    def _was_emptied(self) -> None:
        self.blocked_since = None
        if self._flushed is not None:
            self._flushed.set()
            self._flushed = None

    def _break(self) -> None:
        self._is_broken = True
        self._outgoing.clear()
        self.outgoing_bytes = 0
        self._was_emptied()

    async def flushed(self) -> None:
        """Returns when everything put so far is with the operating system, or the connection is broken."""
        while self.outgoing_bytes:
            if self._flushed is None:
                self._flushed = trio.Event()
            await self._flushed.wait()
        await trio.lowlevel.checkpoint()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """For whoever does the handshake."""
        self.put(bytes(data))
        await self.flushed()
        if self._is_broken:
            raise trio.BrokenResourceError

    async def wait_send_all_might_not_block(self) -> None:
        await self.flushed()

    # --- Receiving ---------------------------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """For whoever does the handshake: the request's head, in one piece, then nothing for ever (law 3).

        One that does not end within `HEAD_BYTES` is handed out as far as it came, to be refused; b"" if the peer goes
        away.
        """
        if self._head_is_out:
            await trio.sleep_forever()
        while b"\r\n\r\n" not in self._head and len(self._head) <= HEAD_BYTES:
            more = await self._transport.receive_some(4096)
            if not more:
                return b""
            self._head += more
        self._head_is_out = True
        end = self._head.find(b"\r\n\r\n") + 4
        if end < 4:
            end = len(self._head)
        head, self._behind_head = self._head[:end], self._head[end:]
        self._head = b""
        return head

    async def receive(self) -> bytes:
        """The next bytes behind the handshake; b"" when the peer has finished. Raises one of `BROKEN`."""
        if self._behind_head:
            data, self._behind_head = self._behind_head, b""
            return data
        return bytes(await self._transport.receive_some(READ_BYTES))

    # --- Ending ------------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Lets go of the connection. What is still to be sent is dropped."""
        self._break()
        await self._transport.aclose()


async def tls(transport: SocketTransport, context: ssl.SSLContext) -> Transport:
    """`transport` with TLS over it, when the handshake is done. Raises one of `BROKEN`."""
    # HTTPS-compatible: peers that just close the TCP connection are the rule, and frames say where a message ends.
    stream = trio.SSLStream(transport, context, server_side=True, https_compatible=True)
    await stream.do_handshake()
    return stream

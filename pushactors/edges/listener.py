"""The door to the street: accepts connections, each in a nursery of its own.

1. Whatever a peer does, and whatever fails over it, ends that peer's connection and nothing else.
2. At most so many connections at a time, and from one address; who comes above that is let go at once, unheard.
3. When the process has no more file descriptors, it rests for a moment and goes on.
"""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable

import trio

from pushactors.actors.tally import Tally
from pushactors.edges.stream import BROKEN, Flusher, SocketTransport, Stream, Transport, tls
from pushactors.errors import ConfigurationError

log = logging.getLogger(__name__)

BACKLOG = 4_096
ACCEPTED_AT_ONCE = 64
REST_S = 0.1
COMPLAIN_EVERY_S = 1.0
NOT_OURS = {errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.EINTR, errno.EAGAIN}


def bind(host: str, port: int, what: str) -> socket.socket:
    """A listening socket. Raises `ConfigurationError` in a sentence."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setblocking(False)
            listening.bind(address)
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise ConfigurationError(f"listen.{what}: cannot listen at {host}:{port}: {error.strerror}.") from None
    return listening


class Listener:
    """Serves what comes in at `listening`, which it closes. See the law on top."""

    def __init__(
        self,
        listening: socket.socket,
        serve: Callable[[Stream], Awaitable[None]],
        flusher: Flusher,
        max_connections: int,
        max_per_address: int,
        handshake_s: float,
        tls_context: ssl.SSLContext | None,
        tally: Tally,
    ) -> None:
        self._listening = listening
        self._serve = serve
        self._flusher = flusher
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._handshake_s = handshake_s
        self._tls_context = tls_context
        self._tally = tally
        self._by_address: Counter[str] = Counter()
        self._connections = 0
        self._complained_at = -COMPLAIN_EVERY_S
        self._accepting = trio.CancelScope()

    async def run(self) -> None:
        """Until cancelled; after `close` until the last connection ends."""
        async with trio.open_nursery() as nursery:
            try:
                with self._accepting:
                    while True:
                        await trio.lowlevel.wait_readable(self._listening)
                        await self._accept_some(nursery)
            finally:
                self._listening.close()

    def close(self) -> None:
        """Takes no more connections; those that are here go on."""
        self._accepting.cancel()

    async def _accept_some(self, nursery: trio.Nursery) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, peer = self._listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in NOT_OURS:
                    return
                log.warning("Cannot accept a connection: %s.", error.strerror)
                self._tally.add("accepts_failed")
                await trio.sleep(REST_S)
                return
            address = peer[0] if isinstance(peer, tuple) else ""
            if self._connections >= self._max_connections or self._by_address[address] >= self._max_per_address:
                self._tally.add("connections_refused")
                sock.close()
                continue
            self._connections += 1
            self._by_address[address] += 1
            nursery.start_soon(self._connection, sock, address)

    async def _connection(self, sock: socket.socket, address: str) -> None:
        transport = SocketTransport(sock)
        try:
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            carrier: Transport = transport
            if self._tls_context is not None:
                with trio.fail_after(self._handshake_s):
                    carrier = await tls(transport, self._tls_context)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run_alone, Stream(carrier, self._flusher, address))
        except* BROKEN:
            pass  # the peer went away, as peers do
        except* trio.TooSlowError:
            self._tally.add("handshakes", "too_slow")
        except* Exception as failures:  # what a stranger can cause ends the stranger's connection only (law 1)
            self._tally.add("connections_failed")
            self._complain(address, failures)
        finally:
            self._connections -= 1
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]
            with trio.CancelScope(shield=True):
                await transport.aclose()

    def _complain(self, address: str, failures: ExceptionGroup[Exception]) -> None:
        # Not each of them: a log that strangers can fill at will is one more thing that they can fill.
        now = trio.current_time()
        if now - self._complained_at >= COMPLAIN_EVERY_S:
            self._complained_at = now
            log.warning("A connection from %s failed: %r (all are counted).", address, failures.exceptions[0])
        log.debug("A connection failed.", exc_info=failures)

    async def _run_alone(self, stream: Stream) -> None:
        await self._serve(stream)

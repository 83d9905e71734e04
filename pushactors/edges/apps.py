"""The app-server endpoint: who may come in, and requests in, answers out.

1. HTTP Basic in the handshake, `app_key:master_secret`; anything else is 401 and no upgrade. Secrets are compared in
   constant time, and an unknown app takes as long as a wrong secret.
2. Requests of one connection are accepted in the order in which they arrive, any number in flight; each is answered
   when it may be told (C2). The entries of a batch are taken in order; their answers leave as one array.
3. Nothing is buffered without bound: while the peer does not read its answers, too many of them are open, or the disk
   is far behind, the next request is not read.
4. What cannot be a request is answered all the same: nothing here is a notification, so an `id` is never left out.
"""

from __future__ import annotations

import base64
import hmac
import logging
from collections.abc import Callable
from functools import partial

import trio

from pushactors.actors.tally import Tally
from pushactors.actors.visits import Ending
from pushactors.edges.connection import Connection, PeerFault
from pushactors.edges.following import Following
from pushactors.edges.handshake import Knock, No, open_websocket
from pushactors.edges.house import App, Apps
from pushactors.edges.methods import Methods
from pushactors.edges.pulse import Pulse
from pushactors.edges.results import Result
from pushactors.edges.stream import Stream
from pushactors.errors import InternalError, PushactorsError, RateLimited
from pushactors.wire.closing import Closing
from pushactors.wire.ids import AppKey, Millis
from pushactors.wire.jsonrpc import (
    INVALID_REQUEST,
    Malformed,
    Request,
    batch_frame,
    error_frame,
    read_frame,
    result_frame,
)

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 1 << 20
# What waits for a peer that does not read; beyond this it is let go. The answers to one batch fill half of it at most,
# and one more answer: 1,000 reports of 100 pushes are some 20 MB.
MAX_OUTGOING_BYTES = 64 << 20
# Answers that wait for the disk to be told; beyond this no more is asked.
MAX_UNTOLD_BYTES = 8 << 20
READING_BELOW_BYTES = 1 << 20
OPEN_AT_MOST = 4_096
UNAUTHORIZED = No(
    401,
    "Authenticate with HTTP Basic: the app_key as user, the master_secret as password.",
    ((b"WWW-Authenticate", b'Basic realm="pushactors", charset="UTF-8"'),),
)


class AppEndpoint:
    """See the law on top."""

    def __init__(
        self,
        apps: Apps,
        handshake_s: float,
        heartbeat_s: float,
        pulse: Pulse,
        clock: Callable[[], Millis],
        tally: Tally,
    ) -> None:
        self._apps = apps
        self._handshake_s = handshake_s
        self._heartbeat_s = heartbeat_s
        self._pulse = pulse
        self._clock = clock
        self._tally = tally
        self._sessions: dict[AppSession, None] = {}
        self._is_stopping = False
        self._fewer = trio.Event()

    async def serve(self, stream: Stream) -> None:
        """From the first byte to the last. Whatever a bad peer makes of it leaves as an exception."""
        found: list[App] = []

        def judge(knock: Knock) -> No | None:
            if knock.path.partition("?")[0] != "/app":
                return No(404, "App servers connect at /app.")
            if knock.is_of_a_strange_page():
                # A browser adds the credentials that it knows for a host to whatever page asks.
                return No(403, "App servers are no pages of another host.")
            app = self._authenticate(knock.headers.get("authorization", ""))
            if app is None:
                self._tally.add("handshakes", "unauthorized")
                return UNAUTHORIZED
            if self._is_stopping:
                return No(503, "The server is stopping. Come back in a moment.", ((b"Retry-After", b"2"),))
            found.append(app)
            return None

        if not await open_websocket(stream, judge, self._handshake_s):
            return
        session = AppSession(
            Connection(stream, MAX_MESSAGE_BYTES, MAX_OUTGOING_BYTES),
            found[0],
            Methods(found[0], self._clock),
            self._heartbeat_s,
            self._tally,
        )
        self._sessions[session] = None
        if self._apps.find(session.app.tenant.app_key) is not session.app:
            # It was let go while this connection was being opened.
            session.end(Closing.UNAUTHORIZED)
        elif self._is_stopping:
            session.end(Closing.GOING_AWAY)
        stop_looking = self._pulse.add(session.look)
        try:
            await session.run()
        finally:
            stop_looking()
            del self._sessions[session]
            self._fewer.set()

    def _authenticate(self, authorization: str) -> App | None:
        scheme, _, encoded = authorization.partition(" ")
        try:
            app_key, _, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        except ValueError:  # not base64, or not UTF-8 in it
            return None
        app = self._apps.find(AppKey(app_key))
        secrets = app.secrets if app is not None else ("",)
        # All of them, whichever fits.
        fits = [hmac.compare_digest(secret.encode(), each.encode()) for each in secrets]
        return app if scheme.lower() == "basic" and secret and any(fits) else None

    def __len__(self) -> int:
        """Sessions now."""
        return len(self._sessions)

    def end_all(self, app: App, why: Ending) -> None:
        """Ends every session of an app that is no longer served."""
        for session in tuple(self._sessions):
            if session.app is app:
                session.end(Closing[why.name])

    async def stop(self) -> None:
        """Ends every session when it has been answered what it had asked; no new ones."""
        self._is_stopping = True
        for session in tuple(self._sessions):
            session.end(Closing.GOING_AWAY)
        while self._sessions:
            self._fewer = trio.Event()
            await self._fewer.wait()


class AppSession:
    """One connection of one app server."""

    def __init__(self, connection: Connection, app: App, methods: Methods, heartbeat_s: float, tally: Tally) -> None:
        self.app = app
        self._connection = connection
        self._methods = methods
        self._heartbeat_s = heartbeat_s
        self._tally = tally
        self._following = Following(app.receipts, connection.put_text)
        self._scope = trio.CancelScope()
        self._closing: Closing | None = None
        self._is_between_frames = False
        self._is_reading = False
        self._open = 0
        self._untold_bytes = 0
        self._fewer = trio.Event()
        self._pinged_at = 0.0

    async def run(self) -> None:
        """From the handshake to the close frame. Returns when the connection is closed."""
        code, reason = Closing.NORMAL.code, ""
        fault: PeerFault | None = None
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._following.run)
                    try:
                        await self._listen()
                    except PeerFault as found:
                        fault = found
                    nursery.cancel_scope.cancel()
        except Exception:  # a fault of ours ends this session only; its app server comes back
            log.exception("A session of an app server failed.")
            self._tally.add("faults", "session")
            self._closing = Closing.INTERNAL_ERROR
        if fault is not None:
            code, reason = fault.code, str(fault)
        elif self._closing is not None:
            code, reason = self._closing.code, self._closing.reason
        with trio.move_on_after(self._heartbeat_s):
            await self._answered(below=1)
        await self._connection.close(code, reason)

    def end(self, closing: Closing) -> None:
        """Reads no more requests, answers those it has, and closes."""
        if self._closing is None:
            self._closing = closing
            # What is begun is decided and answered: an end comes between two frames.
            if self._is_between_frames:
                self._scope.cancel()

    async def _listen(self) -> None:
        while self._closing is None:
            self._is_between_frames = True
            await self._answered(below=OPEN_AT_MOST)
            while self._connection.stream.outgoing_bytes > READING_BELOW_BYTES:
                await self._connection.stream.flushed()
            # What it said while it was kept waiting is not read yet: it was not silent.
            self._connection.last_heard = trio.current_time()
            self._is_reading = True
            text = await self._connection.receive()
            self._is_reading = self._is_between_frames = False
            if text is None:
                return
            entries, is_batch = read_frame(text, batches=True)
            reply = _Reply(len(entries), is_batch, self._send)
            self._open += 1
            for place, entry in enumerate(entries):
                await self.app.tenant.book.room()
                await self._told()
                await self._take(entry, reply, partial(reply.put, place))
                if is_batch:
                    # However much one frame asks for, others have their turn between its entries.
                    await trio.lowlevel.checkpoint()

    async def _answered(self, below: int) -> None:
        """Returns when fewer frames than that are open."""
        while self._open >= below:
            self._fewer = trio.Event()
            await self._fewer.wait()

    async def _told(self) -> None:
        """Returns when not too much waits for the disk to be told."""
        while self._untold_bytes > MAX_UNTOLD_BYTES:
            await self.app.tenant.book.told()

    def _send(self, frame: bytes) -> None:
        self._open -= 1
        self._fewer.set()
        self._connection.put_text(frame)

    async def _take(self, entry: object, reply: _Reply, answer: Callable[[bytes], None]) -> None:
        if reply.is_full:
            error = RateLimited("The answers to this batch are too large. Ask for less in one batch.")
            answer(error_frame(getattr(entry, "id", None), error))
        elif isinstance(entry, Malformed):
            self._tally.add("refused", "malformed")
            answer(error_frame(entry.id, entry))
        elif not isinstance(entry, Request):
            self._tally.add("refused", "malformed")
            answer(error_frame(None, Malformed(None, INVALID_REQUEST, "A request has an id and a method.")))
        else:
            try:
                result = await self._methods.call(entry.method, entry.params, self._following)
            except PushactorsError as error:
                self._tally.add("refused", type(error).__name__)
                # What is refused may be refused because of something that is not durable yet (C2).
                refusal = error_frame(entry.id, error)
                self.app.tenant.book.after(lambda: answer(refusal))
            except Exception:  # a fault of ours: this request is answered so, and others are not harmed
                log.exception("A request of an app server failed.")
                self._tally.add("faults", "request")
                answer(error_frame(entry.id, InternalError("The server failed over this request.")))
            else:
                if result.then is not None:
                    reply.then.append(result.then)
                self._tell(entry, result, answer)

    def _tell(self, request: Request, result: Result, answer: Callable[[bytes], None]) -> None:
        frame = result_frame(request.id, result.value)
        if result.waits:
            self._untold_bytes += len(frame)
            self.app.tenant.book.after(partial(self._tell_now, frame, answer))
        else:
            answer(frame)

    def _tell_now(self, frame: bytes, answer: Callable[[bytes], None]) -> None:
        self._untold_bytes -= len(frame)
        answer(frame)

    def look(self) -> None:
        """Ends the session if its peer is silent or does not read; asks for a sign of life when it is due (C12)."""
        now = trio.current_time()
        silent_s = now - self._connection.last_heard
        blocked_since = self._connection.stream.blocked_since
        if silent_s >= 2 * self._heartbeat_s and self._is_reading:
            self.end(Closing.SILENT)
        elif self._connection.is_too_full or (blocked_since is not None and now - blocked_since >= self._heartbeat_s):
            self.end(Closing.TOO_SLOW)
        elif silent_s >= self._heartbeat_s and now - self._pinged_at >= self._heartbeat_s:
            self._pinged_at = now
            self._connection.ping()


class _Reply:
    """The answers to one frame, sent when all of them are there: a batch's as one array."""

    __slots__ = ("_answers", "_bytes", "_is_batch", "_missing", "_send", "then")

    def __init__(self, entries: int, is_batch: bool, send: Callable[[bytes], None]) -> None:
        self._answers = [b""] * entries
        self._missing = entries
        self._bytes = 0
        self._is_batch = is_batch
        self._send = send
        self.then: list[Callable[[], None]] = []
        """What happens behind the frame, in the same turn."""

    @property
    def is_full(self) -> bool:
        return self._bytes > MAX_OUTGOING_BYTES // 2

    def put(self, place: int, answer: bytes) -> None:
        self._bytes += len(answer)
        self._answers[place] = answer
        self._missing -= 1
        if self._missing == 0:
            self._send(batch_frame(self._answers) if self._is_batch else self._answers[0])
            for then in self.then:
                then()

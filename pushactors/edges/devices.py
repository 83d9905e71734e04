"""The device endpoint: a stranger's connection becomes a visit, or is refused.

1. The first frame must be a `connect`, within `connect_timeout_s` of the connection (4502). Its answer comes before
   anything else.
2. A refused `connect` is answered and then closed, with a code that says whether to come back, and has changed nothing
   (C11).
3. Registering is open to whoever knows an app key, so it is limited by address (C24).
4. Visits have numbers that only grow. While the server drains there are no new ones (1001).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from pushactors.actors.registrar import Hello, Welcome
from pushactors.actors.tally import Tally
from pushactors.actors.visits import Ending
from pushactors.edges.connection import Connection, PeerFault
from pushactors.edges.handshake import Knock, No, open_websocket
from pushactors.edges.house import App, Apps
from pushactors.edges.letters import Letters
from pushactors.edges.pulse import Pulse
from pushactors.edges.rates import Changes, Rates
from pushactors.edges.stream import Stream
from pushactors.edges.visit import DeviceVisit, Patience
from pushactors.errors import (
    Busy,
    InternalError,
    NoSuchApp,
    NoSuchDevice,
    PushactorsError,
    StoreFailure,
    Unauthorized,
)
from pushactors.wire.closing import Closing
from pushactors.wire.codec import structure
from pushactors.wire.device import Connect
from pushactors.wire.ids import Alias, Millis, VisitId
from pushactors.wire.jsonrpc import Malformed, Request, UnknownMethod, error_frame, note_frame, read_frame, result_frame

MAX_MESSAGE_BYTES = 8_192
DRAINED_COME_BACK_AFTER_S = 2
DRAINED_AT_ONCE = 100

Clock = Callable[[], Millis]


@dataclass(frozen=True, slots=True)
class DeviceLimits:
    connect_timeout_s: float
    heartbeat_s: float
    ack_timeout_s: float
    outgoing_buffer_bytes: int
    origins: Collection[str]


class DeviceEndpoint:
    """See the law on top. `registrations`: the rate by address."""

    def __init__(
        self, apps: Apps, limits: DeviceLimits, pulse: Pulse, registrations: Rates, clock: Clock, tally: Tally
    ) -> None:
        self._apps = apps
        self._limits = limits
        self._pulse = pulse
        self._registrations = registrations
        self._clock = clock
        self._tally = tally
        self._letters = Letters()
        self._changes = Changes()
        self._visits: dict[VisitId, tuple[DeviceVisit, App]] = {}
        self._waiting: dict[trio.CancelScope, None] = {}
        self._last_visit = 0
        self._fewer = trio.Event()
        self.is_draining = False

    # --- One connection ----------------------------------------------------------------------------------------------

    async def serve(self, stream: Stream) -> None:
        """From the first byte to the last. Whatever a bad peer makes of it leaves as an exception."""
        limits = self._limits
        begun = trio.current_time()
        if not await open_websocket(stream, self._judge, limits.connect_timeout_s):
            self._tally.add("handshakes", "refused")
            return
        self._tally.add("handshakes", "accepted")
        connection = Connection(stream, MAX_MESSAGE_BYTES, limits.outgoing_buffer_bytes)
        if self.is_draining:
            await self._turn_away(connection)
            return
        text = None
        waiting = trio.CancelScope(deadline=begun + limits.connect_timeout_s)
        self._waiting[waiting] = None
        try:
            with waiting:
                text = await connection.receive()
        except PeerFault as fault:
            await connection.close(fault.code, str(fault))
            return
        finally:
            del self._waiting[waiting]
        if self.is_draining:
            await self._turn_away(connection)
        elif text is None and waiting.cancelled_caught:
            await connection.close(Closing.PROTOCOL.code, "the first frame must be connect, and must come in time")
        elif text is None:
            await connection.close(Closing.NORMAL.code, "")
        else:
            await self._visit(connection, text)

    async def _turn_away(self, connection: Connection) -> None:
        goodbye = {"reason": Closing.DRAIN.reason, "retry_after": DRAINED_COME_BACK_AFTER_S}
        connection.put_text(note_frame("goodbye", goodbye))
        await connection.close(Closing.GOING_AWAY.code, Closing.GOING_AWAY.reason)

    def _judge(self, knock: Knock) -> No | None:
        if knock.path.partition("?")[0] != "/device":
            return No(404, "Devices connect at /device.")
        if knock.is_of_a_strange_page(self._limits.origins):
            return No(403, "This Origin is not in devices.origins.")
        return None

    # --- One visit ---------------------------------------------------------------------------------------------------

    async def _visit(self, connection: Connection, text: str) -> None:
        [entry], _ = read_frame(text, batches=False)
        if not isinstance(entry, Request):
            if isinstance(entry, Malformed) and not entry.is_note:
                connection.put_text(error_frame(entry.id, entry))
            await connection.close(Closing.PROTOCOL.code, "the first frame must be connect")
            return
        try:
            visit, welcome = await self._connect(connection, entry)
        except _Draining:
            await self._turn_away(connection)
            return
        except PushactorsError as error:
            self._tally.add("connects_refused", type(error).__name__)
            connection.put_text(error_frame(entry.id, error))
            closing = _closing(error)
            await connection.close(closing.code, closing.reason)
            return
        stop_looking = self._pulse.add(visit.look)
        try:
            connection.put_text(result_frame(entry.id, self._answer(welcome, self._limits.heartbeat_s, self._clock())))
            self._tally.add("visits_started")
            await visit.run()
        finally:
            stop_looking()
            self._forget(visit)

    async def _connect(self, connection: Connection, request: Request) -> tuple[DeviceVisit, Welcome]:
        if request.method != "connect":
            raise UnknownMethod("The first request must be connect.")
        connect = structure(Connect, request.params)
        app = self._apps.find(connect.app_key)
        if app is None:
            raise NoSuchApp("No app with this app_key is served here.")
        if connect.registers:
            self._registrations.take(connection.stream.address)
        await app.tenant.book.room()
        if self.is_draining:
            raise _Draining
        if self._apps.find(connect.app_key) is not app:
            raise NoSuchApp("This app is not served here any more.")
        self._last_visit += 1
        patience = Patience(self._limits.heartbeat_s, self._limits.ack_timeout_s)
        visit = DeviceVisit(
            VisitId(self._last_visit), connection, app, self._letters, self._changes, patience, self._tally
        )
        hello = Hello(
            connect.registration_id,
            connect.device_secret,
            connect.install_key,
            connect.platform,
            Alias(connect.alias) if connect.alias is not None else None,
            connect.tags,
            partial(app.permit, connect.alias_token),
        )
        self._visits[visit.visit_id] = (visit, app)
        welcome: Welcome | None = None
        try:
            welcome = await app.registrar.connect(hello, visit)
            visit.welcomed(welcome)
            await app.tenant.book.told()
        except BaseException as refusal:
            self._forget(visit)
            if welcome is not None:
                app.registrar.leave(welcome.registration_id, visit.visit_id)
            if isinstance(refusal, PushactorsError):
                # What is refused may be refused because of something that is not durable yet (C2).
                await app.tenant.book.told()
            raise
        return visit, welcome

    def _forget(self, visit: DeviceVisit) -> None:
        del self._visits[visit.visit_id]
        self._fewer.set()

    @staticmethod
    def _answer(welcome: Welcome, heartbeat_s: float, now: Millis) -> dict[str, Any]:
        answer: dict[str, Any] = {"registration_id": welcome.registration_id}
        if welcome.device_secret is not None:
            answer["device_secret"] = welcome.device_secret
        return answer | {
            "alias": welcome.alias,
            "tags": welcome.tags,
            "waiting": welcome.waiting,
            "heartbeat": heartbeat_s,
            "server_at": now,
        }

    # --- Ending visits -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Visits now."""
        return len(self._visits)

    def end_all(self, app: App, why: Ending) -> None:
        """Ends every visit of an app that is no longer served."""
        for visit, of in tuple(self._visits.values()):
            if of is app:
                visit.end(why)

    async def drain(self, within_s: float) -> None:
        """Ends every visit, spread over `within_s`, each told to come back at a moment of its own; no new ones."""
        self.is_draining = True
        for waiting in self._waiting:
            waiting.cancel()
        visits = tuple(self._visits.values())
        for place, (visit, _) in enumerate(visits):
            # The first to go comes back first: they return as slowly as they left.
            visit.end(Ending.STOPPED, DRAINED_COME_BACK_AFTER_S + int(within_s * place / len(visits)))
            if place % DRAINED_AT_ONCE == DRAINED_AT_ONCE - 1:
                await trio.sleep(within_s * DRAINED_AT_ONCE / len(visits))
        while self._visits:
            self._fewer = trio.Event()
            await self._fewer.wait()


class _Draining(Exception):
    """There are no new visits any more."""


def _closing(error: PushactorsError) -> Closing:
    """What a refused `connect` is closed with."""
    if isinstance(error, NoSuchApp | NoSuchDevice | Unauthorized):
        return Closing.UNAUTHORIZED
    if isinstance(error, Busy | InternalError | StoreFailure):
        return Closing.BUSY
    return Closing.PROTOCOL

"""A whole node on real sockets, and peers that say exactly what a test has them say.

The node is the product's own, over a store in memory; nothing of it is replaced. Times are real, so nothing here
depends on how long something takes: `LIMIT_S` only turns a test that would wait for ever into a failing one.
"""

from __future__ import annotations

import base64
import hmac
import resource
import secrets
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import trio
import trio.testing
from wsproto.frame_protocol import FrameProtocol, Opcode

from pushactors.actors.tenant import Limits
from pushactors.edges.devices import DeviceLimits
from pushactors.edges.listener import bind
from pushactors.errors import StoreUnusable
from pushactors.node import AppPlan, DoorPlan, Node, NodePlan, wall_clock
from pushactors.stores.contract import Change, Store
from pushactors.stores.memory import MemoryDisk, MemoryStore
from pushactors.wire.ids import AppKey, Millis

LIMIT_S = 20.0
LOOK_AGAIN_S = 0.005
PEM = Path(__file__).parent.parent / "localhost.pem"
APP, SECRET = AppKey("app"), "secret-of-the-app"
OTHER, OTHER_SECRET = AppKey("other"), "secret-of-the-other"
VERDICTS = ("received", "missed", "expired", "replaced", "overflowed", "recalled", "fenced")
MARKS = ("opened", "dismissed", "withdrawn")
HELLO = {"alert": "hello"}


class Refusal(Exception):
    """The error object of an answer."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        assert error.keys() == {"code", "message", "data"}, error
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.name: str = error["data"]["name"]
        self.path: str | None = error["data"].get("path")
        self.retry_after: int | None = error["data"].get("retry_after")
        self.oldest: str | None = error["data"].get("oldest")
        assert error["data"].keys() <= {"name", "path", "retry_after", "oldest"}, error


class Ended(Exception):
    """The server has closed the connection: `code` None without a close frame."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code
        self.reason = reason


async def until(condition: Callable[[], bool], what: str = "this", within_s: float = LIMIT_S) -> None:
    """Returns as soon as `condition` holds."""
    with trio.move_on_after(within_s) as limit:
        while not condition():  # noqa: ASYNC110 - what real sockets bring about sets no event
            await trio.sleep(LOOK_AGAIN_S)
    assert not limit.cancelled_caught, f"{what} did not come about within {within_s} s"


async def until_true(ask: Callable[[], Awaitable[bool]], what: str = "this", within_s: float = LIMIT_S) -> None:
    """Returns as soon as `ask` says so."""
    with trio.move_on_after(within_s) as limit:
        while not await ask():  # noqa: ASYNC110
            await trio.sleep(LOOK_AGAIN_S)
    assert not limit.cancelled_caught, f"{what} did not come about within {within_s} s"


def resident_bytes() -> int:
    """What the process has of the machine's memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def alias_token(
    claims: dict[str, Any], secret: str = "secret-of-the-app", alg: str = "HS256", digest: str = "sha256"
) -> str:
    """A JWT as any other program makes it: nothing of ours has a part in it."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    signed = f"{part(orjson.dumps({'alg': alg, 'typ': 'JWT'}))}.{part(orjson.dumps(claims))}"
    signature = b"" if alg == "none" else hmac.digest(secret.encode(), signed.encode(), digest)
    return f"{signed}.{part(signature)}"


def basic(key: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{key}:{secret}".encode()).decode()}


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = b"mask") -> bytes:
    """A client's frame, legal or not."""
    length = len(payload)
    masked = 0x80 if mask is not None else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if length < 126:
        head += bytes([masked | length])
    elif length < 1 << 16:
        head += struct.pack("!BH", masked | 126, length)
    else:
        head += struct.pack("!BQ", masked | 127, length)
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


def text(message: object) -> bytes:
    """A client's text frame with `message` as JSON."""
    return bytes(FrameProtocol(True, []).send_data(orjson.dumps(message).decode()))


def close(code: int | None = 1000, reason: bytes = b"") -> bytes:
    return frame(Opcode.CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


# --- Peers -------------------------------------------------------------------------------------------------------


class Peer:
    """A client's end of a connection. Nothing is read but while a test waits for something."""

    def __init__(self, stream: trio.abc.Stream, answers_pings: bool = True) -> None:
        self.stream = stream
        self.answers_pings = answers_pings
        self.status = 0
        """Of the handshake; 0: there was no answer."""
        self.headers: dict[str, str] = {}
        self.body = b""
        self.texts: list[str] = []
        """Every message, as it came."""
        self.kept: deque[Any] = deque()
        """Messages that came while something else was waited for."""
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.ended: Ended | None = None
        self._hangs_up = False
        self._frames = FrameProtocol(True, [])
        self._pieces: list[str] = []
        self._came: deque[Any] = deque()
        self._answered_pings = 0
        self._sending = trio.Lock()
        self._last_id = 0

    # --- Opening -----------------------------------------------------------------------------------------------------

    async def knock(self, path: str, headers: dict[str, str] | None = None, host: str = "localhost") -> None:
        """The opening handshake; afterwards `status`, `headers` and, unless it is 101, `body` are the answer's."""
        lines = {
            "Host": host,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(secrets.token_bytes(16)).decode(),
            **(headers or {}),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        await self.send_bytes(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1"))
        await self.hear_head()

    async def hear_head(self) -> None:
        with trio.fail_after(LIMIT_S):
            received = b""
            while b"\r\n\r\n" not in received:
                more = await self._receive()
                if not more:
                    return
                received += more
            head, _, behind = received.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            self.status = int(first.split(" ")[1])
            self.headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            if self.status == 101:
                self._take(behind)
                return
            while more := await self._receive():
                behind += more
            self.body = behind

    # --- Saying ------------------------------------------------------------------------------------------------------

    async def send_bytes(self, data: bytes) -> None:
        with trio.fail_after(LIMIT_S):
            async with self._sending:
                await self.stream.send_all(data)

    async def say(self, *messages: object) -> None:
        """Messages, each in a text frame, all in one write."""
        await self.send_bytes(b"".join(map(text, messages)))

    async def note(self, method: str, **params: object) -> None:
        await self.say({"jsonrpc": "2.0", "method": method, "params": params})

    def request(self, method: str, params: object = None) -> dict[str, Any]:
        """A request with an id of its own."""
        self._last_id += 1
        request = {"jsonrpc": "2.0", "id": self._last_id, "method": method}
        return request if params is None else {**request, "params": params}

    async def ask(self, method: str, params: object = None) -> dict[str, Any]:
        """Asks, and returns the whole answer."""
        request = self.request(method, params)
        await self.say(request)
        return await self.answer_to(request)

    async def call(self, method: str, **params: object) -> Any:
        """Asks, and returns the result. Raises `Refusal`."""
        return result_of(await self.ask(method, params))

    # --- Hearing -----------------------------------------------------------------------------------------------------

    async def answer_to(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to `request`; everything else that comes before it is kept."""
        for answer in self.kept:
            if isinstance(answer, dict) and answer.get("id") == request["id"] and "method" not in answer:
                self.kept.remove(answer)
                return answer
        while True:
            answer = await self._next()
            if isinstance(answer, dict) and answer.get("id") == request["id"] and "method" not in answer:
                assert answer["jsonrpc"] == "2.0"
                assert len(answer.keys() & {"result", "error"}) == 1, answer
                return answer
            self.kept.append(answer)

    async def hear(self) -> Any:
        """The next message that was not an awaited answer. Raises `Ended`."""
        return self.kept.popleft() if self.kept else await self._next()

    async def hear_note(self, method: str) -> Any:
        """The params of the next message, which must be this notification."""
        heard = await self.hear()
        assert heard.keys() == {"jsonrpc", "method", "params"}, heard
        assert heard["jsonrpc"] == "2.0"
        assert heard["method"] == method, heard
        return heard["params"]

    async def hear_end(self) -> Ended:
        """The close frame, answered, and then the end of the connection; what comes before it is kept."""
        try:
            while True:
                self.kept.append(await self._next())
        except Ended as ended:
            return ended

    async def hear_fault(self) -> int | None:
        """The close code that a fault of ours earns. Does not wait for the server, which can no longer follow us."""
        self._hangs_up = True
        return (await self.hear_end()).code

    async def hear_goodbye(self) -> tuple[str, int | None, int | None]:
        """The reason and the `retry_after` of the `goodbye` that comes last, and the close code behind it."""
        ended = await self.hear_end()
        assert self.kept, f"closed with {ended} and no goodbye"
        goodbye = self.kept.pop()
        assert goodbye.keys() == {"jsonrpc", "method", "params"}, goodbye
        assert goodbye["method"] == "goodbye", goodbye
        assert goodbye["params"].keys() == {"reason", "retry_after"}
        return goodbye["params"]["reason"], goodbye["params"]["retry_after"], ended.code

    async def hear_ping(self) -> None:
        known = len(self.pings)
        with trio.fail_after(LIMIT_S):
            while len(self.pings) == known:
                await self._read()

    async def hear_pong(self) -> bytes:
        with trio.fail_after(LIMIT_S):
            while not self.pongs:
                await self._read()
        return self.pongs.pop(0)

    async def ping(self, payload: bytes = b"") -> None:
        """A ping and its pong: everything said before has arrived, and everything answered at once is here."""
        await self.send_bytes(frame(Opcode.PING, payload))
        assert await self.hear_pong() == payload

    async def _next(self) -> Any:
        with trio.fail_after(LIMIT_S):
            while not self._came:
                await self._read()
        return self._came.popleft()

    async def _read(self) -> None:
        if self.ended is not None:
            raise self.ended
        data = await self._receive()
        if not data:
            self.ended = Ended(None, "")
            raise self.ended
        closing = self._take(data)
        if closing is not None:
            self.ended = closing
            with suppress(trio.BrokenResourceError):
                await self.send_bytes(close(1000 if closing.code == 1005 else closing.code))
                while not self._hangs_up and await self._receive():
                    pass
            if self._hangs_up:
                await self.vanish()
            return
        while self.answers_pings and self._answered_pings < len(self.pings):
            self._answered_pings += 1
            await self.send_bytes(frame(Opcode.PONG, self.pings[self._answered_pings - 1]))

    async def _receive(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(65_536))
        except trio.BrokenResourceError:
            return b""

    def _take(self, data: bytes) -> Ended | None:
        self._frames.receive_bytes(data)
        for each in self._frames.received_frames():
            if each.opcode is Opcode.TEXT:
                self._pieces.append(str(each.payload))
                if each.message_finished:
                    self.texts.append("".join(self._pieces))
                    self._pieces.clear()
                    self._came.append(orjson.loads(self.texts[-1]))
            elif each.opcode is Opcode.PING:
                self.pings.append(bytes(each.payload))  # type: ignore[arg-type]
            elif each.opcode is Opcode.PONG:
                self.pongs.append(bytes(each.payload))  # type: ignore[arg-type]
            elif each.opcode is Opcode.CLOSE:
                assert isinstance(each.payload, tuple)
                return Ended(int(each.payload[0]), each.payload[1])
            else:
                raise AssertionError(f"a frame of the kind {each.opcode}")
        return None

    # --- Ending ------------------------------------------------------------------------------------------------------

    async def stay(self) -> None:
        """Gives signs of life, until cancelled or let go."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                await self.send_bytes(frame(Opcode.PONG))
                await trio.sleep(0.1)

    async def leave(self) -> None:
        """Closes as one should, and hears the server out."""
        await self.send_bytes(close())
        await self.hear_end()
        await self.vanish()

    async def reset(self) -> None:
        """Ends with an RST instead of a FIN."""
        assert isinstance(self.stream, trio.SocketStream)
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.vanish()

    async def vanish(self) -> None:
        """The connection ends without a word."""
        await trio.aclose_forcefully(self.stream)


def result_of(answer: dict[str, Any]) -> Any:
    if "error" in answer:
        raise Refusal(answer["error"])
    return answer["result"]


class Device(Peer):
    """A device on its visit."""

    def __init__(self, stream: trio.abc.Stream, answers_pings: bool = True) -> None:
        super().__init__(stream, answers_pings)
        self.welcome: dict[str, Any] = {}
        self.id = ""
        self.secret = ""

    async def connect(self, **params: object) -> dict[str, Any]:
        """Raises `Refusal`."""
        self.welcome = await self.call("connect", **params)
        self.id = self.welcome["registration_id"]
        self.secret = self.welcome.get("device_secret") or str(params.get("device_secret", ""))
        return self.welcome

    async def hear_message(self) -> dict[str, Any]:
        return await self.hear_note("message")  # type: ignore[no-any-return]

    async def hear_alerts(self, count: int) -> list[str]:
        return [(await self.hear_message())["notification"]["alert"] for _ in range(count)]

    async def told(self) -> None:
        """Everything this device has said was taken, and what followed from it is durable."""
        await self.call("alias.get")

    async def quiet(self) -> None:
        """Nothing has come that was not asked for."""
        await self.told()
        assert not self.kept, self.kept


class AppServer(Peer):
    async def push(self, audience: object = "all", **params: object) -> dict[str, Any]:
        content = {} if {"notification", "message"} & params.keys() else {"notification": HELLO}
        pushed: dict[str, Any] = await self.call("push", audience=audience, **content, **params)
        return pushed

    async def push_alert(self, alert: str, device: Device, **options: object) -> str:
        """A push to one device by its id; its `msg_id`."""
        audience = {"registration_id": [device.id]}
        pushed = await self.push(audience, notification={"alert": alert}, options=options)
        return str(pushed["msg_id"])

    async def report(self, msg_id: str) -> dict[str, Any]:
        """Checked: it adds up (C1)."""
        [report] = await self.call("report", msg_ids=[msg_id])
        return adding_up(report)

    async def state(self, msg_id: str, device: Device) -> str | None:
        """The state or verdict of one delivery (C19)."""
        statuses = await self.call("status", msg_id=msg_id, registration_ids=[device.id])
        state: str | None = statuses[device.id]["state"]
        return state

    async def until_state(self, msg_id: str, device: Device, state: str) -> None:
        async def is_so() -> bool:
            return await self.state(msg_id, device) == state

        await until_true(is_so, f"the state {state}")

    async def until_absent(self, device: Device) -> None:
        async def is_so() -> bool:
            presence = await self.call("presence", registration_ids=[device.id])
            return not presence[device.id]["online"]

        await until_true(is_so, "the device's absence")

    # --- Receipts ----------------------------------------------------------------------------------------------------

    async def subscribe(self, **params: object) -> str:
        """The cursor behind which the receipts begin. Raises `Refusal`."""
        answer = await self.call("receipts.subscribe", **params)
        assert answer.keys() == {"cursor"}
        return str(answer["cursor"])

    async def hear_frame(self) -> list[dict[str, Any]]:
        """The receipts of the next message, which must be a frame of them. Checked: each has its members, and their
        cursors are consecutive."""
        params = await self.hear_note("receipts")
        assert params.keys() == {"events", "cursor"}, params.keys()
        events: list[dict[str, Any]] = params["events"]
        assert 1 <= len(events) <= 4_000
        first = int(events[0]["cursor"])
        assert [each["cursor"] for each in events] == [str(first + place) for place in range(len(events))]
        assert params["cursor"] == events[-1]["cursor"]
        for each in events:
            extra = {"alias"} if each["registration_id"] is None else set()
            extra |= {"reason"} if each["event"] == "overdue" else set()
            assert each.keys() == {"cursor", "msg_id", "registration_id", "event", "at"} | extra, each
        return events

    async def hear_receipts(self, count: int, acknowledges: bool = True) -> list[dict[str, Any]]:
        """So many receipts, in however many frames, without a gap."""
        events: list[dict[str, Any]] = []
        while len(events) < count:
            frame = await self.hear_frame()
            assert not events or int(frame[0]["cursor"]) == int(events[-1]["cursor"]) + 1
            events += frame
            if acknowledges:
                await self.call("receipts.ack", cursor=frame[-1]["cursor"])
        assert len(events) == count, events
        return events

    async def quiet(self) -> None:
        """Nothing has come that was not asked for, though whatever is under way had its time."""
        await self.call("tags.list")
        await trio.testing.wait_all_tasks_blocked(0.02)
        await self.ping()
        assert not self.kept, self.kept
        assert not self._came, self._came


def adding_up(report: dict[str, Any]) -> dict[str, Any]:
    """`report`, whose numbers must add up (C1)."""
    assert report.keys() - {"sent_at"} == {"msg_id", "targets", "waiting", "sent", *VERDICTS, *MARKS}
    assert report["targets"] == sum(report[each] for each in ("waiting", "sent", *VERDICTS)), report
    assert min(value for name, value in report.items() if name != "msg_id") >= 0, report
    return report


# --- The node ----------------------------------------------------------------------------------------------------


class Wall:
    """A wall clock that a test can put forward."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> Millis:
        return Millis(wall_clock() + self.ahead_ms)

    def forward(self, seconds: float) -> None:
        self.ahead_ms += int(seconds * 1000)


class StubbornStore(MemoryStore):
    """A store in memory whose commits can be held up, and can fail for good."""

    def __init__(self, shared: MemoryDisk | None = None) -> None:
        super().__init__(shared)
        self.is_broken = False
        self._go_on = trio.Event()
        self._go_on.set()

    def hold(self) -> None:
        self._go_on = trio.Event()

    def go_on(self) -> None:
        self._go_on.set()

    async def commit(self, number: int, changes: Sequence[Change]) -> int:
        await self._go_on.wait()
        if self.is_broken:
            raise StoreUnusable("The test has broken this store.")
        return await super().commit(number, changes)


class House:
    """A running node, and the way in."""

    def __init__(self, node: Node, plan: NodePlan, apps: list[AppPlan], store: Store, wall: Wall) -> None:
        self.node = node
        self.plan = plan
        self.apps = apps
        self.store = store
        self.wall = wall
        self.peers: list[Peer] = []
        self._ports = {
            "devices": plan.devices.listening.getsockname()[1],
            "apps": plan.apps.listening.getsockname()[1],
            "operations": plan.operations.listening.getsockname()[1],
        }

    async def empty(self) -> None:
        """Whatever is still connected goes."""
        for peer in self.peers:
            await peer.vanish()

    def rows_ahead(self, key: AppKey = APP) -> int:
        """What that app has decided and not yet durable; while it is too much, the edges do not read on."""
        app = self.node._apps.find(key)
        assert app is not None
        return app.tenant.book._rows_ahead

    def shut(self) -> None:
        """Closes the doors of a node that did not come to do it itself."""
        for door in (self.plan.devices, self.plan.apps, self.plan.operations):
            door.listening.close()

    def port(self, door: str) -> int:
        return int(self._ports[door])

    async def stream(
        self, door: str = "devices", source: str = "127.0.0.1", is_narrow: bool = False
    ) -> trio.SocketStream:
        """A bare connection. Narrow: the operating system keeps next to nothing of what is not read."""
        sock = trio.socket.socket()
        if is_narrow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        try:
            await sock.bind((source, 0))
            with trio.fail_after(LIMIT_S):
                await sock.connect(("127.0.0.1", self.port(door)))
        except OSError:
            sock.close()
            raise
        stream = trio.SocketStream(sock)
        self.peers.append(Peer(stream))
        return stream

    async def tls_stream(self, door: str = "devices") -> trio.SSLStream[trio.SocketStream]:
        context = ssl.create_default_context(cafile=str(PEM))
        secured = trio.SSLStream(await self.stream(door), context, server_hostname="localhost", https_compatible=True)
        with trio.fail_after(LIMIT_S):
            await secured.do_handshake()
        return secured

    async def knock(
        self, door: str, path: str, headers: dict[str, str] | None = None, host: str = "localhost"
    ) -> Peer:
        """A peer whose handshake was answered, whatever the answer."""
        peer = Peer(await self.stream(door))
        await peer.knock(path, headers, host)
        return peer

    async def visitor(
        self, answers_pings: bool = True, source: str = "127.0.0.1", is_narrow: bool = False
    ) -> Device:
        """A device that has not said anything yet."""
        device = Device(await self.stream("devices", source, is_narrow), answers_pings)
        await device.knock("/device")
        assert device.status == 101
        return device

    async def device(
        self, *, answers_pings: bool = True, source: str = "127.0.0.1", is_narrow: bool = False, **params: Any
    ) -> Device:
        """A device on a visit. Raises `Refusal`."""
        device = await self.visitor(answers_pings, source, is_narrow)
        await device.connect(**{"app_key": APP, **params})
        return device

    async def back(self, earlier: Device, *, answers_pings: bool = True, **params: Any) -> Device:
        """The same device on another visit."""
        credentials = {"registration_id": earlier.id, "device_secret": earlier.secret}
        return await self.device(answers_pings=answers_pings, **{**credentials, **params})

    async def app(self, key: str = APP, secret: str = SECRET) -> AppServer:
        server = AppServer(await self.stream("apps"))
        await server.knock("/app", basic(key, secret))
        assert server.status == 101
        return server

    async def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        """The status and the body that operators get."""
        peer = Peer(await self.stream("operations"))
        await peer.send_bytes(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await peer.hear_head()
        return peer.status, peer.body.decode()

    async def absent(self, **params: Any) -> Device:
        """A device that was here and has left."""
        device = await self.device(**params)
        await device.leave()
        app = await self.app(str(params.get("app_key", APP)), secret_of(params.get("app_key", APP)))
        await app.until_absent(device)
        await app.leave()
        return device


def secret_of(key: object) -> str:
    return SECRET if key == APP else OTHER_SECRET


def doors(
    tls: ssl.SSLContext | None = None, max_connections: int = 1_000, max_per_address: int = 1_000
) -> list[DoorPlan]:
    """Three doors on free ports."""
    return [
        DoorPlan(bind("127.0.0.1", 0, name), max_connections, max_per_address, tls if name != "operations" else None)
        for name in ("devices", "apps", "operations")
    ]


def tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(PEM)
    return context


def app_plans(limits: Limits | None = None, **changes: Any) -> list[AppPlan]:
    """The app, changed so, and another one beside it."""
    plan = AppPlan(APP, (SECRET,), limits if limits is not None else Limits())
    return [replace(plan, **changes), AppPlan(OTHER, (OTHER_SECRET,), Limits())]


def a_house(
    *,
    store: Store | None = None,
    apps: Iterable[AppPlan] | None = None,
    limits: Limits | None = None,
    heartbeat_s: float = 30,
    ack_timeout_s: float = 60,
    connect_timeout_s: float = 10,
    outgoing_buffer_bytes: int = 262_144,
    origins: Iterable[str] = (),
    max_connections: int = 1_000,
    max_per_address: int = 1_000,
    tls: bool = False,
    wall: Wall | None = None,
    randomness: Callable[[int], bytes] = secrets.token_bytes,
    **plan_changes: Any,
) -> House:
    """A node that does not run yet, with the product's own defaults where nothing is said."""
    devices, apps_door, operations = doors(tls_context() if tls else None, max_connections, max_per_address)
    device_limits = DeviceLimits(
        connect_timeout_s, heartbeat_s, ack_timeout_s, outgoing_buffer_bytes, frozenset(origins)
    )
    plan = NodePlan(devices, apps_door, operations, device_limits, **plan_changes)
    store = store if store is not None else MemoryStore()
    wall = wall if wall is not None else Wall()
    plans = list(apps) if apps is not None else app_plans(limits)
    return House(Node(store, plan, wall, randomness), plan, plans, store, wall)


@asynccontextmanager
async def serving(**changes: Any) -> AsyncIterator[House]:
    """A node that serves: `a_house`, opened. At the end it is cut off, as by `kill -9`."""
    house = a_house(**changes)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(LIMIT_S):
            await nursery.start(house.node.run, house.apps)
        try:
            yield house
        finally:
            with trio.CancelScope(shield=True):
                await house.empty()
            nursery.cancel_scope.cancel()

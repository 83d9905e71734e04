"""The real thing: `pushactors` as processes of their own, and a WebSocket without a library to look at the wire with.

1. Whatever a test does, every process started here is killed by its id when the test ends.
2. Ports are looked for below those that the kernel gives to outgoing connections: a client that calls a stopped
   server again and again would otherwise meet itself one day, and hold the port.
3. Nothing here depends on how long something takes: `LIMIT_S` turns a test that would wait for ever into a failing one.
"""

from __future__ import annotations

import base64
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson
import trio
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode

from pushactors import AppClient, DeviceClient
from pushactors.clients.backoff import Backoff

T = TypeVar("T")
ROOT = Path(__file__).parent.parent.parent
PEM = ROOT / "tests" / "localhost.pem"
LIMIT_S = 30.0
LOOK_AGAIN_S = 0.01
APP_KEY, MASTER_SECRET = "the-app", "the-master-secret-of-it"

_SCRIPT = Path(sys.executable).parent / "pushactors"
COMMAND = (
    [str(_SCRIPT)]
    if _SCRIPT.exists()
    else [sys.executable, "-c", "from pushactors.cli import main; raise SystemExit(main())"]
)
# Of this checkout, whatever is installed.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def free_ports(count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


async def until(condition: Callable[[], bool], what: str, within_s: float = LIMIT_S) -> None:
    with trio.move_on_after(within_s) as limit:
        while not condition():  # noqa: ASYNC110 - what another process brings about sets no event
            await trio.sleep(LOOK_AGAIN_S)
    assert not limit.cancelled_caught, f"{what} did not come about within {within_s} s"


async def until_true(ask: Callable[[], Awaitable[bool]], what: str, within_s: float = LIMIT_S) -> None:
    with trio.move_on_after(within_s) as limit:
        while not await ask():  # noqa: ASYNC110
            await trio.sleep(LOOK_AGAIN_S)
    assert not limit.cancelled_caught, f"{what} did not come about within {within_s} s"


async def soon(waits: Awaitable[T]) -> T:
    """What it brings, if that takes no longer than `LIMIT_S`."""
    with trio.fail_after(LIMIT_S):
        return await waits


# --- Commands ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str


async def run(*arguments: str, folder: Path, stdin: str = "") -> Finished:
    """Runs the command to its end."""
    with trio.fail_after(LIMIT_S):
        done = await trio.run_process(
            [*COMMAND, *arguments],
            stdin=stdin.encode(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=folder,
            env=ENVIRONMENT,
        )
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


class Process:
    """A command that stays. What it says is kept in files, so that it never waits for us."""

    def __init__(self, folder: Path, name: str, *arguments: str, command: list[str] | None = None) -> None:
        self._out, self._err = folder / f"{name}.out", folder / f"{name}.err"
        with self._out.open("ab") as out, self._err.open("ab") as err:
            self._process = subprocess.Popen(
                [*(command or COMMAND), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                env=ENVIRONMENT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def signal(self, which: signal.Signals) -> None:
        self._process.send_signal(which)

    def kill(self) -> None:
        """`kill -9`, whatever it is doing; returns when it is gone."""
        self._process.kill()
        self._process.wait()

    async def ended(self, within_s: float = LIMIT_S) -> int:
        """Its exit code, when it has ended by itself."""
        await until(lambda: self.is_over, "the end of the process", within_s)
        return self._process.wait()


# --- The server --------------------------------------------------------------------------------------------------


class Server:
    """`pushactors serve` in a folder of its own, with a configuration of its own, as often as it is started."""

    def __init__(self, folder: Path, *tables: str, app: str = "", tls: bool = False) -> None:
        """`tables`: added to the configuration. `app`: added to its app."""
        self.folder = folder
        self.file = folder / "pushactors.toml"
        self.tables = tables
        self.ports = dict(zip(("devices", "apps", "operations"), free_ports(3), strict=True))
        self.tls = tls
        self.process: Process | None = None
        self.write(self.app(more=app))

    @staticmethod
    def app(key: str = APP_KEY, secret: str = MASTER_SECRET, more: str = "") -> str:
        return f'[[app]]\napp_key = "{key}"\nmaster_secret = "{secret}"\n{more}\n'

    def write(self, *apps: str) -> None:
        """The configuration, with these apps."""
        listen = [f'{door} = "127.0.0.1:{port}"' for door, port in self.ports.items()]
        tls = [f'[tls]\ncertificate = "{PEM}"\nkey = "{PEM}"'] if self.tls else []
        self.file.write_text("\n".join(["[listen]", *listen, *tls, *self.tables, *apps]))

    async def start(self) -> None:
        """Returns when it takes pushes."""
        self.process = Process(self.folder, "server", "serve", "--config", str(self.file))
        await until_true(self._is_ready, "the start of the server")

    async def _is_ready(self) -> bool:
        assert self.process is not None
        assert not self.process.is_over, f"The server ended: {self.process.err}"
        try:
            status, _ = await self.look("/readyz")
        except OSError:
            return False
        return status == 200

    async def look(self, path: str) -> tuple[int, str]:
        """The status and the body of an answer of the operations endpoint."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.ports["operations"])
        async with stream:
            try:
                await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                answer = b"".join([chunk async for chunk in stream])
            except trio.BrokenResourceError as error:
                raise ConnectionError from error
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head:
            raise ConnectionError("no answer")
        return int(head.split()[1]), body.decode()

    async def metric(self, name: str) -> float:
        """The value of a metric as `/metrics` shows it, by its whole name with labels; 0 if it is not there."""
        _, body = await self.look("/metrics")
        found = [line.rpartition(" ")[2] for line in body.splitlines() if line.startswith(f"{name} ")]
        return float(found[0]) if found else 0.0

    def kill(self) -> None:
        """`kill -9`."""
        if self.process is not None:
            self.process.kill()
            self.process = None

    def signal(self, which: signal.Signals) -> None:
        assert self.process is not None
        self.process.signal(which)

    async def ended(self, within_s: float = LIMIT_S) -> int:
        assert self.process is not None
        code = await self.process.ended(within_s)
        self.process = None
        return code

    @property
    def err(self) -> str:
        """What all its runs have said."""
        return (self.folder / "server.err").read_text()

    async def read_apps_again(self) -> None:
        """SIGHUP; returns when it has been obeyed, one way or the other."""
        lines = ("The apps were read again.", "The apps were not read again")

        def answers() -> int:
            return sum(self.err.count(line) for line in lines)

        before = answers()
        self.signal(signal.SIGHUP)
        await until(lambda: answers() > before, "the answer to SIGHUP")

    # --- Its clients -------------------------------------------------------------------------------------------------

    @property
    def devices_url(self) -> str:
        return f"{'wss' if self.tls else 'ws'}://127.0.0.1:{self.ports['devices']}/device"

    @property
    def apps_url(self) -> str:
        return f"{'wss' if self.tls else 'ws'}://127.0.0.1:{self.ports['apps']}/app"

    def app_client(self, key: str = APP_KEY, secret: str = MASTER_SECRET, **more: Any) -> AppClient:
        return AppClient(self.apps_url, key, secret, backoff=quick(), **more)

    def device_client(self, name: str | None = None, key: str = APP_KEY, **more: Any) -> DeviceClient:
        """`name`: of its identity file. None: a new device each time."""
        identity = None if name is None else self.folder / f"{name}.json"
        return DeviceClient(self.devices_url, key, identity=identity, backoff=quick(), **more)

    async def device_wire(self) -> Wire:
        return await Wire.open(self.ports["devices"], "/device")

    async def app_wire(self) -> Wire:
        credentials = base64.b64encode(f"{APP_KEY}:{MASTER_SECRET}".encode()).decode()
        return await Wire.open(self.ports["apps"], "/app", {"Authorization": f"Basic {credentials}"})

    async def run(self, *arguments: str, stdin: str = "") -> Finished:
        """A command in the folder of the configuration."""
        return await run(*arguments, folder=self.folder, stdin=stdin)


def quick() -> Backoff:
    return Backoff(base_s=0.02, cap_s=0.1)


# --- The wire ----------------------------------------------------------------------------------------------------


class Ended(Exception):
    """The connection has ended: `code` None without a close frame."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Refusal(Exception):
    """The error object of an answer."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(error["message"])
        self.code: int = error["code"]
        self.data: Mapping[str, Any] = error["data"]


class Wire:
    """A client's end of a WebSocket connection, frame by frame."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._frames = FrameProtocol(True, [])
        self._came: list[dict[str, Any]] = []
        self._text = ""
        self._last_id = 0
        self.notes: list[dict[str, Any]] = []
        """Notifications that came while an answer was waited for, in order."""

    @classmethod
    async def open(cls, port: int, path: str, headers: Mapping[str, str] | None = None) -> Wire:
        """Raises `Ended` if there is no connection."""
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError as error:
            raise Ended(None, str(error)) from None
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: localhost",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        wire = cls(stream)
        try:
            await wire._send("\r\n".join([*lines, "", ""]).encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += await wire._receive()
        except BaseException:
            await wire.abort()
            raise
        head, _, behind = head.partition(b"\r\n\r\n")
        status = head.split(b" ")[1].decode()
        if status != "101":
            await wire.abort()
            raise Ended(None, f"HTTP {status}")
        wire._frames.receive_bytes(behind)
        return wire

    async def _send(self, data: bytes | bytearray) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as broken:
            raise Ended(None, "broken") from broken

    async def _receive(self) -> bytes:
        try:
            data = await self._stream.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as broken:
            raise Ended(None, "broken") from broken
        if not data:
            raise Ended(None, "no close frame")
        return bytes(data)

    async def abort(self) -> None:
        """Hangs up without a word."""
        await trio.aclose_forcefully(self._stream)

    async def send(self, message: object) -> None:
        await self._send(self._frames.send_data(orjson.dumps(message).decode()))

    async def tell(self, method: str, **params: object) -> None:
        await self.send({"jsonrpc": "2.0", "method": method, "params": params})

    async def request(self, method: str, **params: object) -> int:
        """Asks, and returns the id of the question."""
        self._last_id += 1
        await self.send({"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params})
        return self._last_id

    async def receive(self) -> dict[str, Any]:
        """The next message. Raises `Ended`."""
        with trio.fail_after(LIMIT_S):
            return await self._next()

    async def _next(self) -> dict[str, Any]:
        while True:
            for frame in self._frames.received_frames():
                if frame.opcode is Opcode.TEXT:
                    self._text += str(frame.payload)
                    if frame.message_finished:
                        self._came.append(orjson.loads(self._text))
                        self._text = ""
                elif frame.opcode is Opcode.PING:
                    await self._send(self._frames.pong(bytes(frame.payload)))  # type: ignore[arg-type]
                elif frame.opcode is Opcode.CLOSE:
                    self._came.append({"closed": frame.payload})
            if self._came:
                message = self._came.pop(0)
                if "closed" in message:
                    code, reason = message["closed"]
                    await self._send(self._frames.close(CloseReason.NORMAL_CLOSURE))
                    await self.abort()
                    raise Ended(int(code), reason or "")
                return message
            self._frames.receive_bytes(await self._receive())

    async def ask(self, method: str, **params: object) -> Any:
        """The result. Raises `Refusal`, `Ended`."""
        asked = await self.request(method, **params)
        while True:
            message = await self.receive()
            if message.get("id") == asked:
                if "error" in message:
                    raise Refusal(message["error"])
                return message["result"]
            self.notes.append(message)

    async def note(self) -> dict[str, Any]:
        """The next notification."""
        return self.notes.pop(0) if self.notes else await self.receive()

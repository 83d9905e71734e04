"""Hostile peers, all on loopback and all bounded: a good visit does not notice, and afterwards nothing is left of them.

What is measured is what C24 promises: nobody else waits long for a push, the tasks are as many as before, and memory
has not grown beyond what the limits allow. Attackers and node share one process, so the bounds on memory are wide.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
import trio.testing
from wsproto.frame_protocol import Opcode

from pushactors.actors import unit
from pushactors.actors.tenant import Limits
from pushactors.edges import connection
from tests.edges.serving import (
    APP,
    HELLO,
    LIMIT_S,
    SECRET,
    AppServer,
    Device,
    House,
    Peer,
    Refusal,
    StubbornStore,
    adding_up,
    basic,
    close,
    frame,
    resident_bytes,
    serving,
    text,
    until,
)

GENEROUS_S = 8.0
GROWTH_BYTES = 64 << 20
PEAK_BYTES = 192 << 20
MANY = 20
FLOOD_S = 1.0
HEAD = (
    b"GET /device HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.fixture(autouse=True)
def _short_farewells(monkeypatch: pytest.MonkeyPatch) -> None:
    # Only so that this takes less time; how long a farewell is belongs to `test_connection.py`.
    monkeypatch.setattr(connection, "FAREWELL_S", 0.5)


@dataclass
class Siege:
    """A node with one good visit and one good app session, both of which must not notice."""

    house: House
    good: Device
    app: AppServer
    tasks: int = 0
    memory: int = 0
    peak: int = 0
    slowest_s: float = 0.0
    pushed: int = field(default=0)

    async def push(self) -> None:
        """A push to the good visit, which must come soon."""
        began = trio.current_time()
        with trio.fail_after(GENEROUS_S):
            pushed = await self.app.push({"registration_id": [self.good.id]})
            while (await self.good.hear_message())["msg_id"] != pushed["msg_id"]:
                pass
            await self.good.note("received", msg_id=pushed["msg_id"])
        self.slowest_s = max(self.slowest_s, trio.current_time() - began)
        self.pushed += 1

    async def watch(self) -> None:
        while True:
            self.peak = max(self.peak, resident_bytes())
            await self.push()
            await trio.sleep(0.02)


@asynccontextmanager
async def siege(**changes: Any) -> AsyncIterator[Siege]:
    """What happens inside must be over, and without a trace, at the end."""
    limits = {"heartbeat_s": 2.0, "connect_timeout_s": 0.5, "ack_timeout_s": 1.0, **changes}
    async with serving(**limits) as house, trio.open_nursery() as nursery:
        siege = Siege(house, await house.device(alias="good"), await house.app())
        nursery.start_soon(siege.good.stay)
        nursery.start_soon(siege.app.stay)
        await siege.push()
        siege.memory, siege.tasks = resident_bytes(), tasks_living()
        async with trio.open_nursery() as watching:
            watching.start_soon(siege.watch)
            yield siege
            watching.cancel_scope.cancel()
        await siege.push()
        await until(lambda: tasks_living() <= siege.tasks, f"the return to {siege.tasks} tasks")
        assert siege.peak - siege.memory < PEAK_BYTES
        assert resident_bytes() - siege.memory < GROWTH_BYTES
        assert (await house.get("/healthz"))[0] == 200
        assert house.node.tally.read("faults", "visit") == 0
        assert house.node.tally.read("actor_crashes") == 0
        nursery.cancel_scope.cancel()


def tasks_living() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def let_go(stream: trio.abc.Stream) -> None:
    """Returns when the server has let go of the connection; what it says before is passed over."""
    with trio.fail_after(LIMIT_S), suppress(trio.BrokenResourceError):
        while await stream.receive_some(65_536):
            pass


async def reset(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await trio.aclose_forcefully(stream)


async def at_once(attack: Callable[[], Awaitable[None]], count: int = MANY) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(attack)


async def send(stream: trio.abc.Stream, data: bytes) -> None:
    """Sends as much as the server wants to hear."""
    with suppress(trio.BrokenResourceError), trio.move_on_after(2):
        await stream.send_all(data)


async def flood(stream: trio.abc.Stream, data: bytes) -> None:
    """Sends it again and again, until cancelled or let go."""
    with suppress(trio.BrokenResourceError):
        while True:
            await stream.send_all(data)


# --- Handshakes --------------------------------------------------------------------------------------------------

BAD_REQUESTS = {
    "a host that is no text": HEAD.replace(b"localhost", b"\xff") + b"\r\n",
    "a connection header that is no ASCII": HEAD.replace(b"Connection: Upgrade", "Connection: é".encode()) + b"\r\n",
    "an upgrade header that is no ASCII": HEAD.replace(b"websocket", b"\xff", 1) + b"\r\n",
    "a key that is no ASCII": HEAD.replace(b"dGhl", b"\xff") + b"\r\n",
    "an origin that is no ASCII": HEAD + b"Origin: \xff\r\n\r\n",
    "an origin that is no address": HEAD + b"Origin: http://[\r\n\r\n",
    "a subprotocol that is no ASCII": HEAD + b"Sec-WebSocket-Protocol: \xff\r\n\r\n",
    "an extension that is no ASCII": HEAD + b"Sec-WebSocket-Extensions: \xff\r\n\r\n",
    "an authorization that is no ASCII": HEAD.replace(b"/device", b"/app") + b"Authorization: Basic \xff\r\n\r\n",
    "a path that is no ASCII": HEAD.replace(b"/device", b"/\xff") + b"\r\n",
    "a path that is no address": HEAD.replace(b"/device", b"//[") + b"\r\n",
    "HTTP/1.0": HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n",
    "no upgrade": b"GET /device HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a body": HEAD + b"Content-Length: 1000000\r\n\r\n" + b"x" * 100_000,
    "chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"ffff\r\n" + b"x" * 65_535,
    "no HTTP at all": b"\x00\x01\x02\x03" * 1_000 + b"\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
    "a large header": HEAD + b"X: " + b"y" * 1_000_000 + b"\r\n\r\n",
    "many headers": HEAD + b"X: y\r\n" * 100_000 + b"\r\n",
    "half a request": HEAD,
    "nothing": b"",
}


@pytest.mark.parametrize("door", ["devices", "apps"])
@pytest.mark.parametrize("how", ["reset", "close", "stay"])
async def test_bad_handshakes_end_alone(door: str, how: str) -> None:
    async with siege() as held:

        async def attack(request: bytes) -> None:
            stream = await held.house.stream(door)
            await send(stream, request)
            match how:
                case "reset":
                    await reset(stream)
                case "close":
                    await stream.aclose()
                case _:
                    await let_go(stream)

        async with trio.open_nursery() as nursery:
            for request in BAD_REQUESTS.values():
                for _ in range(2):
                    nursery.start_soon(attack, request)


async def test_who_drips_its_request_is_let_go_in_time() -> None:
    async with siege() as held:

        async def attack() -> None:
            stream = await held.house.stream()
            with suppress(trio.BrokenResourceError), trio.fail_after(LIMIT_S):
                for byte in HEAD * 100:
                    await stream.send_all(bytes([byte]))
                    await trio.sleep(0.02)

        await at_once(attack)


async def test_who_opens_connections_and_says_nothing_is_let_go_in_time() -> None:
    async with siege() as held:
        streams = [await held.house.stream(("devices", "apps")[number % 2]) for number in range(100)]
        for stream in streams:
            await let_go(stream)


async def test_who_comes_and_goes_at_once_leaves_nothing() -> None:
    async with siege() as held:
        for number in range(300):
            stream = await held.house.stream(("devices", "apps", "operations")[number % 3])
            await reset(stream)


async def test_wrong_passwords_let_nobody_in_and_hold_nobody_up() -> None:
    async with siege() as held:

        async def attack() -> None:
            for number in range(5):
                answer = await held.house.knock("apps", "/app", basic(APP, f"guess-{number}"))
                assert answer.status == 401

        await at_once(attack)
        assert len(held.house.node._app_endpoint) == 1


async def test_garbage_at_the_operators_door_ends_alone() -> None:
    async with siege() as held:

        async def attack(data: bytes) -> None:
            stream = await held.house.stream("operations")
            await send(stream, data)
            with suppress(trio.BrokenResourceError):
                await stream.send_eof()
            await let_go(stream)

        async with trio.open_nursery() as nursery:
            for data in (*BAD_REQUESTS.values(), b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n"):
                nursery.start_soon(attack, data)


async def test_garbage_at_a_door_with_tls_ends_alone() -> None:
    async with serving(tls=True, connect_timeout_s=0.5) as house:
        good = Device(await house.tls_stream())
        await good.knock("/device")
        await good.connect(app_key=APP)
        before = tasks_living()

        async def attack(data: bytes, resets: bool) -> None:
            stream = await house.stream()
            await send(stream, data)
            if resets:
                await reset(stream)
            else:
                await let_go(stream)

        async def attack_within() -> None:
            stream = await house.stream()
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            secured = trio.SSLStream(stream, context, https_compatible=True)
            await secured.do_handshake()
            # Behind a proper handshake, bytes that are no TLS.
            await send(stream, b"\x17\x03\x03\x00\x10" + b"x" * 16 + b"garbage")
            await let_go(stream)

        async with trio.open_nursery() as nursery:
            for data in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 70_000, b"\x00" * 100_000):
                for resets in (True, False):
                    nursery.start_soon(attack, data, resets)
            nursery.start_soon(attack_within)
        assert await good.call("alias.get") == {"alias": None}
        await until(lambda: tasks_living() <= before)
        await good.leave()


# --- Frames ------------------------------------------------------------------------------------------------------

BAD_FRAMES = {
    "garbage": bytes(range(256)) * 400,
    "zeros": b"\x00" * 100_000,
    "ones": b"\xff" * 100_000,
    "no mask": frame(Opcode.TEXT, b"{}", mask=None) * 1_000,
    "an endless length": b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xffmask" + b"x" * 100_000,
    "a message that is too big": frame(Opcode.TEXT, b"x" * 2_000_000),
    "a message that is too big in pieces": frame(Opcode.TEXT, b"x" * 1_000, fin=False)
    + frame(Opcode.CONTINUATION, b"x" * 1_000, fin=False) * 2_000,
    "endless empty fragments": frame(Opcode.TEXT, fin=False) + frame(Opcode.CONTINUATION, fin=False) * 50_000,
    "binary": frame(Opcode.BINARY, b"\x00" * 100),
    "endless binary": frame(Opcode.BINARY, b"\x00" * 1_000_000, fin=False),
    "no UTF-8": frame(Opcode.TEXT, b"\xff" * 100),
    "a long ping": frame(Opcode.PING, b"x" * 126),
    "a bad close": frame(Opcode.CLOSE, b"\x03"),
    "100,000 brackets": frame(Opcode.TEXT, b"[" * 100_000),
    "8,000 brackets and their ends": frame(Opcode.TEXT, b"[" * 4_000 + b"]" * 4_000),
    "many numbers": frame(Opcode.TEXT, b"[" + b"1e5," * 2_000 + b"1]"),
    "a long number": frame(Opcode.TEXT, b'{"jsonrpc":"2.0","id":' + b"9" * 8_000 + b"}"),
    "a long name": frame(Opcode.TEXT, b'{"jsonrpc":"2.0","id":1,"method":"' + b"x" * 8_000 + b'"}'),
}


KINDS = ["visitor", "visit", "session"]


async def peer_of(house: House, kind: str) -> Peer:
    """A stranger after its handshake, a device on a visit, or an app server."""
    match kind:
        case "visitor":
            return await house.visitor()
        case "visit":
            return await house.device()
        case _:
            return await house.app()


@pytest.mark.parametrize("how", ["reset", "vanish"])
@pytest.mark.parametrize("kind", KINDS)
async def test_bad_frames_end_alone(kind: str, how: str) -> None:
    async with siege(connect_timeout_s=5) as held:

        async def attack(data: bytes) -> None:
            peer = await peer_of(held.house, kind)
            await send(peer.stream, data)
            await (peer.reset() if how == "reset" else peer.vanish())

        async with trio.open_nursery() as nursery:
            for data in BAD_FRAMES.values():
                nursery.start_soon(attack, data)


@pytest.mark.parametrize("last", [frame(Opcode.BINARY), close()], ids=["fault", "close"])
async def test_what_is_followed_by_silence_is_let_go_in_time(last: bytes) -> None:
    async with siege(connect_timeout_s=5) as held:

        async def attack(kind: str) -> None:
            peer = await peer_of(held.house, kind)
            await peer.send_bytes(last)
            await let_go(peer.stream)

        async with trio.open_nursery() as nursery:
            for kind in KINDS * 6:
                nursery.start_soon(attack, kind)


async def test_a_visit_that_the_server_ends_and_that_does_not_close_is_let_go_in_time() -> None:
    async with siege() as held:

        async def attack() -> None:
            device = await held.house.device()
            await device.send_bytes(text(device.request("unregister")))
            await let_go(device.stream)

        await at_once(attack)


@pytest.mark.parametrize("reads", [True, False], ids=["reading", "not reading"])
async def test_a_flood_of_pings_ends_alone(reads: bool) -> None:
    async with siege(connect_timeout_s=5) as held:
        pings = frame(Opcode.PING, b"x" * 125) * 200

        async def attack(kind: str) -> None:
            peer = await peer_of(held.house, kind)
            with trio.move_on_after(FLOOD_S):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(flood, peer.stream, pings)
                    if reads:
                        nursery.start_soon(let_go, peer.stream)
            await peer.vanish()

        async with trio.open_nursery() as nursery:
            for kind in KINDS:
                nursery.start_soon(attack, kind)


async def test_a_flood_of_requests_holds_nobody_up() -> None:
    async with siege() as held:

        async def attack() -> None:
            device = await held.house.device()
            requests = text({"jsonrpc": "2.0", "id": 1, "method": "tags.get"}) * 200
            with trio.move_on_after(FLOOD_S):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(let_go, device.stream)
                    nursery.start_soon(flood, device.stream, requests)
            await device.vanish()

        await at_once(attack, 3)


async def test_a_flood_of_reports_holds_nobody_up() -> None:
    async with siege() as held:
        pusher = await held.house.app()
        ids = [(await pusher.push("all"))["msg_id"]]
        await pusher.leave()
        report = {"jsonrpc": "2.0", "id": 1, "method": "report", "params": {"msg_ids": ids * 100}}

        async def attack() -> None:
            app = await held.house.app()
            await app.send_bytes(text([report] * 50))
            with suppress(trio.TooSlowError):
                await app.hear()
            await app.vanish()

        await at_once(attack, 3)


# --- Visits ------------------------------------------------------------------------------------------------------


async def test_a_second_connect_is_refused_and_the_visit_goes_on() -> None:
    async with siege() as held:
        device = await held.house.device()
        for _ in range(100):
            answer = await device.ask("connect", {"app_key": APP})
            assert answer["error"]["code"] == -32601
        assert await device.call("alias.get") == {"alias": None}
        await device.leave()


async def test_connects_that_displace_each_other_leave_one_visit() -> None:
    async with siege() as held:
        device = await held.house.device()
        for _ in range(100):
            device = await held.house.back(device)
        assert len(held.house.node._device_endpoint) <= 1 + 1 + 100
        await device.quiet()
        await device.vanish()
        for peer in held.house.peers[2:]:
            await peer.vanish()


async def test_devices_that_never_read_while_messages_are_pushed_to_them_end_alone() -> None:
    limits = Limits(window=1_024, backlog_limit=256)
    async with siege(limits=limits, outgoing_buffer_bytes=100_000, heartbeat_s=1.0) as held:
        house, endpoint = held.house, held.house.node._device_endpoint
        deaf = [await house.device(tags=["deaf"], is_narrow=True) for _ in range(5)]
        pusher = await house.app()
        params = [
            {"audience": {"tag": ["deaf"]}, "message": {"msg_content": "x" * 3_900}, "options": {"time_to_live": each}}
            for each in (0, 600)
        ]

        async def push_until_they_are_gone() -> None:
            while len(endpoint) > 1:
                requests = [pusher.request("push", params[number % 2]) for number in range(50)]
                await pusher.say(*requests)
                for request in requests:
                    await pusher.answer_to(request)
                for visit, _ in endpoint._visits.values():
                    assert visit._connection.stream.outgoing_bytes <= 100_000 + 8_192

        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                for device in deaf:
                    # They are alive, and say so; they just do not read.
                    nursery.start_soon(device.stay)
                await push_until_they_are_gone()
                nursery.cancel_scope.cancel()
        assert house.node.tally.read("visits_ended", "too_slow") == 5
        for push in (await pusher.call("pushes.list"))["pushes"]:
            adding_up(push)
        for device in deaf:
            await device.vanish()
        await pusher.leave()


async def test_devices_that_never_acknowledge_end_alone() -> None:
    async with siege(limits=Limits(window=2)) as held:

        async def attack() -> None:
            device = await held.house.device(tags=["mute"])
            mute.append(device)
            reason, _, code = await device.hear_goodbye()
            assert (reason, code) == ("too_slow", 4002)
            assert len(device.kept) == 2

        mute: list[Device] = []
        async with trio.open_nursery() as nursery:
            for _ in range(MANY):
                nursery.start_soon(attack)
            await until(lambda: len(mute) == MANY and all(device.id for device in mute))
            for _ in range(5):
                await held.house.node._apps.all()[0].tenant.book.room()
                pusher = await held.house.app()
                await pusher.push({"tag": ["mute"]})
                await pusher.leave()


async def test_who_registers_without_end_is_held_up_and_nobody_else() -> None:
    async with siege(registrations_burst=30, registrations_per_s=1, connect_timeout_s=10) as held:
        refused = 0

        async def attack() -> None:
            nonlocal refused
            try:
                device = await held.house.device(source="127.0.0.66")
            except Refusal as refusal:
                assert refusal.name == "rate_limited"  # noqa: PT017 - both outcomes are right
                refused += 1
            else:
                await device.vanish()

        await at_once(attack, 100)
        assert refused >= 60
        # From elsewhere one may still register.
        await (await held.house.device()).vanish()


async def test_a_flood_of_marks_is_not_read_faster_than_the_disk_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit, "ROWS_DECIDED_AHEAD", 500)
    store = StubbornStore()
    async with serving(store=store) as house:
        device = await house.device()
        store.hold()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                marks = [
                    {"jsonrpc": "2.0", "method": "opened", "params": {"msg_id": str(each + 1)}} for each in range(400)
                ]
                nursery.start_soon(device.say, *marks)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert house.rows_ahead() <= 600
            store.go_on()
        await device.told()


async def test_a_flood_that_settles_nothing_leaves_nothing_on_the_disk(house: House) -> None:
    device = await house.device()
    disk = house.store._shared  # type: ignore[attr-defined]
    before = len(disk.pushes), len(disk.devices), len(disk.mailboxes)
    for note in ("received", "declined", "opened", "dismissed", "withdrawn"):
        await device.say(
            *[{"jsonrpc": "2.0", "method": note, "params": {"msg_id": str(number)}} for number in range(1, 200)]
        )
    await device.told()
    assert (len(disk.pushes), len(disk.devices), len(disk.mailboxes)) == before


# --- Too many ----------------------------------------------------------------------------------------------------


async def test_above_the_limit_of_connections_nobody_is_heard_and_those_within_it_go_on() -> None:
    async with siege(max_connections=20) as held:
        streams = [await held.house.stream() for _ in range(60)]
        await until(lambda: held.house.node.tally.read("connections_refused") >= 41)
        # Those that were taken say nothing, and are let go in time; then there is room again.
        for stream in streams:
            await let_go(stream)
        device = await held.house.device()
        await device.leave()


async def test_one_address_cannot_take_all_connections() -> None:
    async with siege(max_per_address=10) as held:
        streams = [await held.house.stream(source="127.0.0.66") for _ in range(30)]
        await until(lambda: held.house.node.tally.read("connections_refused") >= 20)
        device = await held.house.device(source="127.0.0.77")
        await device.leave()
        for stream in streams:
            await let_go(stream)


# --- Receipts (C20) ----------------------------------------------------------------------------------------------


async def receipts(house: House, app: AppServer, count: int) -> None:
    """So many thousand receipts to be told."""
    away = await house.absent()
    audience = {"registration_id": [away.id]}
    push = {"audience": audience, "notification": HELLO, "options": {"time_to_live": 0}}
    for _ in range(count):
        await app.say([app.request("push", push) for _ in range(1_000)])
        await app.hear()


async def test_who_subscribes_and_unsubscribes_without_end_gets_nowhere() -> None:
    async with siege() as held:
        app = await held.house.app()
        await receipts(held.house, app, 4)

        async def churn() -> None:
            attacker = await held.house.app()
            with trio.move_on_after(FLOOD_S):
                while True:
                    batch = []
                    for _ in range(50):
                        batch.append(attacker.request("receipts.subscribe", {"consumer": "x", "after": "0"}))
                        batch.append(attacker.request("receipts.unsubscribe"))
                    with suppress(trio.BrokenResourceError, trio.TooSlowError):
                        await attacker.stream.send_all(b"".join(map(text, batch)))
            await attacker.vanish()

        await at_once(churn, 4)
        await app.leave()


async def test_receipts_that_nobody_reads_cost_no_more_than_a_few_frames() -> None:
    async with siege(heartbeat_s=1.0) as held:
        app = await held.house.app()
        await receipts(held.house, app, 12)
        await app.leave()

        async def deaf() -> None:
            attacker = AppServer(await held.house.stream("apps", is_narrow=True))
            await attacker.knock("/app", basic(APP, SECRET))
            await attacker.say(attacker.request("receipts.subscribe", {"after": "0"}))
            await until(lambda: len(held.house.node._app_endpoint) == 1, "the end of those who do not read")
            await attacker.vanish()

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(deaf)


async def test_a_flood_of_acknowledgements_is_taken_and_harms_nobody() -> None:
    async with siege() as held:
        app = await held.house.app()
        await receipts(held.house, app, 1)
        await app.subscribe(consumer="x", after="0")
        await app.hear_frame()
        cursors = ["1", "1000", "5", "0", str(2**63 - 1), "1" * 4_000, "999"]
        with trio.move_on_after(FLOOD_S):
            while True:
                requests = [app.request("receipts.ack", {"cursor": each}) for each in cursors * 50]
                await app.say(*requests)
                for request in requests:
                    await app.answer_to(request)
                app.kept.clear()
        await app.leave()
        app = await held.house.app()
        # Where it has come to is the largest that it was sent and has acknowledged.
        assert await app.subscribe(consumer="x") == "1000"
        await app.leave()


async def test_a_consumer_that_displaces_itself_without_end_harms_nobody() -> None:
    async with siege() as held:
        async def displace() -> None:
            attacker = await held.house.app()
            with trio.move_on_after(FLOOD_S):
                while True:
                    answer = await attacker.ask("receipts.subscribe", {"consumer": "x"})
                    assert "result" in answer or answer["error"]["code"] == -32602
                    attacker.kept.clear()
            await attacker.leave()

        await at_once(displace, 6)


async def test_names_of_consumers_without_end_are_refused() -> None:
    async with siege() as held:
        app = await held.house.app()
        codes = set()
        for first in range(0, 3_000, 500):
            batch = []
            for number in range(first, first + 500):
                batch.append(app.request("receipts.subscribe", {"consumer": f"{number} ".ljust(64, "x")}))
                batch.append(app.request("receipts.unsubscribe"))
            await app.say(batch)
            while not isinstance(answers := await app.hear(), list):
                pass
            codes |= {each["error"]["code"] for each in answers if "error" in each}
        assert codes == {-32602}
        tenant = held.house.node._apps.all()[0]
        assert len(tenant.receipts._positions) == 1_000
        await app.leave()


async def test_aliases_without_end_that_are_pushed_to_and_never_come_are_kept_and_nothing_else() -> None:
    async with siege() as held:
        app = await held.house.app()
        for number in range(20):
            aliases = [f"u{number}-{each}" for each in range(500)]
            pushed = await app.push({"alias": aliases}, options={"hold": True, "time_to_live": 1})
            assert pushed["targets"] == 500
        assert len(held.house.node._apps.all()[0].router.directory) <= 2
        await app.leave()


async def test_recalls_without_end_of_one_push_hold_up_nobody() -> None:
    async with siege() as held:
        app = await held.house.app()
        pushed = await app.push({"alias": [f"u{each}" for each in range(1_000)]}, options={"hold": True})

        async def again() -> None:
            attacker = await held.house.app()
            with trio.move_on_after(FLOOD_S):
                while True:
                    split = await attacker.call("push.recall", msg_id=pushed["msg_id"])
                    assert sum(split.values()) == 1_000
            await attacker.vanish()

        await at_once(again, 4)
        assert adding_up(await app.report(pushed["msg_id"]))["recalled"] == 1_000
        await app.leave()


# --- One app against another -------------------------------------------------------------------------------------


async def test_a_large_batch_of_one_app_does_not_hold_up_another(house: House) -> None:
    loud = await house.app()
    for _ in range(20):
        await house.device()
    quiet, device = await house.app("other", "secret-of-the-other"), await house.device(app_key="other")
    await loud.say(
        *[[loud.request("push", {"audience": "all", "notification": HELLO}) for _ in range(1_000)] for _ in range(2)]
    )
    slowest_s = 0.0
    for _ in range(10):
        began = trio.current_time()
        with trio.fail_after(GENEROUS_S):
            pushed = await quiet.push("all")
            assert (await device.hear_message())["msg_id"] == pushed["msg_id"]
        slowest_s = max(slowest_s, trio.current_time() - began)
    assert slowest_s < GENEROUS_S
    assert SECRET

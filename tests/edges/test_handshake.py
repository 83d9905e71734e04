"""The opening handshake, over memory: who is let in, what the others are answered, and that nobody holds it up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import h11
import pytest
import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, MockClock, wait_all_tasks_blocked
from wsproto.frame_protocol import Opcode

from pushactors.edges.handshake import SUBPROTOCOL, Knock, No, open_websocket
from pushactors.edges.stream import Flusher, Stream
from tests.edges.serving import frame

HEADERS = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
KEYS_ANSWER = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""To that key, as in RFC 6455, 1.3."""
WITHIN_S = 10.0


def head(path: str = "/device", version: str = "1.1", **changes: str | None) -> bytes:
    """A request, its headers changed so; None: left out."""
    named = {name.replace("_", "-"): value for name, value in changes.items()}
    lines = {**HEADERS, **named}
    rest = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return f"GET {path} HTTP/{version}\r\n{rest}\r\n".encode("latin-1")


class Street:
    """Somebody knocks at our end of a connection."""

    def __init__(self, flusher: Flusher) -> None:
        self.carrier = trio.StapledStream(MemorySendStream(), MemoryReceiveStream())
        self.stream = Stream(self.carrier, flusher)
        self.knocks: list[Knock] = []

    def send(self, data: bytes) -> None:
        self.carrier.receive_stream.put_data(data)

    async def opens(self, no: No | None = None) -> bool:
        def judge(knock: Knock) -> No | None:
            self.knocks.append(knock)
            return no

        return await open_websocket(self.stream, judge, WITHIN_S)

    def answer(self) -> tuple[int, dict[str, str], str]:
        """Status, headers and body of the answer; status 0: there is none."""
        data = b""
        with suppress(trio.WouldBlock):
            data = bytes(self.carrier.send_stream.get_data_nowait())
        if not data:
            return 0, {}, ""
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="GET", target="/", headers=[*HEADERS.items()]))
        client.receive_data(data)
        response = client.next_event()
        assert isinstance(response, h11.Response | h11.InformationalResponse)
        headers = {name.decode(): value.decode() for name, value in response.headers}
        body = b""
        if isinstance(response, h11.Response):
            client.receive_data(b"")
            while isinstance(event := client.next_event(), h11.Data):
                body += event.data
        return response.status_code, headers, body.decode()


@pytest.fixture
async def street() -> AsyncIterator[Street]:
    flusher = Flusher()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        yield Street(flusher)
        nursery.cancel_scope.cancel()


# --- Who is let in -----------------------------------------------------------------------------------------------


async def test_who_knocks_properly_is_let_in(street: Street) -> None:
    street.send(head())
    assert await street.opens()
    status, headers, _ = street.answer()
    assert status == 101
    assert headers["sec-websocket-accept"] == KEYS_ANSWER
    assert headers["upgrade"].lower() == "websocket"


@pytest.mark.parametrize("size", [1, 3, 1_000])
async def test_the_request_may_come_in_pieces(street: Street, size: int) -> None:
    data = head()
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            for at in range(0, len(data), size):
                street.send(data[at : at + size])
                await wait_all_tasks_blocked()

        nursery.start_soon(send)
        assert await street.opens()


async def test_who_judges_sees_the_path_and_the_headers_by_their_small_names(street: Street) -> None:
    street.send(head("/device?a=b", AUTHORIZATION="Basic x", Origin="https://example.org"))
    assert await street.opens()
    [knock] = street.knocks
    assert knock.path == "/device?a=b"
    assert knock.headers["authorization"] == "Basic x"
    assert knock.headers["origin"] == "https://example.org"


async def test_who_judges_sees_the_host_that_was_asked_for(street: Street) -> None:
    # An Origin of the same host is taken, so it must be known.
    street.send(head(Host="push.example.org:8600"))
    assert await street.opens()
    assert street.knocks[0].host == "push.example.org:8600"


async def test_of_two_equal_headers_the_last_counts(street: Street) -> None:
    street.send(head().replace(b"\r\n\r\n", b"\r\nOrigin: https://a\r\nOrigin: https://b\r\n\r\n"))
    assert await street.opens()
    assert street.knocks[0].headers["origin"] == "https://b"


async def test_the_first_frames_may_come_right_behind_the_request(street: Street) -> None:
    behind = frame(Opcode.TEXT, b"first") + frame(Opcode.TEXT, b"second")
    street.send(head() + behind)
    assert await street.opens()
    assert await street.stream.receive() == behind


async def test_after_the_handshake_nobody_else_reads(street: Street) -> None:
    street.send(head())
    before = trio.lowlevel.current_statistics().tasks_living
    assert await street.opens()
    assert trio.lowlevel.current_statistics().tasks_living == before
    street.send(b"later")
    await wait_all_tasks_blocked()
    assert await street.stream.receive() == b"later"


# --- The language ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offered", [SUBPROTOCOL, f"chat, {SUBPROTOCOL}", f"{SUBPROTOCOL}, other"])
async def test_the_subprotocol_is_named_when_it_is_offered(street: Street, offered: str) -> None:
    street.send(head(Sec_WebSocket_Protocol=offered))
    assert await street.opens()
    assert street.answer()[1]["sec-websocket-protocol"] == "pushactors.v1"


@pytest.mark.parametrize("offered", [None, "chat", "pushactors.v2", "PUSHACTORS.V1"])
async def test_the_subprotocol_is_not_named_when_it_is_not_offered(street: Street, offered: str | None) -> None:
    street.send(head(Sec_WebSocket_Protocol=offered))
    assert await street.opens()
    status, headers, _ = street.answer()
    assert status == 101
    assert "sec-websocket-protocol" not in headers


async def test_compression_is_off_whatever_is_offered(street: Street) -> None:
    street.send(head(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits"))
    assert await street.opens()
    assert "sec-websocket-extensions" not in street.answer()[1]


# --- Who is not let in -------------------------------------------------------------------------------------------


async def test_who_is_refused_gets_an_answer_over_http(street: Street) -> None:
    street.send(head())
    assert not await street.opens(No(401, "Authenticate.", ((b"WWW-Authenticate", b"Basic"),)))
    status, headers, body = street.answer()
    assert (status, body) == (401, "Authenticate.\n")
    assert headers["www-authenticate"] == "Basic"
    assert headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (head(Upgrade=None), 400),
        (head(Connection="keep-alive"), 400),
        (head(Sec_WebSocket_Key=None), 400),
        (head(Sec_WebSocket_Version=None), 400),
        (head(Sec_WebSocket_Version="8"), 426),
        (head(Host=None), 400),
        (head().replace(b"GET", b"POST"), 400),
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
    ids=["no upgrade", "no connection", "no key", "no version", "old version", "no host", "post", "hello",
         "tls"],
)  # fmt: skip
async def test_what_is_no_websocket_request_is_refused(
    street: Street, data: bytes, status: int, autojump_clock: MockClock
) -> None:
    street.send(data)
    began = trio.current_time()
    assert await ends(street.opens) is not True
    assert trio.current_time() == began
    # Some of it wsproto cannot even refuse; nobody is let in, and nobody is kept waiting.
    assert street.answer()[0] in (status, 0)


async def ends(opens: Callable[[], object]) -> bool | None:
    """Whether it is open; None: it ended in an exception."""
    try:
        return await opens()  # type: ignore[misc,no-any-return]
    except Exception:
        return None


@pytest.mark.parametrize(
    "data",
    [
        head(Host="\xff"),
        head(Connection="\xe9"),
        head(Connection="Upgrade, \xff"),
        head(Upgrade="\xff"),
        head(Sec_WebSocket_Key="\xff"),
        head(Sec_WebSocket_Version="\xff"),
        head(Sec_WebSocket_Protocol="\xff"),
        head(Sec_WebSocket_Extensions="\xff"),
        head("/\xff"),
        head(version="1.0"),
        b"\x00" * 100 + b"\r\n\r\n",
        b"\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
    ],
)
async def test_what_a_stranger_sends_ends_the_handshake_and_nothing_else(street: Street, data: bytes) -> None:
    street.send(data)
    with trio.fail_after(WITHIN_S + 1):
        is_open = await ends(street.opens)
    if is_open:
        assert street.answer()[0] == 101


@pytest.mark.parametrize("data", [b"", b"GET", head()[:-2], head()[:-1], b"X: y\r\n" * 100])
async def test_a_request_that_does_not_end_is_not_waited_for_longer_than_granted(
    street: Street, data: bytes, autojump_clock: MockClock
) -> None:
    street.send(data)
    began = trio.current_time()
    assert not await street.opens()
    assert trio.current_time() == began + WITHIN_S
    assert street.knocks == []


async def test_a_request_that_drips_is_not_waited_for_longer_than_granted(
    street: Street, autojump_clock: MockClock
) -> None:
    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def drip() -> None:
            street.send(head()[:-2])
            while True:
                await trio.sleep(0.5)
                street.send(b"X")

        nursery.start_soon(drip)
        assert not await street.opens()
        nursery.cancel_scope.cancel()
    assert trio.current_time() == began + WITHIN_S


async def test_a_peer_that_does_not_read_its_answer_is_not_waited_for_longer_than_granted(
    street: Street, autojump_clock: MockClock
) -> None:
    street.carrier.send_stream.send_all_hook = trio.sleep_forever
    street.send(head())
    began = trio.current_time()
    assert not await street.opens()
    assert trio.current_time() == began + WITHIN_S


async def test_a_request_that_is_too_large_is_not_read_to_its_end(street: Street, autojump_clock: MockClock) -> None:
    street.send(head()[:-2] + b"X: " + b"y" * 1_000_000)
    began = trio.current_time()
    assert not await street.opens()
    assert trio.current_time() == began
    assert street.knocks == []
    assert street.answer()[0] == 400


async def test_a_peer_that_goes_away_within_its_request_is_not_waited_for(
    street: Street, autojump_clock: MockClock
) -> None:
    street.send(head()[:-2])
    street.carrier.receive_stream.put_eof()
    began = trio.current_time()
    assert not await street.opens()
    assert trio.current_time() == began


async def test_a_connection_that_breaks_within_its_request_is_not_waited_for(street: Street) -> None:
    async def broken() -> None:
        raise trio.BrokenResourceError

    street.carrier.receive_stream.receive_some_hook = broken
    assert not await ends(street.opens)


async def test_what_fails_in_judging_fails_in_the_handshake(street: Street) -> None:
    def judge(knock: Knock) -> No | None:
        raise LookupError

    street.send(head())
    with pytest.raises(ExceptionGroup) as failure:
        await open_websocket(street.stream, judge, WITHIN_S)
    assert failure.group_contains(LookupError)

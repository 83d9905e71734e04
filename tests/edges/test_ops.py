"""What operators get over HTTP: small answers, in bounded time, whoever asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import h11
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MemoryReceiveStream, MemorySendStream, MockClock

from pushactors.actors.tally import Tally
from pushactors.edges.ops import WITHIN_S, Operations
from pushactors.edges.stream import Flusher, Stream
from tests.edges.serving import serving

Answer = tuple[int, dict[str, str], str]


def request(path: str = "/healthz", method: str = "GET", version: str = "1.1", behind: bytes = b"") -> bytes:
    return f"{method} {path} HTTP/{version}\r\nHost: localhost\r\n\r\n".encode() + behind


@dataclass
class Desk:
    """The operations endpoint, over memory."""

    flusher: Flusher
    tally: Tally = field(default_factory=Tally)
    now: dict[str, int] = field(default_factory=dict)
    is_ready: bool = True

    def __post_init__(self) -> None:
        self.operations = Operations(self.tally, lambda: self.is_ready, lambda: self.now)

    def open(self) -> trio.StapledStream[MemorySendStream, MemoryReceiveStream]:
        return trio.StapledStream(MemorySendStream(), MemoryReceiveStream())

    async def ask(self, data: bytes, then: Callable[[MemoryReceiveStream], None] | None = None) -> Answer | None:
        """The answer to `data`; None: there is none. Whatever happens, the connection is let go."""
        carrier = self.open()
        carrier.receive_stream.put_data(data)
        if then is not None:
            then(carrier.receive_stream)
        await self.operations.serve(Stream(carrier, self.flusher))
        with pytest.raises(trio.ClosedResourceError):
            await carrier.send_stream.send_all(b"x")
        answer = b""
        with suppress(trio.WouldBlock):
            answer = bytes(carrier.send_stream.get_data_nowait())
        return read(answer, "HEAD" if data.startswith(b"HEAD") else "GET") if answer else None

    async def metrics(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        answer = await self.ask(request("/metrics"))
        assert answer is not None
        assert answer[1]["content-type"].startswith("text/plain; version=")
        samples: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(answer[2]):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
        return samples


def read(data: bytes, method: str) -> Answer:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "localhost")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    client.receive_data(b"")
    head: Any = client.next_event()
    assert isinstance(head, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    return head.status_code, {k.decode(): v.decode() for k, v in head.headers}, body.decode()


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    flusher = Flusher()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        yield Desk(flusher)
        nursery.cancel_scope.cancel()


async def status(desk: Desk, data: bytes) -> int:
    answer = await desk.ask(data)
    assert answer is not None
    return answer[0]


# --- What is asked -----------------------------------------------------------------------------------------------


async def test_a_process_that_turns_says_so(desk: Desk) -> None:
    desk.is_ready = False
    answer = await desk.ask(request("/healthz"))
    assert answer is not None
    assert (answer[0], answer[2]) == (200, "ok\n")
    assert answer[1]["connection"] == "close"


async def test_readiness_is_a_question_of_now(desk: Desk) -> None:
    assert await status(desk, request("/readyz")) == 200
    desk.is_ready = False
    assert await status(desk, request("/readyz")) == 503


async def test_a_query_is_no_part_of_the_path(desk: Desk) -> None:
    assert await status(desk, request("/healthz?verbose=1")) == 200


@pytest.mark.parametrize("path", ["/", "/health", "/healthz/", "/device", "*"])
async def test_there_is_nothing_else(desk: Desk, path: str) -> None:
    assert await status(desk, request(path)) == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_nothing_can_be_changed(desk: Desk, method: str) -> None:
    assert await status(desk, request(method=method)) == 405


@pytest.mark.parametrize("path", ["/healthz", "/metrics"])
async def test_who_asks_for_the_head_gets_the_head(desk: Desk, path: str) -> None:
    whole, head = await desk.ask(request(path)), await desk.ask(request(path, "HEAD"))
    assert whole is not None
    assert head is not None
    assert (head[0], head[2]) == (200, "")
    assert head[1] == whole[1]


async def test_one_request_is_answered_and_no_more(desk: Desk) -> None:
    assert await status(desk, request("/readyz", behind=request("/nothing"))) == 200


async def test_an_old_client_is_answered(desk: Desk) -> None:
    assert await status(desk, request(version="1.0")) == 200


# --- Metrics -----------------------------------------------------------------------------------------------------


async def test_what_was_counted_is_told_with_its_kind(desk: Desk) -> None:
    desk.tally.add("pushes", "accepted", 3)
    desk.tally.add("pushes", "repeated")
    desk.tally.add("commits", count=7)
    metrics = await desk.metrics()
    assert sorted(metrics["pushactors_pushes_total"], key=str) == [({"kind": "accepted"}, 3), ({"kind": "repeated"}, 1)]
    assert metrics["pushactors_commits_total"] == [({}, 7)]


async def test_what_is_now_is_counted_at_each_look(desk: Desk) -> None:
    desk.now = {"visits": 2}
    assert (await desk.metrics())["pushactors_visits"] == [({}, 2)]
    desk.now = {"visits": 1, "device_actors": 5}
    metrics = await desk.metrics()
    assert metrics["pushactors_visits"] == [({}, 1)]
    assert metrics["pushactors_device_actors"] == [({}, 5)]


async def test_before_anything_was_counted_there_is_an_answer(desk: Desk) -> None:
    assert await desk.metrics() == {}


async def test_what_strangers_name_cannot_break_the_format(desk: Desk) -> None:
    desk.tally.add("ignored", 'a"b\\c\nd')
    assert (await desk.metrics())["pushactors_ignored_total"] == [({"kind": 'a"b\\c\nd'}, 1)]


async def test_a_running_node_tells_what_happened_and_what_is() -> None:
    async with serving() as house:
        device, app = await house.device(), await house.app()
        await app.push()
        await device.hear_message()
        status, text = await house.get("/metrics")
        assert status == 200
        samples = {
            (sample.name, sample.labels.get("kind")): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert samples["pushactors_visits", None] == 1
        assert samples["pushactors_app_sessions", None] == 1
        assert samples["pushactors_registered_devices", None] == 1
        assert samples["pushactors_pushes_total", "accepted"] == 1
        assert samples["pushactors_visits_started_total", None] == 1
        assert (await house.get("/healthz")) == (200, "ok\n")
        assert (await house.get("/readyz")) == (200, "ready\n")


async def test_nothing_secret_is_told() -> None:
    async with serving() as house:
        device = await house.device(alias="alice", install_key="an-install-key")
        app = await house.app()
        await app.push()
        await device.hear_message()
        _, text = await house.get("/metrics")
        for secret in (device.secret, device.id, "alice", "an-install-key", "secret-of-the-app", "hello"):
            assert secret not in text


# --- Whoever asks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET /healthz\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n",
     b"GET /healthz HTTP/1.1\r\n\r\n"],
    ids=["hello", "tls", "no version", "no ascii", "no host"],
)  # fmt: skip
async def test_what_is_no_request_is_refused(desk: Desk, data: bytes) -> None:
    assert await status(desk, data) == 400


async def test_a_request_that_is_too_large_is_refused(desk: Desk) -> None:
    assert await status(desk, request()[:-2] + b"X: " + b"y" * 100_000) == 431


async def test_a_peer_that_says_nothing_and_goes_is_let_go(desk: Desk) -> None:
    for data in (b"", b"GET /hea"):
        answer = await desk.ask(data, then=lambda receiving: receiving.put_eof())
        assert answer is None or answer[0] == 400


async def test_a_peer_whose_connection_breaks_is_let_go(desk: Desk) -> None:
    async def broken() -> None:
        raise trio.BrokenResourceError

    def breaks(receiving: MemoryReceiveStream) -> None:
        receiving.receive_some_hook = broken

    answer = await desk.ask(b"", then=breaks)
    assert answer is None or answer[0] == 400


async def test_a_request_that_does_not_end_is_not_waited_for(desk: Desk, autojump_clock: MockClock) -> None:
    began = trio.current_time()
    assert await desk.ask(request()[:-2]) is None
    assert trio.current_time() == began + WITHIN_S


async def test_an_answer_that_is_not_read_is_not_waited_for(desk: Desk, autojump_clock: MockClock) -> None:
    carrier = desk.open()
    carrier.send_stream.send_all_hook = trio.sleep_forever
    carrier.receive_stream.put_data(request())
    began = trio.current_time()
    await desk.operations.serve(Stream(carrier, desk.flusher))
    assert trio.current_time() == began + WITHIN_S

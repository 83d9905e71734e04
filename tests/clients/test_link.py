from __future__ import annotations

import gc
import weakref

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pushactors import Disconnected, Invalid, ProtocolBroken
from pushactors.clients.link import CLOSE_LIMIT_S, WRITE_LIMIT_S, Ending
from pushactors.wire.jsonrpc import Note, note_frame, result_frame
from tests.clients.scripted import ScriptedServer
from tests.clients.scripted_client import opened


async def test_answers_find_who_asked_in_whatever_order_they_come(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    _, link, visit = await opened(server, nursery)
    answers: dict[str, object] = {}

    async def ask(method: str) -> None:
        answers[method] = await link.request(method, {}, lambda result: result)

    async with trio.open_nursery() as asking:
        for method in ("a", "b", "c"):
            asking.start_soon(ask, method)
        requests = [await visit.hear() for _ in range(3)]
        for request in reversed(requests):
            await visit.answer(request, request.method)  # type: ignore[arg-type]
    assert answers == {"a": "a", "b": "b", "c": "c"}


async def test_an_answer_is_handled_before_anything_that_came_after_it(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    held, link, visit = await opened(server, nursery)
    heard_before: list[int] = []

    async def serve() -> None:
        request = await visit.hear_request("ask")
        await visit.say_at_once(result_frame(request.id, 1), note_frame("news", {}))

    nursery.start_soon(serve)
    await link.request("ask", {}, lambda _: heard_before.append(len(held.heard)))
    assert heard_before == [0]
    await wait_all_tasks_blocked()
    assert len(held.heard) == 1


class Then:
    def __call__(self, result: object) -> object:
        return result


async def test_whoever_gives_up_leaves_its_frame_whole(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    _, link, visit = await opened(server, nursery)
    with trio.move_on_after(0):
        await link.request("first", {}, lambda result: result)
    then = Then()
    forgotten = weakref.ref(then)
    with trio.move_on_after(1):
        await link.request("second", {}, then)
    del then
    # What trio keeps of a cancellation it keeps until its next step.
    await trio.lowlevel.checkpoint()
    gc.collect()
    assert forgotten() is None
    second = await visit.hear_request("second")
    await visit.answer(second, "too late")
    await link.tell("third", {})
    assert (await visit.hear()).method == "third"


async def test_when_the_connection_ends_whoever_waits_is_disconnected(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    held, link, visit = await opened(server, nursery)

    async def ask() -> None:
        with pytest.raises(Disconnected):
            await link.request("ask", {}, lambda result: result)

    async with trio.open_nursery() as asking:
        asking.start_soon(ask)
        await visit.hear_request("ask")
        await visit.vanish()
    assert (await held.ended()).code == 1006
    assert link.is_over
    with pytest.raises(Disconnected):
        await link.tell("news", {})


async def test_a_close_comes_with_its_code_and_reason(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    held, _, visit = await opened(server, nursery)
    await visit.close(4002, "too_slow")
    assert await held.ended() == Ending(4002, "too_slow")


async def test_what_was_told_before_closing_is_sent(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    held, link, visit = await opened(server, nursery)
    for number in range(5):
        await link.tell("news", {"number": number})
    nursery.start_soon(link.aclose)
    assert [(await visit.hear()).params["number"] for _ in range(5)] == [0, 1, 2, 3, 4]
    assert await visit.closed_with() == 1000
    assert (await held.ended()).code == 1000


async def test_a_silent_server_does_not_keep_anybody_from_closing(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    held, link, visit = await opened(server, nursery)
    visit.fall_silent()
    began_at = trio.current_time()
    await link.aclose()
    assert trio.current_time() - began_at == pytest.approx(CLOSE_LIMIT_S)
    assert (await held.ended()).code == 1000


async def test_an_answer_that_is_not_understood_is_the_protocols_fault(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    _, link, visit = await opened(server, nursery)

    def refuse(result: object) -> None:
        raise Invalid("a must be an integer.", "a")

    async def serve() -> None:
        await visit.answer(await visit.hear_request("ask"), 1)

    nursery.start_soon(serve)
    with pytest.raises(ProtocolBroken, match="a must be an integer"):
        await link.request("ask", {}, refuse)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"jsonrpc":"2.0","id":1,"method":"m"}', '{"jsonrpc":"2.0","id":99,"result":1}']
)
async def test_a_frame_that_means_nothing_here_is_passed_over(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock, text: str
) -> None:
    held, _, visit = await opened(server, nursery)
    await visit.websocket.send_message(text)
    await visit.tell("news", {})
    await wait_all_tasks_blocked()
    assert held.heard == [Note("news", {})]


async def test_a_server_that_answers_pings_is_there(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    held, link, _ = await opened(server, nursery)
    link.beat_every(10)
    await trio.sleep(1000)
    assert held.ending is None


async def test_a_server_that_is_silent_for_two_heartbeats_is_gone(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    held, link, visit = await opened(server, nursery)
    link.beat_every(10)
    visit.fall_silent()
    silent_since = trio.current_time()
    assert "silent" in (await held.ended()).reason
    assert trio.current_time() - silent_since == pytest.approx(20)


async def test_a_server_that_says_something_now_and_then_is_there(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    held, link, visit = await opened(server, nursery)
    link.beat_every(10)
    for _ in range(10):
        await trio.sleep(9)
        await visit.tell("news", {})
    await wait_all_tasks_blocked()
    assert held.ending is None
    assert len(held.heard) == 10


async def test_a_server_that_takes_nothing_is_let_go(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    server = Stubborn(nursery)
    held, link, _ = await opened(server, nursery)
    link.beat_every(10_000)
    server.stuck = True
    await link.tell("news", {})
    stuck_since = trio.current_time()
    assert "took nothing" in (await held.ended()).reason
    assert trio.current_time() - stuck_since == pytest.approx(WRITE_LIMIT_S)


class Stubborn(ScriptedServer):
    """Once `stuck`, it takes no more bytes."""

    stuck = False

    async def open_stream(self) -> trio.abc.Stream:
        stream = await super().open_stream()
        send_all = stream.send_all

        async def stubborn(data: bytes) -> None:
            if self.stuck:
                await trio.sleep_forever()
            await send_all(data)

        stream.send_all = stubborn  # type: ignore[method-assign,assignment]
        return stream


@pytest.mark.parametrize(
    "garbage", [b"\xff" * 20, b"\x81\x85abcd", b"\x83\x01a", b"\x81\x01\xff", b"\x82\x01a", b"\x89\x7e\x01\x00"]
)
async def test_garbage_on_an_open_connection_is_an_ending_or_nothing(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock, garbage: bytes
) -> None:
    held, _, visit = await opened(server, nursery)
    await visit.stream.send_all(garbage)
    await visit.stream.aclose()
    assert await held.ended()

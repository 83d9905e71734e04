from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pushactors import (
    ConnectionLost,
    DeviceEvent,
    Disconnected,
    Displaced,
    ProtocolBroken,
    PushactorsError,
    RateLimited,
    Removed,
    TurnedAway,
)
from pushactors.clients.door import Door
from pushactors.clients.line import Line
from pushactors.clients.link import Ending, Link
from pushactors.errors import Unauthorized
from pushactors.wire.jsonrpc import Note
from tests.clients.scripted import PATIENCE_S, ScriptedServer
from tests.clients.scripted_client import DEVICE_URL, device_client, fixed


def gaps(server: ScriptedServer) -> list[float]:
    return [after - before for before, after in zip(server.tries, server.tries[1:], strict=False)]


async def test_a_line_comes_back_ever_more_slowly_while_nobody_answers(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    server.is_down = True
    async with device_client(server, backoff=fixed(1.0)):
        await trio.sleep(200)
    assert gaps(server) == pytest.approx([0.5, 1, 2, 4, 8, 16, 32, 60, 60])


@pytest.mark.parametrize("code", [1001, 1011, 4000, 4001, 4002, 4003, 4004, 4321])
async def test_a_line_comes_back_by_itself_after_a_close_that_allows_it(
    server: ScriptedServer, autojump_clock: MockClock, code: int
) -> None:
    async with device_client(server, backoff=fixed(1.0)) as device:
        visit = await server.welcome()
        await visit.close(code)
        await server.welcome()
        await device.wait_connected()
    assert gaps(server) == pytest.approx([0.5])


async def test_a_broken_connection_is_nobodys_decision(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with device_client(server) as device:
        visit = await server.welcome()
        await visit.vanish()
        await server.welcome()
        await device.wait_connected()


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        (1000, TurnedAway),
        (1003, ProtocolBroken),
        (1007, ProtocolBroken),
        (1009, ProtocolBroken),
        (4500, Displaced),
        (4501, Unauthorized),
        (4502, ProtocolBroken),
        (4503, Removed),
        (4999, TurnedAway),
    ],
)
async def test_a_line_ends_by_name_after_a_close_that_forbids_to_come_back(
    server: ScriptedServer, autojump_clock: MockClock, code: int, cls: type[PushactorsError]
) -> None:
    async with device_client(server) as device:
        visit = await server.welcome()
        await visit.close(code)
        with pytest.raises(cls):
            await anext(device)
        await trio.sleep(1000)
    assert len(server.tries) == 1


async def test_a_goodbye_is_obeyed_to_the_second_and_a_little_more(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server, backoff=fixed(1.0)) as device:
        visit = await server.welcome()
        await visit.tell("goodbye", {"reason": "drain", "retry_after": 17})
        await visit.close(1001)
        visit = await server.welcome()
        await device.wait_connected()
        await visit.vanish()
        await server.welcome()
        await device.wait_connected()
    # The goodbye was for one time only.
    assert gaps(server) == pytest.approx([17.5, 1])


async def test_a_goodbye_without_a_time_is_for_good(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with device_client(server) as device:
        visit = await server.welcome()
        await visit.tell("goodbye", {"reason": "closing down", "retry_after": None})
        await visit.close(1001)
        with pytest.raises(TurnedAway, match="closing down"):
            await anext(device)


async def test_a_link_that_lasted_begins_the_count_anew(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with device_client(server, backoff=fixed(1.0)) as device:
        for lasting_s in (0, 0, 0, 100):
            visit = await server.welcome()
            await device.wait_connected()
            await trio.sleep(lasting_s)
            await visit.vanish()
        await server.welcome()
        await device.wait_connected()
    assert gaps(server) == pytest.approx([0.5, 1, 2, 100.5])


async def test_a_server_that_does_not_answer_the_greeting_is_tried_again(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    events: list[DeviceEvent] = []
    async with device_client(server, on_event=events.append) as device:
        visit = await server.visit()
        await visit.hear_request("connect")
        await server.welcome()
        await device.wait_connected()
    assert gaps(server) == pytest.approx([30], abs=0.1)
    assert isinstance(events[0], ConnectionLost)
    assert "did not answer" in events[0].reason


async def test_whoever_waits_for_a_link_gets_the_next_one_not_the_last(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server) as device:
        visit = await server.welcome()
        await device.wait_connected()
        await visit.vanish()
        await wait_all_tasks_blocked()
        with trio.move_on_after(0.1) as scope:
            await device.get_tags()
        assert scope.cancelled_caught


# --- Who waits no longer -----------------------------------------------------------------------------------------


async def tell_nothing(line: Line) -> str:
    with pytest.raises(Disconnected) as caught:
        await line.wait_link_within(7)
    return str(caught.value)


class Stranger:
    """An owner that says nothing, unless it is refused or cannot wait."""

    def __init__(self, refusal: PushactorsError | None = None) -> None:
        self.refusal = refusal
        self.line: Line
        self.ends_with: PushactorsError | None = None

    async def greet(self, link: Link) -> None:
        if self.refusal is not None:
            raise self.refusal
        if self.ends_with is not None:
            self.line.end(self.ends_with)

    def hear(self, note: Note) -> None:
        pass

    async def parted(self, ending: Ending, retry_after_s: float | None) -> None:
        pass


def line_to(server: ScriptedServer, owner: Stranger) -> Line:
    owner.line = Line(Door(DEVICE_URL, None, None, server.open_stream), owner, fixed())
    return owner.line


async def test_whoever_waits_no_longer_is_told_where_the_line_leads_and_what_is_in_the_way(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server.is_down = True
    line = line_to(server, Stranger())
    nursery.start_soon(line.run)
    began_at = trio.current_time()
    sentence = f"There was no connection to {DEVICE_URL} for 7 s: nobody listens. Nothing was sent."
    assert await tell_nothing(line) == sentence
    assert trio.current_time() - began_at == pytest.approx(7)


async def test_a_server_that_has_not_answered_yet_is_said_not_to_have(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    line = line_to(server, Stranger())
    nursery.start_soon(line.run)
    assert "for 7 s: it has not answered yet. " in await tell_nothing(line)


async def test_what_is_in_the_way_may_be_a_refusal_or_a_goodbye(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    owner = Stranger(RateLimited("Too many of you.", 100))
    line = line_to(server, owner)
    nursery.start_soon(line.run)
    await server.visit()
    assert "for 7 s: Too many of you. Nothing was sent." in await tell_nothing(line)
    owner.refusal = None
    visit = await server.visit()
    await line.wait_link()
    await visit.tell("goodbye", {"reason": "drain", "retry_after": 100})
    await visit.close(1001)
    await wait_all_tasks_blocked()
    assert "for 7 s: drain. Nothing was sent." in await tell_nothing(line)


async def test_a_line_that_has_a_link_gives_it_and_one_that_has_ended_says_why(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    line = line_to(server, Stranger())
    nursery.start_soon(line.run)
    await server.visit()
    assert await line.wait_link_within(7) is line.link
    line.end(TurnedAway("enough", 4999))
    with pytest.raises(TurnedAway, match="enough"):
        await line.wait_link_within(7)


async def test_a_line_that_is_ended_while_it_greets_has_ended(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    owner = Stranger()
    owner.ends_with = TurnedAway("enough", 4999)
    line = line_to(server, owner)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as running:
            running.start_soon(line.run)
            await server.visit()
    assert line.link is None
    with pytest.raises(TurnedAway, match="enough"):
        line.check()

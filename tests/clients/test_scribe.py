from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pushactors import IdentityUnusable
from pushactors.clients.scribe import BUNDLE, BUNDLE_S
from tests.clients.scripted import ScriptedServer
from tests.clients.scripted_client import device_client


async def test_when_nothing_is_left_to_show_it_is_acknowledged_at_once(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server) as device, trio.open_nursery() as nursery:
        visit = await server.welcome()
        for msg_id in (1, 2, 3):
            await visit.message(msg_id)
        await wait_all_tasks_blocked()
        began_at = trio.current_time()
        for _ in range(3):
            await anext(device)
        assert await visit.hear_note() == ("received", "2")
        nursery.start_soon(device.__anext__)
        assert await visit.hear_note() == ("received", "3")
        assert trio.current_time() == began_at
        nursery.cancel_scope.cancel()


async def test_a_full_bundle_is_acknowledged_although_more_is_waiting(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server) as device:
        visit = await server.welcome()
        for msg_id in range(1, BUNDLE + 10):
            await visit.message(msg_id)
        await wait_all_tasks_blocked()
        began_at = trio.current_time()
        for _ in range(BUNDLE + 1):
            await anext(device)
        assert await visit.hear_note() == ("received", str(BUNDLE))
        assert trio.current_time() == began_at


async def test_a_small_bundle_is_acknowledged_in_time(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with device_client(server) as device:
        visit = await server.welcome()
        for msg_id in (1, 2, 3):
            await visit.message(msg_id)
        await wait_all_tasks_blocked()
        began_at = trio.current_time()
        await anext(device)
        await anext(device)
        assert await visit.hear_note() == ("received", "1")
        assert trio.current_time() - began_at == pytest.approx(BUNDLE_S)


async def test_what_was_taken_while_away_is_acknowledged_on_the_next_visit_without_being_shown(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server) as device:
        visit = await server.welcome()
        await visit.message(1)
        message = await anext(device)
        await visit.vanish()
        await device.acknowledge(message)
        visit = await server.welcome()
        await visit.message(1)
        assert await visit.hear_note() == ("received", "1")
        await visit.message(2)
        assert (await anext(device)).msg_id == "2"


async def test_what_is_in_hand_is_acknowledged_on_the_visit_on_which_it_is_taken(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server) as device:
        visit = await server.welcome()
        await visit.message(1)
        message = await anext(device)
        await visit.vanish()
        visit = await server.welcome()
        await visit.message(1)
        await wait_all_tasks_blocked()
        await device.acknowledge(message)
        assert await visit.hear_note() == ("received", "1")


async def test_who_waits_for_an_acknowledgement_does_not_wait_for_a_bundle(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server) as device:
        visit = await server.welcome()
        for msg_id in range(1, BUNDLE):
            await visit.message(msg_id)
        await wait_all_tasks_blocked()
        began_at = trio.current_time()
        for msg_id in range(1, BUNDLE):
            await device.acknowledge(await anext(device))
            assert await visit.hear_note() == ("received", str(msg_id))
        assert trio.current_time() == began_at


async def test_who_waits_for_what_cannot_be_recorded_hears_why(tmp_path: Path, server: ScriptedServer) -> None:
    async with device_client(server, identity=tmp_path / "id") as device:
        visit = await server.welcome()
        await visit.message(1)
        message = await anext(device)
        (tmp_path / "id.shown").unlink()
        with pytest.raises(IdentityUnusable, match=r"id\.shown"):
            await device.acknowledge(message)

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pushactors import (
    AliasChanged,
    Connected,
    ConnectionLost,
    DeviceClient,
    DeviceEvent,
    Invalid,
    NoSuchApp,
    NoSuchDevice,
    ProtocolBroken,
    PushactorsError,
    RateLimited,
    Removed,
    Unauthorized,
)
from pushactors.errors import InternalError
from pushactors.wire.jsonrpc import error_frame, note_frame, result_frame
from tests.clients.scripted import ScriptedServer, no_threads
from tests.clients.scripted_client import device_client, fixed


async def test_a_new_device_registers_with_its_key_and_comes_back_with_its_secret(
    tmp_path: Path, server: ScriptedServer
) -> None:
    introductions: list[dict[str, Any]] = []
    for _ in range(2):
        async with device_client(server, identity=tmp_path / "id", platform="ios") as device:
            visit = await server.visit()
            introductions.append(await visit.welcome())
            await device.wait_connected()
    first, second = introductions
    assert first.keys() == {"app_key", "platform", "install_key"}
    assert (first["app_key"], first["platform"]) == ("app", "ios")
    assert second == {
        "app_key": "app",
        "platform": "ios",
        "registration_id": "device-1",
        "device_secret": "secret-1",
    }


async def test_a_lost_answer_leaves_no_ghost(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with device_client(server) as device:
        visit = await server.visit()
        first = await visit.hear_request("connect")
        await visit.vanish()
        visit = await server.visit()
        again = await visit.welcome()
        assert again["install_key"] == first.params["install_key"]
        await device.wait_connected()


async def test_the_tags_of_the_start_are_named_until_they_are_answered_once(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server, tags=["b", "a"]):
        visit = await server.visit()
        assert (await visit.hear_request("connect")).params["tags"] == ["a", "b"]
        await visit.vanish()
        visit = await server.visit()
        assert (await visit.welcome())["tags"] == ["a", "b"]
        await wait_all_tasks_blocked()
        await visit.vanish()
        visit = await server.visit()
        assert "tags" not in await visit.welcome()


async def test_a_subprotocol_is_offered_and_the_path_is_that_of_the_url(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server):
        request = await server.knock()
        assert request.proposed_subprotocols == ("pushactors.v1",)
        assert request.path == "/device"


@pytest.mark.parametrize(
    "refusal", [Unauthorized("no"), NoSuchApp("no"), NoSuchDevice("no"), Invalid("no", "tags[0]")], ids=repr
)
async def test_a_refused_greeting_ends_the_client_by_its_name(
    server: ScriptedServer, autojump_clock: MockClock, refusal: PushactorsError
) -> None:
    async with device_client(server) as device:
        visit = await server.visit()
        await visit.refuse(await visit.hear_request("connect"), refusal)
        with pytest.raises(type(refusal), match="no"):
            await anext(device)
    assert len(server.tries) == 1


@pytest.mark.parametrize(("refusal", "floor_s"), [(RateLimited("later", 9), 9), (InternalError("ours"), 0)], ids=repr)
async def test_a_busy_server_is_greeted_again_when_it_said(
    server: ScriptedServer, autojump_clock: MockClock, refusal: PushactorsError, floor_s: int
) -> None:
    async with device_client(server) as device:
        visit = await server.visit()
        await visit.refuse(await visit.hear_request("connect"), refusal)
        await server.welcome()
        await device.wait_connected()
    first, second = server.tries
    assert second - first == pytest.approx(floor_s, abs=0.1)


@pytest.mark.parametrize("is_refused", [True, False])
async def test_a_registration_that_is_gone_is_forgotten(
    tmp_path: Path, server: ScriptedServer, is_refused: bool
) -> None:
    path = tmp_path / "id"
    async with device_client(server, identity=path) as device:
        await server.welcome()
        await device.wait_connected()
    async with device_client(server, identity=path) as device:
        visit = await server.visit()
        if is_refused:
            await visit.refuse(await visit.hear_request("connect"), NoSuchDevice("gone"))
        else:
            await visit.welcome()
            await visit.close(4503)
        with pytest.raises(NoSuchDevice if is_refused else Removed):
            await anext(device)
    async with device_client(server, identity=path):
        visit = await server.visit()
        assert "install_key" in await visit.welcome()


async def test_whoever_hears_of_a_removal_finds_the_registration_forgotten(
    tmp_path: Path, server: ScriptedServer
) -> None:
    heard = trio.Event()

    async def listen(device: DeviceClient) -> None:
        with pytest.raises(Removed):
            await anext(device)
        heard.set()

    async with device_client(server, identity=tmp_path / "id") as device, trio.open_nursery() as nursery:
        nursery.start_soon(listen, device)
        visit = await server.welcome()
        await device.wait_connected()
        with no_threads():
            await visit.close(4503)
            await wait_all_tasks_blocked()
            assert not heard.is_set()
        await heard.wait()
        assert b"device-1" not in (tmp_path / "id").read_bytes()


async def test_an_application_is_told_how_its_connection_fares(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    events: list[DeviceEvent] = []
    async with device_client(server, on_event=events.append, backoff=fixed(1.0)):
        visit = await server.visit()
        await visit.welcome("alice", waiting=3)
        await visit.tell("alias", {"alias": "bob"})
        await visit.tell("alias", {"alias": None})
        await visit.tell("goodbye", {"reason": "drain", "retry_after": 4})
        await visit.close(1001, "going_away")
        visit = await server.welcome()
        await visit.close(4500, "displaced")
        await wait_all_tasks_blocked()
    assert events == [
        Connected("device-1", "alice", 3),
        AliasChanged("bob"),
        AliasChanged(None),
        ConnectionLost("going_away", 1001, 4.5),
        Connected("device-1", None, 0),
        ConnectionLost("displaced", 4500, None),
    ]


async def test_what_a_later_server_may_announce_is_passed_over(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server) as device:
        visit = await server.welcome()
        await visit.tell("news", {"of": "1"})
        await visit.message(2)
        assert (await anext(device)).msg_id == "2"


@pytest.mark.parametrize(
    ("method", "params"), [("message", {"msg_id": 1}), ("alias", {"alias": 5}), ("goodbye", {"retry_after": 1})]
)
async def test_a_notification_of_another_language_ends_the_client(
    server: ScriptedServer, autojump_clock: MockClock, method: str, params: dict[str, object]
) -> None:
    async with device_client(server) as device:
        visit = await server.welcome()
        await visit.tell(method, params)
        with pytest.raises(ProtocolBroken, match=method):
            await anext(device)


async def test_a_greeting_answered_in_another_language_ends_the_client(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server) as device:
        visit = await server.visit()
        await visit.answer(await visit.hear_request("connect"), {"registration_id": 5})
        with pytest.raises(ProtocolBroken):
            await anext(device)


async def test_the_heartbeat_is_the_one_that_the_server_names(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server) as device:
        visit = await server.welcome(heartbeat=7)
        await device.wait_connected()
        visit.fall_silent()
        await server.welcome()
    first, second = server.tries
    assert second - first == pytest.approx(14, abs=0.1)


async def test_what_was_not_shown_is_not_shown_while_away(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with device_client(server) as device:
        visit = await server.welcome("alice")
        await visit.message(1, "alice")
        await wait_all_tasks_blocked()
        server.is_down = True
        await visit.vanish()
        await wait_all_tasks_blocked()
        with trio.move_on_after(100) as scope:
            await anext(device)
        assert scope.cancelled_caught


async def test_messages_right_behind_the_answer_belong_to_the_visit(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server) as device:
        visit = await server.visit()
        request = await visit.hear_request("connect")
        result = {"registration_id": "r", "device_secret": "s", "heartbeat": 30, "alias": "alice"}
        message = {"msg_id": "1", "sent_at": 1, "expires_at": None, "alias": "alice"}
        await visit.say_at_once(result_frame(request.id, result), note_frame("message", message))
        assert (await anext(device)).msg_id == "1"


async def test_what_happens_on_a_visit_is_heard_of_after_its_beginning(tmp_path: Path, server: ScriptedServer) -> None:
    events: list[DeviceEvent] = []
    async with device_client(server, identity=tmp_path / "id", on_event=events.append) as device:
        visit = await server.visit()
        request = await visit.hear_request("connect")
        result = {"registration_id": "r", "device_secret": "s", "heartbeat": 30, "alias": "alice"}
        with no_threads():
            await visit.say_at_once(result_frame(request.id, result), note_frame("alias", {"alias": "bob"}))
            await wait_all_tasks_blocked()
            assert device.alias == "bob"
            assert events == []
        await device.wait_connected()
        assert events == [Connected("r", "alice", 0), AliasChanged("bob")]


async def test_what_happened_on_a_visit_that_did_not_begin_is_not_heard_of(
    tmp_path: Path, server: ScriptedServer
) -> None:
    events: list[DeviceEvent] = []
    async with device_client(server, identity=tmp_path / "id", on_event=events.append):
        visit = await server.visit()
        request = await visit.hear_request("connect")
        result = {"registration_id": "r", "device_secret": "s", "heartbeat": 30, "alias": "alice"}
        with no_threads():
            await visit.say_at_once(result_frame(request.id, result), note_frame("alias", {"alias": "bob"}))
            await wait_all_tasks_blocked()
            await visit.close(4500, "displaced")
            await wait_all_tasks_blocked()
    assert events == [ConnectionLost("displaced", 4500, None)]


async def test_a_registration_that_is_gone_is_forgotten_although_the_server_closes_behind_it(
    tmp_path: Path, server: ScriptedServer
) -> None:
    path = tmp_path / "id"
    async with device_client(server, identity=path) as device:
        await server.welcome()
        await device.wait_connected()
    async with device_client(server, identity=path) as device:
        visit = await server.visit()
        request = await visit.hear_request("connect")
        with no_threads():
            await visit.say_and_close(error_frame(request.id, NoSuchDevice("gone")), 4501)
            await wait_all_tasks_blocked()
        with pytest.raises(NoSuchDevice):
            await anext(device)
    assert b"device-1" not in path.read_bytes()

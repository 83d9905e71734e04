from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pushactors import (
    Closed,
    DeviceClient,
    Disconnected,
    Displaced,
    IdentityUnusable,
    Invalid,
    Message,
    Removed,
    TooFrequent,
)
from pushactors.wire.jsonrpc import note_frame, result_frame
from tests.clients.scripted import ScriptedServer, Visit, no_threads
from tests.clients.scripted_client import DEVICE_URL, device_client


async def test_messages_come_in_order_with_all_that_the_server_said(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server) as device:
        visit = await server.welcome("alice")
        await visit.tell("message", {"msg_id": "7", "sent_at": 5, "expires_at": 9, "alias": "alice", "new": 1})
        await visit.message(8)
        seven, eight = await anext(device), await anext(device)
        assert device.registration_id == "device-1"
        assert device.alias == "alice"
        assert device.connected
    assert seven == Message(msg_id="7", sent_at=5, expires_at=9, alias="alice")  # type: ignore[arg-type]
    assert eight.notification == {"alert": "x"}
    assert not device.connected


async def test_a_client_may_start_before_its_server(server: ScriptedServer, autojump_clock: MockClock) -> None:
    server.is_down = True
    async with device_client(server) as device:
        await wait_all_tasks_blocked()
        assert device.registration_id is None
        assert not device.connected
        server.is_down = False
        await server.welcome()
        await device.wait_connected()
        assert device.connected


async def test_leaving_the_block_says_goodbye_and_what_was_taken(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server) as device:
        visit = await server.welcome()
        for msg_id in (1, 2, 3):
            await visit.message(msg_id)
        await wait_all_tasks_blocked()
        await anext(device)
        await anext(device)
    assert await visit.hear_note() == ("received", "1")
    assert await visit.closed_with() == 1000


async def test_leaving_the_block_waits_for_the_greeting_if_there_is_something_to_tell(
    tmp_path: Path, server: ScriptedServer
) -> None:
    async with trio.open_nursery() as nursery:
        async with device_client(server, identity=tmp_path / "id") as device:
            await server.welcome()
            await device.wait_connected()
        async with device_client(server, identity=tmp_path / "id", alias="alice") as device:
            visit = await server.visit()
            request = await visit.hear_request("connect")
            # The wish is answered, and to forget it takes until the block is being left.
            blocked = no_threads()
            blocked.__enter__()
            result = {"registration_id": "device-1", "heartbeat": 30, "alias": "alice"}
            message = {"msg_id": "1", "sent_at": 1, "expires_at": None}
            await visit.say_at_once(result_frame(request.id, result), note_frame("message", message))
            await anext(device)
            device._take()

            async def go_on() -> None:
                await wait_all_tasks_blocked()
                blocked.__exit__(None, None, None)

            nursery.start_soon(go_on)
        assert await visit.hear_note() == ("received", "1")
        assert await visit.closed_with() == 1000


async def test_the_blocks_own_error_comes_out_as_it_is(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async def fail() -> None:
        async with device_client(server) as device:
            await device.wait_connected()
            raise KeyError

    async def serve() -> None:
        visit = await server.welcome()
        assert await visit.closed_with() == 1000

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(KeyError):
            await fail()


async def test_a_silent_server_does_not_keep_anybody_in_the_block(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server):
        stream = await server.stream()
        await wait_all_tasks_blocked()
    await trio.aclose_forcefully(stream)


async def test_two_tasks_must_not_wait_for_the_next_message(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with device_client(server) as device, trio.open_nursery() as nursery:
        nursery.start_soon(device.__anext__)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await anext(device)
        nursery.cancel_scope.cancel()


async def test_an_acknowledged_message_is_done_with_before_the_loop_comes_back(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server) as device:
        visit = await server.welcome()
        await visit.message(1)
        message = await anext(device)
        await device.acknowledge(message)
        assert await visit.hear_note() == ("received", "1")
        await device.acknowledge(message)
        await visit.message(2)
        await anext(device)
        await device.acknowledge(message)
        await wait_all_tasks_blocked()
    # The second one was never taken.
    assert await visit.closed_with() == 1000


async def test_what_was_not_taken_is_shown_by_the_next_start_and_what_was_is_not(
    tmp_path: Path, server: ScriptedServer
) -> None:
    path = tmp_path / "id"
    async with device_client(server, identity=path) as device:
        visit = await server.welcome()
        for msg_id in (1, 2):
            await visit.message(msg_id)
        assert [(await anext(device)).msg_id for _ in range(2)] == ["1", "2"]
    async with device_client(server, identity=path) as device:
        visit = await server.welcome()
        for msg_id in (1, 2, 3):
            await visit.message(msg_id)
        assert (await anext(device)).msg_id == "2"
        assert await visit.hear_note() == ("received", "1")
        assert (await anext(device)).msg_id == "3"
        assert await visit.hear_note() == ("received", "2")


async def test_marks_are_told_once_and_only_of_what_can_be_a_message(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server) as device:
        visit = await server.welcome()
        await device.opened("5")
        await device.dismissed("6")
        assert [await visit.hear_note(), await visit.hear_note()] == [("opened", "5"), ("dismissed", "6")]
        with pytest.raises(Invalid):
            await device.opened("five")


async def test_tags_and_alias_are_asked_and_answered(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async def serve(visit: Visit) -> None:
        for method, tags in [
            ("tags.set", ["a", "b"]),
            ("tags.add", ["c"]),
            ("tags.remove", ["a"]),
            ("tags.get", None),
        ]:
            request = await visit.hear_request(method)
            assert request.params == ({} if tags is None else {"tags": tags})
            await visit.answer(request, {"tags": ["x", method]})
        await visit.answer(await visit.hear_request("alias.get"), {"alias": None})
        await visit.answer(await visit.hear_request("alias.get"), {"alias": "bob"})

    async with device_client(server) as device, trio.open_nursery() as nursery:
        nursery.start_soon(serve, await server.welcome())
        assert await device.set_tags(["b", "a"]) == ("x", "tags.set")
        assert await device.add_tags({"c"}) == ("x", "tags.add")
        assert await device.remove_tags(["a"]) == ("x", "tags.remove")
        assert await device.get_tags() == ("x", "tags.get")
        assert await device.get_alias() is None
        assert await device.get_alias() == "bob"


async def test_a_refusal_is_raised_by_its_name(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with device_client(server) as device, trio.open_nursery() as nursery:
        visit = await server.welcome()

        async def refuse() -> None:
            await visit.refuse(await visit.hear_request("tags.set"), TooFrequent("Wait.", 7))

        nursery.start_soon(refuse)
        with pytest.raises(TooFrequent) as caught:
            await device.set_tags(["a"])
        assert caught.value.retry_after_s == 7


async def test_a_request_waits_for_a_connection(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with device_client(server) as device, trio.open_nursery() as nursery:
        nursery.start_soon(device.get_tags)
        await wait_all_tasks_blocked()
        visit = await server.welcome()
        await visit.answer(await visit.hear_request("tags.get"), {"tags": []})


async def test_a_request_under_way_when_the_connection_breaks_is_disconnected(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server) as device, trio.open_nursery() as nursery:
        visit = await server.welcome()

        async def vanish() -> None:
            await visit.hear_request("tags.get")
            await visit.vanish()

        nursery.start_soon(vanish)
        with pytest.raises(Disconnected):
            await device.get_tags()


async def test_when_the_server_says_not_to_come_back_everything_raises_why(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server) as device:
        visit = await server.welcome()
        await visit.close(4500)
        with pytest.raises(Displaced):
            await anext(device)
        for ask in (device.get_tags, device.clear_alias, device.wait_connected, device.unregister):
            with pytest.raises(Displaced):
                await ask()
    assert len(server.tries) == 1


async def test_unregistering_ends_the_loop_and_the_next_start_registers_anew(
    tmp_path: Path, server: ScriptedServer
) -> None:
    path = tmp_path / "id"
    async with device_client(server, identity=path) as device, trio.open_nursery() as nursery:
        visit = await server.visit()
        first = await visit.welcome()

        async def delete() -> None:
            await visit.answer(await visit.hear_request("unregister"), None)
            await visit.close(4503)

        nursery.start_soon(delete)
        await device.unregister()
        assert [message async for message in device] == []
        with pytest.raises(Removed):
            await device.get_tags()
    async with device_client(server, identity=path):
        visit = await server.visit()
        again = await visit.welcome()
    assert "registration_id" not in again
    assert again["install_key"] != first["install_key"]


async def test_what_waits_when_the_block_is_left_is_told(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:

        async def ask(device: DeviceClient) -> None:
            with pytest.raises(Closed):
                await device.set_alias("bob")

        server.is_down = True
        async with device_client(server) as device:
            nursery.start_soon(ask, device)
            await wait_all_tasks_blocked()


async def test_what_waits_when_the_block_is_cancelled_is_told(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:

        async def ask(device: DeviceClient) -> None:
            with pytest.raises(Closed):
                await device.set_alias("bob")

        server.is_down = True
        with trio.move_on_after(1):
            async with device_client(server) as device:
                nursery.start_soon(ask, device)
                await trio.sleep_forever()


async def test_a_device_needs_a_good_url_platform_alias_and_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="http"):
        DeviceClient("http://example.com/", "app")
    with pytest.raises(ValueError, match="symbian"):
        DeviceClient(DEVICE_URL, "app", platform="symbian")
    with pytest.raises(Invalid):
        DeviceClient(DEVICE_URL, "app", alias="two words")
    (tmp_path / "id").write_text("{")
    with pytest.raises(IdentityUnusable):
        async with DeviceClient(DEVICE_URL, "app", identity=tmp_path / "id"):
            pass


async def test_a_disk_that_takes_nothing_more_ends_the_client_by_name(tmp_path: Path, server: ScriptedServer) -> None:
    async with device_client(server, identity=tmp_path / "id") as device:
        visit = await server.welcome()
        await visit.message(1)
        await anext(device)
        (tmp_path / "id.shown").unlink()
        with pytest.raises(IdentityUnusable, match=r"id\.shown"):
            await anext(device)

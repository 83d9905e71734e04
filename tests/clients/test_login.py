from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pushactors import (
    AliasFull,
    DeviceClient,
    IdentityUnusable,
    Invalid,
    PushactorsError,
    RateLimited,
    TooFrequent,
    Unauthorized,
)
from pushactors.wire.jsonrpc import error_frame
from tests.clients.scripted import ScriptedServer, Visit, no_threads
from tests.clients.scripted_client import device_client


@asynccontextmanager
async def meanwhile(task: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Runs `task` beside the block, which waits for its end."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(task)
        await wait_all_tasks_blocked()
        yield


async def as_bob(device: DeviceClient) -> None:
    await device.set_alias("bob")


async def confirm(visit: Visit, alias: str | None) -> None:
    request = await visit.hear_request("alias.set")
    assert request.params == {"alias": alias or ""}
    await visit.answer(request, {"alias": alias, "previous": None})


async def show_all(device: DeviceClient, shown: list[str]) -> None:
    async for message in device:
        shown.append(message.msg_id)


async def test_setting_an_alias_returns_when_the_server_has_confirmed_it(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server) as device:
        visit = await server.welcome()
        async with meanwhile(lambda: as_bob(device)):
            assert device.alias is None
            await confirm(visit, "bob")
        assert device.alias == "bob"
        async with meanwhile(device.clear_alias):
            await confirm(visit, None)
        assert device.alias is None


async def test_from_the_wish_on_nothing_for_anybody_else_is_shown_and_the_answer_declines_it(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    shown: list[str] = []
    async with device_client(server) as device, trio.open_nursery() as nursery:
        visit = await server.welcome("alice")
        nursery.start_soon(show_all, device, shown)
        await visit.message(1, "alice")
        assert await visit.hear_note() == ("received", "1")
        async with meanwhile(lambda: as_bob(device)):
            request = await visit.hear_request("alias.set")
            await visit.message(2, "alice")
            await visit.message(3)
            await wait_all_tasks_blocked()
            assert shown == ["1"]
            await visit.answer(request, {"alias": "bob", "previous": "alice"})
            await visit.message(4, "bob")
        assert await visit.hear_note() == ("declined", "2")
        assert await visit.hear_note() == ("received", "3")
        assert await visit.hear_note() == ("received", "4")
        assert shown == ["1", "3", "4"]
        nursery.cancel_scope.cancel()


async def test_a_refusal_is_raised_and_what_was_held_is_shown(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    shown: list[str] = []
    async with device_client(server) as device, trio.open_nursery() as nursery:
        visit = await server.welcome("alice")
        nursery.start_soon(show_all, device, shown)

        async def ask() -> None:
            with pytest.raises(AliasFull, match="ten"):
                await device.set_alias("bob")

        async with meanwhile(ask):
            await visit.message(1, "alice")
            request = await visit.hear_request("alias.set")
            await wait_all_tasks_blocked()
            assert shown == []
            await visit.refuse(request, AliasFull("It is on ten devices."))
        assert await visit.hear_note() == ("received", "1")
        assert shown == ["1"]
        assert device.alias == "alice"
        await visit.vanish()
        visit = await server.visit()
        assert "alias" not in await visit.welcome("alice")
        nursery.cancel_scope.cancel()


async def test_there_and_back_again_is_told_as_two_changes(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with device_client(server) as device:
        visit = await server.welcome("alice")
        await visit.message(1, "alice")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(device.set_alias, "bob")
            await wait_all_tasks_blocked()
            nursery.start_soon(device.set_alias, "alice")
            await confirm(visit, "bob")
            # Behind the second change it would wait until alice logs in once more (C25).
            assert await visit.hear_note() == ("declined", "1")
            await confirm(visit, "alice")


async def test_a_change_under_way_when_the_connection_breaks_is_named_by_the_next_visit(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server) as device:
        visit = await server.welcome("alice")
        async with meanwhile(lambda: as_bob(device)):
            await visit.hear_request("alias.set")
            await visit.vanish()
            visit = await server.visit()
            assert (await visit.welcome("bob"))["alias"] == "bob"
        assert device.alias == "bob"
        await visit.vanish()
        visit = await server.visit()
        assert "alias" not in await visit.welcome("bob")


async def test_the_alias_of_the_start_is_named_until_it_is_answered(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server, alias="bob") as device:
        visit = await server.visit()
        assert (await visit.hear_request("connect")).params["alias"] == "bob"
        await visit.vanish()
        visit = await server.visit()
        assert (await visit.welcome("bob"))["alias"] == "bob"
        await device.wait_connected()
        await visit.vanish()
        visit = await server.visit()
        assert "alias" not in await visit.welcome("bob")


async def test_a_wish_that_was_not_answered_survives_a_restart(tmp_path: Path, server: ScriptedServer) -> None:
    path = tmp_path / "id"
    async with device_client(server, identity=path) as device:
        visit = await server.welcome("alice")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(device.set_alias, "bob")
            await visit.hear_request("alias.set")
            nursery.cancel_scope.cancel()
    async with device_client(server, identity=path) as device:
        visit = await server.visit()
        assert (await visit.welcome("bob"))["alias"] == "bob"
        await device.wait_connected()
    async with device_client(server, identity=path):
        visit = await server.visit()
        assert "alias" not in await visit.welcome("bob")


async def test_the_alias_of_the_start_is_newer_than_a_wish_in_the_file(tmp_path: Path, server: ScriptedServer) -> None:
    path = tmp_path / "id"
    server.is_down = True
    async with device_client(server, identity=path, alias="bob"):
        pass
    server.is_down = False
    async with device_client(server, identity=path, alias=""):
        visit = await server.visit()
        assert (await visit.welcome())["alias"] == ""


async def test_giving_up_waiting_is_not_giving_up_the_wish(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with device_client(server) as device:
        visit = await server.welcome("alice")
        with trio.move_on_after(5):
            await device.set_alias("bob")
        await visit.message(1, "alice")
        await confirm(visit, "bob")
        assert await visit.hear_note() == ("declined", "1")
        assert device.alias == "bob"


@pytest.mark.parametrize(
    "refusal",
    [AliasFull("no"), Invalid("no", "alias"), Unauthorized("no", "alias_token"), Invalid("no", "alias_token")],
    ids=repr,
)
async def test_an_alias_refused_in_the_greeting_is_raised_to_whoever_awaits_it(
    server: ScriptedServer, autojump_clock: MockClock, refusal: PushactorsError
) -> None:
    async with device_client(server) as device:

        async def ask() -> None:
            with pytest.raises(type(refusal), match="no"):
                await device.set_alias("bob")

        async with meanwhile(ask):
            visit = await server.visit()
            await visit.vanish()
            visit = await server.visit()
            await visit.refuse(await visit.hear_request("connect"), refusal)
            await visit.close(4502)
            visit = await server.visit()
            assert "alias" not in await visit.welcome("alice")
        await device.wait_connected()


async def test_a_refusal_that_nobody_awaits_ends_the_client(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with device_client(server, alias="bob") as device:
        visit = await server.visit()
        await visit.refuse(await visit.hear_request("connect"), AliasFull("no"))
        with pytest.raises(AliasFull):
            await anext(device)
    async with device_client(server) as device:
        visit = await server.welcome("alice")
        with trio.move_on_after(5):
            await device.set_alias("bob")
        await visit.message(1, "alice")
        await visit.refuse(await visit.hear_request("alias.set"), AliasFull("no"))
        with pytest.raises(AliasFull):
            await anext(device)


async def test_a_refusal_that_nobody_awaits_shows_nothing_while_it_is_written_down(
    tmp_path: Path, server: ScriptedServer
) -> None:
    async with device_client(server, identity=tmp_path / "id") as device:
        visit = await server.welcome("alice")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(device.set_alias, "bob")
            request = await visit.hear_request("alias.set")
            nursery.cancel_scope.cancel()
        await visit.message(1, "alice")
        await visit.refuse(request, AliasFull("no"))
        with pytest.raises(AliasFull):
            await anext(device)


async def test_an_alias_named_in_the_greeting_is_not_told_again(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    server.is_down = True
    async with device_client(server) as device:
        async with meanwhile(lambda: as_bob(device)):
            server.is_down = False
            visit = await server.visit()
            assert (await visit.welcome("bob"))["alias"] == "bob"
        async with meanwhile(device.get_tags):
            await visit.answer(await visit.hear_request("tags.get"), {"tags": []})


async def test_a_refused_wish_does_not_end_the_next_start_too(tmp_path: Path, server: ScriptedServer) -> None:
    async with device_client(server, identity=tmp_path / "id", alias="bob") as device:
        visit = await server.visit()
        await visit.refuse(await visit.hear_request("connect"), AliasFull("no"))
        with pytest.raises(AliasFull):
            await device.wait_connected()
    async with device_client(server, identity=tmp_path / "id"):
        visit = await server.visit()
        assert "alias" not in await visit.welcome()


async def test_a_busy_server_is_the_callers_to_decide_about(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with device_client(server) as device:
        visit = await server.welcome()

        async def ask() -> None:
            with pytest.raises(TooFrequent):
                await device.set_alias("bob")

        async with meanwhile(ask):
            await visit.refuse(await visit.hear_request("alias.set"), TooFrequent("Wait.", 3))
        assert device.connected


async def test_a_busy_server_is_asked_again_if_nobody_awaits_the_answer(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server) as device:
        visit = await server.welcome()
        with trio.move_on_after(5):
            await device.set_alias("bob")
        await visit.refuse(await visit.hear_request("alias.set"), RateLimited("Wait.", 3))
        refused_at = trio.current_time()
        await confirm(visit, "bob")
        assert trio.current_time() - refused_at == pytest.approx(3)


async def test_a_wish_that_cannot_be_kept_was_never_made(tmp_path: Path, server: ScriptedServer) -> None:
    shown: list[str] = []
    async with device_client(server, identity=tmp_path / "id") as device, trio.open_nursery() as nursery:
        visit = await server.welcome("alice")
        await device.wait_connected()
        nursery.start_soon(show_all, device, shown)
        # Where the draft of the file would be written.
        (tmp_path / "id.new").mkdir()

        async def ask() -> None:
            with pytest.raises(IdentityUnusable):
                await device.set_alias("bob")

        with no_threads():
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            await visit.message(1, "alice")
            await wait_all_tasks_blocked()
            assert shown == []
        assert await visit.hear_note() == ("received", "1")
        nursery.cancel_scope.cancel()


async def test_a_change_by_the_app_server_declines_what_was_for_whoever_it_was(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server) as device:
        visit = await server.welcome("alice")
        await visit.message(1, "alice")
        await visit.tell("alias", {"alias": "bob"})
        await visit.message(2, "bob")
        await wait_all_tasks_blocked()
        assert (await anext(device)).msg_id == "2"
        assert await visit.hear_note() == ("declined", "1")
        assert device.alias == "bob"


# --- Signed aliases (C17) --------------------------------------------------------------------------------------


async def test_a_token_goes_with_the_wish_c17(tmp_path: Path, server: ScriptedServer) -> None:
    path = tmp_path / "id"
    async with device_client(server, identity=path, alias="bob", alias_token="of bob") as device:
        visit = await server.visit()
        params = await visit.welcome("bob")
        assert (params["alias"], params["alias_token"]) == ("bob", "of bob")
        await device.wait_connected()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(device.set_alias, "carol", "of carol")
            request = await visit.hear_request("alias.set")
            assert request.params == {"alias": "carol", "alias_token": "of carol"}
            nursery.cancel_scope.cancel()
    async with device_client(server, identity=path) as device:
        visit = await server.visit()
        params = await visit.welcome("carol")
        assert (params["alias"], params["alias_token"]) == ("carol", "of carol")
        await device.wait_connected()
        await visit.vanish()
        visit = await server.visit()
        assert not {"alias", "alias_token"} & (await visit.welcome("carol")).keys()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(device.clear_alias)
            await confirm(visit, None)
    assert "of carol" not in path.read_text()


async def test_an_alias_without_a_token_is_told_without_one_c17(server: ScriptedServer) -> None:
    async with device_client(server, alias="bob"):
        visit = await server.visit()
        assert "alias_token" not in await visit.welcome("bob")


@pytest.mark.parametrize("alias", [None, ""])
async def test_a_token_comes_with_its_alias_c17(server: ScriptedServer, alias: str | None) -> None:
    with pytest.raises(Invalid, match="comes with its alias"):
        device_client(server, alias=alias, alias_token="of bob")


async def test_a_token_does_not_show_in_a_traceback(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with device_client(server, alias="bob", alias_token="hush") as device:
        assert "hush" not in repr(device._visitor.wishes.last)


async def test_a_token_that_the_server_refuses_is_raised_by_name_c17(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server) as device:
        visit = await server.welcome("alice")

        async def ask() -> None:
            with pytest.raises(Unauthorized) as caught:
                await device.set_alias("bob", "of carol")
            assert caught.value.path == "alias_token"

        async with meanwhile(ask):
            await visit.refuse(await visit.hear_request("alias.set"), Unauthorized("no", "alias_token"))
        assert device.alias == "alice"
        assert device.connected


async def test_wrong_credentials_of_the_device_are_not_a_refusal_of_its_alias_c17(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server, alias="bob", alias_token="of bob") as device:
        visit = await server.visit()
        await visit.refuse(await visit.hear_request("connect"), Unauthorized("The device_secret does not fit."))
        with pytest.raises(Unauthorized, match="device_secret"):
            await anext(device)


@pytest.mark.parametrize(("refusal", "code"), [(Unauthorized("no", "alias_token"), 4501), (AliasFull("no"), 4502)])
async def test_a_refusal_of_the_alias_is_dealt_with_although_the_server_closes_behind_it(
    tmp_path: Path, server: ScriptedServer, refusal: PushactorsError, code: int
) -> None:
    """As the server does: the answer and the close frame, in one piece."""
    async with device_client(server, identity=tmp_path / "id") as device, trio.open_nursery() as nursery:
        visit = await server.welcome("alice")
        await device.wait_connected()

        async def ask() -> None:
            with pytest.raises(type(refusal), match="no"):
                await device.set_alias("bob", "of carol")

        nursery.start_soon(ask)
        await visit.hear_request("alias.set")
        await visit.vanish()
        visit = await server.visit()
        request = await visit.hear_request("connect")
        with no_threads():
            await visit.say_and_close(error_frame(request.id, refusal), code)
            await wait_all_tasks_blocked()
        visit = await server.visit()
        assert "alias" not in await visit.welcome("alice")
        await device.wait_connected()
    assert b'"bob"' not in (tmp_path / "id").read_bytes()

"""A device client with a tray: from the wire to what is drawn, and back (C10, C14, C22, C23)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pushactors import (
    AliasFull,
    Connected,
    DeviceClient,
    DeviceEvent,
    IdentityUnusable,
    ProtocolBroken,
    RateLimited,
    Recalled,
    TooFrequent,
    Tray,
)
from pushactors.clients import durable
from pushactors.wire.jsonrpc import Note, Request
from tests.clients.scripted import ScriptedServer, Visit, no_threads
from tests.clients.scripted_client import device_client


class Screen:
    """An application that draws what is in the tray, and says so."""

    def __init__(self, tray: Tray) -> None:
        self.tray = tray
        self.drawn: list[str] = []
        """What was new, in order."""
        self.is_on = True

    async def run(self) -> None:
        async for entries in self.tray:
            if not self.is_on:
                continue
            self.drawn += [entry.msg_id for entry in entries if not entry.is_shown]
            await self.tray.shown(*(entry.msg_id for entry in entries))

    @property
    def now(self) -> list[str]:
        return [entry.msg_id for entry in self.tray.entries]


@asynccontextmanager
async def drawing(tray: Tray, *, is_on: bool = True) -> AsyncIterator[Screen]:
    screen = Screen(tray)
    screen.is_on = is_on
    async with trio.open_nursery() as nursery:
        nursery.start_soon(screen.run)
        yield screen
        nursery.cancel_scope.cancel()


async def notify(visit: Visit, msg_id: int, alias: str | None = None, **more: Any) -> None:
    addressed = {} if alias is None else {"alias": alias}
    note = {"msg_id": str(msg_id), "sent_at": 1, "expires_at": None, "notification": {"alert": "x"}}
    await visit.tell("message", {**note, **addressed, **more})


CUSTOM: dict[str, Any] = {"message": {"msg_content": "c"}}


async def custom(visit: Visit, msg_id: int) -> None:
    await visit.tell("message", {"msg_id": str(msg_id), "sent_at": 1, "expires_at": None, **CUSTOM})


async def hear_received(visit: Visit, msg_id: int) -> None:
    """Acknowledgements up to that of this one."""
    while (note := await visit.hear_note()) != ("received", str(msg_id)):
        assert note[0] == "received"


async def answer_barrier(visit: Visit) -> None:
    await visit.answer(await visit.hear_request("alias.get"), {"alias": None})


# --- From the wire to the screen -------------------------------------------------------------------------------


async def test_a_notification_is_stored_then_shown_then_acknowledged(tmp_path: Path, server: ScriptedServer) -> None:
    tray = Tray(tmp_path / "tray")
    async with device_client(server, tray=tray), drawing(tray, is_on=False) as screen:
        visit = await server.welcome()
        await notify(visit, 1)
        await notify(visit, 2)
        while len(tray.entries) < 2:
            await tray.changed.park()
        await wait_all_tasks_blocked()
        other = Tray(tmp_path / "tray")
        await other.load()
        assert [entry.msg_id for entry in other.entries] == ["1", "2"]
        assert screen.drawn == []
        await tray.shown("1")
        assert await visit.hear_note() == ("received", "1")
        await tray.shown("2")
        assert await visit.hear_note() == ("received", "2")


async def test_what_was_acknowledged_as_shown_is_on_the_disk_as_shown_c10(
    tmp_path: Path, server: ScriptedServer
) -> None:
    tray = Tray(tmp_path / "tray")
    async with device_client(server, tray=tray), drawing(tray) as screen:
        visit = await server.welcome()
        await notify(visit, 1)
        assert await visit.hear_note() == ("received", "1")
        other = Tray(tmp_path / "tray")
        await other.load()
        assert [entry.is_shown for entry in other.entries] == [True]
        assert screen.drawn == ["1"]


async def test_what_was_not_acknowledged_and_comes_again_is_shown_once_c10(
    tmp_path: Path, server: ScriptedServer
) -> None:
    drawn = []
    for _ in range(2):
        tray = Tray(tmp_path / "tray")
        async with device_client(server, tray=tray, identity=tmp_path / "id"), drawing(tray) as screen:
            for _ in range(2):
                visit = await server.welcome()
                await notify(visit, 1)
                assert await visit.hear_note() == ("received", "1")
                await visit.vanish()
            drawn += screen.drawn
            assert screen.now == ["1"]
    assert drawn == ["1"]


async def test_messages_go_to_the_application_and_both_parts_to_both(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    tray = Tray()
    async with device_client(server, tray=tray) as device, drawing(tray) as screen:
        visit = await server.welcome()
        await notify(visit, 1)
        await notify(visit, 2, **CUSTOM)
        await custom(visit, 3)
        await notify(visit, 4)
        assert await visit.hear_note() == ("received", "1")
        assert (await anext(device)).msg_id == "2"
        await wait_all_tasks_blocked()
        assert screen.drawn == ["1", "2", "4"]
        # The fourth is shown, but the third was not taken.
        assert (await anext(device)).msg_id == "3"
        assert await visit.hear_note() == ("received", "2")
        with trio.move_on_after(1):
            await anext(device)
        assert await visit.hear_note() == ("received", "4")


async def test_a_message_taken_but_not_shown_is_not_acknowledged(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    tray = Tray()
    async with device_client(server, tray=tray) as device:
        visit = await server.welcome()
        await notify(visit, 1, **CUSTOM)
        await custom(visit, 2)
        for _ in range(2):
            await device.acknowledge(await anext(device))
        await wait_all_tasks_blocked()
        await tray.shown("1")
        assert await visit.hear_note() == ("received", "2")


async def test_a_message_without_any_part_for_anybody_is_acknowledged(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_client(server, tray=Tray()):
        visit = await server.welcome()
        await visit.tell("message", {"msg_id": "1", "sent_at": 1})
        assert await visit.hear_note() == ("received", "1")


async def test_a_replacement_is_shown_and_both_are_acknowledged_c23(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    tray = Tray()
    async with device_client(server, tray=tray), drawing(tray) as screen:
        visit = await server.welcome()
        await notify(visit, 3)
        await notify(visit, 4)
        await hear_received(visit, 4)
        await notify(visit, 5, override_msg_id="3")
        assert await visit.hear_note() == ("received", "5")
        await notify(visit, 2, override_msg_id="3")
        assert await visit.hear_note() == ("received", "2")
        assert screen.now == ["5", "4"]
        assert screen.drawn == ["3", "4", "5"]


async def test_a_custom_message_behind_what_nobody_draws_is_given_out_and_not_acknowledged(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    tray = Tray()
    async with device_client(server, tray=tray) as device:
        visit = await server.welcome()
        await notify(visit, 1)
        await custom(visit, 2)
        await device.acknowledge(await anext(device))
    assert await visit.closed_with() == 1000


async def test_a_tray_that_cannot_be_written_ends_the_client_by_name(tmp_path: Path, server: ScriptedServer) -> None:
    (tmp_path / "folder").mkdir()
    tray = Tray(tmp_path / "folder" / "tray")
    async with device_client(server, tray=tray) as device:
        visit = await server.welcome()
        await device.wait_connected()
        (tmp_path / "folder" / "tray").unlink()
        (tmp_path / "folder").rmdir()
        await notify(visit, 1)
        with pytest.raises(IdentityUnusable, match="tray"):
            await anext(device)


async def test_a_tray_that_cannot_be_read_is_refused_at_the_start(tmp_path: Path, server: ScriptedServer) -> None:
    (tmp_path / "tray").write_text("{")
    with pytest.raises(IdentityUnusable, match="tray"):
        async with device_client(server, tray=Tray(tmp_path / "tray")):
            pass


@pytest.mark.parametrize("method", ["message", "recall"])
async def test_a_msg_id_that_is_none_ends_the_client(
    server: ScriptedServer, autojump_clock: MockClock, method: str
) -> None:
    async with device_client(server, tray=Tray()) as device:
        visit = await server.welcome()
        await visit.tell(method, {"msg_id": "x", "sent_at": 1})
        with pytest.raises(ProtocolBroken):
            await anext(device)


# --- The fence -------------------------------------------------------------------------------------------------


async def test_what_is_for_anybody_else_is_hidden_from_the_wish_on_and_leaves_when_it_is_granted_c14(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    tray = Tray()
    async with device_client(server, tray=tray) as device, drawing(tray) as screen:
        visit = await server.welcome("alice")
        await notify(visit, 1, "alice")
        await notify(visit, 2)
        await hear_received(visit, 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(device.set_alias, "bob")
            request = await visit.hear_request("alias.set")
            await notify(visit, 3, "alice")
            await notify(visit, 4)
            await wait_all_tasks_blocked()
            assert screen.now == ["2"]
            await visit.answer(request, {"alias": "bob", "previous": "alice"})
        assert await visit.hear_note() == ("declined", "3")
        assert await visit.hear_note() == ("received", "4")
        assert screen.now == ["2", "4"]
        assert screen.drawn == ["1", "2", "4"]


async def test_what_is_drawn_is_taken_down_before_the_wish_is_written_down_c14(
    tmp_path: Path, server: ScriptedServer
) -> None:
    tray, seen = Tray(), list[list[str]]()

    async def watch() -> None:
        async for entries in tray:
            seen.append([entry.msg_id for entry in entries])

    async with device_client(server, tray=tray, identity=tmp_path / "id") as device, trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        visit = await server.welcome("alice")
        await device.wait_connected()
        await notify(visit, 1, "alice")
        while not tray.entries:
            await tray.changed.park()
        await wait_all_tasks_blocked()
        with no_threads():
            nursery.start_soon(device.set_alias, "bob")
            await wait_all_tasks_blocked()
            assert seen == [[], ["1"], []]
        nursery.cancel_scope.cancel()


async def test_what_was_hidden_comes_back_when_the_wish_is_refused_c14(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    tray = Tray()
    async with device_client(server, tray=tray) as device, drawing(tray) as screen:
        visit = await server.welcome("alice")
        await notify(visit, 1, "alice")
        assert await visit.hear_note() == ("received", "1")

        async def ask() -> None:
            with pytest.raises(AliasFull):
                await device.set_alias("bob")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            request = await visit.hear_request("alias.set")
            await notify(visit, 2, "alice")
            await wait_all_tasks_blocked()
            assert screen.now == []
            await visit.refuse(request, AliasFull("no"))
        assert await visit.hear_note() == ("received", "2")
        assert screen.now == ["1", "2"]


async def test_what_is_stored_and_not_shown_is_declined_when_the_account_changes_c14(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    tray = Tray()
    async with device_client(server, tray=tray):
        visit = await server.welcome("alice")
        await notify(visit, 1, "alice")
        await notify(visit, 2, "alice")
        await wait_all_tasks_blocked()
        await tray.shown("1")
        assert await visit.hear_note() == ("received", "1")
        await visit.tell("alias", {"alias": "bob"})
        await notify(visit, 3, "bob")
        assert await visit.hear_note() == ("declined", "2")
        await wait_all_tasks_blocked()
        assert [entry.msg_id for entry in tray.entries] == ["3"]


async def change(device: DeviceClient, visit: Visit, alias: str, previous: str, *declined: int) -> None:
    """The application asks for another account, and gets it. `declined`: what is told before that."""
    async with trio.open_nursery() as nursery:
        if alias:
            nursery.start_soon(device.set_alias, alias)
        else:
            nursery.start_soon(device.clear_alias)
        for msg_id in declined:
            assert await visit.hear_note() == ("declined", str(msg_id))
        request = await visit.hear_request("alias.set")
        await visit.answer(request, {"alias": alias or None, "previous": previous or None})


@pytest.mark.parametrize("is_kept", [False, True])
async def test_what_was_declined_undrawn_and_comes_again_is_drawn_before_it_is_acknowledged_c25(
    tmp_path: Path, server: ScriptedServer, is_kept: bool
) -> None:
    tray = Tray(tmp_path / "tray" if is_kept else None)
    async with device_client(server, tray=tray) as device:
        visit = await server.welcome("anna")
        await device.wait_connected()
        await notify(visit, 1, "anna")
        while not tray.entries:
            await tray.changed.park()
        await change(device, visit, "", "anna")
        # Told before she logs in again: behind that it would wait for the next time.
        await change(device, visit, "anna", "", 1)
        async with drawing(tray, is_on=False) as screen:
            await notify(visit, 1, "anna")
            while not tray.entries:
                await tray.changed.park()
            assert not tray.is_settled("1")
            await tray.shown("1")
            assert await visit.hear_note() == ("received", "1")
            assert screen.now == ["1"]


async def test_what_a_crash_left_undrawn_is_drawn_after_somebody_else_was_here_c25(
    tmp_path: Path, server: ScriptedServer
) -> None:
    tray = Tray(tmp_path / "tray")
    async with device_client(server, tray=tray, identity=tmp_path / "id"):
        visit = await server.welcome("anna")
        await notify(visit, 1, "anna")
        while not tray.entries:
            await tray.changed.park()
    for alias in ("bert", "anna"):
        tray = Tray(tmp_path / "tray")
        async with device_client(server, tray=tray, identity=tmp_path / "id", alias=alias) as device:
            visit = await server.welcome(alias)
            await device.wait_connected()
            assert tray.entries == ()
            if alias == "anna":
                async with drawing(tray) as screen:
                    await notify(visit, 1, "anna")
                    assert await visit.hear_note() == ("received", "1")
                    assert screen.drawn == ["1"]


async def test_an_undrawn_notification_is_declined_although_its_custom_message_was_taken_and_each_comes_once_c25(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    tray = Tray()
    async with device_client(server, tray=tray) as device:
        visit = await server.welcome("anna")
        await notify(visit, 1, "anna", **CUSTOM)
        await device.acknowledge(await anext(device))
        await change(device, visit, "", "anna")
        await change(device, visit, "anna", "", 1)
        async with drawing(tray) as screen:
            await notify(visit, 1, "anna", **CUSTOM)
            await notify(visit, 2, **CUSTOM)
            assert (await anext(device)).msg_id == "2"
            assert await visit.hear_note() == ("received", "1")
            assert screen.drawn == ["1", "2"]


async def test_nothing_for_who_is_only_asked_for_lies_in_the_tray_c14(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    tray = Tray()
    async with device_client(server, tray=tray) as device:
        visit = await server.welcome("alice")

        async def ask() -> None:
            with pytest.raises(AliasFull):
                await device.set_alias("bob")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            request = await visit.hear_request("alias.set")
            await notify(visit, 1, "bob")
            await wait_all_tasks_blocked()
            assert not tray.knows("1")
            await visit.refuse(request, AliasFull("no"))
        assert await visit.hear_note() == ("declined", "1")
        assert not tray.knows("1")


async def test_what_was_shown_is_received_although_the_account_changed_before_it_could_be_told_c14(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    tray = Tray()
    async with device_client(server, tray=tray) as device, drawing(tray):
        visit = await server.welcome("alice")
        await custom(visit, 1)
        await notify(visit, 2, "alice")
        await wait_all_tasks_blocked()
        await visit.tell("alias", {"alias": "bob"})
        await wait_all_tasks_blocked()
        await device.acknowledge(await anext(device))
        assert await visit.hear_note() == ("received", "2")


async def test_the_file_forgets_a_wish_when_the_tray_knows_who_is_logged_in_c14(
    tmp_path: Path, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a crash in between would show the one what is for the other."""
    tray, replace, forgot = Tray(tmp_path / "tray"), durable.replace, list[bool]()

    def replacing(path: Path, content: bytes) -> None:
        if path.name == "id" and b'"bob"' not in content and b"device-1" in content:
            forgot.append(b'"bob"' in (tmp_path / "tray").read_bytes())
        replace(path, content)

    async with device_client(server, tray=tray, identity=tmp_path / "id") as device:
        visit = await server.welcome("alice")
        await device.wait_connected()
        monkeypatch.setattr(durable, "replace", replacing)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(device.set_alias, "bob")
            request = await visit.hear_request("alias.set")
            await visit.answer(request, {"alias": "bob", "previous": "alice"})
        while not forgot:
            await wait_all_tasks_blocked(0.001)
    assert forgot == [True]


async def test_a_greeting_that_names_another_alias_empties_the_tray_of_the_earlier_one_c23(
    tmp_path: Path, server: ScriptedServer
) -> None:
    tray = Tray(tmp_path / "tray")
    async with device_client(server, tray=tray, identity=tmp_path / "id"), drawing(tray):
        visit = await server.welcome("alice")
        await notify(visit, 1, "alice")
        await notify(visit, 2)
        await hear_received(visit, 2)
    tray = Tray(tmp_path / "tray")
    async with device_client(server, tray=tray, identity=tmp_path / "id") as device:
        assert len(tray.entries) == 2
        await server.welcome("bob")
        await device.wait_connected()
        assert [entry.msg_id for entry in tray.entries] == ["2"]
    other = Tray(tmp_path / "tray")
    await other.load()
    assert [entry.msg_id for entry in other.entries] == ["2"]


async def test_a_wish_that_was_not_answered_hides_at_the_next_start_too_c14(
    tmp_path: Path, server: ScriptedServer
) -> None:
    tray = Tray(tmp_path / "tray")
    async with device_client(server, tray=tray, identity=tmp_path / "id") as device, drawing(tray):
        visit = await server.welcome("alice")
        await notify(visit, 1, "alice")
        assert await visit.hear_note() == ("received", "1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(device.set_alias, "bob")
            await visit.hear_request("alias.set")
            nursery.cancel_scope.cancel()
    # Closing is no refusal.
    assert tray.entries == ()
    seen: list[list[str]] = []
    tray = Tray(tmp_path / "tray")
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            async for entries in tray:
                seen.append([entry.msg_id for entry in entries])

        nursery.start_soon(watch)
        async with device_client(server, tray=tray, identity=tmp_path / "id") as device:
            visit = await server.visit()
            assert (await visit.welcome("bob"))["alias"] == "bob"
            await device.wait_connected()
        nursery.cancel_scope.cancel()
    assert seen == [[]]


async def test_a_refusal_that_ends_the_client_sets_nothing_free_c14(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    tray = Tray()
    async with device_client(server, tray=tray) as device, drawing(tray) as screen:
        visit = await server.welcome("alice")
        await notify(visit, 1, "alice")
        assert await visit.hear_note() == ("received", "1")
        with trio.move_on_after(5):
            await device.set_alias("bob")
        await visit.refuse(await visit.hear_request("alias.set"), AliasFull("no"))
        with pytest.raises(AliasFull):
            await anext(device)
        assert screen.now == []


# --- Recall ----------------------------------------------------------------------------------------------------


async def test_a_recalled_notification_leaves_and_the_answer_says_what_the_user_did_c22(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    tray, events = Tray(), list[DeviceEvent]()
    async with device_client(server, tray=tray, on_event=events.append), drawing(tray) as screen:
        visit = await server.welcome()
        for msg_id in (1, 2, 3):
            await notify(visit, msg_id)
        await hear_received(visit, 3)
        await tray.open("2")
        assert await visit.hear_note() == ("opened", "2")
        await answer_barrier(visit)
        await tray.dismiss("3")
        assert await visit.hear_note() == ("dismissed", "3")
        await answer_barrier(visit)
        for msg_id, answer in [("1", "withdrawn"), ("2", "opened"), ("3", "dismissed"), ("1", "withdrawn")]:
            await visit.tell("recall", {"msg_id": msg_id})
            assert await visit.hear_note() == (answer, msg_id)
        assert screen.now == []
        assert events[1:] == [Recalled("1")]


async def test_a_recalled_notification_that_was_not_shown_never_is_and_nobody_hears_of_it_c22(
    tmp_path: Path, server: ScriptedServer
) -> None:
    tray, events = Tray(tmp_path / "tray"), list[DeviceEvent]()
    async with device_client(server, tray=tray, on_event=events.append) as device:
        visit = await server.welcome()
        await device.wait_connected()
        async with drawing(tray, is_on=False) as screen:
            await notify(visit, 1)
            while not tray.entries:
                await tray.changed.park()
            await visit.tell("recall", {"msg_id": "1"})
            await visit.tell("recall", {"msg_id": "9"})
            heard = [await visit.hear_note() for _ in range(3)]
            assert ("withdrawn", "1") in heard
            assert ("withdrawn", "9") in heard
            other = Tray(tmp_path / "tray")
            await other.load()
            assert other.entries == ()
            screen.is_on = True
            await notify(visit, 1)
            await notify(visit, 9)
            await notify(visit, 10)
            while not screen.drawn:
                await tray.changed.park()
            await hear_received(visit, 10)
            assert screen.drawn == ["10"]
    assert not [event for event in events if isinstance(event, Recalled)]


async def test_a_recall_takes_the_custom_message_with_it_c22(server: ScriptedServer, autojump_clock: MockClock) -> None:
    tray, events = Tray(), list[DeviceEvent]()
    async with device_client(server, tray=tray, on_event=events.append) as device, drawing(tray) as screen:
        visit = await server.welcome()
        await notify(visit, 1, **CUSTOM)
        await notify(visit, 2, **CUSTOM)
        await wait_all_tasks_blocked()
        await visit.tell("recall", {"msg_id": "1"})
        await wait_all_tasks_blocked()
        assert (await anext(device)).msg_id == "2"
        assert screen.now == ["2"]
        # The user has seen its notification.
        assert events[1:] == [Recalled("1")]


# --- Without a tray --------------------------------------------------------------------------------------------


async def test_without_a_tray_a_recalled_message_that_was_not_shown_is_not_and_nobody_hears_of_it_c22(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    events: list[DeviceEvent] = []
    async with device_client(server, on_event=events.append) as device:
        visit = await server.welcome()
        await visit.message(1)
        await visit.message(2)
        await wait_all_tasks_blocked()
        await visit.tell("recall", {"msg_id": "1"})
        await visit.tell("recall", {"msg_id": "1"})
        assert await visit.hear_note() == ("received", "1")
        assert await visit.hear_note() == ("withdrawn", "1")
        await visit.vanish()
        visit = await server.welcome()
        await visit.tell("recall", {"msg_id": "1"})
        assert await visit.hear_note() == ("withdrawn", "1")
        await visit.message(2)
        assert (await anext(device)).msg_id == "2"
    assert not [event for event in events if isinstance(event, Recalled)]


async def test_without_a_tray_the_application_is_told_of_what_it_has_c22(
    tmp_path: Path, server: ScriptedServer
) -> None:
    events: list[DeviceEvent] = []
    path = tmp_path / "id"
    async with device_client(server, identity=path, on_event=events.append) as device:
        visit = await server.welcome()
        await visit.message(1)
        await visit.message(2)
        await device.acknowledge(await anext(device))
        assert await visit.hear_note() == ("received", "1")
        in_hand = await anext(device)
        await visit.tell("recall", {"msg_id": "1"})
        assert await visit.hear_note() == ("withdrawn", "1")
        await visit.tell("recall", {"msg_id": "2"})
        assert await visit.hear_note() == ("withdrawn", "2")
        # That was its acknowledgement.
        await device.acknowledge(in_hand)
    async with device_client(server, identity=path, on_event=events.append) as device:
        visit = await server.welcome()
        await visit.tell("recall", {"msg_id": "2"})
        assert await visit.hear_note() == ("withdrawn", "2")
    assert [event for event in events if isinstance(event, Recalled)] == [Recalled(msg_id) for msg_id in "122"]


async def test_a_recall_right_behind_the_greeting_is_heard_of_after_the_connection(
    tmp_path: Path, server: ScriptedServer
) -> None:
    events: list[DeviceEvent] = []
    async with device_client(server, identity=tmp_path / "id") as device:
        visit = await server.welcome()
        await visit.message(1)
        await device.acknowledge(await anext(device))
    async with device_client(server, identity=tmp_path / "id", on_event=events.append):
        visit = await server.welcome()
        await visit.tell("recall", {"msg_id": "1"})
        assert await visit.hear_note() == ("withdrawn", "1")
    assert events[:2] == [Connected("device-1", None, 0), Recalled("1")]


# --- What the user did -----------------------------------------------------------------------------------------


async def hear_marks(visit: Visit) -> tuple[list[tuple[str, str]], Request]:
    """The marks up to the request that is to be answered when they are durable."""
    marks = []
    while isinstance(entry := await visit.hear(), Note):
        marks.append((entry.method, str(entry.params["msg_id"])))
    assert entry.method == "alias.get"
    return [mark for mark in marks if mark[0] != "received"], entry


async def filled(tray: Tray, device: DeviceClient, visit: Visit, *msg_ids: int, **more: Any) -> None:
    for msg_id in msg_ids:
        await notify(visit, msg_id, **more)
    while len(tray.entries) < len(msg_ids):
        await tray.changed.park()
    await tray.shown(*map(str, msg_ids))
    assert await visit.hear_note() == ("received", str(msg_ids[-1]))


async def test_marks_are_told_on_each_visit_until_an_answer_came_behind_them(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    tray = Tray()
    async with device_client(server, tray=tray) as device:
        visit = await server.welcome()
        await filled(tray, device, visit, 1, 2, 3)
        await tray.open("1")
        marks, _ = await hear_marks(visit)
        assert marks == [("opened", "1")]
        await tray.dismiss("2")
        await visit.vanish()
        visit = await server.welcome()
        marks, request = await hear_marks(visit)
        assert marks == [("opened", "1"), ("dismissed", "2")]
        await visit.answer(request, {"alias": None})
        await wait_all_tasks_blocked()
        assert tray.debts == {}
        await visit.vanish()
        visit = await server.welcome()
        await tray.open("3")
        marks, _ = await hear_marks(visit)
        assert marks == [("opened", "3")]


async def test_marks_survive_a_restart_and_may_be_made_while_away(tmp_path: Path, server: ScriptedServer) -> None:
    tray = Tray(tmp_path / "tray")
    async with device_client(server, tray=tray) as device:
        await filled(tray, device, await server.welcome(), 1)
    await Tray(tmp_path / "tray").open("1")
    tray = Tray(tmp_path / "tray")
    async with device_client(server, tray=tray):
        visit = await server.welcome()
        marks, request = await hear_marks(visit)
        assert marks == [("opened", "1")]
        await visit.answer(request, {"alias": None})
        while tray.debts:
            await tray.changed.park()
    tray = Tray(tmp_path / "tray")
    await tray.load()
    assert tray.debts == {}


async def test_a_mark_made_right_before_the_end_is_told(server: ScriptedServer, autojump_clock: MockClock) -> None:
    tray = Tray()
    async with device_client(server, tray=tray) as device:
        visit = await server.welcome()
        await filled(tray, device, visit, 1, 2)
        await tray.open("1")
        await hear_marks(visit)
        # The first is not confirmed yet.
        await tray.dismiss("2")
    assert await visit.hear_note() == ("dismissed", "2")


@pytest.mark.parametrize("refusal", [RateLimited("later", 7), TooFrequent("later", 7)], ids=repr)
async def test_an_answer_that_is_none_yet_is_asked_for_again(
    server: ScriptedServer, autojump_clock: MockClock, refusal: RateLimited
) -> None:
    tray = Tray()
    async with device_client(server, tray=tray) as device:
        visit = await server.welcome()
        await filled(tray, device, visit, 1)
        await tray.open("1")
        _, request = await hear_marks(visit)
        await visit.refuse(request, refusal)
        refused_at = trio.current_time()
        marks, request = await hear_marks(visit)
        assert trio.current_time() - refused_at == pytest.approx(7)
        assert marks == [("opened", "1")]
        await visit.answer(request, {"alias": None})
        await wait_all_tasks_blocked()
        assert tray.debts == {}


async def test_a_mark_does_not_acknowledge_a_custom_message_that_was_not_taken(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    tray = Tray()
    async with device_client(server, tray=tray) as device:
        visit = await server.welcome()
        await notify(visit, 1, **CUSTOM)
        await wait_all_tasks_blocked()
        await tray.open("1")
        await wait_all_tasks_blocked()
        assert tray.debts
        await device.acknowledge(await anext(device))
        marks, _ = await hear_marks(visit)
        assert marks == [("opened", "1")]


async def test_a_mark_waits_while_somebody_else_is_wanted_c14(tmp_path: Path, server: ScriptedServer) -> None:
    tray = Tray(tmp_path / "tray")
    async with device_client(server, tray=tray) as device:
        visit = await server.welcome("alice")
        await filled(tray, device, visit, 1, alias="alice")
        async with trio.open_nursery() as nursery:
            with no_threads():
                nursery.start_soon(tray.open, "1")
                await wait_all_tasks_blocked()
                nursery.start_soon(device.set_alias, "bob")
                request = await visit.hear_request("alias.set")
            while not tray.debts:
                await tray.changed.park()
            await wait_all_tasks_blocked()
            # Nothing was told before this.
            nursery.start_soon(device.get_tags)
            await visit.answer(await visit.hear_request("tags.get"), {"tags": []})
            await visit.answer(request, {"alias": "bob", "previous": "alice"})
        marks, _ = await hear_marks(visit)
        assert marks == [("opened", "1")]


async def test_opened_and_dismissed_of_the_client_are_those_of_the_tray(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    tray = Tray()
    async with device_client(server, tray=tray) as device:
        visit = await server.welcome()
        await filled(tray, device, visit, 1, 2)
        await device.opened("1")
        await device.dismissed("2")
        assert tray.entries == ()
        marks, request = await hear_marks(visit)
        await visit.answer(request, {"alias": None})
        assert marks[0] == ("opened", "1")
        await device.opened("7")

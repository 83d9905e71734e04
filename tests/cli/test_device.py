"""A device at the terminal: what it prints, what it says about itself, and when it ends."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from pushactors import AppClient, Displaced, NoSuchApp
from pushactors.cli.access import Access
from pushactors.cli.device import show_messages
from pushactors.settings import App
from pushactors.wire.ids import AppKey
from tests.cli.processes import Process, Server, until, until_true

Output = pytest.CaptureFixture[str]


@pytest.fixture
def show(access: Access, tmp_path: Path) -> Any:
    """`show_messages` as the command calls it without arguments."""
    return partial(
        show_messages,
        access,
        identity=tmp_path / "device.json",
        alias=None,
        tags=None,
        platform="other",
        as_json=False,
        count=None,
    )


async def is_online(app: AppClient) -> bool:
    return any(device.online for device in await app.devices())


async def shown(show: Any, access: Access, capsys: Output, **push: Any) -> tuple[str, str]:
    """What `show` prints of one push, and what it says beside it."""
    async with access.app_client() as app, trio.open_nursery() as nursery:
        nursery.start_soon(partial(show, count=1))
        await until_true(lambda: is_online(app), "the connection")
        await app.push(**{"audience": "all", **push})
    return capsys.readouterr()


@pytest.mark.parametrize(
    ("push", "line"),
    [
        ({"notification": {"alert": "hello"}}, "hello"),
        ({"notification": {"alert": "hello", "title": "News"}}, "News – hello"),
        ({"notification": {"title": "News", "other": {"title": "For you"}}}, "For you"),
        ({"message": {"msg_content": "to the app", "title": "What"}}, "What – to the app"),
        ({"notification": {"alert": "seen"}, "message": {"msg_content": "unseen"}}, "seen – unseen"),
    ],
)
async def test_a_message_is_a_line(show: Any, access: Access, capsys: Output, push: Any, line: str) -> None:
    out, err = await shown(show, access, capsys, **push)
    assert re.fullmatch(rf"\d\d:\d\d:\d\d \[\d+\] {line}\n", out)
    assert re.fullmatch(r"Connected as [a-z2-7]{26}; nobody is logged in; 0 waiting\.\n", err)


async def test_a_message_to_an_alias_says_so(show: Any, access: Access, capsys: Output) -> None:
    push = {"audience": {"alias": ["alice"]}, "notification": {"alert": "hello"}}
    out, err = await shown(partial(show, alias="alice"), access, capsys, **push)
    assert re.fullmatch(r"\d\d:\d\d:\d\d \[\d+ to alice\] hello\n", out)
    assert "; alice is logged in; " in err


async def test_as_json_a_message_is_an_object_with_what_came(show: Any, access: Access, capsys: Output) -> None:
    out, _ = await shown(partial(show, as_json=True), access, capsys, notification={"alert": "hello"})
    message = json.loads(out)
    assert message.keys() == {"msg_id", "sent_at", "expires_at", "notification"}
    assert message["notification"] == {"alert": "hello"}


async def test_what_was_printed_is_acknowledged_and_not_printed_again(
    show: Any, access: Access, capsys: Output
) -> None:
    await shown(show, access, capsys, notification={"alert": "first"})

    async def is_received() -> bool:
        return (await app.pushes())[0].received == 1

    async with access.app_client() as app:
        await until_true(is_received, "the acknowledgement")
    out, err = await shown(show, access, capsys, notification={"alert": "second"})
    assert "first" not in out
    assert "second" in out
    assert "; 0 waiting." in err


async def test_where_the_app_demands_it_a_user_is_logged_in_with_a_token_c17(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.write(server.app(more='alias_tokens = "required"'))
    await server.start()
    try:
        await server.run("push", "--alias", "anna", "--hold", "hello")
        refused = await server.run("device", "--alias", "anna", "--count", "1")
        assert refused.code == 1
        assert "alias_token" in refused.err
        token = (await server.run("token", "anna")).out.strip()
        shown = await server.run("device", "--alias", "anna", "--alias-token", token, "--count", "1")
        assert (shown.code, shown.out.endswith(" to anna] hello\n")) == (0, True), shown
    finally:
        server.kill()


async def test_tags_and_platform_are_told(show: Any, access: Access, capsys: Output) -> None:
    await shown(partial(show, tags=["b", "a"], platform="ios"), access, capsys, notification={"alert": "hello"})
    async with access.app_client() as app:
        [device] = await app.devices()
    assert (device.platform, device.tags, device.alias) == ("ios", ("a", "b"), None)


async def test_who_is_logged_in_and_out_by_the_app_server_is_said(show: Any, access: Access, capsys: Output) -> None:
    async with access.app_client() as app, trio.open_nursery() as nursery:
        nursery.start_soon(partial(show, count=1))
        await until(lambda: "Connected as" in capsys.readouterr().err, "the connection")
        [device] = await app.devices()
        await app.set_device(device.registration_id, alias="alice")
        await app.set_device(device.registration_id, alias="")
        await app.push(audience="all", notification={"alert": "hello"})
    err = capsys.readouterr().err
    assert err == "The app server logged alice in.\nThe app server logged the user out.\n"


async def test_a_second_terminal_of_the_same_device_ends_the_first_with_advice(
    show: Any, access: Access, capsys: Output, tmp_path: Path
) -> None:
    endings: list[BaseException] = []

    async def first() -> None:
        try:
            await show()
        except* Displaced as displaced:
            endings.extend(displaced.exceptions)

    async with access.app_client() as app, trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await until_true(lambda: is_online(app), "the first connection")
        nursery.start_soon(partial(show, count=1))
        await until(lambda: bool(endings), "the end of the first")
        await app.push(audience="all", notification={"alert": "for the second"})
    out, err = capsys.readouterr()
    assert out.count("for the second") == 1
    assert "Disconnected (displaced); not coming back.\n" in err
    assert f"For a second device on this machine, name another file than {tmp_path / 'device.json'}" in err


async def test_it_says_why_it_is_not_coming_back_and_ends(show: Any, access: Access, capsys: Output) -> None:
    app = App(app_key=AppKey("nobody-knows-it"), master_secret="sixteen-is-enough")
    endings: list[BaseException] = []
    try:
        await show_messages(replace(access, app=app), **show.keywords)
    except* NoSuchApp as refused:
        endings.extend(refused.exceptions)
    assert len(endings) == 1
    err = capsys.readouterr().err
    assert err == "Disconnected (No app with this app_key is served here.); not coming back.\n"


async def test_a_message_that_is_taken_back_gets_a_line_that_says_so_c22(
    show: Any, access: Access, capsys: Output
) -> None:
    said = ""

    def has_said(text: str) -> bool:
        nonlocal said
        said += capsys.readouterr().err
        return text in said

    async with access.app_client() as app, trio.open_nursery() as nursery:
        nursery.start_soon(show)
        await until_true(lambda: is_online(app), "the connection")
        answer = await app.push(audience="all", notification={"alert": "too early"})
        await until_true(lambda: is_received(app), "the acknowledgement")
        await app.recall(answer.msg_id)
        await until(lambda: has_said(f"[{answer.msg_id}] was taken back.\n"), "the recall")
        nursery.cancel_scope.cancel()


async def test_each_message_is_printed_once_whenever_the_process_is_killed_c10(
    access: Access, app_key: str, shared_server: Server, tmp_path: Path
) -> None:
    def a_life() -> Process:
        arguments = ["--config", str(shared_server.file), "--app", app_key, "--identity", str(tmp_path / "id")]
        return Process(tmp_path, "device", "device", *arguments)

    device = a_life()
    try:
        async with access.app_client() as app:
            await until_true(lambda: is_online(app), "the connection")
            for number in range(3):
                for each in range(3):
                    await app.push(audience="all", notification={"alert": f"message {number}.{each}."})
                await until_true(lambda: is_received(app), "the acknowledgement")
                device.kill()
                await app.push(audience="all", notification={"alert": f"meanwhile {number}."})
                device = a_life()
            await until_true(lambda: is_received(app), "the acknowledgement")
    finally:
        device.kill()
    lines = [line.split("] ")[1] for line in device.out.splitlines()]
    expected = [(*(f"message {number}.{each}." for each in range(3)), f"meanwhile {number}.") for number in range(3)]
    assert lines == [line for life in expected for line in life]


async def is_received(app: AppClient) -> bool:
    """Whether the last push was."""
    return (await app.pushes())[0].received == 1

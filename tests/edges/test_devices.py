"""The device endpoint: how a stranger's connection becomes a visit, and everything that is refused instead."""

from __future__ import annotations

import re
import secrets
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
import trio.testing
from wsproto.frame_protocol import Opcode

from pushactors.actors import unit
from pushactors.actors.tenant import Limits
from pushactors.domain.aliases import AliasFullPolicy
from pushactors.edges.devices import MAX_MESSAGE_BYTES
from pushactors.node import wall_clock
from tests.edges.serving import (
    APP,
    LIMIT_S,
    OTHER,
    SECRET,
    AppServer,
    Device,
    House,
    Refusal,
    StubbornStore,
    Wall,
    alias_token,
    app_plans,
    frame,
    serving,
    text,
    until,
)

WELCOME = {"registration_id", "alias", "tags", "waiting", "heartbeat", "server_at"}
NO_SUCH_ID = "a" * 26
NO_SECRET = "x" * 43


async def registered(house: House) -> int:
    app = await house.app()
    count = len((await app.call("devices.list"))["devices"])
    await app.leave()
    return count


# --- Registering -------------------------------------------------------------------------------------------------


async def test_who_registers_is_given_an_id_and_a_secret(house: House) -> None:
    device = await house.device()
    assert device.welcome.keys() == WELCOME | {"device_secret"}
    assert re.fullmatch(r"[a-z2-7A-Z0-9]{26}", device.id)
    assert len(device.secret) == 43
    assert device.welcome["alias"] is None
    assert device.welcome["tags"] == []
    assert device.welcome["waiting"] == 0
    assert device.welcome["heartbeat"] == 30
    assert abs(device.welcome["server_at"] - wall_clock()) < 10_000
    assert isinstance(device.welcome["server_at"], int)


async def test_every_registration_is_another_device(house: House) -> None:
    devices = [await house.device() for _ in range(5)]
    assert len({device.id for device in devices}) == 5
    assert len({device.secret for device in devices}) == 5


async def test_who_comes_back_is_recognised_and_told_no_secret(house: House) -> None:
    device = await house.absent(alias="A", tags=["x"])
    again = await house.back(device)
    assert again.welcome.keys() == WELCOME
    assert (again.id, again.welcome["alias"], again.welcome["tags"]) == (device.id, "A", ["x"])
    assert await registered(house) == 1


async def test_the_same_install_key_gets_the_same_registration_and_secret(house: House) -> None:
    first = await house.device(install_key="my-install-key")
    again = await house.device(install_key="my-install-key")
    assert (again.id, again.secret) == (first.id, first.secret)
    assert again.welcome.keys() == WELCOME | {"device_secret"}
    assert await registered(house) == 1
    assert (await house.device(install_key="another-install-key")).id != first.id


async def test_two_at_once_with_one_install_key_are_one_device(house: House) -> None:
    devices = [await house.visitor() for _ in range(5)]
    async with trio.open_nursery() as nursery:
        for device in devices:
            await device.say(device.request("connect", {"app_key": APP, "install_key": "my-install-key"}))
        ids: list[str] = []

        async def hear(device: Device) -> None:
            answer = await device.answer_to({"id": 1})
            ids.append(answer["result"]["registration_id"])

        for device in devices:
            nursery.start_soon(hear, device)
    assert len(set(ids)) == 1
    assert await registered(house) == 1


async def test_an_install_key_of_one_app_says_nothing_in_another(house: House) -> None:
    here = await house.device(install_key="my-install-key")
    there = await house.device(app_key=OTHER, install_key="my-install-key")
    assert (there.id, there.secret) != (here.id, here.secret)


async def test_the_install_key_of_a_deleted_device_registers_anew(house: House) -> None:
    first = await house.device(install_key="my-install-key")
    await first.call("unregister")
    again = await house.device(install_key="my-install-key")
    assert again.id != first.id


async def test_who_comes_by_install_key_may_log_in_as_well(house: House) -> None:
    first = await house.device(install_key="my-install-key", alias="A", platform="ios")
    again = await house.device(install_key="my-install-key", alias="B", tags=["x"])
    assert (again.id, again.welcome["alias"], again.welcome["tags"]) == (first.id, "B", ["x"])
    app = await house.app()
    assert (await app.call("devices.get", registration_id=first.id))["platform"] == "ios"


@pytest.mark.parametrize("key", ["12345678", "x" * 128, "ключ-установки", "中中中中中中中中"])
async def test_an_install_key_has_8_to_128_printable_characters(house: House, key: str) -> None:
    assert (await house.device(install_key=key)).id


@pytest.mark.parametrize("platform", ["android", "ios", "web", "desktop", "other"])
async def test_the_platform_is_what_the_device_says(house: House, app: AppServer, platform: str) -> None:
    device = await house.device(platform=platform)
    assert (await app.call("devices.get", registration_id=device.id))["platform"] == platform


async def test_the_platform_is_other_unless_said_and_stays_unless_changed(house: House, app: AppServer) -> None:
    async def platform() -> str:
        return str((await app.call("devices.get", registration_id=device.id))["platform"])

    device = await house.absent()
    assert await platform() == "other"
    device = await house.back(device, platform="ios")
    assert await platform() == "ios"
    device = await house.back(device)
    assert await platform() == "ios"


# --- Logging in with the connection (C15) ------------------------------------------------------------------------


async def test_an_alias_is_set_with_the_connection_stays_and_is_cleared(house: House) -> None:
    device = await house.device(alias="A")
    assert device.welcome["alias"] == "A"
    device = await house.back(device)
    assert device.welcome["alias"] == "A"
    device = await house.back(device, alias="B")
    assert device.welcome["alias"] == "B"
    device = await house.back(device, alias="")
    assert device.welcome["alias"] is None
    assert await device.call("alias.get") == {"alias": None}


async def test_tags_are_replaced_with_the_connection_stay_and_are_cleared(house: House) -> None:
    device = await house.device(tags=["b", "a", "b"])
    assert device.welcome["tags"] == ["a", "b"]
    device = await house.back(device)
    assert device.welcome["tags"] == ["a", "b"]
    device = await house.back(device, tags=["c"])
    assert device.welcome["tags"] == ["c"]
    device = await house.back(device, tags=[])
    assert device.welcome["tags"] == []


async def test_who_logs_in_on_anothers_device_never_sees_what_waited_there(house: House, app: AppServer) -> None:
    device = await house.absent(alias="A")
    for_a = await app.push({"alias": ["A"]}, notification={"alert": "for A"})
    for_all = await app.push("all", notification={"alert": "for all"})
    device = await house.back(device, alias="B")
    assert device.welcome["waiting"] == 1
    assert (await device.hear_message())["msg_id"] == for_all["msg_id"]
    await device.quiet()
    assert (await app.report(for_a["msg_id"]))["fenced"] == 1


async def test_the_answer_comes_before_any_message_and_says_how_many_wait(house: House, app: AppServer) -> None:
    device = await house.absent(alias="A")
    for number in range(3):
        await app.push({"alias": ["A"]}, notification={"alert": str(number)})
    visitor = await house.visitor()
    await visitor.say(
        visitor.request("connect", {"app_key": APP, "registration_id": device.id, "device_secret": device.secret})
    )
    answer = await visitor.hear()
    assert answer["result"]["waiting"] == 3
    assert await visitor.hear_alerts(3) == ["0", "1", "2"]


# --- One visit (C11) ---------------------------------------------------------------------------------------------


async def test_a_new_visit_displaces_the_old_one(house: House) -> None:
    old = await house.device()
    new = await house.back(old)
    assert await old.hear_goodbye() == ("displaced", None, 4500)
    await new.quiet()


async def test_what_a_displaced_visit_still_says_is_ignored(house: House, app: AppServer) -> None:
    old = await house.device(alias="A")
    pushed = await app.push({"alias": ["A"]})
    await old.hear_message()
    new = await house.back(old)
    await old.say(
        {"jsonrpc": "2.0", "method": "received", "params": {"msg_id": pushed["msg_id"]}},
        {"jsonrpc": "2.0", "id": 9, "method": "alias.set", "params": {"alias": "Z"}},
    )
    assert (await old.hear_goodbye())[2] == 4500
    assert (await new.hear_message())["msg_id"] == pushed["msg_id"]
    assert await new.call("alias.get") == {"alias": "A"}
    assert (await app.report(pushed["msg_id"]))["sent"] == 1


async def test_the_farewell_of_an_old_visit_does_not_end_the_new_one(house: House, app: AppServer) -> None:
    old = await house.device()
    new = await house.back(old)
    await old.hear_end()
    await app.push_alert("for the new visit", new)
    assert await new.hear_alerts(1) == ["for the new visit"]
    assert (await app.call("presence", registration_ids=[new.id]))[new.id]["online"]


async def test_of_many_that_come_at_once_one_stays(house: House, app: AppServer) -> None:
    device = await house.absent()
    again = [await house.visitor() for _ in range(10)]
    credentials = {"app_key": APP, "registration_id": device.id, "device_secret": device.secret}
    for each in again:
        await each.say(each.request("connect", credentials))
    outcomes: list[int | None] = []

    async def follow(each: Device) -> None:
        outcomes.append((await each.hear_end()).code)

    async with trio.open_nursery() as nursery:
        for each in again:
            nursery.start_soon(follow, each)
        await until(lambda: len(outcomes) == 9)
        nursery.cancel_scope.cancel()
    assert outcomes == [4500] * 9
    assert (await app.push({"registration_id": [device.id]}))["online"] == 1


# --- Refused: what is asked (C11, C24) ---------------------------------------------------------------------------

MANY_TAGS = [f"t{number}" for number in range(101)]


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"app_key": None}, "app_key"),
        ({"app_key": 5}, "app_key"),
        ({"app_key": ""}, "app_key"),
        ({"app_key": "x" * 65}, "app_key"),
        ({"app_key": APP, "registration_id": NO_SUCH_ID}, "device_secret"),
        ({"app_key": APP, "device_secret": NO_SECRET}, "registration_id"),
        ({"app_key": APP, "registration_id": None, "device_secret": None}, "registration_id"),
        ({"app_key": APP, "registration_id": NO_SUCH_ID, "device_secret": ""}, "device_secret"),
        ({"app_key": APP, "registration_id": NO_SUCH_ID, "device_secret": NO_SECRET, "install_key": "12345678"},
         "install_key"),
        ({"app_key": APP, "install_key": "1234567"}, "install_key"),
        ({"app_key": APP, "install_key": "x" * 129}, "install_key"),
        ({"app_key": APP, "install_key": "1234567\n"}, "install_key"),
        ({"app_key": APP, "install_key": None}, "install_key"),
        ({"app_key": APP, "platform": "windows"}, "platform"),
        ({"app_key": APP, "platform": "Android"}, "platform"),
        ({"app_key": APP, "platform": None}, "platform"),
        ({"app_key": APP, "alias": "two words"}, "alias"),
        ({"app_key": APP, "alias": "x" * 41}, "alias"),
        ({"app_key": APP, "alias": "中" * 14}, "alias"),
        ({"app_key": APP, "alias": None}, "alias"),
        ({"app_key": APP, "alias": 5}, "alias"),
        ({"app_key": APP, "tags": "x"}, "tags"),
        ({"app_key": APP, "tags": None}, "tags"),
        ({"app_key": APP, "tags": ["a", ""]}, "tags[1]"),
        ({"app_key": APP, "tags": ["a", "b/c"]}, "tags[1]"),
        ({"app_key": APP, "tags": ["a", 5]}, "tags[1]"),
        ({"app_key": APP, "tags": ["x" * 41]}, "tags[0]"),
        ({"app_key": APP, "tags": MANY_TAGS}, "tags"),
        ({"app_key": APP, "alias_token": 7}, "alias_token"),
        ({"app_key": APP, "appkey": "x"}, "appkey"),
        ({}, "app_key"),
    ],
)  # fmt: skip
async def test_a_connect_that_says_something_wrong_is_told_where(
    house: House, params: dict[str, Any], path: str
) -> None:
    visitor = await house.visitor()
    with pytest.raises(Refusal) as refusal:
        await visitor.connect(**params)
    assert (refusal.value.code, refusal.value.name, refusal.value.path) == (-32602, "invalid_params", path)
    assert refusal.value.message.endswith(".")
    assert (await visitor.hear_end()).code == 4502
    assert await registered(house) == 0


@pytest.mark.parametrize("params", [[], "text", 5, None, True])
async def test_the_params_of_a_connect_are_an_object(house: House, params: object) -> None:
    visitor = await house.visitor()
    await visitor.say({"jsonrpc": "2.0", "id": 1, "method": "connect", "params": params})
    error = (await visitor.hear())["error"]
    assert (error["code"], error["data"]["path"]) == (-32602, "params")
    assert (await visitor.hear_end()).code == 4502


@pytest.mark.parametrize(
    ("first", "id", "code"),
    [
        ({"jsonrpc": "2.0", "id": "x", "method": "alias.get"}, "x", -32601),
        ({"jsonrpc": "2.0", "id": "x", "method": "Connect", "params": {"app_key": APP}}, "x", -32601),
        ({"jsonrpc": "2.0", "id": "x", "method": "push", "params": {}}, "x", -32601),
        ({"jsonrpc": "1.0", "id": 7, "method": "connect", "params": {"app_key": APP}}, 7, -32600),
        ({"id": 7, "method": "connect", "params": {"app_key": APP}}, 7, -32600),
        ({"jsonrpc": "2.0", "id": 1.5, "method": "connect", "params": {"app_key": APP}}, None, -32600),
        ({"jsonrpc": "2.0", "id": None, "method": "connect", "params": {"app_key": APP}}, None, -32600),
        ({"jsonrpc": "2.0", "id": 7, "method": "connect", "params": {"app_key": APP}, "extra": 1}, 7, -32602),
        ([{"jsonrpc": "2.0", "id": 7, "method": "connect", "params": {"app_key": APP}}], None, -32600),
        ([], None, -32600),
        ("connect", None, -32600),
    ],
)
async def test_a_first_frame_that_is_no_connect_is_answered_and_closed(
    house: House, first: object, id: object, code: int
) -> None:
    visitor = await house.visitor()
    await visitor.say(first)
    answer = await visitor.hear()
    assert answer.keys() == {"jsonrpc", "id", "error"}
    assert (answer["id"], answer["error"]["code"]) == (id, code)
    assert (await visitor.hear_end()).code == 4502
    assert not visitor.kept
    assert await registered(house) == 0


@pytest.mark.parametrize(
    "first", [b"", b"connect", b"{", b'{"jsonrpc":"2.0"', b"[" * 8_000, b"NaN", b"\xef\xbb\xbf{}"]
)
async def test_a_first_frame_that_is_no_json_is_answered_and_closed(house: House, first: bytes) -> None:
    visitor = await house.visitor()
    await visitor.send_bytes(frame(Opcode.TEXT, first))
    answer = await visitor.hear()
    assert (answer["id"], answer["error"]["code"]) == (None, -32700)
    assert (await visitor.hear_end()).code == 4502


@pytest.mark.parametrize(
    "first",
    [
        {"jsonrpc": "2.0", "method": "connect", "params": {"app_key": APP}},
        {"jsonrpc": "2.0", "method": "received", "params": {"msg_id": "1"}},
        {"jsonrpc": "2.0", "id": 1, "result": None},
    ],
)
async def test_a_first_frame_that_cannot_be_answered_is_closed(house: House, first: object) -> None:
    visitor = await house.visitor()
    await visitor.say(first)
    assert (await visitor.hear_end()).code == 4502
    assert not visitor.kept
    assert await registered(house) == 0


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(Opcode.BINARY, b"{}"), 1003),
        (frame(Opcode.TEXT, b"\xff"), 1007),
        (frame(Opcode.TEXT, b"x" * (MAX_MESSAGE_BYTES + 1)), 1009),
        (frame(Opcode.TEXT, b"{}", mask=None), 1002),
        (frame(3), 1002),
    ],
    ids=["binary", "no utf-8", "too big", "no mask", "opcode"],
)
async def test_a_first_frame_that_is_no_websocket_text_is_closed_as_in_rfc_6455(
    house: House, data: bytes, code: int
) -> None:
    visitor = await house.visitor()
    await visitor.send_bytes(data)
    assert await visitor.hear_fault() == code
    assert not visitor.kept


# --- Refused: who asks -------------------------------------------------------------------------------------------


async def refused(house: House, **params: Any) -> tuple[int, str, int | None]:
    """The code and name of the error that a `connect` is answered with, and the close code behind it."""
    visitor = await house.visitor()
    with pytest.raises(Refusal) as refusal:
        await visitor.connect(**{"app_key": APP, **params})
    ended = await visitor.hear_end()
    assert not visitor.kept
    return refusal.value.code, refusal.value.name, ended.code


async def test_an_unknown_app_is_refused(house: House) -> None:
    assert await refused(house, app_key="nobody") == (1008, "no_such_app", 4501)


async def test_an_unknown_device_is_refused(house: House) -> None:
    answer = await refused(house, registration_id=NO_SUCH_ID, device_secret=NO_SECRET)
    assert answer == (1010, "no_such_device", 4501)


async def test_a_wrong_secret_is_refused(house: House) -> None:
    device = await house.device()
    for secret in (NO_SECRET, device.secret[:-1], device.secret + "x", "é" * 43):
        answer = await refused(house, registration_id=device.id, device_secret=secret)
        assert answer == (1004, "unauthorized", 4501)
    await device.quiet()


async def test_a_device_of_one_app_is_unknown_to_another(house: House) -> None:
    device = await house.device()
    answer = await refused(house, app_key=OTHER, registration_id=device.id, device_secret=device.secret)
    assert answer == (1010, "no_such_device", 4501)
    await device.quiet()


async def test_the_secret_of_one_device_is_wrong_for_another(house: House) -> None:
    one, two = await house.device(), await house.device()
    answer = await refused(house, registration_id=one.id, device_secret=two.secret)
    assert answer == (1004, "unauthorized", 4501)


async def test_a_deleted_device_is_unknown(house: House, app: AppServer) -> None:
    device = await house.absent()
    await app.call("devices.delete", registration_id=device.id)
    answer = await refused(house, registration_id=device.id, device_secret=device.secret)
    assert answer == (1010, "no_such_device", 4501)


async def test_a_refused_connect_changes_nothing(house: House, app: AppServer) -> None:
    device = await house.device(alias="A", tags=["x"], platform="ios")
    before = await app.call("devices.get", registration_id=device.id)
    change = {"alias": "B", "tags": ["y"], "platform": "web"}
    await refused(house, registration_id=device.id, device_secret=NO_SECRET, **change)
    await refused(house, registration_id=device.id, device_secret=device.secret, unknown=1, **change)
    await refused(house, registration_id=device.id, device_secret=device.secret, **{**change, "tags": MANY_TAGS})
    after = await app.call("devices.get", registration_id=device.id)
    before.pop("last_seen_at"), after.pop("last_seen_at")
    assert after == before
    await app.push({"alias": ["A"]})
    await device.hear_message()
    await device.quiet()


async def test_an_alias_that_is_full_refuses_the_whole_connect() -> None:
    async with serving(limits=Limits(alias_limit=2)) as house:
        app = await house.app()
        held = [await house.device(alias="A") for _ in range(2)]
        assert await refused(house, alias="A") == (6027, "alias_full", 4502)
        assert await registered(house) == 2
        here = await house.device(alias="B", tags=["x"])
        credentials = {"registration_id": here.id, "device_secret": here.secret}
        assert await refused(house, **credentials, alias="A", tags=["y"]) == (6027, "alias_full", 4502)
        # Nor is an install key used up by it.
        assert await refused(house, alias="A", install_key="my-install-key") == (6027, "alias_full", 4502)
        await here.quiet()
        assert await here.call("alias.get") == {"alias": "B"}
        assert await here.call("tags.get") == {"tags": ["x"]}
        # Who has it already keeps it.
        await house.back(held[0], alias="A")
        assert len((await app.call("aliases.get", alias="A"))["registration_ids"]) == 2


async def test_an_alias_is_on_ten_devices_unless_the_app_says_otherwise(house: House) -> None:
    for _ in range(10):
        await house.device(alias="A")
    assert await refused(house, alias="A") == (6027, "alias_full", 4502)
    assert await registered(house) == 10


async def test_an_alias_that_is_full_may_be_taken_from_who_is_away_longest() -> None:
    limits = Limits(alias_limit=2, alias_full=AliasFullPolicy.LONGEST_ABSENT)
    async with serving(limits=limits) as house:
        app = await house.app()
        longest = await house.absent(alias="A")
        house.wall.forward(10)
        shorter = await house.absent(alias="A")
        newcomer = await house.device(alias="A")
        holders = (await app.call("aliases.get", alias="A"))["registration_ids"]
        assert set(holders) == {shorter.id, newcomer.id}
        assert (await house.back(longest)).welcome["alias"] is None
        await house.back(shorter)
        # Who is present is not away.
        assert await refused(house, alias="A") == (6027, "alias_full", 4502)


async def test_registering_is_limited_by_address() -> None:
    async with serving(registrations_burst=2, registrations_per_s=1) as house:
        first = await house.device()
        await house.device()
        visitor = await house.visitor()
        with pytest.raises(Refusal) as refusal:
            await visitor.connect(app_key=APP)
        assert (refusal.value.code, refusal.value.name, refusal.value.retry_after) == (2002, "rate_limited", 1)
        assert (await visitor.hear_end()).code == 4004
        # Other addresses are not held up, nor is who is known already.
        assert (await house.device(source="127.0.0.2")).id
        assert (await house.back(first)).id == first.id
        assert await registered(house) == 3


async def test_after_a_while_there_is_room_to_register_again() -> None:
    async with serving(registrations_burst=1, registrations_per_s=10) as house:
        await house.device()

        async def is_registered() -> bool:
            try:
                await house.device()
            except Refusal:
                return False
            return True

        with trio.fail_after(LIMIT_S):
            while not await is_registered():  # noqa: ASYNC110
                await trio.sleep(0.02)


async def test_a_fault_of_ours_is_told_as_such_and_the_device_is_to_come_back() -> None:
    healthy: list[bool] = [False]

    def randomness(length: int) -> bytes:
        if not healthy[0]:
            raise ZeroDivisionError("a secret of ours")
        return secrets.token_bytes(length)

    async with serving(randomness=randomness) as house:
        visitor = await house.visitor()
        with pytest.raises(Refusal) as refusal:
            await visitor.connect(app_key=APP, alias="A")
        assert (refusal.value.code, refusal.value.name) == (-32603, "internal_error")
        assert "secret" not in refusal.value.message
        assert (await visitor.hear_end()).code == 4004
        healthy[0] = True
        assert (await house.device(alias="A")).id
        assert await registered(house) == 1


# --- In time -----------------------------------------------------------------------------------------------------


async def test_who_says_nothing_after_the_handshake_is_closed() -> None:
    async with serving(connect_timeout_s=0.3) as house:
        visitor = await house.visitor()
        assert (await visitor.hear_end()).code == 4502


async def test_pings_are_no_connect() -> None:
    async with serving(connect_timeout_s=0.3) as house:
        visitor = await house.visitor()
        await visitor.ping(b"still here")
        assert (await visitor.hear_end()).code == 4502
        assert not visitor.kept


async def test_half_a_connect_is_no_connect() -> None:
    async with serving(connect_timeout_s=0.3) as house:
        visitor = await house.visitor()
        await visitor.send_bytes(text(visitor.request("connect", {"app_key": APP}))[:-1])
        assert await visitor.hear_fault() == 4502
        assert await registered(house) == 0


async def test_who_says_nothing_at_all_is_let_go() -> None:
    async with serving(connect_timeout_s=0.2) as house:
        stream = await house.stream()
        with trio.fail_after(LIMIT_S):
            assert await stream.receive_some() == b""


async def test_the_limit_is_for_handshake_and_connect_together() -> None:
    async with serving(connect_timeout_s=0.6) as house:
        visitor = Device(await house.stream())
        began = trio.current_time()
        await trio.sleep(0.4)
        await visitor.knock("/device")
        assert visitor.status == 101
        assert (await visitor.hear_end()).code == 4502
        assert trio.current_time() - began < 0.95


async def test_who_connects_in_time_is_not_closed_by_the_limit() -> None:
    async with serving(connect_timeout_s=0.3) as house:
        device = await house.device()
        with trio.move_on_after(0.6):
            await device.hear()
        await device.quiet()


async def test_who_closes_before_connecting_is_answered() -> None:
    async with serving() as house:
        visitor = await house.visitor()
        await visitor.leave()
        assert visitor.ended is not None
        assert visitor.ended.code == 1000


async def test_the_connect_may_come_byte_by_byte_and_with_more_behind_it(house: House) -> None:
    visitor = await house.visitor()
    connect = visitor.request("connect", {"app_key": APP, "alias": "A"})
    ask = visitor.request("alias.get")
    data = text(connect)
    for byte in data[:40]:
        await visitor.send_bytes(bytes([byte]))
    await visitor.send_bytes(data[40:] + text(ask))
    assert (await visitor.answer_to(connect))["result"]["alias"] == "A"
    assert (await visitor.answer_to(ask))["result"] == {"alias": "A"}


async def test_the_connect_may_come_right_behind_the_handshakes_request(house: House) -> None:
    visitor = Device(await house.stream())
    connect = visitor.request("connect", {"app_key": APP})
    request = (
        "GET /device HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    await visitor.send_bytes(request.encode() + text(connect))
    await visitor.hear_head()
    assert visitor.status == 101
    assert (await visitor.answer_to(connect))["result"]["registration_id"]


# --- The door ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/device", "/device?v=1"])
async def test_devices_connect_at_their_path(house: House, path: str) -> None:
    assert (await house.knock("devices", path)).status == 101


@pytest.mark.parametrize(
    "path", ["/", "/app", "/device/", "/devices", "/DEVICE", "/x?/device", "/%64evice", "//[/device"]
)
async def test_elsewhere_there_is_nothing(house: House, path: str) -> None:
    assert (await house.knock("devices", path)).status == 404


async def test_a_browser_is_taken_from_the_listed_origins_only() -> None:
    async with serving(origins=["https://example.org", "http://example.org:8080"]) as house:
        for origin in ("https://example.org", "http://example.org:8080"):
            assert (await house.knock("devices", "/device", {"Origin": origin})).status == 101
        for origin in ("https://example.com", "http://example.org", "https://example.org:8080", "https://a.example.org",
                       "https://example.org.evil.net", "null", "", "example.org", "http://[", "\xff"):  # fmt: skip
            answer = await house.knock("devices", "/device", {"Origin": origin})
            assert answer.status == 403, f"the origin {origin!r}"


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://push.example.org", "push.example.org"),
        ("http://push.example.org:8600", "push.example.org:8600"),
        ("http://[::1]:8600", "[::1]:8600"),
    ],
)
async def test_a_browser_is_taken_from_the_same_host(house: House, origin: str, host: str) -> None:
    assert (await house.knock("devices", "/device", {"Origin": origin}, host)).status == 101


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.net", "push.example.org"),
        ("http://push.example.org:8601", "push.example.org:8600"),
        ("https://push.example.org.evil.net", "push.example.org"),
        ("null", "push.example.org"),
    ],
)
async def test_a_browser_is_not_taken_from_another_host(house: House, origin: str, host: str) -> None:
    answer = await house.knock("devices", "/device", {"Origin": origin}, host)
    assert answer.status == 403
    assert b"Origin" in answer.body


async def test_who_has_no_origin_is_no_browser_and_is_taken(house: House) -> None:
    assert (await house.knock("devices", "/device")).status == 101


async def test_the_subprotocol_is_named_when_offered_and_only_then(house: House) -> None:
    offered = await house.knock("devices", "/device", {"Sec-WebSocket-Protocol": "chat, pushactors.v1"})
    assert (offered.status, offered.headers["sec-websocket-protocol"]) == (101, "pushactors.v1")
    other = await house.knock("devices", "/device", {"Sec-WebSocket-Protocol": "chat"})
    assert other.status == 101
    assert "sec-websocket-protocol" not in other.headers
    assert "sec-websocket-protocol" not in (await house.knock("devices", "/device")).headers


async def test_a_device_may_come_over_tls() -> None:
    async with serving(tls=True) as house:
        device = Device(await house.tls_stream())
        await device.knock("/device")
        await device.connect(app_key=APP, alias="A")
        app = AppServer(await house.tls_stream("apps"))
        await app.knock("/app", {"Authorization": "Basic YXBwOnNlY3JldC1vZi10aGUtYXBw"})
        pushed = await app.push({"alias": ["A"]}, notification={"alert": "x" * 3_000})
        assert (await device.hear_message())["msg_id"] == pushed["msg_id"]
        await device.note("received", msg_id=pushed["msg_id"])
        await device.told()
        assert (await app.report(pushed["msg_id"]))["received"] == 1
        await device.leave()
        await app.leave()


# --- While the server drains -------------------------------------------------------------------------------------


async def test_who_shakes_hands_while_the_server_drains_is_sent_away() -> None:
    async with serving(drain_s=0) as house, trio.open_nursery() as nursery:
        stays = await house.device()
        visitor = Device(await house.stream())
        await until(lambda: house.node._listeners[0]._connections == 2)
        nursery.start_soon(house.node.stop)
        await until(lambda: house.node._device_endpoint.is_draining)
        await visitor.knock("/device")
        reason, retry_after, code = await visitor.hear_goodbye()
        assert reason == "drain"
        assert isinstance(retry_after, int)
        assert code == 1001
        await stays.hear_end()


async def test_who_connects_while_the_server_drains_gets_no_visit() -> None:
    # There are no new visits while the server drains, and nobody holds it up.
    async with serving(drain_s=0) as house, trio.open_nursery() as nursery:
        stays, visitor = await house.device(), await house.visitor()
        await visitor.ping()
        nursery.start_soon(house.node.stop)
        await until(lambda: house.node._device_endpoint.is_draining)
        await visitor.say(visitor.request("connect", {"app_key": APP}))
        with trio.move_on_after(4) as limit:
            reason, retry_after, code = await visitor.hear_goodbye()
        assert not limit.cancelled_caught, "it was neither sent away nor told goodbye"
        assert reason == "drain"
        assert isinstance(retry_after, int)
        assert code == 1001
        await stays.hear_end()


async def test_who_waits_for_the_disk_when_the_server_begins_to_drain_gets_no_visit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unit, "ROWS_DECIDED_AHEAD", 0)
    store = StubbornStore()
    async with serving(drain_s=0, store=store) as house, trio.open_nursery() as nursery:
        app, stays, visitor = await house.app(), await house.device(), await house.visitor()
        await visitor.ping()
        store.hold()
        # Too much is decided and not yet durable: the edges stop reading.
        await app.say(app.request("push", {"audience": "all", "notification": {"alert": "held"}}))
        await until(lambda: house.rows_ahead() > 0)
        await visitor.say(visitor.request("connect", {"app_key": APP}))
        await trio.testing.wait_all_tasks_blocked(0.05)
        nursery.start_soon(house.node.stop)
        await until(lambda: house.node._device_endpoint.is_draining)
        store.go_on()
        with trio.move_on_after(4) as limit:
            reason, _, code = await visitor.hear_goodbye()
        assert not limit.cancelled_caught, "it was neither sent away nor told goodbye"
        assert (reason, code) == ("drain", 1001)
        await stays.hear_end()


# --- What has begun ----------------------------------------------------------------------------------------------


async def test_nobody_is_told_of_a_registration_that_is_not_durable() -> None:
    store = StubbornStore()
    async with serving(store=store) as house:
        visitor = await house.visitor()
        store.hold()
        await visitor.say(visitor.request("connect", {"app_key": APP}))
        with trio.move_on_after(0.2):
            await visitor.hear()
        assert not visitor.texts
        store.go_on()
        answer = await visitor.hear()
        assert answer["result"]["registration_id"]


async def test_a_device_that_leaves_before_its_answer_is_absent_afterwards() -> None:
    store = StubbornStore()
    async with serving(store=store) as house:
        visitor = await house.visitor()
        store.hold()
        await visitor.say(visitor.request("connect", {"app_key": APP, "alias": "A"}))
        await until(lambda: len(house.node._device_endpoint) == 1)
        await visitor.vanish()
        store.go_on()
        app = await house.app()
        [holder] = (await app.call("aliases.get", alias="A"))["registration_ids"]

        async def is_absent() -> bool:
            return not (await app.call("presence", registration_ids=[holder]))[holder]["online"]

        with trio.fail_after(LIMIT_S):
            while not await is_absent():  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert (await app.push({"alias": ["A"]}))["absent"] == 1


# --- Signed aliases (C17) ----------------------------------------------------------------------------------------

SECOND = "the second secret of the app"


def demanding(wall: Wall | None = None) -> AbstractAsyncContextManager[House]:
    """An app that demands alias tokens, and has two master secrets; the other app demands nothing."""
    wall = wall if wall is not None else Wall()
    return serving(apps=app_plans(Limits(needs_alias_tokens=True), secrets=(SECRET, SECOND)), wall=wall)


def in_an_hour(wall: Wall, **claims: object) -> dict[str, Any]:
    return {"sub": "A", "exp": wall() // 1000 + 3_600, **claims}


def bad_tokens(wall: Wall, device: str) -> dict[str, str | None]:
    """Whatever is no good for alias A on that device."""
    good = in_an_hour(wall)
    head, claims, signature = alias_token(good).split(".")
    now_s = wall() // 1000
    return {
        "none": None,
        "empty": "",
        "no token": "x",
        "dots": "..",
        "two parts": f"{head}.{claims}",
        "four parts": f"{head}.{claims}.{signature}.{signature}",
        "unsigned": f"{head}.{claims}.",
        "other claims": f"{head}.{alias_token({**good, 'sub': 'B'}).split('.')[1]}.{signature}",
        "alg none": alias_token(good, alg="none"),
        "alg None, signed": alias_token(good, alg="none").rpartition(".")[0] + f".{signature}",
        "HS512": alias_token(good, alg="HS512", digest="sha512"),
        "RS256 in name": alias_token(good, alg="RS256"),
        "other secret": alias_token(good, "secret-of-the-other"),
        "no secret": alias_token(good, ""),
        "app key as secret": alias_token(good, APP),
        "expired": alias_token({**good, "exp": now_s - 1}),
        "expires now": alias_token({**good, "exp": now_s}),
        "not yet": alias_token({**good, "nbf": now_s + 600}),
        "no exp": alias_token({"sub": "A"}),
        "exp as text": alias_token({**good, "exp": str(now_s + 600)}),
        "exp true": alias_token({**good, "exp": True}),
        "no sub": alias_token({"exp": good["exp"]}),
        "other alias": alias_token({**good, "sub": "B"}),
        "empty alias": alias_token({**good, "sub": ""}),
        "alias in other letters": alias_token({**good, "sub": "a"}),
        "other device": alias_token({**good, "rid": NO_SUCH_ID}),
        "rid null": alias_token({**good, "rid": None}),
        "rid in capitals": alias_token({**good, "rid": device.upper()}),
        "audience": alias_token({**good, "aud": "somebody else"}),
        "too long": alias_token({**good, "more": "x" * 5_000}),
        "no object": alias_token([good]),  # type: ignore[arg-type]
    }


async def refused_to_connect(house: House, **params: Any) -> Refusal:
    """The refusal of a `connect`; the close code behind it."""
    visitor = await house.visitor()
    with pytest.raises(Refusal) as refusal:
        await visitor.connect(app_key=APP, **params)
    assert (await visitor.hear_end()).code == (4501 if refusal.value.code == 1004 else 4502)
    return refusal.value


async def test_where_tokens_are_demanded_a_good_one_logs_in() -> None:
    wall = Wall()
    async with demanding(wall) as house:
        device = await house.device(alias="A", alias_token=alias_token(in_an_hour(wall)))
        assert device.welcome["alias"] == "A"
        # Signed with the second secret, and for that device only.
        token = alias_token(in_an_hour(wall, sub="B", rid=device.id), SECOND)
        device = await house.back(device, alias="B", alias_token=token)
        assert device.welcome["alias"] == "B"
        # What else is in it is the app server's own affair.
        token = alias_token(in_an_hour(wall, sub="中", nbf=wall() // 1000 - 5, iss="x", iat=1.5, more={"a": [1]}))
        assert (await house.back(device, alias="中", alias_token=token)).welcome["alias"] == "中"


async def test_what_is_no_good_is_refused_and_nothing_has_changed() -> None:
    wall = Wall()
    async with demanding(wall) as house:
        app = await house.app()
        device = await house.device(alias="O", alias_token=alias_token(in_an_hour(wall, sub="O")), tags=["x"])
        pushed = await app.push_alert("a", device)
        assert (await device.hear_message())["msg_id"] == pushed
        back = {"registration_id": device.id, "device_secret": device.secret}
        for what, token in bad_tokens(wall, device.id).items():
            shown = {} if token is None else {"alias_token": token}
            for credentials in ({}, {"install_key": "an-install-key"}, back):
                refusal = await refused_to_connect(house, alias="A", tags=["y"], **credentials, **shown)
                assert (refusal.code, refusal.name, refusal.path) == (1004, "unauthorized", "alias_token"), what
                assert refusal.message.endswith(".")
                assert len(refusal.message) < 300
        assert await registered(house) == 1
        found = await app.call("devices.get", registration_id=device.id)
        assert (found["alias"], found["tags"], found["online"]) == ("O", ["x"], True)
        await device.quiet()
        assert await device.call("alias.get") == {"alias": "O"}


async def test_clearing_and_keeping_need_no_token() -> None:
    wall = Wall()
    async with demanding(wall) as house:
        assert (await house.device()).welcome["alias"] is None
        assert (await house.device(alias="")).welcome["alias"] is None
        device = await house.device(alias="A", alias_token=alias_token(in_an_hour(wall)))
        ways: list[dict[str, Any]] = [{}, {"alias": "A"}, {"alias": "A", "alias_token": "nonsense"}]
        for shown in ways:
            assert (await house.back(device, **shown)).welcome["alias"] == "A"
        assert (await house.back(device, alias="", alias_token="nonsense")).welcome["alias"] is None
        # Now it has none to keep.
        credentials = {"registration_id": device.id, "device_secret": device.secret}
        assert (await refused_to_connect(house, alias="A", **credentials)).code == 1004


async def test_a_token_for_one_device_is_no_good_for_one_that_registers() -> None:
    wall = Wall()
    async with demanding(wall) as house:
        token = alias_token(in_an_hour(wall, rid=NO_SUCH_ID))
        assert (await refused_to_connect(house, alias="A", alias_token=token)).code == 1004
        device = await house.device(install_key="an-install-key")
        token = alias_token(in_an_hour(wall, rid=device.id))
        # The same install key is the same device, which has an id.
        again = await house.device(install_key="an-install-key", alias="A", alias_token=token)
        assert (again.id, again.welcome["alias"]) == (device.id, "A")
        other = await house.device()
        credentials = {"registration_id": other.id, "device_secret": other.secret}
        assert (await refused_to_connect(house, alias="A", alias_token=token, **credentials)).code == 1004


async def test_a_wrong_secret_is_not_healed_by_a_token() -> None:
    wall = Wall()
    async with demanding(wall) as house:
        device = await house.device()
        refusal = await refused_to_connect(
            house,
            registration_id=device.id,
            device_secret=NO_SECRET,
            alias="A",
            alias_token=alias_token(in_an_hour(wall)),
        )
        assert (refusal.code, refusal.path) == (1004, None)


async def test_a_token_of_one_app_is_no_good_for_another() -> None:
    wall = Wall()
    async with demanding(wall) as house:
        other = await house.device(app_key=OTHER, alias="A", alias_token="nonsense")
        assert other.welcome["alias"] == "A"
        token = alias_token(in_an_hour(wall), "secret-of-the-other")
        assert (await refused_to_connect(house, alias="A", alias_token=token)).code == 1004


async def test_where_no_token_is_demanded_one_that_comes_is_not_looked_at(house: House) -> None:
    for token in ("", "nonsense", "x" * 5_000, alias_token({"sub": "B", "exp": 0})):
        assert (await house.device(alias="A", alias_token=token)).welcome["alias"] == "A"
        assert (await house.device(alias_token=token)).welcome["alias"] is None


async def test_from_when_tokens_are_demanded_they_are() -> None:
    async with serving() as house:
        device = await house.device(alias="A")
        await house.node.serve_apps(app_plans(Limits(needs_alias_tokens=True)))
        assert (await house.back(device, alias="A")).welcome["alias"] == "A"
        assert (await refused_to_connect(house, alias="B")).code == 1004

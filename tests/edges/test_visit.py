"""One visit of one device: every request and notification of the protocol, what it is sent, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from wsproto.frame_protocol import Opcode

from pushactors.actors.tenant import Limits
from pushactors.domain.aliases import AliasFullPolicy
from pushactors.domain.mailbox import Mailbox
from pushactors.edges.devices import MAX_MESSAGE_BYTES
from tests.edges.serving import (
    APP,
    HELLO,
    LIMIT_S,
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
    until_true,
)

NOBODYS_ID = "999999999"


@pytest.fixture
async def device(house: House) -> Device:
    """A device of the first app, with nobody logged in."""
    return await house.device()


async def refusal_of(device: Device, method: str, **params: object) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        await device.call(method, **params)
    return refusal.value


# --- Alias requests (C13) ----------------------------------------------------------------------------------------


async def test_an_alias_is_set_asked_for_and_cleared(device: Device) -> None:
    assert await device.call("alias.get") == {"alias": None}
    assert await device.call("alias.set", alias="A") == {"alias": "A", "previous": None}
    assert await device.call("alias.get") == {"alias": "A"}
    assert await device.call("alias.set", alias="B") == {"alias": "B", "previous": "A"}
    assert await device.call("alias.set", alias="B") == {"alias": "B", "previous": "B"}
    assert await device.call("alias.set", alias="") == {"alias": None, "previous": "B"}
    assert await device.call("alias.set", alias="") == {"alias": None, "previous": None}
    await device.quiet()


@pytest.mark.parametrize("alias", ["a", "中" * 13, "x" * 40, "_@!#$&*+=.|-", "Aé"[0], "한글", "カタカナ", "0"])
async def test_an_alias_may_be_any_name(device: Device, alias: str) -> None:
    assert (await device.call("alias.set", alias=alias))["alias"] == alias


@pytest.mark.parametrize(
    "params", [{"alias": a} for a in ["a b", "é", "a/b", "中" * 14, "x" * 41, "a\n", 5, None, []]]
)
async def test_what_is_no_alias_is_refused_and_changes_nothing(device: Device, params: dict[str, Any]) -> None:
    await device.call("alias.set", alias="A")
    refusal = await refusal_of(device, "alias.set", **params)
    assert (refusal.code, refusal.name, refusal.path) == (-32602, "invalid_params", "alias")
    assert await device.call("alias.get") == {"alias": "A"}


async def test_the_fence_falls_before_the_answer(house: House, app: AppServer, device: Device) -> None:
    # C14: window 64 is not full, so what is sent was sent; the fence is for what comes in a race.
    await device.call("alias.set", alias="A")
    pushed = await app.push({"alias": ["A"]})
    assert (await device.hear_message())["alias"] == "A"
    await device.call("alias.set", alias="B")
    # Struck: still on the wire, and not received at the end of the visit.
    assert await app.state(pushed["msg_id"], device) == "sent"
    await device.leave()
    await app.until_state(pushed["msg_id"], device, "fenced")


async def test_what_waits_for_an_earlier_alias_is_never_sent() -> None:
    async with serving(limits=Limits(window=1)) as house:
        app, device = await house.app(), await house.device(alias="A")
        pushed = [await app.push({"alias": ["A"]}, notification={"alert": str(each)}) for each in range(3)]
        not_fenced = await app.push_alert("by id", device)
        assert await device.hear_alerts(1) == ["0"]
        await device.call("alias.set", alias="B")
        await device.quiet()
        for each in pushed[1:]:
            assert (await app.report(each["msg_id"]))["fenced"] == 1
        # Acknowledged on the visit that sent it, a struck one is received (C3).
        await device.note("received", msg_id=pushed[0]["msg_id"])
        assert (await device.hear_message())["msg_id"] == not_fenced
        assert (await app.report(pushed[0]["msg_id"]))["received"] == 1


async def test_a_b_a_are_three_bindings() -> None:
    async with serving(limits=Limits(window=1)) as house:
        app, device = await house.app(), await house.device(alias="A")
        await app.push_alert("blocks", device)
        waiting = await app.push({"alias": ["A"]})
        await device.hear_alerts(1)
        await device.call("alias.set", alias="B")
        await device.call("alias.set", alias="A")
        assert (await app.report(waiting["msg_id"]))["fenced"] == 1


async def test_an_alias_that_is_full_is_refused_and_nothing_changes() -> None:
    async with serving(limits=Limits(alias_limit=1)) as house:
        holder, other = await house.device(alias="A"), await house.device(alias="B")
        refusal = await refusal_of(other, "alias.set", alias="A")
        assert (refusal.code, refusal.name) == (6027, "alias_full")
        assert await other.call("alias.get") == {"alias": "B"}
        assert await holder.call("alias.get") == {"alias": "A"}
        await holder.call("alias.set", alias="")
        assert await other.call("alias.set", alias="A") == {"alias": "A", "previous": "B"}


async def test_who_loses_an_alias_to_another_while_away_finds_it_gone() -> None:
    limits = Limits(alias_limit=1, alias_full=AliasFullPolicy.LONGEST_ABSENT)
    async with serving(limits=limits) as house:
        app, away = await house.app(), await house.absent(alias="A")
        waiting = await app.push({"alias": ["A"]})
        other = await house.device()
        await other.call("alias.set", alias="A")
        assert (await app.report(waiting["msg_id"]))["fenced"] == 1
        back = await house.back(away)
        assert back.welcome["alias"] is None
        await back.quiet()


# --- Tag requests ------------------------------------------------------------------------------------------------


async def test_tags_are_set_added_removed_and_asked_for(device: Device) -> None:
    assert await device.call("tags.get") == {"tags": []}
    assert await device.call("tags.set", tags=["c", "a", "c"]) == {"tags": ["a", "c"]}
    assert await device.call("tags.add", tags=["b", "a"]) == {"tags": ["a", "b", "c"]}
    assert await device.call("tags.remove", tags=["a", "z"]) == {"tags": ["b", "c"]}
    assert await device.call("tags.get") == {"tags": ["b", "c"]}
    assert await device.call("tags.add", tags=[]) == {"tags": ["b", "c"]}
    assert await device.call("tags.remove", tags=[]) == {"tags": ["b", "c"]}
    assert await device.call("tags.set", tags=[]) == {"tags": []}


async def test_a_device_has_at_most_100_tags(device: Device) -> None:
    many = [f"t{number:03}" for number in range(100)]
    assert await device.call("tags.set", tags=many) == {"tags": many}
    for method, tags, path in (
        ("tags.add", ["one-more"], "tags"),
        ("tags.set", [*many, "one-more"], "tags"),
        ("tags.add", [*many, "one-more"], "tags"),
    ):
        refusal = await refusal_of(device, method, tags=tags)
        assert (refusal.code, refusal.path) == (-32602, path)
        assert await device.call("tags.get") == {"tags": many}
    assert await device.call("tags.add", tags=many[:50]) == {"tags": many}
    assert len((await device.call("tags.remove", tags=["t000"]))["tags"]) == 99
    assert len((await device.call("tags.add", tags=["one-more"]))["tags"]) == 100


@pytest.mark.parametrize("method", ["tags.set", "tags.add", "tags.remove"])
@pytest.mark.parametrize(
    ("tags", "path"),
    [
        ("a", "tags"),
        (None, "tags"),
        ({"add": ["a"]}, "tags"),
        (["a", "b c"], "tags[1]"),
        (["a", ""], "tags[1]"),
        (["中" * 14], "tags[0]"),
        ([None], "tags[0]"),
        ([["a"]], "tags[0]"),
    ],
)
async def test_what_are_no_tags_is_refused_and_changes_nothing(
    device: Device, method: str, tags: object, path: str
) -> None:
    await device.call("tags.set", tags=["x"])
    refusal = await refusal_of(device, method, tags=tags)
    assert (refusal.code, refusal.name, refusal.path) == (-32602, "invalid_params", path)
    assert await device.call("tags.get") == {"tags": ["x"]}


async def test_tags_find_the_device(app: AppServer, device: Device) -> None:
    await device.call("tags.add", tags=["x"])
    await app.push({"tag": ["x"]})
    await device.hear_message()
    await device.call("tags.remove", tags=["x"])
    with pytest.raises(Refusal) as refusal:
        await app.push({"tag": ["x"]})
    assert refusal.value.code == 1011


# --- Too frequent (6011) -----------------------------------------------------------------------------------------


async def use_up(device: Device) -> None:
    """Ten changes, of both kinds."""
    for number in range(5):
        await device.call("alias.set", alias=f"a{number}")
        await device.call("tags.set", tags=[f"t{number}"])


async def test_more_than_ten_changes_in_ten_seconds_are_too_many(device: Device) -> None:
    await use_up(device)
    for method, params in (
        ("alias.set", {"alias": "one-too-many"}),
        ("tags.set", {"tags": ["one-too-many"]}),
        ("tags.add", {"tags": ["one-too-many"]}),
        ("tags.remove", {"tags": ["t4"]}),
        ("alias.set", {"alias": ""}),
    ):
        refusal = await refusal_of(device, method, **params)
        assert (refusal.code, refusal.name) == (6011, "too_frequent")
        assert refusal.retry_after is not None
        assert 1 <= refusal.retry_after <= 10
    # Nothing has changed, and the connection is usable (C24).
    assert await device.call("alias.get") == {"alias": "a4"}
    assert await device.call("tags.get") == {"tags": ["t4"]}


async def test_what_changes_nothing_does_not_count(device: Device) -> None:
    await device.call("alias.set", alias="A")
    await device.call("tags.set", tags=["x"])
    for _ in range(20):
        await device.call("alias.set", alias="A")
        await device.call("tags.set", tags=["x"])
        await device.call("tags.add", tags=["x"])
        await device.call("tags.remove", tags=["y"])
    for number in range(8):
        await device.call("alias.set", alias=f"a{number}")
    assert (await refusal_of(device, "alias.set", alias="B")).code == 6011
    # Too many or not: what changes nothing is no change.
    assert (await device.call("alias.set", alias="a7"))["alias"] == "a7"


async def test_what_was_refused_does_not_count(device: Device) -> None:
    for _ in range(20):
        await refusal_of(device, "alias.set", alias="a b")
    await use_up(device)


async def test_what_others_change_and_what_connect_changes_does_not_count(
    house: House, app: AppServer, device: Device
) -> None:
    for number in range(15):
        await app.call("devices.set", registration_id=device.id, alias=f"b{number}", tags={"add": [f"u{number}"]})
    for number in range(12):
        device = await house.back(device, alias=f"c{number}", tags=[f"v{number}"])
    await use_up(device)
    device = await house.back(device, alias="D", tags=["w"])
    assert (device.welcome["alias"], device.welcome["tags"]) == ("D", ["w"])


async def test_coming_again_does_not_make_room_for_more_changes(house: House, device: Device) -> None:
    # The limit is on one device, not on one visit.
    await use_up(device)
    device = await house.back(device)
    assert (await refusal_of(device, "alias.set", alias="one-too-many")).code == 6011


async def test_one_devices_changes_are_not_anothers(house: House, device: Device) -> None:
    await use_up(device)
    await use_up(await house.device())


# --- Requests that cannot be understood --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "id", "code", "path"),
    [
        ({"jsonrpc": "2.0", "id": 7, "method": "alias.unset"}, 7, -32601, None),
        ({"jsonrpc": "2.0", "id": 7, "method": "connect", "params": {"app_key": APP}}, 7, -32601, None),
        ({"jsonrpc": "2.0", "id": 7, "method": "push", "params": {"audience": "all"}}, 7, -32601, None),
        ({"jsonrpc": "2.0", "id": 7, "method": "received", "params": {"msg_id": "1"}}, 7, -32601, None),
        ({"jsonrpc": "2.0", "id": 7, "method": ""}, 7, -32601, None),
        ({"jsonrpc": "2.0", "id": 7, "method": "x" * 5_000}, 7, -32601, None),
        ({"jsonrpc": "2.0", "id": 7, "method": "alias.set"}, 7, -32602, "alias"),
        ({"jsonrpc": "2.0", "id": 7, "method": "alias.set", "params": {}}, 7, -32602, "alias"),
        ({"jsonrpc": "2.0", "id": 7, "method": "alias.set", "params": ["A"]}, 7, -32602, "params"),
        ({"jsonrpc": "2.0", "id": 7, "method": "alias.set", "params": {"alias": "A", "alias_token": None}}, 7, -32602,
         "alias_token"),
        ({"jsonrpc": "2.0", "id": 7, "method": "alias.get", "params": {"alias": "A"}}, 7, -32602, "alias"),
        ({"jsonrpc": "2.0", "id": 7, "method": "tags.get", "params": {"x": 1}}, 7, -32602, "x"),
        ({"jsonrpc": "2.0", "id": 7, "method": "unregister", "params": {"sure": True}}, 7, -32602, "sure"),
        ({"jsonrpc": "2.0", "id": 7, "method": "unregister", "params": None}, 7, -32602, "params"),
        ({"jsonrpc": "2.0", "id": "é", "method": "alias.get", "extra": 1}, "é", -32602, "extra"),
        ({"jsonrpc": "2.0", "id": 7, "method": 5}, 7, -32600, "method"),
        ({"jsonrpc": "2.0", "id": 7}, 7, -32600, "method"),
        ({"jsonrpc": 2.0, "id": 7, "method": "alias.get"}, 7, -32600, "jsonrpc"),
        ({"id": 7, "method": "alias.get"}, 7, -32600, "jsonrpc"),
        ({"jsonrpc": "2.0", "id": None, "method": "alias.get"}, None, -32600, "id"),
        ({"jsonrpc": "2.0", "id": [7], "method": "alias.get"}, None, -32600, "id"),
        ({"jsonrpc": "2.0", "id": 1.0, "method": "alias.get"}, None, -32600, "id"),
        ({"jsonrpc": "2.0", "id": True, "method": "alias.get"}, None, -32600, "id"),
        ([{"jsonrpc": "2.0", "id": 7, "method": "alias.get"}], None, -32600, None),
        ([], None, -32600, None),
        (5, None, -32600, None),
        (None, None, -32600, None),
        ({}, None, -32600, "jsonrpc"),
    ],
)  # fmt: skip
async def test_a_request_that_cannot_be_understood_is_answered_and_the_connection_stays_usable(
    device: Device, request_: object, id: object, code: int, path: str | None
) -> None:
    await device.say(request_)
    answer = await device.hear()
    assert answer.keys() == {"jsonrpc", "id", "error"}
    refusal = Refusal(answer["error"])
    assert (answer["id"], refusal.code, refusal.path) == (id, code, path)
    assert refusal.message.endswith(".")
    assert await device.call("alias.get") == {"alias": None}


@pytest.mark.parametrize("data", [b"", b"{", b"hello", b"{'a': 1}", b"[" * 8_000, b'{"a":1}{"b":2}', b"-", b"\x00"])
async def test_what_is_no_json_is_answered_and_the_connection_stays_usable(device: Device, data: bytes) -> None:
    await device.send_bytes(frame(Opcode.TEXT, data))
    answer = await device.hear()
    assert (answer["id"], Refusal(answer["error"]).code) == (None, -32700)
    assert await device.call("alias.get") == {"alias": None}


@pytest.mark.parametrize("id", [0, -1, 2**63 - 1, -(2**63), "", "0", "x" * 1_000, "ключ"])
async def test_a_request_is_answered_under_its_own_id(device: Device, id: object) -> None:
    await device.say({"jsonrpc": "2.0", "id": id, "method": "alias.get"})
    answer = await device.hear()
    assert answer == {"jsonrpc": "2.0", "id": id, "result": {"alias": None}}
    assert type(answer["id"]) is type(id)


async def test_of_a_member_that_comes_twice_the_last_counts(device: Device) -> None:
    await device.send_bytes(frame(Opcode.TEXT, b'{"jsonrpc":"2.0","id":1,"method":"no","id":2,"method":"alias.get"}'))
    assert await device.hear() == {"jsonrpc": "2.0", "id": 2, "result": {"alias": None}}


async def test_from_a_change_of_alias_to_its_answer_no_message_comes() -> None:
    store = StubbornStore()
    async with serving(store=store) as house:
        app, device = await house.app(), await house.device()
        change = device.request("alias.set", {"alias": "A"})
        store.hold()
        await device.say(change)
        await until(lambda: house.rows_ahead() > 0)
        # This one does not wait for the disk (C5).
        await app.push("all", options={"time_to_live": 0})
        with trio.move_on_after(0.1):
            await device.hear()
        assert not device.kept
        store.go_on()
        assert (await device.hear())["id"] == change["id"]
        assert (await device.hear_message())["expires_at"] is None


async def test_a_refusal_too_is_told_when_what_it_says_is_on_disk() -> None:
    store = StubbornStore()
    async with serving(store=store, limits=Limits(alias_limit=1)) as house:
        one, two = await house.device(), await house.device()
        store.hold()
        mine, late = one.request("alias.set", {"alias": "A"}), two.request("alias.set", {"alias": "A"})
        await one.say(mine)
        await until(lambda: house.rows_ahead() > 0)
        await two.say(late)
        with trio.move_on_after(0.1):
            await two.hear()
        assert len(two.texts) == 1
        store.go_on()
        assert (await two.answer_to(late))["error"]["code"] == 6027
        assert (await one.answer_to(mine))["result"]["alias"] == "A"


async def test_requests_are_taken_one_after_another(device: Device) -> None:
    requests = [
        device.request(method, params)
        for method, params in (
            ("alias.set", {"alias": "A"}),
            ("alias.get", {}),
            ("tags.add", {"tags": ["x"]}),
            ("alias.set", {"alias": "B"}),
            ("tags.get", {}),
        )
    ]
    await device.say(*requests)
    answers = [await device.hear() for _ in requests]
    assert [answer["id"] for answer in answers] == [request["id"] for request in requests]
    assert answers[1]["result"] == {"alias": "A"}
    assert answers[3]["result"] == {"alias": "B", "previous": "A"}
    assert answers[4]["result"] == {"tags": ["x"]}


# --- Notifications that cannot be understood ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "note",
    [
        {"method": "seen", "params": {"msg_id": "1"}},
        {"method": "received"},
        {"method": "received", "params": {}},
        {"method": "received", "params": {"msg_id": 1}},
        {"method": "received", "params": {"msg_id": "one"}},
        {"method": "received", "params": {"msg_id": "0"}},
        {"method": "received", "params": {"msg_id": "01"}},
        {"method": "received", "params": {"msg_id": str(2**63)}},
        {"method": "received", "params": {"msg_id": "1", "at": 5}},
        {"method": "received", "params": ["1"]},
        {"method": "received", "params": None},
        {"method": "received", "params": {"msg_id": "1"}, "extra": 1},
        {"method": "declined", "params": {"msg_id": None}},
        {"method": "opened", "params": {"msg_ids": ["1"]}},
        {"method": "alias.set", "params": {"alias": "A"}},
        {"method": "unregister"},
    ],
)
async def test_a_notification_that_cannot_be_understood_ends_the_visit(
    house: House, app: AppServer, device: Device, note: dict[str, Any]
) -> None:
    await device.say({"jsonrpc": "2.0", **note})
    assert await device.hear_goodbye() == ("protocol", None, 4502)
    assert not device.kept
    # That is all: the device is still registered, and may come again.
    assert await (await house.back(device)).call("alias.get") == {"alias": None}


async def test_an_answer_to_nothing_ends_the_visit(device: Device) -> None:
    await device.say({"jsonrpc": "2.0", "id": 1, "result": None})
    assert await device.hear_goodbye() == ("protocol", None, 4502)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(Opcode.BINARY, b"{}"), 1003),
        (frame(Opcode.BINARY, b"{}", fin=False), 1003),
        (frame(Opcode.TEXT, b"\xff"), 1007),
        (frame(Opcode.TEXT, b"x" * (MAX_MESSAGE_BYTES + 1)), 1009),
        (frame(Opcode.TEXT, b"{}", mask=None), 1002),
        (frame(Opcode.TEXT, b"{}", rsv=4), 1002),
        (frame(Opcode.CONTINUATION, b"{}"), 1002),
        (frame(Opcode.PING, b"x" * 126), 1002),
        (frame(Opcode.TEXT, fin=False) + frame(Opcode.CONTINUATION, fin=False) * 1_100, 1008),
    ],
    ids=["binary", "binary piece", "no utf-8", "too big", "no mask", "compressed", "continues nothing", "long ping",
         "many fragments"],
)  # fmt: skip
async def test_a_fault_in_the_frames_ends_the_visit_as_in_rfc_6455(
    house: House, app: AppServer, device: Device, data: bytes, code: int
) -> None:
    await device.send_bytes(data)
    assert await device.hear_fault() == code
    await app.until_absent(device)
    assert (await house.back(device)).id == device.id


async def test_the_largest_message_is_taken(device: Device) -> None:
    request = {"jsonrpc": "2.0", "id": "", "method": "alias.get"}
    request["id"] = "x" * (MAX_MESSAGE_BYTES - len(text(request)[6:]))
    data = text(request)
    assert len(data[8:]) == MAX_MESSAGE_BYTES
    await device.send_bytes(data)
    assert (await device.hear())["result"] == {"alias": None}


async def test_a_message_in_fragments_with_pings_between_is_taken(device: Device) -> None:
    await device.send_bytes(
        frame(Opcode.TEXT, b'{"jsonrpc":"2.0",', fin=False)
        + frame(Opcode.PING, b"1")
        + frame(Opcode.CONTINUATION, b'"id":1,"method":', fin=False)
        + frame(Opcode.CONTINUATION, b'"alias.get"}')
    )
    assert (await device.hear())["result"] == {"alias": None}
    assert device.pongs == [b"1"]


# --- What it is sent ---------------------------------------------------------------------------------------------


async def test_a_message_says_what_the_protocol_says(house: House, app: AppServer) -> None:
    device = await house.device(alias="A", platform="android")
    pushed = await app.push(
        {"alias": ["A"]},
        notification={"alert": "all", "title": "t", "android": {"alert": "android"}, "ios": {"sound": "s"}},
        message={"msg_content": "c", "title": "m", "content_type": "text", "extras": {"n": 1}},
        options={"time_to_live": 60, "override_msg_id": "12345"},
    )
    message = await device.hear_message()
    assert message == {
        "msg_id": pushed["msg_id"],
        "sent_at": message["sent_at"],
        "expires_at": message["sent_at"] + 60_000,
        "alias": "A",
        "override_msg_id": "12345",
        "notification": {"alert": "android", "title": "t"},
        "message": {"msg_content": "c", "title": "m", "content_type": "text", "extras": {"n": 1}},
    }
    assert abs(message["sent_at"] - house.wall()) < 10_000


async def test_a_message_leaves_out_what_it_has_not(app: AppServer, device: Device) -> None:
    await app.push("all", notification=HELLO)
    assert (await device.hear_message()).keys() == {"msg_id", "sent_at", "expires_at", "notification"}
    await app.push("all", message={"msg_content": ""})
    message = await device.hear_message()
    assert message.keys() == {"msg_id", "sent_at", "expires_at", "message"}
    assert message["message"] == {"msg_content": ""}


async def test_the_alias_is_named_when_the_message_was_addressed_by_alias(house: House, app: AppServer) -> None:
    device = await house.device(alias="A", tags=["x"])
    for audience, named in (
        ({"alias": ["A"]}, True),
        ({"alias": ["A", "B"], "tag": ["x"]}, True),
        ({"alias": ["A"], "registration_id": [device.id]}, True),
        ({"registration_id": [device.id]}, False),
        ({"tag": ["x"]}, False),
        ("all", False),
    ):
        await app.push(audience)
        assert (await device.hear_message()).get("alias") == ("A" if named else None)


async def test_with_time_to_live_0_expires_at_is_null(app: AppServer, device: Device) -> None:
    await app.push("all", options={"time_to_live": 0})
    message = await device.hear_message()
    assert message["expires_at"] is None
    assert "expires_at" in message


async def test_the_same_push_is_the_same_bytes_for_one_platform_and_alias(house: House, app: AppServer) -> None:
    everybody = {
        (platform, alias): [await house.device(platform=platform, alias=alias) for _ in range(2)]
        for platform in ("ios", "android")
        for alias in ("A", "B")
    }
    notification = {"alert": "all", "extras": {"z": 1, "a": [2]}, "ios": {"alert": "ios"}}
    await app.push({"alias": ["A", "B"]}, notification=notification)
    heard = {}
    for key, pair in everybody.items():
        for device in pair:
            await device.hear_message()
        assert pair[0].texts[-1] == pair[1].texts[-1]
        heard[key] = pair[0].texts[-1]
    assert len(set(heard.values())) == 4


@pytest.mark.parametrize(
    ("platform", "shown"),
    [
        ("android", {"alert": "a", "title": "t", "badge": 1, "extras": {"x": 1}}),
        ("ios", {"alert": "all", "title": "t", "badge": 7, "extras": {"y": 2}}),
        ("web", {"alert": "all", "title": "t", "badge": 1, "extras": {"x": 1}, "url": "https://example.org"}),
        ("desktop", {"alert": "all", "title": "t", "badge": 1, "extras": {"x": 1}}),
        ("other", {"alert": "all", "title": "t", "badge": 1, "extras": {"x": 1}}),
    ],
)
async def test_a_notification_is_merged_for_the_platform(
    house: House, app: AppServer, platform: str, shown: dict[str, Any]
) -> None:
    device = await house.device(platform=platform)
    notification = {
        "alert": "all",
        "title": "t",
        "badge": 1,
        "extras": {"x": 1},
        "android": {"alert": "a"},
        "ios": {"badge": 7, "extras": {"y": 2}},
        "web": {"url": "https://example.org"},
    }
    await app.push({"registration_id": [device.id]}, notification=notification)
    assert (await device.hear_message())["notification"] == shown


async def test_who_changed_its_platform_gets_the_new_ones_notification(house: House, app: AppServer) -> None:
    device = await house.absent(platform="ios")
    await app.push("all", notification={"alert": "all", "ios": {"alert": "ios"}, "web": {"alert": "web"}})
    device = await house.back(device, platform="web")
    assert (await device.hear_message())["notification"] == {"alert": "web"}


async def test_any_content_arrives_as_it_was_pushed(app: AppServer, device: Device) -> None:
    extras = {"emoji": "🙂", "nested": {"a": [1, 2.5, None, True, '\u2028\\"']}, "big": 2**53 + 1, "": ""}
    await app.push("all", message={"msg_content": "x" * 3_000, "extras": extras})
    message = (await device.hear_message())["message"]
    assert message == {"msg_content": "x" * 3_000, "extras": extras}


async def test_messages_come_in_the_order_of_acceptance(app: AppServer, device: Device) -> None:
    requests = [
        app.request("push", {"audience": "all", "notification": {"alert": str(number)}}) for number in range(60)
    ]
    await app.say(*requests)
    assert await device.hear_alerts(60) == [str(number) for number in range(60)]


async def test_nobody_sees_a_push_that_is_not_durable() -> None:
    store = StubbornStore()
    async with serving(store=store) as house:
        app, device = await house.app(), await house.device()
        store.hold()
        await app.say(app.request("push", {"audience": "all", "notification": HELLO}))
        with trio.move_on_after(0.2):
            await device.hear()
        assert not device.kept
        # With time to live 0 nothing waits for the disk (C5).
        flying = await app.push("all", options={"time_to_live": 0})
        assert flying["online"] == 1
        store.go_on()
        heard = {(await device.hear_message())["msg_id"] for _ in range(2)}
        assert flying["msg_id"] in heard


# --- What it says (C3, C10) --------------------------------------------------------------------------------------


async def push_some(app: AppServer, device: Device, count: int) -> list[str]:
    """That many messages, on the wire; their ids."""
    ids = [await app.push_alert(str(number), device) for number in range(count)]
    assert await device.hear_alerts(count) == [str(number) for number in range(count)]
    return ids


async def states(app: AppServer, device: Device, ids: list[str]) -> list[str | None]:
    return [await app.state(msg_id, device) for msg_id in ids]


async def test_received_is_this_one_and_all_sent_before_it(app: AppServer, device: Device) -> None:
    ids = await push_some(app, device, 4)
    await device.note("received", msg_id=ids[2])
    await device.told()
    assert await states(app, device, ids) == ["received", "received", "received", "sent"]


async def test_declined_is_this_one_only(house: House, app: AppServer) -> None:
    device = await house.device(alias="A")
    pushed = [await app.push({"alias": ["A"]}) for _ in range(3)]
    ids = [str(each["msg_id"]) for each in pushed]
    for _ in ids:
        await device.hear_message()
    await device.note("declined", msg_id=ids[1])
    await device.told()
    assert await states(app, device, ids) == ["sent", "fenced", "sent"]


async def test_what_was_not_addressed_by_alias_cannot_be_declined(app: AppServer, device: Device) -> None:
    ids = await push_some(app, device, 1)
    await device.note("declined", msg_id=ids[0])
    await device.told()
    assert await states(app, device, ids) == ["sent"]


@pytest.mark.parametrize("mark", ["opened", "dismissed", "withdrawn"])
async def test_a_mark_acknowledges_this_one_only_and_counts_once(app: AppServer, device: Device, mark: str) -> None:
    ids = await push_some(app, device, 3)
    for _ in range(2):
        await device.note(mark, msg_id=ids[1])
    await device.told()
    assert await states(app, device, ids) == ["sent", "received", "sent"]
    report = await app.report(ids[1])
    assert (report["received"], report[mark]) == (1, 1)
    assert sum(report[each] for each in ("opened", "dismissed", "withdrawn")) == 1


async def test_marks_count_on_any_visit_and_beside_each_other(house: House, app: AppServer, device: Device) -> None:
    ids = await push_some(app, device, 1)
    await device.note("received", msg_id=ids[0])
    await device.told()
    device = await house.back(device)
    for mark in ("opened", "dismissed", "withdrawn"):
        await device.note(mark, msg_id=ids[0])
    await device.told()
    report = await app.report(ids[0])
    assert [report[each] for each in ("received", "opened", "dismissed", "withdrawn")] == [1, 1, 1, 1]


async def test_a_mark_on_another_visit_acknowledges_what_waits_again() -> None:
    async with serving(limits=Limits(window=1)) as house:
        app, device = await house.app(), await house.device()
        first, second = [await app.push_alert(alert, device) for alert in ("first", "second")]
        assert await device.hear_alerts(1) == ["first"]
        device = await house.back(device)
        assert await device.hear_alerts(1) == ["first"]
        await device.note("opened", msg_id=second)
        await device.told()
        report = await app.report(second)
        assert (report["received"], report["opened"]) == (1, 1)
        await device.note("received", msg_id=first)
        await device.quiet()


async def test_an_acknowledgement_counts_only_on_the_visit_that_sent_the_message() -> None:
    async with serving(limits=Limits(window=1)) as house:
        app, device = await house.app(), await house.device()
        ids = [await app.push_alert(alert, device) for alert in ("first", "second")]
        assert await device.hear_alerts(1) == ["first"]
        # Not sent on any visit yet.
        await device.note("received", msg_id=ids[1])
        await device.told()
        assert await states(app, device, ids) == ["sent", "waiting"]
        await device.quiet()


@pytest.mark.parametrize("note", ["received", "declined", "opened", "dismissed", "withdrawn"])
async def test_what_is_said_of_an_unknown_message_is_ignored_and_counted(
    house: House, device: Device, note: str
) -> None:
    def ignored() -> int:
        return sum(count for name, _, count in house.node.tally if name == "ignored")

    before = ignored()
    await device.note(note, msg_id=NOBODYS_ID)
    await device.told()
    await device.quiet()
    await until(lambda: ignored() == before + 1, "the count of what was ignored")


@pytest.mark.parametrize("note", ["received", "declined", "opened", "dismissed", "withdrawn"])
async def test_what_is_said_of_anothers_message_is_ignored(
    house: House, app: AppServer, device: Device, note: str
) -> None:
    other = await house.device(alias="A")
    pushed = await app.push({"alias": ["A"]})
    await other.hear_message()
    await device.note(note, msg_id=pushed["msg_id"])
    await device.told()
    report = await app.report(pushed["msg_id"])
    assert report["sent"] == 1
    assert not report["opened"] + report["dismissed"] + report["withdrawn"]


async def test_what_is_said_of_a_message_with_another_verdict_is_ignored() -> None:
    async with serving(limits=Limits(offline_limit=1)) as house:
        app, device = await house.app(), await house.absent()
        overflowed = await app.push_alert("old", device)
        await app.push_alert("new", device)
        device = await house.back(device)
        assert await device.hear_alerts(1) == ["new"]
        for note in ("received", "declined", "opened"):
            await device.note(note, msg_id=overflowed)
        await device.told()
        report = await app.report(overflowed)
        assert (report["overflowed"], report["received"], report["opened"]) == (1, 0, 0)


async def test_no_more_than_the_window_is_on_the_way() -> None:
    async with serving(limits=Limits(window=3)) as house:
        app, device = await house.app(), await house.device()
        ids = [await app.push_alert(str(number), device) for number in range(5)]
        assert await device.hear_alerts(3) == ["0", "1", "2"]
        await device.quiet()
        assert await states(app, device, ids) == ["sent"] * 3 + ["waiting"] * 2
        await device.note("received", msg_id=ids[0])
        assert await device.hear_alerts(1) == ["3"]
        await device.note("opened", msg_id=ids[2])
        assert await device.hear_alerts(1) == ["4"]
        await device.quiet()
        assert await states(app, device, ids) == ["received", "sent", "received", "sent", "sent"]


async def test_what_was_not_acknowledged_comes_again_in_order(house: House, app: AppServer, device: Device) -> None:
    ids = await push_some(app, device, 4)
    await device.note("received", msg_id=ids[0])
    await device.note("opened", msg_id=ids[2])
    await device.leave()
    await app.until_absent(device)
    later = await app.push_alert("later", device)
    device = await house.back(device)
    assert device.welcome["waiting"] == 3
    assert await device.hear_alerts(3) == ["1", "3", "later"]
    await device.note("received", msg_id=later)
    await device.told()
    assert await states(app, device, [*ids, later]) == ["received"] * 5


async def test_what_has_no_time_to_wait_is_missed_when_the_visit_ends(
    house: House, app: AppServer, device: Device
) -> None:
    pushed = await app.push("all", options={"time_to_live": 0})
    await device.hear_message()
    await device.vanish()
    await app.until_state(pushed["msg_id"], device, "missed")
    assert (await house.back(device)).welcome["waiting"] == 0


async def test_a_struck_message_that_is_declined_gets_its_strike(house: House, app: AppServer) -> None:
    device = await house.device(alias="A")
    first = await app.push({"alias": ["A"]})
    await device.hear_message()
    second = await app.push({"alias": ["A"]}, options={"override_msg_id": first["msg_id"]})
    assert (await device.hear_message())["override_msg_id"] == first["msg_id"]
    await device.note("declined", msg_id=first["msg_id"])
    await device.told()
    assert await states(app, device, [first["msg_id"], second["msg_id"]]) == ["replaced", "sent"]


# --- What the app server changes (C14) ---------------------------------------------------------------------------


async def test_a_device_is_told_of_an_alias_that_it_did_not_set_itself(app: AppServer, device: Device) -> None:
    await app.call("devices.set", registration_id=device.id, alias="A")
    assert await device.hear_note("alias") == {"alias": "A"}
    assert await device.call("alias.get") == {"alias": "A"}
    await app.call("devices.set", registration_id=device.id, alias="A")
    await device.quiet()
    await app.call("devices.set", registration_id=device.id, alias="")
    assert await device.hear_note("alias") == {"alias": None}
    await app.call("devices.set", registration_id=device.id, tags={"add": ["x"]})
    await device.quiet()


async def test_a_device_is_told_that_its_alias_was_deleted(house: House, app: AppServer) -> None:
    one, two = await house.device(alias="A"), await house.device(alias="A")
    other = await house.device(alias="B")
    await app.call("aliases.delete", alias="A")
    assert await one.hear_note("alias") == {"alias": None}
    assert await two.hear_note("alias") == {"alias": None}
    await other.quiet()


async def test_it_is_told_before_the_first_message_under_the_new_binding(app: AppServer, device: Device) -> None:
    change = app.request("devices.set", {"registration_id": device.id, "alias": "A"})
    push = app.request("push", {"audience": {"alias": ["A"]}, "notification": HELLO})
    fly = app.request("push", {"audience": {"alias": ["A"]}, "notification": HELLO, "options": {"time_to_live": 0}})
    await app.say(change, push, fly)
    assert await device.hear_note("alias") == {"alias": "A"}
    assert [(await device.hear_message())["alias"] for _ in range(2)] == ["A", "A"]


async def test_what_was_on_its_way_under_the_old_binding_is_struck(house: House, app: AppServer) -> None:
    device = await house.device(alias="A")
    pushed = await app.push({"alias": ["A"]})
    await device.hear_message()
    await app.call("devices.set", registration_id=device.id, alias="B")
    assert await device.hear_note("alias") == {"alias": "B"}
    await device.note("declined", msg_id=pushed["msg_id"])
    await device.told()
    assert await app.state(pushed["msg_id"], device) == "fenced"


async def test_an_absent_device_finds_its_alias_changed(house: House, app: AppServer) -> None:
    device = await house.absent(alias="A")
    await app.call("devices.set", registration_id=device.id, alias="B")
    device = await house.back(device)
    assert device.welcome["alias"] == "B"
    await device.quiet()


# --- Being deleted -----------------------------------------------------------------------------------------------


async def test_unregistering_is_answered_and_then_the_visit_is_closed(
    house: House, app: AppServer, device: Device
) -> None:
    assert await device.call("unregister") is None
    assert await device.hear_goodbye() == ("removed", None, 4503)
    with pytest.raises(Refusal) as refusal:
        await house.back(device)
    assert refusal.value.code == 1010
    with pytest.raises(Refusal) as refusal:
        await app.call("devices.get", registration_id=device.id)
    assert refusal.value.code == 1010


async def test_unregistering_is_answered_while_the_app_is_busy(house: House, app: AppServer) -> None:
    devices = [await house.device() for _ in range(20)]
    target = await house.device(alias="busy")
    over = trio.Event()

    async def push() -> None:
        while not over.is_set():
            requests = [
                app.request("push", {"audience": {"alias": ["busy"]}, "notification": HELLO}) for _ in range(20)
            ]
            await app.say(*requests)
            for request in requests:
                await app.answer_to(request)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(push)
        for device in devices:
            assert await device.call("unregister") is None
            assert await device.hear_goodbye() == ("removed", None, 4503)
        over.set()
    assert await target.call("alias.get") == {"alias": "busy"}


async def test_with_a_device_its_mailbox_is_settled() -> None:
    async with serving(limits=Limits(window=2)) as house:
        app, device = await house.app(), await house.device()
        ids = [await app.push_alert(str(number), device) for number in range(3)]
        assert await device.hear_alerts(2) == ["0", "1"]
        newcomer = (await app.push("all", options={"override_msg_id": ids[0]}))["msg_id"]
        await device.call("unregister")
        # C24: those that were struck with their strike, all others missed.
        reports = [await app.report(msg_id) for msg_id in [*ids, newcomer]]
        assert [report["replaced"] for report in reports] == [1, 0, 0, 0]
        assert [report["missed"] for report in reports] == [0, 1, 1, 1]


async def test_a_device_that_its_app_server_deletes_is_told(house: House, app: AppServer, device: Device) -> None:
    assert await app.call("devices.delete", registration_id=device.id) is None
    assert await device.hear_goodbye() == ("removed", None, 4503)


# --- Leaving -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "answer"), [(1000, 1000), (1001, 1001), (None, 1000)])
async def test_a_close_is_answered(app: AppServer, device: Device, code: int | None, answer: int) -> None:
    await device.send_bytes(frame(Opcode.CLOSE, b"" if code is None else code.to_bytes(2, "big")))
    assert (await device.hear_end()).code == answer
    assert not device.kept
    await app.until_absent(device)


async def test_what_a_device_says_before_it_closes_counts(app: AppServer, device: Device) -> None:
    ids = await push_some(app, device, 2)
    note = {"jsonrpc": "2.0", "method": "received", "params": {"msg_id": ids[0]}}
    mark = {"jsonrpc": "2.0", "method": "opened", "params": {"msg_id": ids[1]}}
    await device.send_bytes(text(note) + text(mark) + frame(Opcode.CLOSE, b"\x03\xe8"))
    assert (await device.hear_end()).code == 1000
    await app.until_absent(device)
    assert await states(app, device, ids) == ["received", "received"]


@pytest.mark.parametrize("how", ["vanish", "reset", "half"])
async def test_a_device_that_goes_without_a_word_is_absent(
    house: House, app: AppServer, device: Device, how: str
) -> None:
    if how == "half":
        assert isinstance(device.stream, trio.SocketStream)
        await device.stream.send_eof()
    elif how == "reset":
        await device.reset()
    else:
        await device.vanish()
    await app.until_absent(device)
    assert (await house.back(device)).id == device.id


async def test_when_it_was_last_seen_is_when_it_left(house: House, app: AppServer, device: Device) -> None:
    house.wall.forward(100)
    before = house.wall()
    await device.leave()
    await app.until_absent(device)
    seen = (await app.call("presence", registration_ids=[device.id]))[device.id]["last_seen_at"]
    assert before <= seen <= house.wall()


# --- Faults of ours ----------------------------------------------------------------------------------------------


def plant(monkeypatch: pytest.MonkeyPatch, where: type, name: str) -> None:
    """A fault that shows once."""
    sound = getattr(where, name)

    def faulty(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(where, name, sound)
        raise ZeroDivisionError("a secret of ours")

    monkeypatch.setattr(where, name, faulty)


@pytest.mark.parametrize(("note", "name"), [("received", "acknowledge"), ("declined", "decline"), ("opened", "mark")])
async def test_a_device_whose_actor_fails_is_told_to_come_back_and_gets_its_messages_again(
    house: House, app: AppServer, device: Device, monkeypatch: pytest.MonkeyPatch, note: str, name: str
) -> None:
    other = await house.device()
    pushed = await app.push("all")
    assert (await device.hear_message())["msg_id"] == pushed["msg_id"]
    plant(monkeypatch, Mailbox, name)
    await device.note(note, msg_id=pushed["msg_id"])
    assert await device.hear_goodbye() == ("restarted", 1, 4003)
    device = await house.back(device)
    assert (await device.hear_message())["msg_id"] == pushed["msg_id"]
    await other.hear_message()
    await other.quiet()
    assert (await app.report(pushed["msg_id"]))["sent"] == 2


async def test_a_request_over_which_the_server_fails_is_answered_so_and_has_changed_nothing(
    house: House, app: AppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await house.device(alias="A")
    plant(monkeypatch, Mailbox, "rebind")
    refusal = await refusal_of(device, "alias.set", alias="B")
    assert (refusal.code, refusal.name) == (-32603, "internal_error")
    assert "secret" not in refusal.message
    reason, retry_after, code = await device.hear_goodbye()
    assert (reason, code) == ("restarted", 4003)
    assert isinstance(retry_after, int)
    assert await app.call("aliases.get", alias="A") == {"registration_ids": [device.id]}
    assert await app.call("aliases.get", alias="B") == {"registration_ids": []}
    device = await house.back(device)
    assert device.welcome["alias"] == "A"
    await device.call("alias.set", alias="B")


async def test_a_device_whose_actor_fails_over_a_newcomer_keeps_it(
    house: House, app: AppServer, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, Mailbox, "enter")
    pushed = await app.push("all")
    assert pushed["targets"] == 1
    assert (await device.hear_goodbye())[2] == 4003
    device = await house.back(device)
    assert (await device.hear_message())["msg_id"] == pushed["msg_id"]


# --- Signs of life (C12) -----------------------------------------------------------------------------------------

HEARTBEAT_S = 0.4


async def test_the_heartbeat_is_told() -> None:
    async with serving(heartbeat_s=7) as house:
        assert (await house.device()).welcome["heartbeat"] == 7


async def test_pings_are_answered_with_their_payload(device: Device) -> None:
    for payload in (b"", b"1", b"x" * 125):
        await device.ping(payload)


async def test_a_device_that_was_not_heard_is_asked_for_a_sign_of_life() -> None:
    async with serving(heartbeat_s=HEARTBEAT_S) as house:
        device = await house.device()
        began = trio.current_time()
        await device.hear_ping()
        assert trio.current_time() - began >= 0.8 * HEARTBEAT_S
        # Who answers stays.
        while trio.current_time() - began < 4 * HEARTBEAT_S:
            await device.hear_ping()
        await device.quiet()


async def test_a_device_that_is_silent_is_closed_and_may_come_back() -> None:
    async with serving(heartbeat_s=HEARTBEAT_S) as house:
        device = await house.device(answers_pings=False)
        began = trio.current_time()
        reason, retry_after, code = await device.hear_goodbye()
        assert (reason, code) == ("silent", 4001)
        assert isinstance(retry_after, int)
        assert trio.current_time() - began >= 1.8 * HEARTBEAT_S
        assert device.pings
        assert (await house.back(device)).id == device.id


async def test_a_silent_device_is_absent_at_once_whatever_its_connection_does() -> None:
    async with serving(heartbeat_s=HEARTBEAT_S) as house:
        app, device = await house.app(), await house.device(alias="A", answers_pings=False)

        async def is_absent() -> bool:
            # The app server asks, and so is heard.
            return not (await app.call("presence", registration_ids=[device.id]))[device.id]["online"]

        began = trio.current_time()
        await until_true(is_absent)
        assert trio.current_time() - began < 2 * HEARTBEAT_S + 1.5


async def test_any_word_is_a_sign_of_life() -> None:
    async with serving(heartbeat_s=HEARTBEAT_S) as house:
        device = await house.device(answers_pings=False)
        began = trio.current_time()
        while trio.current_time() - began < 4 * HEARTBEAT_S:
            await device.note("received", msg_id=NOBODYS_ID)
            await trio.sleep(HEARTBEAT_S / 4)
        await device.quiet()


async def test_a_device_is_not_silent_while_the_server_keeps_it_waiting() -> None:
    # C12 is about the peer. Here it is the disk that does not answer.
    store = StubbornStore()
    async with serving(heartbeat_s=HEARTBEAT_S, store=store) as house:
        device = await house.device()
        request = device.request("alias.set", {"alias": "A"})
        store.hold()
        await device.say(request)
        with trio.move_on_after(4 * HEARTBEAT_S):
            await device.hear()
        store.go_on()
        assert (await device.answer_to(request))["result"]["alias"] == "A"
        await device.quiet()


async def test_a_device_that_acknowledges_nothing_with_its_window_full_is_too_slow() -> None:
    async with serving(limits=Limits(window=2), ack_timeout_s=0.4, heartbeat_s=0.6) as house:
        app, device = await house.app(), await house.device()
        ids = [await app.push_alert(str(number), device) for number in range(3)]
        assert await device.hear_alerts(2) == ["0", "1"]
        reason, retry_after, code = await device.hear_goodbye()
        assert (reason, code) == ("too_slow", 4002)
        assert isinstance(retry_after, int)
        device = await house.back(device)
        assert await device.hear_alerts(2) == ["0", "1"]
        assert set(await states(app, device, ids)) == {"sent", "waiting"}


async def test_a_device_whose_window_is_not_full_may_take_its_time() -> None:
    async with serving(limits=Limits(window=3), ack_timeout_s=0.2, heartbeat_s=0.4) as house:
        app, device = await house.app(), await house.device()
        for number in range(2):
            await app.push_alert(str(number), device)
        assert await device.hear_alerts(2) == ["0", "1"]
        with trio.move_on_after(1):
            await device.hear()
        await device.quiet()


async def test_acknowledging_anything_is_progress() -> None:
    async with serving(limits=Limits(window=2), ack_timeout_s=0.6, heartbeat_s=0.8) as house:
        app, device = await house.app(), await house.device()
        ids = [await app.push_alert(str(number), device) for number in range(8)]
        for number, msg_id in enumerate(ids):
            assert (await device.hear_alerts(1)) == [str(number)]
            await trio.sleep(0.25)
            await device.note("received", msg_id=msg_id)
        await device.quiet()


async def test_a_device_that_does_not_read_is_too_slow_and_keeps_its_messages() -> None:
    limits = Limits(window=1_024, backlog_limit=10_000, offline_limit=10_000)
    async with serving(limits=limits, heartbeat_s=0.5) as house, trio.open_nursery() as nursery:
        app, device = await house.app(), await house.device(is_narrow=True)
        # It is alive, and says so; it just does not read.
        nursery.start_soon(device.stay)
        content = {"msg_content": "x" * 3_900}
        msg_ids: list[str] = []
        is_online = True
        with trio.fail_after(LIMIT_S):
            while is_online:
                pushed = await app.push({"registration_id": [device.id]}, message=content)
                msg_ids.append(pushed["msg_id"])
                is_online = bool(pushed["online"])
        info = await app.call("devices.get", registration_id=device.id)
        assert [each["msg_id"] for each in info["mailbox"]] == msg_ids
        assert {each["state"] for each in info["mailbox"]} == {"waiting"}
        await until(lambda: house.node.tally.read("visits_ended", "too_slow") == 1)


async def test_a_full_buffer_stops_sending_and_goes_on_when_the_device_reads() -> None:
    limits = Limits(window=1_024, backlog_limit=10_000)
    async with serving(limits=limits, outgoing_buffer_bytes=100_000) as house:
        app, device = await house.app(), await house.device(is_narrow=True)
        content = {"msg_content": "x" * 3_900}
        count = 2_000
        requests = [
            app.request("push", {"audience": {"registration_id": [device.id]}, "message": content})
            for _ in range(count)
        ]

        async def push() -> None:
            for at in range(0, count, 100):
                await app.say(*requests[at : at + 100])
                for request in requests[at : at + 100]:
                    await app.answer_to(request)

        await push()
        endpoint = house.node._device_endpoint
        [(visit, _)] = endpoint._visits.values()
        # Bounded: what the operating system holds is not ours.
        assert visit._connection.stream.outgoing_bytes <= 100_000
        seen = 0
        for _ in range(count):
            message = await device.hear_message()
            assert int(message["msg_id"]) > seen
            seen = int(message["msg_id"])
            await device.note("received", msg_id=message["msg_id"])
        await device.quiet()


# --- Signed aliases (C17) ----------------------------------------------------------------------------------------


async def test_where_tokens_are_demanded_a_change_of_alias_needs_one() -> None:
    wall = Wall()
    async with serving(apps=app_plans(Limits(needs_alias_tokens=True)), wall=wall) as house:
        app, device = await house.app(), await house.device()
        exp = wall() // 1000 + 60
        good = alias_token({"sub": "A", "exp": exp, "rid": device.id})
        assert await device.call("alias.set", alias="A", alias_token=good) == {"alias": "A", "previous": None}
        pushed = await app.push({"alias": ["A"]})
        await device.hear_message()
        refused: list[dict[str, Any]] = [
            {"alias": "B"},
            {"alias": "B", "alias_token": good},
            {"alias": "B", "alias_token": ""},
            {"alias": "B", "alias_token": "nonsense"},
            {"alias": "B", "alias_token": alias_token({"sub": "B", "exp": wall() // 1000 - 1})},
            {"alias": "B", "alias_token": alias_token({"sub": "B", "exp": exp, "rid": "a" * 26})},
            {"alias": "B", "alias_token": alias_token({"sub": "B", "exp": exp}, "another secret")},
            {"alias": "B", "alias_token": alias_token({"sub": "B", "exp": exp}, alg="none")},
        ]
        for _ in range(3):  # what is refused is no change, so none is one too many
            for params in refused:
                refusal = await refusal_of(device, "alias.set", **params)
                assert (refusal.code, refusal.name, refusal.path) == (1004, "unauthorized", "alias_token"), params
        # Nothing has changed, and the visit goes on: what is on the wire is not struck.
        assert await device.call("alias.get") == {"alias": "A"}
        assert (await app.call("aliases.get", alias="B")) == {"registration_ids": []}
        await device.note("received", msg_id=pushed["msg_id"])
        await device.told()
        assert await app.state(pushed["msg_id"], device) == "received"
        # Keeping and clearing need none; what the app server sets neither.
        assert await device.call("alias.set", alias="A") == {"alias": "A", "previous": "A"}
        assert await device.call("alias.set", alias="A", alias_token="x") == {"alias": "A", "previous": "A"}
        assert await device.call("alias.set", alias="") == {"alias": None, "previous": "A"}
        assert (await app.call("devices.set", registration_id=device.id, alias="C"))["alias"] == "C"
        assert await device.hear_note("alias") == {"alias": "C"}
        assert await device.call("alias.set", alias="C") == {"alias": "C", "previous": "C"}
        await device.quiet()
        # In time it is good, and then not any more.
        assert (await device.call("alias.set", alias="A", alias_token=good))["previous"] == "C"
        await device.call("alias.set", alias="")
        wall.forward(61)
        assert (await refusal_of(device, "alias.set", alias="A", alias_token=good)).code == 1004


async def test_where_no_token_is_demanded_none_is_looked_at(device: Device) -> None:
    for token in ("", "nonsense", alias_token({"sub": "B", "exp": 0})):
        assert (await device.call("alias.set", alias="A", alias_token=token))["alias"] == "A"
        await device.call("alias.set", alias="", alias_token=token)


# --- Recalls (C22) -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["withdrawn", "opened", "dismissed"])
@pytest.mark.parametrize("is_received", [True, False])
async def test_a_device_is_told_of_a_recall_on_every_visit_until_it_answers(
    house: House, app: AppServer, device: Device, mark: str, is_received: bool
) -> None:
    msg_id = await app.push_alert("a", device)
    await device.hear_message()
    if is_received:
        await device.note("received", msg_id=msg_id)
        await device.told()
    await app.call("push.recall", msg_id=msg_id)
    assert await device.hear_note("recall") == {"msg_id": msg_id}
    # Once a visit, however often it is recalled.
    await app.call("push.recall", msg_id=msg_id)
    await device.quiet()
    for _ in range(2):
        device = await house.back(device)
        assert await device.hear_note("recall") == {"msg_id": msg_id}
        await device.quiet()
    # An acknowledgement is no answer.
    await device.note("received", msg_id=msg_id)
    device = await house.back(device)
    assert await device.hear_note("recall") == {"msg_id": msg_id}
    await device.note(mark, msg_id=msg_id)
    await device.told()
    device = await house.back(device)
    await device.quiet()
    assert await app.state(msg_id, device) == ("received" if is_received else "recalled")


async def test_recalls_come_before_the_messages_oldest_first(house: House, app: AppServer, device: Device) -> None:
    ids = await push_some(app, device, 3)
    await device.note("received", msg_id=ids[-1])
    await device.leave()
    await app.until_absent(device)
    waiting = await app.push_alert("waiting", device)
    for msg_id in ids:
        await app.call("push.recall", msg_id=msg_id)
    device = await house.back(device)
    assert [(await device.hear_note("recall"))["msg_id"] for _ in ids] == ids
    assert (await device.hear_message())["msg_id"] == waiting
    await device.note("withdrawn", msg_id=ids[1])
    device = await house.back(device)
    assert [(await device.hear_note("recall"))["msg_id"] for _ in range(2)] == [ids[0], ids[2]]
    assert (await device.hear_message())["msg_id"] == waiting


async def test_a_recall_is_told_for_ten_days() -> None:
    wall = Wall()
    async with serving(wall=wall) as house:
        app, device = await house.app(), await house.device()
        [msg_id] = await push_some(app, device, 1)
        await device.note("received", msg_id=msg_id)
        await device.leave()
        await app.until_state(msg_id, device, "received")
        await app.call("push.recall", msg_id=msg_id)
        wall.forward(9.9 * 86_400)
        device = await house.back(device)
        assert await device.hear_note("recall") == {"msg_id": msg_id}
        wall.forward(0.2 * 86_400)
        device = await house.back(device)
        await device.quiet()


async def test_what_is_recalled_is_not_told_before_it_is_on_disk() -> None:
    store = StubbornStore()
    async with serving(store=store) as house:
        app, device = await house.app(), await house.device()
        [msg_id] = await push_some(app, device, 1)
        store.hold()
        await app.say(app.request("push.recall", {"msg_id": msg_id}))
        with trio.move_on_after(0.1):
            await device.hear()
        assert not device.kept
        store.go_on()
        assert await device.hear_note("recall") == {"msg_id": msg_id}


# --- Held for the user (C25) -------------------------------------------------------------------------------------


async def hold(app: AppServer, *aliases: str, alert: str = "held", **options: object) -> str:
    pushed = await app.push({"alias": list(aliases)}, notification={"alert": alert}, options={"hold": True, **options})
    return str(pushed["msg_id"])


async def test_what_is_held_comes_when_its_user_logs_in(house: House, app: AppServer, device: Device) -> None:
    ids = [await hold(app, "U", alert=str(number)) for number in range(3)]
    await device.quiet()
    assert await device.call("alias.set", alias="U") == {"alias": "U", "previous": None}
    for number, msg_id in enumerate(ids):
        message = await device.hear_message()
        assert (message["msg_id"], message["alias"], message["notification"]) == (msg_id, "U", {"alert": str(number)})
    await device.note("received", msg_id=ids[-1])
    await device.quiet()
    # One device has had it: the next one has nothing.
    await (await house.device(alias="U")).quiet()


async def test_what_is_held_comes_with_connect_behind_what_waits(house: House, app: AppServer) -> None:
    device = await house.absent()
    first = await hold(app, "U", alert="held")
    waiting = await app.push_alert("waiting", device)
    back = await house.back(device, alias="U")
    assert back.welcome["waiting"] == 2
    assert [(await back.hear_message())["msg_id"] for _ in range(2)] == [waiting, first]


async def test_what_is_held_comes_when_the_app_server_logs_its_user_in(app: AppServer, device: Device) -> None:
    msg_id = await hold(app, "U")
    await app.call("devices.set", registration_id=device.id, alias="U")
    assert await device.hear_note("alias") == {"alias": "U"}
    assert (await device.hear_message())["msg_id"] == msg_id


async def test_a_held_message_that_is_declined_comes_at_the_next_binding_only(
    house: House, app: AppServer, device: Device
) -> None:
    await device.call("alias.set", alias="U")
    msg_id = await hold(app, "U")
    await device.hear_message()
    await device.note("declined", msg_id=msg_id)
    await device.quiet()
    assert await app.state(msg_id, device) is None
    assert (await app.report(msg_id))["waiting"] == 1
    # Nothing goes round in circles: neither another visit nor keeping the alias is a binding.
    assert await device.call("alias.set", alias="U") == {"alias": "U", "previous": "U"}
    await device.quiet()
    device = await house.back(device, alias="U")
    assert device.welcome["waiting"] == 0
    await device.quiet()
    await device.call("alias.set", alias="")
    await device.quiet()
    await device.call("alias.set", alias="U")
    assert (await device.hear_message())["msg_id"] == msg_id
    await device.note("received", msg_id=msg_id)
    await device.told()
    assert (await app.report(msg_id))["received"] == 1


async def test_at_the_fence_what_is_held_waits_for_its_user_and_comes_to_the_next_device(
    house: House, app: AppServer
) -> None:
    limits = Limits(window=1)
    async with serving(limits=limits) as house:
        app, device = await house.app(), await house.device(alias="U")
        ids = [await hold(app, "U", alert=str(number)) for number in range(3)]
        fenced = (await app.push({"alias": ["U"]}))["msg_id"]
        assert await device.hear_alerts(1) == ["0"]
        await device.call("alias.set", alias="V")
        # Those that waited are back at once; the one on the wire when the visit ends.
        assert [(await app.report(each))["waiting"] for each in ids] == [0, 1, 1]
        assert (await app.report(ids[0]))["sent"] == 1
        assert (await app.report(fenced))["fenced"] == 1
        await device.leave()
        await app.until_absent(device)
        assert [(await app.report(each))["waiting"] for each in ids] == [1, 1, 1]
        other = await house.device(alias="U")
        for number in range(3):
            # In order of acceptance.
            assert await other.hear_alerts(1) == [str(number)]
            await other.note("received", msg_id=ids[number])
        await other.quiet()
        await (await house.back(device)).quiet()


async def test_what_is_held_is_acknowledged_on_the_visit_that_has_it_though_the_alias_has_gone(
    app: AppServer, device: Device
) -> None:
    await device.call("alias.set", alias="U")
    msg_id = await hold(app, "U")
    await device.hear_message()
    await device.call("alias.set", alias="V")
    await device.note("received", msg_id=msg_id)
    await device.told()
    assert (await app.report(msg_id))["received"] == 1


async def test_with_its_device_deleted_what_is_held_waits_for_its_user(house: House, app: AppServer) -> None:
    device = await house.device(alias="U")
    ids = [await hold(app, "U") for _ in range(2)]
    await device.hear_alerts(2)
    await device.note("received", msg_id=ids[0])
    await device.call("unregister")
    assert (await app.report(ids[1]))["waiting"] == 1
    assert (await (await house.device(alias="U")).hear_message())["msg_id"] == ids[1]


async def test_of_several_devices_that_gave_it_back_the_user_gets_one(house: House, app: AppServer) -> None:
    devices = [await house.device(alias="U") for _ in range(2)]
    msg_id = await hold(app, "U")
    for device in devices:
        await device.hear_message()
        await device.call("alias.set", alias="")
        await device.note("declined", msg_id=msg_id)
        await device.told()
    report = await app.report(msg_id)
    assert (report["targets"], report["waiting"], report["fenced"]) == (2, 1, 1)
    await devices[0].call("alias.set", alias="U")
    state = await app.state(msg_id, devices[0])
    assert state in ("sent", None, "fenced")
    other = await house.device(alias="U")
    if state != "sent":
        assert (await other.hear_message())["msg_id"] == msg_id
    await other.quiet()
    assert (await app.report(msg_id))["targets"] == 2

"""What app servers can ask, method by method: params, results, and every error with its name and its path."""

from __future__ import annotations

from typing import Any

import pytest

from pushactors.actors.tenant import Limits
from pushactors.domain.aliases import AliasFullPolicy
from pushactors.edges import methods
from tests.edges.serving import (
    HELLO,
    MARKS,
    OTHER,
    OTHER_SECRET,
    VERDICTS,
    AppServer,
    Device,
    House,
    Refusal,
    Wall,
    adding_up,
    serving,
)

NOBODY = "a" * 26
NO_MESSAGE = "999999999"
METHODS = (
    "push", "push.validate", "report", "status", "pushes.list", "devices.get", "devices.list", "devices.set",
    "devices.delete", "aliases.get", "aliases.delete", "tags.list", "tags.get", "presence", "push.recall", "timeline",
    "receipts.subscribe", "receipts.ack", "receipts.unsubscribe",
)  # fmt: skip


async def refusal_of(app: AppServer, method: str, params: object) -> Refusal:
    """The error that a request is answered with; afterwards the connection is usable (C24)."""
    answer = await app.ask(method, params)
    assert "error" in answer, answer
    await app.call("tags.list")
    refusal = Refusal(answer["error"])
    assert refusal.message.endswith(".")
    return refusal


# --- push --------------------------------------------------------------------------------------------------------


async def test_a_push_is_answered_with_its_id_and_counts(house: House, app: AppServer) -> None:
    for _ in range(2):
        await house.device(tags=["x"])
    await house.absent(tags=["x"])
    pushed = await app.push({"tag": ["x"]}, options={"sendno": 7})
    assert pushed == {"msg_id": pushed["msg_id"], "sendno": 7, "targets": 3, "online": 2, "absent": 1}
    assert pushed["msg_id"].isdecimal()


@pytest.mark.parametrize("sendno", [0, -5, 2**63 - 1, -(2**63)])
async def test_a_sendno_comes_back(house: House, app: AppServer, sendno: int) -> None:
    await house.device()
    assert (await app.push("all", options={"sendno": sendno}))["sendno"] == sendno


async def test_without_a_sendno_none_comes_back(house: House, app: AppServer) -> None:
    await house.device()
    assert (await app.push("all"))["sendno"] is None


async def test_ids_increase_in_order_of_acceptance(house: House, app: AppServer) -> None:
    await house.device()
    other = await house.app(OTHER, OTHER_SECRET)
    await house.device(app_key=OTHER)
    ids = []
    for number in range(10):
        ids.append(int((await (app, other)[number % 2].push("all"))["msg_id"]))
    assert ids == sorted(set(ids))


AUDIENCES: list[tuple[object, set[str]]] = [
    ("all", {"ann", "bob", "cy", "dee"}),
    ({"alias": ["A"]}, {"ann", "bob"}),
    ({"alias": ["A", "C"]}, {"ann", "bob", "cy"}),
    ({"alias": ["A", "nobody"]}, {"ann", "bob"}),
    ({"registration_id": ["ann", "cy", NOBODY]}, {"ann", "cy"}),
    ({"tag": ["x"]}, {"ann", "cy"}),
    ({"tag": ["x", "y"]}, {"ann", "bob", "cy"}),
    ({"tag_and": ["x", "y"]}, {"ann"}),
    ({"tag_not": ["x"]}, {"bob", "dee"}),
    ({"tag_not": ["x", "y"]}, {"dee"}),
    ({"tag_not": ["nobody"]}, {"ann", "bob", "cy", "dee"}),
    ({"alias": ["A"], "tag": ["x"]}, {"ann"}),
    ({"alias": ["A"], "tag_not": ["x"]}, {"bob"}),
    ({"tag": ["x", "y"], "tag_and": ["y"], "tag_not": ["x"]}, {"bob"}),
    ({"alias": ["A"], "registration_id": ["ann"], "tag": ["x"], "tag_and": ["x", "y"], "tag_not": ["z"]}, {"ann"}),
    ({"alias": ["C"], "registration_id": ["cy", "dee"]}, {"cy"}),
    ({"alias": [], "registration_id": [], "tag": ["y"], "tag_and": [], "tag_not": []}, {"ann", "bob"}),
]


async def four(house: House) -> dict[str, Device]:
    return {
        "ann": await house.device(alias="A", tags=["x", "y"]),
        "bob": await house.device(alias="A", tags=["y"], platform="ios"),
        "cy": await house.device(alias="C", tags=["x"], platform="android"),
        "dee": await house.device(),
    }


def with_ids(audience: object, devices: dict[str, Device]) -> object:
    """`audience` with the names of devices replaced by their ids."""
    if isinstance(audience, dict) and "registration_id" in audience:
        ids = [devices[name].id if name in devices else name for name in audience["registration_id"]]
        return {**audience, "registration_id": ids}
    return audience


async def test_an_audience_names_devices_as_the_protocol_says(house: House, app: AppServer) -> None:
    devices = await four(house)
    for audience, names in AUDIENCES:
        asked = with_ids(audience, devices)
        assert await app.call("push.validate", audience=asked, notification=HELLO) == {"targets": len(names)}
        pushed = await app.push(asked)
        assert pushed["targets"] == len(names), audience
        for name in names:
            assert (await devices[name].hear_message())["msg_id"] == pushed["msg_id"], audience
    for device in devices.values():
        await device.quiet()


@pytest.mark.parametrize(
    "audience",
    [
        {"alias": ["nobody"]},
        {"registration_id": [NOBODY]},
        {"tag": ["nobody"]},
        {"tag_and": ["x", "nobody"]},
        {"tag_not": ["x", "y", "z"]},
        {"alias": ["A"], "tag_not": ["x", "y"]},
        {"alias": ["A"], "tag": ["z"]},
    ],
)
async def test_an_audience_that_names_no_device_is_refused_and_nothing_is_stored(
    house: House, app: AppServer, audience: dict[str, Any]
) -> None:
    await house.device(alias="A", tags=["x", "y"])
    for method in ("push", "push.validate"):
        refusal = await refusal_of(app, method, {"audience": audience, "notification": HELLO})
        assert (refusal.code, refusal.name) == (1011, "no_target")
    assert await app.call("pushes.list") == {"pushes": []}


async def test_an_app_without_devices_has_no_targets(app: AppServer) -> None:
    assert (await refusal_of(app, "push", {"audience": "all", "notification": HELLO})).code == 1011


@pytest.mark.parametrize(
    ("platform", "names"),
    [
        ("all", {"ann", "bob", "cy", "dee"}),
        (["ios"], {"bob"}),
        (["ios", "android"], {"bob", "cy"}),
        (["android", "ios", "web", "desktop", "other"], {"ann", "bob", "cy", "dee"}),
        (["other", "other"], {"ann", "dee"}),
    ],
)
async def test_a_push_may_be_for_some_platforms(
    house: House, app: AppServer, platform: object, names: set[str]
) -> None:
    devices = await four(house)
    pushed = await app.push("all", platform=platform)
    assert pushed["targets"] == len(names)
    for name in names:
        assert (await devices[name].hear_message())["msg_id"] == pushed["msg_id"]
    for device in devices.values():
        await device.quiet()


async def test_a_push_for_platforms_that_nobody_has_names_no_device(house: House, app: AppServer) -> None:
    await house.device(platform="ios")
    refusal = await refusal_of(app, "push", {"audience": "all", "platform": ["web"], "notification": HELLO})
    assert refusal.code == 1011


PUSH: dict[str, Any] = {"audience": "all", "notification": HELLO}
BAD_PUSHES: list[tuple[dict[str, Any], str]] = [
    ({"notification": HELLO}, "audience"),
    ({**PUSH, "audience": None}, "audience"),
    ({**PUSH, "audience": "everybody"}, "audience"),
    ({**PUSH, "audience": ["A"]}, "audience"),
    ({**PUSH, "audience": {}}, "audience"),
    ({**PUSH, "audience": {"alias": []}}, "audience"),
    ({**PUSH, "audience": {"alias": [], "tag": [], "tag_not": []}}, "audience"),
    ({**PUSH, "audience": {"alias": "A"}}, "audience.alias"),
    ({**PUSH, "audience": {"alias": ["A", "a b"]}}, "audience.alias[1]"),
    ({**PUSH, "audience": {"alias": [""]}}, "audience.alias[0]"),
    ({**PUSH, "audience": {"alias": None}}, "audience.alias"),
    ({**PUSH, "audience": {"alias": ["A"] * 1_001}}, "audience.alias"),
    ({**PUSH, "audience": {"registration_id": [NOBODY] * 1_001}}, "audience.registration_id"),
    ({**PUSH, "audience": {"registration_id": [5]}}, "audience.registration_id[0]"),
    ({**PUSH, "audience": {"tag": ["x"] * 21}}, "audience.tag"),
    ({**PUSH, "audience": {"tag_and": ["x"] * 21}}, "audience.tag_and"),
    ({**PUSH, "audience": {"tag_not": ["x"] * 21}}, "audience.tag_not"),
    ({**PUSH, "audience": {"tag": ["x y"]}}, "audience.tag[0]"),
    ({**PUSH, "audience": {"tags": ["x"]}}, "audience.tags"),
    ({**PUSH, "audience": {"alias": ["A"], "segment": "x"}}, "audience.segment"),
    ({**PUSH, "platform": []}, "platform"),
    ({**PUSH, "platform": "ios"}, "platform"),
    ({**PUSH, "platform": ["ios", "windows"]}, "platform[1]"),
    ({**PUSH, "platform": None}, "platform"),
    ({**PUSH, "cid": ""}, "cid"),
    ({**PUSH, "cid": "x" * 129}, "cid"),
    ({**PUSH, "cid": "a\nb"}, "cid"),
    ({**PUSH, "cid": 5}, "cid"),
    ({"audience": "all"}, "notification"),
    ({**PUSH, "notification": None}, "notification"),
    ({**PUSH, "notification": {}}, "notification"),
    ({**PUSH, "notification": "hello"}, "notification"),
    ({**PUSH, "notification": {"alert": 5}}, "notification.alert"),
    ({**PUSH, "notification": {"alert": None}}, "notification.alert"),
    ({**PUSH, "notification": {"badge": "5"}}, "notification.badge"),
    ({**PUSH, "notification": {"badge": 1.5}}, "notification.badge"),
    ({**PUSH, "notification": {"badge": True}}, "notification.badge"),
    ({**PUSH, "notification": {"extras": []}}, "notification.extras"),
    ({**PUSH, "notification": {"text": "x"}}, "notification.text"),
    ({**PUSH, "notification": {"ios": "x"}}, "notification.ios"),
    ({**PUSH, "notification": {"ios": {"alert": 5}}}, "notification.ios.alert"),
    ({**PUSH, "notification": {"ios": {"android": {}}}}, "notification.ios.android"),
    ({**PUSH, "notification": {"windows": {}}}, "notification.windows"),
    ({**PUSH, "message": {}}, "message.msg_content"),
    ({**PUSH, "message": {"msg_content": 5}}, "message.msg_content"),
    ({**PUSH, "message": {"msg_content": "x", "extras": "y"}}, "message.extras"),
    ({**PUSH, "message": {"msg_content": "x", "text": "y"}}, "message.text"),
    ({**PUSH, "message": "hello"}, "message"),
    ({**PUSH, "options": []}, "options"),
    ({**PUSH, "options": {"time_to_live": -1}}, "options.time_to_live"),
    ({**PUSH, "options": {"time_to_live": 864_001}}, "options.time_to_live"),
    ({**PUSH, "options": {"time_to_live": "60"}}, "options.time_to_live"),
    ({**PUSH, "options": {"time_to_live": 60.0}}, "options.time_to_live"),
    ({**PUSH, "options": {"time_to_live": None}}, "options.time_to_live"),
    ({**PUSH, "options": {"sendno": "7"}}, "options.sendno"),
    ({**PUSH, "options": {"sendno": 2**63}}, "options.sendno"),
    ({**PUSH, "options": {"override_msg_id": 5}}, "options.override_msg_id"),
    ({**PUSH, "options": {"override_msg_id": "five"}}, "options.override_msg_id"),
    ({**PUSH, "options": {"deliver_within": 0}}, "options.deliver_within"),
    ({**PUSH, "options": {"deliver_within": 864_001}}, "options.deliver_within"),
    ({**PUSH, "options": {"deliver_within": -1}}, "options.deliver_within"),
    ({**PUSH, "options": {"deliver_within": 1.5}}, "options.deliver_within"),
    ({**PUSH, "options": {"deliver_within": "30"}}, "options.deliver_within"),
    ({**PUSH, "options": {"deliver_within": True}}, "options.deliver_within"),
    ({**PUSH, "options": {"deliver_within": None}}, "options.deliver_within"),
    ({**PUSH, "options": {"deliver_within": 2**63}}, "options.deliver_within"),
    ({**PUSH, "audience": {"alias": ["A"]}, "options": {"hold": None}}, "options.hold"),
    ({**PUSH, "audience": {"alias": ["A"]}, "options": {"hold": "true"}}, "options.hold"),
    ({**PUSH, "audience": {"alias": ["A"]}, "options": {"hold": 1}}, "options.hold"),
    ({**PUSH, "audience": {"alias": ["A"], "tag_not": ["t"]}, "options": {"hold": True}}, "options.hold"),
    ({**PUSH, "audience": {"alias": ["A"], "registration_id": [NOBODY]}, "options": {"hold": True}}, "options.hold"),
    ({**PUSH, "audience": {"registration_id": [NOBODY]}, "options": {"hold": True}}, "options.hold"),
    ({**PUSH, "options": {"hold": 1}}, "options.hold"),
    ({**PUSH, "options": {"hold": True}}, "options.hold"),
    ({**PUSH, "audience": {"alias": ["A"], "tag": ["t"]}, "options": {"hold": True}}, "options.hold"),
    ({**PUSH, "audience": {"alias": ["A"]}, "platform": ["ios"], "options": {"hold": True}}, "options.hold"),
    ({**PUSH, "audience": {"alias": ["A"]}, "options": {"hold": True, "time_to_live": 0}}, "options.hold"),
    ({**PUSH, "options": {"ttl": 30}}, "options.ttl"),
    ({**PUSH, "sendno": 7}, "sendno"),
]


async def test_a_push_that_says_something_wrong_is_told_where_and_nothing_is_stored(
    house: House, app: AppServer
) -> None:
    device = await house.device(alias="A", tags=["x"])
    for params, path in BAD_PUSHES:
        for method in ("push", "push.validate"):
            answer = await app.ask(method, params)
            assert "error" in answer, params
            refusal = Refusal(answer["error"])
            assert (refusal.code, refusal.name, refusal.path) == (-32602, "invalid_params", path), params
            assert refusal.message.endswith("."), params
    await device.quiet()
    assert await app.call("pushes.list") == {"pushes": []}


def of_size(size: int) -> dict[str, Any]:
    """A notification that is that many bytes of JSON."""
    return {"alert": "x" * (size - len('{"alert":""}'))}


async def test_content_has_at_most_4000_bytes(house: House, app: AppServer) -> None:
    device = await house.device()
    await app.push("all", notification=of_size(4_000))
    assert len((await device.hear_message())["notification"]["alert"]) > 3_900
    await app.push("all", notification=of_size(2_000), message={"msg_content": "x" * (2_000 - 18)})
    await device.hear_message()
    await app.push("all", notification={"alert": "中" * ((4_000 - 12) // 3)})
    await device.hear_message()
    for params in (
        {"notification": of_size(4_001)},
        {"message": {"msg_content": "x" * (4_001 - 18)}},
        {"notification": of_size(2_000), "message": {"msg_content": "x" * (2_001 - 18)}},
        {"notification": {"alert": "中" * ((4_000 - 12) // 3 + 1)}},
        {"notification": {"ios": {"alert": "x" * 2_000}, "android": {"alert": "x" * 2_000}}},
    ):
        for method in ("push", "push.validate"):
            refusal = await refusal_of(app, method, {"audience": "all", **params})
            assert (refusal.code, refusal.name) == (1005, "too_large")
    await device.quiet()


async def test_the_largest_audience_is_taken(house: House, app: AppServer) -> None:
    device = await house.device(alias="A", tags=["t0"])
    audience = {
        "alias": ["A", *(f"中中中中中中中中{number}" for number in range(999))],
        "registration_id": [device.id, *(f"{number:026}" for number in range(999))],
        "tag": [f"t{number}" for number in range(20)],
        "tag_not": [f"u{number}" for number in range(20)],
    }
    assert (await app.push(audience))["targets"] == 1


async def test_validating_stores_and_sends_nothing(house: House, app: AppServer) -> None:
    device = await house.device(alias="A")
    await house.absent(alias="A")
    assert await app.call("push.validate", audience={"alias": ["A"]}, notification=HELLO) == {"targets": 2}
    await device.quiet()
    assert await app.call("pushes.list") == {"pushes": []}
    assert (await app.call("devices.get", registration_id=device.id))["mailbox"] == []


# --- push: cid (C6) ----------------------------------------------------------------------------------------------


async def test_the_same_cid_gets_the_first_answer_and_does_nothing(house: House, app: AppServer) -> None:
    device = await house.device(alias="A")
    first = await app.push({"alias": ["A"]}, cid="order-42", options={"sendno": 7})
    await device.hear_message()
    # Whatever has changed meanwhile, and on whichever connection.
    await house.device(alias="A")
    assert await app.push({"alias": ["A"]}, cid="order-42", options={"sendno": 7}) == first
    again = await house.app()
    assert await again.push({"alias": ["A"]}, cid="order-42", options={"sendno": 7}) == first
    await device.quiet()
    assert len((await app.call("pushes.list"))["pushes"]) == 1


async def test_two_spellings_of_one_push_are_one_push(house: House, app: AppServer) -> None:
    await house.device(alias="A", platform="ios")
    first = await app.push({"alias": ["A", "B"], "tag": []}, cid="c", platform="all")
    everything = ["web", "ios", "android", "other", "desktop"]
    assert await app.push({"alias": ["B", "A", "A"]}, cid="c", platform=everything) == first


async def test_a_cid_with_a_different_push_is_refused(house: House, app: AppServer) -> None:
    device = await house.device(alias="A")
    await app.push({"alias": ["A"]}, cid="c")
    await device.hear_message()
    for params in (
        {"audience": "all", "notification": HELLO, "cid": "c"},
        {"audience": {"alias": ["A"]}, "notification": {"alert": "other"}, "cid": "c"},
        {"audience": {"alias": ["A"]}, "notification": HELLO, "cid": "c", "options": {"sendno": 1}},
        {"audience": {"alias": ["A"]}, "notification": HELLO, "cid": "c", "platform": ["ios"]},
    ):
        refusal = await refusal_of(app, "push", params)
        assert (refusal.code, refusal.name) == (1003, "cid_reused")
    await device.quiet()


async def test_validating_knows_nothing_of_cids(house: House, app: AppServer) -> None:
    await house.device()
    await app.push("all", cid="c")
    assert await app.call("push.validate", audience="all", notification={"alert": "other"}, cid="c") == {"targets": 1}


async def test_concurrent_pushes_with_one_cid_are_one_push(house: House, app: AppServer) -> None:
    device = await house.device()
    servers = [app, *[await house.app() for _ in range(4)]]
    params = {"audience": "all", "notification": HELLO, "cid": "c"}
    requests = [[server.request("push", params) for _ in range(5)] for server in servers]
    for server, mine in zip(servers, requests, strict=True):
        await server.say(*mine)
    answers = [
        (await server.answer_to(request))["result"]
        for server, mine in zip(servers, requests, strict=True)
        for request in mine
    ]
    assert answers == [answers[0]] * 25
    await device.hear_message()
    await device.quiet()


async def test_a_cid_of_a_refused_push_is_free(house: House, app: AppServer) -> None:
    params = {"audience": {"alias": ["A"]}, "notification": HELLO, "cid": "c"}
    assert (await refusal_of(app, "push", params)).code == 1011
    await house.device(alias="A")
    assert (await app.call("push", **params))["targets"] == 1


async def test_a_cid_is_remembered_for_a_day(house: House, app: AppServer) -> None:
    await house.device()
    first = await app.push("all", cid="c")
    house.wall.forward(86_000)
    assert await app.push("all", cid="c") == first
    house.wall.forward(1_000)
    assert (await app.push("all", cid="c"))["msg_id"] != first["msg_id"]


async def test_a_cid_of_one_app_says_nothing_in_another(house: House, app: AppServer) -> None:
    other = await house.app(OTHER, OTHER_SECRET)
    await house.device()
    await house.device(app_key=OTHER)
    here, there = await app.push("all", cid="c"), await other.push("all", cid="c")
    assert here["msg_id"] != there["msg_id"]


# --- push: time to live, override, limit (C5, C7, C8) ------------------------------------------------------------


async def test_what_waits_too_long_expires(house: House, app: AppServer) -> None:
    device = await house.absent()
    short = await app.push("all", options={"time_to_live": 60})
    long = await app.push("all")
    house.wall.forward(61)
    await app.until_state(short["msg_id"], device, "expired")
    assert await app.state(long["msg_id"], device) == "waiting"
    back = await house.back(device)
    assert back.welcome["waiting"] == 1


@pytest.mark.parametrize("seconds", [1, 86_400, 864_000])
async def test_time_to_live_is_told_to_the_device(house: House, app: AppServer, seconds: int) -> None:
    device = await house.device()
    await app.push("all", options={"time_to_live": seconds})
    message = await device.hear_message()
    assert message["expires_at"] - message["sent_at"] == seconds * 1_000


async def test_time_to_live_is_a_day_unless_said(house: House, app: AppServer) -> None:
    device = await house.device()
    await app.push("all")
    message = await device.hear_message()
    assert message["expires_at"] - message["sent_at"] == 86_400_000


async def test_what_may_not_wait_is_missed_by_who_is_absent(house: House, app: AppServer) -> None:
    here, away = await house.device(), await house.absent()
    pushed = await app.push("all", options={"time_to_live": 0})
    assert (pushed["online"], pushed["absent"]) == (1, 1)
    await here.hear_message()
    assert await app.state(pushed["msg_id"], away) == "missed"
    report = await app.report(pushed["msg_id"])
    assert (report["missed"], report["sent"]) == (1, 1)
    assert (await house.back(away)).welcome["waiting"] == 0


async def test_a_push_replaces_what_it_overrides_and_takes_the_tail(house: House, app: AppServer) -> None:
    device = await house.absent()
    first = await app.push("all", notification={"alert": "first"})
    other = await app.push("all", notification={"alert": "other"})
    over = {"override_msg_id": first["msg_id"]}
    second = await app.push("all", notification={"alert": "second"}, options=over)
    third = await app.push("all", notification={"alert": "third"}, options=over)
    assert await app.state(first["msg_id"], device) == "replaced"
    assert await app.state(second["msg_id"], device) == "replaced"
    back = await house.back(device)
    assert await back.hear_alerts(2) == ["other", "third"]
    assert await app.state(other["msg_id"], device) == "sent"
    assert await app.state(third["msg_id"], device) == "sent"


async def test_an_override_of_nothing_is_an_ordinary_push(house: House, app: AppServer) -> None:
    device = await house.device()
    pushed = await app.push("all", options={"override_msg_id": NO_MESSAGE})
    message = await device.hear_message()
    assert (message["msg_id"], message["override_msg_id"]) == (pushed["msg_id"], NO_MESSAGE)


async def test_the_oldest_waiting_gives_way_for_an_absent_device(house: House, app: AppServer) -> None:
    device = await house.absent()
    ids = [(await app.push("all"))["msg_id"] for _ in range(7)]
    assert [await app.state(each, device) for each in ids] == ["overflowed"] * 2 + ["waiting"] * 5


# --- report (C1, C18) --------------------------------------------------------------------------------------------


async def test_a_report_has_every_number_and_they_add_up(house: House, app: AppServer) -> None:
    here, away = await house.device(), await house.absent()
    pushed = await app.push("all")
    await here.hear_message()
    assert await app.report(pushed["msg_id"]) == {
        "msg_id": pushed["msg_id"],
        "targets": 2,
        "waiting": 1,
        "sent": 1,
        **dict.fromkeys(VERDICTS, 0),
        **dict.fromkeys(MARKS, 0),
    }
    await here.note("opened", msg_id=pushed["msg_id"])
    await here.told()
    report = await app.report(pushed["msg_id"])
    assert (report["waiting"], report["sent"], report["received"], report["opened"]) == (1, 0, 1, 1)
    await app.call("devices.delete", registration_id=away.id)
    report = await app.report(pushed["msg_id"])
    assert (report["targets"], report["waiting"], report["missed"], report["received"]) == (2, 0, 1, 1)


async def test_reports_come_in_the_order_asked_and_null_for_what_the_app_has_not(house: House, app: AppServer) -> None:
    await house.device()
    await house.device(app_key=OTHER)
    other = await house.app(OTHER, OTHER_SECRET)
    ids = [(await app.push("all"))["msg_id"] for _ in range(3)]
    not_ours = (await other.push("all"))["msg_id"]
    asked = [ids[2], NO_MESSAGE, ids[0], not_ours, ids[2], str(2**63 - 1)]
    reports = await app.call("report", msg_ids=asked)
    assert [report and report["msg_id"] for report in reports] == [ids[2], None, ids[0], None, ids[2], None]
    assert reports[0] == reports[4]


async def test_of_nothing_there_is_an_empty_report(app: AppServer) -> None:
    assert await app.call("report", msg_ids=[]) == []
    assert await app.call("report", msg_ids=[NO_MESSAGE] * 100) == [None] * 100


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({}, "msg_ids"),
        ({"msg_ids": "1"}, "msg_ids"),
        ({"msg_ids": [1]}, "msg_ids[0]"),
        ({"msg_ids": ["1", "x"]}, "msg_ids[1]"),
        ({"msg_ids": ["1"] * 101}, "msg_ids"),
        ({"msg_id": "1"}, "msg_id"),
    ],
)
async def test_a_report_on_something_wrong_is_refused(app: AppServer, params: dict[str, Any], path: str) -> None:
    refusal = await refusal_of(app, "report", params)
    assert (refusal.code, refusal.path) == (-32602, path)


async def test_reports_add_up_at_every_moment() -> None:
    limits = Limits(offline_limit=2, window=2, backlog_limit=3)
    async with serving(limits=limits) as house:
        app, watcher = await house.app(), await house.app()
        devices = [await house.device(alias=f"a{number % 2}") for number in range(6)]
        ids: list[str] = []
        for turn in range(12):
            audience = "all" if turn % 3 else {"alias": ["a0", "a1"]}
            options = {"time_to_live": 0} if turn % 5 == 4 else {"override_msg_id": ids[-1]} if turn % 4 == 3 else {}
            requests = [
                app.request("push", {"audience": audience, "notification": HELLO, "options": options}) for _ in "ab"
            ]
            asks = [watcher.request("report", {"msg_ids": ids[-100:]}) for _ in "ab"]
            await app.say(*requests)
            await watcher.say(*asks)
            device = devices[turn % 6]
            match turn % 4:
                case 0:
                    await device.call("alias.set", alias=f"a{turn // 4 % 2}")
                case 1:
                    await device.vanish()
                    devices[turn % 6] = await house.back(device)
                case 2:
                    await device.told()
                    received = [each["params"]["msg_id"] for each in device.kept if each["method"] == "message"]
                    for msg_id in received[:1]:
                        await device.note("received", msg_id=msg_id)
                case _:
                    await device.leave()
                    devices[turn % 6] = await house.back(device)
            for ask in asks:
                for report in (await watcher.answer_to(ask))["result"]:
                    adding_up(report)
            for request in requests:
                answer = await app.answer_to(request)
                ids.append(str(answer["result"]["msg_id"]))
            for report in await app.call("report", msg_ids=ids):
                adding_up(report)


# --- status (C19) ------------------------------------------------------------------------------------------------


async def test_status_says_of_each_device_what_became_of_it(house: House, app: AppServer) -> None:
    here, away, gone, unasked = (
        await house.device(tags=["x"]),
        await house.absent(tags=["x"]),
        await house.device(tags=["x"]),
        await house.device(),
    )
    foreign = await house.device(app_key=OTHER)
    sent_after = house.wall()
    pushed = await app.push({"tag": ["x"]})
    for device in (here, gone):
        await device.hear_message()
    asked = [here.id, away.id, gone.id, unasked.id, foreign.id, NOBODY]
    statuses = await app.call("status", msg_id=pushed["msg_id"], registration_ids=asked)
    assert list(statuses) == asked
    for device, state in ((here, "sent"), (away, "waiting"), (gone, "sent")):
        status = statuses[device.id]
        assert status == {"code": 1, "state": state, "at": status["at"]}
        assert sent_after <= status["at"] <= house.wall()
    assert statuses[unasked.id] == {"code": 3, "state": None, "at": None}
    assert statuses[foreign.id] == {"code": 2, "state": None, "at": None}
    assert statuses[NOBODY] == {"code": 2, "state": None, "at": None}
    await here.note("received", msg_id=pushed["msg_id"])
    await here.told()
    await gone.call("unregister")
    await app.call("devices.delete", registration_id=unasked.id)
    statuses = await app.call("status", msg_id=pushed["msg_id"], registration_ids=asked)
    assert (statuses[here.id]["code"], statuses[here.id]["state"]) == (0, "received")
    # A target that was deleted since keeps 0 or 1; who was no target is no device of this app any more.
    assert (statuses[gone.id]["code"], statuses[gone.id]["state"]) == (1, "missed")
    assert statuses[unasked.id]["code"] == 2


async def test_a_deleted_target_that_had_received_keeps_its_0(house: House, app: AppServer) -> None:
    device = await house.device()
    pushed = await app.push("all")
    await device.note("received", msg_id=(await device.hear_message())["msg_id"])
    await device.call("unregister")
    statuses = await app.call("status", msg_id=pushed["msg_id"], registration_ids=[device.id])
    assert (statuses[device.id]["code"], statuses[device.id]["state"]) == (0, "received")


@pytest.mark.parametrize("state", ["missed", "expired", "replaced", "overflowed", "fenced"])
async def test_status_names_every_verdict(house: House, app: AppServer, state: str) -> None:
    device = await house.absent(alias="A")
    options = {"time_to_live": 0 if state == "missed" else 60}
    pushed = await app.push({"alias": ["A"]}, options=options)
    match state:
        case "expired":
            house.wall.forward(61)
        case "replaced":
            await app.push("all", options={"override_msg_id": pushed["msg_id"]})
        case "overflowed":
            for _ in range(5):
                await app.push("all")
        case "fenced":
            await app.call("aliases.delete", alias="A")
    await app.until_state(pushed["msg_id"], device, state)
    statuses = await app.call("status", msg_id=pushed["msg_id"], registration_ids=[device.id])
    assert statuses[device.id]["code"] == 1
    report = await app.report(pushed["msg_id"])
    assert report[state] == 1


async def test_the_status_of_an_unknown_message_is_refused(house: House, app: AppServer) -> None:
    await house.device(app_key=OTHER)
    other = await house.app(OTHER, OTHER_SECRET)
    not_ours = (await other.push("all"))["msg_id"]
    for msg_id in (NO_MESSAGE, not_ours):
        refusal = await refusal_of(app, "status", {"msg_id": msg_id, "registration_ids": []})
        assert (refusal.code, refusal.name) == (1013, "no_such_message")


async def test_a_thousand_devices_may_be_asked_for_at_once(house: House, app: AppServer) -> None:
    await house.device()
    pushed = await app.push("all")
    asked = [f"{number:026}" for number in range(1_000)]
    assert len(await app.call("status", msg_id=pushed["msg_id"], registration_ids=asked)) == 1_000
    assert await app.call("presence", registration_ids=asked) == {}


@pytest.mark.parametrize(
    ("method", "params", "path"),
    [
        ("status", {"registration_ids": []}, "msg_id"),
        ("status", {"msg_id": "1"}, "registration_ids"),
        ("status", {"msg_id": 1, "registration_ids": []}, "msg_id"),
        ("status", {"msg_id": "1", "registration_ids": [NOBODY] * 1_001}, "registration_ids"),
        ("status", {"msg_id": "1", "registration_ids": [5]}, "registration_ids[0]"),
        ("status", {"msg_id": "1", "registration_ids": [""]}, "registration_ids[0]"),
        ("presence", {}, "registration_ids"),
        ("presence", {"registration_ids": [NOBODY] * 1_001}, "registration_ids"),
        ("presence", {"registration_ids": NOBODY}, "registration_ids"),
        ("presence", {"registration_ids": [], "alias": "A"}, "alias"),
    ],
)
async def test_a_question_about_devices_that_is_wrong_is_told_where(
    app: AppServer, method: str, params: dict[str, Any], path: str
) -> None:
    refusal = await refusal_of(app, method, params)
    assert (refusal.code, refusal.path) == (-32602, path)


# --- pushes.list -------------------------------------------------------------------------------------------------


async def test_pushes_are_listed_newest_first_with_their_time(house: House, app: AppServer) -> None:
    await house.device()
    before = house.wall()
    ids = [(await app.push("all"))["msg_id"] for _ in range(5)]
    pushes = (await app.call("pushes.list"))["pushes"]
    assert [push["msg_id"] for push in pushes] == ids[::-1]
    for push in pushes:
        adding_up(push)
        assert before <= push["sent_at"] <= house.wall()
    assert {k: v for k, v in pushes[0].items() if k != "sent_at"} == await app.report(ids[-1])


async def test_pushes_are_paged(house: House, app: AppServer) -> None:
    await house.device()
    ids = [(await app.push("all"))["msg_id"] for _ in range(7)]
    found: list[str] = []
    params: dict[str, Any] = {"limit": 3}
    while page := (await app.call("pushes.list", **params))["pushes"]:
        assert len(page) <= 3
        found += [push["msg_id"] for push in page]
        params["before"] = found[-1]
    assert found == ids[::-1]
    assert (await app.call("pushes.list", before=ids[0]))["pushes"] == []
    assert len((await app.call("pushes.list", before=str(2**63 - 1)))["pushes"]) == 7


async def test_pushes_of_another_app_are_not_listed(house: House, app: AppServer) -> None:
    other = await house.app(OTHER, OTHER_SECRET)
    await house.device(app_key=OTHER)
    await other.push("all")
    assert (await app.call("pushes.list"))["pushes"] == []


@pytest.mark.parametrize(
    ("params", "path"),
    [({"limit": 0}, "limit"), ({"limit": 101}, "limit"), ({"limit": "5"}, "limit"), ({"before": 5}, "before"),
     ({"before": "x"}, "before"), ({"before": None}, "before"), ({"after": "5"}, "after")],
)  # fmt: skip
async def test_a_page_of_pushes_that_is_wrong_is_refused(app: AppServer, params: dict[str, Any], path: str) -> None:
    refusal = await refusal_of(app, "pushes.list", params)
    assert (refusal.code, refusal.path) == (-32602, path)


# --- devices.get and devices.list --------------------------------------------------------------------------------


async def test_a_device_is_told_with_its_mailbox() -> None:
    async with serving(limits=Limits(window=1)) as house:
        app = await house.app()
        device = await house.device(alias="A", tags=["b", "a"], platform="web")
        info = await app.call("devices.get", registration_id=device.id)
        assert info == {
            "registration_id": device.id,
            "platform": "web",
            "alias": "A",
            "tags": ["a", "b"],
            "online": True,
            "last_seen_at": info["last_seen_at"],
            "mailbox": [],
        }
        assert abs(info["last_seen_at"] - house.wall()) < 10_000
        before = house.wall()
        ids = [await app.push_alert(str(number), device) for number in range(3)]
        await device.hear_message()
        mailbox = (await app.call("devices.get", registration_id=device.id))["mailbox"]
        assert [each["msg_id"] for each in mailbox] == ids
        assert [each["state"] for each in mailbox] == ["sent", "waiting", "waiting"]
        for each in mailbox:
            assert each.keys() == {"msg_id", "state", "at"}
            assert before <= each["at"] <= house.wall()


async def test_an_absent_device_is_told_with_what_waits_for_it(house: House, app: AppServer) -> None:
    device = await house.absent()
    ids = [await app.push_alert(str(number), device) for number in range(3)]
    info = await app.call("devices.get", registration_id=device.id)
    assert (info["online"], info["alias"], info["tags"], info["platform"]) == (False, None, [], "other")
    assert [(each["msg_id"], each["state"]) for each in info["mailbox"]] == [(each, "waiting") for each in ids]


async def test_devices_are_listed_in_order_of_their_ids_without_mailboxes(house: House, app: AppServer) -> None:
    devices = [await house.device(tags=[f"t{number}"]) for number in range(5)]
    await app.push("all")
    listed = (await app.call("devices.list"))["devices"]
    assert [each["registration_id"] for each in listed] == sorted(device.id for device in devices)
    for each in listed:
        assert each.keys() == {"registration_id", "platform", "alias", "tags", "online", "last_seen_at"}


async def test_devices_are_paged(house: House, app: AppServer) -> None:
    devices = [await house.device() for _ in range(7)]
    found: list[str] = []
    params: dict[str, Any] = {"limit": 3}
    while page := (await app.call("devices.list", **params))["devices"]:
        assert len(page) <= 3
        found += [each["registration_id"] for each in page]
        params["after"] = found[-1]
    assert found == sorted(device.id for device in devices)


async def test_a_page_may_begin_behind_a_device_that_was_deleted(house: House, app: AppServer) -> None:
    ids = sorted([(await house.device()).id for _ in range(5)])
    await app.call("devices.delete", registration_id=ids[1])
    listed = (await app.call("devices.list", after=ids[1]))["devices"]
    assert [each["registration_id"] for each in listed] == ids[2:]
    listed = (await app.call("devices.list"))["devices"]
    assert [each["registration_id"] for each in listed] == [ids[0], *ids[2:]]


@pytest.mark.parametrize(
    ("params", "path"),
    [({"limit": 0}, "limit"), ({"limit": 1_001}, "limit"), ({"limit": 1.0}, "limit"), ({"after": 5}, "after"),
     ({"after": ""}, "after"), ({"before": "x"}, "before")],
)  # fmt: skip
async def test_a_page_of_devices_that_is_wrong_is_refused(app: AppServer, params: dict[str, Any], path: str) -> None:
    refusal = await refusal_of(app, "devices.list", params)
    assert (refusal.code, refusal.path) == (-32602, path)


# --- devices.set (C13, C14) --------------------------------------------------------------------------------------


async def test_a_device_is_changed_and_told_as_it_is_then(house: House, app: AppServer) -> None:
    device = await house.absent(alias="A", tags=["x", "y"])
    changed = await app.call(
        "devices.set", registration_id=device.id, alias="B", tags={"add": ["z", "x"], "remove": ["y", "w"]}
    )
    assert changed == await app.call("devices.get", registration_id=device.id)
    assert (changed["alias"], changed["tags"]) == ("B", ["x", "z"])
    changed = await app.call("devices.set", registration_id=device.id)
    assert (changed["alias"], changed["tags"]) == ("B", ["x", "z"])
    changed = await app.call("devices.set", registration_id=device.id, tags=[])
    assert (changed["alias"], changed["tags"]) == ("B", [])
    changed = await app.call("devices.set", registration_id=device.id, alias="", tags={"add": ["q"]})
    assert (changed["alias"], changed["tags"]) == (None, ["q"])
    changed = await app.call("devices.set", registration_id=device.id, tags={})
    assert changed["tags"] == ["q"]


async def test_a_tag_that_is_added_and_removed_at_once_stays(house: House, app: AppServer) -> None:
    device = await house.absent(tags=["x"])
    for tags in ({"add": ["x", "y"], "remove": ["y", "x"]}, {"remove": ["x"], "add": ["x"]}):
        assert (await app.call("devices.set", registration_id=device.id, tags=tags))["tags"] == ["x", "y"]


async def test_a_changed_alias_fences_what_waits(house: House, app: AppServer) -> None:
    device = await house.absent(alias="A")
    by_alias, by_id = await app.push({"alias": ["A"]}), await app.push({"registration_id": [device.id]})
    changed = await app.call("devices.set", registration_id=device.id, alias="A")
    assert len(changed["mailbox"]) == 2
    changed = await app.call("devices.set", registration_id=device.id, alias="B")
    assert [each["msg_id"] for each in changed["mailbox"]] == [by_id["msg_id"]]
    assert await app.state(by_alias["msg_id"], device) == "fenced"


async def test_a_full_alias_is_refused_and_nothing_of_the_request_happens() -> None:
    async with serving(limits=Limits(alias_limit=1)) as house:
        app = await house.app()
        await house.device(alias="A")
        other = await house.device(alias="B")
        refusal = await refusal_of(
            app, "devices.set", {"registration_id": other.id, "alias": "A", "tags": {"add": ["x"]}}
        )
        assert (refusal.code, refusal.name) == (6027, "alias_full")
        info = await app.call("devices.get", registration_id=other.id)
        assert (info["alias"], info["tags"]) == ("B", [])
        await other.quiet()


async def test_a_full_alias_may_be_taken_from_who_is_away() -> None:
    async with serving(limits=Limits(alias_limit=1, alias_full=AliasFullPolicy.LONGEST_ABSENT)) as house:
        app = await house.app()
        away, here = await house.absent(alias="A"), await house.device()
        await app.call("devices.set", registration_id=here.id, alias="A")
        assert await here.hear_note("alias") == {"alias": "A"}
        assert (await app.call("devices.get", registration_id=away.id))["alias"] is None


async def test_too_many_tags_are_refused_and_nothing_of_the_request_happens(house: House, app: AppServer) -> None:
    device = await house.device(alias="A", tags=[f"t{number}" for number in range(100)])
    refusal = await refusal_of(
        app, "devices.set", {"registration_id": device.id, "alias": "B", "tags": {"add": ["one-more"]}}
    )
    assert (refusal.code, refusal.path) == (-32602, "tags")
    info = await app.call("devices.get", registration_id=device.id)
    assert (info["alias"], len(info["tags"])) == ("A", 100)
    await device.quiet()


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({}, "registration_id"),
        ({"alias": "a b"}, "alias"),
        ({"alias": None}, "alias"),
        ({"tags": ["x"]}, "tags"),
        ({"tags": "x"}, "tags"),
        ({"tags": {"set": ["x"]}}, "tags.set"),
        ({"tags": {"add": "x"}}, "tags.add"),
        ({"tags": {"add": ["x", "y z"]}}, "tags.add[1]"),
        ({"tags": {"remove": [5]}}, "tags.remove[0]"),
        ({"tags": {"add": [f"t{number}" for number in range(101)]}}, "tags.add"),
        ({"platform": "ios"}, "platform"),
    ],
)
async def test_a_change_that_is_wrong_is_told_where_and_changes_nothing(
    house: House, app: AppServer, params: dict[str, Any], path: str
) -> None:
    device = await house.device(alias="A", tags=["x"])
    asked = {"registration_id": device.id, **params} if params else {}
    refusal = await refusal_of(app, "devices.set", asked)
    assert (refusal.code, refusal.path) == (-32602, path)
    info = await app.call("devices.get", registration_id=device.id)
    assert (info["alias"], info["tags"]) == ("A", ["x"])


# --- devices.delete, aliases, tags, presence ---------------------------------------------------------------------


async def test_a_deleted_device_is_gone_everywhere(house: House, app: AppServer) -> None:
    device = await house.absent(alias="A", tags=["x"])
    pushed = await app.push({"alias": ["A"]})
    assert await app.call("devices.delete", registration_id=device.id) is None
    assert await app.call("devices.list") == {"devices": []}
    assert await app.call("aliases.get", alias="A") == {"registration_ids": []}
    assert await app.call("tags.list") == {"tags": []}
    assert await app.call("tags.get", tag="x") == {"registration_ids": [], "count": 0}
    assert await app.call("presence", registration_ids=[device.id]) == {}
    assert (await app.report(pushed["msg_id"]))["missed"] == 1
    for method in ("devices.get", "devices.delete", "devices.set"):
        refusal = await refusal_of(app, method, {"registration_id": device.id})
        assert (refusal.code, refusal.name) == (1010, "no_such_device")


@pytest.mark.parametrize("method", ["devices.get", "devices.delete", "devices.set"])
async def test_an_unknown_device_and_another_apps_are_the_same(house: House, app: AppServer, method: str) -> None:
    foreign = await house.device(app_key=OTHER, alias="A")
    for registration_id in (NOBODY, foreign.id, "x", "é", "x" * 64):
        refusal = await refusal_of(app, method, {"registration_id": registration_id})
        assert (refusal.code, refusal.name) == (1010, "no_such_device")
    await foreign.quiet()
    assert await foreign.call("alias.get") == {"alias": "A"}


@pytest.mark.parametrize("method", ["devices.get", "devices.delete"])
@pytest.mark.parametrize(
    ("params", "path"),
    [({}, "registration_id"), ({"registration_id": 5}, "registration_id"), ({"registration_id": ""}, "registration_id"),
     ({"registration_id": "x" * 65}, "registration_id"), ({"registration_id": NOBODY, "sure": True}, "sure")],
)  # fmt: skip
async def test_a_device_is_asked_for_by_its_id_only(
    app: AppServer, method: str, params: dict[str, Any], path: str
) -> None:
    refusal = await refusal_of(app, method, params)
    assert (refusal.code, refusal.path) == (-32602, path)


async def test_who_has_an_alias_is_told_and_it_is_taken_off_all_of_them(house: House, app: AppServer) -> None:
    holders = [await house.absent(alias="A"), await house.device(alias="A")]
    other = await house.device(alias="B")
    waiting = await app.push({"alias": ["A"]})
    assert set((await app.call("aliases.get", alias="A"))["registration_ids"]) == {each.id for each in holders}
    assert await app.call("aliases.get", alias="nobody") == {"registration_ids": []}
    lost = (await app.call("aliases.delete", alias="A"))["registration_ids"]
    assert sorted(lost) == sorted(each.id for each in holders)
    assert await app.call("aliases.get", alias="A") == {"registration_ids": []}
    assert await app.call("aliases.delete", alias="A") == {"registration_ids": []}
    assert await app.state(waiting["msg_id"], holders[0]) == "fenced"
    assert (await app.call("aliases.get", alias="B"))["registration_ids"] == [other.id]


@pytest.mark.parametrize("method", ["aliases.get", "aliases.delete"])
@pytest.mark.parametrize(
    ("params", "path"), [({}, "alias"), ({"alias": ""}, "alias"), ({"alias": "a b"}, "alias"), ({"alias": 5}, "alias")]
)
async def test_an_alias_is_asked_for_by_its_name(
    app: AppServer, method: str, params: dict[str, Any], path: str
) -> None:
    refusal = await refusal_of(app, method, params)
    assert (refusal.code, refusal.path) == (-32602, path)


async def test_tags_are_listed_and_who_has_them(house: House, app: AppServer) -> None:
    one, two = await house.device(tags=["b", "a"]), await house.absent(tags=["b"])
    await house.device(app_key=OTHER, tags=["z", "b"])
    assert await app.call("tags.list") == {"tags": ["a", "b"]}
    holders = await app.call("tags.get", tag="b")
    assert (set(holders["registration_ids"]), holders["count"]) == ({one.id, two.id}, 2)
    assert await app.call("tags.get", tag="a") == {"registration_ids": [one.id], "count": 1}
    assert await app.call("tags.get", tag="nobody") == {"registration_ids": [], "count": 0}
    await one.call("tags.set", tags=[])
    assert await app.call("tags.list") == {"tags": ["b"]}


async def test_of_many_holders_a_thousand_are_named_and_all_are_counted(
    house: House, app: AppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert methods.TAG_HOLDERS_TOLD == 1_000
    monkeypatch.setattr(methods, "TAG_HOLDERS_TOLD", 10)
    for _ in range(15):
        await house.device(tags=["x"])
    holders = await app.call("tags.get", tag="x")
    assert holders["count"] == 15
    assert len(set(holders["registration_ids"])) == 10


@pytest.mark.parametrize(
    ("method", "params", "path"),
    [("tags.get", {}, "tag"), ("tags.get", {"tag": ""}, "tag"), ("tags.get", {"tag": "a b"}, "tag"),
     ("tags.list", {"limit": 5}, "limit")],
)  # fmt: skip
async def test_a_question_about_tags_that_is_wrong_is_refused(
    app: AppServer, method: str, params: dict[str, Any], path: str
) -> None:
    refusal = await refusal_of(app, method, params)
    assert (refusal.code, refusal.path) == (-32602, path)


async def test_presence_is_told_and_unknown_ids_are_left_out(house: House, app: AppServer) -> None:
    here, away, foreign = await house.device(), await house.absent(), await house.device(app_key=OTHER)
    house.wall.forward(100)
    presence = await app.call("presence", registration_ids=[away.id, NOBODY, here.id, foreign.id])
    assert presence.keys() == {here.id, away.id}
    assert presence[here.id].keys() == {"online", "last_seen_at"}
    assert (presence[here.id]["online"], presence[away.id]["online"]) == (True, False)
    assert presence[away.id]["last_seen_at"] <= house.wall() - 100_000
    # Who is here is being seen.
    assert presence[here.id]["last_seen_at"] > house.wall() - 10_000


# --- push.recall (C22) -------------------------------------------------------------------------------------------


async def recall(app: AppServer, msg_id: str) -> dict[str, int]:
    """The split, which must add up to the targets."""
    split: dict[str, int] = await app.call("push.recall", msg_id=msg_id)
    assert split.keys() == {"recalled", "on_the_way", "received", "settled"}
    assert sum(split.values()) == (await app.report(msg_id))["targets"]
    return split


async def test_a_recall_is_answered_with_the_exact_split(house: House, app: AppServer) -> None:
    sent, received, opened = [await house.device() for _ in range(3)]
    gone = await house.device()
    for _ in range(2):
        await house.absent()
    msg_id = (await app.push("all"))["msg_id"]
    for device in (sent, received, opened, gone):
        await device.hear_message()
    await received.note("received", msg_id=msg_id)
    await opened.note("opened", msg_id=msg_id)
    for device in (received, opened):
        await device.told()
    await gone.call("unregister")
    split = {"recalled": 2, "on_the_way": 1, "received": 2, "settled": 1}
    assert await recall(app, msg_id) == split
    report = await app.report(msg_id)
    assert (report["recalled"], report["sent"], report["received"], report["missed"]) == (2, 1, 2, 1)
    # Again: what the earlier recall has settled is settled.
    assert await recall(app, msg_id) == {"recalled": 0, "on_the_way": 1, "received": 2, "settled": 3}
    # What was on the way gets the verdict when its visit ends.
    await sent.leave()
    await app.until_state(msg_id, sent, "recalled")
    assert await recall(app, msg_id) == {"recalled": 0, "on_the_way": 0, "received": 2, "settled": 4}


async def test_what_is_recalled_is_never_sent(house: House, app: AppServer) -> None:
    away = await house.absent(alias="A")
    recalled, kept = await app.push_alert("recalled", away), await app.push_alert("kept", away)
    assert (await recall(app, recalled))["recalled"] == 1
    back = await house.back(away)
    assert back.welcome["waiting"] == 1
    assert (await back.hear_message())["msg_id"] == kept
    # It was never sent it, so it is not told either.
    await back.quiet()


async def test_what_is_struck_and_acknowledged_all_the_same_is_received(house: House, app: AppServer) -> None:
    device = await house.device()
    msg_id = await app.push_alert("a", device)
    await device.hear_message()
    assert (await recall(app, msg_id))["on_the_way"] == 1
    assert await device.hear_note("recall") == {"msg_id": msg_id}
    await device.note("received", msg_id=msg_id)
    await device.told()
    assert await recall(app, msg_id) == {"recalled": 0, "on_the_way": 0, "received": 1, "settled": 0}


async def test_what_waits_behind_a_full_window_is_recalled() -> None:
    async with serving(limits=Limits(window=1)) as house:
        app, device = await house.app(), await house.device()
        first, second = await app.push_alert("a", device), await app.push_alert("b", device)
        await device.hear_message()
        assert await recall(app, second) == {"recalled": 1, "on_the_way": 0, "received": 0, "settled": 0}
        await device.note("received", msg_id=first)
        await device.quiet()


async def test_a_recall_reaches_what_is_held(house: House, app: AppServer) -> None:
    here = await house.device(alias="A")
    pushed = await app.push({"alias": ["A", "U", "V"]}, options={"hold": True})
    assert pushed["targets"] == 3
    await here.hear_message()
    split = {"recalled": 2, "on_the_way": 1, "received": 0, "settled": 0}
    assert await recall(app, pushed["msg_id"]) == split
    assert await here.hear_note("recall") == {"msg_id": pushed["msg_id"]}
    newcomer = await house.device(alias="U")
    assert newcomer.welcome["waiting"] == 0
    # Struck, it does not come back to its alias.
    await here.call("alias.set", alias="")
    await here.note("declined", msg_id=pushed["msg_id"])
    await here.told()
    assert (await app.report(pushed["msg_id"]))["recalled"] == 3
    await newcomer.quiet()
    await (await house.device(alias="A")).quiet()


async def test_what_was_sent_and_returned_is_recalled_and_the_device_told(house: House, app: AppServer) -> None:
    device = await house.device()
    msg_id = await app.push_alert("a", device)
    await device.hear_message()
    await device.leave()
    await app.until_state(msg_id, device, "waiting")
    assert await recall(app, msg_id) == {"recalled": 1, "on_the_way": 0, "received": 0, "settled": 0}
    back = await house.back(device)
    assert await back.hear_note("recall") == {"msg_id": msg_id}
    await back.quiet()


async def test_a_recall_with_time_to_live_0(house: House, app: AppServer) -> None:
    here, away = await house.device(), await house.absent()
    msg_id = (await app.push("all", options={"time_to_live": 0}))["msg_id"]
    await here.hear_message()
    assert await recall(app, msg_id) == {"recalled": 0, "on_the_way": 1, "received": 0, "settled": 1}
    assert await here.hear_note("recall") == {"msg_id": msg_id}
    assert await app.state(msg_id, away) == "missed"


async def test_an_unknown_message_and_another_apps_cannot_be_recalled(house: House, app: AppServer) -> None:
    theirs = await house.device(app_key=OTHER)
    other = await house.app(OTHER, OTHER_SECRET)
    foreign = await other.push_alert("a", theirs)
    for msg_id in (NO_MESSAGE, foreign, str(2**63 - 1)):
        refusal = await refusal_of(app, "push.recall", {"msg_id": msg_id})
        assert (refusal.code, refusal.name) == (1013, "no_such_message")
    assert (await theirs.hear_message())["msg_id"] == foreign
    await theirs.quiet()
    assert (await other.report(foreign))["sent"] == 1


@pytest.mark.parametrize(
    ("params", "path"),
    [({}, "msg_id"), ({"msg_id": 5}, "msg_id"), ({"msg_id": "05"}, "msg_id"), ({"msg_id": ""}, "msg_id"),
     ({"msg_id": str(2**63)}, "msg_id"), ({"msg_id": None}, "msg_id"), ({"msg_ids": ["5"]}, "msg_id"),
     ({"msg_id": "5", "why": "x"}, "why")],
)  # fmt: skip
async def test_a_recall_that_is_wrong_is_refused(app: AppServer, params: dict[str, Any], path: str) -> None:
    refusal = await refusal_of(app, "push.recall", params)
    assert refusal.code == -32602
    assert refusal.path in (path, "msg_ids" if "msg_ids" in params else path)


# --- deliver_within and hold (C21, C25) --------------------------------------------------------------------------


@pytest.mark.parametrize("deliver_within", [1, 864_000])
async def test_a_deadline_may_be_a_second_or_ten_days(house: House, app: AppServer, deliver_within: int) -> None:
    await house.device()
    assert (await app.push("all", options={"deliver_within": deliver_within}))["targets"] == 1


async def test_a_cid_names_a_push_with_its_deadline_and_its_hold(house: House, app: AppServer) -> None:
    await house.device(alias="A")
    options: list[dict[str, Any]] = [
        {}, {"deliver_within": 30}, {"deliver_within": 31}, {"hold": True}, {"hold": True, "deliver_within": 30}
    ]  # fmt: skip
    answers = [
        await app.push({"alias": ["A"]}, cid=f"c{number}", options=each) for number, each in enumerate(options)
    ]
    for one, answer in enumerate(answers):
        for other, each in enumerate(options):
            params = {"audience": {"alias": ["A"]}, "notification": HELLO, "cid": f"c{one}", "options": each}
            if one == other:
                assert await app.call("push", **params) == answer
            else:
                assert (await refusal_of(app, "push", params)).code == 1003
    # Not held is what it is when nothing is said.
    assert await app.push({"alias": ["A"]}, cid="c0", options={"hold": False}) == answers[0]


async def test_a_held_push_is_answered_with_its_targets(house: House, app: AppServer) -> None:
    await house.device(alias="A")
    await house.absent(alias="A")
    audience = {"alias": ["A", "U", "V", "U"]}
    params = {"audience": audience, "notification": HELLO, "options": {"hold": True}}
    assert await app.call("push.validate", **params) == {"targets": 4}
    pushed = await app.push(audience, options={"hold": True, "sendno": 9})
    assert pushed == {"msg_id": pushed["msg_id"], "sendno": 9, "targets": 4, "online": 1, "absent": 3}
    report = await app.report(pushed["msg_id"])
    assert (report["targets"], report["waiting"] + report["sent"]) == (4, 4)
    assert (await app.call("pushes.list"))["pushes"][0]["msg_id"] == pushed["msg_id"]
    # Without hold the same audience has the devices alone.
    assert await app.call("push.validate", audience=audience, notification=HELLO) == {"targets": 2}


async def test_an_audience_of_nobody_is_a_target_with_hold_only(house: House, app: AppServer) -> None:
    audience = {"alias": ["U"]}
    assert (await refusal_of(app, "push", {"audience": audience, "notification": HELLO})).code == 1011
    options = {"hold": True}
    assert await app.call("push.validate", audience=audience, notification=HELLO, options=options) == {"targets": 1}
    assert await app.call("pushes.list") == {"pushes": []}
    pushed = await app.push(audience, options=options)
    assert (pushed["targets"], pushed["online"], pushed["absent"]) == (1, 0, 1)
    assert (await app.report(pushed["msg_id"]))["waiting"] == 1


async def test_a_held_push_with_a_cid_is_one_push(house: House, app: AppServer) -> None:
    first = await app.push({"alias": ["U"]}, cid="c", options={"hold": True})
    assert await app.push({"alias": ["U"]}, cid="c", options={"hold": True}) == first
    device = await house.device(alias="U")
    assert device.welcome["waiting"] == 1
    # Its audience is another one now, and it is the same push.
    assert await app.push({"alias": ["U"]}, cid="c", options={"hold": True}) == first
    assert (await device.hear_message())["msg_id"] == first["msg_id"]
    await device.quiet()


async def test_the_mailbox_of_an_alias_is_no_device(house: House, app: AppServer) -> None:
    device = await house.device(tags=["x"])
    held = (await app.push({"alias": ["U", "V"]}, options={"hold": True}))["msg_id"]
    made_up = [f"alias {number}" for number in range(12)]
    assert [each["registration_id"] for each in (await app.call("devices.list"))["devices"]] == [device.id]
    assert await app.call("aliases.get", alias="U") == {"registration_ids": []}
    assert await app.call("aliases.delete", alias="U") == {"registration_ids": []}
    assert await app.call("presence", registration_ids=made_up) == {}
    statuses = await app.call("status", msg_id=held, registration_ids=[*made_up, device.id])
    assert {each["code"] for name, each in statuses.items() if name != device.id} == {2}
    assert statuses[device.id] == {"code": 3, "state": None, "at": None}
    for method in ("devices.get", "devices.delete", "devices.set"):
        for each in made_up:
            assert (await refusal_of(app, method, {"registration_id": each})).code == 1010
    for audience in ("all", {"tag_not": ["nobody"]}, {"registration_id": [*made_up, device.id]}, {"tag": ["x"]}):
        assert await app.call("push.validate", audience=audience, notification=HELLO) == {"targets": 1}
    assert await app.call("push.validate", audience={"alias": ["U"]}, notification=HELLO, options={"hold": True})
    assert (await app.report(held))["waiting"] == 2
    for each in made_up:
        with pytest.raises(Refusal) as refusal:
            await house.device(registration_id=each, device_secret="x" * 43)
        assert refusal.value.code == 1010


async def test_status_and_mailbox_speak_of_the_device_that_has_it_now(house: House, app: AppServer) -> None:
    device = await house.absent()
    held = (await app.push({"alias": ["U"]}, options={"hold": True}))["msg_id"]
    assert await app.state(held, device) is None
    shown = await app.call("devices.set", registration_id=device.id, alias="U")
    assert [(each["msg_id"], each["state"]) for each in shown["mailbox"]] == [(held, "waiting")]
    assert await app.state(held, device) == "waiting"
    shown = await app.call("devices.set", registration_id=device.id, alias="")
    assert shown["mailbox"] == []
    assert await app.state(held, device) is None
    report = await app.report(held)
    assert (report["waiting"], report["fenced"]) == (1, 0)
    other = await house.device(alias="U")
    await other.hear_message()
    assert await app.state(held, other) == "sent"
    await other.note("received", msg_id=held)
    await other.told()
    assert await app.state(held, other) == "received"
    assert (await app.report(held))["received"] == 1


async def test_held_ones_wait_under_the_rules_of_an_absent_device() -> None:
    wall = Wall()
    async with serving(limits=Limits(offline_limit=3), wall=wall) as house:
        app = await house.app()
        ids = []
        for number, options in enumerate([{}, {"time_to_live": 5}, {}, {}, {}]):
            options = {"hold": True, **options}
            pushed = await app.push({"alias": ["U"]}, notification={"alert": str(number)}, options=options)
            ids.append(pushed["msg_id"])
        assert [(await app.report(each))["overflowed"] for each in ids] == [1, 1, 0, 0, 0]
        over = await app.push(
            {"alias": ["U"]}, notification={"alert": "5"}, options={"hold": True, "override_msg_id": ids[2]}
        )
        assert (await app.report(ids[2]))["replaced"] == 1
        device = await house.device(alias="U")
        assert device.welcome["waiting"] == 3
        assert await device.hear_alerts(3) == ["3", "4", "5"]
        await device.note("received", msg_id=over["msg_id"])
        await device.quiet()


async def test_what_is_held_goes_to_another_apps_user_never(house: House, app: AppServer) -> None:
    held = (await app.push({"alias": ["U"]}, options={"hold": True}))["msg_id"]
    theirs = await house.device(app_key=OTHER, alias="U")
    assert theirs.welcome["waiting"] == 0
    await theirs.quiet()
    assert (await app.report(held))["waiting"] == 1


# --- All of them -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_refuses_a_member_that_it_does_not_know(app: AppServer, method: str) -> None:
    refusal = await refusal_of(app, method, {"a_typing_error": 1})
    assert (refusal.code, refusal.name, refusal.path) == (-32602, "invalid_params", "a_typing_error")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("params", [[], ["x"], "x", 5, None, False])
async def test_every_methods_params_are_an_object(app: AppServer, method: str, params: object) -> None:
    await app.say({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    refusal = Refusal((await app.hear())["error"])
    assert (refusal.code, refusal.path) == (-32602, "params")


@pytest.mark.parametrize(
    "method",
    ["push.cancel", "receipts", "receipts.list", "receipts.ended", "connect", "alias.set", "Push", "",
     "push.", "x" * 10_000, "é", "__class__"],
)  # fmt: skip
async def test_what_is_no_method_of_this_version_is_refused(app: AppServer, method: str) -> None:
    refusal = await refusal_of(app, method, {})
    assert (refusal.code, refusal.name) == (-32601, "unknown_method")
    assert len(refusal.message) < 200


async def test_nothing_crosses_from_one_app_to_another(house: House, app: AppServer) -> None:
    other = await house.app(OTHER, OTHER_SECRET)
    mine = await house.device(alias="A", tags=["x"])
    theirs = await house.device(app_key=OTHER, alias="A", tags=["x"])
    for audience in ("all", {"alias": ["A"]}, {"tag": ["x"]}, {"tag_not": ["y"]},
                     {"registration_id": [mine.id, theirs.id]}):  # fmt: skip
        assert (await app.push(audience))["targets"] == 1
        await mine.hear_message()
    await theirs.quiet()
    assert await other.call("aliases.get", alias="A") == {"registration_ids": [theirs.id]}
    assert await app.call("aliases.delete", alias="A") == {"registration_ids": [mine.id]}
    assert await other.call("aliases.get", alias="A") == {"registration_ids": [theirs.id]}
    [pushed] = (await app.call("pushes.list", limit=1))["pushes"]
    assert await other.call("report", msg_ids=[pushed["msg_id"]]) == [None]
    # An override by its id touches nothing of the other app's.
    kept = await other.push("all")
    await theirs.hear_message()
    await app.push("all", options={"override_msg_id": kept["msg_id"]})
    assert (await other.report(kept["msg_id"]))["sent"] == 1
    await theirs.note("received", msg_id=kept["msg_id"])
    await theirs.told()
    assert (await other.report(kept["msg_id"]))["received"] == 1

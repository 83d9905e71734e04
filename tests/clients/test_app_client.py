from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pushactors import (
    AppClient,
    CidReused,
    DeviceInfo,
    Disconnected,
    Invalid,
    NoSuchMessage,
    NoTarget,
    Presence,
    PushactorsError,
    PushAnswer,
    RateLimited,
    Recall,
    RemoteError,
    Report,
    Status,
    TagHolders,
    Timeline,
    TimelineEvent,
    TooLarge,
    Unauthorized,
    UnknownMethod,
)
from pushactors.wire import tokens
from pushactors.wire.answers import Waiting
from pushactors.wire.app import DeviceSet, PushParams, TimelineOf
from pushactors.wire.codec import structure
from pushactors.wire.ids import Alias, RegistrationId
from tests.clients.scripted import ScriptedServer, Visit
from tests.clients.scripted_client import APP_URL, app_client

ANSWER = {"msg_id": "5", "sendno": None, "targets": 3, "online": 1, "absent": 2}
ALERT = {"alert": "x"}


async def test_the_handshake_carries_the_credentials(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with app_client(server):
        visit = await server.visit()
        assert visit.headers[b"authorization"] == b"Basic " + b64encode(b"app:master")
        assert visit.path == "/app"


async def test_a_wrong_secret_is_unauthorized_at_once_and_for_good(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async def reject() -> None:
        request = await server.knock()
        await request.reject(401, body=b"no")

    async with app_client(server) as app, trio.open_nursery() as nursery:
        nursery.start_soon(reject)
        for _ in range(2):
            with pytest.raises(Unauthorized):
                await app.tags()
    assert len(server.tries) == 1


REPORT = {"msg_id": "5", "targets": 3, "waiting": 1, "sent": 0, "received": 2, "opened": 1}
STEP = {"event": "sent", "at": 7, "visit": 3, "verdict": None}
DEVICE = {"registration_id": "r", "platform": "ios", "alias": None, "tags": ["a"], "online": True, "last_seen_at": 7}
CALLS: list[tuple[Callable[[AppClient], Awaitable[object]], str, dict[str, object], object, object]] = [
    (
        lambda app: app.push(audience="all", notification=ALERT),
        "push",
        {"audience": "all", "platform": "all", "notification": ALERT},
        ANSWER,
        PushAnswer(msg_id="5", targets=3, online=1, absent=2),
    ),
    (
        lambda app: app.push(
            audience={"alias": ("a",), "tag_not": {"t"}},
            message={"msg_content": "c"},
            platform=("ios", "web"),
            time_to_live=0,
            override_msg_id="4",
            sendno=7,
            cid="c",
            deliver_within=30,
        ),
        "push",
        {
            "audience": {"alias": ["a"], "tag_not": ["t"]},
            "platform": ["ios", "web"],
            "message": {"msg_content": "c"},
            "cid": "c",
            "options": {"time_to_live": 0, "override_msg_id": "4", "sendno": 7, "deliver_within": 30},
        },
        {**ANSWER, "sendno": 7},
        PushAnswer(msg_id="5", targets=3, online=1, absent=2, sendno=7),
    ),
    (
        lambda app: app.push(audience={"alias": ["alice"]}, notification=ALERT, hold=True),
        "push",
        {"audience": {"alias": ["alice"]}, "platform": "all", "notification": ALERT, "options": {"hold": True}},
        ANSWER,
        PushAnswer(msg_id="5", targets=3, online=1, absent=2),
    ),
    (
        lambda app: app.validate(audience={"alias": ["a"]}, notification=ALERT, deliver_within=1, hold=True),
        "push.validate",
        {
            "audience": {"alias": ["a"]},
            "platform": "all",
            "notification": ALERT,
            "options": {"deliver_within": 1, "hold": True},
        },
        {"targets": 3},
        3,
    ),
    (
        lambda app: app.recall("5"),
        "push.recall",
        {"msg_id": "5"},
        {"recalled": 1, "on_the_way": 2, "received": 3, "settled": 4},
        Recall(recalled=1, on_the_way=2, received=3, settled=4),
    ),
    (
        lambda app: app.timeline("5", "r"),
        "timeline",
        {"msg_id": "5", "registration_id": "r"},
        {"msg_id": "5", "registration_id": "r", "alias": None, "state": "sent", "events": [STEP]},
        Timeline(msg_id="5", registration_id="r", state="sent", events=(TimelineEvent(event="sent", at=7, visit=3),)),
    ),
    (
        lambda app: app.timeline("5", alias="alice"),
        "timeline",
        {"msg_id": "5", "alias": "alice"},
        {"msg_id": "5", "alias": "alice", "state": "waiting", "events": []},
        Timeline(msg_id="5", alias="alice", state="waiting", events=()),
    ),
    (
        lambda app: app.validate(audience="all", notification=ALERT),
        "push.validate",
        {"audience": "all", "platform": "all", "notification": ALERT},
        {"targets": 3},
        3,
    ),
    (
        lambda app: app.report(["5", "6"]),
        "report",
        {"msg_ids": ["5", "6"]},
        [REPORT, None],
        [Report(msg_id="5", targets=3, waiting=1, received=2, opened=1), None],
    ),
    (
        lambda app: app.status("5", ["r", "s"]),
        "status",
        {"msg_id": "5", "registration_ids": ["r", "s"]},
        {"r": {"code": 0, "state": "received", "at": 9}, "s": {"code": 2, "state": None, "at": None}},
        {"r": Status(0, "received", 9), "s": Status(2)},
    ),
    (
        lambda app: app.pushes(before="9", limit=2),
        "pushes.list",
        {"before": "9", "limit": 2},
        {"pushes": [{**REPORT, "sent_at": 1}]},
        (Report(msg_id="5", targets=3, waiting=1, received=2, opened=1, sent_at=1),),
    ),
    (lambda app: app.pushes(), "pushes.list", {}, {"pushes": []}, ()),
    (
        lambda app: app.device("r"),
        "devices.get",
        {"registration_id": "r"},
        {**DEVICE, "mailbox": [{"msg_id": "5", "state": "sent", "at": 8}]},
        DeviceInfo(
            registration_id="r",
            platform="ios",
            online=True,
            tags=("a",),
            last_seen_at=7,
            mailbox=(Waiting("5", "sent", 8),),
        ),
    ),
    (
        lambda app: app.devices(after="q"),
        "devices.list",
        {"after": "q"},
        {"devices": [DEVICE]},
        (DeviceInfo(registration_id="r", platform="ios", online=True, tags=("a",), last_seen_at=7),),
    ),
    (
        lambda app: app.set_device("r", alias="", add_tags=["a"]),
        "devices.set",
        {"registration_id": "r", "alias": "", "tags": {"add": ["a"]}},
        DEVICE,
        DeviceInfo(registration_id="r", platform="ios", online=True, tags=("a",), last_seen_at=7),
    ),
    (
        lambda app: app.set_device("r", clear_tags=True),
        "devices.set",
        {"registration_id": "r", "tags": []},
        DEVICE,
        DeviceInfo(registration_id="r", platform="ios", online=True, tags=("a",), last_seen_at=7),
    ),
    (lambda app: app.delete_device("r"), "devices.delete", {"registration_id": "r"}, None, None),
    (
        lambda app: app.presence(["r", "s"]),
        "presence",
        {"registration_ids": ["r", "s"]},
        {"r": {"online": False, "last_seen_at": 5}},
        {"r": Presence(False, 5)},
    ),
    (lambda app: app.alias("a"), "aliases.get", {"alias": "a"}, {"registration_ids": ["r"]}, ("r",)),
    (lambda app: app.delete_alias("a"), "aliases.delete", {"alias": "a"}, {"registration_ids": ["r"]}, ("r",)),
    (lambda app: app.tags(), "tags.list", {}, {"tags": ["a", "b"]}, ("a", "b")),
    (
        lambda app: app.tag("a"),
        "tags.get",
        {"tag": "a"},
        {"registration_ids": ["r"], "count": 1},
        TagHolders(("r",), 1),
    ),
]


@pytest.mark.parametrize(
    ("call", "method", "params", "result", "returned"), CALLS, ids=[f"{n}-{each[1]}" for n, each in enumerate(CALLS)]
)
async def test_every_method_says_what_it_means_and_returns_what_it_promises(
    server: ScriptedServer,
    autojump_clock: MockClock,
    call: Callable[[AppClient], Awaitable[object]],
    method: str,
    params: dict[str, object],
    result: object,
    returned: object,
) -> None:
    async def serve() -> None:
        visit = await server.visit()
        request = await visit.hear_request(method)
        assert request.params == params
        if method in ("push", "push.validate"):
            structure(PushParams, request.params)
        if method == "timeline":
            structure(TimelineOf, request.params)
        if method == "devices.set":
            structure(DeviceSet, request.params)
        await visit.answer(request, result)

    async with app_client(server) as app, trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        assert await call(app) == returned


async def test_clearing_tags_goes_without_editing_them(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with app_client(server) as app:
        with pytest.raises(ValueError, match="clear_tags"):
            await app.set_device("r", clear_tags=True, add_tags=["a"])


@pytest.mark.parametrize(
    ("call", "path"),
    [
        (lambda app: app.push(audience={"alias": "alice"}, notification=ALERT), "audience.alias"),
        (lambda app: app.validate(audience={"tag": ["t"], "tag_not": "u"}, notification=ALERT), "audience.tag_not"),
        (lambda app: app.report("5"), "msg_ids"),
        (lambda app: app.status("5", "device"), "registration_ids"),
        (lambda app: app.presence("device"), "registration_ids"),
        (lambda app: app.set_device("r", add_tags="vip"), "tags.add"),
        (lambda app: app.set_device("r", remove_tags="vip"), "tags.remove"),
    ],
)
async def test_a_name_is_no_list_of_its_letters(
    server: ScriptedServer, autojump_clock: MockClock, call: Callable[[AppClient], Awaitable[object]], path: str
) -> None:
    async with app_client(server) as app:
        with pytest.raises(Invalid) as caught:
            await call(app)
        assert caught.value.path == path
        assert str(caught.value).startswith(f"{path} must be a list: ['")


@pytest.mark.parametrize(
    "refusal",
    [
        Invalid("no", "audience"),
        NoTarget("no"),
        TooLarge("no"),
        CidReused("no"),
        NoSuchMessage("no"),
        RateLimited("no", 5),
        UnknownMethod("no"),
    ],
    ids=repr,
)
async def test_a_refusal_is_raised_by_its_name(
    server: ScriptedServer, autojump_clock: MockClock, refusal: PushactorsError
) -> None:
    async def serve() -> None:
        visit = await server.visit()
        await visit.refuse(await visit.hear_request("push"), refusal)

    async with app_client(server) as app, trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(type(refusal)) as caught:
            await app.push(audience="all", notification=ALERT)
        assert vars(caught.value) == vars(refusal)
        assert app.connected


async def test_a_refusal_that_is_not_known_here_is_raised_too(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        visit = await server.visit()
        request = await visit.hear_request("tags.list")
        await visit.websocket.send_message(
            f'{{"jsonrpc":"2.0","id":{request.id},"error":{{"code":1099,"message":"m","data":{{"name":"of_tomorrow"}}}}}}'
        )

    async with app_client(server) as app, trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(RemoteError) as caught:
            await app.tags()
        assert (caught.value.code, caught.value.name) == (1099, "of_tomorrow")


async def test_many_tasks_share_one_connection_and_each_gets_its_own_answer(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    answers: dict[int, str] = {}

    async def push(app: AppClient, number: int) -> None:
        answers[number] = (await app.push(audience="all", notification=ALERT, sendno=number)).msg_id

    async def serve() -> None:
        visit = await server.visit()
        requests = [await visit.hear_request("push") for _ in range(200)]
        for request in reversed(requests):
            options: Any = request.params["options"]
            await visit.answer(request, {**ANSWER, "msg_id": str(options["sendno"] + 1000)})

    async with app_client(server) as app, trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        for number in range(200):
            nursery.start_soon(push, app, number)
    assert answers == {number: str(number + 1000) for number in range(200)}
    assert len(server.tries) == 1


async def test_a_call_waits_for_a_connection_but_not_for_ever(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    server.is_down = True
    async with app_client(server, timeout_s=7) as app:
        began_at = trio.current_time()
        with pytest.raises(Disconnected, match=rf"to {APP_URL} for 7 s: nobody listens\. Nothing was sent\.$"):
            await app.tags()
        assert trio.current_time() - began_at == pytest.approx(7)


async def test_a_call_made_while_away_is_made_when_back(server: ScriptedServer, autojump_clock: MockClock) -> None:
    server.is_down = True

    async def serve() -> None:
        await wait_all_tasks_blocked()
        server.is_down = False
        visit = await server.visit()
        await visit.answer(await visit.hear_request("push"), ANSWER)

    async with app_client(server) as app, trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        assert (await app.push(audience="all", notification=ALERT)).msg_id == "5"


async def lose_one_then_answer(server: ScriptedServer, method: str, result: object) -> None:
    visit = await server.visit()
    lost = await visit.hear_request(method)
    await visit.vanish()
    visit = await server.visit()
    again = await visit.hear_request(method)
    assert again.params == lost.params
    await visit.answer(again, result)


async def test_a_push_with_a_cid_is_made_again_when_the_connection_breaks_under_it(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with app_client(server) as app, trio.open_nursery() as nursery:
        nursery.start_soon(lose_one_then_answer, server, "push", ANSWER)
        assert (await app.push(audience="all", notification=ALERT, cid="order-42")).msg_id == "5"


async def test_a_call_that_only_reads_is_made_again(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with app_client(server) as app, trio.open_nursery() as nursery:
        nursery.start_soon(lose_one_then_answer, server, "aliases.get", {"registration_ids": ["r"]})
        assert await app.alias("a") == ("r",)


@pytest.mark.parametrize(
    "call",
    [
        lambda app: app.push(audience="all", notification=ALERT),
        lambda app: app.set_device("r", alias="a"),
        lambda app: app.delete_device("r"),
        lambda app: app.delete_alias("a"),
        # It would be right the second time, too; its numbers would not.
        lambda app: app.recall("5"),
    ],
)
async def test_a_call_that_changes_something_is_not_made_twice(
    server: ScriptedServer, autojump_clock: MockClock, call: Callable[[AppClient], Awaitable[object]]
) -> None:
    async def lose() -> None:
        visit = await server.visit()
        await visit.hear()
        await visit.vanish()
        visit = await server.visit()
        await visit.answer(await visit.hear_request("tags.list"), {"tags": []})

    async with app_client(server) as app, trio.open_nursery() as nursery:
        nursery.start_soon(lose)
        with pytest.raises(Disconnected):
            await call(app)
        assert await app.tags() == ()


async def test_leaving_the_block_fails_what_is_under_way(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async def ask(app: AppClient) -> None:
        with pytest.raises(Disconnected):
            await app.push(audience="all", notification=ALERT)

    async with trio.open_nursery() as nursery:
        async with app_client(server) as app:
            nursery.start_soon(ask, app)
            visit: Visit = await server.visit()
            await visit.hear_request("push")
        assert await visit.closed_with() == 1000


async def test_a_secret_does_not_show_in_a_traceback(server: ScriptedServer, autojump_clock: MockClock) -> None:
    assert "master" not in repr(vars(app_client(server)))


# --- Tokens (C17) ------------------------------------------------------------------------------------------------


async def test_a_token_is_made_without_a_connection(server: ScriptedServer) -> None:
    began_at_s = time.time()
    app = app_client(server)
    for_any, for_one = app.alias_token("alice"), app.alias_token("张三", expires_in_s=60, registration_id="r")
    assert tokens.read(for_any, ["master"], began_at_s + 3590) == tokens.Claims(Alias("alice"), None)
    assert tokens.read(for_one, ["master"], began_at_s + 50) == tokens.Claims(Alias("张三"), RegistrationId("r"))
    for text, later_s in ((for_any, 3600), (for_one, 60)):
        with pytest.raises(Unauthorized):
            tokens.read(text, ["master"], time.time() + later_s)
    assert server.tries == []


@pytest.mark.parametrize(
    ("alias", "more", "path"),
    [
        ("", {}, "sub"),
        ("a b", {}, "sub"),
        ("alice", {"registration_id": ""}, "rid"),
        ("alice", {"expires_in_s": 0}, "expires_in_s"),
        ("alice", {"expires_in_s": -1}, "expires_in_s"),
    ],
)
async def test_a_token_that_nobody_could_use_is_not_made(
    server: ScriptedServer, alias: str, more: dict[str, Any], path: str
) -> None:
    with pytest.raises(Invalid) as caught:
        app_client(server).alias_token(alias, **more)
    assert caught.value.path == path

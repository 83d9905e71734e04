"""The app-server endpoint: who may come in, in which order requests are accepted, and how answers come."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
import trio
from wsproto.frame_protocol import Opcode

from pushactors.actors import unit
from pushactors.domain.aliases import Directory
from pushactors.domain.audience import Audience
from pushactors.domain.mailbox import Mailbox
from pushactors.edges import apps
from pushactors.edges.apps import MAX_MESSAGE_BYTES
from pushactors.stores.memory import MemoryStore
from tests.edges.serving import (
    APP,
    HELLO,
    LIMIT_S,
    OTHER,
    OTHER_SECRET,
    SECRET,
    AppServer,
    House,
    Refusal,
    StubbornStore,
    app_plans,
    basic,
    close,
    frame,
    resident_bytes,
    result_of,
    serving,
    text,
    until,
)

# --- Who may come in ---------------------------------------------------------------------------------------------


async def test_an_app_server_comes_in_with_its_key_and_secret(house: House) -> None:
    app = await house.app()
    assert await app.call("tags.list") == {"tags": []}


@pytest.mark.parametrize("path", ["/app", "/app?v=1"])
async def test_app_servers_connect_at_their_path(house: House, path: str) -> None:
    assert (await house.knock("apps", path, basic(APP, SECRET))).status == 101


@pytest.mark.parametrize("path", ["/", "/device", "/app/", "/apps", "/x?/app", "//[/app"])
async def test_elsewhere_there_is_nothing(house: House, path: str) -> None:
    assert (await house.knock("apps", path, basic(APP, SECRET))).status == 404


def encoded(credentials: bytes) -> str:
    return "Basic " + base64.b64encode(credentials).decode()


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic \xff\xfe",
        "Basic YXBwOnNlY3JldA",
        "Basic\tYXBwOnNlY3JldA==",
        f"Bearer {SECRET}",
        encoded(b"app:secret-of-the-app").replace("Basic", "Bearer"),
        encoded(b"app"),
        encoded(b"app:"),
        encoded(b":"),
        encoded(b""),
        encoded(b"app:wrong"),
        encoded(b"app:secret-of-the-app "),
        encoded(b"app:Secret-of-the-app"),
        encoded(b"app:secret-of-the-other"),
        encoded(b"other:secret-of-the-app"),
        encoded(b"nobody:secret-of-the-app"),
        encoded(b"nobody:"),
        encoded(b"APP:secret-of-the-app"),
        encoded(b"secret-of-the-app:app"),
        encoded(b"\xff:\xff"),
        encoded("app:пароль".encode()),
        encoded(b"app:" + b"x" * 5_000),
    ],
)
async def test_anything_else_is_401_and_no_upgrade(house: House, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = await house.knock("apps", "/app", headers)
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Basic ")
    assert SECRET.encode() not in answer.body
    assert len(house.node._app_endpoint) == 0


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
async def test_the_scheme_is_basic_in_any_spelling(house: House, scheme: str) -> None:
    headers = {"Authorization": encoded(b"app:secret-of-the-app").replace("Basic", scheme)}
    assert (await house.knock("apps", "/app", headers)).status == 101


async def test_a_secret_may_have_colons_and_any_characters() -> None:
    for secret in ("a:b:c", "пароль", "x" * 256):
        async with serving(apps=app_plans(secrets=(secret,))) as house:
            assert (await house.app(APP, secret)).status == 101
            assert (await house.knock("apps", "/app", basic(APP, secret[:1]))).status == 401


async def test_two_secrets_are_valid_while_one_replaces_the_other() -> None:
    async with serving(apps=app_plans(secrets=("the-first-secret", "the-second-secret"))) as house:
        for secret in ("the-first-secret", "the-second-secret"):
            assert (await house.app(APP, secret)).status == 101
        assert (await house.knock("apps", "/app", basic(APP, "the-first-secretthe-second-secret"))).status == 401


async def test_the_subprotocol_is_named_when_offered(house: House) -> None:
    headers = {**basic(APP, SECRET), "Sec-WebSocket-Protocol": "pushactors.v1"}
    assert (await house.knock("apps", "/app", headers)).headers["sec-websocket-protocol"] == "pushactors.v1"


async def test_a_page_in_a_browser_is_no_app_server_unless_it_is_of_the_same_host(house: House) -> None:
    # The protocol speaks of an Origin before it tells the two endpoints apart. A browser adds the credentials that it
    # knows for a host to whatever page asks for it.
    for origin in ("https://evil.net", "null"):
        answer = await house.knock("apps", "/app", {**basic(APP, SECRET), "Origin": origin}, "push.example.org")
        assert answer.status == 403
    same = {**basic(APP, SECRET), "Origin": "https://push.example.org"}
    assert (await house.knock("apps", "/app", same, "push.example.org")).status == 101


async def test_who_comes_while_the_server_stops_is_told_when_to_come_back() -> None:
    async with serving(drain_s=0) as house, trio.open_nursery() as nursery:
        # A peer that does not close holds the end up for the length of a farewell.
        stays, late = await house.app(), AppServer(await house.stream("apps"))
        await stays.ping()
        nursery.start_soon(house.node.stop)
        await until(lambda: house.node._app_endpoint._is_stopping)
        await late.knock("/app", basic(APP, SECRET))
        assert late.status == 503
        assert int(late.headers["retry-after"]) >= 1
        await stays.hear_end()


async def test_refusals_are_counted(house: House) -> None:
    await house.knock("apps", "/app")
    assert house.node.tally.read("handshakes", "unauthorized") == 1


# --- Frames that are no request ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "id", "code", "path"),
    [
        ({"jsonrpc": "2.0", "method": "tags.list"}, None, -32600, None),
        ({"jsonrpc": "2.0", "method": "push", "params": {"audience": "all"}}, None, -32600, None),
        ({"jsonrpc": "2.0", "id": 1, "result": None}, None, -32600, None),
        ({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "x"}}, None, -32600, None),
        ({"jsonrpc": "2.0", "id": None, "method": "tags.list"}, None, -32600, "id"),
        ({"jsonrpc": "2.0", "id": 1.5, "method": "tags.list"}, None, -32600, "id"),
        ({"jsonrpc": "2.0", "id": True, "method": "tags.list"}, None, -32600, "id"),
        ({"jsonrpc": "2.0", "id": 2**63, "method": "tags.list"}, None, -32600, "id"),
        ({"jsonrpc": "2.0", "id": {}, "method": "tags.list"}, None, -32600, "id"),
        ({"jsonrpc": "1.0", "id": 7, "method": "tags.list"}, 7, -32600, "jsonrpc"),
        ({"id": 7, "method": "tags.list"}, 7, -32600, "jsonrpc"),
        ({"jsonrpc": "2.0", "id": 7}, 7, -32600, "method"),
        ({"jsonrpc": "2.0", "id": 7, "method": None}, 7, -32600, "method"),
        ({"jsonrpc": "2.0", "id": 7, "method": "tags.list", "auth": "x"}, 7, -32602, "auth"),
        ({"jsonrpc": "2.0", "id": "x", "method": "tags.list", "params": []}, "x", -32602, "params"),
        ("tags.list", None, -32600, None),
        (None, None, -32600, None),
        (0, None, -32600, None),
        ({}, None, -32600, "jsonrpc"),
        ([], None, -32600, None),
    ],
)  # fmt: skip
async def test_what_is_no_request_is_answered_and_the_connection_stays_usable(
    house: House, app: AppServer, said: object, id: object, code: int, path: str | None
) -> None:
    await house.device()
    await app.say(said)
    answer = await app.hear()
    assert answer.keys() == {"jsonrpc", "id", "error"}
    refusal = Refusal(answer["error"])
    assert (answer["id"], refusal.code, refusal.path) == (id, code, path)
    assert refusal.name == {-32600: "invalid_request", -32602: "invalid_params"}[code]
    assert await app.call("pushes.list") == {"pushes": []}


@pytest.mark.parametrize(
    "data", [b"", b"{", b"hello", b"[" * 100_000, b"[" * 70 + b"]" * 70, b'{"a":1}{}', b"NaN", b"\x00", b"1e999999"]
)
async def test_what_is_no_json_is_answered_and_the_connection_stays_usable(app: AppServer, data: bytes) -> None:
    await app.send_bytes(frame(Opcode.TEXT, data))
    answer = await app.hear()
    assert (answer["id"], Refusal(answer["error"]).code) == (None, -32700)
    assert await app.call("tags.list") == {"tags": []}


@pytest.mark.parametrize("id", [0, -1, 2**63 - 1, -(2**63), "", "0", "x" * 10_000, "ключ"])
async def test_a_request_is_answered_under_its_own_id(app: AppServer, id: object) -> None:
    await app.say({"jsonrpc": "2.0", "id": id, "method": "tags.list"})
    answer = await app.hear()
    assert answer == {"jsonrpc": "2.0", "id": id, "result": {"tags": []}}
    assert type(answer["id"]) is type(id)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(Opcode.BINARY, b"{}"), 1003),
        (frame(Opcode.TEXT, b"\xff"), 1007),
        (frame(Opcode.TEXT, b"{}", mask=None), 1002),
        (frame(Opcode.TEXT, b"{}", rsv=4), 1002),
        (frame(11), 1002),
    ],
    ids=["binary", "no utf-8", "no mask", "compressed", "opcode"],
)
async def test_a_fault_in_the_frames_ends_the_session_as_in_rfc_6455(app: AppServer, data: bytes, code: int) -> None:
    await app.send_bytes(data)
    assert await app.hear_fault() == code


async def test_an_app_server_says_a_mebibyte_and_not_a_byte_more(app: AppServer) -> None:
    request = {"jsonrpc": "2.0", "id": "", "method": "tags.list"}
    request["id"] = "x" * (MAX_MESSAGE_BYTES - len(orjson.dumps(request)))
    await app.say(request)
    assert (await app.hear())["result"] == {"tags": []}
    await app.say({**request, "id": request["id"] + "x"})
    assert await app.hear_fault() == 1009


async def test_what_was_asked_before_a_fault_is_answered(house: House, app: AppServer) -> None:
    await house.device()
    push = app.request("push", {"audience": "all", "notification": HELLO})
    await app.send_bytes(text(push) + frame(Opcode.BINARY))
    assert await app.hear_fault() == 1003
    [answer] = app.kept
    assert answer["result"]["targets"] == 1


# --- Batches -----------------------------------------------------------------------------------------------------


async def batch(app: AppServer, entries: list[Any]) -> list[Any]:
    """The one array that answers a batch."""
    await app.say(entries)
    answers = await app.hear()
    assert isinstance(answers, list)
    return answers


async def test_a_batch_is_answered_by_one_array_in_its_order(house: House, app: AppServer) -> None:
    await house.device(tags=["x"])
    requests = [app.request(method) for method in ("tags.list", "pushes.list", "devices.list")]
    answers = await batch(app, requests)
    assert [answer["id"] for answer in answers] == [request["id"] for request in requests]
    assert answers[0]["result"] == {"tags": ["x"]}


async def test_a_batch_of_one_is_answered_by_an_array(app: AppServer) -> None:
    [answer] = await batch(app, [app.request("tags.list")])
    assert answer["result"] == {"tags": []}


async def test_the_entries_of_a_batch_are_taken_in_their_order(house: House, app: AppServer) -> None:
    device = await house.device()
    push = {"audience": {"alias": ["A"]}, "notification": HELLO}
    answers = await batch(
        app,
        [
            app.request("push", push),
            app.request("devices.set", {"registration_id": device.id, "alias": "A"}),
            app.request("push", push),
            app.request("devices.set", {"registration_id": device.id, "alias": ""}),
            app.request("push", push),
        ],
    )
    assert [answer.get("error", {}).get("code") for answer in answers] == [1011, None, None, None, 1011]
    assert await device.hear_note("alias") == {"alias": "A"}
    # By the time the push is durable, so is the end of the binding: it was fenced (C14).
    told = [await device.hear()]
    assert told[0]["method"] in ("message", "alias")


async def test_of_a_batch_every_entry_succeeds_or_fails_alone(house: House, app: AppServer) -> None:
    device = await house.device()
    answers = await batch(
        app,
        [
            app.request("push", {"audience": "all", "notification": HELLO}),
            {"jsonrpc": "2.0", "method": "tags.list"},
            5,
            app.request("push", {"audience": "all"}),
            {"jsonrpc": "2.0", "id": "x", "method": "no.such"},
            [],
            app.request("tags.list"),
        ],
    )
    assert [answer.get("error", {}).get("code") for answer in answers] == [
        None, -32600, -32600, -32602, -32601, -32600, None,
    ]  # fmt: skip
    assert [answer["id"] for answer in answers] == [1, None, None, 2, "x", None, 3]
    assert (await device.hear_message())["msg_id"] == answers[0]["result"]["msg_id"]


async def test_a_batch_has_1_to_1000_entries(house: House, app: AppServer) -> None:
    await house.device()
    pushes = [app.request("push", {"audience": "all", "notification": HELLO}) for _ in range(1_000)]
    answers = await batch(app, pushes)
    ids = [int(answer["result"]["msg_id"]) for answer in answers]
    assert ids == sorted(set(ids))
    assert len(ids) == 1_000
    newest = (await app.call("pushes.list", limit=1))["pushes"][0]["msg_id"]
    for entries in ([], [*pushes, pushes[0]]):
        await app.say(entries)
        answer = await app.hear()
        assert (answer["id"], Refusal(answer["error"]).code) == (None, -32600)
    # Nothing of it was taken.
    assert (await app.call("pushes.list", limit=1))["pushes"][0]["msg_id"] == newest


async def test_a_cid_twice_in_one_batch_is_one_push(house: House, app: AppServer) -> None:
    device = await house.device()
    push = {"audience": "all", "notification": HELLO, "cid": "c"}
    one, two = await batch(app, [app.request("push", push), app.request("push", push)])
    assert one["result"] == two["result"]
    await device.hear_message()
    await device.quiet()


async def test_a_batch_of_pushes_is_answered_when_all_of_it_is_durable() -> None:
    store = StubbornStore()
    async with serving(store=store) as house:
        app, _ = await house.app(), await house.device()
        store.hold()
        await app.say([app.request("push", {"audience": "all", "notification": HELLO}) for _ in range(3)])
        with trio.move_on_after(0.2):
            await app.hear()
        assert not app.texts
        store.go_on()
        assert len(await app.hear()) == 3


# --- In flight ---------------------------------------------------------------------------------------------------


async def test_many_requests_may_be_in_flight_and_are_accepted_in_order(house: House, app: AppServer) -> None:
    await house.device()
    requests = [app.request("push", {"audience": "all", "notification": HELLO}) for _ in range(500)]
    await app.say(*requests)
    ids = [int((await app.answer_to(request))["result"]["msg_id"]) for request in requests]
    assert ids == sorted(set(ids))


async def test_requests_and_batches_are_accepted_in_the_order_of_arrival(house: House, app: AppServer) -> None:
    device = await house.absent()

    def tagged(tag: str) -> dict[str, Any]:
        return app.request("devices.set", {"registration_id": device.id, "tags": {"add": [tag]}})

    def push(tag: str) -> dict[str, Any]:
        return app.request("push", {"audience": {"tag": [tag]}, "notification": HELLO})

    first, second, third, fourth = push("a"), push("a"), push("b"), push("b")
    await app.say(first, tagged("a"), [second, tagged("b")], third, [fourth])
    heard: dict[Any, Any] = {}
    while not heard.keys() >= {each["id"] for each in (first, second, third, fourth)}:
        answer = await app.hear()
        heard |= {each["id"]: each for each in (answer if isinstance(answer, list) else [answer])}
    assert heard[first["id"]]["error"]["code"] == 1011
    for push_ in (second, third, fourth):
        assert heard[push_["id"]]["result"]["targets"] == 1


async def test_what_may_not_wait_is_answered_at_once_and_delivered_in_order() -> None:
    # C5: it does not wait for the disk. C9: nor does it overtake what entered the mailbox before.
    store = StubbornStore()
    async with serving(store=store) as house:
        app, device, idle = await house.app(), await house.device(alias="A"), await house.device(alias="B")
        durable = app.request("push", {"audience": {"alias": ["A"]}, "notification": HELLO})
        flying = app.request("push", {"audience": "all", "notification": HELLO, "options": {"time_to_live": 0}})
        store.hold()
        await app.say(durable, flying)
        answer = await app.hear()
        assert answer["id"] == flying["id"]
        assert (await idle.hear_message())["msg_id"] == answer["result"]["msg_id"]
        await device.ping()
        assert not device.texts[1:]
        store.go_on()
        assert (await app.hear())["id"] == durable["id"]
        assert (await device.hear_message())["expires_at"] is not None
        assert (await device.hear_message())["msg_id"] == answer["result"]["msg_id"]


@pytest.mark.parametrize(
    "params",
    [{"options": {"time_to_live": 0}, "cid": "c"}, {"options": {"time_to_live": 0, "override_msg_id": "999999999"}}],
    ids=["cid", "override"],
)
async def test_what_must_be_remembered_is_not_told_before_it_is_durable(params: dict[str, Any]) -> None:
    store = StubbornStore()
    async with serving(store=store) as house:
        app, device = await house.app(), await house.device()
        store.hold()
        await app.say(app.request("push", {"audience": "all", "notification": HELLO, **params}))
        with trio.move_on_after(0.2):
            await app.hear()
        assert not app.texts
        store.go_on()
        assert (await app.hear())["result"]["targets"] == 1
        assert (await device.hear_message())["expires_at"] is None


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("devices.set", {"alias": "B"}),
        ("devices.set", {"tags": {"add": ["x"]}}),
        ("devices.delete", {}),
        ("aliases.delete", {"alias": "A"}),
    ],
)
async def test_no_change_is_told_before_it_is_durable(method: str, params: dict[str, Any]) -> None:
    store = StubbornStore()
    async with serving(store=store) as house:
        app, other, device = await house.app(), await house.app(), await house.device(alias="A")
        store.hold()
        if method != "aliases.delete":
            params = {**params, "registration_id": device.id}
        await app.say(app.request(method, params))
        # Nor is what follows from it told to others: a directory runs ahead of the disk.
        await other.say(
            other.request("devices.list"), other.request("tags.list"), other.request("aliases.get", {"alias": "B"})
        )
        with trio.move_on_after(0.2):
            await app.hear()
        with trio.move_on_after(0.1):
            await other.hear()
        assert not app.texts
        assert not other.texts
        assert not device.kept
        store.go_on()
        assert "result" in await app.hear()
        for _ in range(3):
            assert "result" in await other.hear()


# --- Nothing without bound ---------------------------------------------------------------------------------------


async def test_a_peer_that_does_not_read_its_answers_is_not_read_any_more(house: House) -> None:
    app = await house.app()
    for _ in range(20):
        await house.device(tags=[f"t{number}" for number in range(100)])
    asked = 0

    async def ask() -> None:
        nonlocal asked
        while True:
            await app.stream.send_all(b"".join(text(app.request("devices.list")) for _ in range(20)))
            asked += 20

    # It says more and more, until nobody takes it any more.
    with trio.move_on_after(LIMIT_S) as limit:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            before = -1
            while asked != before:
                before = asked
                await trio.sleep(0.5)
            nursery.cancel_scope.cancel()
    assert not limit.cancelled_caught
    [session] = house.node._app_endpoint._sessions
    assert session._connection.stream.outgoing_bytes < 4 * apps.READING_BELOW_BYTES
    # Others are served, and so is this one when it reads.
    other = await house.app()
    assert len((await other.call("devices.list"))["devices"]) == 20
    for _ in range(10):
        assert len((await app.hear())["result"]["devices"]) == 20


async def test_a_peer_that_never_reads_its_answers_is_let_go() -> None:
    async with serving(heartbeat_s=0.4) as house:
        app = await house.app()
        device = await house.device(tags=[f"t{number}" for number in range(100)])
        await device.leave()
        ten = text(app.request("devices.list")) * 10

        async def ask_on() -> None:
            with trio.fail_after(LIMIT_S):
                while True:
                    await app.stream.send_all(ten)

        with pytest.raises(trio.BrokenResourceError):
            await ask_on()
        await until(lambda: len(house.node._app_endpoint) == 0)


async def test_while_the_disk_is_far_behind_nothing_more_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit, "ROWS_DECIDED_AHEAD", 100)
    store = StubbornStore()
    async with serving(store=store) as house:
        app, device = await house.app(), await house.device()
        store.hold()
        requests = [app.request("push", {"audience": "all", "notification": HELLO}) for _ in range(1_000)]
        await app.say(*requests)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert house.rows_ahead() < 200
        store.go_on()
        for request in requests:
            result_of(await app.answer_to(request))
        assert device


async def test_too_many_open_requests_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apps, "OPEN_AT_MOST", 10)
    store = StubbornStore()
    async with serving(store=store) as house:
        app, _ = await house.app(), await house.device()
        store.hold()
        requests = [app.request("push", {"audience": "all", "notification": HELLO}) for _ in range(50)]
        await app.say(*requests)
        await trio.testing.wait_all_tasks_blocked(0.05)
        [session] = house.node._app_endpoint._sessions
        assert session._open <= 10
        store.go_on()
        for request in requests:
            result_of(await app.answer_to(request))


async def many_tags(house: House) -> None:
    """Devices that are 80 kB to list."""
    for number in range(20):
        await house.device(tags=[f"{number:02}-{each:03}-{'x' * 33}" for each in range(100)])


async def test_the_answers_to_one_batch_are_bounded(
    house: House, app: AppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # C12: a thousand of them could be gigabytes. What is too much of it is refused, and the rest is told.
    most = 1 << 20
    monkeypatch.setattr(apps, "MAX_OUTGOING_BYTES", most)
    await many_tags(house)
    answers = await batch(app, [app.request("devices.list") for _ in range(200)])
    assert len(app.texts[-1]) < 2 * most
    refused = [Refusal(answer["error"]) for answer in answers if "error" in answer]
    assert {(refusal.code, refusal.name) for refusal in refused} == {(2002, "rate_limited")}
    told = [answer["result"] for answer in answers if "result" in answer]
    assert told
    assert all(len(result["devices"]) == 20 for result in told)
    assert [answer["id"] for answer in answers] == list(range(1, 201))
    assert len((await app.call("devices.list"))["devices"]) == 20


@pytest.mark.parametrize("is_batch", [True, False], ids=["in a batch", "one by one"])
async def test_what_waits_for_the_disk_to_be_told_to_one_peer_is_bounded(is_batch: bool) -> None:
    store = StubbornStore()
    async with serving(store=store) as house:
        await many_tags(house)
        app, other = await house.app(), await house.app()
        store.hold()
        # Something is decided and not durable, so what is asked now is told later.
        await other.say(other.request("push", {"audience": "all", "notification": HELLO}))
        requests = [app.request("devices.list") for _ in range(1_000)]
        before = resident_bytes()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app.say, *([requests] if is_batch else requests))
            await trio.testing.wait_all_tasks_blocked(0.1)
            grown = resident_bytes() - before
            store.go_on()
            for _ in [0] if is_batch else requests:
                await app.hear()
                app.texts.clear()
        assert grown < 48 << 20


async def test_a_large_answer_arrives_whole(house: House, app: AppServer) -> None:
    for number in range(3):
        await house.device(tags=[f"{number:02}-{'x' * 36}", *(f"{each:03}" for each in range(99))])
    answers = await batch(app, [app.request("devices.list") for _ in range(1_000)])
    assert len(answers) == 1_000
    assert all(len(answer["result"]["devices"]) == 3 for answer in answers)
    assert await app.call("aliases.get", alias="A") == {"registration_ids": []}


# --- Limits per app ----------------------------------------------------------------------------------------------


async def test_pushes_are_not_limited_unless_said(house: House, app: AppServer) -> None:
    await house.device()
    answers = await batch(app, [app.request("push", {"audience": "all", "notification": HELLO}) for _ in range(1_000)])
    assert not [answer for answer in answers if "error" in answer]


async def test_pushes_may_be_limited() -> None:
    async with serving(apps=app_plans(pushes_per_s=5)) as house:
        app, device = await house.app(), await house.device()
        answers = await batch(
            app, [app.request("push", {"audience": "all", "notification": HELLO}) for _ in range(20)]
        )
        refused = [Refusal(answer["error"]) for answer in answers if "error" in answer]
        assert 10 <= len(refused) <= 15
        for refusal in refused:
            assert (refusal.code, refusal.name, refusal.retry_after) == (2002, "rate_limited", 1)
        # Other requests are not, nor are other apps, and after a while there is room again.
        assert (await app.call("push.validate", audience="all", notification=HELLO))["targets"] == 1
        other = await house.app(OTHER, OTHER_SECRET)
        await house.device(app_key=OTHER)
        await other.push("all")
        await trio.sleep(1)
        await app.push("all")
        assert device


async def test_the_limit_is_the_apps_not_the_connections() -> None:
    async with serving(apps=app_plans(pushes_per_s=1)) as house:
        await house.device()
        await (await house.app()).push("all")
        with pytest.raises(Refusal) as refusal:
            await (await house.app()).push("all")
        assert refusal.value.code == 2002


async def test_a_push_that_was_refused_for_its_rate_stores_nothing_and_its_cid_is_free() -> None:
    async with serving(apps=app_plans(pushes_per_s=1)) as house:
        app, device = await house.app(), await house.device()
        first = await app.push("all")
        with pytest.raises(Refusal):
            await app.push("all", cid="c")
        assert len((await app.call("pushes.list"))["pushes"]) == 1
        await trio.sleep(1)
        assert (await app.push("all", cid="c"))["msg_id"] != first["msg_id"]
        assert device


async def test_requests_of_any_kind_may_be_limited() -> None:
    async with serving(apps=app_plans(requests_per_s=3)) as house:
        app = await house.app()
        answers = await batch(app, [app.request("tags.list") for _ in range(10)])
        refused = [Refusal(answer["error"]) for answer in answers if "error" in answer]
        assert 6 <= len(refused) <= 7
        assert {(refusal.code, refusal.retry_after) for refusal in refused} == {(2002, 1)}


async def test_a_push_counts_for_both_limits_and_so_does_each_entry_of_a_batch() -> None:
    async with serving(apps=app_plans(requests_per_s=3)) as house:
        app, device = await house.app(), await house.device()
        answers = await batch(app, [app.request("push", {"audience": "all", "notification": HELLO}) for _ in range(6)])
        assert sum("result" in answer for answer in answers) in (3, 4)
        assert device


# --- Faults of ours ----------------------------------------------------------------------------------------------


def plant(monkeypatch: pytest.MonkeyPatch, where: type, name: str) -> None:
    """A fault that shows once."""
    sound = getattr(where, name)

    def faulty(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(where, name, sound)
        raise ZeroDivisionError("a secret of ours")

    monkeypatch.setattr(where, name, faulty)


@pytest.mark.parametrize(
    ("where", "name", "method", "params"),
    [
        (Directory, "page", "devices.list", {}),
        (Directory, "tags", "tags.list", {}),
        (Audience, "targets", "push", {"audience": "all", "notification": HELLO}),
        (Audience, "targets", "push", {"audience": "all", "notification": HELLO, "cid": "c"}),
        (MemoryStore, "reports", "report", {"msg_ids": ["1"]}),
        (MemoryStore, "pushes", "pushes.list", {}),
        (MemoryStore, "statuses", "status", {"msg_id": "1", "registration_ids": []}),
        (Mailbox, "rebind", "aliases.delete", {"alias": "A"}),
    ],
)
async def test_a_request_over_which_the_server_fails_is_answered_so_and_others_are_not_harmed(
    house: House,
    app: AppServer,
    monkeypatch: pytest.MonkeyPatch,
    where: type,
    name: str,
    method: str,
    params: dict[str, Any],
) -> None:
    device, other = await house.device(alias="A"), await house.app(OTHER, OTHER_SECRET)
    await app.push("all")
    await device.hear_message()
    plant(monkeypatch, where, name)
    with pytest.raises(Refusal) as refusal:
        await app.call(method, **params)
    assert (refusal.value.code, refusal.value.name) == (-32603, "internal_error")
    assert "secret" not in refusal.value.message
    # The session goes on, nothing of it took effect, and nobody else has noticed.
    assert len((await app.call("pushes.list"))["pushes"]) == 1
    assert await app.call("aliases.get", alias="A") == {"registration_ids": [device.id]}
    assert (await app.ask(method, params)).keys() >= {"result"}
    assert await other.call("tags.list") == {"tags": []}
    assert house.node.is_ready


async def test_one_failed_entry_of_a_batch_does_not_harm_the_others(
    house: House, app: AppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.device()
    plant(monkeypatch, Directory, "page")
    answers = await batch(app, [app.request(each) for each in ("tags.list", "devices.list", "devices.list")])
    assert [answer.get("error", {}).get("code") for answer in answers] == [None, -32603, None]


# --- Signs of life and the end -----------------------------------------------------------------------------------


async def test_pings_are_answered(app: AppServer) -> None:
    for payload in (b"", b"1", b"x" * 125):
        await app.ping(payload)


async def test_a_silent_app_server_is_asked_and_then_let_go() -> None:
    async with serving(heartbeat_s=0.3) as house:
        app = await house.app()
        app.answers_pings = False
        began = trio.current_time()
        assert (await app.hear_end()).code == 4001
        assert trio.current_time() - began >= 0.5
        assert app.pings


async def test_an_app_server_that_answers_pings_stays() -> None:
    async with serving(heartbeat_s=0.3) as house:
        app = await house.app()
        for _ in range(4):
            await app.hear_ping()
        assert await app.call("tags.list") == {"tags": []}


async def test_an_app_server_is_not_silent_while_the_server_keeps_it_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    # It is the server that does not read on, because its disk does not answer (C12 is about the peer).
    monkeypatch.setattr(apps, "OPEN_AT_MOST", 2)
    store = StubbornStore()
    async with serving(store=store, heartbeat_s=0.3) as house:
        app, _ = await house.app(), await house.absent()
        store.hold()
        requests = [app.request("push", {"audience": "all", "notification": HELLO}) for _ in range(10)]
        await app.say(*requests)
        with trio.move_on_after(1.2):
            await app.hear()
        store.go_on()
        for request in requests:
            result_of(await app.answer_to(request))
        assert await app.call("tags.list") == {"tags": []}


async def test_a_close_is_answered(app: AppServer) -> None:
    await app.send_bytes(close(1000))
    assert (await app.hear_end()).code == 1000


async def test_what_was_asked_before_a_close_is_done(house: House, app: AppServer) -> None:
    device = await house.device()
    await app.send_bytes(text(app.request("push", {"audience": "all", "notification": HELLO})) + close(1000))
    await app.hear_end()
    await device.hear_message()


@pytest.mark.parametrize("how", ["vanish", "reset"])
async def test_what_an_app_server_asked_that_went_away_is_done(house: House, app: AppServer, how: str) -> None:
    device = await house.device()
    await app.say(*[app.request("push", {"audience": "all", "notification": HELLO}) for _ in range(5)])
    await app.ping()
    await (app.vanish() if how == "vanish" else app.reset())
    for _ in range(5):
        await device.hear_message()
    await until(lambda: len(house.node._app_endpoint) == 0)


async def test_sessions_of_one_app_share_what_it_has(house: House) -> None:
    one, two = await house.app(), await house.app()
    await house.device()
    pushed = await one.push("all")
    assert (await two.report(pushed["msg_id"]))["targets"] == 1
    assert len(house.node._app_endpoint) == 2


# --- What came with receipts (C20 to C22) ------------------------------------------------------------------------


async def test_what_has_to_do_with_receipts_counts_as_requests() -> None:
    async with serving(apps=app_plans(requests_per_s=3)) as house:
        app = await house.app()
        batch = [
            app.request("receipts.subscribe", {"consumer": "x"}),
            app.request("receipts.ack", {"cursor": "0"}),
            app.request("receipts.unsubscribe"),
            app.request("receipts.subscribe", {"consumer": "y"}),
        ]
        await app.say(batch)
        answers = await app.hear()
        assert ["error" in each for each in answers] == [False, False, False, True]
        refusal = Refusal(answers[3]["error"])
        assert (refusal.code, refusal.name) == (2002, "rate_limited")
        assert refusal.retry_after


async def test_a_batch_may_push_recall_and_look_in_its_order(house: House, app: AppServer) -> None:
    device = await house.absent()
    earlier = await app.push_alert("a", device)
    to_it = {"registration_id": [device.id]}
    batch = [
        app.request("timeline", {"msg_id": earlier, "registration_id": device.id}),
        app.request("push", {"audience": to_it, "notification": HELLO, "options": {"override_msg_id": earlier}}),
        app.request("timeline", {"msg_id": earlier, "registration_id": device.id}),
        app.request("push.recall", {"msg_id": earlier}),
        app.request("push", {"audience": {"alias": ["U"]}, "notification": HELLO, "options": {"hold": True}}),
        app.request("devices.set", {"registration_id": device.id, "alias": "U"}),
        app.request("report", {"msg_ids": [earlier]}),
    ]
    await app.say(batch)
    answers = await app.hear()
    assert [each["id"] for each in answers] == [each["id"] for each in batch]
    results = [result_of(each) for each in answers]
    assert results[0]["state"] == "waiting"
    assert results[2]["state"] == "replaced"
    assert results[3] == {"recalled": 0, "on_the_way": 0, "received": 0, "settled": 1}
    assert [each["msg_id"] for each in results[5]["mailbox"]] == [results[1]["msg_id"], results[4]["msg_id"]]
    assert results[6][0]["replaced"] == 1


async def test_a_recall_counts_what_was_acknowledged_just_before_it() -> None:
    store = StubbornStore()
    async with serving(store=store) as house:
        app, device = await house.app(), await house.device()
        pushed = await app.push_alert("a", device)
        await device.hear_message()
        store.hold()
        await device.note("received", msg_id=pushed)
        await until(lambda: house.rows_ahead() > 0)
        asked = app.request("push.recall", {"msg_id": pushed})
        await app.say(asked)
        with trio.move_on_after(0.1):
            app.kept.append(await app.hear())
        assert not app.kept
        store.go_on()
        split = result_of(await app.answer_to(asked))
        assert split == {"recalled": 0, "on_the_way": 0, "received": 1, "settled": 0}
        assert await device.hear_note("recall") == {"msg_id": pushed}

"""The receipt stream over the wire (`pushactors/edges/following.py`): subscribing, hearing, acknowledging, ending."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from pushactors.actors import upkeep
from pushactors.actors.tenant import Limits
from pushactors.stores.contract import ReceiptPage, Store
from pushactors.stores.memory import MemoryDisk, MemoryStore
from pushactors.stores.sqlite import SqliteStore
from pushactors.wire.ids import AppNo, Cursor
from tests.edges.serving import (
    APP,
    HELLO,
    OTHER,
    OTHER_SECRET,
    SECRET,
    AppServer,
    Device,
    House,
    Refusal,
    StubbornStore,
    Wall,
    basic,
    result_of,
    serving,
    until,
)

SUBSCRIPTION_METHODS = ("receipts.subscribe", "receipts.ack", "receipts.unsubscribe")


async def refused(app: AppServer, method: str, **params: object) -> Refusal:
    """What that is refused with; afterwards the connection is usable."""
    with pytest.raises(Refusal) as refusal:
        await app.call(method, **params)
    await app.call("tags.list")
    assert refusal.value.message.endswith(".")
    return refusal.value


async def receive(app: AppServer, device: Device, count: int = 1) -> list[str]:
    """So many messages that the device gets and acknowledges; their ids, each with one receipt."""
    ids = [await app.push_alert(str(number), device) for number in range(count)]
    await device.hear_alerts(count)
    if count:
        await device.note("received", msg_id=ids[-1])
        await device.told()
    return ids


def told(events: list[dict[str, Any]]) -> list[tuple[str, str | None, str]]:
    return [(each["msg_id"], each["registration_id"], each["event"]) for each in events]


# --- Subscribing -------------------------------------------------------------------------------------------------


async def test_a_new_consumer_hears_what_comes_from_now_on(house: House, app: AppServer) -> None:
    device = await house.device()
    await receive(app, device, 2)
    assert await app.subscribe(consumer="billing") == "2"
    [msg_id] = await receive(app, device)
    [event] = await app.hear_receipts(1)
    assert event.keys() == {"cursor", "msg_id", "registration_id", "event", "at"}
    assert (event["cursor"], event["msg_id"], event["registration_id"]) == ("3", msg_id, device.id)
    assert event["event"] == "received"
    assert abs(event["at"] - house.wall()) < 60_000
    await app.quiet()


async def test_before_the_first_receipt_the_cursor_is_zero(app: AppServer) -> None:
    assert await app.subscribe(consumer="billing") == "0"
    await app.quiet()


@pytest.mark.parametrize("consumer", [None, "billing"])
async def test_after_zero_is_everything_that_is_kept(house: House, app: AppServer, consumer: str | None) -> None:
    device = await house.device()
    ids = await receive(app, device, 3)
    named = {} if consumer is None else {"consumer": consumer}
    assert await app.subscribe(after="0", **named) == "0"
    assert [each["msg_id"] for each in await app.hear_receipts(3)] == ids


async def test_after_is_a_cursor_to_begin_behind(house: House, app: AppServer) -> None:
    ids = await receive(app, await house.device(), 3)
    assert await app.subscribe(after="2") == "2"
    assert [each["msg_id"] for each in await app.hear_receipts(1)] == ids[2:]
    await app.call("receipts.unsubscribe")
    assert await app.subscribe(after="3") == "3"
    await app.quiet()


async def test_a_known_consumer_resumes_behind_what_it_has_acknowledged(house: House, app: AppServer) -> None:
    device, follower = await house.device(), await house.app()
    await follower.subscribe(consumer="billing")
    ids = await receive(app, device, 3)
    heard = await follower.hear_receipts(3, acknowledges=False)
    await follower.call("receipts.ack", cursor=heard[0]["cursor"])
    await follower.leave()
    follower = await house.app()
    assert await follower.subscribe(consumer="billing") == heard[0]["cursor"]
    assert await follower.hear_receipts(2, acknowledges=False) == heard[1:]
    assert [each["msg_id"] for each in heard] == ids


async def test_a_consumer_that_has_acknowledged_nothing_has_its_place(house: House, app: AppServer) -> None:
    follower = await house.app()
    await follower.subscribe(consumer="billing")
    await follower.leave()
    [msg_id] = await receive(app, await house.device())
    follower = await house.app()
    assert await follower.subscribe(consumer="billing") == "0"
    assert (await follower.hear_receipts(1))[0]["msg_id"] == msg_id


@pytest.mark.parametrize("after", ["0", "1", "3"])
async def test_with_both_the_consumer_is_moved(house: House, app: AppServer, after: str) -> None:
    await receive(app, await house.device(), 3)
    follower = await house.app()
    await follower.subscribe(consumer="billing", after="2")
    await follower.leave()
    follower = await house.app()
    assert await follower.subscribe(consumer="billing", after=after) == after
    await follower.leave()
    follower = await house.app()
    assert await follower.subscribe(consumer="billing") == after


async def test_without_a_consumer_nothing_is_remembered(house: House, app: AppServer) -> None:
    await receive(app, await house.device(), 2)
    await app.subscribe(after="0")
    await app.hear_receipts(2)
    await app.call("receipts.unsubscribe")
    assert await app.subscribe(after="0") == "0"
    await app.hear_receipts(2)


async def test_two_who_follow_without_a_name_do_not_displace_each_other(house: House, app: AppServer) -> None:
    others = [await house.app() for _ in range(3)]
    for other in others:
        await other.subscribe(after="0")
    ids = await receive(app, await house.device(), 2)
    for other in others:
        assert [each["msg_id"] for each in await other.hear_receipts(2)] == ids


async def test_several_consumers_follow_each_at_its_own_pace(house: House, app: AppServer) -> None:
    followers = {name: await house.app() for name in ("a", "b", "c")}
    for name, follower in followers.items():
        await follower.subscribe(consumer=name)
    ids = await receive(app, await house.device(), 3)
    for place, (name, follower) in enumerate(followers.items()):
        heard = await follower.hear_receipts(3, acknowledges=False)
        assert [each["msg_id"] for each in heard] == ids
        await follower.call("receipts.ack", cursor=heard[place]["cursor"])
        await follower.leave()
        assert await (await house.app()).subscribe(consumer=name) == str(place + 1)


@pytest.mark.parametrize("consumer", ["x", "a b", "é" * 32, "x" * 64, "日本", "!\"§$%&/()=?'"])
async def test_a_consumer_may_have_any_printable_name(app: AppServer, consumer: str) -> None:
    await app.subscribe(consumer=consumer)


# --- Refusals ----------------------------------------------------------------------------------------------------

BIG = "1" * 500
BAD_PARAMS: list[tuple[str, dict[str, Any], str]] = [
    ("receipts.subscribe", {}, "consumer"),
    ("receipts.subscribe", {"consumer": None}, "consumer"),
    ("receipts.subscribe", {"consumer": None, "after": "0"}, "consumer"),
    ("receipts.subscribe", {"consumer": "x", "after": None}, "after"),
    ("receipts.subscribe", {"consumer": ""}, "consumer"),
    ("receipts.subscribe", {"consumer": "x" * 65}, "consumer"),
    ("receipts.subscribe", {"consumer": "é" * 33}, "consumer"),
    ("receipts.subscribe", {"consumer": "a\nb"}, "consumer"),
    ("receipts.subscribe", {"consumer": "a\0"}, "consumer"),
    ("receipts.subscribe", {"consumer": 5}, "consumer"),
    ("receipts.subscribe", {"consumer": ["x"]}, "consumer"),
    ("receipts.subscribe", {"consumer": "x", "after": 0}, "after"),
    ("receipts.subscribe", {"after": 0}, "after"),
    ("receipts.subscribe", {"after": ""}, "after"),
    ("receipts.subscribe", {"after": "-1"}, "after"),
    ("receipts.subscribe", {"after": "+1"}, "after"),
    ("receipts.subscribe", {"after": "01"}, "after"),
    ("receipts.subscribe", {"after": "00"}, "after"),
    ("receipts.subscribe", {"after": " 0"}, "after"),
    ("receipts.subscribe", {"after": "0\n"}, "after"),
    ("receipts.subscribe", {"after": "1.0"}, "after"),
    ("receipts.subscribe", {"after": "1_0"}, "after"),
    ("receipts.subscribe", {"after": "٣"}, "after"),
    ("receipts.subscribe", {"after": "now"}, "after"),
    ("receipts.subscribe", {"after": BIG}, "after"),
    ("receipts.subscribe", {"after": str(2**63)}, "after"),
    ("receipts.subscribe", {"after": str(2**63 - 1)}, "after"),
    ("receipts.subscribe", {"after": "1"}, "after"),
    ("receipts.subscribe", {"consumer": "x", "after": "1"}, "after"),
    ("receipts.subscribe", {"consumer": "x", "from": "0"}, "from"),
    ("receipts.ack", {}, "cursor"),
    ("receipts.ack", {"cursor": None}, "cursor"),
    ("receipts.ack", {"cursor": 1}, "cursor"),
    ("receipts.ack", {"cursor": "x"}, "cursor"),
    ("receipts.ack", {"cursor": BIG}, "cursor"),
    ("receipts.ack", {"cursor": "1", "consumer": "x"}, "consumer"),
    ("receipts.unsubscribe", {"consumer": "x"}, "consumer"),
]


@pytest.mark.parametrize(("method", "params", "path"), BAD_PARAMS, ids=lambda each: str(each)[:40])
async def test_bad_params_are_refused_and_nothing_has_changed(
    house: House, app: AppServer, method: str, params: dict[str, Any], path: str
) -> None:
    refusal = await refused(app, method, **params)
    assert (refusal.code, refusal.name, refusal.path) == (-32602, "invalid_params", path)
    assert len(refusal.message) < 300
    # There is no subscription, and no consumer that had a place before what comes now.
    assert (await refused(app, "receipts.unsubscribe")).code == -32602
    await receive(app, await house.device())
    await app.quiet()
    assert await app.subscribe(consumer="x") == "1"


async def test_the_largest_cursor_is_refused_by_a_store_on_disk_too(tmp_path: Path) -> None:
    async with serving(store=SqliteStore(tmp_path / "store")) as house:
        app = await house.app()
        await receive(app, await house.device(), 2)
        for after in (str(2**63 - 1), str(2**63 - 4_001), "3"):
            refusal = await refused(app, "receipts.subscribe", after=after)
            assert (refusal.code, refusal.path) == (-32602, "after")


@pytest.mark.parametrize("method", SUBSCRIPTION_METHODS)
@pytest.mark.parametrize("params", [[], ["x"], "x", 5, None, False])
async def test_params_are_an_object(app: AppServer, method: str, params: object) -> None:
    await app.say({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    refusal = Refusal((await app.hear())["error"])
    assert (refusal.code, refusal.path) == (-32602, "params")


@pytest.mark.parametrize(("method", "params"), [("receipts.ack", {"cursor": "0"}), ("receipts.unsubscribe", {})])
async def test_without_a_subscription_there_is_nothing_to_acknowledge_or_to_end(
    app: AppServer, method: str, params: dict[str, str]
) -> None:
    refusal = await refused(app, method, **params)
    assert (refusal.code, refusal.name) == (-32602, "invalid_params")
    await app.subscribe(consumer="x")
    await app.call("receipts.unsubscribe")
    assert (await refused(app, method, **params)).code == -32602


async def test_an_app_server_has_nothing_to_notify(app: AppServer) -> None:
    await app.subscribe(consumer="x")
    await app.note("receipts.ack", cursor="0")
    refusal = await app.hear()
    assert (refusal["id"], refusal["error"]["code"]) == (None, -32600)


@pytest.mark.parametrize("params", [{"consumer": "x"}, {"consumer": "y"}, {"after": "0"}])
async def test_there_is_one_subscription_on_a_connection(
    house: House, app: AppServer, params: dict[str, str]
) -> None:
    await app.subscribe(consumer="x")
    refusal = await refused(app, "receipts.subscribe", **params)
    assert (refusal.code, refusal.name) == (-32602, "invalid_params")
    # It still lives, and "y" is no consumer.
    [msg_id] = await receive(app, await house.device())
    assert [each["msg_id"] for each in await app.hear_receipts(1)] == [msg_id]
    assert await (await house.app()).subscribe(consumer="y") == "1"


async def test_two_asked_for_at_once_are_one_too_many(house: House, app: AppServer) -> None:
    asked = [app.request("receipts.subscribe", {"consumer": name}) for name in ("x", "y")]
    await app.say(*asked)
    answers = [await app.answer_to(each) for each in asked]
    assert answers[0]["result"] == {"cursor": "0"}
    assert answers[1]["error"]["code"] == -32602
    await receive(app, await house.device())
    assert len(await app.hear_receipts(1)) == 1
    await app.quiet()


async def test_an_app_has_a_thousand_consumers_at_most() -> None:
    async with serving() as house:
        app = await house.app()
        for number in range(1_000):
            await app.subscribe(consumer=f"c{number}")
            await app.call("receipts.unsubscribe")
        refusal = await refused(app, "receipts.subscribe", consumer="one too many")
        assert (refusal.code, refusal.path) == (-32602, "consumer")
        # Those that there are, and who needs no name, may go on; another app has its own.
        await app.subscribe(consumer="c0")
        await app.call("receipts.unsubscribe")
        await app.subscribe(after="0")
        await (await house.app(OTHER, OTHER_SECRET)).subscribe(consumer="one too many")


# --- Order -------------------------------------------------------------------------------------------------------


async def test_the_answer_comes_before_the_first_receipt(house: House, app: AppServer) -> None:
    await receive(app, await house.device(), 3)
    for _ in range(20):
        request = app.request("receipts.subscribe", {"after": "0"})
        await app.say(request)
        assert (await app.hear())["id"] == request["id"]
        await app.hear_receipts(3)
        await app.call("receipts.unsubscribe")


async def test_in_a_batch_too_the_answer_comes_before_the_first_receipt(house: House, app: AppServer) -> None:
    device = await house.device()
    ids = await receive(app, device, 3)
    push = {"audience": "all", "notification": HELLO}
    for _ in range(5):
        batch = [app.request("receipts.subscribe", {"after": "0"}), *(app.request("push", push) for _ in range(5))]
        await app.say(batch)
        answers = await app.hear()
        assert isinstance(answers, list), answers
        assert result_of(answers[0]) == {"cursor": "0"}
        assert [each["msg_id"] for each in await app.hear_receipts(3)] == ids
        await app.call("receipts.unsubscribe")


async def test_in_a_batch_that_waits_for_the_disk_the_answer_comes_first() -> None:
    store = StubbornStore()
    async with serving(store=store) as house:
        app, device = await house.app(), await house.device()
        await receive(app, device, 3)
        store.hold()
        push = {"audience": "all", "notification": HELLO}
        await app.say([app.request("receipts.subscribe", {"after": "0"}), app.request("push", push)])
        with trio.move_on_after(0.2):
            await app.hear()
        store.go_on()
        heard = app.kept.popleft() if app.kept else await app.hear()
        assert isinstance(heard, list), heard


class OneByOne(StubbornStore):
    """Its commits can be let through one at a time."""

    def let_one(self) -> None:
        self.go_on()
        self.hold()


async def test_a_subscription_in_the_place_of_an_unanswered_one_is_answered_before_its_first_receipt() -> None:
    # subscribe, unsubscribe, subscribe in one write: the first one's answer must not start the second one's frames.
    store = OneByOne()
    async with serving(store=store) as house:
        app, device, pusher = await house.app(), await house.device(), await house.app()
        await receive(app, device, 3)
        store.hold()
        await pusher.say(pusher.request("push", {"audience": "all", "notification": HELLO}))
        await until(lambda: house.rows_ahead() > 0)
        first = app.request("receipts.subscribe", {"consumer": "x"})
        end = app.request("receipts.unsubscribe")
        second = app.request("receipts.subscribe", {"consumer": "y", "after": "0"})
        await app.say(first, end)
        ahead = house.rows_ahead()
        await until(lambda: house.rows_ahead() > ahead or house.rows_ahead() >= 2)
        store.let_one()  # the push
        with trio.move_on_after(0.1):
            await pusher.hear()
        await app.say(second)
        with trio.move_on_after(0.1):
            await app.hear()
        assert not app.kept
        store.let_one()  # the first one's consumer
        with trio.move_on_after(0.2):
            while True:
                app.kept.append(await app._next())
        ids = [each.get("id") for each in app.kept]
        assert ids[:2] == [first["id"], end["id"]]
        if second["id"] not in ids:
            assert len(ids) == 2, "receipts came before the answer to their subscription"
        else:
            assert ids.index(second["id"]) == 2
        store.go_on()


async def test_cursors_of_an_app_are_consecutive_and_what_happened_first_comes_first(
    house: House, app: AppServer
) -> None:
    await app.subscribe(consumer="x")
    device = await house.device()
    msg_id = await app.push_alert("a", device)
    await device.hear_message()
    for mark in ("opened", "dismissed", "withdrawn"):
        await device.note(mark, msg_id=msg_id)
        await device.note(mark, msg_id=msg_id)
    await device.told()
    heard = await app.hear_receipts(4)
    assert [each["event"] for each in heard] == ["received", "opened", "dismissed", "withdrawn"]
    assert [each["cursor"] for each in heard] == ["1", "2", "3", "4"]
    assert {each["msg_id"] for each in heard} == {msg_id}
    await app.quiet()


async def test_a_receipt_is_told_when_it_is_on_disk() -> None:
    store = StubbornStore()
    async with serving(store=store) as house:
        app, device = await house.app(), await house.device()
        await app.subscribe(consumer="x")
        msg_id = await app.push_alert("a", device)
        await device.hear_message()
        store.hold()
        await device.note("received", msg_id=msg_id)
        with trio.move_on_after(0.2):
            await app.hear()
        assert not app.kept
        store.go_on()
        assert [each["msg_id"] for each in await app.hear_receipts(1)] == [msg_id]


# --- What is told ------------------------------------------------------------------------------------------------


async def test_there_is_a_receipt_of_every_verdict() -> None:
    limits = Limits(offline_limit=2, window=1)
    wall = Wall()
    async with serving(limits=limits, wall=wall) as house:
        app = await house.app()
        await app.subscribe(consumer="x")
        away, here = await house.absent(alias="A"), await house.device(alias="H")
        expected: list[tuple[str, str | None, str]] = []

        received = await app.push_alert("a", here)
        await here.hear_message()
        await here.note("received", msg_id=received)
        await here.told()
        expected.append((received, here.id, "received"))

        missed = await app.push_alert("b", away, time_to_live=0)
        expected.append((missed, away.id, "missed"))

        replaced = await app.push_alert("c", away)
        newcomer = await app.push_alert("d", away, override_msg_id=replaced)
        expected.append((replaced, away.id, "replaced"))

        recalled = await app.push_alert("e", away)
        await app.call("push.recall", msg_id=recalled)
        expected.append((recalled, away.id, "recalled"))

        fenced = (await app.push({"alias": ["A"]}))["msg_id"]
        await app.call("aliases.delete", alias="A")
        expected.append((fenced, away.id, "fenced"))

        expiring = await app.push_alert("f", away, time_to_live=5)
        last = await app.push_alert("g", away)
        expected.append((newcomer, away.id, "overflowed"))
        wall.forward(6)
        expected.append((expiring, away.id, "expired"))

        events = await app.hear_receipts(7)
        assert told(events) == expected
        # With the device the rest is missed, and its name is still known.
        await app.call("devices.delete", registration_id=away.id)
        assert told(await app.hear_receipts(1)) == [(last, away.id, "missed")]
        await app.quiet()


async def test_a_deleted_devices_receipts_keep_its_name(house: House, app: AppServer) -> None:
    device = await house.absent()
    msg_id = await app.push_alert("a", device)
    await app.call("devices.delete", registration_id=device.id)
    await app.subscribe(after="0")
    assert told(await app.hear_receipts(1)) == [(msg_id, device.id, "missed")]


async def test_an_overdue_receipt_says_why() -> None:
    wall = Wall()
    async with serving(limits=Limits(window=1), wall=wall) as house:
        app = await house.app()
        away, here = await house.absent(), await house.device()
        before = await app.push_alert("before", here)
        assert (await here.hear_message())["msg_id"] == before
        mine = (await app.push({"registration_id": [away.id]}, options={"deliver_within": 30}))["msg_id"]
        queued = await app.push_alert("queued", here, deliver_within=30)
        sent = await house.device()
        on_the_wire = await app.push_alert("sent", sent, deliver_within=30)
        await sent.hear_message()
        unheld = (await app.push({"alias": ["U"]}, options={"deliver_within": 30, "hold": True}))["msg_id"]
        in_time = await app.push_alert("in time", await house.absent(), deliver_within=600)
        last_seen = (await app.call("presence", registration_ids=[away.id]))[away.id]["last_seen_at"]
        since = wall()
        await app.subscribe(consumer="x")
        wall.forward(31)
        events = {each["msg_id"]: each for each in await app.hear_receipts(4)}
        assert events.keys() == {mine, queued, on_the_wire, unheld}
        assert {each["event"] for each in events.values()} == {"overdue"}
        assert events[mine]["reason"] == {"why": "absent", "since": last_seen}
        assert events[queued]["reason"] == {"why": "queued", "behind": 1}
        assert events[on_the_wire]["reason"].keys() == {"why", "since"}
        assert events[on_the_wire]["reason"]["why"] == "unacknowledged"
        assert abs(events[on_the_wire]["reason"]["since"] - since) < 20_000
        assert events[unheld]["reason"].keys() == {"why", "since"}
        assert events[unheld]["reason"]["why"] == "unheld"
        assert abs(events[unheld]["reason"]["since"] - since) < 20_000
        assert (events[unheld]["registration_id"], events[unheld]["alias"]) == (None, "U")
        # Once each, and the delivery goes on.
        wall.forward(200)
        await sent.note("received", msg_id=on_the_wire)
        await sent.told()
        assert told(await app.hear_receipts(1)) == [(on_the_wire, sent.id, "received")]
        away = await house.back(away)
        assert (await away.hear_message())["msg_id"] == mine
        await app.quiet()
        wall.forward(600)
        assert [each["msg_id"] for each in await app.hear_receipts(1)] == [in_time]


async def test_what_is_settled_in_time_is_not_overdue() -> None:
    wall = Wall()
    async with serving(wall=wall) as house:
        app, device, away = await house.app(), await house.device(), await house.absent()
        await app.subscribe(consumer="x")
        msg_id = await app.push_alert("a", device, deliver_within=10)
        await device.hear_message()
        await device.note("received", msg_id=msg_id)
        expiring = await app.push_alert("b", away, deliver_within=10, time_to_live=5)
        assert told(await app.hear_receipts(1)) == [(msg_id, device.id, "received")]
        wall.forward(7)
        assert told(await app.hear_receipts(1)) == [(expiring, away.id, "expired")]
        # The round that finds this one overdue has looked at all of them.
        witness = await app.push_alert("c", away, deliver_within=1)
        wall.forward(20)
        assert told(await app.hear_receipts(1)) == [(witness, away.id, "overdue")]
        await app.quiet()


async def test_a_deadline_that_passed_while_the_server_was_down_is_told_at_the_start() -> None:
    disk, wall = MemoryDisk(), Wall()
    async with serving(store=MemoryStore(disk), wall=wall) as house:
        app, device = await house.app(), await house.absent()
        await app.subscribe(consumer="x")
        msg_id = await app.push_alert("a", device, deliver_within=10)
    wall.forward(60)
    async with serving(store=MemoryStore(disk), wall=wall) as house:
        app = await house.app()
        assert await app.subscribe(consumer="x") == "0"
        [event] = await app.hear_receipts(1)
        assert (event["msg_id"], event["event"], event["reason"]["why"]) == (msg_id, "overdue", "absent")


async def test_what_is_held_is_told_by_its_alias() -> None:
    wall = Wall()
    async with serving(limits=Limits(offline_limit=2), wall=wall) as house:
        app = await house.app()
        await app.subscribe(consumer="x")
        ids = {}
        for name, options in {"a": {}, "b": {}, "c": {}, "d": {"time_to_live": 5}}.items():
            pushed = await app.push({"alias": ["U"]}, options={"hold": True, **options}, notification={"alert": name})
            ids[name] = pushed["msg_id"]
        await app.call("push.recall", msg_id=ids["c"])
        e = await app.push({"alias": ["U"]}, options={"hold": True})
        f = await app.push({"alias": ["U"]}, options={"hold": True, "override_msg_id": e["msg_id"]})
        wall.forward(6)
        events = await app.hear_receipts(5)
        assert {(each["msg_id"], each["event"]) for each in events} == {
            (ids["a"], "overflowed"), (ids["b"], "overflowed"), (ids["c"], "recalled"), (e["msg_id"], "replaced"),
            (ids["d"], "expired"),
        }  # fmt: skip
        for each in events:
            assert (each["registration_id"], each["alias"]) == (None, "U")
        # With a device, it has the device's id.
        device = await house.device(alias="U")
        assert (await device.hear_message())["msg_id"] == f["msg_id"]
        await device.note("opened", msg_id=f["msg_id"])
        await device.told()
        assert told(await app.hear_receipts(2)) == [
            (f["msg_id"], device.id, "received"), (f["msg_id"], device.id, "opened")
        ]  # fmt: skip


async def test_apps_never_see_each_others_receipts(house: House, app: AppServer) -> None:
    other = await house.app(OTHER, OTHER_SECRET)
    await app.subscribe(consumer="x")
    await other.subscribe(consumer="x")
    mine, theirs = await house.device(), await house.device(app_key=OTHER)
    my_ids, their_ids = await receive(app, mine, 3), await receive(other, theirs, 2)
    heard, other_heard = await app.hear_receipts(3), await other.hear_receipts(2)
    assert told(heard) == [(each, mine.id, "received") for each in my_ids]
    assert told(other_heard) == [(each, theirs.id, "received") for each in their_ids]
    assert [each["cursor"] for each in other_heard] == ["1", "2"]
    await app.quiet()
    await other.quiet()
    # One's consumer is not the other's.
    assert await (await house.app()).subscribe(consumer="x") == "3"


# --- Eight frames ------------------------------------------------------------------------------------------------


async def singly(app: AppServer, follower: AppServer, device: Device, count: int) -> list[str]:
    """So many receipts, each in a frame of its own, which are not acknowledged; their cursors."""
    cursors = []
    for _ in range(count):
        await receive(app, device)
        [event] = await follower.hear_frame()
        cursors.append(event["cursor"])
    return cursors


async def test_eight_frames_are_outstanding_and_then_it_waits(house: House, app: AppServer) -> None:
    device, follower = await house.device(), await house.app()
    await follower.subscribe(consumer="x")
    cursors = await singly(app, follower, device, 8)
    await receive(app, device, 3)
    await follower.quiet()
    # One is acknowledged: one frame more, with all that has come meanwhile.
    assert await follower.call("receipts.ack", cursor=cursors[0]) is None
    assert len(await follower.hear_frame()) == 3
    await receive(app, device, 2)
    await follower.quiet()
    # All frames up to a cursor are.
    await follower.call("receipts.ack", cursor=cursors[4])
    assert len(await follower.hear_frame()) == 2
    for _ in range(3):
        await receive(app, device)
        assert len(await follower.hear_frame()) == 1
    await receive(app, device)
    await follower.quiet()


async def test_a_frame_that_is_acknowledged_in_part_is_still_outstanding(house: House, app: AppServer) -> None:
    device, follower = await house.device(), await house.app()
    await receive(app, device, 3)
    await follower.subscribe(consumer="x", after="0")
    assert len(await follower.hear_frame()) == 3
    await singly(app, follower, device, 7)
    await follower.call("receipts.ack", cursor="2")
    await receive(app, device)
    await follower.quiet()
    await follower.call("receipts.ack", cursor="3")
    assert [each["cursor"] for each in await follower.hear_frame()] == ["11"]
    # In part it counts for where the consumer resumes.
    await follower.call("receipts.ack", cursor="5")
    await follower.leave()
    assert await (await house.app()).subscribe(consumer="x") == "5"


async def test_an_acknowledgement_may_come_late_or_twice(house: House, app: AppServer) -> None:
    device, follower = await house.device(), await house.app()
    await follower.subscribe(consumer="x")
    cursors = await singly(app, follower, device, 3)
    for cursor in (cursors[1], cursors[1], cursors[0], "0"):
        assert await follower.call("receipts.ack", cursor=cursor) is None
    await follower.leave()
    assert await (await house.app()).subscribe(consumer="x") == cursors[1]


async def test_what_was_not_sent_cannot_be_acknowledged(house: House, app: AppServer) -> None:
    device, follower = await house.device(), await house.app()
    await follower.subscribe(consumer="x")
    cursors = await singly(app, follower, device, 8)
    await receive(app, device)
    for cursor in (str(int(cursors[-1]) + 1), "999999", str(2**63 - 1)):
        refusal = await refused(follower, "receipts.ack", cursor=cursor)
        assert (refusal.code, refusal.path) == (-32602, "cursor")
    await follower.quiet()
    await follower.call("receipts.ack", cursor=cursors[-1])
    assert len(await follower.hear_frame()) == 1


async def test_what_was_sent_on_an_earlier_subscription_only_cannot_be_acknowledged(
    house: House, app: AppServer
) -> None:
    await receive(app, await house.device(), 3)
    await app.subscribe(after="0")
    await app.hear_frame()
    await app.call("receipts.unsubscribe")
    await app.subscribe(consumer="x", after="1")
    assert len(await app.hear_frame()) == 2
    await app.call("receipts.ack", cursor="3")
    await app.call("receipts.unsubscribe")
    await app.subscribe(consumer="x", after="3")
    refusal = await refused(app, "receipts.ack", cursor="4")
    assert (refusal.code, refusal.path) == (-32602, "cursor")


@pytest.mark.parametrize("is_on_disk", [False, True], ids=["memory", "sqlite"])
async def test_thousands_come_in_a_frame(tmp_path: Path, is_on_disk: bool) -> None:
    store: Store = SqliteStore(tmp_path / "store") if is_on_disk else MemoryStore()
    async with serving(store=store) as house:
        app = await house.app()
        await house.device(tags=["t"])
        away = await house.absent()
        batch = [
            app.request(
                "push",
                {"audience": {"registration_id": [away.id]}, "notification": HELLO, "options": {"time_to_live": 0}},
            )
            for _ in range(1_000)
        ]
        ids = []
        for _ in range(9):
            await app.say(batch)
            ids += [result_of(each)["msg_id"] for each in await app.hear()]
        follower = await house.app()
        await app.report(ids[-1])
        assert await follower.subscribe(after="0") == "0"
        frames = [await follower.hear_frame() for _ in range(3)]
        assert [len(each) for each in frames] == [4_000, 4_000, 1_000]
        events = [event for frame in frames for event in frame]
        assert [each["msg_id"] for each in events] == ids
        assert [each["cursor"] for each in events] == [str(number) for number in range(1, 9_001)]
        # A frame is under the 1 MiB that WebSocket libraries take.
        assert max(len(each) for each in follower.texts) < 1 << 20


@pytest.mark.parametrize("is_on_disk", [False, True], ids=["memory", "sqlite"])
async def test_thousands_that_are_overdue_at_once_are_told_once_each(tmp_path: Path, is_on_disk: bool) -> None:
    store: Store = SqliteStore(tmp_path / "store") if is_on_disk else MemoryStore()
    wall = Wall()
    async with serving(store=store, wall=wall) as house:
        app, follower = await house.app(), await house.app()
        aliases = [f"user-{number}" for number in range(1_000)]
        options = {"hold": True, "deliver_within": 30}
        ids = [(await app.push({"alias": aliases}, options=options))["msg_id"] for _ in range(5)]
        await app.report(ids[-1])
        await follower.subscribe(consumer="x")
        wall.forward(31)
        events = await follower.hear_receipts(5_000)
        assert len({(each["msg_id"], each["alias"]) for each in events}) == 5_000
        assert {each["reason"]["why"] for each in events} == {"unheld"}
        assert {each["msg_id"] for each in events} == set(ids)
        # All of them are recalled in one go.
        assert (await app.call("push.recall", msg_id=ids[0]))["recalled"] == 1_000
        events = await follower.hear_receipts(1_000)
        assert {each["alias"] for each in events} == set(aliases)
        assert {(each["msg_id"], each["event"]) for each in events} == {(ids[0], "recalled")}
        await follower.quiet()


# --- Ending ------------------------------------------------------------------------------------------------------


async def test_a_newer_subscription_displaces_an_older_one(house: House, app: AppServer) -> None:
    device, older, newer = await house.device(), await house.app(), await house.app()
    await older.subscribe(consumer="x")
    await receive(app, device, 2)
    first = await older.hear_receipts(2, acknowledges=False)
    await older.call("receipts.ack", cursor=first[0]["cursor"])
    assert await newer.subscribe(consumer="x") == first[0]["cursor"]
    assert await older.hear_note("receipts.ended") == {"reason": "displaced"}
    # The older one has no say any more; its connection is usable.
    for method, params in (("receipts.ack", {"cursor": first[1]["cursor"]}), ("receipts.unsubscribe", {})):
        refusal = await refused(older, method, **params)
        assert refusal.code == -32602
    assert await newer.hear_receipts(1, acknowledges=False) == first[1:]
    await receive(app, device)
    assert len(await newer.hear_receipts(1)) == 1
    await older.quiet()
    # And it may come again.
    assert await older.subscribe(consumer="x") == "3"
    assert await newer.hear_note("receipts.ended") == {"reason": "displaced"}
    await receive(app, device)
    assert len(await older.hear_receipts(1)) == 1
    await newer.quiet()


async def test_who_is_displaced_while_held_back_is_told(house: House, app: AppServer) -> None:
    device, older, newer = await house.device(), await house.app(), await house.app()
    await older.subscribe(consumer="x")
    await singly(app, older, device, 8)
    await receive(app, device)
    assert await newer.subscribe(consumer="x") == "0"
    assert await older.hear_note("receipts.ended") == {"reason": "displaced"}
    assert len(await newer.hear_receipts(9)) == 9


async def test_who_takes_turns_misses_nothing(house: House, app: AppServer) -> None:
    device, followers = await house.device(), [await house.app() for _ in range(2)]
    await followers[0].subscribe(consumer="x")
    heard: dict[str, str] = {}
    ids: list[str] = []
    for turn in range(10):
        ids += await receive(app, device, 2)
        events = await followers[turn % 2].hear_receipts(2 + (turn > 0), acknowledges=False)
        heard |= {each["cursor"]: each["msg_id"] for each in events}
        await followers[turn % 2].call("receipts.ack", cursor=events[-2]["cursor"])
        await followers[(turn + 1) % 2].subscribe(consumer="x")
        assert await followers[turn % 2].hear_note("receipts.ended") == {"reason": "displaced"}
    assert list(heard.values()) == ids


async def test_after_unsubscribing_nothing_comes_and_one_may_subscribe_again(house: House, app: AppServer) -> None:
    device, follower = await house.device(), await house.app()
    await follower.subscribe(consumer="x")
    assert await follower.call("receipts.unsubscribe") is None
    ids = await receive(app, device, 2)
    await follower.quiet()
    assert await follower.subscribe(consumer="x") == "0"
    assert [each["msg_id"] for each in await follower.hear_receipts(2)] == ids
    await follower.call("receipts.unsubscribe")
    assert await follower.subscribe(consumer="y") == "2"
    await receive(app, device)
    assert len(await follower.hear_receipts(1)) == 1
    await follower.quiet()


async def test_all_of_it_may_be_said_in_one_write(house: House, app: AppServer) -> None:
    await receive(app, await house.device(), 2)
    asked = []
    for _ in range(10):
        asked.append(app.request("receipts.subscribe", {"consumer": "x", "after": "0"}))
        asked.append(app.request("receipts.unsubscribe"))
    asked.append(app.request("receipts.subscribe", {"consumer": "x"}))
    await app.say(*asked)
    for each in asked:
        result_of(await app.answer_to(each))
    await app.call("receipts.unsubscribe")
    app.kept.clear()  # of those that lived a moment
    await app.quiet()


async def test_a_batch_may_have_all_of_it(house: House, app: AppServer) -> None:
    device = await house.device()
    await receive(app, device, 2)
    batch = [
        app.request("receipts.ack", {"cursor": "1"}),
        app.request("receipts.subscribe", {"consumer": "x"}),
        app.request("receipts.subscribe", {"consumer": "y"}),
        app.request("receipts.ack", {"cursor": "2"}),
        app.request("receipts.ack", {"cursor": "3"}),
        app.request("receipts.unsubscribe"),
        app.request("receipts.unsubscribe"),
        app.request("receipts.subscribe", {"consumer": "y"}),
    ]
    await app.say(batch)
    answers = await app.hear()
    assert [each["id"] for each in answers] == [each["id"] for each in batch]
    codes = [each["error"]["code"] if "error" in each else None for each in answers]
    assert codes == [-32602, None, -32602, None, -32602, None, -32602, None]
    await receive(app, device)
    assert len(await app.hear_receipts(1)) == 1


@pytest.mark.parametrize("goes", ["leave", "vanish", "reset"])
async def test_with_the_session_the_subscription_ends(house: House, app: AppServer, goes: str) -> None:
    device = await house.device()

    def followers() -> int:
        found = house.node._apps.find(app_key)
        assert found is not None
        return len(found.tenant.book.followers)

    app_key = house.apps[0].app_key
    for _ in range(3):
        follower = await house.app()
        await follower.subscribe(consumer="x")
        await receive(app, device)
        await follower.hear_receipts(1)
        assert followers() == 1
        await getattr(follower, goes)()
        await until(lambda: followers() == 0, "the end of the subscription")
    # Nobody is told of it: the next one begins where the last one was.
    assert await app.subscribe(consumer="x") == "3"
    await app.quiet()


async def test_when_the_server_stops_a_follower_is_closed_and_loses_nothing() -> None:
    disk = MemoryDisk()
    async with serving(store=MemoryStore(disk), drain_s=0) as house:
        app, device = await house.app(), await house.device()
        await app.subscribe(consumer="x")
        ids = await receive(app, device, 2)
        heard = await app.hear_receipts(2, acknowledges=False)
        await app.call("receipts.ack", cursor=heard[0]["cursor"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.node.stop)
            nursery.start_soon(device.hear_end)
            assert (await app.hear_end()).code == 1001
    async with serving(store=MemoryStore(disk)) as house:
        app = await house.app()
        assert await app.subscribe(consumer="x") == heard[0]["cursor"]
        assert [each["msg_id"] for each in await app.hear_receipts(1)] == ids[1:]


@pytest.mark.parametrize("is_on_disk", [False, True], ids=["memory", "sqlite"])
async def test_after_a_kill_a_consumer_resumes_and_cursors_go_on(tmp_path: Path, is_on_disk: bool) -> None:
    disk = MemoryDisk()

    def store() -> Store:
        return SqliteStore(tmp_path / "store") if is_on_disk else MemoryStore(disk)

    async with serving(store=store()) as house:
        app, device = await house.app(), await house.device()
        await app.subscribe(consumer="x")
        ids = await receive(app, device, 3)
        heard = await app.hear_receipts(3, acknowledges=False)
        await app.call("receipts.ack", cursor=heard[1]["cursor"])
    async with serving(store=store()) as house:
        app, pusher = await house.app(), await house.app()
        assert await app.subscribe(consumer="x") == heard[1]["cursor"]
        assert await app.hear_receipts(1) == heard[2:]
        device = await house.back(device)
        ids += await receive(pusher, device)
        [event] = await app.hear_receipts(1)
        assert (event["cursor"], event["msg_id"]) == ("4", ids[-1])
        await app.call("receipts.unsubscribe")
        await app.subscribe(after="0")
        assert [each["msg_id"] for each in await app.hear_receipts(4)] == ids


async def test_an_acknowledgement_is_answered_when_it_is_stored() -> None:
    disk = MemoryDisk()
    store = StubbornStore(disk)
    async with serving(store=store) as house:
        app, device = await house.app(), await house.device()
        await app.subscribe(consumer="x")
        await receive(app, device, 2)
        await app.hear_receipts(2, acknowledges=False)
        store.hold()
        await app.say(app.request("receipts.ack", {"cursor": "2"}))
        with trio.move_on_after(0.1):
            await app.hear()
        assert not app.kept
    async with serving(store=MemoryStore(disk)) as house:
        # Killed before it was answered: either is right, and here it was not stored.
        assert await (await house.app()).subscribe(consumer="x") == "0"


# --- What is cut off ---------------------------------------------------------------------------------------------


@pytest.fixture
def _sweeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "SWEEP_REST_S", 0.1)
    monkeypatch.setattr(upkeep, "SWEEP_PAUSE_S", 0.001)


async def until_oldest(app: AppServer, oldest: int) -> None:
    """That many were cut off."""
    while True:
        cursor = int(await app.subscribe(after="0"))
        await app.call("receipts.unsubscribe")
        if cursor == oldest - 1:
            app.kept.clear()
            return
        await trio.sleep(0.01)


@pytest.mark.usefixtures("_sweeping")
async def test_behind_what_is_cut_off_one_cannot_resume() -> None:
    async with serving(limits=Limits(receipts_kept=4)) as house:
        app, device, follower = await house.app(), await house.device(), await house.app()
        await follower.subscribe(consumer="x")
        await follower.leave()
        await receive(app, device, 10)
        await until_oldest(app, 7)
        for params in ({"consumer": "x"}, {"after": "3"}, {"after": "5"}, {"consumer": "y", "after": "5"}):
            refusal = await refused(app, "receipts.subscribe", **params)
            assert (refusal.code, refusal.name, refusal.oldest) == (1014, "cursor_gone", "7")
            assert refusal.path is None
        # Nothing has changed: "y" is new.
        assert await app.subscribe(consumer="y") == "10"
        await app.call("receipts.unsubscribe")
        # Right behind what is gone, nothing is missing.
        assert await app.subscribe(consumer="z", after="6") == "6"
        assert [each["cursor"] for each in await app.hear_receipts(4)] == ["7", "8", "9", "10"]
        await app.call("receipts.unsubscribe")
        # It may be moved to what there is.
        assert await app.subscribe(consumer="x", after="0") == "6"
        assert len(await app.hear_receipts(4)) == 4


@pytest.mark.usefixtures("_sweeping")
async def test_receipts_are_kept_ten_days() -> None:
    wall = Wall()
    async with serving(wall=wall) as house:
        app, device = await house.app(), await house.device()
        await receive(app, device, 3)
        wall.forward(9.9 * 86_400)
        assert await app.subscribe(after="0") == "0"
        await app.hear_receipts(3)
        await app.call("receipts.unsubscribe")
        wall.forward(0.2 * 86_400)
        await until_oldest(app, 4)
        refusal = await refused(app, "receipts.subscribe", after="2")
        assert refusal.code == 1014
        assert await app.subscribe(after="3") == "3"
        await receive(app, device)
        assert [each["cursor"] for each in await app.hear_receipts(1)] == ["4"]


@pytest.mark.usefixtures("_sweeping")
async def test_a_subscription_that_was_held_back_for_so_long_ends_by_that_name() -> None:
    async with serving(limits=Limits(receipts_kept=4)) as house:
        app, device, follower = await house.app(), await house.device(), await house.app()
        await follower.subscribe(consumer="x")
        cursors = await singly(app, follower, device, 8)
        await receive(app, device, 10)
        await until_oldest(app, 15)
        await follower.quiet()
        await follower.call("receipts.ack", cursor=cursors[-1])
        assert await follower.hear_note("receipts.ended") == {"reason": "cursor_gone"}
        assert (await refused(follower, "receipts.ack", cursor=cursors[-1])).code == -32602
        refusal = await refused(follower, "receipts.subscribe", consumer="x")
        assert (refusal.code, refusal.oldest) == (1014, "15")
        assert await follower.subscribe(consumer="x", after="0") == "14"
        assert len(await follower.hear_receipts(4)) == 4


@pytest.mark.usefixtures("_sweeping")
async def test_who_has_been_sent_everything_may_resume_though_all_of_it_is_cut_off() -> None:
    wall = Wall()
    async with serving(wall=wall) as house:
        app, device = await house.app(), await house.device()
        await app.subscribe(consumer="x")
        await receive(app, device, 3)
        await app.hear_receipts(3)
        wall.forward(11 * 86_400)
        other = await house.app()
        await until_oldest(other, 4)
        await receive(other, device)
        assert len(await app.hear_receipts(1)) == 1
        await app.call("receipts.unsubscribe")
        assert await app.subscribe(consumer="x") == "4"


# --- What is slow ------------------------------------------------------------------------------------------------


class SlowToTell(MemoryStore):
    """Its receipts can be held up."""

    def __init__(self, shared: MemoryDisk | None = None) -> None:
        super().__init__(shared)
        self.go_on = trio.Event()
        self.go_on.set()
        self.asked = 0

    async def receipts(self, app_no: AppNo, after: Cursor, limit: int) -> ReceiptPage:
        self.asked += 1
        page = await super().receipts(app_no, after, limit)
        await self.go_on.wait()
        return page


async def test_what_is_acknowledged_while_another_subscribes_is_not_taken_back() -> None:
    store = SlowToTell()
    async with serving(store=store) as house:
        app, device, older, newer = await house.app(), await house.device(), await house.app(), await house.app()
        await older.subscribe(consumer="x")
        await receive(app, device, 3)
        await older.hear_receipts(3, acknowledges=False)
        store.go_on = trio.Event()
        asked = newer.request("receipts.subscribe", {"consumer": "x"})
        known = store.asked
        await newer.say(asked)
        await until(lambda: store.asked > known)
        assert await older.call("receipts.ack", cursor="2") is None
        store.go_on.set()
        assert result_of(await newer.answer_to(asked)) == {"cursor": "2"}


async def test_unsubscribing_while_the_store_is_asked_ends_it_at_once() -> None:
    store = SlowToTell()
    async with serving(store=store) as house:
        app, device, follower = await house.app(), await house.device(), await house.app()
        await follower.subscribe(consumer="x")
        await follower.quiet()
        store.go_on = trio.Event()
        known = store.asked
        await receive(app, device)
        await until(lambda: store.asked > known)
        await follower.call("receipts.unsubscribe")
        store.go_on.set()
        await follower.quiet()
        assert await follower.subscribe(consumer="x") == "0"
        assert len(await follower.hear_receipts(1)) == 1


async def test_an_end_is_not_taken_for_that_of_the_next_subscription() -> None:
    # The older one's end is found while the store is slow; the next is answered on the same connection meanwhile.
    store = SlowToTell()
    async with serving(store=store) as house:
        app, device, older, newer = await house.app(), await house.device(), await house.app(), await house.app()
        await older.subscribe(consumer="x")
        await newer.subscribe(consumer="y")
        await newer.call("receipts.unsubscribe")
        await older.quiet()
        store.go_on = trio.Event()
        slow, known = store.go_on, store.asked
        await receive(app, device)
        await until(lambda: store.asked > known)  # the older one's page
        store.go_on = trio.Event()
        store.go_on.set()
        await newer.subscribe(consumer="x")  # displaces it
        again = older.request("receipts.subscribe", {"consumer": "z"})
        await older.say(again)
        answer = await older.answer_to(again)
        slow.set()
        heard = [each["method"] for each in older.kept]
        if "result" in answer:
            assert heard == ["receipts.ended"], "the end of the first must come before the answer to the second"
        else:
            assert answer["error"]["code"] == -32602


async def test_who_does_not_read_is_let_go_as_too_slow_and_loses_nothing() -> None:
    async with serving(heartbeat_s=0.5) as house:
        app = await house.app()
        away = await house.absent()
        batch = [
            app.request(
                "push",
                {"audience": {"registration_id": [away.id]}, "notification": HELLO, "options": {"time_to_live": 0}},
            )
            for _ in range(1_000)
        ]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app.stay)
            for _ in range(20):
                await app.say(batch)
                await app.hear()
            slow = AppServer(await house.stream("apps", is_narrow=True))
            await slow.knock("/app", basic(APP, SECRET))
            await slow.say(slow.request("receipts.subscribe", {"consumer": "x", "after": "0"}))
            # It reads nothing, and says that it lives.
            async with trio.open_nursery() as living:
                living.start_soon(slow.stay)
                await until(lambda: len(house.node._app_endpoint) == 1, "the end of the slow one")
                living.cancel_scope.cancel()
            await slow.vanish()
            follower = await house.app()
            nursery.start_soon(follower.stay)
            assert await follower.subscribe(consumer="x") == "0"
            assert len(await follower.hear_receipts(20_000)) == 20_000
            nursery.cancel_scope.cancel()


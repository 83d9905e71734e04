"""The course of one delivery as an app server is told it (`pushactors/edges/timelines.py`, `timeline`)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from pushactors.actors.tenant import Limits
from pushactors.node import wall_clock
from pushactors.stores.memory import MemoryDisk, MemoryStore
from pushactors.wire.ids import Millis
from tests.edges.serving import (
    HELLO,
    OTHER,
    OTHER_SECRET,
    AppServer,
    Device,
    House,
    Refusal,
    StubbornStore,
    Wall,
    serving,
    until,
)

NOBODY = "a" * 26


async def refusal_of(app: AppServer, **params: object) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        await app.call("timeline", **params)
    await app.call("tags.list")
    assert refusal.value.message.endswith(".")
    return refusal.value


async def course(
    app: AppServer, msg_id: str, device: Device | None = None, alias: str | None = None
) -> tuple[str, list[str]]:
    """The state, and the events with what they say beside their time: as `sent 1`, `struck recalled`. Checked."""
    named = {"alias": alias} if device is None else {"registration_id": device.id}
    told: dict[str, Any] = await app.call("timeline", msg_id=msg_id, **named)
    assert told.keys() == {"msg_id", "state", "events", *named}
    assert told["msg_id"] == msg_id
    assert named.items() <= told.items()
    words = []
    for each in told["events"]:
        extra = each.keys() - {"event", "at"}
        assert extra <= {"sent": {"visit"}, "acknowledged": {"visit"}, "struck": {"verdict"}}.get(each["event"], set())
        assert type(each["at"]) is int
        words.append(" ".join([each["event"], *(str(each[name]) for name in extra)]))
    times = [each["at"] for each in told["events"]]
    assert times[0] == min(times)
    assert times[2:] == sorted(times[2:]), told["events"]
    return told["state"], words


async def test_the_course_of_what_waits_is_sent_and_acknowledged(house: House, app: AppServer) -> None:
    device = await house.absent()
    msg_id = await app.push_alert("a", device)
    assert await course(app, msg_id, device) == ("waiting", ["accepted", "stored"])
    device = await house.back(device)
    await device.hear_message()
    assert await course(app, msg_id, device) == ("sent", ["accepted", "stored", "sent 2"])
    await device.note("received", msg_id=msg_id)
    await device.told()
    words = ["accepted", "stored", "sent 2", "acknowledged 2", "received"]
    assert await course(app, msg_id, device) == ("received", words)
    for mark in ("opened", "dismissed"):
        await device.note(mark, msg_id=msg_id)
    await device.told()
    assert await course(app, msg_id, device) == ("received", [*words, "opened", "dismissed"])


async def test_its_times_are_what_everybody_is_told(house: House, app: AppServer) -> None:
    device = await house.device()
    msg_id = await app.push_alert("a", device)
    message = await device.hear_message()
    on_the_wire = (await app.call("devices.get", registration_id=device.id))["mailbox"][0]
    told = await app.call("timeline", msg_id=msg_id, registration_id=device.id)
    at = {each["event"]: each["at"] for each in told["events"]}
    assert at["accepted"] == message["sent_at"]
    assert at["sent"] == on_the_wire["at"]
    assert at["accepted"] <= at["stored"] <= at["sent"]


async def test_each_visit_on_which_it_was_sent_is_told(house: House, app: AppServer) -> None:
    device = await house.device()
    msg_id = await app.push_alert("a", device)
    for _ in range(3):
        await device.hear_message()
        device = await house.back(device)
    await device.hear_message()
    words = ["accepted", "stored", "sent 1", "sent 2", "sent 3", "sent 4"]
    assert await course(app, msg_id, device) == ("sent", words)
    await device.leave()
    await app.until_absent(device)
    assert await course(app, msg_id, device) == ("waiting", words)
    device = await house.back(device)
    await device.hear_message()
    await device.note("dismissed", msg_id=msg_id)
    await device.told()
    state, told = await course(app, msg_id, device)
    assert (state, told) == ("received", [*words, "sent 5", "acknowledged 5", "received", "dismissed"])


class Stopped(Wall):
    """It stands still."""

    def __init__(self) -> None:
        super().__init__()
        self._now = wall_clock()

    def __call__(self) -> Millis:
        return Millis(self._now + self.ahead_ms)


async def test_what_a_crashed_visit_may_have_had_was_not_sent_before_it_was_accepted() -> None:
    disk, wall = MemoryDisk(), Stopped()
    async with serving(store=MemoryStore(disk), wall=wall) as house:
        app, device = await house.app(), await house.device()
        wall.forward(100)
        msg_id = await app.push_alert("a", device)
        await device.hear_message()
    async with serving(store=MemoryStore(disk), wall=wall) as house:
        # Whose first event is the earliest is checked there.
        state, words = await course(await house.app(), msg_id, device)
        assert (state, words[:2]) == ("waiting", ["accepted", "stored"])
        device = await house.back(device)
        await device.hear_message()
        await course(await house.app(), msg_id, device)


async def test_visits_are_counted_through_a_restart_and_a_crash_ends_one_that_may_have_had_it() -> None:
    disk, wall = MemoryDisk(), Stopped()
    async with serving(store=MemoryStore(disk), wall=wall) as house:
        app, device = await house.app(), await house.device()
        msg_id = await app.push_alert("a", device)
        await device.hear_message()
        settled = await app.push_alert("b", device)
        await device.hear_message()
        await device.note("opened", msg_id=settled)
        await device.told()
    async with serving(store=MemoryStore(disk), wall=wall) as house:
        app = await house.app()
        state, words = await course(app, msg_id, device)
        assert state == "waiting"
        # Killed within half a second, its sending was not written down: a visit may have been, or is known.
        assert words in (["accepted", "stored"], ["accepted", "stored", "sent"], ["accepted", "stored", "sent 1"])
        device = await house.back(device)
        await device.hear_message()
        state, words = await course(app, msg_id, device)
        assert state == "sent"
        assert words in (["accepted", "stored", "sent", "sent 2"], ["accepted", "stored", "sent 1", "sent 2"])
        words = ["accepted", "stored", "sent 1", "acknowledged 1", "received", "opened"]
        assert await course(app, settled, device) == ("received", words)


async def test_what_a_strike_and_the_end_of_its_visit_made_of_it(house: House, app: AppServer) -> None:
    device = await house.device(alias="A")
    recalled = await app.push_alert("a", device)
    replaced = await app.push_alert("b", device)
    fenced = (await app.push({"alias": ["A"]}))["msg_id"]
    acknowledged = await app.push_alert("d", device)
    for _ in range(4):
        await device.hear_message()
    await app.call("push.recall", msg_id=recalled)
    await app.call("push.recall", msg_id=acknowledged)
    newer = await app.push_alert("e", device, override_msg_id=replaced)
    await device.call("alias.set", alias="B")
    sent = ["accepted", "stored", "sent 1"]
    assert await course(app, recalled, device) == ("sent", [*sent, "struck recalled"])
    assert await course(app, replaced, device) == ("sent", [*sent, "struck replaced"])
    assert await course(app, fenced, device) == ("sent", [*sent, "struck fenced"])
    await device.note("opened", msg_id=acknowledged)
    await device.told()
    words = [*sent, "struck recalled", "acknowledged 1", "received", "opened"]
    assert await course(app, acknowledged, device) == ("received", words)
    await device.leave()
    await app.until_absent(device)
    assert await course(app, recalled, device) == ("recalled", [*sent, "struck recalled", "recalled"])
    assert await course(app, replaced, device) == ("replaced", [*sent, "struck replaced", "replaced"])
    assert await course(app, fenced, device) == ("fenced", [*sent, "struck fenced", "fenced"])
    assert (await course(app, newer, device))[0] == "waiting"


async def test_what_waited_and_went_is_told() -> None:
    wall = Wall()
    async with serving(limits=Limits(offline_limit=1), wall=wall) as house:
        app, device = await house.app(), await house.absent()
        await app.subscribe(consumer="x")
        overflowed = await app.push_alert("a", device)
        expiring = await app.push_alert("b", device, time_to_live=60, deliver_within=30)
        missed = await app.push_alert("c", device, time_to_live=0)
        await app.hear_receipts(2)
        assert await course(app, overflowed, device) == ("overflowed", ["accepted", "stored", "overflowed"])
        state, words = await course(app, missed, device)
        assert (state, words[0], words[-1]) == ("missed", "accepted", "missed")
        wall.forward(31)
        await app.hear_receipts(1)
        assert await course(app, expiring, device) == ("waiting", ["accepted", "stored", "overdue"])
        wall.forward(30)
        await app.hear_receipts(1)
        assert await course(app, expiring, device) == ("expired", ["accepted", "stored", "overdue", "expired"])


async def test_a_deleted_devices_deliveries_are_still_known(house: House, app: AppServer) -> None:
    device = await house.device()
    received, missed = await app.push_alert("a", device), await app.push_alert("b", device)
    await device.hear_message()
    await device.hear_message()
    await device.note("received", msg_id=received)
    await device.told()
    await app.call("devices.delete", registration_id=device.id)
    words = ["accepted", "stored", "sent 1"]
    assert await course(app, received, device) == ("received", [*words, "acknowledged 1", "received"])
    assert await course(app, missed, device) == ("missed", [*words, "missed"])


async def test_the_course_of_what_is_held(house: House, app: AppServer) -> None:
    msg_id = (await app.push({"alias": ["U"]}, options={"hold": True}))["msg_id"]
    state, words = await course(app, msg_id, alias="U")
    assert (state, words) in (("waiting", ["accepted", "stored"]), ("waiting", ["accepted", "stored", "held"]))
    device = await house.device(alias="U")
    await device.hear_message()
    state, [*before, bound, sent] = await course(app, msg_id, device)
    assert (state, before, bound, sent) == ("sent", words, "bound", "sent 1")
    # It does not wait for the alias any more.
    assert (await refusal_of(app, msg_id=msg_id, alias="U")).code == 1013
    await device.call("alias.set", alias="V")
    assert (await course(app, msg_id, device))[1][-1] == "struck fenced"
    await device.note("declined", msg_id=msg_id)
    await device.told()
    assert (await refusal_of(app, msg_id=msg_id, registration_id=device.id)).code == 1013
    state, again = await course(app, msg_id, alias="U")
    assert state == "waiting"
    assert again == [*words, "bound", "sent 1", "struck fenced", "held"]
    await device.call("alias.set", alias="U")
    await device.hear_message()
    await device.note("received", msg_id=msg_id)
    await device.told()
    state, told = await course(app, msg_id, device)
    assert state == "received"
    assert told == [*again, "bound", "sent 1", "acknowledged 1", "received"]


async def test_of_what_is_held_and_settled_the_end_is_told() -> None:
    wall = Wall()
    async with serving(wall=wall) as house:
        app = await house.app()
        await app.subscribe(consumer="x")
        recalled = (await app.push({"alias": ["U"]}, options={"hold": True}))["msg_id"]
        overdue = (await app.push({"alias": ["U"]}, options={"hold": True, "deliver_within": 5}))["msg_id"]
        await app.call("push.recall", msg_id=recalled)
        state, words = await course(app, recalled, alias="U")
        assert (state, words[-1]) == ("recalled", "recalled")
        wall.forward(6)
        await app.hear_receipts(2)
        state, words = await course(app, overdue, alias="U")
        assert (state, words[-1]) == ("waiting", "overdue")


# --- While the disk is slow --------------------------------------------------------------------------------------


async def test_what_is_acknowledged_and_not_on_disk_is_never_told_as_waiting() -> None:
    # The report of that instant says "sent" (C1).
    store = StubbornStore()
    async with serving(store=store) as house:
        app, device, other = await house.app(), await house.device(), await house.app(OTHER, OTHER_SECRET)
        await house.device(app_key=OTHER)
        msg_id = await app.push_alert("a", device)
        await device.hear_message()
        # Another app's commit is under way: what this one asks is answered behind it.
        store.hold()
        await other.say(other.request("push", {"audience": "all", "notification": HELLO}))
        await until(lambda: house.rows_ahead(OTHER) > 0)
        questions = [
            app.request("timeline", {"msg_id": msg_id, "registration_id": device.id}),
            app.request("status", {"msg_id": msg_id, "registration_ids": [device.id]}),
            app.request("report", {"msg_ids": [msg_id]}),
        ]
        # Each on a connection of its own: one connection's questions are asked one after another.
        askers = [await house.app() for _ in questions]
        for asker, question in zip(askers, questions, strict=True):
            await asker.say(question)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await device.note("received", msg_id=msg_id)
        await until(lambda: house.rows_ahead() > 0)
        store.go_on()
        told, statuses, [report] = [
            (await asker.answer_to(question))["result"] for asker, question in zip(askers, questions, strict=True)
        ]
        assert (statuses[device.id]["state"], report["sent"]) == ("sent", 1)
        # A timeline waits for what is known here to be on disk, and has all of it.
        assert told["state"] == "received", told
        assert [each["event"] for each in told["events"]] == ["accepted", "stored", "sent", "acknowledged", "received"]


async def test_what_is_held_is_told_as_sent_though_it_was_on_another_devices_first_visit(
    house: House, app: AppServer
) -> None:
    one = await house.device(alias="U")
    msg_id = (await app.push({"alias": ["U"]}, options={"hold": True}))["msg_id"]
    await one.hear_message()
    await one.call("alias.set", alias="")
    await one.note("declined", msg_id=msg_id)
    await one.told()
    other = await house.device(alias="U")
    await other.hear_message()
    words = ["accepted", "stored", "sent 1", "struck fenced", "held", "bound", "sent 1"]
    assert await course(app, msg_id, other) == ("sent", words)
    await other.note("received", msg_id=msg_id)
    await other.told()
    assert await course(app, msg_id, other) == ("received", [*words, "acknowledged 1", "received"])


async def test_while_the_device_acknowledges_no_timeline_says_that_it_waits() -> None:
    async with serving() as house:
        app, device, other = await house.app(), await house.device(), await house.app()
        ids = [await app.push_alert(str(number), device) for number in range(40)]
        await device.hear_alerts(40)
        seen: set[str] = set()

        for msg_id in ids:
            requests = [other.request("timeline", {"msg_id": each, "registration_id": device.id}) for each in ids]
            await other.say(*requests)
            await device.note("opened", msg_id=msg_id)
            for request in requests:
                told = (await other.answer_to(request))["result"]
                seen.add(told["state"])
                assert "sent" in [event["event"] for event in told["events"]], told
        assert seen <= {"sent", "received"}, seen


# --- Refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "path"),
    [({}, "msg_id"), ({"registration_id": NOBODY}, "msg_id"), ({"msg_id": "1"}, "registration_id"),
     ({"msg_id": "1", "registration_id": NOBODY, "alias": "A"}, "registration_id"),
     ({"msg_id": 1, "alias": "A"}, "msg_id"), ({"msg_id": "01", "alias": "A"}, "msg_id"),
     ({"msg_id": "x", "alias": "A"}, "msg_id"), ({"msg_id": "1", "alias": ""}, "alias"),
     ({"msg_id": "1", "alias": "a b"}, "alias"), ({"msg_id": "1", "alias": None}, "alias"),
     ({"msg_id": "1", "alias": "A", "registration_id": None}, "registration_id"),
     ({"msg_id": "1", "registration_id": ""}, "registration_id"),
     ({"msg_id": "1", "registration_id": "x" * 65}, "registration_id"),
     ({"msg_id": "1", "alias": "A", "limit": 5}, "limit")],
)  # fmt: skip
async def test_a_question_that_is_wrong_is_refused(app: AppServer, params: dict[str, Any], path: str) -> None:
    refusal = await refusal_of(app, **params)
    assert (refusal.code, refusal.name, refusal.path) == (-32602, "invalid_params", path)


async def test_who_was_no_target_has_no_timeline(house: House, app: AppServer) -> None:
    one, other = await house.device(alias="A"), await house.device()
    msg_id = await app.push_alert("a", one)
    held = (await app.push({"alias": ["U"]}, options={"hold": True}))["msg_id"]
    cases = [(msg_id, {"registration_id": other.id}), ("999999", {"registration_id": one.id}),
             (msg_id, {"alias": "A"}), (msg_id, {"alias": "U"}), (held, {"alias": "A"}), (held, {"alias": "nobody"}),
             (held, {"registration_id": one.id}), ("999999", {"alias": "U"})]  # fmt: skip
    for asked, named in cases:
        refusal = await refusal_of(app, msg_id=asked, **named)
        assert (refusal.code, refusal.name) == (1013, "no_such_message"), (asked, named)


async def test_an_unknown_device_is_named(house: House, app: AppServer) -> None:
    theirs = await house.device(app_key=OTHER)
    msg_id = await app.push_alert("a", await house.device())
    await app.push({"alias": ["U"]}, options={"hold": True})
    made_up = [f"alias {number}" for number in range(10)]
    for registration_id in (NOBODY, theirs.id, *made_up):
        refusal = await refusal_of(app, msg_id=msg_id, registration_id=registration_id)
        assert (refusal.code, refusal.name) == (1010, "no_such_device")


async def test_another_apps_are_unknown(house: House, app: AppServer) -> None:
    other = await house.app(OTHER, OTHER_SECRET)
    mine, theirs = await house.device(), await house.device(app_key=OTHER)
    msg_id = await app.push_alert("a", mine)
    held = (await app.push({"alias": ["U"]}, options={"hold": True}))["msg_id"]
    assert (await refusal_of(other, msg_id=msg_id, registration_id=theirs.id)).code == 1013
    assert (await refusal_of(other, msg_id=msg_id, registration_id=mine.id)).code == 1010
    assert (await refusal_of(other, msg_id=held, alias="U")).code == 1013

"""The node: how it opens and closes, what survives a restart, what makes it fall, and apps that come and go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from pushactors.actors import unit
from pushactors.actors.tenant import Limits
from pushactors.edges import devices
from pushactors.errors import StoreBusy, StoreFailure, StoreUnusable
from pushactors.node import STARTS_AGAIN, AppPlan
from pushactors.stores.contract import Change, DeviceRow, Opened, Store
from pushactors.stores.memory import MemoryDisk, MemoryStore
from pushactors.stores.sqlite import SqliteStore
from pushactors.wire.ids import AppKey, AppNo, DeviceNo
from tests.edges.serving import (
    APP,
    HELLO,
    LIMIT_S,
    OTHER,
    OTHER_SECRET,
    SECRET,
    AppServer,
    Device,
    House,
    Refusal,
    StubbornStore,
    Wall,
    a_house,
    adding_up,
    app_plans,
    basic,
    result_of,
    serving,
    until,
    until_true,
)

THIRD = AppPlan(AppKey("third"), ("secret-of-the-third",), Limits())


@asynccontextmanager
async def stopping(house: House) -> AsyncIterator[trio.Event]:
    """The node stops meanwhile; set when it has."""
    stopped = trio.Event()

    async def stop() -> None:
        await house.node.stop()
        stopped.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop)
        await until(lambda: not house.node.is_ready)
        yield stopped
        with trio.fail_after(LIMIT_S):
            await stopped.wait()


# --- Opening -----------------------------------------------------------------------------------------------------


class SlowToRead(MemoryStore):
    """Its devices come when they are let."""

    def __init__(self, shared: MemoryDisk | None = None) -> None:
        super().__init__(shared)
        self.may_read = trio.Event()
        self.is_reading = trio.Event()

    async def devices(self, app_no: AppNo, after: DeviceNo, limit: int) -> Sequence[DeviceRow]:
        self.is_reading.set()
        await self.may_read.wait()
        return await super().devices(app_no, after, limit)


async def test_a_node_that_has_started_is_ready() -> None:
    async with serving() as house:
        assert house.node.is_ready
        assert await house.get("/readyz") == (200, "ready\n")


async def test_nobody_is_let_in_before_everything_behind_the_door_stands() -> None:
    store = SlowToRead()
    house = a_house(store=store)
    async with trio.open_nursery() as nursery:
        started = trio.Event()

        async def start() -> None:
            await nursery.start(house.node.run, house.apps)
            started.set()

        nursery.start_soon(start)
        await store.is_reading.wait()
        # Whoever comes early waits, and is served then.
        early = Device(await house.stream())
        with trio.move_on_after(0.2):
            await early.knock("/device")
        assert early.status == 0
        assert not house.node.is_ready
        assert not started.is_set()
        store.may_read.set()
        await early.hear_head()
        assert early.status == 101
        assert (await early.connect(app_key=APP))["registration_id"]
        await until(started.is_set)
        await house.empty()
        nursery.cancel_scope.cancel()


async def test_while_it_starts_operators_are_told_that_it_turns_and_is_not_ready() -> None:
    # A directory of millions takes its time, and who asks whether the process lives must not restart it meanwhile.
    store = SlowToRead()
    house = a_house(store=store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.node.run, house.apps)
        await store.is_reading.wait()
        answers: list[int] = []
        with trio.move_on_after(1):
            answers += [(await house.get("/healthz"))[0], (await house.get("/readyz"))[0]]
        store.may_read.set()
        await house.empty()
        nursery.cancel_scope.cancel()
    house.shut()
    assert answers == [200, 503]


# --- Closing -----------------------------------------------------------------------------------------------------


async def test_a_node_that_nobody_visits_stops_at_once() -> None:
    async with serving() as house, stopping(house) as stopped:
        with trio.fail_after(2):
            await stopped.wait()


async def test_visits_end_with_a_word_of_when_to_come_back_each_at_another_moment() -> None:
    async with serving(drain_s=10) as house:
        visits = [await house.device() for _ in range(5)]
        async with stopping(house):
            partings = [await visit.hear_goodbye() for visit in visits]
        assert {(reason, code) for reason, _, code in partings} == {("drain", 1001)}
        moments = [retry_after for _, retry_after, _ in partings if retry_after is not None]
        assert len(set(moments)) == 5
        assert max(moments) - min(moments) >= 5
        assert min(moments) >= 1
        assert max(moments) <= 15


async def test_many_visits_end_over_the_time_that_was_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "DRAINED_AT_ONCE", 2)
    async with serving(drain_s=1) as house:
        visits = [await house.device() for _ in range(8)]
        began = trio.current_time()
        ends: list[float] = []

        async def follow(visit: Device) -> None:
            await visit.hear_goodbye()
            ends.append(trio.current_time() - began)

        async with stopping(house), trio.open_nursery() as nursery:
            for visit in visits:
                nursery.start_soon(follow, visit)
        assert ends[1] < 0.4
        assert 0.5 < ends[-1] < 3


async def test_nobody_is_let_in_while_it_stops_and_operators_are_told() -> None:
    async with serving(drain_s=0) as house:
        stays = await house.device()
        # A peer that does not close holds the drain up for the length of a farewell.
        async with stopping(house):
            for door in ("devices", "apps"):
                with pytest.raises(OSError, match="refused"):
                    await house.stream(door)
            assert await house.get("/readyz") == (503, "not ready\n")
            assert (await house.get("/healthz"))[0] == 200
            await stays.hear_end()


async def test_app_servers_are_answered_and_then_closed() -> None:
    store = StubbornStore()
    async with serving(store=store, drain_s=0) as house:
        app, device = await house.app(), await house.device()
        store.hold()
        push = app.request("push", {"audience": "all", "notification": HELLO})
        change = device.request("alias.set", {"alias": "A"})
        await app.say(push)
        await device.say(change)
        await trio.testing.wait_all_tasks_blocked(0.05)
        async with stopping(house):
            store.go_on()
            assert result_of(await device.answer_to(change))["alias"] == "A"
            assert (await device.hear_goodbye())[2] == 1001
            assert result_of(await app.answer_to(push))["targets"] == 1
            assert (await app.hear_end()).code == 1001


async def test_what_was_decided_is_durable_when_it_has_stopped() -> None:
    disk = MemoryDisk()
    async with serving(store=MemoryStore(disk), drain_s=0) as house:
        app, device = await house.app(), await house.device(alias="A")
        ids = [await app.push_alert(str(number), device) for number in range(3)]
        await device.hear_alerts(3)
        flying = await app.push("all", options={"time_to_live": 0})
        await device.hear_message()
        await device.note("received", msg_id=ids[0])
        async with stopping(house):
            await device.hear_end()
            await app.hear_end()
    async with serving(store=MemoryStore(disk)) as house:
        app = await house.app()
        assert (await app.report(ids[0]))["received"] == 1
        assert (await app.report(flying["msg_id"]))["missed"] == 1
        device = await house.back(device)
        assert await device.hear_alerts(2) == ["1", "2"]


async def test_a_stranger_cannot_hold_up_the_end() -> None:
    async with serving(drain_s=0, connect_timeout_s=30) as house:
        await house.stream("devices")
        await house.stream("apps")
        await house.visitor()
        app = await house.app()
        deaf = await house.device()
        with trio.fail_after(8):
            async with stopping(house):
                pass
        assert app
        assert deaf


async def test_the_store_is_let_go_when_it_has_stopped() -> None:
    class Watched(MemoryStore):
        is_closed = False

        async def aclose(self) -> None:
            await super().aclose()
            self.is_closed = True

    store = Watched()
    async with serving(store=store) as house:
        async with stopping(house):
            pass
        await until(lambda: store.is_closed)
    again = Watched()
    async with serving(store=again):
        assert not again.is_closed
    assert again.is_closed


# --- Coming again (C2) -------------------------------------------------------------------------------------------


async def everything(app: AppServer) -> dict[str, Any]:
    """What an app server can ask about."""
    listed = (await app.call("devices.list"))["devices"]
    return {
        "devices": [{**each, "online": None, "last_seen_at": None} for each in listed],
        "tags": await app.call("tags.list"),
        "aliases": {name: await app.call("aliases.get", alias=name) for name in "AB"},
        "pushes": [
            {**push, "waiting": push["waiting"] + push["sent"], "sent": 0}
            for push in (await app.call("pushes.list"))["pushes"]
        ],
        "mailboxes": {
            each["registration_id"]: [
                entry["msg_id"]
                for entry in (await app.call("devices.get", registration_id=each["registration_id"]))["mailbox"]
            ]
            for each in listed
        },
    }


@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "stopped"])
async def test_a_restart_on_the_same_disk_finds_everything(is_killed: bool) -> None:
    disk, wall = MemoryDisk(), Wall()
    async with serving(store=MemoryStore(disk), wall=wall, drain_s=0) as house:
        app = await house.app()
        here = await house.device(alias="A", tags=["x", "y"], platform="ios", install_key="an-install-key")
        away = await house.absent(alias="B", tags=["y"])
        deleted = await house.device()
        other = await house.device(app_key=OTHER, alias="A")
        first = await app.push({"tag": ["y"]}, cid="c", options={"sendno": 7})
        for number in range(3):
            await app.push({"alias": ["A", "B"]}, notification={"alert": str(number)})
        for _ in range(4):
            await here.hear_message()
        await here.note("opened", msg_id=first["msg_id"])
        await here.told()
        await deleted.call("unregister")
        before = await everything(app)
        if not is_killed:
            async with stopping(house):
                for peer in (here, other, app, deleted):
                    await peer.hear_end()
    async with serving(store=MemoryStore(disk), wall=wall) as house:
        app = await house.app()
        assert await everything(app) == before
        # The same push is still the same push, and numbers go on.
        assert await app.push({"tag": ["y"]}, cid="c", options={"sendno": 7}) == first
        with pytest.raises(Refusal):
            await app.push("all", cid="c")
        newest = before["pushes"][0]["msg_id"]
        after = await app.push({"alias": ["B"]}, notification={"alert": "after"})
        assert int(after["msg_id"]) > int(newest)
        # Credentials are good, mailboxes come in order, and nobody has moved between apps.
        again = await house.device(install_key="an-install-key")
        assert (again.id, again.secret) == (here.id, here.secret)
        assert await again.hear_alerts(3) == ["0", "1", "2"]
        again = await house.back(here)
        assert again.welcome["alias"] == "A"
        away = await house.back(away)
        assert await away.hear_alerts(5) == ["hello", "0", "1", "2", "after"]
        with pytest.raises(Refusal) as refusal:
            await house.back(deleted)
        assert refusal.value.code == 1010
        assert (await house.back(other, app_key=OTHER)).welcome["alias"] == "A"


@pytest.mark.parametrize("is_on_disk", [False, True], ids=["memory", "sqlite"])
async def test_after_a_kill_what_is_held_recalled_and_overdue_goes_on(tmp_path: Path, is_on_disk: bool) -> None:
    disk, wall = MemoryDisk(), Wall()

    def store() -> Store:
        return SqliteStore(tmp_path / "store") if is_on_disk else MemoryStore(disk)

    async with serving(store=store(), wall=wall) as house:
        app = await house.app()
        await app.subscribe(consumer="x")
        device, user = await house.device(), await house.device(alias="W")
        held = [
            (await app.push({"alias": ["U"]}, notification={"alert": str(each)}, options={"hold": True}))["msg_id"]
            for each in range(2)
        ]
        with_user = (await app.push({"alias": ["W"]}, options={"hold": True}))["msg_id"]
        await user.hear_message()
        await user.call("alias.set", alias="")  # struck, on the wire
        received = await app.push_alert("received", device)
        await device.hear_message()
        await device.note("received", msg_id=received)
        await device.told()
        struck = await app.push_alert("struck", device)
        await device.hear_message()
        for msg_id in (received, struck):
            await app.call("push.recall", msg_id=msg_id)
        late = (await app.push({"alias": ["L"]}, options={"hold": True, "deliver_within": 60}))["msg_id"]
    wall.forward(61)
    async with serving(store=store(), wall=wall) as house:
        app = await house.app()
        assert await app.subscribe(consumer="x") == "0"
        events = await app.hear_receipts(3)
        assert {(each["msg_id"], each["event"]) for each in events} == {
            (received, "received"), (struck, "recalled"), (late, "overdue")
        }  # fmt: skip
        # The binding of what was on the user's wire had ended: it waits for the user again.
        assert (await app.report(with_user))["waiting"] == 1
        user = await house.back(user, alias="W")
        assert (await user.hear_message())["msg_id"] == with_user
        back = await house.back(device, alias="U")
        assert [(await back.hear_note("recall"))["msg_id"] for _ in range(2)] == [received, struck]
        assert [(await back.hear_message())["msg_id"] for _ in range(2)] == held
        await back.quiet()


async def test_an_app_that_is_no_longer_served_ends_its_followers_and_they_lose_nothing() -> None:
    async with serving() as house:
        app, device = await house.app(), await house.device()
        await app.subscribe(consumer="x")
        msg_id = await app.push_alert("a", device)
        await device.hear_message()
        plans = app_plans()
        await house.node.serve_apps(plans[1:])
        assert (await app.hear_end()).code == 4501
        await device.hear_end()
        await house.node.serve_apps(plans)
        app, device = await house.app(), await house.back(device)
        assert await app.subscribe(consumer="x") == "0"
        await device.hear_message()
        await device.note("opened", msg_id=msg_id)
        await device.told()
        assert [each["event"] for each in await app.hear_receipts(2)] == ["received", "opened"]


async def test_after_a_restart_nobody_is_here_and_the_time_of_leaving_is_known() -> None:
    disk = MemoryDisk()
    async with serving(store=MemoryStore(disk)) as house:
        device = await house.device()
    async with serving(store=MemoryStore(disk)) as house:
        app = await house.app()
        presence = (await app.call("presence", registration_ids=[device.id]))[device.id]
        assert not presence["online"]
        assert abs(presence["last_seen_at"] - house.wall()) < 60_000


async def test_deliveries_that_a_crash_has_ended_are_settled_at_the_start() -> None:
    disk = MemoryDisk()
    async with serving(store=MemoryStore(disk)) as house:
        app, device = await house.app(), await house.device(alias="A")
        flying = (await app.push("all", options={"time_to_live": 0}))["msg_id"]
        replaced = (await app.push("all"))["msg_id"]
        fenced = (await app.push({"alias": ["A"]}))["msg_id"]
        both = (await app.push({"alias": ["A"]}))["msg_id"]
        kept = (await app.push("all"))["msg_id"]
        for _ in range(5):
            await device.hear_message()
        await app.push("all", options={"override_msg_id": replaced})
        await app.push("all", options={"override_msg_id": both})
        await device.call("alias.set", alias="B")
        assert [await app.state(each, device) for each in (flying, replaced, fenced, both, kept)] == ["sent"] * 5
    async with serving(store=MemoryStore(disk)) as house:
        app = await house.app()
        states = [await app.state(each, device) for each in (flying, replaced, fenced, both, kept)]
        # The first strike counts (C3); the unstruck one waits again.
        assert states == ["missed", "replaced", "fenced", "replaced", "waiting"]
        for push in (await app.call("pushes.list"))["pushes"]:
            adding_up(push)
        assert (await house.back(device)).welcome["waiting"] == 3


async def test_what_ran_out_while_the_server_was_down_has_expired_soon_after_the_start() -> None:
    disk, wall = MemoryDisk(), Wall()
    async with serving(store=MemoryStore(disk), wall=wall) as house:
        app, device = await house.app(), await house.absent()
        short = await app.push("all", options={"time_to_live": 60})
        await app.push("all")
    wall.forward(100)
    async with serving(store=MemoryStore(disk), wall=wall) as house:
        app = await house.app()
        await app.until_state(short["msg_id"], device, "expired")
        device = await house.back(device)
        assert device.welcome["waiting"] == 1


async def test_numbers_are_never_given_twice_even_if_nothing_of_them_was_stored() -> None:
    disk = MemoryDisk()
    seen: list[int] = []
    for _ in range(3):
        async with serving(store=MemoryStore(disk)) as house:
            app, device = await house.app(), await house.device()
            for _ in range(3):
                seen.append(int((await app.push("all", options={"time_to_live": 0}))["msg_id"]))
            assert device
    assert seen == sorted(set(seen))


# --- Falling -----------------------------------------------------------------------------------------------------


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    return [error]


async def falls(house: House) -> list[BaseException]:
    """What the node falls over; it must fall."""
    with trio.fail_after(LIMIT_S):
        try:
            await house.node.run(house.apps)
        except BaseExceptionGroup as group:
            return leaves(group)
        except StoreFailure as failure:
            return [failure]
    raise AssertionError("the node did not fall")


async def test_a_store_that_cannot_be_opened_is_the_end_before_the_beginning() -> None:
    class Unusable(MemoryStore):
        async def open(self) -> Opened:
            raise StoreUnusable("The test has broken this store.")

    house = a_house(store=Unusable())
    assert [type(each) for each in await falls(house)] == [StoreUnusable]
    house.shut()


async def test_a_store_that_fails_is_the_end_and_nobody_is_told_what_is_not_durable() -> None:
    store = StubbornStore()
    house = a_house(store=store)
    fallen: list[BaseException] = []

    async def run(task_status: trio.TaskStatus[None]) -> None:
        try:
            await house.node.run(house.apps, task_status=task_status)
        except BaseExceptionGroup as group:
            fallen.extend(leaves(group))

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        app, device = await house.app(), await house.device()
        store.is_broken = True
        await app.say(app.request("push", {"audience": "all", "notification": HELLO}))
        await app.hear_end()
        await device.hear_end()
        await until(lambda: bool(fallen))
        await house.empty()
    assert not app.texts
    assert device.texts[1:] == []
    assert [type(each) for each in fallen] == [StoreUnusable]
    assert not house.node.is_ready


async def test_who_takes_the_store_over_ends_who_had_it() -> None:
    disk = MemoryDisk()
    old = a_house(store=MemoryStore(disk))
    fallen: list[BaseException] = []

    async def run(task_status: trio.TaskStatus[None]) -> None:
        try:
            await old.node.run(old.apps, task_status=task_status)
        except BaseExceptionGroup as group:
            fallen.extend(leaves(group))

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        app, device = await old.app(), await old.device()
        async with serving(store=MemoryStore(disk)) as new:
            await app.say(app.request("push", {"audience": "all", "notification": HELLO}))
            await until(lambda: bool(fallen))
            assert not app.texts
            assert len(device.texts) == 1
            assert (await new.back(device)).welcome["waiting"] == 0
        await old.empty()
    assert all(isinstance(each, StoreFailure) for each in fallen)


async def test_a_store_that_does_not_answer_at_once_is_asked_again() -> None:
    class Busy(MemoryStore):
        left = 0

        async def commit(self, number: int, changes: Sequence[Change]) -> int:
            done = await super().commit(number, changes)
            if self.left:
                self.left -= 1
                raise StoreBusy("the answer was lost")
            return done

    store = Busy()
    async with serving(store=store) as house:
        app, device = await house.app(), await house.device()
        store.left = 3
        pushed = await app.push("all")
        assert (await device.hear_message())["msg_id"] == pushed["msg_id"]
        assert (await app.report(pushed["msg_id"]))["targets"] == 1


class Faulty(MemoryStore):
    """Its commits fail in a way that is nobody's plan."""

    def __init__(self) -> None:
        super().__init__()
        self.faults = 0

    async def commit(self, number: int, changes: Sequence[Change]) -> int:
        if self.faults:
            self.faults -= 1
            raise ZeroDivisionError("a fault of ours")
        return await super().commit(number, changes)


async def test_a_fault_of_ours_in_the_ledger_starts_it_again_and_nothing_is_lost() -> None:
    store = Faulty()
    async with serving(store=store) as house:
        app, device = await house.app(), await house.device()
        store.faults = STARTS_AGAIN
        pushed = await app.push("all")
        assert (await device.hear_message())["msg_id"] == pushed["msg_id"]
        assert house.node.tally.read("faults", "ledger") == STARTS_AGAIN


async def test_what_starting_again_does_not_mend_is_the_end() -> None:
    store = Faulty()
    store.faults = STARTS_AGAIN + 1
    house = a_house(store=store)
    assert [type(each) for each in await falls(house)] == [ZeroDivisionError]
    house.shut()


# --- Apps that come, go and change -------------------------------------------------------------------------------


async def undisturbed(house: House, device: Device, app: AppServer) -> None:
    """These two have noticed nothing."""
    pushed = await app.push({"registration_id": [device.id]})
    while (await device.hear_message())["msg_id"] != pushed["msg_id"]:
        pass
    await device.quiet()


async def test_an_app_may_come_while_the_server_runs() -> None:
    async with serving() as house:
        device, app = await house.device(), await house.app()
        with pytest.raises(Refusal) as refusal:
            await house.device(app_key=THIRD.app_key)
        assert refusal.value.code == 1008
        await house.node.serve_apps([*house.apps, THIRD])
        newcomer = await house.device(app_key=THIRD.app_key)
        third = await house.app(THIRD.app_key, THIRD.secrets[0])
        assert (await third.push("all"))["targets"] == 1
        await newcomer.hear_message()
        await undisturbed(house, device, app)


async def test_an_app_may_go_and_its_visits_and_sessions_end() -> None:
    async with serving() as house:
        device, app = await house.device(), await house.app()
        gone = [await house.device(app_key=OTHER) for _ in range(2)]
        other = await house.app(OTHER, OTHER_SECRET)
        await other.ping()
        await house.node.serve_apps(app_plans()[:1])
        for each in gone:
            assert await each.hear_goodbye() == ("unauthorized", None, 4501)
        assert (await other.hear_end()).code == 4501
        with pytest.raises(Refusal) as refusal:
            await house.back(gone[0], app_key=OTHER)
        assert refusal.value.code == 1008
        assert (await house.knock("apps", "/app", basic(OTHER, OTHER_SECRET))).status == 401
        await undisturbed(house, device, app)
        assert [name for name in house.node._now() if name == "registered_devices"]
        assert house.node._now()["registered_devices"] == 1


async def test_who_is_just_coming_in_when_its_app_goes_is_let_go() -> None:
    async with serving() as house:
        for _ in range(5):
            other = await house.app(OTHER, OTHER_SECRET)
            # Answered, and not yet begun.
            await house.node.serve_apps(app_plans()[:1])
            with trio.move_on_after(1) as limit:
                assert (await other.hear_end()).code == 4501
            assert not limit.cancelled_caught, "a session of an app that is not served any more goes on"
            await house.node.serve_apps(app_plans())


async def test_who_waits_for_the_disk_when_its_app_goes_gets_no_visit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit, "ROWS_DECIDED_AHEAD", 0)
    store = StubbornStore()
    async with serving(store=store) as house:
        device, visitor = await house.device(app_key=OTHER), await house.visitor()
        store.hold()
        # Too much is decided and not yet durable: the edges stop reading.
        await device.say(device.request("alias.set", {"alias": "A"}))
        await until(lambda: house.rows_ahead(OTHER) > 0)
        await visitor.say(visitor.request("connect", {"app_key": OTHER}))
        await trio.testing.wait_all_tasks_blocked(0.05)
        await house.node.serve_apps(app_plans()[:1])
        store.go_on()
        with trio.move_on_after(2) as limit:
            assert (await visitor.hear_end()).code == 4501
        assert not limit.cancelled_caught, "a visit of an app that is not served any more has begun"


async def test_who_is_just_coming_in_when_the_server_stops_does_not_hold_it_up() -> None:
    async with serving(drain_s=0) as house:
        app = await house.app()
        with trio.fail_after(4):
            async with stopping(house):
                await app.hear_end()


async def test_an_app_that_comes_back_has_everything_that_it_had() -> None:
    async with serving() as house:
        other = await house.app(OTHER, OTHER_SECRET)
        away = await house.absent(app_key=OTHER, alias="A", tags=["x"])
        waiting = await other.push("all", notification={"alert": "waiting"})
        short = await other.push("all", options={"time_to_live": 60})
        await house.node.serve_apps(app_plans()[:1])
        await other.hear_end()
        house.wall.forward(100)
        await house.node.serve_apps(app_plans())
        other = await house.app(OTHER, OTHER_SECRET)
        # What became due while it was away is noticed, however long ago that was.
        await other.until_state(short["msg_id"], away, "expired")
        assert await other.state(waiting["msg_id"], away) == "waiting"
        back = await house.back(away, app_key=OTHER)
        assert (back.welcome["alias"], back.welcome["tags"]) == ("A", ["x"])
        assert await back.hear_alerts(1) == ["waiting"]


async def test_an_app_that_goes_leaves_no_task_behind() -> None:
    async with serving(apps=app_plans()[:1]) as house:
        # Whatever is started on demand has been.
        await house.node.serve_apps(app_plans())
        await house.node.serve_apps(app_plans()[:1])
        await trio.testing.wait_all_tasks_blocked(0.01)
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(5):
            await house.node.serve_apps(app_plans())
            await house.node.serve_apps(app_plans()[:1])
        await until(
            lambda: trio.lowlevel.current_statistics().tasks_living <= before, "an end of its tasks", within_s=2
        )


async def test_a_master_secret_may_be_replaced_without_dropping_anybody() -> None:
    async with serving() as house:
        device, app = await house.device(), await house.app()
        await house.node.serve_apps(app_plans(secrets=(SECRET, "the-new-secret")))
        await house.app(APP, "the-new-secret")
        await house.app(APP, SECRET)
        await house.node.serve_apps(app_plans(secrets=("the-new-secret",)))
        assert (await house.knock("apps", "/app", basic(APP, SECRET))).status == 401
        assert (await house.app(APP, "the-new-secret")).status == 101
        await undisturbed(house, device, app)


async def test_limits_change_for_those_who_are_here() -> None:
    async with serving(limits=Limits(window=5, offline_limit=5)) as house:
        device, app = await house.device(), await house.app()
        away = await house.absent()
        await house.node.serve_apps(app_plans(Limits(window=1, offline_limit=2)))
        ids = [await app.push_alert(str(number), device) for number in range(3)]
        assert await device.hear_alerts(1) == ["0"]
        await device.quiet()
        for _ in range(4):
            await app.push_alert("x", away)
        info = await app.call("devices.get", registration_id=away.id)
        assert len(info["mailbox"]) == 2
        await house.node.serve_apps(app_plans(Limits(window=3, offline_limit=4)))
        await device.note("received", msg_id=ids[0])
        assert await device.hear_alerts(2) == ["1", "2"]
        for _ in range(4):
            await app.push_alert("x", away)
        info = await app.call("devices.get", registration_id=away.id)
        assert len(info["mailbox"]) == 4


async def test_limits_that_changed_while_an_app_was_away_hold_when_it_is_back() -> None:
    async with serving(limits=Limits(offline_limit=5)) as house:
        app, device = await house.app(), await house.absent()
        await app.push_alert("keeps its mailbox in memory", device)
        await house.node.serve_apps(app_plans()[1:])
        await app.hear_end()
        await house.node.serve_apps(app_plans(Limits(offline_limit=2)))
        app = await house.app()
        for number in range(4):
            await app.push_alert(str(number), device)
        info = await app.call("devices.get", registration_id=device.id)
        assert len(info["mailbox"]) == 2


async def test_rates_change_for_those_who_are_here() -> None:
    async with serving() as house:
        app, device = await house.app(), await house.device()
        await house.node.serve_apps(app_plans(pushes_per_s=1))
        await app.push("all")
        with pytest.raises(Refusal) as refusal:
            await app.push("all")
        assert refusal.value.code == 2002
        await house.node.serve_apps(app_plans(requests_per_s=1))
        await app.push("all")
        with pytest.raises(Refusal) as refusal:
            await app.call("tags.list")
        assert refusal.value.code == 2002
        await house.node.serve_apps(app_plans())
        for _ in range(10):
            await app.push("all")
        assert device


async def test_reading_the_same_apps_again_changes_nothing() -> None:
    async with serving(apps=app_plans(pushes_per_s=2)) as house:
        app, device = await house.app(), await house.device()
        await app.push("all")
        await app.push("all")
        for _ in range(3):
            await house.node.serve_apps(app_plans(pushes_per_s=2))
        with pytest.raises(Refusal):
            await app.push("all")
        for _ in range(2):
            await device.hear_message()
        await device.quiet()


async def test_a_server_without_apps_serves_nobody_and_turns() -> None:
    async with serving(apps=[]) as house:
        with pytest.raises(Refusal) as refusal:
            await house.device()
        assert refusal.value.code == 1008
        assert (await house.knock("apps", "/app", basic(APP, SECRET))).status == 401
        assert (await house.get("/readyz"))[0] == 200
        await house.node.serve_apps(app_plans())
        assert (await house.device()).id


async def test_apps_keep_their_devices_whatever_their_order() -> None:
    disk = MemoryDisk()
    plans = [*app_plans(), THIRD]
    async with serving(store=MemoryStore(disk), apps=plans) as house:
        ids = {plan.app_key: (await house.device(app_key=plan.app_key)).id for plan in plans}
    for order in (plans[::-1], [plans[1]], plans):
        async with serving(store=MemoryStore(disk), apps=order) as house:
            for plan in order:
                app = await house.app(plan.app_key, plan.secrets[0])
                listed = (await app.call("devices.list"))["devices"]
                assert [each["registration_id"] for each in listed] == [ids[plan.app_key]]


# --- Time --------------------------------------------------------------------------------------------------------


async def test_devices_that_were_not_seen_for_too_long_are_deleted_at_the_start() -> None:
    # C24. The next sweep of a running server is a minute away; a starting one begins with it.
    disk, wall = MemoryDisk(), Wall()
    plans = app_plans(Limits(device_expiry_days=30))
    async with serving(store=MemoryStore(disk), wall=wall, apps=plans) as house:
        old = await house.absent(alias="A")
        wall.forward(20 * 86_400)
        young = await house.absent()
    wall.forward(15 * 86_400)
    async with serving(store=MemoryStore(disk), wall=wall, apps=plans) as house:
        app = await house.app()

        async def is_deleted() -> bool:
            return len((await app.call("devices.list"))["devices"]) == 1

        await until_true(is_deleted)
        assert (await house.back(young)).id == young.id
        with pytest.raises(Refusal) as refusal:
            await house.back(old)
        assert refusal.value.code == 1010


async def test_actors_that_have_nothing_to_do_retire_and_come_back_with_what_they_had() -> None:
    async with serving() as house:
        app, device = await house.app(), await house.absent()
        await app.push_alert("waits", device)
        await until(lambda: house.node._now()["device_actors"] == 0, "the retirement")
        back = await house.back(device)
        assert await back.hear_alerts(1) == ["waits"]
        assert house.node._now()["device_actors"] == 1

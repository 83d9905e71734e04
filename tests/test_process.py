"""The real process on real sockets, `kill -9` in the middle included: what somebody who runs it relies on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import ssl
import stat
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import trio

from pushactors import (
    AppClient,
    Connected,
    ConnectionLost,
    DeviceClient,
    DeviceEvent,
    Disconnected,
    NoSuchMessage,
    PushAnswer,
    Receipt,
    Report,
    Unauthorized,
)
from pushactors.domain.credentials import REGISTRATION_ID_BYTES, device_secret, registration_id
from pushactors.domain.message import Verdict
from pushactors.stores.schema import APPLICATION_ID, MIGRATIONS, bring_up
from pushactors.wire.ids import AppKey
from tests.cli.processes import (
    APP_KEY,
    LIMIT_S,
    MASTER_SECRET,
    PEM,
    Ended,
    Process,
    Server,
    Wire,
    free_ports,
    run,
    soon,
    until,
    until_true,
)
from tests.cli.storm import storm

pytestmark = pytest.mark.slow

VERDICTS = [verdict.word for verdict in Verdict]
HELLO = {"alert": "hello"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One that was not started yet, with every default but its ports. Killed at the end, if it runs."""
    server = Server(tmp_path)
    yield server
    server.kill()


@contextlib.asynccontextmanager
async def running(server: Server) -> AsyncIterator[Server]:
    await server.start()
    try:
        yield server
    finally:
        server.kill()


def adds_up(report: Report) -> bool:
    numbers = asdict(report)
    return bool(report.targets == report.waiting + report.sent + sum(numbers[verdict] for verdict in VERDICTS))


async def report_of(app: AppClient, msg_id: str) -> Report:
    [report] = await app.report([msg_id])
    assert report is not None, f"the server does not know the push {msg_id}, which it answered"
    assert adds_up(report), report
    return report


# --- Starting, and refusing to -----------------------------------------------------------------------------------


async def test_a_start_without_a_configuration_writes_one_and_says_how_to_use_it(tmp_path: Path) -> None:
    process = Process(tmp_path, "first", "serve")
    file = tmp_path / "pushactors.toml"
    try:
        # On a machine where something else has the default ports it ends, in a sentence, when the file is written.
        await until(lambda: process.is_over or "Ready." in process.err, "the start of the server")
    finally:
        process.kill()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    key, secret = (text.partition(f'{name} = "')[2].partition('"')[0] for name in ("app_key", "master_secret"))
    assert len(key) == 24
    assert len(secret) >= 32
    assert key in process.err
    assert secret not in process.err
    said = process.err.partition("\n\n")[0]
    for needed in ("pushactors.toml", "ws://127.0.0.1:8600/device", "ws://127.0.0.1:8601/app"):
        assert needed in said

    # What it said to type is typed; only the ports are others, so that this test is alone.
    ports = free_ports(3)
    for default, free in zip((8600, 8601, 8602), ports, strict=True):
        text = text.replace(f":{default}", f":{free}")
    file.write_text(text)
    (_, device), (_, push) = (line.split(":  ") for line in said.splitlines() if ", here:" in line)
    assert device.split()[0] == push.split()[0] == "pushactors"
    again = Process(tmp_path, "second", "serve")
    try:
        await until(lambda: "Ready." in again.err, "the start of the server")
        terminal = Process(tmp_path, "device", *device.split()[1:])
        try:
            await until(lambda: "alice is logged in" in terminal.err, "the device's connection")
            done = await run(*[word.strip('"') for word in push.split()[1:]], folder=tmp_path)
            assert done.code == 0, done.err
            await until(lambda: terminal.out.endswith("Hello\n"), "the message")
        finally:
            terminal.kill()
    finally:
        again.kill()
    assert file.read_text() == text
    assert stat.S_IMODE((tmp_path / "pushactors.db").stat().st_mode) == 0o600


def other_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE things (name TEXT)")
        other.commit()


def newer_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        newer.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
        newer.commit()


async def refusal(folder: Path, *arguments: str) -> str:
    """The one line with which `serve` ends itself."""
    done = await run("serve", *arguments, folder=folder)
    assert done.code == 2, done
    assert done.out == ""
    [line] = done.err.splitlines()
    assert line.endswith(".")
    assert "Traceback" not in line
    assert MASTER_SECRET not in line
    return line


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("colour = 'red'", "colour is not known here."),
        ("[drain]\nsecond = 5", "drain.second is not known here."),
        ("[devices]\nheartbeat = '30'", "devices.heartbeat must be an integer."),
        ("[store]\ndurability = 'none'", 'store.durability must be "fsync" or "os".'),
        ("[store]\npath = 'nowhere/pushactors.db'", "store.path needs a folder that is not there: "),
        ("[tls]\ncertificate = 'c.pem'\nkey = 'k.pem'", "tls.certificate cannot be read: "),
    ],
)
async def test_a_configuration_that_cannot_be_used_is_refused_in_a_sentence(
    server: Server, line: str, sentence: str
) -> None:
    server.file.write_text(f"{line}\n{server.file.read_text()}")
    assert f"pushactors.toml: {sentence}" in await refusal(server.folder)
    assert not (server.folder / "pushactors.db").exists()


async def test_an_address_that_is_none_is_refused_in_a_sentence(server: Server) -> None:
    server.file.write_text(server.file.read_text().replace(f"127.0.0.1:{server.ports['apps']}", "localhost"))
    assert "listen.apps must be host:port" in await refusal(server.folder)


async def test_a_port_that_is_taken_is_refused_in_a_sentence(server: Server, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Server(tmp_path / "other")
    other.ports["operations"] = server.ports["operations"]
    other.write(other.app())
    async with running(server):
        line = await refusal(other.folder)
    assert line == (
        f"listen.operations: cannot listen at 127.0.0.1:{server.ports['operations']}: Address already in use."
    )


async def test_a_configuration_that_is_named_and_not_there_is_refused_and_not_written(tmp_path: Path) -> None:
    assert "mine.toml cannot be read: No such file or directory." in await refusal(tmp_path, "--config", "mine.toml")
    assert os.listdir(tmp_path) == []


async def test_the_database_of_another_application_is_refused_and_left_alone(server: Server) -> None:
    path = server.folder / "pushactors.db"
    other_database(path)
    before = path.read_bytes()
    assert "is the database of another application" in await refusal(server.folder)
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_refused_and_left_alone(server: Server) -> None:
    path = server.folder / "pushactors.db"
    path.write_text("A letter to my grandmother. " * 100)
    before = path.read_bytes()
    assert "name the database of a store, or put back a copy." in await refusal(server.folder)
    assert path.read_bytes() == before


async def test_the_database_of_a_newer_version_is_refused_and_left_alone(server: Server) -> None:
    path = server.folder / "pushactors.db"
    newer_database(path)
    before = path.read_bytes()
    assert "was written by a newer pushactors" in await refusal(server.folder)
    assert path.read_bytes() == before


async def test_a_database_that_another_server_holds_is_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    path = json.dumps(str(tmp_path / "pushactors.db"))
    other = Server(tmp_path / "other", f"[store]\npath = {path}")
    async with running(server):
        assert "is held by another process; stop that one, or name another path." in await refusal(other.folder)
        async with server.device_client() as device:
            await device.wait_connected()


async def test_a_store_that_fails_later_ends_the_server_with_1_in_a_sentence(server: Server) -> None:
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("the limits of another process cannot be set here")
    async with running(server):
        assert server.process is not None
        async with server.app_client() as app, server.device_client() as device:
            await device.wait_connected()
            # A full disk: the log of the database can grow no more.
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (200_000, 200_000))
            with contextlib.suppress(Disconnected):
                for _ in range(1_000):
                    await app.push(audience="all", notification={"alert": "x" * 3000})
            assert await server.ended() == 1
    last = server.err.splitlines()[-1]
    assert " CRITICAL " in last
    assert "pushactors.db cannot be used" in last
    assert last.endswith(".")


# --- A story -----------------------------------------------------------------------------------------------------


async def test_what_was_pushed_before_kill_nine_is_there_after_it(server: Server) -> None:
    """The README's story, told by the command line and by the client library at once."""
    async with running(server):
        first = Process(server.folder, "device", "device", "--alias", "alice", "--count", "1")
        try:
            await until(lambda: "alice is logged in; 0 waiting." in first.err, "the device's connection")
            done = await server.run("push", "--alias", "alice", "--title", "News", "one", "--wait")
            assert done.code == 0
            assert await first.ended() == 0
            assert " to alice] News – one\n" in first.out
        finally:
            first.kill()
        answer, *_, last = done.out.splitlines()
        assert answer.endswith(": 1 targets, 1 online, 0 absent")
        assert last.endswith(": 1 targets: 1 received")

        # The device is away. One push is answered, and then the server is killed; nobody had a chance to tidy up.
        done = await server.run("push", "--alias", "alice", "--json", stdin="two\n")
        two = json.loads(done.out)
        assert (two["targets"], two["online"], two["absent"]) == (1, 0, 1)
        server.kill()

    async with running(server):
        done = await server.run("report", two["msg_id"])
        assert done.out == f"msg_id {two['msg_id']}: 1 targets: 1 waiting\n"
        again = Process(server.folder, "again", "device", "--count", "1")
        try:
            # Nobody says --alias: alice is still logged in.
            assert await again.ended() == 0
            assert "alice is logged in; 1 waiting." in again.err
            assert " to alice] two\n" in again.out
        finally:
            again.kill()
        async with server.app_client() as app:
            await until_true(lambda: _is_received(app, two["msg_id"]), "the acknowledgement")
            [device] = await app.devices()
            assert device.registration_id in again.err
            done = await server.run("status", two["msg_id"])
            assert f"{device.registration_id}  received, " in done.out


async def _is_received(app: AppClient, msg_id: str) -> bool:
    return (await report_of(app, msg_id)).received == 1


async def test_a_repeated_cid_gets_the_first_answer_after_kill_nine_too(server: Server) -> None:
    async with running(server):
        async with server.device_client("device", alias="alice") as device, server.app_client() as app:
            await device.wait_connected()
            first = await app.push(audience={"alias": ["alice"]}, notification=HELLO, cid="order-42", sendno=7)
            server.kill()
        await server.start()
        async with server.app_client() as app:
            again = await app.push(audience={"alias": ["alice"]}, notification=HELLO, cid="order-42", sendno=7)
            assert again == first
            assert len(await app.pushes()) == 1
            fresh = await app.push(audience={"alias": ["alice"]}, notification=HELLO)
            assert int(fresh.msg_id) > int(first.msg_id)


async def test_a_push_that_may_not_wait_is_missed_or_unknown_after_kill_nine(server: Server) -> None:
    async with running(server):
        wire = await server.device_wire()
        await wire.ask("connect", app_key=APP_KEY)
        async with server.app_client() as app:
            flying = await app.push(audience="all", notification=HELLO, time_to_live=0)
            kept = await app.push(audience="all", notification=HELLO, time_to_live=0, cid="kept")
            for answer in (flying, kept):
                assert (await wire.note())["params"]["msg_id"] == answer.msg_id
            server.kill()
        await wire.abort()
        await server.start()
        async with server.app_client() as app:
            assert (await report_of(app, kept.msg_id)).missed == 1
            [report] = await app.report([flying.msg_id])
            assert report is None or report.missed == report.targets == 1


async def test_what_became_due_while_the_server_was_down_has_expired_and_is_not_sent(server: Server) -> None:
    async with running(server):
        async with server.device_client("device") as device:
            await device.wait_connected()
        async with server.app_client() as app:
            await until_true(lambda: _is_absent(app), "the absence of the device")
            short = await app.push(audience="all", notification=HELLO, time_to_live=1)
            long = await app.push(audience="all", notification=HELLO, time_to_live=60)
            server.kill()
        await trio.sleep(1.1)
        await server.start()
        begun = trio.current_time()
        async with server.app_client() as app:
            while (await report_of(app, short.msg_id)).expired == 0:
                # Noticed within a second (C5); the other seconds are for a machine that does something else as well.
                assert trio.current_time() - begun < 5
                await trio.sleep(0.05)
            async with server.device_client("device") as device:
                message = await soon(anext(device))
                assert message.msg_id == long.msg_id
            assert (await report_of(app, long.msg_id)).expired == 0


async def _is_absent(app: AppClient) -> bool:
    [device] = await app.devices()
    return not device.online


async def test_what_was_struck_before_kill_nine_has_its_strike_and_is_not_sent_again(server: Server) -> None:
    async with running(server):
        wire = await server.device_wire()
        hello = await wire.ask("connect", app_key=APP_KEY, alias="alice")
        async with server.app_client() as app:
            # Both are on the wire, and not acknowledged.
            fenced = await app.push(audience={"alias": ["alice"]}, notification=HELLO)
            replaced = await app.push(audience="all", notification=HELLO)
            for answer in (fenced, replaced):
                assert (await wire.note())["params"]["msg_id"] == answer.msg_id
            newest = await app.push(audience="all", notification=HELLO, override_msg_id=replaced.msg_id)
            assert (await wire.ask("alias.set", alias="bob"))["previous"] == "alice"
            assert (await report_of(app, fenced.msg_id)).sent == 1
            server.kill()
        await wire.abort()
        await server.start()
        async with server.app_client() as app:
            assert (await report_of(app, fenced.msg_id)).fenced == 1
            assert (await report_of(app, replaced.msg_id)).replaced == 1
            wire = await server.device_wire()
            known = {name: hello[name] for name in ("registration_id", "device_secret")}
            again = await wire.ask("connect", app_key=APP_KEY, **known)
            assert (again["alias"], again["waiting"]) == ("bob", 1)
            assert (await wire.note())["params"]["msg_id"] == newest.msg_id
            await wire.abort()


async def test_an_answer_is_on_the_disk_when_it_comes(server: Server) -> None:
    """Killed in the moment of the first answer, while the disk is busy: every answer that came holds (C2)."""
    for run_number in range(4):
        async with running(server):
            devices = [await server.device_wire() for _ in range(8)]
            hellos = [await device.ask("connect", app_key=APP_KEY, platform="other") for device in devices]
            ids = [hello["registration_id"] for hello in hellos]
            app, other = await server.app_wire(), await server.app_wire()
            newcomers = [await server.device_wire() for _ in range(4)]

            # A commit that takes a while, and behind it one of everything.
            large = {"audience": "all", "notification": {"alert": "x" * 3500}}
            await other.send([{"jsonrpc": "2.0", "id": n, "method": "push", "params": large} for n in range(200)])
            asked: defaultdict[Wire, list[Question]] = defaultdict(list)
            for number, device in enumerate(devices[:6]):
                alias = f"user-{run_number}-{number}"
                asked[device].append((alias, await device.request("alias.set", alias=alias)))
            asked[devices[6]].append(("tags", await devices[6].request("tags.set", tags=["answered"])))
            asked[app].append(("set", await app.request("devices.set", registration_id=ids[7], alias="by-the-app")))
            asked[app].append(("push", await app.request("push", audience="all", notification=HELLO)))
            flying = {"audience": "all", "notification": HELLO, "options": {"time_to_live": 0}}
            # These do not wait for the disk; so every other time there are none, and the first answer is a durable one.
            for _ in range(20 * (run_number % 2)):
                asked[app].append(("flying", await app.request("push", **flying)))
            for number, newcomer in enumerate(newcomers):
                connect = await newcomer.request("connect", app_key=APP_KEY, platform="ios")
                asked[newcomer].append((f"newcomer-{number}", connect))

            answers = await answers_until_killed(server, asked)
            assert answers
            for wire in (*devices, *newcomers, app, other):
                await wire.abort()
            await server.start()
            async with server.app_client() as client:
                for number, device in enumerate(devices[:6]):
                    if answers.get(asked[device][0]):
                        assert (await client.device(ids[number])).alias == f"user-{run_number}-{number}"
                if answers.get(asked[devices[6]][0]):
                    assert (await client.device(ids[6])).tags == ("answered",)
                if answers.get(asked[app][0]):
                    assert (await client.device(ids[7])).alias == "by-the-app"
                highest = 0
                for question in asked[app][1:]:
                    if answer := answers.get(question):
                        [report] = await client.report([answer["msg_id"]])
                        highest = max(highest, int(answer["msg_id"]))
                        assert report is not None or question[0] == "flying"
                for newcomer in newcomers:
                    if answer := answers.get(asked[newcomer][0]):
                        await client.device(answer["registration_id"])
                # An id is never given again, not even that of a push that the crash took.
                assert int((await client.push(audience="all", notification=HELLO)).msg_id) > highest


Question = tuple[str, int]
"""What it is about, and its id."""


async def answers_until_killed(server: Server, asked: Mapping[Wire, list[Question]]) -> dict[Question, Any]:
    """Kills the server as soon as the first answer is here; that and all that were on their way, by question."""
    answers: dict[Question, Any] = {}

    async def read(wire: Wire, questions: Mapping[int, Question]) -> None:
        with contextlib.suppress(Ended):
            while True:
                message = await wire.receive()
                if message.get("id") in questions:
                    answers[questions[message["id"]]] = message["result"]
                    server.kill()

    async with trio.open_nursery() as nursery:
        for wire, questions in asked.items():
            nursery.start_soon(read, wire, {question[1]: question for question in questions})
    return answers


# --- Between two steps -------------------------------------------------------------------------------------------


async def come(server: Server, who: Mapping[str, Any], **more: object) -> tuple[Wire, dict[str, Any]]:
    """A new visit of a device that has registered."""
    wire = await server.device_wire()
    known = {name: who[name] for name in ("registration_id", "device_secret")}
    return wire, await wire.ask("connect", app_key=APP_KEY, **known, **more)


async def until_note(wire: Wire, method: str, msg_id: str) -> dict[str, Any]:
    while True:
        note = await wire.note()
        if note["method"] == method and note["params"]["msg_id"] == msg_id:
            return note


async def receipts_of(app: AppClient, *settled: str) -> list[Receipt]:
    """All of the app, up to the verdicts of these pushes, each of which has one target; cursors without a gap."""
    found: list[Receipt] = []
    with trio.fail_after(LIMIT_S):
        async with app.receipts(after="0") as stream:
            while not set(settled) <= {receipt.msg_id for receipt in found if receipt.event in VERDICTS}:
                found.append(await anext(stream))
    assert [int(receipt.cursor) for receipt in found] == list(range(1, len(found) + 1))
    return found


def told(receipts: list[Receipt], msg_id: str) -> list[str]:
    return [receipt.event for receipt in receipts if receipt.msg_id == msg_id]


@pytest.mark.parametrize("after_s", [0.0, 0.9, 0.99, 1.0, 1.02, 1.1])
async def test_a_deadline_is_told_once_though_the_server_is_killed_around_it(server: Server, after_s: float) -> None:
    """Accepted, stored, overdue (C21)."""
    async with running(server):
        wires = [await server.device_wire() for _ in range(2)]
        here, away = [await wire.ask("connect", app_key=APP_KEY, alias=f"user-{n}") for n, wire in enumerate(wires)]
        await wires[1].abort()
        async with server.app_client() as app:
            rid = away["registration_id"]
            await until_true(lambda: _is_away(app, rid), "the absence of one")
            pushes = {
                why: await app.push(
                    audience={"alias": [alias]}, notification=HELLO, deliver_within=1, hold=why == "unheld", cid=why
                )
                for why, alias in (("unacknowledged", "user-0"), ("absent", "user-1"), ("unheld", "user-2"))
            }
            await trio.sleep(after_s)
            server.kill()
        await wires[0].abort()
        await server.start()
        begun = time.time()
        overdue: dict[str, Receipt] = {}
        async with server.app_client() as app:
            with trio.fail_after(LIMIT_S):
                async with app.receipts(after="0") as stream:
                    while len(overdue) < 3:
                        receipt = await anext(stream)
                        assert receipt.event == "overdue"
                        assert overdue.setdefault(receipt.msg_id, receipt) is receipt
            # Noticed within a second (C21), from the start on; the others are for a machine that is busy.
            assert time.time() - begun < 1 + 3
            for why, answer in pushes.items():
                told_of = overdue[answer.msg_id]
                assert told_of.reason is not None
                # The visit has ended with the server.
                assert told_of.reason.why in (why, "absent"), told_of
                assert (why == "unheld") == (told_of.reason.why == "unheld") == (told_of.registration_id is None)
                again = await app.push(
                    audience={"alias": [f"user-{list(pushes).index(why)}"]},
                    notification=HELLO,
                    deliver_within=1,
                    hold=why == "unheld",
                    cid=why,
                )
                assert again == answer
            # The delivery goes on.
            for number, who in enumerate((here, away)):
                wire, _ = await come(server, who, alias=f"user-{2 * number}")
                msg_id = pushes["unheld" if number else "unacknowledged"].msg_id
                await until_note(wire, "message", msg_id)
                await wire.tell("received", msg_id=msg_id)
                await until_true(lambda m=msg_id: _is_received(app, m), "the acknowledgement")  # type: ignore[misc]
                line = await app.timeline(msg_id, who["registration_id"])
                assert [event.event for event in line.events].count("overdue") == 1
                await wire.abort()
            receipts = await receipts_of(app, *(answer.msg_id for answer in pushes.values()))
            assert told(receipts, pushes["absent"].msg_id) == ["overdue", "fenced"]
            assert told(receipts, pushes["unheld"].msg_id) == ["overdue", "received"]
            assert told(receipts, pushes["unacknowledged"].msg_id) == ["overdue", "received"]


async def _is_away(app: AppClient, registration_id: str) -> bool:
    return not (await app.device(registration_id)).online


RECALL_STEPS = ["asked", "answered", "notified", "answered by the device"]


@pytest.mark.parametrize("step", RECALL_STEPS)
async def test_a_recall_is_whole_or_was_not_answered_wherever_the_server_is_killed(server: Server, step: str) -> None:
    """One device has acknowledged it, one was sent it, one is away (C22)."""
    async with running(server):
        wires = [await server.device_wire() for _ in range(3)]
        who = [await wire.ask("connect", app_key=APP_KEY) for wire in wires]
        await wires[2].abort()
        app = await server.app_wire()
        async with server.app_client() as client:
            await until_true(lambda: _is_away(client, who[2]["registration_id"]), "the absence of one")
        msg_id = (await app.ask("push", audience="all", notification=HELLO))["msg_id"]
        for wire in wires[:2]:
            await until_note(wire, "message", msg_id)
        await wires[0].tell("received", msg_id=msg_id)
        async with server.app_client() as client:
            await until_true(lambda: _is_received(client, msg_id), "the acknowledgement")

        asked = await app.request("push.recall", msg_id=msg_id)
        split = None
        if step != "asked":
            split = (await app.receive())["result"]
            assert split == {"recalled": 1, "on_the_way": 1, "received": 1, "settled": 0}, asked
        if step in RECALL_STEPS[2:]:
            for wire in wires[:2]:
                await until_note(wire, "recall", msg_id)
        if step == "answered by the device":
            for wire in wires[:2]:
                await wire.tell("withdrawn", msg_id=msg_id)
        server.kill()
        for wire in (*wires, app):
            await wire.abort()

        await server.start()
        async with server.app_client() as client:
            report = await report_of(client, msg_id)
            statuses = await client.status(msg_id, [device["registration_id"] for device in who])
            if split is None:
                again = await client.recall(msg_id)
                assert again.recalled + again.on_the_way + again.received + again.settled == 3
            else:
                assert (report.waiting, report.sent) == (0, 0)
                assert report.received >= 1
                assert statuses[who[2]["registration_id"]].state == "recalled"
                assert statuses[who[1]["registration_id"]].state in ("recalled", "received")
            for number, device in enumerate(who):
                is_done = (await client.timeline(msg_id, device["registration_id"])).events[-1].event == "withdrawn"
                marker = (await client.push(audience="all", notification=HELLO)).msg_id
                for visit in range(2):
                    wire, _ = await come(server, device)
                    notes = [await wire.note()]
                    while notes[-1]["params"]["msg_id"] != marker:
                        notes.append(await wire.note())
                    # Nothing recalled is sent; whoever may have it is told on each visit, before all messages.
                    ours = [note["method"] for note in notes if note["params"]["msg_id"] == msg_id]
                    is_told = number != 2 and not is_done and visit == 0
                    assert ours == ["recall"] * is_told, (step, number, visit, notes)
                    if is_told:
                        assert notes[0]["method"] == "recall"
                        await wire.tell("withdrawn", msg_id=msg_id)
                    if visit == 1 or not is_told:
                        await wire.tell("received", msg_id=marker)
                        await until_true(
                            lambda d=device, m=marker: _is_at(client, m, d, "received"),  # type: ignore[misc]
                            "the acknowledgement",
                        )
                        await wire.abort()
                        break
                    # Told in order: when what comes behind the mark is answered, the mark was heard.
                    await wire.ask("alias.get")
                    await wire.abort()
            await until_true(lambda: _has(client, msg_id, withdrawn=1), "the mark")
            await client.recall(msg_id)
            receipts = await receipts_of(client)
            assert receipts == []
            async with client.receipts(after="0") as stream:
                found = [await soon(anext(stream)) for _ in range(4)]
            assert len(found) == 4
            final = await report_of(client, msg_id)
            assert final.received + final.recalled == 3


async def _is_at(app: AppClient, msg_id: str, device: Mapping[str, Any], state: str) -> bool:
    status = await app.status(msg_id, [device["registration_id"]])
    return status[device["registration_id"]].state == state


async def _has(app: AppClient, msg_id: str, **at_least: int) -> bool:
    numbers = asdict(await report_of(app, msg_id))
    return all(numbers[name] >= count for name, count in at_least.items())


HOLD_STEPS = ["accepted", "bound", "sent", "declined", "returned", "bound again", "sent again"]


@pytest.mark.parametrize("step", HOLD_STEPS)
async def test_what_is_held_comes_to_its_user_once_wherever_the_server_is_killed(server: Server, step: str) -> None:
    """On the first device her account changes before she has seen it; she takes it on the second (C25)."""
    number = HOLD_STEPS.index(step)
    async with running(server):
        first, second = [await server.device_wire() for _ in range(2)]
        one, two = [await wire.ask("connect", app_key=APP_KEY) for wire in (first, second)]
        async with server.app_client() as app:
            held = await app.push(audience={"alias": ["anna"]}, notification=HELLO, hold=True, cid="held")
            assert (held.targets, held.online, held.absent) == (1, 0, 1)
            if number >= 1:
                await first.request("alias.set", alias="anna")
                await first.receive()
            if number >= 2:
                await until_note(first, "message", held.msg_id)
            if number >= 3:
                await first.ask("alias.set", alias="bert")
                await first.tell("declined", msg_id=held.msg_id)
            if number >= 4:
                await until_true(lambda: _waits_for(app, held.msg_id, "anna"), "its return")
            if number >= 5:
                await second.request("alias.set", alias="anna")
                await second.receive()
            if number >= 6:
                await until_note(second, "message", held.msg_id)
            server.kill()
        for wire in (first, second):
            await wire.abort()

        await server.start()
        async with server.app_client() as app:
            again = await app.push(audience={"alias": ["anna"]}, notification=HELLO, hold=True, cid="held")
            assert again == held
            report = await report_of(app, held.msg_id)
            assert (report.waiting, report.sent) == (1, 0)
            # Whoever else logs in on the first device does not get it.
            other = await app.push(audience={"alias": ["bert"]}, notification=HELLO, hold=True)
            wire, hello = await come(server, one, alias="bert")
            assert hello["alias"] == "bert"
            assert (await wire.note())["params"]["msg_id"] == other.msg_id
            await wire.tell("received", msg_id=other.msg_id)
            await until_true(lambda: _is_received(app, other.msg_id), "the acknowledgement")
            assert wire.notes == []
            wire_two, hello = await come(server, two, alias="anna")
            note = await until_note(wire_two, "message", held.msg_id)
            assert note["params"]["alias"] == "anna"
            await wire_two.tell("received", msg_id=held.msg_id)
            await until_true(lambda: _is_received(app, held.msg_id), "the acknowledgement")
            receipts = await receipts_of(app, held.msg_id)
            assert told(receipts, held.msg_id) == ["received"]
            line = await app.timeline(held.msg_id, two["registration_id"])
            names = [event.event for event in line.events]
            assert names[:2] == ["accepted", "stored"], line
            assert names.count("bound") == 1 + (number >= 1), line
            assert names.count("held") == (number >= 1), line
            assert names[-2:] == ["acknowledged", "received"], line
            with pytest.raises(NoSuchMessage):
                await app.timeline(held.msg_id, alias="anna")
            await wire.abort()
            await wire_two.abort()


async def _waits_for(app: AppClient, msg_id: str, alias: str) -> bool:
    try:
        return (await app.timeline(msg_id, alias=alias)).state == "waiting"
    except NoSuchMessage:
        return False


@pytest.mark.parametrize("step", ["stored", "told", "acknowledged", "kept for the consumer"])
async def test_a_consumer_misses_no_receipt_wherever_the_server_is_killed(server: Server, step: str) -> None:
    async with running(server):
        device = await server.device_wire()
        who = await device.ask("connect", app_key=APP_KEY)
        app = await server.app_wire()
        assert await app.ask("receipts.subscribe", consumer="books") == {"cursor": "0"}
        cursors: list[int] = []
        kept = 0
        for round_number in range(3):
            msg_ids = [(await app.ask("push", audience="all", notification=HELLO))["msg_id"] for _ in range(5)]
            for msg_id in msg_ids:
                await until_note(device, "message", msg_id)
            await device.tell("received", msg_id=msg_ids[-1])
            async with server.app_client() as client:
                await until_true(lambda c=client, m=msg_ids[-1]: _is_received(c, m), "the verdict")  # type: ignore[misc]
            stored = 5 * (round_number + 1)
            if step != "stored":
                while not cursors or cursors[-1] < stored:
                    note = await app.note()
                    cursors += [int(event["cursor"]) for event in note["params"]["events"]]
            if step == "acknowledged":
                await app.request("receipts.ack", cursor=str(cursors[-1]))
            if step == "kept for the consumer":
                await app.ask("receipts.ack", cursor=str(cursors[-1]))
                kept = cursors[-1]
            server.kill()
            for wire in (app, device):
                await wire.abort()

            await server.start()
            device, _ = await come(server, who)
            app = await server.app_wire()
            begin = int((await app.ask("receipts.subscribe", consumer="books"))["cursor"])
            # Behind what it has acknowledged, never behind what it was not told.
            assert kept <= begin <= max([0, *cursors]), (step, begin, cursors)
            if step == "stored" or step == "told":
                assert begin == 0
            cursors = list(range(1, begin + 1))
            while len(cursors) < stored:
                note = await app.note()
                cursors += [int(event["cursor"]) for event in note["params"]["events"]]
            assert cursors == list(range(1, stored + 1))
            if step == "acknowledged":
                await app.ask("receipts.ack", cursor=str(cursors[-1]))
                kept = cursors[-1]
        for wire in (app, device):
            await wire.abort()


async def test_a_timeline_is_in_order_after_kill_nine(server: Server) -> None:
    async with running(server):
        wire = await server.device_wire()
        who = await wire.ask("connect", app_key=APP_KEY)
        async with server.app_client() as app:
            await trio.sleep(0.2)
            answer = await app.push(audience="all", notification=HELLO)
            await until_note(wire, "message", answer.msg_id)
            server.kill()
        await wire.abort()
        await server.start()
        wire, _ = await come(server, who)
        await until_note(wire, "message", answer.msg_id)
        await wire.tell("received", msg_id=answer.msg_id)
        async with server.app_client() as app:
            await until_true(lambda: _is_received(app, answer.msg_id), "the acknowledgement")
            line = await app.timeline(answer.msg_id, who["registration_id"])
        instants = [event.at for event in line.events]
        assert instants == sorted(instants), line
        await wire.abort()


async def test_a_timeline_says_that_it_may_have_been_sent_though_the_device_is_not_back_since_the_crash(
    server: Server,
) -> None:
    async with running(server):
        wire = await server.device_wire()
        who = await wire.ask("connect", app_key=APP_KEY)
        async with server.app_client() as app:
            answer = await app.push(audience="all", notification=HELLO)
            await until_note(wire, "message", answer.msg_id)
            server.kill()
        await wire.abort()
        await server.start()
        async with server.app_client() as app:
            await app.recall(answer.msg_id)
            line = await app.timeline(answer.msg_id, who["registration_id"])
        assert [event.event for event in line.events] == ["accepted", "stored", "sent", "recalled"]
        # It is told, so somebody knows.
        wire, _ = await come(server, who)
        await until_note(wire, "recall", answer.msg_id)
        await wire.abort()


# --- A store of the version before -------------------------------------------------------------------------------


async def test_a_store_of_version_1_is_served_delivers_reports_and_recalls(server: Server) -> None:
    now = time.time_ns() // 1_000_000
    secret = b"s" * 32
    later = now + 3_600_000
    ids = [registration_id(bytes([number]) * REGISTRATION_ID_BYTES) for number in range(3)]
    with contextlib.closing(sqlite3.connect(server.folder / "pushactors.db", isolation_level=None)) as old:
        bring_up(old, "it", MIGRATIONS[:1])
        old.execute("INSERT INTO owner VALUES (1, 1, 7, 1000, 3, 3, ?)", (secret,))
        old.execute("INSERT INTO apps VALUES (1, ?)", (APP_KEY,))
        for number, rid in enumerate(ids, 1):
            row = (number, rid, f"user-{number}", number, now - 1000)
            old.execute("INSERT INTO devices VALUES (?, 1, ?, 'other', ?, ?, '[]', NULL, ?, NULL, NULL)", row)
        zeros = ", ".join(["0"] * 6)
        # 1: waits for all three, and the first has received it. 2: waits for the second. 3: struck, for the second.
        for msg_id, targets, unsettled, received in ((1, 3, 2, 1), (2, 1, 1, 0), (3, 1, 1, 0)):
            # What was received, was opened.
            row = (msg_id, now - 500, later, targets, unsettled, received, received, now - 500)
            old.execute(f"INSERT INTO pushes VALUES (?, 1, ?, ?, NULL, ?, ?, ?, {zeros}, ?, 0, 0, ?)", row)
            body = json.dumps({"notification": {"alert": f"number {msg_id}"}}).encode()
            old.execute("INSERT INTO contents VALUES (?, ?)", (msg_id, body))
        old.execute("INSERT INTO deliveries VALUES (1, 1, ?, ?, 1)", (Verdict.RECEIVED, now - 400))
        for device_no, msg_id, strike in ((2, 1, None), (3, 1, None), (2, 2, None), (2, 3, Verdict.REPLACED)):
            old.execute("INSERT INTO mailbox VALUES (?, ?, ?, NULL, ?)", (device_no, msg_id, later, strike))
    who = [{"registration_id": rid, "device_secret": device_secret(secret, AppKey(APP_KEY), rid)} for rid in ids]
    async with running(server):
        async with server.app_client() as app:
            await until_true(lambda: _has(app, "3", replaced=1), "the strike of before")
            report = await report_of(app, "1")
            assert (report.waiting, report.received, report.opened) == (2, 1, 1)
            wire, hello = await come(server, who[1])
            assert (hello["alias"], hello["waiting"]) == ("user-2", 2)
            notes = [(await wire.note())["params"] for _ in range(2)]
            assert [note["msg_id"] for note in notes] == ["1", "2"]
            assert notes[0]["notification"] == {"alert": "number 1"}
            await wire.tell("received", msg_id="1")
            await until_true(lambda: _has(app, "1", received=2), "the acknowledgement")
            split = await app.recall("1")
            assert asdict(split) == {"recalled": 1, "on_the_way": 0, "received": 2, "settled": 0}
            await until_note(wire, "recall", "1")
            await wire.tell("withdrawn", msg_id="1")
            await until_true(lambda: _has(app, "1", withdrawn=1, recalled=1), "the mark")
            first, _ = await come(server, who[0])
            fresh = (await app.push(audience={"alias": ["user-1"]}, notification=HELLO)).msg_id
            assert int(fresh) >= 1000
            # It was opened: whether it is still to be seen there, nobody wrote down.
            await until_note(first, "message", fresh)
            await first.abort()
            receipts = await receipts_of(app, "3")
            assert told(receipts, "3") == ["replaced"]
            for msg_id, rid in (("1", ids[0]), ("1", ids[1]), ("1", ids[2]), ("2", ids[1]), ("3", ids[1])):
                line = await app.timeline(msg_id, rid)
                assert line.events[0].event == "accepted"
            await wire.abort()
            server.kill()
        await server.start()
        async with server.app_client() as app:
            report = await report_of(app, "1")
            assert (report.received, report.recalled, report.withdrawn) == (2, 1, 1)
            wire, hello = await come(server, who[1])
            assert hello["waiting"] == 1
            assert (await wire.note())["params"]["msg_id"] == "2"
            await wire.abort()


# --- Signals -----------------------------------------------------------------------------------------------------

OTHER_KEY, OTHER_SECRET = "other-app", "the-master-secret-of-the-other"


@contextlib.asynccontextmanager
async def listening(client: DeviceClient) -> AsyncIterator[list[str]]:
    """A device that is connected and acknowledges everything; what it has been shown."""
    shown: list[str] = []

    async def listen() -> None:
        async for message in client:
            shown.append(message.msg_id)
            await client.acknowledge(message)

    async with client, trio.open_nursery() as nursery:
        await client.wait_connected()
        nursery.start_soon(listen)
        yield shown
        nursery.cancel_scope.cancel()


async def test_hang_up_brings_apps_lets_them_go_and_disturbs_nobody_else(server: Server) -> None:
    async with running(server):
        events: list[DeviceEvent] = []
        mine = server.device_client("mine", on_event=events.append)
        async with server.app_client() as app, listening(mine) as shown:
            with pytest.raises(Unauthorized):
                async with server.app_client(OTHER_KEY, OTHER_SECRET) as other:
                    await other.devices()

            server.write(server.app(), server.app(OTHER_KEY, OTHER_SECRET))
            await server.read_apps_again()
            async with server.app_client(OTHER_KEY, OTHER_SECRET) as other:
                theirs = server.device_client("theirs", OTHER_KEY)
                async with theirs:
                    await theirs.wait_connected()
                    await other.push(audience="all", notification=HELLO)
                    await soon(anext(theirs))

                    server.write(server.app())
                    await server.read_apps_again()
                    with pytest.raises(Unauthorized):
                        await soon(anext(theirs))
                    with pytest.raises(Unauthorized):
                        await other.devices()
            await app.push(audience="all", notification=HELLO)
            await until(lambda: len(shown) == 1, "the message")
            assert [type(event) for event in events] == [Connected]
            assert app.connected

            # What was let go is not forgotten: it waits until the app is served again.
            server.write(server.app(), server.app(OTHER_KEY, OTHER_SECRET))
            await server.read_apps_again()
            async with server.app_client(OTHER_KEY, OTHER_SECRET) as other:
                [device] = await other.devices()
                assert device.registration_id == theirs.registration_id
                [push] = await other.pushes()
                assert push.waiting == 1


async def test_hang_up_changes_limits_in_place(server: Server) -> None:
    async with running(server):
        async with server.device_client("device") as device:
            await device.wait_connected()
        async with server.app_client() as app:
            await until_true(lambda: _is_absent(app), "the absence of the device")
            first = await app.push(audience="all", notification=HELLO)
            server.write(server.app(more="offline_limit = 1"))
            await server.read_apps_again()
            await app.push(audience="all", notification=HELLO)
            assert (await report_of(app, first.msg_id)).overflowed == 1


async def test_a_second_master_secret_is_valid_beside_the_first_while_they_are_exchanged(server: Server) -> None:
    async def is_known(secret: str) -> bool:
        try:
            async with server.app_client(secret=secret) as app:
                await app.devices()
        except Unauthorized:
            return False
        return True

    async with running(server), server.app_client() as app:
        await app.devices()
        assert not await is_known("the-next-master-secret")
        server.write(server.app(more='second_master_secret = "the-next-master-secret"'))
        await server.read_apps_again()
        assert await is_known("the-next-master-secret")
        assert await is_known(MASTER_SECRET)
        server.write(server.app(secret="the-next-master-secret"))
        await server.read_apps_again()
        assert await is_known("the-next-master-secret")
        assert not await is_known(MASTER_SECRET)
        # Who was let in stays.
        await app.devices()


@pytest.mark.parametrize("broken", ["[[app]\n", "[[app]]\napp_key = 'a'\n", "", None])
async def test_hang_up_with_a_file_that_cannot_be_used_changes_nothing(server: Server, broken: str | None) -> None:
    async with running(server):
        async with server.app_client() as app, listening(server.device_client()) as shown:
            if broken is None:
                server.file.unlink()
            else:
                server.file.write_text(broken)
            await server.read_apps_again()
            [line] = [line for line in server.err.splitlines() if "not read again" in line]
            assert " ERROR The apps were not read again: " in line
            assert "pushactors.toml" in line
            await app.push(audience="all", notification=HELLO)
            await until(lambda: len(shown) == 1, "the message")
        async with server.app_client() as app:
            await app.devices()


def catches(pid: int, which: signal.Signals) -> bool:
    """Whether that process has a handler for the signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(next(line for line in status.splitlines() if line.startswith("SigCgt:")).split()[1], 16)
    return bool(mask >> (which - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs to see which signals a process handles")
async def test_hang_up_while_the_server_starts_is_obeyed_when_it_is_open(server: Server) -> None:
    # Many apps, so that opening them takes a while.
    apps = [server.app(f"app-{number}") for number in range(100)]
    server.write(server.app(), *apps)
    server.process = Process(server.folder, "server", "serve")
    pid = server.process.pid
    await until(lambda: catches(pid, signal.SIGHUP), "its handler")
    while "Ready." not in server.err:
        server.signal(signal.SIGHUP)
        await trio.sleep(0.001)
        assert not server.process.is_over, server.err[-2000:]
    await until(lambda: "The apps were read again." in server.err, "the answer")
    assert server.err.count("is served: ") == 101
    async with server.app_client("app-99") as app:
        assert await app.devices() == ()


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
async def test_the_server_says_goodbye_and_ends_with_0(server: Server, which: signal.Signals) -> None:
    async with running(server):
        wires = [await server.device_wire() for _ in range(3)]
        for wire in wires:
            await wire.ask("connect", app_key=APP_KEY)
        app = await server.app_wire()
        answer = await app.ask("push", audience="all", notification=HELLO)
        begun = time.monotonic()
        server.signal(which)
        for wire in wires:
            assert (await wire.note())["params"]["msg_id"] == answer["msg_id"]
            goodbye = await wire.note()
            assert (goodbye["method"], goodbye["params"]["reason"]) == ("goodbye", "drain")
            assert type(goodbye["params"]["retry_after"]) is int
            assert 1 <= goodbye["params"]["retry_after"] <= 30
            with pytest.raises(Ended) as ended:
                await wire.receive()
            assert ended.value.code == 1001
        with pytest.raises(Ended) as ended:
            await app.receive()
        assert ended.value.code == 1001
        assert await server.ended() == 0
        # Nobody had to wait for somebody who does not answer; `drain.seconds` is 5 by default.
        assert time.monotonic() - begun < 10
        assert "Stopping." in server.err

        # What was sent and not acknowledged waits.
        await server.start()
        async with server.app_client() as client:
            assert (await report_of(client, answer["msg_id"])).waiting == 3


@pytest.mark.parametrize("signals", [1, 2])
async def test_a_peer_that_does_not_answer_the_close_frame_does_not_hold_up_the_end(
    server: Server, signals: int
) -> None:
    async with running(server):
        # One that will never read again, and one that said nothing yet.
        silent = await server.device_wire()
        await silent.ask("connect", app_key=APP_KEY)
        stranger = await server.device_wire()
        for _ in range(signals):
            server.signal(signal.SIGTERM)
            await until(lambda: "Stopping." in server.err, "the beginning of the end")
        if signals == 1:
            # Meanwhile it lives, and takes nobody.
            assert (await server.look("/healthz"))[0] == 200
            assert (await server.look("/readyz"))[0] == 503
            with pytest.raises(Ended):
                await server.device_wire()
        assert await server.ended(within_s=10) == 0
        await silent.abort()
        await stranger.abort()


async def test_clients_come_back_by_themselves_after_a_restart(server: Server) -> None:
    async with running(server):
        events: list[DeviceEvent] = []
        device = server.device_client("device", on_event=events.append)
        async with server.app_client() as app, listening(device) as shown:
            await app.push(audience="all", notification=HELLO)
            await until(lambda: len(shown) == 1, "the first message")
            server.signal(signal.SIGTERM)
            assert await server.ended() == 0
            await server.start()
            second = await app.push(audience="all", notification=HELLO, cid="second")
            await until(lambda: len(shown) == 2, "the second message")
            assert shown[-1] == second.msg_id
        lost = next(event for event in events if isinstance(event, ConnectionLost))
        assert lost.code == 1001
        assert lost.retry_after_s is not None


# --- What is configured ------------------------------------------------------------------------------------------


async def test_a_copy_made_while_pushes_go_on_can_be_served(server: Server, tmp_path: Path) -> None:
    before: list[PushAnswer] = []
    during: list[PushAnswer] = []
    async with running(server), server.app_client() as app, server.device_client("device", alias="alice") as device:
        await device.wait_connected()
        for _ in range(20):
            before.append(await app.push(audience={"alias": ["alice"]}, notification=HELLO))

        async def push_on() -> None:
            while True:
                during.append(await app.push(audience="all", notification=HELLO))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(push_on)
            await until(lambda: len(during) > 20, "some pushes")
            done = await server.run("backup", "copy.db")
            assert (done.code, done.err) == (0, "")
            assert done.out.endswith("pushactors.db was copied to copy.db.\n")
            copied = len(during)
            await until(lambda: len(during) > copied, "one more push")
            nursery.cancel_scope.cancel()
        done = await server.run("backup", "copy.db")
        assert done.code == 1
        assert "copy.db is there already; name a file that is not." in done.err
        registration_id = device.registration_id

    assert stat.S_IMODE((server.folder / "copy.db").stat().st_mode) == 0o600
    restored = tmp_path / "restored"
    restored.mkdir()
    (server.folder / "copy.db").rename(restored / "pushactors.db")
    other = Server(restored)
    async with running(other), other.app_client() as app:
        for answer in before:
            assert (await report_of(app, answer.msg_id)).targets == 1
        for push in await app.pushes():
            assert adds_up(push)
        assert await app.alias("alice") == (registration_id,)
        # The device's own secret is good for the copy as well.
        (server.folder / "device.json").rename(restored / "device.json")
        async with other.device_client("device") as device:
            await device.wait_connected()
            assert device.registration_id == registration_id


async def test_backup_of_a_stopped_server(server: Server) -> None:
    async with running(server), server.app_client() as app:
        await app.devices()
    done = await server.run("backup", "copy.db")
    assert done.code == 0
    with contextlib.closing(sqlite3.connect(server.folder / "copy.db")) as copy:
        assert copy.execute("SELECT app_key FROM apps").fetchall() == [(APP_KEY,)]


async def test_with_a_certificate_everything_but_operations_speaks_tls(tmp_path: Path) -> None:
    server = Server(tmp_path, tls=True)
    async with running(server):
        # The command line trusts the server's own certificate.
        terminal = Process(tmp_path, "device", "device", "--alias", "alice", "--count", "1")
        try:
            await until(lambda: "alice is logged in" in terminal.err, "the device's connection")
            done = await server.run("push", "--alias", "alice", "secret", "--wait")
            assert done.code == 0
            assert "1 received" in done.out
            assert await terminal.ended() == 0
        finally:
            terminal.kill()
        # A client that is given the certificate does; one that is not, does not.
        trusting = ssl.create_default_context(cafile=PEM)
        with_tls: dict[str, Any] = {"ssl_context": trusting}
        async with server.app_client(**with_tls) as app, listening(server.device_client(**with_tls)) as shown:
            await app.push(audience="all", notification=HELLO)
            await until(lambda: len(shown) == 1, "the message")
        async with server.app_client(timeout_s=0.5) as app:
            with pytest.raises(Disconnected):
                await app.devices()
        # Nobody is served without TLS, and who tries harms nobody.
        with pytest.raises(Ended):
            await server.device_wire()
        assert (await server.look("/healthz"))[0] == 200
        assert [line for line in server.err.splitlines() if " ERROR " in line] == []


async def test_what_was_answered_survives_the_end_of_the_process_with_durability_os_as_well(tmp_path: Path) -> None:
    server = Server(tmp_path, '[store]\ndurability = "os"')
    async with running(server):
        async with server.app_client() as app, server.device_client() as device:
            await device.wait_connected()
            answers = [await app.push(audience="all", notification=HELLO) for _ in range(20)]
            server.kill()
        await server.start()
        async with server.app_client() as app:
            for answer in answers:
                assert (await report_of(app, answer.msg_id)).targets == 1


async def test_a_log_for_machines_has_one_object_a_line(tmp_path: Path) -> None:
    server = Server(tmp_path, '[log]\nformat = "json"\nlevel = "debug"')
    async with running(server):
        async with server.app_client() as app, listening(server.device_client()) as shown:
            await app.push(audience="all", notification={"alert": "not for the log"})
            await until(lambda: len(shown) == 1, "the message")
        stranger = await trio.open_tcp_stream("127.0.0.1", server.ports["devices"])
        async with stranger:
            await stranger.send_all(b"GET /device HTTP/1.1\r\nHost: \xff\r\n\r\n")
            with contextlib.suppress(trio.BrokenResourceError):
                async for _ in stranger:
                    pass
        server.file.write_text("[")
        await server.read_apps_again()
        server.signal(signal.SIGTERM)
        assert await server.ended() == 0
    lines = [json.loads(line) for line in server.err.splitlines()]
    for line in lines:
        assert line.keys() <= {"at", "level", "logger", "message", "exception"}
        assert abs(line["at"] / 1000 - time.time()) < 60
    assert {line["message"] for line in lines} >= {"Ready.", "Stopping."}
    assert {line["level"] for line in lines} >= {"info", "error"}
    # Neither what is pushed nor what opens doors is for the log.
    assert "not for the log" not in server.err
    assert MASTER_SECRET not in server.err


async def test_the_store_in_memory_forgets(tmp_path: Path) -> None:
    server = Server(tmp_path, '[store]\nkind = "memory"')
    async with running(server):
        async with server.app_client() as app, server.device_client() as device:
            await device.wait_connected()
            answer = await app.push(audience="all", notification=HELLO)
            server.kill()
        await server.start()
        async with server.app_client() as app:
            assert await app.report([answer.msg_id]) == [None]
        assert not (tmp_path / "pushactors.db").exists()
        done = await server.run("backup", "copy.db")
        assert (done.code, done.err) == (2, "The configured store is in memory: there is nothing to back up.\n")


# --- Operations --------------------------------------------------------------------------------------------------


async def test_operators_see_whether_it_lives_whether_it_is_ready_and_what_it_does(server: Server) -> None:
    async with running(server):
        assert await server.look("/healthz") == (200, "ok\n")
        assert await server.look("/readyz") == (200, "ready\n")
        async with server.app_client() as app, listening(server.device_client()) as shown:
            await app.push(audience="all", notification=HELLO)
            await until(lambda: len(shown) == 1, "the message")
            assert await server.metric("pushactors_visits") == 1
            assert await server.metric("pushactors_app_sessions") == 1
            assert await server.metric("pushactors_registered_devices") == 1
            assert await server.metric('pushactors_pushes_total{kind="accepted"}') == 1
        _, body = await server.look("/metrics")
        assert MASTER_SECRET not in body
        assert APP_KEY not in body


# --- The storm ---------------------------------------------------------------------------------------------------


async def test_nothing_that_was_told_is_taken_back_by_kill_nine(server: Server) -> None:
    """C1, C2, C6, C9, C10, C11, C13 and C14, while everybody is busy and the process is killed again and again."""
    server.tables = ("[devices]\nheartbeat = 5",)
    server.write(server.app(more="offline_limit = 20\nbacklog_limit = 40\nwindow = 8"))
    told = await storm(server, rounds=7, seed=1)
    assert told.lies == []
    # It was a storm.
    assert len(told.pushes) > 200
    assert len(told.cids) > 50
    assert len(told.registered) > 10
    verdicts = {status.state for status in told.statuses.values()}
    assert verdicts >= {"received", "missed", "replaced", "fenced"}

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
    PushAnswer,
    Report,
    Unauthorized,
)
from pushactors.domain.message import Verdict
from pushactors.stores.schema import APPLICATION_ID, MIGRATIONS
from tests.cli.processes import (
    APP_KEY,
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

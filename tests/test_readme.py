"""The README is true: what it says to type is typed, in its order, and does what it says there.

Only two things are others than on the page, so that this can run anywhere: the installation is that of the running
environment, and the ports are free ones.
"""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.cli.processes import COMMAND, ENVIRONMENT, LIMIT_S, ROOT, Process, free_ports, until, until_true

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^```sh\n(.+?)\n```$", README, re.MULTILINE | re.DOTALL)
EXAMPLES = re.findall(r"^```python\n(.+?)\n```$", README, re.MULTILINE | re.DOTALL)
INSTALLS = "python3 -m venv .venv && .venv/bin/pip install "


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def steps() -> list[str]:
    """The commands of the start in five, each as it stands there."""
    return re.findall(r"^\d\. `([^`]+)`", section("A start in five"), re.MULTILINE)


class Terminals:
    """A folder in which somebody follows the README, with `pushactors` on the path as it is in the environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: list[Process] = []
        script = folder / ".venv" / "bin" / "pushactors"
        script.parent.mkdir(parents=True)
        script.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
        script.chmod(0o755)
        self._environment = {**ENVIRONMENT, "PATH": f"{script.parent}:{ENVIRONMENT['PATH']}"}

    def open(self, name: str, command: str) -> Process:
        """A terminal with a command that stays."""
        # Without a shell in between, which would outlive a kill.
        arguments = ["env", f"PATH={self._environment['PATH']}", *shlex.split(command)]
        process = Process(self.folder, name, command=arguments)
        self._open.append(process)
        return process

    async def run(self, command: str) -> str:
        """A command that ends; what it prints."""
        with trio.fail_after(LIMIT_S):
            done = await trio.run_process(
                ["sh", "-c", command],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                cwd=self.folder,
                env=self._environment,
            )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def close(self) -> None:
        for process in self._open:
            process.kill()

    async def serve(self, command: str) -> Process:
        server = self.open("server", command)
        said = len(server.err)
        await until(lambda: server.is_over or "Ready." in server.err[said:], "the start of the server")
        assert not server.is_over, server.err
        return server

    def take_free_ports(self) -> None:
        file = self.folder / "pushactors.toml"
        text = file.read_text()
        for default, free in zip((8600, 8601, 8602), free_ports(3), strict=True):
            assert f'"127.0.0.1:{default}"' in text
            text = text.replace(f":{default}", f":{free}")
        file.write_text(text)


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    terminals = Terminals(tmp_path)
    yield terminals
    terminals.close()


async def first_start(terminals: Terminals, command: str) -> None:
    """The start that writes the configuration; then it has ports of its own."""
    first = terminals.open("first", command)
    # Where something else has the default ports, it has written the file all the same.
    await until(lambda: first.is_over or "Ready." in first.err, "the first start")
    assert "was written, with one app and fresh credentials" in first.err
    first.kill()
    terminals.take_free_ports()
    # If it got as far as that: on the page the first start is the only one before the first push.
    for path in terminals.folder.glob("pushactors.db*"):
        path.unlink()


def test_the_page_has_two_commands_to_install_with() -> None:
    assert len(COMMANDS) == 2
    assert all(command.startswith(INSTALLS) for command in COMMANDS)
    assert COMMANDS[0].endswith(" . && .venv/bin/pushactors serve")
    assert COMMANDS[1].endswith(" -e '.[test]' && .venv/bin/pytest")
    # What the second installs is there, and what continuous integration runs last is this very command.
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "test" in extras
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == COMMANDS[1]


async def test_a_start_in_five(terminals: Terminals) -> None:
    serve, device, push, report, *_ = steps()
    assert serve == "pushactors serve"
    assert COMMANDS[0].endswith(f"/{serve}")
    await first_start(terminals, f".venv/bin/{serve}")
    server = await terminals.serve(serve)

    # "It shows messages as they come."
    shown = terminals.open("device", device)
    await until(lambda: "alice is logged in; 0 waiting." in shown.err, "the device's connection")
    answer = await terminals.run(push)
    assert f"prints the answer: `{answer.strip()}`." in README
    await until(lambda: " to alice] hello\n" in shown.out, "the message")

    # "Says what became of it."
    said = ""

    async def is_received() -> bool:
        nonlocal said
        said = await terminals.run(report)
        return "received" in said

    await until_true(is_received, "the acknowledgement")
    assert f"what became of it: `{said.strip()}`." in README
    [status] = re.findall(r"`(pushactors status \d+)`", section("A start in five"))
    assert re.search(r"^[a-z2-7]{26}  received, ", await terminals.run(status))

    # "Stop the device, push again, and `kill -9` the server. Start both again: the message arrives."
    shown.kill()
    await terminals.run(push.replace("hello", "again"))
    server.kill()
    await terminals.serve(serve)
    before = len(shown.out)
    shown = terminals.open("device", device)
    await until(lambda: " to alice] again\n" in shown.out[before:], "the message that waited")
    assert "hello" not in shown.out[before:]


def said(title: str) -> list[tuple[str, ...]]:
    """The numbered steps of a section: everything in each that stands in the type of code."""
    numbered = re.findall(r"^\d+\. (.+?)(?=^\d+\. |^###|\Z|^$)", section(title), re.MULTILINE | re.DOTALL)
    return [tuple(re.findall(r"`([^`]+)`", each)) for each in numbered]


@pytest.mark.parametrize("is_killed", [False, True])
async def test_it_arrives(terminals: Terminals, is_killed: bool) -> None:
    """The three situations, in their order; once more with the server killed between any two of them."""
    (watch, *_), (phone, *_), late, recall, again, course, only, bob, refused, held, carol = said(
        "Make sure that it arrives"
    )
    await first_start(terminals, "pushactors serve")
    server = await terminals.serve("pushactors serve")
    watching = terminals.open("watching", watch)
    await until(lambda: "Watching the receipts" in watching.err, "the subscription")
    # A server that was killed goes on with other numbers.
    numbers: list[str] = []

    def with_numbers(text: str) -> str:
        return re.sub(r"(msg_id|recall|status|timeline) (\d)\b", lambda m: f"{m[1]} {numbers[int(m[2]) - 1]}", text)

    async def push(command: str) -> str:
        answer = (await terminals.run(command)).strip()
        numbers.extend(re.findall(r"^msg_id (\d+):", answer))
        return answer

    async def told(words: str) -> None:
        await until(lambda: words in watching.out, f"the receipt that says {words!r}")

    async def maybe_kill() -> None:
        nonlocal server
        if is_killed:
            server.kill()
            server = await terminals.serve("pushactors serve")

    async def logged_in(command: str, user: str) -> Process:
        opened = terminals.open(f"phone of {user}", command)
        before = len(opened.err)
        await until(lambda: f"{user} is logged in" in opened.err[before:], f"the phone of {user}")
        return opened

    # It must be received, or somebody must act.
    (await logged_in(phone, "alice")).kill()
    asked, answer, overdue, *others = late
    assert await push(asked) == with_numbers(answer)
    await told(overdue)
    watched = (ROOT / "pushactors" / "cli" / "watch.py").read_text()
    assert all(words.split()[0] in watched for words in others)
    await maybe_kill()
    asked, split = recall
    assert (await terminals.run(with_numbers(asked))).strip() == with_numbers(split)
    asked, device, received = again
    await push(asked)
    shown = await logged_in(device, "alice")
    await until(lambda: "Your order is at the door" in shown.out, "the second message")
    assert "was shipped" not in shown.out
    await told(received)
    status, timeline, *words = course
    [of_one] = (await terminals.run(with_numbers(status))).splitlines()
    events = await terminals.run(with_numbers(timeline).replace("ID", of_one.split()[0]))
    assert [line.split("  ")[-1] for line in events.splitlines()[1:]] == words

    # Several accounts on one device.
    shown.kill()
    [asked] = only
    await push(asked)
    await maybe_kill()
    device, fenced, *_ = bob
    shown = await logged_in(device, "bob")
    await told(fenced)
    assert "alice" not in shown.out

    # Messages for somebody who is logged out.
    asked, refusal = refused
    assert (await terminals.run(f"{asked} 2>&1 || echo $?")).strip() == f"{refusal}\n1"
    asked, answer = held
    assert await push(asked) == with_numbers(answer)
    await maybe_kill()
    shown.kill()
    [device] = carol
    shown = await logged_in(device, "carol")
    await until(lambda: " to carol] Welcome back\n" in shown.out, "the message that was held")
    # The watcher comes back by itself, and says everything once.
    await until(lambda: watching.out.count("received") == 2, "the last receipt")
    for number, words_of_it in ((1, "overdue"), (1, "recalled"), (2, "received"), (3, "fenced"), (4, "received")):
        said_of_it = rf" \[{numbers[number - 1]}\] \S+ {words_of_it}"
        assert len(re.findall(said_of_it, watching.out)) == 1, watching.out


async def test_what_else_the_page_says_of_the_command_line(terminals: Terminals) -> None:
    await first_start(terminals, "pushactors serve")
    await terminals.serve("pushactors serve")
    helped = re.findall(r"`(pushactors \w+ --help)`", README)
    assert helped
    for command in helped:
        assert (await terminals.run(command)).startswith("usage: pushactors ")
    shown = terminals.open("device", "pushactors device --alias alice")
    await until(lambda: "alice is logged in" in shown.err, "the device's connection")
    # "--wait follows the report until every target has its verdict, a JSON object on standard input is a whole push,
    # --json is for scripts."
    push = '{"audience": {"alias": ["alice"]}, "notification": {"alert": "whole"}}'
    lines = (await terminals.run(f"echo '{push}' | pushactors push --wait --json")).splitlines()
    assert '"received":1' in lines[-1]
    await until(lambda: " to alice] whole\n" in shown.out, "the message")
    # "The exit code is 0 if it worked, 1 if it did not, and 2 if it was asked for something that cannot be."
    assert (await terminals.run("pushactors report 999 2>&1 || echo $?")).endswith("\n1\n")
    assert (await terminals.run("pushactors push --all --ttl -1 x 2>&1 || echo $?")).endswith("\n2\n")
    # The backup, as it stands under "Operating it".
    assert "`pushactors backup FILE`" in section("Operating it")
    await terminals.run("pushactors backup copy.db")
    assert (terminals.folder / "copy.db").exists()


async def test_the_files_are_those_that_the_page_names(terminals: Terminals) -> None:
    await first_start(terminals, "pushactors serve")
    await terminals.serve("pushactors serve")
    text = section("Operating it")
    assert "a `-wal` and a `-shm` beside it" in text
    assert "a `.lock`" in text
    made = {path.name for path in terminals.folder.glob("pushactors.*")}
    assert made == {"pushactors.toml", *(f"pushactors.db{end}" for end in ("", "-wal", "-shm", ".lock"))}
    for path in terminals.folder.glob("pushactors.*"):
        assert path.stat().st_mode & 0o777 == 0o600


async def test_the_examples_in_python_do_what_they_say(terminals: Terminals) -> None:
    device, app, told = EXAMPLES
    await first_start(terminals, "pushactors serve")
    await terminals.serve("pushactors serve")
    configuration = tomllib.loads((terminals.folder / "pushactors.toml").read_text())
    listen, [served] = configuration["listen"], configuration["app"]
    for name, example in (("device.py", device), ("app.py", app), ("told.py", told)):
        for here, there in (
            ("127.0.0.1:8600", listen["devices"]),
            ("127.0.0.1:8601", listen["apps"]),
            ("the app_key", served["app_key"]),
            ("the master_secret", served["master_secret"]),
        ):
            example = example.replace(here, there)
        (terminals.folder / name).write_text(example)

    python = shlex.quote(sys.executable)
    listening = terminals.open("example", f"{python} -u device.py")
    asking = "pushactors push --alias alice --json 'are you there' 2>&1 || true"

    async def is_online() -> bool:
        # The example says nothing of its connection; it is there when a push finds it.
        return '"online":1' in await terminals.run(asking)

    await until_true(is_online, "the device's connection")
    said = await terminals.run(f"{python} app.py")
    assert re.fullmatch(r"Accepted as \d+ for 1\n[01] received, [01] waiting\n", said)
    await until(lambda: "Got {'alert': 'On its way', 'title': 'Order 42'}\n" in listening.out, "the message")

    # "Run twice, it pushes once."
    again = await terminals.run(f"{python} app.py")
    assert again.splitlines()[0] == said.splitlines()[0]
    assert listening.out.count("Order 42") == 1

    # "The file makes it the same device at the next start, and remembers what was shown."
    listening.kill()
    before = len(listening.out)
    listening = terminals.open("example", f"{python} -u device.py")
    await terminals.run("pushactors push --alias alice afterwards")
    await until(lambda: "afterwards" in listening.out[before:], "the next message")
    assert "Order 42" not in listening.out[before:]
    assert not listening.is_over

    # "The same app server, told what becomes of it."
    [msg_id] = re.findall(r"Accepted as (\d+)", said)
    following = terminals.open("told", f"{python} -u told.py")
    await until(lambda: f"{msg_id} received\n" in following.out, "the receipt")


def test_the_errors_that_the_page_names_can_be_imported() -> None:
    import pushactors

    named = re.findall(r"`pushactors\.([A-Z]\w+)`", README)
    assert named
    for name in named:
        assert issubclass(getattr(pushactors, name), pushactors.PushactorsError)


async def test_the_metrics_that_the_page_names_are_there(terminals: Terminals) -> None:
    await first_start(terminals, "pushactors serve")
    await terminals.serve("pushactors serve")
    configuration = tomllib.loads((terminals.folder / "pushactors.toml").read_text())
    host, _, port = configuration["listen"]["operations"].partition(":")

    async def look(path: str) -> str:
        stream = await trio.open_tcp_stream(host, int(port))
        async with stream:
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            return b"".join([chunk async for chunk in stream]).decode()

    for path in re.findall(r"`(/\w+)`", section("Measuring it")):
        assert (await look(path)).startswith("HTTP/1.1 200 ")
    named = set(re.findall(r"`(pushactors_\w+)`", section("Measuring it")))
    body = await look("/metrics")
    gauges = {name for name in named if not name.endswith("_total")}
    assert gauges == set(re.findall(r"^(pushactors_\w+) ", body, re.MULTILINE)) - {
        line.split()[0] for line in body.splitlines() if "_total " in line
    }
    # A counter appears with its first event; that there is one of this name, the code says.
    code = "".join(path.read_text() for path in (ROOT / "pushactors").rglob("*.py"))
    for name in named - gauges:
        assert f'.add("{name.removeprefix("pushactors_").removesuffix("_total")}"' in code, name

"""The command line as a person types it: what is wrong is said in a sentence, with the exit code that goes with it."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
import trio

from pushactors import config
from pushactors.cli import main
from pushactors.stores.sqlite import SqliteStore
from tests.cli.processes import COMMAND, ENVIRONMENT, LIMIT_S, Process, Server, until

CONFIGURATION = '[[app]]\napp_key = "the-app"\nmaster_secret = "sixteen-is-enough"\n'
COMMANDS = ["serve", "config", "backup", "device", "push", "report", "status", "recall", "timeline", "watch", "token"]
Output = pytest.CaptureFixture[str]


def said(output: Output) -> str:
    """The one sentence that was said, and nothing else."""
    out, err = output.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert line.endswith(".")
    return line


@pytest.fixture
def configured(folder: Path) -> Path:
    (folder / "pushactors.toml").write_text(CONFIGURATION)
    return folder


# --- Arguments ---------------------------------------------------------------------------------------------------


def test_the_help_names_every_command(capsys: Output) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["--help"])
    assert exited.value.code == 0
    out = capsys.readouterr().out
    assert all(f"\n    {command} " in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_does_and_takes(command: str, capsys: Output) -> None:
    with pytest.raises(SystemExit) as exited:
        main([command, "--help"])
    assert exited.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: pushactors {command} ")
    assert "%(" not in out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["sreve"], "argument COMMAND: invalid choice: 'sreve'"),
        (["serve", "--colour"], "unrecognized arguments: --colour"),
        (["backup"], "the following arguments are required: FILE"),
        (["report"], "the following arguments are required: MSG_ID"),
        (["report", "first"], "argument MSG_ID: A msg_id is a decimal string, as an answer to push gives it."),
        (["status", "0"], "argument MSG_ID: A msg_id is a decimal string, as an answer to push gives it."),
        (["push", "--alias", "", "x"], "argument --alias: An alias must not be empty."),
        (["push", "--alias", "a b", "x"], "argument --alias: An alias may have letters, digits, CJK and"),
        (["push", "--tag", "x" * 41, "x"], "argument --tag: A tag must have at most 40 bytes in UTF-8."),
        (["push", "--ttl", "soon", "x"], "argument --ttl: invalid int value: 'soon'"),
        (["push", "--override", "last", "x"], "argument --override: A msg_id is a decimal string"),
        (["push", "--all", "\udcff"], "argument TEXT: It must be UTF-8."),
        (["push", "--all", "--title", "\udcff", "x"], "argument --title: It must be UTF-8."),
        (["device", "--platform", "nokia"], "argument --platform: invalid choice: 'nokia'"),
        (["device", "--tag", ""], "argument --tag: A tag must not be empty."),
        (["device", "--alias", "a b"], "argument --alias: An alias may have letters"),
        (["device", "--count", "0"], "argument --count: N must be a whole number from 1 to 999999999."),
        (["push", "--within", "soon", "x"], "argument --within: invalid int value: 'soon'"),
        (["recall"], "the following arguments are required: MSG_ID"),
        (["recall", "last"], "argument MSG_ID: A msg_id is a decimal string, as an answer to push gives it."),
        (["timeline"], "the following arguments are required: MSG_ID"),
        (["timeline", "5", "--alias", "a b"], "argument --alias: An alias may have letters"),
        (["watch", "--after", "now"], "argument --after: A cursor is a decimal string, as a receipt has it;"),
        (["watch", "--consumer", ""], "argument --consumer: A consumer has a name of 1 to 64 bytes of printable text."),
        (["watch", "--count", "0"], "argument --count: N must be a whole number from 1 to 999999999."),
        (["token"], "the following arguments are required: ALIAS"),
        (["token", ""], "argument ALIAS: An alias must not be empty."),
        (["token", "alice", "--seconds", "0"], "argument --seconds: N must be a whole number from 1 to 999999999."),
        (["token", "alice", "--seconds", "1000000000"], "argument --seconds: N must be a whole number from 1 to"),
        (["token", "alice", "--id", ""], "argument --id: A registration id has 26 lower-case letters and digits"),
        (["token", "alice", "--id", "x" * 25], "argument --id: A registration id has 26 lower-case letters and digits"),
        (["token", "alice", "--id", "1" * 26], "argument --id: A registration id has 26 lower-case letters and digits"),
        (["device", "--alias", "a", "--alias-token", "\udcff"], "argument --alias-token: It must be UTF-8."),
        (["device", "--count", "x"], "argument --count: N must be a whole number from 1 to 999999999."),
    ],
)
def test_arguments_that_cannot_be_understood_end_it_with_2(
    arguments: list[str], reason: str, capsys: Output
) -> None:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    usage, last = err.splitlines()[0], err.splitlines()[-1]
    assert usage.startswith("usage: pushactors")
    assert f"error: {reason}" in last


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["push", "x"], "Say who gets it: --alias, --id, --tag or --all."),
        (["push", "--all", ""], "There is nothing to push: give a text, or write one to standard input."),
        (["push", "--all", "--alias", "alice", "x"], "--all is everybody: leave the others out."),
        (["push", "--all", "--ttl", "-1", "x"], "time_to_live must be 0 to 864000."),
        (["push", "--all", "--cid", "", "x"], "A cid has 1 to 128 bytes of printable text."),
        (["push", "--all", "x" * 4000], "notification and message together must have at most 4000 bytes of JSON."),
        (["push", "--app", "theirs", "--all", "x"], "The configuration has no app with the app_key 'theirs'."),
        (["push", "--all", "--within", "864001", "x"], "deliver_within must be 1 to 864000."),
        (["push", "--all", "--hold", "x"], "Only a push to aliases, and to nothing else, can wait for its user."),
        (["timeline", "5"], "Name the device, or the alias that it waits for: one of the two."),
        (["timeline", "5", "r", "--alias", "a"], "Name the device, or the alias that it waits for: one of the two."),
        (["device", "--alias-token", "t"], "--alias-token comes with the --alias that it is for."),
        (["device", "--alias", "", "--alias-token", "t"], "--alias-token comes with the --alias that it is for."),
        (["token", "alice", "--app", "theirs"], "The configuration has no app with the app_key 'theirs'."),
        (["watch", "--app", "theirs"], "The configuration has no app with the app_key 'theirs'."),
        (["device", "--app", "theirs"], "The configuration has no app with the app_key 'theirs'."),
    ],
)
@pytest.mark.usefixtures("configured")
def test_arguments_that_make_no_sense_end_it_with_2(arguments: list[str], sentence: str, capsys: Output) -> None:
    assert main(arguments) == 2
    assert said(capsys) == sentence


@pytest.mark.parametrize(
    "arguments",
    [["backup", "copy.db"], ["device"], ["push", "--all", "x"], ["report", "1"], ["status", "1"],
     ["recall", "1"], ["timeline", "1", "r"], ["watch"], ["token", "alice"]],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_a_command_without_a_configuration_ends_with_2(
    arguments: list[str], folder: Path, capsys: Output
) -> None:
    assert main(arguments) == 2
    assert said(capsys) == "pushactors.toml cannot be read: No such file or directory."
    assert main([*arguments, "--config", "other.toml"]) == 2
    assert said(capsys) == "other.toml cannot be read: No such file or directory."
    assert list(folder.iterdir()) == []


def test_an_identity_that_cannot_be_used_ends_it_with_2(configured: Path, capsys: Output) -> None:
    (configured / "pushactors-device.json").write_text("mine")
    assert main(["device"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("pushactors-device.json is not an identity file: ")
    assert len(err.splitlines()) == 1


# --- Commands ----------------------------------------------------------------------------------------------------


def test_config_prints_the_table_of_the_readme(capsys: Output) -> None:
    assert main(["config"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (config.table(), "")
    readme = (Path(__file__).parent.parent.parent / "README.md").read_text()
    assert out in readme


def make_store(path: Path) -> None:
    async def make() -> None:
        store = SqliteStore(path)
        await store.open()
        await store.aclose()

    trio.run(make)


def test_backup_copies_the_store_to_a_new_file(configured: Path, capsys: Output) -> None:
    make_store(configured / "pushactors.db")
    assert main(["backup", "copy.db"]) == 0
    assert capsys.readouterr() == (f"{configured / 'pushactors.db'} was copied to copy.db.\n", "")
    copy = configured / "copy.db"
    assert copy.stat().st_mode & 0o777 == 0o600
    before = copy.read_bytes()

    assert main(["backup", "copy.db"]) == 1
    assert said(capsys) == "copy.db is there already; name a file that is not."
    assert copy.read_bytes() == before


def test_backup_takes_the_store_of_the_configuration_that_is_named(folder: Path, capsys: Output) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.toml").write_text(f"{CONFIGURATION}[store]\npath = 'mine.db'\n")
    make_store(elsewhere / "mine.db")
    assert main(["backup", "--config", "elsewhere/mine.toml", "copy.db"]) == 0
    assert (folder / "copy.db").exists()
    capsys.readouterr()


def test_backup_of_a_store_that_is_not_there_fails_with_1(configured: Path, capsys: Output) -> None:
    assert main(["backup", "copy.db"]) == 1
    assert said(capsys) == f"{configured / 'pushactors.db'} is not a file; name the database of a store."
    make_store(configured / "pushactors.db")
    assert main(["backup", "nowhere/copy.db"]) == 1
    assert said(capsys) == "nowhere/copy.db cannot be made (No such file or directory); name another place."


def test_there_is_no_backup_of_what_is_in_memory(folder: Path, capsys: Output) -> None:
    (folder / "pushactors.toml").write_text(f"{CONFIGURATION}[store]\nkind = 'memory'\n")
    assert main(["backup", "copy.db"]) == 2
    assert said(capsys) == "The configured store is in memory: there is nothing to back up."


# --- Endings -----------------------------------------------------------------------------------------------------


def test_what_the_server_refuses_ends_it_with_1(shared_server: Server, app_key: str, capsys: Output) -> None:
    to_app = ["--config", str(shared_server.file), "--app", app_key]
    assert main(["push", *to_app, "--all", "x"]) == 1
    assert said(capsys) == "The audience names no device of this app. Nothing was stored."
    assert main(["status", *to_app, "1"]) == 1
    assert said(capsys) == "This app has no push with this msg_id, or it was too long ago."


async def test_who_stops_it_at_the_keyboard_is_not_shown_a_traceback(
    shared_server: Server, app_key: str, tmp_path: Path
) -> None:
    to_app = ["--config", str(shared_server.file), "--app", app_key]
    device = Process(tmp_path, "device", "device", *to_app)
    try:
        await until(lambda: "Connected as" in device.err, "the connection")
        device.signal(signal.SIGINT)
        assert await device.ended() == 130
        assert len(device.err.splitlines()) == 1
    finally:
        device.kill()


@pytest.mark.parametrize("arguments", [["config"], ["--help"]])
def test_who_stops_reading_is_not_complained_to(arguments: list[str]) -> None:
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(LIMIT_S) == 0

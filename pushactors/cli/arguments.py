"""The arguments of every command, and which function does it.

1. `--help` of each command is enough to use it.
2. What a person types wrong is answered with a sentence and 2, whoever finds it; what goes wrong with the server with
   a sentence and 1.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import trio

from pushactors import config
from pushactors.cli.access import Access, app_of
from pushactors.cli.device import show_messages
from pushactors.cli.push import push
from pushactors.cli.reports import recall, report, status, timeline
from pushactors.cli.serve import leaves, serve
from pushactors.cli.token import SECONDS, token
from pushactors.cli.watch import CONSUMER, watch
from pushactors.errors import ConfigurationError, Invalid, PushactorsError, StoreFailure, TooLarge
from pushactors.settings import StoreKind
from pushactors.stores.sqlite import copy_database
from pushactors.wire.ids import Platform, parse_alias, parse_consumer, parse_cursor, parse_msg_id, parse_tag

DEFAULT_CONFIG = Path("pushactors.toml")
DEFAULT_IDENTITY = Path("pushactors-device.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    given = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = given.command
    try:
        exit_code = command(given)
        # Not at exit, where a pipe that nobody reads any more would be a complaint of Python's.
        sys.stdout.flush()
        return exit_code
    except (PushactorsError, KeyboardInterrupt, BrokenPipeError) as error:
        return _told(error)
    except BaseExceptionGroup as errors:
        expected, others = errors.split((PushactorsError, KeyboardInterrupt, BrokenPipeError))
        if others is not None or expected is None:
            raise
        return max(_told(error) for error in leaves(expected))


def _told(error: BaseException) -> int:
    """Says what there is to say of `error`; the exit code for it."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has had enough; Python would complain of the same at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    print(error, file=sys.stderr)
    # What the server finds invalid was in the arguments, or in what they had us read.
    return 2 if isinstance(error, ConfigurationError | Invalid | TooLarge) else 1


# --- Commands ----------------------------------------------------------------------------------------------------


def _serve(given: argparse.Namespace) -> int:
    return serve(given.config or DEFAULT_CONFIG, must_be_there=given.config is not None)


def _config(given: argparse.Namespace) -> int:
    print(config.table(), end="")
    return 0


def _backup(given: argparse.Namespace) -> int:
    store = config.load(given.config or DEFAULT_CONFIG).store
    if store.kind is not StoreKind.SQLITE:
        raise ConfigurationError("The configured store is in memory: there is nothing to back up.")
    try:
        copy_database(Path(store.path), given.file)
    except StoreFailure as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{store.path} was copied to {given.file}.")
    return 0


def _device(given: argparse.Namespace) -> int:
    if given.alias_token is not None and not given.alias:
        raise Invalid("--alias-token comes with the --alias that it is for.")
    return trio.run(
        partial(
            show_messages,
            _access(given),
            identity=given.identity,
            alias=given.alias,
            alias_token=given.alias_token,
            tags=given.tag,
            platform=given.platform,
            as_json=given.json,
            count=given.count,
        )
    )


def _push(given: argparse.Namespace) -> int:
    return trio.run(push, _access(given), given)


def _report(given: argparse.Namespace) -> int:
    return trio.run(report, _access(given), given.msg_id, given.json)


def _status(given: argparse.Namespace) -> int:
    return trio.run(status, _access(given), given.msg_id, given.registration_id, given.json)


def _recall(given: argparse.Namespace) -> int:
    return trio.run(recall, _access(given), given.msg_id, given.json)


def _timeline(given: argparse.Namespace) -> int:
    return trio.run(timeline, _access(given), given.msg_id, given.registration_id, given.alias, given.json)


def _watch(given: argparse.Namespace) -> int:
    return trio.run(
        partial(
            watch, _access(given), consumer=given.consumer, after=given.after, as_json=given.json, count=given.count
        )
    )


def _token(given: argparse.Namespace) -> int:
    app = app_of(config.load(given.config or DEFAULT_CONFIG), given.app)
    return token(app, given.alias, given.seconds, given.id, given.json)


def _access(given: argparse.Namespace) -> Access:
    return Access.of(config.load(given.config or DEFAULT_CONFIG), given.app)


# --- Arguments ---------------------------------------------------------------------------------------------------


def _spelled(parse: Callable[[str], object], text: str) -> str:
    try:
        parse(text)
    except Invalid as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


_alias = partial(_spelled, parse_alias)
_tag = partial(_spelled, parse_tag)
_msg_id = partial(_spelled, parse_msg_id)
_cursor = partial(_spelled, parse_cursor)
_consumer = partial(_spelled, parse_consumer)


def _text(text: str) -> str:
    # Bytes that are not UTF-8 come from the shell as lone surrogates, which no JSON can hold.
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("It must be UTF-8.") from None
    return text


def _alias_or_none(text: str) -> str:
    return _alias(text) if text else text


def _count(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError("N must be a whole number from 1 to 999999999.")
    return int(text)


def _registration_id(text: str) -> str:
    if not re.fullmatch("[a-z2-7]{26}", text):
        raise argparse.ArgumentTypeError("A registration id has 26 lower-case letters and digits from 2 to 7.")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pushactors",
        description="A push server that keeps its word: durable before told, one verdict for every delivery.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], meaning: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=meaning, description=meaning)
        added.set_defaults(command=command)
        return added

    def add_for_app(name: str, command: Callable[[argparse.Namespace], int], meaning: str) -> argparse.ArgumentParser:
        added = add(name, command, meaning)
        _add_config(added)
        added.add_argument("--app", metavar="APP_KEY", help="which app of the configuration (default: the first)")
        added.add_argument("--json", action="store_true", help="print JSON, one object per line")
        return added

    _add_config(add("serve", _serve, "Run the server. Writes pushactors.toml if no configuration is there."))
    add("config", _config, "Print every setting with its type, default and meaning.")
    backup = add("backup", _backup, "Copy the store of a running (or stopped) server to a new file.")
    _add_config(backup)
    backup.add_argument("file", metavar="FILE", type=Path, help="the copy; must not be there yet")

    device = add_for_app("device", _device, "Be a device: connect, and show messages as they come.")
    device.add_argument("--alias", type=_alias_or_none, help='log this user in ("": nobody)')
    device.add_argument(
        "--alias-token",
        type=_text,
        metavar="TOKEN",
        help="the app server's word for the --alias, where the app demands one; pushactors token ALIAS prints one",
    )
    device.add_argument("--tag", action="append", type=_tag, help="have this tag; may be given several times")
    device.add_argument("--platform", choices=[each.value for each in Platform], default=Platform.OTHER.value)
    device.add_argument(
        "--identity",
        type=Path,
        default=DEFAULT_IDENTITY,
        metavar="FILE",
        help="where this device keeps who it is (default: %(default)s); another file is another device",
    )
    device.add_argument("--count", type=_count, metavar="N", help="end after N messages")

    _add_push(add_for_app("push", _push, "Push a message, and print the answer."))
    reported = add_for_app("report", _report, "Print what became of a push, in numbers.")
    reported.add_argument("msg_id", metavar="MSG_ID", type=_msg_id)
    stated = add_for_app("status", _status, "Print what became of a push on each device that it went to.")
    stated.add_argument("msg_id", metavar="MSG_ID", type=_msg_id)
    stated.add_argument("registration_id", metavar="ID", nargs="*", help="these devices (default: all its targets)")
    _add_msg_id(add_for_app("recall", _recall, "Take a push back, and print from how many devices in time."))
    course = add_for_app("timeline", _timeline, "Print what happened to a push on its way to one device, step by step.")
    _add_msg_id(course)
    course.add_argument("registration_id", metavar="REGISTRATION_ID", nargs="?", help="the device")
    course.add_argument("--alias", type=_alias, help="instead of a device: where it waits for this user to log in")
    _add_watch(add_for_app("watch", _watch, "Follow what becomes of all pushes of an app: a line for every receipt."))
    _add_token(add_for_app("token", _token, "Print a token for pushactors device --alias-token. Asks no server."))
    return parser


def _add_msg_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("msg_id", metavar="MSG_ID", type=_msg_id, help="as the answer to push gives it")


def _add_watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--consumer",
        type=_consumer,
        metavar="NAME",
        help=f"go on where NAME was; a new NAME begins now (default: {CONSUMER}, unless there is --after)",
    )
    parser.add_argument(
        "--after",
        type=_cursor,
        metavar="CURSOR",
        help="begin behind this receipt; 0: with the oldest kept. With --consumer: move it there",
    )
    parser.add_argument("--count", type=_count, metavar="N", help="end after N receipts")


def _add_token(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("alias", metavar="ALIAS", type=_alias, help="the user")
    parser.add_argument(
        "--seconds", type=_count, default=SECONDS, metavar="N", help="how long it is good for (default: %(default)s)"
    )
    parser.add_argument(
        "--id",
        type=_registration_id,
        metavar="REGISTRATION_ID",
        help="good for this device only, once it is registered (default: for any)",
    )


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"the configuration file (default: {DEFAULT_CONFIG})"
    )


def _add_push(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "text",
        nargs="?",
        metavar="TEXT",
        type=_text,
        help="what to show. Left out: read from standard input, as text or as a JSON object with a push's members",
    )
    to = parser.add_argument_group("audience (between kinds: and; several of a kind: any of them)")
    to.add_argument("--alias", action="append", type=_alias, default=[], help="devices where this user is logged in")
    to.add_argument("--id", action="append", default=[], metavar="REGISTRATION_ID", help="this device")
    to.add_argument("--tag", action="append", type=_tag, default=[], help="devices with this tag")
    to.add_argument("--all", action="store_true", help="every device of the app")
    parser.add_argument("--title", type=_text, help="the notification's title")
    parser.add_argument("--ttl", type=int, metavar="SECONDS", help="how long it may wait (default: 86400)")
    parser.add_argument("--override", type=_msg_id, metavar="MSG_ID", help="take that message's place where it waits")
    parser.add_argument(
        "--within", type=int, metavar="SECONDS", help="tell, as receipts, which devices do not have it by then, and why"
    )
    parser.add_argument("--hold", action="store_true", help="let it wait for the --alias to log in anywhere")
    parser.add_argument("--cid", help="your own name of this push: repeated within a day, it is answered and not done")
    parser.add_argument("--wait", action="store_true", help="follow the report until every target has its verdict")

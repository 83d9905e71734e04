"""`pushactors push`: a push from the terminal, or from a script.

1. The answer goes to standard output. Refused, nothing was stored, and the sentence says why.
2. A JSON object on standard input is a push, and has its members; what the arguments name comes on top. Anything else
   is a text to show.
3. `--wait` ends when every target has its verdict, which may take as long as the time to live.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import asdict
from typing import Any

import trio

from pushactors.cli.access import Access
from pushactors.cli.reports import report_line
from pushactors.clients.app import AppClient
from pushactors.errors import Invalid, NoSuchMessage
from pushactors.wire.answers import Report
from pushactors.wire.app import PushParams
from pushactors.wire.codec import Unreadable, decode, encode, structure

LOOK_EVERY_S = 0.5


async def push(access: Access, given: Namespace) -> int:
    """Pushes what the arguments say; the exit code."""
    asked = arguments_of(given.text if given.text is not None else await _standard_input(), given)
    async with access.app_client() as app:
        answer = await app.push(**asked)
        if given.json:
            print(encode(answer).decode(), flush=True)
        else:
            print(
                f"msg_id {answer.msg_id}: {answer.targets} targets, {answer.online} online, {answer.absent} absent",
                flush=True,
            )
        if given.wait:
            await _follow(app, answer.msg_id, given.json)
    return 0


def arguments_of(text: str, given: Namespace) -> dict[str, Any]:
    """What `AppClient.push` is to be called with. Raises `Invalid`, `TooLarge`."""
    push = _object(text) if given.text is None else None
    if push is None:
        content = text.rstrip("\n")
        if not content:
            raise Invalid("There is nothing to push: give a text, or write one to standard input.")
        push = {"notification": {"alert": content}}
    named = {"audience": _audience(given), "cid": given.cid}
    push.update({name: value for name, value in named.items() if value is not None})
    if "audience" not in push:
        raise Invalid("Say who gets it: --alias, --id, --tag or --all.")
    _put(push, "notification", title=given.title)
    _put(
        push,
        "options",
        time_to_live=given.ttl,
        override_msg_id=given.override,
        deliver_within=given.within,
        hold=given.hold or None,
    )
    # Judged as the server will: on the way there, a name would pass for a list of its letters.
    structure(PushParams, push)
    options = push.pop("options", {})
    return {**push, **options}


def _object(text: str) -> dict[str, Any] | None:
    """The push that `text` is, if it is an object; else it is a text to show."""
    try:
        found = decode(text)
    except Unreadable:
        return None
    return found if isinstance(found, dict) else None


def _put(push: dict[str, Any], name: str, **given: object) -> None:
    """Puts what was given into the member `name`."""
    members = {member: value for member, value in given.items() if value is not None}
    if not members:
        return
    held = push.setdefault(name, {})
    if not isinstance(held, dict):
        raise Invalid(f"{name} must be an object.", name)
    push[name] = {**held, **members}


async def _standard_input() -> str:
    content: bytes = await trio.to_thread.run_sync(sys.stdin.buffer.read)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"Standard input must be UTF-8, and is not at byte {error.start}.") from None


def _audience(given: Namespace) -> Any:
    named = {"alias": given.alias, "registration_id": given.id, "tag": given.tag}
    keys = {key: names for key, names in named.items() if names}
    if given.all and keys:
        raise Invalid("--all is everybody: leave the others out.")
    return "all" if given.all else keys or None


async def _follow(app: AppClient, msg_id: str, as_json: bool) -> None:
    last: Report | None = None
    while True:
        [report] = await app.report([msg_id])
        if report is None:
            raise NoSuchMessage(f"This app has no push {msg_id} any more.")
        if report != last:
            print(encode(asdict(report)).decode() if as_json else report_line(report), flush=True)
        if not report.waiting and not report.sent:
            return
        last = report
        await trio.sleep(LOOK_EVERY_S)

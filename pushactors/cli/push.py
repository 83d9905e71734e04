"""`pushactors push`: a push from the terminal, or from a script.

1. The answer goes to standard output. Refused, nothing was stored, and the sentence says why.
2. A JSON object on standard input has the members of a push; what the arguments name comes on top.
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
from pushactors.wire.app import Report
from pushactors.wire.codec import Unreadable, decode, encode

LOOK_EVERY_S = 0.5
MEMBERS = {"audience", "platform", "cid", "notification", "message", "options"}
OPTIONS = {"sendno", "time_to_live", "override_msg_id"}


async def push(access: Access, given: Namespace) -> int:
    """Pushes what the arguments say; the exit code."""
    text = given.text if given.text is not None else await trio.to_thread.run_sync(sys.stdin.read)
    asked = arguments_of(text, given)
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
    """What `AppClient.push` is to be called with. Raises `Invalid`."""
    push = _object(text) if given.text is None else None
    if push is None:
        content = text.rstrip("\n")
        if not content:
            raise Invalid("There is nothing to push: give a text, or write one to standard input.")
        push = {"notification": {"alert": content}}
    options = push.pop("options", {})
    if not isinstance(options, dict):
        raise Invalid("options must be an object.", "options")
    _known(push, MEMBERS, "")
    _known(options, OPTIONS, "options.")
    audience = _audience(given) or push.pop("audience", None)
    if audience is None:
        raise Invalid("Say who gets it: --alias, --id, --tag or --all.")
    asked = {**push, **options, "audience": audience}
    if given.title is not None:
        asked["notification"] = {**asked.get("notification", {}), "title": given.title}
    for name, value in (("time_to_live", given.ttl), ("override_msg_id", given.override), ("cid", given.cid)):
        if value is not None:
            asked[name] = value
    return asked


def _object(text: str) -> dict[str, Any] | None:
    """The push that `text` is, if it is one; else it is a text to show."""
    try:
        found = decode(text)
    except Unreadable:
        return None
    return dict(found) if isinstance(found, dict) and found.keys() & MEMBERS else None


def _known(members: dict[str, Any], known: set[str], where: str) -> None:
    for unknown in members.keys() - known:
        raise Invalid(f"A push has no member {where}{unknown}.", f"{where}{unknown}")


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

"""`pushactors report`, `status`, `timeline` and `recall`: what became of a push, in numbers, device by device, step by
step, and what is still to be had of it.

1. Numbers that are 0 are left out of the line for people, never out of the JSON.
2. A timeline is a line for each step, or one object with all of them, in which what is not there is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime

from pushactors.cli.access import Access
from pushactors.domain.message import Mark, Verdict
from pushactors.wire.answers import Recall, Report, Status, Timeline, TimelineEvent
from pushactors.wire.app import TimelineOf
from pushactors.wire.codec import encode, structure

IDS_AT_ONCE = 1_000
NOT_A_DEVICE, NOT_A_TARGET = 2, 3
SPLIT = {"recalled": "recalled", "on_the_way": "on the way", "received": "received", "settled": "settled otherwise"}
WORDS = {NOT_A_DEVICE: "not a device of this app", NOT_A_TARGET: "not a target"}


async def report(access: Access, msg_id: str, as_json: bool) -> int:
    async with access.app_client() as app:
        [found] = await app.report([msg_id])
    if found is None:
        print(f"This app has no push {msg_id}.", file=sys.stderr)
        return 1
    print(encode(asdict(found)).decode() if as_json else report_line(found))
    return 0


def report_line(report: Report) -> str:
    numbers = asdict(report)
    states = ["waiting", "sent", *(verdict.word for verdict in Verdict)]
    said = [f"{numbers[state]} {state}" for state in states if numbers[state]]
    marks = [f"{numbers[mark.word]} {mark.word}" for mark in Mark if numbers[mark.word]]
    of_those = f" ({', '.join(marks)})" if marks else ""
    return f"msg_id {report.msg_id}: {report.targets} targets: {', '.join(said)}{of_those}"


async def status(access: Access, msg_id: str, registration_ids: list[str], as_json: bool) -> int:
    """Of the devices named; of none named, of all that were targets and are still registered. If there is none, why."""
    async with access.app_client() as app:
        if registration_ids:
            for first in range(0, len(registration_ids), IDS_AT_ONCE):
                found = await app.status(msg_id, registration_ids[first : first + IDS_AT_ONCE])
                _print(found, as_json)
            return 0
        # Of no device: an app without any is told as well if it has no such push.
        await app.status(msg_id, [])
        after, is_any = None, False
        while page := await app.devices(after=after, limit=IDS_AT_ONCE):
            after = page[-1].registration_id
            found = await app.status(msg_id, [device.registration_id for device in page])
            targets = {each: status for each, status in found.items() if status.code != NOT_A_TARGET}
            is_any = is_any or bool(targets)
            _print(targets, as_json)
    if not is_any:
        print(
            f"No registered device is a target of it; pushactors report {msg_id} counts those that were deleted, "
            "and the users that it waits for.",
            file=sys.stderr,
        )
    return 0


async def recall(access: Access, msg_id: str, as_json: bool) -> int:
    async with access.app_client() as app:
        found = await app.recall(msg_id)
    print(encode({"msg_id": msg_id, **asdict(found)}).decode() if as_json else recall_line(msg_id, found))
    return 0


def recall_line(msg_id: str, recall: Recall) -> str:
    numbers = asdict(recall)
    said = [f"{numbers[part]} {words}" for part, words in SPLIT.items() if numbers[part]]
    return f"msg_id {msg_id}: {sum(numbers.values())} targets: {', '.join(said)}"


async def timeline(access: Access, msg_id: str, registration_id: str | None, alias: str | None, as_json: bool) -> int:
    """Of the delivery to a device, or of what waits for an alias: one of the two. Raises `Invalid`."""
    named = {"msg_id": msg_id, "registration_id": registration_id, "alias": alias}
    # Judged as the server will.
    structure(TimelineOf, {name: value for name, value in named.items() if value is not None})
    async with access.app_client() as app:
        found = await app.timeline(msg_id, registration_id, alias=alias)
    if as_json:
        events = [_present(asdict(event)) for event in found.events]
        print(encode({**_present(asdict(found)), "events": events}).decode())
    else:
        print(*timeline_lines(found), sep="\n")
    return 0


def timeline_lines(timeline: Timeline) -> list[str]:
    whose = [f"device {timeline.registration_id}"] if timeline.registration_id else []
    whose += [f"alias {timeline.alias}"] if timeline.alias else []
    head = f"msg_id {timeline.msg_id} to {', '.join(whose) or 'nobody'}: {timeline.state}"
    return [head, *map(_step, timeline.events)]


def _step(step: TimelineEvent) -> str:
    # To the millisecond: many steps are taken within a second.
    at = datetime.fromtimestamp(step.at / 1000, UTC).astimezone().replace(tzinfo=None).isoformat(" ", "milliseconds")
    verdict = f": {step.verdict}" if step.verdict else ""
    visit = f" (visit {step.visit})" if step.visit else ""
    return f"  {at}  {step.event}{verdict}{visit}"


def _present(members: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in members.items() if value is not None}


def _print(found: Mapping[str, Status], as_json: bool) -> None:
    for registration_id, status in found.items():
        if as_json:
            print(encode({"registration_id": registration_id, **asdict(status)}).decode())
        else:
            print(f"{registration_id}  {status.state or WORDS[status.code]}{_at(status.at)}")


def _at(at: int | None) -> str:
    if at is None:
        return ""
    return datetime.fromtimestamp(at / 1000, UTC).astimezone().strftime(", %Y-%m-%d %H:%M:%S")

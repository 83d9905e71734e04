"""`pushactors report` and `pushactors status`: what became of a push, in numbers and device by device.

1. Numbers that are 0 are left out of the line for people, never out of the JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime

from pushactors.cli.access import Access
from pushactors.domain.message import Mark, Verdict
from pushactors.wire.app import Report, Status
from pushactors.wire.codec import encode

IDS_AT_ONCE = 1_000
NOT_A_DEVICE, NOT_A_TARGET = 2, 3
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
    """Of the devices named; of none named, of all that were targets and are still registered."""
    async with access.app_client() as app:
        if registration_ids:
            for first in range(0, len(registration_ids), IDS_AT_ONCE):
                found = await app.status(msg_id, registration_ids[first : first + IDS_AT_ONCE])
                _print(found, as_json)
            return 0
        # Of no device: an app without any is told as well if it has no such push.
        await app.status(msg_id, [])
        after = None
        while page := await app.devices(after=after, limit=IDS_AT_ONCE):
            after = page[-1].registration_id
            found = await app.status(msg_id, [device.registration_id for device in page])
            _print({each: status for each, status in found.items() if status.code != NOT_A_TARGET}, as_json)
    return 0


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

"""`pushactors report` and `pushactors status`: what became of a push, in numbers and device by device.

1. Numbers that are 0 are left out of the line for people, never out of the JSON.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import UTC, datetime

from pushactors.cli.access import Access
from pushactors.clients.app import AppClient
from pushactors.domain.message import Mark, Verdict
from pushactors.wire.app import Report
from pushactors.wire.codec import encode

IDS_AT_ONCE = 1_000
NOT_A_TARGET = 3


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
        async for ids in _pages(app, registration_ids):
            for registration_id, found in (await app.status(msg_id, ids)).items():
                if found.code == NOT_A_TARGET and not registration_ids:
                    continue
                if as_json:
                    print(encode({"registration_id": registration_id, **asdict(found)}).decode())
                else:
                    words = {2: "not a device of this app", NOT_A_TARGET: "not a target"}
                    print(f"{registration_id}  {found.state or words[found.code]}{_at(found.at)}")
    return 0


async def _pages(app: AppClient, registration_ids: list[str]) -> AsyncIterator[list[str]]:
    if registration_ids:
        for first in range(0, len(registration_ids), IDS_AT_ONCE):
            yield registration_ids[first : first + IDS_AT_ONCE]
        return
    # Of no device at all, so that an app without devices is told as well if it has no such push.
    yield []
    after = None
    while page := await app.devices(after=after, limit=IDS_AT_ONCE):
        after = page[-1].registration_id
        yield [device.registration_id for device in page]


def _at(at: int | None) -> str:
    if at is None:
        return ""
    return datetime.fromtimestamp(at / 1000, UTC).astimezone().strftime(", %Y-%m-%d %H:%M:%S")

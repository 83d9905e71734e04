"""`pushactors watch`: the receipts of an app at the terminal, as they come (C20).

1. Receipts go to standard output, one line each; what happens to the connection to standard error.
2. A receipt is acknowledged when its line is written, by coming back for the next one: the next watch of the same
   consumer goes on behind it.
3. Colour is for a person who looks: only on a terminal, and not where `NO_COLOR` is set.
4. Times are local. A day is named where it is not the one that the reader takes for granted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import TextIO

from pushactors.cli.access import Access
from pushactors.clients.events import ConnectionLost
from pushactors.clients.receipts import StreamDisplaced, StreamEvent
from pushactors.errors import CursorGone
from pushactors.wire.answers import Reason, Receipt, Subscribed
from pushactors.wire.codec import encode

CONSUMER = "watch"
"""Who follows if nobody is named: only a consumer can begin now."""

GREEN, YELLOW, RED, GREY = "32", "1;33", "31", "90"
COLOURS = {
    "received": GREEN,
    "overdue": YELLOW,
    "missed": RED,
    "expired": RED,
    "overflowed": RED,
    "replaced": GREY,
    "recalled": GREY,
    "fenced": GREY,
}


async def watch(access: Access, *, consumer: str | None, after: str | None, as_json: bool, count: int | None) -> int:
    """Until cancelled, or `count` receipts were shown; the exit code."""
    name = CONSUMER if consumer is None and after is None else consumer
    colourful = not as_json and wants_colour(sys.stdout)
    shown = 0
    try:
        async with access.app_client().receipts(name, after, on_event=_say) as stream:
            async for receipt in stream:
                print(_json(receipt) if as_json else receipt_line(receipt, _today(), colourful), flush=True)
                shown += 1
                if shown == count:
                    await stream.acknowledge(receipt)
                    break
    except StreamDisplaced:
        _tell("To watch twice at once, give each its own name with --consumer.")
        raise
    except CursorGone as gone:
        _tell(f"The oldest receipt that is kept has the cursor {gone.oldest}: --after 0 begins with it.")
        raise
    return 0


def wants_colour(stream: TextIO) -> bool:
    """By the word of no-color.org: set and not empty."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def receipt_line(receipt: Receipt, today: date, colourful: bool = False) -> str:
    event = f"{receipt.event}{_because(receipt)}"
    if colourful and receipt.event in COLOURS:
        event = f"\x1b[{COLOURS[receipt.event]}m{event}\x1b[0m"
    whose = receipt.registration_id or receipt.alias or "nobody"
    return f"{_clock(receipt.at, today)} [{receipt.msg_id}] {whose} {event}"


def _because(receipt: Receipt) -> str:
    return f": {_reason(receipt.reason, receipt)}" if receipt.reason is not None else ""


def _reason(reason: Reason, receipt: Receipt) -> str:
    since = None if reason.since is None else _clock(reason.since, _local(receipt.at).date())
    match reason.why:
        case "absent":
            return f"absent since {since}" if since else "absent"
        case "unheld":
            waits = f"waits for {receipt.alias} to log in" if receipt.alias else "waits for its user to log in"
            return f"{waits} since {since}" if since else waits
        case "unacknowledged":
            return f"sent {since} and not acknowledged" if since else "sent and not acknowledged"
        case "queued" if reason.behind is not None:
            return f"queued behind {reason.behind}"
        case why:
            return why


def _local(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1000, UTC).astimezone()


def _clock(at: int, day: date) -> str:
    """The time alone if it is on that day, else with its date."""
    local = _local(at)
    return local.strftime("%H:%M:%S" if local.date() == day else "%Y-%m-%d %H:%M:%S")


def _today() -> date:
    return datetime.now(UTC).astimezone().date()


def _json(receipt: Receipt) -> str:
    return encode(_present(asdict(receipt))).decode()


def _present(members: dict[str, object]) -> dict[str, object]:
    return dict(_those_there(members))


def _those_there(members: dict[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in members.items():
        if value is not None:
            yield name, _present(value) if isinstance(value, dict) else value


def _say(event: StreamEvent) -> None:
    match event:
        case Subscribed(cursor):
            _tell(f"Watching the receipts behind cursor {cursor}.")
        case ConnectionLost(reason, _, retry_after_s) if retry_after_s is not None:
            _tell(f"Disconnected ({reason}); again in {retry_after_s:.1f} s.")
        # Else the watch ends, and why is told last.


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

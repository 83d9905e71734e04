"""`pushactors device`: a device at the terminal.

1. Messages go to standard output as they come, one line each; what happens to the connection to standard error.
2. A message is on the disk as shown, and acknowledged, before the next line is written: whatever is killed when, it
   costs at most the last line a second time, and no line is lost.
3. A terminal is a log, not a tray: what is written stays, and one that is taken back gets a line that says so.
4. It stays until it is stopped, or told not to come back.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from pushactors.cli.access import Access
from pushactors.clients.device import DeviceClient
from pushactors.clients.events import AliasChanged, Connected, DeviceEvent, Recalled
from pushactors.clients.partings import Displaced
from pushactors.wire.codec import encode
from pushactors.wire.device import MessageNote


async def show_messages(
    access: Access,
    *,
    identity: Path,
    alias: str | None,
    tags: list[str] | None,
    platform: str,
    as_json: bool,
    count: int | None,
    alias_token: str | None = None,
) -> int:
    """Until cancelled, told not to come back, or `count` messages were shown; the exit code."""
    shown = 0
    try:
        async with DeviceClient(
            access.devices_url,
            access.app.app_key,
            identity=identity,
            alias=alias,
            alias_token=alias_token,
            tags=tags,
            platform=platform,
            on_event=_say,
            ssl_context=access.ssl_context(),
        ) as device:
            async for message in device:
                print(_json(message) if as_json else _line(message), flush=True)
                await device.acknowledge(message)
                shown += 1
                if shown == count:
                    break
    except* Displaced:
        _tell(f"For a second device on this machine, name another file than {identity} with --identity.")
        raise
    return 0


def _say(event: DeviceEvent) -> None:
    match event:
        case Connected(registration_id, alias, waiting):
            who = f"{alias} is logged in" if alias else "nobody is logged in"
            _tell(f"Connected as {registration_id}; {who}; {waiting} waiting.")
        case AliasChanged(alias):
            _tell(f"The app server logged {alias} in." if alias else "The app server logged the user out.")
        case Recalled(msg_id):
            _tell(f"[{msg_id}] was taken back.")
        case _:
            again = "not coming back" if event.retry_after_s is None else f"again in {event.retry_after_s:.1f} s"
            _tell(f"Disconnected ({event.reason}); {again}.")


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _json(message: MessageNote) -> str:
    return encode({name: value for name, value in asdict(message).items() if value is not None}).decode()


def _line(message: MessageNote) -> str:
    notification, custom = message.notification or {}, message.message or {}
    said = [str(part) for part in (notification.get("title"), notification.get("alert")) if part]
    said += [str(part) for part in (custom.get("title"), custom.get("msg_content")) if part]
    at = datetime.fromtimestamp(message.sent_at / 1000, UTC).astimezone().strftime("%H:%M:%S")
    to = f" to {message.alias}" if message.alias else ""
    return f"{at} [{message.msg_id}{to}] {' – '.join(said)}"

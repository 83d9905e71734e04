"""What a device client tells an application that wants to know how its connection fares.

1. Events are told in their order, by a plain call from within the client. A visit begins with `Connected`.
2. The listener must not raise, nor take long: the connection waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Connected:
    """A visit began. `waiting` messages are about to be delivered."""

    registration_id: str
    alias: str | None
    waiting: int


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """A visit, or a try at one, ended. `retry_after_s` None: the client does not come back, and has ended."""

    reason: str
    code: int
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class AliasChanged:
    """The app server set (None: cleared) the alias of this device."""

    alias: str | None


@dataclass(frozen=True, slots=True)
class Recalled:
    """The app server took a message back that was shown, or handed to the application (C22).

    It has left the tray, if there is one. What was not shown yet is taken back in silence."""

    msg_id: str


DeviceEvent = Connected | ConnectionLost | AliasChanged | Recalled

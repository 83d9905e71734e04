"""What is delivered, to which verdict: the words of the contract as values.

1. A message is frozen when it is accepted; only its place in mailboxes changes.
2. Time to live runs from acceptance, by the wall clock (C5). A message that may not wait has
   no instant of expiry at all: it lives as long as the visit that finds it.
3. A delivery gets exactly one verdict, for ever; marks are no verdicts (C1).
4. A platform's section of a notification overrides the common members, one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from pushactors.wire.ids import Millis, MsgId, Platform


class Verdict(IntEnum):
    """What became of a delivery. The numbers are stored: never change one."""

    RECEIVED = 1
    MISSED = 2
    EXPIRED = 3
    REPLACED = 4
    OVERFLOWED = 5
    RECALLED = 6
    FENCED = 7

    @property
    def word(self) -> str:
        return self.name.lower()


class Mark(IntEnum):
    """What the user did with a received message. The numbers are bits in the store: never change one."""

    OPENED = 1
    DISMISSED = 2
    WITHDRAWN = 4

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Message:
    """One accepted push, as every target's mailbox shares it.

    `body` is opaque here: the edge made it and the edge reads it again. `expires_at` None: time to live 0.
    """

    msg_id: MsgId
    sent_at: Millis
    expires_at: Millis | None
    overrides: MsgId | None
    body: bytes


def expiry(sent_at: Millis, time_to_live_s: int) -> Millis | None:
    """When a message accepted at `sent_at` is too old to wait; None if it may not wait at all."""
    return Millis(sent_at + time_to_live_s * 1000) if time_to_live_s else None


def merged(notification: Mapping[str, Any], platform: Platform) -> dict[str, Any]:
    """The notification as a device of `platform` is shown it: no other platform's section left in it."""
    common = {name: value for name, value in notification.items() if name not in _PLATFORMS}
    return {**common, **notification.get(platform, {})}


_PLATFORMS: Final = frozenset(Platform)

"""What an actor sees of a connection: one visit of one device, or nothing.

1. Everything here is done at once and never raises: a visit whose socket is gone takes and drops.
2. A visit is ended once, by whoever is first; its farewell reaches the actor later, under its own number.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from pushactors.domain.message import Message
from pushactors.wire.ids import Alias, MsgId, VisitId


class Ending(Enum):
    """Why the server ends a visit. The edge has the close code for each."""

    STOPPED = "stopped"
    DRAIN = "drain"
    SILENT = "silent"
    TOO_SLOW = "too_slow"
    RESTARTED = "restarted"
    BUSY = "busy"
    DISPLACED = "displaced"
    UNAUTHORIZED = "unauthorized"
    PROTOCOL = "protocol"
    REMOVED = "removed"


class Visit(Protocol):
    @property
    def visit_id(self) -> VisitId: ...

    def is_taking(self) -> bool:
        """Whether the outgoing buffer takes more."""

    def hand(self, message: Message, alias: Alias | None) -> None:
        """Puts a message frame into the outgoing buffer; `alias`: the one it was addressed by."""

    def tell_alias(self, alias: Alias | None) -> None:
        """Tells the device that the app server has changed its alias."""

    def tell_recall(self, msg_id: MsgId) -> None:
        """Tells the device that the app server takes this message back."""

    def end(self, why: Ending) -> None:
        """Lets the visit end. Nothing is handed to it afterwards."""

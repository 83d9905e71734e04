"""One unsettled delivery, as it stands in a mailbox.

1. It is made when its message is accepted, or read from the store; it goes from mailbox to mailbox as it is (C25).
2. It decides nothing: what becomes of it is the mailbox's to say.
"""

from __future__ import annotations

from pushactors.domain.message import Message, Verdict
from pushactors.wire.ids import Alias, Binding, Millis, MsgId, UnitNo


class Entry:
    """One unsettled delivery in a mailbox. `message` None: its content is still in the store."""

    __slots__ = (
        "accepted_at",
        "at",
        "binding",
        "expires_at",
        "gate",
        "held_for",
        "message",
        "msg_id",
        "overrides",
        "place",
        "strike",
        "turn",
        "was_sent",
    )

    def __init__(
        self,
        msg_id: MsgId,
        expires_at: Millis | None,
        overrides: MsgId | None,
        binding: Binding | None,
        at: Millis,
        gate: UnitNo = UnitNo(0),
        message: Message | None = None,
        strike: Verdict | None = None,
        held_for: Alias | None = None,
        place: int | None = None,
        was_sent: bool = False,
    ) -> None:
        self.msg_id = msg_id
        self.expires_at = expires_at
        self.overrides = overrides
        self.binding = binding
        self.accepted_at = at
        self.at = at
        """Since when it is in the state that it is in."""
        self.gate = gate
        self.message = message
        self.strike = strike
        self.held_for = held_for
        """The alias that it waits for when it may not wait here."""
        self.place = msg_id if place is None else place
        """Where it stands in its mailbox, as the store has it (C9)."""
        self.turn = 0
        """As which it was sent on this visit."""
        self.was_sent = was_sent
        """Whether it was, or may have been, sent on an earlier visit."""

    def is_about(self, msg_id: MsgId) -> bool:
        return self.msg_id == msg_id or self.overrides == msg_id

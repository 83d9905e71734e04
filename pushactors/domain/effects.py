"""What a mailbox decided, for its actor to carry out.

1. `Settled`: this delivery has its verdict. Durable before anybody is told (C2).
2. `Struck`: this delivery is on the wire and will get this verdict unless it is acknowledged (C3). Durable as well.
3. `Returned`: this delivery leaves the mailbox without a verdict, and waits for its alias again (C25).
4. The order of effects is the order in which they were decided.
"""

from __future__ import annotations

from typing import NamedTuple

from pushactors.domain.entry import Entry
from pushactors.domain.message import Verdict
from pushactors.wire.ids import MsgId


class Settled(NamedTuple):
    msg_id: MsgId
    verdict: Verdict
    was_sent: bool
    """Whether it left the count of those on the wire by this."""


class Struck(NamedTuple):
    msg_id: MsgId
    verdict: Verdict


class Returned(NamedTuple):
    """`entry.held_for` is its alias."""

    entry: Entry
    was_sent: bool
    """Whether it left the count of those on the wire by this."""


Effect = Settled | Struck | Returned

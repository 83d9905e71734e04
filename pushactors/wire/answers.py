"""What app servers are answered, and what they are told unasked, as a client reads it.

1. Ids and cursors are text here, as they are on the wire. A default means that it may be left out.
2. What a later server adds is passed over (see `codec`, law 2).
"""

from __future__ import annotations

from dataclasses import dataclass

from pushactors.wire.ids import Alias


@dataclass(frozen=True, slots=True, kw_only=True)
class PushAnswer:
    """`online` of the targets had a visit when the push was accepted, `absent` of them had none."""

    msg_id: str
    targets: int
    online: int
    absent: int
    sendno: int | None = None


@dataclass(frozen=True, slots=True)
class Validated:
    """How many targets the push would have had now."""

    targets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The numbers of one push: `targets` is the sum of `waiting`, `sent` and the seven verdicts (C1)."""

    msg_id: str
    targets: int
    waiting: int = 0
    sent: int = 0
    received: int = 0
    missed: int = 0
    expired: int = 0
    replaced: int = 0
    overflowed: int = 0
    recalled: int = 0
    fenced: int = 0
    opened: int = 0
    dismissed: int = 0
    withdrawn: int = 0
    sent_at: int | None = None


@dataclass(frozen=True, slots=True)
class PushList:
    pushes: tuple[Report, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """`code`: 0 received, 1 not received, 2 not a device of this app, 3 not a target (C19)."""

    code: int
    state: str | None = None
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """One entry of a mailbox: `state` is `waiting` or `sent`."""

    msg_id: str
    state: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """`mailbox` None: this answer does not say (lists do not)."""

    registration_id: str
    platform: str
    online: bool
    alias: Alias | None = None
    tags: tuple[str, ...] = ()
    last_seen_at: int | None = None
    mailbox: tuple[Waiting, ...] | None = None


@dataclass(frozen=True, slots=True)
class DeviceList:
    devices: tuple[DeviceInfo, ...]


@dataclass(frozen=True, slots=True)
class Holders:
    """The devices that have, or lost, an alias."""

    registration_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TagHolders:
    """At most 1000 of the `count` devices that have the tag."""

    registration_ids: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class TagList:
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Presence:
    online: bool
    last_seen_at: int | None = None


@dataclass(frozen=True, slots=True)
class Recall:
    """What a recall found: the four add up to the targets (C22)."""

    recalled: int
    on_the_way: int
    received: int
    settled: int


@dataclass(frozen=True, slots=True)
class Subscribed:
    """Receipts behind `cursor` come next."""

    cursor: str


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a delivery is overdue: `absent` or `unheld` or `unacknowledged` (`since`), or `queued` (`behind` so many)."""

    why: str
    since: int | None = None
    behind: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """`event`: a verdict, a mark, or `overdue`, which has a `reason`. `registration_id` None: it waits for `alias`."""

    cursor: str
    msg_id: str
    event: str
    at: int
    registration_id: str | None = None
    alias: str | None = None
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class ReceiptsNote:
    """The notification `receipts`. `cursor`: of the last of them."""

    events: tuple[Receipt, ...]
    cursor: str


@dataclass(frozen=True, slots=True)
class ReceiptsEnded:
    """The notification `receipts.ended`."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEvent:
    """`event`: `accepted`, `stored`, `sent`, `held`, `bound`, `struck`, `overdue`, `acknowledged`, a verdict or a mark.

    `visit` where it happened on one: it counts the visits of that device. `verdict`: of a strike.
    """

    event: str
    at: int
    visit: int | None = None
    verdict: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """One delivery's course, in order. `state`: `waiting`, `sent` or its verdict."""

    msg_id: str
    state: str
    events: tuple[TimelineEvent, ...]
    registration_id: str | None = None
    alias: str | None = None

"""What a commit is made of: changes, which cannot fail. Part of a store's contract, and reached through `contract`.

1. A change that does not fit is left alone, and counted as ignored; each says when that is.
2. They are applied in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pushactors.domain.message import Mark, Message, Verdict
from pushactors.domain.receipts import Reason
from pushactors.stores.rows import CidRow, DeviceRow, TargetRow
from pushactors.wire.ids import (
    Alias,
    AppKey,
    AppNo,
    Binding,
    Consumer,
    Cursor,
    DeviceNo,
    Millis,
    MsgId,
    Platform,
    Tag,
    VisitNo,
)


class AppAdded(NamedTuple):
    app_no: AppNo
    app_key: AppKey


class Registered(NamedTuple):
    """A new device. `install`: a digest of the client's install key, unique in the app while the device lives."""

    device: DeviceRow
    install: bytes | None


class Seen(NamedTuple):
    device_no: DeviceNo
    at: Millis


class Arrived(NamedTuple):
    """A visit begins, the device's `visit`th. It is seen by that, and present until `Left`, or another `Arrived`."""

    device_no: DeviceNo
    at: Millis
    visit: VisitNo


class Left(NamedTuple):
    """The visit ended, and what was on its wire is in the changes of the same commit. The device is seen by that."""

    device_no: DeviceNo
    at: Millis


class PlatformChanged(NamedTuple):
    device_no: DeviceNo
    platform: Platform


class AliasChanged(NamedTuple):
    device_no: DeviceNo
    alias: Alias | None
    binding: Binding


class TagsChanged(NamedTuple):
    device_no: DeviceNo
    tags: tuple[Tag, ...]


class DeviceDeleted(NamedTuple):
    """The device is no longer one of its app. Its deliveries are settled by changes of their own, before this one."""

    device_no: DeviceNo
    at: Millis


class Stamped(NamedTuple):
    """When this commit is made: the pushes that are accepted in it are `stored` then."""

    at: Millis


class Accepted(NamedTuple):
    """A push with all its targets. `message.body` is kept only if `keep_body`; targets without a verdict wait.
    `deliver_by`: when they are overdue."""

    app_no: AppNo
    message: Message
    keep_body: bool
    targets: Sequence[TargetRow]
    cid: CidRow | None
    deliver_by: Millis | None = None


class Settled(NamedTuple):
    """The one verdict of a delivery. Ignored if it has one. `visit` and `sent_at`: of its last sending, if it was on
    the wire by then."""

    msg_id: MsgId
    device_no: DeviceNo
    verdict: Verdict
    at: Millis
    visit: VisitNo | None = None
    sent_at: Millis | None = None


class Struck(NamedTuple):
    """The verdict that an unsettled delivery gets unless it is acknowledged. Ignored if settled or struck before; but
    where it is held for an alias, `fenced` gives way to another strike."""

    msg_id: MsgId
    device_no: DeviceNo
    verdict: Verdict
    at: Millis = Millis(0)


class Sent(NamedTuple):
    """An unsettled delivery was sent on that visit (0: it may have been, on one that is not known). If it is settled
    since, or moved, this comes too late and does nothing; that counts as ignored as little as saying it twice."""

    msg_id: MsgId
    device_no: DeviceNo
    visit: VisitNo
    at: Millis


class Moved(NamedTuple):
    """An unsettled delivery changes its mailbox, and takes this `place` there (None: its `msg_id`) under this binding.
    A strike is forgotten, and whether it was sent. Ignored if it is not there, if the other one has this push, or,
    being a device, ever had it. What was settled in the mailbox of an alias gives its place to what comes back there:
    it keeps its verdict in the counts, and has no status of its own any more."""

    msg_id: MsgId
    device_no: DeviceNo
    to: DeviceNo
    binding: Binding | None
    place: int | None
    at: Millis


class Overdue(NamedTuple):
    """An unsettled delivery is past its deadline. Ignored if it is settled, has no deadline, or was overdue before."""

    msg_id: MsgId
    device_no: DeviceNo
    at: Millis
    reason: Reason


class Noticed(NamedTuple):
    """The device must be told that this push was recalled, until it answers or `until`. A repetition moves `until`."""

    msg_id: MsgId
    device_no: DeviceNo
    until: Millis


class NoticeAnswered(NamedTuple):
    """The device need not be told any more. Ignored if it need not anyway."""

    msg_id: MsgId
    device_no: DeviceNo


class ConsumerMoved(NamedTuple):
    """That consumer, new or not, resumes behind this cursor."""

    app_no: AppNo
    consumer: Consumer
    cursor: Cursor


class Marked(NamedTuple):
    """What a user did with a message. Ignored unless its verdict is `received` and it has no such mark yet."""

    msg_id: MsgId
    device_no: DeviceNo
    mark: Mark
    at: Millis


class IdsReserved(NamedTuple):
    """Message ids below this may have been told to somebody: after a restart none of them is given again."""

    below: MsgId


Change = (
    AppAdded
    | Registered
    | Seen
    | Arrived
    | Left
    | PlatformChanged
    | AliasChanged
    | TagsChanged
    | DeviceDeleted
    | Stamped
    | Accepted
    | Settled
    | Struck
    | Sent
    | Moved
    | Marked
    | Overdue
    | Noticed
    | NoticeAnswered
    | ConsumerMoved
    | IdsReserved
)

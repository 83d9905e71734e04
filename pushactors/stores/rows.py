"""What is read from a store: frozen rows. Part of its contract, and reached through `contract`.

1. Instants are milliseconds since 1970; ids are those of `wire.ids`.
2. A row says what is durable, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pushactors.domain.message import Mark, Verdict
from pushactors.domain.receipts import Event, Reason
from pushactors.wire.ids import (
    Alias,
    AppNo,
    Binding,
    Cid,
    Cursor,
    DeviceNo,
    Millis,
    MsgId,
    Platform,
    RegistrationId,
    Tag,
    VisitNo,
)


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One device as it is registered. `binding` counts the settings of its alias, from 0; `visits` its visits.

    `was_present`: its last `Arrived` was not followed by `Left`. `is_alias`: no device, but the mailbox of `alias`; its
    `registration_id` is made up, unique, and told to nobody.
    """

    device_no: DeviceNo
    app_no: AppNo
    registration_id: RegistrationId
    platform: Platform
    alias: Alias | None
    binding: Binding
    tags: tuple[Tag, ...]
    last_seen_at: Millis
    visits: VisitNo = VisitNo(0)
    was_present: bool = False
    is_alias: bool = False


class DeliveryRow(NamedTuple):
    """One unsettled delivery. `binding` None: not addressed by alias. `strike`: the verdict it gets (C3).

    `place`: where it stands in its mailbox, the `msg_id` unless it was moved. `held_for`: the alias that it waits for
    when nobody has it. `was_sent`: some visit was sent it (`Sent`).
    """

    msg_id: MsgId
    sent_at: Millis
    expires_at: Millis | None
    overrides: MsgId | None
    binding: Binding | None
    strike: Verdict | None
    place: int = 0
    held_for: Alias | None = None
    was_sent: bool = False


class NoticeRow(NamedTuple):
    """A device must be told of a recall until it answers, or until this instant (C22)."""

    msg_id: MsgId
    until: Millis


class TargetRow(NamedTuple):
    """One target of a push at its acceptance; `verdict` if it had one at once (missed, fenced), at `sent_at`."""

    device_no: DeviceNo
    binding: Binding | None
    verdict: Verdict | None
    held_for: Alias | None = None


class DueRow(NamedTuple):
    """A device with an unsettled delivery whose time runs out at `expires_at`."""

    expires_at: Millis
    device_no: DeviceNo
    app_no: AppNo


class OverdueRow(NamedTuple):
    """An unsettled delivery whose deadline was `deliver_by`. `here_since`: when it was accepted, or moved to where it
    is. `last_seen_at`: of its device; None in the mailbox of an alias."""

    deliver_by: Millis
    device_no: DeviceNo
    msg_id: MsgId
    app_no: AppNo
    here_since: Millis
    last_seen_at: Millis | None


class UnsettledRow(NamedTuple):
    """An unsettled delivery of a push. `may_have_it`: it was sent, or its device was present when a process ended.
    `strike` None as well if it is a fence that only has it wait for its alias again."""

    device_no: DeviceNo
    may_have_it: bool
    strike: Verdict | None


class ReceiptRow(NamedTuple):
    """`registration_id` None: it was in the mailbox of `alias`, which is None else. `reason`: of `overdue` only."""

    cursor: Cursor
    msg_id: MsgId
    registration_id: RegistrationId | None
    alias: Alias | None
    event: Event
    at: Millis
    reason: Reason | None


class ReceiptPage(NamedTuple):
    """`oldest`: of the oldest receipt kept, `last` if there is none. `last`: the newest ever given, 0 before that."""

    rows: Sequence[ReceiptRow]
    oldest: Cursor
    last: Cursor


class TimelineEntry(NamedTuple):
    """`word`: `sent` and `acknowledged` have a `visit` (0: not known), `struck` a `verdict`."""

    word: str
    at: Millis
    visit: VisitNo | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """What is durable of the course of one delivery. `entries` in order of time: `accepted`, `stored`, then `sent`,
    `struck`, `overdue`, `held`, `bound`, and at its end `acknowledged` (received on the visit that was sent it), the
    verdict's word, and marks by their words. `verdict` None: unsettled."""

    entries: Sequence[TimelineEntry]
    verdict: Verdict | None


class CidRow(NamedTuple):
    """The first successful answer to a push request with this `cid` (C6)."""

    app_no: AppNo
    cid: Cid
    digest: bytes
    msg_id: MsgId
    sendno: int | None
    targets: int
    online: int
    at: Millis


@dataclass(frozen=True, slots=True)
class ReportRow:
    """What is durable of one push: `verdicts` and `marks` name only those that occurred."""

    msg_id: MsgId
    sent_at: Millis
    targets: int
    unsettled: int
    verdicts: Mapping[Verdict, int]
    marks: Mapping[Mark, int]


class StatusRow(NamedTuple):
    """What is durable of one (push, device) pair. `verdict` None: unsettled, since `at`."""

    verdict: Verdict | None
    at: Millis


@dataclass(frozen=True, slots=True)
class MailboxRow:
    """A living device with what is unsettled for it, in the order of their places, and the recalls that it must be told
    of, oldest first."""

    device: DeviceRow
    deliveries: tuple[DeliveryRow, ...]
    notices: tuple[NoticeRow, ...] = ()

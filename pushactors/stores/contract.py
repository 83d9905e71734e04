"""What a store promises, whatever it is made of. The only door from the actors to anything that lasts.

1. A commit is a list of changes under a number. It happens whole, in its order, or not at all; when `commit` returns
   it is durable (C2). Numbers rise by one. A number that was applied already is acknowledged and not applied again,
   so a commit whose answer was lost can simply be asked for again. A number that leaves one out means that the store
   lost a commit: it is refused as `StoreUnusable`.
2. Changes cannot fail. What no longer fits (a verdict for a delivery that has one, a mark on one that was not
   received, a mark that is there; anything about a device or push that is unknown, or added twice) is left alone and
   counted as `ignored`. So one verdict is for ever (C1), even if an actor were wrong.
3. The numbers of a push always add up in what is durable: targets = unsettled + the sum of the verdicts (C1).
4. Content is deleted in the commit that gives the push's last delivery its verdict.
5. Reads see whole commits, every commit that had returned before the read began, and maybe later ones.
6. `open` takes the store over under a higher fencing number; whoever had it is refused from then on (`StoreFenced`).
7. Any operation may raise `StoreBusy`: it may or may not have happened, and asking again is safe. Callers do so
   through `patient` and give up with the store's own error. Every other `StoreFailure` is final for the process.
8. A store knows no rule of the trade: it never decides who is a target, what gives way, or what expires.

Rows are frozen; instants are milliseconds since 1970; ids are those of `wire.ids`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from pushactors.domain.message import Mark, Message, Verdict
from pushactors.wire.ids import (
    Alias,
    AppKey,
    AppNo,
    Binding,
    Cid,
    DeviceNo,
    Millis,
    MsgId,
    Platform,
    RegistrationId,
    Tag,
)

# --- Rows ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One device as it is registered. `binding` counts the settings of its alias, from 0."""

    device_no: DeviceNo
    app_no: AppNo
    registration_id: RegistrationId
    platform: Platform
    alias: Alias | None
    binding: Binding
    tags: tuple[Tag, ...]
    last_seen_at: Millis


class DeliveryRow(NamedTuple):
    """One unsettled delivery. `binding` None: not addressed by alias. `strike`: the verdict it gets (C3)."""

    msg_id: MsgId
    sent_at: Millis
    expires_at: Millis | None
    overrides: MsgId | None
    binding: Binding | None
    strike: Verdict | None


class TargetRow(NamedTuple):
    """One target of a push at its acceptance; `verdict` if it had one at once (missed, fenced), at `sent_at`."""

    device_no: DeviceNo
    binding: Binding | None
    verdict: Verdict | None


class DueRow(NamedTuple):
    """A device with an unsettled delivery whose time runs out at `expires_at`."""

    expires_at: Millis
    device_no: DeviceNo
    app_no: AppNo


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


# --- Changes ---------------------------------------------------------------------------------------------------


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


class Accepted(NamedTuple):
    """A push with all its targets. `message.body` is kept only if `keep_body`; targets without a verdict wait."""

    app_no: AppNo
    message: Message
    keep_body: bool
    targets: Sequence[TargetRow]
    cid: CidRow | None


class Settled(NamedTuple):
    """The one verdict of a delivery. Ignored if it has one."""

    msg_id: MsgId
    device_no: DeviceNo
    verdict: Verdict
    at: Millis


class Struck(NamedTuple):
    """The verdict that an unsettled delivery gets unless it is acknowledged. Ignored if settled or struck before."""

    msg_id: MsgId
    device_no: DeviceNo
    verdict: Verdict


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
    | PlatformChanged
    | AliasChanged
    | TagsChanged
    | DeviceDeleted
    | Accepted
    | Settled
    | Struck
    | Marked
    | IdsReserved
)

# --- Answers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """What the new owner must know to go on numbering."""

    epoch: int
    """The fencing number of this owner: higher than that of every earlier one."""
    last_commit: int
    apps: Mapping[AppKey, AppNo]
    ids_below: MsgId
    """Every message id from here on is fresh (1 in an empty store)."""
    last_device_no: DeviceNo
    secret: bytes
    """32 random bytes, made with the store and the same for ever: what device secrets are derived from."""


@dataclass(frozen=True, slots=True)
class MailboxRow:
    """A living device with what is unsettled for it, oldest first."""

    device: DeviceRow
    deliveries: tuple[DeliveryRow, ...]


class Store(Protocol):
    """See the law on top. All ids are of the store's own process-wide numbering; unknown ones are left out."""

    async def open(self) -> Opened:
        """Takes the store over. Called once, before everything else. Raises `StoreUnusable` in a sentence."""

    async def aclose(self) -> None:
        """Lets go of everything. No other operation may be under way. Safe to call twice."""

    async def commit(self, number: int, changes: Sequence[Change]) -> int:
        """Makes `changes` durable under `number`; how many of them were ignored (law 2; 0 for a repetition)."""

    async def devices(self, app_no: AppNo, after: DeviceNo, limit: int) -> Sequence[DeviceRow]:
        """The living devices of an app with a `device_no` over `after`, in that order, at most `limit`."""

    async def mailboxes(self, device_nos: Sequence[DeviceNo]) -> Mapping[DeviceNo, MailboxRow]:
        """Those living devices, each with its unsettled deliveries. In a store with several owners: claims them."""

    async def bodies(self, msg_ids: Sequence[MsgId]) -> Mapping[MsgId, bytes]:
        """The content of those pushes, as far as it is kept."""

    async def due(self, after: tuple[Millis, DeviceNo], until: Millis, limit: int) -> Sequence[DueRow]:
        """Living devices with unsettled deliveries that run out not later than `until`: the first `limit` rows behind
        `after` in order of (expires_at, device_no), each pair once."""

    async def unfinished(self, limit: int) -> Sequence[tuple[MsgId, DeviceNo, Verdict]]:
        """Deliveries that a crash ended: the struck ones (their strike), and those with no `expires_at` (missed)."""

    async def installed(self, app_no: AppNo, install: bytes) -> RegistrationId | None:
        """The living device that was registered with this install key."""

    async def cids(self, app_no: AppNo, cids: Sequence[Cid], since: Millis) -> Mapping[Cid, CidRow]:
        """The remembered answers to those `cid`s, not older than `since`."""

    async def reports(self, app_no: AppNo, msg_ids: Sequence[MsgId]) -> Mapping[MsgId, ReportRow]:
        """What is durable of those pushes of this app."""

    async def pushes(self, app_no: AppNo, before: MsgId | None, limit: int) -> Sequence[ReportRow]:
        """The newest pushes of this app, below `before` if given, newest first."""

    async def statuses(
        self, app_no: AppNo, msg_id: MsgId, registration_ids: Sequence[RegistrationId]
    ) -> Mapping[RegistrationId, StatusRow | None] | None:
        """None if the app has no such push. Else by id: the pair's row, or None for a living device of the app that
        was no target. Devices deleted since are found while their deliveries are kept; other ids are left out."""

    async def sweep(self, now: Millis, limit: int) -> int:
        """Removes about `limit` rows that nobody can ask for any more, in one short step; how many it removed.

        Settled pushes 28 days after their last event (C18), `cid`s after a day (C6), deleted devices not before their
        last delivery is gone. Returns 0 when there was nothing to do; the caller then rests."""

    async def backup(self, target: Path) -> None:
        """Writes a whole, consistent copy to a new file. Raises `StoreUnusable` if it cannot, or `target` is there."""


REPORT_KEPT_DAYS = 28
CID_KEPT_DAYS = 1

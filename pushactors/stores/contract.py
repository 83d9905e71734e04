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
9. Every verdict, mark and `Overdue` that took effect is a receipt of its app, appended in the commit that brought it,
   in the order of the changes (C20). A push's targets that have a verdict at once come in their own order. Cursors of
   an app are consecutive, from 1, and never used again.
10. A mailbox is that of a device, or that of an alias (`DeviceRow.is_alias`), which is on no list of devices. A
   delivery is in one mailbox, and can be moved to another (`Moved`): it stays the same delivery (C1).

The words of it are next door: `rows` are what is read, `changes` what is written. Both are reached through here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pushactors.domain.message import Verdict
from pushactors.stores.changes import (
    Accepted,
    AliasChanged,
    AppAdded,
    Arrived,
    Change,
    ConsumerMoved,
    DeviceDeleted,
    IdsReserved,
    Left,
    Marked,
    Moved,
    NoticeAnswered,
    Noticed,
    Overdue,
    PlatformChanged,
    Registered,
    Seen,
    Sent,
    Settled,
    Stamped,
    Struck,
    TagsChanged,
)
from pushactors.stores.rows import (
    CidRow,
    DeliveryRow,
    DeviceRow,
    DueRow,
    MailboxRow,
    NoticeRow,
    OverdueRow,
    ReceiptPage,
    ReceiptRow,
    ReportRow,
    StatusRow,
    TargetRow,
    TimelineEntry,
    TimelineRow,
    UnsettledRow,
)
from pushactors.wire.ids import AppKey, AppNo, Cid, Consumer, Cursor, DeviceNo, Millis, MsgId, RegistrationId

__all__ = [
    "CID_KEPT_DAYS",
    "NO_LIMITS",
    "RECEIPT_BYTES",
    "RECEIPT_KEPT_DAYS",
    "REPORT_KEPT_DAYS",
    "Accepted",
    "AliasChanged",
    "AppAdded",
    "Arrived",
    "Change",
    "CidRow",
    "ConsumerMoved",
    "DeliveryRow",
    "DeviceDeleted",
    "DeviceRow",
    "DueRow",
    "IdsReserved",
    "Left",
    "MailboxRow",
    "Marked",
    "Moved",
    "NoticeAnswered",
    "NoticeRow",
    "Noticed",
    "Opened",
    "Overdue",
    "OverdueRow",
    "PlatformChanged",
    "ReceiptPage",
    "ReceiptRow",
    "Registered",
    "ReportRow",
    "Seen",
    "Sent",
    "Settled",
    "Stamped",
    "StatusRow",
    "Store",
    "Struck",
    "TagsChanged",
    "TargetRow",
    "TimelineEntry",
    "TimelineRow",
    "UnsettledRow",
]


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


NO_LIMITS: Mapping[AppNo, int] = {}


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

    async def alias_mailboxes(self, app_no: AppNo, after: DeviceNo, limit: int) -> Sequence[DeviceRow]:
        """The same for the mailboxes of aliases, which `devices` leaves out."""

    async def mailboxes(self, device_nos: Sequence[DeviceNo]) -> Mapping[DeviceNo, MailboxRow]:
        """Those living devices, each with its unsettled deliveries. In a store with several owners: claims them."""

    async def bodies(self, msg_ids: Sequence[MsgId]) -> Mapping[MsgId, bytes]:
        """The content of those pushes, as far as it is kept."""

    async def due(self, after: tuple[Millis, DeviceNo], until: Millis, limit: int) -> Sequence[DueRow]:
        """Living devices with unsettled deliveries that run out not later than `until`: the first `limit` rows behind
        `after` in order of (expires_at, device_no), each pair once."""

    async def unfinished(self, limit: int) -> Sequence[tuple[MsgId, DeviceNo, Verdict]]:
        """Deliveries that a crash ended: the struck ones (their strike), and those with no `expires_at` (missed). Not
        those that are struck `fenced` and held for an alias: `stranded` has them."""

    async def stranded(self, app_no: AppNo) -> Sequence[DeviceNo]:
        """Living devices with deliveries that are struck `fenced` and held for an alias."""

    async def overdue(
        self, after: tuple[Millis, DeviceNo, MsgId], until: Millis, limit: int
    ) -> Sequence[OverdueRow]:
        """Unsettled deliveries with a deadline not later than `until` that were not overdue yet: the first `limit`
        behind `after` in order of (deliver_by, device_no, msg_id)."""

    async def unsettled(
        self, app_no: AppNo, msg_id: MsgId, after: DeviceNo, limit: int
    ) -> tuple[ReportRow, Sequence[UnsettledRow]] | None:
        """None if the app has no such push. Else what `reports` has of it, and the first `limit` of its unsettled
        deliveries with a `device_no` over `after`, in that order."""

    async def recipients(self, msg_id: MsgId, after: DeviceNo, limit: int) -> Sequence[DeviceNo]:
        """The living devices with a `device_no` over `after` whose delivery is settled, and who received it, or were
        sent it: in that order, at most `limit`."""

    async def had(self, device_no: DeviceNo, msg_ids: Sequence[MsgId]) -> Sequence[MsgId]:
        """Those of the pushes that were ever a delivery to this device, settled or not."""

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

    async def timeline(self, app_no: AppNo, msg_id: MsgId, device_no: DeviceNo) -> TimelineRow | None:
        """The course of one delivery; None if the app has no such push, or it was no delivery to that mailbox."""

    async def device_no(self, app_no: AppNo, registration_id: RegistrationId) -> DeviceNo | None:
        """The device of the app with this id, a deleted one too while it is kept."""

    async def receipts(self, app_no: AppNo, after: Cursor, limit: int) -> ReceiptPage:
        """The first `limit` receipts behind `after`, oldest first."""

    async def consumers(self, app_no: AppNo) -> Mapping[Consumer, Cursor]:
        """Every consumer that the app ever named, and behind which cursor it resumes."""

    async def sweep(self, now: Millis, limit: int, receipts_kept: Mapping[AppNo, int] = NO_LIMITS) -> int:
        """Removes about `limit` rows that nobody can ask for any more, in one short step; how many it removed.

        Settled pushes 28 days after their last event (C18), `cid`s after a day (C6), deleted devices not before their
        last delivery is gone, receipts after 10 days and beyond the newest `receipts_kept` of their app (C20), notices
        of recalls that are over (C22). Returns 0 when there was nothing to do; the caller then rests."""

    async def backup(self, target: Path) -> None:
        """Writes a whole, consistent copy to a new file. Raises `StoreUnusable` if it cannot, or `target` is there."""


REPORT_KEPT_DAYS = 28
CID_KEPT_DAYS = 1
RECEIPT_KEPT_DAYS = 10
RECEIPT_BYTES = 34
"""What one receipt takes on disk, measured on SQLite with 1, 20 and 500 apps: how many `receipts_max_bytes` are."""

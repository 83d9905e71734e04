"""What a store in memory keeps, and what each change does to it.

1. A commit is applied without a wait or a failure in between, so it is whole.
2. A change that does not fit is left alone and counted (law 2).
3. A push knows its unsettled deliveries and its counts; they move together, so they always add up (C1).
"""

from __future__ import annotations

import secrets
from bisect import insort
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pushactors.domain.message import Mark, Message, Verdict
from pushactors.stores.contract import (
    Accepted,
    AliasChanged,
    AppAdded,
    Change,
    CidRow,
    DeliveryRow,
    DeviceDeleted,
    DeviceRow,
    IdsReserved,
    Marked,
    PlatformChanged,
    Registered,
    Seen,
    Settled,
    StatusRow,
    Struck,
    TagsChanged,
)
from pushactors.wire.ids import AppKey, AppNo, Binding, Cid, DeviceNo, Millis, MsgId, RegistrationId


@dataclass(slots=True)
class Device:
    """`kept` counts the deliveries that still name it, settled ones too."""

    row: DeviceRow
    install: bytes | None
    deleted: bool = False
    kept: int = 0


@dataclass(slots=True)
class Delivery:
    """`verdict` None: unsettled, since `at`."""

    binding: Binding | None
    verdict: Verdict | None
    at: Millis
    strike: Verdict | None = None
    marks: int = 0


@dataclass(slots=True)
class Push:
    app_no: AppNo
    message: Message
    body: bytes | None
    last_event_at: Millis
    deliveries: dict[DeviceNo, Delivery]
    unsettled: set[DeviceNo]
    targets: int
    verdicts: Counter[Verdict]
    marks: Counter[Mark] = field(default_factory=Counter)

    def row(self, device_no: DeviceNo) -> DeliveryRow:
        message, delivery = self.message, self.deliveries[device_no]
        return DeliveryRow(
            message.msg_id,
            message.sent_at,
            message.expires_at,
            message.overrides,
            delivery.binding,
            delivery.strike,
        )

    def status(self, device_no: DeviceNo) -> StatusRow | None:
        delivery = self.deliveries.get(device_no)
        return StatusRow(delivery.verdict, delivery.at) if delivery else None


class MemoryDisk:
    """What outlives every `MemoryStore` over it."""

    def __init__(self) -> None:
        self.epoch = 0
        self.last_commit = 0
        self.ids_below = MsgId(1)
        self.last_device_no = DeviceNo(0)
        self.secret = secrets.token_bytes(32)
        self.apps: dict[AppKey, AppNo] = {}
        self.devices: dict[DeviceNo, Device] = {}
        self.device_nos: list[DeviceNo] = []
        """Those of `devices`, in order."""
        self.deleted: dict[DeviceNo, Device] = {}
        """Those of `devices` that live no more."""
        self.by_registration: dict[RegistrationId, DeviceNo] = {}
        self.by_install: dict[tuple[AppNo, bytes], DeviceNo] = {}
        self.pushes: dict[MsgId, Push] = {}
        self.unsettled: dict[MsgId, Push] = {}
        """Those of `pushes` that are not settled yet."""
        self.mailboxes: dict[DeviceNo, dict[MsgId, Push]] = {}
        self.leaving: list[Push] = []
        """Pushes that nobody can ask for, with deliveries that are not removed yet."""
        self.cids: dict[tuple[AppNo, Cid], CidRow] = {}

    def apply(self, number: int, changes: Sequence[Change]) -> int:
        """Applies a commit; how many of its changes were ignored."""
        self.last_commit = number
        return sum(self._apply(change) for change in changes)

    def living(self, device_no: DeviceNo) -> DeviceRow | None:
        device = self.devices.get(device_no)
        return None if device is None or device.deleted else device.row

    def _apply(self, change: Change) -> int:
        """How often the change was ignored: once, or once for every target that an `Accepted` names again."""
        match change:
            case Accepted():
                return self._accept(change)
            case Settled() | Struck() | Marked():
                push = self.pushes.get(change.msg_id)
                delivery = push.deliveries.get(change.device_no) if push else None
                return int(push is None or delivery is None or not self._tell(change, push, delivery))
            case Registered(row, install):
                return int(not self._register(row, install))
            case AppAdded(app_no, app_key):
                if app_key in self.apps or app_no in self.apps.values():
                    return 1
                self.apps[app_key] = app_no
                return 0
            case IdsReserved(below):
                self.ids_below = max(self.ids_below, below)
                return 0
            case Seen() | PlatformChanged() | AliasChanged() | TagsChanged() | DeviceDeleted():
                device = self.devices.get(change.device_no)
                if device is None or device.deleted:
                    return 1
                self._change(device, change)
                return 0

    def _change(
        self, device: Device, change: Seen | PlatformChanged | AliasChanged | TagsChanged | DeviceDeleted
    ) -> None:
        match change:
            case Seen(_, at):
                device.row = replace(device.row, last_seen_at=at)
            case PlatformChanged(_, platform):
                device.row = replace(device.row, platform=platform)
            case AliasChanged(_, alias, binding):
                device.row = replace(device.row, alias=alias, binding=binding)
            case TagsChanged(_, tags):
                device.row = replace(device.row, tags=tags)
            case DeviceDeleted(device_no):
                device.deleted = True
                self.deleted[device_no] = device
                if device.install is not None:
                    del self.by_install[device.row.app_no, device.install]

    def _register(self, row: DeviceRow, install: bytes | None) -> bool:
        # Ignored or not: whoever made up the number believes that it is given.
        self.last_device_no = max(self.last_device_no, row.device_no)
        key = None if install is None else (row.app_no, install)
        if row.device_no in self.devices or row.registration_id in self.by_registration or key in self.by_install:
            return False
        self.devices[row.device_no] = Device(row, install)
        insort(self.device_nos, row.device_no)
        self.by_registration[row.registration_id] = row.device_no
        if key is not None:
            self.by_install[key] = row.device_no
        return True

    def _accept(self, change: Accepted) -> int:
        message = change.message
        if message.msg_id in self.pushes:
            return 1
        deliveries = {
            device_no: Delivery(binding, verdict, message.sent_at)
            # Reversed, so that of two targets with one device the first counts.
            for device_no, binding, verdict in reversed(change.targets)
        }
        unsettled = {device_no for device_no, delivery in deliveries.items() if delivery.verdict is None}
        push = self.pushes[message.msg_id] = Push(
            app_no=change.app_no,
            message=replace(message, body=b""),
            body=message.body if change.keep_body and unsettled else None,
            last_event_at=message.sent_at,
            deliveries=deliveries,
            unsettled=unsettled,
            targets=len(deliveries),
            verdicts=Counter(delivery.verdict for delivery in deliveries.values() if delivery.verdict is not None),
        )
        self.ids_below = max(self.ids_below, MsgId(message.msg_id + 1))
        if unsettled:
            self.unsettled[message.msg_id] = push
        for device_no in unsettled:
            self.mailboxes.setdefault(device_no, {})[message.msg_id] = push
        for device_no in deliveries:
            if device := self.devices.get(device_no):
                device.kept += 1
        if change.cid is not None:
            self.cids[change.cid.app_no, change.cid.cid] = change.cid
        return len(change.targets) - len(deliveries)

    def _tell(self, change: Settled | Struck | Marked, push: Push, delivery: Delivery) -> bool:
        match change:
            case Settled(msg_id, device_no, verdict, at):
                if delivery.verdict is not None:
                    return False
                delivery.verdict, delivery.at = verdict, at
                push.verdicts[verdict] += 1
                push.unsettled.remove(device_no)
                if not push.unsettled:
                    push.body = None
                    del self.unsettled[msg_id]
                mailbox = self.mailboxes[device_no]
                del mailbox[msg_id]
                if not mailbox:
                    del self.mailboxes[device_no]
                push.last_event_at = max(push.last_event_at, at)
            case Struck(_, _, verdict):
                if delivery.verdict is not None or delivery.strike is not None:
                    return False
                delivery.strike = verdict
            case Marked(_, _, mark, at):
                if delivery.verdict is not Verdict.RECEIVED or delivery.marks & mark:
                    return False
                delivery.marks |= mark
                push.marks[mark] += 1
                push.last_event_at = max(push.last_event_at, at)
        return True

"""What a store in memory keeps, and what each change does to it.

1. A commit is applied without a wait or a failure in between, so it is whole.
2. A change that does not fit is left alone and counted (law 2).
3. What took effect on a delivery is a receipt of its app at once, so receipts are in the order of the changes (law 9).
"""

from __future__ import annotations

import secrets
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from pushactors.domain.message import Mark, Verdict
from pushactors.domain.receipts import Event, Reason
from pushactors.stores.contract import (
    Accepted,
    AliasChanged,
    AppAdded,
    Arrived,
    Change,
    CidRow,
    ConsumerMoved,
    DeviceDeleted,
    DeviceRow,
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
from pushactors.stores.memory_records import Delivery, Device, Push, Receipt, Stream
from pushactors.stores.timelines import Happened, Kind
from pushactors.wire.ids import AppKey, AppNo, Cid, Consumer, Cursor, DeviceNo, Millis, MsgId, RegistrationId


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
        self.streams: dict[AppNo, Stream] = {}
        self.consumers: defaultdict[AppNo, dict[Consumer, Cursor]] = defaultdict(dict)

    def apply(self, number: int, changes: Sequence[Change]) -> int:
        """Applies a commit; how many of its changes were ignored."""
        self.last_commit = number
        stamp = next((change.at for change in reversed(changes) if isinstance(change, Stamped)), None)
        return sum(self._apply(change, stamp) for change in changes)

    def living(self, device_no: DeviceNo) -> DeviceRow | None:
        device = self.devices.get(device_no)
        return None if device is None or device.deleted else device.row

    def had(self, msg_id: MsgId, device_no: DeviceNo) -> bool:
        """Whether that push is a delivery of this mailbox, settled or not."""
        push = self.pushes.get(msg_id)
        return push is not None and device_no in push.deliveries

    def _apply(self, change: Change, stamp: Millis | None) -> int:
        """How often the change was ignored: once, or once for every target that an `Accepted` names again."""
        match change:
            case Accepted():
                return self._accept(change, stamp)
            case Settled() | Struck() | Sent() | Moved() | Overdue() | Marked():
                push = self.pushes.get(change.msg_id)
                delivery = push.deliveries.get(change.device_no) if push else None
                if push is None or delivery is None:
                    return int(not isinstance(change, Sent))
                return int(not self._tell(change, push, delivery))
            case Noticed() | NoticeAnswered():
                return int(not self._notice(change))
            case Registered(row, install):
                return int(not self._register(row, install))
            case AppAdded(app_no, app_key):
                if app_key in self.apps or app_no in self.apps.values():
                    return 1
                self.apps[app_key] = app_no
                self.streams[app_no] = Stream()
            case IdsReserved(below):
                self.ids_below = max(self.ids_below, below)
            case ConsumerMoved(app_no, consumer, cursor):
                self.consumers[app_no][consumer] = cursor
            case Stamped():
                pass
            case _:
                device = self.devices.get(change.device_no)
                if device is None or device.deleted:
                    return 1
                self._change(device, change)
        return 0

    # --- Devices -----------------------------------------------------------------------------------------------

    def _change(
        self,
        device: Device,
        change: Seen | Arrived | Left | PlatformChanged | AliasChanged | TagsChanged | DeviceDeleted,
    ) -> None:
        match change:
            case Seen(_, at):
                device.row = replace(device.row, last_seen_at=at)
            case Arrived(_, at, visit):
                device.row = replace(device.row, last_seen_at=at, visits=visit, was_present=True)
            case Left(_, at):
                device.row = replace(device.row, last_seen_at=at, was_present=False)
            case PlatformChanged(_, platform):
                device.row = replace(device.row, platform=platform)
            case AliasChanged(_, alias, binding):
                device.row = replace(device.row, alias=alias, binding=binding)
            case TagsChanged(_, tags):
                device.row = replace(device.row, tags=tags)
            case DeviceDeleted(device_no):
                device.deleted = True
                device.notices.clear()
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

    def _notice(self, change: Noticed | NoticeAnswered) -> bool:
        device = self.devices.get(change.device_no)
        if device is None or device.deleted:
            return False
        match change:
            case Noticed(msg_id, _, until):
                if msg_id not in self.pushes:
                    return False
                device.notices[msg_id] = until
                return True
            case NoticeAnswered(msg_id):
                return device.notices.pop(msg_id, None) is not None

    # --- Pushes and deliveries ---------------------------------------------------------------------------------

    def _accept(self, change: Accepted, stamp: Millis | None) -> int:
        message = change.message
        if message.msg_id in self.pushes:
            return 1
        deliveries: dict[DeviceNo, Delivery] = {}
        for device_no, binding, verdict, held_for in change.targets:
            # Of two targets with one device the first counts.
            if device_no not in deliveries:
                deliver_by = change.deliver_by if verdict is None else None
                deliveries[device_no] = Delivery(
                    binding, verdict, message.sent_at, message.msg_id, held_for, deliver_by
                )
        unsettled = {device_no for device_no, delivery in deliveries.items() if delivery.verdict is None}
        push = self.pushes[message.msg_id] = Push(
            app_no=change.app_no,
            message=replace(message, body=b""),
            body=message.body if change.keep_body and unsettled else None,
            stored_at=stamp,
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
        for device_no, delivery in deliveries.items():
            self.keep(device_no)
            if delivery.verdict is not None:
                self._receipt(push, device_no, Event.of_verdict(delivery.verdict), message.sent_at)
        if change.cid is not None:
            self.cids[change.cid.app_no, change.cid.cid] = change.cid
        return len(change.targets) - len(deliveries)

    def _tell(
        self, change: Settled | Struck | Sent | Moved | Overdue | Marked, push: Push, delivery: Delivery
    ) -> bool:
        """Whether the change fitted."""
        match change:
            case Marked(_, device_no, mark, at):
                if delivery.verdict is not Verdict.RECEIVED or mark in delivery.marks:
                    return False
                self._mark(push, delivery, device_no, mark, at)
                return True
            case _ if delivery.verdict is not None:
                return isinstance(change, Sent)
            case Settled():
                self._settle(change, push, delivery)
            case Struck(_, _, verdict, at):
                gives_way = delivery.strike is Verdict.FENCED is not verdict and delivery.held_for is not None
                if delivery.strike is not None and not gives_way:
                    return False
                delivery.strike = verdict
                delivery.happened.add(Happened(at, Kind.STRUCK, int(verdict)))
            case Sent(_, _, visit, at):
                delivery.was_sent = True
                delivery.happened.add(Happened(at, Kind.SENT, visit))
            case Overdue(_, device_no, at, reason):
                if delivery.deliver_by is None:
                    return False
                delivery.deliver_by = None
                delivery.happened.add(Happened(at, Kind.OVERDUE))
                self._receipt(push, device_no, Event.OVERDUE, at, reason)
            case Moved():
                return self._move(change, push, delivery)
        return True

    def _settle(self, change: Settled, push: Push, delivery: Delivery) -> None:
        msg_id, device_no, verdict, at, visit, sent_at = change
        delivery.verdict, delivery.at, delivery.visit, delivery.sent_at = verdict, at, visit, sent_at
        push.verdicts[verdict] += 1
        push.unsettled.remove(device_no)
        if not push.unsettled:
            push.body = None
            del self.unsettled[msg_id]
        self._take_out(msg_id, device_no)
        push.last_event_at = max(push.last_event_at, at)
        self._receipt(push, device_no, Event.of_verdict(verdict), at)

    def _mark(self, push: Push, delivery: Delivery, device_no: DeviceNo, mark: Mark, at: Millis) -> None:
        delivery.marks[mark] = at
        push.marks[mark] += 1
        push.last_event_at = max(push.last_event_at, at)
        self._receipt(push, device_no, Event.of_mark(mark), at)

    def _move(self, change: Moved, push: Push, delivery: Delivery) -> bool:
        msg_id, device_no, to, binding, place, at = change
        receiver = self.living(to)
        if receiver is None:
            return False
        if (before := push.deliveries.get(to)) is not None:
            if not receiver.is_alias or before.verdict is None:
                return False
            # What was settled in the mailbox of an alias gives its place to what comes back there.
            self.release(to)
        push.deliveries[to] = push.deliveries.pop(device_no)
        push.unsettled.remove(device_no)
        push.unsettled.add(to)
        self._take_out(msg_id, device_no)
        self.mailboxes.setdefault(to, {})[msg_id] = push
        self.release(device_no)
        self.keep(to)
        delivery.binding, delivery.place = binding, msg_id if place is None else place
        delivery.strike, delivery.was_sent = None, False
        delivery.happened.add(Happened(at, Kind.HELD if receiver.is_alias else Kind.BOUND))
        return True

    def _take_out(self, msg_id: MsgId, device_no: DeviceNo) -> None:
        mailbox = self.mailboxes[device_no]
        del mailbox[msg_id]
        if not mailbox:
            del self.mailboxes[device_no]

    # --- Receipts ----------------------------------------------------------------------------------------------

    def _receipt(
        self, push: Push, device_no: DeviceNo, event: Event, at: Millis, reason: Reason | None = None
    ) -> None:
        if stream := self.streams.get(push.app_no):
            stream.append(Receipt(push.message.msg_id, device_no, event, at, reason))
            self.keep(device_no)

    def keep(self, device_no: DeviceNo) -> None:
        """One more delivery or receipt names this device."""
        if device := self.devices.get(device_no):
            device.kept += 1

    def release(self, device_no: DeviceNo) -> None:
        if device := self.devices.get(device_no):
            device.kept -= 1

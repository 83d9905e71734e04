"""What a store in memory keeps of a device, a push, a delivery and a stream of receipts.

1. A push knows its unsettled deliveries and its counts; they move together, so they always add up (C1).
2. A stream of receipts is numbered without a gap, and loses only its oldest (C20).
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pushactors.domain.message import Mark, Message, Verdict
from pushactors.domain.receipts import Event, Reason
from pushactors.stores.contract import DeliveryRow, DeviceRow, StatusRow
from pushactors.stores.timelines import Happened, Settlement
from pushactors.wire.ids import Alias, AppNo, Binding, Cursor, DeviceNo, Millis, MsgId, VisitNo

BEFORE_ALL: Final = Cursor(0)


@dataclass(slots=True)
class Device:
    """`kept` counts the deliveries and receipts that still name it, settled ones too."""

    row: DeviceRow
    install: bytes | None
    deleted: bool = False
    kept: int = 0
    notices: dict[MsgId, Millis] = field(default_factory=dict)


@dataclass(slots=True)
class Delivery:
    """`verdict` None: unsettled, since `at`."""

    binding: Binding | None
    verdict: Verdict | None
    at: Millis
    place: int
    held_for: Alias | None = None
    deliver_by: Millis | None = None
    strike: Verdict | None = None
    was_sent: bool = False
    visit: VisitNo | None = None
    sent_at: Millis | None = None
    marks: dict[Mark, Millis] = field(default_factory=dict)
    happened: set[Happened] = field(default_factory=set)

    def settlement(self) -> Settlement | None:
        if self.verdict is None:
            return None
        return Settlement(self.verdict, self.at, self.visit, self.sent_at, list(self.marks.items()))


@dataclass(slots=True)
class Push:
    app_no: AppNo
    message: Message
    body: bytes | None
    stored_at: Millis | None
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
            delivery.place,
            delivery.held_for,
            delivery.was_sent,
        )

    def status(self, device_no: DeviceNo) -> StatusRow | None:
        delivery = self.deliveries.get(device_no)
        return StatusRow(delivery.verdict, delivery.at) if delivery else None


class Receipt(NamedTuple):
    msg_id: MsgId
    device_no: DeviceNo
    event: Event
    at: Millis
    reason: Reason | None = None


@dataclass(slots=True)
class Stream:
    """The receipts of one app; `last` is the cursor of the newest."""

    receipts: deque[Receipt] = field(default_factory=deque)
    last: Cursor = BEFORE_ALL

    @property
    def before(self) -> Cursor:
        """The cursor before that of the oldest receipt kept."""
        return Cursor(self.last - len(self.receipts))

    def append(self, receipt: Receipt) -> None:
        self.receipts.append(receipt)
        self.last = Cursor(self.last + 1)

"""Rows and changes with everything but what a test is about filled in."""

from __future__ import annotations

from typing import Any

from pushactors.domain.message import Message, Verdict
from pushactors.domain.receipts import Reason, Why
from pushactors.stores.contract import (
    Accepted,
    AppAdded,
    CidRow,
    ConsumerMoved,
    DeviceRow,
    Marked,
    Moved,
    Noticed,
    Overdue,
    Registered,
    Sent,
    Settled,
    Struck,
    TargetRow,
)
from pushactors.wire.ids import (
    Alias,
    AppKey,
    AppNo,
    Binding,
    Cid,
    Consumer,
    Cursor,
    DeviceNo,
    Millis,
    MsgId,
    Platform,
    RegistrationId,
    Tag,
    VisitNo,
)

DAY = 86_400_000
NOW = Millis(1_800_000_000_000)
APP, OTHER_APP = AppNo(1), AppNo(2)
APPS = (AppAdded(APP, AppKey("app")), AppAdded(OTHER_APP, AppKey("other")))


def device(number: int, **changed: Any) -> DeviceRow:
    given: dict[str, Any] = {
        "device_no": DeviceNo(number),
        "app_no": APP,
        "registration_id": rid(number),
        "platform": Platform.ANDROID,
        "alias": None,
        "binding": Binding(0),
        "tags": (),
        "last_seen_at": NOW,
    }
    return DeviceRow(**{**given, **changed})


def rid(number: int) -> RegistrationId:
    return RegistrationId(f"device-{number}")


def registered(*numbers: int, app_no: AppNo = APP) -> list[Registered]:
    return [Registered(device(number, app_no=app_no), None) for number in numbers]


def alias_mailbox(number: int, alias: Alias, app_no: AppNo = APP) -> Registered:
    made_up = RegistrationId(f"alias-{number}")
    return Registered(device(number, app_no=app_no, registration_id=made_up, alias=alias, is_alias=True), None)


def message(msg_id: int, *, at: int = NOW, ttl_ms: int | None = DAY, overrides: int | None = None) -> Message:
    expires_at = None if ttl_ms is None else Millis(at + ttl_ms)
    return Message(
        MsgId(msg_id), Millis(at), expires_at, None if overrides is None else MsgId(overrides), b"body %d" % msg_id
    )


def target(
    device_no: int, verdict: Verdict | None = None, binding: int | None = None, held_for: Alias | None = None
) -> TargetRow:
    return TargetRow(DeviceNo(device_no), None if binding is None else Binding(binding), verdict, held_for)


def accepted(
    of: Message | int,
    *targets: TargetRow | int,
    app_no: AppNo = APP,
    keep_body: bool = True,
    cid: CidRow | None = None,
    deliver_by: int | None = None,
) -> Accepted:
    rows = [target(given) if isinstance(given, int) else given for given in targets]
    deadline = None if deliver_by is None else Millis(deliver_by)
    return Accepted(app_no, message(of) if isinstance(of, int) else of, keep_body, rows, cid, deadline)


def cid_row(cid: str, msg_id: int = 1, *, at: int = NOW, app_no: AppNo = APP) -> CidRow:
    return CidRow(app_no, Cid(cid), b"digest of " + cid.encode(), MsgId(msg_id), 7, 3, 2, Millis(at))


def settled(
    msg_id: int,
    device_no: int,
    verdict: Verdict = Verdict.RECEIVED,
    at: int = NOW + 1,
    visit: int | None = None,
    sent_at: int | None = None,
) -> Settled:
    on = None if visit is None else VisitNo(visit)
    return Settled(
        MsgId(msg_id), DeviceNo(device_no), verdict, Millis(at), on, None if sent_at is None else Millis(sent_at)
    )


def struck(msg_id: int, device_no: int, verdict: Verdict = Verdict.FENCED, at: int = NOW) -> Struck:
    return Struck(MsgId(msg_id), DeviceNo(device_no), verdict, Millis(at))


def sent(msg_id: int, device_no: int, visit: int = 1, at: int = NOW) -> Sent:
    return Sent(MsgId(msg_id), DeviceNo(device_no), VisitNo(visit), Millis(at))


def moved(
    msg_id: int, device_no: int, to: int, binding: int | None = None, place: int | None = None, at: int = NOW
) -> Moved:
    bound = None if binding is None else Binding(binding)
    return Moved(MsgId(msg_id), DeviceNo(device_no), DeviceNo(to), bound, place, Millis(at))


def overdue(msg_id: int, device_no: int, at: int = NOW, reason: Reason | None = None) -> Overdue:
    return Overdue(MsgId(msg_id), DeviceNo(device_no), Millis(at), reason or Reason(Why.ABSENT, NOW))


def noticed(msg_id: int, device_no: int, until: int = NOW + DAY) -> Noticed:
    return Noticed(MsgId(msg_id), DeviceNo(device_no), Millis(until))


def marked(msg_id: int, device_no: int, mark: Any, at: int = NOW + 2) -> Marked:
    return Marked(MsgId(msg_id), DeviceNo(device_no), mark, Millis(at))


def consumed(consumer: str, cursor: int, app_no: AppNo = APP) -> ConsumerMoved:
    return ConsumerMoved(app_no, Consumer(consumer), Cursor(cursor))


ALICE, BOB, NEWS, SPORT = Alias("alice"), Alias("bob"), Tag("news"), Tag("sport")
RECEIVED, MISSED, EXPIRED, REPLACED, FENCED, RECALLED = (
    Verdict.RECEIVED,
    Verdict.MISSED,
    Verdict.EXPIRED,
    Verdict.REPLACED,
    Verdict.FENCED,
    Verdict.RECALLED,
)

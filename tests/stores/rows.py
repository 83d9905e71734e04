"""Rows and changes with everything but what a test is about filled in."""

from __future__ import annotations

from typing import Any

from pushactors.domain.message import Message, Verdict
from pushactors.stores.contract import Accepted, AppAdded, CidRow, DeviceRow, Marked, Registered, Settled, TargetRow
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


def message(msg_id: int, *, at: int = NOW, ttl_ms: int | None = DAY, overrides: int | None = None) -> Message:
    expires_at = None if ttl_ms is None else Millis(at + ttl_ms)
    return Message(
        MsgId(msg_id), Millis(at), expires_at, None if overrides is None else MsgId(overrides), b"body %d" % msg_id
    )


def target(device_no: int, verdict: Verdict | None = None, binding: int | None = None) -> TargetRow:
    return TargetRow(DeviceNo(device_no), None if binding is None else Binding(binding), verdict)


def accepted(
    of: Message | int, *targets: TargetRow | int, app_no: AppNo = APP, keep_body: bool = True, cid: CidRow | None = None
) -> Accepted:
    rows = [target(given) if isinstance(given, int) else given for given in targets]
    return Accepted(app_no, message(of) if isinstance(of, int) else of, keep_body, rows, cid)


def cid_row(cid: str, msg_id: int = 1, *, at: int = NOW, app_no: AppNo = APP) -> CidRow:
    return CidRow(app_no, Cid(cid), b"digest of " + cid.encode(), MsgId(msg_id), 7, 3, 2, Millis(at))


def settled(msg_id: int, device_no: int, verdict: Verdict = Verdict.RECEIVED, at: int = NOW + 1) -> Settled:
    return Settled(MsgId(msg_id), DeviceNo(device_no), verdict, Millis(at))


def marked(msg_id: int, device_no: int, mark: Any, at: int = NOW + 2) -> Marked:
    return Marked(MsgId(msg_id), DeviceNo(device_no), mark, Millis(at))


ALICE, BOB, NEWS, SPORT = Alias("alice"), Alias("bob"), Tag("news"), Tag("sport")

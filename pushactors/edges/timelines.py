"""The course of one delivery, as an app server is told it (`timeline`).

1. What is durable comes from the store; the sending that is on the wire now, and not written down yet, from the actor
   that has it. Both are seen at one instant.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pushactors.edges.house import App
from pushactors.errors import NoSuchDevice, NoSuchMessage
from pushactors.stores.contract import TimelineEntry, TimelineRow
from pushactors.wire.app import TimelineOf
from pushactors.wire.ids import DeviceNo, Millis, MsgId, VisitNo

# What happens in one millisecond happens in this order.
BEFORE_OTHERS = {"stored": 0, "bound": 1, "sent": 2}


async def timeline(app: App, asked: TimelineOf) -> dict[str, Any]:
    """Raises `NoSuchDevice`, `NoSuchMessage`."""
    device_no = await _mailbox(app, asked)
    while True:
        row, here = await _at_one_instant(app, device_no, asked.msg_id)
        if row is None:
            raise NoSuchMessage(
                "This app has no push with this msg_id to that device or alias, or it was too long ago."
            )
        if row.verdict is not None or here.has_it:
            break
        # Its mailbox has just decided what the store does not know yet.
        await app.tenant.book.told()
    entries = list(row.entries)
    if row.verdict is None and here.sent is not None and here.sent not in entries:
        entries.append(here.sent)
        # Behind `accepted`, which is the first of all, in order of time.
        entries[1:] = sorted(entries[1:], key=lambda entry: (entry.at, BEFORE_OTHERS.get(entry.word, 3)))
    state = row.verdict.word if row.verdict is not None else "sent" if here.sent is not None else "waiting"
    named = {"alias": asked.alias} if asked.alias is not None else {"registration_id": asked.registration_id}
    return {"msg_id": str(asked.msg_id), **named, "state": state, "events": [_told(each) for each in entries]}


class _Here(NamedTuple):
    """What the actor of a mailbox knows: whether it has the delivery (as far as anybody can say), and its sending."""

    has_it: bool
    sent: TimelineEntry | None


async def _at_one_instant(app: App, device_no: DeviceNo, msg_id: MsgId) -> tuple[TimelineRow | None, _Here]:
    here = [_Here(True, None)]

    async def ask() -> TimelineRow | None:
        actor = app.device(device_no)
        if actor is not None:
            sent = actor.sendings.of(msg_id)
            entry = None if sent is None else TimelineEntry("sent", sent[1], sent[0])
            here[0] = _Here(actor.mailbox.holds(msg_id), entry)
        return await app.store.timeline(app.tenant.app_no, msg_id, device_no)

    row, _ = await app.ledger.read(app.tenant.book, [], ask)
    return row, here[0]


async def _mailbox(app: App, asked: TimelineOf) -> DeviceNo:
    if asked.alias is not None:
        mailbox = app.held.find(asked.alias)
        if mailbox is None:
            raise NoSuchMessage("Nothing waits for this alias.")
        return mailbox.device_no
    assert asked.registration_id is not None
    registration = app.router.directory.find(asked.registration_id)
    if registration is not None:
        return registration.device_no
    # Deleted since: what became of its deliveries is kept as long as they are.
    device_no = await app.store.device_no(app.tenant.app_no, asked.registration_id)
    if device_no is None:
        raise NoSuchDevice("This app has no device with this registration_id.")
    return device_no


def _told(entry: TimelineEntry) -> dict[str, Any]:
    told: dict[str, Any] = {"event": entry.word, "at": Millis(entry.at)}
    if entry.visit is not None and entry.visit != VisitNo(0):
        told["visit"] = entry.visit
    if entry.verdict is not None:
        told["verdict"] = entry.verdict.word
    return told

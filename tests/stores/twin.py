"""The contract told again, naively: nothing is counted, everything is worked out from the facts whenever it is asked.

It shares no code with any store. A random walk compares a store with it after every commit.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from pushactors.domain.message import Mark, Message, Verdict
from pushactors.stores.contract import (
    Accepted,
    AliasChanged,
    AppAdded,
    CidRow,
    DeliveryRow,
    DeviceDeleted,
    DeviceRow,
    DueRow,
    IdsReserved,
    MailboxRow,
    Marked,
    PlatformChanged,
    Registered,
    ReportRow,
    Seen,
    Settled,
    StatusRow,
    Struck,
    TagsChanged,
    TargetRow,
)
from pushactors.wire.ids import Binding, DeviceNo, Millis, MsgId, Platform
from tests.stores.rows import ALICE, APP, BOB, DAY, NEWS, NOW, OTHER_APP, SPORT, cid_row, device


@dataclass
class Pair:
    msg_id: int
    device_no: int
    binding: int | None
    verdict: Verdict | None
    at: int
    strike: Verdict | None = None
    marks: list[Mark] = field(default_factory=list)


class Twin:
    def __init__(self) -> None:
        self.devices: dict[int, DeviceRow] = {}
        self.installs: dict[int, bytes | None] = {}
        self.dead: set[int] = set()
        self.pushes: dict[int, tuple[int, Message, bool]] = {}
        self.events: dict[int, int] = {}
        self.pairs: list[Pair] = []
        self.cids: dict[tuple[int, str], CidRow] = {}

    # --- Changes -----------------------------------------------------------------------------------------------

    def apply(self, change: Any) -> bool:
        """Whether the change fitted."""
        match change:
            case Registered(row, install):
                taken = {(self.devices[no].app_no, self.installs[no]) for no in self.devices if no not in self.dead}
                if row.device_no in self.devices or (install is not None and (row.app_no, install) in taken):
                    return False
                self.devices[row.device_no], self.installs[row.device_no] = row, install
            case Accepted(app_no, message, keep, targets, cid):
                if message.msg_id in self.pushes:
                    return False
                self.pushes[message.msg_id] = app_no, message, keep
                self.events[message.msg_id] = message.sent_at
                for no, binding, verdict in targets:
                    self.pairs.append(Pair(message.msg_id, no, binding, verdict, message.sent_at))
                if cid is not None:
                    self.cids[cid.app_no, cid.cid] = cid
            case Settled(msg_id, no, verdict, at):
                pair = self.pair(msg_id, no)
                if pair is None or pair.verdict is not None:
                    return False
                pair.verdict, pair.at = verdict, at
                self.events[msg_id] = max(self.events[msg_id], at)
            case Struck(msg_id, no, verdict):
                pair = self.pair(msg_id, no)
                if pair is None or pair.verdict is not None or pair.strike is not None:
                    return False
                pair.strike = verdict
            case Marked(msg_id, no, mark, at):
                pair = self.pair(msg_id, no)
                if pair is None or pair.verdict != Verdict.RECEIVED or mark in pair.marks:
                    return False
                pair.marks.append(mark)
                self.events[msg_id] = max(self.events[msg_id], at)
            case IdsReserved() | AppAdded():
                pass
            case _:
                return self._change_device(change)
        return True

    def _change_device(self, change: Any) -> bool:
        no = change.device_no
        if no not in self.devices or no in self.dead:
            return False
        match change:
            case Seen():
                self.devices[no] = replace(self.devices[no], last_seen_at=change.at)
            case PlatformChanged():
                self.devices[no] = replace(self.devices[no], platform=change.platform)
            case AliasChanged():
                self.devices[no] = replace(self.devices[no], alias=change.alias, binding=change.binding)
            case TagsChanged():
                self.devices[no] = replace(self.devices[no], tags=change.tags)
            case DeviceDeleted():
                self.dead.add(no)
        return True

    def sweep(self, now: int) -> None:
        for msg_id in list(self.pushes):
            waits = any(pair.verdict is None for pair in self.pairs if pair.msg_id == msg_id)
            if not waits and self.events[msg_id] < now - 28 * DAY:
                del self.pushes[msg_id]
        self.pairs = [pair for pair in self.pairs if pair.msg_id in self.pushes]
        self.cids = {key: row for key, row in self.cids.items() if row.at >= now - DAY}

    # --- Answers -----------------------------------------------------------------------------------------------

    def pair(self, msg_id: int, no: int) -> Pair | None:
        return next((pair for pair in self.pairs if (pair.msg_id, pair.device_no) == (msg_id, no)), None)

    def living(self, app_no: int) -> list[DeviceRow]:
        return [row for no, row in sorted(self.devices.items()) if no not in self.dead and row.app_no == app_no]

    def mailboxes(self) -> dict[int, MailboxRow]:
        return {
            no: MailboxRow(row, tuple(self._delivery(pair) for pair in self._waiting(no)))
            for no, row in self.devices.items()
            if no not in self.dead
        }

    def _waiting(self, no: int) -> list[Pair]:
        pairs = [pair for pair in self.pairs if pair.device_no == no and pair.verdict is None]
        return sorted(pairs, key=lambda pair: pair.msg_id)

    def _delivery(self, pair: Pair) -> DeliveryRow:
        message = self.pushes[pair.msg_id][1]
        return DeliveryRow(
            message.msg_id, message.sent_at, message.expires_at, message.overrides, pair.binding, pair.strike
        )

    def bodies(self) -> dict[int, bytes]:
        waiting = {pair.msg_id for pair in self.pairs if pair.verdict is None}
        return {
            msg_id: message.body for msg_id, (_, message, keep) in self.pushes.items() if keep and msg_id in waiting
        }

    def reports(self, app_no: int) -> dict[int, ReportRow]:
        found = {}
        for msg_id, (owner, message, _) in self.pushes.items():
            if owner == app_no:
                pairs = [pair for pair in self.pairs if pair.msg_id == msg_id]
                verdicts = Counter(pair.verdict for pair in pairs if pair.verdict)
                marks = Counter(mark for pair in pairs for mark in pair.marks)
                unsettled = sum(pair.verdict is None for pair in pairs)
                found[msg_id] = ReportRow(
                    message.msg_id, message.sent_at, len(pairs), unsettled, dict(verdicts), dict(marks)
                )
        return found

    def statuses(self, app_no: int, msg_id: int) -> dict[str, StatusRow | None]:
        found = {}
        for no, row in self.devices.items():
            pair = self.pair(msg_id, no)
            if row.app_no == app_no and (pair or no not in self.dead):
                found[row.registration_id] = StatusRow(pair.verdict, Millis(pair.at)) if pair else None
        return found

    def due(self, until: int) -> list[DueRow]:
        waiting = [pair for pair in self.pairs if pair.verdict is None and pair.device_no not in self.dead]
        found = {(self._expires(pair), pair.device_no) for pair in waiting if self._expires(pair) is not None}
        return [
            DueRow(at, no, self.devices[no].app_no) for at, no in sorted(found) if at <= until
        ]

    def unfinished(self) -> set[tuple[int, int, Verdict]]:
        waiting = [pair for pair in self.pairs if pair.verdict is None]
        return {
            (pair.msg_id, pair.device_no, pair.strike or Verdict.MISSED)
            for pair in waiting
            if pair.strike or self._expires(pair) is None
        }

    def _expires(self, pair: Pair) -> int | None:
        return self.pushes[pair.msg_id][1].expires_at


class Walk:
    """A seeded stream of changes, most of which fit."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.twin = Twin()
        self.now = int(NOW)
        self.next_device = 1
        self.next_msg_id = 1

    def commit(self) -> tuple[list[Any], int]:
        """The changes of one commit, applied to the twin, and how many of them the twin ignored."""
        changes: list[Any] = []
        ignored = 0
        for _ in range(self.chance.randint(1, 12)):
            self.now += self.chance.choice([0, 1, 1000, 60_000])
            change = self._change()
            ignored += not self.twin.apply(change)
            changes.append(change)
        return changes, ignored

    def _change(self) -> Any:
        make = self.chance.choices(
            [self._register, self._accept, self._settle, self._strike, self._mark, self._about_a_device, self._delete],
            [10, 20, 40, 10, 20, 10, 2],
        )[0]
        return make()

    def _register(self) -> Any:
        no = self.next_device
        self.next_device += 1
        install = self.chance.choice([None, b"one", b"two", b"three"])
        return Registered(device(no, app_no=self.chance.choice([APP, APP, OTHER_APP]), last_seen_at=self.now), install)

    def _accept(self) -> Any:
        msg_id = self.next_msg_id if self.chance.random() > 0.05 else self.chance.randint(1, self.next_msg_id)
        self.next_msg_id = max(self.next_msg_id, msg_id + self.chance.randint(1, 2))
        app_no = self.chance.choice([APP, OTHER_APP])
        pool = [row.device_no for row in self.twin.living(app_no)]
        targets = [
            (no, self.chance.choice([None, Binding(3)]), self.chance.choice([None, None, None, Verdict.MISSED]))
            for no in self.chance.sample(pool, min(len(pool), self.chance.randint(0, 5)))
        ]
        ttl = self.chance.choice([None, 1000, DAY, 10 * DAY])
        expires_at = None if ttl is None else Millis(self.now + ttl)
        overrides = self.chance.choice([None, MsgId(self.chance.randint(1, self.next_msg_id))])
        cid = cid_row(self.chance.choice("abc"), msg_id, at=self.now, app_no=app_no) if msg_id % 3 == 0 else None
        made = Message(MsgId(msg_id), Millis(self.now), expires_at, overrides, b"%d" % msg_id)
        return Accepted(app_no, made, self.chance.random() < 0.8, [TargetRow(*row) for row in targets], cid)

    def _place(self) -> tuple[MsgId, DeviceNo]:
        if self.twin.pairs and self.chance.random() < 0.95:
            waiting = [pair for pair in self.twin.pairs if pair.verdict is None]
            pool = waiting if waiting and self.chance.random() < 0.6 else self.twin.pairs
            pair = self.chance.choice(pool)
            return MsgId(pair.msg_id), DeviceNo(pair.device_no)
        return MsgId(self.chance.randint(1, 50)), DeviceNo(self.chance.randint(1, 50))

    def _settle(self) -> Any:
        return Settled(*self._place(), self._verdict(), Millis(self.now))

    def _strike(self) -> Any:
        return Struck(*self._place(), self._verdict())

    def _mark(self) -> Any:
        return Marked(*self._place(), self.chance.choice(list(Mark)), Millis(self.now))

    def _verdict(self) -> Verdict:
        return self.chance.choice([Verdict.RECEIVED, Verdict.RECEIVED, *Verdict])

    def _device_no(self) -> DeviceNo:
        return DeviceNo(self.chance.randint(1, self.next_device))

    def _about_a_device(self) -> Any:
        no = self._device_no()
        return self.chance.choice(
            [
                Seen(no, Millis(self.now)),
                PlatformChanged(no, self.chance.choice(list(Platform))),
                AliasChanged(no, self.chance.choice([None, ALICE, BOB]), Binding(self.chance.randint(1, 9))),
                TagsChanged(no, self.chance.choice([(), (NEWS,), (NEWS, SPORT)])),
            ]
        )

    def _delete(self) -> Any:
        return DeviceDeleted(self._device_no(), Millis(self.now))

"""A random walk: histories from a seed, and whether a store answers as the twin does.

Most changes of it fit, and some do not.
"""

from __future__ import annotations

import random
from typing import Any

from pushactors.domain.message import Mark, Message, Verdict
from pushactors.domain.receipts import Reason, Why
from pushactors.stores.contract import (
    Accepted,
    AliasChanged,
    Arrived,
    ConsumerMoved,
    DeviceDeleted,
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
    TargetRow,
)
from pushactors.wire.ids import AppNo, Binding, Consumer, Cursor, DeviceNo, Millis, MsgId, Platform, VisitNo
from tests.stores.grounds import Owner, told
from tests.stores.rows import ALICE, APP, BOB, DAY, NEWS, NOW, OTHER_APP, SPORT, alias_mailbox, cid_row, device
from tests.stores.twin import Pair, Twin


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
        known = set(self.twin.pushes)
        for _ in range(self.chance.randint(1, 12)):
            self.now += self.chance.choice([0, 1, 1000, 60_000])
            change = self._change()
            ignored += not self.twin.apply(change)
            changes.append(change)
        if self.chance.random() < 0.7:
            changes.insert(self.chance.randint(0, len(changes)), Stamped(Millis(self.now)))
            self.twin.stored.update(dict.fromkeys(set(self.twin.pushes) - known, self.now))
        return changes, ignored

    def _change(self) -> Any:
        make = self.chance.choices(
            [
                *(self._register, self._accept, self._settle, self._strike, self._mark, self._about_a_device),
                *(self._delete, self._send, self._move, self._be_late, self._recall, self._answer, self._consume),
            ],
            [10, 20, 40, 10, 20, 20, 2, 10, 20, 10, 10, 5, 5],
        )[0]
        return make()

    def _register(self) -> Any:
        no = self.next_device
        self.next_device += 1
        if self.chance.random() < 0.2:
            return alias_mailbox(no, self.chance.choice([ALICE, BOB]), self.chance.choice([APP, OTHER_APP]))
        install = self.chance.choice([None, b"one", b"two", b"three"])
        return Registered(device(no, app_no=self.chance.choice([APP, APP, OTHER_APP]), last_seen_at=self.now), install)

    def _accept(self) -> Any:
        msg_id = self.next_msg_id if self.chance.random() > 0.05 else self.chance.randint(1, self.next_msg_id)
        self.next_msg_id = max(self.next_msg_id, msg_id + self.chance.randint(1, 2))
        app_no = self.chance.choice([APP, OTHER_APP])
        pool = [row.device_no for row in self.twin.living(app_no) + self.twin.living(app_no, aliases=True)]
        choose = self.chance.choice
        targets = [
            (no, choose([None, Binding(3)]), choose([None, None, None, Verdict.MISSED]), choose([None, ALICE]))
            for no in self.chance.sample(pool, min(len(pool), self.chance.randint(0, 5)))
        ]
        deliver_by = choose([None, Millis(self.now + 1000), Millis(self.now + 60_000)])
        ttl = self.chance.choice([None, 1000, DAY, 10 * DAY])
        expires_at = None if ttl is None else Millis(self.now + ttl)
        overrides = self.chance.choice([None, MsgId(self.chance.randint(1, self.next_msg_id))])
        cid = cid_row(self.chance.choice("abc"), msg_id, at=self.now, app_no=app_no) if msg_id % 3 == 0 else None
        made = Message(MsgId(msg_id), Millis(self.now), expires_at, overrides, b"%d" % msg_id)
        rows = [TargetRow(*row) for row in targets]
        return Accepted(app_no, made, self.chance.random() < 0.8, rows, cid, deliver_by)

    def _place(self) -> tuple[MsgId, DeviceNo]:
        if self.twin.pairs and self.chance.random() < 0.95:
            waiting = [pair for pair in self.twin.pairs if pair.verdict is None]
            pool = waiting if waiting and self.chance.random() < 0.6 else self.twin.pairs
            pair = self.chance.choice(pool)
            return MsgId(pair.msg_id), DeviceNo(pair.device_no)
        return MsgId(self.chance.randint(1, 50)), DeviceNo(self.chance.randint(1, 50))

    def _place_of(self, pool: list[Pair]) -> tuple[MsgId, DeviceNo]:
        """One of these deliveries, most of the time."""
        if not pool or self.chance.random() < 0.3:
            return self._place()
        pair = self.chance.choice(pool)
        return MsgId(pair.msg_id), DeviceNo(pair.device_no)

    def _settle(self) -> Any:
        visit, sent_at = self.chance.choice([(None, None), (1, None), (1, self.now), (None, self.now)])
        return Settled(*self._place(), self._verdict(), Millis(self.now), visit, sent_at)

    def _strike(self) -> Any:
        return Struck(*self._place(), self.chance.choice([self._verdict(), Verdict.FENCED]), Millis(self.now))

    def _send(self) -> Any:
        return Sent(*self._place(), VisitNo(self.chance.randint(0, 2)), Millis(self.now))

    def _move(self) -> Any:
        msg_id, no = self._place_of([pair for pair in self.twin.pairs if pair.verdict is None])
        place = self.chance.choice([None, None, self.chance.randint(1, 99)])
        return Moved(msg_id, no, self._device_no(), self.chance.choice([None, Binding(7)]), place, Millis(self.now))

    def _be_late(self) -> Any:
        place = self._place_of(
            [pair for pair in self.twin.pairs if pair.deliver_by is not None and pair.verdict is None]
        )
        reason = self.chance.choice(
            [Reason(why, since=NOW) for why in Why if why is not Why.QUEUED]
            + [Reason(Why.QUEUED, behind=0), Reason(Why.QUEUED, behind=7), Reason(Why.UNHELD)]
        )
        return Overdue(*place, Millis(self.now), reason)

    def _recall(self) -> Any:
        return Noticed(*self._place(), Millis(self.now + self.chance.choice([1000, DAY, 10 * DAY])))

    def _answer(self) -> Any:
        if not self.twin.notices:
            return NoticeAnswered(*self._place())
        no, msg_id = self.chance.choice(list(self.twin.notices))
        return NoticeAnswered(MsgId(msg_id), DeviceNo(no))

    def _consume(self) -> Any:
        app_no, name = self.chance.choice([APP, OTHER_APP]), Consumer(self.chance.choice(["one", "two"]))
        return ConsumerMoved(app_no, name, Cursor(self.chance.randint(0, 99)))

    def _mark(self) -> Any:
        received = [pair for pair in self.twin.pairs if pair.verdict is Verdict.RECEIVED]
        return Marked(*self._place_of(received), self.chance.choice(list(Mark)), Millis(self.now))

    def _verdict(self) -> Verdict:
        return self.chance.choice([Verdict.RECEIVED, Verdict.RECEIVED, *Verdict])

    def _device_no(self) -> DeviceNo:
        return DeviceNo(self.chance.randint(1, self.next_device))

    def _about_a_device(self) -> Any:
        no = self._device_no()
        return self.chance.choice(
            [
                Seen(no, Millis(self.now)),
                Arrived(no, Millis(self.now), VisitNo(self.chance.randint(1, 9))),
                Left(no, Millis(self.now)),
                PlatformChanged(no, self.chance.choice(list(Platform))),
                AliasChanged(no, self.chance.choice([None, ALICE, BOB]), Binding(self.chance.randint(1, 9))),
                TagsChanged(no, self.chance.choice([(), (NEWS,), (NEWS, SPORT)])),
            ]
        )

    def _delete(self) -> Any:
        return DeviceDeleted(self._device_no(), Millis(self.now))


async def holds(owner: Owner, walk: Walk) -> None:
    """Everything that can be asked is answered as the twin answers it."""
    twin, ask = walk.twin, owner.ask
    for app_no in (APP, OTHER_APP):
        reports = twin.reports(app_no)
        assert await told(owner, *range(1, walk.next_msg_id + 2), app_no=app_no) == reports
        assert await ask.pushes(app_no, None, 1000) == [row for _, row in sorted(reports.items(), reverse=True)]
        for row in reports.values():
            assert row.targets == row.unsettled + sum(row.verdicts.values())
        assert await ask.devices(app_no, DeviceNo(0), 1000) == twin.living(app_no)
        assert await ask.alias_mailboxes(app_no, DeviceNo(0), 1000) == twin.living(app_no, aliases=True)
        assert await ask.stranded(app_no) == twin.stranded(app_no)
        for after, limit in ((0, 1000), (twin.forgotten[app_no] + 3, 5)):
            page = await ask.receipts(app_no, Cursor(after), limit)
            assert page == twin.page(app_no, after, limit)._replace(rows=page.rows)
            assert list(page.rows) == twin.page(app_no, after, limit).rows
        assert await ask.consumers(app_no) == twin.consumers[app_no]
        remembered = {cid: row for (owned_by, cid), row in twin.cids.items() if owned_by == app_no}
        assert await ask.cids(app_no, ["a", "b", "c", "d"], Millis(0)) == remembered
        for install in (b"one", b"two", b"three"):
            found = [row.registration_id for row in twin.living(app_no) if twin.installs[row.device_no] == install]
            assert await ask.installed(app_no, install) == (found[0] if found else None)
    assert await ask.mailboxes([DeviceNo(no) for no in range(walk.next_device + 2)]) == twin.mailboxes()
    assert await ask.bodies([MsgId(no) for no in range(walk.next_msg_id + 2)]) == twin.bodies()
    assert set(await ask.unfinished(1000)) == twin.unfinished()
    for until in (Millis(walk.now - DAY), Millis(walk.now), Millis(walk.now + DAY)):
        assert await ask.due((Millis(0), DeviceNo(0)), until, 1000) == twin.due(until)
        late = twin.overdue(until)
        assert await ask.overdue((Millis(0), DeviceNo(0), MsgId(0)), until, 1000) == late
        if late:
            assert await ask.overdue(late[0][:3], until, 2) == late[1:3]


async def statuses_hold(owner: Owner, walk: Walk) -> None:
    everybody = [row.registration_id for row in walk.twin.devices.values()]
    for msg_id, (app_no, _, _) in walk.twin.pushes.items():
        found = await owner.ask.statuses(app_no, MsgId(msg_id), everybody)
        assert found == walk.twin.statuses(app_no, msg_id)
        await deliveries_hold(owner, walk, msg_id, app_no)
    every = [MsgId(no) for no in range(walk.next_msg_id + 1)]
    for no, row in walk.twin.devices.items():
        pairs = [pair.msg_id for pair in walk.twin.pairs if pair.device_no == no and not pair.gave_place]
        assert await owner.ask.had(DeviceNo(no), every) == sorted(pairs)
        if no not in walk.twin.dead:
            assert await owner.ask.device_no(row.app_no, row.registration_id) == (None if row.is_alias else no)
            assert await owner.ask.device_no(OTHER_APP if row.app_no == APP else APP, row.registration_id) is None


async def deliveries_hold(owner: Owner, walk: Walk, msg_id: int, app_no: AppNo) -> None:
    twin, ask = walk.twin, owner.ask
    rows = twin.unsettled(msg_id)
    assert await ask.unsettled(app_no, MsgId(msg_id), DeviceNo(0), 1000) == (twin.reports(app_no)[msg_id], rows)
    if rows:
        assert (await ask.unsettled(app_no, MsgId(msg_id), rows[0].device_no, 2))[1] == rows[1:3]
    numbers = twin.recipients(msg_id)
    assert await ask.recipients(MsgId(msg_id), DeviceNo(0), 1000) == numbers
    if numbers:
        assert await ask.recipients(MsgId(msg_id), numbers[0], 2) == numbers[1:3]
    for no in twin.devices:
        expected = twin.timeline(app_no, msg_id, no)
        if expected or walk.chance.random() < 0.1:
            found = await ask.timeline(app_no, MsgId(msg_id), DeviceNo(no))
            assert found == expected, f"{found} {expected}"

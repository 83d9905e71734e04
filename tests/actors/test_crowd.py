"""Many at a time: phones, app servers, upkeep, planted crashes and `kill -9`; no twin, but what must always hold.

1. What a visit may not see is remembered by the visits themselves (`RecordingVisit`).
2. Sums add up whenever they are asked for, and a verdict that was told is for ever (C1).
3. What was told survives (C2): pushes, registrations, aliases.
4. Nothing that was accepted before a change of the alias began is handed under it after it was told (C14); what is held
   for an alias only where that is logged in (C25). Nothing recalled is handed after the answer (C22).
5. A consumer of receipts sees every cursor, and the same under each; one verdict for each delivery (C20).
6. In the end everybody comes, and everything is settled.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pushactors.actors import fanout as fanout_module
from pushactors.actors.router import NO_TAG_CHANGE
from pushactors.actors.tenant import Limits
from pushactors.actors.visits import Ending
from pushactors.domain.message import Mark, Message, Verdict
from pushactors.errors import (
    ActorCrashed,
    AliasFull,
    CidReused,
    InternalError,
    NoSuchDevice,
    NoSuchMessage,
    NoTarget,
    VisitEnded,
)
from pushactors.stores.contract import ReceiptRow
from pushactors.stores.memory import MemoryDisk
from pushactors.wire.ids import Alias, Binding, Consumer, Cursor, MsgId, RegistrationId, VisitId
from tests.actors.world import (
    ALICE,
    BOB,
    DAY_S,
    NOBODY,
    Handed,
    HeldStore,
    Phone,
    RecordingVisit,
    Report,
    World,
    plant,
    push,
    seeded_order,
)

LIVES = 4
PHONES = 5
FAULTS = (
    *("enter", "arrive", "leave", "acknowledge", "mark", "rebind", "expire", "next_to_send", "decline"),
    *("recall", "release", "admit", "readmit", "replace_older"),
)
OFFICE = Consumer("office")
VERDICTS = {verdict.word for verdict in Verdict}
MARKS = {mark.word for mark in Mark}
REFUSED = (AliasFull, NoTarget, NoSuchDevice)


@dataclass
class Pushed:
    aliases: tuple[Alias, ...]
    targets: int
    is_on_disk: bool
    ended: int
    """When its app server was told."""
    is_held: bool = False


@dataclass
class Change:
    """`is_another`: whether the binding was another when it was told than when it began."""

    alias: Alias | None
    began: int
    told: int | None = None
    is_another: bool = False


@dataclass
class Facts:
    """What somebody was told, and when: it must stay true."""

    pushed: dict[MsgId, Pushed] = field(default_factory=dict)
    changes: dict[RegistrationId, list[Change]] = field(default_factory=dict)
    reports: dict[MsgId, Report] = field(default_factory=dict)
    deleted: set[RegistrationId] = field(default_factory=set)
    recalled: dict[MsgId, int] = field(default_factory=dict)
    receipts: dict[Cursor, ReceiptRow] = field(default_factory=dict)
    done_with: Cursor = Cursor(0)  # noqa: RUF009 - a number


class Timed(RecordingVisit):
    """Knows when each message was handed to it."""

    def __init__(self, tick: Callable[[], int], visit_id: VisitId, disk: MemoryDisk, complaints: list[str]) -> None:
        super().__init__(visit_id, disk, complaints)
        self._tick = tick
        self.handed_at: list[tuple[int, Handed]] = []
        self.belief: Alias | None = None
        """Who the device believes is logged in there."""

    def tell_alias(self, alias: Alias | None) -> None:
        super().tell_alias(alias)
        self.belief = alias

    def hand(self, message: Message, alias: Alias | None) -> None:
        super().hand(message, alias)
        self.handed_at.append((self._tick(), Handed(message.msg_id, alias)))


class Crowd:
    def __init__(self, seed: int, nursery: trio.Nursery, is_faulty: bool) -> None:
        self.chance = random.Random(seed)
        self.nursery = nursery
        self.is_faulty = is_faulty
        self.disk = MemoryDisk()
        self.facts = Facts()
        self.world: World
        self.phones: list[Phone] = []
        self.visits: list[tuple[RegistrationId, Timed]] = []
        self._now = 0
        self._working = 0
        self._done = trio.Event()

    def tick(self) -> int:
        self._now += 1
        return self._now

    # --- Lives -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        for life in range(LIVES):
            await self.start(self.chance)
            work: list[Callable[[], Awaitable[None]]] = [
                *(self.phone_of(phone) for phone in self.phones),
                self.app_server,
                self.app_server,
                self.administrator,
                self.reporter,
            ]
            if life % 2 == 1:
                work.append(self.regretter)
            self.world.nursery.start_soon(self.follow)
            if self.is_faulty:
                work.append(self.saboteur)
            for each in work:
                self._working += 1
                self.world.nursery.start_soon(self.work, each)
            if life % 2 == 0:
                for _ in range(self.chance.randrange(50, 600)):
                    await trio.lowlevel.checkpoint()
            else:
                await self._done.wait()
                await self.check_beliefs()
            await self.stop()
        await self.end()

    async def start(self, chance: random.Random | None) -> None:
        limits = Limits(offline_limit=4, backlog_limit=6, window=3, alias_limit=4)
        self.world = World(HeldStore(self.disk, chance), limits, with_upkeep=True)
        self.world.visit_type = partial(Timed, self.tick)
        await self.nursery.start(self.world.run)
        if not self.phones:
            self.phones = [Phone(self.world) for _ in range(PHONES)]
        for phone in self.phones:
            phone.move(self.world)
        self._working, self._done = 0, trio.Event()
        await self.check_what_was_told()

    async def stop(self) -> None:
        """Dead, with whatever was under way."""
        complaints = list(self.world.complaints)
        await self.world.kill()
        assert not complaints
        if not self.is_faulty:
            assert not self.world.faults()
        for registration_id, visit in self.visits:
            self.check_fence(registration_id, visit)
        self.visits.clear()

    async def work(self, each: Callable[[], Awaitable[None]]) -> None:
        await each()
        self._working -= 1
        if not self._working:
            self._done.set()

    async def pause(self) -> None:
        for _ in range(self.chance.choice((0, 1, 2, 5, 12))):
            await trio.lowlevel.checkpoint()
        if self.chance.random() < 0.05:
            await trio.sleep(self.chance.choice((0.1, 0.6, 2)))

    # --- What they do ------------------------------------------------------------------------------------------------

    def phone_of(self, phone: Phone) -> Callable[[], Awaitable[None]]:
        async def use() -> None:
            for _ in range(40):
                await self.pause()
                try:
                    await self.use(phone)
                except REFUSED:
                    pass
                except (InternalError, VisitEnded):  # its actor has crashed, and its visit is about to hear of it
                    assert self.is_faulty

        return use

    async def use(self, phone: Phone) -> None:
        chance = self.chance
        visit = getattr(phone, "visit", None)
        if visit is None or visit.ending is not None or visit not in [each for _, each in self.visits]:
            await self.connect(phone)
            return
        match chance.choices(("ack", "decline", "mark", "alias", "drain", "leave", "again"), (9, 1, 1, 3, 2, 2, 1))[0]:
            case "again":
                await self.connect(phone)
            case "leave":
                phone.leave()
                await self.world.told()
            case "alias":
                await self.log_in(phone, chance.choice((ALICE, BOB, NOBODY)))
            case "drain":
                visit.room = chance.choice((None, None, 0, 1))
                self.say(phone, lambda: phone.actor.pump())
            case word if visit.handed:
                msg_id = chance.choice(visit.handed[-4:])
                if word == "ack":
                    self.say(phone, lambda: phone.acknowledge(msg_id))
                elif word == "decline":
                    self.say(phone, lambda: phone.decline(msg_id))
                else:
                    self.say(phone, lambda: phone.mark(msg_id, Mark.OPENED))

    def say(self, phone: Phone, words: Callable[[], object]) -> None:
        """As the edge does it: without its actor a visit is over."""
        if self.world.devices.at_rest(phone.device_no) is None:
            phone.visit.end(Ending.RESTARTED)
            return
        try:
            words()
        except ActorCrashed:
            assert self.is_faulty
            phone.visit.end(Ending.RESTARTED)

    async def connect(self, phone: Phone) -> None:
        before = getattr(phone, "visit", None)
        alias = self.chance.choice((None, None, ALICE, BOB, NOBODY))
        change, binding = Change(alias or None, self.tick()), self.binding(phone)
        known = self.facts.changes.setdefault(phone._registration_id, []) if phone._registration_id else []
        if alias is not None:
            known.append(change)
        try:
            await phone.arrive(alias=alias, install_key=self.key(phone) if phone._registration_id is None else None)
        except (*REFUSED, InternalError) as refused:
            if alias is not None:
                known.remove(change)
            if isinstance(refused, NoSuchDevice):
                phone._registration_id = phone.secret = None
                if before is not None:
                    before.end(Ending.REMOVED)
            raise
        visit = phone.visit
        assert isinstance(visit, Timed)
        self.visits.append((phone.registration_id, visit))
        change.told = self.tick()
        change.is_another = binding not in (None, self.binding(phone))
        if alias is not None and change not in known:
            self.facts.changes.setdefault(phone.registration_id, []).append(change)
        if before in [each for _, each in self.visits] and self.chance.random() < 0.5:
            self.world.app.registrar.leave(phone.registration_id, before.visit_id)  # the late goodbye
        await self.pause()
        if visit.ending is None:
            visit.is_answered, visit.belief = True, phone.welcome.alias
            self.say(phone, lambda: phone.actor.resume(visit.visit_id))

    def binding(self, phone: Phone) -> Binding | None:
        if phone._registration_id is None:
            return None
        found = self.world.app.router.directory.find(phone.registration_id)
        return None if found is None else found.binding

    def key(self, phone: Phone) -> str:
        return f"the install key of {self.phones.index(phone)}"

    async def log_in(self, phone: Phone, alias: Alias) -> None:
        visit = phone.visit
        assert isinstance(visit, Timed)
        change = Change(alias or None, self.tick())
        self.facts.changes.setdefault(phone.registration_id, []).append(change)
        binding = self.binding(phone)
        try:
            previous = await self.world.app.router.set_alias(phone.registration_id, alias, phone.visit.visit_id)
            visit.is_answered = visit.is_answered and previous == (alias or None)
            change.is_another = self.binding(phone) != binding
            await self.world.told()
            change.told = self.tick()
            visit.belief = change.alias
        finally:
            visit.is_answered = True
            if self.world.devices.at_rest(phone.device_no) is not None and visit.ending is None:
                self.say(phone, lambda: phone.actor.resume(visit.visit_id))

    async def app_server(self) -> None:
        chance = self.chance
        for _ in range(50):
            await self.pause()
            registered = [phone for phone in self.phones if phone._registration_id is not None]
            alias = chance.choice(((ALICE,), (BOB,), (ALICE, BOB)))
            to = chance.sample(registered, min(2, len(registered))) if chance.random() < 0.4 else []
            cid = f"cid-{chance.randrange(20)}" if chance.random() < 0.15 else None
            ttl = chance.choice((0, 0, 1, 5, DAY_S, 10 * DAY_S, 10 * DAY_S))
            is_held = not to and ttl > 0 and chance.random() < 0.5
            within = chance.choice((None, None, 1, 3, DAY_S))
            overrides = chance.choice([*self.facts.pushed, MsgId(999)]) if chance.random() < 0.3 else None
            asked = push(*to, alias=() if to else alias, ttl=ttl, cid=cid, overrides=overrides)
            digest = b"%b %d %d" % (asked.digest, is_held, within or 0)
            asked = replace(asked, is_held=is_held, deliver_within_s=within, digest=digest)
            try:
                accepted = await self.world.accept(asked)
            except (*REFUSED, CidReused):
                continue
            except InternalError:
                assert self.is_faulty
                continue
            known = self.facts.pushed.get(accepted.msg_id)
            assert known is None or (cid is not None and known.targets == accepted.targets)
            pushed = Pushed(() if to else alias, accepted.targets, accepted.is_durable_first, self.tick(), is_held)
            self.facts.pushed.setdefault(accepted.msg_id, pushed)

    async def administrator(self) -> None:
        router = self.world.app.router
        for _ in range(40):
            await self.pause()
            registered = [phone for phone in self.phones if phone._registration_id is not None]
            if not registered:
                continue
            phone, alias = self.chance.choice(registered), self.chance.choice((ALICE, BOB, NOBODY))
            try:
                if self.chance.random() < 0.05:
                    registration_id = phone.registration_id
                    await self.world.app.registrar.delete(registration_id)
                    await self.world.told()
                    self.facts.deleted.add(registration_id)
                    continue
                change, binding = Change(alias or None, self.tick()), self.binding(phone)
                self.facts.changes.setdefault(phone.registration_id, []).append(change)
                await router.change(phone.registration_id, alias, NO_TAG_CHANGE)
                change.is_another = self.binding(phone) != binding
                await self.world.told()
                change.told = self.tick()
            except REFUSED:
                pass
            except InternalError:
                assert self.is_faulty

    async def reporter(self) -> None:
        for _ in range(30):
            await self.pause()
            if self.facts.pushed:
                await self.check_reports(self.chance.sample(list(self.facts.pushed), min(8, len(self.facts.pushed))))

    async def regretter(self) -> None:
        """Takes back what was pushed."""
        for _ in range(25):
            await self.pause()
            if not self.facts.pushed:
                continue
            msg_id = self.chance.choice(list(self.facts.pushed)[-8:])
            pushed = self.facts.pushed[msg_id]
            try:
                split = await self.world.app.recalls.recall(msg_id)
            except NoSuchMessage:
                assert not pushed.is_on_disk
                continue
            except (InternalError, ActorCrashed):
                assert self.is_faulty
                continue
            assert sum(split) == pushed.targets, f"push {msg_id}: {split} of {pushed.targets}"
            assert min(split) >= 0
            self.facts.recalled.setdefault(msg_id, self.tick())

    async def follow(self, is_thorough: bool = False) -> None:
        """Reads the receipts on from where it was, for as long as the server lives."""
        receipts, facts = self.world.app.receipts, self.facts
        subscription = await receipts.subscribe(OFFICE, None if facts.receipts else Cursor(0))
        position = subscription.progress.position
        assert facts.done_with <= position <= len(facts.receipts), "it resumes behind what it has acknowledged"
        while (page := await subscription.next_page()) is not None:
            for row in page:
                position += 1
                assert row.cursor == position, "a gap in the receipts, or one twice"
                assert facts.receipts.setdefault(row.cursor, row) == row, "another receipt under the same cursor"
            if is_thorough or self.chance.random() < 0.7:
                receipts.acknowledge(subscription, page[-1].cursor)
                await self.world.told()
                facts.done_with = page[-1].cursor
        raise AssertionError(f"the subscription has ended: {subscription.ended}")

    async def saboteur(self) -> None:
        for _ in range(8):
            await self.pause()
            await self.pause()
            actors = [actor for actor in self.world.devices.all() if actor.inbox.is_open]
            if actors:
                plant(self.chance.choice(actors), self.chance.choice(FAULTS), is_late=self.chance.random() < 0.5)

    # --- What must hold ----------------------------------------------------------------------------------------------

    async def check_reports(self, msg_ids: list[MsgId]) -> None:
        for msg_id, report in (await self.world.reports(msg_ids)).items():
            assert report.adds_up(), f"push {msg_id}: {report}"
            if msg_id in self.facts.pushed:
                assert report.targets == self.facts.pushed[msg_id].targets
            earlier = self.facts.reports.get(msg_id)
            if earlier is not None:
                for word, count in earlier.verdicts.items():
                    assert report.verdicts.get(word, 0) >= count, f"push {msg_id}: {earlier}, and then {report}"
                for word, count in earlier.marks.items():
                    assert report.marks.get(word, 0) >= count, f"push {msg_id}: {earlier}, and then {report}"
            self.facts.reports[msg_id] = report

    async def check_what_was_told(self) -> None:
        reports = await self.world.reports(list(self.facts.pushed))
        for msg_id, pushed in self.facts.pushed.items():
            assert msg_id in reports or not pushed.is_on_disk, f"push {msg_id} was told, and is lost"
        await self.check_reports(list(self.facts.pushed))
        by_id = {device.row.registration_id: device.row for device in self.disk.devices.values()}
        for registration_id, changes in self.facts.changes.items():
            if not changes:
                continue
            last, row = changes[-1], by_id.get(registration_id)
            is_last = all(each.told is not None and each.told < last.began for each in changes[:-1])
            if row is not None and last.told is not None and is_last:
                assert row.alias == last.alias, f"an alias was told, and is lost: {changes}"
        for registration_id in self.facts.deleted:
            assert self.world.app.router.directory.find(registration_id) is None, "a deletion was told, and is lost"

    def check_fence(self, registration_id: RegistrationId, visit: Timed) -> None:
        """C14: of what was accepted before a change began nothing is handed after it was told."""
        changes = self.facts.changes.get(registration_id, [])
        for at, handed in visit.handed_at:
            pushed = self.facts.pushed.get(handed.msg_id)
            if pushed is None:
                continue
            assert (handed.alias is None) == (not pushed.aliases), "the frame names whom it was addressed by"
            assert handed.alias is None or handed.alias in pushed.aliases, f"{handed} was for {pushed.aliases}"
            assert at < self.facts.recalled.get(handed.msg_id, at + 1), f"{handed} came after it was recalled"
            if pushed.is_held:
                self.check_held(at, handed, changes)
                continue
            for change in changes:
                if pushed.aliases and change.is_another and change.told is not None:
                    assert not pushed.ended < change.began < change.told < at, f"{handed} came after {change}"

    @staticmethod
    def check_held(at: int, handed: Handed, changes: list[Change]) -> None:
        """C25: it is given to the device on which its alias is set, and not when that is another again."""
        for change in changes:
            if change.alias != handed.alias and change.is_another and change.told is not None and change.told < at:
                later = [each for each in changes if each.told is None or each.told > change.began]
                again = [each for each in later if each.alias == handed.alias and each.began < at]
                assert again, f"{handed} came after {change}"

    async def check_receipts(self) -> None:
        """C20: no cursor is missing, and each delivery has one verdict, as the reports have it."""
        receipts = self.facts.receipts
        page = await self.world.store.receipts(self.world.app.tenant.app_no, Cursor(0), 1)
        assert sorted(receipts) == list(range(1, page.last + 1)), "the consumer has missed some"
        told: dict[MsgId, Counter[str]] = {}
        for row in receipts.values():
            told.setdefault(row.msg_id, Counter())[row.event.word] += 1
        for msg_id, report in (await self.world.reports(list(self.facts.pushed))).items():
            words = told.get(msg_id, Counter())
            verdicts = {word: count for word, count in words.items() if word in VERDICTS}
            assert verdicts == report.verdicts, f"push {msg_id}: {words} were told, {report}"
            assert {word: count for word, count in words.items() if word in MARKS} == report.marks
            assert words["overdue"] <= report.targets

    async def check_beliefs(self) -> None:
        """C14: a device that nobody has ended knows who is logged in there."""
        await self.world.told()
        await self.world.app.router.sound()
        await wait_all_tasks_blocked()
        for registration_id, visit in self.visits:
            registration = self.world.app.router.directory.find(registration_id)
            if registration is not None and visit.ending is None and self.world.app.router.is_present(registration):
                assert visit.belief == registration.alias, f"visit {visit.visit_id}: {visit.log}"

    async def end(self) -> None:
        """Everybody comes, and takes what there is; in ten days everything is settled."""
        self.is_faulty = False
        await self.start(None)
        self.world.nursery.start_soon(self.follow, True)
        for phone in self.phones:
            if phone._registration_id is not None:
                await self.come(phone)
        await wait_all_tasks_blocked()
        for _ in range(400):
            busy = False
            for phone in self.phones:
                if phone._registration_id is not None and phone.actor.mailbox.sent_count():
                    busy = phone.acknowledge(phone.handed[-1])
                    await self.world.told()
            if not busy:
                break
        for actor in self.world.devices.all():
            assert actor.is_alias or actor.mailbox.waiting_count() == 0, "what could be sent was not"
        await wait_all_tasks_blocked()  # the consumer has read what is older than it will be kept
        await self.world.pass_time(11 * DAY_S)
        for msg_id, report in (await self.world.reports(list(self.facts.pushed))).items():
            assert (report.waiting, report.sent) == (0, 0), f"push {msg_id}: {report}"
        await self.check_reports(list(self.facts.pushed))
        await self.check_receipts()
        assert not self.disk.mailboxes
        assert all(each.body is None for each in self.disk.pushes.values())
        assert not any(self.world.wire.of(msg_id) for msg_id in self.facts.pushed)
        assert not self.world.complaints
        assert not self.world.disagreements()
        await self.world.kill()

    async def come(self, phone: Phone) -> None:
        try:
            await phone.connect()
        except NoSuchDevice:  # deleted, or it was never told that it had registered
            phone._registration_id = phone.secret = None
            await phone.connect(install_key=self.key(phone))


@pytest.mark.parametrize("seed", range(40))
async def test_whoever_comes_between_whatever_must_hold_holds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """C1, C2, C9, C11, C13, C14, C20, C22, C25"""
    monkeypatch.setattr(fanout_module, "SLICE", 2)
    with seeded_order(seed):
        async with trio.open_nursery() as nursery:
            await Crowd(seed, nursery, is_faulty=False).run()


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_crashes_what_must_hold_holds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """C1, C2, C9, C11, C13, C14, C20, C22, C25: an actor ends alone."""
    monkeypatch.setattr(fanout_module, "SLICE", 2)
    with seeded_order(seed):
        async with trio.open_nursery() as nursery:
            await Crowd(1000 + seed, nursery, is_faulty=True).run()

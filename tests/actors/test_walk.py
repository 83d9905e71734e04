"""The whole, walked through at random: one step after the other beside a twin, and many at a time by what must hold."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from math import inf
from typing import Any, NamedTuple

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pushactors.actors.fanout import Push
from pushactors.actors.receipts import Ended, Subscription
from pushactors.actors.router import TagChange
from pushactors.actors.tenant import Limits
from pushactors.actors.visits import Ending
from pushactors.domain import credentials
from pushactors.domain.aliases import AliasFullPolicy
from pushactors.domain.audience import Audience
from pushactors.domain.message import Mark
from pushactors.domain.receipts import OUTSTANDING
from pushactors.errors import NoSuchDevice, PushactorsError
from pushactors.stores.contract import ReceiptRow
from pushactors.stores.memory import MemoryDisk
from pushactors.wire.ids import Alias, Cid, Consumer, Cursor, DeviceNo, MsgId, Platform, RegistrationId, Tag
from tests.actors.twin import NOT_KNOWN, Answer, Asked, Entry, Event, Refusal, Rules, Twin, home_of
from tests.actors.world import (
    APP,
    DAY_S,
    Handed,
    HeldStore,
    Phone,
    RecordingVisit,
    World,
    seeded_order,
    wall_clock,
)

STEPS = 400
SEEDS = range(30)
ALIASES = ("alice", "bob", "carol")
TAGS = ("news", "sport")
PLATFORMS = ("android", "ios")
MARKS = {"opened": Mark.OPENED, "dismissed": Mark.DISMISSED, "withdrawn": Mark.WITHDRAWN}
CONSUMERS = ("billing", "metrics")
RECALLS_CAN_BE_KILLED = True
"""Not while a recall waits for the disk behind a shield: it would wait for ever."""
REPORTS_COMPARED_S = 27 * DAY_S
SETTLING_S = 2
ROUND_S = 0.5
"""What is due is noticed within 1 s: a round of upkeep, and another one if a device had no actor in the first."""


class Op(NamedTuple):
    """One step: what the server does, and what the twin does, who is told the answer for the ids in it."""

    name: str
    act: Callable[[], Awaitable[Any]]
    foretell: Callable[[Twin, Any], Any]
    patience_s: float = 20.0
    halves: tuple[Callable[[Twin, Any], Any], ...] = ()
    """What may be left of it if the server is killed in the middle, and nobody was answered."""
    may_be_cut_short: bool = True


class Follower:
    """An app server that follows the receipts: it reads whatever comes, and acknowledges when it is told to."""

    def __init__(self, name: str, subscription: Subscription) -> None:
        self.name = name
        self.subscription = subscription
        self.begins_behind = subscription.progress.position
        self.pages: list[list[ReceiptRow]] = []

    async def run(self) -> None:
        while (page := await self.subscription.next_page()) is not None:
            self.pages.append(page)

    def rows(self) -> list[ReceiptRow]:
        return [row for page in self.pages for row in page]


class Walk:
    """One walk. Names: a phone is `p0`, and each registration of it a device: `p0#1`."""

    def __init__(self, seed: int, nursery: trio.Nursery) -> None:
        self.chance = random.Random(seed)
        self.seed = seed
        self.nursery = nursery
        self.disk = MemoryDisk()
        longest_absent = self.chance.random() < 0.5
        rules = Rules(2, 2, self.chance.choice((1, 2, 3)), self.chance.choice((1, 2)), longest_absent)
        self.limits = Limits(
            rules.offline_limit,
            rules.backlog_limit,
            rules.window,
            rules.alias_limit,
            AliasFullPolicy.LONGEST_ABSENT if longest_absent else AliasFullPolicy.REFUSE,
        )
        self.twin = Twin(rules, wall_clock())
        self.world: World
        self.phones: dict[str, Phone] = {}
        self.devices: dict[str, str] = {}
        """The device that each phone is now, if it has registered."""
        self.ids: dict[str, RegistrationId] = {}
        """Of each device."""
        self.visits: list[tuple[str, RecordingVisit]] = []
        """Of this run of the server."""
        self.asked: list[Asked] = []
        """Pushes with a `cid`."""
        self.receipts: list[ReceiptRow] = []
        """All that were ever told, from the first cursor."""
        self.followers: list[Follower] = []
        """Of this run of the server, those that ended included."""
        self.crashes = 0
        """Those of this run that were asked for."""
        self.story: list[str] = []

    # --- Life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        slowness = self.chance if self.seed % 2 else None
        self.world = World(HeldStore(self.disk, slowness), self.limits, with_upkeep=True, seed=self.seed)
        await self.nursery.start(self.world.run)
        if not self.phones:
            self.phones = {f"p{number}": Phone(self.world) for number in range(5)}
        for phone in self.phones.values():
            phone.move(self.world)
        self.visits.clear()
        self.followers.clear()
        self.crashes = 0
        await wait_all_tasks_blocked()

    async def run(self, steps: int) -> None:
        await self.start()
        for _ in range(steps):
            await self.step()
        await self.world.kill()

    async def step(self) -> None:
        ways: dict[Callable[[], Op | None], int] = {
            self.push: 16,
            self.push_held: 8,
            self.recall: 4,
            self.subscribe: 2,
            self.unsubscribe: 1,
            self.done_with: 3,
            self.crash: 1,
            self.outage: 1,
            self.push_again: 2,
            self.connect: 9,
            self.answer: 3,
            self.leave: 3,
            self.say_goodbye_again: 1,
            self.acknowledge: 10,
            self.decline: 2,
            self.mark: 2,
            self.set_alias: 4,
            self.set_device: 4,
            self.delete_alias: 1,
            self.delete: 1,
            self.take: 5,
            self.pass_time: 3,
            self.retire: 2,
        }
        op = None
        while op is None:
            [way] = self.chance.choices(list(ways), list(ways.values()))
            op = way()
        self.story.append(op.name)
        if op.may_be_cut_short and self.chance.random() < 0.03:
            await self.cut_short(op)
        else:
            answer = await self.act(op)
            await wait_all_tasks_blocked()
            foretold = self.foretell(self.twin, op, answer)
            assert answer == foretold, self.tell(f"answered {answer}, foretold {foretold}")
        if self.chance.random() < 0.02:
            await self.kill()
        differences = await self.differences(self.twin)
        assert not differences, self.tell(*differences)
        await self.read_receipts()

    def tell(self, *what: str) -> str:
        last = "\n    ".join(self.story[-25:])
        return f"seed {self.seed}, step {len(self.story)}:\n    {last}\n" + "\n".join(what)

    async def act(self, op: Op) -> Any:
        try:
            with trio.fail_after(op.patience_s):
                return await op.act()
        except PushactorsError as refused:
            return type(refused).__name__
        except trio.TooSlowError:
            raise AssertionError(self.tell("waits for what does not come")) from None

    @staticmethod
    def foretell(twin: Twin, op: Op, answer: Any) -> Any:
        try:
            return op.foretell(twin, answer)
        except Refusal as refused:
            return str(refused)

    async def kill(self) -> None:
        self.story.append("kill -9")
        await self.world.kill()
        await self.start()
        await self.settle_down()
        _restart(self.twin)

    async def cut_short(self, op: Op) -> None:
        """`kill -9` in the middle of it: either it has happened or it has not, and what was told has."""
        self.story[-1] += " … and kill -9 in the middle"
        told: list[Any] = []

        async def act() -> None:
            told.append(await self.act(op))

        self.world.nursery.start_soon(act)
        for _ in range(self.chance.randrange(10)):
            await trio.lowlevel.checkpoint()
        await self.world.kill()
        await self.start()
        await self.settle_down()
        await self.recognise()
        before, after = copy.deepcopy(self.twin), copy.deepcopy(self.twin)
        halves = [copy.deepcopy(self.twin) for _ in op.halves] if not told else []
        answer = told[0] if told else self.what_is_on_disk()
        self.foretell(after, op, answer)
        for twin, half in zip(halves, op.halves, strict=False):
            self.foretell(twin, op._replace(foretell=half), answer)
        for twin in (before, after, *halves):
            _restart(twin)
        differences = await self.differences(after)
        if not differences:
            self.twin = after
        else:
            is_told_at_once = "push" in op.name and "ttl=0," in op.name
            is_told_at_once = is_told_at_once and "overrides=" not in op.name and "cid=" not in op.name
            assert not told or is_told_at_once, self.tell("what was told is lost", *differences)
            others: list[str] = []
            for twin in (before, *halves):
                found = await self.differences(twin)
                if not found:
                    self.twin = twin
                    return
                others += ["nor", *found]
            raise AssertionError(self.tell("neither", *differences, *others))

    async def settle_down(self) -> None:
        """After a start: what is due, or comes back to its alias and is due, is noticed within 1 s."""
        for _ in range(round(SETTLING_S / ROUND_S)):
            await self.world.pass_time(ROUND_S)

    def what_is_on_disk(self) -> Any:
        """As if it had been told."""
        known, newest = max(self.twin.pushes, default=0), max(self.disk.pushes, default=0)
        return (newest if newest > known else known + 1, 0, 0)

    async def recognise(self) -> None:
        """A phone that was not told who it is finds it out as a client does: by its install key."""
        for name, phone in self.phones.items():
            digest = credentials.install_digest(APP, _key(name))
            known = await self.world.store.installed(self.world.app.tenant.app_no, digest)
            if known is not None and known not in self.ids.values():
                self.devices[name] = self.next_device(name)
                self.ids[self.devices[name]] = known
            if phone._registration_id is not None and phone._registration_id not in self.ids.values():
                phone._registration_id = phone.secret = None

    # --- Comparing ---------------------------------------------------------------------------------------------------

    async def differences(self, twin: Twin) -> list[str]:
        found: list[str] = [*self.world.complaints, *self.world.disagreements()]
        faults = Counter(self.world.faults())
        faults["actor_crashes"] -= self.crashes
        found += [f"{fault}: {count}" for fault, count in faults.items() if count]

        def same(what: str, is_so: object, should_be: object) -> None:
            if is_so != should_be:
                found.append(f"{what}: is {is_so}, should be {should_be}")

        same("the time", wall_clock(), twin.now)
        same("changes that do not fit", self.world.tally.read("ignored", "store"), twin.ignored)
        self._compare_devices(twin, same)
        await self._compare_pushes(twin, same)
        await self._compare_receipts(twin, same)
        return found

    def _compare_devices(self, twin: Twin, same: Callable[[str, object, object], None]) -> None:
        router = self.world.app.router
        known = {each.registration_id: each for each in router.directory}
        living = {self.ids.get(device.name): device for device in twin.living()}
        same("the devices", set(known), set(living))
        for registration_id, device in living.items():
            registration = known.get(registration_id) if registration_id is not None else None
            if registration is None:
                continue
            said = registration.alias, frozenset(registration.tags), registration.platform.value
            same(f"{device.name} alias, tags, platform", said, (device.alias, device.tags, device.platform))
            same(f"{device.name} is present", router.is_present(registration), device.visit is not None)
            unsettled = [each.msg_id for each in twin.of(device, "sent", "waiting")]
            same(f"{device.name} mailbox on disk", self.on_disk(registration.device_no), unsettled)
            row = self.disk.devices[registration.device_no].row
            if device.visit is None and device.is_sure:
                same(f"{device.name} has left at", (row.was_present, row.last_seen_at), (False, device.last_seen_at))
            notices = self.disk.devices[registration.device_no].notices
            due = {msg_id: until for msg_id, until in notices.items() if until > twin.now}
            owed = {msg_id: until for msg_id, until in device.notices.items() if until > twin.now}
            # Here no time passes within a step, so that nobody can say whether what is held was sent before it was
            # taken from this device, or after it came back: then it is told, needlessly or not.
            doubtful = {each.msg_id for each in twin.deliveries if each.held_for is not None} - owed.keys()
            due = {msg_id: until for msg_id, until in due.items() if msg_id not in doubtful}
            same(f"{device.name} must be told of the recalls", due, owed)
            actor = self.world.devices.at_rest(registration.device_no)
            if actor is not None:
                entries = [each.msg_id for each in actor.mailbox.sent], [each.msg_id for each in actor.mailbox.waiting]
                states = tuple([each.msg_id for each in twin.of(device, state)] for state in ("sent", "waiting"))
                same(f"{device.name} mailbox", entries, states)
        for name, visit in self.visits:
            why = None if visit.ending in (None, Ending.STOPPED) else visit.ending
            same(f"{name} visit {visit.visit_id} ended", why and why.value, twin.ended.get(visit.visit_id))
            present = twin.devices[name].visit
            if present is not None and present.number == visit.visit_id:
                same(f"{name} was handed", _log(visit), present.log)
                held = {each.msg_id for each in twin.deliveries if each.held_for is not None}
                told = [each for each in visit.recalls if each not in held or each in present.recalls]
                same(f"{name} was told of the recalls", sorted(told), sorted(present.recalls))
        for alias in ALIASES:
            mailbox = self.world.app.held.find(Alias(alias))
            found = [] if mailbox is None else self.on_disk(mailbox.device_no)
            there = [each.msg_id for each in twin.of(home_of(alias), "waiting")]
            same(f"waits for {alias} on disk", found, there)
            actor = None if mailbox is None else self.world.devices.at_rest(mailbox.device_no)
            if actor is not None:
                same(f"waits for {alias}", [each.msg_id for each in actor.mailbox.waiting], there)

    def on_disk(self, device_no: DeviceNo) -> list[MsgId]:
        """What is unsettled in a mailbox, in order."""
        found = self.disk.mailboxes.get(device_no, {})
        return sorted(found, key=lambda msg_id: found[msg_id].deliveries[device_no].place)

    async def _compare_pushes(self, twin: Twin, same: Callable[[str, object, object], None]) -> None:
        oldest = twin.now - REPORTS_COMPARED_S * 1000
        young = [MsgId(msg_id) for msg_id, push in twin.pushes.items() if push.last_event_at > oldest]
        reports = await self.world.reports(young)
        for msg_id in young:
            same(f"push {msg_id}", reports.get(msg_id), twin.report(msg_id))
            if msg_id in self.disk.pushes:
                push = self.disk.pushes[msg_id]
                kept = push.body is not None
                same(f"content of {msg_id} is kept", kept, bool(push.unsettled) and push.message.expires_at is not None)
        same("pushes", {each for each in self.disk.pushes if each not in twin.pushes}, set())
        should_be: dict[int, Counter[tuple[str, str]]] = {msg_id: Counter() for msg_id in young}
        for each in twin.deliveries:
            if each.msg_id in should_be:
                should_be[each.msg_id][each.device, each.state if each.is_settled else ""] += 1
        names = {registration_id: name for name, registration_id in self.ids.items()}
        for msg_id in young:
            if msg_id in self.disk.pushes:
                found = Counter(
                    (self.where(device_no, names), "" if delivery.verdict is None else delivery.verdict.word)
                    for device_no, delivery in self.disk.pushes[msg_id].deliveries.items()
                )
                # What was settled in the mailbox of an alias gives its place to what comes back there.
                for where in {where for where, _ in found if where.startswith("@")}:
                    same(f"{msg_id} is once in {where}", sum(found[each] for each in found if each[0] == where), 1)
                    settled = [each for each in should_be[msg_id] if each[0] == where and each[1]]
                    for each in settled:
                        if not found[each]:
                            del should_be[msg_id][each]
                    for each in [each for each in found if each[0] == where and each[1]]:
                        should_be[msg_id][each] = min(1, should_be[msg_id][each])
                same(f"deliveries of {msg_id}", found, should_be[msg_id])

    def where(self, device_no: DeviceNo, names: dict[RegistrationId, str]) -> str:
        row = self.disk.devices[device_no].row
        return home_of(row.alias or "") if row.is_alias else names.get(row.registration_id, "somebody")

    async def _compare_receipts(self, twin: Twin, same: Callable[[str, object, object], None]) -> None:
        """Each event exactly once, those of one delivery in their order; cursors without a gap."""
        read = len(self.receipts)
        page = await self.world.store.receipts(self.world.app.tenant.app_no, Cursor(read), 10_000)
        rows = [*self.receipts, *page.rows]
        same("the cursors", [row.cursor for row in page.rows], list(range(read + 1, page.last + 1)))
        same("the number of receipts", page.last, twin.told)
        if page.rows or page.last != twin.told:
            self._compare_events(rows, twin, same)
        same("where the consumers are", dict(self.disk.consumers[self.world.app.tenant.app_no]), twin.consumers)
        self._compare_followers(rows, same)

    def _compare_events(
        self, rows: list[ReceiptRow], twin: Twin, same: Callable[[str, object, object], None]
    ) -> None:
        told: dict[int, list[Event]] = {}
        names = {registration_id: name for name, registration_id in self.ids.items()}
        for row in rows:
            told.setdefault(row.msg_id, []).append(_event(row, names))
        should_be: dict[int, list[list[Event]]] = {}
        for each in twin.deliveries:
            if each.told:
                should_be.setdefault(each.msg_id, []).append(each.told)
        same("the pushes with receipts", set(told), set(should_be))
        for msg_id, deliveries in should_be.items():
            found = told.get(msg_id, [])
            events = [event for events in deliveries for event in events]
            is_so = sorted(map(_without_instants, found))
            same(f"receipts of {msg_id}", is_so, sorted(map(_without_instants, events)))
            for delivery in deliveries:
                if not _is_part(map(_without_instants, delivery), map(_without_instants, found)):
                    same(f"receipts of {msg_id} in order", found, delivery)
            for event in found:
                if not any(_agree(event, each) for each in events):
                    same(f"instants in the receipts of {msg_id}", event, events)

    def _compare_followers(
        self, rows: list[ReceiptRow], same: Callable[[str, object, object], None]
    ) -> None:
        for number, each in enumerate(self.followers):
            who = f"{each.name}, subscription {number}"
            got = [row for page in each.pages for row in page]
            same(f"{who} was told", got, rows[each.begins_behind : each.begins_behind + len(got)])
            displaced = any(later.name == each.name for later in self.followers[number + 1 :])
            if each.subscription.ended is not None:
                is_cut_off = each.begins_behind + len(got) < self.kept_behind()
                why = Ended.CURSOR_GONE if is_cut_off and not displaced else Ended.DISPLACED
                same(f"{who} ended", each.subscription.ended in (why, Ended.CURSOR_GONE), True)
            elif not each.subscription.is_over:
                same(f"{who} is displaced", displaced, False)
                if each.subscription.progress.may_send:
                    same(f"{who} was told all", each.begins_behind + len(got), len(rows))
                else:
                    done = each.subscription.progress.acknowledged
                    outstanding = [page for page in each.pages if page[-1].cursor > done]
                    same(f"{who} is held back by", len(outstanding), OUTSTANDING)

    def kept_behind(self) -> int:
        """The receipts up to this cursor are not kept any more."""
        stream = self.disk.streams.get(self.world.app.tenant.app_no)
        return 0 if stream is None else stream.before

    async def read_receipts(self) -> None:
        """What was compared is never read again: after ten days nobody has it."""
        page = await self.world.store.receipts(self.world.app.tenant.app_no, Cursor(len(self.receipts)), 10_000)
        self.receipts += page.rows

    # --- App servers -------------------------------------------------------------------------------------------------

    def push(self) -> Op:
        chance = self.chance
        kind = chance.choice(("alias", "alias", "alias", "device", "device", "tag", "all"))
        known = sorted(self.ids if chance.random() < 0.1 else (device.name for device in self.twin.living()))
        recent = sorted(self.twin.pushes)[-5:]
        overridden = [each.overrides for each in self.twin.deliveries[-20:] if each.overrides is not None]
        asked = Asked(
            aliases=tuple(chance.sample(ALIASES, chance.choice((1, 2, 2)))) if kind == "alias" else (),
            devices=tuple(chance.sample(known, min(2, len(known)))) if kind == "device" else (),
            tags=(chance.choice(TAGS),) if kind == "tag" else (),
            platforms=(chance.choice(PLATFORMS),) if chance.random() < 0.1 else (),
            ttl=chance.choice((0, 0, 2, 30, 3600, DAY_S, DAY_S, 10 * DAY_S, 10 * DAY_S)),
            overrides=chance.choice([*recent, *overridden, 999_999_999]) if chance.random() < 0.5 else None,
            cid=f"cid-{len(self.asked)}" if chance.random() < 0.2 else None,
            content=chance.randrange(1000),
            within=self.some_deadline(),
        )
        if asked.cid is not None:
            self.asked.append(asked)
        return self._pushing(asked)

    def push_held(self) -> Op:
        """It waits for its users, if it must."""
        chance = self.chance
        recent = sorted(self.twin.pushes)[-5:]
        overridden = [each.overrides for each in self.twin.deliveries[-20:] if each.overrides is not None]
        asked = Asked(
            aliases=tuple(chance.sample(ALIASES, chance.choice((1, 1, 2)))),
            ttl=chance.choice((2, 30, 3600, DAY_S, DAY_S, 10 * DAY_S, 10 * DAY_S)),
            overrides=chance.choice([*recent, *overridden, 999_999_999]) if chance.random() < 0.3 else None,
            cid=f"cid-{len(self.asked)}" if chance.random() < 0.1 else None,
            content=chance.randrange(1000),
            hold=True,
            within=self.some_deadline(),
        )
        if asked.cid is not None:
            self.asked.append(asked)
        return self._pushing(asked)

    def some_deadline(self) -> int | None:
        # None of them is a time to live: what is due and overdue in one instant is told either way.
        return self.chance.choice((None, None, None, 1, 5, 600, 5000, DAY_S // 2))

    def push_again(self) -> Op | None:
        if not self.asked:
            return None
        asked = self.chance.choice(self.asked[-6:])
        if self.chance.random() < 0.2:
            asked = Asked(**{**vars(asked), "content": asked.content + 1})
        return self._pushing(asked)

    def _pushing(self, asked: Asked) -> Op:
        push = Push(
            Audience(
                tuple(Alias(alias) for alias in asked.aliases),
                tuple(self.ids[device] for device in asked.devices),
                tuple(Tag(tag) for tag in asked.tags),
            ),
            frozenset(Platform(platform) for platform in asked.platforms),
            asked.ttl,
            None if asked.overrides is None else MsgId(asked.overrides),
            b"%d" % asked.content,
            None,
            None if asked.cid is None else Cid(asked.cid),
            repr(asked).encode(),
            asked.within,
            asked.hold,
        )

        async def act() -> Answer:
            accepted = await self.world.accept(push)
            return accepted.msg_id, accepted.targets, accepted.online

        def foretell(twin: Twin, answer: Any) -> Answer:
            return twin.push(asked, answer[0] if isinstance(answer, tuple) else -1)

        said = ", ".join(f"{name}={value}" for name, value in vars(asked).items() if value or name == "ttl")
        return Op(f"push {said}", act, foretell)

    def set_device(self) -> Op | None:
        name = self.some_device()
        alias = self.chance.choice((None, "", *ALIASES))
        if name is None or not self.twin.can_foretell(alias):
            return None
        wanted = self.some_tags()
        tags = TagChange() if wanted is None else TagChange(_tags(wanted), replace=True)

        async def act() -> None:
            await self.world.app.router.change(self.ids[name], None if alias is None else Alias(alias), tags)
            await self.world.told()

        def foretell(twin: Twin, _: Any) -> None:
            twin.set_device(name, alias, wanted)

        return Op(f"app server: {name} alias={alias} tags={wanted}", act, foretell)

    def delete_alias(self) -> Op:
        alias = self.chance.choice(ALIASES)
        order: list[str] = []

        async def act() -> set[str]:
            lost = await self.world.delete_alias(Alias(alias))
            names = {registration_id: name for name, registration_id in self.ids.items()}
            order.extend(names[each] for each in lost)
            return set(order)

        return Op(f"app server: nobody is {alias}", act, lambda twin, _: twin.delete_alias(alias, order))

    def recall(self) -> Op | None:
        if not self.twin.pushes:
            return None
        oldest = self.twin.now - REPORTS_COMPARED_S * 1000
        young = [msg_id for msg_id, push in self.twin.pushes.items() if push.last_event_at > oldest]
        msg_id = self.chance.choice([*sorted(young)[-12:], 999_999_999])

        async def act() -> Any:
            return tuple(await self.world.app.recalls.recall(MsgId(msg_id)))

        return Op(
            f"app server: recall {msg_id}",
            act,
            lambda twin, _: twin.recall(msg_id),
            halves=(lambda twin, _: twin.recall(msg_id, is_half=True),),
            may_be_cut_short=RECALLS_CAN_BE_KILLED,
        )

    # --- Consumers of receipts ---------------------------------------------------------------------------------------

    def subscribe(self) -> Op:
        """Where it was, or with the oldest kept: then it has missed nothing in silence."""
        name = self.chance.choice(CONSUMERS)
        is_everything = name not in self.twin.consumers or self.chance.random() < 0.2

        async def act() -> int:
            after = Cursor(0) if is_everything else None
            subscription = await self.world.app.receipts.subscribe(Consumer(name), after)
            follower = Follower(name, subscription)
            self.followers.append(follower)
            await self.world.told()
            self.world.nursery.start_soon(follower.run)
            return subscription.progress.position

        def foretell(twin: Twin, _: Any) -> int:
            return twin.subscribe(name, is_everything, self.kept_behind())

        return Op(f"{name} subscribes, from the beginning={is_everything}", act, foretell)

    def unsubscribe(self) -> Op | None:
        follower = self.some_follower()
        if follower is None:
            return None

        async def act() -> None:
            follower.subscription.end(None)

        return Op(f"{follower.name} goes away", act, lambda *_: None)

    def done_with(self) -> Op | None:
        follower = self.some_follower()
        if follower is None or not follower.pages:
            return None
        page = follower.pages[-1] if self.chance.random() < 0.7 else self.chance.choice(follower.pages)
        cursor = page[-1].cursor if self.chance.random() < 0.7 else self.chance.choice(page).cursor

        async def act() -> None:
            self.world.app.receipts.acknowledge(follower.subscription, cursor)
            await self.world.told()

        return Op(f"{follower.name} is done with {cursor}", act, lambda twin, _: twin.done_with(
            follower.name, cursor, follower.begins_behind
        ))

    def some_follower(self) -> Follower | None:
        """One that is still subscribed."""
        found = [each for each in self.followers if not each.subscription.is_over]
        return self.chance.choice(found) if found else None

    def delete(self) -> Op | None:
        name = self.some_device()
        if name is None:
            return None

        async def act() -> None:
            await self.world.app.registrar.delete(self.ids[name])
            await self.world.told()

        return Op(f"app server: delete {name}", act, lambda twin, _: twin.delete(name))

    # --- Devices -----------------------------------------------------------------------------------------------------

    def connect(self) -> Op | None:
        name, phone = self.some_phone()
        alias = self.chance.choice((None, None, "", *ALIASES))
        if not self.twin.can_foretell(alias):
            return None
        tags, platform = self.some_tags(), self.chance.choice((None, None, *PLATFORMS))
        device = self.devices.get(name)
        has_id = phone._registration_id is not None and self.chance.random() < 0.8
        if not has_id and (device is None or self.twin.devices[device].is_deleted):
            device = self.next_device(name)
        is_answered = self.chance.random() < 0.8
        assert device is not None
        said = {
            "alias": None if alias is None else Alias(alias),
            "tags": None if tags is None else _tags(tags),
            "platform": None if platform is None else Platform(platform),
            "install_key": None if has_id else _key(name),
        }

        async def act() -> Any:
            known = phone._registration_id, phone.secret
            if not has_id:
                phone._registration_id = phone.secret = None
            try:
                welcome = await phone.arrive(**said)
            except NoSuchDevice:
                phone._registration_id = phone.secret = None
                raise
            except PushactorsError:
                phone._registration_id, phone.secret = known
                raise
            self.visits.append((device, phone.visit))
            self.devices[name] = device
            self.ids[device] = welcome.registration_id
            if is_answered:
                phone.resume()
            return welcome.alias, frozenset(welcome.tags), welcome.platform.value, welcome.waiting

        def foretell(twin: Twin, _: Any) -> Any:
            if has_id:
                twin.find(device)
            visit = phone.visit.visit_id if hasattr(phone, "visit") else 0
            foretold = twin.connect(device, visit, alias, tags, platform)
            if is_answered:
                twin.answer(device)
            return foretold

        by = "id" if has_id else "install key"
        return Op(f"{device}: connect by {by}, alias={alias} tags={tags} answered={is_answered}", act, foretell)

    def answer(self) -> Op | None:
        found = self.connected(is_answered=False)
        if found is None:
            return None
        device, phone = found

        async def act() -> None:
            phone.resume()

        return Op(f"{device}: has its answer", act, lambda twin, _: twin.answer(device))

    def leave(self) -> Op | None:
        found = self.connected(is_answered=None)
        if found is None:
            return None
        device, phone = found
        visit = phone.visit

        async def act() -> None:
            phone.leave()
            await self.world.told()

        return Op(f"{device}: leaves", act, lambda twin, _: twin.leave(device, visit.visit_id))

    def say_goodbye_again(self) -> Op | None:
        if not self.visits:
            return None
        device, visit = self.chance.choice(self.visits)
        present = self.twin.devices[device].visit
        if present is not None and present.number == visit.visit_id:
            return None

        async def act() -> None:
            self.world.app.registrar.leave(self.ids[device], visit.visit_id)
            await self.world.told()

        return Op(f"{device}: a late goodbye of visit {visit.visit_id}", act, lambda *_: None)

    def set_alias(self) -> Op | None:
        found = self.connected(is_answered=True)
        alias = self.chance.choice(("", *ALIASES))
        if found is None or not self.twin.can_foretell(alias):
            return None
        device, phone = found
        is_answered = self.chance.random() < 0.8

        async def act() -> str | None:
            previous = await phone.ask_for_alias(Alias(alias))
            if is_answered:
                phone.resume()
            return previous

        def foretell(twin: Twin, _: Any) -> str | None:
            previous = twin.set_alias(device, alias)
            if is_answered:
                twin.answer(device)
            return previous

        return Op(f"{device}: logs in {alias!r}, answered={is_answered}", act, foretell)

    def take(self) -> Op | None:
        found = self.connected(is_answered=None)
        if found is None:
            return None
        device, phone = found
        room = self.chance.choice((None, None, 0, 1, 2))

        async def act() -> None:
            phone.take(room)
            await self.world.told()

        return Op(f"{device}: its buffer takes {room}", act, lambda twin, _: twin.take(device, room))

    def acknowledge(self) -> Op | None:
        found = self.about_a_message()
        if found is None:
            return None
        device, phone, visit, msg_id = found

        async def act() -> None:
            phone.acknowledge(msg_id, visit)
            await self.world.told()

        def foretell(twin: Twin, _: Any) -> None:
            twin.acknowledge(device, visit.visit_id, msg_id)

        return Op(f"{device}: received {msg_id} on visit {visit.visit_id}", act, foretell)

    def decline(self) -> Op | None:
        found = self.about_a_message()
        if found is None:
            return None
        device, phone, visit, msg_id = found

        async def act() -> None:
            phone.decline(msg_id, visit)
            await self.world.told()

        return Op(
            f"{device}: declined {msg_id} on visit {visit.visit_id}",
            act,
            lambda twin, _: twin.decline(device, visit.visit_id, msg_id),
        )

    def mark(self) -> Op | None:
        found = self.about_a_message()
        if found is None:
            return None
        device, phone, _, msg_id = found
        word = self.chance.choice(sorted(MARKS))

        async def act() -> None:
            phone.mark(msg_id, MARKS[word])
            await self.world.told()

        return Op(f"{device}: {word} {msg_id}", act, lambda twin, _: twin.mark(device, msg_id, word))

    # --- Time --------------------------------------------------------------------------------------------------------

    def pass_time(self) -> Op:
        seconds = self.chance.choice((1, 1, 1, 3, 3, 40, 4000, DAY_S, 3 * DAY_S))
        instants = self.instants(seconds)

        async def act() -> None:
            await self.pass_all(instants)

        def foretell(twin: Twin, _: Any) -> None:
            for instant in instants:
                twin.pass_time(instant)

        # What is overdue is told for another reason if the server is killed before it is noticed.
        return Op(f"{seconds} s pass", act, foretell, inf, may_be_cut_short=len(instants) == 1)

    def instants(self, seconds: int) -> list[int]:
        """The deadlines on the way, and the end, in whole seconds."""
        until = self.twin.now + seconds * 1000
        deadlines = [instant for instant in self.twin.behind(self.twin.now) if instant <= until]
        return [*deadlines, until + 1000] if deadlines and deadlines[-1] == until else [*deadlines, until]

    async def pass_all(self, instants: list[int]) -> None:
        """A round of upkeep at each instant, and another one before the next."""
        for instant in instants:
            await self.pass_until(instant)
            if instant != instants[-1]:
                await self.pass_until(instant + round(ROUND_S * 1000))

    async def pass_until(self, instant: int) -> None:
        await self.world.pass_time((instant - wall_clock()) / 1000)

    def outage(self) -> Op:
        """Killed, and started again after a while: what became due meanwhile is noticed within 1 s."""
        seconds = self.chance.choice((3, 40, 4000, DAY_S))

        async def act() -> None:
            await self.world.kill()
            clock = trio.lowlevel.current_clock()
            assert isinstance(clock, trio.testing.MockClock)
            clock.jump(seconds)
            await self.start()
            await self.settle_down()

        def foretell(twin: Twin, _: Any) -> None:
            twin.now += seconds * 1000
            _restart(twin)

        return Op(f"down for {seconds} s", act, foretell, inf, may_be_cut_short=False)

    def crash(self) -> Op | None:
        """One device's actor ends alone."""
        living = sorted(device.name for device in self.twin.living() if device.visit is not None)
        if not living:
            return None
        name = self.chance.choice(living)

        async def act() -> None:
            self.world.devices.rebuild(self.world.app.router.find(self.ids[name]).device_no, "A test wants it so.")
            self.crashes += 1
            await wait_all_tasks_blocked()
            await self.world.told()

        return Op(f"{name}: crashes on the server", act, lambda twin, _: twin.crash(name))

    def retire(self) -> Op:
        async def act() -> None:
            self.world.retire()

        return Op("the idle retire", act, lambda *_: None)

    # --- Choosing ----------------------------------------------------------------------------------------------------

    def next_device(self, name: str) -> str:
        return f"{name}#{sum(1 for device in self.ids if device.startswith(name)) + 1}"

    def some_phone(self) -> tuple[str, Phone]:
        return self.chance.choice(sorted(self.phones.items(), key=lambda item: item[0]))

    def some_device(self) -> str | None:
        """Most often one that lives."""
        living = sorted(device.name for device in self.twin.living())
        if living and self.chance.random() < 0.9:
            return self.chance.choice(living)
        return self.chance.choice(sorted(self.ids)) if self.ids else None

    def some_tags(self) -> frozenset[str] | None:
        if self.chance.random() < 0.6:
            return None
        return frozenset(self.chance.sample(TAGS, self.chance.randrange(3)))

    def connected(self, is_answered: bool | None) -> tuple[str, Phone] | None:
        """A phone with a visit whose last answer has arrived or not."""
        found = []
        for name, phone in self.phones.items():
            device = self.twin.devices.get(self.devices.get(name, ""))
            if device is None or device.visit is None:
                continue
            if is_answered is None or device.visit.is_answered == is_answered:
                found.append((device.name, phone))
        return self.chance.choice(found) if found else None

    def about_a_message(self) -> tuple[str, Phone, RecordingVisit, MsgId] | None:
        """Something to say about a message, on a visit that may be over: most often the present one."""
        found = self.connected(is_answered=None)
        if found is None or not self.twin.pushes:
            return None
        device, phone = found
        if self.chance.random() < 0.85 and phone.handed:
            return device, phone, phone.visit, self.chance.choice(phone.handed[-4:])
        visits = [visit for name, visit in self.visits if name == device]
        return device, phone, self.chance.choice(visits), MsgId(self.chance.choice(sorted(self.twin.pushes)[-10:]))


def _key(name: str) -> str:
    return f"the install key of {name}"


def _tags(tags: frozenset[str]) -> tuple[Tag, ...]:
    return tuple(Tag(tag) for tag in sorted(tags))


def _log(visit: RecordingVisit) -> list[Entry]:
    return [
        ("message", entry.msg_id, entry.alias) if isinstance(entry, Handed) else ("alias", None, entry.alias)
        for entry in visit.log
    ]


def _restart(twin: Twin) -> None:
    twin.kill()
    twin.pass_time(twin.now)
    for _ in range(SETTLING_S):
        twin.pass_time(twin.now + 1000)


def _event(row: ReceiptRow, names: dict[RegistrationId, str]) -> Event:
    where = names.get(row.registration_id, "somebody") if row.registration_id is not None else home_of(row.alias or "")
    reason = row.reason
    if reason is None:
        return Event(where, row.event.word, row.at)
    return Event(where, row.event.word, row.at, reason.why.value, reason.since, reason.behind)


def _without_instants(event: Event) -> tuple[str, str, str, int]:
    return event.where, event.word, event.why, -1 if event.behind is None else event.behind


def _agree(told: Event, foretold: Event) -> bool:
    """Noticed within 1 s, and since the same instant, where anybody knows it."""
    if _without_instants(told) != _without_instants(foretold) or not 0 <= told.at - foretold.at <= 1000:
        return False
    return foretold.since == NOT_KNOWN or told.since == foretold.since


def _is_part(some: Iterable[object], whole: Iterable[object]) -> bool:
    """Whether they all come, in this order, maybe with others between them."""
    rest = iter(whole)
    return all(any(each == one for one in rest) for each in some)


@pytest.mark.parametrize("seed", SEEDS)
async def test_step_by_step_the_server_does_what_its_twin_foretells(seed: int) -> None:
    """C1 to C16, C20 to C22, C25, and C24 for those who are deleted; `kill -9` now and then, also in a step."""
    with seeded_order(seed):
        async with trio.open_nursery() as nursery:
            await Walk(seed, nursery).run(STEPS)

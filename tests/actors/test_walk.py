"""The whole, walked through at random: one step after the other beside a twin, and many at a time by what must hold."""

from __future__ import annotations

import copy
import random
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, NamedTuple

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pushactors.actors.fanout import Push
from pushactors.actors.router import TagChange
from pushactors.actors.tenant import Limits
from pushactors.actors.visits import Ending
from pushactors.domain import credentials
from pushactors.domain.aliases import AliasFullPolicy
from pushactors.domain.audience import Audience
from pushactors.domain.message import Mark
from pushactors.errors import NoSuchDevice, PushactorsError
from pushactors.stores.memory import MemoryDisk, MemoryStore
from pushactors.wire.ids import Alias, Cid, MsgId, Platform, RegistrationId, Tag
from tests.actors.twin import Answer, Asked, Entry, Refusal, Rules, Twin
from tests.actors.world import (
    APP,
    DAY_S,
    Handed,
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
REPORTS_COMPARED_S = 27 * DAY_S


class Op(NamedTuple):
    """One step: what the server does, and what the twin does, who is told the answer for the ids in it."""

    name: str
    act: Callable[[], Awaitable[Any]]
    foretell: Callable[[Twin, Any], Any]
    patience_s: float = 20.0


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
        self.story: list[str] = []

    # --- Life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self.world = World(MemoryStore(self.disk), self.limits, with_upkeep=True, seed=self.seed)
        await self.nursery.start(self.world.run)
        if not self.phones:
            self.phones = {f"p{number}": Phone(self.world) for number in range(5)}
        for phone in self.phones.values():
            phone.move(self.world)
        self.visits.clear()
        await wait_all_tasks_blocked()

    async def run(self, steps: int) -> None:
        await self.start()
        for _ in range(steps):
            await self.step()
        await self.world.kill()

    async def step(self) -> None:
        ways: dict[Callable[[], Op | None], int] = {
            self.push: 16,
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
        if self.chance.random() < 0.03:
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
        self.twin.kill()
        await self.start()

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
        await self.recall()
        before, after = copy.deepcopy(self.twin), copy.deepcopy(self.twin)
        answer = told[0] if told else self.what_is_on_disk()
        self.foretell(after, op, answer)
        for twin in (before, after):
            twin.kill()
            twin.pass_time(wall_clock())
        differences = await self.differences(after)
        if not differences:
            self.twin = after
        else:
            is_told_at_once = all(part in op.name for part in ("push", "ttl=0,", "overrides=None", "cid=None"))
            assert not told or is_told_at_once, self.tell("what was told is lost", *differences)
            others = await self.differences(before)
            assert not others, self.tell("neither", *differences, "nor", *others)
            self.twin = before

    def what_is_on_disk(self) -> Any:
        """As if it had been told."""
        known, newest = max(self.twin.pushes, default=0), max(self.disk.pushes, default=0)
        return (newest if newest > known else known + 1, 0, 0)

    async def recall(self) -> None:
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
        found += [f"{fault}: {count}" for fault, count in self.world.faults().items()]

        def same(what: str, is_so: object, should_be: object) -> None:
            if is_so != should_be:
                found.append(f"{what}: is {is_so}, should be {should_be}")

        same("the time", wall_clock(), twin.now)
        same("changes that do not fit", self.world.tally.read("ignored", "store"), twin.ignored)
        self._compare_devices(twin, same)
        await self._compare_pushes(twin, same)
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
            on_disk = sorted(self.disk.mailboxes.get(registration.device_no, {}))
            same(f"{device.name} mailbox on disk", on_disk, unsettled)
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
        for each in twin.deliveries:
            push_on_disk = self.disk.pushes.get(MsgId(each.msg_id))
            if each.msg_id in young and push_on_disk is not None:
                device_no = self.disk.by_registration[self.ids[each.device]]
                verdict = push_on_disk.deliveries[device_no].verdict
                word = None if verdict is None else verdict.word
                same(f"{each.msg_id} for {each.device}", word, each.state if each.is_settled else None)

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
        )
        if asked.cid is not None:
            self.asked.append(asked)
        return self._pushing(asked)

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
        )

        async def act() -> Answer:
            accepted = await self.world.accept(push)
            return accepted.msg_id, accepted.targets, accepted.online

        def foretell(twin: Twin, answer: Any) -> Answer:
            return twin.push(asked, answer[0] if isinstance(answer, tuple) else -1)

        return Op(f"push {asked}", act, foretell)

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

        async def act() -> set[str]:
            lost = await self.world.delete_alias(Alias(alias))
            return {name for name, each in self.ids.items() if each in lost}

        return Op(f"app server: nobody is {alias}", act, lambda twin, _: twin.delete_alias(alias))

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

        async def act() -> None:
            await self.world.pass_time(seconds)

        return Op(f"{seconds} s pass", act, lambda twin, _: twin.pass_time(twin.now + seconds * 1000), inf)

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


@pytest.mark.parametrize("seed", SEEDS)
async def test_step_by_step_the_server_does_what_its_twin_foretells(seed: int) -> None:
    """C1 to C16, and C24 for those who are deleted; `kill -9` now and then, also in the middle of a step."""
    with seeded_order(seed):
        async with trio.open_nursery() as nursery:
            await Walk(seed, nursery).run(STEPS)

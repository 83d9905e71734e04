"""The alias router of one app: who is registered, who is logged in where, and the changes of that."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pushactors.actors import fanout as fanout_module
from pushactors.actors import router as router_module
from pushactors.actors.router import NO_TAG_CHANGE, Router, TagChange
from pushactors.actors.tenant import Limits
from pushactors.actors.visits import Ending
from pushactors.domain.aliases import TAGS_MAX, AliasFullPolicy, Directory
from pushactors.domain.audience import Audience
from pushactors.domain.credentials import AliasPermit
from pushactors.errors import AliasFull, InternalError, Invalid, NoSuchDevice, NoTarget, Unauthorized, VisitEnded
from pushactors.stores.contract import AliasChanged, Left, Sent, TagsChanged
from pushactors.wire.ids import Alias, MsgId, RegistrationId, Tag, VisitId
from tests.actors.world import (
    ALICE,
    BOB,
    CAROL,
    NEWS,
    NOBODY,
    SPORT,
    Handed,
    HeldStore,
    MemoryDisk,
    Phone,
    Told,
    World,
    faulty,
    held,
    living,
    plant,
    push,
    seeded_order,
)

NO_ONE = RegistrationId("nobody")


def logged_in(world: World, alias: Alias) -> list[RegistrationId]:
    return [holder.registration_id for holder in world.app.router.directory.holders(alias)]


def ids(*phones: Phone) -> list[RegistrationId]:
    return [phone.registration_id for phone in phones]


# --- One alias per device --------------------------------------------------------------------------------------------


async def test_setting_another_alias_overwrites_and_says_which_was_before(world: World) -> None:
    """C13"""
    phone = await world.phone(ALICE)
    assert await phone.set_alias(BOB) == ALICE
    assert (logged_in(world, ALICE), logged_in(world, BOB)) == ([], ids(phone))
    assert await phone.set_alias(NOBODY) == BOB
    assert logged_in(world, BOB) == []
    assert await phone.set_alias(ALICE) is None


async def test_setting_the_alias_that_the_device_has_is_no_change(world: World) -> None:
    """C13: nothing is fenced."""
    phone = await world.phone(ALICE)
    msg_id = await world.push(alias=ALICE)
    before = world.app.router.find(phone.registration_id).binding
    await phone.set_alias(ALICE)
    await world.set_device(phone, ALICE)
    assert world.app.router.find(phone.registration_id).binding == before
    assert phone.visit.told == []
    phone.leave()
    assert await phone.state(msg_id) == "waiting"


async def test_clearing_where_nobody_is_logged_in_is_no_change(world: World) -> None:
    phone = await world.phone()
    await phone.set_alias(NOBODY)
    assert world.app.router.find(phone.registration_id).binding == 0


async def test_every_change_is_another_binding(world: World) -> None:
    """C14: clearing included."""
    phone = await world.phone(ALICE)
    bindings = [world.app.router.find(phone.registration_id).binding]
    for alias in (BOB, NOBODY, ALICE):
        await phone.set_alias(alias)
        bindings.append(world.app.router.find(phone.registration_id).binding)
    assert bindings == [1, 2, 3, 4]


async def test_an_alias_may_be_on_several_devices(world: World) -> None:
    phones = [await world.phone(ALICE) for _ in range(3)]
    assert logged_in(world, ALICE) == ids(*phones)
    assert (await world.accept(push(alias=ALICE))).targets == 3


async def test_a_change_is_told_when_it_is_durable() -> None:
    """C2"""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone(ALICE)
        answered: list[Alias | None] = []

        async def ask() -> None:
            answered.append(await phone.ask_for_alias(BOB))

        with store.held("commit"):
            world.nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            assert answered == []
        await wait_all_tasks_blocked()
        assert answered == [ALICE]
        assert store._shared.devices[phone.device_no].row.alias == BOB


async def test_the_fence_and_the_change_are_durable_together() -> None:
    """C2, C3, C14"""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone(ALICE)
        phone.visit.room = 1
        await world.push(alias=ALICE)
        await world.push(alias=ALICE)
        await world.set_device(phone, BOB)
        assert [type(change).__name__ for change in store.commits[-1][1]] == ["Struck", "Settled", "AliasChanged"]


async def test_a_device_without_an_actor_is_changed_too(world: World) -> None:
    """C14"""
    phone = await world.absent_phone(ALICE)
    msg_id = await world.push(alias=ALICE)
    world.retire()
    await world.set_device(phone, BOB)
    assert await phone.state(msg_id) == "fenced"
    assert (await phone.connect()).alias == BOB
    assert phone.handed == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda router: router.set_alias(NO_ONE, ALICE, VisitId(1)),
        lambda router: router.set_tags(NO_ONE, TagChange((NEWS,))),
        lambda router: router.change(NO_ONE, ALICE, NO_TAG_CHANGE),
        lambda router: router.mailbox(NO_ONE),
    ],
)
async def test_a_device_that_does_not_exist_is_refused(world: World, ask: Callable[[Router], Any]) -> None:
    with pytest.raises(NoSuchDevice):
        await ask(world.app.router)


async def test_the_alias_before_is_the_one_that_the_change_ended() -> None:
    """C13: an app server's change may come while the device's own waits for another device to be brought to rest."""
    store = HeldStore()
    limits = Limits(alias_limit=1, alias_full=AliasFullPolicy.LONGEST_ABSENT)
    async with living(store=store, limits=limits) as world:
        await world.absent_phone(BOB)
        phone = await world.phone(ALICE)
        answered: list[Alias | None] = []

        async def ask() -> None:
            answered.append(await phone.set_alias(BOB))

        with store.held("mailboxes"):
            world.nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            await world.set_device(phone, CAROL)
        await wait_all_tasks_blocked()
        assert answered == [CAROL]


@pytest.mark.parametrize("ask", ["alias", "tags", "deletion"])
async def test_a_displaced_visit_has_no_say(world: World, ask: str) -> None:
    """C11: whatever the old one still says is ignored, what it asks is refused."""
    phone = await world.phone(ALICE)
    earlier, name = phone.visit.visit_id, phone.registration_id
    await phone.connect()
    questions: dict[str, Callable[[], Any]] = {
        "alias": lambda: world.app.router.set_alias(name, BOB, earlier),
        "tags": lambda: world.app.router.set_tags(name, TagChange((NEWS,)), earlier),
        "deletion": lambda: world.app.registrar.delete(name, earlier),
    }
    with pytest.raises(VisitEnded):
        await questions[ask]()
    await world.told()
    registration = world.app.router.find(name)
    assert (registration.alias, registration.tags) == (ALICE, ())
    msg_id = await world.push(alias=ALICE)
    assert phone.handed == [msg_id]


async def test_a_visit_that_is_displaced_while_it_asks_has_no_say_either() -> None:
    """C11: it waited for another device to be brought to rest."""
    store = HeldStore()
    limits = Limits(alias_limit=1, alias_full=AliasFullPolicy.LONGEST_ABSENT)
    async with living(store=store, limits=limits) as world:
        await world.absent_phone(BOB)
        phone = await world.phone(ALICE)
        earlier, refused = phone.visit.visit_id, []

        async def ask() -> None:
            try:
                await world.app.router.set_alias(phone.registration_id, BOB, earlier)
            except VisitEnded:
                refused.append("alias")

        with store.held("mailboxes"):
            world.nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            await phone.connect()
        await wait_all_tasks_blocked()
        assert refused == ["alias"]
        assert logged_in(world, ALICE) == ids(phone)


# --- An alias that is full -------------------------------------------------------------------------------------------


async def test_an_alias_that_is_full_is_refused_and_nothing_changes() -> None:
    """C13"""
    async with living(limits=Limits(alias_limit=2)) as world:
        holders = [await world.absent_phone(ALICE) for _ in range(2)]
        phone = await world.phone(BOB)
        msg_id = await world.push(alias=BOB)
        commits = world.disk.last_commit
        with pytest.raises(AliasFull):
            await phone.set_alias(ALICE)
        with pytest.raises(AliasFull):
            await world.set_device(phone, ALICE, TagChange((NEWS,)))
        await world.told()
        assert world.disk.last_commit == commits
        assert (logged_in(world, ALICE), logged_in(world, BOB)) == (ids(*holders), ids(phone))
        assert world.app.router.find(phone.registration_id).tags == ()
        assert phone.acknowledge(msg_id)
        assert phone.visit.ending is None


async def test_whoever_has_an_alias_that_is_full_keeps_it() -> None:
    async with living(limits=Limits(alias_limit=1)) as world:
        phone = await world.phone(ALICE)
        assert await phone.set_alias(ALICE) == ALICE
        world.app.tenant.limits = Limits(alias_limit=0)
        assert await phone.set_alias(ALICE) == ALICE


async def test_the_device_longest_away_loses_an_alias_that_is_full_if_the_app_says_so() -> None:
    """C13, C14"""
    limits = Limits(alias_limit=3, alias_full=AliasFullPolicy.LONGEST_ABSENT)
    async with living(limits=limits) as world:
        present, earlier, later = [await world.phone(ALICE) for _ in range(3)]
        await trio.sleep(5)
        earlier.leave()
        await trio.sleep(5)
        later.leave()
        await world.told()
        msg_id = await world.push(alias=ALICE)
        phone = await world.phone(ALICE)
        assert logged_in(world, ALICE) == ids(present, later, phone)
        assert [await each.state(msg_id) for each in (present, earlier, later)] == ["sent", "fenced", "waiting"]
        assert (await earlier.connect()).alias is None
        assert earlier.handed == []


async def test_who_came_last_of_those_away_is_not_the_longest_away() -> None:
    """C13: the last visit counts, not the registration."""
    limits = Limits(alias_limit=2, alias_full=AliasFullPolicy.LONGEST_ABSENT)
    async with living(limits=limits) as world:
        first, second = await world.absent_phone(ALICE), await world.absent_phone(ALICE)
        await trio.sleep(5)
        await first.connect()
        first.leave()
        await world.told()
        phone = await world.phone(ALICE)
        assert logged_in(world, ALICE) == ids(first, phone)
        assert (await second.connect()).alias is None


async def test_who_is_present_is_not_away_and_keeps_an_alias_that_is_full() -> None:
    """C13"""
    limits = Limits(alias_limit=1, alias_full=AliasFullPolicy.LONGEST_ABSENT)
    async with living(limits=limits) as world:
        holder, phone = await world.phone(ALICE), await world.phone()
        with pytest.raises(AliasFull):
            await phone.set_alias(ALICE)
        holder.leave()
        assert await phone.set_alias(ALICE) is None
        assert logged_in(world, ALICE) == ids(phone)


async def test_losing_an_alias_and_getting_it_are_one_decision() -> None:
    """C13, C2"""
    store = HeldStore()
    limits = Limits(alias_limit=1, alias_full=AliasFullPolicy.LONGEST_ABSENT)
    async with living(store=store, limits=limits) as world:
        loser, phone = await world.absent_phone(ALICE), await world.phone()
        await phone.set_alias(ALICE)
        changes = [change for change in store.commits[-1][1] if isinstance(change, AliasChanged)]
        assert [(change.device_no, change.alias) for change in changes] == [
            (loser.device_no, None),
            (phone.device_no, ALICE),
        ]


# --- Tags ------------------------------------------------------------------------------------------------------------


async def test_tags_are_added_removed_and_replaced(world: World) -> None:
    phone = await world.phone()
    router = world.app.router
    assert await router.set_tags(phone.registration_id, TagChange((SPORT, NEWS))) == (NEWS, SPORT)
    assert await router.set_tags(phone.registration_id, TagChange(remove=(SPORT, Tag("unknown")))) == (NEWS,)
    assert await router.set_tags(phone.registration_id, TagChange((SPORT,), replace=True)) == (SPORT,)
    await world.told()
    assert world.disk.devices[phone.device_no].row.tags == (SPORT,)
    assert await router.set_tags(phone.registration_id, TagChange(replace=True)) == ()


async def test_tags_that_the_device_has_are_no_change() -> None:
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone(tags=(NEWS,))
        commits = len(store.commits)
        await world.app.router.set_tags(phone.registration_id, TagChange((NEWS,)))
        await world.told()
        assert len(store.commits) == commits


async def test_more_tags_than_a_device_may_have_are_refused_together_with_the_alias(world: World) -> None:
    """C24"""
    phone = await world.phone(ALICE, tags=(NEWS,))
    many = tuple(Tag(f"tag-{number}") for number in range(TAGS_MAX))
    with pytest.raises(Invalid) as refused:
        await world.set_device(phone, BOB, TagChange(many))
    assert refused.value.path == "tags"
    registration = world.app.router.find(phone.registration_id)
    assert (registration.alias, registration.tags) == (ALICE, (NEWS,))
    assert len(await world.app.router.set_tags(phone.registration_id, TagChange(many, remove=(NEWS,)))) == TAGS_MAX


async def test_an_alias_and_tags_are_changed_in_one_decision() -> None:
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone(ALICE)
        await world.set_device(phone, BOB, TagChange((NEWS,)))
        no = phone.device_no
        assert store.commits[-1][1] == (
            AliasChanged(no, BOB, world.app.router.find(phone.registration_id).binding),
            TagsChanged(no, (NEWS,)),
        )


async def test_a_change_of_tags_alone_needs_no_actor(world: World) -> None:
    phone = await world.absent_phone()
    await world.set_device(phone, None, TagChange((NEWS,)))
    assert len(world.devices) == 0
    assert (await phone.connect()).tags == (NEWS,)


# --- Taking an alias off everywhere ----------------------------------------------------------------------------------


async def test_an_alias_is_taken_off_every_device_at_once(world: World) -> None:
    """C14"""
    present, absent, other = await world.phone(ALICE), await world.absent_phone(ALICE), await world.phone(BOB)
    msg_id = await world.push(alias=ALICE)
    assert await world.delete_alias(ALICE) == ids(present, absent)
    assert logged_in(world, ALICE) == []
    assert present.visit.log == [Handed(msg_id, ALICE), Told(None)]
    assert other.visit.log == []
    present.leave()
    assert await world.report(msg_id) == (2, 0, 0, {"fenced": 2}, {})
    with pytest.raises(NoTarget):
        await world.push(alias=ALICE)


async def test_an_alias_that_nobody_has_is_taken_off_nobody(world: World) -> None:
    await world.phone(BOB)
    assert await world.delete_alias(ALICE) == []


# --- Looking ---------------------------------------------------------------------------------------------------------


async def test_a_mailbox_is_looked_into_wherever_it_is(world: World) -> None:
    phone = await world.absent_phone()
    msg_id = await world.push(phone)
    world.retire()
    assert [(each, is_sent) for each, is_sent, _ in await world.app.router.mailbox(phone.registration_id)] == [
        (msg_id, False)
    ]


async def test_the_directory_is_the_same_after_a_kill() -> None:
    """C2"""
    disk = MemoryDisk()

    def told(world: World) -> list[object]:
        return [
            (each.device_no, each.registration_id, each.alias, each.binding, each.tags, each.last_seen_at)
            for each in world.app.router.directory
        ]

    async with living(disk) as world:
        phone = await world.phone(ALICE, tags=(NEWS,))
        await phone.set_alias(BOB)
        await world.absent_phone(ALICE)
        gone = await world.phone(CAROL)
        await world.delete(gone)
        before = told(world)
    async with living(disk) as world:
        assert told(world) == before
        assert len(before) == 2


async def test_a_directory_of_many_is_loaded_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_module, "LOADED_AT_ONCE", 2)
    disk = MemoryDisk()
    async with living(disk) as world:
        phones = [await world.phone(ALICE) for _ in range(5)]
        await world.delete(phones.pop(2))
    store = HeldStore(disk)
    async with living(store=store) as world:
        assert logged_in(world, ALICE) == ids(*phones)
        assert store.asked["devices"] == 3


async def test_nobody_is_answered_before_the_directory_is_there() -> None:
    store = HeldStore()
    async with living(store=store) as world:
        await world.phone(ALICE)
        router = Router(
            world.app.tenant, store, world.devices, world.app.held, world.numbers.take, world.tally
        )
        found: list[int] = []

        async def ask() -> None:
            found.append(len(await router.targets(Audience(alias=(ALICE,)), frozenset())))

        world.nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        assert found == []
        await router.load()
        await wait_all_tasks_blocked()
        assert found == [1]


# --- Before or after -------------------------------------------------------------------------------------------------


async def test_a_push_is_wholly_before_or_wholly_after_an_alias_is_taken_off_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """C13: in every order in which they may meet."""
    monkeypatch.setattr(fanout_module, "SLICE", 2)
    met: set[str] = set()
    for seed in range(40):
        chance = random.Random(seed)
        with seeded_order(seed):
            async with living(store=HeldStore(chance=chance)) as world:
                phones = [await world.phone(ALICE) for _ in range(3)]
                phones += [await world.absent_phone(ALICE, is_retired=False) for _ in range(3)]
                if chance.random() < 0.5:
                    world.retire()
                story: list[str] = []

                async def pushing(world: World = world, story: list[str] = story) -> None:
                    try:
                        story.append(str((await world.accept(push(alias=ALICE))).targets))
                    except NoTarget:
                        story.append("none")

                async def deleting(world: World = world, story: list[str] = story) -> None:
                    story.append(f"lost by {len(await world.delete_alias(ALICE))}")

                async with trio.open_nursery() as nursery:
                    for work in (pushing, deleting):
                        for _ in range(chance.randrange(12)):
                            await trio.lowlevel.checkpoint()
                        nursery.start_soon(work)
                assert set(story) in ({"6", "lost by 6"}, {"none", "lost by 6"})
                met |= set(story)
                for phone in phones[:3]:
                    phone.leave()
                for msg_id in world.disk.pushes:
                    assert await world.report(msg_id) == (6, 0, 0, {"fenced": 6}, {})
    assert met == {"6", "none", "lost by 6"}


async def test_every_push_finds_the_directory_of_one_instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """C13, C14: pushes and changes interleaved at every checkpoint, in a seeded order."""
    monkeypatch.setattr(fanout_module, "SLICE", 1)
    for seed in range(30):
        with seeded_order(seed):
            await _interleave(random.Random(seed))


async def _interleave(chance: random.Random) -> None:
    aliases = (ALICE, BOB)
    async with living(store=HeldStore(chance=chance)) as world:
        phones = [await world.phone(chance.choice(aliases)) for _ in range(4)]
        for phone in chance.sample(phones, 2):
            phone.leave()
        world.retire()
        history = [{alias: frozenset(logged_in(world, alias)) for alias in aliases}]
        pushed: list[tuple[MsgId, Alias]] = []

        def note() -> None:
            history.append({alias: frozenset(logged_in(world, alias)) for alias in aliases})

        async def pause() -> None:
            for _ in range(chance.randrange(6)):
                await trio.lowlevel.checkpoint()

        async def push_some() -> None:
            for _ in range(6):
                await pause()
                alias = chance.choice(aliases)
                try:
                    accepted = await world.app.fanout.accept(push(alias=alias, ttl=chance.choice((0, 60))))
                except NoTarget:
                    continue
                pushed.append((accepted.msg_id, alias))

        async def change_some(phone: Phone) -> None:
            for _ in range(4):
                await pause()
                alias = chance.choice((*aliases, NOBODY))
                await world.app.router.change(phone.registration_id, alias, NO_TAG_CHANGE)
                note()

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(push_some)
            for phone in phones:
                nursery.start_soon(change_some, phone)
        await world.told()

        at = 0
        by_device = {phone.device_no: phone.registration_id for phone in phones}
        for msg_id, alias in sorted(pushed):
            meant = frozenset(by_device[device_no] for device_no in world.disk.pushes[msg_id].deliveries)
            # Pushes and changes have one order: this one was accepted at some instant not before the last one.
            instants = [instant for instant in range(at, len(history)) if history[instant][alias] == meant]
            assert instants, f"Push {msg_id} to {alias} met a directory that never was."
            at = instants[0]
            assert (await world.report(msg_id)).adds_up()
        for phone in phones:
            present = world.app.router.find(phone.registration_id)
            for entry in reversed(phone.visit.log):
                if isinstance(entry, Told):
                    assert phone.visit.ending is not None or entry.alias == present.alias
                    break


# --- A step that fails halfway ---------------------------------------------------------------------------------------


async def fail_halfway(world: World, phone: Phone) -> None:
    """A decision that logs Bob in on this phone, and raises over its tags."""
    with faulty(Directory, "set_tags"), pytest.raises(InternalError, match="no effect"):
        await world.app.router.change(phone.registration_id, BOB, TagChange((NEWS,)))


async def test_a_step_that_fails_halfway_has_not_happened(caplog: pytest.LogCaptureFixture) -> None:
    """Law 4: nothing of it is on disk, in the directory, or in a mailbox."""
    store = HeldStore()
    async with living(store=store, may_crash=True) as world:
        phone, other = await world.phone(ALICE), await world.phone(CAROL)
        phone.visit.room = 1
        sent, waiting = await world.push(alias=ALICE), await world.push(alias=ALICE)
        commits = len(store.commits)
        await fail_halfway(world, phone)
        await wait_all_tasks_blocked()
        since = [type(change) for _, changes in store.commits[commits:] for change in changes]
        assert set(since) <= {Sent, Left}  # its visit has ended, and nothing else has happened
        assert (logged_in(world, ALICE), logged_in(world, BOB)) == (ids(phone), [])
        assert [await phone.state(each) for each in (sent, waiting)] == ["waiting", "waiting"]
        assert phone.visit.ending is Ending.RESTARTED
        assert phone.visit.told == []
        assert other.visit.ending is None
        assert world.faults() == {"actor_crashes": 1, "router_crashes": 1}
        assert "directory is loaded again" in caplog.text
        await phone.connect()
        await wait_all_tasks_blocked()
        assert phone.visit.log == [Handed(sent, ALICE), Handed(waiting, ALICE)]


async def test_whoever_asks_while_the_directory_is_loaded_anew_waits() -> None:
    """Law 4"""
    store = HeldStore()
    async with living(store=store, may_crash=True) as world:
        phone, other = await world.phone(ALICE), await world.phone(CAROL)
        story: list[str] = []

        async def ask(name: str, work: Callable[[], Any]) -> None:
            await work()
            story.append(name)

        with store.held("devices"):
            await fail_halfway(world, phone)
            questions: dict[str, Callable[[], Any]] = {
                "push": lambda: world.push(alias=ALICE),
                "change": lambda: world.set_device(other, BOB),
                "connect": lambda: phone.connect(),
                "delete": lambda: world.delete_alias(CAROL),
                "count": lambda: world.app.fanout.count_targets(push()),
            }
            for name, work in questions.items():
                world.nursery.start_soon(ask, name, work)
            await wait_all_tasks_blocked()
            assert story == []
        await wait_all_tasks_blocked()
        assert sorted(story) == sorted(questions)


async def test_what_was_decided_before_the_failure_is_in_the_directory_that_is_loaded_anew() -> None:
    store = HeldStore()
    async with living(store=store, may_crash=True) as world:
        phone, other = await world.phone(ALICE), await world.phone(ALICE)
        with store.held("commit"):
            await world.app.router.change(other.registration_id, CAROL, NO_TAG_CHANGE)
            await fail_halfway(world, phone)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        await world.app.router.sound()
        assert logged_in(world, CAROL) == ids(other)
        assert logged_in(world, ALICE) == ids(phone)


async def test_a_refusal_in_the_middle_of_a_step_is_told_as_it_is() -> None:
    async with living(may_crash=True) as world:
        phone = await world.phone(ALICE)
        with pytest.raises(Invalid), world.app.router.step([world.app.router.find(phone.registration_id)]):
            raise Invalid("Too late to say so.", "alias")
        await wait_all_tasks_blocked()
        assert phone.visit.ending is Ending.RESTARTED


async def test_a_device_that_crashes_over_a_change_keeps_its_alias() -> None:
    """C13: the change has not happened."""
    async with living(may_crash=True) as world:
        phone, other = await world.phone(ALICE), await world.phone(ALICE)
        plant(other.actor, "rebind", is_late=True)
        with pytest.raises(InternalError):
            await world.delete_alias(ALICE)
        await wait_all_tasks_blocked()
        assert set(logged_in(world, ALICE)) == set(ids(phone, other))
        assert phone.visit.told == other.visit.told == []
        assert set(await world.delete_alias(ALICE)) == set(ids(phone, other))


async def test_a_decision_that_finds_a_device_not_at_rest_is_abandoned(world: World) -> None:
    phone = await world.absent_phone()
    with pytest.raises(InternalError):
        world.app.router.device(world.app.router.find(phone.registration_id))


async def test_more_failures_in_a_minute_than_may_be_are_the_servers() -> None:
    """Law 4: then the process falls."""

    async def run_until_it_falls() -> None:
        async with living(may_crash=True) as world:
            phone = await world.phone(ALICE)
            for _ in range(router_module.RELOADS + 1):
                assert await world.app.fanout.count_targets(push()) == 1
                await fail_halfway(world, phone)
                await trio.sleep(10)
            raise AssertionError("It should have fallen.")

    with pytest.raises(ExceptionGroup) as fallen:
        await run_until_it_falls()
    assert fallen.group_contains(InternalError, match="again and again")


async def test_as_many_failures_in_more_than_a_minute_are_got_over() -> None:
    async with living(may_crash=True) as world:
        phone = await world.phone(ALICE)
        for _ in range(3 * router_module.RELOADS):
            await fail_halfway(world, phone)
            await trio.sleep(router_module.RELOADS_WITHIN_S / router_module.RELOADS + 1)
        assert await world.app.fanout.count_targets(push()) == 1


async def test_a_device_that_crashes_again_and_again_does_not_fell_the_server() -> None:
    """C24: an actor ends alone. Its client comes back every few seconds, and must not end everybody's server."""
    async with living(may_crash=True) as world:
        phone, other = await world.phone(ALICE), await world.phone(ALICE)
        for _ in range(2 * router_module.RELOADS):
            plant(phone.actor, "arrive")
            with pytest.raises(InternalError):
                await phone.connect()
            await trio.sleep(1)
            await phone.connect()
        assert other.visit.ending is None
        msg_id = await world.push(alias=ALICE)
        assert other.handed == [msg_id]


async def test_a_second_failure_while_the_directory_is_loaded_anew_loses_no_change() -> None:
    """C13, law 4: after the first loading it is sound; what is decided then must survive the second."""
    store = HeldStore()
    async with living(store=store, may_crash=True) as world:
        phone, leaving, other = await world.phone(ALICE), await world.phone(), await world.phone(CAROL)
        with store.held("devices", answer=True):
            await fail_halfway(world, phone)
            await wait_all_tasks_blocked()
            plant(leaving.actor, "leave")
            leaving.leave()
            await wait_all_tasks_blocked()
        # The first loading is over, and the second one has begun.
        with store.held("devices", answer=True):
            await wait_all_tasks_blocked()
            world.nursery.start_soon(world.set_device, other, BOB)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        await world.app.router.sound()
        assert other.visit.told == [BOB]
        assert logged_in(world, BOB) == ids(other)
        msg_id = await world.push(alias=BOB)
        assert other.handed == [msg_id]


async def test_who_leaves_while_the_directory_is_loaded_anew_was_seen_then() -> None:
    """C2, C13: who has been away longest is judged by it."""
    store = HeldStore()
    async with living(store=store, may_crash=True) as world:
        phone, leaving = await world.phone(ALICE), await world.phone()
        await trio.sleep(5)
        with store.held("devices", answer=True):
            await fail_halfway(world, phone)
            await wait_all_tasks_blocked()
            leaving.leave()
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        await world.app.router.sound()
        await world.told()
        assert world.disagreements() == []


# --- Signed aliases --------------------------------------------------------------------------------------------------

SIGNED = Limits(needs_alias_tokens=True)


def permit(alias: Alias, phone: Phone | None = None) -> Callable[[], AliasPermit]:
    return lambda: AliasPermit(alias, None if phone is None else phone.registration_id)


def no_permit() -> AliasPermit:
    raise Unauthorized("There is no alias_token.", "alias_token")


@pytest.fixture
async def signed() -> AsyncIterator[tuple[World, Phone]]:
    """An app that demands permits, and a phone in it."""
    async with living(limits=SIGNED) as world:
        yield world, await world.phone()


async def test_an_alias_is_set_with_a_permit_for_it(signed: tuple[World, Phone]) -> None:
    """C17"""
    world, phone = signed
    visit_id = phone.visit.visit_id
    for alias, given in ((ALICE, permit(ALICE)), (BOB, permit(BOB, phone))):
        await world.app.router.set_alias(phone.registration_id, alias, visit_id, given)
        assert logged_in(world, alias) == ids(phone)


async def test_without_a_good_permit_nothing_changes(signed: tuple[World, Phone]) -> None:
    """C17: missing, for another alias, for another device. Nor is what waits for the alias touched (C25)."""
    world, phone = signed
    other = await world.phone()
    msg_id = await held(world, ALICE)
    for given in (no_permit, permit(BOB), permit(ALICE, other)):
        with pytest.raises(Unauthorized):
            await world.app.router.set_alias(phone.registration_id, ALICE, phone.visit.visit_id, given)
    await wait_all_tasks_blocked()
    assert logged_in(world, ALICE) == []
    assert phone.handed == []
    assert (await world.report(msg_id)).waiting == 1


async def test_clearing_and_keeping_an_alias_need_no_permit(signed: tuple[World, Phone]) -> None:
    """C17"""
    world, phone = signed
    await world.set_device(phone, ALICE)
    router, visit_id = world.app.router, phone.visit.visit_id
    assert await router.set_alias(phone.registration_id, ALICE, visit_id, no_permit) == ALICE
    assert await router.set_alias(phone.registration_id, NOBODY, visit_id, no_permit) == ALICE
    assert logged_in(world, ALICE) == []


async def test_where_none_is_demanded_no_permit_is_looked_at(world: World) -> None:
    """C17"""
    phone = await world.phone()
    await world.app.router.set_alias(phone.registration_id, ALICE, phone.visit.visit_id, no_permit)
    assert logged_in(world, ALICE) == ids(phone)


async def test_a_permit_that_is_demanded_from_now_on_is_demanded_at_once(world: World) -> None:
    """C17: limits change while the server runs."""
    phone = await world.phone()
    world.app.tenant.limits = SIGNED
    with pytest.raises(Unauthorized):
        await world.app.router.set_alias(phone.registration_id, ALICE, phone.visit.visit_id, no_permit)

"""The registrar of one app: devices register, come back, leave, and are deleted."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pushactors.actors.tenant import Limits
from pushactors.actors.visits import Ending
from pushactors.domain.aliases import AliasFullPolicy, Directory
from pushactors.domain.credentials import AliasPermit
from pushactors.domain.mailbox import Mailbox
from pushactors.errors import AliasFull, InternalError, NoSuchDevice, NoTarget, StoreBusy, Unauthorized
from pushactors.stores.contract import AliasChanged, Arrived, Left, PlatformChanged, Registered, TagsChanged
from pushactors.wire.ids import Platform, RegistrationId
from tests.actors.world import (
    ALICE,
    BOB,
    CAROL,
    DAY_S,
    NEWS,
    NOBODY,
    SPORT,
    Handed,
    HeldStore,
    MemoryDisk,
    Phone,
    World,
    faulty,
    living,
    plant,
    push,
    wall_clock,
)

KEY = "a key of the client's own"


# --- Registering, and coming back ------------------------------------------------------------------------------------


async def test_a_device_that_registers_is_told_who_it_is(world: World) -> None:
    phone = Phone(world)
    welcome = await phone.connect(alias=ALICE, tags=(NEWS, SPORT), platform=Platform.IOS)
    assert re.fullmatch("[a-z2-7]{26}", welcome.registration_id)
    assert welcome.device_secret is not None
    assert re.fullmatch("[A-Za-z0-9_-]{43}", welcome.device_secret)
    assert (welcome.alias, welcome.tags, welcome.platform, welcome.waiting) == (ALICE, (NEWS, SPORT), Platform.IOS, 0)


async def test_no_two_devices_are_the_same(world: World) -> None:
    phones = [await world.phone() for _ in range(20)]
    assert len({phone.registration_id for phone in phones}) == 20
    assert len({phone.secret for phone in phones}) == 20
    assert len({phone.device_no for phone in phones}) == 20


async def test_unless_said_a_device_is_of_no_known_platform(world: World) -> None:
    phone = await world.phone()
    assert phone.welcome.platform is Platform.OTHER
    assert (await phone.connect(platform=Platform.WEB)).platform is Platform.WEB
    assert (await phone.connect()).platform is Platform.WEB
    assert world.disk.devices[phone.device_no].row.platform is Platform.WEB


async def test_a_device_that_comes_back_is_recognised_and_not_told_its_secret_again(world: World) -> None:
    phone = await world.absent_phone(ALICE)
    first = phone.welcome
    again = await phone.connect()
    assert (again.registration_id, again.device_no, again.alias) == (first.registration_id, first.device_no, ALICE)
    assert again.device_secret is None
    assert len(world.app.router.directory) == 1


async def test_a_device_is_recognised_after_a_kill() -> None:
    """C2"""
    disk = MemoryDisk()
    async with living(disk) as world:
        phone = await world.phone(ALICE, tags=(NEWS,))
    async with living(disk) as world:
        phone.move(world)
        welcome = await phone.connect()
        assert (welcome.alias, welcome.tags) == (ALICE, (NEWS,))
        other = await world.phone()
        assert other.device_no > phone.device_no


@pytest.mark.parametrize("secret", [None, "", "wrong", "ü"])
async def test_a_device_with_another_secret_is_refused(world: World, secret: str | None) -> None:
    phone = await world.phone()
    visit, right = phone.visit, phone.secret
    phone.secret = secret
    with pytest.raises(Unauthorized):
        await phone.connect(alias=BOB)
    assert visit.ending is None
    phone.secret = right
    assert (await phone.connect()).alias is None


async def test_a_device_with_the_secret_of_another_is_refused(world: World) -> None:
    phone, other = await world.phone(), await world.phone()
    phone.secret = other.secret
    with pytest.raises(Unauthorized):
        await phone.connect()


async def test_a_device_that_is_unknown_is_refused(world: World) -> None:
    phone = await world.phone()
    await world.delete(phone)
    with pytest.raises(NoSuchDevice):
        await phone.connect()


async def test_what_a_connect_does_not_name_it_leaves_as_it_is(world: World) -> None:
    phone = await world.phone(ALICE, tags=(NEWS,))
    welcome = await phone.connect()
    assert (welcome.alias, welcome.tags) == (ALICE, (NEWS,))
    welcome = await phone.connect(alias=NOBODY, tags=())
    assert (welcome.alias, welcome.tags) == (None, ())
    welcome = await phone.connect(tags=(SPORT,))
    assert welcome.tags == (SPORT,)


async def test_a_connect_is_one_decision() -> None:
    """C11, C15"""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.phone(ALICE, tags=(NEWS,))
        kinds = [type(change) for change in store.commits[-1][1]]
        assert kinds == [Registered, AliasChanged, TagsChanged, Arrived]
        await phone.connect(alias=BOB, tags=(), platform=Platform.IOS)
        kinds = [type(change) for change in store.commits[-1][1]]
        assert kinds == [PlatformChanged, AliasChanged, TagsChanged, Left, Arrived]


async def test_a_registration_is_told_when_it_is_durable() -> None:
    """C2"""
    store = HeldStore()
    async with living(store=store) as world:
        phone = Phone(world)
        told: list[str] = []

        async def register() -> None:
            told.append((await phone.connect()).registration_id)

        with store.held("commit"):
            world.nursery.start_soon(register)
            await wait_all_tasks_blocked()
            assert told == []
        await wait_all_tasks_blocked()
        assert told == [row.row.registration_id for row in store._shared.devices.values()]


# --- Logging in with the connection ----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_retired", [False, True])
async def test_who_logs_in_on_anothers_device_never_sees_what_waited_there(world: World, is_retired: bool) -> None:
    """C15, C16"""
    phone = await world.absent_phone(ALICE)
    for_alice, for_anybody = await world.push(alias=ALICE), await world.push(phone)
    if is_retired:
        world.retire()
    welcome = await phone.connect(alias=BOB)
    await wait_all_tasks_blocked()
    assert (welcome.alias, welcome.waiting) == (BOB, 1)
    assert phone.visit.log == [Handed(for_anybody, None)]
    assert await phone.state(for_alice) == "fenced"


async def test_who_logs_in_anew_never_sees_what_was_on_the_wire_of_the_earlier_visit(world: World) -> None:
    """C15, C11"""
    phone = await world.phone(ALICE)
    for_alice = await world.push(alias=ALICE)
    await phone.connect(alias=BOB)
    assert phone.handed == []
    assert await phone.state(for_alice) == "fenced"


async def test_who_logs_in_with_the_alias_that_is_there_sees_what_waited_for_it(world: World) -> None:
    phone = await world.absent_phone(ALICE)
    for_alice = await world.push(alias=ALICE)
    await phone.connect(alias=ALICE)
    assert phone.visit.log == [Handed(for_alice, ALICE)]


# --- All or nothing --------------------------------------------------------------------------------------------------


async def test_a_refused_registration_leaves_nothing_behind() -> None:
    """C11"""
    async with living(limits=Limits(alias_limit=1)) as world:
        await world.phone(ALICE)
        commits, registered = world.disk.last_commit, len(world.app.router.directory)
        phone = Phone(world)
        with pytest.raises(AliasFull):
            await phone.connect(alias=ALICE, tags=(NEWS,), install_key=KEY)
        await world.told()
        assert (world.disk.last_commit, len(world.app.router.directory)) == (commits, registered)
        assert len(world.devices) == 1
        assert (await phone.connect(alias=BOB, install_key=KEY)).alias == BOB


async def test_a_refused_connect_binds_and_displaces_nothing() -> None:
    """C11"""
    async with living(limits=Limits(alias_limit=1)) as world:
        await world.phone(ALICE)
        phone = await world.phone(BOB, tags=(NEWS,))
        msg_id = await world.push(alias=BOB)
        visit, commits = phone.visit, world.disk.last_commit
        with pytest.raises(AliasFull):
            await phone.connect(alias=ALICE, tags=(), platform=Platform.IOS)
        await world.told()
        assert world.disk.last_commit == commits
        assert visit.ending is None
        registration = world.app.router.find(phone.registration_id)
        assert (registration.alias, registration.tags, registration.platform) == (BOB, (NEWS,), Platform.OTHER)
        assert phone.acknowledge(msg_id, visit)


async def test_a_connect_that_takes_an_alias_from_another_device_is_one_decision() -> None:
    """C13, C11"""
    limits = Limits(alias_limit=1, alias_full=AliasFullPolicy.LONGEST_ABSENT)
    async with living(limits=limits) as world:
        loser = await world.absent_phone(ALICE)
        msg_id = await world.push(alias=ALICE)
        world.retire()
        phone = await world.phone(ALICE)
        assert world.app.router.directory.holders(ALICE) == (world.app.router.find(phone.registration_id),)
        assert await loser.state(msg_id) == "fenced"
        assert (await loser.connect()).alias is None


async def test_a_connect_that_is_given_up_on_the_way_has_changed_nothing() -> None:
    """C11"""
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.absent_phone(ALICE)
        with store.held("mailboxes"), trio.move_on_after(1) as scope:
            await phone.connect(alias=BOB)
        assert scope.cancelled_caught
        await wait_all_tasks_blocked()
        assert world.app.router.find(phone.registration_id).alias == ALICE
        assert not world.devices.is_present(phone.device_no)


async def test_a_connect_that_fails_halfway_has_not_happened() -> None:
    """C11"""
    async with living(may_crash=True) as world:
        phone, other = await world.absent_phone(ALICE), await world.phone()
        waiting = await world.push(alias=ALICE)
        with faulty(Directory, "set_tags"), pytest.raises(InternalError):
            await phone.connect(alias=BOB, tags=(NEWS,))
        await world.app.router.sound()
        assert other.visit.ending is None
        welcome = await phone.connect()
        await wait_all_tasks_blocked()
        assert (welcome.alias, welcome.tags, phone.handed) == (ALICE, (), [waiting])


async def test_a_connect_that_fails_over_its_device_displaces_nobody() -> None:
    """C11: the visit before is told to come back, as everybody is whose actor has crashed, and not to stay away."""
    async with living(may_crash=True) as world:
        phone = await world.phone()
        visit = phone.visit
        plant(phone.actor, "arrive")
        with pytest.raises(InternalError):
            await phone.connect()
        await wait_all_tasks_blocked()
        assert visit.ending is Ending.RESTARTED


async def test_a_connect_that_fails_over_its_device_changes_nothing() -> None:
    """C11, C2: neither in the directory nor on the disk, whatever it named."""
    async with living(may_crash=True) as world:
        phone = await world.phone(ALICE, tags=(NEWS,))
        phone.leave()
        await world.told()
        await trio.sleep(5)
        before = world.disk.devices[phone.device_no].row
        plant(phone.actor, "arrive")
        with pytest.raises(InternalError):
            await phone.connect(alias=BOB, tags=(SPORT,), platform=Platform.IOS)
        await world.app.router.sound()
        await world.told()
        assert world.disk.devices[phone.device_no].row == before
        assert world.disagreements() == []
        assert (await phone.connect(platform=Platform.IOS)).platform is Platform.IOS
        assert world.disk.devices[phone.device_no].row.platform is Platform.IOS


async def test_a_registration_that_fails_over_its_device_leaves_nothing_behind() -> None:
    """C11"""
    async with living(may_crash=True) as world:
        phone = Phone(world)
        with faulty(Mailbox, "arrive"), pytest.raises(InternalError):
            await phone.connect(alias=ALICE, tags=(NEWS,), install_key=KEY)
        await world.app.router.sound()
        await world.told()
        await wait_all_tasks_blocked()
        assert (len(world.app.router.directory), len(world.disk.devices)) == (0, 0)
        await phone.connect(alias=ALICE, install_key=KEY)
        assert len(world.app.router.directory) == 1


async def test_a_registration_that_fails_halfway_has_not_happened() -> None:
    async with living(may_crash=True) as world:
        phone = Phone(world)
        with faulty(Directory, "set_tags"), pytest.raises(InternalError):
            await phone.connect(alias=ALICE, tags=(NEWS,))
        await world.app.router.sound()
        await wait_all_tasks_blocked()
        assert len(world.app.router.directory) == 0
        assert not world.disk.devices
        with pytest.raises(NoTarget):
            await world.push(alias=ALICE)
        assert (await phone.connect(alias=ALICE)).alias == ALICE


async def test_a_registration_that_failed_halfway_can_be_asked_for_again_with_its_install_key() -> None:
    """Law 2: the client does what it was told, and tries again."""
    async with living(may_crash=True) as world:
        phone = Phone(world)
        with faulty(Directory, "set_tags"), pytest.raises(InternalError):
            await phone.connect(alias=ALICE, tags=(NEWS,), install_key=KEY)
        await world.app.router.sound()
        await wait_all_tasks_blocked()
        welcome = await phone.connect(alias=ALICE, install_key=KEY)
        assert welcome.alias == ALICE
        assert len(world.app.router.directory) == 1


@pytest.mark.parametrize("key", [None, KEY])
async def test_a_connect_that_meets_a_directory_that_is_loaded_anew_is_granted(key: str | None) -> None:
    """C11, router law 4: who asks meanwhile waits. To be told to register anew would cost the device its mailbox."""
    store = HeldStore()
    async with living(store=store, may_crash=True) as world:
        phone, other = Phone(world), await world.phone()
        await phone.connect(install_key=KEY)
        phone.leave()
        waiting = await world.push(phone)
        world.retire()
        if key is not None:
            phone._registration_id = phone.secret = None
        refused: list[Exception] = []

        async def connect() -> None:
            try:
                await phone.connect(install_key=key)
            except NoSuchDevice as error:
                refused.append(error)

        with store.held("mailboxes"):
            world.nursery.start_soon(connect)
            await wait_all_tasks_blocked()
            with faulty(Directory, "set_alias"), pytest.raises(InternalError):
                await world.app.router.set_alias(other.registration_id, BOB, other.visit.visit_id)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert refused == []
        assert phone.handed == [waiting]


# --- Install keys ----------------------------------------------------------------------------------------------------


async def test_the_same_install_key_gets_the_same_registration_and_the_same_secret_again(world: World) -> None:
    """Law 2: a lost answer leaves no ghost."""
    first, again = Phone(world), Phone(world)
    await first.connect(install_key=KEY, alias=ALICE)
    await again.connect(install_key=KEY)
    assert (again.registration_id, again.secret) == (first.registration_id, first.secret)
    assert again.welcome.alias == ALICE
    assert len(world.app.router.directory) == 1
    assert first.visit.ending is Ending.DISPLACED


async def test_another_install_key_gets_another_registration(world: World) -> None:
    first, other = Phone(world), Phone(world)
    await first.connect(install_key=KEY)
    await other.connect(install_key=KEY + "!")
    assert first.registration_id != other.registration_id


@pytest.mark.parametrize("held", ["installed", "commit"])
async def test_the_same_install_key_twice_at_the_same_time_gets_one_registration(held: str) -> None:
    """Law 2"""
    store = HeldStore()
    async with living(store=store) as world:
        phones = [Phone(world) for _ in range(3)]
        with store.held(held):
            for phone in phones:
                world.nursery.start_soon(lambda phone=phone: phone.arrive(install_key=KEY))  # type: ignore[misc]
                await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert len({phone.registration_id for phone in phones}) == 1
        assert len({phone.secret for phone in phones}) == 1
        assert len(world.app.router.directory) == 1
        assert [phone.visit.ending for phone in phones] == [Ending.DISPLACED, Ending.DISPLACED, None]


async def test_an_install_key_is_known_after_a_kill() -> None:
    """C2"""
    disk = MemoryDisk()
    first = None
    for _ in range(2):
        async with living(disk) as world:
            phone = Phone(world)
            await phone.connect(install_key=KEY)
            first = first or phone
            assert (phone.registration_id, phone.secret) == (first.registration_id, first.secret)


async def test_an_install_key_whose_registration_was_not_on_disk_is_free_after_a_kill() -> None:
    disk = MemoryDisk()
    store = HeldStore(disk)
    async with living(store=store) as world:
        phone = Phone(world)
        with store.held("commit"):
            world.nursery.start_soon(lambda: phone.connect(install_key=KEY))
            await wait_all_tasks_blocked()
            await world.kill()
    async with living(disk) as world:
        phone = Phone(world)
        await phone.connect(install_key=KEY)
        assert len(world.app.router.directory) == 1


async def test_an_install_key_is_free_when_its_device_is_deleted(world: World) -> None:
    phone, again = Phone(world), Phone(world)
    await phone.connect(install_key=KEY)
    await world.delete(phone)
    await again.connect(install_key=KEY)
    assert again.registration_id != phone.registration_id


async def test_an_install_key_is_free_as_soon_as_the_deletion_of_its_device_is_decided() -> None:
    store = HeldStore()
    async with living(store=store) as world:
        phone, again = Phone(world), Phone(world)
        await phone.connect(install_key=KEY)
        with store.held("commit"):
            await world.app.registrar.delete(phone.registration_id)
            world.nursery.start_soon(lambda: again.connect(install_key=KEY))
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert again.registration_id != phone.registration_id
        last = Phone(world)
        await last.connect(install_key=KEY)
        assert last.registration_id == again.registration_id


async def test_a_device_that_is_deleted_before_its_registration_is_durable_frees_its_install_key() -> None:
    """Law 2: the client registers, and is not told to register."""
    store = HeldStore()
    async with living(store=store) as world:
        phone, again = Phone(world), Phone(world)
        with store.held("commit"):
            world.nursery.start_soon(lambda: phone.arrive(install_key=KEY))
            await wait_all_tasks_blocked()
            await world.app.registrar.delete(phone.registration_id)
            world.nursery.start_soon(lambda: again.connect(install_key=KEY))
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert again.registration_id != phone.registration_id


async def test_an_install_key_is_no_key_to_another_alias_than_it_says(world: World) -> None:
    """C15: a registration that is found again is logged in like any other connect."""
    first, again = Phone(world), Phone(world)
    await first.connect(install_key=KEY, alias=ALICE)
    msg_id = await world.push(alias=ALICE)
    await again.connect(install_key=KEY, alias=BOB)
    assert again.handed == []
    assert await again.state(msg_id) == "fenced"


async def test_a_store_that_does_not_answer_about_an_install_key_is_asked_again() -> None:
    store = HeldStore()
    async with living(store=store) as world:
        store.trouble("installed", StoreBusy("one"), answer=True)
        assert (await Phone(world).connect(install_key=KEY)).device_secret is not None


# --- Going -----------------------------------------------------------------------------------------------------------


async def test_when_a_device_was_last_seen_is_known(world: World) -> None:
    phone = await world.phone()
    registration = world.app.router.find(phone.registration_id)
    assert registration.last_seen_at == wall_clock()
    await trio.sleep(5)
    phone.leave()
    await world.told()
    assert registration.last_seen_at == wall_clock() == world.disk.devices[phone.device_no].row.last_seen_at


async def test_the_farewell_of_a_displaced_visit_comes_too_late(world: World) -> None:
    """C11"""
    phone = await world.phone()
    earlier = phone.visit
    await trio.sleep(5)
    await phone.connect()
    commits = world.disk.last_commit
    await trio.sleep(5)
    phone.leave(earlier)
    await world.told()
    assert world.devices.is_present(phone.device_no)
    assert world.disk.last_commit == commits


async def test_a_farewell_is_taken_once(world: World) -> None:
    phone = await world.phone()
    phone.leave()
    await world.told()
    commits = world.disk.last_commit
    phone.leave()
    await world.told()
    assert world.disk.last_commit == commits


async def test_the_farewell_of_a_device_that_is_gone_comes_too_late(world: World) -> None:
    phone = await world.phone()
    await world.delete(phone)
    phone.leave()
    assert phone.visit.ending is Ending.REMOVED


async def test_the_farewell_of_a_device_whose_actor_has_gone_comes_too_late() -> None:
    async with living(may_crash=True) as world:
        phone = await world.phone()
        world.devices.rebuild(phone.device_no, "a fault")
        await wait_all_tasks_blocked()
        phone.leave()
        await phone.connect()
        assert phone.visit.ending is None


async def test_a_device_that_crashes_over_a_farewell_troubles_nobody() -> None:
    async with living(may_crash=True) as world:
        phone = await world.phone()
        msg_id = await world.push(phone)
        plant(phone.actor, "leave")
        phone.leave()
        await wait_all_tasks_blocked()
        await phone.connect()
        await wait_all_tasks_blocked()
        assert phone.handed == [msg_id]


# --- Deletion --------------------------------------------------------------------------------------------------------


async def test_a_deleted_device_is_nobodys_target_and_cannot_come_back(world: World) -> None:
    """C24"""
    phone, other = await world.phone(ALICE, tags=(NEWS,)), await world.phone(ALICE)
    msg_id = await world.push(alias=ALICE)
    await world.delete(phone)
    assert phone.visit.ending is Ending.REMOVED
    assert await phone.state(msg_id) == "missed"
    assert (await world.accept(push(alias=ALICE))).targets == 1
    with pytest.raises(NoTarget):
        await world.push(tag=NEWS)
    with pytest.raises(NoSuchDevice):
        await phone.connect()
    with pytest.raises(NoSuchDevice):
        await world.delete(phone)
    assert other.visit.ending is None


async def test_a_deletion_is_told_when_it_is_durable_and_survives_a_kill() -> None:
    """C2"""
    disk = MemoryDisk()
    store = HeldStore(disk)
    async with living(store=store) as world:
        phone = await world.absent_phone(ALICE)
        msg_id = await world.push(alias=ALICE)
        world.retire()
        await world.delete(phone)
    async with living(disk) as world:
        phone.move(world)
        with pytest.raises(NoSuchDevice):
            await phone.connect()
        assert await phone.state(msg_id) == "missed"


async def test_a_connect_that_waits_while_its_device_is_deleted_is_refused() -> None:
    store = HeldStore()
    async with living(store=store) as world:
        phone = await world.absent_phone()
        refused: list[str] = []

        async def connect() -> None:
            try:
                await phone.connect()
            except NoSuchDevice:
                refused.append("connect")

        with store.held("mailboxes"):
            world.nursery.start_soon(world.delete, phone)
            await wait_all_tasks_blocked()
            world.nursery.start_soon(connect)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        # Whoever came first: the device is gone, and no visit of it goes on.
        assert len(world.app.router.directory) == 0
        assert refused == ["connect"] or phone.visit.ending is Ending.REMOVED


async def test_a_deletion_that_fails_halfway_has_not_happened() -> None:
    """Router law 4; its visit is told to come back, and does not hang on to nobody."""
    async with living(may_crash=True) as world:
        phone = await world.phone(ALICE)
        msg_id = await world.push(alias=ALICE)
        with faulty(Directory, "remove"), pytest.raises(InternalError):
            await world.delete(phone)
        await world.app.router.sound()
        await wait_all_tasks_blocked()
        assert await world.report(msg_id) == (1, 1, 0, {}, {})
        assert phone.visit.ending is Ending.RESTARTED
        await phone.connect()
        await wait_all_tasks_blocked()
        assert phone.visit.log == [Handed(msg_id, ALICE)]


# --- Devices that nobody has seen for long ---------------------------------------------------------------------------


async def test_a_device_that_was_not_seen_for_long_is_deleted() -> None:
    """C24"""
    async with living(limits=Limits(device_expiry_days=2)) as world:
        gone, returned = await world.absent_phone(ALICE), await world.absent_phone(ALICE)
        await world.pass_time(DAY_S)
        await returned.connect()
        returned.leave()
        await world.pass_time(DAY_S)
        assert await world.app.registrar.delete_unseen(100) == 0
        await world.pass_time(1)
        assert await world.app.registrar.delete_unseen(100) == 1
        await world.told()
        with pytest.raises(NoSuchDevice):
            await gone.connect()
        await returned.connect()


async def test_a_device_that_is_present_is_being_seen() -> None:
    """C24"""
    async with living(limits=Limits(device_expiry_days=2)) as world:
        phone = await world.phone()
        await world.pass_time(10 * DAY_S)
        assert await world.app.registrar.delete_unseen(100) == 0
        assert phone.visit.ending is None


async def test_a_device_that_was_present_when_the_server_was_killed_has_just_been_seen() -> None:
    """C24: seen is what a present device is all the time, not when it came."""
    disk = MemoryDisk()
    limits = Limits(device_expiry_days=2)
    async with living(disk, limits=limits, with_upkeep=True) as world:
        phone = await world.phone(ALICE)
        for _ in range(10):
            await world.pass_time(DAY_S)
        msg_id = await world.push(alias=ALICE)
    async with living(disk, limits=limits, with_upkeep=True) as world:
        phone.move(world)
        await trio.sleep(5)
        await phone.connect()
        await wait_all_tasks_blocked()
        assert phone.visit.log == [Handed(msg_id, ALICE)]


async def test_devices_are_looked_at_in_turn_and_round_again() -> None:
    """Law 3, in small steps."""
    async with living(limits=Limits(device_expiry_days=1)) as world:
        for _ in range(7):
            await world.absent_phone()
        await world.pass_time(2 * DAY_S)
        assert [await world.app.registrar.delete_unseen(3) for _ in range(4)] == [3, 3, 1, 0]
        phone = await world.absent_phone()
        await world.pass_time(2 * DAY_S)
        assert sum([await world.app.registrar.delete_unseen(3) for _ in range(2)]) == 1
        with pytest.raises(NoSuchDevice):
            await phone.connect()


async def test_a_device_that_comes_back_while_it_is_about_to_be_deleted_is_not() -> None:
    """C24: it is present, so it is being seen."""
    store = HeldStore()
    async with living(store=store, limits=Limits(device_expiry_days=1)) as world:
        phones = [await world.absent_phone() for _ in range(2)]
        await world.pass_time(2 * DAY_S)
        told: list[int] = []

        async def delete_unseen() -> None:
            told.append(await world.app.registrar.delete_unseen(100))

        with store.held("mailboxes"):
            world.nursery.start_soon(delete_unseen)
            await wait_all_tasks_blocked()
            for phone in phones:
                world.nursery.start_soon(connect_if_it_may, phone)
                await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert told == [2 - len(world.app.router.directory)]
        # Whoever was deleted before it came was refused; whoever was granted a visit keeps it.
        assert {phone.visit.ending for phone in phones if phone.visit.is_answered} <= {None}


async def connect_if_it_may(phone: Phone) -> None:
    phone.visit = phone.world.new_visit()
    with suppress(NoSuchDevice):
        await phone.connect()


async def test_who_takes_the_alias_of_a_device_that_expires_meanwhile_gets_it() -> None:
    store = HeldStore()
    limits = Limits(alias_limit=1, alias_full=AliasFullPolicy.LONGEST_ABSENT, device_expiry_days=1)
    async with living(store=store, limits=limits) as world:
        await world.absent_phone(CAROL)
        phone = await world.phone()
        await world.pass_time(2 * DAY_S)
        with store.held("mailboxes"):
            world.nursery.start_soon(phone.set_alias, CAROL)
            await wait_all_tasks_blocked()
            world.nursery.start_soon(world.app.registrar.delete_unseen, 100)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert world.app.router.find(phone.registration_id).alias == CAROL
        assert len(world.app.router.directory) == 1


# --- Signed aliases --------------------------------------------------------------------------------------------------


def _no_permit() -> AliasPermit:
    raise Unauthorized("There is no alias_token.", "alias_token")


@pytest.mark.parametrize("is_registering", [False, True])
async def test_a_connect_that_names_an_alias_without_a_good_permit_is_refused_whole(is_registering: bool) -> None:
    """C17, C11: it registers, binds and displaces nothing."""
    async with living(limits=Limits(needs_alias_tokens=True)) as world:
        phone = Phone(world) if is_registering else await world.phone()
        known = len(world.app.router.directory)
        for permit in (_no_permit, lambda: AliasPermit(BOB, None), lambda: AliasPermit(ALICE, RegistrationId("x"))):
            with pytest.raises(Unauthorized):
                await phone.arrive(alias=ALICE, permit=permit, tags=("x",))
        assert len(world.app.router.directory) == known
        if not is_registering:
            assert phone.visit.ending is None
            assert world.app.router.find(phone.registration_id).tags == ()
        await phone.connect(alias=ALICE, permit=lambda: AliasPermit(ALICE, None))
        assert phone.welcome.alias == ALICE
        # Keeping it needs none, and clearing it.
        await phone.connect(alias=ALICE, permit=_no_permit)
        await phone.connect(alias=NOBODY, permit=_no_permit)
        assert phone.welcome.alias is None

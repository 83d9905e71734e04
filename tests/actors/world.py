"""A small world for the tests of actors: the rooms of the node without its streets, over a store in memory.

1. It is put together as `node.py` does it. What outlives a kill is the `MemoryDisk`, and nothing else.
2. The wall clock is Trio's mock clock in milliseconds behind `BEGINNING`: whatever moves one moves both.
3. A `Phone` does what the edge does for a device: it tells when it may be told, and then resumes.
4. What a visit sees against the contract is remembered as a complaint, because what it raised would end an actor only.
5. A test that waits for what does not come fails, after `PATIENCE_S` of mock time; `pass_time` does not count.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, NamedTuple, TypeVar

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pushactors.actors.device import DeviceActor
from pushactors.actors.fanout import Acceptance, Fanout, Push
from pushactors.actors.held import AliasMailboxes
from pushactors.actors.ledger import Ledger
from pushactors.actors.numbers import Numbers
from pushactors.actors.recall import Recalls
from pushactors.actors.receipts import Receipts
from pushactors.actors.registrar import Hello, Registrar, Welcome
from pushactors.actors.router import NO_TAG_CHANGE, Router, TagChange
from pushactors.actors.supervisor import Supervisor
from pushactors.actors.tally import Tally
from pushactors.actors.tenant import Limits, Tenant
from pushactors.actors.upkeep import Served, Upkeep
from pushactors.actors.visits import Ending
from pushactors.actors.wire_count import WireCount
from pushactors.domain.audience import Audience
from pushactors.domain.mailbox import Mailbox
from pushactors.domain.message import Mark, Message
from pushactors.stores.contract import (
    NO_LIMITS,
    AppAdded,
    Change,
    CidRow,
    DeviceRow,
    DueRow,
    MailboxRow,
    ReceiptPage,
    ReceiptRow,
    ReportRow,
    Settled,
    StatusRow,
)
from pushactors.stores.memory import MemoryDisk, MemoryStore
from pushactors.wire.ids import (
    Alias,
    AppKey,
    AppNo,
    Binding,
    Cid,
    Cursor,
    DeviceNo,
    Millis,
    MsgId,
    Platform,
    RegistrationId,
    Tag,
    VisitId,
    VisitNo,
)

__all__ = ["MemoryDisk", "wait_all_tasks_blocked"]

T = TypeVar("T")

BEGINNING = 1_800_000_000_000
PATIENCE_S = 600.0
DAY_S = 86_400
DAY_MS = DAY_S * 1000
OF_NO_APP = AppNo(0)
APP = AppKey("app")
ALICE, BOB, CAROL = Alias("alice"), Alias("bob"), Alias("carol")
NEWS, SPORT = Tag("news"), Tag("sport")
NOBODY = Alias("")


def wall_clock() -> Millis:
    return Millis(BEGINNING + round(trio.current_time() * 1000))


@contextmanager
def seeded_order(seed: int) -> Iterator[None]:
    """The order in which Trio runs what could run now comes from a seed. Two private names, in this place only."""
    run = trio._core._run
    was_allowed, state = run._ALLOW_DETERMINISTIC_SCHEDULING, run._r.getstate()
    run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    run._r.seed(seed)
    try:
        yield
    finally:
        run._ALLOW_DETERMINISTIC_SCHEDULING = was_allowed  # type: ignore[misc]
        run._r.setstate(state)


# --- The store -----------------------------------------------------------------------------------------------------


class HeldStore(MemoryStore):
    """A memory store whose operations a test may hold up, make fail, and count.

    With `chance` every operation takes a few turns before it acts, and a few before it answers.
    """

    def __init__(self, disk: MemoryDisk | None = None, chance: random.Random | None = None) -> None:
        super().__init__(disk)
        self.asked: Counter[str] = Counter()
        self.commits: list[tuple[int, Sequence[Change]]] = []
        """As they were asked for, whether or not they were answered."""
        self._chance = chance
        self._held: dict[tuple[str, bool], trio.Event] = {}
        self._troubles: dict[tuple[str, bool], deque[Exception]] = {}

    @contextmanager
    def held(self, operation: str, *, answer: bool = False) -> Iterator[None]:
        """Nobody gets through to this operation inside; with `answer` it acts, and only its answer is held up."""
        opened = self._held[operation, answer] = trio.Event()
        try:
            yield
        finally:
            del self._held[operation, answer]
            opened.set()

    def trouble(self, operation: str, *errors: Exception, answer: bool = False) -> None:
        """The next calls raise these: before they act, or with `answer` instead of answering."""
        self._troubles.setdefault((operation, answer), deque()).extend(errors)

    async def _through(self, operation: str, act: Callable[[], Awaitable[T]]) -> T:
        self.asked[operation] += 1
        await self._door(operation, False)
        done = await act()
        await self._door(operation, True)
        return done

    async def _door(self, operation: str, answer: bool) -> None:
        if self._chance is not None:
            for _ in range(self._chance.randrange(3)):
                await trio.lowlevel.checkpoint()
        if (operation, answer) in self._held:
            await self._held[operation, answer].wait()
        if troubles := self._troubles.get((operation, answer)):
            raise troubles.popleft()

    async def commit(self, number: int, changes: Sequence[Change]) -> int:
        self.commits.append((number, tuple(changes)))
        return await self._through("commit", partial(super().commit, number, changes))

    async def devices(self, app_no: AppNo, after: DeviceNo, limit: int) -> Sequence[DeviceRow]:
        return await self._through("devices", partial(super().devices, app_no, after, limit))

    async def mailboxes(self, device_nos: Sequence[DeviceNo]) -> Mapping[DeviceNo, MailboxRow]:
        return await self._through("mailboxes", partial(super().mailboxes, device_nos))

    async def bodies(self, msg_ids: Sequence[MsgId]) -> Mapping[MsgId, bytes]:
        return await self._through("bodies", partial(super().bodies, msg_ids))

    async def due(self, after: tuple[Millis, DeviceNo], until: Millis, limit: int) -> Sequence[DueRow]:
        return await self._through("due", partial(super().due, after, until, limit))

    async def installed(self, app_no: AppNo, install: bytes) -> RegistrationId | None:
        return await self._through("installed", partial(super().installed, app_no, install))

    async def cids(self, app_no: AppNo, cids: Sequence[Cid], since: Millis) -> Mapping[Cid, CidRow]:
        return await self._through("cids", partial(super().cids, app_no, cids, since))

    async def reports(self, app_no: AppNo, msg_ids: Sequence[MsgId]) -> Mapping[MsgId, ReportRow]:
        return await self._through("reports", partial(super().reports, app_no, msg_ids))

    async def statuses(
        self, app_no: AppNo, msg_id: MsgId, registration_ids: Sequence[RegistrationId]
    ) -> Mapping[RegistrationId, StatusRow | None] | None:
        return await self._through("statuses", partial(super().statuses, app_no, msg_id, registration_ids))

    async def alias_mailboxes(self, app_no: AppNo, after: DeviceNo, limit: int) -> Sequence[DeviceRow]:
        return await self._through("alias_mailboxes", partial(super().alias_mailboxes, app_no, after, limit))

    async def had(self, device_no: DeviceNo, msg_ids: Sequence[MsgId]) -> Sequence[MsgId]:
        return await self._through("had", partial(super().had, device_no, msg_ids))

    async def receipts(self, app_no: AppNo, after: Cursor, limit: int) -> ReceiptPage:
        return await self._through("receipts", partial(super().receipts, app_no, after, limit))

    async def sweep(self, now: Millis, limit: int, receipts_kept: Mapping[AppNo, int] = NO_LIMITS) -> int:
        return await self._through("sweep", partial(super().sweep, now, limit, receipts_kept))


# --- Visits --------------------------------------------------------------------------------------------------------


class Handed(NamedTuple):
    msg_id: MsgId
    alias: Alias | None


class Told(NamedTuple):
    """The note that the app server has changed the alias."""

    alias: Alias | None


class RecordingVisit:
    """A visit that remembers what it was handed and told, in order, and why it was ended."""

    def __init__(self, visit_id: VisitId, disk: MemoryDisk, complaints: list[str]) -> None:
        self._visit_id = visit_id
        self._disk = disk
        self._complaints = complaints
        self.log: list[Handed | Told] = []
        self.messages: list[Message] = []
        self.recalls: list[MsgId] = []
        self.ending: Ending | None = None
        self.is_answered = False
        self.room: int | None = None
        """How many more messages its buffer takes; None: any number."""
        self.binding_of: Callable[[Message], tuple[Binding | None, Binding]] | None = None
        """The binding that a message was addressed under, as the disk has it, and the present one."""
        self.place_of: Callable[[Message], int] | None = None
        """Where a message stands in its mailbox, as the disk has it."""
        self._last_place = 0

    @property
    def visit_id(self) -> VisitId:
        return self._visit_id

    @property
    def handed(self) -> list[MsgId]:
        return [entry.msg_id for entry in self.log if isinstance(entry, Handed)]

    @property
    def told(self) -> list[Alias | None]:
        return [entry.alias for entry in self.log if isinstance(entry, Told)]

    def is_taking(self) -> bool:
        return self.ending is None and self.room != 0

    def hand(self, message: Message, alias: Alias | None) -> None:
        if self.ending is not None:
            self._complain(message, "was handed to a visit that had been ended")
        if not self.is_answered:
            self._complain(message, "was handed to a device that waited for an answer (C14, C15)")
        if self.room == 0:
            self._complain(message, "was handed to a visit whose buffer was full (C12)")
        if message.msg_id not in self._disk.pushes and message.expires_at is not None:
            self._complain(message, "was handed to a visit before it was on disk (C2)")
        if self.binding_of is not None:
            addressed, present = self.binding_of(message)
            if addressed is not None and addressed != present:
                self._complain(message, f"was handed under binding {addressed}, the present one is {present} (C14)")
        place = message.msg_id if self.place_of is None else self.place_of(message)
        if self._last_place >= place:
            self._complain(message, f"was handed to a visit behind {self.handed[-1]} (C9)")
        self._last_place = place
        if self.room is not None:
            self.room -= 1
        self.log.append(Handed(message.msg_id, alias))
        self.messages.append(message)

    def tell_alias(self, alias: Alias | None) -> None:
        self.log.append(Told(alias))

    def tell_recall(self, msg_id: MsgId) -> None:
        self.recalls.append(msg_id)

    def end(self, why: Ending) -> None:
        if self.ending is None:
            self.ending = why

    def _complain(self, message: Message, what: str) -> None:
        self._complaints.append(f"Message {message.msg_id} {what}.")


# --- The rooms -----------------------------------------------------------------------------------------------------


class Rooms(NamedTuple):
    """Those of one app."""

    tenant: Tenant
    router: Router
    registrar: Registrar
    fanout: Fanout
    held: AliasMailboxes
    recalls: Recalls
    receipts: Receipts


class Report(NamedTuple):
    """What an app server is told of a push: the verdicts by their words, those that occurred."""

    targets: int
    waiting: int
    sent: int
    verdicts: dict[str, int]
    marks: dict[str, int]

    def adds_up(self) -> bool:
        parts = [self.waiting, self.sent, *self.verdicts.values()]
        return min(parts) >= 0 and self.targets == sum(parts)


class World:
    """One run of the server over a disk. `run` opens the rooms, `kill` is `kill -9`."""

    def __init__(
        self,
        store: MemoryStore,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        app_keys: Sequence[AppKey] = (APP,),
        *,
        with_upkeep: bool = False,
        seed: int = 0,
    ) -> None:
        self.store = store
        self.disk: MemoryDisk = store._shared
        self.tally = Tally()
        self.wire = WireCount()
        self.devices = Supervisor(store, self.wire, wall_clock, self.tally)
        self.upkeep = Upkeep(store, self.devices, self._tenants, wall_clock, self.tally)
        self.apps: dict[AppKey, Rooms] = {}
        self.complaints: list[str] = []
        self.visit_type: Callable[[VisitId, MemoryDisk, list[str]], RecordingVisit] = RecordingVisit
        self.ledger: Ledger
        self.numbers: Numbers
        self.nursery: trio.Nursery
        self._limits = limits
        self._app_keys = app_keys
        self._with_upkeep = with_upkeep
        self._randomness = random.Random(f"{seed} {self.disk.epoch}")
        self._visits = count(1)
        self._scope = trio.CancelScope()
        self._patience = trio.CancelScope()
        self._ended = trio.Event()

    # --- Running ---------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as self.nursery:
                    self.nursery.start_soon(self._watch)
                    await self._open()
                    task_status.started()
        finally:
            self._ended.set()

    async def kill(self) -> None:
        """Whatever is not on the disk by now is gone."""
        self._scope.cancel()
        with trio.CancelScope(shield=True):
            await self._ended.wait()

    async def pass_time(self, seconds: float) -> None:
        """So much later, whatever was due meanwhile is due at once; returns when nobody has anything to do."""
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        self._patience.deadline += seconds
        clock.jump(seconds)
        await wait_all_tasks_blocked()

    async def _watch(self) -> None:
        with self._patience:
            self._patience.deadline = trio.current_time() + PATIENCE_S
            await trio.sleep_forever()
        raise AssertionError("This test waits for something that does not come.")

    async def _open(self) -> None:
        opened = await self.store.open()
        self.ledger = Ledger(self.store, opened.last_commit, self.wire, wall_clock, self.tally)
        self.nursery.start_soon(self.ledger.run)
        book = self.ledger.book(OF_NO_APP)
        while ended := await self.store.unfinished(1000):
            unit = book.open()
            now = wall_clock()
            unit.changes += [
                Settled(msg_id, device_no, verdict, now, VisitNo(0), now) for msg_id, device_no, verdict in ended
            ]
            unit.close()
            await book.told()
        self.numbers = Numbers(opened.ids_below, book)
        await self.numbers.reserve()
        self.nursery.start_soon(self.devices.run)
        app_nos = dict(opened.apps)
        device_nos = count(opened.last_device_no + 1)
        for app_key in self._app_keys:
            if app_key not in app_nos:
                app_nos[app_key] = AppNo(len(app_nos) + 1)
                unit = book.open()
                unit.changes.append(AppAdded(app_nos[app_key], app_key))
                unit.close()
                await book.told()
            self.apps[app_key] = await self._open_app(app_key, app_nos[app_key], opened.secret, device_nos)
        if self._with_upkeep:
            self.nursery.start_soon(self.upkeep.run)

    async def _open_app(self, app_key: AppKey, app_no: AppNo, secret: bytes, device_nos: Iterator[int]) -> Rooms:
        tenant = Tenant(app_key, app_no, self._limits, self.ledger.book(app_no))
        def next_device_no() -> DeviceNo:
            return DeviceNo(next(device_nos))

        held = AliasMailboxes(tenant, self.store, self.devices, next_device_no, wall_clock)
        tenant.take_back = held.take_back
        router = Router(tenant, self.store, self.devices, held, self.numbers.take, self.tally)
        receipts = Receipts(tenant, self.store)
        await receipts.load()
        await held.load()
        await router.load()
        self.nursery.start_soon(router.run)
        registrar = Registrar(
            tenant,
            router,
            self.store,
            secret,
            next_device_no,
            self._randomness.randbytes,
            wall_clock,
        )
        fanout = Fanout(
            tenant,
            router.targets,
            router.unheld,
            held,
            self.devices,
            self.numbers,
            self.store,
            wall_clock,
            self.tally,
        )
        recalls = Recalls(tenant, self.devices, self.store, self.ledger, fanout.turn, wall_clock)
        for device_no in await self.store.stranded(app_no):
            self.devices.get(device_no, tenant)
        return Rooms(tenant, router, registrar, fanout, held, recalls, receipts)

    def _tenants(self) -> Mapping[AppNo, Served]:
        return {rooms.tenant.app_no: Served(rooms.tenant, rooms.registrar, rooms.held) for rooms in self.apps.values()}

    def new_visit(self) -> RecordingVisit:
        return self.visit_type(VisitId(next(self._visits)), self.disk, self.complaints)

    def disagreements(self) -> list[str]:
        """Where a directory that can be trusted says another thing than the disk, with nothing on its way to it."""
        found: list[str] = []
        for rooms in self.apps.values():
            book = rooms.tenant.book
            if not rooms.router._is_sound.is_set() or (book._last is not None and book._last.number > book.durable):
                continue
            living = [device.row for device in self.disk.devices.values() if not device.deleted]
            on_disk = {
                # Visits are no business of the directory's.
                row.registration_id: replace(row, visits=VisitNo(0), was_present=False)
                for row in living
                if row.app_no == rooms.tenant.app_no and not row.is_alias
            }
            known = {
                each.registration_id: DeviceRow(
                    each.device_no,
                    rooms.tenant.app_no,
                    each.registration_id,
                    each.platform,
                    each.alias,
                    each.binding,
                    each.tags,
                    each.last_seen_at,
                )
                for each in rooms.router.directory
            }
            for name in sorted({*on_disk, *known}):
                if known.get(name) != on_disk.get(name):
                    found.append(f"The directory has {known.get(name)}, the disk {on_disk.get(name)}.")
        return found

    def faults(self) -> dict[str, int]:
        """Crashes and faults, which nobody would notice otherwise: they are contained."""
        watched = ("actor_crashes", "router_crashes", "faults")
        return {f"{name} {label}".strip(): counted for name, label, counted in self.tally if name in watched}

    # --- What app servers ask --------------------------------------------------------------------------------------

    @property
    def app(self) -> Rooms:
        """The rooms of the first app."""
        return self.apps[self._app_keys[0]]

    async def told(self, rooms: Rooms | None = None) -> None:
        await (rooms or self.app).tenant.book.told()

    async def accept(self, push: Push, rooms: Rooms | None = None) -> Acceptance:
        """The push is accepted, and may be told."""
        rooms = rooms or self.app
        acceptance = await rooms.fanout.accept(push)
        if acceptance.is_durable_first:
            await rooms.tenant.book.told()
        return acceptance

    async def push(self, *phones: Phone, rooms: Rooms | None = None, **said: Any) -> MsgId:
        """Accepts a push to these phones, or to whom `said` says (see `push`), and waits until that may be told."""
        return (await self.accept(push(*phones, **said), rooms)).msg_id

    async def report(self, msg_id: MsgId, rooms: Rooms | None = None) -> Report:
        found = await self.reports([msg_id], rooms)
        return found[msg_id]

    async def reports(self, msg_ids: Sequence[MsgId], rooms: Rooms | None = None) -> dict[MsgId, Report]:
        """As `report` makes it, all of them of one instant. What the store does not have is left out."""
        tenant = (rooms or self.app).tenant
        rows, sent = await self.ledger.read(tenant.book, msg_ids, lambda: self.store.reports(tenant.app_no, msg_ids))
        return {
            msg_id: _report(rows[msg_id], on_the_wire)
            for msg_id, on_the_wire in zip(msg_ids, sent, strict=True)
            if msg_id in rows
        }

    async def set_device(self, phone: Phone, alias: Alias | None = None, tags: TagChange = NO_TAG_CHANGE) -> None:
        """What an app server changes of a device."""
        await phone.rooms.router.change(phone.registration_id, alias, tags)
        await phone.rooms.tenant.book.told()

    async def delete_alias(self, alias: Alias) -> list[RegistrationId]:
        lost = await self.app.router.delete_alias(alias)
        await self.told()
        return lost

    async def delete(self, phone: Phone) -> None:
        await phone.rooms.registrar.delete(phone.registration_id)
        await phone.rooms.tenant.book.told()

    # --- Phones ----------------------------------------------------------------------------------------------------

    async def phone(self, alias: Alias | None = None, *, tags: tuple[Tag, ...] | None = None) -> Phone:
        """A device that has just registered, and is connected."""
        phone = Phone(self)
        await phone.connect(alias=alias, tags=tags)
        return phone

    async def absent_phone(self, alias: Alias | None = None, *, is_retired: bool = True) -> Phone:
        """A device that has registered and left; without an actor, if it is retired."""
        phone = await self.phone(alias)
        phone.leave()
        await self.told()
        if is_retired:
            self.retire()
        return phone

    def retire(self) -> None:
        """Two rounds in which nothing happens: whoever is idle has no actor afterwards."""
        self.devices.retire_idle()
        self.devices.retire_idle()


def _report(row: ReportRow, sent: int) -> Report:
    return Report(
        row.targets,
        row.unsettled - sent,
        sent,
        {verdict.word: found for verdict, found in sorted(row.verdicts.items()) if found},
        {mark.word: found for mark, found in sorted(row.marks.items()) if found},
    )


def push(
    *phones: Phone,
    alias: Alias | tuple[Alias, ...] = (),
    tag: Tag | tuple[Tag, ...] = (),
    ttl: int = DAY_S,
    overrides: MsgId | None = None,
    cid: str | None = None,
    body: bytes = b"{}",
    platforms: frozenset[Platform] = frozenset(),
    sendno: int | None = None,
) -> Push:
    """A push to these phones, to whoever has this alias or tag, or, if nobody is named, to everybody."""
    audience = Audience(
        alias=(alias,) if isinstance(alias, str) else alias,
        registration_id=tuple(phone.registration_id for phone in phones),
        tag=(tag,) if isinstance(tag, str) else tag,
    )
    digest = repr((audience, platforms, ttl, overrides, body)).encode()
    return Push(audience, platforms, ttl, overrides, body, sendno, None if cid is None else Cid(cid), digest)


class Phone:
    """A device, and what the edge does for it."""

    def __init__(self, world: World, rooms: Rooms | None = None) -> None:
        self.world = world
        self.rooms = rooms or world.app
        self.secret: str | None = None
        self.welcome: Welcome
        self.visit: RecordingVisit
        self._registration_id: RegistrationId | None = None

    @property
    def registration_id(self) -> RegistrationId:
        assert self._registration_id is not None, "this phone has not registered yet"
        return self._registration_id

    @property
    def device_no(self) -> DeviceNo:
        return self.welcome.device_no

    @property
    def actor(self) -> DeviceActor:
        actor = self.world.devices.at_rest(self.device_no)
        assert actor is not None, "this phone has no actor"
        return actor

    def move(self, world: World) -> None:
        """The server was killed, and started again."""
        self.world = world
        self.rooms = world.apps[self.rooms.tenant.app_key]

    # --- Visits ----------------------------------------------------------------------------------------------------

    async def connect(self, **said: Any) -> Welcome:
        """Arrives, is told so, and resumes. `said`: members of `Hello`."""
        welcome = await self.arrive(**said)
        self.resume()
        return welcome

    async def arrive(self, **said: Any) -> Welcome:
        """A `connect` that is granted, durable, and about to be answered."""
        visit = self.world.new_visit()
        hello = Hello(registration_id=self._registration_id, device_secret=self.secret, **said)
        welcome = await self.rooms.registrar.connect(hello, visit)
        self.visit, self.welcome = visit, welcome
        self._registration_id = welcome.registration_id
        self.secret = welcome.device_secret or self.secret
        visit.binding_of, visit.place_of = self._binding_of, self._place_of
        await self.rooms.tenant.book.told()
        return welcome

    def _binding_of(self, message: Message) -> tuple[Binding | None, Binding]:
        accepted = self.world.disk.pushes.get(message.msg_id)
        addressed = accepted.deliveries[self.device_no].binding if accepted is not None else None
        return addressed, self.rooms.router.find(self.registration_id).binding

    def _place_of(self, message: Message) -> int:
        accepted = self.world.disk.pushes.get(message.msg_id)
        return message.msg_id if accepted is None else accepted.deliveries[self.device_no].place

    def resume(self) -> None:
        """It has its answer."""
        self.visit.is_answered = True
        self.actor.resume(self.visit.visit_id)

    def leave(self, visit: RecordingVisit | None = None) -> None:
        """The farewell of its visit, or of an earlier one."""
        left = visit or self.visit
        left.end(Ending.STOPPED)
        self.rooms.registrar.leave(self.registration_id, left.visit_id)

    # --- What it says ----------------------------------------------------------------------------------------------

    async def set_alias(self, alias: Alias) -> Alias | None:
        """Logs somebody in, is told so, and resumes."""
        previous = await self.ask_for_alias(alias)
        self.resume()
        return previous

    async def ask_for_alias(self, alias: Alias) -> Alias | None:
        """A change of alias that is decided, durable, and about to be answered."""
        was = self.rooms.router.find(self.registration_id).alias
        previous = await self.rooms.router.set_alias(self.registration_id, alias, self.visit.visit_id)
        if (alias or None) != was:
            self.visit.is_answered = False
        await self.rooms.tenant.book.told()
        return previous

    def acknowledge(self, msg_id: MsgId, visit: RecordingVisit | None = None) -> bool:
        return self.actor.acknowledge((visit or self.visit).visit_id, msg_id)

    def decline(self, msg_id: MsgId, visit: RecordingVisit | None = None) -> bool:
        return self.actor.decline((visit or self.visit).visit_id, msg_id)

    def mark(self, msg_id: MsgId, mark: Mark = Mark.OPENED) -> None:
        self.actor.mark(msg_id, mark)

    def take(self, room: int | None = None) -> None:
        """Its buffer has drained, and takes so many more messages."""
        self.visit.room = room
        self.actor.pump()

    # --- What is known of it ---------------------------------------------------------------------------------------

    @property
    def handed(self) -> list[MsgId]:
        return self.visit.handed

    async def state(self, msg_id: MsgId) -> str:
        """Of this push for this device: `waiting`, `sent`, the word of its verdict, or `unknown`."""
        tenant = self.rooms.tenant
        found, _ = await self.world.ledger.read(
            tenant.book, [], lambda: self.world.store.statuses(tenant.app_no, msg_id, [self.registration_id])
        )
        row = (found or {}).get(self.registration_id)
        if row is None:
            return "unknown"
        if row.verdict is not None:
            return row.verdict.word
        actor = self.world.devices.at_rest(self.device_no)
        sent = [] if actor is None else [entry.msg_id for entry in actor.mailbox.sent]
        return "sent" if msg_id in sent else "waiting"


# --- Beginnings and ends -------------------------------------------------------------------------------------------


@asynccontextmanager
async def living(
    disk: MemoryDisk | None = None,
    *,
    store: MemoryStore | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    app_keys: Sequence[AppKey] = (APP,),
    with_upkeep: bool = False,
    may_crash: bool = False,
) -> AsyncIterator[World]:
    """A world that is killed at the end. It must have come to that without a complaint and, unless it may, a crash."""
    world = World(store or MemoryStore(disk), limits, app_keys, with_upkeep=with_upkeep)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        try:
            yield world
            world.complaints += world.disagreements()
        except Exception as error:  # raised again below, outside the group that a nursery would make of it
            failure = error
        await world.kill()
    if failure is not None:
        raise failure
    assert not world.complaints
    assert may_crash or not world.faults()


class Planted(Exception):
    """A fault that a test has planted."""


def plant(actor: DeviceActor, method: str, *, is_late: bool = False) -> None:
    """The next call of this method of the actor's mailbox raises, before it acts or, if late, afterwards."""
    original = getattr(Mailbox, method)
    faults = [Planted(method)]

    def fail() -> None:
        if faults:
            raise faults.pop()

    def failing(self: Mailbox, *args: Any, **kwargs: Any) -> Any:
        if not is_late:
            fail()
        found = original.__get__(self, Mailbox)
        done = found(*args, **kwargs) if callable(found) else found
        if is_late:
            fail()
        return done

    member = property(failing) if isinstance(original, property) else failing
    actor.mailbox.__class__ = type("FaultyMailbox", (Mailbox,), {"__slots__": (), method: member})


@contextmanager
def faulty(owner: type, method: str, *, spared: object = None) -> Iterator[None]:
    """Inside, every call of this method raises, on whomever but `spared`."""
    original = getattr(owner, method)

    def failing(self: object, *args: Any) -> Any:
        if self is spared:
            return original(self, *args)
        raise Planted(method)

    setattr(owner, method, failing)
    try:
        yield
    finally:
        setattr(owner, method, original)


# --- What waits for its user, and what app servers are told --------------------------------------------------------


def hold(*aliases: Alias, within: int | None = None, **said: Any) -> Push:
    """A push to these aliases that waits for whoever has them (C25). `within`: its deadline, in seconds."""
    return replace(push(alias=aliases, **said), is_held=True, deliver_within_s=within)


async def held(world: World, *aliases: Alias, **said: Any) -> MsgId:
    """Accepts it, and waits until that may be told."""
    return (await world.accept(hold(*aliases, **said))).msg_id


async def stream(world: World) -> list[ReceiptRow]:
    """Every receipt that is kept (C20), without a gap."""
    await world.told()
    page = await world.store.receipts(world.app.tenant.app_no, Cursor(0), 1_000_000)
    cursors = [row.cursor for row in page.rows]
    assert cursors == list(range(page.last - len(cursors) + 1, page.last + 1))
    return list(page.rows)


async def words(world: World, msg_id: MsgId) -> list[str]:
    """What was told of one push, in order: an event's word, with the reason of an overdue one."""
    rows = [row for row in await stream(world) if row.msg_id == msg_id]
    return [row.event.word if row.reason is None else f"{row.event.word} {row.reason.why}" for row in rows]


def unsettled_on_disk(world: World, msg_id: MsgId) -> list[DeviceNo]:
    """The living mailboxes in which the disk has it; one that is not there keeps it for ever."""
    found = sorted(world.disk.pushes[msg_id].unsettled)
    assert all(world.disk.living(device_no) is not None for device_no in found), "it is in a mailbox that is gone"
    return found

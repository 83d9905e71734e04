"""Which devices are here as actors: started when there is work, retired when there is none, rebuilt when they crash.

1. A device that is absent and idle has rows in the store, and no task. One that is present, or has work, is a task of
   the nursery here, which owns its mailbox.
2. Actors are loaded many at a time, in one question to the store. Until then their inboxes keep what is posted.
3. An actor that crashes takes nobody with it: it is logged and counted, its visit is told to come back, and a new one
   starts from the store, once everything that the old one had decided is durable.
4. An actor is retired when it is absent, all of it is durable, and nothing happened since the last round.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import trio

from pushactors.actors.device import DeviceActor
from pushactors.actors.mailbox import MailboxActor
from pushactors.actors.sendings import WRITTEN_AFTER_MS
from pushactors.actors.tally import Tally
from pushactors.actors.tenant import Tenant
from pushactors.actors.unit import Unit
from pushactors.actors.visits import Ending
from pushactors.actors.wire_count import WireCount
from pushactors.domain.entry import Entry
from pushactors.domain.message import Message
from pushactors.errors import ActorCrashed, NoSuchDevice
from pushactors.stores.contract import MailboxRow, Store
from pushactors.stores.patience import patient
from pushactors.wire.ids import DeviceNo, Millis, MsgId, UnitNo, VisitId

log = logging.getLogger(__name__)

# Loaded in one question to the store: enough to make the question cheap, little enough to be a short wait.
LOADED_AT_ONCE = 1_000


class Supervisor:
    """See the law on top."""

    def __init__(self, store: Store, on_the_wire: WireCount, clock: Callable[[], Millis], tally: Tally) -> None:
        self._store = store
        self._on_the_wire = on_the_wire
        self._clock = clock
        self._tally = tally
        self._actors: dict[DeviceNo, DeviceActor] = {}
        self._decided: dict[DeviceNo, tuple[Tenant, UnitNo]] = {}
        """The last unit about a device that is not here."""
        self._to_load: list[DeviceActor] = []
        self._to_fetch: list[tuple[MailboxActor, Sequence[MsgId]]] = []
        self._to_start: list[DeviceActor] = []
        self._work = trio.Event()

    # --- Looking -----------------------------------------------------------------------------------------------------

    def at_rest(self, device_no: DeviceNo) -> DeviceActor | None:
        """The device's actor, if it is here and has its state."""
        actor = self._actors.get(device_no)
        return actor if actor is not None and actor.inbox.is_open else None

    def find(self, device_no: DeviceNo) -> DeviceActor | None:
        """The device's actor, if it is here, whatever state it is in."""
        return self._actors.get(device_no)

    def is_present(self, device_no: DeviceNo) -> bool:
        actor = self._actors.get(device_no)
        return actor is not None and actor.visit is not None and not actor.inbox.is_closed

    def visit_id(self, device_no: DeviceNo) -> VisitId | None:
        """The device's present visit."""
        actor = self.at_rest(device_no)
        return actor.mailbox.visit if actor is not None else None

    def __len__(self) -> int:
        return len(self._actors)

    def all(self) -> Sequence[DeviceActor]:
        """Every actor that is here, in the order in which they came."""
        return tuple(self._actors.values())

    # --- Starting ----------------------------------------------------------------------------------------------------

    def enroll(self, device_no: DeviceNo, tenant: Tenant) -> DeviceActor:
        """The actor of a device that is being registered: it has nothing in the store, and is at rest at once."""
        actor = self._new(device_no, tenant)
        actor.inbox.open()
        self._to_start.append(actor)
        self._work.set()
        return actor

    def get(self, device_no: DeviceNo, tenant: Tenant) -> DeviceActor:
        """The device's actor, started if need be: post to its inbox, or await `ready` first."""
        actor = self._actors.get(device_no)
        if actor is not None and not actor.inbox.is_closed:
            return actor
        decided = actor.last_unit if actor is not None else self._decided.get(device_no, (None, UnitNo(0)))[1]
        actor = self._new(device_no, tenant)
        actor.last_unit = actor.waits_for = decided
        self._to_load.append(actor)
        self._work.set()
        return actor

    async def ready(self, device_nos: Iterable[DeviceNo], tenant: Tenant) -> list[DeviceActor]:
        """Those actors, at rest. Raises `ActorCrashed` if one of them cannot be brought to rest."""
        actors = [self.get(device_no, tenant) for device_no in device_nos]
        for actor in actors:
            await actor.inbox.wait_open()
            if not actor.inbox.is_open:
                raise ActorCrashed("A device's actor could not be started. Try again.")
        return actors

    def decided(self, device_no: DeviceNo, tenant: Tenant, unit: Unit) -> None:
        """Something about a device that is not here is decided in that unit: its next actor must find it in the
        store."""
        self._decided[device_no] = (tenant, unit.number)

    def rebuild(self, device_no: DeviceNo, why: str) -> None:
        """Ends an actor whose state can no longer be trusted; the next work starts a new one from the store."""
        actor = self._actors.get(device_no)
        if actor is not None:
            actor.inbox.crash(RuntimeError(why))

    def _new(self, device_no: DeviceNo, tenant: Tenant) -> DeviceActor:
        actor = DeviceActor(device_no, tenant, self._on_the_wire, self._clock, self._fetch)
        self._actors[device_no] = actor
        return actor

    def _fetch(self, actor: MailboxActor, msg_ids: Sequence[MsgId]) -> None:
        self._to_fetch.append((actor, msg_ids))
        self._work.set()

    # --- Tasks -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Owns every device's task, until cancelled. Raises `StoreFailure` when the store gives up."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._work.wait()
                self._work = trio.Event()
                starting, self._to_start = self._to_start, []
                for actor in starting:
                    nursery.start_soon(self._live, actor)
                loading, self._to_load = self._to_load, []
                for first in range(0, len(loading), LOADED_AT_ONCE):
                    await self._load(nursery, loading[first : first + LOADED_AT_ONCE])
                fetching, self._to_fetch = self._to_fetch, []
                if fetching:
                    await self._bring(fetching)

    async def _load(self, nursery: trio.Nursery, actors: list[DeviceActor]) -> None:
        late = [actor for actor in actors if actor.waits_for > actor.tenant.book.durable]
        for actor in late:
            nursery.start_soon(self._load_later, actor)
        actors = [actor for actor in actors if actor.waits_for <= actor.tenant.book.durable]
        if not actors:
            return
        rows = await patient(lambda: self._store.mailboxes([actor.device_no for actor in actors]))
        for actor in actors:
            row = rows.get(actor.device_no)
            if row is None:
                # Deleted since. Whoever posted is told that it is lost.
                self._actors.pop(actor.device_no, None)
                actor.is_deleted = True
                actor.inbox.crash(NoSuchDevice("This device was deleted."))
            else:
                self._restore(actor, row)
                nursery.start_soon(self._live, actor)

    @staticmethod
    def _restore(actor: DeviceActor, row: MailboxRow) -> None:
        try:
            actor.restore(row)
        except Exception as cause:  # an actor ends alone, be it at its beginning
            actor.inbox.crash(cause)

    async def _load_later(self, actor: DeviceActor) -> None:
        """What an earlier actor of this device had decided must be in the store before this one reads it (law 3)."""
        await actor.tenant.book.reached(actor.waits_for)
        self._to_load.append(actor)
        self._work.set()

    async def _bring(self, fetching: list[tuple[MailboxActor, Sequence[MsgId]]]) -> None:
        ids = list(dict.fromkeys(msg_id for _, msg_ids in fetching for msg_id in msg_ids))
        bodies = await patient(lambda: self._store.bodies(ids))
        # One value for all mailboxes that hold the same message.
        messages: dict[MsgId, Message] = {}
        for actor, _ in fetching:
            if not actor.inbox.is_open:
                continue
            for entry in actor.mailbox.waiting:
                if entry.message is None and entry.msg_id in bodies and entry.msg_id not in messages:
                    messages[entry.msg_id] = _message(entry, bodies[entry.msg_id])
            actor.inbox.post(lambda actor=actor: actor.bodies(messages), lost=_nothing)  # type: ignore[misc]

    async def _live(self, actor: DeviceActor) -> None:
        """One actor's life, and what is done about its death (law 3)."""
        was_open = not actor.inbox.is_closed
        try:
            await actor.run()
        except Exception:  # an actor ends alone, whatever it was; its visit is ended, and it is rebuilt on demand
            log.exception("Device %d crashed; it will be rebuilt from the store.", actor.device_no)
            self._tally.add("actor_crashes")
            if actor.visit is not None:
                actor.visit.end(Ending.RESTARTED)
            self._on_the_wire.all_off(actor.device_no)
            if was_open and not actor.is_deleted:
                # At once, not when somebody asks: what was on the wire has its verdict now (C3). One that cannot even
                # begin is left until then.
                self.get(actor.device_no, actor.tenant)

    # --- Rounds ------------------------------------------------------------------------------------------------------

    def write_sent(self) -> None:
        """Has it written down what was sent a while ago and is still on the wire."""
        before = Millis(self._clock() - WRITTEN_AFTER_MS)
        units: dict[Tenant, Unit] = {}
        for actor in self._actors.values():
            if actor.sendings.has_unwritten and actor.inbox.is_open:
                unit = units.get(actor.tenant)
                if unit is None:
                    unit = units[actor.tenant] = actor.tenant.book.open()
                with suppress(ActorCrashed):
                    actor.write_sent(before, unit)
        for unit in units.values():
            unit.close()

    def retire_idle(self) -> int:
        """Ends the actors that have had nothing to do since the last round, and forgets the crashed ones that are
        wholly on disk; how many."""
        leaving = [
            actor
            for actor in self._actors.values()
            if (actor.inbox.is_closed and actor.last_unit <= actor.tenant.book.durable)
            or (actor.inbox.is_open and actor.may_retire())
        ]
        for actor in self._actors.values():
            actor.used = False
        self._decided = {
            device_no: (tenant, number)
            for device_no, (tenant, number) in self._decided.items()
            if number > tenant.book.durable
        }
        for actor in leaving:
            del self._actors[actor.device_no]
            actor.inbox.close()
        return len(leaving)


def _message(entry: Entry, body: bytes) -> Message:
    return Message(entry.msg_id, entry.accepted_at, entry.expires_at, entry.overrides, body)


def _nothing() -> None:
    """What is lost with an actor that is gone is fetched again by the next one."""

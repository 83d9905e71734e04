"""The alias router of one app: who is registered, who is logged in where, and the changes of that.

1. It owns the app's directory. A change is decided in one step, together with the fence in the device's mailbox, so
   that every push is wholly before or wholly after it (C13, C14). What it touches is brought to rest first.
2. What is refused changes nothing.
3. It decides ahead of the disk. Whoever asked is told when the app's book says that it is durable (C2).
4. What waits for an alias enters the mailbox of the device on which it is set, in the same step (C25).
5. If a step fails halfway, its unit is abandoned, and the devices that it touched are rebuilt from the store. If it was
   a device that failed, the step is taken back. If it was the router, its directory is loaded anew, and who asks
   meanwhile waits; more than `RELOADS` times in `RELOADS_WITHIN_S` is a fault of ours that starting again does not
   mend: then the process falls.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import trio

from pushactors.actors.tally import Tally
from pushactors.actors.tenant import Tenant
from pushactors.actors.unit import Unit
from pushactors.actors.whereabouts import Devices, Held, Whereabouts
from pushactors.domain.aliases import TAGS_MAX, Directory, Registration
from pushactors.domain.credentials import AliasPermit
from pushactors.errors import ActorCrashed, InternalError, Invalid, PushactorsError, VisitEnded
from pushactors.stores import contract
from pushactors.stores.patience import patient
from pushactors.wire.ids import Alias, Binding, DeviceNo, Millis, MsgId, RegistrationId, Tag, VisitId

log = logging.getLogger(__name__)

LOADED_AT_ONCE = 10_000
RELOADS = 3
RELOADS_WITHIN_S = 60.0

Permit = Callable[[], AliasPermit]
"""What a device shows for the alias that it names. Raises `Unauthorized` if that is nothing."""


@dataclass(frozen=True, slots=True)
class TagChange:
    add: tuple[Tag, ...] = ()
    remove: tuple[Tag, ...] = ()
    replace: bool = False
    """Whether `add` is all of them."""

    def of(self, tags: tuple[Tag, ...]) -> tuple[Tag, ...]:
        kept = set() if self.replace else set(tags) - set(self.remove)
        return tuple(sorted(kept | set(self.add)))


NO_TAG_CHANGE = TagChange()


class Router(Whereabouts):
    """See the law on top. Every method decides and returns; none waits for the disk."""

    def __init__(
        self,
        tenant: Tenant,
        store: contract.Store,
        devices: Devices,
        held: Held,
        next_place: Callable[[], int],
        tally: Tally,
    ) -> None:
        """`next_place`: a number over that of every message accepted so far, and below that of every later one."""
        super().__init__(tenant, devices, held)
        self._store = store
        self._next_place = next_place
        self._tally = tally
        self._fault = trio.Event()
        self._reloads: deque[float] = deque()
        self._seen_meanwhile: dict[RegistrationId, Millis] = {}
        self._undo: list[Callable[[], None]] = []
        """What takes back the step that is under way."""

    # --- Life --------------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Reads the directory from the store. Nobody is answered before that."""
        directory = Directory()
        after = DeviceNo(0)
        while True:
            rows = await patient(lambda last=after: self._store.devices(self._tenant.app_no, last, LOADED_AT_ONCE))  # type: ignore[misc]
            for row in rows:
                directory.add(_registration(row))
                after = row.device_no
            if len(rows) < LOADED_AT_ONCE:
                break
        if not self._fault.is_set():  # else what was read is no better than what it was to mend
            for registration_id, at in self._seen_meanwhile.items():
                seen = directory.find(registration_id)
                if seen is not None:
                    seen.last_seen_at = at
            self._seen_meanwhile.clear()
            self._directory = directory
            self._is_sound.set()

    async def run(self) -> None:
        """Loads the directory again when it can no longer be trusted (law 5)."""
        while True:
            await self._fault.wait()
            self._fault = trio.Event()
            now = trio.current_time()
            self._reloads.append(now)
            while self._reloads[0] < now - RELOADS_WITHIN_S:
                self._reloads.popleft()
            if len(self._reloads) > RELOADS:
                raise InternalError("The alias router fails again and again.")
            await self._tenant.book.told()
            await self.load()

    # --- Changing ----------------------------------------------------------------------------------------------------

    async def set_alias(
        self, registration_id: RegistrationId, alias: Alias, visit_id: VisitId, permit: Permit | None = None
    ) -> Alias | None:
        """The device logs `alias` in ("": nobody) on that visit; the alias before. It must be told, and then resumed.

        `permit`: what it shows for it, asked for where one is needed (C17). Raises `AliasFull`, `NoSuchDevice`,
        `Unauthorized`, `VisitEnded`.
        """
        _, previous = await self._change(registration_id, alias, NO_TAG_CHANGE, visit_id, permit)
        return previous

    async def set_tags(
        self, registration_id: RegistrationId, change: TagChange, visit_id: VisitId | None = None
    ) -> tuple[Tag, ...]:
        """Changes the tags of a device, as it asks on that visit, if it is the device that asks; all that it has then.

        Raises `Invalid` if they are too many, `NoSuchDevice`, `VisitEnded`.
        """
        registration, _ = await self._change(registration_id, None, change, visit_id)
        return registration.tags

    async def change(self, registration_id: RegistrationId, alias: Alias | None, tags: TagChange) -> None:
        """What an app server changes of a device, in one step; its visit is told of another alias.

        Raises `AliasFull`, `Invalid` (too many tags), `NoSuchDevice`.
        """
        await self._change(registration_id, alias, tags, None)

    async def _change(
        self,
        registration_id: RegistrationId,
        alias: Alias | None,
        tags: TagChange,
        visit_id: VisitId | None,
        permit: Permit | None = None,
    ) -> tuple[Registration, Alias | None]:
        """The registration afterwards, and the alias before. `visit_id`: the visit that asks, if a device does."""

        def touched() -> list[Registration]:
            registration = self.find(registration_id)
            if alias is None or (alias or None) == registration.alias:
                return []
            loses = self.who_loses(alias, registration) if alias else None
            return [registration] if loses is None else [registration, loses]

        # Before anything else is told of the alias, such as that it is full.
        self.check_permit(registration_id, alias, permit)
        free = await self.ready_to_bind(touched, alias, lambda: self.find(registration_id))
        registration = self.find(registration_id)
        self.check_visit(registration, visit_id)
        # Once more: while it was brought to rest, its alias may have become another.
        self.check_permit(registration_id, alias, permit)
        if len(tags.of(registration.tags)) > TAGS_MAX:
            raise Invalid(f"A device has at most {TAGS_MAX} tags.", "tags")
        previous = registration.alias
        with self.step([*touched(), *self.waiting_for(alias)]) as unit:
            self.bind(registration, alias, unit, by_device=visit_id is not None, free=free)
            self.retag(registration, tags, unit)
        return registration, previous

    async def delete_alias(self, alias: Alias) -> list[RegistrationId]:
        """Takes the alias off every device; who lost it (C14)."""
        await self.bring_to_rest(lambda: self._directory.holders(alias))
        holders = self._directory.holders(alias)
        with self.step(holders) as unit:
            for holder in holders:
                self._rebind(holder, None, unit, by_device=False)
        return [holder.registration_id for holder in holders]

    # --- The parts of a step -----------------------------------------------------------------------------------------

    async def ready_to_bind(
        self,
        touched: Callable[[], Iterable[Registration]],
        alias: Alias | None,
        newcomer: Callable[[], Registration | None],
    ) -> set[MsgId] | None:
        """Like `bring_to_rest`, with what waits for `alias`; which of that, and of what others may give back in the
        step, is free for the newcomer: a device gets each push once. None: all of it, because it is new."""
        free: set[MsgId] = set()
        asked: set[MsgId] = set()
        while True:
            await self.bring_to_rest(lambda: [*touched(), *self.waiting_for(alias)])
            device = newcomer()
            if device is None:
                return None
            others = [each for each in touched() if each is not device] if alias else []
            waiting = {
                msg_id
                for each in (*self.waiting_for(alias), *others)
                for msg_id, _, _ in self.device(each).contents()
            } - asked
            if not waiting:
                return free
            here = self._devices.at_rest(device.device_no)
            # Unsettled there now; by the time that the store is asked it may be settled, and not durable.
            its_own = {msg_id for msg_id, _, _ in here.contents()} if here is not None else set()
            asked |= waiting
            await self._tenant.book.told()
            had = await patient(lambda: self._store.had(device.device_no, sorted(waiting)))  # noqa: B023
            free |= waiting - its_own - set(had)

    @contextmanager
    def step(self, touched: Iterable[Registration]) -> Iterator[Unit]:
        """One decision. Whatever fails in it: nothing of it happens, and what it touched is rebuilt (law 5)."""
        unit = self._tenant.book.open()
        self._undo.clear()
        try:
            yield unit
        except ActorCrashed:
            self._abandon(unit, touched)
            for undo in reversed(self._undo):
                undo()
            raise
        except Exception as cause:  # of any kind: half a decision must not stand
            self._abandon(unit, touched)
            log.exception("The alias router of app %s failed; its directory is loaded again.", self._tenant.app_key)
            self._tally.add("router_crashes")
            self._is_sound = trio.Event()
            self._fault.set()
            if isinstance(cause, PushactorsError):
                raise
            raise InternalError("The server failed over this request, which had no effect. Try again.") from cause
        else:
            unit.close()

    def _abandon(self, unit: Unit, touched: Iterable[Registration]) -> None:
        unit.abandon()
        for each in touched:
            self._devices.rebuild(each.device_no, "A decision in which this device had a part was abandoned.")

    def check_permit(
        self, registration_id: RegistrationId | None, alias: Alias | None, permit: Permit | None
    ) -> None:
        """Raises `Unauthorized` if that device may not take `alias` with what it shows for it (C17). Clearing, and
        keeping what one has, needs nothing. None: a device that is just being registered."""
        if not alias or not self._tenant.limits.needs_alias_tokens or permit is None:
            return
        if registration_id is not None and self.find(registration_id).alias == alias:
            return
        permit().check(alias, registration_id)

    def check_visit(self, registration: Registration, visit_id: VisitId | None) -> None:
        """Raises `VisitEnded` if a visit asks that is not the device's present one (C11)."""
        if visit_id is not None and self._devices.visit_id(registration.device_no) != visit_id:
            raise VisitEnded("A newer connection of this device has taken the place of this one.")

    def who_loses(self, alias: Alias, newcomer: Registration | None) -> Registration | None:
        """Which device loses `alias` so that `newcomer` can have it. Raises `AliasFull`."""
        limits = self._tenant.limits
        return self._directory.who_loses(alias, newcomer, limits.alias_limit, limits.alias_full, self.is_present)

    def bind(
        self,
        registration: Registration,
        alias: Alias | None,
        unit: Unit,
        by_device: bool,
        free: Collection[MsgId] | None,
    ) -> None:
        """Logs `alias` in on a device ("": nobody; None: no change), lets the fence fall, and brings what waits for
        that alias and is `free` for the device (see `ready_to_bind`)."""
        if alias is None or (alias or None) == registration.alias:
            return
        loses = self.who_loses(alias, registration) if alias else None
        if loses is not None:
            self._rebind(loses, None, unit, by_device=False)
        self._rebind(registration, alias or None, unit, by_device)
        for mailbox in self.waiting_for(alias):
            device = self.device(registration)
            if free is not None:
                free = set(free).difference(msg_id for msg_id, _, _ in device.contents())
            entries = self.device(mailbox).release(free, unit)
            if entries:
                device.admit(entries, [self._next_place() for _ in entries], mailbox.device_no, unit)

    def _rebind(self, registration: Registration, alias: Alias | None, unit: Unit, by_device: bool) -> None:
        before, binding = (registration.alias, registration.binding), Binding(registration.binding + 1)
        self.device(registration).rebind(alias, binding, unit, by_device)
        self._undo.append(lambda: self._directory.set_alias(registration, *before))
        self._directory.set_alias(registration, alias, binding)
        unit.changes.append(contract.AliasChanged(registration.device_no, alias, binding))

    def retag(self, registration: Registration, change: TagChange, unit: Unit) -> None:
        before, tags = registration.tags, change.of(registration.tags)
        if tags != before:
            self._undo.append(lambda: self._directory.set_tags(registration, before))
            self._directory.set_tags(registration, tags)
            unit.changes.append(contract.TagsChanged(registration.device_no, tags))

    def undo_by(self, undo: Callable[[], None]) -> None:
        """What takes back something that this step has changed."""
        self._undo.append(undo)

    def saw(self, registration: Registration, at: Millis) -> None:
        """The device is here, or was until now."""
        self.undo_by(partial(setattr, registration, "last_seen_at", registration.last_seen_at))
        registration.last_seen_at = at
        if not self._is_sound.is_set():
            # What is being loaded may not have it.
            self._seen_meanwhile[registration.registration_id] = at

    def enroll(self, registration: Registration) -> None:
        """A device that is being registered in this step."""
        self._devices.enroll(registration.device_no, self._tenant)
        self._undo.append(lambda: self._directory.remove(registration))
        self._directory.add(registration)


def _registration(row: contract.DeviceRow) -> Registration:
    return Registration(
        row.device_no, row.registration_id, row.platform, row.alias, row.binding, row.tags, row.last_seen_at
    )

"""Accepting a push: who gets it is decided once, and it enters every target's mailbox in the order of acceptance.

1. One push of an app is accepted at a time, wholly before or wholly after every change of an alias (C13). What is
   addressed by alias remembers the binding that made its device a target (C4).
2. It is one unit of work: the push, its targets, and whatever it made give way, become durable together (C2, C7).
3. With time to live 0, no `cid` and nothing to replace, nothing waits for the disk: it may be told and sent at once
   (C5).
4. A target that is no actor now is absent. With time to live 0 it is missed without being asked.
5. A target whose actor crashes over the newcomer keeps it: it waits, and nothing gives way for it.
6. A `cid` of the last day gets the first answer again; a concurrent duplicate waits for the first (C6).
7. What is held for its user goes to the devices that have the alias, as ever; of an alias that nobody has, the alias
   itself is the target (C25).
8. A large fan-out lets others have their turn between slices; an alias change that comes between finds its fence in the
   binding, which the mailbox judges.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import trio

from pushactors.actors.device import DeviceActor
from pushactors.actors.numbers import Numbers
from pushactors.actors.tally import Tally
from pushactors.actors.tenant import Tenant
from pushactors.actors.unit import Unit
from pushactors.domain.aliases import Registration
from pushactors.domain.audience import Audience
from pushactors.domain.effects import Returned
from pushactors.domain.entry import Entry
from pushactors.domain.message import Message, Verdict, expiry
from pushactors.errors import ActorCrashed, Busy, CidReused, NoTarget
from pushactors.stores.contract import CID_KEPT_DAYS, Accepted, CidRow, Store, TargetRow
from pushactors.stores.patience import patient
from pushactors.wire.ids import Alias, Binding, Cid, DeviceNo, Millis, MsgId, Platform, UnitNo

SLICE = 500
AT_ONCE = UnitNo(0)
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Push:
    """A push request, understood. `digest` is equal for equal pushes. `platforms` empty: all of them."""

    audience: Audience
    platforms: frozenset[Platform]
    time_to_live_s: int
    overrides: MsgId | None
    body: bytes
    sendno: int | None = None
    cid: Cid | None = None
    digest: bytes = b""
    deliver_within_s: int | None = None
    is_held: bool = False


@dataclass(frozen=True, slots=True)
class Acceptance:
    msg_id: MsgId
    sendno: int | None
    targets: int
    online: int
    is_durable_first: bool
    """Whether this may be told only when everything decided so far is durable."""


class Devices(Protocol):
    """Where the device actors are."""

    def at_rest(self, device_no: DeviceNo) -> DeviceActor | None: ...
    def get(self, device_no: DeviceNo, tenant: Tenant) -> DeviceActor: ...
    async def ready(self, device_nos: Iterable[DeviceNo], tenant: Tenant) -> Sequence[DeviceActor]: ...


class Held(Protocol):
    """Where the mailboxes of aliases are."""

    def of(self, alias: Alias, unit: Unit) -> Registration: ...
    def replace_older(self, alias: Alias, msg_id: MsgId, unit: Unit) -> None: ...


class Fanout:
    """Accepts the pushes of one app. `resolve` names an audience's devices, as they are in the turn in
    which it returns; `unheld` those of some aliases that nobody has. See the law on top."""

    def __init__(
        self,
        tenant: Tenant,
        resolve: Callable[[Audience, frozenset[Platform]], Awaitable[list[Registration]]],
        unheld: Callable[[Iterable[Alias]], list[Alias]],
        held: Held,
        devices: Devices,
        numbers: Numbers,
        store: Store,
        clock: Callable[[], Millis],
        tally: Tally,
    ) -> None:
        self._tenant = tenant
        self._resolve = resolve
        self._unheld = unheld
        self._held = held
        self._devices = devices
        self._numbers = numbers
        self._store = store
        self._clock = clock
        self._tally = tally
        self.turn = trio.StrictFIFOLock()
        """Whoever has it is not in the middle of a push of this app, nor is anybody else."""
        self._cids: dict[Cid, _Pending] = {}

    async def count_targets(self, push: Push) -> int:
        """How many targets the push would have. Raises `NoTarget`."""
        targets, unheld = await self._targets(push)
        return len(targets) + len(unheld)

    async def accept(self, push: Push) -> Acceptance:
        """Accepts a push. Raises `NoTarget`, `CidReused`, `Busy`; then nothing happened."""
        if push.cid is None:
            return await self._accept(push, None)
        while (first := self._cids.get(push.cid)) is not None:
            if first.digest != push.digest:
                raise _reused(push.cid)
            await first.done.wait()
            if first.acceptance is not None:
                return first.acceptance
        pending = self._cids[push.cid] = _Pending(push.digest)
        try:
            pending.acceptance = await self._remembered(push.cid, push.digest)
            if pending.acceptance is None:
                pending.acceptance = await self._accept(push, pending)
            else:
                del self._cids[push.cid]
        except BaseException:
            del self._cids[push.cid]
            raise
        finally:
            pending.done.set()
        return pending.acceptance

    async def _remembered(self, cid: Cid, digest: bytes) -> Acceptance | None:
        since = Millis(self._clock() - CID_KEPT_DAYS * DAY_MS)
        rows = await patient(lambda: self._store.cids(self._tenant.app_no, [cid], since))
        row = rows.get(cid)
        if row is None:
            return None
        if row.digest != digest:
            raise _reused(cid)
        self._tally.add("pushes", "repeated")
        return Acceptance(row.msg_id, row.sendno, row.targets, row.online, is_durable_first=True)

    async def _targets(self, push: Push) -> tuple[list[Registration], list[Alias]]:
        """The devices that it goes to, and the aliases that it waits for."""
        targets = await self._resolve(push.audience, push.platforms)
        unheld = self._unheld(push.audience.alias) if push.is_held else []
        if not targets and not unheld:
            raise NoTarget("The audience names no device of this app. Nothing was stored.")
        return targets, unheld

    async def _accept(self, push: Push, pending: _Pending | None) -> Acceptance:
        async with self.turn:
            targets, unheld = await self._targets(push)
            now = self._clock()
            msg_id = self._numbers.take()
            message = Message(msg_id, now, expiry(now, push.time_to_live_s), push.overrides, push.body)
            # What it replaces must be durable before it is told, so then it is, too (C3).
            flies = message.expires_at is None and push.cid is None and push.overrides is None
            unit = self._tenant.book.open()
            try:
                entering = _Entering(message, unit, AT_ONCE if flies else unit.number)
                online = sum(1 for target in targets if self._is_present(target))
                count = len(targets) + len(unheld)
                acceptance = Acceptance(msg_id, push.sendno, count, online, is_durable_first=not flies)
                places = self._places(push, targets, unheld, unit)
                self._book(push, pending, acceptance, entering)
                await self._enter_all(places, entering)
            finally:
                unit.close()
        self._tally.add("pushes", "accepted")
        return acceptance

    def _places(
        self, push: Push, targets: Sequence[Registration], unheld: Sequence[Alias], unit: Unit
    ) -> list[_Place]:
        """Where it goes, with bindings as they are now: a change may come between two slices."""
        by_alias = push.audience.is_by_alias
        places = [
            _Place(each.device_no, each.binding if by_alias else None, each.alias if push.is_held else None)
            for each in targets
        ]
        places += [_Place(self._held.of(alias, unit).device_no, None, alias) for alias in unheld]
        if push.is_held and push.overrides is not None:
            for alias in {target.alias for target in targets if target.alias is not None}:
                self._held.replace_older(alias, push.overrides, unit)
        return places

    def _book(self, push: Push, pending: _Pending | None, acceptance: Acceptance, entering: _Entering) -> None:
        message, unit, app_no, cid = entering.message, entering.unit, self._tenant.app_no, None
        if pending is not None and push.cid is not None:
            cid = CidRow(
                app_no,
                push.cid,
                push.digest,
                message.msg_id,
                push.sendno,
                acceptance.targets,
                acceptance.online,
                message.sent_at,
            )
            unit.then.append(partial(self._forget, push.cid))
        within_s = push.deliver_within_s
        deliver_by = None if within_s is None else Millis(message.sent_at + within_s * 1000)
        keep_body = message.expires_at is not None
        unit.changes.append(Accepted(app_no, message, keep_body, entering.outcomes, cid, deliver_by))
        unit.rows = acceptance.targets

    async def _enter_all(self, places: Sequence[_Place], entering: _Entering) -> None:
        with trio.CancelScope(shield=True):  # a push is accepted wholly, or not at all
            for number, place in enumerate(places, start=1):
                while not self._enter(place, entering):
                    with suppress(ActorCrashed):  # then the next one takes it
                        await self._devices.ready([place.device_no], self._tenant)
                if number % SLICE == 0:
                    await trio.lowlevel.checkpoint()

    def _is_present(self, target: Registration) -> bool:
        actor = self._devices.at_rest(target.device_no)
        return actor is not None and actor.visit is not None

    def _forget(self, cid: Cid) -> None:
        # The store remembers it from here on.
        del self._cids[cid]

    def _enter(self, place: _Place, entering: _Entering) -> bool:
        """False: its actor is being started, and has as much to do by then as it can keep."""
        actor = self._devices.at_rest(place.device_no)
        if actor is not None:
            self._enter_now(actor, place, entering)
        elif entering.message.expires_at is None:
            entering.outcomes.append(TargetRow(place.device_no, place.binding, Verdict.MISSED, place.held_for))
        else:
            return self._enter_later(place, entering)
        return True

    def _enter_now(self, actor: DeviceActor, place: _Place, entering: _Entering) -> None:
        try:
            is_fenced = entering.enter(actor, place)
        except ActorCrashed:
            entering.lost(actor, place)
            return
        if is_fenced and place.held_for is not None:
            self._have_it_wait(actor.device_no, place, entering)

    def _have_it_wait(self, device_no: DeviceNo, place: _Place, entering: _Entering) -> None:
        """Fenced by a change between two slices, it waits for its user: it comes to the device on disk, as was decided
        when the push was accepted, and goes on from there in a unit of its own."""
        entering.outcomes[-1] = TargetRow(device_no, place.binding, None, place.held_for)
        message = entering.message
        entry = Entry(
            message.msg_id,
            message.expires_at,
            message.overrides,
            place.binding,
            message.sent_at,
            message=message,
            held_for=place.held_for,
        )
        with self._tenant.book.decision() as unit:
            self._tenant.take_back(device_no, Returned(entry, was_sent=False), unit)

    def _enter_later(self, place: _Place, entering: _Entering) -> bool:
        """The device has work now: its actor is started, and takes the newcomer when it has its mailbox."""
        actor = self._devices.get(place.device_no, self._tenant)
        unit = entering.unit
        if actor.waits_for >= unit.number:
            # An earlier actor of this device decided something between two slices, and crashed: the next one begins
            # when that is durable, which waits for this push. So the push does not wait for the actor.
            entering.lost(actor, place)
            return True

        def enter() -> None:
            self._enter_now(actor, place, entering)
            unit.close()

        def lost() -> None:
            entering.lost(actor, place)
            unit.close()

        unit.expect()
        try:
            actor.inbox.post(enter, lost)
        except Busy:
            unit.close()
            return False
        return True


class _Place(NamedTuple):
    """A mailbox that the push enters: under which binding, and for which alias it waits if it may not wait there."""

    device_no: DeviceNo
    binding: Binding | None
    held_for: Alias | None


class _Entering:
    """One push on its way into its targets' mailboxes. Bindings are as they were at acceptance."""

    __slots__ = ("gate", "message", "outcomes", "unit")

    def __init__(self, message: Message, unit: Unit, gate: UnitNo) -> None:
        self.message = message
        self.unit = unit
        self.gate = gate
        self.outcomes: list[TargetRow] = []

    def enter(self, actor: DeviceActor, place: _Place) -> bool:
        """Whether it was fenced."""
        verdict = actor.deliver(self.message, place.binding, self.unit, self.gate, place.held_for)
        self.outcomes.append(TargetRow(actor.device_no, place.binding, verdict, place.held_for))
        return verdict is Verdict.FENCED

    def lost(self, actor: DeviceActor, place: _Place) -> None:
        waits = self.message.expires_at is not None and not actor.is_deleted
        verdict = None if waits else Verdict.MISSED
        self.outcomes.append(TargetRow(actor.device_no, place.binding, verdict, place.held_for))
        # The next actor of this device must find it in the store, and what was decided between two slices, too.
        actor.last_unit = max(actor.last_unit, self.unit.number)


class _Pending:
    """A push with a `cid` whose answer is not durable yet."""

    __slots__ = ("acceptance", "digest", "done")

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        self.acceptance: Acceptance | None = None
        self.done = trio.Event()


def _reused(cid: Cid) -> CidReused:
    return CidReused(f"The cid {cid!r} named a different push within the last day. Use a fresh one.")

"""What waits for users rather than for devices: the mailboxes of one app's aliases (C25).

1. An alias that messages wait for has a mailbox under the rules of every mailbox; its actor is like a device's, and no
   visit comes to it. It is made when something begins to wait, and removed when nothing does any more.
2. What a device may not be given any more comes back here, in the unit that took it away from there. If the mailbox
   cannot take it, the store can: its next actor finds it there.
3. A unit that is abandoned takes back what it has made here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

import trio

from pushactors.actors.mailbox import MailboxActor
from pushactors.actors.tenant import Tenant
from pushactors.actors.unit import Unit
from pushactors.domain.aliases import Registration
from pushactors.domain.effects import Returned
from pushactors.errors import Busy
from pushactors.stores import contract
from pushactors.stores.patience import patient
from pushactors.wire.ids import Alias, Binding, DeviceNo, Millis, MsgId, Platform, RegistrationId, UnitNo

LOADED_AT_ONCE = 10_000


class Devices(Protocol):
    """Where the actors are."""

    def enroll(self, device_no: DeviceNo, tenant: Tenant) -> MailboxActor: ...
    def get(self, device_no: DeviceNo, tenant: Tenant) -> MailboxActor: ...
    async def ready(self, device_nos: Iterable[DeviceNo], tenant: Tenant) -> Sequence[MailboxActor]: ...
    def rebuild(self, device_no: DeviceNo, why: str) -> None: ...


class AliasMailboxes:
    """See the law on top. Of one app."""

    def __init__(
        self,
        tenant: Tenant,
        store: contract.Store,
        devices: Devices,
        next_device_no: Callable[[], DeviceNo],
        clock: Callable[[], Millis],
    ) -> None:
        self._tenant = tenant
        self._store = store
        self._devices = devices
        self._next_device_no = next_device_no
        self._clock = clock
        self._mailboxes: dict[Alias, Registration] = {}
        self._wanted_in: dict[Alias, UnitNo] = {}
        """In which unit something last began to wait there."""
        self._looked_at = 0

    async def load(self) -> None:
        """Reads which there are: once, before anybody is answered. What changes here afterwards is taken back by the
        unit that it was for, so there is nothing to mend by reading it again."""
        after = DeviceNo(0)
        while True:
            rows = await patient(
                lambda last=after: self._store.alias_mailboxes(self._tenant.app_no, last, LOADED_AT_ONCE)  # type: ignore[misc]
            )
            for row in rows:
                assert row.alias is not None
                self._mailboxes[row.alias] = Registration(row.device_no, row.registration_id, row.platform, row.alias)
                after = row.device_no
            if len(rows) < LOADED_AT_ONCE:
                return

    def __len__(self) -> int:
        return len(self._mailboxes)

    def find(self, alias: Alias) -> Registration | None:
        """The mailbox of this alias, if there is one."""
        return self._mailboxes.get(alias)

    def of(self, alias: Alias, unit: Unit) -> Registration:
        """The mailbox of this alias, made in that unit if there is none."""
        self._wanted_in[alias] = unit.number
        found = self._mailboxes.get(alias)
        if found is not None:
            return found
        device_no = self._next_device_no()
        name = RegistrationId(f"alias {device_no}")  # no device can have it: ids have no spaces
        made = self._mailboxes[alias] = Registration(device_no, name, Platform.OTHER, alias)
        row = contract.DeviceRow(
            device_no, self._tenant.app_no, name, Platform.OTHER, alias, Binding(0), (), self._clock(), is_alias=True
        )
        # First of all: the same unit may have put something in already.
        unit.changes.insert(0, contract.Registered(row, None))
        actor = self._devices.enroll(device_no, self._tenant)
        actor.alias, actor.is_alias, actor.last_unit = alias, True, unit.number
        unit.undo.append(lambda: self._unmake(made))
        return made

    def _unmake(self, made: Registration) -> None:
        assert made.alias is not None
        if self._mailboxes.get(made.alias) is made:
            del self._mailboxes[made.alias]
            del self._wanted_in[made.alias]
        self._devices.rebuild(made.device_no, "What it was made for was abandoned.")

    # --- Coming back -------------------------------------------------------------------------------------------------

    def take_back(self, origin: DeviceNo, returned: Returned, unit: Unit) -> None:
        """A delivery leaves `origin`'s mailbox in that unit, and waits for its alias here."""
        assert returned.entry.held_for is not None
        mailbox = self.of(returned.entry.held_for, unit)
        actor = self._devices.get(mailbox.device_no, self._tenant)
        self._post(actor, unit, partial(self._readmit, actor, origin, returned, unit), partial(
            self._store_has_it, actor, origin, returned.entry.msg_id, unit
        ))

    @staticmethod
    def _readmit(actor: MailboxActor, origin: DeviceNo, returned: Returned, unit: Unit) -> None:
        if not unit.is_abandoned:
            actor.readmit(returned, origin, unit)

    def _store_has_it(self, actor: MailboxActor, origin: DeviceNo, msg_id: MsgId, unit: Unit) -> None:
        if not unit.is_abandoned:
            unit.changes.append(contract.Moved(msg_id, origin, actor.device_no, None, None, self._clock()))

    def replace_older(self, alias: Alias, msg_id: MsgId, unit: Unit) -> None:
        """A newer message to this alias, in that unit, takes the place of those here that are about `msg_id` (C7)."""
        mailbox = self.find(alias)
        if mailbox is not None:
            actor = self._devices.get(mailbox.device_no, self._tenant)
            self._post(actor, unit, partial(actor.replace_older, msg_id, unit), _nothing)

    def _post(
        self, actor: MailboxActor, unit: Unit, work: Callable[[], None], otherwise: Callable[[], None]
    ) -> None:
        """Has `work` done in that unit, now or when the actor has its state; `otherwise`, if that does not happen."""

        def done() -> None:
            work()
            unit.close()

        def lost() -> None:
            otherwise()
            # Its next actor must find in the store what this one was not told.
            actor.last_unit = max(actor.last_unit, unit.number)
            unit.close()

        unit.undo.append(lambda: self._devices.rebuild(actor.device_no, "What it was given was abandoned."))
        unit.expect()
        if actor.waits_for >= unit.number:
            # It begins when something is durable that waits for this unit: so this one cannot wait for it.
            lost()
            return
        try:
            actor.inbox.post(done, lost)
        except Busy:
            # Too much waits for it already. All of that is found by the next one.
            self._devices.rebuild(actor.device_no, "It is not ready, and has too much to do by then.")
            lost()

    # --- Going -------------------------------------------------------------------------------------------------------

    async def remove_empty(self, most: int) -> int:
        """Looks at the next `most` mailboxes, round and round, and removes those in which nothing waits; how many."""
        known = list(self._mailboxes.values())
        page = known[self._looked_at : self._looked_at + most]
        self._looked_at = self._looked_at + most if len(page) == most else 0
        removed = 0
        for mailbox in page:
            [actor] = await self._devices.ready([mailbox.device_no], self._tenant)
            alias = mailbox.alias
            assert alias is not None
            is_wanted = self._wanted_in.get(alias, UnitNo(0)) > self._tenant.book.durable
            if not actor.is_empty or is_wanted or self._mailboxes.get(alias) is not mailbox or not actor.inbox.is_open:
                continue
            del self._mailboxes[alias]
            self._wanted_in.pop(alias, None)
            with self._tenant.book.decision() as unit:
                actor.is_deleted = True
                actor.last_unit = unit.number
                unit.changes.append(contract.DeviceDeleted(mailbox.device_no, self._clock()))
            removed += 1
        await trio.lowlevel.checkpoint()
        return removed


def _nothing() -> None:
    """What was not replaced is older than what replaces it, and shown so: the device's own tray leaves it out (C23)."""

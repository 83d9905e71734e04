"""The registrar of one app: devices register, come back, leave, and are deleted.

1. A `connect` is one decision: recognising or registering the device, logging its user in, and opening its visit happen
   together or not at all (C11, C15). The router owns the table and keeps the step whole.
2. The same install key gets the same registration, and the same secret, again: a lost answer leaves no ghost.
3. A device that was not seen for `device_expiry_days` is deleted (C24). A present one is being seen.
4. It decides ahead of the disk; whoever asked is told when the app's book says that it is durable (C2).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import trio

from pushactors.actors.router import Permit, Router, TagChange
from pushactors.actors.tenant import Tenant
from pushactors.actors.unit import Unit
from pushactors.actors.visits import Visit
from pushactors.domain import credentials
from pushactors.domain.aliases import Registration
from pushactors.errors import ActorCrashed, InternalError, NoSuchDevice, Unauthorized
from pushactors.stores import contract
from pushactors.stores.patience import patient
from pushactors.wire.ids import Alias, Binding, DeviceNo, Millis, Platform, RegistrationId, Tag, VisitId

DAY_MS = 86_400_000
# A present device is written down as seen so many times within its expiry.
SEEN_AGAIN = 4


@dataclass(frozen=True, slots=True)
class Hello:
    """A `connect`, understood. None: not named, leave it as it is; `alias` "" clears, `tags` replaces all."""

    registration_id: RegistrationId | None = None
    device_secret: str | None = None
    install_key: str | None = None
    platform: Platform | None = None
    alias: Alias | None = None
    tags: tuple[Tag, ...] | None = None
    permit: Permit | None = None


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a device is told of itself; `device_secret` only if it registered, `waiting` deliveries come next."""

    registration_id: RegistrationId
    device_no: DeviceNo
    platform: Platform
    alias: Alias | None
    tags: tuple[Tag, ...]
    device_secret: str | None
    waiting: int


class Registrar:
    """See the law on top."""

    def __init__(
        self,
        tenant: Tenant,
        router: Router,
        store: contract.Store,
        secret: bytes,
        next_device_no: Callable[[], DeviceNo],
        randomness: Callable[[int], bytes],
        clock: Callable[[], Millis],
    ) -> None:
        """`secret`: the store's, from which device secrets are derived. `randomness(n)`: n unpredictable bytes."""
        self._tenant = tenant
        self._router = router
        self._store = store
        self._secret = secret
        self._next_device_no = next_device_no
        self._randomness = randomness
        self._clock = clock
        self._installing = trio.StrictFIFOLock()
        self._installed: dict[bytes, RegistrationId] = {}
        self._looked_at: RegistrationId | None = None

    # --- Coming ------------------------------------------------------------------------------------------------------

    async def connect(self, hello: Hello, visit: Visit) -> Welcome:
        """Registers or recognises a device, logs its user in, and opens its visit: all of it or nothing (C11, C15).

        The device must be told, and then resumed, once that is durable. Raises `NoSuchDevice`, `Unauthorized`,
        `AliasFull`, `InternalError`; a `permit` that is needed and is not good is `Unauthorized` as well (C17).
        """
        await self._router.sound()
        if hello.registration_id is not None:
            self._router.find(hello.registration_id)
            if not credentials.is_same(hello.device_secret or "", self._device_secret(hello.registration_id)):
                raise Unauthorized("The device_secret is not that of this registration_id.")
            return await self._arrive(hello, visit, hello.registration_id)
        if hello.install_key is None:
            return await self._arrive(hello, visit, None)
        digest = credentials.install_digest(self._tenant.app_key, hello.install_key)
        async with self._installing:
            installed = await self._find_installed(digest)
            if installed is None:
                return await self._arrive(hello, visit, None, digest)
        return await self._arrive(hello, visit, installed)

    async def _find_installed(self, digest: bytes) -> RegistrationId | None:
        found = self._installed.get(digest)
        if found is None:
            found = await patient(lambda: self._store.installed(self._tenant.app_no, digest))
        await self._router.sound()
        # Deleted, and that is not durable yet: its key is free again.
        return found if found is not None and self._router.directory.find(found) is not None else None

    async def _arrive(
        self, hello: Hello, visit: Visit, registration_id: RegistrationId | None, install: bytes | None = None
    ) -> Welcome:
        router = self._router

        def find() -> Registration | None:
            return router.find(registration_id) if registration_id is not None else None

        def touches() -> list[Registration]:
            known = find()
            loses = router.who_loses(hello.alias, known) if hello.alias else None
            return [each for each in (known, loses) if each is not None]

        # Before anything else is told of the alias, such as that it is full; and once more, because while the device is
        # brought to rest its alias may become another.
        router.check_permit(registration_id, hello.alias, hello.permit)
        free = await router.ready_to_bind(touches, hello.alias, find)
        router.check_permit(registration_id, hello.alias, hello.permit)
        touched = [*touches(), *router.waiting_for(hello.alias)]
        known = find()
        with router.step(touched) as unit:
            if known is None:
                registration = self._register(hello, install, unit)
                touched.append(registration)
            else:
                registration = known
            if hello.platform is not None and hello.platform != registration.platform:
                router.undo_by(partial(setattr, registration, "platform", registration.platform))
                registration.platform = hello.platform
                unit.changes.append(contract.PlatformChanged(registration.device_no, hello.platform))
            router.bind(registration, hello.alias, unit, by_device=True, free=free)
            if hello.tags is not None:
                router.retag(registration, TagChange(hello.tags, replace=True), unit)
            router.saw(registration, self._clock())
            waiting = router.device(registration).arrive(visit, unit)
        if install is not None:
            # The store finds it as soon as it is durable; until then, this does.
            self._installed[install] = registration.registration_id
        is_registering = hello.registration_id is None
        return Welcome(
            registration.registration_id,
            registration.device_no,
            registration.platform,
            registration.alias,
            registration.tags,
            self._device_secret(registration.registration_id) if is_registering else None,
            waiting,
        )

    def _register(self, hello: Hello, install: bytes | None, unit: Unit) -> Registration:
        registration = Registration(
            self._next_device_no(),
            credentials.registration_id(self._randomness(credentials.REGISTRATION_ID_BYTES)),
            hello.platform or Platform.OTHER,
        )
        unit.changes.append(
            contract.Registered(
                contract.DeviceRow(
                    registration.device_no,
                    self._tenant.app_no,
                    registration.registration_id,
                    registration.platform,
                    alias=None,
                    binding=Binding(0),
                    tags=(),
                    last_seen_at=self._clock(),
                ),
                install,
            )
        )
        self._router.enroll(registration)
        if install is not None:
            unit.then.append(lambda: self._forget_install(install, registration.registration_id))
        return registration

    def _forget_install(self, install: bytes, registration_id: RegistrationId) -> None:
        if self._installed.get(install) == registration_id:
            del self._installed[install]

    # --- Going -------------------------------------------------------------------------------------------------------

    def leave(self, registration_id: RegistrationId, visit_id: VisitId) -> None:
        """The end of a visit; of one that was displaced before, or whose device is gone, nothing."""
        registration = self._router.directory.find(registration_id)
        device = self._router.present(registration) if registration is not None else None
        if registration is None or device is None:
            return
        with suppress(ActorCrashed), self._router.step([registration]) as unit:
            if device.leave(visit_id, unit):
                self._router.saw(registration, self._clock())

    async def delete(self, registration_id: RegistrationId, visit_id: VisitId | None = None) -> None:
        """The device is no longer one of this app: its mailbox is settled, its visit ends. `visit_id`: the visit that
        asks, if it is the device itself.

        Raises `NoSuchDevice`, `VisitEnded`.
        """

        def is_still_due(registration: Registration) -> bool:
            self._router.check_visit(registration, visit_id)
            return True

        await self._delete(registration_id, is_still_due)

    async def _delete(self, registration_id: RegistrationId, is_still_due: Callable[[Registration], bool]) -> bool:
        router = self._router
        await router.bring_to_rest(lambda: [router.find(registration_id)])
        registration = router.find(registration_id)
        if not is_still_due(registration):
            return False
        with router.step([registration]) as unit:
            router.device(registration).delete(unit)
            unit.changes.append(contract.DeviceDeleted(registration.device_no, self._clock()))
            router.directory.remove(registration)
        return True

    async def delete_unseen(self, most: int) -> int:
        """Looks at the next `most` devices, in order of their ids and round again, and deletes those that have expired
        (law 3); how many."""
        await self._router.sound()
        page = self._router.directory.page(self._looked_at, most)
        self._looked_at = page[-1].registration_id if len(page) == most else None
        self._see_present(page)
        deleted = 0
        for registration_id in [each.registration_id for each in page if self._is_expired(each)]:
            # One that fails over it is logged where it fails, and is looked at again in the next round.
            with suppress(NoSuchDevice, InternalError):
                deleted += await self._delete(registration_id, self._is_expired)
        return deleted

    def _is_expired(self, registration: Registration) -> bool:
        return self._unseen_ms(registration) > self._expiry_ms() and not self._router.is_present(registration)

    def _see_present(self, page: list[Registration]) -> None:
        """Writes down now and then that those who stay are being seen: a kill must not make them look long absent."""
        stale_ms = self._expiry_ms() / SEEN_AGAIN
        stale = [each for each in page if self._router.is_present(each) and self._unseen_ms(each) > stale_ms]
        if stale:
            with self._router.step([]) as unit:
                for each in stale:
                    self._see(each, unit)

    def _unseen_ms(self, registration: Registration) -> int:
        return self._clock() - registration.last_seen_at

    def _expiry_ms(self) -> int:
        return self._tenant.limits.device_expiry_days * DAY_MS

    def _see(self, registration: Registration, unit: Unit) -> None:
        self._router.saw(registration, self._clock())
        unit.changes.append(contract.Seen(registration.device_no, registration.last_seen_at))

    def _device_secret(self, registration_id: RegistrationId) -> str:
        return credentials.device_secret(self._secret, self._tenant.app_key, registration_id)

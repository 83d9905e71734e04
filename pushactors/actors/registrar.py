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

import trio

from pushactors.actors.router import Router, TagChange
from pushactors.actors.tenant import Tenant
from pushactors.actors.unit import Unit
from pushactors.actors.visits import Visit
from pushactors.domain import credentials
from pushactors.domain.aliases import Registration
from pushactors.errors import ActorCrashed, NoSuchDevice, Unauthorized
from pushactors.stores import contract
from pushactors.stores.patience import patient
from pushactors.wire.ids import Alias, Binding, DeviceNo, Millis, Platform, RegistrationId, Tag, VisitId

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Hello:
    """A `connect`, understood. None: not named, leave it as it is; `alias` "" clears, `tags` replaces all."""

    registration_id: RegistrationId | None = None
    device_secret: str | None = None
    install_key: str | None = None
    platform: Platform | None = None
    alias: Alias | None = None
    tags: tuple[Tag, ...] | None = None


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
        self._installed: dict[bytes, Registration] = {}
        self._looked_at: RegistrationId | None = None

    # --- Coming ------------------------------------------------------------------------------------------------------

    async def connect(self, hello: Hello, visit: Visit) -> Welcome:
        """Registers or recognises a device, logs its user in, and opens its visit: all of it or nothing (C11, C15).

        The device must be told, and then resumed, once that is durable. Raises `NoSuchDevice`, `Unauthorized`,
        `AliasFull`, `InternalError`.
        """
        await self._router.sound()
        if hello.registration_id is not None:
            known = self._router.find(hello.registration_id)
            if not credentials.is_same(hello.device_secret or "", self._device_secret(known)):
                raise Unauthorized("The device_secret is not that of this registration_id.")
            return await self._arrive(hello, visit, known)
        if hello.install_key is None:
            return await self._arrive(hello, visit, None)
        digest = credentials.install_digest(self._tenant.app_key, hello.install_key)
        async with self._installing:
            installed = await self._find_installed(digest)
            if installed is None:
                return await self._arrive(hello, visit, None, digest)
        return await self._arrive(hello, visit, installed)

    async def _find_installed(self, digest: bytes) -> Registration | None:
        if digest in self._installed:
            return self._installed[digest]
        registration_id = await patient(lambda: self._store.installed(self._tenant.app_no, digest))
        return None if registration_id is None else self._router.directory.find(registration_id)

    async def _arrive(
        self, hello: Hello, visit: Visit, known: Registration | None, install: bytes | None = None
    ) -> Welcome:
        router = self._router

        def loser() -> Registration | None:
            return router.who_loses(hello.alias, known) if hello.alias else None

        await router.bring_to_rest(lambda: [each for each in (known, loser()) if each is not None])
        if known is not None and router.find(known.registration_id) is not known:
            raise NoSuchDevice("This device was deleted: register anew.")
        touched = [each for each in (known, loser()) if each is not None]
        with router.step(touched) as unit:
            if known is None:
                registration = self._register(hello, install, unit)
                touched.append(registration)
            else:
                registration = known
            if hello.platform is not None and hello.platform != registration.platform:
                registration.platform = hello.platform
                unit.changes.append(contract.PlatformChanged(registration.device_no, hello.platform))
            router.bind(registration, hello.alias, unit, by_device=True)
            if hello.tags is not None:
                router.retag(registration, TagChange(hello.tags, replace=True), unit)
            self._see(registration, unit)
            waiting = router.device(registration).arrive(visit, unit)
        is_registering = hello.registration_id is None
        return Welcome(
            registration.registration_id,
            registration.device_no,
            registration.platform,
            registration.alias,
            registration.tags,
            self._device_secret(registration) if is_registering else None,
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
            # The store finds it as soon as it is durable; until then, this does.
            self._installed[install] = registration
            unit.then.append(lambda: self._forget_install(install))
        return registration

    def _forget_install(self, install: bytes) -> None:
        self._installed.pop(install, None)

    # --- Going -------------------------------------------------------------------------------------------------------

    def leave(self, registration_id: RegistrationId, visit_id: VisitId) -> None:
        """The end of a visit; of one that was displaced before, or whose device is gone, nothing."""
        registration = self._router.directory.find(registration_id)
        device = self._router.present(registration) if registration is not None else None
        if registration is None or device is None:
            return
        with suppress(ActorCrashed), self._router.step([registration]) as unit:
            if device.leave(visit_id, unit):
                self._see(registration, unit)

    async def delete(self, registration_id: RegistrationId) -> None:
        """The device is no longer one of this app: its mailbox is settled, its visit ends. Raises `NoSuchDevice`."""
        router = self._router
        await router.bring_to_rest(lambda: [router.find(registration_id)])
        registration = router.find(registration_id)
        with router.step([registration]) as unit:
            router.device(registration).delete(unit)
            unit.changes.append(contract.DeviceDeleted(registration.device_no, self._clock()))
            router.directory.remove(registration)

    async def delete_unseen(self, most: int) -> int:
        """Looks at the next `most` devices, in order of their ids and round again, and deletes those that have expired
        (law 3); how many."""
        await self._router.sound()
        page = self._router.directory.page(self._looked_at, most)
        self._looked_at = page[-1].registration_id if len(page) == most else None
        seen_before = self._clock() - self._tenant.limits.device_expiry_days * DAY_MS
        expired = [each for each in page if each.last_seen_at < seen_before and not self._router.is_present(each)]
        for each in expired:
            with suppress(NoSuchDevice):
                await self.delete(each.registration_id)
        return len(expired)

    def _see(self, registration: Registration, unit: Unit) -> None:
        registration.last_seen_at = self._clock()
        unit.changes.append(contract.Seen(registration.device_no, registration.last_seen_at))

    def _device_secret(self, registration: Registration) -> str:
        return credentials.device_secret(self._secret, self._tenant.app_key, registration.registration_id)

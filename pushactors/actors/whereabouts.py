"""Who is registered with one app, where each device is, and what waits for an alias: the router's eyes.

1. What is read here must not be told before the app's book says so (C2); it is true in the turn in which it is read.
2. While the directory is loaded again, whoever asks waits (`sound`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

import trio

from pushactors.actors.tenant import Tenant
from pushactors.actors.unit import Unit
from pushactors.actors.visits import Visit
from pushactors.domain.aliases import Directory, Registration
from pushactors.domain.audience import Audience
from pushactors.domain.entry import Entry
from pushactors.errors import InternalError, NoSuchDevice
from pushactors.wire.ids import Alias, Binding, DeviceNo, Millis, MsgId, Platform, RegistrationId, VisitId


class Device(Protocol):
    """What is seen here of a device's actor. Each call is done whole, or raises `ActorCrashed`."""

    def arrive(self, visit: Visit, unit: Unit) -> int: ...
    def leave(self, visit_id: VisitId, unit: Unit) -> bool: ...
    def rebind(self, alias: Alias | None, binding: Binding, unit: Unit, by_device: bool) -> None: ...
    def delete(self, unit: Unit) -> None: ...
    def contents(self) -> list[tuple[MsgId, bool, Millis]]: ...
    def release(self, free: Collection[MsgId] | None, unit: Unit) -> list[Entry]: ...
    def admit(self, entries: Sequence[Entry], places: Sequence[int], origin: DeviceNo, unit: Unit) -> None: ...


class Held(Protocol):
    """Where the mailboxes of aliases are."""

    def find(self, alias: Alias) -> Registration | None: ...


class Devices(Protocol):
    """Where the device actors are."""

    def at_rest(self, device_no: DeviceNo) -> Device | None: ...
    def enroll(self, device_no: DeviceNo, tenant: Tenant) -> Device: ...
    async def ready(self, device_nos: Iterable[DeviceNo], tenant: Tenant) -> Sequence[Device]: ...
    def is_present(self, device_no: DeviceNo) -> bool: ...
    def visit_id(self, device_no: DeviceNo) -> VisitId | None: ...
    def rebuild(self, device_no: DeviceNo, why: str) -> None: ...


class Whereabouts:
    """See the law on top."""

    def __init__(self, tenant: Tenant, devices: Devices, held: Held) -> None:
        self._tenant = tenant
        self._devices = devices
        self._held = held
        self._directory = Directory()
        self._is_sound = trio.Event()

    async def sound(self) -> None:
        """Returns when the directory can be trusted, in such a turn."""
        while not self._is_sound.is_set():
            await self._is_sound.wait()

    async def bring_to_rest(self, touched: Callable[[], Iterable[Registration]]) -> None:
        """Returns in a turn in which the directory is sound and every device that is touched is at rest."""
        while True:
            await self.sound()
            away = [each.device_no for each in touched() if self._devices.at_rest(each.device_no) is None]
            if not away:
                return
            await self._devices.ready(away, self._tenant)

    @property
    def directory(self) -> Directory:
        """What is read of it must not be told before the book says so. Changed by steps only."""
        return self._directory

    def find(self, registration_id: RegistrationId) -> Registration:
        """Raises `NoSuchDevice`."""
        registration = self._directory.find(registration_id)
        if registration is None:
            raise NoSuchDevice("This app has no device with this registration_id: register anew.")
        return registration

    def unheld(self, aliases: Iterable[Alias]) -> list[Alias]:
        """Those of them that no device has, each once."""
        return [alias for alias in dict.fromkeys(aliases) if not self._directory.holders(alias)]

    async def targets(self, audience: Audience, platforms: frozenset[Platform]) -> list[Registration]:
        """Who is named by `audience`, in the turn in which this returns."""
        await self.sound()
        return audience.targets(self._directory, platforms)

    def present(self, registration: Registration) -> Device | None:
        """The device's actor, if it is here."""
        return self._devices.at_rest(registration.device_no)

    def is_present(self, registration: Registration) -> bool:
        return self._devices.is_present(registration.device_no)

    async def mailbox(self, registration_id: RegistrationId) -> list[tuple[MsgId, bool, Millis]]:
        """What is unsettled for this device, in order: (msg_id, whether it is sent, since when).

        Raises `NoSuchDevice`.
        """
        await self.bring_to_rest(lambda: [self.find(registration_id)])
        return self.device(self.find(registration_id)).contents()

    def device(self, registration: Registration) -> Device:
        """The actor of a device that was brought to rest."""
        device = self._devices.at_rest(registration.device_no)
        if device is None:
            raise InternalError("A device was not at rest when a decision needed it.")
        return device

    def waiting_for(self, alias: Alias | None) -> list[Registration]:
        """The mailbox of what waits for that alias, if there is one."""
        mailbox = self._held.find(alias) if alias else None
        return [] if mailbox is None else [mailbox]

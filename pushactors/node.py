"""The node: builds the rooms, opens and closes them in order. The only file that knows them all.

1. Opened in this order: store, operations, ledger, what the last run left unfinished, device actors, the apps'
   directories, doors. Nobody is let in before everything behind the door stands.
2. Closed in the other order: no new visits, visits end with a word of when to come back, what is decided becomes
   durable, the store is let go (`stop`).
3. What falls: the store's failure, and whatever starting again three times in a minute does not mend. Then the process
   ends, and starts again from what is on disk.
4. Apps come, go and change while it runs (`serve_apps`); nobody else notices.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import trio

from pushactors.actors.fanout import Fanout
from pushactors.actors.held import AliasMailboxes
from pushactors.actors.ledger import Ledger
from pushactors.actors.numbers import Numbers
from pushactors.actors.recall import Recalls
from pushactors.actors.receipts import Receipts
from pushactors.actors.registrar import Registrar
from pushactors.actors.router import Router
from pushactors.actors.supervisor import Supervisor
from pushactors.actors.tally import Tally
from pushactors.actors.tenant import Limits, Tenant
from pushactors.actors.unit import Book
from pushactors.actors.upkeep import Served, Upkeep
from pushactors.actors.visits import Ending
from pushactors.actors.wire_count import WireCount
from pushactors.edges.apps import AppEndpoint
from pushactors.edges.devices import DeviceEndpoint, DeviceLimits
from pushactors.edges.house import App, Apps
from pushactors.edges.listener import Listener, bind
from pushactors.edges.ops import Operations
from pushactors.edges.pulse import Pulse
from pushactors.edges.rates import Rates
from pushactors.edges.stream import Flusher, Stream
from pushactors.errors import StoreFailure
from pushactors.stores.contract import AppAdded, Opened, Settled, Store
from pushactors.stores.patience import patient
from pushactors.wire.ids import AppKey, AppNo, DeviceNo, Millis, VisitNo

__all__ = ["AppPlan", "DeviceLimits", "DoorPlan", "Limits", "Node", "NodePlan", "bind", "wall_clock"]

log = logging.getLogger(__name__)

OF_NO_APP = AppNo(0)
UNFINISHED_AT_ONCE = 10_000
STARTS_AGAIN = 3
STARTS_AGAIN_WITHIN_S = 60.0
LOOKS_PER_HEARTBEAT = 4
LAST_COMMITS_S = 5.0


def wall_clock() -> Millis:
    return Millis(time.time_ns() // 1_000_000)


@dataclass(frozen=True, slots=True)
class AppPlan:
    """One app as it is to be served. `secrets`: those that are valid; rates in events a second, 0: no limit."""

    app_key: AppKey
    secrets: tuple[str, ...]
    limits: Limits
    requests_per_s: int = 0
    pushes_per_s: int = 0


@dataclass(frozen=True, slots=True)
class DoorPlan:
    """A listening socket, and who may come in how often."""

    listening: socket.socket
    max_connections: int
    max_per_address: int
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class NodePlan:
    devices: DoorPlan
    apps: DoorPlan
    operations: DoorPlan
    device_limits: DeviceLimits
    registrations_burst: int = 5_000
    registrations_per_s: int = 10
    drain_s: float = 5.0


class Node:
    """See the law on top. `store` is opened and closed here."""

    def __init__(
        self,
        store: Store,
        plan: NodePlan,
        clock: Callable[[], Millis],
        randomness: Callable[[int], bytes],
    ) -> None:
        """`randomness(n)`: n bytes that nobody can guess."""
        self.tally = Tally()
        self.is_ready = False
        self._store = store
        self._plan = plan
        self._clock = clock
        self._randomness = randomness
        self._apps = Apps()
        self._left: dict[AppKey, App] = {}
        self._app_nos: dict[AppKey, AppNo] = {}
        self._secret = b""
        self._on_the_wire = WireCount()
        self._devices = Supervisor(store, self._on_the_wire, clock, self.tally)
        self._upkeep = Upkeep(store, self._devices, self._tenants, clock, self.tally)
        self._flusher = Flusher()
        limits = plan.device_limits
        self._pulse = Pulse(limits.heartbeat_s / LOOKS_PER_HEARTBEAT)
        registrations = Rates("registrations from this address", plan.registrations_per_s, plan.registrations_burst)
        self._device_endpoint = DeviceEndpoint(self._apps, limits, self._pulse, registrations, clock, self.tally)
        self._app_endpoint = AppEndpoint(
            self._apps, limits.connect_timeout_s, limits.heartbeat_s, self._pulse, clock, self.tally
        )
        self._operations = Operations(self.tally, lambda: self.is_ready, self._now)
        self._listeners: list[Listener] = []
        """The doors that `stop` closes; operators can look until the end."""
        self._scope = trio.CancelScope()
        self._tasks: trio.Nursery
        self._ledger: Ledger
        self._numbers: Numbers
        self._device_nos: count[int]

    # --- Running -----------------------------------------------------------------------------------------------------

    async def run(
        self, apps: Sequence[AppPlan], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serves until `stop`. Started when every door is open. Raises `StoreFailure` when the store cannot be used."""
        opened = await self._store.open()
        try:
            with self._scope:
                async with trio.open_nursery() as self._tasks:
                    await self._open(opened, apps)
                    self.is_ready = True
                    task_status.started()
        finally:
            self.is_ready = False
            with trio.CancelScope(shield=True):
                await self._store.aclose()

    async def stop(self) -> None:
        """Drains, and ends `run` (law 2)."""
        self.is_ready = False
        for listener in self._listeners:
            listener.close()
        with trio.move_on_after(self._plan.drain_s + 5):
            await self._device_endpoint.drain(self._plan.drain_s)
            await self._app_endpoint.stop()
        with trio.move_on_after(LAST_COMMITS_S):  # else the store hangs: nobody is told anything any more
            for app in self._apps.all():
                await app.tenant.book.told()
        self._scope.cancel()

    async def _open(self, opened: Opened, apps: Sequence[AppPlan]) -> None:
        self._app_nos = dict(opened.apps)
        self._secret = opened.secret
        self._device_nos = count(opened.last_device_no + 1)
        self._ledger = Ledger(self._store, opened.last_commit, self._on_the_wire, self._clock, self.tally)
        # First of all somebody who can be asked how far it is.
        self._tasks.start_soon(self._flusher.run)
        self._listen(self._plan.operations, self._operations.serve)
        self._tasks.start_soon(self._again, "ledger", self._ledger.run)
        await self._finish()
        self._numbers = Numbers(opened.ids_below, self._book)
        await self._numbers.reserve()
        self._tasks.start_soon(self._devices.run)
        await self.serve_apps(apps)
        self._tasks.start_soon(self._upkeep.run)
        self._tasks.start_soon(self._pulse.run)
        self._listeners = [
            self._listen(self._plan.devices, self._device_endpoint.serve),
            self._listen(self._plan.apps, self._app_endpoint.serve),
        ]

    def _listen(self, door: DoorPlan, serve: Callable[[Stream], Awaitable[None]]) -> Listener:
        listener = Listener(
            door.listening,
            serve,
            self._flusher,
            door.max_connections,
            door.max_per_address,
            self._plan.device_limits.connect_timeout_s,
            door.tls,
            self.tally,
        )
        self._tasks.start_soon(listener.run)
        return listener

    @property
    def _book(self) -> Book:
        return self._ledger.book(OF_NO_APP)

    async def _finish(self) -> None:
        """Gives the deliveries that the last run's end has ended their verdicts (C3, C5)."""
        while ended := await patient(lambda: self._store.unfinished(UNFINISHED_AT_ONCE)):
            unit = self._book.open()
            now = self._clock()
            # Each was on a visit, and may have been sent there.
            unit.changes += [
                Settled(msg_id, device_no, verdict, now, VisitNo(0), now) for msg_id, device_no, verdict in ended
            ]
            unit.close()
            await self._book.told()

    async def _again(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Runs an actor, and again when it fails; a store's failure, or one failure too many, is the node's (law 3)."""
        failures: deque[float] = deque()
        while True:
            try:
                await run()
            except StoreFailure:
                raise
            except Exception:  # a fault of ours: the actor starts again with what it has; too often, the node falls
                log.exception("The %s failed.", name)
                self.tally.add("faults", name)
                failures.append(trio.current_time())
                if len(failures) > STARTS_AGAIN and failures[-1 - STARTS_AGAIN] > failures[-1] - STARTS_AGAIN_WITHIN_S:
                    raise

    # --- Apps --------------------------------------------------------------------------------------------------------

    async def serve_apps(self, plans: Sequence[AppPlan]) -> None:
        """Serves these apps from now on: new ones are opened, changed ones changed in place, others let go."""
        wanted = {plan.app_key for plan in plans}
        for app in self._apps.all():
            if app.tenant.app_key not in wanted:
                self._apps.remove(app.tenant.app_key)
                # Its rooms stay as they are: its actors may have work, and it may be served again.
                self._left[app.tenant.app_key] = app
                self._device_endpoint.end_all(app, Ending.UNAUTHORIZED)
                self._app_endpoint.end_all(app, Ending.UNAUTHORIZED)
                log.info("App %s is no longer served.", app.tenant.app_key)
        for plan in plans:
            served = self._apps.find(plan.app_key)
            if served is None and plan.app_key in self._left:
                served = self._left.pop(plan.app_key)
                self._apps.put(served)
                self._upkeep.look_back()
            if served is None:
                await self._open_app(plan)
            else:
                served.secrets = plan.secrets
                served.tenant.limits = plan.limits
                served.requests.change(plan.requests_per_s)
                served.pushes.change(plan.pushes_per_s)

    async def _open_app(self, plan: AppPlan) -> None:
        app_no = self._app_nos.get(plan.app_key)
        if app_no is None:
            app_no = self._app_nos[plan.app_key] = AppNo(max(self._app_nos.values(), default=0) + 1)
            unit = self._book.open()
            unit.changes.append(AppAdded(app_no, plan.app_key))
            unit.close()
        await self._book.told()
        tenant = Tenant(plan.app_key, app_no, plan.limits, self._ledger.book(app_no))
        held = AliasMailboxes(tenant, self._store, self._devices, self._next_device_no, self._clock)
        tenant.take_back = held.take_back
        router = Router(tenant, self._store, self._devices, held, self._numbers.take, self.tally)
        receipts = Receipts(tenant, self._store)
        await tenant.book.told()
        await receipts.load()
        await held.load()
        await router.load()
        self._tasks.start_soon(router.run)
        registrar = Registrar(
            tenant,
            router,
            self._store,
            self._secret,
            self._next_device_no,
            self._randomness,
            self._clock,
        )
        fanout = Fanout(
            tenant,
            router.targets,
            router.unheld,
            held,
            self._devices,
            self._numbers,
            self._store,
            self._clock,
            self.tally,
        )
        self._apps.put(
            App(
                tenant=tenant,
                router=router,
                registrar=registrar,
                fanout=fanout,
                recalls=Recalls(tenant, self._devices, self._store, self._ledger, fanout.turn, self._clock),
                receipts=receipts,
                held=held,
                ledger=self._ledger,
                store=self._store,
                device=self._devices.at_rest,
                secrets=plan.secrets,
                clock=self._clock,
                requests=Rates("requests of this app", plan.requests_per_s, plan.requests_per_s),
                pushes=Rates("pushes of this app", plan.pushes_per_s, plan.pushes_per_s),
            )
        )
        self._upkeep.look_back()
        # What a crash left on devices, and what is to wait for its user: an actor that begins gives it back.
        for device_no in await patient(lambda: self._store.stranded(app_no)):
            self._devices.get(device_no, tenant)
        log.info("App %s is served: %d devices registered.", plan.app_key, len(router.directory))

    def _next_device_no(self) -> DeviceNo:
        return DeviceNo(next(self._device_nos))

    def _tenants(self) -> Mapping[AppNo, Served]:
        return {app.tenant.app_no: Served(app.tenant, app.registrar, app.held) for app in self._apps.all()}

    # --- Looking -----------------------------------------------------------------------------------------------------

    def _now(self) -> Mapping[str, int]:
        return {
            "visits": len(self._device_endpoint),
            "app_sessions": len(self._app_endpoint),
            "device_actors": len(self._devices),
            "registered_devices": sum(len(app.router.directory) for app in self._apps.all()),
        }

"""`pushactors serve`: from a configuration to a running node, and what signals do to it.

1. Without a configuration file one is written, with one app and fresh credentials, and its owner is told how to use
   them. With `--config` that file must be there.
2. SIGHUP reads the apps again, once the node is open; a file that cannot be used changes nothing. SIGTERM and SIGINT
   drain and end with 0; a second one ends at once.
3. A configuration, a port or a store that cannot be used ends it with 2 before anybody is let in; a store that fails
   later ends it with 1.
"""

from __future__ import annotations

import logging
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import trio

from pushactors import config
from pushactors.cli.logs import set_up_logging
from pushactors.errors import ConfigurationError, StoreFailure
from pushactors.node import AppPlan, DeviceLimits, DoorPlan, Limits, Node, NodePlan, bind, wall_clock
from pushactors.settings import AliasTokens, App, Configuration, StoreKind, parse_address
from pushactors.stores.contract import RECEIPT_BYTES, Store
from pushactors.stores.memory import MemoryStore
from pushactors.stores.sqlite import SqliteStore

log = logging.getLogger(__name__)

SHORT_SECRET = 16
OPERATORS_AT_ONCE = 256


def serve(path: Path, must_be_there: bool) -> int:
    """Runs the node until it is told to stop; the exit code."""
    try:
        configuration = load_or_write(path, must_be_there)
        set_up_logging(configuration.log.level, configuration.log.format)
        plan = node_plan(configuration)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 2
    return trio.run(_serve, path, configuration, plan)


def load_or_write(path: Path, must_be_there: bool) -> Configuration:
    """The configuration at `path`, written if it is not there. Raises `ConfigurationError`."""
    if path.exists() or must_be_there:
        return config.load(path)
    configuration = config.write_default(path)
    app = configuration.app[0]
    print(
        f"""\
There was no configuration, so {path} was written, with one app and fresh credentials:
  app_key        {app.app_key}   (goes into your app; devices connect with it)
  master_secret  is in the file  (stays on your app servers; they connect with app_key:master_secret)
Devices connect to     ws://{configuration.listen.devices}/device
App servers connect to ws://{configuration.listen.apps}/app
In a second terminal, here:  pushactors device --alias alice
In a third terminal, here:   pushactors push --alias alice "Hello"
""",
        file=sys.stderr,
        flush=True,
    )
    return configuration


def node_plan(configuration: Configuration) -> NodePlan:
    """What the node is to do; its doors are open afterwards. Raises `ConfigurationError`."""
    devices, listen, tls = configuration.devices, configuration.listen, configuration.tls
    context = tls.context() if tls is not None else None
    most, per_address = devices.max_connections, devices.max_connections_per_address
    with ExitStack() as opened:

        def door(address: str, name: str, connections: int, per_address: int, is_tls: bool) -> DoorPlan:
            parsed = parse_address(address)
            assert parsed is not None, "addresses were judged when they were loaded"
            listening = bind(parsed.host, parsed.port, name)
            opened.callback(listening.close)
            return DoorPlan(listening, connections, per_address, context if is_tls else None)

        plan = NodePlan(
            devices=door(listen.devices, "devices", most, per_address, tls is not None and tls.devices),
            apps=door(listen.apps, "apps", most, per_address, tls is not None and tls.apps),
            operations=door(listen.operations, "operations", OPERATORS_AT_ONCE, OPERATORS_AT_ONCE, is_tls=False),
            device_limits=DeviceLimits(
                connect_timeout_s=devices.connect_timeout_s,
                heartbeat_s=devices.heartbeat,
                ack_timeout_s=devices.ack_timeout,
                outgoing_buffer_bytes=devices.outgoing_buffer_bytes,
                origins=frozenset(devices.origins),
            ),
            registrations_burst=devices.registrations_burst,
            registrations_per_s=devices.registrations_per_s,
            drain_s=configuration.drain.seconds,
        )
        opened.pop_all()
    return plan


def app_plan(app: App) -> AppPlan:
    valid = tuple(secret for secret in (app.master_secret, app.second_master_secret) if secret is not None)
    if any(len(secret) < SHORT_SECRET for secret in valid):
        log.warning("A master_secret of app %s is short: whoever guesses it owns the app.", app.app_key)
    limits = Limits(
        offline_limit=app.offline_limit,
        backlog_limit=app.backlog_limit,
        window=app.window,
        alias_limit=app.alias_limit,
        alias_full=app.alias_full,
        device_expiry_days=app.device_expiry_days,
        receipts_kept=app.receipts_max_bytes // RECEIPT_BYTES,
        needs_alias_tokens=app.alias_tokens is AliasTokens.REQUIRED,
    )
    return AppPlan(app.app_key, valid, limits, app.requests_per_s, app.pushes_per_s)


def store_of(configuration: Configuration) -> Store:
    store = configuration.store
    if store.kind is StoreKind.MEMORY:
        return MemoryStore()
    return SqliteStore(Path(store.path), store.durability.value)


async def _serve(path: Path, configuration: Configuration, plan: NodePlan) -> int:
    node = Node(store_of(configuration), plan, wall_clock, secrets.token_bytes)
    is_open = trio.Event()
    exit_code = 2
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey_signals, node, path, is_open, nursery.cancel_scope)
            await nursery.start(node.run, [app_plan(app) for app in configuration.app])
            exit_code = 1
            _say_where(plan)
            is_open.set()
    except* StoreFailure as failures:
        for failure in leaves(failures):
            log.critical("%s", failure)
    else:
        exit_code = 0
    return exit_code


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """What was raised, without the nurseries that it came through."""
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from leaves(each)
        else:
            yield each


def _say_where(plan: NodePlan) -> None:
    for name, door in (("Devices", plan.devices), ("App servers", plan.apps), ("Operations", plan.operations)):
        host, port, *_ = door.listening.getsockname()
        log.info("%s: %s port %d%s.", name, host, port, " with TLS" if door.tls is not None else "")
    log.info("Ready.")


async def _obey_signals(node: Node, path: Path, is_open: trio.Event, scope: trio.CancelScope) -> None:
    # One more is enough for all that come while one is read; a signal that comes while it stops is too late.
    hang_ups, to_read = trio.open_memory_channel[None](1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read_apps, node, path, is_open, to_read)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            is_stopping = False
            async for each in signals:
                if each == signal.SIGHUP:
                    with suppress(trio.WouldBlock):
                        hang_ups.send_nowait(None)
                elif is_stopping:
                    scope.cancel()
                else:
                    is_stopping = True
                    log.info("Stopping.")
                    nursery.start_soon(_stop, node, scope)


async def _stop(node: Node, scope: trio.CancelScope) -> None:
    await node.stop()
    scope.cancel()


async def _read_apps(node: Node, path: Path, is_open: trio.Event, wanted: trio.MemoryReceiveChannel[None]) -> None:
    # Before that the node has no rooms to put an app into.
    await is_open.wait()
    async for _ in wanted:
        await _read_apps_again(node, path)


async def _read_apps_again(node: Node, path: Path) -> None:
    try:
        configuration = await trio.to_thread.run_sync(config.load, path)
    except ConfigurationError as error:
        log.error("The apps were not read again: %s", error)
        return
    await node.serve_apps([app_plan(app) for app in configuration.app])
    log.info("The apps were read again.")

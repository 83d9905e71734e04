"""From a configuration to a node: every setting arrives, and what cannot be used is refused.

The process, its signals and its end are in `tests/test_process.py`.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from pushactors.cli.serve import app_plan, leaves, load_or_write, node_plan, serve, store_of
from pushactors.domain.aliases import AliasFullPolicy
from pushactors.errors import ConfigurationError, StoreBusy, StoreFenced
from pushactors.node import AppPlan, DeviceLimits, Limits, NodePlan
from pushactors.settings import (
    AliasTokens,
    App,
    Configuration,
    Devices,
    Drain,
    Durability,
    Listen,
    Store,
    StoreKind,
    Tls,
)
from pushactors.stores.contract import RECEIPT_BYTES
from pushactors.stores.memory import MemoryStore
from pushactors.stores.sqlite import SqliteStore
from pushactors.wire.ids import AppKey

PEM = str(Path(__file__).parent.parent / "localhost.pem")
APP = App(app_key=AppKey("the-app"), master_secret="sixteen-is-enough")
ANY_PORT = Listen(devices="127.0.0.1:0", apps="127.0.0.1:0", operations="127.0.0.1:0")
Output = pytest.CaptureFixture[str]


def close(plan: NodePlan) -> None:
    for door in (plan.devices, plan.apps, plan.operations):
        door.listening.close()


@pytest.fixture
def plan() -> Iterator[NodePlan]:
    """Of a configuration in which nothing is the default."""
    plan = node_plan(
        Configuration(
            listen=ANY_PORT,
            tls=Tls(certificate=PEM, key=PEM),
            devices=Devices(
                heartbeat=1,
                ack_timeout=2,
                connect_timeout_s=3,
                outgoing_buffer_bytes=20_000,
                max_connections=4,
                max_connections_per_address=5,
                registrations_burst=6,
                registrations_per_s=7,
                origins=("https://example.org",),
            ),
            drain=Drain(seconds=8),
            app=(APP,),
        )
    )
    yield plan
    close(plan)


# --- The plan ----------------------------------------------------------------------------------------------------


def test_every_setting_of_devices_arrives(plan: NodePlan) -> None:
    assert plan.device_limits == DeviceLimits(
        connect_timeout_s=3, heartbeat_s=1, ack_timeout_s=2, outgoing_buffer_bytes=20_000,
        origins=frozenset({"https://example.org"}),
    )  # fmt: skip
    assert (plan.devices.max_connections, plan.devices.max_per_address) == (4, 5)
    assert (plan.registrations_burst, plan.registrations_per_s) == (6, 7)
    assert plan.drain_s == 8


def test_every_door_is_open_and_has_a_port_of_its_own(plan: NodePlan) -> None:
    ports = {door.listening.getsockname()[1] for door in (plan.devices, plan.apps, plan.operations)}
    assert len(ports) == 3
    assert 0 not in ports
    for port in ports:
        socket.create_connection(("127.0.0.1", port)).close()


def test_tls_is_for_the_doors_that_it_is_configured_for(plan: NodePlan) -> None:
    assert isinstance(plan.devices.tls, ssl.SSLContext)
    assert isinstance(plan.apps.tls, ssl.SSLContext)
    assert plan.operations.tls is None
    tls = Tls(certificate=PEM, key=PEM, devices=True, apps=False)
    other = node_plan(Configuration(listen=ANY_PORT, tls=tls, app=(APP,)))
    close(other)
    assert other.devices.tls is not None
    assert other.apps.tls is None


def test_a_port_that_is_taken_is_refused(plan: NodePlan) -> None:
    port = plan.apps.listening.getsockname()[1]
    listen = Listen(devices="127.0.0.1:0", apps=f"127.0.0.1:{port}", operations="127.0.0.1:0")
    with pytest.raises(ConfigurationError) as refused:
        node_plan(Configuration(listen=listen, app=(APP,)))
    assert str(refused.value) == f"listen.apps: cannot listen at 127.0.0.1:{port}: Address already in use."


def test_every_limit_of_an_app_arrives() -> None:
    numbers = {"offline_limit": 1, "backlog_limit": 2, "window": 3, "alias_limit": 4, "device_expiry_days": 5}
    policy = AliasFullPolicy.LONGEST_ABSENT
    app = App(
        app_key=AppKey("the-app"), master_secret="sixteen-is-enough", second_master_secret="seventeen-is-more",
        alias_full=policy, pushes_per_s=6, requests_per_s=7, receipts_max_bytes=3_400_000,
        alias_tokens=AliasTokens.REQUIRED, **numbers,
    )  # fmt: skip
    assert app_plan(app) == AppPlan(
        app_key=AppKey("the-app"),
        secrets=("sixteen-is-enough", "seventeen-is-more"),
        limits=Limits(
            alias_full=policy, receipts_kept=3_400_000 // RECEIPT_BYTES, needs_alias_tokens=True, **numbers
        ),
        requests_per_s=7,
        pushes_per_s=6,
    )


def test_the_defaults_of_the_settings_are_those_of_the_rooms() -> None:
    plan = app_plan(APP)
    assert plan.limits == Limits()
    assert plan == AppPlan(APP.app_key, (APP.master_secret,), Limits())
    # Two of them are called and measured otherwise there.
    names = {each.name for each in fields(Limits)} - {"receipts_kept", "needs_alias_tokens"}
    assert names <= {each.name for each in fields(App)}


def test_a_short_secret_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        app_plan(APP)
        assert caplog.messages == []
        app_plan(App(app_key=AppKey("the-app"), master_secret="sixteen-is-enough", second_master_secret="short"))
    assert caplog.messages == ["A master_secret of app the-app is short: whoever guesses it owns the app."]


def test_the_store_is_the_one_that_is_configured(tmp_path: Path) -> None:
    path = str(tmp_path / "p.db")
    assert isinstance(store_of(Configuration(store=Store(kind=StoreKind.MEMORY, path=path))), MemoryStore)
    for durability in Durability:
        assert isinstance(store_of(Configuration(store=Store(path=path, durability=durability))), SqliteStore)
    assert list(tmp_path.iterdir()) == []


# --- The configuration -------------------------------------------------------------------------------------------


def test_a_configuration_is_written_where_there_is_none_and_explained(folder: Path, capsys: Output) -> None:
    path = Path("pushactors.toml")
    written = load_or_write(path, must_be_there=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert written.app[0].app_key in err
    assert written.app[0].master_secret not in err
    assert "pushactors device --alias alice" in err
    assert 'pushactors push --alias alice "Hello"' in err
    assert load_or_write(path, must_be_there=False) == written
    assert capsys.readouterr() == ("", "")
    assert list(folder.iterdir()) == [folder / "pushactors.toml"]


def test_a_configuration_that_is_named_must_be_there(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_or_write(Path("mine.toml"), must_be_there=True)
    assert list(folder.iterdir()) == []


def test_what_cannot_be_used_ends_it_with_2_before_anything_is_opened(folder: Path, capsys: Output) -> None:
    Path("pushactors.toml").write_text("colour = 'red'")
    assert serve(Path("pushactors.toml"), must_be_there=False) == 2
    assert capsys.readouterr() == ("", "pushactors.toml: colour is not known here.\n")
    assert [path.name for path in folder.iterdir()] == ["pushactors.toml"]


def test_what_a_store_failed_of_is_found_however_deep_it_lies() -> None:
    first, second = StoreBusy("first"), StoreFenced("second")
    group = BaseExceptionGroup("", [ExceptionGroup("", [ExceptionGroup("", [first])]), second])
    assert list(leaves(group)) == [first, second]

"""Where the server of a configuration is, and what one needs to talk to it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio.testing

from pushactors import Disconnected
from pushactors.cli.access import WAIT_S, Access
from pushactors.errors import ConfigurationError
from pushactors.settings import App, Configuration, Listen, Tls
from pushactors.wire.ids import AppKey
from tests.cli.processes import free_ports

PEM = str(Path(__file__).parent.parent / "localhost.pem")
FIRST = App(app_key=AppKey("first"), master_secret="sixteen-is-enough")
SECOND = App(app_key=AppKey("second"), master_secret="seventeen-is-more")


def access(listen: Listen | None = None, tls: Tls | None = None, app_key: str | None = None) -> Access:
    return Access.of(Configuration(listen=listen or Listen(), tls=tls, app=(FIRST, SECOND)), app_key)


def test_the_first_app_is_meant_unless_one_is_named() -> None:
    assert access().app is FIRST
    assert access(app_key="second").app is SECOND
    with pytest.raises(ConfigurationError, match=r"^The configuration has no app with the app_key 'third'\.$"):
        access(app_key="third")


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("127.0.0.1:8600", "127.0.0.1:8600"),
        ("push.example.org:443", "push.example.org:443"),
        ("0.0.0.0:8600", "127.0.0.1:8600"),
        ("[::]:8600", "[::1]:8600"),
        ("[2001:db8::1]:8600", "[2001:db8::1]:8600"),
    ],
)
def test_a_server_is_found_where_it_listens(address: str, host: str) -> None:
    found = access(Listen(devices=address, apps="127.0.0.1:1"))
    assert found.devices_url == f"ws://{host}/device"
    found = access(Listen(apps=address, devices="127.0.0.1:1"))
    assert found.apps_url == f"ws://{host}/app"


def test_a_port_that_is_any_free_one_cannot_be_found() -> None:
    with pytest.raises(ConfigurationError, match=r"^A port of 0 is any free one: give listen a port to be found at\.$"):
        access(Listen(devices="127.0.0.1:0"))


@pytest.mark.parametrize("devices", [True, False])
@pytest.mark.parametrize("apps", [True, False])
def test_tls_is_spoken_where_it_is_configured(devices: bool, apps: bool) -> None:
    found = access(tls=Tls(certificate=PEM, key=PEM, devices=devices, apps=apps))
    assert found.devices_url.startswith("wss:" if devices else "ws:")
    assert found.apps_url.startswith("wss:" if apps else "ws:")


def test_the_servers_own_certificate_is_trusted_and_no_other() -> None:
    assert access().ssl_context() is None
    context = access(tls=Tls(certificate=PEM, key=PEM)).ssl_context()
    assert context is not None
    assert not context.check_hostname
    assert [dict(*each["subject"]) for each in context.get_ca_certs()] == [{"commonName": "localhost"}]


async def test_a_server_that_is_not_there_is_not_waited_for_long(autojump_clock: trio.testing.MockClock) -> None:
    # Not 0: a refused connection is the kernel's business, and it is not on this clock.
    autojump_clock.autojump_threshold = 0.05
    devices, apps = free_ports(2)
    found = access(Listen(devices=f"127.0.0.1:{devices}", apps=f"127.0.0.1:{apps}"))
    begun = trio.current_time()
    async with found.app_client() as client:
        with pytest.raises(Disconnected) as caught:
            await client.devices()
    refused = f"There was no connection to {found.apps_url} for 5 s: Connection refused. Nothing was sent."
    assert str(caught.value) == refused
    assert trio.current_time() - begun < 2 * WAIT_S

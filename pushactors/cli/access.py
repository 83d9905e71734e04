"""Where the server of a configuration is, and what one needs to talk to it, as a device or as an app server.

1. Everything is found in the configuration: on the server's own machine nobody types a credential.
2. A server that listens everywhere is reached on loopback. Its own certificate is trusted, whoever signed it.
3. Somebody waits at the terminal: a server that is not there is said so within `WAIT_S`.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from pushactors.clients.app import AppClient
from pushactors.errors import ConfigurationError
from pushactors.settings import App, Configuration, parse_address

# A server that is just being restarted is there again by then.
WAIT_S = 5.0
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class Access:
    devices_url: str
    apps_url: str
    app: App
    certificate: str | None

    @classmethod
    def of(cls, configuration: Configuration, app_key: str | None) -> Access:
        """Raises `ConfigurationError` if there is no such app."""
        listen, tls = configuration.listen, configuration.tls
        return cls(
            _url(listen.devices, "device", tls is not None and tls.devices),
            _url(listen.apps, "app", tls is not None and tls.apps),
            app_of(configuration, app_key),
            tls.certificate if tls is not None else None,
        )

    def app_client(self) -> AppClient:
        return AppClient(
            self.apps_url,
            self.app.app_key,
            self.app.master_secret,
            timeout_s=WAIT_S,
            ssl_context=self.ssl_context(),
        )

    def ssl_context(self) -> ssl.SSLContext | None:
        if self.certificate is None:
            return None
        context = ssl.create_default_context(cafile=self.certificate)
        # The address is the configuration's own; the name in the certificate is the public one.
        context.check_hostname = False
        return context


def app_of(configuration: Configuration, app_key: str | None) -> App:
    """The app with that key; None: the first. Raises `ConfigurationError` if there is none."""
    for app in configuration.app:
        if app_key is None or app.app_key == app_key:
            return app
    raise ConfigurationError(f"The configuration has no app with the app_key {app_key!r}.")


def _url(address: str, path: str, is_tls: bool) -> str:
    parsed = parse_address(address)
    assert parsed is not None, "addresses were judged when they were loaded"
    if parsed.port == 0:
        raise ConfigurationError("A port of 0 is any free one: give listen a port to be found at.")
    host = EVERYWHERE.get(parsed.host, parsed.host)
    return f"{'wss' if is_tls else 'ws'}://{f'[{host}]' if ':' in host else host}:{parsed.port}/{path}"

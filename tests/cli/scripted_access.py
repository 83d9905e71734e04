"""A way to the scripted server for commands that take an `Access`."""

from __future__ import annotations

from dataclasses import dataclass

from pushactors import AppClient
from pushactors.cli.access import Access
from pushactors.settings import App
from pushactors.wire.ids import AppKey
from tests.clients.scripted import ScriptedServer
from tests.clients.scripted_client import APP_URL, DEVICE_URL, app_client


@dataclass(frozen=True, slots=True)
class ScriptedAccess(Access):
    server: ScriptedServer

    @classmethod
    def to(cls, server: ScriptedServer) -> ScriptedAccess:
        app = App(app_key=AppKey("app"), master_secret="sixteen-is-enough")
        return cls(DEVICE_URL, APP_URL, app, None, server)

    def app_client(self) -> AppClient:
        return app_client(self.server)

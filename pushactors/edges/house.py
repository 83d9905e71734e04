"""One app as the edges see it: its rooms, each behind its own door.

1. Nothing is decided here. An edge that has an app has everything of that app, and nothing of any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pushactors.actors.device import DeviceActor
from pushactors.actors.fanout import Fanout
from pushactors.actors.held import AliasMailboxes
from pushactors.actors.ledger import Ledger
from pushactors.actors.recall import Recalls
from pushactors.actors.receipts import Receipts
from pushactors.actors.registrar import Registrar
from pushactors.actors.router import Router
from pushactors.actors.tenant import Tenant
from pushactors.domain.credentials import AliasPermit
from pushactors.edges.rates import Rates
from pushactors.errors import Unauthorized
from pushactors.stores.contract import Store
from pushactors.wire.ids import AppKey, DeviceNo, Millis
from pushactors.wire.tokens import read


@dataclass(slots=True)
class App:
    """`secrets`: the master secrets that are valid now; the rates are the app's own (C24)."""

    tenant: Tenant
    router: Router
    registrar: Registrar
    fanout: Fanout
    recalls: Recalls
    receipts: Receipts
    held: AliasMailboxes
    ledger: Ledger
    store: Store
    device: Callable[[DeviceNo], DeviceActor | None]
    secrets: tuple[str, ...]
    requests: Rates
    pushes: Rates
    clock: Callable[[], Millis]

    def permit(self, alias_token: str | None) -> AliasPermit:
        """What a device shows with its alias (C17). Raises `Unauthorized` if that is nothing, or nothing good."""
        if alias_token is None:
            raise Unauthorized("This app wants an alias_token with an alias: ask its server for one.", "alias_token")
        claims = read(alias_token, self.secrets, self.clock() / 1000)
        return AliasPermit(claims.alias, claims.rid)


class Apps:
    """The apps that are served now, by key."""

    def __init__(self) -> None:
        self._apps: dict[AppKey, App] = {}

    def find(self, app_key: AppKey) -> App | None:
        return self._apps.get(app_key)

    def all(self) -> tuple[App, ...]:
        return tuple(self._apps.values())

    def put(self, app: App) -> None:
        self._apps[app.tenant.app_key] = app

    def remove(self, app_key: AppKey) -> None:
        self._apps.pop(app_key, None)

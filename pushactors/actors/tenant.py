"""One app as its actors know it: who it is, what its limits are now, and its book.

1. Nothing ever crosses from one tenant to another.
2. Limits are replaced whole while the server runs; an actor reads them when it decides, and keeps no copy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pushactors.actors.unit import Book, Unit
from pushactors.domain.aliases import AliasFullPolicy
from pushactors.domain.effects import Returned
from pushactors.stores.contract import RECEIPT_BYTES
from pushactors.wire.ids import AppKey, AppNo, DeviceNo


@dataclass(frozen=True, slots=True)
class Limits:
    """The contract's limits, by the contract's names. See docs/contract.md, C8, C10, C12, C24."""

    offline_limit: int = 5
    backlog_limit: int = 256
    window: int = 64
    alias_limit: int = 10
    alias_full: AliasFullPolicy = AliasFullPolicy.REFUSE
    device_expiry_days: int = 255
    receipts_kept: int = 268_435_456 // RECEIPT_BYTES
    needs_alias_tokens: bool = False


class Tenant:
    __slots__ = ("app_key", "app_no", "book", "limits", "take_back")

    def __init__(self, app_key: AppKey, app_no: AppNo, limits: Limits, book: Book) -> None:
        self.app_key = app_key
        self.app_no = app_no
        self.limits = limits
        self.book = book
        self.take_back: Callable[[DeviceNo, Returned, Unit], None] = _nowhere
        """Where a delivery goes that left that device's mailbox to wait for its alias again (C25)."""


def _nowhere(device_no: DeviceNo, returned: Returned, unit: Unit) -> None:
    raise RuntimeError("Nobody keeps what is held for an alias in this app.")

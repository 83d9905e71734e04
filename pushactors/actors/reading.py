"""What an actor sees of the ledger when it asks for what is true at one instant.

1. Whoever asks does not know who answers, and is told of one instant only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Protocol, TypeVar

from pushactors.actors.unit import Book
from pushactors.wire.ids import MsgId

T = TypeVar("T")


class Reader(Protocol):
    async def read(
        self, book: Book, msg_ids: Collection[MsgId], ask: Callable[[], Awaitable[T]]
    ) -> tuple[T, list[int]]:
        """What `ask` finds in the store when everything decided so far in `book` is durable, and how many deliveries of
        each of `msg_ids` were on the wire at that instant."""

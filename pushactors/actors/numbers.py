"""Message ids: increasing, unique in the whole server, and never given twice, whatever happens to the process.

1. An id may be told before the push that has it is on disk (time to live 0, C5). So ids are taken from a block whose
   upper end is on disk; after a restart the next block begins there.
2. The next block is reserved when half of this one is left. If the disk is slower than half a block of pushes, a push
   is refused (`Busy`) rather than numbered with an id that could be given again.
"""

from __future__ import annotations

from pushactors.actors.unit import Book
from pushactors.errors import Busy
from pushactors.stores.contract import IdsReserved
from pushactors.wire.ids import MsgId

BLOCK = 1_000_000


class Numbers:
    """Gives ids from `ids_below` on. `book`: where the reservations are booked; of no app."""

    def __init__(self, ids_below: MsgId, book: Book) -> None:
        self._next = int(ids_below)
        self._reserved = int(ids_below)
        self._asked = int(ids_below)
        self._book = book

    async def reserve(self) -> None:
        """The first block. Returns when it is on disk."""
        self._ask()
        await self._book.told()

    def take(self) -> MsgId:
        """The next id. Raises `Busy` when none is reserved."""
        if self._next >= self._reserved:
            raise Busy("Pushes are accepted faster than the disk can number them. Try again.")
        taken = MsgId(self._next)
        self._next += 1
        if self._asked - self._next <= BLOCK // 2:
            self._ask()
        return taken

    def _ask(self) -> None:
        self._asked += BLOCK
        below = MsgId(self._asked)

        def reserved() -> None:
            self._reserved = below

        unit = self._book.open()
        unit.changes.append(IdsReserved(below))
        unit.then.append(reserved)
        unit.close()

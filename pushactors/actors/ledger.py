"""The way to the disk: decisions in their order, committed in groups, and told afterwards.

1. While one commit is under way the next gathers; every unit that is complete goes with it. One commit at a time.
2. What hangs on a unit is told in the turn in which its commit returned, in the order of the units (C2). A unit
   without changes costs no commit: it only waits for those before it.
3. What is on the wire is not durable (C2), so it is counted beside the store, and `read` sees both at one instant, with
   no commit under way: the sums are exact (C1).
4. The ledger never drops a unit. A commit that the store did not answer is asked for again under its number. When the
   store gives up, so does the ledger, and the process with it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Generic, TypeVar

import trio

from pushactors.actors.tally import Tally
from pushactors.actors.unit import Book, Unit
from pushactors.actors.wire_count import WireCount
from pushactors.errors import ActorCrashed, StoreBusy, StoreFailure
from pushactors.stores.contract import Accepted, Marked, Overdue, Settled, Stamped, Store
from pushactors.stores.patience import patient
from pushactors.wire.ids import AppNo, Millis, MsgId

log = logging.getLogger(__name__)
T = TypeVar("T")

# A commit of this many rows takes some tens of milliseconds: larger groups save little, and others wait for them.
ROWS_PER_COMMIT = 5_000
# Looking things up for one app must not hold up what others have decided: after this, what is left waits for a commit.
READING_S = 0.005


class Ledger:
    """Owns what is decided and not yet durable, of all apps. See the law on top."""

    def __init__(
        self, store: Store, last_commit: int, on_the_wire: WireCount, clock: Callable[[], Millis], tally: Tally
    ) -> None:
        self._store = store
        self._clock = clock
        self._number = last_commit
        self._tally = tally
        self._books: dict[AppNo, Book] = {}
        self._on_the_wire = on_the_wire
        self._in_flight: list[tuple[Book, Unit]] = []
        self._reads: dict[Book, deque[_Read[Any]]] = {}
        self._work = trio.Event()

    def book(self, app_no: AppNo) -> Book:
        if app_no not in self._books:
            self._books[app_no] = Book(self._wake)
        return self._books[app_no]

    # --- Asking ------------------------------------------------------------------------------------------------------

    async def read(
        self, book: Book, msg_ids: Collection[MsgId], ask: Callable[[], Awaitable[T]]
    ) -> tuple[T, list[int]]:
        """What `ask` finds in the store when everything decided so far in `book` is durable, and beside it how many
        deliveries of each of `msg_ids` were on the wire at that instant.

        Raises what `ask` raises, `StoreBusy` if the store does not answer.
        """
        read = _Read(msg_ids, ask)

        def queue() -> None:
            self._reads.setdefault(book, deque()).append(read)
            self._work.set()

        book.after(queue)
        await read.done.wait()
        if read.failure is not None:
            raise read.failure
        assert read.answer is not None
        return read.answer

    # --- Committing --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Commits for ever. Started again, it goes on with the commit it was in. Raises `StoreFailure`, for good."""
        while True:
            if not self._in_flight:
                await self._work.wait()
                self._work = trio.Event()
                self._take()
            if self._in_flight:
                await self._commit()
            await self._answer_reads()
            if self._reads or any(book.has_complete() for book in self._books.values()):
                self._work.set()

    def _wake(self, _rows: int) -> None:
        self._work.set()

    def _take(self) -> None:
        # An equal part for each app that has something to write: a large push of one does not hold up the others.
        busy = [book for book in self._books.values() if book.has_complete()]
        for book in busy:
            self._in_flight += [(book, unit) for unit in book.take(ROWS_PER_COMMIT // len(busy))]
        if any(unit.changes for _, unit in self._in_flight):
            self._number += 1

    async def _commit(self) -> None:
        changes = [change for _, unit in self._in_flight for change in unit.changes]
        if changes:
            number = self._number
            self._tally.add("committed_changes", count=len(changes))
            if any(isinstance(change, Accepted) for change in changes):
                changes.append(Stamped(self._clock()))
            ignored = await patient(lambda: self._store.commit(number, changes))
            self._tally.add("commits")
            self._tally.add("ignored", "store", ignored)
        in_flight, self._in_flight = self._in_flight, []
        for book, unit in in_flight:
            book.advance(unit)
            for msg_id, device_no in unit.off_the_wire:
                self._on_the_wire.off(msg_id, device_no)
        for _, unit in in_flight:
            for told in unit.then:
                self._tell(told)
        for book in {book: None for book, unit in in_flight if book.followers and _has_receipts(unit)}:
            for follower in tuple(book.followers):
                self._tell(follower)

    def _tell(self, told: Callable[[], None]) -> None:
        try:
            told()
        except ActorCrashed:
            pass  # its own task logs and counts it
        except Exception:  # one listener's fault is not the others', nor the disk's: they are still told
            log.exception("Telling of something durable failed.")
            self._tally.add("faults", "telling")

    async def _answer_reads(self) -> None:
        """One of each app in turn, for `READING_S`."""
        until = trio.current_time() + READING_S
        while self._reads:
            book = next(iter(self._reads))
            waiting = self._reads.pop(book)
            read = waiting.popleft()
            if waiting:
                self._reads[book] = waiting  # behind the others
            await self._answer(read)
            if trio.current_time() >= until:
                return

    async def _answer(self, read: _Read[Any]) -> None:
        on_the_wire = [self._on_the_wire.of(msg_id) for msg_id in read.msg_ids]
        try:
            read.answer = (await patient(read.ask), on_the_wire)
        except Exception as failure:  # whoever asked is told; only the store's own failure is everybody's
            read.failure = failure
            if isinstance(failure, StoreFailure) and not isinstance(failure, StoreBusy):
                raise
        finally:
            read.done.set()


def _has_receipts(unit: Unit) -> bool:
    """Whether there may be something in it that app servers are told of (C20)."""
    return any(
        isinstance(change, Settled | Marked | Overdue)
        or (isinstance(change, Accepted) and any(target.verdict is not None for target in change.targets))
        for change in unit.changes
    )


class _Read(Generic[T]):
    def __init__(self, msg_ids: Collection[MsgId], ask: Callable[[], Awaitable[T]]) -> None:
        self.msg_ids = msg_ids
        self.ask = ask
        self.answer: tuple[T, list[int]] | None = None
        self.failure: Exception | None = None
        self.done = trio.Event()

"""A line to a server that is kept open: one link after the other, until the server says not to come back.

1. The line comes back by itself after everything that the close code, or a refused greeting, does not forbid.
2. It waits for as long as the server asked (`goodbye`, `retry_after`), and a random while on top of it; a link that
   lasted `STABLE_AFTER_S` begins the count anew.
3. Who wants to talk waits for a link that has been greeted. When the line has ended, everybody gets the reason by name;
   who waits no longer is told where the line leads, and what was last in the way.
4. It decides nothing else: what a greeting is, and what is heard, is its owner's.
"""

from __future__ import annotations

from typing import Final, Protocol

import trio
from trio.lowlevel import ParkingLot

from pushactors.clients.backoff import Backoff
from pushactors.clients.dial import hold
from pushactors.clients.door import Door
from pushactors.clients.link import CLOSE_LIMIT_S, Ending, Link
from pushactors.clients.partings import Closed, Disconnected, parting
from pushactors.errors import Busy, InternalError, PushactorsError
from pushactors.wire.closing import comes_back
from pushactors.wire.codec import structure_answer
from pushactors.wire.device import Goodbye
from pushactors.wire.jsonrpc import Note

STABLE_AFTER_S: Final = 60.0
GREET_LIMIT_S: Final = 30.0


class Owner(Protocol):
    async def greet(self, link: Link) -> None:
        """What must be said first. Raises what the server refused it with; `Busy`: the line tries again."""

    def hear(self, note: Note) -> None:
        """Everything but `goodbye`. Raises `Invalid` if it cannot be understood."""

    async def parted(self, ending: Ending, retry_after_s: float | None) -> None:
        """The link, or a try at one, is over. None: so is the line."""


class Line:
    """`changed` is unparked when the link or the error is another; owners may share it for changes of their own."""

    def __init__(self, door: Door, owner: Owner, backoff: Backoff, changed: ParkingLot | None = None) -> None:
        self.error: PushactorsError | None = None
        """Why the line ended, if it has."""
        self.link: Link | None = None
        """The link that may be talked on now."""
        self._door = door
        self._owner = owner
        self._backoff = backoff
        # Not `changed or …`: a lot in which nobody is parked is false.
        self._changed = ParkingLot() if changed is None else changed
        self._trouble = "it has not answered yet"
        self._refusal: PushactorsError | None = None
        self._goodbye: Goodbye | None = None

    async def run(self) -> None:
        """Returns when the line has ended, with `error` set."""
        while self.error is None:
            self._refusal = self._goodbye = None
            opened_at = trio.current_time()
            ending = await hold(self._door, self._hear, self._greet)
            self.link = None
            if trio.current_time() - opened_at >= STABLE_AFTER_S:
                self._backoff.reset()
            self._trouble = self._reason(ending)
            verdict = self.error or self._verdict(ending)
            wait_s = None if verdict is not None else self._floor_s() + self._backoff.next_s()
            # Before anybody can see the verdict: what the owner must write down is written when its caller gives up.
            await self._owner.parted(ending, wait_s)
            self.error = self.error or verdict
            self._changed.unpark_all()
            if wait_s is not None:
                await trio.sleep(wait_s)

    async def wait_link(self) -> Link:
        """The present link, or the next one. Raises why the line ended, if it has."""
        while True:
            self.check()
            if self.link is not None and not self.link.is_over:
                return self.link
            await self._changed.park()

    async def wait_link_within(self, limit_s: float) -> Link:
        """`wait_link`, but `Disconnected` with what is in the way if there is no link by then."""
        with trio.move_on_after(limit_s):
            return await self.wait_link()
        where, trouble = self._door.url, self._trouble.removesuffix(".")
        raise Disconnected(f"There was no connection to {where} for {limit_s:g} s: {trouble}. Nothing was sent.")

    def check(self) -> None:
        """Raises why the line ended, if it has."""
        if self.error is not None:
            # It is raised to everybody: without this its traceback would grow with each of them.
            raise self.error.with_traceback(None)

    def end(self, error: PushactorsError) -> None:
        """Ends the line for a reason that was found here."""
        self.error = self.error or error
        if self.link is not None:
            self.link.lose(str(error))
        self._changed.unpark_all()

    async def aclose(self) -> None:
        """Sends what was told on the present link and closes it. Whoever runs the line cancels it afterwards."""
        self.error = self.error or Closed("This client has been closed.")
        self._changed.unpark_all()
        if self.link is not None:
            with trio.move_on_after(CLOSE_LIMIT_S):
                await self.link.aclose()

    async def _greet(self, link: Link) -> None:
        with trio.move_on_after(GREET_LIMIT_S) as scope:
            try:
                await self._owner.greet(link)
            except Disconnected:
                # How the link ended says more.
                return
            except PushactorsError as error:
                self._refusal = error
                link.lose(str(error))
                return
            if self.error is not None:
                # What was heard while it was greeted has ended the line.
                link.lose(str(self.error))
                return
            self.link = link
            self._changed.unpark_all()
        if scope.cancelled_caught:
            link.lose(f"the server did not answer within {GREET_LIMIT_S:.0f} s")

    def _hear(self, note: Note) -> None:
        if note.method == "goodbye":
            self._goodbye = structure_answer(Goodbye, note.params, "goodbye")
        else:
            self._owner.hear(note)

    def _verdict(self, ending: Ending) -> PushactorsError | None:
        """Why not to come back; None: come back."""
        if self._refusal is not None:
            return None if isinstance(self._refusal, Busy | InternalError) else self._refusal
        if not comes_back(ending.code) or (self._goodbye is not None and self._goodbye.retry_after is None):
            return parting(ending.code, self._reason(ending))
        return None

    def _reason(self, ending: Ending) -> str:
        if self._refusal is not None:
            return str(self._refusal)
        return self._goodbye.reason if self._goodbye is not None else ending.reason

    def _floor_s(self) -> float:
        if isinstance(self._refusal, Busy):
            return self._refusal.retry_after_s
        if self._goodbye is not None and self._goodbye.retry_after is not None:
            return max(0, self._goodbye.retry_after)
        return 0

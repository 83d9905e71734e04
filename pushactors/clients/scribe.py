"""Records what was taken and stores what came, then acknowledges it: in bundles, because a frame and an fsync each cost
more than a message.

1. What is taken is recorded before it is acknowledged: after a crash it is not shown again. What came for the tray is
   stored at once.
2. A bundle is closed when there is nothing left to show, when `BUNDLE` messages were taken, after `BUNDLE_S`, or when
   somebody waits for it.
3. Acknowledgements belong to a visit. What could not be told on this one is settled on the next: the server sends the
   message again, and it is acknowledged without being shown.
4. What is declined is told before another alias is asked for: behind that, it would wait for the next time (C25).
5. A recall is answered when what it did is on the disk (C22). The server asks again on each visit until it is.
"""

from __future__ import annotations

from typing import Final, NoReturn

import trio
from trio.lowlevel import ParkingLot

from pushactors.clients.inbox import Inbox
from pushactors.clients.line import Line
from pushactors.clients.link import Link
from pushactors.clients.partings import Disconnected
from pushactors.clients.shown import Shown
from pushactors.clients.tray import Tray
from pushactors.errors import PushactorsError

BUNDLE: Final = 16
BUNDLE_S: Final = 0.05


class Scribe:
    def __init__(self, inbox: Inbox, shown: Shown, line: Line, changed: ParkingLot, tray: Tray | None = None) -> None:
        self._inbox = inbox
        self._shown = shown
        self._line = line
        self._changed = changed
        self._tray = tray
        self._writing = trio.Lock()
        self._waiting = 0
        self._is_telling = False
        self._is_over = False

    async def run(self) -> None:
        """Ends the line if what was taken cannot be recorded: the promise could not be kept."""
        try:
            await self._record_and_tell()
        except PushactorsError as error:
            self._line.end(error)
        finally:
            self._is_over = True
            self._changed.unpark_all()

    async def wait_recorded(self, msg_id: str) -> None:
        """Until what was taken is recorded, without waiting for a bundle to fill. Raises why it cannot be."""
        self._waiting += 1
        self._changed.unpark_all()
        try:
            while msg_id in self._inbox.taken:
                if self._is_over:
                    self._line.check()
                    return
                await self._changed.park()
        finally:
            self._waiting -= 1

    async def tell_declined(self) -> None:
        """On return the server is told of everything that was declined on this visit before the call."""
        # Otherwise nobody has to wait for a disk here.
        if self._inbox.is_declining or self._is_telling:
            await self.flush()

    async def _record_and_tell(self) -> NoReturn:
        while True:
            while not (
                self._inbox.taken or self._is_urgent or (self._line.link is not None and self._inbox.is_owing)
            ):
                await self._changed.park()
            with trio.move_on_after(BUNDLE_S):
                while self._inbox.has_next and len(self._inbox.taken) < BUNDLE and not self._is_hurried:
                    await self._changed.park()
            await self.flush()

    @property
    def _is_urgent(self) -> bool:
        """There is something for the tray, where somebody may be looking."""
        return self._tray is not None and (self._tray.has_posted or self._inbox.has_for_tray)

    @property
    def _is_hurried(self) -> bool:
        return bool(self._waiting or self._inbox.recalls) or self._is_urgent

    async def flush(self) -> None:
        """Whatever came or was taken is recorded, and told if there is somebody to tell."""
        async with self._writing:
            recalls = self._inbox.recalls
            if self._tray is not None:
                self._inbox.put()
                await self._tray.commit()
            if taken := self._inbox.taken:
                await self._shown.add(taken)
                self._inbox.recorded(taken)
                self._changed.unpark_all()
            link = self._line.link
            if link is None:
                return
            try:
                await self._acknowledge(link)
                await self._answer(link, recalls)
            except Disconnected:
                return

    async def _acknowledge(self, link: Link) -> None:
        owed = self._inbox.acknowledge()
        self._is_telling = True
        try:
            for msg_id in owed.declined:
                await link.tell("declined", {"msg_id": msg_id})
        finally:
            self._is_telling = False
        if owed.received is not None:
            await link.tell("received", {"msg_id": owed.received})

    async def _answer(self, link: Link, recalls: list[str]) -> None:
        for msg_id in recalls:
            answer = "withdrawn" if self._tray is None else self._tray.answer_to_recall(msg_id)
            self._inbox.answered(msg_id)
            await link.tell(answer, {"msg_id": msg_id})

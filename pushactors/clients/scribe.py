"""Records what was taken, then acknowledges it: in bundles, because a frame and an fsync each cost more than a message.

1. What is taken is recorded before it is acknowledged: after a crash it is not shown again.
2. A bundle is closed when there is nothing left to show, when `BUNDLE` messages were taken, or after `BUNDLE_S`.
3. Acknowledgements belong to a visit. What could not be told on this one is settled on the next: the server sends the
   message again, and it is acknowledged without being shown.
"""

from __future__ import annotations

from typing import Final, NoReturn

import trio
from trio.lowlevel import ParkingLot

from pushactors.clients.inbox import Inbox
from pushactors.clients.line import Line
from pushactors.clients.partings import Disconnected
from pushactors.clients.shown import Shown
from pushactors.errors import PushactorsError

BUNDLE: Final = 16
BUNDLE_S: Final = 0.05


class Scribe:
    def __init__(self, inbox: Inbox, shown: Shown, line: Line, changed: ParkingLot) -> None:
        self._inbox = inbox
        self._shown = shown
        self._line = line
        self._changed = changed
        self._writing = trio.Lock()

    async def run(self) -> None:
        """Ends the line if what was taken cannot be recorded: the promise could not be kept."""
        try:
            await self._record_and_tell()
        except PushactorsError as error:
            self._line.end(error)

    async def _record_and_tell(self) -> NoReturn:
        while True:
            while not (self._inbox.taken or (self._line.link is not None and self._inbox.is_owing)):
                await self._changed.park()
            with trio.move_on_after(BUNDLE_S):
                while self._inbox.has_next and len(self._inbox.taken) < BUNDLE:
                    await self._changed.park()
            await self.flush()

    async def flush(self) -> None:
        """Whatever was taken is recorded, and told if there is somebody to tell."""
        async with self._writing:
            if taken := self._inbox.taken:
                await self._shown.add(taken)
                self._inbox.recorded(taken)
                self._changed.unpark_all()
            link = self._line.link
            if link is None:
                return
            owed = self._inbox.acknowledge()
            try:
                for msg_id in owed.declined:
                    await link.tell("declined", {"msg_id": msg_id})
                if owed.received is not None:
                    await link.tell("received", {"msg_id": owed.received})
            except Disconnected:
                return

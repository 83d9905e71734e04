"""Tells the server what the user did with an entry of the tray, until the server surely has it.

1. A mark is told on each visit until an answer came on that visit to a request made behind it: the server takes them in
   order, and answers when what came before is on its disk.
2. So it is told at least once over crashes of either side. The server counts each once.
3. A mark acknowledges its message. It is held back while the custom message that came with it is not taken, and, as
   everything that acknowledges, while the application wants to be somebody else (C14).
"""

from __future__ import annotations

import trio
from trio.lowlevel import ParkingLot

from pushactors.clients.inbox import Inbox
from pushactors.clients.line import Line
from pushactors.clients.link import Link
from pushactors.clients.partings import Disconnected
from pushactors.clients.tray import Tray
from pushactors.clients.tray_rules import Mark
from pushactors.clients.wishes import Wishes
from pushactors.errors import Busy, PushactorsError


class Debts:
    def __init__(self, tray: Tray, inbox: Inbox, wishes: Wishes, line: Line, changed: ParkingLot) -> None:
        self._tray = tray
        self._inbox = inbox
        self._wishes = wishes
        self._line = line
        self._changed = changed
        self._link: Link | None = None
        """On which those in `_told` were told."""
        self._told: list[str] = []

    async def run(self) -> None:
        """For as long as the line lasts. Ends it if the tray's file cannot be used."""
        try:
            await self._pay()
        except PushactorsError as error:
            self._line.end(error)

    async def tell(self, link: Link) -> None:
        """What is owed and was not told on this link. Raises `Disconnected`."""
        if link is not self._link:
            self._link, self._told = link, []
        for msg_id, mark in self._due(link).items():
            self._told.append(msg_id)
            self._inbox.answered(msg_id)
            await link.tell(mark, {"msg_id": msg_id})

    async def _pay(self) -> None:
        while True:
            try:
                link = await self._line.wait_link()
            except PushactorsError:
                return
            if not self._due(link):
                await self._changed.park()
                continue
            try:
                await self.tell(link)
                told = list(self._told)
                await link.request("alias.get", {}, lambda _: None)
            except Disconnected:
                continue
            except Busy as busy:
                self._told = []
                await trio.sleep(busy.retry_after_s)
                continue
            except PushactorsError:
                # No answer that says anything: they are told again on the next visit.
                continue
            self._tray.told(told)
            await self._tray.commit()
            self._told = [msg_id for msg_id in self._told if msg_id not in told]

    def _due(self, link: Link) -> dict[str, Mark]:
        told = self._told if link is self._link else ()
        return {
            msg_id: debt.mark
            for msg_id, debt in self._tray.debts.items()
            if msg_id not in told
            and self._wishes.permit(debt.alias)
            and not (debt.has_message and self._inbox.is_untaken(msg_id))
        }

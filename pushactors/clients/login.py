"""The device's half of logging in: the wanted alias is told to the server until it answers (C14).

1. A wish fences from the moment it is made, and is told when the identity file has it.
2. On a visit wishes are told one by one, each behind what the one before had declined: what waits for a user must wait
   when he logs in (C25). A new visit names the latest in its `connect`, which answers them all.
3. A refusal is for whoever awaits it, and nothing else happens. If nobody does, it ends the client: to carry on under
   the alias that was to be left would show one user what is meant for another.
4. A server that is busy is asked again, unless somebody awaits the answer and can decide that himself.
5. The identity file forgets a wish when the tray has it on the disk who is logged in now: after a crash one of them
   hides what is meant for somebody else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio
from trio.lowlevel import ParkingLot

from pushactors.clients.identity import Identity
from pushactors.clients.inbox import Inbox
from pushactors.clients.line import Line
from pushactors.clients.link import Link
from pushactors.clients.partings import Disconnected
from pushactors.clients.tray import Tray
from pushactors.clients.wishes import Wish, Wishes
from pushactors.errors import AliasFull, Busy, Invalid, PushactorsError, Unauthorized
from pushactors.wire.codec import structure_answer
from pushactors.wire.device import AliasAnswer


class Login:
    """`changed` is unparked at every wish, and when what may be shown or acknowledged is another."""

    def __init__(
        self, identity: Identity, wishes: Wishes, inbox: Inbox, changed: ParkingLot, tray: Tray | None = None
    ) -> None:
        self._identity = identity
        self._wishes = wishes
        self._inbox = inbox
        self._changed = changed
        self._tray = tray

    async def set(self, alias: str, token: str | None = None) -> None:
        """Returns when the server has confirmed it. Raises its refusal. Cancelled, the wish stays."""
        wish = await self.wish(alias, token, is_awaited=True)
        try:
            await wish.over.wait()
        finally:
            wish.is_awaited = False
        if wish.error is not None:
            raise wish.error

    async def wish(self, alias: str, token: str | None = None, *, is_awaited: bool) -> Wish:
        """Returns when the wish is kept."""
        wish = self._wishes.make(alias, is_awaited=is_awaited, token=token)
        # What is drawn now must not be seen any more.
        self._changed.unpark_all()
        try:
            await self._keep()
        except BaseException:
            self._wishes.withdraw(wish)
            self._want()
            self._inbox.refused()
            self._changed.unpark_all()
            raise
        wish.is_kept = True
        self._changed.unpark_all()
        return wish

    async def run(self, line: Line, tell_declined: Callable[[], Awaitable[None]]) -> None:
        """Tells wishes for as long as the line lasts; when it has ended, they fail with its error.

        `tell_declined` may raise why nothing can be told any more."""
        while True:
            while (wish := self._wishes.oldest) is None:
                await self._changed.park()
            try:
                link = await line.wait_link()
                await tell_declined()
                if wish is self._wishes.oldest:
                    await self._tell(line, link, wish)
            except PushactorsError as error:
                line.end(error)
                self._wishes.leave_all_open(error)

    def granted(self, wish: Wish | None, alias: str | None) -> None:
        """The answer to `connect` was read; `wish` is the one that it named."""
        if wish is not None:
            self._wishes.grant(wish)
        self._inbox.begin(alias)

    async def confirmed(self) -> None:
        """The file forgets what was answered."""
        if self._tray is not None:
            await self._tray.commit()
        await self._keep()

    async def refused(self, wish: Wish, error: PushactorsError) -> None:
        """The server does not want that alias. Raises `error` if nobody else hears of it."""
        is_heard = wish.is_awaited
        if is_heard:
            self._wishes.refuse(wish, error)
        else:
            self._wishes.leave_open(wish, error)
        self._inbox.refused()
        self._changed.unpark_all()
        await self._keep()
        if not is_heard:
            raise error

    async def _tell(self, line: Line, link: Link, wish: Wish) -> None:
        try:
            await link.request("alias.set", wish.params(), partial(self._answered, wish))
        except Disconnected:
            return
        except Busy as error:
            if wish.is_awaited:
                await self.refused(wish, error)
            else:
                await trio.sleep(error.retry_after_s)
        except PushactorsError as error:
            if not wish.is_awaited:
                # First of all, or the refusal would set free what nobody may be shown now (law 3).
                line.end(error)
            await self.refused(wish, error)
        else:
            await self.confirmed()

    def _answered(self, wish: Wish, result: object) -> None:
        answer = structure_answer(AliasAnswer, result)
        self._wishes.grant(wish)
        self._inbox.logged_in(answer.alias)
        self._changed.unpark_all()

    async def _keep(self) -> None:
        self._want()
        await self._identity.save()

    def _want(self) -> None:
        wish = self._wishes.last
        if wish is None:
            self._identity.want(None)
        else:
            self._identity.want(wish.alias, wish.token)


def is_about_alias(error: PushactorsError) -> bool:
    """Whether a `connect` was refused because of the alias that it named."""
    return isinstance(error, AliasFull) or (
        isinstance(error, Invalid | Unauthorized) and error.path in ("alias", "alias_token")
    )

"""What an application on a device uses: messages to iterate over, an alias, tags; the connection looks after itself.

1. `async for` gives every message once, in order. A message is acknowledged when the loop comes back for the next one,
   or by `acknowledge`; one that was not is given again by the next start.
2. Requests wait for a connection; one that was under way when it broke raises `Disconnected`. A wanted alias does not:
   it is kept, and told until the server has answered.
3. From the moment another alias is asked for, nothing is shown that is addressed to anybody else (C14).
   With a `tray`, notifications go there and are drawn from there; the loop gives what has a custom message (C23).
4. When the server says not to come back, the loop and all requests raise why, by name; after `unregister` the loop
   just ends.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import trio
from trio.lowlevel import ParkingLot

from pushactors.clients.background import Background
from pushactors.clients.backoff import Backoff
from pushactors.clients.debts import Debts
from pushactors.clients.door import Door, OpenStream
from pushactors.clients.events import DeviceEvent
from pushactors.clients.identity import Identity
from pushactors.clients.line import Line
from pushactors.clients.link import CLOSE_LIMIT_S
from pushactors.clients.partings import Closed, Disconnected
from pushactors.clients.scribe import Scribe
from pushactors.clients.tray import Tray
from pushactors.clients.visitor import Visitor
from pushactors.errors import Invalid
from pushactors.wire.codec import structure_answer
from pushactors.wire.device import AliasAnswer, MessageNote, TagsAnswer
from pushactors.wire.ids import Platform, parse_alias, parse_msg_id

T = TypeVar("T")


class DeviceClient:
    """One installation of an app, from `async with` to its end. Use it from one Trio run; iterate in one task.

    `identity` is the file that makes this the same device at the next start; without one every start is a new device.
    `alias` and `tags`, where given, replace what the device has when it connects (`""` and `[]` clear); `alias_token`
    is the app server's word for the alias, where the app demands one (C17). `open_stream` replaces the TCP or TLS
    connection that `url` means.
    """

    def __init__(
        self,
        url: str,
        app_key: str,
        *,
        identity: Path | str | None = None,
        alias: str | None = None,
        alias_token: str | None = None,
        tags: Iterable[str] | None = None,
        tray: Tray | None = None,
        platform: Platform | str = Platform.OTHER,
        on_event: Callable[[DeviceEvent], None] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        open_stream: OpenStream | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        if alias:
            parse_alias(alias)
        elif alias_token:
            raise Invalid("An alias_token comes with its alias.", "alias")
        self._alias_at_start = alias
        self._token_at_start = alias_token
        self._tray = tray
        self._identity = Identity(app_key, None if identity is None else Path(identity))
        # Not `tray or …`: a tray in which nobody waits is no less one.
        self._changed = ParkingLot() if tray is None else tray.changed
        self._visitor = Visitor(
            app_key,
            Platform(platform),
            None if tags is None else sorted(tags),
            self._identity,
            self._changed,
            on_event,
            tray,
        )
        self._inbox = self._visitor.inbox
        door = Door(url, None, ssl_context, open_stream)
        self._line = Line(door, self._visitor, backoff or Backoff(), self._changed)
        self._scribe = Scribe(self._inbox, self._identity.shown, self._line, self._changed, tray)
        wishes = self._visitor.wishes
        self._debts = None if tray is None else Debts(tray, self._inbox, wishes, self._line, self._changed)
        self._background = Background()
        self._is_iterated = False
        self._is_unregistered = False

    async def __aenter__(self) -> Self:
        """Does not wait for a connection. Raises `IdentityUnusable`."""
        await self._identity.load()
        alias, token = self._alias_at_start, self._token_at_start
        if alias is None:
            alias, token = self._identity.wanted_alias, self._identity.wanted_alias_token
        if alias is not None:
            await self._visitor.login.wish(alias, token, is_awaited=False)
        if self._tray is not None:
            # Behind the wish, and before the file is read: nobody sees what is meant for somebody else.
            self._tray.fence(self._visitor.wishes.permit)
            await self._tray.load()
        tasks: list[Callable[[], Awaitable[None]]] = [self._line.run, self._scribe.run]
        tasks.append(partial(self._visitor.login.run, self._line, self._scribe.tell_declined))
        if self._debts is not None:
            tasks.append(self._debts.run)
        await self._background.open(*tasks)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._line.error is None and (error is None or isinstance(error, Exception)):
                with trio.move_on_after(CLOSE_LIMIT_S):
                    await self._tell_the_rest()
                    await self._line.aclose()
        finally:
            self._visitor.wishes.leave_all_open(Closed("This client has been closed."))
            await self._background.close()

    async def _tell_the_rest(self) -> None:
        await self._scribe.flush()
        # Messages can be here before the greeting has been dealt with. If the visit ends, nothing is owed on it.
        while self._inbox.is_owing and self._line.link is None and self._line.error is None:
            await self._changed.park()
        await self._scribe.flush()
        if self._debts is not None and self._line.link is not None:
            with suppress(Disconnected):
                await self._debts.tell(self._line.link)

    # --- Messages ----------------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> MessageNote:
        if self._is_iterated:
            raise trio.BusyResourceError("Another task is waiting for the next message.")
        self._is_iterated = True
        try:
            self._take()
            await trio.lowlevel.checkpoint()
            while True:
                # Before a look into the inbox: what an ended line left there may be fenced.
                if self._line.error is not None and self._is_unregistered:
                    raise StopAsyncIteration
                self._line.check()
                if (note := self._inbox.show()) is not None:
                    # It may have been the last one, which the scribe waits for.
                    self._changed.unpark_all()
                    return note
                await self._changed.park()
        finally:
            self._is_iterated = False

    async def acknowledge(self, message: MessageNote) -> None:
        """Says that this message is done with, before the loop comes back. On return it will not be shown again."""
        if self._inbox.holds(message.msg_id):
            self._take()
        await self._scribe.wait_recorded(message.msg_id)

    def _take(self) -> None:
        self._inbox.take()
        self._changed.unpark_all()

    async def opened(self, msg_id: str) -> None:
        """The user opened it. Of an entry of the tray it is `tray.open`; else it is told once, and not confirmed."""
        if self._tray is None or not await self._tray.open(msg_id):
            await self._mark("opened", msg_id)

    async def dismissed(self, msg_id: str) -> None:
        """The user dismissed it; otherwise as `opened`."""
        if self._tray is None or not await self._tray.dismiss(msg_id):
            await self._mark("dismissed", msg_id)

    async def _mark(self, mark: str, msg_id: str) -> None:
        parse_msg_id(msg_id)
        link = await self._line.wait_link()
        await link.tell(mark, {"msg_id": msg_id})

    # --- Who this device is ------------------------------------------------------------------------------------

    @property
    def registration_id(self) -> str | None:
        """None until the first registration was answered."""
        return self._identity.registration_id

    @property
    def alias(self) -> str | None:
        """The alias that the server last said this device has."""
        return self._inbox.alias

    @property
    def connected(self) -> bool:
        return self._line.link is not None and not self._line.link.is_over

    async def wait_connected(self) -> None:
        """Raises why there will be no connection any more."""
        await self._line.wait_link()

    async def set_alias(self, alias: str, token: str | None = None) -> None:
        """Returns when the server has confirmed it. Raises its refusal by name; then the alias is what it was.

        A token that is missing or does not fit is `Unauthorized` with the path `alias_token` (C17)."""
        await self._visitor.login.set(parse_alias(alias), token)

    async def clear_alias(self) -> None:
        await self._visitor.login.set("")

    async def get_alias(self) -> str | None:
        return (await self._ask("alias.get", {}, AliasAnswer)).alias

    async def set_tags(self, tags: Iterable[str]) -> tuple[str, ...]:
        """Replaces them all. These four return all tags of the device, sorted."""
        return (await self._ask("tags.set", {"tags": sorted(tags)}, TagsAnswer)).tags

    async def add_tags(self, tags: Iterable[str]) -> tuple[str, ...]:
        return (await self._ask("tags.add", {"tags": sorted(tags)}, TagsAnswer)).tags

    async def remove_tags(self, tags: Iterable[str]) -> tuple[str, ...]:
        return (await self._ask("tags.remove", {"tags": sorted(tags)}, TagsAnswer)).tags

    async def get_tags(self) -> tuple[str, ...]:
        return (await self._ask("tags.get", {}, TagsAnswer)).tags

    async def unregister(self) -> None:
        """Deletes this device and forgets its registration. The client has ended; the next one registers anew."""
        link = await self._line.wait_link()
        await link.request("unregister", {}, self._unregistered)
        self._identity.forget()
        await self._identity.save()

    def _unregistered(self, _: object) -> None:
        self._is_unregistered = True

    async def _ask(self, method: str, params: dict[str, object], cls: type[T]) -> T:
        link = await self._line.wait_link()
        return await link.request(method, params, lambda result: structure_answer(cls, result))

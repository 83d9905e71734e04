"""A device on its visits: what it says first, and what it does with what it hears.

1. The first frame is `connect`; its answer is taken in the step in which it is read, before the messages behind it.
2. Tags that the application gave at the start are named until a `connect` with them was answered, once.
3. A registration is in the identity file before anybody may talk on the link. One that the server says is gone is
   forgotten there.
4. What a later server may announce, and is not known here, is passed over.
5. The application hears of a visit before it hears of anything that happens on it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio
from trio.lowlevel import ParkingLot

from pushactors.clients.events import AliasChanged, Connected, ConnectionLost, DeviceEvent, Recalled
from pushactors.clients.identity import Identity
from pushactors.clients.inbox import Inbox
from pushactors.clients.link import Ending, Link
from pushactors.clients.login import Login, is_about_alias
from pushactors.clients.tray import Tray
from pushactors.clients.wishes import Wish, Wishes
from pushactors.errors import Busy, NoSuchDevice, PushactorsError
from pushactors.wire.closing import Closing
from pushactors.wire.codec import structure_answer
from pushactors.wire.device import AliasNote, ConnectResult, MessageNote, RecallNote
from pushactors.wire.ids import Platform, parse_msg_id
from pushactors.wire.jsonrpc import Note


class Visitor:
    """Owns the line of a device. `changed` is unparked when there is something to show, to tell, or to know."""

    def __init__(
        self,
        app_key: str,
        platform: Platform,
        tags: list[str] | None,
        identity: Identity,
        changed: ParkingLot,
        on_event: Callable[[DeviceEvent], None] | None,
        tray: Tray | None = None,
    ) -> None:
        self.identity = identity
        self.wishes = Wishes()
        self.inbox = Inbox(identity.shown, self.wishes, tray)
        self.login = Login(identity, self.wishes, self.inbox, changed, tray)
        self._app_key = app_key
        self._platform = platform
        self._tags = tags
        self._changed = changed
        self._on_event = on_event
        self._early: list[DeviceEvent] | None = None
        """What happened on a visit that the application has not heard of yet."""

    async def greet(self, link: Link) -> None:
        wish = self.wishes.latest
        self._early = []
        try:
            result = await link.request("connect", self._introduction(wish), partial(self._welcomed, link, wish))
        except PushactorsError as error:
            # The server closes behind a refusal, which cancels this: what was refused must be dealt with first.
            with trio.CancelScope(shield=True):
                if isinstance(error, NoSuchDevice):
                    await self._forget()
                if wish is None or not is_about_alias(error):
                    raise
                await self.login.refused(wish, error)
            raise Busy("The alias was refused: connecting again without it.") from None
        self._tags = None
        if result.device_secret is not None:
            self.identity.registered(result.registration_id, result.device_secret)
        await self.login.confirmed()
        early, self._early = self._early, None
        for event in (Connected(result.registration_id, result.alias, result.waiting), *early):
            self._tell(event)

    def hear(self, note: Note) -> None:
        match note.method:
            case "message":
                message = structure_answer(MessageNote, note.params, "message")
                parse_msg_id(message.msg_id)
                self.inbox.arrive(message)
            case "recall":
                msg_id = structure_answer(RecallNote, note.params, "recall").msg_id
                parse_msg_id(msg_id)
                if self.inbox.recall(msg_id):
                    self._tell(Recalled(msg_id))
            case "alias":
                alias = structure_answer(AliasNote, note.params, "alias").alias
                self.inbox.logged_in(alias)
                self._tell(AliasChanged(alias))
        self._changed.unpark_all()

    async def parted(self, ending: Ending, retry_after_s: float | None) -> None:
        self.inbox.end()
        self._early = None
        if ending.code == Closing.REMOVED.code:
            await self._forget()
        self._tell(ConnectionLost(ending.reason, ending.code, retry_after_s))

    def _introduction(self, wish: Wish | None) -> dict[str, object]:
        params: dict[str, object] = {"app_key": self._app_key, "platform": self._platform}
        if self.identity.registration_id is None:
            params["install_key"] = self.identity.install_key
        else:
            params["registration_id"] = self.identity.registration_id
            params["device_secret"] = self.identity.device_secret
        if wish is not None:
            params.update(wish.params())
        if self._tags is not None:
            params["tags"] = self._tags
        return params

    def _welcomed(self, link: Link, wish: Wish | None, answer: object) -> ConnectResult:
        result = structure_answer(ConnectResult, answer)
        link.beat_every(max(1, result.heartbeat))
        self.login.granted(wish, result.alias)
        return result

    async def _forget(self) -> None:
        self.identity.forget()
        await self.identity.save()

    def _tell(self, event: DeviceEvent) -> None:
        if self._early is not None:
            self._early.append(event)
        elif self._on_event is not None:
            self._on_event(event)

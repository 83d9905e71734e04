"""What an app server uses: one call for every method of the protocol, typed, and errors by name.

1. Any number of tasks may call at once; they share one connection, and each gets its own answer.
2. A call waits up to `timeout_s` for a connection, and for its answer as long as the connection lives.
3. When the connection breaks under a call, it is made again if that is safe: if it only reads, or is a push with a
   `cid`, which the server accepts once (C6). Otherwise it raises `Disconnected`: it may have taken effect or not.
4. A wrong secret is `Unauthorized` at once and for good.
5. A stream of receipts has a connection of its own, and outlives this client. A token needs none.
"""

from __future__ import annotations

import ssl
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

import trio

from pushactors.clients.background import Background
from pushactors.clients.backoff import Backoff
from pushactors.clients.door import Door, OpenStream
from pushactors.clients.line import Line
from pushactors.clients.link import CLOSE_LIMIT_S, Ending, Link
from pushactors.clients.partings import Disconnected
from pushactors.clients.receipts import ReceiptStream, StreamEvent
from pushactors.errors import Invalid
from pushactors.wire import tokens
from pushactors.wire.answers import (
    DeviceInfo,
    DeviceList,
    Holders,
    Presence,
    PushAnswer,
    PushList,
    Recall,
    Report,
    Status,
    TagHolders,
    TagList,
    Timeline,
    Validated,
)
from pushactors.wire.codec import structure_answer
from pushactors.wire.jsonrpc import Note

TIMEOUT_S: Final = 30.0

T = TypeVar("T")
Audience = Literal["all"] | Mapping[str, Iterable[str]]
Content = Mapping[str, object]


class AppClient:
    """One app's way to its server. `open_stream` replaces the TCP or TLS connection that `url` means."""

    def __init__(
        self,
        url: str,
        app_key: str,
        master_secret: str,
        *,
        timeout_s: float = TIMEOUT_S,
        ssl_context: ssl.SSLContext | None = None,
        open_stream: OpenStream | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        credentials = b64encode(f"{app_key}:{master_secret}".encode())
        door = Door(url, [(b"Authorization", b"Basic " + credentials)], ssl_context, open_stream)
        self._door = door
        self._backoff = backoff or Backoff()
        self._line = Line(door, _Silent(), self._backoff)
        self._signature = _Signature(master_secret)
        self._timeout_s = timeout_s
        self._background = Background()

    async def __aenter__(self) -> Self:
        """Does not wait for a connection."""
        await self._background.open(self._line.run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None or isinstance(error, Exception):
                with trio.move_on_after(CLOSE_LIMIT_S):
                    await self._line.aclose()
        finally:
            await self._background.close()

    @property
    def connected(self) -> bool:
        return self._line.link is not None and not self._line.link.is_over

    # --- Pushes ------------------------------------------------------------------------------------------------

    async def push(
        self,
        *,
        audience: Audience,
        notification: Content | None = None,
        message: Content | None = None,
        platform: Literal["all"] | Iterable[str] = "all",
        time_to_live: int | None = None,
        override_msg_id: str | None = None,
        sendno: int | None = None,
        cid: str | None = None,
        deliver_within: int | None = None,
        hold: bool = False,
    ) -> PushAnswer:
        """Returns when the push is accepted and on the server's disk. `time_to_live` is in seconds.

        A target that has no verdict after `deliver_within` seconds is told as an `overdue` receipt (C21). `hold`: the
        push waits for the aliases that it names, not only for the devices where they are logged in now.
        """
        options = _options(sendno, time_to_live, override_msg_id, deliver_within, hold)
        params = _push(audience, notification, message, platform, cid, options)
        return await self._call("push", params, PushAnswer, is_safe=cid is not None)

    async def validate(
        self,
        *,
        audience: Audience,
        notification: Content | None = None,
        message: Content | None = None,
        platform: Literal["all"] | Iterable[str] = "all",
        time_to_live: int | None = None,
        override_msg_id: str | None = None,
        sendno: int | None = None,
        cid: str | None = None,
        deliver_within: int | None = None,
        hold: bool = False,
    ) -> int:
        """How many targets that push would have now. Nothing is stored or sent."""
        options = _options(sendno, time_to_live, override_msg_id, deliver_within, hold)
        params = _push(audience, notification, message, platform, cid, options)
        return (await self._read("push.validate", params, Validated)).targets

    async def recall(self, msg_id: str) -> Recall:
        """Takes a push back: on return nothing more of it is sent, and devices that have it are told (C22)."""
        return await self._call("push.recall", {"msg_id": msg_id}, Recall)

    async def report(self, msg_ids: Iterable[str]) -> list[Report | None]:
        """The numbers of at most 100 pushes, in that order; None for one that this app does not have."""
        return await self._read("report", {"msg_ids": _names(msg_ids, "msg_ids")}, list[Report | None])

    async def status(self, msg_id: str, registration_ids: Iterable[str]) -> dict[str, Status]:
        """What became of a push on each of at most 1000 devices."""
        params = {"msg_id": msg_id, "registration_ids": _names(registration_ids, "registration_ids")}
        return await self._read("status", params, dict[str, Status])

    async def pushes(self, *, before: str | None = None, limit: int | None = None) -> tuple[Report, ...]:
        """The newest pushes (of those before a `msg_id`), newest first, at most 100."""
        return (await self._read("pushes.list", _present(before=before, limit=limit), PushList)).pushes

    async def timeline(self, msg_id: str, registration_id: str | None = None, *, alias: str | None = None) -> Timeline:
        """The course of one delivery: to a device, or of what waits for an alias; one of the two is named."""
        params = _present(msg_id=msg_id, registration_id=registration_id, alias=alias)
        return await self._read("timeline", params, Timeline)

    def receipts(
        self,
        consumer: str | None = None,
        after: str | None = None,
        *,
        auto_acknowledge: bool = True,
        on_event: Callable[[StreamEvent], None] | None = None,
    ) -> ReceiptStream:
        """What becomes of pushes, as it happens: `async with app.receipts("billing") as stream:` and `async for` (C20).

        A `consumer` goes on behind what it acknowledged last, a new one begins now; `after` is a cursor, `"0"` for
        everything kept; with both the consumer is moved there. Coming back for the next receipt acknowledges those
        before it, unless `auto_acknowledge` is off. `on_event` is told of every subscription and lost connection; it
        must not raise. Raises `Invalid`; inside the block `CursorGone`, `StreamDisplaced`, `ReceiptsMissing`.
        """
        backoff = copy(self._backoff)
        backoff.reset()
        return ReceiptStream(
            self._door,
            backoff,
            consumer,
            after,
            timeout_s=self._timeout_s,
            auto_acknowledge=auto_acknowledge,
            on_event=on_event,
        )

    # --- Devices -----------------------------------------------------------------------------------------------

    async def device(self, registration_id: str) -> DeviceInfo:
        return await self._read("devices.get", {"registration_id": registration_id}, DeviceInfo)

    async def devices(self, *, after: str | None = None, limit: int | None = None) -> tuple[DeviceInfo, ...]:
        """Devices in order of their ids, behind `after`, at most 1000, without their mailboxes."""
        return (await self._read("devices.list", _present(after=after, limit=limit), DeviceList)).devices

    async def set_device(
        self,
        registration_id: str,
        *,
        alias: str | None = None,
        add_tags: Iterable[str] = (),
        remove_tags: Iterable[str] = (),
        clear_tags: bool = False,
    ) -> DeviceInfo:
        """None leaves the alias as it is, `""` clears it. `clear_tags` goes without the other two."""
        lists = {"add": _names(add_tags, "tags.add"), "remove": _names(remove_tags, "tags.remove")}
        edit = {name: tags for name, tags in lists.items() if tags}
        if edit and clear_tags:
            raise ValueError("clear_tags goes without add_tags and remove_tags.")
        tags: object = [] if clear_tags else edit or None
        params = _present(registration_id=registration_id, alias=alias, tags=tags)
        return await self._call("devices.set", params, DeviceInfo)

    async def delete_device(self, registration_id: str) -> None:
        """Deletes the device, closes its visit, and settles what waited for it as `missed`."""
        await self._call("devices.delete", {"registration_id": registration_id}, object)

    async def presence(self, registration_ids: Iterable[str]) -> dict[str, Presence]:
        """Of at most 1000 devices; unknown ones are left out."""
        params = {"registration_ids": _names(registration_ids, "registration_ids")}
        return await self._read("presence", params, dict[str, Presence])

    # --- Aliases and tags --------------------------------------------------------------------------------------

    async def alias(self, alias: str) -> tuple[str, ...]:
        """The devices that have it."""
        return (await self._read("aliases.get", {"alias": alias}, Holders)).registration_ids

    async def delete_alias(self, alias: str) -> tuple[str, ...]:
        """Takes it from all its devices, and says from which."""
        return (await self._call("aliases.delete", {"alias": alias}, Holders)).registration_ids

    def alias_token(self, alias: str, *, expires_in_s: int = 3600, registration_id: str | None = None) -> str:
        """What a device may log `alias` in with, for that long (C17); `registration_id`: only that device.

        Made here, without a connection. Raises `Invalid`."""
        if expires_in_s < 1:
            raise Invalid("A token must be good for a second at least.", "expires_in_s")
        return self._signature.token(alias, int(time.time()) + expires_in_s, registration_id)

    async def tags(self) -> tuple[str, ...]:
        return (await self._read("tags.list", {}, TagList)).tags

    async def tag(self, tag: str) -> TagHolders:
        return await self._read("tags.get", {"tag": tag}, TagHolders)

    # --- Calls -------------------------------------------------------------------------------------------------

    async def _read(self, method: str, params: Mapping[str, object], cls: type[T]) -> T:
        return await self._call(method, params, cls, is_safe=True)

    async def _call(self, method: str, params: Mapping[str, object], cls: type[T], *, is_safe: bool = False) -> T:
        while True:
            link = await self._line.wait_link_within(self._timeout_s)
            try:
                return await link.request(method, params, lambda result: structure_answer(cls, result))
            except Disconnected:
                if not is_safe:
                    raise


@dataclass(frozen=True, slots=True)
class _Signature:
    master_secret: str = field(repr=False)

    def token(self, alias: str, expires_at_s: int, registration_id: str | None) -> str:
        return tokens.make(alias, self.master_secret, expires_at_s, registration_id)


class _Silent:
    """An app server says nothing first, and is told nothing that it did not ask for."""

    async def greet(self, link: Link) -> None:
        pass

    def hear(self, note: Note) -> None:
        pass

    async def parted(self, ending: Ending, retry_after_s: float | None) -> None:
        pass


def _push(
    audience: Audience,
    notification: Content | None,
    message: Content | None,
    platform: Literal["all"] | Iterable[str],
    cid: str | None,
    options: dict[str, object],
) -> dict[str, object]:
    return _present(
        audience=audience if isinstance(audience, str) else _audience(audience),
        platform=platform if isinstance(platform, str) else list(platform),
        cid=cid,
        notification=notification,
        message=message,
        options=options or None,
    )


def _options(
    sendno: int | None, time_to_live: int | None, override_msg_id: str | None, deliver_within: int | None, hold: bool
) -> dict[str, object]:
    return _present(
        sendno=sendno,
        time_to_live=time_to_live,
        override_msg_id=override_msg_id,
        deliver_within=deliver_within,
        # Not said unless it is meant: a server of yesterday does not know it.
        hold=hold or None,
    )


def _audience(audience: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    return {key: _names(names, f"audience.{key}") for key, names in audience.items()}


def _names(names: Iterable[str], path: str) -> list[str]:
    if isinstance(names, str):
        # Python would take it letter by letter.
        raise Invalid(f"{path} must be a list: [{names!r}], not {names!r}.", path)
    return list(names)


def _present(**members: Any) -> dict[str, object]:
    return {name: value for name, value in members.items() if value is not None}

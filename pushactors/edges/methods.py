"""What app servers can ask: every method, from its params to its result.

1. A method decides and returns; whoever called it tells the result when it may be told (`Result.waits`, C2).
2. A method of one app sees that app only.
3. Reports are exact: store and wire are read at one instant (C1, C18).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from pushactors.actors.fanout import Push
from pushactors.actors.router import NO_TAG_CHANGE, TagChange
from pushactors.domain.aliases import Registration
from pushactors.domain.audience import Audience
from pushactors.domain.message import Mark, Verdict
from pushactors.edges.following import Following
from pushactors.edges.house import App
from pushactors.edges.results import Result
from pushactors.edges.timelines import timeline
from pushactors.errors import NoSuchMessage
from pushactors.stores.contract import ReportRow, StatusRow
from pushactors.wire import answers
from pushactors.wire import app as wire
from pushactors.wire.codec import structure
from pushactors.wire.device import Nothing
from pushactors.wire.ids import Alias, Millis, MsgId, RegistrationId
from pushactors.wire.jsonrpc import UnknownMethod

T = TypeVar("T")

TAG_HOLDERS_TOLD = 1_000


class Methods:
    """The methods of one app. `call` raises what the peer is to be told."""

    def __init__(self, app: App, clock: Callable[[], Millis]) -> None:
        self._app = app
        self._clock = clock
        self._methods: Mapping[str, Callable[[Any], Awaitable[Result]]] = {
            "push": self._push,
            "push.validate": self._validate,
            "push.recall": self._recall,
            "report": self._report,
            "status": self._status,
            "timeline": self._timeline,
            "pushes.list": self._list_pushes,
            "devices.get": self._get_device,
            "devices.list": self._list_devices,
            "devices.set": self._set_device,
            "devices.delete": self._delete_device,
            "aliases.get": self._get_alias,
            "aliases.delete": self._delete_alias,
            "tags.list": self._list_tags,
            "tags.get": self._get_tag,
            "presence": self._presence,
        }

    async def call(self, method: str, params: Mapping[str, object], following: Following) -> Result:
        """`following`: the receipt stream of the session that asks. Raises a `PushactorsError`, then nothing has
        changed."""
        handle = self._methods.get(method)
        if handle is None and not following.has(method):
            raise UnknownMethod(f"There is no method {method[:40]!r}.")
        self._app.requests.take("")
        if handle is None:
            return await following.call(method, params)
        await self._app.router.sound()
        return await handle(params)

    # --- Pushes ------------------------------------------------------------------------------------------------------

    async def _push(self, params: object) -> Result:
        asked = structure(wire.PushParams, params)
        self._app.pushes.take("")
        accepted = await self._app.fanout.accept(_push_of(asked))
        answer = answers.PushAnswer(
            msg_id=str(accepted.msg_id),
            sendno=accepted.sendno,
            targets=accepted.targets,
            online=accepted.online,
            absent=accepted.targets - accepted.online,
        )
        return Result(answer, waits=accepted.is_durable_first)

    async def _validate(self, params: object) -> Result:
        push = _push_of(structure(wire.PushParams, params))
        return Result({"targets": await self._app.fanout.count_targets(push)})

    async def _recall(self, params: object) -> Result:
        split = await self._app.recalls.recall(structure(wire.OneMessage, params).msg_id)
        return Result(answers.Recall(*split), waits=False)

    async def _timeline(self, params: object) -> Result:
        return Result(await timeline(self._app, structure(wire.TimelineOf, params)), waits=False)

    async def _report(self, params: object) -> Result:
        msg_ids = structure(wire.MsgIds, params).msg_ids
        rows, on_the_wire = await self._read(msg_ids, lambda: self._app.store.reports(self._app.tenant.app_no, msg_ids))
        reports = [
            None if msg_id not in rows else _report(rows[msg_id], sent)
            for msg_id, sent in zip(msg_ids, on_the_wire, strict=True)
        ]
        return Result(reports, waits=False)

    async def _list_pushes(self, params: object) -> Result:
        asked = structure(wire.ListPushes, params)
        app_no = self._app.tenant.app_no
        # Which they are is one question, what they are like at one instant the next.
        found, _ = await self._read([], lambda: self._app.store.pushes(app_no, asked.before, asked.limit))
        msg_ids = [row.msg_id for row in found]
        rows, on_the_wire = await self._read(msg_ids, lambda: self._app.store.reports(app_no, msg_ids))
        reports = [
            {**_report(rows[msg_id], sent), "sent_at": rows[msg_id].sent_at}
            for msg_id, sent in zip(msg_ids, on_the_wire, strict=True)
            if msg_id in rows
        ]
        return Result({"pushes": reports}, waits=False)

    async def _status(self, params: object) -> Result:
        asked = structure(wire.StatusParams, params)
        ids = asked.registration_ids
        here: dict[RegistrationId, tuple[bool, Millis] | None] = {}

        async def ask() -> Mapping[RegistrationId, StatusRow | None] | None:
            # At the same instant: what the devices that are here as actors have of it.
            here.update(self._unsettled_here(asked.msg_id, ids))
            return await self._app.store.statuses(self._app.tenant.app_no, asked.msg_id, ids)

        rows, _ = await self._read([], ask)
        if rows is None:
            raise NoSuchMessage("This app has no push with this msg_id, or it was too long ago.")
        return Result({each: _status(rows, each, here) for each in ids}, waits=False)

    def _unsettled_here(
        self, msg_id: MsgId, ids: Iterable[RegistrationId]
    ) -> dict[RegistrationId, tuple[bool, Millis] | None]:
        """Of each of those devices that is here: whether this delivery is sent, and since when; None: it is settled."""
        found: dict[RegistrationId, tuple[bool, Millis] | None] = {}
        for registration_id in ids:
            registration = self._app.router.directory.find(registration_id)
            actor = self._app.device(registration.device_no) if registration is not None else None
            if actor is not None:
                found[registration_id] = next(
                    ((is_sent, at) for each, is_sent, at in actor.contents() if each == msg_id), None
                )
        return found

    async def _read(self, msg_ids: Collection[MsgId], ask: Callable[[], Awaitable[T]]) -> tuple[T, list[int]]:
        return await self._app.ledger.read(self._app.tenant.book, msg_ids, ask)

    # --- Devices -----------------------------------------------------------------------------------------------------

    async def _get_device(self, params: object) -> Result:
        return Result(await self._device(structure(wire.OneDevice, params).registration_id))

    async def _list_devices(self, params: object) -> Result:
        asked = structure(wire.ListDevices, params)
        page = self._app.router.directory.page(asked.after, asked.limit)
        return Result({"devices": [self._describe(registration) for registration in page]})

    async def _set_device(self, params: object) -> Result:
        asked = structure(wire.DeviceSet, params)
        match asked.tags:
            case wire.TagEdit(add, remove):
                tags = TagChange(add, remove)
            case None:
                tags = NO_TAG_CHANGE
            case _:
                tags = TagChange(replace=True)
        alias = None if asked.alias is None else Alias(asked.alias)
        await self._app.router.change(asked.registration_id, alias, tags)
        return Result(await self._device(asked.registration_id))

    async def _delete_device(self, params: object) -> Result:
        await self._app.registrar.delete(structure(wire.OneDevice, params).registration_id)
        return Result(None)

    async def _presence(self, params: object) -> Result:
        directory = self._app.router.directory
        found = (directory.find(each) for each in structure(wire.PresenceParams, params).registration_ids)
        return Result({each.registration_id: self._presence_of(each) for each in found if each is not None})

    async def _device(self, registration_id: RegistrationId) -> dict[str, Any]:
        contents = await self._app.router.mailbox(registration_id)
        mailbox = [
            {"msg_id": str(msg_id), "state": "sent" if is_sent else "waiting", "at": at}
            for msg_id, is_sent, at in contents
        ]
        return {**self._describe(self._app.router.find(registration_id)), "mailbox": mailbox}

    def _describe(self, registration: Registration) -> dict[str, Any]:
        return {
            "registration_id": registration.registration_id,
            "platform": registration.platform,
            "alias": registration.alias,
            "tags": registration.tags,
            **self._presence_of(registration),
        }

    def _presence_of(self, registration: Registration) -> dict[str, Any]:
        online = self._app.router.is_present(registration)
        return {"online": online, "last_seen_at": self._clock() if online else registration.last_seen_at}

    # --- Aliases and tags --------------------------------------------------------------------------------------------

    async def _get_alias(self, params: object) -> Result:
        holders = self._app.router.directory.holders(structure(wire.OneAlias, params).alias)
        return Result({"registration_ids": [holder.registration_id for holder in holders]})

    async def _delete_alias(self, params: object) -> Result:
        return Result({"registration_ids": await self._app.router.delete_alias(structure(wire.OneAlias, params).alias)})

    async def _list_tags(self, params: object) -> Result:
        structure(Nothing, params)
        return Result({"tags": self._app.router.directory.tags()})

    async def _get_tag(self, params: object) -> Result:
        tagged = self._app.router.directory.tagged(structure(wire.OneTag, params).tag)
        ids = [registration.registration_id for registration in tagged[:TAG_HOLDERS_TOLD]]
        return Result({"registration_ids": ids, "count": len(tagged)})


def _push_of(asked: wire.PushParams) -> Push:
    audience = asked.audience
    return Push(
        Audience()
        if isinstance(audience, str)
        else Audience(audience.alias, audience.registration_id, audience.tag, audience.tag_and, audience.tag_not),
        frozenset(asked.platforms),
        asked.options.time_to_live,
        asked.options.override_msg_id,
        asked.body(),
        asked.options.sendno,
        asked.cid,
        asked.digest() if asked.cid is not None else b"",
        asked.options.deliver_within,
        asked.options.hold,
    )


def _report(row: ReportRow, sent: int) -> dict[str, Any]:
    return {
        "msg_id": str(row.msg_id),
        "targets": row.targets,
        "waiting": row.unsettled - sent,
        "sent": sent,
        **{verdict.word: row.verdicts.get(verdict, 0) for verdict in Verdict},
        **{mark.word: row.marks.get(mark, 0) for mark in Mark},
    }


RECEIVED, NOT_RECEIVED, NOT_A_DEVICE, NOT_A_TARGET = range(4)


def _status(
    rows: Mapping[RegistrationId, StatusRow | None],
    device: RegistrationId,
    here: Mapping[RegistrationId, tuple[bool, Millis] | None],
) -> dict[str, Any]:
    """C19."""
    if device not in rows:
        return {"code": NOT_A_DEVICE, "state": None, "at": None}
    row = rows[device]
    if row is None:
        return {"code": NOT_A_TARGET, "state": None, "at": None}
    if row.verdict is not None:
        code = RECEIVED if row.verdict is Verdict.RECEIVED else NOT_RECEIVED
        return {"code": code, "state": row.verdict.word, "at": row.at}
    # Not told yet what its mailbox has just decided: until then it is what it was, on the wire.
    is_sent, at = here.get(device, (False, row.at)) or (True, row.at)
    return {"code": NOT_RECEIVED, "state": "sent" if is_sent else "waiting", "at": at}

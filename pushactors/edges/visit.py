"""One visit of one device: what comes over its connection, and what goes.

1. It owns one connection, and decides nothing: what the device says goes to its actor or to its app's registrar and
   router; what they decide comes back as frames.
2. A request is answered when what it changed is durable (C2), and before anything else is sent (C14). Requests are
   taken one after another.
3. A notification that cannot be understood cannot be answered: it ends the visit (4502).
4. It is ended once, by whoever is first: the peer, an actor (`end`), or a look that finds it silent, stuck, or too slow
   (C12). Whoever it was, its actor hears of it at once, under the number of this visit.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import trio

from pushactors.actors.device import DeviceActor
from pushactors.actors.registrar import Welcome
from pushactors.actors.router import TagChange
from pushactors.actors.tally import Tally
from pushactors.actors.visits import Ending
from pushactors.domain.message import Mark, Message
from pushactors.edges.connection import Connection, PeerFault
from pushactors.edges.house import App
from pushactors.edges.letters import Letters
from pushactors.edges.rates import Changes
from pushactors.errors import ActorCrashed, Invalid, PushactorsError
from pushactors.wire import device as wire
from pushactors.wire.closing import Closing
from pushactors.wire.codec import structure
from pushactors.wire.ids import Alias, DeviceNo, MsgId, RegistrationId, VisitId
from pushactors.wire.jsonrpc import (
    Malformed,
    Note,
    Reply,
    Request,
    UnknownMethod,
    error_frame,
    note_frame,
    read_frame,
    result_frame,
)

log = logging.getLogger(__name__)

CLOSINGS: Mapping[Ending, Closing] = {
    Ending.STOPPED: Closing.GOING_AWAY,
    **{ending: Closing[ending.name] for ending in Ending if ending is not Ending.STOPPED},
}
MARKS = {"opened": Mark.OPENED, "dismissed": Mark.DISMISSED, "withdrawn": Mark.WITHDRAWN}
# No more messages are put into a buffer that is filled to this part: they wait in the mailbox, where they can still
# give way. The rest is for answers.
FILLED_WITH_MESSAGES = 1 / 4


@dataclass(frozen=True, slots=True)
class Patience:
    """What a visit is granted, in seconds (C12)."""

    heartbeat_s: float
    ack_timeout_s: float


class DeviceVisit:
    """A visit whose `connect` is being judged, and afterwards. Implements `actors.visits.Visit`."""

    def __init__(
        self,
        visit_id: VisitId,
        connection: Connection,
        app: App,
        letters: Letters,
        changes: Changes,
        patience: Patience,
        tally: Tally,
    ) -> None:
        self._visit_id = visit_id
        self._connection = connection
        self._app = app
        self._letters = letters
        self._patience = patience
        self._tally = tally
        self._changes = changes
        self._scope = trio.CancelScope()
        self._welcome: Welcome | None = None
        self._ending: Ending | None = None
        self._retry_after_s: int | None = None
        self._is_listening = False
        self._has_left = False
        self._has_refused = False
        self._pinged_at = 0.0
        self._requests: Mapping[str, Callable[[dict[str, object]], Awaitable[object]]] = {
            "alias.set": self._set_alias,
            "alias.get": self._get_alias,
            "tags.set": self._set_tags,
            "tags.add": self._add_tags,
            "tags.remove": self._remove_tags,
            "tags.get": self._get_tags,
            "unregister": self._unregister,
        }

    # --- What actors see ---------------------------------------------------------------------------------------------

    @property
    def visit_id(self) -> VisitId:
        return self._visit_id

    def is_taking(self) -> bool:
        filled = self._connection.stream.outgoing_bytes / self._connection.max_outgoing_bytes
        taking = self._ending is None and filled < FILLED_WITH_MESSAGES
        self._has_refused = self._has_refused or not taking
        return taking

    def hand(self, message: Message, alias: Alias | None) -> None:
        assert self._welcome is not None
        self._connection.put(self._letters.frame(message, self._welcome.platform, alias))

    def tell_alias(self, alias: Alias | None) -> None:
        self._connection.put_text(note_frame("alias", {"alias": alias}))

    def tell_recall(self, msg_id: MsgId) -> None:
        self._connection.put_text(note_frame("recall", {"msg_id": str(msg_id)}))

    def end(self, why: Ending, retry_after_s: int | None = None) -> None:
        if self._ending is None:
            self._ending = why
            self._retry_after_s = retry_after_s
            # A request that is being taken is answered first.
            if self._is_listening:
                self._scope.cancel()

    # --- Its course --------------------------------------------------------------------------------------------------

    def welcomed(self, welcome: Welcome) -> None:
        """The `connect` was granted: the actor hands messages to this visit from now on."""
        self._welcome = welcome

    async def run(self) -> None:
        """From the answered `connect` to the close frame. Returns when the connection is closed."""
        assert self._welcome is not None
        self._connection.stream.on_drained = self._drained
        fault: PeerFault | None = None
        try:
            with self._scope:
                await self._listen()
        except PeerFault as found:
            fault = found
        except ActorCrashed:
            self.end(Ending.RESTARTED)
        except Exception:  # a fault of ours ends this visit only; it is told to come back
            log.exception("A visit failed.")
            self._tally.add("faults", "visit")
            self.end(Ending.RESTARTED)
        finally:
            self._ending = self._ending or Ending.PROTOCOL
            self._app.registrar.leave(self._welcome.registration_id, self._visit_id)
        await self._farewell(fault)

    async def _listen(self) -> None:
        actor = self._actor()
        if actor is None:
            raise ActorCrashed("The device's actor ended before its visit began.")
        with suppress(ActorCrashed):
            actor.resume(self._visit_id)
        while self._ending is None:
            self._is_listening = True
            text = await self._connection.receive()
            self._is_listening = False
            if text is None:
                self._has_left = True
                return
            await self._app.tenant.book.room()
            if self._ending is not None:
                return
            await self._take(text)
            # What it said while it was kept waiting is not read yet: it was not silent.
            self._connection.last_heard = trio.current_time()

    async def _farewell(self, fault: PeerFault | None) -> None:
        if self._has_left:
            self._tally.add("visits_ended", "left")
            await self._connection.close(Closing.NORMAL.code, "")
        elif fault is not None:
            self._tally.add("visits_ended", "protocol")
            await self._connection.close(fault.code, str(fault))
        else:
            assert self._ending is not None
            closing = CLOSINGS[self._ending]
            self._tally.add("visits_ended", self._ending.value)
            reason = Closing.DRAIN.reason if self._ending is Ending.STOPPED else closing.reason
            retry_after_s = self._retry_after_s
            if retry_after_s is None and closing.comes_back:
                retry_after_s = 1
            self._connection.put_text(note_frame("goodbye", {"reason": reason, "retry_after": retry_after_s}))
            await self._connection.close(closing.code, closing.reason)

    def _actor(self) -> DeviceActor | None:
        return self._app.device(self._device_no)

    def _drained(self) -> None:
        if self._has_refused and self._ending is None:
            self._has_refused = False
            actor = self._actor()
            if actor is not None:
                with suppress(ActorCrashed):
                    actor.pump()

    # --- What the device says ----------------------------------------------------------------------------------------

    async def _take(self, text: str) -> None:
        entries, _ = read_frame(text, batches=False)
        for entry in entries:
            match entry:
                case Note():
                    self._note(entry)
                case Request():
                    await self._answer(entry)
                case Malformed(is_note=True) | Reply():
                    self.end(Ending.PROTOCOL)
                case Malformed():
                    self._tally.add("refused", "malformed")
                    self._connection.put_text(error_frame(entry.id, entry))

    def _note(self, note: Note) -> None:
        try:
            msg_id = structure(wire.About, note.params).msg_id
        except Invalid:
            self.end(Ending.PROTOCOL)
            return
        actor = self._actor()
        if actor is None:
            self.end(Ending.RESTARTED)
            return
        try:
            self._say(actor, note.method, msg_id)
        except ActorCrashed:
            self.end(Ending.RESTARTED)

    def _say(self, actor: DeviceActor, method: str, msg_id: MsgId) -> None:
        if method == "received":
            counted = actor.acknowledge(self._visit_id, msg_id)
        elif method == "declined":
            counted = actor.decline(self._visit_id, msg_id)
        elif method in MARKS:
            actor.mark(msg_id, MARKS[method])
            counted = True
        else:
            self.end(Ending.PROTOCOL)
            return
        if not counted:
            self._tally.add("ignored", method)

    async def _answer(self, request: Request) -> None:
        try:
            handle = self._requests.get(request.method)
            if handle is None:
                raise UnknownMethod(f"There is no request {request.method[:40]!r} for a connected device.")
            result = await handle(request.params)
            await self._app.tenant.book.told()
            frame = result_frame(request.id, result)
        except PushactorsError as error:
            self._tally.add("refused", type(error).__name__)
            # What is refused may be refused because of something that is not durable yet (C2).
            await self._app.tenant.book.told()
            frame = error_frame(request.id, error)
        self._connection.put_text(frame)
        if request.method == "unregister":
            return
        actor = self._actor()
        if actor is None:
            self.end(Ending.RESTARTED)
            return
        with suppress(ActorCrashed):
            actor.resume(self._visit_id)

    # --- Requests ----------------------------------------------------------------------------------------------------

    async def _set_alias(self, params: dict[str, object]) -> object:
        asked = structure(wire.SetAlias, params)
        wanted = asked.alias
        registration = self._app.router.find(self._id)
        if (wanted or None) == registration.alias:
            return {"alias": registration.alias, "previous": registration.alias}
        self._changes.check(self._device_no)
        permit = partial(self._app.permit, asked.alias_token)
        previous = await self._app.router.set_alias(self._id, Alias(wanted), self._visit_id, permit)
        self._changes.count(self._device_no)
        return {"alias": wanted or None, "previous": previous}

    async def _get_alias(self, params: dict[str, object]) -> object:
        structure(wire.Nothing, params)
        return {"alias": self._app.router.find(self._id).alias}

    async def _set_tags(self, params: dict[str, object]) -> object:
        return await self._change_tags(TagChange(structure(wire.Tags, params).tags, replace=True))

    async def _add_tags(self, params: dict[str, object]) -> object:
        return await self._change_tags(TagChange(add=structure(wire.Tags, params).tags))

    async def _remove_tags(self, params: dict[str, object]) -> object:
        return await self._change_tags(TagChange(remove=structure(wire.Tags, params).tags))

    async def _change_tags(self, change: TagChange) -> object:
        tags = self._app.router.find(self._id).tags
        if change.of(tags) != tags:
            self._changes.check(self._device_no)
            tags = await self._app.router.set_tags(self._id, change, self._visit_id)
            self._changes.count(self._device_no)
        return {"tags": tags}

    async def _get_tags(self, params: dict[str, object]) -> object:
        structure(wire.Nothing, params)
        return {"tags": self._app.router.find(self._id).tags}

    async def _unregister(self, params: dict[str, object]) -> object:
        structure(wire.Nothing, params)
        await self._app.registrar.delete(self._id, self._visit_id)
        return None

    # --- Looks -------------------------------------------------------------------------------------------------------

    @property
    def _device_no(self) -> DeviceNo:
        assert self._welcome is not None
        return self._welcome.device_no

    @property
    def _id(self) -> RegistrationId:
        assert self._welcome is not None
        return self._welcome.registration_id

    def look(self) -> None:
        """Ends the visit if its peer is silent, stuck or too slow; asks for a sign of life when it is due (C12)."""
        now = trio.current_time()
        silent_s = now - self._connection.last_heard
        blocked_since = self._connection.stream.blocked_since
        actor = self._actor()
        full_since = actor.full_since if actor is not None and actor.visit is self else None
        heartbeat_s = self._patience.heartbeat_s
        is_stuck = blocked_since is not None and now - blocked_since >= heartbeat_s
        is_not_acknowledging = full_since is not None and now - full_since >= self._patience.ack_timeout_s
        if silent_s >= 2 * heartbeat_s and self._is_listening:
            self.end(Ending.SILENT)
        elif self._connection.is_too_full or is_stuck or is_not_acknowledging:
            self.end(Ending.TOO_SLOW)
        elif silent_s >= heartbeat_s and now - self._pinged_at >= heartbeat_s:
            self._pinged_at = now
            self._connection.ping()

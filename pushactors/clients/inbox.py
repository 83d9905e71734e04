"""What lies between the wire and the application on one device: what is shown next, and what may be acknowledged.

1. Messages are shown in the order in which they came, each id once: what was shown before is only acknowledged (C10).
   Where there is a tray, notifications go there, and the application is given what has a custom message.
2. A message is taken when the application comes back for the next one, or says so. What is taken is first recorded,
   then acknowledged; what is in the tray when it was displayed there, or has left it. An acknowledgement covers
   everything before it, so it stops short of what is not as far.
3. What lies here unshown belongs to the visit: when that ends it is forgotten, and the server sends it again.
4. While another alias is wanted, what is addressed to anybody else is neither shown nor acknowledged, and holds up
   what is behind it; the answer declines it, or a refusal sets it free (C14).
5. What is addressed to an alias that is not logged in here is declined, if nobody has seen anything of it, or its
   notification was not displayed. Only what was seen is remembered: declined and sent again, the rest is shown (C25).
6. What is recalled is not shown any more, and counts as taken (C22).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from pushactors.clients.shown import REMEMBERED, Shown
from pushactors.clients.tray import Tray
from pushactors.clients.wishes import Wishes
from pushactors.wire.device import MessageNote


class _State(Enum):
    UNSHOWN = auto()
    IN_HAND = auto()
    TAKEN = auto()
    RECORDED = auto()
    DECLINED = auto()


@dataclass(slots=True)
class _Entry:
    """`state` tells of the custom message; what has none for the application is `RECORDED` from the start."""

    note: MessageNote
    state: _State
    is_for_app: bool
    is_for_tray: bool
    is_put: bool


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """To be told in this order: `declined` one by one, then `received`, which covers all before it."""

    declined: list[str]
    received: str | None


class Inbox:
    def __init__(self, shown: Shown, wishes: Wishes, tray: Tray | None = None) -> None:
        self.alias: str | None = None
        """Who is logged in here, as far as the server said."""
        self._shown = shown
        self._wishes = wishes
        self._tray = tray
        self._entries: deque[_Entry] = deque()
        self._in_hand: str | None = None
        self._taken: list[str] = []
        self._declined: list[str] = []
        self._recalls: list[str] = []
        self._unseen: dict[str, None] = {}
        """What was recalled before it was handed out. It counts as shown, and never was."""

    # --- What the server says ----------------------------------------------------------------------------------

    def begin(self, alias: str | None) -> None:
        """A new visit, on which nothing was sent yet."""
        self.end()
        self._logged_in(alias)

    def end(self) -> None:
        self._entries.clear()
        self._declined.clear()
        # The server asks again, until it has an answer.
        self._recalls.clear()

    def arrive(self, note: MessageNote) -> None:
        is_for_app = self._tray is None or note.message is not None
        is_for_tray = self._tray is not None and note.notification is not None
        is_put = self._tray is not None and self._tray.knows(note.msg_id)
        state = self._state_of(note) if is_for_app else _State.RECORDED
        self._entries.append(_Entry(note, state, is_for_app, is_for_tray, is_put))
        if not self._wishes:
            self._decline_strangers()

    def logged_in(self, alias: str | None) -> None:
        """The alias is this one from here on. Called even if wishes are left: what came before is judged by it."""
        self._logged_in(alias)
        self._decline_strangers()

    def refused(self) -> None:
        """The alias stays what it was."""
        if not self._wishes:
            self._decline_strangers()

    def recall(self, msg_id: str) -> bool:
        """The app server takes it back. Whether it was shown, or handed out, before: then somebody must be told."""
        is_out = msg_id == self._in_hand or msg_id in self._taken or msg_id in self._shown
        if not is_out:
            self._unseen[msg_id] = None
            if len(self._unseen) > REMEMBERED:
                del self._unseen[next(iter(self._unseen))]
            self._taken.append(msg_id)
            for entry in self._entries:
                if entry.note.msg_id == msg_id and entry.state is _State.UNSHOWN:
                    entry.state = _State.TAKEN
        self._recalls.append(msg_id)
        is_seen = self._tray is not None and self._tray.recall(msg_id)
        return is_seen or (is_out and msg_id not in self._unseen)

    def _logged_in(self, alias: str | None) -> None:
        self.alias = alias
        if self._tray is not None:
            self._tray.log_in(alias)

    def _state_of(self, note: MessageNote) -> _State:
        if note.msg_id in self._shown:
            return _State.RECORDED
        if note.msg_id in self._taken:
            return _State.TAKEN
        return _State.IN_HAND if note.msg_id == self._in_hand else _State.UNSHOWN

    def _decline_strangers(self) -> None:
        for entry in self._entries:
            if entry.note.alias not in (None, self.alias) and self._is_unseen(entry):
                entry.state = _State.DECLINED
                self._declined.append(entry.note.msg_id)

    def _is_unseen(self, entry: _Entry) -> bool:
        if entry.is_for_tray:
            return entry.state is not _State.DECLINED and not self._is_settled_in_tray(entry)
        return entry.state is (_State.UNSHOWN if entry.is_for_app else _State.RECORDED)

    # --- What the application does -----------------------------------------------------------------------------

    def show(self) -> MessageNote | None:
        """The next message, now in hand. Whatever was in hand must have been taken."""
        entry = self._next()
        if entry is None:
            return None
        entry.state = _State.IN_HAND
        self._in_hand = entry.note.msg_id
        return entry.note

    def take(self) -> None:
        """The application is done with what it has in hand."""
        if self._in_hand is None:
            return
        self._taken.append(self._in_hand)
        self._move(_State.IN_HAND, _State.TAKEN)
        self._in_hand = None

    def holds(self, msg_id: str) -> bool:
        return msg_id == self._in_hand

    @property
    def has_next(self) -> bool:
        return self._next() is not None

    def _next(self) -> _Entry | None:
        for entry in self._entries:
            if entry.state is _State.UNSHOWN:
                return entry if self._wishes.permit(entry.note.alias) else None
        return None

    # --- What goes to the tray ---------------------------------------------------------------------------------

    @property
    def has_for_tray(self) -> bool:
        return next(self._for_tray(), None) is not None

    def put(self) -> None:
        """What may lie in the tray is posted there, in order; in force when the tray was committed."""
        if self._tray is not None:
            for entry in self._for_tray():
                entry.is_put = True
                self._tray.put(entry.note)

    def _for_tray(self) -> Iterator[_Entry]:
        for entry in self._entries:
            if entry.is_for_tray and not entry.is_put and entry.state is not _State.DECLINED:
                # Who is wanted is not logged in yet: if that is refused, nothing of his may lie there.
                if entry.note.alias not in (None, self.alias) or not self._wishes.permit(entry.note.alias):
                    return
                yield entry

    # --- What is told to the server ----------------------------------------------------------------------------

    @property
    def taken(self) -> list[str]:
        """What waits to be recorded."""
        return list(self._taken)

    def recorded(self, msg_ids: list[str]) -> None:
        """Those were `taken`, and are in `Shown` now."""
        self._taken = [msg_id for msg_id in self._taken if msg_id not in msg_ids]
        self._move(_State.TAKEN, _State.RECORDED)

    @property
    def is_owing(self) -> bool:
        """Whether there is something to record, or to tell."""
        return bool(self._taken or self._declined or self._recalls) or self._is_first_due()

    @property
    def is_declining(self) -> bool:
        return bool(self._declined)

    @property
    def recalls(self) -> list[str]:
        """What the server waits for an answer about. Answer when what was taken is recorded."""
        return list(self._recalls)

    def answered(self, msg_id: str) -> None:
        """Something is told of this one that acknowledges it, and it alone."""
        self._recalls = [each for each in self._recalls if each != msg_id]
        # Later acknowledgements must not name it: it is settled.
        self._entries = deque(entry for entry in self._entries if entry.note.msg_id != msg_id)

    def is_untaken(self, msg_id: str) -> bool:
        """Whether its custom message was not recorded as taken yet, so that nothing may acknowledge it."""
        return msg_id not in self._shown

    def acknowledge(self) -> Acknowledgement:
        """What must be told now, on this visit. It is told once."""
        received = None
        while self._is_first_due():
            entry = self._entries.popleft()
            if entry.state is _State.RECORDED:
                received = entry.note.msg_id
        declined, self._declined = self._declined, []
        return Acknowledgement(declined, received)

    def _is_first_due(self) -> bool:
        if not self._entries:
            return False
        entry = self._entries[0]
        if entry.state is _State.RECORDED:
            return self._is_settled_in_tray(entry) and self._wishes.permit(entry.note.alias)
        return entry.state is _State.DECLINED

    def _is_settled_in_tray(self, entry: _Entry) -> bool:
        return not entry.is_for_tray or self._tray is None or self._tray.is_settled(entry.note.msg_id)

    def _move(self, before: _State, after: _State) -> None:
        for entry in self._entries:
            if entry.state is before and (after is not _State.RECORDED or entry.note.msg_id in self._shown):
                entry.state = after

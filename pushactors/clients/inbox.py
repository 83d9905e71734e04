"""What lies between the wire and the application on one device: what is shown next, and what may be acknowledged.

1. Messages are shown in the order in which they came, each id once: what was shown before is only acknowledged (C10).
2. A message is taken when the application comes back for the next one, or says so. What is taken is first recorded,
   then acknowledged. An acknowledgement covers everything before it, so it stops short of what is not recorded.
3. What lies here unshown belongs to the visit: when that ends it is forgotten, and the server sends it again.
4. While another alias is wanted, what is addressed to anybody else is neither shown nor acknowledged, and holds up
   what is behind it; the answer declines it, or a refusal sets it free (C14).
5. What is addressed to an alias that is not logged in here is declined.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto

from pushactors.clients.shown import Shown
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
    note: MessageNote
    state: _State


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """To be told in this order: `declined` one by one, then `received`, which covers all before it."""

    declined: list[str]
    received: str | None


class Inbox:
    def __init__(self, shown: Shown, wishes: Wishes) -> None:
        self.alias: str | None = None
        """Who is logged in here, as far as the server said."""
        self._shown = shown
        self._wishes = wishes
        self._entries: deque[_Entry] = deque()
        self._in_hand: str | None = None
        self._taken: list[str] = []
        self._declined: list[str] = []

    # --- What the server says ----------------------------------------------------------------------------------

    def begin(self, alias: str | None) -> None:
        """A new visit, on which nothing was sent yet."""
        self._entries.clear()
        self._declined.clear()
        self.alias = alias

    def end(self) -> None:
        self._entries.clear()
        self._declined.clear()

    def arrive(self, note: MessageNote) -> None:
        self._entries.append(_Entry(note, self._state_of(note)))
        if not self._wishes:
            self._decline_strangers()

    def logged_in(self, alias: str | None) -> None:
        """The alias is this one from here on. Called even if wishes are left: what came before is judged by it."""
        self.alias = alias
        self._decline_strangers()

    def refused(self) -> None:
        """The alias stays what it was."""
        if not self._wishes:
            self._decline_strangers()

    def _state_of(self, note: MessageNote) -> _State:
        if note.msg_id in self._shown:
            return _State.RECORDED
        if note.msg_id in self._taken:
            return _State.TAKEN
        return _State.IN_HAND if note.msg_id == self._in_hand else _State.UNSHOWN

    def _decline_strangers(self) -> None:
        for entry in self._entries:
            if entry.state is _State.UNSHOWN and entry.note.alias not in (None, self.alias):
                entry.state = _State.DECLINED
                self._declined.append(entry.note.msg_id)

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
        return bool(self._taken or self._declined) or self._is_first_due()

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
            return self._wishes.permit(entry.note.alias)
        return entry.state is _State.DECLINED

    def _move(self, before: _State, after: _State) -> None:
        for entry in self._entries:
            if entry.state is before and (after is not _State.RECORDED or entry.note.msg_id in self._shown):
                entry.state = after

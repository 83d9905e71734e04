"""What lies in the tray of a device: what enters, what gives way to what, and what makes it leave. No I/O.

1. Each msg_id enters once, ever, but for law 5: the last `REMEMBERED` ids are known, with what became of them (C10).
2. What names X as its `override_msg_id` takes the place of an entry whose `msg_id` or `override_msg_id` is X. If there
   is none, because it was opened, dismissed, or never came, it is new (C23).
3. What comes after a later message has overridden it never enters. What is addressed to one user overrides nothing that
   is addressed to another.
4. A recall takes a message out, and keeps out one that did not come yet; it does not touch what was opened or dismissed
   (C22).
5. When another account logs in, what is addressed to anybody else leaves. What of it was not displayed is forgotten, as
   if it had never come: it waits for its user at the server, and enters when he is back (C25).
6. That the user opened or dismissed something is owed to the server until it surely has it.
7. All is done by steps, one after the other: the same steps lead to the same contents, on the day and from the journal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, TypeVar

ENTRIES: Final = 1_000
"""More than anybody looks at."""
REMEMBERED: Final = 10_000
"""Many times what a server can have on the wire or in a mailbox."""
VERSION: Final = 1

K = TypeVar("K")
V = TypeVar("V")


class Mark(StrEnum):
    OPENED = "opened"
    DISMISSED = "dismissed"


class Fate(StrEnum):
    HERE = "here"
    OPENED = "opened"
    DISMISSED = "dismissed"
    RECALLED = "recalled"
    GONE = "gone"
    """Replaced, too late, displayed to an earlier account, or over the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrayEntry:
    """A notification as the user would see it; `notification` has `alert`, `title`, `extras` …

    `place` is the same for all that replaced each other in one place: what draws it can be known by it. `is_shown`: it
    was said to be displayed. `has_message`: a custom message came with it, which goes to the application.
    """

    msg_id: str
    sent_at: int
    place: str
    notification: dict[str, object]
    override_msg_id: str | None = None
    alias: str | None = None
    is_shown: bool = False
    has_message: bool = False


@dataclass(frozen=True, slots=True)
class Debt:
    """A mark that the server may not have yet."""

    mark: Mark
    alias: str | None = None
    has_message: bool = False


# --- Steps -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Put:
    """It came. Its `place` is where it would lie if it replaces nothing."""

    entry: TrayEntry


@dataclass(frozen=True, slots=True)
class Showed:
    msg_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Marked:
    msg_id: str
    mark: Mark


@dataclass(frozen=True, slots=True)
class Told:
    """The server surely has the marks of these."""

    msg_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TookBack:
    msg_id: str


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """`""`: nobody."""

    alias: str


Step = Put | Showed | Marked | Told | TookBack | LoggedIn


# --- What they lead to -----------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Contents:
    """Change it by `take` only. What it holds is what the journal begins with."""

    version: int = VERSION
    account: str | None = None
    """Whom the server last said to be logged in, `""`: nobody. None: it has not said."""
    entries: dict[str, TrayEntry] = field(default_factory=dict)
    """By msg_id, in the order in which they are drawn."""
    fates: dict[str, Fate] = field(default_factory=dict)
    latest: dict[str, str] = field(default_factory=dict)
    """For each X that was overridden, and by whose messages: the last msg_id that did it."""
    debts: dict[str, Debt] = field(default_factory=dict)

    def take(self, step: Step) -> None:
        match step:
            case Put(entry):
                self._put(entry)
            case Showed(msg_ids):
                for msg_id in msg_ids:
                    if (shown := self.entries.get(msg_id)) is not None:
                        self.entries[msg_id] = replace(shown, is_shown=True)
            case Marked(msg_id, mark):
                if (marked := self._leave(msg_id, Fate(mark))) is not None:
                    self.debts[msg_id] = Debt(mark, marked.alias, marked.has_message)
                    _forget_oldest(self.debts, REMEMBERED)
            case Told(msg_ids):
                for msg_id in msg_ids:
                    self.debts.pop(msg_id, None)
            case TookBack(msg_id):
                self._take_back(msg_id)
            case LoggedIn(alias):
                self.account = alias
                for entry in list(self.entries.values()):
                    if entry.alias is not None and entry.alias != alias:
                        self._leave(entry.msg_id, Fate.GONE if entry.is_shown else None)

    def knows(self, msg_id: str) -> bool:
        """Whether it came and was not forgotten, or was recalled; then it cannot enter again."""
        return msg_id in self.fates or msg_id in self.entries

    def is_unshown(self, msg_id: str) -> bool:
        """Whether it lies here and was not displayed yet."""
        return msg_id in self.entries and not self.entries[msg_id].is_shown

    def fate(self, msg_id: str) -> Fate | None:
        """What became of it; None: it is not known."""
        return Fate.HERE if msg_id in self.entries else self.fates.get(msg_id)

    def _put(self, entry: TrayEntry) -> None:
        if self.knows(entry.msg_id):
            return
        is_late = self._is_late(entry)
        if entry.override_msg_id is not None:
            self._override(_by(entry.override_msg_id, entry.alias), entry.msg_id)
        self._remember(entry.msg_id, Fate.GONE if is_late else Fate.HERE)
        if is_late:
            return
        earlier = list(self._overridden_by(entry))
        if earlier:
            entry = replace(entry, place=earlier[0].place)
            # In place: a dict keeps the order in which its keys first came.
            place = earlier[0].msg_id
            self.entries = {
                (entry.msg_id if msg_id == place else msg_id): (entry if msg_id == place else other)
                for msg_id, other in self.entries.items()
            }
            for gone in earlier:
                self.entries.pop(gone.msg_id, None)
                self._remember(gone.msg_id, Fate.GONE)
        else:
            self.entries[entry.msg_id] = entry
        while len(self.entries) > ENTRIES:
            self._leave(min(self.entries, key=int), Fate.GONE)

    def _overridden_by(self, entry: TrayEntry) -> Iterator[TrayEntry]:
        if entry.override_msg_id is not None:
            for other in self.entries.values():
                if entry.override_msg_id in (other.msg_id, other.override_msg_id):
                    yield other

    def _is_late(self, entry: TrayEntry) -> bool:
        for overridden in (entry.msg_id, entry.override_msg_id or ""):
            for alias in (None, entry.alias or self.account):
                if int(self.latest.get(_by(overridden, alias), "0")) > int(entry.msg_id):
                    return True
        return False

    def _override(self, overridden: str, msg_id: str) -> None:
        before = self.latest.pop(overridden, msg_id)
        self.latest[overridden] = max(before, msg_id, key=int)
        _forget_oldest(self.latest, REMEMBERED)

    def _take_back(self, msg_id: str) -> None:
        if self.fate(msg_id) in (Fate.OPENED, Fate.DISMISSED):
            return
        if self._leave(msg_id, Fate.RECALLED) is None:
            self._remember(msg_id, Fate.RECALLED)

    def _leave(self, msg_id: str, fate: Fate | None) -> TrayEntry | None:
        """`fate` None: nobody will know that it was here."""
        entry = self.entries.pop(msg_id, None)
        if entry is not None and fate is not None:
            self._remember(msg_id, fate)
        elif entry is not None:
            self.fates.pop(msg_id, None)
        return entry

    def _remember(self, msg_id: str, fate: Fate) -> None:
        self.fates[msg_id] = fate
        _forget_oldest(self.fates, REMEMBERED)


def _by(overridden: str, alias: str | None) -> str:
    return f"{overridden} {alias}" if alias else overridden


def _forget_oldest(memory: dict[K, V], limit: int) -> None:
    while len(memory) > limit:
        del memory[next(iter(memory))]

"""What the user of a device would see: notifications that an application draws from, whatever crashed meanwhile (C23).

1. What it shows is a state, not a stream: `entries` is what to draw, all of it; a watcher gets the latest, and may miss
   what was there in between.
2. What is in `entries` is on the disk, and what has left them never comes back, but for law 3. A step is in force when
   it is on the disk; steps that came meanwhile share the next fsync.
3. From the moment another alias is asked for, what is addressed to anybody else is hidden; it leaves when the change is
   confirmed, and is seen again when it is refused (C14). What left undisplayed is put again if it comes again (C25).
4. What the user did with an entry is owed to the server until it surely has it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import trio
from trio.lowlevel import ParkingLot

from pushactors.clients.tray_journal import Journal
from pushactors.clients.tray_rules import (
    Contents,
    Debt,
    Fate,
    LoggedIn,
    Mark,
    Marked,
    Put,
    Showed,
    Step,
    Told,
    TookBack,
    TrayEntry,
)
from pushactors.wire.device import MessageNote
from pushactors.wire.ids import parse_msg_id


class Tray:
    """Give it to a `DeviceClient`, one at a time. With a `path` it is what it was at the next start.

    A notification is acknowledged when `shown` says that it was displayed, or when it has left. So a program that
    draws nothing for a while gets no more than a window of them; the server keeps the rest.
    """

    def __init__(self, path: Path | str | None = None) -> None:
        self.changed = ParkingLot()
        """Unparked when anything is another: the client it is given to waits here, too."""
        self._journal = None if path is None else Journal(Path(path))
        self._is_loaded = path is None
        self._contents = Contents()
        self._posted: list[Step] = []
        self._writing = trio.Lock()
        self._permit: Callable[[str | None], bool] = _permit_all
        self._account: str | None = None

    # --- For the application -----------------------------------------------------------------------------------

    @property
    def entries(self) -> tuple[TrayEntry, ...]:
        """What to draw, in this order. Nothing before the file was read."""
        return tuple(entry for entry in self._contents.entries.values() if self._is_visible(entry))

    def __aiter__(self) -> AsyncIterator[tuple[TrayEntry, ...]]:
        """`entries`, as they are now, and whenever they are others. It does not end."""
        return _Watch(self)

    async def shown(self, *msg_ids: str) -> None:
        """Those were displayed. On return this is known for good; what is not here any more is passed over."""
        if not self._is_loaded:
            await self.load()
        # Without a wait: if the account changes right behind this call, it was displayed before that.
        if unshown := tuple(msg_id for msg_id in msg_ids if self._contents.is_unshown(msg_id)):
            self._posted.append(Showed(unshown))
        await self.commit()

    async def open(self, msg_id: str) -> bool:
        """The user opened it: it leaves, and the server is told. False: it was not here any more, nothing happened."""
        return await self._mark(msg_id, Mark.OPENED)

    async def dismiss(self, msg_id: str) -> bool:
        """The user dismissed it; otherwise as `open`."""
        return await self._mark(msg_id, Mark.DISMISSED)

    async def load(self) -> None:
        """Reads the file, or makes it, once. Raises `IdentityUnusable`, as all that changes the tray does.

        The client does it when it starts; without a client it is yours."""
        async with self._writing:
            await self._load()

    async def _load(self) -> None:
        if not self._is_loaded and self._journal is not None:
            self._contents = await trio.to_thread.run_sync(self._journal.load)
            self._account = self._contents.account
            self._is_loaded = True
            self.changed.unpark_all()

    def _is_visible(self, entry: TrayEntry) -> bool:
        is_ours = entry.alias is None or self._account in (None, entry.alias)
        return is_ours and self._permit(entry.alias) and not self._is_leaving(entry)

    def _is_leaving(self, entry: TrayEntry) -> bool:
        """Somebody else logged in, which is not on the disk yet. It leaves though its user may be back behind that."""
        logins = [step.alias for step in self._posted if isinstance(step, LoggedIn)]
        return entry.alias is not None and any(alias != entry.alias for alias in logins)

    @property
    def is_loaded(self) -> bool:
        return self._is_loaded

    async def _mark(self, msg_id: str, mark: Mark) -> bool:
        parse_msg_id(msg_id)
        await self.load()
        entry = self._contents.entries.get(msg_id)
        if entry is None or not self._is_visible(entry):
            return False
        await self._do(Marked(msg_id, mark))
        return self._contents.fate(msg_id) == Fate(mark)

    async def _do(self, step: Step) -> None:
        self._posted.append(step)
        await self.commit()

    # --- For the device client ---------------------------------------------------------------------------------

    def fence(self, permit: Callable[[str | None], bool]) -> None:
        """From now on `permit` says for whom entries may be seen. Unpark `changed` when it says something else."""
        self._permit = permit
        self.changed.unpark_all()

    def put(self, note: MessageNote) -> None:
        """It came, and has a notification. In force after `commit`, as all that follows."""
        assert note.notification is not None
        self._posted.append(
            Put(
                TrayEntry(
                    msg_id=note.msg_id,
                    sent_at=note.sent_at,
                    place=note.msg_id,
                    notification=note.notification,
                    override_msg_id=note.override_msg_id,
                    alias=note.alias,
                    has_message=note.message is not None,
                )
            )
        )

    def log_in(self, alias: str | None) -> None:
        """The server said who is logged in. What is addressed to anybody else is hidden at once."""
        account = alias or ""
        if account != self._account:
            self._account = account
            self._posted.append(LoggedIn(account))
            self.changed.unpark_all()

    def recall(self, msg_id: str) -> bool:
        """The app server takes it back. Whether the user has seen it, and not done anything with it yet."""
        if self._contents.fate(msg_id) not in (Fate.RECALLED, Fate.OPENED, Fate.DISMISSED):
            self._posted.append(TookBack(msg_id))
        entry = self._contents.entries.get(msg_id)
        return entry is not None and entry.is_shown

    def told(self, msg_ids: list[str]) -> None:
        """The server surely has the marks of those."""
        self._posted.append(Told(tuple(msg_ids)))

    @property
    def has_posted(self) -> bool:
        """Whether there is something to commit."""
        return bool(self._posted)

    async def commit(self) -> None:
        """What was posted before the call is on the disk and in force after it. If it raises, it may be later."""
        async with self._writing:
            await self._load()
            if not self._posted:
                return
            # It stays posted until it is written: whoever waits for the lock must not take a failure for success.
            steps = tuple(self._posted)
            if self._journal is not None:
                await trio.to_thread.run_sync(self._journal.write, steps, self._contents)
            del self._posted[: len(steps)]
            for step in steps:
                self._contents.take(step)
        self.changed.unpark_all()

    def is_settled(self, msg_id: str) -> bool:
        """Whether it was displayed, or will not be: it can be acknowledged."""
        return self._contents.knows(msg_id) and not self._contents.is_unshown(msg_id)

    def knows(self, msg_id: str) -> bool:
        """Whether it was put here before, and would not enter if it were put again."""
        entry = self._contents.entries.get(msg_id)
        return self._contents.knows(msg_id) and (entry is None or not self._is_leaving(entry))

    def answer_to_recall(self, msg_id: str) -> str:
        fate = self._contents.fate(msg_id)
        return str(fate) if fate in (Fate.OPENED, Fate.DISMISSED) else "withdrawn"

    @property
    def debts(self) -> dict[str, Debt]:
        """The marks that the server may not have yet, by msg_id, oldest first."""
        return self._contents.debts


class _Watch:
    def __init__(self, tray: Tray) -> None:
        self._tray = tray
        self._last: tuple[TrayEntry, ...] | None = None

    def __aiter__(self) -> _Watch:
        return self

    async def __anext__(self) -> tuple[TrayEntry, ...]:
        await trio.lowlevel.checkpoint()
        while not self._tray.is_loaded or self._tray.entries == self._last:
            await self._tray.changed.park()
        self._last = self._tray.entries
        return self._last


def _permit_all(_: str | None) -> bool:
    return True

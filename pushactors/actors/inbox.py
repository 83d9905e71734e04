"""The door to an actor that owns state: who may come in, when, and what happens if it goes wrong inside.

1. Deciding never waits. So between two checkpoints the owner is always at rest, and work handed in is done at once, in
   the turn and on the stack of whoever hands it in, but under the owner's responsibility. No wake-up, no queue, no
   second copy of the state: that is what makes a fan-out cost a function call per device.
2. Until the owner has its state (`open`), work posted is kept, in order, and done when it has. At most `KEPT` pieces:
   more is refused (`Busy`), and whoever posts says what that means.
3. Work that raises ends the owner, nobody else: the door closes, whoever handed it in is told `ActorCrashed`, the
   owner's task raises the cause. A `PushactorsError` is an answer, not a crash.
4. A closed door answers everything: what was kept is told that it is lost, what comes later raises `ActorCrashed`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar, cast

import trio

from pushactors.errors import ActorCrashed, Busy, PushactorsError

KEPT = 10_000

P = ParamSpec("P")
T = TypeVar("T")


class Inbox:
    """See the law on top."""

    __slots__ = ("_changed", "_crash", "_kept", "_owner", "is_closed", "is_open")

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._kept: list[tuple[Callable[[], None], Callable[[], None]]] = []
        self._crash: Exception | None = None
        self._changed: trio.Event | None = None
        self.is_open = False
        self.is_closed = False

    def post(self, work: Callable[[], None], lost: Callable[[], None]) -> None:
        """Has `work` done now, or when the owner opens. `lost` is called instead if that never happens.

        Raises `Busy` if too much is kept already; neither is called then.
        """
        if self.is_open:
            try:
                work()
            except ActorCrashed:
                lost()
        elif self.is_closed:
            lost()
        elif len(self._kept) >= KEPT:
            raise Busy(f"{self._owner} is not ready, and has {KEPT} requests before this one.")
        else:
            self._kept.append((work, lost))

    def open(self) -> None:
        """The owner has its state: does what was kept. An owner that has ended stays so."""
        if self.is_closed:
            return
        self.is_open = True
        self._announce()
        kept, self._kept = self._kept, []
        for work, lost in kept:
            try:
                self.post(work, lost)
            except PushactorsError:
                lost()
            except Exception as cause:  # it ends this owner (law 3); those behind it are told that they are lost
                self.crash(cause)
                lost()

    def close(self) -> None:
        """Ends the owner in peace. What was kept is lost."""
        if self.is_closed:
            return
        self.is_open = False
        self.is_closed = True
        kept, self._kept = self._kept, []
        for _, lost in kept:
            lost()
        self._announce()

    def crash(self, cause: Exception) -> ActorCrashed:
        """Ends the owner for a cause; the error to raise to whoever handed the work in."""
        if self._crash is None:
            self._crash = cause
        self.close()
        return ActorCrashed(f"{self._owner} failed, and is being rebuilt from the store. Try again.")

    def _announce(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def _wait_changed(self) -> None:
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

    async def wait_open(self) -> None:
        """Returns when the owner has its state, or has ended."""
        while not self.is_open and not self.is_closed:
            await self._wait_changed()

    async def wait_closed(self) -> None:
        """Returns when the owner was closed in peace; raises the cause of its crash."""
        while not self.is_closed:
            await self._wait_changed()
        if self._crash is not None:
            raise self._crash


class Owner(Protocol):
    @property
    def inbox(self) -> Inbox: ...


O = TypeVar("O", bound=Owner)  # noqa: E741 - the usual letter for it


def as_owner(work: Callable[Concatenate[O, P], T]) -> Callable[Concatenate[O, P], T]:
    """Makes a method a piece of work in the sense of law 1 and 3: every public way into an actor is one."""

    @wraps(work)
    def handed_in(self: O, *args: P.args, **kwargs: P.kwargs) -> T:
        if not self.inbox.is_open:
            raise ActorCrashed("This actor has ended, or does not have its state yet. Try again.")
        try:
            return work(self, *args, **kwargs)
        except PushactorsError:
            raise
        except Exception as cause:  # whatever it is, it ends this owner alone (law 3); its task logs it
            raise self.inbox.crash(cause) from cause

    return cast(Callable[Concatenate[O, P], T], handed_in)

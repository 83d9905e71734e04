"""Which alias the application wants the device to have, until the server has answered (C14).

1. Wishes are answered in the order in which they were made; the answer to one is the answer to all before it.
2. A wish can be told to the server once it is kept in the identity file, and holds from the moment it is made.
3. Who made a wish may give up waiting for it. The wish stays.
4. While there are wishes, a message is for whoever they all name; one that is addressed to nobody is for everybody.
5. A wish that the client did not live to see answered, or whose refusal ended it, sets nothing free.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from pushactors.errors import PushactorsError


@dataclass(slots=True, eq=False)
class Wish:
    """`alias` `""`: none. `is_awaited`: somebody will hear of a refusal. `token`: the app server's word (C17)."""

    alias: str
    is_awaited: bool
    token: str | None = field(default=None, repr=False)
    is_kept: bool = False
    over: trio.Event = field(default_factory=trio.Event)
    error: PushactorsError | None = None

    def params(self) -> dict[str, object]:
        """What `connect` and `alias.set` say of it. Clearing needs no token."""
        return {"alias": self.alias, "alias_token": self.token} if self.alias and self.token else {"alias": self.alias}


class Wishes:
    def __init__(self) -> None:
        self._wishes: list[Wish] = []
        self._left_open: list[Wish] = []

    def __bool__(self) -> bool:
        return bool(self._wishes)

    def make(self, alias: str, *, is_awaited: bool, token: str | None = None) -> Wish:
        wish = Wish(alias, is_awaited, token)
        self._wishes.append(wish)
        return wish

    def withdraw(self, wish: Wish) -> None:
        """It was never made: it could not be kept."""
        self._wishes.remove(wish)

    @property
    def latest(self) -> Wish | None:
        """The one that `connect` names."""
        return next((wish for wish in reversed(self._wishes) if wish.is_kept), None)

    @property
    def oldest(self) -> Wish | None:
        """The one that is to be told next."""
        return self._wishes[0] if self._wishes and self._wishes[0].is_kept else None

    @property
    def last(self) -> Wish | None:
        """What the identity file must hold."""
        return self._wishes[-1] if self._wishes else None

    def permit(self, alias: str | None) -> bool:
        """Whether a message addressed to `alias` may be shown and acknowledged now."""
        return alias is None or all(wish.alias == alias for wish in (*self._left_open, *self._wishes))

    def grant(self, wish: Wish) -> None:
        self._answer(wish, None)

    def refuse(self, wish: Wish, error: PushactorsError) -> None:
        self._answer(wish, error)

    def refuse_all(self, error: PushactorsError) -> None:
        if self._wishes:
            self._answer(self._wishes[-1], error)

    def leave_open(self, wish: Wish, error: PushactorsError) -> None:
        """Whoever waits for it hears `error`, and what it holds back stays where it is (law 5)."""
        if wish in self._wishes:
            self._left_open.extend(self._wishes[: self._wishes.index(wish) + 1])
            self._answer(wish, error)

    def leave_all_open(self, error: PushactorsError) -> None:
        if self._wishes:
            self.leave_open(self._wishes[-1], error)

    def _answer(self, wish: Wish, error: PushactorsError | None) -> None:
        while wish in self._wishes:
            answered = self._wishes.pop(0)
            answered.error = error
            answered.over.set()

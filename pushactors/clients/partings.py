"""How a connection ends for the one who used it, sorted by what to do next.

1. `Disconnected`: the connection broke under a request. Whether it took effect is unknown; the client is coming back.
2. `TurnedAway` and what is below it: the server said not to come back. Something must change first, and the client
   has ended; a new one may be made when it has changed.
3. A refusal that has a name of its own (`Unauthorized`, `NoSuchDevice` …) keeps it.
"""

from __future__ import annotations

from typing import Final

from pushactors.errors import Busy, Gone, PushactorsError, Unauthorized
from pushactors.wire.closing import Closing


class Disconnected(Busy):
    """The connection broke before the answer came, or there was none in time."""


class TurnedAway(Gone):
    """The server closed the connection for good. `code` is its close code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Closed(Gone):
    """This client was closed here."""


class Displaced(TurnedAway):
    """A newer visit of the same device took over: two processes use one identity."""


class Removed(TurnedAway):
    """The device was deleted. Its registration is forgotten here too: a new client registers anew."""


class ProtocolBroken(TurnedAway):
    """One side did not understand the other: their versions do not fit."""

    def __init__(self, message: str, code: int = Closing.PROTOCOL.code) -> None:
        super().__init__(message, code)


def parting(code: int, reason: str) -> PushactorsError:
    """What a close with this code, which says not to come back, is for the caller."""
    text = f"The server said not to come back: {reason} ({code})."
    if code == Closing.UNAUTHORIZED.code:
        return Unauthorized(text)
    return _PARTINGS.get(code, TurnedAway)(text, code)


_PROTOCOL_ERROR: Final = 1002
_PARTINGS: Final[dict[int, type[TurnedAway]]] = {
    Closing.DISPLACED.code: Displaced,
    Closing.REMOVED.code: Removed,
    Closing.PROTOCOL.code: ProtocolBroken,
    Closing.UNSUPPORTED.code: ProtocolBroken,
    Closing.NOT_UTF8.code: ProtocolBroken,
    Closing.TOO_BIG.code: ProtocolBroken,
    _PROTOCOL_ERROR: ProtocolBroken,
}

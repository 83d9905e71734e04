"""What can go wrong, sorted by what the caller should do next.

1. `Refused`: the request cannot succeed as it is; change it.
2. `Busy`: the request was fine; ask again later.
3. `Gone`: what you hold is no longer valid; make a new one.
4. `StoreFailure`: the ground gave way; the process must not go on telling.
5. No code of any wire stands here: JSON-RPC and WebSocket codes are tables at the edge (`wire/`).
"""

from __future__ import annotations


class PushactorsError(Exception):
    """The root of everything this package raises on purpose. The text is a sentence that says what to do."""


# --- Refused: change the request -----------------------------------------------------------------------------


class Refused(PushactorsError):
    """The request cannot succeed as it is."""


class Invalid(Refused):
    """A member of the request is missing, unknown, or not what it must be.

    `path` names it from the params down, as in `audience.alias[2]`.
    """

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class CidReused(Refused):
    """This `cid` named a different push within the last day (C6)."""


class Unauthorized(Refused):
    """The secret does not fit, or the token. `path` names the member, where it is not the secret of who asks."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class TooLarge(Refused):
    """Notification and message together are over the limit."""


class NoTarget(Refused):
    """The audience names no device at all; nothing was stored (C4)."""


class AliasFull(Refused):
    """The alias is on as many devices as one alias may be on."""


# --- Busy: the same request later ----------------------------------------------------------------------------


class Busy(PushactorsError):
    """The request was fine, but not now. `retry_after_s` is a whole number of seconds, at least 1."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = max(1, retry_after_s)


class RateLimited(Busy):
    """Over a rate of the app or of the peer's address."""


class TooFrequent(Busy):
    """Too many alias or tag changes on one device."""


# --- Gone: what you hold is no longer valid ------------------------------------------------------------------


class Gone(PushactorsError):
    """What the request names does not exist, or no longer."""


class NoSuchApp(Gone):
    """The `app_key` is not configured here."""


class NoSuchDevice(Gone):
    """The `registration_id` is unknown to this app: register anew."""


class VisitEnded(Gone):
    """Whoever asks has been displaced by a newer visit of the same device: it has no say any more (C11)."""


class NoSuchMessage(Gone):
    """The `msg_id` is unknown to this app."""


class CursorGone(Gone):
    """The cursor is older than what is kept. `oldest` is that of the oldest receipt kept, as text (C20)."""

    def __init__(self, message: str, oldest: str = "0") -> None:
        super().__init__(message)
        self.oldest = oldest


# --- Ours ------------------------------------------------------------------------------------------------------


class InternalError(PushactorsError):
    """A fault of this server, logged where it happened. Nothing of the request took effect."""


class ActorCrashed(InternalError):
    """The actor that was asked raised, and is being rebuilt from the store."""


class StoreFailure(PushactorsError):
    """The store cannot be used; the process must stop (or, at start, must not begin)."""


class StoreBusy(StoreFailure):
    """The store did not answer this time. Whether it acted is unknown: ask again, with the same number."""


class StoreFenced(StoreFailure):
    """Another process has taken this store over. This one must tell nobody anything any more."""


class StoreUnusable(StoreFailure):
    """The store was refused, in a sentence: not ours, of a newer version, broken, or held by somebody else."""


class ConfigurationError(PushactorsError):
    """The configuration cannot be used. The text is one clear sentence."""

"""What devices and the server say to each other, member by member.

1. A request's members are exactly those named here; a default of None means that it may be left out.
2. Tags are a set: duplicates are dropped and they are kept sorted; at most 100.
3. To connect, a device either shows the id and the secret of an earlier visit, or registers; never half of one.
4. The second half is what a client reads: ids are text there, as they are on the wire, and what a later server adds
   is passed over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pushactors.errors import Invalid
from pushactors.wire.codec import at_most
from pushactors.wire.ids import Alias, AppKey, MsgId, Platform, RegistrationId, Tag
from pushactors.wire.strict import WantedAlias

MAX_TAGS: Final = 100
INSTALL_KEY_CHARS: Final = (8, 128)
DEVICE_SECRET_CHARS: Final = 128


def tag_set(tags: tuple[Tag, ...], path: str = "tags") -> tuple[Tag, ...]:
    """`tags` sorted, each once. Raises `Invalid` if there are more than a device may have."""
    at_most(MAX_TAGS, tags, path)
    return tuple(sorted(set(tags)))


# --- What a device asks ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """`platform`, `alias` and `tags` None: leave them as they are; `""` and `()`: clear them."""

    app_key: AppKey
    registration_id: RegistrationId | None = None
    device_secret: str | None = field(default=None, repr=False)
    install_key: str | None = field(default=None, repr=False)
    platform: Platform | None = None
    alias: WantedAlias | None = None
    alias_token: str | None = field(default=None, repr=False)
    tags: tuple[Tag, ...] | None = None

    def __post_init__(self) -> None:
        _check_credentials(self)
        if self.tags is not None:
            object.__setattr__(self, "tags", tag_set(self.tags))

    @property
    def registers(self) -> bool:
        return self.registration_id is None


def _check_credentials(connect: Connect) -> None:
    if connect.registration_id is None and connect.device_secret is not None:
        raise Invalid("A device_secret comes with its registration_id.", "registration_id")
    if connect.registration_id is not None:
        if connect.device_secret is None:
            raise Invalid("A registration_id comes with its device_secret.", "device_secret")
        if connect.install_key is not None:
            raise Invalid("An install_key is for registering: leave it out with a registration_id.", "install_key")
        if not 1 <= len(connect.device_secret) <= DEVICE_SECRET_CHARS:
            raise Invalid(f"A device_secret has 1 to {DEVICE_SECRET_CHARS} characters.", "device_secret")
    if connect.install_key is not None:
        lowest, highest = INSTALL_KEY_CHARS
        if not lowest <= len(connect.install_key) <= highest or not connect.install_key.isprintable():
            raise Invalid(f"An install_key has {lowest} to {highest} printable characters.", "install_key")


@dataclass(frozen=True, slots=True)
class SetAlias:
    alias: WantedAlias
    alias_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Tags:
    """The params of `tags.set`, `tags.add` and `tags.remove`."""

    tags: tuple[Tag, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", tag_set(self.tags))


@dataclass(frozen=True, slots=True)
class Nothing:
    """The params of a method that takes none."""


@dataclass(frozen=True, slots=True)
class About:
    """What `received`, `declined`, `opened`, `dismissed` and `withdrawn` say: which message."""

    msg_id: MsgId


# --- What a client reads ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectResult:
    """`heartbeat` is in seconds; `device_secret` comes with a registration only."""

    registration_id: str
    heartbeat: int
    device_secret: str | None = field(default=None, repr=False)
    alias: Alias | None = None
    tags: tuple[str, ...] = ()
    waiting: int = 0
    server_at: int | None = None


@dataclass(frozen=True, slots=True)
class AliasAnswer:
    """The answer to `alias.set` and `alias.get`, and the notification `alias`."""

    alias: Alias | None = None
    previous: Alias | None = None


AliasNote = AliasAnswer


@dataclass(frozen=True, slots=True)
class TagsAnswer:
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageNote:
    """A message as a device gets it. `alias` None: not addressed by alias; `expires_at` None: it may not wait."""

    msg_id: str
    sent_at: int
    expires_at: int | None = None
    alias: Alias | None = None
    override_msg_id: str | None = None
    notification: dict[str, object] | None = None
    message: dict[str, object] | None = None


@dataclass(frozen=True, slots=True)
class RecallNote:
    """The app server takes this message back (C22)."""

    msg_id: str


@dataclass(frozen=True, slots=True)
class Goodbye:
    """`retry_after` in seconds; None: do not come back by yourself."""

    reason: str
    retry_after: int | None = None

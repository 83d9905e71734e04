"""What app servers ask, member by member, and what they are answered.

1. A request's members are exactly those named here; a default of None means that it may be left out.
2. Two spellings of one push are one push: arrays that mean sets are sorted and without duplicates, empty ones are
   absent, a list of all platforms is "all". So equal pushes have equal digests, which `cid` relies on (C6).
3. An audience that names nothing is an error, never everybody (C4).
4. Notification and message are checked to their last member and then kept as they came: nobody here reads them again.
5. The second half is what a client reads: ids are text there, as they are on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Literal

from pushactors.errors import Invalid, TooLarge
from pushactors.wire.codec import at_most, canonical, encode, structure, within
from pushactors.wire.device import tag_set
from pushactors.wire.ids import Alias, Cid, MsgId, Platform, RegistrationId, Tag
from pushactors.wire.strict import WantedAlias

PAYLOAD_BYTES: Final = 4000
TTL_DEFAULT_S: Final = 86_400
TTL_MAX_S: Final = 864_000
MAX_NAMES: Final = 1000
"""Aliases or registration ids in one audience, or registration ids in one question."""
MAX_AUDIENCE_TAGS: Final = 20
MAX_REPORTS: Final = 100
MAX_DEVICES: Final = 1000
MAX_PUSHES: Final = 100
DIGEST_BYTES: Final = 16

# --- A push ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """Within a key: any of (`tag_and`: all of; `tag_not`: none of). Between keys: and. Empty: the key was absent."""

    alias: tuple[Alias, ...] = ()
    registration_id: tuple[RegistrationId, ...] = ()
    tag: tuple[Tag, ...] = ()
    tag_and: tuple[Tag, ...] = ()
    tag_not: tuple[Tag, ...] = ()

    def __post_init__(self) -> None:
        for key, limit in _AUDIENCE_LIMITS:
            names = getattr(self, key)
            at_most(limit, names, key)
            object.__setattr__(self, key, tuple(sorted(set(names))))
        if not any(getattr(self, key) for key, _ in _AUDIENCE_LIMITS):
            raise Invalid('An audience must name somebody; everybody is "all".')


_AUDIENCE_LIMITS: Final = (
    ("alias", MAX_NAMES),
    ("registration_id", MAX_NAMES),
    ("tag", MAX_AUDIENCE_TAGS),
    ("tag_and", MAX_AUDIENCE_TAGS),
    ("tag_not", MAX_AUDIENCE_TAGS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`time_to_live` is in seconds."""

    sendno: int | None = None
    time_to_live: int = TTL_DEFAULT_S
    override_msg_id: MsgId | None = None

    def __post_init__(self) -> None:
        within(self.time_to_live, 0, TTL_MAX_S, "time_to_live")


@dataclass(frozen=True, slots=True, kw_only=True)
class PushParams:
    """A push as it was asked for. Raises `Invalid` or `TooLarge` when it is made."""

    audience: Audience | Literal["all"]
    platform: tuple[Platform, ...] | Literal["all"] = "all"
    cid: Cid | None = None
    notification: dict[str, object] | None = None
    message: dict[str, object] | None = None
    options: Options = Options()

    def __post_init__(self) -> None:
        if self.platform != "all":
            object.__setattr__(self, "platform", _one_spelling(self.platform))
        _check_content(self.notification, self.message)
        if self.payload_size() > PAYLOAD_BYTES:
            raise TooLarge(f"notification and message together must have at most {PAYLOAD_BYTES} bytes of JSON.")

    @property
    def platforms(self) -> tuple[Platform, ...]:
        return _ALL_PLATFORMS if self.platform == "all" else self.platform

    def body(self) -> bytes:
        """What is kept of the content: canonical JSON of `notification` and `message`, absent ones left out."""
        return canonical(self._content())

    def payload_size(self) -> int:
        """Bytes of JSON of the notification and of the message, without what is around them."""
        return sum(len(encode(part)) for part in self._content().values())

    def digest(self) -> bytes:
        """The same for the same push: everything but its `cid`, in one spelling."""
        push = {"audience": self.audience, "platform": self.platform, "options": self.options, **self._content()}
        return blake2b(canonical(push), digest_size=DIGEST_BYTES).digest()

    def _content(self) -> dict[str, object]:
        parts = {"notification": self.notification, "message": self.message}
        return {name: part for name, part in parts.items() if part is not None}


_ALL_PLATFORMS: Final = tuple(sorted(Platform))


def _one_spelling(platforms: tuple[Platform, ...]) -> tuple[Platform, ...] | Literal["all"]:
    if not platforms:
        raise Invalid('platform must name one at least; all of them are "all".', "platform")
    once = tuple(sorted(set(platforms)))
    return "all" if once == _ALL_PLATFORMS else once


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    alert: str | None = None
    title: str | None = None
    sound: str | None = None
    icon: str | None = None
    category: str | None = None
    url: str | None = None
    badge: int | None = None
    extras: dict[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Notification(_Shown):
    """One section for each platform, by its name."""

    android: _Shown | None = None
    ios: _Shown | None = None
    web: _Shown | None = None
    desktop: _Shown | None = None
    other: _Shown | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Custom:
    msg_content: str
    title: str | None = None
    content_type: str | None = None
    extras: dict[str, object] | None = None


def _check_content(notification: dict[str, object] | None, message: dict[str, object] | None) -> None:
    if notification is None and message is None:
        raise Invalid("A push needs a notification or a message.", "notification")
    if notification is not None:
        if not notification:
            raise Invalid("notification must not be empty.", "notification")
        structure(_Notification, notification, "notification")
    if message is not None:
        structure(_Custom, message, "message")


# --- Other questions -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MsgIds:
    """The params of `report`: answered in this order."""

    msg_ids: tuple[MsgId, ...]

    def __post_init__(self) -> None:
        at_most(MAX_REPORTS, self.msg_ids, "msg_ids")


@dataclass(frozen=True, slots=True)
class StatusParams:
    msg_id: MsgId
    registration_ids: tuple[RegistrationId, ...]

    def __post_init__(self) -> None:
        at_most(MAX_NAMES, self.registration_ids, "registration_ids")


@dataclass(frozen=True, slots=True)
class PresenceParams:
    registration_ids: tuple[RegistrationId, ...]

    def __post_init__(self) -> None:
        at_most(MAX_NAMES, self.registration_ids, "registration_ids")


@dataclass(frozen=True, slots=True)
class OneDevice:
    """The params of `devices.get` and `devices.delete`."""

    registration_id: RegistrationId


@dataclass(frozen=True, slots=True)
class ListDevices:
    after: RegistrationId | None = None
    limit: int = MAX_DEVICES

    def __post_init__(self) -> None:
        within(self.limit, 1, MAX_DEVICES, "limit")


@dataclass(frozen=True, slots=True)
class ListPushes:
    before: MsgId | None = None
    limit: int = MAX_PUSHES

    def __post_init__(self) -> None:
        within(self.limit, 1, MAX_PUSHES, "limit")


@dataclass(frozen=True, slots=True)
class TagEdit:
    """Tags to add, then tags to remove."""

    add: tuple[Tag, ...] = ()
    remove: tuple[Tag, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "add", tag_set(self.add, "add"))
        object.__setattr__(self, "remove", tag_set(self.remove, "remove"))


@dataclass(frozen=True, slots=True)
class DeviceSet:
    """None leaves as it is; alias `""` clears it; tags `()`, spelled `[]`, clear them all."""

    registration_id: RegistrationId
    alias: WantedAlias | None = None
    tags: TagEdit | tuple[Tag, ...] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.tags, tuple) and self.tags:
            raise Invalid("tags must be an object of add and remove, or [] for none.", "tags")


@dataclass(frozen=True, slots=True)
class OneAlias:
    """The params of `aliases.get` and `aliases.delete`."""

    alias: Alias


@dataclass(frozen=True, slots=True)
class OneTag:
    """The params of `tags.get`."""

    tag: Tag


# --- What a client reads ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PushAnswer:
    """`online` of the targets had a visit when the push was accepted, `absent` of them had none."""

    msg_id: str
    targets: int
    online: int
    absent: int
    sendno: int | None = None


@dataclass(frozen=True, slots=True)
class Validated:
    """How many targets the push would have had now."""

    targets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The numbers of one push: `targets` is the sum of `waiting`, `sent` and the seven verdicts (C1)."""

    msg_id: str
    targets: int
    waiting: int = 0
    sent: int = 0
    received: int = 0
    missed: int = 0
    expired: int = 0
    replaced: int = 0
    overflowed: int = 0
    recalled: int = 0
    fenced: int = 0
    opened: int = 0
    dismissed: int = 0
    withdrawn: int = 0
    sent_at: int | None = None


@dataclass(frozen=True, slots=True)
class PushList:
    pushes: tuple[Report, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """`code`: 0 received, 1 not received, 2 not a device of this app, 3 not a target (C19)."""

    code: int
    state: str | None = None
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """One entry of a mailbox: `state` is `waiting` or `sent`."""

    msg_id: str
    state: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """`mailbox` None: this answer does not say (lists do not)."""

    registration_id: str
    platform: str
    online: bool
    alias: Alias | None = None
    tags: tuple[str, ...] = ()
    last_seen_at: int | None = None
    mailbox: tuple[Waiting, ...] | None = None


@dataclass(frozen=True, slots=True)
class DeviceList:
    devices: tuple[DeviceInfo, ...]


@dataclass(frozen=True, slots=True)
class Holders:
    """The devices that have, or lost, an alias."""

    registration_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TagHolders:
    """At most 1000 of the `count` devices that have the tag."""

    registration_ids: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class TagList:
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Presence:
    online: bool
    last_seen_at: int | None = None

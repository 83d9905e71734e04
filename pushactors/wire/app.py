"""What app servers ask, member by member, and what they are answered.

1. A request's members are exactly those named here; a default of None means that it may be left out.
2. Two spellings of one push are one push: arrays that mean sets are sorted and without duplicates, empty ones are
   absent, a list of all platforms is "all". So equal pushes have equal digests, which `cid` relies on (C6).
3. An audience that names nothing is an error, never everybody (C4).
4. Notification and message are checked to their last member and then kept as they came: nobody here reads them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Literal

from pushactors.errors import Invalid, TooLarge
from pushactors.wire.codec import at_most, canonical, encode, structure, within
from pushactors.wire.device import tag_set
from pushactors.wire.ids import Alias, Cid, Consumer, Cursor, MsgId, Platform, RegistrationId, Tag
from pushactors.wire.strict import WantedAlias

PAYLOAD_BYTES: Final = 4000
TTL_DEFAULT_S: Final = 86_400
TTL_MAX_S: Final = 864_000
DELIVER_WITHIN_S: Final = (1, 864_000)
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
    """`time_to_live` and `deliver_within` are in seconds. `hold`: it waits for the user, not for the device."""

    sendno: int | None = None
    time_to_live: int = TTL_DEFAULT_S
    override_msg_id: MsgId | None = None
    deliver_within: int | None = None
    hold: bool = False

    def __post_init__(self) -> None:
        within(self.time_to_live, 0, TTL_MAX_S, "time_to_live")
        if self.deliver_within is not None:
            within(self.deliver_within, *DELIVER_WITHIN_S, "deliver_within")
        if self.hold and self.time_to_live == 0:
            raise Invalid("What may not wait cannot be held: give it a time_to_live.", "hold")


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
        if self.options.hold:
            _check_hold(self.audience, self.platform)
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
        push: dict[str, object] = {
            "audience": self.audience,
            "platform": self.platform,
            "options": _FirstOptions(self.options.sendno, self.options.time_to_live, self.options.override_msg_id),
            **self._content(),
        }
        # What the first version did not have is absent where it says nothing: a cid outlives an upgrade.
        later = {"deliver_within": self.options.deliver_within, "hold": self.options.hold}
        if said := {name: value for name, value in later.items() if value}:
            push["later_options"] = said
        return blake2b(canonical(push), digest_size=DIGEST_BYTES).digest()

    def _content(self) -> dict[str, object]:
        parts = {"notification": self.notification, "message": self.message}
        return {name: part for name, part in parts.items() if part is not None}


@dataclass(frozen=True, slots=True)
class _FirstOptions:
    """What digests have been made of since the first version. Fields keep their order there, as keys would not."""

    sendno: int | None
    time_to_live: int
    override_msg_id: MsgId | None


_ALL_PLATFORMS: Final = tuple(sorted(Platform))


def _one_spelling(platforms: tuple[Platform, ...]) -> tuple[Platform, ...] | Literal["all"]:
    if not platforms:
        raise Invalid('platform must name one at least; all of them are "all".', "platform")
    once = tuple(sorted(set(platforms)))
    return "all" if once == _ALL_PLATFORMS else once


def _check_hold(audience: Audience | Literal["all"], platform: tuple[Platform, ...] | Literal["all"]) -> None:
    names_more = isinstance(audience, str) or any(
        getattr(audience, key) for key, _ in _AUDIENCE_LIMITS if key != "alias"
    )
    if names_more or isinstance(audience, str) or not audience.alias:
        raise Invalid("Only a push to aliases, and to nothing else, can wait for its user.", "options.hold")
    if platform != "all":
        raise Invalid("Nobody knows on which platform the user will log in: hold goes to all of them.", "options.hold")


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
class OneMessage:
    """The params of `push.recall`."""

    msg_id: MsgId


@dataclass(frozen=True, slots=True)
class Subscribe:
    """The params of `receipts.subscribe`: resume where `consumer` is, or begin behind `after`, or move it there."""

    consumer: Consumer | None = None
    after: Cursor | None = None

    def __post_init__(self) -> None:
        if self.consumer is None and self.after is None:
            raise Invalid('Name a consumer, or the cursor to begin after ("0": with the oldest kept).', "consumer")


@dataclass(frozen=True, slots=True)
class AckReceipts:
    """The params of `receipts.ack`: this one and all before it."""

    cursor: Cursor


@dataclass(frozen=True, slots=True)
class TimelineOf:
    """The params of `timeline`: of a delivery to a device, or of one that waits for its alias."""

    msg_id: MsgId
    registration_id: RegistrationId | None = None
    alias: Alias | None = None

    def __post_init__(self) -> None:
        if (self.registration_id is None) == (self.alias is None):
            raise Invalid("Name the device, or the alias that it waits for: one of the two.", "registration_id")


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
    """Tags to remove and tags to add; one that is in both stays."""

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

"""Who is registered with one app, and who is logged in where: the table that audiences are resolved on.

1. A device has at most one alias; an alias is on at most `limit` devices (C13).
2. Every change of a device's alias is a new binding, clearing included; setting what is there is no change (C13).
3. An alias that is full refuses, or the device longest away loses it, as the app says. A present device is not away.
4. Everything is found in one step, by registration id, alias or tag, and comes in a repeatable order.
5. This table runs ahead of the disk; whoever tells of it waits for the disk first (C2).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum

from pushactors.errors import AliasFull
from pushactors.wire.ids import Alias, Binding, DeviceNo, Millis, Platform, RegistrationId, Tag

TAGS_MAX = 100
"""Tags of one device."""


class AliasFullPolicy(StrEnum):
    REFUSE = "refuse"
    LONGEST_ABSENT = "longest_absent"


class Registration:
    """One device as the table knows it. Compact: there is one for every registered device, present or not."""

    __slots__ = ("alias", "binding", "device_no", "last_seen_at", "platform", "registration_id", "tags")

    def __init__(
        self,
        device_no: DeviceNo,
        registration_id: RegistrationId,
        platform: Platform,
        alias: Alias | None = None,
        binding: Binding = Binding(0),
        tags: tuple[Tag, ...] = (),
        last_seen_at: Millis = Millis(0),
    ) -> None:
        self.device_no = device_no
        self.registration_id = registration_id
        self.platform = platform
        self.alias = alias
        self.binding = binding
        self.tags = tags
        self.last_seen_at = last_seen_at


class Directory:
    """The registrations of one app. See the law on top."""

    def __init__(self, registrations: Iterable[Registration] = ()) -> None:
        self._by_id: dict[RegistrationId, Registration] = {}
        self._by_alias: dict[Alias, tuple[Registration, ...]] = {}
        # Dictionaries without values: sets whose order is the same in every run.
        self._by_tag: dict[Tag, dict[Registration, None]] = {}
        self._ids: list[RegistrationId] = []
        self._ids_are_sorted = True
        for registration in registrations:
            self.add(registration)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Registration]:
        return iter(self._by_id.values())

    # --- Changing ----------------------------------------------------------------------------------------------------

    def add(self, registration: Registration) -> None:
        self._by_id[registration.registration_id] = registration
        self._ids.append(registration.registration_id)
        self._ids_are_sorted = False
        if registration.alias is not None:
            self._by_alias[registration.alias] = (*self.holders(registration.alias), registration)
        for tag in registration.tags:
            self._by_tag.setdefault(tag, {})[registration] = None

    def remove(self, registration: Registration) -> None:
        del self._by_id[registration.registration_id]
        self._drop_alias(registration)
        self._drop_tags(registration, registration.tags)
        if len(self._ids) > 2 * len(self._by_id) + 1000:
            # Ids of the removed stay in the list until it is mostly that: removing one from it is linear.
            self._ids = list(self._by_id)
            self._ids_are_sorted = False

    def set_alias(self, registration: Registration, alias: Alias | None, binding: Binding) -> None:
        self._drop_alias(registration)
        registration.alias = alias
        registration.binding = binding
        if alias is not None:
            self._by_alias[alias] = (*self.holders(alias), registration)

    def set_tags(self, registration: Registration, tags: tuple[Tag, ...]) -> None:
        self._drop_tags(registration, set(registration.tags) - set(tags))
        registration.tags = tags
        for tag in tags:
            self._by_tag.setdefault(tag, {})[registration] = None

    def _drop_alias(self, registration: Registration) -> None:
        alias = registration.alias
        if alias is None:
            return
        left = tuple(holder for holder in self._by_alias[alias] if holder is not registration)
        if left:
            self._by_alias[alias] = left
        else:
            del self._by_alias[alias]

    def _drop_tags(self, registration: Registration, tags: Iterable[Tag]) -> None:
        for tag in tags:
            tagged = self._by_tag[tag]
            del tagged[registration]
            if not tagged:
                del self._by_tag[tag]

    # --- Deciding ----------------------------------------------------------------------------------------------------

    def who_loses(
        self,
        alias: Alias,
        newcomer: Registration | None,
        limit: int,
        policy: AliasFullPolicy,
        is_present: Callable[[Registration], bool],
    ) -> Registration | None:
        """Which device loses `alias` so that `newcomer` (None: one that is just being registered) can have it; None
        if there is room. Raises `AliasFull` if none may lose it."""
        holders = self.holders(alias)
        if len(holders) < limit or newcomer in holders:
            return None
        absent = [holder for holder in holders if not is_present(holder)]
        if policy is AliasFullPolicy.REFUSE or not absent:
            raise AliasFull(f"This alias is on {len(holders)} devices, and may be on {limit}: take it off one of them.")
        return min(absent, key=lambda holder: (holder.last_seen_at, holder.device_no))

    # --- Looking -----------------------------------------------------------------------------------------------------

    def find(self, registration_id: RegistrationId) -> Registration | None:
        return self._by_id.get(registration_id)

    def holders(self, alias: Alias) -> tuple[Registration, ...]:
        return self._by_alias.get(alias, ())

    def tagged(self, tag: Tag) -> Sequence[Registration]:
        return tuple(self._by_tag.get(tag, ()))

    def tags(self) -> list[Tag]:
        """Every tag that is on some device, sorted."""
        return sorted(self._by_tag)

    def page(self, after: RegistrationId | None, limit: int) -> list[Registration]:
        """Registrations in order of their id, beginning behind `after`."""
        if not self._ids_are_sorted:
            # Sorting a sorted list with a short tail is nearly linear.
            self._ids.sort()
            self._ids_are_sorted = True
        page: list[Registration] = []
        at = 0 if after is None else bisect_right(self._ids, after)
        while at < len(self._ids) and len(page) < limit:
            found = self._by_id.get(self._ids[at])
            if found is not None:  # else removed since
                page.append(found)
            at += 1
        return page

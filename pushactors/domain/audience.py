"""Who is a target of a push: resolved once, when it is accepted (C4).

1. Within a key: any of the names (`tag_and`: all of them; `tag_not`: none of them). Between keys: and.
2. `tag_not` alone means everybody but those.
3. Unknown names are ignored. An audience that names no device has no targets; that is for the caller to refuse.
4. Whoever is not on one of the push's platforms is no target.
5. Every target comes once, in an order that is the same in every run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from pushactors.domain.aliases import Directory, Registration
from pushactors.wire.ids import Alias, Platform, RegistrationId, Tag


@dataclass(frozen=True, slots=True)
class Audience:
    """Empty keys count as absent; all of them empty: everybody."""

    alias: tuple[Alias, ...] = ()
    registration_id: tuple[RegistrationId, ...] = ()
    tag: tuple[Tag, ...] = ()
    tag_and: tuple[Tag, ...] = ()
    tag_not: tuple[Tag, ...] = ()

    @property
    def is_by_alias(self) -> bool:
        """Whether its deliveries are fenced: an audience with an alias key is, whatever else it names (C4, C14)."""
        return bool(self.alias)

    def targets(self, directory: Directory, platforms: frozenset[Platform]) -> list[Registration]:
        """The devices that this audience names now. `platforms` empty: all of them."""
        ids = frozenset(self.registration_id)
        return [
            each
            for each in dict.fromkeys(self._candidates(directory))
            if (not platforms or each.platform in platforms) and self._admits(each, ids, directory)
        ]

    def _candidates(self, directory: Directory) -> Iterable[Registration]:
        """The narrowest key that is there, before the other keys are judged."""
        if self.alias:
            return chain.from_iterable(directory.holders(alias) for alias in self.alias)
        if self.registration_id:
            found = (directory.find(registration_id) for registration_id in self.registration_id)
            return (registration for registration in found if registration is not None)
        if self.tag_and:
            return min((directory.tagged(tag) for tag in self.tag_and), key=len)
        if self.tag:
            return chain.from_iterable(directory.tagged(tag) for tag in self.tag)
        return directory

    def _admits(self, each: Registration, ids: frozenset[RegistrationId], directory: Directory) -> bool:
        return (
            (not ids or each.registration_id in ids)
            and (not self.tag or any(directory.has_tag(each, tag) for tag in self.tag))
            and all(directory.has_tag(each, tag) for tag in self.tag_and)
            and not any(directory.has_tag(each, tag) for tag in self.tag_not)
        )

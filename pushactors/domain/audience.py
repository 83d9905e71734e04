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
        # Once for all candidates, however many tags are named.
        tagged = frozenset(chain.from_iterable(map(directory.tagged, self.tag)))
        excluded = frozenset(chain.from_iterable(map(directory.tagged, self.tag_not)))
        required = [frozenset(directory.tagged(tag)) for tag in self.tag_and]
        return [
            each
            for each in dict.fromkeys(self._candidates(directory))
            if (not platforms or each.platform in platforms)
            and (not ids or each.registration_id in ids)
            and (not self.tag or each in tagged)
            and each not in excluded
            and all(each in those for those in required)
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

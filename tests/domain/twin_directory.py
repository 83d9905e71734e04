"""The table of aliases and the audiences on it told again, naively: a list of devices, gone through for every question.

It shares no code with the domain, and nothing but its words. A random walk compares the two after every step.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, TypeVar

from pushactors.domain.aliases import AliasFullPolicy, Directory, Registration
from pushactors.domain.audience import Audience
from pushactors.errors import AliasFull
from pushactors.wire.ids import Alias, Binding, DeviceNo, Millis, Platform, RegistrationId, Tag

Fact = dict[str, Any]
T = TypeVar("T")

ALIASES = [Alias(name) for name in ("A", "B", "C", "D")]
TAGS = [Tag(name) for name in ("news", "sport", "vip", "zh")]
STRANGE_ALIAS, STRANGE_TAG, STRANGE_ID = Alias("nobody"), Tag("never"), RegistrationId("nowhere")


class TwinDirectory:
    """`facts` are the devices that there are; each knows its `id`, `platform`, `alias`, `binding`, `tags`, …"""

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def holders(self, alias: str) -> list[Fact]:
        return [fact for fact in self.facts if fact["alias"] == alias]

    def tagged(self, tag: str) -> list[Fact]:
        return [fact for fact in self.facts if tag in fact["tags"]]

    def tags(self) -> list[str]:
        return sorted({tag for fact in self.facts for tag in fact["tags"]})

    def page(self, after: str | None, limit: int) -> list[str]:
        return sorted(fact["id"] for fact in self.facts if after is None or fact["id"] > after)[:limit]

    def may_lose(self, alias: str, newcomer: Fact | None, limit: int, policy: AliasFullPolicy) -> list[Fact] | None:
        """Who may be the one that loses it, equals included: nobody if there is room, None if it is refused (C13)."""
        holders = self.holders(alias)
        if newcomer in holders or len(holders) < limit:
            return []
        absent = [fact for fact in holders if not fact["present"]]
        if policy is AliasFullPolicy.REFUSE or not absent:
            return None
        longest = min(fact["last_seen_at"] for fact in absent)
        return [fact for fact in absent if fact["last_seen_at"] == longest]

    def targets(self, audience: Audience, platforms: frozenset[Platform]) -> list[Fact]:
        """C4, and the sentences of the protocol, key by key."""
        return [
            fact
            for fact in self.facts
            if (not platforms or fact["platform"] in platforms)
            and (not audience.alias or fact["alias"] in audience.alias)
            and (not audience.registration_id or fact["id"] in audience.registration_id)
            and (not audience.tag or any(tag in fact["tags"] for tag in audience.tag))
            and (not audience.tag_and or all(tag in fact["tags"] for tag in audience.tag_and))
            and (not audience.tag_not or all(tag not in fact["tags"] for tag in audience.tag_not))
        ]


class DirectoryWalk:
    """One app at random: a table and its twin do the same, and are asked everything after every step."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.table = Directory()
        self.twin = TwinDirectory()
        self.last_no = 0
        self.trace: list[object] = []
        """What was answered, in the order of the answers: it must be the same in every run."""
        self.met: set[str] = set()
        self.steps = {self.add: 5, self.remove: 2, self.set_alias: 9, self.set_tags: 7, self.touch: 5, self.restart: 1}

    def step(self) -> str:
        """Does one thing on both sides, compares them, and says what it did."""
        what = self.random.choices(list(self.steps), weights=list(self.steps.values()))[0]()
        self._compare_table(what)
        self._compare_page(what)
        self._compare_loser(what)
        self._compare_targets(what)
        return what

    # --- Questions -----------------------------------------------------------------------------------------------

    def _same(self, ours: Iterable[Registration], theirs: list[Fact], what: str) -> None:
        given = [each.registration_id for each in ours]
        assert len(given) == len(set(given)), f"{what}: somebody comes twice"
        assert sorted(given) == sorted(fact["id"] for fact in theirs), f"{what}: {given}"
        self.trace.append(given)

    def _compare_table(self, what: str) -> None:
        table, twin = self.table, self.twin
        assert len(table) == len(twin.facts), f"{what}: miscounted"
        self._same(table, twin.facts, f"{what}: all")
        for alias in (*ALIASES, STRANGE_ALIAS):
            self._same(table.holders(alias), twin.holders(alias), f"{what}: holders of {alias}")
        for tag in (*TAGS, STRANGE_TAG):
            self._same(table.tagged(tag), twin.tagged(tag), f"{what}: tagged {tag}")
        assert list(table.tags()) == twin.tags(), f"{what}: tags"
        assert table.find(STRANGE_ID) is None
        for fact in twin.facts:
            found = table.find(fact["id"])
            assert found is not None, f"{what}: {fact['id']} is lost"
            assert (found.alias, found.binding) == (fact["alias"], fact["binding"]), f"{what}: {fact}"
            assert sorted(found.tags) == sorted(fact["tags"]), f"{what}: {fact}"
            assert [tag for tag in TAGS if (found in table.tagged(tag))] == sorted(fact["tags"]), f"{what}: {fact}"

    def _compare_page(self, what: str) -> None:
        after = self.random.choice((None, STRANGE_ID, RegistrationId(""), self._some_id()))
        limit = self.random.randint(1, 5)
        page = [each.registration_id for each in self.table.page(after, limit)]
        assert page == self.twin.page(after, limit), f"{what}: page behind {after}"

    def _compare_loser(self, what: str) -> None:
        alias, policy = self.random.choice((*ALIASES, STRANGE_ALIAS)), self.random.choice(list(AliasFullPolicy))
        newcomer = self.random.choice((None, *self.twin.facts))
        # C13 says what holds while the limit is kept; one that was lowered since makes one lose it all the same.
        limit = max(1, len(self.twin.holders(alias)) + self.random.choice((-1, 0, 0, 0, 1)))
        allowed = self.twin.may_lose(alias, newcomer, limit, policy)
        registration = None if newcomer is None else self.table.find(newcomer["id"])
        present = {fact["id"] for fact in self.twin.facts if fact["present"]}
        asked = f"{what}: {registration and registration.registration_id} wants {alias}, limit {limit}, {policy}"
        try:
            loser = self.table.who_loses(
                alias, registration, limit, policy, lambda each: each.registration_id in present
            )
        except AliasFull:
            assert allowed is None, f"{asked}: refused"
            self.met.add("refused")
            return
        assert allowed is not None, f"{asked}: not refused"
        if loser is None:
            assert not allowed, f"{asked}: nobody loses it"
            self.met.add("room")
        else:
            assert loser.registration_id in [fact["id"] for fact in allowed], f"{asked}: {loser.registration_id}"
            self.met.add("loses")
        self.trace.append(loser and loser.registration_id)

    def _compare_targets(self, what: str) -> None:
        audience, platforms = self._some_audience()
        targets, expected = audience.targets(self.table, platforms), self.twin.targets(audience, platforms)
        self._same(targets, expected, f"{what}: targets of {audience} on {set(platforms)}")
        self.met.add("targets" if targets else "no targets")

    def _some_audience(self) -> tuple[Audience, frozenset[Platform]]:
        some = self._some_of
        ids = [fact["id"] for fact in self.twin.facts]
        audience = Audience(
            alias=some([*ALIASES, STRANGE_ALIAS], 3, 0.35),
            registration_id=some([*ids, STRANGE_ID], 6, 0.3),
            tag=some([*TAGS, STRANGE_TAG], 3, 0.3),
            tag_and=some([*TAGS, *TAGS, STRANGE_TAG], 2, 0.3),
            tag_not=some([*TAGS, STRANGE_TAG], 2, 0.3),
        )
        return audience, frozenset(some(list(Platform), 4, 0.4))

    def _some_of(self, names: list[T], most: int, chance: float) -> tuple[T, ...]:
        """Now and then a few of them, the same one perhaps twice; else none."""
        count = self.random.randint(1, most) if self.random.random() < chance else 0
        return tuple(self.random.choice(names) for _ in range(count))

    def _some_id(self) -> RegistrationId | None:
        return self.random.choice([fact["id"] for fact in self.twin.facts]) if self.twin.facts else None

    # --- Steps ---------------------------------------------------------------------------------------------------

    def _some(self) -> tuple[Registration, Fact] | None:
        if not self.twin.facts:
            return None
        fact = self.random.choice(self.twin.facts)
        found = self.table.find(fact["id"])
        assert found is not None
        return found, fact

    def _some_tags(self) -> tuple[Tag, ...]:
        return tuple(tag for tag in TAGS if self.random.random() < 0.4)

    @staticmethod
    def _registration(fact: Fact) -> Registration:
        return Registration(
            DeviceNo(fact["no"]), fact["id"], fact["platform"], fact["alias"], Binding(fact["binding"]), fact["tags"],
            Millis(fact["last_seen_at"]),
        )  # fmt: skip

    def add(self) -> str:
        self.last_no += 1
        # Ids come in no order, as random ones do.
        name = RegistrationId(f"{self.random.randrange(10_000):04}-{self.last_no}")
        fact = {
            "no": self.last_no, "id": name, "platform": self.random.choice(list(Platform)),
            "alias": self.random.choice((None, *ALIASES)), "binding": self.random.choice((0, 1)),
            "tags": self._some_tags(), "last_seen_at": self.random.randint(1, 20), "present": False,
        }  # fmt: skip
        self.table.add(self._registration(fact))
        self.twin.facts.append(fact)
        return f"add {fact}"

    def remove(self) -> str:
        if (some := self._some()) is None:
            return "remove nobody"
        registration, fact = some
        self.table.remove(registration)
        self.twin.facts.remove(fact)
        return f"remove {fact}"

    def set_alias(self) -> str:
        if (some := self._some()) is None:
            return "set no alias"
        registration, fact = some
        alias = self.random.choice([each for each in (None, *ALIASES) if each != fact["alias"]])
        fact.update(alias=alias, binding=fact["binding"] + 1)
        self.table.set_alias(registration, alias, Binding(fact["binding"]))
        return f"set alias {fact}"

    def set_tags(self) -> str:
        if (some := self._some()) is None:
            return "set no tags"
        registration, fact = some
        fact["tags"] = self._some_tags()
        self.table.set_tags(registration, fact["tags"])
        return f"set tags {fact}"

    def touch(self) -> str:
        """Comes or goes; `last_seen_at` is also that of a device that is present."""
        if (some := self._some()) is None:
            return "touch nobody"
        registration, fact = some
        fact.update(present=not fact["present"], last_seen_at=self.random.randint(1, 20))
        registration.last_seen_at = Millis(fact["last_seen_at"])
        return f"touch {fact}"

    def restart(self) -> str:
        self.table = Directory([self._registration(fact) for fact in self.twin.facts])
        return "restart"

"""Who is a target, key by key. What the keys make of each other at random is walked in `test_aliases`."""

from __future__ import annotations

from itertools import chain, combinations
from typing import Any

import pytest

from pushactors.domain.aliases import Directory, Registration
from pushactors.domain.audience import Audience
from pushactors.wire.ids import Alias, Binding, DeviceNo, Platform, RegistrationId, Tag

A, B, STRANGER = Alias("A"), Alias("B"), Alias("stranger")
NEWS, SPORT, VIP, NEVER = Tag("news"), Tag("sport"), Tag("vip"), Tag("never")
EVERYWHERE: frozenset[Platform] = frozenset()

DEVICES = {
    "phone": (Platform.ANDROID, A, (NEWS, VIP)),
    "tablet": (Platform.IOS, A, (NEWS, SPORT)),
    "desk": (Platform.WEB, B, (SPORT,)),
    "kiosk": (Platform.OTHER, None, (NEWS,)),
    "spare": (Platform.OTHER, None, ()),
}


def table() -> Directory:
    return Directory(
        Registration(DeviceNo(number), RegistrationId(name), platform, alias, Binding(1), tags)
        for number, (name, (platform, alias, tags)) in enumerate(DEVICES.items())
    )


def names(audience: Audience, platforms: frozenset[Platform] = EVERYWHERE) -> list[str]:
    """Sorted; whoever came twice stands here twice."""
    return sorted(each.registration_id for each in audience.targets(table(), platforms))


def ids(*given: str) -> tuple[RegistrationId, ...]:
    return tuple(map(RegistrationId, given))


# --- Each key (C4) -------------------------------------------------------------------------------------------------


def test_no_key_at_all_is_everybody() -> None:
    """C4."""
    assert names(Audience()) == sorted(DEVICES)


def test_an_alias_is_every_device_that_has_it() -> None:
    """C4, C13."""
    assert names(Audience(alias=(A,))) == ["phone", "tablet"]


def test_several_aliases_are_any_of_them() -> None:
    """C4."""
    assert names(Audience(alias=(A, B))) == ["desk", "phone", "tablet"]


def test_several_ids_are_any_of_them() -> None:
    """C4."""
    assert names(Audience(registration_id=ids("spare", "desk"))) == ["desk", "spare"]


def test_tags_are_any_of_them() -> None:
    """C4."""
    assert names(Audience(tag=(VIP, SPORT))) == ["desk", "phone", "tablet"]


def test_tag_and_is_all_of_them() -> None:
    """C4."""
    assert names(Audience(tag_and=(NEWS, SPORT))) == ["tablet"]
    assert names(Audience(tag_and=(NEWS,))) == ["kiosk", "phone", "tablet"]


def test_tag_not_alone_is_everybody_without_any_of_them() -> None:
    """C4."""
    assert names(Audience(tag_not=(VIP, SPORT))) == ["kiosk", "spare"]


# --- Between keys (C4) ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("audience", "expected"),
    [
        (Audience(alias=(A,), tag=(SPORT,)), ["tablet"]),
        (Audience(alias=(A,), tag_not=(SPORT,)), ["phone"]),
        (Audience(alias=(A, B), registration_id=ids("desk", "kiosk")), ["desk"]),
        (Audience(alias=(A,), registration_id=ids("desk")), []),
        (Audience(tag=(NEWS,), tag_and=(SPORT,)), ["tablet"]),
        (Audience(tag=(NEWS,), tag_not=(NEWS,)), []),
        (Audience(tag_and=(NEWS,), tag_not=(VIP, SPORT)), ["kiosk"]),
        (Audience(registration_id=ids("phone", "spare"), tag_not=(NEWS,)), ["spare"]),
        (Audience((A,), ids("phone", "tablet", "desk"), (NEWS,), (VIP,), (SPORT,)), ["phone"]),
    ],
)
def test_between_keys_all_must_hold(audience: Audience, expected: list[str]) -> None:
    """C4."""
    assert names(audience) == expected


def test_any_two_keys_name_who_both_name() -> None:
    """C4."""
    keys: list[dict[str, Any]] = [
        {"alias": (A,)},
        {"registration_id": ids("phone", "desk", "kiosk")},
        {"tag": (NEWS, VIP)},
        {"tag_and": (NEWS,)},
        {"tag_not": (SPORT,)},
    ]
    for one, other in combinations(keys, 2):
        both = set(names(Audience(**one))) & set(names(Audience(**other)))
        assert names(Audience(**one, **other)) == sorted(both)


# --- Names that nobody has (C4) ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("audience", "expected"),
    [
        (Audience(alias=(STRANGER, B)), ["desk"]),
        (Audience(alias=(B, STRANGER)), ["desk"]),
        (Audience(registration_id=ids("nowhere", "spare")), ["spare"]),
        (Audience(tag=(NEVER, VIP)), ["phone"]),
        (Audience(tag=(VIP, NEVER)), ["phone"]),
        (Audience(tag_not=(NEVER, SPORT)), ["kiosk", "phone", "spare"]),
    ],
)
def test_unknown_names_are_ignored_in_any_order(audience: Audience, expected: list[str]) -> None:
    """C4."""
    assert names(audience) == expected


@pytest.mark.parametrize(
    "audience",
    [
        Audience(alias=(STRANGER,)),
        Audience(registration_id=ids("nowhere")),
        Audience(tag=(NEVER,)),
        Audience(tag_and=(NEVER,)),
        Audience(alias=(STRANGER,), tag=(NEWS,)),
    ],
)
def test_an_audience_that_names_no_device_has_no_targets(audience: Audience) -> None:
    """C4: refusing it is for the caller."""
    assert names(audience) == []


def test_nobody_has_a_tag_that_is_on_no_device() -> None:
    """C4: of all of them, one is missing, so the audience names nobody."""
    assert names(Audience(tag_and=(NEWS, NEVER))) == []
    assert names(Audience(tag_and=(NEVER, NEWS))) == []


def test_a_registration_without_an_alias_is_not_named_by_any() -> None:
    """C4."""
    assert "spare" not in names(Audience(alias=(A, B, STRANGER)))


# --- Platforms -----------------------------------------------------------------------------------------------------


def test_whoever_is_on_none_of_the_platforms_is_no_target() -> None:
    """C4: whichever key names it."""
    mobile = frozenset({Platform.ANDROID, Platform.IOS})
    assert names(Audience(), mobile) == ["phone", "tablet"]
    assert names(Audience(alias=(A, B)), frozenset({Platform.WEB})) == ["desk"]
    assert names(Audience(registration_id=ids("desk")), mobile) == []
    assert names(Audience(tag_not=(VIP,)), mobile) == ["tablet"]


def test_no_platforms_are_all_of_them() -> None:
    assert names(Audience(), frozenset()) == names(Audience(), frozenset(Platform)) == sorted(DEVICES)


# --- Once, and when ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "audience",
    [
        Audience(alias=(A, B, A)),
        Audience(registration_id=ids("phone", "phone")),
        Audience(tag=(NEWS, VIP, SPORT, NEWS)),
        Audience(tag_and=(NEWS, NEWS)),
    ],
)
def test_every_target_comes_once(audience: Audience) -> None:
    """C1: one delivery for each pair of push and target."""
    found = names(audience)
    assert found
    assert len(found) == len(set(found))


def test_an_audience_is_resolved_when_it_is_asked() -> None:
    """C4, C13: wholly before a change, or wholly after it."""
    directory = table()
    audience = Audience(alias=(A,))
    before = audience.targets(directory, EVERYWHERE)
    phone = directory.find(RegistrationId("phone"))
    assert phone is not None
    directory.set_alias(phone, B, Binding(2))
    assert sorted(each.registration_id for each in before) == ["phone", "tablet"]
    assert [each.registration_id for each in audience.targets(directory, EVERYWHERE)] == ["tablet"]


def test_an_answer_is_the_callers_own() -> None:
    """What is done to one answer is not seen in the next."""
    directory = table()
    for audience in (Audience(), Audience(alias=(A,)), Audience(tag=(NEWS,)), Audience(tag_and=(NEWS,))):
        found = audience.targets(directory, EVERYWHERE)
        kept = list(found)
        found.clear()
        assert audience.targets(directory, EVERYWHERE) == kept


# --- Addressed by alias (C4, C14) --------------------------------------------------------------------------------


def test_an_audience_with_an_alias_is_by_alias_whatever_else_it_names() -> None:
    """C4."""
    others: list[dict[str, Any]] = [
        {"registration_id": ids("phone")},
        {"tag": (NEWS,)},
        {"tag_and": (NEWS,)},
        {"tag_not": (VIP,)},
    ]
    for some in chain.from_iterable(combinations(others, count) for count in range(len(others) + 1)):
        keys = {key: value for one in some for key, value in one.items()}
        assert Audience(alias=(A,), **keys).is_by_alias
        assert not Audience(**keys).is_by_alias


def test_an_audience_by_an_alias_that_nobody_has_is_by_alias() -> None:
    """C4."""
    assert Audience(alias=(STRANGER,)).is_by_alias

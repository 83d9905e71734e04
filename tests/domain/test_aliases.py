"""The table of aliases, rule by rule; then at random, against a twin that goes through a list for every question."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pushactors.domain.aliases import TAGS_MAX, AliasFullPolicy, Directory, Registration
from pushactors.errors import AliasFull
from pushactors.wire.ids import Alias, Binding, DeviceNo, Millis, Platform, RegistrationId, Tag
from tests.domain.twin_directory import DirectoryWalk

REFUSE, LONGEST_ABSENT = AliasFullPolicy.REFUSE, AliasFullPolicy.LONGEST_ABSENT
A, B = Alias("A"), Alias("B")
NEWS, SPORT, VIP = Tag("news"), Tag("sport"), Tag("vip")


def device(name: str, alias: Alias | None = None, *tags: Tag, last_seen_at: int = 0) -> Registration:
    number = DeviceNo(sum(map(ord, name)))
    return Registration(
        number, RegistrationId(name), Platform.OTHER, alias, Binding(0), tags, last_seen_at=Millis(last_seen_at)
    )


def absent(registration: Registration) -> bool:
    return False


def present(registration: Registration) -> bool:
    return True


# --- Who is there --------------------------------------------------------------------------------------------------


def test_a_device_is_found_by_its_id_alias_and_tags() -> None:
    one = device("one", A, NEWS, SPORT)
    table = Directory([one, device("two", B)])
    assert table.find(RegistrationId("one")) is one
    assert table.holders(A) == (one,)
    assert list(table.tagged(NEWS)) == list(table.tagged(SPORT)) == [one]
    assert (one in table.tagged(NEWS))
    assert one not in table.tagged(VIP)


def test_unknown_names_find_nobody() -> None:
    """C4."""
    table = Directory([device("one", A, NEWS)])
    assert table.find(RegistrationId("two")) is None
    assert table.holders(B) == ()
    assert list(table.tagged(VIP)) == []


def test_a_device_that_is_removed_is_found_by_nothing() -> None:
    one, two = device("one", A, NEWS), device("two", A, NEWS, VIP)
    table = Directory([one])
    table.add(two)
    assert len(table) == 2
    table.remove(two)
    assert list(table) == [one]
    assert len(table) == 1
    assert table.find(RegistrationId("two")) is None
    assert table.holders(A) == (one,)
    assert list(table.tagged(NEWS)) == [one]
    assert table.tags() == [NEWS]


def test_a_name_that_the_last_device_lost_is_forgotten() -> None:
    """C24: names that were once in use do not pile up."""
    one = device("one", A, NEWS)
    table = Directory([one])
    table.set_tags(one, (VIP,))
    assert table.tags() == [VIP]
    table.remove(one)
    assert table.tags() == []
    assert table.holders(A) == ()


def test_a_device_may_have_100_tags() -> None:
    """The protocol's names."""
    assert TAGS_MAX == 100


# --- One alias per device (C13) ----------------------------------------------------------------------------------


def test_setting_another_alias_overwrites_the_first() -> None:
    """C13."""
    one = device("one", A)
    table = Directory([one])
    table.set_alias(one, B, Binding(1))
    assert (one.alias, one.binding) == (B, 1)
    assert (table.holders(A), table.holders(B)) == ((), (one,))


def test_clearing_is_a_binding_too() -> None:
    """C13."""
    one = device("one", A)
    table = Directory([one])
    table.set_alias(one, None, Binding(1))
    assert (one.alias, one.binding) == (None, 1)
    assert table.holders(A) == ()


def test_an_alias_that_comes_back_has_another_binding() -> None:
    """C13: A, then B, then A again are three bindings."""
    one = device("one")
    table = Directory([one])
    bindings = []
    for number, alias in enumerate((A, B, A), start=1):
        table.set_alias(one, alias, Binding(number))
        bindings.append((one.alias, one.binding))
    assert bindings == [(A, 1), (B, 2), (A, 3)]
    assert table.holders(A) == (one,)


def test_setting_the_same_alias_again_does_not_hold_it_twice() -> None:
    """C13."""
    one = device("one", A)
    table = Directory([one])
    table.set_alias(one, A, one.binding)
    assert table.holders(A) == (one,)
    table.set_alias(one, None, Binding(1))
    assert table.holders(A) == ()


def test_one_alias_may_be_on_several_devices() -> None:
    """C13."""
    devices = [device(name, A) for name in ("one", "two", "three")]
    assert set(Directory(devices).holders(A)) == set(devices)


# --- When an alias is full (C13) -----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", list(AliasFullPolicy))
def test_nobody_loses_an_alias_while_there_is_room(policy: AliasFullPolicy) -> None:
    """C13."""
    one, two = device("one", A), device("two")
    table = Directory([one, two])
    assert table.who_loses(A, two, 2, policy, absent) is None
    assert table.who_loses(A, None, 2, policy, absent) is None
    assert table.who_loses(B, two, 1, policy, absent) is None


def test_a_full_alias_is_refused_to_one_more() -> None:
    """C13: whoever is away."""
    table = Directory([device("one", A), device("two")])
    with pytest.raises(AliasFull):
        table.who_loses(A, table.find(RegistrationId("two")), 1, REFUSE, absent)
    with pytest.raises(AliasFull):
        table.who_loses(A, None, 1, REFUSE, absent)


@pytest.mark.parametrize("policy", list(AliasFullPolicy))
def test_whoever_has_a_full_alias_may_keep_it(policy: AliasFullPolicy) -> None:
    """C13: setting the alias that the device already has is no change."""
    one, two = device("one", A), device("two", A)
    table = Directory([one, two])
    assert table.who_loses(A, one, 2, policy, absent) is None
    assert table.who_loses(A, one, 1, policy, present) is None


@pytest.mark.parametrize("is_new", [True, False])
def test_the_device_longest_away_loses_a_full_alias_if_the_app_says_so(is_new: bool) -> None:
    """C13."""
    early, late, newcomer = device("a", A, last_seen_at=5), device("b", A, last_seen_at=9), device("c", last_seen_at=1)
    table = Directory([late, newcomer, early])
    assert table.who_loses(A, None if is_new else newcomer, 2, LONGEST_ABSENT, absent) is early
    assert set(table.holders(A)) == {early, late}, "It is told only; nothing is changed yet."


def test_a_present_device_is_not_away() -> None:
    """C13: however long ago it was last heard of."""
    early, late = device("a", A, last_seen_at=5), device("b", A, last_seen_at=9)
    table = Directory([early, late])
    assert table.who_loses(A, None, 2, LONGEST_ABSENT, lambda each: each is early) is late


def test_a_full_alias_is_refused_if_all_who_have_it_are_present() -> None:
    """C13: under either policy."""
    table = Directory([device("a", A), device("b", A)])
    with pytest.raises(AliasFull):
        table.who_loses(A, None, 2, LONGEST_ABSENT, present)


# --- Tags and pages ------------------------------------------------------------------------------------------------


def test_setting_tags_replaces_all_of_them() -> None:
    one, two = device("one", None, NEWS, SPORT), device("two", None, SPORT)
    table = Directory([one, two])
    table.set_tags(one, (SPORT, VIP))
    assert one.tags == (SPORT, VIP)
    assert list(table.tagged(NEWS)) == []
    assert set(table.tagged(SPORT)) == {one, two}
    assert list(table.tagged(VIP)) == [one]


def test_all_tags_come_sorted_and_once() -> None:
    table = Directory([device("one", None, VIP, NEWS), device("two", None, SPORT, NEWS)])
    assert table.tags() == [NEWS, SPORT, VIP]


def test_pages_are_in_order_of_the_id() -> None:
    """The protocol's `devices.list`."""
    table = Directory([device(name) for name in "dbeac"])

    def page(after: str | None, limit: int) -> str:
        last = None if after is None else RegistrationId(after)
        return "".join(each.registration_id for each in table.page(last, limit))

    assert page(None, 2) == "ab"
    assert page("b", 2) == "cd"
    assert page("d", 2) == "e"
    assert page("e", 2) == ""
    assert page("bb", 9) == "cde", "What was deleted since still says where to go on."


def test_pages_follow_what_comes_and_goes() -> None:
    """The page after a change knows of it, the one that was asked for before does not matter."""
    table = Directory([device(name) for name in "bd"])
    assert [each.registration_id for each in table.page(None, 9)] == ["b", "d"]
    table.add(device("c"))
    assert [each.registration_id for each in table.page(None, 9)] == ["b", "c", "d"]
    gone = table.find(RegistrationId("b"))
    assert gone is not None
    table.remove(gone)
    assert [each.registration_id for each in table.page(None, 9)] == ["c", "d"]


def test_pages_are_right_when_most_devices_are_gone() -> None:
    """Law 4: thousands came and went, and the ids that are left are still found in order."""
    table = Directory([device(f"{number:05}") for number in range(5000)])
    for registration in list(table):
        if int(registration.registration_id) % 1000:
            table.remove(registration)
    table.add(device("01500"))
    seen: list[str] = []
    for _ in range(4):
        seen += [each.registration_id for each in table.page(RegistrationId(seen[-1]) if seen else None, 2)]
    assert seen == ["00000", "01000", "01500", "02000", "03000", "04000"]
    assert len(table) == 6


# --- At random -----------------------------------------------------------------------------------------------------

SEEDS = 120
STEPS = 200


@pytest.mark.parametrize("seeds", [range(first, first + 20) for first in range(0, SEEDS, 20)], ids=str)
def test_a_table_and_its_audiences_do_what_their_twin_does(seeds: range) -> None:
    """C4, C13: after every step of a random walk."""
    for seed in seeds:
        walk = DirectoryWalk(seed)
        done: list[str] = []
        try:
            for _ in range(STEPS):
                done.append(walk.step())
        except AssertionError as difference:
            pytest.fail(f"seed {seed}, step {len(done)}: {difference}; before it: {'; '.join(done[-5:])}")
        assert walk.met == {"room", "loses", "refused", "targets", "no targets"}


ONE_RUN = """
from tests.domain.twin_directory import DirectoryWalk
for seed in range(5):
    walk = DirectoryWalk(seed)
    for _ in range(100):
        walk.step()
    print(walk.trace)
"""


def test_every_answer_comes_in_an_order_that_is_the_same_in_every_run() -> None:
    """Law 4; law 5 of audiences: whatever this run makes of hashes."""
    root = Path(__file__).parents[2]
    runs = [
        subprocess.run(
            [sys.executable, "-B", "-c", ONE_RUN],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert runs[0]

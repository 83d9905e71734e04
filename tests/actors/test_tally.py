"""What happened, counted."""

from __future__ import annotations

from pushactors.actors.tally import Tally


def test_what_never_happened_is_counted_as_nothing() -> None:
    assert Tally().read("pushes") == 0
    assert list(Tally()) == []


def test_counts_only_grow_and_each_label_has_its_own() -> None:
    tally = Tally()
    tally.add("pushes", "accepted")
    tally.add("pushes", "accepted", 2)
    tally.add("pushes", "repeated")
    tally.add("commits")
    assert tally.read("pushes", "accepted") == 3
    assert tally.read("pushes", "repeated") == 1
    assert tally.read("pushes") == 0
    assert tally.read("commits") == 1


def test_counts_are_listed_by_name_and_label() -> None:
    tally = Tally()
    tally.add("pushes", "repeated", 4)
    tally.add("commits")
    tally.add("pushes", "accepted")
    assert list(tally) == [("commits", "", 1), ("pushes", "accepted", 1), ("pushes", "repeated", 4)]


def test_asking_for_a_count_does_not_list_it() -> None:
    tally = Tally()
    tally.read("pushes", "accepted")
    assert list(tally) == []

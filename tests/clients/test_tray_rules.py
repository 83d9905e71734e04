from __future__ import annotations

import random
from pathlib import Path

import pytest

from pushactors.clients import tray_rules
from pushactors.clients.tray_journal import Journal
from pushactors.clients.tray_rules import (
    Contents,
    Fate,
    LoggedIn,
    Mark,
    Marked,
    Put,
    Showed,
    Step,
    Told,
    TookBack,
    TrayEntry,
)
from tests.clients.twin_tray import TwinTray


def an_entry(msg_id: int, override: int | str | None = None, alias: str | None = None, **more: bool) -> TrayEntry:
    return TrayEntry(
        msg_id=str(msg_id),
        sent_at=msg_id,
        place=str(msg_id),
        notification={"alert": str(msg_id)},
        override_msg_id=None if override is None else str(override),
        alias=alias,
        **more,
    )


def put(msg_id: int, override: int | str | None = None, alias: str | None = None, **more: bool) -> Put:
    return Put(an_entry(msg_id, override, alias, **more))


def opened(msg_id: int) -> Marked:
    return Marked(str(msg_id), Mark.OPENED)


def dismissed(msg_id: int) -> Marked:
    return Marked(str(msg_id), Mark.DISMISSED)


def after(*steps: Step) -> Contents:
    contents = Contents()
    for step in steps:
        contents.take(step)
    return contents


def drawn(contents: Contents) -> list[int]:
    return [int(msg_id) for msg_id in contents.entries]


# --- C10 -------------------------------------------------------------------------------------------------------


def test_entries_lie_in_the_order_in_which_they_came() -> None:
    assert drawn(after(put(1), put(2), put(3))) == [1, 2, 3]


@pytest.mark.parametrize("end", [opened(1), dismissed(1), TookBack("1"), put(2, 1)], ids=str)
def test_what_has_left_never_comes_back_c10(end: Step) -> None:
    contents = after(put(1), end, put(1))
    assert 1 not in drawn(contents)
    assert contents.knows("1")


def test_what_is_sent_again_changes_nothing_c10() -> None:
    contents = after(put(1), Showed(("1",)), put(1))
    assert contents.entries["1"].is_shown
    assert not contents.is_unshown("1")


def test_ids_are_remembered_up_to_a_limit_and_what_lies_here_is_always_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tray_rules, "REMEMBERED", 3)
    contents = after(put(1))
    for msg_id in range(2, 10):
        contents.take(put(msg_id))
        contents.take(dismissed(msg_id))
    assert [msg_id for msg_id in range(1, 10) if contents.knows(str(msg_id))] == [1, 7, 8, 9]
    assert list(contents.debts) == ["7", "8", "9"]


def test_over_the_limit_the_oldest_message_leaves_wherever_it_lies_c23(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tray_rules, "ENTRIES", 3)
    contents = after(put(1), put(2), put(3), put(4, 1))
    assert drawn(contents) == [4, 2, 3]
    contents.take(put(5))
    assert drawn(contents) == [4, 3, 5]
    assert contents.fate("2") is Fate.GONE


# --- C23: replacing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [put(2), put(2, "x")], ids=["its msg_id", "its override_msg_id"])
def test_what_overrides_an_entry_takes_its_place_c23(first: Put) -> None:
    second = put(9, first.entry.override_msg_id or 2)
    contents = after(put(1), first, put(3), Showed(("1", "2", "3")), second)
    assert drawn(contents) == [1, 9, 3]
    new = contents.entries["9"]
    assert new.notification == {"alert": "9"}
    assert not new.is_shown
    assert new.place == "2"


def test_a_place_is_handed_on_c23() -> None:
    contents = after(put(1, "x"), put(2, "x"), put(3, 2), put(4))
    assert [(entry.msg_id, entry.place) for entry in contents.entries.values()] == [("3", "1"), ("4", "4")]


@pytest.mark.parametrize("mark", [opened(1), dismissed(1)], ids=str)
def test_what_overrides_something_opened_or_dismissed_is_new_c23(mark: Marked) -> None:
    contents = after(put(1), put(2), mark, put(3, 1))
    assert drawn(contents) == [2, 3]
    assert contents.entries["3"].place == "3"


def test_what_overrides_nothing_is_shown_c23() -> None:
    assert drawn(after(put(1), put(3, 2))) == [1, 3]


@pytest.mark.parametrize("late", [put(1), put(2, 1)], ids=["overridden by its msg_id", "overriding the same"])
@pytest.mark.parametrize("end", [None, opened(3), TookBack("3")], ids=str)
def test_what_comes_after_its_replacement_is_not_shown_c23(late: Put, end: Step | None) -> None:
    contents = after(put(3, 1), *([end] if end else []))
    before = drawn(contents)
    contents.take(late)
    assert drawn(contents) == before
    assert contents.fate(late.entry.msg_id) is Fate.GONE
    assert not contents.is_unshown(late.entry.msg_id)


def test_what_came_too_late_still_has_overridden_what_is_older_c23() -> None:
    assert drawn(after(put(3, 2), put(2, 1), put(1))) == [3]


def test_ids_are_compared_as_numbers_c23() -> None:
    assert drawn(after(put(9, "x"), put(10, "x"))) == [10]
    assert drawn(after(put(10, "x"), put(9, "x"))) == [10]


# --- C22, C14 --------------------------------------------------------------------------------------------------


def test_a_recalled_message_leaves_unless_it_was_opened_or_dismissed_c22() -> None:
    contents = after(put(1), put(2), put(3), opened(2), dismissed(3), TookBack("1"), TookBack("2"), TookBack("3"))
    assert drawn(contents) == []
    assert [contents.fate(msg_id) for msg_id in "123"] == [Fate.RECALLED, Fate.OPENED, Fate.DISMISSED]


def test_a_message_that_is_recalled_before_it_comes_never_enters_c22() -> None:
    assert drawn(after(TookBack("1"), put(1))) == []


def test_what_was_replaced_does_not_come_back_when_its_replacement_is_recalled_c22() -> None:
    assert drawn(after(put(1), put(2, 1), TookBack("2"), put(1))) == []


def test_when_the_account_changes_what_is_for_the_earlier_one_leaves_c23() -> None:
    contents = after(put(1, alias="a"), put(2), put(3, alias="b"), LoggedIn("b"))
    assert drawn(contents) == [2, 3]
    contents.take(LoggedIn(""))
    assert drawn(contents) == [2]
    assert contents.account == ""


def test_what_leaves_with_its_user_undrawn_is_forgotten_and_enters_when_it_comes_again_c25() -> None:
    contents = after(LoggedIn("a"), put(1, alias="a"), put(2, alias="a"), Showed(("2",)), LoggedIn(""))
    assert (contents.knows("1"), contents.knows("2")) == (False, True)
    assert contents.fate("2") is Fate.GONE
    for step in (LoggedIn("a"), put(1, alias="a"), put(2, alias="a")):
        contents.take(step)
    assert drawn(contents) == [1]
    assert contents.is_unshown("1")


@pytest.mark.parametrize("end", [TookBack("1"), put(2, 1, alias="a"), opened(1)], ids=str)
def test_what_was_recalled_replaced_or_used_undrawn_does_not_come_back_with_its_user_c25(end: Step) -> None:
    contents = after(LoggedIn("a"), put(1, alias="a"), end, LoggedIn(""), LoggedIn("a"), put(1, alias="a"))
    assert drawn(contents) == []
    assert contents.knows("1")


def test_what_is_recalled_after_it_left_undrawn_does_not_come_back_c25() -> None:
    assert drawn(after(put(1, alias="a"), LoggedIn("b"), TookBack("1"), LoggedIn("a"), put(1, alias="a"))) == []


def test_a_replacement_that_left_undrawn_comes_back_in_the_place_of_nobody_c25() -> None:
    contents = after(LoggedIn("a"), put(1, alias="a"), put(2, 1, alias="a"), LoggedIn("b"), LoggedIn("a"))
    for step in (put(1, alias="a"), put(2, 1, alias="a")):
        contents.take(step)
    assert [(entry.msg_id, entry.place) for entry in contents.entries.values()] == [("2", "2")]


def test_what_was_for_one_user_does_not_make_late_what_is_for_another_c23() -> None:
    assert drawn(after(LoggedIn("b"), put(2, "x", alias="b"), LoggedIn("a"), put(1, "x", alias="a"))) == [1]
    assert drawn(after(LoggedIn("a"), put(2, "x"), put(1, "x", alias="a"))) == [2]
    assert drawn(after(LoggedIn("a"), put(2, "x", alias="a"), put(1, "x"))) == [2]


# --- Marks -----------------------------------------------------------------------------------------------------


def test_a_mark_is_owed_until_it_is_told_and_there_is_one_for_each() -> None:
    contents = after(put(1, alias="a", has_message=True), put(2), opened(1), dismissed(1), dismissed(2), opened(3))
    assert [(msg_id, debt.mark) for msg_id, debt in contents.debts.items()] == [
        ("1", Mark.OPENED),
        ("2", Mark.DISMISSED),
    ]
    assert (contents.debts["1"].alias, contents.debts["1"].has_message) == ("a", True)
    contents.take(Told(("1", "9")))
    assert list(contents.debts) == ["2"]


# --- The walk --------------------------------------------------------------------------------------------------


def a_step(chance: random.Random, number: int) -> Step:
    some = str(chance.randint(1, number))
    kinds = ["put"] * 5 + ["late", "late", "show", "show", "mark", "mark", "told", "recall", "account", "account"]
    match chance.choice(kinds):
        case "put":
            override = chance.choice([None, chance.randint(max(1, number - 6), number), chance.choice("xy")])
            return put(number, override, chance.choice([None, None, "a", "b"]), has_message=chance.random() < 0.2)
        case "late":
            # Or again: what was forgotten, and what was not.
            override = chance.choice([None, chance.randint(1, number), "x"])
            return put(chance.choice([int(some), max(1, number - 3)]), override, chance.choice([None, "a", "b"]))
        case "show":
            return Showed(tuple(str(chance.randint(1, number)) for _ in range(3)))
        case "mark":
            return Marked(some, chance.choice(list(Mark)))
        case "told":
            return Told((some,))
        case "recall":
            return TookBack(some)
        case _:
            return LoggedIn(chance.choice(["a", "b", ""]))


@pytest.mark.parametrize("seed", range(150))
def test_a_walk_agrees_with_an_independent_twin_over_crashes_anywhere(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is cut at any byte of the last write; the twin is told how many whole steps were left."""
    chance = random.Random(seed)
    path = tmp_path / "tray"
    # Some walks come to the limits, and rewrite the file often.
    if seed % 2:
        monkeypatch.setattr(tray_rules, "ENTRIES", 4)
        monkeypatch.setattr("pushactors.clients.tray_journal.SLACK_BYTES", 300)
    monkeypatch.setattr("pushactors.clients.durable.os.fsync", lambda _: None)
    twin = TwinTray(tray_rules.ENTRIES)
    journal = Journal(path)
    contents = journal.load()
    for number in range(1, 80):
        steps = [a_step(chance, number) for _ in range(chance.randint(1, 3))]
        before = path.read_bytes()
        journal.write(steps, contents)
        written = path.read_bytes()
        if chance.random() < 0.15:
            steps = steps[: crash(chance, path, before, written, len(steps))]
            journal = Journal(path)
            contents = journal.load()
        else:
            for step in steps:
                contents.take(step)
        for step in steps:
            twin.take(step)
        compare(contents, twin, number)


def crash(chance: random.Random, path: Path, before: bytes, written: bytes, steps: int) -> int:
    """How many steps of the last write are left."""
    if not written.startswith(before):
        # It was rewritten: whole or not at all.
        if chance.random() < 0.5:
            path.write_bytes(before)
            return 0
        return steps
    cut = chance.randint(len(before), len(written))
    path.write_bytes(written[:cut])
    return written[len(before) : cut].count(b"\n")


def compare(contents: Contents, twin: TwinTray, last: int) -> None:
    assert [(entry.msg_id, entry.place, entry.is_shown) for entry in contents.entries.values()] == twin.drawn()
    assert {msg_id: str(debt.mark) for msg_id, debt in contents.debts.items()} == twin.owed
    for msg_id in map(str, range(1, last + 1)):
        fate = contents.fate(msg_id)
        assert (None if fate is None else str(fate)) == twin.fate(msg_id), msg_id

from __future__ import annotations

import pytest

from pushactors import AliasFull
from pushactors.clients.wishes import Wish, Wishes


def kept(wishes: Wishes, alias: str) -> Wish:
    wish = wishes.make(alias, is_awaited=True)
    wish.is_kept = True
    return wish


def test_a_wish_holds_from_when_it_is_made_and_is_told_when_it_is_kept() -> None:
    wishes = Wishes()
    wish = wishes.make("b", is_awaited=True)
    assert wishes
    assert not wishes.permit("a")
    assert (wishes.latest, wishes.oldest) == (None, None)
    wish.is_kept = True
    assert (wishes.latest, wishes.oldest) == (wish, wish)


def test_the_answer_to_one_is_the_answer_to_all_before_it() -> None:
    wishes = Wishes()
    b, c, d = (kept(wishes, alias) for alias in "bcd")
    wishes.grant(c)
    assert (b.over.is_set(), c.over.is_set(), d.over.is_set()) == (True, True, False)
    assert wishes.oldest is d


def test_a_greeting_names_the_latest_and_a_visit_tells_the_oldest() -> None:
    wishes = Wishes()
    b, c = kept(wishes, "b"), kept(wishes, "c")
    wishes.make("d", is_awaited=True)
    assert (wishes.oldest, wishes.latest) == (b, c)


def test_an_answer_that_came_already_changes_nothing() -> None:
    wishes = Wishes()
    b, c = kept(wishes, "b"), kept(wishes, "c")
    wishes.grant(b)
    wishes.refuse(b, AliasFull("full"))
    assert b.error is None
    assert wishes.oldest is c


def test_a_refusal_says_why() -> None:
    wishes = Wishes()
    wish = kept(wishes, "b")
    error = AliasFull("full")
    wishes.refuse_all(error)
    assert wish.error is error
    assert not wishes


def test_what_could_not_be_kept_was_never_wished() -> None:
    wishes = Wishes()
    wishes.withdraw(wishes.make("b", is_awaited=True))
    assert not wishes
    assert wishes.last is None


def test_the_file_holds_the_last_wish() -> None:
    wishes = Wishes()
    kept(wishes, "b")
    wishes.make("", is_awaited=False)
    assert wishes.last is not None
    assert wishes.last.alias == ""


@pytest.mark.parametrize(
    ("wanted", "alias", "is_permitted"),
    [
        ([], "a", True),
        (["b"], "b", True),
        (["b"], "a", False),
        (["b"], None, True),
        ([""], "a", False),
        # From a to b and back: what is addressed to a now is of the first time.
        (["b", "a"], "a", False),
        (["b", "a"], "b", False),
        (["b", "a"], None, True),
    ],
)
def test_a_message_is_for_whoever_all_wishes_name(wanted: list[str], alias: str | None, is_permitted: bool) -> None:
    wishes = Wishes()
    for each in wanted:
        kept(wishes, each)
    assert wishes.permit(alias) == is_permitted


def test_what_was_left_open_sets_nothing_free_c14() -> None:
    wishes = Wishes()
    b, c = kept(wishes, "b"), kept(wishes, "c")
    error = AliasFull("full")
    wishes.leave_open(b, error)
    assert b.error is error
    assert wishes.last is c
    wishes.grant(c)
    assert not wishes.permit("c")
    assert wishes.permit("b")
    assert wishes.permit(None)
    kept(wishes, "d")
    wishes.leave_all_open(error)
    assert not wishes
    assert not wishes.permit("b")
    wishes.leave_all_open(error)


@pytest.mark.parametrize(
    ("alias", "token", "params"),
    [
        ("b", "t", {"alias": "b", "alias_token": "t"}),
        ("b", None, {"alias": "b"}),
        ("b", "", {"alias": "b"}),
        ("", "t", {"alias": ""}),
    ],
)
def test_a_token_is_told_with_an_alias_only_c17(alias: str, token: str | None, params: dict[str, object]) -> None:
    assert Wishes().make(alias, is_awaited=True, token=token).params() == params

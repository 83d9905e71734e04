"""How the names of things are written: one spelling each, refused in any other, with the path of who wrote it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pushactors.errors import Invalid
from pushactors.wire.ids import (
    CID_BYTES,
    CONSUMER_BYTES,
    NAME_BYTES,
    Platform,
    parse_alias,
    parse_cid,
    parse_consumer,
    parse_cursor,
    parse_msg_id,
    parse_tag,
)

ALIAS_AND_TAG = pytest.mark.parametrize("parse", [parse_alias, parse_tag])


def refused(parse: Callable[[str, str], object], text: str) -> Invalid:
    with pytest.raises(Invalid) as refusal:
        parse(text, "audience.alias[2]")
    assert refusal.value.path == "audience.alias[2]"
    assert str(refusal.value).endswith("."), "A refusal is a sentence."
    return refusal.value


# --- Aliases and tags ----------------------------------------------------------------------------------------------


@ALIAS_AND_TAG
@pytest.mark.parametrize(
    "text",
    ["A", "0", "user_42", "me@home", "_@!#$&*+=.|-", "张三", "にほんご", "カタカナー", "한국어", "ㄅㄆ", "々〆〇", "𠀀",
     "a张b"],
)  # fmt: skip
def test_a_name_may_have_letters_digits_its_punctuation_and_cjk(parse: Callable[[str], str], text: str) -> None:
    """The protocol's names."""
    assert parse(text) == text


@ALIAS_AND_TAG
@pytest.mark.parametrize(
    "text",
    ["a b", " a", "a ", "a\n", "\n", "\t", "a\x00", "a,b", "a/b", "a\\b", 'a"', "a'b", "a:b", "a;b", "a%b", "(a)",
     "[a]", "{a}", "a^b", "a`b", "a~b", "a?b", "<a>", "é", "ß", "привет", "🔑", "٣", "²", "\u200b", "\ufeff",
     "\ud800", "\uff01"],
)  # fmt: skip
def test_a_name_with_anything_else_in_it_is_refused(parse: Callable[[str, str], str], text: str) -> None:
    """C24: with the path."""
    refused(parse, text)


@ALIAS_AND_TAG
def test_the_empty_name_is_refused(parse: Callable[[str, str], str]) -> None:
    """C13: the empty alias clears; it is not one."""
    assert "empty" in str(refused(parse, ""))


@ALIAS_AND_TAG
def test_a_name_has_at_most_40_bytes(parse: Callable[[str, str], str]) -> None:
    """The protocol's names: bytes of UTF-8, not characters."""
    assert NAME_BYTES == 40
    assert parse("a" * 40, "") == "a" * 40
    assert parse("张" * 13 + "a", "") == "张" * 13 + "a"
    assert parse("𠀀" * 10, "") == "𠀀" * 10
    for text in ("a" * 41, "张" * 13 + "ab", "张" * 14, "𠀀" * 10 + "a"):
        assert "40" in str(refused(parse, text))


# --- Message ids ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 9, 10, 1828256757, 2**63 - 1])
def test_a_msg_id_is_a_decimal_string(number: int) -> None:
    assert parse_msg_id(str(number)) == number


@pytest.mark.parametrize(
    "text",
    ["", "0", "00", "01", "-1", "+1", " 1", "1 ", "1\n", "1.0", "1e3", "1_000", "0x1", "a", "٣", "\uff11", "²",
     "9" * 20, "1" + "0" * 30, str(2**63), "9" * 19, "\ud800"],
)  # fmt: skip
def test_a_msg_id_in_any_other_spelling_is_refused(text: str) -> None:
    """C24: with the path. Above 2**63 - 1 no store could keep it."""
    refused(parse_msg_id, text)


def test_a_refused_number_may_be_as_long_as_it_likes() -> None:
    """C24: nobody counts a million digits."""
    refused(parse_msg_id, "1" * 1_000_000)


# --- cids (C6) -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a", "order-42", "with blanks", "!\"%'()/:;<>?[]^`{}~", "é", "订单", "🔑", "a" * 128])
def test_a_cid_is_printable_text(text: str) -> None:
    """C6."""
    assert parse_cid(text) == text


@pytest.mark.parametrize("text", ["", "a\n", "a\tb", "\x00", "\x7f", "\u200b", "\u2028"])
def test_a_cid_of_anything_else_is_refused(text: str) -> None:
    """C24: with the path."""
    refused(parse_cid, text)


def test_a_cid_of_half_a_character_is_refused_in_a_sentence() -> None:
    """C24: a lone surrogate has no bytes in UTF-8, which must not come out as an accident."""
    refused(parse_cid, "\ud800")


def test_a_cid_has_at_most_128_bytes() -> None:
    """The protocol's names: bytes of UTF-8, not characters."""
    assert CID_BYTES == 128
    assert parse_cid("订" * 42 + "ab") == "订" * 42 + "ab"
    for text in ("a" * 129, "订" * 43, "🔑" * 33):
        assert "128" in str(refused(parse_cid, text))


# --- Where a name stands, if nobody says so --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parse", "path"), [(parse_alias, "alias"), (parse_tag, "tags"), (parse_msg_id, "msg_id"), (parse_cid, "cid")]
)
def test_a_refusal_names_the_member_that_is_wrong(parse: Callable[[str], object], path: str) -> None:
    """C24."""
    with pytest.raises(Invalid) as refusal:
        parse("")
    assert refusal.value.path == path


def test_the_platforms_are_those_of_the_protocol() -> None:
    assert [platform.value for platform in Platform] == ["android", "ios", "web", "desktop", "other"]


# --- Cursors and consumers (C20) -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 9, 10, 1828256757, 2**63 - 1])
def test_a_cursor_is_a_decimal_string_and_nought_is_before_all_of_them(number: int) -> None:
    """C20."""
    assert parse_cursor(str(number)) == number


@pytest.mark.parametrize(
    "text",
    ["", "00", "01", "-0", "-1", "+1", " 0", "0 ", "0\n", "1\n", "1.0", "1e3", "1_000", "a", "٣", "\uff10", str(2**63),
     "9" * 20, "\ud800", "1" * 1_000_000],
)  # fmt: skip
def test_a_cursor_in_any_other_spelling_is_refused(text: str) -> None:
    """C24: with the path."""
    refused(parse_cursor, text)


@pytest.mark.parametrize("text", ["a", "billing", "with blanks", "a:b/c", "é", "订单", "🔑", "a" * 64, "é" * 32])
def test_a_consumer_is_printable_text(text: str) -> None:
    """C20."""
    assert parse_consumer(text) == text


@pytest.mark.parametrize("text", ["", "a\n", "a\tb", "\x00", "\x7f", "\u200b", "\ud800", "a" * 65, "é" * 33])
def test_a_consumer_of_anything_else_or_of_more_than_64_bytes_is_refused(text: str) -> None:
    """C24: with the path."""
    assert CONSUMER_BYTES == 64
    refused(parse_consumer, text)


@pytest.mark.parametrize("parse", [parse_cursor, parse_consumer])
def test_what_is_refused_without_a_path_is_named_after_what_it_is(parse: Callable[[str], object]) -> None:
    with pytest.raises(Invalid) as refusal:
        parse("\n")
    assert refusal.value.path == parse.__name__.removeprefix("parse_")

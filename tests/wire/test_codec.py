from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pushactors.errors import Invalid, PushactorsError, TooLarge
from pushactors.wire.codec import DEPTH, Unreadable, canonical, decode, encode, structure, structure_answer, within
from pushactors.wire.ids import Alias, MsgId, Platform, Tag
from pushactors.wire.strict import WantedAlias

# A loaded machine, or the first run, which builds the tables of characters, is slow for no fault of ours.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@dataclass(frozen=True)
class Inner:
    word: str
    count: int = 0


@dataclass(frozen=True)
class Everything:
    text: str | None = None
    number: int | None = None
    share: float | None = None
    truth: bool | None = None
    platform: Platform = Platform.OTHER
    kind: Literal["one", "two"] = "one"
    inner: Inner | None = None
    inners: tuple[Inner, ...] = ()
    names: list[str] | None = None
    anything: dict[str, object] | None = None
    counts: dict[str, int] | None = None
    msg_id: MsgId | None = None
    alias: WantedAlias | None = None
    tags: tuple[Tag, ...] | None = None
    some: tuple[Platform, ...] | Literal["all"] = "all"
    made_here: int = field(default=7, init=False)


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"text": None}, "text"),
        ({"text": 5}, "text"),
        ({"number": "5"}, "number"),
        ({"number": 1.0}, "number"),
        ({"number": True}, "number"),
        ({"number": 2**63}, "number"),
        ({"share": "0.5"}, "share"),
        ({"truth": "no"}, "truth"),
        ({"truth": 0}, "truth"),
        ({"platform": "symbian"}, "platform"),
        ({"platform": ["ios"]}, "platform"),
        ({"kind": "three"}, "kind"),
        ({"kind": True}, "kind"),
        ({"inner": []}, "inner"),
        ({"inner": {}}, "inner.word"),
        ({"inner": {"word": "w", "count": "1"}}, "inner.count"),
        ({"inner": {"word": "w", "cuont": 1}}, "inner.cuont"),
        ({"inners": {"word": "w"}}, "inners"),
        ({"inners": [{"word": "w"}, {"word": 1}]}, "inners[1].word"),
        ({"names": "abc"}, "names"),
        ({"names": ["a", None]}, "names[1]"),
        ({"anything": []}, "anything"),
        ({"counts": {"a": 1, "b": "2"}}, "counts.b"),
        ({"msg_id": 12}, "msg_id"),
        ({"msg_id": "012"}, "msg_id"),
        ({"alias": None}, "alias"),
        ({"alias": "two words"}, "alias"),
        ({"tags": ["a", "b", ""]}, "tags[2]"),
        ({"some": "none"}, "some"),
        ({"some": 3}, "some"),
        ({"some": ["ios", "os/2"]}, "some[1]"),
        ({"made_here": 8}, "made_here"),
        ({"txet": "a", "number": "5"}, "txet"),
        ([], ""),
        (None, ""),
        ("text", ""),
    ],
)
def test_what_a_peer_asks_is_taken_literally(params: object, path: str) -> None:
    with pytest.raises(Invalid) as caught:
        structure(Everything, params)
    assert caught.value.path == path
    assert path in str(caught.value) or "A " in str(caught.value) or "An " in str(caught.value)


def test_what_fits_comes_out_as_its_own_type() -> None:
    params = {
        "platform": "ios",
        "inners": [{"word": "a"}, {"word": "b", "count": 2}],
        "counts": {"a": 1},
        "msg_id": "42",
        "alias": "",
        "some": ["web"],
        "share": 1,
    }
    made = structure(Everything, params)
    assert made.platform is Platform.IOS
    assert made.inners == (Inner("a"), Inner("b", 2))
    assert made.counts == {"a": 1}
    assert made.msg_id == 42
    assert made.alias == ""
    assert made.some == (Platform.WEB,)
    assert made.share == 1.0
    assert made.made_here == 7


def test_a_sentence_names_the_member_and_what_it_must_be() -> None:
    with pytest.raises(Invalid, match=r"^options\.number must be an integer\.$") as caught:
        structure(Everything, {"number": "5"}, "options")
    assert caught.value.path == "options.number"


def test_a_path_below_an_index_joins_without_a_dot() -> None:
    with pytest.raises(Invalid) as caught:
        structure(tuple[str, ...], [1], "names")
    assert caught.value.path == "names[0]"


def test_a_long_unknown_member_is_not_repeated_in_full() -> None:
    with pytest.raises(Invalid) as caught:
        structure(Everything, {"x" * 5000: 1})
    assert caught.value.path == "x" * 64


@dataclass(frozen=True)
class Picky:
    size: int

    def __post_init__(self) -> None:
        if self.size > 9:
            raise TooLarge("Too large.")
        within(self.size, 1, 9, "size")


@dataclass(frozen=True)
class Holder:
    picky: Picky


def test_a_class_may_refuse_what_its_members_mean_together() -> None:
    with pytest.raises(Invalid) as caught:
        structure(Holder, {"picky": {"size": 0}})
    assert caught.value.path == "picky.size"
    with pytest.raises(TooLarge):
        structure(Holder, {"picky": {"size": 10}})


@dataclass(frozen=True)
class Answer:
    msg_id: str
    alias: Alias | None = None
    at: int | None = None


@pytest.mark.parametrize("alias", [{}, {"alias": None}, {"alias": ""}])
def test_in_an_answer_no_alias_is_spelled_three_ways(alias: dict[str, object]) -> None:
    assert structure_answer(Answer, {"msg_id": "1", **alias}).alias is None


def test_an_answer_may_hold_more_than_this_version_knows() -> None:
    assert structure_answer(Answer, {"msg_id": "1", "new": [1], "at": None}) == Answer("1")


@pytest.mark.parametrize("answer", [{}, {"msg_id": None}, {"msg_id": 1}, {"msg_id": "1", "alias": 0}, [], None])
def test_an_answer_of_another_shape_is_refused(answer: object) -> None:
    with pytest.raises(Invalid):
        structure_answer(Answer, answer)


@pytest.mark.parametrize(
    "text", ["", "{", "NaN", "1e400", '"\\ud800"', b"\xff", "[" * 2000 + "]" * 2000, b'{"a":' * 65 + b"1" + b"}" * 65]
)
def test_text_that_nothing_could_mean_is_unreadable(text: str | bytes) -> None:
    with pytest.raises(Unreadable):
        decode(text)


def test_what_is_just_not_too_deep_can_be_written_again() -> None:
    text = b"[" * DEPTH + b"]" * DEPTH
    assert encode(decode(text)) == text


@pytest.mark.parametrize("inner", [b"", b"1", b"[],[],[]"])
def test_depth_is_counted_to_the_level(inner: bytes) -> None:
    levels = DEPTH - (1 if inner.startswith(b"[") else 0)
    decode(b"[[],[]," + b"[" * (levels - 1) + inner + b"]" * (levels - 1) + b"]")
    with pytest.raises(Unreadable):
        decode(b"[[],[]," + b"[" * levels + inner + b"]" * levels + b"]")


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert decode("[" + ",".join(["[]"] * 500) + "]") == [[]] * 500


def test_canonical_bytes_do_not_depend_on_the_order_of_members() -> None:
    assert canonical({"b": 1, "a": {"d": 1, "c": 2}}) == b'{"a":{"c":2,"d":1},"b":1}'


@patient
@given(JSON)
def test_any_json_is_structured_or_refused_by_name(params: Any) -> None:
    for make in (structure, structure_answer):
        with suppress(PushactorsError):
            make(Everything, params)


@patient
@given(st.dictionaries(st.sampled_from(sorted(Everything.__dataclass_fields__)), JSON))
def test_any_members_are_structured_or_refused_by_name(params: Any) -> None:
    for make in (structure, structure_answer):
        with suppress(PushactorsError):
            make(Everything, params)


@patient
@given(st.binary(max_size=40) | JSON.map(orjson.dumps))
def test_any_bytes_are_decoded_or_unreadable(text: bytes) -> None:
    try:
        value = decode(text)
    except Unreadable:
        return
    encode(value)

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pushactors.errors import Invalid, PushactorsError, TooLarge
from pushactors.wire.app import (
    AckReceipts,
    Audience,
    DeviceSet,
    ListDevices,
    ListPushes,
    MsgIds,
    OneAlias,
    OneDevice,
    OneMessage,
    OneTag,
    PresenceParams,
    PushParams,
    StatusParams,
    Subscribe,
    TagEdit,
    TimelineOf,
)
from pushactors.wire.codec import encode, structure
from pushactors.wire.ids import Consumer, Cursor, Platform

ALERT = {"alert": "x"}


def push(**members: object) -> PushParams:
    return structure(PushParams, {"audience": "all", "notification": ALERT, **members})


def test_a_push_says_little_and_means_the_defaults() -> None:
    made = push()
    assert made.audience == "all"
    assert made.platforms == tuple(sorted(Platform))
    assert made.options.time_to_live == 86400
    assert made.options.sendno is None
    assert made.options.override_msg_id is None


def test_everything_that_the_protocol_shows_is_taken() -> None:
    made = push(
        audience={"alias": ["A"], "tag_not": ["t"]},
        platform=["ios"],
        cid="order-42",
        notification={"alert": "a", "title": "t", "extras": {"n": [1, None]}, "badge": 1, "android": {"alert": "b"}},
        message={"msg_content": "…", "title": "t", "content_type": "text", "extras": {}},
        options={"sendno": 7, "time_to_live": 0, "override_msg_id": "1828256757"},
    )
    assert made.audience == Audience(alias=("A",), tag_not=("t",))  # type: ignore[arg-type]
    assert made.platforms == (Platform.IOS,)
    assert (made.options.sendno, made.options.time_to_live, made.options.override_msg_id) == (7, 0, 1828256757)


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({"audience": None}, "audience"),
        ({"audience": "everybody"}, "audience"),
        ({"audience": []}, "audience"),
        ({"audience": {}}, "audience"),
        ({"audience": {"alias": [], "tag": []}}, "audience"),
        ({"audience": {"aliases": ["a"]}}, "audience.aliases"),
        ({"audience": {"alias": "a"}}, "audience.alias"),
        ({"audience": {"alias": ["a", "b", 3]}}, "audience.alias[2]"),
        ({"audience": {"alias": ["a", "b c"]}}, "audience.alias[1]"),
        ({"audience": {"alias": [f"a{n}" for n in range(1001)]}}, "audience.alias"),
        ({"audience": {"registration_id": [f"a{n}" for n in range(1001)]}}, "audience.registration_id"),
        ({"audience": {"registration_id": [""]}}, "audience.registration_id[0]"),
        ({"audience": {"tag": [f"a{n}" for n in range(21)]}}, "audience.tag"),
        ({"audience": {"tag_and": [f"a{n}" for n in range(21)]}}, "audience.tag_and"),
        ({"audience": {"tag_not": [f"a{n}" for n in range(21)]}}, "audience.tag_not"),
        ({"platform": []}, "platform"),
        ({"platform": "ios"}, "platform"),
        ({"platform": ["ios", "symbian"]}, "platform[1]"),
        ({"cid": ""}, "cid"),
        ({"cid": 5}, "cid"),
        ({"notification": {}}, "notification"),
        ({"notification": "hello"}, "notification"),
        ({"notification": {"alert": 1}}, "notification.alert"),
        ({"notification": {"alert": None}}, "notification.alert"),
        ({"notification": {"badge": "1"}}, "notification.badge"),
        ({"notification": {"extras": []}}, "notification.extras"),
        ({"notification": {"windows": {}}}, "notification.windows"),
        ({"notification": {"android": {"alret": "x"}}}, "notification.android.alret"),
        ({"notification": {"android": {"ios": {}}}}, "notification.android.ios"),
        ({"message": {}}, "message.msg_content"),
        ({"message": {"msg_content": {}}}, "message.msg_content"),
        ({"message": {"msg_content": "x", "alert": "y"}}, "message.alert"),
        ({"options": []}, "options"),
        ({"options": {"sendno": "7"}}, "options.sendno"),
        ({"options": {"sendno": 2**63}}, "options.sendno"),
        ({"options": {"time_to_live": -1}}, "options.time_to_live"),
        ({"options": {"time_to_live": 864_001}}, "options.time_to_live"),
        ({"options": {"time_to_live": 1.5}}, "options.time_to_live"),
        ({"options": {"override_msg_id": 5}}, "options.override_msg_id"),
        ({"options": {"override_msg_id": None}}, "options.override_msg_id"),
        ({"options": {"deliver_within": 0}}, "options.deliver_within"),
        ({"options": {"deliver_within": 864_001}}, "options.deliver_within"),
        ({"options": {"deliver_within": 1.5}}, "options.deliver_within"),
        ({"options": {"deliver_within": None}}, "options.deliver_within"),
        ({"options": {"hold": 1}}, "options.hold"),
        ({"options": {"hold": None}}, "options.hold"),
        ({"audeince": "all"}, "audeince"),
    ],
)
def test_a_push_that_breaks_a_rule_names_the_member(members: dict[str, object], path: str) -> None:
    with pytest.raises(Invalid) as caught:
        push(**members)
    assert caught.value.path == path


TO_ALICE: dict[str, object] = {"audience": {"alias": ["alice"]}, "options": {"hold": True}}


def test_a_push_that_waits_for_its_user_is_to_aliases_and_to_nothing_else() -> None:
    assert push(**TO_ALICE).options.hold
    assert push(**{**TO_ALICE, "audience": {"alias": ["alice", "bob"], "tag": []}, "platform": "all"}).options.hold
    assert push(**{**TO_ALICE, "platform": [each.value for each in Platform]}).options.hold
    assert not push(options={"hold": False}, platform=["ios"]).options.hold


@pytest.mark.parametrize(
    "members",
    [
        {"audience": "all"},
        {"audience": {"registration_id": ["r"]}},
        {"audience": {"tag": ["t"]}},
        {"audience": {"alias": ["alice"], "registration_id": ["r"]}},
        {"audience": {"alias": ["alice"], "tag": ["t"]}},
        {"audience": {"alias": ["alice"], "tag_and": ["t"]}},
        {"audience": {"alias": ["alice"], "tag_not": ["t"]}},
        {"platform": ["ios"]},
        {"options": {"hold": True, "time_to_live": 0}},
    ],
    ids=repr,
)
def test_what_cannot_wait_for_a_user_is_refused(members: dict[str, object]) -> None:
    with pytest.raises(Invalid) as caught:
        push(**{**TO_ALICE, **members})
    assert caught.value.path == "options.hold"


@pytest.mark.parametrize("seconds", [1, 30, 864_000])
def test_a_push_may_say_within_how_many_seconds_it_should_be_there(seconds: int) -> None:
    """C21."""
    assert push(options={"deliver_within": seconds}).options.deliver_within == seconds
    assert push().options.deliver_within is None


def test_a_push_needs_an_audience_and_something_to_say() -> None:
    with pytest.raises(Invalid) as caught:
        structure(PushParams, {"notification": ALERT})
    assert caught.value.path == "audience"
    with pytest.raises(Invalid) as caught:
        structure(PushParams, {"audience": "all"})
    assert caught.value.path == "notification"


def test_the_longest_arrays_are_taken() -> None:
    names = [f"a{n}" for n in range(1000)]
    made = push(audience={"alias": names, "registration_id": names, "tag": names[:20]})
    assert isinstance(made.audience, Audience)
    assert len(made.audience.alias) == 1000


def test_notification_and_message_share_four_thousand_bytes() -> None:
    around = len(encode({"alert": ""})) + len(encode({"msg_content": ""}))
    fitting = {"notification": {"alert": "x" * 1000}, "message": {"msg_content": "y" * (3000 - around)}}
    assert push(**fitting).payload_size() == 4000
    with pytest.raises(TooLarge):
        push(**{**fitting, "notification": {"alert": "x" * 1001}})


def test_bytes_are_counted_not_characters() -> None:
    with pytest.raises(TooLarge):
        push(notification={"alert": "好" * 1330})


def test_the_body_is_the_same_for_every_order_and_names_only_what_is_there() -> None:
    assert push(notification={"title": "b", "alert": "a"}).body() == b'{"notification":{"alert":"a","title":"b"}}'
    assert push(notification={"alert": "a", "title": "b"}).body() == b'{"notification":{"alert":"a","title":"b"}}'
    assert push(message={"msg_content": "c"}).body() == b'{"message":{"msg_content":"c"},"notification":{"alert":"x"}}'


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"platform": "all"}),
        ({}, {"options": {"time_to_live": 86400}}),
        ({"cid": "a"}, {"cid": "b"}),
        ({"platform": ["web", "ios", "web"]}, {"platform": ["ios", "web"]}),
        ({"platform": ["web", "ios", "android", "desktop", "other"]}, {}),
        ({"audience": {"alias": ["b", "a", "a"]}}, {"audience": {"alias": ["a", "b"], "tag": []}}),
        ({"notification": {"alert": "a", "title": "b"}}, {"notification": {"title": "b", "alert": "a"}}),
    ],
)
def test_two_spellings_of_one_push_have_one_digest(one: dict[str, object], other: dict[str, object]) -> None:
    assert push(**one).digest() == push(**other).digest()


# Made by the first version: a cid that was used with it must still find its push after an upgrade (C6).
@pytest.mark.parametrize(
    ("members", "digest"),
    [
        ({}, "a6973861f5e0580f97acc35b3fcda3c2"),
        (
            {
                "audience": {"alias": ["b", "a"], "tag_not": ["t"]},
                "platform": ["web", "ios"],
                "cid": "c",
                "notification": {"title": "t", "alert": "好", "extras": {"n": [1, None]}},
                "message": {"msg_content": "m"},
                "options": {"sendno": 7, "time_to_live": 0, "override_msg_id": "1828256757"},
            },
            "4f863fa8b5cc66db5175e565e8e7678d",
        ),
        ({"options": {"time_to_live": 60}}, "128cc163f60d31c0031d83a73f17a78e"),
        ({"options": {"time_to_live": 60, "hold": False}}, "128cc163f60d31c0031d83a73f17a78e"),
    ],
)
def test_a_push_that_was_possible_before_has_the_digest_that_it_had(members: dict[str, object], digest: str) -> None:
    assert push(**members).digest().hex() == digest


def test_different_pushes_have_different_digests() -> None:
    variants: list[dict[str, object]] = [
        {},
        {"audience": {"alias": ["a"]}},
        {"audience": {"registration_id": ["a"]}},
        {"platform": ["ios"]},
        {"notification": {"alert": "y"}},
        {"message": {"msg_content": "x"}},
        {"options": {"time_to_live": 0}},
        {"options": {"sendno": 0}},
        {"options": {"override_msg_id": "1"}},
        {"options": {"deliver_within": 1}},
        {"options": {"deliver_within": 2}},
        {"audience": {"alias": ["a"]}, "options": {"hold": True}},
        {"audience": {"alias": ["a"]}, "options": {"hold": True, "deliver_within": 1}},
    ]
    assert len({push(**each).digest() for each in variants}) == len(variants)


@pytest.mark.parametrize(
    ("cls", "params", "path"),
    [
        (MsgIds, {"msg_ids": ["1"] * 101}, "msg_ids"),
        (MsgIds, {"msg_ids": ["1", 2]}, "msg_ids[1]"),
        (StatusParams, {"msg_id": "1", "registration_ids": ["r"] * 1001}, "registration_ids"),
        (StatusParams, {"registration_ids": ["r"]}, "msg_id"),
        (PresenceParams, {"registration_ids": ["r"] * 1001}, "registration_ids"),
        (OneDevice, {}, "registration_id"),
        (ListDevices, {"limit": 0}, "limit"),
        (ListDevices, {"limit": 1001}, "limit"),
        (ListDevices, {"after": None}, "after"),
        (ListPushes, {"limit": 101}, "limit"),
        (ListPushes, {"before": 5}, "before"),
        (DeviceSet, {"alias": "a"}, "registration_id"),
        (DeviceSet, {"registration_id": "r", "alias": None}, "alias"),
        (DeviceSet, {"registration_id": "r", "tags": ["a"]}, "tags"),
        (DeviceSet, {"registration_id": "r", "tags": "a"}, "tags"),
        (DeviceSet, {"registration_id": "r", "tags": {"ad": ["a"]}}, "tags.ad"),
        (DeviceSet, {"registration_id": "r", "tags": {"add": [""]}}, "tags.add[0]"),
        (DeviceSet, {"registration_id": "r", "tags": {"add": ["a"] * 101}}, "tags.add"),
        (OneMessage, {}, "msg_id"),
        (OneMessage, {"msg_id": 5}, "msg_id"),
        (OneMessage, {"msg_id": "0"}, "msg_id"),
        (OneMessage, {"msg_id": "5", "why": "sorry"}, "why"),
        (Subscribe, {}, "consumer"),
        (Subscribe, {"consumer": ""}, "consumer"),
        (Subscribe, {"consumer": "a\n"}, "consumer"),
        (Subscribe, {"consumer": None, "after": "0"}, "consumer"),
        (Subscribe, {"after": 0}, "after"),
        (Subscribe, {"after": "-1"}, "after"),
        (Subscribe, {"after": "now"}, "after"),
        (Subscribe, {"consumer": "a", "after": None}, "after"),
        (AckReceipts, {}, "cursor"),
        (AckReceipts, {"cursor": 5}, "cursor"),
        (AckReceipts, {"cursor": "05"}, "cursor"),
        (TimelineOf, {"registration_id": "r"}, "msg_id"),
        (TimelineOf, {"msg_id": "5"}, "registration_id"),
        (TimelineOf, {"msg_id": "5", "registration_id": "r", "alias": "alice"}, "registration_id"),
        (TimelineOf, {"msg_id": "5", "registration_id": ""}, "registration_id"),
        (TimelineOf, {"msg_id": "5", "alias": ""}, "alias"),
        (OneAlias, {"alias": ""}, "alias"),
        (OneTag, {"tag": ""}, "tag"),
    ],
)
def test_a_question_that_breaks_a_rule_names_the_member(cls: type[Any], params: dict[str, object], path: str) -> None:
    with pytest.raises(Invalid) as caught:
        structure(cls, params)
    assert caught.value.path == path


def test_receipts_are_followed_by_a_name_from_a_place_or_by_a_name_that_is_moved_there() -> None:
    """C20."""
    assert structure(Subscribe, {"consumer": "billing"}) == Subscribe(consumer=Consumer("billing"))
    assert structure(Subscribe, {"after": "0"}) == Subscribe(after=Cursor(0))
    assert structure(Subscribe, {"consumer": "b", "after": "7"}) == Subscribe(Consumer("b"), Cursor(7))
    assert structure(AckReceipts, {"cursor": "7"}) == AckReceipts(Cursor(7))


def test_a_timeline_is_of_a_device_or_of_an_alias_that_is_waited_for() -> None:
    of_device = structure(TimelineOf, {"msg_id": "5", "registration_id": "r"})
    assert (of_device.msg_id, of_device.registration_id, of_device.alias) == (5, "r", None)
    of_alias = structure(TimelineOf, {"msg_id": "5", "alias": "alice"})
    assert (of_alias.msg_id, of_alias.registration_id, of_alias.alias) == (5, None, "alice")


def test_a_recall_names_its_message() -> None:
    """C22."""
    assert structure(OneMessage, {"msg_id": "5"}).msg_id == 5


def test_a_device_is_set_in_part_cleared_or_left() -> None:
    left = structure(DeviceSet, {"registration_id": "r"})
    assert (left.alias, left.tags) == (None, None)
    cleared = structure(DeviceSet, {"registration_id": "r", "alias": "", "tags": []})
    assert (cleared.alias, cleared.tags) == ("", ())
    edited = structure(DeviceSet, {"registration_id": "r", "tags": {"add": ["b", "a"], "remove": ["c"]}})
    assert edited.tags == TagEdit(("a", "b"), ("c",))  # type: ignore[arg-type]


# A loaded machine, or the first run, which builds the tables of characters, is slow for no fault of ours.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
INNER_MEMBERS = ["alias", "tag", "alert", "android", "msg_content", "time_to_live", "deliver_within", "hold"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**64 - 1) | st.text(max_size=3) | st.just("all"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INNER_MEMBERS), inner),
    max_leaves=8,
)
MEMBERS = st.sampled_from(["audience", "platform", "cid", "notification", "message", "options"])


@patient
@given(st.dictionaries(MEMBERS, JSON))
def test_any_push_is_taken_or_refused_by_name(members: dict[str, object]) -> None:
    try:
        made = structure(PushParams, {"audience": "all", "notification": ALERT, **members})
    except PushactorsError:
        return
    made.body()
    made.digest()


@pytest.mark.parametrize(
    ("member", "sentence"),
    [("platform", 'platform must be an array or "all".'), ("audience", 'audience must be an object or "all".')],
)
def test_a_name_where_a_list_of_names_is_meant_is_told_both_ways_to_say_it(member: str, sentence: str) -> None:
    with pytest.raises(Invalid) as refusal:
        structure(PushParams, {"audience": "all", "notification": {"alert": "x"}, member: "ios"})
    assert (str(refusal.value), refusal.value.path) == (sentence, member)

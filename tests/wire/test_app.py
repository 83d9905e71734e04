from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pushactors.errors import Invalid, PushactorsError, TooLarge
from pushactors.wire.app import (
    Audience,
    DeviceInfo,
    DeviceSet,
    ListDevices,
    ListPushes,
    MsgIds,
    OneAlias,
    OneDevice,
    OneTag,
    PresenceParams,
    PushAnswer,
    PushParams,
    StatusParams,
    TagEdit,
    Waiting,
)
from pushactors.wire.codec import encode, structure, structure_answer
from pushactors.wire.ids import Platform

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
        ({"options": {"hold": True}}, "options.hold"),
        ({"audeince": "all"}, "audeince"),
    ],
)
def test_a_push_that_breaks_a_rule_names_the_member(members: dict[str, object], path: str) -> None:
    with pytest.raises(Invalid) as caught:
        push(**members)
    assert caught.value.path == path


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
        (OneAlias, {"alias": ""}, "alias"),
        (OneTag, {"tag": ""}, "tag"),
    ],
)
def test_a_question_that_breaks_a_rule_names_the_member(cls: type[Any], params: dict[str, object], path: str) -> None:
    with pytest.raises(Invalid) as caught:
        structure(cls, params)
    assert caught.value.path == path


def test_a_device_is_set_in_part_cleared_or_left() -> None:
    left = structure(DeviceSet, {"registration_id": "r"})
    assert (left.alias, left.tags) == (None, None)
    cleared = structure(DeviceSet, {"registration_id": "r", "alias": "", "tags": []})
    assert (cleared.alias, cleared.tags) == ("", ())
    edited = structure(DeviceSet, {"registration_id": "r", "tags": {"add": ["b", "a"], "remove": ["c"]}})
    assert edited.tags == TagEdit(("a", "b"), ("c",))  # type: ignore[arg-type]


def test_answers_are_read_and_written_alike() -> None:
    answer = PushAnswer(msg_id="5", targets=3, online=1, absent=2, sendno=7)
    assert structure_answer(PushAnswer, {"msg_id": "5", "targets": 3, "online": 1, "absent": 2, "sendno": 7}) == answer
    device = DeviceInfo(registration_id="r", platform="ios", online=True, mailbox=(Waiting("5", "sent", 1),))
    assert b'"mailbox":[{"msg_id":"5","state":"sent","at":1}]' in encode(device)


# A loaded machine, or the first run, which builds the tables of characters, is slow for no fault of ours.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**64 - 1) | st.text(max_size=3) | st.just("all"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["alias", "tag", "alert", "android", "msg_content", "time_to_live"]), inner)
    ),
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

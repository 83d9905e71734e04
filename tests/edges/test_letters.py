"""A message as devices get it: what stands in it, and that it is made once."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from wsproto.frame_protocol import FrameProtocol

from pushactors.domain.message import Message
from pushactors.edges import letters
from pushactors.edges.letters import Letters, params
from pushactors.wire.ids import Alias, Millis, MsgId, Platform


def message(msg_id: int = 7, expires_at: int | None = 5_000, overrides: int | None = None, **body: object) -> Message:
    return Message(
        MsgId(msg_id),
        Millis(1_000),
        None if expires_at is None else Millis(expires_at),
        None if overrides is None else MsgId(overrides),
        orjson.dumps(body or {"notification": {"alert": "hello"}}),
    )


def read(frame: bytes) -> Any:
    client = FrameProtocol(True, [])
    client.receive_bytes(frame)
    [received] = client.received_frames()
    return orjson.loads(str(received.payload))


def test_a_letter_is_a_message_notification_in_one_frame() -> None:
    frame = Letters().frame(message(), Platform.OTHER, None)
    assert read(frame) == {
        "jsonrpc": "2.0",
        "method": "message",
        "params": {
            "msg_id": "7",
            "sent_at": 1_000,
            "expires_at": 5_000,
            "notification": {"alert": "hello"},
        },
    }


def test_what_may_not_wait_expires_at_null() -> None:
    assert params(message(expires_at=None), Platform.WEB, None)["expires_at"] is None


def test_the_alias_stands_in_it_when_it_was_addressed_by_alias() -> None:
    assert params(message(), Platform.WEB, Alias("A"))["alias"] == "A"
    assert "alias" not in params(message(), Platform.WEB, None)


def test_what_it_overrides_stands_in_it_as_text() -> None:
    assert params(message(overrides=3), Platform.WEB, None)["override_msg_id"] == "3"
    assert "override_msg_id" not in params(message(), Platform.WEB, None)


def test_a_custom_message_comes_as_it_was_given() -> None:
    custom = {"msg_content": "x", "extras": {"n": [1, None, {"é": 1.5}]}}
    told = params(message(message=custom), Platform.IOS, None)
    assert told["message"] == custom
    assert "notification" not in told


def test_a_platforms_members_override_the_common_ones_and_no_other_section_is_told() -> None:
    notification = {
        "alert": "all",
        "title": "all",
        "extras": {"a": 1},
        "android": {"alert": "android", "extras": {"b": 2}},
        "ios": {"sound": "ding"},
    }
    sent = message(notification=notification)
    assert params(sent, Platform.ANDROID, None)["notification"] == {
        "alert": "android",
        "title": "all",
        "extras": {"b": 2},
    }
    assert params(sent, Platform.IOS, None)["notification"] == {
        "alert": "all",
        "title": "all",
        "extras": {"a": 1},
        "sound": "ding",
    }
    assert params(sent, Platform.WEB, None)["notification"] == {"alert": "all", "title": "all", "extras": {"a": 1}}


def test_the_same_push_platform_and_alias_is_the_same_bytes() -> None:
    kept, sent = Letters(), message()
    first = kept.frame(sent, Platform.WEB, Alias("A"))
    assert kept.frame(sent, Platform.WEB, Alias("A")) is first
    assert Letters().frame(sent, Platform.WEB, Alias("A")) == first


def test_another_push_platform_or_alias_is_another_letter() -> None:
    kept = Letters()
    frames = {
        kept.frame(message(msg_id), platform, alias)
        for msg_id in (7, 8)
        for platform in (Platform.WEB, Platform.ANDROID)
        for alias in (None, Alias("A"), Alias("B"))
    }
    # Two platforms without sections of their own are told the same.
    assert len(frames) == 2 * 3


def test_few_letters_are_kept_and_the_oldest_leaves_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters, "KEPT", 3)
    kept = Letters()
    made = [kept.frame(message(msg_id), Platform.WEB, None) for msg_id in (1, 2, 3, 4)]
    assert len(kept._frames) == 3
    assert kept.frame(message(4), Platform.WEB, None) is made[3]
    assert kept.frame(message(2), Platform.WEB, None) is made[1]
    again = kept.frame(message(1), Platform.WEB, None)
    assert again == made[0]
    assert again is not made[0]

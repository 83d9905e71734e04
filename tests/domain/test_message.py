"""The words of delivery: verdicts, marks, the time that a message has, and what one platform is shown."""

from __future__ import annotations

import copy
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from pushactors.domain.message import Mark, Message, Verdict, expiry, merged
from pushactors.wire.ids import Millis, MsgId, Platform

# --- Verdicts and marks (C1, C3) ---------------------------------------------------------------------------------


def test_the_verdicts_are_those_of_the_contract_under_numbers_that_never_change() -> None:
    """C1: the numbers are stored."""
    assert {verdict.value: verdict.word for verdict in Verdict} == {
        1: "received",
        2: "missed",
        3: "expired",
        4: "replaced",
        5: "overflowed",
        6: "recalled",
        7: "fenced",
    }


def test_the_marks_are_those_of_the_contract_and_fit_into_one_number() -> None:
    """C3: each at most once, so each is a bit."""
    assert {mark.value: mark.word for mark in Mark} == {1: "opened", 2: "dismissed", 4: "withdrawn"}


def test_a_message_is_frozen() -> None:
    """Law 1."""
    message = Message(MsgId(1), Millis(0), None, None, b"{}")
    with pytest.raises(FrozenInstanceError):
        message.expires_at = Millis(1)  # type: ignore[misc]


# --- Time to live (C5) -------------------------------------------------------------------------------------------


def test_a_message_lives_from_its_acceptance_on() -> None:
    """C5: seconds, in an instant of milliseconds."""
    assert expiry(Millis(1_700_000_000_123), 1) == 1_700_000_001_123
    assert expiry(Millis(1_700_000_000_123), 864_000) == 1_700_864_000_123


def test_a_message_that_may_not_wait_has_no_instant_of_expiry() -> None:
    """C5."""
    assert expiry(Millis(1_700_000_000_123), 0) is None


# --- A notification for one platform -------------------------------------------------------------------------------

NOTIFICATION: dict[str, Any] = {
    "alert": "Shipped",
    "title": "Order 42",
    "extras": {"n": 42, "deep": {"a": 1}},
    "android": {"alert": "Shipped!", "extras": {"m": 1}},
    "ios": {"badge": 3, "sound": "bell"},
    "web": {},
}


def test_a_platforms_section_overrides_the_common_members_one_by_one() -> None:
    """Law 4: a member as a whole, not what is inside it."""
    shown = merged(NOTIFICATION, Platform.ANDROID)
    assert shown == {"alert": "Shipped!", "title": "Order 42", "extras": {"m": 1}}


def test_a_platforms_section_adds_what_is_not_common() -> None:
    """Law 4."""
    assert merged(NOTIFICATION, Platform.IOS) == {
        "alert": "Shipped",
        "title": "Order 42",
        "extras": {"n": 42, "deep": {"a": 1}},
        "badge": 3,
        "sound": "bell",
    }


@pytest.mark.parametrize("platform", [Platform.WEB, Platform.DESKTOP, Platform.OTHER])
def test_a_platform_with_no_section_or_an_empty_one_is_shown_the_common_members(platform: Platform) -> None:
    """Law 4."""
    common = {key: value for key, value in NOTIFICATION.items() if key not in set(Platform)}
    assert merged(NOTIFICATION, platform) == common


@pytest.mark.parametrize("platform", list(Platform))
def test_no_platform_is_shown_the_section_of_another(platform: Platform) -> None:
    every: dict[str, Any] = {"alert": "x", **{each.value: {"alert": each.value} for each in Platform}}
    assert merged(every, platform) == {"alert": platform.value}


def test_a_section_alone_is_a_notification_for_its_platform() -> None:
    assert merged({"ios": {"alert": "x"}}, Platform.IOS) == {"alert": "x"}
    assert merged({"ios": {"alert": "x"}}, Platform.WEB) == {}


def test_a_falsy_member_of_a_section_overrides_too() -> None:
    """Law 4: there or not there is what counts."""
    given = {"alert": "x", "badge": 5, "web": {"badge": 0, "alert": ""}}
    assert merged(given, Platform.WEB) == {"badge": 0, "alert": ""}


@pytest.mark.parametrize("platform", list(Platform))
def test_merging_leaves_the_notification_as_it_was(platform: Platform) -> None:
    """Law 1: it is merged again for the next platform."""
    given = copy.deepcopy(NOTIFICATION)
    merged(given, platform)["more"] = 1
    assert given == NOTIFICATION

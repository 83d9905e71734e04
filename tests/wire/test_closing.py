from __future__ import annotations

import pytest

from pushactors.wire.closing import Closing, comes_back


def test_every_code_of_the_protocol_has_its_name() -> None:
    assert {each.code: each.reason for each in Closing if each.code >= 4000} == {
        4000: "drain",
        4001: "silent",
        4002: "too_slow",
        4003: "restarted",
        4004: "busy",
        4500: "displaced",
        4501: "unauthorized",
        4502: "protocol",
        4503: "removed",
    }
    assert [each.code for each in Closing if each.code < 4000] == [1000, 1001, 1003, 1007, 1009, 1011]


@pytest.mark.parametrize("code", [1001, 1005, 1006, 1011, 4000, 4001, 4002, 4003, 4004, 4005, 4499])
def test_a_peer_comes_back_when_nothing_needs_to_change_first(code: int) -> None:
    assert comes_back(code)


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1009, 4500, 4501, 4502, 4503, 4504, 4999, 3000])
def test_a_peer_stays_away_when_something_must_change_first(code: int) -> None:
    assert not comes_back(code)


def test_every_closing_says_the_same_as_its_code() -> None:
    assert all(each.comes_back == comes_back(each.code) for each in Closing)

from __future__ import annotations

from typing import Any

import pytest

from pushactors.errors import Invalid
from pushactors.wire.codec import structure, structure_answer
from pushactors.wire.device import (
    About,
    AliasAnswer,
    Connect,
    ConnectResult,
    Goodbye,
    MessageNote,
    Nothing,
    RecallNote,
    SetAlias,
    Tags,
)


def test_a_device_registers_with_its_app_key_alone() -> None:
    connect = structure(Connect, {"app_key": "a"})
    assert connect.registers
    assert connect.platform is None
    assert connect.alias is None
    assert connect.tags is None


def test_a_device_comes_back_with_its_id_and_its_secret() -> None:
    connect = structure(Connect, {"app_key": "a", "registration_id": "r", "device_secret": "s"})
    assert not connect.registers


def test_clearing_is_not_the_same_as_leaving_out() -> None:
    connect = structure(Connect, {"app_key": "a", "alias": "", "tags": []})
    assert connect.alias == ""
    assert connect.tags == ()


def test_a_secret_does_not_show_in_a_traceback() -> None:
    connect = structure(Connect, {"app_key": "a", "registration_id": "r", "device_secret": "hush"})
    assert "hush" not in repr(connect)


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({}, "app_key"),
        ({"app_key": ""}, "app_key"),
        ({"app_key": "a" * 65}, "app_key"),
        ({"app_key": "a", "registration_id": "r"}, "device_secret"),
        ({"app_key": "a", "device_secret": "s"}, "registration_id"),
        ({"app_key": "a", "registration_id": "r", "device_secret": ""}, "device_secret"),
        ({"app_key": "a", "registration_id": "r" * 65, "device_secret": "s"}, "registration_id"),
        ({"app_key": "a", "registration_id": "r\n", "device_secret": "s"}, "registration_id"),
        ({"app_key": "a", "registration_id": "r", "device_secret": "s", "install_key": "k" * 8}, "install_key"),
        ({"app_key": "a", "install_key": "k" * 7}, "install_key"),
        ({"app_key": "a", "install_key": "k" * 129}, "install_key"),
        ({"app_key": "a", "install_key": "k" * 8 + "\0"}, "install_key"),
        ({"app_key": "a", "platform": "symbian"}, "platform"),
        ({"app_key": "a", "alias": None}, "alias"),
        ({"app_key": "a", "alias": "x" * 41}, "alias"),
        ({"app_key": "a", "alias_token": 5}, "alias_token"),
        ({"app_key": "a", "alias_token": None}, "alias_token"),
        ({"app_key": "a", "alias_tokn": "t"}, "alias_tokn"),
        ({"app_key": "a", "tags": ["ok", "not ok"]}, "tags[1]"),
        ({"app_key": "a", "tags": [f"t{n}" for n in range(101)]}, "tags"),
    ],
)
def test_a_connect_that_breaks_a_rule_names_the_member(params: dict[str, object], path: str) -> None:
    with pytest.raises(Invalid) as caught:
        structure(Connect, params)
    assert caught.value.path == path


def test_an_alias_comes_with_a_token_or_without() -> None:
    """C17."""
    assert structure(Connect, {"app_key": "a", "alias": "alice", "alias_token": "t"}).alias_token == "t"
    assert structure(SetAlias, {"alias": "alice", "alias_token": "t"}).alias_token == "t"
    assert structure(Connect, {"app_key": "a", "alias": "alice"}).alias_token is None
    assert structure(SetAlias, {"alias": "alice"}).alias_token is None


def test_a_token_does_not_show_in_a_traceback() -> None:
    assert "hush" not in repr(structure(Connect, {"app_key": "a", "alias": "alice", "alias_token": "hush"}))
    assert "hush" not in repr(structure(SetAlias, {"alias": "alice", "alias_token": "hush"}))


def test_tags_are_a_sorted_set() -> None:
    assert structure(Tags, {"tags": ["b", "a", "b"]}).tags == ("a", "b")
    assert structure(Connect, {"app_key": "a", "tags": ["b", "a", "b"]}).tags == ("a", "b")


@pytest.mark.parametrize(
    ("cls", "params", "path"),
    [
        (SetAlias, {}, "alias"),
        (SetAlias, {"alias": "a b"}, "alias"),
        (SetAlias, {"alias": "a", "alias_token": ["t"]}, "alias_token"),
        (SetAlias, {"alias": "a", "token": "t"}, "token"),
        (Tags, {}, "tags"),
        (Tags, {"tags": "abc"}, "tags"),
        (Nothing, {"alias": "a"}, "alias"),
        (About, {"msg_id": 5}, "msg_id"),
        (About, {"msg_id": "-5"}, "msg_id"),
        (About, {"msg_id": "9223372036854775808"}, "msg_id"),
    ],
)
def test_a_request_that_breaks_a_rule_names_the_member(cls: type[Any], params: dict[str, object], path: str) -> None:
    with pytest.raises(Invalid) as caught:
        structure(cls, params)
    assert caught.value.path == path


def test_what_the_server_says_is_read_with_what_later_servers_add() -> None:
    result = structure_answer(
        ConnectResult, {"registration_id": "r", "heartbeat": 30, "alias": "", "tags": ["a"], "waiting": 2, "new": 1}
    )
    assert result == ConnectResult(registration_id="r", heartbeat=30, tags=("a",), waiting=2)
    note = structure_answer(
        MessageNote, {"msg_id": "5", "sent_at": 1, "expires_at": None, "notification": {"alert": "x"}}
    )
    assert note == MessageNote(msg_id="5", sent_at=1, notification={"alert": "x"})
    assert structure_answer(AliasAnswer, {"alias": "bob", "previous": None}) == AliasAnswer("bob", None)  # type: ignore[arg-type]
    assert structure_answer(RecallNote, {"msg_id": "5", "why": "later"}) == RecallNote("5")
    assert structure_answer(Goodbye, {"reason": "drain", "retry_after": 3}) == Goodbye("drain", 3)

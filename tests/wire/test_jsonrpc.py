from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pushactors import errors
from pushactors.errors import Invalid, PushactorsError
from pushactors.wire.jsonrpc import (
    Malformed,
    Note,
    RemoteError,
    Reply,
    Request,
    UnknownMethod,
    batch_frame,
    code_of,
    error_frame,
    error_of,
    note_frame,
    read_frame,
    request_frame,
    result_frame,
)

V = {"jsonrpc": "2.0"}


def read(value: object, *, batches: bool = True) -> Any:
    entries, is_batch = read_frame(orjson.dumps(value), batches=batches)
    assert not is_batch
    (entry,) = entries
    return entry


def test_a_request_has_an_id_and_a_note_has_none() -> None:
    assert read({**V, "id": 1, "method": "m", "params": {"a": 1}}) == Request(1, "m", {"a": 1})
    assert read({**V, "id": "x", "method": "m"}) == Request("x", "m", {})
    assert read({**V, "method": "m", "params": {}}) == Note("m", {})


def test_a_reply_has_a_result_or_an_error() -> None:
    assert read({**V, "id": 1, "result": None}) == Reply(1, None, None)
    assert read({**V, "id": None, "error": {"code": 1}}) == Reply(None, None, {"code": 1})


@pytest.mark.parametrize(
    ("value", "id", "code", "path"),
    [
        (1, None, -32600, None),
        ("text", None, -32600, None),
        ({}, None, -32600, "jsonrpc"),
        ({"jsonrpc": 2.0, "id": 7, "method": "m"}, 7, -32600, "jsonrpc"),
        ({"jsonrpc": "1.0", "id": 7, "method": "m"}, 7, -32600, "jsonrpc"),
        ({**V, "id": None, "method": "m"}, None, -32600, "id"),
        ({**V, "id": True, "method": "m"}, None, -32600, "id"),
        ({**V, "id": 1.0, "method": "m"}, None, -32600, "id"),
        ({**V, "id": 2**63, "method": "m"}, None, -32600, "id"),
        ({**V, "id": [], "method": "m"}, None, -32600, "id"),
        ({**V, "id": True, "result": 1}, None, -32600, "id"),
        ({**V, "id": 7}, 7, -32600, "method"),
        ({**V, "id": 7, "method": 1}, 7, -32600, "method"),
        ({**V, "id": 7, "method": None}, 7, -32600, "method"),
        ({**V, "id": 7, "method": "m", "params": [1]}, 7, -32602, "params"),
        ({**V, "id": 7, "method": "m", "params": None}, 7, -32602, "params"),
        ({**V, "id": 7, "method": "m", "parms": {}}, 7, -32602, "parms"),
        ({**V, "id": 7, "method": "m", "result": 1}, 7, -32602, "result"),
        ({**V, "id": 7, "result": 1, "params": {}}, 7, -32602, "params"),
        ({**V, "id": 7, "result": 1, "error": {}}, 7, -32600, "error"),
        ({**V, "id": 7, "error": None}, 7, -32600, "error"),
    ],
)
def test_an_envelope_that_breaks_a_rule_is_answered_with_its_id(
    value: object, id: object, code: int, path: str | None
) -> None:
    entry = read(value)
    assert isinstance(entry, Malformed)
    assert (entry.id, entry.code, entry.path, entry.is_note) == (id, code, path, False)


def test_the_smallest_and_the_largest_id_are_echoed() -> None:
    assert read({**V, "id": -(2**63), "method": "m"}).id == -(2**63)
    assert read({**V, "id": 2**63 - 1, "method": 1}).id == 2**63 - 1


@pytest.mark.parametrize("value", [{**V, "method": "m", "params": []}, {**V, "method": "m", "extra": 1}])
def test_a_note_that_breaks_a_rule_says_that_it_was_one(value: object) -> None:
    entry = read(value)
    assert entry.is_note
    assert entry.code == -32602


@pytest.mark.parametrize("text", ["", "{", b"\xff", "[" * 100 + "]" * 100])
def test_what_is_not_json_is_a_parse_error(text: str | bytes) -> None:
    (entry,), is_batch = read_frame(text, batches=True)
    assert isinstance(entry, Malformed)
    assert (entry.id, entry.code, is_batch) == (None, -32700, False)


def test_a_batch_is_read_entry_by_entry_in_its_order() -> None:
    batch = [{**V, "id": 1, "method": "a"}, 5, {**V, "method": "b"}]
    entries, is_batch = read_frame(orjson.dumps(batch), batches=True)
    assert is_batch
    assert entries[0] == Request(1, "a", {})
    assert isinstance(entries[1], Malformed)
    assert entries[2] == Note("b", {})


@pytest.mark.parametrize("batch", [[], [1] * 1001])
def test_an_empty_or_endless_batch_has_one_answer_and_no_array(batch: list[int]) -> None:
    entry = read(batch)
    assert (entry.id, entry.code) == (None, -32600)


def test_a_batch_of_a_thousand_is_taken() -> None:
    entries, is_batch = read_frame(orjson.dumps([1] * 1000), batches=True)
    assert len(entries) == 1000
    assert is_batch


def test_where_batches_are_not_taken_there_is_one_answer_and_no_array() -> None:
    entry = read([{**V, "id": 1, "method": "m"}], batches=False)
    assert (entry.id, entry.code) == (None, -32600)


# A loaded machine, or the first run, which builds the tables of characters, is slow for no fault of ours.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error", "x"]), inner)
        | st.fixed_dictionaries({"jsonrpc": st.just("2.0")}, optional={"id": inner, "method": inner, "params": inner})
    ),
    max_leaves=10,
)


@patient
@given(st.binary(max_size=20) | JSON.map(orjson.dumps), st.booleans())
def test_any_frame_is_read_without_raising_and_can_be_answered(text: bytes, batches: bool) -> None:
    entries, is_batch = read_frame(text, batches=batches)
    assert entries
    assert batches or not is_batch
    for entry in entries:
        if isinstance(entry, Malformed):
            error_frame(entry.id, entry)


def test_frames_come_back_as_what_they_were() -> None:
    assert read_frame(request_frame(3, "m", {"a": 1}), batches=False) == ([Request(3, "m", {"a": 1})], False)
    assert read_frame(note_frame("m", {}), batches=False) == ([Note("m", {})], False)
    assert read_frame(result_frame("x", [1]), batches=False) == ([Reply("x", [1], None)], False)
    entries, is_batch = read_frame(batch_frame([result_frame(1, 1), result_frame(2, 2)]), batches=True)
    assert entries == [Reply(1, 1, None), Reply(2, 2, None)]
    assert is_batch


# The table of the protocol, written a second time by hand.
CODES = [
    (Invalid("s", "a.b"), -32602, "invalid_params", {"path": "a.b"}),
    (UnknownMethod("s"), -32601, "unknown_method", {}),
    (errors.InternalError("s"), -32603, "internal_error", {}),
    (errors.CidReused("s"), 1003, "cid_reused", {}),
    (errors.Unauthorized("s"), 1004, "unauthorized", {}),
    (errors.Unauthorized("s", "alias_token"), 1004, "unauthorized", {"path": "alias_token"}),
    (errors.TooLarge("s"), 1005, "too_large", {}),
    (errors.NoSuchApp("s"), 1008, "no_such_app", {}),
    (errors.NoSuchDevice("s"), 1010, "no_such_device", {}),
    (errors.NoTarget("s"), 1011, "no_target", {}),
    (errors.NoSuchMessage("s"), 1013, "no_such_message", {}),
    (errors.CursorGone("s", "17"), 1014, "cursor_gone", {"oldest": "17"}),
    (errors.RateLimited("s", 9), 2002, "rate_limited", {"retry_after": 9}),
    (errors.TooFrequent("s", 3), 6011, "too_frequent", {"retry_after": 3}),
    (errors.AliasFull("s"), 6027, "alias_full", {}),
]


def error_object(error: Exception | Malformed) -> dict[str, Any]:
    frame = orjson.loads(error_frame(1, error))
    assert frame.keys() == {"jsonrpc", "id", "error"}
    assert frame["id"] == 1
    found: dict[str, Any] = frame["error"]
    return found


@pytest.mark.parametrize(("error", "code", "name", "data"), CODES, ids=[name for _, _, name, _ in CODES])
def test_every_error_has_its_code_and_name(
    error: PushactorsError, code: int, name: str, data: dict[str, object]
) -> None:
    assert code_of(error) == code
    written = error_object(error)
    assert (written["code"], written["data"]) == (code, {"name": name, **data})


@pytest.mark.parametrize(("error", "code", "name", "data"), CODES, ids=[name for _, _, name, _ in CODES])
def test_every_error_comes_back_as_the_same_exception(
    error: PushactorsError, code: int, name: str, data: object
) -> None:
    back = error_of(error_object(error))
    assert type(back) is type(error)
    if code != -32603:
        assert str(back) == "s"
    assert vars(back) == vars(error)


@pytest.mark.parametrize("error", [errors.ActorCrashed("secret"), errors.StoreFailure("secret"), KeyError("secret")])
def test_a_fault_of_ours_keeps_its_text_to_itself(error: Exception) -> None:
    written = error_object(error)
    assert written["code"] == -32603
    assert "secret" not in written["message"]


def test_a_malformed_entry_is_answered_with_its_path() -> None:
    written = error_object(Malformed(1, -32602, "params must be an object.", "params"))
    assert written == {
        "code": -32602,
        "message": "params must be an object.",
        "data": {"name": "invalid_params", "path": "params"},
    }


@pytest.mark.parametrize(
    ("written", "code", "name"),
    [
        ({"code": 1099, "message": "m", "data": {"name": "of_tomorrow"}}, 1099, "of_tomorrow"),
        ({"code": -32600, "message": "m"}, -32600, "invalid_request"),
        ({"code": 77, "message": "m", "data": 3}, 77, ""),
        ({"code": True}, -32603, ""),
        ({}, -32603, ""),
    ],
)
def test_an_error_that_is_not_known_here_is_still_one(written: dict[str, object], code: int, name: str) -> None:
    back = error_of(written)
    assert isinstance(back, RemoteError)
    assert (back.code, back.name) == (code, name)


def test_a_busy_server_that_does_not_say_how_long_means_a_second() -> None:
    back = error_of({"code": 2002, "message": "m", "data": {"retry_after": "soon"}})
    assert isinstance(back, errors.RateLimited)
    assert back.retry_after_s == 1


@pytest.mark.parametrize("data", [None, {}, {"oldest": None}, {"oldest": 17}, {"oldest": "-1"}, {"oldest": "soon"}])
def test_a_cursor_that_is_gone_without_saying_where_to_go_on_means_everything_kept(data: object) -> None:
    back = error_of({"code": 1014, "message": "m", "data": data})
    assert isinstance(back, errors.CursorGone)
    assert back.oldest == "0"


def test_whatever_is_busy_says_when_to_come_back() -> None:
    frame = orjson.loads(error_frame(1, errors.Busy("Later.", 3)))
    assert frame["error"] == {
        "code": 2002,
        "message": "Later.",
        "data": {"name": "rate_limited", "retry_after": 3},
    }

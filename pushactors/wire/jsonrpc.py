"""JSON-RPC 2.0 envelopes: what a frame holds, and what an error is called on the wire.

1. A frame is read whole or refused in its parts: every entry becomes a value, the bad ones a `Malformed`, and nothing
   is raised. An id that is itself valid is echoed, whatever else is wrong.
2. An id is a string or an integer of 64 bits. An entry without one is a `Note`: it is never answered, so a `Malformed`
   that was one says so.
3. Unknown members of the envelope are refused like those of the params.
4. A batch is an array of 1 to 1000 entries, answered by one array; where batches are not taken, or this one cannot be,
   there is one answer and no array.
5. Errors have a code and a name in one table, read in both directions. What is not in it is an internal error, and its
   text stays here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pushactors.errors import (
    AliasFull,
    Busy,
    CidReused,
    CursorGone,
    InternalError,
    Invalid,
    NoSuchApp,
    NoSuchDevice,
    NoSuchMessage,
    NoTarget,
    PushactorsError,
    RateLimited,
    Refused,
    TooFrequent,
    TooLarge,
    Unauthorized,
)
from pushactors.wire.codec import Unreadable, decode, encode
from pushactors.wire.ids import parse_cursor

Id = str | int

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
UNKNOWN_METHOD: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603

MAX_BATCH: Final = 1000


class UnknownMethod(Refused):
    """This endpoint has no such method."""


class RemoteError(PushactorsError):
    """The server refused with a code that this version has no exception for."""

    def __init__(self, code: int, name: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.name = name


@dataclass(frozen=True, slots=True)
class Request:
    id: Id
    method: str
    params: dict[str, object]


@dataclass(frozen=True, slots=True)
class Note:
    """A notification: nobody answers it."""

    method: str
    params: dict[str, object]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `error` is None if there is a `result`; `id` None: the peer could not tell what it answers."""

    id: Id | None
    result: object
    error: dict[str, object] | None


@dataclass(frozen=True, slots=True)
class Malformed:
    """An entry that cannot be understood, with the answer to it. `is_note`: it was a notification, so there is none."""

    id: Id | None
    code: int
    message: str
    path: str | None = None
    is_note: bool = False


Entry = Request | Note | Reply | Malformed


def read_frame(text: str | bytes, *, batches: bool) -> tuple[list[Entry], bool]:
    """The entries of a frame in their order, and whether their answers come as one array. Raises nothing."""
    try:
        value = decode(text)
    except Unreadable as error:
        return [Malformed(None, PARSE_ERROR, f"Not JSON: {error}.")], False
    if not isinstance(value, list):
        return [_entry(value)], False
    if not batches:
        return [Malformed(None, INVALID_REQUEST, "Batches are not taken here: send one request a frame.")], False
    if not 1 <= len(value) <= MAX_BATCH:
        return [Malformed(None, INVALID_REQUEST, f"A batch must have 1 to {MAX_BATCH} entries.")], False
    return [_entry(each) for each in value], True


def _entry(value: object) -> Entry:
    if not isinstance(value, dict):
        return Malformed(None, INVALID_REQUEST, "A request must be an object.")
    has_id = "id" in value
    id = value.get("id")
    is_reply = "method" not in value and ("result" in value or "error" in value)
    if has_id and not _is_id(id) and (id is not None or not is_reply):
        return Malformed(None, INVALID_REQUEST, "id must be a string or an integer of 64 bits.", "id")
    if value.get("jsonrpc") != "2.0":
        return Malformed(id, INVALID_REQUEST, 'jsonrpc must be "2.0".', "jsonrpc")
    if is_reply:
        return _reply(id, value)
    if not isinstance(value.get("method"), str):
        return Malformed(id, INVALID_REQUEST, "method must be a string.", "method")
    return _request(id, value) if has_id else _note(value)


def _request(id: Any, value: dict[str, Any]) -> Request | Malformed:
    params = value.get("params", _NO_PARAMS)
    if not isinstance(params, dict):
        return Malformed(id, INVALID_PARAMS, "params must be an object.", "params")
    if unknown := value.keys() - _REQUEST_MEMBERS:
        return _unknown(id, unknown)
    return Request(id, value["method"], params)


def _note(value: dict[str, Any]) -> Note | Malformed:
    request = _request("", value)
    if isinstance(request, Malformed):
        return Malformed(None, request.code, request.message, request.path, is_note=True)
    return Note(request.method, request.params)


def _reply(id: Any, value: dict[str, Any]) -> Reply | Malformed:
    if unknown := value.keys() - _REPLY_MEMBERS:
        return _unknown(id, unknown)
    if "error" not in value:
        return Reply(id, value["result"], None)
    error = value["error"]
    if "result" in value or not isinstance(error, dict):
        return Malformed(id, INVALID_REQUEST, "A reply has a result or an error, which is an object.", "error")
    return Reply(id, None, error)


def _unknown(id: Id | None, members: set[str]) -> Malformed:
    member = min(members)[:_SHOWN_CHARS]
    return Malformed(id, INVALID_PARAMS, f"{member} is not known here.", member)


def _is_id(id: object) -> bool:
    # bool is an int to isinstance, and no id.
    return type(id) is str or (type(id) is int and -(2**63) <= id < 2**63)


_SHOWN_CHARS: Final = 64
_REQUEST_MEMBERS: Final = frozenset({"jsonrpc", "id", "method", "params"})
_REPLY_MEMBERS: Final = frozenset({"jsonrpc", "id", "result", "error"})
_NO_PARAMS: Final[dict[str, object]] = {}


# --- Writing ---------------------------------------------------------------------------------------------------


def request_frame(id: Id, method: str, params: Mapping[str, object]) -> bytes:
    return encode({"jsonrpc": "2.0", "id": id, "method": method, "params": params})


def note_frame(method: str, params: Mapping[str, object]) -> bytes:
    return encode({"jsonrpc": "2.0", "method": method, "params": params})


def result_frame(id: Id, result: object) -> bytes:
    return encode({"jsonrpc": "2.0", "id": id, "result": result})


def error_frame(id: Id | None, error: Exception | Malformed) -> bytes:
    return encode({"jsonrpc": "2.0", "id": id, "error": _error_object(error)})


def batch_frame(frames: Sequence[bytes]) -> bytes:
    """Answers that are encoded already, as the one array that answers a batch."""
    return b"[" + b",".join(frames) + b"]"


def _error_object(error: Exception | Malformed) -> dict[str, object]:
    if isinstance(error, Malformed):
        code, text, path, retry_after_s = error.code, error.message, error.path, None
    else:
        code = code_of(error)
        text = _OURS if code == INTERNAL_ERROR else str(error)
        path = error.path if isinstance(error, Invalid) else None
        if isinstance(error, Unauthorized) and error.path:
            path = error.path
        retry_after_s = error.retry_after_s if isinstance(error, Busy) else None
    data: dict[str, object] = {"name": NAMES[code]}
    if path is not None:
        data["path"] = path
    if retry_after_s is not None:
        data["retry_after"] = retry_after_s
    if isinstance(error, CursorGone):
        data["oldest"] = error.oldest
    return {"code": code, "message": text, "data": data}


# --- Errors and their codes ------------------------------------------------------------------------------------

_ERRORS: Final[tuple[tuple[int, str, type[PushactorsError]], ...]] = (
    (UNKNOWN_METHOD, "unknown_method", UnknownMethod),
    (INVALID_PARAMS, "invalid_params", Invalid),
    (INTERNAL_ERROR, "internal_error", InternalError),
    (1003, "cid_reused", CidReused),
    (1004, "unauthorized", Unauthorized),
    (1005, "too_large", TooLarge),
    (1008, "no_such_app", NoSuchApp),
    (1010, "no_such_device", NoSuchDevice),
    (1011, "no_target", NoTarget),
    (1013, "no_such_message", NoSuchMessage),
    (1014, "cursor_gone", CursorGone),
    (2002, "rate_limited", RateLimited),
    (6011, "too_frequent", TooFrequent),
    (6027, "alias_full", AliasFull),
)
NAMES: Final[Mapping[int, str]] = {
    PARSE_ERROR: "parse_error",
    INVALID_REQUEST: "invalid_request",
    **{code: name for code, name, _ in _ERRORS},
}
_CODES: Final[dict[type[PushactorsError], int]] = {
    Busy: 2002,
    **{cls: code for code, _, cls in _ERRORS},
}
"""Whatever is busy for a reason without a code of its own says when to come back."""
_CLASSES: Final = {code: cls for code, _, cls in _ERRORS}
_OURS: Final = "The server failed at this, and has logged why. Ask again later."


def code_of(error: Exception) -> int:
    """The code that tells a peer about `error`: its own or that of the nearest class above it."""
    for cls in type(error).__mro__:
        if cls in _CODES:
            return _CODES[cls]
    return INTERNAL_ERROR


def error_of(error: Mapping[str, object]) -> PushactorsError:
    """The exception that an error object tells of, for clients. A code or shape not known here: `RemoteError`."""
    code, text, data = error.get("code"), str(error.get("message", "")), error.get("data")
    members: Mapping[str, object] = data if isinstance(data, dict) else {}
    if type(code) is not int:
        return RemoteError(INTERNAL_ERROR, "", text)
    cls = _CLASSES.get(code)
    if cls is None:
        return RemoteError(code, str(members.get("name", NAMES.get(code, ""))), text)
    if issubclass(cls, Invalid | Unauthorized):
        return cls(text, str(members.get("path", "")))
    if issubclass(cls, CursorGone):
        return cls(text, _cursor(members.get("oldest")))
    if issubclass(cls, Busy):
        retry_after_s = members.get("retry_after")
        return cls(text, retry_after_s if type(retry_after_s) is int else 1)
    return cls(text)


def _cursor(value: object) -> str:
    """The cursor that `value` spells, or else the one before all of them."""
    try:
        return str(parse_cursor(value)) if isinstance(value, str) else "0"
    except Invalid:
        return "0"

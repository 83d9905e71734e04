"""From JSON to frozen values and back: nothing is coerced, nothing is overlooked, and an error says where it is.

1. What a peer asks is taken literally: `"5"` is no integer, `1` is no truth, and `null` is no way to leave a member
   out. An unknown member is an error, so that a typing error is never silent.
2. What a server answers is typed as strictly, but unknown members are passed over and `null` is an absent member:
   a client outlives the server it was written for.
3. One error is reported, an unknown member before all others; its path leads from the params down.
4. Whatever `decode` lets in, `encode` can write again: depth and numbers are limited on the way in.
5. Identities come out as their own types, spelled as `ids` demands. An alias in an answer is None where there is none.
"""

from __future__ import annotations

from typing import Final, TypeVar

import orjson
from cattrs import Converter
from cattrs.errors import AttributeValidationNote, ClassValidationError, ForbiddenExtraKeysError

from pushactors.errors import Invalid, PushactorsError
from pushactors.wire.strict import SHOWN_CHARS, At, Wrong, strict_converter

T = TypeVar("T")

DEPTH: Final = 64
"""Deeper than any honest message, and so far below orjson's limit for writing (254) that an envelope fits around it."""
_requests: Final = strict_converter(literally=True)
_answers: Final = strict_converter(literally=False)


class Unreadable(ValueError):
    """The text is no JSON, or JSON that nothing here could mean."""


def encode(value: object) -> bytes:
    """`value` as compact UTF-8 JSON. Dataclasses, enums and tuples are written as what they are on the wire."""
    return orjson.dumps(value)


def canonical(value: object) -> bytes:
    """The same bytes for the same value, in whatever order its members came."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def decode(text: str | bytes) -> object:
    """The value that `text` spells. Raises `Unreadable`."""
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Unreadable(str(error)) from None
    # Counting brackets is far cheaper than walking, and settles it for every ordinary frame.
    brackets = text.count("[") + text.count("{") if isinstance(text, str) else text.count(b"[") + text.count(b"{")
    if brackets > DEPTH and _is_deeper(value, DEPTH):
        raise Unreadable(f"nested deeper than {DEPTH} levels")
    return value


def structure(cls: type[T], params: object, path: str = "") -> T:
    """A `cls` out of what a peer asks. Raises `Invalid` with a path below `path`, or what `cls` itself raises."""
    return _structured(_requests, cls, params, path)


def structure_answer(cls: type[T], result: object, path: str = "") -> T:
    """A `cls` out of what a server answered or announced. Raises `Invalid`: the server speaks another language."""
    return _structured(_answers, cls, result, path)


def within(value: int, lowest: int, highest: int, path: str) -> None:
    """Raises `Invalid` unless `value` is in the range, both ends included."""
    if not lowest <= value <= highest:
        raise Invalid(f"{path} must be {lowest} to {highest}.", path)


def at_most(limit: int, given: tuple[object, ...], path: str) -> None:
    """Raises `Invalid` if there are more than `limit` entries."""
    if len(given) > limit:
        raise Invalid(f"{path} must have at most {limit} entries.", path)


def _is_deeper(value: object, depth: int) -> bool:
    level: list[object] = [value]
    for _ in range(depth + 1):
        containers = [each for each in level if isinstance(each, dict | list)]
        if not containers:
            return False
        level = [inner for each in containers for inner in (each.values() if isinstance(each, dict) else each)]
    return True


# --- Errors with a path ----------------------------------------------------------------------------------------


def _structured(converter: Converter, cls: type[T], value: object, path: str) -> T:
    try:
        return converter.structure(value, cls)
    except (ClassValidationError, At, Wrong, PushactorsError) as error:
        raise _first(error, path) from None


def _first(error: BaseException, path: str) -> PushactorsError:
    match error:
        case ClassValidationError():
            culprit = _culprit(error)
            return _first(culprit, _below(path, _member(culprit)))
        case ForbiddenExtraKeysError():
            unknown = _below(path, min(map(str, error.extra_fields))[:SHOWN_CHARS])
            return Invalid(f"{unknown} is not known here.", unknown)
        case At():
            return _first(error.cause, _below(path, error.step))
        case KeyError():
            return Invalid(f"{path} is missing.", path)
        case Wrong():
            return Invalid(f"{path or 'This'} {error}.", path)
        case Invalid():
            return Invalid(str(error), _below(path, error.path))
        case PushactorsError():
            return error
    raise error


def _culprit(error: ClassValidationError) -> Exception:
    for each in error.exceptions:
        if isinstance(each, ForbiddenExtraKeysError):
            return each
    first: Exception = error.exceptions[0]
    return first


def _member(error: Exception) -> str:
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return note.name
    return ""


def _below(path: str, step: str) -> str:
    if not path or not step or step.startswith("["):
        return path + step
    return f"{path}.{step}"

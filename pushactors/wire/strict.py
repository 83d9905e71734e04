"""Strict converters: cattrs coerces by default, and here nothing is.

1. Every type of JSON has a hook that takes exactly that type. A union is decided by the JSON type of the value, so
   nothing is tried; no union may have two members of one JSON type.
2. Hooks raise `Wrong`, wrapped in `At` below an array or object, or what the classes they make raise; `codec` makes
   one sentence with one path of it.
3. Literally: unknown members and `null` for an absent member are errors. Otherwise both are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache, reduce
from operator import or_
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from cattrs import Converter, override
from cattrs.gen import make_dict_structure_fn

from pushactors.wire.ids import (
    REGISTRATION_ID_CHARS,
    Alias,
    AppKey,
    Cid,
    Consumer,
    Cursor,
    MsgId,
    RegistrationId,
    Tag,
    parse_alias,
    parse_cid,
    parse_consumer,
    parse_cursor,
    parse_msg_id,
    parse_tag,
)

Hook = Callable[[Any, Any], Any]

WantedAlias = Alias | Literal[""]
"""What a request may set an alias to; `""` clears it. `wanted or None` is the alias that the device then has."""

SHOWN_CHARS: Final = 64
"""How much of a peer's own member name an error repeats."""
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
_APP_KEY_CHARS: Final = 64


class Wrong(Exception):
    """Says what the value must be, as the end of a sentence that begins with its path."""


class At(Exception):
    def __init__(self, step: str, cause: Exception) -> None:
        super().__init__(step)
        self.step = step
        self.cause = cause


def _text(value: Any, _: Any = None) -> str:
    if type(value) is not str:
        raise Wrong("must be a string")
    return value


def _integer(value: Any, _: Any = None) -> int:
    if type(value) is not int:
        raise Wrong("must be an integer")
    if not _LOWEST <= value <= _HIGHEST:
        raise Wrong("must be an integer of 64 bits")
    return value


def _number(value: Any, _: Any = None) -> float:
    if type(value) not in (int, float):
        raise Wrong("must be a number")
    return float(value)


def _truth(value: Any, _: Any = None) -> bool:
    if type(value) is not bool:
        raise Wrong("must be true or false")
    return value


def _anything(value: Any, _: Any = None) -> Any:
    return value


def _printable(limit: int) -> Hook:
    def hook(value: Any, _: Any) -> str:
        if not _text(value) or len(value) > limit or not value.isprintable():
            raise Wrong(f"must be 1 to {limit} printable characters")
        return str(value)

    return hook


def _wanted_alias(value: Any, _: Any) -> str:
    return parse_alias(value, "") if _text(value) else ""


def _alias_or_none(value: Any, _: Any) -> Alias | None:
    return parse_alias(_text(value), "") if value is not None and value != "" else None


def _text_or_member(value: Any, kind: Any) -> str:
    # cattrs dispatches on plain classes before all else, and a StrEnum is a str to it.
    return _text(value) if kind is str else _choice(kind)(value, kind)


@cache
def _choice(kind: Any) -> Hook:
    members = get_args(kind) if get_origin(kind) is Literal else [each.value for each in kind]
    chosen = {each: each if get_origin(kind) is Literal else kind(each) for each in members}
    expected = _words(members)

    def hook(value: Any, _: Any) -> Any:
        if type(value) is not str or value not in chosen:
            raise Wrong(f"must be {expected}")
        return chosen[value]

    return hook


def _words(members: Iterable[str]) -> str:
    return " or ".join(f'"{each}"' for each in members)


def _array_hooks(converter: Converter) -> Callable[[Any], Hook]:
    def factory(kind: Any) -> Hook:
        build = get_origin(kind)
        inner = get_args(kind)[0]
        each_hook = converter.get_structure_hook(inner)

        def hook(value: Any, _: Any) -> Any:
            if type(value) is not list:
                raise Wrong("must be an array")
            done = []
            for index, each in enumerate(value):
                try:
                    done.append(each_hook(each, inner))
                except Exception as error:
                    raise At(f"[{index}]", error) from None
            return build(done)

        return hook

    return factory


def _object_hooks(converter: Converter) -> Callable[[Any], Hook]:
    def factory(kind: Any) -> Hook:
        inner = get_args(kind)[1]
        each_hook = converter.get_structure_hook(inner)

        def hook(value: Any, _: Any) -> dict[str, Any]:
            if type(value) is not dict:
                raise Wrong("must be an object")
            done = {}
            for name, each in value.items():
                try:
                    done[name] = each_hook(each, inner)
                except Exception as error:
                    raise At(name[:SHOWN_CHARS], error) from None
            return done

        return hook

    return factory


def _union_hooks(converter: Converter) -> Callable[[Any], Hook]:
    """One member of a union for each type of JSON: the value's own type decides, nothing is tried."""

    def factory(kind: Any) -> Hook:
        by_type: dict[type, tuple[Hook, Any]] = {}
        expected = []
        for member in _present(kind):
            json_type, name = _JSON_TYPES.get(get_origin(member), (dict, "an object"))
            by_type[json_type] = converter.get_structure_hook(member), member
            expected.append(name or _words(get_args(member)))

        def hook(value: Any, _: Any) -> Any:
            everything = f"must be {' or '.join(expected)}"
            if type(value) not in by_type:
                raise Wrong(everything)
            member_hook, member = by_type[type(value)]
            if get_origin(member) is Literal and value not in get_args(member):
                # A name where a list of names is meant, mostly.
                raise Wrong(everything)
            return member_hook(value, member)

        return hook

    return factory


_JSON_TYPES: Final[Mapping[Any, tuple[type, str]]] = {Literal: (str, ""), tuple: (list, "an array")}


def _is_open_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType) and len(_present(kind)) > 1


def _present(union: Any) -> list[Any]:
    return [member for member in get_args(union) if member is not type(None)]


def _class_hooks(converter: Converter, *, literally: bool) -> Callable[[Any], Hook]:
    def factory(cls: Any) -> Hook:
        hints = get_type_hints(cls)
        overrides: dict[str, Any] = {}
        for field in fields(cls):
            if not field.init:
                overrides[field.name] = override(omit=True)
            elif literally and field.default is None:
                present = _without_none(hints[field.name])
                hook_of = converter.get_structure_hook(present)
                overrides[field.name] = override(struct_hook=_bound(hook_of, present))
        build = make_dict_structure_fn(
            cls,
            converter,
            _cattrs_forbid_extra_keys=literally,
            _cattrs_detailed_validation=True,
            **overrides,
        )
        leave_out = {field.name for field in fields(cls) if field.default is not MISSING}

        def hook(value: Any, kind: Any) -> Any:
            if type(value) is not dict:
                raise Wrong("must be an object")
            if not literally:
                value = {name: each for name, each in value.items() if each is not None or name not in leave_out}
            return build(value, kind)

        return hook

    return factory


def _bound(hook: Hook, kind: Any) -> Hook:
    return lambda value, _: hook(value, kind)


def _without_none(optional: Any) -> Any:
    return reduce(or_, _present(optional))


def _made_of(*origins: Any) -> Callable[[Any], bool]:
    return lambda kind: get_origin(kind) in origins


def strict_converter(*, literally: bool) -> Converter:
    converter = Converter(detailed_validation=True, forbid_extra_keys=literally)
    converter.register_structure_hook_factory(is_dataclass, _class_hooks(converter, literally=literally))
    converter.register_structure_hook_factory(_is_open_union, _union_hooks(converter))
    converter.register_structure_hook_factory(_made_of(list, tuple), _array_hooks(converter))
    converter.register_structure_hook_factory(_made_of(dict), _object_hooks(converter))
    converter.register_structure_hook_factory(_made_of(Literal), _choice)
    converter.register_structure_hook_func(lambda kind: kind in (Any, object), _anything)
    converter.register_structure_hook_func(lambda kind: kind == WantedAlias, _wanted_alias)
    for cls, hook in _HOOKS:
        converter.register_structure_hook(cls, hook)
    return converter


_HOOKS: Final[list[tuple[Any, Hook]]] = [
    (str, _text_or_member),
    (int, _integer),
    (float, _number),
    (bool, _truth),
    (Alias, lambda value, _: parse_alias(_text(value), "")),
    (Alias | None, _alias_or_none),
    (Tag, lambda value, _: parse_tag(_text(value), "")),
    (MsgId, lambda value, _: parse_msg_id(_text(value), "")),
    (Cid, lambda value, _: parse_cid(_text(value), "")),
    (Consumer, lambda value, _: parse_consumer(_text(value), "")),
    (Cursor, lambda value, _: parse_cursor(_text(value), "")),
    (RegistrationId, _printable(REGISTRATION_ID_CHARS)),
    (AppKey, _printable(_APP_KEY_CHARS)),
]

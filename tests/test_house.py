"""The house keeps its own rules: which door opens which way, what each file begins with, and how large it may grow.

1. Doors open one way: `errors`, `wire.ids`, `domain`, `stores.contract`, `actors`, `edges`, `node`, `cli`.
2. What a room is free of, it is free of in every file: no clock in the domain, no SQL at the edges.
3. A broken rule is reported in a sentence that names the file.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "pushactors"
NAME = HOUSE.name

# A room, and what of this package its files may import. The longest room that a file is in speaks for it. A room may
# import itself, and nobody is named who does not exist, so that a table that has grown old is noticed.
DOORS: dict[str, tuple[str, ...]] = {
    "errors": (),
    "wire.ids": ("errors",),
    "wire": ("errors",),
    "domain": ("errors", "wire.ids"),
    "stores.contract": ("errors", "wire.ids", "domain", "stores.rows", "stores.changes"),
    "stores.patience": ("errors",),
    "stores": ("errors", "wire.ids", "domain"),
    "actors": ("errors", "wire.ids", "domain", "stores.contract", "stores.patience"),
    "edges": ("errors", "wire", "domain", "stores.contract", "actors"),
    "node": ("errors", "wire", "domain", "stores", "actors", "edges"),
    "clients": ("errors", "wire"),
    "settings": ("wire.ids", "domain.aliases"),
    "config": ("errors", "wire", "settings"),
    "cli": ("errors", "wire", "domain", "stores", "node", "clients", "config", "settings"),
    "": ("errors", "wire", "clients"),
}

# Who must not know each other although they share a room: no file knows two of them.
STRANGERS: tuple[tuple[str, ...], ...] = (
    ("actors.device", "actors.router", "actors.ledger", "actors.receipts"),
    ("actors.held", "actors.router", "actors.receipts"),
    ("actors.recall", "actors.router", "actors.receipts"),
    ("stores.memory", "stores.sqlite"),
    ("edges.devices", "edges.apps", "edges.ops"),
)

# A room, and what from outside its files must not import: the first name of the module.
FREE_OF: dict[str, frozenset[str]] = {
    "": frozenset({"asyncio", "anyio", "requests", "pickle"}),
    "errors": frozenset({"trio", "logging", "time", "json", "orjson"}),
    "wire": frozenset({"trio", "trio_websocket", "wsproto", "h11", "socket", "sqlite3", "logging", "time", "datetime",
                       "random", "secrets"}),
    "domain": frozenset({"jwt", "trio", "trio_websocket", "wsproto", "h11", "socket", "ssl", "sqlite3", "logging",
                         "time", "datetime", "random", "secrets", "uuid", "os", "pathlib", "threading", "json",
                         "orjson", "cattrs", "prometheus_client"}),
    "stores": frozenset({"jwt", "trio_websocket", "wsproto", "h11", "socket", "ssl", "cattrs", "prometheus_client"}),
    "stores.contract": frozenset({"trio", "sqlite3", "logging", "time", "json", "orjson"}),
    "stores.memory": frozenset({"sqlite3"}),
    "actors": frozenset({"jwt", "trio_websocket", "wsproto", "h11", "socket", "ssl", "sqlite3", "threading", "json",
                         "orjson", "cattrs", "prometheus_client"}),
    "actors.device": frozenset({"logging", "random", "secrets", "time", "datetime"}),
    "edges": frozenset({"jwt", "sqlite3", "threading", "cattrs", "json"}),
    "clients": frozenset({"jwt", "sqlite3", "threading", "cattrs", "prometheus_client"}),
    "node": frozenset({"sqlite3", "orjson", "json", "cattrs", "wsproto", "argparse", "tomllib"}),
    "clients.tray_rules": frozenset({"trio", "os", "pathlib", "time", "orjson"}),
    "settings": frozenset({"trio", "sqlite3", "orjson", "argparse"}),
    "config": frozenset({"trio", "sqlite3", "argparse"}),
    "cli": frozenset({"sqlite3", "wsproto", "h11", "cattrs"}),
}

NAMES_THAT_SAY_NOTHING = {"util", "utils", "helper", "helpers", "manager", "managers", "base", "impl", "common", "misc"}
CLASS_LINES = 300
FILE_LINES = 500


def files() -> list[Path]:
    return sorted(HOUSE.rglob("*.py"))


def module_of(file: Path) -> str:
    """The name of a file below the package: `wire.ids`; "" for the package itself."""
    parts = file.relative_to(HOUSE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = frozenset(map(module_of, files()))


def is_in(module: str, room: str) -> bool:
    return not room or module == room or module.startswith(f"{room}.")


def room_of(module: str, rooms: dict[str, tuple[str, ...]]) -> str:
    return max((room for room in rooms if (is_in(module, room) if room else not module)), key=len, default="?")


def imports(source: str) -> Iterator[str]:
    """Every module that `source` imports, in full; `from a import b` is `a.b` if that is a module of this house."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                yield inner if inner.removeprefix(f"{NAME}.") in MODULES else origin


def complaints(module: str, source: str) -> list[str]:
    """What the imports of `source`, as the text of `module`, break."""
    found: list[str] = []
    for imported in dict.fromkeys(imports(source)):
        if imported == NAME or imported.startswith(f"{NAME}."):
            found += _about_a_door(module, imported.removeprefix(NAME).removeprefix("."))
        else:
            found += _about_the_world(module, imported.split(".")[0])
    return found


def _about_a_door(module: str, imported: str) -> Iterator[str]:
    room = room_of(module, DOORS)
    allowed = (room, *DOORS.get(room, ()))
    # The package itself is no way round: it would lead everywhere.
    if not imported or not any(way and is_in(imported, way) for way in allowed):
        others = ", ".join(DOORS.get(room, ())) or "nothing"
        yield f"{module} must not import {imported or NAME}: {room or NAME} may import itself and {others}."
    for strangers in STRANGERS:
        ours = [stranger for stranger in strangers if is_in(module, stranger)]
        theirs = [stranger for stranger in strangers if is_in(imported, stranger)]
        if ours and theirs and ours != theirs:
            yield f"{module} must not import {imported}: no file knows two of {', '.join(strangers)}."


def _about_the_world(module: str, imported: str) -> Iterator[str]:
    for room, forbidden in FREE_OF.items():
        if is_in(module, room) and imported in forbidden:
            yield f"{module} must not import {imported}: {room or 'the whole house'} is free of it."


# --- Doors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", files(), ids=lambda file: module_of(file) or NAME)
def test_doors_open_one_way(file: Path) -> None:
    broken = complaints(module_of(file), file.read_text())
    assert not broken, " ".join(broken)


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("domain.mailbox", "import trio", "domain.mailbox must not import trio: domain is free of it."),
        ("domain.mailbox", "from time import time", "domain.mailbox must not import time: domain is free of it."),
        ("domain.mailbox", "def f():\n import random", "domain.mailbox must not import random: domain is free of it."),
        ("actors.device", "import orjson", "actors.device must not import orjson: actors is free of it."),
        ("edges.visit", "import sqlite3 as s", "edges.visit must not import sqlite3: edges is free of it."),
        ("edges.visit", "import asyncio.queues", "edges.visit must not import asyncio: the whole house is free of it."),
        (
            "domain.mailbox",
            "from pushactors.stores import contract",
            "domain.mailbox must not import stores.contract: domain may import itself and errors, wire.ids.",
        ),
        (
            "wire.ids",
            "from pushactors.wire.codec import encode",
            "wire.ids must not import wire.codec: wire.ids may import itself and errors.",
        ),
        ("errors", "import pushactors", "errors must not import pushactors: errors may import itself and nothing."),
        (
            "actors.ledger",
            "from pushactors.actors import device",
            "actors.ledger must not import actors.device: no file knows two of"
            " actors.device, actors.router, actors.ledger, actors.receipts.",
        ),
    ],
)
def test_a_door_that_opens_the_other_way_is_reported_in_a_sentence(module: str, source: str, complaint: str) -> None:
    assert complaints(module, source) == [complaint]


@pytest.mark.parametrize("below", ["node", "edges.visit", "actors.device", "clients.device", "wire.codec", "errors"])
@pytest.mark.parametrize("above", ["pushactors.config", "pushactors.settings", "pushactors.cli"])
def test_nobody_below_the_command_line_sees_the_configuration(below: str, above: str) -> None:
    assert complaints(below, f"import {above}")


def test_relative_imports_are_no_way_round() -> None:
    # Not resolved here: the style check refuses them everywhere.
    assert 'ban-relative-imports = "all"' in (ROOT / "pyproject.toml").read_text()


def test_every_file_is_in_a_room() -> None:
    packages = {module_of(file) for file in files() if file.name == "__init__.py"}
    homeless = [module for module in sorted(MODULES - packages) if room_of(module, DOORS) == "?"]
    assert not homeless, f"Give these files a room in the table of doors: {', '.join(homeless)}."


def test_the_tables_name_only_what_exists() -> None:
    named = {*DOORS, *FREE_OF, *(way for ways in DOORS.values() for way in ways), *(s for g in STRANGERS for s in g)}
    gone = [name for name in sorted(named) if name and not any(is_in(module, name) for module in MODULES)]
    assert not gone, f"The tables of this test name what is not there: {', '.join(gone)}."


# --- Rules and laws ----------------------------------------------------------------------------------------------


def test_every_rule_that_is_cited_stands_in_the_contract() -> None:
    written = set(re.findall(r"^\*\*(C\d+)\b", (ROOT / "docs" / "contract.md").read_text(), re.MULTILINE))
    assert written == {f"C{number}" for number in range(1, 26)}
    for file in (*files(), *sorted((ROOT / "tests").rglob("*.py"))):
        unknown = set(re.findall(r"\bC[1-9]\d?\b", file.read_text())) - written
        assert not unknown, f"{file.relative_to(ROOT)} cites {', '.join(unknown)}, which the contract does not have."


@pytest.mark.parametrize("file", files(), ids=lambda file: module_of(file) or NAME)
def test_every_file_begins_with_its_law(file: Path) -> None:
    source = file.read_text()
    if not source and file.name == "__init__.py":
        return
    law = ast.get_docstring(ast.parse(source)) or ""
    assert law, f"{file.relative_to(ROOT)} must begin with what it is for, in a sentence, and its rules."
    if file.name != "__init__.py":
        assert re.search(r"^1\. ", law, re.MULTILINE), f"{file.relative_to(ROOT)}: number the rules of its law."


def test_every_file_has_a_name_that_says_something() -> None:
    empty = [str(file.relative_to(ROOT)) for file in files() if file.stem in NAMES_THAT_SAY_NOTHING]
    assert not empty, f"These have no home yet; name them after what they do: {', '.join(empty)}."


@pytest.mark.parametrize("file", files(), ids=lambda file: module_of(file) or NAME)
def test_no_file_and_no_class_outgrows_its_reader(file: Path) -> None:
    source = file.read_text()
    lines = source.count("\n")
    assert lines <= FILE_LINES, f"{file.relative_to(ROOT)} has {lines} lines: divide it."
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.end_lineno is not None:
            size = node.end_lineno - node.lineno + 1
            assert size <= CLASS_LINES, f"{node.name} in {file.relative_to(ROOT)} has {size} lines: divide it."

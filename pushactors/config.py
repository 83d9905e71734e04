"""The configuration: one TOML file, read and judged before anything starts; written where there is none.

1. What is wrong is one `ConfigurationError`: the file, the key, and what it must be, in a sentence. Secrets are not
   shown.
2. Paths are taken from the folder of the configuration file, and are absolute once loaded.
3. A generated file is readable by its owner only and never takes the place of another.
4. Whatever is said of a setting here or in the documents is made from `settings`.
5. Only the command line knows this file. Whatever it starts is given numbers.
"""

from __future__ import annotations

import os
import secrets
import ssl
import tomllib
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from textwrap import wrap
from typing import Any, Final, get_args, get_type_hints

from pushactors.errors import ConfigurationError, Invalid
from pushactors.settings import App, Configuration, Rule, StoreKind, Tls
from pushactors.wire.codec import encode, structure
from pushactors.wire.ids import AppKey

# --- Loading -----------------------------------------------------------------------------------------------------


def load(path: Path) -> Configuration:
    """The configuration in the file at `path`. Raises `ConfigurationError`."""
    try:
        text = path.read_bytes().decode()
        tables = tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} must be UTF-8, and is not at byte {error.start}.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}.") from None
    try:
        if isinstance(tables.get("app"), dict):
            raise Invalid("app must be written as [[app]], with two brackets: there can be several.")
        configuration = structure(Configuration, tables)
        _judge(configuration)
        return _with_files(configuration, path.resolve().parent)
    except Invalid as error:
        raise ConfigurationError(f"{path}: {error}") from None


def _judge(configuration: Configuration) -> None:
    """Raises `Invalid` for the first setting that is out of its range, or does not go with another."""
    for table in fields(configuration):
        held = getattr(configuration, table.name)
        if is_dataclass(held):
            _judge_table(held, table.name)
    if not configuration.app:
        raise Invalid("app is missing: add an [[app]] table with app_key and master_secret.")
    first_with: dict[AppKey, int] = {}
    for index, app in enumerate(configuration.app):
        _judge_table(app, f"app[{index}]")
        if first_with.setdefault(app.app_key, index) != index:
            raise Invalid(f"app[{index}].app_key is that of app[{first_with[app.app_key]}] as well: give it its own.")
    doors: dict[str, str] = {}
    for door in fields(configuration.listen):
        address = getattr(configuration.listen, door.name)
        if not address.endswith(":0") and doors.setdefault(address, door.name) != door.name:
            raise Invalid(f"listen.{door.name} is that of listen.{doors[address]} as well: give it its own port.")


def _judge_table(table: Any, path: str) -> None:
    for each in fields(table):
        rule: Rule | None = each.metadata["rule"]
        if rule is not None and not rule.is_kept(getattr(table, each.name)):
            raise Invalid(f"{path}.{each.name} {rule.demand}.")


def _with_files(configuration: Configuration, folder: Path) -> Configuration:
    """The same with absolute paths. Raises `Invalid` for a file that is not what it must be."""
    store = replace(configuration.store, path=str(folder / configuration.store.path))
    if store.kind is StoreKind.SQLITE and not Path(store.path).parent.is_dir():
        raise Invalid(f"store.path needs a folder that is not there: {Path(store.path).parent}.")
    tls = configuration.tls
    if tls is not None:
        tls = replace(tls, certificate=str(folder / tls.certificate), key=str(folder / tls.key))
        _judge_files(tls)
    return replace(configuration, store=store, tls=tls)


def _judge_files(tls: Tls) -> None:
    for name, path in (("certificate", tls.certificate), ("key", tls.key)):
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise Invalid(f"tls.{name} cannot be read: {path}: {error.strerror}.") from None
    try:
        tls.context()
    except ssl.SSLError as error:
        raise Invalid(f"tls.certificate and tls.key must be PEM and fit each other: {error.reason}.") from None


# --- Writing -----------------------------------------------------------------------------------------------------

_PREFACE: Final = """\
# The configuration of pushactors, written by its first start. It is yours from now on.
# It holds secrets, so only its owner may read it: keep that so.
#
# `pushactors config` shows every setting, with its default and its meaning.
# At SIGHUP the server reads the [[app]] tables again; everything else takes effect at its next start.
"""
_SHOWN: Final = {
    "listen": ("devices", "apps", "operations"),
    "store": ("path",),
    "app": ("app_key", "master_secret", "offline_limit"),
}


def write_default(path: Path) -> Configuration:
    """Creates the file at `path` with one app and fresh credentials, and loads it. Raises `ConfigurationError`."""
    app = App(app_key=AppKey(secrets.token_hex(12)), master_secret=secrets.token_urlsafe(32))
    text = _file_text(Configuration(app=(app,)))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}.") from None
    return load(path)


def _file_text(configuration: Configuration) -> str:
    lines = [_PREFACE]
    for name, shown in _SHOWN.items():
        held = getattr(configuration, name)
        lines.append(_heading(name))
        table = held[0] if isinstance(held, tuple) else held
        for each in fields(table):
            if each.name in shown:
                lines += wrap(each.metadata["meaning"], 118, initial_indent="# ", subsequent_indent="# ")
                lines.append(f"{each.name} = {_toml(getattr(table, each.name))}")
        lines.append("")
    return "\n".join(lines)


def table() -> str:
    """Every setting as a Markdown table, in the order of the file."""
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, hint in get_type_hints(Configuration).items():
        cls = next(each for each in (hint, *get_args(hint)) if is_dataclass(each))
        rows.append(f"| **`{_heading(name)}`** | | | **{(cls.__doc__ or '').strip()}** |")
        hints = get_type_hints(cls)
        rows += [_row(each, hints[each.name]) for each in fields(cls)]
    return "\n".join(rows) + "\n"


def _row(each: Field[Any], hint: Any) -> str:
    rule: Rule | None = each.metadata["rule"]
    if rule is not None:
        kind = rule.kind
    elif hint is bool:
        kind = "`true` or `false`"
    else:
        kind = " or ".join(f"`{_toml(choice)}`" for choice in hint)
    default = "*required*" if each.default is MISSING else "–" if each.default is None else f"`{_toml(each.default)}`"
    return f"| `{each.name}` | {kind} | {default} | {each.metadata['meaning']} |"


def _heading(name: str) -> str:
    return f"[[{name}]]" if name == "app" else f"[{name}]"


def _toml(value: object) -> str:
    # For what a setting can be, JSON is TOML.
    return encode(value.value if isinstance(value, Enum) else value).decode()

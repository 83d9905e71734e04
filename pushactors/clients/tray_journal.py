"""The tray's file: what it held when it was last rewritten, and every step since, a line of JSON each.

1. When `write` returns, the steps are on the disk, all with one fsync. After a crash maybe some of them are, the first
   ones first.
2. A line that a crash cut short never happened, and nothing is written behind it: the file is rewritten first, whole or
   not at all. So it is after a write that failed.
3. The file is rewritten at twice the size that it had after the last time, and a little more.
4. One that is not a tray is refused in a sentence, and left alone.
5. Everything here blocks; callers run it in a thread, one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import orjson

from pushactors.clients import durable
from pushactors.clients.durable import IdentityUnusable
from pushactors.clients.tray_rules import (
    VERSION,
    Contents,
    LoggedIn,
    Marked,
    Put,
    Showed,
    Step,
    Told,
    TookBack,
)
from pushactors.errors import Invalid
from pushactors.wire.codec import encode, structure_answer

SLACK_BYTES: Final = 256 * 1024
_KINDS: Final[dict[str, type[Step]]] = {
    "put": Put,
    "showed": Showed,
    "marked": Marked,
    "told": Told,
    "took_back": TookBack,
    "logged_in": LoggedIn,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


class Journal:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes = self._limit = 0
        self._is_clean = False

    def load(self) -> Contents:
        """Reads the file, or makes it. Raises `IdentityUnusable`, as `write` does."""
        content = durable.read(self._path)
        contents = Contents() if content is None else _understood(self._path, content)
        self._rewrite(contents, b"")
        return contents

    def write(self, steps: Sequence[Step], before: Contents) -> None:
        """`before`: what there was before the first of them. It must not change meanwhile."""
        lines = b"".join(_line(step) for step in steps)
        if not self._is_clean or self._bytes + len(lines) > self._limit:
            self._rewrite(before, lines)
            return
        self._is_clean = False
        durable.append(self._path, lines)
        self._bytes += len(lines)
        self._is_clean = True

    def _rewrite(self, contents: Contents, lines: bytes) -> None:
        self._is_clean = False
        whole = encode(contents) + b"\n" + lines
        durable.replace(self._path, whole)
        self._bytes = len(whole)
        self._limit = 2 * self._bytes + SLACK_BYTES
        self._is_clean = True


def _line(step: Step) -> bytes:
    return encode({_NAMES[type(step)]: step}) + b"\n"


def _understood(path: Path, content: bytes) -> Contents:
    first, *lines = content.split(b"\n")[:-1] or [b""]
    try:
        # Not by `decode`: what came in at the depth that is allowed lies deeper here.
        contents = structure_answer(Contents, orjson.loads(first))
    except (orjson.JSONDecodeError, Invalid) as error:
        raise IdentityUnusable(f"{path} is not the file of a tray: {durable.reason(error)}") from None
    if contents.version != VERSION:
        raise IdentityUnusable(f"{path} is of version {contents.version}; this package reads version {VERSION}.")
    for line in lines:
        # What cannot be read is the end of the last write, and nobody was told of it.
        if (step := _step(line)) is not None:
            contents.take(step)
    return contents


def _step(line: bytes) -> Step | None:
    try:
        [(name, members)] = orjson.loads(line).items()
        return structure_answer(_KINDS[name], members)
    except (ValueError, AttributeError, KeyError, Invalid):
        return None

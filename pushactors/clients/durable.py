"""Files that survive a crash: written whole or not at all, and on the disk when the call returns.

1. Everything here blocks; callers run it in a thread.
2. What goes wrong with a file is `IdentityUnusable`, in a sentence that names it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pushactors.errors import ConfigurationError


class IdentityUnusable(ConfigurationError):
    """The identity file, or a file beside it, is not one, is of another app, or cannot be read or written."""


@contextmanager
def usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise IdentityUnusable(f"{path} cannot be used: {reason(error)}") from error


def reason(error: Exception) -> str:
    """The end of a sentence that gives `error` as the reason."""
    return f"{str(error).rstrip('.')}."


def replace(path: Path, content: bytes) -> None:
    """`path` holds `content`, or after a crash maybe still what it held before. Readable by its owner only."""
    draft = path.with_name(f"{path.name}.new")
    with usable(path):
        _write(draft, content, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        draft.replace(path)
        # The new name itself is only as durable as the directory that holds it.
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def append(path: Path, content: bytes) -> None:
    """`content` is at the end of the file, which exists; after a crash, maybe only its beginning."""
    with usable(path):
        _write(path, content, os.O_WRONLY | os.O_APPEND)


def read(path: Path) -> bytes | None:
    """None if there is no such file."""
    with usable(path):
        return path.read_bytes() if path.exists() else None


def _write(path: Path, content: bytes, flags: int) -> None:
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

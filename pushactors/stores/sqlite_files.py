"""The database as a file: who holds it, who may read it, how it is copied.

1. One process holds a database: `<path>.lock` is locked while it does, and the lock goes with the process.
2. Everything made here is for its owner's eyes only (mode 0600).
3. A copy is consistent, is on disk when it has its name, and never takes the name of another file.
4. What SQLite says becomes a sentence that says what to do; busy is `StoreBusy`, everything else is final.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pushactors.errors import StoreBusy, StoreFailure, StoreUnusable
from pushactors.stores.schema import check_ours

BUSY_AFTER_S: Final = 1.0
"""How long SQLite itself waits for another program that has locked the database, before `StoreBusy`."""


def hold(path: Path) -> int:
    """The descriptor of the held lock; closing it lets go. Raises `StoreUnusable` if somebody else holds it."""
    lock_path = path.with_name(path.name + ".lock")
    # flock, not lockf: a lockf lock is lost as soon as anybody in this process closes any descriptor of the file.
    try:
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnusable(f"{lock_path} cannot be opened ({error.strerror}); name a path that can be.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StoreUnusable(f"{path} is held by another process; stop that one, or name another path.") from error
    return lock


def make(path: Path) -> None:
    """Makes the file if it is not there. Only before SQLite has it open: closing it here drops SQLite's own locks."""
    try:
        if not path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            _sync(path.parent)
        else:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise StoreUnusable(f"{path} cannot be written ({error.strerror}); name a file that can be.") from error


def copy_database(source: Path, target: Path) -> None:
    """Copies the store at `source`, which may be in use by a running server, to the new file `target`.

    Raises `StoreUnusable` if `source` is not ours or cannot be read, or if `target` is there or cannot be made.
    """
    if not source.is_file():
        raise StoreUnusable(f"{source} is not a file; name the database of a store.")
    if target.exists():
        raise StoreUnusable(f"{target} is there already; name a file that is not.")
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise StoreUnusable(f"{target} cannot be made ({error.strerror}); name another place.") from error
    os.close(descriptor)
    part = Path(name)
    try:
        with in_sentences(source):
            _copy(source, part)
        _sync(part)
        os.link(part, target)
        _sync(target.parent)
    except FileExistsError as error:
        raise StoreUnusable(f"{target} is there already; name a file that is not.") from error
    except OSError as error:
        raise StoreUnusable(f"{target} cannot be made ({error.strerror}); name another place.") from error
    finally:
        part.unlink()


def _copy(source: Path, part: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)) as original,
        contextlib.closing(sqlite3.connect(part)) as copy,
    ):
        if not check_ours(original, str(source)):
            raise StoreUnusable(f"{source} is empty; name the database of a store.")
        # In one go: between steps a server that writes would make the copy begin anew, again and again.
        original.backup(copy)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def in_sentences(path: Path) -> Iterator[None]:
    """Turns what SQLite raises inside into what the contract says."""
    try:
        yield
    except sqlite3.Error as error:
        raise _failure(path, error) from error


def _failure(path: Path, error: sqlite3.Error) -> StoreFailure:
    # The low byte is the kind; the others say more, as in SQLITE_BUSY_SNAPSHOT.
    kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusy(f"{path} is locked by another program")
    advice = _ADVICE.get(kind, "see the log, and report it")
    return StoreUnusable(f"{path} cannot be used ({error}); {advice}.")


_ADVICE: Final = {
    sqlite3.SQLITE_FULL: "make room on the disk and start again",
    sqlite3.SQLITE_IOERR: "look after the disk and start again",
    sqlite3.SQLITE_CORRUPT: "put back a copy",
    sqlite3.SQLITE_NOTADB: "name the database of a store, or put back a copy",
    sqlite3.SQLITE_READONLY: "let this user write to it and its directory",
    sqlite3.SQLITE_CANTOPEN: "let this user write to it and its directory",
}

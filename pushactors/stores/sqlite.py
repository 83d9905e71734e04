"""The store on one SQLite file: everything survives the process, and the machine.

1. One connection writes, in one thread at a time; a commit is one hop there and one transaction. Another reads, from
   snapshots, and waits for no writer.
2. The fencing number and the commit number stand in the database and are checked in every transaction (law 1, law 6).
3. With durability "fsync" a commit that returned survives a power cut; with "os" the end of the process only.
4. A transaction that fails is rolled back; never is half a commit in the file.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeVar

import trio

from pushactors.errors import StoreFenced, StoreUnusable
from pushactors.stores import sqlite_deliveries as deliveries
from pushactors.stores import sqlite_reads as reads
from pushactors.stores import sqlite_receipts as receipts
from pushactors.stores.contract import (
    NO_LIMITS,
    Change,
    CidRow,
    DeviceRow,
    DueRow,
    MailboxRow,
    Opened,
    OverdueRow,
    ReceiptPage,
    ReportRow,
    StatusRow,
    TimelineRow,
    UnsettledRow,
)
from pushactors.stores.schema import bring_up, check_whole
from pushactors.stores.sqlite_files import BUSY_AFTER_S, copy_database, hold, in_sentences, make
from pushactors.stores.sqlite_sweep import sweep
from pushactors.stores.sqlite_writes import write
from pushactors.wire.ids import AppNo, Cid, Consumer, Cursor, DeviceNo, Millis, MsgId, RegistrationId

__all__ = ["SqliteStore", "copy_database"]

T = TypeVar("T")

_STATEMENTS_KEPT: Final = 512
"""Compiled: about 40 texts for batches, in 10 sizes each, and the reads."""
_OLDEST_SQLITE: Final = (3, 35, 0)
"""The first with RETURNING."""


class SqliteStore:
    """See `contract.Store`. `path` is made if it is not there; its directory must be."""

    def __init__(self, path: Path, durability: Literal["fsync", "os"] = "fsync") -> None:
        self._path = path
        self._durability = durability
        self._lock: int | None = None
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._writing = trio.CapacityLimiter(1)
        self._reading = trio.CapacityLimiter(1)
        self._epoch = 0

    async def open(self) -> Opened:
        return await trio.to_thread.run_sync(self._open, limiter=self._writing)

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._close, limiter=self._writing)

    async def commit(self, number: int, changes: Sequence[Change]) -> int:
        return await self._write(partial(self._commit, number=number, changes=changes))

    async def devices(self, app_no: AppNo, after: DeviceNo, limit: int) -> Sequence[DeviceRow]:
        return await self._read(partial(reads.devices, app_no=app_no, after=after, limit=limit))

    async def alias_mailboxes(self, app_no: AppNo, after: DeviceNo, limit: int) -> Sequence[DeviceRow]:
        return await self._read(partial(reads.alias_mailboxes, app_no=app_no, after=after, limit=limit))

    async def mailboxes(self, device_nos: Sequence[DeviceNo]) -> Mapping[DeviceNo, MailboxRow]:
        return await self._read(partial(reads.mailboxes, device_nos=device_nos))

    async def bodies(self, msg_ids: Sequence[MsgId]) -> Mapping[MsgId, bytes]:
        return await self._read(partial(reads.bodies, msg_ids=msg_ids))

    async def due(self, after: tuple[Millis, DeviceNo], until: Millis, limit: int) -> Sequence[DueRow]:
        return await self._read(partial(reads.due, after=after, until=until, limit=limit))

    async def unfinished(self, limit: int) -> Sequence[deliveries.Unfinished]:
        return await self._read(partial(deliveries.unfinished, limit=limit))

    async def stranded(self, app_no: AppNo) -> Sequence[DeviceNo]:
        return await self._read(partial(deliveries.stranded, app_no=app_no))

    async def overdue(
        self, after: tuple[Millis, DeviceNo, MsgId], until: Millis, limit: int
    ) -> Sequence[OverdueRow]:
        return await self._read(partial(deliveries.overdue, after=after, until=until, limit=limit))

    async def unsettled(
        self, app_no: AppNo, msg_id: MsgId, after: DeviceNo, limit: int
    ) -> tuple[ReportRow, Sequence[UnsettledRow]] | None:
        return await self._read(
            partial(deliveries.unsettled, app_no=app_no, msg_id=msg_id, after=after, limit=limit)
        )

    async def recipients(self, msg_id: MsgId, after: DeviceNo, limit: int) -> Sequence[DeviceNo]:
        return await self._read(partial(deliveries.recipients, msg_id=msg_id, after=after, limit=limit))

    async def had(self, device_no: DeviceNo, msg_ids: Sequence[MsgId]) -> Sequence[MsgId]:
        return await self._read(partial(deliveries.had, device_no=device_no, msg_ids=msg_ids))

    async def installed(self, app_no: AppNo, install: bytes) -> RegistrationId | None:
        return await self._read(partial(reads.installed, app_no=app_no, install=install))

    async def cids(self, app_no: AppNo, cids: Sequence[Cid], since: Millis) -> Mapping[Cid, CidRow]:
        return await self._read(partial(reads.cids, app_no=app_no, wanted=cids, since=since))

    async def reports(self, app_no: AppNo, msg_ids: Sequence[MsgId]) -> Mapping[MsgId, ReportRow]:
        return await self._read(partial(reads.reports, app_no=app_no, msg_ids=msg_ids))

    async def pushes(self, app_no: AppNo, before: MsgId | None, limit: int) -> Sequence[ReportRow]:
        return await self._read(partial(reads.pushes, app_no=app_no, before=before, limit=limit))

    async def statuses(
        self, app_no: AppNo, msg_id: MsgId, registration_ids: Sequence[RegistrationId]
    ) -> Mapping[RegistrationId, StatusRow | None] | None:
        return await self._read(
            partial(deliveries.statuses, app_no=app_no, msg_id=msg_id, registration_ids=registration_ids)
        )

    async def timeline(self, app_no: AppNo, msg_id: MsgId, device_no: DeviceNo) -> TimelineRow | None:
        return await self._read(partial(deliveries.timeline_of, app_no=app_no, msg_id=msg_id, device_no=device_no))

    async def device_no(self, app_no: AppNo, registration_id: RegistrationId) -> DeviceNo | None:
        return await self._read(partial(reads.device_no, app_no=app_no, registration_id=registration_id))

    async def receipts(self, app_no: AppNo, after: Cursor, limit: int) -> ReceiptPage:
        return await self._read(partial(receipts.receipts, app_no=app_no, after=after, limit=limit))

    async def consumers(self, app_no: AppNo) -> Mapping[Consumer, Cursor]:
        return await self._read(partial(receipts.consumers, app_no=app_no))

    async def sweep(self, now: Millis, limit: int, receipts_kept: Mapping[AppNo, int] = NO_LIMITS) -> int:
        return await self._write(partial(sweep, now=now, limit=limit, receipts_kept=receipts_kept))

    async def backup(self, target: Path) -> None:
        # On connections of its own, so that neither reads nor commits wait for it.
        await trio.to_thread.run_sync(copy_database, self._path, target)

    # --- In threads --------------------------------------------------------------------------------------------

    def _open(self) -> Opened:
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise StoreUnusable(f"SQLite {sqlite3.sqlite_version} is too old; a Python with 3.35 or newer is needed.")
        if self._path.is_dir():
            raise StoreUnusable(f"{self._path} is a directory; name a file in it.")
        if self._lock is None:
            self._lock = hold(self._path)
        try:
            make(self._path)
            with in_sentences(self._path):
                writer = self._writer = self._connect()
                bring_up(writer, str(self._path))
                if writer.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                    raise StoreUnusable(f"{self._path} lies where SQLite can keep no log beside it; name a local disk.")
                writer.execute(f"PRAGMA synchronous = {'FULL' if self._durability == 'fsync' else 'NORMAL'}")
                writer.execute("PRAGMA secure_delete = FAST")
                check_whole(writer)
                opened = self._take_over(writer)
                self._reader = self._connect()
                self._reader.execute("PRAGMA query_only = ON")
        except BaseException:
            self._close()
            raise
        self._epoch = opened.epoch
        return opened

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=BUSY_AFTER_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_STATEMENTS_KEPT,
        )
        connection.execute("PRAGMA temp_store = MEMORY")
        # A plan with an index of its own making reads a whole table; better to see a slow statement than a lucky one.
        connection.execute("PRAGMA automatic_index = OFF")
        return connection

    def _take_over(self, writer: sqlite3.Connection) -> Opened:
        with _transaction(writer, "IMMEDIATE"):
            writer.execute(
                """
                INSERT INTO owner (one, epoch, last_commit, ids_below, last_msg_id, last_device_no, secret)
                VALUES (1, 1, 0, 1, 0, 0, ?) ON CONFLICT DO UPDATE SET epoch = epoch + 1
                """,
                (secrets.token_bytes(32),),
            )
            epoch, last_commit, ids_below, last_device_no, secret = writer.execute(
                "SELECT epoch, last_commit, ids_below, last_device_no, secret FROM owner"
            ).fetchone()
            apps = dict(writer.execute("SELECT app_key, app_no FROM apps").fetchall())
        return Opened(epoch, last_commit, apps, ids_below, last_device_no, secret)

    def _close(self) -> None:
        # The last connection to close folds the log into the file; that one must be able to write.
        for connection in (self._reader, self._writer):
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()
        self._reader = self._writer = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _write(self, action: Callable[[sqlite3.Connection], T]) -> T:
        return await trio.to_thread.run_sync(self._in_transaction, "IMMEDIATE", action, limiter=self._writing)

    async def _read(self, action: Callable[[sqlite3.Connection], T]) -> T:
        return await trio.to_thread.run_sync(self._in_transaction, "DEFERRED", action, limiter=self._reading)

    def _in_transaction(self, kind: Literal["IMMEDIATE", "DEFERRED"], action: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._writer if kind == "IMMEDIATE" else self._reader
        if connection is None:
            raise StoreUnusable(f"{self._path} is not open; open it first.")
        with in_sentences(self._path), _transaction(connection, kind):
            if connection.execute("SELECT epoch FROM owner").fetchone()[0] != self._epoch:
                raise StoreFenced(f"Another process has taken {self._path} over; this one must end.")
            return action(connection)

    def _commit(self, connection: sqlite3.Connection, number: int, changes: Sequence[Change]) -> int:
        last = connection.execute("SELECT last_commit FROM owner").fetchone()[0]
        if number <= last:
            return 0
        if number != last + 1:
            raise StoreUnusable(f"{self._path} has commit {last} where {number - 1} should be; put back a copy.")
        return write(connection, number, changes)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, kind: Literal["IMMEDIATE", "DEFERRED"]) -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after a full disk and the like; a rollback that fails ends with the file.
        with contextlib.suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise

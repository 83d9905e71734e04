"""What the database file looks like, by version, and how a file is told from one that is not ours.

1. `MIGRATIONS[n]` leads from version n to n + 1, in one transaction; version 0 is an empty file. Never change one that
   was released: add one.
2. `application_id` says that a file is ours, `user_version` which version it has. A newer one is refused.
3. A delivery is in exactly one table: in `mailbox` while it is unsettled, in `deliveries` once it has its verdict.
   That is why one verdict is for ever (C1): settling moves the row, and a row that is gone cannot be moved again.
4. A push whose row is gone but whose deliveries are not yet stands in `leaving`.
5. What happened to a delivery before its verdict is in `events`, under the mailbox that has the delivery now; the
   verdict, its visit and the marks are with the delivery itself.
6. Few indexes; the large tables grow at their ends. `contents` is apart from `pushes`, which outlives it by weeks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from pushactors.domain.message import Mark, Verdict
from pushactors.errors import StoreUnusable

APPLICATION_ID: Final = 0x70757368
"""'push' in ASCII."""

VERDICT_COLUMNS: Final = {verdict: verdict.word for verdict in Verdict}
MARK_COLUMNS: Final = {mark: mark.word for mark in Mark}

_VERSION_1: Final = (
    """
    CREATE TABLE owner (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        epoch INTEGER NOT NULL,
        last_commit INTEGER NOT NULL,
        ids_below INTEGER NOT NULL,
        last_msg_id INTEGER NOT NULL,
        last_device_no INTEGER NOT NULL,
        secret BLOB NOT NULL
    )
    """,
    "CREATE TABLE apps (app_no INTEGER PRIMARY KEY, app_key TEXT NOT NULL UNIQUE)",
    # last_msg_id: of the newest push when the device was deleted; it cannot be a target of a later one.
    """
    CREATE TABLE devices (
        device_no INTEGER PRIMARY KEY,
        app_no INTEGER NOT NULL,
        registration_id TEXT NOT NULL UNIQUE,
        platform TEXT NOT NULL,
        alias TEXT,
        binding INTEGER NOT NULL,
        tags TEXT NOT NULL,
        install BLOB,
        last_seen_at INTEGER NOT NULL,
        deleted_at INTEGER,
        last_msg_id INTEGER
    )
    """,
    "CREATE INDEX devices_living ON devices (app_no) WHERE deleted_at IS NULL",
    "CREATE INDEX devices_deleted ON devices (last_msg_id) WHERE deleted_at IS NOT NULL",
    """
    CREATE UNIQUE INDEX devices_installed ON devices (app_no, install)
    WHERE deleted_at IS NULL AND install IS NOT NULL
    """,
    """
    CREATE TABLE pushes (
        msg_id INTEGER PRIMARY KEY,
        app_no INTEGER NOT NULL,
        sent_at INTEGER NOT NULL,
        expires_at INTEGER,
        overrides INTEGER,
        targets INTEGER NOT NULL,
        unsettled INTEGER NOT NULL,
        received INTEGER NOT NULL DEFAULT 0,
        missed INTEGER NOT NULL DEFAULT 0,
        expired INTEGER NOT NULL DEFAULT 0,
        replaced INTEGER NOT NULL DEFAULT 0,
        overflowed INTEGER NOT NULL DEFAULT 0,
        recalled INTEGER NOT NULL DEFAULT 0,
        fenced INTEGER NOT NULL DEFAULT 0,
        opened INTEGER NOT NULL DEFAULT 0,
        dismissed INTEGER NOT NULL DEFAULT 0,
        withdrawn INTEGER NOT NULL DEFAULT 0,
        last_event_at INTEGER NOT NULL
    )
    """,
    "CREATE INDEX pushes_of_app ON pushes (app_no)",
    "CREATE INDEX pushes_settled ON pushes (last_event_at) WHERE unsettled = 0",
    "CREATE TABLE contents (msg_id INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    """
    CREATE TABLE mailbox (
        device_no INTEGER NOT NULL,
        msg_id INTEGER NOT NULL,
        expires_at INTEGER,
        binding INTEGER,
        strike INTEGER,
        PRIMARY KEY (device_no, msg_id)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX mailbox_due ON mailbox (expires_at, device_no) WHERE expires_at IS NOT NULL",
    "CREATE INDEX mailbox_unfinished ON mailbox (msg_id) WHERE strike IS NOT NULL OR expires_at IS NULL",
    """
    CREATE TABLE deliveries (
        msg_id INTEGER NOT NULL,
        device_no INTEGER NOT NULL,
        verdict INTEGER NOT NULL,
        at INTEGER NOT NULL,
        marks INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (msg_id, device_no)
    ) WITHOUT ROWID
    """,
    "CREATE TABLE leaving (msg_id INTEGER PRIMARY KEY)",
    """
    CREATE TABLE cids (
        app_no INTEGER NOT NULL,
        cid TEXT NOT NULL,
        digest BLOB NOT NULL,
        msg_id INTEGER NOT NULL,
        sendno INTEGER,
        targets INTEGER NOT NULL,
        online INTEGER NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (app_no, cid)
    )
    """,
    "CREATE INDEX cids_by_age ON cids (at)",
)

# Receipts (C20), deadlines (C21), recalls (C22), the mailboxes of aliases, and the course of a delivery.
_VERSION_2: Final = (
    "ALTER TABLE apps ADD COLUMN last_cursor INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE devices ADD COLUMN visits INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE devices ADD COLUMN present INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE devices ADD COLUMN is_alias INTEGER NOT NULL DEFAULT 0",
    "DROP INDEX devices_living",
    "CREATE INDEX devices_living ON devices (app_no) WHERE deleted_at IS NULL AND is_alias = 0",
    "CREATE INDEX devices_of_aliases ON devices (app_no) WHERE deleted_at IS NULL AND is_alias = 1",
    "ALTER TABLE pushes ADD COLUMN stored_at INTEGER",
    # place NULL: the msg_id. Nobody knows of the rows before this version whether they were sent.
    "ALTER TABLE mailbox ADD COLUMN place INTEGER",
    "ALTER TABLE mailbox ADD COLUMN held_for TEXT",
    "ALTER TABLE mailbox ADD COLUMN deliver_by INTEGER",
    "ALTER TABLE mailbox ADD COLUMN was_sent INTEGER NOT NULL DEFAULT 1",
    "CREATE INDEX mailbox_overdue ON mailbox (deliver_by, device_no, msg_id) WHERE deliver_by IS NOT NULL",
    f"""
    CREATE INDEX mailbox_stranded ON mailbox (device_no)
    WHERE strike = {Verdict.FENCED:d} AND held_for IS NOT NULL
    """,
    "ALTER TABLE deliveries ADD COLUMN visit INTEGER",
    "ALTER TABLE deliveries ADD COLUMN sent_at INTEGER",
    *(f"ALTER TABLE deliveries ADD COLUMN {mark.word}_at INTEGER" for mark in Mark),
    """
    CREATE TABLE events (
        msg_id INTEGER NOT NULL,
        device_no INTEGER NOT NULL,
        at INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        detail INTEGER NOT NULL,
        PRIMARY KEY (msg_id, device_no, at, kind, detail)
    ) WITHOUT ROWID
    """,
    # number: of the reason, an instant or how many others, as `why` has it.
    """
    CREATE TABLE receipts (
        app_no INTEGER NOT NULL,
        cursor INTEGER NOT NULL,
        msg_id INTEGER NOT NULL,
        device_no INTEGER NOT NULL,
        event INTEGER NOT NULL,
        at INTEGER NOT NULL,
        why INTEGER,
        number INTEGER,
        PRIMARY KEY (app_no, cursor)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE consumers (
        app_no INTEGER NOT NULL,
        consumer TEXT NOT NULL,
        cursor INTEGER NOT NULL,
        PRIMARY KEY (app_no, consumer)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE notices (
        device_no INTEGER NOT NULL,
        msg_id INTEGER NOT NULL,
        until INTEGER NOT NULL,
        PRIMARY KEY (device_no, msg_id)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX notices_over ON notices (until)",
)

MIGRATIONS: Final[Sequence[Sequence[str]]] = (_VERSION_1, _VERSION_2)


def check_ours(connection: sqlite3.Connection, name: str, newest: int = len(MIGRATIONS)) -> int:
    """The version of the database. Raises `StoreUnusable` if it is not ours, or newer than `newest`."""
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if application_id != APPLICATION_ID:
        empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
        if application_id or version or not empty:
            raise StoreUnusable(f"{name} is the database of another application; name another path.")
    if version > newest:
        raise StoreUnusable(
            f"{name} was written by a newer pushactors (version {version} of its tables, this one knows {newest}); "
            "run that one, or put back a copy made before it."
        )
    return version


def bring_up(connection: sqlite3.Connection, name: str, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> None:
    """Leads the database to the newest version, step by step; a step that fails leaves the version before it."""
    for version in range(check_ours(connection, name, len(migrations)), len(migrations)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in migrations[version]:
                connection.execute(statement)
            # PRAGMA takes no parameters. Both are written to the file's header, within the transaction.
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def check_whole(connection: sqlite3.Connection) -> None:
    """Looks into every table. Raises `sqlite3.DatabaseError` where one cannot be read."""
    # No integrity check: it reads the whole file, minutes for a large one, at every start.
    for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
        connection.execute(f"SELECT * FROM {table} NOT INDEXED LIMIT 1").fetchall()

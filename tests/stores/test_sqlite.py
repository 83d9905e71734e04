"""What only a file can show; everything else about this store is in `test_contract`."""

from __future__ import annotations

import contextlib
import os
import random
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from pushactors.domain.message import Mark
from pushactors.errors import StoreBusy, StoreUnusable
from pushactors.stores import sqlite_statements
from pushactors.stores.contract import Seen
from pushactors.stores.schema import APPLICATION_ID, MIGRATIONS, bring_up
from pushactors.stores.sqlite import SqliteStore, copy_database
from pushactors.wire.ids import Cursor, DeviceNo, Millis, MsgId
from tests.stores.committing import DEVICES
from tests.stores.rows import APP, APPS, DAY, NOW, accepted, device, marked, message, registered, rid, settled
from tests.stores.walk import Walk

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(path)
    await made.open()
    yield made
    await made.aclose()


@contextlib.contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


async def made(path: Path, *changes: Any) -> None:
    """A closed store with two devices and whatever `changes` bring."""
    store = SqliteStore(path)
    await store.open()
    await store.commit(1, [*APPS, *registered(1, 2), *changes])
    await store.aclose()


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def diary(path: Path) -> None:
    path.write_text("Dear diary, " * 500)


def entries(directory: Path) -> set[Path]:
    return set(directory.iterdir())


async def refused(path: Path, words: str) -> None:
    """Opening it fails with a sentence that has these words, and the file is not touched."""
    before = content(path)
    store = SqliteStore(path)
    with pytest.raises(StoreUnusable, match=words) as caught:
        await store.open()
    assert str(caught.value).endswith(".")
    assert str(path) in str(caught.value)
    await store.aclose()
    assert content(path) == before


def child(path: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.stores.committing", str(path), *words],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# --- Files that are refused ------------------------------------------------------------------------------------


async def test_a_directory_is_refused(tmp_path: Path) -> None:
    await refused(tmp_path, "is a directory")


async def test_a_path_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing" / "store.db", tmp_path / "file" / "store.db"):
        await refused(path, "cannot be opened .* name a path")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
async def test_a_file_that_may_not_be_written_is_refused(path: Path) -> None:
    await made(path)
    os.chmod(path, 0o400)
    await refused(path, "cannot be written")


async def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    diary(path)
    await refused(path, "not a database")


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE theirs (a)", f"PRAGMA application_id = {APPLICATION_ID + 1}", "PRAGMA user_version = 1"]
)
async def test_the_database_of_another_application_is_refused(path: Path, statement: str) -> None:
    with raw(path) as theirs:
        theirs.execute(statement)
    await refused(path, "another application")


async def test_a_newer_database_is_refused(path: Path) -> None:
    await made(path)
    with raw(path) as newer:
        newer.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    await refused(path, "newer pushactors")


async def test_a_truncated_database_is_refused(path: Path) -> None:
    await made(path)
    os.truncate(path, len(content(path) or b"") // 2)
    await refused(path, "malformed.* put back a copy")


async def test_a_database_with_a_broken_table_is_refused(path: Path) -> None:
    await made(path)
    with raw(path) as broken:
        page = broken.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'deliveries'").fetchone()[0]
        size = broken.execute("PRAGMA page_size").fetchone()[0]
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    await refused(path, "malformed.* put back a copy")


async def test_a_refused_store_can_be_opened_when_the_reason_is_gone(path: Path) -> None:
    diary(path)
    store = SqliteStore(path)
    with pytest.raises(StoreUnusable):
        await store.open()
    os.unlink(path)
    assert (await store.open()).epoch == 1
    await store.aclose()


async def test_an_empty_file_becomes_a_store(path: Path) -> None:
    """As a crash right after the file was made leaves it."""
    path.open("x").close()
    await made(path)
    with raw(path) as ours:
        assert ours.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID


# --- Versions --------------------------------------------------------------------------------------------------

VERSION_NEXT = ("ALTER TABLE devices ADD COLUMN colour TEXT DEFAULT 'green'", "CREATE TABLE new (a)")


async def test_a_migration_leads_to_the_next_version_and_keeps_what_there_is(path: Path) -> None:
    await made(path)
    with raw(path) as connection:
        bring_up(connection, "it", (*MIGRATIONS, VERSION_NEXT))
        bring_up(connection, "it", (*MIGRATIONS, VERSION_NEXT))
        assert connection.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS) + 1
        assert connection.execute("SELECT device_no, colour FROM devices").fetchall() == [(1, "green"), (2, "green")]
    await refused(path, "newer pushactors")


async def test_a_migration_that_fails_leaves_the_version_before(path: Path) -> None:
    await made(path)
    with raw(path) as connection:
        with pytest.raises(sqlite3.OperationalError):
            bring_up(connection, "it", (*MIGRATIONS, (*VERSION_NEXT, "CREATE TABLE new (a)")))
        assert not connection.in_transaction
        assert connection.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)
    await made_again(path)


async def made_again(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    assert await store.devices(APP, DeviceNo(0), 10) == [device(1), device(2)]
    await store.aclose()


async def test_a_store_of_version_1_goes_on_as_one_of_the_newest(path: Path) -> None:
    """What nobody wrote down then is not known now: what waits may have been sent, and marks have no instant."""
    with raw(path) as old:
        bring_up(old, "it", MIGRATIONS[:1])
        old.execute("INSERT INTO owner VALUES (1, 1, 4, 9, 8, 2, x'00')")
        old.execute("INSERT INTO apps VALUES (1, 'app')")
        for no in (1, 2):
            row = f"{no}, 1, 'device-{no}', 'android', NULL, 0, '[]', NULL, {NOW}, NULL, NULL"
            old.execute(f"INSERT INTO devices VALUES ({row})")
        counters = "1, 0, 0, 0, 0, 0, 0, 1, 0, 1"
        old.execute(f"INSERT INTO pushes VALUES (8, 1, {NOW}, {NOW + DAY}, NULL, 2, 1, {counters}, {NOW})")
        old.execute("INSERT INTO contents VALUES (8, x'01')")
        old.execute(f"INSERT INTO mailbox VALUES (1, 8, {NOW + DAY}, NULL, NULL)")
        old.execute(f"INSERT INTO deliveries VALUES (8, 2, 1, {NOW + 5}, 5)")
    store = SqliteStore(path)
    assert (await store.open()).last_commit == 4
    assert await store.devices(APP, DeviceNo(0), 10) == [device(1), device(2)]
    (waits,) = (await store.mailboxes([DeviceNo(1)]))[DeviceNo(1)].deliveries
    assert (waits.place, waits.was_sent, waits.held_for) == (8, True, None)
    assert await store.receipts(APP, Cursor(0), 10) == ([], 0, 0)
    await store.commit(5, [settled(8, 1), marked(8, 2, Mark.DISMISSED, NOW + 9), accepted(9, 1)])
    assert [row.cursor for row in (await store.receipts(APP, Cursor(0), 10)).rows] == [1, 2]
    course = await store.timeline(APP, MsgId(8), DeviceNo(2))
    assert course is not None
    assert [(entry.word, entry.at - NOW) for entry in course.entries] == [
        ("accepted", 0),
        ("received", 5),
        ("opened", 5),
        ("withdrawn", 5),
        ("dismissed", 9),
    ]
    (waits,) = (await store.mailboxes([DeviceNo(1)]))[DeviceNo(1)].deliveries
    assert (waits.msg_id, waits.was_sent) == (9, False)
    await store.aclose()


# --- One process -----------------------------------------------------------------------------------------------


async def test_a_second_process_is_refused_while_the_first_lives(path: Path) -> None:
    with child(path, "hold") as holder:
        assert holder.stdout
        assert holder.stdin
        assert holder.stdout.readline() == "held\n"
        store = SqliteStore(path)
        with pytest.raises(StoreUnusable, match="held by another process"):
            await store.open()
        holder.kill()
        holder.wait()
        assert (await store.open()).epoch == 2
        await store.aclose()


async def test_only_the_owner_may_read_what_is_made(path: Path, tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        store = SqliteStore(path)
        await store.open()
        await store.commit(1, APPS)
        await store.backup(tmp_path / "copy.db")
        modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in entries(tmp_path)}
        await store.aclose()
    finally:
        os.umask(mask)
    assert modes == dict.fromkeys(["store.db", "store.db-wal", "store.db-shm", "store.db.lock", "copy.db"], 0o600)


@pytest.mark.parametrize(("durability", "level"), [("fsync", 2), ("os", 1)])
async def test_durability_is_what_was_asked_for(path: Path, durability: Any, level: int) -> None:
    """C2. The setting lives in the connection alone, so that is asked."""
    store = SqliteStore(path, durability)
    await store.open()
    assert store._writer is not None
    assert store._writer.execute("PRAGMA synchronous").fetchone()[0] == level
    await store.aclose()


# --- Crashes ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_what_was_told_survives_kill_9_and_no_commit_is_halved(path: Path) -> None:
    """C1, C2, law 1: in ten kills of a process that commits without a pause."""
    chance = random.Random(9)
    for _ in range(10):
        with child(path) as victim:
            assert victim.stdout
            printed = [int(victim.stdout.readline()) for _ in range(chance.randint(1, 60))]
            victim.kill()
            printed += [int(line) for line in victim.stdout if line.endswith("\n")]
        store = SqliteStore(path)
        last = (await store.open()).last_commit
        assert last >= printed[-1]
        reports = await store.reports(APP, [MsgId(no) for no in range(1, last + 2)])
        mailboxes = await store.mailboxes([DeviceNo(no) for no in DEVICES])
        assert list(await store.bodies(list(reports))) == [last]
        await store.aclose()
        assert sorted(reports) == list(range(1, last + 1))
        assert {no: row.unsettled for no, row in reports.items()} == {
            no: len(DEVICES) if no == last else 0 for no in reports
        }
        assert all(row.targets == row.unsettled + sum(row.verdicts.values()) == 20 for row in reports.values())
        assert [[row.msg_id for row in box.deliveries] for box in mailboxes.values()] == [[last]] * 20


async def test_a_full_disk_ends_the_store_in_a_sentence_and_halves_nothing(path: Path, store: SqliteStore) -> None:
    await store.commit(1, [*APPS, *registered(*range(1, 101))])
    assert store._writer is not None
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages + 20}")
    number = 1

    async def fill() -> None:
        nonlocal number
        while True:
            await store.commit(number + 1, [accepted(message(number), *range(1, 101)), settled(number - 1, 1)])
            number += 1

    with pytest.raises(StoreUnusable, match=r"full.* make room"):
        await fill()
    assert number > 2
    await store.aclose()
    again = SqliteStore(path)
    assert (await again.open()).last_commit == number
    found = await again.reports(APP, [MsgId(no) for no in range(1, number + 2)])
    assert sorted(found) == list(range(1, number))
    assert [found[MsgId(no)].unsettled for no in sorted(found)] == [99] * (number - 2) + [100]
    assert await again.commit(number + 1, [accepted(message(number), *range(1, 101))]) == 0
    await again.aclose()


async def test_a_commit_that_fails_in_the_middle_leaves_nothing(store: SqliteStore) -> None:
    """Law 1: here a fault of the caller, a number that no column can hold."""
    await store.commit(1, [*APPS, *registered(1)])
    with pytest.raises(OverflowError):
        await store.commit(2, [*registered(2), Seen(DeviceNo(1), Millis(2**70))])
    assert await store.devices(APP, DeviceNo(0), 10) == [device(1)]
    await store.commit(2, registered(3))
    assert await store.devices(APP, DeviceNo(0), 10) == [device(1), device(3)]


async def test_a_database_that_another_program_has_locked_is_busy_and_then_not(path: Path, store: SqliteStore) -> None:
    """Law 7. And law 5: reads do not wait for who writes."""
    await store.commit(1, [*APPS, *registered(1)])
    with raw(path) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy, match="locked"):
            await store.commit(2, registered(2))
        assert await store.devices(APP, DeviceNo(0), 10) == [device(1)]
        other.execute("ROLLBACK")
    assert await store.commit(2, registered(2)) == 0
    assert await store.devices(APP, DeviceNo(0), 10) == [device(1), device(2)]


async def test_a_commit_that_nobody_waits_for_any_more_is_whole(path: Path, store: SqliteStore) -> None:
    """Law 1: cancelled in the middle it has happened or not."""
    await store.commit(1, [*APPS, *registered(*DEVICES)])
    with trio.move_on_after(0):
        await store.commit(2, [accepted(1, *DEVICES)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.commit, 2, [accepted(1, *DEVICES)])
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    await store.commit(2, [accepted(1, *DEVICES)])
    assert (await store.reports(APP, [MsgId(1)]))[MsgId(1)].unsettled == len(DEVICES)


# --- Copies ----------------------------------------------------------------------------------------------------


async def test_a_copy_of_a_store_at_work_is_whole(path: Path, store: SqliteStore, tmp_path: Path) -> None:
    """Each commit takes one message from the mailbox and puts the next one in."""
    await store.commit(1, [*APPS, *registered(1), accepted(1, 1)])
    committed = 1
    done = trio.Event()

    async def commits() -> None:
        nonlocal committed
        while not done.is_set():
            await store.commit(committed + 1, [settled(committed, 1), accepted(committed + 1, 1)])
            committed += 1

    copies = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(commits)
        for no in range(6):
            at_least = committed
            copies.append((at_least, tmp_path / f"copy {no}?.db"))
            # By the store itself, and as another program does it.
            if no % 2:
                await store.backup(copies[-1][1])
            else:
                await trio.to_thread.run_sync(copied_by_another_process, path, copies[-1][1])
        done.set()
    assert committed > 6
    for at_least, copy in copies:
        restored = SqliteStore(copy)
        opened = await restored.open()
        assert opened.last_commit >= at_least
        box = (await restored.mailboxes([DeviceNo(1)]))[DeviceNo(1)]
        assert [row.msg_id for row in box.deliveries] == [opened.last_commit]
        await restored.aclose()
    assert [entry.name for entry in entries(tmp_path) if entry.name.startswith(".")] == []


def copied_by_another_process(source: Path, target: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from pushactors.stores.sqlite import copy_database;"
        "copy_database(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", script, str(source), str(target)], cwd=ROOT, check=True)


async def test_a_store_that_nobody_runs_can_be_copied(path: Path, tmp_path: Path) -> None:
    await made(path)
    copy_database(path, tmp_path / "copy.db")
    await made_again(tmp_path / "copy.db")


@pytest.mark.parametrize("kind", ["missing", "empty", "theirs", "no database", "directory"])
def test_what_is_not_ours_is_not_copied(path: Path, tmp_path: Path, kind: str) -> None:
    match kind:
        case "empty":
            path.touch()
        case "theirs":
            with raw(path) as theirs:
                theirs.execute("CREATE TABLE theirs (a)")
        case "no database":
            diary(path)
        case "directory":
            path.mkdir()
    before = entries(tmp_path)
    with pytest.raises(StoreUnusable, match=re.escape(str(path))):
        copy_database(path, tmp_path / "copy.db")
    assert entries(tmp_path) == before


async def test_a_copy_never_takes_the_place_of_another_file(path: Path, tmp_path: Path) -> None:
    await made(path)
    diary(tmp_path / "precious")
    for target in (path, tmp_path / "precious"):
        before = content(target)
        with pytest.raises(StoreUnusable, match="there already"):
            copy_database(path, target)
        assert content(target) == before
    # A link that leads nowhere seems not to be there, until the last step.
    os.symlink(tmp_path / "nowhere", tmp_path / "link")
    with pytest.raises(StoreUnusable, match="there already"):
        copy_database(path, tmp_path / "link")
    assert os.readlink(tmp_path / "link") == str(tmp_path / "nowhere")
    with pytest.raises(StoreUnusable, match="cannot be made"):
        copy_database(path, tmp_path / "missing" / "copy.db")


# --- Inside ----------------------------------------------------------------------------------------------------


async def test_settled_content_is_gone_from_the_file(path: Path) -> None:
    """Law 4: the row, and its bytes."""
    store = SqliteStore(path)
    await store.open()
    await store.commit(1, [*APPS, *registered(1, 2), accepted(1, 1), accepted(2, 1), accepted(3, 1)])
    await store.commit(2, [settled(2, 1)])
    await store.aclose()
    with raw(path) as ours:
        assert ours.execute("SELECT msg_id FROM contents").fetchall() == [(1,), (3,)]
    assert b"body 1" in (content(path) or b"")
    assert b"body 2" not in (content(path) or b"")


async def test_no_statement_reads_a_whole_large_table(path: Path, store: SqliteStore) -> None:
    """A plan that is quick on ten rows and slow on a million is found here, not on a million."""
    walk = Walk(1)
    statements: set[str] = set()
    assert store._writer is not None
    assert store._reader is not None
    for connection in (store._writer, store._reader):
        connection.set_trace_callback(statements.add)
    await store.commit(1, APPS)
    for number in range(2, 80):
        await store.commit(number, walk.commit()[0])
        everybody = [DeviceNo(no) for no in range(1, walk.next_device)]
        pushes = [MsgId(no) for no in range(1, walk.next_msg_id)]
        await store.devices(APP, DeviceNo(0), 10)
        await store.mailboxes(everybody)
        await store.bodies(pushes)
        await store.due((Millis(0), DeviceNo(0)), Millis(NOW + DAY), 10)
        await store.unfinished(10)
        await store.installed(APP, b"one")
        await store.cids(APP, ["a"], NOW)
        await store.reports(APP, pushes)
        await store.pushes(APP, None, 10)
        for msg_id in pushes:
            await store.statuses(APP, msg_id, [rid(1), rid(2)])
            await store.unsettled(APP, msg_id, DeviceNo(0), 10)
            await store.recipients(msg_id, DeviceNo(0), 10)
            await store.timeline(APP, msg_id, DeviceNo(1))
        await store.alias_mailboxes(APP, DeviceNo(0), 10)
        await store.stranded(APP)
        await store.overdue((Millis(0), DeviceNo(0), MsgId(0)), Millis(NOW + DAY), 10)
        await store.had(DeviceNo(1), pushes)
        await store.device_no(APP, rid(1))
        await store.receipts(APP, Cursor(0), 10)
        await store.consumers(APP)
        await store.sweep(Millis(NOW + number * DAY), 10, {APP: 9})
    for connection in (store._writer, store._reader):
        connection.set_trace_callback(None)
    small = "owner|apps|leaving|given|json_each|CONSTANT ROW|[0-9]+ CONSTANT ROWS"
    small += "|mailbox USING INDEX mailbox_(unfinished|stranded)"
    with raw(path) as connection:
        for statement in statements:
            if statement.lstrip().startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")):
                plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
                assert [step for step in plan if re.match(f"SCAN (?!({small}))", step)] == [], statement
    assert len(statements) > 50
    unseen = [name for name, text in texts() if not any(text in " ".join(each.split()) for each in statements)]
    assert unseen == []


def texts() -> Iterator[tuple[str, str]]:
    """Every statement that a commit is written with, but for its rows, in one line."""
    for name, given in vars(sqlite_statements).items():
        for text in given.values() if isinstance(given, dict) else [given]:
            if name.isupper() and isinstance(text, str):
                yield name, max(" ".join(text.split()).replace("?", "{rows}").split("{rows}"), key=len).strip(" )")

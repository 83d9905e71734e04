from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from pushactors import IdentityUnusable, TrayEntry
from pushactors.clients import durable, tray_journal
from pushactors.clients.tray_journal import Journal
from pushactors.clients.tray_rules import (
    Contents,
    LoggedIn,
    Mark,
    Marked,
    Put,
    Showed,
    Step,
    Told,
    TookBack,
)
from pushactors.wire.codec import DEPTH


def put(msg_id: str, alert: object = "x", **more: Any) -> Put:
    return Put(TrayEntry(msg_id=msg_id, sent_at=1, place=msg_id, notification={"alert": alert}, **more))


EVERYTHING: list[Step] = [
    put("1"),
    put("2", alias="a", has_message=True, override_msg_id="x"),
    put("3", {"deep": [1, 2.5, None, "ü"]}),
    put("4", override_msg_id="1"),
    put("5"),
    Showed(("2", "3")),
    Marked("3", Mark.OPENED),
    Marked("5", Mark.DISMISSED),
    Told(("5",)),
    TookBack("9"),
    LoggedIn("a"),
]


def reloaded(path: Path) -> Contents:
    return Journal(path).load()


def write_each(path: Path, steps: list[Step]) -> Contents:
    journal = Journal(path)
    contents = journal.load()
    for step in steps:
        journal.write([step], contents)
        contents.take(step)
    return contents


def test_what_was_written_is_there_at_the_next_start_and_the_one_after(tmp_path: Path) -> None:
    contents = write_each(tmp_path / "tray", EVERYTHING)
    assert contents.entries.keys() == {"4", "2"}
    assert reloaded(tmp_path / "tray") == contents
    assert reloaded(tmp_path / "tray") == contents


@pytest.mark.parametrize("is_rewritten", [False, True])
def test_what_left_undrawn_is_forgotten_in_the_file_too_c25(tmp_path: Path, is_rewritten: bool) -> None:
    path = tmp_path / "tray"
    write_each(path, [LoggedIn("a"), put("1", alias="a"), put("2", alias="a"), Showed(("2",)), LoggedIn("b")])
    if is_rewritten:
        reloaded(path)
    contents = write_each(path, [LoggedIn("a"), put("1", alias="a"), put("2", alias="a")])
    assert list(contents.entries) == list(reloaded(path).entries) == ["1"]


def test_the_order_of_entries_and_ids_survives(tmp_path: Path) -> None:
    contents = write_each(tmp_path / "tray", EVERYTHING)
    again = reloaded(tmp_path / "tray")
    assert list(again.entries) == list(contents.entries) == ["4", "2"]
    assert list(again.fates) == list(contents.fates)


def test_steps_that_come_together_cost_one_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "tray")
    contents = journal.load()
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", synced.append)
    journal.write(EVERYTHING, contents)
    assert len(synced) == 1


@pytest.mark.parametrize("tail", [b"{", b'{"told":{"msg_ids":["1"]}}', b"\x00" * 40, b"\xff\n", b"[]\n", b"5\n", b"\n"])
def test_what_a_crash_left_at_the_end_never_happened_and_is_in_nobodys_way(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "tray"
    write_each(path, [put("1"), Marked("1", Mark.OPENED)])
    with path.open("ab") as file:
        file.write(tail)
    contents = write_each(path, [put("2")])
    assert list(contents.debts) == ["1"]
    assert reloaded(path) == contents


def test_after_a_failed_write_nothing_is_appended_to_what_it_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tray"
    journal = Journal(path)
    contents = journal.load()

    def tear(path: Path, content: bytes) -> None:
        with path.open("ab") as file:
            file.write(content[:10])
        raise IdentityUnusable("The disk is full.")

    with monkeypatch.context() as broken:
        broken.setattr(durable, "append", tear)
        with pytest.raises(IdentityUnusable):
            journal.write([put("1")], contents)
    journal.write([put("2")], contents)
    assert list(reloaded(path).entries) == ["2"]


def test_the_file_never_grows_beyond_twice_what_it_needs_and_a_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tray_journal, "SLACK_BYTES", 2_000)
    path = tmp_path / "tray"
    journal = Journal(path)
    contents = journal.load()
    rewritten = 0
    for number in range(1, 300):
        inode = path.stat().st_ino
        steps = [put(str(number)), Showed((str(number),)), Marked(str(number), Mark.OPENED), Told((str(number),))]
        journal.write(steps, contents)
        for step in steps:
            contents.take(step)
        rewritten += path.stat().st_ino != inode
        assert path.stat().st_size <= 2 * len(orjson.dumps(contents)) + 2_500
    assert 3 < rewritten < 30
    assert reloaded(path) == contents


def test_a_notification_as_deep_as_the_wire_allows_is_read_again(tmp_path: Path) -> None:
    deep: object = "x"
    for _ in range(DEPTH):
        deep = [deep]
    contents = write_each(tmp_path / "tray", [put("1", deep)])
    assert reloaded(tmp_path / "tray") == contents
    assert reloaded(tmp_path / "tray") == contents


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"is not the file of a tray: .*\.$"),
        (b"no json\n", r"is not the file of a tray: .*\.$"),
        (b'{"version":1}', r"is not the file of a tray"),
        (b'{"version":1,"entries":[]}\n', r"is not the file of a tray: entries must be an object\.$"),
        (b'{"version":2}\n', r"is of version 2; this package reads version 1\.$"),
    ],
)
def test_a_file_that_is_not_a_tray_is_refused_and_left_alone(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "tray"
    path.write_bytes(content)
    with pytest.raises(IdentityUnusable, match=sentence):
        reloaded(path)
    assert path.read_bytes() == content


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    reloaded(tmp_path / "tray")
    assert (tmp_path / "tray").stat().st_mode & 0o777 == 0o600

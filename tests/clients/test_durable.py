from __future__ import annotations

from pathlib import Path

import pytest

from pushactors import IdentityUnusable
from pushactors.clients import durable


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    durable.replace(path, b"one")
    durable.replace(path, b"2")
    assert durable.read(path) == b"2"
    assert list(tmp_path.iterdir()) == [path]


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    durable.replace(path, b"secret")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_draft_that_a_crash_left_behind_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.with_name("file.new").write_bytes(b"much longer than what comes")
    durable.replace(path, b"one")
    assert durable.read(path) == b"one"


def test_what_is_appended_is_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    durable.replace(path, b"one")
    durable.append(path, b"two")
    assert durable.read(path) == b"onetwo"


def test_a_file_that_is_not_there_reads_as_none(tmp_path: Path) -> None:
    assert durable.read(tmp_path / "file") is None


def test_what_goes_wrong_names_the_file(tmp_path: Path) -> None:
    lost = tmp_path / "no" / "file"
    with pytest.raises(IdentityUnusable, match="no/file"):
        durable.replace(lost, b"")
    with pytest.raises(IdentityUnusable, match="no/file"):
        durable.append(lost, b"")
    with pytest.raises(IdentityUnusable, match=str(tmp_path)):
        durable.read(tmp_path)


def test_what_goes_wrong_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(IdentityUnusable, match=r"cannot be used: .*[^.]\.$"):
        durable.append(tmp_path / "file", b"")

from __future__ import annotations

from pathlib import Path

import pytest

from pushactors.clients.shown import Shown


def loaded(path: Path, remembered: int = 4) -> Shown:
    shown = Shown(path, remembered)
    shown.load()
    return shown


async def test_without_a_file_ids_are_known_as_long_as_the_object() -> None:
    shown = Shown()
    shown.load()
    await shown.add(["1", "2"])
    assert "1" in shown
    assert "3" not in shown


async def test_with_a_file_ids_are_known_to_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "shown"
    await loaded(path).add(["1", "2"])
    shown = loaded(path)
    assert "1" in shown
    assert "2" in shown


async def test_only_the_last_ids_are_remembered(tmp_path: Path) -> None:
    path = tmp_path / "shown"
    shown = loaded(path)
    for msg_id in range(10):
        await shown.add([str(msg_id)])
    for memory in (shown, loaded(path)):
        assert [msg_id for msg_id in range(10) if str(msg_id) in memory] == [6, 7, 8, 9]


async def test_the_file_never_grows_beyond_twice_what_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "shown"
    shown = loaded(path)
    for msg_id in range(100):
        await shown.add([str(msg_id)])
        assert len(path.read_bytes().splitlines()) <= 8


@pytest.mark.parametrize("tail", [b"12", b"1\x00", b"\xff\n", b"not an id\n", b"\n"])
async def test_what_a_crash_left_at_the_end_is_no_id_and_in_nobodys_way(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "shown"
    path.write_bytes(b"7\n8\n" + tail)
    shown = loaded(path)
    await shown.add(["9"])
    shown = loaded(path)
    assert [msg_id for msg_id in ("7", "8", "9") if msg_id in shown] == ["7", "8", "9"]
    assert "12" not in shown

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pushactors import IdentityUnusable, Invalid, Message, Tray, TrayEntry
from pushactors.wire.ids import Alias
from tests.clients.scripted import no_threads


def note(msg_id: str, override: str | None = None, alias: str | None = None) -> Message:
    return Message(
        msg_id=msg_id,
        sent_at=1,
        notification={"alert": msg_id},
        override_msg_id=override,
        alias=None if alias is None else Alias(alias),
    )


async def put(tray: Tray, *notes: Message) -> None:
    for each in notes:
        tray.put(each)
    await tray.commit()


def drawn(tray: Tray) -> list[str]:
    return [entry.msg_id for entry in tray.entries]


async def watch(tray: Tray, seen: list[list[str]]) -> None:
    async for entries in tray:
        seen.append([entry.msg_id + "*" * entry.is_shown for entry in entries])


async def test_a_watcher_gets_what_is_there_and_then_the_latest(autojump_clock: MockClock) -> None:
    tray, seen = Tray(), list[list[str]]()
    await put(tray, note("1"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, tray, seen)
        await wait_all_tasks_blocked()
        await put(tray, note("2"))
        await put(tray, note("3"))
        await tray.shown("1")
        await wait_all_tasks_blocked()
        await put(tray, note("3"))
        await tray.shown("1", "9")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert seen[0] == ["1"]
    assert seen[-1] == ["1*", "2", "3"]
    assert len(seen) == len({tuple(each) for each in seen})


async def test_an_empty_tray_is_seen_as_empty_once(autojump_clock: MockClock) -> None:
    tray, seen = Tray(), list[list[str]]()
    with trio.move_on_after(1):
        await watch(tray, seen)
    assert seen == [[]]


async def test_nothing_is_seen_before_the_file_is_read(tmp_path: Path) -> None:
    await put(Tray(tmp_path / "tray"), note("1"))
    tray, seen = Tray(tmp_path / "tray"), list[list[str]]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, tray, seen)
        await wait_all_tasks_blocked()
        assert (seen, tray.entries) == ([], ())
        await tray.load()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert seen == [["1"]]


async def test_what_is_seen_is_on_the_disk_c10(tmp_path: Path) -> None:
    tray = Tray(tmp_path / "tray")
    await tray.load()
    async with trio.open_nursery() as nursery:
        with no_threads():
            tray.put(note("1"))
            nursery.start_soon(tray.commit)
            await wait_all_tasks_blocked()
            assert drawn(tray) == []
    assert drawn(tray) == ["1"]
    again = Tray(tmp_path / "tray")
    await again.load()
    assert again.entries == tray.entries == (TrayEntry(msg_id="1", sent_at=1, place="1", notification={"alert": "1"}),)


async def test_what_was_opened_or_dismissed_leaves_for_good_and_is_owed(tmp_path: Path) -> None:
    tray = Tray(tmp_path / "tray")
    await put(tray, note("1"), note("2"), note("3"))
    assert await tray.open("1")
    assert await tray.dismiss("2")
    assert not await tray.open("2")
    assert not await tray.dismiss("9")
    again = Tray(tmp_path / "tray")
    for each in (tray, again):
        await each.load()
        await put(each, note("1"), note("2"))
        assert drawn(each) == ["3"]
        assert {msg_id: debt.mark for msg_id, debt in each.debts.items()} == {"1": "opened", "2": "dismissed"}
    again.told(["1"])
    await again.commit()
    third = Tray(tmp_path / "tray")
    await third.load()
    assert list(third.debts) == ["2"]


async def test_an_entry_may_be_opened_before_any_client_came(tmp_path: Path) -> None:
    await put(Tray(tmp_path / "tray"), note("1"))
    assert await Tray(tmp_path / "tray").open("1")
    await Tray(tmp_path / "tray").shown("1")


async def test_what_is_put_before_the_file_was_read_is_put_to_what_it_holds(tmp_path: Path) -> None:
    await put(Tray(tmp_path / "tray"), note("1"))
    tray = Tray(tmp_path / "tray")
    await put(tray, note("2"))
    assert drawn(tray) == ["1", "2"]


async def test_two_who_mark_the_same_entry_do_it_once(tmp_path: Path) -> None:
    tray, done = Tray(tmp_path / "tray"), dict[str, bool]()
    await put(tray, note("1"))

    async def opening() -> None:
        done["open"] = await tray.open("1")

    async def dismissing() -> None:
        done["dismiss"] = await tray.dismiss("1")

    async with trio.open_nursery() as nursery:
        with no_threads():
            nursery.start_soon(opening)
            await wait_all_tasks_blocked()
            nursery.start_soon(dismissing)
            await wait_all_tasks_blocked()
    assert done == {"open": True, "dismiss": False}


async def test_a_msg_id_is_one(autojump_clock: MockClock) -> None:
    with pytest.raises(Invalid):
        await Tray().open("five")


async def test_while_another_alias_is_wanted_what_is_for_anybody_else_is_hidden_c14(autojump_clock: MockClock) -> None:
    tray, seen, wanted = Tray(), list[list[str]](), list[str]()
    tray.fence(lambda alias: alias is None or all(each == alias for each in wanted))
    tray.log_in("a")
    await put(tray, note("1", alias="a"), note("2"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, tray, seen)
        await wait_all_tasks_blocked()
        wanted.append("b")
        tray.changed.unpark_all()
        await wait_all_tasks_blocked()
        assert not await tray.open("1")
        wanted.clear()
        tray.changed.unpark_all()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert seen == [["1", "2"], ["2"], ["1", "2"]]


async def test_when_the_account_is_another_its_entries_are_hidden_at_once_and_gone_with_the_commit_c23(
    tmp_path: Path,
) -> None:
    tray = Tray(tmp_path / "tray")
    await tray.load()
    tray.log_in("a")
    await put(tray, note("1", alias="a"), note("2"))
    tray.put(note("3", alias="a"))
    tray.log_in("b")
    assert drawn(tray) == ["2"]
    await tray.commit()
    tray.log_in("a")
    await tray.commit()
    again = Tray(tmp_path / "tray")
    await again.load()
    assert drawn(tray) == drawn(again) == ["2"]


async def test_there_and_back_again_before_it_is_on_the_disk_draws_nothing_that_is_leaving_c25(tmp_path: Path) -> None:
    tray = Tray(tmp_path / "tray")
    await tray.load()
    tray.log_in("a")
    await put(tray, note("1", alias="a"), note("2", alias="a"))
    await tray.shown("2")
    tray.log_in("b")
    tray.log_in("a")
    assert drawn(tray) == []
    # It must be put again if it comes now.
    assert not tray.knows("1")
    tray.put(note("1", alias="a"))
    tray.put(note("2", alias="a"))
    await tray.commit()
    again = Tray(tmp_path / "tray")
    await again.load()
    assert drawn(tray) == drawn(again) == ["1"]
    assert tray.is_settled("2")


async def test_what_was_displayed_before_the_account_changed_was_displayed_c10(tmp_path: Path) -> None:
    tray = Tray(tmp_path / "tray")
    await tray.load()
    tray.log_in("a")
    await put(tray, note("1", alias="a"))
    async with trio.open_nursery() as nursery:
        with no_threads():
            nursery.start_soon(tray.shown, "1")
            await wait_all_tasks_blocked()
            tray.log_in("")
    await tray.commit()
    tray.log_in("a")
    await put(tray, note("1", alias="a"))
    assert drawn(tray) == []
    assert tray.is_settled("1")


async def test_the_same_account_again_costs_nothing(tmp_path: Path) -> None:
    tray = Tray(tmp_path / "tray")
    await tray.load()
    tray.log_in(None)
    await tray.commit()
    again = Tray(tmp_path / "tray")
    await again.load()
    again.log_in(None)
    assert not again.has_posted


async def test_a_failed_write_is_a_failure_to_everybody_who_waits_for_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    tray, failures = Tray(tmp_path / "folder" / "tray"), list[IdentityUnusable]()
    await put(tray, note("1"), note("2"))
    (tmp_path / "folder").rename(tmp_path / "lost")

    async def opening(msg_id: str) -> None:
        with pytest.raises(IdentityUnusable) as caught:
            await tray.open(msg_id)
        failures.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(opening, "1")
        nursery.start_soon(opening, "2")
    assert len(failures) == 2
    assert drawn(tray) == ["1", "2"]


async def test_who_gives_up_waiting_leaves_nothing_half_done(tmp_path: Path) -> None:
    tray = Tray(tmp_path / "tray")
    await put(tray, note("1"), note("2"))
    async with trio.open_nursery() as nursery:
        with no_threads():
            nursery.start_soon(tray.open, "1")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert await tray.open("2")
    again = Tray(tmp_path / "tray")
    await again.load()
    assert drawn(again) == drawn(tray)
    assert again.debts == tray.debts

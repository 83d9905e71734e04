"""The door to an actor: who may come in, when, and what happens if it goes wrong inside."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pushactors.actors import inbox as inbox_module
from pushactors.actors.inbox import Inbox, as_owner
from pushactors.errors import ActorCrashed, Busy, Invalid


class Clerk:
    """An owner that writes down what it is handed."""

    def __init__(self) -> None:
        self.inbox = Inbox("The clerk")
        self.written: list[str] = []

    @as_owner
    def write(self, text: str, copies: int = 1) -> int:
        """Writes `text` down."""
        self.written += [text] * copies
        return len(self.written)

    @as_owner
    def stumble(self) -> None:
        raise ZeroDivisionError("over its own feet")

    @as_owner
    def refuse(self) -> None:
        raise Invalid("This cannot be written.", "text")

    @as_owner
    def pass_on(self, other: Clerk) -> None:
        other.stumble()

    async def run(self) -> None:
        self.inbox.open()
        await self.inbox.wait_closed()


@pytest.fixture
def clerk() -> Clerk:
    clerk = Clerk()
    clerk.inbox.open()
    return clerk


class Poster:
    """Posts work to an inbox, and remembers what became of each piece."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self.story: list[str] = []

    def post(self, name: str, work: Callable[[], object] = lambda: None) -> None:
        def done() -> None:
            work()
            self.story.append(f"{name} done")

        self.inbox.post(done, lambda: self.story.append(f"{name} lost"))


# --- In the turn of whoever hands it in ------------------------------------------------------------------------------


def test_work_is_done_at_once_on_the_stack_of_whoever_hands_it_in(clerk: Clerk) -> None:
    assert clerk.write("one") == 1
    assert clerk.write("two", copies=2) == 3
    assert clerk.written == ["one", "two", "two"]


def test_work_posted_to_an_open_door_is_done_before_post_returns(clerk: Clerk) -> None:
    poster = Poster(clerk.inbox)
    poster.post("letter", lambda: clerk.write("letter"))
    assert poster.story == ["letter done"]
    assert clerk.written == ["letter"]


def test_a_way_in_keeps_its_name_and_its_promise() -> None:
    assert Clerk.write.__name__ == "write"
    assert Clerk.write.__doc__ == "Writes `text` down."


# --- Before the owner has its state ----------------------------------------------------------------------------------


def test_an_owner_without_its_state_cannot_be_asked() -> None:
    clerk = Clerk()
    with pytest.raises(ActorCrashed):
        clerk.write("too early")
    assert clerk.written == []
    assert not clerk.inbox.is_closed


def test_work_posted_before_the_owner_has_its_state_is_done_in_order_when_it_has() -> None:
    clerk = Clerk()
    poster = Poster(clerk.inbox)
    for name in ("first", "second", "third"):
        poster.post(name, lambda name=name: clerk.write(name))  # type: ignore[misc]
    assert (poster.story, clerk.written) == ([], [])
    clerk.inbox.open()
    assert clerk.written == ["first", "second", "third"]
    assert poster.story == ["first done", "second done", "third done"]


def test_what_is_posted_by_kept_work_finds_the_door_open() -> None:
    clerk = Clerk()
    poster = Poster(clerk.inbox)
    poster.post("outer", lambda: poster.post("inner"))
    clerk.inbox.open()
    assert poster.story == ["inner done", "outer done"]


def test_what_is_kept_is_done_once() -> None:
    clerk = Clerk()
    poster = Poster(clerk.inbox)
    poster.post("letter")
    clerk.inbox.open()
    clerk.inbox.open()
    assert poster.story == ["letter done"]


def test_more_than_may_be_kept_is_refused_by_name_and_is_neither_done_nor_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inbox_module, "KEPT", 2)
    inbox = Inbox("Device 7")
    poster = Poster(inbox)
    poster.post("first")
    poster.post("second")
    with pytest.raises(Busy, match="Device 7"):
        poster.post("third")
    inbox.open()
    assert poster.story == ["first done", "second done"]


def test_an_open_door_refuses_nobody(monkeypatch: pytest.MonkeyPatch, clerk: Clerk) -> None:
    monkeypatch.setattr(inbox_module, "KEPT", 0)
    poster = Poster(clerk.inbox)
    poster.post("letter")
    assert poster.story == ["letter done"]


# --- Work that raises ------------------------------------------------------------------------------------------------


def test_work_that_raises_ends_the_owner_and_whoever_handed_it_in_is_told(clerk: Clerk) -> None:
    with pytest.raises(ActorCrashed) as told:
        clerk.stumble()
    assert isinstance(told.value.__cause__, ZeroDivisionError)
    assert "The clerk" in str(told.value)
    assert (clerk.inbox.is_open, clerk.inbox.is_closed) == (False, True)


def test_nothing_is_done_by_an_owner_that_has_ended(clerk: Clerk) -> None:
    with pytest.raises(ActorCrashed):
        clerk.stumble()
    with pytest.raises(ActorCrashed):
        clerk.write("too late")
    assert clerk.written == []


def test_a_refusal_is_an_answer_and_ends_nobody(clerk: Clerk) -> None:
    with pytest.raises(Invalid) as refused:
        clerk.refuse()
    assert refused.value.path == "text"
    assert clerk.write("still here") == 1


def test_the_crash_of_another_owner_is_an_answer_too(clerk: Clerk) -> None:
    other = Clerk()
    other.inbox.open()
    with pytest.raises(ActorCrashed):
        clerk.pass_on(other)
    assert other.inbox.is_closed
    assert clerk.write("still here") == 1


async def test_the_task_of_the_owner_raises_the_cause() -> None:
    clerk = Clerk()
    caught: list[Exception] = []

    async def live() -> None:
        try:
            await clerk.run()
        except ZeroDivisionError as cause:
            caught.append(cause)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live)
        await wait_all_tasks_blocked()
        with pytest.raises(ActorCrashed) as told:
            clerk.stumble()
    assert caught == [told.value.__cause__]


async def test_an_owner_that_crashed_before_its_task_began_raises_the_cause_as_well(clerk: Clerk) -> None:
    with pytest.raises(ActorCrashed):
        clerk.stumble()
    with trio.fail_after(1), pytest.raises(ZeroDivisionError):
        await clerk.run()
    assert not clerk.inbox.is_open


def test_the_first_cause_counts() -> None:
    inbox = Inbox("Device 7")
    inbox.crash(ZeroDivisionError())
    inbox.crash(KeyError())

    with pytest.raises(ZeroDivisionError):
        trio.run(inbox.wait_closed)


def test_work_that_crashes_the_owner_is_lost_to_whoever_posted_it(clerk: Clerk) -> None:
    poster = Poster(clerk.inbox)
    poster.post("stone", clerk.stumble)
    assert poster.story == ["stone lost"]


def test_kept_work_that_crashes_the_owner_loses_what_is_kept_behind_it() -> None:
    clerk = Clerk()
    poster = Poster(clerk.inbox)
    poster.post("letter", lambda: clerk.write("letter"))
    poster.post("stone", clerk.stumble)
    poster.post("card", lambda: clerk.write("card"))
    clerk.inbox.open()
    assert poster.story == ["letter done", "stone lost", "card lost"]
    assert clerk.written == ["letter"]


def test_kept_work_that_is_refused_loses_nothing_that_is_kept_behind_it() -> None:
    # Law 4: a closed door answers everything; so must one that opens, whatever a piece of work raises.
    clerk = Clerk()
    poster = Poster(clerk.inbox)
    poster.post("blot", clerk.refuse)
    poster.post("letter", lambda: clerk.write("letter"))
    try:
        clerk.inbox.open()
    except Invalid:
        clerk.inbox.close()
    assert [entry for entry in poster.story if entry.startswith("letter")] != []


def test_kept_work_that_fails_before_it_reaches_the_owner_ends_the_owner_too() -> None:
    clerk = Clerk()
    poster = Poster(clerk.inbox)

    def fail() -> None:
        raise ZeroDivisionError

    poster.post("stone", fail)
    poster.post("letter")
    clerk.inbox.open()
    assert poster.story == ["stone lost", "letter lost"]
    with pytest.raises(ZeroDivisionError):
        trio.run(clerk.inbox.wait_closed)


# --- A closed door ---------------------------------------------------------------------------------------------------


def test_a_door_closed_in_peace_tells_what_was_kept_that_it_is_lost() -> None:
    inbox = Inbox("Device 7")
    poster = Poster(inbox)
    poster.post("first")
    poster.post("second")
    inbox.close()
    assert poster.story == ["first lost", "second lost"]


def test_work_posted_to_a_closed_door_is_lost_at_once() -> None:
    inbox = Inbox("Device 7")
    inbox.close()
    poster = Poster(inbox)
    poster.post("letter")
    assert poster.story == ["letter lost"]


def test_a_closed_door_is_not_opened_again() -> None:
    inbox = Inbox("Device 7")
    inbox.close()
    inbox.open()
    assert (inbox.is_open, inbox.is_closed) == (False, True)


def test_a_door_is_closed_once() -> None:
    inbox = Inbox("Device 7")
    poster = Poster(inbox)
    poster.post("letter")
    inbox.close()
    inbox.close()
    assert poster.story == ["letter lost"]


async def test_the_task_of_an_owner_that_is_closed_in_peace_returns() -> None:
    clerk = Clerk()
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clerk.run)
            await wait_all_tasks_blocked()
            clerk.inbox.close()


async def test_waiting_for_a_door_that_is_closed_already_does_not_wait() -> None:
    inbox = Inbox("Device 7")
    inbox.close()
    with trio.fail_after(1):
        await inbox.wait_closed()


@pytest.mark.parametrize("is_opened", [True, False])
async def test_everybody_who_waits_for_a_door_goes_on_when_it_opens_or_is_closed_for_good(is_opened: bool) -> None:
    inbox = Inbox("Device 7")
    gone_on: list[bool] = []

    async def wait() -> None:
        await inbox.wait_open()
        gone_on.append(inbox.is_open)

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            assert gone_on == []
            if is_opened:
                inbox.open()
            else:
                inbox.close()
        await wait()
    assert gone_on == [is_opened] * 3


async def test_an_owner_that_was_waited_for_is_still_noticed_when_it_ends() -> None:
    """The same door is waited for twice: until it opens, and until it closes."""
    clerk = Clerk()
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clerk.inbox.wait_open)
            await wait_all_tasks_blocked()
            nursery.start_soon(clerk.run)
            await wait_all_tasks_blocked()
            clerk.inbox.close()

"""A stream of receipts: what it asks for, hands out and acknowledges, and how it ends (C20)."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pushactors import (
    Closed,
    ConnectionLost,
    CursorGone,
    Disconnected,
    Invalid,
    ProtocolBroken,
    PushactorsError,
    RateLimited,
    Receipt,
    ReceiptsMissing,
    ReceiptStream,
    StreamDisplaced,
    Subscribed,
    Unauthorized,
    UnknownMethod,
)
from pushactors.clients.link import CLOSE_LIMIT_S
from pushactors.clients.receipts import BUNDLE, OUTSTANDING, Course
from pushactors.domain.receipts import Progress
from pushactors.errors import InternalError
from pushactors.wire.answers import ReceiptsNote
from pushactors.wire.ids import Cursor
from pushactors.wire.jsonrpc import Request, note_frame, result_frame
from tests.clients.scripted import PATIENCE_S, ScriptedServer, Visit
from tests.clients.scripted_client import APP_URL, app_client


def event(cursor: int, **more: object) -> dict[str, object]:
    return {"cursor": str(cursor), "msg_id": "5", "event": "received", "at": 9, "registration_id": "r", **more}


def receipt(cursor: int) -> Receipt:
    return Receipt(cursor=str(cursor), msg_id="5", event="received", at=9, registration_id="r")


def frame(first: int, last: int) -> dict[str, object]:
    return {"events": [event(cursor) for cursor in range(first, last + 1)], "cursor": str(last)}


class Subscription:
    """The server's side of a stream, one connection after the other. Acknowledgements are answered while `answers`."""

    def __init__(self, server: ScriptedServer, nursery: trio.Nursery) -> None:
        self.acks: list[int] = []
        self.answers = trio.Event()
        self.answers.set()
        self.visit: Visit
        self.asked: list[dict[str, object]] = []
        self._server = server
        self._nursery = nursery

    async def begin(self, cursor: int | PushactorsError, *frames: bytes) -> None:
        """Accepts the next connection, and answers its subscription, with `frames` in the same breath."""
        self.visit = await self._server.visit()
        request = await self.visit.hear_request("receipts.subscribe")
        self.asked.append(request.params)
        if isinstance(cursor, PushactorsError):
            await self.visit.refuse(request, cursor)
            return
        await self.visit.say_at_once(result_frame(request.id, {"cursor": str(cursor)}), *frames)
        self._nursery.start_soon(self._hear, self.visit)

    async def _hear(self, visit: Visit) -> None:
        try:
            while True:
                ack = await visit.hear_request("receipts.ack")
                self.acks.append(int(str(ack.params["cursor"])))
                await self.answers.wait()
                await visit.answer(ack, None)
        except Exception:
            # The connection has ended, on purpose or not: the tests look at what was heard.
            return

    async def send(self, first: int, last: int) -> None:
        await self.visit.tell("receipts", frame(first, last))
        await wait_all_tasks_blocked()

    async def end(self, reason: str) -> None:
        await self.visit.tell("receipts.ended", {"reason": reason})
        await wait_all_tasks_blocked()


@pytest.fixture
def subscription(server: ScriptedServer, nursery: trio.Nursery) -> Subscription:
    return Subscription(server, nursery)


@asynccontextmanager
async def following(
    server: ScriptedServer, subscription: Subscription, cursor: int = 0, consumer: str | None = "c", **options: Any
) -> AsyncIterator[ReceiptStream]:
    stream = app_client(server).receipts(consumer, **options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(subscription.begin, cursor)
        async with stream:
            yield stream


async def taken(stream: ReceiptStream, count: int) -> list[int]:
    """The cursors of so many receipts; the last one is still in hand."""
    with trio.fail_after(PATIENCE_S):
        return [int((await anext(stream)).cursor) for _ in range(count)]


async def come_back(stream: ReceiptStream) -> None:
    """The application asks for the next receipt, which does not come."""
    with trio.move_on_after(1) as scope:
        await anext(stream)
    assert scope.cancelled_caught


# --- Where it begins ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "params", "cursor"),
    [
        ({"consumer": "billing"}, {"consumer": "billing"}, 17),
        ({"consumer": None, "after": "0"}, {"after": "0"}, 0),
        ({"consumer": None, "after": "17"}, {"after": "17"}, 17),
        ({"consumer": "billing", "after": "17"}, {"consumer": "billing", "after": "17"}, 17),
    ],
)
async def test_a_stream_subscribes_by_name_or_from_a_place(
    server: ScriptedServer,
    subscription: Subscription,
    autojump_clock: MockClock,
    arguments: dict[str, Any],
    params: dict[str, object],
    cursor: int,
) -> None:
    async with following(server, subscription, cursor, **arguments) as stream:
        assert subscription.asked == [params]
        assert stream.cursor == str(cursor)


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({}, "consumer"),
        ({"consumer": ""}, "consumer"),
        ({"consumer": "c", "after": "-1"}, "after"),
        ({"after": "now"}, "after"),
    ],
)
async def test_a_stream_that_does_not_know_where_to_begin_is_not_made(
    server: ScriptedServer, arguments: dict[str, Any], path: str
) -> None:
    with pytest.raises(Invalid) as caught:
        app_client(server).receipts(**arguments)
    assert caught.value.path == path


async def test_a_stream_has_a_connection_of_its_own(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async def answer(visit: Visit) -> None:
        await visit.answer(await visit.hear_request("tags.list"), {"tags": ["a"]})

    async with app_client(server) as app:
        requests = await server.visit()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(subscription.begin, 0)
            async with app.receipts("c") as stream:
                nursery.start_soon(answer, requests)
                assert await app.tags() == ("a",)
                await subscription.send(1, 1)
                assert await taken(stream, 1) == [1]
        assert subscription.visit.headers[b"authorization"] == requests.headers[b"authorization"]
        assert subscription.visit.path == "/app"


async def test_what_comes_with_the_answer_is_handed_out(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(subscription.begin, 4, note_frame("receipts", frame(5, 6)))
        async with app_client(server).receipts("c") as stream:
            assert stream.cursor in ("4", "5")
            assert await taken(stream, 2) == [5, 6]


@pytest.mark.parametrize(
    "refusal", [CursorGone("gone", "17"), Unauthorized("no"), UnknownMethod("no"), Invalid("no", "after")], ids=repr
)
async def test_a_subscription_that_is_refused_is_raised_by_name(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock, refusal: PushactorsError
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(subscription.begin, refusal)
        with pytest.raises(type(refusal)) as caught:
            async with app_client(server).receipts(after="3"):
                pytest.fail("the block was entered")
    assert vars(caught.value) == vars(refusal)
    await trio.sleep(1000)
    assert len(server.tries) == 1


async def test_a_wrong_secret_is_unauthorized(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async def reject() -> None:
        await (await server.knock()).reject(401, body=b"no")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reject)
        with pytest.raises(Unauthorized):
            async with app_client(server).receipts("c"):
                pytest.fail("the block was entered")


@pytest.mark.parametrize("refusal", [RateLimited("slowly", 17), InternalError("ours")], ids=repr)
async def test_a_busy_server_is_asked_again(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock, refusal: PushactorsError
) -> None:
    async def serve() -> None:
        await subscription.begin(refusal)
        await subscription.begin(0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with app_client(server).receipts("c"):
            assert subscription.asked == [{"consumer": "c"}] * 2


async def test_a_server_that_is_not_there_is_said_so_with_what_is_in_the_way(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    server.is_down = True
    with pytest.raises(Disconnected, match=rf"no connection to {APP_URL} for 7 s: nobody listens\."):
        async with app_client(server, timeout_s=7).receipts("c"):
            pytest.fail("the block was entered")
    tries = len(server.tries)
    await trio.sleep(1000)
    assert len(server.tries) == tries


# --- What it hands out -------------------------------------------------------------------------------------------


async def test_receipts_come_in_their_order(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async with following(server, subscription, 6) as stream:
        await subscription.send(7, 9)
        await subscription.send(10, 10)
        assert [await anext(stream) for _ in range(4)] == [receipt(cursor) for cursor in range(7, 11)]
        assert stream.cursor == "10"


async def test_a_loop_is_woken_by_what_comes(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    seen: list[str] = []

    async def loop(stream: ReceiptStream) -> None:
        async for each in stream:
            seen.append(each.cursor)

    async with following(server, subscription) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(loop, stream)
        await subscription.send(1, 2)
        assert seen == ["1", "2"]
        await subscription.send(3, 3)
        assert seen == ["1", "2", "3"]
        nursery.cancel_scope.cancel()


async def test_who_gives_up_waiting_misses_nothing(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async with following(server, subscription) as stream:
        await come_back(stream)
        await subscription.send(1, 2)
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(stream)
        assert await taken(stream, 2) == [1, 2]


async def test_one_task_waits_at_a_time(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async with following(server, subscription) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(stream.__anext__)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await anext(stream)
        nursery.cancel_scope.cancel()


# --- What it acknowledges ----------------------------------------------------------------------------------------


async def test_a_frame_is_acknowledged_when_the_application_has_come_back_for_its_last_receipt(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async with following(server, subscription) as stream:
        await subscription.send(1, 3)
        await subscription.send(4, 5)
        await taken(stream, 3)
        await wait_all_tasks_blocked()
        assert subscription.acks == []
        await taken(stream, 1)
        await wait_all_tasks_blocked()
        assert subscription.acks == [3]
        await taken(stream, 1)
        await wait_all_tasks_blocked()
        assert subscription.acks == [3]
        await come_back(stream)
        assert subscription.acks == [3, 5]


def test_of_a_large_frame_what_is_done_with_is_acknowledged_in_bundles() -> None:
    """C20: who is slow over it, and dies, does not begin it again and again."""
    course = Course(0, takes_by_itself=True)
    course.begin(0)
    events = tuple(Receipt(cursor=str(n), msg_id="1", event="received", at=1) for n in range(1, 101))
    course.arrive(ReceiptsNote(events, "100"))
    told = []
    while course.hand_out() is not None:
        course.come_back()
        if (cursor := course.due()) is not None:
            course.tell(cursor)
            told.append(cursor)
    assert told == [*range(BUNDLE, 100, BUNDLE), 100]


async def test_what_is_taken_while_an_acknowledgement_is_on_its_way_is_the_next_bundle(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    subscription.answers = trio.Event()
    async with following(server, subscription) as stream:
        for cursor in range(1, 7):
            await subscription.send(cursor, cursor)
        await taken(stream, 2)
        await wait_all_tasks_blocked()
        await taken(stream, 4)
        await come_back(stream)
        assert subscription.acks == [1]
        subscription.answers.set()
        await wait_all_tasks_blocked()
        assert subscription.acks == [1, 6]


async def test_an_application_that_does_not_come_back_acknowledges_nothing(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async with following(server, subscription) as stream:
        for cursor in range(1, OUTSTANDING + 1):
            await subscription.send(cursor, cursor)
        await taken(stream, 1)
        await trio.sleep(1000)
        assert subscription.acks == []
        assert await taken(stream, OUTSTANDING - 1) == list(range(2, OUTSTANDING + 1))


async def test_a_server_that_does_not_wait_for_acknowledgements_breaks_the_protocol(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async with following(server, subscription) as stream:
        for cursor in range(1, OUTSTANDING + 1):
            await subscription.send(cursor, cursor)
        # One is acknowledged, so one more is welcome.
        await taken(stream, 2)
        await wait_all_tasks_blocked()
        await subscription.send(OUTSTANDING + 1, OUTSTANDING + 1)
        assert await taken(stream, 1) == [3]
        await wait_all_tasks_blocked()
        await subscription.send(OUTSTANDING + 2, OUTSTANDING + 2)
        await subscription.send(OUTSTANDING + 3, OUTSTANDING + 3)
        with pytest.raises(ProtocolBroken, match="more than 8 frames"):
            await taken(stream, 100)


async def test_explicitly_a_receipt_is_acknowledged_when_the_application_says_so(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async with following(server, subscription, auto_acknowledge=False) as stream:
        await subscription.send(1, 3)
        first = await anext(stream)
        await taken(stream, 2)
        await come_back(stream)
        assert subscription.acks == []
        await stream.acknowledge(first)
        assert subscription.acks == [1]
        await stream.acknowledge(first)
        assert subscription.acks == [1]
        with pytest.raises(Invalid, match="has not handed that receipt out"):
            await stream.acknowledge(receipt(4))
    assert subscription.acks == [1]


async def test_an_earlier_acknowledgement_takes_nothing_from_a_later_one(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async with following(server, subscription, auto_acknowledge=False) as stream:
        await subscription.send(1, 4)
        await taken(stream, 3)
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                # The same from behind: nobody promises in which order they begin.
                for cursor in (1, 3, 1):
                    nursery.start_soon(stream.acknowledge, receipt(cursor))
    assert subscription.acks[-1] == 3


async def test_an_acknowledgement_returns_when_the_server_has_it(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    subscription.answers = trio.Event()
    async with following(server, subscription) as stream:
        await subscription.send(1, 3)
        await taken(stream, 1)
        second = await anext(stream)
        with trio.move_on_after(1000) as scope:
            await stream.acknowledge(second)
        assert scope.cancelled_caught
        assert subscription.acks == [2]
        subscription.answers.set()
        await stream.acknowledge(second)
        assert subscription.acks == [2]
        assert await taken(stream, 1) == [3]


@pytest.mark.parametrize(("refusal", "wait_s"), [(RateLimited("slowly", 17), 17), (InternalError("ours"), 1)])
async def test_an_acknowledgement_that_a_busy_server_did_not_take_is_made_again(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock, refusal: PushactorsError, wait_s: float
) -> None:
    async def serve() -> None:
        visit = await server.visit()
        await visit.answer(await visit.hear_request("receipts.subscribe"), {"cursor": "0"})
        await visit.tell("receipts", frame(1, 1))
        refused = await visit.hear_request("receipts.ack")
        await visit.refuse(refused, refusal)
        began_at = trio.current_time()
        again = await visit.hear_request("receipts.ack")
        assert trio.current_time() - began_at == pytest.approx(wait_s)
        assert again.params == refused.params == {"cursor": "1"}
        await visit.answer(again, None)

    nursery.start_soon(serve)
    async with app_client(server).receipts("c") as stream:
        await stream.acknowledge(await anext(stream))


async def test_an_acknowledgement_that_is_refused_for_good_ends_the_stream(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        visit = await server.visit()
        await visit.answer(await visit.hear_request("receipts.subscribe"), {"cursor": "0"})
        await visit.tell("receipts", frame(1, 1))
        await visit.refuse(await visit.hear_request("receipts.ack"), Invalid("no", "cursor"))

    nursery.start_soon(serve)
    async with app_client(server).receipts("c") as stream:
        with pytest.raises(Invalid):
            await taken(stream, 2)


@pytest.mark.parametrize("comes_first", [True, False])
async def test_an_acknowledgement_that_crosses_the_end_of_the_subscription_does_not_hide_how_it_ended(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock, comes_first: bool
) -> None:
    async def serve() -> None:
        visit = await server.visit()
        await visit.answer(await visit.hear_request("receipts.subscribe"), {"cursor": "0"})
        await visit.tell("receipts", frame(1, 1))
        ack = await visit.hear_request("receipts.ack")
        if comes_first:
            await visit.tell("receipts.ended", {"reason": "displaced"})
        await visit.refuse(ack, Invalid("There is no subscription.", ""))
        await trio.sleep(0.5)
        if not comes_first:
            await visit.tell("receipts.ended", {"reason": "displaced"})

    nursery.start_soon(serve)
    async with app_client(server).receipts("c") as stream:
        with pytest.raises(StreamDisplaced):
            await taken(stream, 2)


async def test_an_acknowledgement_that_crosses_a_cut_is_followed_by_what_was_cut(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        visit = await server.visit()
        await visit.answer(await visit.hear_request("receipts.subscribe"), {"cursor": "0"})
        await visit.tell("receipts", frame(1, 1))
        await visit.refuse(await visit.hear_request("receipts.ack"), Invalid("There is no subscription.", ""))
        await visit.tell("receipts.ended", {"reason": "cursor_gone"})
        visit = await server.visit()
        await visit.refuse(await visit.hear_request("receipts.subscribe"), CursorGone("Too old.", "900"))

    nursery.start_soon(serve)
    async with app_client(server).receipts("c") as stream:
        with pytest.raises(CursorGone) as caught:
            await taken(stream, 2)
        assert caught.value.oldest == "900"


# --- How it survives ---------------------------------------------------------------------------------------------


async def test_a_consumer_goes_on_behind_what_it_acknowledged_and_sees_nothing_twice(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async with following(server, subscription) as stream:
        await subscription.send(1, 2)
        await subscription.send(3, 6)
        assert await taken(stream, 4) == [1, 2, 3, 4]
        await wait_all_tasks_blocked()
        assert subscription.acks == [2]
        await subscription.visit.vanish()
        await subscription.begin(2)
        assert subscription.asked == [{"consumer": "c"}] * 2
        await subscription.send(3, 3)
        await subscription.send(4, 5)
        await subscription.send(6, 7)
        # What was taken before is known to be so, in whatever frames it comes again.
        assert subscription.acks == [2, 3]
        assert await taken(stream, 3) == [5, 6, 7]
        await come_back(stream)
        assert subscription.acks[-1] == 7


async def test_what_lies_here_is_handed_out_while_the_connection_is_away(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async with following(server, subscription) as stream:
        await subscription.send(1, 4)
        await subscription.visit.vanish()
        assert await taken(stream, 2) == [1, 2]
        await subscription.begin(0)
        await subscription.send(1, 5)
        assert await taken(stream, 3) == [3, 4, 5]
        await come_back(stream)
        assert subscription.acks == [5]


async def test_without_a_consumer_a_stream_goes_on_behind_what_it_handed_out(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async with following(server, subscription, 17, consumer=None, after="17") as stream:
        await subscription.visit.vanish()
        await subscription.begin(17)
        await subscription.send(18, 20)
        assert await taken(stream, 2) == [18, 19]
        await subscription.visit.vanish()
        await subscription.begin(19)
        await subscription.send(20, 20)
        assert await taken(stream, 1) == [20]
        await come_back(stream)
    assert subscription.asked == [{"after": "17"}, {"after": "17"}, {"after": "19"}]
    assert subscription.acks == [20]


async def test_a_consumer_is_moved_until_that_is_confirmed_and_not_again(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async def lose_then_begin() -> None:
        visit = await server.visit()
        subscription.asked.append((await visit.hear_request("receipts.subscribe")).params)
        await visit.vanish()
        await subscription.begin(4)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lose_then_begin)
        async with app_client(server).receipts("c", "4") as stream:
            await subscription.visit.vanish()
            await subscription.begin(4)
            await subscription.send(5, 5)
            assert await taken(stream, 1) == [5]
    moved = {"consumer": "c", "after": "4"}
    assert subscription.asked == [moved, moved, {"consumer": "c"}]


async def test_an_explicit_acknowledgement_outlives_the_connection(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    subscription.answers = trio.Event()
    async with following(server, subscription, auto_acknowledge=False) as stream:
        await subscription.send(1, 4)
        await taken(stream, 3)
        third = receipt(3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.acknowledge, third)
            await wait_all_tasks_blocked()
            assert subscription.acks == [3]
            await subscription.visit.vanish()
            subscription.answers.set()
            # It was not stored. The server takes no acknowledgement of what it has not sent on this connection.
            await subscription.begin(0)
            await wait_all_tasks_blocked()
            assert subscription.acks == [3]
            await subscription.send(1, 2)
            assert subscription.acks == [3, 2]
            await subscription.send(3, 5)
            assert subscription.acks == [3, 2, 3]


async def test_an_acknowledgement_that_was_stored_and_not_answered_is_known_by_the_next_subscription(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    subscription.answers = trio.Event()
    async with following(server, subscription, auto_acknowledge=False) as stream:
        await subscription.send(1, 4)
        await taken(stream, 3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.acknowledge, receipt(3))
            await wait_all_tasks_blocked()
            await subscription.visit.vanish()
            await subscription.begin(3)
    assert subscription.acks == [3]


async def test_events_tell_of_subscriptions_and_lost_connections(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    events: list[object] = []
    async with following(server, subscription, 3, on_event=events.append):
        await subscription.visit.close(4000, "drain")
        await subscription.begin(3)
        await wait_all_tasks_blocked()
    again = events[1]
    assert isinstance(again, ConnectionLost)
    assert (again.reason, again.code) == ("drain", 4000)
    assert again.retry_after_s is not None
    assert (events[0], events[2]) == (Subscribed("3"), Subscribed("3"))


# --- How it ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "after", "found"),
    [
        ([frame(6, 6)], "4", "6"),
        ([{"events": [event(5), event(7)], "cursor": "7"}], "5", "7"),
        ([frame(5, 6), frame(8, 9)], "6", "8"),
    ],
)
async def test_a_cursor_that_is_left_out_ends_the_stream_by_name(
    server: ScriptedServer,
    subscription: Subscription,
    autojump_clock: MockClock,
    frames: list[dict[str, object]],
    after: str,
    found: str,
) -> None:
    async with following(server, subscription, 4) as stream:
        for each in frames:
            await subscription.visit.tell("receipts", each)
        await wait_all_tasks_blocked()
        for _ in range(2):
            with pytest.raises(ReceiptsMissing) as caught:
                await anext(stream)
            assert (caught.value.after, caught.value.found) == (after, found)
    await trio.sleep(1000)
    assert len(server.tries) == 1


async def test_a_consumer_that_somebody_else_moved_on_is_a_gap(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async with following(server, subscription, 4) as stream:
        await subscription.send(5, 6)
        assert await taken(stream, 1) == [5]
        await subscription.visit.vanish()
        await subscription.begin(6, note_frame("receipts", frame(7, 8)))
        with pytest.raises(ReceiptsMissing) as caught:
            await anext(stream)
        assert (caught.value.after, caught.value.found) == ("5", "7")
        assert stream.cursor == "5"


async def test_receipts_that_come_again_on_one_subscription_are_passed_over(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async with following(server, subscription) as stream:
        await subscription.send(1, 3)
        await subscription.send(2, 4)
        await subscription.send(5, 5)
        assert await taken(stream, 5) == [1, 2, 3, 4, 5]


async def test_a_newer_subscription_of_the_same_consumer_ends_the_stream_at_once(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async with following(server, subscription) as stream:
        await subscription.send(1, 3)
        assert await taken(stream, 1) == [1]
        await subscription.end("displaced")
        # 2 and 3 are the other one's now.
        for _ in range(2):
            with pytest.raises(StreamDisplaced, match="consumer c"):
                await anext(stream)
        with pytest.raises(StreamDisplaced):
            await stream.acknowledge(receipt(1))
    await trio.sleep(1000)
    assert len(server.tries) == 1


async def test_displaced_with_the_answer_to_the_subscription_it_is_displaced(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    ended = note_frame("receipts.ended", {"reason": "displaced"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(subscription.begin, 0, note_frame("receipts", frame(1, 1)), ended)
        with pytest.raises(StreamDisplaced):
            async with app_client(server).receipts("c") as stream:
                await anext(stream)
    assert len(server.tries) == 1


async def test_a_subscription_that_ended_for_another_reason_is_made_anew_or_refused_by_name(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async with following(server, subscription) as stream:
        await subscription.end("restarted")
        await subscription.begin(0)
        await subscription.send(1, 1)
        assert await taken(stream, 1) == [1]
        await subscription.end("cut_off")
        await subscription.begin(CursorGone("Too old.", "900"))
        with pytest.raises(CursorGone) as caught:
            await anext(stream)
        assert caught.value.oldest == "900"


@pytest.mark.parametrize(
    "note",
    [
        {"events": [], "cursor": "1"},
        {"events": [event(1)], "cursor": "2"},
        {"events": [event(1)]},
        {"events": [{**event(1), "cursor": "first"}], "cursor": "first"},
        {"events": [{**event(1), "cursor": 1}], "cursor": "1"},
        {"events": [{**event(1), "at": None}], "cursor": "1"},
        {"events": {}, "cursor": "1"},
        {},
    ],
    ids=repr,
)
async def test_receipts_that_cannot_be_understood_end_the_stream_by_name(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock, note: dict[str, object]
) -> None:
    async with following(server, subscription) as stream:
        await subscription.visit.tell("receipts", note)
        with pytest.raises(ProtocolBroken, match="receipts"):
            await anext(stream)


async def test_receipts_in_front_of_the_answer_break_the_protocol(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        visit = await server.visit()
        await visit.tell("receipts", frame(1, 1))

    nursery.start_soon(serve)
    with pytest.raises(ProtocolBroken, match="before the answer"):
        async with app_client(server).receipts("c"):
            pytest.fail("the block was entered")


async def test_what_a_later_server_says_beside_is_passed_over(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async with following(server, subscription) as stream:
        await subscription.visit.tell("receipts.weather", {"rain": True})
        await subscription.visit.tell("receipts", {"events": [event(1, colour="red")], "cursor": "1", "more": 5})
        assert await anext(stream) == receipt(1)


async def test_a_server_that_says_not_to_come_back_ends_the_stream_by_name(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async with following(server, subscription) as stream:
        await subscription.visit.close(4501)
        with pytest.raises(Unauthorized):
            await anext(stream)


async def test_leaving_the_block_tells_what_was_taken_and_not_what_is_in_hand(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async with following(server, subscription) as stream:
        await subscription.send(1, 5)
        await taken(stream, 3)
    assert subscription.acks == [2]
    with pytest.raises(Closed):
        await anext(stream)


async def test_an_error_of_the_application_comes_out_as_it_is_and_what_was_taken_is_told(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    stream = app_client(server).receipts("c")

    async def work() -> None:
        async with stream:
            await subscription.send(1, 5)
            await taken(stream, 3)
            raise LookupError("mine")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(subscription.begin, 0)
        with pytest.raises(LookupError, match="mine"):
            await work()
    assert subscription.acks == [2]


async def test_leaving_the_block_waits_until_the_server_has_what_was_taken(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    subscription.answers = trio.Event()

    async def answer_later() -> None:
        await trio.sleep(2)
        subscription.answers.set()

    async with trio.open_nursery() as nursery:
        async with following(server, subscription) as stream:
            await subscription.send(1, 2)
            await taken(stream, 2)
            await come_back(stream)
            assert subscription.acks == [2]
            nursery.start_soon(answer_later)
            began_at = trio.current_time()
        assert trio.current_time() - began_at == pytest.approx(2)


async def test_a_stream_that_was_cancelled_is_closed_too(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    with trio.CancelScope() as scope:
        async with following(server, subscription) as stream:
            scope.cancel()
            await anext(stream)
    with trio.fail_after(PATIENCE_S), pytest.raises(Closed):
        await anext(stream)


async def test_a_server_that_does_not_answer_keeps_nobody_in_the_block_for_long(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    subscription.answers = trio.Event()
    async with following(server, subscription) as stream:
        await subscription.send(1, 5)
        await taken(stream, 3)
        began_at = trio.current_time()
    assert trio.current_time() - began_at <= 2 * CLOSE_LIMIT_S


async def test_a_connection_that_is_away_keeps_nobody_in_the_block(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    async with following(server, subscription) as stream:
        await subscription.send(1, 5)
        await taken(stream, 3)
        server.is_down = True
        await subscription.visit.vanish()
        await wait_all_tasks_blocked()
        began_at = trio.current_time()
    assert trio.current_time() == began_at
    assert subscription.acks == []


async def test_whoever_is_cancelled_leaves_at_once(
    server: ScriptedServer, subscription: Subscription, autojump_clock: MockClock
) -> None:
    with trio.move_on_after(10) as scope:
        async with following(server, subscription) as stream:
            await subscription.send(1, 2)
            await taken(stream, 3)
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(10)


async def test_whoever_is_cancelled_while_it_subscribes_leaves_at_once(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    with trio.move_on_after(1) as scope:
        async with app_client(server).receipts("c"):
            pytest.fail("the block was entered")
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(1)


async def test_a_stream_that_is_closed_closes_its_connection(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    visits: list[Visit] = []

    async def serve() -> None:
        visits.append(await server.visit())
        request: Request = await visits[0].hear_request("receipts.subscribe")
        await visits[0].answer(request, {"cursor": "0"})

    nursery.start_soon(serve)
    async with app_client(server).receipts("c"):
        pass
    assert await visits[0].closed_with() == 1000


# --- A walk with a twin ------------------------------------------------------------------------------------------


class Twin:
    """A server that keeps its promises, in a few lines; `Progress` is what the real one goes by."""

    def __init__(self) -> None:
        self.stored = 0
        self.last = 0
        self.progress: Progress | None = None

    def subscribe(self, after: int) -> None:
        self.stored = after
        self.progress = Progress(Cursor(after))

    def frame(self, most: int) -> ReceiptsNote | None:
        if self.progress is None or not self.progress.may_send or self.progress.position == self.last:
            return None
        first, last = self.progress.position + 1, min(self.progress.position + most, self.last)
        self.progress.sent(Cursor(last))
        return ReceiptsNote(tuple(receipt(cursor) for cursor in range(first, last + 1)), str(last))

    def acknowledge(self, cursor: int) -> None:
        assert self.progress is not None
        # Raises what it has not sent.
        self.progress.acknowledge(Cursor(cursor))
        self.stored = max(self.stored, cursor)


@pytest.mark.parametrize("has_consumer", [True, False])
@pytest.mark.parametrize("takes_by_itself", [True, False])
@pytest.mark.parametrize("seed", range(25))
def test_whatever_breaks_the_application_sees_every_receipt_once(
    has_consumer: bool, takes_by_itself: bool, seed: int
) -> None:
    chance = random.Random(seed)
    twin, course = Twin(), Course(0, takes_by_itself=takes_by_itself)
    seen: list[int] = []
    taken: set[int] = set()
    pending: int | None = None

    def subscribe() -> None:
        course.break_off()
        twin.subscribe(twin.stored if has_consumer else course.handed or 0)
        course.begin(twin.stored)

    def take_one() -> None:
        course.come_back()
        if takes_by_itself:
            taken.update(seen)
        if (found := course.hand_out()) is not None:
            seen.append(int(found.cursor))

    subscribe()
    for _ in range(600):
        match chance.choice(["happen", "send", "send", "take", "take", "take", "say", "tell", "tell", "hear", "break"]):
            case "happen":
                twin.last += chance.randrange(5)
            case "send" if (note := twin.frame(chance.randrange(1, 5))) is not None:
                course.arrive(note)
            case "take":
                take_one()
            case "say" if seen and not takes_by_itself:
                course.take(chance.choice(seen[-4:]))
                taken.update(range(1, course._taken + 1))
            case "tell" if pending is None and (cursor := course.due()) is not None:
                assert cursor in taken
                course.tell(cursor)
                pending = cursor
            case "hear" if pending is not None:
                if chance.random() < 0.2:
                    course.unheard()
                else:
                    twin.acknowledge(pending)
                    course.heard(pending)
                pending = None
            case "break" if chance.random() < 0.3:
                if pending is not None and chance.random() < 0.5:
                    twin.acknowledge(pending)
                pending = None
                subscribe()
        assert seen == list(range(1, len(seen) + 1))

    # Left alone, everything arrives and everything is acknowledged.
    subscribe()
    while len(seen) < twin.last or twin.stored < twin.last or course.is_owing:
        while (note := twin.frame(3)) is not None:
            course.arrive(note)
        take_one()
        if seen:
            course.take(seen[-1])
        if (cursor := course.due()) is not None:
            course.tell(cursor)
            twin.acknowledge(cursor)
            course.heard(cursor)
    assert seen == list(range(1, twin.last + 1))
    assert twin.last == 0 or twin.stored == twin.last

"""Receipts at the terminal: what a line says, what is acknowledged, and when it ends (C20)."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import date
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pushactors import CursorGone, DeviceClient, Disconnected, Receipt, StreamDisplaced
from pushactors.cli.access import Access
from pushactors.cli.watch import receipt_line, wants_colour, watch
from pushactors.wire.answers import Reason
from tests.cli.processes import soon
from tests.cli.scripted_access import ScriptedAccess
from tests.clients.scripted import ScriptedServer, Visit

Output = pytest.CaptureFixture[str]

# 14:02:41 in Tokyo, on the 15th of January 2021.
AT = 1_610_686_961_000
TODAY = date(2021, 1, 15)
SINCE = AT - 30_000
YESTERDAY = AT - 86_400_000


def receipt(event: str = "received", reason: Reason | None = None, **more: Any) -> Receipt:
    members: dict[str, Any] = {"cursor": "7", "msg_id": "5", "at": AT, "registration_id": "r", **more}
    return Receipt(event=event, reason=reason, **members)


def wired(cursor: int, **more: object) -> dict[str, object]:
    return {"cursor": str(cursor), "msg_id": "5", "event": "received", "at": AT, "registration_id": "r", **more}


# --- A line ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("in_tokyo")
@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (receipt(), "14:02:41 [5] r received"),
        (receipt("opened"), "14:02:41 [5] r opened"),
        (receipt("of tomorrow"), "14:02:41 [5] r of tomorrow"),
        (receipt("expired", registration_id=None, alias="alice"), "14:02:41 [5] alice expired"),
        (receipt("expired", registration_id=None), "14:02:41 [5] nobody expired"),
        (receipt(at=YESTERDAY), "2021-01-14 14:02:41 [5] r received"),
        (receipt("overdue"), "14:02:41 [5] r overdue"),
        (receipt("overdue", Reason("absent", since=SINCE)), "14:02:41 [5] r overdue: absent since 14:02:11"),
        (receipt("overdue", Reason("absent")), "14:02:41 [5] r overdue: absent"),
        (
            receipt("overdue", Reason("absent", since=YESTERDAY)),
            "14:02:41 [5] r overdue: absent since 2021-01-14 14:02:41",
        ),
        (
            receipt("overdue", Reason("absent", since=YESTERDAY), at=YESTERDAY + 1000),
            "2021-01-14 14:02:42 [5] r overdue: absent since 14:02:41",
        ),
        (
            receipt("overdue", Reason("unacknowledged", since=SINCE)),
            "14:02:41 [5] r overdue: sent 14:02:11 and not acknowledged",
        ),
        (receipt("overdue", Reason("unacknowledged")), "14:02:41 [5] r overdue: sent and not acknowledged"),
        (receipt("overdue", Reason("queued", behind=3)), "14:02:41 [5] r overdue: queued behind 3"),
        (receipt("overdue", Reason("queued")), "14:02:41 [5] r overdue: queued"),
        (
            receipt("overdue", Reason("unheld", since=SINCE), registration_id=None, alias="alice"),
            "14:02:41 [5] alice overdue: waits for alice to log in since 14:02:11",
        ),
        (receipt("overdue", Reason("unheld")), "14:02:41 [5] r overdue: waits for its user to log in"),
        (receipt("overdue", Reason("of tomorrow")), "14:02:41 [5] r overdue: of tomorrow"),
    ],
)
def test_a_receipt_is_a_line_that_says_why(shown: Receipt, line: str) -> None:
    assert receipt_line(shown, TODAY) == line


@pytest.mark.usefixtures("in_tokyo")
def test_a_line_may_have_colour_and_only_what_happened_has_it() -> None:
    assert receipt_line(receipt(), TODAY, True) == "14:02:41 [5] r \x1b[32mreceived\x1b[0m"
    late = receipt("overdue", Reason("queued", behind=3))
    assert receipt_line(late, TODAY, True) == "14:02:41 [5] r \x1b[1;33moverdue: queued behind 3\x1b[0m"
    assert receipt_line(receipt("of tomorrow"), TODAY, True) == "14:02:41 [5] r of tomorrow"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "no_color", "wanted"),
    [
        (Terminal(), None, True),
        (Terminal(), "", True),
        (Terminal(), "1", False),
        (io.StringIO(), None, False),
        (io.StringIO(), "1", False),
    ],
)
def test_colour_is_for_somebody_who_looks_and_wants_it(
    stream: io.StringIO, no_color: str | None, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    assert wants_colour(stream) is wanted


# --- Following ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def follow(server: ScriptedServer) -> Callable[..., Any]:
    """`watch` as the command calls it without arguments."""
    return partial(watch, ScriptedAccess.to(server), consumer=None, after=None, as_json=False, count=None)


async def subscribed(server: ScriptedServer, cursor: int = 0) -> tuple[Visit, dict[str, object]]:
    visit = await server.visit()
    request = await visit.hear_request("receipts.subscribe")
    await visit.answer(request, {"cursor": str(cursor)})
    return visit, request.params


async def tell(visit: Visit, *events: dict[str, object]) -> None:
    await visit.tell("receipts", {"events": events, "cursor": events[-1]["cursor"]})
    await wait_all_tasks_blocked()


@pytest.mark.parametrize(
    ("arguments", "params"),
    [
        ({}, {"consumer": "watch"}),
        ({"consumer": "mine"}, {"consumer": "mine"}),
        ({"after": "0"}, {"after": "0"}),
        ({"consumer": "mine", "after": "0"}, {"consumer": "mine", "after": "0"}),
    ],
)
async def test_a_consumer_is_followed_unless_a_place_is_named(
    server: ScriptedServer,
    autojump_clock: MockClock,
    follow: Any,
    arguments: dict[str, str],
    params: dict[str, str],
    capsys: Output,
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(follow, **arguments))
        _, asked = await subscribed(server)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert asked == params
    assert capsys.readouterr() == ("", "Watching the receipts behind cursor 0.\n")


@pytest.mark.usefixtures("in_tokyo")
async def test_receipts_are_lines_at_once_and_acknowledged_when_they_are_written(
    server: ScriptedServer, autojump_clock: MockClock, follow: Any, capsys: Output
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        visit, _ = await subscribed(server)
        await tell(visit, wired(1), wired(2, event="overdue", reason={"why": "queued", "behind": 3}))
        # Long ago: with the date.
        assert capsys.readouterr().out.splitlines() == [
            "2021-01-15 14:02:41 [5] r received",
            "2021-01-15 14:02:41 [5] r overdue: queued behind 3",
        ]
        ack = await visit.hear_request("receipts.ack")
        assert ack.params == {"cursor": "2"}
        nursery.cancel_scope.cancel()


async def test_receipts_can_be_objects_without_what_is_not_there(
    server: ScriptedServer, autojump_clock: MockClock, follow: Any, capsys: Output
) -> None:
    reason = {"why": "queued", "behind": 3}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(follow, as_json=True))
        visit, _ = await subscribed(server)
        await tell(visit, wired(1), wired(2, event="overdue", reason=reason))
        nursery.cancel_scope.cancel()
    assert list(map(json.loads, capsys.readouterr().out.splitlines())) == [
        wired(1),
        wired(2, event="overdue", reason=reason),
    ]


async def test_count_ends_it_behind_what_was_shown(
    server: ScriptedServer, autojump_clock: MockClock, follow: Any, capsys: Output
) -> None:
    codes: list[int] = []

    async def run() -> None:
        codes.append(await follow(count=2))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        visit, _ = await subscribed(server)
        await tell(visit, wired(1), wired(2), wired(3))
        ack = await visit.hear_request("receipts.ack")
        assert ack.params == {"cursor": "2"}
        assert codes == []
        await visit.answer(ack, None)
        assert await visit.closed_with() == 1000
    assert codes == [0]
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert len(err.splitlines()) == 1


async def test_a_lost_connection_is_told_beside_and_survived(
    server: ScriptedServer, autojump_clock: MockClock, follow: Any, capsys: Output
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        visit, _ = await subscribed(server)
        await tell(visit, wired(1))
        await visit.close(4000, "drain")
        visit, params = await subscribed(server, 1)
        assert params == {"consumer": "watch"}
        await tell(visit, wired(2))
        nursery.cancel_scope.cancel()
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert err.splitlines() == [
        "Watching the receipts behind cursor 0.",
        "Disconnected (drain); again in 0.0 s.",
        "Watching the receipts behind cursor 1.",
    ]


async def test_a_second_watch_is_told_how_to_watch_twice(
    server: ScriptedServer, autojump_clock: MockClock, follow: Any, capsys: Output
) -> None:
    async def displace() -> None:
        visit, _ = await subscribed(server)
        await visit.tell("receipts.ended", {"reason": "displaced"})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(displace)
        with pytest.raises(StreamDisplaced):
            await follow()
    _, *err = capsys.readouterr().err.splitlines()
    assert err == ["To watch twice at once, give each its own name with --consumer."]


async def test_a_place_that_is_gone_is_told_with_where_to_begin(
    server: ScriptedServer, autojump_clock: MockClock, follow: Any, capsys: Output
) -> None:
    async def refuse() -> None:
        visit = await server.visit()
        await visit.refuse(await visit.hear_request("receipts.subscribe"), CursorGone("Too old.", "900"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuse)
        with pytest.raises(CursorGone):
            await follow(after="3")
    err = capsys.readouterr().err.splitlines()
    assert err[-1] == "The oldest receipt that is kept has the cursor 900: --after 0 begins with it."


async def test_a_server_that_is_not_there_is_said_so(
    server: ScriptedServer, autojump_clock: MockClock, follow: Any
) -> None:
    server.is_down = True
    with pytest.raises(Disconnected, match="nobody listens"):
        await follow()


# --- The real server ---------------------------------------------------------------------------------------------


async def test_what_the_real_server_tells_is_shown_and_a_consumer_goes_on_behind_it(
    access: Access, capsys: Output
) -> None:
    follow = partial(watch, access, after=None, as_json=True)
    async with access.app_client() as app:
        async with DeviceClient(access.devices_url, access.app.app_key) as device:
            await device.wait_connected()
            registration_id = device.registration_id
        to_nobody: dict[str, Any] = {"audience": {"registration_id": [registration_id]}, "time_to_live": 0}
        async with app.receipts("mine"):
            pass
        pushed = [await app.push(**to_nobody, notification={"alert": "x"}) for _ in range(3)]
    for count in (1, 2):
        assert await soon(follow(consumer="mine", count=count)) == 0
    shown = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert [each["msg_id"] for each in shown] == [answer.msg_id for answer in pushed]
    assert {each["event"] for each in shown} == {"missed"}
    assert {each["registration_id"] for each in shown} == {registration_id}

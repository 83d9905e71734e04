"""What became of a push, in numbers and device by device."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from pushactors import DeviceClient, Invalid, NoSuchMessage, PushactorsError, Recall, Report, Timeline
from pushactors.cli import reports
from pushactors.cli.access import Access
from pushactors.cli.reports import recall, recall_line, report, report_line, status, timeline, timeline_lines
from tests.cli.scripted_access import ScriptedAccess
from tests.clients.scripted import ScriptedServer

Output = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("numbers", "line"),
    [
        ({"targets": 1, "waiting": 1}, "1 targets: 1 waiting"),
        ({"targets": 3, "sent": 1, "received": 2, "opened": 1}, "3 targets: 1 sent, 2 received (1 opened)"),
        ({"targets": 2, "missed": 1, "fenced": 1}, "2 targets: 1 missed, 1 fenced"),
        (
            {"targets": 2, "received": 2, "opened": 1, "dismissed": 2, "withdrawn": 1},
            "2 targets: 2 received (1 opened, 2 dismissed, 1 withdrawn)",
        ),
    ],
)
def test_a_report_says_in_a_line_what_is_not_nought(numbers: dict[str, int], line: str) -> None:
    assert report_line(Report(msg_id="5", **numbers)) == f"msg_id 5: {line}"


def test_every_number_of_a_report_is_in_the_line() -> None:
    numbers = {each.name: 1 for each in fields(Report) if each.name not in ("msg_id", "sent_at")}
    line = report_line(Report(msg_id="5", **numbers))
    assert all(f"1 {name}" in line for name in numbers)


@pytest.mark.parametrize(
    ("numbers", "line"),
    [
        ((3, 0, 0, 0), "3 targets: 3 recalled"),
        ((1, 2, 3, 4), "10 targets: 1 recalled, 2 on the way, 3 received, 4 settled otherwise"),
        ((0, 0, 1, 0), "1 targets: 1 received"),
    ],
)
def test_a_recall_says_in_a_line_what_is_not_nought(numbers: tuple[int, int, int, int], line: str) -> None:
    """C22."""
    assert recall_line("5", Recall(*numbers)) == f"msg_id 5: {line}"


async def answered(server: ScriptedServer, method: str, params: dict[str, object], result: object) -> None:
    visit = await server.visit()
    request = await visit.hear_request(method)
    assert request.params == params
    await visit.answer(request, result)


async def test_recall_prints_a_line_or_an_object(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock, capsys: Output
) -> None:
    split = {"recalled": 1, "on_the_way": 0, "received": 2, "settled": 0}
    access = ScriptedAccess.to(server)
    nursery.start_soon(answered, server, "push.recall", {"msg_id": "5"}, split)
    assert await recall(access, "5", as_json=False) == 0
    assert capsys.readouterr() == ("msg_id 5: 3 targets: 1 recalled, 2 received\n", "")
    nursery.start_soon(answered, server, "push.recall", {"msg_id": "5"}, split)
    assert await recall(access, "5", as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"msg_id": "5", **split}


COURSE: dict[str, object] = {
    "msg_id": "5",
    "registration_id": "r",
    "alias": "alice",
    "state": "fenced",
    "events": [
        {"event": "accepted", "at": 1_800_000_000_000},
        {"event": "sent", "at": 1_800_000_000_007, "visit": 3},
        {"event": "struck", "at": 1_800_000_060_000, "visit": 3, "verdict": "fenced"},
    ],
}


@pytest.mark.usefixtures("in_tokyo")
async def test_a_timeline_is_a_line_for_each_step(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock, capsys: Output
) -> None:
    nursery.start_soon(answered, server, "timeline", {"msg_id": "5", "registration_id": "r"}, COURSE)
    assert await timeline(ScriptedAccess.to(server), "5", "r", None, as_json=False) == 0
    assert capsys.readouterr().out.splitlines() == [
        "msg_id 5 to device r, alias alice: fenced",
        "  2027-01-15 17:00:00.000  accepted",
        "  2027-01-15 17:00:00.007  sent (visit 3)",
        "  2027-01-15 17:01:00.000  struck: fenced (visit 3)",
    ]


async def test_a_timeline_can_be_an_object_and_of_what_waits_for_an_alias(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock, capsys: Output
) -> None:
    held = {**COURSE, "registration_id": None, "events": []}
    nursery.start_soon(answered, server, "timeline", {"msg_id": "5", "alias": "alice"}, held)
    assert await timeline(ScriptedAccess.to(server), "5", None, "alice", as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {**without(COURSE, "registration_id"), "events": []}


async def test_an_object_of_a_timeline_leaves_out_what_is_not_there(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock, capsys: Output
) -> None:
    empty = {"registration_id": None, "alias": None}
    nursery.start_soon(answered, server, "timeline", {"msg_id": "5", "registration_id": "r"}, {**COURSE, **empty})
    assert await timeline(ScriptedAccess.to(server), "5", "r", None, as_json=True) == 0
    # No event of it has more than the server said.
    assert json.loads(capsys.readouterr().out) == without(COURSE, "registration_id", "alias")


def without(members: dict[str, object], *names: str) -> dict[str, object]:
    return {name: value for name, value in members.items() if name not in names}


@pytest.mark.parametrize(("registration_id", "alias"), [(None, None), ("r", "alice"), ("", None)])
async def test_a_timeline_of_nobody_or_of_two_is_refused_before_anybody_is_asked(
    server: ScriptedServer, registration_id: str | None, alias: str | None
) -> None:
    with pytest.raises(Invalid):
        await timeline(ScriptedAccess.to(server), "5", registration_id, alias, as_json=False)
    assert server.tries == []


def test_a_timeline_names_the_device_or_the_alias() -> None:
    assert timeline_lines(Timeline(msg_id="5", state="waiting", events=(), alias="a")) == [
        "msg_id 5 to alias a: waiting"
    ]
    assert timeline_lines(Timeline(msg_id="5", state="sent", events=(), registration_id="r")) == [
        "msg_id 5 to device r: sent"
    ]


@pytest.fixture
async def pushed(access: Access) -> Any:
    """(msg_id, registration_id) of a push that waits for its only target; another device was none."""
    async with access.app_client() as app:
        ids: list[str] = []
        for _ in range(2):
            async with DeviceClient(access.devices_url, access.app.app_key) as device:
                await device.wait_connected()
                assert device.registration_id is not None
                ids.append(device.registration_id)
        answer = await app.push(audience={"registration_id": ids[:1]}, notification={"alert": "hello"})
        yield answer.msg_id, *ids


async def test_report_prints_a_line_or_an_object(access: Access, pushed: Any, capsys: Output) -> None:
    msg_id, *_ = pushed
    assert await report(access, msg_id, as_json=False) == 0
    assert await report(access, msg_id, as_json=True) == 0
    line, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"msg_id {msg_id}: 1 targets: 1 (waiting|sent)", line)
    numbers = json.loads(last)
    assert numbers["waiting"] + numbers["sent"] == numbers["targets"] == 1
    assert numbers["fenced"] == 0


async def test_a_push_is_recalled_from_the_real_server_and_its_course_tells(
    access: Access, pushed: Any, capsys: Output
) -> None:
    msg_id, target, other = pushed
    assert await recall(access, msg_id, as_json=False) == 0
    assert await timeline(access, msg_id, target, None, as_json=True) == 0
    assert await timeline(access, msg_id, target, None, as_json=False) == 0
    line, course, head, *steps = capsys.readouterr().out.splitlines()
    assert line == f"msg_id {msg_id}: 1 targets: 1 recalled"
    assert json.loads(course)["state"] == "recalled"
    assert head == f"msg_id {msg_id} to device {target}: recalled"
    assert [step.split("  ")[-1] for step in (steps[0], steps[-1])] == ["accepted", "recalled"]
    with pytest.raises(NoSuchMessage):
        await recall(access, "123456789", as_json=False)
    with pytest.raises(PushactorsError):
        await timeline(access, msg_id, other, None, as_json=False)


async def test_report_of_a_push_that_the_app_does_not_have(access: Access, capsys: Output) -> None:
    assert await report(access, "123456789", as_json=False) == 1
    assert capsys.readouterr() == ("", "This app has no push 123456789.\n")


async def test_status_is_of_every_target_unless_devices_are_named(access: Access, pushed: Any, capsys: Output) -> None:
    msg_id, target, other = pushed
    assert await status(access, msg_id, [], as_json=False) == 0
    assert re.fullmatch(rf"{target}  (waiting|sent), \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\n", capsys.readouterr().out)
    assert await status(access, msg_id, [other, "somebody", target], as_json=False) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == f"{other}  not a target"
    assert second == "somebody  not a device of this app"
    assert third.startswith(f"{target}  ")


@pytest.mark.parametrize("as_json", [False, True])
async def test_status_of_a_push_that_waits_for_its_user_says_that_no_device_has_it(
    access: Access, capsys: Output, as_json: bool
) -> None:
    async with access.app_client() as app, DeviceClient(access.devices_url, access.app.app_key) as device:
        await device.wait_connected()
        answer = await app.push(audience={"alias": ["nobody"]}, notification={"alert": "hello"}, hold=True)
    assert await status(access, answer.msg_id, [], as_json=as_json) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"No registered device is a target of it; .* report {answer.msg_id} .*\.\n", err)


async def test_status_can_be_objects(access: Access, pushed: Any, capsys: Output) -> None:
    msg_id, target, other = pushed
    assert await status(access, msg_id, [other, target], as_json=True) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"registration_id": other, "code": 3, "state": None, "at": None}
    assert (second["registration_id"], second["code"]) == (target, 1)


async def test_status_asks_for_many_devices_page_by_page(
    access: Access, pushed: Any, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    msg_id, target, other = pushed
    monkeypatch.setattr(reports, "IDS_AT_ONCE", 1)
    assert await status(access, msg_id, [], as_json=True) == 0
    assert [json.loads(line)["registration_id"] for line in capsys.readouterr().out.splitlines()] == [target]
    assert await status(access, msg_id, [target, other], as_json=True) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("ids", [[], ["somebody"]])
async def test_status_of_a_push_that_the_app_does_not_have(access: Access, ids: list[str]) -> None:
    # An app without devices is told as well.
    with pytest.raises(NoSuchMessage):
        await status(access, "123456789", ids, as_json=False)

"""What became of a push, in numbers and device by device."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Any

import pytest

from pushactors import DeviceClient, NoSuchMessage, Report
from pushactors.cli import reports
from pushactors.cli.access import Access
from pushactors.cli.reports import report, report_line, status

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

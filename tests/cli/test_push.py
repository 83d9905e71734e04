"""A push from the terminal: what the arguments and the standard input make of it, and what is printed."""

from __future__ import annotations

import io
import json
import re
from argparse import Namespace
from functools import partial
from typing import Any

import pytest
import trio

from pushactors import AppClient, DeviceClient, NoTarget
from pushactors.cli.access import Access
from pushactors.cli.push import arguments_of, push
from pushactors.errors import Invalid, TooLarge
from tests.cli.processes import soon, until

Output = pytest.CaptureFixture[str]
NOTHING: dict[str, Any] = {
    "text": None, "alias": [], "id": [], "tag": [], "all": False, "title": None, "ttl": None, "override": None,
    "cid": None, "json": False, "wait": False, "within": None, "hold": False,
}  # fmt: skip


def given(**arguments: Any) -> Namespace:
    return Namespace(**{**NOTHING, **arguments})


def asked(standard_input: object = "", **arguments: Any) -> dict[str, Any]:
    text = standard_input if isinstance(standard_input, str) else json.dumps(standard_input)
    return arguments_of(arguments.get("text") or text, given(**arguments))


# --- What is asked for -------------------------------------------------------------------------------------------


def test_a_text_is_what_the_user_sees() -> None:
    assert asked(text="hello", all=True) == {"audience": "all", "notification": {"alert": "hello"}}
    assert asked("hello\n", all=True) == {"audience": "all", "notification": {"alert": "hello"}}
    assert asked("two\nlines\n\n", all=True)["notification"] == {"alert": "two\nlines"}


@pytest.mark.parametrize("text", ["5", "[1]", '"quoted"', "null", "{", "{'a': 1}", "NaN"])
def test_whatever_is_no_object_is_a_text(text: str) -> None:
    assert asked(text, all=True)["notification"] == {"alert": text}


def test_a_text_in_the_arguments_is_a_text_even_if_it_looks_like_a_push() -> None:
    text = '{"audience": "all", "notification": {"alert": "x"}}'
    assert asked(text=text, all=True)["notification"] == {"alert": text}


def test_the_audience_is_what_the_arguments_name() -> None:
    audience = asked("x", alias=["a", "b"], id=["i"], tag=["t"])["audience"]
    assert audience == {"alias": ["a", "b"], "registration_id": ["i"], "tag": ["t"]}
    assert asked("x", alias=["a"])["audience"] == {"alias": ["a"]}


def test_every_argument_has_its_member() -> None:
    assert asked("x", all=True, title="T", ttl=0, override="5", cid="c") == {
        "audience": "all",
        "notification": {"alert": "x", "title": "T"},
        "time_to_live": 0,
        "override_msg_id": "5",
        "cid": "c",
    }


def test_a_push_may_have_a_deadline_and_wait_for_its_user() -> None:
    """C21."""
    urgent = asked("x", alias=["alice"], within=30, hold=True)
    assert urgent == {
        "audience": {"alias": ["alice"]},
        "notification": {"alert": "x"},
        "deliver_within": 30,
        "hold": True,
    }
    from_json = {"audience": {"alias": ["a"]}, "message": {"msg_content": "m"}, "options": {"hold": True}}
    assert asked(from_json) == {"audience": {"alias": ["a"]}, "message": {"msg_content": "m"}, "hold": True}
    assert asked(from_json, within=5)["deliver_within"] == 5
    assert asked(from_json, within=5)["hold"] is True


FULL = {
    "audience": {"tag": ["t"]},
    "platform": ["ios"],
    "cid": "from-json",
    "notification": {"alert": "a", "title": "from json", "ios": {"badge": 1}},
    "message": {"msg_content": "m", "extras": {"n": 1}},
    "options": {"sendno": 7, "time_to_live": 5, "override_msg_id": "9"},
}


def test_an_object_is_a_push_with_its_members() -> None:
    assert asked(FULL) == {
        "audience": {"tag": ["t"]},
        "platform": ["ios"],
        "cid": "from-json",
        "notification": FULL["notification"],
        "message": FULL["message"],
        "sendno": 7,
        "time_to_live": 5,
        "override_msg_id": "9",
    }


def test_what_the_arguments_name_comes_on_top_of_the_object() -> None:
    on_top = asked(FULL, all=True, title="T", ttl=6, override="10", cid="c")
    assert on_top["audience"] == "all"
    assert on_top["notification"] == {"alert": "a", "title": "T", "ios": {"badge": 1}}
    assert (on_top["time_to_live"], on_top["override_msg_id"], on_top["cid"], on_top["sendno"]) == (6, "10", "c", 7)


@pytest.mark.parametrize(
    ("standard_input", "arguments", "sentence"),
    [
        ("", {"all": True}, "There is nothing to push: give a text, or write one to standard input."),
        ("\n", {"all": True}, "There is nothing to push: give a text, or write one to standard input."),
        ("x", {}, "Say who gets it: --alias, --id, --tag or --all."),
        ("x", {"all": True, "tag": ["t"]}, "--all is everybody: leave the others out."),
        ({"notification": {"alert": "x"}}, {}, "Say who gets it: --alias, --id, --tag or --all."),
        ({"alert": "x"}, {"all": True}, "alert is not known here."),
        ({**FULL, "options": {"ttl": 5}}, {}, "options.ttl is not known here."),
        ({**FULL, "options": 5}, {}, "options must be an object."),
        ({**FULL, "options": 5}, {"ttl": 5}, "options must be an object."),
        ({**FULL, "notification": "x"}, {}, "notification must be an object."),
        ({**FULL, "notification": "x"}, {"title": "T"}, "notification must be an object."),
        # Once a list of the letters a, l, i, c and e.
        ({**FULL, "audience": {"alias": "alice"}}, {}, "audience.alias must be an array."),
        ({**FULL, "audience": ["alice"]}, {}, 'audience must be an object or "all".'),
        ({**FULL, "platform": 5}, {}, 'platform must be an array or "all".'),
        ({**FULL, "cid": None}, {}, "cid must be a string."),
        ("x", {"all": True, "ttl": 864_001}, "time_to_live must be 0 to 864000."),
        ("x", {"all": True, "within": 0}, "deliver_within must be 1 to 864000."),
        ("x", {"all": True, "hold": True}, "Only a push to aliases, and to nothing else, can wait for its user."),
        ("x", {"alias": ["a"], "tag": ["t"], "hold": True},
         "Only a push to aliases, and to nothing else, can wait for its user."),
        ("x", {"alias": ["a"], "ttl": 0, "hold": True}, "What may not wait cannot be held: give it a time_to_live."),
        ("x", {"id": [""]}, "audience.registration_id[0] must be 1 to 64 printable characters."),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_anybody_is_asked(
    standard_input: object, arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Invalid) as refused:
        asked(standard_input, **arguments)
    assert str(refused.value) == sentence


def test_more_than_a_message_can_hold_is_refused_before_anybody_is_asked() -> None:
    with pytest.raises(TooLarge):
        asked("x" * 4000, all=True)


# --- What is printed ---------------------------------------------------------------------------------------------


@pytest.fixture
async def app(access: Access) -> Any:
    async with access.app_client() as app:
        yield app


@pytest.fixture
async def device(access: Access) -> Any:
    """A device on which alice is logged in, and which takes what comes."""
    async with (
        DeviceClient(access.devices_url, access.app.app_key, alias="alice") as device,
        trio.open_nursery() as nursery,
    ):
        await device.wait_connected()

        async def take() -> None:
            async for _ in device:
                pass

        nursery.start_soon(take)
        yield device
        nursery.cancel_scope.cancel()


async def test_the_answer_is_a_line(access: Access, app: AppClient, device: DeviceClient, capsys: Output) -> None:
    assert await push(access, given(text="hello", alias=["alice"])) == 0
    [pushed] = await app.pushes()
    assert capsys.readouterr() == (f"msg_id {pushed.msg_id}: 1 targets, 1 online, 0 absent\n", "")


async def test_the_answer_can_be_an_object(access: Access, device: DeviceClient, capsys: Output) -> None:
    assert await push(access, given(text="hello", id=[device.registration_id], json=True)) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer.keys() == {"msg_id", "targets", "online", "absent", "sendno"}
    assert (answer["targets"], answer["online"], answer["sendno"]) == (1, 1, None)


async def test_wait_follows_the_report_until_the_last_verdict(
    access: Access, app: AppClient, device: DeviceClient, capsys: Output
) -> None:
    absent = await _absent_device(access)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(push, access, given(text="hello", all=True, wait=True)))
        said = ""

        def is_waiting_for_one() -> bool:
            nonlocal said
            said += capsys.readouterr().out
            return said.endswith("2 targets: 1 waiting, 1 received\n")

        await until(is_waiting_for_one, "the report")
        await app.delete_device(absent)
    lines = (said + capsys.readouterr().out).splitlines()
    assert re.fullmatch(r"msg_id \d+: 2 targets, 1 online, 1 absent", lines[0])
    assert lines[-1].endswith(": 2 targets: 1 received, 1 missed")
    assert len(set(lines)) == len(lines)


async def test_wait_prints_objects_as_well(
    access: Access, device: DeviceClient, capsys: Output
) -> None:
    await push(access, given(text="hello", all=True, wait=True, json=True))
    answer, *reports = map(json.loads, capsys.readouterr().out.splitlines())
    assert reports[-1]["msg_id"] == answer["msg_id"]
    assert reports[-1]["received"] == reports[-1]["targets"] == 1


async def _absent_device(access: Access) -> str:
    async with DeviceClient(access.devices_url, access.app.app_key) as absent:
        await absent.wait_connected()
        assert absent.registration_id is not None
        return absent.registration_id


async def test_what_is_refused_prints_nothing(access: Access, capsys: Output) -> None:
    with pytest.raises(NoTarget):
        await push(access, given(text="hello", all=True))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("standard_input", "alert"), [("grüße\n".encode(), "grüße"), (b'{"notification": {"alert": "object"}}', "object")]
)
async def test_standard_input_is_read_where_there_is_no_text(
    access: Access, device: DeviceClient, monkeypatch: pytest.MonkeyPatch, standard_input: bytes, alert: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(standard_input), "ascii"))
    shown: list[object] = []
    async with DeviceClient(access.devices_url, access.app.app_key) as other:
        await other.wait_connected()
        assert await push(access, given(all=True)) == 0
        shown.append((await soon(anext(other))).notification)
    assert shown == [{"alert": alert}]


async def test_standard_input_that_is_not_utf8_is_refused(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9")))
    with pytest.raises(Invalid, match=r"^Standard input must be UTF-8, and is not at byte 3\.$"):
        await push(access, given(all=True))

"""What the server says while it runs: a line an event, for people or for machines."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator

import pytest

from pushactors.cli.logs import set_up_logging

Output = pytest.CaptureFixture[str]
log = logging.getLogger("pushactors.somewhere")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def fail() -> None:
    try:
        raise ValueError("a\nreason")
    except ValueError:
        log.exception("It failed.")


def test_text_is_time_level_and_sentence(capsys: Output) -> None:
    set_up_logging("info", "text")
    before = time.time()
    log.warning("%d of %s.", 2, "them")
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING 2 of them\.\n", err)
    # UTC, whatever the machine's own time is.
    assert err.startswith(time.strftime("%Y-%m-%dT%H:", time.gmtime(before)))


def test_json_is_an_object_a_line(capsys: Output) -> None:
    set_up_logging("info", "json")
    log.info("Grüße\nfrom %s.", "here")
    fail()
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert abs(first.pop("at") / 1000 - time.time()) < 10
    assert first == {"level": "info", "logger": "pushactors.somewhere", "message": "Grüße\nfrom here."}
    assert second["level"] == "error"
    assert second["message"] == "It failed."
    assert "ValueError: a\nreason" in second["exception"]


def test_text_shows_what_was_raised_below_its_line(capsys: Output) -> None:
    set_up_logging("info", "text")
    fail()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith(" ERROR It failed.")
    assert lines[1] == "Traceback (most recent call last):"


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_what_is_less_important_is_not_said(level: str, heard: list[str], capsys: Output) -> None:
    set_up_logging(level, "json")
    for each in ("debug", "info", "warning", "error"):
        log.log(getattr(logging, each.upper()), "This.")
    assert [json.loads(line)["level"] for line in capsys.readouterr().err.splitlines()] == heard


def test_set_up_again_it_says_everything_once(capsys: Output) -> None:
    set_up_logging("info", "text")
    set_up_logging("info", "text")
    log.info("Once.")
    assert capsys.readouterr().err.count("Once.") == 1

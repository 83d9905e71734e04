"""A token from the terminal: made without a server, and good for what it says (C17)."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pushactors import Unauthorized
from pushactors.cli import main
from pushactors.wire.ids import Alias, RegistrationId
from pushactors.wire.tokens import Claims, read

Output = pytest.CaptureFixture[str]
DEVICE = "abcdefghijklmnopqrstuvwx27"
SECRET, OTHER = "sixteen-is-enough", "seventeen-is-more"
# A port of 0 is any free one: nobody could be asked there.
CONFIGURATION = f"""
[listen]
apps = "127.0.0.1:0"
[[app]]
app_key = "first"
master_secret = "{SECRET}"
[[app]]
app_key = "second"
master_secret = "{OTHER}"
"""


@pytest.fixture(autouse=True)
def configured(folder: Path) -> None:
    (folder / "pushactors.toml").write_text(CONFIGURATION)


def printed(output: Output) -> str:
    out, err = output.readouterr()
    assert err == ""
    [line] = out.splitlines()
    return line


def test_a_token_is_printed_and_nothing_else(capsys: Output) -> None:
    began_at_s = time.time()
    assert main(["token", "alice"]) == 0
    token = printed(capsys)
    assert read(token, [SECRET], began_at_s + 3590) == Claims(Alias("alice"), None)
    with pytest.raises(Unauthorized):
        read(token, [SECRET], time.time() + 3600)


def test_a_token_is_good_for_as_long_and_for_the_device_that_is_named(capsys: Output) -> None:
    began_at_s = time.time()
    assert main(["token", "张三", "--seconds", "60", "--id", DEVICE]) == 0
    token = printed(capsys)
    assert read(token, [SECRET], began_at_s + 50) == Claims(Alias("张三"), RegistrationId(DEVICE))
    with pytest.raises(Unauthorized):
        read(token, [SECRET], time.time() + 60)


def test_a_token_is_signed_by_the_app_that_is_named(capsys: Output) -> None:
    assert main(["token", "alice", "--app", "second"]) == 0
    token = printed(capsys)
    assert read(token, [OTHER], time.time()).alias == "alice"
    with pytest.raises(Unauthorized):
        read(token, [SECRET], time.time())


def test_a_token_can_be_in_an_object(capsys: Output) -> None:
    assert main(["token", "alice", "--json", "--seconds", "60"]) == 0
    said = json.loads(printed(capsys))
    assert said.keys() == {"alias", "alias_token", "expires_at"}
    assert said["alias"] == "alice"
    assert read(said["alias_token"], [SECRET], said["expires_at"] / 1000 - 1).alias == "alice"
    with pytest.raises(Unauthorized):
        read(said["alias_token"], [SECRET], said["expires_at"] / 1000)

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import trio

from pushactors import IdentityUnusable
from pushactors.clients.identity import Identity


async def identity(path: Path | None, app_key: str = "app") -> Identity:
    made = Identity(app_key, path)
    await made.load()
    return made


async def test_the_install_key_is_on_the_disk_before_it_is_used(tmp_path: Path) -> None:
    first = await identity(tmp_path / "id")
    second = await identity(tmp_path / "id")
    assert first.install_key == second.install_key
    assert 8 <= len(first.install_key) <= 128


async def test_two_installations_have_two_keys(tmp_path: Path) -> None:
    assert (await identity(tmp_path / "a")).install_key != (await identity(tmp_path / "b")).install_key


async def test_registration_and_wanted_alias_survive(tmp_path: Path) -> None:
    first = await identity(tmp_path / "id")
    first.registered("device-1", "secret-1")
    first.want("")
    await first.save()
    second = await identity(tmp_path / "id")
    assert (second.registration_id, second.device_secret, second.wanted_alias) == ("device-1", "secret-1", "")


async def test_the_token_of_the_wanted_alias_survives_with_it_and_goes_with_it(tmp_path: Path) -> None:
    first = await identity(tmp_path / "id")
    first.want("bob", "token")
    await first.save()
    second = await identity(tmp_path / "id")
    assert (second.wanted_alias, second.wanted_alias_token) == ("bob", "token")
    assert "token" not in repr(vars(second)["_kept"]).replace("alias_token", "")
    second.want("carol")
    assert second.wanted_alias_token is None


async def test_a_file_from_before_there_were_tokens_still_loads(tmp_path: Path) -> None:
    (tmp_path / "id").write_bytes(orjson.dumps({**GOOD, "wanted_alias": "bob"}))
    loaded = await identity(tmp_path / "id")
    assert (loaded.wanted_alias, loaded.wanted_alias_token) == ("bob", None)


async def test_what_is_forgotten_is_registered_anew_under_a_new_key(tmp_path: Path) -> None:
    first = await identity(tmp_path / "id")
    key = first.install_key
    first.registered("device-1", "secret-1")
    first.forget()
    await first.save()
    second = await identity(tmp_path / "id")
    assert (second.registration_id, second.device_secret) == (None, None)
    assert second.install_key not in ("", key)


async def test_whoever_saves_last_saves_the_latest(tmp_path: Path) -> None:
    first = await identity(tmp_path / "id")
    async with trio.open_nursery() as nursery:
        for alias in ("a", "b", "c"):
            first.want(alias)
            nursery.start_soon(first.save)
    assert (await identity(tmp_path / "id")).wanted_alias == "c"


async def test_what_did_not_change_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "id"
    first = await identity(path)
    first.want("a")
    await first.save()
    written = path.stat().st_ino
    await first.save()
    assert path.stat().st_ino == written


async def test_without_a_file_nothing_is_written() -> None:
    made = await identity(None)
    made.want("a")
    await made.save()
    assert made.wanted_alias == "a"


GOOD: dict[str, object] = {"version": 1, "app_key": "app", "install_key": "k" * 8}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not an identity file"),
        (b"[1]", "is not an identity file"),
        (orjson.dumps({**GOOD, "install_key": 5}), "install_key must be a string"),
        (orjson.dumps({**GOOD, "version": 2}), "is of version 2"),
        (orjson.dumps({**GOOD, "app_key": "other"}), "belongs to the app other"),
    ],
)
async def test_a_file_that_cannot_be_used_is_refused_and_left_alone(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    path = tmp_path / "id"
    path.write_bytes(content)
    with pytest.raises(IdentityUnusable, match=rf"{sentence}.*\.$"):
        await identity(path)
    assert path.read_bytes() == content


async def test_a_secret_does_not_show_in_a_traceback(tmp_path: Path) -> None:
    made = await identity(None)
    made.registered("device-1", "hush")
    assert "hush" not in repr(vars(made))
    assert made.install_key not in repr(vars(made))

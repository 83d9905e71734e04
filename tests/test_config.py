"""The configuration: what is refused, and that what is written, documented and loaded is the same."""

from __future__ import annotations

import ssl
import stat
import tomllib
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from pushactors import config
from pushactors.domain.aliases import AliasFullPolicy
from pushactors.errors import ConfigurationError
from pushactors.settings import Address, App, Configuration, Durability, LogFormat, LogLevel, StoreKind, parse_address
from pushactors.wire.ids import AppKey

SECRET = "sixteen-is-enough"
APP = f"[[app]]\napp_key = 'a'\nmaster_secret = '{SECRET}'\n"
PEM = Path(__file__).parent / "localhost.pem"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pushactors.toml"


def loaded(file: Path, text: str) -> Configuration:
    file.write_text(text)
    return config.load(file)


def refusal(file: Path, text: str) -> str:
    """The sentence that refuses `text`, without the name of the file, which it must begin with."""
    with pytest.raises(ConfigurationError) as refused:
        loaded(file, text)
    sentence = str(refused.value)
    assert sentence.startswith(str(file))
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert SECRET not in sentence
    return sentence.removeprefix(str(file)).removeprefix(": ")


# --- What is taken -----------------------------------------------------------------------------------------------


def test_an_app_with_its_credentials_is_all_that_must_be_said(file: Path) -> None:
    configuration = loaded(file, APP)
    assert configuration.app == (App(app_key=AppKey("a"), master_secret=SECRET),)
    assert configuration.listen == Configuration().listen
    assert configuration.tls is None


def test_the_limits_of_the_contract_have_the_contracts_defaults(file: Path) -> None:
    configuration = loaded(file, APP)
    app = configuration.app[0]
    assert (app.offline_limit, app.backlog_limit, app.window) == (5, 256, 64)
    assert (app.alias_limit, app.alias_full, app.device_expiry_days) == (10, AliasFullPolicy.REFUSE, 255)
    assert (configuration.devices.heartbeat, configuration.devices.ack_timeout) == (30, 60)


def test_every_setting_can_be_set(file: Path) -> None:
    configuration = loaded(
        file,
        f"""
        [listen]
        devices = "0.0.0.0:0"
        apps = "[::1]:8601"
        operations = "localhost:65535"
        [tls]
        certificate = "{PEM}"
        key = "{PEM}"
        devices = false
        apps = false
        [store]
        kind = "memory"
        path = "elsewhere.db"
        durability = "os"
        [devices]
        heartbeat = 5
        ack_timeout = 6
        connect_timeout_s = 7
        outgoing_buffer_bytes = 16384
        max_connections = 8
        max_connections_per_address = 9
        registrations_burst = 10
        registrations_per_s = 11
        origins = ["https://example.org", "http://localhost:3000", "capacitor://localhost"]
        [log]
        level = "debug"
        format = "json"
        [drain]
        seconds = 0
        [[app]]
        app_key = "first"
        master_secret = "{SECRET}"
        second_master_secret = "{SECRET}-next"
        offline_limit = 1
        backlog_limit = 2
        window = 3
        alias_limit = 4
        alias_full = "longest_absent"
        device_expiry_days = 5
        alias_tokens = "required"
        receipts_max_bytes = 2000000
        pushes_per_s = 6
        requests_per_s = 7
        [[app]]
        app_key = "second"
        master_secret = "{SECRET}"
        """,
    )
    for table in fields(configuration):
        held = getattr(configuration, table.name)
        for each in fields(_class_of(table.name)):
            value = getattr(held[0] if table.name == "app" else held, each.name)
            assert value != each.default, f"{table.name}.{each.name} was not set by this test"
    assert configuration.store.kind is StoreKind.MEMORY
    assert configuration.store.durability is Durability.OS
    assert configuration.log.level is LogLevel.DEBUG
    assert configuration.log.format is LogFormat.JSON
    assert configuration.devices.origins == ("https://example.org", "http://localhost:3000", "capacitor://localhost")
    assert [app.app_key for app in configuration.app] == ["first", "second"]
    assert configuration.app[0].second_master_secret == f"{SECRET}-next"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8600", Address("127.0.0.1", 8600)),
        ("push.example.org:0", Address("push.example.org", 0)),
        ("[::]:65535", Address("::", 65_535)),
        ("127.0.0.1", None),
        (":8600", None),
        ("127.0.0.1:", None),
        ("127.0.0.1:65536", None),
        ("127.0.0.1:-1", None),
        ("127.0.0.1:\uff18\uff16", None),
        ("127.0.0.256:1", None),
        ("::1:8600", None),
        ("[::1]", None),
        ("[example.org]:1", None),
        ("ws://127.0.0.1:8600", None),
        ("127.0.0.1:8600/device", None),
        ("two words:1", None),
        ("127.0.0.1:86\n", None),
    ],
)
def test_an_address_is_host_and_port(text: str, address: Address | None) -> None:
    assert parse_address(text) == address


def test_paths_are_taken_from_the_folder_of_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file.parent / "data").mkdir()
    file.write_text(f"{APP}[store]\npath = 'data/p.db'")
    monkeypatch.chdir("/")
    assert config.load(file).store.path == str(file.parent / "data" / "p.db")
    file.write_text(f"{APP}[store]\npath = '/p.db'")
    assert config.load(file).store.path == "/p.db"


def test_a_certificate_with_its_key_makes_a_context(file: Path) -> None:
    (file.parent / "localhost.pem").write_bytes(PEM.read_bytes())
    tls = loaded(file, f"{APP}[tls]\ncertificate = 'localhost.pem'\nkey = 'localhost.pem'").tls
    assert tls is not None
    assert isinstance(tls.context(), ssl.SSLContext)


def test_secrets_are_not_in_the_representation(file: Path) -> None:
    configuration = loaded(file, APP + f"second_master_secret = '{SECRET}-next'")
    assert SECRET not in repr(configuration)


# --- What is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "app is missing: add an [[app]] table with app_key and master_secret."),
        ("app = []", "app is missing: add an [[app]] table with app_key and master_secret."),
        ("[app]\napp_key = 'a'", "app must be written as [[app]], with two brackets: there can be several."),
        (f"colour = 'red'\n{APP}", "colour is not known here."),
        (f"{APP}[listen]\ndevice = '127.0.0.1:1'", "listen.device is not known here."),
        (f"{APP}ofline_limit = 5", "app[0].ofline_limit is not known here."),
        (f"{APP}{APP.replace('app_key', 'key')}", "app[1].key is not known here."),
        ("[[app]]\napp_key = 'a'", "app[0].master_secret is missing."),
        (f"{APP}[tls]\ncertificate = 'c.pem'", "tls.key is missing."),
        (f"{APP}[tls]\nkey = 'k.pem'", "tls.certificate is missing."),
        (f"{APP}window = '64'", "app[0].window must be an integer."),
        (f"{APP}window = 64.0", "app[0].window must be an integer."),
        (f"{APP}window = true", "app[0].window must be an integer."),
        (f"{APP}window = 0", "app[0].window must be 1 to 1024."),
        (f"{APP}window = 1025", "app[0].window must be 1 to 1024."),
        (f"{APP}offline_limit = 0", "app[0].offline_limit must be 1 to 10000."),
        (f"{APP}second_master_secret = 5", "app[0].second_master_secret must be a string."),
        (f"{APP}[devices]\nheartbeat = 0", "devices.heartbeat must be 1 to 3600."),
        (f"{APP}[devices]\noutgoing_buffer_bytes = 5", "devices.outgoing_buffer_bytes must be 16384 to 16777216."),
        (f"{APP}[devices]\norigins = 'https://example.org'", "devices.origins must be an array."),
        (f"{APP}[devices]\norigins = ['https://x', 5]", "devices.origins[1] must be a string."),
        (f"{APP}[drain]\nseconds = -1", "drain.seconds must be 0 to 300."),
        (f"{APP}[listen]\ndevices = 8600", "listen.devices must be a string."),
        (f"{APP}[store]\npath = ''", "store.path must name a file."),
        (f"{APP}[store]\nkind = 'redis'", 'store.kind must be "sqlite" or "memory".'),
        (f"{APP}[store]\ndurability = 'none'", 'store.durability must be "fsync" or "os".'),
        (f"{APP}[log]\nlevel = 'loud'", 'log.level must be "debug" or "info" or "warning" or "error".'),
        (f"{APP}alias_full = 'take'", 'app[0].alias_full must be "refuse" or "longest_absent".'),
        (f"{APP}{APP}", "app[1].app_key is that of app[0] as well: give it its own."),
        (
            f"{APP}[listen]\napps = '127.0.0.1:8600'",
            "listen.apps is that of listen.devices as well: give it its own port.",
        ),
        (
            APP.replace(SECRET, "with space"),
            "app[0].master_secret must be 1 to 256 printable ASCII characters without spaces.",
        ),
        (
            f"{APP}second_master_secret = ''",
            "app[0].second_master_secret must be 1 to 256 printable ASCII characters without spaces.",
        ),
        (
            APP.replace("'a'", "'a:b'"),
            "app[0].app_key must be 1 to 64 letters, digits, dots, hyphens or underscores.",
        ),
        (
            f"{APP}[listen]\noperations = 'localhost'",
            "listen.operations must be host:port, an IPv6 host in brackets and the port 0 to 65535 (0: any free one).",
        ),
        (
            f"{APP}[devices]\norigins = ['https://example.org/']",
            'devices.origins must hold origins as browsers send them, such as "https://example.org", without a path.',
        ),
    ],
)
def test_what_is_wrong_is_named_in_one_sentence(file: Path, text: str, sentence: str) -> None:
    assert refusal(file, text) == sentence


def test_several_listeners_may_each_take_any_free_port(file: Path) -> None:
    assert loaded(file, f"{APP}[listen]\ndevices = '127.0.0.1:0'\napps = '127.0.0.1:0'").listen.apps == "127.0.0.1:0"


def test_a_file_that_is_not_there_cannot_be_read(file: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"pushactors.toml cannot be read: No such file or directory\.$"):
        config.load(file)


def test_a_folder_cannot_be_read(file: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be read: Is a directory\.$"):
        config.load(file.parent)


def test_what_is_not_toml_is_refused_with_its_place(file: Path) -> None:
    assert "is not TOML" in refusal(file, "[listen\n")
    assert "line 1" in refusal(file, "[listen\n")
    assert "is not TOML" in refusal(file, f"{APP}app_key = 'twice'")


def test_what_is_not_utf8_is_refused_with_its_place(file: Path) -> None:
    file.write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigurationError, match=r"must be UTF-8, and is not at byte 5\.$"):
        config.load(file)


def test_the_folder_of_the_store_must_be_there(file: Path) -> None:
    sentence = refusal(file, f"{APP}[store]\npath = 'nowhere/p.db'")
    assert sentence == f"store.path needs a folder that is not there: {file.parent / 'nowhere'}."
    assert loaded(file, f"{APP}[store]\nkind = 'memory'\npath = 'nowhere/p.db'")


def test_a_certificate_that_is_not_there_is_named(file: Path) -> None:
    missing = file.parent / "c.pem"
    sentence = refusal(file, f"{APP}[tls]\ncertificate = 'c.pem'\nkey = '{PEM}'")
    assert sentence == f"tls.certificate cannot be read: {missing}: No such file or directory."
    missing.write_bytes(PEM.read_bytes())
    sentence = refusal(file, f"{APP}[tls]\ncertificate = 'c.pem'\nkey = 'k.pem'")
    assert sentence == f"tls.key cannot be read: {file.parent / 'k.pem'}: No such file or directory."


def test_what_is_no_certificate_is_refused(file: Path) -> None:
    (file.parent / "c.pem").write_text("nothing of the kind")
    sentence = refusal(file, f"{APP}[tls]\ncertificate = 'c.pem'\nkey = '{PEM}'")
    assert sentence.startswith("tls.certificate and tls.key must be PEM and fit each other: ")


# --- What is written ---------------------------------------------------------------------------------------------


def test_the_generated_file_loads_again(file: Path) -> None:
    written = config.write_default(file)
    assert config.load(file) == written
    assert len(written.app) == 1


def test_only_its_owner_can_read_the_generated_file(file: Path) -> None:
    config.write_default(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_every_generated_file_has_credentials_of_its_own(tmp_path: Path) -> None:
    one, other = (config.write_default(tmp_path / name).app[0] for name in ("1.toml", "2.toml"))
    assert one.app_key != other.app_key
    assert one.master_secret != other.master_secret
    assert len(one.app_key) == 24
    assert len(one.master_secret) >= 32


def test_a_generated_file_takes_nobodys_place(file: Path) -> None:
    file.write_text("mine")
    with pytest.raises(ConfigurationError, match=r"cannot be written: File exists\.$"):
        config.write_default(file)
    assert file.read_text() == "mine"


def test_a_folder_that_is_not_there_is_named_when_writing(file: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be written: No such file or directory\.$"):
        config.write_default(file.parent / "nowhere" / file.name)


def test_the_generated_file_says_what_each_of_its_settings_means(file: Path) -> None:
    config.write_default(file)
    lines = file.read_text().splitlines()
    for before, line in pairwise(lines):
        if " = " in line:
            assert before.startswith("# "), line
        assert len(line) <= 120


def test_the_generated_file_says_nothing_but_defaults(file: Path) -> None:
    config.write_default(file)
    said = tomllib.loads(file.read_text())
    app = said.pop("app")[0]
    assert app.pop("app_key")
    assert app.pop("master_secret")
    for table, held in (*said.items(), ("app", app)):
        for each in fields(_class_of(table)):
            if each.name in held:
                assert held[each.name] == each.default


# --- What is documented ------------------------------------------------------------------------------------------


def _class_of(table: str) -> Any:
    hint = get_type_hints(Configuration)[table]
    return next(each for each in (hint, *get_args(hint)) if is_dataclass(each))


def test_the_table_covers_every_setting() -> None:
    lines = config.table().splitlines()
    for table in fields(Configuration):
        at = next(i for i, line in enumerate(lines) if f"[{table.name}]" in line.split("|")[1])
        for offset, each in enumerate(fields(_class_of(table.name)), start=1):
            key, kind, default, meaning = (cell.strip() for cell in lines[at + offset].strip("|").split(" | "))
            assert key == f"`{each.name}`"
            assert all((kind, default, meaning.endswith("."))), each.name


def test_every_default_keeps_its_own_rule() -> None:
    for table in fields(Configuration):
        for each in fields(_class_of(table.name)):
            rule = each.metadata["rule"]
            if rule is not None and isinstance(each.default, (str, int, tuple)):
                assert rule.is_kept(each.default), f"{table.name}.{each.name}"


def test_every_number_has_a_range() -> None:
    for table in fields(Configuration):
        cls = _class_of(table.name)
        for name, hint in get_type_hints(cls).items():
            if hint is int:
                rule = {each.name: each for each in fields(cls)}[name].metadata["rule"]
                assert rule is not None, f"{table.name}.{name}"
                assert not rule.is_kept(-1)
                assert not rule.is_kept(2**40)

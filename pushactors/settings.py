"""Every setting there is, each with its default, its range and its meaning.

1. These classes are the only list of settings. Reading, judging, the generated file and the documented table are made
   from them, so a setting that stands nowhere else is complete.
2. A table of the configuration file is a class here, and a key of it a field, by the same name.
3. Units are in the names. `heartbeat` and `ack_timeout` are called as the contract calls them, and are seconds.
4. Part of `config`, and imported by nobody else.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeVar

from pushactors.domain.aliases import AliasFullPolicy
from pushactors.wire.ids import AppKey

T = TypeVar("T")

# --- What a value may be -----------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """`kind` is how people are told what the value is; `is_kept` judges it; `demand` ends a sentence that begins with
    the key, when it is not kept."""

    kind: str
    is_kept: Callable[[Any], bool]
    demand: str


def setting(default: T, meaning: str, rule: Rule | None = None) -> T:
    # A secret is not in the representation, so that no traceback or log line shows it.
    made: T = field(default=default, repr=rule is not SECRET, metadata={"meaning": meaning, "rule": rule})
    return made


def required(meaning: str, rule: Rule) -> Any:
    return field(repr=rule is not SECRET, metadata={"meaning": meaning, "rule": rule})


def between(lowest: int, highest: int) -> Rule:
    kind = f"integer, {lowest} to {highest}"
    return Rule(kind, lambda value: lowest <= value <= highest, f"must be {lowest} to {highest}")


class Address(NamedTuple):
    host: str
    port: int


def parse_address(text: str) -> Address | None:
    """The host and port that `text` spells, an IPv6 host without its brackets; None if it spells none."""
    match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^\[\]:/\s]+)):([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65_535:
        return None
    bracketed, plain, port = match.groups()
    try:
        if bracketed:
            ipaddress.IPv6Address(bracketed)
        elif re.fullmatch(r"[0-9.]+", plain):
            ipaddress.IPv4Address(plain)
    except ValueError:
        return None
    return Address(bracketed or plain, int(port))


# A colon would end the user name of HTTP Basic; the rest of its alphabet travels everywhere unescaped.
_APP_KEY = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SECRET = re.compile(r"[!-~]{1,256}")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#]+")

ADDRESS: Final = Rule(
    "host:port",
    lambda text: parse_address(text) is not None,
    "must be host:port, an IPv6 host in brackets and the port 0 to 65535 (0: any free one)",
)
APP_KEY: Final = Rule(
    "string, 1 to 64 characters",
    lambda text: _APP_KEY.fullmatch(text) is not None,
    "must be 1 to 64 letters, digits, dots, hyphens or underscores",
)
SECRET: Final = Rule(
    "string, 1 to 256 characters",
    lambda text: text is None or _SECRET.fullmatch(text) is not None,
    "must be 1 to 256 printable ASCII characters without spaces",
)
ORIGINS: Final = Rule(
    "array of strings",
    lambda origins: all(map(_ORIGIN.fullmatch, origins)),
    'must hold origins as browsers send them, such as "https://example.org", without a path',
)
PATH: Final = Rule("path", lambda text: bool(text) and "\0" not in text, "must name a file")


class StoreKind(StrEnum):
    SQLITE = "sqlite"
    MEMORY = "memory"


class Durability(StrEnum):
    FSYNC = "fsync"
    OS = "os"


class AliasTokens(StrEnum):
    OFF = "off"
    REQUIRED = "required"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


# --- The settings ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where the server can be reached."""

    devices: str = setting("127.0.0.1:8600", "Where devices connect: WebSocket, path `/device`.", ADDRESS)
    apps: str = setting("127.0.0.1:8601", "Where app servers connect: WebSocket, path `/app`.", ADDRESS)
    operations: str = setting(
        "127.0.0.1:8602", "Where operators look: HTTP, `/healthz`, `/readyz` and `/metrics`.", ADDRESS
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """TLS for devices and app servers; without this table they speak plain WebSocket."""

    certificate: str = required("The certificate chain, in PEM.", PATH)
    key: str = required("Its private key, in PEM, without a passphrase.", PATH)
    devices: bool = setting(True, "Whether devices must use it.")
    apps: bool = setting(True, "Whether app servers must use it.")

    def context(self) -> ssl.SSLContext:
        """What a listener needs to serve this certificate. Raises `OSError` (`ssl.SSLError` is one)."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        # An empty passphrase, because without one OpenSSL would ask at the terminal and wait.
        context.load_cert_chain(self.certificate, self.key, password="")
        return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Where everything lasts that was told to anybody."""

    kind: StoreKind = setting(StoreKind.SQLITE, "`memory` forgets everything when the server stops: for trying things.")
    path: str = setting("pushactors.db", "The database file of the `sqlite` store.", PATH)
    durability: Durability = setting(
        Durability.FSYNC,
        "What counts as on disk: `fsync` survives a power cut; `os` is left to the operating system, and survives"
        " the end of the process only.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """How devices are dealt with, whatever app they are of."""

    heartbeat: int = setting(
        30, "Seconds of silence after which a device is asked for a sign of life; after twice that it is absent.",
        between(1, 3600),
    )
    ack_timeout: int = setting(
        60, "Seconds that a full window may stay without any acknowledgement before the visit ends as too slow.",
        between(1, 3600),
    )
    connect_timeout_s: int = setting(
        10, "Seconds in which a new connection must have finished its handshake and sent `connect`.", between(1, 300)
    )
    outgoing_buffer_bytes: int = setting(
        262_144, "What may wait for one device's socket; messages beyond it stay in the mailbox.",
        between(16_384, 16_777_216),
    )
    max_connections: int = setting(100_000, "Connections at a time.", between(1, 10_000_000))
    max_connections_per_address: int = setting(
        20_000,
        "Connections at a time from one network address. Behind a proxy all devices have the proxy's address.",
        between(1, 10_000_000),
    )
    registrations_burst: int = setting(
        5000, "New devices that one network address may register at once.", between(1, 1_000_000)
    )
    registrations_per_s: int = setting(
        10, "New devices a second that one network address may register in the long run.", between(1, 1_000_000)
    )
    origins: tuple[str, ...] = setting(
        (), "Web origins whose pages may connect, beside those of the same host.", ORIGINS
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What is written to standard error."""

    level: LogLevel = setting(LogLevel.INFO, "The least important kind of line that is written.")
    format: LogFormat = setting(LogFormat.TEXT, "`text` for people, `json` for machines: one object a line.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """How the server stops."""

    seconds: int = setting(
        5, "Time over which visits are closed at SIGTERM or SIGINT, and devices are told to come back.", between(0, 300)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """One app, as often as there are apps. Read again at SIGHUP, without dropping anybody."""

    app_key: AppKey = required("The app's public name; devices carry it.", APP_KEY)
    master_secret: str = required("What its app servers authenticate with; never give it to a device.", SECRET)
    second_master_secret: str | None = setting(
        None, "Valid beside `master_secret`, while the one is being replaced by the other.", SECRET
    )
    offline_limit: int = setting(5, "Messages that wait for an absent device (C8).", between(1, 10_000))
    backlog_limit: int = setting(256, "Messages that wait for a present device (C8).", between(1, 10_000))
    window: int = setting(64, "Messages on the way to a device that it has not acknowledged (C10).", between(1, 1024))
    alias_limit: int = setting(10, "Devices that one alias may be on.", between(1, 1000))
    alias_full: AliasFullPolicy = setting(
        AliasFullPolicy.REFUSE,
        "What one device too many does to an alias: `refuse` it, or take it from the `longest_absent` device.",
    )
    alias_tokens: AliasTokens = setting(
        AliasTokens.OFF,
        "Whether a device needs a token, signed by the app's server, to log a user in: `off`, or `required` (C17).",
    )
    receipts_max_bytes: int = setting(
        268_435_456,
        "What the app's receipts may take on disk, about; the oldest are removed first, after 10 days all (C20).",
        between(1_000_000, 1_000_000_000_000),
    )
    device_expiry_days: int = setting(
        255, "Days after which a device that was not seen is deleted (C24).", between(1, 3650)
    )
    pushes_per_s: int = setting(
        0, "Pushes a second, of which one second's worth may come at once; 0: not limited.", between(0, 1_000_000)
    )
    requests_per_s: int = setting(
        0, "The same for requests of any kind from the app's servers; 0: not limited.", between(0, 1_000_000)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One loaded file. A table of the file is a field here, by the same name."""

    listen: Listen = Listen()
    tls: Tls | None = None
    store: Store = Store()
    devices: Devices = Devices()
    log: Log = Log()
    drain: Drain = Drain()
    app: tuple[App, ...] = ()

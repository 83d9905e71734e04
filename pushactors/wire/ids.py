"""The names of things: identities that everybody shares, and how they are written.

1. Every identity has a type of its own; a bare `str` or `int` never stands for one.
2. What a person or program can name (alias, tag, msg_id) has one spelling, and is refused in any other.
3. Internal numbers (`AppNo`, `DeviceNo`, `UnitNo` …) never go on the wire.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final, NewType

from pushactors.errors import Invalid

AppKey = NewType("AppKey", str)
RegistrationId = NewType("RegistrationId", str)
Alias = NewType("Alias", str)
Tag = NewType("Tag", str)
Cid = NewType("Cid", str)
Consumer = NewType("Consumer", str)
"""The name under which an app server follows its receipts (C20)."""
MsgId = NewType("MsgId", int)
"""Unique in the whole server, increasing in order of acceptance, never used again. A decimal string on the wire."""

AppNo = NewType("AppNo", int)
DeviceNo = NewType("DeviceNo", int)
"""A mailbox: that of a device, or that of an alias which messages wait for (`hold`)."""
VisitId = NewType("VisitId", int)
"""One connection of one device; increasing, within one run of the process."""
VisitNo = NewType("VisitNo", int)
"""Counts the visits of one device, from 1, through restarts. 0: it is not known which one."""
Binding = NewType("Binding", int)
"""Counts the settings of the alias on one device: A, then B, then A again are three bindings."""
Cursor = NewType("Cursor", int)
"""The place of a receipt in its app's stream: 1, 2, 3 … without a gap. 0 is before the first. Text on the wire."""
UnitNo = NewType("UnitNo", int)
"""The place of one decision in its app's way to the disk. Increasing; 0 is before the first."""
Millis = NewType("Millis", int)
"""An instant: milliseconds since 1970, by the wall clock. Survives a restart."""


class Platform(StrEnum):
    ANDROID = "android"
    IOS = "ios"
    WEB = "web"
    DESKTOP = "desktop"
    OTHER = "other"


NAME_BYTES: Final = 40
# Letters and digits as the source documents have them (ASCII), their punctuation, and what Chinese, Japanese and
# Korean are written with: ideographs with extensions and compatibility forms, kana, bopomofo, hangul.
_NAME = re.compile(
    r"[A-Za-z0-9_@!#$&*+=.|\-"
    r"\u3005-\u3007\u3040-\u30ff\u3105-\u312f\u31f0-\u31ff"
    r"\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U000323af]+"
)
_NUMBER = re.compile(r"[1-9][0-9]{0,18}")
_LARGEST = 2**63 - 1

CID_BYTES: Final = 128
CONSUMER_BYTES: Final = 64
REGISTRATION_ID_CHARS: Final = 64


def _name(text: str, what: str, path: str) -> str:
    if not text:
        raise Invalid(f"{what} must not be empty.", path)
    if not _NAME.fullmatch(text):
        raise Invalid(f"{what} may have letters, digits, CJK and _@!#$&*+=.|- only.", path)
    if len(text.encode()) > NAME_BYTES:
        raise Invalid(f"{what} must have at most {NAME_BYTES} bytes in UTF-8.", path)
    return text


def parse_alias(text: str, path: str = "alias") -> Alias:
    """The alias that `text` spells. Raises `Invalid` with `path`; the empty alias is not one."""
    return Alias(_name(text, "An alias", path))


def parse_tag(text: str, path: str = "tags") -> Tag:
    """The tag that `text` spells. Raises `Invalid` with `path`."""
    return Tag(_name(text, "A tag", path))


def parse_msg_id(text: str, path: str = "msg_id") -> MsgId:
    """The message id that the decimal string `text` spells. Raises `Invalid` with `path`."""
    if _NUMBER.fullmatch(text) and int(text) <= _LARGEST:
        return MsgId(int(text))
    raise Invalid("A msg_id is a decimal string, as an answer to push gives it.", path)


def parse_cid(text: str, path: str = "cid") -> Cid:
    """The client's own name of a push request (C6). Raises `Invalid` with `path`."""
    if not text or not text.isprintable() or len(text.encode()) > CID_BYTES:
        raise Invalid(f"A cid has 1 to {CID_BYTES} bytes of printable text.", path)
    return Cid(text)


def parse_cursor(text: str, path: str = "cursor") -> Cursor:
    """The cursor that the decimal string `text` spells; "0" is before the first. Raises `Invalid` with `path`."""
    if text == "0":
        return Cursor(0)
    if _NUMBER.fullmatch(text) and int(text) <= _LARGEST:
        return Cursor(int(text))
    raise Invalid('A cursor is a decimal string, as a receipt has it; "0" is before all of them.', path)


def parse_consumer(text: str, path: str = "consumer") -> Consumer:
    """The name of a consumer (C20). Raises `Invalid` with `path`."""
    if not text or not text.isprintable() or len(text.encode()) > CONSUMER_BYTES:
        raise Invalid(f"A consumer has a name of 1 to {CONSUMER_BYTES} bytes of printable text.", path)
    return Consumer(text)

"""Why a visit ends: every WebSocket close code, its name, and whether the peer should come back by itself.

1. 4000 to 4499: come back by yourself. 4500 to 4999: do not; something must change first.
2. A connection that broke without a close frame (1005, 1006) is nobody's decision: come back.
3. A code that this version does not know is judged by its range, so that a later server can add codes.
"""

from __future__ import annotations

from enum import Enum


class Closing(Enum):
    NORMAL = 1000
    GOING_AWAY = 1001
    UNSUPPORTED = 1003
    """A binary frame."""
    NOT_UTF8 = 1007
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    DRAIN = 4000
    SILENT = 4001
    TOO_SLOW = 4002
    RESTARTED = 4003
    BUSY = 4004
    DISPLACED = 4500
    UNAUTHORIZED = 4501
    PROTOCOL = 4502
    REMOVED = 4503

    @property
    def code(self) -> int:
        return self.value

    @property
    def reason(self) -> str:
        return self.name.lower()

    @property
    def comes_back(self) -> bool:
        return comes_back(self.value)


def comes_back(code: int) -> bool:
    """Whether a peer whose visit was closed with `code` should connect again by itself."""
    return code in _COME_BACK or 4000 <= code < 4500


_NO_STATUS, _ABNORMAL = 1005, 1006
_COME_BACK = frozenset({Closing.GOING_AWAY.value, Closing.INTERNAL_ERROR.value, _NO_STATUS, _ABNORMAL})

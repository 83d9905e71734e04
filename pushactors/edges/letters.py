"""A message as devices get it: the same bytes for every device of one platform and alias.

1. A frame is made once for each push, platform and alias, and kept for those who get it next.
2. At most `KEPT` frames are kept, the oldest leaves first. They are at most a few kilobytes each.
"""

from __future__ import annotations

from typing import Any

from pushactors.domain.message import Message, merged
from pushactors.edges.frames import text_frame
from pushactors.wire.codec import decode
from pushactors.wire.ids import Alias, MsgId, Platform
from pushactors.wire.jsonrpc import note_frame

KEPT = 1_024


class Letters:
    def __init__(self) -> None:
        self._frames: dict[tuple[MsgId, Platform, Alias | None], bytes] = {}

    def frame(self, message: Message, platform: Platform, alias: Alias | None) -> bytes:
        """The WebSocket frame that brings `message`, addressed by `alias`, to a device of `platform`."""
        key = (message.msg_id, platform, alias)
        frame = self._frames.get(key)
        if frame is None:
            if len(self._frames) >= KEPT:
                del self._frames[next(iter(self._frames))]
            frame = self._frames[key] = text_frame(note_frame("message", params(message, platform, alias)))
        return frame


def params(message: Message, platform: Platform, alias: Alias | None) -> dict[str, Any]:
    """The params of the `message` notification."""
    body = decode(message.body)
    assert isinstance(body, dict)
    told: dict[str, Any] = {
        "msg_id": str(message.msg_id),
        "sent_at": message.sent_at,
        "expires_at": message.expires_at,
    }
    if alias is not None:
        told["alias"] = alias
    if message.overrides is not None:
        told["override_msg_id"] = str(message.overrides)
    if "notification" in body:
        told["notification"] = merged(body["notification"], platform)
    if "message" in body:
        told["message"] = body["message"]
    return told

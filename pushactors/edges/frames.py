"""WebSocket frames without a socket: bytes in, messages and control frames out; and the frames that a server sends.

1. `wsproto` parses, checks masks, fragments, lengths, control frames and UTF-8. This adds what it leaves to its user:
   bounds, and which close code goes with which fault.
2. A message is at most `max_message_bytes` (else 1009) in at most `MAX_FRAGMENTS` pieces (else 1008): what is kept of
   an unfinished message is bounded, empty fragments included.
3. Text only: a binary message is refused at its first piece (1003).
4. After a close frame or a fault, nothing more is read.
5. A server's frames are neither masked nor compressed, so the same bytes go to every peer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO

from wsproto.frame_protocol import CloseReason, Frame, FrameProtocol, Opcode, ParseFailed

MAX_FRAGMENTS = 1_024


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Ping:
    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    payload: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """The peer's close frame. `code` 1005: it gave none."""

    code: int


@dataclass(frozen=True, slots=True)
class Fault:
    """The peer broke the protocol: it is to be closed with `code`."""

    code: int
    reason: str


Event = Text | Ping | Pong | Closed | Fault


class FrameReader:
    """The receiving half of one connection. `feed` it bytes, then take the `events` until there are none."""

    __slots__ = ("_fragments", "_is_over", "_max_bytes", "_parser", "_size", "_unfinished")

    def __init__(self, max_message_bytes: int) -> None:
        self._parser = FrameProtocol(False, [])
        self._max_bytes = max_message_bytes
        self._unfinished: StringIO | None = None
        self._fragments = 0
        self._size = 0
        self._is_over = False

    def feed(self, data: bytes) -> None:
        if not self._is_over:
            self._parser.receive_bytes(data)

    def events(self) -> Iterator[Event]:
        if self._is_over:
            return
        try:
            for frame in self._parser.received_frames():
                event = self._event(frame)
                if event is not None:
                    self._is_over = isinstance(event, Closed | Fault)
                    yield event
                    if self._is_over:
                        return
        except ParseFailed as fault:
            self._is_over = True
            yield Fault(int(fault.code), str(fault))

    def _event(self, frame: Frame) -> Event | None:
        if frame.opcode is Opcode.TEXT:
            return self._text(frame)
        if frame.opcode is Opcode.PING:
            return Ping(bytes(frame.payload))  # type: ignore[arg-type]
        if frame.opcode is Opcode.PONG:
            return Pong(bytes(frame.payload))  # type: ignore[arg-type]
        if frame.opcode is Opcode.CLOSE:
            return Closed(int(frame.payload[0]))
        return Fault(int(CloseReason.UNSUPPORTED_DATA), "Text frames only.")

    def _text(self, frame: Frame) -> Event | None:
        piece = frame.payload
        assert isinstance(piece, str)
        # Characters are at least a byte each, so the first bound is exact enough to keep memory; the second is exact.
        self._size += len(piece)
        if self._size > self._max_bytes:
            return Fault(int(CloseReason.MESSAGE_TOO_BIG), f"A message has at most {self._max_bytes} bytes.")
        # A frame comes in as many pieces as the network cuts it into: those are nobody's fault, and are not counted.
        self._fragments += frame.frame_finished
        if self._fragments > MAX_FRAGMENTS:
            return Fault(int(CloseReason.POLICY_VIOLATION), f"A message has at most {MAX_FRAGMENTS} fragments.")
        if not frame.message_finished:
            self._unfinished = self._unfinished or StringIO()
            self._unfinished.write(piece)
            return None
        text = piece if self._unfinished is None else self._unfinished.getvalue() + piece
        self._unfinished = None
        self._fragments = self._size = 0
        if len(text) * 4 > self._max_bytes and len(text.encode()) > self._max_bytes:
            return Fault(int(CloseReason.MESSAGE_TOO_BIG), f"A message has at most {self._max_bytes} bytes.")
        return Text(text)


# --- What a server sends -----------------------------------------------------------------------------------------


def text_frame(payload: bytes) -> bytes:
    return _frame(Opcode.TEXT, payload)


def ping_frame(payload: bytes = b"") -> bytes:
    return _frame(Opcode.PING, payload)


def pong_frame(payload: bytes) -> bytes:
    return _frame(Opcode.PONG, payload)


def close_frame(code: int, reason: str) -> bytes:
    # A control frame has at most 125 bytes of payload.
    return _frame(Opcode.CLOSE, struct.pack("!H", code) + reason.encode()[:123].decode(errors="ignore").encode())


def _frame(opcode: Opcode, payload: bytes) -> bytes:
    first, length = 0x80 | opcode, len(payload)
    if length < 126:
        return bytes((first, length)) + payload
    if length < 1 << 16:
        return struct.pack("!BBH", first, 126, length) + payload
    return struct.pack("!BBQ", first, 127, length) + payload

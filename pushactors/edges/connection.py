"""One WebSocket connection after its handshake: text in, text out, until somebody closes it.

1. Frames are taken one at a time, as the owner asks for the next message: what it has not asked for waits with the
   peer. Pings are answered, and a close is heard, on the way. A peer that always has more to say leaves the others
   their turn after `FRAMES_A_TURN` frames.
2. What waits to be sent is bounded: over `max_outgoing_bytes` the peer is let go as too slow (C12), be it pongs.
3. The end is one: the first reason given counts. A close frame goes out behind what was put before, then the peer has
   `FAREWELL_S` to close as well; then the socket is closed, whatever the peer does.
"""

from __future__ import annotations

import trio

from pushactors.edges import frames
from pushactors.edges.stream import BROKEN, Stream

FAREWELL_S = 2.0
FRAMES_A_TURN = 32
PIECE_BYTES = 64
"""What a frame that waits costs beside its bytes, about: an object of its own, and its place in the list."""


class PeerFault(Exception):
    """The peer broke the WebSocket protocol, or went over its bounds: close it with `code`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Connection:
    """See the law on top. `stream` belongs to the connection from here on."""

    def __init__(self, stream: Stream, max_message_bytes: int, max_outgoing_bytes: int) -> None:
        self.stream = stream
        self.last_heard = trio.current_time()
        """When (Trio time) the peer was last heard of."""
        self.max_outgoing_bytes = max_outgoing_bytes
        self._reader = frames.FrameReader(max_message_bytes)
        self._frames = 0
        self._fault: PeerFault | None = None
        self._is_over = False
        self._is_closed_by_us = False

    # --- Sending -----------------------------------------------------------------------------------------------------

    @property
    def is_too_full(self) -> bool:
        stream = self.stream
        # The smallest frames, pongs, cost more than their bytes.
        return stream.outgoing_bytes + PIECE_BYTES * stream.outgoing_pieces > self.max_outgoing_bytes

    def put_text(self, payload: bytes) -> None:
        """Sends a text message. Over the bound nothing is put; who looks after the connection finds it too full."""
        self.put(frames.text_frame(payload))

    def put(self, frame: bytes) -> None:
        if not self._is_closed_by_us and not self.is_too_full:
            self.stream.put(frame)

    def ping(self) -> None:
        self.put(frames.ping_frame())

    # --- Receiving ---------------------------------------------------------------------------------------------------

    async def receive(self) -> str | None:
        """The peer's next text message; None when it has closed, or is gone. Raises `PeerFault`."""
        while self._fault is None:
            for event in self._reader.events():
                self._frames += 1
                if self._frames % FRAMES_A_TURN == 0:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                match event:
                    case frames.Text(text):
                        return text
                    case frames.Ping(payload):
                        self.put(frames.pong_frame(payload))
                    case frames.Closed(code):
                        self._answer_close(code)
                    case frames.Fault(code, reason):
                        self._fault = PeerFault(code, reason)
                    case frames.Pong():
                        pass
            if self._is_over:
                return None
            if self._fault is None:
                await self._read()
        raise self._fault

    async def _read(self) -> None:
        try:
            data = await self.stream.receive()
        except BROKEN:
            data = b""
        if data:
            self.last_heard = trio.current_time()
            self._reader.feed(data)
        else:
            self._is_over = True

    def _answer_close(self, code: int) -> None:
        self._is_over = True
        no_code = code == 1005
        self.put(frames.close_frame(1000 if no_code else code, ""))
        self._is_closed_by_us = True

    # --- Ending ------------------------------------------------------------------------------------------------------

    async def close(self, code: int, reason: str) -> None:
        """Closes, in bounded time. Cancelled, it still lets go of the socket."""
        with trio.CancelScope(shield=True), trio.move_on_after(FAREWELL_S):
            if not self._is_closed_by_us:
                self.stream.put(frames.close_frame(code, reason))
                self._is_closed_by_us = True
            await self.stream.flushed()
            await self._hear_out()
        with trio.CancelScope(shield=True):
            await self.stream.aclose()

    async def _hear_out(self) -> None:
        """Reads until the peer has finished: closing a socket with unread bytes would destroy what is on its way."""
        while not self._is_over:
            if any(isinstance(event, frames.Closed) for event in self._reader.events()):
                return
            try:
                data = await self.stream.receive()
            except BROKEN:
                return
            if not data:
                return
            self._reader.feed(data)

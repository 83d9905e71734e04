"""The receipts of an app as they come: one subscription, which outlives the connections that it is on (C20).

1. Receipts are handed out in their order, each cursor once: what the server sends again is passed over. Cursors are
   consecutive; where one is left out the stream ends with `ReceiptsMissing`, never in silence.
2. A receipt is taken when the application comes back for the next one, or says so. What is taken is acknowledged in
   bundles: a frame when it is taken whole, `BUNDLE` of one that is not, and the rest when the stream is closed.
3. What lies here is not acknowledged, and the server sends only so much before it waits: an application that does not
   keep up is held back. A server that sends more breaks the protocol.
4. After a break a consumer goes on behind what it acknowledged, a stream without one behind what it handed out. What
   lay here is forgotten: it comes again.
5. A newer subscription of the same consumer ends the stream at once: what lay here is for that one now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Final, Self

import trio
from trio.lowlevel import ParkingLot

from pushactors.clients.background import Background
from pushactors.clients.backoff import Backoff
from pushactors.clients.door import Door
from pushactors.clients.events import ConnectionLost
from pushactors.clients.line import Line
from pushactors.clients.link import CLOSE_LIMIT_S, Ending, Link
from pushactors.clients.partings import Closed, Disconnected
from pushactors.errors import Busy, Gone, InternalError, Invalid, PushactorsError
from pushactors.wire.answers import Receipt, ReceiptsEnded, ReceiptsNote, Subscribed
from pushactors.wire.app import Subscribe
from pushactors.wire.codec import structure, structure_answer
from pushactors.wire.ids import parse_cursor
from pushactors.wire.jsonrpc import Note

OUTSTANDING: Final = 8
"""Frames that a server may have sent and not seen acknowledged."""
BUNDLE: Final = 16
"""Receipts of an unfinished frame that are acknowledged together."""
ENDING_LIMIT_S: Final = 1.0
"""How long after a refused acknowledgement a server may take to say that the subscription has ended."""
_DISPLACED: Final = "displaced"

StreamEvent = Subscribed | ConnectionLost


class ReceiptsMissing(Gone):
    """Receipts were left out: those behind the cursor `after` and before the cursor `found`, both as text.

    What they said is in the reports of the pushes; a new stream goes on behind either.
    """

    def __init__(self, after: int, found: int) -> None:
        super().__init__(f"Receipts are missing: behind cursor {after} the server went on with {found}.")
        self.after = str(after)
        self.found = str(found)


class StreamDisplaced(Gone):
    """A newer subscription of the same consumer took over: two processes use one name."""


class Course:
    """How far a stream has come, and what lies between the server and the application."""

    def __init__(self, after: int | None, *, takes_by_itself: bool) -> None:
        """`after`: the first receipt is behind it. None: the server says behind which."""
        self.handed = after
        """The last cursor that was handed out, or behind which the first one is."""
        self.acknowledged = 0
        """What the server has of this subscription, or that it began with."""
        self._takes_by_itself = takes_by_itself
        self._taken = 0
        self._asked = 0
        self._received: int | None = None
        self._told = 0
        self._waiting: deque[Receipt] = deque()
        # The last cursor of each frame that came and was not acknowledged.
        self._frames: deque[int] = deque()

    # --- What the server says ----------------------------------------------------------------------------------

    def break_off(self) -> None:
        """Nothing more comes of the present subscription."""
        self._received = None
        self._waiting.clear()
        self._frames.clear()

    def begin(self, cursor: int) -> None:
        """Receipts behind this cursor come next. Raises `ReceiptsMissing`."""
        if self.handed is None:
            self.handed = cursor
        if cursor > self.handed:
            raise ReceiptsMissing(self.handed, cursor + 1)
        self._received = self._told = self.acknowledged = cursor

    def arrive(self, note: ReceiptsNote) -> None:
        """Raises `ReceiptsMissing`, and `Invalid` for what no server may say."""
        if self._received is None or self.handed is None:
            raise Invalid("receipts came before the answer to the subscription.", "receipts")
        if not note.events or note.cursor != note.events[-1].cursor:
            raise Invalid("cursor must be that of the last event.", "receipts.cursor")
        if len(self._frames) == OUTSTANDING:
            raise Invalid(f"more than {OUTSTANDING} frames came unacknowledged.", "receipts")
        for receipt in note.events:
            cursor = parse_cursor(receipt.cursor, "receipts.events.cursor")
            if cursor > self._received + 1:
                raise ReceiptsMissing(self._received, cursor)
            self._received = max(self._received, cursor)
            if cursor > self.handed + len(self._waiting):
                self._waiting.append(receipt)
        self._frames.append(self._received)

    # --- What the application does -----------------------------------------------------------------------------

    def come_back(self) -> None:
        """The application is done with what it was handed, unless it says so itself."""
        if self._takes_by_itself and self.handed is not None:
            self._taken = self.handed

    def hand_out(self) -> Receipt | None:
        if not self._waiting:
            return None
        receipt = self._waiting.popleft()
        self.handed = int(receipt.cursor)
        return receipt

    def take(self, cursor: int) -> None:
        """Everything up to this cursor is done with, and is told without waiting for more."""
        self._taken = max(self._taken, cursor)
        self._asked = max(self._asked, cursor)

    def take_leave(self) -> None:
        """What is taken is told without waiting for more."""
        self._asked = self._taken

    # --- What is told to the server ----------------------------------------------------------------------------

    def due(self) -> int | None:
        """The cursor to acknowledge now, if there is one."""
        if self._received is None:
            return None
        whole = [last for last in self._frames if last <= self._taken]
        cursor = max([self._asked, *whole])
        if self._taken - self._told >= BUNDLE:
            # A frame can hold thousands: who is slow over it, and dies, must not begin it again and again.
            cursor = max(cursor, self._taken)
        # What was taken before a break may be more than was sent since; the server knows only of that.
        cursor = min(cursor, self._received)
        return cursor if cursor > self._told else None

    def tell(self, cursor: int) -> None:
        """This is being told."""
        self._told = cursor
        while self._frames and self._frames[0] <= cursor:
            self._frames.popleft()

    def heard(self, cursor: int) -> None:
        """The server has confirmed it."""
        self.acknowledged = max(self.acknowledged, cursor)

    def unheard(self) -> None:
        """The server did not take it now: it is due again."""
        self._told = self.acknowledged

    @property
    def is_owing(self) -> bool:
        """Whether something is due, or told and not yet confirmed."""
        return self.due() is not None or (self._received is not None and self._told > self.acknowledged)


class ReceiptStream:
    """Made by `AppClient.receipts`. Used with `async with` and `async for`, by one task."""

    def __init__(
        self,
        door: Door,
        backoff: Backoff,
        consumer: str | None,
        after: str | None,
        *,
        timeout_s: float,
        auto_acknowledge: bool,
        on_event: Callable[[StreamEvent], None] | None,
    ) -> None:
        """Raises `Invalid` if it is not said where to begin."""
        given = {"consumer": consumer, "after": after}
        wanted = structure(Subscribe, {name: value for name, value in given.items() if value is not None})
        self._consumer = wanted.consumer
        self._after = wanted.after
        self._course = Course(wanted.after, takes_by_itself=auto_acknowledge)
        self._changed = ParkingLot()
        self._line = Line(door, self, backoff, self._changed)
        self._link: Link | None = None
        self._timeout_s = timeout_s
        self._on_event = on_event
        self._background = Background()
        self._has_begun = False
        self._is_iterated = False

    async def __aenter__(self) -> Self:
        """Returns when the subscription stands: what is pushed afterwards has its receipts in the stream, too.

        Raises what it was refused with, as `CursorGone`, or `Disconnected`."""
        await self._background.open(self._line.run, self._acknowledge)
        try:
            await self._line.wait_link_within(self._timeout_s)
        except BaseException:
            await self._background.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._line.error is None and (error is None or isinstance(error, Exception)):
                with trio.move_on_after(CLOSE_LIMIT_S):
                    await self._flush()
                    await self._line.aclose()
        finally:
            self._line.end(Closed("This stream has been closed."))
            await self._background.close()

    # --- For the application -----------------------------------------------------------------------------------

    @property
    def cursor(self) -> str | None:
        """That of the receipt handed out last, or behind which the first one is. None before the first subscription."""
        return None if self._course.handed is None else str(self._course.handed)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Receipt:
        """The next receipt; those before it are taken. Raises why there will be none any more."""
        if self._is_iterated:
            raise trio.BusyResourceError("Another task is waiting for the next receipt.")
        self._is_iterated = True
        try:
            self._course.come_back()
            self._changed.unpark_all()
            await trio.lowlevel.checkpoint()
            while True:
                # Before a look at what lies here: after the end of the line it is not ours to hand out.
                self._line.check()
                if (receipt := self._course.hand_out()) is not None:
                    return receipt
                await self._changed.park()
        finally:
            self._is_iterated = False

    async def acknowledge(self, receipt: Receipt) -> None:
        """Says that this receipt and all before it are done with. On return the server has it, for a consumer on disk.

        Raises `Invalid` for a receipt that this stream did not hand out, or why the stream has ended."""
        cursor = parse_cursor(receipt.cursor)
        if self._course.handed is None or cursor > self._course.handed:
            raise Invalid("This stream has not handed that receipt out.", "cursor")
        self._course.take(cursor)
        self._changed.unpark_all()
        await trio.lowlevel.checkpoint()
        while self._course.acknowledged < cursor:
            self._line.check()
            await self._changed.park()

    # --- Acknowledging -----------------------------------------------------------------------------------------

    async def _acknowledge(self) -> None:
        # One at a time: what is taken while the answer is on its way is the next bundle.
        lost: Link | None = None
        while self._line.error is None:
            link, cursor = self._line.link, self._course.due()
            if link is None or link is lost or cursor is None:
                await self._changed.park()
                continue
            self._course.tell(cursor)
            try:
                await link.request("receipts.ack", {"cursor": str(cursor)}, partial(self._acknowledged, cursor))
            except Disconnected:
                lost = link
            except (Busy, InternalError) as error:
                self._course.unheard()
                await trio.sleep(error.retry_after_s if isinstance(error, Busy) else 1)
            except PushactorsError as error:
                await self._refused(link, error)

    async def _refused(self, link: Link, error: PushactorsError) -> None:
        # A subscription that has just ended takes no acknowledgement, and how it ended is on its way.
        with trio.move_on_after(ENDING_LIMIT_S):
            while self._line.error is None and not link.is_over:
                await self._changed.park()
        if not link.is_over:
            self._line.end(error)

    def _acknowledged(self, cursor: int, _: object) -> None:
        self._course.heard(cursor)
        self._changed.unpark_all()

    async def _flush(self) -> None:
        self._course.take_leave()
        self._changed.unpark_all()
        while self._line.error is None and self._link is not None and not self._link.is_over:
            if not self._course.is_owing:
                return
            await self._changed.park()

    # --- What the line asks of its owner -----------------------------------------------------------------------

    async def greet(self, link: Link) -> None:
        self._link = link
        self._course.break_off()
        subscribed = await link.request("receipts.subscribe", self._place(), self._subscribed)
        if self._on_event is not None and self._line.error is None:
            self._on_event(subscribed)

    def _place(self) -> dict[str, object]:
        """Where to go on. A consumer is moved once, until that is confirmed."""
        if self._consumer is None:
            return {"after": str(self._course.handed)}
        if self._after is None or self._has_begun:
            return {"consumer": self._consumer}
        return {"consumer": self._consumer, "after": str(self._after)}

    def _subscribed(self, result: object) -> Subscribed:
        subscribed = structure_answer(Subscribed, result)
        self._has_begun = True
        try:
            self._course.begin(parse_cursor(subscribed.cursor))
        except ReceiptsMissing as error:
            # At once, because what comes behind the answer would be handed out. Nor may it be raised here.
            self._line.end(error)
        return subscribed

    def hear(self, note: Note) -> None:
        if self._line.error is not None:
            return
        match note.method:
            case "receipts":
                try:
                    self._course.arrive(structure_answer(ReceiptsNote, note.params, "receipts"))
                except ReceiptsMissing as error:
                    self._line.end(error)
                self._changed.unpark_all()
            case "receipts.ended":
                self._ended(structure_answer(ReceiptsEnded, note.params, "receipts.ended").reason)

    def _ended(self, reason: str) -> None:
        if reason == _DISPLACED:
            self._line.end(StreamDisplaced(f"A newer subscription of the consumer {self._consumer} took over."))
        elif self._link is not None:
            # Nobody else has it: the next subscription works, or is refused by name.
            self._link.lose(f"the subscription ended: {reason}")

    async def parted(self, ending: Ending, retry_after_s: float | None) -> None:
        if self._on_event is not None:
            self._on_event(ConnectionLost(ending.reason, ending.code, retry_after_s))

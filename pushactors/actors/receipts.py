"""The receipt stream of one app: who follows it, how far each has come, and what comes next (C20).

1. A receipt is read from the store, so it is durable before it is told (C2), and nobody can be told of one and not of
   another: cursors are consecutive, and a gap ends the subscription by name.
2. A consumer resumes behind the last cursor that it acknowledged; where that is, is durable before it is answered.
3. One live subscription a consumer: a newer one displaces it.
4. Who does not acknowledge is held back, and costs nothing: what it has not been sent lies in the store.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import trio

from pushactors.actors.tenant import Tenant
from pushactors.domain.receipts import Progress
from pushactors.errors import CursorGone, Invalid
from pushactors.stores.contract import ConsumerMoved, ReceiptPage, ReceiptRow, Store
from pushactors.stores.patience import patient
from pushactors.wire.ids import Consumer, Cursor

RECEIPTS_IN_A_FRAME = 4_000
"""Some 130 bytes each: a frame stays well under the 1 MiB that WebSocket libraries take unless told otherwise."""
CONSUMERS = 1_000
"""Names that one app may have: each is kept for ever."""


class Ended(Enum):
    """Why a subscription is over, unasked."""

    DISPLACED = "displaced"
    CURSOR_GONE = "cursor_gone"


class Subscription:
    """One live subscription. `next_page` is for its own task; everything else is done at once."""

    def __init__(self, stream: Receipts, consumer: Consumer | None, position: Cursor) -> None:
        self.consumer = consumer
        self.progress = Progress(position)
        self.is_over = False
        self.ended: Ended | None = None
        """Why it is over, if that was not asked for."""
        self.on_end: Callable[[], None] | None = None
        """Called once, when it is over."""
        self._stream = stream
        self._changed = trio.Event()

    def wake(self) -> None:
        """There is something new, or room for it."""
        self._changed.set()

    def end(self, why: Ended | None) -> None:
        """`why` None: whoever has it asked for it."""
        if not self.is_over:
            self.is_over = True
            self.ended = why
            self._stream.leave(self)
            self.wake()
            if self.on_end is not None:
                self.on_end()

    async def next_page(self) -> list[ReceiptRow] | None:
        """The next receipts, once there are some and not too much is outstanding; None when it is over."""
        while not self.is_over:
            self._changed = trio.Event()
            if self.progress.may_send:
                page = await self._stream.read(self.progress.position)
                if self.is_over:
                    break
                if page.rows and page.rows[0].cursor == self.progress.position + 1:
                    self.progress.sent(page.rows[-1].cursor)
                    return list(page.rows)
                if page.last > self.progress.position:
                    # It was held back until what comes next was cut off.
                    self.end(Ended.CURSOR_GONE)
                    break
            await self._changed.wait()
        return None


class Receipts:
    """See the law on top."""

    def __init__(self, tenant: Tenant, store: Store) -> None:
        self._tenant = tenant
        self._store = store
        self._positions: dict[Consumer, Cursor] = {}
        self._live: dict[Consumer, Subscription] = {}

    async def load(self) -> None:
        """Reads who is where. Nobody is answered before that."""
        self._positions = dict(await patient(lambda: self._store.consumers(self._tenant.app_no)))

    async def read(self, after: Cursor) -> ReceiptPage:
        return await patient(lambda: self._store.receipts(self._tenant.app_no, after, RECEIPTS_IN_A_FRAME))

    async def subscribe(self, consumer: Consumer | None, after: Cursor | None) -> Subscription:
        """Behind `after` ("0": with the oldest kept), else where `consumer` is, else from now on. To be told when it is
        durable. Raises `CursorGone`, `Invalid`; then nothing has changed."""
        while True:
            # What is decided and not durable yet comes after "now".
            wanted = self._wanted(consumer, after)
            page = await patient(
                lambda: self._store.receipts(self._tenant.app_no, Cursor(0) if wanted is None else wanted, 1)  # noqa: B023
            )
            if wanted == self._wanted(consumer, after):
                break  # else the one that it displaces has acknowledged something meanwhile
        position = page.last if wanted is None else self._kept(wanted, page, is_everything=after == 0)
        subscription = Subscription(self, consumer, position)
        if consumer is not None:
            self._claim(consumer, subscription)
        self._tenant.book.followers[subscription.wake] = None
        return subscription

    def _wanted(self, consumer: Consumer | None, after: Cursor | None) -> Cursor | None:
        return self._positions.get(consumer) if after is None and consumer is not None else after

    @staticmethod
    def _kept(wanted: Cursor, page: ReceiptPage, is_everything: bool) -> Cursor:
        """Behind which cursor it begins, if nothing between is missing."""
        if wanted > page.last:
            raise Invalid(f"This app's newest receipt is {page.last}: that cursor is of another store.", "after")
        following = page.rows[0].cursor if page.rows else Cursor(page.last + 1)
        if is_everything:
            return Cursor(following - 1)
        if following != wanted + 1:
            oldest = str(page.oldest)
            raise CursorGone(f"What came behind this cursor is not kept any more; the oldest kept is {oldest}.", oldest)
        return wanted

    def _claim(self, consumer: Consumer, subscription: Subscription) -> None:
        position = subscription.progress.position
        if consumer not in self._positions and len(self._positions) >= CONSUMERS:
            raise Invalid(f"This app has {CONSUMERS} consumers already: use the name of one of them.", "consumer")
        displaced = self._live.get(consumer)
        if displaced is not None:
            displaced.end(Ended.DISPLACED)
        self._live[consumer] = subscription
        if self._positions.get(consumer) != position:
            self._move(consumer, position)

    def acknowledge(self, subscription: Subscription, cursor: Cursor) -> None:
        """Everything up to `cursor` is done with. To be told when it is durable. Raises `Invalid`."""
        has_moved = subscription.progress.acknowledge(cursor)
        subscription.wake()
        if has_moved and subscription.consumer is not None:
            self._move(subscription.consumer, cursor)

    def leave(self, subscription: Subscription) -> None:
        """For the subscription: it is over."""
        self._tenant.book.followers.pop(subscription.wake, None)
        if subscription.consumer is not None and self._live.get(subscription.consumer) is subscription:
            del self._live[subscription.consumer]

    def _move(self, consumer: Consumer, cursor: Cursor) -> None:
        self._positions[consumer] = cursor
        unit = self._tenant.book.open()
        unit.changes.append(ConsumerMoved(self._tenant.app_no, consumer, cursor))
        unit.close()

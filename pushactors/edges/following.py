"""One session's receipt stream: asking for it, being sent it, and saying how far one has come (C20).

1. One subscription a connection. Its answer comes before its first receipts.
2. What happens to the stream without being asked for is told (`receipts.ended`), by name.
3. With the session the subscription ends, and nobody is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import trio

from pushactors.actors.receipts import Receipts, Subscription
from pushactors.edges.results import Result
from pushactors.errors import Invalid
from pushactors.stores.contract import ReceiptRow
from pushactors.wire import app as wire
from pushactors.wire.codec import structure
from pushactors.wire.device import Nothing
from pushactors.wire.jsonrpc import note_frame


class Following:
    """See the law on top. `send` puts a frame behind everything that was sent before."""

    def __init__(self, receipts: Receipts, send: Callable[[bytes], None]) -> None:
        self._receipts = receipts
        self._send = send
        self._subscription: Subscription | None = None
        self._is_subscribing = False
        self._is_answered = False
        self._begun = trio.Event()

    def has(self, method: str) -> bool:
        return method in self._methods

    async def call(self, method: str, params: Mapping[str, object]) -> Result:
        """Raises what the peer is to be told."""
        result: Result = await self._methods[method](self, params)
        return result

    async def run(self) -> None:
        """Sends receipts for as long as the session lasts: cancel it then."""
        try:
            while True:
                await self._begun.wait()
                self._begun = trio.Event()
                if self._subscription is not None:
                    await self._feed(self._subscription)
        finally:
            if self._subscription is not None:
                self._subscription.end(None)

    async def _feed(self, subscription: Subscription) -> None:
        while (rows := await subscription.next_page()) is not None:
            events = [_told(row) for row in rows]
            self._send(note_frame("receipts", {"events": events, "cursor": str(rows[-1].cursor)}))

    def _answered(self, subscription: Subscription) -> None:
        """Its answer has been sent: its receipts may follow, or its end, if that has come already."""
        if subscription is not self._subscription:
            return
        self._is_answered = True
        if subscription.is_over:
            self._ended(subscription)
        else:
            self._begun.set()

    def _ended(self, subscription: Subscription) -> None:
        """It is over. Told at once: nothing that comes later may be taken for its own."""
        if subscription is not self._subscription or not self._is_answered:
            return
        self._subscription = None
        if subscription.ended is not None:
            self._send(note_frame("receipts.ended", {"reason": subscription.ended.value}))

    # --- Methods -----------------------------------------------------------------------------------------------------

    async def _subscribe(self, params: object) -> Result:
        asked = structure(wire.Subscribe, params)
        if self._is_subscribing or self._subscription is not None:
            raise Invalid("There is a subscription on this connection: unsubscribe it, or use another connection.")
        self._is_subscribing = True
        try:
            subscription = await self._receipts.subscribe(asked.consumer, asked.after)
        finally:
            self._is_subscribing = False
        self._subscription = subscription
        self._is_answered = False
        subscription.on_end = partial(self._ended, subscription)
        return Result({"cursor": str(subscription.progress.position)}, then=partial(self._answered, subscription))

    async def _acknowledge(self, params: object) -> Result:
        asked = structure(wire.AckReceipts, params)
        self._receipts.acknowledge(self._present(), asked.cursor)
        return Result(None)

    async def _unsubscribe(self, params: object) -> Result:
        structure(Nothing, params)
        subscription = self._present()
        self._subscription = None
        subscription.end(None)
        return Result(None)

    def _present(self) -> Subscription:
        if self._subscription is None or self._subscription.is_over:
            raise Invalid("There is no subscription on this connection; receipts.subscribe makes one.")
        return self._subscription

    _methods: Mapping[str, Callable[[Any, Any], Any]] = {
        "receipts.subscribe": _subscribe,
        "receipts.ack": _acknowledge,
        "receipts.unsubscribe": _unsubscribe,
    }


def _told(row: ReceiptRow) -> dict[str, Any]:
    told: dict[str, Any] = {
        "cursor": str(row.cursor),
        "msg_id": str(row.msg_id),
        "registration_id": row.registration_id,
        "event": row.event.word,
        "at": row.at,
    }
    if row.alias is not None:
        told["alias"] = row.alias
    if row.reason is not None:
        why, since, behind = row.reason
        told["reason"] = {"why": why, "behind": behind} if behind is not None else {"why": why, "since": since}
    return told

"""Asking a store again when it did not answer.

1. Only `StoreBusy` is asked again; what an operation's contract says makes that safe.
2. Waits double from 10 ms to 1 s; after `patience_s` in all the last error is raised, as final.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from pushactors.errors import StoreBusy

T = TypeVar("T")
log = logging.getLogger(__name__)

PATIENCE_S = 30.0


async def patient(operation: Callable[[], Awaitable[T]], patience_s: float = PATIENCE_S) -> T:
    """What `operation` returns, once the store answers. Raises whatever it raises, `StoreBusy` after `patience_s`."""
    give_up_at = trio.current_time() + patience_s
    pause_s = 0.01
    while True:
        try:
            return await operation()
        except StoreBusy as busy:
            if trio.current_time() + pause_s > give_up_at:
                raise
            log.warning("The store did not answer (%s); asking again in %.2f s.", busy, pause_s)
        await trio.sleep(pause_s)
        pause_s = min(2 * pause_s, 1.0)

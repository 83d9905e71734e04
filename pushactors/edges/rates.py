"""How often: token buckets, by whatever is limited.

1. A bucket holds `burst` tokens and gains `per_s` each second. Who finds it empty is told when the next one comes.
2. Buckets that are full are forgotten, so that their number is bounded by what happened lately.
"""

from __future__ import annotations

import math
from collections import deque

import trio

from pushactors.errors import RateLimited, TooFrequent

FORGET_ABOVE = 10_000


class Rates:
    """Buckets by key. `per_s` 0: no limit."""

    def __init__(self, what: str, per_s: float, burst: float) -> None:
        self._what = what
        self._per_s = per_s
        self._burst = burst
        self._buckets: dict[str, tuple[float, float]] = {}

    def change(self, per_s: float) -> None:
        """Another rate from now on, and a second of it at once."""
        self._per_s = self._burst = per_s

    def take(self, key: str) -> None:
        """Takes a token. Raises `RateLimited`."""
        if not self._per_s:
            return
        now = trio.current_time()
        tokens, then = self._buckets.get(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - then) * self._per_s)
        if tokens < 1:
            wait_s = math.ceil((1 - tokens) / self._per_s)
            raise RateLimited(f"Too many {self._what}. Try again in {wait_s} s.", wait_s)
        self._buckets[key] = (tokens - 1, now)
        if len(self._buckets) > FORGET_ABOVE:
            self._forget(now)

    def _forget(self, now: float) -> None:
        full_after_s = self._burst / self._per_s
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if bucket[1] + full_after_s > now}


class Changes:
    """The alias and tag changes of one device: at most `MOST` in `WITHIN_S`."""

    MOST = 10
    WITHIN_S = 10.0

    __slots__ = ("_at",)

    def __init__(self) -> None:
        self._at: deque[float] = deque()

    def check(self) -> None:
        """Raises `TooFrequent` if one more would be too many."""
        now = trio.current_time()
        while self._at and self._at[0] <= now - self.WITHIN_S:
            self._at.popleft()
        if len(self._at) >= self.MOST:
            wait_s = math.ceil(self._at[0] + self.WITHIN_S - now)
            raise TooFrequent(
                f"At most {self.MOST} alias or tag changes in {self.WITHIN_S:.0f} s on one device. "
                f"Try again in {wait_s} s.",
                wait_s,
            )

    def count(self) -> None:
        self._at.append(trio.current_time())

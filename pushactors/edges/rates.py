"""How often: token buckets, by whatever is limited.

1. A bucket holds `burst` tokens and gains `per_s` each second. Who finds it empty is told when the next one comes.
2. Buckets that are full are forgotten, so that their number is bounded by what happened lately.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import islice

import trio

from pushactors.errors import RateLimited, TooFrequent
from pushactors.wire.ids import DeviceNo

FORGET_ABOVE = 10_000
KEPT_AT_MOST = 500_000


class Rates:
    """Buckets by key. `per_s` 0: no limit."""

    def __init__(self, what: str, per_s: float, burst: float) -> None:
        self._what = what
        self._per_s = per_s
        self._burst = burst
        self._buckets: dict[str, tuple[float, float]] = {}
        self._forget_above = FORGET_ABOVE

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
        if len(self._buckets) > self._forget_above:
            self._forget(now)

    def _forget(self, now: float) -> None:
        full_after_s = self._burst / self._per_s
        kept = {key: bucket for key, bucket in self._buckets.items() if bucket[1] + full_after_s > now}
        # Those of many strangers at once may all be young: then the oldest go, so that their number stays bounded.
        self._buckets = dict(islice(kept.items(), max(0, len(kept) - KEPT_AT_MOST), None))
        self._forget_above = max(FORGET_ABOVE, 2 * len(self._buckets))


class Changes:
    """The alias and tag changes of each device: at most `MOST` in `WITHIN_S`, on however many visits."""

    MOST = 10
    WITHIN_S = 10.0

    def __init__(self) -> None:
        self._at: dict[DeviceNo, deque[float]] = {}
        self._forget_above = FORGET_ABOVE

    def check(self, device_no: DeviceNo) -> None:
        """Raises `TooFrequent` if one more would be too many."""
        at = self._at.get(device_no)
        if at is None:
            return
        now = trio.current_time()
        while at and at[0] <= now - self.WITHIN_S:
            at.popleft()
        if not at:
            del self._at[device_no]
        if len(at) >= self.MOST:
            wait_s = math.ceil(at[0] + self.WITHIN_S - now)
            raise TooFrequent(
                f"At most {self.MOST} alias or tag changes in {self.WITHIN_S:.0f} s on one device. "
                f"Try again in {wait_s} s.",
                wait_s,
            )

    def count(self, device_no: DeviceNo) -> None:
        now = trio.current_time()
        self._at.setdefault(device_no, deque(maxlen=self.MOST)).append(now)
        if len(self._at) > self._forget_above:
            self._at = {each: at for each, at in self._at.items() if at[-1] > now - self.WITHIN_S}
            self._forget_above = max(FORGET_ABOVE, 2 * len(self._at))

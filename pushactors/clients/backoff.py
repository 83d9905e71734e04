"""How long to wait before the next try: longer each time, and never together with everybody else.

1. The wait is a random share of a span (full jitter): a thousand clients that lost the same server come back spread.
2. The span doubles from `base_s` to `cap_s`, until `reset`.
"""

from __future__ import annotations

import random
from collections.abc import Callable

BASE_S = 0.5
CAP_S = 60.0


class Backoff:
    """`chance` gives numbers from 0 to 1."""

    def __init__(
        self, base_s: float = BASE_S, cap_s: float = CAP_S, chance: Callable[[], float] = random.random
    ) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._chance = chance
        self._span_s = base_s

    def next_s(self) -> float:
        wait_s = self._chance() * self._span_s
        self._span_s = min(self._span_s * 2, self._cap_s)
        return wait_s

    def reset(self) -> None:
        self._span_s = self._base_s

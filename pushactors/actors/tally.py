"""What happened, counted: plain numbers that only grow, under the names that operators see.

1. Counting cannot fail and costs next to nothing; nobody decides anything by these numbers.
2. A name may have one label. Whoever renders them adds the prefix of the product.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator


class Tally:
    """Counters by (name, label)."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, name: str, label: str = "", count: int = 1) -> None:
        self._counts[name, label] += count

    def read(self, name: str, label: str = "") -> int:
        return self._counts[name, label]

    def __iter__(self) -> Iterator[tuple[str, str, int]]:
        """(name, label, count), sorted."""
        return ((name, label, count) for (name, label), count in sorted(self._counts.items()))

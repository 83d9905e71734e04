"""What a method answers, and when it may be told.

1. What says something of what is decided waits until that is durable (C2); what was read when it was, does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Result(NamedTuple):
    value: object
    waits: bool = True
    """Whether it is told only when everything that its app has decided so far is durable."""
    then: Callable[[], None] | None = None
    """What happens behind its answer, in the same turn."""

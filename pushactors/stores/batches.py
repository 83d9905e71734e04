"""Which changes of a commit may be written together, so that a database is asked for few large statements.

1. A batch holds changes of one kind, in their order, and names no device, push or delivery twice.
2. Written batch by batch, a commit leaves behind what it would have left one change at a time, and ignores as many.
3. A change joins the last batch of its kind, unless a later batch touches what it touches.

Few statements, because each one costs the writer's thread a wait for the interpreter, up to 5 ms beside a busy loop:
1,000 rows by `executemany` took 2.5 s there, in one statement 20 ms.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import NamedTuple, TypeAlias

from pushactors.stores.contract import (
    Accepted,
    AppAdded,
    Change,
    DeviceDeleted,
    IdsReserved,
    Marked,
    Registered,
    Settled,
    Struck,
)

Batch: TypeAlias = list[Change]


class Touch(NamedTuple):
    """`own`: what nothing else in its batch may name. It comes after everything that left `after` behind."""

    own: Hashable
    leaves: Hashable = None
    after: Hashable = None


def batches(changes: Iterable[Change]) -> list[Batch]:
    """The changes in an order in which they can be written, a batch at a time."""
    made: list[Batch] = []
    newest: dict[type[Change], int] = {}
    last: dict[Hashable, int] = {}
    for change in changes:
        own, leaves, after = _touch(change)
        at = newest.get(type(change), -1)
        if at <= max(last.get(own, -1), last.get(after, -1)):
            at = newest[type(change)] = len(made)
            made.append([])
        made[at].append(change)
        if own is not None:
            last[own] = at
        if leaves is not None:
            last[leaves] = max(at, last.get(leaves, -1))
    return made


def _touch(change: Change) -> Touch:
    match change:
        case Settled() | Struck() | Marked():
            # Of one push, deliveries do not mind each other: a broadcast is received and opened in any order.
            return Touch((change.msg_id, change.device_no), ("deliveries", change.msg_id), ("push", change.msg_id))
        case Accepted():
            return Touch(("push", change.message.msg_id), after=("deliveries", change.message.msg_id))
        case Registered():
            # A deletion frees an install key for the next registration, so these two keep their order.
            return Touch(change.device.device_no, "registered", "deleted")
        case DeviceDeleted():
            return Touch(change.device_no, "deleted", "registered")
        case AppAdded() | IdsReserved():
            return Touch(None)
        case _:
            return Touch(change.device_no)

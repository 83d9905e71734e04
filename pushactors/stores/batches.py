"""Which changes of a commit may be written together, so that a database is asked for few large statements.

1. A batch holds changes of one kind, in their order, and names no device, push or delivery twice.
2. Written batch by batch, a commit leaves behind what it would have left one change at a time, and ignores as many.
3. A change joins the last batch of its kind, unless a later batch touches what it touches.

Few statements, because each one costs the writer's thread a wait for the interpreter, up to 5 ms beside a busy loop:
1,000 rows by `executemany` took 2.5 s there, in one statement 20 ms.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TypeAlias

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
_INSTALLS = "installs"


def batches(changes: Iterable[Change]) -> list[Batch]:
    """The changes in an order in which they can be written, a batch at a time."""
    made: list[Batch] = []
    newest: dict[type[Change], int] = {}
    touched: dict[Hashable, int] = {}
    for change in changes:
        own, shared = _touches(change)
        at = newest.get(type(change), -1)
        if at < 0 or at <= touched.get(own, -1) or at < touched.get(shared, -1):
            at = newest[type(change)] = len(made)
            made.append([])
        made[at].append(change)
        if own is not None:
            touched[own] = at
        if shared is not None:
            touched[shared] = at
    return made


def _touches(change: Change) -> tuple[Hashable, Hashable]:
    """What no other change of its batch may touch, and what only changes of its own kind may touch beside it."""
    match change:
        case Settled() | Struck() | Marked():
            return (change.msg_id, change.device_no), (change.msg_id,)
        case Accepted():
            return (change.message.msg_id,), None
        case Registered():
            # A deletion frees an install key for the next registration, so these two keep their order.
            return change.device.device_no, _INSTALLS
        case DeviceDeleted():
            return change.device_no, _INSTALLS
        case AppAdded() | IdsReserved():
            return None, None
        case _:
            return change.device_no, None

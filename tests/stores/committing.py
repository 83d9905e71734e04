"""A process that commits numbered batches to a store until it is killed, and prints each number once it is durable.

Batch n accepts push n for every device and gives every device's delivery of push n - 1 its verdict, so half a batch
would show. Run as `python -m tests.stores.committing <path>`; with `hold` behind it, it opens the store and waits.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from pushactors.stores.sqlite import SqliteStore
from tests.stores.rows import APPS, accepted, registered, settled

DEVICES = range(1, 21)


async def main(path: Path, hold: bool) -> None:
    store = SqliteStore(path)
    opened = await store.open()
    number = opened.last_commit
    if number == 0:
        number = 1
        await store.commit(number, [*APPS, *registered(*DEVICES), accepted(1, *DEVICES)])
    if hold:
        print("held", flush=True)  # noqa: T201
        await trio.to_thread.run_sync(sys.stdin.read)
    while not hold:
        number += 1
        verdicts = [settled(number - 1, no) for no in DEVICES]
        await store.commit(number, [accepted(number, *DEVICES), *verdicts])
        print(number, flush=True)  # noqa: T201
    await store.aclose()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), "hold" in sys.argv[2:])

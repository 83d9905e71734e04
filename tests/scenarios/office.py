"""An app server that makes sure: `python office.py PORT FOLDER SEED ORDERS PACE_S`, as often as it is killed.

1. It pushes ORDERS orders, one each PACE_S from the first start on, to aliases that SEED decides, each with a `cid`.
   So it may begin at the first one again whenever it starts, and gets the first answers. They are in `answers`.
2. It follows the receipts as the consumer `office`; each is a line in `receipts` before it is acknowledged.
3. What is overdue gets a measure before its receipt is acknowledged: an even order a reminder that replaces it, an odd
   one is recalled. What the recall was answered is a line in `recalls`.
"""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import trio

from pushactors import AppClient, Disconnected, Receipt
from pushactors.clients.backoff import Backoff

USERS = ["anna", "bert", "carl", "dora", "emil"]
DELIVER_WITHIN_S = 1


def audience(seed: str, order: int) -> list[str]:
    chance = random.Random(f"{seed}-{order}")
    return chance.sample(USERS, chance.randint(1, 3))


class Office:
    def __init__(self, app: AppClient, folder: Path, seed: str, orders: int, pace_s: float) -> None:
        self._app = app
        self._folder = folder
        self._seed = seed
        self._orders = orders
        self._pace_s = pace_s
        self._pushed: dict[str, int] = {}
        self._changed = trio.Event()

    def _note(self, name: str, **what: Any) -> None:
        with (self._folder / name).open("a") as file:
            file.write(json.dumps({"noted_at": time.time_ns() // 1_000_000, **what}) + "\n")

    async def push(self, begun: float) -> None:
        for order in range(self._orders):
            await trio.sleep(max(0, begun + order * self._pace_s - time.time()))
            answer = await self._app.push(
                audience={"alias": audience(self._seed, order)},
                notification={"alert": f"order {order}"},
                cid=f"order-{order}",
                deliver_within=DELIVER_WITHIN_S,
                time_to_live=600,
            )
            self._pushed[answer.msg_id] = order
            self._note("answers", cid=f"order-{order}", **asdict(answer))
            self._changed.set()
            self._changed = trio.Event()

    async def follow(self) -> None:
        async with self._app.receipts("office") as stream:
            # Nothing is pushed before the name is known, so that the consumer misses nothing.
            self._note("starts")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.push, first_start(self._folder))
                async for receipt in stream:
                    if receipt.event == "overdue":
                        await self._take_measures(receipt)
                    self._note("receipts", **asdict(receipt))

    async def _take_measures(self, receipt: Receipt) -> None:
        while receipt.msg_id not in self._pushed:
            # A crash may have taken the answer; then the repetition brings it.
            await self._changed.wait()
        order = self._pushed[receipt.msg_id]
        if order % 2:
            await self._recall(receipt.msg_id)
        else:
            answer = await self._app.push(
                audience={"alias": audience(self._seed, order)},
                notification={"alert": f"reminder of order {order}"},
                cid=f"reminder-{order}",
                override_msg_id=receipt.msg_id,
                time_to_live=600,
            )
            self._note("answers", cid=f"reminder-{order}", **asdict(answer))

    async def _recall(self, msg_id: str) -> None:
        while True:
            try:
                answer = await self._app.recall(msg_id)
            except Disconnected:
                continue
            self._note("recalls", msg_id=msg_id, **asdict(answer))
            return


def first_start(folder: Path) -> float:
    with (folder / "starts").open() as file:
        return float(json.loads(file.readline())["noted_at"]) / 1000


async def live(port: str, folder: str, seed: str, orders: str, pace_s: str) -> None:
    url = f"ws://127.0.0.1:{port}/app"
    backoff = Backoff(base_s=0.02, cap_s=0.1)
    async with AppClient(url, "the-app", "the-master-secret-of-it", backoff=backoff) as app:
        await Office(app, Path(folder), seed, int(orders), float(pace_s)).follow()


if __name__ == "__main__":
    trio.run(live, *sys.argv[1:])

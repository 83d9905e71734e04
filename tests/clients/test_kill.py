"""A client with a tray is killed in the middle of everything, again and again, until all is done; then it is counted.

The server is a model that keeps what was not settled, and sends it again on each visit. Of ten messages 2 has a custom
message too, 3 is opened by the user and 4 dismissed, 5 overrides 3 and 6 overrides 5, 7 is recalled when it was
received, and 8 right behind its sending.
"""

from __future__ import annotations

import random
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, serve_websocket

from pushactors.wire.jsonrpc import Note, Request, note_frame, read_frame, result_frame

MESSAGES = 200
WINDOW = 16
KILLS = 14
LIMIT_S = 60
SCRIPT = Path(__file__).parent / "killed_client.py"
ROOT = Path(__file__).parent.parent.parent


class Model:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.messages = {number: self.message(number) for number in range(1, MESSAGES + 1)}
        self.settled: dict[int, str] = {}
        self.marks: dict[int, str] = {}
        self.recalled: set[int] = set()
        self.faults: list[str] = []
        self.visit = 0
        self.changed = trio.Event()

    @staticmethod
    def message(number: int) -> dict[str, Any]:
        note: dict[str, Any] = {
            "msg_id": str(number),
            "sent_at": number,
            "expires_at": None,
            "notification": {"alert": f"number {number}"},
        }
        if number % 10 == 2:
            note["message"] = {"msg_content": "for the application"}
        if number % 10 == 5:
            note["override_msg_id"] = str(number - 2)
        if number % 10 == 6:
            note["override_msg_id"] = str(number - 1)
        return note

    @property
    def is_done(self) -> bool:
        return len(self.settled) == MESSAGES and all(number in self.marks for number in self.recalled)

    async def serve(self, request: Any) -> None:
        websocket = await request.accept()
        self.visit += 1
        mine, sent = self.visit, list[int]()
        try:
            while mine == self.visit:
                (entry,), _ = read_frame(await websocket.get_message(), batches=False)
                if isinstance(entry, Request) and entry.method == "connect":
                    result = {"registration_id": "r", "device_secret": "s", "alias": None, "heartbeat": 30}
                    await websocket.send_message(result_frame(entry.id, result).decode())
                    for number in self.recalled - self.marks.keys():
                        await self.recall(websocket, number)
                elif isinstance(entry, Request):
                    await websocket.send_message(result_frame(entry.id, {"alias": None}).decode())
                elif isinstance(entry, Note):
                    for number in self.hear(entry.method, int(str(entry.params["msg_id"])), sent):
                        await self.recall(websocket, number)
                await self.send(websocket, sent)
                self.changed.set()
                self.changed = trio.Event()
        except ConnectionClosed:
            pass

    def hear(self, method: str, number: int, sent: list[int]) -> list[int]:
        """What is to be recalled now."""
        if method != "received":
            if self.marks.get(number, method) != method:
                self.faults.append(f"{number} is {method}, and was {self.marks[number]}")
            self.marks[number] = method
            self.settled.setdefault(number, method)
            return []
        if number not in sent:
            self.faults.append(f"{number} is acknowledged, and was not sent on this visit")
            return []
        screen = (self.folder / "screen").read_text().split("\n")
        covered = [each for each in sent[: sent.index(number) + 1] if each not in self.settled]
        for each in covered:
            self.settled[each] = "received"
            if each % 10 in (0, 1, 2, 9) and f"show {each} {each}" not in screen:
                self.faults.append(f"{each} is acknowledged, and was not displayed")
            if each % 10 == 2 and str(each) not in (self.folder / "custom").read_text().split():
                self.faults.append(f"{each} is acknowledged, and its custom message was not given out")
        recalls = [each for each in covered if each % 10 == 7]
        self.recalled.update(recalls)
        return recalls

    async def recall(self, websocket: WebSocketConnection, number: int) -> None:
        await websocket.send_message(note_frame("recall", {"msg_id": str(number)}).decode())

    async def send(self, websocket: WebSocketConnection, sent: list[int]) -> None:
        for number, note in self.messages.items():
            if sum(each not in self.settled for each in sent) >= WINDOW:
                return
            if number not in sent and number not in self.settled and number not in self.recalled:
                sent.append(number)
                await websocket.send_message(note_frame("message", note).decode())
                if number % 10 == 8:
                    self.recalled.add(number)
                    await self.recall(websocket, number)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["receive", "store", "tear", "show", "acknowledge"])
async def test_a_client_killed_after_any_step_displays_each_message_once_in_order_and_none_that_has_gone_c10(
    step: str, tmp_path: Path
) -> None:
    chance = random.Random(step)
    model = Model(tmp_path)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, model.serve, "127.0.0.1", 0, ssl_context=None))
        port = str(server.port)
        kills = 0
        while not model.is_done:
            with trio.fail_after(LIMIT_S):
                # The first few of each: among them the registration, and the reading of a file that was torn.
                count = str(chance.randint(1, 24) if kills < KILLS else 0)
                if await live(model, port, str(tmp_path), step, count):
                    kills += 1
        await until_all_is_told(model, port, tmp_path)
        nursery.cancel_scope.cancel()
    assert kills >= KILLS // 2
    assert model.faults == []
    count_the_screen(tmp_path / "screen")
    used = [int(line) for line in (tmp_path / "used").read_text().split()]
    assert len(used) == len(set(used))
    for number in used:
        assert model.marks[number] == ("opened" if number % 10 == 3 else "dismissed")
    custom = {int(line) for line in (tmp_path / "custom").read_text().split()}
    assert custom == {number for number in model.messages if number % 10 == 2}


async def live(model: Model, port: str, folder: str, step: str, count: str) -> bool:
    """One life of the client. Whether it killed itself; otherwise it is killed here when all is settled."""
    process = await trio.lowlevel.open_process(
        [sys.executable, str(SCRIPT), port, folder, step, count], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill_when_done, model, process)
        code = await process.wait()
        nursery.cancel_scope.cancel()
    assert code == -signal.SIGKILL
    return not model.is_done


async def kill_when_done(model: Model, process: trio.Process) -> None:
    while not model.is_done:
        await model.changed.wait()
    process.kill()


async def until_all_is_told(model: Model, port: str, folder: Path) -> None:
    """The last life: nothing is killed until the tray owes nothing, and the screen shows what is left."""
    process = await trio.lowlevel.open_process(
        [sys.executable, str(SCRIPT), port, str(folder), "never", "0"], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
    )
    with trio.fail_after(LIMIT_S):
        while not is_told(model, folder):  # noqa: ASYNC110 - what another process writes sets no event
            await trio.sleep(0.02)
    process.kill()
    await process.wait()


def is_told(model: Model, folder: Path) -> bool:
    used = {int(line) for line in (folder / "used").read_text().split()}
    return used <= model.marks.keys() and {*drawer(folder / "screen")} == left()


def left() -> set[int]:
    return {number for number in range(1, MESSAGES + 1) if number % 10 in (0, 1, 2, 6, 9)}


def drawer(path: Path) -> list[int]:
    drawn: list[int] = []
    for line in path.read_text().splitlines():
        what, msg_id, _ = line.split()
        if what == "show":
            drawn.append(int(msg_id))
        else:
            drawn.remove(int(msg_id))
    return drawn


def count_the_screen(path: Path) -> None:
    shown: list[int] = []
    new: list[int] = []
    for line in path.read_text().splitlines():
        what, msg_id, place = line.split()
        if what == "show":
            shown.append(int(msg_id))
            if msg_id == place:
                new.append(int(msg_id))
    assert len(shown) == len(set(shown)), "nothing is displayed twice, so nothing after it had gone"
    assert left() <= set(shown), "everything is displayed"
    assert new == sorted(new), "in order"
    assert set(drawer(path)) == left(), "what was replaced, used or recalled has gone"

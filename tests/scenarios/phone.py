"""Devices with a screen, in a process that can be killed: `python phone.py PORT FOLDER SLOWNESS_S NAME …`.

1. What a user sees and does is a line of JSON in `FOLDER/NAME.log`, which outlives the process, as the drawer of a
   system does: `start`, `wish` (another account is asked for), `in` or `refused`, `show`, `hide`, `use`, `recalled`.
   Each has the instant in ms, and the msg_id or the alias.
2. It draws from `tray.entries`, at most every SLOWNESS_S, and never what is not there at that moment.
3. Commands come from stdin, a line of JSON each: NAME, alias (`""`: log out), token or null.
4. The user opens what ends in 3 when it was drawn, and dismisses what ends in 4.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import trio

from pushactors import DeviceClient, DeviceEvent, PushactorsError, Recalled, Tray, TrayEntry
from pushactors.clients.backoff import Backoff


class Log:
    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, what: str, **more: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"at": time.time_ns() // 1_000_000, "what": what, **more}) + "\n")

    def drawn(self) -> dict[str, None]:
        """What is still displayed, as an earlier process left it."""
        drawn: dict[str, None] = {}
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            entry = json.loads(line)
            if entry["what"] == "show":
                drawn[entry["msg_id"]] = None
            elif entry["what"] == "hide":
                del drawn[entry["msg_id"]]
        return drawn


class Phone:
    def __init__(self, port: int, folder: Path, name: str, slowness_s: float) -> None:
        self.log = Log(folder / f"{name}.log")
        self._slowness_s = slowness_s
        self._tray = Tray(folder / f"{name}.tray")
        self._device = DeviceClient(
            f"ws://127.0.0.1:{port}/device",
            "the-app",
            identity=folder / f"{name}.id",
            tray=self._tray,
            on_event=self._hear,
            backoff=Backoff(base_s=0.02, cap_s=0.1),
        )

    def _hear(self, event: DeviceEvent) -> None:
        if isinstance(event, Recalled):
            self.log.write("recalled", msg_id=event.msg_id)

    async def live(self, orders: trio.MemoryReceiveChannel[tuple[str, str | None]]) -> None:
        drawn = self.log.drawn()
        self.log.write("start")
        async with self._device, trio.open_nursery() as nursery:
            nursery.start_soon(self._draw, drawn)
            nursery.start_soon(self._use)
            nursery.start_soon(self._take)
            async with orders:
                async for alias, token in orders:
                    nursery.start_soon(self._log_in, alias, token)

    async def _log_in(self, alias: str, token: str | None) -> None:
        self.log.write("wish", alias=alias)
        try:
            await (self._device.set_alias(alias, token) if alias else self._device.clear_alias())
        except PushactorsError as error:
            self.log.write("refused", alias=alias, why=type(error).__name__)
        else:
            self.log.write("in", alias=alias)

    async def _draw(self, drawn: dict[str, None]) -> None:
        async for _ in self._tray:
            await trio.sleep(random.uniform(0, self._slowness_s))
            now: tuple[TrayEntry, ...] = self._tray.entries
            for msg_id in [msg_id for msg_id in drawn if msg_id not in {entry.msg_id for entry in now}]:
                self.log.write("hide", msg_id=msg_id)
                del drawn[msg_id]
            for entry in now:
                if entry.msg_id not in drawn:
                    alert = entry.notification["alert"]
                    self.log.write("show", msg_id=entry.msg_id, place=entry.place, alias=entry.alias, alert=alert)
                    drawn[entry.msg_id] = None
            await self._tray.shown(*drawn)

    async def _use(self) -> None:
        async for entries in self._tray:
            for entry in entries:
                if entry.is_shown and entry.msg_id[-1] in "34":
                    how = "opened" if entry.msg_id[-1] == "3" else "dismissed"
                    act = self._tray.open if how == "opened" else self._tray.dismiss
                    if await act(entry.msg_id):
                        self.log.write("use", msg_id=entry.msg_id, how=how)

    async def _take(self) -> None:
        async for message in self._device:
            self.log.write("custom", msg_id=message.msg_id)


async def live(port: str, folder: str, slowness_s: str, *names: str) -> None:
    phones: dict[str, trio.MemorySendChannel[tuple[str, str | None]]] = {}
    async with trio.open_nursery() as nursery:
        for name in names:
            phones[name], orders = trio.open_memory_channel[tuple[str, str | None]](100)
            nursery.start_soon(Phone(int(port), Path(folder), name, float(slowness_s)).live, orders)
        rest = b""
        async with trio.lowlevel.FdStream(sys.stdin.fileno()) as commands:
            async for chunk in commands:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    name, alias, token = json.loads(line)
                    phones[name].send_nowait((alias, token))


if __name__ == "__main__":
    trio.run(live, *sys.argv[1:])

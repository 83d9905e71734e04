"""A device whose process ends by `kill -9` in the middle of a step: `python killed_client.py PORT FOLDER STEP COUNT`.

1. It kills itself after it has done STEP for the COUNTth time, and before anything else: `receive` bytes, `store` (an
   fsync), `show` (a rendering), `acknowledge` (bytes sent); `tear`: instead of an fsync, and the end of what was
   written is lost. Any other STEP: never.
2. Its screen is a drawer that outlives it, known by msg_id: a file with a line for each change. What it drew from is
   `tray.entries`, nothing else.
3. Nothing in the product knows of this: it wraps the stream, the screen, and `os.fsync` in its own process.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
from pathlib import Path

import trio

from pushactors import DeviceClient, Tray
from pushactors.clients.backoff import Backoff


class Killer:
    def __init__(self, step: str, count: int) -> None:
        self.step = step
        self._left = count

    def did(self, step: str) -> None:
        if self.is_due(step):
            self.kill()

    def is_due(self, step: str) -> bool:
        if step != self.step:
            return False
        self._left -= 1
        return self._left == 0

    def kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class KilledStream(trio.abc.Stream):
    def __init__(self, stream: trio.abc.Stream, killer: Killer) -> None:
        self._stream = stream
        self._killer = killer

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)
        self._killer.did("acknowledge")

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        # About one message at a time.
        data = await self._stream.receive_some(200)
        self._killer.did("receive")
        return data

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


class Screen:
    def __init__(self, path: Path, killer: Killer) -> None:
        self._path = path
        self._killer = killer
        self._drawn: dict[str, None] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            what, msg_id, _ = line.split()
            if what == "show":
                self._drawn[msg_id] = None
            else:
                del self._drawn[msg_id]

    async def draw(self, tray: Tray) -> None:
        async for entries in tray:
            now = {entry.msg_id: entry.place for entry in entries}
            for msg_id in [msg_id for msg_id in self._drawn if msg_id not in now]:
                self._write("hide", msg_id, msg_id)
                del self._drawn[msg_id]
            for msg_id, place in now.items():
                if msg_id not in self._drawn:
                    self._write("show", msg_id, place)
                    self._drawn[msg_id] = None
                    self._killer.did("show")
            await tray.shown(*now)

    def _write(self, what: str, msg_id: str, place: str) -> None:
        with self._path.open("a") as file:
            file.write(f"{what} {msg_id} {place}\n")


async def use(tray: Tray, folder: Path) -> None:
    """The user: what ends in 3 is opened, in 4 dismissed, when it was displayed."""
    async for entries in tray:
        for entry in entries:
            if entry.is_shown and entry.msg_id[-1] in "34":
                act = tray.open if entry.msg_id[-1] == "3" else tray.dismiss
                if await act(entry.msg_id):
                    note(folder / "used", entry.msg_id)


async def take(device: DeviceClient, folder: Path) -> None:
    async for message in device:
        note(folder / "custom", message.msg_id)


def note(path: Path, msg_id: str) -> None:
    with path.open("a") as file:
        file.write(f"{msg_id}\n")


async def live(port: int, folder: Path, killer: Killer) -> None:
    async def open_stream() -> trio.abc.Stream:
        return KilledStream(await trio.open_tcp_stream("127.0.0.1", port), killer)

    tray = Tray(folder / "tray")
    device = DeviceClient(
        "ws://127.0.0.1/device",
        "app",
        identity=folder / "id",
        tray=tray,
        open_stream=open_stream,
        backoff=Backoff(base_s=0.02, cap_s=0.1),
    )
    async with device, trio.open_nursery() as nursery:
        nursery.start_soon(Screen(folder / "screen", killer).draw, tray)
        nursery.start_soon(use, tray, folder)
        nursery.start_soon(take, device, folder)


def main(port: str, folder: str, step: str, count: str) -> None:
    killer = Killer(step, int(count))
    fsync = os.fsync

    def killing(number: int) -> None:
        status = os.fstat(number)
        if stat.S_ISREG(status.st_mode) and killer.is_due("tear"):
            # No more than one byte: the line before may have been synced.
            os.ftruncate(number, max(0, status.st_size - 1))
            killer.kill()
        fsync(number)
        killer.did("store")

    os.fsync = killing
    trio.run(live, int(port), Path(folder), killer)


if __name__ == "__main__":
    main(*sys.argv[1:])

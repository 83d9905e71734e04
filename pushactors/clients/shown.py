"""Which messages were shown: the memory that makes "at least once" into "once" (C10).

1. The last `REMEMBERED` ids are known. That is many times what a server can have on the wire or in a mailbox.
2. With a file they are known after a crash too: an id is on the disk when `add` returns.
3. The file has one decimal id a line and only grows, until it is rewritten at twice the size it needs. A last line
   that a crash cut short is no id.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import trio

from pushactors.clients import durable

REMEMBERED: Final = 10_000


class Shown:
    """`path` None: known while this object lives."""

    def __init__(self, path: Path | None = None, remembered: int = REMEMBERED) -> None:
        self._path = path
        self._remembered = remembered
        # A dict, because it keeps the order in which ids came.
        self._ids: dict[str, None] = {}
        self._lines = 0

    def __contains__(self, msg_id: str) -> bool:
        return msg_id in self._ids

    def load(self) -> None:
        """Blocks. Reads the file, or makes it."""
        if self._path is None:
            return
        text = durable.read(self._path) or b""
        lines = text.split(b"\n")[:-1]
        self._know([line.decode() for line in lines if line.isdigit()])
        self._rewrite()

    async def add(self, msg_ids: list[str]) -> None:
        """Those ids were shown. Not to be called again before it returns."""
        if self._path is not None:
            await trio.to_thread.run_sync(self._append, msg_ids)
        self._know(msg_ids)

    def _append(self, msg_ids: list[str]) -> None:
        assert self._path is not None
        if self._lines + len(msg_ids) > 2 * self._remembered:
            self._rewrite()
        durable.append(self._path, b"".join(f"{msg_id}\n".encode() for msg_id in msg_ids))
        self._lines += len(msg_ids)

    def _rewrite(self) -> None:
        assert self._path is not None
        durable.replace(self._path, b"".join(f"{msg_id}\n".encode() for msg_id in self._ids))
        self._lines = len(self._ids)

    def _know(self, msg_ids: list[str]) -> None:
        for msg_id in msg_ids:
            self._ids[msg_id] = None
        while len(self._ids) > self._remembered:
            del self._ids[next(iter(self._ids))]

"""What the server says while it runs: one line per event on standard error, for people or for machines.

1. `text`: time, level, sentence. `json`: one object per line with `at`, `level`, `logger`, `message`, and `exception`.
2. Times are UTC.
"""

from __future__ import annotations

import logging
import sys
import time

from pushactors.wire.codec import encode


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, object] = {
            "at": int(record.created * 1000),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return encode(said).decode()


def set_up_logging(level: str, form: str) -> None:
    """Once, at start."""
    formatter: logging.Formatter = _Json()
    if form == "text":
        formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())

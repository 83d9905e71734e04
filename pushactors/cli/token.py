"""`pushactors token`: what a device may log a user in with, by `--alias-token`, where the app demands it (C17).

1. It is made here, out of the configuration: no server is asked, and none needs to run.
2. Standard output has the token and nothing else, for a script to pass on.
"""

from __future__ import annotations

import time

from pushactors.settings import App
from pushactors.wire import tokens
from pushactors.wire.codec import encode

SECONDS = 3600


def token(app: App, alias: str, seconds: int, registration_id: str | None, as_json: bool) -> int:
    """Raises `Invalid`."""
    expires_at_s = int(time.time()) + seconds
    made = tokens.make(alias, app.master_secret, expires_at_s, registration_id)
    if as_json:
        print(encode({"alias": alias, "alias_token": made, "expires_at": expires_at_s * 1000}).decode())
    else:
        print(made)
    return 0

"""Who this device is to its server, kept in a file: lose it, and the next start is another device.

1. The install key is on the disk before the first try to register, so that a lost answer leaves no ghost: the same key
   gets the same registration again.
2. The wanted alias is kept until the server confirmed or refused it (C14), so that it outlives a crash.
3. A file is good for one app. One that cannot be used is refused in a sentence, and never overwritten.
4. It holds a secret: only its owner can read it. Beside it lies `….shown`, what was shown already.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import trio

from pushactors.clients import durable
from pushactors.clients.durable import IdentityUnusable
from pushactors.clients.shown import Shown
from pushactors.errors import Invalid
from pushactors.wire.codec import Unreadable, decode, encode, structure_answer

_VERSION: Final = 1
_KEY_BYTES: Final = 24


@dataclass(slots=True, kw_only=True)
class _Kept:
    app_key: str
    install_key: str = field(repr=False)
    version: int = _VERSION
    registration_id: str | None = None
    device_secret: str | None = field(default=None, repr=False)
    wanted_alias: str | None = None
    """`""` wants none; None: nothing is wanted that the server has not confirmed."""
    wanted_alias_token: str | None = field(default=None, repr=False)
    """The app server's word for it, where it was given one (C17)."""


class Identity:
    """Change it by its methods, then `save`. Without a path it lasts as long as the object."""

    def __init__(self, app_key: str, path: Path | None = None) -> None:
        self.shown = Shown(path and path.with_name(f"{path.name}.shown"))
        self._path = path
        self._kept = _new(app_key)
        self._saved: bytes | None = None
        self._saving = trio.Lock()

    async def load(self) -> None:
        """Reads the file, or makes it. Raises `IdentityUnusable`, as `save` does."""
        if self._path is not None:
            await trio.to_thread.run_sync(self._load, self._path)

    @property
    def install_key(self) -> str:
        return self._kept.install_key

    @property
    def registration_id(self) -> str | None:
        return self._kept.registration_id

    @property
    def device_secret(self) -> str | None:
        return self._kept.device_secret

    @property
    def wanted_alias(self) -> str | None:
        return self._kept.wanted_alias

    @property
    def wanted_alias_token(self) -> str | None:
        return self._kept.wanted_alias_token

    def want(self, alias: str | None, token: str | None = None) -> None:
        self._kept.wanted_alias = alias
        self._kept.wanted_alias_token = token

    def registered(self, registration_id: str, device_secret: str) -> None:
        self._kept.registration_id = registration_id
        self._kept.device_secret = device_secret

    def forget(self) -> None:
        """The registration is gone: the next `connect` registers anew, under a new install key."""
        self._kept = _new(self._kept.app_key)

    async def save(self) -> None:
        """What was changed before the call is on the disk after it."""
        if self._path is None:
            return
        async with self._saving:
            # Taken under the lock, so that whoever writes last writes the latest.
            content = encode(asdict(self._kept))
            if content != self._saved:
                await trio.to_thread.run_sync(durable.replace, self._path, content)
                self._saved = content

    def _load(self, path: Path) -> None:
        content = durable.read(path)
        if content is None:
            durable.replace(path, encode(asdict(self._kept)))
        else:
            self._kept = _understood(path, content, self._kept.app_key)
        self.shown.load()


def _new(app_key: str) -> _Kept:
    return _Kept(app_key=app_key, install_key=secrets.token_urlsafe(_KEY_BYTES))


def _understood(path: Path, content: bytes, app_key: str) -> _Kept:
    try:
        kept = structure_answer(_Kept, decode(content))
    except (Unreadable, Invalid) as error:
        raise IdentityUnusable(f"{path} is not an identity file: {durable.reason(error)}") from None
    if kept.version != _VERSION:
        raise IdentityUnusable(f"{path} is of version {kept.version}; this package reads version {_VERSION}.")
    if kept.app_key != app_key:
        raise IdentityUnusable(f"{path} belongs to the app {kept.app_key}: give every app a file of its own.")
    return kept

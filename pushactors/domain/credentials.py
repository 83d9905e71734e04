"""What a device proves itself with.

1. A device secret is derived from the store's own secret and the registration id, so that it is stored nowhere, and a
   client whose answer was lost is given the very same one again.
2. Secrets are compared in constant time.
3. An install key is kept as a digest only: whoever reads the store cannot register with it.
4. A permit is for one alias, and maybe for one device; what signed it is not known here (C17).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import NamedTuple

from pushactors.errors import Unauthorized
from pushactors.wire.ids import Alias, AppKey, RegistrationId

REGISTRATION_ID_BYTES = 16


def registration_id(randomness: bytes) -> RegistrationId:
    """The name of a new device out of `REGISTRATION_ID_BYTES` random bytes: 26 letters and digits."""
    return RegistrationId(base64.b32encode(randomness).decode().rstrip("=").lower())


def device_secret(store_secret: bytes, app_key: AppKey, device: RegistrationId) -> str:
    """The secret of one device of one app: 43 characters, safe in URLs."""
    digest = hmac.digest(store_secret, f"device\0{app_key}\0{device}".encode(), "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def is_same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def install_digest(app_key: AppKey, install_key: str) -> bytes:
    """What is kept of an install key: 16 bytes."""
    return hashlib.blake2b(f"{app_key}\0{install_key}".encode(), digest_size=16).digest()


class AliasPermit(NamedTuple):
    """What the app server has signed: this alias, on that device, or on any (None)."""

    alias: Alias
    registration_id: RegistrationId | None

    def check(self, alias: Alias, device: RegistrationId | None) -> None:
        """Raises `Unauthorized` unless it is good for `alias` on `device` (None: one that has no id yet)."""
        if self.alias != alias:
            raise Unauthorized("The alias_token is for another alias.", "alias_token")
        if self.registration_id is not None and self.registration_id != device:
            raise Unauthorized("The alias_token is for another device.", "alias_token")

"""Alias tokens: an app server's word that a device may log a user in (C17).

1. A token is a JWT: HS256 and nothing else, signed with a master secret of the app. `sub` is the alias, `exp` the
   second from which on it is worth nothing; where they are there, `nbf` is the second before which it is worth
   nothing, and `rid` the only device that it is good for.
2. Whatever else somebody brings is `Unauthorized`, in a sentence: no text gets another exception out of here.
3. No clock lives here. The library's own checks are not used: they would ask its clock.
4. A secret is taken as it is, however short and whatever it looks like: who judges it is the configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from jwt import InvalidSignatureError, PyJWS
from jwt.algorithms import HMACAlgorithm

from pushactors.errors import Invalid, Unauthorized
from pushactors.wire.codec import Unreadable, decode, encode, structure
from pushactors.wire.ids import Alias, RegistrationId

TOKEN_CHARS: Final = 4096
_ALGORITHM: Final = "HS256"
_PATH: Final = "alias_token"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says. `rid` None: it is good for any device."""

    alias: Alias
    rid: RegistrationId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """The claims as they are called in the token. Numbers of seconds may have a fraction (RFC 7519, section 2)."""

    sub: Alias
    exp: float
    nbf: float | None = None
    rid: RegistrationId | None = None


_KNOWN: Final = frozenset(each.name for each in fields(_Written))


class _AsItIs(HMACAlgorithm):
    # The library warns of keys under 32 bytes, and refuses those that look like a public key, which could have been
    # published, or like a JWK. Ours are secrets by definition, and no header chooses another algorithm.
    def prepare_key(self, key: str | bytes) -> bytes:
        return key.encode() if isinstance(key, str) else key

    def check_key_length(self, key: bytes) -> None:
        return None


_signatures: Final = PyJWS(algorithms=[])
_signatures.register_algorithm(_ALGORITHM, _AsItIs(HMACAlgorithm.SHA256))


def make(alias: str, master_secret: str, expires_at_s: int, rid: str | None) -> str:
    """A token with which a device (None: any) may log `alias` in before that second. Raises `Invalid`."""
    claims: dict[str, object] = {"sub": alias, "exp": expires_at_s}
    if rid is not None:
        claims["rid"] = rid
    structure(_Written, claims)
    return _signatures.encode(encode(claims), master_secret, algorithm=_ALGORITHM)


def read(token: str, secrets: Sequence[str], now_s: float) -> Claims:
    """What `token` says, if one of `secrets` signed it and it is worth something now. Raises `Unauthorized`."""
    written = _claims(_signed(token, secrets))
    if written.exp <= now_s:
        raise _refused("has expired: ask the app server for a new one")
    if written.nbf is not None and now_s < written.nbf:
        raise _refused("is not valid yet: ask the app server for another one")
    return Claims(written.sub, written.rid)


def _signed(token: str, secrets: Sequence[str]) -> bytes:
    """The bytes that were signed."""
    if len(token) > TOKEN_CHARS:
        raise _refused(f"must have at most {TOKEN_CHARS} characters")
    for secret in secrets:
        try:
            payload: bytes = _signatures.decode(token, secret, algorithms=[_ALGORITHM])
        except InvalidSignatureError:
            continue
        except Exception:
            # What a stranger can do to a parser has no list: nested deeply enough, a header is a RecursionError.
            raise _refused("is no JWT that was signed with HS256") from None
        return payload
    raise _refused("was not signed with a master_secret of this app")


def _claims(payload: bytes) -> _Written:
    try:
        found = decode(payload)
    except Unreadable:
        raise _refused("has claims that are no JSON") from None
    if not isinstance(found, dict):
        raise _refused("must have an object of claims")
    if "aud" in found:
        # Meant for somebody by name, and that is never us (RFC 7519, section 4.1.3).
        raise _refused("is meant for somebody else: leave aud out")
    # Literally: a rid of null is no way to say any device.
    known: dict[str, Any] = {name: value for name, value in found.items() if name in _KNOWN}
    try:
        return structure(_Written, known)
    except Invalid as error:
        raise _refused(f"is not what it must be: {str(error).removesuffix('.')}") from None


def _refused(why: str) -> Unauthorized:
    return Unauthorized(f"The alias_token {why}.", _PATH)

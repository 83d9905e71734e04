"""Alias tokens: what is taken, and that everything else is one named refusal (C17)."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from hashlib import sha256, sha384, sha512
from typing import Any

import jwt
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pushactors.errors import Invalid, Unauthorized
from pushactors.wire.tokens import TOKEN_CHARS, Claims, make, read

SECRET, OTHER = "the-master-secret-of-it-all-0123456789", "another"
NOW_S = 1_800_000_000.5
SOON_S = 1_800_000_060
CLAIMS: dict[str, object] = {"sub": "alice", "exp": SOON_S}
HEADER: dict[str, object] = {"alg": "HS256", "typ": "JWT"}
DIGESTS: dict[object, Any] = {"HS384": sha384, "HS512": sha512}


def segment(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def sealed(header: object, payload: bytes, secret: str = SECRET) -> str:
    """A token made by hand, so that the library is not asked whether it would."""
    signed = f"{segment(header if isinstance(header, bytes) else orjson.dumps(header))}.{segment(payload)}"
    algorithm = header.get("alg") if isinstance(header, dict) else None
    digest = DIGESTS.get(algorithm if isinstance(algorithm, str) else None, sha256)
    return f"{signed}.{segment(hmac.digest(secret.encode(), signed.encode(), digest))}"


def token(header: dict[str, object] | None = None, **claims: object) -> str:
    """Like the ordinary one but for what is named; ... leaves a claim out."""
    said = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not ...}
    return sealed({**HEADER, **(header or {})}, orjson.dumps(said))


def refused(text: str, now_s: float = NOW_S, secrets: tuple[str, ...] = (SECRET,)) -> str:
    with pytest.raises(Unauthorized) as caught:
        read(text, secrets, now_s)
    assert caught.value.path == "alias_token"
    assert str(caught.value).startswith("The alias_token ")
    assert str(caught.value).endswith(".")
    return str(caught.value)


# --- Taken -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alias", ["alice", "张三", "a@b.c", "x" * 40])
@pytest.mark.parametrize("rid", [None, "device-1"])
def test_what_was_made_is_read(alias: str, rid: str | None) -> None:
    assert read(make(alias, SECRET, SOON_S, rid), [SECRET], NOW_S) == Claims(alias, rid)  # type: ignore[arg-type]


def test_a_token_is_a_jwt_that_any_library_makes_and_reads() -> None:
    theirs = jwt.encode({"sub": "alice", "exp": SOON_S, "rid": "r", "iat": 5, "iss": "x", "jti": "1"}, SECRET, "HS256")
    assert read(theirs, [SECRET], NOW_S) == Claims("alice", "r")  # type: ignore[arg-type]
    ours = make("alice", SECRET, 4_000_000_000, "r")
    assert jwt.decode(ours, SECRET, ["HS256"]) == {"sub": "alice", "exp": 4_000_000_000, "rid": "r"}


def test_a_token_made_by_hand_is_one() -> None:
    assert read(token(), [SECRET], NOW_S) == Claims("alice", None)  # type: ignore[arg-type]
    assert read(token(nbf=5, exp=SOON_S + 0.5), [SECRET], NOW_S).alias == "alice"


@pytest.mark.parametrize("secret", ["s", "sixteen", "x" * 31, "x" * 256, "ssh-rsa", '{"kty":"oct"}', "[" * 256])
def test_a_secret_is_taken_as_it_is_and_nobody_is_warned(secret: str) -> None:
    # Tests run with warnings as errors: the library has one for short keys.
    assert read(make("alice", secret, SOON_S, None), [secret], NOW_S).alias == "alice"


def test_any_secret_of_the_app_will_do() -> None:
    """While secrets are changed, an app has two."""
    assert read(token(), [OTHER, SECRET], NOW_S).alias == "alice"
    assert read(token(), [SECRET, OTHER], NOW_S).alias == "alice"


def test_the_clock_is_ours_alone() -> None:
    """By the clock of the machine these are long gone, or far ahead."""
    assert read(token(exp=11, nbf=10, iat=9_000_000_000), [SECRET], 10.5).alias == "alice"
    assert read(token(exp=9_000_000_001, nbf=9_000_000_000), [SECRET], 9_000_000_000).alias == "alice"


def test_the_longest_token_is_taken() -> None:
    # Three bytes are four characters.
    room = (TOKEN_CHARS - len(token(jti=""))) * 3 // 4
    longest = token(jti="x" * room)
    assert TOKEN_CHARS - 2 <= len(longest) <= TOKEN_CHARS
    assert read(longest, [SECRET], NOW_S).alias == "alice"


# --- Refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("now_s", [SOON_S, SOON_S + 0.1, 9e12])
def test_a_token_is_worth_nothing_from_its_second_on(now_s: float) -> None:
    assert "has expired" in refused(token(), now_s)
    assert read(token(), [SECRET], SOON_S - 0.001)


def test_a_token_is_worth_nothing_before_its_time() -> None:
    assert "not valid yet" in refused(token(nbf=NOW_S + 0.5))
    assert read(token(nbf=NOW_S), [SECRET], NOW_S)


@pytest.mark.parametrize("secrets", [(), (OTHER,), (OTHER, SECRET[:-1], SECRET.upper())])
def test_a_token_that_somebody_else_signed_is_refused(secrets: tuple[str, ...]) -> None:
    assert "was not signed with a master_secret of this app" in refused(token(), secrets=secrets)


@pytest.mark.parametrize(
    "header",
    [{"alg": "none"}, {"alg": "None"}, {"alg": ""}, {"alg": None}, {"alg": "HS384"}, {"alg": "HS512"}, {"alg": "RS256"},
     {"alg": "ES256"}, {"alg": "hs256"}, {"alg": ["HS256"]}, {"alg": {"HS256": 1}}, {"alg": True},
     {"b64": False, "crit": ["b64"]}, {"b64": False}, {"crit": ["exp"]}, {"crit": []}, {"kid": 5}],
    ids=repr,
)  # fmt: skip
def test_a_token_of_another_kind_is_refused_however_it_is_signed(header: dict[str, object]) -> None:
    assert "HS256" in refused(token(header))


def test_a_token_that_is_not_signed_is_refused() -> None:
    head, payload, signature = token().split(".")
    refused(jwt.encode(CLAIMS, None, "none"))
    for text in (f"{head}.{payload}.", f"{head}.{payload}", f"{head}..{signature}", f"{head}.{payload}.{signature}.x"):
        refused(text)
    refused(f"{segment(orjson.dumps({'alg': 'none'}))}.{payload}.")


@pytest.mark.parametrize(
    ("claims", "member"),
    [
        ({"sub": ...}, "sub is missing"),
        ({"sub": None}, "sub must be a string"),
        ({"sub": 5}, "sub must be a string"),
        ({"sub": ["alice"]}, "sub must be a string"),
        ({"sub": ""}, "An alias must not be empty"),
        ({"sub": "a b"}, "An alias may have letters"),
        ({"sub": "x" * 41}, "An alias must have at most 40 bytes"),
        ({"exp": ...}, "exp is missing"),
        ({"exp": None}, "exp must be a number"),
        ({"exp": str(SOON_S)}, "exp must be a number"),
        ({"exp": True}, "exp must be a number"),
        ({"exp": [SOON_S]}, "exp must be a number"),
        ({"nbf": None}, "nbf must be a number"),
        ({"nbf": "0"}, "nbf must be a number"),
        ({"rid": None}, "rid must be a string"),
        ({"rid": ""}, "rid must be 1 to 64 printable characters"),
        ({"rid": 5}, "rid must be a string"),
        ({"rid": ["r"]}, "rid must be a string"),
        ({"aud": "them"}, "leave aud out"),
        ({"aud": None}, "leave aud out"),
    ],
)
def test_a_token_that_does_not_say_what_it_must_is_refused(claims: dict[str, object], member: str) -> None:
    assert member in refused(token(**claims))


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"5", b"null", b'"alice"', b"{", b"\xff", b'{"sub":"alice","exp":1e999}', b'{"sub":"alice","exp":NaN}',
     b'{"sub":"alice","exp":Infinity}', b'{"sub":"\\ud800","exp":9}', b"[" * 2000, b'{"a":' * 400 + b"1" + b"}" * 400],
    ids=repr,
)  # fmt: skip
def test_claims_that_are_none_are_refused_even_if_they_are_signed(payload: bytes) -> None:
    refused(sealed(HEADER, payload))


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "...", "a.b.c", "Ä.Ö.Ü", "\ud800", "\x00", "=.=.=", "eyJ9.eyJ9.eyJ9", f"Bearer {token()}",
     f" {token()}", f"{token()}\n", token().replace(".", " "), sealed(b"[" * 2900, b""),
     sealed(b"[]", b"{}"), sealed(b"5", b"{}"),
     sealed(b"\xff", b"{}"), sealed(b'{"alg":"HS256","alg":"none"}', orjson.dumps(CLAIMS))],
    ids=lambda text: repr(text)[:20],
)  # fmt: skip
def test_garbage_is_refused(text: str) -> None:
    refused(text)


def test_a_token_that_is_too_long_is_refused_before_anybody_looks_at_it() -> None:
    assert "at most 4096 characters" in refused(token(jti="x" * 4096))
    assert "at most 4096 characters" in refused("x" * 10_000_000)


def test_a_secret_and_a_token_are_not_repeated_in_a_refusal() -> None:
    text = token(sub="a b")
    sentence = refused(text)
    assert SECRET not in sentence
    assert text not in sentence


@pytest.mark.parametrize(
    ("alias", "expires_at_s", "rid"),
    [("", SOON_S, None), ("a b", SOON_S, None), ("alice", SOON_S, ""), ("alice", SOON_S, "r" * 65), ("a", 2**63, "\n")],
)
def test_nothing_is_made_that_would_not_be_read(alias: str, expires_at_s: int, rid: str | None) -> None:
    with pytest.raises(Invalid):
        make(alias, SECRET, expires_at_s, rid)


# --- Whatever comes ----------------------------------------------------------------------------------------------

# A loaded machine, or the first run, which builds the tables of characters, is slow for no fault of ours.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
CLAIM_SETS = st.dictionaries(st.sampled_from(["sub", "exp", "nbf", "iat", "rid", "aud", "x"]), JSON)
HEADERS = st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "b64", "zip", "jwk"]), JSON)


def is_read_or_refused(text: str) -> Claims | None:
    try:
        return read(text, [OTHER, SECRET], NOW_S)
    except Unauthorized:
        return None


@patient
@given(st.text() | st.lists(st.binary(max_size=40).map(segment) | st.text(max_size=5), max_size=5).map(".".join))
def test_any_text_is_refused_by_name(text: str) -> None:
    assert is_read_or_refused(text) is None


@patient
@given(HEADERS, CLAIM_SETS)
def test_any_signed_token_is_read_or_refused_by_name(header: dict[str, object], claims: dict[str, object]) -> None:
    is_read_or_refused(sealed({**HEADER, **header}, orjson.dumps({**CLAIMS, **claims})))


@patient
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_signed_bytes_are_refused_by_name(header: bytes, payload: bytes) -> None:
    assert is_read_or_refused(sealed(header, payload)) is None
    is_read_or_refused(sealed(HEADER, payload))


@patient
@given(st.data())
def test_a_token_with_a_character_changed_is_never_another_one(data: st.DataObject) -> None:
    text = make("alice", SECRET, SOON_S, "r")
    place = data.draw(st.integers(0, len(text) - 1))
    changed = data.draw(st.characters(codec="ascii").filter(lambda char: char != text[place]))
    assert is_read_or_refused(text[:place] + changed + text[place + 1 :]) is None

"""What a device proves itself with: derived, the same every time, and nobody else's."""

from __future__ import annotations

import re

import pytest

from pushactors.domain.credentials import (
    REGISTRATION_ID_BYTES,
    AliasPermit,
    device_secret,
    install_digest,
    is_same,
    registration_id,
)
from pushactors.errors import Unauthorized
from pushactors.wire.ids import REGISTRATION_ID_CHARS, Alias, AppKey, RegistrationId

SECRET = bytes(range(32))
APP, OTHER_APP = AppKey("app"), AppKey("other")
DEVICE, OTHER_DEVICE = RegistrationId("device"), RegistrationId("stranger")


@pytest.mark.parametrize("randomness", [bytes(16), b"\xff" * 16, bytes(range(16))])
def test_a_registration_id_is_26_letters_and_digits(randomness: bytes) -> None:
    """The protocol's names."""
    made = registration_id(randomness)
    assert re.fullmatch(r"[A-Za-z0-9]{26}", made)
    assert len(made) <= REGISTRATION_ID_CHARS


def test_every_bit_of_its_randomness_is_in_a_registration_id() -> None:
    bits = [(1 << bit).to_bytes(REGISTRATION_ID_BYTES, "big") for bit in range(8 * REGISTRATION_ID_BYTES)]
    assert len({registration_id(each) for each in bits}) == 128


@pytest.mark.parametrize("device", [DEVICE, OTHER_DEVICE, RegistrationId("x")])
def test_a_device_secret_is_43_characters_safe_in_urls(device: RegistrationId) -> None:
    """The protocol's names."""
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", device_secret(SECRET, APP, device))


def test_a_device_is_given_the_very_same_secret_again() -> None:
    """Law 1."""
    assert device_secret(SECRET, APP, DEVICE) == device_secret(bytes(SECRET), AppKey("app"), RegistrationId("device"))


def test_a_secret_is_good_for_one_device_of_one_app_of_one_store() -> None:
    """Nothing ever crosses from one app to another."""
    given = device_secret(SECRET, APP, DEVICE)
    assert given != device_secret(SECRET, APP, OTHER_DEVICE)
    assert given != device_secret(SECRET, OTHER_APP, DEVICE)
    assert given != device_secret(SECRET[::-1], APP, DEVICE)


@pytest.mark.parametrize("cut", ["", " ", ":", "/", "-", "."])
def test_two_names_that_read_alike_when_joined_have_different_secrets(cut: str) -> None:
    """App `a` and device `bc` are not app `ab` and device `c`, whatever stands between them."""
    one = device_secret(SECRET, AppKey("a"), RegistrationId(f"b{cut}c"))
    assert one != device_secret(SECRET, AppKey(f"a{cut}b"), RegistrationId("c"))


def test_secrets_are_the_same_or_not() -> None:
    """Law 2."""
    given = device_secret(SECRET, APP, DEVICE)
    assert is_same(given, given)
    assert not is_same(given[:-1], given)
    assert not is_same(given + "A", given)
    assert not is_same(given.swapcase(), given)
    assert not is_same("", given)


@pytest.mark.parametrize("given", ["é" * 43, "密码", "\x00", "🔑"])
def test_whatever_a_stranger_gives_is_not_the_same_and_no_accident(given: str) -> None:
    """C24: a comparison in constant time may stumble over what is not ASCII."""
    assert not is_same(given, device_secret(SECRET, APP, DEVICE))


def test_an_install_key_is_kept_as_16_bytes_of_its_app() -> None:
    """Law 3."""
    kept = install_digest(APP, "k" * 43)
    assert len(kept) == 16
    assert kept == install_digest(APP, "k" * 43)
    assert kept != install_digest(APP, "k" * 42 + "l")
    assert kept != install_digest(OTHER_APP, "k" * 43)
    assert b"k" * 4 not in kept


def test_an_install_key_may_be_any_printable_text() -> None:
    """The protocol's names: 8 to 128 printable characters."""
    assert len({install_digest(APP, key) for key in ("éééééééé", "密码密码密码密码", " " * 8, "x" * 128)}) == 4


def test_two_install_keys_that_read_alike_when_joined_are_kept_apart() -> None:
    assert install_digest(AppKey("a"), "bc" * 8) != install_digest(AppKey("ab"), "c" + "bc" * 7)


# --- Permits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [None, DEVICE])
def test_a_permit_is_good_for_its_alias_on_its_device_or_on_any(of: RegistrationId | None) -> None:
    """C17, law 4."""
    AliasPermit(Alias("alice"), of).check(Alias("alice"), DEVICE)


def test_a_permit_for_any_device_is_good_for_one_that_has_no_id_yet() -> None:
    """C17: a device that is just registering."""
    AliasPermit(Alias("alice"), None).check(Alias("alice"), None)


@pytest.mark.parametrize("device", [None, OTHER_DEVICE])
def test_a_permit_for_one_device_is_no_good_for_another(device: RegistrationId | None) -> None:
    """C17: nor for one that is just registering."""
    with pytest.raises(Unauthorized, match="another device") as refused:
        AliasPermit(Alias("alice"), DEVICE).check(Alias("alice"), device)
    assert refused.value.path == "alias_token"


@pytest.mark.parametrize("alias", ["bob", "Alice", "alice ", ""])
def test_a_permit_for_one_alias_is_no_good_for_another(alias: str) -> None:
    """C17: to the letter."""
    with pytest.raises(Unauthorized, match="another alias"):
        AliasPermit(Alias("alice"), None).check(Alias(alias), DEVICE)

"""One app as its actors know it."""

from __future__ import annotations

import dataclasses

import pytest

from pushactors.actors.tenant import Limits, Tenant
from pushactors.actors.unit import Book
from pushactors.domain.aliases import AliasFullPolicy
from pushactors.errors import NoSuchDevice, NoTarget, Unauthorized
from pushactors.wire.ids import AppKey, AppNo
from tests.actors.world import ALICE, NEWS, Phone, living, push

OURS, THEIRS = AppKey("ours"), AppKey("theirs")


def test_unless_said_the_limits_are_those_of_the_contract() -> None:
    """C8, C10, C13, C24."""
    limits = Limits()
    assert (limits.offline_limit, limits.backlog_limit, limits.window) == (5, 256, 64)
    assert (limits.alias_limit, limits.alias_full, limits.device_expiry_days) == (10, AliasFullPolicy.REFUSE, 255)


def test_limits_are_replaced_whole() -> None:
    tenant = Tenant(OURS, AppNo(1), Limits(), Book(lambda rows: None))
    with pytest.raises(dataclasses.FrozenInstanceError):
        tenant.limits.window = 1  # type: ignore[misc]
    tenant.limits = Limits(window=1)
    assert tenant.limits == Limits(window=1)


async def test_new_limits_count_from_the_next_decision_on() -> None:
    """C8: an actor reads them when it decides, and keeps no copy."""
    async with living() as world:
        phone = await world.absent_phone(is_retired=False)
        first, second = await world.push(phone), await world.push(phone)
        world.app.tenant.limits = Limits(offline_limit=2, window=1)
        third = await world.push(phone)
        assert [await phone.state(each) for each in (first, second, third)] == ["overflowed", "waiting", "waiting"]
        await phone.connect()
        assert phone.handed == [second]
        world.app.tenant.limits = Limits(window=2)
        phone.actor.pump()
        assert phone.handed == [second, third]


async def test_nothing_crosses_from_one_app_to_another() -> None:
    async with living(app_keys=(OURS, THEIRS)) as world:
        ours, theirs = world.apps[OURS], world.apps[THEIRS]
        our_phone, their_phone = Phone(world, ours), Phone(world, theirs)
        await our_phone.connect(alias=ALICE, tags=(NEWS,), install_key="the same key")
        await their_phone.connect(alias=ALICE, tags=(NEWS,), install_key="the same key")
        assert our_phone.registration_id != their_phone.registration_id

        named = (push(alias=ALICE), push(tag=NEWS), push())
        accepted = [await world.accept(each, ours) for each in named]
        assert [each.targets for each in accepted] == [1, 1, 1]
        assert our_phone.handed == [each.msg_id for each in accepted]
        assert their_phone.handed == []
        assert await world.reports(our_phone.handed, theirs) == {}
        with pytest.raises(NoTarget):
            await world.accept(push(our_phone), theirs)

        stranger = Phone(world, theirs)
        stranger._registration_id, stranger.secret = our_phone.registration_id, our_phone.secret
        with pytest.raises(NoSuchDevice):
            await stranger.connect()
        stranger.rooms, stranger.secret = ours, their_phone.secret
        with pytest.raises(Unauthorized):
            await stranger.connect()


async def test_what_one_app_replaces_is_its_own() -> None:
    """C7: every unsettled delivery of the same app."""
    async with living(app_keys=(OURS, THEIRS)) as world:
        our_phone, their_phone = Phone(world, world.apps[OURS]), Phone(world, world.apps[THEIRS])
        await our_phone.connect()
        await their_phone.connect()
        theirs = await world.push(their_phone, rooms=world.apps[THEIRS])
        await world.push(our_phone, rooms=world.apps[OURS], overrides=theirs)
        assert their_phone.acknowledge(theirs)
        assert await their_phone.state(theirs) == "received"

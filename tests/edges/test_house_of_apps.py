"""The apps that are served now (`pushactors/edges/house.py`): each under its own key, and only there."""

from __future__ import annotations

from pushactors.edges.house import App, Apps
from pushactors.wire.ids import AppKey
from tests.edges.serving import APP, OTHER, House, serving

NOBODY = AppKey("nobody")


def apps_of(house: House) -> list[App]:
    """Two apps, as the node has built them."""
    apps = house.node._apps.all()
    assert [app.tenant.app_key for app in apps] == [APP, OTHER]
    return list(apps)


async def test_an_app_is_found_under_its_key_and_nobody_elses() -> None:
    async with serving() as house:
        one, other = apps_of(house)
    apps = Apps()
    assert apps.find(APP) is None
    assert apps.all() == ()
    apps.put(one)
    apps.put(other)
    assert apps.find(APP) is one
    assert apps.find(OTHER) is other
    assert apps.find(NOBODY) is None
    assert apps.all() == (one, other)


async def test_an_app_that_was_removed_is_not_found() -> None:
    async with serving() as house:
        one, other = apps_of(house)
    apps = Apps()
    apps.put(one)
    apps.put(other)
    apps.remove(APP)
    apps.remove(APP)
    apps.remove(NOBODY)
    assert apps.find(APP) is None
    assert apps.all() == (other,)


async def test_no_two_apps_share_a_room() -> None:
    async with serving() as house:
        one, other = apps_of(house)
    for room in ("tenant", "router", "registrar", "fanout", "requests", "pushes"):
        assert getattr(one, room) is not getattr(other, room)
    assert one.tenant.book is not other.tenant.book
    assert one.router.directory is not other.router.directory

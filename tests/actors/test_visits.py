"""What an actor sees of a connection, and what a visit may count on."""

from __future__ import annotations

from pushactors.actors.visits import Ending, Visit
from pushactors.wire.closing import Closing
from tests.actors.world import RecordingVisit, World


def test_there_is_a_close_code_for_every_ending() -> None:
    codes = {closing.name for closing in Closing}
    assert {ending.name for ending in Ending} - codes == {"STOPPED"}  # said with 1001, which is no word of ours
    assert len({ending.value for ending in Ending}) == len(Ending)


async def test_a_visit_is_ended_once_by_whoever_is_first(world: World) -> None:
    visit: RecordingVisit = world.new_visit()
    seen: Visit = visit
    assert seen.is_taking()
    seen.end(Ending.DISPLACED)
    seen.end(Ending.RESTARTED)
    assert visit.ending is Ending.DISPLACED
    assert not seen.is_taking()


async def test_visits_have_numbers_that_only_grow(world: World) -> None:
    phone = await world.phone()
    numbers = [phone.visit.visit_id]
    for _ in range(3):
        await phone.connect()
        numbers.append(phone.visit.visit_id)
    assert numbers == sorted(set(numbers))


async def test_nothing_is_handed_to_a_visit_that_was_ended(world: World) -> None:
    phone = await world.phone()
    phone.visit.end(Ending.SILENT)
    # Its farewell has not come yet: for the actor it is still there, and takes nothing.
    msg_id = await world.push(phone)
    assert phone.handed == []
    phone.leave()
    assert await phone.state(msg_id) == "waiting"

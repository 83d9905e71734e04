"""The three scenarios that applications are built for, each told by real processes that are killed all the time.

Sources: "each message needs to be received", "offline messages with multiple account logins", "alias setting for
multiple account login". What is random is seeded; what is compared are the books that the processes leave behind.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import trio

from pushactors import AppClient, NoTarget, Receipt, Report, Tray
from tests.cli.processes import APP_KEY, Refusal, Server, until, until_true
from tests.scenarios.street import (
    Phones,
    Script,
    books,
    check_order,
    check_receipts,
    check_screen,
    course,
    read,
    reports,
    until_settled,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """With short patience. Killed at the end."""
    server = Server(tmp_path, "[devices]\nheartbeat = 5")
    yield server
    server.kill()


@contextlib.contextmanager
def killed_at_the_end(*scripts: Script) -> Iterator[None]:
    try:
        yield
    finally:
        for script in scripts:
            script.kill()


async def restarted(server: Server) -> None:
    server.kill()
    await server.start()


@contextlib.asynccontextmanager
async def in_turn(server: Server) -> AsyncIterator[AppClient]:
    await server.start()
    async with server.app_client() as app:
        yield app


# --- Each message needs to be received ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
async def test_each_message_is_received_or_the_office_is_told_in_time_and_takes_measures(
    server: Server, seed: int
) -> None:
    chance = random.Random(seed)
    orders = 30
    street = {
        "phone-0": "anna",
        "phone-1": "bert",
        "phone-2": "carl",
        "phone-3": "carl",
        "phone-4": "dora",
        "phone-5": "emil",
    }
    left = Phones(server, 0.05, "phone-0", "phone-1", "phone-2")
    right = Phones(server, 0.05, "phone-3", "phone-4", "phone-5")
    office = Script(server.folder, "office.py", server.ports["apps"], server.folder, seed, orders, 0.2)

    with killed_at_the_end(left, right, office):
        async with in_turn(server) as app:
            for name, alias in street.items():
                phones = left if name in left.names else right
                assert await phones.log_in(name, alias) == "in"
            office.start()
            await until(lambda: (server.folder / "answers").exists(), "the first order")
            async with trio.open_nursery() as chaos:
                for victim, away_s in ((left, 2.5), (right, 2.5), (office, 0.5)):
                    chaos.start_soon(come_and_go, victim, away_s, random.Random(chance.random()))
                for _ in range(5):
                    await trio.sleep(chance.uniform(0.5, 1.6))
                    await restarted(server)
                chaos.cancel_scope.cancel()
            for script in (left, right, office):
                script.start()
            await until(lambda: f"order-{orders - 1}" in cids(server.folder), "the last order", 15)
            await until_settled(app)
            receipts = await office_has_all(app, server.folder)
            pushes = await reports(app)
            ids = {name: await (left if name in left.names else right).registration_id(name) for name in street}
            verdicts = check_receipts(receipts, pushes)
            assert len(verdicts) == sum(report.targets for report in pushes.values())
            check_answers(server.folder, pushes)
            recalled = check_recalls(server.folder, pushes)

            for name, registration_id in ids.items():
                phones = left if name in left.names else right
                # A recall reaches the screen last: the report has it a moment later.
                await until(lambda p=phones, n=name: not recalled & set(p.drawer(n)), "the end of what was recalled")  # type: ignore[misc]
                log = phones.log(name)
                check_screen(log, name)
                check_order(log, name)
                shown = {line["msg_id"]: line["at"] for line in log if line["what"] == "show"}
                replaced = overridden(server.folder)
                for (msg_id, device, _), verdict in verdicts.items():
                    if device != registration_id:
                        continue
                    line = await course(app, msg_id, registration_id)
                    names = [event.event for event in line.events]
                    assert line.state == verdict
                    assert ("overdue" in names) == ((msg_id, device) in overdue(receipts))
                    if verdict == "received" and msg_id not in recalled | replaced:
                        assert msg_id in shown, (name, msg_id, line)
                    if verdict == "received":
                        assert "sent" in names, (name, msg_id, line)
                    if msg_id in recalled:
                        for event in line.events:
                            # Nothing recalled is sent after the answer (C22). Without a visit: before a crash.
                            if event.event == "sent" and event.visit is not None:
                                assert event.at <= recalled_at(server.folder, msg_id), (name, msg_id, line)
                assert shown.keys() <= {msg_id for msg_id, device, _ in verdicts if device == registration_id}
            # It was what it is meant to be.
            assert overdue(receipts)
            assert recalled
            assert set(verdicts.values()) >= {"received"}


async def come_and_go(script: Script, away_s: float, chance: random.Random) -> None:
    while True:
        script.check()
        script.kill()
        await trio.sleep(chance.uniform(0, away_s))
        script.start()
        await trio.sleep(chance.uniform(0.5, 2.0))


def cids(folder: Path) -> set[str]:
    return {line["cid"] for line in read(folder / "answers")}


def overridden(folder: Path) -> set[str]:
    """What a reminder has replaced, or tried to."""
    first = {line["cid"]: line["msg_id"] for line in read(folder / "answers")}
    return {first[f"order-{cid.partition('-')[2]}"] for cid in first if cid.startswith("reminder-")}


def overdue(receipts: list[Receipt]) -> set[tuple[str, str | None]]:
    return {(receipt.msg_id, receipt.registration_id) for receipt in receipts if receipt.event == "overdue"}


async def office_has_all(app: AppClient, folder: Path) -> list[Receipt]:
    """All receipts, by a second reader; the consumer has the same, in order, and nothing left out (C20).

    When it has the last one, its last measure has been taken, which may have made new ones.
    """
    receipts: list[Receipt] = []
    while not receipts or int(read(folder / "receipts")[-1]["cursor"]) < len(receipts):
        await until_settled(app)
        receipts, _ = await books(app)
        await until(lambda: int(read(folder / "receipts")[-1]["cursor"]) >= len(receipts), "the last receipt")  # noqa: B023
        if any(push.waiting or push.sent for push in (await reports(app)).values()):
            receipts = []
    came: dict[int, dict[str, object]] = {}
    last = 0
    for line in read(folder / "receipts"):
        cursor = int(line["cursor"])
        # At least once: after a crash it goes on behind what it acknowledged last, never further.
        assert cursor <= last + 1, (last, line)
        last = cursor
        what = {name: value for name, value in line.items() if name != "noted_at"}
        assert came.setdefault(cursor, what) == what
    for receipt in receipts:
        assert came[int(receipt.cursor)] == asdict(receipt)
    return receipts


def check_answers(folder: Path, pushes: dict[str, Report]) -> None:
    """One answer for a `cid`, however often it was asked, and no push that nobody asked for (C6)."""
    first: dict[str, dict[str, object]] = {}
    for line in read(folder / "answers"):
        answer = {name: value for name, value in line.items() if name != "noted_at"}
        assert first.setdefault(line["cid"], answer) == answer
        assert pushes[line["msg_id"]].targets == line["targets"] == line["online"] + line["absent"]
    assert {answer["msg_id"] for answer in first.values()} == pushes.keys()


def check_recalls(folder: Path, pushes: dict[str, Report]) -> set[str]:
    """Each split adds up, and the end fits to it (C22). What was recalled."""
    for line in read(folder / "recalls"):
        report = pushes[line["msg_id"]]
        assert line["recalled"] + line["on_the_way"] + line["received"] + line["settled"] == report.targets, line
        assert report.recalled >= line["recalled"], (line, report)
        assert report.received >= line["received"], (line, report)
    return {line["msg_id"] for line in read(folder / "recalls")}


def recalled_at(folder: Path, msg_id: str) -> int:
    return min(int(line["noted_at"]) for line in read(folder / "recalls") if line["msg_id"] == msg_id)


# --- Offline messages with multiple account logins ---------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
async def test_what_is_held_for_a_user_is_shown_to_him_on_whatever_device_and_to_nobody_else(
    server: Server, seed: int
) -> None:
    chance = random.Random(seed)
    server.write(server.app(more="offline_limit = 12"))
    phones = {name: Phones(server, 0.1, name) for name in ("phone-0", "phone-1", "phone-2", "last-0", "last-1")}
    names = ["phone-0", "phone-1", "phone-2"]
    where: dict[str, str] = {}
    pushed: dict[str, list[str]] = {}

    async def push(app: AppClient, number: int) -> None:
        audience = chance.choice([["anna"], ["bert"], ["anna", "bert"], ["anna", "bert", "nobody"]])
        answer = await app.push(
            audience={"alias": audience},
            notification={"alert": f"{number} for {' and '.join(audience)}"},
            hold=True,
            cid=f"push-{number}",
            time_to_live=chance.choice([1, 600, 600, 600]),
            deliver_within=1,
        )
        assert answer.targets == len(audience)
        pushed[answer.msg_id] = audience

    async def change_hands(name: str) -> None:
        """Whoever is logged in here logs out, or is overwritten by somebody who is nowhere; or both, or neither."""
        user = next((user for user, device in where.items() if device == name), None)
        if user is not None and chance.random() < 0.5:
            assert await phones[name].log_in(name, "") == "in"
            del where[user]
        free = [user for user in ("anna", "bert") if user not in where]
        if free and chance.random() < 0.8:
            newcomer = chance.choice(free)
            assert await phones[name].log_in(name, newcomer) == "in"
            for gone in [user for user, device in where.items() if device == name]:
                del where[gone]
            where[newcomer] = name

    with killed_at_the_end(*phones.values()):
        async with in_turn(server) as app:
            for step in range(40):
                match chance.choice(["push", "push", "push", "hands", "hands", "hands", "kill", "server"]):
                    case "push":
                        await push(app, step)
                    case "hands":
                        # What was pushed right now is under way, or lies undrawn in the tray.
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(push, app, step)
                            await change_hands(chance.choice(names))
                    case "kill":
                        name = chance.choice(names)
                        phones[name].kill()
                        if chance.random() < 0.7:
                            phones[name].start()
                    case "server":
                        await restarted(server)
                await reports(app)
                await trio.sleep(chance.uniform(0, 0.1))

            for user, name in list(where.items()):
                assert await phones[name].log_in(name, "") == "in"
                del where[user]
            for user, name in (("anna", "last-0"), ("bert", "last-1")):
                # New ones: a device gets each push once, so what somebody else got there waits for another one.
                assert await phones[name].log_in(name, user) == "in"
            await until_only_nobody_waits(app, pushed)
            receipts, pushes = await books(app)
            assert pushes.keys() == pushed.keys()

            ids = {await phone.registration_id(name): name for name, phone in phones.items() if phone.log(name)}
            verdicts = check_receipts(receipts, pushes)
            shows: dict[str, dict[str, dict[str, Any]]] = {}
            for name, phone in phones.items():
                check_screen(phone.log(name), name)
                shows[name] = {line["msg_id"]: line for line in phone.log(name) if line["what"] == "show"}
            for (msg_id, device, alias), verdict in verdicts.items():
                assert verdict in ("received", "expired", "overflowed"), (msg_id, device, alias, verdict)
                assert alias is None or alias in pushed[msg_id]
                line = await course(app, msg_id, device, alias)
                assert line.state == verdict
                if verdict == "received":
                    assert device is not None
                    assert msg_id in shows[ids[device]], (ids[device], msg_id, line)
            for name, shown in shows.items():
                for msg_id, line in shown.items():
                    assert line["alias"] in pushed[msg_id], (name, line)


async def until_only_nobody_waits(app: AppClient, pushed: dict[str, list[str]]) -> None:
    async def is_over() -> bool:
        found = await reports(app)
        return all(
            report.sent == 0 and report.waiting <= ("nobody" in pushed[msg_id]) for msg_id, report in found.items()
        )

    await until_true(is_over, "the last verdict", 15)


async def test_what_lay_undrawn_when_its_user_logged_out_is_drawn_when_he_is_back_on_the_same_device(
    server: Server,
) -> None:
    async with in_turn(server) as app:
        tray = Tray()
        async with server.device_client(alias="anna", tray=tray) as device:
            await device.wait_connected()
            answer = await app.push(audience={"alias": ["anna"]}, notification={"alert": "hello"}, hold=True)
            await until(lambda: bool(tray.entries), "the entry")
            # Nobody has seen it: it is declined, and waits for its user again (C25).
            await device.clear_alias()
            assert tray.entries == ()
            await device.set_alias("anna")
            await until(lambda: bool(tray.entries), "the entry, again", 5)
            assert (await reports(app))[answer.msg_id].received == 0
            await tray.shown(answer.msg_id)
            await until_settled(app)
            assert (await reports(app))[answer.msg_id].received == 1


# --- Alias setting for multiple account login --------------------------------------------------------------------


@pytest.mark.parametrize("tokens", ["off", "required"])
async def test_who_logs_in_on_a_device_sees_nothing_that_was_pushed_to_who_was_there_before(
    server: Server, tokens: str
) -> None:
    chance = random.Random(tokens)
    server.write(server.app(more=f'alias_tokens = "{tokens}"'))
    phone, other = Phones(server, 0.05, "phone"), Phones(server, 0.05, "other")
    fresh = iter(f"user-{number}" for number in range(1_000))
    pushed: dict[str, list[str]] = {}
    who = ["nobody"]

    async def push_to_all_who_were_here(app: AppClient) -> None:
        for number in range(1_000_000):
            await trio.sleep(chance.uniform(0, 0.06))
            audience = who[-3:]
            try:
                answer = await app.push(
                    audience={"alias": audience},
                    notification={"alert": f"for {' and '.join(audience)}"},
                    cid=f"push-{number}",
                    time_to_live=chance.choice([0, 600, 600]),
                    deliver_within=1,
                )
            except NoTarget:
                continue
            pushed[answer.msg_id] = audience

    with killed_at_the_end(phone, other):
        async with in_turn(server) as app:

            def token_for(alias: str) -> str | None:
                return app.alias_token(alias) if tokens == "required" and alias else None

            async with trio.open_nursery() as pushing:
                pushing.start_soon(push_to_all_who_were_here, app)
                for _ in range(12):
                    user = next(fresh)
                    if chance.random() < 0.5:
                        # Without logging out before, what was pushed to the one before is under way.
                        assert await phone.log_in("phone", "") == "in"
                    who.append(user)
                    before = len(phone.log("phone"))
                    phone.say("phone", user, token_for(user))
                    match chance.choice(["nothing", "phone", "server", "both"]):
                        case "nothing":
                            assert await phone.answer("phone", user, before) == "in"
                        case "server":
                            await trio.sleep(chance.uniform(0, 0.05))
                            await restarted(server)
                            assert await phone.answer("phone", user, before) == "in"
                        case "phone" | "both" as what:
                            # Asked for, if that was kept; or the one before is still there. Whoever is, is one of both.
                            await until(lambda b=before: len(phone.log("phone")) > b, "the wish")  # type: ignore[misc]
                            await trio.sleep(chance.uniform(0, 0.05))
                            phone.kill()
                            if what == "both":
                                await restarted(server)
                            phone.start()
                    await trio.sleep(chance.uniform(0, 0.3))
                    await reports(app)
                pushing.cancel_scope.cancel()

            last = next(fresh)
            assert await phone.log_in("phone", last, token_for(last)) == "in"
            if tokens == "required":
                await nobody_takes_the_alias(server, app, other, last)
            await until_settled(app)
            phone_id = await phone.registration_id("phone")
            assert await app.alias(last) == (phone_id,)
            receipts, pushes = await books(app)
            verdicts = check_receipts(receipts, pushes)
            assert len(verdicts) == sum(report.targets for report in pushes.values())
            assert set(verdicts.values()) <= {"received", "fenced", "missed", "overflowed", "expired"}
            assert set(verdicts.values()) >= {"received", "fenced"}
            log = phone.log("phone")
            check_screen(log, "phone")
            check_order(log, "phone")
            shown = {line["msg_id"] for line in log if line["what"] == "show"}
            for line in log:
                if line["what"] == "show" and line["msg_id"] in pushed:
                    assert line["alias"] in pushed[line["msg_id"]], line
            for (msg_id, device, _), verdict in verdicts.items():
                assert device == phone_id
                line = await course(app, msg_id, device)
                assert line.state == verdict
                if verdict == "received":
                    assert msg_id in shown, line


async def nobody_takes_the_alias(server: Server, app: AppClient, other: Phones, alias: str) -> None:
    """Whatever somebody else shows, short of a token for this alias and this device, he is refused (C17)."""
    assert await other.log_in("other", "") == "in"
    rid = await other.registration_id("other")
    for token in (
        None,
        "no.token.atall",
        app.alias_token("somebody-else"),
        app.alias_token(alias, registration_id="a" * 26),
        AppClient(server.apps_url, APP_KEY, "another-master-secret").alias_token(alias),
    ):
        assert await other.log_in("other", alias, token) == "Unauthorized"
        assert (await app.device(rid)).alias is None
    wire = await server.device_wire()
    with pytest.raises(Refusal) as refused:
        await wire.ask("connect", app_key=APP_KEY, alias=alias)
    assert (refused.value.code, refused.value.data["path"]) == (1004, "alias_token")
    await wire.abort()
    assert len(await app.devices()) == 2
    assert len(await app.alias(alias)) == 1
    assert await other.log_in("other", "mine", app.alias_token("mine", registration_id=rid)) == "in"
    assert (await app.device(rid)).alias == "mine"

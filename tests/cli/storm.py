"""A storm: app servers push, devices come, go and change hands, and somebody writes down whatever the server told them.

What it told must be true for ever (C2), so it is held against what the server says later, after `kill -9` above all.
A contradiction is a sentence in `Told.lies`. Nothing here knows how the server works.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import trio

from pushactors import AppClient, DeviceClient, Disconnected, Message, NoTarget, PushAnswer, Report, Status, TooFrequent
from pushactors.domain.message import Verdict
from tests.cli.processes import APP_KEY, LIMIT_S, Ended, Refusal, Server, Wire, until_true

VERDICTS = tuple(verdict.word for verdict in Verdict)
REPORTS_AT_ONCE = 100
# The server allows ten changes in ten seconds; that rule is not what the storm is about.
CHANGE_EVERY_S = (0.3, 1.2)
AWAY_S = (0.02, 0.6)


class Login:
    """Which alias a device may have, as far as anybody was told: the last that was answered, or one asked for since."""

    def __init__(self) -> None:
        self._said: list[str | None] = [None]
        self.sure = 0

    def asks(self, alias: str | None) -> None:
        self._said.append(alias)

    def is_granted(self) -> None:
        """What was asked for last was answered."""
        self.sure = len(self._said) - 1

    def is_refused(self) -> None:
        self._said.append(self._said[self.sure])
        self.sure = len(self._said) - 1

    def is_now(self, alias: str | None) -> bool:
        """The server says which it is; whether that can be."""
        is_possible = self.may_be(alias, self.sure)
        self._said.append(alias)
        self.sure = len(self._said) - 1
        return is_possible

    def may_be(self, alias: str | None, since: int) -> bool:
        return alias in self._said[since:]


class Told:
    """What the server has told anybody, and what does not go together with it."""

    def __init__(self) -> None:
        self.lies: list[str] = []
        self.pushes: dict[str, PushAnswer] = {}
        self.flying: set[str] = set()
        """Pushes with time to live 0 and no `cid`: a crash may take them (C5)."""
        self.cids: dict[str, tuple[dict[str, Any], PushAnswer]] = {}
        self.reports: dict[str, Report] = {}
        self.statuses: dict[tuple[str, str], Status] = {}
        self.registered: dict[str, str] = {}
        """Registration ids by install key."""
        self.logins: dict[str, Login] = {}
        """Of devices that are registered, by registration id."""
        self.ids_of_alerts: defaultdict[str, set[str]] = defaultdict(set)
        self.aliases: deque[str] = deque(["nobody"], maxlen=16)
        self._numbers = 0

    def lie(self, sentence: str) -> None:
        self.lies.append(sentence)

    def fresh(self, what: str) -> str:
        self._numbers += 1
        return f"{what}-{self._numbers}"

    def fresh_alias(self) -> str:
        # Never the same twice, so that a message that is addressed to an earlier one is known by its name.
        alias = self.fresh("user")
        self.aliases.append(alias)
        return alias

    # --- What comes in -----------------------------------------------------------------------------------------------

    def answered(self, asked: dict[str, Any], answer: PushAnswer) -> None:
        if answer.msg_id in self.pushes:
            self.lie(f"{answer.msg_id} was given to two pushes")
        self.pushes[answer.msg_id] = answer
        if asked["cid"] is not None:
            self.cids[asked["cid"]] = asked, answer
        elif asked["time_to_live"] == 0:
            self.flying.add(answer.msg_id)

    def registers(self, install_key: str, registration_id: str) -> None:
        if self.registered.setdefault(install_key, registration_id) != registration_id:
            self.lie(f"{install_key} was registered twice")

    def saw(self, msg_id: str, alert: str) -> None:
        """A device got this message."""
        self.ids_of_alerts[alert].add(msg_id)
        if len(self.ids_of_alerts[alert]) > 1:
            self.lie(f"{alert} was accepted more than once: {self.ids_of_alerts[alert]}")

    def reported(self, report: Report) -> None:
        now = asdict(report)
        if report.targets != report.waiting + report.sent + sum(now[verdict] for verdict in VERDICTS):
            self.lie(f"this does not add up (C1): {report}")
        answer = self.pushes.get(report.msg_id)
        if answer is not None and answer.targets != report.targets:
            self.lie(f"{report.msg_id} had {answer.targets} targets, and has {report.targets}")
        before = self.reports.get(report.msg_id)
        if before is not None:
            then = asdict(before)
            for number in (*VERDICTS, "opened", "dismissed"):
                if now[number] < then[number]:
                    self.lie(f"{report.msg_id} had {then[number]} {number}, and has {now[number]}")
        self.reports[report.msg_id] = report

    def stated(self, msg_id: str, registration_id: str, status: Status) -> None:
        before = self.statuses.get((msg_id, registration_id))
        if before is not None and before.state in VERDICTS and before != status:
            self.lie(f"{msg_id} was {before} for {registration_id}, and is {status}")
        self.statuses[msg_id, registration_id] = status

    # --- Looking back ------------------------------------------------------------------------------------------------

    async def look_back(self, app: AppClient, rng: random.Random, statuses: int) -> None:
        """Asks for everything that was told so far, and for `statuses` of the verdicts."""
        await self._look_at_pushes(app, list(self.pushes))
        settled = [place for place, status in self.statuses.items() if status.state in VERDICTS]
        for msg_id, registration_id in rng.sample(settled, min(statuses, len(settled))):
            if msg_id not in self.flying or self.reports.get(msg_id) is not None:
                self.stated(msg_id, registration_id, (await app.status(msg_id, [registration_id]))[registration_id])
        for asked, answer in rng.sample(list(self.cids.values()), min(5, len(self.cids))):
            again = await app.push(**asked)
            if again != answer:
                self.lie(f"a repeated cid was answered {again} after {answer} (C6)")
        await self._look_at_devices(app)

    async def _look_at_pushes(self, app: AppClient, msg_ids: list[str]) -> None:
        for first in range(0, len(msg_ids), REPORTS_AT_ONCE):
            some = msg_ids[first : first + REPORTS_AT_ONCE]
            for msg_id, report in zip(some, await app.report(some), strict=True):
                if report is not None:
                    self.reported(report)
                elif msg_id not in self.flying:
                    self.lie(f"{msg_id} was answered, and is not known (C2)")

    async def _look_at_devices(self, app: AppClient) -> None:
        registered = set(self.registered.values())
        since = {registration_id: login.sure for registration_id, login in self.logins.items()}
        devices = {device.registration_id: device for device in await app.devices()}
        for registration_id in registered - devices.keys():
            self.lie(f"{registration_id} was registered, and is not known")
        for registration_id, sure in since.items():
            device = devices.get(registration_id)
            if device is not None and not self.logins[registration_id].may_be(device.alias, sure):
                self.lie(f"{registration_id} has {device.alias}, which nobody asked for last")


# --- App servers -------------------------------------------------------------------------------------------------


async def push_on(app: AppClient, told: Told, rng: random.Random) -> None:
    """Pushes for ever, to everybody in every way."""
    while True:
        asked = _some_push(told, rng)
        try:
            told.answered(asked, await app.push(**asked))
        except (Disconnected, NoTarget):
            continue
        await trio.sleep(rng.uniform(0, 0.01))


def _some_push(told: Told, rng: random.Random) -> dict[str, Any]:
    kind = rng.random()
    audience: Any = "all"
    if kind < 0.5:
        audience = {"alias": rng.sample(list(told.aliases), min(8, len(told.aliases)))}
    elif kind < 0.7:
        ids = list(told.logins) or ["nobody"]
        audience = {"registration_id": rng.sample(ids, min(3, len(ids)))}
    elif kind < 0.8:
        audience = {"tag": ["even"]}
    return {
        "audience": audience,
        "platform": ["other"],
        # Whom it is for goes with it, so that whoever gets it sees for himself (C14).
        "notification": {"alert": told.fresh("push"), "extras": {"for": _for(audience)}},
        "time_to_live": rng.choice([0, 0, 1, *[3600] * 7]),
        "override_msg_id": rng.choice(list(told.pushes)[-20:]) if told.pushes and rng.random() < 0.2 else None,
        "cid": told.fresh("cid") if rng.random() < 0.5 else None,
    }


def _for(audience: Any) -> list[str]:
    return list(audience.get("alias", [])) if isinstance(audience, dict) else []


async def audit(app: AppClient, told: Told, rng: random.Random) -> None:
    """Asks at random moments, and writes down the answers."""
    while True:
        await trio.sleep(rng.uniform(0, 0.05))
        if not told.pushes:
            continue
        msg_ids = list(told.pushes)[-200:]
        some = rng.sample(msg_ids, min(20, len(msg_ids)))
        try:
            for report in await app.report(some):
                if report is not None:
                    told.reported(report)
            if some[0] not in told.flying:
                for registration_id, status in (await app.status(some[0], list(told.logins))).items():
                    told.stated(some[0], registration_id, status)
        except Disconnected:
            continue


async def pull_strings(app: AppClient, puppet: Roamer, told: Told, rng: random.Random) -> None:
    """Logs users in on a device that does not do so itself."""
    while True:
        await trio.sleep(rng.uniform(*CHANGE_EVERY_S))
        if puppet.registration_id is None or puppet.is_settled:
            continue
        login = told.logins[puppet.registration_id]
        wanted = told.fresh_alias() if rng.random() < 0.8 else ""
        login.asks(wanted or None)
        try:
            device = await app.set_device(puppet.registration_id, alias=wanted)
        except Disconnected:
            continue
        login.is_granted()
        if device.alias != (wanted or None):
            told.lie(f"the alias {wanted} was set, and the answer says {device.alias}")


# --- Devices -----------------------------------------------------------------------------------------------------


class Roamer:
    """A device that speaks the protocol by hand, so that it sees what is on the wire, in its order."""

    def __init__(self, server: Server, told: Told, name: str, rng: random.Random, is_puppet: bool = False) -> None:
        self.registration_id: str | None = None
        self.is_settled = False
        """Whether it stays where it is from now on, and acknowledges everything."""
        self._server = server
        self._told = told
        self._install_key = f"install-key-of-{name}"
        self._tags = ["even"] if rng.random() < 0.5 else []
        self._rng = rng
        self._is_puppet = is_puppet
        self._secret = ""
        self._login = Login()
        self._next_change = 0.0

    async def roam(self) -> None:
        while True:
            try:
                wire = await self._server.device_wire()
                try:
                    await _Stay(self, wire).stay()
                finally:
                    await wire.abort()
            except Ended as ended:
                if ended.code is not None and ended.code != 1001:
                    self._told.lie(f"{self._install_key} was closed with {ended}")
            except Refusal as refusal:
                self._told.lie(f"{self._install_key} was refused: {refusal}")
            await trio.sleep(0.02 if self.is_settled else self._rng.uniform(*AWAY_S))

    def introduction(self) -> tuple[dict[str, Any], str | None]:
        """The params of `connect`, and the alias that it names."""
        params: dict[str, Any] = {"app_key": APP_KEY, "tags": self._tags}
        if self.registration_id is None:
            params["install_key"] = self._install_key
        else:
            params |= {"registration_id": self.registration_id, "device_secret": self._secret}
        if not self._is_puppet and not self.is_settled and self._rng.random() < 0.3:
            params["alias"] = self.wants_another()
        return params, params.get("alias")

    def wants_another(self) -> str:
        wanted = self._told.fresh_alias() if self._rng.random() < 0.8 else ""
        self._login.asks(wanted or None)
        self._next_change = trio.current_time() + self._rng.uniform(*CHANGE_EVERY_S)
        return wanted

    def may_change(self) -> bool:
        return not (self._is_puppet or self.is_settled) and trio.current_time() > self._next_change

    def welcomed(self, result: dict[str, Any], named: str | None) -> None:
        if self.registration_id is None:
            self.registration_id, self._secret = result["registration_id"], result["device_secret"]
            self._told.registers(self._install_key, result["registration_id"])
            self._told.logins[result["registration_id"]] = self._login
        if self.registration_id != result["registration_id"]:
            self._told.lie(f"{self.registration_id} came back as {result['registration_id']}")
        if named is not None:
            if result["alias"] != (named or None):
                self._told.lie(f"{self.registration_id} came as {named}, and was called {result['alias']} (C15)")
            self._login.is_granted()
        elif not self._is_puppet and not self._login.is_now(result["alias"]):
            self._told.lie(f"{self.registration_id} was called {result['alias']}, which it never asked for last")

    def changed(self, is_granted: bool) -> None:
        if is_granted:
            self._login.is_granted()
        else:
            self._login.is_refused()


class _Stay:
    """One visit of a roamer. `_alias` is the one that the server last said on this wire."""

    def __init__(self, roamer: Roamer, wire: Wire) -> None:
        self._roamer = roamer
        self._wire = wire
        self._rng = roamer._rng
        self._told = roamer._told
        self._alias: str | None = None
        self._asked: int | None = None
        self._wanted = ""
        self._last_id = 0
        self._unacknowledged: str | None = None

    async def stay(self) -> None:
        params, named = self._roamer.introduction()
        result = await self._wire.ask("connect", **params)
        if self._wire.notes:
            self._told.lie(f"before the answer to connect came {self._wire.notes}")
        self._alias = result["alias"]
        self._roamer.welcomed(result, named)
        while True:
            with trio.move_on_after(0.05):
                await self._take(await self._wire.receive())
            if self._roamer.is_settled or self._rng.random() < 0.05:
                await self._acknowledge()
            if self._asked is None and self._roamer.may_change():
                self._wanted = self._roamer.wants_another()
                self._asked = await self._wire.request("alias.set", alias=self._wanted)
            if not self._roamer.is_settled and self._rng.random() < 0.05:
                return

    async def _take(self, frame: dict[str, Any]) -> None:
        if "id" in frame:
            is_granted = "result" in frame
            if is_granted:
                self._alias = self._wanted or None
            self._asked = None
            self._roamer.changed(is_granted)
        elif frame["method"] == "message":
            self._message(frame["params"])
        elif frame["method"] == "alias":
            self._alias = frame["params"]["alias"]

    def _message(self, message: dict[str, Any]) -> None:
        who = self._roamer.registration_id
        if not _is_for(self._alias, message.get("alias"), message["notification"]):
            self._told.lie(f"{who} is {self._alias}, and got {message} (C14)")
        if int(message["msg_id"]) <= self._last_id:
            self._told.lie(f"{who} got {message['msg_id']} after {self._last_id} (C9)")
        self._last_id = int(message["msg_id"])
        self._unacknowledged = message["msg_id"]
        self._told.saw(message["msg_id"], message["notification"]["alert"])

    async def _acknowledge(self) -> None:
        if self._unacknowledged is not None:
            how = "received" if self._roamer.is_settled or self._rng.random() < 0.9 else "opened"
            await self._wire.tell(how, msg_id=self._unacknowledged)
            if how == "received":
                self._unacknowledged = None


class Resident:
    """A device that uses the client library, and has its identity in a file."""

    def __init__(self, server: Server, told: Told, name: str, rng: random.Random) -> None:
        self.is_settled = False
        self._server = server
        self._told = told
        self._name = name
        self._rng = rng
        self._login = Login()
        self._alias = ""
        self._wanted: str | None = None
        self._last_id = 0

    async def live(self) -> None:
        while True:
            client = self._server.device_client(self._name)
            async with client, trio.open_nursery() as nursery:
                nursery.start_soon(self._change_hands, client)
                async for message in client:
                    self._show(message)
                    if self.is_settled:
                        continue
                    # The application takes its time, so that something waits behind it.
                    await trio.sleep(self._rng.uniform(0, 0.04))
                    if self._rng.random() < 0.03:
                        await client.acknowledge(message)
                        break
                nursery.cancel_scope.cancel()
            await trio.sleep(self._rng.uniform(*AWAY_S))

    def _show(self, message: Message) -> None:
        who = self._alias if self._wanted is None else self._wanted
        assert message.notification is not None
        if not _is_for(who, message.alias, message.notification):
            self._told.lie(f"{self._name} is {who!r}, and was shown {message} (C14)")
        if int(message.msg_id) <= self._last_id:
            self._told.lie(f"{self._name} was shown {message.msg_id} after {self._last_id} (C9, C10)")
        self._last_id = int(message.msg_id)
        self._told.saw(message.msg_id, str(message.notification["alert"]))

    async def _change_hands(self, client: DeviceClient) -> None:
        await client.wait_connected()
        assert client.registration_id is not None
        self._told.registers(self._name, client.registration_id)
        self._told.logins[client.registration_id] = self._login
        if self._wanted is not None:
            # A wish of the last session: it stood in the file, and in this one's `connect`.
            self._granted(client)
        while not self.is_settled:
            await trio.sleep(self._rng.uniform(*CHANGE_EVERY_S))
            self._wanted = self._told.fresh_alias() if self._rng.random() < 0.8 else ""
            self._login.asks(self._wanted or None)
            try:
                await (client.set_alias(self._wanted) if self._wanted else client.clear_alias())
            except TooFrequent:
                self._wanted = None
                self._login.is_refused()
            else:
                self._granted(client)

    def _granted(self, client: DeviceClient) -> None:
        if client.alias != (self._wanted or None):
            self._told.lie(f"{self._name} is {client.alias} after {self._wanted} was granted")
        self._alias, self._wanted = self._wanted or "", None
        self._login.is_granted()


def _is_for(who: str | None, addressed: str | None, notification: Mapping[str, Any]) -> bool:
    """Whether a message that names `addressed` may come to a device on which `who` is logged in."""
    names = notification["extras"]["for"]
    return addressed is None if not names else addressed == who and who in names


async def register_newcomers(server: Server, told: Told) -> None:
    """One new device after the other, which is never seen again. No push goes to its platform."""
    while True:
        install_key = told.fresh("install-key-of-a-newcomer")
        while install_key not in told.registered:
            try:
                wire = await server.device_wire()
                try:
                    result = await wire.ask("connect", app_key=APP_KEY, install_key=install_key, platform="ios")
                    told.registers(install_key, result["registration_id"])
                finally:
                    await wire.abort()
            except Ended:
                await trio.sleep(0.02)
        await trio.sleep(0.05)


# --- The whole ---------------------------------------------------------------------------------------------------


async def storm(server: Server, rounds: int, seed: int) -> Told:
    """Starts the server, and kills it and starts it again so many times; what it told, when it is calm again."""
    told = Told()
    with trio.fail_after(4 * LIMIT_S):
        await _storm(server, told, rounds, random.Random(seed))
    return told


async def _storm(server: Server, told: Told, rounds: int, rng: random.Random) -> None:
    roamers = [Roamer(server, told, f"roamer-{number}", random.Random(rng.random())) for number in range(3)]
    puppet = Roamer(server, told, "puppet", random.Random(rng.random()), is_puppet=True)
    residents = [Resident(server, told, f"resident-{number}", random.Random(rng.random())) for number in range(3)]
    await server.start()
    async with server.app_client() as app, trio.open_nursery() as nursery:
        for roamer in (*roamers, puppet):
            nursery.start_soon(roamer.roam)
        for resident in residents:
            nursery.start_soon(resident.live)
        async with trio.open_nursery() as pushing:
            for _ in range(3):
                pushing.start_soon(_with_a_connection_of_its_own, server, told, rng.random())
            pushing.start_soon(register_newcomers, server, told)
            pushing.start_soon(audit, app, told, rng)
            pushing.start_soon(pull_strings, app, puppet, told, rng)
            for _ in range(rounds):
                await trio.sleep(rng.uniform(0.5, 1.0))
                server.kill()
                await server.start()
                await told.look_back(app, rng, statuses=30)
            await trio.sleep(0.3)
            pushing.cancel_scope.cancel()
        for roamer in (*roamers, puppet):
            roamer.is_settled = True
        for resident in residents:
            resident.is_settled = True
        await until_true(lambda: _is_calm(app, told), "the calm after the storm", 2 * LIMIT_S)
        await told.look_back(app, rng, statuses=1_000)
        nursery.cancel_scope.cancel()


async def _with_a_connection_of_its_own(server: Server, told: Told, seed: float) -> None:
    async with server.app_client() as app:
        await push_on(app, told, random.Random(seed))


async def _is_calm(app: AppClient, told: Told) -> bool:
    """Whether every delivery has its verdict."""
    before: str | None = None
    while page := await app.pushes(before=before):
        if any(push.waiting or push.sent for push in page):
            return False
        before = page[-1].msg_id
    return True

"""The contract told again, naively, for one app: everything is worked out from a list of deliveries when it is needed.

It shares no code with the actors, the domain or the stores. A random walk compares a server with it after every step.
What it says holds when nothing is on its way to the disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

DAY_MS = 86_400_000
WAITING, SENT = "waiting", "sent"


class Refusal(Exception):
    """What the server should refuse; the name of its error."""


@dataclass
class Rules:
    offline_limit: int
    backlog_limit: int
    window: int
    alias_limit: int
    longest_absent: bool


@dataclass
class Delivery:
    msg_id: int
    device: str
    alias: str | None
    """The one it was addressed by."""
    expires_at: int | None
    overrides: int | None
    state: str = WAITING
    """`waiting`, `sent`, or the word of its verdict."""
    strike: str | None = None

    @property
    def is_settled(self) -> bool:
        return self.state not in (WAITING, SENT)

    def is_due(self, now: int) -> bool:
        return self.expires_at is not None and self.expires_at <= now


Entry = tuple[str, int | None, str | None]
"""What a visit was given: ("message", msg_id, the alias it was addressed by) or ("alias", None, the new one)."""


@dataclass
class TwinVisit:
    number: int
    is_answered: bool = False
    room: int | None = None
    log: list[Entry] = field(default_factory=list)
    owed: list[str | None] = field(default_factory=list)
    """Aliases that it is to be told of with its answer."""


@dataclass
class TwinDevice:
    name: str
    platform: str = "other"
    alias: str | None = None
    tags: frozenset[str] = frozenset()
    visit: TwinVisit | None = None
    last_seen_at: int = 0
    is_sure: bool = True
    """Whether anybody knows when it was last seen: after a kill nobody does."""
    is_deleted: bool = False


@dataclass
class TwinPush:
    msg_id: int
    targets: int
    last_event_at: int
    marks: set[tuple[str, str]] = field(default_factory=set)


@dataclass
class Asked:
    """A push, as an app server asks for it. All of it None or empty: everybody."""

    aliases: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    ttl: int = 86_400
    overrides: int | None = None
    cid: str | None = None
    content: int = 0


Answer = tuple[int, int, int]
"""msg_id, targets, online."""


class Twin:
    def __init__(self, rules: Rules, now: int) -> None:
        self.rules = rules
        self.now = now
        self.devices: dict[str, TwinDevice] = {}
        self.pushes: dict[int, TwinPush] = {}
        self.deliveries: list[Delivery] = []
        self.cids: dict[str, tuple[Asked, Answer, int]] = {}
        self.ended: dict[int, str] = {}
        """Visits by number, and why the server ended them."""
        self.ignored = 0
        """Changes that do not fit."""

    # --- Looking -----------------------------------------------------------------------------------------------------

    def living(self) -> list[TwinDevice]:
        return [device for device in self.devices.values() if not device.is_deleted]

    def find(self, name: str) -> TwinDevice:
        if name not in self.devices or self.devices[name].is_deleted:
            raise Refusal("NoSuchDevice")
        return self.devices[name]

    def of(self, device: TwinDevice, *states: str) -> list[Delivery]:
        found = [each for each in self.deliveries if each.device == device.name and each.state in states]
        return sorted(found, key=lambda each: each.msg_id)

    def report(self, msg_id: int) -> tuple[int, int, int, dict[str, int], dict[str, int]]:
        states = Counter(each.state for each in self.deliveries if each.msg_id == msg_id)
        waiting, sent = states.pop(WAITING, 0), states.pop(SENT, 0)
        marks = Counter(mark for _, mark in self.pushes[msg_id].marks)
        return self.pushes[msg_id].targets, waiting, sent, dict(states), dict(marks)

    # --- Settling ----------------------------------------------------------------------------------------------------

    def settle(self, delivery: Delivery, verdict: str) -> None:
        assert not delivery.is_settled, "one verdict, for ever"
        delivery.state = verdict
        self.pushes[delivery.msg_id].last_event_at = self.now

    def strike_or_settle(self, deliveries: Iterable[Delivery], verdict: str) -> None:
        for each in deliveries:
            if each.state == WAITING:
                self.settle(each, verdict)
            else:
                each.strike = each.strike or verdict

    def end_visit(self, device: TwinDevice) -> None:
        for each in self.of(device, SENT, WAITING):
            if each.state == WAITING:
                if each.expires_at is None:
                    self.settle(each, "missed")
            elif each.strike is not None:
                self.settle(each, each.strike)
            elif each.expires_at is None:
                self.settle(each, "missed")
            elif each.is_due(self.now):
                self.settle(each, "expired")
            else:
                each.state = WAITING
        device.visit = None

    def flow(self, device: TwinDevice) -> None:
        visit = device.visit
        if visit is None or not visit.is_answered:
            return
        while visit.room != 0 and len(self.of(device, SENT)) < self.rules.window and self.of(device, WAITING):
            head = self.of(device, WAITING)[0]
            if head.is_due(self.now):
                self.settle(head, "expired")
                continue
            head.state = SENT
            visit.log.append(("message", head.msg_id, head.alias))
            if visit.room is not None:
                visit.room -= 1

    # --- App servers -------------------------------------------------------------------------------------------------

    def targets(self, asked: Asked) -> list[TwinDevice]:
        return [
            device
            for device in self.living()
            if (not asked.aliases or device.alias in asked.aliases)
            and (not asked.devices or device.name in asked.devices)
            and (not asked.tags or device.tags & set(asked.tags))
            and (not asked.platforms or device.platform in asked.platforms)
        ]

    def push(self, asked: Asked, msg_id: int) -> Answer:
        if asked.cid in self.cids:
            first, answer, at = self.cids[asked.cid]
            if self.now - at <= DAY_MS:
                if first != asked:
                    raise Refusal("CidReused")
                return answer
        targets = self.targets(asked)
        if not targets:
            raise Refusal("NoTarget")
        assert msg_id > max(self.pushes, default=0), f"{msg_id} is not above all earlier ids"
        self.pushes[msg_id] = TwinPush(msg_id, len(targets), self.now)
        answer = msg_id, len(targets), sum(1 for device in targets if device.visit is not None)
        if asked.cid is not None:
            self.cids[asked.cid] = asked, answer, self.now
        for device in targets:
            self.enter(device, asked, msg_id)
            self.flow(device)
        return answer

    def enter(self, device: TwinDevice, asked: Asked, msg_id: int) -> None:
        expires_at = self.now + asked.ttl * 1000 if asked.ttl else None
        newcomer = Delivery(msg_id, device.name, device.alias if asked.aliases else None, expires_at, asked.overrides)
        self.deliveries.append(newcomer)
        if asked.ttl == 0 and device.visit is None:
            self.settle(newcomer, "missed")
            return
        if asked.overrides is not None:
            about = [
                each
                for each in self.of(device, WAITING, SENT)
                if each is not newcomer and asked.overrides in (each.msg_id, each.overrides)
            ]
            self.strike_or_settle(about, "replaced")
        visit = device.visit
        # What waits for nothing but the disk does not count, and does not give way.
        free = max(0, self.rules.window - len(self.of(device, SENT))) if visit is not None and visit.room != 0 else 0
        counted = [each for each in self.of(device, WAITING) if each is not newcomer][free:]
        if len(counted) >= (self.rules.offline_limit if visit is None else self.rules.backlog_limit):
            self.settle(counted[0], "overflowed")

    def set_device(self, name: str, alias: str | None, tags: frozenset[str] | None) -> str | None:
        """Returns who lost the alias so that this one can have it."""
        device = self.find(name)
        lost = self.log_in(device, alias, by_device=False)
        if tags is not None:
            device.tags = tags
        return lost

    def delete_alias(self, alias: str) -> set[str]:
        holders = [device for device in self.living() if device.alias == alias]
        for device in holders:
            self.rebind(device, None, by_device=False)
        return {device.name for device in holders}

    def delete(self, name: str) -> None:
        device = self.find(name)
        for each in self.of(device, WAITING, SENT):
            self.settle(each, each.strike or "missed")
        if device.visit is not None:
            self.ended[device.visit.number] = "removed"
        device.visit, device.is_deleted = None, True

    # --- Aliases -----------------------------------------------------------------------------------------------------

    def log_in(self, device: TwinDevice, alias: str | None, by_device: bool) -> str | None:
        """`alias` None: no change; "": nobody."""
        if alias is None or (alias or None) == device.alias:
            return None
        loser = self.who_loses(alias) if alias else None
        if loser is not None:
            self.rebind(loser, None, by_device=False)
        self.rebind(device, alias or None, by_device)
        return None if loser is None else loser.name

    def who_loses(self, alias: str) -> TwinDevice | None:
        holders = [device for device in self.living() if device.alias == alias]
        if len(holders) < self.rules.alias_limit:
            return None
        absent = [device for device in holders if device.visit is None]
        if not self.rules.longest_absent or not absent:
            raise Refusal("AliasFull")
        return min(absent, key=lambda device: device.last_seen_at)

    def can_foretell(self, alias: str | None) -> bool:
        """Whether the contract says who loses this alias: not if nobody knows since when some have been away."""
        holders = [device for device in self.living() if device.alias == alias]
        return len({device.last_seen_at for device in holders}) == len(holders) and all(
            device.is_sure or device.visit is not None for device in holders
        )

    def rebind(self, device: TwinDevice, alias: str | None, by_device: bool) -> None:
        self.strike_or_settle([each for each in self.of(device, WAITING, SENT) if each.alias is not None], "fenced")
        device.alias = alias
        if device.visit is None:
            return
        if by_device:
            device.visit.is_answered = False
        elif device.visit.is_answered:
            device.visit.log.append(("alias", None, alias))
        else:
            device.visit.owed.append(alias)

    # --- Devices -----------------------------------------------------------------------------------------------------

    def connect(
        self, name: str, visit: int, alias: str | None, tags: frozenset[str] | None, platform: str | None
    ) -> tuple[str | None, frozenset[str], str, int]:
        """The alias, tags and platform, and how much waits."""
        device = self.devices.get(name)
        is_new = device is None
        if device is None:
            device = TwinDevice(name)
        self.log_in(device, alias, by_device=True)
        if is_new:
            self.devices[name] = device
        if tags is not None:
            device.tags = tags
        if platform is not None:
            device.platform = platform
        if device.visit is not None:
            self.ended[device.visit.number] = "displaced"
            self.end_visit(device)
        device.visit = TwinVisit(visit)
        device.last_seen_at, device.is_sure = self.now, True
        return device.alias, device.tags, device.platform, len(self.of(device, WAITING))

    def answer(self, name: str) -> None:
        device = self.devices[name]
        assert device.visit is not None
        device.visit.is_answered = True
        device.visit.log += [("alias", None, alias) for alias in device.visit.owed]
        device.visit.owed.clear()
        self.flow(device)

    def leave(self, name: str, visit: int) -> None:
        device = self.devices.get(name)
        if device is None or device.visit is None or device.visit.number != visit:
            return
        self.end_visit(device)
        device.last_seen_at = self.now

    def set_alias(self, name: str, alias: str) -> str | None:
        device = self.find(name)
        before = device.alias
        self.log_in(device, alias, by_device=True)
        return before

    def take(self, name: str, room: int | None) -> None:
        device = self.devices[name]
        assert device.visit is not None
        device.visit.room = room
        self.flow(device)

    def acknowledge(self, name: str, visit: int, msg_id: int) -> None:
        device = self.devices[name]
        if (
            device.visit is None
            or device.visit.number != visit
            or not any(entry[:2] == ("message", msg_id) for entry in device.visit.log)
        ):
            return
        [meant] = [each for each in self.deliveries if (each.device, each.msg_id) == (name, msg_id)]
        if meant.state in (SENT, "received"):
            for each in self.of(device, SENT):
                if each.msg_id <= msg_id:
                    self.settle(each, "received")
            self.flow(device)

    def decline(self, name: str, visit: int, msg_id: int) -> None:
        device = self.devices[name]
        if device.visit is None or device.visit.number != visit:
            return
        for each in self.of(device, SENT):
            if each.msg_id == msg_id and each.alias is not None:
                self.settle(each, each.strike or "fenced")
                self.flow(device)

    def mark(self, name: str, msg_id: int, mark: str) -> None:
        device = self.devices[name]
        for each in self.of(device, WAITING, SENT):
            if each.msg_id == msg_id:
                self.settle(each, "received")
        states = [each.state for each in self.deliveries if (each.device, each.msg_id) == (name, msg_id)]
        if states == ["received"] and (name, mark) not in self.pushes[msg_id].marks:
            self.pushes[msg_id].marks.add((name, mark))
            self.pushes[msg_id].last_event_at = self.now
        else:
            self.ignored += 1
        self.flow(device)

    # --- Time and death ----------------------------------------------------------------------------------------------

    def pass_time(self, now: int) -> None:
        self.now = now
        for each in self.deliveries:
            if each.state == WAITING and each.is_due(now):
                self.settle(each, "expired")

    def kill(self) -> None:
        for device in self.living():
            if device.visit is not None:
                device.is_sure = False
                self.end_visit(device)
        self.ignored = 0
        self.ended.clear()

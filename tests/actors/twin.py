"""The contract told again, naively, for one app: everything is worked out from a list of deliveries when it is needed.

It shares no code with the actors, the domain or the stores. A random walk compares a server with it after every step.
What it says holds when nothing is on its way to the disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

DAY_MS = 86_400_000
WAITING, SENT = "waiting", "sent"
RECALLS_ARE_TOLD_MS = 10 * DAY_MS
NOT_KNOWN = -1
"""An instant of which nobody can say when it was."""


def home_of(alias: str) -> str:
    """The mailbox of an alias, as `Delivery.device` names it."""
    return f"@{alias}"


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
    held_for: str | None = None
    """The alias that it waits for when it may not wait where it is."""
    deliver_by: int | None = None
    entered: int = 0
    """Its number among all that ever entered a mailbox."""
    since: int = 0
    """When it came to wait where it waits, or was sent."""
    state: str = WAITING
    """`waiting`, `sent`, or the word of its verdict."""
    strike: str | None = None
    sent_to: set[str] = field(default_factory=set)
    """The devices that were sent it, or may have been."""
    told: list[Event] = field(default_factory=list)

    @property
    def is_settled(self) -> bool:
        return self.state not in (WAITING, SENT)

    def is_due(self, now: int) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class Event(NamedTuple):
    """What an app server must be told. `where`: the device, or the mailbox of the alias."""

    where: str
    word: str
    at: int
    why: str = ""
    since: int | None = None
    behind: int | None = None


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
    untold: list[int] = field(default_factory=list)
    """Recalls that it is to be told of."""
    recalls: list[int] = field(default_factory=list)
    """Those that it was told of."""


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
    notices: dict[int, int] = field(default_factory=dict)
    """The recalls that it must be told of until it answers, each with the instant at which that is over."""


@dataclass
class TwinPush:
    msg_id: int
    targets: int
    last_event_at: int
    marks: set[tuple[str, str]] = field(default_factory=set)
    is_recalled: bool = False


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
    hold: bool = False
    within: int | None = None


Answer = tuple[int, int, int]
"""msg_id, targets, online."""
Split = tuple[int, int, int, int]
"""recalled, on the way, received, settled."""


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
        self.entered = 0
        self.told = 0
        """How many events there were: the cursor of the newest receipt."""
        self.consumers: dict[str, int] = {}

    # --- Looking -----------------------------------------------------------------------------------------------------

    def living(self) -> list[TwinDevice]:
        return [device for device in self.devices.values() if not device.is_deleted]

    def find(self, name: str) -> TwinDevice:
        if name not in self.devices or self.devices[name].is_deleted:
            raise Refusal("NoSuchDevice")
        return self.devices[name]

    def of(self, device: TwinDevice | str, *states: str) -> list[Delivery]:
        """In order: of acceptance, where nothing but an alias has it; else in the order in which they entered."""
        name = device if isinstance(device, str) else device.name
        found = [each for each in self.deliveries if each.device == name and each.state in states]
        return sorted(found, key=lambda each: each.msg_id if name.startswith("@") else each.entered)

    def report(self, msg_id: int) -> tuple[int, int, int, dict[str, int], dict[str, int]]:
        states = Counter(each.state for each in self.deliveries if each.msg_id == msg_id)
        waiting, sent = states.pop(WAITING, 0), states.pop(SENT, 0)
        marks = Counter(mark for _, mark in self.pushes[msg_id].marks)
        return self.pushes[msg_id].targets, waiting, sent, dict(states), dict(marks)

    def behind(self, now: int) -> list[int]:
        """The deadlines that are not over yet."""
        unsettled = [each for each in self.deliveries if not each.is_settled]
        return sorted({each.deliver_by for each in unsettled if each.deliver_by is not None and each.deliver_by > now})

    # --- Settling ----------------------------------------------------------------------------------------------------

    def settle(self, delivery: Delivery, verdict: str) -> None:
        assert not delivery.is_settled, "one verdict, for ever"
        delivery.state = verdict
        self.pushes[delivery.msg_id].last_event_at = self.now
        self.tell(delivery, Event(delivery.device, verdict, self.now))

    def tell(self, delivery: Delivery, event: Event) -> None:
        delivery.told.append(event)
        self.told += 1

    def part(self, delivery: Delivery, verdict: str) -> None:
        """It leaves its device with this verdict: what is held is never fenced there, but comes back."""
        if verdict == "fenced" and delivery.held_for is not None:
            self.come_back(delivery)
        else:
            self.settle(delivery, verdict)

    def strike_or_settle(self, deliveries: Iterable[Delivery], verdict: str) -> None:
        for each in deliveries:
            if each.state == WAITING:
                self.part(each, verdict)
            else:
                self.strike(each, verdict)

    def strike(self, delivery: Delivery, verdict: str) -> None:
        """The first one counts; what is held is not fenced, so for that a fence is none."""
        if delivery.strike is None or (delivery.strike == "fenced" and delivery.held_for is not None):
            delivery.strike = verdict

    def end_visit(self, device: TwinDevice) -> None:
        for each in self.of(device, SENT, WAITING):
            if each.state == WAITING:
                if each.expires_at is None:
                    self.settle(each, "missed")
            elif each.strike is not None:
                self.part(each, each.strike)
            elif each.expires_at is None:
                self.settle(each, "missed")
            elif each.is_due(self.now):
                self.settle(each, "expired")
            else:
                each.state, each.since = WAITING, self.now
        device.visit = None

    # --- Held for the user -------------------------------------------------------------------------------------------

    def come_back(self, delivery: Delivery) -> None:
        """It waits for its alias again."""
        assert delivery.held_for is not None
        home = home_of(delivery.held_for)
        there = self.of(home, WAITING)
        assert not self.pushes[delivery.msg_id].is_recalled, "nothing recalled is sent after the answer"
        if any(each.msg_id == delivery.msg_id for each in there):
            self.settle(delivery, "fenced")
            return
        delivery.device, delivery.alias, delivery.state, delivery.strike = home, delivery.held_for, WAITING, None
        delivery.since = self.now
        # A device that it was taken from again is not told of a recall (C25).
        delivery.sent_to.clear()
        if delivery.is_due(self.now):
            self.settle(delivery, "expired")
        elif any(
            each.msg_id > delivery.msg_id
            and each.overrides is not None
            and each.overrides in (delivery.msg_id, delivery.overrides)
            for each in there
        ):
            self.settle(delivery, "replaced")

    def had(self, device: TwinDevice) -> set[int]:
        """A device gets each push once."""
        return {each.msg_id for each in self.deliveries if each.device == device.name}

    def hand_over(self, device: TwinDevice, alias: str, had: set[int]) -> None:
        """Somebody logs in as `alias`: what waits for that goes to the device, behind what is there."""
        for each in self.of(home_of(alias), WAITING):
            if each.msg_id not in had:
                each.device, each.since = device.name, self.now
                self.enter_behind(each)

    def enter_behind(self, delivery: Delivery) -> None:
        self.entered += 1
        delivery.entered = self.entered

    def flow(self, device: TwinDevice) -> None:
        visit = device.visit
        if visit is None or not visit.is_answered:
            return
        while visit.untold and visit.room != 0:
            recalled = visit.untold.pop(0)
            if device.notices.get(recalled, 0) > self.now:
                visit.recalls.append(recalled)
        while visit.room != 0 and len(self.of(device, SENT)) < self.rules.window and self.of(device, WAITING):
            head = self.of(device, WAITING)[0]
            if head.is_due(self.now):
                self.settle(head, "expired")
                continue
            head.state, head.since = SENT, self.now
            head.sent_to.add(device.name)
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
        unheld = [alias for alias in asked.aliases if asked.hold and not self.holders(alias)]
        if not targets and not unheld:
            raise Refusal("NoTarget")
        assert msg_id > max(self.pushes, default=0), f"{msg_id} is not above all earlier ids"
        count = len(targets) + len(unheld)
        self.pushes[msg_id] = TwinPush(msg_id, count, self.now)
        answer = msg_id, count, sum(1 for device in targets if device.visit is not None)
        if asked.cid is not None:
            self.cids[asked.cid] = asked, answer, self.now
        if asked.hold and asked.overrides is not None:
            # The contract does not say it: what waits for the alias elsewhere is replaced as well.
            for alias in {device.alias for device in targets if device.alias is not None}:
                self.strike_or_settle(self.about(home_of(alias), asked.overrides), "replaced")
        for device in targets:
            self.enter(device.name, device.alias, device.visit, asked, msg_id)
            self.flow(device)
        for alias in unheld:
            self.enter(home_of(alias), alias, None, asked, msg_id)
        return answer

    def about(self, where: str, msg_id: int) -> list[Delivery]:
        return [each for each in self.of(where, WAITING, SENT) if msg_id in (each.msg_id, each.overrides)]

    def enter(self, where: str, alias: str | None, visit: TwinVisit | None, asked: Asked, msg_id: int) -> None:
        expires_at = self.now + asked.ttl * 1000 if asked.ttl else None
        newcomer = Delivery(
            msg_id,
            where,
            alias if asked.aliases else None,
            expires_at,
            asked.overrides,
            alias if asked.hold else None,
            None if asked.within is None else self.now + asked.within * 1000,
            since=self.now,
        )
        self.enter_behind(newcomer)
        if asked.ttl == 0 and visit is None:
            self.deliveries.append(newcomer)
            self.settle(newcomer, "missed")
            return
        if asked.overrides is not None:
            self.strike_or_settle(self.about(where, asked.overrides), "replaced")
        # What waits for nothing but the disk does not count, and does not give way.
        free = max(0, self.rules.window - len(self.of(where, SENT))) if visit is not None and visit.room != 0 else 0
        counted = self.of(where, WAITING)[free:]
        if len(counted) >= (self.rules.offline_limit if visit is None else self.rules.backlog_limit):
            self.settle(counted[0], "overflowed")
        self.deliveries.append(newcomer)

    def recall(self, msg_id: int, is_half: bool = False) -> Split:
        """`is_half`: the server was killed before it had looked up who received it."""
        if msg_id not in self.pushes:
            raise Refusal("NoSuchMessage")
        found = [each for each in self.deliveries if each.msg_id == msg_id]
        waiting = [each for each in found if each.state == WAITING]
        told = {device for each in found for device in each.sent_to}
        received_by = {each.device for each in found if each.state == "received"}
        told = told - received_by if is_half else told | received_by
        for each in found:
            if each.state == SENT:
                self.strike(each, "recalled")
        for each in waiting:
            self.settle(each, "recalled")
        self.pushes[msg_id].is_recalled = True
        for device in self.living():
            if device.name in told:
                self.notice(device, msg_id)
        on_the_way = sum(1 for each in found if each.state == SENT)
        received = sum(1 for each in found if each.state == "received")
        return len(waiting), on_the_way, received, len(found) - len(waiting) - on_the_way - received

    def notice(self, device: TwinDevice, msg_id: int) -> None:
        if device.visit is not None and device.notices.get(msg_id, 0) <= self.now:
            device.visit.untold.append(msg_id)
        device.notices[msg_id] = self.now + RECALLS_ARE_TOLD_MS
        self.flow(device)

    def subscribe(self, name: str, is_everything: bool, kept_behind: int) -> int:
        """Behind which cursor it begins. `kept_behind`: the receipts up to this one are not kept any more."""
        if is_everything:
            position = kept_behind
        else:
            position = self.consumers.get(name, self.told)
            if position < kept_behind:
                raise Refusal("CursorGone")
        self.consumers[name] = position
        return position

    def done_with(self, name: str, cursor: int, begun_behind: int) -> None:
        self.consumers[name] = max(self.consumers[name], cursor, begun_behind)

    def set_device(self, name: str, alias: str | None, tags: frozenset[str] | None) -> str | None:
        """Returns who lost the alias so that this one can have it."""
        device = self.find(name)
        lost = self.log_in(device, alias, by_device=False)
        if tags is not None:
            device.tags = tags
        return lost

    def delete_alias(self, alias: str, order: list[str]) -> set[str]:
        """`order`: in which the server did it. Where two deliveries of one push come back, it says which one waits."""
        holders = self.holders(alias)
        holders.sort(key=lambda device: order.index(device.name) if device.name in order else 0)
        for device in holders:
            self.rebind(device, None, by_device=False)
        return {device.name for device in holders}

    def delete(self, name: str) -> None:
        device = self.find(name)
        for each in self.of(device, SENT, WAITING):
            self.part(each, each.strike or ("fenced" if each.held_for is not None else "missed"))
        device.notices.clear()
        if device.visit is not None:
            self.ended[device.visit.number] = "removed"
        device.visit, device.is_deleted = None, True

    # --- Aliases -----------------------------------------------------------------------------------------------------

    def log_in(self, device: TwinDevice, alias: str | None, by_device: bool) -> str | None:
        """`alias` None: no change; "": nobody."""
        if alias is None or (alias or None) == device.alias:
            return None
        had = self.had(device)
        loser = self.who_loses(alias) if alias else None
        if loser is not None:
            self.rebind(loser, None, by_device=False)
        self.rebind(device, alias or None, by_device)
        if alias:
            self.hand_over(device, alias, had)
            self.flow(device)
        return None if loser is None else loser.name

    def holders(self, alias: str) -> list[TwinDevice]:
        return [device for device in self.living() if device.alias == alias]

    def who_loses(self, alias: str) -> TwinDevice | None:
        holders = self.holders(alias)
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
        device.visit.untold = [msg_id for msg_id, until in device.notices.items() if until > self.now]
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
        if device.visit is None or device.visit.number != visit:
            return
        handed = [entry[1] for entry in device.visit.log if entry[0] == "message"]
        meant = [each for each in self.deliveries if (each.device, each.msg_id) == (name, msg_id)]
        if msg_id in handed and meant and meant[0].state in (SENT, "received"):
            for each in self.of(device, SENT):
                if each.entered <= meant[0].entered:
                    self.settle(each, "received")
            self.flow(device)

    def decline(self, name: str, visit: int, msg_id: int) -> None:
        device = self.devices[name]
        if device.visit is None or device.visit.number != visit:
            return
        for each in self.of(device, SENT):
            if each.msg_id == msg_id and each.alias is not None:
                self.part(each, each.strike or "fenced")
                self.flow(device)

    def mark(self, name: str, msg_id: int, mark: str) -> None:
        device = self.devices[name]
        for each in self.of(device, WAITING, SENT):
            if each.msg_id == msg_id:
                self.settle(each, "received")
        meant = [each for each in self.deliveries if (each.device, each.msg_id) == (name, msg_id)]
        if [each.state for each in meant] == ["received"] and (name, mark) not in self.pushes[msg_id].marks:
            self.pushes[msg_id].marks.add((name, mark))
            self.pushes[msg_id].last_event_at = self.now
            self.tell(meant[0], Event(name, mark, self.now))
        else:
            self.ignored += 1
        device.notices.pop(msg_id, None)
        self.flow(device)

    # --- Time and death ----------------------------------------------------------------------------------------------

    def pass_time(self, now: int) -> None:
        self.now = now
        for each in self.deliveries:
            if each.state == WAITING and each.is_due(now):
                self.settle(each, "expired")
        for each in self.deliveries:
            if not each.is_settled and each.deliver_by is not None and each.deliver_by <= now:
                each.deliver_by = None
                self.tell(each, self.overdue(each))

    def overdue(self, delivery: Delivery) -> Event:
        where = delivery.device
        if where.startswith("@"):
            return Event(where, "overdue", self.now, "unheld", since=delivery.since)
        device = self.devices[where]
        if device.visit is None:
            since = device.last_seen_at if device.is_sure else NOT_KNOWN
            return Event(where, "overdue", self.now, "absent", since=since)
        if delivery.state == SENT:
            return Event(where, "overdue", self.now, "unacknowledged", since=delivery.since)
        before = [*self.of(where, SENT), *self.of(where, WAITING)].index(delivery)
        return Event(where, "overdue", self.now, "queued", behind=before)

    def crash(self, name: str) -> None:
        """One device's part of the server dies: nobody knows what its visit has said last."""
        device = self.devices[name]
        if device.visit is not None:
            self.ended[device.visit.number] = "restarted"
            self.lose(device)

    def lose(self, device: TwinDevice) -> None:
        device.is_sure = False
        for each in self.of(device, WAITING, SENT):
            each.sent_to.add(device.name)
        self.end_visit(device)

    def kill(self) -> None:
        for device in self.living():
            if device.visit is not None:
                self.lose(device)
        self.ignored = 0
        self.ended.clear()

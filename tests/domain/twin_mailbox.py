"""The contract of one mailbox told again, naively: a list of facts, from which everything is worked out when asked.

It shares no code with the mailbox, and nothing but the words of its effects. Deliveries are never moved or removed:
what is sent, what waits and in which order is read off the list of all deliveries there ever were. What went to another
mailbox (C25) stays as a fact that is `gone`.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from pushactors.domain.effects import Effect, Returned, Settled, Struck
from pushactors.domain.mailbox import Entry, Mailbox
from pushactors.domain.message import Message, Verdict
from pushactors.wire.ids import Alias, Binding, Millis, MsgId, UnitNo, VisitId

Fact = dict[str, Any]
Tale = Effect | tuple[str, int, bool]
"""An effect; of what returns to its alias: the word, its id, and whether it was on the wire."""


class TwinMailbox:
    """`facts` are all deliveries in the order of acceptance. Every method answers what was told by it, in order."""

    def __init__(self, binding: int) -> None:
        self.facts: list[Fact] = []
        self.binding = binding
        self.visit: int | None = None

    # --- What there is -------------------------------------------------------------------------------------------

    def unsettled(self) -> list[Fact]:
        return [fact for fact in self.facts if fact["verdict"] is None and not fact["gone"]]

    def sent(self) -> list[Fact]:
        return [fact for fact in self.unsettled() if fact["sent"]]

    def waiting(self) -> list[Fact]:
        return [fact for fact in self.unsettled() if not fact["sent"]]

    # --- What becomes of one -------------------------------------------------------------------------------------

    @staticmethod
    def _settle(fact: Fact, verdict: Verdict) -> Tale:
        assert fact["verdict"] is None, "A delivery gets exactly one verdict, for ever (C1)."
        if verdict is Verdict.FENCED and fact["held"]:
            # C25: it is not fenced, but waits for its alias again.
            fact.update(gone=True)
            return ("returned", fact["id"], fact["sent"])
        fact["verdict"] = verdict
        return Settled(fact["id"], verdict, fact["sent"])

    def _settle_or_strike(self, facts: list[Fact], verdict: Verdict) -> list[Tale]:
        """C3: what waits is settled; what is sent is struck, and the first strike counts. C25: what is held and met by
        the fence has no verdict by that; struck otherwise, it gets that one."""
        told: list[Tale] = []
        for fact in facts:
            if not fact["sent"]:
                told.append(self._settle(fact, verdict))
            elif fact["strike"] is None or (
                fact["held"] and fact["strike"] is Verdict.FENCED and verdict is not Verdict.FENCED
            ):
                fact["strike"] = verdict
                told.append(Struck(fact["id"], verdict))
        return told

    # --- What happens --------------------------------------------------------------------------------------------

    def enter(self, fact: Fact, limit: int, room: int) -> tuple[Verdict | None, list[Tale]]:
        self.facts.append(fact)
        if fact["expires_at"] is None and self.visit is None:
            fact["verdict"] = Verdict.MISSED
            return Verdict.MISSED, []
        if fact["binding"] is not None and fact["binding"] != self.binding:
            fact["verdict"] = Verdict.FENCED
            return Verdict.FENCED, []
        told: list[Tale] = []
        if (named := fact["overrides"]) is not None:
            about = [old for old in self.unsettled() if old is not fact and named in (old["id"], old["overrides"])]
            told += self._settle_or_strike(about, Verdict.REPLACED)
        counted = self.waiting()[room:]
        if len(counted) > limit:
            told.append(self._settle(counted[0], Verdict.OVERFLOWED))
        return None, told

    def arrive(self, visit: int) -> None:
        self.visit = visit

    def leave(self, visit: int, now: int) -> tuple[bool, list[Tale]]:
        if visit != self.visit:
            return False, []
        self.visit = None
        told: list[Tale] = []
        for fact in self.unsettled():
            if fact["strike"] is not None:
                told.append(self._settle(fact, fact["strike"]))
            elif fact["expires_at"] is None:
                told.append(self._settle(fact, Verdict.MISSED))
            elif fact["sent"] and fact["expires_at"] <= now:
                told.append(self._settle(fact, Verdict.EXPIRED))
            elif fact["sent"]:
                fact.update(sent=False, at=now, was_sent=True)
        return True, told

    def next_to_send(self, now: int, durable: int, window: int) -> tuple[int | None, list[Tale]]:
        told: list[Tale] = []
        for fact in self.waiting():
            # Open in C5: whether what may not go yet expires here, or at the next `expire`. A mailbox does the latter.
            if len(self.sent()) >= window or fact["gate"] > durable or not fact["content"]:
                return None, told
            if fact["expires_at"] is None or now < fact["expires_at"]:
                fact.update(sent=True, at=now)
                fact["sent_on"].append(self.visit)
                return fact["id"], told
            told.append(self._settle(fact, Verdict.EXPIRED))
        return None, told

    def acknowledge(self, visit: int, msg_id: int) -> tuple[bool, list[Tale]]:
        covered = self.covered(visit, msg_id)
        return bool(covered), [self._settle(fact, Verdict.RECEIVED) for fact in covered]

    def covered(self, visit: int, msg_id: int) -> list[Fact]:
        """C10: this one and all sent before it. C3: not if it has another verdict than `received`."""
        if visit != self.visit:
            return []
        known = [fact for fact in self.facts if fact["id"] == msg_id and visit in fact["sent_on"] and not fact["gone"]]
        if not known or known[0]["verdict"] not in (None, Verdict.RECEIVED):
            return []
        return [fact for fact in self.sent() if self.facts.index(fact) <= self.facts.index(known[0])]

    def is_received(self, msg_id: int) -> bool:
        return any(fact["id"] == msg_id and fact["verdict"] is Verdict.RECEIVED for fact in self.facts)

    def fact_of(self, msg_id: int) -> Fact:
        """The last that there is of it."""
        return next(fact for fact in reversed(self.facts) if fact["id"] == msg_id)

    def decline(self, visit: int, msg_id: int) -> tuple[bool, list[Tale]]:
        declined = [fact for fact in self.sent() if fact["id"] == msg_id and fact["binding"] is not None]
        if visit != self.visit or not declined:
            return False, []
        return True, [self._settle(fact, fact["strike"] or Verdict.FENCED) for fact in declined]

    def mark(self, msg_id: int) -> list[Tale]:
        return [self._settle(fact, Verdict.RECEIVED) for fact in self.unsettled() if fact["id"] == msg_id]

    def rebind(self, binding: int) -> list[Tale]:
        self.binding = binding
        earlier = [fact for fact in self.unsettled() if fact["binding"] not in (None, binding)]
        return self._settle_or_strike(earlier, Verdict.FENCED)

    def expire(self, now: int) -> list[Tale]:
        due = [fact for fact in self.waiting() if fact["expires_at"] is not None and fact["expires_at"] <= now]
        return [self._settle(fact, Verdict.EXPIRED) for fact in due]

    def clear(self) -> list[Tale]:
        self.visit = None
        # What waits and is held first: it has somewhere to go.
        order = sorted(self.unsettled(), key=lambda fact: (not fact["sent"], not fact["sent"] and not fact["held"]))
        return [
            self._settle(fact, fact["strike"] or (Verdict.FENCED if fact["held"] else Verdict.MISSED)) for fact in order
        ]

    def recall(self, msg_id: int) -> tuple[bool | None, list[Tale]]:
        """C22: settled, struck, or not here."""
        found = [fact for fact in self.unsettled() if fact["id"] == msg_id]
        if not found:
            return None, []
        return not found[0]["sent"], self._settle_or_strike(found, Verdict.RECALLED)

    # --- Waiting for an alias --------------------------------------------------------------------------------------

    def release(self, had: set[int]) -> list[Fact]:
        going = [fact for fact in self.unsettled() if fact["id"] not in had]
        for fact in going:
            fact.update(gone=True)
        return going

    def admit(self, fact: Fact) -> None:
        self.facts.append(fact)

    def readmit(self, fact: Fact, now: int) -> list[Tale]:
        """C25: its old place, in order of acceptance, unless its time is over (C5) or a newer message took its place
        (C7)."""
        names = {fact["id"], fact["overrides"]} - {None}
        is_replaced = any(newer["id"] > fact["id"] and newer["overrides"] in names for newer in self.waiting())
        self.facts.append(fact)
        self.facts.sort(key=lambda each: each["id"])  # type: ignore[no-any-return]
        if fact["expires_at"] <= now:
            return [self._settle(fact, Verdict.EXPIRED)]
        if is_replaced:
            return [self._settle(fact, Verdict.REPLACED)]
        # C7: and takes itself the place of what is older.
        named = fact["overrides"]
        return [
            self._settle(older, Verdict.REPLACED)
            for older in self.waiting()
            if named is not None and older["id"] < fact["id"] and named in (older["id"], older["overrides"])
        ]

    def replace_older(self, msg_id: int) -> list[Tale]:
        about = [fact for fact in self.unsettled() if msg_id in (fact["id"], fact["overrides"])]
        return self._settle_or_strike(about, Verdict.REPLACED)

    # --- The end of a process ----------------------------------------------------------------------------------------

    def crash(self) -> list[Fact]:
        """C3, C5: the store settles what was struck or may not wait; all else is in the store, in order. What the fence
        had struck and is held is there, too: it is returned by `begin`."""
        self.visit = None
        for fact in self.unsettled():
            is_stranded = fact["held"] and fact["strike"] is Verdict.FENCED
            if (fact["strike"] is not None and not is_stranded) or fact["expires_at"] is None:
                fact["verdict"] = fact["strike"] or Verdict.MISSED
            fact.update(sent=False, gate=0, content=False)
        return self.unsettled()

    def begin(self, now: int) -> list[Tale]:
        """What has come from the store is judged: its visit has ended unheard."""
        told: list[Tale] = []
        for fact in self.unsettled():
            if fact["strike"] is not None:
                told.append(self._settle(fact, fact["strike"]))
            elif fact["expires_at"] <= now:
                told.append(self._settle(fact, Verdict.EXPIRED))
        return told


STEP_MS = 1000
"""Time goes in whole steps, so that what is due falls on the very instant again and again."""
ALICE = Alias("alice")
FRESH: Fact = {"sent": False, "sent_on": [], "strike": None, "verdict": None, "gone": False, "was_sent": False}


def _tales(told: list[Effect]) -> list[Tale]:
    return [("returned", each.entry.msg_id, each.was_sent) if isinstance(each, Returned) else each for each in told]


class MailboxWalk:
    """One device at random: a mailbox and its twin do the same, and are compared after every step."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.box = Mailbox(Binding(1))
        self.twin = TwinMailbox(1)
        self.alias_box = Mailbox(Binding(0))
        """What waits for the alias, wherever it was before; another mailbox, with a twin of its own."""
        self.alias_twin = TwinMailbox(0)
        self.now = 100 * STEP_MS
        self.last_id = 0
        self.last_visit = 0
        self.last_binding = 1
        self.accepted = 0
        self.durable = 0
        self.settled: dict[int, Verdict] = {}
        self.met: Counter[str] = Counter()
        """What happened to what is held."""
        steps = {
            self.push: 100, self.send: 110, self.acknowledge: 20, self.decline: 12, self.mark: 16, self.arrive: 40,
            self.leave: 8, self.displace: 7, self.rebind: 6, self.expire: 6, self.commit: 50, self.load: 20,
            self.crash: 2, self.clear: 1, self.recall: 8, self.hold: 12, self.bind: 10, self.expire_held: 3,
            self.recall_held: 2, self.replace_held: 2, self.crash_held: 1,
        }  # fmt: skip
        # Every walk has habits of its own: what is rare in all of them together would never meet in one.
        self.steps = {step: weight * self.random.choice((0.4, 1, 1, 2)) for step, weight in steps.items()}
        self.limit = self.random.randint(1, 4)
        self.backlog = self.random.randint(1, 8)
        self.window = self.random.randint(1, 10)

    def step(self) -> str:
        """Does one thing on both sides, compares them, and says what it did."""
        action = self.random.choices(list(self.steps), weights=list(self.steps.values()))[0]
        self.now += self.random.choice((0, 0, 0, STEP_MS, 2 * STEP_MS))
        told: list[Effect] = []
        what, answer, expected, expected_told = action(told)
        assert answer == expected, f"{what}: answered {answer}, not {expected}"
        assert _tales(told) == expected_told, f"{what}: told {told}, not {expected_told}"
        self._note(what, told)
        for effect in told:
            if isinstance(effect, Returned):
                self._take_back(what, effect)
        for box, twin in ((self.box, self.twin), (self.alias_box, self.alias_twin)):
            self._compare(what, box, twin)
        return what

    def _note(self, what: str, told: list[Effect]) -> None:
        for effect in told:
            if isinstance(effect, Settled):
                assert effect.msg_id not in self.settled, f"{what}: a second verdict (C1)"
                self.settled[effect.msg_id] = effect.verdict

    def _take_back(self, what: str, returned: Returned) -> None:
        """What a mailbox's actor does with what returns."""
        entry, told = returned.entry, list[Effect]()
        assert entry.held_for == "alice", f"{what}: returned to {entry.held_for}"
        fact = {**self.twin.fact_of(entry.msg_id), "at": self.now, "binding": None, "place": None, **FRESH}
        entry.binding, entry.place, entry.at, entry.strike, entry.was_sent = None, entry.msg_id, self.now, None, False
        self.alias_box.readmit(entry, Millis(self.now), told)
        expected = self.alias_twin.readmit(fact, self.now)
        assert _tales(told) == expected, f"{what}: coming back told {told}, not {expected}"
        self.met["returned from the wire" if returned.was_sent else "returned while it waited"] += 1
        self.met["came back too late"] += not self.alias_box.holds(entry.msg_id)
        newest = max((each["id"] for each in self.alias_twin.waiting()), default=0)
        self.met["came back before others"] += self.alias_box.holds(entry.msg_id) and entry.msg_id < newest
        self._note(what, told)

    @staticmethod
    def _compare(what: str, box: Mailbox, twin: TwinMailbox) -> None:
        ours = [(each.msg_id, each.at, each.strike) for each in box.sent]
        theirs = [(fact["id"], fact["at"], fact["strike"]) for fact in twin.sent()]
        assert ours == theirs, f"{what}: {ours} are on the wire, not {theirs}"
        waits = [(each.msg_id, each.at, each.strike, each.was_sent) for each in box.waiting]
        behind = [(fact["id"], fact["at"], None, fact["was_sent"]) for fact in twin.waiting()]
        assert waits == behind, f"{what}: {waits} wait, not {behind}"
        assert (box.sent_count(), box.waiting_count()) == (len(ours), len(waits)), f"{what}: miscounted"
        assert (box.visit, box.binding) == (twin.visit, twin.binding), f"{what}: another visit or binding"
        known = {fact["id"] for fact in twin.facts[-9:]}
        assert {each for each in known if box.holds(each)} == {fact["id"] for fact in twin.unsettled()} & known, what

    def _some_id(self) -> int:
        """Mostly something unsettled, or lately settled after it was sent, or anything recent, or not heard of yet."""
        unsettled: list[int] = [fact["id"] for fact in self.twin.unsettled()]
        settled: list[int] = [fact["id"] for fact in self.twin.facts if fact["verdict"] and fact["sent_on"]][-5:]
        pick = self.random.random()
        if unsettled and pick < 0.65:
            return self.random.choice(unsettled)
        if settled and pick < 0.85:
            return self.random.choice(settled)
        return max(1, self.last_id + 3 - self.random.randint(0, 12))

    def _some_visit(self) -> int:
        """Mostly the present visit, or else one that is over, or never was."""
        if self.twin.visit is not None and self.random.random() < 0.85:
            return self.twin.visit
        return self.random.randint(max(0, self.last_visit - 2), self.last_visit + 1)

    # --- Steps: what was done, what the mailbox answered, and what its twin did ----------------------------------

    def push(self, told: list[Effect]) -> tuple[str, Any, Any, list[Tale]]:
        self.last_id += 1
        msg_id, pick = self.last_id, self.random
        expires_at = pick.choice((None, STEP_MS, 3 * STEP_MS, 9 * STEP_MS, *[1000 * STEP_MS] * 4))
        expires_at = None if expires_at is None else self.now + expires_at
        # What is named may be anything: settled long ago, this very message, or one that is yet to come.
        overrides = self._some_id() if pick.random() < 0.3 else None
        late = pick.randint(1, self.last_binding)
        binding = pick.choice((*[self.twin.binding] * 6, None, None, None, late))
        self.accepted += 1
        gate = pick.choice((0, self.accepted, self.accepted))
        limit, room = self.limit, 0
        if self.twin.visit is not None:
            limit, room = self.backlog, pick.choice((0, max(0, self.window - len(self.twin.sent()))))
        fact: Fact = {
            "id": msg_id, "at": self.now, "expires_at": expires_at, "overrides": overrides, "binding": binding,
            "gate": gate, "content": True, "held": False, **FRESH, "sent_on": [],
        }  # fmt: skip
        fact["held"] = binding is not None and expires_at is not None and pick.random() < 0.4
        verdict = self.box.enter(self._entry(fact), limit, room, told)
        expected, expected_told = self.twin.enter(fact, limit, room)
        if verdict is Verdict.FENCED and fact["held"]:
            # It waits for its user, as what is accepted in a race does.
            fact.update(gone=True, verdict=None)
            self._enter_held({**fact, "binding": None, **FRESH, "sent_on": []})
        elif verdict is not None:
            self.settled[msg_id] = verdict
        return f"push {fact}, limit {limit}, room {room}", verdict, expected, expected_told

    def _entry(self, fact: Fact) -> Entry:
        content = None
        if fact["content"]:
            content = Message(fact["id"], fact["at"], fact["expires_at"], fact["overrides"], b"{}")
        return Entry(
            MsgId(fact["id"]), fact["expires_at"], fact["overrides"], fact["binding"], fact["at"],
            UnitNo(fact["gate"]), content, fact["strike"], ALICE if fact["held"] else None, fact.get("place"),
            fact["was_sent"],
        )  # fmt: skip

    def _enter_held(self, fact: Fact) -> None:
        told: list[Effect] = []
        verdict = self.alias_box.enter(self._entry(fact), self.limit, 0, told)
        expected = self.alias_twin.enter(fact, self.limit, 0)
        assert (verdict, _tales(told)) == expected, f"held: {verdict} {told}, not {expected}"
        self._note("held", told)

    def send(self, told: list[Effect]) -> tuple[str, Any, Any, list[Tale]]:
        if self.twin.visit is None:
            return "send nothing to an absent device", None, None, []
        sent, expected, expected_told = [], [], []
        for _ in range(self.random.randint(1, 4)):
            now, durable = Millis(self.now), UnitNo(self.durable)
            head = self.box.next_to_send(now, durable, self.window, told)
            sent.append(None if head is None else int(head.msg_id))
            twin_head, twin_told = self.twin.next_to_send(self.now, self.durable, self.window)
            expected.append(twin_head)
            expected_told += twin_told
        return f"send at {self.now}, durable {self.durable}", sent, expected, expected_told

    def acknowledge(self, told: list[Effect]) -> tuple[str, Any, Any, list[Tale]]:
        visit, msg_id = self._some_visit(), self._some_id()
        was_received = self.twin.is_received(msg_id)
        answer = self.box.acknowledge(VisitId(visit), MsgId(msg_id), told)
        expected, expected_told = self.twin.acknowledge(visit, msg_id)
        if was_received and not expected:
            # Open in C3: whether it counts to be told once more what is known, when nothing follows from it.
            expected = answer
        return f"acknowledge {msg_id} on visit {visit}", answer, expected, expected_told

    def decline(self, told: list[Effect]) -> tuple[str, Any, Any, list[Tale]]:
        visit, msg_id = self._some_visit(), self._some_id()
        answer = self.box.decline(VisitId(visit), MsgId(msg_id), told)
        return f"decline {msg_id} on visit {visit}", answer, *self.twin.decline(visit, msg_id)

    def mark(self, told: list[Effect]) -> tuple[str, Any, Any, list[Tale]]:
        msg_id = self._some_id()
        self.box.mark(MsgId(msg_id), told)
        return f"mark {msg_id}", None, None, self.twin.mark(msg_id)

    def arrive(self, told: list[Effect]) -> tuple[str, Any, Any, list[Tale]]:
        if self.twin.visit is not None:
            return "stay", None, None, []
        self.last_visit += 1
        self.box.arrive(VisitId(self.last_visit))
        self.twin.arrive(self.last_visit)
        return f"arrive on visit {self.last_visit}", None, None, []

    def leave(self, told: list[Effect]) -> tuple[str, Any, Any, list[Tale]]:
        visit = self._some_visit()
        answer = self.box.leave(VisitId(visit), Millis(self.now), told)
        return f"leave visit {visit} at {self.now}", answer, *self.twin.leave(visit, self.now)

    def displace(self, told: list[Effect]) -> tuple[str, Any, Any, list[Tale]]:
        if (visit := self.twin.visit) is None:
            return "displace nobody", None, None, []
        answer = self.box.leave(VisitId(visit), Millis(self.now), told)
        outcome = self.twin.leave(visit, self.now)
        self.arrive([])
        return f"displace visit {visit} at {self.now}", answer, *outcome

    def rebind(self, told: list[Effect]) -> tuple[str, Any, Any, list[Tale]]:
        self.last_binding += 1
        self.box.rebind(Binding(self.last_binding), told)
        return f"rebind to {self.last_binding}", None, None, self.twin.rebind(self.last_binding)

    def expire(self, told: list[Effect]) -> tuple[str, Any, Any, list[Tale]]:
        self.box.expire(Millis(self.now), told)
        return f"expire at {self.now}", None, None, self.twin.expire(self.now)

    def commit(self, told: list[Effect]) -> tuple[str, Any, Any, list[Tale]]:
        self.durable = self.random.choice((self.accepted, self.random.randint(self.durable, self.accepted)))
        return f"commit up to {self.durable}", None, None, []

    def load(self, told: list[Effect]) -> tuple[str, Any, Any, list[Tale]]:
        """The content of some that came back from the store, not always in order."""
        for entry in self.box.waiting:
            fact = next(fact for fact in self.twin.waiting() if fact["id"] == entry.msg_id)
            if not fact["content"] and self.random.random() < 0.6:
                fact["content"] = True
                entry.message = Message(entry.msg_id, Millis(self.now), entry.expires_at, entry.overrides, b"{}")
        return "load", None, None, []

    def crash(self, told: list[Effect]) -> tuple[str, Any, Any, list[Tale]]:
        stays = self.twin.crash()
        self.durable = self.accepted
        self.settled |= {fact["id"]: fact["verdict"] for fact in self.twin.facts if fact["verdict"] is not None}
        self.box = Mailbox(Binding(self.twin.binding), [self._entry(fact) for fact in stays])
        self.box.end_lost_visit(Millis(self.now), told)
        return "crash", None, None, self.twin.begin(self.now)

    def clear(self, told: list[Effect]) -> tuple[str, Any, Any, list[Tale]]:
        self.box.clear(told)
        return "clear", None, None, self.twin.clear()

    def recall(self, told: list[Effect]) -> tuple[str, Any, Any, list[Tale]]:
        msg_id = self._some_id()
        answer = self.box.recall(MsgId(msg_id), told)
        return f"recall {msg_id}", answer, *self.twin.recall(msg_id)

    # --- Steps of what is held -----------------------------------------------------------------------------------

    def hold(self, told: list[Effect]) -> tuple[str, Any, Any, list[Tale]]:
        """A push to the alias while nobody has it."""
        self.last_id += 1
        expires_at = self.now + self.random.choice((STEP_MS, 9 * STEP_MS, *[1000 * STEP_MS] * 4))
        # What the device has of it, mostly: it may come back.
        there = [fact["id"] for fact in self.twin.unsettled() if fact["held"]] or [self._some_id()]
        overrides = self.random.choice(there) if self.random.random() < 0.5 else None
        fact: Fact = {
            "id": self.last_id, "at": self.now, "expires_at": expires_at, "overrides": overrides, "binding": None,
            "gate": 0, "content": True, "held": True, **FRESH, "sent_on": [],
        }  # fmt: skip
        self._enter_held(fact)
        return f"hold {fact}", None, None, []

    def bind(self, told: list[Effect]) -> tuple[str, Any, Any, list[Tale]]:
        """The alias is set on the device: what waits for it goes there, but for what it had."""
        had = {fact["id"] for fact in self.alias_twin.unsettled() if self.random.random() < 0.1}
        self.last_binding += 1
        self.box.rebind(Binding(self.last_binding), told)
        expected = self.twin.rebind(self.last_binding)
        free = {MsgId(fact["id"]) for fact in self.alias_twin.unsettled() if fact["id"] not in had} if had else None
        going, facts = self.alias_box.release(free), self.alias_twin.release(had)
        assert [entry.msg_id for entry in going] == [fact["id"] for fact in facts], "something else was released"
        self.accepted += 1
        self.met["bound"] += len(going)
        self.met["had already"] += len(had)
        for entry, fact in zip(going, facts, strict=True):
            self.last_id += 1
            entry.place, entry.binding, entry.at = self.last_id, Binding(self.last_binding), Millis(self.now)
            entry.gate = UnitNo(self.accepted)
            self.box.admit(entry)
            self.twin.admit(
                {**fact, **FRESH, "sent_on": [], "place": self.last_id, "binding": self.last_binding, "at": self.now,
                 "gate": self.accepted}
            )  # fmt: skip
        return f"bind {[fact['id'] for fact in facts]} to {self.last_binding}", None, None, expected

    def _of_held(self) -> int:
        waiting = [fact["id"] for fact in self.alias_twin.facts]
        return self.random.choice(waiting[-9:]) if waiting else 1

    def expire_held(self, told: list[Effect]) -> tuple[str, Any, Any, list[Tale]]:
        self.alias_box.expire(Millis(self.now), told)
        return f"expire held at {self.now}", None, None, self.alias_twin.expire(self.now)

    def recall_held(self, told: list[Effect]) -> tuple[str, Any, Any, list[Tale]]:
        msg_id = self._of_held()
        answer = self.alias_box.recall(MsgId(msg_id), told)
        return f"recall held {msg_id}", answer, *self.alias_twin.recall(msg_id)

    def replace_held(self, told: list[Effect]) -> tuple[str, Any, Any, list[Tale]]:
        msg_id = self._of_held()
        self.alias_box.replace_older(MsgId(msg_id), told)
        return f"replace held {msg_id}", None, None, self.alias_twin.replace_older(msg_id)

    def crash_held(self, told: list[Effect]) -> tuple[str, Any, Any, list[Tale]]:
        self.alias_box = Mailbox(Binding(0), [self._entry(fact) for fact in self.alias_twin.crash()])
        self.alias_box.end_lost_visit(Millis(self.now), told)
        return "crash held", None, None, self.alias_twin.begin(self.now)

"""The contract of one mailbox told again, naively: a list of facts, from which everything is worked out when asked.

It shares no code with the mailbox, and nothing but the words of its effects. Deliveries are never moved or removed:
what is sent, what waits and in which order is read off the list of all deliveries there ever were.
"""

from __future__ import annotations

import random
from typing import Any

from pushactors.domain.effects import Effect, Settled, Struck
from pushactors.domain.mailbox import Entry, Mailbox
from pushactors.domain.message import Message, Verdict
from pushactors.wire.ids import Binding, Millis, MsgId, UnitNo, VisitId

Fact = dict[str, Any]


class TwinMailbox:
    """`facts` are all deliveries in the order of acceptance. Every method answers what was told by it, in order."""

    def __init__(self, binding: int) -> None:
        self.facts: list[Fact] = []
        self.binding = binding
        self.visit: int | None = None

    # --- What there is -------------------------------------------------------------------------------------------

    def unsettled(self) -> list[Fact]:
        return [fact for fact in self.facts if fact["verdict"] is None]

    def sent(self) -> list[Fact]:
        return [fact for fact in self.unsettled() if fact["sent"]]

    def waiting(self) -> list[Fact]:
        return [fact for fact in self.unsettled() if not fact["sent"]]

    # --- What becomes of one -------------------------------------------------------------------------------------

    @staticmethod
    def _settle(fact: Fact, verdict: Verdict) -> Effect:
        assert fact["verdict"] is None, "A delivery gets exactly one verdict, for ever (C1)."
        fact["verdict"] = verdict
        return Settled(fact["id"], verdict, fact["sent"])

    def _settle_or_strike(self, facts: list[Fact], verdict: Verdict) -> list[Effect]:
        """C3: what waits is settled; what is sent is struck, and the first strike counts."""
        told: list[Effect] = []
        for fact in facts:
            if not fact["sent"]:
                told.append(self._settle(fact, verdict))
            elif fact["strike"] is None:
                fact["strike"] = verdict
                told.append(Struck(fact["id"], verdict))
        return told

    # --- What happens --------------------------------------------------------------------------------------------

    def enter(self, fact: Fact, limit: int, room: int) -> tuple[Verdict | None, list[Effect]]:
        self.facts.append(fact)
        if fact["expires_at"] is None and self.visit is None:
            fact["verdict"] = Verdict.MISSED
            return Verdict.MISSED, []
        if fact["binding"] is not None and fact["binding"] != self.binding:
            fact["verdict"] = Verdict.FENCED
            return Verdict.FENCED, []
        told: list[Effect] = []
        if (named := fact["overrides"]) is not None:
            about = [old for old in self.unsettled() if old is not fact and named in (old["id"], old["overrides"])]
            told += self._settle_or_strike(about, Verdict.REPLACED)
        counted = self.waiting()[room:]
        if len(counted) > limit:
            told.append(self._settle(counted[0], Verdict.OVERFLOWED))
        return None, told

    def arrive(self, visit: int) -> None:
        self.visit = visit

    def leave(self, visit: int, now: int) -> tuple[bool, list[Effect]]:
        if visit != self.visit:
            return False, []
        self.visit = None
        told: list[Effect] = []
        for fact in self.unsettled():
            if fact["strike"] is not None:
                told.append(self._settle(fact, fact["strike"]))
            elif fact["expires_at"] is None:
                told.append(self._settle(fact, Verdict.MISSED))
            elif fact["sent"] and fact["expires_at"] <= now:
                told.append(self._settle(fact, Verdict.EXPIRED))
            elif fact["sent"]:
                fact.update(sent=False, at=now)
        return True, told

    def next_to_send(self, now: int, durable: int, window: int) -> tuple[int | None, list[Effect]]:
        told: list[Effect] = []
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

    def acknowledge(self, visit: int, msg_id: int) -> tuple[bool, list[Effect]]:
        covered = self.covered(visit, msg_id)
        return bool(covered), [self._settle(fact, Verdict.RECEIVED) for fact in covered]

    def covered(self, visit: int, msg_id: int) -> list[Fact]:
        """C10: this one and all sent before it. C3: not if it has another verdict than `received`."""
        if visit != self.visit:
            return []
        known = [fact for fact in self.facts if fact["id"] == msg_id and visit in fact["sent_on"]]
        if not known or known[0]["verdict"] not in (None, Verdict.RECEIVED):
            return []
        return [fact for fact in self.sent() if self.facts.index(fact) <= self.facts.index(known[0])]

    def is_received(self, msg_id: int) -> bool:
        return any(fact["id"] == msg_id and fact["verdict"] is Verdict.RECEIVED for fact in self.facts)

    def decline(self, visit: int, msg_id: int) -> tuple[bool, list[Effect]]:
        declined = [fact for fact in self.sent() if fact["id"] == msg_id and fact["binding"] is not None]
        if visit != self.visit or not declined:
            return False, []
        return True, [self._settle(fact, fact["strike"] or Verdict.FENCED) for fact in declined]

    def mark(self, msg_id: int) -> list[Effect]:
        return [self._settle(fact, Verdict.RECEIVED) for fact in self.unsettled() if fact["id"] == msg_id]

    def rebind(self, binding: int) -> list[Effect]:
        self.binding = binding
        earlier = [fact for fact in self.unsettled() if fact["binding"] not in (None, binding)]
        return self._settle_or_strike(earlier, Verdict.FENCED)

    def expire(self, now: int) -> list[Effect]:
        due = [fact for fact in self.waiting() if fact["expires_at"] is not None and fact["expires_at"] <= now]
        return [self._settle(fact, Verdict.EXPIRED) for fact in due]

    def clear(self) -> list[Effect]:
        self.visit = None
        return [self._settle(fact, fact["strike"] or Verdict.MISSED) for fact in self.unsettled()]

    def crash(self) -> None:
        """C3, C5: the store settles what was struck or may not wait; all else waits again, its content in the store."""
        self.visit = None
        for fact in self.unsettled():
            if fact["strike"] is not None or fact["expires_at"] is None:
                fact["verdict"] = fact["strike"] or Verdict.MISSED
            fact.update(sent=False, gate=0, content=False)


STEP_MS = 1000
"""Time goes in whole steps, so that what is due falls on the very instant again and again."""


class MailboxWalk:
    """One device at random: a mailbox and its twin do the same, and are compared after every step."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.box = Mailbox(Binding(1))
        self.twin = TwinMailbox(1)
        self.now = 100 * STEP_MS
        self.last_id = 0
        self.last_visit = 0
        self.last_binding = 1
        self.accepted = 0
        self.durable = 0
        self.settled: dict[int, Verdict] = {}
        steps = {
            self.push: 100, self.send: 110, self.acknowledge: 20, self.decline: 12, self.mark: 16, self.arrive: 40,
            self.leave: 8, self.displace: 7, self.rebind: 6, self.expire: 6, self.commit: 50, self.load: 20,
            self.crash: 2, self.clear: 1,
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
        assert told == expected_told, f"{what}: told {told}, not {expected_told}"
        self._compare(what)
        for effect in told:
            if isinstance(effect, Settled):
                assert effect.msg_id not in self.settled, f"{what}: a second verdict (C1)"
                self.settled[effect.msg_id] = effect.verdict
        return what

    def _compare(self, what: str) -> None:
        twin = self.twin
        ours = [(each.msg_id, each.at, each.strike) for each in self.box.sent]
        theirs = [(fact["id"], fact["at"], fact["strike"]) for fact in twin.sent()]
        assert ours == theirs, f"{what}: {ours} are on the wire, not {theirs}"
        waits = [(each.msg_id, each.at, each.strike) for each in self.box.waiting]
        theirs = [(fact["id"], fact["at"], None) for fact in twin.waiting()]
        assert waits == theirs, f"{what}: {waits} wait, not {theirs}"
        assert (self.box.sent_count(), self.box.waiting_count()) == (len(ours), len(waits)), f"{what}: miscounted"
        assert (self.box.visit, self.box.binding) == (twin.visit, twin.binding), f"{what}: another visit or binding"

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

    def push(self, told: list[Effect]) -> tuple[str, Any, Any, list[Effect]]:
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
            "gate": gate, "content": True, "sent": False, "sent_on": [], "strike": None, "verdict": None,
        }  # fmt: skip
        verdict = self.box.enter(self._entry(fact), limit, room, told)
        if verdict is not None:
            self.settled[msg_id] = verdict
        expected, expected_told = self.twin.enter(fact, limit, room)
        return f"push {fact}, limit {limit}, room {room}", verdict, expected, expected_told

    def _entry(self, fact: Fact) -> Entry:
        content = None
        if fact["content"]:
            content = Message(fact["id"], fact["at"], fact["expires_at"], fact["overrides"], b"{}")
        return Entry(
            MsgId(fact["id"]), fact["expires_at"], fact["overrides"], fact["binding"], fact["at"],
            UnitNo(fact["gate"]), content,
        )  # fmt: skip

    def send(self, told: list[Effect]) -> tuple[str, Any, Any, list[Effect]]:
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

    def acknowledge(self, told: list[Effect]) -> tuple[str, Any, Any, list[Effect]]:
        visit, msg_id = self._some_visit(), self._some_id()
        was_received = self.twin.is_received(msg_id)
        answer = self.box.acknowledge(VisitId(visit), MsgId(msg_id), told)
        expected, expected_told = self.twin.acknowledge(visit, msg_id)
        if was_received and not expected:
            # Open in C3: whether it counts to be told once more what is known, when nothing follows from it.
            expected = answer
        return f"acknowledge {msg_id} on visit {visit}", answer, expected, expected_told

    def decline(self, told: list[Effect]) -> tuple[str, Any, Any, list[Effect]]:
        visit, msg_id = self._some_visit(), self._some_id()
        answer = self.box.decline(VisitId(visit), MsgId(msg_id), told)
        return f"decline {msg_id} on visit {visit}", answer, *self.twin.decline(visit, msg_id)

    def mark(self, told: list[Effect]) -> tuple[str, Any, Any, list[Effect]]:
        msg_id = self._some_id()
        self.box.mark(MsgId(msg_id), told)
        return f"mark {msg_id}", None, None, self.twin.mark(msg_id)

    def arrive(self, told: list[Effect]) -> tuple[str, Any, Any, list[Effect]]:
        if self.twin.visit is not None:
            return "stay", None, None, []
        self.last_visit += 1
        self.box.arrive(VisitId(self.last_visit))
        self.twin.arrive(self.last_visit)
        return f"arrive on visit {self.last_visit}", None, None, []

    def leave(self, told: list[Effect]) -> tuple[str, Any, Any, list[Effect]]:
        visit = self._some_visit()
        answer = self.box.leave(VisitId(visit), Millis(self.now), told)
        return f"leave visit {visit} at {self.now}", answer, *self.twin.leave(visit, self.now)

    def displace(self, told: list[Effect]) -> tuple[str, Any, Any, list[Effect]]:
        if (visit := self.twin.visit) is None:
            return "displace nobody", None, None, []
        answer = self.box.leave(VisitId(visit), Millis(self.now), told)
        outcome = self.twin.leave(visit, self.now)
        self.arrive([])
        return f"displace visit {visit} at {self.now}", answer, *outcome

    def rebind(self, told: list[Effect]) -> tuple[str, Any, Any, list[Effect]]:
        self.last_binding += 1
        self.box.rebind(Binding(self.last_binding), told)
        return f"rebind to {self.last_binding}", None, None, self.twin.rebind(self.last_binding)

    def expire(self, told: list[Effect]) -> tuple[str, Any, Any, list[Effect]]:
        self.box.expire(Millis(self.now), told)
        return f"expire at {self.now}", None, None, self.twin.expire(self.now)

    def commit(self, told: list[Effect]) -> tuple[str, Any, Any, list[Effect]]:
        self.durable = self.random.choice((self.accepted, self.random.randint(self.durable, self.accepted)))
        return f"commit up to {self.durable}", None, None, []

    def load(self, told: list[Effect]) -> tuple[str, Any, Any, list[Effect]]:
        """The content of some that came back from the store, not always in order."""
        for entry in self.box.waiting:
            fact = next(fact for fact in self.twin.waiting() if fact["id"] == entry.msg_id)
            if not fact["content"] and self.random.random() < 0.6:
                fact["content"] = True
                entry.message = Message(entry.msg_id, Millis(self.now), entry.expires_at, entry.overrides, b"{}")
        return "load", None, None, []

    def crash(self, told: list[Effect]) -> tuple[str, Any, Any, list[Effect]]:
        self.twin.crash()
        self.durable = self.accepted
        self.settled |= {fact["id"]: fact["verdict"] for fact in self.twin.facts if fact["verdict"] is not None}
        self.box = Mailbox(Binding(self.twin.binding), [self._entry(fact) for fact in self.twin.waiting()])
        return "crash", None, None, []

    def clear(self, told: list[Effect]) -> tuple[str, Any, Any, list[Effect]]:
        self.box.clear(told)
        return "clear", None, None, self.twin.clear()

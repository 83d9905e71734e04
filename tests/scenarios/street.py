"""What the scenarios share: phones and an office as processes that are killed, and the books to compare at the end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import trio

from pushactors import AppClient, NoSuchMessage, Receipt, Report, Timeline
from pushactors.domain.message import Verdict
from tests.cli.processes import ENVIRONMENT, Server, until, until_true

VERDICTS = [verdict.word for verdict in Verdict]
MARKS = ["opened", "dismissed", "withdrawn"]
HERE = Path(__file__).parent

Book = list[dict[str, Any]]


def read(path: Path) -> Book:
    """The lines of a book, but for one that is just being written."""
    if not path.exists():
        return []
    *lines, _ = path.read_text().split("\n")
    return [json.loads(line) for line in lines]


class Script:
    """A Python script of this folder, as a process, started and killed again and again."""

    def __init__(self, folder: Path, script: str, *arguments: object) -> None:
        self._folder = folder
        self._command = [sys.executable, str(HERE / script), *(str(argument) for argument in arguments)]
        self._process: subprocess.Popen[bytes] | None = None
        self.err = folder / f"{script}-{arguments[-1]}.err"

    def start(self) -> None:
        self.check()
        if self._process is None:
            with self.err.open("ab") as err:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=err,
                    stderr=err,
                    cwd=self._folder,
                    env=ENVIRONMENT,
                    start_new_session=True,
                )

    def check(self) -> None:
        assert self._process is None or self._process.poll() is None, self.err.read_text()[-3000:]

    def say(self, *words: object) -> None:
        self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words).encode() + b"\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """`kill -9`. It must not have ended by itself: `check` says so before."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process = None


class Phones(Script):
    def __init__(self, server: Server, slowness_s: float, *names: str) -> None:
        super().__init__(server.folder, "phone.py", server.ports["devices"], server.folder, slowness_s, *names)
        self.names = names

    def log(self, name: str) -> Book:
        return read(self._folder / f"{name}.log")

    async def registration_id(self, name: str) -> str:
        """When it is in the file: that comes a moment after the answer."""

        def known() -> str | None:
            found: str | None = json.loads((self._folder / f"{name}.id").read_text())["registration_id"]
            return found

        await until(lambda: known() is not None, f"the registration of {name}")
        return str(known())

    async def log_in(self, name: str, alias: str, token: str | None = None) -> str:
        """Returns when it was answered: how, `in` or the name of the refusal."""
        before = len(self.log(name))
        self.say(name, alias, token)
        return await self.answer(name, alias, before)

    async def answer(self, name: str, alias: str, before: int) -> str:
        found: Book = []

        def is_answered() -> bool:
            found[:] = [e for e in self.log(name)[before:] if e["what"] in ("in", "refused") and e["alias"] == alias]
            return bool(found)

        await until(is_answered, f"the answer to {name}, who wants to be {alias!r}")
        return str(found[-1].get("why", "in"))

    def drawer(self, name: str) -> list[str]:
        drawn: list[str] = []
        for line in self.log(name):
            if line["what"] == "show":
                drawn.append(line["msg_id"])
            elif line["what"] == "hide":
                drawn.remove(line["msg_id"])
        return drawn


# --- Books -------------------------------------------------------------------------------------------------------


async def reports(app: AppClient) -> dict[str, Report]:
    """All pushes, each of which adds up (C1)."""
    found: dict[str, Report] = {}
    before: str | None = None
    while page := await app.pushes(before=before, limit=100):
        found |= {report.msg_id: report for report in page}
        before = page[-1].msg_id
    for report in found.values():
        numbers = asdict(report)
        assert report.targets == report.waiting + report.sent + sum(numbers[verdict] for verdict in VERDICTS), report
    return found


async def until_settled(app: AppClient, within_s: float = 15.0) -> dict[str, Report]:
    async def are_settled() -> bool:
        return not any(report.waiting or report.sent for report in (await reports(app)).values())

    await until_true(are_settled, "the last verdict", within_s)
    return await reports(app)


async def books(app: AppClient) -> tuple[list[Receipt], dict[str, Report]]:
    """All receipts and all reports, of a moment at which nothing happened between the two."""
    for _ in range(20):
        before = await reports(app)
        receipts = await all_receipts(app, before)
        pushes = await reports(app)
        if pushes == before:
            break
    return receipts, pushes


async def all_receipts(app: AppClient, pushes: dict[str, Report]) -> list[Receipt]:
    """From the first on: those that the reports count, and what comes right behind them."""
    count = sum(asdict(report)[event] for report in pushes.values() for event in (*VERDICTS, *MARKS))
    found: list[Receipt] = []
    async with app.receipts(after="0") as stream:
        with trio.move_on_after(15 if count else 0.3) as limit:
            async for receipt in stream:
                found.append(receipt)
                if sum(each.event != "overdue" for each in found) >= count:
                    limit.deadline = min(limit.deadline, trio.current_time() + 0.3)
    assert [int(receipt.cursor) for receipt in found] == list(range(1, len(found) + 1))
    return found


def check_receipts(receipts: list[Receipt], pushes: dict[str, Report]) -> dict[tuple[str, str | None, str | None], str]:
    """One verdict for each delivery, at most one overdue and before it, sums as reported. The verdict of each."""
    courses: defaultdict[tuple[str, str | None, str | None], list[str]] = defaultdict(list)
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for receipt in receipts:
        assert (receipt.registration_id is None) == (receipt.alias is not None), receipt
        assert (receipt.event == "overdue") == (receipt.reason is not None), receipt
        courses[receipt.msg_id, receipt.registration_id, receipt.alias].append(receipt.event)
        sums[receipt.msg_id][receipt.event] += 1
    for msg_id, report in pushes.items():
        numbers = asdict(report)
        for event in (*VERDICTS, *MARKS):
            assert sums[msg_id][event] == numbers[event], (msg_id, event, sums[msg_id], report)
        assert sums[msg_id]["overdue"] <= report.targets
    verdicts = {}
    for delivery, events in courses.items():
        got = [event for event in events if event in VERDICTS]
        assert len(got) <= 1, (delivery, events)
        assert events.count("overdue") <= 1, (delivery, events)
        for mark in MARKS:
            assert events.count(mark) <= 1, (delivery, events)
            assert mark not in events or events.index(mark) > events.index("received"), (delivery, events)
        if got:
            verdicts[delivery] = got[0]
            if "overdue" in events:
                assert events.index("overdue") < events.index(got[0]), (delivery, events)
    return verdicts


def check_screen(log: Book, name: str) -> None:
    """Each message once, new ones in order, and none for anybody but who is, or has asked to be, logged in."""
    shown = [line["msg_id"] for line in log if line["what"] == "show"]
    assert len(shown) == len(set(shown)), (name, [msg_id for msg_id, n in Counter(shown).items() if n > 1])
    used = [line["msg_id"] for line in log if line["what"] == "use"]
    assert len(used) == len(set(used)), name
    # Who may be logged in: after a crash it is whoever was, or the one asked for, if that was kept.
    accounts = {""}
    wishes: list[str] = []
    for line in log:
        match line["what"]:
            case "start":
                accounts.update(wishes)
                wishes = []
            case "wish":
                wishes.append(line["alias"])
            case "in":
                accounts = {line["alias"]}
                wishes = wishes[wishes.index(line["alias"]) + 1 :]
            case "refused":
                wishes.remove(line["alias"])
            case "show" if line["alias"] is not None:
                assert line["alias"] in (wishes[-1:] or accounts), (name, line, accounts, wishes)


def check_order(log: Book, name: str) -> None:
    new = [int(line["msg_id"]) for line in log if line["what"] == "show" and line["msg_id"] == line["place"]]
    assert new == sorted(new), name


async def course(app: AppClient, msg_id: str, registration_id: str | None, alias: str | None = None) -> Timeline:
    """A timeline that is one."""
    line = await app.timeline(msg_id, registration_id, alias=alias)
    names = [event.event for event in line.events]
    assert names[0] == "accepted", line
    instants = [event.at for event in line.events]
    assert instants == sorted(instants), line
    assert sum(name in VERDICTS for name in names) == (line.state in VERDICTS), line
    assert line.state in (*names, "waiting", "sent"), line
    assert names.count("overdue") <= 1, line
    return line


async def is_target(app: AppClient, msg_id: str, registration_id: str) -> bool:
    try:
        await app.timeline(msg_id, registration_id)
    except NoSuchMessage:
        return False
    return True

"""What a client reads: the same names as are written, what a later server adds passed over."""

from __future__ import annotations

from typing import Any

import pytest

from pushactors.errors import Invalid
from pushactors.wire.answers import (
    DeviceInfo,
    PushAnswer,
    Reason,
    Recall,
    Receipt,
    ReceiptsEnded,
    ReceiptsNote,
    Subscribed,
    Timeline,
    TimelineEvent,
    Waiting,
)
from pushactors.wire.codec import decode, encode, structure_answer

RECEIVED = {"cursor": "8", "msg_id": "5", "event": "received", "at": 9, "registration_id": "r"}
OVERDUE = {"cursor": "9", "msg_id": "5", "event": "overdue", "at": 9, "alias": "alice"}


def test_answers_are_read_and_written_alike() -> None:
    answer = PushAnswer(msg_id="5", targets=3, online=1, absent=2, sendno=7)
    assert structure_answer(PushAnswer, {"msg_id": "5", "targets": 3, "online": 1, "absent": 2, "sendno": 7}) == answer
    device = DeviceInfo(registration_id="r", platform="ios", online=True, mailbox=(Waiting("5", "sent", 1),))
    assert b'"mailbox":[{"msg_id":"5","state":"sent","at":1}]' in encode(device)


@pytest.mark.parametrize(
    ("cls", "answer"),
    [
        (Recall, Recall(recalled=1, on_the_way=2, received=3, settled=4)),
        (Subscribed, Subscribed("17")),
        (ReceiptsNote, ReceiptsNote((Receipt(cursor="8", msg_id="5", event="opened", at=9, alias="a"),), "8")),
        (ReceiptsEnded, ReceiptsEnded("displaced")),
        (
            Timeline,
            Timeline(
                msg_id="5",
                state="fenced",
                events=(
                    TimelineEvent(event="accepted", at=1),
                    TimelineEvent(event="sent", at=2, visit=3),
                    TimelineEvent(event="struck", at=3, visit=3, verdict="fenced"),
                ),
                registration_id="r",
                alias="alice",
            ),
        ),
    ],
)
def test_what_was_written_is_read_as_what_it_was(cls: type[Any], answer: object) -> None:
    assert structure_answer(cls, decode(encode(answer))) == answer


def test_a_receipt_is_of_a_device_or_of_a_delivery_that_waits_for_its_alias() -> None:
    """C20."""
    note = structure_answer(ReceiptsNote, {"events": [RECEIVED, {**OVERDUE, "registration_id": None}], "cursor": "9"})
    assert note.cursor == "9"
    assert note.events == (
        Receipt(cursor="8", msg_id="5", event="received", at=9, registration_id="r"),
        Receipt(cursor="9", msg_id="5", event="overdue", at=9, alias="alice"),
    )


@pytest.mark.parametrize(
    ("reason", "read"),
    [
        ({"why": "absent", "since": 7}, Reason("absent", since=7)),
        ({"why": "unheld", "since": 7, "behind": None}, Reason("unheld", since=7)),
        ({"why": "queued", "behind": 3}, Reason("queued", behind=3)),
        ({"why": "of tomorrow", "where": "there"}, Reason("of tomorrow")),
        (None, None),
    ],
)
def test_what_is_overdue_says_why(reason: object, read: Reason | None) -> None:
    """C21."""
    assert structure_answer(Receipt, {**OVERDUE, "reason": reason}).reason == read


@pytest.mark.parametrize(
    ("cls", "answer", "path"),
    [
        (Recall, {"recalled": 1, "on_the_way": 2, "received": 3}, "settled"),
        (Subscribed, {}, "cursor"),
        (Subscribed, {"cursor": 5}, "cursor"),
        (ReceiptsNote, {"events": [RECEIVED, {**OVERDUE, "at": "now"}], "cursor": "9"}, "events[1].at"),
        (ReceiptsNote, {"events": [{**OVERDUE, "reason": {}}], "cursor": "9"}, "events[0].reason.why"),
        (ReceiptsNote, {"events": []}, "cursor"),
        (ReceiptsEnded, {"reason": None}, "reason"),
        (Timeline, {"msg_id": "5", "state": "sent", "events": [{"at": 1}]}, "events[0].event"),
    ],
)
def test_an_answer_that_lacks_something_names_it(cls: type[Any], answer: object, path: str) -> None:
    with pytest.raises(Invalid) as caught:
        structure_answer(cls, answer)
    assert caught.value.path == path

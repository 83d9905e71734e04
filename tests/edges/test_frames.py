"""Frames, read against wsproto's own client and written beside wsproto's own server."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode

from pushactors.edges.frames import (
    MAX_FRAGMENTS,
    Closed,
    Event,
    Fault,
    FrameReader,
    Ping,
    Pong,
    Text,
    close_frame,
    ping_frame,
    pong_frame,
    text_frame,
)
from tests.edges.serving import close, frame

DEVICE_BYTES, APP_BYTES = 8_192, 1 << 20
LENGTHS = (0, 1, 125, 126, 127, 65_535, 65_536, 65_537)
BEHIND = frame(Opcode.TEXT, b"behind")


def read(data: bytes, most: int = APP_BYTES) -> list[Event]:
    reader = FrameReader(most)
    reader.feed(data)
    return list(reader.events())


def in_pieces(data: bytes, size: int, most: int = APP_BYTES) -> list[Event]:
    reader = FrameReader(most)
    events: list[Event] = []
    for at in range(0, len(data), size):
        reader.feed(data[at : at + size])
        events += reader.events()
    return events


def by_client(*messages: str) -> bytes:
    client = FrameProtocol(True, [])
    return b"".join(bytes(client.send_data(message)) for message in messages)


def fault_code(events: Iterable[Event]) -> int:
    """The code of the fault that the events end with; nothing else may be among them."""
    [fault] = events
    assert isinstance(fault, Fault)
    assert fault.reason
    return fault.code


# --- What is read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", LENGTHS)
def test_a_message_is_read_whole_whatever_the_size_of_its_length_field(length: int) -> None:
    message = "x" * length
    assert read(by_client(message)) == [Text(message)]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_message_is_read_with_bytes_behind_it(length: int) -> None:
    message = "x" * length
    assert read(by_client(message, "behind")) == [Text(message), Text("behind")]
    reader = FrameReader(APP_BYTES)
    reader.feed(by_client(message) + BEHIND[:-1])
    assert list(reader.events()) == [Text(message)]
    reader.feed(BEHIND[-1:])
    assert list(reader.events()) == [Text("behind")]


@pytest.mark.parametrize("length", [0, 1, 125, 126, 1_000])
def test_a_message_is_read_byte_by_byte(length: int) -> None:
    message = "x" * length
    assert in_pieces(by_client(message, "behind"), 1) == [Text(message), Text("behind")]


@pytest.mark.parametrize(("length", "size"), [(DEVICE_BYTES, 1), (DEVICE_BYTES, 7), (70_000, 60)])
def test_how_the_network_cuts_a_frame_does_not_matter(length: int, size: int) -> None:
    # Law 2 bounds the peer's fragments. Segments of TCP are not the peer's doing, and there may be many of them.
    message = "x" * length
    assert in_pieces(by_client(message, "behind"), size, length) == [Text(message), Text("behind")]


def test_an_app_servers_largest_message_is_read_in_the_smallest_segments_that_tcp_promises() -> None:
    # 536 bytes: the default maximum segment size (RFC 9293, 3.7.1).
    message = "x" * APP_BYTES
    assert in_pieces(by_client(message), 536) == [Text(message)]


def test_characters_may_be_cut_anywhere() -> None:
    message = "aé中𝄞" * 50
    assert in_pieces(by_client(message), 1) == [Text(message)]
    client = FrameProtocol(True, [])
    encoded = message.encode()
    pieces = [bytes(client._serialize_frame(Opcode.TEXT, encoded[:1], False))]
    pieces += [bytes(client._serialize_frame(Opcode.CONTINUATION, encoded[at : at + 1], False)) for at in range(1, 50)]
    pieces += [bytes(client._serialize_frame(Opcode.CONTINUATION, encoded[50:], True))]
    assert read(b"".join(pieces)) == [Text(message)]


def test_fragments_are_one_message() -> None:
    client = FrameProtocol(True, [])
    data = b"".join(bytes(client.send_data(piece, fin=piece == "c")) for piece in "abc")
    assert read(data) == [Text("abc")]
    assert in_pieces(data, 1) == [Text("abc")]
    assert read(data + BEHIND) == [Text("abc"), Text("behind")]


def test_empty_fragments_are_part_of_a_message() -> None:
    data = frame(Opcode.TEXT, fin=False) + frame(Opcode.CONTINUATION, b"a", fin=False) + frame(Opcode.CONTINUATION)
    assert read(data) == [Text("a")]


def test_an_empty_message_is_a_message() -> None:
    assert read(frame(Opcode.TEXT)) == [Text("")]
    assert read(frame(Opcode.TEXT, fin=False) + frame(Opcode.CONTINUATION)) == [Text("")]


def test_control_frames_come_between_fragments() -> None:
    data = (
        frame(Opcode.TEXT, b"a", fin=False)
        + frame(Opcode.PING, b"1")
        + frame(Opcode.CONTINUATION, b"b", fin=False)
        + frame(Opcode.PONG, b"2")
        + frame(Opcode.CONTINUATION, b"c")
    )
    assert read(data) == [Ping(b"1"), Pong(b"2"), Text("abc")]
    assert in_pieces(data, 1) == [Ping(b"1"), Pong(b"2"), Text("abc")]


@pytest.mark.parametrize("length", [0, 1, 125])
def test_pings_and_pongs_are_read_with_their_payload(length: int) -> None:
    payload = bytes(range(length))
    client = FrameProtocol(True, [])
    assert read(bytes(client.ping(payload))) == [Ping(payload)]
    assert in_pieces(bytes(client.pong(payload)), 1) == [Pong(payload)]


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4500, 4999])
def test_a_close_frame_is_read_with_its_code(code: int) -> None:
    client = FrameProtocol(True, [])
    assert read(bytes(client.close(code, "because"))) == [Closed(code)]
    assert in_pieces(close(code), 1) == [Closed(code)]


def test_a_close_frame_without_a_code_is_1005() -> None:
    assert read(close(None)) == [Closed(1005)]


def test_behind_a_close_frame_nothing_is_read() -> None:
    reader = FrameReader(APP_BYTES)
    reader.feed(BEHIND + close() + BEHIND)
    assert list(reader.events()) == [Text("behind"), Closed(1000)]
    reader.feed(BEHIND)
    assert list(reader.events()) == []


# --- What is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.PING, Opcode.PONG, Opcode.CLOSE])
def test_a_frame_that_is_not_masked_is_refused(opcode: Opcode) -> None:
    assert fault_code(read(frame(opcode, mask=None))) == 1002


@pytest.mark.parametrize("rsv", [1, 2, 4, 7])
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.PING, Opcode.CLOSE])
def test_reserved_bits_are_refused(opcode: Opcode, rsv: int) -> None:
    assert fault_code(read(frame(opcode, rsv=rsv))) == 1002


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_unknown_opcodes_are_refused(opcode: int) -> None:
    assert fault_code(read(frame(opcode, b"x"))) == 1002


@pytest.mark.parametrize(
    "data",
    [
        frame(Opcode.CONTINUATION, b"x"),
        frame(Opcode.PING, b"x", fin=False),
        frame(Opcode.CLOSE, fin=False),
        frame(Opcode.PING, b"x" * 126),
        frame(Opcode.CLOSE, b"x" * 126),
        bytes([0x81, 0x80 | 126]) + struct.pack("!H", 125) + b"mask" + b"x" * 125,
        bytes([0x81, 0x80 | 127]) + struct.pack("!Q", 65_535) + b"mask",
        bytes([0x81, 0x80 | 127]) + struct.pack("!Q", 1 << 63) + b"mask",
    ],
    ids=["continues nothing", "ping in fragments", "close in fragments", "long ping", "long close", "2 bytes for 125",
         "8 bytes for 65535", "length below zero"],
)  # fmt: skip
def test_frames_that_are_none_are_refused(data: bytes) -> None:
    assert fault_code(read(data)) == 1002
    assert fault_code(in_pieces(data, 1)) == 1002


def test_a_second_message_inside_of_a_first_is_refused() -> None:
    assert fault_code(read(frame(Opcode.TEXT, b"a", fin=False) + frame(Opcode.TEXT, b"b"))) == 1002


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535])
def test_close_codes_that_nobody_may_send_are_refused(code: int) -> None:
    assert fault_code(read(close(code))) == 1002


def test_half_a_close_code_is_refused() -> None:
    assert fault_code(read(frame(Opcode.CLOSE, b"\x03"))) == 1002


def test_a_close_reason_that_is_not_utf8_is_refused() -> None:
    assert fault_code(read(close(1000, b"\xff"))) == 1007


@pytest.mark.parametrize("bad", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\xe4\xb8"])
def test_text_that_is_not_utf8_is_refused(bad: bytes) -> None:
    assert fault_code(read(frame(Opcode.TEXT, bad))) == 1007
    assert fault_code(in_pieces(frame(Opcode.TEXT, bad), 1)) == 1007


def test_text_that_is_not_utf8_is_refused_before_its_message_is_complete() -> None:
    assert fault_code(read(frame(Opcode.TEXT, b"\xff", fin=False))) == 1007


@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("payload", [b"", b"{}", b"\xff"])
def test_binary_is_refused_at_its_first_piece(payload: bytes, fin: bool) -> None:
    assert fault_code(read(frame(Opcode.BINARY, payload, fin=fin))) == 1003


def test_a_large_binary_message_is_refused_before_it_has_arrived() -> None:
    whole = frame(Opcode.BINARY, b"x" * 100_000)
    assert fault_code(read(whole[:20])) == 1003


@pytest.mark.parametrize("character", ["x", "é", "中", "𝄞"])
def test_a_device_says_8_kib_and_not_a_byte_more(character: str) -> None:
    width = len(character.encode())
    fits = character * (DEVICE_BYTES // width) + "x" * (DEVICE_BYTES % width)
    assert len(fits.encode()) == DEVICE_BYTES
    assert read(by_client(fits), DEVICE_BYTES) == [Text(fits)]
    assert fault_code(read(by_client(fits + "x"), DEVICE_BYTES)) == 1009


@pytest.mark.parametrize("character", ["x", "中"])
def test_the_bound_is_the_messages_not_the_fragments(character: str) -> None:
    client = FrameProtocol(True, [])
    piece = character * (1_024 // len(character.encode()))
    whole = [bytes(client.send_data(piece, fin=False)) for _ in range(8)]
    left = DEVICE_BYTES - 8 * len(piece.encode())
    assert read(b"".join([*whole, frame(Opcode.CONTINUATION, b"x" * left)]), DEVICE_BYTES) == [
        Text(8 * piece + "x" * left)
    ]
    assert fault_code(read(b"".join([*whole, frame(Opcode.CONTINUATION, b"x" * (left + 1))]), DEVICE_BYTES)) == 1009


def test_the_bound_counts_anew_for_each_message() -> None:
    message = "x" * DEVICE_BYTES
    assert read(by_client(message, message, message), DEVICE_BYTES) == [Text(message)] * 3


def test_a_message_that_is_too_big_is_refused_before_it_has_arrived() -> None:
    announced = bytes([0x81, 0x80 | 127]) + struct.pack("!Q", 1 << 40) + b"mask"
    assert fault_code(read(announced + b"x" * (DEVICE_BYTES + 1), DEVICE_BYTES)) == 1009


def test_a_message_has_a_bounded_number_of_fragments() -> None:
    first, more = frame(Opcode.TEXT, b"x", fin=False), frame(Opcode.CONTINUATION, b"x", fin=False)
    last = frame(Opcode.CONTINUATION, b"x")
    assert read(first + more * (MAX_FRAGMENTS - 2) + last) == [Text("x" * MAX_FRAGMENTS)]
    assert fault_code(read(first + more * (MAX_FRAGMENTS - 1) + last)) == 1008


def test_endless_empty_fragments_are_refused() -> None:
    reader = FrameReader(DEVICE_BYTES)
    reader.feed(frame(Opcode.TEXT, fin=False))
    events: list[Event] = list(reader.events())
    for _ in range(2_000):
        reader.feed(frame(Opcode.CONTINUATION, fin=False))
        events += reader.events()
    assert fault_code(events) == 1008


def test_after_a_fault_nothing_is_read_or_kept() -> None:
    reader = FrameReader(DEVICE_BYTES)
    reader.feed(BEHIND + frame(3) + BEHIND)
    events = list(reader.events())
    assert events[0] == Text("behind")
    assert fault_code(events[1:]) == 1002
    before = held_bytes(reader)
    for _ in range(100):
        reader.feed(BEHIND * 100)
        assert list(reader.events()) == []
    assert held_bytes(reader) == before


# --- Whatever comes ----------------------------------------------------------------------------------------------


def held_bytes(root: object) -> int:
    """What an object holds, with everything below it."""
    seen: set[int] = set()
    left, size = [root], 0
    while left:
        each = left.pop()
        if id(each) in seen or isinstance(each, type):
            continue
        seen.add(id(each))
        size += sys.getsizeof(each)
        if isinstance(each, list | tuple):
            left += each
        elif isinstance(each, dict):
            left += each.values()
        elif hasattr(each, "__dict__"):
            left += vars(each).values()
        left += [getattr(each, name) for name in getattr(type(each), "__slots__", ()) if hasattr(each, name)]
    return size


FRAMES = st.builds(
    frame,
    st.sampled_from([0, 0, 0, 1, 1, 8, 9, 10, 2, 3]),
    st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode), st.just(b"x" * 3_000)),
    fin=st.booleans(),
    rsv=st.sampled_from([0, 0, 0, 0, 0, 1]),
    mask=st.sampled_from([b"mask", b"\0\0\0\0", b"\xff\x01\x80\x7f"]),
)


@given(chunks=st.lists(st.one_of(st.binary(max_size=100), FRAMES), max_size=30))
@settings(max_examples=300, deadline=None)
def test_no_input_raises_and_what_is_kept_is_bounded(chunks: list[bytes]) -> None:
    reader = FrameReader(DEVICE_BYTES)
    for chunk in chunks:
        reader.feed(chunk)
        for event in reader.events():
            assert isinstance(event, Text | Ping | Pong | Closed | Fault)
            if isinstance(event, Text):
                assert len(event.text.encode()) <= DEVICE_BYTES
            if isinstance(event, Fault):
                assert event.code in (1002, 1003, 1007, 1008, 1009)
        # A message of four-byte characters, in pieces, and what of a frame has arrived.
        assert held_bytes(reader) < 8 * DEVICE_BYTES + 64 * MAX_FRAGMENTS


def test_what_is_kept_of_a_message_does_not_grow_with_the_cuts() -> None:
    most = 60_000
    reader = FrameReader(most)
    events: list[Event] = []
    data = by_client("中" * (most // 3))[:-1]
    for at in range(0, len(data), 3):
        reader.feed(data[at : at + 3])
        events += reader.events()
    assert not events
    assert held_bytes(reader) < 8 * most


@given(
    messages=st.lists(st.text(max_size=300), max_size=5),
    sizes=st.lists(st.integers(1, 64), min_size=1, max_size=20),
)
@settings(max_examples=200, deadline=None)
def test_what_wsprotos_client_says_is_read_however_it_is_cut(messages: list[str], sizes: list[int]) -> None:
    data = by_client(*messages)
    reader = FrameReader(DEVICE_BYTES)
    events: list[Event] = []
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        reader.feed(data[at : at + size])
        events += reader.events()
        at, turn = at + size, turn + 1
    assert events == [Text(message) for message in messages]


# --- What is written ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", LENGTHS)
def test_a_servers_text_frame_is_what_wsprotos_server_writes(length: int) -> None:
    message = "x" * length
    assert text_frame(message.encode()) == bytes(FrameProtocol(False, []).send_data(message))


def test_a_servers_text_frame_takes_any_characters() -> None:
    message = "aé中𝄞"
    assert text_frame(message.encode()) == bytes(FrameProtocol(False, []).send_data(message))


@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(125))])
def test_a_servers_pings_and_pongs_are_what_wsprotos_server_writes(payload: bytes) -> None:
    assert ping_frame(payload) == bytes(FrameProtocol(False, []).ping(payload))
    assert pong_frame(payload) == bytes(FrameProtocol(False, []).pong(payload))


@pytest.mark.parametrize("reason", ["", "silent", "x" * 123, "x" * 124, "é" * 100, "中" * 41, "x" + "中" * 41])
def test_a_servers_close_frame_is_what_wsprotos_server_writes(reason: str) -> None:
    assert close_frame(4001, reason) == bytes(FrameProtocol(False, []).close(4001, reason))

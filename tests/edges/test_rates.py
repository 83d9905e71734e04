"""How often: token buckets and the changes of one device, on a clock that is put forward by hand."""

from __future__ import annotations

import time

import pytest
import trio
from trio.testing import MockClock

from pushactors.edges import rates
from pushactors.edges.rates import Changes, Rates
from pushactors.errors import RateLimited, TooFrequent
from pushactors.wire.ids import DeviceNo


def takes(bucket: Rates, key: str = "a") -> int:
    """How many are to be had now."""
    taken = 0
    while True:
        try:
            bucket.take(key)
        except RateLimited:
            return taken
        taken += 1
        assert taken < 100_000


async def test_a_burst_may_come_at_once_and_then_so_many_a_second(autojump_clock: MockClock) -> None:
    bucket = Rates("tries", per_s=2, burst=5)
    assert takes(bucket) == 5
    await trio.sleep(1)
    assert takes(bucket) == 2
    await trio.sleep(1.5)
    assert takes(bucket) == 3


async def test_a_bucket_does_not_grow_beyond_its_burst(autojump_clock: MockClock) -> None:
    bucket = Rates("tries", per_s=2, burst=5)
    assert takes(bucket) == 5
    await trio.sleep(1_000)
    assert takes(bucket) == 5


async def test_who_is_refused_is_told_when_to_come_back_in_whole_seconds(autojump_clock: MockClock) -> None:
    slow = Rates("registrations from this address", per_s=0.25, burst=1)
    slow.take("a")
    with pytest.raises(RateLimited, match=r"Too many registrations from this address\. Try again in 4 s\.") as refused:
        slow.take("a")
    assert refused.value.retry_after_s == 4
    await trio.sleep(3.5)
    with pytest.raises(RateLimited) as refused:
        slow.take("a")
    assert refused.value.retry_after_s == 1
    await trio.sleep(0.5)
    slow.take("a")


async def test_asking_again_and_again_does_not_put_it_off(autojump_clock: MockClock) -> None:
    bucket = Rates("tries", per_s=1, burst=1)
    bucket.take("a")
    for _ in range(9):
        await trio.sleep(0.1)
        with pytest.raises(RateLimited):
            bucket.take("a")
    await trio.sleep(0.11)
    bucket.take("a")


async def test_each_key_has_a_bucket_of_its_own(autojump_clock: MockClock) -> None:
    bucket = Rates("tries", per_s=1, burst=3)
    assert takes(bucket, "a") == 3
    assert takes(bucket, "b") == 3


async def test_a_rate_of_0_is_no_limit(autojump_clock: MockClock) -> None:
    bucket = Rates("tries", per_s=0, burst=0)
    for _ in range(10_000):
        bucket.take("a")


async def test_another_rate_holds_from_now_on(autojump_clock: MockClock) -> None:
    bucket = Rates("tries", per_s=10, burst=10)
    assert takes(bucket) == 10
    bucket.change(2)
    await trio.sleep(100)
    assert takes(bucket) == 2
    bucket.change(0)
    for _ in range(100):
        bucket.take("a")
    bucket.change(3)
    await trio.sleep(1)
    assert takes(bucket) == 3


async def test_full_buckets_are_forgotten(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "FORGET_ABOVE", 10)
    bucket = Rates("tries", per_s=1, burst=2)
    for place in range(10):
        bucket.take(f"early {place}")
    await trio.sleep(2)
    assert takes(bucket, "late") == 2
    assert len(bucket._buckets) <= 10
    # Who was forgotten was full; who is not full is not forgotten.
    assert takes(bucket, "late") == 0
    assert takes(bucket, "early 0") == 2


async def test_many_strangers_do_not_make_each_other_slow(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Law 2: a stranger with many addresses must not have everybody else's bucket looked at for each of them (C24).
    monkeypatch.setattr(rates, "FORGET_ABOVE", 1_000)
    bucket = Rates("tries", per_s=1, burst=1_000)
    took_s = []
    for block in range(3):
        before = time.process_time()
        for place in range(1_000):
            bucket.take(f"{block} {place}")
        took_s.append(time.process_time() - before)
    assert min(took_s[1:]) < 20 * took_s[0]


# --- Changes of one device ---------------------------------------------------------------------------------------

ONE, OTHER = DeviceNo(1), DeviceNo(2)


def change(changes: Changes, device_no: DeviceNo = ONE) -> None:
    changes.check(device_no)
    changes.count(device_no)


async def test_ten_changes_in_ten_seconds_are_allowed_and_no_more(autojump_clock: MockClock) -> None:
    changes = Changes()
    for _ in range(10):
        change(changes)
        await trio.sleep(0.5)
    with pytest.raises(TooFrequent) as refused:
        changes.check(ONE)
    assert refused.value.retry_after_s == 5
    await trio.sleep(4.5)
    with pytest.raises(TooFrequent) as refused:
        changes.check(ONE)
    assert refused.value.retry_after_s == 1
    await trio.sleep(0.51)
    change(changes)
    with pytest.raises(TooFrequent):
        changes.check(ONE)


async def test_what_was_refused_or_changed_nothing_does_not_count(autojump_clock: MockClock) -> None:
    changes = Changes()
    for _ in range(100):
        changes.check(ONE)
    for _ in range(10):
        change(changes)
    for _ in range(100):
        with pytest.raises(TooFrequent):
            changes.check(ONE)
    await trio.sleep(10.01)
    for _ in range(10):
        change(changes)


async def test_one_devices_changes_are_not_anothers_changes(autojump_clock: MockClock) -> None:
    changes = Changes()
    for _ in range(10):
        change(changes, ONE)
    for _ in range(10):
        change(changes, OTHER)
    for device_no in (ONE, OTHER):
        with pytest.raises(TooFrequent):
            changes.check(device_no)


async def test_changes_of_long_ago_are_forgotten_and_young_ones_are_not(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "FORGET_ABOVE", 10)
    changes = Changes()
    for place in range(10):
        change(changes, DeviceNo(place))
    await trio.sleep(10.01)
    for _ in range(10):
        change(changes, DeviceNo(99))
    for place in range(100, 105):
        change(changes, DeviceNo(place))
    assert len(changes._at) <= 12
    with pytest.raises(TooFrequent):
        changes.check(DeviceNo(99))

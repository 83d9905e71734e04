from __future__ import annotations

from pushactors.clients.backoff import Backoff


def test_the_span_doubles_up_to_its_cap() -> None:
    backoff = Backoff(base_s=0.5, cap_s=60, chance=lambda: 1.0)
    assert [backoff.next_s() for _ in range(10)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_reset_begins_the_count_anew() -> None:
    backoff = Backoff(base_s=0.5, cap_s=60, chance=lambda: 1.0)
    backoff.next_s()
    backoff.next_s()
    backoff.reset()
    assert backoff.next_s() == 0.5


def test_the_wait_is_any_share_of_the_span() -> None:
    chances = iter([0.0, 0.25, 1.0])
    backoff = Backoff(base_s=4, cap_s=60, chance=lambda: next(chances))
    assert [backoff.next_s() for _ in range(3)] == [0, 2, 16]


def test_two_clients_do_not_come_back_together() -> None:
    one, other = Backoff(), Backoff()
    assert [one.next_s() for _ in range(5)] != [other.next_s() for _ in range(5)]

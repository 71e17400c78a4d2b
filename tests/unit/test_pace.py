"""The admin API's pace: what is allowed passes, what is too much waits as long as it is told, the table is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.clock import StandingClock

from edge.control.admin.pace import MOST, KeyedRateLimit, address_key


def test_a_burst_passes_and_then_the_rate_counts() -> None:
    clock = StandingClock(100.0)
    pace = KeyedRateLimit(10, 20, clock)
    assert [pace.wait("a") for _ in range(20)] == [0.0] * 20
    assert pace.wait("a") == pytest.approx(0.1)
    assert pace.wait("b") == 0.0
    clock.now += 0.1
    assert pace.wait("a") == 0.0
    assert pace.wait("a") > 0
    clock.now += 60
    assert [pace.wait("a") for _ in range(21)].count(0.0) == 20  # no more than the burst is saved up


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=200))
def test_no_more_than_burst_and_rate_ever_pass(steps: list[float]) -> None:
    clock = StandingClock(100.0)
    pace, passed = KeyedRateLimit(10, 5, clock), 0
    for step in steps:
        clock.now += step
        wait = pace.wait("a")
        passed += wait == 0
        if wait:
            clock.now += wait + 1e-6  # who waits as long as they are told is let in
            assert pace.wait("a") == 0
            passed += 1
    assert passed <= 5 + 10 * (clock.now - 100.0) + 1


def test_many_addresses_do_not_make_it_grow() -> None:
    pace = KeyedRateLimit(1, 1)
    for number in range(3 * MOST):
        pace.wait(str(number))
    assert len(pace) == MOST


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, ""),
        ("", ""),
    ],
)
def test_one_host_is_one_key(address: str | None, key: str) -> None:
    assert address_key(address) == key

"""A rate limit against an exact model, and its bounds."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.dataplane.rules.limits import RateTable, SharedTable, client_key

Make = Callable[[float, int, int], RateTable]


class Model:
    """GCRA in exact arithmetic with a memory without bound. Times are 1024ths of a second: floats hold them exactly."""

    def __init__(self, per_s: int, burst: int) -> None:
        self.every, self.burst = Fraction(1, per_s), burst
        self.due: dict[str, Fraction] = {}

    def take(self, key: str, now: Fraction) -> bool:
        due = max(self.due.get(key, now), now)
        if due - now > (self.burst - 1) * self.every:
            return False
        self.due[key] = due + self.every
        return True


STEPS = st.lists(st.tuples(st.integers(0, 700), st.sampled_from("abcdef")), max_size=80)


def shared(per_s: float, burst: int, slots: int) -> RateTable:
    return SharedTable(per_s, burst, slots, bytearray)


@pytest.mark.parametrize("make", [RateTable, shared])
@settings(max_examples=150)
@given(per_s=st.sampled_from([1, 2, 4, 16, 64]), burst=st.integers(1, 8), steps=STEPS)
def test_it_is_the_model(make: Make, per_s: int, burst: int, steps: list[tuple[int, str]]) -> None:
    table, model, now = make(per_s, burst, 4096), Model(per_s, burst), Fraction(1)
    for pause, key in steps:
        now += Fraction(pause, 1024)
        allowed = model.take(key, now)
        found = table.take(key, float(now))
        assert (found > 0) == allowed
        left = burst - (model.due[key] - now) / model.every
        assert table.left(table.owed(key, float(now))) == max(0, int(left))
        if not allowed:
            assert table.take(key, float(now) - found + 1e-6) > 0
            return


@pytest.mark.parametrize("make", [RateTable, shared])
@settings(max_examples=75)
@given(steps=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 200)), max_size=300))
def test_a_small_table_is_only_more_lenient(make: Make, steps: list[tuple[int, int]]) -> None:
    table, model, now = make(4, 2, 8), Model(4, 2), Fraction(1)
    size = table.size_bytes
    for pause, key in steps:
        now += Fraction(pause, 1024)
        allowed = model.take(str(key), now)
        if allowed:
            assert table.take(str(key), float(now)) > 0
    assert table.size_bytes == size == 8 * 16


@pytest.mark.parametrize("make", [RateTable, shared])
def test_a_flood_of_keys_takes_no_more_memory(make: Make) -> None:
    table = make(10, 5, 1 << 12)
    size = table.size_bytes
    for number in range(100_000):
        table.take(str(number), 1.0 + number * 1e-6)
    assert table.size_bytes == size <= 16 << 12


def test_a_client_of_ipv6_is_its_64() -> None:
    assert client_key("2001:db8:1:2:a::1") == client_key("2001:db8:1:2:ffff::2") != client_key("2001:db8:1:3::1")
    assert client_key("::ffff:192.0.2.1") == "192.0.2.1" == client_key("192.0.2.1")
    assert client_key("unix") == "unix"
    assert client_key("fe80::1%eth0") == client_key("fe80::2%eth1")


def test_two_workers_count_together_and_what_nobody_can_owe_is_forgotten() -> None:
    memory = bytearray(16 * 64)
    one, other = (SharedTable(1, 3, 64, lambda size: memory) for _ in range(2))
    assert [table.take("a", 10.0) > 0 for table in (one, other, one, other)] == [True, True, True, False]
    assert other.take("a", 5000.0) > 0 and one.take("a", 10.0) > 0, "a clock that was set back by a boot"


@pytest.mark.parametrize("table", [RateTable(10.0, 5, 64), shared(10.0, 5, 64)], ids=["own", "shared"])
def test_what_is_owed_elsewhere_is_owed_here_and_never_less_nor_more_than_a_burst(table: RateTable) -> None:
    assert table.take("a", 100.0) > 0
    table.owe("a", 100.0, 0.05)
    assert table.owed("a", 100.0) == pytest.approx(0.1), "it is never less than what was counted here"
    table.owe("a", 100.0, 0.35)
    assert table.owed("a", 100.0) == pytest.approx(0.35) and table.left(0.35) == 1
    table.owe("b", 100.0, 1e9)
    assert table.owed("b", 100.0) == pytest.approx(0.5) and table.take("b", 100.0) < 0
    assert table.take("b", 100.11) > 0, "it comes back as if it had asked here"

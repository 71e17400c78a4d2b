"""Policies: exact shares for every subset that is down, least in flight, few moves, fast errors attract nothing."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.balance.backend import AttemptOutcome, Backend, BackendSpec
from edge.balance.health import Health
from edge.balance.policies import FULL_SCAN, POLICIES, LeastConnections, RoundRobin
from edge.balance.pool import BalanceSettings, Pool

PLAIN = BalanceSettings(ejection=None, slow_start_s=0.0)


def backend(name: str, weight: int = 1, region: str = "", limit: int | None = None) -> Backend:
    return Backend(BackendSpec(name, "p", "http", "127.0.0.1", 80, b"127.0.0.1", region, weight, limit))


def chance(seed: int = 7) -> Callable[[int], int]:
    return random.Random(seed).randrange


def pool(policy: str, weights: list[int], seed: int = 7) -> Pool:
    return Pool("p", [backend(f"b{i}", weight) for i, weight in enumerate(weights)], policy, PLAIN, chance(seed))


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.data())
@settings(max_examples=150, deadline=None)
def test_round_robin_is_exact_over_the_sum_of_weights_for_every_subset_that_is_down(weights, data):
    p = pool("round-robin", weights)
    down = data.draw(st.sets(st.integers(0, len(weights) - 1), max_size=len(weights) - 1))
    for _ in range(data.draw(st.integers(0, 9))):
        p.pick(0.0)
    for index in down:
        p.backends[index].set_health(Health.UNHEALTHY, 0.0)
    up = {f"b{i}": weight for i, weight in enumerate(weights) if i not in down}
    for _ in range(3):  # any window of a whole period
        assert Counter(p.pick(0.0).id for _ in range(sum(up.values()))) == up


def test_round_robin_with_weights_3_2_1_and_the_second_down_gives_75_to_25():
    p = pool("round-robin", [3, 2, 1])
    p.backends[1].set_health(Health.UNHEALTHY, 0.0)
    assert Counter(p.pick(0.0).id for _ in range(100)) == {"b0": 75, "b2": 25}


def test_round_robin_is_smooth():
    p = pool("round-robin", [5, 1, 1])
    assert [p.pick(0.0).id for _ in range(7)] == ["b0", "b0", "b1", "b0", "b2", "b0", "b0"]


def test_round_robin_with_a_period_too_long_to_remember_is_as_exact():
    members = [backend("a", 4999), backend("b", 7)]
    policy = RoundRobin(members, chance())
    policy.settle(members)
    assert Counter(policy.pick(members, 0, 0.0).id for _ in range(5006)) == {"a": 4999, "b": 7}


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=FULL_SCAN))
@settings(max_examples=150, deadline=None)
def test_least_connections_takes_the_lowest_score(given_backends):
    members = [backend(f"b{i}", weight) for i, (weight, _) in enumerate(given_backends)]
    for member, (_, busy) in zip(members, given_backends, strict=True):
        member.in_flight = busy
    chosen = LeastConnections(members, chance()).pick(members, 0, 0.0)
    assert (chosen.in_flight + 1) / chosen.weight == min((m.in_flight + 1) / m.weight for m in members)


def test_least_connections_breaks_ties_in_turn():
    p = pool("least-connections", [1, 1, 1, 1])
    assert Counter(p.pick(0.0).id for _ in range(40)) == {"b0": 10, "b1": 10, "b2": 10, "b3": 10}


def test_least_connections_above_the_full_scan_looks_at_two_and_still_levels():
    p = pool("least-connections", [1] * 64)
    for _ in range(6400):
        p.pick(0.0).take(0.0)
    loads = [b.in_flight for b in p.backends]
    assert sum(loads) == 6400
    assert max(loads) <= 100 + 8


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_policy_keeps_to_the_candidates_for_every_subset(name):
    for count in range(1, 5):
        for up in combinations(range(4), count):
            p = pool(name, [1, 2, 3, 4])
            for index in set(range(4)) - set(up):
                p.backends[index].set_health(Health.UNHEALTHY, 0.0)
            picked = {p.pick(0.0, hint).id for hint in range(200)}
            assert picked <= {f"b{index}" for index in up}
            if name in ("round-robin", "random", "hash"):
                assert len(picked) == count


def test_hash_moves_only_the_keys_of_who_left_and_gives_them_back():
    p = pool("hash", [1] * 8)
    before = [p.pick(0.0, hint).id for hint in range(4000)]
    p.backends[3].set_health(Health.UNHEALTHY, 0.0)
    without = [p.pick(0.0, hint).id for hint in range(4000)]
    assert all(old == new for old, new in zip(before, without, strict=True) if old != "b3")
    moved = Counter(new for old, new in zip(before, without, strict=True) if old == "b3")
    assert "b3" not in moved
    assert len(moved) >= 6  # spread over the others, not dumped on one
    p.backends[3].set_health(Health.HEALTHY, 0.0)
    assert [p.pick(0.0, hint).id for hint in range(4000)] == before


def test_hash_follows_weights_and_a_new_member_takes_only_its_part():
    p = pool("hash", [1, 1, 2])
    counts = Counter(p.pick(0.0, hint).id for hint in range(8000))
    assert abs(counts["b2"] / 8000 - 0.5) < 0.08
    before = [p.pick(0.0, hint).id for hint in range(8000)]
    p.add(backend("new"))
    after = [p.pick(0.0, hint).id for hint in range(8000)]
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(changed) == {"new"}
    assert len(changed) / 8000 < 0.3


def test_random_follows_weights():
    p = pool("random", [3, 1])
    counts = Counter(p.pick(0.0).id for _ in range(8000))
    assert abs(counts["b0"] / 8000 - 0.75) < 0.03


def run_latency(failing: str, seconds: float, seed: int) -> tuple[Counter[str], int]:
    """200 requests a second into five backends of 50 ms, one of which answers 503 after 1 ms; counts after 10 s."""
    p = pool("latency", [1] * 5, seed)
    running: list[tuple[float, int, Backend, float]] = []
    counts: Counter[str] = Counter()
    for number in range(int(seconds * 200)):
        now = number / 200
        while running and running[0][0] <= now:
            at, _, ended, took = heappop(running)
            ended.give_back(at)
            ended.observe(AttemptOutcome.GATEWAY_FAILURE if ended.id == failing else AttemptOutcome.SUCCESS, took, at)
        chosen = p.pick(now)
        chosen.take(now)
        took = 0.001 if chosen.id == failing else 0.05
        heappush(running, (now + took, number, chosen, took))
        if now >= 10:
            counts[chosen.id] += 1
    for at, _, ended, _ in running:
        ended.give_back(at)
    assert all(b.in_flight == 0 for b in p.backends)
    return counts, sum(counts.values())


@pytest.mark.parametrize("seed", range(5))
def test_one_fast_503_backend_of_five_gets_under_two_percent_by_latency(seed):
    counts, total = run_latency("b2", 70.0, seed)
    assert counts["b2"] < 0.02 * total
    healthy = [counts[f"b{i}"] for i in (0, 1, 3, 4)]
    assert min(healthy) > 0.5 * max(healthy)


def test_latency_prefers_the_faster_and_an_unknown_one_gets_one_request_to_become_known():
    p = pool("latency", [1, 1])
    fast, slow = p.backends
    fast.latency.observe(0.01, 0.0)
    slow.latency.observe(0.5, 0.0)
    assert {p.pick(0.0).id for _ in range(20)} == {fast.id}
    p.add(backend("new"))
    new = p.get("new")
    assert any(p.pick(0.0) is new for _ in range(20))
    new.take(0.0)
    assert not any(p.pick(0.0) is new for _ in range(20) if fast.in_flight == 0) or slow.latency.cost(0.0) < 5.0

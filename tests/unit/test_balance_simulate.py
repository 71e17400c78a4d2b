"""Rehearsal: shares before and after, what fences refuse, and that the live objects stay as they were."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from edge.balance.backend import Backend, BackendSpec
from edge.balance.failover import FailoverState, PoolRegions, decide
from edge.balance.health import Admin, Health
from edge.balance.pool import BalanceSettings, Pool
from edge.balance.regions import FailoverSettings, Mode, RegionSpec, RouteNeed
from edge.balance.simulate import BackendNow, Hypothesis, Snapshot, simulate

REGIONS = (RegionSpec("eu", 0), RegionSpec("us", 1))
SPECS = [
    BackendSpec(name, "p", "http", "10.0.0.1", 80, b"", region)
    for name, region in (("e1", "eu"), ("e2", "eu"), ("u1", "us"), ("u2", "us"))
]


def snapshot(policy: str = "round-robin", mode: Mode = Mode.SPILL, **fields: object) -> Snapshot:
    routes = (
        RouteNeed("free", frozenset({"eu", "us"})),
        RouteNeed("fenced", frozenset({"eu", "us"}), frozenset({"eu"})),
    )
    backends = tuple(BackendNow(spec, latency_s=0.05) for spec in SPECS)
    regions = PoolRegions(REGIONS, FailoverSettings(mode=mode))
    return Snapshot(policy, regions, {}, backends, routes, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", list(Mode))
def test_a_region_lost_moves_all_and_names_the_fenced_routes(mode):
    found = simulate(snapshot(mode=mode), Hypothesis(frozenset({"eu"})))
    assert found.before.regions == {"eu": 100, "us": 0}
    assert found.before.backends == {"e1": 50, "e2": 50, "u1": 0, "u2": 0}
    assert found.after.regions == {"eu": 0, "us": 100}
    assert found.after.refused == 0
    assert found.refused_routes == ("fenced",)
    assert found.settled_after_s == (0 if mode is Mode.SPILL else 3)


def test_capacity_spills_over():
    found = simulate(snapshot(), Hypothesis(capacity={"eu": 0.5}))
    assert found.after.regions["eu"] == pytest.approx(70, abs=0.5)
    assert found.after.regions["us"] == pytest.approx(30, abs=0.5)


def test_a_slow_backend_gets_less_by_least_connections_and_the_same_by_round_robin():
    slow = Hypothesis(latencies_s={"e1": 0.5})
    least = simulate(snapshot("least-connections"), slow).after.backends
    assert least["e1"] < 20
    assert simulate(snapshot("latency"), slow).after.backends["e1"] < 10
    assert simulate(snapshot("round-robin"), slow).after.backends["e1"] == 50


def test_all_lost_is_refused_and_an_inactive_region_helps_nobody():
    found = simulate(snapshot(), Hypothesis(frozenset({"eu", "us"})))
    assert found.after.refused == 100
    assert found.refused_routes == ("free", "fenced")
    inactive = replace(snapshot(), admin={"us": Admin.INACTIVE})
    assert simulate(inactive, Hypothesis(frozenset({"eu"}))).after.regions["us"] == 0


def test_the_same_question_has_the_same_answer():
    what = Hypothesis(lost_backends=frozenset({"e1"}))
    assert simulate(snapshot("random"), what) == simulate(snapshot("random"), what)


def test_simulated_shares_are_those_that_come():
    pool = Pool("p", [Backend(spec) for spec in SPECS], "round-robin", BalanceSettings(), random.Random(1).randrange)
    pool.get("e1").set_health(Health.UNHEALTHY, 0.0)
    view, _, _ = decide(PoolRegions(REGIONS), {}, pool.region_health(0.0), FailoverState(), 0.0)
    pool.apply(view)
    real = Counter(pool.pick(0.0).id for _ in range(2000))
    rehearsed = simulate(snapshot(), Hypothesis(lost_backends=frozenset({"e1"}))).after.backends
    for name, percent in rehearsed.items():
        assert real[name] / 20 == pytest.approx(percent, abs=0.5)

"""A whole region killed, with default settings, clock-driven: probes, live failures, `decide` and the pool together."""

from __future__ import annotations

import random

import pytest

from edge.balance.backend import AttemptOutcome, Backend, BackendSpec
from edge.balance.failover import FailoverState, PoolRegions, decide
from edge.balance.health import ProbeSettings, ProbeState
from edge.balance.pool import BalanceSettings, Pool
from edge.balance.regions import FailoverSettings, Mode, RegionSpec

TICK_S = 0.01  # 100 requests a second


class World:
    """A pool of `eu` and `us` backends, probed and decided upon as the control plane would."""

    def __init__(self, eu: int, us: int, mode: Mode, seed: int) -> None:
        self.chance = random.Random(seed).randrange
        names = [(f"e{i}", "eu") for i in range(eu)] + [(f"u{i}", "us") for i in range(us)]
        backends = [Backend(BackendSpec(n, "p", "http", "h", 80, b"", r), probed=True) for n, r in names]
        self.pool = Pool("p", backends, "least-connections", BalanceSettings(), self.chance)
        self.regions = PoolRegions((RegionSpec("eu", 0), RegionSpec("us", 1)), FailoverSettings(mode=mode))
        self.state = FailoverState()
        self.probes = {b.id: ProbeState(ProbeSettings()) for b in backends}
        self.due = {b.id: 0.01 * self.chance(500) for b in backends}
        self.dead: frozenset[str] = frozenset()
        self.now = 0.0
        self.reached: list[tuple[float, str]] = []  # what first attempts were sent to
        self.failed = 0  # requests, all attempts included

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += TICK_S
            for backend_id, probe in self.probes.items():
                if self.now >= self.due[backend_id]:
                    self.probe(backend_id, probe)
            health = self.pool.region_health(self.now)
            view, self.state, _ = decide(self.regions, {}, health, self.state, self.now)
            self.pool.apply(view)
            self.request()

    def probe(self, backend_id: str, probe: ProbeState) -> None:
        backend = self.pool.get(backend_id)
        change = probe.on_result(backend.region not in self.dead, self.now)
        if change is not None:
            backend.set_health(change.new, self.now)
        self.due[backend_id] = self.now + probe.next_delay(self.chance)

    def request(self) -> None:
        tried: list[Backend] = []
        while len(tried) < 3 and (backend := self.pool.pick(self.now, 0, tried)) is not None:
            if not tried:
                self.reached.append((self.now, backend.region))
            backend.take(self.now)
            ok = backend.region not in self.dead
            backend.observe(AttemptOutcome.SUCCESS if ok else AttemptOutcome.GATEWAY_FAILURE, 0.005, self.now)
            backend.give_back(self.now)
            if ok:
                return
            tried.append(backend)
            self.probes[backend.id].hurry()
            self.due[backend.id] = min(self.due[backend.id], self.now + self.probes[backend.id].next_delay(self.chance))
        self.failed += 1


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("eu", "us"), [(2, 2), (3, 1), (1, 3)])
def test_all_traffic_is_on_the_next_region_within_five_seconds_and_comes_back_slowly(mode, seed, eu, us):
    world = World(eu, us, mode, seed)
    world.run(12.0)
    assert {region for at, region in world.reached if at > 6} == {"eu"}
    world.dead = frozenset({"eu"})
    killed_at = world.now
    world.run(20.0)
    # Live traffic looks again at an ejected backend now and then, one request at a time, until its probes have spoken.
    assert max(at for at, region in world.reached if region == "eu") - killed_at < 5.0
    assert world.failed == 0  # three attempts leave any dead region
    world.dead = frozenset()
    back_at = world.now
    world.run(200.0)
    assert {region for at, region in world.reached if at > back_at + 195} == {"eu"}
    first_minute = [region for at, region in world.reached if back_at + 10 < at < back_at + 20]
    assert "us" in first_minute

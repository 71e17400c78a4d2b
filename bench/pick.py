"""What a pick and a geo decision cost, alone: `python bench/pick.py`. Median over rounds, microseconds, one core.

Targets: a pick among 4 backends under 2 µs, among 64 under 3 µs; a geo decision for a known place under 1 µs.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from statistics import median
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edge.balance.backend import Backend, BackendSpec
from edge.balance.geo import ClientPlace, GeoMap
from edge.balance.policies import POLICIES
from edge.balance.pool import BalanceSettings, Pool
from edge.balance.regions import RegionSpec, RoutingView

ROUNDS = 9
CALLS = 5000


def cost_us(call: Callable[[int], object]) -> float:
    """Median microseconds of one call, the loop's own cost included."""
    rounds = []
    for _ in range(ROUNDS):
        began = perf_counter()
        for number in range(CALLS):
            call(number)
        rounds.append((perf_counter() - began) / CALLS * 1e6)
    return median(rounds)


def make_pool(policy: str, count: int, regions: tuple[str, ...] = ("",)) -> Pool:
    """A pool under some load, so that scores differ."""
    source = random.Random(1)
    backends = [
        Backend(BackendSpec(f"b{i}", "p", "http", "127.0.0.1", 80, b"x", regions[i % len(regions)]))
        for i in range(count)
    ]
    pool = Pool("p", backends, policy, BalanceSettings(), lambda n: int(source.random() * n))
    if len(regions) > 1:
        pool.apply(RoutingView(dict.fromkeys(regions, 100.0 / len(regions)), regions, frozenset(regions)))
    for backend in backends:
        backend.latency.observe(0.02 + 0.01 * source.random(), 0.0)
        for _ in range(source.randrange(20)):
            backend.take(0.0)
    return pool


def main() -> None:
    """Print the table."""
    print(f"{'pick, µs':<28}{'4':>8}{'64':>8}")
    for policy in POLICIES:
        pools = [make_pool(policy, count) for count in (4, 64)]
        figures = [cost_us(lambda number, pool=pool: pool.pick(1.0, number)) for pool in pools]  # type: ignore[misc]
        print(f"{policy:<28}{figures[0]:>8.2f}{figures[1]:>8.2f}")
    idle = make_pool("least-connections", 4)
    for backend in idle.backends:
        backend.in_flight = 0
    print(f"{'least-connections, idle':<28}{cost_us(lambda number: idle.pick(1.0, number)):>8.2f}")
    split = make_pool("least-connections", 4, ("eu", "us"))
    print(f"{'two regions by share':<28}{cost_us(lambda number: split.pick(1.0, number)):>8.2f}")
    print(f"{'two regions by place':<28}{cost_us(lambda number: split.pick(1.0, number, (), ('us', 'eu'))):>8.2f}")
    geo = GeoMap(
        [RegionSpec(f"r{i}", i % 2, 100, (10.0 * i, 5.0 * i), (f"C{i}",), ("EU",)) for i in range(8)],
        [("203.0.113.0/24", "r1")],
    )
    place, address = ClientPlace("C3", "", "EU", 48.0, 11.0), ip_address("198.51.100.7")
    print(f"{'geo, known place':<28}{cost_us(lambda number: geo.decide(place)):>8.2f}")
    print(f"{'geo, known place, overrides':<28}{cost_us(lambda number: geo.decide(place, address)):>8.2f}")
    cold = [ClientPlace("C3", "", "EU", 48.0, number / 100) for number in range(CALLS)]
    print(f"{'geo, new place':<28}{cost_us(lambda number: _forgetful(geo, cold[number])):>8.2f}")


def _forgetful(geo: GeoMap, place: ClientPlace) -> object:
    geo._memo.clear()
    return geo.decide(place)


if __name__ == "__main__":
    main()

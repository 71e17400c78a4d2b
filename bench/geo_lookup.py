"""What a geo decision costs: on a connection that was placed before (warm) and on a new one (cold).

    python -m bench.geo_lookup [--database FILE]

One rule: the cold figures look up other addresses each time, so that neither the processor's caches nor a memo of
places makes one address look cheap. Each figure is the median of rounds. Targets: warm < 1 µs, cold < 15 µs.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from time import perf_counter_ns

from edge.adapters.geo import GeoReader
from edge.balance.geo import NO_GEO_POLICY, GeoMap
from edge.balance.regions import RegionSpec

DATABASE = Path(__file__).parents[1] / "geoip" / "edge-country.mmdb"
REGIONS = [
    RegionSpec("eu-west", 0, 100, (53.3, -6.3), ("IE", "GB", "FR"), ("EU",)),
    RegionSpec("us-east", 0, 100, (38.9, -77.5), (), ("NA", "SA")),
    RegionSpec("ap-south", 1, 100, (1.35, 103.8), ("SG",), ("AS", "OC")),
    RegionSpec("us-west", 1, 100, (45.5, -122.7)),
]
ROUNDS, CALLS = 15, 4000


def median_us(act: Callable[[int], object]) -> float:
    """Microseconds of `act(n)`, the loop around it taken off."""
    rounds = []
    for turn in range(ROUNDS):
        first = turn * CALLS
        began = perf_counter_ns()
        for number in range(first, first + CALLS):
            act(number)
        spent = perf_counter_ns() - began
        began = perf_counter_ns()
        for number in range(first, first + CALLS):
            _nothing(number)
        rounds.append((spent - (perf_counter_ns() - began)) / CALLS / 1000)
    return statistics.median(rounds)


def _nothing(number: int) -> None:
    """What the empty loop calls."""


def placed(reader: GeoReader, seed: int, v6: bool) -> list[str]:
    """Addresses of clients that the database knows, as texts."""
    chance = random.Random(seed)
    found: list[str] = []
    while len(found) < ROUNDS * CALLS:
        # 2a00::/8 and 24 bits of chance: dense enough that a few tries find an announced network.
        address = IPv6Address((0x2A << 120) | (chance.getrandbits(24) << 96) | 1) if v6 else None
        text = str(address or IPv4Address(chance.getrandbits(32)))
        if reader.place(text).unknown is None:
            found.append(text)
    return found


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description="Cost of geo decisions.")
    arguments.add_argument("--database", type=Path, default=DATABASE)
    reader = GeoReader(arguments.parse_args().database)
    overrides = [("192.0.2.0/24", "us-west"), ("2001:db8::/32", "us-west")]
    plain, overridden = GeoMap(REGIONS), GeoMap(REGIONS, overrides)
    v4, v6 = placed(reader, 1, False), placed(reader, 2, True)
    place, address = reader.place(v4[0]), IPv4Address(v4[0])
    rows = [
        ("warm: place kept with the connection", 1, median_us(lambda n: plain.decide(place))),
        ("warm, with CIDR overrides", 1, median_us(lambda n: overridden.decide(place, address))),
        ("cold: look-up and decision, v4", 15, median_us(lambda n: plain.decide(reader.place(v4[n])))),
        ("cold: look-up and decision, v6", 15, median_us(lambda n: plain.decide(reader.place(v6[n])))),
        ("  of which the look-up, v4", None, median_us(lambda n: reader.place(v4[n]))),
        ("cold, a private address", 15, median_us(lambda n: plain.decide(reader.place(f"10.0.{n >> 8 & 255}.1")))),
        (
            "first of its country: order worked out",
            None,
            median_us(lambda n: GeoMap._work_out(plain, place, "", NO_GEO_POLICY)),
        ),
    ]
    for name, target, cost_us in rows:
        verdict = "" if target is None else f"   target < {target} µs: {'held' if cost_us < target else 'MISSED'}"
        print(f"{name:<42}{cost_us:8.2f} µs{verdict}")


if __name__ == "__main__":
    main()

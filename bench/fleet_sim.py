"""Hit rate and origin load of 1, 10 and 100 edges, with and without the shared tier: `python -m bench.fleet_sim`.

Requests follow Zipf's law over a number of objects; each edge has an LRU of its own (memory and disk together, as one
size), the fleet has one of another size. A request goes to the edge that its client is nearest to: at random. Objects
stay fresh for a number of requests of the whole site, as pages do. Nothing here is measured; it says what follows from
the shape of the traffic. One rule: the same requests for every column, drawn from one seed.

With `--plot FILE` the figures are drawn as one SVG, with nothing but the standard library.
"""

from __future__ import annotations

import argparse
import bisect
import itertools
import json
import random
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

EDGES = (1, 10, 100)


class Site(NamedTuple):
    """What is asked for, and how much of it the tiers hold."""

    objects: int = 100_000
    requests: int = 600_000
    alpha: float = 0.9  # of Zipf's law: 0.6 to 1.0 is what sites see
    edge_objects: int = 10_000
    tier_objects: int = 60_000
    fresh_requests: int = 400_000  # of the whole site, until an object has to be fetched anew


class Row(NamedTuple):
    """One fleet. Shares of all requests."""

    edges: int
    tier: bool
    hit: float
    from_tier: float
    origin: float


class Lru:
    """Objects with the request at which they are over; the one used longest ago goes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[int, int] = OrderedDict()

    def until(self, name: int, now: int) -> int:
        """When it is over; 0 where there is none that is fresh."""
        until = self._kept.get(name, 0)
        if until <= now:
            return 0
        self._kept.move_to_end(name)
        return until

    def put(self, name: int, until: int) -> None:
        """Keep it."""
        self._kept[name] = until
        self._kept.move_to_end(name)
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)


def requests_of(site: Site, chance: random.Random) -> list[int]:
    """The objects asked for, in order."""
    weights = list(itertools.accumulate(1 / (rank + 1) ** site.alpha for rank in range(site.objects)))
    total = weights[-1]
    return [bisect.bisect_left(weights, chance.random() * total) for _ in range(site.requests)]


def simulate(site: Site, asked: list[int], edges: int, tier: bool, chance: random.Random) -> Row:
    """What becomes of the requests; the first third warms the tiers and is not counted."""
    stores = [Lru(site.edge_objects) for _ in range(edges)]
    shared = Lru(site.tier_objects)
    hits = from_tier = origin = 0
    warm = len(asked) // 3
    for now, name in enumerate(asked, 1):
        store = stores[chance.randrange(edges)]
        if store.until(name, now):
            hits += now > warm
            continue
        until = shared.until(name, now) if tier else 0
        if until:
            from_tier += now > warm
        else:
            origin += now > warm
            until = now + site.fresh_requests
            if tier:
                shared.put(name, until)
        store.put(name, until)
    counted = len(asked) - warm
    return Row(edges, tier, hits / counted, from_tier / counted, origin / counted)


def plot(rows: list[Row]) -> str:
    """A bar for each fleet: hit, from the tier, origin."""
    bars = []
    for number, row in enumerate(rows):
        x, y = 60 + number * 90 + (number // 2) * 30, 30.0
        for share, colour in ((row.hit, "#3b7dd8"), (row.from_tier, "#f0a830"), (row.origin, "#c0392b")):
            height = share * 240
            bars.append(f'<rect x="{x}" y="{y:.1f}" width="70" height="{height:.1f}" fill="{colour}"/>')
            if share > 0.04:
                bars.append(f'<text x="{x + 35}" y="{y + height / 2 + 4:.1f}" fill="#fff">{share:.0%}</text>')
            y += height
        what = f"{row.edges} edge{'s' if row.edges > 1 else ''}"
        bars.append(f'<text x="{x + 35}" y="290">{what}</text>')
        bars.append(f'<text x="{x + 35}" y="306">{"with tier" if row.tier else "alone"}</text>')
    legend = "blue: own tiers, orange: shared tier, red: origin"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 330" font-family="sans-serif" font-size="12" '
        f'text-anchor="middle"><text x="330" y="18">{legend}</text>{"".join(bars)}</svg>\n'
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="bench.fleet_sim", description=__doc__)
    for name, value in Site._field_defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    site = Site(**{name: getattr(given, name) for name in Site._fields})
    asked = requests_of(site, random.Random(1))
    rows = [simulate(site, asked, edges, tier, random.Random(2)) for edges in EDGES for tier in (False, True)]
    if given.plot is not None:
        given.plot.write_text(plot(rows), encoding="utf-8")
    if given.json:
        print(json.dumps([row._asdict() for row in rows]))
        return
    print("edges  tier   own tiers  shared  origin")
    for row in rows:
        print(f"{row.edges:5}  {'yes' if row.tier else 'no ':4} {row.hit:10.1%} {row.from_tier:7.1%} {row.origin:7.1%}")


if __name__ == "__main__":
    main()

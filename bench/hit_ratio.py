"""Hit ratio of each eviction policy, on the real index: Zipf traces and the same ones polluted by scans.

`python -m bench.hit_ratio [--objects N] [--requests N]`. Every object is of one size, so that the ratio by object is
the ratio by byte; the budget is a share of what all objects together would be charged, fixed tables counted. In a
polluted trace one request in three belongs to a scan: a run over objects that nobody asks for again.
The claim: S3-FIFO is at least LRU on each line; the last column says so.
"""

from __future__ import annotations

import argparse
from array import array
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from edge.cache.eviction import POLICIES
from edge.cache.index import Index
from edge.cache.table import NODE_BYTES

SKEWS = (0.8, 0.9, 1.0, 1.1)
SHARES = (0.01, 0.1)
SIZE = 4096
SCAN_RUN = 200


@dataclass(frozen=True, slots=True)
class Object:
    """The least that the index stores."""

    key: bytes
    size_bytes: int = SIZE
    keep_until: float = 1e9
    tags: frozenset[bytes] = frozenset()
    vary: object = ()
    part: object = None

    def expired(self, now: float) -> Object:
        return self


@dataclass(frozen=True, slots=True)
class Line:
    """One trace and budget, with each policy's hit ratio."""

    trace: str
    skew: float
    share: float
    ratios: dict[str, float]

    @property
    def holds(self) -> bool:
        """S3-FIFO is at least LRU."""
        return self.ratios["s3-fifo"] >= self.ratios["lru"]


def zipf(skew: float, objects: int, requests: int, seed: int) -> list[int]:
    """Numbers of objects by popularity."""
    random = Random(seed)
    weights = array("d", accumulate(1 / (rank + 1) ** skew for rank in range(objects)))
    return [bisect(weights, random.random() * weights[-1]) for _ in range(requests)]


def polluted(numbers: Sequence[int], objects: int) -> Iterator[int]:
    """After each 2 × SCAN_RUN requests a run of SCAN_RUN objects never seen before or after."""
    unseen = objects
    for at, number in enumerate(numbers, 1):
        yield number
        if at % (2 * SCAN_RUN) == 0:
            yield from range(unseen, unseen + SCAN_RUN)
            unseen += SCAN_RUN


def ratio(eviction: str, budget: int, numbers: Sequence[int]) -> float:
    """Hits / requests, from an empty index on."""
    index: Index[Object] = Index(budget, eviction)
    seq = index.purge_log.now_seq()
    hits = 0
    for number in numbers:
        key = b"%d" % number
        if index.get(key) is not None:
            hits += 1
        else:
            index.put(Object(key), 0.0, seq)
    return hits / len(numbers)


def lines(objects: int, requests: int, seed: int = 1) -> Iterator[Line]:
    """Every trace with every budget."""
    for skew in SKEWS:
        plain = zipf(skew, objects, requests, seed)
        for trace, numbers in (("zipf", plain), ("zipf + scans", list(polluted(plain, objects)))):
            for share in SHARES:
                budget = int(objects * (SIZE + NODE_BYTES) * share)
                yield Line(trace, skew, share, {name: ratio(name, budget, numbers) for name in POLICIES})


def main() -> None:
    """Print the table; exit with 1 when the claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=1_000_000)
    asked = parser.parse_args()
    print(f"| trace | s | budget | {' | '.join(POLICIES)} | S3-FIFO ≥ LRU |")
    print(f"|---|---|---|{'---|' * len(POLICIES)}---|")
    holds = True
    for line in lines(asked.objects, asked.requests):
        ratios = " | ".join(f"{line.ratios[name]:.4f}" for name in POLICIES)
        claim = "yes" if line.holds else "NO"
        print(f"| {line.trace} | {line.skew} | {line.share:.0%} | {ratios} | {claim} |", flush=True)
        holds = holds and line.holds
    raise SystemExit(not holds)


if __name__ == "__main__":
    main()

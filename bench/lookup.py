"""What a look-up in the memory tier costs, and what an object costs beside its head and body.

`python -m bench.lookup [OBJECTS …]` (default 1,000 and 1,000,000). Keys are asked for as requests ask for them: new
bytes objects whose hash is not yet known, by popularity (Zipf, s = 1) and, as the worst case for the processor's
caches, uniformly. `dict` is a bare `dict.get` of the same keys in the same order: what grows with the number of objects
there is memory being slower than the caches, and no index in this process can be below it. Times are medians over
batches, the loop around them taken off.
"""

from __future__ import annotations

import sys
import tracemalloc
from array import array
from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from statistics import median
from time import perf_counter

from edge.cache.index import Index
from edge.cache.stored import Plan, Stored, build
from edge.cache.verdict import Source
from edge.http.message import Fields

BATCH = 500
BATCHES = 200
NOW = 1_800_000_000.0
NO_TAGS: frozenset[bytes] = frozenset()  # one object, as the product shares it; an empty one takes 216 bytes
FIELDS = Fields(
    (
        (b"Content-Type", b"text/html; charset=utf-8"),
        (b"Cache-Control", b"public, max-age=3600"),
        (b"Date", b"Fri, 15 Jan 2027 08:00:00 GMT"),
        (b"Content-Length", b"6"),
    )
)


@dataclass(frozen=True, slots=True)
class Figures:
    """Microseconds for each look-up; bytes for each object beside its head's and body's own bytes."""

    objects: int
    zipf_us: float
    zipf_dict_us: float
    uniform_us: float
    uniform_dict_us: float
    metadata_bytes: float
    charged_bytes: float


def key_of(number: int) -> bytes:
    """One of the keys, a new object each time."""
    return b"https://www.example.com/articles/%d/index.html" % number


def plan_of(number: int) -> Plan:
    """A small response as a fill would plan it."""
    return Plan(
        key=key_of(number),
        status=200,
        reason=b"OK",
        fields=FIELDS,
        vary=(),
        received_at=NOW + number % 1000 / 7,
        born=NOW + number % 1000 / 7 - 1,
        lifetime_s=3600.0,
        source=next(iter(Source)),
        swr_s=0.0,
        sie_s=0.0,
        outage_s=0.0,
        keep_s=3600.0,
        must_revalidate=False,
        no_cache=False,
        plain_hits=True,
        etag=None,
        tags=NO_TAGS,
    )


def stored(number: int) -> Stored:
    """A small response as a fill would build it."""
    return build(plan_of(number), (b"body-%d" % (number % 10),))


def measure(objects: int) -> Figures:
    """Fill an index and ask it."""
    tracemalloc.start()
    index: Index[Stored] = Index(objects * 4096 + (1 << 20))
    fixed = index.bytes
    before = tracemalloc.get_traced_memory()[0]
    seq = index.purge_log.now_seq()
    payload = 0
    for number in range(objects):
        entry = stored(number)
        payload += len(entry.wire) + entry.length
        index.put(entry, NOW, seq)
    entry = stored(0)  # so that the last one made is not counted twice
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    random = Random(7)
    weights = array("d", accumulate(1 / (rank + 1) for rank in range(objects)))
    zipf = [bisect(weights, random.random() * weights[-1]) for _ in range(BATCH * BATCHES)]
    uniform = [random.randrange(objects) for _ in range(BATCH * BATCHES)]
    places = list(range(objects))
    random.shuffle(places)  # what is popular does not lie side by side in memory
    metadata, charged = (taken - payload) / objects, (index.bytes - fixed - payload) / objects
    bare = {entry.key: entry for entry in index}
    zipf = [places[number] for number in zipf]
    return Figures(
        objects,
        _time(index.get, zipf),
        _time(bare.get, zipf),
        _time(index.get, uniform),
        _time(bare.get, uniform),
        metadata,
        charged,
    )


def _time(get: Callable[[bytes], object], numbers: list[int]) -> float:
    times = []
    for start in range(0, len(numbers), BATCH):
        keys = [key_of(number) for number in numbers[start : start + BATCH]]
        begun = perf_counter()
        for key in keys:
            get(key)
        ended = perf_counter()
        for _ in keys:
            pass
        times.append((ended - begun - (perf_counter() - ended)) / BATCH)
    return median(times) * 1e6


def main() -> None:
    """Print one line for each number of objects."""
    sizes = [int(word) for word in sys.argv[1:]] or [1_000, 1_000_000]
    print("| objects | zipf µs | dict | uniform µs | dict | metadata B | charged B |")
    print("|---|---|---|---|---|---|---|")
    for size in sizes:
        found = measure(size)
        times = (found.zipf_us, found.zipf_dict_us, found.uniform_us, found.uniform_dict_us)
        shown = " | ".join(f"{time_us:.3f}" for time_us in times)
        print(f"| {found.objects:,} | {shown} | {found.metadata_bytes:.0f} | {found.charged_bytes:.0f} |", flush=True)


if __name__ == "__main__":
    main()

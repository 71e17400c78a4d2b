"""What the disk tier costs a worker, without a gateway around it: `python -m bench.tier_cost [--dir DIR]`.

CPU time of this process, the median of five runs: look-ups of one response again and again, of each of many in random
order, and of what is not there; and of the writer for each object that it stores, while nothing else runs.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from statistics import median

from bench.processes import as_command
from bench.tier_start import stored
from edge.adapters.disk_room import Limits
from edge.adapters.disk_tier import DiskTier

LOOKS, MANY, WRITTEN = 20_000, 10_000, 20_000
SIZES = (1024, 10 * 1024)


def spent(count: int, work: Callable[[], None]) -> float:
    """Microseconds of CPU for each of `count`."""
    began = time.process_time()
    work()
    return (time.process_time() - began) / count * 1e6


def looks(tier: DiskTier, keys: list[bytes]) -> float:
    """A look-up of each of these."""

    def work() -> None:
        look = tier.look
        for key in keys:
            look(key)

    return median(spent(len(keys), work) for _ in range(5))


def writes(tier: DiskTier, first: int, count: int, size: int, pace: int) -> float:
    """Each of `count` put and written, so many at a time."""
    made = [stored(number, size) for number in range(first, first + count)]

    def work() -> None:
        for at in range(0, count, pace):
            for one in made[at : at + pace]:
                tier.put(one, tier.purge_log().seq)
            tier.writer.flush(60)

    return spent(count, work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, default=Path("var/tier-cost"))
    directory = parser.parse_args().dir.absolute()
    for size in SIZES:
        shutil.rmtree(directory, ignore_errors=True)
        tier = DiskTier.open(directory / "tier", Limits(512 * 1024**2))
        time.sleep(0.1)
        print(f"{size:,} bytes: written {writes(tier, 0, WRITTEN, size, 100):.1f} µs by 100", end="; ")
        print(f"{writes(tier, WRITTEN, 2000, size, 10):.1f} µs by 10")
        keys = [b"http://bench.example/%d" % Random(n).randrange(WRITTEN - MANY, WRITTEN) for n in range(LOOKS)]
        absent = [b"http://bench.example/none%d" % n for n in range(LOOKS)]
        same, many, none = (looks(tier, each) for each in ([keys[0]] * LOOKS, keys, absent))
        print(f"  look-up: the same {same:.1f} µs, of {MANY:,} {many:.1f} µs, absent {none:.1f} µs")
        tier.close()
    shutil.rmtree(directory)


if __name__ == "__main__":
    as_command(main)

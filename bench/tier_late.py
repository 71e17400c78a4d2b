"""How late a loop is beside the disk tier's writer: `python -m bench.tier_late [--settings 0.6/0.6,0.3/0.3]`.

A loop, the writer and the thread that folds the log in share one core and one full tier. Each half millisecond the loop
wants 0.15 ms of it, as ten hits do, and stores new responses of 4 KiB, each of which evicts another. Rounds without any
of those and rounds with each setting (milliseconds of the writer's work and rest) go by turns, so that what else the
machine does meets all of them. The target: p99 at most 1.5 × that without.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import threading
import time
from collections.abc import Iterator
from itertools import count
from mmap import mmap
from pathlib import Path

from bench.tier_start import stored
from edge.adapters import disk_writer
from edge.adapters.disk_changes import Changer, Changes
from edge.adapters.disk_room import Limits
from edge.adapters.disk_rows import Addition
from edge.adapters.disk_start import open_place
from edge.adapters.disk_tier import DiskTier
from edge.cache.record import encode
from edge.cache.stored import Stored

LIMITS = Limits(96 * 1024**2)
SIZE, RATE = 4096, 4000  # of a response, and a second
TICK_S, WORK_S, ROUND_S = 0.0005, 0.00015, 0.4
NONE = "none"


def filled(path: Path, responses: Iterator[Stored]) -> DiskTier:
    """A tier without room for more."""
    changer = Changer(open_place(path), LIMITS)
    for _ in range(LIMITS.size // (SIZE + 600) // 500 + 1):
        batch = [next(responses) for _ in range(500)]
        changer.apply(Changes(additions=[Addition(one, encode(one, 0)) for one in batch]))
    changer.close()
    tier = DiskTier.open(path, LIMITS, share=lambda name, size: mmap(-1, size))
    time.sleep(1.2)  # until it is asked by the loop
    return tier


def one_round(tier: DiskTier, waiting: list[Stored]) -> list[float]:
    """The loop's lateness at each of its turns, in milliseconds, while it stores these."""
    late: list[float] = []
    began = due = time.perf_counter()
    while due - began < ROUND_S:
        now = time.perf_counter()
        if now < due:
            time.sleep(due - now)
            now = time.perf_counter()
        late.append((now - due) * 1e3)
        for _ in range(min(len(waiting), round(RATE * TICK_S))):
            tier.put(waiting.pop(), tier.purge_log().seq)
        until = time.thread_time() + WORK_S
        while time.thread_time() < until:
            pass
        due += TICK_S
    tier.writer.flush(10)
    return late


def spent() -> int:
    """Nanoseconds of the core that the tier's threads have had."""
    ids = [each.native_id for each in threading.enumerate() if each.name in ("disk-writer", "disk-fold")]
    return sum(int(Path(f"/proc/self/task/{each}/schedstat").read_text().split()[0]) for each in ids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", default=f"{disk_writer.WORK_S * 1e3:g}/{disk_writer.REST_S * 1e3:g}")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--dir", type=Path, default=Path("var/tier-late"))
    told = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    directory = told.dir.absolute()
    shutil.rmtree(directory, ignore_errors=True)
    responses = (stored(number, SIZE) for number in count())
    tier = filled(directory, responses)
    cases = [NONE, *told.settings.split(",")]
    late: dict[str, list[float]] = {case: [] for case in cases}
    cost = dict.fromkeys(cases, 0)
    for turn in range(told.rounds):
        for case in cases[turn % len(cases) :] + cases[: turn % len(cases)]:
            if case != NONE:
                work, rest = (float(each) / 1e3 for each in case.split("/"))
                disk_writer.WORK_S, disk_writer.REST_S = work, rest
            made = [next(responses) for _ in range(0 if case == NONE else int(RATE * ROUND_S))]
            gc.collect()
            gc.freeze()
            before = spent()
            late[case] += one_round(tier, made)
            cost[case] += spent() - before
    for case in cases:
        values = sorted(late[case])
        cuts = " / ".join(f"{values[int(len(values) * cut)]:.2f}" for cut in (0.5, 0.9, 0.99, 0.999))
        each = cost[case] / 1e3 / (told.rounds * RATE * ROUND_S)
        print(f"{case:>9}: {cuts} ms late (p50 / p90 / p99 / p99.9); the tier's threads {each:.1f} µs a response")
    tier.close()
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()

"""What a full disk tier costs: `python -m bench.tier_start [OBJECTS] [--dir DIR]` fills one with 1 KiB responses, then
tells how long a gateway takes from its start to ready on it, and what look-ups cost a worker.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from statistics import quantiles

from bench.processes import as_command
from edge.adapters.disk_changes import Changer, Changes
from edge.adapters.disk_room import Limits
from edge.adapters.disk_rows import Addition
from edge.adapters.disk_start import open_place
from edge.adapters.disk_tier import DiskTier
from edge.cache.record import encode
from edge.cache.stored import Plan, Stored, build
from edge.cache.verdict import Source
from edge.http.message import Fields

BATCH = 1000
LIMITS = Limits(16 * 1024**3)
TOML = """
[listen]
http = ["127.0.0.1:0"]
workers = 2
[admin]
listen = "127.0.0.1:{port}"
token_file = "{dir}/token"
[state]
path = "{dir}/state"
[log]
access = "off"
[cache]
disk = {{ path = "{dir}/tier", size = "16GiB" }}
[pools.none]
backends = [{{ url = "http://127.0.0.1:9" }}]
[[routes]]
host = "*"
path = "/"
pool = "none"
"""


def stored(number: int, size: int = 1022) -> Stored:
    """One response; the same number gives the same one."""
    now = time.time()
    fields = Fields(((b"Content-Type", b"text/plain"), (b"Cache-Control", b"max-age=86400")))
    plan = Plan(
        *(b"http://bench.example/%d" % number, 200, b"OK", fields, (), now, now, 86400.0, Source.MAX_AGE),
        *(0.0, 0.0, 0.0, 3600.0, False, False, True, None, frozenset()),
    )
    return build(plan, (b"%07d" % number * (size // 7),))


def fill(path: Path, count: int) -> float:
    """Write them; seconds."""
    changer = Changer(open_place(path), LIMITS)
    began = time.perf_counter()
    for first in range(0, count, BATCH):
        batch = [stored(number) for number in range(first, min(count, first + BATCH))]
        changer.apply(Changes(additions=[Addition(one, encode(one, 0)) for one in batch]))
    changer.close()
    return time.perf_counter() - began


def start(directory: Path) -> float:
    """Milliseconds from `edge run` to its first 200 on /readyz."""
    from urllib.error import URLError
    from urllib.request import urlopen

    from bench.processes import free_ports

    (port,) = free_ports(1)
    config = directory / "gateway.toml"
    config.write_text(TOML.format(dir=directory, port=port))
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "edge.cli.begin", "run", "-c", str(config)], stderr=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
                    return (time.perf_counter() - began) * 1e3
            except (URLError, OSError):
                time.sleep(0.005)
    finally:
        process.terminate()
        process.wait()


def looks(tier: DiskTier, first: int, count: int) -> str:
    """Microseconds of look-ups of random keys among these."""
    random, taken = Random(5), []
    while len(taken) < 50_000:
        key = b"http://bench.example/%d" % random.randrange(first, first + count)
        began = time.perf_counter()
        if tier.look(key) is None:
            time.sleep(0.05)  # it would be asked in a thread for a second
            continue
        taken.append((time.perf_counter() - began) * 1e6)
    cuts = quantiles(taken, n=1000)
    return f"{cuts[499]:.1f} / {cuts[989]:.1f} / {max(taken):.0f} µs (median / p99 / worst)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("objects", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--dir", type=Path, default=Path("var/tier-start"))
    told = parser.parse_args()
    directory = told.dir.absolute()
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    empty = start(directory)
    shutil.rmtree(directory / "state")
    shutil.rmtree(directory / "tier")
    spent = fill(directory / "tier", told.objects)
    size = sum(file.stat().st_blocks * 512 for file in (directory / "tier").rglob("*"))
    each = spent / told.objects * 1e6
    print(f"{told.objects:,} objects written in {spent:.0f} s, {each:.0f} µs each; {size / 1e9:.2f} GB")
    filled = start(directory), start(directory)
    print(f"start to ready: {empty:.0f} ms with an empty tier; {filled[0]:.0f}, {filled[1]:.0f} ms with this one")
    tier = DiskTier.open(directory / "tier", LIMITS)
    for file in (directory / "tier").rglob("*"):  # into the page cache, as a server that runs has it
        if file.is_file():
            file.read_bytes()
    time.sleep(1.1)
    print(f"look-up, found:  {looks(tier, 0, told.objects)}")
    print(f"look-up, absent: {looks(tier, told.objects * 10, told.objects)}")
    tier.close()
    shutil.rmtree(directory)


if __name__ == "__main__":
    as_command(main)

"""How long the loop of a worker stands still while it holds very many stored responses.

    python -m bench.pauses [--objects 500000] [--seconds 60] [--json]

Fills a memory cache with so many responses of 1 KiB, then asks for them under full load, one request in ten for
something new, and tells the highest lateness of the loop that the worker itself measured four times a second
(`/metrics`), and what the load saw of it: the longest request is the surer of the two. One rule: the figures are those
of the run's last part alone; what filling cost is told apart.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from time import monotonic, sleep

import orjson
from rich.console import Console
from rich.table import Table

from bench.load import SCRIPT
from bench.measure import process_tree, resident_bytes
from bench.processes import LOOPBACK, Refused, answer, as_command, gateway_and_origin, program

CONFIG = """
[listen]
http = ["{loopback}:{port}"]
workers = 1
[admin]
listen = "{loopback}:{admin}"
metrics_open = true
[state]
path = "{place}/state"
[cache]
memory = "6GiB"
[log]
access = "{place}/access.log"
[pools.web]
ejection = false
[[pools.web.backends]]
url = "http://{loopback}:{origin}"
[[routes]]
pool = "web"
"""
LAG = re.compile(rb"^edge_worker_loop_lag_seconds(?:\{[^}]*\})? ([0-9.e+-]+)", re.MULTILINE)
STORED = re.compile(rb"^edge_tier_objects(?:\{[^}]*\})? ([0-9.e+-]+)", re.MULTILINE)


def wrk(port: int, mode: str, objects: int, seconds: int) -> subprocess.Popen[str]:
    """The load, with 32 connections."""
    found = program("wrk")
    if found is None:
        raise Refused("the load needs wrk: apt-get install wrk")
    command = [
        "taskset", "-c", "1", found, "-t1", "-c32", f"-d{seconds}s", "--timeout", "5s", "-s", str(SCRIPT),
        f"http://{LOOPBACK}:{port}/page/", "--", mode, str(objects),
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def gauge(pattern: re.Pattern[bytes], admin: int) -> float:
    """The highest value of a metric."""
    return max((float(value) for value in pattern.findall(answer(admin, "/metrics")[1])), default=0.0)


def fill(port: int, admin: int, objects: int, console: Console) -> float:
    """Ask for all of them until they are stored; seconds."""
    began = monotonic()
    load = wrk(port, "fill", objects, 600)
    try:
        while (stored := gauge(STORED, admin)) < objects * 0.99:
            if load.poll() is not None or monotonic() - began > 590:
                raise Refused(f"only {stored:.0f} of {objects} were stored")
            console.print(f"filling: {stored:,.0f} of {objects:,}", end="\r")
            sleep(1.0)
    finally:
        load.kill()
        load.communicate()
    return monotonic() - began


def ask(port: int, admin: int, objects: int, seconds: int) -> dict[str, float]:
    """The part that counts."""
    sleep(2.0)
    gauge(LAG, admin)  # what filling left is told once
    load, late = wrk(port, "tenth", objects, seconds), []
    while load.poll() is None:
        sleep(0.5)
        late.append(gauge(LAG, admin))
    said = load.communicate()[0]
    found = re.search(r"^FIGURES (.*)$", said, re.MULTILINE)
    if found is None:
        raise Refused("wrk failed")
    requests, micros, _, p50, p99, longest, errors = (int(word) for word in found[1].split())
    return {
        "requests_per_s": round(requests / micros * 1e6),
        "p50_us": p50,
        "p99_us": p99,
        "longest_request_ms": round(longest / 1000, 1),
        "errors": errors,
        "longest_stall_ms": round(max(late) * 1000, 1),
    }


def main() -> int:
    """Start origin and gateway, fill, ask, print."""
    parser = argparse.ArgumentParser(prog="bench.pauses", description="Stalls of a worker with a full cache.")
    parser.add_argument("--objects", type=int, default=500_000, help="stored responses (default %(default)d)")
    parser.add_argument("--seconds", type=int, default=60, help="of load after that (default %(default)d)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    given = parser.parse_args()
    if not 1 <= given.objects <= 1_000_000 or not 5 <= given.seconds <= 600:
        parser.error("objects must be 1 to 1000000, seconds 5 to 600")
    console = Console(stderr=given.json)
    try:
        with gateway_and_origin("pauses", CONFIG) as pair:
            filled_s = fill(pair.port, pair.admin, given.objects, console)
            figures = ask(pair.port, pair.admin, given.objects, given.seconds)
            worker = max(process_tree(pair.gateway.pid), key=resident_bytes)
            figures |= {"objects": gauge(STORED, pair.admin), "filled_s": round(filled_s, 1)}
            figures["memory_mib"] = round(resident_bytes(worker) / 2**20)
    except (Refused, OSError) as error:
        console.print(f"bench.pauses: {error}", style="red", markup=False)
        return 2 if isinstance(error, Refused) else 1
    if given.json:
        print(orjson.dumps(figures, option=orjson.OPT_INDENT_2).decode())
        return 0
    table = Table("", "", title="a worker with a full cache, one request in ten new", title_justify="left")
    for key, value in figures.items():
        table.add_row(key, f"{value:,g}")
    console.print(table)
    return 0


if __name__ == "__main__":
    as_command(main)

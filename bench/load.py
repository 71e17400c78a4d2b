"""wrk: one thread on the load's core, and its figures.

One rule: a run that had errors says how many; the caller shows them beside the figure.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.cases import OBJECTS
from bench.processes import LOOPBACK, Refused, program

SCRIPT = Path(__file__).with_name("load.lua")
SLOW_OBJECTS = 1_000
ARGUMENTS = {
    "plain": ["plain"],
    "unique": ["unique"],
    "cold": ["cold"],
    "cold-unique": ["cold-unique"],
    "zipf": ["zipf", str(OBJECTS), "1.0"],
    "each": ["each", str(OBJECTS)],
    "slow": ["slow", str(SLOW_OBJECTS), "1.0"],
}


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw. Times in microseconds."""

    requests: int
    seconds: float
    bytes: int
    p50_us: int
    p99_us: int
    errors: int

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


@dataclass(frozen=True, slots=True)
class Shape:
    """What a run of wrk is told."""

    path: str
    mode: str
    connections: int
    seconds: int


def run(port: int, shape: Shape, core: int) -> Load:
    """One run against a port."""
    wrk = program("wrk")
    if wrk is None:
        raise Refused("the load needs wrk: apt-get install wrk")
    command = [
        "taskset", "-c", str(core), wrk, "-t1", f"-c{shape.connections}", f"-d{shape.seconds}s", "--timeout", "5s",
        "-s", str(SCRIPT), f"http://{LOOPBACK}:{port}{shape.path}", "--", *ARGUMENTS[shape.mode],
    ]  # fmt: skip
    # In the run's own process group: Ctrl-C ends wrk at once, by itself.
    said = subprocess.run(command, capture_output=True, text=True, timeout=shape.seconds + 30, check=False)
    for line in said.stdout.splitlines():
        if line.startswith("FIGURES "):
            requests, micros, size, p50, p99, _, errors = (int(word) for word in line.split()[1:])
            if requests == 0:
                raise Refused(f"wrk got no answer from port {port}{shape.path}")
            return Load(requests, micros / 1e6, size, p50, p99, errors)
    raise Refused(f"wrk failed: {(said.stderr or said.stdout).strip()[-200:]}")

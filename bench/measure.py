"""CPU time and memory of a process and all its descendants, from /proc.

One rule: a proxy's cost is what all its processes used; utime + stime of a process covers its threads, ended ones too.
The kernel gives ticks of 10 ms, so a figure needs a load of some seconds to mean much.
"""

from __future__ import annotations

import os
from pathlib import Path

TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def process_tree(pid: int) -> list[int]:
    """A process and its descendants; empty when it is gone."""
    found = [pid] if Path(f"/proc/{pid}").exists() else []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in children.read_text().split():
                found += process_tree(int(child))
        except OSError:  # the thread ended while it was read
            continue
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time that the tree has used."""
    ticks = 0
    for each in process_tree(pid):
        try:
            # The name in brackets may hold anything; what follows the last bracket is fixed.
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks * TICK_S


def resident_bytes(pid: int) -> int:
    """Resident memory of the tree; pages that processes share count in each."""
    pages = 0
    for each in process_tree(pid):
        try:
            pages += int(Path(f"/proc/{each}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * PAGE_BYTES

"""How a worker is: memory, processor time, open files, and how late its loop is.

One rule: it is looked at when counts are sent, once a second; the lateness comes with the timer that runs anyhow, as
the difference of two readings of the clock.
"""

from __future__ import annotations

import os
from time import process_time

PAGE = os.sysconf("SC_PAGE_SIZE")


class Vitals:
    """Memory, processor time and loop lag of one process."""

    def __init__(self, tick_s: float) -> None:
        self._tick_s = tick_s
        self._before: float | None = None
        self._late_s = 0.0

    def ticked(self, now: float) -> None:
        """The timer ran; what is more than a tick since the last time is lateness."""
        before, self._before = self._before, now
        if before is not None:
            self._late_s = max(self._late_s, now - before - self._tick_s)

    def now(self) -> dict[str, float]:
        """Processor time, and the highest lateness since `take`, which stays."""
        return {"lag_s": round(self._late_s, 6), "cpu_s": round(process_time(), 3)}

    def take(self) -> dict[str, float]:
        """Now; the lateness is the highest since the last time."""
        late, self._late_s = self._late_s, 0.0
        return {"lag_s": round(late, 6), "cpu_s": round(process_time(), 3), **of_process(os.getpid())}


def of_process(pid: int) -> dict[str, float]:
    """Resident memory and open files of a process; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            resident = int(file.read().split()[1]) * PAGE
        return {"rss_bytes": resident, "open_files": len(os.listdir(f"/proc/{pid}/fd"))}
    except (OSError, ValueError, IndexError):
        return {}

"""When Python looks for garbage that refers to itself, in a process that may hold a million stored responses.

    young objects         as ever: what lives for moments only is a few thousand objects
    everything            costs about 1 µs for each stored response, with the loop held: 680 ms at 500,000. It is done
                          where nobody waits, or when so much may have gathered that it is worth the pause

One rule: a request leaves nothing behind that only a full collection frees (tests watch fills and fetches for it); what
connections and TLS may leave is counted by the connections that ended. Applications are code that nobody here knows:
a worker that has some keeps Python's own schedule.
"""

from __future__ import annotations

import gc

YOUNG = 10_000  # new objects until the young ones are looked through
MIDDLE = 20  # such looks until those that survived one are looked through
NEVER = 1_000_000_000
QUIET_S = 5.0  # without any client
AGAIN_S = 60.0  # between two collections for that reason
ENDED = 100_000  # connections that ended since everything was looked through


class Collector:
    """The schedule of one process. Does nothing until `begin`."""

    def __init__(self) -> None:
        self.full = 0  # full collections so far
        self._begun = False
        self._busy_at = 0.0
        self._done_at = 0.0
        self._ended = 0

    def begin(self, now: float, foreign: bool) -> None:
        """The process is ready: what it made so far stays and is not looked at again. `foreign`: applications run."""
        gc.collect()
        gc.freeze()
        if not foreign:
            gc.set_threshold(YOUNG, MIDDLE, NEVER)
            self._begun = True
        self._busy_at = self._done_at = now

    def tick(self, now: float, open_connections: int, ended: int) -> None:
        """Collect where it is due. `ended`: connections that ended since the process started."""
        if not self._begun:
            return
        if open_connections:
            self._busy_at = now
        quiet = now - self._busy_at >= QUIET_S and now - self._done_at >= AGAIN_S and ended > self._ended
        if quiet or ended - self._ended >= ENDED:
            gc.collect()
            self.full += 1
            self._done_at, self._ended = now, ended

"""Whether the process stood still between two looks of a timer, as one does whose machine was paused or overloaded.

One rule: nobody is late for what this process did not do. Timers run before the bytes that arrived meanwhile are read,
so the first look after a standstill ends nobody; the next one, a moment later, does.
"""

from __future__ import annotations

from time import monotonic

MOST_LATE_S = 0.25  # a look that comes later than this was held up


class Standstill:
    """Of one timer, which looks every `every_s` seconds."""

    def __init__(self, every_s: float) -> None:
        self._most_s = every_s + MOST_LATE_S
        self._looked_at = monotonic()
        self._spared = False

    def over(self, now: float) -> bool:
        """Whether this look is the first after a standstill. Never twice in a row: a busy process ends people too."""
        late, self._looked_at = now - self._looked_at > self._most_s, now
        self._spared = late and not self._spared
        return self._spared

"""What the workers have to know of the purge stream to judge what other machines stored.

One rule: nothing is forgotten unsaid: `whole` is the position after which none of the stream's purges is missing here.
"""

from __future__ import annotations

from collections import deque
from time import time
from typing import Any

from edge.cache.fleet.purges import FleetPurge
from edge.cache.fleet.stream import Entry, StreamPlace
from edge.cache.purge import MAX_LOG


class Recent:
    """The last purges of the stream that were applied here, for workers that start."""

    def __init__(self) -> None:
        self.is_loaded = False
        self._kept: deque[tuple[int, dict[str, Any], float]] = deque(maxlen=MAX_LOG)
        self._whole = 0

    def begin(self, whole: int) -> None:
        """What the stream holds was read: all of it after that position."""
        self._whole = whole
        self._kept.clear()
        self.is_loaded = True

    def add(self, entry: Entry, asked: FleetPurge) -> None:
        """The next one was applied here."""
        if self._kept and self._kept[-1][0] >= entry.position:
            return  # it was recorded before, and could not be told to the workers
        if len(self._kept) == self._kept.maxlen:
            self._whole = self._kept[0][0]
        self._kept.append((entry.position, asked.purge.to_dict(), time()))

    def body(self, place: StreamPlace | None) -> dict[str, Any]:
        """The purges as a frame carries them."""
        if place is None:
            return {"whole": 0, "position": 0, "purges": []}
        position = self._kept[-1][0] if self._kept else place.position
        return {"whole": self._whole, "position": position, "purges": list(self._kept)}

"""What the disk tier has to tell: one event of a kind in ten seconds, with how often it happened; from any thread."""

from __future__ import annotations

import threading
from time import monotonic
from typing import Any

EVERY_S = 10.0


class DiskEvents:
    """Events that wait until somebody takes them."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[str, int]] = {}  # the newest words, and how often
        self._last: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, kind: str, words: str) -> None:
        """Count an event of this kind; of several, the newest words are kept."""
        with self._lock:
            self._waiting[kind] = (words, self._waiting.get(kind, ("", 0))[1] + 1)

    def take(self) -> list[dict[str, Any]]:
        """The events that are due, as `{"kind", "evidence", "times"}`."""
        now = monotonic()
        with self._lock:
            due = [kind for kind in self._waiting if self._last.get(kind, -EVERY_S) + EVERY_S <= now]
            found = []
            for kind in due:
                words, times = self._waiting.pop(kind)
                self._last[kind] = now
                found.append({"kind": kind, "evidence": words, "times": times})
        return found

"""What is asked for most, from a sample of the access log's lines before they are written.

One rule: no request does anything for it. Four times a second a few dozen of the lines that wait to be written are
read, by even steps; counts stand in windows of a quarter of a minute, of which the oldest is let go. What is shown are
parts of all requests, without the query, which may hold secrets.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from typing import Any

import orjson

TAKEN = 48  # lines each time
WINDOW_S = 15.0
WINDOWS = 4
MOST = 500  # different URLs in a window; what is asked for often is among the first so many
LONGEST = 300
_COMBINED = re.compile(rb'"[A-Z]+ (\S+) HTTP/[0-9.]+" ([0-9]{3}) ([0-9]+|-)')
_HITS = ("hit", "stale", "revalidated")

Key = tuple[str, str]  # route, URL


class Hottest:
    """The counts of one worker. `clock` values are monotonic seconds."""

    def __init__(self) -> None:
        self._windows: deque[dict[Key, list[int]]] = deque(maxlen=WINDOWS)
        self._totals: deque[int] = deque(maxlen=WINDOWS)
        self._began = 0.0
        self._since = 0.0

    def take(self, lines: Sequence[bytes], now: float) -> None:
        """Look at some of the lines that wait."""
        if not self._windows or now - self._began >= WINDOW_S:
            self._since = now if not self._windows else self._since
            self._windows.append({})
            self._totals.append(0)
            self._began = now
        if not lines:
            return
        window = self._windows[-1]
        for line in lines[:: -(-len(lines) // TAKEN)]:
            found = _read(line)
            if found is None:
                continue
            key, values = found
            self._totals[-1] += 1
            counts = window.get(key)
            if counts is None:
                if len(window) >= MOST:
                    continue
                counts = window[key] = [0, 0, 0, 0]
            for at, value in enumerate(values):
                counts[at] += value

    def report(self, limit: int, now: float) -> dict[str, Any]:
        """The most frequent ones: [route, url, count, hits, errors, bytes]; how many were looked at, in which time."""
        sums: dict[Key, list[int]] = {}
        for window in self._windows:
            for key, counts in window.items():
                own = sums.setdefault(key, [0, 0, 0, 0])
                for at, value in enumerate(counts):
                    own[at] += value
        most = sorted(sums.items(), key=lambda item: -item[1][0])[:limit]
        span = min(now - self._since, WINDOW_S * (len(self._windows) - 1) + now - self._began) if self._windows else 0.0
        return {"rows": [[*key, *counts] for key, counts in most], "sampled": sum(self._totals), "window_s": span}


def _read(line: bytes) -> tuple[Key, tuple[int, int, int, int]] | None:
    """Route and URL; one, hit, error, bytes."""
    if line.startswith(b"{"):
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError:
            return None
        url = f"{found['host']}{found['target'].partition('?')[0]}"[:LONGEST]
        hit = int(found["verdict"] in _HITS)
        return (found["route"], url), (1, hit, int(found["status"] >= 500), found["bytes_out"])
    match = _COMBINED.search(line)
    if match is None:
        return None
    url = match[1].partition(b"?")[0][:LONGEST].decode("latin-1")
    return ("", url), (1, 0, int(match[2] >= b"500"), int(match[3]) if match[3] != b"-" else 0)

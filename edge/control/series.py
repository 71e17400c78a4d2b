"""The last minutes as rows of numbers, one for each second and one for each ten: what a page that is opened now draws.

    COUNTS of a worker ─► spread over the seconds that it counted ─► seconds (10 min) ─► tens (2 h)

One rule: a worker's counts belong to the time between its last two frames, not to the moment in which they came. Frames
of several workers that come around the turn of a second would otherwise draw a saw from an even flow. What is kept is
bounded by time, and by the regions that the routing knows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from edge.metrics import LATENCY_BOUNDS_S, Histogram

SECONDS_KEPT = 600
TENS_KEPT = 720
SETTLED_S = 2.0  # after which no worker's frame changes a second any more
LONGEST_S = 5.0  # what one frame is spread over at most
STEPS = (1, 10)
NUMBERS = (
    "requests",
    "hits",
    "eligible",
    "client_errors",
    "server_errors",
    "bytes_in",
    "bytes_out",
    "cache_out",
    "origin_in",
    "attempts",
)
GAUGES = ("connections", "in_flight")
QUANTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99}
COLUMNS = ("time", *NUMBERS, *GAUGES, *QUANTILES)
_HITS = ("hit", "stale", "revalidated")
_BOUNDS = len(LATENCY_BOUNDS_S) + 1


class Interval:
    """What was counted in one second, or in ten."""

    __slots__ = ("at", "first_byte", "gauges", "numbers", "regions")

    def __init__(self, at: int) -> None:
        self.at = at
        self.numbers = [0.0] * len(NUMBERS)
        self.first_byte = [0.0] * _BOUNDS
        self.regions: dict[str, float] = {}
        self.gauges = [0] * len(GAUGES)

    def add(self, other: Interval, part: float = 1.0) -> None:
        """Add a part of another span; of gauges the higher value counts."""
        self.numbers = [a + b * part for a, b in zip(self.numbers, other.numbers, strict=True)]
        self.first_byte = [a + b * part for a, b in zip(self.first_byte, other.first_byte, strict=True)]
        for name, count in other.regions.items():
            self.regions[name] = self.regions.get(name, 0.0) + count * part
        self.gauges = [max(a, b) for a, b in zip(self.gauges, other.gauges, strict=True)]

    def row(self, epoch: float, seconds: int) -> list[float | None]:
        """As COLUMNS names it: counts a second, gauges, quantiles of the first byte."""
        quantiles = [quantile(self.first_byte, q) for q in QUANTILES.values()]
        return [
            round(epoch + self.at, 3),
            *(round(number / seconds, 3) for number in self.numbers),
            *self.gauges,
            *(None if found is None else round(found * 1000, 3) for found in quantiles),
        ]


class Series:
    """All rows. `clock` gives monotonic seconds, `epoch` is what has to be added for the time of day."""

    def __init__(self, epoch: float) -> None:
        self._epoch = epoch
        self._seconds: deque[Interval] = deque(maxlen=SECONDS_KEPT)
        self._tens: deque[Interval] = deque(maxlen=TENS_KEPT)
        self._last: dict[int, float] = {}  # by worker: when its last frame came

    def add(self, worker: int, body: Mapping[str, Any], gauges: Sequence[int], now: float) -> None:
        """Spread one worker's COUNTS over the seconds since the one before. `gauges` are over all workers."""
        since = max(self._last.get(worker, now - 1.0), now - LONGEST_S)
        self._last[worker] = now
        counted = span_of(body)
        counted.gauges = list(gauges)
        whole = now - since
        for second in range(int(since), int(now) + 1):
            part = (min(now, second + 1) - max(since, second)) / whole if whole > 0 else float(second == int(now))
            if part > 0:
                self._at(second).add(counted, part)

    def forget(self, worker: int) -> None:
        """Forget when a worker last counted: it has ended."""
        self._last.pop(worker, None)

    def rows(self, step: int, after: float, now: float) -> dict[str, Any]:
        """Rows of a step (one of STEPS) that are settled and later than `after` (time of day), the oldest first."""
        kept, end = (self._seconds, now - SETTLED_S) if step == 1 else (self._tens, now - SETTLED_S - step)
        settled = [span for span in kept if span.at + (1 if step == 1 else 0) <= end and self._epoch + span.at > after]
        names = sorted({name for span in settled for name in span.regions})
        return {
            "step_s": step,
            "columns": COLUMNS,
            "rows": [span.row(self._epoch, step) for span in settled],
            "regions": {name: [round(span.regions.get(name, 0.0) / step, 3) for span in settled] for name in names},
        }

    def _at(self, second: int) -> Interval:
        """The span of a second; silent seconds before it are made as well, so that a gap is a zero."""
        kept = self._seconds
        if kept and second - kept[-1].at > SECONDS_KEPT:
            kept.clear()  # a silence longer than what is kept
        if not kept:
            kept.append(Interval(second))
        while kept[-1].at < second:
            kept.append(Interval(kept[-1].at + 1))
            self._fold(kept[-1].at)
        return kept[max(0, len(kept) - 1 - (kept[-1].at - second))]

    def _fold(self, second: int) -> None:
        """Ten whole seconds that nothing changes any more become one row."""
        end = int(second - LONGEST_S - SETTLED_S)
        if end % 10 or len(self._seconds) < 10:
            return
        ten = Interval(end - 10)
        kept = self._seconds
        for span in islice(kept, max(0, len(kept) - 30), len(kept)):
            if end - 10 <= span.at < end:
                ten.add(span)
        self._tens.append(ten)


def span_of(body: Mapping[str, Any]) -> Interval:
    """What one COUNTS frame says, all routes together."""
    found = Interval(0)
    numbers = dict.fromkeys(NUMBERS, 0)
    for delta in body.get("routes", {}).values():
        verdicts = delta["verdicts"]
        numbers["requests"] += delta["requests"]
        numbers["hits"] += sum(verdicts.get(word, 0) for word in _HITS)
        numbers["eligible"] += sum(count for word, count in verdicts.items() if word != "bypass")
        numbers["client_errors"] += delta["status"][4]
        numbers["server_errors"] += delta["status"][5]
        for name in ("bytes_in", "bytes_out", "cache_out", "origin_in", "attempts"):
            numbers[name] += delta[name]
        counts = Histogram.of(delta["first_byte"]).counts_in(LATENCY_BOUNDS_S)
        found.first_byte = [a + b for a, b in zip(found.first_byte, counts, strict=True)]
    for members in body.get("backends", {}).values():
        for region, delta in members.values():
            found.regions[region] = found.regions.get(region, 0.0) + delta["attempts"]
    found.numbers = [float(numbers[name]) for name in NUMBERS]
    return found


def quantile(counts: Sequence[float], q: float) -> float | None:
    """The q-quantile in seconds, as if a bucket's samples lay evenly in it; None without any."""
    total = sum(counts)
    if total <= 0:
        return None
    need, seen, low = q * total, 0.0, 0.0
    for high, count in zip((*LATENCY_BOUNDS_S, LATENCY_BOUNDS_S[-1]), counts, strict=True):
        if count > 0 and seen + count >= need:
            return low + (high - low) * (need - seen) / count
        seen, low = seen + count, high
    return LATENCY_BOUNDS_S[-1]

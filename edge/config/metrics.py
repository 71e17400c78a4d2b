"""The table `[metrics]`: in which buckets durations are counted.

One rule: what the gateway shows by itself (quantiles, dashboard, `edge top`) does not depend on it: workers count in
these buckets and in their own together, and `/metrics` shows these alone.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, Field

from edge.config.types import Many, Section, Timeout, entry
from edge.metrics import LATENCY_BOUNDS_S

MOST = 64  # each is a time series for each route and each backend
LEAST_S = 0.0001
USUAL = ["1ms", "2.5ms", "5ms", "10ms", "25ms", "50ms", "100ms", "250ms", "500ms", "1s", "2.5s", "5s", "10s", "30s"]


def ascending(bounds: tuple[float, ...]) -> tuple[float, ...]:
    """Upper bounds as a histogram has them."""
    if bounds and bounds[0] < LEAST_S:
        raise ValueError("must begin at 0.1ms or above: quick hits are not timed one by one")
    if any(low >= high for low, high in pairwise(bounds)):
        raise ValueError("must be ascending durations, each once")
    return bounds


Buckets = Annotated[Many[Timeout], Field(min_length=1, max_length=MOST), AfterValidator(ascending)]


class Metrics(Section):
    """`[metrics]`."""

    buckets: Buckets = entry(USUAL, "Upper bounds of the histograms of first bytes, and of backends' answers")
    total_buckets: Buckets | None = entry(None, "The same of whole responses; left out: as `buckets`")

    @property
    def total(self) -> tuple[float, ...]:
        """Bounds for whole responses."""
        return self.buckets if self.total_buckets is None else self.total_buckets

    @property
    def bounds(self) -> tuple[float, ...]:
        """All bounds that workers count by."""
        return tuple(sorted({*LATENCY_BOUNDS_S, *self.buckets, *self.total}))

"""Counters on the request path and their declaration: name, kind, help text, each once.

One rule: adding is an attribute's `+=` or a list's `append`, counted four times a second by `Meter.fold`; nothing is
looked up, locked or formatted on a request. A worker sends what was added since the last time (`Meter.delta`); the
control plane sums the deltas of all workers, so that a worker's death loses at most one second of counts and nothing
twice.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

# Upper bounds in seconds of histograms' buckets, where nothing else is configured; the last bucket is +Inf.
LATENCY_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

# What `/metrics` says of each number. Labels stand in METER_LABELS.
HELP: dict[str, str] = {
    "requests": "Requests that ended, by route",
    "status": "Responses by route and status class",
    "verdicts": "Cache verdicts by route",
    "reasons": "Cache reasons by route",
    "errors": "Errors the gateway answered itself, by route and RFC 9209 word",
    "bytes_in": "Request body bytes from clients",
    "bytes_out": "Response body bytes to clients",
    "origin_in": "Response body bytes from backends",
    "origin_out": "Request body bytes to backends",
    "cache_out": "Response body bytes served from the store",
    "attempts": "Requests sent to backends, retries included",
    "retries": "Attempts after the first",
    "own": "Fetches that no client asked for: refreshes, prefetches, warm lists",
    "latency": "Seconds from the request's head to the response's end (of a backend: to its head); no tunnels",
    "first_byte": "Seconds from the request's head to the response's head",
    "protocols": "Requests that ended, by the HTTP and the TLS that they came by",
}
# What a request may come by: version of HTTP and of TLS, with a tab between them. Connections have their place in here,
# those of HTTP/1.0 are requests of their own on connections of HTTP/1.1.
_HTTP, _TLS = ("HTTP/1.0", "HTTP/1.1", "HTTP/2.0"), ("", "TLSv1.2", "TLSv1.3")
PROTOCOLS = tuple(f"{version}\t{tls}" for tls in _TLS for version in _HTTP)
PLACES = {(version.encode(), tls.encode()): PROTOCOLS.index(f"{version}\t{tls}") for version in _HTTP for tls in _TLS}


class Histogram:
    """Counts by upper bound, with sum: enough for quantiles and for Prometheus."""

    __slots__ = ("bounds", "counts", "total", "total_s")

    def __init__(self, bounds: Sequence[float] = LATENCY_BOUNDS_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += 1
        self.total_s += seconds

    def observe_all(self, samples: list[float]) -> None:
        """Count several; the list is empty afterwards."""
        counts, bounds = self.counts, self.bounds
        for seconds in samples:
            counts[bisect_left(bounds, seconds)] += 1
        self.total += len(samples)
        self.total_s += sum(samples)
        samples.clear()

    def plain(self) -> list[Any]:
        """As JSON values; the usual bounds are left out."""
        found = [self.counts, self.total, self.total_s]
        return found if self.bounds is LATENCY_BOUNDS_S else [*found, self.bounds]

    @classmethod
    def of(cls, plain: Sequence[Any]) -> Histogram:
        """From its `plain` values."""
        made = cls(tuple(plain[3]) if len(plain) > 3 else LATENCY_BOUNDS_S)
        made.counts, made.total, made.total_s = plain[:3]
        return made

    def counts_in(self, bounds: Sequence[float]) -> list[int]:
        """The counts by other bounds: exact where those are among its own, else never below what they were."""
        if bounds == self.bounds:
            return self.counts
        found = [0] * (len(bounds) + 1)
        for bound, count in zip(self.bounds, self.counts, strict=False):
            found[bisect_left(bounds, bound)] += count
        found[-1] += self.counts[-1]
        return found

    def count_by(self, bounds: Sequence[float]) -> None:
        """Go on with other bounds."""
        self.counts, self.bounds = self.counts_in(bounds), bounds

    def add(self, other: Histogram) -> None:
        """Sum another one in; bounds that only one of them has are kept."""
        if other.bounds != self.bounds:
            self.count_by(tuple(sorted({*self.bounds, *other.bounds})))
        self.counts = [a + b for a, b in zip(self.counts, other.counts_in(self.bounds), strict=True)]
        self.total += other.total
        self.total_s += other.total_s

    def quantile(self, q: float) -> float | None:
        """An upper bound in seconds of the q-quantile (0 < q < 1); None without samples, inf past the last bound."""
        if not self.total:
            return None
        need, seen = q * self.total, 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            if seen >= need:
                return bound
        return None


Outcome = tuple[int, str, str, str, int]  # status, verdict, reason, error (both may be empty), place in PROTOCOLS


class Meter:
    """The numbers of one thing that is measured (a route, a backend)."""

    __slots__ = (
        "asked_by",
        "attempts",
        "bytes_in",
        "bytes_out",
        "cache_out",
        "errors",
        "first_byte",
        "first_samples",
        "heads",
        "hit_bytes",
        "hits_by",
        "latency",
        "origin_in",
        "origin_out",
        "outcomes",
        "own",
        "protocols",
        "reasons",
        "requests",
        "retries",
        "samples",
        "status",
        "verdicts",
    )

    def __init__(self, bounds: Sequence[float] = LATENCY_BOUNDS_S) -> None:
        self.requests = 0
        self.hits_by = [0] * len(PROTOCOLS)  # answered the quick way; `fold` puts them where such requests are counted
        self.outcomes: list[Outcome] = []  # how requests ended, not yet in the numbers below
        self.heads: list[int] = []  # statuses of a backend's responses, not yet in the numbers below
        self.asked_by = [0] * len(PROTOCOLS)  # not told yet; `protocols` is what others told
        self.protocols: dict[str, int] = {}
        self.hit_bytes = 0
        self.status = [0, 0, 0, 0, 0, 0]  # by class: index 2 counts 2xx; 0 counts aborted without a head
        self.verdicts: dict[str, int] = {}
        self.reasons: dict[str, int] = {}
        self.errors: dict[str, int] = {}
        self.bytes_in = 0
        self.bytes_out = 0
        self.origin_in = 0
        self.origin_out = 0
        self.cache_out = 0
        self.attempts = 0
        self.retries = 0
        self.own = 0
        self.latency = Histogram(bounds)
        self.samples: list[float] = []  # seconds, not yet in the histogram
        self.first_byte = Histogram(bounds)  # of routes; a backend's latency is to its head anyway
        self.first_samples: list[float] = []

    def fold(self) -> None:
        """Put samples, outcomes and quick hits where they are counted (four times a second, by the worker's timer)."""
        latency = self.latency
        latency.observe_all(self.samples)
        self.first_byte.observe_all(self.first_samples)
        if self.outcomes:
            self._count_outcomes()
        if self.heads:
            for status, count in Counter(self.heads).items():
                self._count_status(status, count)
            self.heads.clear()
        if hits := sum(self.hits_by):
            sent = self.hit_bytes
            self.asked_by = [a + b for a, b in zip(self.asked_by, self.hits_by, strict=True)]
            self.hits_by, self.hit_bytes = [0] * len(PROTOCOLS), 0
            self.requests += hits
            self.status[2] += hits
            self.verdicts["hit"] = self.verdicts.get("hit", 0) + hits
            self.bytes_out += sent
            self.cache_out += sent
            for each in (latency, self.first_byte):
                each.counts[0] += hits  # microseconds: reading the clock twice for each would be a good part of them
                each.total += hits

    def _count_outcomes(self) -> None:
        for each, count in Counter(self.outcomes).items():
            status, verdict, reason, error, place = each
            self._count_status(status, count)
            self.asked_by[place] += count
            self.verdicts[verdict] = self.verdicts.get(verdict, 0) + count
            if reason:
                self.reasons[reason] = self.reasons.get(reason, 0) + count
            if error:
                self.errors[error] = self.errors.get(error, 0) + count
        self.outcomes.clear()

    def _count_status(self, status: int, count: int) -> None:
        self.requests += count
        self.status[status // 100 if status < 600 else 0] += count

    def delta(self) -> dict[str, Any]:
        """Everything counted since the last call, as plain JSON values; the meter starts again at zero."""
        self.fold()
        found: dict[str, Any] = {name: getattr(self, name) for name in _NUMBERS}
        found.update(
            status=self.status,
            verdicts=self.verdicts,
            reasons=self.reasons,
            errors=self.errors,
            protocols={word: count for word, count in zip(PROTOCOLS, self.asked_by, strict=True) if count},
            latency=self.latency.plain(),
            first_byte=self.first_byte.plain(),
        )
        self.__init__(self.latency.bounds)  # type: ignore[misc]  # the one place where a meter starts again
        return found

    def count_by(self, bounds: Sequence[float]) -> None:
        """Go on with other bounds of its histograms."""
        if bounds != self.latency.bounds:
            self.fold()
            self.latency.count_by(bounds)
            self.first_byte.count_by(bounds)

    def add(self, delta: Mapping[str, Any]) -> None:
        """Add what `delta` returned in another process."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + delta[name])
        self.status = [a + b for a, b in zip(self.status, delta["status"], strict=True)]
        for name in ("verdicts", "reasons", "errors", "protocols"):
            own = getattr(self, name)
            for word, count in delta[name].items():
                own[word] = own.get(word, 0) + count
        self.latency.add(Histogram.of(delta["latency"]))
        self.first_byte.add(Histogram.of(delta["first_byte"]))


_NUMBERS = (
    "requests",
    "bytes_in",
    "bytes_out",
    "origin_in",
    "origin_out",
    "cache_out",
    "attempts",
    "retries",
    "own",
)

"""What the cache is worth: hit rates, offload and bandwidth per route over 1 m, 5 m, 1 h and the lifetime.

    hit rate by object = (hit + stale + revalidated) / eligible        eligible: every request that was no bypass
    hit rate by byte   = body bytes from the store / body bytes sent
    offload            = 1 − requests of clients that went to an origin / requests from clients; what the
                         gateway fetched by itself (refreshes, prefetches, warm lists) and repeated attempts are in
                         origin_requests too, but are no client's: a warm list makes the cache no worse
    saved              = body bytes to clients − body bytes from origins; negative when fills brought more than was sent
    95th percentile    = of the mean bytes/s in each whole five minutes of the last 30 days (nearest rank)

The rule: a tally is a sum, so tallies add up over workers in any order; only the control plane has windows. A ratio
without a denominator is None, never 0. `now` is any clock in seconds that does not have to be steady: what comes with
an earlier time counts in the newest bucket.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

SAMPLE_S = 300
SAMPLES_KEPT = 30 * 24 * 3600 // SAMPLE_S
WINDOWS = {"1m": 60, "5m": 300, "1h": 3600}
_FINE_S = 300  # windows up to this length are summed from seconds, longer ones from minutes
_HITS = ("hit", "stale", "revalidated")


@dataclass(slots=True)
class Tally:
    """Counts of some requests; bytes are body bytes."""

    requests: int = 0
    eligible: int = 0
    hits: int = 0
    collapsed: int = 0
    client_in: int = 0
    client_out: int = 0
    cache_out: int = 0
    origin_in: int = 0
    origin_out: int = 0
    origin_requests: int = 0
    origin_own: int = 0  # of these, what no client asked for, and repeated attempts

    def add(self, other: Tally) -> None:
        """Add another tally to this one."""
        for name in _NAMES:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def to_dict(self) -> dict[str, int]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, int]) -> Tally:
        """The inverse of `to_dict`."""
        return cls(**found)

    @classmethod
    def from_meter(cls, delta: Mapping[str, Any]) -> Tally:
        """The tally of one `metrics.Meter.delta`. Requests without a verdict never reached the cache and do not
        count.
        """
        verdicts: Mapping[str, int] = delta["verdicts"]
        return cls(
            requests=delta["requests"],
            eligible=sum(count for verdict, count in verdicts.items() if verdict != "bypass"),
            hits=sum(verdicts.get(verdict, 0) for verdict in _HITS),
            collapsed=verdicts.get("collapsed", 0),
            client_in=delta["bytes_in"],
            client_out=delta["bytes_out"],
            cache_out=delta["cache_out"],
            origin_in=delta["origin_in"],
            origin_out=delta["origin_out"],
            origin_requests=delta["attempts"],
            origin_own=delta["own"] + delta["retries"],
        )


_NAMES = tuple(field.name for field in fields(Tally))


@dataclass(frozen=True, slots=True)
class Worth:
    """A tally's ratios (0 to 1, None without a denominator) and bytes saved."""

    hit_rate: float | None
    byte_hit_rate: float | None
    offload: float | None
    saved_bytes: int


def worth(tally: Tally) -> Worth:
    """A tally's ratios and saved bytes, by the formulas in the module's docstring."""
    return Worth(
        _ratio(tally.hits, tally.eligible),
        _ratio(tally.cache_out, tally.client_out),
        None if not tally.requests else 1 - (tally.origin_requests - tally.origin_own) / tally.requests,
        tally.client_out - tally.origin_in,
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


class _Ring:
    """Tallies of the last `count` spans of `span_s` seconds, the newest last; empty spans take no place."""

    __slots__ = ("_buckets", "count", "span_s")

    def __init__(self, span_s: int, count: int) -> None:
        self.span_s = span_s
        self.count = count
        self._buckets: deque[tuple[int, Tally]] = deque()

    def add(self, tally: Tally, now: float) -> None:
        number = int(now // self.span_s)
        buckets = self._buckets
        if not buckets or number > buckets[-1][0]:
            buckets.append((number, Tally()))
            while buckets[0][0] <= number - self.count:
                buckets.popleft()
        buckets[-1][1].add(tally)

    def total(self, window_s: float, now: float) -> Tally:
        first = int(now // self.span_s) - int(window_s // self.span_s)
        total = Tally()
        for number, tally in reversed(self._buckets):
            if number <= first:
                break
            total.add(tally)
        return total


class _Samples:
    """Mean bytes per second of each whole five minutes, for billing's 95th percentile; silent ones count as zero."""

    __slots__ = ("_bytes", "_number", "_rates")

    def __init__(self) -> None:
        self._number: int | None = None
        self._bytes = 0
        self._rates = array("d")

    def add(self, count: int, now: float) -> None:
        self._turn(now)
        self._bytes += count

    def p95(self, now: float) -> float | None:
        self._turn(now)
        rates = sorted(self._rates)
        return rates[-(-95 * len(rates) // 100) - 1] if rates else None

    def _turn(self, now: float) -> None:
        number = int(now // SAMPLE_S)
        if self._number is None:
            self._number = number
        elif number > self._number:
            silent = min(number - self._number - 1, SAMPLES_KEPT)
            self._rates.append(self._bytes / SAMPLE_S)
            self._rates.extend([0.0] * silent)
            del self._rates[: max(0, len(self._rates) - SAMPLES_KEPT)]
            self._number, self._bytes = number, 0


class Account:
    """One route's windows; `lifetime` may be restored from a journal."""

    __slots__ = ("_client_out", "_minutes", "_origin_in", "_seconds", "lifetime")

    def __init__(self) -> None:
        self.lifetime = Tally()
        self._seconds = _Ring(1, _FINE_S)
        self._minutes = _Ring(60, 60)
        self._client_out = _Samples()
        self._origin_in = _Samples()

    def add(self, tally: Tally, now: float) -> None:
        """Count what a worker reported."""
        self.lifetime.add(tally)
        self._seconds.add(tally, now)
        self._minutes.add(tally, now)
        self._client_out.add(tally.client_out, now)
        self._origin_in.add(tally.origin_in, now)

    def window(self, name: str, now: float) -> Tally:
        """The sum over a window of WINDOWS that ends now, or over the `lifetime`."""
        if name == "lifetime":
            return self.lifetime
        seconds = WINDOWS[name]
        return (self._seconds if seconds <= _FINE_S else self._minutes).total(seconds, now)

    def report(self, now: float) -> dict[str, Any]:
        """Every window's counts, ratios and mean bytes per second, and the 95th percentiles; plain JSON values."""
        report: dict[str, Any] = {}
        for name in (*WINDOWS, "lifetime"):
            tally = self.window(name, now)
            report[name] = {**tally.to_dict(), **asdict(worth(tally))}
            if name in WINDOWS:
                report[name]["client_out_per_s"] = tally.client_out / WINDOWS[name]
                report[name]["origin_in_per_s"] = tally.origin_in / WINDOWS[name]
        report["p95_client_out_per_s"] = self._client_out.p95(now)
        report["p95_origin_in_per_s"] = self._origin_in.p95(now)
        return report


class Accounts:
    """All routes and their sum. Route names come from the configuration, which bounds them."""

    __slots__ = ("routes", "total")

    def __init__(self) -> None:
        self.total = Account()
        self.routes: dict[str, Account] = {}

    def add(self, route: str, tally: Tally, now: float) -> None:
        """Count one route's delta of one worker."""
        account = self.routes.get(route)
        if account is None:
            account = self.routes[route] = Account()
        account.add(tally, now)
        self.total.add(tally, now)

    def report(self, now: float) -> dict[str, Any]:
        """`total` and each of `routes`."""
        return {
            "total": self.total.report(now),
            "routes": {name: account.report(now) for name, account in self.routes.items()},
        }

    def to_dict(self) -> dict[str, Any]:
        """What is kept over a restart: the lifetime counts, as JSON values."""
        return {name: account.lifetime.to_dict() for name, account in self.routes.items()}

    @classmethod
    def from_dict(cls, found: Mapping[str, Mapping[str, int]]) -> Accounts:
        """The inverse of `to_dict`; windows begin empty."""
        accounts = cls()
        for name, counts in found.items():
            account = accounts.routes[name] = Account()
            account.lifetime = Tally.from_dict(counts)
            accounts.total.lifetime.add(account.lifetime)
        return accounts

"""What all workers counted, summed: by route, backend, pool and region, with windows and gauges.

One rule: nothing is counted twice. Workers send what was added since their last frame; their gauges (what *is*, such as
open connections) replace the ones they sent before and go with the worker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Hashable, Mapping
from dataclasses import asdict
from typing import Any

from edge.cache.accounting import Accounts, Tally, worth
from edge.control.series import Series
from edge.metrics import PROTOCOLS, Meter

KEEP_GONE_S = 300.0
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


class Totals:
    """The sums. `add` takes the body of a COUNTS frame."""

    def __init__(self, epoch: float = 0.0) -> None:
        self.series = Series(epoch)  # `epoch`: what a monotonic second is short of the time of day
        self.routes: dict[str, Meter] = {}
        self.backends: dict[tuple[str, str], Meter] = {}
        self.pools: dict[str, Meter] = {}
        self.regions: dict[str, Meter] = {}
        self.accounts = Accounts()
        self.counters: dict[str, int] = {}  # refused connections, bugs, lost log lines, evictions …
        self.words: dict[str, dict[str, int]] = {}  # by name and word: how clients' places were found
        self.gauges: dict[int, dict[str, Any]] = {}  # by worker
        self._gone: dict[Hashable, float] = {}  # backends and regions that are no more, and since when

    def add(self, worker: int, body: Mapping[str, Any], now: float) -> None:
        """Add one worker's counts of about a second. `now`: monotonic seconds."""
        for name, delta in body.get("routes", {}).items():
            self.routes.setdefault(name, Meter()).add(delta)
            self.accounts.add(name, Tally.from_meter(delta), now)
        for pool, members in body.get("backends", {}).items():
            for identity, (region, delta) in members.items():
                self.backends.setdefault((pool, identity), Meter()).add(delta)
                self.pools.setdefault(pool, Meter()).add(delta)
                self.regions.setdefault(region, Meter()).add(delta)
        for name, count in body.get("counters", {}).items():
            self.counters[name] = self.counters.get(name, 0) + count
        for name, words in body.get("words", {}).items():
            own = self.words.setdefault(name, {})
            for word, count in words.items():
                own[word] = own.get(word, 0) + count
        if "gauges" in body:
            self.gauges[worker] = body["gauges"]
        self.series.add(worker, body, (self.gauge("connections"), self._flying()), now)

    def forget(self, worker: int) -> None:
        """A worker has ended: drop its gauges."""
        self.gauges.pop(worker, None)
        self.series.forget(worker)

    def prune(self, backends: Container[tuple[str, str]], regions: Container[str], now: float) -> None:
        """Drop the counts of what was removed, after a while in which last counts may still come and be scraped."""
        tables: list[tuple[dict[Any, Meter], Container[Any]]] = [(self.backends, backends), (self.regions, regions)]
        for table, there in tables:
            for key in list(table):
                if key in there:
                    self._gone.pop(key, None)
                elif now - self._gone.setdefault(key, now) >= KEEP_GONE_S:
                    del table[key], self._gone[key]

    # -- what is -----------------------------------------------------------------------------------------------------

    def gauge(self, name: str) -> int:
        """A gauge over all workers."""
        return sum(int(found.get(name, 0)) for found in self.gauges.values())

    def _flying(self) -> int:
        """Requests that are at any backend now."""
        pools = (pool for found in self.gauges.values() for pool in found.get("in_flight", {}).values())
        return sum(sum(members.values()) for members in pools)

    def in_flight(self, pool: str, identity: str) -> int:
        """Requests that are at a backend now."""
        return sum(int(found.get("in_flight", {}).get(pool, {}).get(identity, 0)) for found in self.gauges.values())

    def load(self, now: float) -> tuple[float, int]:
        """Requests a second over the last minute, and requests at backends now."""
        flying = sum(
            int(count)
            for found in self.gauges.values()
            for pool in found.get("in_flight", {}).values()
            for count in pool.values()
        )
        return self.accounts.total.window("1m", now).requests / 60, flying

    def store(self) -> dict[str, float]:
        """The stores' gauges over all workers: bytes, objects, budget …"""
        sums: dict[str, float] = {}
        for found in self.gauges.values():
            for name, value in found.get("store", {}).items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    sums[name] = sums.get(name, 0) + value
        return sums

    # -- for people --------------------------------------------------------------------------------------------------

    def cache_report(self, now: float) -> dict[str, Any]:
        """Hit rates and bandwidth, in all and per route."""
        report = self.accounts.report(now)
        for name, route in report["routes"].items():
            meter = self.routes[name]
            route["verdicts"], route["reasons"] = dict(meter.verdicts), dict(meter.reasons)
        return {**report, "store": self.store()}

    def protocols(self) -> list[tuple[str, str, int]]:
        """Requests by version of HTTP and of TLS."""
        sums: Counter[str] = Counter()
        for meter in self.routes.values():
            sums.update(meter.protocols)
        return [(*word.split("\t"), sums[word]) for word in PROTOCOLS if sums[word]]  # type: ignore[misc]  # of two

    def requests_report(self, now: float) -> dict[str, Any]:
        """Requests, statuses, errors and latency by route, pool, backend and region."""
        return {
            "requests_per_s": self.accounts.total.window("1m", now).requests / 60,
            "connections": self.gauge("connections"),
            "protocols": [dict(zip(("protocol", "tls", "requests"), each, strict=True)) for each in self.protocols()],
            "routes": {
                name: {**summary(meter), "cache_5m": asdict(worth(self.accounts.routes[name].window("5m", now)))}
                for name, meter in sorted(self.routes.items())
            },
            "pools": {name: summary(meter) for name, meter in sorted(self.pools.items())},
            "regions": {name: summary(meter) for name, meter in sorted(self.regions.items())},
        }


def summary(meter: Meter) -> dict[str, Any]:
    """One meter for people: counts, and upper bounds of latency quantiles in milliseconds.

    Of a route, `p99_ms` is to the answer's head and `total_p99_ms` to its end: a stream is long, not slow.
    """
    found: dict[str, Any] = {
        "requests": meter.requests,
        "status": {"aborted" if at == 0 else f"{at}xx": count for at, count in enumerate(meter.status) if count},
        "errors": dict(meter.errors),
        "attempts": meter.attempts,
        "retries": meter.retries,
        "bytes_in": meter.bytes_in,
        "bytes_out": meter.bytes_out,
        "origin_in": meter.origin_in,
        "origin_out": meter.origin_out,
        "cache_out": meter.cache_out,
    }
    for name, q in QUANTILES.items():
        found[f"{name}_ms"] = _ms((meter.first_byte if meter.first_byte.total else meter.latency).quantile(q))
        found[f"total_{name}_ms"] = _ms(meter.latency.quantile(q))
    return found


def _ms(bound: float | None) -> float | None:
    return None if bound is None or bound == float("inf") else bound * 1000

"""The Prometheus text of what is known: totals, gauges, readiness, region health.

One rule: names and help texts stand once, in `edge.metrics.HELP` and in the tables here; this file looks nothing up on
a request path, it runs when someone scrapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.registry import Collector

from edge.control.totals import Totals
from edge.metrics import HELP, LATENCY_BOUNDS_S, Histogram, Meter

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPEN_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

ROUTE_NUMBERS = ("bytes_in", "bytes_out", "cache_out", "origin_in", "origin_out", "own")
BACKEND_NUMBERS = ("attempts", "retries", "origin_in", "origin_out")
COUNTERS = {
    "refused_connections": "Client connections refused at a limit",
    "bugs": "Exceptions that no stage should let out",
    "log_lost": "Access log lines that could not be written",
}
WORDS = {  # name: labels (a word of several has tabs between them), help
    "geo_levels": (["level"], "Region orders by what found the first region"),
    "geo_unknown": (["reason"], "Clients whose place is not known, by reason"),
    "app_requests": (["app"], "Requests that an application was asked"),
    "app_faults": (["app", "fault"], "What applications did wrong, by kind"),
    "app_blocked_ms": (["app"], "Milliseconds for which an application let nothing else run in its worker"),
    "app_own": (["app", "name"], "Counters that applications keep themselves"),
}

Extra = Callable[[], Iterable[tuple[str, str, dict[str, str], float]]]  # name, help, labels, value


class _Collected(Collector):
    def __init__(self, totals: Totals, extra: Extra) -> None:
        self._totals = totals
        self._extra = extra

    def collect(self) -> Iterator[Metric]:
        totals = self._totals
        routes = [((name,), meter) for name, meter in totals.routes.items()]
        backends = [(key, meter) for key, meter in totals.backends.items()]
        regions = [((name,), meter) for name, meter in totals.regions.items()]
        yield from _requests("edge", ["route"], routes)
        yield from _words("edge", ["route"], routes)
        for name in ROUTE_NUMBERS:
            yield _numbers("edge", name, ["route"], routes)
        yield _latency("edge", ["route"], routes)
        yield _latency("edge", ["route"], routes, "first_byte")
        yield from _requests("edge_backend", ["pool", "backend"], backends)
        for name in BACKEND_NUMBERS:
            yield _numbers("edge_backend", name, ["pool", "backend"], backends)
        yield _latency("edge_backend", ["pool", "backend"], backends)
        yield from _requests("edge_region", ["region"], regions)
        for name, help_text in COUNTERS.items():
            yield CounterMetricFamily(f"edge_{name}", help_text, value=totals.counters.get(name, 0))
        for name, (labels, help_text) in WORDS.items():
            family = CounterMetricFamily(f"edge_{name}", help_text, labels=labels)
            for word, count in totals.words.get(name, {}).items():
                family.add_metric(word.split("\t"), count)
            yield family
        yield GaugeMetricFamily("edge_connections", "Open client connections", value=totals.gauge("connections"))
        yield self._in_flight()
        for name, value in sorted(totals.store().items()):
            yield GaugeMetricFamily(f"edge_store_{name}", f"The stores' {name}, over all workers", value=value)
        yield from self._others()

    def _in_flight(self) -> Metric:
        family = GaugeMetricFamily(
            "edge_backend_in_flight", "Requests that are at a backend now", labels=["pool", "backend"]
        )
        for pool, identity in self._totals.backends:
            family.add_metric([pool, identity], self._totals.in_flight(pool, identity))
        return family

    def _others(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for name, help_text, labels, value in self._extra():
            family = families.get(name)
            if family is None:
                kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
                family = families[name] = kind(name, help_text, labels=list(labels))
            family.add_metric(list(labels.values()), value)
        yield from families.values()


Rows = Sequence[tuple[tuple[str, ...], Meter]]


def _requests(prefix: str, labels: list[str], rows: Rows) -> Iterator[Metric]:
    requests = CounterMetricFamily(f"{prefix}_requests", HELP["requests"], labels=labels)
    status = CounterMetricFamily(f"{prefix}_responses", HELP["status"], labels=[*labels, "class"])
    errors = CounterMetricFamily(f"{prefix}_errors", HELP["errors"], labels=[*labels, "error"])
    for key, meter in rows:
        requests.add_metric(list(key), meter.requests)
        for at, count in enumerate(meter.status):
            if count:
                status.add_metric([*key, f"{at}xx" if at else "aborted"], count)
        for word, count in meter.errors.items():
            errors.add_metric([*key, word], count)
    yield from (requests, status, errors)


def _words(prefix: str, labels: list[str], rows: Rows) -> Iterator[Metric]:
    for name, label in (("verdicts", "verdict"), ("reasons", "reason")):
        family = CounterMetricFamily(f"{prefix}_cache_{name}", HELP[name], labels=[*labels, label])
        for key, meter in rows:
            for word, count in getattr(meter, name).items():
                family.add_metric([*key, word], count)
        yield family


def _numbers(prefix: str, name: str, labels: list[str], rows: Rows) -> Metric:
    family = CounterMetricFamily(f"{prefix}_{name}", HELP[name], labels=labels)
    for key, meter in rows:
        family.add_metric(list(key), getattr(meter, name))
    return family


def _latency(prefix: str, labels: list[str], rows: Rows, name: str = "latency") -> Metric:
    family = HistogramMetricFamily(f"{prefix}_{name}_seconds", HELP[name], labels=labels)
    for key, meter in rows:
        histogram: Histogram = getattr(meter, name)
        seen, buckets = 0, []
        for bound, count in zip((*map(str, LATENCY_BOUNDS_S), "+Inf"), histogram.counts, strict=True):
            seen += count
            buckets.append((bound, float(seen)))
        family.add_metric(list(key), buckets, histogram.total_s)
    return family


def content_type(accept: str) -> str:
    """OpenMetrics for whoever asks for it, as Prometheus does; else the older text."""
    return OPEN_TYPE if "application/openmetrics-text" in accept else CONTENT_TYPE


def exposition(totals: Totals, extra: Extra, wanted: str = CONTENT_TYPE) -> bytes:
    """The whole text; `extra` gives what is not counted by workers: gauges, and counters by their `_total`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(totals, extra))
    if wanted == OPEN_TYPE:
        return bytes(openmetrics(registry))  # type: ignore[no-untyped-call]
    return bytes(generate_latest(registry))

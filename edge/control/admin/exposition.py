"""What `/metrics` says: totals, gauges, readiness, region health; a family at a time.

One rule: names and help texts stand once, in `edge.metrics.HELP` and in the tables here; this file looks nothing up on
a request path, it runs when someone scrapes, and lets the loop turn between families.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from edge.control.admin import store_help
from edge.control.admin.metric_text import CONTENT_TYPE, END, OPEN_TYPE, Labels, Row, counter, gauge, histogram
from edge.control.totals import Totals
from edge.metrics import HELP, LATENCY_BOUNDS_S, Histogram, Meter

ROUTE_NUMBERS = ("bytes_in", "bytes_out", "cache_out", "origin_in", "origin_out", "own")
BACKEND_NUMBERS = ("attempts", "retries", "origin_in", "origin_out")
MS = "_ms"
COUNTERS = {
    "refused_connections": "Client connections refused at a limit",
    "unread_connections": "Client connections ended because clients left too much unread, all together",
    "bugs": "Exceptions that no stage should let out",
    "log_lost": "Access log lines that could not be written",
    "spans": "Spans that a collector took (log.otlp)",
    "spans_lost": "Spans that no collector has: none took them, or too many waited",
    "http2_connections": "Client connections that speak HTTP/2",
    "http2_streams": "Requests on them, refused and malformed ones among them",
    "http2_refused_streams": "Streams refused because too many were open on their connection",
}
WORDS = {  # name: labels (a word of several has tabs between them), help
    "geo_levels": (["level"], "Region orders by what found the first region"),
    "geo_unknown": (["reason"], "Clients whose place is not known, by reason"),
    "tls_handshakes": (["result"], "TLS handshakes with clients by how they ended"),
    "tls_connections": (["version"], "Client connections over TLS by version"),
    "http2_connection_errors": (["reason"], "HTTP/2 connections that ended for a fault or a flood, by reason"),
    "http2_stream_errors": (["reason"], "Streams that were reset because of their client, by reason"),
    "proxy_header_errors": (["reason"], "Connections that ended for a PROXY header that was wrong or late, by reason"),
    "app_requests": (["app"], "Requests that an application was asked"),
    "app_faults": (["app", "fault"], "What applications did wrong, by kind"),
    "app_blocked_ms": (["app"], "Milliseconds for which an application let nothing else run in its worker"),
    "app_own": (["app", "name"], "Counters that applications keep themselves"),
}

Extra = Callable[[], Iterable[tuple[str, str, dict[str, str], float]]]  # name, help, labels, value
Rows = Sequence[tuple[Labels, Meter]]
Buckets = tuple[Sequence[float], Sequence[float]]  # upper bounds: to a first byte, to the end
USUAL: Buckets = (LATENCY_BOUNDS_S, LATENCY_BOUNDS_S)


def content_type(accept: str) -> str:
    """OpenMetrics for whoever asks for it, as Prometheus does; else the older text."""
    return OPEN_TYPE if "application/openmetrics-text" in accept else CONTENT_TYPE


def exposition(totals: Totals, extra: Extra, wanted: str = CONTENT_TYPE, buckets: Buckets = USUAL) -> bytes:
    """The whole text of `/metrics`. `extra` gives gauges, and counters by their `_total`, that workers do not count."""
    return "".join(families(totals, extra, wanted, buckets)).encode()


def families(totals: Totals, extra: Extra, wanted: str, buckets: Buckets = USUAL) -> Iterator[str]:
    """The text of `exposition`, one metric family at a time."""
    newer = wanted == OPEN_TYPE
    yield from _counted(totals, newer, buckets)
    for name, help_text in COUNTERS.items():
        yield counter(f"edge_{name}", help_text, [((), totals.counters.get(name, 0))], newer)
    for name, (labels, help_text) in WORDS.items():
        words = totals.words.get(name, {}).items()
        rows = [(tuple(zip(labels, word.split("\t"), strict=True)), count) for word, count in words]
        yield counter(f"edge_{name}", help_text, rows, newer)
    yield gauge("edge_connections", "Open client connections", [((), totals.gauge("connections"))])
    flying = [((("pool", pool), ("backend", name)), totals.in_flight(pool, name)) for pool, name in totals.backends]
    yield gauge("edge_backend_in_flight", "Requests that are at a backend now", flying)
    for name, value in sorted(totals.store().items()):
        if name.endswith(MS):  # metrics are in base units
            name, value = f"{name.removesuffix(MS)}_seconds", value / 1000
        yield gauge(f"edge_store_{name}", store_help.of_workers(name), [((), value)])
    yield from _others(extra, newer)
    if newer:
        yield END


def _counted(totals: Totals, newer: bool, buckets: Buckets) -> Iterator[str]:
    """What requests, backends and regions counted."""
    routes: Rows = [((("route", name),), meter) for name, meter in totals.routes.items()]
    backends: Rows = [((("pool", pool), ("backend", name)), meter) for (pool, name), meter in totals.backends.items()]
    regions: Rows = [((("region", name),), meter) for name, meter in totals.regions.items()]
    yield from _requests("edge", routes, newer)
    for name, label in (("verdicts", "verdict"), ("reasons", "reason")):
        yield counter(f"edge_cache_{name}", HELP[name], _by_word(routes, name, label), newer)
    for name in ROUTE_NUMBERS:
        yield _number("edge", name, routes, newer)
    first_byte, total = buckets
    yield _latency("edge_latency_seconds", "latency", routes, total)
    yield _latency("edge_first_byte_seconds", "first_byte", routes, first_byte)
    yield from _requests("edge_backend", backends, newer)
    for name in BACKEND_NUMBERS:
        yield _number("edge_backend", name, backends, newer)
    yield _latency("edge_backend_latency_seconds", "latency", backends, first_byte)
    yield from _requests("edge_region", regions, newer)
    spoken = [((("protocol", version), ("tls", tls)), count) for version, tls, count in totals.protocols()]
    yield counter("edge_protocol_requests", HELP["protocols"], spoken, newer)


def _requests(prefix: str, rows: Rows, newer: bool) -> Iterator[str]:
    yield _number(prefix, "requests", rows, newer)
    status = [
        ((*labels, ("class", f"{at}xx" if at else "aborted")), count)
        for labels, meter in rows
        for at, count in enumerate(meter.status)
        if count
    ]
    yield counter(f"{prefix}_responses", HELP["status"], status, newer)
    yield counter(f"{prefix}_errors", HELP["errors"], _by_word(rows, "errors", "error"), newer)


def _by_word(rows: Rows, name: str, label: str) -> list[Row]:
    return [((*labels, (label, word)), count) for labels, meter in rows for word, count in getattr(meter, name).items()]


def _number(prefix: str, name: str, rows: Rows, newer: bool) -> str:
    return counter(f"{prefix}_{name}", HELP[name], [(labels, getattr(meter, name)) for labels, meter in rows], newer)


def _latency(name: str, which: str, rows: Rows, bounds: Sequence[float]) -> str:
    found = []
    for labels, meter in rows:
        each: Histogram = getattr(meter, which)
        found.append((labels, each.counts_in(bounds), each.total_s))
    return histogram(name, HELP[which], bounds, found)


def _others(extra: Extra, newer: bool) -> Iterator[str]:
    found: dict[str, tuple[str, list[Row]]] = {}
    for name, help_text, labels, value in extra():
        found.setdefault(name, (help_text, []))[1].append((tuple(labels.items()), value))
    for name, (help_text, rows) in found.items():
        if name.endswith("_total"):
            yield counter(name.removesuffix("_total"), help_text, rows, newer)
        else:
            yield gauge(name, help_text, rows)

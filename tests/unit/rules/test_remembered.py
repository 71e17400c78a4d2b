"""What rules remember of values that clients and origins choose: bounded in bytes, however long the values are."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edge.adapters.otlp import WAITING, OtlpSink
from edge.cache.rules import Rules
from edge.dataplane.caching.ranges import RangeRule
from edge.dataplane.client.leaving import Progress
from edge.dataplane.core.route import Route
from edge.dataplane.rules.bandwidth import Bandwidth
from edge.dataplane.rules.coded import CodedForms
from edge.dataplane.rules.compression import Compression
from edge.dataplane.rules.headers import HeaderEdit
from edge.dataplane.rules.limits import RateLimit
from edge.dataplane.rules.locations import Locations
from edge.http.message import Fields
from edge.spans import Span, SpanCounts

MOST_BYTES = 12 * 1024 * 1024
TIMES = 6000
LONG = 8000
Use = Callable[[bytes], object]


def asked(value: bytes) -> Any:
    fields = Fields([(b"X-Key", value), (b"Cookie", b"k=" + value)])
    return SimpleNamespace(block=SimpleNamespace(fields=fields), client_text=lambda: "192.0.2.1")


def compression() -> Compression:
    return Compression(("gzip",), ("text/*",), 0, None)


def fits() -> Use:
    rule = compression()
    return lambda value: rule.suits(200, Fields([(b"Content-Type", b"text/" + value)]), None)


def coded() -> Use:
    forms = CodedForms(compression())
    exchange = SimpleNamespace(worker=SimpleNamespace(store=SimpleNamespace()), block=SimpleNamespace(fields=Fields()))
    exchange.is_http11 = True

    def use(value: bytes) -> object:
        head = SimpleNamespace(fields=Fields([(b"Content-Type", b"image/png")]))
        stored = SimpleNamespace(key=value, vary=(), received_at=1.0, head=head, status=200, length=9)
        return forms.represent(exchange, cast(Any, stored), lambda found: None)

    return use


def avoided() -> Use:
    rule = RangeRule(Route("r", b"*", b"/", cast(Any, None)), Rules())
    return lambda value: rule.avoid(value, 1.0)


def paced(by: str) -> Use:
    rule = Bandwidth(1000, 0, by)
    return lambda value: rule._bucket(asked(value), 1.0)


def limited(by: str) -> Use:
    rule = RateLimit("1/s", 1.0, 1_000_000, by, 64)
    rule.count_for_others()

    def use(value: bytes) -> None:
        exchange = asked(value)
        rule.apply(exchange)

    return use


def twice(use: Use) -> Use:
    """Of what some only remember when it comes again."""

    def both(value: bytes) -> None:
        use(value)
        use(value)

    return both


def kept() -> Use:
    edit = HeaderEdit({}, {}, ("server",))
    return twice(lambda value: edit.kept(b"X-A: %b\r\n" % value))


def dressed() -> Use:
    edit = HeaderEdit({"X-B": "1"}, {}, ("server",))
    return twice(lambda value: edit.dressed(b"HTTP/1.1 200 OK\r\nX-A: %b\r\n" % value))


def mapped() -> Use:
    rule = Locations("/a", None, True)
    return lambda value: rule.head(None, b"HTTP/1.1 200 OK\r\nX-A: %b\r\n" % value)


USES: dict[str, Callable[[], Use]] = {
    "Accept-Encoding": lambda: compression().choose,
    "Content-Type": fits,
    "stored that stay as they are": coded,
    "not sliced": avoided,
    "bandwidth by a field": lambda: paced("header:x-key"),
    "bandwidth by a cookie": lambda: paced("cookie:k"),
    "limits of a fleet by a field": lambda: limited("header:x-key"),
    "limits of a fleet by a cookie": lambda: limited("cookie:k"),
    "lines that a rule removes": kept,
    "heads that a rule changes": dressed,
    "heads without a place": mapped,
}


@pytest.mark.parametrize("name", USES)
def test_long_values_do_not_add_up(name: str) -> None:
    use = USES[name]()
    tracemalloc.start()
    try:
        for number in range(TIMES):
            use(b"%d%b" % (number, b"x" * LONG))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < MOST_BYTES


def test_long_values_are_told_apart() -> None:
    """Who differs in the last byte alone has a bucket of its own."""
    rule = Bandwidth(1000, 0, "header:x-key")
    one, other = (rule._bucket(asked(b"x" * LONG + end), 1.0) for end in (b"1", b"2"))
    assert one is not other and one is rule._bucket(asked(b"x" * LONG + b"1"), 1.0)


class Processor:
    """Holds what is given, as a collector does that does not answer."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def on_end(self, span: Any) -> None:
        self.spans.append(span)

    def shutdown(self) -> None:
        pass


def test_spans_that_wait_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody's requests may be traced, with whatever URL and agent."""
    monkeypatch.setattr("edge.adapters.otlp.BatchSpanProcessor", lambda *_, **__: Processor())
    counts = SpanCounts()
    sink = OtlpSink("http://127.0.0.1:9", counts, lambda kind, text: None)
    tracemalloc.start()
    try:
        for number in range(WAITING):
            agent, path = f"{number}\ufffd" + "é" * LONG, f"/{number}" + "x" * LONG
            sink.give(Span("GET /", True, 1, 2, 0, "", 1, 2, {"url.path": path, "user_agent.original": agent}))
        held, _ = tracemalloc.get_traced_memory()
        assert held < MOST_BYTES
        assert counts.dropped
        waiting = cast(Any, sink._processor).spans
        monkeypatch.setattr(sink._exporter._inner, "export", lambda spans: None)
        sink._exporter.export(waiting)
        before = counts.dropped
        sink.give(Span("GET /", True, 1, 2, 0, "", 1, 2, {"url.path": "/"}))
        assert counts.dropped == before  # there is room again
    finally:
        tracemalloc.stop()


def test_who_has_everything_is_not_slow() -> None:
    """A response that waits for its bandwidth has nothing unsent; what goes out later has its time from then on."""
    progress = Progress(0, 0.0, 30.0)
    assert not progress.stalled(0, 20.0)
    assert not progress.stalled(0, 40.0)
    assert not progress.stalled(500, 45.0)
    assert not progress.stalled(500, 69.0)
    assert progress.stalled(500, 70.0)

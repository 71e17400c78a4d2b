"""Spans to a collector, by OTLP over HTTP: OpenTelemetry's own batches, thread and exporter (the extra `otel`).

    give ─► bounded queue ─► the library's thread ─► POST …/v1/traces ─► sent, or failed

One rule: nothing here holds a request up. Who gives a span adds it to a queue; when as many wait as may, it is dropped
and counted. What cannot be delivered is told once, until something is delivered again.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from threading import Thread

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from edge import __version__
from edge.spans import Span, SpanCounts

WAITING = 4096  # spans, the batch that is being sent included
WAITING_BYTES = 8 * 1024 * 1024  # the same: clients choose how long URLs and agents are
BATCH = 512
SPAN_BYTES, PAIR_BYTES = 1024, 512  # of a span without its texts; of a pair of a tracestate at its longest
EVERY_MS = 1000
POST_S = 5.0  # one batch, its repetitions included
SETTLE_S = 2.0

logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
logging.getLogger("opentelemetry").propagate = False  # failures are counted and told here
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SCOPE = InstrumentationScope("edge", __version__)


class OtlpSink:
    """Sends spans to a collector (`spans.SpanSink`)."""

    def __init__(self, url: str, counts: SpanCounts, tell: Callable[[str, str], None]) -> None:
        self._counts = counts
        self._exporter = Counted(OTLPSpanExporter(url, timeout=POST_S), url, counts, tell)
        self._processor = BatchSpanProcessor(
            self._exporter, max_queue_size=WAITING, schedule_delay_millis=EVERY_MS, max_export_batch_size=BATCH
        )
        service = os.environ.get("OTEL_SERVICE_NAME", "edge")
        instance = f"{socket.gethostname()}:{os.getpid()}"
        self._resource = Resource.create(
            {"service.name": service, "service.version": __version__, "service.instance.id": instance}
        )
        self._given = self._given_bytes = 0
        self._closing: Thread | None = None

    def give(self, span: Span) -> None:
        """Queue a span that has ended."""
        waiting = self._given - self._exporter.done
        full = waiting >= WAITING or self._given_bytes - self._exporter.done_bytes >= WAITING_BYTES
        if full or self._closing is not None:
            self._counts.dropped += 1
            return
        readable = self._readable(span)
        self._given += 1
        self._given_bytes += size_of(readable)
        self._processor.on_end(readable)

    def _readable(self, span: Span) -> ReadableSpan:
        state = TraceState.from_header([span.state]) if span.state else None
        parent = SpanContext(span.trace_id, span.parent_id, span.of_client, _SAMPLED, state) if span.parent_id else None
        return ReadableSpan(
            name=span.name,
            context=SpanContext(span.trace_id, span.span_id, False, _SAMPLED, state),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            kind=SpanKind.SERVER if span.of_client else SpanKind.CLIENT,
            status=Status(StatusCode.ERROR if span.failed else StatusCode.UNSET),
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=_SCOPE,
        )

    def close(self) -> None:
        """Accept no more spans; a daemon thread sends those that wait."""
        if self._closing is None:
            self._closing = Thread(target=self._processor.shutdown, name="spans-end", daemon=True)
            self._closing.start()

    def settle(self) -> None:
        """Wait for that thread, within bounds."""
        if self._closing is not None:
            self._closing.join(SETTLE_S)


def size_of(span: ReadableSpan) -> int:
    """About how many bytes a span takes that waits."""
    texts = sum(len(value) for value in (span.attributes or {}).values() if isinstance(value, str))
    context = span.get_span_context()
    state = context.trace_state if context is not None else ()
    return SPAN_BYTES + 2 * texts + PAIR_BYTES * len(state)


class Counted(SpanExporter):
    """The library's exporter, with its outcome counted."""

    def __init__(self, inner: OTLPSpanExporter, url: str, counts: SpanCounts, tell: Callable[[str, str], None]) -> None:
        self._inner = inner
        self._url = url
        self._counts = counts
        self._tell = tell
        self._works = True
        self.done = self.done_bytes = 0  # spans that wait no more

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch, in the library's thread."""
        result = self._inner.export(spans)
        self.done += len(spans)
        self.done_bytes += sum(map(size_of, spans))
        if result is SpanExportResult.SUCCESS:
            self._counts.sent += len(spans)
            self._works = True
            return result
        self._counts.failed += len(spans)
        if self._works:
            self._works = False
            self._tell("traces.failed", f"{self._url} does not take spans; edge_spans_lost counts them")
        return result

    def shutdown(self) -> None:
        """The last batch was sent, or has had its time."""
        self._inner.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing to do: nothing waits here."""
        return True

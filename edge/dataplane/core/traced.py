"""A request that is traced: its own span, and one span below it for each attempt at a backend.

One rule: a span is given once, when what it tells of has ended; an attempt may outlive its request, as a fill does.
"""

from __future__ import annotations

from random import getrandbits
from time import time_ns

from edge.balance.backend import Backend
from edge.errors import UpstreamError
from edge.http.trace_context import context_lines
from edge.spans import Span, SpanSink


def new_id() -> int:
    """A new span id."""
    return getrandbits(64) or 1


class Traced:
    """The spans of one traced request."""

    __slots__ = ("_sink", "method", "span")

    def __init__(self, sink: SpanSink, method: str, trace_id: int, parent_id: int, state: str) -> None:
        self._sink = sink
        self.method = method
        self.span = Span(method, True, trace_id, new_id(), parent_id, state, time_ns())

    def attempt(self, pool: str, backend: Backend, number: int) -> Attempt:
        """Start the span of an attempt at this backend."""
        own = self.span
        span = Span(self.method, False, own.trace_id, new_id(), own.span_id, own.state, time_ns())
        span.attributes = {
            "http.request.method": self.method,
            "server.address": backend.host,
            "server.port": backend.port,
            "edge.pool": pool,
            "edge.backend": backend.id,
            "edge.region": backend.region,
        }
        if number > 1:
            span.attributes["http.request.resend_count"] = number - 1
        return Attempt(self._sink, span, f"{backend.scheme}://{backend.authority.decode('latin-1')}")

    def end(self) -> None:
        """The request has ended: close its span."""
        self.span.end_ns = max(time_ns(), self.span.start_ns)
        self._sink.give(self.span)


class Attempt:
    """The span of one attempt at a backend."""

    __slots__ = ("_origin", "_sink", "_span")

    def __init__(self, sink: SpanSink, span: Span, origin: str) -> None:
        self._sink = sink
        self._span = span
        self._origin = origin

    def sent(self, target: bytes) -> bytes:
        """The request is being sent to this target; returns the field lines to add to it."""
        span = self._span
        span.attributes["url.full"] = self._origin + target.decode("latin-1")
        return context_lines(span.trace_id, span.span_id, span.state)

    def answered(self, status: int) -> None:
        """The response's head came."""
        self._span.attributes["http.response.status_code"] = status
        if status >= 400:
            self._fail(str(status))

    def failed(self, error: UpstreamError) -> None:
        """No head came, or the response broke off."""
        self._fail(error.proxy_status)

    def _fail(self, why: str) -> None:
        self._span.attributes["error.type"] = why
        self._span.failed = True

    def end(self) -> None:
        """The backend was given back: close the span."""
        self._span.end_ns = max(time_ns(), self._span.start_ns)
        self._sink.give(self._span)

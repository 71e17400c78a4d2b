"""W3C Trace Context: what `traceparent` and `tracestate` of a request say, and how they go on.

One rule: only a `traceparent` that the grammar proved is read (`RequestHeaders.trace`); any other is as if none came.
"""

from __future__ import annotations

from typing import NamedTuple

from edge.http.forwarding import OVERRIDES, request_lines
from edge.http.grammar import RequestHeaders
from edge.http.hopbyhop import dropped_names

SAMPLED = 0x01


class TraceContext(NamedTuple):
    """What a request's trace headers say: the span that asks, and whether it is sampled."""

    trace_id: int
    span_id: int
    sampled: bool
    state: bytes


def context_of(block: RequestHeaders) -> TraceContext | None:
    """Who asks, where the request tells it."""
    if not block.trace:
        return None
    _, trace_id, span_id, flags = block.fields.get_all(b"traceparent")[0].split(b"-", 4)[:4]
    named = dropped_names(block.fields) if b"connection" in block.fields else ()
    state = b"" if b"tracestate" in named else block.fields.joined(b"tracestate") or b""
    return TraceContext(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & SAMPLED), state)


def context_lines(trace_id: int, span_id: int, state: str) -> bytes:
    """The lines by which a sampled span tells whom it asks."""
    parent = b"traceparent: 00-%032x-%016x-01\r\n" % (trace_id, span_id)
    return parent + b"tracestate: %b\r\n" % state.encode("latin-1") if state else parent


def without_context(block: RequestHeaders) -> RequestHeaders:
    """The same request as if it told no trace, for a gateway that tells its own span instead."""
    found, dropped = block.alike(), dropped_names(block.fields)
    found.trace = False
    found.forward = found.guarded = request_lines(block.fields, dropped, False)
    if block.guarded is not block.forward:
        found.guarded = request_lines(block.fields, dropped, False, OVERRIDES)
    return found

"""What of a request's trace context goes on: not what its Connection names (RFC 9110 7.6.1)."""

from __future__ import annotations

import pytest

from edge.http.grammar import Limits, request_block
from edge.http.trace_context import context_of

TRACED = b"Host: a\r\ntraceparent: 00-%b-%b-01\r\ntracestate: x=1\r\n" % (b"a" * 32, b"b" * 16)


@pytest.mark.parametrize(
    ("line", "state"),
    [
        (b"", b"x=1"),
        (b"Connection: keep-alive\r\n", b"x=1"),
        (b"Connection: close, TraceState\r\n", b""),
        (b"Connection: traceparent\r\n", None),
    ],
)
def test_what_connection_names_ends_here(line: bytes, state: bytes | None) -> None:
    context = context_of(request_block(TRACED + line, Limits()))
    assert (None if context is None else context.state) == state

"""Which requests are traced, and what their spans tell, in OpenTelemetry's names for HTTP.

One rule: whether a request is traced is decided once, when it comes: by the span that asks, where that tells whether it
is sampled; else by chance. A request that is not traced costs no more than that question.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import random
from typing import TYPE_CHECKING

from edge.dataplane.core.traced import Traced
from edge.http.forwarding import DEFAULT_PORTS
from edge.http.grammar import RequestHeaders
from edge.http.trace_context import context_of, without_context
from edge.spans import SpanSink, Value

if TYPE_CHECKING:
    from edge.dataplane.core.downstream import Asking, Downstream
    from edge.dataplane.core.exchange import Exchange

KNOWN_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
VERSIONS = {b"HTTP/1.1": "1.1", b"HTTP/2.0": "2"}


class Tracing:
    """A worker's. `anyone`: each client's sampled flag counts, not only a trusted proxy's."""

    def __init__(self, sink: SpanSink, ratio: float, anyone: bool, chance: Callable[[], float] = random) -> None:
        self.sink = sink
        self._ratio = ratio
        self._anyone = anyone
        self._chance = chance
        self._picked = False  # the next request was decided on before it was begun

    def picks(self, downstream: Asking, block: RequestHeaders) -> bool:
        """Whether this request is traced, which could be answered without an exchange, and is begun next if so."""
        self._picked = self._decide(downstream, block)
        return self._picked

    def begin(self, exchange: Exchange) -> None:
        """The request begins, with a span where it is traced."""
        block, picked = exchange.block, self._picked
        self._picked = False
        if not picked and not self._decide(exchange.downstream, block):
            return
        method = exchange.method.decode("latin-1") if exchange.method in KNOWN_METHODS else "HTTP"
        context = context_of(block)
        if context is None:
            own = exchange.own_id()
            trace_id = int(own if own is not block.request_id else exchange.worker.next_id(), 16)
            traced = Traced(self.sink, method, trace_id, 0, "")
        else:
            exchange.block = without_context(block)
            traced = Traced(self.sink, method, context.trace_id, context.span_id, context.state.decode("latin-1"))
        exchange.traced = traced
        exchange.at_end(partial(finish, exchange, traced))

    def _decide(self, downstream: Asking | Downstream, block: RequestHeaders) -> bool:
        if block.trace and (self._anyone or downstream.trusted):
            context = context_of(block)
            return context is not None and context.sampled
        return self._chance() < self._ratio


def finish(exchange: Exchange, traced: Traced) -> None:
    """The request is over: tell what came of it."""
    span, route, status = traced.span, exchange.route, exchange.status
    span.attributes = {**_asked(exchange), **_answered(exchange)}
    if route is not None:
        path = route.path.decode("latin-1")
        span.name = f"{traced.method} {path}"
        span.attributes["http.route"] = path
        span.attributes["edge.route"] = route.name
    span.failed = status >= 500 or (bool(exchange.error) and exchange.begun and status < 400)
    if span.failed:
        span.attributes["error.type"] = exchange.error or str(status)
    traced.end()


def _asked(exchange: Exchange) -> dict[str, Value]:
    path, _, query = exchange.target.decode("latin-1").partition("?")
    agent, known = exchange.block.fields.joined(b"user-agent"), exchange.method in KNOWN_METHODS
    found: dict[str, Value] = {
        "http.request.method": exchange.method.decode("latin-1") if known else "_OTHER",
        "url.scheme": exchange.scheme.decode("latin-1"),
        "url.path": path,
        **_server(exchange),
        "client.address": exchange.client_text(),
        "network.peer.address": exchange.downstream.peer,
        "network.protocol.version": VERSIONS[exchange.version] if exchange.is_http11 else "1.0",
        "edge.request_id": exchange.own_id().decode("latin-1"),
    }
    if not known:
        found["http.request.method_original"] = exchange.method.decode("latin-1")
    if query:
        found["url.query"] = query
    if agent:
        found["user_agent.original"] = agent.decode("utf-8", "replace")
    return found


def _server(exchange: Exchange) -> dict[str, Value]:
    """What the client took for the server."""
    authority = ((exchange.told.host if exchange.told is not None else b"") or exchange.host or b"").decode("latin-1")
    name, colon, port = authority.rpartition(":")
    if not colon or not port.isdigit():
        name, port = authority, DEFAULT_PORTS[exchange.scheme].decode()
    return {"server.address": name.strip("[]"), "server.port": int(port)} if name else {}


def _answered(exchange: Exchange) -> dict[str, Value]:
    found: dict[str, Value] = {
        "http.response.body.size": exchange.bytes_out,
        "edge.verdict": exchange.verdict,
        "edge.attempts": exchange.attempts,
    }
    if exchange.status:  # none where the client left before
        found["http.response.status_code"] = exchange.status
    if exchange.upload is not None:
        found["http.request.body.size"] = exchange.upload.received
    if exchange.head_at:
        found["edge.first_byte_s"] = exchange.head_at - exchange.started_at
    for name, word in (("reason", exchange.reason), ("error", exchange.error), ("hedge", exchange.hedge)):
        if word:
            found[f"edge.{name}"] = word
    return found

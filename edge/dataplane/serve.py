"""The request path on one page:
admit → route → rules → lookup → collapse → select → attempt → store → deliver → finish.

Each stage is a plain function in the file named beside it; an `Exchange` is what they pass along. A stage that has to
wait returns, and a callback of the upstream or of the client takes the exchange further: there is no task per request.

    admit, route      here                      refused: 400 404 405 413 414 417 421 431 503
    rules             rules/                    3xx 401 403 429, or an answer of the route's own
    lookup, collapse  caching/fast_hit.py, caching/lookup.py    a hit ends here, with no wait in it
    select, attempt   upstream/fetch.py         502 503 504, or the next distinct backend
    store             caching/fill.py           tee to the store, settle the flight
    deliver, finish   core/exchange.py          head, body with backpressure; count, log
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

from edge.dataplane.caching.fast_hit import try_fast_hit
from edge.dataplane.caching.lookup import lookup
from edge.dataplane.caching.purging import obey
from edge.dataplane.core.certificate import covers
from edge.dataplane.core.context import WorkerContext
from edge.dataplane.core.downstream import Asking
from edge.dataplane.core.exchange import Exchange
from edge.dataplane.core.route import Route
from edge.dataplane.rules.answers import sent_to_https
from edge.dataplane.rules.challenge import answer_challenge
from edge.dataplane.rules.steps import run
from edge.dataplane.upstream.fetch import forward
from edge.dataplane.upstream.request_head import identify
from edge.errors import BadRequest, ClientError, MethodNotAllowed, NoBackend, TooLarge, outcome_of
from edge.http.grammar import RequestHeaders
from edge.http.host import absolute_target
from edge.http.request_line import RequestLine

# No tunnel to where a client wants (CONNECT), no echo of what proxies added (TRACE).
SLASH = 0x2F
NEVER_METHODS = (b"TRACE", b"CONNECT")
USUAL = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))  # no route refuses them unasked


class Client(Protocol):
    """The connection or stream that sent a request, before there is an exchange for it."""

    @property
    def worker(self) -> WorkerContext: ...
    @property
    def asked_by(self) -> tuple[bytes, ...]: ...
    @property
    def shown_names(self) -> frozenset[bytes] | None: ...
    def begin_exchange(self, method: bytes, target: bytes, is_http11: bool, block: RequestHeaders) -> Exchange: ...


class QuickClient(Client, Asking, Protocol):
    """A client connection that fast hits can be written to directly."""

    def last(self) -> Asking: ...  # the same, for the answer after which it closes


def serve(downstream: QuickClient, line: RequestLine, block: RequestHeaders) -> None:
    """Serve one HTTP/1 request with a valid head. Never raises: every error becomes an answer."""
    worker, route = downstream.worker, None
    method, target, is_http11 = line
    if block.quick and worker.quick and is_http11 and target[0] == SLASH:
        try:
            route = worker.router.get(block.host, target)
            if route is not None and method == b"GET":
                asking = downstream.last() if block.close else downstream
                if try_fast_hit(asking, route, target, block):
                    return
        except Exception as error:
            fail(downstream.begin_exchange(method, target, True, block), error)
            return
    serve_fully(downstream, method, target, is_http11, block, route)


def serve_fully(
    downstream: Client, method: bytes, target: bytes, is_http11: bool, block: RequestHeaders, route: Route | None
) -> None:
    """Serve one request, of any protocol, that no fast hit answered; `route` where it is known already."""
    exchange = downstream.begin_exchange(method, target, is_http11, block)
    worker = exchange.worker
    try:
        if worker.tracing is not None:
            worker.tracing.begin(exchange)
        unproven = (
            not block.plain or method not in USUAL or target[0] != SLASH or block.host is None or block.forwarding
        )
        if unproven or downstream.shown_names is not None or worker.stopping:  # else `admit` would find nothing
            admit(exchange)
        if worker.tokens and answer_challenge(exchange):
            return
        exchange.route = route = route or worker.router.find(exchange.host, exchange.target)
        if route.match is not None:
            exchange.route = route = worker.router.choose(exchange)
            exchange.apart = route.apart
        if worker.limits.https_port is not None and sent_to_https(exchange, worker.limits.https_port):
            return
        if b"%" in exchange.target:
            route.check_path(exchange.target)
        if not block.plain:
            limit(exchange, route)
        if method not in USUAL or route.refuses:
            route.check_asker(bool(downstream.asked_by))
            route.check_method(exchange.method, exchange.client_text())
            if exchange.method == b"PURGE" and route.rules is not None:
                obey(exchange)
                return
        if route.steps:
            run(exchange, route.steps, enter)
        elif route.rules is None:
            forward(exchange)  # as `enter` would: one call fewer for each request that is only passed on
        else:
            enter(exchange)
    except Exception as error:
        fail(exchange, error)


def fail(exchange: Exchange, error: Exception) -> None:
    """Answer an exception of a stage. Anything but an EdgeError is a bug: 500, counted, with its traceback logged."""
    exchange.fail(outcome_of(error, exchange.worker.report_bug))


def enter(exchange: Exchange) -> None:
    """Stage 4: look in the cache if the route has one and the response may be shared, else forward."""
    route, downstream = exchange.routed, exchange.downstream
    alone = downstream.bound is not None  # what it gets may be its own by its connection alone (`binding`)
    if route.rules is None or alone or downstream.worker.router.is_doubtful(route, exchange.host, exchange.target):
        forward(exchange)
    elif downstream.worker.holding is not None:
        downstream.worker.holding.wait(exchange, partial(lookup, exchange, route))
    else:
        lookup(exchange, route)


def admit(exchange: Exchange) -> None:
    """Stage 1: refuse what the head alone decides. Raises ClientError; such a request reaches no backend.

    The body's reader is made first: whatever is refused after that ends the connection unless the body was read to its
    end, so that no byte of it is ever taken for a request.
    """
    block = exchange.block
    if block.error is not None:
        exchange.keep = False  # how its body is framed is not known, or not believed
        raise block.error.error()
    if not block.plain and (block.length or block.chunked):
        if block.chunked and not exchange.is_http11:
            raise BadRequest("Transfer-Encoding in HTTP/1.0")
        exchange.upload = exchange.make_upload(block.length)
    worker = exchange.worker
    if worker.stopping:
        raise NoBackend("shutting down")
    target = exchange.target
    if target[0] != SLASH:
        _other_form(exchange, target)
    if exchange.host is None:
        if exchange.is_http11:
            raise BadRequest("missing Host")
        exchange.host = b""
    if block.forwarding:
        identify(exchange)
    names, downstream = exchange.downstream.shown_names, exchange.downstream
    if names is not None and exchange.host and not downstream.trusted and not covers(names, exchange.host):
        raise BadRequest("the certificate of this connection is not for this host", 421)
    if exchange.method in NEVER_METHODS:
        found = worker.router.get(exchange.host, exchange.target)
        raise MethodNotAllowed(found.allow if found is not None else b"")


def limit(exchange: Exchange, route: Route) -> None:
    """Refuse a declared body over the route's limit before a byte of it is read; a chunked one is counted as it comes.

    Also refuses, with 501, a protocol switch that the route does not allow and that the client could not do without.
    """
    if exchange.must_switch and not exchange.wants_upgrade:
        raise BadRequest("a protocol that is not tunnelled here", 501)
    if exchange.upload is not None:
        if (exchange.block.length or 0) > route.max_body:
            raise TooLarge("request body too large", 413)
        exchange.upload.limit = route.max_body


def _other_form(exchange: Exchange, target: bytes) -> None:
    """Absolute, asterisk and authority form (RFC 9112 3.2.2-3.2.4)."""
    if exchange.method == b"CONNECT":
        exchange.keep = False  # a client that speaks on as if in a tunnel sends no requests
        raise MethodNotAllowed
    if exchange.block.host is None and exchange.is_http11:
        raise BadRequest("missing Host")
    if target == b"*":
        if exchange.method != b"OPTIONS":
            raise BadRequest("asterisk form is for OPTIONS")
        return
    found = absolute_target(target)
    if found is None:
        raise BadRequest("malformed request target")
    exchange.host, exchange.target = found


def refuse(downstream: Client, error: ClientError) -> None:
    """Answer bytes that are not a valid request with the error, and end the connection."""
    exchange = downstream.begin_exchange(b"-", b"-", True, downstream.worker.no_block)
    exchange.keep = False
    exchange.fail(error)

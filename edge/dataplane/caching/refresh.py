"""Fetches that no client waits for: refreshing what was served stale, warming, prefetching.

One rule: such a fetch goes the same way as any other (`Fill`), from a client that is nobody: it takes whatever
comes and is never slow. At most one refresh runs for a stored response.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edge.cache.flights import Flight
from edge.cache.policy import Decision
from edge.cache.stored import Stored
from edge.cache.verdict import Action, Reason
from edge.dataplane.caching.fill import Fill
from edge.dataplane.caching.follower import Follower, FollowerCallbacks, LookupResult
from edge.dataplane.core.exchange import Exchange
from edge.http.grammar import RequestHeaders
from edge.http.message import RequestHead

if TYPE_CHECKING:
    from edge.balance.geo import ClientPlace
    from edge.dataplane.core.bound import Bound
    from edge.dataplane.core.certificate import ClientCertificate
    from edge.dataplane.core.context import WorkerContext
    from edge.dataplane.core.route import Route


class NullTransport:
    """A transport that discards what is written."""

    def write(self, data: bytes) -> None:
        """Discard it."""

    def writelines(self, pieces: Any) -> None:
        """Discard them."""

    def is_closing(self) -> bool:
        """Always False."""
        return False


class BackgroundClient:
    """Stands in for a client connection; `done` is called when the exchange ends."""

    def __init__(self, worker: WorkerContext, scheme: bytes, done: Callable[[Exchange], None] | None = None) -> None:
        self.worker = worker
        self.scheme = scheme
        self.transport = NullTransport()
        self.peer = "127.0.0.1"
        self.peer_bytes = b"127.0.0.1"
        self.paused = False
        self.asked_by: tuple[bytes, ...] = ()
        self.trusted = False
        self.place: ClientPlace | None = None
        self.bound: Bound | None = None
        self.certificate: ClientCertificate | None = None
        self.shown_names: frozenset[bytes] | None = None
        self.is_gone = True  # it holds no backend connection
        self.deadline = 0.0
        self.forward_lines = (b"", b"")
        self.key_host: bytes | None = None  # no fast hit has been here
        self.key_start = b""
        self.exchange: Exchange | None = None
        self.done = done

    def let_go(self) -> None:
        """Close a bound backend connection: no client will use it."""
        bound, self.bound = self.bound, None
        if bound is not None:
            bound.end()

    def exchange_ended(self, keep: bool) -> None:
        """The fetch is over."""
        exchange, self.exchange = self.exchange, None
        if self.done is not None and exchange is not None:
            self.done(exchange)

    def stop_reading(self, why: int = 0) -> None:
        """Nothing to do: the request is complete."""

    def start_reading(self, why: int = 0) -> None:
        """Nothing to do, as `stop_reading`."""

    def abort(self, reset: bool = False) -> None:
        """Nothing to do: there is no connection."""


def background(route: Route, request: RequestHead, block: RequestHeaders, nobody: BackgroundClient) -> Exchange:
    """An exchange for this request without a client."""
    exchange = Exchange(nobody, b"GET", request.target, True, block)  # type: ignore[arg-type]  # stands for a ClientConnection
    exchange.host = request.authority
    exchange.route = route
    exchange.counted = False
    nobody.exchange = exchange
    return exchange


def refresh(exchange: Exchange, request: RequestHead, stored: Stored) -> None:
    """Validate what was just served stale, once at a time, with the triggering request's fields (RFC 5861 3)."""
    worker = exchange.worker
    store = worker.store
    assert store is not None and exchange.key is not None
    mark = b"%b\n%b" % (exchange.key, stored.variant)
    if mark in store.refreshing:
        return
    store.refreshing.add(mark)
    nobody = BackgroundClient(worker, request.scheme, lambda _: store.refreshing.discard(mark))
    shadow = background(exchange.routed, request, exchange.block, nobody)
    shadow.key, shadow.host, shadow.told = exchange.key, exchange.host, exchange.told
    shadow.identity, shadow.apart, shadow.changes = exchange.identity, exchange.apart, exchange.changes
    shadow.granted = exchange.granted
    asked = LookupResult(replace(request, method=b"GET"), Decision(Action.REVALIDATE, Reason.STALE, stored), (stored,))
    shadow.follower = follower = Follower(shadow, asked, _ALONE, store.purge_log.now_seq())
    _fetch(follower, None)


def _fetch(follower: Follower, flight: Flight | None) -> None:
    Fill(follower, flight).start()


_ALONE = FollowerCallbacks(_fetch, lambda follower: _fetch(follower, None))  # it is in no flight that could take a turn

"""A hedge: a second attempt beside one that is silent. The first head wins, the other attempt is let go.

    sent ─► no byte for `retry.hedge`, and for 10 × what is usual there ─► another backend that is not silent ─► hedge
              ├─ the first one answers: the hedge is let go                       └─ it answers: the fetch takes it over
              └─ the first one fails: the fetch takes the hedge over                 it fails: the first one goes on

One rule: a hedge is an attempt like any other (take, give back, budget), for requests only that no server may act on
twice to any harm (GET and HEAD without a body). Who is silent is found on the worker's tick, never on a request; where
everybody is silent nobody is hedged, so that a slow day doubles no load.
"""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from edge.balance.backend import AttemptOutcome, Backend
from edge.balance.latency import Ewma
from edge.balance.retry import NoRetry
from edge.dataplane.upstream.request_head import request_head
from edge.dataplane.upstream.retries import why_not
from edge.errors import ResponseTimeout, UpstreamError
from edge.http.grammar import ResponseFacts
from edge.http.message import Line
from edge.http.proxy_protocol import ClientEnds
from edge.ports import Connection, Link

if TYPE_CHECKING:
    from edge.dataplane.core.route import Route
    from edge.dataplane.upstream.attempting import Attempting

PATIENCE = 10.0  # times what is usual at a backend
LEAST_S = 0.05  # a shorter hedge than this would be below the tick
HEDGED = frozenset((b"GET", b"HEAD"))
GATEWAY_FAILURES = frozenset((502, 503, 504))


def begin(fetch: Attempting, silent: tuple[Backend, ...], now: float) -> bool:
    """Begin a second attempt beside `silent`. False: only the retry budget forbids it now, so try again later."""
    backend, exchange, route = fetch.backend, fetch.exchange, fetch.route
    if (
        backend is None
        or fetch.beside is not None
        or route.retry.hedge <= 0
        or now - fetch.began_at < patience_s(route)
    ):
        return True
    if exchange.method not in HEDGED or exchange.upload is not None or exchange.wants_upgrade or exchange.block.binds:
        return True
    against = why_not(fetch, _silence(), now)
    if against is not None:
        return against is not NoRetry.BUDGET
    other = fetch.pool.select(exchange, (*fetch.tried, backend, *silent), now)
    if other is not None:
        fetch.beside = hedge = Hedge(fetch, other, fetch.attempts + fetch.hedges_lost + 1)
        exchange.attempts = hedge.number
        exchange.hedge = "lost"  # until it wins
        hedge.start()
    return True


def patience_s(route: Route) -> float:
    """How long a request of this route may be silent, so that routes that are always slow are not hedged."""
    return max(route.retry.hedge, PATIENCE * (route.usual.value or 0.0))


def _silence() -> ResponseTimeout:
    return ResponseTimeout("no byte of an answer while another backend gave one")


class Hedge:
    """The second attempt of a fetch; sink of its own connection until the fetch adopts it."""

    __slots__ = ("adopted", "backend", "began_at", "connection", "fetch", "link", "number", "over", "traced")

    def __init__(self, fetch: Attempting, backend: Backend, number: int) -> None:
        self.fetch = fetch
        self.backend = backend
        self.number = number  # which attempt of the fetch it is
        self.link: Link = fetch.pool.link(backend)
        self.connection: Connection | None = None
        self.began_at = monotonic()
        self.over = False
        self.adopted = False  # the fetch took it over while it connected
        traced = fetch.exchange.traced
        self.traced = None if traced is None else traced.attempt(fetch.pool.name, backend, number)

    def start(self) -> None:
        """Take the backend and send the request."""
        self.backend.take(self.began_at)
        self.fetch.pool.began(self.link, self.number)
        self.fetch.route.meter.attempts += 1
        self.fetch.route.meter.retries += 1
        connection = self.link.take(self)
        if connection is None:
            self.link.connect(self, self.fetch.route.timeouts.connect)
        else:
            self._send(connection)

    @property
    def client(self) -> ClientEnds:
        """The ends of the client's connection, for a PROXY header (`ports.Connector`)."""
        return self.fetch.client

    def on_connected(self, connection: Connection) -> None:
        """A new connection is established: send the request (`ports.Connector`)."""
        if self.adopted:
            self.fetch.on_connected(connection)
        elif self.over:
            connection.link.give_back(connection)
        else:
            self._send(connection)

    def _send(self, connection: Connection) -> None:
        fetch = self.fetch
        self.connection = connection
        self.began_at = monotonic()
        head = request_head(fetch.exchange, self.backend, fetch.lines, b"", self.traced)
        exchange = fetch.exchange
        bodiless = (exchange.fetched_as or exchange.method) == b"HEAD"
        connection.send(head, self, fetch.route.timeouts, bodiless, False)

    def drop(self, now: float, cancel: bool = True) -> None:
        """Cancel: free the backend at once."""
        self.over = True
        if cancel and self.connection is not None:
            self.connection.cancel()
        if self.traced is not None:
            self.traced.end()
        self.backend.give_back(now)
        self.fetch.pool.ended(self.number)

    # -- ports.ResponseSink: up to the head; the fetch is the sink of what follows ---------------------------------

    def on_interim(self, facts: ResponseFacts) -> None:
        """Ignored: the first attempt forwards interim responses, if any."""

    def on_head(self, facts: ResponseFacts, length: int | None, body: bytes, done: bool) -> None:
        """The hedge answers first: the fetch adopts it, unless it is a gateway failure."""
        now, fetch = monotonic(), self.fetch
        if facts.status in GATEWAY_FAILURES:
            if self.traced is not None:
                self.traced.answered(facts.status)
            self.link.meter.heads.append(facts.status)
            self._lose(now, cancel=not done)
            return
        backend = fetch.backend
        assert backend is not None
        # The very request was answered elsewhere meanwhile: this is the first one's failure.
        backend.observe(AttemptOutcome.GATEWAY_FAILURE, now - fetch.began_at, now)
        fetch.pool.failed(fetch.link, _silence())
        fetch.tried = (*fetch.tried, backend)
        fetch.let_go(now)
        fetch.adopt(self)
        fetch.on_head(facts, length, body, done)

    def on_data(self, data: bytes) -> None:
        raise AssertionError("a hedge has no body of its own")

    def on_end(self, trailers: list[Line]) -> None:
        raise AssertionError("a hedge has no body of its own")

    def on_failed(self, error: UpstreamError) -> None:
        """The hedge failed; the first attempt goes on."""
        if self.adopted:
            self.fetch.on_failed(error)
        elif not self.over:
            if self.traced is not None:
                self.traced.failed(error)
            if error.counts:
                self.fetch.pool.failed(self.link, error)
            self._lose(monotonic(), cancel=False)

    def silent(self, now: float) -> None:
        """The hedge is silent, too: drop it, so that another backend can be tried."""
        if self is self.fetch.beside and now - self.began_at >= patience_s(self.fetch.route):
            self.fetch.pool.failed(self.link, _silence())
            self._lose(now)

    def _lose(self, now: float, cancel: bool = True) -> None:
        fetch = self.fetch
        fetch.beside = None
        fetch.hedges_lost += 1
        fetch.tried = (*fetch.tried, self.backend)
        self.backend.observe(AttemptOutcome.GATEWAY_FAILURE, now - self.began_at, now)
        self.drop(now, cancel)

    def on_bug(self, error: Exception) -> None:
        """A callback raised: end the whole fetch."""
        self.fetch.on_bug(error)

    def on_pause(self) -> None:
        """Does not occur: a hedge has no request body."""

    def on_resume(self) -> None:
        """Does not occur: a hedge has no request body."""


class AnswerTimes:
    """How long a backend usually takes to answer, and when it last did; updated on the tick."""

    __slots__ = ("_usual", "heard_at", "suspected_at")

    def __init__(self) -> None:
        self._usual = Ewma()
        self.heard_at = self.suspected_at = -inf

    def heard(self, samples: list[float], now: float) -> None:
        """Learn from `samples`: how many seconds each of its answers since the last tick took."""
        self._usual.observe(sum(samples) / len(samples), now)
        self.heard_at = now

    @property
    def patience_s(self) -> float:
        """Seconds without a byte after which a request counts as unusually slow."""
        return max(LEAST_S, PATIENCE * (self._usual.value or 0.0))

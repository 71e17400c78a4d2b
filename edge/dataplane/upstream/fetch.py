"""The fetch machine: pick a backend, send, await the head; on failure the next distinct backend, within limits.

    pick ─► take ─► kept connection? ─yes─► send ─► head ─► data… ─► end ─► give back
      ▲                  └─no─► connect ─┘ │          │
      └── may it be repeated? ◄── failed ──┘          └─ 502/503/504 and another backend is there: as a failure
              └─ yes, but not within the retry budget now: as soon as it allows, a queue's timeout at most

One rule: each `take` of a backend is given back exactly once, on end, failure, or cancel. A fetch is separate from the
client's exchange: whoever receives the response (`Receiver`) may be a client or a fill that outlives it.
"""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from edge.balance.backend import SUCCESS, AttemptOutcome, Backend
from edge.dataplane.upstream.binding import bind, resume
from edge.dataplane.upstream.hedge import GATEWAY_FAILURES, Hedge
from edge.dataplane.upstream.request_head import client_lines, request_head
from edge.dataplane.upstream.retries import proceed, wait, why_not
from edge.errors import BadAnswer, ConnectionLost, EdgeError, NoBackend, Side, UpstreamError
from edge.http.grammar import ResponseFacts
from edge.http.message import Line
from edge.http.proxy_protocol import OWN, ClientEnds
from edge.ports import Connection, Link

if TYPE_CHECKING:
    from edge.dataplane.core.exchange import Exchange
    from edge.dataplane.core.traced import Attempt


# A 503 that says how long it holds, or that it may be stored, is what the origin has to say, not that it restarts.
_ON_PURPOSE = frozenset((b"retry-after", b"cache-control", b"expires", b"last-modified", b"etag"))
SETTLED_S = 2.0  # a body that has run for so long shows that its backend works, however it ends


class Receiver(Protocol):
    """Who gets the response of a fetch: as `ports.ResponseSink`, after the attempts that nobody needs to hear of."""

    def interim(self, facts: ResponseFacts) -> None: ...
    def head(self, facts: ResponseFacts, length: int | None, body: bytes, done: bool) -> None: ...
    def data(self, data: bytes) -> None: ...
    def end(self, trailers: list[Line]) -> None: ...
    def failed(self, error: EdgeError) -> None: ...


class Fetch:
    """One response to be had from a pool, over as many attempts as the rules allow.

    Defaults stand on the class, as in `Exchange`, but for those that each attempt asks for: an object's own are found
    ten times as fast (CPython 3.11).
    """

    backend: Backend | None = None
    link: Link  # the backend's, set with it
    attempts = 0
    queued_until = 0.0
    canceled = False
    head_passed = False
    _settles_at = 0.0  # a good head came at that time less `SETTLED_S`, and how its body ends will tell the rest
    rounds = 0  # how often all backends had failed and were waited for
    rounds_until = 0.0
    uncounted = 0  # refused connections of those rounds
    validates = False  # it asks about something that is stored
    patient = True  # False: what is stored stands in for a failure, so that nobody need wait for a return

    def __init__(self, exchange: Exchange, receiver: Receiver, lines: bytes) -> None:
        self.exchange = exchange  # whose request this is; it may have ended while a fill goes on
        self.receiver = receiver
        self.connection: Connection | None = None
        self.error: UpstreamError | None = None  # why another attempt is needed (`retries`)
        self.tried: tuple[Backend, ...] = ()
        self.fresh_only = False
        self.beside: Hedge | None = None  # a second attempt that is under way beside this one
        self.hedges_lost = 0
        self.traced: Attempt | None = None  # the attempt that is under way
        route = exchange.route
        assert route is not None  # `routed` would be a call for each request
        self.route = route
        self.pool = route.pool
        self.lines = lines
        self.began_at = exchange.started_at

    # -- attempts --------------------------------------------------------------------------------------------------

    def attempt(self) -> None:
        """Stages 5 and 6: select a backend and send, or queue, or give up."""
        pool = self.pool
        now = monotonic()
        if self.exchange.downstream.bound is not None and (held := resume(self, now)) is not None:
            self.use(held[0], now, held[1])
            return
        backend = pool.select(self.exchange, self.tried, now)
        if backend is None:
            if pool.full(self.exchange, self.tried, now):
                pool.enqueue(self, now)
            else:
                self.give_up(NoBackend("no backend available"))
            return
        self.use(backend, now)

    def use(self, backend: Backend, now: float, connection: Connection | None = None) -> None:
        """Begin an attempt at this backend, over `connection` or a pooled or new one."""
        backend.take(now)
        self.backend = backend
        self.attempts = attempts = self.attempts + 1
        self.link = link = self.pool.link(backend)
        exchange = self.exchange
        exchange.attempts = attempts + self.hedges_lost
        exchange.served_by = link.label
        if exchange.traced is not None:
            self.traced = exchange.traced.attempt(self.pool.name, backend, exchange.attempts)
        self.pool.began(link, attempts)
        self.route.meter.attempts += 1
        if attempts > 1:
            self.route.meter.retries += 1
        elif not exchange.counted:
            self.route.meter.own += 1
        if connection is None and not self.fresh_only:
            connection = link.take(self)
        if connection is None:
            link.connect(self, self.route.timeouts.connect)
        else:
            self._send(connection, backend, now)

    @property
    def client(self) -> ClientEnds:
        """The ends of the client's connection, for a PROXY header (`ports.Connector`)."""
        exchange = self.exchange
        return exchange.downstream.client_ends(exchange.client_text()) if exchange.counted else OWN

    def on_connected(self, connection: Connection) -> None:
        """A new connection is established: send the request (`ports.Connector`)."""
        if self.canceled or self.backend is None:
            connection.link.give_back(connection)
        else:
            self._send(connection, self.backend, monotonic())

    def _send(self, connection: Connection, backend: Backend, now: float) -> None:
        exchange = self.exchange
        upload = exchange.upload
        self.connection = connection
        self.began_at = now
        framing = b"" if upload is None else upload.framing
        head = request_head(exchange, backend, self.lines, framing, self.traced)
        upgrade = exchange.block.upgrade is not None and exchange.wants_upgrade
        connection.send(head, self, self.route.timeouts, (exchange.fetched_as or exchange.method) == b"HEAD", upgrade)
        if exchange.block.binds:
            bind(self, backend)
        if upload is not None:
            if exchange.block.expect:
                exchange.invite_body()
            upload.attach(connection)

    # -- ports.ResponseSink ----------------------------------------------------------------------------------------

    def on_interim(self, facts: ResponseFacts) -> None:
        """Pass a 1xx on; after that another attempt would repeat it, which is harmless (RFC 8297 3)."""
        self.receiver.interim(facts)

    def on_head(self, facts: ResponseFacts, length: int | None, body: bytes, done: bool) -> None:
        """The final head: pass it on, unless it is a gateway failure that another backend may answer better."""
        now = monotonic()
        backend = self.backend
        assert backend is not None
        if self.beside is not None:
            self.drop_hedge(now)
        if facts.binds:
            bind(self, backend)
        if self.traced is not None:
            self.traced.answered(facts.status)
        status, seconds, meter = facts.status, now - self.began_at, self.link.meter
        bad = status in GATEWAY_FAILURES
        if bad:
            backend.observe(AttemptOutcome.GATEWAY_FAILURE, seconds, now)
        elif done or status == 101:
            backend.observe(SUCCESS, seconds, now)
        else:
            backend.answered(seconds, now)
            self._settles_at = now + SETTLED_S
        meter.heads.append(status)
        meter.samples.append(seconds)
        self.route.waits.append(seconds)
        if bad and status in self.route.retry.statuses and self._asked_again(facts, backend, done, now):
            return
        self.head_passed = True
        if done:
            self.connection = None
            self._give_back(now)
        meter.origin_in += len(body)
        self.route.meter.origin_in += len(body)
        self.receiver.head(facts, length, body, done)

    def _asked_again(self, facts: ResponseFacts, backend: Backend, done: bool, now: float) -> bool:
        """After a gateway failure (502, 503, 504): try another backend, or this one later if it seems to restart."""
        error = BadAnswer("the backend answered with a gateway failure")
        if why_not(self, error, now) is not None:
            return False
        other = self.pool.select(self.exchange, (*self.tried, backend), now)
        if other is None:
            if facts.status != 503 or not _ON_PURPOSE.isdisjoint(facts.fields.names()) or not wait(self, error, now):
                return False
            self.let_go(now, cancel=not done)
            return True
        self.let_go(now, cancel=not done)
        self.tried = (*self.tried, backend)
        self.use(other, now)
        return True

    def on_data(self, data: bytes) -> None:
        """A piece of the body, for the receiver."""
        self.link.meter.origin_in += len(data)
        self.route.meter.origin_in += len(data)
        self.receiver.data(data)

    def on_end(self, trailers: list[Line]) -> None:
        """The response is complete: give the backend back."""
        now = monotonic()
        self.connection = None
        if self._settles_at:
            self.settle(now)
        self._give_back(now)
        self.receiver.end(trailers)

    def settle(self, now: float) -> None:
        """Count the attempt as a success: the body is complete, or has streamed long enough."""
        if self.backend is not None:
            self._settles_at = 0.0
            self.backend.succeeded(now)

    @property
    def settles(self) -> float:
        """When a streaming body counts as a success (monotonic); inf if none streams or it was counted."""
        return self._settles_at or inf

    def on_failed(self, error: UpstreamError) -> None:
        """The attempt failed: begin another one, or tell the receiver."""
        if self.canceled or self.backend is None:
            return
        now = monotonic()
        backend, connection = self.backend, self.connection
        if self.traced is not None:
            self.traced.failed(error)
        stale = isinstance(error, ConnectionLost) and connection is not None and connection.reused
        if not self.head_passed and not stale and error.counts:
            backend.observe(AttemptOutcome.GATEWAY_FAILURE, now - self.began_at, now)
            self.pool.failed(self.link, error)
        elif self.head_passed:
            if 0.0 < self._settles_at <= now:
                self.settle(now)
            if error.counts:  # a body that breaks off is a failure like one that never began
                backend.observe(AttemptOutcome.GATEWAY_FAILURE, now - self.began_at, now)
            self.pool.failed(self.link, error)
        self.let_go(now)
        if self.beside is not None:
            self.tried = (*self.tried, backend)
            self.adopt(self.beside)
            return
        if stale:  # the kept connection was closing while we sent: the same, on a new one
            self.fresh_only = True
            if why_not(self, error, now) is None:
                self.use(backend, now)
                return
        else:
            self.tried = (*self.tried, backend)
        proceed(self, error, now)

    # -- hedging (`hedge`) -----------------------------------------------------------------------------------------

    def drop_hedge(self, now: float) -> None:
        """Cancel the hedge, if there is one."""
        hedge, self.beside = self.beside, None
        if hedge is not None:
            self.hedges_lost += 1
            hedge.drop(now)

    def adopt(self, hedge: Hedge) -> None:
        """Replace the attempt with the hedge."""
        self.beside = None
        hedge.over = True
        self.backend, self.link, self.connection = hedge.backend, hedge.link, hedge.connection
        self.began_at, self.traced = hedge.began_at, hedge.traced
        self.attempts = hedge.number
        self.exchange.served_by = hedge.link.label
        self.exchange.hedge = "won"
        if hedge.connection is None:
            hedge.adopted = True
        elif hedge.connection.sink is hedge:
            hedge.connection.sink = self

    def on_bug(self, error: Exception) -> None:
        """A callback raised: end the exchange here, since no caller could."""
        self.exchange.worker.report_bug(error)
        self.canceled = True
        if self.backend is not None:
            self.let_go(monotonic())
        self.receiver.failed(EdgeError("internal error"))

    def on_pause(self) -> None:
        """The backend reads the request body slowly: stop the client."""
        if self.exchange.upload is not None:
            self.exchange.upload.stop()

    def on_resume(self) -> None:
        """The backend accepts more of the request body."""
        if self.exchange.upload is not None:
            self.exchange.upload.go()

    @property
    def state(self) -> str:
        """The attempt's state as a word for `edge connections`."""
        if self.connection is None:
            return "connecting"
        return "streaming" if self.head_passed else "waiting"

    # -- control ---------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """The receiver is slow: stop reading from the backend."""
        if self.connection is not None:
            self.connection.pause()

    def resume(self) -> None:
        """The receiver accepts more: read from the backend again."""
        if self.connection is not None:
            self.connection.resume()

    def cancel(self, error: EdgeError) -> None:
        """Nobody wants the response: free the backend at once, without counting a failure."""
        if self.canceled:
            return
        self.canceled = True
        self.pool.dequeue(self)
        self.drop_hedge(monotonic())
        if self.backend is not None:
            now = monotonic()
            if error.side is Side.CLIENT:
                self.backend.observe(AttemptOutcome.NEUTRAL, now - self.began_at, now)
            self.let_go(now)

    def tunnel_over(self) -> None:
        """The upgraded connection ended: give the backend back."""
        self.connection = None
        self._give_back(monotonic())

    def let_go(self, now: float, cancel: bool = True) -> None:
        """End the attempt: free its backend, and its connection unless that ended by itself."""
        connection, self.connection = self.connection, None
        if connection is not None and cancel:
            connection.cancel()
        if self.exchange.upload is not None:
            self.exchange.upload.detach()
        self._give_back(now)

    def _give_back(self, now: float) -> None:
        backend, self.backend = self.backend, None
        if self.traced is not None:
            self.traced.end()
            self.traced = None
        if backend is not None:
            backend.give_back(now)
            self.pool.ended(self.attempts)

    def give_up(self, error: UpstreamError) -> None:
        """No attempt is left: tell the receiver."""
        self.canceled = True
        self.receiver.failed(error)


def forward(exchange: Exchange) -> None:
    """Send a request to its pool without the cache."""
    route = exchange.route
    lines = exchange.block.forward if route is not None and route.rules is None else client_lines(exchange)
    exchange.fetch = fetch = Fetch(exchange, exchange, lines)
    fetch.attempt()

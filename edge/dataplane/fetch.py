"""The fetch machine: pick a backend, send, await the head; on failure the next distinct backend, within limits.

    pick ─► take ─► kept connection? ─yes─► send ─► head ─► data… ─► end ─► give back
      ▲                  └─no─► connect ─┘ │          │
      └── may it be repeated? ◄── failed ──┘          └─ 502/503/504 and another backend is there: as a failure

One rule: each `take` of a backend is given back exactly once, on end, failure, or cancel. A fetch is separate from the
client's exchange: whoever receives the response (`Receiver`) may be a client or a fill that outlives it.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Protocol

from edge.balance.backend import Backend, Outcome
from edge.balance.retry import Failed, may_retry
from edge.dataplane.outbound import request_head
from edge.errors import ConnectionLost, EdgeError, NoBackend, PoolFull, Side, UpstreamError
from edge.http.grammar import ResponseFacts
from edge.http.message import Line
from edge.ports import Connection, Link

if TYPE_CHECKING:
    from edge.dataplane.exchange import Exchange
    from edge.dataplane.pools import PoolRuntime


GATEWAY_FAILURES = frozenset((502, 503, 504))
_BAD_GATEWAY = ConnectionLost("the backend answered with a gateway failure")  # repeated under the same rules


class Receiver(Protocol):
    """Who gets the response of a fetch: as `ports.ResponseSink`, after the attempts that nobody needs to hear of."""

    def interim(self, facts: ResponseFacts) -> None: ...
    def head(self, facts: ResponseFacts, length: int | None, body: bytes, done: bool) -> None: ...
    def data(self, data: bytes) -> None: ...
    def end(self, trailers: list[Line]) -> None: ...
    def failed(self, error: UpstreamError) -> None: ...


class Fetch:
    """One response to be had from a pool, over as many attempts as the rules allow.

    Defaults stand on the class, as in `Exchange`: a first attempt that succeeds sets only a few.
    """

    backend: Backend | None = None
    link: Link = None  # type: ignore[assignment]  # the backend's, set with it
    connection: Connection | None = None
    attempts = 0
    queued_until = 0.0
    _tried: tuple[Backend, ...] = ()
    _canceled = False
    _head_passed = False
    _fresh_only = False

    def __init__(self, exchange: Exchange, receiver: Receiver, lines: bytes) -> None:
        self.exchange = exchange  # whose request this is; it may have ended while a fill goes on
        self.receiver = receiver
        self.route = route = exchange.routed
        self.pool: PoolRuntime = route.pool
        self._lines = lines
        self._began_at = exchange.started_at

    # -- attempts --------------------------------------------------------------------------------------------------

    def attempt(self) -> None:
        """Stages 5 and 6: select a backend and send, or queue, or give up."""
        pool = self.pool
        now = monotonic()
        backend = pool.select(self.exchange, self._tried, now)
        if backend is None:
            if pool.full(self.exchange, self._tried, now):
                pool.enqueue(self, now)
            else:
                self._give_up(NoBackend("no backend available"))
            return
        self._use(backend, now)

    def _use(self, backend: Backend, now: float) -> None:
        backend.take(now)
        self.backend = backend
        self.attempts += 1
        self.link = link = self.pool.link(backend)
        exchange = self.exchange
        exchange.attempts = self.attempts
        exchange.served_by = link.label
        self.pool.began(link, self.attempts)
        connection = None if self._fresh_only else link.take()
        if connection is None:
            link.connect(self, self.route.timeouts.connect)
        else:
            self._send(connection, backend)

    def on_connected(self, connection: Connection) -> None:
        """A new connection is there (`ports.Connector`)."""
        if self._canceled or self.backend is None:
            connection.link.give_back(connection)
        else:
            self._send(connection, self.backend)

    def _send(self, connection: Connection, backend: Backend) -> None:
        exchange = self.exchange
        upload = exchange.upload
        self.connection = connection
        self._began_at = monotonic()
        framing = b"" if upload is None else upload.framing
        head = request_head(exchange, backend, self._lines, framing)
        upgrade = exchange.block.upgrade is not None and exchange.wants_upgrade
        connection.send(head, self, self.route.timeouts, exchange.method == b"HEAD", upgrade)
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
        status, seconds, meter = facts.status, now - self._began_at, self.link.meter
        bad = status in GATEWAY_FAILURES
        backend.observe(Outcome.GATEWAY_FAILURE if bad else Outcome.SUCCESS, seconds, now)
        meter.requests += 1
        meter.status[status // 100 if status < 600 else 0] += 1
        meter.samples.append(seconds)
        if bad and status in self.route.retry.statuses and self._may_repeat(_BAD_GATEWAY, now):
            other = self.pool.select(self.exchange, (*self._tried, backend), now)
            if other is not None:
                self._let_go(now, cancel=not done)
                self._tried = (*self._tried, backend)
                self._use(other, now)
                return
        self._head_passed = True
        if done:
            self.connection = None
            self._give_back(now)
        meter.origin_in += len(body)
        self.receiver.head(facts, length, body, done)

    def on_data(self, data: bytes) -> None:
        """Body bytes."""
        self.link.meter.origin_in += len(data)
        self.receiver.data(data)

    def on_end(self, trailers: list[Line]) -> None:
        """The response is whole."""
        self.connection = None
        self._give_back(monotonic())
        self.receiver.end(trailers)

    def on_failed(self, error: UpstreamError) -> None:
        """The attempt failed: another one, or the receiver hears of it."""
        if self._canceled or self.backend is None:
            return
        now = monotonic()
        backend, connection = self.backend, self.connection
        stale = isinstance(error, ConnectionLost) and connection is not None and connection.reused
        if not self._head_passed and not stale and error.counts:
            backend.observe(Outcome.GATEWAY_FAILURE, now - self._began_at, now)
            self.pool.failed(self.link, error)
        elif self._head_passed:
            self.pool.failed(self.link, error)
        self._let_go(now)
        if not self._may_repeat(error, now):
            self._give_up(error)
            return
        if stale:  # the kept connection was closing while we sent: the same backend, on a new connection
            self._fresh_only = True
            self._use(backend, now)
            return
        self._tried = (*self._tried, backend)
        other = self.pool.select(self.exchange, self._tried, now)
        if other is None:
            self._give_up(error)
        else:
            self._use(other, now)

    def on_pause(self) -> None:
        """The backend takes no more of the body."""
        if self.exchange.upload is not None:
            self.exchange.upload.stop()

    def on_resume(self) -> None:
        """It takes more."""
        if self.exchange.upload is not None:
            self.exchange.upload.go()

    # -- control ---------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Whoever receives is slow."""
        if self.connection is not None:
            self.connection.pause()

    def resume(self) -> None:
        """It takes more."""
        if self.connection is not None:
            self.connection.resume()

    def cancel(self, error: EdgeError) -> None:
        """Nobody wants the response: the backend is free at once, and it is not its fault."""
        if self._canceled:
            return
        self._canceled = True
        self.pool.dequeue(self)
        if self.backend is not None:
            now = monotonic()
            if error.side is Side.CLIENT:
                self.backend.observe(Outcome.NEUTRAL, now - self._began_at, now)
            self._let_go(now)

    def tunnel_over(self) -> None:
        """The upgraded connection ended."""
        self.connection = None
        self._give_back(monotonic())

    def queue_expired(self) -> None:
        """The wait for a free backend ran out."""
        self._give_up(PoolFull("no backend free in time"))

    def _may_repeat(self, error: UpstreamError, now: float) -> bool:
        """Whether another attempt is allowed: method, body, count, deadline, budget (SEMANTICS §3)."""
        exchange, retry, upload = self.exchange, self.route.retry, self.exchange.upload
        failed = Failed(
            error,
            exchange.method,
            sent=True,  # as far as is known; an error of connecting says by itself that nothing was
            body_replayable=upload is None or upload.replayable,
            head_passed=self._head_passed,
            attempts=self.attempts,
            deadline=exchange.started_at + retry.deadline,
        )
        return may_retry(failed, retry.attempts, self.pool.budget, now) is None

    def _let_go(self, now: float, cancel: bool = True) -> None:
        connection, self.connection = self.connection, None
        if connection is not None and cancel:
            connection.cancel()
        if self.exchange.upload is not None:
            self.exchange.upload.detach()
        self._give_back(now)

    def _give_back(self, now: float) -> None:
        backend, self.backend = self.backend, None
        if backend is not None:
            backend.give_back(now)
            self.pool.ended(self.attempts)

    def _give_up(self, error: UpstreamError) -> None:
        self._canceled = True
        self.receiver.failed(error)


def forward(exchange: Exchange) -> None:
    """A request that the cache has no part in."""
    exchange.fetch = fetch = Fetch(exchange, exchange, exchange.block.forward)
    fetch.attempt()

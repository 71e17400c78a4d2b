"""The fetch machine: pick a backend, send, await the head; on failure the next distinct backend, within limits.

    pick ─► take ─► kept connection? ─yes─► send ─► head ─► data… ─► end ─► give back
      ▲                  └─no─► connect ─┘ │          │
      └── may it be repeated? ◄── failed ──┘          └─ 502/503/504 and another backend is there: as a failure
              └─ yes, but not within the retry budget now: as soon as it allows, a queue's timeout at most

One rule: each `take` of a backend is given back exactly once, on end, failure, or cancel. A fetch is separate from the
client's exchange: whoever receives the response (`Receiver`) may be a client or a fill that outlives it.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Protocol

from edge.balance.backend import Backend, Outcome
from edge.balance.retry import Failed, NoRetry, may_retry
from edge.dataplane.hedge import SAFE, Hedge
from edge.dataplane.outbound import request_head
from edge.errors import ConnectionLost, EdgeError, NoBackend, PoolFull, ResponseTimeout, Side, UpstreamError
from edge.http.grammar import ResponseFacts
from edge.http.message import Line
from edge.ports import Connection, Link

if TYPE_CHECKING:
    from edge.dataplane.exchange import Exchange
    from edge.dataplane.pools import PoolRuntime


GATEWAY_FAILURES = frozenset((502, 503, 504))
_BAD_GATEWAY = ConnectionLost("the backend answered with a gateway failure")  # repeated under the same rules
_SILENT = ResponseTimeout("no byte of an answer while another backend gave one")


class Receiver(Protocol):
    """Who gets the response of a fetch: as `ports.ResponseSink`, after the attempts that nobody needs to hear of."""

    def interim(self, facts: ResponseFacts) -> None: ...
    def head(self, facts: ResponseFacts, length: int | None, body: bytes, done: bool) -> None: ...
    def data(self, data: bytes) -> None: ...
    def end(self, trailers: list[Line]) -> None: ...
    def failed(self, error: EdgeError) -> None: ...


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
    _hedge: Hedge | None = None  # a second attempt that is under way beside this one
    _hedges_lost = 0
    _error: UpstreamError | None = None  # why a postponed attempt is needed

    def __init__(self, exchange: Exchange, receiver: Receiver, lines: bytes) -> None:
        self.exchange = exchange  # whose request this is; it may have ended while a fill goes on
        self.receiver = receiver
        self.route = route = exchange.routed
        self.pool: PoolRuntime = route.pool
        self.lines = lines
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
        self.attempts = attempts = self.attempts + 1
        self.link = link = self.pool.link(backend)
        exchange = self.exchange
        exchange.attempts = attempts
        exchange.served_by = link.label
        self.pool.began(link, attempts)
        self.route.meter.attempts += 1
        if attempts > 1:
            self.route.meter.retries += 1
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
        head = request_head(exchange, backend, self.lines, framing)
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
        if self._hedge is not None:
            self._drop_hedge(now)
        status, seconds, meter = facts.status, now - self._began_at, self.link.meter
        bad = status in GATEWAY_FAILURES
        backend.observe(Outcome.GATEWAY_FAILURE if bad else Outcome.SUCCESS, seconds, now)
        meter.requests += 1
        meter.status[status // 100 if status < 600 else 0] += 1
        meter.samples.append(seconds)
        if bad and status in self.route.retry.statuses and self._why_not(_BAD_GATEWAY, now) is None:
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
        self.route.meter.origin_in += len(body)
        self.receiver.head(facts, length, body, done)

    def on_data(self, data: bytes) -> None:
        """Body bytes."""
        self.link.meter.origin_in += len(data)
        self.route.meter.origin_in += len(data)
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
        if self._hedge is not None:
            self._tried = (*self._tried, backend)
            self._adopt(self._hedge)
            return
        self._fresh_only = self._fresh_only or stale
        why_not = self._why_not(error, now)
        if why_not is None and stale:  # the kept connection was closing while we sent: the same, on a new one
            self._use(backend, now)
            return
        if not stale:
            self._tried = (*self._tried, backend)
        self._error = error
        if why_not is None:
            self._elsewhere(now)
        elif why_not is not NoRetry.BUDGET or not self.pool.postpone(self, now):
            self._give_up(error)

    def _elsewhere(self, now: float) -> None:
        other = self.pool.select(self.exchange, self._tried, now)
        if other is None:
            self.expired()
        else:
            self._use(other, now)

    def again(self, now: float) -> None:
        """The retry budget allows the attempt that was postponed."""
        if not self._canceled:
            self._elsewhere(now)

    def expired(self) -> None:
        """No further attempt could be made in time."""
        if not self._canceled and self._error is not None:
            self._give_up(self._error)

    # -- hedging ---------------------------------------------------------------------------------------------------

    def hedge(self, silent: tuple[Backend, ...], now: float) -> bool:
        """The attempt is silent: begin another one beside it. False: only the retry budget forbids it for now."""
        backend, exchange, after_s = self.backend, self.exchange, self.route.retry.hedge
        if backend is None or self._hedge is not None or after_s <= 0 or now - self._began_at < after_s:
            return True
        if exchange.method not in SAFE or exchange.upload is not None or exchange.wants_upgrade:
            return True
        why_not = self._why_not(_SILENT, now)
        if why_not is not None:
            return why_not is not NoRetry.BUDGET
        other = self.pool.select(exchange, (*self._tried, backend, *silent), now)
        if other is not None:
            self._hedge = Hedge(self, other, self.attempts + self._hedges_lost + 1)
            self._hedge.start()
        return True

    def hedge_answered(self, hedge: Hedge, facts: ResponseFacts, length: int | None, body: bytes, done: bool) -> None:
        """The hedge has a head: take it over, unless it is a gateway failure, for the first attempt may do better."""
        now = monotonic()
        if facts.status in GATEWAY_FAILURES:
            hedge.link.meter.requests += 1
            hedge.link.meter.status[5] += 1
            self._lose(hedge, now, cancel=not done)
            return
        backend = self.backend
        assert backend is not None
        # The very request was answered elsewhere meanwhile: this is the first one's failure.
        backend.observe(Outcome.GATEWAY_FAILURE, now - self._began_at, now)
        self.pool.failed(self.link, _SILENT)
        self._tried = (*self._tried, backend)
        self._let_go(now)
        self._adopt(hedge)
        self.on_head(facts, length, body, done)

    def hedge_failed(self, hedge: Hedge, error: UpstreamError) -> None:
        """The hedge failed by itself: the first attempt goes on alone."""
        if error.counts:
            self.pool.failed(hedge.link, error)
        self._lose(hedge, monotonic(), cancel=False)

    def hedge_silent(self, hedge: Hedge, now: float) -> None:
        """The hedge is silent too: it makes room for another one."""
        if hedge is self._hedge and now - hedge.began_at >= self.route.retry.hedge:
            self.pool.failed(hedge.link, _SILENT)
            self._lose(hedge, now)

    def _lose(self, hedge: Hedge, now: float, cancel: bool = True) -> None:
        self._hedge = None
        self._hedges_lost += 1
        self._tried = (*self._tried, hedge.backend)
        hedge.backend.observe(Outcome.GATEWAY_FAILURE, now - hedge.began_at, now)
        hedge.drop(now, cancel)

    def _drop_hedge(self, now: float) -> None:
        hedge, self._hedge = self._hedge, None
        if hedge is not None:
            hedge.drop(now)

    def _adopt(self, hedge: Hedge) -> None:
        """The hedge is the attempt from now on."""
        self._hedge = None
        hedge.over = True
        self.backend, self.link, self.connection = hedge.backend, hedge.link, hedge.connection
        self._began_at = hedge.began_at
        self.attempts = self.exchange.attempts = hedge.number
        self.exchange.served_by = hedge.link.label
        if hedge.connection is None:
            hedge.adopted = True
        elif hedge.connection.sink is hedge:
            hedge.connection.sink = self

    def on_bug(self, error: Exception) -> None:
        """A callback let an exception out: the exchange ends here, for nobody is above it (DESIGN §8)."""
        self.exchange.worker.report_bug(error)
        self._canceled = True
        if self.backend is not None:
            self._let_go(monotonic())
        self.receiver.failed(EdgeError("internal error"))

    def on_pause(self) -> None:
        """The backend takes no more of the body."""
        if self.exchange.upload is not None:
            self.exchange.upload.stop()

    def on_resume(self) -> None:
        """It takes more."""
        if self.exchange.upload is not None:
            self.exchange.upload.go()

    @property
    def state(self) -> str:
        """Where the attempt stands, in a word for people."""
        if self.connection is None:
            return "connecting"
        return "streaming" if self._head_passed else "waiting"

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
        self._drop_hedge(monotonic())
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

    def _why_not(self, error: UpstreamError, now: float) -> NoRetry | None:
        """What stands against another attempt: method, body, count, deadline, budget (SEMANTICS §3)."""
        exchange, retry, upload = self.exchange, self.route.retry, self.exchange.upload
        failed = Failed(
            error,
            exchange.method,
            sent=True,  # as far as is known; an error of connecting says by itself that nothing was
            body_replayable=upload is None or upload.replayable,
            head_passed=self._head_passed,
            # A kept connection that was closing is no attempt: a region that dies with kept connections to each of its
            # backends would use them all up. It happens once, for after it only new connections are used.
            attempts=self.attempts + self._hedges_lost - self._fresh_only,
            deadline=exchange.started_at + retry.deadline,
        )
        return may_retry(failed, retry.attempts, self.pool.budget, now)

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

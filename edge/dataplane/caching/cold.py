"""A plain GET of which nothing is stored, as long as nobody else wants the same: without a fill or a follower.

    nobody joins, the head says "not stored"            the exchange takes the body, as in a plain forward
    nobody joins, stored, the body came with its head   stored and answered here
    somebody joins; the body comes in pieces; the head  becomes a fill, which goes on from there
      has to be judged with the request; it fails; a
      purge came between; it took a second or longer

One rule: it does nothing that a fill does not do as well, it only skips what cannot matter. With `Worker.cold` off the
same requests get the same answers, which tests hold.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from edge.cache.flights import Outcome, Why
from edge.cache.judged import Judged, judged
from edge.cache.key import cache_key
from edge.cache.policy import COLD
from edge.cache.verdict import Reason
from edge.dataplane.caching.fill import Fill
from edge.dataplane.caching.follower import Follower, FollowerCallbacks, LookupResult, request_of
from edge.dataplane.caching.tiers import consult
from edge.dataplane.upstream.fetch import Fetch
from edge.dataplane.upstream.request_head import client_lines
from edge.errors import EdgeError
from edge.http.cache_status import Forward, forwarded, line
from edge.http.grammar import BY_LENGTH, ResponseFacts
from edge.http.message import Line

if TYPE_CHECKING:
    from edge.cache.rules import Rules
    from edge.cache.stored import Stored
    from edge.dataplane.core.exchange import Exchange
    from edge.dataplane.core.store import Store

_AGED_S = 1.0  # an answer that took so long has another Age


def begun(
    exchange: Exchange, store: Store, rules: Rules, turns: FollowerCallbacks, again: Callable[[Exchange], None]
) -> bool:
    """Fetch what a plain GET (`RequestHeaders.quick`) asks for, if nothing is stored and nobody fetches it.

    False: by the full way. Also true where the disk has to be asked in a thread first, which then calls `again`.
    """
    route = exchange.route
    if exchange.method != b"GET" or exchange.told is not None or route is None or not exchange.worker.cold:
        return False
    if (
        exchange.apart
        or exchange.downstream.certificate
        or (route.outbound is not None and route.outbound.varying is not None)
    ):
        return False
    if rules.bypasses or rules.min_uses > 1 or route.prefetcher is not None:  # each has to see the request
        return False
    downstream, host = exchange.downstream, exchange.host
    if rules.plain_key and host is not None and downstream.key_host is host:  # as in `fast_hit`
        key = downstream.key_start + exchange.target
    else:
        key = cache_key(exchange.scheme, exchange.authority, exchange.target, rules, exchange.block.fields)
    exchange.key = key
    exchange.found = found = store.index.get(key)
    if found is None and store.disk is not None:
        if not consult(exchange, partial(again, exchange)):
            return True
        found = exchange.found
    if found is not None:
        return False
    may = store.flights.may_go(key, exchange.started_at)
    if may is False or (may is True and store.shared is not None and store.shared.usable):
        return False  # somebody may have it
    exchange.verdict = "miss"
    exchange.follower = cold = ColdFetch(exchange, store, rules, turns, None if may is True else may)
    if may is True:
        store.flights.go(key, cold)
    cold.fetch = fetch = Fetch(exchange, cold, client_lines(exchange))
    fetch.attempt()
    return True


class ColdFetch:
    """Receives the fetch (`fetch.Receiver`), and is the exchange's follower until the head comes."""

    __slots__ = ("_exchange", "_lone", "_requested_at", "_rules", "_seq", "_store", "_turns", "_why", "fetch")

    def __init__(
        self, exchange: Exchange, store: Store, rules: Rules, turns: FollowerCallbacks, why: Why | None
    ) -> None:
        self._exchange = exchange
        self._store = store
        self._rules = rules
        self._turns = turns
        self._why = why  # nobody may follow
        self._lone = why is None  # others may
        self._seq = store.index.purge_log.seq
        self._requested_at = store.clock()
        self.fetch: Fetch | None = None

    @property
    def _key(self) -> bytes:
        key = self._exchange.key
        assert key is not None  # set before this was made
        return key

    def _explain(self) -> None:
        """Why the origin is asked, where the head does not say more: worked out only when it is to be shown."""
        exchange = self._exchange
        absent = self._store.absence(self._key)
        exchange.cache_status = line(forwarded(Forward.URI_MISS, detail=absent))
        exchange.reason = absent if self._why is None else self._why.value

    def share(self) -> Fill:
        """Become a fill, so that other requests may follow."""
        exchange, key = self._exchange, self._key
        self._explain()
        follower = Follower(exchange, LookupResult(request_of(exchange), COLD), self._turns, self._seq)
        follower.flight_key = key
        exchange.follower = follower
        flight = self._store.flights.share(key, follower) if self._lone else None
        self._lone = False
        fill = Fill(follower, flight)
        if flight is not None:
            flight.since = self._seq
        fetch, self.fetch = self.fetch, None
        if fetch is not None:
            fill.adopt(fetch, self._seq, self._requested_at)
        return fill

    # -- fetch.Receiver --------------------------------------------------------------------------------------------

    def interim(self, facts: ResponseFacts) -> None:
        """Pass a 1xx on to the client."""
        self._exchange.interim(facts)

    def head(self, facts: ResponseFacts, length: int | None, body: bytes, done: bool) -> None:
        """The head came: forward plainly, store what came whole, or become a fill."""
        store, exchange = self._store, self._exchange
        now = store.clock()
        if now - self._requested_at < _AGED_S:
            found: Judged | None = facts.judged
            if found is None or found.rules is not self._rules:
                found = judged(facts, self._rules, now)
            if found.reason is not None:
                exchange.reason, exchange.cache_status = found.word, found.status_line
                exchange.follower = None
                if self._lone:
                    self._end(Outcome.TOO_LARGE if found.reason is Reason.SIZE else Outcome.UNCACHEABLE)
                fetch, self.fetch = self.fetch, None
                if fetch is not None and not done:
                    exchange.fetch = fetch
                    fetch.receiver = exchange
                exchange.head(facts, length, body, done)
                return
            stored = self._storable(found, facts, body, now) if done and body else None
            if stored is not None:
                absent = store.absence(stored.key)
                exchange.reason = absent if self._why is None else self._why.value
                exchange.cache_status = b"Cache-Status: edge; fwd=uri-miss; ttl=%d; stored; detail=%b\r\n" % (
                    (stored.fresh_until - now) // 1,
                    exchange.reason.encode(),
                )
                self._end(Outcome.STORED)
                self.fetch = None
                store.put(stored, self._seq, now)
                exchange.head(facts, length, body, True)
                return
        self.share().head(facts, length, body, done)

    def _storable(self, found: Judged, facts: ResponseFacts, body: bytes, now: float) -> Stored | None:
        """What to keep of a whole response, where neither purge nor tier nor budget has anything to say to it."""
        store, index = self._store, self._store.index
        count = len(body)
        if not found.storable or facts.framing is not BY_LENGTH or facts.length != count:
            return None
        if self._seq != index.purge_log.seq or index.peek(self._key) is not None:
            return None
        if (store.disk is not None and count > store.share) or not index.reserve(count, now):
            return None
        index.release(count)
        stored = found.stored(self._key, body, self._requested_at, now)
        return stored if store.disk is None or index.fits(stored) else None

    def _end(self, outcome: Outcome) -> None:
        """End the flight with this outcome; nobody had joined."""
        self._exchange.follower = None
        if self._lone:
            self._lone = False
            self._store.flights.end_lone(self._key, outcome, monotonic())
        elif outcome is Outcome.STORED:
            self._store.flights.forget(self._key)

    def data(self, data: bytes) -> None:
        """Never called: after the head the exchange or a fill receives the body."""
        raise AssertionError("a body piece before the head")

    def end(self, trailers: list[Line]) -> None:
        """Never called, as `data`."""
        raise AssertionError("an end before the head")

    def failed(self, error: EdgeError) -> None:
        """The fetch failed: become a fill, which may use something stored, or fail the exchange."""
        if self._exchange.follower is self:
            self.share().failed(error)
        else:  # a bug while the answer was written
            self._exchange.fail(error)

    # -- as the follower ------------------------------------------------------------------------------------------

    def resumed(self) -> None:
        """Nothing to do: nothing waits for the client before the head."""

    def leave(self, error: EdgeError) -> None:
        """The client left: cancel the fetch."""
        self._explain()
        self._end(Outcome.FAILED)
        fetch, self.fetch = self.fetch, None
        if fetch is not None:
            fetch.cancel(error)

"""Stage 7: one fetch whose response may be stored, and the clients that follow it.

    Follower (one per waiting client) pump ──┐
    Follower ──────────────────────── pump ──┤   chunks ◄── Fill ◄── Fetch
    Store ◄── put, when whole and storable ──┘

The body's pieces go into `chunks`; each follower has its place there and is served as fast as its client takes
(`pieces`). Where very many follow, they are told and served some at a time; who is still to be told is `due`.

One rule: what did not end whole is neither stored nor ended as if it were. The outcome table is `cache.flights`; what a
head makes of what is already stored is in `origin_outcome`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from edge.cache.flights import Flight, FlightMember, Outcome, Why
from edge.cache.freshness import Times
from edge.cache.key import key_of
from edge.cache.policy import is_for_all
from edge.cache.purge import PurgeState
from edge.cache.revalidate import for_one, offer_fields, request_fields, rest_fields
from edge.cache.stored import Plan, Stored
from edge.cache.storing import storing, tags
from edge.cache.verdict import Action, Failure, Reason, Verdict, forward, word
from edge.dataplane.caching.answering import serve_all, stands_in
from edge.dataplane.caching.follower import Follower
from edge.dataplane.caching.origin_outcome import (
    accepts,
    after_head,
    asks_rest,
    completed,
    displace,
    refused,
    stand_in,
    validated,
)
from edge.dataplane.caching.pieces import each, hold, pump, settle_soon
from edge.dataplane.caching.response_start import ResponseStart, passed_on, shared
from edge.dataplane.caching.spilling import finish, give_up, kept, put, reserve, unreserve
from edge.dataplane.upstream.fetch import Fetch
from edge.dataplane.upstream.hedge import GATEWAY_FAILURES
from edge.dataplane.upstream.request_head import client_lines
from edge.errors import EdgeError, NoBackend
from edge.http.cache_status import forwarded, line
from edge.http.grammar import ResponseFacts
from edge.http.message import Fields, Line, RequestHead, ResponseHead
from edge.ports import Spill

if TYPE_CHECKING:
    from edge.dataplane.core.store import Store

ERRORS = GATEWAY_FAILURES | {500}


def _from_store() -> EdgeError:
    return EdgeError("answered from store")


class Fill:
    """A fetch whose response is for the store and for its followers (`fetch.Receiver`)."""

    def __init__(self, first: Follower, flight: Flight | None) -> None:
        exchange = first.exchange
        assert exchange.worker.store is not None and exchange.routed.rules is not None
        self.store: Store = exchange.worker.store
        self.rules = exchange.routed.rules
        self.exchange = exchange
        self.request: RequestHead = first.asked.request
        self.decision = first.asked.decision
        self.variants = first.asked.variants
        self.flight = flight
        self.flight_key = first.flight_key
        self.followers: dict[Follower, None] = {first: None}
        self.chunks: list[bytes] = []
        self.plan: Plan | None = None  # set while the body is being stored
        self.whole = False  # the body has ended
        self.trailers: list[Line] = []
        self.seq = self.store.purge_log.now_seq()
        self.requested_at = self.store.clock()
        self._began: ResponseStart | None = None  # what who joins later is given
        self._plain = False  # asked without conditions of ours
        self.spill: Spill | None = None  # the body goes to the disk as it comes
        self.reserved = 0
        self.dropped = False  # pieces of its beginning
        self.held_back = False  # the backend
        self.round: deque[Follower] = deque()  # who is still to be served in this round (`pieces`)
        self.again = self.settles = False
        self.fetch: Fetch | None = None
        self._total = 0
        self._fits = True  # into what the store has room for at all
        self.probe: Stored | None = None  # the response as look-ups see it, without a body
        self._shares: Plan | None = None  # what followers are told, also when it has outgrown what is stored
        self._shared: Flight | None = None  # whose followers join
        self._broke: Callable[[], EdgeError] | None = None  # why it broke off, for who is still to join
        first.fill = self
        first.flight = flight
        if flight is not None:
            flight.stream, flight.since = self, self.seq

    def start(self) -> None:
        """Send the request, with the conditions that the decision asks for."""
        lines = client_lines(self.exchange, self._fields())
        self.requested_at = self.store.clock()
        prefetcher = self.exchange.routed.prefetcher
        if prefetcher is not None and self.exchange.counted:
            prefetcher.origin_asked(monotonic())
        self.fetch = Fetch(self.exchange, self, lines)
        if self.decision.stored is not None:
            self.fetch.validates = True
            self.fetch.patient = stand_in(self, self.request, Failure.CONNECT, self.store.clock()) is None
        self.fetch.attempt()

    def adopt(self, fetch: Fetch, seq: int, requested_at: float) -> None:
        """Take over a fetch that was begun without a fill (`cold`)."""
        self.fetch, self.seq, self.requested_at = fetch, seq, requested_at
        fetch.receiver = self

    def _fields(self) -> Fields | None:
        """The request's fields with our conditions in place of the client's; None: unchanged."""
        decision, own = self.decision, self.exchange.block.fields
        stored = decision.stored
        if self._plain:
            return None
        if stored is not None and decision.act is Action.REVALIDATE:
            return request_fields(own, stored)
        if stored is not None and asks_rest(self):
            return rest_fields(own, stored)
        return offer_fields(own, decision.offers) if decision.offers else None

    # -- fetch.Receiver --------------------------------------------------------------------------------------------

    def interim(self, facts: ResponseFacts) -> None:
        """Pass a 1xx on to the first client, never to followers."""
        if any(follower.exchange is self.exchange for follower in self.followers):
            self.exchange.interim(facts)

    def head(self, facts: ResponseFacts, length: int | None, body: bytes, done: bool) -> None:
        """Decide whether the response is stored, and let the followers begin."""
        if done:
            self.fetch = None
        now = self.store.clock()
        response = ResponseHead(facts.status, facts.reason, facts.fields, misframed=facts.misframed)
        times = Times(self.requested_at, now)
        head_at = monotonic()
        for follower in self.followers:
            follower.exchange.head_at = head_at
        if self._settled_by(response, times, done):
            return
        rest = asks_rest(self) and not self._plain
        whole = completed(self, response, times) if rest else None
        if whole is not None and reserve(self, whole[0].length):
            stored, plan = whole
            self.chunks, self._total = list(stored.chunks), stored.length
            self._keep(plan, shared(plan, now))
        elif rest and facts.status in (206, 416):
            self._ask_again(done)
            return
        else:
            self._use(response, times, passed_on(facts, length, now - self.requested_at))
        if body:
            self.data(body)
        if done:
            self.end([])

    def _settled_by(self, response: ResponseHead, times: Times, done: bool) -> bool:
        """Whether something stored was used instead of this response, or the origin is asked again."""
        now = times.received_at
        self._invalidate(response, now)
        status = response.status
        if status == 304 and not self._plain and (self.decision.act is Action.REVALIDATE or self.decision.offers):
            found = validated(self, response, times)
            if found is None:
                self._ask_again(done)
            else:
                serve_all(self, found, Verdict.REVALIDATED, now, for_one(found, response, self.rules))
            return True
        if status in ERRORS and stands_in(self, Failure.STATUS, now):
            self._drop_fetch(done)
            self.settle(Outcome.FAILED)
            return True
        found = after_head(self, response, times)
        if found is not None:
            serve_all(self, found, Verdict.REVALIDATED, now, for_one(found, response, self.rules))
        return found is not None

    def _invalidate(self, response: ResponseHead, now: float) -> None:
        """Carry out what the answer to an unsafe request invalidates, without preventing that itself is stored."""
        if self.request.method == b"GET":
            return
        purge_log, named = self.store.purge_log, tags(self.request, response.fields) or ()
        purged = purge_log.admit(self.seq, key_of(self.request, self.rules), named).verdict is not PurgeState.KEPT
        self.store.invalidate(self.request, response, self.rules, now)
        if not purged:  # what others made invalid meanwhile did not name it
            self.seq = purge_log.now_seq()

    def _use(self, response: ResponseHead, times: Times, response_start: ResponseStart) -> None:
        """Store the response while it streams, or pass it on with the reason why not."""
        now = times.received_at
        found = storing(self.request, response, self.rules, times)
        why_not = refused(self, found, now) if isinstance(found, Plan) else found
        if isinstance(found, Plan) and why_not is None:
            self._keep(found, response_start)
        else:
            displace(self, response, now)
            self._pass_on(why_not or Reason.COLD, response_start)

    def _ask_again(self, done: bool) -> None:
        """Repeat the request without our conditions, whose answer was of no use."""
        self._drop_fetch(done)
        self._plain = True
        self.start()

    def _drop_fetch(self, done: bool) -> None:
        fetch, self.fetch = self.fetch, None
        if fetch is not None and not done:
            fetch.cancel(_from_store())

    def data(self, data: bytes) -> None:
        """A piece of the body, for the store and the followers."""
        if self.plan is not None:
            self._total += len(data)
            if not kept(self, data, self._total):
                self._too_large()
        self.chunks.append(data)
        pump(self)

    def end(self, trailers: list[Line]) -> None:
        """The body is complete: store it, then let the followers end."""
        self.whole, self.trailers, self.fetch = True, trailers, None
        if self.plan is not None and self.spill is not None:
            finish(self, self.plan)
        else:
            if self.plan is not None:
                put(self, self.plan)
            self.settle(Outcome.STORED)
        pump(self)
        hold(self)

    def failed(self, error: EdgeError) -> None:
        """The fetch failed. Before the head a stored response may stand in; after it nobody gets a whole answer."""
        self.fetch = None
        self._release()
        if self._began is not None:
            self._broke = partial(type(error), error.detail, error.status)  # not this one: its frames know the fill
            self.settle(Outcome.FAILED)
            self.chunks.clear()
            each(self, lambda follower: follower.exchange.broken(error))
            return
        failure = Failure.OUTAGE if isinstance(error, NoBackend) else Failure.CONNECT
        if not stands_in(self, failure, self.store.clock()):
            for follower in list(self.followers):
                follower.exchange.verdict = Verdict.ERROR.value
                follower.exchange.fail(error)
        self.settle(Outcome.FAILED)

    # -- followers ---------------------------------------------------------------------------------------------------

    def _keep(self, plan: Plan, response_start: ResponseStart) -> None:
        """Store while streaming; followers whose variant matches join the stream."""
        self.plan, now = plan, self.store.clock()
        self._fits = self.store.disk is not None or self.store.index.could_hold(plan.length or 0)
        kept = self._fits and self.store.purge_log.admit(self.seq, plan.key, plan.tags).verdict is not PurgeState.GONE
        self._begin(response_start, self._status(stored=kept, ttl=plan.born + plan.lifetime_s - now))
        flights, flight = self.store.flights, self.flight
        if not is_for_all(plan, self.rules):
            self.settle(Outcome.UNCACHEABLE)
            return
        if flight is None:
            if self.flight_key is not None:
                flights.forget(self.flight_key)
            return
        flight.tags = plan.tags
        self._shares, self._shared = plan, flight
        flights.storable(flight, self, self._accepts)

    @property
    def due(self) -> bool:
        """Whether a waiting request must still be told of the head; it starts with the first piece."""
        return self._shared is not None and bool(self._shared.due)

    def _accepts(self, member: FlightMember, late: bool) -> bool:
        if isinstance(member, Follower) and self._shares is not None and accepts(self, member, self._shares, late):
            return True
        settle_soon(self)  # it may have been the last one that was due
        return False

    def join(self, follower: Follower) -> None:
        """Add a follower from the first byte on; it gets the lines that are stored."""
        plan, now = self._shares, self.store.clock()
        if self._broke is not None:  # after the head, and before it was this one's turn
            follower.fill = follower.flight = follower.exchange.follower = None
            follower.exchange.verdict = Verdict.ERROR.value
            follower.exchange.fail(self._broke())
            return
        if plan is None or self.dropped:  # its beginning is on the disk only, or nowhere
            follower.on_alone(Why.TOO_LARGE)
            return
        self.followers[follower] = None
        why, ttl_s = forward(follower.asked.decision.reason), plan.born + plan.lifetime_s - now
        began = self._began
        assert began is not None  # nobody joins before the head
        status = line(forwarded(why, stored=self._fits, collapsed=True, ttl_s=ttl_s))
        follower.begin(shared(plan, now, began.bodiless), status)
        follower.pump()
        settle_soon(self)

    def _begin(self, response_start: ResponseStart, cache_status: Callable[[Follower], bytes]) -> None:
        """Begin the response of those who follow already (the request that started the fill)."""
        self._began = response_start
        for follower in list(self.followers):
            follower.begin(response_start, cache_status(follower))

    def _pass_on(self, reason: Reason, response_start: ResponseStart) -> None:
        """The response is not stored: requests that waited fetch for themselves."""
        if self.request.method != b"HEAD":  # which is never stored itself; why it was asked says more
            for follower in self.followers:
                follower.exchange.reason = word(reason, self.rules.name)
        self.settle(Outcome.TOO_LARGE if reason is Reason.SIZE else Outcome.UNCACHEABLE)
        self.flight = None
        self._begin(response_start, self._status(stored=False, ttl=None))
        if not self.followers:  # who asked wanted no body
            self._drop_fetch(False)

    def _status(self, stored: bool, ttl: float | None) -> Callable[[Follower], bytes]:
        why = forward(self.decision.reason)
        return lambda follower: line(forwarded(why, stored=stored, ttl_s=ttl, detail=follower.exchange.reason))

    # -- the body --------------------------------------------------------------------------------------------------

    def _too_large(self) -> None:
        """The body exceeded what may be stored: current followers stay, nothing is stored."""
        self.plan = None
        give_up(self)
        self.settle(Outcome.TOO_LARGE)

    def _release(self) -> None:
        unreserve(self)
        if self.spill is not None and not self.whole:
            give_up(self)

    def settle(self, outcome: Outcome) -> None:
        """End the flight with this outcome (`cache.flights`)."""
        flight = self.flight
        if flight is None:
            return
        if outcome is not Outcome.TOO_LARGE:
            self.flight = None
        self.store.flights.end(flight, outcome, monotonic())

    def leave(self, follower: Follower, error: EdgeError | None) -> None:
        """A follower has left (`error`), or has all that it wanted. The fetch ends with the last one that wants its
        body.
        """
        self.followers.pop(follower, None)
        wanted = self.store.flights.leave(self.flight, follower) if self.flight is not None else bool(self.followers)
        if self.followers or wanted or self.whole or (error is None and self.plan is not None):
            settle_soon(self)
            return
        self._release()
        fetch, self.fetch = self.fetch, None
        if fetch is not None:
            fetch.cancel(error or _from_store())
        self.settle(Outcome.FAILED)

"""Stage 7: one fetch whose response may be stored, and the clients that watch it.

    Watch (one per waiting client) ── pump ──┐
    Watch ─────────────────────────── pump ──┤   chunks ◄── Fill ◄── Fetch
    Store ◄── put, when whole and storable ──┘

The body's pieces go into `chunks`; each watch has its place there and is served as fast as its client takes. While the
response is being stored nothing is dropped and no client slows the fill; otherwise pieces go when the last watch has
them, and the slowest watch holds the backend back.

One rule: what did not end whole is neither stored nor ended as if it were. The outcome table is `cache.flights`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import monotonic, time
from typing import TYPE_CHECKING

from edge.cache.flights import Flight, Outcome, Party, Why
from edge.cache.freshness import Times
from edge.cache.policy import Decision, look, may_serve_stale
from edge.cache.revalidate import HeadEffect, head_outcome, offer_fields, request_fields, selected, updated
from edge.cache.selection import matching
from edge.cache.stored import Plan, Stored, build
from edge.cache.storing import storing
from edge.cache.verdict import Act, Failure, Reason, Verdict, forward, word
from edge.dataplane.fetch import GATEWAY_FAILURES, Fetch
from edge.dataplane.hit import serve
from edge.dataplane.watch import Watch, collapsed_status, stored_wire
from edge.errors import EdgeError, NoBackend, UpstreamError
from edge.http.cache_status import forwarded, line
from edge.http.forwarding import request_lines
from edge.http.grammar import ResponseFacts
from edge.http.hopbyhop import dropped_names
from edge.http.message import Line, RequestHead, ResponseHead

if TYPE_CHECKING:
    from edge.dataplane.store import Store

JOIN_BYTES = 64 * 1024  # a stored body up to here is kept as one piece
ERRORS = GATEWAY_FAILURES | {500}


class Fill:
    """A fetch for the store's sake and its watches' (`fetch.Receiver`)."""

    def __init__(self, first: Watch, flight: Flight | None) -> None:
        exchange = first.exchange
        assert exchange.worker.store is not None and exchange.routed.rules is not None
        self.store: Store = exchange.worker.store
        self.rules = exchange.routed.rules
        self.exchange = exchange
        self.request: RequestHead = first.request
        self.decision: Decision = first.decision
        self.variants = first.variants
        self.flight = flight
        self.watches: list[Watch] = [first]
        self.chunks: list[bytes] = []
        self.facts: ResponseFacts | None = None
        self.plan: Plan | None = None  # set while the body is being stored
        self.length: int | None = None
        self.whole = False  # the body has ended
        self.trailers: list[Line] = []
        self.seq = self.store.epochs.now_seq()
        self.requested_at = time()
        self._reserved = 0
        self._total = 0
        self._fetch: Fetch | None = None
        self._held = False
        first.fill = self
        first.flight = flight

    def start(self, conditional: bool = True) -> None:
        """Send the request, with the conditions that the decision asks for."""
        block, stored, decision = self.exchange.block, self.decision.stored, self.decision
        lines = block.forward
        if conditional and decision.act is Act.REVALIDATE and stored is not None:
            fields = request_fields(block.fields, stored)
            lines, _ = request_lines(fields, dropped_names(block.fields), block.trace)
        elif conditional and decision.offers:
            fields = offer_fields(block.fields, decision.offers)
            lines, _ = request_lines(fields, dropped_names(block.fields), block.trace)
        self.requested_at = time()
        self._fetch = Fetch(self.exchange, self, lines)
        self._fetch.attempt()

    # -- fetch.Receiver --------------------------------------------------------------------------------------------

    def interim(self, facts: ResponseFacts) -> None:
        """1xx goes to whom the request came from, never to those who follow or come later."""
        if self.watches and self.watches[0].exchange is self.exchange:
            self.exchange.interim(facts)

    def head(self, facts: ResponseFacts, length: int | None, body: bytes, done: bool) -> None:
        """Decide what becomes of the response, then let the watches have it."""
        now = time()
        self.facts, self.length = facts, length
        response = ResponseHead(facts.status, facts.reason, facts.fields)
        times = Times(self.requested_at, now)
        head_at = monotonic()
        for watch in self.watches:
            watch.exchange.head_at = head_at
        self.store.invalidate(self.request, response, self.rules, now)
        if facts.status == 304 and self._validated(response, times):
            return
        if facts.status in ERRORS and self._stands_in(Failure.STATUS, now):
            if not done and self._fetch is not None:
                self._fetch.cancel(EdgeError("answered from store"))
            self._settle(Outcome.FAILED)
            return
        if self.request.method == b"HEAD":
            self._headed(response, times)
        found = storing(self.request, response, self.rules, times)
        if isinstance(found, Plan) and not self.store.index.enough_uses(found.key, self.rules.min_uses):
            found = Reason.COLD
        if isinstance(found, Plan):
            self._keep(found, now)
        else:
            self._pass_on(found)
        if body:
            self.data(body)
        if done:
            self.end([])

    def data(self, data: bytes) -> None:
        """A piece of the body."""
        if self.plan is not None:
            self._total += len(data)
            if self._total > self.rules.max_object_bytes or not self.store.index.reserve(len(data), time()):
                self._too_large()
            else:
                self._reserved += len(data)
        self.chunks.append(data)
        self.pump()

    def end(self, trailers: list[Line]) -> None:
        """The body is whole: store it, then let the watches end."""
        self.whole, self.trailers, self._fetch = True, trailers, None
        if self.plan is not None:
            self._put(self.plan)
        self._settle(Outcome.STORED)
        self.pump()

    def failed(self, error: UpstreamError) -> None:
        """The fetch gave up: before the head something stored may stand in; after it, nobody gets a whole answer."""
        self._fetch = None
        self._release()
        if self.facts is not None:
            self._settle(Outcome.FAILED)
            for watch in list(self.watches):
                watch.exchange.broken(error)
            return
        failure = Failure.OUTAGE if isinstance(error, NoBackend) else Failure.CONNECT
        stood_in = self._stands_in(failure, time())
        if not stood_in:
            for watch in list(self.watches):
                watch.exchange.verdict = Verdict.ERROR.value
                watch.exchange.fail(error)
        self._settle(Outcome.FAILED)

    # -- what becomes of the head ----------------------------------------------------------------------------------

    def _validated(self, response: ResponseHead, times: Times) -> bool:
        """A 304 to our own conditions: update what it names and serve that. False: it answers the client's own."""
        decision = self.decision
        if decision.act is Act.REVALIDATE and decision.stored is not None:
            candidates: tuple[Stored, ...] = (decision.stored,)
        elif decision.offers:
            candidates = tuple(one for one in self.variants if one.etag in decision.offers)
        else:
            return False
        chosen = selected(candidates, response)
        if chosen is None:
            self.facts = None
            self.start(conditional=False)
            return True
        fresh = updated(chosen, response, self.request, self.rules, times)
        self.store.index.replace(chosen, fresh, times.received_at, self.seq)
        followers = list(self.flight.waiting.values()) if self.flight is not None else []
        for watch in list(self.watches):
            self._serve(watch, fresh, Verdict.REVALIDATED, times.received_at)
        for party in followers:  # who waited for a validation gets its result too
            if isinstance(party, Watch) and self.flight is not None:
                self.store.flights.leave(self.flight, party)
                self._serve(party, fresh, Verdict.COLLAPSED, times.received_at)
        self._settle(Outcome.STORED)
        return True

    def _serve(self, watch: Watch, stored: Stored, verdict: Verdict, now: float) -> None:
        exchange = watch.exchange
        exchange.watch = None
        collapsed = verdict is Verdict.COLLAPSED
        exchange.cache_status = line(
            forwarded(
                forward(self.decision.reason),
                status=304,
                collapsed=collapsed,
                ttl_s=stored.ttl(now),
                detail=exchange.reason,
            )
        )
        if watch in self.watches:
            self.watches.remove(watch)
        serve(exchange, watch.request, stored, verdict, now)

    def _stands_in(self, failure: Failure, now: float) -> bool:
        """Serve what is stored instead of a failure, where every rule allows it; the watches are answered then."""
        stored = self.decision.stored
        if stored is None or self.decision.act is not Act.REVALIDATE:
            return False
        if not may_serve_stale(stored, self.request, self.rules, now, failure):
            return False
        for watch in list(self.watches):
            exchange = watch.exchange
            exchange.watch = None
            exchange.reason = f"{failure.value}-error"
            self.watches.remove(watch)
            serve(exchange, watch.request, stored, Verdict.STALE, now)
        return True

    def _headed(self, response: ResponseHead, times: Times) -> None:
        """What a forwarded HEAD does to the stored GET (RFC 9111 4.3.5)."""
        stored = self.decision.stored
        if stored is None:
            return
        outcome = head_outcome(stored, response, self.request, self.rules, times)
        if outcome.effect is not HeadEffect.NOTHING:
            self.store.index.replace(stored, outcome.stored, times.received_at, self.seq)

    def _keep(self, plan: Plan, now: float) -> None:
        """Store while streaming; followers whose variant it is join the stream."""
        self.plan = plan
        ttl = plan.born + plan.lifetime_s - now
        self._begin(self._status(stored=True, ttl=ttl))
        if self.flight is None:
            return
        # What was asked for before this head came may share it even when it is stale at once (RFC 9111 4); who comes
        # later only while it is fresh.
        probe = build(replace(plan, length=None, part=None), ())
        late = False

        def accepts(party: Party) -> bool:
            if not isinstance(party, Watch):
                return False
            party.vary_names = tuple(name for name, _ in plan.vary)
            if not late:
                return bool(matching(party.request.fields, (probe,), self.rules))
            return look(party.request, (probe,), self.rules, time()).act is Act.FRESH

        self.store.flights.storable(self.flight, self, accepts)
        late = True

    def join(self, watch: Watch) -> None:
        """A follower takes part from the first byte on; it gets the lines that are stored."""
        plan, facts = self.plan, self.facts
        if plan is None or facts is None:
            watch.on_alone(Why.TOO_LARGE)
            return
        self.watches.append(watch)
        status = collapsed_status(watch.decision, plan.born + plan.lifetime_s - time())
        watch.begin(facts, stored_wire(plan), self.length, status)
        watch.pump()

    def _begin(self, cache_status: Callable[[Watch], bytes]) -> None:
        """The head for those who watch already: the one who asked."""
        facts = self.facts
        assert facts is not None
        wire = self._aged(facts)
        for watch in list(self.watches):
            watch.begin(facts, wire, self.length, cache_status(watch))

    def _aged(self, facts: ResponseFacts) -> bytes:
        """The head with the time that the answer took added to its Age, where that is a second or more."""
        delay = int(time() - self.requested_at)
        if delay < 1:
            return facts.wire
        told = facts.fields.joined(b"age") or b"0"
        age = int(told) if told.isdigit() and len(told) < 11 else 0
        line_end = facts.wire.find(b"\r\n") + 2
        kept = [raw for raw in facts.wire[line_end:].split(b"\r\n") if raw and raw[:4].lower() != b"age:"]
        return facts.wire[:line_end] + b"".join([b"%b\r\n" % raw for raw in kept]) + b"Age: %d\r\n" % (age + delay)

    def _pass_on(self, reason: Reason) -> None:
        """Not stored: whoever waited asks for itself."""
        if self.request.method != b"HEAD":  # which is never stored itself; why it was asked says more
            for watch in self.watches:
                watch.exchange.reason = word(reason, self.rules.name)
        self._begin(self._status(stored=False, ttl=None))
        self._settle(Outcome.UNCACHEABLE)

    def _status(self, stored: bool, ttl: float | None) -> Callable[[Watch], bytes]:
        why = forward(self.decision.reason)
        return lambda watch: line(forwarded(why, stored=stored, ttl_s=ttl, detail=watch.exchange.reason))

    # -- the body --------------------------------------------------------------------------------------------------

    def _too_large(self) -> None:
        """It outgrew what may be stored: those who watch stay, nothing is kept."""
        self.plan = None
        self._release()
        self._settle(Outcome.TOO_LARGE)

    def _put(self, plan: Plan) -> None:
        self._release()
        if self._total <= JOIN_BYTES and len(self.chunks) > 1:
            joined = b"".join(self.chunks)
            chunks: tuple[bytes, ...] = (joined,)
        else:
            chunks = tuple(self.chunks)
        try:
            stored = build(plan, chunks)
        except ValueError:
            return  # not what its head announced: served as it came, never stored
        self.store.index.put(stored, time(), self.seq, min_uses=1)

    def _release(self) -> None:
        if self._reserved:
            self.store.index.release(self._reserved)
            self._reserved = 0

    def _settle(self, outcome: Outcome) -> None:
        flight = self.flight
        if flight is None:
            return
        if outcome is not Outcome.TOO_LARGE:
            self.flight = None
        self.store.flights.end(flight, outcome, monotonic())

    def pump(self) -> None:
        """Let every watch have what it can take; drop or hold back where nothing is stored."""
        for watch in list(self.watches):
            watch.pump()
        if self.plan is not None or self.whole:
            return
        lagging = any(watch.at < len(self.chunks) for watch in self.watches)
        if not lagging:
            self.chunks.clear()
            for watch in self.watches:
                watch.at = 0
        if self._fetch is not None and lagging != self._held:
            self._held = lagging
            self._fetch.pause() if lagging else self._fetch.resume()

    def leave(self, watch: Watch, error: EdgeError) -> None:
        """A watch goes. The fetch ends with the last of them, unless others still wait for its head."""
        if watch in self.watches:
            self.watches.remove(watch)
        wanted = self.store.flights.leave(self.flight, watch) if self.flight is not None else bool(self.watches)
        if self.watches or wanted or self.whole:
            self.pump()
            return
        self._release()
        fetch, self._fetch = self._fetch, None
        if fetch is not None:
            fetch.cancel(error)
        self._settle(Outcome.FAILED)

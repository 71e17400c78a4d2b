"""Fetching ahead: what a route's pages name or what comes next in a numbered sequence, and what an operator wants warm.

    a client's response is served from store, or stored ─► targets ─► gate (cache.prefetch) ─► a fetch of nobody's
    a warm list ─► so many at a time ─► fetches of nobody's ─► progress

One rule: such a fetch goes the way of any other (`lookup.ask`), so that a client who wants the same shares it; and it
carries nothing of the client's that is personal: only what content negotiation looks at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any

from edge.cache.key import key_of
from edge.cache.policy import evaluate
from edge.cache.prefetch import Gate, GateRules, Sequence, link_targets
from edge.cache.stored import Stored
from edge.cache.verdict import Action
from edge.dataplane.caching.follower import LookupResult
from edge.dataplane.caching.lookup import ask, plain_lookup
from edge.dataplane.caching.refresh import BackgroundClient, background
from edge.errors import EdgeError
from edge.http.asking import asking
from edge.http.grammar import RequestHeaders
from edge.http.message import Fields, Line, RequestHead

if TYPE_CHECKING:
    from edge.dataplane.core.context import WorkerContext
    from edge.dataplane.core.exchange import Exchange
    from edge.dataplane.core.route import Route
    from edge.dataplane.core.store import Progress, Store

NEGOTIATED = frozenset((b"accept", b"accept-encoding", b"accept-language", b"user-agent"))
LOOK_AGAIN_S = 1.0  # how often the links of one page are looked at
PAGES_KNOWN = 4096
UNUSED_KEPT = 8192
UNUSED_BYTES = 2 * 1024 * 1024  # of their keys
SETTLED_PER_TICK = 100
FULL_LAG_S = 0.1  # a loop that is so late is full
WARM_AT_ONCE = 8
TELL_S = 0.1
FAILURES_TOLD = 100


class Prefetcher:
    """A route's prefetching: its gate, and what it fetched that was not asked for yet."""

    def __init__(self, worker: WorkerContext, links: bool, sequences: tuple[Sequence, ...], rules: GateRules) -> None:
        self.gate = Gate(rules)
        self._worker = worker
        self._links = links
        self._sequences = sequences
        self._running: set[bytes] = set()
        self._unused: dict[bytes, float] = {}  # by key: until when it is fresh
        self._unused_bytes = 0
        self._looked: dict[int, float] = {}  # pages by their key's hash: when their links were looked at

    def renewed(self, made: Prefetcher) -> Prefetcher:
        """This prefetcher with all that it knows if a reload changed nothing, else the new one."""
        same = (self._links, self.gate.rules) == (made._links, made.gate.rules)
        own, other = ([each.pattern for each in one._sequences] for one in (self, made))
        return self if same and own == other else made

    def origin_asked(self, now: float) -> None:
        """Count a client's request to an origin; the share of prefetches is measured by these."""
        self.gate.origin_request(now)

    def served(self, exchange: Exchange, stored: Stored) -> None:
        """A client was answered by `stored`: fetch what comes next, if the gate allows it."""
        key = exchange.key
        if key is None or not exchange.counted or exchange.behind:
            return
        if self._unused.pop(key, None) is not None:
            self._unused_bytes -= len(key)
            self.gate.used()
        now = monotonic()
        for target in self._targets(exchange, stored, now):
            if not self._begin(exchange, target, now):
                return

    def _targets(self, exchange: Exchange, stored: Stored, now: float) -> Iterator[bytes]:
        target, page = exchange.target, hash(stored.key)
        for sequence in self._sequences:
            following = sequence.next(target)
            if following is not None:
                yield following
        if not self._links or now - self._looked.get(page, -LOOK_AGAIN_S) < LOOK_AGAIN_S:
            return
        if len(self._looked) >= PAGES_KNOWN:
            self._looked.clear()
        self._looked[page] = now
        values = stored.head.fields.get_all(b"link")
        if values:
            yield from link_targets(values, exchange.scheme, exchange.authority, target)

    def _begin(self, exchange: Exchange, target: bytes, now: float) -> bool:
        """Start one fetch; False: the gate is closed, so there is no use in trying more."""
        worker = self._worker
        fields = [line for line in exchange.block.fields.lines if line[0].lower() in NEGOTIATED]
        try:
            planned = PlannedFetch.of(worker, exchange.scheme, exchange.authority, target, fields)
        except EdgeError:
            return True  # what a page names need not be what a client may ask for
        if (
            planned is None
            or planned.key in self._running
            or planned.asked.decision.act not in (Action.MISS, Action.REVALIDATE)
        ):
            return True
        route = planned.route
        if self.gate.may_start(now, load(worker, route), failing_over(route)) is not None:
            return False
        self._running.add(planned.key)
        self.gate.started(now)
        planned.fetch(lambda ended: self._ended(planned))
        return True

    def _ended(self, planned: PlannedFetch) -> None:
        self._running.discard(planned.key)
        fresh_until = planned.fresh_until()
        self.gate.ended(fresh_until is not None)
        if fresh_until is not None:
            self._keep(planned.key, fresh_until)

    def _keep(self, key: bytes, fresh_until: float) -> None:
        """Remember what was prefetched until it is requested; the oldest are dropped and counted as wasted."""
        if key not in self._unused:
            self._unused_bytes += len(key)
        self._unused[key] = fresh_until
        while len(self._unused) > UNUSED_KEPT or self._unused_bytes > UNUSED_BYTES:
            self._waste(next(iter(self._unused)))

    def _waste(self, key: bytes) -> None:
        del self._unused[key]
        self._unused_bytes -= len(key)
        self.gate.wasted()

    def tick(self, store: Store, now: float) -> None:
        """Settle what left the store, or its freshness, unused; switch off or on. `now`: monotonic."""
        clock = store.clock()
        for key in list(islice(self._unused, SETTLED_PER_TICK)):
            if self._unused[key] <= clock or not store.variants(key):
                self._waste(key)
            else:  # looked at: to the end of the queue
                self._unused[key] = self._unused.pop(key)
        self.gate.judge(now)

    def stats(self) -> dict[str, float]:
        """Plain numbers for status and metrics."""
        gate = self.gate
        refused = {f"prefetch_refused_{why.value}": count for why, count in gate.refused.items()}
        off = gate.why_off(monotonic()) is not None
        return {"prefetch_fetched": gate.fetched, "prefetch_used": gate.hits, "prefetch_off": off, **refused}


class PlannedFetch:
    """One URL to be fetched into the store without a client, as the look-up judges it now."""

    def __init__(self, worker: WorkerContext, route: Route, request: RequestHead, block: RequestHeaders) -> None:
        store, rules = worker.store, route.rules
        assert store is not None and rules is not None
        self.worker = worker
        self.store = store
        self.route = route
        self.block = block
        self.key = key_of(request, rules)
        variants = store.variants(self.key)
        self.asked = LookupResult(request, evaluate(request, variants, rules, store.clock()), variants)

    @classmethod
    def of(
        cls, worker: WorkerContext, scheme: bytes, authority: bytes, target: bytes, fields: list[Line]
    ) -> PlannedFetch | None:
        """None where no route with a cache serves it. Raises ClientError where no client could ask for it."""
        routes = worker.router.all(authority, target)
        route = next((each for each in routes if each.match is None), None)  # nobody's request fits no condition
        if route is None or route.rules is None or worker.store is None:
            return None
        route.check_path(target)
        if worker.router.is_doubtful(route, authority, target):
            return None
        codings = route.rules.normalise_encoding
        if codings and not any(name.lower() == b"accept-encoding" for name, _ in fields):
            fields = [*fields, (b"Accept-Encoding", b", ".join(codings))]
        block = asking(b"GET", authority, target, fields, worker.head)
        return cls(worker, route, RequestHead(b"GET", scheme, authority, target, Fields(block.fields.lines)), block)

    def fetch(self, done: Callable[[Exchange], None]) -> None:
        """Ask the origin, in slices where the route says so; `done` is called at the end, perhaps at once."""
        nobody = BackgroundClient(self.worker, self.asked.request.scheme, done)
        shadow = background(self.route, self.asked.request, self.block, nobody)
        shadow.key = self.key
        ranges = self.route.ranges
        try:
            if ranges is None or not ranges.slices(shadow, plain_lookup):
                ask(shadow, self.asked)
        except EdgeError as error:
            shadow.fail(error)

    def fresh_until(self) -> float | None:
        """Until when (epoch seconds) the stored response, or its first slice, is fresh; None: nothing is."""
        request, rules, ranges = self.asked.request, self.route.rules, self.route.ranges
        assert rules is not None  # see `of`
        for each in (request,) if ranges is None else (request, ranges.first(request)):
            found = self.store.variants(key_of(each, rules))
            decision = evaluate(each, found, rules, self.store.clock())
            if decision.act is Action.FRESH and decision.stored is not None:
                return decision.stored.fresh_until
        return None


def load(worker: WorkerContext, route: Route) -> float:
    """How full the gateway is, 0 to 1: the loop's lateness, the pool's use of its limits, and whether requests queue
    for it.
    """
    assert worker.store is not None
    runtime = route.pool
    if runtime.queued:
        return 1.0
    places = [(backend.in_flight, backend.limit) for backend in runtime.pool.backends]
    taken = sum(in_flight for in_flight, _ in places) / max(1.0, sum(limit for _, limit in places))
    return min(1.0, max(taken, worker.store.late_s / FULL_LAG_S))


def failing_over(route: Route) -> bool:
    """Whether a region that should serve the route's pool does not."""
    view = route.pool.pool.view
    return view is not None and (not view.shares or bool(view.panic) or not set(view.order) <= view.healthy)


class Warming:
    """Carries out warm lists (`Store.warmer`)."""

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker

    async def run(self, urls: list[str], progress: Progress) -> dict[str, Any]:
        """Fetch each URL that is not fresh in store, some at a time.

        `stored` are those that are fresh in store at the end, `failed` those without a usable answer (`failures` names
        the first of them, each with its reason); the rest may not be stored.
        """
        counts = {"fetched": 0, "stored": 0, "failed": 0, "done": 0, "total": len(urls)}
        failures: list[dict[str, str]] = []
        upcoming = iter(urls)
        told_at = 0.0

        async def work() -> None:
            nonlocal told_at
            for url in upcoming:
                why = await self._one(url, counts)
                if why is not None:
                    counts["failed"] += 1
                    if len(failures) < FAILURES_TOLD:
                        failures.append({"url": url, "reason": why})
                counts["done"] += 1
                if monotonic() - told_at >= TELL_S:
                    told_at = monotonic()
                    progress({**counts, "url": url})

        async with asyncio.TaskGroup() as group:
            for number in range(min(WARM_AT_ONCE, len(urls))):
                group.create_task(work(), name=f"warm {number}")
        return {**counts, "failures": failures}

    async def _one(self, url: str, counts: dict[str, int]) -> str | None:
        """Fetch one URL; returns why it failed, or None."""
        scheme, _, rest = url.encode().partition(b"://")
        authority, slash, path = rest.partition(b"/")
        authority = authority.lower().removesuffix(b":80" if scheme == b"http" else b":443")
        try:
            planned = PlannedFetch.of(self._worker, scheme, authority, slash + path or b"/", [])
        except EdgeError as error:
            return error.detail
        if planned is None:
            return "no route with a cache serves it"
        why = None
        if planned.asked.decision.act is not Action.FRESH:
            ended: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
            planned.fetch(lambda exchange: None if ended.done() else ended.set_result(exchange))
            counts["fetched"] += 1
            exchange = await ended  # before the sum: others add to it meanwhile
            if exchange.status >= 400 or exchange.error:
                why = f"{exchange.status}: {exchange.error or 'answered by the origin'}"
        counts["stored"] += planned.fresh_until() is not None
        return why

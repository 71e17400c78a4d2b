"""Stages 3 and 4: is there something stored that answers; if not, who fetches it.

One rule: the index is asked synchronously and a hit ends here. All judgement is `cache.policy.look`; this file turns
its word into a call.
"""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING

from edge.cache.flights import Alone, Follow, Lead
from edge.cache.key import cache_key
from edge.cache.policy import Decision, look
from edge.cache.rules import Rules
from edge.cache.selection import comparable
from edge.cache.stored import Stored
from edge.cache.verdict import Act, Reason, Verdict, forward, word
from edge.dataplane.fetch import forward as forward_plain
from edge.dataplane.fill import Fill
from edge.dataplane.hit import serve, serve_simple
from edge.dataplane.refresh import refresh
from edge.dataplane.watch import Watch
from edge.errors import OnlyIfCached
from edge.http.cache_status import forwarded, line, unanswered
from edge.http.conditional import CLIENT_OWN
from edge.http.message import RequestHead

if TYPE_CHECKING:
    from edge.dataplane.exchange import Exchange
    from edge.dataplane.router import Route


def quick_hit(exchange: Exchange, route: Route) -> bool:
    """Answer a request without cache-relevant fields from a fresh, simple response; False: look properly."""
    if exchange.method not in _READ:
        return False
    store, rules = exchange.worker.store, route.rules
    if store is None or rules is None:
        return False
    key = cache_key(exchange.front.scheme, exchange.authority, exchange.target, rules, exchange.block.fields)
    exchange.key = key
    exchange.found = found = store.index.get(key)
    if found is None:
        return False
    stored = found.sole
    if stored is None or not stored.simple:
        return False
    now = time()
    if now >= stored.fresh_until:
        return False
    serve_simple(exchange, stored, now)
    return True


def lookup(exchange: Exchange, route: Route) -> None:
    """Decide, then answer from store, or fetch, or wait for one who does."""
    store, rules = exchange.worker.store, route.rules
    if store is None or rules is None or exchange.wants_upgrade:
        forward_plain(exchange)
        return
    request = request_of(exchange)
    if exchange.key is None:
        exchange.key = cache_key(request.scheme, request.authority, request.target, rules, request.fields)
        exchange.found = store.index.get(exchange.key)
    found = exchange.found
    variants = found.variants if found is not None else ()
    now = time()
    if exchange.upload is not None and request.method in _READ:  # content in a GET has no meaning that a key could hold
        decision = Decision(Act.BYPASS, Reason.METHOD)
    else:
        decision = look(request, variants, rules, now)
    stored = decision.stored
    if decision.act in (Act.FRESH, Act.STALE_OK) and found is not None and stored is not None:
        store.index.used(found, stored)
        fresh = decision.act is Act.FRESH
        exchange.reason = "" if fresh else decision.reason.value
        if decision.refresh:
            refresh(exchange, request, stored)
        serve(exchange, request, stored, Verdict.HIT if fresh else Verdict.STALE, now)
        return
    explain_why(exchange, rules, decision)
    if decision.act is Act.UNSATISFIABLE:
        exchange.verdict = Verdict.MISS.value
        exchange.cache_status = line(unanswered(exchange.reason))
        exchange.fail(OnlyIfCached("nothing stored"))
    elif decision.act is Act.BYPASS and decision.reason is not Reason.METHOD:
        forward_plain(exchange)
    else:
        ask(exchange, request, decision, variants)


def request_of(exchange: Exchange) -> RequestHead:
    """The request as decisions see it."""
    return RequestHead(
        exchange.method, exchange.front.scheme, exchange.authority, exchange.target, exchange.block.fields
    )


def explain_why(exchange: Exchange, rules: Rules, decision: Decision) -> None:
    """Why the origin is asked, in the words of log, counters and Cache-Status."""
    reason = decision.reason
    store = exchange.worker.store
    shown = word(reason, rules.name)
    if reason is Reason.COLD and store is not None and exchange.key is not None:
        shown = store.absence(exchange.key)
    exchange.reason = shown
    exchange.verdict = (Verdict.BYPASS if decision.act is Act.BYPASS else Verdict.MISS).value
    exchange.cache_status = line(forwarded(forward(reason), detail=shown))


def ask(
    exchange: Exchange,
    request: RequestHead,
    decision: Decision,
    variants: tuple[Stored, ...],
    vary_names: tuple[bytes, ...] = (),
) -> None:
    """Fetch from the origin: as leader of a flight, as follower of one, or without regard to others."""
    watch = Watch(exchange, request, decision, variants)
    watch.vary_names = vary_names
    exchange.watch = watch
    store, route = exchange.worker.store, exchange.routed
    assert store is not None and route.rules is not None
    if not shareable(request, decision):
        Fill(watch, None).start()
        return
    joined = store.flights.join(flight_key(watch, route.rules), watch, monotonic(), route.rules.collapse_wait_s)
    if isinstance(joined, Lead):
        Fill(watch, joined.flight).start()
    elif isinstance(joined, Follow):
        watch.flight = joined.flight
        if joined.flight.filling:
            watch.on_attach(joined.flight)
    elif isinstance(joined, Alone):
        watch.on_alone(joined.why)


def look_again(watch: Watch) -> None:
    """A shared fetch turned out to be another variant: decide anew, with what it varies by known."""
    exchange = watch.exchange
    store, rules = exchange.worker.store, exchange.routed.rules
    assert store is not None and rules is not None and exchange.key is not None
    found = store.index.get(exchange.key)
    variants = found.variants if found is not None else ()
    now = time()
    decision = look(watch.request, variants, rules, now)
    if decision.act is Act.FRESH and decision.stored is not None:
        exchange.watch = None
        serve(exchange, watch.request, decision.stored, Verdict.HIT, now)
        return
    explain_why(exchange, rules, decision)
    ask(exchange, watch.request, decision, variants, watch.vary_names)


def shareable(request: RequestHead, decision: Decision) -> bool:
    """Whether others may wait for this fetch: a plain GET. Conditions, ranges and credentials are one client's."""
    names = request.fields.names()
    if request.method != b"GET" or not ONE_CLIENTS.isdisjoint(names):
        return False
    return decision.act is Act.REVALIDATE or CLIENT_OWN.isdisjoint(names)


def flight_key(watch: Watch, rules: Rules) -> tuple[object, ...]:
    """What makes two fetches the same: the key, whether it validates, and what is known of the variant."""
    decision, request = watch.decision, watch.request
    names = watch.vary_names or tuple(name for name, _ in (watch.variants[0].vary if watch.variants else ()))
    selected = tuple(comparable(name, request.fields, rules) for name in names)
    return (watch.exchange.key, decision.act is Act.REVALIDATE, names, selected)


ONE_CLIENTS = frozenset((b"authorization", b"cache-control", b"pragma"))  # credentials; a wish for something newer
_READ = frozenset((b"GET", b"HEAD"))

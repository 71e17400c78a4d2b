"""Stages 3 and 4: is there something stored that answers; if not, who fetches it.

One rule: the index is asked synchronously and a hit ends here. `cache.policy.evaluate` judges; this file turns its
word into a call.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from edge.cache.flights import Alone, Flight, Follow, Lead
from edge.cache.key import SLICE, key_of
from edge.cache.policy import Decision, evaluate, is_for_all
from edge.cache.rules import Rules
from edge.cache.selection import comparable
from edge.cache.stored import Stored
from edge.cache.verdict import Action, Reason, Verdict, forward, word
from edge.dataplane.caching.cold import begun
from edge.dataplane.caching.fill import Fill
from edge.dataplane.caching.follower import Follower, FollowerCallbacks, LookupResult, request_of
from edge.dataplane.caching.hit import serve
from edge.dataplane.caching.others import ask_others
from edge.dataplane.caching.refresh import refresh
from edge.dataplane.caching.tiers import Merged, consult
from edge.dataplane.upstream.fetch import forward as forward_plain
from edge.errors import OnlyIfCached
from edge.http.cache_status import forwarded, line, unanswered
from edge.http.conditional import CLIENT_OWN
from edge.http.credentials import CERTIFICATE_NAMES
from edge.http.message import RequestHead

if TYPE_CHECKING:
    from edge.dataplane.core.exchange import Exchange
    from edge.dataplane.core.route import Route


def lookup(exchange: Exchange, route: Route) -> None:
    """Decide, then answer from the store, fetch, or wait for another fetch."""
    if route.ranges is None or not route.ranges.slices(exchange, plain_lookup):
        plain_lookup(exchange, route)


def plain_lookup(exchange: Exchange, route: Route) -> None:
    """As `lookup`, for a whole response or for one part, without assembling slices."""
    store, rules = exchange.worker.store, route.rules
    if exchange.block.quick and store is not None and rules is not None and begun(exchange, store, rules, TURNS, judge):
        return
    if store is None or rules is None or exchange.wants_upgrade:
        forward_plain(exchange)
        return
    request = request_of(exchange)
    if exchange.upload is not None and request.method in _READ:  # content in a GET has no meaning that a key could hold
        explain_why(exchange, rules, Decision(Action.BYPASS, Reason.METHOD))
        forward_plain(exchange)
        return
    if exchange.key is None:
        exchange.key = key_of(request, rules)
        exchange.found = store.index.get(exchange.key)
    cold = store.disk is not None and exchange.found is None and request.method in _READ and not exchange.asked_disk
    if cold and not consult(exchange, lambda: decide(exchange, request, ())):
        return
    decide(exchange, request, ())


def judge(exchange: Exchange) -> None:
    """Run `decide` for the first time."""
    decide(exchange, request_of(exchange), ())


def decide(exchange: Exchange, request: RequestHead, vary_names: tuple[bytes, ...]) -> None:
    """Evaluate what `exchange.found` has and act on it; `vary_names`: what a shared fetch has told of the variant."""
    store, rules, found = exchange.worker.store, exchange.routed.rules, exchange.found
    assert store is not None and rules is not None
    now = store.clock()
    variants = found.variants if found is not None else ()
    decision = evaluate(request, variants, rules, now)
    if decision.act is Action.MISS and request.method == b"HEAD" and rules.head_as_get and _may_be_get(exchange):
        request = replace(request, method=b"GET")
        decision = evaluate(request, variants, rules, now)
    if store.disk is not None and not exchange.asked_disk and decision.act in _ASKS_DISK:
        if not consult(exchange, lambda: decide(exchange, request, vary_names)):
            return
        if exchange.from_disk:
            decide(exchange, request, vary_names)
            return
    asks = store.shared is not None and not exchange.asked_others and decision.act in _ASKS_DISK
    if asks and not ask_others(exchange, request, lambda: decide(exchange, request, vary_names)):
        return
    stored = decision.stored
    if decision.act in (Action.FRESH, Action.STALE_OK) and found is not None and stored is not None:
        store.index.used(found, stored)
        fresh = decision.act is Action.FRESH
        exchange.reason = "" if fresh else decision.reason.value
        exchange.follower = None
        if decision.refresh:
            refresh(exchange, request, stored)
        prefetcher = exchange.routed.prefetcher
        if prefetcher is not None:
            prefetcher.served(exchange, stored)
        if exchange.from_disk and stored in exchange.from_disk and store.disk is not None:
            store.disk_hits += 1
            store.disk.used(stored)
        verdict = Verdict.HIT if fresh else Verdict.STALE
        serve(exchange, request, stored, verdict, now, lambda: lost(exchange, request, stored, vary_names))
        return
    explain_why(exchange, rules, decision)
    if decision.act is Action.UNSATISFIABLE:
        exchange.verdict = Verdict.MISS.value
        exchange.cache_status = line(unanswered(exchange.reason))
        exchange.fail(OnlyIfCached("nothing stored"))
    elif decision.act is Action.BYPASS and decision.reason is not Reason.METHOD:
        forward_plain(exchange)
    elif not (decision.act is Action.MISS and _fetches_whole(exchange, request)):
        ask(exchange, LookupResult(request, decision, variants), vary_names)


def _fetches_whole(exchange: Exchange, request: RequestHead) -> bool:
    """Whether the whole is fetched for a range of it: not where it is known not to be stored."""
    ranges, store = exchange.routed.ranges, exchange.worker.store
    if ranges is None or store is None or store.flights.marker(exchange.key, monotonic()) is not None:
        return False
    return ranges.fetches_whole(exchange, request, plain_lookup)


def _may_be_get(exchange: Exchange) -> bool:
    """Whether a HEAD may fill the cache: not with a Range, which means nothing to it, nor where nothing is stored."""
    store = exchange.worker.store
    assert store is not None
    return b"range" not in exchange.block.fields and store.flights.marker(exchange.key, monotonic()) is None


def lost(exchange: Exchange, request: RequestHead, stored: Stored, vary_names: tuple[bytes, ...]) -> None:
    """The body that should have answered is missing from its file: decide again as if it had not been stored."""
    store, found = exchange.worker.store, exchange.found
    assert store is not None
    store.index.discard(stored)
    left = tuple(one for one in (found.variants if found is not None else ()) if one is not stored)
    exchange.found = Merged(left) if left else None
    exchange.from_disk = tuple(one for one in exchange.from_disk if one is not stored)
    exchange.from_store = False
    decide(exchange, request, vary_names)


def explain_why(exchange: Exchange, rules: Rules, decision: Decision) -> None:
    """Set the reason for asking the origin, in the words of log, counters and Cache-Status."""
    reason = decision.reason
    store = exchange.worker.store
    shown = word(reason, rules.name)
    if reason is Reason.COLD and store is not None and exchange.key is not None:
        shown = store.absence(exchange.key)
    exchange.reason = shown
    exchange.verdict = (Verdict.BYPASS if decision.act is Action.BYPASS else Verdict.MISS).value
    exchange.cache_status = line(forwarded(forward(reason), detail=shown))


def ask(exchange: Exchange, asked: LookupResult, vary_names: tuple[bytes, ...] = ()) -> None:
    """Fetch from the origin: as leader of a flight, as follower of one, or without sharing."""
    store, route = exchange.worker.store, exchange.routed
    assert store is not None and route.rules is not None
    follower = Follower(exchange, asked, TURNS, store.purge_log.now_seq())
    follower.vary_names = vary_names
    follower.looked_again = exchange.follower is not None
    exchange.follower = follower
    exchange.fetched_as = b"GET" if exchange.method == b"HEAD" and asked.request.method == b"GET" else b""
    if not shareable(asked.request, asked.decision, route.rules):
        fetch(follower, None)
        return
    key = follower.flight_key = flight_key(follower, route.rules)
    flight = store.flights.find(key)
    if flight is not None and store.purged_since(flight, exchange.key or b""):
        store.flights.detach(flight)
    joined = store.flights.join(key, follower, monotonic(), route.rules.collapse_wait_s)
    if isinstance(joined, Lead):
        fetch(follower, joined.flight)
    elif isinstance(joined, Follow):
        follower.flight = joined.flight
        if joined.flight.filling:
            follower.on_attach(joined.flight)
    elif isinstance(joined, Alone):
        follower.on_alone(joined.why)


def look_again(follower: Follower) -> None:
    """A shared fetch was for another variant, or not for this request: decide anew with what is known now."""
    exchange = follower.exchange
    store = exchange.worker.store
    assert store is not None and exchange.key is not None
    exchange.found, exchange.asked_disk = store.index.get(exchange.key), False
    exchange.asked_others = False
    decide(exchange, follower.asked.request, follower.vary_names)


def fetch(follower: Follower, flight: Flight | None) -> None:
    """Lead a flight, or fetch alone."""
    Fill(follower, flight).start()


TURNS = FollowerCallbacks(fetch, look_again)


def shareable(request: RequestHead, decision: Decision, rules: Rules) -> bool:
    """Whether others may wait for this fetch: a plain GET. Conditions, ranges and credentials are one client's, and so
    is the validation of what was kept for nothing else."""
    names = request.fields.names()
    if request.method != b"GET" or not ONE_CLIENTS.isdisjoint(names):
        return False
    if decision.act is not Action.REVALIDATE:
        return CLIENT_OWN.isdisjoint(names) or SLICE in request.apart
    return decision.stored is None or is_for_all(decision.stored, rules)


def flight_key(follower: Follower, rules: Rules) -> Hashable:
    """What makes two fetches the same: the key, what it validates, and what is known of the variant.

    The key alone where there is no more to it, as in `cold`. Who validates a part asks for a range, which whoever
    shares the answer must have asked for as well.
    """
    decision, request, variants = follower.asked.decision, follower.asked.request, follower.asked.variants
    names = follower.vary_names or tuple(name for name, _ in (variants[0].vary if variants else ()))
    stored = decision.stored if decision.act is Action.REVALIDATE else None
    if not names and stored is None:
        return follower.exchange.key
    selected = tuple(comparable(name, request.fields, rules) for name in names)
    asked_range = request.fields.get_all(b"range") if stored is not None and stored.part is not None else ()
    return (follower.exchange.key, None if stored is None else stored.variant, names, selected, asked_range)


# Credentials; a wish for something newer.
ONE_CLIENTS = CERTIFICATE_NAMES | frozenset((b"authorization", b"cache-control", b"pragma"))
_ASKS_DISK = frozenset((Action.MISS, Action.REVALIDATE, Action.STALE_OK, Action.UNSATISFIABLE))
_READ = frozenset((b"GET", b"HEAD"))

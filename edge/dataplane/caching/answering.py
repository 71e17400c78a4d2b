"""Something stored answers a fetch's followers: what it has validated, or what stands in for its failure.

One rule: who has asked is answered at once; who waits is told some at a time, each by the rules for its own request.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from edge.cache.flights import FlightMember, Outcome
from edge.cache.policy import is_for_all, may_serve_stale
from edge.cache.selection import matching
from edge.cache.stored import Stored
from edge.cache.verdict import Failure, Verdict, forward
from edge.dataplane.caching.filling import Filling
from edge.dataplane.caching.follower import Follower
from edge.dataplane.caching.hit import serve
from edge.dataplane.caching.origin_outcome import purged_for, stand_in
from edge.http.cache_status import forwarded, line


def serve_all(fill: Filling, stored: Stored, verdict: Verdict, now: float, own: bytes = b"") -> None:
    """Answer all followers and waiting requests from what was just validated; the first client also gets its `own`
    lines.
    """
    for follower in list(fill.followers):
        _serve(fill, follower, stored, verdict, now, own)
    if not is_for_all(stored, fill.rules):  # it was validated for who asked, and for nobody else
        fill.settle(Outcome.UNCACHEABLE)
    else:
        _answer_waiting(fill, partial(_collapsed, fill, stored))


def stands_in(fill: Filling, failure: Failure, now: float) -> bool:
    """Serve what is stored instead of a failure, where every rule allows it; false when the first may not."""
    stored = stand_in(fill, fill.request, failure, now)
    if stored is None:
        return False
    for follower in list(fill.followers):
        follower.exchange.reason = f"{failure.value}-error"
        _serve(fill, follower, stored, Verdict.STALE, now)
    _answer_waiting(fill, partial(_stale, fill, stored, failure))
    return True


def _answer_waiting(fill: Filling, give: Callable[[FlightMember], bool]) -> None:
    flight, fill.flight = fill.flight, None
    if flight is not None:
        fill.store.flights.answered(flight, give)


def _collapsed(fill: Filling, stored: Stored, member: FlightMember) -> bool:
    if not isinstance(member, Follower) or purged_for(fill, member, stored.key, stored.tags):
        return False
    if not matching(member.asked.request.fields, (stored,), fill.rules):  # it has another Vary now
        return False
    _serve(fill, member, stored, Verdict.COLLAPSED, fill.store.clock())
    return True


def _stale(fill: Filling, stored: Stored, failure: Failure, member: FlightMember) -> bool:
    now = fill.store.clock()
    if not isinstance(member, Follower):
        return False
    if not may_serve_stale(stored, member.asked.request, fill.rules, now, failure):
        return False
    member.exchange.reason = f"{failure.value}-error"
    _serve(fill, member, stored, Verdict.STALE, now)
    return True


def _serve(fill: Filling, follower: Follower, stored: Stored, verdict: Verdict, now: float, own: bytes = b"") -> None:
    _let_go(fill, follower)
    exchange = follower.exchange
    if verdict is not Verdict.STALE:
        why, status = forward(fill.decision.reason), 304 if fill.request.method == b"GET" else 200
        collapsed, ttl_s = verdict is Verdict.COLLAPSED, stored.ttl(now)
        told = forwarded(why, status=status, collapsed=collapsed, ttl_s=ttl_s, detail=exchange.reason)
        exchange.cache_status = line(told) + own
    serve(exchange, follower.asked.request, stored, verdict, now)


def _let_go(fill: Filling, follower: Follower) -> None:
    flight = follower.flight
    follower.exchange.follower = follower.fill = follower.flight = None
    fill.followers.pop(follower, None)
    if flight is not None:
        fill.store.flights.leave(flight, follower)

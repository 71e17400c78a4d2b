"""What the head of a fetch makes of what is stored: validated, updated by a HEAD, completed, stood in for, displaced.

    304 to our conditions   → `validated`     the stored response with new fields, for those who asked
    200 to a HEAD           → `after_head`    the same, or stale where it contradicts
    206 to `bytes=<len>-`   → `completed`     the plan of the whole
    5xx, no answer          → `stand_in`      the stored response, stale, where every rule allows
    any other               → `displace`      the stored response goes, unless it is still fresh

One rule: what a purge named since the fetch began is neither served nor put back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge.cache.freshness import Times
from edge.cache.policy import displaces, evaluate, may_serve_stale
from edge.cache.purge import PurgeState
from edge.cache.revalidate import HeadEffect, combined, head_outcome, selected, updated
from edge.cache.selection import matching
from edge.cache.stored import Plan, Stored, build, supersedes
from edge.cache.verdict import Action, Failure, Reason
from edge.http.message import RequestHead, ResponseHead

if TYPE_CHECKING:
    from edge.dataplane.caching.filling import Filling
    from edge.dataplane.caching.follower import Follower

# Answers that tell what the resource is now. Others (5xx, 401, 429 …) speak of this request or this moment.
_TELLING = frozenset((200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 410))


def validated(fill: Filling, response: ResponseHead, times: Times) -> Stored | None:
    """The stored response that a 304 to our own conditions selects, updated; None: ask again without conditions."""
    decision = fill.decision
    candidates: tuple[Stored, ...] = ()
    if decision.act is Action.REVALIDATE and decision.stored is not None:
        candidates = (decision.stored,)
    elif decision.offers:
        candidates = tuple(one for one in fill.variants if one.etag in decision.offers)
    chosen = selected(candidates, response)
    if chosen is None or is_gone(fill, chosen):
        return None
    now = times.received_at
    fresh = updated(chosen, response, fill.request, fill.rules, times)
    if not fresh.keepable:
        if displaces(chosen, now):
            fill.store.discard(chosen)
    elif decision.act is Action.REVALIDATE or fresh.vary == chosen.vary or chosen.language is not None:
        fill.store.replace(chosen, fresh, fill.seq, now)  # also where it has another Vary from now on
    else:  # offered to a request that selects another place: it is there in both (RFC 9111 4.1)
        fill.store.put(fresh, fill.seq, now)
    return fresh


def after_head(fill: Filling, response: ResponseHead, times: Times) -> Stored | None:
    """What a forwarded HEAD does to the stored GET (RFC 9111 4.3.5); what to answer from when it was updated."""
    stored = fill.decision.stored
    if stored is None or fill.request.method != b"HEAD":
        return None
    outcome = head_outcome(stored, response, fill.request, fill.rules, times)
    if outcome.effect is HeadEffect.NOTHING:
        return None
    fill.store.replace(stored, outcome.stored, fill.seq, times.received_at)
    return outcome.stored if outcome.effect is HeadEffect.UPDATED else None


def completed(fill: Filling, response: ResponseHead, times: Times) -> tuple[Stored, Plan] | None:
    """A stored beginning and the plan of the whole; None where what came is not the rest of it."""
    stored = fill.decision.stored
    if stored is None or is_gone(fill, stored):
        return None
    plan = combined(stored, response, fill.request, fill.rules, times)
    return None if plan is None else (stored, plan)


def asks_rest(fill: Filling) -> bool:
    """Whether the fetch asks only for the rest of a stored beginning."""
    decision = fill.decision
    return decision.act is Action.MISS and decision.reason is Reason.RANGE and decision.stored is not None


def stand_in(fill: Filling, request: RequestHead, failure: Failure, now: float) -> Stored | None:
    """The stored response to use instead of a failure, where every rule allows it, else None."""
    stored = fill.decision.stored
    if stored is None or (stored.part is not None and b"range" not in request.fields):
        return None
    if fill.decision.reason is Reason.RANGE or is_gone(fill, stored):
        return None
    return stored if may_serve_stale(stored, request, fill.rules, now, failure) else None


def displace(fill: Filling, response: ResponseHead, now: float) -> None:
    """Remove a stale response because the origin sent a newer one that is not stored."""
    stored = fill.decision.stored
    if stored is None or fill.request.method != b"GET" or response.status not in _TELLING:
        return
    if fill.decision.act is Action.REVALIDATE and displaces(stored, now):
        fill.store.discard(stored)


def refused(fill: Filling, plan: Plan, now: float) -> Reason | None:
    """Why the index would not take a response that may be stored: too many variants, or too few uses."""
    index, rules = fill.store.index, fill.rules
    found = index.peek(plan.key)
    variants = found.variants if found is not None else fill.variants
    if not variants:
        return None if index.enough_uses(plan.key, rules.min_uses) else Reason.COLD
    living = [one.vary for one in variants if one.keep_until > now]
    return Reason.VARY_LIMIT if len(living) >= rules.vary_limit and plan.vary not in living else None


def outrun(fill: Filling, stored: Stored, now: float) -> bool:
    """Whether another fetch, whose answer came later, was complete earlier; then what it stored stays."""
    found = fill.store.rivals(stored)
    return any(supersedes(stored, one) and stored.received_at < one.received_at <= now for one in found)


def is_gone(fill: Filling, stored: Stored) -> bool:
    """Whether the stored response was purged during the fetch, or its body's file is missing."""
    if fill.store.purge_log.admit(fill.seq, stored.key, stored.tags).verdict is PurgeState.GONE:
        return True
    if stored.file is None:
        return False
    opened = fill.store.disk.open_body(stored) if fill.store.disk is not None else None
    if opened is not None:
        opened.close()
    return opened is None


def accepts(fill: Filling, follower: Follower, plan: Plan, late: bool) -> bool:
    """Whether the response that is being stored is for this follower too.

    What was asked for before the head came may share it even when it is stale at once (RFC 9111 4); who comes later
    (`late`) only while it is fresh. Nobody who asked after a purge shares what was fetched before it.
    """
    follower.vary_names = tuple(name for name, _ in plan.vary)
    if purged_for(fill, follower, plan.key, plan.tags):
        return False
    probe = fill.probe
    if probe is None:
        probe = fill.probe = build(replace(plan, length=None, part=None), ())
    request = follower.asked.request
    if late:
        return evaluate(request, (probe,), fill.rules, fill.store.clock()).act is Action.FRESH
    return bool(matching(request.fields, (probe,), fill.rules))


def purged_for(fill: Filling, follower: Follower, key: bytes, tags: frozenset[bytes]) -> bool:
    """Whether a purge came between the start of the fetch and this request."""
    admit = fill.store.purge_log.admit
    return (
        admit(fill.seq, key, tags).verdict is not PurgeState.KEPT
        and admit(follower.seq, key, tags).verdict is PurgeState.KEPT
    )

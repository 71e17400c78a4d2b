"""May a request be answered from store (RFC 9111 4), and may a stored response stand in when the origin fails.

Pure functions of heads, rules and `now`; each "no" is a named reason. One rule: in doubt the origin is asked. What
`storing` (re-exported here, it has a file of its own) worked out when the response came is only compared here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.cache.freshness import Times as Times
from edge.cache.freshness import policy
from edge.cache.key import cookies
from edge.cache.rules import Directives, Rules
from edge.cache.selection import matching
from edge.cache.stored import Plan, Stored
from edge.cache.storing import storing as storing
from edge.cache.verdict import Action, Failure, Reason
from edge.http.cache_control import NONE, CacheControl, request_control
from edge.http.conditional import CONDITIONS, range_applies
from edge.http.fields import is_tag, too_many_cookies
from edge.http.message import Fields, RequestHead
from edge.http.paths import below, hides_separator, literal_path, normal_path
from edge.http.ranges import Spec, parse_range, within

MOST_OFFERS = 8


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a request, and why.

    `stored` is what to answer from (FRESH, STALE_OK) or to validate (REVALIDATE). With MISS it is, for HEAD, what the
    forwarded HEAD's answer may update, and for GET a stored beginning whose rest may be asked for.
    `offers` are the ETags of variants that do not match (MISS for Reason.VARY).
    """

    act: Action
    reason: Reason
    stored: Stored | None = None
    offers: tuple[bytes, ...] = ()
    refresh: bool = False  # STALE_OK: within stale-while-revalidate, so validate in the background


COLD = Decision(Action.MISS, Reason.COLD)


def evaluate(request: RequestHead, variants: Sequence[Stored], rules: Rules, now: float) -> Decision:
    """Decide what to do with a request whose key has these stored variants (mostly none or one)."""
    method = request.method
    fields = request.fields
    if method != b"GET" and method != b"HEAD":
        return Decision(Action.BYPASS, Reason.METHOD)
    if (rules.bypasses or rules.key_cookies) and is_bypassed(request, rules):
        return Decision(Action.BYPASS, Reason.RULE)
    control = _directives(fields, rules)
    if control.no_store:
        return Decision(Action.BYPASS, Reason.NO_STORE)
    if variants:
        found = _among(request, variants, rules, now)
        decision = found if isinstance(found, Decision) else _reuse(method, found, control, rules, now)
    else:
        decision = COLD
    if control.only_if_cached and decision.act is not Action.FRESH and decision.act is not Action.STALE_OK:
        return Decision(Action.UNSATISFIABLE, Reason.ONLY_IF_CACHED)
    return decision


def _directives(fields: Fields, rules: Rules) -> CacheControl:
    if rules.request_directives is Directives.IGNORE:
        return NONE
    return request_control(fields)


def is_bypassed(request: RequestHead, rules: Rules) -> bool:
    """Whether the operator's rules keep such a request away from the cache, for look-up and storing."""
    fields = request.fields
    if any(name in fields for name in rules.bypass_headers):
        return True
    if rules.bypassing_paths and is_path_bypassed(request.target, rules):
        return True
    if b"cookie" not in fields or not (rules.bypass_cookies or rules.key_cookies):
        return False
    if too_many_cookies(fields):  # one that matters may be among those that are not read
        return True
    return bool(rules.bypass_cookies) and rules.bypassing_cookies.meet(cookies(fields))


def is_path_bypassed(target: bytes, rules: Rules) -> bool:
    """Whether the rules keep the path away from the cache; with an encoded separator, either reading of it counts."""
    path, prefixes = normal_path(target), rules.bypassing_paths
    if any(below(path, prefix) for prefix in prefixes):
        return True
    return hides_separator(target) and any(below(literal_path(target), prefix) for prefix in prefixes)


def _among(request: RequestHead, variants: Sequence[Stored], rules: Rules, now: float) -> Stored | Decision:
    """The most recent variant that matches and can give what is asked, still to be judged, or why there is none."""
    found = matching(request.fields, variants, rules)
    if not found:
        return Decision(Action.MISS, Reason.VARY, offers=_offers(request, variants))
    best: Stored | None = None
    asked = _range_of(request) if any(stored.part is not None for stored in found) else None
    for stored in found:
        if (best is None or stored.received_at > best.received_at) and (
            stored.part is None or _part_answers(request, stored, asked)
        ):
            best = stored
    if best is not None:
        return best
    return Decision(Action.MISS, Reason.RANGE, _beginning(request, found, now))


def _range_of(request: RequestHead) -> tuple[Spec, ...] | None:
    """The one range that is asked for; None where there is none, or more."""
    value = request.fields.joined(b"range") if request.method == b"GET" else None
    specs = parse_range(value)
    return specs if specs is not None and len(specs) == 1 else None


def _part_answers(request: RequestHead, stored: Stored, asked: tuple[Spec, ...] | None) -> bool:
    """A part answers GETs of one range within it, and nothing else (RFC 9111 3.3)."""
    if stored.part is None or within(asked, stored.part, stored.length) is None:
        return False
    return b"if-range" not in request.fields or range_applies(request.fields, stored.head.fields)


def _beginning(request: RequestHead, found: list[Stored], now: float) -> Stored | None:
    """A fresh stored beginning, where the whole is wanted without conditions."""
    fields = request.fields
    if request.method != b"GET" or b"range" in fields or not CONDITIONS.isdisjoint(fields.names()):
        return None
    for stored in found:
        part = stored.part
        begins = part is not None and part.first == 0 and not part.at_end and stored.length == len(part)
        beginning = begins and stored.file is None  # its bytes are at hand
        if beginning and stored.is_fresh(now) and not stored.no_cache:
            return stored
    return None


def _offers(request: RequestHead, variants: Sequence[Stored]) -> tuple[bytes, ...]:
    """ETags a 304 may choose from. None beside the client's own conditions, which go through as they are."""
    fields = request.fields
    if request.method != b"GET" or b"range" in fields or not CONDITIONS.isdisjoint(fields.names()):
        return ()
    latest = sorted((one for one in variants if one.etag and one.part is None), key=lambda one: -one.received_at)
    tags = dict.fromkeys(one.etag for one in latest if one.etag is not None and is_tag(one.etag))
    return tuple(tags)[:MOST_OFFERS]


def _reuse(method: bytes, stored: Stored, control: CacheControl, rules: Rules, now: float) -> Decision:
    """May the selected response be used without asking (RFC 9111 4, 4.2.4, 5.2.1)?"""
    ttl = stored.fresh_until - now
    if stored.no_cache:
        return _validate(method, stored, Reason.NO_CACHE)
    if control is not NONE and _client_objects(stored, control, ttl, now):
        return _validate(method, stored, Reason.REQUEST)
    if stored.is_ahead(now):
        return _validate(method, stored, Reason.STALE)
    if ttl > 0:
        return Decision(Action.FRESH, Reason.FRESH, stored)
    if not stored.must_revalidate:
        refreshing = -ttl < stored.swr_s
        wanted = control.max_stale is not None and -ttl <= control.max_stale and is_for_all(stored, rules)
        if refreshing or wanted:
            return Decision(Action.STALE_OK, Reason.STALE, stored, refresh=refreshing)
    return _validate(method, stored, Reason.STALE)


def _client_objects(stored: Stored, control: CacheControl, ttl: float, now: float) -> bool:
    if control.no_cache:
        return True
    if control.max_age is not None:
        age = max(now, stored.received_at) - stored.born
        if age > control.max_age or control.max_age == 0:  # 0 asks for validation whatever the clock's grain
            return True
    return control.min_fresh is not None and ttl < control.min_fresh


def _validate(method: bytes, stored: Stored, reason: Reason) -> Decision:
    # A HEAD is forwarded as it is; what comes back updates the stored GET (RFC 9111 4.3.5).
    return Decision(Action.MISS if method == b"HEAD" else Action.REVALIDATE, reason, stored)


def is_for_all(response: Stored | Plan, rules: Rules) -> bool:
    """Whether other requests may be answered with it without asking the origin: the origin said that it stays good
    for a while, or that it is public. What is kept only to be validated belongs to its first client.
    """
    if response.no_cache:
        return False
    if response.lifetime_s > 0:
        return True
    fields = response.fields if isinstance(response, Plan) else response.head.fields
    return policy(fields, rules).public


def may_serve_stale(stored: Stored, request: RequestHead, rules: Rules, now: float, failure: Failure) -> bool:
    """Whether a stored response may stand in for a failed request to the origin (RFC 9111 4.2.4, 5861 4).

    A fresh one may too, where only the client had wanted it validated. STATUS needs stale-if-error, of the response,
    the rules or the request; where the origin cannot be asked at all, what is still kept may be served. What was kept
    only to be validated stands in within its own stale-if-error and not otherwise, whatever the client would take.
    """
    if stored.no_cache:
        return False
    if now < stored.fresh_until:
        return True
    if stored.must_revalidate:
        return False
    if now < stored.sie_until:
        return True
    if not is_for_all(stored, rules):
        return False
    if failure is not Failure.STATUS:
        return now < stored.keep_until
    asked = _directives(request.fields, rules).stale_if_error
    return asked is not None and now < stored.fresh_until + asked


def displaces(stored: Stored, now: float) -> bool:
    """Whether a newer response that may not be stored removes the stored one: only when that is no longer fresh."""
    return not stored.is_fresh(now)

"""May this response be stored, and as what (RFC 9111 3, 5.2.2)?

One rule: every condition that fails has a Reason; what passes all becomes a Plan with every time and list worked out.
"""

from __future__ import annotations

from edge.cache.freshness import HEURISTIC, Lifetime, Times, initial_age, lifetime, overrides, policy
from edge.cache.invalidate import is_own_uri, origin_tag
from edge.cache.key import key_of
from edge.cache.rules import Directives, Rules, SetCookie
from edge.cache.selection import CLIENT_BOUND, comparable, content_language, selecting
from edge.cache.stored import MAX_VARY, Plan, Selecting, with_date
from edge.cache.verdict import Reason, Source
from edge.http.cache_control import CacheControl, request_control
from edge.http.credentials import CERTIFICATE_NAMES
from edge.http.fields import members, one_tag, vary_names
from edge.http.hopbyhop import dropped_names, storable
from edge.http.message import Fields, RequestHead, ResponseHead
from edge.http.ranges import ContentRange, parse_content_range
from edge.http.structured import ItemKind, parse_list

# Statuses whose caching rules are known here: what must-understand asks for (RFC 9111 5.2.2.3).
UNDERSTOOD = HEURISTIC | {302, 303, 307, 400, 401, 403, 406, 409, 411, 413, 415, 421, 422, 429, 500, 502, 503, 504}
MAX_TAGS = 1024  # of one response: storing it and taking it out cost time by them
# Answers to a client's own condition, range or expectation: nobody else's request deserves them.
_PERSONAL = frozenset((304, 412, 416, 417))


def storing(request: RequestHead, response: ResponseHead, rules: Rules, times: Times) -> Plan | Reason:
    """The plan to store a final response by, or why it is not stored. `request` is the one that was forwarded for.

    For POST: 200 with explicit freshness and a Content-Location that is the request's own URI answers later GETs.
    """
    if request.method not in (b"GET", b"POST"):
        return Reason.METHOD
    if response.status < 200 or response.status in _PERSONAL or response.misframed:
        return Reason.STATUS
    part = None
    if response.status == 206:
        part = _part(request, response)
        if part is None:
            return Reason.RANGE
    return plan(request, response, rules, times, part)


def plan(
    request: RequestHead, response: ResponseHead, rules: Rules, times: Times, part: ContentRange | None
) -> Plan | Reason:
    """As `storing`, for a head whose status was already found good; updates of stored responses enter here."""
    fields = response.fields
    control = policy(fields, rules)
    overridden = overrides(response, rules)
    asked = _as_sent(request.fields)
    life = lifetime(control, response, rules, times.received_at)
    vary = _selecting(fields, asked, rules) if overridden else selecting(fields, asked, rules)
    kept = _kept(fields, control, rules)
    refusal = (
        _refused_by_origin(request, response, control, rules, overridden)
        or (Reason.VARY_STAR if vary is None else Reason.VARY_LIMIT if len(vary) > MAX_VARY else None)
        or _refused_for_sharing(asked, kept, control, rules)
        or _refused_as_useless(request, response, control, life)
        or (Reason.RULE if overridden and life.seconds <= 0 else None)
    )
    named = tags(request, fields)
    if refusal is None and named is None:
        refusal = Reason.TAGS
    length = _announced(fields)
    if refusal is None and length is not None and length > rules.max_object_bytes:
        refusal = Reason.SIZE
    if refusal is not None or vary is None or named is None:
        return refusal or Reason.VARY_STAR
    stale_ok = not (control.revalidate or (control.no_cache and not overridden))
    # The operator's stale windows are for what is for all; what is kept only to be validated has its own, or none.
    for_all = life.seconds > 0 or control.public
    told = (control.stale_while_revalidate, control.stale_if_error)
    swr, sie = (None, None) if rules.override_stale else told
    default_swr, default_sie = (rules.stale_while_revalidate_s, rules.stale_if_error_s) if for_all else (0.0, 0.0)
    return Plan(
        key=key_of(request, rules),
        status=response.status,
        reason=response.reason,
        fields=with_date(kept, times.received_at),
        vary=vary,
        received_at=times.received_at,
        born=times.received_at - initial_age(fields, times),
        lifetime_s=life.seconds,
        source=life.source,
        swr_s=(default_swr if swr is None else swr) if stale_ok else 0,
        sie_s=(default_sie if sie is None else sie) if stale_ok else 0,
        outage_s=rules.stale_on_outage_s if stale_ok and for_all else 0,
        keep_s=rules.keep_s,
        must_revalidate=control.revalidate,
        no_cache=control.no_cache and not overridden,
        plain_hits=not (rules.bypass_cookies or rules.bypass_headers),
        etag=one_tag(kept),
        tags=named,
        language=content_language(fields, vary),
        part=part,
        length=length,
    )


def _as_sent(fields: Fields) -> Fields:
    """The request's lines as the origin saw them: without those that the client's Connection names."""
    return fields.without(dropped_names(fields)) if b"connection" in fields else fields


def _part(request: RequestHead, response: ResponseHead) -> ContentRange | None:
    """The part that a storable 206 holds: asked for, one range, and no longer than it says."""
    fields = response.fields
    if request.method != b"GET" or b"range" not in request.fields:
        return None
    part = parse_content_range(fields.joined(b"content-range"))
    length = _announced(fields)
    if part is None or (length is not None and not 0 < length <= len(part)):
        return None
    return part


def _announced(fields: Fields) -> int | None:
    value = fields.joined(b"content-length")
    return int(value) if value is not None and value.isdigit() and len(value) < 19 else None


def _selecting(response: Fields, request: Fields, rules: Rules) -> Selecting:
    """Under override_ttl a `*` in Vary does not count, the names beside it do."""
    named = Fields(
        (b"Vary", member) for value in response.get_all(b"vary") for member in members(value) if member != b"*"
    )
    names = vary_names(named) or ()
    return tuple((name, comparable(name, request, rules)) for name in names if name not in CLIENT_BOUND)


def _refused_by_origin(
    request: RequestHead, response: ResponseHead, control: CacheControl, rules: Rules, overridden: bool
) -> Reason | None:
    if rules.request_directives is Directives.HONOUR and request_control(request.fields).no_store:
        return Reason.NO_STORE
    if overridden:
        return None
    if control.must_understand:
        if response.status not in UNDERSTOOD:
            return Reason.STATUS
    elif control.no_store:
        return Reason.NO_STORE
    return Reason.PRIVATE if control.private else None


def _refused_for_sharing(asked: Fields, kept: Fields, control: CacheControl, rules: Rules) -> Reason | None:
    if not _CREDENTIALS.isdisjoint(asked.names()) and not control.shared:  # RFC 9111 3.5
        return Reason.AUTHORIZATION
    if rules.set_cookie is SetCookie.REFUSE and not _COOKIES.isdisjoint(kept.names()):
        return Reason.SET_COOKIE  # `public` or not: a cookie is one client's
    return None


def _refused_as_useless(
    request: RequestHead, response: ResponseHead, control: CacheControl, life: Lifetime
) -> Reason | None:
    fields = response.fields
    if request.method == b"POST":
        location = fields.joined(b"content-location")
        if response.status != 200 or location is None or not is_own_uri(request, location):
            return Reason.METHOD
        return None if life.explicit else Reason.NO_FRESHNESS
    if life.explicit or life.source is Source.HEURISTIC or control.public:
        return None
    # A validator alone makes storable only what is heuristically cacheable (RFC 9111 3): not a passing 502 or 201.
    validated = b"etag" in fields or b"last-modified" in fields
    return None if validated and response.status in HEURISTIC else Reason.NO_FRESHNESS


def _kept(fields: Fields, control: CacheControl, rules: Rules) -> Fields:
    """The lines that are kept (RFC 9111 3.1), less those that no-cache or private limit to one reuse."""
    kept = storable(fields)
    dropped = _left_out(control, rules)
    return kept if dropped.isdisjoint(kept.names()) else kept.without(dropped)


def _left_out(control: CacheControl, rules: Rules) -> frozenset[bytes]:
    return control.left_out | _COOKIES if rules.set_cookie is SetCookie.STRIP else control.left_out


def unkept(new: Fields, stored: Fields, rules: Rules) -> Fields:
    """The lines of a head that are not `stored`, and that are for the one who asked all the same."""
    dropped = _left_out(policy(stored, rules), rules)
    if dropped.isdisjoint(new.names()):
        return _NO_FIELDS
    return Fields(line for line in storable(new).lines if line[0].lower() in dropped)


def tags(request: RequestHead, fields: Fields) -> frozenset[bytes] | None:
    """Surrogate-Key and Cache-Tag by space or comma; Cache-Groups (RFC 9875) also under the name of their origin.

    None when there are too many: a purge of one that was left out would miss the response.
    """
    found: set[bytes] = set()
    for name in (b"surrogate-key", b"cache-tag"):
        for value in fields.get_all(name):
            words = value.replace(b",", b" ").replace(b"\t", b" ")
            if words.count(b" ") > 4 * MAX_TAGS:
                return None
            found.update(words.split(b" "))
    groups = fields.joined(b"cache-groups")
    for item in parse_list(groups) or () if groups is not None else ():
        if item.kind is ItemKind.STRING and isinstance(item.value, bytes):
            found.update((item.value, origin_tag(request, item.value)))
    found.discard(b"")
    if len(found) > MAX_TAGS:
        return None
    return frozenset(found) if found else _NO_TAGS


_NO_TAGS: frozenset[bytes] = frozenset()
_NO_FIELDS = Fields()
_CREDENTIALS = CERTIFICATE_NAMES | {b"authorization"}
_COOKIES = frozenset((b"set-cookie", b"set-cookie2"))

"""The words for what the cache decided and why: the same in the log, in Cache-Status, in counters and in tests.

One rule: every "no" has a name here. No code compares these by their text.
"""

from __future__ import annotations

from enum import Enum

from edge.http.cache_status import Forward


class Verdict(Enum):
    """What became of a request, in the end."""

    HIT = "hit"
    STALE = "stale"
    REVALIDATED = "revalidated"
    MISS = "miss"
    COLLAPSED = "collapsed"
    BYPASS = "bypass"
    ERROR = "error"


class Action(Enum):
    """What a look-up tells the caller to do."""

    FRESH = "fresh"  # answer from `stored`
    STALE_OK = "stale-ok"  # answer from `stored`; refresh it in the background where `refresh`
    REVALIDATE = "revalidate"  # ask the origin under `stored`'s validators
    MISS = "miss"  # ask the origin; what comes may be stored
    BYPASS = "bypass"  # ask the origin; neither answer from store nor store
    UNSATISFIABLE = "unsatisfiable"  # only-if-cached and nothing to use: 504


class Reason(Enum):
    """Why. The first block are reasons not to store or not to answer from store."""

    NO_STORE = "no-store"
    PRIVATE = "private"
    SET_COOKIE = "set-cookie"
    AUTHORIZATION = "authorization"
    VARY_STAR = "vary-star"
    VARY_LIMIT = "vary-limit"
    STATUS = "status"
    SIZE = "size"
    TAGS = "tags"  # too many
    NO_FRESHNESS = "no-freshness"
    RULE = "rule"  # shown as rule:<name>
    METHOD = "method"
    RANGE = "range"
    UNCACHEABLE_MEMORY = "uncacheable-memory"
    EVICTED = "evicted"
    PURGED = "purged"
    COLD = "cold"

    FRESH = "fresh"
    STALE = "stale"
    NO_CACHE = "no-cache"  # the response wants validation before each reuse
    REQUEST = "request"  # the client's directives want it
    VARY = "vary"  # stored, but not for such a request
    ONLY_IF_CACHED = "only-if-cached"


class Source(Enum):
    """What a lifetime comes from, in the order in which they win."""

    OVERRIDE = "override"  # the operator's override_ttl
    TARGETED = "targeted"
    S_MAXAGE = "s-maxage"
    MAX_AGE = "max-age"
    EXPIRES = "expires"
    RULE = "rule"  # the operator's lifetime where the origin gave none
    HEURISTIC = "heuristic"
    NONE = "none"


class Failure(Enum):
    """How asking the origin failed."""

    CONNECT = "connect"  # not reached, or closed without a response
    STATUS = "status"  # 500, 502, 503 or 504 came
    OUTAGE = "outage"  # the region is unhealthy, no backend is left


_FORWARD = {
    Reason.METHOD: Forward.METHOD,
    Reason.VARY: Forward.VARY_MISS,
    Reason.RANGE: Forward.PARTIAL,
    Reason.STALE: Forward.STALE,
    Reason.NO_CACHE: Forward.STALE,
    Reason.REQUEST: Forward.REQUEST,
    Reason.NO_STORE: Forward.REQUEST,
    Reason.RULE: Forward.BYPASS,
    Reason.UNCACHEABLE_MEMORY: Forward.BYPASS,
}


def word(reason: Reason, rule: str) -> str:
    """The reason as it is shown; `rule` is the name of the route's rules."""
    return f"rule:{rule}" if reason is Reason.RULE else reason.value


def forward(reason: Reason) -> Forward:
    """The RFC 9211 word for a look-up's reason to ask the origin."""
    return _FORWARD.get(reason, Forward.URI_MISS)

"""The caching rules of one route, compiled from its `cache` table; every field is one key of the operator's file.

Values only: the defaults here are the defaults of the product (`config.py` documents each for operators).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from edge.cache.names import Names
from edge.http.forwarding import OVERRIDES
from edge.http.paths import normal_path


class SetCookie(Enum):
    """What to do with a storable response that carries Set-Cookie."""

    REFUSE = "refuse"
    STORE = "store"
    STRIP = "strip"


class Ranges(Enum):
    """What to do with a Range request when nothing is stored."""

    FORWARD = "forward"
    WHOLE = "whole"
    SLICE = "slice"


class Directives(Enum):
    """Whether request directives (RFC 9111 5.2.1) are honoured or ignored."""

    HONOUR = "honour"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Rules:
    """One route's caching rules. Durations in seconds, sizes in bytes, names in lower case bytes."""

    name: str = "default"  # shown as rule:<name>
    default_ttl_s: float = 0.0  # lifetime where the origin gave none; 0 = as RFC 9111 says
    status_ttl_s: dict[int, float] = field(default_factory=dict)  # lifetime by status, where the origin gave none
    override_ttl_s: float | None = None  # operator's lifetime; wins over everything, no-store and private too
    bypass_cookies: tuple[bytes, ...] = ()  # names or globs; a request that carries one is not answered nor stored
    bypass_headers: tuple[bytes, ...] = ()
    bypass_paths: tuple[bytes, ...] = ()  # path prefixes (by segment)
    ignore_query: tuple[bytes, ...] = ()  # argument names or globs, dropped from the key only
    only_query: tuple[bytes, ...] | None = None
    sort_query: bool = False
    key_headers: tuple[bytes, ...] = ()
    key_cookies: tuple[bytes, ...] = ()  # names or globs
    drop_headers: tuple[bytes, ...] = tuple(OVERRIDES)  # request fields that would change an answer without the key
    set_cookie: SetCookie = SetCookie.REFUSE
    request_directives: Directives = Directives.HONOUR
    stale_if_error_s: float = 0.0  # when the origin gave none
    stale_while_revalidate_s: float = 0.0
    stale_on_outage_s: float = 0.0  # outage stretch: region unhealthy or no backend
    override_stale: bool = False  # these three win over what the origin gave
    keep_s: float = 3600.0  # past freshness and stale windows, for conditional refetch
    heuristic_fraction: float = 0.1
    heuristic_max_s: float = 86400.0
    max_object_bytes: int = 32 * 1024 * 1024
    min_uses: int = 1
    vary_limit: int = 64  # variants per URL
    normalise_encoding: tuple[bytes, ...] | None = None  # codings the route serves; None = compare as sent
    normalise_language: bool = True
    ranges: Ranges = Ranges.FORWARD
    slice_bytes: int = 1024 * 1024  # of each slice, where there are some
    head_as_get: bool = False  # a HEAD of which nothing is stored is fetched as GET, and fills the store
    targets: tuple[bytes, ...] = (b"cdn-cache-control",)
    collapse_wait_s: float = 5.0
    # Derived, so that a look-up asks one question instead of five, and compiles no pattern:
    plain_key: bool = field(init=False, default=True)  # the key is just the URI
    bypasses: bool = field(init=False, default=False)  # some request may be kept away from the cache
    bypassing_cookies: Names = field(init=False, default=Names(()), repr=False, compare=False)
    keyed_cookies: Names = field(init=False, default=Names(()), repr=False, compare=False)
    ignored_query: Names = field(init=False, default=Names(()), repr=False, compare=False)
    kept_query: Names | None = field(init=False, default=None, repr=False, compare=False)
    bypassing_paths: tuple[bytes, ...] = field(init=False, default=())  # in the form that is compared
    withheld: frozenset[bytes] = field(init=False, default=OVERRIDES)  # request fields that no backend may see

    def __post_init__(self) -> None:
        paths = tuple(normal_path(path).rstrip(b"/") for path in self.bypass_paths)
        object.__setattr__(self, "bypassing_paths", paths)
        withheld = frozenset(self.drop_headers).difference(self.key_headers)
        object.__setattr__(self, "withheld", OVERRIDES if withheld == OVERRIDES else withheld)
        keyed = self.ignore_query or self.only_query is not None or self.sort_query
        object.__setattr__(self, "plain_key", not (keyed or self.key_headers or self.key_cookies))
        object.__setattr__(self, "bypasses", bool(self.bypass_cookies or self.bypass_headers or self.bypass_paths))
        object.__setattr__(self, "bypassing_cookies", Names(self.bypass_cookies))
        object.__setattr__(self, "keyed_cookies", Names(self.key_cookies))
        object.__setattr__(self, "ignored_query", Names(self.ignore_query))
        only = None if self.only_query is None else Names(self.only_query)
        object.__setattr__(self, "kept_query", only)

"""One route of the running configuration, and what it knows of the pool that serves it.

One rule: a route is what was configured and what is counted for it; it does nothing by itself. What it holds of other
rooms is named here by what is asked of it, so that everybody may know a route and a route knows nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from edge.balance.backend import Backend
from edge.balance.geo import NO_GEO_POLICY, GeoPolicy
from edge.balance.latency import Ewma
from edge.balance.pool import Pool
from edge.balance.retry import RetryBudget
from edge.cache.rules import Rules
from edge.cache.stored import Stored
from edge.dataplane.rules.coded import CodedForms
from edge.dataplane.rules.compiled import NO_RULES, RuleSet
from edge.dataplane.rules.steps import Lasting
from edge.errors import BadRequest, Denied, MethodNotAllowed, UpstreamError
from edge.http.forwarding import Networks
from edge.http.message import Fields, RequestHead
from edge.http.paths import below, hides_separator, normal_path
from edge.http.text import quote_text
from edge.metrics import Meter
from edge.ports import Link, Timeouts

if TYPE_CHECKING:
    from edge.dataplane.rules.bodies import Bodies
    from edge.dataplane.rules.delivery import Delivery
    from edge.dataplane.rules.matching import Match
    from edge.dataplane.rules.outbound import Outbound
    from edge.dataplane.rules.service import Service
    from edge.dataplane.rules.shares import Affinity
    from edge.dataplane.rules.steps import Step

PURGE_METHODS = frozenset((b"PURGE", b"BAN", b"REFRESH"))  # what caches behind this one may take for an order
NOBODY = Networks()


class HashRule(Protocol):
    """Gives the value that consistent hashing uses (`upstream.hashing`)."""

    on: str

    def value(self, target: bytes, client: str, fields: Fields) -> bytes: ...
    def hint(self, exchange: Any) -> int: ...


class RunningPool(Protocol):
    """A pool as a worker runs it (`upstream.pool`). `Any`: an exchange, a fetch."""

    name: str
    pool: Pool
    budget: RetryBudget
    refused_at: float

    @property
    def hash_on(self) -> HashRule | None: ...
    @property
    def links(self) -> Mapping[str, Link]: ...
    @property
    def fallback(self) -> RunningPool | None: ...
    @property
    def queued(self) -> int: ...
    def select(self, exchange: Any, tried: Sequence[Backend], now: float) -> Backend | None: ...
    def full(self, exchange: Any, tried: Sequence[Backend], now: float) -> bool: ...
    def link(self, backend: Backend) -> Link: ...
    def began(self, link: Link, attempts: int) -> None: ...
    def failed(self, link: Link, error: UpstreamError) -> None: ...
    def ended(self, attempts: int) -> None: ...
    def enqueue(self, fetch: Any, now: float) -> None: ...
    def postpone(self, fetch: Any, now: float) -> bool: ...
    def come_back(self, fetch: Any, due: float) -> bool: ...
    def dequeue(self, fetch: Any) -> None: ...


class RangeRule(Protocol):
    """How ranges are fetched of a response that is not stored (`caching.ranges`). `Any`: an exchange."""

    def slices(self, exchange: Any, usual: Callable[[Any, Any], None]) -> bool: ...
    def first(self, request: RequestHead) -> RequestHead: ...
    def fetches_whole(self, exchange: Any, request: RequestHead, usual: Callable[[Any, Any], None]) -> bool: ...


class Prefetching(Protocol):
    """A route's prefetching (`caching.prefetch`). `Any`: an exchange."""

    def origin_asked(self, now: float) -> None: ...
    def served(self, exchange: Any, stored: Stored) -> None: ...
    def tick(self, store: Any, now: float) -> None: ...
    def stats(self) -> dict[str, Any]: ...
    def renewed(self, made: Any) -> Prefetching: ...


class NoRoute(Denied):
    """No route for this host and path."""

    status = 404


class Misdirected(Denied):
    """No route knows this host at all (RFC 9110 15.5.20)."""

    status = 421


@dataclass(frozen=True, slots=True)
class Retry:
    """Further attempts of a route; the deadline in seconds from the request's start."""

    attempts: int = 2
    deadline: float = 15.0
    statuses: frozenset[int] = frozenset((502, 503, 504))
    hedge: float = 1.0  # seconds without a byte until a second attempt; 0 = never
    same_backend: float = 3.0  # seconds for which those that failed are tried again when nobody else is left; 0 = never


@dataclass(slots=True, eq=False)
class Route:
    """One route of the running configuration."""

    name: str
    host: bytes
    path: bytes
    pool: RunningPool
    rules: Rules | None = None
    preserve_host: bool = True
    max_body: int = 100 * 1024 * 1024
    methods: frozenset[bytes] = frozenset()  # empty = all
    internal: bool = False  # for subrequests of applications alone
    services: Sequence[Service] = ()  # that its rules ask
    looks: bool = False  # each request is looked at before it is served: no fast hit
    refuses: bool = False  # it serves subrequests alone, or some methods alone
    timeouts: Timeouts = field(default_factory=Timeouts)
    retry: Retry = field(default_factory=Retry)
    upgrades: frozenset[bytes] = frozenset((b"websocket",))
    wish: GeoPolicy = NO_GEO_POLICY
    by_place: bool = False  # regions are tried in the order that suits the client's place
    meter: Meter = field(default_factory=Meter)
    waits: list[float] = field(default_factory=list)  # seconds to backends' heads since the last `fold`
    usual: Ewma = field(default_factory=Ewma)  # how long a head takes here
    encoded_slashes: bool = False  # let %2F, %5C and %00 in a path through
    purgers: Networks = NOBODY  # whose PURGE is obeyed
    label: bytes = b""
    allow: bytes = b""  # for the field Allow
    anywhere: bool = True  # any region may serve, in the order of the pool's own view
    prefetcher: Prefetching | None = None  # fetches ahead what its pages name
    ranges: RangeRule | None = None  # None: a range of which nothing is stored is forwarded
    does: RuleSet = NO_RULES  # what it does besides forwarding; the parts that requests ask for:
    match: Match | None = None  # conditions besides host and path
    steps: tuple[Step, ...] = ()  # before the look-up
    outbound: Outbound | None = None  # what a backend gets
    delivery: Delivery | None = None  # what a client gets
    bodies: Bodies | None = None  # pages and codings
    affinity: Affinity | None = None  # to which backend a client comes back
    members: tuple[Route, ...] = ()  # the same route before other pools (`split`, `mirror`)
    dress: Callable[[bytes], bytes] | None = None  # makes a stored head this route's
    coded: CodedForms | None = None  # of what is stored, where the route compresses
    apart: bytes = b""  # what keeps its stored responses from those of other routes for the same URI

    def fold(self, now: float) -> None:
        """Add the counts of the last quarter of a second to the meter; called four times a second."""
        self.meter.fold()
        if self.waits:
            self.usual.observe(sum(self.waits) / len(self.waits), now)
            self.waits.clear()
        for service in self.services:
            service.tick(now)
        for member in self.members:
            if member.waits is not self.waits:
                member.fold(now)

    def take_over(self, lived: Route) -> None:
        """Continue with the counters and run-time state of the same route before a reload."""
        alike = [each for each in self.members if each.waits is self.waits]
        lived.meter.count_by(self.meter.latency.bounds)
        self.meter, self.usual, self.waits = lived.meter, lived.usual, lived.waits
        if self.prefetcher is not None and lived.prefetcher is not None:
            self.prefetcher = lived.prefetcher.renewed(self.prefetcher)
        for member in alike:
            member.meter, member.usual, member.waits = self.meter, self.usual, self.waits
            member.rules, member.prefetcher = self.rules, self.prefetcher
        for step in self.steps:
            for other in lived.steps:
                if type(step) is type(other) and isinstance(step, Lasting):
                    step.take_over(other)
        own = self.does.services()
        left = [each for each in lived.services if each not in own]
        for service in left:
            service.link.close_idle()
        self.services = [*own, *(each for each in left if each.link.connections)]  # what is asked of them has deadlines

    @property
    def fence(self) -> frozenset[str] | None:
        """The only regions that may ever serve; None means all."""
        return self.wish.require

    @property
    def prefer(self) -> tuple[str, ...]:
        """The regions to try first."""
        return self.wish.prefer

    def covers(self, path: bytes) -> bool:
        """Whether a path is the route's or lies below it, by segments: /api covers /api and /api/x, not /apix."""
        return below(path, self.path)

    def check_path(self, target: bytes) -> None:
        """Raises BadRequest for a path that different servers would read differently."""
        if not self.encoded_slashes and hides_separator(target):
            raise BadRequest("encoded slash, backslash or NUL in the path")

    def check_asker(self, is_subrequest: bool) -> None:
        """Raises NoRoute for a client's request on a route that is for subrequests only."""
        if self.internal and not is_subrequest:
            raise NoRoute("no route for this path")

    def check_method(self, method: bytes, client: str) -> None:
        """Raises MethodNotAllowed for a method that the route does not list, and for PURGE from an address that may
        not purge.
        """
        purges = method in PURGE_METHODS and (method != b"PURGE" or client not in self.purgers)
        if purges or (self.methods and method not in self.methods and method != b"PURGE"):
            raise MethodNotAllowed(self.allow)

    def __post_init__(self) -> None:
        self.label = quote_text(self.name)  # as a log line has it
        self.anywhere = not self.by_place and self.fence is None
        self.path = normal_path(self.path)
        self.allow = b", ".join(sorted(self.methods))
        does = self.does
        self.match, self.steps, self.outbound, self.delivery = does.match, does.steps, does.outbound, does.delivery
        self.services = does.services()
        self.dress = None if self.delivery is None else self.delivery.dress
        self.refuses = bool(self.internal or self.methods)
        asks_request = self.rules is not None and (self.rules.bypass_cookies or self.rules.bypass_headers)
        self.looks = self.refuses or not does.plain or bool(asks_request)  # stored before that was a rule, too
        self.bodies, self.affinity = does.bodies, does.affinity
        if self.bodies is not None and self.bodies.compression is not None:
            self.coded = CodedForms(self.bodies.compression)
        if does.match is not None and does.match.apart:
            self.apart = b" r:%d:%b" % (len(self.name.encode()), self.name.encode())

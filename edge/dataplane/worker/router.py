"""Host and path to route: the most specific host wins, then the longest path prefix (by segments).

One rule: the path that decides is the normalised one (`http.paths`), for patterns and requests alike; what is
forwarded and what keys the cache stay the client's bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge.balance.geo import NO_GEO_POLICY, GeoPolicy
from edge.balance.latency import Ewma
from edge.cache.rules import Rules
from edge.dataplane.rules.coded import CodedForms
from edge.dataplane.rules.compiled import NO_RULES, RuleSet
from edge.dataplane.rules.steps import Lasting
from edge.errors import BadRequest, Denied, MethodNotAllowed
from edge.http.forwarding import Networks
from edge.http.paths import below, hides_separator, literal_path, normal_path
from edge.http.text import quote_text
from edge.metrics import Meter
from edge.ports import Timeouts

if TYPE_CHECKING:
    from edge.dataplane.caching.prefetch import Prefetcher
    from edge.dataplane.rules.asked import Asked
    from edge.dataplane.rules.bodies import Bodies
    from edge.dataplane.rules.delivery import Delivery
    from edge.dataplane.rules.matching import Match
    from edge.dataplane.rules.outbound import Outbound
    from edge.dataplane.rules.service import Service
    from edge.dataplane.rules.shares import Affinity
    from edge.dataplane.rules.steps import Step
    from edge.dataplane.upstream.pool import PoolRuntime

HOSTS_REMEMBERED = 1024  # a client may invent hosts, so the memo is bounded
PURGE_METHODS = frozenset((b"PURGE", b"BAN", b"REFRESH"))  # what caches behind this one may take for an order
NOBODY = Networks()


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
    pool: PoolRuntime
    rules: Rules | None = None
    preserve_host: bool = True
    max_body: int = 100 * 1024 * 1024
    methods: frozenset[bytes] = frozenset()  # empty = all
    internal: bool = False  # for subrequests of applications alone
    services: Sequence[Service] = ()  # that its rules ask
    looks: bool = False  # each request is looked at before it is served: no fast hit
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
    prefetcher: Prefetcher | None = None  # fetches ahead what its pages name
    does: RuleSet = NO_RULES  # what it does besides forwarding; the parts that requests ask for:
    match: Match | None = None  # conditions besides host and path
    steps: tuple[Step, ...] = ()  # before the look-up
    outbound: Outbound | None = None  # what a backend gets
    delivery: Delivery | None = None  # what a client gets
    bodies: Bodies | None = None  # pages and codings
    affinity: Affinity | None = None  # to which backend a client comes back
    members: tuple[Route, ...] = ()  # the same route before other pools (`split`, `mirror`)
    coded: CodedForms | None = None  # of what is stored, where the route compresses
    apart: bytes = b""  # what keeps its stored responses from those of other routes for the same URI

    def fold(self, now: float) -> None:
        """Put what was noted since the last time where it is counted (four times a second)."""
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
        """Go on where the route of this name was before a reload."""
        alike = [each for each in self.members if each.waits is self.waits]
        self.meter, self.usual, self.waits = lived.meter, lived.usual, lived.waits
        if self.rules == lived.rules:
            self.rules = lived.rules  # judgements of heads are remembered for it
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
        """The only regions that may ever serve; None = all."""
        return self.wish.require

    @property
    def prefer(self) -> tuple[str, ...]:
        """Regions to try first."""
        return self.wish.prefer

    def covers(self, path: bytes) -> bool:
        """Whether a path is the route's or lies below it, by segments: /api covers /api and /api/x, not /apix."""
        return below(path, self.path)

    def check_path(self, target: bytes) -> None:
        """Raises BadRequest for a path that servers would understand in different ways."""
        if not self.encoded_slashes and hides_separator(target):
            raise BadRequest("encoded slash, backslash or NUL in the path")

    def check_asker(self, is_subrequest: bool) -> None:
        """Raises NoRoute where only subrequests are served."""
        if self.internal and not is_subrequest:
            raise NoRoute("no route for this path")

    def check_method(self, method: bytes, client: str) -> None:
        """Raises MethodNotAllowed for a method that is not the route's, and for purges of who may not."""
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
        self.looks = bool(self.internal or self.methods or not does.plain)
        self.bodies, self.affinity = does.bodies, does.affinity
        if self.bodies is not None and self.bodies.compression is not None:
            self.coded = CodedForms(self.bodies.compression)
        if does.match is not None and does.match.apart:
            self.apart = b" r:%d:%b" % (len(self.name.encode()), self.name.encode())


class Router:
    """All routes, by host."""

    __slots__ = ("_any", "_exact", "_known", "_wild", "routes")

    def __init__(self, routes: list[Route]) -> None:
        self.routes = routes
        self._exact: dict[bytes, list[Route]] = {}
        self._wild: dict[bytes, list[Route]] = {}
        self._any: list[Route] = []
        self._known: dict[bytes | None, list[Route]] = {}  # by host as received
        for route in sorted(routes, key=lambda r: (-len(r.path), r.match is None)):  # conditions before the rest
            if route.host == b"*":
                self._any.append(route)
            elif route.host.startswith(b"*."):
                self._wild.setdefault(route.host[1:], []).append(route)
            else:
                self._exact.setdefault(route.host, []).append(route)

    def find(self, host: bytes | None, target: bytes) -> Route:
        """The route of a request. Raises NoRoute or Misdirected."""
        found = self.get(host, target)
        if found is None:
            raise NoRoute("no route for this path") if self._known.get(host) else Misdirected("unknown host")
        return found

    def choose(self, asked: Asked) -> Route:
        """The route of a request where several stand at its path. Raises NoRoute."""
        path = normal_path(asked.target) if asked.target != b"*" else b"/"
        for route in self._known.get(asked.host) or self._remember(asked.host):
            if route.covers(path) and (route.match is None or route.match.fits(asked)):
                return route
        raise NoRoute("no route for this request")

    def all(self, host: bytes | None, target: bytes) -> list[Route]:
        """Every route that may serve this host and path."""
        path = normal_path(target)
        return [route for route in self._known.get(host) or self._remember(host) if route.covers(path)]

    def is_doubtful(self, route: Route, host: bytes | None, target: bytes) -> bool:
        """Whether an origin that does not decode a separator would see another route's path: nothing to be stored."""
        if not route.encoded_slashes or not hides_separator(target):
            return False
        return self.get(host, literal_path(target)) is not route

    def get(self, host: bytes | None, target: bytes) -> Route | None:
        """The first route for a host and path, None when there is none; if it has a `match`, `choose` decides."""
        routes = self._known.get(host)
        if routes is None:
            routes = self._remember(host)
            if not routes:
                return None
        first = routes[0]
        if first.path == b"/":  # the longest prefix, so there is no other path
            return first
        path = normal_path(target) if target != b"*" else b"/"  # OPTIONS *: the host as a whole
        for route in routes:
            if route.covers(path):
                return route
        return None

    def _remember(self, host: bytes | None) -> list[Route]:
        routes = self._exact.get(host or b"") or self._by_name(host or b"")
        if len(self._known) >= HOSTS_REMEMBERED:
            self._known.clear()
        if routes:
            self._known[host] = routes
        return routes

    def _by_name(self, host: bytes) -> list[Route]:
        """Without the port; exact, then the longest wildcard, then any."""
        name = host
        if not host.endswith(b"]"):
            name = host.rpartition(b":")[0] or host
        name = name.rstrip(b".")
        found = self._exact.get(name)
        if found:
            return found
        at = name.find(b".")
        while at >= 0:
            found = self._wild.get(name[at:])
            if found:
                return found
            at = name.find(b".", at + 1)
        return self._any

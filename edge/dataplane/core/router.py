"""Host and path to route: the most specific host wins, then the longest path prefix (by segments).

One rule: the path that decides is the normalised one (`http.paths`), for patterns and requests alike; what is
forwarded and what keys the cache stay the client's bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.dataplane.core.route import Misdirected, NoRoute, Route
from edge.http.paths import hides_separator, literal_path, normal_path

if TYPE_CHECKING:
    from edge.dataplane.rules.asked import Asked

HOSTS_REMEMBERED = 1024  # a client may invent hosts, so the memo is bounded


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

    def compare(self, before: Router) -> None:
        """Take from the router before what is the same and dear to compare: the part of a swap that may be early."""
        lived = {route.name: route for route in before.routes}
        for route in self.routes:
            other = lived.get(route.name)
            if other is not None and route.rules == other.rules:
                route.rules = other.rules  # judgements of heads are remembered for it

    def let_go(self) -> list[Route]:
        """Its routes, once it serves no more: who empties the list ends them."""
        for found in (self._exact, self._wild, self._known):
            found.clear()
        self._any.clear()
        routes, self.routes = self.routes, []
        return routes

    def find(self, host: bytes | None, target: bytes) -> Route:
        """The route of a request. Raises NoRoute or Misdirected."""
        found = self.get(host, target)
        if found is None:
            raise NoRoute("no route for this path") if self._known.get(host) else Misdirected("unknown host")
        return found

    def choose(self, asked: Asked) -> Route:
        """The matching route where several share one host and path. Raises NoRoute."""
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
        """Whether an origin that does not decode `%2F` would see the path of another route: then nothing is stored."""
        if not route.encoded_slashes or not hides_separator(target):
            return False
        return self.get(host, literal_path(target)) is not route

    def get(self, host: bytes | None, target: bytes) -> Route | None:
        """The first route for a host and path, or None. Where it has a `match`, `choose` decides between several."""
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

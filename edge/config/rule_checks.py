"""Rules of routes that can never act: a route behind one that fits all that it would, a condition that nothing meets.

One rule: only what can be proved from the file is named, as a warning; what may come is for the operator to know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from edge.config.positions import OTHER, Problem
from edge.config.routing import Route
from edge.config.rules import Match

if TYPE_CHECKING:
    from edge.config.loader import Config

NO_CONDITIONS = Match()


def dead_rules(config: Config) -> Iterator[Problem]:
    """One problem for each."""
    by_place: dict[tuple[str, str], list[tuple[int, Route]]] = {}
    for at, route in enumerate(config.routes):
        yield from _never(config, at, route)
        by_place.setdefault((route.host, route.path), []).append((at, route))
    for routes in by_place.values():
        guarded = [(at, route) for at, route in routes if route.match is not None or route.path_regex is not None]
        for number, (at, route) in enumerate(guarded):
            for first, before in guarded[:number]:
                if _covers(before, route):
                    said = f"is never reached: whatever fits it fits {OTHER} before it"
                    yield Problem(("routes", at), said, ("routes", first))
                    break


def _never(config: Config, at: int, route: Route) -> Iterator[Problem]:
    match, prefix = route.match or NO_CONDITIONS, route.strip_prefix
    if match.methods and route.methods and not set(match.methods) & set(route.methods):
        yield Problem(("routes", at, "match", "methods"), "can match nothing: methods of the route has none of them")
    if match.scheme == "https" and not config.listen.https and not config.listen.trusted_proxies:
        yield Problem(("routes", at, "match", "scheme"), "can match nothing: no listen.https, no trusted proxy")
    asks = any(each.client_ca is not None for each in config.listen.https)
    if route.auth is not None and route.auth.client_certificate and not asks:
        yield Problem(("routes", at, "auth", "client_certificate"), "lets nobody in: no listen.https has client_ca")
    if prefix is not None and not _related(prefix.rstrip("/") + "/", route.path.rstrip("/") + "/"):
        yield Problem(("routes", at, "strip_prefix"), f"has no effect: no path of this route begins with {prefix}")


def _related(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _covers(before: Route, route: Route) -> bool:
    """Whether every request that fits `route` fits `before`."""
    wide, narrow = before.match or NO_CONDITIONS, route.match or NO_CONDITIONS
    if before.path_regex not in (None, route.path_regex) or wide.scheme not in (None, narrow.scheme):
        return False
    if wide.methods and not (narrow.methods and set(narrow.methods) <= set(wide.methods)):
        return False
    if wide.clients and not (narrow.clients and set(narrow.clients) <= set(wide.clients)):
        return False
    headers = ({name.lower(): value for name, value in each.headers.items()} for each in (wide, narrow))
    return _fewer(*headers) and _fewer(wide.query, narrow.query) and _fewer(wide.cookies, narrow.cookies)


def _fewer(wide: Mapping[str, str], narrow: Mapping[str, str]) -> bool:
    """Whether `narrow` asks for all that `wide` asks for."""
    return all(narrow.get(name) == value or (value == "*" and narrow.get(name)) for name, value in wide.items())

"""Rules of routes that can never act: a route behind one that fits all that it would, a condition that nothing meets.

One rule: only what can be proved from the file is named, as a warning; what may come is for the operator to know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from edge.config.auth import Auth
from edge.config.positions import OTHER, Path, Problem
from edge.config.routing import Route
from edge.config.rule_values import match_range
from edge.config.rules import Concurrency, Match, RequestHeaders, ResponseHeaders
from edge.config.types import Network, Section

if TYPE_CHECKING:
    from edge.config.loader import Config

NO_CONDITIONS = Match()
NO_CONCURRENCY = Concurrency()


def dead_rules(config: Config) -> Iterator[Problem]:
    """A problem for each rule that can never act."""
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
    if route.path_regex is not None and not _may_begin(route.path_regex, route.path.rstrip("/")):
        yield Problem(
            ("routes", at, "path_regex"), f"can match nothing: all paths of this route begin with {route.path}"
        )
    yield from _without_effect(at, route)
    for number, network in enumerate(route.allow):
        if (place := _place(network, route.deny)) is not None:
            said = f"lets nobody in: {OTHER} has all of it"
            yield Problem(("routes", at, "allow", number), said, ("routes", at, "deny", place))
    if prefix is not None and not _related(prefix.rstrip("/") + "/", route.path.rstrip("/") + "/"):
        yield Problem(("routes", at, "strip_prefix"), f"has no effect: no path of this route begins with {prefix}")


def _without_effect(at: int, route: Route) -> Iterator[Problem]:
    """Tables that say nothing, and keys that another key of the route makes meaningless."""
    auth, limit, edit = route.auth, route.rate_limit, route.request_headers
    named_host = edit is not None and any(name.lower() == "host" for name in edit.set)
    maps = route.strip_prefix is not None or named_host or not route.preserve_host
    found: tuple[tuple[bool, Path, str], ...] = (
        (route.match == NO_CONDITIONS, ("match",), "it names no condition"),
        (route.concurrency == NO_CONCURRENCY, ("concurrency",), "it names no limit"),
        (edit == RequestHeaders(), ("request_headers",), "it names no field"),
        (route.response_headers == ResponseHeaders(), ("response_headers",), "it names no field"),
        (route.sticky != "none" and not route.split, ("sticky",), "the route has no split"),
        (route.mirror is not None and route.mirror.share == 0, ("mirror", "share"), "no request is copied"),
        (not route.map_back and not maps, ("map_back",), "neither path nor host is changed"),
        (not route.preserve_host and named_host, ("preserve_host",), "request_headers sets Host"),
        (
            limit is not None and limit.by == "route" and _given(limit, "clients"),
            ("rate_limit", "clients"),
            'by is "route"',
        ),
        (auth is not None and auth.basic is None and _given(auth, "realm"), ("auth", "realm"), "no basic"),
        (auth is not None and auth.forward is None and bool(auth.copied), ("auth", "copied"), "no forward"),
        (auth is not None and not _asks(auth) and _given(auth, "timeout"), ("auth", "timeout"), "no service is asked"),
    )
    for is_so, path, why in found:
        if is_so:
            yield Problem(("routes", at, *path), f"has no effect: {why}")


def _given(section: Section, name: str) -> bool:
    return name in section.model_fields_set


def _asks(auth: Auth) -> bool:
    """Whether it needs a service."""
    return auth.forward is not None or (auth.jwt is not None and "://" in auth.jwt.jwks)


def _place(network: Network, wider: Sequence[Network]) -> int | None:
    """Which of them has all of a network."""
    found = (at for at, each in enumerate(wider) if network.version == each.version and network.subnet_of(each))  # type: ignore[arg-type]
    return next(found, None)


def _may_begin(pattern: str, start: str) -> bool:
    """Whether a pattern may match a text that begins so, as far as its engine can tell."""
    if not pattern.startswith("^") or "|" in pattern:
        return True
    begin = start.encode()
    found = match_range(pattern, len(begin) + 1)
    if found is None:
        return True
    low, high = found
    return low[: len(begin)] <= begin <= high or any(low <= begin[:size] <= high for size in range(len(begin)))


def _related(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _covers(before: Route, route: Route) -> bool:
    """Whether every request that fits `route` fits `before`."""
    wide, narrow = before.match or NO_CONDITIONS, route.match or NO_CONDITIONS
    if before.path_regex not in (None, route.path_regex) or wide.scheme not in (None, narrow.scheme):
        return False
    if wide.methods and not (narrow.methods and set(narrow.methods) <= set(wide.methods)):
        return False
    if wide.clients and not (narrow.clients and all(_place(each, wide.clients) is not None for each in narrow.clients)):
        return False
    headers = ({name.lower(): value for name, value in each.headers.items()} for each in (wide, narrow))
    return _fewer(*headers) and _fewer(wide.query, narrow.query) and _fewer(wide.cookies, narrow.cookies)


def _fewer(wide: Mapping[str, str], narrow: Mapping[str, str]) -> bool:
    """Whether `narrow` asks for all that `wide` asks for."""
    return all(narrow.get(name) == value or (value == "*" and narrow.get(name)) for name, value in wide.items())

"""Keys that are set and can have no effect where they stand, because another key decides that they are not looked at.

One rule: only what cannot act whatever happens is named, and only when it is not the default: a file may show defaults.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import TypeAdapter

from edge.config.positions import Path, Problem
from edge.config.redis_url import Topology, parse_redis_url
from edge.config.rule_checks import dead_rules
from edge.config.types import Section

if TYPE_CHECKING:
    from edge.config.loader import Config

SWITCH_ONLY = ("failback", "down_after", "up_after", "min_dwell")
HTTP_PROBE_ONLY = ("path", "host", "method", "headers", "expect", "body")
GATE = ("share", "concurrency", "precision_floor")
PLACE = ("location", "countries", "continents", "subdivisions", "cidrs")


def idle_keys(config: Config) -> Iterator[Problem]:
    """One problem for each key that can have no effect, and for each rule of a route that can never act."""
    yield from _pools(config)
    yield from _regions(config)
    yield from _routes(config)
    yield from _listeners(config)
    yield from dead_rules(config)
    yield from _servers(config)
    yield from _log(config)


def _pools(config: Config) -> Iterator[Problem]:
    for name, pool in config.pools.items():
        here: Path = ("pools", name)
        if pool.failover == "spill":
            yield from _idle(pool, here, SWITCH_ONLY, 'failover is "spill"')
        if pool.balance != "hash":
            yield from _idle(pool, here, ("hash",), f'balance is "{pool.balance}"')
        if pool.health is not None and pool.health.kind == "tcp":
            yield from _idle(pool.health, (*here, "health"), HTTP_PROBE_ONLY, 'kind is "tcp"')
        if not any(backend.address.scheme == "https" for backend in pool.backends):
            yield from _idle(pool, here, ("tls",), "no backend here is https")


def _regions(config: Config) -> Iterator[Problem]:
    if any(pool.balance == "geo" for pool in config.pools.values()):
        return
    if any(route.geo is not None and route.geo.prefer for route in config.routes):
        return
    for name, region in config.regions.items():
        yield from _idle(region, ("regions", name), PLACE, "no pool balances by geo, no route prefers regions")


def _routes(config: Config) -> Iterator[Problem]:
    for at, route in enumerate(config.routes):
        ahead = route.cache.prefetch if route.cache is not None else None
        if ahead is not None and not ahead.links and not ahead.next:
            yield from _idle(ahead, ("routes", at, "cache", "prefetch"), GATE, "links is false and next is empty")
        yield from _slices(config, at)


def _listeners(config: Config) -> Iterator[Problem]:
    for at, listener in enumerate(config.listen.https):
        if not config.listen.http:
            yield from _idle(listener, ("listen", "https", at), ("redirect_http",), "listen.http is empty")
        elif listener.redirects_to is not None and any(each.redirects_to for each in config.listen.https[:at]):
            yield Problem(("listen", "https", at, "redirect_http"), "has no effect: plain HTTP is sent to the first")


def _servers(config: Config) -> Iterator[Problem]:
    for path, shared in ((("cache", "shared"), config.cache.shared), (("fleet",), config.fleet)):
        if shared is None:
            continue
        address = parse_redis_url(shared.url)
        if not address.tls:
            yield from _idle(shared, path, ("ca_file",), "url is not rediss://")
        if address.topology is not Topology.SENTINEL:
            yield from _idle(shared, path, ("sentinel_user", "sentinel_password"), "url is not redis+sentinel://")


def _log(config: Config) -> Iterator[Problem]:
    if config.log.access == "off":
        yield from _idle(config.log, ("log",), ("format",), 'access is "off"')
    if config.log.otlp is None:
        yield from _idle(config.log, ("log",), ("sample", "sampled_by"), "otlp is left out")


def _slices(config: Config, at: int) -> Iterator[Problem]:
    cache, here = config.routes[at].cache, ("routes", at, "cache")
    if cache is not None and cache.ranges != "slice":
        yield from _idle(cache, here, ("slice",), f'ranges is "{cache.ranges}"')
    elif cache is not None and cache.slice > cache.max_object:
        yield Problem((*here, "ranges"), f"stores nothing: slice is larger than max_object ({cache.max_object} bytes)")


def _idle(section: Section, path: Path, names: Iterable[str], why: str) -> Iterator[Problem]:
    for name in names:
        if name in section.model_fields_set and getattr(section, name) != _default(type(section), name):
            yield Problem((*path, name), f"has no effect: {why}")


def _default(section: type[Section], name: str) -> object:
    """A key's default as a checked value."""
    field = section.model_fields[name]
    whole: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return TypeAdapter(whole).validate_python(field.default)

"""What routes and backends leave out: taken from their pool, from `[limits]` and from `[cache]`.

One rule: what a table says itself wins. Tables of routes that say the same become one object, so that a file of many
routes is sent to workers, built and compared in a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from edge.config.cache import Cache, CacheRules
from edge.config.routing import Pool, Retry, Route, Timeouts
from edge.config.types import Section

S = TypeVar("S", bound=Section)
Known = dict[tuple[object, ...], Any]


def whole_pools(pools: Mapping[str, Pool]) -> dict[str, Pool]:
    """Pools whose backends have all that they left out."""
    return {name: _whole_pool(pool) for name, pool in pools.items()}


def _whole_pool(pool: Pool) -> Pool:
    backends = tuple(_filled(each, max_in_flight=pool.max_in_flight) for each in pool.backends)
    return pool.model_copy(update={"backends": backends})


def whole_routes(routes: Sequence[Route], pools: Mapping[str, Pool], cache: Cache, max_body: int) -> tuple[Route, ...]:
    """Routes with all that they left out."""
    known: Known = {}

    def whole(route: Route) -> Route:
        name = route.pool
        if name is None and route.split:  # the heaviest stands for the others
            name = max(route.split, key=lambda share: share.weight).pool
        pool = pools.get(name or "")
        route = _filled(route, max_body=max_body)
        taken: dict[str, Any] = {"pool": name, "cache": _rules(route, pool, cache, known)}
        if pool is not None:
            taken["timeouts"] = _shared(known, name, route.timeouts, lambda own: _with(own, pool.timeouts, Timeouts))
            taken["retry"] = _shared(known, name, route.retry, lambda own: _with(own, pool.retry, Retry))
        return route.model_copy(update=taken)

    return tuple(map(whole, routes))


def _rules(route: Route, pool: Pool | None, cache: Cache, known: Known) -> CacheRules | None:
    """Without a word about it a route caches where it has a pool."""
    if route.cache is None or (pool is None and "cache" not in route.model_fields_set):
        return None
    fill = {"max_object": cache.max_object, "min_uses": cache.min_uses}
    return _shared(known, None, route.cache, lambda own: _filled(own, **fill))


def _shared(known: Known, place: str | None, own: S, fill: Callable[[S], S]) -> S:
    """The table that was made already of one that says the same in the same place, or a new one."""
    said = repr([(name, getattr(own, name)) for name in sorted(own.model_fields_set)])
    key = (type(own), place, said)
    found: S | None = known.get(key)
    if found is None:
        found = known[key] = fill(own)
    return found


def _with(own: S, other: Section, kind: type[Section]) -> S:
    """A table with what it leaves out taken from another one of its kind."""
    return _filled(own, **{name: getattr(other, name) for name in kind.model_fields})


def _filled(own: S, **elsewhere: Any) -> S:
    """A table with what it leaves out taken from elsewhere."""
    left = {name: value for name, value in elsewhere.items() if name not in own.model_fields_set}
    return own.model_copy(update=left) if left else own

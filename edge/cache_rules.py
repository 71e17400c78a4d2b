"""A route's `cache` table as the cache and its prefetcher read it.

One rule: it is the one place where the operator's words become the cache's; nothing is decided here.
"""

from __future__ import annotations

from edge.cache.prefetch import GateRules, Sequence
from edge.cache.rules import Directives, Ranges, Rules, SetCookie
from edge.config.cache import CacheRules
from edge.config.cache import Prefetch as PrefetchConfig
from edge.dataplane.caching.prefetch import Prefetcher
from edge.dataplane.worker.worker import Worker
from edge.http.forwarding import OVERRIDES


def prefetcher(worker: Worker, values: PrefetchConfig) -> Prefetcher:
    """What a route fetches ahead."""
    gate = GateRules(concurrency=values.concurrency, share=values.share, floor=values.precision_floor)
    return Prefetcher(worker, values.links, tuple(Sequence(pattern) for pattern in values.next), gate)


def rules_once(values: CacheRules | None, known: dict[int, Rules]) -> Rules | None:
    """What the cache reads of a route's table: made once where routes have one table in common."""
    if values is None:
        return None
    found = known.get(id(values))
    if found is None:
        found = known[id(values)] = rules(values)
    return found


def rules(values: CacheRules) -> Rules:
    """A route's `cache` table as the cache reads it."""

    def names(texts: tuple[str, ...]) -> tuple[bytes, ...]:
        return tuple(text.encode() for text in texts)

    return Rules(
        name=values.name,
        default_ttl_s=values.default_ttl,
        status_ttl_s=dict(values.status_ttl),
        override_ttl_s=values.override_ttl,
        bypass_cookies=names(values.bypass.cookies),
        bypass_headers=names(values.bypass.headers),
        bypass_paths=names(values.bypass.paths),
        ignore_query=names(values.ignore_query),
        only_query=None if values.only_query is None else names(values.only_query),
        sort_query=values.sort_query,
        key_headers=names(values.key_headers),
        key_cookies=names(values.key_cookies),
        drop_headers=tuple(OVERRIDES) if values.drop_headers is None else names(values.drop_headers),
        set_cookie=SetCookie(values.set_cookie),
        request_directives=Directives(values.request_directives),
        stale_if_error_s=values.stale_if_error,
        stale_while_revalidate_s=values.stale_while_revalidate,
        stale_on_outage_s=values.stale_on_outage,
        override_stale=values.override_stale,
        keep_s=values.keep,
        heuristic_fraction=values.heuristic,
        heuristic_max_s=values.heuristic_max,
        max_object_bytes=values.max_object,
        min_uses=values.min_uses,
        vary_limit=values.vary_limit,
        normalise_encoding=None if values.normalise_encoding is None else names(values.normalise_encoding),
        normalise_language=values.normalise_language,
        ranges=Ranges(values.ranges),
        slice_bytes=values.slice,
        head_as_get=values.head_as_get,
        targets=names(values.targets),
        collapse_wait_s=values.collapse_wait,
    )

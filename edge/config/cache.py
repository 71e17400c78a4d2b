"""The tables about stored things: `[cache]` and its tiers, a route's `cache` rules.

Values only. A route's `cache` has one key for each field of the cache's `Rules` (names without their unit) plus
`prefetch`; `app` compiles the one into the other, because this floor may not know the cache.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, PlainValidator, field_validator

from edge.config.fleet import SharedTier
from edge.config.names import Argument, CookieName, HeaderName, NumberedPath, PathPrefix
from edge.config.paths import FilePath
from edge.config.types import (
    AtLeastOne,
    Duration,
    Many,
    Percent,
    PositiveSize,
    Section,
    Size,
    Text,
    ValueKind,
    entry,
    parse_size,
    shown,
)

T = TypeVar("T")


def switchable(value: object) -> object:
    """A table that may also be `true` (all defaults) or `false` (off, None here)."""
    if value is None or value is False:
        return None
    if value is True:
        return {}
    if isinstance(value, str | int | float | list):
        raise ValueError(f"must be true, false or a table, got {shown(value)}")
    return value


Switch = Annotated[T | None, BeforeValidator(switchable)]


def matching(pattern: str, what: str) -> Callable[[object], str]:
    """A parser for texts of one form."""
    compiled = re.compile(pattern)

    def parse(value: object) -> str:
        if not isinstance(value, str) or compiled.fullmatch(value) is None:
            raise ValueError(f"must be {what}, got {shown(value)}")
        return value

    return parse


def parse_status(value: object) -> int:
    """A status code as the key of a table."""
    if isinstance(value, int) or (isinstance(value, str) and re.fullmatch("[1-9][0-9][0-9]", value)):
        return int(value)
    raise ValueError(f'must be a status code such as "404", got {shown(value)}')


def parse_slice_size(value: object) -> int:
    """Not so small that a body is mostly heads, nor so large that it is no slice."""
    size = parse_size(value)
    if not 64 * 1024 <= size <= 64 * 1024 * 1024:
        raise ValueError(f"must be from 64KiB to 64MiB, got {shown(value)}")
    return size


SliceSize = Annotated[int, PlainValidator(parse_slice_size), ValueKind("size")]
Status = Annotated[int, PlainValidator(parse_status), ValueKind("status code")]


class Bypass(Section):
    """`bypass`: what keeps a request away from the cache."""

    cookies: Many[CookieName] = entry([], "Cookie names or globs: a request that carries one bypasses the cache")
    headers: Many[HeaderName] = entry([], "Field names: a request that carries one bypasses the cache")
    paths: Many[PathPrefix] = entry([], "Path prefixes (by segments) that bypass the cache")


class Prefetch(Section):
    """`prefetch`: fetching what will be asked for next."""

    links: bool = entry(False, "Fetch what a cached page names by Link rel=prefetch or rel=preload")
    next: Many[NumberedPath] = entry([], "Patterns of numbered paths; after number n, n + 1 is fetched")
    share: Percent = entry("10%", "Largest share of all requests to the origin that may be prefetches")
    concurrency: AtLeastOne = entry(4, "Prefetches at the same time")
    precision_floor: Percent = entry("20%", "Prefetch switches itself off when less of what it fetched is used")


class CacheRules(Section):
    """A route's `cache` table."""

    name: Text = entry("default", "Name of these rules, shown as rule:<name> in Cache-Status and the log")
    default_ttl: Duration = entry("0s", "Lifetime where the origin gave none; 0s = what RFC 9111 says")
    status_ttl: dict[Status, Duration] = entry({}, 'Lifetime by status, if the origin gave none: { "404" = "10s" }')
    override_ttl: Duration | None = entry(None, "Lifetime that wins over everything, no-store and private too")
    bypass: Bypass = entry({}, "What keeps a request away from the cache")
    ignore_query: Many[Argument] = entry([], "Query arguments (names or globs) left out of the key, not of the request")
    only_query: Many[Argument] | None = entry(None, "The only query arguments (names or globs) in the key")
    sort_query: bool = entry(False, "Sort query arguments in the key")
    key_headers: Many[HeaderName] = entry([], "Request fields that are part of the key")
    drop_headers: Many[HeaderName] | None = entry(
        None,
        "Request fields kept from backends, for they change answers without being in the key; left out: "
        "X-Original-URL, X-Rewrite-URL, X-HTTP-Method-Override, X-Host, X-Forwarded-Prefix and their like",
    )
    key_cookies: Many[CookieName] = entry([], "Cookies (names or globs) that are part of the key")
    set_cookie: Literal["refuse", "store", "strip"] = entry(
        "refuse", "A storable response with Set-Cookie: not stored, stored as it is, or stored without the field"
    )
    request_directives: Literal["honour", "ignore"] = entry(
        "honour", "Cache-Control of requests (no-cache, max-age …): obeyed as RFC 9111 says, or ignored"
    )
    stale_if_error: Duration = entry(
        "0s", "How long past freshness to answer when the origin fails, if it said nothing"
    )
    stale_while_revalidate: Duration = entry("0s", "How long past freshness to answer at once and refresh behind")
    stale_on_outage: Duration = entry("0s", "How long past freshness to answer while no backend is available")
    override_stale: bool = entry(False, "The three stale windows here win over the origin's own; never must-revalidate")
    keep: Duration = entry("1h", "How long past all of these to keep a response for conditional refetch")
    heuristic: Percent = entry("10%", "Lifetime as a share of the age by Last-Modified, where RFC 9111 4.2.2 allows it")
    heuristic_max: Duration = entry("1d", "Upper bound of a heuristic lifetime")
    max_object: PositiveSize = entry("32MiB", "Largest body stored; left out: that of [cache]")
    min_uses: AtLeastOne = entry(1, "Requests for a key before it is stored; left out: that of [cache]")
    vary_limit: AtLeastOne = entry(64, "Variants stored for one URL")
    normalise_encoding: Many[HeaderName] | None = entry(
        None,
        "Codings that the route serves: only they tell variants apart by Accept-Encoding; left out: as sent",
    )
    normalise_language: bool = entry(True, "Compare Accept-Language by weight, case and order aside")
    head_as_get: bool = entry(False, "Fetch a HEAD of which nothing is stored as GET, so that it fills the cache")
    ranges: Literal["forward", "whole", "slice"] = entry(
        "forward",
        "A Range of which nothing is stored: forwarded, or the whole is fetched and stored, or all is fetched and "
        "stored in slices",
    )
    slice: SliceSize = entry("1MiB", 'Size of each slice, where ranges = "slice"')
    targets: Many[HeaderName] = entry(
        ["cdn-cache-control"], "Targeted fields (RFC 9213); the first valid one takes the place of Cache-Control"
    )
    collapse_wait: Duration = entry("5s", "How long a request waits for another one that fetches the same")
    prefetch: Prefetch = entry({}, "Fetch what will be asked for next; off by default")


class DiskTier(Section):
    """`cache.disk`."""

    path: FilePath = entry(..., "Directory of the disk tier, shared by the workers")
    size: PositiveSize = entry(..., "Budget of the disk tier, index included; at least 32MiB")
    min_uses: AtLeastOne = entry(1, "Fetches of a key before it is written to disk")
    min_free: Size = entry("256MiB", "Space that is left free on the file system")

    @field_validator("size")
    @classmethod
    def _worth_it(cls, value: int) -> int:
        if value < 32 * 1024 * 1024:
            raise ValueError(f"must be at least 32MiB, got {value} bytes")
        return value


class Cache(Section):
    """`[cache]`."""

    memory: Size = entry("256MiB", "Memory for stored responses, metadata counted, for each worker; 0 stores nothing")
    max_object: PositiveSize = entry("32MiB", "Largest body stored; a route may say otherwise")
    eviction: Literal["s3-fifo", "lru", "lfu", "fifo"] = entry(
        "s3-fifo", "Which responses are evicted first when memory is full"
    )
    min_uses: AtLeastOne = entry(1, "Requests for a key before it is stored; a route may say otherwise")
    disk: DiskTier | None = entry(None, "Second tier on disk, survives restarts")
    shared: SharedTier | None = entry(None, "Third tier, shared by machines")

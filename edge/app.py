"""From a checked configuration to the running parts: the only place that names concrete classes.

One rule: nothing is decided here. Each function turns one table of the file into the object that acts on it.
"""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from ssl import SSLContext

from edge.adapters.backend_link import BackendLink, Peer, response_memo
from edge.adapters.disk_place import TierError
from edge.adapters.disk_room import Limits as DiskLimits
from edge.adapters.disk_tier import DiskTier
from edge.adapters.geo import GeoReader
from edge.adapters.logs import AccessLog
from edge.adapters.names import Names
from edge.adapters.tls import client_context, server_context
from edge.applications import NOTHING_GIVEN, Applications, named
from edge.balance.backend import Backend
from edge.balance.geo import NO_GEO_POLICY, GeoMap, GeoPolicy
from edge.balance.health import EjectionSettings
from edge.balance.pool import BalanceSettings, Pool
from edge.cache.prefetch import GateRules, Sequence
from edge.cache.rules import Directives, Rules, SetCookie
from edge.config.cache import CacheRules
from edge.config.cache import Prefetch as PrefetchConfig
from edge.config.loader import Config
from edge.config.routing import APP_SCHEME, PoolTimeouts
from edge.config.routing import Pool as PoolConfig
from edge.config.routing import Retry as RetryConfig
from edge.config.routing import Route as RouteConfig
from edge.config.routing import Timeouts as TimeoutsConfig
from edge.control.membership import backend_spec, region_spec
from edge.dataplane.caching.prefetch import Prefetcher, Warming
from edge.dataplane.caching.store import MAX_PARTS, Store
from edge.dataplane.rules.compiled import compile_rules
from edge.dataplane.upstream.geography import Geography, Places
from edge.dataplane.upstream.hashing import HashOn
from edge.dataplane.upstream.pool import PoolRuntime, PoolSettings, seeded
from edge.dataplane.worker.router import Retry, Route, Router
from edge.dataplane.worker.turns import FollowerCallbacks
from edge.dataplane.worker.worker import Worker, WorkerLimits
from edge.errors import ConfigError
from edge.http.forwarding import OVERRIDES, Networks
from edge.http.grammar import Limits, ResponseFacts
from edge.http.memo import Memo
from edge.http2.limits import Http2Limits
from edge.ports import Link, LogSink, Timeouts


def build(
    config: Config,
    log: LogSink | None = None,
    places: Places | None = None,
    filename: str = "config.toml",
    disk: bool = True,
    given: Mapping[str, object] = NOTHING_GIVEN,
) -> Worker:
    """A worker that serves this configuration; its listeners are opened by `listen`. Raises ConfigError.

    Without `disk` the disk tier is left alone: the supervisor could not use it. `given` are applications by name that
    need no import.
    """
    limits = config.limits
    head = Limits(limits.max_field_line, limits.max_fields, limits.max_header, limits.max_request_line)
    log = log or AccessLog(config.log.access)
    http2 = Http2Limits(**config.listen.http2.model_dump())
    worker = Worker(worker_limits(config), head, log, Networks(config.listen.trusted_proxies), http2)
    worker.combined = config.log.format == "combined"
    applications = loaded(config, filename, given)
    if applications is not None:
        applications.worker, worker.applications = worker, applications
    pools = pool_runtimes(config, worker.turns, applications)
    worker.geography = geography(config, places or geo_reader(config))
    variants = max((each.cache.vary_limit for each in config.routes if each.cache is not None), default=0)
    worker.store = store = Store(config.cache.memory, config.cache.eviction, variants + MAX_PARTS)
    store.use_turns(worker.turns.later)
    store.warmer = Warming(worker).run
    if disk:
        open_disk(store, config)
    nowhere = PoolRuntime(Pool("", [], "round-robin", BalanceSettings(), seeded()), PoolSettings(), _no_link)
    folder = Path(filename).parent
    routes = [route(each, pools.get(each.pool or "", nowhere), folder) for each in config.routes]
    for made, values in zip(routes, config.routes, strict=True):
        if values.cache is not None and (values.cache.prefetch.links or values.cache.prefetch.next):
            made.prefetcher = prefetcher(worker, values.cache.prefetch)
            store.prefetchers.append(made.prefetcher)
    worker.use(Router(routes), pools)
    return worker


def open_disk(store: Store, config: Config) -> None:
    """Give the store its second tier; when that cannot be, requests are served without it, and it is told."""
    disk = config.cache.disk
    if disk is None:
        return
    try:
        store.use_disk(
            DiskTier.open(Path(disk.path), DiskLimits(disk.size, disk.min_free), disk.min_uses, store.is_hot),
        )
    except (TierError, sqlite3.Error, OSError) as error:
        text = error.detail if isinstance(error, TierError) else str(error)
        store.events.append({"kind": "disk.unusable", "evidence": text})


async def listen(worker: Worker, config: Config) -> list[tuple[str, int]]:
    """Open the listeners, shared with the other workers of the machine; the addresses that are bound."""
    if worker.applications is not None:
        await worker.applications.start()
    bound = []
    for address in config.listen.http:
        sock = bind(address.host, address.port, config.listen.backlog)
        bound.append(sock.getsockname()[:2])
        await worker.listen(sock, None, config.listen.backlog, config.listen.h2c)
    for listener in config.listen.https:
        tls = server_context([(each.cert, each.key) for each in listener.certificates], listener.protocols)
        sock = bind(listener.address.host, listener.address.port, config.listen.backlog)
        bound.append(sock.getsockname()[:2])
        await worker.listen(sock, tls, config.listen.backlog)
    worker.cdn_id = cdn_id(config, bound)
    return bound


def cdn_id(config: Config, bound: list[tuple[str, int]]) -> bytes:
    """This gateway's name in CDN-Loop: the same in all its workers, another one in every other gateway."""
    if config.listen.cdn_id is not None:
        return config.listen.cdn_id.lower().encode()
    place = f"{socket.gethostname()} {bound} {config.admin.listen} {config.state.path}"
    return b"edge-" + sha256(place.encode()).hexdigest()[:16].encode()


def bind(host: str, port: int, backlog: int) -> socket.socket:
    """A listening socket that several workers may bind; raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def geo_reader(config: Config) -> GeoReader:
    """The database; that it is missing is only worth a warning where some route asks for places."""
    asked = any(pool.balance == "geo" for pool in config.pools.values()) or any(
        route.geo is not None and route.geo.prefer for route in config.routes
    )
    return GeoReader(config.geoip.database) if asked else GeoReader(config.geoip.database, lambda said: None)


def geography(config: Config, places: Places) -> Geography:
    """The regions as places see them."""
    specs = [region_spec(name, region) for name, region in config.regions.items()]
    overrides = [(str(network), name) for name, region in config.regions.items() for network in region.cidrs]
    return Geography(GeoMap(specs, overrides), places, bool(overrides))


def worker_limits(config: Config) -> WorkerLimits:
    """The client side's limits."""
    limits = config.limits
    return WorkerLimits(
        header_timeout=limits.header_timeout,
        idle_timeout=limits.idle_timeout,
        write_timeout=limits.write_timeout,
        body_timeout=limits.body_timeout,
        body_grace=limits.body_grace,
        body_rate=limits.min_body_rate,
        connections=limits.connections,
        connections_per_client=limits.connections_per_client,
        pipeline_bytes=limits.pipeline_buffer,
        hold_bytes=limits.replay_buffer,
        buffer_high=limits.buffer_high,
        buffer_low=limits.buffer_low,
        chunk_line_bytes=limits.max_chunk_line,
        trailer_bytes=limits.max_trailers,
        max_ranges=limits.max_ranges,
        grace=limits.shutdown_grace,
        request_id=limits.request_id,
        return_id=limits.return_request_id,
    )


def loaded(config: Config, filename: str, given: Mapping[str, object] = NOTHING_GIVEN) -> Applications | None:
    """The applications that backends name; None when there are none. Raises ConfigError."""
    if not named(config):
        return None
    return Applications(config, filename, response_limits(config), heads(config), given)


def response_limits(config: Config) -> Limits:
    """Of a backend's head. A field line may be as long as the head: origins set long policies and cookies."""
    limits = config.limits
    return Limits(limits.max_response_header, limits.max_response_fields, limits.max_response_header)


def pool_runtimes(
    config: Config, turns: FollowerCallbacks, applications: Applications | None = None
) -> dict[str, PoolRuntime]:
    """All pools, with their fallbacks tied."""
    make = link_maker(config, turns, applications)
    runtimes = {}
    for name, pool in config.pools.items():
        backends = [
            Backend(backend_spec(name, each), pool.health is not None and each.app is None, ejection(pool))
            for each in pool.backends
        ]
        settings = BalanceSettings(ejection(pool), pool.slow_start, pool.fail_open)
        pure = Pool(name, backends, pool.balance, settings, seeded())
        runtimes[name] = PoolRuntime(
            pure,
            PoolSettings(pool.queue, pool.retry.budget, pool.retry.min),
            make(pool),
            HashOn(pool.hash.on) if pool.balance == "hash" else None,
        )
    for name, pool in config.pools.items():
        if pool.fallback is not None:
            runtimes[name].fall_back_to(runtimes[pool.fallback])
    return runtimes


def ejection(pool: PoolConfig) -> EjectionSettings | None:
    """How live failures take a backend of this pool out; None when they do not."""
    rule = pool.ejection
    if rule is None:
        return None
    return EjectionSettings(
        consecutive=rule.consecutive,
        time_s=rule.time,
        max_time_s=rule.max_time,
        max_ejected=rule.max,
        window_s=rule.window,
        min_sample=rule.min_sample,
        min_success=rule.success_rate,
    )


def heads(config: Config) -> Memo[ResponseFacts]:
    """A memo of response heads. A backend's X-Request-Id gives way where the gateway tells its own."""
    left_out = frozenset((b"x-request-id",)) if config.limits.return_request_id else frozenset()
    return response_memo(response_limits(config), left_out)


def link_maker(
    config: Config, turns: FollowerCallbacks, applications: Applications | None
) -> Callable[[PoolConfig], Callable[[Backend], Link]]:
    """For each pool, how a backend of it is connected to; response heads are remembered for all of them together."""
    limits = config.limits
    head = response_limits(config)
    memo = heads(config)
    names = Names()

    def for_pool(pool: PoolConfig) -> Callable[[Backend], Link]:
        tls = pool.tls
        limits_of = {each.id: each.time_limit for each in pool.backends}
        known: list[SSLContext] = []  # made once, when there is an https backend: it takes tens of milliseconds

        def context() -> SSLContext:
            if not known:
                known.append(client_context(tls.ca, tls.cert, tls.key, tls.verify))
            return known[0]

        if any(each.address.scheme == "https" for each in pool.backends):
            context()  # a bad file is told at the start

        def make(backend: Backend) -> Link:
            if backend.scheme == APP_SCHEME:
                assert applications is not None  # the configuration names it
                link = applications.backend_link(backend.host, timeouts(pool.timeouts), limits_of[backend.id])
                return dressed(link, backend)
            secure = context() if backend.scheme == "https" else None
            peer = Peer(backend.host, backend.port, secure, tls.server_name, pool.resolve, pool.lifetime)
            return dressed(BackendLink(peer, timeouts(pool.timeouts), head, memo, names), backend)

        def dressed(link: BackendLink, backend: Backend) -> BackendLink:
            link.label = b'%b","region":"%b' % (backend.id.encode(), backend.region.encode())
            link.later = turns.later
            link.interim_max = limits.max_interim
            link.chunk_line_bytes = limits.max_chunk_line
            link.trailer_bytes = limits.max_trailers
            return link

        return make

    return for_pool


def timeouts(values: TimeoutsConfig) -> Timeouts:
    """The waits on a backend. A head that is due in one second cannot have its first byte later."""
    first = min(values.first_byte, values.head)
    idle = values.idle if isinstance(values, PoolTimeouts) else 0.0  # a route has no connections of its own
    return Timeouts(values.connect, first, values.head, values.body, idle, values.queue, values.tunnel)


def _no_link(backend: Backend) -> Link:
    raise AssertionError("a route without a pool has no backend")


def route(values: RouteConfig, pool: PoolRuntime, folder: Path) -> Route:
    """One route; `pool` has no backends where it names none. Raises ConfigError."""
    geo = values.geo
    return Route(
        name=values.name,
        host=values.host.encode(),
        path=values.path.encode(),
        pool=pool,
        rules=None if values.cache is None else rules(values.cache),
        preserve_host=values.preserve_host,
        max_body=values.max_body,
        encoded_slashes=values.encoded_slashes,
        purgers=Networks(values.purge_methods),
        internal=values.internal,
        methods=frozenset(method.encode() for method in values.methods),
        timeouts=timeouts(values.timeouts),
        retry=retry(values.retry),
        upgrades=frozenset(each.encode() for each in values.upgrade),
        wish=GeoPolicy(geo.prefer, frozenset(geo.require) or None) if geo is not None else NO_GEO_POLICY,
        by_place=pool.pool.policy == "geo" or (geo is not None and bool(geo.prefer)),
        does=compile_rules(values, lambda path: _content(folder, path, values.name)),
    )


def _content(folder: Path, path: str, name: str) -> bytes:
    """A file that a route answers with. Raises ConfigError."""
    try:
        return (folder / path).read_bytes()
    except OSError as error:
        raise ConfigError([f"route {name}: {path}: {error.strerror}"]) from None


def retry(values: RetryConfig) -> Retry:
    """A route's further attempts."""
    return Retry(values.attempts, values.deadline, values.statuses, values.hedge, values.same_backend)


def prefetcher(worker: Worker, values: PrefetchConfig) -> Prefetcher:
    """What a route fetches ahead."""
    gate = GateRules(concurrency=values.concurrency, share=values.share, floor=values.precision_floor)
    return Prefetcher(worker, values.links, tuple(Sequence(pattern) for pattern in values.next), gate)


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
        keep_s=values.keep,
        heuristic_fraction=values.heuristic,
        heuristic_max_s=values.heuristic_max,
        max_object_bytes=values.max_object,
        min_uses=values.min_uses,
        vary_limit=values.vary_limit,
        normalise_encoding=None if values.normalise_encoding is None else names(values.normalise_encoding),
        normalise_language=values.normalise_language,
        targets=names(values.targets),
        collapse_wait_s=values.collapse_wait,
    )

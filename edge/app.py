"""From a checked configuration to the running parts: the only place that names concrete classes.

One rule: nothing is decided here. Each function turns one table of the file into the object that acts on it.
"""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from mmap import mmap
from pathlib import Path

from edge.adapters.geo import GeoReader
from edge.adapters.listener_tls import ListenerTls, listener_tls
from edge.adapters.logs import AccessLog
from edge.adapters.secret_file import shared_secret
from edge.adapters.service_link import service_link
from edge.adapters.session_tickets import TicketSecret
from edge.adapters.shared_memory import Columns, shared_memory
from edge.adapters.sockets import bind
from edge.adapters.unix_sockets import unix_socket
from edge.applications import NOTHING_GIVEN, Applications, hooked, named
from edge.balance.geo import NO_GEO_POLICY, GeoMap, GeoPolicy
from edge.cache.rules import Rules
from edge.cache_rules import prefetcher, rules_once
from edge.config.listening import places
from edge.config.loader import Config
from edge.config.routing import Retry as RetryConfig
from edge.config.routing import Route as RouteConfig
from edge.config.types import Address, UnixAddress
from edge.control.membership import region_spec
from edge.dataplane.caching.prefetch import Warming
from edge.dataplane.caching.ranges import RangeRule
from edge.dataplane.caching.shadow import send_copy
from edge.dataplane.core.geography import Geography, Places
from edge.dataplane.core.limits import WorkerLimits
from edge.dataplane.core.route import Retry, Route
from edge.dataplane.core.router import Router
from edge.dataplane.core.store import MAX_PARTS, Store
from edge.dataplane.rules.compiled import RuleSet, Tools, compile_rules
from edge.dataplane.rules.mirror import Mirror
from edge.dataplane.rules.shares import Split
from edge.dataplane.upstream.pool import PoolRuntime
from edge.dataplane.upstream.request_head import forwarding_lines
from edge.dataplane.worker.graph import Graph
from edge.dataplane.worker.worker import Worker
from edge.errors import ConfigError
from edge.http.forwarding import Networks
from edge.http.grammar import Limits
from edge.http2.limits import Http2Limits
from edge.metrics import Meter
from edge.observing import tracing, warner
from edge.ports import LogSink
from edge.upstreams import Lasting, head_memo, pool_runtimes, response_limits, timeouts


def build(
    config: Config,
    log: LogSink | None = None,
    places: Places | None = None,
    filename: str = "config.toml",
    disk: bool = True,
    given: Mapping[str, object] = NOTHING_GIVEN,
    tickets: TicketSecret | None = None,
) -> Worker:
    """A worker that serves this configuration; its listeners are opened by `listen`. Raises ConfigError.

    Without `disk` the disk tier is left alone: the supervisor could not use it. `given` are applications by name that
    need no import. `tickets` is what the workers of a gateway have in common for TLS sessions.
    """
    log = log or AccessLog(config.log.access)
    http2 = http2_limits(config)
    trusted = Networks(config.listen.trusted_proxies)
    worker = Worker(worker_limits(config), head_limits(config), log, trusted, http2)
    applications = load_applications(config, filename, given)
    if applications is not None:
        applications.worker, worker.applications = worker, applications
    worker.store = store = Store(config.cache.memory, config.cache.eviction, variant_limit(config))
    store.use_turns(worker.turns.later)
    store.warmer = Warming(worker).run
    store.went_blind = lambda: worker.hold(False)
    if disk:
        open_disk(store, config)
    if config.cache.shared is not None:
        from edge.adapters.shared_tier import shared_tier  # not cheap: a start waits for it

        store.use_shared(shared_tier(config))
    tickets = tickets or TicketSecret.new(worker.now)
    lasting = Lasting(applications, places or geo_reader(config), head_memo(config), tickets)
    made = build_graph(config, worker, lasting)
    made.tracing = tracing(config, worker)
    worker.use(made)
    return worker


def build_graph(config: Config, worker: Worker, lasting: Lasting) -> Graph:
    """Build the routes, pools and limits of a configuration, without touching what serves now. Raises ConfigError."""
    pools = pool_runtimes(config, worker.turns, lasting)
    nowhere = lasting.nowhere
    tools = rule_tools(config, worker)
    known: dict[int, Rules] = {}
    routes = [
        build_route(each, pools.get(each.pool or "", nowhere), tools, known, lasting.applications)
        for each in config.routes
    ]
    for made, values in zip(routes, config.routes, strict=True):
        made.meter.count_by(config.metrics.bounds)
        if values.cache is not None and (values.cache.prefetch.links or values.cache.prefetch.next):
            made.prefetcher = prefetcher(worker, values.cache.prefetch)
        make_members(made, pools)
        for each in (made, *made.members):
            each.ranges = RangeRule.of(each)
    return Graph(
        router=Router(routes),
        pools=pools,
        fallbacks={name: pool.fallback for name, pool in config.pools.items() if pool.fallback is not None},
        limits=worker_limits(config),
        head=head_limits(config),
        http2=http2_limits(config),
        trusted=Networks(config.listen.trusted_proxies),
        geography=build_geography(config, lasting.places),
        combined=config.log.format == "combined",
        memory_bytes=config.cache.memory,
        variants=variant_limit(config),
        lasting=lasting,
    )


def reloaded_graph(config: Config, before: Config, worker: Worker, lasting: Lasting) -> Graph:
    """Build the graph of a reload, reusing what `before` configured in the same way. Raises ConfigError, OSError."""
    places, memo = lasting.places, lasting.memo
    if config.geoip != before.geoip:
        places = geo_reader(config)
    if config.limits != before.limits:
        memo = head_memo(config)
    made = build_graph(config, worker, replace(lasting, places=places, memo=memo))
    if config.log.access != before.log.access:
        made.log = AccessLog(config.log.access)
    traces = [(each.log.otlp, each.log.sample, each.log.sampled_by) for each in (config, before)]
    made.tracing = worker.tracing if traces[0] == traces[1] else tracing(config, worker)
    return made


def head_limits(config: Config) -> Limits:
    """The limits of a request's head: lines, fields, bytes."""
    limits = config.limits
    return Limits(
        limits.max_field_line, limits.max_fields, limits.max_header, limits.max_request_line, limits.utf8_targets
    )


def http2_limits(config: Config) -> Http2Limits:
    """The limits of HTTP/2 connections."""
    return Http2Limits(**config.listen.http2.model_dump())


def variant_limit(config: Config) -> int:
    """How many variants of one URL the store may keep."""
    return MAX_PARTS + max((each.cache.vary_limit for each in config.routes if each.cache is not None), default=0)


def open_disk(store: Store, config: Config) -> None:
    """Give the store its disk tier. Where that fails, an event tells it and requests are served without the tier."""
    disk = config.cache.disk
    if disk is None:
        return
    from edge.adapters.disk_place import TierError  # not cheap: a start waits for it
    from edge.adapters.disk_room import Limits as DiskLimits
    from edge.adapters.disk_tier import DiskTier

    try:
        store.use_disk(
            DiskTier.open(
                Path(disk.path),
                DiskLimits(disk.size, disk.min_free),
                disk.min_uses,
                store.is_hot,
                share=partial(shared_memory, Path(config.state.path) / "disk"),
            ),
        )
    except (TierError, sqlite3.Error, OSError) as error:
        text = error.detail if isinstance(error, TierError) else str(error)
        store.events.append({"kind": "disk.unusable", "evidence": text})


Sockets = Mapping[str, Sequence[socket.socket]]  # by address, as the configuration writes it


async def listen(worker: Worker, config: Config, sockets: Sockets | None = None) -> list[tuple[str, int]]:
    """Start the applications and open the listeners, on the supervisor's sockets or on new ones.

    Returns the bound addresses, as (host, port). Raises ConfigError, OSError.
    """
    if worker.applications is not None:
        await worker.applications.start()
    return await open_listeners(worker, config, listeners_tls(config, worker.lasting.tickets), sockets or {})


async def open_listeners(
    worker: Worker, config: Config, secure: Mapping[str, ListenerTls], sockets: Sockets
) -> list[tuple[str, int]]:
    """Make the worker listen where the configuration says; listeners that are open already stay as they are.

    `secure` has the TLS of each listener by its name. Returns the bound addresses. Raises OSError.
    """
    wanted = places(config.listen)
    for name, address, _ in wanted:
        listener, tls = worker.listeners.get(name), secure.get(name)
        given, backlog = sockets.get(name, ()), config.listen.backlog
        if listener is None:
            given = given or [open_socket(address, config.listen.socket_mode)]
            listener = await worker.listen(given, tls, backlog, config.listen.h2c, name)
        elif given:
            await listener.accept_on(given, backlog)
        listener.tls, listener.h2c = tls.after(listener.tls) if tls is not None else None, config.listen.h2c
        listener.senders = Networks(config.listen.proxy_protocol) if config.listen.proxy_protocol else None
    found = [worker.listeners[each.name].bound for each in wanted]
    worker.cdn_id = cdn_id(config, found)
    return found


def open_socket(address: Address | UnixAddress, mode: int) -> socket.socket:
    """Bind a new socket to an address; `mode` is the file mode of a Unix socket. Raises OSError."""
    if isinstance(address, UnixAddress):
        return unix_socket(Path(address.path), mode=mode)
    return bind(address.host, address.port)


def listeners_tls(config: Config, tickets: TicketSecret) -> dict[str, ListenerTls]:
    """Read the certificates of the TLS listeners, by listener name. Raises ConfigError."""
    named = [(name, https) for name, _, https in places(config.listen) if https is not None]
    return {name: listener_tls(https, config.state.path, tickets, name) for name, https in named}


def cdn_id(config: Config, bound: list[tuple[str, int]]) -> bytes:
    """This gateway's name in CDN-Loop: the same in all of its workers, different in every other gateway."""
    if config.listen.cdn_id is not None:
        return config.listen.cdn_id.lower().encode()
    place = f"{socket.gethostname()} {bound} {config.admin.listen} {config.state.path}"
    return b"edge-" + sha256(place.encode()).hexdigest()[:16].encode()


def geo_reader(config: Config) -> GeoReader:
    """Open the GeoIP database. A missing one is a warning only where a route or pool uses places."""
    asked = any(pool.balance == "geo" for pool in config.pools.values()) or any(
        route.geo is not None and route.geo.prefer for route in config.routes
    )
    return GeoReader(config.geoip.database) if asked else GeoReader(config.geoip.database, lambda said: None)


def build_geography(config: Config, places: Places) -> Geography:
    """The regions with their countries, coordinates and networks, for choosing by the client's place."""
    specs = [region_spec(name, region) for name, region in config.regions.items()]
    overrides = [(str(network), name) for name, region in config.regions.items() for network in region.cidrs]
    return Geography(GeoMap(specs, overrides), places, bool(overrides))


def worker_limits(config: Config) -> WorkerLimits:
    """The limits of the client side, from `[limits]` and `[listen]`."""
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
        handshakes=limits.handshakes,
        handshakes_per_client=limits.handshakes_per_client,
        pipeline_bytes=limits.pipeline_buffer,
        hold_bytes=limits.replay_buffer,
        buffer_high=limits.buffer_high,
        buffer_low=limits.buffer_low,
        unread_bytes=limits.unread_memory,
        chunk_line_bytes=limits.max_chunk_line,
        trailer_bytes=limits.max_trailers,
        max_ranges=limits.max_ranges,
        grace=limits.shutdown_grace,
        request_id=limits.request_id,
        https_port=next((port for each in config.listen.https if (port := each.redirects_to) is not None), None),
        return_id=limits.return_request_id,
    )


def load_applications(
    config: Config, filename: str, given: Mapping[str, object] = NOTHING_GIVEN
) -> Applications | None:
    """Import the applications and hooks that the configuration names; None when it names none. Raises ConfigError."""
    if not named(config) and not hooked(config):
        return None
    return Applications(config, filename, response_limits(config), head_memo(config), given)


def build_route(
    values: RouteConfig,
    pool: PoolRuntime,
    tools: Tools,
    known: dict[int, Rules],
    applications: Applications | None = None,
) -> Route:
    """Build one route. Where it names no pool, `pool` is one without backends; `known` are the cache's rules of routes
    before it. Raises ConfigError."""
    geo, does = values.geo, compile_route_rules(values, tools)
    if values.hooks and applications is not None:
        does = applications.with_hooks(values.hooks, does)
    return Route(
        name=values.name,
        host=values.host.encode(),
        path=values.path.encode(),
        pool=pool,
        rules=rules_once(values.cache, known),
        preserve_host=values.preserve_host,
        max_body=values.max_body,
        encoded_slashes=values.encoded_slashes,
        purgers=Networks(values.purge_methods),
        internal=values.internal,
        methods=frozenset(method.encode() for method in values.methods),
        timeouts=timeouts(values.timeouts),
        retry=retry_settings(values.retry),
        upgrades=frozenset(each.encode() for each in values.upgrade),
        wish=GeoPolicy(geo.prefer, frozenset(geo.require) or None) if geo is not None else NO_GEO_POLICY,
        by_place=pool.pool.policy == "geo" or (geo is not None and bool(geo.prefer)),
        does=does,
    )


def compile_route_rules(values: RouteConfig, tools: Tools) -> RuleSet:
    """Compile a route's rules. Raises ConfigError, also for a file of theirs that cannot be read."""
    share = tools.share
    try:
        return compile_rules(values, tools._replace(share=lambda name, size: share(f"{values.name} {name}", size)))
    except OSError as error:
        raise ConfigError([f"route {values.name}: {error.filename}: {error.strerror}"]) from None
    except ValueError as error:
        raise ConfigError([f"route {values.name}: {error}"]) from None


def rule_tools(config: Config, worker: Worker) -> Tools:
    """The functions by which rules reach the outside: files, services, shared memory."""

    def share(name: str, size: int) -> mmap | None:
        alone = config.listen.workers == 1
        return None if alone else shared_memory(Path(config.state.path) / "limits", name, size)

    return Tools(
        read=lambda path: Path(path).read_bytes(),
        dial=service_link,
        forwarding=forwarding_lines,
        copy=send_copy,
        secret=lambda: shared_secret(Path(config.state.path) / "affinity.key"),
        warn=partial(warner(worker), "rules.warning"),
        share=share,
        owners=Columns(Path(config.state.path) / "limits"),
    )


def make_members(made: Route, pools: dict[str, PoolRuntime]) -> None:
    """Make a copy of the route for each further pool that its `split` or `mirror` names."""
    does = replace(made.does, steps=(), match=None)
    for step in made.steps:
        if isinstance(step, Split):
            step.routes = tuple(replace(made, pool=pools[name], does=does, members=()) for name in step.pools)
            made.members += step.routes
        elif isinstance(step, Mirror):
            plain = replace(does, delivery=None, bodies=None, affinity=None)
            once = Retry(attempts=0, hedge=0.0, same_backend=0.0)
            shadow = replace(
                made,
                pool=pools[step.pool],
                does=plain,
                members=(),
                rules=None,
                retry=once,
                meter=Meter(made.meter.latency.bounds),
                waits=[],
            )
            step.routes = (shadow,)
            made.members += (shadow,)


def retry_settings(values: RetryConfig) -> Retry:
    """A route's retry settings."""
    return Retry(values.attempts, values.deadline, values.statuses, values.hedge, values.same_backend)

"""What a worker serves by, made from one configuration: built aside, and taken on in one turn of the loop.

    start    build ─► use
    reload   build (in a thread, nothing that runs is touched) ─► use: the pools live on, the routes are new

One rule: `use` never waits and cannot fail half-way. What runs goes on by the routes that it began with; what has a
life of its own lives on by its name: pools, backends, connections, counters, what a route knows of its latency.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

from edge.dataplane.core.geography import Geography
from edge.dataplane.core.http2 import Http2
from edge.dataplane.core.limits import WorkerLimits
from edge.dataplane.core.route import Route
from edge.dataplane.core.router import Router
from edge.dataplane.core.store import Store
from edge.dataplane.rules.holding import Holding
from edge.dataplane.upstream.pool import PoolRuntime
from edge.dataplane.worker.draining import Drainable, leave_routes
from edge.dataplane.worker.tracing import Tracing
from edge.http.forwarding import Networks
from edge.http.grammar import Limits
from edge.http2.limits import Http2Limits
from edge.ports import LogSink

RETIRED_S = 60.0  # a pool without work is looked after for so long: a request may be between two attempts


@dataclass(slots=True)
class Graph:
    """Everything that a reload replaces. `fallbacks`: pools by name."""

    router: Router
    pools: dict[str, PoolRuntime]
    fallbacks: Mapping[str, str]
    limits: WorkerLimits
    head: Limits
    http2: Http2Limits
    trusted: Networks
    geography: Geography
    combined: bool = False  # the log's format
    log: LogSink | None = None  # None: the one that there is
    tracing: Tracing | None = None
    memory_bytes: int = 0
    variants: int = 64
    lasting: Any = None  # what a later graph takes over: the builder's business
    unused: list[PoolRuntime] = field(default_factory=list)  # pools whose namesakes live on


class Retired:
    """Pools and routes that left the configuration while something may still run on them."""

    __slots__ = ("_pools", "routes")

    def __init__(self) -> None:
        self._pools: dict[PoolRuntime, float] = {}  # since when nothing runs on it
        self.routes: list[Route] = []

    def pool(self, pool: PoolRuntime) -> None:
        """Retire a pool: it gets no new requests."""
        pool.retire()
        self._pools[pool] = monotonic()

    def tick(self, now: float) -> None:
        """Close what has become idle."""
        for pool, since in list(self._pools.items()):
            pool.tick(now)
            if not pool.is_over:
                self._pools[pool] = now
            elif now - since >= RETIRED_S:
                del self._pools[pool]
                pool.dissolve()

    def forget(self, used: Collection[str]) -> None:
        """Routes of other names, once they were counted: no client's request is on them any more."""
        self.routes = [route for route in self.routes if route.name in used]

    @property
    def pools(self) -> list[PoolRuntime]:
        """The retired pools."""
        return list(self._pools)


class Serving(Drainable, Protocol):
    """A worker with what it serves by."""

    router: Router
    pools: dict[str, PoolRuntime]
    limits: WorkerLimits
    trusted: Networks
    geography: Geography | None
    log: LogSink
    combined: bool
    quick: bool
    tokens: Mapping[bytes, bytes]
    holding: Holding | None
    tracing: Tracing | None
    lasting: Any

    @property
    def head(self) -> Limits: ...
    @property
    def http2(self) -> Http2: ...
    @property
    def store(self) -> Store | None: ...
    @property
    def retired(self) -> Retired: ...
    def read_heads(self, limits: Limits, http2: Http2Limits) -> None: ...


def use(worker: Serving, graph: Graph, kept: Mapping[str, Collection[str]]) -> None:
    """Serve by this graph from the next request on. `kept` names the run-time backends of each pool."""
    before = {route.name: route for route in worker.router.routes}
    _use_pools(worker, graph, kept)
    for route in graph.router.routes:
        route.pool = worker.pools.get(route.pool.name, route.pool)  # one without a pool keeps its empty one
        lived = before.pop(route.name, None)
        if lived is not None:
            route.take_over(lived)
        for member in route.members:
            member.pool = worker.pools.get(member.pool.name, member.pool)
    if before:
        worker.retired.routes += before.values()
        leave_routes(worker, before.keys(), monotonic())
    _use_rest(worker, graph)
    worker.router, worker.lasting = graph.router, graph.lasting


def show_tokens(worker: Serving, tokens: Mapping[bytes, bytes]) -> None:
    """Answer a server of certificates with these, before any route."""
    worker.tokens = tokens
    _look_at_quick(worker)


def hold(worker: Serving, is_held: bool) -> None:
    """Let everything wait that would be looked up in the store, or let it go on."""
    before = worker.holding
    if is_held == (before is not None):
        return
    worker.holding = Holding() if is_held else None
    _look_at_quick(worker)
    if before is not None:
        before.end()


def _look_at_quick(worker: Serving) -> None:
    worker.quick = not worker.tokens and not worker.limits.return_id and worker.holding is None


def _use_pools(worker: Serving, graph: Graph, kept: Mapping[str, Collection[str]]) -> None:
    """Pools of the same name live on, with other backends and settings; those that left end their work."""
    found = {}
    for name, made in graph.pools.items():
        lived = worker.pools.pop(name, None)
        if lived is None:
            made.fallback = None
            found[name] = made
        else:
            lived.renew(made, kept.get(name, ()))
            graph.unused.append(made)
            found[name] = lived
    for gone in worker.pools.values():
        worker.retired.pool(gone)
    worker.pools = graph.pools = found
    for name, other in graph.fallbacks.items():
        found[name].fall_back_to(found[other])


def _use_rest(worker: Serving, graph: Graph) -> None:
    if (graph.head, graph.http2) != (worker.head, worker.http2.limits):
        worker.read_heads(graph.head, graph.http2)
    if graph.log is not None and graph.log is not worker.log:
        worker.log.close()
        worker.log = graph.log
    before, worker.tracing = worker.tracing, graph.tracing
    if before is not None and before is not graph.tracing:
        before.sink.close()
    if worker.geography is not None:
        graph.geography.levels, graph.geography.unknown = worker.geography.levels, worker.geography.unknown
    worker.geography = graph.geography
    if graph.limits.https_port != worker.limits.https_port:
        for downstream in worker.downstreams:
            downstream.key_host = None  # whether a fast hit may answer is looked at when this is set
    worker.limits, worker.combined = graph.limits, graph.combined
    show_tokens(worker, worker.tokens)
    if graph.trusted != worker.trusted:
        worker.trusted = graph.trusted
        for downstream in worker.downstreams:
            downstream.trusted = downstream.peer in graph.trusted
    if worker.store is not None:
        worker.store.resize(graph.memory_bytes, graph.variants)
        worker.store.prefetchers = [each.prefetcher for each in graph.router.routes if each.prefetcher is not None]

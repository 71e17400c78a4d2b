"""What a worker tells of itself: what was counted since the last time, and the open requests one by one.

One rule: this only reads, a second apart or when an operator asks; nothing on a request waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any

from edge.dataplane.client.connection import ClientConnection, State
from edge.dataplane.client.handshake import Handshake
from edge.dataplane.client.http2_life import Http2Life
from edge.dataplane.client.http2_stream import Stream
from edge.dataplane.upstream.fetch import Fetch
from edge.dataplane.upstream.hedge import Hedge
from edge.metrics import Meter

if TYPE_CHECKING:
    from edge.balance.backend import Backend
    from edge.dataplane.client.accepted import Accepted
    from edge.dataplane.core.exchange import Exchange
    from edge.dataplane.upstream.pool import PoolRuntime
    from edge.dataplane.worker.worker import Worker

MAX_CONNECTIONS = 10_000  # in one answer


class Counting:
    """One worker's counts, as differences. Counters of the worker itself are remembered to tell what was added."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._before: dict[str, int] = {}
        self._words_before: dict[str, dict[str, int]] = {}

    def body(self) -> dict[str, Any]:
        """The body of a COUNTS frame; what was not touched is left out."""
        worker = self._worker
        routes = {}
        for route in (*worker.router.routes, *worker.retired.routes):
            route.meter.fold()
            if touched(route.meter):
                routes[route.name] = route.meter.delta()
        if worker.retired.routes:
            running = (each.route for downstream in worker.downstreams for each in downstream.asking)
            worker.retired.forget({route.name for route in running if route is not None})
        return {
            "routes": routes,
            "backends": {name: members for name, members in self._backends() if members},
            "counters": self._counters(),
            "words": self._words(),
            "gauges": {**gauges(worker), "vitals": worker.vitals.take()},
        }

    def _backends(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, runtime in self._worker.pools.items():
            members = {}
            for backend in runtime.pool.backends:
                link = runtime.links.get(backend.id)
                if link is None:
                    continue
                link.meter.fold()
                if touched(link.meter):
                    members[backend.id] = [backend.region, link.meter.delta()]
            yield name, members

    def _counters(self) -> dict[str, int]:
        worker = self._worker
        now = {
            "refused_connections": worker.refused_connections,
            "unread_connections": worker.unread.ended,
            "bugs": worker.bugs,
            "log_lost": worker.log.lost,
            "spans": worker.spans.sent,
            "spans_lost": worker.spans.lost,
            "http2_connections": worker.http2.connections,
            "http2_streams": worker.http2.streams,
            "http2_refused_streams": worker.http2.refused,
        }
        added = {name: count - self._before.get(name, 0) for name, count in now.items()}
        self._before = now
        return {name: count for name, count in added.items() if count}

    def _words(self) -> dict[str, dict[str, int]]:
        """How clients' places were found, why they were not, and what applications did, since the last time."""
        geography, applications = self._worker.geography, self._worker.applications
        counted: dict[str, Mapping[str, int]] = {
            "tls_handshakes": self._worker.handshakes.results,
            "tls_connections": self._worker.handshakes.versions,
            "http2_connection_errors": self._worker.http2.connection_errors,
            "http2_stream_errors": self._worker.http2.stream_errors,
            "proxy_header_errors": self._worker.header_errors,
        }
        if geography is not None:
            counted.update(geo_levels=geography.levels, geo_unknown=geography.unknown)
        if applications is not None:
            counted.update(applications.words())
        found = {}
        for name, counter in counted.items():
            now, before = dict(counter), self._words_before.get(name, {})
            added = {word: count - before.get(word, 0) for word, count in now.items() if count > before.get(word, 0)}
            self._words_before[name] = now
            if added:
                found[name] = added
        return found


def touched(meter: Meter) -> bool:
    """Whether anything was counted since the last delta."""
    return bool(meter.requests or meter.attempts or meter.origin_in or meter.bytes_out or meter.errors)


def gauges(worker: Worker) -> dict[str, Any]:
    """The current values, as opposed to counters."""
    found: dict[str, Any] = {
        "connections": len(worker.downstreams),
        "in_flight": {
            name: {backend.id: backend.in_flight for backend in runtime.pool.backends if backend.in_flight}
            for name, runtime in worker.pools.items()
        },
        "queued": {name: runtime.queued for name, runtime in worker.pools.items() if runtime.queued},
        "upstream": {
            name: {identity: len(link.connections) for identity, link in runtime.links.items() if link.connections}
            for name, runtime in worker.pools.items()
        },
    }
    if worker.store is not None:
        found["store"] = worker.store.stats()
    return found


def connections(worker: Worker, limit: int = MAX_CONNECTIONS) -> dict[str, Any]:
    """Every client connection, every request that is at a backend, and each backend's sums.

    A backend's `in_flight` is the pool's count, its `requests` are found on its connections: they agree, always.
    """
    now = monotonic()
    clients: list[dict[str, Any]] = []
    for downstream in islice(worker.downstreams, limit):
        clients.extend(_rows(downstream, now))
    return {
        "clients": clients,
        "more": max(0, len(worker.downstreams) - limit),
        "requests": [
            row
            for runtime in worker.pools.values()
            for backend in runtime.pool.backends
            for row in _requests(runtime, backend, now)
        ],
        "backends": [
            {
                "pool": name,
                "backend": backend.id,
                "region": backend.region,
                "in_flight": backend.in_flight,
                "open": len(link.connections),
                "idle": len(link.idle),
            }
            for name, runtime in worker.pools.items()
            for backend in runtime.pool.backends
            if (link := runtime.links.get(backend.id)) is not None
        ],
    }


def _requests(runtime: PoolRuntime, backend: Backend, now: float) -> Iterator[dict[str, Any]]:
    """What is in flight at one backend."""
    link = runtime.links.get(backend.id)
    for sink in link.open() if link is not None else ():
        hedge = sink if isinstance(sink, Hedge) else None
        # Every other sink is a fetch, or the tunnel that a fetch became.
        fetch: Fetch = sink if isinstance(sink, Fetch) else sink.fetch  # type: ignore[union-attr]
        if fetch.backend is None or (hedge is not None and hedge.over and not hedge.adopted):
            continue  # it was let go while it connected
        exchange = fetch.exchange
        yield {
            "id": exchange.request_id.decode("latin-1"),
            "pool": runtime.name,
            "backend": backend.id,
            "region": backend.region,
            "state": "hedge" if hedge is not None else fetch.state,
            "attempt": fetch.attempts if hedge is None else hedge.number,
            "age_s": round(now - exchange.started_at, 3),
            "client": exchange.client_text(),
            "method": exchange.method.decode("latin-1"),
            "path": exchange.target.partition(b"?")[0][:200].decode("latin-1"),
            "route": exchange.routed.name,
            "bytes_in": exchange.upload.received if exchange.upload is not None else 0,
            "bytes_out": exchange.bytes_out,
        }


def _rows(downstream: Accepted, now: float) -> Iterator[dict[str, Any]]:
    """One client connection; what its request is, when one runs. One with streams is a row for each that runs."""
    found: dict[str, Any] = {"client": downstream.peer, "state": "idle"}
    if isinstance(downstream, Http2Life | ClientConnection):
        found |= {"protocol": downstream.version.decode(), "tls": downstream.tls.decode()}
    if isinstance(downstream, Http2Life):
        running = [each for each in downstream.streams.values() if isinstance(each, Stream) and each.exchange]
        for stream in running:
            assert stream.exchange is not None
            yield found | _request(stream.exchange, stream.paused, now)
        if not running:
            yield found | {"state": "serving" if downstream.streams else "idle"}
    elif isinstance(downstream, Handshake):
        yield found | {"state": "handshake"}
    elif isinstance(downstream, ClientConnection):
        if downstream.exchange is not None:
            found |= _request(downstream.exchange, downstream.paused, now)
        if downstream.state is not State.OPEN:
            found["state"] = downstream.state.value
        yield found
    else:
        yield found | {"state": "proxy header"}


def _request(exchange: Exchange, paused: bool, now: float) -> dict[str, Any]:
    """What a client asked for. The target is shown without its query."""
    return {
        "state": "fetching" if exchange.fetch is not None or exchange.follower is not None else "serving",
        "client": exchange.client_text(),
        "id": exchange.request_id.decode("latin-1"),
        "age_s": round(now - exchange.started_at, 3),
        "method": exchange.method.decode("latin-1"),
        "path": exchange.target.partition(b"?")[0][:200].decode("latin-1"),
        "route": exchange.route.name if exchange.route is not None else "",
        "status": exchange.status,
        "bytes_out": exchange.bytes_out,
        "bytes_in": exchange.upload.received if exchange.upload is not None else 0,
        "paused": paused,
    }

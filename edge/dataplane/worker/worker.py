"""One worker: what all its connections share, its timer, its listeners, its drain.

One rule: there is one timer. Four times a second it renews the clock's texts, expires deadlines, flushes the log;
nothing on a request makes a timer of its own.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from email.utils import formatdate
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from edge.dataplane.core.downstream import protocol
from edge.dataplane.core.handshakes import Handshakes
from edge.dataplane.core.http2 import Http2
from edge.dataplane.core.limits import WorkerLimits
from edge.dataplane.core.router import Router
from edge.dataplane.core.server_tls import ServerTls
from edge.dataplane.core.turns import Turns
from edge.dataplane.rules.bandwidth import Paced
from edge.dataplane.rules.holding import Holding
from edge.dataplane.worker.access_line import json_line
from edge.dataplane.worker.collector import Collector
from edge.dataplane.worker.draining import drain, look_after
from edge.dataplane.worker.graph import Graph, Retired, hold, use
from edge.dataplane.worker.hottest import Hottest
from edge.dataplane.worker.listener import Listener
from edge.dataplane.worker.standstill import Standstill
from edge.dataplane.worker.unread import Unread
from edge.dataplane.worker.vitals import Vitals
from edge.http.forwarding import Networks
from edge.http.grammar import Limits, RequestHeaders, request_block
from edge.http.memo import Memo
from edge.http.text import quote
from edge.http2.limits import Http2Limits
from edge.ports import LogSink, Service
from edge.spans import SpanCounts

if TYPE_CHECKING:
    from edge.dataplane.client.accepted import Accepted
    from edge.dataplane.core.downstream import Asking
    from edge.dataplane.core.exchange import Exchange
    from edge.dataplane.core.geography import Geography
    from edge.dataplane.core.store import Store
    from edge.dataplane.upstream.pool import PoolRuntime
    from edge.dataplane.worker.tracing import Tracing

TICK_S = 0.25
ENDED_IN_A_TURN = 16  # connections whose deadline has passed
LOOKED_AT_IN_A_TURN = 64  # slow ones; responses that are paced
GEO_TICKS = 20  # how often the GeoIP file is looked at, and listeners' keys of sessions
NOTHING: Mapping[str, Collection[str]] = {}


class Worker:
    """The data plane of one process."""

    def __init__(
        self, limits: WorkerLimits, head: Limits, log: LogSink, trusted: Networks, http2: Http2Limits | None = None
    ) -> None:
        self.limits = limits
        self.head = head
        self.log = log
        self.trusted = trusted
        self.blocks: Memo[RequestHeaders] = Memo(lambda raw: request_block(raw, head))
        self.http2 = Http2(http2 or Http2Limits(), head)
        self.no_block = RequestHeaders([])
        self.router = Router([])  # its routes are given by `use`, before a listener opens
        self.pools: dict[str, PoolRuntime] = {}
        self.store: Store | None = None
        self.geography: Geography | None = None
        self.applications: Service | None = None  # that run in this worker
        self.tell: Callable[[str, dict[str, Any]], None] = lambda kind, facts: None  # events, for the control plane
        self.downstreams: set[Accepted] = set()
        self.slow: set[Accepted] = set()  # those whose unsent bytes are looked at on each tick
        self.unread: Unread[Accepted] = Unread()
        self.paced: dict[Paced, None] = {}  # responses that wait for their bandwidth
        self.handshakes = Handshakes()
        self.turns = Turns(self.report_bug)
        self.draining = False  # running exchanges end, connections with them
        self.stopping = False  # nothing new is begun
        self.refused_connections = 0
        self.header_errors: Counter[str] = Counter()  # PROXY headers that ended their connection, by reason
        self.bugs = 0
        self.combined = False  # the log's format
        self.cdn_id = b"edge"  # this gateway's name in CDN-Loop
        self.quick = not limits.return_id  # off where each answer has a line of its own, or to compare: see `fast_hit`
        self.tokens: Mapping[bytes, bytes] = {}  # what a server of certificates is answered (`rules.challenge`)
        self.holding: Holding | None = None  # while the machine catches up with its fleet
        self.cold = True  # off to compare: see `cold`
        self.now = time.time()
        self.date_line = b""
        self.idle_deadline = 0.0
        self._clients: dict[str, int] = {}
        self.listeners: dict[str, Listener] = {}
        self.lasting: Any = None  # the builder's: see `app.Lasting`
        self.retired = Retired()
        self.leaving: dict[Accepted, float] = {}  # connections that are to end though the worker goes on, since when
        self._ids = os.urandom(10).hex().encode()
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._end: asyncio.Future[None] | None = None
        self.drained = asyncio.Event()
        self._second = 0
        self._ticks = 0
        self.tracing: Tracing | None = None
        self.spans = SpanCounts()
        self.hottest = Hottest()
        self.vitals = Vitals(TICK_S)
        self._standstill = Standstill(TICK_S)
        self.collector = Collector()
        self.ended_connections = 0
        self.refresh()

    # -- set-up ----------------------------------------------------------------------------------------------------

    def use(self, graph: Graph, kept: Mapping[str, Collection[str]] = NOTHING) -> None:
        """Serve with this graph from the next request on; `kept` are pools' backends of run time."""
        use(self, graph, kept)

    def hold(self, is_held: bool) -> None:
        """Let what would be looked up wait, or go on."""
        hold(self, is_held)

    def read_heads(self, limits: Limits, http2: Http2Limits) -> None:
        """Read request heads under these limits."""
        self.head = limits
        self.blocks = Memo(lambda raw: request_block(raw, limits))
        self.http2 = self.http2.again(http2, limits)

    async def listen(
        self,
        sockets: socket.socket | Sequence[socket.socket],
        tls: ServerTls | None = None,
        backlog: int = 1024,
        h2c: bool = False,
        name: str = "",
    ) -> Listener:
        """Accept on a bound socket, or on several of one address."""
        listener = Listener(self, name, tls, h2c)
        await listener.accept_on([sockets] if isinstance(sockets, socket.socket) else sockets, backlog)
        self.listeners[name or str(listener.bound)] = listener
        if self._timer is None:
            self._tick()
        return listener

    async def close_listener(self, name: str) -> None:
        """Accept there no more; its connections end with the request that they carry."""
        listener = self.listeners.pop(name)
        await listener.leave()
        now = monotonic()
        self.leaving.update((downstream, now) for downstream in self.downstreams if listener.has(downstream))

    # -- connections -----------------------------------------------------------------------------------------------

    def admit_connection(self, downstream: Accepted) -> bool:
        """Whether the connection fits the limits, in all and for its address; counted until it is forgotten."""
        limits, peer = self.limits, downstream.peer
        mine = self._clients.get(peer, 0)
        trusted = downstream.trusted = peer in self.trusted
        many = trusted or downstream.many_clients  # a proxy's connections are many clients'
        most = 0 if many else limits.connections_per_client
        if len(self.downstreams) >= limits.connections or 0 < most <= mine or self.stopping:
            self.refused_connections += 1
            return False
        self._clients[peer] = mine + 1
        self.downstreams.add(downstream)
        downstream.transport.set_write_buffer_limits(limits.buffer_high, limits.buffer_low)
        return True

    def make_known(self, before: Accepted, after: Accepted) -> None:
        """The client of a connection is known now: count the connection as that client's, or refuse it at its limit."""
        leaves_since = self.leaving.pop(before, None)
        if before in self.downstreams:
            self._uncount(before)
        after.connection_made(before.transport)
        if leaves_since is not None and after in self.downstreams:
            self.leaving[after] = leaves_since

    def hand_over(self, before: Accepted, after: Accepted) -> None:
        """Another protocol goes on with a connection."""
        self.slow.discard(before)
        self.downstreams.discard(before)
        self.downstreams.add(after)
        if before in self.leaving:
            self.leaving[after] = self.leaving.pop(before)

    def forget_connection(self, downstream: Accepted) -> None:
        """A client connection has ended."""
        self.slow.discard(downstream)
        if downstream in self.downstreams:
            self._uncount(downstream)
            self.ended_connections += 1
            self.leaving.pop(downstream, None)
        if self.draining and not self.downstreams:
            self.drained.set()

    def _uncount(self, downstream: Accepted) -> None:
        self.downstreams.remove(downstream)
        left = self._clients[downstream.peer] - 1
        if left:
            self._clients[downstream.peer] = left
        else:
            del self._clients[downstream.peer]

    # -- time ------------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Renew the texts of the clock."""
        self.now = now = time.time()
        self.idle_deadline = monotonic() + self.limits.idle_timeout
        if int(now) != self._second:
            self._second = int(now)
            self.date_line = b"Date: %b\r\n" % formatdate(now, usegmt=True).encode()
            self.log.refresh(now)

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        now = monotonic()
        self._part(self.refresh)
        if not self._standstill.over(now):
            self._end_late(now)
        if excess := self.unread.excess(self.limits.unread_bytes):
            self.turns.each(excess, self._end_unread, ENDED_IN_A_TURN)
        if self.paced:
            self.turns.each(self.paced, Paced.tick, LOOKED_AT_IN_A_TURN)
        for route in (*self.router.routes, *self.retired.routes):
            self._part(route.fold, now)
        if self.store is not None:
            self._part(self.store.tick, now)
        self.hottest.take(self.log.waiting, now)
        self._part(self.log.flush)
        self.vitals.ticked(now)
        self._part(self.collector.tick, now, len(self.downstreams), self.ended_connections)
        self._ticks += 1
        if self._ticks % GEO_TICKS:
            return
        for listener in self.listeners.values():
            if listener.tls is not None:
                self._part(listener.tls.tick, self.now)
        if self.geography is not None:
            asyncio.get_running_loop().run_in_executor(None, self.geography.places.refresh)

    def _end_late(self, now: float) -> None:
        """Whatever has a deadline, of clients and of backends."""
        late = [downstream for downstream in self.downstreams if downstream.deadline <= now]
        self.turns.each(late, partial(self._expire, now), ENDED_IN_A_TURN)
        self.turns.each(self.slow, partial(self._look, now), LOOKED_AT_IN_A_TURN)
        for pool in self.pools.values():
            self._part(pool.tick, now)
        self._part(self.retired.tick, now)
        if self.leaving:
            self._part(look_after, self, now)

    def _expire(self, now: float, downstream: Accepted) -> None:
        if downstream.deadline <= now and downstream in self.downstreams:  # when its turn comes, too
            downstream.expire(now)

    def _look(self, now: float, downstream: Accepted) -> None:
        if downstream in self.slow:
            downstream.look(now)
            self.unread.count(downstream)

    def _end_unread(self, downstream: Accepted) -> None:
        if downstream in self.downstreams:
            self.unread.ended += 1
            downstream.end_unread()

    def _part(self, part: Callable[..., object], *given: Any) -> None:
        """One part of a tick: what it lets out is a bug, and the other parts are done all the same."""
        try:
            part(*given)
        except Exception as error:
            self.report_bug(error)

    # -- exchanges -------------------------------------------------------------------------------------------------

    def next_id(self) -> bytes:
        """A request id: 32 hexadecimal digits, unique over workers, in the form of a trace id."""
        self._count += 1
        return b"%b%012x" % (self._ids, self._count)

    def id_of(self, downstream: Asking, given: bytes) -> bytes:
        """The id of a request that came with one."""
        policy = self.limits.request_id
        return given if policy == "keep" or (policy == "trusted" and downstream.trusted) else self.next_id()

    def finished(self, exchange: Exchange) -> None:
        """Count and log one exchange."""
        route = exchange.route
        seconds = monotonic() - exchange.started_at
        if route is not None:
            meter, status, spoken = route.meter, exchange.status, exchange.downstream.spoken
            place = spoken if exchange.is_http11 else spoken - 1
            meter.outcomes.append((status, exchange.verdict, exchange.reason, exchange.error, place))
            meter.bytes_out += exchange.bytes_out
            head_at = exchange.head_at
            meter.first_samples.append(head_at - exchange.started_at if head_at else seconds)
            if status != 101:  # how long people talk says nothing of how quick anything is
                meter.samples.append(seconds)
            if exchange.upload is not None:
                meter.bytes_in += exchange.upload.received
            if exchange.from_store:
                meter.cache_out += exchange.bytes_out
        if self.log.enabled:
            self.log.add(self._combined(exchange) if self.combined else json_line(self.log.stamp, exchange, seconds))

    def _combined(self, exchange: Exchange) -> bytes:
        client = exchange.client.encode() if exchange.client else exchange.downstream.peer_bytes
        first = b"%b %b %b" % (
            exchange.method,
            quote(exchange.target),
            protocol(exchange.version, exchange.is_http11),
        )
        return self.combined_line(client, exchange.block, first, (exchange.status, exchange.bytes_out))

    def combined_line(self, client: bytes, block: RequestHeaders, first: bytes, told: tuple[int, int]) -> bytes:
        """The combined log format of Apache and nginx."""
        fields = block.fields
        return b'%b - - [%b] "%b" %d %d "%b" "%b"\n' % (
            client,
            self.log.stamp_combined,
            first,
            *told,
            quote(fields.joined(b"referer") or b"-"),
            quote(fields.joined(b"user-agent") or b"-"),
        )

    def report_bug(self, error: BaseException) -> None:
        """Count an exception that a stage should not have let out, and print its traceback on standard error."""
        self.bugs += 1
        with suppress(OSError, ValueError):  # standard error may be gone: the count is what stays
            traceback.print_exception(error, file=sys.stderr)

    # -- the end ---------------------------------------------------------------------------------------------------

    async def drain(self, grace: float, left: Callable[[], None] = lambda: None) -> None:
        """Accept no more, then call `left`; let what runs end within `grace` seconds, then close what is there."""
        await drain(self, grace, left)
        await self.close()

    async def close(self) -> None:
        """End everything at once, and once: whoever asks again waits for the same end."""
        if self._end is None:
            self._end = asyncio.ensure_future(self._close())
        await asyncio.shield(self._end)

    async def _close(self) -> None:
        self.stopping = True
        for listener in self.listeners.values():
            listener.close()
        for downstream in list(self.downstreams):
            downstream.abort()
        for pool in (*self.pools.values(), *self.retired.pools):
            await pool.close()
        for service in [each for route in self.router.routes for each in route.services]:
            await service.link.close()
        if self.applications is not None:
            await self.applications.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.store is not None and self.store.disk is not None:
            await asyncio.to_thread(self.store.disk.close)
        if self.store is not None and self.store.shared is not None:
            await self.store.shared.close()
        if self.tracing is not None:
            self.tracing.sink.close()
            await asyncio.to_thread(self.tracing.sink.settle)
        self.log.close()

"""After a 101 that the gateway asked for: bytes both ways, unread, with backpressure, until either side ends.

One rule: nothing here looks at the bytes. When one side ends, what it sent is flushed to the other and both close.
"""

from __future__ import annotations

import asyncio
import socket
from math import inf
from time import monotonic
from typing import Protocol

from edge.dataplane.core.body_mode import CLOSE
from edge.dataplane.core.exchange import Exchange
from edge.dataplane.core.route import Route
from edge.dataplane.core.sources import Fetching
from edge.errors import ResponseIncomplete, UpstreamError
from edge.http.grammar import ResponseFacts
from edge.http.message import Line
from edge.http.websocket import CLOSE_TO_CLIENT, CLOSE_TO_SERVER, Frames

# A side that has vanished without a word is found out by the kernel in 2 minutes.
_PROBES = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))


class TunnelEnd(Protocol):
    """The client's end of a tunnel: an HTTP/1.1 connection, or an HTTP/2 stream."""

    deadline: float
    tunnel: Tunnel | None

    @property
    def transport(self) -> asyncio.Transport: ...
    def begin_tunnel(self, tunnel: Tunnel) -> bytes: ...
    def send_raw(self, data: bytes) -> None: ...
    def end_raw(self) -> None: ...
    def stop_reading(self) -> None: ...
    def start_reading(self) -> None: ...
    def finish(self, owes: bool = False) -> None: ...
    def abort(self, reset: bool = False) -> None: ...


def keep_alive(transport: asyncio.Transport) -> None:
    """Enable TCP keep-alive, so that a peer that vanished is noticed."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES:
        if hasattr(socket, name):  # not every system has all of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def switch(exchange: Exchange, downstream: TunnelEnd, facts: ResponseFacts, first: bytes) -> None:
    """Send the 101 to an HTTP/1.1 client and make the tunnel; `first`: bytes that followed the 101."""
    fetch = exchange.fetch
    assert fetch is not None and facts.upgrade is not None
    exchange.status = 101
    exchange.keep = False
    exchange.mode = CLOSE
    downstream.transport.write(facts.wire + b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % facts.upgrade + first)
    exchange.bytes_out += len(first)
    Tunnel(exchange, downstream, fetch, first)


class Tunnel:
    """The two ends of an upgraded connection; replaces the fetch as the backend connection's sink."""

    __slots__ = ("_connection", "_down", "_exchange", "_front", "_heard_at", "_idle_s", "_leaving", "_up", "fetch")

    def __init__(self, exchange: Exchange, downstream: TunnelEnd, fetch: Fetching, first: bytes) -> None:
        assert fetch.connection is not None
        self._exchange = exchange
        self._front = downstream
        self.fetch = fetch
        self._connection = fetch.connection
        self._connection.sink = self
        spoken = exchange.block.upgrade == b"websocket"
        self._down: Frames | None = Frames() if spoken else None  # what the client was sent
        self._up: Frames | None = Frames() if spoken else None
        self._leaving = False
        if self._down is not None:
            self._down.feed(first)
        self._heard_at = monotonic()
        self._idle_s = fetch.route.timeouts.tunnel
        downstream.deadline = self._heard_at + self._idle_s
        for transport in (downstream.transport, self._connection.transport):
            keep_alive(transport)
        waiting = downstream.begin_tunnel(self)
        if waiting:
            self.from_client(waiting)

    @property
    def route(self) -> Route:
        """The route of the request that was upgraded."""
        return self.fetch.route

    # going away

    def go_away(self, always: bool = False) -> None:
        """End a WebSocket at the next frame boundary; other protocols only if `always`."""
        if self._down is None:
            if always:
                self._front.abort()
        elif not self._leaving:
            self._leaving = True
            if self._down.between:
                self._say_goodbye()

    def _say_goodbye(self) -> None:
        """Send a Close frame (1001) to both sides and discard the client's own."""
        downstream, up = self._front, self._up
        downstream.tunnel = None
        downstream.send_raw(CLOSE_TO_CLIENT)
        if up is not None and up.between:
            self._connection.upload(CLOSE_TO_SERVER)
        self._connection.close()
        downstream.finish(owes=True)
        self._over()

    # from the client's side

    def from_client(self, data: bytes) -> None:
        """Bytes of the client, for the backend."""
        self._heard_at = monotonic()
        if self._up is not None:
            self._up.feed(data)
        self._connection.upload(data)

    def client_paused(self) -> None:
        """The client reads slowly: stop reading from the backend."""
        self._connection.pause()

    def client_resumed(self) -> None:
        """The client accepts more: read from the backend again."""
        self._connection.resume()
        self._connection.deadline = inf

    def client_ended(self) -> None:
        """The client half-closed: end the tunnel once its bytes have been sent to the backend."""
        self._connection.close()

    def client_gone(self) -> None:
        """The client's connection was lost."""
        self._connection.close()
        self._over()

    # from the upstream's side (ports.ResponseSink)

    def on_interim(self, facts: ResponseFacts) -> None:
        """Does not occur in a tunnel."""

    def on_head(self, facts: ResponseFacts, length: int | None, body: bytes, done: bool) -> None:
        """Does not occur in a tunnel."""

    def on_data(self, data: bytes) -> None:
        """Bytes of the backend, for the client."""
        self._heard_at = monotonic()
        if self._leaving and self._down is not None:
            data = data[: self._down.rest(data)]
        elif self._down is not None:
            self._down.feed(data)
        self._exchange.bytes_out += len(data)
        self._front.send_raw(data)
        if self._leaving and self._down is not None and self._down.between:
            self._say_goodbye()

    def on_end(self, trailers: list[Line]) -> None:
        """The backend ended: flush within the write timeout, then close."""
        downstream = self._front
        downstream.tunnel = None
        downstream.end_raw()
        self._over()

    def on_failed(self, error: UpstreamError) -> None:
        """The backend connection was lost."""
        self._exchange.error = error.proxy_status
        self._front.tunnel = None
        self._front.abort()
        self._over()

    def on_bug(self, error: Exception) -> None:
        """A callback raised: end the tunnel."""
        self._exchange.worker.report_bug(error)
        self.on_failed(ResponseIncomplete("internal error"))

    def on_pause(self) -> None:
        """The backend reads slowly: stop reading from the client."""
        self._front.stop_reading()

    def on_resume(self) -> None:
        """The backend accepts more: read from the client again."""
        self._front.start_reading()

    def expire(self, now: float) -> None:
        """Neither side sent anything for `timeouts.tunnel` (pings count): end the tunnel."""
        if now - self._heard_at < self._idle_s:
            self._front.deadline = self._heard_at + self._idle_s
            return
        self._exchange.error = "connection_timeout"
        self._front.abort()  # the origin's side ends with it

    def _over(self) -> None:
        self.fetch.tunnel_over()
        self._exchange.fetch = None
        self._exchange.finish()

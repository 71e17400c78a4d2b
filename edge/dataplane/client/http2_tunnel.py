"""WebSockets over HTTP/2 (RFC 8441): an extended CONNECT to us is an upgrade to the backend, and DATA are its bytes.

    CONNECT, :protocol websocket ─► GET, Upgrade: websocket ─► 101 ─► 200, and from there `tunnel` as ever
                                                            └─ anything else: that answer, and the stream ends

One rule: to the client 2xx means "switched", so it hears that only when the backend did, and proved it by the key that
we sent: the client has none and cannot look.
"""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from collections.abc import Collection
from math import inf
from typing import TYPE_CHECKING

from edge.dataplane.client.http2_stream import LOW, Stream, StreamOwner
from edge.dataplane.client.http2_tunnel_exchange import TunnelExchange
from edge.dataplane.client.tunnel import Tunnel
from edge.http.grammar import Limits, RequestHeaders, request_block
from edge.http2.request_fields import RequestFields

if TYPE_CHECKING:
    from edge.dataplane.core.exchange import Exchange

WEBSOCKET = b"websocket"


def upgrade_headers(facts: RequestFields, limits: Limits) -> tuple[RequestHeaders, bytes]:
    """The header block of the HTTP/1.1 upgrade for an extended CONNECT, and its Sec-WebSocket-Key."""
    key = b64encode(os.urandom(16))
    asked = b"connection: upgrade\r\nupgrade: %b\r\nsec-websocket-key: %b\r\n" % (WEBSOCKET, key)
    return request_block(facts.raw + asked, limits), key


class TunnelStream(Stream):
    """A stream whose extended CONNECT may become a tunnel."""

    __slots__ = ("_early", "_early_end", "key", "tunnel")

    def __init__(self, connection: StreamOwner, stream_id: int, receiving: bool) -> None:
        super().__init__(connection, stream_id, receiving, None)
        self.key = b""
        self.tunnel: Tunnel | None = None
        self._early = bytearray()  # came before the backend switched, or while it is slow: no credit is given meanwhile
        self._early_end = False

    def begin_exchange(self, method: bytes, target: bytes, is_http11: bool, block: RequestHeaders) -> Exchange:
        """Make the exchange for the upgrade request."""
        exchange = self.exchange = TunnelExchange(self, method, target, is_http11, block)  # type: ignore[arg-type]  # it writes to a stream
        return exchange

    @property
    def transport(self) -> asyncio.Transport:
        """The transport of the connection."""
        return self.connection.transport

    def begin_tunnel(self, tunnel: Tunnel) -> bytes:
        """From now on DATA goes to `tunnel`. Returns the bytes that arrived already."""
        self.tunnel = tunnel
        if self._early_end:
            asyncio.get_running_loop().call_soon(self.came_raw, b"", True)
        early, self._early = bytes(self._early), bytearray()
        return early

    def came_raw(self, data: bytes, ends: bool) -> None:
        """The content of a DATA frame."""
        tunnel = self.tunnel
        if tunnel is None or self.holding:
            self._early += data
            self._early_end = ends
            return
        if data:
            tunnel.from_client(data)
            self.credit()
        if ends and self.tunnel is not None:  # as an orderly close of a connection: what it sent goes on, then both end
            self.tunnel = None
            self.end_raw()
            tunnel.client_gone()

    def start_reading(self, why: int = 0) -> None:
        """The backend accepts more: give credit again."""
        super().start_reading(why)
        if self.tunnel is not None and (self._early or self._early_end):
            early, self._early = bytes(self._early), bytearray()
            self.came_raw(early, self._early_end)

    def send_raw(self, data: bytes) -> None:
        """Write bytes of the backend as DATA."""
        self.body((data,), False)
        if self.paused and self.tunnel is not None:
            self.tunnel.client_paused()

    def end_raw(self) -> None:
        """Close the stream after the tunnel's last bytes."""
        self.deadline = inf
        self.body((), True)

    def finish(self, owes: bool = False) -> None:
        """The gateway ends the tunnel: END_STREAM, then the stream is closed."""
        self.end_raw()

    def moved(self) -> None:
        """Some of what was queued has been written: the tunnel may read from the backend again."""
        if self.tunnel is None:
            super().moved()
        elif self.paused and self.queued <= LOW:
            self.paused = False
            self.tunnel.client_resumed()

    def expire(self, now: float) -> None:
        """The tunnel was silent for `timeouts.tunnel`: end it."""
        if self.tunnel is None:
            super().expire(now)
        else:
            self.tunnel.expire(now)

    def gone(self, why: str) -> None:
        """The stream was closed: tell the tunnel."""
        tunnel, self.tunnel = self.tunnel, None
        if tunnel is None:
            super().gone(why)
            return
        self.is_gone = True
        self.drop()
        tunnel.client_gone()
        self.let_go()

    def drain(self) -> None:
        """The gateway stops: end the tunnel with a Close frame (1001)."""
        if self.tunnel is not None:
            self.tunnel.go_away()

    def leave_route(self, gone: Collection[str]) -> None:
        """End the tunnel if its route was removed."""
        if self.tunnel is not None and self.tunnel.route.name in gone:
            self.tunnel.go_away(always=True)

    def abort(self, reset: bool = False) -> None:
        """Reset the stream: the tunnel timed out or the backend was lost."""
        tunnel, self.tunnel = self.tunnel, None
        super().abort(reset)
        if tunnel is not None:
            tunnel.client_gone()

"""One request on an HTTP/2 connection, as an exchange sees its client: the same calls as an HTTP/1.1 connection has.

One rule: a stream ends once. What the client did to it, or we did, is told to its exchange before it is forgotten, so
that a backend is free at once; a stream counts towards the limit until then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from math import inf
from typing import TYPE_CHECKING, Protocol

from edge.dataplane.client.http2_exchange import StreamExchange
from edge.errors import ClientGone
from edge.http2.frames import Code, window_update
from edge.http2.output import Output, Piece, SendingStream

if TYPE_CHECKING:
    from edge.balance.geo import ClientPlace
    from edge.dataplane.core.bound import Bound
    from edge.dataplane.core.certificate import ClientCertificate
    from edge.dataplane.core.context import WorkerContext
    from edge.dataplane.core.exchange import Exchange
    from edge.dataplane.core.http2 import Http2
    from edge.http.grammar import RequestHeaders
    from edge.http.proxy_protocol import ClientEnds

HIGH, LOW = 64 * 1024, 16 * 1024  # bytes that may wait for the client before whoever writes them is held back
TOGETHER = 16 * HIGH  # of all streams of a connection: then each is held back with whatever it has


class StreamOwner(Protocol):
    """What a stream needs of its connection."""

    scheme: bytes
    place: ClientPlace | None
    forward_lines: tuple[bytes, bytes]
    deadline: float

    @property
    def certificate(self) -> ClientCertificate | None: ...
    @property
    def shown_names(self) -> frozenset[bytes] | None: ...
    @property
    def key_host(self) -> bytes | None: ...
    @property
    def key_start(self) -> bytes: ...
    @property
    def worker(self) -> WorkerContext: ...
    @property
    def shared(self) -> Http2: ...
    @property
    def output(self) -> Output: ...
    @property
    def transport(self) -> asyncio.Transport: ...
    @property
    def peer(self) -> str: ...
    @property
    def peer_bytes(self) -> bytes: ...
    @property
    def tls(self) -> bytes: ...
    @property
    def logged(self) -> bytes: ...
    @property
    def spoken(self) -> int: ...
    def client_ends(self, client: str) -> ClientEnds: ...
    @property
    def trusted(self) -> bool: ...
    def head(self, stream: SendingStream, block: bytes, ends: bool) -> None: ...
    def soon(self) -> None: ...
    def close_stream(self, stream: SendingStream) -> None: ...
    def reset(self, stream: SendingStream, code: Code) -> None: ...


class Stream(SendingStream):
    """One stream of an HTTP/2 connection; to its exchange, the client (`core.downstream.Downstream`)."""

    __slots__ = (
        "_deadline",
        "_receives",
        "_unsaid",
        "bound",
        "connection",
        "exchange",
        "holding",
        "is_gone",
        "left",
        "paused",
        "receiving",
        "scheme",
        "worker",
    )
    asked_by: tuple[bytes, ...] = ()

    def __init__(self, connection: StreamOwner, stream_id: int, receiving: bool, length: int | None) -> None:
        super().__init__(stream_id, connection.output.initial)
        self.connection = connection
        self.worker = connection.worker
        self.scheme = connection.scheme
        self.exchange: Exchange | None = None
        self.bound: Bound | None = None  # never longer than for this request
        self.paused = False
        self.is_gone = False
        self.receiving = receiving  # the client may send a body
        self.left = length  # bytes of it that are still to come, where it told
        self.holding = False  # no credit is given: the backend is slow
        self._receives = connection.shared.limits.window
        self._unsaid = 0  # bytes that came and were not credited yet
        self._deadline = inf

    # -- what belongs to the connection --------------------------------------------------------------------------------

    @property
    def peer(self) -> str:
        """The peer's address as text; `unix` for a Unix socket."""
        return self.connection.peer

    @property
    def tls(self) -> bytes:
        """The TLS version; empty without TLS. See `Downstream`."""
        return self.connection.tls

    @property
    def spoken(self) -> int:
        """Index of the protocol counter. See `Downstream`."""
        return self.connection.spoken

    @property
    def logged(self) -> bytes:
        """Client, protocol and TLS as the access log has them. See `Downstream`."""
        return self.connection.logged

    def client_ends(self, client: str) -> ClientEnds:
        """See `Accepted`."""
        return self.connection.client_ends(client)

    @property
    def peer_bytes(self) -> bytes:
        """`peer` in ASCII, for the log."""
        return self.connection.peer_bytes

    @property
    def trusted(self) -> bool:
        """Whether the peer is in `listen.trusted_proxies`."""
        return self.connection.trusted

    @property
    def shown_names(self) -> frozenset[bytes] | None:
        """The names that our certificate covers; None without TLS or SNI."""
        return self.connection.shown_names

    @property
    def certificate(self) -> ClientCertificate | None:
        """The client's verified certificate, if it has one."""
        return self.connection.certificate

    @property
    def key_host(self) -> bytes | None:
        """The Host that `key_start` was made for. See `ClientConnection`."""
        return self.connection.key_host

    @property
    def key_start(self) -> bytes:
        """Scheme and authority of a cache key. See `ClientConnection`."""
        return self.connection.key_start

    @property
    def place(self) -> ClientPlace | None:
        """The peer's place by GeoIP, once it has been looked up."""
        return self.connection.place

    @place.setter
    def place(self, place: ClientPlace | None) -> None:
        self.connection.place = place

    @property
    def forward_lines(self) -> tuple[bytes, bytes]:
        """The forwarding lines of the last host. See `ClientConnection`."""
        return self.connection.forward_lines

    @forward_lines.setter
    def forward_lines(self, lines: tuple[bytes, bytes]) -> None:
        self.connection.forward_lines = lines

    @property
    def deadline(self) -> float:
        """When the request body must have moved on (monotonic seconds; inf: no limit)."""
        return self._deadline

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self._deadline = deadline
        if deadline < self.connection.deadline:
            self.connection.deadline = deadline

    def begin_exchange(self, method: bytes, target: bytes, is_http11: bool, block: RequestHeaders) -> Exchange:
        """Make the exchange for the request of this stream."""
        exchange = self.exchange = StreamExchange(self, method, target, is_http11, block)  # type: ignore[arg-type]  # it writes to a stream
        return exchange

    # -- the response --------------------------------------------------------------------------------------------------

    def head(self, block: bytes, ends: bool) -> None:
        """Write a field block of the response: interim or final. `ends`: nothing follows."""
        self.connection.head(self, block, ends)

    def body(self, pieces: tuple[Piece, ...], ends: bool, trailers: bytes | None = None) -> None:
        """Queue pieces of the body. `ends`: nothing follows but the trailers."""
        connection = self.connection
        connection.output.send(self, pieces, ends, trailers)
        connection.soon()
        if self.queued > HIGH or (connection.output.queued > TOGETHER and self.queued):
            self.paused = True
            connection.worker.slow.add(connection)

    def moved(self) -> None:
        """Some of what was queued has been written: let the exchange produce more."""
        if self.paused and self.queued <= LOW:
            self.paused = False
            if self.exchange is not None:
                self.exchange.client_resumed()

    # -- the request's body --------------------------------------------------------------------------------------------

    def came(self, size: int) -> bool:
        """Count `size` bytes of DATA, padding included; False if they exceed the stream's window."""
        self._receives -= size
        self._unsaid += size
        return self._receives >= 0

    def credit(self) -> None:
        """Send a WINDOW_UPDATE when enough credit has accumulated."""
        unsaid = self._unsaid
        if not self.holding and self.receiving and unsaid * 2 >= self.connection.shared.limits.window:
            self._unsaid = 0
            self._receives += unsaid
            self.connection.output.frames.append(window_update(self.id, unsaid))

    def stop_reading(self, why: int = 0) -> None:
        """The backend is slow: give the client no more credit."""
        self.holding = True

    def start_reading(self, why: int = 0) -> None:
        """The backend accepts more: give credit again."""
        self.holding = False
        if self.exchange is not None:
            self.credit()
            self.connection.soon()

    def turn(self) -> None:
        """Nothing to do: a stream never buffers requests."""

    def expire(self, now: float) -> None:
        """The deadline of the request body passed: 408."""
        self._deadline = inf
        if self.exchange is not None:
            self.exchange.upload_late(now)

    # -- the end -------------------------------------------------------------------------------------------------------

    def exchange_ended(self, keep: bool) -> None:
        """The exchange is over; what it wrote may still wait for the client's window."""
        self.exchange = None
        self._deadline = inf
        self.let_go()
        if self.ended and not self.is_gone:
            self.connection.close_stream(self)
            self.connection.soon()

    def abort(self, reset: bool = False) -> None:
        """Reset the stream, so that an incomplete response does not look complete."""
        if not self.is_gone:
            self.connection.reset(self, Code.INTERNAL_ERROR)

    def gone(self, why: str) -> None:
        """The stream was closed: tell its exchange."""
        self.is_gone = True
        self.drop()
        exchange = self.exchange
        if exchange is not None:
            exchange.client_gone(ClientGone(why))
        self.let_go()

    def drain(self) -> None:
        """Nothing to do: a request ends by itself."""

    def leave_route(self, gone: Collection[str]) -> None:
        """Nothing to do: only tunnels (`http2_tunnel`) stay on a removed route."""

    def let_go(self) -> None:
        """Close the backend connection that is bound to this client, if any."""
        bound, self.bound = self.bound, None
        if bound is not None:
            bound.end()

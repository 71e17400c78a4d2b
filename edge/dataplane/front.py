"""One client connection: reads heads by the grammar, keeps the order, and owns every deadline and limit of its side.

One rule: nothing overtakes. While an exchange runs, later bytes wait in a bounded buffer; the next head is read only
when the exchange has ended and its bytes are not held up. What the grammar does not prove is answered with an error
and the connection ends; bytes are never repaired.

Deadlines are plain numbers that the worker's tick compares: no timer is made for a request.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from enum import Enum
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from edge.dataplane.serve import refuse, serve
from edge.errors import BadRequest, ClientError, ClientGone, ClientSlow, TooLarge
from edge.http.grammar import REQUEST_LINE, request_line_error

if TYPE_CHECKING:
    from edge.balance.geo import ClientPlace
    from edge.dataplane.binding import Bound
    from edge.dataplane.exchange import Exchange
    from edge.dataplane.tunnel import Tunnel
    from edge.dataplane.worker import Worker

LINGER_S = 2.0  # how long what the client still sends is read away, so that it can read our last answer
_NO_LINGER = struct.pack("ii", 1, 0)


class State(Enum):
    """What the bytes of this connection mean now."""

    OPEN = "open"
    TUNNEL = "tunnel"
    LINGER = "linger"  # our last answer is out; input is discarded
    GONE = "gone"


class Front(asyncio.Protocol):
    """A client connection. At most one exchange runs on it at any time."""

    __slots__ = (
        "_buffer",
        "_held_back",
        "_reading",
        "_served",
        "_stalled_at",
        "asked_by",
        "bound",
        "deadline",
        "exchange",
        "forward_lines",
        "key_host",
        "key_start",
        "paused",
        "peer",
        "peer_bytes",
        "place",
        "scheme",
        "state",
        "transport",
        "trusted",
        "tunnel",
        "worker",
    )

    def __init__(self, worker: Worker, scheme: bytes = b"http") -> None:
        self.worker = worker
        self.scheme = scheme
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made
        self.state = State.OPEN
        self.exchange: Exchange | None = None
        self.tunnel: Tunnel | None = None
        self.paused = False  # the client does not take what we write
        self.deadline = inf
        self.asked_by: tuple[bytes, ...] = ()  # the requests of applications within which this one is a subrequest
        self.peer = ""
        self.peer_bytes = b""
        self.bound: Bound | None = None  # a backend connection that carries this client's identity
        self.place: ClientPlace | None = None  # where the peer is, once somebody asked
        self.trusted = False
        self.forward_lines: tuple[bytes, bytes] = (b"", b"")  # (host, the asserted lines for it): see forwarding
        self.key_host: bytes | None = None  # the Host that `key_start` was made for, as an object
        self.key_start = b""  # scheme and authority of a cache key
        self._buffer = b""
        self._reading = True
        self._held_back = False
        self._served = False
        self._stalled_at = 0

    # -- asyncio ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        address = transport.get_extra_info("peername")
        self.peer = address[0] if address else "unix"
        self.peer_bytes = self.peer.encode()
        if not self.worker.admit_connection(self):
            self.state = State.GONE
            transport.abort()  # type: ignore[attr-defined]  # refuse early: a full gateway spends nothing on it
            return
        self.deadline = monotonic() + self.worker.limits.header_timeout

    def data_received(self, data: bytes) -> None:
        if self.state is State.OPEN:
            exchange = self.exchange
            if exchange is None:
                if self._buffer:
                    data = self._buffer + data
                    self._buffer = b""
                self._take(data)
            else:
                self._wait(exchange, data)
        elif self.state is State.TUNNEL:
            assert self.tunnel is not None
            self.tunnel.from_client(data)
        # LINGER and GONE: discarded

    def eof_received(self) -> bool:
        """The client sends no more. A running exchange has lost its client (as nginx holds it)."""
        if self.tunnel is not None:
            self.tunnel.client_ended()
        elif self.exchange is not None:
            self.abort()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.state = State.GONE
        self.deadline = inf
        self.worker.forget_connection(self)
        tunnel, self.tunnel = self.tunnel, None
        if tunnel is not None:
            tunnel.client_gone()
        if self.exchange is not None:
            self.exchange.client_gone(ClientGone("client closed"))
        self.let_go()

    @property
    def is_gone(self) -> bool:
        """Whether the client has left."""
        return self.state is State.GONE

    def let_go(self) -> None:
        """Hold no backend connection any more."""
        bound, self.bound = self.bound, None
        if bound is not None:
            bound.end()

    def pause_writing(self) -> None:
        self.paused = True
        self._stalled_at = self.transport.get_write_buffer_size()
        self.deadline = monotonic() + self.worker.limits.write_timeout
        if self.tunnel is not None:
            self.tunnel.client_paused()
        elif self.exchange is not None:
            self.exchange.client_paused()

    def resume_writing(self) -> None:
        self.paused = False
        self.deadline = inf
        if self.tunnel is not None:
            self.tunnel.client_resumed()
        elif self.exchange is not None:
            self.exchange.client_resumed()
        else:
            self.next()

    # -- reading heads ---------------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        """Read and serve heads while there are any and nothing runs."""
        worker = self.worker
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._partial(data)
                return
            line_end = data.find(b"\r\n")
            match = REQUEST_LINE.fullmatch(data, 0, line_end)
            if match is None or end > worker.head.head_bytes or line_end > worker.head.first_line_bytes:
                if line_end == 0:  # one empty line before a request is skipped (RFC 9112 2.2)
                    if data.startswith(b"\r\n\r\n"):
                        self._refuse(BadRequest("empty lines instead of a request"))
                        return
                    data = data[2:]
                    continue
                self._refuse(self._why(data[:line_end], match is None))
                return
            raw = data[line_end + 2 : end + 2]
            block = worker.blocks.get(raw)
            if block is None:
                block = worker.blocks.slow(raw)
            self._served = True
            data = data[end + 4 :]
            serve(self, match, block)
            exchange = self.exchange
            if exchange is not None:
                if data:
                    self._wait(exchange, data)
                return
            if self.state is not State.OPEN:
                return
            if not data:
                if not self.paused:
                    self.deadline = worker.idle_deadline
                return
            if self.paused:
                self._buffer = data
                return

    def _wait(self, exchange: Exchange, data: bytes) -> None:
        """Bytes behind a head whose exchange still runs: its body, or the next request."""
        if exchange.upload is not None and not exchange.upload.done:
            self._upload(exchange, data)
        else:
            self._keep(data)

    def _why(self, line: bytes, unproven: bool) -> ClientError:
        if unproven or len(line) > self.worker.head.first_line_bytes:
            return request_line_error(line, self.worker.head)
        return TooLarge("header section too large", 431)

    def _partial(self, data: bytes) -> None:
        """A head that is not whole: refuse at once what can never become one, else wait within the deadline."""
        head = self.worker.head
        first = data.find(b"\r\n")
        line = data if first < 0 else data[:first]
        if len(line) > head.first_line_bytes:
            self._refuse(TooLarge("request line too long", 414))
        elif len(data) > head.head_bytes:
            self._refuse(TooLarge("header section too large", 431))
        elif first > 0 and REQUEST_LINE.fullmatch(line) is None:
            self._refuse(request_line_error(line, head))
        elif data.count(b"\n") != data.count(b"\r\n") or (data[:1] < b"!" and data[:2] not in (b"\r\n", b"\r", b"")):
            self._refuse(BadRequest("bare LF or control byte"))
        else:
            if not self._buffer and (self._served or self.deadline is inf):
                self.deadline = monotonic() + self.worker.limits.header_timeout
            self._served = False  # the deadline runs from the first byte, not from the last
            self._buffer = data

    def _keep(self, data: bytes) -> None:
        """Pipelined bytes wait; past the bound, so does the client."""
        self._buffer += data
        if len(self._buffer) > self.worker.limits.pipeline_bytes:
            self.stop_reading()

    def _upload(self, exchange: Exchange, data: bytes) -> None:
        assert exchange.upload is not None
        rest = exchange.upload.feed(data)
        if rest and self.state is State.OPEN:
            if self.exchange is None:
                self._buffer = rest
                self.next()
            else:
                self._keep(rest)

    def _refuse(self, error: ClientError) -> None:
        refuse(self, error)

    # -- what an exchange asks of its connection -------------------------------------------------------------------

    def exchange_ended(self, keep: bool) -> None:
        """The exchange is over; read the next head, or end the connection when it cannot be kept."""
        self.exchange = None
        if self.state is not State.OPEN:
            return
        if not keep or self.worker.draining:
            self.finish()
            return
        if not self.paused:
            self.deadline = self.worker.idle_deadline
        if not self._reading:
            self.start_reading()
        if self._buffer:
            asyncio.get_running_loop().call_soon(self.next)

    def next(self) -> None:
        """Go on with bytes that waited."""
        if self.state is State.OPEN and self.exchange is None and not self.paused and self._buffer:
            data, self._buffer = self._buffer, b""
            self._served = True
            self._take(data)

    def stop_reading(self) -> None:
        """Take no more from the client until `start_reading`."""
        if self._reading and not self.transport.is_closing():
            self._reading = False
            self.transport.pause_reading()

    def start_reading(self) -> None:
        """Take bytes again."""
        if not self._reading and not self.transport.is_closing():
            self._reading = True
            self.transport.resume_reading()

    def take_buffer(self) -> bytes:
        """The bytes that waited; whoever asks takes them over."""
        data, self._buffer = self._buffer, b""
        return data

    def finish(self) -> None:
        """End politely: what was written goes out, what still comes in is read away for a moment (RFC 9112 9.6)."""
        if self.state in (State.LINGER, State.GONE):
            return
        self.state = State.LINGER
        self._buffer = b""
        self.start_reading()
        self.deadline = monotonic() + (self.worker.limits.write_timeout if self.paused else LINGER_S)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def abort(self, reset: bool = False) -> None:
        """End at once; `reset` makes sure that a body delimited by the close cannot look whole."""
        if self.state is State.GONE:
            return
        if reset:
            raw: socket.socket | None = self.transport.get_extra_info("socket")
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.state = State.GONE  # nothing polite may follow: a FIN would make a cut body look whole
        self.transport.abort()

    # -- time ------------------------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """The deadline passed: what that means depends on what was waited for."""
        if self.paused:
            left = self.transport.get_write_buffer_size()
            if left < self._stalled_at:  # slow, but it moves
                self._stalled_at = left
                self.deadline = now + self.worker.limits.write_timeout
            else:
                self.abort(reset=True)
        elif self.state is State.LINGER:
            self.abort()
        elif self.exchange is not None:
            self.deadline = inf
            self.exchange.upload_late(now)
        elif self._buffer:
            self._refuse(ClientSlow("request head not in time"))
        else:
            self.abort()

    def drain(self) -> None:
        """The worker stops: an idle connection ends now, a running exchange is the last one."""
        if self.state is State.OPEN and self.exchange is None and not self._buffer:
            self.finish()

"""One client connection: reads heads by the grammar, keeps the order, and owns every deadline and limit of its side.

One rule: nothing overtakes. While an exchange runs, later bytes wait in a bounded buffer; the next head is read only
when the exchange has ended and its bytes are not held up. What the grammar does not prove is answered with an error
and the connection ends; bytes are never repaired.

Deadlines are plain numbers that the worker's tick compares: no timer is made for a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from enum import Enum
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from edge.dataplane.client.accepted import Accepted
from edge.dataplane.client.http2_connection import Http2Connection
from edge.dataplane.client.last_hit import LastHit
from edge.dataplane.client.leaving import QUIET_S, Leaving, Progress, part, reset_at_end, says_no_more
from edge.dataplane.client.reading import ALL, OUTPUT, PIPELINE, TURN, UPSTREAM
from edge.dataplane.client.tunnel import Tunnel, switch
from edge.dataplane.core.downstream import WRITE_TOGETHER, Asking, logged
from edge.dataplane.core.exchange import Exchange
from edge.dataplane.serve import refuse, serve
from edge.errors import ClientGone, ClientSlow
from edge.http.grammar import RequestHeaders, ResponseFacts
from edge.http.offence import offence
from edge.http.request_line import known_line, request_line
from edge.http2.frames import PREFACE

if TYPE_CHECKING:
    from edge.dataplane.core.bound import Bound
    from edge.dataplane.core.context import WorkerContext

HEADS_A_TURN = 16  # pipelined requests that one connection has served before others have their turn
HEAD_BYTES_A_TURN = 16 * 1024
ONE_HEAD = 4 * 1024  # what came at once, up to this many bytes, may be a head whose block is known


class State(Enum):
    """What the bytes of this connection mean now."""

    OPEN = "open"
    TUNNEL = "tunnel"
    LINGER = "linger"  # our last answer is out; input is discarded
    GONE = "gone"


_OPEN = State.OPEN  # a member through its class costs 50 ns in CPython 3.11, and each request asks


class ClientConnection(Accepted):
    """A client connection. At most one exchange runs on it at any time."""

    __slots__ = ("_h2c", "_served", "asked_by", "bound", "exchange", "state", "tunnel")

    def __init__(self, worker: WorkerContext, h2c: bool = False, scheme: bytes = b"http") -> None:
        """`h2c`: the client may begin with the HTTP/2 preface (RFC 9113 3.3)."""
        super().__init__(worker, scheme)
        self.state = _OPEN
        self.exchange: Exchange | None = None
        self.tunnel: Tunnel | None = None
        self.asked_by: tuple[bytes, ...] = ()  # the requests of applications within which this one is a subrequest
        self.bound: Bound | None = None  # a backend connection that carries this client's identity
        self._h2c = h2c
        self._served = False

    # -- asyncio ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.was_accepted(transport):
            self.logged = logged(self.peer_bytes, self.version, b"")
        else:
            self.state = State.GONE

    @classmethod
    def take_over(cls, before: Accepted, h2c: bool = False) -> ClientConnection:
        """Continue an admitted connection as HTTP/1.1, with the bytes that it has already received."""
        self = cls(before.worker, h2c, before.scheme)
        self.follow(before)
        data = before.take_buffer()
        if data:
            self._take(data, 1)
        return self

    def _speak_http2(self, data: bytes) -> None:
        self.state = State.GONE
        Http2Connection.take_over(self, data)

    def data_received(self, data: bytes) -> None:
        if self.state is _OPEN:
            exchange = self.exchange
            if exchange is not None:
                self._wait(exchange, data)
            elif self._holds:
                self._keep(data)
            else:
                if self._buffer:
                    data = self._buffer + data
                    self._buffer = b""
                self._take(data, 1)
        elif self.state is State.TUNNEL:
            assert self.tunnel is not None
            self.tunnel.from_client(data)
        elif self.leaving is not None:
            self.leaving.heard(len(data), monotonic())

    def eof_received(self) -> bool:
        """The client half-closed. A running exchange is aborted, as nginx does."""
        if self.tunnel is not None:
            self.tunnel.client_ended()
        elif self.exchange is not None:
            self.abort()
        else:
            self.worker.slow.add(self)  # what is unsent has its deadline
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.state = State.GONE
        self.deadline = inf
        self.leaving = None
        self._buffer = b""
        self.worker.forget_connection(self)
        tunnel, self.tunnel = self.tunnel, None
        if tunnel is not None:
            tunnel.client_gone()
        if self.exchange is not None:
            self.exchange.client_gone(ClientGone("client closed"))
        if self.bound is not None:
            self.let_go()

    @property
    def is_gone(self) -> bool:
        """Whether the client has left."""
        return self.state is State.GONE

    def let_go(self) -> None:
        """Close the backend connection that is bound to this client, if any."""
        bound, self.bound = self.bound, None
        if bound is not None:
            bound.end()

    def pause_writing(self) -> None:
        self.paused = True
        self.worker.slow.add(self)
        if self.tunnel is not None:
            self.tunnel.client_paused()
            return
        exchange = self.exchange
        if exchange is None or exchange.upload is None or exchange.upload.done:
            self.stop_reading(OUTPUT)  # who does not take answers gets no further ones
        if exchange is not None:
            exchange.client_paused()

    def resume_writing(self) -> None:
        self.paused = False
        self._progress = None
        self.start_reading(OUTPUT)
        if self.tunnel is not None:
            self.tunnel.client_resumed()
        elif self.exchange is not None:
            self.exchange.client_resumed()
        elif self.state is _OPEN:
            self.deadline = self.worker.idle_deadline
            if self._buffer:
                self.turn()

    # -- reading heads ---------------------------------------------------------------------------------------------

    def _take(self, data: bytes, heads: int) -> None:
        """Read and serve heads, this many at most, while nothing runs; what is left over waits for another turn."""
        worker, at = self.worker, 0
        limits = worker.head
        while True:
            line_end = data.find(b"\r\n", at)
            end, block = len(data) - 4, None
            if not at and 0 < line_end < end < ONE_HEAD and data.endswith(b"\r\n"):
                block = worker.blocks.get(data[line_end + 2 : -2])  # mostly it is one head, whose block came before
            if block is None:
                end = data.find(b"\r\n\r\n", at)
                if end < 0:
                    self._partial(data[at:])
                    return
            raw = data[at:line_end]
            line = known_line(raw) or request_line(raw, limits)
            if line is None or end + 4 - at > limits.head_bytes or len(raw) > limits.first_line_bytes:
                if self._h2c and not self._served and PREFACE.startswith(data[: len(PREFACE)]):
                    self._speak_http2(data)
                    return
                error = offence(data[at : end + 4], limits)
                if error is not None:
                    refuse(self, error)
                    return
                at += 2  # one empty line before a request is skipped
                continue
            if block is None:
                raw = data[line_end + 2 : end + 2]
                block = worker.blocks.get(raw) or worker.blocks.slow(raw)
            self._served = True
            at = end + 4
            serve(self, line, block)
            exchange = self.exchange
            if exchange is not None:
                if at < len(data):
                    self._wait(exchange, data[at:])
                return
            if self.state is not _OPEN:
                return
            if at == len(data):
                self.deadline = worker.idle_deadline
                return
            heads -= 1
            if not heads or at > HEAD_BYTES_A_TURN or self.paused:
                self._keep(data[at:])
                self.turn()
                return

    def _wait(self, exchange: Exchange, data: bytes) -> None:
        """Bytes that arrive while an exchange runs: its body, or a pipelined request."""
        if exchange.upload is not None and not exchange.upload.done:
            self._upload(exchange, data)
        else:
            self._keep(data)

    def _partial(self, data: bytes) -> None:
        """An incomplete head: refuse it if it can never become valid, else keep it until the deadline."""
        error = offence(data, self.worker.head)
        if error is not None and not (self._h2c and not self._served and PREFACE.startswith(data)):
            refuse(self, error)
            return
        if not self._buffer and (self._served or self.deadline == inf):
            self.deadline = monotonic() + self.worker.limits.header_timeout
        self._served = False  # the deadline runs from the first byte, not from the last
        self._buffer = data

    def _keep(self, data: bytes) -> None:
        """Buffer pipelined bytes; stop reading when `limits.pipeline_buffer` is full."""
        self._buffer += data
        if len(self._buffer) > self.worker.limits.pipeline_bytes:
            self.stop_reading(PIPELINE)

    def _upload(self, exchange: Exchange, data: bytes) -> None:
        assert exchange.upload is not None
        rest = exchange.upload.feed(data)
        if rest and self.state is _OPEN:
            self._keep(rest)
            if self.exchange is None:
                self.turn()

    # -- turns -----------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Continue with the buffered bytes in a later turn of the loop; read nothing more until then."""
        if not self._holds & TURN:
            self.stop_reading(TURN)
            self.worker.turns.later(self.next)

    def next(self) -> None:
        """This connection's turn has come: continue the body, or serve the next requests."""
        self._holds &= ~TURN
        exchange = self.exchange
        if self.state is not _OPEN:
            return
        if exchange is not None:
            if exchange.upload is not None and exchange.upload.more:
                self._upload(exchange, b"")
        elif self._buffer and not self.paused:
            self._served = True
            self._take(self.take_buffer(), HEADS_A_TURN)
        self.start_reading(PIPELINE if len(self._buffer) <= self.worker.limits.pipeline_bytes else 0)

    # -- what an exchange asks of its connection -------------------------------------------------------------------

    def begin_exchange(self, method: bytes, target: bytes, is_http11: bool, block: RequestHeaders) -> Exchange:
        """Make the exchange for a request that was read."""
        exchange = self.exchange = Exchange(self, method, target, is_http11, block)
        return exchange

    def last(self) -> Asking:
        """This connection, for a fast hit after which it closes."""
        return LastHit(self)

    def send_stored(self, wire: bytes, chunks: tuple[bytes, ...], length: int, age: float, ttl: float) -> None:
        """Write a fast hit: stored head lines, body `chunks` of `length` bytes, `age` and `ttl` in seconds."""
        head = b"%bAge: %d\r\nCache-Status: edge; hit; ttl=%d\r\n\r\n" % (wire, age, ttl)
        if length < WRITE_TOGETHER and len(chunks) == 1:
            self.transport.write(head + chunks[0])
        else:
            self.transport.writelines((head, *chunks))

    def exchange_ended(self, keep: bool) -> None:
        """The exchange is over: serve the next head if `keep`, else end the connection."""
        exchange, self.exchange = self.exchange, None
        if self.state is not _OPEN:
            return
        if not keep or self.worker.draining:
            if exchange is not None and not self._buffer and says_no_more(exchange):
                self.part()
            else:
                self.finish(exchange is not None and exchange.owed)
            return
        self.deadline = self.worker.idle_deadline
        if self.paused:
            self.stop_reading(OUTPUT)
        if self._buffer:
            self._holds &= ~UPSTREAM
            if not self.paused:
                self.turn()
        elif self._holds:
            self.start_reading(UPSTREAM | PIPELINE)

    def switch(self, exchange: Exchange, facts: ResponseFacts, first: bytes) -> None:
        switch(exchange, self, facts, first)

    def begin_tunnel(self, tunnel: Tunnel) -> bytes:
        """From now on bytes go to `tunnel`. Returns those that arrived already."""
        self.tunnel = tunnel
        self.state = State.TUNNEL
        self.start_reading(ALL)
        return self.take_buffer()

    def finish(self, owes: bool = False) -> None:
        """Lingering close (`leaving`); `owes`: the client was still sending its request."""
        if self.leaving is not None or self.state is State.GONE:
            return
        self.state = State.LINGER
        self.deadline = inf
        self._buffer = b""
        if self._holds:
            self.start_reading(ALL)
        self.worker.slow.add(self)
        self.leaving = Leaving(self, owes, monotonic())

    def part(self) -> None:
        """Close behind a small answer, after which the client has nothing to say; what is unsent has its deadline."""
        self.state, self.deadline = State.LINGER, inf
        self.worker.slow.add(self)
        part(self.transport)

    def abort(self, reset: bool = False) -> None:
        """Close at once; `reset` sends RST, so that a body delimited by close does not look complete."""
        if self.state is State.GONE:
            return
        if reset:
            reset_at_end(self.transport)
        self.state = State.GONE  # nothing polite may follow: a FIN would make a cut body look whole
        self.transport.abort()

    # -- time ------------------------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """On each tick while the client is slow or leaving: end it when no byte moved for `write_timeout`."""
        if self.leaving is not None:
            self.leaving.look(now)
            return
        left = self.unsent()
        if not left and not self.paused:
            self.worker.slow.discard(self)
            self._progress = None
            if self.deadline == inf and self.exchange is None and self.tunnel is None:
                self.deadline = self.worker.idle_deadline
        elif self._progress is None:
            self._progress = Progress(left, now, self.worker.limits.write_timeout)
        elif self._progress.stalled(left, now):
            self.abort(reset=True)

    def expire(self, now: float) -> None:
        """The deadline passed: 408 for an incomplete head or body, a silent close for an idle connection."""
        self.deadline = inf
        if self.tunnel is not None:
            self.tunnel.expire(now)
        elif self.exchange is not None:
            self.exchange.upload_late(now)
        elif self.paused or (not self._buffer and self.state is _OPEN and self.unsent()):
            self.worker.slow.add(self)  # it is not idle: it has not taken its answer yet
        elif self._buffer and self.state is _OPEN:
            refuse(self, ClientSlow("request head not in time"))
        else:
            self.abort()

    @property
    def asking(self) -> Iterable[Exchange]:
        return () if self.exchange is None else (self.exchange,)

    def drain(self, now: float) -> None:
        """End after the running exchange, or after a moment of silence (a request may be on its way)."""
        if self.tunnel is not None:
            self.tunnel.go_away()
        elif self.exchange is not None:
            self.exchange.keep = self.exchange.keep and self.exchange.begun  # then its head says that it is the last
        elif self.state is _OPEN and not self._buffer and self.deadline < inf:
            limits = self.worker.limits
            quiet_since = self.deadline - (limits.idle_timeout if self._served else limits.header_timeout)
            if quiet_since <= now - QUIET_S:
                self.finish()

"""A request body on its way to a backend: framed strictly, passed on as it comes, kept in part for another attempt.

One rule: at most `hold_bytes` are held. A body that has grown past that is not repeatable any more, and a client that
sends faster than the backend takes is stopped from sending.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Protocol

from edge.dataplane.core.context import WorkerContext
from edge.dataplane.core.downstream import Downstream
from edge.dataplane.core.route import Route
from edge.errors import BadRequest, ClientError, EdgeError, TooLarge
from edge.http.chunked import ChunkedReader, chunk, last_chunk
from edge.ports import Connection


class BodyOwner(Protocol):
    """The exchange that an upload belongs to."""

    @property
    def worker(self) -> WorkerContext: ...
    @property
    def downstream(self) -> Downstream: ...
    @property
    def ended(self) -> bool: ...
    @property
    def routed(self) -> Route: ...
    def fail(self, error: EdgeError) -> None: ...
    def upload_late(self, now: float) -> None: ...


class Upload:
    """The body of one request. `length` is its size in bytes, None for a chunked one."""

    __slots__ = (
        "_began_at",
        "_connection",
        "_exchange",
        "_held_bytes",
        "_kept",
        "_reader",
        "_stopped",
        "_tee",
        "done",
        "length",
        "limit",
        "received",
        "replayable",
    )

    def __init__(self, exchange: BodyOwner, length: int | None) -> None:
        self._exchange = exchange
        self.length = length
        self.limit = 0
        self.received = 0
        self.done = False
        self.replayable = True
        limits = exchange.worker.limits
        self._reader = ChunkedReader(limits.chunk_line_bytes, limits.trailer_bytes) if length is None else None
        self._kept = bytearray()  # what came so far, as long as it may have to be sent again; in one, for it may come
        # in pieces of a byte
        self._held_bytes = 0
        self._connection: Connection | None = None
        self._stopped = False
        self._tee: Callable[[bytes, bool], None] | None = None
        self._began_at = monotonic()
        exchange.downstream.deadline = self._began_at + limits.body_timeout

    @property
    def framing(self) -> bytes:
        """The one framing field that goes upstream."""
        return b"Transfer-Encoding: chunked\r\n" if self.length is None else b"Content-Length: %d\r\n" % self.length

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the client and return those that follow the body. A malformed body fails the exchange."""
        exchange = self._exchange
        try:
            pieces, rest = self._decode(data)
            if self.received + (self._reader.announced if self._reader is not None else 0) > self.limit:
                raise TooLarge("request body too large", 413)
        except ValueError as error:
            exchange.fail(BadRequest(str(error)))
            return b""
        except ClientError as error:
            exchange.fail(error)
            return b""
        piece = b"".join(pieces) if len(pieces) > 1 else pieces[0] if pieces else b""
        if self._tee is not None:
            self._tee(piece, self.done)
        if piece:
            self._pass_on(piece)
        self._deadline()
        if self.done:
            exchange.downstream.deadline = inf
            if self._connection is not None:
                self._complete(self._connection)
        elif self.more and not exchange.ended:
            exchange.downstream.turn()
        return rest

    def copy_to(self, tee: Callable[[bytes, bool], None]) -> None:
        """Give each piece of the body to `tee` as well, with whether it is the last. To be called before any
        attempt.
        """
        if self._kept or self.done:
            tee(bytes(self._kept), self.done)
        if not self.done:
            self._tee = tee

    @property
    def more(self) -> bool:
        """Whether bytes that were received already are still to be read, now that the backend takes them."""
        return self._reader is not None and self._reader.more and not self._stopped

    def _decode(self, data: bytes) -> tuple[list[bytes], bytes]:
        if self._reader is not None:
            pieces, rest = self._reader.feed(data)
            self.received += sum(map(len, pieces))
            self.done = self._reader.done
            return pieces, rest
        assert self.length is not None
        missing = self.length - self.received
        rest = data[missing:]
        piece = data[:missing] if rest else data
        self.received += len(piece)
        self.done = self.received == self.length
        return [piece], rest

    def _pass_on(self, piece: bytes) -> None:
        limits = self._exchange.worker.limits
        if self._held_bytes + len(piece) > limits.hold_bytes and self._connection is not None:
            self.replayable = False
            self._kept.clear()
        if self.replayable:
            self._kept += piece
            self._held_bytes += len(piece)
        if self._connection is not None:
            self._connection.upload(chunk(piece) if self.length is None else piece)
            self._exchange.routed.meter.origin_out += len(piece)
        elif self._held_bytes > limits.hold_bytes:
            self.stop()

    def _deadline(self) -> None:
        """30 s between bytes, and a least rate once the body had its time to start."""
        exchange = self._exchange
        limits = exchange.worker.limits
        now = monotonic()
        if not self._stopped:
            exchange.downstream.deadline = now + limits.body_timeout
        spent = now - self._began_at
        if (
            not self.done
            and spent > limits.body_grace
            and self.received < limits.body_rate * (spent - limits.body_grace)
        ):
            exchange.upload_late(now)

    def attach(self, connection: Connection) -> None:
        """Send what was kept of the body to this connection, then pass on what comes."""
        self._connection = connection
        connection.upload_begins()
        if not self.done:
            self.go()  # before anything is written, for that may stop the client again
        if self._kept:
            kept = bytes(self._kept)
            connection.upload(chunk(kept) if self.length is None else kept)
            self._exchange.routed.meter.origin_out += len(kept)
        if self.done:
            self._complete(connection)

    def detach(self) -> None:
        """The attempt is over: keep what comes for the next one."""
        self._connection = None

    def stop(self) -> None:
        """Stop reading from the client: the backend is slower."""
        self._stopped = True
        self._exchange.downstream.deadline = inf  # the wait is not the client's fault
        self._exchange.downstream.stop_reading()

    def go(self) -> None:
        """Read from the client again."""
        if not self.done:
            self._exchange.downstream.deadline = monotonic() + self._exchange.worker.limits.body_timeout
        if self._stopped:
            self._stopped = False
            if self.more:
                self._exchange.downstream.turn()
            self._exchange.downstream.start_reading()

    def close(self) -> None:
        """The exchange has ended: drop what is kept."""
        self._connection = self._tee = None
        self._kept.clear()

    def _complete(self, connection: Connection) -> None:
        if self._reader is not None:
            connection.upload(last_chunk(self._reader.trailers))
        connection.upload_ends()

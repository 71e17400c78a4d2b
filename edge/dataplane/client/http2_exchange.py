"""The exchange of an HTTP/2 stream: the same life as any, with its response and its request's body in frames.

One rule: only framing differs. Ends are told by frames, so that there are no chunks, no lines of the connection, and
no connection that has to end because a body's length is unknown.
"""

from __future__ import annotations

from typing import Any, Protocol

from edge.dataplane.core.body_mode import CHUNKED, LENGTH, NO_BODY, NOT_STARTED
from edge.dataplane.core.downstream import Downstream
from edge.dataplane.core.exchange import Exchange
from edge.dataplane.core.layout import settle_layout
from edge.dataplane.core.passing import ended
from edge.dataplane.core.upload import BodyOwner, Upload
from edge.errors import EdgeError, ResponseInvalid
from edge.http.chunked import last_chunk
from edge.http.grammar import Framing, ResponseFacts
from edge.http.message import Line
from edge.http2.output import Piece
from edge.http2.response_fields import field, status
from edge.ports import Connection

_CONTINUE = status(b"100")


class StreamOutput(Downstream, Protocol):
    """What an exchange writes to: frames of one stream."""

    def head(self, block: bytes, ends: bool) -> None: ...
    def body(self, pieces: tuple[Piece, ...], ends: bool, trailers: bytes | None = None) -> None: ...


class StreamUpload(Upload):
    """The body of a stream: no framing of its own, ends with a flag.

    A client may fill its window byte by byte while the backend is slow, so what arrives meanwhile is joined in one
    buffer.
    """

    __slots__ = ("_behind", "_ends", "_late", "_trailers")

    def __init__(self, exchange: BodyOwner, length: int | None) -> None:
        super().__init__(exchange, length)
        self._reader = None
        self._ends = False
        self._trailers: list[Line] = []
        self._behind = bytearray()  # came while the backend was slow
        self._late: tuple[bool, list[Line] | None] | None = None  # whether that was the last, and its trailers

    def came(self, data: bytes, ends: bool, trailers: list[Line] | None = None) -> None:
        """The content of a DATA frame, or the trailers after the last one."""
        if self._stopped and self._connection is not None:
            self._behind += data
            self._late = (ends, trailers)
            return
        self._ends = ends
        if trailers:
            self._trailers = trailers
        self.feed(data)

    def go(self) -> None:
        """Read from the client again."""
        super().go()
        self._catch_up()

    def detach(self) -> None:
        """The attempt is over: keep what arrives for the next one."""
        super().detach()
        self._catch_up()

    def _catch_up(self) -> None:
        late, self._late = self._late, None
        if late is not None and not self._exchange.ended:
            behind = bytes(self._behind)
            self._behind.clear()
            self.came(behind, *late)

    def close(self) -> None:
        """The exchange ended: drop what is buffered."""
        super().close()
        self._late = None
        self._behind.clear()

    def _decode(self, data: bytes) -> tuple[list[bytes], bytes]:
        self.received += len(data)
        self.done = self._ends
        return ([data] if data else []), b""

    def _complete(self, connection: Connection) -> None:
        if self.length is None:
            connection.upload(last_chunk(self._trailers))
        connection.upload_ends()


class StreamExchange(Exchange):
    """One request on an HTTP/2 connection."""

    version = b"HTTP/2.0"

    @property
    def stream(self) -> StreamOutput:
        """The stream, typed as the output that frames need."""
        downstream: Any = self.downstream
        output: StreamOutput = downstream
        return output

    def make_upload(self, length: int | None) -> Upload:
        """The reader of a request body of `length` bytes; None: until the end flag."""
        return StreamUpload(self, length)

    def interim(self, facts: ResponseFacts) -> None:
        """Forward a 1xx response; 101 does not exist in HTTP/2 (RFC 9113 8.6)."""
        if self.mode == NOT_STARTED and facts.status not in (100, 101):
            self.stream.head(self.worker.http2.coder.head(facts.wire), False)

    def head(self, facts: ResponseFacts, length: int | None, body: bytes, done: bool) -> None:
        """Begin the response with a backend's head; `done`: it has no body, so end it too."""
        if facts.status == 101:
            self.fail(ResponseInvalid("switched to a protocol that nobody asked for"))
            return
        route = self.route
        if route is not None and route.bodies is not None:
            route.bodies.head(self, facts, length, body, done)
            return
        wire = self.open(facts.status, facts.wire, length, facts.framing is Framing.NONE)
        self.begin(wire, b"", facts.has_date, done and not body)
        if body:
            self.bytes_out = len(body)
            self.stream.body((body,), done or self._is_whole())
            if self.stream.paused and self.fetch is not None:
                self.fetch.pause()
        if done:
            self.finish()

    def open(self, status: int, wire: bytes, length: int | None, bodiless: bool) -> bytes:
        """Begin a response of `length` bytes; None: the end flag tells."""
        self.status = status
        self.expected = length
        if bodiless or self.method == b"HEAD":
            self.mode = NO_BODY
        else:
            self.mode = CHUNKED if length is None else LENGTH
        return wire

    def own_lines(self, has_date: bool) -> bytes:
        """The field lines that the gateway adds to each head."""
        lines = self.cache_status
        if self.worker.limits.return_id:
            lines += b"X-Request-Id: %b\r\n" % self.own_id()
        return lines if has_date else self.worker.date_line + lines

    def begin(self, wire: bytes, lines: bytes, has_date: bool, ends: bool = False) -> None:
        """Write the head of a response; `ends`: no body follows."""
        coder, route = self.worker.http2.coder, self.route
        own = lines + self.own_lines(has_date)
        if route is None or route.delivery is None:
            block = coder.head(wire) + coder.lines(own)
        else:  # header rules see a whole head, its empty line included
            region = self.served_by.rpartition(b'"')[2]
            whole = route.delivery.head(self, wire, own + b"\r\n", region)
            if not whole:
                return  # the stream has ended
            block = coder.head(whole[:-2])
        self.stream.head(block, ends or self.mode == NO_BODY or (self.mode == LENGTH and self.expected == 0))

    def respond(self, wire: bytes, lines: bytes, chunks: tuple[bytes, ...], length: int) -> None:
        """Write a complete response of `length` bytes; for HEAD only its head."""
        if self.method == b"HEAD":
            chunks = ()
        self.expected = length
        self.begin(wire, lines, True, not chunks)
        if chunks and not self.ended:
            self.stream.body(chunks, True)

    def send(self, data: bytes | bytearray) -> None:
        """Write a piece of the body, after coding and pacing."""
        self.bytes_out += len(data)
        self.stream.body((data,), self._is_whole())

    def _is_whole(self) -> bool:
        return self.mode == LENGTH and self.bytes_out == self.expected

    def end(self, trailers: list[Line] | None = None) -> None:
        """The response is complete; write its trailers and the end flag."""
        if (self.coder is not None or self.pace is not None) and not ended(self, trailers):
            return
        if self.mode == LENGTH and self.bytes_out != self.expected:
            self.broken(EdgeError("body and length disagree"))
            return
        if self.mode == CHUNKED:
            self.stream.body((), True, _block(trailers) if trailers else None)
        self.finish()

    def invite_body(self) -> None:
        """Answer `Expect: 100-continue` with 100."""
        upload = self.upload
        if not self.invited and upload is not None and not upload.received and self.mode == NOT_STARTED:
            self.invited = True
            self.stream.head(_CONTINUE, False)


def _block(trailers: list[Line]) -> bytes:
    return b"".join([field(name.lower(), value) for name, value in trailers])


settle_layout(StreamExchange)

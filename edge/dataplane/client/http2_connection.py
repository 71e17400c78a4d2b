"""One HTTP/2 connection of a client: its frames, the streams that they open, its deadlines, and its end (RFC 9113).

    bytes ─► frames ─► field block ─► a stored response? ─yes─► frames of it, with no object made
                                         └─no─► Stream ─► `serve`, as any request
             all frames that one read brings about leave in one write

One rule: a connection or a stream that breaks the protocol, or asks too much, ends with its code and is counted by
reason; the other streams, and other connections, go on.
"""

from __future__ import annotations

from math import inf
from time import monotonic

from edge.dataplane.caching.fast_hit import try_fast_hit
from edge.dataplane.client.accepted import Accepted
from edge.dataplane.client.http2_exchange import StreamUpload
from edge.dataplane.client.http2_frames import HANDLERS, unknown
from edge.dataplane.client.http2_life import Http2Life
from edge.dataplane.client.http2_stream import Stream
from edge.dataplane.client.http2_tunnel import WEBSOCKET, TunnelStream, upgrade_headers
from edge.dataplane.client.reading import OUTPUT, TURN
from edge.dataplane.serve import refuse, serve_fully
from edge.errors import BadRequest, ClientError, TooLarge
from edge.http.grammar import RequestHeaders
from edge.http.message import Line
from edge.http2 import frames as wire
from edge.http2.frames import (
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    HEADERS,
    LAST_STREAM,
    PREFACE,
    SETTINGS,
    Code,
    ConnectionFault,
    Fault,
    StreamFault,
    read_head,
)
from edge.http2.output import SendingStream
from edge.http2.request_fields import OPAQUE_BODY, RequestFields, trailer_lines

_REQUEST = END_HEADERS | END_STREAM  # and nothing else: the usual request
_TOO_LONG = (FRAME_BYTES + 1) << 8  # a frame's first word from here on is of a frame that is too long
# What is read of one connection before others have their turn: a frame counts one, of a head four and one for each 128
# bytes, whatever its flags.
WORK_A_TURN, HEAD_WORK = 400, 4
_BY_SIZE = 15  # a frame's first word, shifted by this
_OF_HEADS = frozenset((HEADERS, wire.CONTINUATION))
MOST_UNREAD = 16  # times `buffer_high` may wait for a client that opens streams and does not read


class Http2Connection(Http2Life):
    """A client connection that speaks HTTP/2: many concurrent streams."""

    __slots__ = ()

    @classmethod
    def take_over(cls, before: Accepted, data: bytes) -> None:
        """Continue `before` as HTTP/2; `data` was received already and begins with the preface."""
        self = cls(before)
        self.follow(before)
        self.transport.write(self.shared.greeting)
        if data:
            self.data_received(data)

    # -- asyncio ---------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.leaving is not None:
            self.leaving.heard(len(data), monotonic())
        elif self._holds & TURN:
            self._buffer += data
        else:
            if self._buffer:
                data = self._buffer + data
                self._buffer = b""
            self._take(data)

    def eof_received(self) -> bool:
        """The client half-closed: treated as gone, as nginx does."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_gone = True
        self.leaving = None
        self._buffer = b""
        self.deadline = inf
        self.worker.forget_connection(self)
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            if isinstance(stream, Stream):
                stream.gone("client closed")

    def pause_writing(self) -> None:
        self.paused = True
        self.output.is_open = False
        self.worker.slow.add(self)
        self._opened_before = self.opened
        self._checks = True
        if not any(isinstance(stream, Stream) and stream.receiving for stream in self.streams.values()):
            self.stop_reading(OUTPUT)  # who does not take answers gets no further ones

    def resume_writing(self) -> None:
        self.paused = False
        self._checks = self._last_served is not None
        self.output.is_open = True
        self._progress = None
        self.start_reading(OUTPUT)
        self.flush()
        if self._buffer and self._whole(self._buffer):
            self.turn()

    # -- reading frames --------------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        """Read the frames of `data`; what they cause to be written is flushed together at the end."""
        self._busy = True
        try:
            at = 0
            if not self._greeted:
                if not self._preface(data):
                    return
                at = len(PREFACE)
            begin, opened = at, self.opened
            at = self._frames(data, at)
            self.shared.streams += self.opened - opened
            if at > begin and self.fragments is None:
                self._head_until = inf
            if at < len(data):
                self._rest(data, at)
        except Fault as fault:
            self.end(fault.code, fault.reason)
        except Exception as error:
            self.worker.report_bug(error)
            self.end(Code.INTERNAL_ERROR, "internal")
        finally:
            self._busy = False
        self.flush()
        if not self.streams and self._head_until == inf and self._settled and self.leaving is None and not self._going:
            self.deadline = self.worker.idle_deadline

    def _preface(self, data: bytes) -> bool:
        if len(data) < len(PREFACE):
            if not PREFACE.startswith(data):
                raise ConnectionFault(Code.PROTOCOL_ERROR, "preface")
            self._buffer = data
            return False
        if not data.startswith(PREFACE):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "preface")
        self._greeted = True
        return True

    def _frames(self, data: bytes, at: int) -> int:
        """Read complete frames from offset `at` on; returns the offset of the first frame not read."""
        end, work = len(data), WORK_A_TURN
        while end - at >= 9 and work > 0:
            word, flags, stream_id = read_head(data, at)
            if word >= _TOO_LONG:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "frame_size")
            stop = at + 9 + (word >> 8)
            if stop > end:
                break
            kind = word & 255
            try:
                if kind == HEADERS and flags == _REQUEST and self._between:
                    work -= HEAD_WORK + (word >> _BY_SIZE)
                    self.block(stream_id & LAST_STREAM, data[at + 9 : stop], True)
                else:
                    work -= HEAD_WORK + (word >> _BY_SIZE) if kind in _OF_HEADS else 1
                    self._other(kind, flags, stream_id & LAST_STREAM, data[at + 9 : stop])
                    self._between = self.fragments is None
            except StreamFault as fault:
                self.refuse_stream(stream_id & LAST_STREAM, fault)
            at = stop
        return at

    def _other(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self.fragments is not None and kind != wire.CONTINUATION:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "continuation")
        if not self._settled:
            if kind != SETTINGS or flags & wire.ACK:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "preface")
            self._settled = True
        HANDLERS.get(kind, unknown)(self, flags, stream_id, payload)

    def _rest(self, data: bytes, at: int) -> None:
        """Keep bytes that were not read: an incomplete frame, or more than one turn may read."""
        self._buffer = data[at:]
        size = len(data) - at
        if self._whole(self._buffer):
            self.turn()
        elif size < 4 or data[at + 3] != wire.DATA:  # a body has deadlines of its own
            self.await_rest()

    @staticmethod
    def _whole(data: bytes) -> bool:
        """Whether `data` begins with a complete frame."""
        return len(data) >= 9 and len(data) >= 9 + (read_head(data, 0)[0] >> 8)

    def turn(self) -> None:
        """Continue with the buffered bytes in a later turn of the loop; read nothing more until then."""
        if not self._holds & TURN:
            self.stop_reading(TURN)
            self.worker.turns.later(self._next)

    def _next(self) -> None:
        self._holds &= ~TURN
        if not self.is_gone and self.leaving is None and not self._holds & OUTPUT:
            data = self.take_buffer()
            if data:
                self._take(data)
            self.start_reading(0)

    # -- heads -----------------------------------------------------------------------------------------------------

    def block(self, stream_id: int, block: bytes, ends: bool) -> None:
        """A complete field block: a request or trailers. Raises ConnectionFault or StreamFault."""
        if stream_id <= self.last_stream or not stream_id & 1:
            self._again(stream_id, block, ends)
            return
        shared, worker = self.shared, self.worker
        facts, path, self.table = shared.reader.request(block, self.table)
        if stream_id > self.last_stream + 2:
            self.skipped = range(self.last_stream + 1, stream_id)
        self.last_stream = stream_id
        self.opened += 1
        if len(self.streams) >= self.most_streams or self.opened >= self.most_opened or self._checks:
            self._may_open()
        if facts is None:
            self._refuse(stream_id, ends, TooLarge("request head too large", 431))
            return
        route = None
        if ends and facts.quick and path is not None and facts.scheme == self.scheme and worker.quick:
            headers = facts.read.get(True) or self._headers(facts, True)
            if headers.quick and len(path) < self._longest:
                route = worker.router.get(headers.host, path)
            if route is not None:
                self._answering, self._urgency = stream_id, facts.urgency
                if try_fast_hit(self, route, path, headers):
                    return
        if facts.malformed or path is None:
            raise StreamFault(Code.PROTOCOL_ERROR, f"malformed_{facts.malformed}")
        if len(path) + len(facts.method) > worker.head.first_line_bytes:
            self._refuse(stream_id, ends, TooLarge("request target too long", 414))
            return
        if ends and facts.length:
            raise StreamFault(Code.PROTOCOL_ERROR, "length")
        if facts.protocol is not None:
            self._upgrade(stream_id, facts, path, ends)
            return
        headers = facts.read.get(ends) or self._headers(facts, ends)
        stream = Stream(self, stream_id, not ends, None if ends else facts.length)
        stream.urgency = facts.urgency
        self.streams[stream_id] = stream
        if facts.scheme == self.scheme or self.trusted or facts.method == b"CONNECT":
            serve_fully(stream, facts.method, path, True, headers, route)
        else:
            refuse(stream, BadRequest("the scheme is not the connection's", 421))

    def _upgrade(self, stream_id: int, facts: RequestFields, path: bytes, ends: bool) -> None:
        """Begin an extended CONNECT (RFC 8441)."""
        self.streams[stream_id] = stream = TunnelStream(self, stream_id, not ends)
        if facts.protocol != WEBSOCKET or ends:
            refuse(stream, BadRequest("a protocol that is not tunnelled", 501))
        elif facts.scheme != self.scheme and not self.trusted:
            refuse(stream, BadRequest("the scheme is not the connection's", 421))
        else:
            headers, stream.key = upgrade_headers(facts, self.worker.head)
            serve_fully(stream, b"GET", path, True, headers, None)

    def _may_open(self) -> None:
        """Whether one more stream may be open. Raises StreamFault or ConnectionFault beyond the limits."""
        limits = self.shared.limits
        if self._last_served is not None:
            raise StreamFault(Code.REFUSED_STREAM, "after_goaway")
        if len(self.streams) >= limits.streams:
            self.shared.refused += 1
            raise StreamFault(Code.REFUSED_STREAM, "too_many_streams")
        if self.paused and self._unread():
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "flood_unread")
        if self.opened >= limits.requests and not self._going:
            self.drain(monotonic())

    def _unread(self) -> bool:
        """Whether responses that a client does not read have grown beyond what one that reads could need."""
        asked = self.opened - self._opened_before
        most = MOST_UNREAD * self.worker.limits.buffer_high
        return asked > self.shared.limits.streams and self.transport.get_write_buffer_size() > most

    def _headers(self, facts: RequestFields, ends: bool) -> RequestHeaders:
        """The pseudo-header and header fields as an HTTP/1.1 head, which the same grammar checks."""
        raw, blocks = facts.raw, self.worker.blocks
        if not ends and facts.length is None:
            raw += OPAQUE_BODY
        found = facts.read[ends] = blocks.get(raw) or blocks.slow(raw)
        return found

    def _refuse(self, stream_id: int, ends: bool, error: ClientError) -> None:
        """Answer a malformed request with `error`'s status."""
        stream = Stream(self, stream_id, not ends, None)
        self.streams[stream_id] = stream
        refuse(stream, error)

    def _again(self, stream_id: int, block: bytes, ends: bool) -> None:
        """A second field block of a stream: trailers, else a fault."""
        if not stream_id & 1 or stream_id in self.skipped:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "stream_id")
        listed = self.shared.reader.trailers(block, self.table)
        self.table = listed.table
        stream = self.receiver(stream_id)
        if stream is None:
            return
        if not ends:
            raise StreamFault(Code.PROTOCOL_ERROR, "trailers")
        if listed.fields is None or listed.size > self.worker.limits.trailer_bytes:
            raise StreamFault(Code.ENHANCE_YOUR_CALM, "trailers_size")
        lines = trailer_lines(listed.fields)
        if lines is None:
            raise StreamFault(Code.PROTOCOL_ERROR, "malformed_trailers")
        if stream.left:
            raise StreamFault(Code.PROTOCOL_ERROR, "length")
        self.upload(stream, b"", True, lines)

    def send_stored(self, wire: bytes, chunks: tuple[bytes, ...], length: int, age: float, ttl: float) -> None:
        """Write a fast hit on the current stream, without a Stream object unless it has to wait."""
        stream_id, output = self._answering, self.output
        head = self.shared.coder.hit(wire, int(age), int(ttl))
        if self.before_block:
            head, self.before_block = self.before_block + head, b""
        if len(chunks) == 1 and output.whole(stream_id, head, chunks[0]):
            return
        output.head(stream_id, head, not length)
        if not length:
            return
        stream = SendingStream(stream_id, output.initial)
        stream.urgency = self._urgency
        self.streams[stream_id] = stream
        output.send(stream, chunks, True)

    # -- what the client does not take ------------------------------------------------------------------------------

    def held(self, seen: set[int] | None) -> int:
        """See `Accepted`. A stream is memory too, with what has to go on when its client takes more."""
        return super().held(seen) + self.output.held(self.streams.values(), seen)

    def end_unread(self) -> None:
        """See `Accepted`."""
        if self.leaving is None:
            self.end(Code.ENHANCE_YOUR_CALM, "unread")
        else:
            self.abort()

    # -- bodies of requests ----------------------------------------------------------------------------------------

    def came(self, size: int) -> None:
        """Count `size` bytes of DATA against the connection window and return the credit at once."""
        self._receives -= size
        if self._receives < 0:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "flow_control")
        self._unsaid += size
        if self._unsaid * 2 >= self.shared.limits.connection_window:
            self.output.frames.append(wire.window_update(0, self._unsaid))
            self._receives += self._unsaid
            self._unsaid = 0

    def receiver(self, stream_id: int) -> Stream | None:
        """The stream for DATA or trailers; None if it was reset meanwhile. Raises a fault for others."""
        stream = self.streams.get(stream_id)
        if isinstance(stream, Stream) and stream.receiving:
            return stream
        self.no_idle(stream_id)
        if stream is not None:
            raise StreamFault(Code.STREAM_CLOSED, "half_closed")
        if self._reset is not None and stream_id in self._reset:
            return None
        raise ConnectionFault(Code.STREAM_CLOSED, "stream_closed")

    def no_idle(self, stream_id: int) -> None:
        """A frame on a stream that was never opened is a connection error (RFC 9113 5.1)."""
        if not stream_id or stream_id > self.last_stream or not stream_id & 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "idle_stream")

    def upload(self, stream: Stream, content: bytes, ends: bool, trailers: list[Line] | None) -> None:
        """Pass a piece of a request body, or its end, to the stream's exchange."""
        if ends:
            stream.receiving = False
        if isinstance(stream, TunnelStream):
            stream.came_raw(content, ends)
            return
        exchange = stream.exchange
        upload = exchange.upload if exchange is not None else None
        if isinstance(upload, StreamUpload):
            upload.came(content, ends, trailers)
            stream.credit()

"""What each kind of frame from a client does to its connection (RFC 9113 6), but for the plain HEADERS of a request.

One rule: a frame that costs us and not its sender spends a credit, whatever it says and whether it is sound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edge.dataplane.client.http2_life import Fragments
from edge.dataplane.client.http2_stream import Stream
from edge.dataplane.core.context import WorkerContext
from edge.dataplane.core.http2 import Http2
from edge.http.message import Line
from edge.http2 import frames as wire
from edge.http2.frames import ACK, END_HEADERS, END_STREAM, Code, ConnectionFault, Setting, StreamFault
from edge.http2.limits import Control
from edge.http2.output import Output, SendingStream
from edge.http2.priority import urgency_of
from edge.http2.response_fields import NO_TABLE


class FrameReader(Protocol):
    """What the functions of this file need of a connection."""

    fragments: Fragments | None
    their_table: int
    before_block: bytes

    @property
    def worker(self) -> WorkerContext: ...
    @property
    def shared(self) -> Http2: ...
    @property
    def control(self) -> Control: ...
    @property
    def output(self) -> Output: ...
    @property
    def streams(self) -> dict[int, SendingStream]: ...
    def block(self, stream_id: int, block: bytes, ends: bool) -> None: ...
    def await_rest(self) -> None: ...
    def came(self, size: int) -> None: ...
    def receiver(self, stream_id: int) -> Stream | None: ...
    def no_idle(self, stream_id: int) -> None: ...
    def upload(self, stream: Stream, content: bytes, ends: bool, trailers: list[Line] | None) -> None: ...
    def client_reset(self, stream: SendingStream) -> None: ...
    def pinged(self, payload: bytes) -> None: ...
    def leaves(self) -> None: ...


def data(connection: FrameReader, flags: int, stream_id: int, payload: bytes) -> None:
    """DATA: connection credit is returned at once, stream credit when the backend accepts more."""
    connection.came(len(payload))
    content = wire.without_padding(flags, payload)
    ends = bool(flags & END_STREAM)
    if not content and not ends:
        connection.control.spend("data")
    stream = connection.receiver(stream_id)
    if stream is None:
        return
    if not stream.came(len(payload)):
        raise StreamFault(Code.FLOW_CONTROL_ERROR, "flow_control")
    if stream.left is not None:
        stream.left -= len(content)
        if stream.left < 0 or (ends and stream.left):
            raise StreamFault(Code.PROTOCOL_ERROR, "length")
    connection.upload(stream, content, ends, None)


def headers(connection: FrameReader, flags: int, stream_id: int, payload: bytes) -> None:
    """HEADERS with padding, without END_HEADERS, or of a request with a body."""
    if not stream_id:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "headers_stream")
    block = wire.field_block(flags, stream_id, payload)
    ends = bool(flags & END_STREAM)
    if flags & END_HEADERS:
        connection.block(stream_id, block, ends)
        return
    connection.fragments = Fragments(stream_id, ends, block)
    connection.await_rest()


def continuation(connection: FrameReader, flags: int, stream_id: int, payload: bytes) -> None:
    """CONTINUATION: a bounded number, none empty, within `limits.max_header` bytes."""
    fragments = connection.fragments
    if fragments is None or fragments.stream != stream_id:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "continuation")
    fragments.frames += 1
    fragments.size += len(payload)
    if not payload and not flags & END_HEADERS:
        raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "flood_continuation")
    if fragments.frames > connection.shared.limits.continuations or fragments.size > connection.worker.head.head_bytes:
        raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "flood_continuation")
    fragments.pieces.append(payload)
    if flags & END_HEADERS:
        connection.fragments = None
        connection.block(stream_id, b"".join(fragments.pieces), fragments.ends_stream)


def priority(connection: FrameReader, flags: int, stream_id: int, payload: bytes) -> None:
    """PRIORITY: deprecated, but its length is checked (RFC 9113 6.3)."""
    connection.control.spend("priority")
    wire.check_priority(stream_id, payload)


def reset(connection: FrameReader, flags: int, stream_id: int, payload: bytes) -> None:
    """RST_STREAM: the client cancels the response."""
    wire.check_reset(stream_id, payload)
    connection.no_idle(stream_id)
    stream = connection.streams.get(stream_id)
    if stream is None:
        connection.control.spend("reset")
        return
    connection.client_reset(stream)


def settings(connection: FrameReader, flags: int, stream_id: int, payload: bytes) -> None:
    """SETTINGS: apply those that concern what we send, then acknowledge."""
    pairs = wire.read_settings(flags, stream_id, payload)
    connection.control.spend("settings")
    if flags & ACK:
        return
    for key, value in pairs:
        if key == Setting.INITIAL_WINDOW_SIZE:
            connection.output.set_initial(value, connection.streams.values())
        elif key == Setting.HEADER_TABLE_SIZE and value < connection.their_table:
            connection.their_table = 0
            connection.before_block = NO_TABLE
    connection.output.frames.append(wire.SETTINGS_ACK)


def push_promise(connection: FrameReader, flags: int, stream_id: int, payload: bytes) -> None:
    """PUSH_PROMISE: a connection error, since clients must not push."""
    raise ConnectionFault(Code.PROTOCOL_ERROR, "push")


def ping(connection: FrameReader, flags: int, stream_id: int, payload: bytes) -> None:
    """PING: answer it, or note the answer to ours."""
    wire.check_ping(stream_id, payload)
    connection.control.spend("ping")
    if flags & ACK:
        connection.pinged(payload)
    else:
        connection.output.frames.append(wire.frame(wire.PING, ACK, 0, payload))


def goaway(connection: FrameReader, flags: int, stream_id: int, payload: bytes) -> None:
    """GOAWAY: the client will open no more streams; running ones finish."""
    wire.check_goaway(stream_id, payload)
    connection.control.spend("goaway")
    connection.leaves()


def window_update(connection: FrameReader, flags: int, stream_id: int, payload: bytes) -> None:
    """WINDOW_UPDATE: the client allows more bytes."""
    connection.control.spend("window_update")
    if stream_id:
        connection.no_idle(stream_id)
    credit = wire.read_window_update(stream_id, payload)
    if not stream_id:
        connection.output.credit(credit)
        return
    stream = connection.streams.get(stream_id)
    if stream is not None:
        connection.output.credit_stream(stream, credit)


def priority_update(connection: FrameReader, flags: int, stream_id: int, payload: bytes) -> None:
    """PRIORITY_UPDATE (RFC 9218): change the urgency of a stream."""
    connection.control.spend("priority")
    about, field = wire.read_priority_update(stream_id, payload)
    stream = connection.streams.get(about)
    if stream is not None:
        connection.output.prefer(stream, urgency_of(field))


def unknown(connection: FrameReader, flags: int, stream_id: int, payload: bytes) -> None:
    """Unknown frame types are ignored (RFC 9113 4.1)."""
    connection.control.spend("unknown")


Handler = Callable[[FrameReader, int, int, bytes], None]
HANDLERS: dict[int, Handler] = {
    wire.DATA: data,
    wire.HEADERS: headers,
    wire.PRIORITY: priority,
    wire.RST_STREAM: reset,
    wire.SETTINGS: settings,
    wire.PUSH_PROMISE: push_promise,
    wire.PING: ping,
    wire.GOAWAY: goaway,
    wire.WINDOW_UPDATE: window_update,
    wire.CONTINUATION: continuation,
    wire.PRIORITY_UPDATE: priority_update,
}

"""One connection to a backend, driven by callbacks: no task and no future for a request on a kept connection.

One rule: a connection is reused only when it is exactly clean. Bytes on an idle connection, bytes after a response's
end, an answer before the request body was sent, a failed parse: each retires it (RFC 9112 6.3, 9.3, 11.2).
The response is framed by the strict grammar and `ChunkedReader`; there is no lenient reader behind them.
"""

from __future__ import annotations

import asyncio
from enum import IntEnum
from math import inf
from time import monotonic

from edge.adapters.connection_owner import Owner
from edge.errors import ConnectionLost, ResponseIncomplete, ResponseInvalid, ResponseTimeout, UpstreamError
from edge.http.chunked import ChunkedReader
from edge.http.grammar import BY_LENGTH, Framing, ResponseFacts
from edge.http.message import Line
from edge.http.offence import check_beginning
from edge.ports import ResponseSink, Timeouts

_NO_TRAILERS: list[Line] = []


class Phase(IntEnum):
    """What the reader expects next in a response."""

    IDLE = 0
    HEAD = 1
    LENGTH = 2
    CHUNKED = 3
    CLOSE = 4
    TUNNEL = 5
    GONE = 6


_IDLE, _HEAD = Phase.IDLE, Phase.HEAD  # a member through its class costs 50 ns in CPython 3.11, and each request asks
_NO_RESPONSE = (Phase.IDLE, Phase.GONE)


class UpstreamConnection:
    """Sends one request at a time and hands its response to the sink (see `ports.ResponseSink`).

    It is an `asyncio.Protocol` by its methods.
    """

    __slots__ = (
        "_asked_upgrade",
        "_buffer",
        "_clean_eof",
        "_head_only",
        "_interims",
        "_paused_reading",
        "_persistent",
        "_reader",
        "_reading",
        "_remaining",
        "_sent_at",
        "_uploading",
        "address",
        "bound",
        "deadline",
        "idle_s",
        "link",
        "phase",
        "retire_at",
        "reused",
        "sink",
        "timeouts",
        "transport",
    )

    def __init__(self, link: Owner) -> None:
        self.link = link
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything else can happen
        self.sink: ResponseSink | None = None
        self.timeouts = link.timeouts
        self.phase = Phase.IDLE
        self.deadline = inf  # looked at by the worker's tick
        self.idle_s = link.timeouts.idle  # how long it is kept without a request
        self.bound = False  # it is one client's (`ports.Link.bind`)
        self.retire_at = inf  # from then on it is not kept any more
        self.address = ""  # of the other side
        self.reused = False
        self._buffer = b""
        self._head_only = False
        self._asked_upgrade = False
        self._uploading = False
        self._persistent = True
        self._clean_eof = False
        self._paused_reading = False  # by who receives the response
        self._reading = True
        self._interims = 0
        self._remaining = 0
        self._sent_at = 0.0
        self._reader: ChunkedReader | None = None

    # -- sending ---------------------------------------------------------------------------------------------------

    def send(self, data: bytes, sink: ResponseSink, timeouts: Timeouts, head_only: bool, upgrade: bool) -> None:
        """Send a request head (and its whole body, if short) and expect one response to it."""
        self.sink = sink
        self.timeouts = timeouts
        self.phase = _HEAD
        self._head_only = head_only
        self._asked_upgrade = upgrade
        self._interims = 0
        now = monotonic()
        self._sent_at = now
        self.deadline = now + timeouts.first_byte
        self.transport.write(data)

    def upload_begins(self) -> None:
        """A body follows in pieces: the response deadline starts when it has been sent."""
        self._uploading = True
        self.deadline = inf

    def upload(self, data: bytes) -> None:
        """One piece of the request body, framed already."""
        self.transport.write(data)

    def upload_ends(self) -> None:
        """The request is whole: from now on the response is due."""
        self._uploading = False
        if self.phase is Phase.HEAD:
            self._sent_at = monotonic()
            self.deadline = self._sent_at + self.timeouts.first_byte

    @property
    def waits_since(self) -> float:
        """When a whole request was sent of whose answer no byte has come; infinity when that is not so."""
        return inf if self.phase is not Phase.HEAD or self._uploading or self._buffer else self._sent_at

    def pause(self) -> None:
        """Stop reading: who receives the response is slower than its origin. Outside a response it means nothing."""
        if not self._paused_reading and self.phase not in _NO_RESPONSE:
            self._paused_reading = True
            self.deadline = inf  # the receiver's own deadline counts while it holds us back
            self._stop()

    def resume(self) -> None:
        """Read the response again."""
        if self._paused_reading and self.phase not in _NO_RESPONSE:
            self._paused_reading = False
            self.deadline = monotonic() + self.timeouts.body
            if self._reader is not None and self._reader.more:
                self.link.later(self._go_on)
            else:
                self._go()

    def _stop(self) -> None:
        if self._reading and not self.transport.is_closing():
            self._reading = False
            self.transport.pause_reading()

    def _go(self) -> None:
        if not self._reading and not self.transport.is_closing():
            self._reading = True
            self.transport.resume_reading()

    def close(self) -> None:
        """Close once what was written has been sent; the sink hears nothing more."""
        self.sink = None
        self.deadline = monotonic() + self.timeouts.body
        self.transport.close()

    def cancel(self) -> None:
        """The response is not wanted: close the connection; the sink hears nothing."""
        self.sink = None
        self._drop()

    def expire(self) -> None:
        """The deadline passed (called by the worker's tick)."""
        if self.phase is Phase.IDLE:
            self._drop()
        elif self.phase is Phase.HEAD:
            self._fail(ResponseTimeout("no response head in time"))
        else:
            self._fail(ResponseIncomplete("response stalled"))

    # -- asyncio ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def pause_writing(self) -> None:
        if self.sink is not None:
            self.deadline = monotonic() + self.timeouts.body  # an origin that stops reading is stalled
            self.sink.on_pause()

    def resume_writing(self) -> None:
        if self.sink is not None:
            if self._uploading or self.phase is Phase.TUNNEL:
                self.deadline = inf
            self.sink.on_resume()

    def data_received(self, data: bytes) -> None:
        phase, sink = self.phase, self.sink
        try:
            if phase is _HEAD:
                if self._buffer:
                    data = self._buffer + data
                    self._buffer = b""
                self._read_head(data)
            elif phase is Phase.LENGTH:
                self._read_length(data)
            elif phase is Phase.CHUNKED:
                self._read_chunked(data)
            elif phase is Phase.CLOSE or phase is Phase.TUNNEL:
                self.deadline = inf if phase is Phase.TUNNEL else monotonic() + self.timeouts.body
                if sink is not None:
                    sink.on_data(data)
            else:  # idle: bytes that nobody asked for must never reach the next request's client
                self._drop()
        except Exception as error:  # nobody is above a callback, so who asked hears of it here
            if self.sink is not sink:  # the response is over: the connection is kept, or another request's already
                pass
            elif isinstance(error, UpstreamError):
                self._fail(error)
                return
            else:
                self.sink = None
                self._drop()
            if sink is not None:
                sink.on_bug(error)

    def eof_received(self) -> bool:
        self._clean_eof = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        phase, self.phase = self.phase, Phase.GONE
        self.link.forget(self)
        sink, self.sink = self.sink, None
        if sink is None:
            return
        clean = exc is None and self._clean_eof
        try:
            if phase is Phase.TUNNEL or (phase is Phase.CLOSE and clean):
                sink.on_end(_NO_TRAILERS)
            elif phase is Phase.HEAD:
                within = "closed within the head" if self._buffer else "closed before a response"
                sink.on_failed(ConnectionLost(within))
            else:
                sink.on_failed(ResponseIncomplete("closed within the response"))
        except Exception as error:
            sink.on_bug(error)

    # -- reading ---------------------------------------------------------------------------------------------------

    def _read_head(self, data: bytes) -> None:
        link = self.link
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0 or end > link.limits.head_bytes:
                check_beginning(data, link.limits)
                self._buffer = data
                if not self._uploading:
                    self.deadline = self._sent_at + self.timeouts.head
                return
            end += 4
            raw = data[:end]
            facts = link.memo.get(raw)
            if facts is None:
                facts = link.memo.slow(raw)
            if facts.status >= 200 or facts.status == 101:
                break
            self._interim(facts)
            data = data[end:]
            if not data or self.sink is None:
                return
        if facts.idle_hint_s is not None:
            link.hint(self, facts.idle_hint_s)
        sink = self.sink
        # An early answer leaves a request body half sent: such a connection is never clean.
        self._persistent = facts.persistent and not self._uploading
        length, rest = facts.length, data[end:]
        if facts.framing is BY_LENGTH and len(rest) == length and not self._head_only:
            self._finish(b"")  # the whole body goes with this one call, and the sink lets go of us before it acts on it
            sink.on_head(facts, length, rest, True)  # type: ignore[union-attr]  # phase HEAD has a sink
        else:
            self._final(facts, rest)

    def _interim(self, facts: ResponseFacts) -> None:
        self._interims += 1
        if self._interims > self.link.interim_max:
            raise ResponseInvalid("too many interim responses")
        if not self._uploading:
            self.deadline = self._sent_at + self.timeouts.head
        if self.sink is not None:
            self.sink.on_interim(facts)

    def _final(self, facts: ResponseFacts, rest: bytes) -> None:
        """Frame the final response (RFC 9112 6.3) and pass its head on with what came of its body."""
        sink = self.sink
        assert sink is not None
        framing = facts.framing
        if facts.status == 101:
            if not self._asked_upgrade or facts.upgrade is None:
                raise ResponseInvalid("unexpected 101")
            self.phase, self.deadline = Phase.TUNNEL, inf
            sink.on_head(facts, None, rest, False)
            return
        if self._head_only or framing is Framing.NONE:
            if rest and facts.status in (204, 205):
                facts = facts.with_content()
            self._finish(rest)
            sink.on_head(facts, 0, b"", True)
            return
        self.deadline = monotonic() + self.timeouts.body
        if framing is BY_LENGTH:
            assert facts.length is not None
            missing = facts.length - len(rest)
            if missing <= 0:
                self._finish(rest[facts.length :])
                sink.on_head(facts, facts.length, rest[: facts.length], True)
                return
            self.phase, self._remaining = Phase.LENGTH, missing
            sink.on_head(facts, facts.length, rest, False)
        elif framing is Framing.CHUNKED:
            self.phase = Phase.CHUNKED
            self._reader = ChunkedReader(self.link.chunk_line_bytes, self.link.trailer_bytes)
            sink.on_head(facts, None, b"", False)
            if rest and self.phase is Phase.CHUNKED:
                self._read_chunked(rest)
        else:
            self.phase, self._persistent = Phase.CLOSE, False
            sink.on_head(facts, None, rest, False)

    def _read_length(self, data: bytes) -> None:
        remaining = self._remaining - len(data)
        self._remaining = remaining
        sink = self.sink
        assert sink is not None
        if remaining > 0:
            if not self._paused_reading:
                self.deadline = monotonic() + self.timeouts.body
            sink.on_data(data)
            return
        sink.on_data(data[:remaining] if remaining else data)
        if self.sink is sink:  # else nobody wanted the rest
            self._finish(data[remaining:] if remaining else b"")
            sink.on_end(_NO_TRAILERS)

    def _read_chunked(self, data: bytes) -> None:
        reader, sink = self._reader, self.sink
        assert reader is not None and sink is not None
        if not self._paused_reading:
            self.deadline = monotonic() + self.timeouts.body
        try:
            pieces, rest = reader.feed(data)
        except ValueError as error:
            self._fail(ResponseIncomplete(str(error)))
            return
        if pieces:
            sink.on_data(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self.sink is not sink:
            return
        if reader.done:
            self._finish(rest)
            sink.on_end(reader.trailers)
        elif reader.more:
            self._stop()
            if not self._paused_reading:
                self.link.later(self._go_on)
        elif not self._paused_reading:
            self._go()

    def _go_on(self) -> None:
        """The next turn of the loop: more of the chunks that are here already."""
        if self.phase is Phase.CHUNKED and self.sink is not None and not self._paused_reading:
            self.data_received(b"")

    # -- ending ----------------------------------------------------------------------------------------------------

    def _finish(self, excess: bytes) -> None:
        """The response is whole and its bytes are delivered: give the connection back to its link, or retire it."""
        self.sink = None
        self._reader = None
        if excess or not self._persistent or self._uploading:
            self._drop()
            return
        self.phase = _IDLE
        self._paused_reading = False
        if not self._reading:  # its receiver was slow; whatever comes now must be seen, for it retires us
            self._go()
        self.link.give_back(self)

    def _fail(self, error: UpstreamError) -> None:
        sink, self.sink = self.sink, None
        self._drop()
        if sink is not None:
            sink.on_failed(error)

    def _drop(self) -> None:
        self.phase = Phase.GONE
        self.deadline = inf
        self.link.forget(self)
        self.transport.abort()

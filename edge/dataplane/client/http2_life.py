"""The life of an HTTP/2 connection below its frames: what it writes, its deadlines, and how it ends.

    drain, or enough requests ─► GOAWAY "open no more" ─► a ping's time ─► GOAWAY "these were the last" ─► the last ends
    a fault ─► GOAWAY with its code ─► what the client still sends is read away (`leaving`)

One rule: a deadline counts what the client owes. A stream that takes nothing of what its own windows hold back ends
alone; bytes that the client's host does not take are the connection's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from edge.dataplane.client.accepted import Accepted
from edge.dataplane.client.http2_stream import Stream
from edge.dataplane.client.leaving import QUIET_S, Leaving, Progress
from edge.dataplane.client.reading import ALL
from edge.http2 import frames as wire
from edge.http2.frames import LAST_STREAM, Code, ConnectionFault, StreamFault
from edge.http2.limits import PER_DATA, PER_STREAM, Control, Resets
from edge.http2.output import Output, SendingStream

if TYPE_CHECKING:
    from edge.dataplane.core.exchange import Exchange

FORGOTTEN = 256  # streams that we reset, whose frames may still be on their way
GOODBYE_S = 1.0  # from "open no more" to "these were the last", where the client does not answer a ping before
_GOODBYE = b"edge-bye"


class Fragments:
    """A field block that is not complete yet."""

    __slots__ = ("ends_stream", "frames", "pieces", "size", "stream")

    def __init__(self, stream: int, ends_stream: bool, first: bytes) -> None:
        self.stream = stream
        self.ends_stream = ends_stream
        self.pieces = [first]
        self.size = len(first)
        self.frames = 0  # of CONTINUATION


class Http2Life(Accepted):
    """The base of `Http2Connection`: writing, deadlines, draining and the end."""

    version = b"HTTP/2.0"
    __slots__ = (
        "_answering",
        "_between",
        "_busy",
        "_checks",
        "_going",
        "_goodbye_at",
        "_greeted",
        "_head_until",
        "_last_served",
        "_longest",
        "_opened_before",
        "_receives",
        "_reset",
        "_resets",
        "_settled",
        "_soon",
        "_unsaid",
        "_urgency",
        "before_block",
        "control",
        "fragments",
        "is_gone",
        "last_stream",
        "most_opened",
        "most_streams",
        "opened",
        "output",
        "shared",
        "skipped",
        "streams",
        "table",
        "their_table",
    )

    def __init__(self, before: Accepted) -> None:
        """`before`: the connection as it was admitted, whose transport this one takes over."""
        super().__init__(before.worker, before.scheme)
        self.shared = shared = before.worker.http2
        self.is_gone = False
        self.output = Output()
        self.streams: dict[int, SendingStream] = {}  # those that are open; of a hit that waits, its sending half alone
        self.last_stream = 0
        self.skipped = range(0)  # the numbers that the client last left out
        self.opened = 0
        self._opened_before = 0  # when the client's host last took no more
        self.table = shared.reader.first_table
        self.fragments: Fragments | None = None
        self.their_table = shared.reader.first_table.limit  # the least that the client's decoder has allowed
        self.before_block = b""  # what has to stand in front of the next field block that we send
        now = monotonic()
        self.control = Control(shared.limits, monotonic, self._earned)
        self._resets = Resets(shared.limits, now)
        self._receives = shared.limits.connection_window
        self._unsaid = 0
        self._greeted = False  # the client's preface came
        self._settled = False  # and its first SETTINGS
        self._between = False  # after those, and in no field block: a head may come
        self._checks = False  # whether a stream may be opened has to be looked at closely
        self._longest = self.worker.head.first_line_bytes - len("GET")
        self.most_streams, self.most_opened = shared.limits.streams, shared.limits.requests
        self._answering = 0  # the stream of the fast hit that is tried
        self._urgency = 0  # and of what urgency it is
        self._busy = False  # frames are being read, and all that they bring about leaves together
        self._soon = False  # a write is due in this turn of the loop
        self._head_until = inf  # a head that is not whole has to be
        self._goodbye_at = inf
        self._going = False  # the client was told to open no more streams
        self._last_served: int | None = None  # and then which were the last
        self._reset: deque[int] | None = None  # those that we reset last, once there is one
        shared.connections += 1

    def _earned(self) -> int:
        """The credit for control frames that a client earns with streams, DATA and time (`limits`)."""
        return PER_STREAM * self.opened + PER_DATA * self.output.data_frames

    # -- writing -------------------------------------------------------------------------------------------------------

    def head(self, stream: SendingStream, block: bytes, ends: bool) -> None:
        """Write a field block of a stream. `ends`: nothing follows."""
        if self.before_block:
            block, self.before_block = self.before_block + block, b""
        self.output.head(stream.id, block, ends)
        if ends:
            stream.ended = True
        self.soon()

    def soon(self) -> None:
        """Flush at the end of this turn of the loop, so that frames of one turn leave in one write."""
        if not self._busy and not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._soon = False
        if self.is_gone:
            return
        try:
            self.flush()
        except Exception as error:
            self.worker.report_bug(error)
            self.abort()

    def flush(self) -> None:
        """Write all frames that the windows allow, in one piece."""
        output = self.output
        if self.leaving is not None:
            output.frames.clear()  # the last word is said
            return
        more = output.waiting > 0 and output.pump()
        while output.frames:
            frames, output.frames, output.pending = output.frames, [], 0
            self.transport.write(b"".join(frames) if len(frames) > 1 else frames[0])
            if output.done:
                self._moved()
                more = output.pump() or more
        if output.queued:
            self.worker.slow.add(self)
            if more and not self._soon:
                self._soon = True
                self.worker.turns.later(self._flush_now)
        if self._last_served is not None and not self.streams:
            self.finish()

    def _moved(self) -> None:
        """Tell the streams that were written: some are complete, some may produce more."""
        output = self.output
        done, output.done = output.done, []
        for stream in done:
            if stream.ended:
                if not isinstance(stream, Stream) or stream.exchange is None:
                    self.close_stream(stream)
            elif isinstance(stream, Stream):
                stream.moved()

    # -- streams that end ----------------------------------------------------------------------------------------------

    def close_stream(self, stream: SendingStream) -> None:
        """The response is out. If the client is still sending, tell it that the rest is not wanted."""
        if self.streams.pop(stream.id, None) is None:
            return
        if isinstance(stream, Stream):
            stream.is_gone = True
            if stream.receiving:
                self._say_reset(stream.id, Code.NO_ERROR)
        self._one_less()

    def reset(self, stream: SendingStream, code: Code) -> None:
        """RST_STREAM: end a stream whose response cannot be completed."""
        self._remove(stream, code)
        if isinstance(stream, Stream):
            stream.is_gone = True
        self.soon()

    def _say_reset(self, stream_id: int, code: Code) -> None:
        """Write RST_STREAM and remember the id: frames of the stream may be on their way."""
        if self._reset is None:
            self._reset = deque(maxlen=FORGOTTEN)
        self._reset.append(stream_id)
        self.output.frames.append(wire.reset(stream_id, code))

    def _remove(self, stream: SendingStream, code: Code | None) -> None:
        self.streams.pop(stream.id, None)
        self.output.drop(stream)
        if code is not None:
            self._say_reset(stream.id, code)
        self._one_less()

    def _one_less(self) -> None:
        if not self.streams and not self._going:
            self.deadline = min(self.worker.idle_deadline, self._head_until)

    def client_reset(self, stream: SendingStream) -> None:
        """The client cancelled a response. Raises ConnectionFault when it does so too often."""
        self._resets.spend(monotonic())
        self._remove(stream, None)
        if isinstance(stream, Stream):
            stream.gone("client reset the stream")

    def refuse_stream(self, stream_id: int, fault: StreamFault) -> None:
        """Reset a faulty or surplus stream. Raises ConnectionFault when that happens too often."""
        if stream_id > self.last_stream:
            raise ConnectionFault(fault.code, fault.reason)
        self.shared.stream_errors[fault.reason] += 1
        self._resets.spend(monotonic())
        self._end_stream(stream_id, fault.code, fault.reason)

    def _end_stream(self, stream_id: int, code: Code, why: str) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            self._say_reset(stream_id, code)
            return
        self._remove(stream, code)
        if isinstance(stream, Stream):
            stream.gone(why)

    # -- the end of the connection -------------------------------------------------------------------------------------

    @property
    def asking(self) -> Iterable[Exchange]:
        found = (stream.exchange for stream in self.streams.values() if isinstance(stream, Stream))
        return [each for each in found if each is not None]

    def drain(self, now: float) -> None:
        """Send GOAWAY and close when the running streams have ended."""
        for stream in [each for each in self.streams.values() if isinstance(each, Stream)]:
            stream.drain()
        if self._going or self.leaving is not None or self.is_gone:
            return
        if not self._settled:  # its preface, with a request, may be on its way
            if self.deadline - self.worker.limits.header_timeout <= now - QUIET_S:
                self.abort()
            return
        self._going = True
        self.output.frames.append(wire.goaway(LAST_STREAM, Code.NO_ERROR))
        self.output.frames.append(wire.frame(wire.PING, 0, 0, _GOODBYE))
        self._goodbye_at = monotonic() + GOODBYE_S
        self.deadline = min(self.deadline, self._goodbye_at)
        self.soon()

    def leave_routes(self, gone: Collection[str]) -> None:
        """Routes were removed by a reload: end the tunnels that use them."""
        for stream in [each for each in self.streams.values() if isinstance(each, Stream)]:
            stream.leave_route(gone)

    def pinged(self, payload: bytes) -> None:
        """A ping was answered: the client has seen our first GOAWAY, so the final one can be sent."""
        if self._going and payload == _GOODBYE:
            self._say_last()

    def _say_last(self) -> None:
        self._goodbye_at = inf
        if self._last_served is None:
            self._last_served = self.last_stream
            self._checks = True
            self.output.frames.append(wire.goaway(self.last_stream, Code.NO_ERROR))
            self.soon()

    def leaves(self) -> None:
        """The client sent GOAWAY: close when the running streams have ended."""
        self._going = True
        self._goodbye_at = inf
        self._checks = True
        if self._last_served is None:
            self._last_served = self.last_stream
        self.soon()

    def end(self, code: Code, reason: str) -> None:
        """End the connection for a protocol fault: GOAWAY with `code`, counted by `reason`."""
        if self.leaving is not None or self.is_gone:
            return
        self.shared.connection_errors[reason] += 1
        self.output.frames.append(wire.goaway(self.last_stream, code, reason.encode()))
        self._busy = True  # nothing that ends with it writes by itself
        for stream_id in list(self.streams):
            stream = self.streams.pop(stream_id)
            self.output.drop(stream)
            if isinstance(stream, Stream):
                stream.gone(f"connection ended: {reason}")
        self._busy = False
        self.finish(True)

    def finish(self, owes: bool = False) -> None:
        """Lingering close (`leaving`); `owes`: the client was still sending."""
        if self.leaving is not None or self.is_gone:
            return
        frames, self.output.frames = self.output.frames, []
        if frames:
            self.transport.write(b"".join(frames))
        self.deadline = inf
        self._buffer = b""
        self.fragments = None
        self.start_reading(ALL)
        self.worker.slow.add(self)
        self.leaving = Leaving(self, owes, monotonic())

    def abort(self, reset: bool = False) -> None:
        """Close at once, dropping what is unsent."""
        self.transport.abort()

    # -- time ----------------------------------------------------------------------------------------------------------

    def await_rest(self) -> None:
        """An incomplete head or frame: set the deadline, which counts from its first byte."""
        if self._head_until == inf:
            self._head_until = monotonic() + self.worker.limits.header_timeout
            self.deadline = min(self.deadline, self._head_until)

    def expire(self, now: float) -> None:
        """A deadline passed: find out which one and act on it."""
        self.deadline = inf
        if self._head_until <= now:
            self.end(Code.ENHANCE_YOUR_CALM, "head_late")
            return
        if not self._settled:
            self.end(Code.SETTINGS_TIMEOUT, "preface_late")
            return
        if self._goodbye_at <= now:
            self._say_last()
        if not self.streams and not self._going and self._head_until == inf:
            self._idle()
            return
        for stream in list(self.streams.values()):
            if isinstance(stream, Stream) and stream.deadline <= now:
                stream.expire(now)
        due = [stream.deadline for stream in self.streams.values() if isinstance(stream, Stream)]
        self.deadline = min(self.deadline, self._head_until, self._goodbye_at, *due)
        self.soon()

    def _idle(self) -> None:
        """No stream was open for `limits.idle_timeout`: GOAWAY."""
        if self.unsent():
            self.worker.slow.add(self)  # it has not taken its answers yet
        else:
            self.output.frames.append(wire.goaway(self.last_stream, Code.NO_ERROR))
            self.finish()

    def look(self, now: float) -> None:
        """On each tick while the client is slow or leaving: end what has stalled."""
        if self.leaving is not None:
            self.leaving.look(now)
            return
        for stream in [stream for stream in self.streams.values() if stream.queued and self._stalls(stream, now)]:
            self.shared.stream_errors["write_timeout"] += 1
            self._end_stream(stream.id, Code.CANCEL, "client took nothing")
            self.soon()
        left = self.unsent()
        if not left and not self.output.queued:
            self.worker.slow.discard(self)
            self._progress = None
            if self.deadline == inf and not self.streams:
                self.deadline = self.worker.idle_deadline
        elif self._progress is None or not left:
            self._progress = Progress(left, now, self.worker.limits.write_timeout)
        elif self._progress.stalled(left, now):
            self.shared.connection_errors["write_timeout"] += 1
            self.abort()

    def _stalls(self, stream: SendingStream, now: float) -> bool:
        """Whether the client has kept the window closed for too long; a slow host counts for the connection."""
        sent, since = stream.looked_at
        held = stream.window <= 0 or self.output.window <= 0
        if not held or sent != stream.sent or not since:
            stream.looked_at = (stream.sent, now)
            return False
        return now - since >= self.worker.limits.write_timeout

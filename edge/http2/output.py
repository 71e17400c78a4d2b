"""What one connection sends: frames that go out with the next write, and bodies that wait for windows and their turn.

    piece of a body ─► room in both windows, nobody waits? ─yes─► a DATA frame now
                                └─no─► queued ─► by urgency (RFC 9218), in turns of one frame ─► a DATA frame

One rule: no stream holds another. A stream without room in its own window stands in no queue; those that can send take
turns of 16 KiB; what is queued are the pieces themselves, never copies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

from edge.http2.frames import (
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    HEADERS,
    LARGEST_WINDOW,
    Code,
    ConnectionFault,
    StreamFault,
    field_frames,
    head,
)
from edge.http2.priority import DEFAULT_URGENCY

Piece = bytes | bytearray | memoryview
SMALL_BYTES = 128  # a DATA frame that is cut smaller by a window
STREAM_BYTES = 8 * 1024  # about what a stream takes, with its exchange and its backend connection
TURN_BYTES = 128 * 1024  # that one connection sends before others have their turn


class SendingStream:
    """The sending half of one stream."""

    __slots__ = (
        "_at",
        "ended",
        "ends",
        "id",
        "looked_at",
        "pieces",
        "queued",
        "ready",
        "sent",
        "trailers",
        "urgency",
        "window",
    )

    def __init__(self, stream_id: int, window: int) -> None:
        self.id = stream_id
        self.window = window  # what the client takes of this stream; negative where it took room away
        self.pieces: deque[Piece] = deque()
        self._at = 0  # bytes of the first piece that are sent
        self.queued = 0  # bytes in `pieces` that are not
        self.ends = False  # what is queued is the last
        self.ended = False  # END_STREAM is out
        self.ready = False  # stands in a queue
        self.trailers: bytes | None = None
        self.urgency = DEFAULT_URGENCY
        self.sent = 0  # bytes, so that progress can be seen
        self.looked_at: tuple[int, float] = (0, 0.0)  # `sent` when it was looked at, and since when it is that

    def take(self, most: int) -> list[Piece]:
        """The next bytes, this many at most."""
        out: list[Piece] = []
        pieces, at = self.pieces, self._at
        while most and pieces:
            piece = pieces[0]
            left = len(piece) - at
            if left <= most:
                out.append(memoryview(piece)[at:] if at else piece)
                pieces.popleft()
                most -= left
                at = 0
            else:
                out.append(memoryview(piece)[at : at + most])
                at += most
                most = 0
        self._at = at
        return out

    def drop(self) -> None:
        """Drop what is queued."""
        self.pieces.clear()
        self.queued = self._at = 0
        self.trailers = None
        self.ended = True


class Output:
    """The frames of one connection, and its side of flow control."""

    __slots__ = (
        "_initial",
        "_queues",
        "data_frames",
        "done",
        "frames",
        "is_open",
        "pending",
        "queued",
        "waiting",
        "window",
    )

    def __init__(self) -> None:
        self.frames: list[Piece] = []  # what goes out with the next write
        self.window = DEFAULT_WINDOW  # what the client takes of all streams together
        self.is_open = True  # the transport takes more
        self.waiting = 0  # streams that stand in a queue
        self.queued = 0  # bytes of bodies that wait, for their turn or for windows
        self.data_frames = 0  # sent since the beginning, but for crumbs
        self.pending = 0  # bytes of bodies in `frames` that did not wait
        self.done: list[SendingStream] = []  # streams whose queue became shorter or empty, for who pumps to look at
        self._initial = DEFAULT_WINDOW  # of a new stream
        self._queues: dict[
            int, deque[SendingStream]
        ] = {}  # by urgency, made when they are first needed: most never are

    @property
    def initial(self) -> int:
        """The window of a new stream."""
        return self._initial

    # -- heads ---------------------------------------------------------------------------------------------------------

    def head(self, stream_id: int, block: bytes, ends: bool) -> None:
        """Send a field block: HEADERS, with CONTINUATION where it has to be."""
        size = len(block)
        if size <= FRAME_BYTES:
            self.frames.append(head(size << 8 | HEADERS, END_HEADERS | END_STREAM if ends else END_HEADERS, stream_id))
            self.frames.append(block)
        else:
            self.frames.append(field_frames(stream_id, block, ends))

    # -- bodies --------------------------------------------------------------------------------------------------------

    def whole(self, stream_id: int, block: bytes, body: bytes) -> bool:
        """Send a whole response at once; False when that is not possible now."""
        size, head_size, left = len(body), len(block), self.window - len(body)
        if size > FRAME_BYTES or left < 0 or size > self._initial or self.waiting or not self.is_open:
            return False
        if self.pending > TURN_BYTES or head_size > FRAME_BYTES or not size:
            return False
        self.pending += size
        self.window = left
        self.data_frames += 1
        self.frames += (
            head(head_size << 8 | HEADERS, END_HEADERS, stream_id),
            block,
            head(size << 8, END_STREAM, stream_id),
            body,
        )
        return True

    def send(self, stream: SendingStream, pieces: Iterable[Piece], ends: bool, trailers: bytes | None = None) -> None:
        """Queue pieces of a body; `pump` sends them. `ends`: they are the last, but for trailers."""
        for piece in pieces:
            if piece:
                stream.pieces.append(piece)
                stream.queued += len(piece)
                self.queued += len(piece)
        if ends:
            stream.ends = True
            stream.trailers = trailers
            if not stream.queued:
                self._end(stream)
                return
        self._queue(stream)

    def _queue(self, stream: SendingStream) -> None:
        if not stream.ready and stream.queued and stream.window > 0:
            stream.ready = True
            self.waiting += 1
            queue = self._queues.get(stream.urgency)
            if queue is None:
                queue = self._queues[stream.urgency] = deque()
                self._queues = dict(sorted(self._queues.items()))
            queue.append(stream)

    def _end(self, stream: SendingStream) -> None:
        """End the stream, with its trailers if it has some: nothing is queued any more."""
        if stream.ended:
            return
        stream.ended = True
        if stream.trailers is not None:
            self.head(stream.id, stream.trailers, True)
        else:
            self.frames.append(head(DATA, END_STREAM, stream.id))

    def pump(self) -> bool:
        """Make frames of what is queued, as far as windows and the transport go; whether there is more to send in
        another turn. Streams that moved are in `done`."""
        if not self.waiting or not self.is_open:
            return False
        budget = TURN_BYTES
        for queue in self._queues.values():
            while queue:
                if self.window <= 0:
                    return False
                if budget <= 0:
                    return True
                stream = queue.popleft()
                if stream.queued and stream.window > 0:
                    budget -= self._frame(stream)
                    if stream.queued and stream.window > 0:
                        queue.append(stream)
                        continue
                stream.ready = False
                self.waiting -= 1
        return False

    def _frame(self, stream: SendingStream) -> int:
        """One DATA frame of a stream."""
        size = min(stream.queued, stream.window, self.window, FRAME_BYTES)
        stream.queued -= size
        self.queued -= size
        stream.window -= size
        stream.sent += size
        self.window -= size
        if size >= SMALL_BYTES or not stream.queued:  # who lets us send crumbs alone earns nothing by them
            self.data_frames += 1
        flags = 0
        if not stream.queued and stream.ends and stream.trailers is None:
            flags = END_STREAM
            stream.ended = True
        self.frames.append(head(size << 8, flags, stream.id))
        self.frames.extend(stream.take(size))
        if not stream.queued and stream.ends:
            self._end(stream)
        self.done.append(stream)
        return size

    def drop(self, stream: SendingStream) -> None:
        """The stream is reset: nothing more of it is sent."""
        self.queued -= stream.queued
        stream.drop()
        if stream.ready:
            stream.ready = False
            self.waiting -= 1
            self._queues[stream.urgency].remove(stream)

    def prefer(self, stream: SendingStream, urgency: int) -> None:
        """The client told how urgent it is."""
        ready = stream.ready
        if ready:
            self._queues[stream.urgency].remove(stream)
            self.waiting -= 1
            stream.ready = False
        stream.urgency = urgency
        if ready:
            self._queue(stream)

    def held(self, streams: Collection[SendingStream], seen: set[int] | None) -> int:
        """Bytes of memory behind what waits, of all `streams`. With `seen`, a piece that is in it is not counted again;
        else a stored body is counted for each stream that waits with it, and streams whose turn is the backend's."""
        if seen is None:
            return self.queued + STREAM_BYTES * len(streams)
        total = 0
        for stream in streams:
            if stream.queued:
                total += STREAM_BYTES
                for piece in stream.pieces:
                    if id(piece) not in seen:
                        seen.add(id(piece))
                        total += len(piece)
        return total

    # -- windows -------------------------------------------------------------------------------------------------------

    def credit(self, amount: int) -> None:
        """The client takes so many more bytes on all streams. Raises ConnectionFault."""
        self.window += amount
        if self.window > LARGEST_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "window_overflow")

    def credit_stream(self, stream: SendingStream, amount: int) -> None:
        """The client allows more bytes on a stream. Raises StreamFault when the window overflows."""
        stream.window += amount
        if stream.window > LARGEST_WINDOW:
            raise StreamFault(Code.FLOW_CONTROL_ERROR, "window_overflow")
        self._queue(stream)

    def set_initial(self, initial: int, streams: Iterable[SendingStream]) -> None:
        """New streams begin with this window; those that run are changed by the difference (RFC 9113 6.9.2)."""
        change, self._initial = initial - self._initial, initial
        for stream in streams:
            stream.window += change
            if stream.window > LARGEST_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "window_overflow")
            self._queue(stream)

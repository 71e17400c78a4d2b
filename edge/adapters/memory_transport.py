"""Two protocols joined in memory, as a pair of sockets would join them: for an application that runs in the worker.

    A.write ─► bytes wait at A ─ next turn of the loop ─► B.data_received

One rule: it keeps a socket's manners. Delivery is never re-entrant, comes in pieces of at most `PIECE_BYTES`, stops
while the reader has paused; what waits beyond the high-water mark pauses the writer. A close lets what was written
arrive first; an abort does not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

PIECE_BYTES = 256 * 1024
HIGH_BYTES, LOW_BYTES = 64 * 1024, 16 * 1024
PEER_ADDRESS = ("127.0.0.1", 0)  # both ends are in this process

Bytes = bytes | bytearray | memoryview


Protocol = Any  # of asyncio: it has the methods, and need not be of that class


class MemoryTransport(asyncio.Transport):
    """One end. `extra` answers `get_extra_info` before what every end knows."""

    def __init__(self, protocol: Protocol, loop: asyncio.AbstractEventLoop, extra: dict[str, Any]) -> None:
        super().__init__({"peername": PEER_ADDRESS, "sockname": PEER_ADDRESS, **extra})
        self._protocol = protocol
        self._loop = loop
        self._peer: MemoryTransport | None = None
        self._waiting: deque[Bytes] = deque()  # written here, not delivered yet
        self._size = 0
        self._high, self._low = HIGH_BYTES, LOW_BYTES
        self._writer_paused = False
        self._reading = True
        self._due = False  # a delivery is on the loop's list
        self._closing = False  # no more is written; the end comes when all is delivered
        self._eof = False  # this side has said that it writes no more
        self._eof_told = False
        self._cut = False
        self._lost = False
        self._why: Exception | None = None  # what `connection_lost` is told
        self._then: Callable[[], None] | None = None  # called when all that was written has arrived
        self.ended_here = False  # by `close` or `abort` of this end

    # -- writing ---------------------------------------------------------------------------------------------------

    def write(self, data: Bytes) -> None:
        if self._closing or self._eof or not data:
            return
        self._waiting.append(bytes(data) if isinstance(data, memoryview | bytearray) else data)
        self._size += len(data)
        self._schedule()
        if self._size > self._high and not self._writer_paused:
            self._writer_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[Bytes]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._eof = True
        self._schedule()

    def get_write_buffer_size(self) -> int:
        return self._size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = HIGH_BYTES if high is None else high
        self._low = self._high // 4 if low is None else low

    def when_delivered(self, then: Callable[[], None]) -> None:
        """Call when all that was written has arrived, or never will; on a later turn of the loop."""
        if self._waiting and not self._cut and not self._lost:
            self._then = then
        else:
            self._loop.call_soon(then)

    # -- reading ---------------------------------------------------------------------------------------------------

    def is_reading(self) -> bool:
        return self._reading and not self._lost

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        if self._peer is not None:
            self._peer._schedule()

    # -- the end ---------------------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = self.ended_here = True
            self._schedule()

    def abort(self) -> None:
        if not self._closing:
            self.ended_here = True
        self._closing = self._cut = True  # what is cut must not look whole: no end of file is told any more
        self._waiting.clear()
        self._size = 0
        self._loop.call_soon(self._lose, True)

    def set_protocol(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Protocol:
        return self._protocol

    def _lose(self, cut: bool) -> None:
        """This end is gone, and with it the other one, which hears whether it was cut."""
        if self._lost:
            return
        self._lost = self._closing = True
        self._waiting.clear()
        self._size = 0
        peer, self._peer = self._peer, None
        self._protocol.connection_lost(self._why)
        if peer is not None and not peer._lost:
            peer._why = ConnectionResetError("the other end is gone") if cut else None
            self._loop.call_soon(peer._lose, cut)

    # -- delivery --------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._due and not self._lost:
            self._due = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._due = False
        peer = self._peer
        if peer is None or self._lost or self._cut:
            return
        if self._waiting and peer._reading and not peer._closing:
            piece = self._piece()
            self._size -= len(piece)
            peer._protocol.data_received(piece)
            if self._writer_paused and self._size <= self._low and not self._lost:
                self._writer_paused = False
                self._protocol.resume_writing()
        if self._waiting and not peer._closing:
            if peer._reading:
                self._schedule()
            return  # or `resume_reading` of the other end goes on
        if self._then is not None:
            then, self._then = self._then, None
            then()
        self._finish(peer)

    def _piece(self) -> bytes:
        """What one read of a socket would give."""
        waiting = self._waiting
        if len(waiting) == 1 and len(waiting[0]) <= PIECE_BYTES:
            return bytes(waiting.popleft())
        taken: list[Bytes] = []
        room = PIECE_BYTES
        while waiting and room:
            first = waiting.popleft()
            if len(first) > room:
                waiting.appendleft(memoryview(first)[room:])
                first = memoryview(first)[:room]
            taken.append(first)
            room -= len(first)
        return b"".join(taken)

    def _finish(self, peer: MemoryTransport) -> None:
        """All is delivered: say that nothing more comes, and end when this side has closed."""
        if (self._eof or self._closing) and not self._eof_told:
            self._eof_told = True
            if not peer._closing and not peer._protocol.eof_received():
                peer.close()
        if self._closing:
            self._lose(False)


def join(
    client: Protocol,
    server: Protocol,
    client_extra: dict[str, Any] | None = None,
    server_extra: dict[str, Any] | None = None,
) -> None:
    """Connect two protocols; `connection_made` of both has been called when this returns, the server's first."""
    loop = asyncio.get_running_loop()
    ours, theirs = MemoryTransport(client, loop, client_extra or {}), MemoryTransport(server, loop, server_extra or {})
    ours._peer, theirs._peer = theirs, ours
    server.connection_made(theirs)
    client.connection_made(ours)

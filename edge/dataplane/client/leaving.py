"""What is still unsent to a client, and the lingering close of its connection (RFC 9112 9.6).

    last answer written ─► unsent bytes? ─yes─► as long as they move; none for `write_timeout`: reset
                                └─no──► what the client still sends is read away: until it ends, is silent, or has
                                        sent more than is worth reading; then the connection is closed

One rule: a deadline counts bytes that are unsent, those in the kernel too. A response that was cut is reset, so that it
cannot look whole; one that was sent is left to the client for as long as it needs to notice it.

Who has said that it sends no more (`says_no_more`) is not waited for: the connection is closed, as nginx closes it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from fcntl import ioctl
from math import inf
from termios import TIOCOUTQ
from typing import TYPE_CHECKING, Protocol

from edge.dataplane.client.tls_transport import TlsTransport
from edge.dataplane.core.context import WorkerContext
from edge.dataplane.core.downstream import WRITE_TOGETHER

if TYPE_CHECKING:
    from edge.dataplane.core.exchange import Exchange

QUIET_S = 1.0  # without a byte, before a connection is closed that is to end
LINGER_S = 30.0  # in all, once everything is sent
SILENCE_S = 2.0  # without a byte from a client that owes none
OWED_SILENCE_S = 5.0  # from one that was still sending a body when it was answered
READ_AWAY_BYTES = 64 * 1024 * 1024
_NO_LINGER = struct.pack("ii", 1, 0)


def unsent(transport: asyncio.Transport) -> int:
    """Bytes that the client's host has not acknowledged."""
    waiting = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if sock is None:
        return waiting
    try:
        return waiting + int(struct.unpack("i", ioctl(sock.fileno(), TIOCOUTQ, b"\0\0\0\0"))[0])
    except (OSError, ValueError):  # closed meanwhile
        return waiting


def says_no_more(exchange: Exchange) -> bool:
    """Whether the client called its request the last (RFC 9112 9.6) and has sent all of it, and the answer is small:
    nothing that it sends could be lost or reset the connection, so that there is nothing to linger for."""
    return exchange.block.close and not exchange.owed and exchange.bytes_out <= WRITE_TOGETHER


def part(transport: asyncio.Transport) -> None:
    """Close behind what is written, and await nothing of the client."""
    if isinstance(transport, TlsTransport):
        transport.part()
    else:
        transport.close()


def reset_at_end(transport: asyncio.Transport) -> None:
    """The connection ends with RST instead of FIN."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


class Ending(Protocol):
    """What `Leaving` needs of a connection."""

    @property
    def worker(self) -> WorkerContext: ...
    @property
    def transport(self) -> asyncio.Transport: ...
    def unsent(self) -> int: ...
    def stop_reading(self) -> None: ...
    def abort(self, reset: bool = False) -> None: ...


class Progress:
    """Whether a slow client acknowledges bytes; made when it turns out to be slow."""

    __slots__ = ("_left", "_patience_s", "_until")

    def __init__(self, left: int, now: float, patience_s: float) -> None:
        self._left = left
        self._patience_s = patience_s
        self._until = now + patience_s

    def stalled(self, left: int, now: float) -> bool:
        """Whether none of the `left` bytes was acknowledged within the write timeout."""
        if left < self._left or not left:  # who has everything is not slow, whatever it waits for
            self._until = now + self._patience_s
        self._left = left
        return left > 0 and now >= self._until


class Leaving:
    """A connection after its last answer. `owes`: the client was still sending its request."""

    __slots__ = ("_closed", "_front", "_heard_at", "_owes", "_progress", "_read_away", "_sent_at")

    def __init__(self, downstream: Ending, owes: bool, now: float) -> None:
        self._front = downstream
        self._owes = owes
        self._heard_at = now
        self._sent_at = inf  # when everything was sent
        self._read_away = 0
        self._closed = False
        self._progress: Progress | None = None  # most are gone before the first look
        if downstream.transport.can_write_eof():
            downstream.transport.write_eof()
            self._closed = True
        elif not owes:  # TLS cannot end in one direction: bytes that came after its end would reset the connection
            self._close()

    def _close(self) -> None:
        self._closed = True
        self._front.transport.close()

    def heard(self, count: int, now: float) -> None:
        """Count `count` bytes of the client, which are discarded."""
        self._owes = True
        self._heard_at = now
        self._read_away += count
        if self._read_away > READ_AWAY_BYTES:
            self._front.stop_reading()

    def look(self, now: float) -> None:
        """On each tick: close the connection when it has lingered long enough."""
        downstream = self._front
        left = downstream.unsent()
        if self._progress is None:
            self._progress = Progress(left, now, downstream.worker.limits.write_timeout)
        elif self._progress.stalled(left, now):
            downstream.abort(reset=True)
            return
        if left:
            return
        if self._sent_at == inf:
            self._sent_at = self._heard_at = now
        silent = now - self._heard_at >= (OWED_SILENCE_S if self._owes else SILENCE_S)
        if silent and not self._closed:
            self._close()
            self._heard_at = now  # the other side has to say its own end
        elif silent or now - self._sent_at >= LINGER_S:
            downstream.abort()

"""One side of a TCP connection as bytes and facts: what arrived, and how it ended.

asyncio's streams forget buffered bytes once a reset arrives and do not tell a reset from a close; both matter when a
truncated response must be told from a whole one. One rule: every wait has a limit, and bytes that arrived before the
end can always still be read.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

from kit.waiting import WAIT_S

NO_LINGER = struct.pack("ii", 1, 0)


class Wire(asyncio.Protocol):
    """`buffer` holds unread bytes. `ended` is set by FIN or RST from the peer, `was_reset` by RST alone."""

    def __init__(self, on_connect: Callable[[Wire], None] | None = None) -> None:
        self.buffer = bytearray()
        self.received_bytes = 0
        self.ended = False
        self.was_reset = False
        self.transport: asyncio.Transport | None = None
        self._on_connect = on_connect
        self._news: asyncio.Event = asyncio.Event()
        self._lost: asyncio.Event = asyncio.Event()
        self._may_write: asyncio.Event = asyncio.Event()
        self._may_write.set()

    # -- the protocol's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._on_connect is not None:
            self._on_connect(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.received_bytes += len(data)
        self._news.set()

    def eof_received(self) -> bool:
        self.ended = True
        self._news.set()
        return True  # keep our own direction open: half-closed peers are part of what is tested

    def connection_lost(self, exc: Exception | None) -> None:
        self.was_reset = exc is not None
        self.ended = True
        self._lost.set()
        self._may_write.set()
        self._news.set()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    # -- reading

    async def more(self, wait_s: float = WAIT_S) -> bool:
        """Wait for bytes beyond those in `buffer`; False once the peer has ended. TimeoutError after `wait_s`."""
        known = self.received_bytes
        async with asyncio.timeout(wait_s):
            while self.received_bytes == known:
                if self.ended:
                    return False
                self._news.clear()
                await self._news.wait()
        return True

    async def until(self, marker: bytes, wait_s: float = WAIT_S) -> bytes | None:
        """Take everything up to and including `marker`; None, taking nothing, when the peer ends before it."""
        while (at := self.buffer.find(marker)) < 0:
            if not await self.more(wait_s):
                return None
        return self.take(at + len(marker))

    async def exactly(self, count: int, wait_s: float = WAIT_S) -> bytes | None:
        """Take `count` bytes; None, taking nothing, when the peer ends before them."""
        while len(self.buffer) < count:
            if not await self.more(wait_s):
                return None
        return self.take(count)

    async def until_end(self, wait_s: float = WAIT_S) -> bytes:
        """Take everything until the peer ends."""
        while await self.more(wait_s):
            pass
        return self.take(len(self.buffer))

    async def left(self) -> None:
        """Wait, without a limit of its own, until the peer has ended; bytes stay in `buffer`."""
        while not self.ended:
            self._news.clear()
            await self._news.wait()

    def take(self, count: int) -> bytes:
        """Take the first `count` buffered bytes."""
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken

    # -- writing and ending

    async def send(self, data: bytes, wait_s: float = WAIT_S) -> bool:
        """Write and wait until the transport's buffer is low again; False when the connection is gone."""
        if self.transport is None or self.transport.is_closing():
            return False
        self.transport.write(data)
        async with asyncio.timeout(wait_s):
            await self._may_write.wait()
        return not self._lost.is_set()

    def half_close(self) -> None:
        """Send FIN, keep reading."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write_eof()

    def reset(self) -> None:
        """Send RST: what is still unsent is lost, and the peer sees an error."""
        if self.transport is not None:
            sock: socket.socket | None = self.transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            self.transport.abort()

    def pause_reading(self) -> None:
        """Stop taking bytes from the socket: the peer meets backpressure."""
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Take bytes from the socket again."""
        if self.transport is not None:
            self.transport.resume_reading()

    async def close(self, wait_s: float = WAIT_S) -> None:
        """Flush, close and wait until the socket is gone."""
        if self.transport is None:
            return
        self.transport.close()
        try:
            async with asyncio.timeout(wait_s):
                await self._lost.wait()
        except TimeoutError:
            self.transport.abort()
            await self._lost.wait()

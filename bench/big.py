"""Large bodies through a proxy: how far its resident memory rises while one goes down and one goes up.

Client and sink are this process; both only count. One rule: the size is bounded by the caller, nothing is kept, and the
peak counts, not the end.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from bench.measure import resident_bytes
from bench.processes import LOOPBACK, Refused

PIECE = b"x" * 65536
MIB = 1024 * 1024
SAMPLE_S = 0.03
LIMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Growth:
    """Peak growth in MiB and speed in MiB/s, each way."""

    down_growth_mib: float
    up_growth_mib: float
    down_mib_s: float
    up_mib_s: float


class Sink:
    """The server behind the proxy. Proxies keep connections, so `end` closes what they left open."""

    def __init__(self) -> None:
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self._open[writer] = asyncio.current_task()
        await _sink(reader, writer)

    async def end(self) -> None:
        """Close all connections and wait for their tasks."""
        for writer in self._open:
            writer.close()
        await asyncio.gather(*(task for task in self._open.values() if task is not None), return_exceptions=True)


async def _sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """GET /big/N sends N bytes; a body with Content-Length or chunks is counted, and the count is the answer."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            target = head.split(b" ", 2)[1]
            if head.startswith(b"get "):
                size = int(target.rpartition(b"/")[2])
                writer.write(b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: %d\r\n\r\n" % size)
                for _ in range(size // len(PIECE)):
                    writer.write(PIECE)
                    await writer.drain()
            else:
                said = b"%d" % await _count_body(reader, head)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))
                await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _count_body(reader: asyncio.StreamReader, head: bytes) -> int:
    if b"content-length:" in head:
        return await _skip(reader, int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
    total = 0
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        total += await _skip(reader, size)
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return total


async def _skip(reader: asyncio.StreamReader, size: int) -> int:
    left = size
    while left:
        data = await reader.read(min(left, 262144))
        if not data:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(data)
    return size


async def _head(reader: asyncio.StreamReader) -> tuple[int, int]:
    """Status and Content-Length of an answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    return int(head.split(b" ")[1]), int(head.split(b"content-length:")[1].split(b"\r\n")[0])


async def _down(port: int, size: int) -> None:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(f"GET /big/{size} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        if await _head(reader) != (200, size):
            raise Refused(f"port {port} did not answer 200 with {size} bytes")
        await _skip(reader, size)
    finally:
        writer.close()


async def _up(port: int, size: int) -> None:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(f"POST /big/up HTTP/1.1\r\nHost: bench\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(size // len(PIECE)):
            writer.write(PIECE)
            await writer.drain()
        status, length = await _head(reader)
        counted = await reader.readexactly(length)
        if status != 200 or int(counted) != size:
            raise Refused(f"port {port}: {size} bytes went up, the sink counted {counted!r}")
    finally:
        writer.close()


async def _peak(pid: int, seen: list[int]) -> None:
    while True:
        seen[0] = max(seen[0], resident_bytes(pid))
        await asyncio.sleep(SAMPLE_S)


async def _measure(port: int, sink_port: int, pid: int, size: int) -> Growth:
    sink = Sink()
    server = await asyncio.start_server(sink.serve, LOOPBACK, sink_port)
    figures: list[float] = []
    try:
        await _down(port, len(PIECE))  # connections and code are warm before the first weighing
        await _up(port, len(PIECE))
        for way in (_down, _up):
            before, started = resident_bytes(pid), time.monotonic()
            seen = [before]
            watch = asyncio.create_task(_peak(pid, seen), name="bench-peak")
            try:
                await asyncio.wait_for(way(port, size), LIMIT_S)
            finally:
                watch.cancel()
            seen[0] = max(seen[0], resident_bytes(pid))
            figures += [(seen[0] - before) / MIB, size / MIB / (time.monotonic() - started)]
    finally:
        server.close()
        await sink.end()
    return Growth(figures[0], figures[2], figures[1], figures[3])


def growth(port: int, sink_port: int, pid: int, size: int) -> Growth:
    """Send `size` bytes (a multiple of 64 KiB) down and up through a proxy."""
    try:
        return asyncio.run(_measure(port, sink_port, pid, size))
    except (OSError, EOFError, TimeoutError, IndexError) as broken:
        raise Refused(f"the large body through port {port} broke: {broken!r}") from None

"""The memory of kept connections: open many, ask one thing on each, hold them, and weigh the proxy before and after.

One rule: the proxy is warm before it is weighed the first time, so that what it allocates once is not charged to the
connections. What it set aside for connections at its start (nginx) is not seen; that is its good right.
"""

from __future__ import annotations

import asyncio
import resource
import time

from bench.measure import resident_bytes
from bench.processes import LOOPBACK, Refused

SETTLE_S = 0.7


def need_descriptors(count: int) -> None:
    """Raise this process's limit on open files, for it and what it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        if hard != resource.RLIM_INFINITY and hard < count:
            raise Refused(f"needs {count} open files, the limit is {hard}: raise it with ulimit -n")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


async def _hold(port: int, path: str, count: int) -> list[asyncio.StreamWriter]:
    """Open `count` connections in batches, one answered request on each."""
    held: list[asyncio.StreamWriter] = []
    ask = f"GET {path} HTTP/1.1\r\nHost: {LOOPBACK}:{port}\r\n\r\n".encode()

    async def one() -> None:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        held.append(writer)
        writer.write(ask)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)

    for start in range(0, count, 50):
        await asyncio.wait_for(asyncio.gather(*(one() for _ in range(min(50, count - start)))), 30)
    return held


async def _release(held: list[asyncio.StreamWriter]) -> None:
    for writer in held:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for writer in held), return_exceptions=True)


async def _weigh(port: int, path: str, pid: int, count: int) -> float:
    await _release(await _hold(port, path, max(4, count // 50)))  # few: what they leave behind is used again
    await asyncio.sleep(SETTLE_S)
    before = resident_bytes(pid)
    held = await _hold(port, path, count)
    try:
        await asyncio.sleep(SETTLE_S)
        return max(0, resident_bytes(pid) - before) / count
    finally:
        await _release(held)


def bytes_each(port: int, path: str, pid: int, count: int) -> float:
    """Resident bytes for each of `count` kept connections."""
    try:
        return asyncio.run(_weigh(port, path, pid, count))
    except (OSError, EOFError, TimeoutError) as broken:
        raise Refused(f"the kept connections on port {port} broke: {broken!r}") from None
    finally:
        time.sleep(0.2)  # let the proxy see the closes before the next case

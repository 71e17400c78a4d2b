"""The memory of kept connections: open many, ask one thing on each, hold them, and weigh the proxy before and after.

One rule: the proxy is warm before it is weighed the first time, so that what it allocates once is not charged to the
connections. What it set aside for connections at its start (nginx) is not seen; that is its good right.
A protocol is named where TLS is spoken: `http/1.1`, or `h2` by the package of this name.
"""

from __future__ import annotations

import asyncio
import resource
import ssl
import time

import h2.connection
import h2.events

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


def _secure(protocol: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    return context


async def _ask_http2(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str, path: str) -> None:
    """One answered request; everything that the other side said of the connection is acknowledged."""
    client = h2.connection.H2Connection()
    client.initiate_connection()
    head = [(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", path)]
    client.send_headers(1, head, end_stream=True)
    ended = False
    while not ended:
        writer.write(client.data_to_send())
        data = await reader.read(65536)
        if not data:
            raise EOFError("the connection ended")
        ended = any(isinstance(event, h2.events.StreamEnded) for event in client.receive_data(data))
    writer.write(client.data_to_send())


async def _hold(port: int, path: str, count: int, protocol: str) -> list[asyncio.StreamWriter]:
    """Open `count` connections in batches, one answered request on each."""
    held: list[asyncio.StreamWriter] = []
    context = _secure(protocol) if protocol else None
    ask = f"GET {path} HTTP/1.1\r\nHost: {LOOPBACK}:{port}\r\n\r\n".encode()

    async def one() -> None:
        reader, writer = await asyncio.open_connection(LOOPBACK, port, ssl=context)
        held.append(writer)
        if protocol == "h2":
            await _ask_http2(reader, writer, f"{LOOPBACK}:{port}", path)
            return
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


async def _weigh(port: int, path: str, pid: int, count: int, protocol: str) -> float:
    await _release(await _hold(port, path, max(4, count // 50), protocol))  # few: what they leave behind is used again
    await asyncio.sleep(SETTLE_S)
    before = resident_bytes(pid)
    held = await _hold(port, path, count, protocol)
    try:
        await asyncio.sleep(SETTLE_S)
        return max(0, resident_bytes(pid) - before) / count
    finally:
        await _release(held)


def bytes_each(port: int, path: str, pid: int, count: int, protocol: str = "") -> float:
    """Resident bytes for each of `count` kept connections; `protocol`: what is spoken over TLS."""
    try:
        return asyncio.run(_weigh(port, path, pid, count, protocol))
    except (OSError, EOFError, TimeoutError) as broken:
        raise Refused(f"the kept connections on port {port} broke: {broken!r}") from None
    finally:
        time.sleep(0.2)  # let the proxy see the closes before the next case

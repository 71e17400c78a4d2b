"""A steady load of GETs over kept connections, open loop: request n is sent at n / rate whatever became of the others.

One rule: every request that was begun is in the result, with what became of it; none is sent twice by the load itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from bench.processes import LOOPBACK

WAIT_S = 20.0  # longer than any of the gateway's own waits


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: when it was sent (seconds from the start), how long it took, its status (0: none), who answered."""

    at: float
    took: float
    status: int
    origin: str = ""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class _Client(asyncio.Protocol):
    """One kept connection, one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.waiter: asyncio.Future[bytes] | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(_field(head, b"content-length") or b"0")
        if len(body) >= length and self.waiter is not None and not self.waiter.done():
            self._buffer = b""
            self.waiter.set_result(head)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(b"")


def _field(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    return b""


class SteadyLoad:
    """`rate` requests a second to one port for `seconds`; `samples` grows while it runs."""

    def __init__(self, port: int, rate: float, seconds: float) -> None:
        self.samples: list[Sample] = []
        self.began_at = 0.0
        self.begun = asyncio.Event()
        self._port = port
        self._rate = rate
        self._seconds = seconds
        self._idle: list[_Client] = []
        self._all: list[_Client] = []

    def now(self) -> float:
        """Seconds since the start."""
        return monotonic() - self.began_at

    async def run(self, progress: Callable[[float], None]) -> list[Sample]:
        """All samples in the order of their sending."""
        self.began_at = monotonic()
        self.begun.set()
        running: list[asyncio.Task[None]] = []
        for number in range(int(self._rate * self._seconds)):
            due = number / self._rate
            if (early := due - self.now()) > 0:
                await asyncio.sleep(early)
            running.append(asyncio.create_task(self._one(), name=f"request {number}"))
            if number % int(self._rate) == 0:
                progress(due)
        await asyncio.gather(*running)
        for client in self._all:
            if client.transport is not None:
                client.transport.abort()
        return sorted(self.samples, key=lambda sample: sample.at)

    async def _one(self) -> None:
        at = self.now()
        try:
            async with asyncio.timeout(WAIT_S):
                head = await self._ask()
        except (OSError, TimeoutError):
            head = b""
        status = int(head.split(b" ", 2)[1]) if head else 0
        self.samples.append(Sample(at, self.now() - at, status, _field(head, b"x-origin").decode()))

    async def _ask(self) -> bytes:
        client = self._idle.pop() if self._idle else await self._connect()
        client.waiter = asyncio.get_running_loop().create_future()
        assert client.transport is not None
        client.transport.write(b"GET /work HTTP/1.1\r\nHost: bench.example\r\n\r\n")
        head = await client.waiter
        if head and not client.transport.is_closing():
            self._idle.append(client)
        return head

    async def _connect(self) -> _Client:
        _, client = await asyncio.get_running_loop().create_connection(_Client, LOOPBACK, self._port)
        self._all.append(client)
        return client

"""An origin that fails on demand: `/mode/<word>` and signals say how, every other answer says who answered.

    /mode/ok            answers after LATENCY_S        /mode/slow      after 2 s, probes too
    /mode/flap          fails every third probe        /mode/503       503 at once, probes are well
    /mode/reset         half a body, then RST; probes are well
    /count              how many requests came, probes apart
    SIGUSR1             refuses: stops listening and drops its connections      SIGUSR2   listens again

One rule: it waits by timer, so that any number of requests wait side by side.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from bench.processes import LOOPBACK

LATENCY_S = 0.02
SLOW_S = 2.0
BROKEN_BYTES = 100_000  # what a body that breaks off was to have
BREAK_S = 0.01  # so that its beginning is read before the reset


class State:
    """What all connections share."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name.encode()
        self.port = port
        self.mode = b"ok"
        self.probes = self.requests = 0
        self.server: asyncio.Server | None = None
        self.open: set[asyncio.Transport] = set()

    async def listen(self) -> None:
        """Begin, or begin again."""
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: Origin(self), LOOPBACK, self.port, backlog=512)

    def refuse(self) -> None:
        """Nobody listens, nobody stays."""
        if self.server is not None:
            self.server.close()
        for transport in list(self.open):
            transport.abort()

    def answer(self, target: bytes) -> tuple[float, int]:
        """After how long, and which status."""
        probe = target == b"/healthz"
        if probe:
            self.probes += 1
        else:
            self.requests += 1
        if self.mode == b"flap" and probe and self.probes % 3 == 0:
            return 0.0, 500
        if self.mode == b"503" and not probe:
            return 0.0, 503
        return SLOW_S if self.mode == b"slow" else LATENCY_S, 200


class Origin(asyncio.Protocol):
    """One connection; requests without bodies, one at a time."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._state.open.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._state.open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        state = self._state
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            target = head.split(b" ", 2)[1]
            if target.startswith(b"/mode/"):
                state.mode = target.removeprefix(b"/mode/")
                self._send(200)
                continue
            if target == b"/count":
                self._send(200, b"%d" % state.requests)
                continue
            after_s, status = state.answer(target)
            asyncio.get_running_loop().call_later(after_s, self._work, status, target == b"/healthz")

    def _work(self, status: int, probe: bool) -> None:
        if self._state.mode == b"reset" and not probe and self._transport is not None:
            self._send(status, b"half", BROKEN_BYTES)
            asyncio.get_running_loop().call_later(BREAK_S, self._transport.abort)
        else:
            self._send(status)

    def _send(self, status: int, body: bytes = b"ok", length: int | None = None) -> None:
        if self._transport is not None and not self._transport.is_closing():
            head = b"HTTP/1.1 %d Told\r\nCache-Control: no-store\r\nX-Origin: %b\r\n" % (status, self._state.name)
            self._transport.write(head + b"Content-Length: %d\r\n\r\n%b" % (length or len(body), body))


async def serve(port: int, name: str) -> None:
    """Listen until the process is ended."""
    state = State(name, port)
    await state.listen()
    loop = asyncio.get_running_loop()
    again: set[asyncio.Task[None]] = set()
    loop.add_signal_handler(signal.SIGUSR1, state.refuse)
    loop.add_signal_handler(signal.SIGUSR2, lambda: again.add(loop.create_task(state.listen())))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))

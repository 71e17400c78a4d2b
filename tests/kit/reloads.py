"""Load and streams that must not notice anything: clients that ask without a break, WebSockets that speak.

One rule: everything that is not a whole good answer is kept as a failure with what was seen. A client that was silent
for so long that its connection may be closed begins a new one, as any client does.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections import Counter
from dataclasses import dataclass, field
from time import monotonic

from edge.dataplane.client.connection import QUIET_S
from kit.ports import LOOPBACK


@dataclass
class Load:
    """So many clients, each with a request at a time on a connection that is kept."""

    port: int
    host: str = "any.example"
    path: str = "/"
    done: int = 0
    failed: list[str] = field(default_factory=list)
    bodies: Counter[bytes] = field(default_factory=Counter)
    reconnects: int = 0
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, clients: int) -> None:
        """Until `stop`."""
        await asyncio.gather(*(self._client() for _ in range(clients)))

    async def _client(self) -> None:
        request = f"GET {self.path} HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode()
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        answered_at = 0.0
        while not self.stop.is_set():
            silent_s, head = 0.0, b""
            try:
                if streams is None:
                    streams = await asyncio.open_connection(LOOPBACK, self.port)
                else:
                    silent_s = monotonic() - answered_at
                reader, writer = streams
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
                answered_at = monotonic()
            except (OSError, EOFError, ValueError) as error:
                if silent_s < QUIET_S / 2 or head or getattr(error, "partial", b""):
                    self.failed.append(f"{type(error).__name__}: {error}")
                else:
                    self.reconnects += 1
                streams = None
                continue
            if not head.startswith(b"http/1.1 200"):
                self.failed.append(head.partition(b"\r\n")[0].decode())
            self.done += 1
            self.bodies[body] += 1
            if b"connection: close" in head:
                writer.close()
                streams = None
                self.reconnects += 1
        if streams is not None:
            streams[1].close()


class WebSocket:
    """A client that sends text and wants it back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def connect(cls, port: int, path: str = "/", host: str = "any.example") -> WebSocket:
        """Through the upgrade."""
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        return cls(reader, writer)

    async def echo(self, text: bytes) -> bytes:
        """What comes back; raises EOFError when the connection has ended."""
        self._writer.write(bytes((0x81, 0x80 | len(text))) + b"\0\0\0\0" + text)
        head, payload = await self.frame()
        assert head == 0x81, (head, payload)
        return payload

    async def frame(self) -> tuple[int, bytes]:
        """The next frame's first byte and payload."""
        head = await self._reader.readexactly(2)
        return head[0], await self._reader.readexactly(head[1])

    async def ended(self) -> bytes:
        """What else came until the end."""
        return await self._reader.read()

    def close(self) -> None:
        """At once."""
        self._writer.close()


class EchoServer:
    """An origin: answers its own name, and is a WebSocket that echoes. `closed` are the Close frames that came."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.port = 0
        self.closed: list[bytes] = []
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def start(self) -> EchoServer:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """End everything."""
        assert self._server is not None
        self._server.close()
        for task, writer in list(self._open.items()):
            writer.transport.abort()
            await asyncio.wait((task,))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        task.add_done_callback(lambda done: self._open.pop(done, None))
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"upgrade: websocket" in head.lower():
                    writer.write(
                        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                    )
                    await self._echo(reader, writer)
                    return
                writer.write(
                    b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(self.name), self.name)
                )
        except (OSError, EOFError):
            pass  # the other side has ended
        finally:
            writer.close()

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            first, second = await reader.readexactly(2)
            mask = await reader.readexactly(4)
            payload = await reader.readexactly(second & 0x7F)
            payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
            writer.write(bytes((first, len(payload))) + payload)
            if first & 0x0F == 8:
                self.closed.append(payload)
                return

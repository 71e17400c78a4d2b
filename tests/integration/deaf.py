"""An origin that takes nothing from its socket until told to: what the scripted one, which buffers, cannot show."""

from __future__ import annotations

import asyncio

from kit.origin import OK
from kit.ports import LOOPBACK


class DeafOrigin(asyncio.Protocol):
    """For one connection. After `listen` it reads; once `size` bytes of body have come it answers `ok`."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.received = 0
        self.port = 0
        self._deaf = True
        self._head = b""
        self._server: asyncio.Server | None = None
        self._transport: asyncio.Transport | None = None

    async def start(self) -> None:
        """Accept."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: self, LOOPBACK, 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """End everything."""
        if self._transport is not None:
            self._transport.abort()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def listen(self) -> None:
        """Read from now on."""
        self._deaf = False
        if self._transport is not None:
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._deaf:
            transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        if b"\r\n\r\n" not in self._head:
            self._head += data
            data = self._head.partition(b"\r\n\r\n")[2]
        self.received += len(data)
        if self.received == self.size and self._transport is not None:
            self._transport.write(OK)

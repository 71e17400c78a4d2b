"""The connections of the admin listener: how many there may be, and how long each may take.

    accepted ─► head within `head_s` ─► being answered ─► idle, at most `idle_s` ─► next head …

One rule: whoever is silent, slow or takes nothing of its answer is let go, and when there is no room, the one that has
waited longest without being answered makes room: silent connections cannot lock an operator out. Bytes go straight to
aiohttp's own handler; this only looks at the clock, once a second for all connections together.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import cast

from edge.adapters.unix_sockets import unix_socket

SWEEP_S = 1.0


class AdminConnections:
    """All connections of one listener. `serve` makes the aiohttp protocol that answers one of them."""

    def __init__(
        self,
        serve: Callable[[], asyncio.Protocol],
        most: int = 256,
        head_s: float = 10.0,
        idle_s: float = 60.0,
        write_s: float = 30.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._serve = serve
        self._most = most
        self._head_s = head_s
        self._idle_s = idle_s
        self._write_s = write_s
        self._clock = clock
        self._open: dict[asyncio.BaseTransport, AdminConnection] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._servers: list[asyncio.AbstractServer] = []
        self._paths: dict[Path, int] = {}
        self.refused = 0

    def __call__(self) -> AdminConnection:
        """A protocol for one connection."""
        return AdminConnection(self, self._serve())

    def __len__(self) -> int:
        return len(self._open)

    @property
    def now(self) -> float:
        """The clock's seconds."""
        return self._clock()

    def enter(self, connection: AdminConnection, transport: asyncio.Transport) -> bool:
        """Take a connection in, making room if need be. False when there is none."""
        if len(self._open) >= self._most:
            self.refused += 1
            waiting = [each for each in self._open.values() if not each.answering]
            if not waiting:
                return False
            self._let_go(min(waiting, key=lambda each: (each.served, each.since)))
        self._open[transport] = connection
        connection.deadline = self.now + self._head_s
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        return True

    def leave(self, transport: asyncio.BaseTransport) -> None:
        """A connection has ended: forget it."""
        self._open.pop(transport, None)

    def begin(self, transport: asyncio.BaseTransport | None) -> None:
        """A whole request head came and is being answered."""
        connection = self._open.get(transport) if transport is not None else None
        if connection is not None:
            connection.answering, connection.deadline = True, None

    def end(self, transport: asyncio.BaseTransport | None) -> None:
        """It was answered; the next head may come."""
        connection = self._open.get(transport) if transport is not None else None
        if connection is not None:
            connection.answering, connection.served, connection.fresh = False, True, True
            connection.deadline = self.now + self._idle_s

    def came(self, connection: AdminConnection) -> None:
        """The first bytes of another request came."""
        connection.fresh = False
        connection.deadline = self.now + self._head_s

    async def listen(
        self, host: str, port: int, sock: socket.socket | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        """Accept on a socket or an address. Raises OSError when that cannot be had."""
        loop, limit = asyncio.get_running_loop(), None if tls is None else self._head_s
        if sock is not None:
            server = await loop.create_server(self, sock=sock, ssl=tls, ssl_handshake_timeout=limit)
        else:
            server = await loop.create_server(self, host, port, ssl=tls, ssl_handshake_timeout=limit)
        self._servers.append(server)

    async def listen_unix(self, path: Path, succeeds: bool = False) -> None:
        """Accept on a socket of the owner alone. Raises OSError: in use, or no place for it."""
        sock = unix_socket(path, succeeds)
        self._servers.append(await asyncio.get_running_loop().create_unix_server(self, sock=sock))
        self._paths[path] = os.stat(path).st_ino

    def leave_listener(self) -> None:
        """Stop accepting; connections that are open are still answered."""
        for server in self._servers:
            server.close()
        for path, number in self._paths.items():
            with suppress(OSError):
                if os.stat(path).st_ino == number:  # else a successor has taken the place
                    path.unlink()
        self._servers, self._paths = [], {}

    def close(self) -> None:
        """Stop accepting, and stop the timer."""
        self.leave_listener()
        if self._timer is not None:
            self._timer.cancel()

    def _sweep(self) -> None:
        now = self.now
        for connection in list(self._open.values()):
            if (connection.deadline is not None and now >= connection.deadline) or connection.stuck(now, self._write_s):
                self._let_go(connection)
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep) if self._open else None

    def _let_go(self, connection: AdminConnection) -> None:
        if connection.transport is not None:
            self.leave(connection.transport)
            connection.transport.abort()


class AdminConnection(asyncio.Protocol):
    """One connection: looks at the bytes' times and passes them on to aiohttp's protocol."""

    def __init__(self, connections: AdminConnections, inner: asyncio.Protocol) -> None:
        self._connections = connections
        self._inner = inner
        self.transport: asyncio.Transport | None = None
        self.since = connections.now
        self.deadline: float | None = None
        self.answering = False
        self.served = False
        self.fresh = False  # nothing of the next request has come
        self._unsent = 0
        self._moved = self.since

    def stuck(self, now: float, write_s: float) -> bool:
        """Whether the client has taken nothing of its answer for `write_s` seconds."""
        unsent = self.transport.get_write_buffer_size() if self.transport is not None else 0
        if not unsent or not self._unsent or unsent < self._unsent:
            self._moved = now
        self._unsent = unsent
        return unsent > 0 and now - self._moved >= write_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        if not self._connections.enter(self, stream):
            stream.abort()
            return
        self.transport = stream
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self.transport is None:
            return
        if self.fresh:
            self._connections.came(self)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self.transport is not None else None

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is not None:
            self._connections.leave(self.transport)
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

"""One listening socket of a worker: what its new connections are, and how it goes.

One rule: connections that the kernel has taken in are served, also when the listener goes: what waits is accepted
before the socket is let go. Where the supervisor or a successor holds the same socket, the rest waits for them.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from edge.dataplane.client.accepted import Accepted
from edge.dataplane.client.connection import ClientConnection
from edge.dataplane.client.handshake import Handshake
from edge.dataplane.core.server_tls import ServerTls

if TYPE_CHECKING:
    from edge.dataplane.core.context import WorkerContext


class Listener:
    """`tls` and `h2c` are for the connections to come. `name` is the address as the configuration writes it."""

    __slots__ = ("_server", "bound", "h2c", "name", "tls", "worker")

    def __init__(self, worker: WorkerContext, name: str, tls: ServerTls | None, h2c: bool = False) -> None:
        self.worker = worker
        self.name = name
        self.tls = tls
        self.h2c = h2c
        self.bound: tuple[str, int] = ("", 0)
        self._server: asyncio.Server | None = None

    async def open(self, sock: socket.socket, backlog: int) -> None:
        """Accept; the server calls listen(2) itself, so it must be told the backlog."""
        self.bound = sock.getsockname()[:2]
        self._server = await asyncio.get_running_loop().create_server(self._front, sock=sock, backlog=backlog)

    def _front(self) -> Accepted:
        if self.tls is not None:
            return Handshake(self.worker, self.tls, self.h2c)
        return ClientConnection(self.worker, self.h2c)

    async def leave(self) -> None:
        """Accept what waits, then no more."""
        await asyncio.sleep(0)  # one turn of the loop accepts whatever is there
        self.close()

    def close(self) -> None:
        """Accept no more."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def has(self, downstream: Accepted) -> bool:
        """Whether a connection came in here."""
        local = downstream.transport.get_extra_info("sockname")
        wild = self.bound[0] in ("0.0.0.0", "::")
        return local is not None and local[1] == self.bound[1] and (wild or local[0] == self.bound[0])

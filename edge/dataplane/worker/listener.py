"""One listening socket of a worker: what its new connections are, and how it goes.

One rule: connections that the kernel has taken in are served, also when the listener goes: what waits is accepted
before the socket is let go. Where the supervisor or a successor holds the same socket, the rest waits for them.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from edge.dataplane.client.accepted import Accepted
from edge.dataplane.client.connection import ClientConnection
from edge.dataplane.client.handshake import Handshake
from edge.dataplane.client.proxied import ProxiedConnection
from edge.dataplane.core.server_tls import ServerTls
from edge.http.forwarding import Networks

if TYPE_CHECKING:
    from edge.dataplane.core.context import WorkerContext


def place_text(bound: tuple[str, int]) -> str:
    """`Listener.bound` for people."""
    host, port = bound
    return f"[{host}]:{port}" if ":" in host and port else f"{host}:{port}" if port else host


class Listener:
    """`tls`, `h2c` and `senders` (of PROXY headers) are for the connections to come. `name` is the address as the
    configuration writes it."""

    __slots__ = ("_server", "_sockname", "bound", "h2c", "name", "senders", "tls", "worker")

    def __init__(self, worker: WorkerContext, name: str, tls: ServerTls | None, h2c: bool = False) -> None:
        self.worker = worker
        self.name = name
        self.tls = tls
        self.h2c = h2c
        self.senders: Networks | None = None  # None: nobody sends them
        self.bound: tuple[str, int] = ("", 0)  # of a Unix socket its name, and no port
        self._sockname: object = None
        self._server: asyncio.Server | None = None

    async def open(self, sock: socket.socket, backlog: int) -> None:
        """Accept; the server calls listen(2) itself, so it must be told the backlog."""
        loop, self._sockname = asyncio.get_running_loop(), sock.getsockname()
        if sock.family == socket.AF_UNIX:
            self.bound = self.name, 0
            self._server = await loop.create_unix_server(self._accepted, sock=sock, backlog=backlog)
        else:
            self.bound = sock.getsockname()[:2]
            self._server = await loop.create_server(self._accepted, sock=sock, backlog=backlog)

    def _accepted(self) -> Any:  # a protocol by its methods
        if self.senders is None:
            return self._front()
        return ProxiedConnection(self.worker, self.senders, self._front)

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
        if not isinstance(local, tuple) or not isinstance(self._sockname, tuple):
            return bool(local == self._sockname)
        wild = self.bound[0] in ("0.0.0.0", "::")
        return local[1] == self.bound[1] and (wild or local[0] == self.bound[0])

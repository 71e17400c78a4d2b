"""One listener of a worker: on which sockets it accepts, what its new connections are, and how it goes.

One rule: connections that the kernel has taken in are served, also when the listener goes: what waits is accepted
before the socket is let go. Where the supervisor or a successor holds the same socket, the rest waits for them.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Collection, Sequence
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

    __slots__ = ("_servers", "_sockname", "bound", "h2c", "name", "senders", "tls", "worker")

    def __init__(self, worker: WorkerContext, name: str, tls: ServerTls | None, h2c: bool = False) -> None:
        self.worker = worker
        self.name = name
        self.tls = tls
        self.h2c = h2c
        self.senders: Networks | None = None  # None: nobody sends them
        self.bound: tuple[str, int] = ("", 0)  # of a Unix socket its name, and no port
        self._sockname: object = None
        self._servers: dict[int, asyncio.Server] = {}  # by the socket's number in the kernel, of all that are one

    async def accept_on(self, sockets: Sequence[socket.socket], backlog: int) -> None:
        """Accept on these, which are all of one address, and on no others any more."""
        wanted = {os.fstat(each.fileno()).st_ino: each for each in sockets}
        for number, sock in wanted.items():
            if number in self._servers:
                sock.close()
            else:
                self._servers[number] = await self._open(sock, backlog)
        await self._leave(self._servers.keys() - wanted.keys())

    async def _open(self, sock: socket.socket, backlog: int) -> asyncio.Server:
        """The server calls listen(2) itself, so it must be told the backlog."""
        loop, self._sockname = asyncio.get_running_loop(), sock.getsockname()
        if sock.family == socket.AF_UNIX:
            self.bound = self.name, 0
            return await loop.create_unix_server(self._accepted, sock=sock, backlog=backlog)
        self.bound = sock.getsockname()[:2]
        return await loop.create_server(self._accepted, sock=sock, backlog=backlog)

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
        await self._leave(self._servers.keys())

    async def _leave(self, numbers: Collection[int]) -> None:
        gone = [self._servers[each] for each in numbers]
        if gone:
            await asyncio.sleep(0)  # one turn of the loop accepts whatever is there
        self._servers = {number: each for number, each in self._servers.items() if number not in numbers}
        for each in gone:
            each.close()
        if gone:
            await asyncio.sleep(0)  # what was accepted becomes a connection in the turn after, and is known only then

    def close(self) -> None:
        """Stop accepting."""
        for each in self._servers.values():
            each.close()
        self._servers.clear()

    def has(self, downstream: Accepted) -> bool:
        """Whether a connection came in here."""
        local = downstream.transport.get_extra_info("sockname")
        if not isinstance(local, tuple) or not isinstance(self._sockname, tuple):
            return bool(local == self._sockname)
        wild = self.bound[0] in ("0.0.0.0", "::")
        return local[1] == self.bound[1] and (wild or local[0] == self.bound[0])

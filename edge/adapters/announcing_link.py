"""The connections to a backend that is told each client's address by a PROXY header.

    request of a client ─► kept for just this client? ─yes─► over that one
                             └─no─► a new connection: header, then TLS where it is spoken, then the request

One rule: a connection says at its start whose it is, so it never carries a request of which it would have said
anything else. It is kept for as long as its client's own connection is there, and for the pool's idle time at most.
"""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from edge.adapters.backend_link import BackendLink, Peer
from edge.adapters.dialing import dial
from edge.adapters.names import Names
from edge.adapters.upstream_connection import UpstreamConnection
from edge.http.grammar import Limits, ResponseFacts
from edge.http.memo import Memo
from edge.http.proxy_protocol import OWN, Version, header_of
from edge.ports import Connector, Timeouts


class AnnouncedConnection(UpstreamConnection):
    """A connection that began with a PROXY header, and the client connection that it belongs to."""

    __slots__ = ("client", "header")

    def __init__(self, link: AnnouncingLink, header: bytes, client: asyncio.BaseTransport | None) -> None:
        super().__init__(link)
        self.header = header
        self.client = client


class AnnouncingLink(BackendLink):
    """The connections of one worker to one backend of a pool with `proxy_protocol`."""

    __slots__ = ("_kept",)

    def __init__(
        self, peer: Peer, timeouts: Timeouts, limits: Limits, memo: Memo[ResponseFacts], names: Names | None = None
    ) -> None:
        super().__init__(peer, timeouts, limits, memo, names)
        self._kept: dict[bytes, list[AnnouncedConnection]] = {}  # idle ones, by what they said

    def take(self, waiter: Connector | None = None) -> UpstreamConnection | None:
        """The newest one that said of its client what would be said of this one."""
        kept = self._kept.get(self._header(waiter))
        while kept:
            connection = kept[-1]
            self.unkeep(connection)
            if not connection.transport.is_closing():
                return self.reuse(connection)
        return None

    def _header(self, waiter: Connector | None) -> bytes:
        ends = OWN if waiter is None else waiter.client
        return header_of(cast(Version, self.peer.proxy_protocol), ends.addresses)

    def keep(self, connection: UpstreamConnection) -> None:
        super().keep(connection)
        assert isinstance(connection, AnnouncedConnection)  # this link makes no others
        self._kept.setdefault(connection.header, []).append(connection)

    def unkeep(self, connection: UpstreamConnection) -> None:
        super().unkeep(connection)
        assert isinstance(connection, AnnouncedConnection)
        kept = self._kept[connection.header]
        kept.remove(connection)
        if not kept:
            del self._kept[connection.header]

    def tick(self, now: float) -> None:
        """As for any link; also ends connections whose client left."""
        super().tick(now)
        for connection in [each for kept in self._kept.values() for each in kept]:
            if connection.client is not None and connection.client.is_closing():
                connection.cancel()

    async def _reach(self, address: str, waiter: Connector, sock: socket.socket | None = None) -> UpstreamConnection:
        header, client = self._header(waiter), waiter.client
        try:
            sock = sock or await dial(address, self.peer.port)
            try:
                await asyncio.get_running_loop().sock_sendall(sock, header)
            except BaseException:
                sock.close()
                raise
        except OSError as failed:
            raise self.failure(failed) from None
        made = AnnouncedConnection(self, header, None if client.addresses is None else client.transport)
        return await self._begin(made, address, sock)

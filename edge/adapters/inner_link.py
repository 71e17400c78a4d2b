"""The gateway's connections to itself, for subrequests: kept for the client in whose name they are.

One rule: a connection tells whose requests it carries (limits, log, forwarding fields), so it never serves another
client's. At most `KEPT` wait in all; the gateway's own end closes what waits too long, as any client's.
"""

from __future__ import annotations

import asyncio
from typing import Any

from edge.adapters.memory_link import MemoryLink
from edge.adapters.upstream_connection import UpstreamConnection
from edge.http.grammar import Limits, ResponseFacts
from edge.http.memo import Memo
from edge.ports import Timeouts

KEPT = 64


class InnerConnection(UpstreamConnection):
    """A connection of the gateway to itself; `gateway` is the other end."""

    __slots__ = ("client", "gateway")

    def __init__(self, link: InnerLink, client: str, gateway: Any) -> None:
        super().__init__(link)
        self.client = client
        self.gateway = gateway


class InnerLink(MemoryLink):
    """The inner connections of one worker."""

    __slots__ = ("_count", "_kept")

    def __init__(self, timeouts: Timeouts, limits: Limits, memo: Memo[ResponseFacts]) -> None:
        super().__init__(asyncio.Protocol, timeouts, limits, memo)  # it never connects by itself
        self._kept: dict[str, list[InnerConnection]] = {}
        self._count = 0

    def take_for(self, client: str) -> InnerConnection | None:
        """A kept connection of this client, or None."""
        kept = self._kept.get(client)
        while kept:
            connection = kept.pop()
            self._count -= 1
            if not kept:
                del self._kept[client]
            if not connection.transport.is_closing() and not connection.gateway.transport.is_closing():
                return connection
        return None

    def give_back(self, connection: UpstreamConnection) -> None:
        assert isinstance(connection, InnerConnection)
        if self._count >= KEPT:
            connection.cancel()
            return
        self._count += 1
        self._kept.setdefault(connection.client, []).append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        super().forget(connection)
        assert isinstance(connection, InnerConnection)
        kept = self._kept.get(connection.client, [])
        if connection in kept:
            kept.remove(connection)
            self._count -= 1
            if not kept:
                del self._kept[connection.client]

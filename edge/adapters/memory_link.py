"""A link to a backend inside this process: connections like any other, over a transport in memory.

One rule: nothing above knows that the backend is near. Only how a connection is made differs from `BackendLink`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from edge.adapters.backend_link import BackendLink, Peer
from edge.adapters.memory_transport import join
from edge.adapters.upstream_connection import UpstreamConnection
from edge.errors import ConnectFailed
from edge.http.grammar import Limits, ResponseFacts
from edge.http.memo import Memo
from edge.ports import Connector, ResponseSink, Timeouts

CONNECTION = "edge.connection"  # the upstream end, as the other end's transport names it in `get_extra_info`
NOWHERE = Peer("localhost", 0)


class MemoryLink(BackendLink):
    """Connections whose other end is what `make` gives: a protocol of a server in this process."""

    __slots__ = ("_joined", "make")

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        timeouts: Timeouts,
        limits: Limits,
        memo: Memo[ResponseFacts],
        peer: Peer = NOWHERE,
    ) -> None:
        super().__init__(peer, timeouts, limits, memo)
        self._name = None  # nothing to look up
        self.make = make  # the other end of a new connection
        self._joined: dict[UpstreamConnection, Connector] = {}  # made, and not handed over yet

    def renew(self, other: BackendLink) -> bool:
        """As for any link; False for another application server."""
        return isinstance(other, MemoryLink) and self.make == other.make and super().renew(other)

    def connect(self, waiter: Connector, timeout: float) -> None:
        """A new connection, on the next turn of the loop; there is nothing to wait for."""
        self._retired = False
        loop = asyncio.get_running_loop()
        try:
            server = self.make()
        except Exception:  # such as a server that has ended; the waiter must hear
            loop.call_soon(waiter.on_failed, ConnectFailed("the application takes no connections"))
            return
        connection = self.new_connection()
        extra: dict[str, Any] = {CONNECTION: connection}
        join(connection, server, server_extra=extra)
        self.connections.add(connection)
        self._joined[connection] = waiter
        loop.call_soon(self._hand_over, connection)

    def new_connection(self) -> UpstreamConnection:
        """One that is not joined to anything yet."""
        return UpstreamConnection(self)

    def _hand_over(self, connection: UpstreamConnection) -> None:
        waiter = self._joined.pop(connection, None)
        if waiter is None:
            return
        try:
            waiter.on_connected(connection)
        except Exception as error:
            connection.cancel()
            waiter.on_bug(error)

    def open(self) -> list[ResponseSink | Connector]:
        """Whose request is at the backend, or waits for a connection to it; one for each."""
        return [*super().open(), *self._joined.values()]

    async def close(self) -> None:
        """Close all connections."""
        self._joined.clear()
        await super().close()

"""The applications of one worker: found by name in the configuration, loaded, and given to the pools as backends.

One rule: an application is loaded once for each worker, however many backends name it, and a configuration without one
never imports aiohttp's server into a worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edge.adapters.app_check import folders
from edge.config.loader import Config
from edge.dataplane.client.connection import ClientConnection
from edge.dataplane.client.onward import TIMEOUTS, Onward
from edge.errors import ConfigError
from edge.http.grammar import Limits, ResponseFacts
from edge.http.memo import Memo
from edge.ports import Connection, Timeouts

if TYPE_CHECKING:
    from edge.adapters.app_server import AppServer
    from edge.adapters.memory_link import MemoryLink
    from edge.dataplane.worker.worker import Worker


def named(config: Config) -> list[str]:
    """The applications that backends name, each once."""
    return list(dict.fromkeys(each.app for pool in config.pools.values() for each in pool.backends if each.app))


class Applications:
    """`worker` is set before a request comes; links are made before that."""

    def __init__(self, config: Config, filename: str, head: Limits, memo: Memo[ResponseFacts]) -> None:
        """Import them. Raises ConfigError with a line for each that cannot be used."""
        from edge.adapters.app_server import AppServer, AppUnusable, load  # only a worker that runs one pays for it

        self.worker: Worker = None  # type: ignore[assignment]
        self._head, self._memo = head, memo
        self._servers: dict[str, AppServer] = {}
        problems = []
        for name in named(config):
            try:
                self._servers[name] = AppServer(
                    name, load(name, folders(config.python_path, filename)), self._view, self._tell
                )
            except AppUnusable as error:
                problems.append(f"{filename}: {error.detail}")
        if problems:
            raise ConfigError(problems)
        self._onward = self.link(lambda: asyncio.Protocol(), TIMEOUTS)  # never connects by itself: see `_dial`

    async def start(self) -> None:
        """Run their start. Raises ConfigError."""
        from edge.adapters.app_server import AppUnusable

        for server in self._servers.values():
            try:
                await server.start()
            except AppUnusable as error:
                raise ConfigError([error.detail]) from None

    async def stop(self) -> None:
        """Run their clean-up."""
        for server in self._servers.values():
            await server.stop()

    def backend_link(self, name: str, timeouts: Timeouts) -> MemoryLink:
        """The link of a backend that is this application."""
        return self.link(self._servers[name].protocol, timeouts)

    def link(self, make: Callable[[], asyncio.Protocol], timeouts: Timeouts) -> MemoryLink:
        """A link in memory."""
        from edge.adapters.memory_link import MemoryLink

        return MemoryLink(make, timeouts, self._head, self._memo)

    # -- what applications ask -------------------------------------------------------------------------------------

    def _view(self, sink: Any, name: str) -> Onward:
        return Onward(sink, name, self._front, self._dial, self._tell)

    def _tell(self, kind: str, facts: dict[str, Any]) -> None:
        self.worker.tell(kind, facts)

    def _front(self, asked_by: tuple[bytes, ...]) -> ClientConnection:
        downstream = ClientConnection(self.worker)
        downstream.asked_by = asked_by
        return downstream

    def _dial(self, downstream: ClientConnection, client: str) -> Connection:
        """A connection to the gateway itself, in the name of this client."""
        from edge.adapters.memory_transport import join
        from edge.adapters.upstream_connection import UpstreamConnection

        connection = UpstreamConnection(self._onward)
        self._onward.connections.add(connection)
        join(connection, downstream, server_extra={"peername": (client, 0)})
        return connection

"""A backend connection that is one client's (`upstream.binding` says when it becomes so)."""

from __future__ import annotations

from edge.balance.backend import Backend
from edge.ports import Connection


class Bound:
    """What a client connection holds, to be ended when it goes."""

    __slots__ = ("backend", "client", "connection")

    def __init__(self, backend: Backend, connection: Connection, client: str) -> None:
        self.backend = backend
        self.connection = connection
        self.client = client

    def end(self) -> None:
        """Its client is gone, or is another one now."""
        self.connection.link.let_go(self.connection)

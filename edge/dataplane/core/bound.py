"""A backend connection that is one client's (`upstream.binding` says when it becomes so)."""

from __future__ import annotations

from edge.balance.backend import Backend
from edge.ports import Connection


class Bound:
    """A backend connection that belongs to one client connection and ends with it."""

    __slots__ = ("backend", "client", "connection")

    def __init__(self, backend: Backend, connection: Connection, client: str) -> None:
        self.backend = backend
        self.connection = connection
        self.client = client

    def end(self) -> None:
        """End it: the client has gone, or its identity has changed."""
        self.connection.link.let_go(self.connection)

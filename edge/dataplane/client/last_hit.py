"""A client connection as a fast hit sees it when its request asked for the connection to be closed.

One rule: the answer is that of the full way: it says `Connection: close`, and the connection ends behind it.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from edge.dataplane.core.downstream import WRITE_TOGETHER, Asking


class Closing(Asking, Protocol):
    """The connection, as far as a last hit needs it."""

    transport: asyncio.Transport

    def finish(self) -> None: ...
    def part(self) -> None: ...


class LastHit:
    """Stands in for the connection in `try_fast_hit` (`Asking`)."""

    __slots__ = (
        "_connection",
        "key_host",
        "key_start",
        "logged",
        "peer_bytes",
        "scheme",
        "shown_names",
        "spoken",
        "trusted",
        "version",
        "worker",
    )

    def __init__(self, connection: Closing) -> None:
        self._connection = connection
        self.key_host: bytes | None = None  # one request only: nothing is worth remembering
        self.key_start = b""
        self.worker, self.scheme, self.version = connection.worker, connection.scheme, connection.version
        self.trusted, self.shown_names = connection.trusted, connection.shown_names
        self.logged, self.peer_bytes, self.spoken = connection.logged, connection.peer_bytes, connection.spoken

    def send_stored(self, wire: bytes, chunks: tuple[bytes, ...], length: int, age: float, ttl: float) -> None:
        """Write the answer, then close: politely, where a part of it may wait for the client."""
        connection = self._connection
        lines = b"%bAge: %d\r\nCache-Status: edge; hit; ttl=%d\r\nConnection: close\r\n\r\n" % (wire, age, ttl)
        connection.transport.write(b"".join((lines, *chunks)))
        if length > WRITE_TOGETHER:
            connection.finish()
        else:
            connection.part()

"""A client connection as a fast hit sees it when its request asked for the connection to be closed.

One rule: the answer is that of the full way: it says `Connection: close`, and the connection ends behind it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol


class Closing(Protocol):
    """The connection."""

    transport: asyncio.Transport

    def finish(self) -> None: ...


class LastHit:
    """Stands in for the connection in `try_fast_hit` (`Asking`); what it does not know, the connection does."""

    __slots__ = ("_connection", "key_host", "key_start")

    def __init__(self, connection: Closing) -> None:
        self._connection = connection
        self.key_host: bytes | None = None  # one request only: nothing is worth remembering
        self.key_start = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def send_stored(self, wire: bytes, chunks: tuple[bytes, ...], length: int, age: float, ttl: float) -> None:
        """Write the answer, then close politely."""
        connection = self._connection
        lines = b"%bAge: %d\r\nCache-Status: edge; hit; ttl=%d\r\nConnection: close\r\n\r\n" % (wire, age, ttl)
        connection.transport.write(b"".join((lines, *chunks)))
        connection.finish()

"""The server side of an origin that is asked by GET, one request after the other on a connection.

One rule: it knows nothing of HTTP but where a head ends and what its target is; an answer is bytes.
"""

from __future__ import annotations

import asyncio


class PlainOrigin(asyncio.Protocol):
    """One connection; requests without bodies. Subclasses answer in `asked`."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            self.asked(head.split(b" ", 2)[1])

    def asked(self, target: bytes) -> None:
        """Answer a request for this target, now or later."""
        raise NotImplementedError

    def send(self, answer: bytes) -> bool:
        """Write bytes; False when the client has left."""
        if self._transport is None or self._transport.is_closing():
            return False
        self._transport.write(answer)
        return True

    def abort(self) -> None:
        """Reset the connection."""
        if self._transport is not None:
            self._transport.abort()

"""Taking bytes from a client, which several things may stop at once.

One rule: bytes are taken only while nothing stands against it. Each reason is a bit of its own, so that the end of one
never starts what another one stopped.
"""

from __future__ import annotations

import asyncio

UPSTREAM, OUTPUT, PIPELINE, TURN = 1, 2, 4, 8  # backend slow; client slow; enough requests wait; a later turn's work
ALL = UPSTREAM | OUTPUT | PIPELINE | TURN


class Reading:
    """The reading half of a client connection (an `asyncio.Protocol` by its methods)."""

    __slots__ = ("_buffer", "_holds", "_reading", "transport")

    def __init__(self) -> None:
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made
        self._buffer = b""  # what came and waits
        self._holds = 0
        self._reading = True

    def stop_reading(self, why: int = UPSTREAM) -> None:
        """Stop reading until `start_reading` is called with the same `why` (one bit)."""
        self._holds |= why
        if self._reading and not self.transport.is_closing():
            self._reading = False
            self.transport.pause_reading()

    def start_reading(self, why: int = UPSTREAM) -> None:
        """Remove the reason `why`; reading resumes when it was the last one."""
        self._holds &= ~why
        if not self._holds and not self._reading and not self.transport.is_closing():
            self._reading = True
            self.transport.resume_reading()

    def take_buffer(self) -> bytes:
        """Return the buffered bytes and forget them."""
        data, self._buffer = self._buffer, b""
        return data

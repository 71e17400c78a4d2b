"""An asyncio protocol that remembers what happens to it, for tests of transports."""

from __future__ import annotations

import asyncio


class RecordingProtocol(asyncio.Protocol):
    """`pieces` is the data as it came; `notes` is everything else, a word for each call, in order."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.notes: list[str] = []

    @property
    def got(self) -> bytes:
        """All data."""
        return b"".join(self.pieces)

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)

    def eof_received(self) -> bool | None:
        self.notes.append("eof")
        return None

    def pause_writing(self) -> None:
        self.notes.append("pause")

    def resume_writing(self) -> None:
        self.notes.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.notes.append("lost")

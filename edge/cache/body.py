"""A body that is kept in a file of its own: what a stored response remembers of it instead of the bytes.

One rule: the name is the content. Two responses with the same bytes have the same name and so the same file, and what
is read is checked piece by piece before a byte of it is sent.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.cache.checksum import crc32

PIECE_BYTES = 256 * 1024  # a body is read, checked and sent in pieces of this size
NAME_BYTES = 32
_SUM_BYTES = 4


@dataclass(frozen=True, slots=True)
class BodyFile:
    """`name` is the SHA-256 of the body; `sums` holds the CRC-32 of each piece, four bytes each."""

    name: bytes
    length: int
    sums: bytes

    def checks(self, piece: int, data: bytes | bytearray) -> bool:
        """Whether `data` has the checksum of this piece; pieces count from 0."""
        at = piece * _SUM_BYTES
        told = int.from_bytes(self.sums[at : at + _SUM_BYTES], "big")
        return len(data) == self.size_of(piece) and crc32(data) == told

    def size_of(self, piece: int) -> int:
        """The length of a piece in bytes: the last one may be shorter."""
        return min(PIECE_BYTES, self.length - piece * PIECE_BYTES)


def sums_of(data: bytes) -> bytes:
    """The CRC-32 of each piece of a whole body, four bytes each."""
    view = memoryview(data)
    return b"".join(
        crc32(view[at : at + PIECE_BYTES]).to_bytes(_SUM_BYTES, "big") for at in range(0, len(data), PIECE_BYTES)
    )

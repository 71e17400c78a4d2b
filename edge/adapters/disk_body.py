"""Bodies in files of their own: written piece by piece under a temporary name, read piece by piece with their sums.

One rule: a piece that does not fit its sum is never given out. A piece that this process has checked once is not
checked again while it comes from the page cache and the file has not been touched; what comes from the disk is.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from hashlib import sha256
from itertools import count
from pathlib import Path

from edge.adapters.disk_files import Cold, FileOps, read_at
from edge.adapters.disk_place import READ, Place
from edge.cache.body import PIECE_BYTES, BodyFile
from edge.cache.checksum import crc32
from edge.cache.record import Damaged

MAX_KNOWN = 4096  # bodies whose checked pieces are remembered
_numbers = count(1)

Checked = OrderedDict[tuple[bytes, int, int], bytearray]


def temp_name() -> str:
    """A name for a temporary file that is unique over all processes."""
    return f"{os.getpid()}-{next(_numbers)}"


class BodyWriter:
    """One body being written to its temporary file. Blocking; belongs to the writer's thread."""

    def __init__(self, place: Place, temp: str, ops: FileOps) -> None:
        self.temp = temp
        self.length = 0
        self._ops = ops
        self._fd = ops.open(place.temp(temp))
        self._hash = sha256()
        self._sums = bytearray()
        self._sum = 0  # of the piece that is not yet whole

    def write(self, data: bytes) -> None:
        """Append `data` and update hash and checksums. Raises OSError."""
        self._ops.write(self._fd, data, self.length)
        self._hash.update(data)
        view = memoryview(data)
        while view:
            room = PIECE_BYTES - self.length % PIECE_BYTES
            part, view = view[:room], view[room:]
            self._sum = crc32(part, self._sum)
            self.length += len(part)
            if self.length % PIECE_BYTES == 0:
                self._end_piece()

    def _end_piece(self) -> None:
        self._sums += self._sum.to_bytes(4, "big")
        self._sum = 0

    def finish(self) -> BodyFile:
        """Close the file; returns SHA-256, length in bytes, and one CRC-32 per piece."""
        if self.length % PIECE_BYTES:
            self._end_piece()
        self.close()
        return BodyFile(self._hash.digest(), self.length, bytes(self._sums))

    def close(self) -> None:
        """Close the file; harmless when done already."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class OpenBody:
    """A body file that is being served, in pieces of PIECE_BYTES."""

    __slots__ = ("_checked", "_fd", "_touched", "file")

    def __init__(self, file: BodyFile, path: Path, checked: Checked) -> None:
        """Raises OSError where the file is missing, Damaged where its length is wrong."""
        self.file = file
        self._fd = os.open(path, READ)
        found = os.fstat(self._fd)
        if found.st_size != file.length:
            self.close()
            raise Damaged(f"body of {found.st_size} bytes instead of {file.length}")
        self._touched = found.st_mtime_ns, found.st_ctime_ns
        key = (file.name, *self._touched)
        known = checked.get(key)
        if known is None:
            known = checked[key] = bytearray(-(-file.length // PIECE_BYTES))
            if len(checked) > MAX_KNOWN:
                checked.popitem(last=False)
        self._checked = known

    def quick(self, number: int) -> bytes | bytearray | Exception | None:
        """Piece `number` if the page cache has it, None if reading would wait for the disk, or the error."""
        try:
            return self.piece(number, wait=False)
        except Cold:
            return None
        except (OSError, Damaged) as error:
            return error

    def piece(self, number: int, wait: bool) -> bytes | bytearray:
        """Piece `number`, checked against its CRC-32.

        Raises Cold where reading would wait for the disk and `wait` is false; Damaged; OSError.
        """
        data = read_at(self._fd, self.file.size_of(number), number * PIECE_BYTES, wait)
        if wait or not self._checked[number] or self._is_touched():
            if not self.file.checks(number, data):
                raise Damaged("a piece of a body does not fit its checksum")
            self._checked[number] = 1
        return data

    def _is_touched(self) -> bool:
        """Whether somebody has written to the file since it was opened."""
        found = os.fstat(self._fd)
        return (found.st_mtime_ns, found.st_ctime_ns) != self._touched

    def close(self) -> None:
        """Close the file; harmless when done already."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


__all__ = ["Checked", "Cold", "Damaged", "OpenBody", "temp_name"]

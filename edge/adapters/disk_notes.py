"""What workers have been told to forget and the index of the disk tier still has, in files that outlive them.

    <path>/store/notes/<process>   one for each worker: a kind, a length and a name for each purge

One rule: a note is there before the request that asked for it is answered, and goes when the index obeys it. The file
is locked for as long as its worker lives: the lock tells who is dead, since another process may have its number.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from edge.adapters.disk_place import READ, Place
from edge.cache.purge import Purge, PurgeKind


class Notes:
    """One worker's notes. Appending is one write to the page cache, which outlives the process."""

    __slots__ = ("_empty", "_fd", "path")

    def __init__(self, place: Place) -> None:
        self.path = place.store / "notes" / str(os.getpid())
        self.path.parent.mkdir(exist_ok=True)
        self._fd = _held(self.path)
        self._empty = not os.fstat(self._fd).st_size

    def add(self, purge: Purge) -> None:
        """Append a purge."""
        self._empty = False
        kind = b"u" if purge.kind is PurgeKind.URL else b"t"
        os.write(self._fd, (kind.upper() if purge.soft else kind) + len(purge.value).to_bytes(4, "big") + purge.value)

    def clear(self) -> None:
        """All purges are in the index: empty the file. An empty one is left alone: cutting it may wait for the disk."""
        if not self._empty:
            os.ftruncate(self._fd, 0)
            self._empty = True

    def close(self) -> None:
        """Close the file; delete it if it is empty. Harmless when called again, also from two threads at once."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        with suppress(FileNotFoundError):  # another one was quicker
            if not self.path.stat().st_size:
                self.path.unlink()


def _held(path: Path) -> int:
    """The file open and locked; made again where somebody took it for a dead worker's between the two."""
    while True:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(fd).st_ino:
                return fd
        os.close(fd)


def noted(place: Place) -> Iterator[tuple[Path, list[tuple[Purge, float]]]]:
    """Purges that dead workers had not yet applied, by file; applying one twice does no harm."""
    for path in sorted((place.store / "notes").glob("[0-9]*")):
        # Gone just now, or its worker is alive.
        with suppress(FileNotFoundError, BlockingIOError), os.fdopen(os.open(path, READ), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            data = file.read()
            if data:
                yield path, _purges_in(data, os.fstat(file.fileno()).st_mtime)
            else:  # it may be that of a worker that is about to lock it, and then makes another
                path.unlink(missing_ok=True)


def _purges_in(data: bytes, when: float) -> list[tuple[Purge, float]]:
    """The notes in a file that was last written to at this time; the last one may be cut."""
    at, found = 0, []
    while at + 5 <= len(data):
        length = int.from_bytes(data[at + 1 : at + 5], "big")
        kind, value = data[at : at + 1], data[at + 5 : at + 5 + length]
        at += 5 + length
        if len(value) == length:
            found.append((Purge(PurgeKind.URL if kind in b"uU" else PurgeKind.TAG, value, kind.isupper()), when))
    return found

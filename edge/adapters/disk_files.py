"""The disk tier's files: segments of packed records, and bodies that are too large to be packed.

One rule: every change of a file goes through `FileOps`, one call for each, in an order in which stopping after any of
them leaves a store that is whole: what nothing points to yet is written first, what nothing points to any more goes
last. (The tests stop after each of them.)

Reading says at once when the page cache does not have the bytes (`RWF_NOWAIT`), so that no loop waits for a disk.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

from edge.adapters.disk_place import READ, Place

MAX_OPEN = 256  # segments that a reader keeps open
BUFFER = 128 * 1024  # most records are smaller
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)


class FileOps:
    """The file operations of the tier; tests replace them to stop between two."""

    def open(self, path: Path) -> int:
        """Open for writing; the file is created if it is missing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, fd: int, data: bytes, at: int) -> None:
        """Write all of `data` at offset `at`. Raises OSError."""
        view = memoryview(data)
        while view:
            done = os.pwrite(fd, view, at)
            view, at = view[done:], at + done

    def truncate(self, fd: int, length: int) -> None:
        """Cut the file to `length` bytes."""
        os.ftruncate(fd, length)

    def rename(self, old: Path, new: Path) -> None:
        """Rename, replacing a file of the new name."""
        new.parent.mkdir(parents=True, exist_ok=True)
        old.replace(new)

    def unlink(self, path: Path) -> None:
        """Delete the file if it exists."""
        path.unlink(missing_ok=True)


def make_file(ops: FileOps, path: Path, data: bytes) -> None:
    """Make a file of these bytes. Raises OSError."""
    descriptor = ops.open(path)
    try:
        ops.write(descriptor, data, 0)
    finally:
        os.close(descriptor)


class Cold(Exception):
    """The page cache does not have the bytes: read them in a thread."""


def read_at(fd: int, length: int, at: int, wait: bool) -> bytes | bytearray:
    """Up to `length` bytes at offset `at`; fewer at the end of the file.

    Raises Cold where reading would wait for the disk and `wait` is false.
    """
    if wait:
        return os.pread(fd, length, at)
    if not _NOWAIT:
        raise Cold
    buffer = bytearray(length)
    try:
        count = os.preadv(fd, [buffer], at, _NOWAIT)
    except BlockingIOError:
        raise Cold from None
    except OSError:  # a filesystem that cannot tell
        raise Cold from None
    if count < length:
        if at + count < os.fstat(fd).st_size:
            raise Cold
        del buffer[count:]
    return buffer


class Segments:
    """Segment files that one thread keeps open for reading."""

    __slots__ = ("_into", "_open", "_place")

    def __init__(self, place: Place) -> None:
        self._place = place
        self._into = memoryview(bytearray(BUFFER))  # used again and again: a new one would be zeroed each time
        self._open: OrderedDict[int, int] = OrderedDict()

    def read(self, segment: int, at: int, length: int, wait: bool) -> bytes:
        """The bytes of a record. Raises Cold, or OSError (FileNotFoundError: the segment was evicted)."""
        fd = self._open.get(segment)
        if fd is None:
            fd = os.open(self._place.segment(segment), READ)
            self._open[segment] = fd
            if len(self._open) > MAX_OPEN:
                os.close(self._open.popitem(last=False)[1])
        if wait or length > BUFFER or not _NOWAIT:
            return bytes(read_at(fd, length, at, wait))
        into = self._into[:length]
        try:
            if os.preadv(fd, (into,), at, _NOWAIT) == length:
                return into.tobytes()
        except OSError:
            raise Cold from None
        return bytes(read_at(fd, length, at, wait))  # cut there, or not all of it is in the page cache

    def let_go(self) -> None:
        """Close segments that were deleted meanwhile: an open file keeps its space on the disk."""
        for segment, fd in list(self._open.items()):
            if not os.fstat(fd).st_nlink:
                os.close(fd)
                del self._open[segment]

    def close(self) -> None:
        """Close all segments."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()


def read_ahead(path: Path) -> None:
    """Ask the kernel to read a file; of a large one that alone may take a while."""
    try:
        fd = os.open(path, READ)
    except OSError:
        return
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(fd)

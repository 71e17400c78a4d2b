"""Which version of the disk tier's index stands: what a worker has read of it holds as long as that is the same.

    <path>/store/version   eight bytes: even, a version; odd, somebody changes the index or was killed while doing so

One rule: whoever changes the index makes it odd before and even after, inside its turn. So an even one that is the same
as at the last look means that nothing has changed since; asking costs a read of eight bytes from the page cache.
"""

from __future__ import annotations

import os

from edge.adapters.disk_files import FileOps
from edge.adapters.disk_place import Place

_BYTES = 8


class Version:
    """One user's access to the version."""

    __slots__ = ("_fd", "_ops")

    def __init__(self, place: Place, ops: FileOps | None = None) -> None:
        self._ops = ops or FileOps()
        self._fd = os.open(place.store / "version", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def now(self) -> bytes | None:
        """The current version; None while the index is being changed."""
        found = os.pread(self._fd, _BYTES, 0)
        return None if found and found[-1] & 1 else found

    def begin(self) -> int:
        """Mark the index as changing; inside the turn. Pass the result to `end`."""
        number = int.from_bytes(os.pread(self._fd, _BYTES, 0), "big") | 1
        self._ops.write(self._fd, number.to_bytes(_BYTES, "big"), 0)
        return number

    def end(self, number: int) -> None:
        """Mark the change as done."""
        self._ops.write(self._fd, (number + 1).to_bytes(_BYTES, "big"), 0)

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

"""Bodies that are written to the disk tier while they stream, instead of being kept in memory.

    loop: write, finish, abort ─► pieces ─► the writer's thread: room, temporary file ─► done or drained, on the loop

One rule: what waits to be written is bounded. A source that is faster than the disk is held back, and a body that
finds no room, or a disk that fails, is told to its owner, who goes on without a copy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic

from edge.adapters.disk_body import BodyWriter, temp_name
from edge.adapters.disk_changes import Changer
from edge.adapters.disk_files import FileOps
from edge.adapters.disk_place import Place
from edge.cache.body import BodyFile

SPILL_STEP = 8 * 1024 * 1024  # reserved at a time where the length is not known
SPILL_FULL = 4 * 1024 * 1024  # bytes that wait to be written before its source is held back

Call = Callable[[Callable[[], None]], None]


class Spill:
    """A body written to disk while it streams, instead of being kept in memory. Belongs to the loop."""

    def __init__(self, wake: Callable[[Spill], None], length: int | None) -> None:
        self.length = length
        self.failed = False
        self.done: Callable[[BodyFile | None, str], None] | None = None
        self.drained: Callable[[], None] | None = None
        self.given = 0  # bytes, counted by the loop
        self.taken = 0  # bytes, counted by the thread
        self.pieces: deque[bytes | None] = deque()  # None: the end
        self.moved_at = monotonic()
        self._wake = wake
        self.target: BodyWriter | None = None  # the thread's
        self.reserved = 0

    @property
    def full(self) -> bool:
        """The disk is too slow: pause the source until `drained` is called."""
        return self.given - self.taken > SPILL_FULL and not self.failed

    def write(self, data: bytes) -> None:
        """Append a piece."""
        self.given += len(data)
        self.pieces.append(data)
        self._wake(self)

    def finish(self, done: Callable[[BodyFile | None, str], None]) -> None:
        """The body is complete: `done` is called with its file, or None when it could not be written."""
        self.done = done
        self.pieces.append(None)
        self._wake(self)

    def abort(self) -> None:
        """Drop the body."""
        self.failed = True
        self._wake(self)


class SpillWriter:
    """The thread's side of spills. `call` schedules a function on the loop; `forsake` has a temporary file deleted."""

    def __init__(
        self, place: Place, changer: Changer, ops: FileOps, call: Call, forsake: Callable[[str], None]
    ) -> None:
        self._place, self._changer, self._ops = place, changer, ops
        self._call, self._forsake = call, forsake

    def write(self, spill: Spill) -> None:
        """Write the data that a spill has received. Raises sqlite3.Error, OSError, NoRoom; then `end` it."""
        if spill.failed:
            self.end(spill)
            return
        if spill.target is None:
            temp = temp_name()
            spill.reserved = SPILL_STEP if spill.length is None else spill.length
            self._changer.reserve(temp, spill.reserved)
            spill.target = BodyWriter(self._place, temp, self._ops)
        while spill.pieces:
            piece = spill.pieces.popleft()
            if piece is None:
                if spill.done is not None:
                    self._call(partial(spill.done, spill.target.finish(), spill.target.temp))
                return
            if spill.target.length + len(piece) > spill.reserved:
                spill.reserved += SPILL_STEP
                self._changer.reserve(spill.target.temp, spill.reserved)
            spill.target.write(piece)
            was_full = spill.full
            spill.taken += len(piece)
            spill.moved_at = monotonic()
            if was_full and not spill.full and spill.drained is not None:
                self._call(spill.drained)

    def end(self, spill: Spill) -> None:
        """Give a spill up and tell its owner."""
        spill.failed = True
        spill.pieces.clear()
        target, spill.target = spill.target, None
        if target is not None:
            target.close()
            self._forsake(target.temp)
        if spill.drained is not None:
            self._call(spill.drained)
        if spill.done is not None:
            self._call(partial(spill.done, None, ""))

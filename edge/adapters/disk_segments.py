"""The segments that one process writes: one on trial for new records, one of main for what eviction keeps.

One rule: bytes are appended before a row points to them, inside the turn. What was appended and not committed is cut
off again; where the process is killed first, it counts with its segment at the next start.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge.adapters.disk_files import FileOps
from edge.adapters.disk_place import Place
from edge.adapters.disk_room import blocks
from edge.adapters.disk_rows import Addition

TRIAL, MAIN = 0, 1
WRITE_BYTES = 128 * 1024  # written at a time


@dataclass(slots=True)
class _Open:
    """A segment that is being written. `charge`: its bytes, and those of the bodies that its records name."""

    id: int
    fd: int
    bytes: int = 0
    charge: int = 0


class SegmentWriter:
    """All calls are made inside the turn."""

    def __init__(
        self, place: Place, db: sqlite3.Connection, ops: FileOps, size: int, breathe: Callable[[], None]
    ) -> None:
        self._place, self._db, self._ops, self._size, self._breathe = place, db, ops, size, breathe
        self._open: dict[int, _Open] = {}

    def append(self, additions: Sequence[Addition]) -> list[tuple[int, int, int]]:
        """Append their records on trial; returns segment, offset and length of each."""
        places: list[tuple[int, int, int]] = []
        waiting: list[bytes] = []
        size = 0
        segment = self._current(TRIAL) if additions else None
        for each in additions:
            assert segment is not None
            if size >= WRITE_BYTES or segment.charge >= self._size:
                self._flush(segment, waiting)
                segment, size = self._current(TRIAL), 0
            places.append((segment.id, segment.bytes + size, each.length))
            waiting.append(each.record)
            waiting += each.rest
            size += each.length
            segment.charge += each.length + (0 if each.body is None else blocks(each.body.length))
        if segment is not None:
            self._flush(segment, waiting)
        return places

    def _flush(self, segment: _Open, waiting: list[bytes]) -> None:
        data = b"".join(waiting)
        self._ops.write(segment.fd, data, segment.bytes)
        segment.bytes += len(data)
        waiting.clear()
        self._breathe()

    def append_main(self, record: bytes, body: int) -> tuple[int, int]:
        """Append one record to main, also inside a transaction; returns its segment and offset."""
        segment = self._current(MAIN)
        at = segment.bytes
        self._ops.write(segment.fd, record, at)
        segment.bytes += len(record)
        segment.charge += len(record) + body
        return segment.id, at

    def _current(self, main: int) -> _Open:
        """The segment that is being written, or a new one."""
        found = self._open.get(main)
        if found is not None:
            kept = self._db.execute("SELECT 1 FROM segments WHERE id = ?", (found.id,)).fetchone()
            if kept is not None and found.charge < self._size:
                return found
            self.note()
            self.end(main)
        number = self._db.execute("INSERT INTO segments (main, bytes, charge) VALUES (?, 0, 0)", (main,)).lastrowid or 0
        made = self._open[main] = _Open(number, self._ops.open(self._place.segment(number)))
        return made

    def main(self) -> int:
        """The number of the main segment that is being written; 0: there is none."""
        found = self._open.get(MAIN)
        return 0 if found is None else found.id

    def end(self, main: int) -> None:
        """Write no more to the segment on trial, or of main."""
        os.close(self._open.pop(main).fd)

    def note(self) -> None:
        """Tell the index how large they are."""
        for each in self._open.values():
            self._db.execute(
                "UPDATE segments SET bytes = ?, charge = ? WHERE id = ?", (each.bytes, each.charge, each.id)
            )

    def forget(self) -> None:
        """Cut off what was appended but not committed, and write no more to them."""
        for each in self._open.values():
            try:
                kept = self._db.execute("SELECT bytes FROM segments WHERE id = ?", (each.id,)).fetchone()
                self._ops.truncate(each.fd, 0 if kept is None else kept[0])
            except (OSError, sqlite3.Error):
                pass  # the next start looks how long the file is
        self.close()

    def close(self) -> None:
        """Close their files; harmless when done already."""
        for each in self._open.values():
            os.close(each.fd)
        self._open.clear()

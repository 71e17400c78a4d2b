"""Making a disk tier of a recovery point's entries: with their bodies, or with records alone, whose bodies come later.

One rule: a rebuilt tier serves nothing that a purge may have touched. Each record keeps the number of the last purge
that it was fetched after, never a higher one than the journal has; where purges may be unknown (`distrust`), every
response is marked as one that needs validation before each use, so that no window of staleness applies to it either.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from edge.adapters.disk_awaited import begin_awaiting
from edge.adapters.disk_body import temp_name
from edge.adapters.disk_changes import ROW_BYTES, Changer, Changes
from edge.adapters.disk_files import FileOps, make_file
from edge.adapters.disk_place import Place, TierError
from edge.adapters.disk_room import Limits, NoRoom, blocks
from edge.adapters.disk_rows import Addition
from edge.adapters.disk_start import open_place
from edge.adapters.disk_writer import PACKED_BYTES
from edge.cache.body import BodyFile
from edge.cache.record import Damaged, decode, distrusted, holding
from edge.cache.stored import Stored
from edge.recovery.table import Entry, Table

BATCH_BYTES = 16 * 1024 * 1024
BATCH_ROWS = 256
RECORDS = 2048  # in a batch without bodies
WRITERS = 4


def rebuild(
    limits: Limits, entries: Table, bodies: Iterator[tuple[bytes, bytes]], folder: Path, number: int, distrust: bool
) -> int:
    """Make a tier of entries in an empty directory; how many it has. `number`: the journal's last purge."""
    place = open_place(folder)
    changer = Changer(place, limits)
    rebuilding = _Rebuilding(place, changer, number, distrust)
    rebuilding.tight = not _fits(changer, entries)
    by_blob: dict[bytes, list[Entry]] = {}
    try:
        for entry in entries.values():
            if entry.blob:
                by_blob.setdefault(entry.blob, []).append(entry)
            else:
                rebuilding.add(entry, b"")
        for blob, body in bodies:
            for entry in by_blob.get(blob, ()):
                rebuilding.add(entry, body)
        rebuilding.flush()
        with changer.turn(), changer.transaction():
            changer.note_purged(number)
    finally:
        rebuilding.close()
        changer.close()
    return rebuilding.count


def expecting(limits: Limits, entries: Table, folder: Path, number: int, distrust: bool, point: str) -> bool:
    """Make a tier of records whose bodies are awaited; False, and nothing is made, where not all would have room."""
    place = open_place(folder)
    changer = Changer(place, limits)
    try:
        if not _fits(changer, entries):
            return False
        waiting: list[Entry] = []
        for entry in entries.values():
            waiting.append(entry)
            if len(waiting) == RECORDS:
                _expect(changer, waiting, number, distrust)
                waiting = []
        _expect(changer, waiting, number, distrust)
        with changer.turn(), changer.transaction():
            changer.note_purged(number)
        begin_awaiting(place, point)
    except (sqlite3.Error, OSError) as error:
        raise TierError(f"disk cache {folder}: {error}") from None
    finally:
        changer.close()
    return True


def _expect(changer: Changer, entries: Iterable[Entry], number: int, distrust: bool) -> None:
    additions = []
    for entry in entries:
        record = distrusted(entry.data, number, distrust)
        stored = _decoded(record)
        additions.append(Addition(stored, record, stored.file))
    changer.expect([each.body for each in additions if each.body is not None])
    changer.apply(Changes(additions))


def _decoded(record: bytes) -> Stored:
    try:
        return decode(record).stored
    except Damaged as error:
        raise TierError(f"a cached response in the point cannot be read ({error}): restore an older point") from None


class _Rebuilding:
    """Records on their way into a new tier, batch by batch."""

    def __init__(self, place: Place, changer: Changer, number: int, distrust: bool) -> None:
        self.count = 0
        self.tight = True  # room is made for each body; it need not be where all of them fit together
        self._place, self._changer, self._number, self._distrust = place, changer, number, distrust
        self._ops = FileOps()
        self._batch = Changes()
        self._bytes = 0
        self._written: set[bytes] = set()
        # Making a file waits for the file system; bodies are read and compared meanwhile.
        self._pool = ThreadPoolExecutor(WRITERS, "rebuild")
        self._writing: list[Future[None]] = []

    def add(self, entry: Entry, body: bytes) -> None:
        """One response. Raises TierError where it is no record, or there is no room."""
        stored = _decoded(entry.data)
        record = distrusted(entry.data, self._number, self._distrust)
        file = stored.file
        if file is None:
            self._batch.additions.append(Addition(stored, record))
        elif file.length > PACKED_BYTES:
            self._batch.additions.append(self._large(stored, record, file, body))
        else:
            self._batch.additions.append(Addition(stored, holding(record, body)))
        self.count += 1
        self._bytes += len(self._batch.additions[-1].record)
        if self._bytes >= BATCH_BYTES or len(self._batch.additions) >= BATCH_ROWS:
            self.flush()

    def _large(self, stored: Stored, record: bytes, file: BodyFile, body: bytes) -> Addition:
        if file.name in self._written:
            return Addition(stored, record, file)
        temp = temp_name()
        if self.tight:
            self._changer.reserve(temp, blocks(file.length))
        self._writing.append(self._pool.submit(make_file, self._ops, self._place.temp(temp), body))
        self._written.add(file.name)
        self._bytes += file.length
        return Addition(stored, record, file, temp)

    def flush(self) -> None:
        """Write what waits. Raises TierError."""
        try:
            for each in self._writing:
                each.result()
            self._changer.apply(self._batch)
        except (sqlite3.Error, OSError) as error:
            raise TierError(f"disk cache {self._place.path}: {error}") from None
        self._batch, self._bytes, self._writing = Changes(), 0, []

    def close(self) -> None:
        """Let go of the threads."""
        self._pool.shutdown()


def _fits(changer: Changer, entries: Table) -> bool:
    """Whether all entries have room in an empty tier, without any being evicted for another."""
    bodies = {entry.blob: entry.size for entry in entries.values() if entry.blob}
    records = sum(len(entry.data) + ROW_BYTES for entry in entries.values())
    try:
        changer.reserve("all", records + sum(map(blocks, bodies.values())))
    except NoRoom:
        return False
    changer.drop_temp("all")
    return True

"""The disk tier as recovery points carry it: its responses as entries with content-addressed bodies, and back.

    cache/<hash of key and variant>   the response's record without its body; blob: the body's SHA-256

Reading goes beside the workers, record by record, each with its seal and checksum; it changes nothing and holds nothing
back. What is evicted between listing and reading is left out. A row that was read once is remembered by where its
record lies, which is never written twice, so that the next point reads only what is new.

One rule: a rebuilt tier serves nothing that a purge may have touched. Each record keeps the number of the last purge
that it was fetched after, never a higher one than the journal has; where purges may be unknown (`distrust`), every
response is marked as one that needs validation before each use, so that no window of staleness applies to it either.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from hashlib import blake2b, sha256
from pathlib import Path
from typing import NamedTuple

import orjson

from edge.adapters.disk_body import temp_name
from edge.adapters.disk_changes import ROW_BYTES, Addition, Changer, Changes
from edge.adapters.disk_files import FileOps
from edge.adapters.disk_index import Row, Sums, connect
from edge.adapters.disk_place import MARK, Place, TierError
from edge.adapters.disk_room import Limits, NoRoom, blocks
from edge.adapters.disk_start import open_place
from edge.adapters.disk_writer import PACKED_BYTES
from edge.cache.body import BodyFile, sums_of
from edge.cache.record import Damaged, decode, encode
from edge.cache.stored import Stored
from edge.recovery.table import Entry, Table

PREFIX = "cache/"
BATCH_BYTES = 16 * 1024 * 1024
WRITERS = 4
BATCH_ROWS = 256
_ROWS = "SELECT hash, variant, segment, at, length, stale, seal FROM objects ORDER BY segment, at"


class _Where(NamedTuple):
    """Where a record is, which names its bytes for good; and since when a soft purge holds."""

    segment: int
    at: int
    length: int
    stale: float


class DiskWarm:
    """`sidecar.source.Warm` of a disk tier's directory. Blocking; belongs to one thread."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self._limits = Limits(size)
        self._known: dict[_Where, tuple[str, Entry]] = {}
        self._packed: dict[bytes, _Where] = {}
        self.damaged = 0

    # -- taking ----------------------------------------------------------------------------------------------------

    def capture(self) -> Table:
        """All responses as they are now; none where there is no tier yet."""
        place = self._place()
        if place is None or not place.index.exists():
            return {}
        sums = Sums(place.salt)
        try:
            with closing(connect(place)) as db:
                rows = db.execute(_ROWS).fetchall()
        except sqlite3.Error as error:
            raise TierError(f"disk cache {self.path}: {error}") from None
        known: dict[_Where, tuple[str, Entry]] = {}
        for hashed, *values in rows:
            row = Row(*values)
            where = _Where(row.segment, row.at, row.length, row.stale)
            found = self._known.get(where) or self._read(place, sums, hashed, row, where)
            if found is not None:
                known[where] = found
        self._known = known
        self._packed = {blob: at for blob, at in self._packed.items() if at in known}
        return dict(known.values())

    def _read(self, place: Place, sums: Sums, hashed: int, row: Row, where: _Where) -> tuple[str, Entry] | None:
        if not sums.holds(hashed, row):
            self.damaged += 1
            return None
        try:
            kept = decode(_record(place, where))
        except FileNotFoundError:
            return None  # evicted since
        except (Damaged, OSError):
            self.damaged += 1
            return None
        stored = kept.stored.expired(row.stale) if row.stale else kept.stored
        file = stored.file
        if file is None and stored.length:
            body = b"".join(stored.chunks)
            file = BodyFile(sha256(body).digest(), len(body), sums_of(body))
            self._packed[file.name] = where
        name = blake2b(b"%b\n%b" % (stored.key, stored.variant), digest_size=16).hexdigest()
        record = encode(stored, kept.number, file) if file is not None else encode(stored, kept.number)
        if file is None:
            return PREFIX + name, Entry(record)
        return PREFIX + name, Entry(record, file.name, file.length)

    def body(self, blob: bytes) -> bytes | None:
        """A body's bytes, as far as they are still there; whoever asked compares them."""
        place = self._place()
        if place is None:
            return None
        try:
            where = self._packed.get(blob)
            if where is None:
                return place.body(blob).read_bytes()
            return b"".join(decode(_record(place, where)).stored.chunks)
        except (OSError, Damaged):
            return None

    def _place(self) -> Place | None:
        try:
            return Place(self.path, bytes.fromhex(orjson.loads((self.path / MARK).read_bytes())["salt"]))
        except (OSError, ValueError, KeyError):
            return None

    # -- restoring -------------------------------------------------------------------------------------------------

    def rebuild(
        self, entries: Table, bodies: Iterator[tuple[bytes, bytes]], folder: Path, number: int, distrust: bool
    ) -> int:
        """Make a tier of entries in an empty directory; how many it has. `number`: the journal's last purge."""
        place = open_place(folder)
        changer = Changer(place, self._limits)
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

    @staticmethod
    def adopt(folder: Path, history: str) -> None:
        """Say whose purges the rebuilt tier follows."""
        path = folder / MARK
        path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), "history": history}))


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
        try:
            kept = decode(entry.data)
        except Damaged as error:
            raise TierError(
                f"a cached response in the point cannot be read ({error}): restore an older point"
            ) from None
        stored, number = kept.stored, min(kept.number, self._number)
        if self._distrust:
            stored.no_cache, stored.simple = True, False
        file = stored.file
        if file is None or file.length > PACKED_BYTES:
            self._batch.additions.append(self._large(stored, number, file, body))
        else:
            stored.file, stored.chunks = None, (body,)
            self._batch.additions.append(Addition(stored, encode(stored, number)))
        self.count += 1
        self._bytes += len(self._batch.additions[-1].record)
        if self._bytes >= BATCH_BYTES or len(self._batch.additions) >= BATCH_ROWS:
            self.flush()

    def _large(self, stored: Stored, number: int, file: BodyFile | None, body: bytes) -> Addition:
        record = encode(stored, number)
        if file is None:
            return Addition(stored, record)
        if file.name in self._written:
            return Addition(stored, record, file)
        temp = temp_name()
        if self.tight:
            self._changer.reserve(temp, blocks(file.length))
        self._writing.append(self._pool.submit(self._write, self._place.temp(temp), body))
        self._written.add(file.name)
        self._bytes += file.length
        return Addition(stored, record, file, temp)

    def _write(self, path: Path, body: bytes) -> None:
        """A body, which whoever gave it has compared with its name."""
        descriptor = self._ops.open(path)
        try:
            self._ops.write(descriptor, body, 0)
        finally:
            os.close(descriptor)

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


def _record(place: Place, where: _Where) -> bytes:
    with place.segment(where.segment).open("rb") as file:
        return os.pread(file.fileno(), where.length, where.at)

"""The disk tier as recovery points carry it: its responses as entries with content-addressed bodies, and back.

    cache/<hash of key and variant>   the response's record without its body; blob: the body's SHA-256

Reading goes beside the workers, record by record, each with its seal and checksum; it changes nothing and holds nothing
back. What is evicted between listing and reading is left out. A row that was read once is remembered by where its
record lies, which is never written twice, so that the next point reads only what is new.

One rule: an entry is the same however its response lies in the tier: packed, with a body in a file, or with one that is
still awaited after a restore. So the next point finds nothing new in it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from hashlib import blake2b, sha256
from pathlib import Path
from typing import NamedTuple

import orjson

from edge.adapters.disk_index import Row, Sums, connect
from edge.adapters.disk_place import MARK, Place, TierError
from edge.adapters.disk_rebuild import expecting, rebuild
from edge.adapters.disk_room import Limits
from edge.cache.body import BodyFile, sums_of
from edge.cache.record import Damaged, decode, encode
from edge.recovery.table import Entry, Table

PREFIX = "cache/"
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
        sums = Sums(place)
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
            record = _record(place, where)
            kept = decode(record)
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
        if stored.file is None or row.stale:
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
            return Place.marked(self.path)
        except (OSError, ValueError, KeyError):
            return None

    # -- restoring -------------------------------------------------------------------------------------------------

    def rebuild(
        self, entries: Table, bodies: Iterator[tuple[bytes, bytes]], folder: Path, number: int, distrust: bool
    ) -> int:
        """Make a tier of entries in an empty directory; how many it has. `number`: the journal's last purge."""
        return rebuild(self._limits, entries, bodies, folder, number, distrust)

    def expect(self, entries: Table, folder: Path, number: int, distrust: bool, point: str) -> bool:
        """As `rebuild`, with bodies that come later; False where there is not room for all."""
        return expecting(self._limits, entries, folder, number, distrust, point)

    @staticmethod
    def adopt(folder: Path, history: str) -> None:
        """Say whose purges the rebuilt tier follows."""
        path = folder / MARK
        path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), "history": history}))


def _record(place: Place, where: _Where) -> bytes:
    with place.segment(where.segment).open("rb") as file:
        return os.pread(file.fileno(), where.length, where.at)

"""How much the disk tier holds, and what goes when there has to be room.

Records are packed into segments, which come and go whole: new ones on trial, and those that were used in their time
there on main (S3-FIFO, by segments instead of objects). A segment on trial goes when those hold more than a tenth of
the budget, else the oldest of main. What was used since it was written is written again on main, up to half of the
segment, so that each one that goes frees something. That is done in small steps, from before room is lacking.

One rule: `used` counts files as `du` does, the index and its log included, and never exceeds the budget: room is made,
committed and freed before anything is written into it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edge.adapters.disk_index import PAGE_BYTES, Sums
from edge.adapters.disk_place import Place, TierError
from edge.adapters.disk_rows import drop_rows
from edge.cache.record import key_at

BLOCK = 4096
FOLDERS_BYTES = 1200 * 1024  # folders, at most 256 of bodies
MIN_SIZE = 32 * 1024 * 1024
_MIN_SEGMENT, _MAX_SEGMENT = 256 * 1024, 32 * 1024 * 1024
_MIN_LOG, _MAX_LOG = 4 * 1024 * 1024, 16 * 1024 * 1024
VACUUM_PAGES = 512
STEP = 128  # objects of a segment that are evicted in one transaction
KEY_WITHIN = 1024  # a record's bytes that have its key, unless that is very long
_OF_SEGMENT = "FROM objects o LEFT JOIN bodies b ON b.name = o.body WHERE o.segment = ?"
_BYTES = f"SELECT total(o.length + ifnull(b.bytes, 0)) {_OF_SEGMENT}"
_LYING = f"SELECT o.hash, o.variant, o.at, o.length, o.stale, o.used, ifnull(b.bytes, 0) {_OF_SEGMENT} LIMIT ?"
_MOVE = "UPDATE objects SET segment = ?, at = ?, used = 0, seal = ? WHERE hash = ? AND variant = ?"
_TOTALS = """SELECT (SELECT page_count FROM pragma_page_count), (SELECT value FROM facts WHERE name = 'bodies'),
    (SELECT total((bytes + 4095) / 4096 * 4096) FROM segments), (SELECT total(bytes) FROM temps)"""
_FREE = "SELECT freelist_count, page_count FROM pragma_freelist_count, pragma_page_count"


@dataclass(frozen=True, slots=True)
class Limits:
    """The operator's limits, in bytes."""

    size: int
    min_free: int = 0  # left on the filesystem in any case

    @property
    def segment(self) -> int:
        """The size of a segment in bytes."""
        return max(_MIN_SEGMENT, min(_MAX_SEGMENT, self.size // 512 // BLOCK * BLOCK))

    @property
    def log(self) -> int:
        """What the index's log may take, in bytes: in a longer one a page is folded in once for more of its changes."""
        return max(_MIN_LOG, min(_MAX_LOG, self.size // 32))


class _Lying(NamedTuple):
    """An object of a segment: its row, where it lies, and its body's bytes if that is a file."""

    hashed: int
    variant: int
    at: int
    length: int
    stale: float
    used: int
    body: int


def _read(file: int, length: int, at: int) -> bytes:
    """Bytes of a segment; empty if they cannot be read, since damaged objects are evicted like others."""
    try:
        return os.pread(file, length, at)
    except OSError:
        return b""


class NoRoom(TierError):
    """Larger than the tier, or the file system's free space is at `min_free`."""


def blocks(count: int) -> int:
    """The bytes that a file of `count` bytes takes on disk."""
    return -(-count // BLOCK) * BLOCK


class Room:
    """Totals and eviction. `copy` appends bytes to a main segment and returns (segment, offset)."""

    def __init__(
        self,
        place: Place,
        db: sqlite3.Connection,
        limits: Limits,
        copy: Callable[[bytes, int], tuple[int, int]],
        hot: Callable[[bytes], bool],
        breathe: Callable[[], None],
    ) -> None:
        self._place = place
        self._breathe = breathe
        self._rescuing = 0  # the segment that is being evicted
        self._left = 0  # bytes of it that may yet be written again
        self._begun: int | None = None  # a segment of which only some were evicted: the next victim
        self._db = db
        self._sums = Sums(place)
        self.limits = limits
        self._copy = copy
        self._hot = hot

    def used(self) -> int:
        """Bytes used on disk."""
        pages, bodies, segments, temps = self._db.execute(_TOTALS).fetchone()
        try:
            log = os.stat(f"{self._place.index}-wal").st_size
        except OSError:
            log = 0
        return int(pages * PAGE_BYTES + max(log, self.limits.log) + FOLDERS_BYTES + segments + bodies + temps)

    def lacking(self, need: int) -> int:
        """How many bytes must be freed before `need` more fit; 0 or less: none. Raises NoRoom."""
        limits = self.limits
        limit = limits.size - limits.segment  # what is evicted may have to be copied first
        used = self.used()
        lacking = used + need - limit
        if limits.min_free:
            found = os.statvfs(self._place.store)
            lacking = max(lacking, need + limits.min_free - found.f_bavail * found.f_frsize)
        if lacking > 0 and need > limit - limits.log - FOLDERS_BYTES:
            raise NoRoom(f"disk cache {self._place.path}: {need} bytes are more than fit")
        return lacking

    def victim(self, keep_open: int) -> int | None:
        """The segment to evict next; never `keep_open`, the main segment that is being written."""
        if self._begun is not None:
            return self._begun
        query = "SELECT main, min(id), total(charge) FROM segments WHERE id <> ? GROUP BY main"
        rows = self._db.execute(query, (keep_open,))
        found = {main: (oldest, charge) for main, oldest, charge in rows}
        trial, main = found.get(0), found.get(1)
        if trial is not None and (main is None or trial[1] > self.limits.size // 10):
            return int(trial[0])
        chosen = main or trial
        return None if chosen is None else int(chosen[0])

    def evict_some(self, victim: int) -> bool:
        """Evict some objects of a segment, inside a transaction; True when it is empty and its file can be deleted.

        Objects that were used are rewritten. Each step is small, however large the segment is.
        """
        db = self._db
        rows = [_Lying(*row) for row in db.execute(_LYING, (victim, STEP)).fetchall()]
        self._breathe()
        kept = self._rescue(victim, rows) if rows else set()
        self._breathe()
        dropped = [row for row in rows if row.at not in kept]
        drop_rows(db, victim, [(row.hashed, row.at) for row in dropped])
        db.execute("UPDATE facts SET value = value + ? WHERE name = 'evicted'", (len(dropped),))
        self._begun = victim if len(rows) == STEP else None
        if self._begun is not None:
            return False
        db.execute("DELETE FROM segments WHERE id = ?", (victim,))
        return True

    def _rescue(self, victim: int, rows: Sequence[_Lying]) -> set[int]:
        """Rewrite used objects to main, up to half of the segment; returns where they lay before."""
        if self._rescuing != victim:
            (total,) = self._db.execute(_BYTES, (victim,)).fetchone()
            self._rescuing, self._left = victim, int(total) // 2
        kept: set[int] = set()
        try:
            file = os.open(self._place.segment(victim), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return kept  # gone already: nothing to rescue
        try:
            for row in rows:
                size = row.length + row.body
                if size > self._left or not (row.used or self._hot(key_at(_read(file, KEY_WITHIN, row.at), 0))):
                    continue
                record = _read(file, row.length, row.at)
                if len(record) < row.length:
                    continue  # cut, or the disk does not give it: nothing to keep
                self._left -= size
                kept.add(row.at)
                segment, there = self._copy(record, row.body)
                seal = self._sums.seal(row.hashed, row.variant, (segment, there, row.length), row.stale)
                self._db.execute(_MOVE, (segment, there, seal, row.hashed, row.variant))
        finally:
            os.close(file)
        return kept

    def shrink(self) -> None:
        """Return unused pages of the index to the file system, a few at a time; outside a transaction."""
        free, pages = self._db.execute(_FREE).fetchone()
        if free > VACUUM_PAGES and free * 4 > pages:
            self._db.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()

"""Changes to the disk tier, by whichever process holds the turn: each is one transaction of the index.

    turn (a lock on a file) ─► room: evict, commit, unlink ─► append records ─► rows, purges, commit ─► unlink

One rule: at any instant the committed index points only to bytes that are there, and a crash leaves at most bytes that
nothing points to: those of a segment are counted with it at the next start, bodies and temporary files are swept.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from edge.adapters.disk_files import FileOps
from edge.adapters.disk_index import Sums, connect, fold_in
from edge.adapters.disk_place import TURN, Place
from edge.adapters.disk_room import STEP, Limits, NoRoom, Room, blocks
from edge.adapters.disk_rows import Row, insert_rows, purge_rows, purge_some, remove_rows, row_of, use_rows
from edge.adapters.disk_version import Version
from edge.cache.body import BodyFile
from edge.cache.purge import Numbered, Purge
from edge.cache.stored import Stored

ROW_BYTES = 512  # what a row may add to the index
FOLD_ROWS = 512
BREATHE_ROWS = 64
WRITE_BYTES = 128 * 1024  # written at a time
AHEAD = 2  # segments: where less is left, there is evicted before it has to be


@dataclass(slots=True, eq=False)
class Addition:
    """A response to be stored: its record, and its body's file when the body is not in the record."""

    stored: Stored
    record: bytes
    body: BodyFile | None = None
    temp: str | None = None  # the body's temporary file; None where the body is there already
    seq: int = 0  # the worker's purge sequence when it was asked for


class RowAt(NamedTuple):
    """Where a response's record lies (segment, offset and length in bytes), and the name of its body file, if any."""

    segment: int
    at: int
    length: int
    stale: float
    body: bytes | None


@dataclass(slots=True, eq=False)
class Packing(Addition):
    """A response whose body moves from a file into its record; `row` is where its record was."""

    hashed: int = 0
    variant: int = 0
    row: RowAt | None = None


@dataclass(slots=True)
class Changes:
    """One batch. `used` are hashes of key and variant; `purges` are by URL and tag, with their time.

    `removed` have the record's segment and offset too, so that what took its place stays; -1: wherever it is.
    """

    additions: list[Addition] = field(default_factory=list)
    removed: list[tuple[int, int, int, int]] = field(default_factory=list)
    purges: list[tuple[Purge, float]] = field(default_factory=list)
    used: list[tuple[int, int]] = field(default_factory=list)


class Changer:
    """One thread's way to change the store. Blocking: never call it on the loop."""

    def __init__(
        self,
        place: Place,
        limits: Limits,
        ops: FileOps | None = None,
        hot: Callable[[bytes], bool] = lambda key: False,
        durable: bool = False,
        breathe: Callable[[], None] = lambda: None,
        fold: Callable[[], None] | None = None,
        coming: Callable[[list[int]], None] | None = None,
        sums: Sums | None = None,
    ) -> None:
        """`breathe` is called between small pieces of work, so that the thread can rest.

        `fold` checkpoints the index's log elsewhere (default: here); `coming` is told the hashes of rows about to be
        added; `hot` says whether memory holds a key; `durable` syncs each commit.
        """
        self.place = place
        self.limits = limits
        self.sums = sums or Sums(place.salt)
        self._ops = ops or FileOps()
        self.db = connect(place)
        self.db.execute("PRAGMA cache_size = -16384")  # a batch touches pages all over the tree
        if durable:  # a purge must outlive a power cut
            self.db.execute("PRAGMA synchronous = FULL")
        self._turn = os.open(place.store / TURN, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._breathe, self._fold, self._coming = breathe, fold or self._fold_in, coming
        self._rows = 0  # since the log was folded in
        self.room = Room(place, self.db, limits, self._append_main, hot, breathe)
        self._version = Version(place, self._ops)
        self._segments: dict[int, list[int]] = {}  # by main: id, fd, bytes, charge

    def close(self) -> None:
        """Close index, lock and segments; harmless when done already."""
        self.db.close()
        self._version.close()
        turn, self._turn = self._turn, -1
        if turn >= 0:
            os.close(turn)
        for _, fd, *_ in self._segments.values():
            os.close(fd)
        self._segments.clear()

    # -- what is done --------------------------------------------------------------------------------------------------

    def apply(self, changes: Changes, still: Callable[[Addition], bool] = lambda addition: True) -> None:
        """Commit one batch, all or nothing; additions for which `still` returns False are left out.

        Raises sqlite3.Error, OSError, NoRoom.
        """
        with self._have_turn():
            wanted = [each for each in changes.additions if still(each)]
            need = sum(len(each.record) + ROW_BYTES for each in wanted)
            if need:
                self.make_room(need)
            # A body that is there already may have gone with its last response, for want of room.
            kept = [each for each in wanted if each.body is None or each.temp is not None or self.known(each.body.name)]
            places = self._append(kept)
            self._breathe()
            with self._transaction() as gone:
                purge_rows(self.db, self.sums, changes.purges)
                remove_rows(self.db, changes.removed)
                self._note_segments()
                self._insert(kept, places, gone)
                self._drop_temps([each.temp for each in changes.additions if each.temp and each not in kept], gone)
                use_rows(self.db, changes.used)
                self._drop_bodies(gone)
                self._breathe()
            self._changed(len(kept))

    def purge(self, purges: Sequence[Numbered], at: float) -> list[set[tuple[int, int]]]:
        """Carry out operators' purges in order, durable on return; returns for each what `purge_rows` does."""
        found: list[set[tuple[int, int]]] = []
        while len(found) < len(purges):
            with self._have_turn(), self._transaction() as gone:
                found += purge_some(self.db, self.sums, purges[len(found) :], at)
                self.note_purged(purges[len(found) - 1].number)
                self._drop_bodies(gone)
        return found

    def note_purged(self, number: int, floor: int = 0) -> None:
        """Record that all purges up to `number` are applied, and that nothing fetched before `floor` may be used."""
        self.db.execute("UPDATE facts SET value = max(value, ?) WHERE name = 'purged'", (number,))
        self.db.execute("UPDATE facts SET value = max(value, ?) WHERE name = 'floor'", (floor,))

    def known(self, name: bytes) -> bool:
        """Whether the body with this SHA-256 is stored."""
        return self.db.execute("SELECT 1 FROM bodies WHERE name = ?", (name,)).fetchone() is not None

    def expect(self, bodies: Sequence[BodyFile]) -> None:
        """Reserve room for bodies that arrive later; those that no response uses are dropped with the next batch."""
        with self._have_turn(), self._transaction():
            for body in bodies:
                if not self.known(body.name):
                    self._add_body(body)

    def row(self, hashed: int, variant: int) -> RowAt | None:
        """Where the record of a response lies; None if it is not stored."""
        query = "SELECT segment, at, length, stale, body FROM objects WHERE hash = ? AND variant = ?"
        found = self.db.execute(query, (hashed, variant)).fetchone()
        return None if found is None else RowAt(*found)

    def pack(self, packings: Sequence[Packing]) -> None:
        """Move responses to records that contain their bodies; inside the turn in which their rows were read."""
        places = self._append(packings)
        with self._transaction() as gone:
            self._note_segments()
            for each, (segment, at) in zip(packings, places, strict=True):
                assert each.row is not None
                where = (segment, at, len(each.record))
                seal = self.sums.seal(each.hashed, each.variant, where, each.row.stale)
                self.db.execute(
                    "UPDATE objects SET segment = ?, at = ?, length = ?, body = NULL, seal = ? "
                    "WHERE hash = ? AND variant = ?",
                    (*where, seal, each.hashed, each.variant),
                )
                self.db.execute("UPDATE bodies SET refs = refs - 1 WHERE name = ?", (each.row.body,))
            self._drop_bodies(gone)

    def reserve(self, temp: str, count: int) -> None:
        """Reserve `count` bytes in all for a temporary file, evicting if necessary. Raises NoRoom."""
        with self._have_turn():
            (before,) = self.db.execute("SELECT total(bytes) FROM temps WHERE name = ?", (temp,)).fetchone()
            self.make_room(max(0, blocks(count) - int(before)))
            with self._transaction():
                self.db.execute("INSERT OR REPLACE INTO temps VALUES (?, ?, ?)", (temp, os.getpid(), blocks(count)))

    def drop_temp(self, temp: str) -> None:
        """Delete a temporary file and free its reservation."""
        with self._have_turn(), self._transaction() as gone:
            self._drop_temps([temp], gone)

    def _drop_temps(self, temps: list[str], gone: list[Path]) -> None:
        for temp in temps:
            self.db.execute("DELETE FROM temps WHERE name = ?", (temp,))
            gone.append(self.place.temp(temp))

    def make_room(self, need: int) -> None:
        """Evict until `need` more bytes fit; inside the turn. Raises NoRoom."""
        lacking = self.room.lacking(need)
        if -AHEAD * self.limits.segment < lacking <= 0:
            self._evict_some()
        while lacking > 0:
            self._evict_some()
            lacking = self.room.lacking(need)

    def _evict_some(self) -> None:
        """One step of eviction. Raises NoRoom when nothing is left to evict."""
        with self._transaction() as gone:
            self._note_segments()
            main = self._segments.get(1, [0])[0]
            victim = self.room.victim(main)
            if victim is None and main:
                os.close(self._segments.pop(1)[1])  # its own main segment is all that is left
                victim = self.room.victim(0)
            if victim is None:
                raise NoRoom(f"disk cache {self.place.path}: nothing left to evict")
            if self.room.evict_some(victim):
                gone.append(self.place.segment(victim))
            self._note_segments()
            self._drop_bodies(gone)
            self._breathe()
        self._changed(STEP)

    def _changed(self, rows: int) -> None:
        """Count changed rows and checkpoint the log often, because that is the longest work without a rest."""
        self._rows += rows
        if self._rows >= FOLD_ROWS:
            self._rows = 0
            self.room.shrink()
            self._fold()
        self._breathe()

    def _fold_in(self) -> None:
        self._breathe()
        fold_in(self.db)

    # -- inside a turn -------------------------------------------------------------------------------------------------

    @contextmanager
    def _have_turn(self) -> Iterator[None]:
        """Hold the store's lock; the kernel releases it if the process dies."""
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    turn = _have_turn

    @contextmanager
    def _transaction(self) -> Iterator[list[Path]]:
        """One transaction; the files appended to the yielded list are deleted after the commit."""
        gone: list[Path] = []
        version = self._version.begin()
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield gone
            self.db.execute("COMMIT")
            self._version.end(version)
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            self._forget_segments()  # what is in them and what the index says may differ now
            raise
        for path in gone:
            self._ops.unlink(path)

    transaction = _transaction

    def _append(self, additions: Sequence[Addition]) -> list[tuple[int, int]]:
        """Append records to segments on trial; returns (segment, offset) of each."""
        places: list[tuple[int, int]] = []
        waiting: list[bytes] = []
        segment, size, limit = self._segment(0) if additions else [], 0, self.limits.segment
        for each in additions:
            if size >= WRITE_BYTES or segment[3] >= limit:
                self._flush(segment, waiting)
                segment, size = self._segment(0), 0
            places.append((segment[0], segment[2] + size))
            waiting.append(each.record)
            size += len(each.record)
            segment[3] += len(each.record) + (blocks(each.body.length) if each.body is not None else 0)
        self._flush(segment, waiting)
        return places

    def _flush(self, segment: list[int], waiting: list[bytes]) -> None:
        if waiting:
            data = b"".join(waiting)
            self._ops.write(segment[1], data, segment[2])
            segment[2] += len(data)
            waiting.clear()
            self._breathe()

    def _append_main(self, record: bytes, body: int) -> tuple[int, int]:
        segment = self._segment(1)
        at = segment[2]
        self._ops.write(segment[1], record, at)
        segment[2] += len(record)
        segment[3] += len(record) + body
        return segment[0], at

    def _segment(self, main: int) -> list[int]:
        """The segment that is being written, or a new one; for `main` also inside a transaction."""
        found = self._segments.get(main)
        if found is not None:
            kept = self.db.execute("SELECT 1 FROM segments WHERE id = ?", (found[0],)).fetchone()
            if kept is not None and found[3] < self.limits.segment:
                return found
            if self.db.in_transaction or kept is None:
                self._note_segments()
            else:
                with self._transaction():
                    self._note_segments()
            os.close(found[1])
            self._segments.pop(main, None)
        number = self.db.execute("INSERT INTO segments (main, bytes, charge) VALUES (?, 0, 0)", (main,)).lastrowid or 0
        made = [number, self._ops.open(self.place.segment(number)), 0, 0]
        self._segments[main] = made
        return made

    def _note_segments(self) -> None:
        for number, _, count, charge in self._segments.values():
            self.db.execute("UPDATE segments SET bytes = ?, charge = ? WHERE id = ?", (count, charge, number))

    def _forget_segments(self) -> None:
        """Close the segments being written and cut off what was appended but not committed."""
        for number, fd, *_ in self._segments.values():
            try:
                kept = self.db.execute("SELECT bytes FROM segments WHERE id = ?", (number,)).fetchone()
                self._ops.truncate(fd, 0 if kept is None else kept[0])
            except (OSError, sqlite3.Error):
                pass  # the next start looks how long the file is
            os.close(fd)
        self._segments.clear()

    def _insert(self, additions: Sequence[Addition], places: list[tuple[int, int]], gone: list[Path]) -> None:
        rows: list[Row] = []
        tags: list[tuple[int, int, int]] = []
        for each, (segment, at) in zip(additions, places, strict=True):
            if len(rows) % BREATHE_ROWS == 0:
                self._breathe()
            body = None
            if each.body is not None:
                self._place_body(each.body, each.temp, gone)
                body = each.body.name
            row = row_of(self.sums, each.stored, (segment, at, len(each.record)), body)
            rows.append(row)
            if each.stored.tags:
                tags.extend((self.sums.of(tag), *row[:2]) for tag in each.stored.tags)
        if self._coming is not None:
            self._coming([row[0] for row in rows])
        self._breathe()
        insert_rows(self.db, rows, tags, self._breathe)

    def _place_body(self, body: BodyFile, temp: str | None, gone: list[Path]) -> None:
        """Rename a body to its final name, unless one with the same content exists."""
        if temp is None:
            return
        self.db.execute("DELETE FROM temps WHERE name = ?", (temp,))
        if self.known(body.name):
            gone.append(self.place.temp(temp))
            return
        self._ops.rename(self.place.temp(temp), self.place.body(body.name))
        self._add_body(body)

    def _add_body(self, body: BodyFile) -> None:
        self.db.execute("INSERT INTO bodies VALUES (?, ?, 0)", (body.name, blocks(body.length)))
        self.db.execute("UPDATE facts SET value = value + ? WHERE name = 'bodies'", (blocks(body.length),))

    def _drop_bodies(self, gone: list[Path]) -> None:
        """Delete bodies that no response uses any more."""
        for name, count in self.db.execute("SELECT name, bytes FROM bodies WHERE refs = 0").fetchall():
            self.db.execute("DELETE FROM bodies WHERE name = ?", (name,))
            self.db.execute("UPDATE facts SET value = value - ? WHERE name = 'bodies'", (count,))
            gone.append(self.place.body(name))

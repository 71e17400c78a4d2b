"""Changes to the disk tier, by whichever process holds the turn: each is one transaction of the index.

    turn (a lock on a file) ─► room: evict, commit, unlink ─► append records ─► rows, purges, commit ─► unlink

One rule: at any instant the committed index points only to bytes that are there, and a crash leaves at most bytes that
nothing points to: those of a segment are counted with it at the next start, bodies and temporary files are swept.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep
from typing import NamedTuple

from edge.adapters.disk_files import FileOps
from edge.adapters.disk_index import Sums, connect, fold_in, limit_log
from edge.adapters.disk_place import TURN, Place
from edge.adapters.disk_room import STEP, Limits, NoRoom, Room, blocks
from edge.adapters.disk_rows import Addition, Rows, insert_rows, purge_rows, purge_some, remove_rows, use_rows
from edge.adapters.disk_segments import MAIN, SegmentWriter
from edge.adapters.disk_version import Version
from edge.cache.body import BodyFile
from edge.cache.purge import Numbered, Purge

ROW_BYTES = 512  # what a row may add to the index
FOLD_BYTES = 8 * 1024  # of the log, for each changed row, after which it is folded in
BREATHE_ROWS = 64
AHEAD = 2  # segments: where less is left, there is evicted before it has to be
GIVE_WAY_S = 0.0005


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
        self.sums = sums or Sums(place)
        self._ops = ops or FileOps()
        self.db = connect(place)
        self.db.execute("PRAGMA cache_size = -16384")  # a batch touches pages all over the tree
        limit_log(self.db, limits.log)
        if durable:  # a purge must outlive a power cut
            self.db.execute("PRAGMA synchronous = FULL")
        self._turn = os.open(place.store / TURN, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._breathe, self._fold, self._coming = breathe, fold or self._fold_in, coming
        self._rows = 0  # since the log was folded in
        self._segments = SegmentWriter(place, self.db, self._ops, limits.segment, breathe)
        self.room = Room(place, self.db, limits, self._segments.append_main, hot, breathe)
        self._version = Version(place, self._ops)
        self._moved: list[tuple[Path, Path]] = []  # bodies that this transaction gave their names, and those before

    def close(self) -> None:
        """Close index, lock and segments; harmless when done already."""
        self.db.close()
        self._version.close()
        turn, self._turn = self._turn, -1
        if turn >= 0:
            os.close(turn)
        self._segments.close()

    # -- what is done --------------------------------------------------------------------------------------------------

    def apply(self, changes: Changes, still: Callable[[list[Addition]], list[Addition]] = lambda all: all) -> None:
        """Commit one batch, all or nothing; `still` says which of the additions are still wanted.

        Raises sqlite3.Error, OSError, NoRoom.
        """
        with self._have_turn():
            if changes.additions:
                self.make_room(sum(each.length + ROW_BYTES for each in changes.additions))
            wanted = still(changes.additions)
            # A body that is there already may have gone with its last response, for want of room.
            kept = [each for each in wanted if each.body is None or each.temp is not None or self.known(each.body.name)]
            places = self._segments.append(kept)
            with self._transaction() as gone:
                purge_rows(self.db, self.sums, changes.purges)
                remove_rows(self.db, changes.removed)
                self._segments.note()
                self._insert(kept, places, gone)
                self.drop_temps([each.temp for each in changes.additions if each.temp and each not in kept], gone)
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
        places = self._segments.append(packings)
        with self._transaction() as gone:
            self._segments.note()
            for each, where in zip(packings, places, strict=True):
                assert each.row is not None
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
            self.drop_temps([temp], gone)

    def drop_temps(self, temps: Sequence[str], gone: list[Path]) -> None:
        """As `drop_temp`, inside a transaction whose files to be deleted are `gone`."""
        for temp in temps:
            self.db.execute("DELETE FROM temps WHERE name = ?", (temp,))
            gone.append(self.place.temp(temp))

    def make_room(self, need: int) -> None:
        """Evict until `need` more bytes fit; at the beginning of a turn. Raises NoRoom.

        Others get a turn between two steps: there may be many, and a purge must not wait for all of them.
        """
        lacking = self.room.lacking(need)
        if -AHEAD * self.limits.segment < lacking <= 0:
            self._evict_some()
        while lacking > 0:
            self._evict_some()
            lacking = self.room.lacking(need)
            if lacking > 0:
                fcntl.flock(self._turn, fcntl.LOCK_UN)
                sleep(GIVE_WAY_S)
                fcntl.flock(self._turn, fcntl.LOCK_EX)
                lacking = self.room.lacking(need)

    def _evict_some(self) -> None:
        """One step of eviction. Raises NoRoom when nothing is left to evict."""
        with self._transaction() as gone:
            self._segments.note()
            main = self._segments.main()
            victim = self.room.victim(main)
            if victim is None and main:
                self._segments.end(MAIN)  # it is all that is left
                victim = self.room.victim(0)
            if victim is None:
                raise NoRoom(f"disk cache {self.place.path}: nothing left to evict")
            if self.room.evict_some(victim):
                gone.append(self.place.segment(victim))
            self._segments.note()
            self._drop_bodies(gone)
            self._breathe()
        self._changed(STEP)

    def _changed(self, rows: int) -> None:
        """Count changed rows and checkpoint the log often, because that is the longest work without a rest."""
        self._rows += rows
        if self._rows >= self.limits.log // FOLD_BYTES:
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
        self._moved.clear()
        version = self._version.begin()
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield gone
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            self._segments.forget()  # what is in them and what the index says may differ now
            self._move_back()
            raise
        try:
            self._version.end(version)
        finally:
            for path in gone:
                self._ops.unlink(path)

    transaction = _transaction

    def _insert(self, additions: Sequence[Addition], places: list[tuple[int, int, int]], gone: list[Path]) -> None:
        rows = Rows(self.sums.plain)
        for at, (each, place) in enumerate(zip(additions, places, strict=True)):
            if at % BREATHE_ROWS == 0:
                self._breathe()
            if each.body is not None:
                self._place_body(each.body, each.temp, gone)
            rows.add(self.sums, each, place)
        if self._coming is not None:
            self._coming(rows.hashes())
        self._breathe()
        insert_rows(self.db, rows, self._breathe)

    def _place_body(self, body: BodyFile, temp: str | None, gone: list[Path]) -> None:
        """Rename a body to its final name, unless one with the same content exists."""
        if temp is None:
            return
        self.db.execute("DELETE FROM temps WHERE name = ?", (temp,))
        if self.known(body.name):
            gone.append(self.place.temp(temp))
            return
        self._moved.append((self.place.temp(temp), self.place.body(body.name)))
        self._ops.rename(*self._moved[-1])
        self._add_body(body)

    def _move_back(self) -> None:
        """Bodies whose rows were not committed are temporary files as before: they count as such, and go as such."""
        for temp, body in self._moved:
            with suppress(OSError):  # the next start sweeps it
                self._ops.rename(body, temp)

    def _add_body(self, body: BodyFile) -> None:
        self.db.execute("INSERT INTO bodies VALUES (?, ?, 0)", (body.name, blocks(body.length)))
        self.db.execute("UPDATE facts SET value = value + ? WHERE name = 'bodies'", (blocks(body.length),))

    def _drop_bodies(self, gone: list[Path]) -> None:
        """Delete bodies that no response uses any more."""
        for name, count in self.db.execute("SELECT name, bytes FROM bodies WHERE refs = 0").fetchall():
            self.db.execute("DELETE FROM bodies WHERE name = ?", (name,))
            self.db.execute("UPDATE facts SET value = value - ? WHERE name = 'bodies'", (count,))
            gone.append(self.place.body(name))

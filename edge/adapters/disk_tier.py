"""The disk tier as a worker uses it: one for the machine, read here directly, written by this worker's writer thread.

    look ─► pending (not yet written) ─┐
         └► index ─► record ─► checks ─┴─► responses        a few microseconds while both are in the page cache

One rule: the loop does not wait for a disk. What the page cache does not have is read in a thread (`look` says None,
`look_later` does it); an index whose look-ups took long is asked in a thread until it is quick again. Nothing is given
out that its checksum, its key, or a purge speaks against; what is damaged is a miss, an event, and removed.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from resource import RUSAGE_THREAD, getrusage
from time import monotonic

from edge.adapters.disk_asker import THREADS, Asker, AwaitedBody
from edge.adapters.disk_body import Checked, OpenBody
from edge.adapters.disk_changes import Changer
from edge.adapters.disk_events import DiskEvents
from edge.adapters.disk_files import Cold, FileOps, read_ahead
from edge.adapters.disk_filter import Filter, Share
from edge.adapters.disk_fold import Folder
from edge.adapters.disk_index import Sums, is_damage
from edge.adapters.disk_look import NOTHING, Looker, Read
from edge.adapters.disk_notes import Notes, noted
from edge.adapters.disk_pending import Waiting, overlay
from edge.adapters.disk_place import Place
from edge.adapters.disk_room import Limits
from edge.adapters.disk_rows import Addition
from edge.adapters.disk_spill import Spill
from edge.adapters.disk_start import mark_damaged, open_place
from edge.adapters.disk_writer import Writer
from edge.cache.body import BodyFile
from edge.cache.eviction import Fingerprints
from edge.cache.purge import Purge, PurgeKind, PurgeLog
from edge.cache.record import Damaged
from edge.cache.stored import Stored

SLOW_S = 0.002  # a look-up that took longer sends the next ones to a thread
SLOW_FOR_S = 1.0
WARM_BYTES = 4 * 1024 * 1024  # an index up to here is asked at once, a larger one after it was read ahead
TICKS_PER_LET_GO = 4

Data = bytes | bytearray
Then = Callable[[tuple[Stored, ...]], None]


class DiskTier:
    """The disk tier of one worker (`ports.DiskTier`). All methods belong to the loop."""

    def __init__(
        self,
        place: Place,
        limits: Limits,
        min_uses: int = 1,
        hot: Callable[[bytes], bool] = lambda key: False,
        ops: FileOps | None = None,
        share: Share = lambda name, size: None,
    ) -> None:
        self.place, self.limits = place, limits
        self.purge_log: Callable[[], PurgeLog] = lambda: _NO_PURGES
        self.hits = self.misses = self.damaged = 0
        self._min_uses = min_uses
        self._uses = Fingerprints(65536)
        self._sums = Sums(place)
        self._filter = Filter.of(place, limits.size, share)
        self._looker = Looker(place, self._sums, self._filter, busy_s=0.5, remembers=True)
        self._looker.floor = self._fact("floor")
        self._checked: Checked = OrderedDict()
        self._told = DiskEvents()
        self.events = self._told.take
        self._asker = Asker.of(place)  # None: no body is awaited after a restore
        self._pool = ThreadPoolExecutor(2 if self._asker is None else THREADS, "disk-reader")
        self._of_thread = threading.local()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cold_until = 0.0
        self._blocks_read = 0
        self._looking: list[list[tuple[Purge, float]]] = []  # of look-ups in threads: what was purged since
        self._ticks = 0
        left = list(noted(place))  # by workers that were killed: their purges are this one's now
        self._notes = Notes(place)
        self._folder = Folder(place)
        coming = self._filter.add if self._filter is not None else None
        changer = Changer(
            place, limits, ops, hot, breathe=self._breathe, fold=self._folder.fold, coming=coming, sums=self._sums
        )
        self.writer = Writer(
            place, changer, self._notes, self._admitted, lambda: self.purge_log().seq, self._call, self._told.add, ops
        )
        for path, purges in left:
            for purge, at in purges:
                self.writer.forget(purge, at)
            if path != self._notes.path:
                path.unlink(missing_ok=True)
        self.writer.start()
        if os.path.getsize(place.index) > WARM_BYTES:  # look-ups go through a thread meanwhile
            self._pool.submit(read_ahead, place.index)
            self._cold_until = monotonic() + SLOW_FOR_S
        self._looker.rows(0)  # the first one opens files
        self._blocks_read = getrusage(RUSAGE_THREAD).ru_inblock

    @classmethod
    def open(
        cls,
        path: Path,
        limits: Limits,
        min_uses: int = 1,
        hot: Callable[[bytes], bool] = lambda key: False,
        ops: FileOps | None = None,
        share: Share = lambda name, size: None,
    ) -> DiskTier:
        """Open the tier in a directory. Raises TierError."""
        return cls(open_place(path), limits, min_uses, hot, ops, share)

    def close(self) -> None:
        """Write what waits, then close."""
        self.writer.close()
        self._folder.close()
        if self._filter is not None:
            self._filter.close()
        self._pool.shutdown(wait=True)
        self._notes.close()
        self._looker.close()

    # -- looking up ----------------------------------------------------------------------------------------------------

    def look(self, key: bytes) -> tuple[Stored, ...] | None:
        """The responses stored for a key; None where reading would wait for the disk (use `look_later`)."""
        writer = self.writer
        taken, waiting = before = writer.pending
        if self._looker.remembered(key) is not None and not writer.damaged:
            again = self._looker.again(key, before, self.purge_log())
            if again is not None:
                self.hits += 1
                return (again,)
        waits = key in taken.responses or key in waiting.responses
        if not waits and self._looker.lacks(self._sums.of_key(key)):
            self.misses += 1
            return ()
        began = monotonic()
        if began < self._cold_until:
            return None
        try:
            read = self._read(key, self._looker, wait=False)
        except Cold:
            self._has_read()  # that it had the kernel begin to read does not count as waiting
            return None
        if monotonic() - began > SLOW_S and self._has_read():
            self._cold_until = began + SLOW_FOR_S
        return self._judged(key, read, before, [])

    def _has_read(self) -> bool:
        """Whether this thread has waited for the disk since the last call; else it was slow for another reason."""
        before, self._blocks_read = self._blocks_read, getrusage(RUSAGE_THREAD).ru_inblock
        return self._blocks_read > before

    def look_later(self, key: bytes, then: Then) -> None:
        """As `look`, in a thread; `then` is called on the loop with the result."""
        loop = asyncio.get_running_loop()
        before = self.writer.pending
        meanwhile: list[tuple[Purge, float]] = []
        self._looking.append(meanwhile)

        def work() -> None:
            read = self._read(key, self._own(), wait=True)
            loop.call_soon_threadsafe(done, read)

        def done(read: Read) -> None:
            found = self._judged(key, read, before, meanwhile)
            self._looking.remove(meanwhile)
            then(found)

        self._pool.submit(work)

    def _read(self, key: bytes, looker: Looker, wait: bool) -> Read:
        """Rows and records of a key. Raises Cold; any other error is a miss and an event."""
        if self.writer.damaged:
            return NOTHING
        try:
            return looker.read(key, self._sums.of_key(key), self._asker, wait)
        except sqlite3.Error as error:
            self._failed(error)
            return NOTHING

    def _judged(
        self, key: bytes, read: Read, before: tuple[Waiting, ...], meanwhile: list[tuple[Purge, float]]
    ) -> tuple[Stored, ...]:
        """What of it may be used, with what waits to be written put over it.

        The thread may have committed what waited `before` the read while that went on: it counts as waiting still.
        """
        hashed = self._sums.of_key(key)
        for row, why in read.damaged:
            self._is_damaged(key, why)
            self.writer.drop((hashed, row.variant, row.segment, row.at))
        if self._looking:  # a thread took its time: what came meanwhile counts too
            before = tuple({id(one): one for one in (*before, *self.writer.pending)}.values())
        found: dict[bytes, Stored] = {}
        purge_log = self.purge_log()
        for row, kept in read.rows:
            stored = self._looker.left(kept, row.stale, purge_log, before, meanwhile)
            if stored is None:
                self.writer.drop((hashed, row.variant, row.segment, row.at))
            else:
                found[stored.variant] = stored
        for waiting in before:
            if key in waiting.responses:
                overlay(found, waiting.responses, key, self._admitted)
        if not found:
            self.misses += 1
            return ()
        self.hits += 1
        if len(found) == 1:
            return tuple(found.values())
        return tuple(sorted(found.values(), key=lambda one: -one.received_at))

    def used(self, stored: Stored) -> None:
        """Note that a stored response served a request, so that eviction keeps it."""
        known = self._looker.remembered(stored.key)
        if known is None:
            self.writer.use(self.mark(stored))
        elif not known.told or len(known.rows) > 1:  # once, as long as the index says the same
            known.told = self.writer.use(self.mark(stored))

    def mark(self, stored: Stored) -> tuple[int, int]:
        """(hash of the key, hash of the variant): identifies a stored response in all workers."""
        return self._sums.of_key(stored.key), self._sums.of_variant(stored.variant)

    def waiting(self, purge: Purge, now: float) -> list[Stored]:
        """What waits to be written and what a purge by URL or tag, not yet in force, is about to touch."""
        puts = (put for waiting in self.writer.pending for put in waiting.named(purge, now))
        return [put.stored for put in puts if self._admitted(put.stored, put.seq) is not None]

    def _breathe(self) -> None:
        self.writer.breathe()

    # -- storing -------------------------------------------------------------------------------------------------------

    def put(self, stored: Stored, seq: int, temp: str | None = None) -> bool:
        """Queue a response to be written; False when the queue is full or the disk fails."""
        if self._min_uses > 1 and temp is None and not self._often(stored.key):
            return False
        return self.writer.put(Addition(stored, temp=temp, seq=seq))

    def _often(self, key: bytes) -> bool:
        mark = self._sums.of(key) & 0xFFFFFFFFFFFFFFFF
        uses = (self._uses.get(mark) or 0) + 1
        self._uses.put(mark, uses)
        return uses >= self._min_uses

    def remove(self, stored: Stored) -> None:
        """Remove one response."""
        self.writer.remove(stored, self.mark(stored))

    def forget(self, purge: Purge, now: float) -> None:
        """Apply a purge by URL or tag; look-ups obey it at once. Other kinds are found by their number."""
        if purge.kind in (PurgeKind.URL, PurgeKind.TAG):
            self.writer.forget(purge, now)
            for meanwhile in self._looking:
                meanwhile.append((purge, now))

    def recorded(self) -> threading.RLock:
        """Hold this while a purge is recorded in the sequence, which the writer's thread reads."""
        return self.writer.guard

    def _admitted(self, stored: Stored, seq: int) -> Stored | None:
        """What purges leave of a response that was requested at `seq` of this worker's purge sequence. Any thread."""
        purge_log = self.purge_log()
        if seq >= purge_log.seq:  # moves on before a purge is recorded: so far there is none
            return stored
        with self.writer.guard:
            return purge_log.admit(seq, stored.key, stored.tags).left_of(stored)

    def spill(self, length: int | None) -> Spill:
        """Begin to write a body of `length` bytes (None: unknown) while it streams."""
        self._loop = asyncio.get_running_loop()  # where its calls come back to
        return Spill(self.writer.wake, length)

    def forsake(self, temp: str) -> None:
        """Drop a spilled body."""
        self.writer.forsake(temp)

    def open_body(self, stored: Stored) -> OpenBody | AwaitedBody | None:
        """The body of a response that has it in a file; None when it is gone or damaged."""
        file = stored.file
        assert file is not None
        try:
            return OpenBody(file, self._body_path(stored, file), self._checked)
        except FileNotFoundError:
            if self._asker is not None:
                return AwaitedBody(file, self.place.body(file.name), self._checked, self._asker)
            self.remove(stored)  # evicted, by this worker or another
        except (Damaged, OSError) as error:
            self.damage(stored, str(error))
        return None

    def _body_path(self, stored: Stored, file: BodyFile) -> Path:
        for waiting in self.writer.pending:
            put = waiting.responses.get(stored.key, {}).get(stored.variant)
            if put is not None and put.temp is not None and put.stored.file == file:
                temp = self.place.temp(put.temp)
                if temp.exists():
                    return temp
        return self.place.body(file.name)

    def damage(self, stored: Stored, why: str) -> None:
        """Handle a failed checksum: remove the response and tell of it; for an awaited body do nothing."""
        if self._asker is not None and self._asker.lacks(stored.file):
            return
        self._is_damaged(stored.key, why)
        self.remove(stored)

    def later(self, work: Callable[[], Data], then: Callable[[Data | Exception], None]) -> None:
        """Do a blocking read in a thread; `then` is called on the loop with the result or the error."""
        loop = asyncio.get_running_loop()

        def run() -> None:
            try:
                found: Data | Exception = work()
            except (OSError, Damaged) as error:
                found = error
            loop.call_soon_threadsafe(then, found)

        self._pool.submit(run)

    # -- what is told --------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Periodic work: close deleted segments, refill the filter. Called four times a second."""
        self._ticks += 1
        if self._ticks % TICKS_PER_LET_GO == 0:
            self._looker.segments.let_go()
            if self._filter is not None:
                self._filter.tick()
            if self._asker is not None and self._asker.over():
                self._asker = None

    def stats(self) -> dict[str, float]:
        """This worker's counters."""
        return {
            "found": self.hits,
            "absent": self.misses,
            "written": self.writer.written,
            "dropped": self.writer.dropped,
            "errors": self.writer.errors,
            "damaged": self.damaged,
            "waiting_bytes": self.writer.waiting.bytes + self.writer.taken.bytes,
            "lag_ms": round(self.writer.lag_s * 1000, 1),
        }

    def _is_damaged(self, key: bytes, why: str) -> None:
        self.damaged += 1
        self._told.add("disk.damaged", f"{why}: {key[:200].decode('latin-1')}")

    def _failed(self, error: sqlite3.Error) -> None:
        self.writer.errors += 1
        if is_damage(error):
            self.writer.damaged = True
            mark_damaged(self.place)
        self._told.add("disk.damaged" if is_damage(error) else "disk.failed", str(error))

    # -- the rest ------------------------------------------------------------------------------------------------------

    def _own(self) -> Looker:
        """The Looker of the current thread."""
        local = self._of_thread
        if not hasattr(local, "looker"):
            local.looker = Looker(self.place, self._sums, self._filter)
        found: Looker = local.looker
        found.segments.let_go()
        return found

    def _fact(self, name: str) -> int:
        return int(self._looker.db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()[0])

    def _call(self, function: Callable[[], None]) -> None:
        """Call a function on the loop, from the writer's thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(function)


_NO_PURGES = PurgeLog()

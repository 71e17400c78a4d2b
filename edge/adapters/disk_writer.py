"""The thread of a worker that writes to the disk tier, so that no request and no loop ever waits for a disk.

    loop: put, remove, forget, use ─► Waiting (bounded) ─► thread: a batch now and then ─► Changer ─► index, segments

One rule: what waits is what look-ups see. Until a batch is committed, `pending` answers for it; a purge that waits
hides what the index still has. When the disk fails, responses are dropped and counted; purges are kept and tried again.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic, sleep

from edge.adapters.disk_body import BodyWriter, temp_name
from edge.adapters.disk_changes import Addition, Changer, Changes
from edge.adapters.disk_files import FileOps
from edge.adapters.disk_index import is_damage
from edge.adapters.disk_pending import Purges, Put, Waiting
from edge.adapters.disk_place import Place
from edge.adapters.disk_room import NoRoom
from edge.adapters.disk_start import Notes
from edge.cache.body import BodyFile
from edge.cache.purge import Purge
from edge.cache.record import encode
from edge.cache.stored import Stored

GATHER_S, GATHER_MANY_S = 0.02, 0.05
MANY = 128  # responses at once, after which the next are gathered longer: in a larger batch each costs less
RETRY_S = 1.0
PACKED_BYTES = 64 * 1024  # a larger body has a file of its own
MAX_WAITING = 48 * 1024 * 1024
MAX_BATCH = 1024 * 1024
MAX_ROWS = 512
HURRY = 8 * 1024 * 1024  # bytes that wait, from which on the thread takes no rest and gathers no longer
WORK_S, REST_S = 0.0006, 0.0006
MAX_USED = 1024
SPILL_STEP = 8 * 1024 * 1024  # reserved at a time where the length is not known
SPILL_FULL = 4 * 1024 * 1024  # bytes that wait to be written before its source is held back

Admit = Callable[[Stored, int], Stored | None]  # what purges left of a response; called in the thread


class Spill:
    """A body written to disk while it streams, instead of being kept in memory. Belongs to the loop."""

    def __init__(self, writer: Writer, length: int | None) -> None:
        self.length = length
        self.failed = False
        self.done: Callable[[BodyFile | None, str], None] | None = None
        self.drained: Callable[[], None] | None = None
        self.given = 0  # bytes, counted by the loop
        self.taken = 0  # bytes, counted by the thread
        self.pieces: deque[bytes | None] = deque()  # None: the end
        self.moved_at = monotonic()
        self._writer = writer
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
        self._writer.wake(self)

    def finish(self, done: Callable[[BodyFile | None, str], None]) -> None:
        """The body is complete: `done` is called with its file, or None when it could not be written."""
        self.done = done
        self.pieces.append(None)
        self._writer.wake(self)

    def abort(self) -> None:
        """Drop the body."""
        self.failed = True
        self._writer.wake(self)


class Writer:
    """The writer thread. `call` schedules a function on the loop; `tell` records an event."""

    def __init__(
        self,
        place: Place,
        changer: Changer,
        notes: Notes,
        admit: Admit,
        call: Callable[[Callable[[], None]], None],
        tell: Callable[[str, str], None],
        ops: FileOps | None = None,
    ) -> None:
        # What is being written and what waits, the older first: nothing is in neither before it is written.
        self.pending = (Waiting(), Waiting())
        self.guard = threading.RLock()  # over the purge sequence: recorded whole, or not yet
        self.written = self.dropped = self.errors = 0
        self.lag_s = 0.0
        self.damaged = False
        self._place, self._changer, self._notes = place, changer, notes
        self._rested_at = monotonic()
        self._admit, self._call, self._tell = admit, call, tell
        self._ops = ops or FileOps()
        self._spills: deque[Spill] = deque()
        self._lock = threading.Lock()
        self._ready = threading.Condition(self._lock)
        self._idle = False  # the thread waits for something to do
        self._closing = self._spilling = False
        self._failing_until = 0.0
        self._many = False
        self._thread = threading.Thread(target=self._run, name="disk-writer", daemon=True)

    # -- the loop's side -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, put: Put) -> bool:
        """Queue a response; False when the queue is full or the disk fails."""
        taken, waiting = self.pending
        too_much = taken.bytes + waiting.bytes + put.bytes > MAX_WAITING
        if self._closing or self.damaged or too_much or monotonic() < self._failing_until:
            self.dropped += 1
            return False
        with self._lock:
            self.waiting.put(put)
            if self._idle:
                self._ready.notify_all()
        return True

    def remove(self, stored: Stored, hashed: tuple[int, int]) -> None:
        """Queue the removal of a response, unless another one replaced it."""
        with self._lock:
            places = self.waiting.responses.setdefault(stored.key, {})
            put = places.get(stored.variant)
            if put is not None and put.stored.received_at > stored.received_at:
                return
            places[stored.variant] = None
            self.waiting.removed.add((*hashed, -1, -1))
            if self._idle:
                self._ready.notify_all()

    def drop(self, row: tuple[int, int, int, int]) -> None:
        """Queue the removal of a useless row."""
        with self._lock:
            self.waiting.removed.add(row)
            if self._idle:
                self._ready.notify_all()

    def forget(self, purge: Purge, now: float) -> None:
        """Queue a purge by URL or tag; look-ups obey it at once."""
        self._notes.add(purge)
        with self._lock:
            self.waiting.purges.add(purge, now)
            if self._idle:
                self._ready.notify_all()

    def forsake(self, temp: str) -> None:
        """Queue the deletion of a temporary file."""
        with self._lock:
            self.waiting.forsaken.append(temp)
            if self._idle:
                self._ready.notify_all()

    def use(self, hashed: tuple[int, int]) -> bool:
        """Note that a row was used; False when the next batch has enough of these notes."""
        if len(self.waiting.used) >= MAX_USED:
            return False
        self.waiting.used.add(hashed)
        return True

    def wake(self, spill: Spill) -> None:
        """A spill has data to write."""
        with self._lock:
            if spill not in self._spills:
                self._spills.append(spill)
            if self._idle:
                self._ready.notify_all()

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Block until everything queued now is written, for `timeout_s` at most; for tests and the end."""
        end = monotonic() + timeout_s
        while self._has_work() or self.taken or self._spills or self._spilling:
            if monotonic() > end or not self._thread.is_alive():
                return False
            sleep(0.002)
        return True

    def close(self) -> None:
        """Write what is queued, then end the thread."""
        with self._lock:
            self._closing = True
            if self._idle:
                self._ready.notify_all()
        if self._thread.is_alive():
            self._thread.join(10.0)

    @property
    def taken(self) -> Waiting:
        """The batch that is being written."""
        return self.pending[0]

    @property
    def waiting(self) -> Waiting:
        """The next batch; change it only under the lock."""
        return self.pending[1]

    def _has_work(self) -> bool:
        """Whether there is more to do than notes of use, which wait for the next batch."""
        waiting = self.waiting
        return bool(waiting.responses or waiting.purges or waiting.removed or waiting.forsaken)

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._wait():
                self._spill_all()
                self._write_batch()
        finally:
            self._changer.close()

    def _wait(self) -> bool:
        """Wait for work; False when the thread should end."""
        with self._lock:
            while not (self._has_work() or self._spills):
                if self._closing:
                    return False
                self._idle = True
                self._ready.wait()
                self._idle = False
            at_once = self._closing or bool(self._spills)
        if not at_once:  # many in one transaction: each costs a turn, and the loop's lock for a while
            gather = GATHER_MANY_S if self._many and self.waiting.bytes < HURRY else GATHER_S
            sleep(RETRY_S if monotonic() < self._failing_until else gather)
        return True

    def breathe(self) -> None:
        """Sleep after enough continuous work, so that the loop gets its turn on a shared core."""
        now = monotonic()
        if now - self._rested_at < WORK_S:
            return
        if not self._closing and self.waiting.bytes + self.taken.bytes < HURRY:
            sleep(REST_S)
            now = monotonic()
        self._rested_at = now

    def _write_batch(self) -> None:
        with self._lock:
            taken = self.waiting
            self.pending = (taken, Waiting())  # in one step: look-ups take no lock
        if not taken:
            return
        puts = [put for places in taken.responses.values() for put in places.values() if put is not None]
        changes = Changes(removed=list(taken.removed), purges=list(taken.purges), used=list(taken.used))
        oldest = puts[0].at if puts else None
        self._many = len(puts) >= MANY
        size = 0
        try:
            for temp in taken.forsaken:
                self._changer.drop_temp(temp)
            for put in puts:
                self.breathe()
                addition = self._addition(put)
                if addition is None:
                    continue
                changes.additions.append(addition)
                size += len(addition.record)
                if size >= MAX_BATCH or len(changes.additions) >= MAX_ROWS:
                    self._apply(changes)
                    changes, size = Changes(), 0
            self._apply(changes)
            if not self._failing_until > monotonic():
                with self._lock:
                    if not self.waiting.purges:
                        self._notes.clear()
        except (sqlite3.Error, OSError, NoRoom) as error:
            self._failed(error, taken, len(changes.additions))
        if oldest is not None:
            self.lag_s = monotonic() - oldest
        with self._lock:
            self.pending = (Waiting(), self.waiting)

    def _apply(self, changes: Changes) -> None:
        """Commit one batch; responses that a purge named meanwhile are left out."""
        self._changer.apply(changes, self._still)
        self.written += len(changes.additions)

    def _still(self, addition: Addition) -> bool:
        return self._admit(addition.stored, addition.seq) is not None  # a soft purge follows in its turn

    def _addition(self, put: Put) -> Addition | None:
        """The record for a response, with its body in a file if it is large; None: a purge came first."""
        stored = self._admit(put.stored, put.seq)
        if stored is None:
            if put.temp is not None:
                self._changer.drop_temp(put.temp)
            return None
        number = put.seq >> 32
        if stored.file is not None or stored.length <= PACKED_BYTES:
            return Addition(stored, encode(stored, number), stored.file, put.temp, put.seq)
        temp = temp_name()
        self._changer.reserve(temp, stored.length)
        target = BodyWriter(self._place, temp, self._ops)
        try:
            for chunk in stored.chunks:
                target.write(chunk)
            body = target.finish()
        except OSError:
            target.close()
            self._changer.drop_temp(temp)
            raise
        return Addition(stored, encode(stored, number, body), body, temp, put.seq)

    def _failed(self, error: Exception, taken: Waiting, lost: int) -> None:
        """The disk is full, read-only, missing or damaged: drop what could not be written and go on serving."""
        self.errors += 1
        self.dropped += max(1, lost)
        if isinstance(error, sqlite3.Error) and is_damage(error):
            self.damaged = True
        self._tell("disk.damaged" if self.damaged else "disk.failed", str(error))
        if isinstance(error, NoRoom):
            return
        self._failing_until = monotonic() + RETRY_S
        with self._lock:
            self.waiting.purges = Purges((*taken.purges, *self.waiting.purges))
            self.waiting.removed |= taken.removed

    # -- spills --------------------------------------------------------------------------------------------------------

    def _spill_all(self) -> None:
        while True:
            with self._lock:
                if not self._spills:
                    return
                spill = self._spills.popleft()
                self._spilling = True
            try:
                self._spill(spill)
            except (sqlite3.Error, OSError, NoRoom) as error:
                self._end_spill(spill)
                if not isinstance(error, NoRoom):
                    self.errors += 1
                    self._tell("disk.failed", str(error))
            self._spilling = False

    def _spill(self, spill: Spill) -> None:
        """Write the data that a spill has received."""
        if spill.failed:
            self._end_spill(spill)
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

    def _end_spill(self, spill: Spill) -> None:
        spill.failed = True
        spill.pieces.clear()
        target, spill.target = spill.target, None
        if target is not None:
            target.close()
            try:
                self._changer.drop_temp(target.temp)
            except (sqlite3.Error, OSError):
                pass  # the next start removes it
        if spill.drained is not None:
            self._call(spill.drained)
        if spill.done is not None:
            self._call(partial(spill.done, None, ""))

"""The thread of a worker that writes to the disk tier, so that no request and no loop ever waits for a disk.

    loop: put, remove, forget, use ─► Waiting (bounded) ─► thread: a batch now and then ─► Changer ─► index, segments

One rule: what waits is what look-ups see. Until a batch is committed, `pending` answers for it; a purge that waits
hides what the index still has. When the disk fails, responses are dropped and counted; purges are kept and tried again.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from time import monotonic, sleep

from edge.adapters.disk_body import BodyWriter, temp_name
from edge.adapters.disk_changes import Changer, Changes
from edge.adapters.disk_files import FileOps
from edge.adapters.disk_index import is_damage
from edge.adapters.disk_notes import Notes
from edge.adapters.disk_pending import Purges, Waiting
from edge.adapters.disk_place import Place
from edge.adapters.disk_room import NoRoom
from edge.adapters.disk_rows import Addition
from edge.adapters.disk_spill import Call, Spill, SpillWriter
from edge.adapters.disk_start import sweep_temps
from edge.cache.purge import Purge
from edge.cache.record import encode
from edge.cache.stored import Stored

GATHER_S, GATHER_MANY_S = 0.02, 0.05
MANY = 128  # responses at once, after which the next are gathered longer: in a larger batch each costs less
RETRY_S = 1.0
PACKED_BYTES = 64 * 1024  # a larger body has a file of its own
AT_ONCE_BYTES = 8 * 1024  # with a body up to here the record is made by the loop
MAX_WAITING = 48 * 1024 * 1024
MAX_BATCH = 1024 * 1024
MAX_ROWS = 512
HURRY = 8 * 1024 * 1024  # bytes that wait, from which on the thread takes no rest and gathers no longer
WORK_S, REST_S = 0.0006, 0.0006
MAX_USED = 1024

Admit = Callable[[Stored, int], Stored | None]  # what purges left of a response; called in the thread


class Writer:
    """The writer thread. `call` schedules a function on the loop; `tell` records an event."""

    def __init__(
        self,
        place: Place,
        changer: Changer,
        notes: Notes,
        admit: Admit,
        seq: Callable[[], int],
        call: Call,
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
        self._admit, self._seq, self._tell = admit, seq, tell
        self._sums = changer.sums
        self._ops = ops or FileOps()
        self._spill_writer = SpillWriter(place, changer, self._ops, call, self.forsake)
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

    def put(self, put: Addition) -> bool:
        """Queue a response; False when the queue is full or the disk fails."""
        stored = put.stored
        taken, waiting = self.pending
        too_much = taken.bytes + waiting.bytes + stored.size_bytes > MAX_WAITING
        if self._closing or self.damaged or too_much or (self._failing_until and monotonic() < self._failing_until):
            self.dropped += 1
            return False
        if stored.length <= AT_ONCE_BYTES and stored.file is None:
            put.make(self._sums)  # a third of what it costs later, when other things have been in the processor's cache
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
        with self._lock:  # in one step, or the thread could clear the note of a purge that does not wait yet
            self._notes.add(purge)
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
            with suppress(sqlite3.Error, OSError):  # the next start does it
                sweep_temps(self._changer)
            while self._wait():
                self._spill_all()
                self._write_batch()
        except Exception as error:
            self.damaged = True  # nothing is read or written any more, and what is purged stays so
            self._tell("disk.failed", f"{type(error).__name__}: {error}")
            raise
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
            if self._closing and monotonic() < self._failing_until:
                return False  # what purges wait is noted
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
        self._many = len(puts) >= MANY
        try:
            self._take_away(taken)
        except (sqlite3.Error, OSError) as error:
            self._failed(error, len(puts), [put.temp for put in puts])
            self._keep(taken)
        else:
            self._add(puts, list(taken.used))
        if taken.since:
            self.lag_s = monotonic() - taken.since
        with self._lock:
            self.pending = (Waiting(), self.waiting)

    def _take_away(self, taken: Waiting) -> None:
        """Carry out purges and removals: before responses, and apart from them, for which there may be no room."""
        if taken.purges or taken.removed:
            self._changer.apply(Changes(removed=list(taken.removed), purges=list(taken.purges)))
        with self._lock:
            if not self.waiting.purges:
                self._notes.clear()
        for temp in taken.forsaken:
            self._changer.drop_temp(temp)

    def _add(self, puts: Sequence[Addition], used: list[tuple[int, int]]) -> None:
        """Write responses, in transactions of a bounded size."""
        changes, size, before = Changes(used=used), 0, self.written
        seq = self._seq()  # what is purged from now on follows in its turn
        try:
            for put in puts:
                ready = put.record and put.seq >= seq
                if not ready:
                    self.breathe()
                addition = put if ready else self._addition(put)
                if addition is None:
                    continue
                changes.additions.append(addition)
                size += addition.length
                if size >= MAX_BATCH or len(changes.additions) >= MAX_ROWS:
                    self._apply(changes)
                    changes, size = Changes(), 0
            if changes.additions or changes.used:
                self._apply(changes)
        except (sqlite3.Error, OSError, NoRoom) as error:
            temps = [each.temp for each in (*puts, *changes.additions)]
            self._failed(error, len(puts) - (self.written - before), temps)

    def _apply(self, changes: Changes) -> None:
        """Commit one batch; responses that a purge named meanwhile are left out."""
        self._changer.apply(changes, self._still)
        self.written += len(changes.additions)

    def _still(self, additions: list[Addition]) -> list[Addition]:
        seq = self._seq()
        return [each for each in additions if each.seq >= seq or self._admit(each.stored, each.seq) is not None]

    def _addition(self, put: Addition) -> Addition | None:
        """What is to be written for it, with its body in a file if it is large; None: a purge came first."""
        stored = self._admit(put.stored, put.seq)
        if stored is None:
            if put.temp is not None:
                self._changer.drop_temp(put.temp)
            return None
        number = put.seq >> 32
        if stored.file is not None:
            return Addition(stored, encode(stored, number), stored.file, put.temp, put.seq)
        if stored.length <= PACKED_BYTES:
            made = Addition(stored, temp=put.temp, seq=put.seq)
            made.make(self._sums)
            return made
        temp = temp_name()
        try:
            self._changer.reserve(temp, stored.length)
        except NoRoom as error:  # for this one; the others of the batch are written
            self._failed(error, 1)
            return None
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

    def _failed(self, error: Exception, lost: int, temps: Iterable[str | None] = ()) -> None:
        """The disk is full, read-only, missing or damaged: drop what could not be written and go on serving.

        `lost`: how many responses; `temps`: their temporary files, which go as soon as the disk lets them.
        """
        self.errors += 1
        self.dropped += max(1, lost)
        if isinstance(error, sqlite3.Error) and is_damage(error):
            self.damaged = True
        self._tell("disk.damaged" if self.damaged else "disk.failed", str(error))
        with self._lock:
            self.waiting.forsaken += [temp for temp in temps if temp is not None]
        if not isinstance(error, NoRoom):
            self._failing_until = monotonic() + RETRY_S

    def _keep(self, taken: Waiting) -> None:
        """What was to be taken away waits for the next try, and is hidden until then."""
        with self._lock:
            waiting = self.waiting
            waiting.purges = Purges((*taken.purges, *waiting.purges))
            waiting.removed |= taken.removed
            waiting.forsaken += taken.forsaken
            for key, places in taken.responses.items():
                for variant, put in places.items():
                    if put is None:
                        waiting.responses.setdefault(key, {}).setdefault(variant, None)

    def _spill_all(self) -> None:
        while True:
            with self._lock:
                if not self._spills:
                    return
                spill = self._spills.popleft()
                self._spilling = True
            try:
                self._spill_writer.write(spill)
            except (sqlite3.Error, OSError, NoRoom) as error:
                self._spill_writer.end(spill)
                if not isinstance(error, NoRoom):
                    self.errors += 1
                    self._tell("disk.failed", str(error))
            self._spilling = False

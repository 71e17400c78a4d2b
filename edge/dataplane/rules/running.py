"""How many requests of each key run now: in this worker alone, or in all workers of a gateway together.

    memory   owners of columns │ a mark for each slot │ for each slot, how many run, by column
                                                         a column for each worker

One rule: a worker writes its own column alone, so that no count is lost between two. A column whose worker was killed
is emptied by whoever is about to refuse for its sake. Where a bucket is full, a worker counts by itself: memory is
bounded, and a flood of clients can only make a limit more lenient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol

WAYS = 8  # slots in which a key may be
SLOTS, COLUMNS = 4096, 64
OWNERS, MARKS = 16 * COLUMNS, 8 * SLOTS
SIZE = OWNERS + MARKS + 4 * SLOTS * COLUMNS
LOOK_S = 1.0  # between two looks for workers that were killed


class Counts(Protocol):
    """How many requests run, by key."""

    def of(self, key: str) -> int:
        """How many run for a key."""

    def begin(self, key: str, most: int = 0) -> int | str | None:
        """One more; who ends it gives this back. None: so many run already. 0: there is no limit."""

    def end(self, begun: int | str) -> None:
        """One less runs."""

    def without_dead(self, now: float) -> bool:
        """Whether something may have been counted that runs no more; it is not counted any more."""


class Alone:
    """The counts of a machine with one worker."""

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()  # no more than are in flight

    def of(self, key: str) -> int:
        return self._running[key]

    def begin(self, key: str, most: int = 0) -> int | str | None:
        running = self._running[key]
        if most and running >= most:
            return None
        self._running[key] = running + 1
        return key

    def end(self, begun: int | str) -> None:
        key = str(begun)
        self._running[key] -= 1
        if not self._running[key]:
            del self._running[key]

    def without_dead(self, now: float) -> bool:
        return False


class Owners(Protocol):
    """Which worker has which column of the shared memory; stored at its beginning."""

    def claim(self, memory: object, columns: int) -> int:
        """The column of this worker; less than 0: none is free."""

    def free(self, memory: object, columns: int, empty: Callable[[int], None]) -> bool:
        """Whether workers are gone that had some; those are emptied, and free from now on."""


class Together:
    """The counts of all workers, in shared memory."""

    def __init__(self, memory: object, owners: Owners) -> None:
        """Raises OSError when no column is free."""
        view = memoryview(memory)  # type: ignore[arg-type]
        self._memory, self._owners = memory, owners
        self._marks = view[OWNERS : OWNERS + MARKS].cast("q")
        self._counts = view[OWNERS + MARKS : SIZE].cast("I")
        self._looked_at = 0.0
        self._more = Alone()  # what found no slot
        owners.free(memory, COLUMNS, self._empty)
        self._own = owners.claim(memory, COLUMNS)
        if self._own < 0:
            raise OSError("no column is left")

    def of(self, key: str) -> int:
        at = self._find(hash(key) or 1)
        return self._more.of(key) if at < 0 else sum(self._row(at)) + self._more.of(key)

    def begin(self, key: str, most: int = 0) -> int | str | None:
        mark = hash(key) or 1
        at = self._find(mark)
        if at < 0:
            at = self._free(mark)
            if at < 0:
                return self._more.begin(key, most)
        elif most and sum(self._row(at)) >= most:
            return None
        self._counts[at * COLUMNS + self._own] += 1
        return at

    def _free(self, mark: int) -> int:
        """A slot for a mark in which nothing runs; less than 0: none."""
        first = mark % (SLOTS // WAYS) * WAYS
        for at in range(first, first + WAYS):
            if not any(self._row(at)):
                self._marks[at] = mark
                return at
        return -1

    def end(self, begun: int | str) -> None:
        if isinstance(begun, str):
            self._more.end(begun)
        else:
            self._counts[begun * COLUMNS + self._own] -= 1

    def without_dead(self, now: float) -> bool:
        if now - self._looked_at < LOOK_S:
            return False
        self._looked_at = now
        try:
            return self._owners.free(self._memory, COLUMNS, self._empty)
        except OSError:
            return False  # no more files may be opened; the next look may

    def _empty(self, column: int) -> None:
        for at in range(column, SLOTS * COLUMNS, COLUMNS):
            self._counts[at] = 0

    def _row(self, at: int) -> list[int]:
        return self._counts[at * COLUMNS : (at + 1) * COLUMNS].tolist()

    def _find(self, mark: int) -> int:
        """The slot of a mark; less than 0: none."""
        first = mark % (SLOTS // WAYS) * WAYS
        try:
            return first + self._marks[first : first + WAYS].tolist().index(mark)
        except ValueError:
            return -1


def counts_of(share: Callable[[str, int], object | None], owners: Owners) -> Counts:
    """What all workers see, or what this one has where that cannot be."""
    memory = share("concurrency", SIZE)
    try:
        return Alone() if memory is None else Together(memory, owners)
    except OSError:
        return Alone()

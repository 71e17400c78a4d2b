"""How fast recovery work may go: at most so many bytes a second, and at most so much of one core.

One rule: work is slowed by sleeping between small pieces, never by stopping half-way: a limit makes a point late, not
torn. Both limits are debts: what was done too fast is slept off at the next piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic, process_time, sleep

from edge.ports import Repository, RepositoryFile

LONGEST_S = 1.0
REST_S = 0.005  # shorter sleeps are not worth it


class Pace:
    """`core` is the share of one core (0: as much as there is), `rate` bytes a second (0: no limit)."""

    def __init__(
        self,
        core: float = 0.0,
        rate: float = 0.0,
        wall: Callable[[], float] = monotonic,
        cpu: Callable[[], float] = process_time,
        rest: Callable[[float], None] = sleep,
    ) -> None:
        self._core, self._rate = core, rate
        self._wall, self._cpu, self._rest = wall, cpu, rest
        self._begun, self._used = wall(), cpu()
        self._due = wall()

    def step(self) -> None:
        """A piece of work was done: rest if it took more of the core than allowed since the last rest."""
        if not self._core:
            return
        wall, cpu = self._wall(), self._cpu()
        owed = (cpu - self._used) / self._core - (wall - self._begun)
        if owed > REST_S:
            self._rest(owed)
        if owed > REST_S or wall - self._begun > LONGEST_S:  # idle time is no credit for later
            self._begun, self._used = self._wall(), self._cpu()

    def moved(self, count: int) -> None:
        """So many bytes went over the line."""
        if not self._rate:
            return
        now = self._wall()
        self._due = max(self._due, now) + count / self._rate
        while self._due > self._wall():
            self._rest(min(self._due - self._wall(), LONGEST_S))


class PacedRepository:
    """`ports.Repository` round another one, within a pace."""

    def __init__(self, inner: Repository, pace: Pace) -> None:
        self.place = inner.place
        self._inner = inner
        self._pace = pace

    def put(self, name: str, data: bytes) -> None:
        """As `ports.Repository` says."""
        self._inner.put(name, data)
        self._pace.moved(len(data))
        self._pace.step()

    def create(self, name: str, data: bytes) -> bool:
        """As `ports.Repository` says."""
        made = self._inner.create(name, data)
        self._pace.moved(len(data))
        return made

    def get(self, name: str) -> bytes | None:
        """As `ports.Repository` says."""
        return self._counted(self._inner.get(name))

    def read(self, name: str, offset: int, length: int) -> bytes | None:
        """As `ports.Repository` says."""
        return self._counted(self._inner.read(name, offset, length))

    def size(self, name: str) -> int | None:
        """As `ports.Repository` says."""
        return self._inner.size(name)

    def files(self, prefix: str) -> Iterator[RepositoryFile]:
        """As `ports.Repository` says."""
        return self._inner.files(prefix)

    def delete(self, name: str) -> None:
        """As `ports.Repository` says."""
        self._inner.delete(name)

    def clean(self) -> None:
        """As `ports.Repository` says."""
        self._inner.clean()

    def _counted(self, data: bytes | None) -> bytes | None:
        self._pace.moved(len(data or b""))
        self._pace.step()
        return data

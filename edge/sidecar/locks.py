"""Locks in the repository: shared to take and to read, exclusive to expire.

A lock is a file under `locks/`. Whoever wants one writes its own first and looks at the others then, so that of two who
come at once at least one sees the other. A lock says until when it counts; its owner writes it anew while it works. One
whose time is over, or whose process on this machine is gone, is dead: it is removed, and told.

One rule: nothing is published under a lock that may have been taken for dead. `check` is asked right before, and looks
whether the file is still there and whether it was renewed in time by a clock that nobody can set.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex
from time import monotonic, time

import orjson

from edge.errors import LockLost, RecoveryError, RepositoryLocked
from edge.ports import Repository

COUNTS_S = 600.0
RENEW_S = 60.0


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock. `started` tells the process from a later one with the same id."""

    exclusive: bool
    purpose: str
    host: str
    pid: int
    started: str
    until: float


class Lock:
    """A lock that is held. `keep` from time to time, `check` before publishing."""

    def __init__(self, repository: Repository, exclusive: bool, purpose: str, wall: Callable[[], float] = time) -> None:
        self._repository = repository
        self._name = f"locks/{token_hex(8)}"
        self._exclusive, self._purpose, self._wall = exclusive, purpose, wall
        self._renewed = 0.0
        self.removed: list[str] = []  # dead locks that were found, for people

    def acquire(self) -> None:
        """Raises RepositoryLocked; then no lock of ours is left."""
        self._write()
        try:
            for name, holder in self._others():
                if holder is None:
                    raise RepositoryLocked(f"{self._repository.place}: {name} cannot be read: delete that file")
                if is_dead(holder, self._wall()):
                    self._repository.delete(name)
                    self.removed.append(f"{holder.purpose} of {holder.host}, process {holder.pid}")
                elif self._exclusive or holder.exclusive:
                    raise RepositoryLocked(
                        f"{self._repository.place} is locked for {holder.purpose} by process {holder.pid} on "
                        f"{holder.host}: wait until it is done, or {holder.until - self._wall():.0f} s if it is dead"
                    )
        except BaseException:
            self.release()
            raise

    def keep(self) -> None:
        """Renew the lock when it is time."""
        if monotonic() - self._renewed > RENEW_S:
            self.check()
            self._write()

    def check(self) -> None:
        """Raises LockLost when others may think that we are dead."""
        if monotonic() - self._renewed > COUNTS_S or self._repository.size(self._name) is None:
            raise LockLost(
                f"{self._repository.place}: the lock for {self._purpose} was lost after a long pause or a jump of a "
                f"clock; nothing was published: try again"
            )

    def release(self) -> None:
        """Release the lock; if the repository refuses or is unreachable, it expires by itself."""
        try:
            self._repository.delete(self._name)
        except RecoveryError:
            return

    def _write(self) -> None:
        until = self._wall() + COUNTS_S
        holder = Holder(
            self._exclusive, self._purpose, socket.gethostname(), os.getpid(), started_of(os.getpid()), until
        )
        self._repository.put(self._name, orjson.dumps(asdict(holder)))
        self._renewed = monotonic()

    def _others(self) -> Iterator[tuple[str, Holder | None]]:
        for file in self._repository.files("locks/"):
            if file.name == self._name:
                continue
            data = self._repository.get(file.name)
            if data is None:
                continue  # let go meanwhile
            try:
                yield file.name, Holder(**orjson.loads(data))
            except (ValueError, TypeError):
                yield file.name, None


@contextmanager
def locked(repository: Repository, exclusive: bool, purpose: str) -> Iterator[Lock]:
    """Hold a lock. Raises RepositoryLocked."""
    lock = Lock(repository, exclusive, purpose)
    lock.acquire()
    try:
        yield lock
    finally:
        lock.release()


def is_dead(holder: Holder, now: float) -> bool:
    """Whether a lock counts no more: its time is over, or it is of a process here that is gone."""
    if holder.until < now:
        return True
    return holder.host == socket.gethostname() and started_of(holder.pid) != holder.started


def started_of(pid: int) -> str:
    """Boot and start time of a process; empty when there is none of this number."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except OSError:
        return ""

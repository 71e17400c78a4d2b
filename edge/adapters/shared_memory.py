"""Memory that all workers of a gateway see: files that are mapped, one for each table that rules ask for.

One rule: it is of one run. The name of a file holds the seed by which these workers hash, for the marks in it mean
nothing to others; what earlier runs left is removed. Without room, or for a worker alone, there is none.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

OWNER = struct.Struct("qq")  # a process, and when it was started; zeros: nobody
SEED = "PYTHONHASHSEED"  # the supervisor gives all its workers the same


def shared_memory(folder: Path, name: str, size: int) -> mmap.mmap | None:
    """The memory of that name, zeros at first; None where there can be none."""
    run = os.environ.get(SEED, "")
    if not run.isdigit():
        return None
    path = folder / f"{run}-{sha256(name.encode()).hexdigest()[:24]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if not old.name.startswith(f"{run}-"):
                with suppress(OSError):  # another worker may have been first
                    old.unlink()
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, size)  # or a full disk would end the process at a write
            return mmap.mmap(file, size)
        finally:
            os.close(file)
    except OSError:
        return None


class Columns:
    """Which process has which column of a memory that begins with a table of them (`rules.running`)."""

    def __init__(self, folder: Path) -> None:
        self._lock = folder / f"{os.environ.get(SEED, '')}-columns"

    def claim(self, memory: object, columns: int) -> int:
        """This process's, or the first that is free; less than 0: none is."""
        own = OWNER.pack(os.getpid(), started_at(os.getpid()))
        with self._locked():
            owners = _owners(memory, columns)
            held = [bytes(each) for each in owners]
            for wanted in (own, bytes(OWNER.size)):
                if wanted in held:
                    owners[held.index(wanted)][:] = own
                    return held.index(wanted)
        return -1

    def free(self, memory: object, columns: int, empty: Callable[[int], None]) -> bool:
        """Whether processes are gone that had some; those are emptied, and free from now on."""
        found = False
        with self._locked():
            for at, owner in enumerate(_owners(memory, columns)):
                pid, started = OWNER.unpack(owner)
                if pid and started_at(pid) != started:
                    empty(at)
                    owner[:] = bytes(OWNER.size)
                    found = True
        return found

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time. Raises OSError."""
        file = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)


def _owners(memory: object, columns: int) -> list[memoryview]:
    view = memoryview(memory)  # type: ignore[arg-type]
    return [view[at : at + OWNER.size] for at in range(0, columns * OWNER.size, OWNER.size)]


def started_at(pid: int) -> int:
    """When a process was started, in ticks since the machine was; 0: it runs no more."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if state in "ZX" else int(rest[18])

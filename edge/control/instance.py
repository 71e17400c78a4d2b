"""One gateway for each state directory: its lock, and which workers an earlier supervisor left behind.

One rule: a worker's process id is on disk before it can serve, so that whoever comes after a killed supervisor finds
it; an id that means another process by now is passed over.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import orjson

from edge.control.early import WORKER_MODULE, EarlyWorker
from edge.control.slots import Child
from edge.control.state_files import open_plain
from edge.control.worker_process import spawn_process
from edge.errors import EdgeError

WORKERS_FILE = "workers.json"
LOCK_FILE = "supervisor.lock"


class CannotStart(EdgeError):
    """The gateway cannot start; one clear line says why."""


def lock_state(state: Path) -> IO[bytes]:
    """Hold the state directory until the file is closed. Raises CannotStart when another gateway holds it."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock = os.fdopen(open_plain(state / LOCK_FILE, os.O_WRONLY | os.O_CREAT, 0o666), "ab")
    except OSError as error:
        raise CannotStart(f"{state}: cannot be used as state directory: {LOCK_FILE}: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise CannotStart(f"{state}: another gateway runs with this state directory") from None
    return lock


def same_state(state: Path, held: int) -> IO[bytes]:
    """The lock that the program before hands over. Raises CannotStart when it is another directory's."""
    lock = os.fdopen(held, "ab")
    try:
        same = os.path.samestat(os.fstat(held), os.stat(state / LOCK_FILE))
    except OSError:
        same = False
    if not same:
        lock.close()
        raise CannotStart(f"{state}: the gateway that runs has another state directory; another one needs a restart")
    return lock


def orphaned(state: Path) -> list[int]:
    """The process ids of workers that an earlier supervisor left running. Ids that belong to other programs now are
    left out.
    """
    try:
        with os.fdopen(open_plain(state / WORKERS_FILE, os.O_RDONLY), "rb") as file:
            found = orjson.loads(file.read())
    except (OSError, orjson.JSONDecodeError):
        return []
    return [pid for pid in found if isinstance(pid, int) and is_worker(pid)]


def is_worker(pid: int) -> bool:
    """Whether the process is an edge worker."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return WORKER_MODULE.encode() in words


def end_orphans(orphans: list[int]) -> None:
    """The new workers listen: the old ones drain and end."""
    for pid in orphans:
        if is_worker(pid):
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass  # it ended by itself


class WorkerPidFile:
    """The process ids of the workers, in a file that is written before a worker can serve; the next supervisor reads
    it if this one is killed. Where it cannot be written the worker serves all the same, and `unwritten` is told why.
    """

    def __init__(self, path: Path, orphans: list[int], early: list[EarlyWorker]) -> None:
        self.path = path
        self.unwritten: Callable[[str], None] = lambda why: None
        self._early = early
        self._orphans = orphans
        self._pids: dict[int, int] = {}

    async def spawn(self, index: int) -> Child:
        """Start a worker and write its process id down."""
        child = await spawn_process(index, self._early)
        self._pids[index] = child.pid
        self._write([*self._orphans, *self._pids.values()])
        return child

    def close(self) -> None:
        """No worker of this supervisor is left. Those of an earlier one may be, where this start failed."""
        left = [pid for pid in self._orphans if is_worker(pid)]
        if left:
            self._write(left)
        else:
            with suppress(OSError):
                self.path.unlink()

    def _write(self, pids: list[int]) -> None:
        data, fresh = orjson.dumps(pids), self.path.with_suffix(".new")
        try:
            fresh.write_bytes(data)
            fresh.replace(self.path)
        except OSError as error:
            with suppress(OSError):
                fresh.unlink()
            if not self._written_over(data):
                self.unwritten(f"{self.path}: {error.strerror}")

    def _written_over(self, data: bytes) -> bool:
        """On a full disk the file that is there has room of its own: one write, with spaces behind, is whole or not."""
        try:
            file = open_plain(self.path, os.O_WRONLY)
        except OSError:
            return False
        try:
            data = data.ljust(os.fstat(file).st_size)
            return os.pwrite(file, data, 0) == len(data)
        except OSError:
            return False
        finally:
            os.close(file)

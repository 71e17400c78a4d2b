"""Worker processes that are started before the supervisor reads its own libraries, so that both read theirs at once.

One rule: such a process has been told nothing and serves nothing until it is taken (`worker_process.spawn_process`).
Whoever started it ends those that nobody took. This module imports nothing that takes time.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.config.loader import Config

WORKER_MODULE = "edge.cli.worker"
MANAGER = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


# Of all workers, for they share tables of what they hash (`adapters.shared_memory`); nobody else knows it.
HASH_SEED = str(int.from_bytes(os.urandom(4), "big") or 1)


def environment() -> dict[str, str]:
    """What a worker's process is given: nothing of the service manager's, which speaks with the supervisor."""
    own = {name: value for name, value in os.environ.items() if name not in MANAGER}
    return {**own, "PYTHONHASHSEED": HASH_SEED}


class EarlyWorker:
    """A worker process that runs already, and our ends of its link and of the channel for sockets."""

    def __init__(self) -> None:
        self.link, theirs = socket.socketpair()
        self.channel, other = socket.socketpair()
        self.channel.setblocking(False)
        # Ctrl-C on a terminal is the supervisor's to handle, also while a worker has not said so yet.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with theirs, other:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", WORKER_MODULE, str(theirs.fileno()), str(other.fileno())],
                    pass_fds=[theirs.fileno(), other.fileno()],
                    stdin=subprocess.DEVNULL,
                    env=environment(),
                )
        finally:
            signal.signal(signal.SIGINT, before)
        self.pid = self._process.pid

    async def wait(self) -> int:
        """Wait for the process to end; returns its exit code."""
        import asyncio  # who waits has it; reading it takes as long as starting the process

        if self._process.poll() is not None:
            return self._process.returncode  # a signal that came too late has reaped it: nobody has that id
        ended = asyncio.Event()
        handle = os.pidfd_open(self.pid)
        loop = asyncio.get_running_loop()
        loop.add_reader(handle, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)
        return self._process.wait()

    def send_signal(self, number: int) -> None:
        """Send a signal, if the process still runs."""
        self._process.send_signal(number)

    def end(self) -> None:
        """End the process: it is not needed."""
        self._process.kill()
        self._process.wait()
        self.link.close()
        self.channel.close()


_begun: list[EarlyWorker] = []


def begin_early() -> list[EarlyWorker]:
    """One, before it is known how many are wanted. Whoever asks for this ends what is left of it (`end_early`)."""
    _begun.append(EarlyWorker())
    return _begun


def start_early(count: int) -> list[EarlyWorker]:
    """So many, with what has begun; whoever takes one takes it out of the list."""
    found = [_begun.pop() for _ in range(min(count, len(_begun)))]
    return [*found, *(EarlyWorker() for _ in range(count - len(found)))]


def end_early(left: Sequence[EarlyWorker]) -> None:
    """End the early workers that nobody took over."""
    for each in left:
        each.end()


def worker_count(config: Config) -> int:
    """How many workers. "auto" is one for each core that this process may use; one where a route caches without disk.

    Each worker's memory is its own: with several and no tier that they share, a stored response would be a hit or a
    miss by the connection that asks, and be fetched once for each worker. Who wants that gives the number.
    """
    workers = config.listen.workers
    if isinstance(workers, int):
        return workers
    caches = config.cache.disk is None and any(route.cache is not None for route in config.routes)
    return 1 if caches else max(1, len(os.sched_getaffinity(0)))

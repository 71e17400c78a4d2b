"""A program that is started and is not our child: the next program of an upgrade, which outlives this one.

One rule: a service manager waits at a stop only for a main process that is its own child when it hears of it (systemd
would kill any other at once). So a shell starts the program and ends: the manager is its parent from the beginning.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Mapping, Sequence

_START = '"$@" </dev/null & echo $! >&0'  # the shell's standard input is a pipe that is written to


class Detached:
    """A program that outlives its starter, so that it is nobody's child process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._handle = os.pidfd_open(pid)

    @classmethod
    async def start(cls, command: Sequence[str], fds: Sequence[int], env: Mapping[str, str]) -> Detached:
        """Start a program through a shell that ends at once. Raises OSError."""
        if shutil.which(command[0]) is None:
            raise FileNotFoundError(2, "No such file or directory", command[0])
        told, tell = os.pipe()
        try:
            try:
                shell = await asyncio.create_subprocess_exec(
                    *("/bin/sh", "-c", _START, "sh", *command), pass_fds=fds, env=env, stdin=tell
                )
            finally:
                os.close(tell)
            await shell.wait()
            said = os.read(told, 32)
        finally:
            os.close(told)
        if not said:
            raise ChildProcessError(10, "the shell did not start it", command[0])
        return cls(int(said))

    def send_signal(self, number: int) -> bool:
        """Send a signal; False when the process is gone."""
        try:
            signal.pidfd_send_signal(self._handle, number)
        except ProcessLookupError:
            return False
        return True

    async def wait(self) -> None:
        """Wait for the end of the process."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._handle, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._handle)

    def close(self) -> None:
        """Stop watching the process."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

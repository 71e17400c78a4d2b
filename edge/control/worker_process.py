"""A worker as a process of its own: how it is started, signalled, and handed listening sockets.

One rule: it is told over its link; the second socket that it is given carries files alone.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Sequence

from edge.adapters.sockets import send_sockets
from edge.control.early import WORKER_MODULE, EarlyWorker, environment
from edge.control.link import Link, connect
from edge.control.slots import Child


class ProcessChild:
    """A worker as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process | EarlyWorker, link: Link, channel: socket.socket) -> None:
        self.pid = process.pid
        self.link = link
        self._process = process
        self._channel = channel

    async def wait(self) -> int:
        try:
            return await self._process.wait()
        finally:
            self._channel.close()

    def hand(self, sockets: Sequence[socket.socket]) -> None:
        send_sockets(self._channel, sockets)

    def signal(self, number: signal.Signals) -> None:
        try:
            self._process.send_signal(number)
        except ProcessLookupError:
            pass  # it is gone already


async def spawn_process(index: int, early: list[EarlyWorker]) -> Child:
    """Start a worker with one end of a socketpair, or take one that was started early."""
    if early:
        taken = early.pop(0)
        return ProcessChild(taken, await connect(taken.link), taken.channel)
    ours, theirs = socket.socketpair()
    channel, other = socket.socketpair()
    channel.setblocking(False)
    with theirs, other:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", WORKER_MODULE, str(theirs.fileno()), str(other.fileno())),
            pass_fds=[theirs.fileno(), other.fileno()],
            env=environment(),
            stdin=asyncio.subprocess.DEVNULL,
        )
    return ProcessChild(process, await connect(ours), channel)

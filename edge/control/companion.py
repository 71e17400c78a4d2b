"""A process beside the gateway that is kept running: the sidecar of recovery points, the issuer of certificates.

One rule: it lives exactly as long as its link, and the gateway never waits for it. One that dies is replaced, after a
pause that grows while its successors die at once too.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from edge.control.link import Link, connect
from edge.frames import Frame

BACKOFF_MIN_S, BACKOFF_MAX_S, STEADY_S = 1.0, 60.0, 30.0
END_S = 2.0


class Companion:
    """Keeps a process running beside the gateway. `first` makes the first frame for each process; `died` gets the
    exit code and the pause before the next one.
    """

    def __init__(
        self,
        module: str,
        first: Callable[[], Frame],
        on_frame: Callable[[Frame], None],
        died: Callable[[int, float], None],
    ) -> None:
        self._module, self._first, self._on_frame, self._died = module, first, on_frame, died
        self.link: Link | None = None
        self.wanted = True  # another one follows when it ends
        self.restarts = 0
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._replaced = False

    @property
    def kept(self) -> bool:
        """Whether the process runs or is about to be started again."""
        return self._keeper is not None

    def start(self) -> None:
        """Keep the process running: start it, and again whenever it dies. Does nothing if it is kept already."""
        self._keeper = self._keeper or asyncio.create_task(self._keep(), name=self._module)

    def replace(self, reason: str) -> None:
        """End the process, whatever it does now, and start another one at once."""
        if self.link is not None:
            self._replaced = True
            self.link.end(reason)  # it ends with its link

    async def stop(self) -> None:
        """End the process and do not start it again."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self.link is not None:
            self.link.end("the gateway stops")
        process = self._process
        if process is not None and process.returncode is None:
            try:
                async with asyncio.timeout(END_S):
                    await process.wait()
            except TimeoutError:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGKILL)
                await process.wait()

    async def _keep(self) -> None:
        backoff_s = BACKOFF_MIN_S
        while self.wanted:
            begun = monotonic()
            self._replaced = False
            code = await self._live_once()
            if self._replaced:
                continue
            if monotonic() - begun > STEADY_S:
                backoff_s = BACKOFF_MIN_S
            self.restarts += 1
            self._died(code, backoff_s)
            await asyncio.sleep(backoff_s)
            backoff_s = min(BACKOFF_MAX_S, backoff_s * 2)
        self._keeper = None

    async def _live_once(self) -> int:
        """Run the process once; returns its exit code."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", self._module, str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
            )
        link = self.link = await connect(ours, self._on_frame)
        link.send(self._first())
        try:
            return await process.wait()
        finally:
            link.end("its process ended")

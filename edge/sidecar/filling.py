"""The sidecar's side of a restore whose bodies follow: it brings them, answers workers that want one now, and tells.

    socket in the cache's folder ◄── 32 bytes: a body's name ── worker
                                 ──► "B" and the body │ "F": it is in its file now │ "N": not now ──►

One rule: a repository that is away is no end: bringing goes on when it is back, later each time. It ends when every
body came or is known to be lost.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from time import monotonic
from typing import Any

from edge.errors import EdgeError
from edge.sidecar.fill import Filler

THREADS = 8
NAME_BYTES, NAME_S = 32, 2.0
RETRY_MIN_S, RETRY_MAX_S = 1.0, 60.0

Tell = Callable[[str, Mapping[str, Any]], None]


class Filling:
    """`listening` is the bound socket; `tell` takes events, `publish` how far it is (None: at its end)."""

    def __init__(
        self,
        filler: Filler,
        listening: socket.socket,
        tell: Tell,
        publish: Callable[[dict[str, Any] | None], None],
    ) -> None:
        self._filler, self._listening, self._tell, self._publish = filler, listening, tell, publish
        self._threads = ThreadPoolExecutor(THREADS, "asked")
        self.asked = 0

    async def run(self) -> None:
        """Fetch bodies until all are stored."""
        begun = monotonic()
        server = await asyncio.start_unix_server(self._answer, sock=self._listening)
        async with server:
            await self._bring()
        filled = self._filler.filled
        self._publish(None)
        facts = {"point": filled.point, "bodies": filled.bodies, "bytes": filled.body_bytes, "asked": self.asked}
        self._tell("recovery.filled", {**facts, "lost": filled.lost, "seconds": round(monotonic() - begun, 1)})
        self._threads.shutdown(wait=False)

    async def _bring(self) -> None:
        pause_s = RETRY_MIN_S
        while True:
            try:
                more = await self._turn()
            except EdgeError as error:
                facts = {"what": "bring bodies", "error": type(error).__name__, "detail": error.detail}
                self._tell("recovery.failed", facts)
                await asyncio.sleep(pause_s)
                pause_s = min(RETRY_MAX_S, pause_s * 2)
                continue
            if not more:
                return
            pause_s = RETRY_MIN_S

    async def _turn(self) -> bool:
        """One turn in a thread, told of once a second."""
        turn = asyncio.ensure_future(asyncio.to_thread(self._filler.turn))
        while not turn.done():
            await asyncio.wait((turn,), timeout=1.0)
            self._publish({**asdict(self._filler.filled), "asked": self.asked})
        return turn.result()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(NAME_S):
                name = await reader.readexactly(NAME_BYTES)
            self.asked += 1
            try:
                body = await asyncio.get_running_loop().run_in_executor(self._threads, self._filler.ask, name)
                writer.write(b"F" if body is None else b"B")
                writer.write(body or b"")
            except EdgeError:
                writer.write(b"N")  # the turn that goes on beside tells what is wrong
            await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, OSError):
            pass  # the worker went; it needs no answer
        finally:
            writer.close()

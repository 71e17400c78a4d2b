"""The issuer's process: certificates by ACME, beside the gateway; started by the supervisor, and on no request's CPU.

    first frame (configuration) ─► the lock of this state directory ─► names, when they are due
    ASK to the supervisor ─► every worker has the tokens           CERTIFICATES to it: how the names stand
    ASK from it (renew)   ─► ACK

One rule: it lives exactly as long as its link. Whenever it is killed, the next one finds on disk what there is.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvloop

from edge.adapters import acme_files
from edge.control.link import Link, connect
from edge.control.packing import unpack
from edge.errors import EdgeError
from edge.frames import Frame, FrameKind, ack
from edge.issuer.agent import IssuerAgent

FIRST_FRAME_S = 10.0
SHOWN_S = 20.0


async def run_issuer(fd: int) -> None:
    """Work until the link ends, or a job hangs."""
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C is the supervisor's to handle; the link tells
        signal.signal(number, signal.SIG_IGN)
    frames: asyncio.Queue[Frame] = asyncio.Queue()
    link = await connect(socket.socket(fileno=fd), frames.put_nowait)
    async with asyncio.timeout(FIRST_FRAME_S):
        first = await frames.get()
    issuer = Issuer(link, first)
    link.on_frame = issuer.on_frame
    while not frames.empty():
        issuer.on_frame(frames.get_nowait())
    own = asyncio.create_task(issuer.run(), name="certificates")
    ended = asyncio.create_task(link.ended.wait(), name="link")
    await asyncio.wait((own, ended), return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(0)  # what was told last leaves
    # A job in a thread cannot be stopped half-way, and need not be: it was written down before it began.
    os._exit(0 if link.closed is not None else 1)


class Issuer:
    """The process's side of an agent."""

    def __init__(self, link: Link, first: Frame) -> None:
        self._link = link
        config = unpack(first.body["config"])
        self._state = Path(config.state.path)
        self._alone = asyncio.Event()  # nobody else asks for certificates of this state
        self._work: set[asyncio.Task[None]] = set()
        self.agent = IssuerAgent(acme_files.orders(config), self._show, self._tell, self._publish)

    async def run(self) -> None:
        """Issue and renew until a job hangs; returns then, and the process ends."""
        await asyncio.to_thread(acme_files.only_issuer, self._state)
        self._alone.set()
        try:
            await self.agent.run()
        except EdgeError as error:
            self._tell("certificate.issuer_ends", {"evidence": error.detail})

    def on_frame(self, frame: Frame) -> None:
        """Another configuration, or what the supervisor asks."""
        if frame.kind is FrameKind.CONFIG:
            self.agent.want(acme_files.orders(unpack(frame.body["config"])))
        elif frame.kind is FrameKind.ASK:
            task = asyncio.create_task(self._answer(frame), name="asked")
            self._work.add(task)
            task.add_done_callback(self._work.discard)

    async def _answer(self, frame: Frame) -> None:
        await self._alone.wait()
        try:
            self._link.send(ack(frame, await self.agent.renew(frame.body["names"])))
        except EdgeError as error:
            self._link.send(ack(frame, error=error.detail))

    async def _show(self, tokens: Mapping[str, str]) -> object:
        async with asyncio.timeout(SHOWN_S):
            return await self._link.ask(FrameKind.ASK, {"what": "show", "tokens": dict(tokens)})

    def _tell(self, kind: str, facts: Mapping[str, Any]) -> None:
        self._link.send(Frame(FrameKind.EVENT, {**facts, "kind": kind}))

    def _publish(self, rows: list[dict[str, Any]]) -> None:
        self._link.send(Frame(FrameKind.CERTIFICATES, {"rows": rows}))


if __name__ == "__main__":
    uvloop.run(run_issuer(int(sys.argv[1])))

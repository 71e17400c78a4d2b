"""The worker process: its first frame says what to serve; then it listens, and its agent does what the supervisor says.

    first frame ─► build ─► listen ─► READY ─► serve ─► DRAIN or SIGTERM ─► drain ─► end

One rule: only a DRAIN frame or SIGTERM ends a worker. Ctrl-C on a terminal reaches the whole process group and is the
supervisor's to handle; a link that closes leaves the worker serving with its last view.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
from time import monotonic
from typing import Any

from edge.adapters.session_tickets import TicketSecret
from edge.adapters.sockets import receive_sockets
from edge.app import build, listen
from edge.control.link import Link, connect
from edge.control.packing import unpack
from edge.dataplane.worker.agent import WorkerAgent
from edge.dataplane.worker.listener import place_text
from edge.dataplane.worker.worker import Worker
from edge.errors import ConfigError
from edge.frames import Frame, FrameKind
from edge.worker_reload import WorkerReload, by_name

EXIT_CONFIG = 3  # the supervisor tells a worker that cannot start from one that crashed


async def run_worker(fd: int, channel: int) -> int:
    """Serve until told to end; the exit code. Listening sockets come over the channel."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sockets = socket.socket(fileno=channel)
    sockets.setblocking(False)  # what a frame names was sent before it
    frames: asyncio.Queue[Frame] = asyncio.Queue()
    link = await connect(socket.socket(fileno=fd), frames.put_nowait)
    first = await first_frame(frames, link)
    if first is None:
        return 1
    ended = asyncio.Event()
    try:
        agent = await start(first.body, link, ended.set, sockets)
    except (ConfigError, OSError) as error:
        text = "; ".join(error.problems) if isinstance(error, ConfigError) else str(error)
        link.send(Frame(FrameKind.EVENT, {"kind": "worker.cannot_start", "evidence": text}))
        await asyncio.sleep(0)  # the frame leaves before the process does
        return EXIT_CONFIG
    while not frames.empty():  # what came while it was built
        agent.on_frame(frames.get_nowait())
    link.on_frame = agent.on_frame
    _on_signals(agent)
    await ended.wait()
    await agent.stop()
    link.end("ended")
    return 0


async def first_frame(frames: asyncio.Queue[Frame], link: Link) -> Frame | None:
    """What it is to serve; None when the supervisor went before it said. It may be busy with its state for long."""
    coming = asyncio.ensure_future(frames.get())
    ended = asyncio.ensure_future(link.ended.wait())
    await asyncio.wait((coming, ended), return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    if coming.done():
        return coming.result()
    coming.cancel()
    return None


async def start(body: dict[str, Any], link: Link, ended: Any, channel: socket.socket) -> WorkerAgent:
    """Build, apply the state of the first frame, listen. Raises ConfigError or OSError."""
    config = unpack(body["config"])
    raise_open_files()

    def take(count: int) -> list[socket.socket]:
        return receive_sockets(channel, count)

    sockets = by_name(body["listeners"], take(len(body["listeners"])))
    worker = build(
        config, filename=body["filename"], disk=body.get("disk", True), tickets=TicketSecret.told(body["tickets"])
    )
    agent = WorkerAgent(worker, link.send, ended, WorkerReload(worker, config, take))
    spread_by(worker, link)
    agent.begin(body)
    addresses = await listen(worker, config, sockets)
    agent.start()
    worker.collector.begin(monotonic(), worker.applications is not None)
    code = worker.applications.code if worker.applications is not None else ""
    told = {"pid": os.getpid(), "addresses": [place_text(each) for each in addresses], "code": code}
    link.send(Frame(FrameKind.READY, told))
    return agent


def spread_by(worker: Worker, link: Link) -> None:
    """What somebody has this worker purge is to go in the others, before he hears that it went."""
    if worker.store is not None:
        worker.store.spread = lambda purge: link.ask(FrameKind.INVALIDATED, {"purge": purge.to_dict(), "number": None})


def raise_open_files() -> None:
    """As many open files as the machine allows this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _on_signals(agent: WorkerAgent) -> None:
    """SIGTERM: a drain; a second one ends at once. SIGUSR1: reopen the log."""
    loop = asyncio.get_running_loop()
    told = False

    def terminate() -> None:
        nonlocal told
        if told:
            os._exit(143)
        told = True
        agent.drain(agent.worker.limits.grace)

    loop.add_signal_handler(signal.SIGTERM, terminate)
    loop.add_signal_handler(signal.SIGUSR1, agent.worker.log.reopen)

"""A whole gateway in one process: supervisor and workers over in-memory links; the same code as with processes.

One rule: no clock is waited on. What a worker tells or does is awaited as an answer, or polled with a limit.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Sequence
from typing import Any

from edge.app import build, listen
from edge.balance.health import Admin
from edge.cache.fleet.stream import StreamPlace
from edge.cache.purge import PurgeLog
from edge.cli.worker_process import spread_by
from edge.config.loader import Config, config_hash, load_text
from edge.config.sources import Sources
from edge.control.journal import Revision
from edge.control.link import Link, pair
from edge.control.membership import Membership, of_file
from edge.control.packing import unpack
from edge.control.purging import Order
from edge.control.registry import Change
from edge.control.reloading import Reloading
from edge.control.supervisor import RunningConfig, Supervisor
from edge.dataplane.worker.agent import WorkerAgent
from edge.dataplane.worker.worker import Worker
from edge.frames import Frame, FrameKind
from edge.worker_reload import WorkerReload
from kit.waiting import WAIT_S

TWO_WORKERS = """
[log]
access = "off"
[listen]
http = ["127.0.0.1:0"]
workers = 2
"""


class InProcess:
    """A worker in this process, as a `workers.Child`."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.link, self._own = pair()
        self.worker: Worker | None = None
        self.agent: WorkerAgent | None = None
        self.addresses: list[tuple[str, int]] = []
        self.frames: list[Frame] = []
        self.deaf = False  # reads frames, answers none
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._own.on_frame = self._frame
        self._work: list[asyncio.Task[None]] = []

    def _frame(self, frame: Frame) -> None:
        self.frames.append(frame)
        if frame.kind is FrameKind.CONFIG:
            self._work.append(asyncio.ensure_future(self._start(frame.body)))
        elif self.agent is not None and not self.deaf:
            self.agent.on_frame(frame)

    async def _start(self, body: dict[str, Any]) -> None:
        config = unpack(body["config"])
        worker = build(config)
        agent = WorkerAgent(worker, self._own.send, self._end, WorkerReload(worker, config))
        spread_by(worker, self._own)
        agent.begin(body)
        self.addresses = await listen(worker, config)
        agent.start()
        self.worker, self.agent = worker, agent
        self._own.send(Frame(FrameKind.READY, {"pid": self.pid}))

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(0)

    async def wait(self) -> int:
        """Its end, told by a drain or by a signal."""
        code = await self._ended
        if self.agent is not None and self.worker is not None:
            await self.agent.stop()
            await self.worker.close()
        self._own.end("the worker ended")
        return code

    def hand(self, sockets: Sequence[socket.socket]) -> None:
        """Never asked: a worker in this process binds for itself."""
        assert not sockets

    def signal(self, number: signal.Signals) -> None:
        """As a process would die of it; the link breaks at once."""
        if not self._ended.done():
            self._ended.set_result(-int(number))


class MemoryKeeper:
    """Durable as long as the test holds it; `done` is what was written, in order."""

    def __init__(self) -> None:
        self.done: list[tuple[Any, ...]] = []
        self._purge_log = PurgeLog()
        self._number = 0
        self.fail: Exception | None = None

    def _write(self, *what: Any) -> None:
        if self.fail is not None:
            raise self.fail
        self.done.append(what)

    def register(self, kind: str, name: str, values: dict[str, Any], change: Change) -> None:
        self._write("register", kind, name, values)

    def unregister(self, kind: str, name: str, change: Change) -> None:
        self._write("unregister", kind, name)

    def set_state(self, kind: str, name: str, state: Admin, change: Change) -> None:
        self._write("state", kind, name, state.value)

    def note(self, action: str, name: str, change: Change, kind: str = "region") -> None:
        self._write("note", action, name) if kind == "region" else self._write("note", f"{kind}.{action}", name)

    def membership(self, config: Config) -> Membership:
        return of_file(config)

    def purge_log(self) -> PurgeLog:
        return self._purge_log

    def record_purges(self, orders: Sequence[Order], place: StreamPlace | None) -> list[int | None]:
        numbers: list[int | None] = []
        for order in orders:
            self._write("purge", order.purge.to_dict())
            self._number += 1
            numbers.append(self._number)
        return numbers

    def save_purge_log(self, purge_log: PurgeLog) -> None:
        self._purge_log = PurgeLog.from_dict(purge_log.to_dict())

    def revision(self, sources: Sources) -> int:
        self._write("revision", sources.text)
        return len(self.revisions(1000))

    def revisions(self, limit: int, newest: int | None = None) -> list[Revision]:
        texts = [what[1] for what in self.done if what[0] == "revision"]
        found = [Revision(at + 1, 1.0, config_hash(text), text) for at, text in enumerate(texts)]
        return [each for each in reversed(found) if newest is None or each.id <= newest][:limit]

    def audit(self, limit: int, before: int | None = None) -> list[dict[str, Any]]:
        rest = {"at": 1.0, "actor": "test", "target": "", "detail": None}
        rows = [{"id": at, "action": what[0], **rest} for at, what in enumerate(self.done)]
        return [row for row in reversed(rows) if before is None or row["id"] < before][:limit]


class Whole:
    """A supervisor with its workers in this process."""

    def __init__(self, toml: str) -> None:
        self.children: list[InProcess] = []
        self.state_store = MemoryKeeper()
        self.supervisor = Supervisor(
            RunningConfig(load_text(toml, "test.toml"), Sources("test.toml", toml), 0.0), self.state_store, self._spawn
        )
        self.supervisor.reloading = self.reloading = Reloading(self.supervisor)

    async def _spawn(self, index: int) -> InProcess:
        child = InProcess()
        self.children.append(child)
        return child

    async def start(self) -> None:
        """Start and wait until ready."""
        self.supervisor.start()
        assert await self.supervisor.workers.wait_ready(WAIT_S), list(self.supervisor.events.recent)

    @property
    def port(self) -> int:
        """Where the first worker listens."""
        return self.children[0].addresses[0][1]


def link_of(child: InProcess) -> Link:
    """The supervisor's end."""
    return child.link

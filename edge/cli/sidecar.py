"""The sidecar process: recovery points by schedule and on request, beside the gateway and on no request's CPU.

    first frame (configuration) ─► repository ─► schedule
    ASK from the supervisor ─► job ─► PROGRESS … ACK                  RECOVERY to it: how things are
    ASK to the supervisor ─► what only the gateway knows (golden requests, health and latency)

One rule: it lives exactly as long as its link: it ends when the supervisor does, and never keeps a machine busy for a
gateway that is gone. It runs at the lowest priority and rests so much that it stays within `snapshots.core`.
"""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import uvloop

from edge.adapters.disk_awaited import listen_awaited
from edge.cli.jobs import LocalJobs
from edge.config.loader import load
from edge.config.snapshots import Snapshots
from edge.config.sources import Sources
from edge.control.link import Link, LinkLost, Refused, connect
from edge.errors import EdgeError, RecoveryError
from edge.frames import Frame, FrameKind, ack
from edge.recovery.points import PointKind
from edge.sidecar.agent import SidecarAgent, Timetable
from edge.sidecar.filling import Filling
from edge.sidecar.shown import point_view

FIRST_FRAME_S = 10.0
GATHER_S = 20.0
NICE = 15


async def run_sidecar(fd: int) -> int:
    """Work until the link ends; the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C is the supervisor's to handle; the link tells
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICE)
    frames: asyncio.Queue[Frame] = asyncio.Queue()
    link = await connect(socket.socket(fileno=fd), frames.put_nowait)
    async with asyncio.timeout(FIRST_FRAME_S):
        first = await frames.get()
    sidecar = Sidecar(link, given(first.body))
    link.on_frame = sidecar.on_frame
    while not frames.empty():
        sidecar.on_frame(frames.get_nowait())
    link.send(Frame(FrameKind.READY, {"pid": os.getpid()}))
    own = asyncio.create_task(sidecar.run(), name="schedule")
    ended = asyncio.create_task(link.ended.wait(), name="link")
    await asyncio.wait((own, ended), return_when=asyncio.FIRST_COMPLETED)
    if own.done() and own.exception() is not None:
        raise own.exception() or RuntimeError
    # A job in a thread cannot be stopped half-way, and need not be: a kill harms no point.
    os._exit(0)


def given(body: Mapping[str, Any]) -> Sources:
    """The configuration of a frame; the environment is this process's own."""
    return Sources(body["filename"], body["text"], body["files"], os.environ)


class Sidecar:
    """The process's side of an agent."""

    def __init__(self, link: Link, sources: Sources) -> None:
        config = load(sources)
        assert config.snapshots is not None
        self._link = link
        self._config = config
        self._jobs = LocalJobs(config, sources.filename)
        self.agent = SidecarAgent(self._jobs, timetable(config.snapshots), self._gather, self._tell, self._publish)
        self._work: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """What is to be done by itself: the bodies that a restore left behind, and the schedule."""
        async with asyncio.TaskGroup() as group:
            filling = self._filling()
            if filling is not None:
                self.agent.known.filling = {}  # expiry waits
                group.create_task(filling.run(), name="fill")
            group.create_task(self.agent.run(), name="agent")

    def _filling(self) -> Filling | None:
        """What brings bodies, where some are awaited and the cache can be used; else they are misses."""
        disk = self._config.cache.disk
        try:
            filler = self._jobs.filler()
            if filler is None or disk is None:
                return None
            return Filling(filler, listen_awaited(Path(disk.path)), self._tell, self._filled)
        except (EdgeError, OSError) as error:
            facts = {"what": "bring bodies", "error": type(error).__name__, "detail": str(error)}
            self._tell("recovery.failed", facts)
            return None

    def _filled(self, status: dict[str, Any] | None) -> None:
        self.agent.known.filling = status
        self.agent.tell_status()

    async def _gather(self) -> Mapping[str, bytes]:
        """What only the gateway knows. A point without it is worth more than none."""
        try:
            async with asyncio.timeout(GATHER_S):
                found = await self._link.ask(FrameKind.ASK, {"what": "recovery-facts"})
        except (LinkLost, Refused, TimeoutError) as error:
            self._tell("recovery.facts_missing", {"detail": str(error) or "no answer in time"})
            return {}
        return {name: orjson.dumps(value, option=orjson.OPT_SORT_KEYS) for name, value in found.items()}

    def _tell(self, kind: str, facts: Mapping[str, Any]) -> None:
        self._link.send(Frame(FrameKind.EVENT, {**facts, "kind": kind}))

    def _publish(self, status: dict[str, Any]) -> None:
        self._link.send(Frame(FrameKind.RECOVERY, status))

    def on_frame(self, frame: Frame) -> None:
        """What the supervisor asks; or another configuration, with the same schedule and repository."""
        if frame.kind is FrameKind.CONFIG:
            self._jobs.renew(load(given(frame.body)), frame.body["filename"])
        if frame.kind is FrameKind.ASK:
            task = asyncio.create_task(self._answer(frame), name="asked")
            self._work.add(task)
            task.add_done_callback(self._work.discard)

    async def _answer(self, frame: Frame) -> None:
        def step(phase: str, done: int, whole: int) -> None:
            self._link.send(Frame(FrameKind.PROGRESS, {"phase": phase, "done": done, "whole": whole}, frame.id))

        try:
            found = await self._done(frame.body, step)
        except EdgeError as error:
            facts = {"error": type(error).__name__, "detail": error.detail, "status": error.status}
            self._link.send(ack(frame, facts))
            return
        self._link.send(ack(frame, found))

    async def _done(self, body: dict[str, Any], step: Callable[[str, int, int], None]) -> dict[str, Any]:
        what, point = body["what"], body.get("point")
        if what == "list":
            points = await asyncio.to_thread(self._jobs.points)
            return {"points": [point_view(each) for each in self._jobs.ordered(points)]}
        if what == "take":
            return await self.agent.take(PointKind(body["kind"]), str(body.get("why", "asked")), step)
        if what == "verify":
            part = (1, 1) if body.get("read_data") else None
            return await self.agent.verify(point, part, step)
        if what == "drill":
            return await self.agent.drill(point, step)
        if what in ("hold", "release"):
            return await self.agent.note(str(point), what, str(body.get("reason", "")))
        raise RecoveryError(f"the sidecar does not know {what}")


def timetable(values: Snapshots) -> Timetable:
    """The schedules of `[snapshots]`: points, verifying and drills."""
    schedules = {
        PointKind.FULL: values.full,
        PointKind.DIFFERENTIAL: values.differential,
        PointKind.INCREMENTAL: values.incremental,
    }
    points = {kind: schedule for kind, schedule in schedules.items() if schedule is not None}
    zone = ZoneInfo(values.timezone)
    return Timetable(points, values.verify, values.drill, zone, values.jitter, platform.node())


if __name__ == "__main__":
    sys.exit(uvloop.run(run_sidecar(int(sys.argv[1]))))

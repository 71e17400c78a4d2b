"""What the sidecar does by itself: points when they are due, then expiry; verifying and drills when they are due.

    due? ─► take ─► prune (only after a success) ─► heartbeat ─► report
         └► verify, drill

One rule: one job at a time. Whoever asks for one waits for the one that runs; nothing is started twice for one due
time, and what failed is tried again after a pause that grows, not at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from time import time
from typing import Any, Protocol

from edge.config.schedule import Schedule
from edge.errors import EdgeError, RecoveryError
from edge.recovery.points import Point, PointKind, Status
from edge.recovery.schedule import jittered, last_successes, next_due, plan

LOOK_S = 5.0
RETRY_MIN_S, RETRY_MAX_S = 15.0, 600.0
PARTS = 7  # of the data, that verifying takes in turn

Tell = Callable[[str, Mapping[str, Any]], None]  # an event: kind, facts
Step = Callable[[str, int, int], None]


class Jobs(Protocol):
    """The jobs of the sidecar. All block, raise RecoveryError, and run one at a time in a thread."""

    def history(self) -> str: ...
    def points(self) -> dict[str, Point]: ...
    def take(self, kind: PointKind, extra: Mapping[str, bytes], step: Step) -> dict[str, Any]: ...
    def prune(self) -> dict[str, Any]: ...
    def verify(self, point: str | None, part: tuple[int, int] | None, step: Step) -> dict[str, Any]: ...
    def drill(self, point: str | None, step: Step) -> dict[str, Any]: ...
    def note(self, point: str, what: str, reason: str) -> dict[str, Any]: ...
    def report(self, points: Mapping[str, Point]) -> dict[str, Any]: ...
    def heartbeat(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Timetable:
    """When what is due. `name` is this machine's, for the jitter."""

    points: Mapping[PointKind, Schedule]
    verify: Schedule | None
    drill: Schedule | None
    zone: tzinfo
    jitter_s: float
    name: str


@dataclass(slots=True)
class Pause:
    """The pause after a failure."""

    until: float = 0.0
    next_s: float = RETRY_MIN_S


@dataclass(slots=True)
class Known:
    """What has been found out since the start."""

    history: str = ""
    points: dict[str, Point] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    running: str | None = None
    progress: dict[str, Any] | None = None
    failures: int = 0
    last_error: str | None = None
    alerts: tuple[str, ...] = ()
    verified_at: float | None = None
    filling: dict[str, Any] | None = None  # bodies that follow a restore


class SidecarAgent:
    """`gather` gives the entries that only the gateway knows; `tell` takes events; `publish` the report."""

    def __init__(
        self,
        jobs: Jobs,
        timetable: Timetable,
        gather: Callable[[], Awaitable[Mapping[str, bytes]]],
        tell: Tell,
        publish: Callable[[dict[str, Any]], None],
    ) -> None:
        self._jobs, self._timetable, self._gather, self._tell, self._publish = jobs, timetable, gather, tell, publish
        self._one = asyncio.Lock()
        self._pauses: dict[str, Pause] = {}
        self._begun = time()
        self._looked = False  # what is due at the start is done before anything alerts
        self.known = Known()

    # -- by itself -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work by the schedule until cancelled."""
        while True:
            await self.look()
            self._looked = True
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Do what is due, and tell how things are, whether or not the repository answers."""
        if not self._paused("list", time()):
            await self._tried("list", self._refresh)
        else:
            await self._tried("report", self._report)
        kind = self._due_point()
        if kind is not None:
            await self._tried("take", lambda: self.take(kind, "schedule"))
        for word, schedule, last in (
            ("verify", self._timetable.verify, self.known.verified_at or self._newest("verified_at")),
            ("drill", self._timetable.drill, self._newest("drilled_at")),
        ):
            if schedule is not None and self.known.points and self._is_due(word, schedule, last):
                deed = self._verify_in_turn if word == "verify" else self._drill
                await self._tried(word, deed)

    def _due_point(self) -> PointKind | None:
        now, table = time(), self._timetable
        taken: dict[PointKind, float | None] = {}
        for point in self.known.points.values():
            # Those of another history (before a restore) protect nothing that was done since.
            if point.status is Status.COMPLETE and point.history == self.known.history:
                taken[point.kind] = max(point.taken_at, taken.get(point.kind) or 0.0)
        last = last_successes(taken)
        due = plan(table.points, last, now, table.zone)
        if due is None or self._paused("take", now):
            return None
        overdue = last[due.kind]
        at = due.due if overdue is None else next_due(table.points[due.kind], overdue, now, table.zone)
        # A first point is late already; the others begin a little later, on each machine by another amount.
        if overdue is not None:
            at = jittered(table.name, at, table.jitter_s)
        return due.kind if at <= now else None

    def _is_due(self, word: str, schedule: Schedule, last: float | None) -> bool:
        now = time()
        since = last if last is not None else self._begun
        return not self._paused(word, now) and next_due(schedule, since, now, self._timetable.zone) <= now

    async def _verify_in_turn(self) -> object:
        number = int(time() // 86400) % PARTS + 1
        found = await self.verify(None, (number, PARTS))
        self.known.verified_at = time()
        return found

    async def _drill(self) -> object:
        return await self.drill(None)

    async def _tried(self, word: str, deed: Callable[[], Awaitable[object]]) -> None:
        pause = self._pauses.setdefault(word, Pause())
        try:
            await deed()
            self._pauses[word] = Pause()
        except EdgeError as error:  # the journal's too
            pause.until = time() + pause.next_s
            pause.next_s = min(RETRY_MAX_S, pause.next_s * 2)
            self._failed(word, error)

    def _paused(self, word: str, now: float) -> bool:
        # A clock that went back far does not make the pause longer than it is.
        pause = self._pauses.get(word)
        return pause is not None and now < pause.until <= now + RETRY_MAX_S

    def _failed(self, word: str, error: EdgeError) -> None:
        self.known.failures += 1
        self.known.last_error = error.detail
        self._tell("recovery.failed", {"what": word, "error": type(error).__name__, "detail": error.detail})
        self.tell_status()

    def _newest(self, field_name: str) -> float | None:
        return max(
            (at for point in self.known.points.values() if (at := getattr(point.evidence, field_name)) is not None),
            default=None,
        )

    # -- asked for -------------------------------------------------------------------------------------------------

    async def take(self, kind: PointKind, why: str, step: Step | None = None) -> dict[str, Any]:
        """Take a point, then expire. Raises RecoveryError."""
        async with self._one:
            extra = await self._gather()
            found = await self._work(f"take {kind.value}", lambda told: self._jobs.take(kind, extra, told), step)
            facts = {"point": found["id"], **{name: found[name] for name in ("kind", "written", "promoted")}}
            self._tell("recovery.taken", {**facts, "why": why, "left_out": len(found["left_out"])})
            await self._expire()
            await asyncio.to_thread(self._heartbeat)
        await self._refresh()
        return found

    async def _expire(self) -> None:
        """A point more is no reason to fail: what cannot be expired now is expired next time."""
        if self.known.filling is not None:
            return  # a restored cache takes its bodies from points that might go
        try:
            pruned = await self._work("prune", lambda told: self._jobs.prune(), None)
        except RecoveryError as error:
            self._failed("prune", error)
            return
        if pruned["removed_points"] or pruned["removed_files"]:
            facts = {name: pruned[name] for name in ("removed_points", "removed_files", "removed_bytes")}
            self._tell("recovery.pruned", facts)

    async def verify(self, point: str | None, part: tuple[int, int] | None, step: Step | None = None) -> dict[str, Any]:
        """Verify points; the findings."""
        async with self._one:
            found = await self._work("verify", lambda told: self._jobs.verify(point, part, told), step)
            kind = "recovery.verified" if found["ok"] else "recovery.damaged"
            self._tell(kind, {"points": len(found["points"]), "bytes": found["bytes"], "problems": found["problems"]})
        await self._refresh()
        return found

    async def drill(self, point: str | None, step: Step | None = None) -> dict[str, Any]:
        """Drill a point; the report. Raises RecoveryError when it could not be begun."""
        async with self._one:
            found = await self._work("drill", lambda told: self._jobs.drill(point, told), step)
            facts = {name: found[name] for name in ("point", "passed", "rto_s", "rpo_s", "problems")}
            self._tell("recovery.drilled" if found["passed"] else "recovery.drill_failed", facts)
            if found["passed"]:
                await asyncio.to_thread(self._heartbeat)
        await self._refresh()
        return found

    async def note(self, point: str, what: str, reason: str) -> dict[str, Any]:
        """Hold or release a point."""
        async with self._one:
            found = await self._work(what, lambda told: self._jobs.note(point, what, reason), None)
            self._tell(f"recovery.{what}", {"point": found["id"], "reason": reason})
        await self._refresh()
        return found

    async def _work(self, word: str, job: Callable[[Step], dict[str, Any]], step: Step | None) -> dict[str, Any]:
        """One job in a thread, with its progress told on the loop."""
        loop = asyncio.get_running_loop()

        def told(phase: str, done: int, whole: int) -> None:
            loop.call_soon_threadsafe(self._stepped, phase, done, whole, step)

        self.known.running, self.known.progress = word, None
        try:
            return await asyncio.to_thread(job, told)
        finally:
            self.known.running = self.known.progress = None

    def _stepped(self, phase: str, done: int, whole: int, step: Step | None) -> None:
        self.known.progress = {"phase": phase, "done": done, "whole": whole}
        if step is not None:
            step(phase, done, whole)

    def _heartbeat(self) -> None:
        try:
            self._jobs.heartbeat()
        except RecoveryError as error:
            self._tell("recovery.heartbeat_failed", {"detail": error.detail})

    # -- telling ---------------------------------------------------------------------------------------------------

    async def _refresh(self) -> None:
        """What there is; the report is made of what was known last where that cannot be had."""
        try:
            async with self._one:
                self.known.history = await asyncio.to_thread(self._jobs.history)
                self.known.points = await asyncio.to_thread(self._jobs.points)
        finally:
            await self._report()

    async def _report(self) -> None:
        async with self._one:
            self.known.report = await asyncio.to_thread(self._jobs.report, self.known.points)
        alerts = tuple(self.known.report.get("alerts", ())) if self._looked else ()
        # Numbers in a sentence move all the time: an alert is told when it comes up, and again when it is over.
        kinds = {line.split(":")[0].rstrip("0123456789. ") for line in self.known.alerts}
        for line in alerts:
            if line.split(":")[0].rstrip("0123456789. ") not in kinds:
                self._tell("recovery.alert", {"alert": line})
        if self.known.alerts and not alerts:
            self._tell("recovery.alert_over", {})
        self.known.alerts = alerts
        self.tell_status()

    def tell_status(self) -> None:
        """Report the status to the gateway."""
        known = self.known
        self._publish(
            {
                "report": known.report,
                "running": known.running,
                "progress": known.progress,
                "failures": known.failures,
                "last_error": known.last_error,
                "filling": known.filling,
            }
        )

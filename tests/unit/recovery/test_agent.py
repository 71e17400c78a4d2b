"""What the sidecar does by itself: what is due once, one thing at a time, again after a pause, and what it tells."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from datetime import UTC
from typing import Any

import pytest
from kit.waiting import WAIT_S

from edge.config.schedule import parse_schedule
from edge.errors import RecoveryError, RepositoryLocked, RepositoryUnreachable
from edge.recovery.points import Evidence, Point, PointKind
from edge.recovery.report import Targets, report
from edge.sidecar import agent as agents
from edge.sidecar.agent import SidecarAgent, Timetable
from edge.sidecar.pace import Pace

FULL, INCR = PointKind.FULL, PointKind.INCREMENTAL


class FakeJobs:
    """Jobs that are done at once; `down` fails all, `held` blocks `take` until it is set."""

    def __init__(self, wall: list[float]) -> None:
        self.wall = wall
        self.own = "h"
        self.done: list[str] = []
        self.held: dict[str, Point] = {}
        self.fail: dict[str, RecoveryError] = {}
        self.gate: threading.Event | None = None
        self.running = 0
        self.begun = threading.Event()
        self.alerts: list[str] = []

    def _do(self, word: str) -> None:
        if word in self.fail:
            raise self.fail[word]
        self.done.append(word)

    def history(self) -> str:
        return self.own

    def points(self) -> dict[str, Point]:
        if "points" in self.fail:
            raise self.fail["points"]
        return dict(self.held)

    def take(self, kind: PointKind, extra: Mapping[str, bytes], step: Any) -> dict[str, Any]:
        self.running += 1
        assert self.running == 1, "two jobs at once"
        try:
            self.begun.set()
            if self.gate is not None:
                self.gate.wait(WAIT_S)
            self._do(f"take {kind.value}")
            name = f"p{len(self.held)}"
            self.held[name] = Point(name, "hash", kind, self.wall[0], self.own, 0, 0)
            step("bodies", 1, 2)
            return {"id": name, "kind": kind.value, "written": 5, "promoted": None, "left_out": []}
        finally:
            self.running -= 1

    def prune(self) -> dict[str, Any]:
        self._do("prune")
        return {"removed_points": ["old"], "removed_files": 1, "removed_bytes": 2}

    def verify(self, point: str | None, part: tuple[int, int] | None, step: Any) -> dict[str, Any]:
        self._do(f"verify {part}")
        return {"ok": True, "points": [], "bytes": 0, "problems": []}

    def drill(self, point: str | None, step: Any) -> dict[str, Any]:
        self._do("drill")
        return {"point": "p0", "passed": "drilled" not in self.fail, "rto_s": 1.0, "rpo_s": 0.0, "problems": []}

    def note(self, point: str, what: str, reason: str) -> dict[str, Any]:
        self._do(what)
        return {"id": point}

    def report(self, points: Mapping[str, Point]) -> dict[str, Any]:
        return {"alerts": list(self.alerts)}

    def heartbeat(self) -> None:
        self._do("heartbeat")


class Bench:
    """An agent on a clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, verify: str | None = None, drill: str | None = None) -> None:
        self.wall = [1_795_000_000.0]
        monkeypatch.setattr(agents, "time", lambda: self.wall[0])
        self.jobs = FakeJobs(self.wall)
        self.told: list[str] = []
        self.published: list[dict[str, Any]] = []
        table = Timetable(
            {FULL: parse_schedule("1d"), INCR: parse_schedule("10m")},
            parse_schedule(verify) if verify else None,
            parse_schedule(drill) if drill else None,
            *(UTC, 0.0, "machine"),
        )

        async def gather() -> Mapping[str, bytes]:
            return {}

        self.agent = SidecarAgent(
            self.jobs, table, gather, lambda kind, facts: self.told.append(kind), self.published.append
        )

    async def look(self, after: float = 0.0) -> list[str]:
        """What one look does."""
        self.wall[0] += after
        before = len(self.jobs.done)
        await self.agent.look()
        self.agent._looked = True
        return self.jobs.done[before:]


async def test_the_first_point_is_taken_at_once_and_then_when_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    assert await bench.look() == ["take full", "prune", "heartbeat"]
    assert await bench.look(599) == []
    assert await bench.look(2) == ["take incremental", "prune", "heartbeat"]
    assert await bench.look(30 * 86400) == ["take full", "prune", "heartbeat"]  # missed often, done once
    assert await bench.look() == []
    assert bench.told.count("recovery.taken") == 3 and bench.told.count("recovery.pruned") == 3


async def test_points_of_another_history_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    await bench.look()
    bench.jobs.own = "restored"
    assert (await bench.look(1))[0] == "take full"


async def test_a_failure_is_told_and_tried_again_later_and_nothing_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    await bench.look()
    bench.jobs.fail["take incremental"] = RepositoryUnreachable("away")
    assert await bench.look(601) == []
    assert "recovery.failed" in bench.told
    bench.told.clear()
    assert await bench.look(5) == [] and bench.told == []  # within the pause
    assert await bench.look(15) == [] and bench.told == ["recovery.failed"]
    del bench.jobs.fail["take incremental"]
    assert await bench.look(20) == []  # the pause has grown
    assert (await bench.look(15))[0] == "take incremental"
    assert bench.agent.known.failures == 2 and bench.published[-1]["failures"] == 2


async def test_what_cannot_be_expired_does_not_undo_a_point(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.jobs.fail["prune"] = RepositoryLocked("somebody reads")
    assert await bench.look() == ["take full", "heartbeat"]
    assert bench.told == ["recovery.taken", "recovery.failed"]


async def test_while_the_repository_is_away_targets_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    await bench.look()
    bench.jobs.fail["points"] = RepositoryUnreachable("away")
    await bench.look(20)
    bench.jobs.alerts = ["RPO missed: what changed in 99 s is in no point"]
    await bench.look(5)
    bench.jobs.alerts = ["RPO missed: what changed in 104 s is in no point"]
    await bench.look(5)
    assert bench.told.count("recovery.alert") == 1  # it is the same one
    assert bench.published[-1]["report"]["alerts"] == bench.jobs.alerts
    bench.jobs.fail.clear()
    bench.jobs.alerts = []
    await bench.look(60)
    assert bench.told[-1] == "recovery.alert_over"


async def test_verifying_takes_a_part_in_turn_and_drills_are_due(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, verify="1d", drill="2d")
    await bench.look()
    parts = [word for _ in range(7) for word in await bench.look(86401) if word.startswith("verify")]
    assert set(parts) == {f"verify ({number}, 7)" for number in range(1, 8)}
    assert "drill" in bench.jobs.done


async def test_a_failed_drill_is_told_and_sends_no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.jobs.fail["drilled"] = RecoveryError("no")
    await bench.agent.drill(None)
    assert bench.jobs.done == ["drill"] and bench.told == ["recovery.drill_failed"]
    del bench.jobs.fail["drilled"]
    await bench.agent.drill(None)
    assert bench.jobs.done[1:] == ["drill", "heartbeat"]


async def test_whoever_asks_waits_for_the_job_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.jobs.gate = threading.Event()
    steps: list[tuple[str, int, int]] = []
    one = asyncio.create_task(bench.agent.take(FULL, "a", lambda *step: steps.append(step)))
    two = asyncio.create_task(bench.agent.take(INCR, "b"))
    await asyncio.to_thread(bench.jobs.begun.wait, WAIT_S)
    assert bench.agent.known.running == "take full"
    bench.jobs.gate.set()
    await asyncio.gather(one, two)
    assert [word for word in bench.jobs.done if word.startswith("take")] == ["take full", "take incremental"]
    assert steps == [("bodies", 1, 2)] and bench.agent.known.running is None


async def test_a_clock_that_goes_back_does_not_stop_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    await bench.look()
    bench.jobs.fail["take incremental"] = RepositoryUnreachable("away")
    await bench.look(601)
    bench.wall[0] -= 10 * 86400
    bench.jobs.fail.clear()
    assert (await bench.look(601))[0].startswith("take")


# -- report and pace ---------------------------------------------------------------------------------------------------


def point(name: str, at: float, evidence: Evidence | None = None) -> Point:
    return Point(name, "hash", FULL, at, "h", 0, 0, evidence=evidence or Evidence())


@pytest.mark.parametrize(
    ("points", "unsaved", "words"),
    [
        ([], None, ["there is no sound recovery point"]),
        ([point("a", 950.0)], None, []),
        ([point("a", 950.0)], 899.0, ["RPO missed"]),
        ([point("a", 950.0)], 901.0, []),
        ([point("a", 799.0)], None, ["the newest sound point is 201 s old"]),
        ([point("a", 950.0), point("b", 960.0, Evidence(corrupt="x"))], None, ["1 of 2 points are damaged"]),
        ([point("a", 950.0, Evidence(drilled_at=960.0, drill={"rto_s": 31.0}))], None, ["RTO missed"]),
        ([point("a", 950.0, Evidence(drilled_at=960.0, drill={"rto_s": 29.0}))], None, []),
        ([point("a", 950.0, Evidence(drilled_at=400.0, drill={"rto_s": 1.0}))], None, ["the last drill that passed"]),
    ],
)
def test_an_alert_is_about_what_is_missed_now(points: list[Point], unsaved: float | None, words: list[str]) -> None:
    found = report({each.id: each for each in points}, unsaved, Targets(100.0, 30.0, drill_s=500.0), 1000.0)
    assert len(found.alerts) == len(words)
    for alert, word in zip(found.alerts, words, strict=True):
        assert word in alert


class Machine:
    """A processor on which work takes what it takes."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def work(self, seconds: float) -> None:
        self.wall += seconds
        self.cpu += seconds

    def rest(self, seconds: float) -> None:
        self.wall += seconds

    def pace(self, core: float, rate: float) -> Pace:
        return Pace(core, rate, lambda: self.wall, lambda: self.cpu, self.rest)


@pytest.mark.parametrize("core", [0.05, 0.25, 0.5])
def test_work_takes_its_share_of_a_core_and_no_more(core: float) -> None:
    machine = Machine()
    pace = machine.pace(core, 0.0)
    for _ in range(200):
        machine.work(0.05)
        pace.step()
    assert core * 0.95 < machine.cpu / machine.wall <= core + 1e-6
    machine.wall += 3600.0  # idle time is no credit
    before = (machine.wall, machine.cpu)
    for _ in range(50):
        machine.work(0.05)
        pace.step()
    assert (machine.cpu - before[1]) / (machine.wall - before[0]) <= core * 1.1


def test_bytes_go_at_their_rate_and_no_limit_is_no_wait() -> None:
    machine = Machine()
    pace = machine.pace(0.0, 1000.0)
    for _ in range(10):
        pace.moved(500)
    assert machine.wall == pytest.approx(5.0)
    free = machine.pace(0.0, 0.0)
    free.moved(10**12)
    free.step()
    assert machine.wall == pytest.approx(5.0)

"""The supervisor's side of the sidecar: started, replaced when it dies, asked, and what it tells.

One rule: the gateway never waits for it. Whoever asks the sidecar waits, with progress; everybody else reads what it
told last. A sidecar that cannot work is an event, a metric and a line in the status, never a gateway that does not run.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from time import monotonic
from typing import Any, ClassVar
from urllib.parse import quote

from edge.config.loader import Config
from edge.control.admin.errors import Refusal, Unavailable
from edge.control.companion import Companion
from edge.control.link import Link, LinkLost, Progress, Refused
from edge.control.supervisor import Supervisor
from edge.frames import Frame, FrameKind, ack

SIDECAR_MODULE = "edge.cli.sidecar"
GOLDEN_MAX = 200  # golden requests in a point


class RecoveryRefused(Refusal):
    """The sidecar refused; its text says what to do."""

    status: ClassVar[int] = 500


class Recovery:
    """Runs the sidecar process."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._process = Companion(SIDECAR_MODULE, self._config_frame, self._frame, self._died)
        self._work: set[asyncio.Task[None]] = set()
        self.status: dict[str, Any] = {}

    @property
    def restarts(self) -> int:
        """How often the sidecar was restarted."""
        return self._process.restarts

    def start(self) -> None:
        """Keep a sidecar running; does nothing if one is kept already."""
        self._process.start()

    async def stop(self) -> None:
        """End it. A job that runs is cut off, which harms no point."""
        await self._process.stop()

    def reload(self, config: Config, before: Config) -> None:
        """Replace the sidecar if its schedule or repository changed. A job that runs is cut off."""
        process = self._process
        process.wanted = config.snapshots is not None
        if not process.kept and process.wanted:
            self.start()
        elif config.snapshots != before.snapshots:
            process.replace("the configuration was loaded again")
        elif process.link is not None:
            process.link.send(self._config_frame())
        if not process.wanted:
            self.status = {}

    async def ask(self, body: dict[str, Any], on_progress: Progress | None = None) -> dict[str, Any]:
        """The sidecar's answer. Raises RecoveryRefused, Unavailable."""
        link = self._process.link
        if link is None or link.closed is not None:
            raise Unavailable("the sidecar that takes recovery points is not running just now; its events say why")
        try:
            found = await link.ask(FrameKind.ASK, body, on_progress)
        except (LinkLost, Refused) as error:
            raise Unavailable(f"the sidecar ended meanwhile: {error.detail}") from None
        if "error" in found:
            raise RecoveryRefused(str(found["detail"]), int(found["status"]))
        return found

    # -- the process -----------------------------------------------------------------------------------------------

    def _died(self, code: int, again_in_s: float) -> None:
        self._supervisor.events.add("recovery.sidecar_died", {"code": code, "again_in_s": again_in_s})

    def _config_frame(self) -> Frame:
        running = self._supervisor.running
        return Frame(FrameKind.CONFIG, asdict(replace(running.sources, environment={})))

    def _frame(self, frame: Frame) -> None:
        if frame.kind is FrameKind.EVENT:
            facts = {key: value for key, value in frame.body.items() if key != "kind"}
            self._supervisor.events.add(str(frame.body["kind"]), facts)
        elif frame.kind is FrameKind.RECOVERY:
            self.status = frame.body
        elif frame.kind is FrameKind.ASK and self._process.link is not None:
            task = asyncio.create_task(self._tell_facts(self._process.link, frame), name="recovery-facts")
            self._work.add(task)
            task.add_done_callback(self._work.discard)

    async def _tell_facts(self, link: Link, frame: Frame) -> None:
        try:
            link.send(ack(frame, await facts(self._supervisor)))
        except (LinkLost, Refused, TimeoutError) as error:
            link.send(ack(frame, error=str(error) or "no worker answered in time"))

    # -- shown -----------------------------------------------------------------------------------------------------

    def gauges(self) -> list[tuple[str, str, dict[str, str], float]]:
        """Its gauges for `/metrics`. What does not exist has no value."""
        if self._supervisor.running.config.snapshots is None:
            return []
        report = self.status.get("report") or {}
        rpo, rto = report.get("rpo") or {}, report.get("rto") or {}
        values = {
            "points": ("Recovery points in the repository", report.get("points")),
            "points_corrupt": ("Recovery points that are known to be damaged", report.get("corrupt")),
            "age_seconds": ("Since the newest sound point", report.get("age_s")),
            "verified_age_seconds": ("Since a point was verified", report.get("verified_age_s")),
            "drilled_age_seconds": ("Since a drill passed", report.get("drilled_age_s")),
            "rpo_achieved_seconds": ("Since the first change that is in no point", rpo.get("achieved_s")),
            "rpo_target_seconds": ("Most that may be lost", rpo.get("target_s")),
            "rto_achieved_seconds": ("What the last drill that passed measured", rto.get("achieved_s")),
            "rto_target_seconds": ("Longest time until ready", rto.get("target_s")),
            "alerts": ("Targets that are missed now", len(report.get("alerts", ()))),
            "failures": ("Jobs that failed since the sidecar started", self.status.get("failures")),
            "sidecar_restarts": ("Sidecars replaced", self.restarts),
        }
        known = ((name, text, value) for name, (text, value) in values.items() if value is not None)
        return [(f"edge_recovery_{name}", text, {}, float(value)) for name, text, value in known]


async def facts(supervisor: Supervisor) -> dict[str, Any]:
    """Entries for a point that only the running gateway knows: golden requests, and what was measured."""
    golden = []
    for url in golden_urls(supervisor)[:GOLDEN_MAX]:
        found = await supervisor.workers.ask_one(FrameKind.ASK, {"what": "explain", "url": url})
        golden.append(golden_of(url, found, _is_steady(supervisor, found)))
    membership = supervisor.routing.membership
    admin = {
        "regions": {name: entry.admin.value for name, entry in membership.regions.items()},
        "backends": {f"{pool}/{name}": entry.admin.value for (pool, name), entry in membership.backends.items()},
    }
    return {
        "golden/requests": golden,
        "golden/admin": admin,
        "golden/epoch": supervisor.purge_log.seq,
        "measured/backends": {f"{key[0]}/{key[1]}": _measured(supervisor, key) for key in membership.backends},
        "measured/counters": dict(supervisor.totals.counters),
    }


def _measured(supervisor: Supervisor, key: tuple[str, str]) -> dict[str, Any]:
    live = supervisor.routing.live(key)
    return {"health": live.health.value, "latency_s": live.latency.value}


def golden_urls(supervisor: Supervisor) -> list[str]:
    """A request for each route, under a name that it serves."""
    urls = []
    for route in supervisor.running.config.routes:
        host = route.host if isinstance(route.host, str) else str(route.host[0])
        name = {"*": "golden.example"}.get(host, host.replace("*", "golden", 1))
        urls.append(f"http://{name}{quote(str(route.path), safe='/%')}")
    return urls


def _is_steady(supervisor: Supervisor, found: dict[str, Any]) -> bool:
    """Whether the pool of a request serves as configured: no region of it is partly down, or returns slowly."""
    routing, now = supervisor.routing, monotonic()
    pool = routing.pools.get((found.get("route") or {}).get("pool", ""))
    return pool is None or all(
        health.available >= health.total and routing.ramping(pool, name, now) is None
        for name, health in pool.health.items()
    )


def golden_of(url: str, found: dict[str, Any], steady: bool = True) -> dict[str, Any]:
    """What of an explanation must be the same after a restore; of the regions' order only if the pool was `steady`."""
    cache = found.get("cache") or {}
    regions = found.get("regions") or []
    return {
        "url": url,
        "route": found.get("route"),
        "key": cache.get("key"),
        "regions": [row["region"] for row in regions],
        "healthy": steady and not any("unhealthy" in str(row.get("reason")) for row in regions),
        "backends": sorted((row["backend"], row["region"], row["weight"]) for row in found.get("backends") or []),
    }

"""The control plane: what is known, what is decided, and that every worker acts on it.

    journal ─► membership ─► routing ─┬─► VIEW, MEMBERS ─► workers ─► COUNTS ─► totals
    prober ───────────────────────────┘                          └─► REPORT, EVENT ─► routing, events

One rule: it never stands in a request's way. Workers go on with their last view whatever happens here; what an operator
changed is answered only when it is durable and every live worker has applied it.
Processes, signals and listeners are `gateway`'s; the same object runs in tests over an in-memory link.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Protocol

from edge.cache.purge import STAMPED, Purge, PurgeLog
from edge.config.loader import Config, config_hash
from edge.control.admin.errors import NotApplied
from edge.control.events import Events
from edge.control.link import Refused
from edge.control.membership import Key, Membership, routes_of
from edge.control.registry import Change, Registry, StateStore
from edge.control.routing import Routing
from edge.control.totals import Totals
from edge.control.workers import Child, Hooks, Workers
from edge.errors import EdgeError
from edge.frames import Frame, Kind, unpacked

DECIDE_S = 0.25
EXPIRE_S = 1.0


class SupervisorStore(StateStore, Protocol):
    """The durable side, as the supervisor needs it."""

    def membership(self, config: Config) -> Membership: ...
    def purge_log(self) -> PurgeLog: ...
    def purge(self, purge: Purge, change: Change) -> int: ...
    def save_purge_log(self, purge_log: PurgeLog) -> None: ...
    def revision(self, text: str) -> None: ...
    def audit(self, limit: int) -> list[dict[str, Any]]: ...


class Tier(Protocol):
    """The machine's disk tier; its calls block."""

    def purge(self, purges: Sequence[Purge], at: float, number: int) -> set[tuple[int, int]]: ...
    def stats(self) -> dict[str, int]: ...


class Protection(Protocol):
    """The sidecar, as far as it is shown."""

    status: dict[str, Any]

    def gauges(self) -> list[tuple[str, str, dict[str, str], float]]: ...


@dataclass(frozen=True, slots=True)
class Running:
    """The configuration that runs."""

    config: Config
    text: str
    filename: str
    loaded_at: float

    @property
    def hash(self) -> str:
        """Of its text."""
        return config_hash(self.text)


class Supervisor:
    """One gateway's control plane."""

    def __init__(
        self,
        running: Running,
        keeper: SupervisorStore,
        spawn: Callable[[int], Awaitable[Child]],
        echo: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        config = running.config
        self.running = running
        self.started_at = time.time()
        self.stopping = False
        self.events = Events(time.time, echo)
        self.totals = Totals()
        self.keeper = keeper
        self.routes = routes_of(config)
        self.routing = Routing(config, keeper.membership(config), self.events.add, time.time)
        self.registry = Registry(self.routing, self.routes, keeper, self.push, time.time)
        self.purge_log = keeper.purge_log()
        self.workers = Workers(
            spawn, worker_count(config), Hooks(self._first, self._frame, self.events.add, self._worker_gone)
        )
        self.on_members: Callable[[], None] = lambda: None
        self.tier: Tier | None = None  # where cache.disk is given, and can be used
        self.recovery: Protection | None = None  # where [snapshots] is given
        self.on_failing: Callable[[Key], None] = lambda key: None
        self.on_decided: Callable[[], None] = lambda: None
        self._pushed: dict[str, Any] = {}
        self._accepted: bool | None = None  # False: the running configuration is still to be written down
        self._troubles: dict[str, str] = {}
        self._purging = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the workers and begin to decide."""
        self.routing.workers = len(self.workers.slots)
        self.routing.decide(monotonic())
        self.workers.start()
        self._tasks = [
            asyncio.create_task(self._decide_often(), name="decide"),
            asyncio.create_task(self._expire_often(), name="expire"),
        ]

    async def stop(self, grace_s: float) -> None:
        """Fail readiness, drain the workers, end."""
        self.stopping = True
        self.events.add("gateway.stopping", {"grace_s": grace_s})
        await self.workers.drain(grace_s)
        await self.close()

    async def close(self) -> None:
        """End at once."""
        self.stopping = True
        self.events.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self.workers.kill()

    def accept(self) -> None:
        """The workers serve this configuration: it may be gone back to. Tried again later when the disk is full."""
        try:
            self.keeper.revision(self.running.text)
        except EdgeError as error:
            self._trouble("revision", error)
            self._accepted = False
        else:
            self._accepted = True

    def readiness(self) -> tuple[bool, str]:
        """Whether clients are served, and the word for it."""
        if self.stopping:
            return False, "stopping"
        return (True, "ready") if self.workers.ready else (False, "starting")

    # -- routing ---------------------------------------------------------------------------------------------------

    async def _decide_often(self) -> None:
        """Time alone changes views (ramps, holds, ejections that end); a failure here must not end deciding."""
        while True:
            await asyncio.sleep(DECIDE_S)
            self.decide()

    def decide(self) -> None:
        """Decide now, and tell the workers if that changed something."""
        try:
            self.routing.decide(monotonic())
        except Exception as error:
            self.events.add("bug", {"where": "decide", "error": f"{type(error).__name__}: {error}"})
            return
        self.on_decided()
        body = self.routing.view_body()
        told = without_seeds(body)
        if told != self._pushed:
            self._pushed = told
            self.workers.send_all(Frame(Kind.VIEW, body))

    async def push(self) -> None:
        """Tell every worker the membership and the view; returns when each has applied them. Raises NotApplied."""
        self.on_members()
        self.routing.decide(monotonic())
        view = self.routing.view_body()
        self._pushed = without_seeds(view)
        try:
            # Both at once: the link keeps the order.
            members = self.workers.tell(Kind.MEMBERS, self.members_body())
            await asyncio.gather(members, self.workers.tell(Kind.VIEW, view))
        except Refused as error:
            raise NotApplied(f"durable, but not applied: {error.detail}") from None

    def members_body(self) -> dict[str, Any]:
        """The body of a MEMBERS frame: the run-time backends and all regions."""
        membership = self.routing.membership
        backends: dict[str, list[dict[str, Any]]] = {}
        for entry in membership.backends.values():
            if entry.source.value == "runtime":
                spec = entry.spec
                backends.setdefault(spec.pool, []).append(
                    {
                        "id": spec.id,
                        "scheme": spec.scheme,
                        "host": spec.host,
                        "port": spec.port,
                        "authority": spec.authority.decode(),
                        "region": spec.region,
                        "weight": spec.weight,
                        "max_in_flight": spec.max_in_flight,
                        "probed": self.routing.pools[spec.pool].probed,
                    }
                )
        regions = [
            {
                "name": entry.spec.name,
                "tier": entry.spec.tier,
                "location": entry.spec.location,
                "countries": entry.spec.countries,
                "continents": entry.spec.continents,
                "subdivisions": entry.spec.subdivisions,
            }
            for entry in membership.regions.values()
        ]
        configured = self.running.config.regions
        overrides = [[str(network), name] for name, region in configured.items() for network in region.cidrs]
        return {"backends": backends, "regions": regions, "overrides": overrides}

    def forget(self) -> None:
        """Counts of backends and regions that were removed a while ago."""
        membership = self.routing.membership
        self.totals.prune(membership.backends, membership.regions, monotonic())

    async def _expire_often(self) -> None:
        while True:
            await asyncio.sleep(EXPIRE_S)
            self.forget()
            try:
                await self.registry.expire()
                if self._accepted is False:
                    self.accept()
            except EdgeError as error:  # a full disk: the next second tries again
                self._trouble("expire", error)
            except Exception as error:
                self.events.add("bug", {"where": "expire", "error": f"{type(error).__name__}: {error}"})

    def _trouble(self, where: str, error: EdgeError) -> None:
        """The journal refused what no operator waits for; told once for each thing and reason, not once a second."""
        if self._troubles.get(where) != error.detail:
            self._troubles[where] = error.detail
            self.events.add("journal.failed", {"where": where, "error": error.detail})

    # -- workers ---------------------------------------------------------------------------------------------------

    def _first(self, index: int) -> Frame:
        """All that a new worker must know."""
        body = {
            "text": self.running.text,
            "filename": self.running.filename,
            "worker": index,
            "grace_s": self.running.config.limits.shutdown_grace,
            "purge_log": self.purge_log.to_dict(),
            "disk": self.tier is not None,
            "members": self.members_body(),
            "view": self.routing.view_body(),
        }
        return Frame(Kind.CONFIG, body)

    def _frame(self, index: int, frame: Frame) -> None:
        """What a worker tells."""
        body = frame.body
        if frame.kind is Kind.COUNTS:
            self.totals.add(index, body, monotonic())
        elif frame.kind is Kind.REPORT:
            self.routing.set_ejected(index, body["pool"], body["ejected"], monotonic())
            for identity in body["failing"]:
                self.on_failing((body["pool"], identity))
            self.decide()
        elif frame.kind is Kind.EVENT:
            facts = {key: value for key, value in body.items() if key != "kind"}
            self.events.add(str(body["kind"]), {**facts, "worker": index})
        elif frame.kind is Kind.INVALIDATED:
            for slot in self.workers.live:
                if slot.index != index and slot.child is not None:
                    slot.child.link.send(Frame(Kind.PURGE, body))

    def _worker_gone(self, index: int) -> None:
        self.totals.forget(index)
        self.routing.forget_worker(index)

    # -- operators -------------------------------------------------------------------------------------------------

    async def purge(self, purge: Purge, change: Change) -> dict[str, Any]:
        """Durable first, then in every worker, then the answer. One at a time, so that numbers arrive in order."""
        async with self._purging:
            number = self.keeper.purge(purge, change)
            self.purge_log.record(purge, time.time(), number)
            self.keeper.save_purge_log(self.purge_log)
            try:
                answers = await self.workers.tell(Kind.PURGE, {"purge": purge.to_dict(), "number": number})
            except Refused as error:
                raise NotApplied(f"purge {number} is durable, but not applied: {error.detail}") from None
            counts = [answer["count"] for answer in answers]
            if self.tier is not None:
                counts = await self._purge_tier(self.tier, purge, number, answers)
        shown = purge.to_dict()
        found = {
            "id": number,
            "kind": shown["kind"],
            "value": shown["value"],
            "soft": purge.soft,
            "count": None if any(count is None for count in counts) else sum(counts),
            "workers": len(answers),
        }
        facts = {"purge": number, "what": shown["kind"], "value": shown["value"], "count": found["count"]}
        self.events.add("purge", {**facts, "soft": purge.soft, "actor": change.actor})
        return found

    async def _purge_tier(
        self, tier: Tier, purge: Purge, number: int, answers: list[dict[str, Any]]
    ) -> list[int | None]:
        """Out of the disk tier too, under every key that workers know the URL by; how many in all, each once."""
        keys = {key for answer in answers for key in answer.get("keys", ())}
        named = [replace(purge, value=key.encode("latin-1")) for key in sorted(keys)] or [purge]
        try:
            found = await asyncio.to_thread(tier.purge, named, time.time(), number)
        except EdgeError as error:
            raise NotApplied(f"purge {number} is durable, but not applied on disk: {error.detail}") from None
        if purge.kind in STAMPED:
            return [None]
        for answer in answers:
            marks = unpacked(answer.get("marks", ""))
            found.update(zip(marks[::2], marks[1::2], strict=True))
        return [len(found) + sum(answer.get("more", 0) for answer in answers)]

    async def connections(self) -> dict[str, Any]:
        """Every worker's connections and open requests; backends' numbers summed."""
        answers = await self.workers.tell(Kind.ASK, {"what": "connections"})
        sums: dict[tuple[str, str], dict[str, Any]] = {}
        for answer in answers:
            for row in answer["backends"]:
                key = (row["pool"], row["backend"])
                if key in sums:
                    for name in ("in_flight", "open", "idle"):
                        sums[key][name] += row[name]
                else:
                    sums[key] = dict(row)
        return {
            "clients": [client for answer in answers for client in answer["clients"]],
            "requests": [request for answer in answers for request in answer["requests"]],
            "more": sum(answer["more"] for answer in answers),
            "backends": list(sums.values()),
        }


def worker_count(config: Config) -> int:
    """How many workers. "auto" is one for each core that this process may use; one where a route caches without disk.

    Each worker's memory is its own: with several and no tier that they share, a stored response would be a hit or a
    miss by the connection that asks, and be fetched once for each worker. Who wants that gives the number.
    """
    workers = config.listen.workers
    if isinstance(workers, int):
        return workers
    caches = config.cache.disk is None and any(route.cache is not None for route in config.routes)
    return 1 if caches else max(1, len(os.sched_getaffinity(0)))


def without_seeds(body: dict[str, Any]) -> dict[str, Any]:
    """What makes a view another view: seeds move with every probe, and matter only beside another change."""
    return {name: {key: value for key, value in pool.items() if key != "seeds"} for name, pool in body["pools"].items()}

"""The control plane: what is known, what is decided, and that every worker acts on it.

    journal ─► membership ─► routing ─┬─► VIEW, MEMBERS ─► workers ─► COUNTS ─► totals
    prober ───────────────────────────┘                          └─► REPORT, EVENT ─► routing, events

One rule: it never stands in a request's way. Workers go on with their last view whatever happens here; what an operator
changed is answered only when it is durable and every live worker has applied it.
Processes, signals and listeners are `gateway`'s; the same object runs in tests over an in-memory link.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from edge.adapters.session_tickets import TicketSecret
from edge.cache.purge import Purge, PurgeLog
from edge.config.loader import Config, config_hash
from edge.config.sources import Sources
from edge.control.admin.errors import NotApplied
from edge.control.changes import By
from edge.control.early import worker_count
from edge.control.events import Events
from edge.control.hottest import merged
from edge.control.journal import Revision
from edge.control.link import Refused
from edge.control.listeners import Listeners
from edge.control.membership import Key, Membership, members_body, routes_of
from edge.control.packing import pack
from edge.control.purging import Order, PurgeStore, Purging, Tier
from edge.control.registry import Change, Registry, StateStore
from edge.control.routing import Routing
from edge.control.slots import Child, Hooks, Slot
from edge.control.totals import Totals
from edge.control.workers import Workers
from edge.dataplane.worker.vitals import Vitals
from edge.errors import EdgeError, FleetAway
from edge.frames import Frame, FrameKind

if TYPE_CHECKING:
    from edge.control.fleet.member import Fleet

DECIDE_S = 0.25
EXPIRE_S = 1.0


class SupervisorStore(StateStore, PurgeStore, Protocol):
    """The durable side, as the supervisor needs it."""

    def membership(self, config: Config) -> Membership: ...
    def purge_log(self) -> PurgeLog: ...
    def revision(self, sources: Sources) -> int: ...
    def revisions(self, limit: int, newest: int | None = None) -> list[Revision]: ...
    def audit(self, limit: int, before: int | None = None) -> list[dict[str, Any]]: ...


class Protection(Protocol):
    """The sidecar, as far as status shows it."""

    status: dict[str, Any]

    def gauges(self) -> list[tuple[str, str, dict[str, str], float]]: ...


class Reloads(Protocol):
    """Reloads the configuration: see `reloading`."""

    @property
    def status(self) -> dict[str, Any]: ...

    async def reload(self, change: Change, given: Revision | None = None, dry_run: bool = False) -> dict[str, Any]: ...

    def gauges(self) -> list[tuple[str, str, dict[str, str], float]]: ...


class Issues(Protocol):
    """Obtains and renews certificates: see `issuing`."""

    @property
    def rows(self) -> list[dict[str, Any]]: ...

    def check(self, names: Sequence[str]) -> None: ...
    async def renewed(self) -> None: ...
    async def renew(self, names: Sequence[str]) -> dict[str, Any]: ...

    def gauges(self) -> list[tuple[str, str, dict[str, str], float]]: ...


class Upgrades(Protocol):
    """Hands over to a new program: see `succession`."""

    handed_over: Callable[[int], None]

    async def upgrade(self, change: Change) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class RunningConfig:
    """The configuration that runs."""

    config: Config
    sources: Sources
    loaded_at: float

    @property
    def filename(self) -> str:
        """The main file's name."""
        return self.sources.filename

    @property
    def hash(self) -> str:
        """The hash of the configuration's texts."""
        return config_hash(self.sources.text, self.sources.files)


class Supervisor:
    """The control plane of one gateway."""

    def __init__(
        self,
        running: RunningConfig,
        state_store: SupervisorStore,
        spawn: Callable[[int], Awaitable[Child]],
        echo: Callable[[dict[str, Any]], None] | None = None,
        listeners: Listeners | None = None,
    ) -> None:
        config = running.config
        self.running = running
        self.listeners = listeners  # None: the workers bind for themselves
        self.started_at = time.time()
        self.stopping = False
        self.events = Events(time.time, echo)
        self.totals = Totals(time.time() - monotonic())
        self.vitals = Vitals(DECIDE_S)
        self.admin_answers: dict[int, int] = {}  # of the admin API, by status
        self.state_store = state_store
        self.routes = routes_of(config)
        self.routing = Routing(config, state_store.membership(config), self.events.add, time.time)
        self.registry = Registry(self.routing, self.routes, state_store, self.push, time.time)
        self.purge_log = state_store.purge_log()
        self.workers = Workers(
            spawn, worker_count(config), Hooks(self._first, self._frame, self.events.add, self._worker_gone)
        )
        self.purging = Purging(state_store, self.purge_log, self.workers, lambda: self.tier, self.events)
        self.fleet: Fleet | None = None  # where [fleet] or cache.shared is given
        self.on_members: Callable[[], None] = lambda: None
        self.tier: Tier | None = None  # where cache.disk is given, and can be used
        self.recovery: Protection | None = None
        self.reloading: Reloads | None = None
        self.upgrading: Upgrades | None = None
        self.issuing: Issues | None = None
        self.challenges: dict[str, str] = {}  # what workers answer to a server of certificates, by token
        self.on_failing: Callable[[Key], None] = lambda key: None
        self.on_decided: Callable[[], None] = lambda: None
        self._tickets = TicketSecret.new(self.started_at)
        self._pushed: dict[str, Any] = {}
        self.accepted: bool | None = None  # False: the running configuration is still to be written down
        self._troubles: dict[str, str] = {}
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
        """Stop all tasks and end the workers at once, without a drain."""
        self.stopping = True
        self.events.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self.workers.kill()

    def accept(self) -> int | None:
        """Record that the workers serve this configuration, and return its revision number, to which a rollback can
        go. When the disk is full it returns None and is tried again later.
        """
        try:
            found = self.state_store.revision(self.running.sources)
        except EdgeError as error:
            self._trouble("revision", error)
            self.accepted = False
            return None
        self.accepted = True
        return found

    def take_on(self, running: RunningConfig, change: Change) -> None:
        """Decide by another configuration from now on; the caller changes the workers. Raises JournalError, and then
        nothing has changed.
        """
        membership = self.state_store.membership(running.config)
        self.running = running
        self.routes = self.registry.routes = routes_of(running.config)
        self.routing.reload(running.config, membership, By(change.actor, "the configuration was loaded again"))
        self.routing.decide(monotonic())
        self._pushed = without_seeds(self.routing.view_body())

    def readiness(self) -> tuple[bool, str]:
        """Whether clients are served, and a word for the reason."""
        if self.stopping:
            return False, "stopping"
        return (True, "ready") if self.workers.ready else (False, "starting")

    # -- routing ---------------------------------------------------------------------------------------------------

    async def _decide_often(self) -> None:
        """Time alone changes views (ramps, holds, ejections that end); a failure here must not end deciding."""
        while True:
            await asyncio.sleep(DECIDE_S)
            self.vitals.ticked(monotonic())
            self.decide()

    def decide(self) -> None:
        """Decide which regions serve, and tell the workers if that changed."""
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
            self.workers.send_all(Frame(FrameKind.VIEW, body))

    async def push(self) -> None:
        """Tell every worker the membership and the view. Returns when each has applied them. Raises NotApplied."""
        self.on_members()
        self.routing.decide(monotonic())
        view = self.routing.view_body()
        self._pushed = without_seeds(view)
        try:
            # Both at once: the link keeps the order.
            members = self.workers.tell(FrameKind.MEMBERS, self.members_body())
            await asyncio.gather(members, self.workers.tell(FrameKind.VIEW, view))
        except Refused as error:
            raise NotApplied(f"durable, but not applied: {error.detail}") from None

    def members_body(self) -> dict[str, Any]:
        """The body of a MEMBERS frame."""
        probed = {name for name, pool in self.routing.pools.items() if pool.probed}
        return members_body(self.routing.membership, self.running.config, probed)

    def forget(self) -> None:
        """Drop the counts of backends and regions that were removed a while ago."""
        membership = self.routing.membership
        self.totals.prune(membership.backends, membership.regions, monotonic())

    async def _expire_often(self) -> None:
        while True:
            await asyncio.sleep(EXPIRE_S)
            self.forget()
            try:
                await self.registry.expire()
                if self.accepted is False:
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

    def _first(self, slot: Slot) -> tuple[Frame, Sequence[socket.socket]]:
        """All that a new worker must know, and the sockets that it accepts on."""
        bound = self.listeners.of(slot.place) if self.listeners is not None else []
        body = {
            "config": pack(self.running.config),
            "filename": self.running.filename,
            "worker": slot.index,
            "listeners": [name for name, _ in bound],
            "purge_log": self.purge_log.to_dict(),
            "disk": self.tier is not None,
            "tickets": self._tickets.tell(time.time()),
            "challenges": self.challenges,
            **self.state_body(),
            "fleet": None if self.fleet is None else {"load": self.fleet.load_body(), **self.fleet.standing()},
        }
        return Frame(FrameKind.CONFIG, body), [sock for _, sock in bound]

    def state_body(self) -> dict[str, Any]:
        """The present state, as the body of frames."""
        return {"members": self.members_body(), "view": self.routing.view_body()}

    def _frame(self, index: int, frame: Frame) -> None:
        """Act on a frame of worker `index`."""
        body = frame.body
        if frame.kind is FrameKind.COUNTS:
            self.totals.add(index, body, monotonic())
        elif frame.kind is FrameKind.REPORT:
            self.routing.set_ejected(index, body["pool"], body["ejected"], monotonic())
            for identity in body["failing"]:
                self.on_failing((body["pool"], identity))
            self.decide()
        elif frame.kind is FrameKind.EVENT:
            facts = {key: value for key, value in body.items() if key != "kind"}
            self.events.add(str(body["kind"]), {**facts, "worker": index})
        elif frame.kind is FrameKind.LIMITS:
            if self.fleet is not None and self.fleet.limits is not None:
                self.fleet.limits.counted(body["rows"])
        elif frame.kind is FrameKind.INVALIDATED:
            self.workers.pass_on(index, frame)
            if self.fleet is not None:
                self.fleet.invalidated(Purge.from_dict(body["purge"]))

    def _worker_gone(self, index: int) -> None:
        self.totals.forget(index)
        self.routing.forget_worker(index)

    # -- operators -------------------------------------------------------------------------------------------------

    async def purge(self, purge: Purge, change: Change) -> dict[str, Any]:
        """Carry out a purge here and on the fleet's other machines. Returns when it is durable and in every worker."""
        return (await self.purge_many([purge], change))[0]

    async def purge_many(self, purges: Sequence[Purge], change: Change) -> list[dict[str, Any]]:
        """As `purge`, for several; on this machine all of them are durable or none is."""
        fleet = self.fleet
        if fleet is not None and fleet.in_step:
            try:
                return await fleet.purge(purges, change.actor, change.reason)
            except FleetAway as error:
                self.events.add("fleet.not_sent", {"evidence": error.detail})
        found = await self.purging.carry_out([Order(purge, change, own=fleet is not None) for purge in purges])
        if fleet is None:
            return found
        machines = await fleet.afterwards(max(each["id"] for each in found))
        return [{**each, "machines": machines} for each in found]

    async def hottest(self, limit: int) -> dict[str, Any]:
        """The most requested URLs, from the samples of all workers."""
        answers = await self.workers.tell(FrameKind.ASK, {"what": "hottest", "limit": max(100, 4 * limit)})
        seconds = min(60.0, max(1.0, time.time() - self.started_at))
        rate = self.totals.accounts.total.window("1m", monotonic()).requests / seconds
        return merged(answers, limit, rate)

    async def connections(self, limit: int = 10_000) -> dict[str, Any]:
        """Every worker's connections and open requests, and the backends' numbers summed."""
        answers = await self.workers.tell(FrameKind.ASK, {"what": "connections", "limit": limit})
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


def without_seeds(body: dict[str, Any]) -> dict[str, Any]:
    """A view without its seeds, to tell whether it changed: seeds move with every probe and matter only beside
    another change.
    """
    return {name: {key: value for key, value in pool.items() if key != "seeds"} for name, pool in body["pools"].items()}

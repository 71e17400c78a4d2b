"""The worker's side of the link: does what the control plane says, tells it what happened.

    down  VIEW MEMBERS PURGE FLEET ASK WARM DRAIN REOPEN PREPARE COMMIT ABANDON
    up    COUNTS (1/s) REPORT, EVENT (when it happened) ACK PROGRESS

One rule: an ACK says that it is done, not that it will be: whatever the worker serves after it follows the new state.
A link that ends stops nothing; the worker goes on with what it was told last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from edge.balance.backend import Backend, BackendSpec
from edge.balance.geo import GeoMap
from edge.balance.health import Admin, Health
from edge.balance.regions import RegionSpec, RoutingView
from edge.cache.purge import Purge
from edge.dataplane.caching.others import follow
from edge.dataplane.caching.purging import Purging, purged
from edge.dataplane.rules.fleet_limits import counted, follow_limits
from edge.dataplane.worker.explain import explain
from edge.dataplane.worker.graph import show_tokens
from edge.dataplane.worker.listener import place_text
from edge.dataplane.worker.report import MAX_CONNECTIONS, Counting, connections
from edge.errors import BadRequest, ConfigError, EdgeError
from edge.frames import Frame, FrameKind, ack, packed

if TYPE_CHECKING:
    from edge.dataplane.upstream.pool import PoolRuntime
    from edge.dataplane.worker.worker import Worker

TICK_S = 0.25
TICKS_PER_COUNT = 4
LONG = (FrameKind.PREPARE, FrameKind.COMMIT, FrameKind.RENEWED)  # what is not done in one turn of the loop

Send = Callable[[Frame], None]


class Reload(Protocol):
    """Builds and swaps the next graph (`worker_reload`)."""

    async def prepare(self, body: dict[str, Any]) -> None: ...
    def abandon(self) -> None: ...
    def swap(self, number: int, kept: Mapping[str, Collection[str]]) -> None: ...
    async def settle(self) -> list[tuple[str, int]]: ...
    async def renew_certificates(self) -> None: ...


class WorkerAgent:
    """One worker's agent. `ended` is called when a drain is over."""

    def __init__(self, worker: Worker, send: Send, ended: Callable[[], None], reload: Reload | None = None) -> None:
        self.worker = worker
        self._reload = reload
        self._send = send
        self._ended = ended
        self._counting = Counting(worker)
        self._registered: dict[str, set[str]] = {}  # run-time backends by pool
        self._known_regions: list[dict[str, Any]] = []
        self._ejected: dict[str, AbstractSet[str]] = {}
        self._failures: dict[str, dict[str, int]] = {}
        self._ticks = 0
        self._limits_are_shared = False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._does: dict[FrameKind, Callable[[dict[str, Any]], dict[str, Any] | None]] = {
            FrameKind.VIEW: self._view,
            FrameKind.MEMBERS: self._members,
            FrameKind.FLEET: self._fleet,
            FrameKind.ASK: self._ask,
            FrameKind.REOPEN: self._reopen,
            FrameKind.ABANDON: self._abandon,
            FrameKind.CHALLENGES: self._challenges,
        }

    # -- life ------------------------------------------------------------------------------------------------------

    def begin(self, first: dict[str, Any]) -> None:
        """Apply the state that stands in the first frame, before anything is served."""
        if self.worker.store is not None and first.get("purge_log"):
            self.worker.store.restore_purge_log(first["purge_log"])
        if self.worker.store is not None:
            self.worker.store.announce = self._announce
        self.worker.tell = self._event
        if first.get("fleet") is not None:
            follow(self.worker, first["fleet"])
        self._challenges({"tokens": first.get("challenges", {})})
        self._members(first["members"])
        self._view(first["view"])

    def _event(self, kind: str, facts: dict[str, Any]) -> None:
        self._send(Frame(FrameKind.EVENT, {**facts, "kind": kind}))

    def _announce(self, purge: Purge) -> None:
        """An unsafe request made something invalid here; the other workers are to follow."""
        self._send(Frame(FrameKind.INVALIDATED, {"purge": purge.to_dict(), "number": None}))

    def start(self) -> None:
        """Start the periodic reports."""
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    async def stop(self) -> None:
        """Report the last counts and end what runs."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in list(self._tasks):
            if task is not asyncio.current_task():
                task.cancel()
        self._send(Frame(FrameKind.COUNTS, self._counting.body()))

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        self._tell_events()
        rows = counted(self.worker.router.routes) if self._limits_are_shared else ()
        if rows:
            self._send(Frame(FrameKind.LIMITS, {"rows": rows}))
        self._ticks += 1
        if self._ticks % TICKS_PER_COUNT == 0:
            self._send(Frame(FrameKind.COUNTS, self._counting.body()))

    def _tell_events(self) -> None:
        """Pass on what the tiers and pools did since the last time, and who is ejected when that changed."""
        now = monotonic()
        for told in self.worker.store.take_events() if self.worker.store is not None else ():
            self._send(Frame(FrameKind.EVENT, told))
        for name, runtime in self.worker.pools.items():
            for event in runtime.pool.take_events():
                facts = {"kind": event.kind, "subject": event.subject, "evidence": event.evidence}
                self._send(Frame(FrameKind.EVENT, {**facts, "pool": name}))
            ejected = {b.id: b.ejected_until - now for b in runtime.pool.backends if b.ejected_until > now}
            failing = self._failing(runtime.pool.backends, name)
            if failing or ejected.keys() != self._ejected.get(name, frozenset()):
                self._ejected[name] = ejected.keys()
                self._send(Frame(FrameKind.REPORT, {"pool": name, "ejected": ejected, "failing": failing}))

    def _failing(self, backends: list[Backend], pool: str) -> list[str]:
        """The backends that failed requests since the last look: probes should look soon."""
        before = self._failures.get(pool, {})
        self._failures[pool] = now = {backend.id: backend.failures for backend in backends}
        return [identity for identity, count in now.items() if count > before.get(identity, 0)]

    # -- frames ----------------------------------------------------------------------------------------------------

    def on_frame(self, frame: Frame) -> None:
        """Carry out a frame; acknowledge it when it has an id."""
        if frame.kind is FrameKind.WARM:
            self._run(self._warm(frame), "warm")
            return
        if frame.kind is FrameKind.DRAIN:
            self.drain(float(frame.body["grace_s"]), lambda: self._answer(ack(frame)))
            return
        if frame.kind is FrameKind.ASK and frame.body.get("what") == "probe":
            self._run(self._probe(frame), "probe")
            return
        if frame.kind in LONG:
            if frame.kind is not FrameKind.COMMIT or self._swap(frame):
                self._run(self._settle(frame), frame.kind.value)
            return
        do = self._does.get(frame.kind)
        if do is None and frame.kind is not FrameKind.PURGE:
            self._answer(ack(frame, error=f"a worker does not take {frame.kind.value} frames"))
            return
        try:
            if do is None:
                self._purge(frame)
            else:
                self._answer(ack(frame, do(frame.body)))
        except EdgeError as error:
            self._answer(ack(frame, error=error.detail))
        except Exception as error:  # a bug: the asker hears of it, the worker serves on
            self.worker.report_bug(error)
            self._answer(ack(frame, error=f"{frame.kind.value} failed: {type(error).__name__}"))

    def _answer(self, answer: Frame) -> None:
        if answer.id:
            self._send(answer)

    def _run(self, work: Awaitable[None], name: str) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- what is done ----------------------------------------------------------------------------------------------

    def _view(self, body: dict[str, Any]) -> None:
        """The routing view, probes' verdicts and administrative states; all of them each time."""
        now = monotonic()
        for name, told in body["pools"].items():
            runtime = self.worker.pools.get(name)
            if runtime is None:
                continue
            pool = runtime.pool
            for identity, word in told["admin"].items():
                backend = pool.get(identity)
                if backend is not None:
                    self._set_admin(runtime, backend, Admin(word), now)
            pool.apply_health({identity: Health(word) for identity, word in told["health"].items()}, now)
            for identity, seconds in told.get("seeds", {}).items():
                backend = pool.get(identity)
                if backend is not None:
                    backend.latency.seed(seconds, now)
            view = RoutingView.from_dict(told["view"])
            if view != pool.view:
                pool.apply(view)

    @staticmethod
    def _set_admin(runtime: PoolRuntime, backend: Backend, admin: Admin, now: float) -> None:
        if backend.admin is admin:
            return
        backend.set_admin(admin, now)
        link = runtime.links.get(backend.id)
        if admin is not Admin.ACTIVE and link is not None:
            link.close_idle()  # running requests end on theirs

    def _members(self, body: dict[str, Any]) -> None:
        """The run-time backends, all of them: who is missing joins, who is no more there leaves."""
        self._regions(body["regions"], body["overrides"])
        for name, runtime in self.worker.pools.items():
            told = {spec["id"]: spec for spec in body["backends"].get(name, [])}
            known = self._registered.setdefault(name, set())
            for identity in known - told.keys():
                runtime.remove(identity)
                known.discard(identity)
            for identity, values in told.items():
                self._member(runtime, spec_of(name, values), bool(values.get("probed")))
                known.add(identity)

    def _regions(self, regions: list[dict[str, Any]], overrides: list[tuple[str, str]]) -> None:
        """All regions, for the order that suits a client's place."""
        geography = self.worker.geography
        if geography is None or regions == self._known_regions:
            return
        self._known_regions = regions
        specs = [
            RegionSpec(
                name=each["name"],
                tier=each["tier"],
                location=None if each["location"] is None else (each["location"][0], each["location"][1]),
                countries=tuple(each["countries"]),
                continents=tuple(each["continents"]),
                subdivisions=tuple(each["subdivisions"]),
            )
            for each in regions
        ]
        geography.regions = GeoMap(specs, [(network, region) for network, region in overrides])

    @staticmethod
    def _member(runtime: PoolRuntime, spec: BackendSpec, probed: bool) -> None:
        old = runtime.pool.get(spec.id)
        if old is not None and old.spec == spec:
            return
        if old is not None:
            runtime.remove(spec.id)
        runtime.add(Backend(spec, probed, runtime.pool.settings.ejection))

    def _purge(self, frame: Frame) -> None:
        """Put a purge in force, and answer when it is counted: with marks where the disk tier is to count the rest."""
        asked = Purge.from_dict(frame.body["purge"])
        purging = Purging(self.worker, asked, frame.body["number"])
        purged(self.worker, asked, frame.body.get("position"))

        def answer() -> None:
            found: dict[str, Any] = {"count": purging.count}
            if self.worker.store is not None and self.worker.store.disk is not None:
                found["keys"] = [key.decode("latin-1") for key in purging.keys]
                found["marks"], found["more"] = packed(purging.marks), purging.more
            self._answer(ack(frame, found))

        purging.then(answer)

    def _fleet(self, body: dict[str, Any]) -> None:
        """Note where the machine stands in its fleet."""
        follow(self.worker, body)
        self._limits_are_shared |= follow_limits(self.worker.router.routes, body)

    def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        """Answer an operator's question."""
        what = body.get("what")
        if what == "connections":
            return connections(self.worker, body.get("limit", MAX_CONNECTIONS))
        if what == "explain":
            return explain(self.worker, body)
        if what == "hottest":
            return self.worker.hottest.report(body["limit"], monotonic())
        if what == "pools":
            now = monotonic()
            return {"pools": {name: runtime.pool.table(now) for name, runtime in self.worker.pools.items()}}
        raise BadRequest(f"unknown question {what!r}")

    def drain(self, grace_s: float, left: Callable[[], None] = lambda: None) -> None:
        """End running exchanges within the grace time, then the worker; `left`: when nobody is let in any more."""

        async def end() -> None:
            await self.worker.drain(grace_s, left)
            self._ended()

        self._run(end(), "drain")

    def _swap(self, frame: Frame) -> bool:
        """Serve by what was prepared, with the members and the view that go with it, from this turn on."""
        assert self._reload is not None  # nothing is prepared without
        body = frame.body
        try:
            self._reload.swap(body["number"], self._registered)
            for name in self.worker.pools:
                told = {spec["id"] for spec in body["members"]["backends"].get(name, [])}
                self._registered[name] = {each for each in self._registered.get(name, ()) if each in told}
            self._members(body["members"])
            self._view(body["view"])
        except EdgeError as error:
            self._answer(ack(frame, error=error.detail))
            return False
        return True

    async def _settle(self, frame: Frame) -> None:
        """The part of a reload that takes time."""
        assert self._reload is not None
        found: dict[str, Any] = {}
        try:
            if frame.kind is FrameKind.PREPARE:
                await self._reload.prepare(frame.body)
            elif frame.kind is FrameKind.RENEWED:
                await self._reload.renew_certificates()
            else:
                found = {"addresses": [place_text(each) for each in await self._reload.settle()]}
            self._answer(ack(frame, found))
        except (EdgeError, OSError) as error:
            text = "; ".join(error.problems) if isinstance(error, ConfigError) else str(error)
            self._answer(ack(frame, error=text))
        except Exception as error:
            self.worker.report_bug(error)
            self._answer(ack(frame, error=f"{frame.kind.value} failed: {type(error).__name__}"))

    def _abandon(self, body: dict[str, Any]) -> None:
        """The reload is given up: forget what was prepared."""
        assert self._reload is not None
        self._reload.abandon()

    def _reopen(self, body: dict[str, Any]) -> None:
        """Reopen the log after rotation."""
        self.worker.log.reopen()

    def _challenges(self, body: dict[str, Any]) -> None:
        """Note the tokens and answers for ACME challenges."""
        show_tokens(self.worker, {token.encode(): text.encode() for token, text in body["tokens"].items()})

    async def _probe(self, frame: Frame) -> None:
        """Probe an application that runs in this worker."""
        applications, asked = self.worker.applications, frame.body
        try:
            if applications is None:
                raise KeyError
            found = await applications.probe(asked["app"], asked["path"], asked["host"], asked["timeout_s"])
            self._answer(ack(frame, found))
        except KeyError:
            self._answer(ack(frame, error="the application does not run here"))
        except Exception as error:
            self.worker.report_bug(error)
            self._answer(ack(frame, error=f"probe failed: {type(error).__name__}"))

    async def _warm(self, frame: Frame) -> None:
        """Fetch a list into the store and report each step."""
        store = self.worker.store
        if store is None:
            self._answer(ack(frame, error="no route has a cache"))
            return

        def progress(step: dict[str, Any]) -> None:
            self._send(Frame(FrameKind.PROGRESS, step, frame.id))

        try:
            self._answer(ack(frame, await store.warm(frame.body["urls"], progress)))
        except EdgeError as error:
            self._answer(ack(frame, error=error.detail))
        except Exception as error:
            self.worker.report_bug(error)
            self._answer(ack(frame, error=f"warm failed: {type(error).__name__}"))


def spec_of(pool: str, values: dict[str, Any]) -> BackendSpec:
    """A backend as a MEMBERS frame tells it."""
    return BackendSpec(
        id=values["id"],
        pool=pool,
        scheme=values["scheme"],
        host=values["host"],
        port=values["port"],
        authority=values["authority"].encode(),
        region=values["region"],
        weight=values["weight"],
        max_in_flight=values["max_in_flight"],
    )

"""`edge run` as a process: one instance per state directory, listeners checked, signals, the admin API, the end.

    lock ─► addresses free? ─► journal, token ─► workers ─► admin API ─► ready ─► TERM ─► drain ─► 0
                                                                             └─ second TERM ─► end at once ─► 143

One rule: what cannot work is said before anything serves: one clear line and exit code 1. Workers that an earlier
supervisor left behind (it was killed) serve on until the new ones listen, then they are told to end.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson
from aiohttp import web

from edge.adapters.disk_awaited import awaits
from edge.adapters.disk_keeper import TierKeeper
from edge.adapters.disk_place import TierError, TierInUse
from edge.adapters.disk_room import Limits
from edge.adapters.sockets import check_free
from edge.config.loader import Config
from edge.control.access import Access, Role, Token
from edge.control.admin.application import admin_app, start_admin
from edge.control.fleet.member import Fleet
from edge.control.fleet.opening import open_fleet
from edge.control.listeners import CannotListen, HeldListener, Listeners
from edge.control.probing import Probing
from edge.control.recovery import Recovery
from edge.control.registry import Change
from edge.control.reloading import Reloading, addresses
from edge.control.state_store import JournalStateStore
from edge.control.supervisor import Running, Supervisor, worker_count
from edge.control.token import token_of
from edge.control.workers import WORKER_MODULE, Child, spawn_process
from edge.errors import ConfigError, EdgeError
from edge.frames import Frame, Kind

READY_S = 30.0
WORKERS_FILE = "workers.json"
LOCK_FILE = "supervisor.lock"
LOUD = (
    "disk.",
    "worker.",
    "app.",
    "gateway.",
    "bug",
    "region.",
    "backend.",
    "ejected",
    "panic",
    "recovery.",
    "fleet.",
    "shared.",
)


class CannotStart(EdgeError):
    """Something that must be there is not; one clear line."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What `edge run` is given. `on_ready` is called once, when every worker listens."""

    config: Config
    text: str
    filename: str
    on_ready: Callable[[], None] = field(default=lambda: None)


async def run_gateway(settings: Settings) -> int:
    """Run until told to end; the exit code."""
    config = settings.config
    state = Path(config.state.path)
    lock = lock_state(state)
    orphans = orphaned(state)
    listeners = Listeners()
    listeners.add(open_listeners(listeners, config, bool(orphans)))
    access = access_of(config)
    keeper = JournalStateStore.open(state)
    running = Running(config, settings.text, settings.filename, time.time())
    roll = WorkerPidFile(state / WORKERS_FILE, orphans)
    supervisor = Supervisor(running, keeper, roll.spawn, echo, listeners)
    for line in keeper.passed_over:
        supervisor.events.add("gateway.passed_over", {"evidence": line})
    tier = open_tier(config, keeper, supervisor)
    supervisor.reloading = reloading = Reloading(supervisor, listeners)
    supervisor.fleet = fleet = open_fleet(config, supervisor, keeper)
    gateway = Gateway(supervisor, orphans)
    probing = Probing(config, supervisor)
    reloading.followers += [probing.reload, Renewal(access, supervisor).reload]
    runner: web.AppRunner | None = None
    recovery: Recovery | None = None
    try:
        admin = config.admin
        app = admin_app(supervisor, access, admin.body_timeout, admin.rate)
        runner = await start_admin(app, admin.listen.host, admin.listen.port, admin.connections, admin.header_timeout)
        if fleet is not None:
            await fleet.start()
        supervisor.start()
        probing.start()
        supervisor.recovery = recovery = Recovery(supervisor)
        reloading.followers.append(recovery.reload)
        if config.snapshots is not None and config.cache.disk is not None and awaits(Path(config.cache.disk.path)):
            recovery.start()  # requests may want bodies that a restore left in the repository
        return await gateway.serve(lambda: begin(settings, recovery, fleet))
    finally:
        if recovery is not None:
            await recovery.stop()
        await probing.stop()
        await supervisor.close()
        if fleet is not None:
            await fleet.stop()
        if runner is not None:
            await runner.cleanup()
        keeper.save_purge_log(supervisor.purge_log, always=True)
        keeper.close()
        roll.path.unlink(missing_ok=True)  # no worker is left
        if tier is not None:
            tier.close()
        listeners.close()
        lock.close()


def open_listeners(listeners: Listeners, config: Config, beside: bool) -> dict[str, HeldListener]:
    """Every address, in the supervisor's hands. Raises CannotStart. `beside`: orphans of ours share theirs."""
    try:
        opened = listeners.open_all(addresses(config), worker_count(config), beside)
        admin = config.admin.listen
        try:
            check_free(admin.host, admin.port)
        except OSError as error:
            raise CannotListen(f"{admin}: cannot listen: {error.strerror}") from None
    except CannotListen as error:
        listeners.close()
        raise CannotStart(error.detail) from None
    return opened


def open_tier(config: Config, keeper: JournalStateStore, supervisor: Supervisor) -> TierKeeper | None:
    """The disk tier, in step with the journal; without it requests are served on. Raises CannotStart: in use."""
    disk = config.cache.disk
    if disk is None:
        return None
    try:
        tier = TierKeeper.open(Path(disk.path), Limits(disk.size, disk.min_free), supervisor.purge_log, keeper.history)
    except TierInUse as error:
        keeper.close()
        raise CannotStart(error.detail) from None
    except TierError as error:
        supervisor.events.add("disk.unusable", {"evidence": error.detail})
        return None
    if tier.said:
        supervisor.events.add("disk.moved_aside", {"evidence": tier.said})
    supervisor.tier = tier
    return tier


def begin(settings: Settings, recovery: Recovery | None, fleet: Fleet | None) -> None:
    """Every worker listens, and none of an earlier run does: the sidecar has something to take, and what is said to
    the fleet holds for all that is served."""
    if fleet is not None:
        fleet.serving()
    if recovery is not None and settings.config.snapshots is not None:
        recovery.start()
    settings.on_ready()


def access_of(config: Config) -> Access:
    """The admin API's tokens and names. Raises ConfigError when a token cannot be read or made."""
    admin = config.admin
    tokens = [
        Token(token_of(Path(admin.token_file)), name="admin"),
        *(Token(token_of(Path(each.file)), Role(each.role), each.name) for each in admin.tokens),
    ]
    return Access(tokens, [admin.listen.host, *admin.hosts], ["/metrics"] if admin.metrics_open else [])


class Renewal:
    """The admin API's tokens and names after a reload."""

    def __init__(self, access: Access, supervisor: Supervisor) -> None:
        self._access = access
        self._supervisor = supervisor

    def reload(self, config: Config, before: Config) -> None:
        """Read the tokens again; where that fails, the old ones stay."""
        try:
            self._access.renew(access_of(config))
        except ConfigError as error:
            self._supervisor.events.add("gateway.tokens_kept", {"evidence": error.problems[0]})


class Gateway:
    """The process's side of a supervisor: signals, and who is left from an earlier one."""

    def __init__(self, supervisor: Supervisor, orphans: list[int]) -> None:
        self._supervisor = supervisor
        self._orphans = orphans
        self._told = 0
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, on_ready: Callable[[], None]) -> int:
        """From start to end; the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._terminate)
        loop.add_signal_handler(signal.SIGUSR1, self._reopen)
        loop.add_signal_handler(signal.SIGHUP, self._hangup)
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        if await self._ready(stopping):
            end_orphans(self._orphans)
            self._supervisor.accept()
            on_ready()
            await stopping
        return await self._end()

    async def _ready(self, stopping: asyncio.Task[bool]) -> bool:
        """Wait until every worker listens; False when told to stop. Raises CannotStart."""
        supervisor = self._supervisor
        deadline = time.monotonic() + READY_S
        while not supervisor.workers.ready:
            await asyncio.wait((stopping,), timeout=0.02)
            if stopping.done():
                return False
            why = why_not_ready(supervisor)
            if why is not None or time.monotonic() > deadline:
                stopping.cancel()
                raise CannotStart(why or f"the workers were not ready within {READY_S:g} s")
        return True

    async def _end(self) -> int:
        grace_s = self._supervisor.running.config.limits.shutdown_grace
        drain = asyncio.create_task(self._supervisor.stop(grace_s), name="drain")
        at_once = asyncio.create_task(self._at_once.wait(), name="at-once")
        await asyncio.wait((drain, at_once), return_when=asyncio.FIRST_COMPLETED)
        at_once.cancel()
        if drain.done():
            drain.result()
            return 0
        drain.cancel()
        await asyncio.gather(drain, return_exceptions=True)
        await self._supervisor.close()
        return 143

    # -- signals ---------------------------------------------------------------------------------------------------

    def _terminate(self) -> None:
        self._told += 1
        self._supervisor.stopping = True  # readiness fails before anything else happens
        (self._at_once if self._told > 1 else self._stop).set()

    def _reopen(self) -> None:
        self._supervisor.workers.send_all(Frame(Kind.REOPEN))
        self._supervisor.events.add("gateway.logs_reopened")

    def _hangup(self) -> None:
        self._tasks.add(task := asyncio.create_task(self._reload("SIGHUP"), name="reload"))
        task.add_done_callback(self._tasks.discard)

    async def _reload(self, actor: str) -> None:
        reloading = self._supervisor.reloading
        try:
            if reloading is not None:
                await reloading.reload(Change(actor))
        except EdgeError:
            pass  # told as an event, and shown in the status


class WorkerPidFile:
    """The workers' process ids on disk, written before a worker can serve: for the supervisor after a killed one."""

    def __init__(self, path: Path, orphans: list[int]) -> None:
        self.path = path
        self._orphans = orphans
        self._pids: dict[int, int] = {}

    async def spawn(self, index: int) -> Child:
        """Start a worker, and write down that it is there."""
        child = await spawn_process(index)
        self._pids[index] = child.pid
        fresh = self.path.with_suffix(".new")
        fresh.write_bytes(orjson.dumps([*self._orphans, *self._pids.values()]))
        fresh.replace(self.path)
        return child


# -- before the start --------------------------------------------------------------------------------------------------


def lock_state(state: Path) -> IO[bytes]:
    """Hold the state directory until the file is closed. Raises CannotStart when another gateway holds it."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock = (state / LOCK_FILE).open("ab")
    except OSError as error:
        raise CannotStart(f"{state}: cannot be used as state directory: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise CannotStart(f"{state}: another gateway runs with this state directory") from None
    return lock


def orphaned(state: Path) -> list[int]:
    """Workers of an earlier supervisor that still run; a process id that means something else now is passed over."""
    try:
        found = orjson.loads((state / WORKERS_FILE).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return []
    return [pid for pid in found if isinstance(pid, int) and is_worker(pid)]


def is_worker(pid: int) -> bool:
    """Whether the process is an edge worker."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return WORKER_MODULE.encode() in words


def end_orphans(orphans: list[int]) -> None:
    """The new workers listen: the old ones drain and end."""
    for pid in orphans:
        if is_worker(pid):
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass  # it ended by itself


def why_not_ready(supervisor: Supervisor) -> str | None:
    """What a worker said that cannot start."""
    for event in supervisor.events.recent:
        if event["kind"] == "worker.cannot_start":
            return f"the workers cannot start: {event['evidence']}"
    return None


def echo(event: dict[str, Any]) -> None:
    """Events that an operator should find in the process's own output."""
    kind = str(event["kind"])
    looked = kind in ("backend.health", "region.health")
    first_look = looked and event.get("was") == "unknown" and event.get("is") == "healthy"
    if kind.startswith(LOUD) and not first_look:
        facts = " ".join(f"{key}={value}" for key, value in event.items() if key not in ("id", "time", "kind"))
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(event["time"]))
        print(f"{stamp} {kind} {facts}", file=sys.stderr, flush=True)

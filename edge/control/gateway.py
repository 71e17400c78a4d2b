"""`edge run` as a process: one instance per state directory, listeners checked, signals, the admin API, the end.

    lock ─► addresses free? ─► journal, token ─► workers ─► admin API ─► ready ─► TERM ─► drain ─► 0
                                                                             └─ second TERM ─► end at once ─► 143

One rule: what cannot work is said before anything serves: one clear line and exit code 1. Workers that an earlier
supervisor left behind (it was killed) serve on until the new ones listen, then they are told to end.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.adapters.app_check import end_running
from edge.adapters.config_files import matching
from edge.adapters.systemd import Manager
from edge.adapters.tls import stamps
from edge.config.loader import Config, fleet_of
from edge.control.certificates import watch
from edge.control.echoing import Echo
from edge.control.instance import (
    WORKERS_FILE,
    CannotStart,
    WorkerPidFile,
    end_orphans,
    lock_state,
    orphaned,
    same_state,
)
from edge.control.issuing import Issuing
from edge.control.listeners import Listeners
from edge.control.opening import Parts, Renewal, Settings, access_of, given_sockets, known, open_listeners, open_tier
from edge.control.probing import Probing
from edge.control.recovery import Recovery
from edge.control.registry import Change
from edge.control.reloading import Reloading
from edge.control.state_store import JournalStateStore
from edge.control.succession import Belongings, Upgrading
from edge.control.supervisor import RunningConfig, Supervisor
from edge.errors import EdgeError
from edge.frames import Frame, FrameKind

if TYPE_CHECKING:
    from edge.control.fleet.member import Fleet

READY_S = 30.0
WATCH_S = 0.5


async def run_gateway(settings: Settings) -> int:
    """Run until told to end; the exit code."""
    config, successor = settings.config, settings.successor
    state, manager = Path(config.state.path), Manager()
    lock = lock_state(state) if successor is None else same_state(state, successor.state_lock)
    orphans = orphaned(state)
    listeners = Listeners(given_sockets(manager, successor))
    opened, admin_socket = open_listeners(listeners, config, bool(orphans))
    listeners.add(opened)
    access = access_of(config)
    state_store = JournalStateStore.open(state)
    running = RunningConfig(config, settings.sources, time.time())
    roll = WorkerPidFile(state / WORKERS_FILE, orphans, settings.early)
    echo = Echo(config)
    supervisor = Supervisor(running, state_store, roll.spawn, echo, listeners)
    roll.unwritten = lambda why: supervisor.events.add("worker.unrecorded", {"evidence": why})
    for line in state_store.passed_over:
        supervisor.events.add("gateway.passed_over", {"evidence": line})
    tier = open_tier(config, state_store, supervisor, successor)
    supervisor.reloading = reloading = Reloading(supervisor, listeners)
    supervisor.fleet = fleet = fleet_of_config(config, supervisor, state_store)
    reloading.started, reloading.ended = manager.reloading, manager.ready
    supervisor.issuing = issuing = Issuing(supervisor, reloading.lock)
    reloading.have_files = issuing.have_files
    tier_lock = None if tier is None else tier.lock
    belongings = Belongings(listeners.all, listeners.files, lock.fileno(), tier_lock, manager.handed_over)
    supervisor.upgrading = Upgrading(supervisor, state_store, belongings, reloading.lock)
    supervisor.upgrading.refused = settings.stays
    gateway = Gateway(supervisor, orphans if successor is None else [], manager)
    supervisor.upgrading.handed_over = gateway.hand_over
    probing = Probing(config, supervisor)
    reloading.followers += [echo.reload, probing.reload, Renewal(access, supervisor).reload, issuing.reload]
    parts = Parts(settings, supervisor, access, admin_socket, Recovery(supervisor), issuing, manager, orphans, fleet)
    try:
        issuing.have_files(config)
        if successor is None:
            await parts.open_admin()
        if fleet is not None:
            await fleet.start()
        probing.start()
        if successor is not None:
            await known(supervisor)  # the first requests are not to find out what the program before knew
        supervisor.start()
        supervisor.recovery = parts.recovery
        reloading.followers.append(parts.recovery.reload)
        if config.snapshots is not None and config.cache.disk is not None and bodies_awaited(config.cache.disk.path):
            parts.recovery.start()  # requests may want bodies that a restore left in the repository
        return await gateway.serve(parts)
    finally:
        await parts.recovery.stop()
        await issuing.stop()
        await probing.stop()
        await supervisor.close()
        if fleet is not None:
            await fleet.stop()
        await parts.close_admin()
        state_store.save_purge_log(supervisor.purge_log, always=True)
        state_store.close()
        if not gateway.succeeded:
            roll.close()
        if tier is not None:
            tier.close()
        listeners.close()
        lock.close()


def fleet_of_config(config: Config, supervisor: Supervisor, state_store: JournalStateStore) -> Fleet | None:
    """None where there is no fleet. Raises ConfigError."""
    if fleet_of(config) is None:
        return None
    from edge.control.fleet.opening import open_fleet  # not cheap: a start waits for it

    return open_fleet(config, supervisor, state_store)


def bodies_awaited(path: str) -> bool:
    """Whether a restore left bodies of this tier in the repository."""
    from edge.adapters.disk_awaited import awaits  # not cheap: a start waits for it

    return awaits(Path(path))


class Gateway:
    """The process's side of a supervisor: signals, the service manager, and who is left from an earlier one."""

    def __init__(self, supervisor: Supervisor, orphans: list[int], manager: Manager) -> None:
        self._supervisor = supervisor
        self._orphans = orphans
        self._manager = manager
        self._told = 0
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.succeeded = False  # another program serves

    async def serve(self, parts: Parts) -> int:
        """Serve until told to stop; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._terminate)
        loop.add_signal_handler(signal.SIGUSR1, self._reopen)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._do(self._reload("SIGHUP"), "reload"))
        loop.add_signal_handler(signal.SIGUSR2, lambda: self._do(self._upgrade("SIGUSR2"), "upgrade"))
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        self._do(self._watch(), "watch")
        if self._manager.watchdog_s is not None:
            self._do(self._feed(self._manager.watchdog_s), "watchdog")
        ready = await self._ready(stopping)
        end_orphans(self._orphans)  # the new ones serve, or nobody is to
        if ready:
            self._supervisor.accept()
            await parts.begin()
            supervisor, issuing = self._supervisor, self._supervisor.issuing
            if issuing is not None:
                self._do(watch(lambda: supervisor.running.config, supervisor.events, issuing.renewed), "certificates")
            await stopping
        if self.succeeded:
            await parts.hand_over()
        return await self._end()

    def hand_over(self, pid: int) -> None:
        """Another program serves from now on: what runs here ends."""
        self.succeeded = True
        if self._supervisor.listeners is not None:
            self._supervisor.listeners.hand_over()
        self._manager.main_is(pid)
        self._stop.set()

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
        end_running()  # a reload that waits for an import would hold the process
        if not self.succeeded:
            self._manager.stopping()
        drain = asyncio.create_task(self._drain(), name="drain")
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

    async def _drain(self) -> None:
        limits = self._supervisor.running.config.limits
        if not self.succeeded and self._supervisor.workers.ready:
            await asyncio.sleep(limits.shutdown_delay)
        if self._supervisor.listeners is not None:
            self._supervisor.listeners.close()  # the workers are the last to let go: they accept what waits
        await self._supervisor.stop(limits.shutdown_grace)

    async def _watch(self) -> None:
        """Load the file again when it is another one than a moment ago and has been the same since then."""
        seen = loaded = self._stamps()
        while True:
            await asyncio.sleep(WATCH_S)
            before, seen = seen, self._stamps()
            if not self._supervisor.running.config.admin.reload_on_change:
                loaded = seen
            elif seen == before and seen != loaded and seen[0] is not None:
                loaded = seen
                await self._reload("file changed")

    def _stamps(self) -> tuple[object, ...]:
        """What tells that the configuration was written anew: its file, and those that it includes."""
        running = self._supervisor.running
        folder = Path(running.filename).parent
        included = matching(folder, running.config.include)
        return (*stamps(running.filename), *included, *stamps(*(str(folder / name) for name in included)))

    async def _feed(self, every_s: float) -> None:
        while True:
            self._manager.alive()
            await asyncio.sleep(every_s)

    # -- signals ---------------------------------------------------------------------------------------------------

    def _terminate(self) -> None:
        self._told += 1
        self._supervisor.stopping = True  # readiness fails before anything else happens
        (self._at_once if self._told > 1 else self._stop).set()

    def _reopen(self) -> None:
        self._supervisor.workers.send_all(Frame(FrameKind.REOPEN))
        self._supervisor.events.add("gateway.logs_reopened")

    def _do(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _upgrade(self, actor: str) -> None:
        try:
            if self._supervisor.upgrading is not None:
                await self._supervisor.upgrading.upgrade(Change(actor))
        except EdgeError:
            pass  # told as an event

    async def _reload(self, actor: str) -> None:
        reloading = self._supervisor.reloading
        try:
            if reloading is not None:
                await reloading.reload(Change(actor))
        except EdgeError:
            pass  # told as an event, and shown in the status


def why_not_ready(supervisor: Supervisor) -> str | None:
    """Why the workers cannot start, for people; None if they can."""
    for event in supervisor.events.recent:
        if event["kind"] == "worker.cannot_start":
            return f"the workers cannot start: {event['evidence']}"
    return None

"""What a gateway opens before and around the moment at which every worker listens, and closes at its end.

    sockets (bound, given by the service manager, or by the program before this one), the disk tier, the admin API

One rule: what cannot be had is told in one clear line (`CannotStart`), before anything serves.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from edge.adapters.sockets import adopt, bound_name
from edge.adapters.systemd import Manager
from edge.adapters.tls import renewing_context
from edge.balance.health import Health
from edge.config.loader import Config
from edge.config.sources import Sources
from edge.control.access import Access, Role, Token
from edge.control.admin.application import admin_app, leave, start_admin
from edge.control.early import EarlyWorker, worker_count
from edge.control.instance import (
    CannotStart,
    end_orphans,
)
from edge.control.issuing import Issuing
from edge.control.listeners import Bound, CannotListen, Listeners, Opened
from edge.control.recovery import Recovery
from edge.control.state_store import JournalStateStore
from edge.control.succession import Successor
from edge.control.supervisor import Supervisor
from edge.control.token import token_of
from edge.errors import ConfigError

if TYPE_CHECKING:
    from edge.adapters.disk_keeper import TierKeeper
    from edge.control.fleet.member import Fleet

KNOWN_S = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What `edge run` is given. `on_ready` is called once, when every worker listens."""

    config: Config
    sources: Sources
    successor: Successor | None = None  # a program before this one hands over
    on_ready: Callable[[], None] = field(default=lambda: None)
    early: list[EarlyWorker] = field(default_factory=list)  # workers whose processes run already
    stays: str = ""  # why this program cannot be upgraded while it runs


class Parts:
    """What is opened and closed around the time in which every worker listens."""

    def __init__(
        self,
        settings: Settings,
        supervisor: Supervisor,
        access: Access,
        sock: socket.socket,
        recovery: Recovery,
        issuing: Issuing,
        manager: Manager,
        orphans: list[int],
        fleet: Fleet | None,
    ) -> None:
        self._settings = settings
        self._fleet = fleet
        self._supervisor = supervisor
        self._access = access
        self._socket = sock
        self.recovery = recovery
        self._issuing = issuing
        self._manager = manager
        self._orphans = orphans
        self._runner: web.AppRunner | None = None
        self._waiting: asyncio.Task[None] | None = None

    async def open_admin(self) -> None:
        """Start the admin API."""
        admin = self._settings.config.admin
        app = admin_app(self._supervisor, self._access, admin.body_timeout, admin.rate)
        here, tls = admin.listen, None if admin.tls is None else renewing_context(admin.tls.cert, admin.tls.key)
        path, succeeds = None if admin.socket is None else Path(admin.socket), self._settings.successor is not None
        try:
            self._runner = await start_admin(
                *(app, here.host, here.port, admin.connections, admin.header_timeout),
                *(self._socket.dup(), tls, path, succeeds),
            )
        except OSError as error:
            raise CannotStart(f"admin.socket: {path}: cannot listen: {error.strerror or error}") from None

    def leave_admin(self) -> None:
        """Stop answering: a successor answers from now on."""
        if self._runner is not None:
            leave(self._runner)

    async def close_admin(self) -> None:
        """Stop the admin API."""
        if self._waiting is not None:
            self._waiting.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    async def begin(self) -> None:
        """Every worker listens: the sidecar has something to take, and a program before this one may go."""
        settings, successor = self._settings, self._settings.successor
        if successor is None:
            self._alone()
        else:
            await self.open_admin()
            if not successor.ready():
                end_orphans(self._orphans)  # it was killed meanwhile
            if self._supervisor.listeners is not None:
                self._supervisor.listeners.succeed(successor.files)
            self._waiting = asyncio.create_task(self._outlive(successor), name="predecessor")
        if settings.config.snapshots is not None:
            self.recovery.start()
        self._issuing.start()
        self._manager.ready()
        settings.on_ready()

    def _alone(self) -> None:
        """No worker of an earlier run is left: what is said to the fleet holds for all that is served."""
        if self._fleet is not None:
            self._fleet.serving()

    async def _outlive(self, successor: Successor) -> None:
        await successor.outlive(self._supervisor.workers)
        end_orphans(self._orphans)  # it was killed, perhaps before it told its workers to end
        self._alone()

    async def hand_over(self) -> None:
        """A successor serves: stop what it runs itself (admin API, sidecar, issuer, fleet)."""
        self.leave_admin()
        await self.recovery.stop()
        await self._issuing.stop()
        if self._fleet is not None:
            await self._fleet.stop(leave=False)  # the successor is the same machine


def given_sockets(manager: Manager, successor: Successor | None) -> list[Bound]:
    """What came with the process. Sockets of the service manager are known by where they are bound."""

    def stranger(said: str) -> None:
        print(f"edge: {said}", file=sys.stderr, flush=True)

    found = [(bound_name(each), each) for each in adopt(manager.fds, stranger)]
    for name, number in successor.sockets if successor is not None else ():
        found += [(name, each) for each in adopt([number], stranger)]
    return found


def open_listeners(listeners: Listeners, config: Config, beside: bool) -> tuple[Opened, socket.socket]:
    """Every address, in the supervisor's hands, and the admin API's. Raises CannotStart. `beside`: orphans of ours
    share theirs."""
    try:
        return listeners.open_all(config.listen, worker_count(config), beside), listeners.take(config.admin.listen)
    except CannotListen as error:
        listeners.close()
        raise CannotStart(error.detail) from None


async def known(supervisor: Supervisor) -> None:
    """Wait, within bounds, until probes have told of every backend."""
    for _ in range(int(KNOWN_S / 0.02)):
        keys = supervisor.routing.membership.backends
        if not any(supervisor.routing.live(key).health is Health.UNKNOWN for key in keys):
            return
        await asyncio.sleep(0.02)


def open_tier(
    config: Config, state_store: JournalStateStore, supervisor: Supervisor, successor: Successor | None
) -> TierKeeper | None:
    """The disk tier, in step with the journal; without it requests are served on. Raises CannotStart: in use."""
    disk, lock = config.cache.disk, None if successor is None else successor.tier_lock
    if disk is None:
        if lock is not None:
            os.close(lock)
        return None
    from edge.adapters.disk_keeper import TierKeeper  # not cheap: a start waits for it
    from edge.adapters.disk_place import TierError, TierInUse, locks
    from edge.adapters.disk_room import Limits

    try:
        limits = Limits(disk.size, disk.min_free)
        if lock is not None and not locks(lock, Path(disk.path)):
            os.close(lock)  # of another tier, which is its workers' until they have ended
            lock = None
        tier = TierKeeper.open(Path(disk.path), limits, supervisor.purge_log, state_store.history, lock)
    except TierInUse as error:
        state_store.close()
        raise CannotStart(error.detail) from None
    except TierError as error:
        supervisor.events.add("disk.unusable", {"evidence": error.detail})
        return None
    if tier.said:
        supervisor.events.add("disk.moved_aside", {"evidence": tier.said})
    supervisor.tier = tier
    return tier


def access_of(config: Config) -> Access:
    """The admin API's tokens and names. Raises ConfigError when a token cannot be read or made."""
    admin = config.admin
    tokens = [
        Token(token_of(Path(admin.token_file)), name="admin"),
        *(Token(token_of(Path(each.file)), Role(each.role), each.name) for each in admin.tokens),
    ]
    return Access(tokens, [admin.listen.host, *admin.hosts], ["/metrics"] if admin.metrics_open else [])


class Renewal:
    """Applies tokens and host names of the admin API after a reload."""

    def __init__(self, access: Access, supervisor: Supervisor) -> None:
        self._access = access
        self._supervisor = supervisor

    def reload(self, config: Config, before: Config) -> None:
        """Read the tokens again; where that fails, the old ones stay."""
        try:
            self._access.renew(access_of(config))
        except ConfigError as error:
            self._supervisor.events.add("gateway.tokens_kept", {"evidence": error.problems[0]})

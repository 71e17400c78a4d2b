"""Changing who is there at run time: registrations and administrative states of regions and backends.

    check ─► safety rule ─► journal ─► membership ─► every worker ─► answer

One rule: whoever gets an answer may kill the gateway at once and will find the change after the next start; whoever
gets a refusal has changed nothing. Changes are made one at a time. What file and registration say of one thing, and
which of them counts, is in README.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from edge.balance.backend import BackendSpec
from edge.balance.failover import ask_failback
from edge.balance.health import Admin
from edge.balance.regions import RegionSpec
from edge.config.keys import problems_of
from edge.config.routing import Backend as BackendConfig
from edge.config.routing import Region as RegionConfig
from edge.config.types import Name, Section
from edge.control.admin.errors import Conflict, Refusal, missing
from edge.control.changes import By
from edge.control.membership import (
    BackendEntry,
    Key,
    Membership,
    OperatorDecision,
    RegionEntry,
    Route,
    Source,
    backend_spec,
    region_spec,
)
from edge.control.routing import Routing

REGION_KEYS = tuple(name for name in RegionConfig.model_fields if name not in ("drained", "cidrs"))
BACKEND_KEYS = ("url", "region", "weight", "max_in_flight")
EXPIRY = "expiry"  # who undoes what was meant for a time
MAX_REGISTERED = 1000  # of each kind; a bound on what an operator's script can pile up

Read = TypeVar("Read", bound=Section)


@dataclass(frozen=True, slots=True)
class Change:
    """A change's actor and reason, when it ends (epoch seconds), and whether it may break the safety rule."""

    actor: str
    reason: str = ""
    force: bool = False
    expires_at: float | None = None
    from_fleet: bool = False  # made on another machine


class StateStore(Protocol):
    """Makes changes durable, with their audit line; durable when the call returns."""

    def register(self, kind: str, name: str, values: dict[str, Any], change: Change) -> None: ...
    def unregister(self, kind: str, name: str, change: Change) -> None: ...
    def set_state(self, kind: str, name: str, state: Admin, change: Change) -> None: ...
    def note(self, action: str, name: str, change: Change, kind: str = "region") -> None: ...


class Registry:
    """The only place that changes the membership. `push` tells every worker and returns when each has applied it."""

    def __init__(
        self,
        routing: Routing,
        routes: Sequence[Route],
        ledger: StateStore,
        push: Callable[[], Awaitable[None]],
        wall: Callable[[], float],
    ) -> None:
        self._routing = routing
        self.routes = routes
        self.ledger = ledger
        self._push = push
        self._wall = wall
        self._one = asyncio.Lock()

    @property
    def _now(self) -> Membership:
        return self._routing.membership

    # -- regions ---------------------------------------------------------------------------------------------------

    async def put_region(self, name: str, body: dict[str, Any], change: Change) -> bool:
        """Register a region, or change its registration. Returns whether it is new."""
        values = {key: value for key, value in body.items() if key in REGION_KEYS and value is not None}
        read(RegionConfig, values)
        _name("region", name)
        async with self._one:
            old = self._now.regions.get(name)
            if old is not None and old.source is Source.FILE:
                raise Conflict(f"region {name} is in the configuration file; change it there")
            self._bound(entry.source for entry in self._now.regions.values())
            admin, decision = (Admin.ACTIVE, None) if old is None else (old.admin, old.decision)
            entry = RegionEntry(region_of(name, values), Source.RUNTIME, admin, decision, self._decision(change))
            after = self._now.with_region(entry)
            self._check(after, change)
            self.ledger.register("region", name, values, change)
            await self._become(after, change)
        return old is None

    async def remove_region(self, name: str, change: Change) -> None:
        """Remove a registered region. Refused while it has backends."""
        async with self._one:
            entry = self.region(name)
            if entry.source is Source.FILE:
                raise Conflict(f"region {name} is in the configuration file; remove it there, or deactivate it")
            inside = self._now.in_region(name)
            if inside:
                raise Conflict(f"region {name} still has {len(inside)} backends, such as {inside[0].spec.id}")
            after = self._now.without_region(name)
            self._check(after, change)
            self.ledger.unregister("region", name, change)
            await self._become(after, change)

    async def set_region_state(self, name: str, state: Admin, change: Change) -> None:
        """Activate, drain or deactivate a region."""
        async with self._one:
            entry = replace(self.region(name), admin=state, decision=self._decision(change))
            after = self._now.with_region(entry)
            self._check(after, change)
            self.ledger.set_state("region", name, state, change)
            await self._become(after, change)

    async def ask_failback(self, name: str, change: Change) -> list[str]:
        """Let the pools with backends in this region come back to it; returns their names."""
        async with self._one:
            self.region(name)
            pools = [pool for pool in self._routing.pools.values() if name in pool.health]
            self.ledger.note("failback", name, change)
            for pool in pools:
                pool.state = ask_failback(pool.state)
            self._routing.asked_back(name, By(change.actor, change.reason))
            await self._become(self._now, change)
        return [pool.name for pool in pools]

    # -- backends --------------------------------------------------------------------------------------------------

    async def put_backend(
        self, pool: str, identity: str | None, body: dict[str, Any], change: Change
    ) -> tuple[str, bool]:
        """Register a backend, or change its registration. Returns its id and whether it is new."""
        if pool not in self._routing.pools:
            raise missing("pool", pool, self._routing.pools)
        values = {key: value for key, value in body.items() if key in BACKEND_KEYS and value is not None}
        if identity is not None:
            values["id"] = identity
        config = read(BackendConfig, values)
        if config.app is not None:
            raise Refusal("app: an application is named in the configuration file; workers load it when they start")
        async with self._one:
            if config.region not in self._now.regions:
                raise Refusal(f"region: {missing('region', config.region, self._now.regions).detail}")
            key = (pool, config.id)
            old = self._now.backends.get(key)
            if old is not None and old.source is Source.FILE:
                raise Conflict(f"backend {config.id} of {pool} is in the configuration file; change it there")
            spec = backend_spec(pool, config)
            twin = next((each for each in self._now.of_pool(pool) if each.spec.same_address(spec)), None)
            if twin is not None and twin.spec.id != config.id:
                raise Conflict(f"url: backend {twin.spec.id} of {pool} has this address already")
            self._bound(entry.source for entry in self._now.backends.values())
            admin, decision = (Admin.ACTIVE, None) if old is None else (old.admin, old.decision)
            after = self._now.with_backend(BackendEntry(spec, Source.RUNTIME, admin, decision, self._decision(change)))
            self._check(after, change)
            self.ledger.register("backend", join(key), values, change)
            await self._become(after, change)
        return config.id, old is None

    async def remove_backend(self, key: Key, change: Change) -> None:
        """Remove a registered backend."""
        async with self._one:
            entry = self.backend(key)
            if entry.source is Source.FILE:
                raise Conflict(f"backend {key[1]} of {key[0]} is in the configuration file; remove it there")
            after = self._now.without_backend(key)
            self._check(after, change)
            self.ledger.unregister("backend", join(key), change)
            await self._become(after, change)

    async def set_backend_state(self, key: Key, state: Admin, change: Change) -> None:
        """Activate, drain or deactivate a backend."""
        async with self._one:
            entry = replace(self.backend(key), admin=state, decision=self._decision(change))
            after = self._now.with_backend(entry)
            self._check(after, change)
            self.ledger.set_state("backend", join(key), state, change)
            await self._become(after, change)

    # -- time ------------------------------------------------------------------------------------------------------

    async def expire(self) -> None:
        """Undo what was meant for a time: states become active again, registrations end. The safety rule does not
        stop this: it is what the operator asked for when setting the time."""
        now = self._wall()
        over = Change(EXPIRY, "the time given is over", force=True)
        for name, region in list(self._now.regions.items()):
            if _over(region.decision, now):
                await self.set_region_state(name, Admin.ACTIVE, over)
        for key, backend in list(self._now.backends.items()):
            if _over(backend.decision, now):
                await self.set_backend_state(key, Admin.ACTIVE, over)
            if backend.source is Source.RUNTIME and _over(backend.registered, now):
                await self.remove_backend(key, over)
        for name, region in list(self._now.regions.items()):
            if region.source is Source.RUNTIME and _over(region.registered, now) and not self._now.in_region(name):
                await self.remove_region(name, over)

    # -- inside ----------------------------------------------------------------------------------------------------

    def region(self, name: str) -> RegionEntry:
        """A region's entry. Raises NotFound."""
        entry = self._now.regions.get(name)
        if entry is None:
            raise missing("region", name, self._now.regions)
        return entry

    def backend(self, key: Key) -> BackendEntry:
        """A backend's entry. Raises NotFound."""
        entry = self._now.backends.get(key)
        if entry is None:
            if key[0] not in self._routing.pools:
                raise missing("pool", key[0], self._routing.pools)
            there = [each.spec.id for each in self._now.of_pool(key[0])]
            raise missing(f"backend of pool {key[0]} named", key[1], there)
        return entry

    def _check(self, after: Membership, change: Change) -> None:
        """The safety rule: no route may lose its last region, unless forced."""
        lost = after.unserved(self.routes) - self._now.unserved(self.routes)
        if lost and not change.force:
            raise Conflict(f"route {min(lost)} would have no region left that may serve it; force does it all the same")

    async def _become(self, after: Membership, change: Change) -> None:
        self._routing.use(after, By(change.actor, change.reason))
        await self._push()

    def _decision(self, change: Change) -> OperatorDecision:
        return OperatorDecision(change.actor, change.reason, self._wall(), change.expires_at)

    @staticmethod
    def _bound(sources: Iterable[Source]) -> None:
        if sum(1 for source in sources if source is Source.RUNTIME) >= MAX_REGISTERED:
            raise Conflict(f"no more than {MAX_REGISTERED} registrations")


def read(section: type[Read], values: dict[str, Any]) -> Read:
    """Check values as the configuration file's are. Raises Refusal with the first problem."""
    try:
        return section.model_validate(values)
    except ValidationError as error:
        problem = problems_of(error, section)[0]
        key = ".".join(map(str, problem.path))
        raise Refusal(f"{key}: {problem.message}" if key else problem.message) from None


def region_of(name: str, values: dict[str, Any]) -> RegionSpec:
    """A registered region as balancing sees it."""
    return region_spec(name, read(RegionConfig, values))


def backend_of(pool: str, values: dict[str, Any]) -> BackendSpec:
    """A registered backend as balancing sees it."""
    return backend_spec(pool, read(BackendConfig, values))


def join(key: Key) -> str:
    """The journal's name for a backend. Pools' names have no slash."""
    return "/".join(key)


_NAME: TypeAdapter[str] = TypeAdapter(Name)


def _name(what: str, name: str) -> None:
    try:
        _NAME.validate_python(name)
    except ValidationError as error:
        raise Refusal(f"{what}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def _over(decision: OperatorDecision | None, now: float) -> bool:
    return decision is not None and decision.expires_at is not None and decision.expires_at <= now

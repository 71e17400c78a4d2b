"""Which regions and backends serve: probes and live traffic in, the workers' view out.

    probes ─► health of a backend ─┐
    workers' ejections ────────────┼─► health of a region, per pool ─► balance.failover.decide ─► view ─► workers
    operator's states ─────────────┘

One rule: deciding is `balance`'s; this file only gathers the facts, keeps the machine's state and says whether what the
workers must know has changed. A backend that some of the workers ejected counts as available by the part that did not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edge.balance.failover import FailoverState, PoolRegions, decide, ramping
from edge.balance.health import Admin, Event, Health
from edge.balance.latency import Ewma
from edge.balance.regions import Failback, FailoverSettings, Mode, RegionHealth, RouteNeed, RoutingView
from edge.balance.simulate import BackendNow, Snapshot
from edge.config.loader import Config
from edge.config.routing import Pool as PoolConfig
from edge.control.changes import By, changes
from edge.control.membership import BackendEntry, Key, Membership, Route

Tell = Callable[[str, dict[str, Any]], None]


@dataclass(slots=True)
class Live:
    """A backend's live state."""

    health: Health
    evidence: str = ""
    since: float = 0.0  # epoch seconds
    latency: Ewma = field(default_factory=Ewma)
    ejected: dict[int, float] = field(default_factory=dict)  # by worker: until, monotonic


@dataclass(slots=True)
class PoolRouting:
    """How one pool fails over, and where it stands."""

    name: str
    policy: str
    probed: bool
    healthy_min: float
    settings: FailoverSettings
    state: FailoverState = field(default_factory=FailoverState)
    view: RoutingView = field(default_factory=RoutingView)
    health: Mapping[str, RegionHealth] = field(default_factory=dict)
    verdicts: dict[str, Health] = field(default_factory=dict)  # of each region, as told last

    def go_on_from(self, before: PoolRouting) -> None:
        """Continue from the state before a reload. Where the way of failing over changed it begins anew, with what
        is known of the regions.
        """
        same = before.settings.mode is self.settings.mode
        self.state = before.state if same else FailoverState(memories=before.state.memories)
        self.view, self.health, self.verdicts = before.view, before.health, dict(before.verdicts)


class Routing:
    """Which regions and backends serve. `now` is monotonic seconds, `wall` returns epoch seconds."""

    def __init__(self, config: Config, membership: Membership, tell: Tell, wall: Callable[[], float]) -> None:
        self.membership = membership
        self.pools = {name: pool_routing(name, pool) for name, pool in config.pools.items()}
        self.workers = 1
        self._tell = tell
        self.wall = wall
        self._live: dict[Key, Live] = {}

    def live(self, key: Key) -> Live:
        """A backend's live state."""
        found = self._live.get(key)
        if found is None:
            probed = self.pools[key[0]].probed
            found = self._live[key] = Live(Health.UNKNOWN if probed else Health.HEALTHY, since=self.wall())
        return found

    # -- facts -----------------------------------------------------------------------------------------------------

    def use(self, membership: Membership, by: By | None = None) -> None:
        """Use a new membership, changed by `by`. The live state of backends that left is dropped."""
        old, self.membership = self.membership, membership
        for kind, facts in changes(old, membership, by):
            self._tell(kind, facts)
        for key in self._live.keys() - membership.backends.keys():
            del self._live[key]

    def reload(self, config: Config, membership: Membership, by: By) -> None:
        """Decide by another configuration. The live state of unchanged backends stays."""
        before = self.pools
        self.pools = {name: pool_routing(name, pool) for name, pool in config.pools.items()}
        for name, pool in self.pools.items():
            if name in before:
                pool.go_on_from(before[name])
        for key in list(self._live):
            old, new = self.membership.backends.get(key), membership.backends.get(key)
            if old is None or new is None or not new.spec.same_address(old.spec):
                del self._live[key]
            elif not self.pools[key[0]].probed:
                self._live[key].health, self._live[key].evidence = Health.HEALTHY, ""
        self.use(membership, by)

    def learn(self, other: Routing) -> None:
        """Copy the live state of another routing, for a forecast."""
        for key, entry in self.membership.backends.items():
            known = other.membership.backends.get(key)
            if known is not None and known.spec.same_address(entry.spec):
                self._live[key] = other.live(key)
        for name, pool in self.pools.items():
            if name in other.pools:
                pool.go_on_from(other.pools[name])

    def asked_back(self, region: str, by: By) -> None:
        """An operator lets a region have its traffic back (failback = "manual", or frozen)."""
        self._tell("region.failback_asked", {"region": region, "actor": by.actor, "reason": by.reason})

    def set_health(self, key: Key, health: Health, evidence: str) -> None:
        """Set a backend's health, as probes found it."""
        if key not in self.membership.backends:
            return
        live = self.live(key)
        old, live.health, live.evidence, live.since = live.health, health, evidence, self.wall()
        facts = {"pool": key[0], "backend": key[1], "was": old.value, "is": health.value, "evidence": evidence}
        self._tell("backend.health", facts)

    def probe_took(self, key: Key, seconds: float, now: float) -> None:
        """Note the duration of a successful probe."""
        if key in self.membership.backends:
            self.live(key).latency.observe(seconds, now)

    def set_ejected(self, worker: int, pool: str, ejected: Mapping[str, float], now: float) -> None:
        """Set all backends of a pool that a worker has ejected, with the seconds left."""
        for entry in self.membership.of_pool(pool) if pool in self.pools else ():
            live = self.live((pool, entry.spec.id))
            live.ejected.pop(worker, None)
            if entry.spec.id in ejected:
                live.ejected[worker] = now + ejected[entry.spec.id]

    def forget_worker(self, worker: int) -> None:
        """A worker has ended: drop its ejections."""
        for live in self._live.values():
            live.ejected.pop(worker, None)

    # -- deciding --------------------------------------------------------------------------------------------------

    def decide(self, now: float) -> bool:
        """Decide for every pool. Returns whether a view changed."""
        changed = False
        admins = self.membership.admins
        for pool in self.pools.values():
            pool.health = self._region_health(pool, now)
            self._tell_verdicts(pool)
            view, pool.state, events = decide(self._pool_regions(pool), admins, pool.health, pool.state, now)
            for event in events:
                self._event(pool, event)
            changed = changed or view != pool.view
            pool.view = view
        return changed

    def _tell_verdicts(self, pool: PoolRouting) -> None:
        """Regions whose health has another word than before."""
        verdicts = {name: health.verdict(pool.healthy_min) for name, health in pool.health.items()}
        for name, verdict in verdicts.items():
            was = pool.verdicts.get(name, Health.UNKNOWN)
            if verdict is not was:
                part = f"{pool.health[name].available:g} of {pool.health[name].total:g} of its weight is available"
                facts = {"pool": pool.name, "region": name, "was": was.value, "is": verdict.value, "evidence": part}
                self._tell("region.health", facts)
        pool.verdicts = verdicts

    def _event(self, pool: PoolRouting, event: Event) -> None:
        facts = {"pool": pool.name, "region": event.subject, "evidence": event.evidence}
        self._tell(f"region.{event.kind.removeprefix('region-')}", facts)

    def _pool_regions(self, pool: PoolRouting) -> PoolRegions:
        return PoolRegions(tuple(entry.spec for entry in self.membership.regions.values()), pool.settings)

    def _region_health(self, pool: PoolRouting, now: float) -> dict[str, RegionHealth]:
        """Available and total weight by region; only regions where the pool has backends."""
        members: dict[str, list[BackendEntry]] = {}
        for entry in self.membership.of_pool(pool.name):
            members.setdefault(entry.spec.region, []).append(entry)
        found = {}
        for region, entries in members.items():
            lives = [self.live((pool.name, entry.spec.id)) for entry in entries]
            available = sum(self.available(entry, now) * entry.spec.weight for entry in entries)
            known = [live.latency.value for live in lives if live.latency.value is not None]
            found[region] = RegionHealth(
                available,
                sum(entry.spec.weight for entry in entries),
                sum(known) / len(known) if known else None,
                all(live.health is Health.UNKNOWN for live in lives),
            )
        return found

    def available(self, entry: BackendEntry, now: float) -> float:
        """The share of workers that may use a backend, 0 to 1; 0 when it is not active or unhealthy."""
        live = self.live((entry.spec.pool, entry.spec.id))
        if entry.admin is not Admin.ACTIVE or live.health is Health.UNHEALTHY:
            return 0.0
        out = sum(1 for until in live.ejected.values() if until > now)
        return max(0.0, 1.0 - out / self.workers) if self.workers else 1.0

    def is_lost(self, name: str) -> bool:
        """Whether a pool has no available backend in any region that may serve."""
        pool, regions = self.pools[name], self.membership.regions
        serving = {name for name, each in regions.items() if each.admin is Admin.ACTIVE or each.spec.last_resort}
        return not any(health.available for region, health in pool.health.items() if region in serving)

    # -- for workers -----------------------------------------------------------------------------------------------

    def view_body(self) -> dict[str, Any]:
        """The body of a VIEW frame, always complete."""
        return {"pools": {name: self._pool_body(pool) for name, pool in self.pools.items()}}

    def _pool_body(self, pool: PoolRouting) -> dict[str, Any]:
        entries = self.membership.of_pool(pool.name)
        lives = {entry.spec.id: self.live((pool.name, entry.spec.id)) for entry in entries}
        return {
            "view": pool.view.as_dict(),
            "admin": {entry.spec.id: entry.admin.value for entry in entries},
            "health": {identity: live.health.value for identity, live in lives.items()},
            "seeds": {i: live.latency.value for i, live in lives.items() if live.latency.value is not None},
        }

    # -- for people ------------------------------------------------------------------------------------------------

    def ramping(self, pool: PoolRouting, region: str, now: float) -> float | None:
        """How far a region has returned in a pool, in percent; None when it is not returning."""
        part = ramping(region, pool.state, pool.settings, now)
        return None if part is None else round(part * 100, 1)

    def region_verdict(self, name: str) -> str:
        """A region's health over all pools that have backends in it: the worst one."""
        order = [Health.HEALTHY, Health.UNKNOWN, Health.DEGRADED, Health.UNHEALTHY]
        words = [pool.health[name].verdict(pool.healthy_min) for pool in self.pools.values() if name in pool.health]
        return max(words, key=order.index).value if words else Health.UNKNOWN.value

    def snapshot(self, pool: PoolRouting, routes: list[Route], now: float) -> Snapshot:
        """The live state of one pool, for `balance.simulate`."""
        entries = self.membership.of_pool(pool.name)
        regions = frozenset(entry.spec.region for entry in entries)
        return Snapshot(
            policy=pool.policy,
            regions=self._pool_regions(pool),
            admin=self.membership.admins,
            backends=tuple(
                BackendNow(
                    entry.spec,
                    self.available(entry, now) > 0 or entry.admin is not Admin.ACTIVE,
                    entry.admin,
                    self.live((pool.name, entry.spec.id)).latency.value,
                )
                for entry in entries
            ),
            routes=tuple(RouteNeed(route.name, regions, route.fence) for route in routes if route.pool == pool.name),
            state=pool.state,
            now=now,
        )


def pool_routing(name: str, pool: PoolConfig) -> PoolRouting:
    """A pool's failover settings, from its table."""
    settings = FailoverSettings(
        mode=Mode(pool.failover),
        healthy_min=pool.healthy_min,
        panic=pool.panic,
        down_after_s=pool.down_after,
        up_after_s=pool.up_after,
        ramp_s=pool.ramp,
        min_dwell_s=pool.min_dwell,
        failback=Failback(pool.failback),
        by_latency=pool.balance == "latency",
    )
    return PoolRouting(name, pool.balance, pool.health is not None, pool.healthy_min, settings)

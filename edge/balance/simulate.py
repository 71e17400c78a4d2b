"""What would happen if: a region lost, a backend slow, capacity short. Shares before and after, and what fences refuse.

One rule: nothing live is touched and nothing is guessed by formula: a copy of the pool is made from plain values, the
same `decide` and the same policies run on it over simulated time, with requests that take as long as their
backend does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush

from edge.balance.backend import AttemptOutcome, Backend, BackendSpec
from edge.balance.failover import FailoverState, PoolRegions, decide
from edge.balance.health import Admin, Health
from edge.balance.pool import BalanceSettings, Pool
from edge.balance.regions import Mode, RegionHealth, RouteNeed, RoutingView

UNKNOWN_LATENCY_S = 0.02
STEP_S = 1.0


@dataclass(frozen=True, slots=True)
class BackendNow:
    """One backend of the live view."""

    spec: BackendSpec
    available: bool = True
    admin: Admin = Admin.ACTIVE
    latency_s: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The live state of one pool, as plain values."""

    policy: str
    regions: PoolRegions
    admin: Mapping[str, Admin]
    backends: tuple[BackendNow, ...]
    routes: tuple[RouteNeed, ...] = ()
    state: FailoverState = field(default_factory=FailoverState)
    rate: float = 200.0  # requests per second
    now: float = 0.0


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """The changes to suppose, all at once. `capacity` is the part (0 to 1) of a region's weight that is left."""

    lost_regions: frozenset[str] = frozenset()
    lost_backends: frozenset[str] = frozenset()
    latencies_s: Mapping[str, float] | None = None  # by backend id
    capacity: Mapping[str, float] | None = None  # by region


@dataclass(frozen=True, slots=True)
class Shares:
    """Percent of the requests by region and by backend, and percent that got none."""

    regions: Mapping[str, float]
    backends: Mapping[str, float]
    refused: float
    view: RoutingView


@dataclass(frozen=True, slots=True)
class Simulation:
    """Shares before and after, and the routes that only the hypothesis leaves without a region inside their fence."""

    before: Shares
    after: Shares
    refused_routes: tuple[str, ...]
    settled_after_s: float  # how long regions keep changing, as `decide` sees it


def simulate(snapshot: Snapshot, what: Hypothesis, requests: int = 2000) -> Simulation:
    """Work out the shares before and after a hypothesis, by sending requests through a copy of the pool."""
    after = suppose(snapshot, what)
    before_view, state, _ = decide(
        snapshot.regions, snapshot.admin, _health(snapshot, Hypothesis()), snapshot.state, snapshot.now
    )
    after_view, settled_after_s = _settle(replace(after, state=state), what)
    refused = [
        route.name for route in after.routes if route.served(_alive(snapshot)) and not route.served(_alive(after))
    ]
    return Simulation(
        _run(snapshot, before_view, requests), _run(after, after_view, requests), tuple(refused), settled_after_s
    )


def suppose(snapshot: Snapshot, what: Hypothesis) -> Snapshot:
    """The snapshot with the hypothesis applied, except `capacity`, which changes the regions' health."""
    latencies = what.latencies_s or {}
    backends = tuple(
        replace(
            backend,
            available=backend.available
            and backend.spec.region not in what.lost_regions
            and backend.spec.id not in what.lost_backends,
            latency_s=latencies.get(backend.spec.id, backend.latency_s),
        )
        for backend in snapshot.backends
    )
    return replace(snapshot, backends=backends)


def _alive(snapshot: Snapshot) -> frozenset[str]:
    """Regions that could serve a request now."""
    resort = {region.name for region in snapshot.regions.regions if region.last_resort}
    return frozenset(
        backend.spec.region
        for backend in snapshot.backends
        if backend.available
        and backend.admin is Admin.ACTIVE
        and (snapshot.admin.get(backend.spec.region, Admin.ACTIVE) is Admin.ACTIVE or backend.spec.region in resort)
    )


def _health(snapshot: Snapshot, what: Hypothesis) -> dict[str, RegionHealth]:
    found: dict[str, RegionHealth] = {}
    for region in snapshot.regions.regions:
        members = [backend for backend in snapshot.backends if backend.spec.region == region.name]
        if not members:
            continue
        up = [backend for backend in members if backend.available and backend.admin is Admin.ACTIVE]
        left = (what.capacity or {}).get(region.name, 1.0)
        known = [backend.latency_s for backend in up if backend.latency_s is not None]
        found[region.name] = RegionHealth(
            left * sum(backend.spec.weight for backend in up),
            sum(backend.spec.weight for backend in members),
            sum(known) / len(known) if known else None,
        )
    return found


def _settle(snapshot: Snapshot, what: Hypothesis) -> tuple[RoutingView, float]:
    """The view once regions have stopped changing, and after how many seconds that is."""
    health = _health(snapshot, what)
    state, now, changed_at = snapshot.state, snapshot.now, snapshot.now
    view, state, _ = decide(snapshot.regions, snapshot.admin, health, state, now)
    settings = snapshot.regions.settings
    # Long enough for every wait of the machine, one after the other.
    waits_s = settings.down_after_s + settings.min_dwell_s + settings.ramp_s
    if settings.mode is Mode.SWITCH:
        waits_s += settings.up_after_s
    while now < snapshot.now + waits_s + STEP_S:
        now += STEP_S
        old = view
        view, state, _ = decide(snapshot.regions, snapshot.admin, health, state, now)
        if view != old:
            changed_at = now
    return view, changed_at - snapshot.now


def _run(snapshot: Snapshot, view: RoutingView, requests: int) -> Shares:
    """Send requests at an even rate into a copy of the pool."""
    pool = _copy(snapshot, view)
    took = {
        backend.spec.id: UNKNOWN_LATENCY_S if backend.latency_s is None else backend.latency_s
        for backend in snapshot.backends
    }
    counts: dict[str, int] = dict.fromkeys(took, 0)
    running: list[tuple[float, int, Backend]] = []
    warm_up = requests // 4  # so that in flight and latency are as under way
    refused = 0
    for number in range(warm_up + requests):
        now = number / snapshot.rate
        while running and running[0][0] <= now:
            ended_at, _, backend = heappop(running)
            backend.give_back(ended_at)
            backend.observe(AttemptOutcome.SUCCESS, took[backend.id], ended_at)
        chosen = pool.pick(now, hint=number)
        if chosen is not None:
            chosen.take(now)
            heappush(running, (now + took[chosen.id], number, chosen))
        if number >= warm_up:
            if chosen is None:
                refused += 1
            else:
                counts[chosen.id] += 1
    percents = {name: 100.0 * count / requests for name, count in counts.items()}
    regions: dict[str, float] = {}
    for backend_now in snapshot.backends:
        region = backend_now.spec.region
        regions[region] = regions.get(region, 0.0) + percents[backend_now.spec.id]
    return Shares(regions, percents, 100.0 * refused / requests, view)


def _copy(snapshot: Snapshot, view: RoutingView) -> Pool:
    copies = []
    for backend_now in snapshot.backends:
        copy = Backend(backend_now.spec)
        copy.health = Health.HEALTHY if backend_now.available else Health.UNHEALTHY
        copy.admin = backend_now.admin
        if backend_now.latency_s is not None:
            copy.latency.seed(backend_now.latency_s, 0.0)
        copies.append(copy)
    settings = BalanceSettings(ejection=None, slow_start_s=0.0)
    pool = Pool("simulated", copies, snapshot.policy, settings, _Chance())
    pool.apply(view)
    return pool


class _Chance:
    """Repeatable numbers (a linear congruential generator, Knuth's MMIX constants): same question, same answer."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = 0x9E3779B97F4A7C15

    def __call__(self, below: int) -> int:
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) & ((1 << 64) - 1)
        return ((self._state >> 32) * below) >> 32

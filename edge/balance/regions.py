"""Regions: what they are, how well they are, how traffic spreads over their tiers, and what must not be switched off.

One rule: shares are worked out from numbers alone, so that they can be rehearsed. Spill follows Envoy's priority
levels: a level's score is min(100, 1.4 × available %) in whole percent, each level takes its score, the rest goes one
level down, and a total under 100 is normalised. Panic is Envoy's too: only when the levels together cannot
carry the traffic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from edge.balance.health import Admin, Health
from edge.balance.latency import PreferenceSettings


class Mode(Enum):
    """How a pool uses its regions."""

    SPILL = "spill"
    SWITCH = "switch"


class Failback(Enum):
    """Whether a switched pool goes back to the better region once it is well."""

    AUTO = "auto"
    MANUAL = "manual"  # when the operator says so
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class RegionSpec:
    """A region as configured or registered. `location` is (latitude, longitude) in degrees."""

    name: str
    tier: int = 0
    weight: int = 100
    location: tuple[float, float] | None = None
    countries: tuple[str, ...] = ()
    continents: tuple[str, ...] = ()
    subdivisions: tuple[str, ...] = ()  # ISO 3166-2, such as US-CA
    last_resort: bool = False


@dataclass(frozen=True, slots=True)
class RegionHealth:
    """A region's backends of one pool: weight that is available, weight in all, and the latency seen."""

    available: float
    total: float
    latency_s: float | None = None
    unknown: bool = False  # nothing has been probed yet; `available` then gives the benefit of the doubt

    @property
    def fraction(self) -> float:
        """Available weight over total weight, 0 to 1."""
        return self.available / self.total if self.total > 0 else 0.0

    def verdict(self, healthy_min: float) -> Health:
        """Its health in one word: unhealthy below a fraction of `healthy_min`, degraded below all of its weight."""
        if self.unknown:
            return Health.UNKNOWN
        if self.fraction < healthy_min or not self.available:
            return Health.UNHEALTHY
        return Health.HEALTHY if self.available >= self.total else Health.DEGRADED


@dataclass(frozen=True, slots=True)
class FailoverSettings:
    """How one pool fails over; durations in seconds, fractions from 0 to 1."""

    mode: Mode = Mode.SPILL
    healthy_min: float = 0.5
    overprovisioning: float = 1.4
    panic: float = 0.5
    down_after_s: float = 3.0
    up_after_s: float = 60.0
    ramp_s: float = 60.0
    ramp_start: float = 0.1
    min_dwell_s: float = 60.0
    freeze_after: int = 3  # switches within the freeze window
    freeze_window_s: float = 600.0
    failback: Failback = Failback.AUTO
    by_latency: bool = False  # prefer the faster region of a tier
    preference: PreferenceSettings = field(default_factory=PreferenceSettings)


@dataclass(frozen=True, slots=True)
class RoutingView:
    """What workers execute: an immutable answer to "which region serves".

    `shares` are percent of new traffic and sum to 100, or are empty when no region is eligible. `order` has all
    eligible regions, healthy ones first; retries and regions that ran empty follow it. Inactive regions are in none of
    them, except in `last_resort` when their configuration allows that.
    """

    shares: Mapping[str, float] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    healthy: frozenset[str] = frozenset()
    panic: frozenset[str] = frozenset()
    last_resort: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, for the link and for status."""
        return {
            "shares": dict(self.shares),
            "order": list(self.order),
            "healthy": sorted(self.healthy),
            "panic": sorted(self.panic),
            "last_resort": list(self.last_resort),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RoutingView:
        """What `as_dict` gave."""
        return cls(
            dict(values["shares"]),
            tuple(values["order"]),
            frozenset(values["healthy"]),
            frozenset(values["panic"]),
            tuple(values["last_resort"]),
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """One region at one moment, as spill sees it. `ramp` below 1 while it returns slowly."""

    spec: RegionSpec
    health: RegionHealth
    ramp: float = 1.0


def priority_loads(scores: Sequence[int]) -> list[int]:
    """Whole percent of traffic for each level from its score (0 to 100, highest priority first); they sum to 100."""
    if not scores:
        return []
    total = sum(scores)
    if total == 0:
        return [100] + [0] * (len(scores) - 1)
    if total < 100:
        return largest_remainders(scores)
    loads, left = [], 100
    for score in scores:
        loads.append(min(left, score))
        left -= loads[-1]
    return loads


def largest_remainders(parts: Sequence[int]) -> list[int]:
    """Whole percents in proportion to `parts`, not all zero; what rounding leaves goes to the largest rests."""
    total = sum(parts)
    percents = [part * 100 // total for part in parts]
    by_rest = sorted(range(len(parts)), key=lambda index: (-(parts[index] * 100 % total), index))
    for index in by_rest[: 100 - sum(percents)]:
        percents[index] += 1
    return percents


def score(level: Sequence[Standing], overprovisioning: float, ramped: bool = True) -> int:
    """A level's health score in whole percent, 0 to 100."""
    total = sum(standing.health.total for standing in level)
    if total <= 0:
        return 0
    available = sum(standing.health.available * (standing.ramp if ramped else 1.0) for standing in level)
    # The margin keeps what is whole in exact arithmetic whole: 1.4 × 50 % is 70, not 69.99….
    return min(100, int(100 * overprovisioning * available / total + 1e-9))


def spill(levels: Sequence[Sequence[Standing]], settings: FailoverSettings) -> tuple[dict[str, float], frozenset[str]]:
    """Shares in percent by region, and the regions in panic."""
    over = settings.overprovisioning
    enough = sum(score(level, over, ramped=False) for level in levels) >= 100
    loads = priority_loads([score(level, over) for level in levels])
    shares: dict[str, float] = {}
    panic: set[str] = set()
    for level, load in zip(levels, loads, strict=True):
        available = sum(standing.health.available for standing in level)
        total = sum(standing.health.total for standing in level)
        panics = not enough and 0 < available < settings.panic * total
        if panics:
            panic.update(standing.spec.name for standing in level)
        shares.update(_within(level, load, over, panics))
    return shares, frozenset(panic)


def _within(level: Sequence[Standing], load: float, over: float, panics: bool) -> dict[str, float]:
    """A level's load over its regions by weight, each as far as it is available (Envoy's locality weights)."""
    if panics:  # health is ignored: all by weight
        weights = [float(standing.spec.weight) for standing in level]
    else:
        weights = [
            standing.spec.weight * min(1.0, over * standing.health.fraction) * standing.ramp for standing in level
        ]
    total = sum(weights)
    if total <= 0:  # all down: the shares still say where traffic would go
        weights = [float(standing.spec.weight) for standing in level]
        total = sum(weights)
    if total <= 0:
        weights, total = [1.0] * len(level), float(len(level))
    return {standing.spec.name: load * weight / total for standing, weight in zip(level, weights, strict=True)}


@dataclass(frozen=True, slots=True)
class RouteNeed:
    """The regions in which a route's pool has backends, and its residency fence (None: no fence)."""

    name: str
    regions: frozenset[str]
    fence: frozenset[str] | None = None

    def served(self, eligible: frozenset[str]) -> bool:
        """Whether one of the eligible regions may serve it."""
        inside = self.regions if self.fence is None else self.regions & self.fence
        return bool(inside & eligible)


def eligible_regions(specs: Iterable[RegionSpec], admin: Mapping[str, Admin]) -> frozenset[str]:
    """Regions that may get traffic at all: active ones, and others that are allowed as a last resort."""
    return frozenset(
        spec.name for spec in specs if admin.get(spec.name, Admin.ACTIVE) is Admin.ACTIVE or spec.last_resort
    )

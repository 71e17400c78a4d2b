"""Who is there: regions and backends of the file and of run-time registrations, with what the operator wants of each.

One rule: a membership is a value. A change makes a new one, the safety rule compares the two, and only then does it
become the gateway's. Where file and registration name one thing, the file says what it is and the operator's run-time
state (draining, inactive) stays: see README.md.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from edge.balance.backend import BackendSpec
from edge.balance.health import Admin
from edge.balance.regions import RegionSpec, RouteNeed, eligible_regions
from edge.config.loader import Config
from edge.config.routing import Backend as BackendConfig
from edge.config.routing import Region as RegionConfig


class Source(Enum):
    """Where an entry comes from."""

    FILE = "file"
    RUNTIME = "runtime"


@dataclass(frozen=True, slots=True)
class OperatorDecision:
    """An operator's decision: who, why, when (epoch seconds), until when."""

    actor: str = ""
    reason: str = ""
    at: float = 0.0
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class RegionEntry:
    """One region: what it is, who named it, and the operator's wish for it."""

    spec: RegionSpec
    source: Source
    admin: Admin = Admin.ACTIVE
    decision: OperatorDecision | None = None  # on the administrative state
    registered: OperatorDecision | None = None  # on the registration


@dataclass(frozen=True, slots=True)
class BackendEntry:
    """One backend: what it is, who named it, and the operator's wish for it."""

    spec: BackendSpec
    source: Source
    admin: Admin = Admin.ACTIVE
    decision: OperatorDecision | None = None
    registered: OperatorDecision | None = None


Key = tuple[str, str]  # pool, id


@dataclass(frozen=True, slots=True)
class Route:
    """What the safety rule needs to know of a route."""

    name: str
    pool: str
    fence: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Membership:
    """All regions and backends at one moment, in the file's order, registrations last."""

    regions: Mapping[str, RegionEntry] = field(default_factory=dict)
    backends: Mapping[Key, BackendEntry] = field(default_factory=dict)

    def with_region(self, entry: RegionEntry) -> Membership:
        """A copy with this region added or replaced."""
        return replace(self, regions={**self.regions, entry.spec.name: entry})

    def without_region(self, name: str) -> Membership:
        """A copy without this region."""
        return replace(self, regions={key: entry for key, entry in self.regions.items() if key != name})

    def with_backend(self, entry: BackendEntry) -> Membership:
        """A copy with this backend added or replaced."""
        return replace(self, backends={**self.backends, (entry.spec.pool, entry.spec.id): entry})

    def without_backend(self, key: Key) -> Membership:
        """A copy without this backend."""
        return replace(self, backends={each: entry for each, entry in self.backends.items() if each != key})

    def of_pool(self, pool: str) -> list[BackendEntry]:
        """A pool's backends."""
        return [entry for (name, _), entry in self.backends.items() if name == pool]

    def in_region(self, name: str) -> list[BackendEntry]:
        """A region's backends, of all pools."""
        return [entry for entry in self.backends.values() if entry.spec.region == name]

    @property
    def admins(self) -> dict[str, Admin]:
        """Regions' administrative states."""
        return {name: entry.admin for name, entry in self.regions.items()}

    def unserved(self, routes: Iterable[Route]) -> set[str]:
        """The routes for which no region is left that may serve and has an active backend of their pool."""
        eligible = eligible_regions((entry.spec for entry in self.regions.values()), self.admins)
        serving: dict[str, set[str]] = {}
        for (pool, _), entry in self.backends.items():
            if entry.admin is Admin.ACTIVE:
                serving.setdefault(pool, set()).add(entry.spec.region)
        needs = (RouteNeed(route.name, frozenset(serving.get(route.pool, ())), route.fence) for route in routes)
        return {need.name for need in needs if not need.served(eligible)}


# -- from the file -----------------------------------------------------------------------------------------------------


def of_file(config: Config) -> Membership:
    """The file's entries. A region with `drained = true` is draining until an operator says otherwise."""
    regions = {
        name: RegionEntry(region_spec(name, region), Source.FILE, Admin.DRAINING if region.drained else Admin.ACTIVE)
        for name, region in config.regions.items()
    }
    backends = {
        (pool, backend.id): BackendEntry(backend_spec(pool, backend), Source.FILE)
        for pool, found in config.pools.items()
        for backend in found.backends
    }
    return Membership(regions, backends)


def region_spec(name: str, region: RegionConfig) -> RegionSpec:
    """A region of the configuration as `balance` needs it."""
    return RegionSpec(
        name=name,
        tier=region.tier,
        weight=region.weight,
        location=region.location,
        countries=tuple(region.countries),
        continents=tuple(region.continents),
        subdivisions=tuple(region.subdivisions),
        last_resort=region.last_resort,
    )


def backend_spec(pool: str, backend: BackendConfig) -> BackendSpec:
    """A backend of the configuration as `balance` needs it."""
    url = backend.address
    return BackendSpec(
        id=backend.id,
        pool=pool,
        scheme=url.scheme,
        host=url.host,
        port=url.port,
        authority=url.authority.encode() if backend.app is None else b"localhost",
        region=backend.region,
        weight=backend.weight,
        max_in_flight=backend.max_in_flight or None,
    )


def routes_of(config: Config) -> list[Route]:
    """The routes of the configuration, for the safety rule."""
    return [
        Route(
            route.name,
            route.pool,
            frozenset(route.geo.require) if route.geo is not None and route.geo.require else None,
        )
        for route in config.routes
        if route.pool is not None
    ]


def members_body(membership: Membership, config: Config, probed: Container[str]) -> dict[str, Any]:
    """The body of a MEMBERS frame: the run-time backends and all regions. `probed` are pools."""
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
                    "probed": spec.pool in probed,
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
    overrides = [[str(network), name] for name, region in config.regions.items() for network in region.cidrs]
    return {"backends": backends, "regions": regions, "overrides": overrides}

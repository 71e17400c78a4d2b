"""Which regions suit a client's place, in order: override → subdivision → country → continent → distance → default.

One rule: place only orders regions; which of them may serve is the view's word, and `require` is a fence that nothing
here can widen. The level that found the first region is the decision's reason, and when a level could not be asked the
client's place says why (private address, not in the database, no database), for the counters.

The regions' side is worked out once in `GeoMap`; a decision for a place seen before is one dictionary look-up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from math import asin, cos, radians, sin, sqrt
from typing import NamedTuple

from edge.balance.regions import RegionSpec

EARTH_KM = 6371.0
MEMO_LIMIT = 8192  # places; then it starts anew


class Unknown(Enum):
    """Why a client's place is unknown."""

    PRIVATE = "private"
    NOT_FOUND = "not-found"
    NO_DATABASE = "no-database"
    NO_ADDRESS = "no-address"


class ClientPlace(NamedTuple):
    """The database's entry for an address; empty strings and None where it has nothing."""

    country: str = ""  # ISO 3166-1
    subdivision: str = ""  # ISO 3166-2, such as US-CA
    continent: str = ""  # AF AN AS EU NA OC SA
    lat: float | None = None
    lon: float | None = None
    unknown: Unknown | None = None


class Level(Enum):
    """Which rule chose the first region."""

    PREFER = "prefer"
    OVERRIDE = "override"
    SUBDIVISION = "subdivision"
    COUNTRY = "country"
    CONTINENT = "continent"
    DISTANCE = "distance"
    DEFAULT = "default"
    REFUSED = "refused"  # the fence leaves no region


@dataclass(frozen=True, slots=True)
class GeoDecision:
    """The regions in order, best first, without those outside the fence; which rule chose the first, and why the
    place is unknown.
    """

    order: tuple[str, ...]
    level: Level
    unknown: Unknown | None = None


class GeoPolicy(NamedTuple):
    """A route's two keys: regions to put first, and the residency fence (None: no fence)."""

    prefer: tuple[str, ...] = ()
    require: frozenset[str] | None = None


NO_GEO_POLICY = GeoPolicy()


class GeoMap:
    """The regions' places, networks and coordinates in one configuration. A reload makes a new one."""

    __slots__ = (
        "_by_continent",
        "_by_country",
        "_by_subdivision",
        "_default",
        "_memo",
        "_networks",
        "_placeless",
        "_places",
        "_specs",
    )

    def __init__(self, regions: Sequence[RegionSpec], overrides: Iterable[tuple[str, str]] = ()) -> None:
        """`overrides` are (network, region); where they overlap the longest prefix wins. ValueError if malformed."""
        self._specs = {region.name: region for region in regions}
        self._default = tuple(region.name for region in sorted(regions, key=lambda region: region.tier))
        self._by_subdivision = _index((region.name, region.subdivisions) for region in regions)
        self._by_country = _index((region.name, region.countries) for region in regions)
        self._by_continent = _index((region.name, region.continents) for region in regions)
        located = [(name, location) for name in self._default if (location := self._specs[name].location) is not None]
        self._places = [(name, unit_vector(location)) for name, location in located]
        self._placeless = [name for name in self._default if self._specs[name].location is None]
        self._networks: list[tuple[int, int, dict[int, str]]] = _prefixes(overrides, self._specs)
        self._memo: dict[tuple[ClientPlace, str, GeoPolicy], GeoDecision] = {}

    def decide(
        self, place: ClientPlace, ip: IPv4Address | IPv6Address | None = None, wish: GeoPolicy = NO_GEO_POLICY
    ) -> GeoDecision:
        """The order of regions for a client. `ip` is only looked at when there are overrides."""
        override = self._override(ip) if self._networks and ip is not None else ""
        key = (place, override, wish)
        found = self._memo.get(key)
        if found is None:
            if len(self._memo) >= MEMO_LIMIT:
                self._memo.clear()
            found = self._memo[key] = self._work_out(place, override, wish)
        return found

    def _override(self, ip: IPv4Address | IPv6Address) -> str:
        number, version = int(ip), ip.version
        if version == 6 and (number >> 32) == 0xFFFF:  # IPv4-mapped
            number, version = number & 0xFFFFFFFF, 4
        for net_version, shift, regions in self._networks:
            if net_version == version and (region := regions.get(number >> shift)) is not None:
                return region
        return ""

    def _work_out(self, place: ClientPlace, override: str, wish: GeoPolicy) -> GeoDecision:
        by_distance, measured = self._by_distance(place)
        steps: list[tuple[Level, Iterable[str]]] = [
            (Level.PREFER, wish.prefer),
            (Level.OVERRIDE, (override,) if override else ()),
            (Level.SUBDIVISION, self._among(by_distance, self._by_subdivision.get(place.subdivision, frozenset()))),
            (Level.COUNTRY, self._among(by_distance, self._by_country.get(place.country, frozenset()))),
            (Level.CONTINENT, self._among(by_distance, self._by_continent.get(place.continent, frozenset()))),
            (Level.DISTANCE, by_distance[:measured]),
            (Level.DEFAULT, self._default),
        ]
        order: dict[str, Level] = {}
        for level, names in steps:
            for name in names:
                if name in self._specs and (wish.require is None or name in wish.require):
                    order.setdefault(name, level)
        if not order:
            return GeoDecision((), Level.REFUSED, place.unknown)
        return GeoDecision(tuple(order), next(iter(order.values())), place.unknown)

    def _among(self, ranked: Sequence[str], names: frozenset[str]) -> list[str]:
        return [name for name in ranked if name in names]

    def _by_distance(self, place: ClientPlace) -> tuple[list[str], int]:
        """All regions: those with a location by distance, the others in default order; and how many are measured."""
        if place.lat is None or place.lon is None:
            return list(self._default), 0
        x, y, z = unit_vector((place.lat, place.lon))
        near = [name for _, name in sorted((-(x * i + y * j + z * k), name) for name, (i, j, k) in self._places)]
        return near + self._placeless, len(near)


def unit_vector(location: tuple[float, float]) -> tuple[float, float, float]:
    """The direction of (latitude, longitude) from the Earth's centre. The nearer of two places by great circle is the
    one with the larger scalar product, so that comparing needs no inverse functions."""
    lat, lon = radians(location[0]), radians(location[1])
    return cos(lat) * cos(lon), cos(lat) * sin(lon), sin(lat)


def distance_km(one: tuple[float, float], two: tuple[float, float]) -> float:
    """Great-circle distance of two (latitude, longitude) in degrees (haversine); for people, and to check the above."""
    lat1, lon1, lat2, lon2 = (radians(angle) for angle in (*one, *two))
    half = sin((lat2 - lat1) / 2) ** 2 + cos(lat1) * cos(lat2) * sin((lon2 - lon1) / 2) ** 2
    return 2 * EARTH_KM * asin(sqrt(min(1.0, half)))


def _index(pairs: Iterable[tuple[str, tuple[str, ...]]]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for name, codes in pairs:
        for code in codes:
            found.setdefault(code, set()).add(name)
    return {code: frozenset(names) for code, names in found.items()}


def _prefixes(
    overrides: Iterable[tuple[str, str]], specs: dict[str, RegionSpec]
) -> list[tuple[int, int, dict[int, str]]]:
    """(IP version, bits to drop, number of the network → region), longest prefixes first."""
    tables: dict[tuple[int, int], dict[int, str]] = {}
    for text, region in overrides:
        if region not in specs:
            raise ValueError(f"{text}: no region is named {region!r}")
        network: IPv4Network | IPv6Network = ip_network(text)
        shift = network.max_prefixlen - network.prefixlen
        tables.setdefault((network.version, shift), {})[int(network.network_address) >> shift] = region
    return [(version, shift, tables[version, shift]) for version, shift in sorted(tables, key=lambda key: key[1])]

"""Where a client is and which regions suit it: the database behind a port, the decision in `balance.geo`.

One rule: a client's place is asked once per connection; a database that is missing or silent makes the place unknown,
and then the fence still holds.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from typing import Protocol

from edge.balance.geo import ClientPlace, GeoDecision, GeoMap, GeoPolicy
from edge.http.forwarding import UNIX


class Places(Protocol):
    """The database that says where an address is."""

    def place(self, ip: str) -> ClientPlace:
        """Where an address is; never raises."""

    def refresh(self) -> bool:
        """Look whether the database has changed; may take a while, so it runs in a thread."""


class Located(Protocol):
    """A client connection, or one stream of it."""

    place: ClientPlace | None  # once somebody asked

    @property
    def peer(self) -> str: ...


class Geography:
    """One worker's view: the regions of the configuration, the database, counts by level and by reason."""

    def __init__(self, regions: GeoMap, places: Places, overrides: bool) -> None:
        self.regions = regions
        self.places = places
        self._overrides = overrides
        self.levels: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()

    def decide(self, peer: Located, client: str | None, wish: GeoPolicy) -> GeoDecision:
        """The order of regions for a client; `client` is its address where trusted proxies told another one."""
        address = client
        if address is None or address == peer.peer:
            place = peer.place
            if place is None:
                place = peer.place = self.places.place(peer.peer)
            address = peer.peer
        else:
            place = self.places.place(address)
        decision = self.decide_for(address, place, wish)
        self.levels[decision.level.value] += 1
        if decision.unknown is not None:
            self.unknown[decision.unknown.value] += 1
        return decision

    def decide_for(self, address: str, place: ClientPlace, wish: GeoPolicy) -> GeoDecision:
        """The order of regions for an address whose place is known."""
        looked_up = self._overrides and address != UNIX
        return self.regions.decide(place, ip_address(address) if looked_up else None, wish)

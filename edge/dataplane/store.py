"""The cache as one worker holds it: the index, the flights, and what purges and invalidations do to both.

One rule: a purge is done when `purge` returns. Look-ups after it do not see what it named, and a fill that had started
before it does not bring it back (`cache.purge`, sequence numbers).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from time import time
from typing import TYPE_CHECKING, Any

from edge.cache import invalidate
from edge.cache.flights import Flight, Flights
from edge.cache.index import Group, Index, Node
from edge.cache.key import cache_key
from edge.cache.purge import Epochs, Kind, Purge
from edge.cache.purge import Verdict as Fate
from edge.cache.rules import Rules
from edge.cache.stored import Stored
from edge.http.message import Fields, RequestHead, ResponseHead

if TYPE_CHECKING:
    from edge.dataplane.prefetcher import Prefetcher

TICK_S = 0.25  # how often `tick` is due
SWEEP_STEPS = 200  # each tick; the rest of a large purge is freed bit by bit
Progress = Callable[[dict[str, Any]], None]
Warmer = Callable[[list[str], Progress], Awaitable[dict[str, Any]]]


class Store:
    """Stored responses of one worker. `announce` is told of invalidations, so that other workers follow."""

    def __init__(self, budget_bytes: int, eviction: str, variant_limit: int = 1024) -> None:
        self._budget = budget_bytes
        self._eviction = eviction
        self._variant_limit = variant_limit
        self.index = self._new_index(Epochs())
        self.flights = Flights()
        self.refreshing: set[bytes] = set()  # variants that a background refresh is fetching
        self.clock: Callable[[], float] = time  # the wall clock: every age and lifetime is told by it
        self.announce: Callable[[Purge], None] | None = None
        self.warmer: Warmer | None = None
        self.prefetchers: list[Prefetcher] = []
        self.late_s = 0.0  # how late the last tick was: a busy loop
        self._ticked_at: float | None = None

    def _new_index(self, epochs: Epochs) -> Index[Stored]:
        return Index(self._budget, self._eviction, self._variant_limit, 1, epochs)

    @property
    def epochs(self) -> Epochs:
        """The purge sequence."""
        return self.index.epochs

    def restore_epochs(self, found: Mapping[str, Any]) -> None:
        """Begin with the purges of earlier runs; before anything is stored."""
        self.index = self._new_index(Epochs.from_dict(found))

    def get(self, key: bytes) -> Node[Stored] | Group[Stored] | None:
        """What is stored for a key."""
        return self.index.get(key)

    def absence(self, key: bytes) -> str:
        """Why nothing is stored for a key, in a word."""
        word = self.index.absence(key).value
        return word if word in ("evicted", "purged") else "cold"

    # -- purging ---------------------------------------------------------------------------------------------------

    def purge(self, purge: Purge, now: float, number: int | None = None) -> int | None:
        """Carry a purge out; how many responses for url and tag, None for the O(1) kinds."""
        return self.index.purge(purge, now, number)

    def invalidate(self, request: RequestHead, response: ResponseHead, rules: Rules, now: float) -> None:
        """What an unsafe request's answer makes invalid (RFC 9111 4.4, 9875)."""
        for uri in invalidate.targets(request, response):
            authority, slash, rest = uri.partition(b"/")
            key = cache_key(request.scheme, authority, slash + rest, rules, _NO_FIELDS)
            self._invalidate(Purge(Kind.URL, key), now)
        for tag in invalidate.groups(request, response):
            self._invalidate(Purge(Kind.TAG, tag), now)

    def purged_since(self, flight: Flight, key: bytes) -> bool:
        """Whether what a flight fetches was purged since it began: nobody new may share it."""
        epochs = self.index.epochs
        if flight.since >= epochs.seq:
            return False
        return epochs.admit(flight.since, key, flight.tags).verdict is not Fate.KEPT

    def _invalidate(self, purge: Purge, now: float) -> None:
        self.index.purge(purge, now)
        if self.announce is not None:
            self.announce(purge)

    # -- the rest --------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Four times a second: end waits, free what is expired or purged. `now` is the worker's monotonic clock."""
        if self._ticked_at is not None:
            self.late_s = max(0.0, now - self._ticked_at - TICK_S)
        self._ticked_at = now
        self.flights.tick(now)
        for prefetcher in self.prefetchers:
            prefetcher.tick(self, now)
        self.index.sweep(SWEEP_STEPS, self.clock())

    async def warm(self, urls: list[str], progress: Progress) -> dict[str, Any]:
        """Fetch URLs into the store; what came of it."""
        if self.warmer is None:
            return {"fetched": 0, "stored": 0, "failed": len(urls)}
        return await self.warmer(urls, progress)

    def stats(self) -> dict[str, float]:
        """Plain numbers for status and metrics."""
        stats = self.index.stats()
        return {
            **{name: value for name, value in vars_of(stats).items() if isinstance(value, int | float)},
            "flights": len(self.flights),
            **self._prefetched(),
        }

    def _prefetched(self) -> dict[str, float]:
        sums: dict[str, float] = {}
        for prefetcher in self.prefetchers:
            for name, value in prefetcher.stats().items():
                sums[name] = sums.get(name, 0) + value
        return sums


_NO_FIELDS = Fields()


def vars_of(stats: object) -> dict[str, Any]:
    """The fields of a slotted dataclass."""
    return {name: getattr(stats, name) for name in getattr(stats, "__slots__", ())}

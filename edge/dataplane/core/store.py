"""The cache as one worker holds it: the index, the flights, and what purges and invalidations do to both.

One rule: a purge is in force when `purge` returns. Look-ups after it do not see what it named, and a fill that had
started before it does not bring it back (`cache.purge`, sequence numbers). What it frees is freed some at a time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from edge.cache import invalidate
from edge.cache.calls import Later
from edge.cache.flights import Flight, Flights
from edge.cache.index import Group, Index, Node, PutResult
from edge.cache.key import cache_key, uri_of
from edge.cache.purge import Purge, PurgeKind, PurgeLog, PurgeState
from edge.cache.removal import Removal
from edge.cache.rules import Rules
from edge.cache.stored import Stored
from edge.http.message import Fields, RequestHead, ResponseHead
from edge.ports import DiskTier, SharedTier

if TYPE_CHECKING:
    from edge.dataplane.core.route import Prefetching

TICK_S = 0.25  # how often `tick` is due
MEMORY_SHARE = 16
MAX_PARTS = 8  # of one URL
SWEEP_STEPS = 200  # each tick; the rest of a large purge is freed bit by bit
RESIZE_STEPS = 1000  # evictions each tick, on the way to a smaller budget
Progress = Callable[[dict[str, Any]], None]
Warmer = Callable[[list[str], Progress], Awaitable[dict[str, Any]]]


class Store:
    """The cache of one worker. `announce` is called for each invalidation, so that other workers follow."""

    def __init__(self, budget_bytes: int, eviction: str, variant_limit: int = 64 + MAX_PARTS) -> None:
        self._budget = budget_bytes
        self._eviction = eviction
        self._variant_limit = variant_limit
        self.index = self._new_index(PurgeLog())
        self.flights = Flights()
        self.later: Later | None = None  # a later turn of the loop; without it, what is left waits for the tick
        self._removing = False  # in a later turn
        self.refreshing: set[bytes] = set()  # variants that a background refresh is fetching
        self.clock: Callable[[], float] = time  # the wall clock: every age and lifetime is told by it
        self.announce: Callable[[Purge], None] | None = None
        self.spread: Callable[[Purge], Awaitable[object]] | None = None  # the same, until the others have done it
        self.disk: DiskTier | None = None
        self.looked: tuple[bytes, tuple[Stored, ...]] | None = None  # what the quick way found and could not use
        self.shared: SharedTier | None = None
        self.shared_hits = 0  # requests that were answered by what another machine had stored
        self.blind = False  # purges of other machines may be missed: what is stored is validated before each use
        self.went_blind: Callable[[], None] = lambda: None
        self.may_be_blind_at: float | None = None  # when, if the control plane says nothing more; monotonic
        self.disk_hits = 0  # requests that were answered by what the disk had and memory had not
        self.share = budget_bytes // MEMORY_SHARE  # a larger response does not go through memory where there is a disk
        self.events: list[dict[str, Any]] = []  # for the operator, until the agent takes them
        self.warmer: Warmer | None = None
        self.prefetchers: list[Prefetching] = []
        self.late_s = 0.0  # how late the last tick was: a busy loop
        self._ticked_at: float | None = None
        self._resized = True  # False: the index is still on its way to the budget

    def _new_index(self, purge_log: PurgeLog) -> Index[Stored]:
        return Index(self._budget, self._eviction, self._variant_limit, 1, purge_log)

    @property
    def purge_log(self) -> PurgeLog:
        """The log of purges that responses are checked against."""
        return self.index.purge_log

    def restore_purge_log(self, found: Mapping[str, Any]) -> None:
        """Start with the purges of earlier runs. To be called before anything is stored."""
        self.index = self._new_index(PurgeLog.from_dict(found))

    def use_turns(self, later: Later) -> None:
        """Spread long work over several turns of the event loop, which `later` schedules."""
        self.later = later
        self.flights.use_turns(later)

    def resize(self, budget_bytes: int, variant_limit: int) -> None:
        """Set another budget. A larger one holds at once, a smaller one is reached within the next ticks."""
        self._budget, self._resized = budget_bytes, False
        self._variant_limit = self.index.variant_limit = variant_limit
        self.share = budget_bytes // MEMORY_SHARE

    def use_disk(self, disk: DiskTier) -> None:
        """Add the disk tier."""
        self.disk = disk
        disk.purge_log = lambda: self.index.purge_log

    def use_shared(self, shared: SharedTier) -> None:
        """Add the tier that machines share."""
        self.shared = shared
        shared.purges, shared.clock = lambda: self.index.purge_log, lambda: self.clock()

    def is_hot(self, key: bytes) -> bool:
        """Whether memory has the key and it was used since it was stored; then the disk keeps it too. Thread-safe."""
        return self.index.is_hot(key)

    def get(self, key: bytes) -> Node[Stored] | Group[Stored] | None:
        """What memory holds for a key: a node, a group of variants, or None."""
        return self.index.get(key)

    def absence(self, key: bytes) -> str:
        """Why nothing is stored for a key, as a word for `Cache-Status`."""
        word = self.index.absence(key).value
        return word if word in ("evicted", "purged") else "cold"

    def variants(self, key: bytes) -> tuple[Stored, ...]:
        """What memory and disk hold for a key, without counting a hit; of the disk only what needs no waiting."""
        found = self.index.peek(key)
        memory: tuple[Stored, ...] = found.variants if found is not None else ()
        disk = self.disk.look(key) if self.disk is not None else None
        newer = newer_of(memory, trusted(self, disk) or ())
        return together(memory, newer) if newer else memory

    def rivals(self, stored: Stored) -> tuple[Stored, ...]:
        """What is stored already for its key, where such a response is kept first of all."""
        if self.disk is not None and not self.index.fits(stored):
            return self.variants(stored.key)
        found = self.index.peek(stored.key)
        return found.variants if found is not None else ()

    # -- storing ---------------------------------------------------------------------------------------------------

    def put(self, stored: Stored, seq: int, now: float) -> None:
        """Store a whole response in every tier. `seq` is the purge sequence number from when its fill began."""
        if self.blind:
            stored = stored.distrusted()
        if stored.part is not None:
            self._limit_parts(stored)
        found = self.index.put(stored, now, seq, min_uses=1)
        if found is PutResult.PURGED or found is PutResult.VARY_LIMIT:
            return
        if self.disk is not None:
            self.disk.put(stored, seq)
        if self.shared is not None:
            self.shared.put(stored, seq)

    def _limit_parts(self, stored: Stored) -> None:
        """Let the oldest parts of its URL go: a look-up reads all that there are."""
        parts = [one for one in self.variants(stored.key) if one.part is not None and one.variant != stored.variant]
        if len(parts) >= MAX_PARTS:
            parts.sort(key=lambda one: one.received_at)
            for one in parts[: len(parts) - MAX_PARTS + 1]:
                self.discard(one)

    def replace(self, old: Stored, new: Stored, seq: int, now: float) -> None:
        """Store a revalidated response in the place of the old one, with the same body."""
        if self.blind:
            new = new.distrusted()
        found = self.index.replace(old, new, now, seq)
        if found is PutResult.PURGED:
            return
        if self.shared is not None:
            self.shared.put(new, seq)
        if self.disk is None:
            return
        if old.variant != new.variant:
            self.disk.remove(old)
        self.disk.put(new, seq)

    def discard(self, stored: Stored) -> None:
        """Remove one response."""
        self.index.discard(stored)
        if self.disk is not None:
            self.disk.remove(stored)

    # -- purging ---------------------------------------------------------------------------------------------------

    def purge(
        self,
        purge: Purge,
        now: float,
        number: int | None = None,
        touched: Callable[[Stored], None] = lambda stored: None,
    ) -> Removal[Stored] | None:
        """Put a purge in force; see `Index.purge`."""
        self.looked = None
        if self.disk is None:
            removal = self.index.purge(purge, now, number, touched)
        else:
            with self.disk.recorded():
                removal = self.index.purge(purge, now, number, touched)
            self.disk.forget(purge, now)
        self._remove_later()
        return removal

    def _remove_later(self) -> None:
        if self.index.removing and not self._removing and self.later is not None:
            self._removing = True
            self.later(self._remove_some)

    def _remove_some(self) -> None:
        self._removing = False
        self.index.remove_some()
        self._remove_later()

    def invalidate(self, request: RequestHead, response: ResponseHead, rules: Rules, now: float) -> None:
        """Remove what the answer to an unsafe request makes invalid (RFC 9111 4.4, 9875)."""
        for uri in invalidate.targets(request, response):
            authority, slash, rest = uri.partition(b"/")
            key = cache_key(request.scheme, authority, slash + rest, rules, _NO_FIELDS)
            self._invalidate(Purge(PurgeKind.URL, key), now)
        for tag in invalidate.groups(request, response):
            self._invalidate(Purge(PurgeKind.TAG, tag), now)

    def purged_since(self, flight: Flight, key: bytes) -> bool:
        """Whether a purge named the key after this flight began: then no new request may join it."""
        purge_log = self.index.purge_log
        if flight.since >= purge_log.seq:
            return False
        return purge_log.admit(flight.since, key, flight.tags).verdict is not PurgeState.KEPT

    def outdate(self, key: bytes) -> None:
        """Stop using all that is stored for a key's URI, because its parts contradict each other."""
        self._invalidate(Purge(PurgeKind.URL, uri_of(key)), self.clock())

    def _invalidate(self, purge: Purge, now: float) -> None:
        self.purge(purge, now)
        if self.shared is not None:
            self.shared.view.invalidated(purge, monotonic())
        if self.announce is not None:
            self.announce(purge)

    def go_blind(self) -> None:
        """From now on purges of other machines may be missed: everything stored is validated before its next use."""
        if not self.blind:
            self.blind = True
            self.purge(Purge(PurgeKind.ALL, soft=True, distrust=True), self.clock())
        if self.shared is not None:
            self.shared.view.in_step = False
        self.went_blind()

    # -- the rest --------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Four times a second: end waits that are over, free what expired or was purged. `now` is monotonic seconds."""
        if self._ticked_at is not None:
            self.late_s = max(0.0, now - self._ticked_at - TICK_S)
        self._ticked_at = now
        self.flights.tick(now)
        if self.may_be_blind_at is not None and now >= self.may_be_blind_at:
            self.go_blind()
        for prefetcher in self.prefetchers:
            prefetcher.tick(self, now)
        self.index.sweep(SWEEP_STEPS, self.clock())
        if self.later is None:
            self.index.remove_some()
        if not self._resized:
            self._resized = self.index.resize(self._budget, RESIZE_STEPS, self.clock())
        if self.disk is not None:
            self.disk.tick()
        if self.shared is not None:
            self.shared.tick()

    async def warm(self, urls: list[str], progress: Progress) -> dict[str, Any]:
        """Fetch URLs into the store; returns how many were fetched, stored and failed."""
        if self.warmer is None:
            return {"fetched": 0, "stored": 0, "failed": len(urls)}
        return await self.warmer(urls, progress)

    def stats(self) -> dict[str, float]:
        """Plain numbers for status and metrics."""
        stats = self.index.stats()
        return {
            **{name: value for name, value in asdict(stats).items() if isinstance(value, int | float)},
            "flights": len(self.flights),
            **self._prefetched(),
            **self._on_disk(),
            **self._shared(),
        }

    def _on_disk(self) -> dict[str, float]:
        if self.disk is None:
            return {}
        return {"disk_hits": self.disk_hits, **{f"disk_{name}": value for name, value in self.disk.stats().items()}}

    def _shared(self) -> dict[str, float]:
        if self.shared is None:
            return {}
        stats = {f"shared_{name}": value for name, value in self.shared.stats().items()}
        return {**stats, "shared_hits": self.shared_hits}

    def take_events(self) -> list[dict[str, Any]]:
        """The tiers' events for the operator since the last call."""
        found, self.events = self.events, []
        for tier in (self.disk, self.shared):
            found += tier.events() if tier is not None else []
        return found

    def _prefetched(self) -> dict[str, float]:
        sums: dict[str, float] = {}
        for prefetcher in self.prefetchers:
            for name, value in prefetcher.stats().items():
                sums[name] = sums.get(name, 0) + value
        return sums


_NO_FIELDS = Fields()


def newer_of(memory: Sequence[Stored], disk: Sequence[Stored]) -> tuple[Stored, ...]:
    """The responses of the disk that memory does not have, or has in an older version."""
    known = {one.variant: one.received_at for one in memory}
    return tuple(one for one in disk if known.get(one.variant, -1.0) < one.received_at)


def together(memory: Sequence[Stored], newer: Sequence[Stored]) -> tuple[Stored, ...]:
    """Both lists as one, with one response of each variant, the newest first."""
    by_variant = {one.variant: one for one in (*memory, *newer)}
    return tuple(sorted(by_variant.values(), key=lambda one: -one.received_at))


def trusted(store: Store, found: tuple[Stored, ...] | None) -> tuple[Stored, ...] | None:
    """What a tier found, marked for validation while purges of other machines may have been missed."""
    return tuple(one.distrusted() for one in found) if store.blind and found else found

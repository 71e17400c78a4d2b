"""A pool as a worker runs it: the pure `balance.Pool`, the links to its backends, the queue before a full pool.

One rule: whoever waits in the queue leaves it exactly once: served, expired or canceled. All decisions are the pure
pool's; this file only holds what they need (meters, links, budget) and calls them with the time.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

from edge.balance.backend import Backend
from edge.balance.pool import Pool
from edge.balance.retry import RetryBudget
from edge.errors import PoolFull, UpstreamError
from edge.ports import Link

if TYPE_CHECKING:
    from edge.dataplane.exchange import Exchange
    from edge.dataplane.fetch import Fetch


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What a pool's queue and retries may do; durations in seconds."""

    queue_size: int = 1000
    queue_timeout: float = 1.0
    retry_budget: float = 0.2
    retry_min: int = 3


class PoolRuntime:
    """One pool of one worker."""

    __slots__ = (
        "_hint",
        "_queue",
        "budget",
        "fallback",
        "links",
        "make_link",
        "name",
        "pool",
        "settings",
    )

    def __init__(
        self,
        pool: Pool,
        settings: PoolSettings,
        make_link: Callable[[Backend], Link],
        hint: Callable[[Exchange], int] | None = None,
    ) -> None:
        self.name = pool.name
        self.pool = pool
        self.settings = settings
        self.make_link = make_link
        self.links: dict[str, Link] = {backend.id: make_link(backend) for backend in pool.backends}
        self.budget = RetryBudget(settings.retry_budget, settings.retry_min)
        self.fallback: PoolRuntime | None = None
        self._queue: deque[Fetch] = deque()
        self._hint = hint

    def fall_back_to(self, other: PoolRuntime) -> None:
        """Let another pool serve when nobody here is available."""
        self.fallback = other
        self.pool.fallback = other.pool

    def link(self, backend: Backend) -> Link:
        """The connections to a backend that this pool picked; it may be the fallback's."""
        if backend.pool == self.name or self.fallback is None:
            return self.links[backend.id]
        return self.fallback.links[backend.id]

    # -- selection -------------------------------------------------------------------------------------------------

    def select(self, exchange: Exchange, tried: Sequence[Backend], now: float) -> Backend | None:
        """The next backend for this exchange, never one that was tried."""
        route = exchange.route
        assert route is not None
        hint = 0 if self._hint is None else self._hint(exchange)
        if route.by_place or route.fence is not None:
            return self.pool.pick(now, hint, tried, exchange.regions(), route.fence)
        return self.pool.pick(now, hint, tried)

    def full(self, exchange: Exchange, tried: Sequence[Backend], now: float) -> bool:
        """After `select` gave none: whether one would be free if requests ended."""
        route = exchange.route
        assert route is not None
        return not tried and self.pool.is_full(now, route.fence)

    # -- accounting ------------------------------------------------------------------------------------------------

    def began(self, link: Link, attempts: int) -> None:
        """An attempt begins."""
        meter = link.meter
        meter.attempts += 1
        if attempts > 1:
            meter.retries += 1
        self.budget.began(attempts > 1)

    def failed(self, link: Link, error: UpstreamError) -> None:
        """An attempt failed."""
        errors = link.meter.errors
        errors[error.proxy_status] = errors.get(error.proxy_status, 0) + 1

    def ended(self, attempts: int) -> None:
        """An attempt gave its backend back: whoever waits longest is next."""
        self.budget.ended(attempts > 1)
        if self._queue:
            self._queue.popleft().attempt()

    # -- queue -----------------------------------------------------------------------------------------------------

    def enqueue(self, fetch: Fetch, now: float) -> None:
        """Wait for a free backend."""
        if len(self._queue) >= self.settings.queue_size:
            fetch._give_up(PoolFull("queue is full"))
            return
        fetch.queued_until = now + self.settings.queue_timeout
        self._queue.append(fetch)

    def dequeue(self, fetch: Fetch) -> None:
        """Wait no longer."""
        if fetch.queued_until and fetch in self._queue:
            self._queue.remove(fetch)

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._queue)

    def tick(self, now: float) -> None:
        """Expire deadlines of links and of the queue."""
        for link in self.links.values():
            link.tick(now)
            link.meter.fold()
        while self._queue and self._queue[0].queued_until <= now:
            self._queue.popleft().queue_expired()

    # -- membership ------------------------------------------------------------------------------------------------

    def add(self, backend: Backend) -> None:
        """A backend joins at run time."""
        self.pool.add(backend)
        self.links[backend.id] = self.make_link(backend)

    def remove(self, backend_id: str) -> None:
        """A backend leaves: no new requests; running ones end on their connections."""
        self.pool.remove(backend_id)
        link = self.links.pop(backend_id, None)
        if link is not None:
            link.close_idle()

    async def close(self) -> None:
        """End all connections."""
        for link in list(self.links.values()):
            await link.close()


def hash_hint(on: str) -> Callable[[Exchange], int]:
    """What consistent hashing looks at: `path`, `client`, `header:Name`, `cookie:Name`. Missing hashes as empty."""
    kind, _, name = on.partition(":")
    lower = name.lower().encode()
    if kind == "client":
        return lambda exchange: crc32(exchange.client_text().encode())
    if kind == "header":
        return lambda exchange: crc32(exchange.block.fields.joined(lower) or b"")
    if kind == "cookie":
        return lambda exchange: crc32(cookie(exchange.block.fields.joined(b"cookie") or b"", name.encode()))
    return lambda exchange: crc32(exchange.target)


def cookie(header: bytes, name: bytes) -> bytes:
    """The value of a cookie; empty when absent."""
    for part in header.split(b";"):
        key, _, value = part.strip().partition(b"=")
        if key == name:
            return value
    return b""


def seeded() -> Callable[[int], int]:
    """A source of chance for the pure parts: a number in [0, n)."""
    source = random.Random()
    return lambda n: int(source.random() * n)

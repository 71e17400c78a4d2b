"""A pool as a worker runs it: the pure `balance.Pool`, the links to its backends, the queue before a full pool.

One rule: whoever waits (in the queue for a free backend, or for the retry budget) leaves it exactly once: served,
expired or canceled. All decisions are the pure pool's; this file only holds what they need (meters, links, budget),
calls them with the time, and finds on its tick which backends have gone silent.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from edge.balance.backend import Backend
from edge.balance.pool import Pool
from edge.balance.retry import RetryBudget
from edge.dataplane.upstream.hashing import HashOn
from edge.dataplane.upstream.hedge import AnswerTimes, Hedge, begin
from edge.dataplane.upstream.waiting import Waiting
from edge.errors import UpstreamError
from edge.ports import Connector, Link, ResponseSink

SILENCE_S = 1.0  # without any answer, before a backend is suspected
SUSPECT_AGAIN_S = 5.0  # a pool that cannot do without a silent backend says so once in this time

if TYPE_CHECKING:
    from edge.dataplane.core.exchange import Exchange
    from edge.dataplane.core.route import Route
    from edge.dataplane.upstream.attempting import Attempting


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Limits of a pool's queue and retries; durations in seconds."""

    queue_size: int = 1000
    retry_budget: float = 0.2
    retry_min: int = 3


class PoolRuntime:
    """One pool in one worker."""

    __deletable__ = ("_waiting",)  # for mypyc: see `dissolve`
    __slots__ = (
        "_family",
        "_leaving",
        "_paces",
        "_waiting",
        "budget",
        "fallback",
        "hash_on",
        "links",
        "make_link",
        "name",
        "pool",
        "refused_at",
        "settings",
    )

    def __init__(
        self,
        pool: Pool,
        settings: PoolSettings,
        make_link: Callable[[Backend], Link],
        hash_on: HashOn | None = None,
    ) -> None:
        self.name = pool.name
        self.pool = pool
        self.settings = settings
        self.make_link = make_link
        self.links: dict[str, Link] = {backend.id: make_link(backend) for backend in pool.backends}
        self.budget = RetryBudget(settings.retry_budget, settings.retry_min)
        self.refused_at = -inf  # when a backend was last seen to refuse connections
        self.fallback: PoolRuntime | None = None
        self._leaving: list[Link] = []  # of backends that were removed while requests ran on them
        self._waiting = Waiting(self, settings.queue_size)
        self._family: list[PoolRuntime] = []  # this one and those that it borrows from or lends to; empty: alone
        self._paces: dict[str, AnswerTimes] = {}
        self.hash_on = hash_on  # None: the policy is another one

    def fall_back_to(self, other: PoolRuntime) -> None:
        """Use the pool `other` when no backend of this one is available."""
        self.fallback = other
        self.pool.fallback = other.pool
        family = list(dict.fromkeys([*(self._family or [self]), *(other._family or [other])]))
        for member in family:
            member._family = family

    def link(self, backend: Backend) -> Link:
        """The connections to a backend that `select` returned; it may belong to the fallback pool."""
        if backend.pool == self.name or self.fallback is None:
            return self.links.get(backend.id) or self._orphan(backend)
        return self.fallback.link(backend)

    def _orphan(self, backend: Backend) -> Link:
        """A link for one more attempt at a backend that was removed meanwhile."""
        link = self.make_link(backend)
        self._leaving.append(link)
        return link

    # -- selection -------------------------------------------------------------------------------------------------

    def select(self, exchange: Exchange, tried: Sequence[Backend], now: float) -> Backend | None:
        """The next backend for this exchange, excluding `tried`; None if none is available."""
        hint = 0 if self.hash_on is None else self.hash_on.hint(exchange)
        route = exchange.route
        assert route is not None
        if route.affinity is not None and not tried and (home := self._home(exchange, route, now)) is not None:
            return home
        if route.anywhere:
            return self.pool.pick(now, hint, tried)
        return self.pool.pick(now, hint, tried, exchange.regions(), route.fence)

    def _home(self, exchange: Exchange, route: Route, now: float) -> Backend | None:
        """The backend of the client's affinity cookie, if the pool's rules let it serve."""
        affinity, pool = route.affinity, self.pool
        wanted = None if affinity is None else affinity.wanted(exchange, pool.backends)
        if wanted is None:
            return None
        if route.anywhere and pool.view is not None and pool.view.shares.get(wanted.region, 0.0) <= 0.0:
            return None  # its region gets no traffic now
        others = [each for each in pool.backends if each is not wanted]
        found = pool.pick(now, 0, others, exchange.regions(), route.fence)
        return found if found is wanted else None

    def full(self, exchange: Exchange, tried: Sequence[Backend], now: float) -> bool:
        """After `select` returned None: whether a backend would be free if requests ended."""
        route = exchange.route
        assert route is not None
        return not tried and self.pool.is_full(now, route.fence)

    # -- accounting ------------------------------------------------------------------------------------------------

    def began(self, link: Link, attempts: int) -> None:
        """An attempt begins: count it."""
        link.meter.attempts += 1
        if attempts > 1:
            link.meter.retries += 1
            self.budget.began(True)
        else:
            self.budget.active += 1  # as `began` would: one call fewer for each request

    def failed(self, link: Link, error: UpstreamError) -> None:
        """An attempt failed: count it for ejection."""
        errors = link.meter.errors
        errors[error.proxy_status] = errors.get(error.proxy_status, 0) + 1

    def ended(self, attempts: int) -> None:
        """An attempt gave its backend back: wake the longest waiting request."""
        self.budget.ended(attempts > 1)
        if self._waiting.anyone or self._family:
            self._wake()

    # -- waiting ---------------------------------------------------------------------------------------------------

    def enqueue(self, fetch: Attempting, now: float) -> None:
        """Queue a request until a backend is free."""
        self._waiting.enqueue(fetch, now)

    def postpone(self, fetch: Attempting, now: float) -> bool:
        """Queue a retry until the budget allows it; False when that queue is full."""
        return self._waiting.postpone(fetch, now)

    def come_back(self, fetch: Attempting, due: float) -> bool:
        """Try all backends again at `due` (monotonic); False when that queue is full."""
        return self._waiting.come_back(fetch, due)

    def dequeue(self, fetch: Attempting) -> None:
        """Remove a request from the queues."""
        self._waiting.leave(fetch)

    @property
    def queued(self) -> int:
        """How many requests wait for a free backend."""
        return self._waiting.queued

    def _wake(self) -> None:
        """Wake waiting requests of this pool and of those that share backends with it."""
        now = monotonic()
        for pool in self._family or (self,):
            if pool._waiting.anyone:
                pool._waiting.wake(now)

    def tick(self, now: float) -> None:
        """Expire deadlines of connections and of the queues."""
        for identity, link in self.links.items():
            if link.meter.samples:
                self._pace(identity).heard(link.meter.samples, now)
            link.tick(now)
            link.meter.fold()
        for link in self._leaving:
            link.tick(now)
        self._leaving = [link for link in self._leaving if link.open()]
        self._listen(now)
        self._waiting.tick(now)

    # -- silence ---------------------------------------------------------------------------------------------------

    def _pace(self, identity: str) -> AnswerTimes:
        found = self._paces.get(identity)
        if found is None:
            found = self._paces[identity] = AnswerTimes()
        return found

    def _listen(self, now: float) -> None:
        """Find backends that are unusually silent: hedge their requests, and suspect them if others answer."""
        waiting: list[ResponseSink] = []
        silent: list[Backend] = []
        for backend in self.pool.backends:
            if backend.in_flight:
                pace = self._pace(backend.id)
                found = self.links[backend.id].silent(now - pace.patience_s)
                waiting += found
                if found and now - pace.heard_at >= pace.patience_s:
                    silent.append(backend)
        on_trial = [backend for backend in self.pool.backends if backend.half_open]  # no place to be quicker at
        for backend in on_trial:  # one that streams for long is no longer to be tried out
            for sink in self.links[backend.id].open():
                if (owner := fetch_of(sink)).settles <= now:
                    owner.settle(now)
        waits = self._waiting
        waits.silent = (*silent, *on_trial)
        waits.forget_hedges()
        for sink in waiting:
            if isinstance(sink, Hedge):
                sink.silent(now)
        for sink in waiting:
            owner = fetch_of(sink)
            if not begin(owner, waits.silent, now):
                waits.hedge_later(owner)
        for backend in silent:
            self._suspect(backend, self._paces[backend.id], now)

    def _suspect(self, backend: Backend, pace: AnswerTimes, now: float) -> None:
        """Eject a silent backend when as many requests wait for it as failures would eject it."""
        ejection = self.pool.settings.ejection
        if ejection is None or now < backend.ejected_until or now - pace.suspected_at < SUSPECT_AGAIN_S:
            return
        wait_s = max(SILENCE_S, pace.patience_s)
        count = len(self.links[backend.id].silent(now - wait_s))
        others = [self._paces[other] for other in self._paces if other != backend.id]
        if (
            count >= ejection.consecutive
            and now - pace.heard_at >= wait_s
            and any(other.heard_at > now - 2 * wait_s for other in others)
        ):
            pace.suspected_at = now
            self.pool.suspect(backend, f"{count} requests wait, no answer for {wait_s:.1f} s", now)

    # -- membership ------------------------------------------------------------------------------------------------

    def add(self, backend: Backend) -> None:
        """Add a backend at run time."""
        self.pool.add(backend)
        self.links[backend.id] = self.make_link(backend)

    def remove(self, backend_id: str) -> None:
        """Remove a backend: no new requests; running ones finish on their connections."""
        self.pool.remove(backend_id)
        self._paces.pop(backend_id, None)
        link = self.links.pop(backend_id, None)
        if link is not None:
            self._leave(link)

    def renew(self, fresh: PoolRuntime, kept: Iterable[str] = ()) -> None:
        """A reload: be what `fresh` was made as (`Pool.renew`); fallbacks are tied anew by the caller.

        Who waits goes on waiting; connections to what is spoken to as before are kept, others end when they are idle.
        """
        before, links = {backend.id: backend for backend in self.pool.backends}, self.links
        self.pool.renew(fresh.pool, kept)
        self.make_link, self.hash_on = fresh.make_link, fresh.hash_on
        settings = self.settings = fresh.settings
        self.budget.renew(settings.retry_budget, settings.retry_min)
        self._waiting.size = settings.queue_size
        self.links = {}
        for backend in self.pool.backends:
            made, lived = fresh.links.get(backend.id) or self.make_link(backend), links.get(backend.id)
            if lived is None or before[backend.id] is not backend or not lived.renew(made):
                lived = made
            self.links[backend.id] = lived
        for identity, link in links.items():
            if self.links.get(identity) is not link:
                self._paces.pop(identity, None)
                self._leave(link)
        self.fallback = self.pool.fallback = None
        self._family = []
        fresh.dissolve()

    def dissolve(self) -> None:
        """Drop the references in both directions, so that the pool is freed without a garbage collection."""
        del self._waiting
        self._family = []

    def retire(self) -> None:
        """The pool was removed by a reload: finish what runs on it."""
        for link in self.links.values():
            link.close_idle()

    @property
    def is_over(self) -> bool:
        """Whether nothing runs on a retired pool any more."""
        links = [*self.links.values(), *self._leaving]
        return not self._waiting.anyone and not any(link.connections or link.open() for link in links)

    def _leave(self, link: Link) -> None:
        link.close_idle()
        self._leaving.append(link)

    async def close(self) -> None:
        """Close all connections."""
        for link in [*self.links.values(), *self._leaving]:
            await link.close()


def fetch_of(sink: ResponseSink | Connector) -> Attempting:
    """The fetch behind a connection's sink: a hedge and a tunnel name theirs, every other sink is one."""
    return getattr(sink, "fetch", sink)  # type: ignore[arg-type]


def seeded() -> Callable[[int], int]:
    """A random function for the pure parts: n → a number in [0, n)."""
    source = random.Random()
    return lambda n: int(source.random() * n)

"""Who waits in one pool: for a free backend, for the retry budget, for a backend to be back, for a hedge.

One rule: whoever waits leaves exactly once, in the order of coming: served, expired or canceled. Who is woken and finds
nothing keeps place and deadline. Nobody is polled: an attempt that ends wakes, and the pool's tick does.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from edge.balance.backend import Backend
from edge.dataplane.upstream.hedge import begin
from edge.dataplane.upstream.retries import again, back, expired
from edge.errors import NoBackend, PoolFull

if TYPE_CHECKING:
    from edge.dataplane.core.route import RunningPool
    from edge.dataplane.upstream.attempting import Attempting


class Waiting:
    """The four queues of one pool, each bounded by the pool's `queue`."""

    __slots__ = ("_hedges", "_pool", "_postponed", "_queue", "_returning", "anyone", "silent", "size")

    def __init__(self, pool: RunningPool, size: int) -> None:
        self._pool = pool
        self.size = size
        self.anyone = False  # False: an attempt that ends has nobody to wake
        self.silent: tuple[Backend, ...] = ()  # backends that no hedge goes to, as of the last tick
        self._queue: deque[Attempting] = deque()  # all backends are full
        self._postponed: deque[Attempting] = deque()  # attempts that the retry budget does not allow yet
        self._returning: list[tuple[float, Attempting]] = []  # all backends failed: again at this time
        self._hedges: deque[Attempting] = deque()  # hedges that the budget does not allow yet; found anew on each tick

    @property
    def queued(self) -> int:
        """How many requests wait for a free backend."""
        return len(self._queue)

    # -- coming and leaving ----------------------------------------------------------------------------------------

    def enqueue(self, fetch: Attempting, now: float) -> None:
        """Queue a request until a backend is free."""
        if len(self._queue) >= self.size:
            fetch.give_up(PoolFull("queue is full"))
            return
        fetch.queued_until = now + fetch.route.timeouts.queue
        self._queue.append(fetch)
        self.anyone = True

    def postpone(self, fetch: Attempting, now: float) -> bool:
        """Make this attempt as soon as the budget allows; False when too many wait for that already.

        The budget bounds how many retries run at once. To fail what it does not allow this moment would turn the death
        of one backend with many requests in flight into as many errors, with another backend idle.
        """
        if len(self._postponed) >= self.size:
            return False
        fetch.queued_until = max(now + fetch.route.timeouts.queue, fetch.rounds_until)
        self._postponed.append(fetch)
        self.anyone = True
        return True

    def come_back(self, fetch: Attempting, due: float) -> bool:
        """Try all backends again at `due` (monotonic); False when the queue is full."""
        if len(self._returning) >= self.size:
            return False
        fetch.queued_until = due
        self._returning.append((due, fetch))
        return True

    def hedge_later(self, fetch: Attempting) -> None:
        """Hedge this request as soon as the budget allows."""
        self._hedges.append(fetch)
        self.anyone = True

    def forget_hedges(self) -> None:
        """Clear the hedge queue: the tick finds the candidates anew."""
        self._hedges.clear()

    def leave(self, fetch: Attempting) -> None:
        """Remove a request from all queues."""
        if fetch.queued_until:
            for queue in (self._queue, self._postponed):
                if fetch in queue:
                    queue.remove(fetch)
            self._returning = [entry for entry in self._returning if entry[1] is not fetch]

    # -- waking ----------------------------------------------------------------------------------------------------

    def wake(self, now: float) -> None:
        """A backend has room for one more request, and the budget may have for some."""
        budget = self._pool.budget
        if self._queue:
            self._serve(now)
        while self._postponed and budget.allows():
            again(self._postponed.popleft(), now)
        while self._hedges and budget.allows():
            begin(self._hedges.popleft(), self.silent, now)
        self.anyone = bool(self._queue or self._postponed or self._hedges)

    def _serve(self, now: float) -> None:
        """Serve the longest waiting request that can use what is free; the others keep their places."""
        queue, pool, at = self._queue, self._pool, 0
        vain: set[Any] = set()  # fences and orders for which nothing is free
        while at < len(queue):
            fetch = queue[at]
            route = fetch.route
            wish = (route.fence, fetch.exchange.regions() if route.by_place else None)
            if wish in vain:
                at += 1
                continue
            backend = pool.select(fetch.exchange, fetch.tried, now)
            if backend is None and pool.full(fetch.exchange, fetch.tried, now):
                if route.anywhere:
                    return  # not even who takes any region can be served
                vain.add(wish)
                at += 1
                continue
            del queue[at]
            if backend is None:
                fetch.give_up(NoBackend("no backend available"))
            else:
                fetch.use(backend, now)

    def tick(self, now: float) -> None:
        """Handle what is due: returns, expired deadlines, and requests that a change of state lets in."""
        due = [fetch for at, fetch in self._returning if at <= now]
        if due:
            self._returning = [entry for entry in self._returning if entry[0] > now]
            for fetch in due:
                back(fetch, now)
        for fetch in [fetch for fetch in self._postponed if fetch.queued_until <= now]:
            self._postponed.remove(fetch)
            expired(fetch)
        for fetch in [fetch for fetch in self._queue if fetch.queued_until <= now]:
            self._queue.remove(fetch)
            fetch.give_up(PoolFull("no backend free in time"))
        if self.anyone:
            self.wake(now)

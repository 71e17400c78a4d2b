"""Purges of a URL as a worker carries them out: the key of what is stored is made as its route makes it.

One rule: whoever names a URL means whatever this gateway would answer for it, so the key is the route's (its query
rules, its default ports), for both schemes: behind something that ends TLS and does not say so, the operator's
https://… is stored as http://….
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable
from dataclasses import replace
from time import monotonic, time
from typing import TYPE_CHECKING

from edge.cache.fleet.view import StreamPurge
from edge.cache.key import cache_key, uri_of
from edge.cache.purge import STAMPED, Purge, PurgeKind
from edge.cache.removal import Removal
from edge.cache.rules import Rules
from edge.cache.stored import Stored
from edge.errors import EdgeError, outcome_of
from edge.http.forwarding import DEFAULT_PORTS
from edge.http.message import Fields

if TYPE_CHECKING:
    from edge.dataplane.core.context import WorkerContext
    from edge.dataplane.core.exchange import Exchange
    from edge.dataplane.core.store import Store
    from edge.ports import DiskTier

MAX_MARKS = 65536  # 16 bytes each, in one frame
MARKS_A_TURN = 200
COUNT_S = 2.0  # how long whoever purges waits for the exact count
SPREAD_S = 10.0  # and for the other workers: longer than one may take to answer (`control.workers`)

_NO_FIELDS = Fields()


class Purging:
    """One purge in this worker: in force when this was made, over when `count` is final.

    `marks` tell what it touched apart over workers and tiers, where there is a disk tier; `more` could not be told
    apart, as they are too many.
    """

    def __init__(self, worker: WorkerContext, asked: Purge, number: int | None = None) -> None:
        self.keys: list[bytes] = []
        self.marks = array("q")  # pairs
        self.more = 0
        self._removals: list[Removal[Stored]] = []
        self._waiting: list[Stored] = []  # to be written to the disk, touched, and not yet marked
        self._marked: list[Callable[[], None]] = []
        self._counts = asked.kind not in STAMPED
        store, now = worker.store, time()
        if store is None:
            return
        self.keys = keys_of(worker, asked.value) if asked.kind is PurgeKind.URL else [asked.value]
        disk = store.disk if self._counts else None
        for key in self.keys:
            named = replace(asked, value=key)
            if disk is None:
                removal = store.purge(named, now, number)
            else:
                self._waiting += disk.waiting(named, now)
                removal = store.purge(named, now, number, lambda stored: self._add(disk.mark(stored)))
            if removal is not None:
                self._removals.append(removal)
        if disk is not None:
            self._mark_some(store, disk)

    def _mark_some(self, store: Store, disk: DiskTier) -> None:
        """Compute the marks of some stored responses; in several turns, because each takes a hash."""
        most = len(self._waiting) if store.later is None else MARKS_A_TURN
        for _ in range(min(most, len(self._waiting))):
            self._add(disk.mark(self._waiting.pop()))
        if self._waiting and store.later is not None:
            store.later(lambda: self._mark_some(store, disk))
            return
        marked, self._marked = self._marked, []
        for call in marked:
            call()

    def _add(self, mark: tuple[int, int]) -> None:
        if len(self.marks) < 2 * MAX_MARKS:
            self.marks.extend(mark)
        else:
            self.more += 1

    @property
    def count(self) -> int | None:
        """How many responses it touched, those not looked at yet included; None for kinds that are not counted."""
        return sum(each.count + each.left for each in self._removals) if self._counts else None

    @property
    def over(self) -> bool:
        """Whether the count is final."""
        return not (self._waiting or any(each.left for each in self._removals))

    def then(self, call: Callable[[], None]) -> None:
        """Call this once when it is over: now, or later; after COUNT_S at the latest, as it is in force anyway."""
        if self.over:
            call()
            return
        answered = False

        def look(late: bool = False) -> None:
            nonlocal answered
            if not answered and (late or self.over):
                answered = True
                timer.cancel()
                call()

        timer = asyncio.get_running_loop().call_later(COUNT_S, look, True)
        for each in self._removals:
            if each.left:
                each.then(look)
        if self._waiting:
            self._marked.append(look)


def names_of(worker: WorkerContext, asked: Purge) -> list[Purge]:
    """A purge under every key that it has here."""
    if asked.kind is not PurgeKind.URL:
        return [asked]
    return [replace(asked, value=key) for key in keys_of(worker, asked.value)]


def keys_of(worker: WorkerContext, url: bytes) -> list[bytes]:
    """The keys that a URL may be stored under, without what fields add to them."""
    scheme, _, rest = uri_of(url).partition(b"://")
    authority, slash, path = rest.partition(b"/")
    target = slash + path or b"/"
    found: list[Rules | None] = [route.rules for route in worker.router.all(authority, target)]
    keys = [uri_of(url)]
    for each in (scheme, *(other for other in DEFAULT_PORTS if other != scheme)):
        bare = authority.removesuffix(b":" + DEFAULT_PORTS.get(each, b""))
        plain = b"%b://%b%b" % (each, bare, target)
        for rules in found or [None]:
            key = plain if rules is None else uri_of(cache_key(each, bare, target, rules, _NO_FIELDS))
            if key not in keys:
                keys.append(key)
    return keys


def purged(worker: WorkerContext, asked: Purge, position: int | None) -> None:
    """A purge was carried out here: at its place in the fleet's stream, or not in there yet."""
    store = worker.store
    if store is None or store.shared is None:
        return
    view, names = store.shared.view, names_of(worker, asked)
    if position is not None:
        view.record(StreamPurge(position, names, time()))
        return
    for name in names:
        view.invalidated(name, monotonic())


async def purged_everywhere(worker: WorkerContext, asked: Purge) -> tuple[int, bool]:
    """Purge on somebody's behalf who is answered when no worker serves it any more: how many responses there were in
    this one, and whether all others have heard of it."""
    purging, told = Purging(worker, asked), True
    purged(worker, asked, None)
    if worker.store is not None and worker.store.spread is not None:
        try:
            async with asyncio.timeout(SPREAD_S):
                await worker.store.spread(asked)
        except (EdgeError, TimeoutError):
            told = False
    over = asyncio.Event()
    purging.then(over.set)
    await over.wait()
    return purging.count or 0, told


def obey(exchange: Exchange) -> None:
    """PURGE of a client that may: answered when it is in force in every worker."""
    url = b"%b://%b%b" % (exchange.scheme, exchange.authority, exchange.target)

    def answer(done: asyncio.Task[tuple[int, bool]]) -> None:
        if exchange.ended:  # its client may have left meanwhile
            return
        try:
            count, told = done.result()
            status, more = (200, "") if told else (503, " here; other workers could not be told")
            exchange.reply(status, b"Content-Type: text/plain\r\n", f"purged {count}{more}\n".encode())
        except Exception as error:
            exchange.fail(outcome_of(error, exchange.worker.report_bug))

    asyncio.ensure_future(purged_everywhere(exchange.worker, Purge(PurgeKind.URL, url))).add_done_callback(answer)

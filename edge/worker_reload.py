"""A worker's side of a reload: the next graph is built in a thread, beside what runs, and taken on when all have it.

    PREPARE ─► read, build, open certificates ─► ACK       COMMIT ─► swapped in one turn ─► listeners ─► ACK
                                                           ABANDON, or another PREPARE ─► forgotten

One rule: until COMMIT nothing that serves is touched, so whatever fails before it changes nothing. While the thread
works, it gives the interpreter back every half millisecond; what can be compared or let go of apart from the swap is:
requests do not notice.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from edge.adapters.listener_tls import ListenerTls
from edge.app import listeners_tls, open_listeners, reloaded_graph
from edge.config.listening import places
from edge.config.loader import Config
from edge.control.packing import unpack
from edge.dataplane.core.route import Route
from edge.dataplane.worker.collector import NEVER
from edge.dataplane.worker.graph import Graph
from edge.dataplane.worker.worker import Worker
from edge.errors import EdgeError

SWITCH_S = 0.0005
YOUNG, MIDDLE = 2_000, 1  # of `gc.set_threshold`: a few objects at a time, and not the whole graph at its end
FREED_IN_A_TURN = 8


class NotPrepared(EdgeError):
    """The worker has nothing of that number to swap to."""


@dataclass(slots=True)
class Next:
    """What is ready to be taken on."""

    number: int
    config: Config
    graph: Graph
    secure: dict[str, ListenerTls]
    sockets: dict[str, list[socket.socket]]


class WorkerReload:
    """One worker's. `take` gives the sockets of listeners, which came before the frame that names them."""

    def __init__(
        self, worker: Worker, config: Config, take: Callable[[int], list[socket.socket]] | None = None
    ) -> None:
        self._worker = worker
        self._config = asked_later(config)
        self._take = take
        self._next: Next | None = None
        self._swapped: Next | None = None

    async def prepare(self, body: dict[str, Any]) -> None:
        """Build what the frame holds. Raises ConfigError, OSError."""
        self.abandon()
        names = body.get("listeners", [])
        sockets = by_name(names, self._take(len(names)) if self._take is not None else [])
        try:
            with polite():
                config, graph, secure = await asyncio.to_thread(self._build, body["config"])
        except BaseException:
            close_all(sockets)
            raise
        self._next = Next(body["number"], config, graph, secure, sockets)

    def _build(self, packed: str) -> tuple[Config, Graph, dict[str, ListenerTls]]:
        config = unpack(packed)
        made = reloaded_graph(config, self._config, self._worker, self._worker.lasting)
        made.router.compare(self._worker.router)
        return asked_later(config), made, listeners_tls(config, self._worker.lasting.tickets)

    async def renew_certificates(self) -> None:
        """New connections are shown what the files hold now. Raises ConfigError: those before go on being shown."""
        config = self._config
        for name, _, https in places(config.listen):
            listener = self._worker.listeners.get(name)
            if https is not None and listener is not None and listener.tls is not None:
                with polite():
                    await asyncio.to_thread(listener.tls.show, https.pems(config.state.path))

    def abandon(self) -> None:
        """Forget what was prepared."""
        found, self._next = self._next, None
        if found is not None:
            close_all(found.sockets)
            if found.graph.log is not None:
                found.graph.log.close()
            tracing = found.graph.tracing
            if tracing is not None and tracing is not self._worker.tracing:
                tracing.sink.close()

    def swap(self, number: int, kept: Mapping[str, Collection[str]]) -> None:
        """Serve by it from the next request on. Raises NotPrepared."""
        found, self._next = self._next, None
        if found is None or found.number != number:
            raise NotPrepared("this worker did not prepare it")
        before = self._worker.router
        self._worker.use(found.graph, kept)
        self._config, self._swapped = found.config, found
        self._worker.turns.later(partial(self._let_go, before.let_go(), found.graph))

    def _let_go(self, routes: list[Route], graph: Graph) -> None:
        """What nobody uses any more, a few at a time: the routes before, and the pools that were made to be merged."""
        for each in (routes, graph.unused):
            del each[-FREED_IN_A_TURN:]
        if routes or graph.unused:
            self._worker.turns.later(partial(self._let_go, routes, graph))

    async def settle(self) -> list[tuple[str, int]]:
        """Open the listeners that are new, let go of those that are not in the file any more; those that are bound."""
        found, self._swapped = self._swapped, None
        assert found is not None  # `swap` came just before
        bound = await open_listeners(self._worker, found.config, found.secure, found.sockets)
        wanted = {place.name for place in places(found.config.listen)}
        for name in [name for name in self._worker.listeners if name not in wanted]:
            await self._worker.close_listener(name)
        return bound


def by_name(names: Sequence[str], sockets: Sequence[socket.socket]) -> dict[str, list[socket.socket]]:
    """The sockets of each listener; a name stands once for each of its sockets. None: the worker binds for itself."""
    found: dict[str, list[socket.socket]] = {}
    for name, sock in zip(names, sockets, strict=bool(sockets)):
        found.setdefault(name, []).append(sock)
    return found


def close_all(sockets: Mapping[str, Sequence[socket.socket]]) -> None:
    """Close sockets that a reload opened and does not need."""
    for sock in (sock for found in sockets.values() for sock in found):
        sock.close()


def asked_later(config: Config) -> Config:
    """What the next reload asks of this one: the rest would be let go of in one turn."""
    return config.model_copy(update={"routes": (), "pools": {}, "regions": {}})


@contextmanager
def polite() -> Iterator[None]:
    """While a thread of this process builds: the loop has its turn soon, and no collection stops everything."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(min(interval, SWITCH_S))
    gc.set_threshold(YOUNG, MIDDLE, NEVER)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)

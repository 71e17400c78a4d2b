"""How client connections end when they are not to go on: all of a worker that stops, or those of a listener or route
that left the configuration.

    a request runs           it ends; its answer says `Connection: close` where its head is not out yet
    silent for a moment      closed; before that, its next request may be on its way, and is answered
    HTTP/2                   GOAWAY; the streams that run are finished
    WebSocket                a Close frame with 1001 between two frames, both ways
    another tunnel           goes on until the grace time is over

One rule: nothing that a client has sent is left without an answer for as long as the grace time allows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from functools import partial
from time import monotonic
from typing import Protocol

from edge.dataplane.client.accepted import Accepted
from edge.dataplane.client.connection import ClientConnection
from edge.dataplane.client.http2_life import Http2Life
from edge.dataplane.core.limits import WorkerLimits
from edge.dataplane.core.turns import Turns
from edge.dataplane.worker.listener import Listener
from edge.dataplane.worker.standstill import Standstill

LOOK_S = 0.1
DRAINED_IN_A_TURN = 32


class Drainable(Protocol):
    """A worker with its connections."""

    draining: bool

    @property
    def limits(self) -> WorkerLimits: ...
    @property
    def listeners(self) -> Mapping[str, Listener]: ...
    @property
    def downstreams(self) -> set[Accepted]: ...
    @property
    def leaving(self) -> dict[Accepted, float]: ...  # those that end though the worker goes on, since when
    @property
    def turns(self) -> Turns: ...
    @property
    def drained(self) -> asyncio.Event: ...  # no connection is left


async def drain(worker: Drainable, grace_s: float, left: Callable[[], None]) -> None:
    """Accept no more, then call `left`; every connection ends. Returns when none is there or the time is over."""
    for listener in worker.listeners.values():
        await listener.leave()
    worker.draining = True
    left()
    until = monotonic() + grace_s
    standstill = Standstill(LOOK_S)
    while worker.downstreams and (now := monotonic()) < until:
        if not standstill.over(now):
            worker.turns.each(worker.downstreams, partial(_drain, worker, now), DRAINED_IN_A_TURN)
        try:
            async with asyncio.timeout(min(LOOK_S, until - now)):
                await worker.drained.wait()
        except TimeoutError:
            pass  # look again


def _drain(worker: Drainable, now: float, downstream: Accepted) -> None:
    if downstream in worker.downstreams:  # when its turn comes, too
        downstream.drain(now)


def look_after(worker: Drainable, now: float) -> None:
    """On each tick, where connections are to end though the worker goes on."""
    worker.turns.each(worker.leaving, partial(_look_after, worker, now), DRAINED_IN_A_TURN)


def _look_after(worker: Drainable, now: float, downstream: Accepted) -> None:
    since = worker.leaving.get(downstream)
    if since is None:
        return
    downstream.drain(now)
    if now - since >= worker.limits.grace:
        downstream.abort()


def leave_routes(worker: Drainable, gone: Collection[str], now: float) -> None:
    """Routes left the configuration: the tunnels on them end, requests that run do so by themselves."""
    for downstream in worker.downstreams:
        if isinstance(downstream, ClientConnection):
            tunnel = downstream.tunnel
            if tunnel is not None and tunnel.route.name in gone:
                worker.leaving[downstream] = now
                tunnel.go_away(always=True)
        elif isinstance(downstream, Http2Life):
            downstream.leave_routes(gone)

"""A fetch as the other parts of this room see it: what retries, hedges, queues and bound connections ask of one.

One rule: it is all that they may ask. `fetch.Fetch` is the only one of its kind; it stands above those parts, which
therefore know it by this alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from edge.balance.backend import Backend
from edge.errors import UpstreamError
from edge.http.grammar import ResponseFacts
from edge.http.proxy_protocol import ClientEnds
from edge.ports import Connection, Link

if TYPE_CHECKING:
    from edge.dataplane.core.exchange import Exchange
    from edge.dataplane.core.route import Route, RunningPool


class Attempting(Protocol):
    """A fetch, as retries, hedges, queues and bound connections use it."""

    exchange: Exchange
    route: Route
    pool: RunningPool
    lines: bytes  # the client's end-to-end fields
    backend: Backend | None
    link: Link
    connection: Connection | None
    began_at: float
    attempts: int
    hedges_lost: int
    tried: tuple[Backend, ...]
    beside: Any  # the `hedge.Hedge` that runs beside this attempt; None: there is none
    canceled: bool
    head_passed: bool
    fresh_only: bool
    validates: bool
    patient: bool
    error: UpstreamError | None
    queued_until: float
    rounds: int
    rounds_until: float
    uncounted: int

    @property
    def client(self) -> ClientEnds: ...
    @property
    def settles(self) -> float: ...
    def settle(self, now: float) -> None: ...
    def use(self, backend: Backend, now: float, connection: Connection | None = None) -> None: ...
    def let_go(self, now: float, cancel: bool = True) -> None: ...
    def give_up(self, error: UpstreamError) -> None: ...
    def adopt(self, hedge: Any) -> None: ...
    def on_connected(self, connection: Connection) -> None: ...
    def on_head(self, facts: ResponseFacts, length: int | None, body: bytes, done: bool) -> None: ...
    def on_failed(self, error: UpstreamError) -> None: ...
    def on_bug(self, error: Exception) -> None: ...

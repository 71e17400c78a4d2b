"""The connections to an application: as to any backend, but that they know when its handler is done.

    handler begins ─► answer … whole ─► (handler goes on) ─► handler ends ─► the connection may carry the next request

One rule: a connection is kept for the next request only when the answer is whole and the handler has ended. A handler
that ends without a whole answer has broken it, and who waits hears of it at once, not after a deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf

from edge.adapters.app_faults import CLOSED, LATE, LENGTH, Faults
from edge.adapters.backend_link import BackendLink
from edge.adapters.memory_link import MemoryLink
from edge.adapters.memory_transport import MemoryTransport
from edge.adapters.upstream_connection import Phase, UpstreamConnection
from edge.errors import Repeat, ResponseIncomplete, UpstreamError
from edge.http.grammar import Limits, ResponseFacts
from edge.http.memo import Memo
from edge.ports import Timeouts
from edge.sdk import Edge

_UNANSWERED = (Phase.HEAD, Phase.LENGTH, Phase.CHUNKED, Phase.CLOSE)


class AppBroke(UpstreamError):
    """The application's handler ended without an answer. It would do so again, so nobody waits for it to come back."""

    proxy_status = "connection_terminated"
    repeat = Repeat.IDEMPOTENT


class AppConnection(UpstreamConnection):
    """One connection to an application. `begins` and `ends` are its guard's to call."""

    __slots__ = ("_closed", "_parked", "_seen", "_unsettled", "handling", "server", "told")

    def __init__(self, link: AppLink) -> None:
        super().__init__(link)
        self.handling = False
        self._seen: Edge | None = None  # the request, as the application sees it
        self.server: MemoryTransport = None  # type: ignore[assignment]  # its end, set before it is asked for
        self._parked = False  # the answer was whole before the handler ended
        self._unsettled = False  # the handler has ended, and its answer is on the way
        self._closed = False  # before its answer was whole, by the application
        self.told = False  # what went wrong with this request is among the events already

    @property
    def app(self) -> AppLink:
        """The link, typed as an application's."""
        assert isinstance(self.link, AppLink)
        return self.link

    @property
    def request_id(self) -> str:
        """The id of the request that the handler works on, or worked on last."""
        return "" if self._seen is None else self._seen.request_id

    def begins(self, server: MemoryTransport, seen: Edge) -> None:
        """The handler begins; `server` is its end of the connection."""
        self.handling, self.told = True, False
        self.server, self._seen = server, seen

    def ends(self, well: bool) -> None:
        """The handler has ended; `well`: by returning."""
        self.handling = False
        if self._parked:
            self._parked = False
            if well:
                self.link.give_back(self)
            else:
                self.cancel()
        elif self.phase in _UNANSWERED:
            self._closed = self.server.ended_here
            self._unsettled = True
            self.server.when_delivered(self._settle)

    def given_back(self) -> bool:
        """Whether it may carry the next request: its answer is whole, but the handler may run on."""
        if self.handling:
            self._parked = True
            self.deadline = inf  # how long a handler may run is its time limit's to say
            return False
        self._unsettled = False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if self.handling:
            self._closed = self.server.ended_here
        if self.handling or self._unsettled:
            self._break_off()
        super().connection_lost(exc)

    def _settle(self) -> None:
        """All that the handler wrote has arrived."""
        if self._unsettled:
            self._break_off()

    def _break_off(self) -> None:
        """Who waits for an answer hears that it will not be whole."""
        self._unsettled = False
        if self.sink is None or self.phase not in _UNANSWERED:
            return
        if not self.told:
            self.told = True
            evidence = "closed its connection before its answer was whole"
            if not self._closed:
                evidence = "its answer is shorter than announced"
            self.app.faults.add(CLOSED if self._closed else LENGTH, self.request_id, evidence)
        begun = self.phase is not Phase.HEAD
        self._fail(ResponseIncomplete("the application broke off") if begun else AppBroke("the application broke off"))


class AppLink(MemoryLink):
    """The connections to one backend that is an application. `time_limit`: seconds for a handler; 0 = none."""

    __slots__ = ("faults", "time_limit")

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        timeouts: Timeouts,
        limits: Limits,
        memo: Memo[ResponseFacts],
        faults: Faults,
        time_limit: float = 0.0,
    ) -> None:
        super().__init__(make, timeouts, limits, memo)
        self.faults = faults
        self.time_limit = time_limit

    def new_connection(self) -> UpstreamConnection:
        return AppConnection(self)

    def give_back(self, connection: UpstreamConnection) -> None:
        assert isinstance(connection, AppConnection)
        if connection.given_back():
            super().give_back(connection)

    def renew(self, other: BackendLink) -> bool:
        if not (isinstance(other, AppLink) and super().renew(other)):
            return False
        self.time_limit = other.time_limit
        return True

    def tick(self, now: float) -> None:
        """Expire what missed its deadline, and tell of it when it is the application that did."""
        for connection in [c for c in self.connections if c.deadline <= now and c.sink is not None]:
            assert isinstance(connection, AppConnection)
            if connection.phase in _UNANSWERED:
                connection.told = True
                waits = "no answer" if connection.phase is Phase.HEAD else "its answer stalled"
                self.faults.add(LATE, connection.request_id, f"{waits} in time")
            connection.expire()
        super().tick(now)

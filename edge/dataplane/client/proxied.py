"""A connection that has to begin with a PROXY header: what its sender tells is whose it is from then on.

    accept ─► from a listed sender? ─no─► as any connection; a header would be no request: 400
                 └─yes─► header, in time ─► the client's own connection: its limits, then TLS or HTTP

One rule: before the header nothing is served and nothing answered; what is no header, or late, ends the connection and
is counted by reason. Until then it counts towards the limit in all, but not to any client's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from math import inf

from edge.dataplane.client.accepted import Accepted
from edge.dataplane.client.leaving import QUIET_S
from edge.dataplane.core.context import WorkerContext
from edge.dataplane.core.exchange import Exchange
from edge.http.forwarding import Networks
from edge.http.proxy_protocol import Addresses, HeaderInvalid, read_header


class ProxiedConnection(Accepted):
    """A connection that is waiting for its PROXY header. `make` builds the connection that follows."""

    __slots__ = ("_make", "_senders")
    many_clients = True

    def __init__(self, worker: WorkerContext, senders: Networks, make: Callable[[], Accepted]) -> None:
        super().__init__(worker, b"http")
        self._senders = senders
        self._make = make

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.name_peer(transport)
        if self.peer in self._senders:
            self.was_accepted(transport)
        else:
            self._go_on(None, b"")

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        data = self.take_buffer() + data
        try:
            header = read_header(data)
        except HeaderInvalid as error:
            self._refuse(error.word)
            return
        if header is None:
            self._buffer = data
        else:
            self._go_on(header.addresses, data[header.size :])

    def _go_on(self, addresses: Addresses | None, rest: bytes) -> None:
        """The header is complete: continue as a connection of the client that it names."""
        after = self._make()
        after.addresses, after.deadline = addresses, self.deadline
        self.transport.set_protocol(after)  # type: ignore[arg-type]  # a protocol by its methods
        self.worker.make_known(self, after)
        if rest and not self.transport.is_closing():
            after.data_received(rest)

    def _refuse(self, word: str) -> None:
        self.worker.header_errors[word] += 1
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.deadline = inf
        self._buffer = b""
        self.worker.forget_connection(self)

    # -- what the worker asks ------------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        self._refuse("late")

    def look(self, now: float) -> None:
        """Nothing to do: nothing has been written yet."""

    @property
    def asking(self) -> Iterable[Exchange]:
        return ()

    def drain(self, now: float) -> None:
        """No request came yet: end after a moment of silence."""
        if self.deadline - self.worker.limits.header_timeout <= now - QUIET_S:
            self.abort()

    def abort(self, reset: bool = False) -> None:
        self.deadline = inf
        self.transport.abort()

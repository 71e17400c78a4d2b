"""The exchange of one part of a response that is put together (`assembly`): its client is who puts it together.

One rule: it goes the way of any request, and what would be written to a client is told to its taker: the head once,
pieces of the body, and the end once, with what went wrong where it is not whole.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Protocol

from edge.dataplane.caching.follower import Follower
from edge.dataplane.caching.refresh import BackgroundClient
from edge.dataplane.core.body_mode import LENGTH
from edge.dataplane.core.exchange import Exchange
from edge.dataplane.upstream.request_head import forwarding_lines
from edge.errors import ClientGone, EdgeError
from edge.http.grammar import Framing, RequestHeaders, ResponseFacts
from edge.http.message import Fields, Line

if TYPE_CHECKING:
    from edge.dataplane.core.route import Route


class Taker(Protocol):
    """Who receives the part (`assembly.Assembly`)."""

    def part_head(self, part: PartExchange, wire: bytes) -> None: ...
    def part_data(self, part: PartExchange, data: bytes | bytearray) -> None: ...
    def part_over(self, part: PartExchange) -> None: ...


class PartClient(BackgroundClient):
    """The client side of a part's exchange: no connection, never slow."""

    def __init__(self, exchange: Exchange, taker: Taker) -> None:
        self._taker = taker
        super().__init__(exchange.worker, exchange.scheme)
        self.paused = exchange.downstream.paused  # from then on its taker says so
        self.forward_lines = (exchange.host or b"", forwarding_lines(exchange))

    def exchange_ended(self, keep: bool) -> None:
        """The part's exchange is over."""
        part, self.exchange = self.exchange, None
        if isinstance(part, PartExchange):
            self._taker.part_over(part)


class PartExchange(Exchange):
    """The exchange of one part. `is_http11` is false: no interim answers, no chunks, no coding."""

    def __init__(self, of: Exchange, taker: Taker, route: Route, block: RequestHeaders, apart: bytes) -> None:
        client = PartClient(of, taker)
        super().__init__(client, b"GET", of.target, False, block)  # type: ignore[arg-type]  # stands for a ClientConnection
        client.exchange = self
        self.taker = taker
        self.route, self.counted = route, False
        self.host, self.told, self.client = of.host, of.told, of.client
        self.identity, self.granted, self.changes = of.identity, of.granted, of.changes
        self.apart = of.apart + apart
        self.failure: EdgeError | None = None  # it is not whole

    def head(self, facts: ResponseFacts, length: int | None, body: bytes, done: bool) -> None:
        """The head of a backend's answer, for this part alone."""
        self.head_at = monotonic()
        wire = self.open(facts.status, facts.wire, length, facts.framing is Framing.NONE)
        self.begin(wire, b"", facts.has_date)
        if body:
            self.body(body)
        if done:
            self.end()

    def begin(self, wire: bytes, lines: bytes, has_date: bool) -> None:
        """The head of a stored or shared part, whose body follows."""
        self.taker.part_head(self, wire + lines)

    def respond(self, wire: bytes, lines: bytes, chunks: tuple[bytes, ...], length: int) -> None:
        """A complete part."""
        self.begin(wire, lines, True)
        for data in chunks:
            self.taker.part_data(self, data)

    def body(self, data: bytes | bytearray) -> None:
        """A piece of the part's body."""
        self.bytes_out += len(data)
        self.taker.part_data(self, data)

    def end(self, trailers: list[Line] | None = None) -> None:
        """The part is complete."""
        if self.mode == LENGTH and self.bytes_out != self.expected:
            self.broken(EdgeError("body and length disagree"))
        else:
            self.finish()

    def has_all(self) -> None:
        """Whether the taker wants no more of it; a fill that stores it goes on."""
        if isinstance(self.follower, Follower) and self.follower.fill is not None:
            self.follower.has_all()
        elif not self.ended:
            self.client_gone(ClientGone("not wanted"))

    def fail(self, error: EdgeError) -> None:
        """The part cannot be had; nothing of it was delivered."""
        if not self.ended:
            self.broken(error)

    def broken(self, error: EdgeError) -> None:
        """The part broke off after its head."""
        self.error, self.failure = error.proxy_status, error
        self._release(error)
        self.finish()


def fields_of(wire: bytes) -> Fields:
    """Parse the field lines of a head that we wrote."""
    return Fields(
        (name, value) for name, colon, value in (raw.partition(b": ") for raw in wire.split(b"\r\n")[1:]) if colon
    )

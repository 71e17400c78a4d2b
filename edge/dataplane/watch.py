"""One client of a fill: where it stands in the body, and what it does when the flight it waits for takes a turn.

One rule: a watch is settled once. Until it has begun its response it can be told to attach, to lead or to go alone
(`cache.flights.Party`); after that it only takes the body, or breaks off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.cache.flights import Flight, Why
from edge.cache.policy import Decision
from edge.cache.stored import Stored
from edge.cache.verdict import Verdict, forward
from edge.errors import EdgeError
from edge.http.cache_status import forwarded, line
from edge.http.grammar import Framing, ResponseFacts
from edge.http.message import RequestHead

if TYPE_CHECKING:
    from edge.cache.stored import Plan
    from edge.dataplane.exchange import Exchange
    from edge.dataplane.fill import Fill


class Watch:
    """An exchange that gets its response from a fill, its own or another's."""

    __slots__ = ("at", "decision", "exchange", "fill", "flight", "request", "variants", "vary_names")

    def __init__(
        self, exchange: Exchange, request: RequestHead, decision: Decision, variants: tuple[Stored, ...]
    ) -> None:
        self.exchange = exchange
        self.request = request
        self.decision = decision
        self.variants = variants
        self.at = 0  # pieces of the fill's body that were written
        self.fill: Fill | None = None
        self.flight: Flight | None = None
        self.vary_names: tuple[bytes, ...] = ()  # what the response to a shared fetch turned out to vary by

    # -- cache.flights.Party ---------------------------------------------------------------------------------------

    def on_attach(self, flight: Flight) -> None:
        """Somebody fetches what answers this request too: take it as it streams."""
        fill: Fill = flight.stream  # type: ignore[assignment]  # only fills set it
        self.fill = fill
        exchange = self.exchange
        exchange.verdict = Verdict.COLLAPSED.value
        fill.join(self)

    def on_lead(self, flight: Flight) -> None:
        """The leader failed: fetch, for those who still wait as well."""
        from edge.dataplane.fill import Fill

        Fill(self, flight).start()

    def on_alone(self, why: Why) -> None:
        """Nobody else's fetch helps: fetch without regard to others, or look again with what is known now."""
        from edge.dataplane.fill import Fill
        from edge.dataplane.lookup import look_again

        self.flight = None
        if why is Why.OTHER_VARIANT:
            look_again(self)
            return
        self.exchange.reason = why.value
        Fill(self, None).start()

    # -- the response ----------------------------------------------------------------------------------------------

    def begin(self, facts: ResponseFacts, wire: bytes, length: int | None, cache_status: bytes) -> None:
        """Write the head; the body follows by `pump`."""
        exchange = self.exchange
        exchange.cache_status = cache_status
        if facts.status == 101:  # a tunnel is never a fill's: the request would have bypassed the cache
            exchange.fail(EdgeError("unexpected upgrade"))
            return
        head = exchange.open(facts.status, wire, length, facts.framing is Framing.NONE)
        exchange.front.transport.write(head + exchange.own_lines(facts.has_date))

    def pump(self) -> None:
        """Write what the client takes of what is there; end the response at the end of a whole body."""
        fill, exchange = self.fill, self.exchange
        if fill is None or exchange.ended or fill.facts is None or not exchange.begun:
            return
        chunks, front = fill.chunks, exchange.front
        while self.at < len(chunks) and not front.paused:
            exchange.body(chunks[self.at])
            self.at += 1
        if fill.whole and self.at == len(chunks):
            exchange.watch = None
            fill.watches.remove(self)
            exchange.end(fill.trailers)

    def resumed(self) -> None:
        """The client takes more; the fill may go on dropping pieces."""
        if self.fill is not None:
            self.fill.pump()

    def leave(self, error: EdgeError) -> None:
        """The client has gone, or its exchange failed."""
        fill, flight = self.fill, self.flight
        if fill is not None:
            fill.leave(self, error)
        elif flight is not None:
            self.exchange.worker.store.flights.leave(flight, self)  # type: ignore[union-attr]  # a flight has a store


def stored_wire(plan: Plan) -> bytes:
    """The head that others than the one who asked get: the lines that are stored, and no Set-Cookie of another's."""
    lines = plan.fields.without(_OURS).encode()
    sized = b"" if plan.length is None else b"Content-Length: %d\r\n" % plan.length
    return b"HTTP/1.1 %d %b\r\n%b%b" % (plan.status, plan.reason, lines, sized)


_OURS = frozenset((b"content-length", b"cache-status"))


def collapsed_status(decision: Decision, ttl: float) -> bytes:
    """Cache-Status of one who waited for another's fetch."""
    return line(forwarded(forward(decision.reason), stored=True, collapsed=True, ttl_s=ttl))

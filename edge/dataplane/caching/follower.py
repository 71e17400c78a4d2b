"""One client of a fill: where it stands in the body, and what it does when the flight it waits for takes a turn.

One rule: a follower is settled once. Until it has begun its response it can be told to attach, to lead or to go alone
(`cache.flights.FollowerCallbacks`); after that it only takes the body, or breaks off.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge.cache.flights import Flight, Why
from edge.cache.policy import Decision
from edge.cache.stored import Stored
from edge.cache.verdict import Action, Verdict
from edge.dataplane.caching.pieces import Stream, resumed
from edge.dataplane.caching.response_start import ResponseStart
from edge.dataplane.core.body_mode import NO_BODY
from edge.dataplane.core.error_response import status_line
from edge.errors import EdgeError
from edge.http.conditional import CONDITIONS, AnswerKind, answer, failed_fields, not_modified_fields
from edge.http.credentials import CERTIFICATE_NAMES
from edge.http.message import RequestHead

if TYPE_CHECKING:
    from edge.dataplane.core.exchange import Exchange


@dataclass(frozen=True, slots=True)
class LookupResult:
    """The client's request, the look-up's decision, and the variants that it decided on."""

    request: RequestHead
    decision: Decision
    variants: tuple[Stored, ...] = ()


def request_of(exchange: Exchange) -> RequestHead:
    """The request as decisions see it, with fields that the route's rules add and an origin may vary by."""
    fields, outbound = exchange.block.fields, exchange.routed.outbound
    if outbound is not None and outbound.varying is not None:
        fields = outbound.varying.seen(exchange, fields)
    certificate = exchange.downstream.certificate
    if certificate is not None:  # with `auth`, what is stored is kept apart by it
        fields = fields.without(CERTIFICATE_NAMES) if exchange.granted else certificate.seen(fields)
    return RequestHead(
        exchange.method,
        exchange.scheme,
        exchange.authority,
        exchange.target,
        fields,
        exchange.behind if exchange.told is not None else b"",
        exchange.apart,
    )


@dataclass(frozen=True, slots=True)
class FollowerCallbacks:
    """What a follower does when it has to go on by itself. `fetch` leads the flight, or goes alone without one."""

    fetch: Callable[[Follower, Flight | None], None]
    look_again: Callable[[Follower], None]


class Follower:
    """An exchange that gets its response from a fill, its own or another one's."""

    __slots__ = (
        "_turns",
        "asked",
        "at",
        "exchange",
        "fill",
        "flight",
        "flight_key",
        "looked_again",
        "seq",
        "vary_names",
    )

    def __init__(self, exchange: Exchange, asked: LookupResult, turns: FollowerCallbacks, seq: int) -> None:
        self.exchange = exchange
        self.asked = asked
        self.seq = seq  # the purge sequence when it was asked: what was purged before that is not for it
        self.at = 0  # pieces of the fill's body that were written
        self.fill: Stream | None = None
        self.flight: Flight | None = None
        self.flight_key: Hashable = None
        self.vary_names: tuple[bytes, ...] = ()  # what the response to a shared fetch turned out to vary by
        self.looked_again = False
        self._turns = turns

    # -- cache.flights.Party ---------------------------------------------------------------------------------------

    def on_attach(self, flight: Flight) -> None:
        """Another request's fetch answers this one too: join its stream."""
        fill: Stream | None = flight.stream  # type: ignore[assignment]  # only fills set it
        if fill is None:  # it ended before this turn came
            self.on_alone(Why.OTHER_VARIANT)
            return
        self.fill = fill
        exchange = self.exchange
        exchange.verdict = Verdict.COLLAPSED.value
        fill.join(self)

    def on_lead(self, flight: Flight) -> None:
        """The leader failed: fetch, also for those who still wait."""
        self._turns.fetch(self, flight)

    def on_alone(self, why: Why) -> None:
        """No shared fetch helps: look up once more with what is known now, or fetch alone."""
        self.flight = self.fill = None
        if why is Why.OTHER_VARIANT and not self.looked_again:
            self.looked_again = True
            self._turns.look_again(self)
            return
        if why is not Why.OTHER_VARIANT:
            self.exchange.reason = why.value
        if self.exchange.fetched_as and why is not Why.SLOW:  # nothing would be stored: a HEAD as it came
            self.exchange.fetched_as = b""
            self.asked = replace(self.asked, request=replace(self.asked.request, method=b"HEAD"))
        self._turns.fetch(self, None)

    # -- the response ----------------------------------------------------------------------------------------------

    def begin(self, response_start: ResponseStart, cache_status: bytes) -> None:
        """Write the head, after the client's own conditions; the body follows by `pump`."""
        exchange = self.exchange
        exchange.cache_status = cache_status
        if response_start.status == 101:  # a tunnel is never a fill's: the request would have bypassed the cache
            exchange.fail(EdgeError("unexpected upgrade"))
        elif not self._answered_shortly(response_start):
            start, bodies = response_start, exchange.routed.bodies
            if bodies is not None:
                alone = self.fill is not None and self.fill.exchange is exchange  # others read it as it is
                head = (start.wire, start.fields, start.dated)
                bodies.start(exchange, start.status, head, start.length, start.bodiless, alone)
            else:
                wire = exchange.open(start.status, start.wire, start.length, start.bodiless)
                exchange.begin(wire, b"", start.dated)
            if exchange.fetched_as and not exchange.ended:  # a HEAD: the body is for the store alone
                self.has_all()

    def _answered_shortly(self, response_start: ResponseStart) -> bool:
        """304 or 412 where the client's conditions say so and ours went to the origin in their place."""
        asked = self.asked
        if asked.decision.act is not Action.REVALIDATE or CONDITIONS.isdisjoint(asked.request.fields.names()):
            return False
        kind = answer(asked.request, response_start.status, response_start.fields, 0, 0).kind
        if kind is AnswerKind.NOT_MODIFIED:
            status, fields = 304, not_modified_fields(response_start.fields)
        elif kind is AnswerKind.PRECONDITION_FAILED:
            status, fields = 412, failed_fields(response_start.fields)
        else:
            return False
        exchange = self.exchange
        exchange.status, exchange.mode = status, NO_BODY
        exchange.begin(status_line(status), fields.encode(), b"date" in fields)
        self.has_all()
        return True

    def has_all(self) -> None:
        """Whether the response is complete, however long the rest of the body is."""
        fill = self.fill
        self.exchange.follower = self.fill = self.flight = None
        self.exchange.finish()
        if fill is not None:
            fill.leave(self, None)

    def pump(self) -> None:
        """Write as much of the available body as the client accepts; end the response after the last piece."""
        fill, exchange = self.fill, self.exchange
        if fill is None or exchange.ended or not exchange.begun:
            return
        chunks, downstream = fill.chunks, exchange.downstream
        while self.at < len(chunks) and not downstream.paused:
            exchange.body(chunks[self.at])
            self.at += 1
        if fill.whole and self.at == len(chunks):
            exchange.follower = self.fill = self.flight = None
            fill.followers.pop(self, None)
            exchange.end(fill.trailers)

    def resumed(self) -> None:
        """The client accepts more; the fill may be able to drop pieces."""
        if self.fill is not None:
            resumed(self.fill, self)

    def leave(self, error: EdgeError) -> None:
        """The client left, or its exchange failed; the fetch ends if nobody else wants it."""
        fill, flight = self.fill, self.flight
        self.fill = self.flight = None  # what has left holds no body
        if flight is not None:
            fill = fill or flight.stream  # type: ignore[assignment]  # only fills set it
            store = self.exchange.worker.store
            assert store is not None  # else it had no flight
            store.flights.leave(flight, self)
        if fill is not None:
            fill.leave(self, error)

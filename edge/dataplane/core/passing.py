"""The way of a body to its client where the route compresses it or limits its rate: first the coder, then the pace.

One rule: the order is kept. The end is written when all bytes before it are; a stage that holds bytes back delays it.
"""

from __future__ import annotations

from typing import Protocol

from edge.http.message import Line


class Passage(Protocol):
    """One stage: the coder (`rules.body_coder`) or the pace (`rules.bandwidth`). A stage may hold bytes back. If
    `may_end` was false, it calls `end` of the exchange again, with the same trailers, when they are sent."""

    def body(self, data: bytes | bytearray) -> None: ...
    def may_end(self, trailers: list[Line] | None) -> bool: ...
    def paused(self) -> None: ...
    def resumed(self) -> bool: ...


class Outgoing(Protocol):
    """What this file needs of an exchange."""

    coder: Passage | None
    pace: Passage | None


def passed(exchange: Outgoing, data: bytes | bytearray) -> None:
    """Give a piece of the body to the first stage."""
    first = exchange.coder or exchange.pace
    if first is not None and data:
        first.body(data)


def ended(exchange: Outgoing, trailers: list[Line] | None) -> bool:
    """Whether the end may be written now."""
    if exchange.coder is not None:
        if not exchange.coder.may_end(trailers):
            return False
        exchange.coder = None
    return exchange.pace is None or exchange.pace.may_end(trailers)


def paused(exchange: Outgoing) -> None:
    """The client reads slowly."""
    if exchange.coder is not None:
        exchange.coder.paused()
    if exchange.pace is not None:
        exchange.pace.paused()


def resumed(exchange: Outgoing) -> bool:
    """The client accepts more. Returns whether the source may go on."""
    if exchange.pace is not None and not exchange.pace.resumed():
        return False
    return exchange.coder is None or exchange.coder.resumed()

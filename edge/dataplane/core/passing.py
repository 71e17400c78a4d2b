"""What a body passes on its way out where its route codes or paces it: first the coder, then the pace.

One rule: nothing overtakes. The end goes out when all that came before it has gone; who holds it back says so.
"""

from __future__ import annotations

from typing import Protocol

from edge.dataplane.rules.codings import Coder
from edge.http.message import Line


class Pace(Protocol):
    """Limits the rate of one response's body (`rules.bandwidth`)."""

    def body(self, data: bytes | bytearray) -> None: ...
    def may_end(self, trailers: list[Line] | None) -> bool: ...
    def paused(self) -> None: ...
    def resumed(self) -> bool: ...


class Outgoing(Protocol):
    """The exchange, as far as this file uses it."""

    coder: Coder | None
    pace: Pace | None

    def send(self, data: bytes | bytearray) -> None: ...


def passed(exchange: Outgoing, data: bytes | bytearray) -> None:
    """Send a piece of the body through the coder and the pace. A coder may keep bytes for a later piece."""
    if exchange.coder is not None:
        data = exchange.coder.piece(data)
    _sent(exchange, data)


def ended(exchange: Outgoing, trailers: list[Line] | None) -> bool:
    """Whether the end may be written now. If not, the pace asks again when it may."""
    coder, exchange.coder = exchange.coder, None
    if coder is not None:
        _sent(exchange, coder.end())
    return exchange.pace is None or exchange.pace.may_end(trailers)


def _sent(exchange: Outgoing, data: bytes | bytearray) -> None:
    if data and exchange.pace is not None:
        exchange.pace.body(data)
    elif data:
        exchange.send(data)

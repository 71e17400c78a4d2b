"""What a body passes on its way out where its route codes or paces it: first the coder, then the pace.

One rule: nothing overtakes. The end goes out when all that came before it has gone; who holds it back says so.
"""

from __future__ import annotations

from typing import Protocol

from edge.dataplane.rules.codings import Coder
from edge.http.message import Line


class Pace(Protocol):
    """What holds a body back (`rules.bandwidth`)."""

    def body(self, data: bytes | bytearray) -> None: ...
    def may_end(self, trailers: list[Line] | None) -> bool: ...
    def paused(self) -> None: ...
    def resumed(self) -> bool: ...


class Outgoing(Protocol):
    """An exchange, as far as this goes."""

    coder: Coder | None
    pace: Pace | None

    def send(self, data: bytes | bytearray) -> None: ...


def passed(exchange: Outgoing, data: bytes | bytearray) -> None:
    """A piece of the body; what a coder keeps comes with a later one."""
    if exchange.coder is not None:
        data = exchange.coder.piece(data)
    _sent(exchange, data)


def ended(exchange: Outgoing, trailers: list[Line] | None) -> bool:
    """Whether the end may be written now; else it is asked for again when it may."""
    coder, exchange.coder = exchange.coder, None
    if coder is not None:
        _sent(exchange, coder.end())
    return exchange.pace is None or exchange.pace.may_end(trailers)


def _sent(exchange: Outgoing, data: bytes | bytearray) -> None:
    if data and exchange.pace is not None:
        exchange.pace.body(data)
    elif data:
        exchange.send(data)

"""An error in the place of a response whose head must not be written: a hook of the route failed on it.

One rule: nothing of that response is out yet, so the client gets a whole answer and its connection goes on. Whoever is
about to write the rest of it writes to nobody.
"""

from __future__ import annotations

from typing import Any

from edge.dataplane.caching.refresh import BackgroundClient
from edge.dataplane.core.body_mode import NOT_STARTED
from edge.dataplane.core.exchange import Exchange
from edge.errors import EdgeError


class Nobody(BackgroundClient):
    """Discards the rest of a response, of either protocol."""

    def head(self, block: bytes, ends: bool) -> None:
        """Discard a head."""

    def body(self, pieces: Any, ends: bool, trailers: bytes | None = None) -> None:
        """Discard a piece."""


def answer_instead(exchange: Exchange, error: EdgeError) -> None:
    """End the exchange with this error."""
    if exchange.ended:
        return
    exchange.mode, exchange.expected, exchange.bytes_out, exchange.from_store = NOT_STARTED, None, 0, False
    exchange.coder = exchange.pace = None
    exchange.fail(error)
    exchange.downstream = Nobody(exchange.worker, exchange.scheme)  # type: ignore[assignment]  # stands for a connection

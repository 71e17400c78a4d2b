"""`mirror`: a share of a route's requests is sent to another pool as well; what comes of it is for nobody.

One rule: no client ever notices. The copy is sent beside the request and waits for nothing, its answer is read and
dropped, and when more than `MOST` are on their way no further one is sent. A request with a body is not copied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge.dataplane.rules.asked import Asked

MOST = 100
SPAN = 1 << 32
STEP = 2654435769

Send = Callable[[Any, Any, Callable[[], None]], None]  # the exchange, the shadow's route, what to do at its end


class Mirror:
    """A route's rule. `route` is the route again with the shadow's pool; the worker gives it."""

    name = "mirror"

    def __init__(self, pool: str, share: float, send: Send) -> None:
        self.pool = pool
        self._share = round(share * SPAN)
        self._text = f"{share:.0%} to {pool}"
        self._send = send
        self._at = 0
        self._running = 0
        self.routes: tuple[Any, ...] = ()
        self.sent = self.skipped = 0

    def apply(self, exchange: Any) -> None:
        """Send a copy where it is its turn."""
        if exchange.upload is not None:
            return
        self._at = (self._at + STEP) % SPAN
        if self._at >= self._share:
            return
        if self._running >= MOST:
            self.skipped += 1
            return
        self._running += 1
        self.sent += 1
        self._send(exchange, self.routes[0], self._ended)

    def _ended(self) -> None:
        self._running -= 1

    def explain(self, asked: Asked) -> str:
        """For people."""
        return f"{self._text}; {self._running} on their way, {self.skipped} left out in the worker that was asked"

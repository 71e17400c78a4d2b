"""`mirror`: a share of a route's requests is sent to another pool as well; what comes of it is for nobody.

One rule: no client ever notices. The copy is sent beside the request and waits for nothing, its answer is read and
dropped, and when more than `MOST` are on their way no further one is sent. A body is kept until it is whole, for its
copy is sent then; one that turns out larger than `max_body` is let go at that moment, and there is no copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge.dataplane.rules.asked import Asked

MOST = 100  # with the bodies that are being kept
SPAN = 1 << 32
STEP = 2654435769

# The exchange, the shadow's route, the body where there is one, and what to do at its end.
Send = Callable[[Any, Any, bytes | None, Callable[[], None]], None]


class Mirror:
    """A route's rule. `route` is the route again with the shadow's pool; the worker gives it."""

    name = "mirror"

    def __init__(self, pool: str, share: float, max_body: int, send: Send) -> None:
        self.pool = pool
        self._share = round(share * SPAN)
        self._max_body = max_body
        self._text = f"{share:.0%} to {pool}"
        self._send = send
        self._at = 0
        self._running = 0
        self.routes: tuple[Any, ...] = ()
        self.sent = self.skipped = 0

    def apply(self, exchange: Any) -> None:
        """Send a copy if this request belongs to the share."""
        self._at = (self._at + STEP) % SPAN
        if self._at >= self._share:
            return
        upload = exchange.upload
        if exchange.wants_upgrade:
            return  # what comes after it belongs to two; a copy would be a second one that speaks
        if self._running >= MOST or (upload is not None and (upload.length or 0) > self._max_body):
            self.skipped += 1
            return
        self._running += 1
        if upload is None:
            self.send(exchange, None)
        else:
            BodyCopy(self, exchange, self._max_body)

    def send(self, exchange: Any, body: bytes | None) -> None:
        """Send the copy, which counts as running already."""
        self.sent += 1
        self._send(exchange, self.routes[0], body, self._ended)

    def left_out(self) -> None:
        """There is no copy after all: count it as not running."""
        self.skipped += 1
        self._ended()

    def _ended(self) -> None:
        self._running -= 1

    def explain(self, asked: Asked) -> str:
        """What the rule does, for `edge explain`."""
        return f"{self._text}; {self._running} on their way, {self.skipped} left out in the worker that was asked"


class BodyCopy:
    """The body of a request on its way, until it is whole, too large, or its exchange has ended without it."""

    __slots__ = ("_exchange", "_kept", "_mirror", "_most", "_over")

    def __init__(self, mirror: Mirror, exchange: Any, most: int) -> None:
        self._mirror = mirror
        self._exchange = exchange
        self._most = most
        self._kept = bytearray()
        self._over = False
        exchange.at_end(self.ended)
        exchange.upload.copy_to(self.piece)

    def piece(self, data: bytes, is_last: bool) -> None:
        """Add a piece of the body; send the copy with the last one."""
        if self._over:
            return
        if len(self._kept) + len(data) > self._most:
            self.ended()
            return
        self._kept += data
        if is_last:
            self._over = True
            self._mirror.send(self._exchange, bytes(self._kept))
            self._kept.clear()

    def ended(self) -> None:
        """The request ended before its body was complete: there is no copy."""
        if not self._over:
            self._over = True
            self._kept.clear()
            self._mirror.left_out()

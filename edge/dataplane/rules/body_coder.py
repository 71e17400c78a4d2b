"""Compresses a response body while it is forwarded (`compress`), so many bytes in each turn of the event loop.

    piece ─► fits into what is left of this turn's share? ─yes─► compressed and sent
                └─no─► queued, the source is paused ─► in later turns, half a millisecond of each

One rule: one body never blocks the loop for longer than one share takes, however large a piece is. While bytes are
queued, `Downstream.paused` is set, so that the source is paused in the same way as for a slow client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

from edge.dataplane.rules.codings import Coder
from edge.http.message import Line

SHARE_BYTES = 16 * 1024  # 0.15 ms of brotli, 0.4 ms of zlib
TURN_S = 0.0005  # of what is queued


class Sending(Protocol):
    """What this file needs of an exchange. `Any`: its worker, its client side, its pace."""

    coder: Any
    pace: Any

    @property
    def ended(self) -> bool: ...
    @property
    def worker(self) -> Any: ...
    @property
    def downstream(self) -> Any: ...
    def send(self, data: bytes | bytearray) -> None: ...
    def end(self, trailers: list[Line] | None = None) -> None: ...
    def client_resumed(self) -> None: ...
    def at_end(self, what: Callable[[], None]) -> None: ...


class BodyCoder:
    """The `coder` of one exchange (`core.passing`)."""

    __slots__ = ("_coder", "_due", "_ending", "_exchange", "_full", "_is_over", "_left", "_waits")

    def __init__(self, exchange: Sending, coder: Coder) -> None:
        self._exchange = exchange
        self._coder = coder
        self._waits: deque[bytes | bytearray] = deque()  # queued pieces, none larger than a share
        self._left = SHARE_BYTES  # bytes of this turn's share
        self._is_over = False
        self._due = False  # `_turn` is scheduled
        self._full = exchange.downstream.paused  # the client itself is slow
        self._ending: list[Line] | None = None  # the trailers, once the source is at its end
        exchange.coder = self
        exchange.at_end(self._over)

    # -- called by the exchange -------------------------------------------------------------------------------------

    def body(self, data: bytes | bytearray) -> None:
        """Compress a piece and send it, or queue it."""
        self._next_turn()
        if len(data) <= self._left and not self._waits:
            self._code(data)
            return
        self._waits.extend(data[at : at + SHARE_BYTES] for at in range(0, len(data), SHARE_BYTES))
        self._exchange.downstream.paused = True

    def may_end(self, trailers: list[Line] | None) -> bool:
        """Whether the body may end; then the coder's last bytes are sent. If not, `_turn` ends the exchange later."""
        if self._waits:
            self._ending = trailers or []
            return False
        self._pass_on(self._coder.end())
        return True

    def paused(self) -> None:
        """The client reads slowly."""
        self._full = True

    def resumed(self) -> bool:
        """The client accepts more. Returns whether the source may go on."""
        self._full = False
        if self._waits:
            self._exchange.downstream.paused = True
            self._next_turn()
        return not self._waits

    # -- turns ---------------------------------------------------------------------------------------------------------

    def _next_turn(self) -> None:
        if not self._due:
            self._due = True
            self._exchange.worker.turns.later(self._turn)

    def _turn(self) -> None:
        """Compress what is queued, for as long as a turn may take. One body after the other: the tables of a coder are
        large, and a processor that goes from one to the next after each share takes three times as long."""
        self._due, self._left = False, SHARE_BYTES
        if self._is_over or self._full or not self._waits:
            return
        exchange, waits = self._exchange, self._waits
        until = monotonic() + TURN_S
        exchange.downstream.paused = False
        self._code(waits.popleft())
        while waits and not exchange.downstream.paused and monotonic() < until:
            self._code(waits.popleft())
        if self._is_over:  # writing found that the client is gone
            return
        self._full = exchange.downstream.paused
        if waits:
            exchange.downstream.paused = True
            self._due = True
            exchange.worker.turns.again(self._turn)
        elif self._ending is not None:
            exchange.end(self._ending)
        elif not self._full:
            exchange.client_resumed()

    def _code(self, data: bytes | bytearray) -> None:
        self._left -= len(data)
        self._pass_on(self._coder.piece(data))

    def _pass_on(self, data: bytes) -> None:
        """Send compressed bytes, through the pace if there is one. A coder may have kept all of them."""
        exchange = self._exchange
        if data and exchange.pace is not None:
            exchange.pace.body(data)
        elif data:
            exchange.send(data)

    def _over(self) -> None:
        """The exchange has ended: the client's own state is what counts again. The coder's tables are freed
        at once: neither of the two holds the other."""
        if self._waits:
            self._waits.clear()
            self._exchange.downstream.paused = self._full
        self._exchange.coder = None
        self._is_over = True
        del self._coder, self._exchange

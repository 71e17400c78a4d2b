"""`bandwidth`: how fast bodies of responses go to a client, a client's all together, or a whole route's.

    body ─► bytes left in the bucket? ─yes─► to the client
                   └─no─► waits; whoever brings the body is held back ─► the worker's tick, four times a second

One rule: who waits for its bucket looks like a client that is slow (`Downstream.paused`). So a backend, a file and a
stored body are held back by what holds them back for slow clients, and no more than a piece of a body waits here. In
any second, no more goes out than the rate and what a bucket holds when it is full.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from edge.dataplane.rules.limits import key_by
from edge.dataplane.rules.steps import StepExchange

if TYPE_CHECKING:
    from edge.dataplane.rules.asked import Asked
    from edge.http.message import Line

FULL_S = 0.5  # a bucket holds at least what flows in so long, or a late tick would cost bytes
PIECE_BYTES = 64 * 1024  # written at once
MOST = 16384  # clients that are known; who came longest ago gives way, and may have its burst again


class Client(Protocol):
    """The client side of a paced exchange."""

    paused: bool


class Pacing(StepExchange, Protocol):
    """What the pace needs of an exchange."""

    at_once: int
    pace: Any

    @property
    def downstream(self) -> Client: ...
    def send(self, data: bytes | bytearray) -> None: ...
    def end(self, trailers: list[Line] | None = None) -> None: ...
    def client_resumed(self) -> None: ...


class Bucket:
    """A token bucket of bytes; full at the start."""

    __slots__ = ("_at", "_per_s", "_size", "_turns", "level", "waiting")

    def __init__(self, per_s: float, size: float, now: float) -> None:
        self.level = self._size = size
        self._per_s = per_s
        self._at = now
        self.waiting = 0  # responses
        self._turns = 0  # of them, those that had no turn yet in this round

    def share(self, now: float, among: int) -> int:
        """How many bytes one of `among` responses may send at `now`."""
        self.level = min(self._size, self.level + (now - self._at) * self._per_s)
        self._at = now
        return int(self.level) // max(1, among)

    def turn(self, now: float) -> int:
        """The same for each that waits, one after the other: what the first ones leave is the next ones'."""
        if self._turns <= 0:
            self._turns = self.waiting
        self._turns -= 1
        return self.share(now, self._turns + 1)


class Paced:
    """Paces the body of one exchange (`core.passing.Passage`)."""

    __slots__ = ("_at", "_bucket", "_ending", "_exchange", "_full", "_waits")

    def __init__(self, exchange: Pacing, bucket: Bucket) -> None:
        self._exchange = exchange
        self._bucket = bucket
        self._waits: deque[bytes | bytearray] = deque()  # pieces that came and may not go yet
        self._at = 0  # bytes of the first one that went
        self._full = exchange.downstream.paused  # the client takes no more for now
        self._ending: list[Line] | None = None  # trailers: the body is whole, but for what waits
        exchange.pace, exchange.at_once = self, 0
        exchange.at_end(self._over)

    # -- what the exchange asks ----------------------------------------------------------------------------------------

    def body(self, data: bytes | bytearray) -> None:
        """Send what the bucket allows of a piece; the rest waits."""
        if self._exchange.ended:
            return
        self._waits.append(data)
        if len(self._waits) == 1 and not self._full:
            self._send(self._bucket.share(monotonic(), self._bucket.waiting + 1))

    def may_end(self, trailers: list[Line] | None) -> bool:
        """Whether the body may end; if not, it does once what waits has gone."""
        if self._waits:
            self._ending = trailers or []
        return not self._waits

    def paused(self) -> None:
        """The client itself reads slowly."""
        self._full = True

    def resumed(self) -> bool:
        """The client accepts more; whether the source may resume, since nothing waits here any more."""
        self._full = False
        if not self._waits:
            return True
        self._send(self._bucket.share(monotonic(), self._bucket.waiting + (not self.held)))
        return self._all_gone()

    # -- time ----------------------------------------------------------------------------------------------------------

    @property
    def held(self) -> bool:
        """Whether bytes wait for the bucket."""
        return self in self._exchange.worker.paced

    def tick(self) -> None:
        """Send more; called on the worker's tick."""
        if self.held and not self._full:
            self._send(self._bucket.turn(monotonic()))
            if self._all_gone():
                self._exchange.client_resumed()

    def _send(self, most: int) -> None:
        """Send so many bytes of what waits, as far as the client takes them. It is not full before that."""
        downstream, waits = self._exchange.downstream, self._waits
        downstream.paused = False
        while waits and most > 0 and not downstream.paused:
            part = self._next(min(most, PIECE_BYTES))
            most -= len(part)
            self._bucket.level -= len(part)
            self._exchange.send(part)
        self._full = downstream.paused
        self._hold(bool(waits) and not self._full)

    def _next(self, most: int) -> bytes | bytearray:
        first, at = self._waits[0], self._at
        if len(first) - at <= most:
            self._waits.popleft()
            self._at = 0
            return first[at:]
        self._at += most
        return first[at : self._at]

    def _hold(self, held: bool) -> None:
        """Begin or end waiting for the bucket."""
        paced = self._exchange.worker.paced
        if held and self not in paced:
            paced[self] = None
            self._bucket.waiting += 1
        elif not held and self in paced:
            del paced[self]
            self._bucket.waiting -= 1
        if held:
            self._exchange.downstream.paused = True

    def _all_gone(self) -> bool:
        """Whether more of the body is wanted; where nothing waits and it was whole, it ends."""
        if self._waits or self._exchange.ended:
            return False
        if self._ending is not None:
            self._exchange.end(self._ending)
            return False
        return not self._full

    def _over(self) -> None:
        """The exchange has ended."""
        self._waits.clear()
        self._hold(False)
        self._exchange.downstream.paused = self._full


class Bandwidth:
    """`bandwidth` of a route. `by`: `response`, or a key as for rate limits."""

    name = "bandwidth"

    def __init__(self, per_s: int, burst: int, by: str) -> None:
        self._per_s = per_s
        self._size = max(burst, per_s * FULL_S, 1)
        self._by = by
        self._key: Callable[[Asked], str | bytes] | None = None if by == "response" else key_by(by)
        self._buckets: dict[str | bytes, Bucket] = {}  # who came last stands last

    def apply(self, exchange: Any) -> None:
        """Put the pace before the exchange's client."""
        Paced(exchange, self._bucket(exchange, monotonic()))

    def _bucket(self, asked: Asked, now: float) -> Bucket:
        if self._key is None:
            return Bucket(self._per_s, self._size, now)
        key, buckets = self._key(asked), self._buckets
        found = buckets.pop(key, None) or Bucket(self._per_s, self._size, now)
        buckets[key] = found
        if len(buckets) > MOST:
            del buckets[next(iter(buckets))]
        return found

    def take_over(self, lived: Bandwidth) -> None:
        """Keep the buckets after a reload: a burst is granted once."""
        if (self._per_s, self._size, self._by) == (lived._per_s, lived._size, lived._by):
            self._buckets = lived._buckets

    def explain(self, asked: Asked) -> str:
        """What the rule does, for `edge explain`."""
        where = "" if self._key is None else " in each worker"
        return f"at most {self._per_s} bytes a second by {self._by}{where}, {self._size:.0f} at once"

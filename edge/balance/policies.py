"""Which of the candidates gets the next request: one class for each policy, all in `POLICIES`.

One rule: a policy sees only candidates that are in (the pool filters), so shares are exact over whatever is left: over
sum(weights) picks of round-robin each candidate gets its weight, for every subset that is down.

`settle` tells the list that stays the same until the next call, for what is worth preparing; `pick` with any other list
(a retry, someone full) goes the general way. `share` is the weight, lower during slow start.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import accumulate
from math import gcd
from typing import Protocol

from edge.balance.backend import Backend
from edge.balance.health import Randbelow

FULL_SCAN = 32  # least-connections looks at all up to here, at two above
LONGEST_CYCLE = 4096  # round-robin remembers its order up to this period
RING_POINTS = 160  # of the heaviest backend, at least
_MASK = (1 << 64) - 1
_FIBONACCI = 0x9E3779B97F4A7C15


class Policy(Protocol):
    """A balancing policy, as the pool uses it."""

    def settle(self, candidates: Sequence[Backend]) -> None:
        """Prepare for this list of candidates, the object that `pick` mostly gets from now on."""

    def pick(self, candidates: Sequence[Backend], hint: int, now: float) -> Backend:
        """Choose one of at least one candidates. `hint` is the value that consistent hashing looks at."""


def smooth(candidates: Sequence[Backend]) -> Backend:
    """One step of smooth weighted round-robin (nginx) over the backends' own running values."""
    best = candidates[0]
    total = 0.0
    for backend in candidates:
        share = backend.share
        total += share
        backend.turn += share
        if backend.turn > best.turn:
            best = backend
    best.turn -= total
    return best


def two_of(count: int, randbelow: Randbelow) -> tuple[int, int]:
    """Two different numbers below `count`, which is at least 2."""
    first = randbelow(count)
    second = randbelow(count - 1)
    return first, second + 1 if second >= first else second


class RoundRobin:
    """Smooth weighted round-robin. The order repeats after sum(weights) picks: it is worked out once and remembered."""

    __slots__ = ("_at", "_cycle", "_period", "_settled", "_turns", "_weights")

    def __init__(self, members: Sequence[Backend], randbelow: Randbelow) -> None:
        self._settled: Sequence[Backend] = ()
        self._weights: list[int] = []
        self._turns: list[int] = []
        self._cycle: list[int] = []
        self._period = self._at = 0

    def settle(self, candidates: Sequence[Backend]) -> None:
        """Start a new order unless nothing changed."""
        # Slow start makes shares fractions of tenths; without it the weights are the shares.
        weights = [round(backend.share * 10) for backend in candidates]
        scale = gcd(*weights) if weights else 1
        weights = [weight // scale for weight in weights]
        same = weights == self._weights and list(candidates) == list(self._settled)
        self._settled = candidates
        if not same:
            self._weights, self._turns, self._cycle = weights, [0] * len(weights), []
            self._period, self._at = sum(weights), 0

    def pick(self, candidates: Sequence[Backend], hint: int, now: float) -> Backend:
        """The next in order."""
        if candidates is not self._settled:
            return smooth(candidates)
        at = self._at
        if at >= self._period:
            at = 0
        self._at = at + 1
        if at < len(self._cycle):
            return candidates[self._cycle[at]]
        return candidates[self._step()]

    def _step(self) -> int:
        turns, weights = self._turns, self._weights
        best = 0
        for index, weight in enumerate(weights):
            turns[index] += weight
            if turns[index] > turns[best]:
                best = index
        turns[best] -= self._period
        if self._period <= LONGEST_CYCLE:
            self._cycle.append(best)
        return best


class LeastConnections:
    """Fewest requests in flight for its weight: lowest (in_flight + 1) / weight, ties by smooth round-robin."""

    __slots__ = ("_randbelow",)

    def __init__(self, members: Sequence[Backend], randbelow: Randbelow) -> None:
        self._randbelow = randbelow

    def settle(self, candidates: Sequence[Backend]) -> None:
        """Nothing to prepare."""

    def pick(self, candidates: Sequence[Backend], hint: int, now: float) -> Backend:
        """All are compared up to `FULL_SCAN`, two random ones above."""
        if len(candidates) > FULL_SCAN:
            one, two = two_of(len(candidates), self._randbelow)
            first, second = candidates[one], candidates[two]
            if (second.in_flight + 1) / second.share < (first.in_flight + 1) / first.share:
                return second
            return first
        low = 1e300
        best = candidates[0]
        tied = False
        for backend in candidates:
            score = (backend.in_flight + 1) / backend.share
            if score < low:
                low, best, tied = score, backend, False
            elif score == low:
                tied = True
        if tied:
            return smooth([backend for backend in candidates if (backend.in_flight + 1) / backend.share == low])
        return best


class Latency:
    """Peak EWMA × (in_flight + 1) / weight, the better of two random choices (Finagle, Linkerd)."""

    __slots__ = ("_randbelow",)

    def __init__(self, members: Sequence[Backend], randbelow: Randbelow) -> None:
        self._randbelow = randbelow

    def settle(self, candidates: Sequence[Backend]) -> None:
        """Nothing to prepare."""

    def pick(self, candidates: Sequence[Backend], hint: int, now: float) -> Backend:
        """The better of two."""
        if len(candidates) == 1:
            return candidates[0]
        one, two = two_of(len(candidates), self._randbelow)
        first, second = candidates[one], candidates[two]
        return second if latency_score(second, now) < latency_score(first, now) else first


def latency_score(backend: Backend, now: float) -> float:
    """Lower is better. An unknown backend gets one request to become known; a second one would be a guess."""
    latency = backend.latency
    if not latency.known:
        return 0.0 if not backend.in_flight else 5.0 * backend.in_flight / backend.share
    return latency.cost(now) * (backend.in_flight + 1) / backend.share


class Random:
    """Two choices at random by weight; the one with fewer in flight for its weight."""

    __slots__ = ("_bounds", "_randbelow", "_settled")

    def __init__(self, members: Sequence[Backend], randbelow: Randbelow) -> None:
        self._randbelow = randbelow
        self._settled: Sequence[Backend] = ()
        self._bounds: list[int] = []

    def settle(self, candidates: Sequence[Backend]) -> None:
        """Add the weights up."""
        self._settled = candidates
        self._bounds = _bounds(candidates)

    def pick(self, candidates: Sequence[Backend], hint: int, now: float) -> Backend:
        """The better of two."""
        bounds = self._bounds if candidates is self._settled else _bounds(candidates)
        first = candidates[bisect_right(bounds, self._randbelow(bounds[-1]))]
        second = candidates[bisect_right(bounds, self._randbelow(bounds[-1]))]
        return second if second.in_flight / second.share < first.in_flight / first.share else first


def _bounds(candidates: Sequence[Backend]) -> list[int]:
    return list(accumulate(max(1, round(backend.share * 10)) for backend in candidates))


class Hash:
    """Consistent hashing on a ring of all members. A member that is out is passed over: only its own keys move, to
    its neighbours, and they return with it. Slow start does not apply, as each key has one home.
    """

    __slots__ = ("_allowed", "_owners", "_points", "_settled")

    def __init__(self, members: Sequence[Backend], randbelow: Randbelow) -> None:
        # The scale is a power of two, so that a new member rarely changes how many points the others have.
        scale = 1 << (max((backend.weight for backend in members), default=1).bit_length() - 1)
        ring = sorted(
            (point, index)
            for index, backend in enumerate(members)
            for point in _points(backend.id, max(1, RING_POINTS * backend.weight // scale))
        )
        self._points = [point for point, _ in ring]
        self._owners = [members[index] for _, index in ring]
        self._settled: Sequence[Backend] = ()
        self._allowed: frozenset[Backend] = frozenset()

    def settle(self, candidates: Sequence[Backend]) -> None:
        """Keep the candidates as a set."""
        self._settled = candidates
        self._allowed = frozenset(candidates)

    def pick(self, candidates: Sequence[Backend], hint: int, now: float) -> Backend:
        """The first candidate clockwise from the hint."""
        allowed = self._allowed if candidates is self._settled else candidates
        owners = self._owners
        start = bisect_right(self._points, spread(hint))
        for index in range(start - len(owners), start):  # negative indexes wrap round the ring
            if owners[index] in allowed:
                return owners[index]
        return candidates[0]  # not a member: only a caller that did not build the ring from its backends gets here


def spread(hint: int) -> int:
    """A 64-bit number that is far apart for neighbouring hints."""
    mixed = (hint * _FIBONACCI) & _MASK
    return ((mixed ^ (mixed >> 32)) * _FIBONACCI) & _MASK


def _points(name: str, count: int) -> list[int]:
    """`count` places of 64 bits on the ring, the same in every process."""
    raw = b"".join(blake2b(b"%d %b" % (block, name.encode())).digest() for block in range((count + 7) // 8))
    return [int.from_bytes(raw[at : at + 8], "big") for at in range(0, count * 8, 8)]


class Geo(LeastConnections):
    """The region was chosen by place; inside it least-connections."""

    __slots__ = ()


POLICIES: dict[str, Callable[[Sequence[Backend], Randbelow], Policy]] = {
    "round-robin": RoundRobin,
    "least-connections": LeastConnections,
    "latency": Latency,
    "hash": Hash,
    "random": Random,
    "geo": Geo,
}

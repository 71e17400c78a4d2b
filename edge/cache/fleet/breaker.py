"""When a server beside the request path is asked, and when it is left alone: closed, open, half-open.

    closed ── FAILURES in a row ──► open ── after a while ──► half-open ── one trial: good ──► closed
                                     ▲                                       └── bad ──► open, twice as long

One rule: while it is not closed, nobody's request waits for the server; the trial is nobody's. Pure: `now` is a
monotonic clock, and whoever holds it makes the trial.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

FAILURES = 3  # in a row: that many requests at most wait a whole timeout, beside those that came together with them
OPEN_MIN_S, OPEN_MAX_S = 1.0, 30.0


class BreakerState(Enum):
    """Whether questions are let through."""

    CLOSED = "closed"  # asked
    OPEN = "open"  # not asked
    HALF_OPEN = "half-open"  # one trial is on its way, nobody else asks


class Breaker:
    """The breaker before one server. `events` gives what an operator should hear."""

    def __init__(self, name: str) -> None:
        self.state = BreakerState.CLOSED
        self.opened = 0  # how often
        self._name = name
        self._failures = 0
        self._open_s = OPEN_MIN_S
        self._trial_at = 0.0
        self._told: list[dict[str, Any]] = []

    @property
    def closed(self) -> bool:
        """Whether the server may be asked."""
        return self.state is BreakerState.CLOSED

    def failed(self, now: float, why: str) -> None:
        """A question was not answered, or with an error."""
        self._failures += 1
        if self.state is BreakerState.HALF_OPEN:
            self._open_s = min(OPEN_MAX_S, self._open_s * 2)
        elif self.state is BreakerState.OPEN or self._failures < FAILURES:
            return
        self.state, self._trial_at = BreakerState.OPEN, now + self._open_s
        self.opened += 1
        self._tell("open", evidence=why, again_in_s=self._open_s)

    def succeeded(self) -> None:
        """A question was answered."""
        self._failures = 0
        if self.state is BreakerState.HALF_OPEN:
            self.state, self._open_s = BreakerState.CLOSED, OPEN_MIN_S
            self._tell("closed")

    def wants_trial(self, now: float) -> bool:
        """Whether to try now; it is half-open from then on."""
        if self.state is not BreakerState.OPEN or now < self._trial_at:
            return False
        self.state = BreakerState.HALF_OPEN
        self._tell("half-open")
        return True

    def events(self) -> list[dict[str, Any]]:
        """The events since the last call."""
        told, self._told = self._told, []
        return told

    def _tell(self, what: str, **facts: Any) -> None:
        self._told.append({"kind": f"{self._name}.{what}", **facts})

"""The rules that a request passes between its route and the look-up, in their one order.

    allow, deny · rate_limit · concurrency · auth · redirect · respond     (each may end the request)
    bandwidth · split · mirror

One rule: a step answers, raises, goes on, or waits. Who waits stands in for the exchange's follower, so that a client
that leaves ends the waiting; when it has what it waited for, the steps after it run as if nothing had been.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

from edge.dataplane.rules.asked import Asked
from edge.errors import EdgeError, outcome_of
from edge.http.message import Line


class StepExchange(Asked, Protocol):
    """What steps need of an exchange."""

    reason: str
    identity: bytes
    apart: bytes
    granted: tuple[Line, ...]
    told_lines: bytes
    started_at: float
    downstream: Any
    follower: Any
    route: Any

    @property
    def ended(self) -> bool: ...
    @property
    def worker(self) -> Any: ...
    def at_end(self, what: Callable[[], None]) -> None: ...
    def reply(self, status: int, lines: bytes, body: bytes) -> None: ...
    def fail(self, error: EdgeError) -> None: ...


class Step(Protocol):
    """One rule that a request passes before the look-up."""

    @property
    def name(self) -> str: ...
    def apply(self, exchange: Any) -> bool | Waiting | None:
        """True: it has answered. A `Waiting`: it will call back. Else the request goes on. Raises EdgeError."""

    def explain(self, asked: Asked) -> str: ...


@runtime_checkable
class Lasting(Protocol):
    """A step whose state outlives a reload."""

    def take_over(self, lived: Any) -> None:
        """Go on with what the step before it knew, if it is the same rule still."""


class Waiting:
    """The exchange's follower while a step waits for something."""

    def __init__(self, exchange: StepExchange) -> None:
        self.exchange = exchange
        self.go_on: Callable[[], None] = lambda: None
        exchange.follower = self

    def resume(self, error: EdgeError | None = None) -> None:
        """Continue with the next step, or fail with `error`."""
        if error is not None:
            self.answer(lambda: self.exchange.fail(error))
        else:
            self.answer(self.go_on)

    def answer(self, how: Callable[[], None]) -> None:
        """Call `how` to end the waiting; an exception becomes an answer."""
        exchange = self.exchange
        if exchange.ended:
            return
        exchange.follower = None
        try:
            how()
        except Exception as found:
            exchange.fail(outcome_of(found, exchange.worker.report_bug))

    def resumed(self) -> None:
        """Nothing to do: no response has begun."""

    def leave(self, error: EdgeError) -> None:
        """The client left."""


def run(exchange: Any, steps: tuple[Step, ...], then: Callable[[Any], None], at: int = 0) -> None:
    """Pass the steps from `at` on, then `then`. Raises what a step raises."""
    for number in range(at, len(steps)):
        outcome = steps[number].apply(exchange)
        if outcome is None:
            continue
        if isinstance(outcome, Waiting):
            outcome.go_on = partial(run, exchange, steps, then, number + 1)
            return
        if outcome:
            return
    then(exchange)


def explained(steps: tuple[Step, ...], asked: Asked) -> list[dict[str, str]]:
    """What each step would do with a request, in order."""
    return [{"rule": step.name, "does": step.explain(asked)} for step in steps]

"""Rate limits that all machines of a fleet share, as one worker has them.

    a request is counted in the worker's table ─► told four times a second ─► the fleet's number ─► the worker's table

One rule: a request never waits for the fleet. What others counted is known a moment later, so that for this moment more
may pass than the limit says; it is owed afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from time import monotonic
from typing import Any, Protocol

from edge.dataplane.rules.limits import RateLimit


class Stepping(Protocol):
    """A route, as far as this file uses it."""

    @property
    def name(self) -> str: ...
    @property
    def steps(self) -> Sequence[object]: ...


def follow_limits(routes: Iterable[Stepping], body: dict[str, Any]) -> bool:
    """A FLEET frame: what is owed over all of the fleet; whether it says that limits are the fleet's."""
    shared = bool(body.get("limits"))
    if shared:
        for _, limit in _limits(routes):
            limit.count_for_others()
    owed = body.get("owed")
    if owed:
        limits, now = dict(_limits(routes)), monotonic()
        for name, key, seconds in owed:
            owing = limits.get(name)
            if owing is not None:
                owing.owe(key, seconds, now)
    return shared


def counted(routes: Iterable[Stepping]) -> list[list[Any]]:
    """What was counted since the last time: the limit, the key, how many, and how long each of them is owed."""
    return [[name, key, count, limit.every_s] for name, limit in _limits(routes) for key, count in limit.taken()]


def _limits(routes: Iterable[Stepping]) -> Iterator[tuple[str, RateLimit]]:
    """The rate limits of the routes, by route name and limit."""
    for route in routes:
        for step in route.steps:
            if isinstance(step, RateLimit):
                yield f"{route.name} {step.text}", step

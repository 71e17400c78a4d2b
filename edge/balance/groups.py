"""A pool's backends in one region: who of them is a candidate, with what share, and what they come to together.

One rule: this is worked out when something changed or a time boundary passed, never for each request; `refresh` says
when the next boundary is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from edge.balance.backend import Backend
from edge.balance.health import NEVER, Admin, Health
from edge.balance.policies import Policy
from edge.balance.regions import RegionHealth

FOREVER = float("inf")
START_STEPS = 10  # slow start goes up in tenths


class Ask(NamedTuple):
    """What one request asks of a pool, where it does not take the fast way."""

    hint: int
    tried: Sequence[Backend]
    regions: Sequence[str] | None
    fence: frozenset[str] | None


class Group:
    """The members of a pool in one region, and the candidates among them."""

    __slots__ = ("candidates", "members", "policy", "region")

    def __init__(self, region: str, members: list[Backend], policy: Policy) -> None:
        self.region = region
        self.members = members
        self.policy = policy
        self.candidates: list[Backend] = []

    @property
    def weight(self) -> float:
        """The weight of all members together."""
        return float(sum(backend.weight for backend in self.members))

    def refresh(self, now: float, ignore_health: bool) -> float:
        """Work out the candidates. Returns whether time alone may change them. Ejections that are over become
        trials.
        """
        next_at = FOREVER
        known: list[Backend] = []
        unknown: list[Backend] = []
        for backend in self.members:
            if backend.admin is not Admin.ACTIVE:
                continue
            if not ignore_health:
                if backend.health is Health.UNHEALTHY:
                    continue
                if now < backend.ejected_until:
                    next_at = min(next_at, backend.ejected_until)
                    continue
                if backend.ejected_until > NEVER:
                    backend.try_again()
            (unknown if backend.health is Health.UNKNOWN else known).append(backend)
        self.candidates = known or unknown  # not probed yet: only while nobody is known to be well
        return next_at

    def forgive(self) -> None:
        """All are ejected, so none is an outlier: choose candidates by probes and admin state alone."""
        self.candidates = [
            backend
            for backend in self.members
            if backend.admin is Admin.ACTIVE and backend.health is not Health.UNHEALTHY
        ]

    def free(self, ask: Ask) -> list[Backend]:
        """The candidates that have room and were not tried. Returns the list of candidates itself if that is all of
        them.
        """
        free = [
            backend for backend in self.candidates if backend.in_flight < backend.limit and backend not in ask.tried
        ]
        return self.candidates if len(free) == len(self.candidates) else free

    def has_full(self) -> bool:
        """Whether a candidate is kept out only because its limit is reached."""
        return any(backend.in_flight >= backend.limit for backend in self.candidates)

    def whoever(self, ask: Ask) -> list[Backend]:
        """Every active member with room, whatever its health: for when nothing better is left (fail-open)."""
        return [
            backend
            for backend in self.members
            if backend.admin is Admin.ACTIVE and backend.in_flight < backend.own_limit and backend not in ask.tried
        ]

    def region_health(self, now: float) -> RegionHealth:
        """Available and total weight. Backends that were not probed yet count as healthy."""
        available = sum(backend.weight for backend in self.members if backend.is_in(now))
        costs = [backend.latency.cost(now) for backend in self.members if backend.latency.known]
        latency_s = sum(costs) / len(costs) if costs else None
        unknown = all(backend.health is Health.UNKNOWN for backend in self.members)
        return RegionHealth(available, self.weight, latency_s, unknown)


def share_out(backends: Sequence[Backend], now: float, slow_start_s: float) -> float:
    """Set each candidate's share and limit. Returns whether they change by time alone.

    A backend on trial gets one request at a time, unless there are only such candidates.
    """
    next_at = FOREVER
    only_trials = all(backend.half_open for backend in backends)
    for backend in backends:
        backend.limit = 1 if backend.half_open and not only_trials else backend.own_limit
        backend.share = float(backend.weight)
        if backend.slow_from <= now < backend.slow_from + slow_start_s:
            step_s = slow_start_s / START_STEPS
            done = int((now - backend.slow_from) / step_s + 1e-9)
            backend.share = backend.weight * max(1, done) / START_STEPS
            next_at = min(next_at, backend.slow_from + (done + 1) * step_s)
    return next_at


def rows(backends: Iterable[Backend], now: float) -> list[dict[str, Any]]:
    """One row of plain values for each backend, for status."""
    return [
        {
            "id": backend.id,
            "region": backend.region,
            "weight": backend.weight,
            "admin": backend.admin.value,
            "health": backend.health.value,
            "available": backend.available(now),
            "ejected_s": max(0.0, backend.ejected_until - now),
            "half_open": backend.half_open,
            "share": backend.share,
            "in_flight": backend.in_flight,
            "max_in_flight": backend.max_in_flight,
            "latency_s": backend.latency.cost(now) if backend.latency.known else None,
            "taken": backend.taken,
            "successes": backend.successes,
            "failures": backend.failures,
            "ejections": backend.ejections,
        }
        for backend in backends
    ]

"""When the next point, or the next drill, is due: from the schedule and the last success alone.

One rule: what is overdue runs once, now, however often it was missed; and a clock that went back makes nothing wait
until it has caught up again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from hashlib import sha256

from cronsim import CronSim

from edge.config.schedule import Schedule
from edge.recovery.points import PointKind

SLACK_S = 60.0  # a last success that lies further ahead than this is a clock's mistake, not a reason to wait for it
STRONGEST_FIRST = (PointKind.FULL, PointKind.DIFFERENTIAL, PointKind.INCREMENTAL)


def next_due(schedule: Schedule, last: float | None, now: float, zone: tzinfo) -> float:
    """When it is due next, in epoch seconds; a time that is not after `now` means at once. `last` None: it never
    ran.
    """
    if last is None or last > now + SLACK_S:
        return now
    last = min(last, now)
    if schedule.interval is not None:
        return last + schedule.interval
    assert schedule.cron is not None
    return next(CronSim(schedule.cron, datetime.fromtimestamp(last, zone))).timestamp()


def jittered(name: str, due: float, most_s: float) -> float:
    """A due time moved by up to `most_s`: always the same for one name and time, so that looking again moves nothing.

    `name` tells machines apart, so that a fleet does not meet at the repository.
    """
    part = int.from_bytes(sha256(f"{name} {due:.0f}".encode()).digest()[:6], "big") / 2**48
    return due + part * most_s


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do next, and when."""

    kind: PointKind
    due: float


def plan(
    schedules: Mapping[PointKind, Schedule], last: Mapping[PointKind, float | None], now: float, zone: tzinfo
) -> Plan | None:
    """The next point to take: the strongest kind of those that are due, else the one that is due first.

    `last` is when a point that does for this kind was taken last (`last_successes`).
    """
    due = {kind: next_due(schedules[kind], last.get(kind), now, zone) for kind in STRONGEST_FIRST if kind in schedules}
    for kind, at in due.items():
        if at <= now:
            return Plan(kind, now)
    return min((Plan(kind, at) for kind, at in due.items()), key=lambda found: found.due, default=None)


def last_successes(taken: Mapping[PointKind, float | None]) -> dict[PointKind, float | None]:
    """For each kind, when a point was taken that makes it unnecessary: a stronger one does for a weaker one."""
    found: dict[PointKind, float | None] = {}
    newest: float | None = None
    for kind in STRONGEST_FIRST:
        at = taken.get(kind)
        newest = at if newest is None or (at is not None and at > newest) else newest
        found[kind] = newest
    return found

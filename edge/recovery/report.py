"""How well the state is protected now: what would be lost, how long it would take, and which target is missed.

    exposure   how long ago the first change was made that no point holds: what a loss now would lose (RPO achieved)
    age        since the newest sound point, the newest verified one, the newest drilled one
    rto        what the last drill that passed measured

One rule: an alert is a sentence about something that is missed now; nothing alerts that only may be missed later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge.recovery.points import Point, Status, is_sound, newest_first


@dataclass(frozen=True, slots=True)
class Targets:
    """Seconds. `drill_s`: how old the newest drill may be, None = there need not be one."""

    rpo_s: float
    rto_s: float
    drill_s: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """How protected the state is. Times in seconds; None where there is none."""

    points: int
    corrupt: int
    newest: str | None
    age_s: float | None
    verified_age_s: float | None
    drilled_age_s: float | None
    exposure_s: float
    rto_s: float | None
    targets: Targets
    alerts: tuple[str, ...]


def report(points: Mapping[str, Point], unsaved_at: float | None, targets: Targets, now: float) -> Report:
    """Work it out. `unsaved_at`: when the first change was made that the newest sound point does not hold."""
    sound = [point for point in newest_first(points.values()) if is_sound(points, point)]
    drilled = [each for each in sound if each.evidence.drilled_at is not None]
    verified = [each.evidence.verified_at for each in sound if each.evidence.verified_at is not None]
    last_drill = max((each.evidence.drilled_at or 0.0 for each in drilled), default=None)
    measured = max(drilled, key=lambda each: each.evidence.drilled_at or 0.0) if drilled else None
    facts = measured.evidence.drill if measured is not None else None
    found = Report(
        points=len(points),
        corrupt=sum(point.status is Status.CORRUPT for point in points.values()),
        newest=sound[0].id if sound else None,
        age_s=_age(now, sound[0].taken_at if sound else None),
        verified_age_s=_age(now, max(verified, default=None)),
        drilled_age_s=_age(now, last_drill),
        exposure_s=_age(now, unsaved_at) or 0.0,
        rto_s=float(facts["rto_s"]) if facts is not None and "rto_s" in facts else None,
        targets=targets,
        alerts=(),
    )
    alerts = tuple(_alerts(found))
    return Report(**{name: getattr(found, name) for name in Report.__slots__ if name != "alerts"}, alerts=alerts)


def _age(now: float, at: float | None) -> float | None:
    return None if at is None else max(0.0, now - at)


def _alerts(found: Report) -> list[str]:
    targets, said = found.targets, []
    if found.newest is None:
        said.append("there is no sound recovery point: all run-time state would be lost")
    if found.exposure_s > targets.rpo_s:
        said.append(
            f"RPO missed: what changed in {found.exposure_s:.0f} s is in no point, the target is {targets.rpo_s:g} s"
        )
    if found.age_s is not None and found.age_s > 2 * targets.rpo_s:
        said.append(f"the newest sound point is {found.age_s:.0f} s old, twice the RPO target of {targets.rpo_s:g} s")
    if found.rto_s is not None and found.rto_s > targets.rto_s:
        said.append(f"RTO missed: the last drill took {found.rto_s:.1f} s, the target is {targets.rto_s:g} s")
    if targets.drill_s is not None and found.drilled_age_s is not None and found.drilled_age_s > targets.drill_s:
        said.append(f"the last drill that passed is {found.drilled_age_s / 86400:.1f} days old")
    if found.corrupt:
        said.append(f"{found.corrupt} of {found.points} points are damaged")
    return said


def report_view(found: Report) -> dict[str, object]:
    """The report as plain JSON values; times in seconds."""
    return {
        "points": found.points,
        "corrupt": found.corrupt,
        "newest": found.newest,
        "age_s": found.age_s,
        "verified_age_s": found.verified_age_s,
        "drilled_age_s": found.drilled_age_s,
        "rpo": {"target_s": found.targets.rpo_s, "achieved_s": found.exposure_s},
        "rto": {"target_s": found.targets.rto_s, "achieved_s": found.rto_s},
        "alerts": list(found.alerts),
    }

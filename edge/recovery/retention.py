"""Which points stay and which go, and why: restic's rules.

    last n                    the newest n
    hourly … yearly n         the newest point of each of the last n hours, days, … that have one
    within d                  every point not older than the newest one by more than d
    hold                      what an operator holds

The rules are joined by *or*. As in restic, while a rule has counts left the oldest point is kept by it too, so that
history grows to its full length. Calendar buckets are in the operator's zone; a point's bucket is that of its time.

What the rules keep needs other points: those stay as well ("needed by"). Two points always stay, whatever the rules
say: the newest sound full one, and the newest one that a drill proved. A point that is known to be damaged satisfies no
rule (it would crowd out a good one), and goes only when a sound full point younger than it exists.

One rule: everything is decided before anything is deleted, from the points and the policy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo

from edge.errors import RecoveryError
from edge.recovery.points import Point, PointKind, closure, is_sound, newest_first


@dataclass(frozen=True, slots=True)
class KeepRules:
    """How many of each; `within_s` in seconds. All zero keeps nothing and is refused."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether one point stays, and every reason for it."""

    point: Point
    keep: bool
    reasons: tuple[str, ...]


Bucket = Callable[[datetime], str]


def _week(at: datetime) -> str:
    year, week, _ = at.isocalendar()
    return f"{year}-W{week:02d}"


BUCKETS: dict[str, Bucket] = {
    # The offset is part of the hour: the one that comes twice when clocks go back is two hours.
    "hourly": lambda at: at.strftime("%Y-%m-%d %H%z"),
    "daily": lambda at: at.strftime("%Y-%m-%d"),
    "weekly": _week,
    "monthly": lambda at: at.strftime("%Y-%m"),
    "yearly": lambda at: at.strftime("%Y"),
}


def decide(points: Mapping[str, Point], rules: KeepRules, zone: tzinfo) -> list[Decision]:
    """A decision for each point, newest first. Raises RecoveryError when the rules are empty."""
    if not any((rules.last, rules.hourly, rules.daily, rules.weekly, rules.monthly, rules.yearly, rules.within_s)):
        raise RecoveryError("snapshots.keep keeps nothing: give at least one rule, such as last = 3")
    ordered = newest_first(points.values())
    sound = [point for point in ordered if is_sound(points, point)]
    reasons: dict[str, list[str]] = {point.id: [] for point in ordered}
    _by_rules(sound, rules, zone, reasons)
    _always(sound, ordered, reasons)
    for point in ordered:
        if reasons[point.id] and point.id in {each.id for each in sound}:
            for link in closure(points, point.id)[:-1]:
                reasons[link.id].append(f"needed by {point.id}")
    return [_decision(point, reasons[point.id]) for point in ordered]


def _by_rules(sound: list[Point], rules: KeepRules, zone: tzinfo, reasons: dict[str, list[str]]) -> None:
    """What the operator's numbers keep."""
    left = {name: getattr(rules, name) for name in BUCKETS}
    seen: dict[str, str] = {}
    for number, point in enumerate(sound):
        found = reasons[point.id]
        if number < rules.last:
            found.append(f"last {number + 1}")
        if rules.within_s and point.taken_at >= sound[0].taken_at - rules.within_s:
            found.append("within")
        at = datetime.fromtimestamp(point.taken_at, zone)
        for name, bucket in BUCKETS.items():
            if not left[name]:
                continue
            word = bucket(at)
            if seen.get(name) != word:
                found.append(f"{name} {word}")
            elif number == len(sound) - 1:
                found.append(f"oldest {name}")
            else:
                continue
            seen[name] = word
            left[name] -= 1


def _always(sound: list[Point], ordered: list[Point], reasons: dict[str, list[str]]) -> None:
    """What stays whatever the numbers say."""
    full = next((point for point in sound if point.kind is PointKind.FULL), None)
    if full is not None:
        reasons[full.id].append("newest full")
    drilled = [point for point in sound if point.evidence.drilled_at is not None]
    if drilled:
        newest = max(drilled, key=lambda point: (point.taken_at, point.id))
        reasons[newest.id].append("newest drilled")
    good = {point.id for point in sound}
    for point in ordered:
        if point.evidence.hold:
            reasons[point.id].append(f"hold: {point.evidence.hold}")
        if point.id not in good and (full is None or full.taken_at <= point.taken_at):
            reasons[point.id].append("damaged, and no sound full point is younger")


def _decision(point: Point, reasons: list[str]) -> Decision:
    if reasons:
        return Decision(point, True, tuple(dict.fromkeys(reasons)))
    return Decision(point, False, ("damaged" if point.evidence.corrupt else "no rule keeps it",))

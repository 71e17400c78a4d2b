"""Retention against a plain model, and what it never does: break a chain, lose the last full or drilled point."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import RecoveryError
from edge.recovery.points import Evidence, Point, PointKind, base_for, closure, is_sound
from edge.recovery.retention import KeepRules, decide

UTC = UTC
DAY = 86400.0
START = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()


def points_at(times: list[float], kinds: list[PointKind]) -> dict[str, Point]:
    points: dict[str, Point] = {}
    for number, (at, kind) in enumerate(zip(sorted(times), kinds, strict=False)):
        base = base_for(points, kind, "h", 10)
        points[f"p{number:04d}"] = Point(
            *(f"p{number:04d}", f"hash{number}", base.kind, at, "h"),
            sequence_from=base.parent.sequence_to if base.parent else 0,
            sequence_to=number,
            parent=base.parent.id if base.parent else None,
            parent_hash=base.parent.hash if base.parent else "",
            needs=base.needs,
        )
    return points


def model(times: list[float], rules: KeepRules) -> set[float]:
    """restic's rules, said once more and as plainly as possible."""
    newest = sorted(times, reverse=True)
    kept = set(newest[: rules.last])
    if rules.within_s:
        kept |= {at for at in newest if newest[0] - at <= rules.within_s}
    buckets: dict[str, Callable[[datetime], object]] = {
        "hourly": lambda at: (at.year, at.month, at.day, at.hour),
        "daily": lambda at: (at.year, at.month, at.day),
        "weekly": lambda at: at.isocalendar()[:2],
        "monthly": lambda at: (at.year, at.month),
        "yearly": lambda at: at.year,
    }
    for name, bucket in buckets.items():
        left, last = getattr(rules, name), None
        for at in newest:
            word = bucket(datetime.fromtimestamp(at, UTC))
            if left and (word != last or at == newest[-1]):
                kept.add(at)
                left, last = left - 1, word
    return kept


RULES = st.builds(KeepRules, *[st.integers(0, 5)] * 6, within_s=st.sampled_from([0.0, DAY, 10 * DAY])).filter(
    lambda rules: rules != KeepRules()
)
TIMES = st.lists(st.integers(0, 500 * 24), min_size=1, max_size=40, unique=True).map(
    lambda hours: [START + hour * 3600.0 for hour in hours]
)


@settings(deadline=None)
@given(TIMES, RULES)
def test_full_points_are_kept_as_the_model_says(times: list[float], rules: KeepRules) -> None:
    points = points_at(times, [PointKind.FULL] * len(times))
    kept = {decision.point.taken_at for decision in decide(points, rules, UTC) if decision.keep}
    assert kept == model(times, rules) | {max(times)}  # the newest full one stays in any case


@settings(deadline=None, max_examples=200)
@given(TIMES, st.data(), RULES)
def test_nothing_that_is_kept_loses_what_it_needs(times: list[float], data: st.DataObject, rules: KeepRules) -> None:
    kinds = data.draw(st.lists(st.sampled_from(list(PointKind)), min_size=len(times), max_size=len(times)))
    points = points_at(times, kinds)
    for name in data.draw(st.lists(st.sampled_from(sorted(points)), max_size=3)):
        evidence = data.draw(st.sampled_from([Evidence(corrupt="x"), Evidence(drilled_at=1.0), Evidence(hold="y")]))
        points[name] = points[name].with_evidence(evidence)
    decisions = decide(points, rules, UTC)
    assert {decision.point.id for decision in decisions} == set(points)
    assert all(decision.reasons for decision in decisions)
    left = {decision.point.id: decision.point for decision in decisions if decision.keep}
    sound = [point for point in points.values() if is_sound(points, point)]
    for point in sound:
        if point.id in left:
            assert closure(left, point.id) == closure(points, point.id)
    for wanted in (
        [point for point in sound if point.kind is PointKind.FULL],
        [point for point in sound if point.evidence.drilled_at],
    ):
        if wanted:
            assert max(wanted, key=lambda point: point.taken_at).id in left
    assert all(point.id in left for point in points.values() if point.evidence.hold)
    if not sound:
        assert set(left) == set(points)  # all that there is, damaged as it may be


def test_an_empty_policy_is_refused() -> None:
    with pytest.raises(RecoveryError, match="keeps nothing"):
        decide({}, KeepRules(), UTC)


def test_a_damaged_point_does_not_crowd_out_a_good_one() -> None:
    points = points_at([START, START + 1, START + 2], [PointKind.FULL] * 3)
    points["p0002"] = points["p0002"].with_evidence(Evidence(corrupt="x"))
    reasons = {decision.point.id: decision.reasons for decision in decide(points, KeepRules(last=1), UTC)}
    assert reasons["p0001"] == ("last 1", "newest full")
    assert reasons["p0002"] == ("damaged, and no sound full point is younger",)
    assert reasons["p0000"] == ("no rule keeps it",)


def test_days_are_the_operators() -> None:
    new_york = ZoneInfo("America/New_York")
    evening = datetime(2026, 3, 1, 21, tzinfo=new_york)  # already the next day in UTC
    times = [evening.timestamp(), (evening + timedelta(hours=2)).timestamp()]
    points = points_at([*times, times[1] - 10 * DAY], [PointKind.FULL] * 3)
    rules = KeepRules(daily=2)
    assert [decision.keep for decision in decide(points, rules, new_york)] == [True, False, True]
    morning = datetime(2026, 3, 1, 20, tzinfo=UTC)
    points = points_at([morning.timestamp(), (morning + timedelta(hours=6)).timestamp()], [PointKind.FULL] * 2)
    assert [decision.reasons[0] for decision in decide(points, rules, new_york)] == [
        "daily 2026-03-01",
        "oldest daily",
    ]

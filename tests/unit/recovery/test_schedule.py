"""Schedules: once when overdue, never twice, whatever the clock does."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config.schedule import parse_schedule
from edge.recovery.points import PointKind
from edge.recovery.schedule import jittered, last_successes, next_due, plan

UTC = UTC
FULL, DIFF, INCR = PointKind.FULL, PointKind.DIFFERENTIAL, PointKind.INCREMENTAL
SUNDAY = datetime(2026, 11, 22, 3, tzinfo=UTC).timestamp()  # when the full point is due
SCHEDULES = {FULL: parse_schedule("0 3 * * 0"), DIFF: parse_schedule("0 3 * * 1-6"), INCR: parse_schedule("15m")}


def test_what_never_ran_is_due_now() -> None:
    assert next_due(SCHEDULES[FULL], None, 5.0, UTC) == 5.0


def test_an_interval_counts_from_the_last_success() -> None:
    assert next_due(SCHEDULES[INCR], 1000.0, 1100.0, UTC) == 1900.0


def test_a_clock_that_went_back_makes_nothing_wait() -> None:
    assert next_due(SCHEDULES[INCR], 9000.0, 1000.0, UTC) == 1000.0
    assert next_due(SCHEDULES[INCR], 1030.0, 1000.0, UTC) == 1900.0  # a small step is none


def test_what_was_missed_often_runs_once() -> None:
    now = SUNDAY + 30 * 86400
    taken = {FULL: SUNDAY, DIFF: None, INCR: None}
    assert plan(SCHEDULES, last_successes(taken), now, UTC) == (found := plan(SCHEDULES, taken | {}, now, UTC))
    assert found is not None and (found.kind, found.due) == (FULL, now)
    after = plan(SCHEDULES, last_successes({FULL: now}), now + 1, UTC)
    assert after is not None and (after.kind, after.due) == (INCR, now + 900)


def test_a_stronger_point_does_for_a_weaker_one_and_not_the_other_way_round() -> None:
    assert last_successes({FULL: 5.0, DIFF: 3.0, INCR: 9.0}) == {FULL: 5.0, DIFF: 5.0, INCR: 9.0}
    assert last_successes({INCR: 9.0}) == {FULL: None, DIFF: None, INCR: 9.0}


def test_a_cron_line_is_in_the_operators_zone() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    due = next_due(parse_schedule("0 3 * * *"), SUNDAY, SUNDAY, berlin)
    assert datetime.fromtimestamp(due, berlin).hour == 3


@settings(deadline=None)
@given(st.text(max_size=5), st.floats(0, 2e9), st.floats(0, 1000))
def test_jitter_is_bounded_and_the_same_when_asked_again(name: str, due: float, most: float) -> None:
    assert due <= jittered(name, due, most) <= due + most
    assert jittered(name, due, most) == jittered(name, due, most)

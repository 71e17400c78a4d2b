"""The dashboard's rows: an even flow is drawn even, however the workers' frames fall; nothing is lost or told twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.control.series import COLUMNS, SECONDS_KEPT, TENS_KEPT, Series, quantile
from edge.metrics import LATENCY_BOUNDS_S, Meter

EPOCH = 1_000_000.0


def counts(requests: int, hits: int = 0, region: str = "eu") -> dict[str, Any]:
    """A COUNTS body as a worker sends it."""
    route, backend = Meter(), Meter()
    route.requests, route.verdicts = requests, {"hit": hits, "miss": requests - hits}
    route.status[2] = requests
    for _ in range(requests):
        route.first_byte.observe(0.004)
    backend.attempts = requests - hits
    return {"routes": {"all": route.delta()}, "backends": {"web": {"b1": [region, backend.delta()]}}}


def column(found: dict[str, Any], name: str) -> list[Any]:
    at = COLUMNS.index(name)
    return [row[at] for row in found["rows"]]


def test_frames_around_the_turn_of_a_second_draw_no_saw() -> None:
    series = Series(EPOCH)
    for number in range(60):  # two workers, each a little before or after the turn by turns
        for worker in (0, 1):
            late = 0.02 if (number + worker) % 2 else -0.02
            series.add(worker, counts(100), (5, 1), 100 + number + late)
    drawn = column(series.rows(1, 0, 160.0), "requests")[2:-2]
    assert drawn and min(drawn) > 185 and max(drawn) < 215


@given(st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(0, 1000), st.integers(0, 3)), max_size=40))
def test_nothing_is_lost_or_counted_twice(frames: list[tuple[float, int, int]]) -> None:
    series, now = Series(EPOCH), 50.0
    for step, requests, worker in frames:
        now += step
        series.add(worker, counts(requests), (0, 0), now)
    drawn = column(series.rows(1, 0, now + 10), "requests")
    assert sum(drawn) == pytest.approx(sum(requests for _, requests, _ in frames), abs=0.05)


def test_tens_hold_what_their_seconds_held() -> None:
    series = Series(EPOCH)
    for second in range(200):
        series.add(0, counts(10 + second % 10, hits=5), (7, 2), 100.0 + second)
    seconds, tens = series.rows(1, 0, 300.0), series.rows(10, 0, 320.0)
    by_time = dict(zip(column(seconds, "time"), column(seconds, "requests"), strict=True))
    assert len(tens["rows"]) >= 17
    names = ("time", "requests", "connections")
    for time, requests, connections in zip(*(column(tens, name) for name in names), strict=True):
        assert requests == pytest.approx(sum(by_time.get(time + each, 0) for each in range(10)) / 10, abs=0.01)
        assert connections == 7
    assert tens["regions"]["eu"][5] == pytest.approx(9.5, abs=0.2)


def test_what_is_kept_is_bounded_and_a_silence_is_zero() -> None:
    series = Series(EPOCH)
    for second in range(8000):
        series.add(0, counts(1), (0, 0), float(second))
    assert len(series.rows(1, 0, 9000.0)["rows"]) == SECONDS_KEPT
    assert len(series.rows(10, 0, 9000.0)["rows"]) <= TENS_KEPT
    series.add(0, counts(1), (0, 0), 8100.0)
    assert 0.0 in column(series.rows(1, 0, 9000.0), "requests")
    series.add(0, counts(1), (0, 0), 8_000_000.0)  # no loop over a month of seconds
    assert len(series.rows(1, 0, 9_000_000.0)["rows"]) <= SECONDS_KEPT


def test_only_what_came_later_is_told_again() -> None:
    series = Series(EPOCH)
    for second in range(20):
        series.add(0, counts(3), (0, 0), 100.0 + second)
    first = series.rows(1, 0, 110.0)
    then = series.rows(1, column(first, "time")[-1], 118.0)
    assert column(then, "time")[0] == column(first, "time")[-1] + 1


def test_a_quantile_lies_within_its_bucket() -> None:
    empty = [0.0] * (len(LATENCY_BOUNDS_S) + 1)
    assert quantile(empty, 0.5) is None
    for at, bound in enumerate(LATENCY_BOUNDS_S):
        one = list(empty)
        one[at] = 4.0
        found = quantile(one, 0.99)
        assert found is not None and (LATENCY_BOUNDS_S[at - 1] if at else 0) < found <= bound
    assert quantile([*empty[:-1], 1.0], 0.5) == LATENCY_BOUNDS_S[-1]

"""Probes: rise, fall, flaps; live traffic: outliers; latency: peak EWMA and the region preference."""

from __future__ import annotations

import random
from math import exp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.balance.health import CLEAN_RUN, EjectionSettings, Health, Outlier, ProbeSettings, ProbeState
from edge.balance.latency import TAU_S, Ewma, PeakEwma, Preference, prefer


def feed(state: ProbeState, results: str) -> list[Health]:
    """`+` and `-`: the healths that it changed to."""
    changes = (state.on_result(result == "+", 0.0) for result in results)
    return [change.new for change in changes if change is not None]


UP, DOWN = Health.HEALTHY, Health.UNHEALTHY


@pytest.mark.parametrize(
    ("results", "changes"),
    [
        ("", []),
        ("+", [UP]),  # the first success makes it healthy
        ("--", []),  # unknown stays unknown until `fall`
        ("---", [DOWN]),
        ("-+", [UP]),
        ("+--", [UP]),
        ("+---", [UP, DOWN]),
        ("+---+", [UP, DOWN]),
        ("+---++", [UP, DOWN, UP]),
        ("+---+-++", [UP, DOWN, UP]),
        ("+-++-++-", [UP, DOWN]),  # one of three: failures accumulate over successes
        ("+-" + "+" * 9 + "--", [UP, DOWN]),  # nine do not clear the count
        ("+-" + "+" * 10 + "--", [UP]),  # ten do
        ("+-+-+-" + "+" * 9, [UP, DOWN]),  # down by flapping: `rise` is not enough
        ("+-+-+-" + "+" * 10, [UP, DOWN, UP]),
        ("+---++---++", [UP, DOWN, UP, DOWN]),  # down again before a clean run is flapping too
        ("+---++" + "+" * 10 + "---++", [UP, DOWN, UP, DOWN, UP]),
    ],
)
def test_rise_fall_and_flaps(results, changes):
    assert feed(ProbeState(ProbeSettings()), results) == changes


def test_who_flapped_is_taken_back_at_once_where_nobody_else_is():
    state = ProbeState(ProbeSettings())
    feed(state, "+-+-+-")
    assert [state.on_result(True, 0.0, needed=True) is None for _ in range(2)] == [True, False]
    assert state.health is UP


def test_a_backend_that_was_down_is_seen_to_be_back_within_ten_seconds():
    """The worst case: it recovers just after a probe failed by its timeout, and chance makes every delay long."""
    settings = ProbeSettings()
    state, latest = ProbeState(settings), lambda n: n - 1
    feed(state, "+---")
    took = settings.timeout_s
    while state.health is DOWN:
        took += state.next_delay(latest)
        state.on_result(True, took)
    assert took < 10.0


def transitions_per_minute(fails: object, minutes: int = 10) -> list[int]:
    state = ProbeState(ProbeSettings())
    rng = random.Random(3)
    now, count, number = 0.0, [0] * minutes, 0
    while now < minutes * 60:
        change = state.on_result(not fails(number), now)  # type: ignore[operator]
        if change is not None and change.old is not Health.UNKNOWN:
            count[int(now // 60)] += 1
        number += 1
        now += state.next_delay(rng.randrange)
    return count


def test_a_backend_that_fails_one_probe_in_three_is_taken_out_once():
    counts = transitions_per_minute(lambda number: number % 3 == 2)
    assert sum(counts) == 1


@pytest.mark.parametrize("seed", range(8))
def test_random_flapping_makes_at_most_two_transitions_a_minute(seed):
    rng = random.Random(seed)
    assert max(transitions_per_minute(lambda number: rng.random() < 1 / 3)) <= 2


@given(st.lists(st.booleans(), max_size=200))
@settings(max_examples=100, deadline=None)
def test_no_transition_without_its_evidence(results):
    state = ProbeState(ProbeSettings())
    for index, ok in enumerate(results):
        old = state.health
        change = state.on_result(ok, float(index))
        assert (change is None) == (state.health is old)
        if change is None:
            continue
        assert change.evidence
        assert change.new is (UP if ok else DOWN)
        if ok and old is DOWN:
            assert all(results[index - 1 : index + 1])
        if not ok:
            assert results[: index + 1].count(False) >= 3


def test_probes_are_quick_in_doubt_slow_when_down_and_jittered():
    state = ProbeState(ProbeSettings(interval_s=5.0))
    middle, low, high = (lambda n: n // 2), (lambda n: 0), (lambda n: n - 1)
    assert state.next_delay(middle) == 1.0
    feed(state, "+")
    assert state.next_delay(middle) == 5.0
    assert state.next_delay(low) == pytest.approx(4.5)
    assert state.next_delay(high) == pytest.approx(5.5)
    feed(state, "-")
    assert state.next_delay(middle) == 1.0
    feed(state, "--")
    assert state.next_delay(middle) == 6.0
    assert state.next_delay(middle, needed=True) == 1.0, "nobody else is there"
    feed(state, "+")
    assert state.next_delay(middle) == 1.0
    flapping = ProbeState(ProbeSettings(interval_s=5.0))
    feed(flapping, "+-+-+-")
    assert flapping.next_delay(middle) == 10.0
    assert ProbeState(ProbeSettings(interval_s=0.25)).next_delay(middle) == 0.25


def test_a_live_failure_hurries_the_next_probe_until_it_came():
    state = ProbeState(ProbeSettings())
    feed(state, "+")
    state.hurry()
    assert state.next_delay(lambda n: n // 2) == 1.0
    feed(state, "+")
    assert state.next_delay(lambda n: n // 2) == 5.0


def test_outlier_by_failures_in_a_row():
    outlier = Outlier(EjectionSettings(consecutive=5))
    assert [outlier.on_failure(0.0) for _ in range(4)] == [None] * 4
    outlier.on_success(0.0)
    assert [outlier.on_failure(0.0) is None for _ in range(5)] == [True] * 4 + [False]


def test_outlier_by_success_rate_needs_a_sample_and_forgets_the_window():
    outlier = Outlier(EjectionSettings(consecutive=99, min_sample=20, min_success=0.5, window_s=10))
    for index in range(18):
        outlier.on_success(0.1) if index % 3 == 0 else outlier.on_failure(0.1)
    assert outlier.on_failure(0.2) is None  # 19 is no sample
    assert outlier.on_failure(0.2) == "6 of 20 answers good within 10 s"
    assert outlier.on_failure(30.0) is None  # all that is older than the window


def test_ejection_time_grows_is_capped_and_is_forgotten_by_good_service():
    outlier = Outlier(EjectionSettings(time_s=5, max_time_s=30, forget_s=60))
    assert [outlier.next_time_s(0.0) for _ in range(5)] == [5, 10, 20, 30, 30]
    assert outlier.next_time_s(60.0 * 4) == 10
    assert outlier.next_time_s(1e9) == 5


def test_peak_ewma_jumps_up_at_once_and_decays_with_tau():
    ewma = PeakEwma()
    ewma.observe(0.05, 0.0)
    ewma.observe(1.0, 1.0)
    assert ewma.cost(1.0) == 1.0
    assert ewma.cost(1.0 + TAU_S) == pytest.approx(exp(-1))
    ewma.observe(0.05, 1.0 + TAU_S)
    assert ewma.cost(1.0 + TAU_S) == pytest.approx(exp(-1) + 0.05 * (1 - exp(-1)))


@given(st.lists(st.tuples(st.floats(0.0001, 10), st.floats(0, 30)), min_size=1, max_size=40))
@settings(max_examples=150, deadline=None)
def test_peak_ewma_is_never_below_its_latest_sample_and_never_above_the_worst(samples):
    ewma, now = PeakEwma(), 0.0
    for sample, wait in samples:
        now += wait
        ewma.observe(sample, now)
        assert sample * 0.999999 <= ewma.cost(now) <= max(s for s, _ in samples) * 1.000001


def test_a_failure_costs_five_seconds_or_what_it_took():
    fast, slow = PeakEwma(), PeakEwma()
    fast.fail(0.001, 0.0)
    slow.fail(9.0, 0.0)
    assert (fast.cost(0.0), slow.cost(0.0)) == (5.0, 9.0)
    fast.seed(0.01, 0.0)  # seeds do not overrule what live traffic said
    assert fast.cost(0.0) == 5.0


def test_region_ewma_follows():
    ewma = Ewma()
    ewma.observe(0.1, 0.0)
    for step in range(1, 60):
        ewma.observe(0.2, float(step))
    assert ewma.value == pytest.approx(0.2, rel=0.02)


def test_the_preferred_region_changes_only_for_twenty_percent_and_ten_ms_for_thirty_seconds():
    first = prefer(["a", "b"], {"a": 0.100, "b": 0.120}, Preference(), 0.0)
    assert first.region == "a"
    for b in (0.081, 0.095):  # 19 %; 5 %
        assert prefer(["a", "b"], {"a": 0.100, "b": b}, first, 0.0) == Preference("a")
    assert prefer(["a", "b"], {"a": 0.020, "b": 0.011}, first, 0.0) == Preference("a")  # 45 %, but 9 ms
    better = {"a": 0.100, "b": 0.060}
    waiting = prefer(["a", "b"], better, first, 10.0)
    assert prefer(["a", "b"], better, waiting, 39.9).region == "a"
    assert prefer(["a", "b"], better, waiting, 40.0).region == "b"
    broken = prefer(["a", "b"], {"a": 0.1, "b": 0.1}, waiting, 20.0)
    again = prefer(["a", "b"], better, broken, 21.0)
    assert prefer(["a", "b"], better, again, 40.0).region == "a"  # without a break
    assert prefer(["b"], better, first, 0.0).region == "b"  # the preferred one is gone


def test_clean_run_is_gdnsds_ten():
    assert CLEAN_RUN == 10

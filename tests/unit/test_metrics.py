"""Counters: sums of deltas are the whole, and a quantile is an upper bound that never falls as q grows."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.slots import names_of

from edge.metrics import HELP, LATENCY_BOUNDS_S, PROTOCOLS, Histogram, Meter

SECONDS = st.floats(0, 100, allow_nan=False)
OUTCOMES = st.tuples(
    st.sampled_from((0, 200, 304, 599, 600)),
    st.sampled_from(("hit", "miss")),
    st.sampled_from(("", "cold")),
    st.sampled_from(("", "connection_refused")),
    st.integers(0, len(PROTOCOLS) - 1),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("requests"), st.integers(0, 5)),
        st.tuples(st.just("bytes_out"), st.integers(0, 1 << 40)),
        st.tuples(st.just("status"), st.integers(0, 5)),
        st.tuples(st.just("reasons"), st.sampled_from(("a", "b"))),
        st.tuples(st.just("sample"), SECONDS),
        st.tuples(st.just("outcomes"), OUTCOMES),
        st.tuples(st.just("heads"), st.integers(0, 999)),
        st.tuples(st.just("send"), st.none()),
    ),
    max_size=30,
)


_HISTOGRAMS = ("latency", "first_byte")


def do(meter: Meter, what: str, value: Any) -> None:
    if what == "status":
        meter.status[value] += 1
    elif what == "reasons":
        meter.reasons[value] = meter.reasons.get(value, 0) + 1
    elif what in ("outcomes", "heads"):
        getattr(meter, what).append(value)
    elif what == "sample":
        meter.samples.append(value)
        meter.first_samples.append(value / 2)
    else:
        setattr(meter, what, getattr(meter, what) + value)


def shown(meter: Meter) -> object:
    meter.fold()
    numbers = {name: getattr(meter, name) for name in names_of(Meter) if name not in _HISTOGRAMS}
    told = zip(PROTOCOLS, numbers.pop("asked_by"), strict=True)  # which the control plane has as words
    numbers["protocols"] = {**numbers["protocols"], **{word: count for word, count in told if count}}
    both = [getattr(meter, name) for name in _HISTOGRAMS]
    return numbers, [(each.counts, each.total, round(each.total_s, 6)) for each in both]


@given(STEPS)
@settings(max_examples=100)
def test_the_sum_of_all_deltas_is_the_whole(steps: list[tuple[str, object]]) -> None:
    whole, worker, control = Meter(), Meter(), Meter()
    for what, value in [*steps, ("send", None)]:
        if what == "send":
            control.add(orjson.loads(orjson.dumps(worker.delta())))
        else:
            do(whole, what, value)
            do(worker, what, value)
    assert shown(control) == shown(whole)
    assert shown(worker) == shown(Meter()), "and the worker begins again"


@given(st.lists(SECONDS, min_size=1, max_size=50), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_quantile_is_an_upper_bound(samples: list[float], q: float, r: float) -> None:
    histogram = Histogram()
    for seconds in samples:
        histogram.observe(seconds)
    low, high = histogram.quantile(min(q, r)), histogram.quantile(max(q, r))
    assert low is not None
    assert high is not None
    assert low <= high
    assert sum(1 for seconds in samples if seconds <= high) >= max(q, r) * len(samples)


def test_bounds_belong_to_their_bucket_and_an_empty_histogram_says_nothing() -> None:
    histogram = Histogram()
    assert histogram.quantile(0.5) is None
    histogram.observe(LATENCY_BOUNDS_S[0])
    histogram.observe(LATENCY_BOUNDS_S[-1] + 1)
    assert histogram.counts[0] == histogram.counts[-1] == 1
    assert histogram.quantile(0.99) == float("inf")


@given(st.lists(SECONDS, max_size=50), *(st.sets(st.floats(0.0001, 60), min_size=1, max_size=8) for _ in range(2)))
def test_other_bounds_are_exact_where_they_are_among_its_own(
    samples: list[float], shown_by: set[float], later: set[float]
) -> None:
    wanted = tuple(sorted(shown_by))
    by_both, plain = Histogram(tuple(sorted({*LATENCY_BOUNDS_S, *wanted}))), Histogram(wanted)
    for histogram in (by_both, plain):
        histogram.observe_all(list(samples))
    assert by_both.counts_in(wanted) == plain.counts
    by_both.count_by(tuple(sorted(later)))
    for bound in later:  # what went to a coarser one is never told below where it was
        assert sum(by_both.counts[: by_both.bounds.index(bound) + 1]) <= sum(one <= bound for one in samples)


@given(st.lists(SECONDS, max_size=20), st.lists(SECONDS, max_size=20), st.sets(st.floats(0.0001, 60), max_size=4))
def test_sums_of_other_bounds_keep_both(old: list[float], new: list[float], added: set[float]) -> None:
    control, worker = Meter(), Meter()
    bounds = tuple(sorted({*LATENCY_BOUNDS_S, *added}))
    for samples in (old, new):
        worker.samples += samples
        control.add(orjson.loads(orjson.dumps(worker.delta())))
        worker.count_by(bounds)  # a reload
    usual = Histogram()
    usual.observe_all([*old, *new])
    assert control.latency.counts_in(LATENCY_BOUNDS_S) == usual.counts
    for bound in added:
        count = sum(control.latency.counts_in((bound,))[:1])
        assert sum(one <= bound for one in new) <= count <= sum(one <= bound for one in [*old, *new])


def test_every_number_is_declared() -> None:
    until_the_next_fold = {"samples", "first_samples", "hits_by", "hit_bytes", "asked_by", "outcomes", "heads"}
    assert set(names_of(Meter)) - until_the_next_fold == set(HELP)


def test_outcomes_are_counted_in_each_number_that_tells_of_them() -> None:
    meter = Meter()
    meter.outcomes += [(200, "miss", "cold", "", 1), (200, "miss", "cold", "", 1), (502, "bypass", "", "refused", 2)]
    meter.outcomes.append((0, "bypass", "", "", 0))  # ended without a head
    meter.heads += [200, 503, 999]
    meter.fold()
    assert (meter.requests, meter.status) == (7, [2, 0, 3, 0, 0, 2])
    assert (meter.verdicts, meter.reasons, meter.errors) == ({"miss": 2, "bypass": 2}, {"cold": 2}, {"refused": 1})
    assert meter.asked_by[:3] == [1, 2, 1]
    meter.fold()
    assert meter.requests == 7

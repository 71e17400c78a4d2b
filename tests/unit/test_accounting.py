"""Windows, rates and percentiles: against a plain sum over all that was added."""

from __future__ import annotations

import json
import math
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.cache.accounting import SAMPLE_S, SAMPLES_KEPT, WINDOWS, Account, Accounts, Tally, worth
from edge.metrics import Meter

NAMES = [field.name for field in fields(Tally)]
TALLIES = st.builds(Tally, **{name: st.integers(0, 1000) for name in NAMES})
GAPS = st.sampled_from([0.0, 0.3, 1.0, 20.0, 61.0, 300.0, 3600.0])


def summed(tallies: list[Tally]) -> Tally:
    return Tally(**{name: sum(getattr(tally, name) for tally in tallies) for name in NAMES})


@given(st.lists(st.tuples(GAPS, TALLIES), max_size=30), GAPS)
@settings(max_examples=100, deadline=None)
def test_each_window_is_the_sum_of_what_came_within_it(events: list[tuple[float, Tally]], rest: float) -> None:
    account, now, added = Account(), 1_000_000.0, []
    for gap, tally in events:
        now += gap
        account.add(tally, now)
        added.append((now, tally))
    now += rest
    for name, seconds in WINDOWS.items():
        span = 60 if name == "1h" else 1
        first = now // span - seconds // span
        assert account.window(name, now) == summed([tally for when, tally in added if when // span > first])
    assert account.window("lifetime", now) == summed([tally for _, tally in added])
    assert len(account._seconds._buckets) <= 300
    assert len(account._minutes._buckets) <= 60


@given(st.lists(TALLIES, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_workers_deltas_add_up_in_any_order(tallies: list[Tally], random: object) -> None:
    shuffled = list(tallies)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, two = Accounts(), Accounts()
    for tally in tallies:
        one.add("r", tally, 5.0)
    for tally in shuffled:
        two.add("r", Tally.from_dict(json.loads(json.dumps(tally.to_dict()))), 5.0)
    assert one.report(6.0) == two.report(6.0)
    assert one.report(6.0)["total"] == one.report(6.0)["routes"]["r"]


def test_a_clock_that_jumps_back_loses_nothing() -> None:
    account = Account()
    account.add(Tally(requests=1), 1000.0)
    account.add(Tally(requests=2), 10.0)
    assert account.window("1m", 1000.0).requests == 3
    assert account.lifetime.requests == 3


def test_the_ratios_by_their_definitions() -> None:
    meter = Meter()
    meter.requests = 20
    meter.verdicts = {"hit": 7, "stale": 1, "revalidated": 2, "collapsed": 3, "miss": 2, "error": 1, "bypass": 4}
    meter.bytes_in, meter.bytes_out, meter.cache_out = 5, 1000, 700
    meter.origin_in, meter.origin_out, meter.attempts = 400, 5, 8
    tally = Tally.from_meter(meter.delta())
    assert (tally.eligible, tally.hits, tally.collapsed) == (16, 10, 3)
    found = worth(tally)
    assert found.hit_rate == 10 / 16
    assert found.byte_hit_rate == 0.7
    assert found.offload == 1 - 8 / 20
    assert found.saved_bytes == 600


def test_nothing_counted_is_no_rate_rather_than_zero() -> None:
    found = worth(Tally())
    assert (found.hit_rate, found.byte_hit_rate, found.offload, found.saved_bytes) == (None, None, None, 0)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=60))
def test_the_95th_percentile_is_the_nearest_rank(counts: list[int]) -> None:
    account = Account()
    for number, count in enumerate(counts):
        account.add(Tally(client_out=count), number * SAMPLE_S + 7.0)
    report = account.report(len(counts) * SAMPLE_S)
    wanted = sorted(counts)[math.ceil(0.95 * len(counts)) - 1] / SAMPLE_S
    assert report["p95_client_out_per_s"] == wanted
    assert report["p95_origin_in_per_s"] == 0


def test_the_sample_that_is_not_whole_does_not_count_and_silence_does() -> None:
    account = Account()
    account.add(Tally(client_out=300), 0.0)
    assert account.report(299.0)["p95_client_out_per_s"] is None
    assert account.report(300.0)["p95_client_out_per_s"] == 1.0
    account.report(300.0 * 40)
    assert account._client_out.p95(300.0 * 40) == 0.0
    account.report(300.0 * 10 * SAMPLES_KEPT)
    assert len(account._client_out._rates) == SAMPLES_KEPT


def test_a_report_is_json_and_has_every_window() -> None:
    accounts = Accounts()
    accounts.add("web", Tally(requests=4, eligible=4, hits=3, client_out=600, origin_in=60, origin_requests=1), 100.0)
    report = json.loads(json.dumps(accounts.report(100.0)))
    assert set(report["routes"]["web"]) >= {"1m", "5m", "1h", "lifetime"}
    assert report["total"]["1m"]["client_out_per_s"] == 10.0
    assert report["total"]["5m"]["origin_in_per_s"] == 0.2
    assert report["total"]["1h"]["hit_rate"] == 0.75


def test_lifetimes_survive_a_restart() -> None:
    accounts = Accounts()
    accounts.add("a", Tally(requests=1), 0.0)
    accounts.add("b", Tally(requests=2), 0.0)
    restored = Accounts.from_dict(json.loads(json.dumps(accounts.to_dict())))
    assert restored.total.lifetime == accounts.total.lifetime
    assert restored.routes["b"].lifetime.requests == 2
    assert restored.total.window("1m", 0.0).requests == 0


def test_an_unknown_window_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(KeyError):
        Account().window("2m", 0.0)


def test_what_the_gateway_fetched_by_itself_is_no_clients() -> None:
    meter = Meter()
    meter.requests, meter.attempts, meter.own, meter.retries = 4, 12, 9, 1  # nine warmed, one retry, two misses
    tally = Tally.from_meter(meter.delta())
    assert worth(tally).offload == 1 - 2 / 4
    assert tally.origin_requests == 12

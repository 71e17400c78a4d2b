"""What workers counted, summed: nothing twice, nothing lost with a worker but what it held."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from edge.control.admin.exposition import exposition
from edge.control.totals import Totals
from edge.metrics import Meter

COUNTS = st.tuples(
    st.integers(0, 2), st.sampled_from(["a", "b"]), st.integers(0, 50), st.sampled_from(["hit", "miss", "bypass"])
)


def frame(route: str, requests: int, verdict: str) -> dict[str, Any]:
    """A COUNTS body as it comes over the link."""
    meter = Meter()
    meter.requests = meter.status[2] = requests
    meter.bytes_out = 10 * requests
    if requests:
        meter.verdicts[verdict] = requests
    for _ in range(requests):
        meter.latency.observe(0.004)
    body = {"routes": {route: meter.delta()}, "counters": {"bugs": 1}, "gauges": {"connections": requests}}
    return dict(orjson.loads(orjson.dumps(body)))


@settings(max_examples=100)
@given(st.lists(COUNTS, max_size=12))
def test_sums_are_what_was_sent_in_any_order(sent: list[tuple[int, str, int, str]]) -> None:
    totals, backwards = Totals(), Totals()
    for worker, route, requests, verdict in sent:
        totals.add(worker, frame(route, requests, verdict), 100.0)
    for worker, route, requests, verdict in reversed(sent):
        backwards.add(worker, frame(route, requests, verdict), 100.0)
    for route in ("a", "b"):
        want = sum(requests for _, name, requests, _ in sent if name == route)
        if route in totals.routes:
            assert totals.routes[route].requests == backwards.routes[route].requests == want
            assert totals.routes[route].latency.total == want
    assert totals.accounts.total.lifetime.requests == sum(requests for _, _, requests, _ in sent)
    assert totals.counters.get("bugs", 0) == len(sent)


def test_a_workers_gauges_replace_its_own_and_go_with_it() -> None:
    totals = Totals()
    totals.add(0, {"gauges": {"connections": 5, "in_flight": {"p": {"b": 2}}, "store": {"bytes": 10}}}, 1.0)
    totals.add(0, {"gauges": {"connections": 3, "in_flight": {"p": {"b": 1}}, "store": {"bytes": 20}}}, 2.0)
    totals.add(1, {"gauges": {"connections": 4, "in_flight": {"p": {"b": 4}}, "store": {"bytes": 1}}}, 2.0)
    assert (totals.gauge("connections"), totals.in_flight("p", "b"), totals.store()) == (7, 5, {"bytes": 21})
    totals.forget(0)
    assert (totals.gauge("connections"), totals.in_flight("p", "b"), totals.store()) == (4, 4, {"bytes": 1})


def test_the_text_is_what_prometheus_reads() -> None:
    totals = Totals()
    totals.add(0, frame('we"ird\n', 3, "hit"), 1.0)
    text = exposition(totals, lambda: [("edge_ready", "Ready", {}, 1.0)]).decode()
    found = {sample.name: sample for family in text_string_to_metric_families(text) for sample in family.samples}
    assert found["edge_requests_total"].labels == {"route": 'we"ird\n'}
    assert found["edge_requests_total"].value == 3
    assert found["edge_latency_seconds_count"].value == 3
    assert found["edge_ready"].value == 1


def test_what_was_removed_leaves_the_counters_after_a_while() -> None:
    totals = Totals()

    def counted(identity: str, region: str) -> None:
        meter = Meter()
        meter.attempts = 1
        totals.add(0, {"backends": {"web": {identity: [region, meter.delta()]}}}, 0.0)

    for number in range(100):
        counted(f"b{number}", f"r{number}")
    there = {("web", "b0")}
    totals.prune(there, {"r0"}, 1000.0)
    assert len(totals.backends) == 100  # the last counts may still be scraped
    totals.prune({*there, ("web", "b1")}, {"r0"}, 1200.0)  # one came back
    totals.prune(there, {"r0"}, 1301.0)
    assert set(totals.backends) == {("web", "b0"), ("web", "b1")}
    assert set(totals.regions) == {"r0"}
    totals.prune(there, {"r0"}, 1700.0)
    assert set(totals.backends) == there
    assert totals.pools["web"].attempts == 100
    assert totals._gone == {}

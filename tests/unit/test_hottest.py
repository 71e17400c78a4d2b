"""What is asked for most: parts are near the truth, memory is bounded, secrets in queries are not shown."""

from __future__ import annotations

import random

import orjson
import pytest

from edge.control.hottest import merged
from edge.dataplane.worker.hottest import MOST, WINDOW_S, WINDOWS, Hottest


def line(target: str, verdict: str = "hit", status: int = 200, sent: int = 1000) -> bytes:
    found = {"host": "www.example.com", "target": target, "route": "all", "verdict": verdict, "status": status}
    return orjson.dumps({**found, "bytes_out": sent}) + b"\n"


def test_parts_are_near_the_truth_and_the_query_is_not_shown() -> None:
    chance, hottest = random.Random(1), Hottest()
    for tick in range(200):
        lines = [line(f"/{min(9, int(chance.expovariate(0.7)))}?token=secret") for _ in range(500)]
        hottest.take(lines, tick * 0.25)
    found = merged([hottest.report(20, 50.0), hottest.report(20, 50.0)], 20, 2000.0)
    first = found["objects"][0]
    assert first["url"] == "www.example.com/0"
    assert first["share"] == pytest.approx(0.503, abs=0.03)
    assert first["requests_per_s"] == pytest.approx(first["share"] * 2000, rel=0.01)
    assert first["hit_rate"] == 1.0 and first["error_rate"] == 0.0
    assert first["bytes_per_s"] == pytest.approx(first["requests_per_s"] * 1000, rel=0.01)
    assert "secret" not in str(found)
    assert sum(row["share"] for row in found["objects"]) == pytest.approx(1.0, abs=0.001)


def test_it_is_bounded_and_forgets() -> None:
    hottest = Hottest()
    for tick in range(2000):
        hottest.take([line(f"/{tick}/{number}") for number in range(48)], tick * 0.25)
    assert len(hottest.report(10**6, 500.0)["rows"]) <= MOST * WINDOWS
    hottest.take([line("/now")] * 10, 10_000.0)
    for each in range(1, WINDOWS):
        hottest.take([line("/now")] * 10, 10_000.0 + each * WINDOW_S)
    assert [row[1] for row in hottest.report(100, 10_100.0)["rows"]] == ["www.example.com/now"]


def test_other_lines_do_no_harm() -> None:
    hottest = Hottest()
    combined = b'192.0.2.1 - - [27/Nov/2026:08:00:00 +0000] "GET /a?b HTTP/1.1" 502 17 "-" "curl"\n'
    hottest.take([combined, b"{broken\n", b"\n", combined.replace(b" 17 ", b" - ")], 1.0)
    found = merged([hottest.report(10, 2.0)], 10, 10.0)
    assert [(row["url"], row["hit_rate"], row["error_rate"]) for row in found["objects"]] == [("/a", None, 1.0)]
    assert merged([], 10, 0.0) == {"objects": [], "sampled": 0, "window_s": 0.0}

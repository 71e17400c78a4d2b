"""What the cache counts: verdicts, reasons and bytes of every path, and the ratios that control makes of them."""

from __future__ import annotations

from typing import Any

import pytest
from kit.cachelab import Lab, head, open_lab
from kit.origin import Step

from edge.cache.accounting import Tally, worth
from edge.control.totals import Totals
from edge.dataplane.worker.report import Counting

FRESH = "Cache-Control: max-age=60"
BODY = "0123456789"


def counted(lab: Lab) -> dict[str, Any]:
    """The route's delta as the worker sends it."""
    found: dict[str, Any] = Counting(lab.worker).body()["routes"].get("*/", {})
    return found


async def prepare(lab: Lab, *lines: str) -> None:
    """Something stored, and the counters at zero."""
    lab.fresh()
    lab.says(*(lines or (FRESH, 'ETag: "a"')), body=BODY)
    await lab.ask()
    counted(lab)


async def test_a_miss_then_hits() -> None:
    async with open_lab() as lab:
        lab.fresh()
        lab.says(FRESH, body=BODY)
        await lab.ask()
        found = counted(lab)
        assert (found["verdicts"], found["reasons"]) == ({"miss": 1}, {"cold": 1})
        assert (found["bytes_out"], found["cache_out"], found["origin_in"], found["attempts"]) == (10, 0, 10, 1)
        for lines in ((), ("Range: bytes=0-3",), ('If-None-Match: "x"',), ("Cache-Control: max-age=60",)):
            await lab.ask(*lines)
        await lab.ask(method="HEAD")
        found = counted(lab)
        assert (found["verdicts"], found["reasons"]) == ({"hit": 5}, {})
        assert (found["bytes_out"], found["cache_out"], found["origin_in"], found["attempts"]) == (34, 34, 0, 0)


@pytest.mark.parametrize(
    ("name", "asked", "verdict", "reason", "bytes_"),
    [
        ("304", (), "revalidated", "stale", (10, 10, 0)),
        ("200", (), "miss", "stale", (3, 0, 3)),
        ("304", ('If-None-Match: "a"',), "revalidated", "stale", (0, 0, 0)),
        ("close", (), "stale", "connect-error", (10, 10, 0)),
        ("404", (), "miss", "no-freshness", (3, 0, 3)),
    ],
)
async def test_what_is_stale(
    name: str, asked: tuple[str, ...], verdict: str, reason: str, bytes_: tuple[int, int, int]
) -> None:
    async with open_lab() as lab:
        await prepare(lab)
        lab.later(61)
        if name == "close":
            lab.answers(Step.CLOSE)
            lab.answers(Step.CLOSE)
        else:
            lab.says(*((FRESH,) if name != "404" else ()), status=int(name), body="new")
        await lab.ask(*asked)
        found = counted(lab)
        assert (found["verdicts"], found["reasons"]) == ({verdict: 1}, {reason: 1})
        assert (found["bytes_out"], found["cache_out"], found["origin_in"]) == bytes_


async def test_stale_while_revalidate_and_stale_if_error() -> None:
    async with open_lab() as lab:
        await prepare(lab, "Cache-Control: max-age=60, stale-while-revalidate=60, stale-if-error=600")
        lab.later(61)
        lab.says(status=500)
        await lab.ask()
        await lab.rest()
        found = counted(lab)
        assert (found["verdicts"], found["reasons"], found["requests"]) == ({"stale": 1}, {"stale": 1}, 1)
        assert found["attempts"] == 1  # the refresh behind it
        lab.later(60)
        lab.says(status=503, body="sick")
        await lab.ask()
        found = counted(lab)
        assert (found["verdicts"], found["reasons"], found["cache_out"]) == ({"stale": 1}, {"status-error": 1}, 10)


async def test_errors_bypasses_and_refusals() -> None:
    async with open_lab("bypass = { paths = ['/private'] }, name = 'shop'") as lab:
        await prepare(lab)
        for script, lines, how, verdict, reason in (
            ((Step.CLOSE,), (), {"target": "/gone", "method": "POST"}, "error", "method"),
            ((head(200, (), 0),), (), {"method": "POST"}, "bypass", "method"),
            ((head(200, (), 0),), ("Cache-Control: no-store",), {}, "bypass", "no-store"),
            ((head(200, (FRESH,), 0),), (), {"target": "/private/x"}, "bypass", "rule:shop"),
            ((), ("Cache-Control: only-if-cached",), {"target": "/n"}, "miss", "only-if-cached"),
            ((head(200, ("Cache-Control: private",), 0),), (), {"target": "/p"}, "miss", "private"),
        ):
            if script:
                lab.answers(*script)
            await lab.ask(*lines, **how)  # type: ignore[arg-type]
            found = counted(lab)
            assert (found["verdicts"], found["reasons"]) == ({verdict: 1}, {reason: 1}), reason


async def test_upload_bytes_are_counted_on_both_sides() -> None:
    async with open_lab() as lab:
        lab.fresh()
        lab.says()
        await lab.ask(method="POST", body=b"x" * 1000)
        found = counted(lab)
        assert (found["bytes_in"], found["origin_out"]) == (1000, 1000)


async def test_windows_of_the_control_plane() -> None:
    async with open_lab() as lab:
        await prepare(lab)
        for _ in range(8):
            await lab.ask()
        lab.says("Cache-Control: no-store", body=BODY)
        await lab.ask(target="/other")
        lab.says(body=BODY)
        await lab.ask(method="POST", body=b"")
        totals = Totals()
        totals.add(1, Counting(lab.worker).body(), 100.0)
        tally = totals.accounts.routes["*/"].window("1m", 100.0)
        assert tally == Tally(
            requests=10, eligible=9, hits=8, client_out=100, cache_out=80, origin_in=20, origin_requests=2
        )
        found = worth(tally)
        assert found.hit_rate == pytest.approx(8 / 9)
        assert (found.byte_hit_rate, found.offload, found.saved_bytes) == (0.8, 0.8, 80)

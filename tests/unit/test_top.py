"""`edge top`: whatever the terminal's size and whatever the names, no line is longer and no screen higher than it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from edge.cli.top import Seen, spark, view
from edge.control.series import COLUMNS

NASTY = ["[red]x[/red]", "a\x1b[2Jb", "長" * 40, "\u202eabc", "x" * 300, "plain"]


def numbers(**more: Any) -> dict[str, Any]:
    found = dict.fromkeys(("requests", "attempts", "retries", "bytes_out"), 12_345)
    quantiles = {f"{total}{name}_ms": 12.5 for name in ("p50", "p90", "p99") for total in ("", "total_")}
    return {**found, "status": {"5xx": 3}, "errors": {"refused": 2}, **quantiles, **more}


def seen(many: int) -> Seen:
    """A gateway with so many of everything."""
    names = [f"{NASTY[at % len(NASTY)]}{at}" for at in range(many)]
    wrong = {"admin": "active", "health": "unhealthy", "probe_ms": None}
    backends = [
        numbers(id=name, pool=name, region=name, ejected=at % 2, in_flight=at, **wrong) for at, name in enumerate(names)
    ]
    regions = [
        {"pool": n, "name": n, "tier": 0, "admin": "draining", "health": "degraded", "share": 33.33, "ramping": 40.0}
        for n in names
    ]
    window = {"requests": 60, "hits": 30, "eligible": 50, "client_out_per_s": 1e9}
    status = {
        "ready": False,
        "readiness": "starting",
        "uptime_s": 100_000.0,
        "workers": [{"state": "ready"}, {"state": "starting"}],
        "requests": {
            "connections": 10_000,
            "protocols": [
                {"protocol": "HTTP/1.1", "tls": "", "requests": 250},
                {"protocol": "HTTP/2.0", "tls": "TLSv1.3", "requests": 750},
            ],
            "routes": {name: numbers() for name in names},
        },
        "regions": regions,
        "backends": backends,
        "events": [{"id": 1, "time": "2026-11-27T08:00:00.000Z", "kind": "a.b", "fact": name} for name in names],
    }
    series = {"columns": list(COLUMNS), "rows": [[float(at)] * len(COLUMNS) for at in range(many)]}
    series["regions"] = {name: [1.0] * many for name in names}
    cache = {
        "store": {"bytes": 1e9, "budget_bytes": 2e9, "objects": 1e6, "disk_hits": 5},
        "disk": {"bytes": 1e12, "budget_bytes": 1e13, "objects": 1e9, "hits": 5},
        "total": {"lifetime": {"hits": 10}},
        "routes": {name: {"1m": window} for name in names},
    }
    rows = [
        {"url": n, "route": n, "requests_per_s": 1e5, "share": 0.5, "hit_rate": None, "bytes_per_s": 1e9} for n in names
    ]
    return Seen(status, series, cache, {"objects": rows, "sampled": 10, "window_s": 60.0})


@pytest.mark.parametrize("columns", [40, 60, 80, 109, 110, 132, 200, 300])
@pytest.mark.parametrize("rows", [10, 24, 60])
@pytest.mark.parametrize("many", [0, 1, 40])
def test_it_fits(columns: int, rows: int, many: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=columns, color_system=None, highlight=False, markup=False, emoji=False)
    console.print(view(seen(many), columns, rows))
    lines = out.getvalue().splitlines()
    assert max(cell_len(line) for line in lines) <= columns
    assert len(lines) <= rows
    text = out.getvalue()
    assert "\x1b" not in text and "\u202e" not in text
    if many and rows >= 24:
        assert "Regions" in text and "Backends" in text
    if many and columns >= 110 and rows == 60:
        assert "75.0% HTTP/2  75.0% TLS" in text
        assert all(word in text for word in ("Store", "Routes", "Most requested", "Events", "of 40)"[:3]))


def test_the_line_of_blocks_is_as_high_as_what_it_shows() -> None:
    assert str(spark([0, 1, 2, 4], 100)).startswith("▁▂▄█")
    assert str(spark([], 100)) == str(spark([0, 0], 100)) == "no requests in the last minute"

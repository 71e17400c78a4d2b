"""`edge simulate` against the real thing: what it said would come is what came, and asking touched nothing."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from kit.regions import FENCED, Load, Regions, of, spread
from kit.waiting import until


def shares(found: Any, what: str, when: str) -> dict[str, float]:
    """Percent by name, without those that get nothing."""
    return {row["name"]: row[when] for row in found["pools"][0][what] if row[when]}


async def test_a_rehearsed_loss_and_the_real_one_agree(regions: Regions) -> None:
    await regions.start(more=FENCED)
    before = await regions.pool()
    told = await regions.cli("simulate", "--lose", "eu", "--json")
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    after = await regions.pool()
    assert after["view"] == before["view"], "a rehearsal touches nothing"
    assert found["refused"] == ["route fenced: no region that may serve it is left"]
    async with Load(regions.gateway.http_port) as load:
        assert spread(await load.more(40)) == pytest.approx(shares(found, "regions", "before"))
        await regions.lose("eu")
        await regions.until_share("us")
        await load.become(of("us"))
        seen = await load.more(100)
    assert spread(seen) == pytest.approx(shares(found, "regions", "after"))
    counts = {name: float(count) for name, count in Counter(body for _, body in seen).items()}
    assert counts == pytest.approx(shares(found, "backends", "after"), abs=3)
    assert load.failed == []


async def test_a_rehearsed_spill_and_the_real_one_agree(regions: Regions) -> None:
    # One of two is 50 %: by Envoy's factor the tier takes 70 %, the next one the rest.
    await regions.start()
    found = (await regions.api("POST", "/v1/simulate", {"down": ["web/eu-1"]})).body
    assert shares(found, "regions", "after") == pytest.approx({"eu": 70, "us": 30}, abs=1)
    await regions.origins["eu-1"].stop()
    await regions.until(lambda pool: pool["regions"]["eu"]["health"] == "degraded")
    async with Load(regions.gateway.http_port) as load:
        await until(lambda: any(map(of("us"), load.answers)))  # the worker has heard of it
        seen = await load.more(200)
    assert spread(seen) == pytest.approx(shares(found, "regions", "after"), abs=2)
    assert load.failed == []


async def test_a_slow_backend_and_less_capacity_can_be_supposed(regions: Regions) -> None:
    await regions.start('balance = "least-connections"\n')
    slow = await regions.cli("simulate", "--slow", "web/eu-1=500", "--json")
    assert slow.returncode == 0, slow.stderr
    after = shares(json.loads(slow.stdout), "backends", "after")
    assert after.get("eu-1", 0) < after["eu-2"]
    short = (await regions.api("POST", "/v1/simulate", {"capacity": {"eu": 50}})).body
    assert shares(short, "regions", "after") == pytest.approx({"eu": 70, "us": 30}, abs=1)
    for wrong in ("--lose mars", "--down web/none", "--slow web/eu-1=x", ""):
        refused = await regions.cli("simulate", *wrong.split())
        assert refused.returncode != 0
        assert len(refused.stderr.strip().splitlines()) >= 1
        assert "Traceback" not in refused.stderr

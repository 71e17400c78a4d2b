"""A region is lost and comes back, under load: no request fails, traffic moves and returns, fences hold."""

from __future__ import annotations

import pytest
from kit.client import RawClient
from kit.origin import OK, Step
from kit.regions import FENCED, QUICK_PROBES, Load, Regions, of, spread
from kit.waiting import WAIT_S

SWITCH = 'failover = "switch"\ndown_after = "300ms"\nup_after = "500ms"\nmin_dwell = "500ms"\n'


@pytest.mark.parametrize("pool", ["", SWITCH], ids=["spill", "switch"])
async def test_a_lost_region_fails_no_request_and_comes_back(regions: Regions, pool: str) -> None:
    await regions.start(pool)
    async with Load(regions.gateway.http_port) as load:
        assert spread(await load.more(50)) == {"eu": 100}
        await regions.lose("eu")
        await regions.until_share("us")
        await load.become(of("us"))
        assert spread(await load.more(50)) == {"us": 100}
        await regions.give_back("eu")
        await regions.until_share("eu")
        await load.become(of("eu"))
        assert spread(await load.more(50)) == {"eu": 100}
    assert load.failed == []
    kinds = [event["kind"] for event in await regions.events()]
    assert kinds.count("region.switch") == (2 if pool else 0)


async def test_traffic_comes_back_by_and_by(regions: Regions) -> None:
    await regions.start(ramp="8s")  # longer than a machine stands still
    await regions.lose("eu")
    await regions.until_share("us")
    await regions.give_back("eu")
    seen: set[float] = set()

    def back(found: dict[str, dict[str, dict[str, float]]]) -> bool:
        seen.add(found["view"]["shares"].get("eu", 0.0))
        return max(seen) == 100

    await regions.until(back)
    between = sorted(share for share in seen if 0 < share < 100)
    assert len(between) >= 2, "it went back in one step"
    assert between[0] < 60


async def test_a_fence_answers_503_and_never_from_another_region(regions: Regions) -> None:
    await regions.start(more=FENCED)
    async with Load(regions.gateway.http_port, host="fenced.example") as load:
        assert spread(await load.more(30)) == {"eu": 100}
        await regions.lose("eu")
        await regions.until_share("us")
        await load.become(lambda answer: answer[0] == 503)
        assert {status for status, _ in await load.more(30)} == {503}
    assert not any(body.startswith("us") for _, body in load.answers)
    assert {status for status, _ in load.answers} <= {200, 502, 503}
    client = await RawClient.connect(regions.gateway.http_port)
    try:
        refused = await client.get("/work", "fenced.example")
        assert refused.status == 503
        assert (await client.get("/work")).body.content.startswith(b"us")
    finally:
        await client.close()


async def test_one_backend_lost_stays_in_its_region(regions: Regions) -> None:
    await regions.start()
    async with Load(regions.gateway.http_port) as load:
        await load.more(20)
        await regions.origins["eu-1"].stop()
        await regions.until(lambda found: found["regions"]["eu"]["health"] == "degraded")
        late = await load.more(60)
    assert load.failed == []
    assert "eu-1" not in {body for _, body in late}
    assert "eu-2" in {body for _, body in late}


async def test_a_region_that_hangs_fails_nothing_and_is_left(regions: Regions) -> None:
    await regions.start('retry = { hedge = "300ms" }\n')
    async with Load(regions.gateway.http_port) as load:
        await load.more(40)
        for name in ("eu-1", "eu-2"):
            for target in ("/work", "/healthz"):
                regions.origins[name].route(target, Step.SILENCE)
        await regions.until_share("us")
        await load.become(of("us"))
        assert spread(await load.more(40)) == {"us": 100}
    assert load.failed == []
    assert regions.origins["eu-1"].counters["gone"] > 0


async def test_a_backend_that_fails_one_probe_of_three_is_taken_out_and_stays_out(regions: Regions) -> None:
    await regions.start(probes=QUICK_PROBES)
    rounds = 12
    for _ in range(rounds):
        for script in (OK, OK, b"HTTP/1.1 500 Flap\r\nContent-Length: 0\r\n\r\n"):
            regions.origins["eu-1"].enqueue(script)
    done = regions.origins["eu-1"].counters["responses"] + 3 * rounds
    await regions.origins["eu-1"].wait_for("responses", done, WAIT_S)
    events = [each for each in await regions.events() if each["kind"] == "backend.health"]
    moves = [(each["was"], each["is"]) for each in events if each["backend"] == "eu-1" and each["was"] != "unknown"]
    assert moves == [("healthy", "unhealthy")]

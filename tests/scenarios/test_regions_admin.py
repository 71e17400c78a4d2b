"""What an operator does at run time, under load: drain, activate; kill -9 and restart; the table of open requests."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from kit.client import RawClient
from kit.origin import Pause
from kit.regions import Load, Regions, answer_of, of, spread
from kit.waiting import until


def state_of(found: Any, name: str) -> str:
    return str(next(each["admin"] for each in found["backends"] if each["id"] == name))


async def test_a_region_drains_and_returns_with_no_failed_request(regions: Regions) -> None:
    await regions.start()
    async with Load(regions.gateway.http_port) as load:
        await load.more(30)
        told = await regions.api("POST", "/v1/regions/eu/state", {"state": "draining", "reason": "works"})
        assert (told.status, told.body["admin"], told.body["change"]["reason"]) == (200, "draining", "works")
        assert spread(await load.more(40)) == {"us": 100}, "an answer to the operator means that every worker follows"
        assert (await regions.api("POST", "/v1/regions/eu/state", {"state": "active"})).status == 200
        await regions.until_share("eu")
        await load.become(of("eu"))
        assert spread(await load.more(40)) == {"eu": 100}
    assert load.failed == []


async def test_a_backend_drains_and_returns_with_no_failed_request(regions: Regions) -> None:
    await regions.start()
    async with Load(regions.gateway.http_port) as load:
        await load.more(30)
        drained = await regions.cli("backend", "drain", "web", "eu-1", "--reason", "works")
        assert drained.returncode == 0, drained.stderr
        assert "eu-1" not in {body for _, body in await load.more(40)}
        activated = await regions.cli("backend", "activate", "web", "eu-1")
        assert activated.returncode == 0, activated.stderr
        assert "eu-1" in {body for _, body in await load.more(80)}
    assert load.failed == []


async def test_a_running_request_survives_the_drain_of_its_backend(regions: Regions) -> None:
    await regions.start()
    for name in ("eu-1", "eu-2"):
        regions.origins[name].route("/long", Pause("go"), answer_of(name))
    client = await RawClient.connect(regions.gateway.http_port)
    try:
        await client.send(b"GET /long HTTP/1.1\r\nHost: a.example\r\n\r\n")
        asked = asyncio.gather(*(regions.origins[name].wait_for("heads", 1) for name in ("eu-1", "eu-2")))
        await asked
        assert (await regions.api("POST", "/v1/regions/eu/state", {"state": "inactive"})).status == 200
        for name in ("eu-1", "eu-2"):
            regions.origins[name].release("go")
        response = await client.read_response()
        assert response is not None and response.status == 200
        assert response.body.content.startswith(b"eu")
    finally:
        await client.close()


async def test_operators_states_outlive_a_killed_supervisor(regions: Regions) -> None:
    await regions.start(workers=2)
    await regions.api("POST", "/v1/regions/eu/state", {"state": "draining", "actor": "me", "reason": "works"})
    await regions.api("POST", "/v1/pools/web/backends/us-1/state", {"state": "inactive", "reason": "broken"})
    async with Load(regions.gateway.http_port) as load:
        await load.more(20)
        await regions.kill_supervisor_and_restart()
        found = await regions.pool()
        assert state_of(found, "us-1") == "inactive"
        region = (await regions.api("GET", "/v1/regions/eu")).body
        change = region["change"]  # what a client calls itself stands behind the name of its token
        assert (region["admin"], change["actor"], change["reason"]) == ("draining", "admin (me)", "works")
        await load.more(40)
    assert {body for status, body in load.answers if status} == {"us-2"}
    # Idle connections end with the old workers; a request that was just sent on one gets no answer.
    assert {status for status, _ in load.answers} <= {200, 0}
    assert len(load.failed) <= 8


async def test_a_killed_worker_is_replaced_and_follows_the_operator(regions: Regions) -> None:
    await regions.start(workers=2)
    await regions.api("POST", "/v1/regions/eu/state", {"state": "draining"})
    before = (await regions.api("GET", "/v1/status")).body["workers"]
    async with Load(regions.gateway.http_port) as load:
        await load.more(20)
        os.kill(before[0]["pid"], signal.SIGKILL)

        async def replaced() -> bool:
            worker = (await regions.api("GET", "/v1/status")).body["workers"][0]
            return worker["pid"] not in (None, before[0]["pid"]) and worker["state"] == "ready"

        await until(replaced, look_s=0.03)
        assert {body for _, body in await load.more(60)} <= {"us-1", "us-2"}
    # Only requests that the dead worker held may have been cut.
    assert len(load.failed) <= 4
    assert all(status == 0 for status, _ in load.failed)


async def test_the_sum_of_in_flight_is_the_number_of_open_records(regions: Regions) -> None:
    await regions.start()
    held = 6
    for name, origin in regions.origins.items():
        origin.route("/held", Pause("go"), answer_of(name))
    clients = [await RawClient.connect(regions.gateway.http_port) for _ in range(held)]
    try:
        for client in clients:
            await client.send(b"POST /held HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nok")

        async def all_wait() -> list[Any] | None:
            found = (await regions.api("GET", "/v1/connections")).body
            records: list[Any] = found["requests"]
            assert sum(each["in_flight"] for each in found["backends"]) == len(records), found
            return records if [each["state"] for each in records] == ["waiting"] * held else None

        records = await until(all_wait, look_s=0.02)
        facts = {(each["path"], each["route"], each["region"], each["bytes_in"]) for each in records}
        assert facts == {("/held", "all", "eu", 2)}
        for origin in regions.origins.values():
            origin.release("go")
        for client in clients:
            response = await client.read_response()
            assert response is not None and response.status == 200
        found = (await regions.api("GET", "/v1/connections")).body
        assert found["requests"] == []
        assert sum(each["in_flight"] for each in found["backends"]) == 0
        assert all(each["state"] == "idle" for each in found["clients"])
    finally:
        for client in clients:
            await client.close()

"""The admin API over a whole gateway in one process: what changes something is durable and applied when it answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from kit.admin import TOKEN, AdminClient, admin_client
from kit.control import TWO_WORKERS, InProcess
from kit.origin import ScriptedOrigin
from kit.waiting import until

from edge.balance.health import Admin
from edge.errors import EdgeError
from edge.frames import FrameKind

TOML = (
    TWO_WORKERS
    + """
[regions.eu]
[regions.us]
tier = 1
countries = ["US"]
[pools.web]
backends = [{ url = "http://127.0.0.1:@ORIGIN@", region = "eu" }, { url = "http://127.0.0.1:9", region = "us" }]
[[routes]]
name = "all"
pool = "web"
[[routes]]
name = "fenced"
host = "fenced.example"
pool = "web"
geo = { require = ["us"] }
"""
)


@pytest_asyncio.fixture
async def gateway(origin: ScriptedOrigin) -> AsyncIterator[AdminClient]:
    async with admin_client(TOML.replace("@ORIGIN@", str(origin.port))) as found:
        yield found


# -- who may ask -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "authorization", "status"),
    [
        ("/healthz", "", 200),
        ("/readyz", "", 200),
        ("/metrics", "", 401),
        ("/v1/status", "", 401),
        ("/v1/status", f"Bearer {TOKEN}x", 401),
        ("/v1/status", f"Basic {TOKEN}", 401),
        ("/v1/status", f"bearer {TOKEN}", 200),
        ("/nothing", "", 401),
    ],
)
async def test_the_token_guards_all_but_the_probes(
    gateway: AdminClient, path: str, authorization: str, status: int
) -> None:
    async with gateway.client.get(path, headers={"Authorization": authorization}) as response:
        assert response.status == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nothing", 404), ("DELETE", "/v1/status", 405), ("GET", "/v1/purge", 405)],
)
async def test_errors_are_json_of_one_line(gateway: AdminClient, method: str, path: str, status: int) -> None:
    found, body = await gateway.ask(method, path)
    assert found == status
    assert list(body) == ["type", "title", "status", "detail"]
    assert body["status"] == status
    assert "\n" not in body["detail"]


# -- purge -------------------------------------------------------------------------------------------------------------


async def test_a_purge_is_durable_and_in_every_worker_when_it_is_answered(gateway: AdminClient) -> None:
    status, body = await gateway.ask("POST", "/v1/purge", {"tag": "a", "reason": "test", "actor": "me"})
    assert status == 200
    assert (body["id"], body["kind"], body["count"], body["workers"]) == (1, "tag", 0, 2)
    assert gateway.whole.state_store.done == [("purge", {"kind": "tag", "value": "a", "soft": False})]
    for child in gateway.whole.children:
        assert child.worker is not None and child.worker.store is not None
        assert child.worker.store.purge_log.seq >= 1 << 32


@pytest.mark.parametrize(
    "body", [{}, [], "all", {"tag": ""}, {"tag": "a", "host": "b"}, {"url": "ftp://x/"}, {"all": True, "soft": 1}]
)
async def test_a_wrong_purge_is_refused_in_one_line(gateway: AdminClient, body: Any) -> None:
    status, found = await gateway.ask("POST", "/v1/purge", body)
    assert status == 400, found
    assert found["detail"].startswith("purge: ")
    assert not gateway.whole.state_store.done


async def test_what_cannot_be_made_durable_is_not_done(gateway: AdminClient) -> None:
    gateway.whole.state_store.fail = EdgeError("disk full")
    assert (await gateway.ask("POST", "/v1/purge", {"all": True}))[0] == 500
    status, found = await gateway.ask("POST", "/v1/regions/eu/state", {"state": "draining"})
    assert (status, found["detail"]) == (500, "disk full")
    assert gateway.whole.supervisor.routing.membership.regions["eu"].admin is Admin.ACTIVE
    assert not any(frame.kind is FrameKind.PURGE for child in gateway.whole.children for frame in child.frames)


# -- regions and backends ----------------------------------------------------------------------------------------------


def in_pool(child: InProcess) -> dict[str, str]:
    """A worker's backends: id to administrative state."""
    assert child.worker is not None
    return {backend.id: backend.admin.value for backend in child.worker.pools["web"].pool.backends}


async def test_a_drained_region_gets_nothing_once_it_is_answered(gateway: AdminClient, origin: ScriptedOrigin) -> None:
    status, found = await gateway.ask("POST", "/v1/regions/eu/state", {"state": "draining", "reason": "work"})
    assert status == 200
    assert (found["admin"], found["source"], found["change"]["reason"]) == ("draining", "file", "work")
    assert found["shares"] == {"web": 0.0}
    for child in gateway.whole.children:
        assert child.worker is not None
        view = child.worker.pools["web"].pool.view
        assert view is not None
        assert view.shares == {"us": 100.0}
        assert "eu" not in view.order


async def test_the_safety_rule_keeps_a_route_its_last_region(gateway: AdminClient) -> None:
    status, found = await gateway.ask("POST", "/v1/regions/us/state", {"state": "inactive"})
    assert status == 409
    assert "route fenced" in found["detail"]
    status, found = await gateway.ask("POST", "/v1/regions/us/state", {"state": "inactive", "force": True})
    assert (status, found["admin"]) == (200, "inactive")


async def test_a_backend_registered_at_run_time_serves_and_goes_again(
    gateway: AdminClient, origin: ScriptedOrigin
) -> None:
    url = f"http://localhost:{origin.port}"
    status, found = await gateway.ask("PUT", "/v1/pools/web/backends", {"url": url, "region": "eu", "weight": 3})
    assert (status, found["source"], found["weight"]) == (201, "runtime", 3)
    identity = found["id"]
    assert all(in_pool(child)[identity] == "active" for child in gateway.whole.children)
    status, _ = await gateway.ask("POST", f"/v1/pools/web/backends/{identity}/state", {"state": "draining"})
    assert status == 200
    assert all(in_pool(child)[identity] == "draining" for child in gateway.whole.children)
    assert (await gateway.ask("DELETE", f"/v1/pools/web/backends/{identity}"))[0] == 200
    assert all(identity not in in_pool(child) for child in gateway.whole.children)
    assert [what[0] for what in gateway.whole.state_store.done] == ["register", "state", "unregister"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "word"),
    [
        ("PUT", "/v1/pools/web/backends", {"url": "ftp://x", "region": "eu"}, 400, "url: must be"),
        ("PUT", "/v1/pools/web/backends", {"url": "http://x:1", "region": "mars"}, 400, "no region mars"),
        ("PUT", "/v1/pools/web/backends", {"url": "http://127.0.0.1:9", "region": "eu"}, 409, "configuration file"),
        ("PUT", "/v1/pools/web/backends/b", {"url": "http://127.0.0.1:9", "region": "eu"}, 409, "this address"),
        ("PUT", "/v1/pools/web/backends", {"url": "http://x:1", "weigth": 2}, 400, "unknown key 'weigth'"),
        ("PUT", "/v1/pools/web/backends", {"region": "eu"}, 400, "must have a url"),
        ("PUT", "/v1/pools/none/backends", {"url": "http://x:1"}, 404, "no pool none"),
        ("PUT", "/v1/regions/eu", {"tier": 3}, 409, "configuration file"),
        ("PUT", "/v1/regions/ap", {"tier": -1}, 400, "tier: must be"),
        ("PUT", "/v1/regions/a%20p", {}, 400, "region: "),
        ("DELETE", "/v1/regions/eu", None, 409, "configuration file"),
        ("DELETE", "/v1/regions/none", None, 404, "no region none"),
        ("POST", "/v1/regions/eu/state", {"state": "asleep"}, 400, "one of active, draining, inactive"),
        ("POST", "/v1/regions/eu/state", {}, 400, "state: is missing"),
        ("POST", "/v1/regions/eu/state", {"state": "active", "expires": "soon"}, 400, "expires: "),
        ("POST", "/v1/pools/web/backends/none/state", {"state": "active"}, 404, "no backend of pool web named none"),
    ],
)
async def test_wrong_changes_store_nothing(
    gateway: AdminClient, method: str, path: str, body: Any, status: int, word: str
) -> None:
    found = await gateway.ask(method, path, body)
    assert found[0] == status, found
    assert word in found[1]["detail"]
    assert not gateway.whole.state_store.done


async def test_a_region_with_backends_is_not_removed(gateway: AdminClient) -> None:
    assert (await gateway.ask("PUT", "/v1/regions/ap", {"tier": 2}))[0] == 201
    body = {"url": "http://127.0.0.1:19", "region": "ap"}
    _, backend = await gateway.ask("PUT", "/v1/pools/web/backends", body)
    status, found = await gateway.ask("DELETE", "/v1/regions/ap")
    assert (status, "still has 1 backends" in found["detail"]) == (409, True)
    await gateway.ask("DELETE", f"/v1/pools/web/backends/{backend['id']}")
    assert (await gateway.ask("DELETE", "/v1/regions/ap"))[0] == 200


async def test_what_is_given_a_time_ends_by_itself(gateway: AdminClient) -> None:
    await gateway.ask("POST", "/v1/regions/eu/state", {"state": "draining", "expires": "1ms"})
    await until(lambda: gateway.whole.supervisor.routing.membership.regions["eu"].admin is Admin.ACTIVE)
    assert gateway.whole.state_store.done[-1] == ("state", "region", "eu", "active")


# -- looking -----------------------------------------------------------------------------------------------------------


async def test_counts_reach_status_metrics_and_cache(
    gateway: AdminClient, origin: ScriptedOrigin, raw_client: Any
) -> None:
    client = await raw_client(gateway.whole.port)
    for _ in range(3):
        await client.get("/x")
    totals = gateway.whole.supervisor.totals
    await until(lambda: "all" in totals.routes and totals.routes["all"].requests == 3)
    _, status = await gateway.ask("GET", "/v1/status")
    assert status["requests"]["routes"]["all"]["requests"] == 3
    assert sum(backend["requests"] for backend in status["backends"]) >= 1
    _, cache = await gateway.ask("GET", "/v1/cache")
    assert cache["routes"]["all"]["lifetime"]["requests"] == 3
    async with await gateway.send("GET", "/metrics") as response:
        text = await response.text()
    assert 'edge_requests_total{route="all"} 3\n' in text
    assert "edge_ready 1.0" in text


async def test_explain_tells_route_key_and_reason_and_sends_nothing(
    gateway: AdminClient, origin: ScriptedOrigin
) -> None:
    status, found = await gateway.ask("GET", "/v1/explain?url=http://a.example/x?q=1&header=Cookie:%20a=b")
    assert status == 200
    assert found["route"]["name"] == "all"
    assert (found["cache"]["verdict"], found["cache"]["reason"]) == ("miss", "cold")
    assert found["cache"]["key"] == "http://a.example/x?q=1"
    assert [row["region"] for row in found["regions"]] == ["eu", "us"]
    assert [each["protocols"] for each in found["listeners"]] == ["HTTP/1.1"]
    assert not origin.requests


async def test_explain_tells_which_region_is_out_of_service(gateway: AdminClient) -> None:
    body = {"state": "draining", "reason": "test"}
    assert (await gateway.ask("POST", "/v1/regions/eu/state", body))[0] == 200
    _, found = await gateway.ask("GET", "/v1/explain?url=http://a.example/")
    reasons = {each["region"]: each["reason"] for each in found["regions"]}
    assert reasons["eu"] == "drained or deactivated: no requests"
    assert {
        (each["region"], each["available"], each["why"] == "region out of service") for each in found["backends"]
    } == {
        ("eu", False, True),
        ("us", True, False),
    }


async def test_explain_shows_the_fence(gateway: AdminClient) -> None:
    _, found = await gateway.ask("GET", "/v1/explain?url=http://fenced.example/&client=192.0.2.1")
    reasons = {row["region"]: row["reason"] for row in found["regions"]}
    assert reasons["eu"] == "outside the route's fence: never"


@pytest.mark.parametrize(
    "query", ["", "url=x", "url=http://a/&client=nowhere", "url=http://a/&header=bad", "url=http://a/&method=BREW"]
)
async def test_a_wrong_question_is_refused(gateway: AdminClient, query: str) -> None:
    assert (await gateway.ask("GET", f"/v1/explain?{query}"))[0] == 400


async def test_simulate_shows_a_loss_and_what_fences_refuse(gateway: AdminClient) -> None:
    status, found = await gateway.ask("POST", "/v1/simulate", {"lose": ["us"]})
    assert status == 200
    assert found["refused"] == ["route fenced: no region that may serve it is left"]
    assert (await gateway.ask("POST", "/v1/simulate", {"lose": ["mars"]}))[0] == 400
    assert (await gateway.ask("POST", "/v1/simulate", {}))[0] == 400


async def test_secrets_are_not_shown(gateway: AdminClient) -> None:
    _, found = await gateway.ask("GET", "/v1/config")
    assert TOKEN not in json.dumps(found)
    assert found["config"]["pools"]["web"]["backends"][1]["url"] == "http://127.0.0.1:9"


async def test_events_come_as_they_happen(gateway: AdminClient) -> None:
    async with await gateway.send("GET", "/v1/events") as response:
        assert response.content_type == "text/event-stream"
        await gateway.ask("POST", "/v1/purge", {"all": True})
        seen = ""
        while "event: purge" not in seen:
            seen += (await response.content.readline()).decode()
    assert "event: worker.ready" in seen


async def test_connections_agree_with_what_is_in_flight(
    gateway: AdminClient, origin: ScriptedOrigin, raw_client: Any
) -> None:
    client = await raw_client(gateway.whole.port)
    await client.get("/x")
    _, found = await gateway.ask("GET", "/v1/connections")
    assert [each["state"] for each in found["clients"]] == ["idle"]
    assert sum(row["in_flight"] for row in found["backends"]) == 0
    assert sum(row["open"] for row in found["backends"]) == sum(row["idle"] for row in found["backends"]) == 1

"""What rules know lives on over a reload: who owes how much, what runs, which keys were fetched."""

from __future__ import annotations

import pytest
from inprocess import Connect, Gateway, StartEdge, edge_toml
from kit.client import RawClient
from kit.origin import ScriptedOrigin, Step
from kit.waiting import until

from edge.app import reloaded_graph
from edge.config.loader import load_text


async def status(client: RawClient, target: str = "/x") -> int:
    return (await client.get(target)).status


async def reload(gateway: Gateway, before: str, after: str) -> None:
    """As the agent does it, in this process."""
    worker = gateway.worker

    def use() -> None:
        text, other = load_text(before, "f"), load_text(after, "f")
        worker.use(reloaded_graph(other, text, worker, worker.lasting))

    await gateway.on_loop(use)


async def test_a_rate_is_held_over_a_reload(origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect) -> None:
    text = edge_toml(origin.port, log='access = "off"', route='cache = false\nrate_limit = { rate = "3/h" }')
    gateway = await edge(text)
    client = await raw_client(gateway.port)
    assert [await status(client) for _ in range(2)] == [200, 200]
    await reload(gateway, text, text + '\n[[routes]]\npath = "/y"\nrespond = { status = 204 }\n')
    assert await status(client, "/y") == 204
    assert [await status(client) for _ in range(2)] == [200, 429]
    await reload(gateway, text, text.replace("3/h", "9/h"))
    assert await status(client) == 200, "another limit"


async def test_what_runs_is_counted_on(origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect) -> None:
    text = edge_toml(origin.port, log='access = "off"', route="cache = false\nconcurrency = { per_client = 1 }")
    gateway = await edge(text)
    origin.enqueue(Step.SILENCE)
    slow, client = await raw_client(gateway.port), await raw_client(gateway.port)
    await slow.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: gateway.in_flight == 1)
    await reload(gateway, text, text)
    assert await status(client) == 429
    await slow.close()
    await until(lambda: gateway.in_flight == 0)
    assert await status(client) == 200


async def test_a_split_has_the_pools_that_live_on(origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect) -> None:
    rule = 'cache = false\nsplit = [{ pool = "origin", weight = 1 }]\nmirror = { pool = "origin" }'
    text = edge_toml(origin.port, log='access = "off"', route=rule)
    gateway = await edge(text)
    client = await raw_client(gateway.port)
    assert await status(client) == 200
    await reload(gateway, text, text)
    assert await status(client) == 200
    await until(lambda: gateway.in_flight == 0)
    route, pool = gateway.worker.router.routes[0], gateway.worker.pools["origin"]
    assert len(route.members) == 2 and all(member.pool is pool for member in route.members)
    assert gateway.requests == 2 and len(origin.requests) == 4


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize(
    "rule",
    ["cookies = ['session']", "headers = ['X-Preview']", "paths = ['/account']"],
    ids=["cookie", "header", "path"],
)
async def test_who_is_kept_away_from_the_cache_gets_nothing_that_was_stored_before_that_was_a_rule(
    rule: str, quick: bool, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    text = edge_toml(origin.port, log='access = "off"', route="cache = true")
    gateway = await edge(text)
    origin.default = (b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 2\r\n\r\nok",)
    client = await raw_client(gateway.port)
    asked = b"GET /account/a HTTP/1.1\r\nHost: a\r\nCookie: session=1\r\nX-Preview: 1\r\n\r\n"

    async def said() -> bytes:
        gateway.worker.quick = quick
        await client.send(asked)
        response = await client.read_response()
        assert response is not None
        return response.get(b"cache-status") or b""

    assert (await said()).startswith(b"edge; fwd=uri-miss")
    assert (await said()).startswith(b"edge; hit")
    await reload(gateway, text, text.replace("cache = true", f"cache = {{ bypass = {{ {rule} }} }}"))
    assert (await said()).startswith(b"edge; fwd=bypass")
    await reload(gateway, text, text)
    assert (await said()).startswith(b"edge; hit"), "it is stored as before"

"""The only backend restarts: the same one is tried again after a pause; who waits for room keeps the place.

Time is not waited for where it can be told: the pool's tick is called on the worker's loop with a later time.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest
from inprocess import Connect, Gateway, StartEdge, StartOrigins, edge_toml
from kit.client import RawClient
from kit.origin import OK, Pause, ScriptedOrigin, Step
from kit.ports import LOOPBACK
from kit.waiting import until

from edge.balance.health import Health
from edge.config.loader import load_text
from edge.errors import ConfigError

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
UNWELL = b"HTTP/1.1 503 Starting\r\nContent-Length: 0\r\n\r\n"
LATER_S = 1.0  # past the longest pause
RETRY = 'retry = { same_backend = "60s", deadline = "60s" }'  # a machine may stand still for longer than the default


async def tick(gateway: Gateway, pool: str = "origin", later_s: float = LATER_S) -> None:
    await gateway.on_loop(lambda: gateway.worker.pools[pool].tick(monotonic() + later_s))


async def status(client: RawClient, method: bytes = b"GET") -> int:
    response = await client.read_response(method)
    assert response is not None
    return response.status


# -- the same backend again --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("down", [(Step.CLOSE,), (Step.RESET,), (UNWELL,)], ids=["dropped", "reset", "503"])
@pytest.mark.parametrize("cache", ["true", "false"])
async def test_the_only_backend_is_asked_again(
    down: Any, cache: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    origin.enqueue(*down)
    gateway = await edge(edge_toml(origin.port, pool=RETRY, route=f"cache = {cache}"))
    client = await raw_client(gateway.port)
    await client.send(GET)
    assert await status(client) == 200
    assert origin.counters["heads"] == 2
    (line,) = await gateway.log(1)
    assert line["attempts"] == 2


@pytest.mark.parametrize("down", [(Step.CLOSE,), (UNWELL,)], ids=["dropped", "503"])
@pytest.mark.parametrize("refused", [False, True])
async def test_about_what_is_stored_it_is_the_answer_unless_connections_were_refused(
    down: Any, refused: bool, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    kept = b'HTTP/1.1 200 OK\r\nCache-Control: public, max-age=0, must-revalidate\r\nETag: "a"\r\n'
    origin.enqueue(kept + b"Content-Length: 2\r\n\r\nok")
    times = 1 if down == (UNWELL,) else 2  # the first drop may be that of a kept connection that was closing
    for _ in range(times):
        origin.enqueue(*down)
    gateway = await edge(edge_toml(origin.port, pool=RETRY, route="cache = true"))
    client = await raw_client(gateway.port)
    await client.send(GET)
    assert await status(client) == 200
    if refused:
        await gateway.on_loop(lambda: setattr(gateway.worker.pools["origin"], "refused_at", monotonic()))
    await client.send(GET)
    assert (await status(client) == 200) is refused
    assert origin.counters["heads"] == 1 + times + refused


async def test_a_refused_request_waits_for_the_listener_to_be_back(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, pool=RETRY))
    await origin.stop()
    client = await raw_client(gateway.port)
    await client.send(POST)  # nothing was sent: what carries a body may wait too
    (backend,) = gateway.worker.pools["origin"].pool.backends
    for refusals in range(1, 5):  # more than `retry.attempts` allows: a refusal is no attempt
        await until(lambda: backend.failures >= refusals)  # noqa: B023
        await until(lambda: gateway.in_flight == 0)
        if refusals < 4:
            await tick(gateway)
    await origin.start()
    await tick(gateway)
    assert await status(client, b"POST") == 200
    assert origin.counters["heads"] == 1


async def test_it_is_not_waited_for_longer_than_told(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, pool='retry = { same_backend = "10ms" }'))
    await origin.stop()
    client = await raw_client(gateway.port)
    await client.send(GET)
    assert await status(client) == 502


@pytest.mark.parametrize(
    ("request_bytes", "script", "answer"),
    [
        (POST, (Step.CLOSE,), 502),
        (POST, (UNWELL,), 503),
        (GET, (b"HTTP/1.1 503 Maintenance\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n",), 503),
        (GET, (b"HTTP/1.1 503 No\r\nCache-Control: max-age=9\r\nContent-Length: 0\r\n\r\n",), 503),
        (GET, (b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n",), 502),
        (GET, (b"nonsense\r\n\r\n",), 502),
    ],
    ids=["POST dropped", "POST 503", "says when", "may be stored", "502", "invalid"],
)
async def test_what_is_no_restart_or_may_not_be_repeated_is_told_at_once(
    request_bytes: bytes, script: Any, answer: int, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    origin.enqueue(*script)
    gateway = await edge(edge_toml(origin.port))
    client = await raw_client(gateway.port)
    await client.send(request_bytes)
    assert await status(client, request_bytes[:4].strip()) == answer
    assert origin.counters["heads"] == 1


async def test_other_backends_come_first(origins: StartOrigins, edge: StartEdge, raw_client: Connect) -> None:
    one, two = await origins(), await origins()
    one.enqueue(Step.CLOSE)
    two.enqueue(Step.CLOSE)
    gateway = await edge(edge_toml(one.port, two.port, pool=RETRY))
    client = await raw_client(gateway.port)
    await client.send(GET)
    await until(lambda: one.counters["heads"] and two.counters["heads"])
    await tick(gateway)
    assert await status(client) == 200
    assert one.counters["heads"] + two.counters["heads"] == 3


async def test_what_is_stored_stands_in_at_once(origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect) -> None:
    origin.default = (b"HTTP/1.1 200 OK\r\nCache-Control: max-age=0, stale-if-error=60\r\nContent-Length: 2\r\n\r\nok",)
    gateway = await edge(edge_toml(origin.port, route="cache = true"))
    client = await raw_client(gateway.port)
    await client.send(GET)
    assert await status(client) == 200
    await origin.stop()
    await client.send(GET)
    assert await status(client) == 200
    (backend,) = gateway.worker.pools["origin"].pool.backends
    assert backend.failures == 1, "one refusal, no wait"


async def test_who_leaves_while_waiting_is_forgotten(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, pool=RETRY))
    await origin.stop()
    client = await raw_client(gateway.port)
    await client.send(GET)
    (backend,) = gateway.worker.pools["origin"].pool.backends
    await until(lambda: backend.failures and gateway.in_flight == 0)
    await client.close()
    await until(lambda: not gateway.worker.downstreams)
    await origin.start()
    await tick(gateway)
    await tick(gateway)
    assert origin.counters["connections"] == 0


# -- room --------------------------------------------------------------------------------------------------------------

TWO_REGIONS = """
[listen]
http = ["127.0.0.1:0"]
[log]
access = "@LOG@"
[regions.eu]
[regions.us]
[pools.origin]
ejection = false
max_in_flight = 1
timeouts = { connect = "10s", queue = "60s", first_byte = "10m", head = "10m" }
backends = [{ url = "http://@EU@", region = "eu" }, { url = "http://@US@", region = "us" }]
[[routes]]
path = "/eu"
pool = "origin"
cache = false
geo = { require = ["eu"] }
[[routes]]
path = "/us"
pool = "origin"
cache = false
geo = { require = ["us"] }
"""
LENT = """
[listen]
http = ["127.0.0.1:0"]
[log]
access = "@LOG@"
[pools.origin]
ejection = false
fallback = "spare"
timeouts = { connect = "10s", queue = "60s", first_byte = "10m", head = "10m" }
backends = [{ url = "http://@EU@" }]
[pools.spare]
ejection = false
max_in_flight = 1
timeouts = { connect = "10s", queue = "60s", first_byte = "10m", head = "10m" }
backends = [{ url = "http://@US@" }]
[[routes]]
path = "/own"
pool = "origin"
cache = false
[[routes]]
path = "/spare"
pool = "spare"
cache = false
"""


async def two(text: str, origins: StartOrigins, edge: StartEdge) -> tuple[Gateway, ScriptedOrigin, ScriptedOrigin]:
    """A gateway before two origins that let each request wait for a release of its target."""
    eu, us = await origins(), await origins()
    for each in (eu, us):
        for target in ("/eu/1", "/eu/2", "/us/1", "/us/2", "/own/1", "/spare/1", "/own/2", "/spare/2"):
            each.route(target, Pause(target), OK)
    text = text.replace("@EU@", f"{LOOPBACK}:{eu.port}").replace("@US@", f"{LOOPBACK}:{us.port}")
    return await edge(text), eu, us


async def ask(gateway: Gateway, raw_client: Connect, target: str) -> RawClient:
    client = await raw_client(gateway.port)
    await client.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return client


async def test_who_cannot_use_what_is_free_keeps_the_place_and_lets_others_have_it(
    origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    gateway, eu, us = await two(TWO_REGIONS, origins, edge)
    pool = gateway.worker.pools["origin"]
    await ask(gateway, raw_client, "/eu/1")
    first = await ask(gateway, raw_client, "/us/1")
    await until(lambda: gateway.in_flight == 2)
    waits = await ask(gateway, raw_client, "/eu/2")
    await until(lambda: pool.queued == 1)
    behind = await ask(gateway, raw_client, "/us/2")
    await until(lambda: pool.queued == 2)
    us.release("/us/1")
    assert await status(first) == 200
    us.release("/us/2")
    assert await status(behind) == 200, "what is free in us goes to the first that may use it"
    assert (pool.queued, eu.counters["heads"]) == (1, 1)
    await tick(gateway, later_s=30.0)
    assert pool.queued == 1, "and its deadline is not over"
    await tick(gateway, later_s=61.0)
    assert await status(waits) == 503, "being woken in vain gave it no new one"


async def test_room_in_a_fallback_pool_is_for_those_who_borrow_too(
    origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    gateway, _, spare = await two(LENT, origins, edge)
    (own,) = gateway.worker.pools["origin"].pool.backends
    await gateway.on_loop(lambda: own.set_health(Health.UNHEALTHY, monotonic()))
    owner = await ask(gateway, raw_client, "/spare/1")
    await until(lambda: gateway.in_flight == 1)
    borrower = await ask(gateway, raw_client, "/own/1")
    await until(lambda: gateway.worker.pools["origin"].queued == 1)
    spare.release("/spare/1")
    assert await status(owner) == 200
    await spare.wait_for("heads", 2)
    waits = await ask(gateway, raw_client, "/spare/2")
    await until(lambda: gateway.worker.pools["spare"].queued == 1)
    spare.release("/own/1")
    spare.release("/spare/2")
    assert (await status(borrower), await status(waits)) == (200, 200)


async def test_a_route_s_own_wait_for_room_counts(origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect) -> None:
    origin.default = (Pause("go"), OK)
    route = 'cache = false\ntimeouts = { queue = "60s", first_byte = "10m", head = "10m" }'
    gateway = await edge(edge_toml(origin.port, pool="max_in_flight = 1", route=route))
    clients = [await ask(gateway, raw_client, "/"), await ask(gateway, raw_client, "/")]
    await until(lambda: gateway.worker.pools["origin"].queued == 1)
    await tick(gateway, later_s=30.0)
    assert gateway.worker.pools["origin"].queued == 1
    origin.release("go")
    assert [await status(client) for client in clients] == [200, 200]


@pytest.mark.parametrize("key", ['retry = { budget = "1%" }', "retry = { min = 1 }", 'timeouts = { idle = "1s" }'])
def test_what_belongs_to_a_pool_is_no_key_of_a_route(key: str) -> None:
    load_text(edge_toml(1, pool=key), "f.toml")
    with pytest.raises(ConfigError):
        load_text(edge_toml(1, route=key), "f.toml")

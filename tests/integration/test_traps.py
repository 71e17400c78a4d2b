"""The traps that a prototype met, each pinned under its name.

Nothing is lent to aiohttp here: the strict grammar and our own chunked reader serve every request, so the traps that
came from lending are pinned where they would show now, in our own reader: no timer of somebody else's ends a busy
connection, `Expect` is answered, nothing is decompressed, a bug is answered once and never tried again with less.
"""

from __future__ import annotations

import asyncio
import gzip
from time import time
from typing import Any

import pytest
from inprocess import Connect, Gateway, Proxy, StartEdge, edge_toml
from kit.builds import pure_only
from kit.origin import OK, Pause, Repeat, ScriptedOrigin
from kit.waiting import WAIT_S, until

from edge.cache.purge_request import parse_purge

HEAD = b"GET /cut?a=b HTTP/1.1\r\nHost: a.example\r\nCookie: a=b\r\n\r\n"
STORED = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 3\r\n\r\n"
LOG_KEYS = [
    "time",
    "id",
    "client",
    "protocol",
    "tls",
    "route",
    "method",
    "host",
    "target",
    "status",
    "bytes_in",
    "bytes_out",
    "us",
    "upstream_us",
    "backend",
    "region",
    "attempts",
    "hedge",
    "verdict",
    "reason",
    "error",
]


async def test_trap_overtaking(origin: ScriptedOrigin, proxy: Proxy) -> None:
    """Neither a refusal nor a hit nor a forward may be written before the answer to what came first."""
    gateway, client = await proxy(route="cache = true")
    origin.route("/hit", STORED + b"hit")
    await client.get("/hit")
    await client.get("/hit")
    origin.route("/slow", Pause("go"), b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")
    await client.send(b"GET /slow HTTP/1.1\r\nHost: a.example\r\nCache-Control: no-store\r\n\r\n")
    await until(lambda: gateway.in_flight == 1)
    await client.send(
        b"GET /hit HTTP/1.1\r\nHost: a.example\r\n\r\nTRACE / HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n"
    )
    await until(lambda: any(each._buffer.endswith(b"nonsense\r\n\r\n") for each in list(gateway.worker.downstreams)))
    assert client.leftover == b""
    origin.release("go")
    got = [await client.read_response() for _ in range(4)]
    assert [(each.status, each.body.content[:4]) for each in got if each] == [
        (200, b"slow"), (200, b"hit"), (405, b"405 "), (400, b"400 "),
    ]  # fmt: skip


async def test_trap_a_head_cut_at_any_byte(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    for at in range(1, len(HEAD)):
        await client.send(HEAD[:at])
        await until(lambda: [f._buffer for f in gateway.worker.downstreams] == [HEAD[:at]])  # noqa: B023
        await client.send(HEAD[at:])
        response = await client.read_response()
        assert response is not None and response.status == 200, at
    assert {request.target for request in origin.requests} == {b"/cut?a=b"}
    assert len(origin.requests) == len(HEAD) - 1
    assert {request.get(b"cookie") for request in origin.requests} == {b"a=b"}


async def test_trap_pipelining(origin: ScriptedOrigin, proxy: Proxy) -> None:
    """Requests behind bodies: each body ends where its framing says, and the next head begins there."""
    _, client = await proxy()
    requests = [
        b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /",
        b"POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\n",
        b"GET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /4 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        b"HEAD /5 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /6 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ]
    await client.send(b"".join(requests) + b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n")
    for raw in requests:
        response = await client.read_response(raw.partition(b" ")[0])
        assert response is not None and response.status == 200
    assert await client.ended()
    assert origin.targets() == [b"/1", b"/2", b"/3", b"/4", b"/5", b"/6"]
    assert [request.body.content for request in origin.requests[:2] if request.body] == [b"GET /"] * 2


async def grow_older(gateway: Gateway, seconds: float) -> None:
    """Let time pass for clients' connections alone: whatever runs for them counts its own."""
    await gateway.turned()

    def older() -> None:
        for each in gateway.worker.downstreams:
            each.deadline -= seconds

    await gateway.on_loop(older)


async def test_trap_a_keep_alive_timer_closing_a_busy_connection(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, limits='idle_timeout = "1m"\nheader_timeout = "1m"'))
    origin.route("/slow", Pause("go"), OK)
    busy, idle = await raw_client(gateway.port), await raw_client(gateway.port)
    await busy.get("/")
    await busy.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: gateway.in_flight == 1)
    await idle.get("/")
    await grow_older(gateway, 60)
    assert await idle.ended()  # a whole idle time has passed since the busy one began
    origin.release("go")
    response = await busy.read_response()
    assert response is not None and response.status == 200
    assert (await busy.get("/")).status == 200, "and it is kept for the next one"


async def test_a_connection_that_only_gets_hits_is_busy_too(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    limits = 'header_timeout = "1m"\nidle_timeout = "10m"'
    gateway = await edge(edge_toml(origin.port, route="cache = true", limits=limits))
    origin.route("/hit", STORED + b"hit")
    assert (await (await raw_client(gateway.port)).get("/hit")).status == 200
    client = await raw_client(gateway.port)
    assert b"; hit" in ((await client.get("/hit")).get(b"cache-status") or b"")
    silent = await raw_client(gateway.port)
    await until(lambda: len(gateway.worker.downstreams) == 3)
    await grow_older(gateway, 60)
    assert await silent.ended()  # one that says nothing ends after the header's time
    assert (await client.get("/hit")).status == 200


async def test_a_hit_is_logged_for_the_client_that_a_trusted_proxy_tells(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    listen = 'http = ["127.0.0.1:0"]\ntrusted_proxies = ["127.0.0.0/8"]'
    gateway = await edge(edge_toml(origin.port, route="cache = true", listen=listen))
    origin.route("/hit", STORED + b"hit")
    client = await raw_client(gateway.port)
    for address in (b"192.0.2.1", b"192.0.2.2"):
        await client.send(b"GET /hit HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: " + address + b"\r\n\r\n")
        assert await client.read_response() is not None
    assert [(line["verdict"], line["client"]) for line in await gateway.log(2)] == [
        ("miss", "192.0.2.1"),
        ("hit", "192.0.2.2"),
    ]


async def test_trap_a_client_that_never_reads(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    origin.default = (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Repeat(chunk, 99999))
    client.wire.pause_reading()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: any(each.paused for each in list(gateway.worker.downstreams)))
    (downstream,) = gateway.worker.downstreams
    (connection,) = gateway.upstream()
    await until(lambda: connection._paused_reading)
    assert downstream.transport.get_write_buffer_size() < 1024 * 1024
    client.reset()
    await origin.wait_for("gone", 1)


async def test_trap_drain_of_connections_that_never_asked_anything(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port))
    silent = [await raw_client(gateway.port) for _ in range(3)]
    await until(lambda: len(gateway.worker.downstreams) == 3)
    draining = asyncio.create_task(gateway.on_loop(lambda: gateway.worker.drain(60.0)))
    for client in silent:
        assert await client.ended()
        await client.close()
    await asyncio.wait_for(draining, WAIT_S)


async def test_trap_a_purge_is_effective_before_its_call_returns(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy(route="cache = true")
    store = gateway.worker.store
    assert store is not None
    for number in range(5):
        body = b"%03d" % number
        origin.route("/page", STORED + body)
        purge = parse_purge({"kind": "url", "value": "http://a.example/page"})
        await gateway.on_loop(lambda: store.purge(purge, time()))  # noqa: B023
        got = [(await client.get("/page")).body.content for _ in range(3)]
        assert got == [body] * 3
    assert len(origin.requests) == 5


async def test_trap_limits_counters_and_log_on_every_path_alike(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy(route="cache = true")
    origin.route("/hit", STORED + b"hit")
    host = b" HTTP/1.1\r\nHost: a.example\r\n"
    paths = {
        "fill": (b"GET /hit" + host + b"\r\n", 200),
        "hit": (b"GET /hit" + host + b"\r\n", 200),
        "not modified": (b"GET /hit" + host + b"If-Modified-Since: Thu, 01 Jan 2099 00:00:00 GMT\r\n\r\n", 304),
        "forward": (b"GET /pass" + host + b"Authorization: b\r\n\r\n", 200),
        "upload": (b"POST /up" + host + b"Content-Length: 2\r\n\r\nhi", 200),
        "chunked upload": (b"POST /up" + host + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 200),
        "no route for it": (b"TRACE /" + host + b"\r\n", 405),
        "not on store": (b"GET /none" + host + b"Cache-Control: only-if-cached\r\n\r\n", 504),
    }
    for name, (raw, status) in paths.items():
        await client.send(raw)
        response = await client.read_response()
        assert response is not None and response.status == status, name
        assert response.get(b"date") is not None, name
    lines = await gateway.log(len(paths))
    assert len(lines) == len(paths)
    assert all(list(line) == LOG_KEYS for line in lines)
    assert [line["status"] for line in lines] == [status for _, status in paths.values()]
    assert [line["verdict"] for line in lines[:2]] == ["miss", "hit"]
    meter = gateway.worker.router.routes[0].meter
    meter.fold()
    assert meter.requests == len(paths) - 1, "what no route was asked for is nobody's"
    assert meter.bytes_in == 4
    for raw, _ in paths.values():  # and a limit is a limit on each
        await client.send(raw.replace(host, host + b"X: " + b"v" * 9000 + b"\r\n"))
        refused = await client.read_response()
        assert refused is not None and refused.status == 431
        assert await client.ended()
        client = await _again(gateway, client)


async def _again(gateway: Any, client: Any) -> Any:
    await client.close()
    client.wire = (await gateway.client()).wire
    return client


async def test_trap_expect_is_answered(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n")
    head = await client.read_head()
    assert head is not None and head.status == 100
    await client.send(b"2\r\nhi\r\n0\r\n\r\n")
    response = await client.read_response()
    assert response is not None and response.status == 200


async def test_trap_nothing_is_decompressed_on_either_side(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy(route="cache = true")
    packed = gzip.compress(b"x" * 10_000)
    coded = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(packed), packed)
    origin.default = (b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n" + coded,)
    for lines in (b"", b"Accept-Encoding: identity\r\n", b""):
        await client.send(b"GET /packed HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")
        response = await client.read_response()
        assert response is not None
        assert (response.body.content, response.get(b"content-encoding")) == (packed, b"gzip")
    await client.send(b"POST /packed HTTP/1.1\r\nHost: a\r\n" + coded)
    assert await client.read_response() is not None
    body = origin.requests[-1].body
    assert body is not None and body.content == packed
    assert origin.requests[-1].get(b"content-encoding") == b"gzip"


@pytest.mark.parametrize("error", [TypeError, AttributeError, RecursionError])
async def test_trap_a_bug_is_answered_once_and_never_tried_again(
    error: type[Exception], proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, client = await proxy(route='deny = ["192.0.2.1"]')
    called: list[bytes] = []

    def broken(self: Any, exchange: Any) -> None:
        called.append(exchange.target)
        raise error("secret detail of the inside")

    with monkeypatch.context() as patch:
        patch.setattr("edge.dataplane.rules.access.Access.apply", broken)
        response = await client.get("/bug")
    assert response.status == 500
    assert b"secret" not in response.raw_head + response.body.content
    assert b"error=proxy_internal_error" in (response.get(b"proxy-status") or b"")
    assert called == [b"/bug"]
    await gateway.turned()
    assert gateway.worker.bugs == 1
    gateway.worker.bugs = 0
    assert (await gateway.log(1))[0]["error"] == "proxy_internal_error"
    assert (await client.get("/")).status == 200


@pure_only
async def test_a_bug_before_there_is_an_exchange_is_answered_too(proxy: Proxy) -> None:
    gateway, client = await proxy()

    def broken(host: bytes | None, target: bytes) -> Any:
        raise TypeError("secret detail of the inside")

    router = gateway.worker.router
    gateway.worker.router = type("Broken", (), {"get": staticmethod(broken), "routes": router.routes})()
    response = await client.get("/bug")
    gateway.worker.router = router
    assert response.status == 500 and b"secret" not in response.raw_head + response.body.content
    await gateway.turned()
    assert gateway.worker.bugs == 1
    gateway.worker.bugs = 0
    assert (await client.get("/")).status == 200


@pytest.mark.parametrize(
    "where",
    [
        "edge.dataplane.rules.delivery.Delivery.head",
        pytest.param("edge.dataplane.core.exchange.Exchange.own_lines", marks=pure_only),
        pytest.param("edge.dataplane.upstream.fetch.request_head", marks=pure_only),
    ],
)
async def test_a_bug_in_a_callback_ends_its_exchange_too(
    where: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an upstream callback lets out has nobody above it: the client must not wait for ever."""
    gateway, client = await proxy(route='response_headers = { remove = ["Server"] }')

    def broken(*_: Any) -> bytes:
        monkeypatch.undo()
        raise TypeError("secret detail of the inside")

    monkeypatch.setattr(where, broken)
    await client.send(b"GET /bug HTTP/1.1\r\nHost: a\r\n\r\n")
    response = await client.read_response()
    assert response is None or (response.status == 500 and b"secret" not in response.raw_head)
    await until(lambda: gateway.in_flight == 0)
    await gateway.turned()
    assert gateway.worker.bugs == 1
    gateway.worker.bugs = 0
    assert len(await gateway.log(1)) == 1

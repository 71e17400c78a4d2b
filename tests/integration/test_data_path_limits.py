"""Deadlines and caps: what is slow or too much ends with its own status, in bounded time, while others are served."""

from __future__ import annotations

import pytest
from deaf import DeafOrigin
from inprocess import Connect, Proxy, StartEdge, edge_toml
from kit.origin import OK, Pause, Repeat, ScriptedOrigin, Step
from kit.waiting import until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("begun", [b"G", b"GET / HTTP/1.1\r\nHost:", GET + b"GET / HTTP/1.1\r\nX: 1\r\n"])
async def test_a_head_that_does_not_end_in_time(begun: bytes, origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy(limits='header_timeout = "1s"')
    await client.send(begun)
    if begun.startswith(GET):
        first = await client.read_response()
        assert first is not None and first.status == 200
    response = await client.read_response()
    assert response is not None
    assert (response.status, response.get(b"connection")) == (408, b"close")
    assert await client.ended()
    assert (await gateway.log(1))[-1]["status"] == 408


async def test_a_head_in_drops_has_one_deadline_in_all(proxy: Proxy) -> None:
    _, client = await proxy(limits='header_timeout = "1s"')
    drops = 0
    await client.send(b"GET / HTTP/1.1\r\n")
    while not client.wire.ended and not client.leftover and drops < 200:
        await client.send(b"X: 1\r\n")
        drops += 1
        try:
            await client.wire.more(0.02)
        except TimeoutError:
            continue
    response = await client.read_response()
    assert response is not None and response.status == 408


async def test_a_connection_on_which_nothing_comes(proxy: Proxy) -> None:
    gateway, client = await proxy(limits='header_timeout = "1s"')
    assert await client.ended()
    assert client.leftover == b""
    await until(lambda: not gateway.worker.downstreams)


async def test_an_idle_kept_connection(proxy: Proxy) -> None:
    _, client = await proxy(limits='idle_timeout = "200ms"')
    assert (await client.get("/")).status == 200
    assert await client.ended()
    assert client.leftover == b""


async def test_a_body_that_stops(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy(limits='body_timeout = "1s"')
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\npart")
    response = await client.read_response()
    assert response is not None
    assert response.status == 408
    assert await client.ended()
    await origin.wait_for("partial_bodies", 1)
    await until(lambda: gateway.upstream_connections == 0)


async def test_a_body_that_only_trickles(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy(limits='body_timeout = "60s"\nbody_grace = "1s"\nmin_body_rate = "1MiB"')
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n")
    for _ in range(200):
        await client.send(b"x")
        try:
            await client.wire.more(0.02)
        except TimeoutError:
            continue
        break
    response = await client.read_response()
    assert response is not None and response.status == 408
    await origin.wait_for("partial_bodies", 1)


async def test_a_slow_origin_is_not_the_client_s_fault(
    deaf_origin: DeafOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    """An upload that waits because its origin does not read is never answered with 408."""
    limits, pool = 'body_timeout = "2s"', 'timeouts = { body = "3s" }'
    gateway = await edge(edge_toml(deaf_origin.port, limits=limits, pool=pool))
    client = await raw_client(gateway.port)
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % deaf_origin.size)
    assert client.wire.transport is not None
    client.wire.transport.write(b"x" * deaf_origin.size)
    response = await client.read_response()
    assert response is not None and response.status == 504
    assert (await gateway.log(1))[0]["error"] == "http_response_timeout"


async def test_a_client_that_takes_nothing_of_its_answer(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy(limits='write_timeout = "300ms"')
    origin.default = (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", Repeat(b"x" * 65536, 2000))
    client.wire.pause_reading()
    await client.send(GET)
    await origin.wait_for("gone", 1)
    await until(lambda: not gateway.worker.downstreams and gateway.in_flight == 0)
    assert (await gateway.log(1))[0]["error"]


@pytest.mark.parametrize(
    ("script", "timeouts", "status"),
    [
        ((Step.SILENCE,), 'first_byte = "200ms"', 504),
        ((b"HTTP/1.1 200", Step.SILENCE), 'first_byte = "100ms", head = "300ms"', 504),
        ((b"HTTP/1.1 103 E\r\n\r\n", Step.SILENCE), 'first_byte = "100ms", head = "300ms"', 504),
    ],
)
async def test_a_silent_origin(
    script: tuple[bytes | Step, ...], timeouts: str, status: int, origin: ScriptedOrigin, proxy: Proxy
) -> None:
    gateway, client = await proxy(pool=f"timeouts = {{ {timeouts} }}\nretry = {{ attempts = 0 }}")
    origin.default = script
    response = await client.get("/")
    assert response.status == status
    assert b"error=http_response_timeout" in (response.get(b"proxy-status") or b"")
    await origin.wait_for("gone", 1)
    await until(lambda: gateway.upstream_connections == 0)


async def test_an_origin_that_stalls_within_its_answer(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy(pool='timeouts = { body = "200ms" }')
    origin.default = (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart", Step.SILENCE)
    response = await client.get("/")
    assert (response.body.content, response.complete) == (b"part", False)
    await origin.wait_for("gone", 1)


async def test_an_idle_origin_connection_is_given_up(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy(pool='timeouts = { idle = "100ms" }')
    assert (await client.get("/")).status == 200
    await origin.wait_for("closed", 1)
    await until(lambda: gateway.upstream_connections == 0)
    assert (await client.get("/")).status == 200


async def test_a_slow_client_takes_nothing_from_a_good_one(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, limits='header_timeout = "60s"'))
    slow = [await raw_client(gateway.port) for _ in range(50)]
    for client in slow:
        await client.send(b"GET / HTTP/1.1\r\nX:")
    good = await raw_client(gateway.port)
    assert [(await good.get("/")).status for _ in range(5)] == [200] * 5


async def test_connections_in_all_are_capped(origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect) -> None:
    gateway = await edge(edge_toml(origin.port, limits="connections = 2"))
    first, second = await raw_client(gateway.port), await raw_client(gateway.port)
    assert ((await first.get("/")).status, (await second.get("/")).status) == (200, 200)
    third = await raw_client(gateway.port)
    assert await third.ended()
    assert gateway.worker.refused_connections == 1
    await first.close()
    await until(lambda: len(gateway.worker.downstreams) == 1)
    assert (await (await raw_client(gateway.port)).get("/")).status == 200


async def test_connections_of_one_address_are_capped(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, limits="connections_per_client = 1"))
    first = await raw_client(gateway.port)
    assert (await first.get("/")).status == 200
    assert await (await raw_client(gateway.port)).ended()
    assert (await first.get("/")).status == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /" + b"x" * 9000, 414),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"v" * 9000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: v\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: 0123456789\r\n" * 3000, 431),
    ],
    ids=range(5),
)
async def test_heads_past_their_limits(data: bytes, status: int, origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    await client.send(data)
    response = await client.read_response()
    assert response is not None
    assert (response.status, response.closed or await client.ended()) == (status, True)
    assert not origin.requests


async def test_pipelined_bytes_are_bounded_and_then_served(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy(limits='pipeline_buffer = "4KiB"')
    origin.default = (Pause("go"), OK)
    count = 40_000
    assert client.wire.transport is not None
    client.wire.transport.write(GET * count)
    await until(lambda: any(not downstream._reading for downstream in list(gateway.worker.downstreams)))
    downstream = next(iter(gateway.worker.downstreams))
    assert len(downstream._buffer) < 512 * 1024
    origin.default = (OK,)
    origin.release("go")
    for _ in range(50):
        response = await client.read_response()
        assert response is not None and response.status == 200

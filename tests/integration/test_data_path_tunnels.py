"""Upgrades: a tunnel only when it was asked for, is let through, and the origin answers 101 to just that."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from inprocess import Connect, Proxy, StartEdge, edge_toml
from kit.origin import OK, Pause, Repeat, ScriptedOrigin, Step
from kit.waiting import WAIT_S, until

ASK = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: %b\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest_asyncio.fixture
async def echo_port() -> AsyncIterator[int]:
    """A real WebSocket server that says back what it hears."""

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("chat",), max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str(message.data)
            else:
                await socket.send_bytes(message.data)
        return socket

    app = web.Application()
    app.router.add_get("/ws", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def test_a_websocket_echo(echo_port: int, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(echo_port))
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{gateway.port}/ws"
        async with session.ws_connect(url, protocols=("chat",), max_msg_size=0) as socket:
            assert socket.protocol == "chat"
            assert gateway.in_flight == 1
            for text in ("one", "x" * 300_000):
                await socket.send_str(text)
                assert (await socket.receive_str(timeout=WAIT_S)) == text
            blob = bytes(range(256)) * 4096
            await asyncio.gather(socket.send_bytes(blob), socket.send_bytes(blob))
            assert [await socket.receive_bytes(timeout=WAIT_S) for _ in range(2)] == [blob, blob]
            await socket.ping()
        assert socket.close_code == 1000
    await until(lambda: gateway.in_flight == 0 and gateway.upstream_connections == 0)
    line = (await gateway.log(1))[0]
    assert (line["status"], line["target"]) == (101, "/ws")
    assert line["bytes_out"] > 2 * len(blob)


async def test_bytes_cross_unread_both_ways_from_the_first(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    origin.default = (SWITCH + b"\x00first", Pause("end"), Step.CLOSE)
    await client.send(ASK % b"websocket" + b"early")
    head = await client.read_head()
    assert head is not None
    assert (head.status, head.get(b"upgrade"), head.get(b"connection")) == (101, b"websocket", b"Upgrade")
    assert await client.wire.exactly(6) == b"\x00first"
    request = origin.requests[0]
    assert (request.get(b"connection"), request.get(b"upgrade")) == (b"Upgrade", b"websocket")
    origin.release("end")
    assert await client.ended()
    await until(lambda: gateway.in_flight == 0)


async def test_the_origin_s_last_bytes_arrive_before_the_end(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    origin.default = (SWITCH, Repeat(b"x" * 65536, 32), Step.CLOSE)
    await client.send(ASK % b"websocket")
    assert await client.read_head() is not None
    assert len(await client.wire.until_end()) == 32 * 65536


async def test_a_client_that_leaves_ends_the_tunnel(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    origin.default = (SWITCH, Step.SILENCE)
    await client.send(ASK % b"websocket")
    assert await client.read_head() is not None
    await client.close()
    await origin.wait_for("gone", 1)
    await until(lambda: gateway.in_flight == 0 and gateway.upstream_connections == 0)


async def test_a_client_that_never_reads_holds_the_tunnel_s_origin_back(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    origin.default = (SWITCH, Repeat(b"x" * 65536, 1024))
    client.wire.pause_reading()
    await client.send(ASK % b"websocket")
    await until(lambda: any(downstream.paused for downstream in list(gateway.worker.downstreams)))
    downstream = next(iter(gateway.worker.downstreams))
    assert downstream.transport.get_write_buffer_size() < 1024 * 1024
    client.reset()
    await until(lambda: gateway.in_flight == 0)


@pytest.mark.parametrize("protocol", [b"h2c", b"HTTP/2.0", b"TLS/1.0", b"websocket, h2c"])
async def test_other_upgrades_are_never_asked_for(protocol: bytes, origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    await client.send((ASK % protocol).replace(b"\r\n\r\n", b"\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"))
    response = await client.read_response()
    assert response is not None and response.status == 200
    request = origin.requests[0]
    assert (request.get(b"upgrade"), request.get(b"connection")) == (None, None)


async def test_a_101_that_was_not_asked_for_is_a_bad_gateway(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    origin.default = (SWITCH, Step.SILENCE)
    assert (await client.get("/")).status == 502


async def test_a_101_to_something_else_is_a_bad_gateway(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    origin.default = (SWITCH.replace(b"websocket", b"h2c"), Step.SILENCE)
    await client.send(ASK % b"websocket")
    response = await client.read_response()
    assert response is not None and response.status == 502


async def test_an_upgrade_that_the_origin_declines_is_an_answer(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    origin.default = (b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno",)
    await client.send(ASK % b"websocket")
    response = await client.read_response()
    assert response is not None
    assert (response.status, response.body.content) == (426, b"no")
    origin.default = (OK,)
    assert (await client.get("/")).status == 200, "and the connection goes on"


async def test_a_route_without_upgrades(origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect) -> None:
    gateway = await edge(edge_toml(origin.port, route="cache = false\nupgrade = false"))
    client = await raw_client(gateway.port)
    await client.send(ASK % b"websocket")
    response = await client.read_response()
    assert response is not None and response.status == 200
    assert origin.requests[0].get(b"upgrade") is None


# -- how long a tunnel may be silent -----------------------------------------------------------------------------------


async def test_a_silent_tunnel_ends_and_so_does_its_origin_s_side(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy(pool='timeouts = { tunnel = "300ms" }')
    origin.default = (SWITCH, Step.SILENCE)
    await client.send(ASK % b"websocket")
    assert await client.read_head() is not None
    assert await client.wire.until_end() == b""
    await until(lambda: gateway.in_flight == 0 and gateway.upstream_connections == 0)
    line = (await gateway.log(1))[0]
    assert (line["status"], line["error"]) == (101, "connection_timeout")


@pytest.mark.parametrize("side", ["client", "origin"])
async def test_bytes_of_either_side_keep_a_tunnel(side: str, origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy(pool='timeouts = { tunnel = "10s" }')
    pings = [piece for at in range(5) for piece in (Pause(f"{at}"), b"!")]
    origin.default = (SWITCH, *(pings if side == "origin" else ()), Step.SILENCE)
    await client.send(ASK % b"websocket")
    assert await client.read_head() is not None
    tunnel = next(iter(gateway.worker.downstreams)).tunnel
    assert tunnel is not None
    for at in range(5):
        before = tunnel._heard_at
        if side == "client":
            await client.send(b"?")
        else:
            origin.release(f"{at}")
        await until(lambda before=before: tunnel._heard_at > before)  # type: ignore[misc]
        heard = tunnel._heard_at
        await gateway.on_loop(lambda heard=heard: tunnel.expire(heard + 9.9))  # type: ignore[misc]
        assert gateway.in_flight == 1
    await gateway.on_loop(lambda: tunnel.expire(tunnel._heard_at + 10.1))
    assert await client.wire.until_end() == b"!" * (5 if side == "origin" else 0)


async def test_the_kernel_watches_both_peers_of_a_tunnel(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    origin.default = (SWITCH, Step.SILENCE)
    await client.send(ASK % b"websocket")
    assert await client.read_head() is not None
    transports = [next(iter(gateway.worker.downstreams)).transport, gateway.upstream()[0].transport]
    for transport in transports:
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


async def test_a_route_names_its_protocols(origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect) -> None:
    gateway = await edge(edge_toml(origin.port, route='cache = false\nupgrade = ["Chat/1"]'))
    origin.default = (SWITCH.replace(b"websocket", b"chat/1"), b"hello", Step.SILENCE)
    client = await raw_client(gateway.port)
    await client.send(ASK % b"chat/1")
    head = await client.read_head()
    assert head is not None and head.status == 101
    assert await client.wire.exactly(5) == b"hello"
    origin.default = (OK,)
    other = await raw_client(gateway.port)
    await other.send(ASK % b"websocket")
    response = await other.read_response()
    assert response is not None and response.status == 200
    assert origin.requests[1].get(b"upgrade") is None


async def test_a_tunnel_s_length_is_not_a_latency(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    origin.default = (SWITCH, Step.CLOSE)
    await client.send(ASK % b"websocket")
    await client.wire.until_end()
    await until(lambda: gateway.requests == 1)
    meter = gateway.worker.router.routes[0].meter
    await gateway.on_loop(meter.fold)
    assert (meter.first_byte.total, meter.latency.total) == (1, 0)


async def test_a_long_stream_is_long_and_not_slow(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    origin.default = (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", Pause("end"), b"ok")
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert await client.read_head() is not None
    exchange = next(iter(gateway.worker.downstreams)).exchange
    assert exchange is not None

    def earlier() -> None:
        exchange.started_at -= 100.0
        exchange.head_at -= 100.0

    await gateway.on_loop(earlier)
    origin.release("end")
    assert await client.wire.exactly(2) == b"ok"
    await until(lambda: gateway.requests == 1)
    meter = gateway.worker.router.routes[0].meter
    await gateway.on_loop(meter.fold)
    first, total = meter.first_byte.quantile(0.99), meter.latency.quantile(0.99)
    assert first is not None and first <= 10
    assert total == float("inf")

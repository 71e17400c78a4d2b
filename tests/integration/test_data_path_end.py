"""The end of things: drain, signals, and the access log that tells of every exchange."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
from collections.abc import Callable

import orjson
import pytest
from inprocess import Connect, Proxy, StartEdge, edge_toml
from kit.client import RawClient
from kit.origin import OK, Pause, Repeat, ScriptedOrigin, Step
from kit.processes import GatewayProcess, gateway_toml, resident_bytes
from kit.waiting import WAIT_S, until

StartGateway = Callable[[str], GatewayProcess]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
MIB = 1024 * 1024


# -- drain -------------------------------------------------------------------------------------------------------------


async def test_a_drain_ends_idle_connections_politely_and_running_exchanges_with_them(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port))
    origin.route("/slow", Pause("go"), OK)
    fresh, kept, running = [await raw_client(gateway.port) for _ in range(3)]
    assert (await kept.get("/")).status == 200
    await running.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: gateway.in_flight == 1)
    ended = asyncio.create_task(gateway.on_loop(lambda: gateway.worker.drain(WAIT_S)))
    for idle in (fresh, kept):
        assert await idle.ended()
        assert not idle.wire.was_reset
        await idle.close()
    origin.release("go")
    last = await running.read_response()
    assert last is not None
    assert (last.status, last.body.content, last.get(b"connection")) == (200, b"ok", b"close")
    await running.close()
    await ended
    with pytest.raises(OSError):
        await RawClient.connect(gateway.port)


async def test_a_drain_cuts_what_is_left_when_its_grace_is_over(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    origin.default = (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart", Step.SILENCE)
    await client.send(GET)
    assert await client.read_head() is not None
    await gateway.on_loop(lambda: gateway.worker.drain(0.1))
    await origin.wait_for("gone", 1)
    assert await client.wire.until_end() == b"part"
    await until(lambda: gateway.in_flight == 0)


async def test_a_request_that_was_begun_when_the_drain_came_is_served(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    await client.send(GET[:9])
    await until(lambda: any(downstream._buffer for downstream in list(gateway.worker.downstreams)))
    ended = asyncio.create_task(gateway.on_loop(lambda: gateway.worker.drain(WAIT_S)))
    await until(lambda: gateway.worker.draining)
    await client.send(GET[9:])
    response = await client.read_response()
    assert response is not None
    assert (response.status, response.get(b"connection")) == (200, b"close")
    await client.close()
    await ended


# -- the real process --------------------------------------------------------------------------------------------------


def logging(origin_port: int, **more: str) -> str:
    return gateway_toml(origin_port, **more).replace('access = "off"', 'access = "@STATE@/access.log"')


async def test_term_ends_running_exchanges_within_the_grace_time(
    origin: ScriptedOrigin, gateway_process: StartGateway, raw_client: Connect
) -> None:
    gateway = gateway_process(logging(origin.port, limits='shutdown_grace = "60s"'))
    origin.route("/slow", Pause("go"), OK)
    idle, running = await raw_client(gateway.http_port), await raw_client(gateway.http_port)
    assert (await idle.get("/")).status == 200
    await running.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    await origin.wait_for("heads", 2)
    gateway.signal(signal.SIGTERM)
    assert await idle.ended()
    await idle.close()
    origin.release("go")
    response = await running.read_response()
    assert response is not None and response.body.content == b"ok"
    await running.close()
    assert await asyncio.to_thread(gateway.wait) == 0
    lines = (gateway.directory / "state" / "access.log").read_bytes().splitlines()
    assert [orjson.loads(line)["target"] for line in lines] == ["/", "/slow"], "nothing of the log is lost"


async def test_a_second_term_ends_at_once(
    origin: ScriptedOrigin, gateway_process: StartGateway, raw_client: Connect
) -> None:
    gateway = gateway_process(logging(origin.port, limits='shutdown_grace = "30s"'))
    origin.default = (Step.SILENCE,)
    client = await raw_client(gateway.http_port)
    await client.send(GET)
    await origin.wait_for("heads", 1)
    gateway.signal(signal.SIGTERM)
    await until(lambda: gateway.admin_status("/readyz") == 503)  # readiness fails first
    assert gateway.running
    gateway.signal(signal.SIGTERM)
    await asyncio.to_thread(gateway.wait, 5)
    await origin.wait_for("gone", 1)


async def test_usr1_reopens_the_log(origin: ScriptedOrigin, gateway_process: StartGateway, raw_client: Connect) -> None:
    gateway = gateway_process(logging(origin.port))
    path = gateway.directory / "state" / "access.log"
    client = await raw_client(gateway.http_port)
    await client.get("/before")
    path.rename(path.with_suffix(".1"))
    gateway.signal(signal.SIGUSR1)
    await until(path.exists)
    await client.get("/after")
    await until(path.read_bytes)
    assert b'"/before"' in path.with_suffix(".1").read_bytes()
    assert re.findall(rb'"target":"([^"]*)"', path.read_bytes()) == [b"/after"]


async def test_64_mib_each_way_in_bounded_memory(
    origin: ScriptedOrigin, gateway_process: StartGateway, raw_client: Connect
) -> None:
    gateway = gateway_process(gateway_toml(origin.port, limits='max_body = "1GiB"'))
    piece, count = b"x" * 65536, 1024
    origin.route("/down", b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(piece) * count), Repeat(piece, count))
    origin.route("/up", b"HTTP/1.1 100 Continue\r\n\r\n", Step.BODY, OK)
    client = await raw_client(gateway.http_port)
    assert (await client.get("/")).status == 200
    before, most = resident_bytes(gateway.pid), 0
    await client.send(b"GET /down HTTP/1.1\r\nHost: a\r\n\r\n")
    assert await client.read_head() is not None
    seen = 0
    while seen < len(piece) * count:
        if not client.leftover:
            await client.wire.more()
        seen += len(client.wire.take(len(client.wire.buffer)))
        if seen % 97 == 0:
            most = max(most, resident_bytes(gateway.pid))
    await client.send(b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number in range(count):
        await client.send(b"10000\r\n" + piece + b"\r\n")
        if number % 64 == 0:
            most = max(most, resident_bytes(gateway.pid))
    await client.send(b"0\r\n\r\n")
    response = await client.read_response(b"POST")
    assert response is not None and response.status == 200
    body = origin.requests[-1].body
    assert body is not None and len(body.content) == len(piece) * count
    most = max(most, resident_bytes(gateway.pid))
    assert most - before < 32 * MIB, f"grew by {(most - before) / MIB:.1f} MiB"


# -- the log -----------------------------------------------------------------------------------------------------------


async def test_one_line_for_every_exchange_refused_ones_included(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    await client.send(b'GET /"\\x HTTP/1.1\r\nHost: a.example\r\nAuthorization: secret\r\nCookie: secret\r\n\r\n')
    assert await client.read_response() is not None
    await client.send(b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert await client.read_response() is not None
    await client.send(b"\x01\x02\r\n\r\n")
    assert await client.read_response() is not None
    raw = await gateway.log_lines(3)
    assert len(raw) == 3
    assert b"secret" not in b"".join(raw)
    served, refused, malformed = map(orjson.loads, raw)
    assert set(served) == set(refused) == set(malformed)
    assert (served["target"], served["status"], served["route"], served["bytes_out"]) == ('/"\\x', 200, "*/", 2)
    assert served["host"] == "a.example"
    assert served["backend"] == f"127.0.0.1:{origin.port}"
    assert 0 <= served["upstream_us"] <= served["us"]
    assert (refused["status"], refused["error"], refused["backend"], refused["attempts"]) == (
        405, "http_request_denied", "", 0,
    )  # fmt: skip
    assert (malformed["status"], malformed["method"], malformed["error"]) == (400, "-", "http_request_error")
    assert len({served["id"], refused["id"], malformed["id"]}) == 3


async def test_the_log_tells_the_bytes_of_the_gateway_s_own_errors(proxy: Proxy, raw_client: Connect) -> None:
    gateway, _ = await proxy()
    sent = []
    for request, method in (
        (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", b"TRACE"),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", b"HEAD"),
        (b"\x01\x02\r\n\r\n", b"GET"),
    ):
        client = await raw_client(gateway.port)
        await client.send(request)
        response = await client.read_response(method)
        assert response is not None and response.status >= 400
        sent.append(len(response.body.content))
    assert [line["bytes_out"] for line in await gateway.log(3)] == sent and sent[0] > 0 == sent[1]


async def test_the_combined_format(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy(log='access = "@LOG@"\nformat = "combined"')
    await client.send(b'GET /x HTTP/1.1\r\nHost: a\r\nUser-Agent: q"\xff\tx\r\nReferer: http://r/\r\n\r\n')
    assert await client.read_response() is not None
    (line,) = await gateway.log_lines(1)
    assert re.fullmatch(
        rb'127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "GET /x HTTP/1\.1" 200 2 "http://r/" '
        rb'"q\\"\xc3\xbf\\tx"',
        line,
    )


async def test_the_combined_format_tells_the_client_s_own_version(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy(log='access = "@LOG@"\nformat = "combined"')
    await client.send(b"GET /x HTTP/1.0\r\nHost: a\r\n\r\n")
    assert await client.read_response() is not None
    assert b'"GET /x HTTP/1.0"' in (await gateway.log_lines(1))[0]


async def test_what_is_accepted_as_a_drain_begins_is_answered(origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(origin.port))

    async def ask_and_drain() -> socket.socket:
        client = socket.create_connection(("127.0.0.1", gateway.port))  # on the loop, which accepts nothing meanwhile
        client.sendall(GET)
        await gateway.worker.drain(WAIT_S)
        return client

    with await gateway.on_loop(ask_and_drain) as client:
        client.settimeout(WAIT_S)
        assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")


async def test_counters_and_log_agree(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    origin.route("/bad", b"nonsense\r\n\r\n")
    for target in ("/", "/", "/bad"):
        await client.get(target)
    lines = await gateway.log(3)
    meter = gateway.worker.router.routes[0].meter
    await gateway.on_loop(meter.fold)
    assert (meter.requests, meter.status[2], meter.status[5]) == (3, 2, 1)
    assert meter.bytes_out == sum(line["bytes_out"] for line in lines)
    assert meter.errors == {"http_protocol_error": 1}

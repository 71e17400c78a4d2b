"""Attempts: the next backend where that is harmless, never twice where it is not; queue, budget, names, TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from time import monotonic

import pytest
import pytest_asyncio
import trustme
from inprocess import Connect, Proxy, StartEdge, StartOrigins, edge_toml
from kit.client import RawClient, Response
from kit.message import Malformed
from kit.origin import OK, Pause, ScriptedOrigin, Step
from kit.ports import free_port
from kit.waiting import until

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"


async def post(client: RawClient) -> Response:
    await client.send(POST)
    response = await client.read_response(b"POST")
    assert response is not None
    return response


BROKEN_BODIES = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", Step.RESET),
    "chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", Step.CLOSE),
    "no chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", Step.SILENCE),
    "close": (b"HTTP/1.1 200 OK\r\n\r\nhalf", Step.RESET),
}


@pytest.mark.parametrize("broken", BROKEN_BODIES)
@pytest.mark.parametrize("cache", ["true", "false"])
async def test_a_backend_whose_bodies_break_off_is_ejected(
    broken: str, cache: str, origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    bad, good = await origins(), await origins()
    bad.default = BROKEN_BODIES[broken]
    text = edge_toml(bad.port, good.port, route=f"cache = {cache}")
    gateway = await edge(text.replace("ejection = false", 'ejection = { consecutive = 3, time = "60s" }'))
    whole = 0
    for _ in range(12):
        client = await raw_client(gateway.port)
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        try:
            response = await client.read_response()
        except Malformed:
            continue
        whole += response is not None and response.body.content == b"ok"
    first = gateway.worker.pools["origin"].pool.backends[0]
    assert (bad.counters["heads"], first.ejections, whole) == (3, 1, 9)


async def test_a_body_that_ran_for_long_is_no_trial_any_more(
    origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    one, two = await origins(), await origins()
    one.default = (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", Step.SILENCE)
    gateway = await edge(edge_toml(one.port, two.port).replace("ejection = false", ""))
    pool = gateway.worker.pools["origin"]
    backend = pool.pool.backends[0]
    await gateway.on_loop(gateway.stop_ticks)
    await gateway.on_loop(lambda: backend.eject(monotonic() - 60))
    before = monotonic()
    client = await raw_client(gateway.port)
    for _ in range(2):  # the other one's turn, and the trial
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        head = await client.read_head()
        assert head is not None
        if head.get(b"content-length") is None:
            break
        await client.read_body(head)
    assert backend.half_open
    await gateway.on_loop(lambda: pool.tick(before + 1.0))
    assert backend.half_open
    await gateway.on_loop(lambda: pool.tick(monotonic() + 3.0))
    assert not backend.half_open


# -- the kept connection that closed -----------------------------------------------------------------------------------


async def test_a_stale_kept_connection_is_tried_again_for_get(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    origin.enqueue(OK)
    origin.enqueue(Step.CLOSE)  # reads the second request, and closes as if it had never seen it
    assert (await client.get("/1")).status == 200
    assert (await client.get("/2")).status == 200
    assert origin.counters["connections"] == 2
    assert [line["attempts"] for line in await gateway.log(2)] == [1, 2]
    assert gateway.worker.pools["origin"].pool.backends[0].failures == 0, "not the backend's fault"


async def test_a_stale_kept_connection_is_never_tried_again_for_post(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    origin.enqueue(OK)
    origin.enqueue(Step.CLOSE)
    assert (await post(client)).status == 200
    assert (await post(client)).status == 502
    assert len(origin.targets()) == 2


async def test_an_origin_s_own_idle_hint_is_heeded(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    origin.default = (b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok",)
    await client.get("/")
    await until(lambda: gateway.upstream_connections == 0)
    await origin.wait_for("closed", 1)


# -- the next backend --------------------------------------------------------------------------------------------------


async def test_a_refused_connection_goes_to_the_next_backend_even_for_post(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(free_port(), origin.port))
    client = await raw_client(gateway.port)
    for _ in range(4):
        assert (await post(client)).status == 200
    assert origin.targets() == [b"/"] * 4


@pytest.mark.parametrize("end", [Step.CLOSE, Step.RESET])
async def test_a_lost_request_goes_to_the_next_backend_unless_it_was_a_post(
    end: Step, origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    bad, good = await origins(), await origins()
    bad.default = (end,)
    gateway = await edge(edge_toml(bad.port, good.port))
    client = await raw_client(gateway.port)
    assert [(await client.get(f"/{n}")).status for n in range(4)] == [200] * 4
    assert len(good.targets()) == 4
    seen = bad.counters["heads"]
    statuses = [(await post(client)).status for _ in range(4)]
    assert sorted(statuses) == [200, 200, 502, 502]
    assert bad.counters["heads"] + good.counters["heads"] == seen + 4 + 4, "never twice"


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_gateway_failure_is_asked_of_another_backend(
    status: int, origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    bad, good = await origins(), await origins()
    bad.default = (b"HTTP/1.1 %d Bad\r\nContent-Length: 3\r\n\r\nbad" % status,)
    gateway = await edge(edge_toml(bad.port, good.port))
    client = await raw_client(gateway.port)
    assert [(await client.get("/")).status for _ in range(4)] == [200] * 4
    assert sorted([(await post(client)).status for _ in range(2)]) == [200, status]
    await good.stop()
    last = await client.get("/")
    assert (last.status, last.body.content) in ((status, b"bad"), (502, last.body.content))


async def test_a_body_that_is_still_held_goes_to_the_next_backend(
    origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    bad, good = await origins(), await origins()
    bad.default = (Step.CLOSE,)
    gateway = await edge(edge_toml(bad.port, good.port))
    client = await raw_client(gateway.port)
    for _ in range(4):
        await client.send(
            b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n"
        )
        response = await client.read_response(b"PUT")
        assert response is not None and response.status == 200
    bodies = [request.body for request in good.requests]
    assert [(body.content, body.trailers) for body in bodies if body] == [(b"hi", ((b"X-Sum", b"1"),))] * 4


async def test_a_body_that_has_grown_past_what_is_held_does_not(
    origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    first, second = await origins(), await origins()
    for each in (first, second):
        each.default = (Step.BODY, Step.CLOSE)
    gateway = await edge(edge_toml(first.port, second.port, limits='replay_buffer = "4KiB"'))
    client = await raw_client(gateway.port)
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n")
    await until(lambda: first.counters["heads"] + second.counters["heads"] == 1)
    await client.send(b"x" * 20000)
    response = await client.read_response(b"PUT")
    assert response is not None and response.status == 502
    assert first.counters["heads"] + second.counters["heads"] == 1


async def test_no_more_attempts_than_the_route_allows(
    origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    all_ = [await origins() for _ in range(4)]
    for each in all_:
        each.default = (Step.CLOSE,)
    gateway = await edge(edge_toml(*(each.port for each in all_), pool="retry = { attempts = 2 }"))
    response = await (await raw_client(gateway.port)).get("/")
    assert response.status == 502
    assert sum(each.counters["heads"] for each in all_) == 3
    assert max(each.counters["heads"] for each in all_) == 1, "each time another one"
    assert (await gateway.log(1))[0]["attempts"] == 3


async def test_retries_are_bounded_by_their_budget(origins: StartOrigins, edge: StartEdge, raw_client: Connect) -> None:
    bad, slow = await origins(), await origins()
    bad.default = (Pause("go"), Step.CLOSE)
    slow.default = (Pause("go"), Step.CLOSE)
    gateway = await edge(edge_toml(bad.port, slow.port, pool='retry = { budget = "0%", min = 1, same_backend = "0s" }'))
    clients = [await raw_client(gateway.port) for _ in range(10)]
    for client in clients:
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: bad.counters["heads"] + slow.counters["heads"] == 10)
    bad.release("go")
    slow.release("go")
    for client in clients:
        response = await client.read_response()
        assert response is not None and response.status == 502
    retried = bad.counters["heads"] + slow.counters["heads"] - 10
    assert 1 <= retried <= 10
    budget = gateway.worker.pools["origin"].budget
    assert (budget.active, budget.retrying) == (0, 0)


# -- queue -------------------------------------------------------------------------------------------------------------


async def test_a_full_backend_makes_a_queue_that_is_served_in_order(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, backend="max_in_flight = 1", pool='timeouts = { queue = "60s" }'))
    origin.default = (Pause("go"), OK)
    clients = [await raw_client(gateway.port) for _ in range(3)]
    for number, client in enumerate(clients):
        await client.send(f"GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        await until(lambda: gateway.in_flight + gateway.worker.pools["origin"].queued == number + 1)  # noqa: B023
    assert (gateway.in_flight, gateway.worker.pools["origin"].queued) == (1, 2)
    origin.release("go")
    for client in clients:
        response = await client.read_response()
        assert response is not None and response.status == 200
    assert origin.targets() == [b"/0", b"/1", b"/2"]


async def test_who_waits_too_long_gets_503(origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect) -> None:
    limits = 'queue = 1\ntimeouts = { queue = "60s", first_byte = "10m", head = "10m" }'
    gateway = await edge(edge_toml(origin.port, backend="max_in_flight = 1", pool=limits))
    origin.default = (Pause("go"), OK)
    first, second, third = [await raw_client(gateway.port) for _ in range(3)]
    await first.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: gateway.in_flight == 1)
    await second.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: gateway.worker.pools["origin"].queued == 1)
    full = await third.get("/")
    await gateway.on_loop(lambda: gateway.worker.pools["origin"].tick(monotonic() + 61.0))
    late = await second.read_response()
    assert late is not None
    for refused in (full, late):
        assert refused.status == 503
        assert b"error=connection_limit_reached" in (refused.get(b"proxy-status") or b"")
        assert refused.get(b"retry-after") == b"1"
    origin.release("go")
    served = await first.read_response()
    assert served is not None and served.status == 200


async def test_who_leaves_the_queue_is_not_served(origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect) -> None:
    gateway = await edge(edge_toml(origin.port, backend="max_in_flight = 1", pool='timeouts = { queue = "60s" }'))
    origin.default = (Pause("go"), OK)
    first, second = [await raw_client(gateway.port) for _ in range(2)]
    await first.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: gateway.in_flight == 1)
    await second.send(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: gateway.worker.pools["origin"].queued == 1)
    second.reset()
    await until(lambda: gateway.worker.pools["origin"].queued == 0)
    origin.release("go")
    assert await first.read_response() is not None
    await until(lambda: gateway.requests == 2)
    assert origin.targets() == [b"/1"]


# -- names -------------------------------------------------------------------------------------------------------------


async def test_an_unresolvable_backend_never_stops_the_start(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml("http://no-such-host.invalid:80", origin.port))
    client = await raw_client(gateway.port)
    assert [(await client.get("/")).status for _ in range(4)] == [200] * 4
    alone = await edge(edge_toml("http://no-such-host.invalid:80"))
    response = await (await raw_client(alone.port)).get("/")
    assert response.status == 502
    assert b"error=dns_error" in (response.get(b"proxy-status") or b"")


# -- TLS ---------------------------------------------------------------------------------------------------------------

StartTls = Callable[[ssl.SSLContext], Awaitable[int]]


@pytest_asyncio.fixture
async def tls_origin() -> AsyncIterator[StartTls]:
    """`await tls_origin(context)`: the port of an origin that speaks TLS and answers `ok`."""
    servers: list[asyncio.Server] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(OK)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    async def start(context: ssl.SSLContext) -> int:
        servers.append(await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context))
        return int(servers[-1].sockets[0].getsockname()[1])

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


async def test_tls_to_a_backend(tls_origin: StartTls, edge: StartEdge, raw_client: Connect, tmp_path: Path) -> None:
    good, other = trustme.CA(), trustme.CA()
    good.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    asked: list[str | None] = []
    context = server_context(good, "origin.example", "127.0.0.1")
    context.sni_callback = lambda connection, name, _: asked.append(name)
    trusted = await tls_origin(context)
    foreign = await tls_origin(server_context(other, "127.0.0.1"))
    misnamed = await tls_origin(server_context(good, "other.example"))
    tls = f'tls = {{ ca = "{tmp_path / "ca.pem"}" '

    async def get(port: int, more: str = "") -> Response:
        gateway = await edge(edge_toml(f"https://127.0.0.1:{port}", pool=tls + more + "}"))
        client = await raw_client(gateway.port)
        await client.get("/")
        return await client.get("/")

    assert (await get(trusted)).body.content == b"ok"
    assert (await get(trusted, ', server_name = "origin.example"')).body.content == b"ok"
    assert asked[-1] == "origin.example"
    for port in (foreign, misnamed):
        refused = await get(port)
        assert refused.status == 502
        assert b"error=tls_certificate_error" in (refused.get(b"proxy-status") or b"")
    assert (await get(foreign, ", verify = false")).body.content == b"ok"


async def test_a_plain_origin_where_tls_was_expected(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(f"https://127.0.0.1:{origin.port}", pool='timeouts = { connect = "1s" }'))
    assert (await (await raw_client(gateway.port)).get("/")).status in (502, 504)
    assert not origin.targets()

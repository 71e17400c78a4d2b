"""Bodies both ways: framed anew, streamed, bounded; interim answers and trailers cross with them."""

from __future__ import annotations

import asyncio

import pytest
from deaf import DeafOrigin
from inprocess import Connect, Proxy, StartEdge, edge_toml
from kit.client import RawClient, Response
from kit.message import Framing
from kit.origin import OK, Pause, Repeat, ScriptedOrigin, Step
from kit.waiting import until

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECE = bytes(range(256)) * 256  # 64 KiB
MANY = 1024  # 64 MiB in all


async def answer(client: RawClient, method: bytes = b"GET") -> Response:
    response = await client.read_response(method)
    assert response is not None, "closed without an answer"
    return response


# -- requests ----------------------------------------------------------------------------------------------------------


async def test_a_chunked_upload_with_trailers(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    wire = (
        b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        b"3;e=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 7\r\nHost: evil\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    for at in range(0, len(wire), 7):
        await client.send(wire[at : at + 7])
    assert ((await answer(client)).status, (await answer(client)).status) == (200, 200)
    body = origin.requests[0].body
    assert body is not None
    assert (body.framing, body.content, body.extensions) == (Framing.CHUNKED, b"abcde", ())
    assert body.trailers == ((b"X-Sum", b"7"),)
    assert origin.targets() == [b"/up", b"/next"]
    assert (await gateway.log(2))[0]["bytes_in"] == 5


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_an_upload_goes_on_while_it_comes(framing: str, origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    origin.default = (Step.BODY, OK)
    if framing == "length":
        await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
    else:
        await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await origin.wait_for("heads", 1)  # before the body is whole
    await client.send(b"def" if framing == "length" else b"3\r\ndef\r\n0\r\n\r\n")
    assert (await answer(client)).status == 200
    body = origin.requests[0].body
    assert body is not None and body.content == b"abcdef"


async def test_a_malformed_chunk_ends_both_connections(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await origin.wait_for("heads", 1)
    await client.send(b"3\r\nabcX")
    assert (await answer(client)).status == 400
    assert await client.ended()
    await origin.wait_for("partial_bodies", 1)


@pytest.mark.parametrize("framing", [b"Content-Length: 2000", b"Transfer-Encoding: chunked"])
async def test_a_body_over_the_limit(framing: bytes, origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy(limits='max_body = "1KiB"')
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n400\r\n" + b"x" * 1024 + b"\r\n1\r\n")
    response = await answer(client)
    assert response.status == 413
    assert await client.ended()
    assert not origin.targets()


async def test_an_early_answer_ends_the_connection_after_it(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    origin.default = (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", Step.BODY)
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
    response = await answer(client)
    assert (response.status, response.get(b"connection"), response.body.content) == (403, b"close", b"no")
    await until(lambda: gateway.upstream_connections == 0)


# -- Expect ------------------------------------------------------------------------------------------------------------

EXPECT = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"


async def test_expect_is_answered_once_a_backend_is_ready(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    await client.send(EXPECT)
    head = await client.read_head()
    assert head is not None and head.status == 100
    await client.send(b"hi")
    response = await answer(client)
    assert (response.status, response.interim) == (200, ())
    assert origin.requests[0].get(b"expect") is None


async def test_expect_is_refused_before_the_body_is_sent(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy(limits='max_body = "1B"')
    await client.send(EXPECT)
    response = await answer(client)
    assert (response.status, response.interim) == (413, ())
    assert not origin.requests


async def test_expect_with_no_backend_is_never_invited(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    await origin.stop()
    await client.send(EXPECT)
    response = await answer(client)
    assert (response.status, response.interim) == (502, ())


async def test_a_body_that_does_not_wait_for_its_invitation(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    await client.send(EXPECT + b"hi")
    response = await answer(client)
    assert response.status == 200
    assert origin.requests[0].body is not None and origin.requests[0].body.content == b"hi"


async def test_an_origin_s_own_100_is_not_passed_on_twice(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    origin.default = (b"HTTP/1.1 100 Continue\r\n\r\n", Step.BODY, OK)
    await client.send(EXPECT + b"hi")
    response = await answer(client)
    assert response.status == 200
    assert [head.status for head in response.interim] in ([], [100])


# -- responses ---------------------------------------------------------------------------------------------------------


async def test_early_hints_come_before_the_answer(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    origin.default = (b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: X\r\nX: 1\r\n\r\n", Pause("page"), OK)
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    early = await client.read_head()
    assert early is not None
    assert (early.status, early.fields) == (103, ((b"Link", b"</a.css>"),))
    origin.release("page")
    assert (await answer(client)).body.content == b"ok"


async def test_an_http_1_0_client_gets_no_interim_answer(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    origin.default = (b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK,)
    await client.send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
    assert (await answer(client)).interim == ()


async def test_more_interim_answers_than_allowed_are_a_bad_gateway(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy(limits="max_interim = 3")
    origin.default = (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 4 + OK,)
    response = await client.get("/")
    assert (response.status, len(response.interim)) == (502, 3)


async def test_server_sent_events_are_not_held_back(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    events = [b"data: %d\n\n" % number for number in range(3)]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    origin.default = (head, chunks[0], Pause("1"), chunks[1], Pause("2"), chunks[2] + b"0\r\n\r\n")
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await client.read_head()) is not None
    for number, chunk in enumerate(chunks):
        assert await client.wire.exactly(len(chunk)) == chunk  # while the origin still waits
        origin.release(str(number + 1))
    assert await client.wire.exactly(5) == b"0\r\n\r\n"


async def test_trailers_of_a_response_cross_and_are_never_merged(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    origin.default = (CHUNKED + b"2\r\nok\r\n0\r\nX-Sum: 9\r\nSet-Cookie: evil=1\r\n\r\n",)
    response = await client.get("/")
    assert (response.body.trailers, response.get(b"x-sum")) == (((b"X-Sum", b"9"),), None)


async def test_a_close_delimited_response_is_framed_for_the_client(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    origin.enqueue(b"HTTP/1.1 200 OK\r\n\r\nhel", Pause("rest"), b"lo", Step.CLOSE)
    origin.release("rest")
    first = await client.get("/")
    assert (first.body.framing, first.body.content, first.complete, first.closed) == (
        Framing.CHUNKED,
        b"hello",
        True,
        False,
    )
    assert (await client.get("/")).status == 200


@pytest.mark.parametrize(
    ("script", "http_1_0"),
    [
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart", Step.CLOSE), False),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart", Pause("seen"), Step.RESET), False),
        ((CHUNKED + b"4\r\npart\r\n", Step.CLOSE), False),
        ((CHUNKED + b"4\r\npart\r\nX\r\n", Step.SILENCE), False),
        ((b"HTTP/1.1 200 OK\r\n\r\npart", Pause("seen"), Step.RESET), False),
        ((b"HTTP/1.1 200 OK\r\n\r\npart", Pause("seen"), Step.RESET), True),
        ((CHUNKED + b"4\r\npart\r\n", Pause("seen"), Step.RESET), True),
    ],
)
async def test_a_cut_response_never_looks_whole(
    script: tuple[bytes | Step | Pause, ...], http_1_0: bool, origin: ScriptedOrigin, proxy: Proxy
) -> None:
    gateway, client = await proxy()
    origin.default = script
    await client.send(b"GET / HTTP/1.%d\r\nHost: a\r\n\r\n" % (0 if http_1_0 else 1))
    head = await client.read_head()
    assert head is not None and head.status == 200
    while b"part" not in client.leftover and await client.wire.more():
        pass
    origin.release("seen")
    response = await client.read_body(head)
    assert not response.complete
    assert b"HTTP/1.1 50" not in response.body.wire
    assert (await gateway.log(1))[0]["error"] == "http_response_incomplete"


@pytest.mark.parametrize(
    "script",
    [
        (b"HTTP/1.1 200 OK\r\nX : v\r\n\r\n",),
        (b"nonsense\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\n" + b"X: v\r\n" * 300 + b"\r\n",),
        (b"HTTP/1.1 200 OK\r\nX: " + b"v" * 70000,),
        (b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",),
        (b"HTTP/1.1 2", Step.CLOSE),
        (Step.CLOSE,),
        (Step.RESET,),
    ],
    ids=range(9),
)
async def test_a_hostile_answer_is_a_bad_gateway(
    script: tuple[bytes | Step, ...], origin: ScriptedOrigin, proxy: Proxy
) -> None:
    gateway, client = await proxy()
    origin.default = (*script, Step.SILENCE)
    response = await client.get("/")
    assert response.status == 502
    assert b"edge; error=" in (response.get(b"proxy-status") or b"")
    assert not response.closed, "it is not the client's fault"
    await until(lambda: gateway.upstream_connections == 0)


# -- backpressure ------------------------------------------------------------------------------------------------------


async def test_a_client_that_never_reads_stops_the_reading_upstream(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    origin.default = (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MANY * len(PIECE)), Repeat(PIECE, MANY))
    client.wire.pause_reading()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: any(downstream.paused for downstream in list(gateway.worker.downstreams)))
    downstream = next(iter(gateway.worker.downstreams))
    assert downstream.transport.get_write_buffer_size() < 1024 * 1024
    await until(lambda: [each._paused_reading for each in gateway.upstream()] == [True])
    client.wire.resume_reading()
    seen = 0
    while seen < MANY * len(PIECE):
        await client.wire.more()
        seen += len(client.wire.take(len(client.wire.buffer)))
    await until(lambda: gateway.requests == 1)


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_an_origin_that_never_reads_stops_the_client(
    framing: str, deaf_origin: DeafOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(deaf_origin.port))
    client = await raw_client(gateway.port)
    head, chunks = b"Content-Length: %d" % deaf_origin.size, [PIECE] * MANY
    if framing == "chunked":
        head, chunks = b"Transfer-Encoding: chunked", [b"%x\r\n%b\r\n" % (len(PIECE), PIECE)] * MANY
        deaf_origin.size = -1  # it does not understand chunks; here only the bound is looked at
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % head)

    async def write() -> None:
        for chunk in chunks:
            await client.wire.send(chunk)

    writing = asyncio.create_task(write())
    await until(lambda: any(each.transport.get_write_buffer_size() > 65536 for each in gateway.upstream()))
    await until(lambda: [downstream._reading for downstream in list(gateway.worker.downstreams)] == [False])
    (downstream,), (connection,) = gateway.worker.downstreams, gateway.upstream()
    assert connection.transport.get_write_buffer_size() < 1024 * 1024
    assert downstream.exchange is not None and downstream.exchange.upload is not None
    assert downstream.exchange.upload.received < 16 * 1024 * 1024, "what the kernel's buffers hold, and ours"
    assert not writing.done()
    deaf_origin.listen()
    if framing == "length":
        await writing
        assert (await answer(client, b"POST")).status == 200
    else:
        await until(lambda: deaf_origin.received > 8 * 1024 * 1024)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def test_a_client_that_leaves_gives_its_backend_back_at_once(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    origin.default = (CHUNKED + b"2\r\nok\r\n", Step.SILENCE)
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await client.read_head()) is not None
    assert gateway.in_flight == 1
    await client.close()
    await origin.wait_for("gone", 1)
    await until(lambda: gateway.in_flight == 0 and gateway.upstream_connections == 0)
    assert (await gateway.log(1))[0]["status"] == 200


async def test_a_client_that_leaves_before_any_answer_is_a_499(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    origin.default = (Step.SILENCE,)
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await origin.wait_for("heads", 1)
    client.reset()
    await origin.wait_for("gone", 1)
    assert (await gateway.log(1))[0]["status"] == 499
    backend = gateway.worker.pools["origin"].pool.backends[0]
    assert (backend.failures, backend.neutrals, backend.in_flight) == (0, 1, 0)


async def test_a_client_that_leaves_during_its_upload(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\npart")
    await origin.wait_for("heads", 1)
    await client.close()
    await origin.wait_for("partial_bodies", 1)
    await until(lambda: gateway.in_flight == 0)

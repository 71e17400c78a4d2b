"""HTTP/2 to clients, from end to end: what is asked and answered on streams, over TLS and in the clear.

One rule: the client is `h2`, which takes nothing that breaks the protocol.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
import trustme
from deaf import DeafOrigin
from hyperframe.frame import GoAwayFrame, PingFrame
from inprocess import Gateway, StartEdge, edge_toml
from kit.http2 import FrameClient, Http2Client, read_some, request_head
from kit.origin import OK, Pause, ScriptedOrigin, Step
from kit.ports import free_port
from kit.waiting import WAIT_S, until

LISTEN = 'http = ["127.0.0.1:0"]\nh2c = true'
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
Ask = Callable[..., Awaitable[tuple[Gateway, Http2Client]]]


def stored(body: bytes, extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), extra, body)


@pytest_asyncio.fixture
async def http2(origin: ScriptedOrigin, edge: StartEdge) -> AsyncIterator[Ask]:
    """`await http2(route=…)`: a gateway before the one origin, and a client that speaks HTTP/2 with it."""
    clients: list[Http2Client] = []

    async def start(
        listen: str = "", take: int | None = None, window: int = 65535, **tables: str
    ) -> tuple[Gateway, Http2Client]:
        gateway = await edge(edge_toml(origin.port, listen=f"{LISTEN}\n{listen}", **tables))
        clients.append(await Http2Client.connect(gateway.port, take=take, window=window))
        return gateway, clients[-1]

    yield start
    for client in clients:
        await client.close()


# -- answers -----------------------------------------------------------------------------------------------------------


async def test_a_forward(origin: ScriptedOrigin, http2: Ask) -> None:
    gateway, client = await http2()
    origin.default = (b"HTTP/1.1 201 Made\r\nContent-Length: 2\r\nX-A: 1\r\nConnection: close\r\n\r\nok",)
    answer = await client.get(b"/x?y", extra=[(b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"te", b"trailers")])
    assert (answer.status, answer.body, answer.get(b"x-a")) == (201, b"ok", b"1")
    assert answer.get(b"connection") is None
    sent = origin.requests[0]
    assert (sent.target, dict(sent.fields)[b"Host"]) == (b"/x?y", b"a")
    assert [value for name, value in sent.fields if name.lower() == b"cookie"] == [b"a=1; b=2"]
    assert not any(name.lower() == b"te" for name, _ in sent.fields)
    (line,) = await gateway.log(1)
    assert (line["method"], line["status"], line["bytes_out"]) == ("GET", 201, 2)


async def test_hits_and_a_head(origin: ScriptedOrigin, http2: Ask) -> None:
    gateway, client = await http2(route="cache = {}")
    origin.default = (stored(b"b" * 1000),)
    assert (await client.get(b"/x")).body == b"b" * 1000
    for _ in range(3):
        answer = await client.get(b"/x")
        assert (answer.status, answer.body) == (200, b"b" * 1000)
        assert (answer.get(b"cache-status") or b"").startswith(b"edge; hit; ttl=")
    head = await client.get(b"/x", method=b"HEAD")
    assert (head.status, head.body, head.get(b"content-length"), head.ended) == (200, b"", b"1000", True)
    part = await client.get(b"/x", extra=[(b"range", b"bytes=0-9")])
    assert (part.status, part.body, part.get(b"content-range")) == (206, b"b" * 10, b"bytes 0-9/1000")
    assert len(origin.requests) == 1
    assert [line["verdict"] for line in await gateway.log(6)] == ["miss", *["hit"] * 5]


async def test_many_streams_at_once(origin: ScriptedOrigin, http2: Ask) -> None:
    _, client = await http2(route="cache = {}")
    for number in range(60):
        origin.route(b"/%d" % number, stored(b"%d" % number * 700))
    streams = [client.ask(request_head(b"/%d" % (number % 60))) for number in range(90)]
    for number, stream in enumerate(streams):
        answer = await client.answer(stream)
        assert (answer.status, answer.body) == (200, b"%d" % (number % 60) * 700)


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 65535, 65536, 300_000])
async def test_bodies_of_any_size(size: int, origin: ScriptedOrigin, http2: Ask) -> None:
    _, client = await http2(route="cache = {}")
    body = bytes(number % 251 for number in range(size))
    origin.default = (stored(body),)
    for _ in range(3):  # forwarded, and twice from store
        answer = await client.get(b"/x")
        assert (answer.status, answer.body == body, answer.ended) == (200, True, True)
    origin.route(
        b"/chunked", CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:9], body[9:]) if p) + b"0\r\n\r\n"
    )
    assert (await client.get(b"/chunked")).body == body


async def test_trailers_and_interim_answers_cross(origin: ScriptedOrigin, http2: Ask) -> None:
    _, client = await http2()
    origin.default = (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + CHUNKED + b"2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n",
    )
    answer = await client.get(b"/")
    assert answer.interim == [(103, [(b"link", b"</a>")])]
    assert (answer.body, answer.trailers) == (b"ok", [(b"x-sum", b"7")])


async def test_no_content_and_not_modified(origin: ScriptedOrigin, http2: Ask) -> None:
    _, client = await http2()
    for head in (b"204 No Content", b"304 Not Modified"):
        origin.default = (b'HTTP/1.1 %b\r\nETag: "a"\r\n\r\n' % head,)
        answer = await client.get(b"/")
        assert (answer.status, answer.body, answer.ended) == (int(head[:3]), b"", True)


async def test_a_body_that_breaks_off_resets_its_stream_alone(origin: ScriptedOrigin, http2: Ask) -> None:
    gateway, client = await http2()
    origin.route(b"/cut", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", Step.RESET)
    slow = client.ask(request_head(b"/slow"))
    origin.route(b"/slow", Pause("slow"), OK)
    cut = await client.get(b"/cut")
    assert (cut.status, cut.ended, cut.reset) == (200, False, 2)
    origin.release("slow")
    assert (await client.answer(slow)).body == b"ok"
    assert {line["error"] for line in await gateway.log(2)} == {"", "http_response_incomplete"}


async def test_errors_of_ours(http2: Ask, origin: ScriptedOrigin) -> None:
    _, client = await http2()
    for method, status in ((b"TRACE", 405), (b"CONNECT", 405)):
        fields = (
            request_head(method=method) if method != b"CONNECT" else [(b":method", method), (b":authority", b"a:1")]
        )
        answer = await client.answer(client.ask(fields))
        assert answer.status == status
    assert (await client.get(b"/", scheme=b"https")).status == 421
    long = [(b"x-%d" % number, b"v" * 4000) for number in range(9)]
    assert (await client.get(b"/", extra=long)).status == 431
    assert (await client.get(b"/" + b"p" * 9000)).status == 414
    assert (await client.get(b"/", host=b"a b")).reset == 1
    assert (await client.get(b"/")).status == 200
    assert len(origin.requests) == 1


# -- request bodies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [True, False])
async def test_an_upload(told: bool, origin: ScriptedOrigin, http2: Ask) -> None:
    gateway, client = await http2()
    body = bytes(number % 251 for number in range(400_000))
    origin.default = (Step.BODY, OK)
    extra = [(b"content-length", b"%d" % len(body))] if told else []
    stream = client.ask(request_head(method=b"POST", extra=extra), ends=False)
    await client.upload_all(stream, body)
    assert (await client.answer(stream)).status == 200
    received = origin.requests[0].body
    assert received is not None
    assert received.content == body
    assert (await gateway.log(1))[0]["bytes_in"] == len(body)


async def test_an_upload_goes_on_while_it_comes_and_its_trailers_cross(origin: ScriptedOrigin, http2: Ask) -> None:
    _, client = await http2()
    origin.default = (Step.BODY, OK)
    stream = client.ask(request_head(method=b"PUT"), ends=False)
    client.upload(stream, b"abc")
    await origin.wait_for("heads", 1)
    client.upload(stream, b"def")
    client.connection.send_headers(stream, [(b"x-sum", b"7")], end_stream=True)
    client.flush()
    assert (await client.answer(stream)).status == 200
    body = origin.requests[0].body
    assert body is not None
    assert (body.content, body.trailers) == (b"abcdef", ((b"x-sum", b"7"),))


async def test_a_slow_backend_withholds_credit_from_its_stream_alone(deaf_origin: DeafOrigin, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(deaf_origin.port, listen=LISTEN))
    client = await Http2Client.connect(gateway.port)
    size = deaf_origin.size
    head = request_head(method=b"POST", extra=[(b"content-length", b"%d" % size)])
    stream, sent, window = client.ask(head, ends=False), 0, client.connection.local_flow_control_window
    while window(stream) > 0:
        sent += len(piece := b"x" * min(window(stream), 16384, size - sent))
        client.upload(stream, piece)
        if not window(stream):
            await client.ping()  # what gives credit comes before its answer
    assert sent < size // 4
    other = client.ask(request_head(b"/", host=b"a b"))  # the connection goes on
    assert (await client.answer(other)).reset == 1
    deaf_origin.listen()
    await client.upload_all(stream, b"x" * (size - sent))
    assert (await client.answer(stream)).status == 200
    await client.close()


async def test_expect_continue(origin: ScriptedOrigin, http2: Ask) -> None:
    _, client = await http2()
    origin.default = (Step.BODY, OK)
    stream = client.ask(
        request_head(method=b"POST", extra=[(b"expect", b"100-continue"), (b"content-length", b"2")]), ends=False
    )
    await client.until(lambda: client.answers[stream].interim)
    assert client.answers[stream].interim == [(100, [])]
    client.upload(stream, b"ab", ends=True)
    assert (await client.answer(stream)).status == 200


async def test_an_early_answer_resets_what_is_left_of_the_body(origin: ScriptedOrigin, http2: Ask) -> None:
    _, client = await http2(limits='max_body = "1KiB"')
    stream = client.ask(request_head(method=b"POST", extra=[(b"content-length", b"5000")]), ends=False)
    answer = client.answers[stream]
    await client.until(lambda: answer.reset is not None)
    assert (answer.status, answer.ended, answer.reset) == (413, True, 0)
    assert (await client.get(b"/")).status == 200


@pytest.mark.parametrize(("sent", "ends"), [(b"abc", True), (b"abcdef", False)])
async def test_a_body_that_is_not_as_long_as_told(sent: bytes, ends: bool, origin: ScriptedOrigin, http2: Ask) -> None:
    gateway, client = await http2()
    origin.default = (Step.BODY, OK)
    stream = client.ask(request_head(method=b"POST", extra=[(b"content-length", b"5")]), ends=False)
    client.connection.streams[stream]._expected_content_length = None
    client.upload(stream, sent, ends=ends)
    assert (await client.answer(stream)).reset == 1
    assert (await client.get(b"/")).status == 200
    await until(lambda: gateway.in_flight == 0)


async def test_a_client_that_cancels_frees_its_backend(origin: ScriptedOrigin, http2: Ask) -> None:
    gateway, client = await http2()
    origin.default = (Step.SILENCE,)
    stream = client.ask(request_head(b"/"))
    await origin.wait_for("heads", 1)
    client.connection.reset_stream(stream, 8)
    client.flush()
    await origin.wait_for("gone", 1)
    await until(lambda: gateway.in_flight == 0)
    assert (await gateway.log(1))[0]["status"] == 499


async def test_a_client_that_leaves_frees_all_backends(origin: ScriptedOrigin, http2: Ask) -> None:
    gateway, client = await http2()
    origin.default = (Step.SILENCE,)
    for _ in range(5):
        client.ask(request_head(b"/"))
    await origin.wait_for("heads", 5)
    await client.close()
    await until(lambda: gateway.in_flight == 0 and not gateway.worker.downstreams)


# -- flow control ------------------------------------------------------------------------------------------------------


async def test_a_stream_without_room_holds_no_other(origin: ScriptedOrigin, http2: Ask) -> None:
    _, client = await http2(route="cache = {}", take=0, window=1000)
    origin.route(b"/large", stored(b"l" * 50_000))
    origin.route(b"/small", stored(b"s" * 500))
    stuck = client.ask(request_head(b"/large"))
    await client.until(lambda: len(client.answers[stuck].body) == 1000)
    for _ in range(5):
        assert (await client.get(b"/small")).body == b"s" * 500
    client.connection.increment_flow_control_window(49_000, stuck)
    client.flush()
    assert (await client.answer(stuck)).body == b"l" * 50_000


async def test_a_window_that_becomes_smaller_and_larger(origin: ScriptedOrigin, http2: Ask) -> None:
    _, client = await http2(route="cache = {}", take=0, window=1000)
    origin.default = (stored(b"l" * 5000),)
    stream = client.ask(request_head(b"/large"))
    await client.until(lambda: len(client.answers[stream].body) == 1000)
    client.connection.update_settings({4: 10})  # the stream's window is negative now
    client.flush()
    await client.until(lambda: client.connection.local_settings.initial_window_size == 10)
    client.connection.update_settings({4: 5000})
    client.flush()
    assert (await client.answer(stream)).body == b"l" * 5000


async def test_urgent_streams_come_first(origin: ScriptedOrigin, http2: Ask) -> None:
    _, client = await http2(route="cache = {}", take=0)
    origin.default = (stored(b"l" * 200_000),)
    await origin.wait_for("heads", 0)
    first = client.ask(request_head(b"/x"))
    await client.until(lambda: len(client.answers[first].body) == 65535)  # the connection's window is used up
    late = client.ask(request_head(b"/x", extra=[(b"priority", b"u=5")]))
    soon = client.ask(request_head(b"/x", extra=[(b"priority", b"u=1, i")]))
    for stream in (late, soon):
        await client.until(lambda stream=stream: client.answers[stream].status)
    client.connection.increment_flow_control_window(65_535)
    client.flush()
    await client.until(lambda: len(client.answers[soon].body) == 65535)
    assert client.answers[late].body == b""


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocols", ['["h2", "http/1.1"]', '["http/1.1"]'])
async def test_alpn_chooses(protocols: str, origin: ScriptedOrigin, edge: StartEdge, tmp_path: Path) -> None:
    authority = trustme.CA()
    cert = authority.issue_cert("a.test")
    cert.cert_chain_pems[0].write_to_path(tmp_path / "c.pem")
    cert.private_key_pem.write_to_path(tmp_path / "k.pem")
    pair = f'{{ cert = "{tmp_path}/c.pem", key = "{tmp_path}/k.pem" }}'
    https = f'[[listen.https]]\naddress = "127.0.0.1:{free_port()}"\nprotocols = {protocols}\ncertificates = [{pair}]'
    gateway = await edge(edge_toml(origin.port, listen=f'http = ["127.0.0.1:0"]\n{https}'))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols(["h2"])
    client = await Http2Client.connect(gateway.ports[1], context)
    assert client.wire.transport is not None
    agreed = client.wire.transport.get_extra_info("ssl_object").selected_alpn_protocol()
    if "h2" not in protocols:
        assert agreed is None
        await client.close()
        return
    answer = await client.get(b"/", host=b"a.test", scheme=b"https")
    assert (agreed, answer.status, answer.body) == ("h2", 200, b"ok")
    assert (await client.get(b"/", host=b"a.test", scheme=b"http")).status == 421
    assert dict(origin.requests[0].fields)[b"X-Forwarded-Proto"] == b"https"
    await client.close()


async def test_a_plain_listener_speaks_http2_only_where_it_says_so(origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(origin.port))
    client = await Http2Client.connect(gateway.port)
    data = await read_some(client.wire)
    assert data.startswith(b"HTTP/1.1 505 ")
    await client.close()


async def test_one_listener_speaks_both(origin: ScriptedOrigin, http2: Ask) -> None:
    gateway, client = await http2()
    assert (await client.get(b"/")).status == 200
    old = await gateway.client()
    await old.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    response = await old.read_response(b"GET")
    assert response is not None
    assert response.status == 200
    await old.close()


# -- the end -----------------------------------------------------------------------------------------------------------


async def test_a_drain_says_goodbye_twice_and_lets_streams_end(origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(origin.port, listen=LISTEN))
    client = await FrameClient.connect(gateway.port)
    origin.default = (Pause("slow"), OK)
    await client.send(client.head(1))
    await origin.wait_for("heads", 1)
    drained = asyncio.ensure_future(gateway.on_loop(lambda: gateway.worker.drain(WAIT_S)))
    await client.until(lambda: client.goaway)
    await client.until(lambda: client.of(PingFrame, 0))
    await client.send(client.head(3))  # it was on its way
    await origin.wait_for("heads", 2)
    assert len(client.of(GoAwayFrame, 0)) == 1
    (ping,) = client.of(PingFrame, 0)
    await client.send(PingFrame(0, ping.opaque_data, flags=["ACK"]), client.head(5))
    await client.until(lambda: client.resets(5))
    assert client.resets(5) == [7]
    assert [(f.last_stream_id, f.error_code) for f in client.of(GoAwayFrame, 0)] == [(2**31 - 1, 0), (3, 0)]
    origin.release("slow")
    await client.until(lambda: client.ended(1) and client.ended(3))
    await client.wire.left()
    await client.close()
    await drained


async def test_an_old_connection_is_asked_to_go(origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(origin.port, listen=f"{LISTEN}\nhttp2 = {{ requests = 3 }}"))
    client = await FrameClient.connect(gateway.port)
    for stream in (1, 3, 5):
        await client.send(client.head(stream))
        await client.until(lambda stream=stream: client.ended(stream))
    await client.wire.left()  # without an answer to the ping, in a second
    while await client.more():
        pass
    assert [(f.last_stream_id, f.error_code) for f in client.of(GoAwayFrame, 0)] == [(2**31 - 1, 0), (5, 0)]
    await client.close()

"""WebSockets over HTTP/2 (RFC 8441): an extended CONNECT becomes an upgrade, and DATA carries its bytes."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import sha1

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from hyperframe.frame import HeadersFrame, SettingsFrame
from inprocess import StartEdge, edge_toml
from kit.http2 import FrameClient, Http2Client
from kit.http2_corpus import DATA, END, Lines, frame, literal
from kit.origin import OK, ScriptedOrigin, Step
from kit.waiting import WAIT_S, until

LISTEN = 'http = ["127.0.0.1:0"]\nh2c = true'
CONNECT: Lines = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":scheme", b"http"),
    (b":authority", b"a"),
    (b":path", b"/ws"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-protocol", b"chat"),
]
MASK = b"\1\2\3\4"


def text(data: bytes) -> bytes:
    """A masked text frame."""
    masked = bytes(byte ^ MASK[at % 4] for at, byte in enumerate(data))
    return b"\x81" + bytes((0x80 | len(data),)) + MASK + masked


@pytest_asyncio.fixture
async def echo_port() -> AsyncIterator[int]:
    """A real WebSocket server that says back what it hears."""

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("chat",))
        await socket.prepare(request)
        async for message in socket:
            assert message.type is aiohttp.WSMsgType.TEXT
            if message.data == "end":
                break
            await socket.send_str(message.data)
        return socket

    app = web.Application()
    app.router.add_get("/ws", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def test_a_websocket_echo(echo_port: int, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(echo_port, listen=LISTEN))
    client = await Http2Client.connect(gateway.port)
    await client.until(lambda: client.connection.remote_settings.enable_connect_protocol)
    stream = client.ask(CONNECT, ends=False)
    answer = client.answers[stream]
    await client.until(lambda: answer.status)
    assert (answer.status, answer.get(b"sec-websocket-protocol")) == (200, b"chat")
    assert answer.get(b"sec-websocket-accept") is None
    assert gateway.in_flight == 1
    for word in (b"one", b"two"):
        client.upload(stream, text(word))
        await client.until(lambda word=word: answer.body.endswith(b"\x81\x03" + word))
    assert (await client.get(b"/other")).status == 404  # other streams go on beside it
    client.upload(stream, text(b"end"))
    await client.until(lambda: answer.body == b"\x81\x03one\x81\x03two\x88\x02\x03\xe8")
    client.upload(stream, b"\x88\x80" + MASK)
    await client.until(lambda: answer.ended)
    await until(lambda: gateway.in_flight == 0)
    lines = {line["target"]: line for line in await gateway.log(2)}
    assert (lines["/ws"]["status"], lines["/ws"]["method"], lines["/ws"]["bytes_out"]) == (101, "GET", 14)
    await client.close()


@pytest.mark.parametrize("how", ["reset", "leave", "end"])
async def test_a_client_that_goes_frees_the_backend(how: str, echo_port: int, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(echo_port, listen=LISTEN))
    client = await Http2Client.connect(gateway.port)
    await client.until(lambda: client.connection.remote_settings.enable_connect_protocol)
    stream = client.ask(CONNECT, ends=False)
    await client.until(lambda: client.answers[stream].status)
    if how == "reset":
        client.connection.reset_stream(stream, 8)
        client.flush()
    elif how == "end":
        client.connection.end_stream(stream)
        client.flush()
        await client.until(lambda: client.answers[stream].over)
    else:
        await client.close()
    await until(lambda: gateway.in_flight == 0)
    await client.close()


async def test_a_tunnel_that_is_silent_ends(echo_port: int, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(echo_port, listen=LISTEN, route='cache = false\ntimeouts = { tunnel = "1s" }'))
    client = await FrameClient.connect(gateway.port)
    await client.send(frame(1, 4, 1, literal(CONNECT)))
    await client.until(lambda: client.resets(1))
    assert client.resets(1) == [2]
    await until(lambda: gateway.in_flight == 0)
    await client.close()


async def status_of(client: FrameClient, fields: Lines, ends: bool = False) -> int:
    await client.send(frame(1, 4 | (END if ends else 0), 1, literal(fields)))
    await client.until(lambda: client.of(HeadersFrame, 1))
    return int(dict(client.decoder.decode(client.of(HeadersFrame, 1)[0].data))[":status"])


async def test_bytes_that_come_before_the_backend_switched(origin: ScriptedOrigin, edge: StartEdge) -> None:
    """A client should wait; what comes early is kept, within the window, and not lost."""
    gateway = await edge(edge_toml(origin.port, listen=LISTEN))
    origin.default = (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",)
    client = await FrameClient.connect(gateway.port)
    await client.send(frame(1, 4, 1, literal(CONNECT)), frame(DATA, 0, 1, b"early"))
    await client.until(lambda: client.ended(1) and client.resets(1))
    assert client.resets(1) == [0]
    sent = origin.requests[0]
    names = {name.lower(): value for name, value in sent.fields}
    assert (names[b"upgrade"], names[b"sec-websocket-version"], len(names[b"sec-websocket-key"])) == (
        b"websocket",
        b"13",
        24,
    )
    assert sent.method == b"GET"
    await client.close()


ACCEPT = b64encode(sha1(b"x258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%b\r\n"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403),
        (OK, 502),
        (SWITCH % b"", 502),
        (SWITCH % b"Sec-WebSocket-Accept: %b\r\n" % ACCEPT, 502),
        (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n", 502),
    ],
    ids=["refused", "no switch", "no proof", "another key's proof", "another protocol"],
)
async def test_success_is_told_only_when_the_backend_switched(
    answer: bytes, status: int, origin: ScriptedOrigin, edge: StartEdge
) -> None:
    origin.default = (answer, Step.SILENCE) if b"101" in answer else (answer,)
    gateway = await edge(edge_toml(origin.port, listen=LISTEN))
    client = await FrameClient.connect(gateway.port)
    assert await status_of(client, CONNECT) == status
    await until(lambda: gateway.in_flight == 0)
    await client.close()


@pytest.mark.parametrize(
    ("route", "fields", "ends", "status"),
    [
        ("cache = false\nupgrade = false", CONNECT, False, 501),
        ("cache = {}\nupgrade = false", CONNECT, False, 501),
        ("cache = false", [(n, b"connect-udp" if n == b":protocol" else v) for n, v in CONNECT], False, 501),
        ("cache = false", CONNECT, True, 501),
        ("cache = false", [(n, b"https" if n == b":scheme" else v) for n, v in CONNECT], False, 421),
    ],
    ids=["not tunnelled", "not tunnelled, with a cache", "another protocol", "ended at once", "another scheme"],
)
async def test_what_is_not_tunnelled_never_succeeds(
    route: str, fields: Lines, ends: bool, status: int, origin: ScriptedOrigin, edge: StartEdge
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=LISTEN, route=route))
    client = await FrameClient.connect(gateway.port)
    assert await status_of(client, fields, ends) == status
    assert origin.requests == []
    await client.close()


async def test_the_setting_says_so(origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(origin.port, listen=LISTEN))
    client = await FrameClient.connect(gateway.port)
    await client.until(lambda: any(isinstance(f, SettingsFrame) and f.settings for f in client.frames))
    (settings,) = [f.settings for f in client.frames if isinstance(f, SettingsFrame) and f.settings]
    assert settings[8] == 1
    assert re.fullmatch(r"\d+", str(settings[3]))
    await client.close()


async def test_a_drain_closes_websockets(echo_port: int, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(echo_port, listen=LISTEN))
    client = await FrameClient.connect(gateway.port)
    await client.send(frame(1, 4, 1, literal(CONNECT)))
    await client.until(lambda: client.of(HeadersFrame, 1))
    await gateway.on_loop(lambda: gateway.worker.drain(WAIT_S))
    while await client.more():
        pass
    body = b"".join(f.data for f in client.frames if f.stream_id == 1 and f.type == DATA)
    assert body[:4] == b"\x88\x02\x03\xe9"  # a Close frame, 1001
    await client.close()

"""Clients that speak TLS badly: odd names and protocols, tiny and empty records, renegotiation, ends without a word.

One rule: whatever comes, the connection is served or ends, is counted by a word of ours, holds no memory meanwhile, and
leaves no line behind that a client can make as often as it likes.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme
from hyperframe.frame import SettingsFrame
from inprocess import Connect, Gateway, StartEdge, edge_toml
from kit.client import RawClient
from kit.http2 import PREFACE, FrameClient, request_head
from kit.origin import ScriptedOrigin
from kit.ports import LOOPBACK, free_port
from kit.processes import GatewayProcess, patient
from kit.tls import client_hello, issue, record
from kit.waiting import WAIT_S, until
from kit.wire import Wire

from edge.dataplane.client import http2_life
from edge.dataplane.client.http2_life import Http2Life

ALERT, HANDSHAKE = 21, 22
HELLO = client_hello(b"a.test")
SECURE = ssl.create_default_context()
SECURE.check_hostname, SECURE.verify_mode = False, ssl.CERT_NONE


def listener(folder: Path, port: int = 0) -> str:
    """A listener with a certificate."""
    files = issue(trustme.CA(), folder, "a.test")
    return f'https = [{{ address = "{LOOPBACK}:{port}", certificates = [{files.toml}] }}]'


@pytest.fixture
def https(tmp_path: Path) -> str:
    return listener(tmp_path)


def results(gateway: Gateway) -> dict[str, int]:
    return dict(gateway.worker.handshakes.results)


async def secured(port: int) -> RawClient:
    loop = asyncio.get_running_loop()
    return RawClient((await loop.create_connection(Wire, LOOPBACK, port, ssl=SECURE, server_hostname="a.test"))[1])


async def first_byte(client: RawClient) -> int | None:
    """The kind of the first record that comes; None when the connection ends without one."""
    while not client.wire.buffer and await client.wire.more():
        pass
    return client.wire.buffer[0] if client.wire.buffer else None


ODD_NAMES = [
    None,
    b"A.TEST",
    b"a.test.",
    b"unknown.test",
    b"127.0.0.1",
    b"*.test",
    b".",
    b"." * 200,
    b"a test",
    b"../../etc",
    b"\r\nX: y",
    b"%s%n{0}",
    b"a" * 255,
]


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_odd_names_get_a_certificate(
    name: bytes | None, https: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=https))
    client = await raw_client(gateway.port)
    await client.send(record(client_hello(name)))
    assert await first_byte(client) == HANDSHAKE


BROKEN = {  # what comes first, and the word that counts it
    "an empty record": (b"\x16\3\1\0\0", "not_tls"),
    "an empty record and a flood": (b"\x16\3\1\0\0" + bytes(100_000), "not_tls"),
    "many empty records": (b"\x16\3\1\0\0" * 100 + record(HELLO), "not_tls"),
    "a record that is too long": (b"\x16\3\1\x40\1" + bytes(100_000), "not_tls"),
    "an alert": (record(b"\1\0", ALERT), "not_tls"),
    "data": (record(b"x", 23), "not_tls"),
    "a change of ciphers": (record(b"\1", 20), "not_tls"),
    "empty records inside": (record(HELLO[:9]) + b"\x16\3\1\0\0" * 40 + record(HELLO[9:]), "failed"),
    "another message": (record(b"\xff\0\0\1\0"), "failed"),
    "a message of 16 MiB": (record(b"\1\xff\xff\xff" + bytes(16000)) * 3, "failed"),
    "a name with a NUL": (record(client_hello(b"a\0.test")), "failed"),
    "a name that is too long": (record(client_hello(b"a" * 256)), "failed"),
    "a protocol without a name": (record(client_hello(b"a.test", (b"",))), "failed"),
}


@pytest.mark.parametrize(("data", "word"), BROKEN.values(), ids=BROKEN)
async def test_what_is_broken_ends_at_once(
    data: bytes, word: str, https: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=https))
    client = await raw_client(gateway.port)
    await client.send(data)
    await client.wire.until_end()
    await until(lambda: not gateway.worker.downstreams)
    await gateway.turned()
    assert results(gateway) == {word: 1}
    good = await secured(gateway.port)
    assert (await good.get("/", "a.test")).status == 200
    await good.close()


async def test_a_hello_may_come_in_records_of_a_byte(
    https: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=https))
    client = await raw_client(gateway.port)
    await client.send(b"".join([record(HELLO[at : at + 1]) for at in range(len(HELLO))]))
    assert await first_byte(client) == HANDSHAKE


@pytest.mark.parametrize(
    "protocols", [(b"spdy/3", b"\xff\xfe"), (b"H2",), (b"p" * 255,) * 40], ids=["odd", "upper case", "many"]
)
async def test_protocols_that_nobody_knows_are_not_chosen(
    protocols: tuple[bytes, ...], https: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=https))
    client = await raw_client(gateway.port)
    await client.send(record(client_hello(b"a.test", protocols)))
    assert await first_byte(client) == HANDSHAKE
    assert b"\x00\x10\x00" not in bytes(client.wire.buffer[:120])  # no ALPN in the ServerHello


async def client_says(port: int, lines: bytes, *options: str) -> bytes:
    """What `openssl s_client` prints when it is told this, line by line."""
    shown = ["openssl", "s_client", "-connect", f"{LOOPBACK}:{port}", "-servername", "a.test", *options]
    pipe = asyncio.subprocess.PIPE
    client = await asyncio.create_subprocess_exec(*shown, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    assert client.stdin is not None and client.stdout is not None
    said = await client.stdout.readuntil(b"SSL handshake has read")
    client.stdin.write(lines)
    said += (await asyncio.wait_for(client.communicate(), WAIT_S))[0]
    return said


async def test_an_http2_connection_that_was_just_made_as_a_drain_begins_is_served(
    https: str, origin: ScriptedOrigin, edge: StartEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its preface and its first request are on their way: it is no idle connection yet."""
    drained: list[Http2Life] = []
    drain = Http2Life.drain

    def looked_at(self: Http2Life, now: float) -> None:
        drain(self, now)
        drained.append(self)

    monkeypatch.setattr(Http2Life, "drain", looked_at)
    monkeypatch.setattr(http2_life, "QUIET_S", WAIT_S)
    gateway = await edge(edge_toml(origin.port, listen=https))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    client = await FrameClient.connect(gateway.port, hello=False, tls=context)
    await until(lambda: any(isinstance(each, Http2Life) for each in gateway.worker.downstreams))
    ended = asyncio.ensure_future(gateway.on_loop(lambda: gateway.worker.drain(WAIT_S)))
    await until(lambda: drained)
    await client.send(PREFACE, SettingsFrame(0), client.head(1, request_head(scheme=b"https")))
    await client.until(lambda: client.ended(1))
    await client.until(lambda: client.goaway)
    await client.close()
    await ended


async def test_nobody_renegotiates(https: str, origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(origin.port, listen=https))
    said = await client_says(gateway.port, b"R\n", "-tls1_2")
    assert b"RENEGOTIATING" in said
    assert b"no renegotiation" in said
    await until(lambda: not gateway.worker.downstreams)


async def test_data_before_the_handshake_is_over_is_not_offered(
    https: str, origin: ScriptedOrigin, edge: StartEdge
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=https))
    said = await client_says(gateway.port, b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n", "-tls1_3")
    assert b"200 OK" in said
    assert said.count(b"Max Early Data: 0") == said.count(b"Max Early Data")


async def test_an_end_without_a_word_frees_the_backend(https: str, origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(origin.port, listen=https))
    client = await secured(gateway.port)
    await client.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000\r\n\r\nabc")
    await until(lambda: gateway.in_flight == 1)
    assert client.wire.transport is not None
    client.wire.transport.abort()  # no close_notify
    await until(lambda: gateway.in_flight == 0)
    await until(lambda: not gateway.worker.downstreams)


async def test_names_that_python_cannot_read_leave_no_traceback(tmp_path: Path, origin: ScriptedOrigin) -> None:
    port = free_port()
    (tmp_path / "gateway").mkdir()
    text = f"""
[listen]
http = ["{LOOPBACK}:@HTTP@"]
workers = 1
{listener(tmp_path, port)}
[admin]
listen = "{LOOPBACK}:@ADMIN@"
[state]
path = "@STATE@"
[pools.origin]
{patient("")}
backends = [{{ url = "http://{LOOPBACK}:{origin.port}" }}]
[[routes]]
path = "/"
pool = "origin"
"""
    gateway = GatewayProcess.start(text, tmp_path / "gateway")
    try:
        for _ in range(20):
            client = RawClient((await asyncio.get_running_loop().create_connection(Wire, LOOPBACK, port))[1])
            await client.send(record(client_hello(b"\xff\xfe")))
            await client.wire.until_end()
            await client.close()
        good = await secured(port)
        assert (await good.get("/", "a.test")).status == 200
        await good.close()
    finally:
        gateway.stop()
    assert "ignored" not in gateway.log()

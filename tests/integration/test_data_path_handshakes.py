"""TLS handshakes are connections like any other: counted from accept, in all and for each client, with a deadline."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme
from inprocess import Connect, Gateway, StartEdge, edge_toml, until
from kit.client import RawClient
from kit.origin import OK, ScriptedOrigin
from kit.ports import LOOPBACK
from kit.wire import Wire

SECURE = ssl.create_default_context()
SECURE.check_hostname, SECURE.verify_mode = False, ssl.CERT_NONE


@pytest.fixture
def https(tmp_path: Path) -> str:
    """The lines of a listener with a certificate."""
    found = trustme.CA().issue_cert("localhost")
    found.cert_chain_pems[0].write_to_path(tmp_path / "c.pem")
    found.private_key_pem.write_to_path(tmp_path / "k.pem")
    return (
        f'https = [{{ address = "{LOOPBACK}:0", '
        f'certificates = [{{ cert = "{tmp_path / "c.pem"}", key = "{tmp_path / "k.pem"}" }}] }}]'
    )


async def secured(gateway: Gateway) -> RawClient:
    loop = asyncio.get_running_loop()
    _, wire = await loop.create_connection(Wire, LOOPBACK, gateway.ports[-1], ssl=SECURE)
    return RawClient(wire)


@pytest.mark.parametrize("limit", ["connections = 3", "connections_per_client = 3"])
async def test_silent_handshakes_count_and_end(
    limit: str, https: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=https, limits=f'{limit}\nheader_timeout = "1s"'))
    silent = [await raw_client(gateway.port) for _ in range(3)]
    await until(lambda: len(gateway.worker.downstreams) == 3)
    refused = await raw_client(gateway.port)
    assert await refused.ended()
    assert gateway.worker.refused_connections == 1
    for each in silent:
        assert await each.ended()
    await until(lambda: not gateway.worker.downstreams)
    assert (await (await secured(gateway)).get("/")).status == 200


async def test_what_is_no_handshake_ends_its_connection(
    https: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=https))
    for data in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\x00\x02\x01\x00", b"\x00" * 100):
        client = await raw_client(gateway.port)
        await client.send(data)
        if data[:1] == b"\x16":
            client.half_close()
        await client.wire.until_end()
        await until(lambda: not gateway.worker.downstreams)
    assert (await (await secured(gateway)).get("/")).status == 200


async def test_a_drain_waits_for_no_handshake(
    https: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=https))
    client = await raw_client(gateway.port)
    await until(lambda: len(gateway.worker.downstreams) == 1)
    ended = asyncio.create_task(gateway.on_loop(lambda: gateway.worker.drain(30.0)))
    assert await client.ended()
    await asyncio.wait_for(ended, 5)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    "framing", [b"Content-Length: 8000000", b"Transfer-Encoding: chunked"], ids=["sized", "chunked"]
)
async def test_an_early_refusal_reaches_a_client_that_uploads_on(
    tls: bool, framing: bytes, https: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    """It reads the answer only when it has sent everything, as many clients do."""
    listen = https if tls else f'http = ["{LOOPBACK}:0"]'
    gateway = await edge(edge_toml(origin.port, listen=listen, limits='max_body = "1MiB"'))
    client = await secured(gateway) if tls else await raw_client(gateway.port)
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % framing)
    piece = b"x" * 100_000
    for _ in range(80):
        assert await client.send(b"%x\r\n%b\r\n" % (len(piece), piece) if b"chunked" in framing else piece)
    response = await client.read_response()
    assert response is not None
    assert (response.status, response.get(b"connection"), response.complete) == (413, b"close", True)
    await client.close()
    await until(lambda: not gateway.worker.downstreams)


async def test_an_answer_under_tls_that_a_slow_client_takes_late_is_whole(
    https: str, origin: ScriptedOrigin, edge: StartEdge
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=https))
    size = 24_000_000
    origin.default = (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, b"x" * size)
    client = await secured(gateway)
    client.wire.pause_reading()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    await until(lambda: any(downstream.paused for downstream in list(gateway.worker.downstreams)))
    client.wire.resume_reading()
    response = await client.read_response()
    assert response is not None and response.complete
    assert len(response.body.content) == size
    origin.default = (OK,)
    assert await client.ended()

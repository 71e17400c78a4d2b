"""TLS handshakes are connections like any other: counted from accept, in all and for each client, with a deadline."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from inprocess import Connect, Gateway, StartEdge, edge_toml
from kit.client import RawClient
from kit.origin import OK, ScriptedOrigin
from kit.ports import LOOPBACK
from kit.waiting import WAIT_S, until
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
    gateway = await edge(edge_toml(origin.port, listen=https, limits=f'{limit}\nheader_timeout = "3s"'))
    silent = [await raw_client(gateway.port) for _ in range(3)]
    await until(lambda: len(gateway.worker.downstreams) == 3)
    refused = await raw_client(gateway.port)
    assert await refused.ended()
    assert gateway.worker.refused_connections == 1
    for each in silent:
        assert await each.ended()
    await until(lambda: not gateway.worker.downstreams)
    assert (await (await secured(gateway)).get("/")).status == 200


def results(gateway: Gateway) -> dict[str, int]:
    """How handshakes ended, by word."""
    return dict(gateway.worker.handshakes.results)


async def test_what_is_no_handshake_ends_its_connection(
    https: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=https))
    for data in (b"\x16\x03\x01\x00\x02\x01\x00", b"\x00" * 100, b"\x80\x2e\x01\x03\x01", b""):
        client = await raw_client(gateway.port)
        if data:
            await client.send(data)
        if data[:1] in (b"", b"\x16"):
            client.half_close()
        await client.wire.until_end()
        await until(lambda: not gateway.worker.downstreams)
    assert results(gateway) == {"client_left": 2, "not_tls": 2}
    assert (await (await secured(gateway)).get("/")).status == 200
    assert not origin.problems


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"get", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"P"],
    ids=["request", "lower", "http2", "letter"],
)
async def test_plain_http_is_told_what_is_spoken_here(
    data: bytes, https: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=https))
    client = await raw_client(gateway.port)
    await client.send(data)
    response = await client.read_response()
    assert response is not None
    assert (response.status, response.get(b"connection")) == (400, b"close")
    assert b"speaks HTTPS" in response.body.content
    await client.close()
    await until(lambda: not gateway.worker.downstreams)
    assert (results(gateway), origin.requests) == ({"plain_http": 1}, [])
    (line,) = await gateway.log(1)
    assert line["status"] == 400


def begun() -> bytes:
    """A ClientHello, after which nothing comes."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        SECURE.wrap_bio(incoming, outgoing).do_handshake()
    return outgoing.read()


async def test_a_silent_connection_is_no_handshake_yet(
    https: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    """Nor is one whose first record is not whole: no task, none of OpenSSL's memory, no place among the handshakes."""
    gateway = await edge(edge_toml(origin.port, listen=https, limits="handshakes_per_client = 1"))
    silent = [await raw_client(gateway.port) for _ in range(5)]
    for count, each in zip((1, 2, 5, 100), silent, strict=False):
        await each.send(begun()[:count])
    await until(lambda: sum(bool(each._buffer) for each in list(gateway.worker.downstreams)) == 4)
    assert len(gateway.worker.downstreams) == 5
    assert len(gateway.worker.handshakes) == 0
    assert (await (await secured(gateway)).get("/")).status == 200
    for each in silent:
        await each.close()


async def test_one_client_has_a_share_of_the_handshakes(
    https: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=https, limits="handshakes_per_client = 2"))
    held = [await raw_client(gateway.port) for _ in range(2)]
    for each in held:
        await each.send(begun())
    await until(lambda: len(gateway.worker.handshakes) == 2)
    with pytest.raises((OSError, EOFError)):
        await secured(gateway)
    assert results(gateway) == {"too_many": 1}
    held[0].reset()
    await until(lambda: len(gateway.worker.handshakes) == 1)
    assert (await (await secured(gateway)).get("/")).status == 200
    await held[1].close()
    await until(lambda: results(gateway) == {"too_many": 1, "client_left": 2, "full": 1})
    assert len(gateway.worker.handshakes) == 0


async def test_when_all_places_are_taken_the_oldest_makes_room(
    https: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=https, limits="handshakes = 2"))
    held = []
    for number in (1, 2):
        held.append(await raw_client(gateway.port))
        await held[-1].send(begun())
        await until(lambda number=number: len(gateway.worker.handshakes) == number)  # type: ignore[misc]
    assert (await (await secured(gateway)).get("/")).status == 200
    await held[0].wire.until_end()
    assert (results(gateway), len(gateway.worker.handshakes)) == ({"displaced": 1, "full": 1}, 1)
    await held[1].close()


async def test_a_handshake_that_stops_half_way_ends_in_time(
    https: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=https, limits='header_timeout = "2s"'))
    half, silent = await raw_client(gateway.port), await raw_client(gateway.port)
    await half.send(begun())
    await half.wire.until_end()
    await silent.wire.until_end()
    await until(lambda: results(gateway) == {"timeout": 1, "silent": 1})
    assert len(gateway.worker.handshakes) == 0


async def test_a_handshake_may_come_byte_by_byte(
    https: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=https))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    inside = SECURE.wrap_bio(incoming, outgoing, server_hostname="localhost")
    client = await raw_client(gateway.port)
    while True:
        try:
            inside.do_handshake()
            break
        except ssl.SSLWantReadError:
            for byte in outgoing.read():
                await client.send(bytes((byte,)))
                await asyncio.sleep(0)
            if not client.wire.buffer:
                await client.wire.more()
            incoming.write(client.wire.take(len(client.wire.buffer)))
    inside.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    await client.send(outgoing.read())
    said = b""
    while not said:
        assert await client.wire.more()
        incoming.write(client.wire.take(len(client.wire.buffer)))
        with suppress(ssl.SSLWantReadError):
            said = inside.read(100)
    assert said.startswith(b"HTTP/1.1 200 OK")


async def test_many_at_once_all_succeed(https: str, origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(origin.port, listen=https))
    clients = await asyncio.gather(*(secured(gateway) for _ in range(60)))
    answers = await asyncio.gather(*(client.get("/") for client in clients))
    assert {answer.status for answer in answers} == {200}
    assert (results(gateway), dict(gateway.worker.handshakes.versions)) == ({"full": 60}, {"TLSv1.3": 60})
    for client in clients:
        await client.close()


async def test_a_drain_waits_for_no_handshake(
    https: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=https))
    client = await raw_client(gateway.port)
    await until(lambda: len(gateway.worker.downstreams) == 1)
    ended = asyncio.create_task(gateway.on_loop(lambda: gateway.worker.drain(60.0)))
    assert await client.ended()
    await asyncio.wait_for(ended, WAIT_S)


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

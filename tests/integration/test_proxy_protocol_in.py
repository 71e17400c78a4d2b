"""PROXY headers from listed senders: what they tell is the client's address everywhere, and nobody else is believed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
import trustme
from inprocess import StartEdge, edge_toml
from kit.client import RawClient
from kit.http2 import Http2Client, request_head
from kit.origin import ScriptedOrigin
from kit.ports import LOOPBACK
from kit.waiting import WAIT_S, until
from kit.wire import Wire

from edge.dataplane.worker.report import connections
from edge.http.proxy_protocol import SIGNATURE, Addresses, Version, header_of

FRONT, STRANGER = "127.0.0.1", "127.0.0.2"
LISTEN = f'http = ["{LOOPBACK}:0"]\nh2c = true\nproxy_protocol = ["{FRONT}"]'
CLIENT = "203.0.113.9"
SECURE = ssl.create_default_context()
SECURE.check_hostname, SECURE.verify_mode = False, ssl.CERT_NONE
SECURE.set_alpn_protocols(["h2", "http/1.1"])

UNIX = SIGNATURE + bytes((0x21, 0x31)) + (216).to_bytes(2) + bytes(216)
Dial = Callable[..., Awaitable[RawClient]]


def header(client: str = CLIENT, version: Version = "v2", port: int = 4711) -> bytes:
    return header_of(version, Addresses(client, port, "2001:db8::1" if ":" in client else "198.51.100.1", 443))


@pytest_asyncio.fixture
async def dial() -> AsyncIterator[Dial]:
    """`await dial(port, first, source)`: a client from an address of loopback, its first bytes sent."""
    opened: list[RawClient] = []

    async def connect(port: int, first: bytes = b"", source: str = FRONT) -> RawClient:
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(Wire, LOOPBACK, port, local_addr=(source, 0))
        opened.append(RawClient(wire))
        if first:
            await opened[-1].send(first)
        return opened[-1]

    yield connect
    for client in opened:
        await client.close()


@pytest.fixture
def https(tmp_path: Path) -> str:
    """The lines of a TLS listener whose clients are behind the sender."""
    found = trustme.CA().issue_cert("localhost")
    found.cert_chain_pems[0].write_to_path(tmp_path / "c.pem")
    found.private_key_pem.write_to_path(tmp_path / "k.pem")
    pair = f'[{{ cert = "{tmp_path / "c.pem"}", key = "{tmp_path / "k.pem"}" }}]'
    return f'proxy_protocol = ["{FRONT}"]\nhttps = [{{ address = "{LOOPBACK}:0", certificates = {pair} }}]'


async def secured(client: RawClient) -> Wire:
    """TLS on a connection whose header was sent."""
    loop = asyncio.get_running_loop()
    transport = client.wire.transport
    assert isinstance(transport, asyncio.Transport)
    made = await loop.start_tls(transport, client.wire, SECURE, server_hostname="a")
    assert made is not None
    client.wire.transport = made
    return client.wire


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("client", [CLIENT, "2001:db8::7"])
async def test_the_address_counts_in_the_log_and_for_the_origin(
    version: Version, client: str, origin: ScriptedOrigin, edge: StartEdge, dial: Dial
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=LISTEN))
    response = await (await dial(gateway.port, header(client, version))).get("/")
    assert response.status == 200
    seen = origin.requests[0]
    node = f'"[{client}]"' if ":" in client else client
    assert seen.get(b"x-forwarded-for") == seen.get(b"x-real-ip") == client.encode()
    assert (seen.get(b"forwarded") or b"").startswith(f"for={node};".encode())
    assert [line["client"] for line in await gateway.log(1)] == [client]


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_every_split_of_the_bytes(version: Version, origin: ScriptedOrigin, edge: StartEdge, dial: Dial) -> None:
    gateway = await edge(edge_toml(origin.port, listen=LISTEN))
    data = header(version=version) + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    clients = [await dial(gateway.port) for _ in data]
    for at, client in enumerate(clients):
        await client.send(data[:at])
    await until(lambda: len(gateway.worker.downstreams) == len(data))
    for at, client in enumerate(clients):
        await client.send(data[at:])
        response = await client.read_response()
        assert response is not None and response.status == 200, f"split at {at}"
    one_by_one = await dial(gateway.port)
    for at in range(len(data)):
        await one_by_one.send(data[at : at + 1])
        await asyncio.sleep(0)
    response = await one_by_one.read_response()
    assert response is not None and response.status == 200
    assert {line["client"] for line in await gateway.log(len(data) + 1)} == {CLIENT}


@pytest.mark.parametrize(
    "first",
    [header_of("v1", None), header_of("v2", None), b"PROXY UNKNOWN any thing\r\n", UNIX],
    ids=["UNKNOWN", "LOCAL", "UNKNOWN and more", "UNIX"],
)
async def test_a_sender_that_speaks_for_itself(
    first: bytes, origin: ScriptedOrigin, edge: StartEdge, dial: Dial
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=LISTEN))
    assert (await (await dial(gateway.port, first)).get("/")).status == 200
    assert origin.requests[0].get(b"x-forwarded-for") == FRONT.encode()


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_others_must_not_send_one(version: Version, origin: ScriptedOrigin, edge: StartEdge, dial: Dial) -> None:
    gateway = await edge(edge_toml(origin.port, listen=LISTEN))
    data = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    liar = await dial(gateway.port, header(version=version) + data, STRANGER)
    response = await liar.read_response()
    assert response is not None and (response.status, response.get(b"connection")) == (400, b"close")
    honest = await dial(gateway.port, data, STRANGER)
    response = await honest.read_response()
    assert response is not None and response.status == 200
    assert [each.get(b"x-forwarded-for") for each in origin.requests] == [STRANGER.encode()]


async def test_where_it_is_left_out_nobody_may(origin: ScriptedOrigin, edge: StartEdge, dial: Dial) -> None:
    gateway = await edge(edge_toml(origin.port))
    response = await (await dial(gateway.port, header() + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")).read_response()
    assert response is not None and response.status == 400
    assert origin.requests == []


@pytest.mark.parametrize(
    ("first", "word"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "no_header"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "no_header"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n", "malformed"),
        (b"PROXY " + b"x" * 200, "too_long"),
        (header()[:12] + b"\x31", "version"),
        (header()[:12] + b"\x22", "command"),
        (header()[:13] + b"\x99", "family"),
        (header()[:14] + b"\xff\xff", "too_long"),
    ],
)
async def test_what_is_no_header_ends_the_connection(
    first: bytes, word: str, origin: ScriptedOrigin, edge: StartEdge, dial: Dial
) -> None:
    """Without a word to the sender, whose protocol is not known; good connections go on."""
    gateway = await edge(edge_toml(origin.port, listen=LISTEN))
    good = await dial(gateway.port, header())
    assert (await good.get("/")).status == 200
    bad = await dial(gateway.port, first)
    assert await bad.wire.until_end() == b""
    await gateway.turned()
    assert gateway.worker.header_errors == {word: 1}
    await until(lambda: len(gateway.worker.downstreams) == 1)
    assert (await good.get("/")).status == 200
    assert len(origin.requests) == 2


async def test_a_header_has_to_be_in_time(origin: ScriptedOrigin, edge: StartEdge, dial: Dial) -> None:
    gateway = await edge(edge_toml(origin.port, listen=LISTEN, limits='header_timeout = "500ms"'))
    for first in (b"", header()[:20]):
        late = await dial(gateway.port, first)
        assert await late.wire.until_end() == b""
    await gateway.turned()
    assert gateway.worker.header_errors == {"late": 2}


async def test_who_leaves_in_a_header_is_forgotten(origin: ScriptedOrigin, edge: StartEdge, dial: Dial) -> None:
    gateway = await edge(edge_toml(origin.port, listen=LISTEN))
    left = await dial(gateway.port, header()[:20])
    await until(lambda: len(gateway.worker.downstreams) == 1)
    left.reset()
    await until(lambda: not gateway.worker.downstreams)


async def test_the_head_has_the_time_that_is_left_since_accept(
    origin: ScriptedOrigin, edge: StartEdge, dial: Dial
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=LISTEN))
    client = await dial(gateway.port)
    await until(lambda: gateway.worker.downstreams)
    deadline = next(iter(gateway.worker.downstreams)).deadline
    await client.send(header())
    await until(lambda: next(iter(gateway.worker.downstreams)).peer == CLIENT)
    assert next(iter(gateway.worker.downstreams)).deadline == deadline


async def test_limits_are_the_client_s_not_the_sender_s(origin: ScriptedOrigin, edge: StartEdge, dial: Dial) -> None:
    gateway = await edge(edge_toml(origin.port, listen=LISTEN, limits="connections = 4\nconnections_per_client = 1"))
    silent = [await dial(gateway.port) for _ in range(4)]
    await until(lambda: len(gateway.worker.downstreams) == 4)  # of one sender, and of nobody yet
    assert await (await dial(gateway.port)).ended(), "silent ones count towards the limit in all"
    await gateway.turned()
    assert gateway.worker.refused_connections == 1
    for at, client in enumerate(silent):  # at the very limit, each becomes a client's
        await client.send(header(f"203.0.113.{at}"))
        assert (await client.get("/")).status == 200
    await silent.pop().close()
    await until(lambda: len(gateway.worker.downstreams) == 3)
    second = await dial(gateway.port, header("203.0.113.1", port=4712))
    assert await second.ended()
    await gateway.turned()
    assert gateway.worker.refused_connections == 2
    await silent.pop(1).close()
    await until(lambda: len(gateway.worker.downstreams) == 2)
    assert (await (await dial(gateway.port, header("203.0.113.1"))).get("/")).status == 200


async def test_rules_look_at_the_client(origin: ScriptedOrigin, edge: StartEdge, dial: Dial) -> None:
    rules = 'cache = false\ndeny = ["203.0.113.66"]\nrate_limit = { rate = "2/h" }'
    gateway = await edge(edge_toml(origin.port, listen=LISTEN, route=rules))
    assert (await (await dial(gateway.port, header("203.0.113.66"))).get("/")).status == 403
    for client in ("203.0.113.1", "203.0.113.2"):
        statuses = [(await (await dial(gateway.port, header(client))).get("/")).status for _ in range(3)]
        assert statuses == [200, 200, 429]


async def test_who_is_trusted_is_looked_up_for_the_told_address(
    origin: ScriptedOrigin, edge: StartEdge, dial: Dial
) -> None:
    """A balancer that passes connections on is no proxy that may tell of requests; who is behind it may be one."""
    listen = f'{LISTEN}\ntrusted_proxies = ["10.0.0.0/8"]'
    gateway = await edge(edge_toml(origin.port, listen=listen))
    for first, told in ((header(CLIENT), CLIENT), (header("10.1.1.1"), "192.0.2.55")):
        client = await dial(gateway.port, first)
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.55\r\n\r\n")
        assert await client.read_response() is not None
        assert origin.requests[-1].get(b"x-real-ip") == told.encode()


async def test_http2_and_h2c_behind_it(origin: ScriptedOrigin, edge: StartEdge, dial: Dial) -> None:
    gateway = await edge(edge_toml(origin.port, listen=LISTEN))
    client = Http2Client.over((await dial(gateway.port, header())).wire)
    answers = [await client.answer(client.ask(request_head())) for _ in range(2)]
    assert [each.status for each in answers] == [200, 200]
    assert {each.get(b"x-real-ip") for each in origin.requests} == {CLIENT.encode()}


@pytest.mark.parametrize("together", [False, True], ids=["apart", "with the handshake's first bytes"])
async def test_tls_and_http2_behind_it(
    together: bool, https: str, origin: ScriptedOrigin, edge: StartEdge, dial: Dial
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=https))
    client = await dial(gateway.port, b"" if together else header())
    if together:
        assert isinstance(client.wire.transport, asyncio.Transport)
        client.wire.transport.write(header())  # leaves with what the handshake writes next
    else:
        await until(lambda: [each.peer for each in gateway.worker.downstreams] == [CLIENT])
    http2 = Http2Client.over(await secured(client))
    assert (await http2.answer(http2.ask(request_head(scheme=b"https")))).status == 200
    assert origin.requests[0].get(b"x-real-ip") == CLIENT.encode()
    assert origin.requests[0].get(b"x-forwarded-proto") == b"https"
    stranger = Http2Client.over(await secured(await dial(gateway.port, source=STRANGER)))
    assert (await stranger.answer(stranger.ask(request_head(scheme=b"https")))).status == 200
    assert origin.requests[1].get(b"x-real-ip") == STRANGER.encode()


async def test_a_drain_waits_for_no_header(origin: ScriptedOrigin, edge: StartEdge, dial: Dial) -> None:
    gateway = await edge(edge_toml(origin.port, listen=LISTEN))
    silent = await dial(gateway.port)
    await until(lambda: len(gateway.worker.downstreams) == 1)
    before = set(gateway.worker.downstreams)
    served = await dial(gateway.port)
    await until(lambda: len(gateway.worker.downstreams) == 2)
    (newest,) = gateway.worker.downstreams - before
    newest.deadline += WAIT_S  # as if it had come just now, however long this test stands still
    ended = asyncio.create_task(gateway.on_loop(lambda: gateway.worker.drain(60.0)))
    await until(lambda: gateway.worker.draining)
    response = None
    if await served.send(header() + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"):
        response = await served.read_response()
    assert response is not None and response.status == 200, "what was accepted is served"
    assert await silent.ended()
    await asyncio.wait_for(ended, WAIT_S)


async def test_connections_of_a_sender_are_shown(origin: ScriptedOrigin, edge: StartEdge, dial: Dial) -> None:
    gateway = await edge(edge_toml(origin.port, listen=LISTEN))
    await dial(gateway.port)
    await until(lambda: gateway.worker.downstreams)
    rows = await gateway.on_loop(lambda: connections(gateway.worker)["clients"])
    assert rows == [{"client": FRONT, "state": "proxy header"}]

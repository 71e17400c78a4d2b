"""PROXY headers to backends: each client's connections are its own, and say whose they are before anything else."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from inprocess import Connect, StartEdge, edge_toml
from kit.client import RawClient
from kit.http2 import Http2Client, request_head
from kit.origin import OK, Pause, ScriptedOrigin
from kit.ports import LOOPBACK
from kit.waiting import WAIT_S, until

from edge.config.loader import load_text
from edge.control.probes import ProbeKind, ProbeTarget, probe
from edge.errors import ConfigError
from edge.http.proxy_protocol import Addresses, Version, header_of, read_header

VERSIONS = pytest.mark.parametrize("version", ["v1", "v2"])
TRUSTING = f'http = ["{LOOPBACK}:0"]\ntrusted_proxies = ["127.0.0.0/8"]'
PAGE = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(autouse=True)
def announced(origin: ScriptedOrigin) -> None:
    origin.announced = True


def out(version: Version = "v2") -> str:
    return f'proxy_protocol = "{version}"'


def ends_of(client: RawClient) -> Addresses:
    """What a header says of a client that is connected here."""
    assert client.wire.transport is not None
    here, there = (client.wire.transport.get_extra_info(name) for name in ("sockname", "peername"))
    return Addresses(here[0], here[1], there[0], there[1])


def told(origin: ScriptedOrigin) -> list[Addresses | None]:
    """What each connection said, in order of arrival."""
    found = []
    for data in origin.announcements.values():
        header = read_header(data)
        assert header is not None and header.size == len(data)
        found.append(header.addresses)
    return found


def numbers(origin: ScriptedOrigin) -> list[int]:
    """On which connection each request came."""
    return [request.connection for request in origin.requests]


async def get(client: RawClient, *lines: str) -> int:
    return (await client.ask("/", *lines, host="a")).status


@VERSIONS
async def test_each_client_has_connections_of_its_own(
    version: Version, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, pool=out(version)))
    first, second = await raw_client(gateway.port), await raw_client(gateway.port)
    for client in (first, second, first, second, second):
        assert await get(client) == 200
    assert numbers(origin) == [1, 2, 1, 2, 2]
    assert told(origin) == [ends_of(first), ends_of(second)]
    assert origin.announcements[1] == header_of(version, ends_of(first))


async def test_they_end_with_their_client(origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect) -> None:
    gateway = await edge(edge_toml(origin.port, pool=out()))
    first, second = await raw_client(gateway.port), await raw_client(gateway.port)
    assert [await get(first), await get(second)] == [200, 200]
    await first.close()
    await until(lambda: gateway.upstream_connections == 1)
    assert await get(second) == 200
    assert await get(await raw_client(gateway.port)) == 200
    assert numbers(origin) == [1, 2, 2, 3]


async def test_who_leaves_while_the_answer_is_on_its_way_leaves_no_connection(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    origin.default = (Pause("go"), PAGE)
    gateway = await edge(edge_toml(origin.port, pool=out(), route="cache = true"))
    leader, follower = await raw_client(gateway.port), await raw_client(gateway.port)
    await leader.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await origin.wait_for("heads", 1)
    await follower.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    store = gateway.worker.store
    assert store is not None
    await until(lambda: any(flight.waiting for flight in list(store.flights._flights.values())))
    ends = ends_of(leader)
    await leader.close()
    origin.release("go")
    assert (await follower.read_response()) is not None
    await until(lambda: gateway.upstream_connections == 0)
    assert told(origin)[0] == ends


async def test_clients_that_a_trusted_proxy_tells_of(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    """Several on one connection: none of them gets another one's."""
    gateway = await edge(edge_toml(origin.port, listen=TRUSTING, pool=out()))
    client = await raw_client(gateway.port)
    for address in ("203.0.113.1", "203.0.113.2", "203.0.113.1", "2001:db8::5"):
        assert await get(client, f"X-Forwarded-For: {address}") == 200
    assert numbers(origin) == [1, 2, 1, 3]
    assert [each and (each.client, each.client_port) for each in told(origin)] == [
        ("203.0.113.1", 0),
        ("203.0.113.2", 0),
        ("2001:db8::5", 0),
    ]
    assert {each and each.server for each in told(origin)} == {LOOPBACK}


@VERSIONS
async def test_what_a_header_told_is_told_on(
    version: Version, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    listen = f'http = ["{LOOPBACK}:0"]\nproxy_protocol = ["{LOOPBACK}"]'
    gateway = await edge(edge_toml(origin.port, listen=listen, pool=out(version)))
    known = Addresses("203.0.113.9", 4711, "198.51.100.1", 443)
    client = await raw_client(gateway.port)
    await client.send(header_of("v1", known))
    assert await get(client) == 200
    assert told(origin) == [known]


@VERSIONS
async def test_what_the_gateway_asks_for_itself(
    version: Version, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port, pool=out(version), route="cache = true"))
    origin.default = (PAGE,)
    store = gateway.worker.store
    assert store is not None
    await gateway.on_loop(lambda: store.warm(["http://a/1", "http://a/2"], lambda step: None))
    client = await raw_client(gateway.port)
    assert await get(client) == 200
    assert set(told(origin)) == {None, ends_of(client)}
    own = {number for number, data in origin.announcements.items() if data == header_of(version, None)}
    assert {request.connection for request in origin.requests if request.target != b"/"} == own


async def test_streams_of_one_client_share_its_connections(origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(origin.port, listen=f'http = ["{LOOPBACK}:0"]\nh2c = true', pool=out()))
    origin.default = (Pause("go"), OK)
    clients = [await Http2Client.connect(gateway.port) for _ in range(2)]
    streams = [(client, client.ask(request_head())) for client in clients for _ in range(3)]
    await origin.wait_for("heads", 6)
    origin.release("go")
    assert [(await client.answer(stream)).status for client, stream in streams] == [200] * 6
    assert origin.counters["connections"] == 6
    assert len(set(told(origin))) == 2
    for client in clients:
        assert (await client.get(b"/again")).status == 200
    assert origin.counters["connections"] == 6
    by = [origin.announcements[number] for number in numbers(origin)[-2:]]
    assert by[0] != by[1]
    for client in clients:
        await client.close()
    await until(lambda: gateway.upstream_connections == 0)


async def test_before_tls_and_through_two_gateways(
    tmp_path: Path, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    origin.announced = False
    made = trustme.CA().issue_cert("localhost")
    made.cert_chain_pems[0].write_to_path(tmp_path / "c.pem")
    made.private_key_pem.write_to_path(tmp_path / "k.pem")
    pair = f'[{{ cert = "{tmp_path / "c.pem"}", key = "{tmp_path / "k.pem"}" }}]'
    listen = f'proxy_protocol = ["{LOOPBACK}"]\nhttps = [{{ address = "{LOOPBACK}:0", certificates = {pair} }}]'
    inner = await edge(edge_toml(origin.port, listen=listen))
    pool = f"{out()}\ntls = {{ verify = false }}"
    outer = await edge(edge_toml(f"https://{LOOPBACK}:{inner.port}", listen=TRUSTING, pool=pool))
    client = await raw_client(outer.port)
    assert await get(client, "X-Forwarded-For: 203.0.113.1") == 200
    assert await get(client, "X-Forwarded-For: 203.0.113.2") == 200
    assert [line["client"] for line in await inner.log(2)] == ["203.0.113.1", "203.0.113.2"]


@VERSIONS
@pytest.mark.parametrize("kind", ["http", "tcp"])
async def test_probes_speak_for_themselves(version: Version, kind: str, origin: ScriptedOrigin) -> None:
    target = ProbeTarget("b", LOOPBACK, origin.port, WAIT_S, kind=ProbeKind(kind), proxy_protocol=version)
    assert (await probe(target)).ok
    await origin.wait_for("closed", 1)
    if kind == "http":
        assert origin.announcements == {1: header_of(version, None)}


def test_an_application_needs_no_header() -> None:
    text = edge_toml(1, pool=out()).replace('url = "http://127.0.0.1:1"', 'app = "site:app"')
    with pytest.raises(ConfigError) as refused:
        load_text(text, "t.toml")
    assert "proxy_protocol is for backends by url" in refused.value.problems[0]


async def test_a_backend_that_refuses_is_a_failure_as_any(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    await origin.stop()
    gateway = await edge(edge_toml(origin.port, pool=f'{out()}\nretry = {{ same_backend = "0s" }}'))
    assert await get(await raw_client(gateway.port)) == 502
    await origin.start()
    assert await get(await raw_client(gateway.port)) == 200

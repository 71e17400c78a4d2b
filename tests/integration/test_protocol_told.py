"""Which HTTP and which TLS a request came by: in the log, whatever way it went, and in Via towards the backend."""

from __future__ import annotations

import asyncio
import ssl
from itertools import product
from pathlib import Path

import pytest
import trustme
from inprocess import Connect, Gateway, StartEdge, edge_toml
from kit.client import RawClient
from kit.http2 import Http2Client, request_head
from kit.origin import ScriptedOrigin
from kit.ports import LOOPBACK
from kit.wire import Wire

from edge.control.admin.exposition import exposition
from edge.control.totals import Totals
from edge.dataplane.worker.report import Counting, connections

PAGE = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 2\r\n\r\nok"
TLS_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


@pytest.fixture
def listen(tmp_path: Path) -> str:
    """A plain listener and one with TLS; a proxy that may be before both."""
    found = trustme.CA().issue_cert("localhost")
    found.cert_chain_pems[0].write_to_path(tmp_path / "c.pem")
    found.private_key_pem.write_to_path(tmp_path / "k.pem")
    pair = f'[{{ cert = "{tmp_path / "c.pem"}", key = "{tmp_path / "k.pem"}" }}]'
    https = f'https = [{{ address = "{LOOPBACK}:0", certificates = {pair} }}]'
    return f'http = ["{LOOPBACK}:0"]\nh2c = true\ntrusted_proxies = ["{LOOPBACK}"]\n{https}'


async def connected(gateway: Gateway, tls: str, protocol: str) -> Wire:
    loop = asyncio.get_running_loop()
    if not tls:
        return (await loop.create_connection(Wire, LOOPBACK, gateway.ports[0]))[1]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = TLS_VERSIONS[tls]
    context.set_alpn_protocols(["h2" if protocol == "HTTP/2.0" else "http/1.1"])
    return (await loop.create_connection(Wire, LOOPBACK, gateway.ports[1], ssl=context, server_hostname="a"))[1]


async def asked(wire: Wire, protocol: str, tls: str, *extra: tuple[bytes, bytes]) -> int:
    """One GET; the response's status."""
    if protocol == "HTTP/2.0":
        client = Http2Client.over(wire)
        head = request_head(scheme=b"https" if tls else b"http", extra=extra)
        return min([(await client.answer(client.ask(head))).status for _ in range(2)])
    plain = RawClient(wire)
    lines = b"".join(b"%b: %b\r\n" % line for line in extra)
    for _ in range(2):
        await plain.send(b"GET / %b\r\nHost: a\r\nConnection: keep-alive\r\n%b\r\n" % (protocol.encode(), lines))
        response = await plain.read_response()
        assert response is not None
    return response.status


WAYS = list(product(("HTTP/1.0", "HTTP/1.1", "HTTP/2.0"), ("", "TLSv1.2", "TLSv1.3"), (True, False)))


@pytest.mark.parametrize(("protocol", "tls", "quick"), WAYS)
async def test_the_log_says_it(
    protocol: str, tls: str, quick: bool, listen: str, origin: ScriptedOrigin, edge: StartEdge
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=listen, route="cache = true"))
    gateway.worker.quick = quick
    origin.default = (PAGE,)
    for extra in ((), ((b"x-forwarded-for", b"192.0.2.7"),)):
        wire = await connected(gateway, tls, protocol)
        assert await asked(wire, protocol, tls, *extra) == 200
        await wire.close()
    lines = await gateway.log(4)
    assert [line["verdict"] for line in lines] == ["miss", "hit", "hit", "hit"]
    assert [line["client"] for line in lines] == [LOOPBACK, LOOPBACK, "192.0.2.7", "192.0.2.7"]
    assert {(line["protocol"], line["tls"]) for line in lines} == {(protocol, tls)}
    assert len({tuple(line) for line in lines}) == 1, "the same keys in the same order"


@pytest.mark.parametrize(("protocol", "tls", "quick"), WAYS)
async def test_requests_are_counted_by_it(
    protocol: str, tls: str, quick: bool, listen: str, origin: ScriptedOrigin, edge: StartEdge
) -> None:
    gateway = await edge(edge_toml(origin.port, listen=listen, route="cache = true"))
    gateway.worker.quick = quick
    origin.default = (PAGE,)
    wire = await connected(gateway, tls, protocol)
    assert await asked(wire, protocol, tls) == 200
    rows = await gateway.on_loop(lambda: connections(gateway.worker)["clients"])
    shown = {(row["protocol"], row["tls"]) for row in rows}
    assert shown == {("HTTP/1.1" if protocol == "HTTP/1.0" else protocol, tls)}
    await wire.close()
    totals = Totals()
    totals.add(0, await gateway.on_loop(Counting(gateway.worker).body), 0.0)
    assert totals.protocols() == [(protocol, tls, 2)]
    told = {"protocol": protocol, "tls": tls, "requests": 2}
    assert totals.requests_report(0.0)["protocols"] == [told]
    line = f'edge_protocol_requests_total{{protocol="{protocol}",tls="{tls}"}} 2\n'
    assert line in exposition(totals, lambda: ()).decode()


@pytest.mark.parametrize("tls", ["", "TLSv1.3"])
@pytest.mark.parametrize("protocol", ["HTTP/1.0", "HTTP/1.1", "HTTP/2.0"])
async def test_via_says_it(protocol: str, tls: str, listen: str, origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await edge(edge_toml(origin.port, listen=listen))
    for extra in ((), ((b"via", b"1.0 before"),), ((b"x-forwarded-for", b"192.0.2.7"),)):
        wire = await connected(gateway, tls, protocol)
        assert await asked(wire, protocol, tls, *extra) == 200
        await wire.close()
    own = protocol.removeprefix("HTTP/").encode() + b" edge"
    assert [each.get(b"via") for each in origin.requests] == [own, own, *[b"1.0 before, " + own] * 2, own, own]
    assert {each.version for each in origin.requests} == {b"HTTP/1.1"}


async def test_both_versions_on_one_connection(origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect) -> None:
    gateway = await edge(edge_toml(origin.port))
    client = await raw_client(gateway.port)
    for version in (b"1.1", b"1.0", b"1.1", b"1.0"):
        await client.send(b"GET / HTTP/%b\r\nHost: a\r\nConnection: keep-alive\r\n\r\n" % version)
        assert await client.read_response() is not None
    assert [each.get(b"via") for each in origin.requests] == [b"1.1 edge", b"1.0 edge"] * 2
    assert [line["protocol"] for line in await gateway.log(4)] == ["HTTP/1.1", "HTTP/1.0"] * 2

"""`redirect_http`: what is asked for in the clear is sent to HTTPS; nothing of it is served or gets to a backend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from inprocess import Connect, Gateway, StartEdge, edge_toml
from kit.client import RawClient, Response
from kit.http2 import Http2Client, request_head
from kit.origin import ScriptedOrigin
from kit.ports import LOOPBACK, free_port
from kit.tls import issue, s_client

from edge.config.loader import load_text
from edge.dataplane.worker.explain import explain
from edge.errors import ConfigError

FRESH = b"HTTP/1.1 200 OK\r\nCache-Control: public, max-age=60\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def listen(tmp_path: Path) -> str:
    """Plain HTTP, which a proxy on loopback may speak for others, and HTTPS."""
    pair = issue(trustme.CA(), tmp_path, "a.test").toml
    return (
        f'http = ["{LOOPBACK}:0"]\nh2c = true\n@TRUST@\n'
        f'[[listen.https]]\naddress = "{LOOPBACK}:{free_port()}"\ncertificates = [{pair}]\nredirect_http = @PORT@'
    )


def toml(origin: ScriptedOrigin, listen: str, port: int = 443, trust: bool = False, route: str = "") -> str:
    trusted = f'trusted_proxies = ["{LOOPBACK}/32"]' if trust else ""
    return edge_toml(origin.port, listen=listen.replace("@PORT@", str(port)).replace("@TRUST@", trusted), route=route)


async def ask(client: RawClient, head: bytes, method: bytes = b"GET") -> Response:
    await client.send(head + b"\r\n\r\n")
    found = await client.read_response(method)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("head", "location"),
    [
        (b"GET /a?b=c%2F HTTP/1.1\r\nHost: A.test", b"https://a.test/a?b=c%2F"),
        (b"HEAD / HTTP/1.1\r\nHost: a.test:8080", b"https://a.test/"),
        (b"GET //b.test/ HTTP/1.1\r\nHost: a.test", b"https://a.test//b.test/"),
        (b"GET http://b.test/x HTTP/1.1\r\nHost: a.test", b"https://b.test/x"),
        (b"GET / HTTP/1.1\r\nHost: [2001:db8::1]:80", b"https://[2001:db8::1]/"),
        (b"PURGE /x HTTP/1.1\r\nHost: a.test", b"https://a.test/x"),
        (b"OPTIONS * HTTP/1.1\r\nHost: a.test", b"https://a.test/"),
        (b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket", b"https://a.test/"),
        (b"GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-Proto: https", b"https://a.test/"),
    ],
)
async def test_every_request_is_sent_to_the_same_place_over_https(
    head: bytes, location: bytes, listen: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(toml(origin, listen))
    found = await ask(await raw_client(gateway.port), head, head.partition(b" ")[0])
    assert (found.status, found.get(b"location")) == (308, location)
    assert not origin.requests
    (line,) = await gateway.log(1)
    assert (line["status"], line["reason"]) == (308, "redirect")


async def test_the_port_is_told_where_it_is_not_the_usual_one(
    listen: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(toml(origin, listen, port=8443))
    client = await raw_client(gateway.port)
    for _ in range(2):  # on the same connection
        assert (await client.get("/x", host="a.test:80")).get(b"location") == b"https://a.test:8443/x"


async def test_a_body_is_not_awaited(listen: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect) -> None:
    gateway = await edge(toml(origin, listen))
    client = await raw_client(gateway.port)
    found = await ask(client, b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000")
    assert (found.status, found.get(b"connection")) == (308, b"close")
    assert not origin.requests


async def test_http2_in_the_clear_is_sent_too(listen: str, origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await edge(toml(origin, listen))
    client = await Http2Client.connect(gateway.port)
    answer = await client.answer(client.ask(request_head(b"/x", host=b"a.test")))
    assert (answer.status, answer.get(b"location")) == (308, b"https://a.test/x")
    await client.close()


async def test_what_came_by_https_is_served(
    listen: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(toml(origin, listen, trust=True))
    assert (await s_client(gateway.ports[1])).statuses == [200]
    client = await raw_client(gateway.port)
    told = b"GET /x HTTP/1.1\r\nHost: inner\r\nX-Forwarded-Host: a.test\r\nX-Forwarded-Proto: %b"
    assert (await ask(client, told % b"https")).status == 200
    found = await ask(client, told % b"http")
    assert (found.status, found.get(b"location")) == (308, b"https://a.test/x")
    assert len(origin.requests) == 2


async def test_challenges_stay_and_whoever_names_no_host_is_refused(
    listen: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(toml(origin, listen))
    client = await raw_client(gateway.port)
    assert (await client.get("/.well-known/acme-challenge/x", host="a.test")).status == 200
    found = await ask(await raw_client(gateway.port), b"GET / HTTP/1.0")
    assert found.status == 400
    assert len(origin.requests) == 1


async def set_port(gateway: Gateway, port: int | None) -> None:
    """As a reload does it."""
    worker = gateway.worker

    def swap() -> None:
        worker.limits = replace(worker.limits, https_port=port)
        for downstream in worker.downstreams:
            downstream.key_host = None

    await gateway.on_loop(swap)


@pytest.mark.parametrize("version", [1, 2])
async def test_what_was_stored_before_is_not_served_in_the_clear(
    version: int, listen: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    """Nor on a connection that was served from the store already."""
    gateway = await edge(toml(origin, listen))
    await set_port(gateway, None)
    origin.default = (FRESH,)
    one, two = await raw_client(gateway.port), await Http2Client.connect(gateway.port)

    async def status() -> int:
        if version == 1:
            return (await one.get("/x", host="a.test")).status
        return (await two.answer(two.ask(request_head(b"/x", host=b"a.test")))).status

    assert [await status() for _ in range(3)] == [200, 200, 200]
    assert len(origin.requests) == 1
    await set_port(gateway, 443)
    assert [await status() for _ in range(3)] == [308, 308, 308]
    await set_port(gateway, None)
    assert await status() == 200
    assert len(origin.requests) == 1
    await two.close()


async def test_explain_says_so(listen: str, origin: ScriptedOrigin, edge: StartEdge) -> None:
    gateway = await edge(toml(origin, listen))
    found = explain(gateway.worker, {"url": "http://a.test/x"})
    assert found["rules"][0] == {"rule": "redirect_http", "does": "308 to https://a.test/x"}
    assert "rules" not in explain(gateway.worker, {"url": "https://a.test/x"})


def test_there_has_to_be_a_port(listen: str, origin: ScriptedOrigin) -> None:
    text = toml(origin, listen).replace("redirect_http = 443", "redirect_http = true")
    (listener,) = load_text(text, "f.toml").listen.https
    assert listener.redirects_to == listener.address.port
    with pytest.raises(ConfigError, match="redirect_http needs a port"):
        load_text(text.replace(str(listener.address), f"{LOOPBACK}:0"), "f.toml")

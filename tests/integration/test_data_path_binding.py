"""NTLM and Negotiate: a backend connection with an identity serves one client connection; hashing without a value."""

from __future__ import annotations

from collections import Counter
from time import monotonic

import pytest
from inprocess import Connect, Gateway, StartEdge, StartOrigins, edge_toml
from kit.client import RawClient
from kit.origin import OK, Pause, ScriptedOrigin
from kit.waiting import until

from edge.dataplane.worker.explain import explain

CHALLENGES = {
    "NTLM": b"WWW-Authenticate: NTLM\r\n",
    "among others": b'WWW-Authenticate: Basic realm="a", Negotiate\r\n',
    "second line": b"WWW-Authenticate: Basic\r\nWWW-Authenticate: negotiate abc=\r\n",
    "proxy": b"Proxy-Authenticate: NTLM abc\r\n",
}
BODIES = {
    "length": b"Content-Length: 2\r\n\r\nno",
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
}
PAGE = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok"


async def get(client: RawClient, *lines: str, target: str = "/") -> int:
    return (await client.ask(target, *lines, host="a")).status


def numbers(origin: ScriptedOrigin) -> list[int]:
    """On which connection each request came."""
    return [request.connection for request in origin.requests]


@pytest.mark.parametrize("challenge", CHALLENGES)
@pytest.mark.parametrize("body", BODIES)
async def test_a_connection_that_asked_for_it_is_its_client_s_alone(
    challenge: str, body: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    origin.enqueue(b"HTTP/1.1 401 Who\r\n" + CHALLENGES[challenge] + BODIES[body])
    gateway = await edge(edge_toml(origin.port))
    first, second = await raw_client(gateway.port), await raw_client(gateway.port)
    assert await get(first) == 401
    assert await get(second) == 200
    assert await get(first, "Authorization: NTLM TlRMTVNTUAADAAAA") == 200
    assert await get(second) == 200
    assert await get(first) == 200, "the identity is on the connection: no more credentials come"
    assert numbers(origin) == [1, 2, 1, 2, 1]


@pytest.mark.parametrize("word", ["NTLM TlRM", "Negotiate YII", "negotiate YII"])
async def test_credentials_bind_the_connection_that_carries_them(
    word: str, origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port))
    first, second = await raw_client(gateway.port), await raw_client(gateway.port)
    assert await get(first, f"Authorization: {word}") == 200
    assert await get(second) == 200
    assert numbers(origin) == [1, 2]
    await first.close()
    await until(lambda: gateway.upstream_connections == 1)
    assert await get(second, "Authorization: Basic YTpi") == 200
    assert await get(await raw_client(gateway.port)) == 200
    assert numbers(origin) == [1, 2, 2, 2], "Basic belongs to the request"


async def test_who_leaves_while_the_answer_is_on_its_way_leaves_no_connection(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    origin.default = (Pause("go"), OK)
    gateway = await edge(edge_toml(origin.port))
    client = await raw_client(gateway.port)
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: NTLM TlRM\r\n\r\n")
    await origin.wait_for("heads", 1)
    client.reset()
    await until(lambda: gateway.upstream_connections == 0 and gateway.in_flight == 0)


async def test_what_a_bound_connection_gives_is_not_stored(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    origin.default = (PAGE,)
    gateway = await edge(edge_toml(origin.port, route="cache = true"))
    mine, other = await raw_client(gateway.port), await raw_client(gateway.port)
    await get(mine, "Authorization: Negotiate YII", target="/login")
    await get(mine, target="/me")
    await get(other, target="/me")
    assert [request.target for request in origin.requests] == [b"/login", b"/me", b"/me"]
    assert numbers(origin) == [1, 1, 2]


async def test_another_client_behind_one_proxy_connection_never_gets_the_identity(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    listen = 'http = ["127.0.0.1:0"]\ntrusted_proxies = ["127.0.0.0/8"]'
    gateway = await edge(edge_toml(origin.port, listen=listen))
    proxy = await raw_client(gateway.port)
    await get(proxy, "X-Forwarded-For: 192.0.2.1", "Authorization: NTLM TlRM")
    await get(proxy, "X-Forwarded-For: 192.0.2.1")
    await get(proxy, "X-Forwarded-For: 192.0.2.2")
    assert numbers(origin) == [1, 1, 2]
    await until(lambda: gateway.upstream_connections == 1)


async def test_a_bound_connection_that_ended_is_made_anew(
    origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect
) -> None:
    gateway = await edge(edge_toml(origin.port))
    client = await raw_client(gateway.port)
    await get(client, "Authorization: NTLM TlRM")
    await gateway.on_loop(lambda: gateway.worker.pools["origin"].tick(monotonic() + 31.0))
    assert gateway.upstream_connections == 0, "idle too long"
    assert await get(client) == 200
    assert numbers(origin) == [1, 2]


async def test_it_stays_with_its_backend(origins: StartOrigins, edge: StartEdge, raw_client: Connect) -> None:
    both = [await origins() for _ in range(2)]
    gateway = await edge(edge_toml(*(each.port for each in both)))
    client = await raw_client(gateway.port)
    await get(client, "Authorization: NTLM TlRM")
    for _ in range(5):
        await get(client)
    assert sorted(each.counters["heads"] for each in both) == [0, 6]


# -- hashing -----------------------------------------------------------------------------------------------------------


async def spread(gateway: Gateway, raw_client: Connect, both: list[ScriptedOrigin], *lines: str) -> Counter[int]:
    before = [each.counters["heads"] for each in both]
    client = await raw_client(gateway.port)
    for _ in range(40):
        await get(client, *lines)
    return Counter(dict(enumerate(each.counters["heads"] - old for each, old in zip(both, before, strict=True))))


@pytest.mark.parametrize(("on", "line"), [("cookie:sid", "Cookie: a=b; sid=7"), ("header:X-User", "X-User: 7")])
async def test_without_the_value_a_request_has_no_home(
    on: str, line: str, origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    both = [await origins() for _ in range(2)]
    pool = f'balance = "hash"\nhash = {{ on = "{on}" }}'
    gateway = await edge(edge_toml(*(each.port for each in both), pool=pool))
    assert sorted((await spread(gateway, raw_client, both, line)).values()) == [0, 40]
    assert min((await spread(gateway, raw_client, both)).values()) > 0, "not everybody to one backend"
    name, _, value = line.partition(": ")

    def told(headers: list[list[str]]) -> str:
        found: str = explain(gateway.worker, {"url": "http://a/", "headers": headers})["hash"]["home"]
        return found

    assert (told([[name.lower(), value]]), told([])) == ("by its value", "none: any backend, by chance")

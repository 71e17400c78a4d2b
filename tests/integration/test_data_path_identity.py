"""Who asks for what, through a running worker: one path for all rules, what trusted proxies tell, loops, purges."""

from __future__ import annotations

import re

import pytest
from inprocess import Connect, Gateway, Proxy, StartEdge, StartOrigins, edge_toml
from kit.client import RawClient
from kit.origin import ScriptedOrigin
from kit.ports import LOOPBACK, free_port

from edge.cache.purge_request import parse_purge
from edge.dataplane.caching.purging import Purging

TRUSTING = 'http = ["127.0.0.1:0"]\ntrusted_proxies = ["127.0.0.0/8"]'
FRESH = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok"
RULES = 'cache = { override_ttl = "60s" }'


# -- one path ----------------------------------------------------------------------------------------------------------

DISGUISED = ["/%61dmin", "//admin", "/./admin", "/x/../admin", "/x/%2e%2E/admin/x", "/.//admin/"]
SEPARATED = ["/admin%2fx", "/admin%5Cx", "/x%2f..%2fadmin", "/admin%00", "/static/..%2fadmin"]


@pytest.mark.parametrize("target", ["/admin", *DISGUISED])
async def test_no_spelling_of_a_path_passes_by_a_bypass(target: str, origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (FRESH,)
    _, client = await proxy(route='cache = { bypass = { paths = ["/admin"] } }')
    for _ in range(2):
        response = await client.ask(target)
        assert response.get(b"cache-status") == b"edge; fwd=bypass; detail=rule:default"
    assert origin.targets() == [target.encode()] * 2, "what goes on are the client's bytes"


@pytest.mark.parametrize("target", ["/admin", *DISGUISED])
async def test_no_spelling_of_a_path_passes_by_a_route(target: str, origins: StartOrigins, edge: StartEdge) -> None:
    site, admin = await origins(), await origins()
    text = edge_toml(site.port) + _more("admin", admin.port, "/admin")
    client = await RawClient.connect((await edge(text)).port)
    assert (await client.ask(target)).status == 200
    await client.close()
    assert (site.targets(), admin.targets()) == ([], [target.encode()])


def _more(pool: str, port: int, path: str, lines: str = "cache = false") -> str:
    return (
        f'\n[[pools.{pool}.backends]]\nurl = "http://{LOOPBACK}:{port}"\n'
        f'[[routes]]\npath = "{path}"\npool = "{pool}"\n{lines}\n'
    )


@pytest.mark.parametrize("target", SEPARATED)
async def test_an_encoded_separator_is_refused(target: str, origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    response = await client.ask(target)
    assert response.status == 400
    assert b"encoded slash" in (response.get(b"proxy-status") or b"")
    assert not origin.requests


@pytest.mark.parametrize("target", SEPARATED)
async def test_one_that_is_let_through_matches_as_if_decoded(target: str, origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (FRESH,)
    _, client = await proxy(route='encoded_slashes = true\ncache = { bypass = { paths = ["/admin"] } }')
    assert b"rule:default" in ((await client.ask(target)).get(b"cache-status") or b"")
    assert origin.targets() == [target.encode()]


@pytest.mark.parametrize("target", ["/static/..%2faccount", "/account/x%2f..%2f..%2fstatic%2fy"])
async def test_a_path_of_two_readings_is_never_stored(target: str, origin: ScriptedOrigin, edge: StartEdge) -> None:
    passing = "encoded_slashes = true\n"
    text = edge_toml(origin.port, route=passing + "cache = false")
    text += f'\n[[routes]]\npath = "/static"\npool = "origin"\n{passing}{RULES}\n'
    gateway = await edge(text)
    client = await RawClient.connect(gateway.port)
    for _ in range(2):
        assert (await client.ask(target)).status == 200
    assert (await client.ask("/static/a%2fb")).status == 200
    assert b"; hit" in ((await client.ask("/static/a%2fb")).get(b"cache-status") or b""), "one reading is stored"
    await client.close()
    assert origin.targets() == [target.encode()] * 2 + [b"/static/a%2fb"]


# -- what trusted proxies tell -----------------------------------------------------------------------------------------


async def test_a_stored_redirect_to_https_is_not_the_answer_to_https(origin: ScriptedOrigin, proxy: Proxy) -> None:
    moved = b"HTTP/1.1 301 M\r\nLocation: https://a.example/\r\nCache-Control: max-age=60\r\nContent-Length: 0\r\n\r\n"
    origin.enqueue(moved)
    origin.default = (FRESH,)
    _, client = await proxy(listen=TRUSTING, route="cache = true")
    assert (await client.ask("/", "X-Forwarded-Proto: http")).status == 301
    for line in ("X-Forwarded-Proto: https", "Forwarded: for=203.0.113.7;proto=https"):
        assert (await client.ask("/", line)).status == 200
    assert (await client.ask("/")).status == 301
    assert [request.get(b"x-forwarded-proto") for request in origin.requests] == [b"http", b"https"]
    assert [request.get(b"x-forwarded-port") for request in origin.requests] == [b"80", b"443"]


async def test_the_scheme_that_anybody_claims_does_not_count(origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (FRESH,)
    _, client = await proxy(route="cache = true")
    await client.ask("/", "X-Forwarded-Proto: https")
    assert b"; hit" in ((await client.ask("/")).get(b"cache-status") or b"")
    assert origin.requests[0].get(b"x-forwarded-proto") == b"http"


async def test_a_host_that_a_trusted_proxy_tells_is_in_the_key_beside_the_one_that_the_backend_gets(
    origin: ScriptedOrigin, proxy: Proxy
) -> None:
    origin.default = (FRESH,)
    gateway, client = await proxy(listen=TRUSTING, route="cache = true")
    for host in ("b.example", "c.example", "B.example:80"):
        await client.ask("/", f"X-Forwarded-Host: {host}")
    await client.send(b"GET / HTTP/1.1\r\nHost: other.example\r\nX-Forwarded-Host: b.example\r\n\r\n")
    assert await client.read_response() is not None
    seen = [(request.get(b"host"), request.get(b"x-forwarded-host")) for request in origin.requests]
    assert seen == [
        (b"a.example", b"b.example"), (b"a.example", b"c.example"), (b"other.example", b"b.example"),
    ]  # fmt: skip
    assert [line["host"] for line in await gateway.log(2)][:2] == ["b.example", "c.example"]


@pytest.mark.parametrize(
    "line",
    ["X-Forwarded-For: 203.0.113.7:51234", "Forwarded: for=203.0.113.7;proto=https", 'Forwarded: for="203.0.113.7:1"'],
)
async def test_the_client_s_address_in_every_form(line: str, origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy(listen=TRUSTING)
    await client.ask("/", line)
    assert (await gateway.log(1))[0]["client"] == "203.0.113.7"
    request = origin.requests[0]
    assert request.get(b"x-real-ip") == b"203.0.113.7"
    assert (request.get(b"x-forwarded-for") or b"").startswith(b"203.0.113.7")
    assert b"203.0.113.7" in (request.get(b"forwarded") or b"")


async def test_the_client_s_address_is_known_before_the_backend_is_picked(
    origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    both = [await origins(), await origins()]
    text = edge_toml(*(each.port for each in both), listen=TRUSTING, pool='balance = "hash"\nhash = { on = "client" }')
    client = await raw_client((await edge(text)).port)
    for number in range(40):
        await client.ask(f"/{number % 20}", f"X-Forwarded-For: 203.0.113.{number % 20}")
    assert all(len(each.requests) > 4 for each in both), "twenty clients are not one"
    seen = [{request.get(b"x-real-ip") for request in each.requests} for each in both]
    assert not seen[0] & seen[1], "and each stays where it is"


async def test_a_trusted_proxy_s_connections_are_not_one_client_s(edge: StartEdge, raw_client: Connect) -> None:
    text = edge_toml(1, listen=TRUSTING, limits="connections_per_client = 1")
    gateway = await edge(text)
    clients = [await raw_client(gateway.port) for _ in range(3)]
    assert [(await client.ask("/x%2fy")).status for client in clients] == [400] * 3


# -- what must not reach an origin -------------------------------------------------------------------------------------

OVERRIDING = [
    "X-Original-URL: /admin", "X-Rewrite-URL: /admin", "X-HTTP-Method-Override: DELETE", "X-Host: evil",
    "X-Forwarded-Scheme: https", "X-Forwarded-Prefix: /x", "X-Forwarded-Ssl: on", "X-Forwarded-Server: evil",
    "X_Original_URL: /admin", "x.rewrite.url: /admin", "X_Forwarded_Host: evil",
]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("route", ["cache = true", 'cache = { bypass = { paths = ["/"] } }'])
async def test_fields_that_change_the_request_do_not_reach_the_backend_of_a_route_that_stores(
    method: str, route: str, origin: ScriptedOrigin, proxy: Proxy
) -> None:
    _, client = await proxy(route=route)
    await client.ask("/", *OVERRIDING, "X-Kept: 1", method=method)
    names = {name.lower() for name, _ in origin.requests[0].fields}
    assert b"x-kept" in names
    assert not names & {line.partition(":")[0].lower().encode() for line in OVERRIDING}


async def test_they_do_where_nothing_is_stored_or_the_operator_says_so(origin: ScriptedOrigin, edge: StartEdge) -> None:
    text = edge_toml(origin.port) + (
        '\n[[routes]]\npath = "/own"\npool = "origin"\ncache = { drop_headers = ["x-mine", "x-host"] }\n'
        '[[routes]]\npath = "/keyed"\npool = "origin"\ncache = { key_headers = ["x-host"] }\n'
    )
    client = await RawClient.connect((await edge(text)).port)
    for path in ("/plain", "/own", "/keyed"):
        await client.ask(path, "X-Host: h", "X-Mine: m", "X-Original-URL: /u")
    await client.close()
    seen = [[request.get(name) for name in (b"x-host", b"x-mine", b"x-original-url")] for request in origin.requests]
    assert seen == [[b"h", b"m", b"/u"], [None, None, b"/u"], [b"h", b"m", None]]


async def test_the_gateway_as_its_own_backend_answers_508_at_the_first_return(edge: StartEdge) -> None:
    port = free_port()
    text = edge_toml(port, listen=f'http = ["{LOOPBACK}:{port}"]', route="cache = true")
    gateway = await edge(text)
    client = await RawClient.connect(port)
    response = await client.ask("/")
    await client.close()
    assert response.status == 508
    assert b"proxy_loop_detected" in (response.get(b"proxy-status") or b"")
    assert len(gateway.worker.downstreams) <= 2


async def test_what_other_gateways_said_of_loops_is_kept(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy(route="cache = true")
    await client.ask("/", "CDN-Loop: other; v=1", "Connection: CDN-Loop")
    loop = origin.requests[0].get(b"cdn-loop")
    assert loop is not None and re.fullmatch(rb"other; v=1, edge-[0-9a-f]{16}", loop)
    assert (await client.ask("/", "CDN-Loop: " + loop.decode().upper())).status == 508
    assert len(origin.requests) == 1


# -- methods -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["cache = true", "cache = false"])
@pytest.mark.parametrize("method", ["PURGE", "BAN", "REFRESH"])
async def test_nobody_s_purge_reaches_an_origin(method: str, route: str, origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (FRESH,)
    _, client = await proxy(route=route)
    await client.ask("/")
    response = await client.ask("/", method=method)
    assert (response.status, len(origin.requests)) == (405, 1)
    if "true" in route:
        assert b"; hit" in ((await client.ask("/")).get(b"cache-status") or b"")
    assert (await client.ask("/", method="M-SEARCH")).status == 200, "other methods are none of our business"


async def test_a_purge_of_who_may_is_obeyed_here(origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (FRESH,)
    _, client = await proxy(route="purge_methods = true\ncache = { sort_query = true }")
    await client.ask("/x?b=1&a=2")
    told = await client.ask("/x?a=2&b=1", method="PURGE")
    assert (told.status, told.body.content) == (200, b"purged 1\n")
    assert b"; hit" not in ((await client.ask("/x?b=1&a=2")).get(b"cache-status") or b"")
    assert (await client.ask("/", method="BAN")).status == 405
    assert [request.method for request in origin.requests] == [b"GET", b"GET"]


async def test_a_purge_from_another_network_is_not(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy(route='purge_methods = ["10.0.0.0/8"]')
    assert (await client.ask("/", method="PURGE")).status == 405
    _, client = await proxy(route="purge_methods = true", listen=TRUSTING)
    assert (await client.ask("/", "X-Forwarded-For: 203.0.113.7", method="PURGE")).status == 405
    assert not origin.requests


@pytest.mark.parametrize("method", ["POST", "TRACE", "PURGE"])
async def test_allow_tells_the_route_s_methods(method: str, proxy: Proxy) -> None:
    _, client = await proxy(route='methods = ["HEAD", "GET"]')
    response = await client.ask("/", "Content-Length: 0", method=method)
    assert (response.status, response.get(b"allow")) == (405, b"GET, HEAD")


async def test_an_empty_port_is_no_port(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    assert (await client.get("/", "A.example:")).status == 200
    assert origin.requests[0].get(b"host") == b"a.example"


# -- purges ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "asked", "url"),
    [
        ("true", "/x?a=1", "http://a.example/x?a=1"),
        ("true", "/x", "https://A.example:443/x"),
        ("true", "/x", "http://a.example:80/x"),
        ("{ sort_query = true }", "/x?b=1&a=2", "http://a.example/x?b=1&a=2"),
        ("{ sort_query = true }", "/x?b=1&a=2", "http://a.example/x?a=2&b=1"),
        ('{ ignore_query = ["utm_*"] }', "/x?utm_id=1&a=2", "https://a.example/x?a=2&utm_id=9"),
        ('{ only_query = ["a"] }', "/x?a=2&c=1", "http://a.example/x?a=2&c=3"),
        ('{ key_headers = ["x-kind"] }', "/x", "http://a.example/x"),
    ],
)
@pytest.mark.parametrize("proto", ["http", "https"])
async def test_a_url_is_purged_under_the_key_that_its_route_makes(
    rules: str, asked: str, url: str, proto: str, origin: ScriptedOrigin, proxy: Proxy
) -> None:
    origin.default = (FRESH,)
    gateway, client = await proxy(route=f"cache = {rules}", listen=TRUSTING)
    line = f"X-Forwarded-Proto: {proto}"
    await client.ask(asked, line, "X-Kind: k")
    await client.ask("/other", line)
    assert await _purged(gateway, url) == 1
    assert b"; hit" not in ((await client.ask(asked, line, "X-Kind: k")).get(b"cache-status") or b"")
    assert b"; hit" in ((await client.ask("/other", line)).get(b"cache-status") or b"")


async def _purged(gateway: Gateway, url: str) -> int:
    found = await gateway.on_loop(lambda: Purging(gateway.worker, parse_purge({"url": url})).count)
    assert isinstance(found, int)
    return found


async def test_a_prefix_is_purged_in_every_spelling(origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (FRESH,)
    gateway, client = await proxy(route="cache = true")
    spellings = ["/docs/a", "/%64ocs/a", "//docs/a", "/x/../docs/a", "/./docs"]
    for target in [*spellings, "/other"]:
        await client.ask(target)
    await gateway.on_loop(lambda: Purging(gateway.worker, parse_purge({"prefix": "a.example/%64ocs/"})).count)
    for target in spellings:
        assert b"; hit" not in ((await client.ask(target)).get(b"cache-status") or b"")
    assert b"; hit" in ((await client.ask("/other")).get(b"cache-status") or b"")


async def test_vary_by_what_the_gateway_tells_makes_one_variant_for_each_key(
    origin: ScriptedOrigin, proxy: Proxy
) -> None:
    origin.default = (FRESH.replace(b"Cache", b"Vary: X-Forwarded-Proto\r\nCache"),)
    _, client = await proxy(route="cache = true")
    for line in ("X-Forwarded-Proto: a", "X-Forwarded-Proto: b", "X-Kept: 1"):
        await client.ask("/", line)
    assert len(origin.requests) == 1, "what anybody claims is not what the origin saw"


# -- statuses without content ------------------------------------------------------------------------------------------

FRESH_LINE = b"Cache-Control: max-age=60\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"


@pytest.mark.parametrize("http_1_0", [False, True])
@pytest.mark.parametrize(
    ("status", "rest"),
    [
        (b"204 N", b"Content-Length: 2\r\n\r\nhi"),
        (b"204 N", CHUNKED),
        (b"204 N", b"\r\nhi"),
        (b"205 R", b"Content-Length: 2\r\n\r\nhi"),
        (b"205 R", CHUNKED),
        (b"205 R", b"\r\nhi"),
        (b"304 N", CHUNKED),
        (b"304 N", b"Content-Length: 2\r\n\r\nhi"),
    ],
)
async def test_content_that_a_status_forbids_is_left_out_and_the_answer_never_stored(
    status: bytes, rest: bytes, http_1_0: bool, origin: ScriptedOrigin, proxy: Proxy
) -> None:
    origin.enqueue(b"HTTP/1.1 " + status + b"\r\n" + FRESH_LINE + rest)
    origin.default = (FRESH,)
    _, client = await proxy(route="cache = true")
    version = b"1.0\r\nConnection: keep-alive" if http_1_0 else b"1.1"
    asked = b"GET / HTTP/" + version + b"\r\nHost: a.example\r\n\r\n"
    await client.send(asked)
    first = await client.read_response()
    assert first is not None and first.status == int(status[:3])
    assert first.get(b"transfer-encoding") is None
    assert first.get(b"content-length") == {204: None, 205: b"0", 304: first.get(b"content-length")}[first.status]
    await client.send(asked)
    second = await client.read_response()
    assert second is not None
    assert (second.status, second.body.content) == (200, b"ok"), "no content of the first answer is in the second"
    assert len(origin.requests) == 2
    assert origin.counters["connections"] == 2, "where the next answer begins is not known on the first"


async def test_a_stored_205_says_that_it_has_no_content(origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (b"HTTP/1.1 205 R\r\n" + FRESH_LINE + b"Content-Length: 0\r\n\r\n",)
    _, client = await proxy(route="cache = true")
    for _ in range(2):
        response = await client.get("/")
        assert (response.status, response.get(b"content-length")) == (205, b"0")
    assert b"; hit" in (response.get(b"cache-status") or b"")


@pytest.mark.parametrize(
    "answer", [b"204 N\r\n\r\n", b"205 R\r\nContent-Length: 0\r\n\r\n", b"304 N\r\nContent-Length: 9\r\n\r\n"]
)
async def test_the_legal_form_keeps_its_connection(answer: bytes, origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (b"HTTP/1.1 " + answer,)
    _, client = await proxy()
    for _ in range(3):
        assert (await client.get("/")).status == int(answer[:3])
    assert origin.counters["connections"] == 1

"""Heads through the gateway: what the origin gets, what the client gets, and what is refused before any origin."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

import pytest
from inprocess import Connect, Proxy, StartEdge, StartOrigins, edge_toml
from kit.origin import OK, ScriptedOrigin, Step

TRUSTING = 'http = ["127.0.0.1:0"]\ntrusted_proxies = ["127.0.0.0/8"]'


async def test_the_target_goes_on_byte_for_byte(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy(route="cache = false\nencoded_slashes = true")
    targets = ["/%2F%2f/..//./a;b=c?x=%zz&y=%41+b&&=", "/\"q'<>{}|^`", "//", "/?", "/??", "/a?b=http://c/"]
    for target in targets:
        assert (await client.get(target)).status == 200
    assert origin.targets() == [target.encode() for target in targets]


async def test_a_head_is_built_afresh_with_one_host_and_one_framing(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    await client.send(
        b"POST /x HTTP/1.1\r\nhOST: A.example:81\r\nConnection: keep-alive, X-Gone\r\nKeep-Alive: timeout=9\r\n"
        b"X-Gone: 1\r\n"
        b"Proxy-Authorization: secret\r\nTE: gzip\r\nX_Forwarded_For: 6.6.6.6\r\n"
        b"Content-Length: 2\r\nX-Kept: 1\r\n\r\nhi"
    )
    response = await client.read_response()
    assert response is not None and response.status == 200
    request = origin.requests[0]
    names = [name.lower() for name, _ in request.fields]
    assert len(names) == len(set(names))
    assert request.get(b"host") == b"a.example:81"
    assert request.get(b"content-length") == b"2"
    assert request.get(b"x-kept") == b"1"
    assert not {b"connection", b"keep-alive", b"x-gone", b"proxy-authorization", b"te", b"x_forwarded_for"} & set(names)
    assert request.body is not None and request.body.content == b"hi"


async def test_an_empty_body_keeps_its_length(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n")
    for _ in range(2):
        response = await client.read_response()
        assert response is not None and response.status == 200
    assert [request.get(b"content-length") for request in origin.requests] == [b"0", None]


async def test_the_backend_s_own_host_when_the_client_s_is_not_preserved(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy(route="cache = false\npreserve_host = false")
    await client.get("/")
    assert origin.requests[0].get(b"host") == f"127.0.0.1:{origin.port}".encode()
    assert origin.requests[0].get(b"x-forwarded-host") == b"a.example"


async def test_absolute_form_decides_the_authority(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    await client.send(b"GET http://B.example:8080/p?q HTTP/1.1\r\nHost: a.example\r\n\r\n")
    response = await client.read_response()
    assert response is not None and response.status == 200
    assert (origin.requests[0].target, origin.requests[0].get(b"host")) == (b"/p?q", b"b.example:8080")


async def test_options_for_the_whole_server(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    await client.send(b"OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n")
    response = await client.read_response(b"OPTIONS")
    assert response is not None and response.status == 200
    assert (origin.requests[0].method, origin.requests[0].target) == (b"OPTIONS", b"*")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"TRACE / HTTP/1.1\r\nHost: a.example\r\n\r\n", 405),
        (b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: cookies\r\n\r\n", 417),
    ],
)
async def test_refused_with_a_reason_and_nothing_else(
    head: bytes, status: int, origin: ScriptedOrigin, proxy: Proxy
) -> None:
    gateway, client = await proxy()
    await client.send(head)
    response = await client.read_response(b"GET")
    assert response is not None
    assert response.status == status
    assert re.fullmatch(rb'edge; error=http_request_\w+(; details="[ -~]*")?', response.get(b"proxy-status") or b"")
    assert len(response.raw_head) + len(response.body.content) < 500
    assert not origin.requests
    assert (await gateway.log(1))[0]["status"] == status, "a refused request is logged as well"


async def test_unknown_hosts_and_paths(origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect) -> None:
    text = edge_toml(origin.port).replace('host = "*"\npath = "/"', 'host = "a.example"\npath = "/api"')
    gateway = await edge(text)
    client = await raw_client(gateway.port)
    assert (await client.get("/api/x", "A.example:80")).status == 200
    assert (await client.get("/", "a.example")).status == 404
    assert (await client.get("/api", "b.example")).status == 421
    assert origin.targets() == [b"/api/x"]


async def test_http_1_0(origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.route("/chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    _, client = await proxy()
    await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    kept = await client.read_response()
    assert kept is not None
    assert (kept.status, kept.get(b"connection"), kept.closed) == (200, b"keep-alive", False)
    await client.send(b"GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    closed = await client.read_response()
    assert closed is not None
    assert (closed.body.content, closed.get(b"transfer-encoding"), closed.closed) == (b"ok", None, True)
    assert closed.complete
    assert {request.version for request in origin.requests} == {b"HTTP/1.1"}


async def test_head_has_the_fields_of_get_and_no_body(origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.route("/big", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n")
    _, client = await proxy()
    for _ in range(2):
        await client.send(b"HEAD /big HTTP/1.1\r\nHost: a\r\n\r\n")
        response = await client.read_response(b"HEAD")
        assert response is not None
        assert (response.status, response.get(b"content-length"), client.leftover) == (200, b"999", b"")
    assert origin.counters["connections"] == 1


async def test_pipelined_requests_are_answered_in_order(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    bodies = [b"%d" % number for number in range(20)]
    for body in bodies:
        origin.route(b"/" + body, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    await client.send(b"".join(b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % body for body in bodies))
    got = [await client.read_response() for _ in bodies]
    assert [response.body.content for response in got if response] == bodies
    assert origin.counters["connections"] == 1


# -- what the gateway asserts ------------------------------------------------------------------------------------------

CLAIMS = (
    b"GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n"
    b"X-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nVia: 1.0 before\r\n\r\n"
)


async def test_an_untrusted_client_s_claims_are_replaced(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    await client.send(CLAIMS)
    assert await client.read_response() is not None
    request = origin.requests[0]
    assert request.get(b"x-forwarded-for") == b"127.0.0.1"
    assert request.get(b"x-forwarded-proto") == b"http"
    assert request.get(b"x-forwarded-host") == b"a.example"
    assert request.get(b"forwarded") == b"for=127.0.0.1;host=a.example;proto=http"
    assert request.get(b"x-real-ip") == b"127.0.0.1"
    assert request.get(b"via") == b"1.0 before, 1.1 edge"
    assert (await gateway.log(1))[0]["client"] == "127.0.0.1"


async def test_a_trusted_proxy_s_lists_are_appended_to(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy(listen=TRUSTING)
    await client.send(CLAIMS)
    assert await client.read_response() is not None
    request = origin.requests[0]
    assert request.get(b"x-forwarded-for") == b"6.6.6.6, 127.0.0.1"
    assert request.get(b"x-forwarded-proto") == b"https"
    assert request.get(b"forwarded") == b"for=6.6.6.6, for=127.0.0.1;host=evil;proto=https", "one story in all fields"
    assert request.get(b"via") == b"1.0 before, 1.1 edge"
    assert (await gateway.log(1))[0]["client"] == "6.6.6.6"


async def test_two_hosts_on_one_connection_are_told_apart(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    for host in ("a.example", "b.example", "a.example"):
        await client.get("/", host)
    assert [request.get(b"x-forwarded-host") for request in origin.requests] == [
        b"a.example",
        b"b.example",
        b"a.example",
    ]


async def test_request_ids_and_traces_are_kept_or_made(origin: ScriptedOrigin, proxy: Proxy) -> None:
    gateway, client = await proxy()
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for lines in (b"", b"X-Request-Id: client-chose-this\r\ntraceparent: " + trace + b"\r\n", b"X-Request-Id: a b\r\n"):
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")
        assert await client.read_response() is not None
    made, kept, bad = origin.requests
    assert re.fullmatch(rb"[0-9a-f]{32}", made.get(b"x-request-id") or b"")
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-00", made.get(b"traceparent") or b"")
    assert (kept.get(b"x-request-id"), kept.get(b"traceparent")) == (b"client-chose-this", trace)
    assert re.fullmatch(rb"[0-9a-f]{32}", bad.get(b"x-request-id") or b"")
    assert made.get(b"x-request-id") != bad.get(b"x-request-id")
    logged = [line["id"].encode() for line in await gateway.log(3)]
    assert logged == [request.get(b"x-request-id") for request in (made, kept, bad)]


async def test_a_replaced_request_id(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy(limits='request_id = "replace"')
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: client-chose-this\r\n\r\n")
    assert await client.read_response() is not None
    assert origin.requests[0].get(b"x-request-id") != b"client-chose-this"


@pytest.mark.parametrize("route", ["cache = false", "cache = true"])
async def test_the_request_id_is_told_to_the_client_by_a_setting(
    route: str, origin: ScriptedOrigin, proxy: Proxy
) -> None:
    fresh = b"HTTP/1.1 200 OK\r\nX-Request-Id: backend-own\r\nCache-Control: max-age=60\r\nContent-Length: 0\r\n\r\n"
    origin.default = (fresh,)
    gateway, client = await proxy(limits="return_request_id = true", route=route)
    told = []
    for line in (b"", b"X-Request-Id: client-chose-this\r\n", b""):
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n")
        response = await client.read_response()
        assert response is not None
        told.append([value for name, value in response.fields if name == b"X-Request-Id"])
    await client.send(b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n")
    refused = await client.read_response()
    assert refused is not None
    told.append([refused.get(b"x-request-id") or b""])
    logged = [line["id"].encode() for line in await gateway.log(4)]
    assert told == [[identity] for identity in logged], "one, the gateway's, and the log's"
    assert logged[1] == b"client-chose-this" and len(set(logged)) == 4
    assert origin.requests[0].get(b"x-request-id") == logged[0]


@pytest.mark.parametrize("policy", ["replace", "trusted"])
async def test_the_log_of_a_hit_keeps_no_id_that_the_setting_refuses(
    policy: str, origin: ScriptedOrigin, proxy: Proxy
) -> None:
    origin.default = (b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 0\r\n\r\n",)
    gateway, client = await proxy(limits=f'request_id = "{policy}"', route="cache = true")
    for _ in range(2):
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: client-chose-this\r\n\r\n")
        assert await client.read_response() is not None
    logged = await gateway.log(2)
    assert logged[1]["verdict"] == "hit"
    assert "client-chose-this" not in {line["id"] for line in logged}


async def test_a_request_has_one_id_over_all_its_attempts(origins: StartOrigins, edge: StartEdge) -> None:
    both = [await origins(), await origins()]
    for each in both:
        each.default = (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",)
    gateway = await edge(edge_toml(*(each.port for each in both)))
    client = await gateway.client()
    assert (await client.get("/")).status == 503
    await client.close()
    seen = {request.get(b"x-request-id") for each in both for request in each.requests}
    assert seen == {(await gateway.log(1))[0]["id"].encode()}


async def test_a_date_is_added_once_and_only_when_missing(origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.route("/dated", b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n")
    _, client = await proxy()
    assert parsedate_to_datetime(((await client.get("/")).get(b"date") or b"").decode()).year > 2000
    assert (await client.get("/dated")).get(b"date") == b"Thu, 01 Jan 1970 00:00:00 GMT"


async def test_hop_by_hop_fields_of_a_response_end_here(origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (
        b"HTTP/1.1 200 OK\r\nConnection: X-Gone, content-length\r\nX-Gone: 1\r\nUpgrade: h2\r\n"
        b"Keep-Alive: timeout=5\r\n"
        b"Proxy-Authenticate: Basic\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok",
    )
    _, client = await proxy()
    response = await client.get("/")
    assert [value for name, value in response.fields if name == b"Set-Cookie"] == [b"a=1", b"b=2"]
    names = {name.lower() for name, _ in response.fields}
    assert names == {b"set-cookie", b"content-length", b"date", b"cache-status"}
    assert response.body.content == b"ok"


async def test_an_error_leaks_nothing_of_the_inside(
    edge: StartEdge, raw_client: Connect, origins: StartOrigins
) -> None:
    gone = await origins()
    await gone.stop()
    gateway = await edge(edge_toml(gone.port))
    response = await (await raw_client(gateway.port)).get("/secret-path")
    assert response.status == 502
    text = response.raw_head + response.body.content
    assert re.search(rb"\r\nProxy-Status: edge; error=connection_refused", text)
    for secret in (b"127.0.0.1", str(gone.port).encode(), b"python", b"Traceback", b"secret-path", b"origin"):
        assert secret not in text


async def test_a_coded_body_passes_unchanged(origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x00\xff",)
    _, client = await proxy()
    response = await client.get("/")
    assert (response.get(b"content-encoding"), response.body.content) == (b"gzip", b"\x1f\x8b\x00\xff")


async def test_a_response_is_never_taken_from_bytes_on_an_idle_connection(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy()
    origin.enqueue(OK, OK, Step.SILENCE)  # two answers to one request, the second unasked
    first = await client.get("/1")
    await origin.wait_for("gone", 1)  # that connection is given up
    second = await client.get("/2")
    assert (first.body.content, second.body.content) == (b"ok", b"ok")
    assert origin.counters["connections"] == 2

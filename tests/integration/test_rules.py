"""Rules of routes through a running worker: conditions, headers, targets, redirects, answers, access, limits."""

from __future__ import annotations

import pytest
from inprocess import Connect, Proxy, StartEdge, StartOrigins, edge_toml
from kit.origin import ScriptedOrigin, Step
from kit.ports import LOOPBACK
from kit.processes import patient
from kit.waiting import until

FRESH = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nServer: org\r\nContent-Length: 2\r\n\r\nok"
TRUSTING = 'http = ["127.0.0.1:0"]\ntrusted_proxies = ["127.0.0.0/8"]'


@pytest.fixture
def connect(raw_client: Connect) -> Connect:
    """A connected client, closed with the test."""
    return raw_client


def more(lines: str, port: int | None = None, pool: str = "other") -> str:
    """One more route, with a pool of its own where a port is given."""
    if port is None:
        return f"\n[[routes]]\n{lines}\n"
    backends = f'\n[pools.{pool}]\n{patient("")}\n[[pools.{pool}.backends]]\nurl = "http://{LOOPBACK}:{port}"\n'
    return f'{backends}[[routes]]\npool = "{pool}"\n{lines}\n'


# -- conditions --------------------------------------------------------------------------------------------------------

CONDITIONS = [
    ('match = { methods = ["PUT"] }', "PUT", "/x", ()),
    ('match = { headers = { "X-Beta" = "1" } }', "GET", "/x", ("x-beta: 1",)),
    ('match = { headers = { "X-Beta" = "*" } }', "GET", "/x", ("x-beta: anything",)),
    ('match = { query = { a = "1" } }', "GET", "/x?b=2&a=1", ()),
    ('match = { query = { a = "*" } }', "GET", "/x?a", ()),
    ('match = { cookies = { staff = "1" } }', "GET", "/x", ("Cookie: a=b; staff=1",)),
    ('match = { clients = ["127.0.0.0/8"] }', "GET", "/x", ()),
    ('match = { scheme = "http" }', "GET", "/x", ()),
    ('path_regex = "^/v[0-9]+/"', "GET", "/v12/x", ()),
    ('path_regex = "^/v[0-9]+/"', "GET", "/%7612/x", ()),
]


@pytest.mark.parametrize(("rule", "method", "target", "lines"), CONDITIONS)
async def test_a_condition_chooses_its_route(
    rule: str,
    method: str,
    target: str,
    lines: tuple[str, ...],
    origins: StartOrigins,
    edge: StartEdge,
    connect: Connect,
) -> None:
    usual, chosen = await origins(), await origins()
    client = await connect((await edge(edge_toml(usual.port) + more(rule, chosen.port))).port)
    assert (await client.ask(target, *lines, method=method)).status == 200
    assert (len(usual.requests), len(chosen.requests)) == (0, 1)


@pytest.mark.parametrize(
    "rule",
    [
        'match = { methods = ["PUT"] }',
        'match = { headers = { "X-Beta" = "1" } }',
        'match = { query = { a = "1" } }',
        'match = { cookies = { staff = "1" } }',
        'match = { clients = ["10.0.0.0/8"] }',
        'match = { scheme = "https" }',
        'path_regex = "^/v[0-9]+/"',
    ],
)
async def test_without_what_is_asked_the_usual_route_serves(
    rule: str, origins: StartOrigins, edge: StartEdge, connect: Connect
) -> None:
    usual, chosen = await origins(), await origins()
    client = await connect((await edge(edge_toml(usual.port) + more(rule, chosen.port))).port)
    assert (await client.ask("/vx/?b=1&aa=1", "X-Beta: 2", "Cookie: staff=2; xstaff=1")).status == 200
    assert (len(usual.requests), len(chosen.requests)) == (1, 0)


async def test_what_is_stored_for_a_condition_is_kept_apart(
    origins: StartOrigins, edge: StartEdge, connect: Connect
) -> None:
    usual, beta = await origins(), await origins()
    usual.default, beta.default = (FRESH,), (FRESH.replace(b"ok", b"be"),)
    rule = 'name = "beta"\nmatch = { headers = { "X-Beta" = "1" } }'
    gateway = await edge(edge_toml(usual.port, route="cache = true") + more(rule, beta.port))
    client = await connect(gateway.port)
    for _ in range(2):
        assert (await client.ask("/x")).body.content == b"ok"
        assert (await client.ask("/x", "X-Beta: 1")).body.content == b"be"
    assert (len(usual.requests), len(beta.requests)) == (1, 1)


async def test_without_any_route_that_fits_it_is_404(origin: ScriptedOrigin, edge: StartEdge, connect: Connect) -> None:
    text = edge_toml(origin.port, route='match = { methods = ["PUT"] }')
    client = await connect((await edge(text)).port)
    assert (await client.ask("/x")).status == 404


# -- headers -----------------------------------------------------------------------------------------------------------

REQUEST = """cache = false
request_headers = { set = { "X-Client" = "{client}", "User-Agent" = "edge", "X-Real-IP" = "{header:X-Me}" }, add = \
{ "X-Path" = "{path}?{query} {method} {scheme} {host} {authority}" }, remove = ["X-Debug", "X-Forwarded-Host"] }"""


async def test_a_backend_gets_what_the_rules_say(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy(route=REQUEST)
    await client.ask("/a%20b?c=d", "User-Agent: x", "x-debug: 1", "X-Debug: 2", "X-Me: 192.0.2.1", host="A.example:81")
    found = origin.requests[0]
    assert [found.get(name) for name in (b"x-client", b"user-agent", b"x-real-ip", b"x-path", b"x-debug")] == [
        *(LOOPBACK.encode(), b"edge", b"192.0.2.1", b"/a%20b?c=d GET http a.example a.example:81", None),
    ]
    assert found.get(b"x-forwarded-host") is None and found.get(b"x-forwarded-for") == LOOPBACK.encode()
    names = [name.lower() for name, _ in found.fields]
    assert [names.count(name) for name in (b"user-agent", b"x-real-ip", b"host")] == [1, 1, 1]


async def test_the_host_is_set_and_stays_one(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy(route='cache = false\nrequest_headers = { set = { Host = "o.example" } }')
    await client.ask("/")
    assert [value for name, value in origin.requests[0].fields if name.lower() == b"host"] == [b"o.example"]


ANSWERS = """response_headers = { set = { "X-Host" = "{host}", "Cache-Status" = "mine" }, \
add = { "X-More" = "1" }, remove = ["Server"] }"""


@pytest.mark.parametrize("cache", ["cache = true", "cache = false"])
async def test_a_client_gets_what_the_rules_say_and_the_store_keeps_what_came(
    cache: str, origin: ScriptedOrigin, edge: StartEdge, connect: Connect
) -> None:
    origin.default = (FRESH.replace(b"Server: org", b"Server: org\r\nX-Host: origin\r\nX-More: 0"),)
    plain = more('host = "b.example"\npool = "origin"')
    client = await connect((await edge(edge_toml(origin.port, route=f"{cache}\n{ANSWERS}") + plain)).port)
    for condition in (
        (),
        (),
        ("If-None-Match: x",),
        ("Range: bytes=0-0",),
        ("If-Modified-Since: Fri, 27 Nov 2026 09:00:00 GMT",),
    ):
        found = await client.ask("/x", *condition)
        assert (found.get(b"x-host"), found.get(b"cache-status"), found.get(b"server")) == (b"a.example", b"mine", None)
        more_of = [value for name, value in found.fields if name.lower() == b"x-more"]
        assert more_of == ([b"1"] if found.status == 304 else [b"0", b"1"])
    assert len(origin.requests) == (1 if cache == "cache = true" else 5)
    other = await client.ask("/x", host="b.example")
    assert (other.get(b"x-host"), other.get(b"server")) == (b"origin", b"org")


async def test_the_gateways_own_errors_get_them_too(edge: StartEdge, connect: Connect) -> None:
    text = edge_toml(1, route=f'cache = false\nretry = {{ same_backend = "0s" }}\n{ANSWERS}')
    client = await connect((await edge(text)).port)
    found = await client.ask("/x")
    assert (found.status // 100, found.get(b"x-host")) == (5, b"a.example")


# -- targets -----------------------------------------------------------------------------------------------------------


async def test_a_prefix_and_a_path_give_way(origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (FRESH,)
    gateway, client = await proxy(route='strip_prefix = "/api"\nrewrite = { match = "^/old/(.*)$", to = "/new/$1" }')
    for target in ("/api/old/x?a=1", "/api/y", "/old/z"):
        for _ in range(2):
            assert (await client.ask(target)).body.content == b"ok"
    assert origin.targets() == [b"/new/x?a=1", b"/y", b"/new/z"], "one fetch each, keyed by what the client asked for"
    assert (await gateway.log(1))[0]["target"] == "/api/old/x?a=1"
    assert (await client.ask("/api/a/../b")).status == 400


async def test_two_routes_of_one_host_never_share_by_their_rewritten_path(
    origins: StartOrigins, edge: StartEdge, connect: Connect
) -> None:
    site, api = await origins(), await origins()
    site.default, api.default = (FRESH,), (FRESH.replace(b"ok", b"ap"),)
    rule = 'path = "/api"\nstrip_prefix = "/api"'
    client = await connect((await edge(edge_toml(site.port, route="") + more(rule, api.port))).port)
    for _ in range(2):
        assert ((await client.ask("/x")).body.content, (await client.ask("/api/x")).body.content) == (b"ok", b"ap")


# -- answers of the route's own ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_a_redirect(method: str, origin: ScriptedOrigin, edge: StartEdge, connect: Connect) -> None:
    rule = 'path = "/r"\nredirect = { to = "https://{host}{uri}", status = 308 }'
    client = await connect((await edge(edge_toml(origin.port) + more(rule))).port)
    for _ in range(2):
        found = await client.ask("/r/a?b=c", method=method, host="a.example:8080")
        assert (found.status, found.get(b"location")) == (308, b"https://a.example/r/a?b=c")
        assert found.get(b"content-length") == b"0" and found.get(b"cache-status") is None
    assert not origin.requests


async def test_a_redirect_to_where_the_client_is_goes_on(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy(route='cache = false\nredirect = { to = "http://a.example{uri}" }')
    assert (await client.ask("/x", host="www.a.example")).status == 302
    assert (await client.ask("/x")).status == 200


@pytest.mark.parametrize("target", ["//evil.example/", "/\\evil.example", "///evil.example", "//evil.example/%2f.."])
async def test_a_redirect_stays_on_its_host(
    target: str, origin: ScriptedOrigin, edge: StartEdge, connect: Connect
) -> None:
    text = edge_toml(origin.port, route='encoded_slashes = true\nredirect = { to = "{path}/" }')
    client = await connect((await edge(text)).port)
    location = (await client.ask(target)).get(b"location") or b""
    assert location[:1] == b"/" and location[1:2] not in (b"/", b"\\")


async def test_a_fixed_answer_and_its_exception(origin: ScriptedOrigin, edge: StartEdge, connect: Connect) -> None:
    text = edge_toml(origin.port, route='cache = false\nmatch = { cookies = { staff = "1" } }')
    text += more('respond = { status = 503, body = "back soon", headers = { "Retry-After" = "60" } }')
    client = await connect((await edge(text)).port)
    found = await client.ask("/x")
    assert (found.status, found.body.content, found.get(b"retry-after")) == (503, b"back soon", b"60")
    assert (found.get(b"content-type"), found.get(b"cache-status")) == (b"text/plain; charset=utf-8", None)
    assert (await client.ask("/x", method="HEAD")).get(b"content-length") == b"9"
    assert (await client.ask("/x", "Cookie: staff=1")).status == 200


async def test_an_answer_before_the_body_came_ends_the_connection(
    edge: StartEdge, connect: Connect, origin: ScriptedOrigin
) -> None:
    text = edge_toml(origin.port) + more('path = "/r"\nrespond = { status = 204 }')
    client = await connect((await edge(text)).port)
    await client.send(b"POST /r HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
    found = await client.read_response(b"POST")
    assert found is not None and (found.status, found.get(b"connection")) == (204, b"close")
    assert found.get(b"content-length") is None
    assert await client.ended()
    assert not origin.requests


# -- access and limits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "client_ip", "status"),
    [
        ('allow = ["10.0.0.0/8"]', "10.1.2.3", 200),
        ('allow = ["10.0.0.0/8"]', "192.0.2.1", 403),
        ('deny = ["10.0.0.0/8"]', "10.1.2.3", 403),
        ('deny = ["10.0.0.0/8"]', "192.0.2.1", 200),
        ('allow = ["10.0.0.0/8"]\ndeny = ["10.9.0.0/16"]', "10.9.1.1", 403),
        ('allow = ["2001:db8::/32"]', "2001:db8::1", 200),
        ('deny = ["10.0.0.0/8"]', "::ffff:10.1.2.3", 403),
        ('allow = ["10.0.0.0/8"]', "unknown", 403),
    ],
)
async def test_addresses(rule: str, client_ip: str, status: int, origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (FRESH,)
    _, client = await proxy(listen=TRUSTING, route=rule)
    for _ in range(2):
        found = await client.ask("/x", f"X-Forwarded-For: {client_ip}")
        assert found.status == status
    assert len(origin.requests) == (status == 200)


async def test_a_denied_client_does_not_get_what_is_stored(origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (FRESH,)
    _, client = await proxy(listen=TRUSTING, route='deny = ["10.0.0.0/8"]')
    assert (await client.ask("/x")).status == 200
    for lines in ((), ("X-Forwarded-For: 10.0.0.1",)):
        assert (await client.ask("/x", *lines)).status == (403 if lines else 200)


async def test_a_rate_is_held_and_told(origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (FRESH,)
    gateway, client = await proxy(listen=TRUSTING, route='rate_limit = { rate = "2/h" }')
    for left in (1, 0):
        found = await client.ask("/x")
        assert (found.status, found.get(b"ratelimit-policy")) == (200, b'"default";q=2;w=3600')
        assert (found.get(b"ratelimit") or b"").startswith(b'"default";r=%d;t=' % left)
    for _ in range(2):
        found = await client.ask("/x")
        assert found.status == 429 and 1700 < int(found.get(b"retry-after") or 0) <= 1800
        assert (found.get(b"ratelimit") or b"").startswith(b'"default";r=0;t=')
    assert (await client.ask("/x", "X-Forwarded-For: 192.0.2.7")).status == 200, "another client"
    assert [line["reason"] for line in await gateway.log(5)][2:4] == ["rate-limit"] * 2


@pytest.mark.parametrize(
    ("by", "one", "other"),
    [
        ("client", "X-Forwarded-For: 2001:db8::1", "X-Forwarded-For: 2001:db8:0:1::1"),
        ("header:X-Key", "X-Key: a", "X-Key: b"),
        ("cookie:k", "Cookie: k=a", "Cookie: k=b"),
        ("header:X-Key", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.2"),
    ],
)
async def test_what_is_counted_by(by: str, one: str, other: str, origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy(listen=TRUSTING, route=f'cache = false\nrate_limit = {{ rate = "1/h", by = "{by}" }}')
    assert [(await client.ask("/", line)).status for line in (one, one, other)] == [200, 429, 200]


async def test_by_route_all_are_one(origin: ScriptedOrigin, proxy: Proxy) -> None:
    _, client = await proxy(listen=TRUSTING, route='cache = false\nrate_limit = { rate = "1/h", by = "route" }')
    lines = ("X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.2")
    assert [(await client.ask("/", line)).status for line in lines] == [200, 429]


@pytest.mark.parametrize(("rule", "status"), [("per_client = 1", 429), ("total = 1", 503)])
async def test_requests_at_once(
    rule: str, status: int, origin: ScriptedOrigin, edge: StartEdge, connect: Connect
) -> None:
    origin.enqueue(Step.SILENCE)
    gateway = await edge(edge_toml(origin.port, route=f"cache = false\nconcurrency = {{ {rule} }}"))
    slow, client = await connect(gateway.port), await connect(gateway.port)
    await slow.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: gateway.in_flight == 1)
    found = await client.ask("/")
    assert (found.status, found.get(b"retry-after")) == (status, b"1")
    await slow.close()
    await until(lambda: gateway.in_flight == 0)
    assert (await client.ask("/")).status == 200


async def test_an_origin_may_vary_by_what_a_rule_fills_in(origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (FRESH.replace(b"Server: org", b"Vary: X-Plan"),)
    rule = 'request_headers = { set = { "X-Plan" = "{cookie:plan}" } }'
    _, client = await proxy(route=rule)
    for _ in range(2):
        for plan in ("free", "paid"):
            await client.ask("/x", f"Cookie: plan={plan}", "X-Plan: mine")
    assert [request.get(b"x-plan") for request in origin.requests] == [b"free", b"paid"]


async def test_credentials_that_a_rule_fills_in_are_credentials(origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (FRESH,)
    _, client = await proxy(route='request_headers = { set = { "Authorization" = "Bearer {cookie:token}" } }')
    for token in ("a", "b"):
        await client.ask("/x", f"Cookie: token={token}")
    assert [request.get(b"authorization") for request in origin.requests] == [b"Bearer a", b"Bearer b"]


@pytest.mark.parametrize(
    "condition", ["Range: bytes=0-0", "Range: bytes=9-", 'If-Match: "b"', 'If-None-Match: "a"', "X: y"]
)
async def test_what_is_removed_is_in_no_kind_of_answer(condition: str, origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (FRESH.replace(b"Server: org", b'ETag: "a"\r\nServer: org\r\nX-Inner: 1'),)
    _, client = await proxy(route='response_headers = { remove = ["Server", "X-Inner", "Cache-Control"] }')
    for _ in range(2):
        found = await client.ask("/x", condition)
        assert not {name.lower() for name, _ in found.fields} & {b"server", b"x-inner", b"cache-control"}


PLACES = [
    ('strip_prefix = "/api"', "Location: /login?a=/x", "/api/login?a=/x"),
    ('strip_prefix = "/api"', "location:/api/login", "/api/login"),
    ('strip_prefix = "/api"', "Location: //elsewhere/x", "//elsewhere/x"),
    ('strip_prefix = "/api"', "Location: http://a.example/login", "http://a.example/api/login"),
    ('strip_prefix = "/api"', "Location: http://b.example/login", "http://b.example/login"),
    ('strip_prefix = "/api"', "Location: login", "login"),
    ('strip_prefix = "/api"\nmap_back = false', "Location: /login", "/login"),
    ("preserve_host = false", "Location: http://127.0.0.1:@PORT@/x", "http://a.example/x"),
    ("preserve_host = false", "Location: http://127.0.0.1:@PORT@", "http://a.example/"),
    ('request_headers = { set = { Host = "o.example" } }', "Location: https://O.example/x?y", "http://a.example/x?y"),
    ("preserve_host = true", "Location: http://127.0.0.1:@PORT@/x", "http://127.0.0.1:@PORT@/x"),
]


@pytest.mark.parametrize(("rule", "line", "wanted"), PLACES)
@pytest.mark.parametrize("cache", ["cache = false", 'cache = { override_ttl = "60s" }'])
async def test_what_an_origin_says_of_its_places_is_mapped_back(
    rule: str, line: str, wanted: str, cache: str, origin: ScriptedOrigin, proxy: Proxy
) -> None:
    own, wanted = (text.replace("@PORT@", str(origin.port)) for text in (line, wanted))
    origin.default = (f"HTTP/1.1 301 Moved\r\n{own}\r\nContent-Length: 0\r\n\r\n".encode(),)
    _, client = await proxy(route=f"{cache}\n{rule}")
    for _ in range(2):
        assert (await client.ask("/api/x")).get(b"location") == wanted.encode()


async def test_cookies_follow_a_prefix(origin: ScriptedOrigin, proxy: Proxy) -> None:
    cookies = b"Set-Cookie: a=/b; Path=/; HttpOnly\r\nSet-Cookie: c=d; path=/x; Domain=127.0.0.1\r\nSet-Cookie: e=f"
    origin.default = (FRESH.replace(b"Server: org", cookies),)
    _, client = await proxy(route='cache = false\npreserve_host = false\nstrip_prefix = "/api"')
    found = await client.ask("/api/x")
    assert [value for name, value in found.fields if name == b"Set-Cookie"] == [
        *(b"a=/b; Path=/api/; HttpOnly", b"c=d; path=/api/x", b"e=f"),
    ]


@pytest.mark.parametrize(("given", "wanted"), [("b.example", b"b.example"), ("a b", b"a.example"), ("", b"a.example")])
async def test_a_host_that_is_filled_in_is_a_host(
    given: str, wanted: bytes, origin: ScriptedOrigin, proxy: Proxy
) -> None:
    _, client = await proxy(route='cache = false\nrequest_headers = { set = { Host = "{header:X-To}" } }')
    await client.ask("/", f"X-To: {given}")
    assert [value for name, value in origin.requests[0].fields if name.lower() == b"host"] == [wanted]


async def test_a_hit_with_fixed_lines_is_as_quick_and_as_right_as_any(origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (FRESH.replace(b"Server: org", b"Server: org\r\nX-More: 0"),)
    rule = 'response_headers = { set = { X-Set = "1" }, add = { X-More = "2" }, remove = ["Server"] }'
    gateway, client = await proxy(route=rule)
    timer = gateway.worker._timer
    assert timer is not None
    await gateway.on_loop(timer.cancel)  # a tick would put the quick hits where all others are counted
    seen = []
    for quick in (True, True, False, True):
        await gateway.on_loop(lambda quick=quick: setattr(gateway.worker, "quick", quick))
        found = await client.ask("/x")
        seen.append([line for line in found.fields if line[0] not in (b"Date", b"Age", b"Cache-Status")])
        assert found.body.content == b"ok"
    assert seen[1] == seen[2] == seen[3] and sorted(seen[0]) == sorted(seen[1])
    assert (b"X-Set", b"1") in seen[1] and not any(name == b"Server" for name, _ in seen[1])
    assert [value for name, value in seen[1] if name == b"X-More"] == [b"0", b"2"]
    await gateway.turned()
    assert len(origin.requests) == 1 and gateway.worker.router.routes[0].meter.hits_by == [0, 2, 0, 0, 0, 0, 0, 0, 0]

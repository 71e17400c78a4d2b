"""`split`, `mirror`, `affinity` and `error_pages` through a running worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from inprocess import Connect, Gateway, Proxy, StartEdge, StartOrigins, edge_toml
from kit.client import RawClient, Response
from kit.http2 import Http2Client, request_head
from kit.origin import OK, Pause, ScriptedOrigin, Step
from kit.ports import LOOPBACK
from kit.processes import patient
from kit.waiting import until

from edge.dataplane.rules.mirror import Mirror
from edge.dataplane.worker.explain import explain

FRESH = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok"


async def ask(client: RawClient, target: str = "/x", *lines: str, method: str = "GET", body: bytes = b"") -> Response:
    return await client.ask(target, *lines, method=method, body=body)


def pool(name: str, port: int) -> str:
    lines = patient("ejection = false")
    return f'\n[pools.{name}]\n{lines}\nbackends = [{{ url = "http://{LOOPBACK}:{port}" }}]\n'


def cookie_of(response: Response) -> str | None:
    found = response.get(b"set-cookie")
    return None if found is None else found.partition(b";")[0].decode()


# -- split -------------------------------------------------------------------------------------------------------------


async def split(
    sticky: str, origins: StartOrigins, edge: StartEdge, more: str = "cache = false"
) -> tuple[Gateway, ScriptedOrigin, ScriptedOrigin]:
    main, canary = await origins(), await origins()
    main.default, canary.default = (FRESH,), (FRESH.replace(b"ok", b"ca"),)
    rule = (
        f'split = [{{ pool = "canary", weight = 5 }}, {{ pool = "origin", weight = 95 }}]\nsticky = "{sticky}"\n{more}'
    )
    return await edge(edge_toml(main.port, route=rule) + pool("canary", canary.port)), main, canary


async def test_shares_are_kept_closely(origins: StartOrigins, edge: StartEdge, raw_client: Connect) -> None:
    gateway, main, canary = await split("none", origins, edge)
    client = await raw_client(gateway.port)
    for _ in range(200):
        assert cookie_of(await ask(client)) is None
    assert abs(len(canary.requests) - 10) <= 1 and len(main.requests) + len(canary.requests) == 200


async def test_a_client_comes_back_by_its_cookie(origins: StartOrigins, edge: StartEdge, raw_client: Connect) -> None:
    gateway, main, canary = await split("cookie:c", origins, edge)
    client = await raw_client(gateway.port)
    for _ in range(60):
        first = await ask(client)
        cookie = cookie_of(first)
        assert cookie == ("c=canary" if first.body.content == b"ca" else "c=origin")
        again = await ask(client, "/x", f"Cookie: {cookie}")
        assert (again.body.content, cookie_of(again)) == (first.body.content, None)
    assert cookie_of(await ask(client, "/x", "Cookie: c=unknown")) in ("c=canary", "c=origin")
    assert canary.requests and main.requests


async def test_a_client_comes_back_by_its_address(origins: StartOrigins, edge: StartEdge, raw_client: Connect) -> None:
    gateway, main, canary = await split("client", origins, edge)
    client = await raw_client(gateway.port)
    for _ in range(40):
        await ask(client)
    assert 0 in (len(main.requests), len(canary.requests))


async def test_what_pools_answer_is_stored_apart(origins: StartOrigins, edge: StartEdge, raw_client: Connect) -> None:
    gateway, main, canary = await split("cookie:c", origins, edge, "cache = true")
    client = await raw_client(gateway.port)
    for _ in range(3):
        for name, body in (("canary", b"ca"), ("origin", b"ok")):
            assert (await ask(client, "/x", f"Cookie: c={name}")).body.content == body
    assert (len(main.requests), len(canary.requests)) == (1, 1)
    found = await ask(client, "/x")
    assert cookie_of(found) is not None and b"hit" in (found.get(b"cache-status") or b"")


# -- mirror ------------------------------------------------------------------------------------------------------------


async def mirrored(
    share: str, origins: StartOrigins, edge: StartEdge, more: str = "cache = false"
) -> tuple[Gateway, ScriptedOrigin, ScriptedOrigin]:
    main, shadow = await origins(), await origins()
    rule = f'mirror = {{ pool = "shadow", share = "{share}" }}\n{more}'
    return await edge(edge_toml(main.port, route=rule) + pool("shadow", shadow.port)), main, shadow


async def test_a_shadow_gets_the_same_requests(origins: StartOrigins, edge: StartEdge, raw_client: Connect) -> None:
    more = 'cache = false\nstrip_prefix = "/api"\nrequest_headers = { set = { X-Who = "{client}" } }'
    gateway, main, shadow = await mirrored("100%", origins, edge, more)
    shadow.default = (b"HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nbad",)
    client = await raw_client(gateway.port)
    assert (await ask(client, "/api/x?a=1", "Cookie: a=b")).status == 200
    await shadow.wait_for("requests", 1)
    one, copy = main.requests[0], shadow.requests[0]
    assert copy.target == one.target == b"/x?a=1"
    ids = (b"x-request-id", b"traceparent")
    assert [f for f in copy.fields if f[0].lower() not in ids] == [f for f in one.fields if f[0].lower() not in ids]
    await until(lambda: gateway.in_flight == 0)
    assert gateway.requests == 1, "nobody's requests are not counted"


async def test_what_asks_for_another_protocol_has_no_copy(
    origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    switched = b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    gateway, main, shadow = await mirrored("100%", origins, edge)
    main.default, shadow.default = (switched, b"hello", Step.CLOSE), (switched, b"nobody's")
    client = await raw_client(gateway.port)
    lines = "Host: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    await client.send(f"GET /ws HTTP/1.1\r\n{lines}\r\n".encode())
    answer = await client.read_head()
    assert answer is not None and answer.status == 101
    await until(lambda: gateway.in_flight == 0)
    assert gateway.worker.bugs == 0
    assert not shadow.requests


async def test_a_share_of_them(origins: StartOrigins, edge: StartEdge, raw_client: Connect) -> None:
    gateway, _, shadow = await mirrored("25%", origins, edge)
    client = await raw_client(gateway.port)
    for _ in range(80):
        await ask(client)
    await until(lambda: gateway.in_flight == 0)
    assert abs(len(shadow.requests) - 20) <= 1


@pytest.mark.parametrize("broken", [(Step.RESET,), (Step.SILENCE,), (b"HTTP/1.1 200 OK\r\nBad\r\n\r\n",)])
async def test_no_client_notices(broken: Any, origins: StartOrigins, edge: StartEdge, raw_client: Connect) -> None:
    gateway, main, shadow = await mirrored("100%", origins, edge)
    shadow.default = broken
    client = await raw_client(gateway.port)
    for _ in range(120):
        assert (await ask(client)).status == 200
    assert (await ask(client, method="POST", body=b"abc")).status == 200
    assert len(main.requests) == 121 and len(shadow.requests) <= 121
    mirror = gateway.worker.router.routes[0].steps[0]
    assert mirror._running <= 100  # type: ignore[attr-defined]
    await shadow.stop()
    await until(lambda: gateway.in_flight == 0)


BODY = bytes(range(256)) * 400  # more than an upload keeps for a second attempt


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\nX-Sum: 1\r\n\r\n" % (len(body), body)


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [1, 1000, len(BODY)])
async def test_a_body_is_copied_whole(
    framing: str, size: int, origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    gateway, main, shadow = await mirrored('100%", max_body = "100KiB', origins, edge)
    body, client = BODY[:size], await raw_client(gateway.port)
    lines = "Transfer-Encoding: chunked" if framing == "chunked" else f"Content-Length: {size}"
    head, wire = f"PUT /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n", chunked(body) if framing == "chunked" else body
    for piece in (head.encode() + wire[: size // 2], wire[size // 2 :]):
        await client.send(piece)
        await main.wait_for("heads", 1)
    assert (await client.read_response(b"PUT")) is not None
    await shadow.wait_for("requests", 1)
    for got in (main.requests[0], shadow.requests[0]):
        assert got.method == b"PUT" and got.body is not None and got.body.content == body
    assert shadow.requests[0].get(b"content-length") == b"%d" % size
    assert shadow.requests[0].get(b"transfer-encoding") is None


async def test_a_stream_of_http2_is_copied(origin: ScriptedOrigin, origins: StartOrigins, edge: StartEdge) -> None:
    shadow = await origins()
    rule = 'cache = false\nmirror = { pool = "shadow" }'
    listen = f'http = ["{LOOPBACK}:0"]\nh2c = true'
    gateway = await edge(edge_toml(origin.port, listen=listen, route=rule) + pool("shadow", shadow.port))
    client = await Http2Client.connect(gateway.port)
    stream = client.ask(request_head(b"/x", method=b"POST"), ends=False)
    await client.upload_all(stream, BODY[:5000])
    assert (await client.answer(stream)).status == 200
    await shadow.wait_for("requests", 1)
    copy = shadow.requests[0].body
    assert copy is not None and copy.content == BODY[:5000]
    await client.close()


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_what_is_too_large_has_no_copy_and_is_not_kept(
    framing: str, origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    gateway, main, shadow = await mirrored('100%", max_body = "50KiB', origins, edge)
    client = await raw_client(gateway.port)
    lines = "Transfer-Encoding: chunked" if framing == "chunked" else f"Content-Length: {len(BODY)}"
    await client.send(f"POST /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n".encode())
    await client.send(chunked(BODY) if framing == "chunked" else BODY)
    assert (await client.read_response(b"POST")) is not None
    got = main.requests[0].body
    assert got is not None and got.content == BODY
    mirror = gateway.worker.router.routes[0].steps[0]
    assert isinstance(mirror, Mirror) and (mirror.sent, mirror.skipped, mirror._running) == (0, 1, 0)
    assert not shadow.requests


async def test_a_client_that_leaves_in_its_body_leaves_no_copy(
    origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    gateway, main, shadow = await mirrored("100%", origins, edge)
    mirror = gateway.worker.router.routes[0].steps[0]
    assert isinstance(mirror, Mirror)
    client = await raw_client(gateway.port)
    await client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
    await main.wait_for("heads", 1)
    assert mirror._running == 1
    client.reset()
    await until(lambda: mirror._running == 0 and mirror.skipped == 1)
    assert not shadow.requests


async def test_a_shadow_that_does_not_read_holds_nobody(
    origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    gateway, main, shadow = await mirrored('100%", max_body = "8MiB', origins, edge)
    shadow.default = (Step.SILENCE, Step.BODY)
    body, client = b"x" * (6 << 20), await raw_client(gateway.port)
    for _ in range(3):
        assert (await ask(client, method="POST", body=body)).status == 200
    assert [len(each.body.content) for each in main.requests if each.body is not None] == [len(body)] * 3
    await shadow.stop()
    await until(lambda: gateway.in_flight == 0)


# -- affinity ----------------------------------------------------------------------------------------------------------


async def test_a_client_comes_back_to_its_backend_while_that_is_there(
    origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    servers = [await origins() for _ in range(3)]
    for number, server in enumerate(servers):
        server.default = (OK.replace(b"ok", b"%d!" % number),)
    rule = 'cache = false\naffinity = { cookie = "b" }\nretry = { same_backend = "0s" }'
    gateway = await edge(edge_toml(*(each.port for each in servers), route=rule))
    client = await raw_client(gateway.port)
    homes: dict[bytes, str] = {}
    for _ in range(6):
        found = await ask(client)
        cookie = cookie_of(found)
        assert cookie is not None and str(servers[0].port) not in cookie
        homes.setdefault(found.body.content, cookie)
        assert homes[found.body.content] == cookie
    assert len(homes) == 3
    for body, cookie in homes.items():
        for _ in range(4):
            again = await ask(client, "/x", f"Cookie: {cookie}")
            assert (again.body.content, cookie_of(again)) == (body, None)
    assert cookie_of(await ask(client, "/x", "Cookie: b=forged")) is not None
    await servers[0].stop()
    moved = await ask(client, "/x", f"Cookie: {homes[b'0!']}")
    assert moved.status == 200 and moved.body.content != b"0!" and cookie_of(moved) in homes.values()
    assert (await ask(client, "/x", f"Cookie: {homes[b'1!']}")).body.content == b"1!"


# -- error pages -------------------------------------------------------------------------------------------------------


@pytest.fixture
def pages(tmp_path: Path) -> str:
    (tmp_path / "sorry.html").write_text("<h1>sorry</h1>")
    (tmp_path / "none.txt").write_text("")
    return f'error_pages = {{ "502-504" = "{tmp_path}/sorry.html", "404" = "{tmp_path}/none.txt" }}'


BROKEN = (
    b'HTTP/1.1 502 Bad\r\nETag: "a"\r\nSet-Cookie: a=b\r\nContent-Type: application/json\r\n'
    b"Content-Length: 3000\r\n\r\n"
)


@pytest.mark.parametrize("route", ["cache = false", "cache = true", "compress = true"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_page_in_place_of_an_error(
    route: str, method: str, pages: str, origin: ScriptedOrigin, proxy: Proxy
) -> None:
    origin.default = (BROKEN, *([b"x" * 1000, Pause("rest"), b"x" * 2000] if method == "GET" else []))
    gateway, client = await proxy(route=f"{route}\n{pages}\nretry = {{ attempts = 0, statuses = [503] }}")
    for _ in range(2):
        text = f"{method} /x HTTP/1.1\r\nHost: a\r\n\r\n"
        await client.send(text.encode())
        if method == "GET":
            origin.release("rest")
        found = await client.read_response(method.encode())
        assert found is not None
        assert (found.status, found.get(b"content-type")) == (502, b"text/html; charset=utf-8")
        assert (found.get(b"content-length"), found.get(b"etag")) == (b"14", None)
        assert found.get(b"set-cookie") == b"a=b"
        assert found.body.content == (b"<h1>sorry</h1>" if method == "GET" else b"")
        await until(lambda: any(link.idle for link in gateway.worker.pools["origin"].links.values()))
    assert {request.connection for request in origin.requests} == {1}, "read to its end, so that it can be used again"


async def test_the_gateways_own_errors_have_the_page(pages: str, edge: StartEdge, raw_client: Connect) -> None:
    text = edge_toml(1, route=f'cache = false\nretry = {{ same_backend = "0s" }}\n{pages}')
    client = await raw_client((await edge(text)).port)
    found = await ask(client)
    assert (found.status, found.body.content) == (502, b"<h1>sorry</h1>")
    assert found.get(b"proxy-status") is not None


async def test_a_stored_error_has_the_page(pages: str, origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (FRESH.replace(b"200 OK", b"404 No"),)
    _, client = await proxy(route=pages)
    for _ in range(3):
        found = await ask(client)
        assert (found.status, found.body.content, found.get(b"content-type")) == (
            404,
            b"",
            b"text/plain; charset=utf-8",
        )
    assert len(origin.requests) == 1


async def test_a_page_that_cannot_be_read_is_one_warning(origin: ScriptedOrigin, proxy: Proxy) -> None:
    origin.default = (FRESH.replace(b"200 OK", b"404 No"),)
    gateway, client = await proxy(route='cache = false\nerror_pages = { "404" = "absent.html" }')
    assert (await ask(client)).body.content == b"ok"
    assert gateway.worker.store is not None
    assert [event["kind"] for event in gateway.worker.store.take_events()] == ["rules.warning"]


async def test_explain_shows_each_rule_and_the_pool_of_who_comes_back(
    origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    more = (
        'cache = true\ndeny = ["10.0.0.0/8"]\nrate_limit = { rate = "5/s" }\nstrip_prefix = "/api"\n'
        'request_headers = { set = { X-Who = "{client}" } }\nresponse_headers = { remove = ["Server"] }\n'
        "compress = true"
    )
    gateway, _, _ = await split("cookie:c", origins, edge, more)
    client = await raw_client(gateway.port)
    await ask(client, "/api/x", "Cookie: c=canary")
    body = {
        "url": "http://a.example/api/x",
        "client": "192.0.2.1",
        "headers": [["Cookie", "c=canary"], ["Accept-Encoding", "gzip"]],
    }
    found = await gateway.on_loop(lambda: explain(gateway.worker, body))
    assert {row["rule"]: row["does"] for row in found["rules"]} == {
        "access": "192.0.2.1 may pass",
        "rate_limit": "5/s, burst 5, by client: 5 left",
        "split": "canary, by cookie",
        "strip_prefix, rewrite": "asks for /x",
        "request_headers": "remove x-who; X-Who: 192.0.2.1",
        "compress": "gzip for this Accept-Encoding, of zstd, br, gzip",
        "response_headers": "remove server",
    }
    assert (found["route"]["pool"], found["cache"]["verdict"]) == ("canary", "hit")
    denied = await gateway.on_loop(lambda: explain(gateway.worker, {**body, "client": "10.0.0.1"}))
    assert denied["rules"][0] == {"rule": "access", "does": "10.0.0.1 is refused (403)"}


async def test_a_purge_of_a_url_takes_what_is_kept_apart_too(
    origins: StartOrigins, edge: StartEdge, raw_client: Connect
) -> None:
    gateway, main, canary = await split(
        "cookie:c", origins, edge, "cache = true\npurge_methods = true\ncompress = true"
    )
    client = await raw_client(gateway.port)
    for _ in range(2):
        for name in ("canary", "origin"):
            assert (await ask(client, "/x", f"Cookie: c={name}", "Accept-Encoding: gzip")).status == 200
        assert (await ask(client, "/x", method="PURGE")).body.content == b"purged 2\n"
    assert (len(main.requests), len(canary.requests)) == (2, 2)

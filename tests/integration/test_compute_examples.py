"""The examples of docs/compute, each run from its own files: only ports are other ones."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from inprocess import Gateway, StartEdge
from kit.waiting import WAIT_S, until

from edge.config.loader import load_text

DOCS = Path(__file__).parents[2] / "docs" / "compute"
EXAMPLES = sorted(path.stem for path in DOCS.glob("*.py"))
Serve = Callable[..., Awaitable[int]]
Example = Callable[..., Awaitable[Gateway]]


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    """`await serve(handler)`: the port of an origin that answers everything with it."""
    runners: list[web.AppRunner] = []

    async def start(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> int:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return int(runner.addresses[0][1])

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest_asyncio.fixture
async def example(edge: StartEdge, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Example]:
    """`await example("chat", 9001=port)`: a gateway that runs this example's own file."""
    monkeypatch.setenv("SIGNING_KEY", "a key of the tests")
    before = set(sys.modules)

    async def start(name: str, **ports: int) -> Gateway:
        text = (DOCS / f"{name}.toml").read_text().replace("127.0.0.1:8080", "127.0.0.1:0")
        text = text.replace('"../../', f'"{DOCS.parents[1]}/')
        for place, port in ports.items():
            text = text.replace(f"127.0.0.1:{place.removeprefix('p')}", f"127.0.0.1:{port}")
        return await edge(f'log.access = "@LOG@"\npython_path = ["{DOCS}"]\n{text}')

    yield start
    for name in set(sys.modules) - before:
        if name in EXAMPLES:
            del sys.modules[name]  # an application runs once


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as found:
        yield found


def url(gateway: Gateway, path: str) -> str:
    return f"http://127.0.0.1:{gateway.port}{path}"


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_has_a_configuration_that_loads(name: str) -> None:
    config = load_text((DOCS / f"{name}.toml").read_text(), f"{name}.toml")
    apps = [each.app for pool in config.pools.values() for each in pool.backends]
    assert f"{name}:app" in apps or f"{name}:Hooks" in config.routes[0].hooks
    assert re.search(rf"\b{name}\b", (DOCS / "README.md").read_text())


async def test_ab_test(example: Example, serve: Serve, session: aiohttp.ClientSession) -> None:
    async def variant(request: web.Request) -> web.Response:
        return web.Response(text=request.host, headers={"Cache-Control": "max-age=60"})

    port = await serve(variant)
    gateway = await example("ab_test", p9001=port, p9002=port)
    first = None
    for _ in range(5):
        async with session.get(url(gateway, "/")) as answer:
            text = await answer.text()
            assert answer.headers["Cache-Control"] == "private, no-store"
            assert ("Set-Cookie" in answer.headers) == (first is None)
            first = first or text
            assert text == first
    assert first in ("a.internal", "b.internal")
    shares: Counter[str] = Counter()
    for _ in range(60):
        async with aiohttp.request("GET", url(gateway, "/")) as answer:
            shares[await answer.text()] += 1
    assert shares["a.internal"] > shares["b.internal"]
    async with aiohttp.request("GET", url(gateway, "/"), cookies={"variant": "c.internal"}) as answer:
        assert answer.headers["Set-Cookie"].startswith("variant=")


async def test_placeholder(example: Example, session: aiohttp.ClientSession) -> None:
    gateway = await example("placeholder")
    for verdict in ("miss", "hit"):
        async with session.get(url(gateway, "/600x400.svg?text=%3Cscript%3E")) as answer:
            text = await answer.text()
            assert answer.content_type == "image/svg+xml"
            assert verdict in answer.headers["Cache-Status"]
            assert 'width="600"' in text and "&lt;script&gt;" in text and "<script>" not in text
    async with session.get(url(gateway, "/9999x1.svg")) as answer:
        assert answer.status == 400


async def test_signed_urls(example: Example, serve: Serve, session: aiohttp.ClientSession) -> None:
    async def file(request: web.Request) -> web.Response:
        return web.Response(text=f"secret {request.path_qs}", headers={"Cache-Control": "max-age=60"})

    gateway = await example("signed_urls", p9001=await serve(file))
    import signed_urls  # found where the gateway's configuration says

    link = signed_urls.signed("/a%20report.pdf", 60)
    refused = [
        "/a%20report.pdf",
        link[:-1] + ("0" if link[-1] != "0" else "1"),
        link.replace("a%20report", "b%20report"),
        link.replace("expires=", "expires=1"),
        "/a%20report.pdf?expires=%CE%B1&signature=",
    ]
    for each in refused:
        async with session.get(aiohttp.client.URL(url(gateway, each), encoded=True)) as answer:
            assert (answer.status, "secret" in await answer.text()) == (403, False)
    async with session.get(aiohttp.client.URL(url(gateway, link), encoded=True)) as answer:
        assert (answer.status, await answer.text()) == (200, "secret /a%20report.pdf")
    async with session.get(
        aiohttp.client.URL(url(gateway, link), encoded=True), headers={"Range": "bytes=0-5"}
    ) as answer:
        assert (answer.status, await answer.text()) == (206, "secret")
    async with session.get(url(gateway, signed_urls.signed("/x", -5))) as answer:
        assert answer.status == 410
    async with session.get(url(gateway, "/x"), headers={"Host": "files.internal"}) as answer:
        assert "secret" not in await answer.text()


async def test_aggregate(example: Example, serve: Serve, session: aiohttp.ClientSession) -> None:
    broken: set[str] = set()

    async def backend(request: web.Request) -> web.Response:
        name = request.host.partition(".")[0]
        if name in broken:
            return web.Response(status=500)
        return web.json_response({"of": request.path_qs})

    port = await serve(backend)
    gateway = await example("aggregate", p9001=port, p9002=port)
    both = {"profile": {"data": {"of": "/users/42"}}, "orders": {"data": {"of": "/orders?user=42"}}}
    async with session.get(url(gateway, "/home/42")) as answer:
        assert (answer.status, await answer.json()) == (200, both)
    broken.add("orders")
    async with session.get(url(gateway, "/home/43")) as answer:
        found = await answer.json()
        assert (answer.status, found["orders"]) == (200, {"error": "status 500"})
        assert found["profile"] == {"data": {"of": "/users/43"}}
    broken.add("users")
    async with session.get(url(gateway, "/home/44")) as answer:
        assert answer.status == 502


async def test_chat(example: Example, session: aiohttp.ClientSession) -> None:
    gateway = await example("chat")
    async with session.get(url(gateway, "/")) as answer:
        assert "WebSocket" in await answer.text()
    async with session.ws_connect(url(gateway, "/room")) as one, session.ws_connect(url(gateway, "/room")) as other:
        await one.send_str("hello")
        assert [await each.receive_str(timeout=WAIT_S) for each in (one, other)] == ["hello", "hello"]
        await other.send_str("x" * 3000)
        assert (await other.receive(timeout=WAIT_S)).data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
        await one.send_str("still here")
        assert await one.receive_str(timeout=WAIT_S) == "still here"
    await until(lambda: gateway.in_flight == 0)


async def test_clock(example: Example, session: aiohttp.ClientSession) -> None:
    gateway = await example("clock")
    for last, wanted in (("", b"id: 0\n"), ("41", b"id: 42\n")):
        async with session.get(url(gateway, "/events"), headers={"Last-Event-ID": last}) as answer:
            assert answer.content_type == "text/event-stream"
            assert await answer.content.readline() == wanted
    await until(lambda: gateway.in_flight == 0)


async def test_geo(example: Example, session: aiohttp.ClientSession) -> None:
    gateway = await example("geo")
    async with session.get(url(gateway, "/")) as answer:
        assert await answer.json() == {"hello": "Hello", "country": None}
        assert answer.headers["Cache-Control"].startswith("private")
    async with session.get(url(gateway, "/"), headers={"X-Forwarded-For": "193.252.1.1"}) as answer:
        assert await answer.json() == {"hello": "Bonjour", "country": "FR"}


async def test_graphql_cache(example: Example, serve: Serve, session: aiohttp.ClientSession) -> None:
    asked: list[Any] = []

    async def graphql(request: web.Request) -> web.Response:
        asked.append(await request.json())
        if request.headers.get("Authorization"):
            return web.json_response({"data": {"me": "secret"}})
        if "boom" in asked[-1]["query"]:
            return web.json_response({"errors": ["boom"]})
        return web.json_response({"data": asked[-1]})

    gateway = await example("graphql_cache", p9001=await serve(graphql))

    async def post(asked: dict[str, Any], **headers: str) -> Any:
        async with session.post(url(gateway, "/graphql"), json=asked, headers=headers) as answer:
            assert answer.status == 200
            return await answer.json()

    query = {"query": "query { a }", "variables": {"x": 1, "y": 2}}
    assert await post(query) == {"data": query}
    assert await post({"variables": {"y": 2, "x": 1}, "query": "query { a }"}) == {"data": query}
    assert len(asked) == 1
    for _ in range(2):
        await post({"query": "mutation { a }"})
        await post({"query": "query { boom }"})
        assert await post(query, Authorization="Bearer x") == {"data": {"me": "secret"}}
    assert len(asked) == 7
    headers = {"Host": "cached.internal", "X-GraphQL-Query": "e30="}
    async with session.get(url(gateway, "/stored/0123"), headers=headers) as answer:
        assert answer.status in (400, 404)


async def test_llm_relay(example: Example, serve: Serve, session: aiohttp.ClientSession) -> None:
    go_on = asyncio.Event()

    async def model(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\ndata: {"choi')
        await go_on.wait()
        await response.write(b'ces": [{"delta": {"content": "lo"}}]}\n\n')
        await response.write(b'data: {"choices": [], "usage": {"completion_tokens": 3}}\n\ndata: [DONE]\n\n')
        return response

    gateway = await example("llm_relay", p9001=await serve(model))
    told: list[tuple[str, dict[str, Any]]] = []
    gateway.worker.tell = lambda kind, facts: told.append((kind, facts))
    target, key = url(gateway, "/v1/chat/completions"), {"Authorization": "Bearer key"}
    async with session.post(target, json={"stream": True}) as answer:
        assert answer.status == 401
    async with session.post(target, json={"stream": True}, headers=key) as answer:
        assert b"Hel" in await answer.content.readline()
        go_on.set()
        assert (await answer.read()).endswith(b"data: [DONE]\n\n")
    await until(lambda: told)
    assert told[0][0] == "app.log" and told[0][1]["evidence"].endswith("took 5 tokens")
    assert "Bearer" not in str(told)
    assert gateway.worker.applications.faults()["llm_relay:app"].own == {"tokens": 5}  # type: ignore[union-attr]
    import llm_relay

    for who in llm_relay.app[llm_relay.SPENT]:
        llm_relay.app[llm_relay.SPENT][who] = llm_relay.BUDGET
    async with session.post(target, json={"stream": True}, headers=key) as answer:
        assert answer.status == 429


async def test_html_rewrite(example: Example, serve: Serve, session: aiohttp.ClientSession) -> None:
    page = b'<html><body class="x"><a href="http://old.example.com/a">a</a>' + b"<p>text</p>" * 1000
    link = b'<a href="http://old.example.com/b">b</a></body></html>'

    async def site(request: web.Request) -> web.StreamResponse:
        if request.path == "/plain":
            return web.Response(text="http://old.example.com/")
        response = web.StreamResponse(headers={"Content-Type": "text/html", "ETag": '"old"'})
        await response.prepare(request)
        if request.method != "HEAD":
            whole = page + link
            cut = whole.index(b"old.example.com/b")
            for piece in (whole[:9], whole[9:cut], whole[cut:]):
                await response.write(piece)
                await asyncio.sleep(0.01)  # a slow origin: pieces come one by one
        return response

    gateway = await example("html_rewrite", p9001=await serve(site))
    async with session.get(url(gateway, "/")) as answer:
        body = await answer.read()
        assert "ETag" not in answer.headers
    wanted = (page + link).replace(b"http://old.example.com", b"https://www.example.com")
    assert body == wanted.replace(b'<body class="x">', b'<body class="x"><p class=banner>We have moved.</p>')
    async with session.get(url(gateway, "/plain")) as answer:
        assert await answer.text() == "http://old.example.com/"
    async with session.head(url(gateway, "/")) as answer:
        assert answer.status == 200


async def test_hooks(example: Example, serve: Serve, session: aiohttp.ClientSession) -> None:
    asked: list[str] = []

    async def site(request: web.Request) -> web.Response:
        asked.append(request.path)
        assert "User-Agent" not in request.headers
        headers = {"Cache-Control": "max-age=60", "X-Powered-By": "luck"}
        return web.Response(text=request.headers["X-Device"], content_type="text/html", headers=headers)

    gateway = await example("hooks", p9001=await serve(site))
    for agent, device in (("Mozilla (iPhone)", "mobile"), ("Mozilla", "desktop"), ("Mozilla Mobi", "mobile")):
        async with session.get(url(gateway, "/"), headers={"User-Agent": agent}) as answer:
            assert await answer.text() == device
            assert answer.headers["X-Content-Type-Options"] == "nosniff" and "X-Powered-By" not in answer.headers
    async with session.get(url(gateway, "/wp-login.php")) as answer:
        assert answer.status == 404
    assert asked == ["/", "/"]

"""Hooks on a route: they answer, change requests and responses, and keep what is stored apart."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from inprocess import APPS, Gateway, StartEdge, app_toml, until
from kit.http2 import Http2Client
from kit.waiting import WAIT_S

from edge.errors import ConfigError

sys.path.insert(0, str(APPS))

import hooks_under_test as under_test

asked: list[tuple[str, dict[str, str]]] = []


async def origin(request: web.Request) -> web.StreamResponse:
    asked.append((request.path_qs, {name.lower(): value for name, value in request.headers.items()}))
    body = f"{request.path_qs} {request.headers.get('X-Variant', '')}{request.headers.get('X-Language', '')}"
    if request.query_string == "large":
        body = "x" * 2 * 1024 * 1024
    headers = {"Cache-Control": "max-age=60", "X-Origin": "here", "Server": "origin"}
    return web.Response(text=body, headers=headers)


@pytest_asyncio.fixture
async def port() -> AsyncIterator[int]:
    asked.clear()
    under_test.calls.clear()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", origin)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as found:
        yield found


def toml(port: int, *hooks: str, route: str = "") -> str:
    names = ", ".join(f'"hooks_under_test:{name}"' for name in hooks)
    return app_toml(f'url = "http://127.0.0.1:{port}"', route=f"hooks = [{names}]\n{route}")


async def ask(
    session: aiohttp.ClientSession, gateway: Gateway, path: str, **headers: str
) -> tuple[int, str, dict[str, str]]:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    async with session.get(f"http://127.0.0.1:{gateway.port}{path}", headers=fields) as got:
        return got.status, await got.text(), dict(got.headers)


def events_of(gateway: Gateway) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    gateway.worker.tell = lambda kind, facts: told.append({**facts, "kind": kind})
    return told


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hook is told of for being slow: on a busy machine any may be."""
    monkeypatch.setattr("edge.dataplane.rules.hooks.BUDGET_S", WAIT_S)


@pytest.fixture(params=["cache", "no cache", "compress"])
def route(request: pytest.FixtureRequest) -> str:
    kinds = {"no cache": "cache = false", "compress": 'compress = { codings = ["gzip"], types = ["*/*"], min = "1B" }'}
    return kinds.get(request.param, "")


async def test_it_answers(port: int, route: str, edge: StartEdge, session: aiohttp.ClientSession) -> None:
    gateway = await edge(toml(port, "Hooks", route=route))
    status, text, fields = await ask(session, gateway, "/facts?x=1", X_A="a", Cookie="b=1; c=2", User_Agent="me")
    assert text.startswith(f"GET /facts?x=1 127.0.0.1:{gateway.port} http 127.0.0.1 site a 2 ")
    assert (status, fields["X-B"], fields["Content-Type"]) == (200, "2", "text/plain; charset=utf-8")
    assert (await ask(session, gateway, "/teapot"))[0] == 418
    assert not asked
    status, text, fields = await ask(session, gateway, "/secret")
    assert (status, text, fields["X-Why"]) == (401, "who?", "token")
    assert (await ask(session, gateway, "/secret", Authorization="Bearer good"))[0] == 200
    assert [line["reason"] for line in await gateway.log(3)][:3] == ["hook"] * 3


async def test_a_body_and_head_go_with_it(port: int, edge: StartEdge, session: aiohttp.ClientSession) -> None:
    gateway = await edge(toml(port, "Hooks"))
    url = f"http://127.0.0.1:{gateway.port}/facts"
    async with session.post(url, data=b"x" * 100_000) as got:
        assert got.status == 200 and (await got.text()).startswith("POST")
    async with session.head(url) as got:
        assert (got.status, await got.read()) == (200, b"") and int(got.headers["Content-Length"]) > 10
    assert (await ask(session, gateway, "/other"))[1].startswith("/other")


async def test_what_it_changes_is_asked_and_kept_apart(
    port: int, route: str, edge: StartEdge, session: aiohttp.ClientSession
) -> None:
    gateway = await edge(toml(port, "Hooks", route=route))
    for _ in range(2):
        for variant in ("a", "b"):
            _, text, _ = await ask(session, gateway, "/by-cookie", Cookie=f"variant={variant}")
            assert text == f"/by-cookie {variant}"
    assert len(asked) == (4 if "cache" in route else 2)
    assert all("cookie" not in fields and "user-agent" not in fields for _, fields in asked)
    assert (await ask(session, gateway, "/old"))[1] == "/new?from=old "


async def test_one_changes_what_those_before_it_made(
    port: int, edge: StartEdge, session: aiohttp.ClientSession
) -> None:
    rules = 'request_headers = { set = { X-First = "0", X-Rule = "1" } }\nstrip_prefix = "/site"\ncache = false'
    gateway = await edge(toml(port, "First", "Second", route=rules))
    for _ in range(3):  # as it comes first, and as it is remembered
        assert (await ask(session, gateway, "/site/first", X_Own="1"))[0] == 200
    seen = {(path, *(fields.get(name) for name in ("x-first", "x-rule", "x-own", "via"))) for path, fields in asked}
    assert seen == {("/second", "2", "1", "1", "1.1 edge")}
    gone = {"x-always", "x-real-ip", "user-agent"}
    assert len(asked) == 3 and all(gone.isdisjoint(fields) for _, fields in asked)


async def test_what_is_refreshed_is_changed_as_well(port: int, edge: StartEdge, session: aiohttp.ClientSession) -> None:
    rules = 'cache = { override_ttl = "1s", stale_while_revalidate = "60s" }'
    gateway = await edge(toml(port, "Hooks", route=rules))
    assert (await ask(session, gateway, "/by-cookie", Cookie="variant=b"))[1] == "/by-cookie b"
    while len(asked) < 2:  # until it is stale and was refreshed behind an answer
        assert (await ask(session, gateway, "/by-cookie", Cookie="variant=b"))[1] == "/by-cookie b"
    assert asked[-1][1]["x-variant"] == "b"
    assert (await ask(session, gateway, "/by-cookie", Cookie="variant=b"))[1] == "/by-cookie b"


async def test_its_key_says_what_is_shared(port: int, edge: StartEdge, session: aiohttp.ClientSession) -> None:
    gateway = await edge(toml(port, "Key"))
    for language in ("de", "en", "de-AT", "fr"):
        wanted = "de" if language.startswith("de") else "en"
        assert (await ask(session, gateway, "/page", Accept_Language=language))[1] == f"/page {wanted}"
    assert len(asked) == 2
    assert (await ask(session, gateway, "/no-bytes"))[0] == 500


async def test_it_changes_responses_and_not_what_is_stored(
    port: int, route: str, edge: StartEdge, session: aiohttp.ClientSession
) -> None:
    gateway = await edge(toml(port, "Answers", route=route))
    for stored in (False, "cache" not in route):
        _, _, fields = await ask(session, gateway, "/set")
        assert fields["X-Seen"] == f"200 here {stored}" and "X-Origin" not in fields
        _, text, fields = await ask(session, gateway, "/other")
        assert (text, fields["X-Always"]) == ("/other ", "1")
        assert "Server" not in fields and "Cache-Status" not in fields and fields["X-Origin"] == "here"


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize(
    ("path", "evidence"),
    [
        ("/raises", "a secret"),
        ("/bad-type", "request returned int"),
        ("/bad-name", "no name of a field"),
        ("/bad-value", "not one line"),
        ("/bad-framing", "the gateway's to say"),
        ("/bad-target", "percent-encoded"),
        ("/bad-status", "a status of 99"),
    ],
)
async def test_one_that_fails_is_500_one_event_and_no_request(
    path: str, evidence: str, port: int, edge: StartEdge, session: aiohttp.ClientSession
) -> None:
    gateway = await edge(toml(port, "Hooks"))
    told = events_of(gateway)
    status, text, _ = await ask(session, gateway, path)
    assert (status, "secret" in text) == (500, False)
    assert [(each["kind"], each["app"]) for each in told] == [("app.error", "hooks_under_test:Hooks")]
    assert evidence in told[0]["evidence"] and told[0]["request"]
    assert not asked
    assert (await ask(session, gateway, "/other"))[0] == 200


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("path", ["/raises-late", "/bad-late"])
async def test_one_that_fails_on_the_way_back_lets_nothing_out(
    path: str, port: int, route: str, edge: StartEdge, session: aiohttp.ClientSession
) -> None:
    gateway = await edge(toml(port, "Answers", route=route))
    told = events_of(gateway)
    for count in (1, 2):
        status, text, fields = await ask(session, gateway, path)
        assert (status, "secret" in text, fields.get("X-Origin")) == (500, False, None)
        assert len(told) == count  # the error itself is not asked about
    several = await asyncio.gather(*(ask(session, gateway, path, X_Number=str(number)) for number in range(8)))
    assert {status for status, _, _ in several} == {500}
    assert (await ask(session, gateway, "/other"))[0] == 200
    assert [line["status"] for line in await gateway.log(11)] == [500] * 10 + [200]


@pytest.mark.parametrize("head", [b"GET /raises-late", b"HEAD /raises-late", b"GET /raises-late?large"])
async def test_after_one_that_fails_its_connection_goes_on(head: bytes, port: int, route: str, edge: StartEdge) -> None:
    gateway = await edge(toml(port, "Answers", route=route))
    client = await gateway.client()
    fields = b" HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n"
    for _ in range(3):  # one after the other, and one behind the other
        await client.send(head + fields + b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n")
        failed = await client.read_response(head.partition(b" ")[0])
        good = await client.read_response()
        assert failed is not None and good is not None and failed.complete
        assert (failed.status, good.status, failed.get(b"x-origin")) == (500, 200, None)
        assert good.complete and not failed.closed
    await client.close()
    await until(lambda: gateway.in_flight == 0)


async def test_one_that_is_slow_is_told(port: int, edge: StartEdge, session: aiohttp.ClientSession) -> None:
    gateway = await edge(toml(port, "Hooks"))
    told = events_of(gateway)
    assert (await ask(session, gateway, "/slow"))[0] == 200
    assert told[0]["fault"] == "hook" and "request took" in told[0]["evidence"]


async def test_a_route_without_hooks_calls_none(port: int, edge: StartEdge, session: aiohttp.ClientSession) -> None:
    gateway = await edge(toml(port, "Hooks", "Answers") + '[[routes]]\npath = "/plain"\npool = "site"\n')
    await ask(session, gateway, "/plain/facts")
    assert not under_test.calls
    await ask(session, gateway, "/other")
    assert under_test.calls == {"request": 1, "response": 1}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Slow", "its request must be a plain function"),
        ("Nothing", "must have request, response or cache_key"),
        ("Missing", "has no Missing"),
    ],
)
async def test_what_is_no_hook_is_refused(name: str, why: str, port: int, edge: StartEdge) -> None:
    with pytest.raises(ConfigError, match=why):
        await edge(toml(port, name))


async def test_over_http2_one_that_fails_is_500_on_its_stream_alone(port: int, route: str, edge: StartEdge) -> None:
    text = toml(port, "Hooks", "Answers", route=route).replace("[listen]", "[listen]\nh2c = true")
    gateway = await edge(text)
    client = await Http2Client.connect(gateway.port)
    for _ in range(3):
        for path in (b"/raises-late", b"/bad-late"):
            failed = await client.get(path)
            assert (failed.reset, failed.status) == (None, 500) and b"secret" not in failed.body
        answer = await client.get(b"/other")  # the connection, and the compression of its heads, are as they were
        assert (answer.status, answer.body, answer.get(b"x-always")) == (200, b"/other ", b"1")
        assert (await client.get(b"/secret")).status == 401
        assert (await client.get(b"/raises")).status == 500
    await client.close()

"""Applications in the worker: they answer like any backend, and what one does wrong harms its own request alone."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio
from aiohttp import web
from inprocess import APPS, Gateway, StartEdge, app_toml
from kit.waiting import WAIT_S, until

from edge.config.loader import load_text
from edge.control.admin.exposition import exposition
from edge.control.totals import Totals
from edge.dataplane.worker.report import Counting
from edge.errors import ConfigError

sys.path.insert(0, str(APPS))

import site_under_test


def toml(app: str = "site_under_test:app", route: str = "", pool: str = "") -> str:
    return app_toml(f'app = "{app}"', pool=pool, route=route)


Ask = Callable[..., Awaitable[tuple[int, str]]]


@pytest_asyncio.fixture
async def site(edge: StartEdge) -> Gateway:
    site_under_test.seen.clear()
    return await edge(toml())


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as found:
        yield found


async def ask(session: aiohttp.ClientSession, gateway: Gateway, path: str, **more: Any) -> tuple[int, str]:
    async with session.request(more.pop("method", "GET"), f"http://127.0.0.1:{gateway.port}{path}", **more) as answer:
        return answer.status, await answer.text()


async def test_it_knows_who_asks(site: Gateway, session: aiohttp.ClientSession) -> None:
    status, text = await ask(session, site, "/facts", headers={"X-Request-Id": "0123456789abcdef"})
    assert (status, text) == (
        200,
        '{"client": "127.0.0.1", "id": "0123456789abcdef", "route": "site", "region": "default"}',
    )


async def test_the_cache_is_before_it(site: Gateway, session: aiohttp.ClientSession) -> None:
    assert [await ask(session, site, "/stored") for _ in range(3)] == [(200, "kept")] * 3
    assert site_under_test.seen["stored"] == 1


async def test_it_asks_the_gateway_onward_and_purges(site: Gateway, session: aiohttp.ClientSession) -> None:
    assert [(await ask(session, site, "/onward"))[0] for _ in range(2)] == [200, 200]
    assert site_under_test.seen["stored"] == 1
    log = await site.log(4)
    assert sorted((line["target"], line["verdict"]) for line in log) == [
        ("/onward", "miss"),
        ("/onward", "miss"),
        ("/stored", "hit"),
        ("/stored", "miss"),
    ]
    assert await ask(session, site, "/purge") == (200, "1")
    await ask(session, site, "/stored")
    assert site_under_test.seen["stored"] == 2


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/itself", "a request asks for itself"),
        ("/deeper?depth=0", "nested more than 4 deep"),
    ],
)
async def test_a_loop_ends_with_508(path: str, wanted: str, site: Gateway, session: aiohttp.ClientSession) -> None:
    status, text = await ask(session, site, path)
    assert status == 508 and text.startswith(wanted)
    await until(lambda: site.in_flight == 0)


@pytest.mark.parametrize("pool", ["", "max_in_flight = 2"])  # full: one request begins where another ends
async def test_no_request_sees_the_context_of_another(
    pool: str, edge: StartEdge, session: aiohttp.ClientSession
) -> None:
    site = await edge(toml(pool=pool, route="cache = false"))
    for _ in range(3):
        assert await ask(session, site, "/context") == (200, "started")
    assert await ask(session, site, "/context?deep") == (200, "started started")
    several = await asyncio.gather(*(ask(session, site, f"/context?n={number}") for number in range(20)))
    assert set(several) == {(200, "started")}


async def test_subrequests_are_bounded(site: Gateway, session: aiohttp.ClientSession) -> None:
    assert await ask(session, site, "/many") == (200, "64")
    assert await ask(session, site, "/injected") == (200, "refused")


@pytest.mark.parametrize("path", ["/raises", "/nothing"])
async def test_a_bug_is_a_500_that_tells_no_secret(path: str, site: Gateway, session: aiohttp.ClientSession) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    site.worker.tell = lambda kind, facts: told.append((kind, facts))
    status, text = await ask(session, site, path, headers={"X-Request-Id": "0123456789abcdef"})
    assert (status, text) == (500, "internal error, request 0123456789abcdef\n")
    assert [(kind, facts["request"]) for kind, facts in told] == [("app.error", "0123456789abcdef")]


@pytest.mark.parametrize("path", ["/raises_late", "/short"])
async def test_a_body_that_breaks_off_never_looks_whole(
    path: str, site: Gateway, session: aiohttp.ClientSession
) -> None:
    with pytest.raises(aiohttp.ClientPayloadError):
        await ask(session, site, path)
    assert (await ask(session, site, "/facts"))[0] == 200


async def test_who_waits_for_it_no_longer_ends_it(site: Gateway, session: aiohttp.ClientSession) -> None:
    asked = asyncio.create_task(ask(session, site, "/waits"))
    await until(lambda: site_under_test.seen["waits"] == 1)
    asked.cancel()
    await until(lambda: site_under_test.seen["canceled"] == 1)


async def test_an_application_that_never_answers_is_a_504(edge: StartEdge, session: aiohttp.ClientSession) -> None:
    site_under_test.seen.clear()
    gateway = await edge(toml(pool='timeouts = { first_byte = "300ms" }\nretry = { attempts = 0 }'))
    assert (await ask(session, gateway, "/waits"))[0] == 504
    await until(lambda: site_under_test.seen["canceled"] == site_under_test.seen["waits"] > 0)


async def test_bodies_stream_both_ways(site: Gateway, session: aiohttp.ClientSession) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"u" * 65536

    assert await ask(session, site, "/upload", method="POST", data=pieces()) == (200, str(64 * 65536))
    assert await ask(session, site, "/relay") == (200, str(64 * 65536))


async def test_a_client_that_does_not_read_holds_it_back(site: Gateway, session: aiohttp.ClientSession) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port, limit=1024)
    writer.write(b"GET /download HTTP/1.1\r\nHost: a\r\n\r\n")
    await reader.read(100)
    last, now = -1, 0
    while last != now or not now:
        last = now
        await asyncio.sleep(0.1)  # long enough to move, if it would: there is no event for what does not happen
        now = site_under_test.seen["download"]
    assert last < 16 * 1024 * 1024  # the kernel's buffers, and ours
    writer.close()
    await until(lambda: site.in_flight == 0)


async def test_websocket_and_events(site: Gateway, session: aiohttp.ClientSession) -> None:
    async with session.ws_connect(f"http://127.0.0.1:{site.port}/echo") as socket:
        await socket.send_str("hello")
        assert await socket.receive_str(timeout=WAIT_S) == "hello"
    assert await ask(session, site, "/events") == (200, "data: 0\n\ndata: 1\n\ndata: 2\n\n")


async def test_a_bare_coroutine(edge: StartEdge, session: aiohttp.ClientSession) -> None:
    gateway = await edge(toml("site_under_test:handler"))
    assert await ask(session, gateway, "/a/b?c=d", method="PUT", data=b"x") == (200, "PUT /a/b?c=d")


@pytest.mark.parametrize(
    ("app", "wanted"),
    [
        ("no_such_module:app", "ModuleNotFoundError"),
        ("site_under_test:no_such", "site_under_test has no no_such"),
        ("site_under_test:number", "a function that makes one, got int"),
    ],
)
async def test_what_cannot_be_used_is_one_line(app: str, wanted: str, edge: StartEdge) -> None:
    with pytest.raises(ConfigError) as caught:
        await edge(toml(app))
    assert len(caught.value.problems) == 1 and wanted in caught.value.problems[0]


ALIKE: list[tuple[str, dict[str, Any]]] = [
    ("/form", {"method": "POST", "data": {"a": "1", "b": "zwei"}}),
    ("/body_json", {"method": "POST", "json": {"a": [1, 2]}}),
    ("/body_json", {"method": "POST", "data": b"{", "headers": {"Content-Type": "application/json"}}),
    ("/cookies", {"cookies": {"x": "y"}}),
    ("/upload", {"method": "POST", "data": b"u" * 100_000, "expect100": True}),
    ("/upload", {"method": "PUT", "data": b""}),
    ("/only-get", {"method": "POST", "data": b"x"}),
    ("/only-get", {"method": "HEAD"}),
    ("/no-such", {}),
    ("/events", {}),
    ("/stored", {"headers": {"Accept-Encoding": "gzip"}}),
]
UNLIKE = {"date", "cache-status", "age", "connection", "x-request-id"}


@pytest.mark.parametrize(("path", "asked"), ALIKE)
async def test_alone_and_behind_the_gateway_it_answers_alike(
    path: str, asked: dict[str, Any], site: Gateway, session: aiohttp.ClientSession
) -> None:
    runner = web.AppRunner(site_under_test.make(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()

    async def answer(port: int) -> tuple[int, list[tuple[str, str]], bytes]:
        url = f"http://127.0.0.1:{port}{path}"
        async with session.request(
            asked.get("method", "GET"), url, **{k: v for k, v in asked.items() if k != "method"}
        ) as got:
            fields = sorted((name.lower(), value) for name, value in got.headers.items() if name.lower() not in UNLIKE)
            return got.status, fields, await got.read()

    session.cookie_jar.clear()
    alone = await answer(runner.addresses[0][1])
    session.cookie_jar.clear()
    behind = await answer(site.port)
    await runner.cleanup()
    if alone[0] == 500:  # the gateway's own words
        assert behind[0] == 500
    else:
        assert behind == alone


async def test_the_example_of_the_docs(edge: StartEdge, session: aiohttp.ClientSession) -> None:
    docs = Path(__file__).parents[2] / "docs" / "compute"
    gateway = await edge(toml("hello:app").replace(str(APPS), str(docs)))
    assert await ask(session, gateway, "/") == (200, "hello 127.0.0.1\n")
    status, text = await ask(session, gateway, "/both?second=/no-such")
    assert (status, orjson.loads(text)["first"]["text"]) == (200, "hello 127.0.0.1\n")
    assert orjson.loads(text)["second"]["status"] == 404
    assert await ask(session, gateway, "/clock?ticks=2&every=0") == (200, "data: 0\n\ndata: 1\n\n")
    load_text((docs / "hello.toml").read_text(), "hello.toml")


async def test_an_internal_route_serves_subrequests_alone(edge: StartEdge, session: aiohttp.ClientSession) -> None:
    text = toml() + '[[routes]]\npath = "/stored"\npool = "site"\ninternal = true\n'
    gateway = await edge(text)
    assert (await ask(session, gateway, "/onward"))[0] == 200
    for method in ("GET", "HEAD", "POST"):  # now it is stored, and would be a hit
        assert (await ask(session, gateway, "/stored", method=method))[0] == 404
        assert (await ask(session, gateway, "/stored/below", method=method))[0] == 404
    assert orjson.loads((await ask(session, gateway, "/onward"))[1])["status"] == 200


async def test_what_it_did_is_counted(edge: StartEdge, session: aiohttp.ClientSession) -> None:
    gateway = await edge(toml())
    for path in ("/facts", "/counts", "/raises", "/raises"):
        await ask(session, gateway, path)
    body = await gateway.on_loop(Counting(gateway.worker).body)
    words = body["words"]
    assert words["app_requests"] == {"site_under_test:app": 4}
    assert words["app_faults"] == {"site_under_test:app\traised": 2}
    own = words["app_own"]
    assert (own["site_under_test:app\tseen"], own["site_under_test:app\tother"], len(own)) == (5, 37, 65)
    totals = Totals()
    totals.add(1, body, 0.0)
    text = exposition(totals, lambda: ()).decode()
    assert 'edge_app_faults_total{app="site_under_test:app",fault="raised"} 2' in text
    assert 'edge_app_own_total{app="site_under_test:app",name="seen"} 5' in text


async def test_subrequests_of_a_client_keep_to_its_own_connections(
    edge: StartEdge, session: aiohttp.ClientSession
) -> None:
    text = toml().replace("[listen]", '[listen]\ntrusted_proxies = ["127.0.0.0/8"]')
    gateway = await edge(text)
    for _ in range(2):
        for number in range(1, 101):
            await ask(session, gateway, "/onward", headers={"X-Forwarded-For": f"192.0.2.{number}"})
    log = await gateway.log(400)
    by_id: dict[str, set[str]] = {}
    for first, second in zip(log[::2], log[1::2], strict=True):
        assert {first["target"], second["target"]} == {"/stored", "/onward"}
        assert first["client"] == second["client"]
        by_id.setdefault(first["client"], set()).add(first["id"])
    assert len(by_id) == 100
    assert 60 <= len(gateway.worker.downstreams) <= 66  # as many as are kept, and the session's own
    for _ in range(50):
        await ask(session, gateway, "/onward", headers={"X-Forwarded-For": "192.0.2.200"})
    assert len(gateway.worker.downstreams) <= 66

"""The same application alone and behind the gateway gives the same answers, and sees the same requests."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import WSMsgType, web
from inprocess import APPS, Gateway, StartEdge, app_toml
from kit.waiting import WAIT_S

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, about aiohttp's newer ways
sys.path.insert(0, str(APPS))

import public  # noqa: E402

# What a gateway adds or decides for its own connection; and the day's time.
UNLIKE = {"date", "cache-status", "age", "connection", "keep-alive", "via", "x-request-id", "proxy-status"}
TOML = app_toml('app = "public:make"')


class Ports(NamedTuple):
    """Where the application is, each way."""

    alone: int
    behind: int


@pytest_asyncio.fixture(params=["cache", "no cache"])
async def ports(edge: StartEdge, request: pytest.FixtureRequest) -> AsyncIterator[Ports]:
    runner = web.AppRunner(public.make(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    gateway: Gateway = await edge(TOML + ("" if request.param == "cache" else "cache = false\n"))
    yield Ports(runner.addresses[0][1], gateway.port)
    await runner.cleanup()


def multipart() -> aiohttp.MultipartWriter:
    writer = aiohttp.MultipartWriter("form-data", boundary="the-boundary")
    for name, value, file in (
        ("a", b"1", None),
        ("datei", b"\x00\xff" * 40_000, "bild ä.png"),
        ("empty", b"", "e.txt"),
    ):
        part = writer.append(value, {"Content-Type": "image/png" if file else "text/plain"})  # type: ignore[arg-type]
        part.set_content_disposition("form-data", name=name, **({"filename": file} if file else {}))
    return writer


async def pieces() -> AsyncIterator[bytes]:
    for number in range(20):
        yield bytes([number]) * 3000
        await asyncio.sleep(0)


class Case(NamedTuple):
    """One request."""

    path: str
    method: str = "GET"
    more: Any = dict  # makes the other arguments: bodies are used up


def sent(**headers: str) -> Any:
    return lambda: {"headers": {name.replace("_", "-"): value for name, value in headers.items()}}


SIZE = (APPS / "public.py").stat().st_size
CASES = [
    Case("/parts", "POST", lambda: {"data": multipart()}),
    Case("/form", "POST", lambda: {"data": {"a": "1", "b": "zwei ä"}}),
    Case("/form", "POST", lambda: {"data": aiohttp.FormData({"a": "b" * 100_000})}),
    Case("/json_error", "POST", lambda: {"json": {"a": [1, None, "ä"]}}),
    Case("/json_error", "POST", lambda: {"data": b"{"}),
    Case("/streamed"),
    Case("/streamed?length"),
    Case("/streamed?length", "HEAD"),
    Case("/streamed", "HEAD"),
    Case("/streamed?gzip", more=sent(Accept_Encoding="gzip")),
    Case("/compressed", more=sent(Accept_Encoding="deflate")),
    Case("/compressed", more=sent(Accept_Encoding="identity")),
    Case("/compressed", "HEAD", sent(Accept_Encoding="gzip")),
    *(Case(f"/status/{code}") for code in (200, 201, 203, 204, 205, 304, 307, 400, 404, 410, 451, 500, 503)),
    *(Case(f"/raised/{kind}") for kind in ("found", "see", "conflict", "method", "range", "not-modified", "none")),
    Case("/raised/conflict", more=sent(Accept="application/json")),
    Case("/raised/bug"),
    Case("/cookies", more=lambda: {"cookies": {"x": "y", "c": "1"}}),
    Case("/validated"),
    Case("/validated", more=sent(If_None_Match='"v1"')),
    Case("/validated", more=sent(If_None_Match='"v0"')),
    Case("/files/public.py"),
    Case("/files/public.py", "HEAD"),
    Case("/files/public.py", more=sent(Range="bytes=0-99")),
    Case("/files/public.py", more=sent(Range="bytes=100-")),
    Case("/files/public.py", more=sent(Range="bytes=-50")),
    Case("/files/public.py", more=sent(Range=f"bytes={SIZE}-")),
    Case("/files/public.py", more=sent(If_Modified_Since="Fri, 01 Jan 2038 00:00:00 GMT")),
    Case("/files/public.py", more=sent(If_Unmodified_Since="Thu, 01 Jan 1998 00:00:00 GMT")),
    Case("/files/nothing"),
    Case("/files/"),
    Case("/slash"),
    Case("/no/such/place"),
    Case("/status/200", "POST", lambda: {"data": b"x"}),
    Case("/status/200", "OPTIONS"),
    Case("/whole", "POST", lambda: {"data": pieces()}),
    Case("/whole", "POST", lambda: {"data": b"x" * 250_000}),
    Case("/whole", "POST", lambda: {"data": b"x" * 100_000, "expect100": True}),
    Case("/ignores_body", "POST", lambda: {"data": b"x" * 100}),
    Case("/mounted/a%20b?c=%20d"),
    Case("/shared", "OPTIONS", sent(Origin="http://trusted.example", Access_Control_Request_Method="PUT")),
    Case("/shared", "OPTIONS", sent(Origin="http://other.example", Access_Control_Request_Method="PUT")),
    Case("/shared", more=sent(Origin="http://trusted.example")),
    Case("/shared", "PUT", lambda: {"data": b"x", **sent(Origin="http://trusted.example")()}),
    Case("/asked/a%2Cb%3B/ä?x=1&x=2&y=%C3%A4+%2B&z"),
    Case("/asked", "POST", lambda: {"data": pieces(), "headers": {"Content-Type": "text/plain; charset=latin-1"}}),
    Case("/asked", "PATCH", lambda: {"data": b"", "headers": {"X-A": "1", "x-a": "2", "Authorization": "Basic eA=="}}),
    Case("/asked", "DELETE", lambda: {"cookies": {"a": "1", "b": "2"}}),
    Case("/asked", more=sent(Accept="*/*", Accept_Language="de", Cache_Control="no-cache", Origin="http://a")),
]


async def answer(port: int, case: Case) -> tuple[int, str | None, list[tuple[str, str]], bytes]:
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(auto_decompress=False, connector=connector) as session:
        more = case.more()
        more["headers"] = {"Host": "www.example.com", **more.get("headers", {})}
        url = f"http://127.0.0.1:{port}{case.path}"
        async with session.request(case.method, url, allow_redirects=False, **more) as got:
            fields = sorted(
                (name.lower(), told(value)) for name, value in got.headers.items() if name.lower() not in UNLIKE
            )
            return got.status, got.reason, fields, await got.read()


def told(value: str) -> str:
    """A list in one order: aiohttp-cors makes one of the names of all fields, in any order."""
    return ",".join(sorted(each for each in value.split(",") if each != "Connection"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method} {case.path[:40]}")
async def test_alone_and_behind(case: Case, ports: Ports) -> None:
    alone = await answer(ports.alone, case)
    behind = await answer(ports.behind, case)
    if case.path == "/raised/bug":  # the gateway's own words, with the request's id
        assert (alone[0], behind[0]) == (500, 500) and b"secret" not in behind[3]
        return
    assert behind == alone


async def test_a_session_lives_over_requests(ports: Ports) -> None:
    async def visits(port: int) -> list[Any]:
        found: list[Any] = []
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            for path in ("/visits", "/visits", "/leave", "/visits"):
                async with session.get(f"http://127.0.0.1:{port}{path}") as got:
                    found.append((got.status, await got.json(), str(got.url.path)))
        return found

    assert await visits(ports.behind) == await visits(ports.alone)


async def test_many_requests_over_one_connection(ports: Ports) -> None:
    async def all_of(port: int) -> list[Any]:
        found: list[Any] = []
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            for case in CASES:
                if case.path == "/raised/bug":
                    continue
                url = f"http://127.0.0.1:{port}{case.path}"
                more = case.more()
                more["headers"] = {"Host": "www.example.com", **more.get("headers", {})}
                async with session.request(case.method, url, allow_redirects=False, **more) as got:
                    found.append((case.path, got.status, await got.read()))
                session.cookie_jar.clear()
        return found

    assert await all_of(ports.behind) == await all_of(ports.alone)


# -- WebSocket ---------------------------------------------------------------------------------------------------------

Step = tuple[str, Any]  # what is sent; "" = only listen
TALKS: list[tuple[str, dict[str, Any], list[Step]]] = [
    ("text, binary, large", {}, [("text", "hello"), ("binary", os.urandom(70_000)), ("text", "ä" * 40_000)]),
    ("protocol", {"protocols": ("other", "chat")}, [("text", "who")]),
    ("no common protocol", {"protocols": ("unknown",)}, [("text", "who")]),
    ("compressed", {"compress": 15}, [("text", "who"), ("text", "x" * 50_000)]),
    ("server closes 1000", {}, [("text", "close 1000")]),
    ("server closes 1011", {}, [("text", "close 1011")]),
    ("server closes 4321", {}, [("text", "close 4321")]),
    ("handler raises", {}, [("text", "raise")]),
    ("message too big", {}, [("text", "x" * 150_000)]),
    ("client closes 1001", {}, [("text", "a"), ("close", 1001)]),
    ("client closes 3999", {}, [("close", 3999)]),
    ("ping", {"autoping": False}, [("ping", b"p1"), ("text", "a")]),
    ("ping to the handler", {"autoping": False, "path": "/socket?noping"}, [("ping", b"p1")]),
    ("invalid UTF-8", {}, [("raw", b"\x81\x82\x00\x00\x00\x00\xff\xfe")]),
    ("unmasked", {}, [("raw", b"\x81\x01a")]),
]


async def talk(port: int, more: dict[str, Any], steps: list[Step]) -> list[Any]:
    more = dict(more)
    heard: list[Any] = []
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{port}{more.pop('path', '/socket')}"
        async with session.ws_connect(url, **more) as found:
            heard.append(found.protocol)
            for what, value in steps:
                if what == "text":
                    await found.send_str(value)
                elif what == "binary":
                    await found.send_bytes(value)
                elif what == "ping":
                    await found.ping(value)
                elif what == "raw":
                    transport = found._response.connection.transport  # type: ignore[union-attr]
                    transport.write(value)  # type: ignore[union-attr]
                elif what == "close":
                    heard.append(await found.close(code=value))
                    continue
                message = await found.receive(timeout=WAIT_S)
                heard.append(
                    (message.type, message.data if message.type is not WSMsgType.ERROR else None, message.extra)
                )
            heard.append(found.close_code if found.closed else None)
    return heard


@pytest.mark.parametrize(("name", "more", "steps"), TALKS, ids=[name for name, _, _ in TALKS])
async def test_websocket_alone_and_behind(name: str, more: dict[str, Any], steps: list[Step], ports: Ports) -> None:
    assert await talk(ports.behind, more, steps) == await talk(ports.alone, more, steps)


async def test_a_plain_request_for_a_websocket(ports: Ports) -> None:
    case = Case("/socket")
    assert await answer(ports.behind, case) == await answer(ports.alone, case)

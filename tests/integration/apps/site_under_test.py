"""The application of `test_applications`: every way that one can behave, well or not."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextvars import ContextVar

from aiohttp import web

from edge.sdk import FetchError, edge

seen: Counter[str] = Counter()


async def facts(request: web.Request) -> web.Response:
    me = edge()
    return web.json_response({"client": me.client, "id": me.request_id, "route": me.route, "region": me.region})


async def stored(request: web.Request) -> web.Response:
    seen["stored"] += 1
    return web.Response(text="kept", headers={"Cache-Control": "max-age=60", "Surrogate-Key": "pages"})


async def onward(request: web.Request) -> web.Response:
    async with await edge().fetch("/stored", headers={"X-Asked-By": "onward"}) as answer:
        return web.json_response({"status": answer.status, "body": await answer.text(), "of": dict(answer.headers)})


async def purge(request: web.Request) -> web.Response:
    return web.Response(text=str(await edge().purge_tag("pages")))


async def itself(request: web.Request) -> web.Response:
    async with await edge().fetch("/itself") as answer:
        return web.Response(status=answer.status, text=await answer.text())


async def deeper(request: web.Request) -> web.Response:
    depth = int(request.query["depth"])
    async with await edge().fetch(f"/deeper?depth={depth + 1}") as answer:
        return web.Response(status=answer.status, text=await answer.text())


async def many(request: web.Request) -> web.Response:
    done = 0
    try:
        for _ in range(100):
            async with await edge().fetch("/stored") as answer:
                await answer.read()
                done += 1
    except FetchError:
        pass
    return web.Response(text=str(done))


async def injected(request: web.Request) -> web.Response:
    try:
        await edge().fetch("/stored", headers={"X-A": "b\r\nX-C: d"})
    except ValueError:
        return web.Response(text="refused")
    return web.Response(text="sent")


async def raises(request: web.Request) -> web.Response:
    raise ValueError("a secret")


async def nothing(request: web.Request) -> None:
    return None


async def raises_late(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"begun")
    raise ValueError("a secret")


async def short(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b"begun")
    return response


async def waits(request: web.Request) -> web.Response:
    seen["waits"] += 1
    try:
        await asyncio.Event().wait()
    finally:
        seen["canceled"] += 1
    raise AssertionError


async def upload(request: web.Request) -> web.Response:
    size = 0
    async for piece in request.content.iter_chunked(65536):
        size += len(piece)
    return web.Response(text=str(size))


async def download(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(1024):
        await response.write(b"d" * 65536)
        seen["download"] += 65536
    return response


async def relay(request: web.Request) -> web.StreamResponse:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"r" * 65536

    async with await edge().fetch("/upload", method="POST", body=body()) as answer:
        return web.Response(text=await answer.text())


async def form(request: web.Request) -> web.Response:
    found = await request.post()
    return web.json_response({key: value if isinstance(value, str) else value.filename for key, value in found.items()})


async def body_json(request: web.Request) -> web.Response:
    return web.json_response(await request.json())


async def cookies(request: web.Request) -> web.Response:
    response = web.json_response(dict(request.cookies))
    response.set_cookie("a", "1", httponly=True)
    response.set_cookie("b", "2")
    return response


async def echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data)
    return socket


async def events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    for number in range(3):
        await response.write(b"data: %d\n\n" % number)
    return response


async def counts(request: web.Request) -> web.Response:
    edge().count("seen", 5)
    edge().count("seen", -1)
    for number in range(100):
        edge().count(f"name {number}")
    return web.Response()


LEFT: ContextVar[str] = ContextVar("left", default="nothing")


async def started(application: web.Application) -> None:
    LEFT.set("started")


async def context(request: web.Request) -> web.Response:
    """What the context knows when a request begins, and one that it asks for."""
    found = LEFT.get()
    LEFT.set(request.path_qs)
    if "deep" in request.query:
        async with await edge().fetch("/context") as answer:
            found += " " + await answer.text()
    return web.Response(text=found)


def make() -> web.Application:
    """A fresh application: one can run once only."""
    application = web.Application()
    for handler in (facts, stored, onward, purge, itself, deeper, many, injected, raises, nothing, raises_late, short):
        application.router.add_route("*", f"/{handler.__name__}", handler)
    application.on_startup.append(started)
    for handler in (context, counts, waits, upload, download, relay, form, body_json, cookies, echo, events):
        application.router.add_route("*", f"/{handler.__name__}", handler)
    application.router.add_get("/only-get", stored)
    return application


def __getattr__(name: str) -> web.Application:
    if name == "app":
        return make()
    raise AttributeError(name)


async def handler(request: web.Request) -> web.Response:
    """A bare coroutine."""
    return web.Response(text=f"{request.method} {request.path_qs}")


number = 5

"""The application of `test_app_faults`: one handler for each way to fail."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

from aiohttp import web

from edge.sdk import edge

asked: Counter[str] = Counter()


class Mute(Exception):
    """Its text cannot be made."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    __str__ = __repr__


async def begun(request: web.Request, **headers: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={key.replace("_", "-"): value for key, value in headers.items()})
    await response.prepare(request)
    await response.write(b"begun")
    return response


async def well(request: web.Request) -> web.Response:
    return web.Response(text="well")


async def raises(request: web.Request) -> web.Response:
    raise ValueError("a secret")


async def mute(request: web.Request) -> web.Response:
    raise Mute


async def nothing(request: web.Request) -> None:
    return None


async def text(request: web.Request) -> str:
    return "a secret"


async def announced_less(request: web.Request) -> web.Response:
    return web.Response(body=b"x" * 100, headers={"Content-Length": "3"})


async def announced_more(request: web.Request) -> web.Response:
    return web.Response(body=b"x" * 3, headers={"Content-Length": "100"})


async def body_raises(request: web.Request) -> web.Response:
    async def body() -> AsyncIterator[bytes]:
        yield b"begun"
        raise ValueError("a secret")

    return web.Response(body=body())


async def raises_late(request: web.Request) -> web.StreamResponse:
    await begun(request)
    raise ValueError("a secret")


async def redirects_late(request: web.Request) -> web.StreamResponse:
    await begun(request, Content_Length="500")
    raise web.HTTPFound("/elsewhere")


async def second_answer(request: web.Request) -> web.StreamResponse:
    await begun(request, Content_Length="500")
    return web.Response(text="a secret" * 100)


async def short(request: web.Request) -> web.StreamResponse:
    return await begun(request, Content_Length="100")


async def never(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def stalls(request: web.Request) -> web.StreamResponse:
    await begun(request)
    await asyncio.Event().wait()
    raise AssertionError


async def drips(request: web.Request) -> web.StreamResponse:
    response = await begun(request)
    while True:
        await response.write(b".")
        await asyncio.sleep(0.02)  # a slow application


async def blocks(request: web.Request) -> web.Response:
    for _ in range(16):  # a machine that stands still for one of them leaves enough to be seen
        time.sleep(0.025)  # noqa: ASYNC251 (what it is about)
    return web.Response(text="slept")


async def blocks_beside(request: web.Request) -> web.Response:
    async def beside() -> None:
        for _ in range(16):
            time.sleep(0.025)  # noqa: ASYNC251

    await asyncio.create_task(beside())
    return web.Response(text="slept")


async def itself(request: web.Request) -> web.Response:
    async with await edge().fetch("/itself") as answer:
        return web.Response(status=answer.status, text=await answer.text())


async def closes(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.close()
    return web.Response(text="late")


async def closes_and_waits(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.close()
    await asyncio.sleep(30)
    raise AssertionError


async def aborts(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response(text="late")


async def closes_late(request: web.Request) -> web.StreamResponse:
    response = await begun(request, Content_Length="100")
    assert request.transport is not None
    request.transport.close()
    return response


async def after_the_end(request: web.Request) -> web.StreamResponse:
    response = await begun(request, Content_Length="5")
    await response.write_eof()
    await response.write(b"more")
    return response


async def garbage(request: web.Request) -> web.StreamResponse:
    response = await begun(request, Content_Length="5")
    await response.write_eof()
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\na secret")
    return response


async def goes_on(request: web.Request) -> web.StreamResponse:
    """Its answer is whole long before it ends."""
    response = await begun(request, Content_Length="5")
    await response.write_eof()
    await asyncio.sleep(1.0)  # longer than the limits of the tests
    asked["ended"] += 1
    return response


async def eats(request: web.Request) -> web.Response:
    raise MemoryError


def make() -> web.Application:
    application = web.Application()
    for handler in (
        well, raises, mute, nothing, text, announced_less, announced_more, body_raises, raises_late, redirects_late,
        second_answer, short, never, stalls, drips, blocks, blocks_beside, itself, closes, closes_and_waits, aborts,
        closes_late, after_the_end, garbage, goes_on, eats,
    ):  # fmt: skip

        async def counted(request: web.Request, handler=handler) -> web.StreamResponse:  # type: ignore[no-untyped-def]
            asked[handler.__name__] += 1
            return await handler(request)  # type: ignore[no-any-return]

        application.router.add_route("*", f"/{handler.__name__}", counted)

    async def refuses(request: web.Request, response: web.StreamResponse) -> None:
        if request.path == "/well" and "refuse" in request.query:
            raise ValueError("a secret")

    application.on_response_prepare.append(refuses)
    return application


def __getattr__(name: str) -> web.Application:
    if name == "app":
        return make()
    raise AttributeError(name)

"""A page, a JSON answer put together from two of the gateway's own routes, and a clock as server-sent events."""

from __future__ import annotations

import asyncio

from aiohttp import web

from edge.sdk import FetchError, edge


async def page(request: web.Request) -> web.Response:
    return web.Response(text=f"hello {edge().client}\n", headers={"Cache-Control": "max-age=5"})


async def both(request: web.Request) -> web.Response:
    """Whatever one of them does, the other one's answer is told."""

    async def one(path: str) -> object:
        try:
            async with await edge().fetch(path) as answer:
                return {"status": answer.status, "text": await answer.text()}
        except FetchError as error:
            return {"error": str(error)}

    first, second = await asyncio.gather(one("/"), one(request.query.get("second", "/")))
    return web.json_response({"first": first, "second": second})


async def clock(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    for number in range(int(request.query.get("ticks", "5"))):
        await response.write(f"data: {number}\n\n".encode())
        await asyncio.sleep(float(request.query.get("every", "1")))
    return response


app = web.Application()
app.add_routes([web.get("/", page), web.get("/both", both), web.get("/clock", clock)])

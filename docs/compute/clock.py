"""A clock as server-sent events: a client that comes back goes on where it left.

curl -N http://127.0.0.1:8080/events
"""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

PAGE = """<!doctype html><meta charset="utf-8"><title>clock</title><h1 id="now"></h1><script>
new EventSource("events").onmessage = event => now.textContent = new Date(event.data * 1000).toLocaleTimeString();
</script>
"""


async def page(request: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")


async def events(request: web.Request) -> web.StreamResponse:
    last = request.headers.get("Last-Event-ID", "")
    number = int(last) + 1 if last.isascii() and last.isdigit() and len(last) < 12 else 0
    headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    while True:  # until the client leaves: then this handler is canceled
        await response.write(f"id: {number}\ndata: {int(time.time())}\n\n".encode())
        number += 1
        await asyncio.sleep(1)


app = web.Application()
app.add_routes([web.get("/", page), web.get("/events", events)])

"""A reverse proxy as one writes it in an afternoon: aiohttp server, ClientSession, aiocache's memory cache.

It is the measure of what the usual way costs, and nothing more: bodies are read whole, a hit is a dictionary of bytes,
and none of the gateway's rules are kept. One rule: nothing here is tuned, and nothing is slowed down either.
"""

from __future__ import annotations

import re
import sys

from aiocache import Cache  # type: ignore[import-untyped]
from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

from bench.processes import LOOPBACK

DROPPED = frozenset(("connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "upgrade"))
MAX_AGE = re.compile(r"max-age=(\d+)")
FILES, SLOW = web.AppKey("files", int), web.AppKey("slow", int)
SESSION, CACHE = web.AppKey("session", ClientSession), web.AppKey("cache", Cache)


async def forward(request: web.Request) -> web.Response:
    """One request: the cache, else the origin."""
    cache = request.app[CACHE]
    cacheable = request.method == "GET" and request.path.startswith(("/c/", "/s/"))
    if cacheable and (hit := await cache.get(request.path_qs)) is not None:
        status, headers, body = hit
        return web.Response(status=status, headers=headers, body=body)
    port = request.app[SLOW] if request.path.startswith("/s") else request.app[FILES]
    fields = {name: value for name, value in request.headers.items() if name.lower() not in DROPPED}
    async with request.app[SESSION].request(
        request.method,
        f"http://{LOOPBACK}:{port}{request.path_qs}",
        headers=fields,
        data=await request.read() if request.can_read_body else None,
        allow_redirects=False,
    ) as answer:
        body = await answer.read()
        headers = {name: value for name, value in answer.headers.items() if name.lower() not in DROPPED}
        age = MAX_AGE.search(answer.headers.get("Cache-Control", ""))
        if cacheable and answer.status == 200 and age is not None:
            stored = (answer.status, headers, body)
            await cache.set(request.path_qs, stored, ttl=int(age[1]))
        return web.Response(status=answer.status, headers=headers, body=body)


async def open_session(app: web.Application) -> None:
    """One session for all requests."""
    app[SESSION] = ClientSession(connector=TCPConnector(limit=0), cookie_jar=DummyCookieJar())


async def close_session(app: web.Application) -> None:
    """Close it."""
    await app[SESSION].close()


def main(port: int, files: int, slow: int) -> None:
    """Serve until SIGTERM."""
    app = web.Application()
    app[FILES], app[SLOW] = files, slow
    app[CACHE] = Cache(Cache.MEMORY)
    app.on_startup.append(open_session)
    app.on_cleanup.append(close_session)
    app.router.add_route("*", "/{path:.*}", forward)
    web.run_app(app, host=LOOPBACK, port=port, access_log=None, print=None, keepalive_timeout=300, backlog=4096)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:4]))

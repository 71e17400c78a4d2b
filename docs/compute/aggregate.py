"""One JSON answer from two backends, asked at once. What one of them cannot say is told, and the other's part comes.

curl http://127.0.0.1:8080/home/42
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from edge.sdk import FetchError, edge

PATIENCE_S = 2.0


async def part(host: str, path: str) -> dict[str, Any]:
    """What one backend says, or why it does not."""
    try:
        async with asyncio.timeout(PATIENCE_S), await edge().fetch(path, host=host) as answer:
            if answer.status != 200:
                return {"error": f"status {answer.status}"}
            return {"data": await answer.json()}
    except (FetchError, TimeoutError, ValueError) as error:
        return {"error": type(error).__name__}


async def home(request: web.Request) -> web.Response:
    user = request.match_info["user"]
    profile, orders = await asyncio.gather(
        part("users.internal", f"/users/{user}"), part("orders.internal", f"/orders?user={user}")
    )
    failed = ("error" in profile) + ("error" in orders)
    return web.json_response(
        {"profile": profile, "orders": orders},
        status=502 if failed == 2 else 200,
        headers={"Cache-Control": "no-store" if failed else "max-age=5"},
    )


app = web.Application()
app.router.add_get(r"/home/{user:\d+}", home)

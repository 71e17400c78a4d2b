"""The applications of `test_app_beside`: a page, and one that fails and blocks by the number that it is asked with."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

BLOCKS, BLOCKED_S = 16, 0.025  # of which the watchdog tells; in pieces, each of which a machine may stand still for


async def site(request: web.Request) -> web.Response:
    return web.Response(text="page", headers={"Cache-Control": "max-age=3600"})


async def unsteady(request: web.Request) -> web.Response:
    number = int(request.query_string)
    await asyncio.sleep(0)
    if number % 300 == 150:
        for _ in range(BLOCKS):
            time.sleep(BLOCKED_S)  # noqa: ASYNC251  # that is the fault
    if number % 100 == 0:
        raise ValueError("a secret")
    return web.Response(text=f"{number}")

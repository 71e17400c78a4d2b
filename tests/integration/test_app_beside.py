"""A cached site beside an application that fails now and then and blocks: the site's visitors see nothing but time.

How much time is `bench.beside`'s to say. One rule here: every answer and every count is exact.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import aiohttp
from inprocess import StartEdge, until

APPS = Path(__file__).parent / "apps"
sys.path.insert(0, str(APPS))

REQUESTS, FAILS, BLOCKS = 600, 100, 300  # each hundredth raises, each three-hundredth holds its worker up
CONFIG = f"""
python_path = ["{APPS}"]
[listen]
http = ["127.0.0.1:0"]
[log]
access = "@LOG@"
[pools.site]
backends = [{{ app = "beside_under_test:site" }}]
[pools.unsteady]
backends = [{{ app = "beside_under_test:unsteady" }}]
[[routes]]
path = "/unsteady"
pool = "unsteady"
cache = false
[[routes]]
name = "site"
path = "/"
pool = "site"
"""


async def test_a_cached_site_beside_one_that_fails_and_blocks(edge: StartEdge) -> None:
    gateway = await edge(CONFIG)
    told: list[dict[str, Any]] = []
    gateway.worker.tell = lambda kind, facts: told.append({**facts, "kind": kind})
    base = f"http://127.0.0.1:{gateway.port}"
    numbers = iter(range(1, REQUESTS + 1))
    over = asyncio.Event()
    failed: list[str] = []
    hits = 0

    async def unsteady(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            async with session.get(f"{base}/unsteady?{number}") as answer:
                text = await answer.text()
                assert (answer.status, "secret" in text) == (500 if number % FAILS == 0 else 200, False)
                if answer.status == 500:
                    failed.append(text)

    async def visitor(session: aiohttp.ClientSession) -> None:
        nonlocal hits
        while not over.is_set():
            async with session.get(f"{base}/page") as answer:
                assert (answer.status, await answer.text()) == (200, "page")
            hits += 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        async with session.get(f"{base}/page") as first:
            assert first.status == 200
        visitors = [asyncio.create_task(visitor(session)) for _ in range(8)]
        await asyncio.gather(*(unsteady(session) for _ in range(16)))
        over.set()
        await asyncio.gather(*visitors)
        assert hits > 0 and len(set(failed)) == REQUESTS // FAILS  # each with the id of its own request
    # Where a slow machine stops in the middle of its code, it is told of as well: the line says that it slept.
    await until(lambda: sum("time.sleep(" in each.get("trace", "") for each in told) == REQUESTS // BLOCKS)
    assert sum(each["kind"] == "app.error" for each in told) == REQUESTS // FAILS
    assert {each["app"] for each in told} == {"beside_under_test:unsteady"}
    await until(lambda: gateway.in_flight == 0)

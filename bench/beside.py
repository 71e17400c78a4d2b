"""A cached site beside an application that fails and blocks: `python -m bench.beside [--seconds 15] [--workers 1]`.

Hits are asked for at a fixed rate, and how long each took is counted from when it was due, so that a gateway that
stands still is charged for all that wait meanwhile. Three times in one run: alone, beside an application that does
well, and beside one of which each hundredth request raises and one in the run holds its worker up for 120 ms.

One rule: the bound is on figures of this run. A blocked worker serves nobody: the longest hit is as long as the block,
and the 99th percentile holds for as long as blocks are less than a hundredth of the time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from bench.processes import LOOPBACK, Refused, Running, as_command, free_ports

GATEWAY_CORE, LOAD_CORE = 0, 1
HITS, ASKED = 500, 200  # a second
CONNECTIONS = 16
SITE = """
import time
from aiohttp import web

async def unsteady(request):
    number, blocks = map(int, request.query_string.split(","))
    if number == blocks:
        time.sleep(0.12)
    if blocks and number % 100 == 0:
        raise ValueError(number)
    return web.json_response({"number": number})

async def page(request):
    return web.Response(body=b"x" * 1024, headers={"Cache-Control": "max-age=3600"})

def make():
    application = web.Application()
    application.router.add_get("/page", page)
    application.router.add_get("/unsteady", unsteady)
    return application
"""
CONFIG = """
[listen]
http = ["127.0.0.1:{port}"]
workers = {workers}
[admin]
listen = "127.0.0.1:{admin}"
[state]
path = "state"
[log]
access = "access.log"
[pools.app]
[[pools.app.backends]]
app = "site_of_bench:make"
[[routes]]
path = "/unsteady"
pool = "app"
cache = false
[[routes]]
path = "/page"
pool = "app"
"""


@dataclass
class Seen:
    """What came of the requests of one kind."""

    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    def at(self, part: float) -> float:
        """A percentile, in milliseconds."""
        ordered = sorted(self.seconds)
        return ordered[min(int(len(ordered) * part), len(ordered) - 1)] * 1000


async def ask(port: int, targets: list[str], rate: int) -> Seen:
    """Each target when it is due, over whichever connection is free."""
    seen, due = Seen(), asyncio.Queue[tuple[float, str]]()

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        while True:
            at, target = await due.get()
            writer.write(f"GET {target} HTTP/1.1\r\nHost: site\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            seen.seconds.append(perf_counter() - at)
            status = int(head[9:12])
            seen.statuses[status] = seen.statuses.get(status, 0) + 1
            due.task_done()

    running = [asyncio.create_task(connection()) for _ in range(CONNECTIONS)]
    began = perf_counter()
    for number, target in enumerate(targets):
        await asyncio.sleep(max(0.0, began + number / rate - perf_counter()))
        due.put_nowait((began + number / rate, target))
    over = asyncio.create_task(due.join())
    await asyncio.wait([over, *running], return_when=asyncio.FIRST_COMPLETED)
    for each in running:
        if each.done():
            raise Refused(f"a connection ended: {each.exception()!r}")
        each.cancel()
    return seen


async def rounds(port: int, seconds: int) -> dict[str, tuple[Seen, Seen | None]]:
    """The hits of each round, and what was asked beside them."""
    hits = ["/page"] * (HITS * seconds)
    await ask(port, hits[:HITS], HITS)
    found: dict[str, tuple[Seen, Seen | None]] = {"alone": (await ask(port, hits, HITS), None)}
    for name, blocks in (("one that does well", 0), ("one that fails and blocks", ASKED * seconds // 2)):
        targets = [f"/unsteady?{number},{blocks}" for number in range(1, ASKED * seconds + 1)]
        found[name] = tuple(await asyncio.gather(ask(port, hits, HITS), ask(port, targets, ASKED)))  # type: ignore[assignment]
    return found


def show(found: dict[str, tuple[Seen, Seen | None]]) -> None:
    """The table, and whether the bound was kept."""
    print("hits beside                    p50      p99    p99.9      max  (ms)   statuses; of the application")
    for name, (hits, asked) in found.items():
        figures = " ".join(f"{hits.at(part):8.2f}" for part in (0.5, 0.99, 0.999, 1.0))
        print(f"{name:26} {figures}         {hits.statuses}; {asked.statuses if asked else '-'}")
    well, badly = found["one that does well"][0].at(0.99), found["one that fails and blocks"][0].at(0.99)
    kept = badly <= 1.5 * well + 0.5
    print(f"p99 beside one that fails: {badly:.2f} ms, bound {1.5 * well + 0.5:.2f}: {'kept' if kept else 'NOT KEPT'}")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.beside")
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-beside-")))
        port, admin = free_ports(2)
        (directory / "site_of_bench.py").write_text(SITE)
        config = CONFIG.format(port=port, admin=admin, workers=given.workers)
        (directory / "edge.toml").write_text(config)
        command = [sys.executable, "-m", "edge.cli.main", "run", "-c", str(directory / "edge.toml")]
        gateway = stack.enter_context(Running("gateway", command, directory, GATEWAY_CORE))
        gateway.wait_for(port, "/page")
        show(asyncio.run(rounds(port, given.seconds)))


if __name__ == "__main__":
    as_command(main)

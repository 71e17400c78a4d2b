"""Reloads under load: `python -m bench.reload [--clients 64] [--sockets 20] [--reloads 50] [--seconds 10]`.

A gateway with two workers before two origins; each reload moves the route to the other one and changes a timeout. Told:
requests that failed, WebSockets that were cut, how long a reload took; then one reload of a large configuration, with
the longest pause of a worker's loop meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from kit.processes import GatewayProcess, gateway_head
from kit.reloads import EchoServer, Load, WebSocket

from bench.processes import as_command

BASE = gateway_head(2)


def small(port: int, number: int) -> str:
    """One pool, one route; the number is in it."""
    return f"""{BASE}
[pools.web]
timeouts = {{ head = "{10 + number % 5}s" }}
[[pools.web.backends]]
id = "one"
url = "http://127.0.0.1:{port}"
[[routes]]
host = "any.example"
pool = "web"
cache = false
"""


def large(port: int, routes: int, backends: int) -> str:
    """As many routes and backends, the first of which serves."""
    pools = 20
    text = [small(port, 0)]
    for pool in range(pools):
        text.append(f'[pools.p{pool}]\nbalance = "least-connections"\n')
        for number in range(backends // pools):
            text.append(f'[[pools.p{pool}.backends]]\nurl = "http://127.0.1.{pool + 1}:{9000 + number}"\n')
    for number in range(routes):
        text.append(
            f'[[routes]]\nhost = "h{number % 50}.example.com"\npath = "/r{number}"\npool = "p{number % pools}"\n'
            'cache = { default_ttl = "60s", bypass = { cookies = ["session"] }, ignore_query = ["utm_source"] }\n'
        )
    return "".join(text)


async def speak(sockets: list[WebSocket], stop: asyncio.Event) -> int:
    """How many of them were cut."""

    async def one(socket: WebSocket) -> int:
        while not stop.is_set():
            try:
                assert await socket.echo(b"still here") == b"still here"
            except (OSError, EOFError, AssertionError):
                return 1
            await asyncio.sleep(0.05)
        return 0

    return sum(await asyncio.gather(*(one(each) for each in sockets)))


async def slowest(port: int, stop: asyncio.Event) -> float:
    """Milliseconds of the slowest of many requests, one at a time, that need no backend."""
    worst = 0.0
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while not stop.is_set():
        began = time.perf_counter()
        writer.write(b"GET / HTTP/1.1\r\nHost: nobody.invalid\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        worst = max(worst, time.perf_counter() - began)
        await asyncio.sleep(0.0005)
    writer.close()
    return round(worst * 1000, 1)


async def under_load(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Reload after reload."""
    origins = [await EchoServer(name).start() for name in (b"one", b"two")]
    gateway = await asyncio.to_thread(GatewayProcess.start, small(origins[0].port, 0), directory)
    try:
        load, over = Load(gateway.http_port), asyncio.Event()
        sockets = [await WebSocket.connect(gateway.http_port) for _ in range(options.sockets)]
        asking = asyncio.create_task(load.run(options.clients))
        speaking = asyncio.create_task(speak(sockets, over))
        began, took = time.perf_counter(), []
        for number in range(1, options.reloads + 1):
            gateway.rewrite(small(origins[number % 2].port, number))
            answer = await asyncio.to_thread(reload, gateway)
            took.append(answer["took_ms"])
            await asyncio.sleep(max(0.0, began + options.seconds * number / options.reloads - time.perf_counter()))
        seconds = time.perf_counter() - began
        load.stop.set()
        over.set()
        await asking
        return {
            "reloads": options.reloads,
            "seconds": round(seconds, 1),
            "requests": load.done,
            "failed": len(load.failed),
            "why": load.failed[:3],
            "websockets": len(sockets),
            "cut": await speaking,
            "answers": {name.decode(): count for name, count in load.bodies.items()},
            "took_ms": {"median": sorted(took)[len(took) // 2], "most": max(took)},
        }
    finally:
        await asyncio.to_thread(gateway.stop)


async def of_a_large_file(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """From a small configuration to a large one, and from that to another large one."""
    origin = await EchoServer(b"one").start()
    first = large(origin.port, options.routes, options.backends)
    gateway = await asyncio.to_thread(GatewayProcess.start, small(origin.port, 0), directory)
    try:
        found = {}
        for what, text in (
            ("the same small one", small(origin.port, 0)),
            ("a large one", first),
            ("another large one", first.replace("60s", "61s")),
        ):
            gateway.rewrite(text)
            stop = asyncio.Event()
            asking = asyncio.create_task(slowest(gateway.http_port, stop))
            await asyncio.sleep(0.3)
            answer = await asyncio.to_thread(reload, gateway)
            await asyncio.sleep(0.3)
            stop.set()
            found[what] = {"took_ms": answer["took_ms"], "slowest_request_ms": await asking}
        return {"routes": options.routes, "backends": options.backends, **found}
    finally:
        await asyncio.to_thread(gateway.stop)


def reload(gateway: GatewayProcess) -> Any:
    """The gateway's own answer."""
    token = (gateway.directory / "state" / "admin.token").read_text().strip()
    where = f"http://127.0.0.1:{gateway.admin_port}/v1/reload"
    request = urllib.request.Request(where, b"{}", {"Authorization": f"Bearer {token}"}, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return orjson.loads(answer.read())


def main() -> None:
    """Both, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("clients", 64), ("sockets", 20), ("reloads", 50), ("routes", 500), ("backends", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = {}
        for name, part in (("under_load", under_load), ("large", of_a_large_file)):
            directory = Path(place) / name
            directory.mkdir()
            found[name] = asyncio.run(part(options, directory))
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    as_command(main)

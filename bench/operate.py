"""What operating it costs whom: `python -m bench.operate [ROW …]`: upgrade, restart, killed, purge, start, scrape.

Real processes on this machine, clients that ask without a break, everything that is not a whole good answer counted.
Reloads have a benchmark of their own (`bench.reload`).
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from kit.ports import LOOPBACK
from kit.processes import GatewayProcess, gateway_head
from kit.reloads import EchoServer, Load
from kit.waiting import until

from bench.processes import as_command
from bench.reload import large, slowest

CLIENTS = 64
HOST = "any.example"


def site(port: int, workers: int, rules: str = "cache = false") -> str:
    """One pool, one route."""
    return f"""{gateway_head(workers)}
[pools.web]
[[pools.web.backends]]
url = "http://{LOOPBACK}:{port}"
[[routes]]
host = "{HOST}"
pool = "web"
{rules}
"""


class Admin:
    """The admin API of a gateway, on one connection."""

    def __init__(self, gateway: GatewayProcess) -> None:
        token = (gateway.directory / "state" / "admin.token").read_text().strip()
        self._fields = {"Authorization": f"Bearer {token}"}
        self._connection = http.client.HTTPConnection(LOOPBACK, gateway.admin_port, timeout=60)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[bytes, float]:
        """The answer and how many milliseconds it took."""
        data = None if body is None else orjson.dumps(body)
        began = time.perf_counter()
        self._connection.request(method, path, data, self._fields)
        found = self._connection.getresponse()
        text = found.read()
        took_ms = (time.perf_counter() - began) * 1000
        assert found.status == 200, (found.status, text)
        return text, took_ms

    async def json(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's value."""
        return orjson.loads((await asyncio.to_thread(self.ask, method, path, body))[0])


class Loaded:
    """So many clients while the block runs; `seen` is what became of their requests."""

    def __init__(self, port: int) -> None:
        self._load = Load(port)

    async def __aenter__(self) -> Load:
        self._asking = asyncio.create_task(self._load.run(CLIENTS))
        return self._load

    async def __aexit__(self, *what: object) -> None:
        self._load.stop.set()
        await self._asking


def seen(load: Load) -> dict[str, Any]:
    """The numbers."""
    return {"requests": load.done, "failed": len(load.failed), "why": load.failed[:3]}


async def more(load: Load, count: int = 2000) -> None:
    """Until so many more requests were answered."""
    before = load.done
    await until(lambda: load.done > before + count, 30)


async def upgrade(folder: Path) -> dict[str, Any]:
    """A new program takes over under load."""
    origin = await EchoServer(b"one").start()
    gateway = await asyncio.to_thread(GatewayProcess.start, site(origin.port, 2), folder)
    try:
        async with Loaded(gateway.http_port) as load:
            await more(load)
            began = time.perf_counter()
            await Admin(gateway).json("POST", "/v1/upgrade")
            took_ms = (time.perf_counter() - began) * 1000
            await until(lambda: not gateway.running, 60)
            await more(load)
        return {"took_ms": round(took_ms), **seen(load)}
    finally:
        await asyncio.to_thread(gateway.stop)
        await origin.stop()


class Given(GatewayProcess):
    """A gateway whose socket a service manager holds (LISTEN_FDS)."""

    held: socket.socket

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        """As systemd does."""
        script = f'exec 3<&{self.held.fileno()}; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'
        root = str(Path(__file__).resolve().parents[1])
        with self.output.open("ab") as sink:
            return subprocess.Popen(
                ["bash", "-c", script, "bash", *command],
                cwd=self.directory, env=dict(os.environ, PYTHONPATH=root), stdin=subprocess.DEVNULL, stdout=sink,
                stderr=sink, start_new_session=True, pass_fds=[self.held.fileno()],
            )  # fmt: skip


async def restart(folder: Path) -> dict[str, Any]:
    """SIGTERM and a start, three times under load, on a socket that stays."""
    origin = await EchoServer(b"one").start()
    with socket.socket() as held:
        held.bind((LOOPBACK, 0))
        held.listen(4096)
        Given.held, port = held, held.getsockname()[1]
        gateway = await asyncio.to_thread(Given.start, site(origin.port, 2).replace("@HTTP@", str(port)), folder)
        try:
            async with Loaded(port) as load:
                for _ in range(3):
                    await more(load)
                    gateway.signal(signal.SIGTERM)
                    await asyncio.to_thread(gateway.wait, 60)
                    await asyncio.to_thread(gateway.again)
                await more(load)
            return {"restarts": 3, **seen(load)}
        finally:
            await asyncio.to_thread(gateway.stop)
            await origin.stop()


async def killed(folder: Path) -> dict[str, Any]:
    """A worker is killed under load."""
    origin = await EchoServer(b"one").start()
    gateway = await asyncio.to_thread(GatewayProcess.start, site(origin.port, 2), folder)
    try:
        admin = Admin(gateway)
        rows = (await admin.json("GET", "/v1/status"))["workers"]
        async with Loaded(gateway.http_port) as load:
            await more(load)

            async def connections() -> int:
                return int((await admin.json("GET", "/v1/status"))["workers"][0]["connections"])

            at_it = await until(connections, 30)  # told once in a while
            os.kill(rows[0]["pid"], signal.SIGKILL)
            began = time.perf_counter()

            async def replaced() -> bool:
                now = (await admin.json("GET", "/v1/status"))["workers"][0]
                return bool(now["pid"] != rows[0]["pid"] and now["state"] == "ready")

            await until(replaced, 30)
            took_ms = (time.perf_counter() - began) * 1000
            await more(load)
        return {"replaced_ms": round(took_ms), "connections_of_the_killed": at_it, **seen(load)}
    finally:
        await asyncio.to_thread(gateway.stop)
        await origin.stop()


class Versions:
    """An origin whose page may be kept, and has a version."""

    def __init__(self) -> None:
        self.version = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer each request of a connection."""
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                body = b"version %d" % self.version
                writer.write(
                    b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
                )
        except (OSError, EOFError):
            pass  # the gateway has left
        finally:
            writer.close()


async def page(port: int, host: str = HOST, path: str = "/page") -> bytes:
    """The body, on a connection of its own, so that any of the workers answers."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    found = await reader.read()
    writer.close()
    return found.partition(b"\r\n\r\n")[2]


async def purge(folder: Path) -> dict[str, Any]:
    """Purges of a page that four workers have; who still got the one before."""
    origin = Versions()
    server = await asyncio.start_server(origin.serve, LOOPBACK, 0)
    text = site(server.sockets[0].getsockname()[1], 4, "cache = true")
    gateway = await asyncio.to_thread(GatewayProcess.start, text, folder)
    took, stale = [], 0
    try:
        admin = Admin(gateway)
        body = {"url": f"http://{HOST}/page", "reason": "bench"}
        for number in range(1, 31):
            await asyncio.gather(*(page(gateway.http_port) for _ in range(32)))
            origin.version = number
            _, took_ms = await asyncio.to_thread(admin.ask, "POST", "/v1/purge", body)
            took.append(round(took_ms, 1))
            found = await asyncio.gather(*(page(gateway.http_port) for _ in range(32)))
            stale += sum(each != b"version %d" % number for each in found)
        return {"workers": 4, "purges": len(took), "ms": spread(took), "stale_answers": stale}
    finally:
        await asyncio.to_thread(gateway.stop)
        server.close()


async def start(folder: Path) -> dict[str, Any]:
    """From nothing to `/readyz`, with one worker and the example of a small file."""
    origin = await EchoServer(b"one").start()
    took = []
    for number in range(5):
        place = folder / str(number)
        place.mkdir()
        began = time.perf_counter()
        gateway = await asyncio.to_thread(GatewayProcess.start, site(origin.port, 1), place)
        took.append(round((time.perf_counter() - began) * 1000))
        await asyncio.to_thread(gateway.stop)
    await origin.stop()
    return {"ms": took}


async def scrape(folder: Path) -> dict[str, Any]:
    """Scrapes of many backends and routes, and the slowest answers beside them: of a worker, of the admin listener."""
    origin = await EchoServer(b"one").start()
    gateway = await asyncio.to_thread(GatewayProcess.start, large(origin.port, 50, 100), folder)
    try:
        ask = (page(gateway.http_port, f"h{number % 50}.example.com", f"/r{number}") for number in [*range(50)] * 6)
        await asyncio.gather(*ask)  # no backend is there, but all are counted
        admin, beside, over = Admin(gateway), Admin(gateway), asyncio.Event()
        asking = asyncio.create_task(slowest(gateway.http_port, over))
        took, waits, lines = [], [], 0

        async def look() -> None:
            while not over.is_set():
                waits.append((await asyncio.to_thread(beside.ask, "GET", "/healthz"))[1])
                await asyncio.sleep(0.01)

        looking = asyncio.create_task(look())
        for _ in range(20):
            text, took_ms = await asyncio.to_thread(admin.ask, "GET", "/metrics")
            took.append(round(took_ms, 1))
            lines = text.count(b"\n")
            await asyncio.sleep(0.05)
        over.set()
        await looking
        beside_ms = {"worker": await asking, "admin": round(max(waits), 1)}
        return {"lines": lines, "ms": spread(took), "slowest_beside_ms": beside_ms}
    finally:
        await asyncio.to_thread(gateway.stop)
        await origin.stop()


def spread(values: list[float]) -> dict[str, float]:
    """Median and most."""
    return {"median": sorted(values)[len(values) // 2], "most": max(values)}


ROWS: dict[str, Callable[[Path], Coroutine[Any, Any, dict[str, Any]]]] = {
    "upgrade": upgrade,
    "restart": restart,
    "killed": killed,
    "purge": purge,
    "start": start,
    "scrape": scrape,
}


def main() -> None:
    """The rows that are asked for, or all, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=" ".join(ROWS))
    wanted = parser.parse_args().rows or list(ROWS)
    for name in wanted:
        with tempfile.TemporaryDirectory() as place:
            found = asyncio.run(ROWS[name](Path(place)))
        print(orjson.dumps({name: found}).decode(), flush=True)


if __name__ == "__main__":
    as_command(main)

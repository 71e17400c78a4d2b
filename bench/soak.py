"""The soak: slow readers, broken answers, clients that leave, pipelines that nobody reads, and purges, all at once.

    python -m bench.soak [--seconds 600] [--json]

Beside them one steady client asks for a stored page 50 times a second; what it waits, and what the worker holds in
memory and open files, is told for the first and the last fifth of the run. One rule: every hostile client is bounded in
number, and the figures are of the gateway's worker process alone.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import multiprocessing
import os
import random
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from time import monotonic, sleep

import orjson
from rich.console import Console
from rich.table import Table

from bench.measure import process_tree, resident_bytes
from bench.processes import LOOPBACK, Refused, as_command, gateway_and_origin

RATE = 50.0
SAMPLE_S = 2.0
PAGE_BYTES = 4096
BROKEN = ("short", "chunk", "trickle", "garbage", "never")
Samples = list[tuple[float, int, int]]  # (when, resident bytes, open files)
CROWD = {"slow_reader": 24, "leaver": 8, "broken": 8, "pipeliner": 8, "uploader": 4, "purger": 1}


class Soak:
    """One run: the ports, when it ends, and what was seen."""

    def __init__(self, port: int, admin: int, token: str, seconds: float) -> None:
        self.port, self.admin, self.token = port, admin, token
        self.seconds = seconds
        self.ends_at = monotonic() + seconds
        self.seen: Counter[str] = Counter()
        self.random = random.Random(7)

    @property
    def over(self) -> bool:
        return monotonic() >= self.ends_at

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection with little room for what is not read."""
        return await asyncio.open_connection(LOOPBACK, self.port, limit=16 * 1024)

    def get(self, path: str) -> bytes:
        """A request."""
        return f"GET {path} HTTP/1.1\r\nHost: soak.example\r\n\r\n".encode()

    # -- who takes part ------------------------------------------------------------------------------------------------

    async def slow_reader(self) -> None:
        """Takes a large body in sips, and sometimes not at all."""
        reader, writer = await self.open()
        writer.write(self.get(f"/big/{self.random.randrange(40)}"))
        for _ in range(self.random.randrange(1, 40)):
            if not await reader.read(4096) or self.over:
                break
            await asyncio.sleep(0.1)
        writer.transport.abort()

    async def leaver(self) -> None:
        """Asks and leaves before the answer, or within it."""
        reader, writer = await self.open()
        path = self.random.choice(("/trickle/", "/big/", "/private/", "/page/")) + str(self.random.randrange(10**6))
        writer.write(self.get(path))
        if self.random.random() < 0.5:
            await reader.read(100)
        writer.transport.abort()
        await asyncio.sleep(0.02)

    async def broken(self) -> None:
        """Asks for what the origin breaks; whatever comes is read to its end."""
        reader, writer = await self.open()
        kind = self.random.choices(BROKEN, (4, 4, 4, 4, 1))[0]
        writer.write(self.get(f"/{kind}/{self.random.randrange(10**6)}"))
        try:
            async with asyncio.timeout(3):
                while await reader.read(65536):
                    pass
        except TimeoutError:
            self.seen["broken: given up"] += 1
        writer.transport.abort()

    async def pipeliner(self) -> None:
        """Asks 200 times in one write and reads nothing."""
        _, writer = await self.open()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(self.get("/page/steady") * 200)
        await asyncio.sleep(self.random.random() * 4)
        writer.transport.abort()

    async def uploader(self) -> None:
        """Announces a body and sends part of it."""
        _, writer = await self.open()
        writer.write(b"POST /private/1 HTTP/1.1\r\nHost: soak.example\r\nContent-Length: 1000000\r\n\r\n")
        for _ in range(self.random.randrange(8)):
            writer.write(b"u" * 16384)
            await asyncio.sleep(0.05)
        writer.transport.abort()

    async def purger(self) -> None:
        """Purges by prefix, by tag, and one URL after another."""
        number = self.random.randrange(40)
        purges = ({"prefix": "http://soak.example/big"}, {"tag": "none"}, {"url": f"http://soak.example/big/{number}"})
        await asyncio.to_thread(self._purge, self.random.choice(purges))
        await asyncio.sleep(0.2)

    def _purge(self, body: dict[str, str]) -> None:
        connection = http.client.HTTPConnection(LOOPBACK, self.admin, timeout=10)
        try:
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
            connection.request("POST", "/v1/purge", orjson.dumps(body), headers)
            self.seen[f"purge {connection.getresponse().status}"] += 1
        finally:
            connection.close()

    async def again(self, name: str, act: Callable[[], Awaitable[None]]) -> None:
        """One member of the crowd, until the end."""
        while not self.over:
            try:
                await act()
            except (OSError, asyncio.IncompleteReadError, http.client.HTTPException):
                self.seen[f"{name}: cut"] += 1
                await asyncio.sleep(0.05)
            self.seen[name] += 1


def steady(port: int, ends_at: float) -> list[tuple[float, float]]:
    """The client that must not notice the others, in a process of its own: (when, seconds) of each answer.

    Raises OSError when it gets anything but the whole page.
    """
    waits: list[tuple[float, float]] = []
    request = b"GET /page/steady HTTP/1.1\r\nHost: soak.example\r\n\r\n"
    with socket.create_connection((LOOPBACK, port), timeout=10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = monotonic()
        while (at := monotonic()) < ends_at:
            sock.sendall(request)
            answer = b""
            while len(answer) < PAGE_BYTES or not answer.partition(b"\r\n\r\n")[2][PAGE_BYTES - 1 :]:
                piece = sock.recv(65536)
                if not piece:
                    raise OSError("the steady client was cut")
                answer += piece
            if not answer.startswith(b"HTTP/1.1 200"):
                raise OSError(f"the steady client got {answer[:40]!r}")
            waits.append((at, monotonic() - at))
            sleep(max(0.0, began + len(waits) / RATE - monotonic()))
    return waits


def open_files(pid: int) -> int:
    """Open descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def quantile(values: list[float], share: float) -> float:
    """The value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def run(soak: Soak, worker: int, console: Console) -> dict[str, dict[str, float]]:
    """All at once; the figures of the first and the last fifth."""
    members = [
        asyncio.create_task(soak.again(name, getattr(soak, name)), name=f"{name} {number}")
        for name, count in CROWD.items()
        for number in range(count)
    ]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as beside:
        watching = asyncio.get_running_loop().run_in_executor(beside, steady, soak.port, soak.ends_at)
        samples = await watch(soak, worker, console)
        await asyncio.gather(*members)
        waits = await watching
    soak.seen["steady"] = len(waits)
    return figures_of(soak, samples, waits)


async def watch(soak: Soak, worker: int, console: Console) -> Samples:
    """(when, resident bytes, open files) of the worker, until the end."""
    samples: Samples = []
    with console.status("soak") as status:
        while not soak.over:
            await asyncio.sleep(SAMPLE_S)
            samples.append((monotonic(), resident_bytes(worker), open_files(worker)))
            left = soak.ends_at - monotonic()
            status.update(f"soak: {left:.0f} s left, {samples[-1][1] >> 20} MiB, {samples[-1][2]} files")
    return samples


def figures_of(soak: Soak, samples: Samples, answers: list[tuple[float, float]]) -> dict[str, dict[str, float]]:
    """What is told of the first and the last fifth."""
    began = soak.ends_at - soak.seconds
    fifth = (soak.ends_at - began) / 5
    parts = {"first fifth": (began, began + fifth), "last fifth": (soak.ends_at - fifth, soak.ends_at)}
    figures: dict[str, dict[str, float]] = {}
    for name, (since, until) in parts.items():
        waits = [took * 1000 for at, took in answers if since <= at <= until]
        held = [(resident, files) for at, resident, files in samples if since <= at <= until]
        figures[name] = {
            "p50_ms": quantile(waits, 0.5),
            "p999_ms": quantile(waits, 0.999),
            "longest_ms": max(waits),
            "memory_mib": max(resident for resident, _ in held) / 2**20,
            "files": float(max(files for _, files in held)),
        }
    return figures


CONFIG = """
[listen]
http = ["{loopback}:{port}"]
workers = 1
[limits]
write_timeout = "5s"
[admin]
listen = "{loopback}:{admin}"
token_file = "{place}/state/admin.token"
[state]
path = "{place}/state"
[cache]
memory = "64MiB"
[log]
access = "{place}/access.log"
[pools.web]
ejection = false
timeouts = {{ first_byte = "2s", body = "3s" }}
[[pools.web.backends]]
url = "http://{loopback}:{origin}"
[[routes]]
pool = "web"
"""


def main() -> int:
    """Start origin and gateway, run, print; 1 when the steady client was ever refused or cut."""
    parser = argparse.ArgumentParser(prog="bench.soak", description="Everything hostile at once, for a while.")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (default %(default)g)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    given = parser.parse_args()
    if not 60 <= given.seconds <= 3600:
        parser.error("seconds must be 60 to 3600")
    console = Console(stderr=given.json)
    try:
        with gateway_and_origin("soak", CONFIG) as pair:
            worker = next(pid for pid in process_tree(pair.gateway.pid) if pid != pair.gateway.pid)
            token = (pair.place / "state" / "admin.token").read_text().strip()
            soak = Soak(pair.port, pair.admin, token, given.seconds)
            figures = asyncio.run(run(soak, worker, console))
    except (Refused, OSError) as error:
        console.print(f"bench.soak: {error}", style="red", markup=False)
        return 2 if isinstance(error, Refused) else 1
    if given.json:
        print(orjson.dumps({"figures": figures, "seen": soak.seen}, option=orjson.OPT_INDENT_2).decode())
    else:
        show(figures, soak.seen, console)
    return 0


def show(figures: dict[str, dict[str, float]], seen: Counter[str], console: Console) -> None:
    """The table, and how often each thing happened."""
    table = Table(title=f"a steady client at {RATE:g} requests/s, and the worker", title_justify="left")
    table.add_column("")
    for name in figures:
        table.add_column(name, justify="right")
    for key in ("p50_ms", "p999_ms", "longest_ms", "memory_mib", "files"):
        table.add_row(key, *(f"{part[key]:.1f}" for part in figures.values()))
    console.print(table)
    console.print(", ".join(f"{name} {count}" for name, count in sorted(seen.items())), highlight=False)


if __name__ == "__main__":
    as_command(main)

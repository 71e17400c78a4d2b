"""How long the loop is held by what concerns very many at once: `python -m bench.mass [CASE …]`.

Each case runs in one worker in this process; origin and clients are in another one. A probe runs in each turn of the
loop and reads this thread's CPU time, so the figures are of the gateway's own work and hardly depend on what else the
machine does. `worst` is the longest turn, `in all` the CPU time of the case.

    tag         a purge of 50,000 objects with one tag
    url         a purge of 100,000 variants of one URL, each under a key of its own
    attach      1,500 who wait for a response that turns out storable
    alone       1,500 who wait for one that is not: each fetches it
    validated   1,500 who wait for a validation that succeeds
    pieces      1,500 who take the pieces of one body as they come
"""

from __future__ import annotations

import asyncio
import gc
import selectors
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from time import monotonic, thread_time

from bench.lookup import plan_of
from bench.processes import LOOPBACK
from edge.app import build, listen
from edge.cache.purge import Purge, PurgeKind
from edge.cache.stored import build as stored_of
from edge.config.loader import load_text
from edge.dataplane.worker.worker import Worker

CLIENTS = 1500
HELD_S = 2.0  # how long the origin waits before it answers: until all clients have asked
CONFIG = """
[listen]
http = ["127.0.0.1:0"]
[log]
access = "off"
[cache]
memory = "1GiB"
[pools.origin]
backends = [{{ url = "http://127.0.0.1:{port}", max_in_flight = 2000 }}]
[[routes]]
host = "*"
path = "/"
pool = "origin"
cache = {{}}
"""


class Probe:
    """The CPU time of each turn of the loop."""

    def __init__(self) -> None:
        self.worst = self.total = 0.0
        self._at = thread_time()
        self._on = True
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        now = thread_time()
        self.worst, self.total = max(self.worst, now - self._at), self.total + now - self._at
        self._at = now
        if self._on:
            asyncio.get_running_loop().call_soon(self._turn)

    def end(self) -> None:
        """Look no more."""
        self._on = False

    def stop(self, name: str) -> None:
        """Print what was seen."""
        self.end()
        print(f"{name:10} worst {self.worst * 1000:7.1f} ms   in all {self.total * 1000:8.0f} ms", flush=True)


def fill(worker: Worker, count: int, tag: bytes, base: bytes) -> None:
    """Store small responses: with a tag, or under one URL's key and an addition each."""
    store = worker.store
    assert store is not None
    now = store.clock()
    model = replace(plan_of(0), tags=frozenset((tag,)) if tag else frozenset(), received_at=now, born=now)
    for number in range(count):
        key = b"%b h:v=%d:%d" % (base, len(str(number)), number) if base else b"http://a.example/%d" % number
        store.index.put(stored_of(replace(model, key=key), (b"hello\n",)), now, store.purge_log.now_seq())


async def purged(worker: Worker, purge: Purge, count: int, name: str) -> None:
    """A purge, until nothing is left of what it named."""
    store = worker.store
    assert store is not None
    tag, base = (purge.value, b"") if purge.kind is PurgeKind.TAG else (b"", purge.value)
    fill(worker, count, tag, base)
    await asyncio.sleep(0.3)
    probe = Probe()
    await asyncio.sleep(0)
    store.purge(purge, store.clock())
    for _ in range(count):
        await asyncio.sleep(0)
        if not len(store.index):
            break
    probe.stop(name)


async def asked(worker: Worker, port: int, name: str) -> None:
    """1,500 clients ask for the same while its fetch waits, until each was answered."""
    if name == "validated":
        await clients(port, f"/{name}", 1, wait=True)
    probe = Probe()
    code = await clients(port, f"/{name}", CLIENTS, wait=True)
    probe.stop(name if not code else f"{name} ({code} of the clients got no answer)")


async def clients(port: int, target: str, count: int, wait: bool) -> int:
    """Clients in another process; how many got no whole answer."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.mass", "ask", str(port), target, str(count), stdout=subprocess.PIPE
    )
    out, _ = await child.communicate()
    return int(out or b"-1")


def ask(port: int, target: str, count: int) -> None:
    """The clients: each asks once and reads to the end."""
    selector = selectors.DefaultSelector()
    got: dict[socket.socket, bytes] = {}
    for _ in range(count):
        sock = socket.create_connection((LOOPBACK, port))
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n".encode())
        sock.setblocking(False)
        got[sock] = b""
        selector.register(sock, selectors.EVENT_READ)
    end, left, good = monotonic() + 30, count, 0
    while left and monotonic() < end:
        for key, _ in selector.select(1.0):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            with suppress(BlockingIOError):
                data = sock.recv(1 << 18)
                got[sock] = (got[sock] + data)[:64]
                if not data:
                    selector.unregister(sock)
                    left -= 1
                    good += got[sock].startswith(b"HTTP/1.1 200 ")
    print(count - good)


async def origin(port: int) -> None:
    """The origin: what it answers is in the target."""
    held: dict[str, float] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                target = head.split(" ", 2)[1]
                validates = "if-none-match" in head.lower()
                if target != "/validated" or validates:
                    until = held.setdefault(target, monotonic() + HELD_S)
                    await asyncio.sleep(max(0.0, until - monotonic()))
                if validates:
                    writer.write(b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nCache-Control: max-age=60\r\n\r\n')
                elif target == "/validated":
                    writer.write(b'HTTP/1.1 200 OK\r\nETag: "a"\r\nCache-Control: public, max-age=0\r\n')
                    writer.write(b"Content-Length: 6\r\n\r\nhello\n")
                elif target == "/alone":
                    writer.write(b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 6\r\n\r\nhello\n")
                elif target == "/attach":
                    writer.write(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 6\r\n\r\nhello\n")
                else:
                    writer.write(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 81920\r\n\r\n")
                    for _ in range(10):
                        await asyncio.sleep(0.3)
                        writer.write(b"x" * 8192)
                        await writer.drain()

    server = await asyncio.start_server(serve, LOOPBACK, port, backlog=4096)
    await server.serve_forever()


async def main(names: list[str]) -> None:
    """All cases, or those named."""
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "bench.mass", "origin", str(port)]
    child = await asyncio.create_subprocess_exec(*command)
    config = load_text(CONFIG.format(port=port), "mass.toml")
    worker = build(config)
    gc.disable()  # its pauses are another matter
    bound = await listen(worker, config)
    await asyncio.sleep(1.0)
    try:
        for name in names or ["tag", "url", "attach", "alone", "validated", "pieces"]:
            if name == "tag":
                await purged(worker, Purge(PurgeKind.TAG, b"news"), 50_000, name)
            elif name == "url":
                await purged(worker, Purge(PurgeKind.URL, b"http://a.example/x"), 100_000, name)
            else:
                await asked(worker, bound[0][1], name)
    finally:
        child.kill()
        await child.wait()
        await worker.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["origin"]:
        asyncio.run(origin(int(sys.argv[2])))
    elif sys.argv[1:2] == ["ask"]:
        ask(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    else:
        import uvloop

        uvloop.run(main(sys.argv[1:]))

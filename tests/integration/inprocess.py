"""A real worker in this process: built by `app.build` from a TOML text, on a uvloop of its own in a thread.

One rule: only the control plane is left out. Listeners, timer, sockets and loop are those of `edge run`, and the test's
own loop never shares a turn with them. What a test reads of the worker it reads from outside (counters, in flight);
what it does to the worker it does on the worker's loop, through `on_loop`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import orjson
import uvloop
from kit.client import RawClient
from kit.origin import ScriptedOrigin
from kit.ports import LOOPBACK
from kit.processes import patient
from kit.waiting import until

from edge.app import build, listen
from edge.config.loader import load_text
from edge.dataplane.worker.worker import Worker

T = TypeVar("T")
APPS = Path(__file__).parent / "apps"


class LoopThread:
    """A uvloop that runs in a thread for the whole session."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.escaped: list[Any] = []  # exceptions that no part of the gateway caught
        self.loop.set_exception_handler(lambda _, context: self.escaped.append(context))
        self._thread = threading.Thread(target=self._run, name="gateway-loop", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for it here."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    def close(self) -> None:
        """End the loop and its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Gateway:
    """One worker that listens."""

    def __init__(self, thread: LoopThread, worker: Worker, ports: list[int], log: Path) -> None:
        self.thread = thread
        self.worker = worker
        self.ports = ports
        self._log = log

    @classmethod
    async def start(cls, thread: LoopThread, text: str, log: Path) -> Gateway:
        """Build and listen; raises ConfigError."""
        config = load_text(text.replace("@LOG@", str(log)), "test.toml")

        async def begin() -> tuple[Worker, list[int]]:
            worker = build(config)
            return worker, [port for _, port in await listen(worker, config)]

        worker, ports = await thread.run(begin())
        return cls(thread, worker, ports, log)

    async def stop(self) -> None:
        """End everything at once."""
        await self.on_loop(self.worker.close)

    @property
    def port(self) -> int:
        """The first plain listener's."""
        return self.ports[0]

    async def client(self) -> RawClient:
        """A connected raw client; the caller closes it."""
        return await RawClient.connect(self.port)

    async def on_loop(self, what: Callable[[], Any]) -> Any:
        """Call something on the worker's loop; awaited there when it gives a coroutine."""

        async def call() -> Any:
            found = what()
            return await found if asyncio.iscoroutine(found) else found

        return await self.thread.run(call())

    async def turned(self) -> None:
        """Wait for the end of the worker's turn: what a client has got may be counted a moment after it was written."""
        await self.on_loop(lambda: None)

    def stop_ticks(self) -> None:
        """On its loop: from now on it does by the clock only what the test calls."""
        assert self.worker._timer is not None
        self.worker._timer.cancel()

    # -- what can be counted

    @property
    def in_flight(self) -> int:
        """Requests that backends were taken for and not given back."""
        return sum(backend.in_flight for pool in self.worker.pools.values() for backend in pool.pool.backends)

    def upstream(self) -> list[Any]:
        """Open connections to backends, idle ones included."""
        return [
            each for pool in self.worker.pools.values() for link in pool.links.values() for each in link.connections
        ]

    @property
    def upstream_connections(self) -> int:
        """How many."""
        return len(self.upstream())

    @property
    def requests(self) -> int:
        """Exchanges that ended on a route."""
        return sum(route.meter.requests + len(route.meter.outcomes) for route in self.worker.router.routes)

    async def log(self, count: int) -> list[dict[str, Any]]:
        """The first `count` access log lines (or more), once they are there."""
        return [orjson.loads(line) for line in await self.log_lines(count)]

    async def log_lines(self, count: int) -> list[bytes]:
        """The same as bytes; the log is flushed first, as the timer would do."""

        def lines() -> list[bytes]:
            return self._log.read_bytes().splitlines() if self._log.exists() else []

        async def enough() -> bool:
            await self.on_loop(self.worker.log.flush)
            return len(lines()) >= count

        await until(enough)
        return lines()


StartEdge = Callable[[str], Awaitable[Gateway]]
StartOrigins = Callable[[], Awaitable[ScriptedOrigin]]
Connect = Callable[[int], Awaitable[RawClient]]
Proxy = Callable[..., Awaitable[tuple[Gateway, RawClient]]]


def app_toml(backend: str, *, pool: str = "", route: str = "") -> str:
    """A configuration with one application, or hooks, of the folder `apps`. Texts are lines of their tables."""
    return f"""
python_path = ["{APPS}"]
[listen]
http = ["{LOOPBACK}:0"]
[log]
access = "@LOG@"
[pools.site]
{pool}
[[pools.site.backends]]
{backend}
[[routes]]
name = "site"
pool = "site"
{route}
"""


def edge_toml(
    *origins: int | str,
    listen: str = f'http = ["{LOOPBACK}:0"]',
    limits: str = "",
    pool: str = "",
    backend: str = "",
    route: str = "cache = false",
    log: str = 'access = "@LOG@"',
) -> str:
    """A configuration with one pool; an origin is a port on loopback or a URL. Texts are lines of their tables."""
    backends = "".join(
        f'[[pools.origin.backends]]\nurl = "{o if isinstance(o, str) else f"http://{LOOPBACK}:{o}"}"\n{backend}\n'
        for o in origins
    )
    return f"""
[listen]
{listen}
[limits]
{limits}
[log]
{log}
[pools.origin]
ejection = false
{patient(pool)}
{backends}
[[routes]]
host = "*"
path = "/"
pool = "origin"
{route}
"""

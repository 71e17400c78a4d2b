"""A real gateway around an application, in a test: listener, grammar, routes, cache, limits and log are the real ones.

    from edge.testing import gateway

    async def test_it_is_stored():
        async with gateway(app) as edge:
            for verdict in ("miss", "hit"):
                async with edge.get("/") as answer:
                    assert verdict in answer.headers["Cache-Status"]

With pytest and pytest-asyncio there is a fixture as well; `pytest_plugins = ["edge.testing"]` in conftest.py brings it:

    async def test_it_answers(edge_gateway):
        edge = await edge_gateway(app, origins={"users.internal": users})

One rule: it runs on the test's own event loop and leaves nothing behind: no process, no file, no port. An exception
that the gateway itself should not have let out fails the test.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from edge.adapters.logs import AccessLog
from edge.app import build, listen
from edge.config.loader import load
from edge.config.sources import Sources

if TYPE_CHECKING:
    from aiohttp.client import _RequestContextManager, _WSRequestContextManager

    from edge.dataplane.worker.worker import Worker

FILENAME = "edge.testing"
APP = "app"


class Gateway:
    """A gateway that listens on a free port of this machine. `events` holds what it told, each with its `kind`."""

    def __init__(self, worker: Worker, port: int, log: AccessLog, file: Path, session: aiohttp.ClientSession) -> None:
        self.worker = worker
        self.port = port
        self.events: list[dict[str, Any]] = []
        self.session = session
        self._log = log
        self._file = file

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def request(self, method: str, path: str, **more: Any) -> _RequestContextManager:
        """Ask, as `aiohttp.ClientSession.request` does."""
        return self.session.request(method, self.url + path, **more)

    def get(self, path: str, **more: Any) -> _RequestContextManager:
        """GET."""
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> _RequestContextManager:
        """POST."""
        return self.request("POST", path, **more)

    def ws_connect(self, path: str, **more: Any) -> _WSRequestContextManager:
        """Open a WebSocket."""
        return self.session.ws_connect(self.url + path, **more)

    def faults(self) -> list[dict[str, Any]]:
        """What applications did wrong, as told: `fault`, `evidence`, `request`, `trace`."""
        return [event for event in self.events if event["kind"] in ("app.error", "app.blocked")]

    def log(self) -> list[dict[str, Any]]:
        """The lines of the access log so far, subrequests included."""
        self._log.flush()
        self._log.settle()
        return [orjson.loads(line) for line in self._file.read_bytes().splitlines()]


@asynccontextmanager
async def gateway(
    app: object,
    *,
    route: str = "",
    backend: str = "",
    origins: Mapping[str, object] | None = None,
    config: str | None = None,
    folder: Path | str | None = None,
) -> AsyncIterator[Gateway]:
    """A gateway with `app` on its one public route: a web.Application, a function that makes one, a coroutine function
    that answers requests, or "module:attribute".

    `route` and `backend` are further lines of their tables, such as `cache = false`. `origins` are applications that
    answer for a host, for subrequests. Instead of all this, `config` is a whole configuration; a backend in it that
    says `app = "app:app"` is `app`. Modules are looked for in `folder`. Raises ConfigError.
    """
    given: dict[str, object] = {} if isinstance(app, str) else {f"{APP}:{APP}": app}
    name = app if isinstance(app, str) else f"{APP}:{APP}"
    if config is None:
        config = _configuration(name, route, backend)
        for number, (host, origin) in enumerate((origins or {}).items()):
            given[f"origin{number}:app"] = origin
            config += _origin(number, host)
    async with AsyncExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-testing-")))
        file = place / "access.log"
        log = AccessLog(str(file))
        filename = str(Path(folder or ".") / FILENAME)
        found = load(Sources(filename, config, environment=os.environ))
        found = found.model_copy(update={"log": found.log.model_copy(update={"format": "json"})})
        worker = build(found, log, filename=filename, disk=False, given=given)
        edge = Gateway(worker, 0, log, file, await stack.enter_async_context(aiohttp.ClientSession()))
        worker.tell = lambda kind, facts: edge.events.append({**facts, "kind": kind})
        stack.push_async_callback(worker.close)
        edge.port = next((port for _, port in await listen(worker, found)), 0)
        yield edge
    if worker.bugs:
        raise AssertionError(f"the gateway caught {worker.bugs} exceptions of its own: see standard error")


def _configuration(app: str, route: str, backend: str) -> str:
    return f"""
[listen]
http = ["127.0.0.1:0"]
[pools.{APP}]
[[pools.{APP}.backends]]
app = "{app}"
{backend}
[[routes]]
name = "{APP}"
pool = "{APP}"
{route}
"""


def _origin(number: int, host: str) -> str:
    return f"""
[pools.origin{number}]
[[pools.origin{number}.backends]]
app = "origin{number}:app"
[[routes]]
host = "{host}"
internal = true
pool = "origin{number}"
"""


Start = Callable[..., Awaitable[Gateway]]

try:
    import pytest_asyncio
except ImportError:  # the fixture is for who has it; `gateway` needs no test runner
    pass
else:

    @pytest_asyncio.fixture
    async def edge_gateway() -> AsyncIterator[Start]:
        """`await edge_gateway(app, …)`: a gateway that ends with the test; arguments as of `gateway`."""
        async with AsyncExitStack() as stack:

            async def start(app: object, **more: Any) -> Gateway:
                return await stack.enter_async_context(gateway(app, **more))

            yield start
            await asyncio.sleep(0)  # what has just ended on a client's side ends here as well

"""Fixtures of the kit: a scripted origin, raw clients, gateway processes; and a watch on what a test leaves behind.

One rule: a test that leaves a task running or a socket open fails. Unclosed sockets are ResourceWarnings, which the
project's pytest settings turn into errors; they appear only when the object is collected, so that is done here.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import settings
from kit.client import RawClient
from kit.origin import ScriptedOrigin
from kit.processes import GatewayProcess
from kit.repository import s3  # noqa: F401  # a fixture

Connect = Callable[[int], Awaitable[RawClient]]
StartGateway = Callable[[str], GatewayProcess]

settings.register_profile("untimed", deadline=None)  # a machine that stands still for a moment fails no test
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> None:
    """Watch each asynchronous test that runs on a loop of its own; set up first, so checked last."""
    marker = request.node.get_closest_marker("asyncio")
    shared_loop = marker is not None and marker.kwargs.get("loop_scope", "function") != "function"
    if inspect.iscoroutinefunction(getattr(request, "function", None)) and not shared_loop:
        request.getfixturevalue("no_task_left")


@pytest.fixture(autouse=True)
def collector_as_before() -> Iterator[None]:
    """A worker in this process gives Python's collector a schedule of its own: with it, no later garbage is freed."""
    before = gc.get_threshold()
    yield
    if gc.get_threshold() != before:
        gc.set_threshold(*before)
        gc.unfreeze()
        gc.collect()


@pytest_asyncio.fixture
async def no_task_left() -> AsyncIterator[None]:
    """Fail when a task that the test made still runs at its end."""
    before = asyncio.all_tasks()
    yield
    for _ in range(3):  # what was cancelled or closed at the very end gets its last turn
        await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() - before if task is not asyncio.current_task() and not task.done()]
    gc.collect(1)
    assert not left, f"tasks left running: {[task.get_name() for task in left]}"


@pytest_asyncio.fixture
async def origin() -> AsyncIterator[ScriptedOrigin]:
    """A scripted origin that listens."""
    scripted = ScriptedOrigin()
    await scripted.start()
    yield scripted
    await scripted.stop()


@pytest_asyncio.fixture
async def raw_client() -> AsyncIterator[Connect]:
    """`await raw_client(port)`: a connected raw client, closed at the end of the test."""
    opened: list[RawClient] = []

    async def connect(port: int) -> RawClient:
        opened.append(await RawClient.connect(port))
        return opened[-1]

    yield connect
    for client in opened:
        await client.close()


@pytest.fixture
def gateway_process(tmp_path: Path) -> Iterator[StartGateway]:
    """`gateway_process(toml)`: a ready gateway, ended with all its children at the end of the test."""
    started: list[GatewayProcess] = []

    def start(toml: str) -> GatewayProcess:
        directory = tmp_path / f"gateway-{len(started)}"
        directory.mkdir()
        started.append(GatewayProcess.start(toml, directory))
        return started[-1]

    yield start
    for gateway in started:
        gateway.stop()

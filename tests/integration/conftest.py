"""Fixtures: `edge(toml)` starts a real worker in this process; `client(port)` connects to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from deaf import DeafOrigin
from inprocess import Connect, Gateway, LoopThread, Proxy, StartEdge, StartOrigins, edge_toml
from kit.client import RawClient
from kit.origin import ScriptedOrigin


@pytest.fixture(scope="session")
def gateway_loop() -> Iterator[LoopThread]:
    """The thread on whose loop all gateways of the session run."""
    thread = LoopThread()
    yield thread
    thread.close()


@pytest_asyncio.fixture
async def edge(gateway_loop: LoopThread, tmp_path: Path) -> AsyncIterator[StartEdge]:
    """`await edge(toml)`: a worker that listens, ended with the test; a bug that it caught fails the test."""
    started: list[Gateway] = []

    async def start(text: str) -> Gateway:
        started.append(await Gateway.start(gateway_loop, text, tmp_path / f"access-{len(started)}.log"))
        return started[-1]

    gateway_loop.escaped.clear()
    yield start
    for gateway in started:
        await gateway.stop()
        assert not gateway_loop.escaped, "an exception escaped on the gateway's loop"
        assert gateway.worker.bugs == 0, "the worker caught an exception: see standard error"
        assert gateway.in_flight == 0, "a backend was never given back"


@pytest_asyncio.fixture
async def origins() -> AsyncIterator[StartOrigins]:
    """`await origins()`: one more scripted origin."""
    started: list[ScriptedOrigin] = []

    async def start() -> ScriptedOrigin:
        started.append(ScriptedOrigin())
        await started[-1].start()
        return started[-1]

    yield start
    for each in started:
        await each.stop()


@pytest.fixture
def proxy(origin: ScriptedOrigin, edge: StartEdge, raw_client: Connect) -> Proxy:
    """`await proxy(limits=…)`: a gateway before the one origin, and a raw client that is connected to it."""

    async def start(**lines: str) -> tuple[Gateway, RawClient]:
        gateway = await edge(edge_toml(origin.port, **lines))
        return gateway, await raw_client(gateway.port)

    return start


@pytest_asyncio.fixture
async def deaf_origin() -> AsyncIterator[DeafOrigin]:
    """An origin that reads nothing of a 64 MiB body until it is told to."""
    deaf = DeafOrigin(64 * 1024 * 1024)
    await deaf.start()
    yield deaf
    await deaf.stop()

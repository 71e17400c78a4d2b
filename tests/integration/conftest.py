"""Fixtures: `edge(toml)` starts a real worker in this process; `client(port)` connects to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from inprocess import Gateway, LoopThread, StartEdge, StartOrigin
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

    yield start
    for gateway in started:
        await gateway.stop()
        assert gateway.worker.bugs == 0, "the worker caught an exception: see standard error"
        assert gateway.in_flight == 0, "a backend was never given back"


@pytest_asyncio.fixture
async def origins() -> AsyncIterator[StartOrigin]:
    """`await origins()`: one more scripted origin."""
    started: list[ScriptedOrigin] = []

    async def start() -> ScriptedOrigin:
        started.append(ScriptedOrigin())
        await started[-1].start()
        return started[-1]

    yield start
    for each in started:
        await each.stop()

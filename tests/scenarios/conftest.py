"""Fixtures: `regions`, not started yet; ended with the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from kit.regions import Regions


@pytest_asyncio.fixture
async def regions(tmp_path: Path) -> AsyncIterator[Regions]:
    """Two regions of two origins; `await regions.start(...)` brings up the gateway."""
    found = Regions(tmp_path)
    yield found
    await found.stop()

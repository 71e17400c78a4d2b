"""One machine's part in a fleet, with a server and a host in this process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from edge.cache.fleet.machines import Beat, Machine
from edge.cache.fleet.stream import Entry, Head, Place
from edge.control.fleet.host import FleetSettings
from edge.control.fleet.member import Fleet


class Server:
    """An empty stream; what was told is kept."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    async def beat(self, identity: str, told: dict[str, Any]) -> Beat:
        self.told.append(told)
        machines: list[Machine] = []
        return Beat(Head("h", 0, "", True, "run"), 1000.0, 100.0, machines)

    async def arrived(self, position: int, wait_s: float) -> bool:
        await asyncio.sleep(wait_s)
        return False

    async def read(self, run: str, position: int) -> list[Entry]:
        return []

    async def read_all(self, run: str) -> list[Entry]:
        return []

    async def close(self) -> None:
        """Nothing is open."""


class Host:
    """Does nothing, and says so."""

    def __init__(self) -> None:
        self.distrusted: list[str] = []

    async def distrust(self, why: str) -> None:
        self.distrusted.append(why)

    def tell(self, body: dict[str, Any]) -> None: ...
    def facts(self) -> dict[str, Any]:
        return {}

    def keep(self, place: Place) -> None: ...
    def unsent(self) -> list[Any]:
        return []

    def event(self, kind: str, facts: dict[str, Any]) -> None: ...


@pytest.mark.parametrize("leave", [True, False])
async def test_who_hands_over_to_another_program_does_not_leave(leave: bool) -> None:
    """The successor is the same machine: purges go on waiting for it."""
    server, host = Server(), Host()
    settings = FleetSettings("edge", "id", "", "1", 30.0, 1.0)
    fleet = Fleet(settings, server, host, None)  # type: ignore[arg-type]
    await fleet.start()
    assert fleet.in_step and host.distrusted == ["first time in this fleet"]
    await fleet.stop(leave=leave)
    await fleet.stop()  # the end of the process
    assert [bool(told.get("left")) for told in server.told].count(True) == leave

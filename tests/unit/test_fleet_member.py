"""One machine's part in a fleet, with a server and a host in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kit.waiting import until

from edge.cache.fleet.machines import Beat, Machine
from edge.cache.fleet.stream import Entry, Follower, Head, Place, Todo
from edge.control.fleet.host import FleetSettings
from edge.control.fleet.member import Fleet
from edge.errors import FleetAway


class Server:
    """An empty stream; what was told is kept."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.away = asyncio.Event()
        self.head = Head("h", 0, "", True, "run")

    async def reached(self) -> None:
        if self.away.is_set():
            raise FleetAway("away")

    async def beat(self, identity: str, told: dict[str, Any]) -> Beat:
        await self.reached()
        self.told.append(told)
        machines: list[Machine] = []
        return Beat(self.head, 1000.0, 100.0, machines)

    async def arrived(self, position: int, wait_s: float) -> bool:
        await self.away.wait()
        raise FleetAway("away")

    async def read(self, run: str, position: int) -> list[Entry]:
        await asyncio.Event().wait()  # no answer comes
        return []

    async def read_all(self, run: str) -> list[Entry]:
        return []

    async def close(self) -> None:
        """Nothing is open."""


class Host:
    """Does nothing, and says so."""

    def __init__(self) -> None:
        self.distrusted: list[str] = []
        self.heard: list[tuple[bool, bool]] = []  # what workers were told: catching up, blind
        self.acted: list[int] = []  # beats that had been sent when every worker had acted on it
        self.server: Server | None = None

    async def distrust(self, why: str) -> None:
        self.distrusted.append(why)

    def tell(self, body: dict[str, Any]) -> None:
        if "in_step" in body:
            self.heard.append((body["catching_up"], body["blind"]))

    async def told(self, body: dict[str, Any]) -> None:
        self.tell(body)
        assert self.server is not None
        self.acted.append(len(self.server.told))

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


@asynccontextmanager
async def cut_off(catch_up_s: float = 60.0) -> AsyncIterator[tuple[Fleet, Server, Host]]:
    """A machine that was in step until the server went away."""
    server, host = Server(), Host()
    host.server = server
    settings = FleetSettings("edge", "id", "", "1", 60.0, 1.0, catch_up_s)
    fleet = Fleet(settings, server, host, None)  # type: ignore[arg-type]
    await fleet.start()
    server.away.set()
    await until(lambda: not fleet.in_step)
    yield fleet, server, host
    await fleet.stop()


async def test_requests_are_held_back_before_the_others_hear_of_a_machine_again() -> None:
    async with cut_off() as (fleet, server, host):
        beats = len(server.told)
        assert not any(catching_up for catching_up, _ in host.heard) and not host.acted
        server.head = Head("h", 1, "m", True, "run")
        server.away.clear()
        await until(lambda: len(server.told) > beats)
        assert host.acted == [beats], "before the first beat"
        assert host.heard[-1] == (True, False) and fleet.follower.catching_up


async def test_who_missed_nothing_goes_on_at_once() -> None:
    async with cut_off() as (fleet, server, host):
        server.away.clear()
        await until(lambda: fleet.in_step)
        assert host.heard[-1] == (False, False) and host.distrusted == ["first time in this fleet"]


async def test_who_does_not_read_what_it_missed_in_time_is_blind() -> None:
    async with cut_off(0.05) as (fleet, server, host):
        server.head = Head("h", 1, "m", True, "run")
        server.away.clear()
        await until(lambda: fleet.follower.blind)
        assert host.distrusted[-1] == "cut off from the fleet's purges" and host.heard[-1] == (False, True)


async def test_a_link_that_breaks_again_holds_back_only_who_knows_that_something_was_missed() -> None:
    follower = Follower(Place("h", 1, "m"), 30.0, 100.0)
    follower.on_head(Head("h", 1, "m", True, "run"), 100.0)
    follower.on_load([Entry(1, "m", b"")])
    follower.applied([])
    assert follower.in_step
    follower.cut()
    follower.back(110.0)
    assert follower.catching_up and follower.blind_at == 111.0
    follower.cut()
    assert not follower.catching_up and follower.blind_at == 130.0
    follower.back(112.0)
    assert follower.on_head(Head("h", 2, "n", True, "run"), 112.0) is Todo.READ
    follower.cut()
    assert follower.catching_up and follower.blind_at == 113.0
    assert follower.on_time(113.0) and not follower.catching_up

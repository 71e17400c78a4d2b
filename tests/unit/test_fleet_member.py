"""One machine's part in a fleet, with a server and a host in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kit.waiting import until

from edge.cache.fleet.machines import Beat, Machine
from edge.cache.fleet.purges import FleetPurge
from edge.cache.fleet.stream import Entry, Follower, Head, StreamPlace, Todo
from edge.cache.purge import Purge, PurgeKind
from edge.control.fleet.host import Arrived, FleetSettings
from edge.control.fleet.looking import Looks
from edge.control.fleet.member import TOGETHER, Fleet
from edge.errors import FleetAway


class Server:
    """An empty stream; what was told is kept."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.away = asyncio.Event()
        self.head = Head("h", 0, "", True, "run")
        self.time = 1000.0

    async def reached(self) -> None:
        if self.away.is_set():
            raise FleetAway("away")

    async def beat(self, identity: str, told: dict[str, Any]) -> Beat:
        await self.reached()
        self.told.append(told)
        machines: list[Machine] = []
        return Beat(self.head, self.time, 100.0, machines)

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


class Stream(Server):
    """A stream of some purges, all of which can be read at once."""

    def __init__(self, count: int) -> None:
        super().__init__()
        payload = FleetPurge(Purge(PurgeKind.TAG, b"t"), True, "other").dumps()
        self.entries = [Entry(number, f"m{number}", payload) for number in range(1, count + 1)]

    async def arrived(self, position: int, wait_s: float) -> bool:
        await until(lambda: self.away.is_set() or self.head.position >= position)
        if self.head.position < position:
            raise FleetAway("away")
        return True

    async def read(self, run: str, position: int) -> list[Entry]:
        return [entry for entry in self.entries if entry.position >= position]

    def grown(self) -> None:
        """The server has all of them."""
        self.head = Head("h", len(self.entries), self.entries[-1].mark, True, "run")


class Host:
    """Does nothing, and says so."""

    def __init__(self) -> None:
        self.distrusted: list[str] = []
        self.heard: list[tuple[bool, bool]] = []  # what workers were told: catching up, blind
        self.acted: list[int] = []  # beats that had been sent when every worker had acted on it
        self.server: Server | None = None
        self.applied: list[
            tuple[int, StreamPlace]
        ] = []  # how many entries, and the place that became durable with them
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.holds_at = -1  # so many times entries are applied; then nothing is

    async def apply(
        self, arrived: Sequence[Arrived], place: StreamPlace, recorded: Callable[[Arrived], None]
    ) -> list[dict[str, Any]]:
        if len(self.applied) == self.holds_at:
            await asyncio.Event().wait()
        self.applied.append((len(arrived), place))
        return [{} for _ in arrived]

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

    def keep(self, place: StreamPlace) -> None: ...
    def unsent(self) -> list[Any]:
        return []

    def event(self, kind: str, facts: dict[str, Any]) -> None:
        self.events.append((kind, facts))


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


async def test_who_stops_while_there_is_something_to_tell_stops() -> None:
    """What was waited for and the end come in one turn of the loop."""
    server = Server()
    fleet = Fleet(FleetSettings("edge", "id", "", "1", 30.0, 1.0), server, Host(), None)  # type: ignore[arg-type]
    await fleet.start()
    await until(lambda: len(server.told) >= 2)
    fleet.hurry()
    async with asyncio.timeout(20.0):
        await fleet.stop()
    assert server.told[-1]["left"]


@asynccontextmanager
async def cut_off(catch_up_s: float = 60.0, server: Server | None = None) -> AsyncIterator[tuple[Fleet, Server, Host]]:
    """A machine that was in step until the server went away."""
    server, host = server or Server(), Host()
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
    follower = Follower(StreamPlace("h", 1, "m"), 30.0, 100.0)
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


async def test_clocks_that_differ_or_jump_are_told_and_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = 1000.0
    monkeypatch.setattr("edge.control.fleet.member.time", lambda: here)
    server, host = Server(), Host()
    settings = FleetSettings("edge", "id", "", "1", 60.0, 1.0)
    fleet = Fleet(settings, server, host, None)  # type: ignore[arg-type]
    await fleet.start()

    async def offset() -> float:
        beats = len(server.told)
        fleet.hurry()
        await until(lambda: len(server.told) > beats + 1)
        return float(server.told[-1]["clock_offset_s"])

    def clocks() -> list[float]:
        return [facts["offset_s"] for kind, facts in host.events if kind == "fleet.clock"]

    assert await offset() == pytest.approx(0.0, abs=1.0) and clocks() == []
    here = 1300.0
    assert await offset() == pytest.approx(-300.0, abs=1.0) and clocks() == pytest.approx([-300.0], abs=1.0)
    server.time = 1300.0
    assert await offset() == pytest.approx(0.0, abs=1.0)
    server.time = 100.0
    assert await offset() == pytest.approx(-1200.0, abs=1.0)
    assert clocks() == pytest.approx([-300.0, -1200.0], abs=1.0), "each time it is told once"
    assert fleet.in_step and not fleet.follower.blind
    await fleet.stop()


async def test_a_position_is_told_part_by_part_when_it_is_applied() -> None:
    stream, host = Stream(4 * TOGETHER + 1), Host()
    settings = FleetSettings("edge", "id", "", "1", 60.0, 1.0)
    fleet = Fleet(settings, stream, host, None)  # type: ignore[arg-type]
    await fleet.start()
    fleet.serving()
    host.holds_at = 2
    stream.grown()
    await until(lambda: len(host.applied) == 2)
    assert host.applied == [
        (TOGETHER, StreamPlace("h", number * TOGETHER, f"m{number * TOGETHER}")) for number in (1, 2)
    ]
    fleet.hurry()
    await until(lambda: stream.told[-1]["position"] == 2 * TOGETHER)
    assert max(told["position"] for told in stream.told) == 2 * TOGETHER
    await fleet.stop()


async def test_what_was_missed_is_applied_in_parts() -> None:
    stream = Stream(4 * TOGETHER + 1)
    async with cut_off(server=stream) as (fleet, server, host):
        stream.grown()
        server.away.clear()
        await until(lambda: fleet.in_step)
        assert [count for count, _ in host.applied] == [TOGETHER] * 4 + [1]
        assert fleet.follower.place == StreamPlace("h", 4 * TOGETHER + 1, f"m{4 * TOGETHER + 1}")


async def test_a_look_that_gets_no_answer_keeps_no_other_from_finding_the_server() -> None:
    """The link lost everything when the first looks were sent; nobody answers those."""
    lost = 3

    async with cut_off() as (fleet, server, host):
        looks = 0

        async def reached() -> None:
            nonlocal looks
            looks += 1
            if looks <= lost:
                await asyncio.Event().wait()

        server.reached = reached  # type: ignore[method-assign]
        server.away.clear()
        await until(lambda: fleet.in_step)
        assert looks > lost and host.heard[-1] == (False, False)


async def test_looks_end_with_the_first_answer_or_the_last_failure() -> None:
    waiting: list[asyncio.Future[None]] = []
    cancelled: list[int] = []

    async def look() -> None:
        number = len(waiting)
        waiting.append(asyncio.get_running_loop().create_future())
        try:
            await waiting[number]
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    asked = asyncio.create_task(Looks(look).answered(lambda: 0.001))
    await until(lambda: len(waiting) >= 3)
    waiting[0].set_exception(FleetAway("away"))
    waiting[1].set_result(None)
    await asked
    assert set(cancelled) == set(range(2, len(waiting))), "those that nobody needs any more"

    waiting.clear()
    asked = asyncio.create_task(Looks(look).answered(lambda: 60.0))
    await until(lambda: len(waiting) == 1)
    waiting[0].set_exception(FleetAway("refused"))
    with pytest.raises(FleetAway, match="refused"):
        await asked

"""What a machine's part in a fleet needs of the machine: who it is, and who carries purges out on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edge.cache.fleet.machines import Beat
from edge.cache.fleet.purges import FleetPurge
from edge.cache.fleet.stream import Entry, StreamPlace
from edge.cache.purge import Purge


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """The values of `[fleet]`, and who this is."""

    name: str
    identity: str
    region: str
    version: str
    max_blind_s: float
    ack_timeout_s: float
    catch_up_s: float = 1.0
    key: bytes = b""  # of seals


@dataclass(frozen=True, slots=True)
class Arrived:
    """An entry of the stream, read."""

    entry: Entry
    asked: FleetPurge


@dataclass(frozen=True, slots=True)
class Unsent:
    """A purge that was carried out here alone, with the journal's number of it."""

    number: int
    purge: Purge
    actor: str
    reason: str


class FleetServer(Protocol):
    """The server that machines share. Every call is bounded in time and raises FleetAway."""

    async def reached(self) -> None:
        """Return if the server answers and takes what is written. Nothing is registered by it."""

    async def beat(self, identity: str, told: dict[str, Any]) -> Beat:
        """Register or renew a machine (nothing is written without an identity); what the server says."""

    async def confirmed(self) -> None:
        """Return if the server that was heard is the primary still. Raises FleetAway."""

    async def publish(self, history: str, run: str, mark: str, payload: bytes) -> int:
        """The position of a purge in the stream, as that process of the server has it. Raises HistoryChanged."""

    async def begin(self, instead_of: str, history: str) -> None:
        """An empty stream with a history of its own, unless another machine was faster."""

    async def certify(self, place: StreamPlace, run: str) -> None:
        """The server's new process goes on with the stream, whose last entry this is."""

    async def arrived(self, position: int, wait_s: float) -> bool:
        """Wait for entries from a position on; whether there are any. `read` has them."""

    async def read(self, run: str, position: int) -> list[Entry]:
        """The entries from a position on, some at a time, as that process of the server has them."""

    async def read_all(self, run: str) -> list[Entry]:
        """All that the stream holds."""

    async def close(self) -> None:
        """Close the connections."""


class Companion(Protocol):
    """What machines share besides purges: told with each beat, looked at after it, with a task of its own."""

    def told(self) -> dict[str, Any]:
        """What the next beat tells the other machines."""

    def look(self, line: tuple[str, str], now: float) -> None:
        """The machines were heard. `line` is the stream's history and the server's process; empty: not in step."""

    async def run(self) -> None:
        """The task of this companion; it runs while the machine is in its fleet."""

    async def close(self) -> None:
        """Close what is open."""


class FleetHost(Protocol):
    """What carries purges out on this machine, and remembers the place in the stream."""

    async def apply(
        self, arrived: Sequence[Arrived], place: StreamPlace, recorded: Callable[[Arrived], None]
    ) -> list[dict[str, Any]]:
        """Durable, together with the place, and in every worker; an answer for each. Raises EdgeError.

        `recorded` is called when a purge is what a worker that starts now begins with.
        """

    async def distrust(self, why: str) -> None:
        """As `apply`, for a purge of this machine alone: all that is stored is validated before it is used."""

    def tell(self, body: dict[str, Any]) -> None:
        """Tell every worker where the fleet stands."""

    async def told(self, body: dict[str, Any]) -> None:
        """As `tell`, and every worker acts on it. Raises EdgeError."""

    def facts(self) -> dict[str, Any]:
        """What the other machines are told of this one."""

    def keep(self, place: StreamPlace) -> None:
        """Make the place durable. Raises EdgeError."""

    def unsent(self) -> list[Unsent]:
        """The purges that are not in the stream yet."""

    def sent(self, number: int) -> None:
        """Note that purges up to this number are in the stream."""

    def event(self, kind: str, facts: dict[str, Any]) -> None:
        """Tell the operator."""

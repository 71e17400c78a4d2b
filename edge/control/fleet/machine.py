"""What a fleet's purges do on this machine: `FleetHost` over the supervisor.

One rule: the place in the stream is written down in one transaction with the purges that lead to it, never before them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from edge.cache.fleet.stream import StreamPlace
from edge.cache.purge import Purge, PurgeKind
from edge.control.admin.errors import NotApplied
from edge.control.fleet.host import Arrived, Unsent
from edge.control.link import Refused
from edge.control.purging import Order
from edge.control.registry import Change
from edge.frames import Frame, FrameKind

if TYPE_CHECKING:
    from edge.control.supervisor import Supervisor


class FleetStore(Protocol):
    """Where the place is durable."""

    def place(self) -> StreamPlace | None: ...
    def keep_place(self, place: StreamPlace) -> None: ...
    def unsent(self) -> list[Unsent]: ...
    def sent(self, number: int) -> None: ...


class MachineHost:
    """The purges of a fleet on one machine, by its supervisor."""

    def __init__(self, supervisor: Supervisor, store: FleetStore) -> None:
        self._supervisor = supervisor
        self._store = store

    async def apply(
        self, arrived: Sequence[Arrived], place: StreamPlace, recorded: Callable[[Arrived], None]
    ) -> list[dict[str, Any]]:
        """As `FleetHost.apply`."""
        orders = []
        for each in arrived:
            asked = each.asked
            change = Change(actor=asked.actor or "fleet", reason=asked.reason)
            orders.append(Order(asked.purge, change, asked.lasting, each.entry.position))
        return await self._supervisor.purging.carry_out(orders, place, lambda index: recorded(arrived[index]))

    async def distrust(self, why: str) -> None:
        """As `FleetHost.distrust`."""
        purge = Purge(PurgeKind.ALL, soft=True, distrust=True)
        await self._supervisor.purging.carry_out([Order(purge, Change(actor="fleet", reason=why))])

    def tell(self, body: dict[str, Any]) -> None:
        """As `FleetHost.tell`."""
        self._supervisor.workers.send_all(Frame(FrameKind.FLEET, body))

    async def told(self, body: dict[str, Any]) -> None:
        """As `FleetHost.told`."""
        try:
            await self._supervisor.workers.tell(FrameKind.FLEET, body)
        except Refused as error:
            raise NotApplied(f"a worker does not hold requests back: {error.detail}") from None

    def facts(self) -> dict[str, Any]:
        """As `FleetHost.facts`."""
        supervisor = self._supervisor
        requests, in_flight = supervisor.totals.load(monotonic())
        return {
            "workers": len(supervisor.workers.live),
            "started_at": round(supervisor.started_at, 3),
            "requests_per_second": round(requests, 1),
            "in_flight": in_flight,
        }

    def keep(self, place: StreamPlace) -> None:
        """As `FleetHost.keep`."""
        self._store.keep_place(place)

    def unsent(self) -> list[Unsent]:
        """As `FleetHost.unsent`."""
        return self._store.unsent()

    def sent(self, number: int) -> None:
        """As `FleetHost.sent`."""
        self._store.sent(number)

    def event(self, kind: str, facts: dict[str, Any]) -> None:
        """As `FleetHost.event`."""
        self._supervisor.events.add(kind, facts)

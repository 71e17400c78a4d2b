"""What the fleet says of a backend's health is believed here: `opinions.Believer` over the supervisor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.balance.health import Health
from edge.balance.quorum import QuorumVerdict
from edge.control.membership import Key

if TYPE_CHECKING:
    from edge.control.supervisor import Supervisor


class SupervisorBeliever:
    """What a fleet believes of backends, taken on by the supervisor's routing."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def believed(self, key: Key) -> Health | None:
        """As `Believer.believed`."""
        routing = self._supervisor.routing
        return routing.live(key).health if key in routing.membership.backends else None

    def believe(self, key: Key, health: Health, evidence: str) -> None:
        """As `Believer.believe`."""
        self._supervisor.routing.set_health(key, health, evidence)
        self._supervisor.decide()

    def disputed(self, key: Key, own: Health, verdict: QuorumVerdict) -> None:
        """As `Believer.disputed`."""
        facts = {"pool": key[0], "backend": key[1], "here": own.value, "fleet": verdict.health.value}
        self._supervisor.events.add("fleet.disputed", {**facts, "up": verdict.up, "down": verdict.down})
